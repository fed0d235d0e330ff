//! The kind of hierarchy that a directory is in, with what a reap keeps of each.

use std::io;

use super::descriptor_budget::Permit;
use crate::sys::Sys;

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Which cgroup interface a filesystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    /// The one that `fd` is of; `None` on any other filesystem.
    pub(crate) fn of<S: Sys>(sys: &S, fd: &S::Fd) -> io::Result<Option<Version>> {
        Ok(match sys.filesystem(fd)? {
            CGROUP_SUPER_MAGIC => Some(Version::V1),
            CGROUP2_SUPER_MAGIC => Some(Version::V2),
            _ => None,
        })
    }
}

/// The hierarchy of a directory, and what is kept of it.
pub(crate) enum Hierarchy<S: Sys> {
    V1(HasFreezer),
    V2 { watch: Watch<S> },
}

/// Whether a v1 hierarchy is that of the freezer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HasFreezer {
    Unasked,
    Present,
    Absent,
}

/// Whether changes of a v2 directory's `cgroup.events` wake the reap. `empty`: the last read said that it has no members.
pub(crate) enum Watch<S: Sys> {
    /// Not yet, or there was no descriptor, or the kernel refused it.
    Unwatched { empty: bool },
    /// They do, as long as the file is open.
    On { empty: bool, file: S::Fd, _permit: Permit },
}

impl<S: Sys> Watch<S> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Watch::Unwatched { empty } | Watch::On { empty, .. } => *empty,
        }
    }

    pub(crate) fn set_empty(&mut self, now: bool) {
        match self {
            Watch::Unwatched { empty } | Watch::On { empty, .. } => *empty = now,
        }
    }
}

impl<S: Sys> Hierarchy<S> {
    /// `freezer` counts for v1 only.
    pub(crate) fn new(version: Version, freezer: HasFreezer) -> Hierarchy<S> {
        match version {
            Version::V1 => Hierarchy::V1(freezer),
            Version::V2 => Hierarchy::V2 { watch: Watch::Unwatched { empty: false } },
        }
    }

    pub(crate) fn is_v1(&self) -> bool {
        matches!(self, Hierarchy::V1(_))
    }

    /// Whether it is the v1 freezer's, as far as that was asked.
    pub(crate) fn is_freezer(&self) -> bool {
        matches!(self, Hierarchy::V1(HasFreezer::Present))
    }

    /// Closes the file that is watched, if one is.
    pub(crate) fn let_go(&mut self) {
        if let Hierarchy::V2 { watch } = self {
            if let Watch::On { empty, .. } = *watch {
                *watch = Watch::Unwatched { empty };
            }
        }
    }
}
