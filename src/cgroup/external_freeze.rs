//! External freezes: v1 freezer cgroups that hold members of a target frozen, so that SIGKILL stays pending, without
//! being part of it: an ancestor, or on a hybrid machine the v1 group of processes that are killed by their v2 group.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, c_path, read_path};
use super::members::MemberList;
use super::mounts::{Mount, membership};
use super::tree::descendants;
use super::v1;
use crate::sys::{Open, Pid, Sys};

/// The most members whose freezer cgroup is looked up in one step.
const ASKED: usize = 64;

/// The freezer cgroup whose own freeze holds the process.
pub(crate) fn frozen_by<S: Sys>(sys: &S, pid: Pid, mount: &Mount) -> Option<PathBuf> {
    let cgroups = read_path(sys, format!("/proc/{pid}/cgroup").as_ref()).ok()?;
    let mut dir = mount.path_of(membership(&cgroups, mount)?)?;
    let says = |dir: &PathBuf, file: &str| read_path(sys, &dir.join(file)).unwrap_or_default();
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

/// Thaws the groups that hold members frozen and no other process. Returns false if a group that holds members frozen
/// holds another process too.
///
/// Groups inside or above the target's `own` freezer groups are not touched: the target's own thaw is for those.
pub(crate) fn thaw<S: Sys>(
    sys: &S,
    mount: Option<&Mount>,
    members: &MemberList,
    own: &[PathBuf],
) -> io::Result<bool> {
    let Some(mount) = mount else { return Ok(true) };
    let mut dirs: Vec<PathBuf> =
        members.pids.iter().take(ASKED).filter_map(|&pid| frozen_by(sys, pid, mount)).collect();
    dirs.retain(|dir| !own.iter().any(|own| dir.starts_with(own) || own.starts_with(dir)));
    dirs.sort_unstable();
    dirs.dedup();
    let mut thawed = true;
    for dir in dirs {
        thawed &= thaw_group(sys, &dir, members)?;
    }
    Ok(thawed)
}

fn thaw_group<S: Sys>(sys: &S, dir: &Path, members: &MemberList) -> io::Result<bool> {
    let group = sys.open(None, &c_path(dir)?, Open::Place)?;
    let mut held = MemberList::default();
    for below in descendants(sys, &group)? {
        held.add(sys, &group, &below)?;
    }
    held.finish();
    if held.unmapped > 0 || held.pids.iter().any(|pid| !members.contains(*pid)) {
        return Ok(false);
    }
    log::info!("thawing {}, which holds members of the target frozen and no other process", dir.display());
    file::write(sys, &group, Path::new(""), v1::STATE, b"THAWED")?;
    Ok(true)
}
