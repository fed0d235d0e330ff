//! The system calls that the cgroup side makes: [`Sys`], and the kernel itself behind it,
//! [`Linux`]. Beside it `held` starts programs, for `cgreap`.
//!
//! It is a trait, so that tests can use a simulated kernel, which fails wherever a real one could.

mod held;
mod linux;

use std::ffi::{CStr, OsString};
use std::fmt;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

pub use self::held::{Failure, Held, failure, spawn_apart, spawn_in};
#[cfg(feature = "tokio")]
pub(crate) use self::linux::readable_in_tokio;
pub(crate) use self::linux::{Linux, as_fd};

/// A kernel. Errors are those of errno(3), nothing is retried here.
///
/// Paths are relative to the descriptor `at`, or to the working directory where that is `None`.
pub(crate) trait Sys {
    /// An open file, which closes when it is dropped.
    type Fd: fmt::Debug;

    /// Time since an arbitrary start, CLOCK_MONOTONIC.
    fn now(&self) -> Duration;

    /// The kernel's version, the first two numbers of uname(2)'s release; zeros if it has none.
    fn release(&self) -> (u32, u32);

    /// The caller's process id, and its thread id, which is the same on the main thread.
    fn caller(&self) -> (Pid, Pid);

    /// How many descriptors the process may have, getrlimit(2) with RLIMIT_NOFILE; `None` if this is not known.
    fn descriptor_limit(&self) -> Option<usize>;

    /// openat(2). The descriptor is close-on-exec.
    fn open(&self, at: Option<&Self::Fd>, path: &CStr, how: Open) -> io::Result<Self::Fd>;

    /// fcntl(2) with F_DUPFD_CLOEXEC: the caller's descriptor.
    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<Self::Fd>;

    /// The path of an open file, by its link in /proc.
    fn path_of(&self, fd: &Self::Fd) -> io::Result<PathBuf>;

    /// open_by_handle_at(2): opens the cgroup directory with this inode number, as an O_PATH descriptor. `mount` is
    /// a readable directory of its hierarchy. Needs CAP_DAC_READ_SEARCH. ESTALE once that directory was removed.
    fn open_identity(&self, mount: &Self::Fd, ino: u64) -> io::Result<Self::Fd>;

    /// pread(2).
    fn read_at(&self, fd: &Self::Fd, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// write(2) of `text`, which the kernel's interface files take whole or not at all.
    fn write(&self, fd: &Self::Fd, text: &[u8]) -> io::Result<()>;

    /// statx(2), links not followed; of the descriptor itself if the path is empty.
    fn stat(&self, at: Option<&Self::Fd>, path: &CStr) -> io::Result<Stat>;

    /// The kind of filesystem that the file is on: `f_type` of fstatfs(2).
    fn filesystem(&self, fd: &Self::Fd) -> io::Result<i64>;

    /// fgetxattr(2): whether a file has an extended attribute. Only root sees attributes `trusted.*`.
    fn has_attribute(&self, fd: &Self::Fd, name: &CStr) -> io::Result<bool>;

    /// getdents64(2): the names of the directories in a directory.
    fn subdirectories(&self, at: &Self::Fd, path: &CStr) -> io::Result<Vec<OsString>>;

    /// unlinkat(2) with AT_REMOVEDIR.
    fn rmdir(&self, at: Option<&Self::Fd>, path: &CStr) -> io::Result<()>;

    /// pidfd_open(2), Linux 5.3.
    fn pidfd_open(&self, pid: Pid) -> io::Result<Self::Fd>;

    /// pidfd_open(2) of a thread, which may be a main thread (PIDFD_THREAD, Linux 6.9).
    fn pidfd_of_thread(&self, tid: Pid) -> io::Result<Self::Fd>;

    /// The inode number of the v2 cgroup that a pidfd's task is in: ioctl(2) PIDFD_GET_INFO, Linux 6.13.
    fn cgroup_of(&self, pidfd: &Self::Fd) -> io::Result<u64>;

    /// The process of a pidfd's thread: ioctl(2) PIDFD_GET_INFO, Linux 6.13.
    fn process_of(&self, pidfd: &Self::Fd) -> io::Result<Pid>;

    /// Whether the id is of a thread of the caller's process, by tgkill(2) without a signal.
    fn is_own_thread(&self, tid: Pid) -> bool;

    /// pidfd_send_signal(2), Linux 5.1, without siginfo.
    fn pidfd_send_signal(&self, pidfd: &Self::Fd, signal: i32) -> io::Result<()>;

    /// poll(2) on a pidfd, without waiting. It is readable once the process is a zombie with no thread left
    /// alive, pidfd_open(2).
    fn has_exited(&self, pidfd: &Self::Fd) -> io::Result<bool>;

    /// kill(2) for one process.
    fn kill(&self, pid: Pid, signal: i32) -> io::Result<()>;

    /// process_mrelease(2), Linux 5.15. It works until the memory is released, and waits for the process's mmap lock
    /// without limit. EINVAL for a process that is not being killed.
    fn process_mrelease(&self, pidfd: &Self::Fd) -> io::Result<()>;
}

/// The id of a process or of a thread. Always positive: for kill(2), 0 and negative numbers mean groups of processes.
/// In `cgroup.procs`, 0 means a process outside of the reader's pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pid(NonZeroI32);

impl Pid {
    pub(crate) fn new(pid: i32) -> Option<Pid> {
        if pid > 0 { NonZeroI32::new(pid).map(Pid) } else { None }
    }

    pub(crate) fn get(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// As a place in the tree: no rights needed, a link is not followed.
    Place,
    /// As a directory in the tree: no rights needed, links are followed.
    Directory,
    Read,
    Write,
    ReadWrite,
}

/// The status of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) kind: Kind,
    pub(crate) links: u32,
    /// The user that owns it.
    pub(crate) owner: u32,
    /// The mount that it is seen through: a number that the kernel never reuses (Linux 6.8).
    pub(crate) mount: Option<u64>,
    /// Before Linux 6.8, the number of the mount, which another mount may have once this one is gone (Linux 5.8).
    pub(crate) reused_mount: Option<u64>,
    /// Whether it is the root of a mount, which covers the directory below it (Linux 5.8). `None` before.
    pub(crate) mount_root: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    Link,
    Other,
}
