//! The caller's own cgroups, which must not be killed.
//!
//! A list of a directory's members has the caller's process if any of its threads is in the directory. If the caller's
//! cgroups are known, such a list is not needed on v2, nor for a large tree on v1. /proc and the mounts tell these cgroups,
//! and are believed only if the kernel confirms it: in a namespace they can lead to another cgroup, or to none.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::thread::{self, ThreadId};

use super::errors::Failed;
use super::file::{c_path, read_path, read_whole};
use super::hierarchy::Version;
use super::identity::{Id, ids_upwards};
use super::members::MemberList;
use super::mounts::{self, Mount, Mounts, lock, membership};
use super::proc::Proc;
use super::tree::{Directories, Tree};
use super::walk::LONGEST;
use crate::sys::{Open, Pid, Sys};

/// Whether the caller is in a tree. An error if this cannot be known.
pub(super) fn is_caller_in<S: Sys>(
    sys: &S,
    own: &Mutex<OwnCgroup<S>>,
    mounts: &Mutex<Mounts<S>>,
    tree: &Tree<S>,
    directories: &mut Directories<S>,
) -> Result<bool, Failed> {
    if !tree.hierarchy.is_v1() {
        if let Some(inside) = is_known_in(sys, own, mounts, tree) {
            return Ok(inside);
        }
    }
    let mut members = MemberList::default();
    members.add_tree(sys, tree, directories, LONGEST)?;
    members.finish();
    Ok(members.contains_caller(sys)?)
}

/// The same, from the cgroups that the caller is in, which takes no list of the tree. `None` if /proc and the
/// mounts do not tell these.
pub(super) fn is_known_in<S: Sys>(
    sys: &S,
    own: &Mutex<OwnCgroup<S>>,
    mounts: &Mutex<Mounts<S>>,
    tree: &Tree<S>,
) -> Option<bool> {
    let id = tree.identity.id;
    if tree.hierarchy.is_v1() { are_threads_in(sys, mounts, id) } else { lock(own).is_in(sys, mounts, id) }
}

/// Whether a thread of the caller's is in a v1 cgroup, or below it. On v1 each thread may be in another cgroup.
fn are_threads_in<S: Sys>(sys: &S, mounts: &Mutex<Mounts<S>>, id: Id) -> Option<bool> {
    let proc = Proc::open(sys).ok()??;
    let mounts = mounts::recent(sys, mounts).ok()?;
    let mut found: Vec<(Ancestry, MemberList)> = Vec::new();
    let mut inside = None;
    for (tid, text) in proc.own_threads().ok()? {
        let at = match found.iter().position(|(ancestry, _)| ancestry.text == text) {
            Some(at) => at,
            None => {
                let ancestry = v1_ancestry(sys, &mounts, &text, id.dev)?;
                let dir = ancestry.open(sys).ok()?;
                found.push((ancestry, MemberList::of_threads(sys, &dir).ok()?));
                found.len() - 1
            }
        };
        let (ancestry, threads) = &found[at];
        if !threads.contains(tid) && proc.has_own_thread(tid) {
            return None;
        }
        inside = Some(ancestry.has(id)? || inside == Some(true));
    }
    inside
}

/// Returns the cgroup that `text`, from /proc, names in the v1 hierarchy of this device, by the mount that shows most of its
/// ancestors.
fn v1_ancestry<S: Sys>(sys: &S, mounts: &[Mount], text: &[u8], dev: u64) -> Option<Ancestry> {
    let shown = mounts.iter().filter(|mount| !mount.unified).filter_map(|mount| {
        let dir = mount.path_of(membership(text, mount)?)?;
        ancestry(sys, text, &dir, mount.levels_above(&dir)).ok()
    });
    shown.filter(|ancestry| ancestry.dev == dev).max_by_key(|ancestry| ancestry.inodes.len())
}

