//! Facts about the kernel that are found out once for all targets.

use std::io;
use std::num::NonZeroU64;

use super::errors::{Call, Meaning, meaning};
use super::identity::Parents;
use crate::sys::Sys;

/// From this kernel on, exiting tasks leave `cgroup.procs` before they are dead, and soon after that their directory
/// can be removed as well (`cgroup_task_dead`).
const EXITING_NOT_LISTED: (u32, u32) = (6, 19);

/// `PID_FS_MAGIC` of `linux/magic.h`: pidfds whose inode number identifies a process (Linux 6.9).
const PID_FS_MAGIC: i64 = 0x5049_4446;

pub(crate) struct Facts<S: Sys> {
    /// Exiting tasks are not listed, and do not keep their directory from being removed.
    pub(crate) exiting_not_listed: bool,
    /// Whether pidfds have inode numbers of their own; unknown before the first pidfd is asked.
    pidfds_have_numbers: Option<bool>,
    /// pidfd_send_signal(2) was refused, also to the caller itself.
    lacks_pidfd_signals: bool,
    /// Whether process_mrelease(2) works; unknown before it is first needed.
    releases_memory: Option<bool>,
    /// Whether PIDFD_GET_INFO tells which v2 cgroup a process is in; unknown before it was asked.
    tells_cgroups: Option<bool>,
    pub(crate) parents: Parents<S>,
}

impl<S: Sys> Facts<S> {
    pub(crate) fn new(sys: &S) -> Facts<S> {
        Facts {
            exiting_not_listed: sys.release() >= EXITING_NOT_LISTED,
            pidfds_have_numbers: None,
            lacks_pidfd_signals: false,
            releases_memory: None,
            tells_cgroups: None,
            parents: Parents::new(),
        }
    }

    /// Whether pidfd_send_signal(2) does not work, as far as is known.
    pub(crate) fn lacks_pidfd_signals(&self) -> bool {
        self.lacks_pidfd_signals
    }

    /// Finds out whether pidfd_send_signal(2) works, after it was refused: it sends signal 0 to the caller, which may
    /// signal itself. A seccomp filter can refuse this call alone.
    pub(crate) fn try_pidfd_signals(&mut self, sys: &S) {
        let sent = sys.pidfd_open(sys.caller().0).and_then(|own| sys.pidfd_send_signal(&own, 0));
        self.lacks_pidfd_signals =
            sent.is_err_and(|error| meaning(Call::PidfdSignal, &error) == Meaning::Unsupported);
    }

    /// Whether process_mrelease(2) works. It is tried on the caller itself, which is not being killed, so the kernel
    /// has nothing to do (EINVAL). If the call is missing, this is logged once.
    pub(crate) fn releases_memory(&mut self, sys: &S) -> bool {
        if let Some(known) = self.releases_memory {
            return known;
        }
        let asked = sys.pidfd_open(sys.caller().0).and_then(|own| sys.process_mrelease(&own));
        let Err(error) = asked else { return true };
        match meaning(Call::Release, &error) {
            Meaning::Unsupported => {
                log::warn!("no memory is released of members that cannot exit: process_mrelease(2): {error}");
                *self.releases_memory.insert(false)
            }
            // The next call asks again.
            Meaning::Short => false,
            _ => *self.releases_memory.insert(true),
        }
    }

    /// Whether the kernel tells by a pidfd which v2 cgroup its process is in (Linux 6.13).
    pub(crate) fn tells_cgroups(&mut self, sys: &S) -> bool {
        if self.tells_cgroups.is_none() {
            self.tells_cgroups = match sys.pidfd_open(sys.caller().0).and_then(|own| sys.cgroup_of(&own)) {
                Ok(_) => Some(true),
                Err(error) if meaning(Call::PidfdInfo, &error) == Meaning::Unsupported => Some(false),
                // The next call asks again.
                Err(_) => None,
            };
        }
        self.tells_cgroups == Some(true)
    }

    /// Returns the inode number of a pidfd, if pidfds have numbers that identify their processes.
    pub(crate) fn number(&mut self, sys: &S, pidfd: &S::Fd) -> io::Result<Option<NonZeroU64>> {
        let have = match self.pidfds_have_numbers {
            Some(have) => have,
            None => *self.pidfds_have_numbers.insert(sys.filesystem(pidfd)? == PID_FS_MAGIC),
        };
        Ok(if have { NonZeroU64::new(sys.stat(Some(pidfd), c"")?.ino) } else { None })
    }
}
