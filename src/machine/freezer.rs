//! [`Freezer`]: the state of our freeze.

use super::action::Members;
use crate::time::{Instant, Span};

/// The longest time between two checks of a freeze under way, in milliseconds. The first wait is 1 ms, and each next one
/// is twice as long: the kernel sends no notification of a freeze's progress.
const LONGEST_PROBE: u64 = 100;

/// After this time a freeze under way counts as stalled. A thread that waits for a frozen one in the kernel, as in
/// execve(2) of a process with threads (`de_thread`), does not freeze, but SIGKILL ends that wait.
const STALLED: Span = Span::from_millis(50);

/// A freeze of ours. Freezes of other parties are not counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freezer {
    /// Nothing is frozen by us.
    Thawed,
    /// The freeze was begun, and is not complete. `probes`: how often it was checked so far.
    Freezing { since: Instant, probes: u8 },
    /// Every member is frozen.
    Frozen,
    /// The freeze is not needed any more and must be undone. `failing_since`: when the first thaw failed.
    ThawDue { failing_since: Option<Instant> },
}

impl Freezer {
    /// Whether there is a freeze of ours to be undone.
    pub(super) fn is_ours(self) -> bool {
        self != Freezer::Thawed
    }

    /// Whether a freeze is under way, or is complete and not used yet.
    pub(super) fn is_in_use(self) -> bool {
        matches!(self, Freezer::Freezing { .. } | Freezer::Frozen)
    }

    /// Whether a thaw has failed, so that it is retried later.
    pub(super) fn has_thaw_failed(self) -> bool {
        matches!(self, Freezer::ThawDue { failing_since: Some(_) })
    }

    /// Whether the members are known to be frozen by us.
    pub(super) fn members(self) -> Members {
        if self == Freezer::Frozen { Members::Frozen } else { Members::Running }
    }

    /// When the freeze under way began.
    pub(super) fn freezing_since(self) -> Option<Instant> {
        match self {
            Freezer::Freezing { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Whether the freeze under way has lasted longer than `timeout`.
    pub(super) fn is_overdue(self, now: Instant, timeout: Span) -> bool {
        self.freezing_since().is_some_and(|since| now.saturating_since(since) >= timeout)
    }

    /// Notes whether some directory is frozen by us, also if not all could be frozen.
    pub(super) fn note_left(&mut self, ours_left: bool) {
        if ours_left && *self == Freezer::Thawed {
            *self = Freezer::ThawDue { failing_since: None };
        }
    }

    /// Notes that the freeze is not complete yet.
    pub(super) fn freezing(&mut self, now: Instant) {
        *self = match *self {
            Freezer::Freezing { since, probes } => {
                Freezer::Freezing { since, probes: probes.saturating_add(1) }
            }
            _ => Freezer::Freezing { since: now, probes: 0 },
        };
    }

    /// Whether the freeze under way has stalled.
    pub(super) fn is_stalled(self, now: Instant) -> bool {
        self.is_overdue(now, STALLED)
    }

    /// Notes that the freeze has done its work, or is given up: a thaw is due.
    pub(super) fn release(&mut self) {
        if self.is_in_use() {
            *self = Freezer::ThawDue { failing_since: None };
        }
    }

    /// Notes that a thaw failed. Returns the time of the first failure; `None` if we froze nothing.
    pub(super) fn thaw_failed(&mut self, now: Instant) -> Option<Instant> {
        let since = match *self {
            Freezer::Thawed => return None,
            Freezer::ThawDue { failing_since: Some(since) } => since,
            _ => now,
        };
        *self = Freezer::ThawDue { failing_since: Some(since) };
        Some(since)
    }

    /// When the freeze under way is to be checked: no later than `timeout` after it began. A freeze that has lasted
    /// longer is given up by the next attempt, check or answer.
    pub(super) fn next(self, now: Instant, timeout: Span) -> Option<Instant> {
        match self {
            Freezer::Freezing { since, probes } => {
                let end = since.saturating_add(timeout);
                let probe = Span::from_millis((1 << probes.min(7)).min(LONGEST_PROBE));
                (now < end).then(|| now.saturating_add(probe).min(end))
            }
            _ => None,
        }
    }
}
