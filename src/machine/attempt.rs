//! The course of one attempt: freeze, kill or signal, thaw.

use super::CGROUP_KILL_ATTEMPTS;
use super::Machine;
use super::action::{
    Action, Attempt, Change, Detail, End, ExitNotice, Froze, KillBy, Members, Reach, ThawScope, Thawed,
};
use super::freezer::Freezer;
use super::state::{AfterThaw, GraceSignal, Ladder, Pending, Phase, Sigkill, Unheeded};
use crate::outcome::{Act, UsedMethod};
use crate::reaper::KillMethod;
use crate::time::{Instant, Span};

/// At the slowest pace, one attempt in this many looks for external freezes.
const EXTERNAL_EVERY: u32 = 4;

/// How long the end of a reap waits for a thaw that fails. An error that lasts longer is taken as permanent.
const LAST_THAW: Span = Span::from_millis(10_000);

impl Machine {
    /// Begins an attempt to kill. No freeze is begun while an earlier one cannot be undone, nor while members that were all
    /// sent SIGKILL exit: the freeze would hold these up.
    pub(super) fn attempt(&self, change: Change) -> Action {
        let are_exiting = self.sigkill == Sigkill::Sent && change == Change::Fewer;
        match self.ladder {
            Ladder::FreezeFirst if self.freezer == Freezer::Thawed && !are_exiting => Action::Freeze,
            _ => Action::Kill(self.kill_by()),
        }
    }

    /// Returns how SIGKILL is to be sent now.
    pub(super) fn kill_by(&self) -> KillBy {
        let last = matches!(self.phase, Phase::Ending(_));
        let late = last || matches!(self.phase, Phase::Expired { .. });
        match self.method {
            _ if self.freezer.is_ours() => KillBy::Signals(self.freezer.members()),
            KillMethod::Auto if self.attempts < CGROUP_KILL_ATTEMPTS && !late => KillBy::Cheapest,
            KillMethod::Auto => KillBy::CgroupKillAndSignals { last },
            KillMethod::CgroupKill => KillBy::CgroupKill { last },
            KillMethod::Freezer | KillMethod::Pidfd => KillBy::Signals(Members::Running),
        }
    }

