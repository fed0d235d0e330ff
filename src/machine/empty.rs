//! What is done with a target that is empty.

use super::LAST_WAIT;
use super::Machine;
use super::action::{Action, End, Removal, Removed, ThawScope};
use super::state::{Pending, Phase, Sigkill};
use crate::outcome::{Act, Outcome};
use crate::time::{Instant, Span};

/// How long a target of [`Removal::Later`] stays, for systemd to see that a scope is empty. systemd 252 misses it
/// where the cgroup is gone by then.
const SETTLE: Span = Span::from_millis(100);

impl Machine {
    pub(super) fn on_empty(&mut self, now: Instant, replaced: bool) -> Action {
        self.sigkill = Sigkill::NoMembers;
        let due = match self.removal {
            Removal::Never if replaced => return self.end(End::Replaced),
            Removal::Never => return self.end(End::Done(Outcome::Emptied)),
            Removal::AtOnce => return Action::Remove,
            Removal::Later { due } => due.unwrap_or_else(|| now.saturating_add(SETTLE)),
        };
        if now < due && !self.is_expired(now) {
            self.removal = Removal::Later { due: Some(due) };
            return self.wait_empty(now);
        }
        self.removal = Removal::AtOnce;
        Action::Remove
    }

    pub(super) fn on_removed(&mut self, now: Instant, removed: Removed) -> Action {
        match removed {
            Removed::All => return self.end(End::Done(Outcome::Removed)),
            Removed::Replaced => return self.end(End::Replaced),
            // A member that joins meanwhile would be frozen as long as the removal takes.
            Removed::Unfinished if self.freezer.is_ours() => self.pace.probe_while_waiting(now),
            Removed::Unfinished => {
                if self.is_expired(now) {
                    match self.phase {
                        Phase::Waiting => return self.end(End::TimedOut),
                        Phase::Expired { until } if now >= until => return self.end(End::TimedOut),
                        Phase::Expired { .. } => {}
                        _ => self.phase = Phase::Expired { until: now.saturating_add(LAST_WAIT) },
                    }
                }
                self.pending = Pending::Removal;
                return Action::Yield;
            }
            Removed::Busy => {
                // A task in the last steps of its exit makes EBUSY for a moment; other causes last.
                self.pace.probe_while_waiting(now);
                self.pace.back_off(now);
            }
            Removed::Denied | Removed::Failed => {
                if self.retries.failed(Act::Remove, now, removed == Removed::Denied) {
                    return self.end(End::Denied);
                }
            }
        }
        if self.is_expired(now) { self.on_expired(now) } else { self.wait_empty(now) }
    }

    /// Waits with an empty target, which no freeze is needed for. A frozen member that was not listed cannot exit before
    /// a thaw, nor may one that joins meanwhile stay frozen.
    fn wait_empty(&mut self, now: Instant) -> Action {
        if self.freezer.is_ours() { Action::Thaw(ThawScope::All) } else { self.wait(now) }
    }
}
