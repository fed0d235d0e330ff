//! The caller's own cgroups, which must not be killed.

use std::ffi::CStr;
use std::io;
use std::sync::Mutex;
use std::thread::{self, ThreadId};

use super::errors::is_gone;
use super::file::{c_path, read_whole};
use super::hierarchy::Version;
use super::identity::Id;
use super::mounts::{self, Mounts, membership};
use crate::sys::{Open, Pid, Sys};

/// The caller's cgroups: its process's, and the calling thread's, which may be another (in a v1 `tasks`
/// file, or in a threaded v2 cgroup).
pub(crate) struct OwnCgroups<S: Sys> {
    process: Option<Cgroups<S>>,
    /// The cgroups of the thread that called last. The inner `None` means the main thread, whose cgroups are those of
    /// the process.
    thread: Option<(ThreadId, Option<Cgroups<S>>)>,
}

impl<S: Sys> Default for OwnCgroups<S> {
    fn default() -> OwnCgroups<S> {
        OwnCgroups { process: None, thread: None }
    }
}

impl<S: Sys> OwnCgroups<S> {
    /// Whether `id` is a cgroup that the caller is in, or an ancestor of one.
    pub(crate) fn contains(&mut self, sys: &S, mounts: &Mutex<Mounts<S>>, id: Id) -> io::Result<bool> {
        let process = match &mut self.process {
            Some(process) => process,
            None => self.process.insert(Cgroups::open(sys, sys.caller().0, c"/proc/self/cgroup")?),
        };
        if process.contains(sys, mounts, id)? {
            return Ok(true);
        }
        let current = thread::current().id();
        let thread = match &mut self.thread {
            Some((thread, cgroups)) if *thread == current => cgroups,
            _ => &mut self.thread.insert((current, Cgroups::of_thread(sys)?)).1,
        };
        match thread {
            Some(thread) => thread.contains(sys, mounts, id),
            None => Ok(false),
        }
    }
}

/// A task's cgroup in each mounted hierarchy, and the ancestors of each.
///
/// Each question reads where the task is now. The rest is found out again only when that has changed.
struct Cgroups<S: Sys> {
    /// `/proc/.../cgroup`
    file: S::Fd,
    /// Its content when the rest was found out, and now.
    text: Vec<u8>,
    now: Vec<u8>,
    ids: Vec<Id>,
    devices: Vec<u64>,
    /// The task, where the kernel can tell its v2 cgroup by pidfd. Reading the file takes a lock that it shares with
    /// exits, and waits when the members of a thousand cgroups exit at once.
    pidfd: Option<S::Fd>,
    /// Its v2 cgroup when the rest was found out.
    v2: Option<Id>,
}

impl<S: Sys> Cgroups<S> {
    fn open(sys: &S, tid: Pid, path: &CStr) -> io::Result<Cgroups<S>> {
        Ok(Cgroups {
            file: sys.open(None, path, Open::Read)?,
            text: Vec::new(),
            now: Vec::new(),
            ids: Vec::new(),
            devices: Vec::new(),
            pidfd: sys.pidfd_of_thread(tid).ok().filter(|pidfd| sys.cgroup_of(pidfd).is_ok()),
            v2: None,
        })
    }

    /// The calling thread's; `None` for the main thread.
    fn of_thread(sys: &S) -> io::Result<Option<Cgroups<S>>> {
        let (pid, tid) = sys.caller();
        if pid == tid { Ok(None) } else { Cgroups::open(sys, tid, c"/proc/thread-self/cgroup").map(Some) }
    }

    /// An error if it cannot be known.
    fn contains(&mut self, sys: &S, mounts: &Mutex<Mounts<S>>, id: Id) -> io::Result<bool> {
        if let (Some(pidfd), Some(v2)) = (&self.pidfd, self.v2) {
            // A v2 cgroup can't be moved: while the task is in the same one, its ancestors are the same.
            if v2.dev == id.dev && sys.cgroup_of(pidfd).is_ok_and(|ino| ino == v2.ino) {
                return Ok(self.ids.contains(&id));
            }
        }
        read_whole(sys, &self.file, &mut self.now)?;
        if self.now != self.text || !self.devices.contains(&id.dev) {
            // Cleared first, so that an error below does not leave the cache half filled.
            self.text.clear();
            self.v2 = None;
            match self.find_all(sys, mounts)? {
                Some(error) if !self.devices.contains(&id.dev) => return Err(error),
                _ => std::mem::swap(&mut self.text, &mut self.now),
            }
        }
        Ok(self.ids.contains(&id))
    }

    /// Finds the cgroup in each hierarchy. The inner error: some hierarchy could not be read. The others were.
    fn find_all(&mut self, sys: &S, mounts: &Mutex<Mounts<S>>) -> io::Result<Option<io::Error>> {
        self.ids.clear();
        self.devices.clear();
        let mut v2 = None;
        let mut missed = None;
        for mount in mounts::read(sys, mounts)?.iter() {
            let Some(own) = membership(&self.now, mount) else {
                continue;
            };
            let Some(dir) = mount.path_of(own) else {
                // Outside of what this mount shows, so no target under it contains the caller, except
                // through the mount's root, which is refused anyway.
                continue;
            };
            let mut fd = match sys.open(None, &c_path(&dir)?, Open::Place) {
                Ok(fd) => fd,
                // Hidden by another mount.
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    missed = Some(error);
                    continue;
                }
            };
            let mut id = Id::of(&sys.stat(Some(&fd), c"")?);
            if mount.unified {
                v2 = Some(id);
            }
            // Up to the root of the mount.
            while Version::of(sys, &fd)?.is_some() && !self.ids.contains(&id) {
                self.ids.push(id);
                if !self.devices.contains(&id.dev) {
                    self.devices.push(id.dev);
                }
                fd = sys.open(Some(&fd), c"..", Open::Place)?;
                id = Id::of(&sys.stat(Some(&fd), c"")?);
            }
        }
        self.v2 = v2;
        Ok(missed)
    }
}
