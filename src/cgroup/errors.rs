//! What an error of the kernel means, by the kind of call that returned it: the one table for this. Also the other
//! reasons why an action fails.

use std::io;
use std::path::PathBuf;

use crate::outcome::{Act, LastError};
use crate::sys::Pid;

/// The kinds of system calls. The same errno means different things for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// On a cgroup's directory or one of its files: by a path, below a descriptor, or through an open file.
    Cgroup,
    /// open_by_handle_at(2).
    Handle,
    /// pidfd_open(2).
    PidfdOpen,
    /// pidfd_send_signal(2) and kill(2).
    Signal,
    /// pidfd_send_signal(2) to the caller itself.
    PidfdSignal,
    /// process_mrelease(2).
    Release,
    /// PIDFD_GET_INFO, ioctl(2).
    PidfdInfo,
}

/// What an error says about the object of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The directory, file or process is not there.
    Gone,
    /// The caller lacks the right.
    Denied,
    /// The kernel, or this kind of object, has no such operation.
    Unsupported,
    /// The process or the machine is short of descriptors or memory.
    Short,
    /// The object is in use.
    Busy,
    /// Nothing is known of the object.
    Unknown,
}

/// The table. Its sources are functions of the kernel, as of Linux 6.18.
pub(crate) fn meaning(call: Call, error: &io::Error) -> Meaning {
    let Some(errno) = error.raw_os_error() else { return Meaning::Unknown };
    match (call, errno) {
        // A lookup finds no such name, also below a descriptor of a removed directory (`link_path_walk`,
        // `kernfs_iop_lookup`); a write reaches a cgroup that is being removed (`cgroup_kn_lock_live`).
        (Call::Cgroup, libc::ENOENT) => Meaning::Gone,
        // A file was open when its directory was removed (`kernfs_get_active`).
        (Call::Cgroup, libc::ENODEV) => Meaning::Gone,
        // No node has the id (`kernfs_fh_to_dentry`).
        (Call::Handle, libc::ESTALE) => Meaning::Gone,
        // No process has the pid any more (`find_get_pid`, `kill_pid_info`), or it has no memory (`find_lock_task_mm`).
        (Call::PidfdOpen | Call::Signal | Call::Release | Call::PidfdInfo, libc::ESRCH) => Meaning::Gone,
        // The number is that of a thread, or of a kernel thread, which some kernels refuse and no signal kills
        // (`pidfd_prepare`; for a thread ENOENT since 6.14).
        (Call::PidfdOpen, libc::EINVAL | libc::ENOENT) => Meaning::Gone,

        // No such call, or a seccomp filter that does not let it through.
        (Call::PidfdOpen | Call::PidfdSignal | Call::Release, libc::ENOSYS | libc::EPERM) => {
            Meaning::Unsupported
        }
        // No such request, none with a cgroup's id, or no id (`pidfd_info`).
        (Call::PidfdInfo, libc::ENOTTY | libc::EINVAL | libc::ENODATA | libc::EPERM) => Meaning::Unsupported,
        // Not for a threaded cgroup (`cgroup_kill_write`, `cgroup_procs_start`).
        (Call::Cgroup, libc::EOPNOTSUPP) => Meaning::Unsupported,

        // `inode_permission`, `check_kill_permission`, `may_decode_fh`, and a read-only mount (`mnt_want_write`).
        (_, libc::EACCES | libc::EPERM | libc::EROFS) => Meaning::Denied,

        // `alloc_fd`, `alloc_empty_file`, and any allocation.
        (_, libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Meaning::Short,

        // Members, children, or a mount (`cgroup_destroy_locked`, `vfs_rmdir`).
        (Call::Cgroup, libc::EBUSY) => Meaning::Busy,

        _ => Meaning::Unknown,
    }
}

/// Whether a cgroup, or the file that was looked up in it, does not exist.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    meaning(Call::Cgroup, error) == Meaning::Gone
}

/// Whether a call on a cgroup was refused for lack of rights.
pub(crate) fn is_denied(error: &io::Error) -> bool {
    meaning(Call::Cgroup, error) == Meaning::Denied
}

