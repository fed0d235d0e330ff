//! The states that a [`Machine`](super::Machine) is made of.

use super::action::{End, Thawed};
use crate::reaper::Signal;
use crate::time::{Instant, Span};

/// Attempts in a row that found members never signalled before, after which a target is frozen first.
pub(super) const STORM: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No signal is sent: the target is to become empty by itself.
    Waiting,
    /// No signal is sent until then. What follows is the grace period, or SIGKILL.
    Lingering { until: Instant, grace: Option<(Signal, Span)> },
    /// The members may end by themselves until then.
    Grace { signal: GraceSignal, until: Instant },
    /// SIGKILL is sent.
    Killing,
    /// The deadline has passed. SIGKILL was sent then, and its members may exit until `until`; or the target is empty, and
    /// its removal may end until then.
    Expired { until: Instant },
    /// The end of the reap is decided. Our freeze is still to be undone, or SIGKILL is still to be sent at the
    /// deadline.
    Ending(End),
}

impl Phase {
    /// The phase after the wait for the target to become empty by itself.
    pub(super) fn first_signal(grace: Option<(Signal, Span)>, now: Instant) -> Phase {
        match grace {
            Some((signal, period)) => {
                Phase::Grace { signal: GraceSignal::ToSend(signal), until: now.saturating_add(period) }
            }
            None => Phase::Killing,
        }
    }

    /// Whether the deadline has SIGKILL sent to members that were not sent it.
    pub(super) fn kills_at_deadline(self) -> bool {
        matches!(self, Phase::Lingering { .. } | Phase::Grace { .. } | Phase::Killing)
    }

    /// Whether the members are left alone.
    pub(super) fn sends_nothing(self) -> bool {
        matches!(self, Phase::Waiting | Phase::Lingering { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GraceSignal {
    ToSend(Signal),
    Sent,
}

/// What an attempt begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ladder {
    /// With `cgroup.kill` or signals. `storm`: attempts in a row that found new members.
    Direct { storm: u8 },
    /// With a freeze.
    FreezeFirst,
    /// With these, for the target cannot be frozen, or must not.
    DirectOnly,
}

/// What the machine does with the next answer, or with the wake-up after a yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// Nothing is pending: a wake-up begins with a check.
    Nothing,
    /// The check continues.
    Check,
    /// The attempt to kill continues.
    Kill,
    /// The freeze continues.
    Freeze,
    /// Sending the grace signal continues.
    Signal(Signal),
    /// The removal continues.
    Removal,
    /// The thaw continues.
    Thaw(AfterThaw),
    /// A thaw is under way.
    Thawing(AfterThaw),
}

/// What the machine does after a thaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterThaw {
    Wait,
    Check,
    /// The same as `Wait`. External freezes were thawed before, with this result.
    WaitAfterExternal(Thawed),
}

/// A notification that came amid an action of several steps, and prompted no check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unheeded {
    #[default]
    Nothing,
    Notification,
    /// The attempt was made again because of it. If it told of an exit, a check is still to find that out.
    Repeated,
}

/// Whether SIGKILL was sent to every member that was there at the last attempt, or at the last check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sigkill {
    /// The last check found no members. Those that the next one finds have joined.
    NoMembers,
    /// Some members were not sent SIGKILL yet, or the last attempt was not complete.
    Due,
    Sent,
}

impl Ladder {
    /// An attempt found new members.
    pub(super) fn count_storm(&mut self) {
        if let Ladder::Direct { storm } = self {
            *storm += 1;
            if *storm >= STORM {
                *self = Ladder::FreezeFirst;
            }
        }
    }

    /// An attempt found the same members as the one before.
    pub(super) fn reset_storm(&mut self) {
        if let Ladder::Direct { storm } = self {
            *storm = 0;
        }
    }
}
