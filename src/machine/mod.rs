//! The one-shot entry: what to do next about one target, given what was seen of it.
//!
//! Sans-IO: it knows no file, clock or socket. The reactor feeds it an [`Input`] and the time, carries
//! out the [`Action`] that comes back, and feeds the answer in turn, until the action is [`Action::Wait`],
//! [`Action::Yield`] or [`Action::Finish`]. Every chain of actions is short and ends in one of these.
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

mod action;

pub(crate) use self::action::{
    Action, Attempt, Change, Checked, Detail, End, ExitNotice, Failure, Froze, KillBy, Members, Population,
    Reach, Removed, ThawScope, Thawed,
};
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
    /// The turn given away with [`Action::Yield`] has come round.
    Again,
    /// The caller wants no more of it.
    Cancel,
    Checked(Checked),
    /// Answer to [`Action::Kill`] and [`Action::Signal`].
    Killed(Attempt),
    Froze(Froze),
    Thawed(Thawed),
    Removed(Removed),
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
    /// The thaw of external freezes came before the target's own, and what it came to.
    external: Option<Option<Thawed>>,
    pending_thaw: ThawScope,

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
            external: None,
            pending_thaw: ThawScope::All,
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

    /// The next thing to do. Call with a wake-up only after [`Action::Wait`] or [`Action::Yield`], and with an
    /// answer only to the action just returned; not at all after [`Action::Finish`].
    pub(crate) fn step(&mut self, now: Time, input: Input) -> Action {
        match input {
            Input::Start | Input::Event | Input::Tick { .. } | Input::Again => self.on_wake(now, input),
            Input::Cancel => self.finish(End::Cancelled),
            Input::Checked(checked) => self.on_look(now, checked),
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
                self.kill_action(frozen)
            }
            _ if self.ending.is_some() => Action::Thaw(ThawScope::All),
            // Between kills, a look that nothing prompted only asks whether it is over.
            Resume::Look => {
                let prompted = input == Input::Event || self.due(now);
                {
                    let list = prompted && !self.left_alone() || self.expired(now);
                    Action::Check(if list { Detail::Members } else { Detail::Populated })
                }
            }
            _ if self.expired(now) => Action::Check(Detail::Members),
            Resume::Kill => self.kill_action(frozen),
            Resume::Signal(signal) => Action::Signal(signal, members(frozen)),
            Resume::Remove => Action::Remove,
        }
    }

    fn on_look(&mut self, now: Time, look: Checked) -> Action {
        match look {
            Checked::Gone if self.found => self.finish(End::Done(Outcome::Removed)),
            Checked::Gone => self.finish(End::Done(Outcome::AlreadyGone)),
            Checked::Replaced => self.finish(End::Replaced),
            Checked::Empty { replaced: true } if self.keep_dir => self.finish(End::Replaced),
            Checked::Empty { .. } if self.keep_dir => self.finish(End::Done(Outcome::Emptied)),
            Checked::Empty { .. } => Action::Remove,
            Checked::Populated(population) if self.expired(now) => {
                self.owed |= population.change.has_joined();
                self.finish(End::TimedOut)
            }
            _ if self.expired(now) => self.finish(End::TimedOut),
            Checked::Unfinished => Action::Yield,
            Checked::Unknown(failure) => {
                if self.due(now) && self.refused(failure == Failure::Denied) {
                    return self.finish(End::Denied);
                }
                self.back_off(now);
                self.wait(now)
            }
            Checked::Populated(Population { change, notice }) => {
                self.on_populated(now, change.has_joined(), change.is_fewer(), notice == ExitNotice::None)
            }
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
                return Action::Signal(signal, members(self.frozen));
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
        if self.escalated { Action::Freeze } else { self.kill_action(false) }
    }

    fn kill_action(&self, frozen: bool) -> Action {
        Action::Kill(match self.method {
            _ if self.froze => KillBy::Signals(members(frozen)),
            // At a deadline there is no next.
            KillMethod::Auto if self.attempts < STUBBORN && self.ending.is_none() => KillBy::Cheapest,
            KillMethod::Auto => KillBy::CgroupKillAndSignals,
            KillMethod::CgroupKill => KillBy::CgroupKill,
            KillMethod::Freezer | KillMethod::Pidfd => KillBy::Signals(members(frozen)),
        })
    }

    fn on_kill(&mut self, now: Time, kill: Attempt) -> Action {
        self.signalled = self.signalled.saturating_add(kill.signalled);
        let both = self.kill_action(self.frozen) == Action::Kill(KillBy::CgroupKillAndSignals);
        if let Grace::Pending(signal, end) = self.grace {
            return self.on_signal(now, kill, signal, end);
        }
        if kill.method.is_some() {
            self.used = if self.frozen { Some(UsedMethod::Freezer) } else { kill.method };
        }
        if kill.reach == Reach::Unfinished {
            self.owed = true;
            self.resume = Resume::Kill;
            return Action::Yield;
        }
        // `cgroup.kill` alone spares those whose leader has exited, and leaves open who came after it: at a deadline
        // there is more to do.
        let alone = kill.method == Some(UsedMethod::CgroupKill) && !both;
        let denied = kill.reach == Reach::Denied;
        let unsafe_unfrozen = kill.reach == Reach::Unsafe;
        self.owed = kill.reach == Reach::Failed || denied || alone;
        self.attempts = self.attempts.saturating_add(1);
        if unsafe_unfrozen && !self.escalated && self.can_freeze {
            self.escalated = true;
            return Action::Freeze;
        }
        // Signals that are unsafe because a freeze did not complete may be safe in the next one.
        let refused = denied || (unsafe_unfrozen && !self.escalated);
        if self.refused(refused) && self.ending.is_none() {
            return self.finish(End::Denied);
        }
        self.freezing = None;
        self.excused = false;
        // After its first kill, and each that found somebody new, a group is about to change.
        let changing = self.attempts == 1 || kill.signalled > 0;
        self.probe = (changing && kill.notice != ExitNotice::Prompt).then_some(PROBE);
        self.kill_at = Some(now.saturating_add(self.wait));
        // v1-frozen tasks keep SIGKILL pending until they are thawed, whoever froze them. Of those that have lasted
        // for long, few are newly frozen.
        let seldom = self.wait == self.max_wait && self.held.is_none() && self.attempts % SELDOM != 0;
        self.pending_thaw = if self.froze { ThawScope::All } else { ThawScope::V1 };
        if self.attempts > STUBBORN && !seldom {
            self.external = Some(None);
            return Action::ThawExternal;
        }
        Action::Thaw(self.pending_thaw)
    }

    /// The answer to the first, polite signal.
    fn on_signal(&mut self, now: Time, kill: Attempt, signal: Signal, end: Time) -> Action {
        if kill.reach == Reach::Unfinished {
            self.resume = Resume::Signal(signal);
            return Action::Yield;
        }
        if kill.reach == Reach::Unsafe && !self.frozen && self.can_freeze {
            return Action::Freeze;
        }
        if kill.reach == Reach::Failed || (kill.reach == Reach::Denied && kill.method.is_none()) {
            // Not heard by anybody, so not sent.
            self.back_off(now);
        } else {
            self.grace = Grace::Sent(end);
            self.probe = (kill.notice != ExitNotice::Prompt).then_some(PROBE);
            self.kill_at = Some(now.saturating_add(self.wait));
        }
        self.freezing = None;
        // So that the frozen can act on it.
        Action::Thaw(ThawScope::All)
    }

    fn on_freeze(&mut self, now: Time, freeze: Froze) -> Action {
        let since = *self.freezing.get_or_insert(now);
        let timed_out = now.saturating_sub(since) >= self.freeze_timeout;
        match (freeze, self.grace) {
            (Froze::Frozen, grace) => {
                self.froze = true;
                self.frozen = true;
                match grace {
                    Grace::Pending(signal, _) => Action::Signal(signal, Members::Frozen),
                    _ => Action::Kill(KillBy::Signals(Members::Frozen)),
                }
            }
            (Froze::Freezing, Grace::Pending(_, end)) if timed_out => {
                // There is no safe way to send it.
                self.froze = true;
                self.freezing = None;
                self.grace = Grace::Sent(end);
                Action::Thaw(ThawScope::All)
            }
            (Froze::Freezing, _) if timed_out => {
                self.froze = true;
                Action::Kill(KillBy::Signals(Members::Running))
            }
            (Froze::Freezing, _) => {
                self.froze = true;
                let probe = self.probe.map_or(PROBE, |probe| probe.saturating_mul(2).min(FREEZE_PROBE));
                self.probe = Some(probe);
                let until = now.saturating_add(probe).min(since.saturating_add(self.freeze_timeout));
                Action::Wait(self.deadline.map_or(until, |deadline| until.min(deadline)))
            }
            (Froze::Unavailable, Grace::Pending(_, end)) => {
                self.freezing = None;
                self.grace = Grace::Sent(end);
                Action::Thaw(ThawScope::All)
            }
            (Froze::Unavailable, _) => {
                self.freezing = None;
                if self.method == KillMethod::Auto {
                    // The first rung is all there is.
                    self.can_freeze = false;
                    self.escalated = false;
                    return self.kill_action(false);
                }
                if self.refused(true) {
                    return self.finish(End::Denied);
                }
                self.back_off(now);
                self.wait(now)
            }
        }
    }

    fn on_thaw(&mut self, now: Time, thaw: Thawed) -> Action {
        let thaw = match self.external {
            Some(None) => {
                self.external = Some(Some(thaw));
                return Action::Thaw(self.pending_thaw);
            }
            Some(Some(external)) => thaw.max(external),
            None => thaw,
        };
        self.external = None;
        self.frozen = false;
        if matches!(thaw, Thawed::Thawed | Thawed::HeldFromOutside) {
            self.froze = false;
        }
        let failed = match thaw {
            Thawed::Failed => true,
            Thawed::Denied => self.ending.is_some() && !self.refused(true),
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
            (Thawed::Thawed, None) => self.held = None,
            (Thawed::Failed, None) => {}
            (Thawed::HeldFromOutside | Thawed::Denied, None) => {
                let since = *self.held.get_or_insert(now);
                if now.saturating_sub(since) >= self.freeze_timeout {
                    return self.finish(match thaw {
                        Thawed::Denied => End::Denied,
                        _ => End::FrozenByAncestor,
                    });
                }
            }
        }
        self.wait(now)
    }

    fn on_removal(&mut self, now: Time, removal: Removed) -> Action {
        match removal {
            Removed::Removed => return self.finish(End::Done(Outcome::Removed)),
            Removed::Replaced => return self.finish(End::Replaced),
            Removed::Unfinished => {
                self.resume = Resume::Remove;
                return Action::Yield;
            }
            Removed::Busy => {
                // A task on its last steps makes EBUSY for a moment; anything else lasts.
                if self.probe.is_none() && self.kill_at.is_none_or(|at| now < at) {
                    self.probe = Some(PROBE);
                }
                if self.froze && !self.expired(now) {
                    // Whoever is in there unseen can't die before a thaw.
                    self.back_off(now);
                    return Action::Thaw(ThawScope::All);
                }
            }
            Removed::Denied => {
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
            return self.kill_action(self.frozen);
        }
        if self.froze { Action::Thaw(ThawScope::All) } else { Action::Finish(end) }
    }
}

fn members(frozen: bool) -> Members {
    if frozen { Members::Frozen } else { Members::Running }
}

#[cfg(test)]
mod tests;
