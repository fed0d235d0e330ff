//! What is made to fail: the kinds of calls, the errors that each can give, and for how long.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;

use crate::sys::Open;

/// The kinds of calls whose k-th one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    OpenPlace,
    OpenDirectory,
    OpenRead,
    OpenWrite,
    OpenReadWrite,
    OpenIdentity,
    Read,
    Write,
    Stat,
    Attribute,
    Filesystem,
    ReadLink,
    List,
    Rmdir,
    PidfdOpen,
    PidfdOfThread,
    CgroupOf,
    ProcessOf,
    Signal,
    HasExited,
    Kill,
    Watch,
    /// Every call that takes a descriptor.
    Descriptor,
}

impl Kind {
    pub(super) const ALL: [Kind; 23] = [
        Kind::OpenPlace,
        Kind::OpenDirectory,
        Kind::OpenRead,
        Kind::OpenWrite,
        Kind::OpenReadWrite,
        Kind::OpenIdentity,
        Kind::Read,
        Kind::Write,
        Kind::Stat,
        Kind::Attribute,
        Kind::Filesystem,
        Kind::ReadLink,
        Kind::List,
        Kind::Rmdir,
        Kind::PidfdOpen,
        Kind::PidfdOfThread,
        Kind::CgroupOf,
        Kind::ProcessOf,
        Kind::Signal,
        Kind::HasExited,
        Kind::Kill,
        Kind::Watch,
        Kind::Descriptor,
    ];

    pub(super) fn of_open(how: Open) -> Kind {
        match how {
            Open::Place => Kind::OpenPlace,
            Open::Directory => Kind::OpenDirectory,
            Open::Read => Kind::OpenRead,
            Open::Write => Kind::OpenWrite,
            Open::ReadWrite => Kind::OpenReadWrite,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::OpenPlace => "open-place",
            Kind::OpenDirectory => "open-directory",
            Kind::OpenRead => "open-read",
            Kind::OpenWrite => "open-write",
            Kind::OpenReadWrite => "open-read-write",
            Kind::OpenIdentity => "open-identity",
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Stat => "stat",
            Kind::Attribute => "attribute",
            Kind::Filesystem => "filesystem",
            Kind::ReadLink => "read-link",
            Kind::List => "list",
            Kind::Rmdir => "rmdir",
            Kind::PidfdOpen => "pidfd-open",
            Kind::PidfdOfThread => "pidfd-of-thread",
            Kind::CgroupOf => "cgroup-of",
            Kind::ProcessOf => "process-of",
            Kind::Signal => "signal",
            Kind::HasExited => "has-exited",
            Kind::Kill => "kill",
            Kind::Watch => "watch",
            Kind::Descriptor => "descriptor",
        }
    }

    pub(super) fn takes_descriptor(self) -> bool {
        use Kind::*;
        matches!(self, OpenPlace | OpenDirectory | OpenRead | OpenWrite | OpenReadWrite | OpenIdentity)
            || matches!(self, List | PidfdOpen | PidfdOfThread)
    }

    /// The errors that such a call can give for a cgroup or process that is there, and how long each may last. Errors
    /// that say that the object is gone (ENOENT, ENODEV, ESRCH) are not among them: here that would be untrue.
    pub(super) fn errors(self) -> &'static [(Errno, Extent)] {
        use Errno::*;
        use Extent::*;
        match self {
            // `alloc_fd`: the limit of the process. `alloc_empty_file`: that of the machine, and memory. EACCES: a
            // directory on the way may not be searched, while a delegation is set up, for instance. EINTR: open(2)
            // documents it, and filters and security modules of users give it.
            Kind::OpenPlace | Kind::OpenDirectory | Kind::OpenRead => {
                &[(EMFILE, Any), (ENFILE, Any), (ENOMEM, Any), (EACCES, Any), (EINTR, Passes)]
            }
            // And a mount that is made read-only (`mnt_want_write`), and rights on the file.
            Kind::OpenWrite | Kind::OpenReadWrite => &[
                (EMFILE, Any),
                (ENFILE, Any),
                (ENOMEM, Any),
                (EACCES, Any),
                (EPERM, Any),
                (EROFS, Any),
                (EINTR, Passes),
            ],
            // EPERM: the caller has dropped CAP_DAC_READ_SEARCH (`may_decode_fh`).
            // ESTALE: no inode, or no file for the search of a parent (`do_handle_to_path`, `__kernfs_fh_to_dentry`).
            Kind::OpenIdentity => &[(EMFILE, Any), (ENFILE, Any), (ENOMEM, Any), (EPERM, Any), (ESTALE, Any)],
            // The buffer of a sequence file; security modules ask again at each read (`security_file_permission`); a
            // signal handler.
            Kind::Read => &[(ENOMEM, Any), (EACCES, Any), (EINTR, Passes)],
            // The same, and what asks for rights at the write (`cgroup_file_write` in a cgroup namespace: EPERM).
            Kind::Write => &[(ENOMEM, Any), (EACCES, Any), (EPERM, Any), (EINTR, Passes)],
            Kind::Stat => &[(ENOMEM, Any), (EACCES, Any), (EINTR, Passes)],
            // getxattr(2).
            Kind::Attribute => &[(ENOMEM, Any), (EACCES, Any)],
            // fstatfs(2).
            Kind::Filesystem => &[(ENOMEM, Any), (EACCES, Any), (EINTR, Passes)],
            // readlink(2).
            Kind::ReadLink => &[(ENOMEM, Any), (EACCES, Any)],
            // An open, and getdents64(2), which takes its lock killably.
            Kind::List => &[(EMFILE, Any), (ENFILE, Any), (ENOMEM, Any), (EACCES, Any), (EINTR, Passes)],
            // EBUSY: a task that is exiting, a child made meanwhile, a mount.
            Kind::Rmdir => &[(EBUSY, Any), (EACCES, Any), (EPERM, Any), (EROFS, Any), (ENOMEM, Any)],
            // ENOSYS, EPERM: no such call, a seccomp filter. Only one that is loaded meanwhile begins in between, and
            // none ends.
            Kind::PidfdOpen => {
                &[(EMFILE, Any), (ENFILE, Any), (ENOMEM, Any), (ENOSYS, Stays), (EPERM, Stays)]
            }
            // EINVAL: no PIDFD_THREAD, before Linux 6.9.
            Kind::PidfdOfThread => &[
                (EMFILE, Any),
                (ENFILE, Any),
                (ENOMEM, Any),
                (EINVAL, Stays),
                (ENOSYS, Stays),
                (EPERM, Stays),
            ],
            // ENOTTY: before Linux 6.13. ENODATA: nothing is known of it.
            Kind::CgroupOf | Kind::ProcessOf => &[(ENOTTY, Stays), (EPERM, Stays), (ENODATA, Any)],
            // EPERM: another user's process; a security module, EACCES; a seccomp filter, as ENOSYS.
            Kind::Signal => &[(EPERM, Any), (EACCES, Any), (ENOSYS, Stays)],
            // poll(2).
            Kind::HasExited => &[(ENOMEM, Any), (EINTR, Passes)],
            Kind::Kill => &[(EPERM, Any), (EACCES, Any)],
            // epoll_ctl(2): `max_user_watches`, memory, a seccomp filter.
            Kind::Watch => &[(ENOSPC, Any), (ENOMEM, Any), (EPERM, Stays)],
            Kind::Descriptor => &[(EMFILE, Any), (ENFILE, Any)],
        }
    }
}

