//! [`Machine`]: decides what to do next about one target, from what was found out about it.
//!
//! Sans-IO: it knows no file, clock or socket. The entry feeds it an [`Input`] and the time, carries out the
//! [`Action`] that comes back, and passes the answer to the next call, until the action is [`Action::Wait`],
//! [`Action::Yield`] or [`Action::Finish`]. Every chain of actions is short and ends in one of these.
//!
//! # States
//!
//! | phase | what happens | next phase |
//! |---|---|---|
//! | (spawn) | the caller only waits ([`Reaper::when_empty`]) | `Waiting` |
//! | (spawn) | the target may linger | `Lingering` |
//! | (spawn), `Lingering` | the linger is over or there is none, and there is a grace period | `Grace` |
//! | (spawn), `Lingering` | the linger is over or there is none, and there is no grace period | `Killing` |
//! | `Grace` | the period is over | `Killing` |
//! | `Waiting`, `Lingering`, `Grace` | the caller wants SIGKILL to be sent now | `Killing` |
//! | `Waiting` | the deadline has passed | `Ending` (timed out) |
//! | `Lingering`, `Grace`, `Killing` | the deadline has passed, and some members were not sent SIGKILL | `Expired` |
//! | `Lingering`, `Grace`, `Killing` | the deadline has passed, and all members were sent SIGKILL | `Ending` (timed out) |
//! | `Lingering`, `Grace`, `Killing` | the deadline has passed during the removal, or during a check of several steps | `Expired` |
//! | `Expired` | `LAST_WAIT` is over: the time for members to exit, or for the removal or the check to end | `Ending` (timed out) |
//! | each of these | the target is empty: it is removed, if it is not to be kept | `Ending` (done) |
//! | each of these | cancelled, replaced, refused for good, or held by an external freeze for too long | `Ending` (for this reason) |
//! | `Ending` (done) | a thaw had failed, or took several steps: new members may have joined | `Killing` |
//! | `Ending` (done, or timed out) | cancelled, before such members were sent SIGKILL | `Ending` (cancelled) |
//! | `Ending` | nothing is frozen by us | (finished) |
//!
//! Before `Ending` each wake-up begins with a check ([`Machine::on_wake`]), whose answer decides what follows
//! ([`Machine::on_checked`]). In `Ending` no check is made any more. In every phase, the wake-up after a yield first
//! continues the interrupted action ([`Pending`]), and a thaw that is due comes before a check.
//!
//! An attempt to kill begins in one of these ways ([`Ladder`]):
//!
//! 1. [`Ladder::Direct`]: `cgroup.kill` where it works, else verified signals ([`KillBy`]). Members never signalled
//!    before are signalled at once, without waiting for a timer. After [`CGROUP_KILL_ATTEMPTS`] attempts the members are
//!    signalled too. `cgroup.kill` sends SIGKILL to the leader of each process. If the leader has exited, no other
//!    thread is woken (`__cgroup_kill`, `complete_signal`).
//! 2. [`Ladder::FreezeFirst`], when [`STORM`] attempts in a row found new members, when signals are unsafe otherwise, or
//!    when the caller chose it: freeze, signal, thaw. If a freeze stalls, the members are signalled nevertheless where
//!    that is safe, else when it has lasted for `freeze_timeout`; then the target is thawed. The next attempt freezes it
//!    again.
//! 3. [`Ladder::DirectOnly`], for targets that cannot be frozen.
//!
//! A new way to kill is a variant of `KillMethod` and `UsedMethod` (what the caller chooses, and what the result names),
//! of [`KillBy`] (what one attempt does, chosen in `Machine::kill_by`) and a branch of `Step::kill` (how it is done).
//!
//! # Time
//!
//! - [`Pace`] says when the next attempt is due: after `min_wait`, then four times as long each time up to `max_wait`,
//!   and from `min_wait` again as soon as the members changed; with a few checks between the first attempts. This is for
//!   members that do not exit.
//! - [`Retries`] says when an action that failed is retried, and when it counts as refused for good. This is for calls
//!   that fail.
//! - [`Freezer`] holds the state of our freeze, in every phase. A reap ends only when it is undone, or the thaw failed
//!   for `LAST_THAW` or was refused for good.
//!
//! [`Machine::wait`] is the one place that says when a machine wants to be called next.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod action;
mod attempt;
mod empty;
mod ending;
mod freezer;
mod pace;
mod retry;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use self::action::{
    Action, Attempt, Change, Checked, Detail, End, ExitNotice, Failure, Froze, Input, KillBy, Members,
    Population, Reach, Removed, ThawScope, Thawed,
};
use self::freezer::Freezer;
use self::pace::Pace;
use self::retry::Retries;
#[allow(unused_imports, reason = "for links")]
use self::state::STORM;
use self::state::{AfterThaw, GraceSignal, Ladder, Pending, Phase, Sigkill, Unheeded};
use crate::outcome::{self, Act, Outcome, UsedMethod};
use crate::reaper::{KillMethod, Reaper};
use crate::time::{Instant, Span};

