//! The one-shot entry: what to do next about one target, given what was seen of it.
//!
//! Sans-IO: it knows no file, clock or socket. The reactor feeds it an [`Input`] and the time, carries
//! out the [`Action`] that comes back, and feeds the answer in turn, until the action is [`Action::Wait`],
//! [`Action::Again`] or [`Action::Finish`]. Every chain of actions is short and ends in one of these.
//!
//! # The kill ladder
//!
//! 1. *Direct*: `cgroup.kill` where it works, else verified signals ([`Means`]). Processes never seen
//!    before are signalled at once, without waiting for a timer. What outlives [`STUBBORN`] rounds of
//!    `cgroup.kill` is signalled as well: it sends SIGKILL to the leader of each process, which wakes nobody
//!    where the leader has exited and other threads live (`__cgroup_kill`, `complete_signal`).
//! 2. *Frozen*, when [`STORM`] rounds in a row found new processes, when signals are unsafe without it,
//!    or when the caller chose it: freeze, signal, thaw. A freeze that does not complete within
//!    `freeze_timeout` is killed as it is, thawed and tried again.
//! 3. *Backoff*, for groups that do not die of it: kill again after `min_wait`, then four times as long
//!    each time up to `max_wait`, and from `min_wait` again as soon as something changed.
//!
//! Between kills a few looks, 1, 2, 4, ... ms apart, cover for a notification that the kernel delays or
//! loses, where it may. They follow only a kill that did something, so that a group that cannot die costs its
//! safety tick and nothing else.

use crate::outcome::{Outcome, UsedMethod};
use crate::reaper::{KillMethod, Reaper, Signal};
use crate::time::Time;

/// Rounds in a row that found processes never signalled before, after which a group is frozen.
const STORM: u8 = 3;

/// Kills prompted by events before a timer must have fired in between: a group refilled without end
/// may not take the loop for itself.
const BURST: u8 = 8;

/// Refusals in a row, each at the end of a wait, after which a reap ends as denied: some 850 ms at the default
/// waits. Rights do change under a reap (a delegation being set up), but not for ever.
const REFUSALS: u8 = 5;

/// Rounds that a group outlives before more is done about it, at 0, 10 and 50 ms at the default waits: its members
/// are signalled as well as killed by `cgroup.kill`, and a freeze outside of it is suspected. A healthy group is long
/// dead by the next; only of a thousand that die at once some wait that long for a CPU, and to look into each of
/// them would but hold them up.
const STUBBORN: u32 = 3;

/// A group that outlives round after round at the longest wait is asked in one of so many who holds it frozen.
const SELDOM: u32 = 4;

/// The first of the looks that follow a kill, and of those at a freeze that is under way.
const PROBE: Time = Time::from_millis(1);

/// How long the end of a reap is put off for a thaw that fails. What lasts longer than that does not pass.
const LAST_THAW: Time = Time::from_millis(10_000);

/// The longest time between two looks at a freeze that is under way, of whose progress nothing notifies.
const FREEZE_PROBE: Time = Time::from_millis(100);

/// What happened: a wake-up, or the answer to the action before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The entry was spawned.
    Start,
    /// The kernel said that something may have changed.
    Event,
    /// The time given with [`Action::Wait`] has come. `late`: by how much the loop is behind, with the first entry
    /// whose time has come in this turn.
    Tick {
        late: Time,
    },
    /// The turn given away with [`Action::Again`] has come round.
    Again,
    /// The caller wants no more of it.
    Cancel,
    Looked(Look),
    Killed(Kill),
    Froze(Freeze),
    Thawed(Thaw),
    Removed(Removal),
}

/// Answer to [`Action::Look`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// No directory is left.
    Gone,
    /// A directory is gone and another has its name.
    Replaced,
    /// All directories that are left are empty, and the processes signalled are dead. `replaced`: one that is
    /// not left has another in its place.
    Empty { replaced: bool },
    /// Somebody lives. `fresh`: some were not there at the last kill; `shrunk`: some died since the last look;
    /// `blind`: nothing will notify of what becomes of them (v1, and none of them is watched).
    Populated { fresh: bool, shrunk: bool, blind: bool },
    /// The kernel would not say; `denied` for want of rights.
    Unknown { denied: bool },
    /// The bound on one step's work was met: call again.
    More,
}

/// Answer to [`Action::Kill`] and [`Action::Signal`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kill {
    /// Processes signalled for the first time.
    pub(crate) signalled: u64,
    /// What was used, if anything was.
    pub(crate) method: Option<UsedMethod>,
    /// Somebody could not be signalled for want of rights or of the facility insisted on.
    pub(crate) denied: bool,
    /// Somebody was not signalled because that is not provably safe without a freezer.
    pub(crate) unsafe_unfrozen: bool,
    /// A passing error came in between.
    pub(crate) failed: bool,
    /// The bound on one step's work was met: call again.
    pub(crate) more: bool,
    /// When they die, that is notified of at once.
    pub(crate) notified: bool,
}

/// Answer to [`Action::Freeze`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freeze {
    Frozen,
    Freezing,
    /// The target has no freezer, or it was refused.
    Unavailable,
}

/// Answer to [`Action::Thaw`]. Of several directories the worst counts, and the last is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thaw {
    Thawed,
    /// What we may thaw is thawed, but an ancestor holds the target frozen.
    HeldByAncestor,
    /// It is frozen, and thawing it is denied.
    Denied,
    /// A passing error: try again.
    Failed,
}

/// Answer to [`Action::Remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Removed,
    Replaced,
    /// EBUSY, or some passing error: look again later.
    Busy,
    Denied,
    /// The bound on one step's work was met: call again.
    More,
}

/// What the reactor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `list` asks for `fresh` and `shrunk`, also where to tell takes a look at every member.
    Look {
        list: bool,
    },
    /// SIGKILL by `means`; `frozen` says that the target is known to be frozen by us.
    Kill {
        means: Means,
        frozen: bool,
    },
    /// This signal to every process, once, so that it can act on it; `frozen` as above.
    Signal {
        signal: Signal,
        frozen: bool,
    },
    /// Start or continue a freeze.
    Freeze,
    /// Undo every freeze inside a v1 target; with `v2` also in v2 ones, where a freeze does not hinder
    /// SIGKILL and is left alone otherwise; with `elsewhere` see to one outside that holds it.
    Thaw {
        v2: bool,
        elsewhere: bool,
    },
    /// Remove the directories, bottom-up.
    Remove,
    /// Nothing until an event, or this time.
    Wait(Time),
    /// Nothing until others have had their turn.
    Again,
    Finish(End),
}