/// The text of /proc about the cgroups of the caller's process and of the calling thread, in all hierarchies. As long as it
/// is the same, both are in the same cgroups, even if /proc shows them by other names.
pub(super) fn own_cgroups<S: Sys>(sys: &S) -> io::Result<Vec<u8>> {
    let mut cgroups = Vec::new();
    for path in ["/proc/self/cgroup", "/proc/thread-self/cgroup"] {
        cgroups.extend(read_path(sys, Path::new(path))?);
    }
    Ok(cgroups)
}

/// The inode number of a hierarchy's root: the first that kernfs gives out (`__kernfs_new_node`).
const ROOT: u64 = 1;

/// The v2 cgroups of the caller: that of its process, and that of the calling thread, which may be another (in a
/// threaded cgroup).
pub(crate) struct OwnCgroup<S: Sys> {
    process: Option<Task<S>>,
    /// The thread that called last. The inner `None` means the main thread, whose cgroup is that of the process.
    thread: Option<(ThreadId, Option<Task<S>>)>,
}

impl<S: Sys> Default for OwnCgroup<S> {
    fn default() -> OwnCgroup<S> {
        OwnCgroup { process: None, thread: None }
    }
}

impl<S: Sys> OwnCgroup<S> {
    /// The same as [`OwnCgroup::is_in`] of the caller's process alone, whichever thread calls.
    pub(crate) fn is_process_in(&mut self, sys: &S, mounts: &Mutex<Mounts<S>>, id: Id) -> Option<bool> {
        let process = match &mut self.process {
            Some(process) => process,
            None => self.process.insert(Task::open(sys, sys.caller().0, c"/proc/self/cgroup").ok()?),
        };
        process.is_in(sys, mounts, id)
    }

    /// Whether the v2 cgroup `id` is one that the caller is in, or an ancestor of one. `None` if /proc and the mounts do
    /// not tell: then its members have to be listed.
    pub(crate) fn is_in(&mut self, sys: &S, mounts: &Mutex<Mounts<S>>, id: Id) -> Option<bool> {
        let by_process = self.is_process_in(sys, mounts, id);
        if by_process == Some(true) {
            return by_process;
        }
        let current = thread::current().id();
        let thread = match &mut self.thread {
            Some((thread, task)) if *thread == current => task,
            _ => &mut self.thread.insert((current, Task::calling(sys).ok()?)).1,
        };
        match thread.as_mut().map(|thread| thread.is_in(sys, mounts, id)) {
            Some(Some(true)) => Some(true),
            Some(None) => None,
            Some(Some(false)) | None => by_process,
        }
    }
}

/// A task, and its v2 cgroup.
struct Task<S: Sys> {
    /// `/proc/.../cgroup`
    file: S::Fd,
    /// Its cgroup, as it was found out last.
    ancestry: Option<Ancestry>,
    /// The task, where the kernel can tell its v2 cgroup by pidfd. Reading the file takes a lock that it shares with
    /// exits, and waits when the members of a thousand cgroups exit at once.
    pidfd: Option<S::Fd>,
}

/// A cgroup and its ancestors, as far up as a mount shows them.
struct Ancestry {
    /// The text of /proc about the task, and the path that it led to.
    text: Vec<u8>,
    dir: CString,
    dev: u64,
    /// The cgroup of the task comes first.
    inodes: Vec<u64>,
}

