//! The children of `cgreap run`: the main process of the command, the guard, and, where cgreap is the init of a pid namespace
//! or a subreaper, processes that have lost their parents.

use std::time::Instant;

use nix::unistd::{getpgid, getpgrp, getsid};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, waitpid};

use crate::status::of_signal;

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signalled(i32),
}

impl Ended {
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
    /// How, and since when.
    stopped: Option<(Stop, Instant)>,
}

/// By which kind of signal a process was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By one of job control, after which a shell is to go on: SIGTSTP, SIGTTIN or SIGTTOU.
    Job,
    /// By SIGSTOP.
    Other,
}

impl Stop {
    fn of(signal: i32) -> Stop {
        match signal {
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Stop::Job,
            _ => Stop::Other,
        }
    }
}

impl Main {
    pub fn new(pid: Pid) -> Main {
        Main { pid, ended: None, stopped: None }
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub fn stopped(&self) -> Option<(Stop, Instant)> {
        self.stopped
    }

    fn note(&mut self, change: Change) {
        self.stopped = None;
        match change {
            Change::Stopped(stop) => self.stopped = Some((stop, Instant::now())),
            Change::Continued => {}
            Change::Ended(ended) => self.ended = Some(ended),
        }
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
        self.stopped = None;
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

/// So many children are waited for at a time besides the main process and the guard. A command can make children of cgreap,
/// clone(2) with CLONE_PARENT, faster than they are waited for.
const BATCH: usize = 32;

/// What a child did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Stopped(Stop),
    Continued,
    Ended(Ended),
}

impl Change {
    fn of(status: WaitStatus) -> Change {
        if let Some(signal) = status.stopping_signal() {
            return Change::Stopped(Stop::of(signal));
        }
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Change::Ended(Ended::Exited(code)),
            (None, Some(signal)) => Change::Ended(Ended::Signalled(signal)),
            (None, None) => Change::Continued,
        }
    }
}

/// What children did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// The guard has ended.
    pub guard_ended: bool,
    /// There may be more to wait for.
    pub is_partial: bool,
}

/// Waits for children that have ended, stopped or been continued by now: for the main process, the guard, and some others.
pub fn collect(main: &mut Main, guard: Option<Pid>) -> Collected {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    collect_by(main, guard, |child| {
        let (pid, status) = waitpid(child, options).ok()??;
        Some((pid, Change::of(status)))
    })
}

/// `wait` waits for this child, or for any.
fn collect_by(
    main: &mut Main,
    guard: Option<Pid>,
    mut wait: impl FnMut(Option<Pid>) -> Option<(Pid, Change)>,
) -> Collected {
    let mut collected = Collected { guard_ended: false, is_partial: true };
    // Its pid is its own only until it was waited for.
    let awaited = Some(main.pid).filter(|_| main.ended.is_none());
    let first = [awaited, guard].into_iter().flatten().map(Some);
    for child in first.chain([None; BATCH]) {
        match wait(child) {
            Some((pid, change)) if pid == main.pid && main.ended.is_none() => main.note(change),
            Some((pid, Change::Ended(_))) if Some(pid) == guard => collected.guard_ended = true,
            Some(_) => {}
            None if child.is_some() => {}
            None => {
                collected.is_partial = false;
                break;
            }
        }
    }
    collected
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

    fn pid(pid: i32) -> Pid {
        Pid::from_raw(pid).expect("a pid")
    }

    /// Children without end.
    #[test]
    fn the_main_process_and_the_guard_do_not_wait_for_other_children() {
        let mut main = Main::new(pid(2));
        let mut calls = 0;
        let collected = collect_by(&mut main, Some(pid(3)), |child| {
            calls += 1;
            Some((child.unwrap_or(pid(4)), Change::Ended(Ended::Exited(7))))
        });
        assert_eq!(collected, Collected { guard_ended: true, is_partial: true });
        assert_eq!(main.ended(), Some(Ended::Exited(7)));
        assert_eq!(calls, BATCH + 2);
    }

    #[test]
    fn a_later_process_with_its_pid_is_not_the_main_process() {
        let mut main = Main::new(pid(2));
        main.note(Change::Ended(Ended::Exited(7)));
        for change in [Change::Stopped(Stop::Job), Change::Ended(Ended::Exited(1))] {
            let mut changes = vec![(pid(2), change)];
            let collected = collect_by(&mut main, None, |child| {
                assert_eq!(child, None);
                changes.pop()
            });
            assert_eq!(collected, Collected::default());
            assert_eq!((main.ended(), main.stopped()), (Some(Ended::Exited(7)), None));
        }
    }
}