/// By what processes may be killed in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// `cgroup.kill` where it works, else signals.
    Cheapest,
    /// `cgroup.kill` where it works, and signals.
    Both,
    /// `cgroup.kill` only.
    CgroupKill,
    /// Signals only.
    Signals,
}

/// How the reap ended. The cgroup side knows the paths and causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Done(Outcome),
    TimedOut,
    Replaced,
    Denied,
    FrozenByAncestor,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grace {
    /// The first signal is to be sent, before this time.
    Pending(Signal, Time),
    /// It was, and SIGKILL follows at this time.
    Sent(Time),
    Over,
}

/// What a wake-up resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resume {
    Look,
    Kill,
    Signal(Signal),
    Remove,
}

/// One target's state. Small: thousands wait at once.
#[derive(Debug)]
pub(crate) struct Machine {
    // What the caller chose.
    min_wait: Time,
    max_wait: Time,
    freeze_timeout: Time,
    deadline: Option<Time>,
    method: KillMethod,
    keep_dir: bool,

    // Where the reap stands.
    /// There was something at the spawn.
    found: bool,
    resume: Resume,
    grace: Grace,
    /// Somebody may be there whom no complete round has killed.
    owed: bool,
    /// When the next kill is due whether or not anything is heard (in the grace, the next look), and the wait
    /// that led there.
    kill_at: Option<Time>,
    wait: Time,
    /// That wait was begun anew and longer, for the loop was late.
    excused: bool,
    /// Distance of the next look that is no kill.
    probe: Option<Time>,
    can_freeze: bool,
    /// The second rung is in use.
    escalated: bool,
    storm: u8,
    burst: u8,
    refusals: u8,
    /// A freeze has been under way since then.
    freezing: Option<Time>,
    /// We froze it and have not thawed it.
    froze: bool,
    /// That freeze is complete.
    frozen: bool,
    /// It could not be thawed since then.
    held: Option<Time>,
    /// The end is known; only a thaw is outstanding.
    ending: Option<End>,
    /// That thaw has failed since then.
    unthawed: Option<Time>,

    attempts: u32,
    signalled: u64,
    used: Option<UsedMethod>,
}

impl Machine {
    /// `found` says whether the spawn found any directory.
    pub(crate) fn new(reaper: &Reaper, now: Time, found: bool) -> Machine {
        Machine {
            min_wait: reaper.min_wait.into(),
            max_wait: reaper.max_wait.into(),
            freeze_timeout: reaper.freeze_timeout.into(),
            deadline: reaper.deadline.map(|deadline| now.saturating_add(deadline.into())),
            method: reaper.method,
            keep_dir: reaper.keep_dir,
            found,
            resume: Resume::Look,
            grace: match reaper.grace {
                Some((signal, period)) => Grace::Pending(signal, now.saturating_add(period.into())),
                None => Grace::Over,
            },
            owed: true,
            kill_at: None,
            wait: reaper.min_wait.into(),
            excused: false,
            probe: None,
            can_freeze: matches!(reaper.method, KillMethod::Auto | KillMethod::Freezer),
            escalated: reaper.method == KillMethod::Freezer,
            storm: 0,
            burst: 0,
            refusals: 0,
            freezing: None,
            froze: false,
            frozen: false,
            held: None,
            ending: None,
            unthawed: None,
            attempts: 0,
            signalled: 0,
            used: None,
        }
    }

    /// Processes signalled one by one so far.
    pub(crate) fn signalled(&self) -> u64 {
        self.signalled
    }

    /// Kill rounds so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The last method used.
    pub(crate) fn used(&self) -> Option<UsedMethod> {
        self.used
    }

    /// Whether a freeze of ours is to be undone. The reactor asks when it is dropped in mid-reap.
    pub(crate) fn froze(&self) -> bool {
        self.froze
    }

    /// Whether the second rung of the ladder is in use.
    pub(crate) fn escalated(&self) -> bool {
        self.escalated
    }

    /// The next thing to do. Call with a wake-up only after [`Action::Wait`] or [`Action::Again`], and with an
    /// answer only to the action just returned; not at all after [`Action::Finish`].
    pub(crate) fn step(&mut self, now: Time, input: Input) -> Action {
        match input {
            Input::Start | Input::Event | Input::Tick { .. } | Input::Again => self.on_wake(now, input),
            Input::Cancel => self.finish(End::Cancelled),
            Input::Looked(look) => self.on_look(now, look),
            Input::Killed(kill) => self.on_kill(now, kill),
            Input::Froze(freeze) => self.on_freeze(now, freeze),
            Input::Thawed(thaw) => self.on_thaw(now, thaw),
            Input::Removed(removal) => self.on_removal(now, removal),
        }
    }

    fn on_wake(&mut self, now: Time, input: Input) -> Action {
        if let Input::Tick { late } = input {
            self.burst = 0;
            if self.killed_all() && late > self.wait && !self.excused {
                // The loop was busy, and so are those that it killed: nothing is known of how they take it.
                self.excused = true;
                self.kill_at = Some(now.saturating_add(late.saturating_mul(4).min(self.max_wait)));
                self.probe = self.probe.map(|probe| probe.max(late));
            }
        }
        let frozen = self.frozen;
        match std::mem::replace(&mut self.resume, Resume::Look) {
            resume if self.ending.is_some() && (resume == Resume::Kill || self.owes_kill()) => {
                Action::Kill { means: self.means(), frozen }
            }
            _ if self.ending.is_some() => Action::Thaw { v2: true, elsewhere: false },
            // Between kills, a look that nothing prompted only asks whether it is over.
            Resume::Look => {
                let prompted = input == Input::Event || self.due(now);
                Action::Look { list: prompted && !self.left_alone() || self.expired(now) }
            }
            _ if self.expired(now) => Action::Look { list: true },
            Resume::Kill => Action::Kill { means: self.means(), frozen },
            Resume::Signal(signal) => Action::Signal { signal, frozen },
            Resume::Remove => Action::Remove,
        }
    }

    fn on_look(&mut self, now: Time, look: Look) -> Action {
        match look {
            Look::Gone if self.found => self.finish(End::Done(Outcome::Removed)),
            Look::Gone => self.finish(End::Done(Outcome::AlreadyGone)),
            Look::Replaced => self.finish(End::Replaced),
            Look::Empty { replaced: true } if self.keep_dir => self.finish(End::Replaced),
            Look::Empty { .. } if self.keep_dir => self.finish(End::Done(Outcome::Emptied)),
            Look::Empty { .. } => Action::Remove,
            Look::Populated { fresh, .. } if self.expired(now) => {
                self.owed |= fresh;
                self.finish(End::TimedOut)
            }
            _ if self.expired(now) => self.finish(End::TimedOut),
            Look::More => Action::Again,
            Look::Unknown { denied } => {
                if self.due(now) && self.refused(denied) {
                    return self.finish(End::Denied);
                }
                self.back_off(now);
                self.wait(now)
            }
            Look::Populated { fresh, shrunk, blind } => self.on_populated(now, fresh, shrunk, blind),
        }
    }

