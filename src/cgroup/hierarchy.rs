//! The kind of hierarchy that a directory is in, with the state that a reap keeps for each kind.

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
    /// Returns the version of `fd`'s filesystem; `None` if it is no cgroup filesystem.
    pub(crate) fn of<S: Sys>(sys: &S, fd: &S::Fd) -> io::Result<Option<Version>> {
        Ok(match sys.filesystem(fd)? {
            CGROUP_SUPER_MAGIC => Some(Version::V1),
            CGROUP2_SUPER_MAGIC => Some(Version::V2),
            _ => None,
        })
    }
}

/// The hierarchy of a directory, and the state that is kept for it.
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

/// Whether changes of a v2 directory's `cgroup.events` wake the reap. `empty`: the last read said that the directory has
/// no members.
pub(crate) enum Watch<S: Sys> {
    /// They do not: it was not tried yet, there was no descriptor, or the kernel refused the watch.
    Unwatched { empty: bool },
    /// They do, as long as `file` is open.
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
    /// `freezer` is used for v1 only.
    pub(crate) fn new(version: Version, freezer: HasFreezer) -> Hierarchy<S> {
        match version {
            Version::V1 => Hierarchy::V1(freezer),
            Version::V2 => Hierarchy::V2 { watch: Watch::Unwatched { empty: false } },
        }
    }

    pub(crate) fn version(&self) -> Version {
        if self.is_v1() { Version::V1 } else { Version::V2 }
    }

    pub(crate) fn is_v1(&self) -> bool {
        matches!(self, Hierarchy::V1(_))
    }

    /// Whether it is known to be the v1 freezer's hierarchy.
    pub(crate) fn is_freezer(&self) -> bool {
        matches!(self, Hierarchy::V1(HasFreezer::Present))
    }

    /// Closes the file that is watched, if there is one.
    pub(crate) fn let_go(&mut self) {
        if let Hierarchy::V2 { watch } = self {
            if let Watch::On { empty, .. } = *watch {
                *watch = Watch::Unwatched { empty };
            }
        }
    }
}
