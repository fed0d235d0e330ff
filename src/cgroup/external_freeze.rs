//! External freezes: v1 freezer cgroups outside the target that hold members of it frozen, so that SIGKILL stays
//! pending. Such a cgroup is an ancestor of the target, or, on a machine with v1 and v2, the v1 freezer cgroup of
//! processes that are killed by their v2 cgroup.

use std::io;
use std::path::{Path, PathBuf};

use super::errors::{Cause, Refused, is_denied, is_gone};
use super::file::{self, c_path, read_path};
use super::hierarchy::Version;
use super::identity::{Id, ids_upwards};
use super::members::{MemberList, vanished};
use super::mounts::{Mount, membership};
use super::proc::{Proc, unless_exited};
use super::v1;
use super::walk::{LONGEST, Near, descendants};
use crate::sys::{Open, Pid, Sys};

/// The most members whose freezer cgroup is looked up in one step.
const ASKED: usize = 64;

/// The most of their threads that are looked up.
pub(super) const THREADS: usize = 256;

/// Returns the freezer cgroup whose own freeze holds the process, or a thread of it: on v1 each thread may be in a cgroup of its
/// own, and of a main thread that has exited /proc says that it is in the root (`proc_cgroup_show`). `threads`: how many threads
/// may still be looked up, see [`THREADS`].
pub(crate) fn frozen_by<S: Sys>(
    proc: &Proc<'_, S>,
    pid: Pid,
    mounts: &[Mount],
    threads: &mut usize,
) -> io::Result<Option<PathBuf>> {
    if !mounts.iter().any(Mount::is_freezer) {
        return Ok(None);
    }
    let Some(of_main) = unless_exited(proc.read(pid, "cgroup"))? else { return Ok(None) };
    let frozen = frozen_in(proc.sys, &of_main, mounts)?;
    if frozen.is_some() {
        return Ok(frozen);
    }
    if *threads == 0 {
        return Ok(None);
    }
    let mut seen = vec![of_main];
    let threads_of = unless_exited(proc.threads_of(pid))?.unwrap_or_default();
    for tid in threads_of.into_iter().filter(|&tid| tid != pid) {
        let Some(left) = threads.checked_sub(1) else { return Ok(None) };
        *threads = left;
        let Some(of_thread) = unless_exited(proc.read(pid, &format!("task/{tid}/cgroup")))? else { continue };
        if !seen.contains(&of_thread) {
            let frozen = frozen_in(proc.sys, &of_thread, mounts)?;
            if frozen.is_some() {
                return Ok(frozen);
            }
            seen.push(of_thread);
        }
    }
    Ok(None)
}

/// Returns the freezer cgroup whose own freeze holds a task with this `cgroup` file. Any mount of the freezer's hierarchy may show
/// it.
fn frozen_in<S: Sys>(sys: &S, cgroups: &[u8], mounts: &[Mount]) -> io::Result<Option<PathBuf>> {
    let (mut is_told, mut denied) = (false, None);
    for mount in mounts.iter().filter(|mount| mount.is_freezer()) {
        let Some(dir) = membership(cgroups, mount).and_then(|cgroup| mount.path_of(cgroup)) else {
            continue;
        };
        match frozen_above(sys, dir) {
            Ok(None) => is_told = true,
            // Another mount may show it.
            Err(error) if is_denied(&error) => denied = Some(error),
            frozen => return frozen,
        }
    }
    denied.filter(|_| !is_told).map_or(Ok(None), Err)
}

/// Returns the cgroup whose own freeze holds `dir`: `dir` itself, or a directory above it.
fn frozen_above<S: Sys>(sys: &S, mut dir: PathBuf) -> io::Result<Option<PathBuf>> {
    // If there is no such file, `dir` is the hierarchy's root, or is in another mount.
    let says = |dir: &PathBuf, file: &str| match read_path(sys, &dir.join(file)) {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        text => text,
    };
    loop {
        let state = says(&dir, "freezer.state")?;
        if state.is_empty() || state == b"THAWED\n" {
            return Ok(None);
        }
        if says(&dir, "freezer.self_freezing")? == b"1\n" {
            return Ok(Some(dir));
        }
        if !dir.pop() {
            return Ok(None);
        }
    }
}

/// The result of undoing the external freezes.
pub(crate) struct Undone {
    /// A cgroup that holds members frozen also has another process. It was not touched.
    pub(crate) held: bool,
    /// The last cgroup that could not be thawed, and why.
    pub(crate) refused: Option<Refused>,
}

/// Returns the freezer cgroups that hold some of these members frozen; after an error, the cgroups found so
/// far.
pub(crate) fn find<S: Sys>(
    proc: &Proc<'_, S>,
    mounts: &[Mount],
    members: &[Pid],
) -> (Vec<PathBuf>, Option<Refused>) {
    let (mut dirs, mut refused, mut threads) = (Vec::new(), None, THREADS);
    for &pid in members.iter().take(ASKED) {
        match frozen_by(proc, pid, mounts, &mut threads) {
            Ok(dir) => dirs.extend(dir),
            Err(error) => refused = Some((format!("/proc/{pid}").into(), error.into())),
        }
    }
    dirs.sort_unstable();
    dirs.dedup();
    (dirs, refused)
}

/// Returns those of the cgroups that are neither in a freezer cgroup of the target nor above one: the target's own thaw
/// handles the former, and the freeze of an ancestor is not undone. `own` has the ids of each freezer cgroup of the target
/// and of those above it. Paths would not do: they may lead through other mounts and links.
pub(crate) fn outside<S: Sys>(sys: &S, dirs: Vec<PathBuf>, own: &[Vec<Id>]) -> Result<Vec<PathBuf>, Refused> {
    let mut outside = Vec::new();
    for dir in dirs {
        let ids =
            c_path(&dir).and_then(|path| ids_upwards(sys, &sys.open(None, &path, Open::Place)?, usize::MAX));
        match ids {
            Ok(ids) if own.iter().any(|own| ids.contains(&own[0]) || own.contains(&ids[0])) => {}
            Ok(_) => outside.push(dir),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err((dir, error.into())),
        }
    }
    Ok(outside)
}

/// Thaws those of the cgroups whose processes are all members. `members` must be complete.
pub(crate) fn thaw<S: Sys>(sys: &S, dirs: &[PathBuf], members: &MemberList) -> Undone {
    let mut undone = Undone { held: false, refused: None };
    for dir in dirs {
        match thaw_group(sys, dir, members) {
            Ok(thawed) => undone.held |= !thawed,
            Err(error) => undone.refused = Some((dir.join("freezer.state"), Cause::Error(error))),
        }
    }
    undone
}

/// Thaws a cgroup. Returns false if it also has a process that is not a member.
fn thaw_group<S: Sys>(sys: &S, dir: &Path, members: &MemberList) -> io::Result<bool> {
    let group = sys.open(None, &c_path(dir)?, Open::Place)?;
    let mut held = MemberList::default();
    let walk = descendants(sys, &group, LONGEST)?;
    let mut near = Near::new(&group);
    for number in 0..walk.len() {
        let (place, path) = near.place(sys, &walk, number);
        held.add(sys, place, &path, Version::V1)?;
    }
    if walk.uncertain {
        return Err(vanished());
    }
    held.finish();
    if held.unmapped > 0 || held.pids.iter().any(|pid| !members.contains(*pid)) {
        return Ok(false);
    }
    log::info!("thawing {}, which holds members of the target frozen and no other process", dir.display());
    file::write(sys, &group, Path::new(""), v1::STATE, b"THAWED")?;
    Ok(true)
}
