//! v1 freezer cgroups that hold members of a target frozen, and with them its SIGKILL, without being part of
//! it: an ancestor, or on a hybrid machine the v1 group of processes that are killed by their v2 group.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::own::{Mount, membership};
use super::pin::open_path;
use super::procs::Listing;
use super::tree::descendants;
use super::{file, v1};

/// The freezer cgroup whose own freeze holds the process.
pub(crate) fn frozen_by(pid: i32, mounts: &[Mount]) -> Option<PathBuf> {
    let mount = mounts.iter().find(|mount| mount.has_controller(b"freezer"))?;
    let cgroups = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let mut dir = mount.path_of(membership(&cgroups, mount)?)?;
    let says = |dir: &PathBuf, file: &str| fs::read(dir.join(file)).unwrap_or_default();
    loop {
        let state = says(&dir, "freezer.state");
        if state.is_empty() || state == b"THAWED\n" {
            return None;
        }
        if says(&dir, "freezer.self_freezing") == b"1\n" {
            return Some(dir);
        }
        if !dir.pop() {
            return None;
        }
    }
}

/// Thaws the group that holds a member frozen, if nobody else is in it. False if there is one that is not
/// ours to thaw.
pub(crate) fn thaw(members: &Listing) -> io::Result<bool> {
    let mounts = Mount::all()?;
    let Some(dir) = members.pids.first().and_then(|&pid| frozen_by(pid, &mounts)) else {
        return Ok(true);
    };
    let group = open_path(nix::fcntl::AT_FDCWD, &dir)?;
    let mut held = Listing::default();
    for below in descendants(group.as_fd())? {
        held.add(group.as_fd(), &below)?;
    }
    held.finish();
    if held.strangers > 0 || held.pids.iter().any(|pid| !members.contains(*pid)) {
        return Ok(false);
    }
    log::info!("{}: holds the target frozen and nobody else; thawing it", dir.display());
    file::write(group.as_fd(), Path::new(""), v1::STATE, "THAWED")?;
    Ok(true)
}
