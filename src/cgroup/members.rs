//! Lists of the members of directories.

use std::io;
use std::path::{Path, PathBuf};

use super::errors::{Call, Failed, Meaning, meaning};
use super::file;
use super::hierarchy::Version;
use super::proc::{Proc, unless_exited};
use super::tree::{Directories, Tree};
use super::walk::{Near, unless_gone};
use crate::sys::{Open, Pid, Sys};
use crate::time::Span;

/// A write to `cgroup.kill` that reaches this many members takes longer than the default time of a call.
pub(crate) const MANY: usize = 200;

/// This many members are listed and signalled in steps where the time of a call is limited. The number is small in tests, so
/// that the small targets of the simulation are killed in this way too.
pub(super) const LARGE: usize = if cfg!(test) { 2 } else { MANY };

/// The members of some directories.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemberList {
    /// Sorted, each once.
    pub(crate) pids: Vec<Pid>,
    /// Lines that name no process that the caller can see: 0 stands for a process outside of its pid namespace, or for one that
    /// was reaped amid the read. These members cannot be signalled, and count as alive.
    pub(crate) unmapped: usize,
    /// Some of these lines cannot be parsed, so any process may be meant.
    pub(crate) garbled: bool,
    /// A v1 directory was gone when it was to be listed. If it was renamed, its members are missing here.
    pub(crate) vanished: bool,
    /// No name leads to some directory any more: its members are missing here, and in later lists.
    pub(crate) lost: bool,
    /// The threads of v2 directories are listed too, in the attempt with this number: see [`MemberList::add_unlisted`].
    pub(crate) by_thread: Option<u32>,
    /// Some of `pids` were found by their threads alone.
    pub(crate) has_unlisted: bool,
}

/// The most threads of one directory that are asked for their processes in one list by threads. Another attempt asks others.
const THREADS_ASKED: usize = if cfg!(test) { 8 } else { 512 };