    fn on_populated(&mut self, now: Time, fresh: bool, shrunk: bool, blind: bool) -> Action {
        if blind && (shrunk || self.excused) {
            self.probe.get_or_insert(PROBE);
        }
        if fresh || shrunk {
            self.wait = self.min_wait;
        }
        if shrunk {
            self.refusals = 0;
            // Who comes to take the place of the dead is not left alone for as long as the undying are.
            self.kill_at = self.kill_at.map(|at| at.min(now.saturating_add(self.wait)));
        }
        match self.grace {
            Grace::Pending(_, end) | Grace::Sent(end) if now >= end => {
                self.grace = Grace::Over;
                self.wait = self.min_wait;
                self.kill_at = None;
            }
            Grace::Pending(..) if self.freezing.is_some() => return Action::Freeze,
            Grace::Pending(signal, _) if self.due(now) => {
                return Action::Signal { signal, frozen: self.frozen };
            }
            Grace::Sent(_) => {
                self.back_off(now);
                return self.wait(now);
            }
            Grace::Pending(..) => return self.wait(now),
            Grace::Over => {}
        }
        if self.freezing.is_some() {
            return Action::Freeze;
        }
        if self.due(now) {
            // A round that nothing came of lengthens the next wait.
            if self.kill_at.is_some() && !(fresh || shrunk) {
                self.wait = self.longer();
                self.storm = 0;
            }
            return self.kill();
        }
        if fresh && self.burst < BURST {
            self.burst += 1;
            self.storm = self.storm.saturating_add(1);
            if self.storm >= STORM && self.can_freeze {
                self.escalated = true;
            }
            return self.kill();
        }
        self.wait(now)
    }

    fn kill(&mut self) -> Action {
        if self.escalated { Action::Freeze } else { Action::Kill { means: self.means(), frozen: false } }
    }

    fn means(&self) -> Means {
        match self.method {
            _ if self.froze => Means::Signals,
            // At a deadline there is no next.
            KillMethod::Auto if self.attempts < STUBBORN && self.ending.is_none() => Means::Cheapest,
            KillMethod::Auto => Means::Both,
            KillMethod::CgroupKill => Means::CgroupKill,
            KillMethod::Freezer | KillMethod::Pidfd => Means::Signals,
        }
    }

    fn on_kill(&mut self, now: Time, kill: Kill) -> Action {
        self.signalled = self.signalled.saturating_add(kill.signalled);
        let means = self.means();
        if let Grace::Pending(signal, end) = self.grace {
            return self.on_signal(now, kill, signal, end);
        }
        if kill.method.is_some() {
            self.used = if self.frozen { Some(UsedMethod::Freezer) } else { kill.method };
        }
        if kill.more {
            self.owed = true;
            self.resume = Resume::Kill;
            return Action::Again;
        }
        // `cgroup.kill` alone spares those whose leader has exited, and leaves open who came after it: at a deadline
        // there is more to do.
        let alone = kill.method == Some(UsedMethod::CgroupKill) && means != Means::Both;
        self.owed = kill.failed || kill.denied || alone;
        self.attempts = self.attempts.saturating_add(1);
        if kill.unsafe_unfrozen && !self.escalated && self.can_freeze {
            self.escalated = true;
            return Action::Freeze;
        }
        // Signals that are unsafe because a freeze did not complete may be safe in the next one.
        let refused = kill.denied || (kill.unsafe_unfrozen && !self.escalated);
        if self.refused(refused) && self.ending.is_none() {
            return self.finish(End::Denied);
        }
        self.freezing = None;
        self.excused = false;
        // After its first kill, and each that found somebody new, a group is about to change.
        let changing = self.attempts == 1 || kill.signalled > 0;
        self.probe = (changing && !kill.notified).then_some(PROBE);
        self.kill_at = Some(now.saturating_add(self.wait));
        // v1-frozen tasks keep SIGKILL pending until they are thawed, whoever froze them. Of those that have lasted
        // for long, few are newly frozen.
        let seldom = self.wait == self.max_wait && self.held.is_none() && self.attempts % SELDOM != 0;
        Action::Thaw { v2: self.froze, elsewhere: self.attempts > STUBBORN && !seldom }
    }

    /// The answer to the first, polite signal.
    fn on_signal(&mut self, now: Time, kill: Kill, signal: Signal, end: Time) -> Action {
        if kill.more {
            self.resume = Resume::Signal(signal);
            return Action::Again;
        }
        if kill.unsafe_unfrozen && !self.frozen && self.can_freeze {
            return Action::Freeze;
        }
        if kill.failed || (kill.denied && kill.method.is_none()) {
            // Not heard by anybody, so not sent.
            self.back_off(now);
        } else {
            self.grace = Grace::Sent(end);
            self.probe = (!kill.notified).then_some(PROBE);
            self.kill_at = Some(now.saturating_add(self.wait));
        }
        self.freezing = None;
        // So that the frozen can act on it.
        Action::Thaw { v2: true, elsewhere: false }
    }

    fn on_freeze(&mut self, now: Time, freeze: Freeze) -> Action {
        let since = *self.freezing.get_or_insert(now);
        let timed_out = now.saturating_sub(since) >= self.freeze_timeout;
        match (freeze, self.grace) {
            (Freeze::Frozen, grace) => {
                self.froze = true;
                self.frozen = true;
                match grace {
                    Grace::Pending(signal, _) => Action::Signal { signal, frozen: true },
                    _ => Action::Kill { means: Means::Signals, frozen: true },
                }
            }
            (Freeze::Freezing, Grace::Pending(_, end)) if timed_out => {
                // There is no safe way to send it.
                self.froze = true;
                self.freezing = None;
                self.grace = Grace::Sent(end);
                Action::Thaw { v2: true, elsewhere: false }
            }
            (Freeze::Freezing, _) if timed_out => {
                self.froze = true;
                Action::Kill { means: Means::Signals, frozen: false }
            }
            (Freeze::Freezing, _) => {
                self.froze = true;
                let probe = self.probe.map_or(PROBE, |probe| probe.saturating_mul(2).min(FREEZE_PROBE));
                self.probe = Some(probe);
                let until = now.saturating_add(probe).min(since.saturating_add(self.freeze_timeout));
                Action::Wait(self.deadline.map_or(until, |deadline| until.min(deadline)))
            }
            (Freeze::Unavailable, Grace::Pending(_, end)) => {
                self.freezing = None;
                self.grace = Grace::Sent(end);
                Action::Thaw { v2: true, elsewhere: false }
            }
            (Freeze::Unavailable, _) => {
                self.freezing = None;
                if self.method == KillMethod::Auto {
                    // The first rung is all there is.
                    self.can_freeze = false;
                    self.escalated = false;
                    return Action::Kill { means: self.means(), frozen: false };
                }
                if self.refused(true) {
                    return self.finish(End::Denied);
                }
                self.back_off(now);
                self.wait(now)
            }
        }
    }