/// Whether the process or the machine has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// What happened to a directory that does not exist any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Removed,
    /// It was removed, and another directory has its name.
    Replaced,
}

/// Why an action in a directory of a target failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The directory is gone.
    Gone(Fate),
    Because(Cause),
}

impl From<io::Error> for Failed {
    /// An ENOENT may mean the file or the directory: [`Tree::note`](super::tree::Tree::note) finds out which.
    fn from(error: io::Error) -> Failed {
        Failed::Because(Cause::Error(error))
    }
}

/// Why an action on a directory or process did not succeed.
#[derive(Debug)]
pub(crate) enum Cause {
    Error(io::Error),
    /// The caller has moved into the target.
    CallerInside,
    /// The process can't be signalled in a way that is sure to reach no other process.
    Unsafe,
    /// The target exists, but no known name leads to it.
    NameLost,
}

impl Cause {
    /// Whether a retry succeeds only after rights, or the like, have changed.
    pub(crate) fn is_denied(&self) -> bool {
        match self {
            Cause::Error(error) => is_denied(error),
            Cause::CallerInside | Cause::Unsafe | Cause::NameLost => true,
        }
    }

    /// Whether the directory is in use.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Cause::Error(error) if meaning(Call::Cgroup, error) == Meaning::Busy)
    }

    /// Whether a list would have taken too long.
    pub(crate) fn is_too_long(&self) -> bool {
        matches!(self, Cause::Error(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        matches!(self, Cause::Error(error) if is_out_of_descriptors(error))
    }

    /// The error that is reported to the caller.
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Cause::Error(error) => error,
            other => other.error(),
        }
    }

    /// The same, for a cause that is kept.
    pub(crate) fn error(&self) -> io::Error {
        match self {
            Cause::Error(error) => match error.raw_os_error() {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::new(error.kind(), error.to_string()),
            },
            Cause::CallerInside => io::Error::other("the caller itself has moved into the target"),
            Cause::Unsafe => io::Error::new(
                io::ErrorKind::Unsupported,
                "no pidfds here, and no v1 freezer that would make it safe to signal",
            ),
            Cause::NameLost => io::Error::from_raw_os_error(libc::ESTALE),
        }
    }
}

/// A directory or file, and why an action on it failed.
pub(crate) type Refused = (PathBuf, Cause);

impl From<Cause> for Failed {
    fn from(cause: Cause) -> Failed {
        Failed::Because(cause)
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        Cause::Error(error)
    }
}

/// The last failure that kept the reap from going on.
#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(super) act: Act,
    pub(super) path: PathBuf,
    pub(super) cause: Cause,
}

impl Obstacle {
    pub(super) fn of_process(pid: Pid, cause: Cause) -> Box<Obstacle> {
        Box::new(Obstacle { act: Act::Kill, path: format!("/proc/{pid}").into(), cause })
    }

    pub(super) fn error(&self) -> LastError<'_> {
        LastError { act: self.act, path: &self.path, source: self.cause.error() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_means_different_things_of_different_calls() {
        let says = |call, errno| meaning(call, &io::Error::from_raw_os_error(errno));
        assert_eq!(says(Call::Cgroup, libc::ENOENT), Meaning::Gone);
        assert_eq!(says(Call::Handle, libc::ESTALE), Meaning::Gone);
        assert_eq!(says(Call::Cgroup, libc::ESTALE), Meaning::Unknown);
        assert_eq!(says(Call::PidfdOpen, libc::EPERM), Meaning::Unsupported);
        assert_eq!(says(Call::Signal, libc::EPERM), Meaning::Denied);
        assert_eq!(says(Call::Signal, libc::EINVAL), Meaning::Unknown);
        assert_eq!(says(Call::Cgroup, libc::ENOMEM), Meaning::Short);
        assert_eq!(says(Call::Cgroup, libc::EBUSY), Meaning::Busy);
        assert_eq!(meaning(Call::Cgroup, &io::ErrorKind::NotFound.into()), Meaning::Unknown);
    }
}
