//! The reaps under way: a slab of one-shot entries and the wheel of their timers.
//!
//! It decides nothing: machines do. It carries wake-ups to them, their actions to the targets, and the
//! results to the handles. What waits for the wake-ups is the reactor around it.

use std::collections::VecDeque;
use std::io;

use slab::Slab;

use crate::cgroup::{Checks, Facts, Kernel, Notice, Target, Watch};
use crate::handle::Completer;
use crate::machine::{Action, End, Input, Machine, ThawScope, Thawed};
use crate::metrics::Metrics;
use crate::outcome::{Effort, ReapError, Reaped};
use crate::reaper::Reaper;
use crate::sys::Sys;
use crate::time::{Instant, Span};
use crate::wheel::Wheel;

/// Attempts to thaw a target whose reap is dropped.
const THAWS: usize = 3;

/// Timers handled in one turn. What is left is due in the next.
const BATCH: usize = 256;

/// Bits of a token that are a slab key; the others are the entry's generation.
const KEY_BITS: u32 = usize::BITS / 2;
const KEY_MASK: usize = (1 << KEY_BITS) - 1;

/// Has the descriptor's notifications come back as [`Entries::wake`] with the token.
pub(crate) type Register<'a, S> = &'a dyn Fn(&<S as Sys>::Fd, usize, Notice) -> io::Result<()>;

/// A target that passed the checks, about to become an entry.
pub(crate) struct Spawn<S: Sys> {
    pub(crate) reaper: Reaper,
    pub(crate) target: Target<S>,
    pub(crate) completer: Completer,
}

/// One reap under way.
struct Entry<S: Sys> {
    machine: Machine,
    target: Target<S>,
    completer: Completer,
    generation: u32,
    spawned: Instant,
    /// It is among those to go on in the next turn.
    again: bool,
}

pub(crate) struct Entries<S: Sys> {
    pub(crate) checks: Checks<S>,
    pub(crate) metrics: Metrics,
    slab: Slab<Entry<S>>,
    wheel: Wheel,
    /// Of the last spawn. Neither 0 nor all ones, so that no token is 0, or one of the reactor's own.
    generation: u32,
    /// Tokens of entries whose step met its bound, and that go on in the next turn, after the others.
    again: VecDeque<usize>,
    facts: Facts,
}