    fn on_thaw(&mut self, now: Time, thaw: Thaw) -> Action {
        self.frozen = false;
        if matches!(thaw, Thaw::Thawed | Thaw::HeldByAncestor) {
            self.froze = false;
        }
        let failed = match thaw {
            Thaw::Failed => true,
            Thaw::Denied => self.ending.is_some() && !self.refused(true),
            _ => false,
        };
        match (thaw, self.ending) {
            (_, Some(end)) if failed => {
                let since = *self.unthawed.get_or_insert(now);
                if now.saturating_sub(since) >= LAST_THAW {
                    return Action::Finish(end);
                }
                if matches!(end, End::Done(_)) {
                    // By the next attempt somebody may have joined.
                    self.ending = None;
                }
                return Action::Wait(now.saturating_add(self.min_wait));
            }
            (_, Some(end)) => return Action::Finish(end),
            (Thaw::Thawed, None) => self.held = None,
            (Thaw::Failed, None) => {}
            (Thaw::HeldByAncestor | Thaw::Denied, None) => {
                let since = *self.held.get_or_insert(now);
                if now.saturating_sub(since) >= self.freeze_timeout {
                    return self.finish(match thaw {
                        Thaw::Denied => End::Denied,
                        _ => End::FrozenByAncestor,
                    });
                }
            }
        }
        self.wait(now)
    }

    fn on_removal(&mut self, now: Time, removal: Removal) -> Action {
        match removal {
            Removal::Removed => return self.finish(End::Done(Outcome::Removed)),
            Removal::Replaced => return self.finish(End::Replaced),
            Removal::More => {
                self.resume = Resume::Remove;
                return Action::Again;
            }
            Removal::Busy => {
                // A task on its last steps makes EBUSY for a moment; anything else lasts.
                if self.probe.is_none() && self.kill_at.is_none_or(|at| now < at) {
                    self.probe = Some(PROBE);
                }
                if self.froze && !self.expired(now) {
                    // Whoever is in there unseen can't die before a thaw.
                    self.back_off(now);
                    return Action::Thaw { v2: true, elsewhere: false };
                }
            }
            Removal::Denied => {
                self.probe = None;
                if self.due(now) && self.refused(true) {
                    return self.finish(End::Denied);
                }
            }
        }
        if self.expired(now) {
            return self.finish(End::TimedOut);
        }
        self.back_off(now);
        self.wait(now)
    }

    /// Whether everybody was killed by `cgroup.kill`, and nothing speaks against their dying of it so far.
    fn left_alone(&self) -> bool {
        self.used == Some(UsedMethod::CgroupKill) && self.attempts < STUBBORN
    }

    /// The same of any way to kill, as far as everybody got it and can die of it.
    fn killed_all(&self) -> bool {
        let undone = self.owed || self.froze || self.refusals > 0;
        self.left_alone() || !undone && (1..STUBBORN).contains(&self.attempts)
    }

    /// Whether the wait for the next attempt is over.
    fn due(&self, now: Time) -> bool {
        self.kill_at.is_none_or(|at| now >= at)
    }

    /// Whether the deadline came before a kill was complete.
    fn owes_kill(&self) -> bool {
        self.ending == Some(End::TimedOut) && self.owed
    }

    /// Counts refusals in a row; true when they are too many.
    fn refused(&mut self, refused: bool) -> bool {
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
        self.refusals >= REFUSALS
    }

    /// Schedules the next attempt after one that led nowhere.
    fn back_off(&mut self, now: Time) {
        match self.kill_at {
            None => self.wait = self.min_wait,
            Some(at) if now >= at => self.wait = self.longer(),
            Some(_) => return,
        }
        self.kill_at = Some(now.saturating_add(self.wait));
    }

    fn longer(&self) -> Time {
        self.wait.saturating_mul(4).min(self.max_wait)
    }

    /// Waits for an event, the next look, the next kill, the end of the grace, or the deadline.
    fn wait(&mut self, now: Time) -> Action {
        // Not in the past, from where the loop would seem to be late.
        let mut until = self.kill_at.map_or(now, |at| at.max(now));
        if let Grace::Pending(_, end) | Grace::Sent(end) = self.grace {
            if now < end {
                until = until.min(end);
            }
        }
        if let Some(probe) = self.probe {
            let at = now.saturating_add(probe);
            self.probe = (at < until).then_some(probe.saturating_mul(2));
            until = until.min(at);
        }
        if let Some(deadline) = self.deadline {
            until = until.min(deadline);
        }
        Action::Wait(until)
    }