/// How long members that were sent SIGKILL at the deadline have to exit before the reap ends, or a removal or a check to
/// end.
const LAST_WAIT: Span = Span::from_millis(95);

/// After this many attempts (at 0, 10 and 50 ms by default) members are signalled in addition to `cgroup.kill`, and
/// external freezes are looked for. Most targets are empty before that. When a thousand exit at once, some wait that
/// long for a CPU, and reading `cgroup.procs` would delay them further.
pub(crate) const CGROUP_KILL_ATTEMPTS: u32 = 3;

/// One target's state. It is kept small, because thousands wait at once.
#[derive(Debug)]
pub(crate) struct Machine {
    freeze_timeout: Span,
    deadline: Option<Instant>,
    method: KillMethod,
    keep_dir: bool,
    /// Whether some directory existed at the spawn.
    found: bool,

    phase: Phase,
    pending: Pending,
    unheeded: Unheeded,
    ladder: Ladder,
    freezer: Freezer,
    pace: Pace,
    sigkill: Sigkill,
    /// When an external freeze was first found to hold members.
    held_since: Option<Instant>,
    /// The actions that have failed, and when they are retried.
    retries: Retries,

    attempts: u32,
    signalled: u64,
    used: Option<UsedMethod>,
}

impl Machine {
    /// `found` says whether the spawn found any directory, `keep_dir` whether the directories are kept.
    pub(crate) fn new(reaper: &Reaper, now: Instant, found: bool, keep_dir: bool) -> Machine {
        let after = |span: std::time::Duration| now.saturating_add(span.into());
        let grace = reaper.grace.map(|(signal, period)| (signal, period.into()));
        Machine {
            freeze_timeout: reaper.freeze_timeout.into(),
            deadline: reaper.deadline.map(after),
            method: reaper.method,
            keep_dir,
            found,
            phase: match (reaper.when_empty, reaper.linger) {
                (true, _) => Phase::Waiting,
                (false, Some(linger)) => Phase::Lingering { until: after(linger), grace },
                (false, None) => Phase::first_signal(grace, now),
            },
            pending: Pending::Nothing,
            unheeded: Unheeded::Nothing,
            ladder: match reaper.method {
                KillMethod::Auto => Ladder::Direct { storm: 0 },
                KillMethod::Freezer => Ladder::FreezeFirst,
                KillMethod::CgroupKill | KillMethod::Pidfd => Ladder::DirectOnly,
            },
            freezer: Freezer::Thawed,
            pace: Pace::new(reaper.min_wait.into(), reaper.max_wait.into()),
            sigkill: Sigkill::Due,
            held_since: None,
            retries: Retries::default(),
            attempts: 0,
            signalled: 0,
            used: None,
        }
    }

    /// Processes signalled one by one so far.
    pub(crate) fn signalled(&self) -> u64 {
        self.signalled
    }

    /// Attempts to kill so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The last method used.
    pub(crate) fn used(&self) -> Option<UsedMethod> {
        self.used
    }

    /// The phase that the caller sees.
    pub(crate) fn phase(&self) -> outcome::Phase {
        match self.phase {
            Phase::Waiting => outcome::Phase::Waiting,
            Phase::Lingering { .. } => outcome::Phase::Lingering,
            Phase::Grace { .. } => outcome::Phase::Grace,
            Phase::Killing => outcome::Phase::Killing,
            Phase::Expired { .. } | Phase::Ending(_) => outcome::Phase::Ending,
        }
    }

    /// Whether a freeze of ours is to be undone.
    #[cfg(test)]
    pub(crate) fn has_frozen(&self) -> bool {
        self.freezer.is_ours()
    }

