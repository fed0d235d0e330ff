//! [`Process`]: one tracked process, with the inode number that tells it from a later process of the same pid.

use std::io;
use std::num::NonZeroU64;

use super::errors::is_out_of_descriptors;
use super::facts::Facts;
use super::proc::Proc;
use crate::reaper::Signal;
use crate::sys::{Pid, Sys};

/// A tracked process.
#[derive(Clone, Copy)]
pub(crate) struct Process {
    pub(super) pid: Pid,
    /// The inode number of its pidfds, where they have one: it tells a process from a later one of the same pid.
    pub(super) number: Option<NonZeroU64>,
    /// The signal that it was sent, if it was signalled by itself. After SIGKILL it exits, also outside the target
    /// (unless it is process 1 of the caller's pid namespace, which cannot be killed).
    pub(super) signal: Option<Signal>,
}

impl Process {
    /// Opens the process, if it still exists; `None` also if it cannot be told from another process of its pid.
    pub(crate) fn open_same<S: Sys>(self, sys: &S, facts: &mut Facts<S>) -> Option<S::Fd> {
        let pidfd = sys.pidfd_open(self.pid).ok()?;
        let number = facts.number(sys, &pidfd).ok()??;
        (Some(number) == self.number).then_some(pidfd)
    }

    /// What became of the process, which is no longer listed.
    pub(super) fn life<S: Sys>(self, sys: &S, pidfd: &S::Fd) -> io::Result<Life> {
        if sys.has_exited(pidfd)? {
            return Ok(Life::Dead);
        }
        // The caller may have been a member for a moment.
        if self.pid == sys.caller().0 {
            return Ok(Life::Elsewhere);
        }
        let exiting = self.signal == Some(Signal::KILL)
            || match Proc::open(sys).and_then(|proc| proc.map(|proc| proc.is_exiting(self.pid)).transpose()) {
                Ok(Some(exiting)) => exiting,
                Err(error) if is_out_of_descriptors(&error) => return Err(error),
                // If /proc does not say, the process is waited for.
                Ok(None) | Err(_) => true,
            };
        // Checked again: if the process has not exited, the pid in /proc was its own.
        Ok(match exiting {
            false => Life::Elsewhere,
            true if sys.has_exited(pidfd)? => Life::Dead,
            true => Life::Exiting,
        })
    }
}

/// What became of a tracked process that is no longer listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It is alive, and has left the target. It may come back.
    Elsewhere,
    /// It is exiting and not dead yet.
    Exiting,
    Dead,
}