    fn expired(&self, now: Time) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn finish(&mut self, end: End) -> Action {
        let first = self.ending.is_none();
        let end = *self.ending.get_or_insert(end);
        // Whom a grace, a freeze or a bound kept from being killed until the deadline, gets it now.
        if first && (self.owes_kill() || end == End::TimedOut && self.freezing.is_some()) {
            self.grace = Grace::Over;
            return Action::Kill { means: self.means(), frozen: self.frozen };
        }
        if self.froze { Action::Thaw { v2: true, elsewhere: false } } else { Action::Finish(end) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ZERO: Time = Time::from_millis(0);
    const TICK: Input = Input::Tick { late: ZERO };
    const POPULATED: Look = Look::Populated { fresh: false, shrunk: false, blind: false };
    const FRESH: Look = Look::Populated { fresh: true, shrunk: false, blind: false };
    const EMPTY: Look = Look::Empty { replaced: false };
    const TERM: Action = Action::Signal { signal: Signal::TERM, frozen: false };
    const KILLED: Kill = Kill {
        signalled: 0,
        method: Some(UsedMethod::Pidfd),
        denied: false,
        unsafe_unfrozen: false,
        more: false,
        failed: false,
        notified: false,
    };

    fn reaper() -> Reaper {
        Reaper::at("/x")
    }

    /// A kernel of fixed answers, and a clock that jumps from wake-up to wake-up.
    struct Rig {
        machine: Machine,
        now: Duration,
        look: Look,
        kill: Kill,
        freeze: Freeze,
        thaw: Thaw,
        removal: Removal,
        /// What was done, save looks, and when.
        done: Vec<(u128, Action)>,
        looks: Vec<u128>,
    }

    impl Rig {
        fn new(reaper: &Reaper) -> Rig {
            Rig {
                machine: Machine::new(reaper, ZERO, true),
                now: Duration::ZERO,
                look: POPULATED,
                kill: KILLED,
                freeze: Freeze::Frozen,
                thaw: Thaw::Thawed,
                removal: Removal::Removed,
                done: Vec::new(),
                looks: Vec::new(),
            }
        }

        /// Feeds a wake-up and all answers; the time of the next timer, or the end.
        fn wake(&mut self, mut input: Input) -> Result<Duration, End> {
            for _ in 0..20 {
                let action = self.machine.step(self.now.into(), input);
                match action {
                    Action::Look { .. } => self.looks.push(self.now.as_millis()),
                    _ => self.done.push((self.now.as_millis(), action)),
                }
                input = match action {
                    Action::Look { .. } => Input::Looked(self.look),
                    Action::Kill { .. } | Action::Signal { .. } => Input::Killed(self.kill),
                    Action::Freeze => Input::Froze(self.freeze),
                    Action::Thaw { .. } => Input::Thawed(self.thaw),
                    Action::Remove => Input::Removed(self.removal),
                    Action::Wait(until) => return Ok(until.into()),
                    Action::Again => return Ok(self.now),
                    Action::Finish(end) => return Err(end),
                };
            }
            panic!("no end to the actions: {:?}", self.done);
        }

        /// Runs timers up to `until` of the clock.
        fn run(&mut self, until: Duration) -> Option<End> {
            let mut input = Input::Start;
            if !self.looks.is_empty() {
                input = TICK;
            }
            loop {
                match self.wake(input) {
                    Err(end) => return Some(end),
                    Ok(next) if next > until => return None,
                    Ok(next) => {
                        self.now = self.now.max(next);
                        input = TICK;
                    }
                }
            }
        }

        fn times(&self, wanted: impl Fn(&Action) -> bool) -> Vec<u128> {
            self.done.iter().filter(|(_, action)| wanted(action)).map(|(at, _)| *at).collect()
        }

        fn kills(&self) -> Vec<u128> {
            self.times(|action| matches!(action, Action::Kill { .. }))
        }
    }

    #[test]
    fn a_group_that_never_dies_sees_the_original_waits() {
        let mut rig = Rig::new(&reaper());
        assert_eq!(rig.run(60_000 * MS), None);
        assert_eq!(rig.kills(), [0, 10, 50, 210, 850, 3410, 13410, 23410, 33410, 43410, 53410]);
        // The extra looks belong to the first kill only; later every wake-up is a kill.
        assert_eq!(rig.looks[..8], [0, 1, 3, 7, 10, 50, 210, 850]);
        assert_eq!(rig.looks.len(), rig.kills().len() + 3);
    }

    /// Who is held keeps being asked about, so that the hold can time out.
    #[test]
    fn who_freezes_the_undying_is_asked_seldom() {
        let asked = |thaw| {
            let mut rig = Rig::new(&reaper().freeze_timeout(1000 * reaper().max_wait));
            rig.thaw = thaw;
            rig.run(110_000 * MS);
            rig.times(|action| matches!(action, Action::Thaw { elsewhere: true, .. }))
        };
        // From 3 410 on, when the longest wait has come, in each fourth round only.
        assert_eq!(asked(Thaw::Thawed), [210, 850, 23410, 63410, 103410]);
        let held = asked(Thaw::HeldByAncestor);
        assert_eq!(held[..6], [210, 850, 3410, 13410, 23410, 33410]);
        assert_eq!(held.len(), 13);
    }

    #[test]
    fn a_kill_follows_a_look_that_found_somebody() {
        let mut rig = Rig::new(&reaper());
        rig.run(1000 * MS);
        for kill in rig.kills() {
            assert!(rig.looks.contains(&kill));
        }
        rig.look = EMPTY;
        let before = rig.kills().len();
        rig.now = 5000 * MS;
        assert_eq!(rig.wake(TICK), Err(End::Done(Outcome::Removed)));
        assert_eq!(rig.kills().len(), before);
    }

    #[test]
    fn waits_at_their_limits_neither_wrap_nor_spin() {
        for (min, max) in [(MS, MS), (MS, Duration::MAX), (Duration::MAX, Duration::MAX)] {
            let mut rig = Rig::new(&reaper().min_wait(min).max_wait(max).freeze_timeout(Duration::MAX));
            let mut last = Duration::ZERO;
            let mut input = Input::Start;
            for _ in 0..200 {
                let next = rig.wake(input).unwrap();
                assert!(next > last || next == Time::from(Duration::MAX).into());
                (last, rig.now, input) = (next, next, TICK);
            }
        }
    }

    #[test]
    fn progress_starts_the_backoff_over() {
        let mut rig = Rig::new(&reaper());
        rig.run(849 * MS);
        rig.look = Look::Populated { fresh: false, shrunk: true, blind: false };
        rig.now = 850 * MS;
        rig.wake(TICK).unwrap();
        rig.look = POPULATED;
        rig.now = 860 * MS;
        rig.run(1100 * MS);
        assert_eq!(rig.kills(), [0, 10, 50, 210, 850, 860, 900, 1060]);
    }

    #[test]
    fn events_do_not_kill_again_what_was_killed() {
        let mut rig = Rig::new(&reaper());
        rig.wake(Input::Start).unwrap();
        for _ in 0..100 {
            rig.wake(Input::Event).unwrap();
        }
        assert_eq!(rig.kills(), [0]);
        assert_eq!(rig.looks.len(), 101);
    }

    #[test]
    fn newcomers_are_killed_at_once_and_then_frozen_but_not_without_end() {
        let mut rig = Rig::new(&reaper());
        rig.wake(Input::Start).unwrap();
        rig.look = FRESH;
        for _ in 0..100 {
            rig.wake(Input::Event).unwrap();
        }
        assert_eq!(rig.kills().len(), 1 + usize::from(BURST));
        assert!(rig.machine.escalated());
        let freezes = rig.times(|action| *action == Action::Freeze);
        assert_eq!(freezes.len(), rig.kills().len() - usize::from(STORM));
        // Each freeze is followed by its kill and its thaw.
        assert!(!rig.machine.froze());
        rig.now = 10 * MS;
        rig.wake(TICK).unwrap();
        rig.wake(Input::Event).unwrap();
        assert_eq!(rig.kills().len(), 3 + usize::from(BURST));
    }

    #[test]
    fn without_a_freezer_a_storm_is_signalled_on() {
        let mut rig = Rig::new(&reaper());
        rig.freeze = Freeze::Unavailable;
        rig.look = FRESH;
        rig.wake(Input::Start).unwrap();
        for _ in 0..6 {
            rig.wake(Input::Event).unwrap();
        }
        assert_eq!(rig.kills().len(), 7);
        assert_eq!(rig.times(|action| *action == Action::Freeze).len(), 1);
    }

    #[test]
    fn the_freezer_goes_freeze_kill_thaw_in_one_go() {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
        rig.wake(Input::Start).unwrap();
        let actions: Vec<Action> = rig.done.iter().map(|(_, action)| *action).collect();
        assert_eq!(
            actions[..3],
            [
                Action::Freeze,
                Action::Kill { means: Means::Signals, frozen: true },
                Action::Thaw { v2: true, elsewhere: false }
            ]
        );
        assert_eq!(rig.machine.used(), Some(UsedMethod::Freezer));
        assert!(!rig.machine.froze());
    }

    #[test]
    fn a_freeze_that_hangs_is_killed_before_it_is_thawed_and_tried_again() {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).freeze_timeout(100 * MS));
        rig.freeze = Freeze::Freezing;
        rig.run(99 * MS);
        assert_eq!(rig.kills(), []);
        assert!(rig.machine.froze());
        rig.run(100 * MS);
        assert_eq!(rig.kills(), [100]);
        let thaws = rig.times(|action| matches!(action, Action::Thaw { .. }));
        assert_eq!(thaws, [100]);
        assert!(!rig.machine.froze());
        // Not a sum of waits, but the clock: a late wake-up counts in full.
        rig.now = 200 * MS;
        rig.run(200 * MS);
        rig.now = 1000 * MS;
        rig.wake(TICK).unwrap();
        assert_eq!(rig.kills().last(), Some(&1000));
    }