/// How long an error may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Any,
    /// It does not last: a signal handler interrupts some calls, and not all.
    Passes,
    /// It does not pass: what the kernel or a filter does not allow.
    Stays,
}

/// Which calls fail, from the k-th on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Mode {
    /// That one.
    Once,
    /// Those of the next 100 ms.
    Passing,
    /// All.
    Lasting,
    /// Those that would have more than k descriptors open at once.
    Limit,
}

impl Mode {
    pub(super) const ALL: [Mode; 4] = [Mode::Once, Mode::Passing, Mode::Lasting, Mode::Limit];

    /// How long the fault lasts; `None`: for ever.
    pub(super) fn length(self) -> Option<Duration> {
        match self {
            // What returns descriptors is the reap itself.
            Mode::Once | Mode::Limit => Some(Duration::ZERO),
            Mode::Passing => Some(Duration::from_millis(100)),
            Mode::Lasting => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Once => "once",
            Mode::Passing => "passing",
            Mode::Lasting => "lasting",
            Mode::Limit => "limit",
        }
    }

    pub(super) fn is_of(self, extent: Extent) -> bool {
        match extent {
            _ if self == Mode::Limit => false,
            Extent::Any => true,
            Extent::Passes => self != Mode::Lasting,
            Extent::Stays => self == Mode::Lasting,
        }
    }
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// From 1 on.
    pub(super) nth: u32,
    pub(super) errno: Errno,
    pub(super) mode: Mode,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:?}:{}", self.kind.name(), self.nth, self.errno, self.mode.name())
    }
}

impl Fault {
    /// The fault that a text names, in the words of `Display`.
    pub(super) fn parse(text: &str) -> Option<Fault> {
        let mut words = text.split(':');
        let mut word = || words.next();
        let (kind, nth, errno, mode) = (word()?, word()?, word()?, word()?);
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let errors = Kind::ALL.into_iter().flat_map(Kind::errors);
        let errno = errors.map(|(known, _)| *known).find(|known| format!("{known:?}") == errno)?;
        let mode = Mode::ALL.into_iter().find(|known| known.name() == mode)?;
        Some(Fault { kind, nth: nth.parse().ok()?, errno, mode })
    }

    /// Every fault of a run that makes so many calls of each kind, and needs so many descriptors at least. Of long runs, where
    /// calls repeat, some of the later calls.
    pub(super) fn all(counts: &[u32; Kind::ALL.len()], descriptors: u32) -> Vec<Fault> {
        let limit = |nth| Fault { kind: Kind::Descriptor, nth, errno: Errno::EMFILE, mode: Mode::Limit };
        let mut faults: Vec<Fault> = (descriptors..descriptors + 6).map(limit).collect();
        for (kind, &count) in Kind::ALL.into_iter().zip(counts) {
            let stride = count.div_ceil(EACH).max(1) as usize;
            let calls = (1..=count.min(EACH)).chain((EACH + 1..=count).step_by(stride));
            for nth in calls {
                for &(errno, extent) in kind.errors() {
                    let modes = Mode::ALL.into_iter().filter(|mode| mode.is_of(extent));
                    faults.extend(modes.map(|mode| Fault { kind, nth, errno, mode }));
                }
            }
        }
        faults
    }
}

/// Calls of a kind of which each one fails in some case.
const EACH: u32 = 64;