    pub(super) fn on_killed(&mut self, now: Instant, attempt: Attempt) -> Action {
        let by = self.kill_by();
        self.signalled = self.signalled.saturating_add(attempt.signalled);
        if attempt.method.is_some() {
            let frozen = self.freezer == Freezer::Frozen;
            self.used = if frozen { Some(UsedMethod::Freezer) } else { attempt.method };
        }
        // `cgroup.kill` alone does not reach processes whose leader has exited, nor does it reach members that join
        // later. So at a deadline SIGKILL is sent again.
        let partial = attempt.method == Some(UsedMethod::CgroupKill)
            && !matches!(by, KillBy::CgroupKillAndSignals { .. });
        let all = attempt.reach == Reach::All && !partial;
        self.sigkill = if all { Sigkill::Sent } else { Sigkill::Due };
        if attempt.reach == Reach::Unfinished {
            self.pending = Pending::Kill;
            return Action::Yield;
        }
        if attempt.reach == Reach::UnderWay && !matches!(self.phase, Phase::Ending(_)) {
            if self.unheeded == Unheeded::Notification {
                // The notification came amid the steps of this attempt. It may be that of the helper thread, or
                // of an exit.
                self.unheeded = Unheeded::Repeated;
                return Action::Kill(self.kill_by());
            }
            if self.phase == Phase::Killing {
                self.pending = Pending::Kill;
            }
            self.pace.helper_begins(now);
            // In case the notification is lost.
            self.pace.back_off(now);
            return self.wait(now);
        }
        let goes_on = matches!(self.phase, Phase::Killing | Phase::Expired { .. })
            && self.freezer.freezing_since().is_some()
            && !self.freezer.is_overdue(now, self.freeze_timeout);
        if attempt.reach == Reach::Unsafe && goes_on {
            // The freeze goes on until it is complete, or overdue.
            return self.wait(now);
        }
        self.attempts = self.attempts.saturating_add(1);
        if attempt.reach == Reach::Unsafe && self.ladder != Ladder::DirectOnly {
            // Attempts at the deadline do not begin with a freeze.
            let is_last = matches!(self.phase, Phase::Expired { .. }) && !self.retries.is_early(now);
            let was_direct = std::mem::replace(&mut self.ladder, Ladder::FreezeFirst) != Ladder::FreezeFirst;
            if (was_direct || is_last) && !self.freezer.is_ours() {
                return Action::Freeze;
            }
        }
        let refused = match attempt.reach {
            Reach::Denied => self.retries.failed(Act::Kill, now, true),
            Reach::Failed => self.retries.failed(Act::Kill, now, false),
            // Signals that are unsafe because a freeze did not complete may be safe in the next one.
            Reach::Unsafe if self.ladder == Ladder::FreezeFirst => false,
            Reach::Unsafe => self.retries.failed(Act::Kill, now, true),
            // At the end of the reap, the helper thread is not waited for.
            Reach::UnderWay => false,
            Reach::All | Reach::Covered | Reach::Unfinished => {
                self.retries.signalled();
                false
            }
        };
        if refused && !matches!(self.phase, Phase::Ending(_)) {
            let end = self.end(End::Denied);
            return match self.method {
                KillMethod::Auto => Action::Kill(KillBy::CgroupKillAndSignals { last: true }),
                _ => end,
            };
        }
        self.freezer.release();
        // After the first attempt, and after each that found new members, the members are about to change.
        let changing = self.attempts == 1 || attempt.signalled > 0;
        self.pace.set_probes(changing && attempt.notice != ExitNotice::Prompt);
        self.pace.attempted(now);
        // SIGKILL stays pending for a task that the v1 freezer holds, by whichever party it was frozen. A target that
        // has lasted long is rarely frozen later, so external freezes are looked for less often.
        let seldom =
            self.pace.is_slowest() && self.held_since.is_none() && !self.retries.is_external_thaw_failing();
        // The reap reports what refused the attempts, so nothing else is tried after them.
        let refused = self.phase == Phase::Ending(End::Denied);
        let wanted = !refused && (!seldom || self.attempts % EXTERNAL_EVERY == 0);
        if self.attempts > CGROUP_KILL_ATTEMPTS && wanted {
            return Action::ThawExternal;
        }
        self.thaw_for_sigkill()
    }

    /// Undoes the freezes that keep SIGKILL pending.
    fn thaw_for_sigkill(&self) -> Action {
        Action::Thaw(if self.freezer.is_ours() { ThawScope::All } else { ThawScope::V1 })
    }

    /// Handles the answer to the grace signal.
    pub(super) fn on_signalled(&mut self, now: Instant, attempt: Attempt) -> Action {
        self.signalled = self.signalled.saturating_add(attempt.signalled);
        let Phase::Grace { signal: GraceSignal::ToSend(signal), until } = self.phase else {
            return self.wait(now);
        };
        match attempt.reach {
            Reach::Unfinished => {
                self.pending = Pending::Signal(signal);
                return Action::Yield;
            }
            Reach::Unsafe if self.freezer != Freezer::Frozen && self.ladder != Ladder::DirectOnly => {
                return Action::Freeze;
            }
            // Some members were not signalled. The grace signal is sent again soon.
            Reach::Denied if attempt.method.is_none() => self.signal_again(now),
            Reach::Failed => self.signal_again(now),
            // `Covered` and `UnderWay` cannot occur: `cgroup.kill` sends no signal but SIGKILL.
            Reach::All | Reach::Covered | Reach::Denied | Reach::Unsafe | Reach::UnderWay => {
                self.retries.signalled();
                self.phase = Phase::Grace { signal: GraceSignal::Sent, until };
                self.pace.set_probes(attempt.notice != ExitNotice::Prompt);
                self.pace.attempted(now);
            }
        }
        self.freezer.release();
        // Frozen members can act on the signal after a thaw.
        Action::Thaw(ThawScope::All)
    }