impl MemberList {
    /// An empty list, to which members are added also by their threads if this is the number of an attempt.
    pub(crate) fn new(by_thread: Option<u32>) -> MemberList {
        MemberList { by_thread, ..MemberList::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.pids.len() + self.unmapped
    }

    /// Adds the members of a tree. A walk through its directories takes no longer than `most`.
    pub(crate) fn add_tree<S: Sys>(
        &mut self,
        sys: &S,
        tree: &Tree<S>,
        directories: &mut Directories<S>,
        most: Span,
    ) -> Result<(), Failed> {
        let (root, subtree) = directories.subtree(sys, &tree.identity, most)?;
        let mut all = !subtree.uncertain;
        let mut near = Near::new(root);
        for number in 0..subtree.len() {
            all &= self.add_one(sys, near.place(sys, subtree, number), tree.hierarchy.version())?;
        }
        // v2 directories cannot be renamed.
        self.vanished |= !all && tree.hierarchy.is_v1();
        Ok(())
    }

    /// Adds the members of one directory of a tree. Returns false if that is gone, and is not the root.
    pub(super) fn add_one<S: Sys>(
        &mut self,
        sys: &S,
        (place, path): (&S::Fd, PathBuf),
        version: Version,
    ) -> io::Result<bool> {
        Ok(unless_gone(&path, self.add(sys, place, &path, version))?.is_some())
    }

    /// Adds the members of one directory. Each call opens the file anew: v1 returns stale data to a descriptor
    /// that is read again within a second (`cgroup_pidlist_start`).
    pub(crate) fn add<S: Sys>(
        &mut self,
        sys: &S,
        root: &S::Fd,
        dir: &Path,
        version: Version,
    ) -> io::Result<()> {
        let first = self.pids.len();
        match file::read(sys, root, dir, c"cgroup.procs") {
            Ok(text) => {
                self.parse(&text);
                match version {
                    Version::V1 => Ok(()),
                    Version::V2 => self.add_unlisted(sys, root, dir, first, text.is_empty()),
                }
            }
            // A threaded cgroup lists threads only.
            Err(error) if meaning(Call::Cgroup, &error) == Meaning::Unsupported => {
                self.add_threads(sys, root, dir)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds the processes of which a v2 directory lists threads only: a process that is moved after its main thread has exited
    /// stays in the list of the cgroup that it has left (`cgroup_migrate_add_task` skips exiting tasks). They are looked for
    /// where no process is listed, and in a list by threads everywhere. `first`: where the processes of the directory begin
    /// in this list.
    pub(super) fn add_unlisted<S: Sys>(
        &mut self,
        sys: &S,
        root: &S::Fd,
        dir: &Path,
        first: usize,
        is_empty: bool,
    ) -> io::Result<()> {
        if is_empty {
            return self.add_threads(sys, root, dir);
        }
        let Some(attempt) = self.by_thread else { return Ok(()) };
        let mut listed = self.pids.get(first..).unwrap_or_default().to_vec();
        listed.sort_unstable();
        let mut threads = MemberList::default();
        threads.parse(&file::read(sys, root, dir, c"cgroup.threads")?);
        threads.pids.retain(|tid| listed.binary_search(tid).is_err());
        let (count, mut proc) = (threads.pids.len(), None);
        // Others in each attempt, whichever attempts list threads: the factor is a large odd number.
        let begin = attempt.wrapping_mul(2_654_435_761) as usize % count.max(1);
        let mut found = Vec::new();
        for tid in threads.pids.into_iter().cycle().skip(begin).take(count.min(THREADS_ASKED)) {
            match process_of(sys, tid, &mut proc) {
                Ok(Some(pid)) => found.push(pid),
                Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Short => return Err(error),
                // It has exited, or its process cannot be found out: it is taken for one of a process that is listed.
                Ok(None) | Err(_) => {}
            }
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| listed.binary_search(pid).is_err());
        self.has_unlisted |= !found.is_empty();
        self.pids.extend(found);
        Ok(())
    }

    /// Adds the processes of the threads in a v2 directory: a thread cannot be killed alone.
    pub(super) fn add_threads<S: Sys>(&mut self, sys: &S, root: &S::Fd, dir: &Path) -> io::Result<()> {
        let mut threads = MemberList::default();
        threads.parse(&file::read(sys, root, dir, c"cgroup.threads")?);
        self.unmapped += threads.unmapped;
        self.garbled |= threads.garbled;
        let mut proc = None;
        for tid in threads.pids {
            match unless_exited(process_of(sys, tid, &mut proc))? {
                Some(Some(pid)) => self.pids.push(pid),
                // The thread lives, and its process cannot be found out.
                Some(None) => self.unmapped += 1,
                None => {}
            }
        }
        Ok(())
    }

    /// The threads in a v1 directory.
    pub(crate) fn of_threads<S: Sys>(sys: &S, dir: &S::Fd) -> io::Result<MemberList> {
        let mut threads = MemberList::default();
        threads.parse(&file::read(sys, dir, Path::new(""), c"tasks")?);
        threads.finish();
        Ok(threads)
    }

    /// Adds the members of another list.
    pub(crate) fn extend(&mut self, other: MemberList) {
        self.pids.extend(other.pids);
        self.has_unlisted |= other.has_unlisted;
        self.unmapped += other.unmapped;
        self.garbled |= other.garbled;
        self.vanished |= other.vanished;
        self.lost |= other.lost;
    }

    /// Whether there may be members that the list does not have.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.garbled || self.vanished
    }

    /// To be called after the last `add`.
    pub(crate) fn finish(&mut self) {
        self.pids.sort_unstable();
        self.pids.dedup();
    }

    /// Whether the caller's process is in the list, once `finish`ed. An error if this cannot be known.
    pub(crate) fn contains_caller<S: Sys>(&self, sys: &S) -> io::Result<bool> {
        match self.contains(sys.caller().0) {
            false if self.garbled => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "cgroup.procs makes no sense"))
            }
            false if self.vanished => Err(vanished()),
            inside => Ok(inside),
        }
    }

    fn parse(&mut self, text: &[u8]) {
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            match parse_pid(line) {
                Some(pid) => self.pids.push(pid),
                None => {
                    self.unmapped += 1;
                    self.garbled |= line != b"0";
                }
            }
        }
    }

    /// Whether a pid is in the list, once `finish`ed.
    pub(crate) fn contains(&self, pid: Pid) -> bool {
        self.pids.binary_search(&pid).is_ok()
    }
}

