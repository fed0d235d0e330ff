//! The states that a [`Machine`](super::Machine) is made of.

use super::action::{End, Thawed};
use crate::reaper::Signal;
use crate::time::{Instant, Span};

/// After this many attempts in a row that found members never signalled before, a target is frozen first.
pub(super) const STORM: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No signal is sent: the target is to become empty by itself.
    Waiting,
    /// No signal is sent before `until`. Then the grace period follows, or SIGKILL.
    Lingering { until: Instant, grace: Option<(Signal, Span)> },
    /// The members may exit by themselves, or at the grace signal, until `until`.
    Grace { signal: GraceSignal, until: Instant },
    /// SIGKILL is sent.
    Killing,
    /// The deadline has passed. Members that were sent SIGKILL at the deadline may exit until `until`, and a removal or a
    /// check under way may end until then.
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

    /// Whether, at the deadline, SIGKILL is sent to members that were not sent it before.
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
    /// With `cgroup.kill` or signals, always: the target cannot be frozen, or must not be.
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
    /// The thaw continues. With the time of the first retry that was not due when the thaw began.
    Thaw(AfterThaw, Option<Instant>),
    /// A thaw was begun, or continues, and its answer comes next.
    Thawing(AfterThaw, Option<Instant>),
}

/// What the machine does after a thaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterThaw {
    Wait,
    Check,
    /// The same as `Wait`. External freezes were thawed before, with this result.
    WaitAfterExternal(Thawed),
}

/// A notification that came amid an action of several steps, and prompted no check; or a retry that became due amid a thaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unheeded {
    #[default]
    Nothing,
    Notification,
    /// The attempt was repeated because of the notification. A check is still to be made, because it may have
    /// told of an exit.
    Repeated,
}

/// Whether SIGKILL was sent to every member that was there at the last attempt, or at the last check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sigkill {
    /// The last check found no members. All members that the next check finds have joined.
    NoMembers,
    /// Some members were not sent SIGKILL yet, or the last attempt was not complete.
    Due,
    Sent,
}

impl Ladder {
    /// Counts an attempt that found new members.
    pub(super) fn count_storm(&mut self) {
        if let Ladder::Direct { storm } = self {
            *storm += 1;
            if *storm >= STORM {
                *self = Ladder::FreezeFirst;
            }
        }
    }

    /// Ends the count, because an attempt found the same members as the one before.
    pub(super) fn reset_storm(&mut self) {
        if let Ladder::Direct { storm } = self {
            *storm = 0;
        }
    }
}