impl<S: Sys> Entries<S> {
    pub(crate) fn new(checks: Checks<S>) -> Entries<S> {
        let facts = Facts::new(&checks.sys);
        Entries {
            checks,
            metrics: Metrics::default(),
            slab: Slab::new(),
            wheel: Wheel::new(),
            generation: 0,
            again: VecDeque::new(),
            facts,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The tick at which a timer is due.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.wheel.next()
    }

    /// How many are to go on in this turn, with [`Entries::go_on`], after the notifications and timers.
    pub(crate) fn again(&self) -> usize {
        self.again.len()
    }

    /// Whether some are to go on in the next turn.
    pub(crate) fn must_go_on(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes in a target, and starts on it.
    pub(crate) fn admit(&mut self, spawn: Spawn<S>, register: Register<'_, S>) {
        let Spawn { reaper, target, completer } = spawn;
        if self.slab.len() >= KEY_MASK {
            // Out of reach, but with 32-bit tokens.
            return completer.complete(Err(ReapError::Reactor(io::ErrorKind::OutOfMemory.into())));
        }
        let now = Instant::after_start(self.checks.sys.now());
        self.generation = if self.generation as usize + 1 < KEY_MASK { self.generation + 1 } else { 1 };
        let generation = self.generation;
        let key = self.slab.insert(Entry {
            machine: Machine::new(&reaper, now, target.found()),
            target,
            completer,
            generation,
            spawned: now,
            again: false,
        });
        self.metrics.spawned += 1;
        let bound = self.slab[key].completer.bind(token(key, generation));
        self.drive(key, if bound { Input::Spawned } else { Input::Cancelled }, register);
    }

    /// Wakes the entry that a token was made for, if it is still there.
    pub(crate) fn wake(&mut self, token: usize, input: Input, register: Register<'_, S>) {
        let (key, generation) = (token & KEY_MASK, token >> KEY_BITS);
        if self.slab.get(key).is_some_and(|entry| entry.generation as usize == generation) {
            self.drive(key, input, register);
        }
    }

    /// Wakes those whose timers are due, as many as a turn may; whether there were any.
    pub(crate) fn expire(&mut self, register: Register<'_, S>) -> bool {
        let now = u64::try_from(self.checks.sys.now().as_millis()).unwrap_or(u64::MAX);
        let before = self.metrics.timers;
        let late = self.wheel.next().map_or(0, |tick| now.saturating_sub(tick));
        let tick = Input::TimerFired { lag: Span::from_millis(late) };
        for _ in 0..BATCH {
            let Some(key) = self.wheel.pop(now) else { break };
            self.metrics.timers += 1;
            self.drive(key, tick, register);
        }
        self.metrics.timers != before
    }

    /// Wakes the first `count` of those that are to go on.
    pub(crate) fn go_on(&mut self, count: usize, register: Register<'_, S>) {
        for _ in 0..count {
            let Some(token) = self.again.pop_front() else { return };
            if let Some(entry) = self.slab.get_mut(token & KEY_MASK) {
                entry.again = false;
            }
            self.wake(token, Input::Resumed, register);
        }
    }

    /// Feeds one entry's machine, and does what it says, until it waits or is done.
    fn drive(&mut self, key: usize, mut input: Input, register: Register<'_, S>) {
        let Some(entry) = self.slab.get_mut(key) else { return };
        let token = token(key, entry.generation);
        let watch = |fd: &S::Fd, notice: Notice| register(fd, token, notice);
        let Entry { machine, target, again, .. } = entry;
        let watch: Option<Watch<'_, S>> = if target.without_events() { None } else { Some(&watch) };
        let mut kernel = kernel(&self.checks, &mut self.metrics, &mut self.facts, watch);
        let end = loop {
            let now = Instant::after_start(kernel.sys.now());
            let escalated = machine.freezes_first();
            let action = machine.step(now, input);
            if machine.freezes_first() && !escalated {
                kernel.metrics.escalations += 1;
                log::info!("{}: does not shrink; freezing it", target.path().display());
            }
            log::trace!("{}: {input:?} -> {action:?}", target.path().display());
            input = match action {
                Action::Check(detail) => Input::Checked(target.check(&mut kernel, detail)),
                Action::Kill(by) => Input::Killed(target.kill(&mut kernel, by)),
                Action::Signal(signal, members) => {
                    Input::Signalled(target.signal(&mut kernel, signal, members))
                }
                Action::Freeze => Input::Froze(target.freeze(&mut kernel)),
                Action::Thaw(scope) => Input::Thawed(target.thaw(&mut kernel, scope)),
                Action::ThawExternal => Input::ThawedExternal(target.thaw_external(&mut kernel)),
                Action::Remove => Input::Removed(target.remove(&mut kernel)),
                Action::Yield => {
                    target.outdate();
                    self.wheel.cancel(key);
                    if !std::mem::replace(again, true) {
                        self.again.push_back(token);
                    }
                    return;
                }
                Action::Wait(until) => {
                    target.rest();
                    self.wheel.schedule(key, until.millis_rounded_up());
                    return;
                }
                Action::Finish(end) => break end,
            };
        };
        self.complete(key, end);
    }

    fn complete(&mut self, key: usize, end: End) {
        self.wheel.cancel(key);
        let Entry { machine, mut target, completer, spawned, .. } = self.slab.remove(key);
        let sys = &self.checks.sys;
        let elapsed = sys.now().saturating_sub(spawned.since_start());
        self.metrics.completed += 1;
        let effort = Effort {
            method: machine.used(),
            signalled: machine.signalled(),
            attempts: machine.attempts(),
            elapsed,
        };
        log::info!("{}: {end:?} after {elapsed:?}, attempts: {}", target.path().display(), effort.attempts);
        let result = match end {
            End::Done(outcome) => {
                let Effort { method, signalled, attempts, elapsed } = effort;
                Ok(Reaped { outcome, method, signalled, attempts, elapsed })
            }
            end => Err(target.error(sys, end, effort)),
        };
        // Descriptors first, so that whoever hears of the completion finds them closed.
        drop(target);
        completer.complete(result);
    }
}

impl<S: Sys> Drop for Entries<S> {
    /// Completes what is left as `Disconnected`, and leaves nothing frozen.
    fn drop(&mut self) {
        let mut kernel = kernel(&self.checks, &mut self.metrics, &mut self.facts, None);
        for mut entry in self.slab.drain() {
            if entry.machine.has_frozen() {
                // There is no later to try again in, save at once.
                let mut thaws = (0..THAWS).map(|_| entry.target.thaw(&mut kernel, ThawScope::All));
                let thaw = thaws.find(|thaw| matches!(thaw, Thawed::Thawed | Thawed::HeldFromOutside));
                log::debug!("{}: dropped in mid-freeze: {thaw:?}", entry.target.path().display());
            }
        }
    }
}

fn kernel<'a, S: Sys>(
    checks: &'a Checks<S>,
    metrics: &'a mut Metrics,
    facts: &'a mut Facts,
    watch: Option<Watch<'a, S>>,
) -> Kernel<'a, S> {
    Kernel { sys: &checks.sys, own: &checks.own, budget: &checks.budget, metrics, watch, facts }
}

fn token(key: usize, generation: u32) -> usize {
    (generation as usize) << KEY_BITS | key
}