/// The most that the kernel returns for one read.
const PAGE: usize = if cfg!(test) { 16 } else { 4096 };

/// The list of a v2 directory, read a page at a time: some 500 members or more. The kernel continues where it stopped,
/// even if members have come and gone since (`css_task_iter_next`).
pub(crate) struct Pages<S: Sys> {
    file: S::Fd,
    offset: u64,
    /// The beginning of a line that the next page ends.
    partial: Vec<u8>,
}

impl<S: Sys> Pages<S> {
    /// Opens the list of `dir` in `root`.
    pub(crate) fn open(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<Pages<S>> {
        let file = file::open(sys, root, dir, c"cgroup.procs", Open::Read)?;
        Ok(Pages { file, offset: 0, partial: Vec::new() })
    }

    /// Whether the pages read so far have no line.
    pub(crate) fn are_empty(&self) -> bool {
        self.offset == 0
    }

    /// Returns the next members; none after the last.
    pub(crate) fn next(&mut self, sys: &S) -> io::Result<MemberList> {
        let mut members = MemberList::default();
        while members.is_empty() {
            let mut page = [0; PAGE];
            let filled = file::read_at(sys, &self.file, &mut page, self.offset)?;
            self.offset += filled as u64;
            let end = page[..filled].iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
            let (lines, partial) = page[..filled].split_at(end);
            if self.partial.is_empty() {
                members.parse(lines);
            } else if end > 0 || filled == 0 {
                self.partial.extend(lines);
                members.parse(&std::mem::take(&mut self.partial));
            }
            self.partial.extend(partial);
            if filled == 0 {
                break;
            }
        }
        members.finish();
        Ok(members)
    }
}

/// The error for a list in which a directory has vanished: it does not tell whether the target is empty.
pub(super) fn vanished() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "a cgroup was renamed or removed while it was listed")
}

fn parse_pid(text: &[u8]) -> Option<Pid> {
    Pid::new(std::str::from_utf8(text).ok()?.parse().ok()?)
}

/// Returns the process of a thread. The kernel tells it, or a /proc that is known to be of the caller's pid namespace.
/// `None` if neither does.
fn process_of<'a, S: Sys>(
    sys: &'a S,
    tid: Pid,
    proc: &mut Option<Option<Proc<'a, S>>>,
) -> io::Result<Option<Pid>> {
    if sys.is_own_thread(tid) {
        return Ok(Some(sys.caller().0));
    }
    match sys.pidfd_open(tid) {
        // The id of a process is that of its main thread.
        Ok(_) => return Ok(Some(tid)),
        Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Short => return Err(error),
        Err(_) => {}
    }
    let told = sys.pidfd_of_thread(tid).and_then(|pidfd| match sys.process_of(&pidfd) {
        // The kernel may say this of a live one, see `members_among`.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) && !sys.has_exited(&pidfd)? => Ok(None),
        told => told.map(Some),
    });
    match told {
        Ok(Some(pid)) => return Ok(Some(pid)),
        Ok(None) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
        Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Short => return Err(error),
        // Linux before 6.13.
        Err(_) => {}
    }
    if proc.is_none() {
        *proc = Some(Proc::open(sys)?);
    }
    match proc {
        Some(Some(proc)) => proc.process_of(tid).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> MemberList {
        let mut list = MemberList::default();
        list.parse(text);
        list.finish();
        list
    }

    #[test]
    fn pids_come_sorted_and_once() {
        let list = parsed(b"30\n4\n30\n");
        assert_eq!(list.pids, [4, 30].map(|pid| Pid::new(pid).unwrap()));
        assert_eq!(list.unmapped, 0);
        assert!(parsed(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_no_pid_counts_and_is_never_signalled() {
        for text in [
            &b"0\n"[..],
            b"-1\n",
            b"4294967296\n",
            b"99999999999999999999\n",
            b"1 2\n",
            b"x\n",
            b"\xff\n",
            b" 7\n",
        ] {
            let list = parsed(text);
            assert!(list.pids.is_empty(), "{text:?}");
            assert_eq!(list.unmapped, 1, "{text:?}");
            assert_eq!(list.garbled, text != b"0\n", "{text:?}");
            assert!(!list.is_empty());
        }
    }
}