    /// Schedules the grace signal once more. A check that a notification prompts before that does not make it
    /// due.
    fn signal_again(&mut self, now: Instant) {
        self.retries.failed(Act::Kill, now, false);
        self.pace.back_off(now);
    }

    pub(super) fn on_froze(&mut self, now: Instant, froze: Froze) -> Action {
        // A freeze that begins only now has the full `freeze_timeout`, which may be zero.
        let since = self.freezer.freezing_since().unwrap_or(now);
        let timed_out = now.saturating_since(since) >= self.freeze_timeout;
        if matches!(froze, Froze::Frozen | Froze::Freezing) {
            self.retries.succeeded(Act::Freeze);
        }
        match (froze, self.phase) {
            (Froze::Unfinished, _) => {
                self.pending = Pending::Freeze;
                Action::Yield
            }
            // No freeze is begun in these phases.
            (_, Phase::Waiting | Phase::Lingering { .. }) => {
                self.freezer = Freezer::ThawDue { failing_since: None };
                Action::Thaw(ThawScope::All)
            }
            (Froze::Frozen, phase) => {
                self.freezer = Freezer::Frozen;
                match phase {
                    Phase::Grace { signal: GraceSignal::ToSend(signal), .. } => {
                        Action::Signal(signal, Members::Frozen)
                    }
                    _ => Action::Kill(self.kill_by()),
                }
            }
            // A reap that is ending does not wait for the freeze.
            (Froze::Freezing, Phase::Grace { .. } | Phase::Killing | Phase::Expired { .. }) if !timed_out => {
                let is_stalled = self.freezer.is_stalled(now);
                self.freezer.freezing(now);
                match self.phase {
                    Phase::Killing if is_stalled => Action::Kill(self.kill_by()),
                    _ => self.wait(now),
                }
            }
            (Froze::Freezing, Phase::Killing | Phase::Expired { .. } | Phase::Ending(_)) => {
                self.freezer = Freezer::ThawDue { failing_since: None };
                Action::Kill(self.kill_by())
            }
            (Froze::Freezing | Froze::Unavailable | Froze::Denied, Phase::Grace { until, .. }) => {
                // There is no safe way to send the signal.
                if froze == Froze::Freezing {
                    self.freezer = Freezer::ThawDue { failing_since: None };
                }
                self.freezer.release();
                self.retries.signalled();
                self.phase = Phase::Grace { signal: GraceSignal::Sent, until };
                Action::Thaw(ThawScope::All)
            }
            (Froze::Failed, _) => self.on_freeze_failed(now),
            (Froze::Unavailable | Froze::Denied, _) => {
                self.freezer.release();
                let is_final = self.retries.failed(Act::Freeze, now, true);
                match self.method {
                    KillMethod::Auto => {
                        if is_final || froze == Froze::Unavailable {
                            self.ladder = Ladder::DirectOnly;
                        }
                        Action::Kill(self.kill_by())
                    }
                    _ if is_final => self.end(End::Denied),
                    // Some directories are frozen.
                    _ if self.freezer.is_ours() => Action::Thaw(ThawScope::All),
                    _ => self.wait(now),
                }
            }
        }
    }

    /// Handles a freeze that failed by an error that may pass. Nothing was frozen.
    fn on_freeze_failed(&mut self, now: Instant) -> Action {
        self.retries.failed(Act::Freeze, now, false);
        let may_last = self.retries.lasted(now).is_some_and(|lasted| lasted < self.freeze_timeout);
        match self.phase {
            Phase::Killing if may_last => self.wait(now),
            Phase::Grace { .. } => self.wait(now),
            _ => Action::Kill(self.kill_by()),
        }
    }