    #[test]
    fn nothing_ends_while_it_is_frozen_by_us() {
        for end in ["cancel", "deadline", "replaced", "gone"] {
            let mut rig = Rig::new(
                &reaper().method(KillMethod::Freezer).deadline(50 * MS).freeze_timeout(Duration::MAX),
            );
            rig.freeze = Freeze::Freezing;
            rig.wake(Input::Start).unwrap();
            assert!(rig.machine.froze());
            let result = match end {
                "cancel" => rig.wake(Input::Cancel),
                "deadline" => {
                    rig.now = 50 * MS;
                    rig.wake(TICK)
                }
                "replaced" => {
                    rig.look = Look::Replaced;
                    rig.wake(Input::Event)
                }
                _ => {
                    rig.look = Look::Gone;
                    rig.wake(Input::Event)
                }
            };
            assert!(result.is_err());
            assert!(!rig.machine.froze(), "{end}");
            let last = rig.done.len() - 1;
            assert!(matches!(rig.done[last - 1].1, Action::Thaw { .. }), "{end}");
            // The deadline still delivers SIGKILL, a cancel does not.
            assert_eq!(rig.kills().len(), usize::from(end == "deadline"));
        }
    }

    #[test]
    fn a_thaw_that_fails_for_a_moment_is_tried_again_before_the_end() {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).freeze_timeout(Duration::MAX));
        rig.freeze = Freeze::Freezing;
        rig.wake(Input::Start).unwrap();
        rig.thaw = Thaw::Failed;
        let next = rig.wake(Input::Cancel).unwrap();
        assert!(next > rig.now && rig.machine.froze());
        // An event or a second cancel changes nothing of that.
        assert!(rig.wake(Input::Event).is_ok());
        assert!(rig.wake(Input::Cancel).is_ok());
        rig.thaw = Thaw::Thawed;
        rig.now = next;
        assert_eq!(rig.wake(TICK), Err(End::Cancelled));
        assert!(!rig.machine.froze());
    }

    #[test]
    fn a_thaw_that_fails_for_good_does_not_put_off_the_end_for_good() {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(50 * MS));
        rig.freeze = Freeze::Freezing;
        rig.thaw = Thaw::Failed;
        assert_eq!(rig.run(9_000 * MS), None);
        assert_eq!(rig.run(60_000 * MS), Some(End::TimedOut));
        assert_eq!(rig.now, 10_050 * MS);
    }

    #[test]
    fn the_first_end_is_the_end() {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(50 * MS));
        rig.thaw = Thaw::Failed;
        assert_eq!(rig.run(60 * MS), None);
        assert!(rig.machine.froze() && rig.wake(Input::Cancel).is_ok());
        rig.thaw = Thaw::Thawed;
        assert_eq!(rig.wake(TICK), Err(End::TimedOut));
    }

    #[test]
    fn an_ancestor_may_hold_it_for_the_freeze_timeout() {
        let mut rig = Rig::new(&reaper().freeze_timeout(1000 * MS));
        rig.thaw = Thaw::HeldByAncestor;
        assert_eq!(rig.run(999 * MS), None);
        assert_eq!(rig.run(60_000 * MS), Some(End::FrozenByAncestor));
        let mut rig = Rig::new(&reaper().freeze_timeout(1000 * MS));
        rig.thaw = Thaw::HeldByAncestor;
        rig.run(999 * MS);
        rig.thaw = Thaw::Thawed;
        assert_eq!(rig.run(60_000 * MS), None);
    }

    #[test]
    fn an_error_is_never_empty_and_a_refusal_only_lasts_so_long() {
        let mut rig = Rig::new(&reaper());
        rig.look = Look::Unknown { denied: false };
        assert_eq!(rig.run(120_000 * MS), None);
        assert_eq!(rig.times(|action| *action == Action::Remove), []);
        let mut rig = Rig::new(&reaper());
        rig.look = Look::Unknown { denied: true };
        assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
        assert_eq!(rig.looks, [0, 10, 50, 210, 850]);
        let mut rig = Rig::new(&reaper());
        rig.kill.denied = true;
        assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
        let mut rig = Rig::new(&reaper());
        rig.look = EMPTY;
        rig.removal = Removal::Denied;
        assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
    }

    #[test]
    fn a_busy_directory_is_tried_again_by_timer() {
        let mut rig = Rig::new(&reaper());
        rig.look = EMPTY;
        rig.removal = Removal::Busy;
        assert_eq!(rig.run(900 * MS), None);
        assert_eq!(rig.times(|action| *action == Action::Remove), [0, 1, 3, 7, 10, 50, 210, 850]);
        assert_eq!(rig.kills(), []);
    }

    #[test]
    fn unsafe_signals_wait_for_a_freeze_or_are_refused() {
        let mut rig = Rig::new(&reaper());
        rig.kill = Kill { unsafe_unfrozen: true, method: None, ..KILLED };
        rig.wake(Input::Start).unwrap();
        assert_eq!(rig.times(|action| *action == Action::Freeze), [0]);
        let mut rig = Rig::new(&reaper());
        rig.kill = Kill { unsafe_unfrozen: true, method: None, ..KILLED };
        rig.freeze = Freeze::Unavailable;
        assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
    }

    #[test]
    fn grace_first_and_sigkill_after_it() {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS));
        rig.run(99 * MS);
        assert_eq!(rig.times(|action| *action == TERM), [0]);
        assert_eq!(rig.kills(), []);
        // So that the frozen can act on it.
        assert_eq!(rig.times(|action| *action == Action::Thaw { v2: true, elsewhere: false }), [0]);
        rig.now = 100 * MS;
        rig.run(300 * MS);
        assert_eq!(rig.kills(), [100, 110, 150]);
    }

    #[test]
    fn a_bounded_step_goes_on_where_it_stopped() {
        let mut rig = Rig::new(&reaper());
        rig.kill.more = true;
        assert_eq!(rig.wake(Input::Start), Ok(Duration::ZERO));
        assert_eq!(rig.wake(TICK), Ok(Duration::ZERO));
        assert_eq!(rig.looks.len(), 1);
        assert_eq!(rig.machine.attempts(), 0);
        rig.kill.more = false;
        rig.wake(TICK).unwrap();
        assert_eq!(rig.machine.attempts(), 1);
    }

    #[test]
    fn the_deadline_is_kept_in_every_state() {
        for (look, freeze, removal) in [
            (POPULATED, Freeze::Frozen, Removal::Busy),
            (POPULATED, Freeze::Freezing, Removal::Busy),
            (POPULATED, Freeze::Unavailable, Removal::Busy),
            (FRESH, Freeze::Freezing, Removal::Busy),
            (Look::Unknown { denied: false }, Freeze::Frozen, Removal::Busy),
            (EMPTY, Freeze::Frozen, Removal::Busy),
        ] {
            for method in [KillMethod::Auto, KillMethod::Freezer, KillMethod::Pidfd] {
                let mut rig = Rig::new(&reaper().method(method).deadline(100 * MS));
                (rig.look, rig.freeze, rig.removal) = (look, freeze, removal);
                assert_eq!(rig.run(100 * MS), Some(End::TimedOut), "{look:?} {freeze:?} {method}");
                assert_eq!(rig.now, 100 * MS);
            }
        }
    }

    #[test]
    fn a_deadline_owes_sigkill_to_whom_the_grace_spared() {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS).deadline(50 * MS));
        assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
        assert_eq!((rig.now, rig.kills()), (50 * MS, vec![50]));
        // Not again to those that have had it, by signals.
        let mut rig = Rig::new(&reaper().deadline(50 * MS));
        assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
        assert_eq!(rig.kills(), [0, 10]);
        // A `cgroup.kill` spares some.
        let mut rig = Rig::new(&reaper().deadline(5 * MS));
        rig.kill.method = Some(UsedMethod::CgroupKill);
        assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
        assert_eq!(rig.kills(), [0, 5]);
        assert_eq!(rig.times(|action| matches!(action, Action::Kill { means: Means::Both, .. })), [5]);
        // Nor does it tell newcomers from those who were there.
        let mut rig = Rig::new(&reaper().method(KillMethod::CgroupKill).deadline(5 * MS));
        rig.kill.method = Some(UsedMethod::CgroupKill);
        assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
        assert_eq!(rig.kills(), [0, 5]);
    }

    #[test]
    fn what_cgroup_kill_killed_is_left_alone_until_it_is_stubborn() {
        let mut rig = Rig::new(&reaper());
        rig.kill.method = Some(UsedMethod::CgroupKill);
        rig.run(210 * MS);
        let kill = |at, means| (at, Action::Kill { means, frozen: false });
        let thaw = |at, elsewhere| (at, Action::Thaw { v2: false, elsewhere });
        let early = [0, 10, 50].into_iter().flat_map(|at| [kill(at, Means::Cheapest), thaw(at, false)]);
        let expected: Vec<_> = early.chain([kill(210, Means::Both), thaw(210, true)]).collect();
        rig.done.retain(|(_, action)| !matches!(action, Action::Wait(_)));
        assert_eq!(rig.done, expected);
        // Nor is it asked who they are, before that.
        let mut rig = Rig::new(&reaper());
        rig.kill.method = Some(UsedMethod::CgroupKill);
        assert_eq!(rig.machine.step(ZERO, Input::Start), Action::Look { list: true });
        rig.wake(Input::Looked(POPULATED)).unwrap();
        assert_eq!(rig.machine.step(MS.into(), Input::Event), Action::Look { list: false });
    }

    #[test]
    fn a_loop_that_is_late_is_not_taken_for_a_group_that_does_not_die() {
        let late = |late: u32| Input::Tick { late: (late * MS).into() };
        for (method, failed, kills) in [
            (UsedMethod::CgroupKill, false, vec![0, 446, 486]),
            (UsedMethod::Pidfd, false, vec![0, 446, 486]),
            // Some were not even signalled.
            (UsedMethod::Pidfd, true, vec![0, 90, 130, 290]),
        ] {
            let mut rig = Rig::new(&reaper());
            rig.kill = Kill { method: Some(method), failed, ..KILLED };
            rig.wake(Input::Start).unwrap();
            rig.now = 90 * MS;
            rig.now = rig.wake(late(89)).unwrap();
            rig.run(490 * MS);
            assert_eq!(rig.kills(), kills, "{method:?}");
        }
        // Nor is it looked at every moment.
        let mut rig = Rig::new(&reaper());
        rig.wake(Input::Start).unwrap();
        rig.now = 21 * MS;
        rig.now = rig.wake(late(20)).unwrap();
        rig.run(101 * MS);
        assert_eq!(rig.looks, [0, 21, 41, 81, 101]);
        // Nor if it is late with others only.
        let mut rig = Rig::new(&reaper());
        rig.wake(Input::Start).unwrap();
        rig.now = 5 * MS;
        rig.now = rig.wake(late(20)).unwrap();
        rig.run(100 * MS);
        assert_eq!(rig.kills(), [0, 85]);
        // Once a round, however late it is each time.
        let mut rig = Rig::new(&reaper());
        rig.kill.method = Some(UsedMethod::CgroupKill);
        rig.wake(Input::Start).unwrap();
        for (at, by) in [(100, 90), (600, 140), (1000, 360), (3000, 560)] {
            rig.now = at * MS;
            rig.wake(late(by)).unwrap();
        }
        assert_eq!(rig.kills(), [0, 600, 3000]);
        // And for no longer than `max_wait`.
        let mut rig = Rig::new(&reaper().max_wait(20 * MS));
        rig.kill.method = Some(UsedMethod::CgroupKill);
        rig.wake(Input::Start).unwrap();
        rig.now = 100 * MS;
        rig.now = rig.wake(late(90)).unwrap();
        rig.run(120 * MS);
        assert_eq!(rig.kills(), [0, 120]);
        // Who comes meanwhile is killed at once.
        let mut rig = Rig::new(&reaper());
        rig.wake(Input::Start).unwrap();
        rig.now = 100 * MS;
        rig.look = FRESH;
        rig.wake(late(90)).unwrap();
        assert_eq!(rig.kills(), [0, 100]);
    }

    /// Nobody is watched any more, for one of those that might be has just died as well.
    #[test]
    fn who_dies_unwatched_is_looked_for() {
        let mut rig = Rig::new(&reaper());
        rig.kill.notified = true;
        rig.run(5 * MS);
        rig.look = Look::Populated { fresh: false, shrunk: true, blind: true };
        rig.now = 5 * MS;
        rig.now = rig.wake(Input::Event).unwrap();
        rig.look = Look::Populated { fresh: false, shrunk: false, blind: true };
        rig.run(10 * MS);
        assert_eq!(rig.looks, [0, 5, 6, 8, 10]);
    }

    /// Where death is notified of at once, no look of one's own is due between the kills.
    #[test]
    fn looks_cover_for_late_notifications_only() {
        for (notified, looks) in [(false, vec![0, 1, 3, 7, 10]), (true, vec![0, 10])] {
            let mut rig = Rig::new(&reaper());
            rig.kill.notified = notified;
            rig.run(10 * MS);
            assert_eq!(rig.looks, looks);
        }
    }

    #[test]
    fn a_first_signal_that_failed_is_sent_again_and_one_that_came_through_is_not() {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS));
        rig.kill = Kill { failed: true, method: None, ..KILLED };
        rig.run(9 * MS);
        rig.kill = KILLED;
        rig.now = 10 * MS;
        rig.run(99 * MS);
        assert_eq!(rig.times(|action| *action == TERM), [0, 10]);
        assert_eq!(rig.kills(), []);
    }

    #[test]
    fn in_the_grace_it_looks_without_being_told() {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 60_000 * MS));
        rig.run(1000 * MS);
        assert_eq!(rig.looks, [0, 1, 3, 7, 10, 50, 210, 850]);
        assert_eq!(rig.kills(), []);
    }

    #[test]
    fn a_first_signal_that_is_unsafe_is_sent_to_the_frozen() {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS));
        rig.kill = Kill { unsafe_unfrozen: true, method: None, ..KILLED };
        rig.wake(Input::Start).unwrap();
        let actions: Vec<Action> = rig.done.iter().map(|(_, action)| *action).collect();
        let frozen = Action::Signal { signal: Signal::TERM, frozen: true };
        assert_eq!(actions[..4], [TERM, Action::Freeze, frozen, Action::Thaw { v2: true, elsewhere: false }]);
        assert!(!rig.machine.froze());
    }

    #[test]
    fn a_refusal_counts_once_a_wait_and_not_while_others_die() {
        let mut rig = Rig::new(&reaper());
        rig.kill.denied = true;
        rig.wake(Input::Start).unwrap();
        for _ in 0..20 {
            assert!(rig.wake(Input::Event).is_ok());
        }
        assert_eq!(rig.run(849 * MS), None);
        assert_eq!(rig.run(850 * MS), Some(End::Denied));
        let mut rig = Rig::new(&reaper());
        rig.kill.denied = true;
        rig.look = Look::Populated { fresh: false, shrunk: true, blind: false };
        assert_eq!(rig.run(10_000 * MS), None);
    }

    #[test]
    fn who_takes_the_place_of_the_dead_does_not_wait_out_the_backoff() {
        let mut rig = Rig::new(&reaper());
        rig.run(1000 * MS);
        rig.now = 1000 * MS;
        rig.look = Look::Populated { fresh: false, shrunk: true, blind: false };
        assert_eq!(rig.wake(Input::Event), Ok(1010 * MS));
    }

    #[test]
    fn the_worst_of_several_thaws_counts() {
        assert!(Thaw::Thawed < Thaw::HeldByAncestor && Thaw::HeldByAncestor < Thaw::Denied);
        assert!(Thaw::Denied < Thaw::Failed);
    }

    #[test]
    fn a_kill_that_the_deadline_comes_upon_is_brought_to_its_end() {
        let mut rig = Rig::new(&reaper().deadline(10 * MS));
        rig.kill.more = true;
        assert_eq!(rig.wake(Input::Start), Ok(Duration::ZERO));
        rig.now = 10 * MS;
        // The look that finds the deadline passed, and part of the kill.
        assert_eq!(rig.wake(Input::Again), Ok(rig.now));
        assert_eq!((rig.looks.len(), rig.kills().len()), (2, 2));
        assert_eq!(rig.wake(Input::Again), Ok(rig.now));
        // An event in between is no reason to look, nor to leave it at that.
        assert_eq!(rig.wake(Input::Event), Ok(rig.now));
        assert_eq!((rig.looks.len(), rig.kills().len()), (2, 4));
        rig.kill.more = false;
        assert_eq!(rig.wake(Input::Again), Err(End::TimedOut));
        assert_eq!(rig.kills().len(), 5);
    }

    #[test]
    fn what_was_done_adds_up() {
        let mut rig = Rig::new(&reaper());
        rig.kill.signalled = 3;
        rig.wake(Input::Start).unwrap();
        assert!(!rig.machine.escalated());
        rig.now = 10 * MS;
        rig.wake(TICK).unwrap();
        assert_eq!((rig.machine.signalled(), rig.machine.attempts()), (6, 2));
        assert_eq!(rig.machine.used(), Some(UsedMethod::Pidfd));
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Machine>() <= 320, "{}", size_of::<Machine>());
    }
}
