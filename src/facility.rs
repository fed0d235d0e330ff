//! [`Facility`]: a kernel facility that a test makes unavailable, to see how a reap works without it.

use std::ffi::CStr;
use std::io;

use nix::errno::Errno;

/// A facility of the kernel that a reactor of [`Reactor::without`](crate::Reactor::without) does not have.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// Files named `cgroup.kill`, Linux 5.14. They do not exist: ENOENT.
    CgroupKill,
    /// pidfd_open(2), Linux 5.3. It fails with ENOSYS.
    Pidfds,
    /// Notifications from a descriptor. epoll_ctl(2) fails with ENOSPC, as at the limit of watches.
    Watches,
    /// Permits to hold a descriptor of a target's directory. They are refused, as when half of the descriptor
    /// budget is in use.
    HeldDirectories,
    /// process_mrelease(2), Linux 5.15. It fails with ENOSYS.
    ReleaseMemory,
    /// The reactor's own threads. None can be started: EAGAIN.
    HelperThreads,
}

impl Facility {
    /// Fails as the kernel does if this is one of the `absent` facilities.
    pub(crate) fn check(self, absent: &[Facility]) -> io::Result<()> {
        let errno = match self {
            Facility::CgroupKill => Errno::ENOENT,
            Facility::Pidfds | Facility::ReleaseMemory => Errno::ENOSYS,
            Facility::Watches => Errno::ENOSPC,
            Facility::HeldDirectories => Errno::EMFILE,
            Facility::HelperThreads => Errno::EAGAIN,
        };
        if absent.contains(&self) { Err(errno.into()) } else { Ok(()) }
    }

    /// Fails if `path` names a file of an absent facility.
    pub(crate) fn check_file(absent: &[Facility], path: &CStr) -> io::Result<()> {
        match path.to_bytes().rsplit(|&b| b == b'/').next() {
            Some(b"cgroup.kill") => Facility::CgroupKill.check(absent),
            _ => Ok(()),
        }
    }
}