    pub(super) fn on_thawed_external(&mut self, thawed: Thawed) -> Action {
        self.pending = Pending::Thawing(AfterThaw::WaitAfterExternal(thawed), None);
        self.thaw_for_sigkill()
    }

    pub(super) fn on_thawed(&mut self, now: Instant, thawed: Thawed, ours_left: bool) -> Action {
        let (after, retry) = match self.take_pending() {
            Pending::Thawing(after, retry) => (after, retry),
            _ => (AfterThaw::Wait, None),
        };
        if thawed == Thawed::Unfinished {
            let is_last = matches!(self.phase, Phase::Ending(End::Done(_)));
            let after = if is_last { AfterThaw::Check } else { after };
            if !ours_left {
                // Freezes of other parties are still to be looked for.
                self.freezer = Freezer::Thawed;
            }
            self.pending = Pending::Thaw(after, retry.or(self.retries.next(now)));
            return Action::Yield;
        }
        let has_failed = self.freezer.has_thaw_failed();
        let failing_since = match ours_left {
            true => self.freezer.thaw_failed(now),
            false => {
                self.freezer = Freezer::Thawed;
                None
            }
        };
        let looked = match after {
            AfterThaw::WaitAfterExternal(external) => external,
            AfterThaw::Check | AfterThaw::Wait => Thawed::All,
        };
        let external = if ours_left { looked } else { thawed.max(looked) };
        // In the grace period SIGKILL is still to be sent, and freezes of other parties are not in its way.
        let is_grace = matches!(self.phase, Phase::Grace { .. });
        let refused = match ours_left {
            true => self.retries.failed(Act::Thaw, now, thawed == Thawed::Denied),
            false => {
                self.retries.succeeded(Act::Thaw);
                false
            }
        };
        let external_refused = match external {
            Thawed::Denied if !is_grace => self.retries.external_thaw_failed(now, true),
            Thawed::Failed => self.retries.external_thaw_failed(now, false),
            // Nothing was looked for.
            _ if after == AfterThaw::Check => false,
            _ => {
                self.retries.external_thaw_succeeded();
                false
            }
        };
        if let Phase::Ending(end) = self.phase {
            let took_long = has_failed || after == AfterThaw::Check;
            if let (None, true, End::Done(_)) = (failing_since, took_long, end) {
                // Processes may have joined meanwhile.
                self.phase = Phase::Killing;
                return Action::Check(Detail::Members);
            }
            let Some(since) = failing_since else { return Action::Finish(end) };
            if refused || now.saturating_since(since) >= LAST_THAW {
                // A target that is left frozen does not count as reaped.
                return Action::Finish(if let End::Done(_) = end { End::Denied } else { end });
            }
            return self.wait(now);
        }
        if refused {
            return self.end(End::Denied);
        }
        if retry.is_some_and(|retry| now >= retry) {
            // It has become due amid the steps of the thaw. A wait is bounded only by the retries that are not due yet.
            self.unheeded = Unheeded::Notification;
        }
        match after {
            AfterThaw::Check => return Action::Check(Detail::Members),
            // The signal took longer to send than the grace period lasts.
            AfterThaw::Wait if matches!(self.phase, Phase::Grace { until, .. } if now >= until) => {
                return Action::Check(Detail::Members);
            }
            AfterThaw::Wait | AfterThaw::WaitAfterExternal(_) => {}
        }
        let held = match external {
            _ if ours_left => return self.wait(now),
            Thawed::All => {
                self.held_since = None;
                return self.wait(now);
            }
            Thawed::Failed | Thawed::Unfinished => return self.wait(now),
            Thawed::HeldFromOutside => End::FrozenByAncestor,
            Thawed::Denied => End::Denied,
        };
        let since = *self.held_since.get_or_insert(now);
        // Directories that other parties froze may stay frozen for `freeze_timeout`.
        let is_over =
            now.saturating_since(since) >= self.freeze_timeout && (external_refused || held != End::Denied);
        if is_over && !is_grace { self.end(held) } else { self.wait(now) }
    }
}
