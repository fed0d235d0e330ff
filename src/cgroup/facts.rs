//! What is found out once for all targets: what kind of kernel this is, and where the v1 freezer is mounted.

use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use super::own::Mount;
use crate::sys::Sys;

/// From this kernel on, the dying leave `cgroup.procs` before they are dead, and soon after that their directory
/// could be removed as well (`cgroup_task_dead`).
const HIDES_DYING: (u32, u32) = (6, 19);

/// `PID_FS_MAGIC` of `linux/magic.h`: pidfds whose inode number identifies a process (Linux 6.9).
const PID_FS_MAGIC: i64 = 0x5049_4446;

/// How long the mounts are good for. A node has thousands, and each reap that waits for the undying asks at every
/// tick.
const MOUNTS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Facts {
    /// The dying leave the lists before they are dead, and let their directory be removed.
    pub(crate) hides_dying: bool,
    /// Whether pidfds have inode numbers of their own; unknown before the first.
    identified: Option<bool>,
    /// The mounts, and when they were read.
    mounts: Option<(Duration, Vec<Mount>)>,
}

impl Facts {
    pub(crate) fn new<S: Sys>(sys: &S) -> Facts {
        Facts { hides_dying: sys.release() >= HIDES_DYING, identified: None, mounts: None }
    }

    /// The inode number of a pidfd, where it is the process's own.
    pub(crate) fn identity<S: Sys>(&mut self, sys: &S, pidfd: &S::Fd) -> io::Result<Option<NonZeroU64>> {
        let identified = match self.identified {
            Some(identified) => identified,
            None => *self.identified.insert(sys.filesystem(pidfd)? == PID_FS_MAGIC),
        };
        Ok(if identified { NonZeroU64::new(sys.stat(Some(pidfd), c"")?.ino) } else { None })
    }

    /// The mount of the v1 freezer.
    pub(crate) fn freezer<S: Sys>(&mut self, sys: &S) -> io::Result<Option<&Mount>> {
        let now = sys.now();
        if self.mounts.as_ref().is_none_or(|(read, _)| now.saturating_sub(*read) >= MOUNTS) {
            self.mounts = Some((now, Mount::all(sys)?));
        }
        Ok(self.mounts.as_ref().and_then(|(_, mounts)| Mount::freezer(mounts)))
    }
}
