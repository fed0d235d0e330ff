//! [`Entries`]: the reaps under way, a slab of one-shot entries and the wheel of their timers.
//!
//! It decides nothing: machines do. It passes wake-ups to the machines in the order of a [`Turn`], their actions
//! to the targets, and the results to the handles. The [`Host`] around it waits for the wake-ups.

mod drive;
mod shortage;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use self::shortage::Descriptors;
use crate::cgroup::{Answer, Facts, Findings, Job, Limit, Notice, Resolver, Target};
use crate::entry_id::{EntryId, Generation};
use crate::handle::{Asked, Completer};
use crate::machine::{Input, Machine};
use crate::metrics::Metrics;
use crate::outcome::{Completed, Pending, ReapError};
use crate::reaper::Reaper;
use crate::sys::Sys;
use crate::time::Instant;
use crate::turn::Turn;
use crate::wheel::Wheel;

/// The loop around the entries: where their notifications and commands come from.
pub(crate) trait Host<S: Sys> {
    /// Registers the descriptor: its notifications are passed to [`Entries::begin_turn`] as this id.
    fn watch(&self, fd: &S::Fd, id: EntryId, notice: Notice) -> io::Result<()>;

    /// The next command from another thread or a handle, if there is one.
    fn next_command(&mut self) -> Option<Command<S>>;

    /// Called for [`Command::Stop`].
    fn stop(&mut self);

    /// Hands a job of this entry to a helper thread. The answer comes as a command.
    fn help(&self, id: EntryId, job: Job<S>) -> Result<(), NoThread>;

    /// Drops the jobs of this entry that wait for a thread.
    fn forget(&self, _: EntryId) {}
}

/// There is no thread for a job. With the reason why none could be started, if that was tried.
#[derive(Debug)]
pub(crate) struct NoThread(pub(crate) Option<io::Error>);

impl NoThread {
    /// To be called when the target knows that the job is not done: a logger may panic.
    pub(crate) fn log(self) {
        if let NoThread(Some(error)) = self {
            log::warn!("cannot start a helper thread: {error}");
        }
    }
}

/// A request of another thread or a handle, or the answer of a helper thread.
pub(crate) enum Command<S: Sys> {
    Spawn(Box<Spawn<S>>),
    Cancel(EntryId),
    KillNow(EntryId),
    /// The answer to a job of this entry. The entry may have ended.
    Answer(EntryId, Answer),
    /// Ends `Reactor::run`.
    Stop,
}

/// A target that passed the checks, about to become an entry.
pub(crate) struct Spawn<S: Sys> {
    pub(crate) reaper: Reaper,
    pub(crate) target: Target<S>,
    /// What the checks found out. Empty unless the first step follows at once, on the same thread.
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
    /// Whether it is in the queue of deferred entries.
    deferred: bool,
    descriptors: Descriptors,
    /// Whether a step before the last yield lacked a descriptor.
    lacked: bool,
    tag: Option<u64>,
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
    /// Entries that could not get a descriptor or a watch, in order. When an entry returns descriptors, or gets the one
    /// that it waited for, the next in this queue is deferred, to try again. Their timers run on.
    short: VecDeque<EntryId>,
    /// The entry that was the first to fail for lack of descriptors. It tries before those in `short`. Until it has the
    /// descriptors that it needs, no other entry opens any for watches.
    starved: Option<EntryId>,
    /// The reaps with tags that have ended, and that the caller has not drained.
    completed: VecDeque<Completed>,
    /// The tick at which the first entry that waits for descriptors tries again: the caller may have closed some. Set as
    /// long as an entry waits.
    probe: Option<u64>,
    /// The last turn took as many commands as it may, so there may be more.
    commands_left: bool,
    turn: Turn,
    limit: Limit,
    facts: Facts<S>,
    /// The entry that is driven now. If it is still set at the next call, a logger or a waker has panicked, and
    /// the entry is driven again.
    driven: Option<EntryId>,
    /// Set if a helper thread is wanted: for removals, and for a write to `cgroup.kill` that reaches this many
    /// members or more.
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
            starved: None,
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

