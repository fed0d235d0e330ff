//! [`Process`]: one tracked process, with the inode number that tells it from a later process of the same pid.

use std::io;
use std::num::NonZeroU64;

use super::errors::{Call, Meaning, is_out_of_descriptors, meaning};
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
    /// The signal that it was sent, if it was signalled by itself. After SIGKILL it exits, also outside the target.
    pub(super) signal: Option<Signal>,
}

impl Process {
    /// Opens the process, if it still exists; `None` also if it cannot be told from another process of its pid.
    pub(crate) fn open_same<S: Sys>(self, sys: &S, facts: &mut Facts<S>) -> io::Result<Option<S::Fd>> {
        if self.number.is_none() {
            return Ok(None);
        }
        match sys.pidfd_open(self.pid) {
            Ok(pidfd) => Ok((facts.number(sys, &pidfd)? == self.number).then_some(pidfd)),
            Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn was_killed(self) -> bool {
        self.signal == Some(Signal::KILL)
    }

    /// Whether it is exiting, or was sent SIGKILL and has still to act on it. SIGKILL does not end kernel threads, nor process 1 of
    /// the caller's pid namespace.
    fn is_exiting<S: Sys>(self, proc: &Proc<'_, S>) -> io::Result<bool> {
        if self.was_killed() && self.pid.get() != 1 && !proc.stat(self.pid)?.is_kernel_thread() {
            return Ok(true);
        }
        proc.is_exiting(self.pid)
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
        let exiting = match Proc::open(sys).and_then(|proc| proc.map(|it| self.is_exiting(&it)).transpose()) {
            Ok(Some(exiting)) => exiting,
            Err(error) if is_out_of_descriptors(&error) && !self.was_killed() => return Err(error),
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