    /// Whether an action has failed and is to be retried.
    pub(crate) fn is_failing(&self) -> bool {
        self.retries.is_any()
    }

    /// Whether the machine waits for long anyway, so that it loses little without a watch.
    pub(crate) fn is_patient(&self) -> bool {
        self.phase.sends_nothing() || self.pace.is_slowest()
    }

    /// Whether the target still has members after so many attempts that most targets are empty.
    pub(crate) fn is_stubborn(&self) -> bool {
        self.attempts > CGROUP_KILL_ATTEMPTS && matches!(self.phase, Phase::Killing | Phase::Expired { .. })
    }

    /// Whether attempts begin with a freeze.
    pub(crate) fn freezes_first(&self) -> bool {
        self.ladder == Ladder::FreezeFirst
    }

    /// Returns the next action. Call with a wake-up only after [`Action::Wait`] or [`Action::Yield`], and with an answer
    /// only to the action just returned; not at all after [`Action::Finish`].
    pub(crate) fn step(&mut self, now: Instant, input: Input) -> Action {
        match input {
            Input::Spawned | Input::Resumed => self.on_wake(now, false),
            Input::DescriptorsReturned => {
                self.retries.hasten(now);
                self.on_wake(now, false)
            }
            Input::Notified => self.on_wake(now, true),
            Input::TimerFired { lag } => {
                self.pace.timer_fired(now, lag, self.has_killed_all());
                self.on_wake(now, false)
            }
            Input::Cancelled => self.end(End::Cancelled),
            Input::KillNow => {
                if let Phase::Waiting | Phase::Lingering { .. } | Phase::Grace { .. } = self.phase {
                    self.start_killing();
                    if let Pending::Thaw(..) = self.pending {
                        // SIGKILL does not wait for the rest of the thaw, nor for a failed one.
                        self.pending = Pending::Nothing;
                        return Action::Check(Detail::Members);
                    }
                }
                self.on_wake(now, false)
            }
            Input::Checked(checked) => self.on_checked(now, checked),
            Input::Killed(attempt) => self.on_killed(now, attempt),
            Input::Signalled(attempt) => self.on_signalled(now, attempt),
            Input::Froze { froze, ours_left } => {
                self.freezer.note_left(ours_left);
                self.on_froze(now, froze)
            }
            Input::ThawedExternal(thawed) => self.on_thawed_external(thawed),
            Input::Thawed { thawed, ours_left } => self.on_thawed(now, thawed, ours_left),
            Input::Removed(removed) => self.on_removed(now, removed),
        }
    }

    /// Sends SIGKILL from now on.
    fn start_killing(&mut self) {
        self.phase = Phase::Killing;
        self.pace.start();
        if let Pending::Signal(_) = self.pending {
            self.pending = Pending::Nothing;
        }
    }

    fn on_wake(&mut self, now: Instant, notified: bool) -> Action {
        if let Phase::Lingering { until, grace } = self.phase {
            if now >= until {
                self.phase = Phase::first_signal(grace, now);
                self.pace.start();
            }
        }
        let mut pending = self.take_pending();
        if notified && pending != Pending::Nothing {
            self.unheeded = Unheeded::Notification;
        }
        if pending == Pending::Check {
            // A check continues by the same action that begins one.
            (self.pending, pending) = (Pending::Check, Pending::Nothing);
        }
        if let Phase::Ending(end) = self.phase {
            return match pending {
                Pending::Thaw(after, retry) => {
                    self.pending = Pending::Thawing(after, retry);
                    Action::ContinueThaw
                }
                Pending::Kill => Action::Kill(self.kill_by()),
                _ if end == End::TimedOut && self.sigkill == Sigkill::Due => Action::Kill(self.kill_by()),
                _ => Action::Thaw(ThawScope::All),
            };
        }
        let is_last = matches!(self.phase, Phase::Expired { until } if now < until);
        let is_grace = matches!(self.phase, Phase::Grace { until, .. } if now < until);
        let is_over = matches!(self.phase, Phase::Grace { until, .. } if now >= until);
        match pending {
            Pending::Kill if !self.is_expired(now) || is_last => Action::Kill(self.kill_by()),
            Pending::Signal(signal) if is_grace && !self.is_expired(now) => {
                Action::Signal(signal, self.freezer.members())
            }
            Pending::Freeze if !self.is_expired(now) || is_last => Action::Freeze,
            // At the end of the grace period, SIGKILL does not wait for the rest of the thaw.
            Pending::Thaw(after, retry) if (!self.is_expired(now) || is_last) && !is_over => {
                self.pending = Pending::Thawing(after, retry);
                Action::ContinueThaw
            }
            Pending::Removal => Action::Remove,
            Pending::Nothing if matches!(self.freezer, Freezer::ThawDue { .. }) => {
                self.pending = Pending::Thawing(AfterThaw::Check, None);
                Action::Thaw(ThawScope::All)
            }
            Pending::Nothing if self.phase.sends_nothing() && !self.is_expired(now) => {
                Action::Check(Detail::Exits)
            }
            Pending::Nothing if !self.is_expired(now) => {
                // Between attempts, a check by timer reads only whether the target has members.
                let prompted = notified || self.is_due(now);
                let list = prompted && !self.is_left_to_cgroup_kill();
                Action::Check(if list { Detail::Members } else { Detail::Populated })
            }
            _ => Action::Check(Detail::Members),
        }
    }