    /// The tick at which the next timer is due.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.wheel.next().into_iter().chain(self.probe).min()
    }

    /// Whether the next call has work to do without any notification, timer or command.
    pub(crate) fn has_deferred(&self) -> bool {
        self.is_in_turn() || !self.deferred.is_empty() || self.commands_left || self.driven.is_some()
    }

    /// Whether there are completions that the caller has not drained.
    pub(crate) fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    /// Takes the first of the reaps with tags that have ended.
    pub(crate) fn take_completed(&mut self) -> Option<Completed> {
        self.completed.pop_front()
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = Pending<'_>> {
        // `std::time::Instant` reads the same clock, but cannot be made from a time of `sys.now()`.
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

    /// Passes the request `what` to the entries whose tag `fits`, by commands that are handed to `tell`. Returns
    /// the number of these entries.
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

    /// Begins a call that may work for the time of `budget` (`None`: without limit), and does one piece of work
    /// in any case.
    pub(crate) fn limit(&mut self, budget: Option<Duration>) -> Limit {
        self.limit = Limit::after(&self.resolver.sys, budget);
        self.limit
    }

    /// Whether the time of the call under way is used up.
    pub(crate) fn is_out_of_time(&self) -> bool {
        self.limit.is_over(&self.resolver.sys)
    }

    /// Whether a turn is not over yet. If so, the next call continues it.
    pub(crate) fn is_in_turn(&self) -> bool {
        self.turn.is_under_way()
    }

    /// Makes an entry of a target, and drives it for the first time.
    pub(crate) fn spawn(&mut self, spawn: Spawn<S>, host: &impl Host<S>) {
        let Spawn { reaper, target, findings, completer } = spawn;
        let Some(id) = self.generation.next(self.slab.vacant_key()) else {
            // Can happen only where ids have 32 bits.
            let error = ReapError::Reactor(Arc::new(io::ErrorKind::OutOfMemory.into()));
            let tagged = reaper.tag.map(|tag| (tag, target.path().to_path_buf()));
            return self.tell(tagged, completer, Err(error));
        };
        let now = Instant::after_start(self.resolver.sys.now());
        let machine = Machine::new(&reaper, now, target.found(), target.keep_dir);
        let tag = reaper.tag;
        // It may hold the caller's descriptor of the target, which is closed with the last clone.
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
            lacked: false,
            tag,
        });
        self.metrics.spawned += 1;
        self.drive(id.key(), input, findings, host);
    }

    /// Begins a turn with these notifications. [`Entries::advance`] does its work.
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
            // The limit on descriptors may have been raised.
            self.resolver.renew_limit();
            self.resume_short();
        } else if let Some(id) = turn.deferred(&mut self.deferred) {
            if let Some(entry) = self.get_mut(id) {
                entry.deferred = false;
                let input = match entry.descriptors {
                    Descriptors::Next => {
                        entry.descriptors = Descriptors::Trying;
                        Input::DescriptorsReturned
                    }
                    Descriptors::Enough | Descriptors::Waiting | Descriptors::Trying => Input::Resumed,
                };
                self.drive(id.key(), input, Findings::default(), host);
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

    fn wake(&mut self, id: EntryId, input: Input, host: &impl Host<S>) {
        if self.get_mut(id).is_some() {
            self.drive(id.key(), input, Findings::default(), host);
        }
    }

    /// Passes the answer of a helper thread to its entry.
    fn answer(&mut self, id: EntryId, answer: Answer, host: &impl Host<S>) {
        let released = match answer {
            Answer::Released(released) => released,
            Answer::CgroupKill(result) => {
                if let Some(entry) = self.get_mut(id) {
                    entry.target.note_cgroup_kill(result);
                    self.wake(id, Input::Notified, host);
                } else if let Some(Ok(())) = result {
                    self.metrics.cgroup_kills += 1;
                }
                return;
            }
            Answer::Removed(result) => {
                if let Some(entry) = self.get_mut(id) {
                    entry.target.note_removal(result);
                    self.wake(id, Input::Notified, host);
                }
                return;
            }
        };
        self.metrics.released += released.processes;
        self.metrics.released_bytes = self.metrics.released_bytes.saturating_add(released.bytes);
        let Some(entry) = self.get_mut(id) else { return };
        let path = entry.target.path().to_path_buf();
        let (processes, bytes) = (released.processes, released.bytes);
        entry.target.note_released(released);
        if entry.target.has_more_to_release() {
            self.wake(id, Input::Notified, host);
        }
        // Last, because a logger is foreign code, and may panic.
        log::debug!("{}: {bytes} bytes of {processes} processes released", path.display());
    }
}

/// The clock's tick.
fn tick<S: Sys>(sys: &S) -> u64 {
    u64::try_from(sys.now().as_millis()).unwrap_or(u64::MAX)
}
