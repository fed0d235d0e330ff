//! Drives a reactor until all targets have ended, and cancels them on a signal.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cgroup_reaper::{Outcome, Pending, Phase, Reactor, ReapError, ReapHandle, Reaped, Reaper, SpawnError};
use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::console::complain_at_once;
use crate::end::{End, Failure};
use crate::interrupt::{Interrupt, Urgency, Wait};
use crate::shortage::{RETRY, is_shortage};

/// The number of spawns between two turns, so that the first targets do not wait until the last is spawned.
const SPAWNS_PER_TURN: usize = 64;
/// How long cancelled reaps may take to thaw what they have frozen.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// Makes a reactor that can have as many descriptors as the process may, and watches for signals.
///
/// To be called before the first target is touched: from here on a signal leaves nothing frozen.
pub fn start() -> Result<(Reactor, Interrupt), String> {
    raise_descriptor_limit();
    let reactor = Reactor::new().map_err(|error| format!("event loop: {error}"))?;
    let interrupt = Interrupt::watch().map_err(|error| format!("signals: {error}"))?;
    Ok((reactor, interrupt))
}

/// Raises the soft limit of descriptors to the hard limit: more reaps run at once then.
fn raise_descriptor_limit() {
    // If that is refused, reaps wait for descriptors.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < hard {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}

/// What is to be reaped.
pub trait Target {
    /// Makes the reaper, just before it is spawned; `None` if the target is gone. In a shortage the reaper is
    /// dropped, and made again later.
    fn reaper(&self) -> Result<Option<Reaper>, SpawnError>;
}

impl Target for Reaper {
    fn reaper(&self) -> Result<Option<Reaper>, SpawnError> {
        Ok(Some(self.clone()))
    }
}

/// Is told how each target ended.
pub trait Listener {
    /// The target of this index has ended.
    fn ended(&mut self, index: usize, end: End);

    /// Writes what can be written without blocking. Returns what to wait for before the next call.
    fn write(&mut self) -> Wait<'_> {
        Wait::default()
    }
}

/// A reap that has not been reported yet.
struct Running {
    handle: ReapHandle,
    since: Instant,
}

/// Reaps all of `targets` at once. The listener is told of each, by its index, exactly once, whatever fails.
pub fn drive<T: Target>(
    mut reactor: Reactor,
    targets: Vec<T>,
    interrupt: &Interrupt,
    listener: &mut dyn Listener,
) -> io::Result<()> {
    let mut driver = Driver {
        running: targets.iter().map(|_| None).collect(),
        waiting: targets.into_iter().enumerate().collect(),
        running_count: 0,
        retry_at: None,
        obeyed: Urgency::None,
        spared: HashSet::new(),
        interrupt,
        listener,
    };
    let driven = driver.run(&mut reactor);
    driver.report_completed(&mut reactor);
    // What still runs is thawed and completes `Disconnected`.
    drop(reactor);
    driver.report_unended();
    driven
}

struct Driver<'a, T> {
    /// Not spawned yet.
    waiting: VecDeque<(usize, T)>,
    /// By index; `None` before the spawn and after the end.
    running: Vec<Option<Running>>,
    running_count: usize,
    /// Until when spawns wait, after a shortage. What is short may be returned by a running reap, or by another process.
    retry_at: Option<Instant>,
    /// What was done about signals.
    obeyed: Urgency,
    /// Those that were in a grace period at the first Ctrl-C.
    spared: HashSet<u64>,
    interrupt: &'a Interrupt,
    listener: &'a mut dyn Listener,
}