impl Ancestry {
    /// Opens the cgroup of the task, if the path still leads to it.
    fn open<S: Sys>(&self, sys: &S) -> io::Result<S::Fd> {
        let dir = sys.open(None, &self.dir, Open::Place)?;
        let is_same = self.inodes.first() == Some(&sys.stat(Some(&dir), c"")?.ino);
        if is_same { Ok(dir) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn has(&self, id: Id) -> Option<bool> {
        if self.dev == id.dev && self.inodes.contains(&id.ino) {
            return Some(true);
        }
        // If the mount begins below the root, another mount may show further ancestors.
        (self.dev == id.dev && self.inodes.last() == Some(&ROOT)).then_some(false)
    }
}

impl<S: Sys> Task<S> {
    fn open(sys: &S, tid: Pid, path: &CStr) -> io::Result<Task<S>> {
        Ok(Task {
            file: sys.open(None, path, Open::Read)?,
            ancestry: None,
            pidfd: sys.pidfd_of_thread(tid).ok().filter(|pidfd| sys.cgroup_of(pidfd).is_ok()),
        })
    }

    /// The calling thread; `None` for the main thread.
    fn calling(sys: &S) -> io::Result<Option<Task<S>>> {
        let (pid, tid) = sys.caller();
        if pid == tid { Ok(None) } else { Task::open(sys, tid, c"/proc/thread-self/cgroup").map(Some) }
    }

    fn is_in(&mut self, sys: &S, mounts: &Mutex<Mounts<S>>, id: Id) -> Option<bool> {
        // A v2 cgroup cannot be moved: while the task is in the same one, its ancestors are the same.
        let ancestry = self.ancestry.take().filter(|ancestry| self.confirms(sys, ancestry));
        self.ancestry = match ancestry {
            Some(ancestry) => Some(ancestry),
            None => self.find(sys, mounts).ok()?,
        };
        self.ancestry.as_ref()?.has(id)
    }

    /// Finds the cgroup by the mounts. `None` if none of them shows it.
    fn find(&self, sys: &S, mounts: &Mutex<Mounts<S>>) -> io::Result<Option<Ancestry>> {
        let text = self.text(sys)?;
        let mut highest: Option<Ancestry> = None;
        for mount in mounts::recent(sys, mounts)?.iter().filter(|mount| mount.unified) {
            let Some(dir) = membership(&text, mount).and_then(|own| mount.path_of(own)) else { continue };
            // If this mount is hidden by another one, or the caller may not search it, a further mount may show
            // the cgroup.
            let Ok(ancestry) = ancestry(sys, &text, &dir, mount.levels_above(&dir)) else { continue };
            let is_highest =
                highest.as_ref().is_none_or(|highest| highest.inodes.len() < ancestry.inodes.len());
            if is_highest && self.confirms(sys, &ancestry) {
                highest = Some(ancestry);
            }
        }
        Ok(highest)
    }

    fn text(&self, sys: &S) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        read_whole(sys, &self.file, &mut text)?;
        Ok(text)
    }

    /// Whether the kernel says that the task is in this cgroup.
    ///
    /// Without the task's pidfd, the same text in /proc is not enough: another cgroup may have the name by now, or the task
    /// may be in another namespace. Nor is the list of members enough, which has the process as long as any of its threads is
    /// in the cgroup.
    fn confirms(&self, sys: &S, ancestry: &Ancestry) -> bool {
        if let Some(pidfd) = &self.pidfd {
            return sys.cgroup_of(pidfd).ok().as_ref() == ancestry.inodes.first();
        }
        let is_member = || {
            let dir = ancestry.open(sys)?;
            let mut members = MemberList::default();
            members.add(sys, &dir, Path::new(""), Version::V2)?;
            members.finish();
            io::Result::Ok(self.text(sys)? == ancestry.text && members.contains(sys.caller().0))
        };
        is_member().unwrap_or(false)
    }
}

/// Returns the cgroup that /proc names by `text`, seen at `dir`, and its ancestors up to the mount point, which is
/// `levels` above.
fn ancestry<S: Sys>(sys: &S, text: &[u8], dir: &Path, levels: usize) -> io::Result<Ancestry> {
    let dir = c_path(dir)?;
    let ids = ids_upwards(sys, &sys.open(None, &dir, Open::Place)?, levels)?;
    if ids.len() <= levels {
        // Another mount hides the one in question.
        return Err(io::ErrorKind::NotFound.into());
    }
    let inodes = ids.iter().map(|id| id.ino).collect();
    Ok(Ancestry { text: text.to_vec(), dir, dev: ids[0].dev, inodes })
}
