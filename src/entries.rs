//! [`Entries`]: the reaps under way, a slab of one-shot entries and the wheel of their timers.
//!
//! It decides nothing: machines do. It carries wake-ups to them in the order of a [`Turn`], their actions to the
//! targets, and the results to the handles. What waits for the wake-ups is the [`Host`] around it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::cgroup::{Answer, Context, Facts, Findings, Job, Limit, Notice, Resolver, Target};
use crate::entry_id::{EntryId, Generation};
use crate::handle::{Asked, Completer};
use crate::machine::{Action, End, Input, Machine, Reach, ThawScope, Thawed};
use crate::metrics::Metrics;
use crate::outcome::{Completed, Effort, Pending, ReapError, Reaped, UsedMethod};
use crate::reaper::Reaper;
use crate::sys::Sys;
use crate::time::Instant;
use crate::turn::Turn;
use crate::wheel::Wheel;

/// How often one of the entries that wait for a descriptor asks whether there is one, in milliseconds.
const PROBE: u64 = 80;

/// Reaps that lose their watches to one that fails for want of descriptors, at a time. It needs three.
const UNWATCHED: usize = 4;

/// Attempts to thaw a target whose reap is dropped.
const THAWS: usize = 3;

/// The loop around the entries: where their notifications and commands come from.
pub(crate) trait Host<S: Sys> {
    /// Registers the descriptor: its notifications are passed to [`Entries::begin_turn`] as this id.
    fn watch(&self, fd: &S::Fd, id: EntryId, notice: Notice) -> io::Result<()>;

    /// The next command from another thread or a handle, if there is one.
    fn next_command(&mut self) -> Option<Command<S>>;

    /// A command to stop has come.
    fn stop(&mut self);

    /// Has a helper thread do a job of this entry. Its answer is a command. Hands the job back if there is no thread.
    fn help(&self, id: EntryId, job: Job<S>) -> Result<(), Job<S>>;
}

/// What other threads and handles ask for, or tell.
pub(crate) enum Command<S: Sys> {
    Spawn(Box<Spawn<S>>),
    Cancel(EntryId),
    KillNow(EntryId),
    /// What came of a job of this entry, which may be gone.
    Answer(EntryId, Answer),
    /// Ends `Reactor::run`.
    Stop,
}

/// A target that passed the checks, about to become an entry.
pub(crate) struct Spawn<S: Sys> {
    pub(crate) reaper: Reaper,
    pub(crate) target: Target<S>,
    /// What the checks found out, if the first step follows at once, on the same thread.
    pub(crate) findings: Findings<S>,
    pub(crate) completer: Completer,
}

/// One reap under way.
struct Entry<S: Sys> {
    machine: Machine,
    target: Target<S>,
    completer: Completer,
    id: EntryId,
    spawned: Instant,
    /// It is in the queue of deferred entries.
    deferred: bool,
    descriptors: Descriptors,
    tag: Option<u64>,
}

/// Whether an entry has the descriptors that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Descriptors {
    Enough,
    /// It has not, and is in the queue of those that wait for one.
    Waiting,
    /// It has left the queue to try.
    Trying,
}

pub(crate) struct Entries<S: Sys> {
    pub(crate) resolver: Resolver<S>,
    pub(crate) metrics: Metrics,
    slab: Slab<Entry<S>>,
    wheel: Wheel,
    /// The generation of the last entry.
    generation: Generation,
    /// Entries that yielded. They are resumed in the next turn, after all other work.
    deferred: VecDeque<EntryId>,
    /// Entries that could not get a descriptor or a watch, in order. When one returns descriptors, or gets what it waited
    /// for, the next is deferred to try. Their timers run on.
    short: VecDeque<EntryId>,
    /// The reaps with tags that have ended, and that the caller has not taken.
    completed: VecDeque<Completed>,
    /// The tick at which the first of them tries, for the caller may have returned descriptors. Set as long as any waits.
    probe: Option<u64>,
    /// The last turn met its bound on commands.
    commands_left: bool,
    turn: Turn,
    limit: Limit,
    facts: Facts<S>,
    /// The entry that is driven. If one is left here, a logger or a waker has panicked, and it is driven again.
    driven: Option<EntryId>,
    /// A write to `cgroup.kill` that reaches so many members is left to a helper thread.
    pub(crate) helper_from: Option<usize>,
}

