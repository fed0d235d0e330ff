//! The loop of a run: from the start of the command until all is reaped.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cgroup_reaper::Reactor;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::children::{self, Ended, Main, Stop};
use super::ending::{self, Ending};
use super::group::Groups;
use super::guard::{Guard, warn_unguarded};
use super::left::Left;
use super::outcome::Cause;
use super::signals::{Event, Signals, stop_job, stop_self};
use super::start::{Started, Starter};
use crate::args::RunArgs;
use crate::interrupt::poll_timeout;

/// How long after Ctrl-Z the command may take to stop for cgreap to stop with it.
const STOP_TIME: Duration = Duration::from_secs(2);
/// How long after the command has stopped it counts as stopped by itself: Ctrl-Z may be read after that it has stopped.
const SUSPEND_TIME: Duration = Duration::from_millis(50);
/// So many signals are handled before it is checked what is due: a command can have cgreap get signals without end.
const BATCH: usize = 16;

/// A run under way.
#[derive(Debug)]
pub struct Supervisor<'a> {
    args: &'a RunArgs,
    signals: &'a Signals,
    groups: &'a Groups,
    guard: &'a mut Option<Guard>,
    reactor: Reactor,
    main: Main,
    /// Until the command is executed.
    starter: Option<Starter>,
    /// Tells why the command was not executed.
    started: Option<Started>,
    /// Whether the process was let execute the command.
    released: bool,
    since: Instant,
    /// `None` while the command runs.
    ending: Option<Ending<'a>>,
    cause: Option<Cause>,
    left: Option<Left>,
    /// When Ctrl-Z was typed.
    stop_at: Option<Instant>,
    /// cgreap was stopped because the command had suspended itself, which has not been continued since.
    has_suspended: bool,
    /// There may be children to wait for that no signal will tell of.
    has_more_children: bool,
    /// When to give up on a main process that has left its cgroup and does not exit.
    give_up_at: Option<Instant>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Done {
    pub ended: Option<Ended>,
    /// Whether the command was executed.
    pub executed: bool,
    /// Why not, unless cgreap was told to end before.
    pub failure: Option<String>,
    pub cause: Option<Cause>,
    pub left: Left,
    pub result: ending::Result,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        args: &'a RunArgs,
        signals: &'a Signals,
        groups: &'a Groups,
        guard: &'a mut Option<Guard>,
        reactor: Reactor,
        starter: Starter,
    ) -> Supervisor<'a> {
        Supervisor {
            args,
            signals,
            groups,
            guard,
            reactor,
            main: Main::new(starter.pid()),
            starter: Some(starter),
            started: None,
            released: false,
            since: Instant::now(),
            ending: None,
            cause: None,
            left: None,
            stop_at: None,
            has_suspended: false,
            has_more_children: false,
            give_up_at: None,
        }
    }

    /// Returns when all is reaped, or cannot be.
    pub fn run(mut self) -> io::Result<Done> {
        // What the terminal has sent so far may have come before there was a process to get it too.
        self.handle_signals();
        self.released = self.ending.is_none();
        // A process that has ended already may have told why. If cgreap was told to end, the starter is dropped, and ends.
        if let Some(starter) = self.starter.take().filter(|_| self.released || self.main.ended().is_some()) {
            self.started = Some(starter.execute());
        }
        loop {
            self.handle_signals();
            self.check_times();
            if self.is_over() {
                break;
            }
            self.wait()?;
            self.reactor.turn(Some(Duration::ZERO))?;
            if let Some(ending) = &mut self.ending {
                ending.advance(&mut self.reactor);
            }
        }
        // Those that were left have become children of an init or a subreaper.
        self.collect();
        let started = self.started.filter(|_| self.main.ended().is_some());
        let failure = started.and_then(|started| started.failure(&self.args.command));
        let executed = self.released && failure.is_none();
        let failure = failure.or_else(|| {
            let is_unknown = !executed && self.cause.is_none();
            is_unknown.then(|| "the process that was to execute the command has ended".to_owned())
        });
        let result = self.ending.map(Ending::into_result).unwrap_or_default();
        let (ended, left) = (self.main.ended(), self.left.unwrap_or_default());
        Ok(Done { ended, executed, failure, cause: self.cause, left, result })
    }

    fn handle_signals(&mut self) {
        if self.has_more_children {
            self.collect();
        }
        for _ in 0..BATCH {
            let Some(event) = self.signals.next() else { break };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Child => self.collect(),
            Event::Typed(_) if self.command_runs() && self.main.shares_group() => {}
            Event::End(_, sender) if self.is_of_command(sender) => {}
            Event::Typed(signal) | Event::End(signal, _) => self.end(Cause::Told(signal)),
            // Before it is executed it could not have set a handler.
            Event::Pass(signal, sender) => {
                if self.starter.is_none() && !self.is_of_command(sender) {
                    self.main.signal(signal);
                }
            }
            Event::Stop => {
                self.stop_at = Some(Instant::now());
                // The terminal has stopped it where it is in the process group of cgreap.
                if self.command_runs() && !self.main.shares_group() {
                    self.main.stop();
                }
                self.stop_with_command();
            }
            Event::Continue => {
                self.stop_at = None;
                self.has_suspended = false;
                if self.main.stopped().is_some() {
                    self.main.resume();
                }
            }
        }
    }

    /// Whether a signal of this sender was for the process group of the main process, which is also that of cgreap: `kill 0` in a
    /// shell.
    fn is_of_command(&self, sender: u32) -> bool {
        self.main.is(sender) && (self.main.ended().is_some() || self.main.shares_group())
    }

    /// Whether the command was executed, and is not being ended.
    fn command_runs(&self) -> bool {
        self.starter.is_none() && self.ending.is_none()
    }

    /// Notes what the children did.
    fn collect(&mut self) {
        let collected = children::collect(&mut self.main, self.guard.as_ref().map(Guard::pid));
        self.has_more_children = collected.is_partial;
        self.has_suspended &= self.main.stopped().is_some();
        if collected.guard_ended {
            *self.guard = None;
            if self.main.ended().is_none() {
                warn_unguarded("the guard has ended");
            }
        }
        if self.main.ended().is_some() {
            if self.ending.is_none() {
                let mut ending = Ending::new(self.args, self.groups, self.guard.is_some());
                if !ending.linger(&mut self.reactor) {
                    self.left = Some(Left::of(self.groups));
                    ending.begin(&mut self.reactor);
                }
                self.ending = Some(ending);
            }
        } else {
            self.stop_with_command();
        }
    }

    /// Stops cgreap where the terminal has stopped the command, so that the shell sees that the job has stopped.
    fn stop_with_command(&mut self) {
        let typed = self.stop_at.is_some_and(|at| at.elapsed() < STOP_TIME);
        if self.ending.is_none() && self.main.stopped().is_some() && typed {
            self.stop_at = None;
            // Then cgreap runs: it was continued, or the kernel has not stopped it, because no shell could continue it.
            if stop_self() {
                self.main.resume();
            }
        }
    }

    /// When to stop the job, because the command has stopped itself, as programs do that give the terminal back to the shell
    /// (`suspend` of a shell, `~^Z` of ssh). A command that stops itself by SIGSTOP in the process group of cgreap does not keep
    /// cgreap from its timeout.
    fn suspend_at(&self) -> Option<Instant> {
        let (stop, since) = self.main.stopped().filter(|_| self.ending.is_none())?;
        let is_job = self.main.has_own_job() || stop == Stop::Job && self.main.shares_group();
        (is_job && !self.has_suspended).then_some(since + SUSPEND_TIME)
    }

    /// The command is to be ended, or what is left of it. If that is under way: now.
    fn end(&mut self, cause: Cause) {
        match &mut self.ending {
            None => {
                let ending = self.ending.insert(Ending::new(self.args, self.groups, self.guard.is_some()));
                ending.begin(&mut self.reactor);
                self.cause = Some(cause);
            }
            Some(ending) if ending.is_lingering() => {
                self.left = Some(Left::of(self.groups));
                ending.begin(&mut self.reactor);
                self.cause = Some(cause);
            }
            Some(ending) => {
                // A signal counts for more than the timeout: a loop of a shell ends if cgreap dies of SIGINT.
                self.cause = self.cause.filter(|&cause| cause != Cause::Timeout).or(Some(cause));
                Supervisor::list(&mut self.left, &self.main, self.groups);
                ending.kill_now();
            }
        }
    }

    /// Lists what the command has left, before it gets SIGKILL, unless that was done when the command ended by itself.
    fn list(left: &mut Option<Left>, main: &Main, groups: &Groups) {
        if left.is_none() && main.ended().is_some() {
            *left = Some(Left::of(groups));
        }
    }

    /// Does what is due.
    fn check_times(&mut self) {
        let timeout = self.args.timeout.map(|timeout| self.since + timeout);
        if self.ending.is_none() && timeout.is_some_and(|at| at <= Instant::now()) {
            self.end(Cause::Timeout);
        }
        if self.suspend_at().is_some_and(|at| at <= Instant::now()) {
            self.has_suspended = true;
            // Where no shell could continue it, it goes on.
            stop_job();
        }
        let Some(ending) = &mut self.ending else { return };
        if ending.has_lingered() {
            self.left = Some(Left::of(self.groups));
            ending.begin(&mut self.reactor);
        }
        if ending.is_kill_due() {
            Supervisor::list(&mut self.left, &self.main, self.groups);
        }
        if ending.is_done() && self.main.ended().is_none() && self.give_up_at.is_none() {
            // Its cgroup is empty, so that it has just ended, or has moved into another one.
            self.collect();
            self.main.signal(rustix::process::Signal::KILL);
            self.give_up_at = Some(Instant::now() + self.args.deadline);
        }
    }

    fn is_over(&self) -> bool {
        let Some(ending) = self.ending.as_ref().filter(|ending| ending.is_done()) else { return false };
        let given_up = self.give_up_at.is_some_and(|at| at <= Instant::now());
        self.main.ended().is_some() || ending.has_failed() || given_up
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> io::Result<()> {
        let timeout = self.args.timeout.filter(|_| self.ending.is_none()).map(|timeout| self.since + timeout);
        let next = self.ending.as_ref().and_then(Ending::next);
        let now = self.has_more_children.then(Instant::now);
        let due = [now, timeout, next, self.suspend_at(), self.give_up_at].into_iter().flatten().min();
        let mut awaited = [self.signals.awaited(), PollFd::new(self.reactor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut awaited, due.map_or(PollTimeout::NONE, time_until)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn time_until(at: Instant) -> PollTimeout {
    poll_timeout(at.saturating_duration_since(Instant::now()))
}
