//! How the machine handles a target that is empty.

use super::action::{Action, Detail, End, Removed, ThawScope};
use super::state::{AfterThaw, Pending, Phase, Sigkill};
use super::{LAST_WAIT, Machine};
use crate::outcome::{Act, Outcome};
use crate::time::Instant;

impl Machine {
    pub(super) fn on_empty(&mut self, now: Instant, replaced: bool) -> Action {
        self.sigkill = Sigkill::NoMembers;
        if !self.keep_dir {
            return Action::Remove;
        }
        let is_grace =
            matches!(self.phase, Phase::Grace { until, .. } if now < until) && !self.is_expired(now);
        if self.freezer.is_ours() && is_grace {
            // A process that joins before the target is thawed has the rest of the grace period.
            if self.freezer.has_thaw_failed() {
                return self.wait(now);
            }
            self.pending = Pending::Thawing(AfterThaw::Check, None);
            return Action::Thaw(ThawScope::All);
        }
        self.end(if replaced { End::Replaced } else { End::Done(Outcome::Emptied) })
    }

    pub(super) fn on_removed(&mut self, now: Instant, removed: Removed) -> Action {
        match removed {
            Removed::All => return self.end(End::Done(Outcome::Removed)),
            Removed::Replaced => return self.end(End::Replaced),
            Removed::Unfinished | Removed::UnderWay => {
                if self.is_expired(now) {
                    match self.phase {
                        Phase::Waiting => return self.end(End::TimedOut),
                        Phase::Expired { until } if now >= until => return self.end(End::TimedOut),
                        Phase::Expired { .. } => {}
                        _ => self.phase = Phase::Expired { until: now.saturating_add(LAST_WAIT) },
                    }
                }
                if removed == Removed::Unfinished && self.freezer.is_ours() {
                    // The target is thawed first: a member that joins meanwhile would be frozen until the removal ends.
                    self.pace.probe_while_waiting(now);
                    return self.wait_empty(now);
                }
                if removed == Removed::Unfinished {
                    self.pending = Pending::Removal;
                    return Action::Yield;
                }
                // In case the notification is lost. The check then also finds a member that has joined.
                self.pace.back_off(now);
                return self.wait_empty(now);
            }
            Removed::Busy => {
                // A task in the last steps of its exit causes EBUSY for a moment; other causes last. After the deadline, a
                // member that has joined is to be found in time, and sent SIGKILL.
                match self.phase {
                    Phase::Expired { .. } => self.pace.probe(),
                    _ => self.pace.probe_while_waiting(now),
                }
                self.pace.back_off(now);
            }
            Removed::Denied | Removed::Failed => {
                if self.retries.failed(Act::Remove, now, removed == Removed::Denied) {
                    return self.end(End::Denied);
                }
            }
        }
        if !self.is_expired(now) {
            return self.wait_empty(now);
        }
        if removed == Removed::Busy && self.phase.kills_at_deadline() {
            // Members may have joined since the check, and are to be sent SIGKILL.
            self.phase = Phase::Expired { until: now.saturating_add(LAST_WAIT) };
            return Action::Check(Detail::Members);
        }
        self.on_expired(now)
    }

    /// Waits with an empty target, and thaws it first if it is frozen by us. A frozen member that was not listed cannot
    /// exit before a thaw, and a member that joins meanwhile must not stay frozen.
    fn wait_empty(&mut self, now: Instant) -> Action {
        if self.freezer.is_ours() { Action::Thaw(ThawScope::All) } else { self.wait(now) }
    }
}
