//! What the command line names.

use std::path::PathBuf;

use cgroup_reaper::Reaper;

/// A target, with the name by which it is reported.
#[derive(Debug)]
pub struct Target {
    pub name: PathBuf,
    pub reaper: Reaper,
}

/// Where names are looked up, for the report. Without subsystems the root is the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub root: PathBuf,
    pub slice: PathBuf,
    pub subsystems: Vec<PathBuf>,
}
