//! The children of `cgreap run`: the main process of the command, the guard, and, where cgreap is the init of a pid namespace
//! or a subreaper, processes that have lost their parents.

use nix::unistd::{getpgid, getpgrp, getsid};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use crate::status::of_signal;

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signalled(i32),
}

impl Ended {
    fn of(status: WaitStatus) -> Option<Ended> {
        status.exit_status().map(Ended::Exited).or_else(|| status.terminating_signal().map(Ended::Signalled))
    }

    /// The exit status by which shells tell it.
    pub fn status(self) -> u8 {
        match self {
            // The kernel keeps eight bits.
            Ended::Exited(code) => code as u8,
            Ended::Signalled(signal) => of_signal(signal),
        }
    }
}

/// The main process, a child that is waited for here only: until it has ended, its pid is its own.
#[derive(Debug)]
pub struct Main {
    pid: Pid,
    ended: Option<Ended>,
    is_stopped: bool,
}

impl Main {
    pub fn new(pid: Pid) -> Main {
        Main { pid, ended: None, is_stopped: false }
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether it is in this session, in a process group of its own, as a shell with job control is.
    pub fn has_own_job(&self) -> bool {
        let in_session = getsid(Some(self.nix_pid())).is_ok_and(|session| getsid(None) == Ok(session));
        in_session && self.group().is_some_and(|group| group != getpgrp())
    }

    /// Whether it is the process with this pid, or was it until it ended.
    pub fn is(&self, pid: u32) -> bool {
        u32::try_from(self.pid.as_raw_nonzero().get()) == Ok(pid)
    }

    /// Whether it is in the process group of cgreap, so that it gets what the terminal sends to that.
    pub fn shares_group(&self) -> bool {
        self.group() == Some(getpgrp())
    }

    /// Stops it, with its process group if that is its own.
    pub fn stop(&self) {
        self.signal_job(Signal::STOP);
    }

    pub fn resume(&mut self) {
        self.is_stopped = false;
        self.signal_job(Signal::CONT);
    }

    /// Its process group, 0 if that is of another pid namespace.
    fn group(&self) -> Option<nix::unistd::Pid> {
        getpgid(Some(self.nix_pid())).ok().filter(|_| self.ended.is_none())
    }

    /// For what rustix has no values.
    fn nix_pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.pid.as_raw_nonzero().get())
    }

    /// Signals its process group if it leads one: that group keeps its id as long as the process keeps its pid.
    fn signal_job(&self, signal: Signal) {
        if self.group() == Some(self.nix_pid()) {
            let _ = kill_process_group(self.pid, signal);
        } else {
            self.signal(signal);
        }
    }

    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // Denied to a process that has changed its user: only its cgroup can be killed then.
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// Waits for all children that have ended, stopped or been continued by now. Tells whether `guard` was among them.
pub fn collect(main: &mut Main, guard: Option<Pid>) -> bool {
    let mut guard_ended = false;
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    while let Ok(Some((pid, status))) = wait(options) {
        if pid == main.pid {
            main.is_stopped = status.stopped();
            main.ended = Ended::of(status);
        } else if Some(pid) == guard && Ended::of(status).is_some() {
            guard_ended = true;
        }
    }
    guard_ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_shells() {
        assert_eq!(Ended::Exited(3).status(), 3);
        assert_eq!(Ended::Signalled(9).status(), 137);
        assert_eq!(Ended::Signalled(64).status(), 192);
    }
}