    fn on_checked(&mut self, now: Instant, mut checked: Checked) -> Action {
        // A check of several steps does not settle a notification: what an earlier step read may have changed since.
        if self.take_pending() != Pending::Check {
            self.unheeded = Unheeded::Nothing;
        }
        if !matches!(checked, Checked::Unknown(_) | Checked::Unfinished) {
            self.retries.succeeded(Act::Check);
        }
        if let (Checked::Populated(population), Sigkill::NoMembers) = (&mut checked, self.sigkill) {
            self.sigkill = Sigkill::Due;
            population.change = Change::new(true, population.change.is_fewer());
        }
        match checked {
            Checked::Gone if self.found => self.end(End::Done(Outcome::Removed)),
            Checked::Gone => self.end(End::Done(Outcome::AlreadyGone)),
            Checked::Replaced => self.end(End::Replaced),
            Checked::CallerInside => self.end(End::Refused),
            Checked::Empty { replaced } => self.on_empty(now, replaced),
            Checked::Populated(Population { change, is_partial, .. }) if self.is_expired(now) => {
                if change.has_joined() || is_partial {
                    self.sigkill = Sigkill::Due;
                }
                self.on_expired(now)
            }
            Checked::Unfinished => {
                if self.is_expired(now) {
                    match self.phase {
                        Phase::Expired { until } if now < until => {}
                        phase if phase.kills_at_deadline() && self.sigkill != Sigkill::Due => {
                            // The check may still find members that have joined.
                            self.phase = Phase::Expired { until: now.saturating_add(LAST_WAIT) };
                        }
                        _ => {
                            // The change that prompted the check is still to be found out.
                            self.unheeded = Unheeded::Notification;
                            return self.on_expired(now);
                        }
                    }
                }
                self.pending = Pending::Check;
                Action::Yield
            }
            Checked::Unknown(failure) => {
                if self.is_expired(now) {
                    self.retries.failed(Act::Check, now, false);
                    self.sigkill = Sigkill::Due;
                    return self.on_expired(now);
                }
                if self.retries.failed(Act::Check, now, failure == Failure::Denied) {
                    return self.end(End::Denied);
                }
                if self.freezer.is_overdue(now, self.freeze_timeout) {
                    // No check is needed to give the freeze up.
                    return self.on_froze(now, Froze::Freezing);
                }
                if self.freezer == Freezer::Frozen {
                    // The time of the signal that needed the freeze is over.
                    self.freezer.release();
                    return Action::Thaw(ThawScope::All);
                }
                self.wait(now)
            }
            Checked::Populated(population) => self.on_populated(now, population),
        }
    }

