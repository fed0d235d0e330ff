//! How a reap ends: what is still done at its deadline, and before each end.

use super::action::{Action, End, ThawScope};
use super::state::{Pending, Phase, Sigkill};
use super::{LAST_WAIT, Machine};
use crate::time::Instant;

impl Machine {
    /// Handles a target that is not known to be empty after the deadline.
    pub(super) fn on_expired(&mut self, now: Instant) -> Action {
        if self.phase.kills_at_deadline() {
            if self.sigkill != Sigkill::Due && !self.freezer.is_in_use() {
                return self.end(End::TimedOut);
            }
            self.phase = Phase::Expired { until: now.saturating_add(LAST_WAIT) };
            return Action::Kill(self.kill_by());
        }
        match self.phase {
            // SIGKILL is not safe without the freeze, else the freeze would have been given up.
            Phase::Expired { until } if now < until && self.freezer.is_in_use() => Action::Freeze,
            Phase::Expired { until } if now < until => {
                let is_early = self.retries.is_early(now);
                let prompted = self.sigkill == Sigkill::Due && !is_early && self.pace.take_prompt();
                if prompted || self.is_due(now) {
                    self.pace.lengthen();
                    return Action::Kill(self.kill_by());
                }
                self.wait(now)
            }
            _ => self.end(End::TimedOut),
        }
    }

    /// Ends the reap. If it is ending already, the first reason is kept, unless a cancel is to spare members.
    pub(super) fn end(&mut self, end: End) -> Action {
        let pending = self.take_pending();
        let spares = match self.phase {
            // A check after the last thaw may find processes that have joined.
            Phase::Ending(End::Done(_)) => end == End::Cancelled,
            // `TimedOut` says that SIGKILL was sent to all members, which is not yet so. The cancel ends the attempt.
            Phase::Ending(End::TimedOut) => end == End::Cancelled && pending == Pending::Kill,
            _ => false,
        };
        let end = match self.phase {
            Phase::Ending(_) if spares => {
                self.phase = Phase::Ending(end);
                end
            }
            Phase::Ending(first) => first,
            before => {
                self.phase = Phase::Ending(end);
                // At the deadline SIGKILL is sent to members that were not sent it yet, because of a grace period, a
                // freeze, or the bound on a step.
                let signals = before != Phase::Waiting;
                if end == End::TimedOut
                    && signals
                    && (self.sigkill == Sigkill::Due || self.freezer.is_in_use())
                {
                    return Action::Kill(self.kill_by());
                }
                end
            }
        };
        if self.freezer.is_ours() { Action::Thaw(ThawScope::All) } else { Action::Finish(end) }
    }
}