impl<S: Sys> Entries<S> {
    pub(crate) fn new(resolver: Resolver<S>) -> Entries<S> {
        let facts = Facts::new(&resolver.sys);
        Entries {
            resolver,
            metrics: Metrics::default(),
            slab: Slab::new(),
            wheel: Wheel::new(),
            generation: Generation::default(),
            deferred: VecDeque::new(),
            short: VecDeque::new(),
            completed: VecDeque::new(),
            probe: None,
            commands_left: false,
            turn: Turn::default(),
            limit: Limit::default(),
            facts,
            driven: None,
            helper_from: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The tick at which a timer is due.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.wheel.next().into_iter().chain(self.probe).min()
    }

    /// Whether the next call has work to do without any notification, timer or command.
    pub(crate) fn has_deferred(&self) -> bool {
        self.is_in_turn() || !self.deferred.is_empty() || self.commands_left || self.driven.is_some()
    }

    /// Whether there is something to take.
    pub(crate) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// The next of the reaps with tags that have ended.
    pub(crate) fn take_completed(&mut self) -> Option<Completed> {
        self.completed.pop_front()
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = Pending<'_>> {
        // The standard library's instants and this clock are the same, but cannot be converted.
        let (now, clock) = (std::time::Instant::now(), self.resolver.sys.now());
        self.slab.iter().map(move |(_, entry)| Pending {
            path: entry.target.path(),
            tag: entry.tag,
            phase: entry.machine.phase(),
            since: now.checked_sub(clock.saturating_sub(entry.spawned.since_start())).unwrap_or(now),
            attempts: entry.machine.attempts(),
            last_error: entry.target.last_error(),
        })
    }

    /// Asks this of the entries whose tag fits, by commands that are handed to `tell`. Returns how many there are.
    pub(crate) fn ask(
        &self,
        fits: impl Fn(Option<u64>) -> bool,
        what: Asked,
        mut tell: impl FnMut(Command<S>),
    ) -> usize {
        let mut count = 0;
        for (_, entry) in self.slab.iter().filter(|(_, entry)| fits(entry.tag)) {
            count += 1;
            if let Some(command) = entry.completer.ask(what).and_then(|id| what.command(id)) {
                tell(command);
            }
        }
        count
    }

    /// Begins a call that may work for so long, and do one piece of work in any case; `None`: without limit.
    pub(crate) fn limit(&mut self, budget: Option<Duration>) {
        self.limit = Limit::after(&self.resolver.sys, budget);
    }

    /// Whether the time of the call under way is used up.
    pub(crate) fn is_out_of_time(&self) -> bool {
        self.limit.is_over(&self.resolver.sys)
    }

    /// Whether a turn is not over yet. If so, the next call continues it.
    pub(crate) fn is_in_turn(&self) -> bool {
        self.turn.is_under_way()
    }

    /// Takes in a target, and starts on it.
    pub(crate) fn spawn(&mut self, spawn: Spawn<S>, host: &impl Host<S>) {
        let Spawn { reaper, target, findings, completer } = spawn;
        let Some(id) = self.generation.next(self.slab.vacant_key()) else {
            // Can happen only where ids have 32 bits.
            return completer.complete(Err(ReapError::Reactor(Arc::new(io::ErrorKind::OutOfMemory.into()))));
        };
        let now = Instant::after_start(self.resolver.sys.now());
        let machine = Machine::new(&reaper, now, target.found(), target.removal);
        let tag = reaper.tag;
        // It may have the last descriptor of the caller's.
        drop(reaper);
        let input = match completer.bind(id) {
            Asked::Nothing => Input::Spawned,
            Asked::KillNow => Input::KillNow,
            Asked::Cancel => Input::Cancelled,
        };
        self.slab.insert(Entry {
            machine,
            target,
            completer,
            id,
            spawned: now,
            deferred: false,
            descriptors: Descriptors::Enough,
            tag,
        });
        self.metrics.spawned += 1;
        self.drive(id.key(), input, findings, host);
    }

    /// Begins a turn for these notifications. [`Entries::advance`] does its work.
    pub(crate) fn begin_turn(&mut self, notified: impl IntoIterator<Item = EntryId>) {
        self.commands_left = false;
        self.resume_driven();
        self.turn.begin(notified, self.deferred.len());
    }

    /// Does the next piece of the turn's work; false once there is none, and the turn is over.
    pub(crate) fn advance(&mut self, host: &mut impl Host<S>) -> bool {
        let Entries { turn, resolver: Resolver { sys, .. }, .. } = self;
        let now = || tick(sys);
        if let Some(id) = turn.notification() {
            self.metrics.events += 1;
            self.wake(id, Input::Notified, host);
        } else if let Some(command) = turn.command(|| host.next_command()) {
            self.commands_left = turn.is_full_of_commands();
            match command {
                Command::Spawn(spawn) => self.spawn(*spawn, host),
                Command::Cancel(id) => self.wake(id, Input::Cancelled, host),
                Command::KillNow(id) => self.wake(id, Input::KillNow, host),
                Command::Answer(id, answer) => self.answer(id, answer, host),
                Command::Stop => host.stop(),
            }
        } else if let Some((key, lag)) = turn.timer(&mut self.wheel, now) {
            self.metrics.timers += 1;
            self.drive(key, Input::TimerFired { lag }, Findings::default(), host);
        } else if self.probe.is_some_and(|at| at <= tick(sys)) {
            self.metrics.timers += 1;
            self.probe = None;
            // It may have been raised.
            self.resolver.renew_limit();
            self.resume_short();
        } else if let Some(id) = turn.deferred(&mut self.deferred) {
            if let Some(entry) = self.get_mut(id) {
                entry.deferred = false;
                self.drive(id.key(), Input::Resumed, Findings::default(), host);
            }
        } else {
            self.turn.end();
        }
        self.is_in_turn()
    }

    /// The entry that the id was given to, if it is still there.
    fn get_mut(&mut self, id: EntryId) -> Option<&mut Entry<S>> {
        self.slab.get_mut(id.key()).filter(|entry| entry.id == id)
    }

    /// Defers the entry that was driven when a logger panicked.
    fn resume_driven(&mut self) {
        let Some(id) = self.driven.take() else { return };
        let Some(entry) = self.get_mut(id) else { return };
        if !std::mem::replace(&mut entry.deferred, true) {
            self.deferred.push_back(id);
        }
    }

    fn wake(&mut self, id: EntryId, input: Input, host: &impl Host<S>) {
        if self.get_mut(id).is_some() {
            self.drive(id.key(), input, Findings::default(), host);
        }
    }

    /// Takes in what a helper thread has done.
    fn answer(&mut self, id: EntryId, answer: Answer, host: &impl Host<S>) {
        let released = match answer {
            Answer::Released(released) => released,
            Answer::CgroupKill(result) => {
                if let Some(entry) = self.get_mut(id) {
                    entry.target.note_cgroup_kill(result);
                    self.wake(id, Input::Notified, host);
                    // Notifications that came in the meantime have prompted no check.
                    self.wake(id, Input::Notified, host);
                } else if let Some(Ok(())) = result {
                    self.metrics.cgroup_kills += 1;
                }
                return;
            }
        };
        self.metrics.released += released.processes;
        self.metrics.released_bytes = self.metrics.released_bytes.saturating_add(released.bytes);
        let Some(entry) = self.get_mut(id) else { return };
        log::debug!("{}: memory released: {released:?}", entry.target.path().display());
        entry.target.note_released(released);
        if entry.target.has_more_to_release() {
            self.wake(id, Input::Notified, host);
        }
    }

    /// Feeds one entry's machine, and does what it says, until it waits or is done.
    fn drive(&mut self, key: usize, input: Input, findings: Findings<S>, host: &impl Host<S>) {
        // What a call before this one has left there.
        self.resume_driven();
        let Some(entry) = self.slab.get(key) else { return };
        self.driven = Some(entry.id);
        self.drive_until_it_waits(key, input, findings, host);
        self.driven = None;
    }

    fn drive_until_it_waits(
        &mut self,
        key: usize,
        mut input: Input,
        findings: Findings<S>,
        host: &impl Host<S>,
    ) {
        let Some(entry) = self.slab.get_mut(key) else { return };
        let Entry { machine, target, id, deferred, descriptors, .. } = entry;
        // There may be a descriptor again.
        target.sparing &= input != Input::Resumed || machine.is_failing();
        let watch = |fd: &S::Fd, notice: Notice| host.watch(fd, *id, notice);
        let mut context =
            Context::new(&self.resolver, &mut self.metrics, &mut self.facts, Some(&watch), self.limit);
        context.helper_from = self.helper_from;
        let mut step = target.step(&mut context, findings);
        let mut attempted = false;
        let end = loop {
            let now = Instant::after_start(step.context.sys.now());
            let escalated = machine.freezes_first();
            let action = machine.step(now, input);
            if machine.freezes_first() && !escalated {
                step.context.metrics.escalations += 1;
                log::info!("{}: freezing it before each attempt from now on", step.path().display());
            }
            log::trace!("{}: {input:?} -> {action:?}", step.path().display());
            input = match action {
                Action::Check(detail) => Input::Checked(step.check(detail)),
                Action::Kill(by) => {
                    let mut attempt = step.kill(by);
                    if let Some(job) = step.take_job() {
                        if host.help(*id, job).is_err() {
                            // Without a thread it is done here.
                            step.target.note_cgroup_kill(None);
                            attempt = step.kill(by);
                        }
                    }
                    attempted |= attempt.reach != Reach::UnderWay;
                    Input::Killed(attempt)
                }
                Action::Signal(signal, members) => Input::Signalled(step.signal(signal, members)),
                Action::Freeze => Input::Froze(step.freeze()),
                Action::Thaw(scope) => {
                    let thawed = step.thaw(scope);
                    Input::Thawed { thawed, ours_left: step.target.is_frozen_by_us() }
                }
                Action::ThawExternal => Input::ThawedExternal(step.thaw_external()),
                Action::Remove => Input::Removed(step.remove()),
                Action::Yield => {
                    self.wheel.cancel(key);
                    if !std::mem::replace(deferred, true) {
                        self.deferred.push_back(*id);
                    }
                    return;
                }
                Action::Wait(until) => {
                    self.wheel.schedule(key, until.millis_rounded_up());
                    let wanted = machine.is_stubborn() && (attempted || step.target.has_more_to_release());
                    if let Some(job) = if wanted && self.short.is_empty() { step.release() } else { None } {
                        if host.help(*id, job).is_err() {
                            step.target.release_refused();
                        }
                    }
                    let now = if step.context.is_short { Descriptors::Waiting } else { Descriptors::Enough };
                    let fails = step.context.is_short && machine.is_failing();
                    match (std::mem::replace(descriptors, now), now) {
                        (Descriptors::Enough | Descriptors::Trying, Descriptors::Waiting) => {
                            self.short.push_back(*id);
                            self.set_probe();
                        }
                        // There may be more.
                        (Descriptors::Waiting | Descriptors::Trying, Descriptors::Enough) => {
                            self.resume_short()
                        }
                        _ => {}
                    }
                    if fails {
                        self.unwatch(key);
                    }
                    return;
                }
                Action::Finish(end) => break end,
            };
        };
        self.complete(key, end);
    }

    /// Defers the next of the entries that wait for a descriptor.
    fn resume_short(&mut self) {
        while let Some(id) = self.short.pop_front() {
            let Some(entry) = self.get_mut(id) else { continue };
            if entry.descriptors != Descriptors::Waiting {
                continue;
            }
            entry.descriptors = Descriptors::Trying;
            if !std::mem::replace(&mut entry.deferred, true) {
                self.deferred.push_back(id);
            }
            break;
        }
        self.set_probe();
    }

    /// Takes the watches of some entries that wait for long, for another one to make progress. They get them back in their
    /// turn, and are checked by timer until then.
    fn unwatch(&mut self, but: usize) {
        let others = self.slab.iter_mut().filter(|(key, entry)| *key != but && entry.machine.is_patient());
        let unwatched = others.filter_map(|(_, entry)| entry.target.unwatch().then_some(entry));
        for entry in unwatched.take(UNWATCHED) {
            if std::mem::replace(&mut entry.descriptors, Descriptors::Waiting) != Descriptors::Waiting {
                self.short.push_back(entry.id);
            }
        }
        self.set_probe();
    }

    /// Sees to it that an entry tries again, if any waits.
    fn set_probe(&mut self) {
        if !self.short.is_empty() {
            let next = tick(&self.resolver.sys).saturating_add(PROBE);
            self.probe.get_or_insert(next);
        }
    }

    fn complete(&mut self, key: usize, end: End) {
        let Some(Entry { machine, target, spawned, .. }) = self.slab.get(key) else { return };
        let elapsed = self.resolver.sys.now().saturating_sub(spawned.since_start());
        let effort = effort(machine, target, elapsed);
        // A logger is foreign code: should it panic, the entry is still there.
        log::info!("{}: {end:?} after {elapsed:?}, attempts: {}", target.path().display(), effort.attempts);
        self.wheel.cancel(key);
        let Entry { mut target, completer, tag, .. } = self.slab.remove(key);
        self.metrics.completed += 1;
        let result = match end {
            End::Done(outcome) => {
                let Effort { method, signalled, attempts, released, elapsed } = effort;
                Ok(Reaped { outcome, method, signalled, attempts, released, elapsed })
            }
            end => {
                let mut context =
                    Context::new(&self.resolver, &mut self.metrics, &mut self.facts, None, self.limit);
                Err(target.step(&mut context, Findings::default()).error(end, effort))
            }
        };
        let path = tag.map(|_| target.path().to_path_buf());
        // Descriptors first: a caller that hears of the completion may count on their being closed.
        drop(target);
        self.resume_short();
        match tag.zip(path) {
            None => completer.complete(result),
            Some((tag, path)) if completer.is_detached() => {
                self.completed.push_back(Completed { tag, path, result });
            }
            Some((tag, path)) => {
                self.completed.push_back(Completed { tag, path, result: result.clone() });
                completer.complete(result);
            }
        }
    }
}

/// What was done so far.
fn effort<S: Sys>(machine: &Machine, target: &Target<S>, elapsed: Duration) -> Effort {
    // At a deadline the target may be found empty before the thread's answer has come.
    let elsewhere = target.is_killed_elsewhere();
    Effort {
        method: machine.used().or(elsewhere.then_some(UsedMethod::CgroupKill)),
        signalled: machine.signalled(),
        attempts: machine.attempts().max(elsewhere.into()),
        released: target.released(),
        elapsed,
    }
}

/// The clock's tick.
fn tick<S: Sys>(sys: &S) -> u64 {
    u64::try_from(sys.now().as_millis()).unwrap_or(u64::MAX)
}

impl<S: Sys> Drop for Entries<S> {
    /// Completes what is left as `Disconnected`, and leaves nothing frozen.
    fn drop(&mut self) {
        let mut context =
            Context::new(&self.resolver, &mut self.metrics, &mut self.facts, None, Limit::default());
        // All are thawed before any handle is told: wakers are foreign code, and may panic.
        for (_, entry) in self.slab.iter_mut().filter(|(_, entry)| entry.target.is_frozen_by_us()) {
            // The entry is being dropped, so a failed thaw is retried here, [`THAWS`] times at once.
            let mut thaws =
                (0..THAWS).map(|_| entry.target.step(&mut context, Findings::default()).thaw(ThawScope::All));
            let thaw = thaws.find(|thaw| matches!(thaw, Thawed::All | Thawed::HeldFromOutside));
            log::debug!("{}: dropped in mid-freeze: {thaw:?}", entry.target.path().display());
        }
        for entry in self.slab.drain() {
            let elapsed = context.sys.now().saturating_sub(entry.spawned.since_start());
            let effort = effort(&entry.machine, &entry.target, elapsed);
            let path = entry.target.path().to_path_buf();
            drop(entry.target);
            entry.completer.complete(Err(ReapError::Disconnected { path, effort }));
        }
    }
}