impl<T: Target> Driver<'_, T> {
    /// Returns when all have ended, or, after a signal, when the time for cancelling them is over.
    fn run(&mut self, reactor: &mut Reactor) -> io::Result<()> {
        let mut cancelled_at = None;
        loop {
            if self.interrupt.signal().is_some() {
                self.obey(reactor);
                if cancelled_at.is_none() && self.spared.is_empty() {
                    cancelled_at = Some(Instant::now());
                }
            } else {
                self.spawn_some(reactor);
            }
            self.report_completed(reactor);
            let to_spawn = self.obeyed == Urgency::None && !self.waiting.is_empty();
            let patience = cancelled_at.map(|at| CANCEL_PATIENCE.saturating_sub(at.elapsed()));
            if self.running_count == 0 && !to_spawn || patience == Some(Duration::ZERO) {
                return Ok(());
            }
            let spawns_in = to_spawn.then(|| self.retry_in());
            let mut wait = self.listener.write();
            wait.descriptors.push(PollFd::new(reactor.as_fd(), PollFlags::POLLIN));
            wait.at_most = wait.at_most.into_iter().chain(patience).chain(spawns_in).min();
            self.interrupt.wait(wait)?;
            reactor.turn(Some(Duration::ZERO))?;
        }
    }

    /// Does what the signals ask for: the first Ctrl-C cancels all but those in a grace period, the second ends that, the third
    /// cancels them too.
    fn obey(&mut self, reactor: &Reactor) {
        let urgency = self.interrupt.urgency();
        if urgency <= self.obeyed {
            return;
        }
        if self.obeyed == Urgency::None {
            let in_grace = |pending: &Pending<'_>| matches!(pending.phase, Phase::Lingering | Phase::Grace);
            self.spared = reactor.pending().filter(in_grace).filter_map(|pending| pending.tag).collect();
        }
        if urgency == Urgency::Cancel {
            self.spared.clear();
        }
        self.obeyed = urgency;
        for (index, running) in self.running.iter().enumerate() {
            let Some(Running { handle, .. }) = running else { continue };
            match self.spared.contains(&(index as u64)) {
                true if urgency == Urgency::Kill => handle.kill_now(),
                true => {}
                false => handle.cancel(),
            }
        }
        if urgency == Urgency::Patient && !self.spared.is_empty() {
            let targets = if self.spared.len() == 1 { "target" } else { "targets" };
            complain_at_once(&format!("waiting for {} {targets}; Ctrl-C again kills now", self.spared.len()));
        }
    }

    /// How long spawns still wait.
    fn retry_in(&self) -> Duration {
        self.retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    fn spawn_some(&mut self, reactor: &mut Reactor) {
        for _ in 0..SPAWNS_PER_TURN {
            if !self.retry_in().is_zero() || self.interrupt.signal().is_some() {
                return;
            }
            let Some((index, target)) = self.waiting.pop_front() else { return };
            let since = Instant::now();
            let spawned = target
                .reaper()
                .and_then(|reaper| reaper.map(|it| reactor.spawn_reaper(it.tag(index as u64))).transpose());
            match spawned {
                Ok(Some(handle)) => {
                    self.running[index] = Some(Running { handle, since });
                    self.running_count += 1;
                }
                Ok(None) => {
                    let result = Ok(Reaped::new(Outcome::AlreadyGone));
                    self.listener.ended(index, End { result, elapsed: since.elapsed() });
                }
                Err(error)
                    if self.running_count > 0 && error.refusal().io_error().is_some_and(is_shortage) =>
                {
                    self.waiting.push_front((index, target));
                    self.retry_at = Some(Instant::now() + RETRY);
                }
                Err(error) => {
                    let result = Err(Failure::Reap(error.into()));
                    self.listener.ended(index, End { result, elapsed: since.elapsed() });
                }
            }
        }
    }

    fn report_completed(&mut self, reactor: &mut Reactor) {
        for ended in reactor.drain_completed() {
            self.end(ended.tag as usize, ended.result);
        }
    }

    fn end(&mut self, index: usize, result: Result<Reaped, ReapError>) {
        if let Some(running) = self.running[index].take() {
            self.running_count -= 1;
            self.spared.remove(&(index as u64));
            self.retry_at = None;
            let elapsed = result.as_ref().map_or_else(|_| running.since.elapsed(), |reaped| reaped.elapsed);
            self.listener.ended(index, End { result: result.map_err(Failure::Reap), elapsed });
        }
    }

    /// Reports all that have not ended.
    fn report_unended(&mut self) {
        for index in 0..self.running.len() {
            if let Some(running) = &self.running[index] {
                // The reactor is dropped, so that it is complete.
                let disconnected = || Err(ReapError::disconnected(running.handle.path()));
                let result = running.handle.try_wait().unwrap_or_else(disconnected);
                self.end(index, result);
            }
        }
        for (index, _) in std::mem::take(&mut self.waiting) {
            let result = Err(Failure::NotStarted);
            self.listener.ended(index, End { result, elapsed: Duration::ZERO });
        }
    }
}