    fn on_populated(&mut self, now: Instant, Population { change, notice, .. }: Population) -> Action {
        // There are members, so a removal that failed before is not retried now.
        self.retries.succeeded(Act::Remove);
        if self.phase.sends_nothing() {
            // All members count as new, because there was no attempt.
            if change.is_fewer() {
                self.pace.reset_wait();
                self.pace.hasten(now);
            }
            self.pace.back_off(now);
            return self.wait(now);
        }
        if notice == ExitNotice::None && (change.is_fewer() || self.pace.is_prolonged()) {
            self.pace.probe();
        }
        if change != Change::None {
            self.pace.reset_wait();
        }
        if change.is_fewer() {
            self.retries.forgive(now);
            self.pace.hasten(now);
        }
        if let Phase::Grace { signal, until } = self.phase {
            match signal {
                _ if now >= until => self.start_killing(),
                GraceSignal::ToSend(_) if self.freezer.is_in_use() => return Action::Freeze,
                GraceSignal::ToSend(signal) if self.is_due(now) => {
                    return Action::Signal(signal, self.freezer.members());
                }
                GraceSignal::ToSend(_) => return self.wait(now),
                // The thaw that followed the signal has failed.
                GraceSignal::Sent if self.retries.is_due(now) => return Action::Thaw(ThawScope::All),
                GraceSignal::Sent => {
                    self.pace.back_off(now);
                    return self.wait(now);
                }
            }
        }
        if self.freezer.is_in_use() {
            return Action::Freeze;
        }
        if self.pace.is_due(now) {
            // An attempt that changed nothing lengthens the next wait.
            if change == Change::None && self.pace.lengthen() {
                self.ladder.reset_storm();
            }
            return self.attempt(change);
        }
        if self.is_due(now) {
            return self.attempt(change);
        }
        if change.has_joined() && self.pace.take_prompt() {
            self.ladder.count_storm();
            return self.attempt(change);
        }
        self.wait(now)
    }

    /// Whether an attempt is due: by the pace, because something failed, or because an external freeze has held members
    /// for too long.
    fn is_due(&self, now: Instant) -> bool {
        // One that may not be thawed is retried.
        let may_end = !self.retries.is_external_thaw_failing();
        let is_held = may_end && self.held_until().is_some_and(|until| now >= until);
        self.pace.is_due(now) || self.retries.is_due(now) || is_held
    }

    /// The time at which an external freeze has held members for too long.
    fn held_until(&self) -> Option<Instant> {
        Some(self.held_since?.saturating_add(self.freeze_timeout))
    }

    /// Waits for a notification, the next attempt, retry or probe, the end of the linger or the grace period, or the
    /// deadline.
    fn wait(&mut self, now: Instant) -> Action {
        let is_over = matches!(self.phase, Phase::Ending(_));
        if self.pending == Pending::Nothing
            && !is_over
            && std::mem::take(&mut self.unheeded) != Unheeded::Nothing
        {
            return Action::Check(if self.phase.sends_nothing() { Detail::Exits } else { Detail::Members });
        }
        // A time that has passed bounds no wait: the check after it changes the state.
        let ahead = |at: Option<Instant>| at.filter(|&at| now < at);
        let bounds = match self.phase {
            Phase::Waiting => [None, self.deadline],
            Phase::Lingering { until, .. } => [Some(until), self.deadline],
            Phase::Grace { until, .. } => [ahead(Some(until)), self.deadline],
            Phase::Killing => [ahead(self.held_until()), self.deadline],
            Phase::Expired { until } => [Some(until), None],
            Phase::Ending(_) => [None, None],
        };
        let bound = bounds.into_iter().flatten().min();
        let until = match self.freezer.next(now, self.freeze_timeout).or(self.retries.next(now)) {
            Some(at) => bound.map_or(at, |bound| at.min(bound)),
            None => self.pace.next(now, bound),
        };
        Action::Wait(until.max(now))
    }

    /// Whether the last attempt was by `cgroup.kill` and fewer than [`CGROUP_KILL_ATTEMPTS`] attempts were made: the
    /// members are expected to exit.
    fn is_left_to_cgroup_kill(&self) -> bool {
        self.used == Some(UsedMethod::CgroupKill) && self.attempts < CGROUP_KILL_ATTEMPTS
    }

    /// Whether every member was sent SIGKILL in some way and can act on it, in so few attempts that it may still exit.
    fn has_killed_all(&self) -> bool {
        let killed = self.sigkill == Sigkill::Sent && !self.freezer.is_ours() && !self.is_failing();
        self.is_left_to_cgroup_kill() || killed && (1..CGROUP_KILL_ATTEMPTS).contains(&self.attempts)
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn take_pending(&mut self) -> Pending {
        std::mem::replace(&mut self.pending, Pending::Nothing)
    }
}
