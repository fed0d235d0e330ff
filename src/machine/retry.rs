//! [`Retry`]: what a failed call costs: when it is tried again, and when a refusal is final.
//!
//! The backoff of a [`Pace`](super::pace::Pace) is for members that do not exit. Calls that fail have waits of their
//! own, whatever the caller chose for the pace.

use crate::outcome::Act;
use crate::time::{Instant, Span};

/// The wait before the first retry; each next wait is twice as long, up to the longest.
const FIRST_WAIT: Span = Span::from_millis(10);
const LONGEST_WAIT: Span = Span::from_millis(80);

/// What is refused for lack of rights, or of a facility, may be allowed later: a delegation is being set up. It is
/// refused for good after this many attempts in a row, and no sooner than after this time.
const REFUSALS: u8 = 5;
const REFUSED_FOR: Span = Span::from_millis(850);

/// Failures of one act in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    act: Act,
    /// The first of them.
    since: Instant,
    /// When it is tried again.
    at: Instant,
    /// The wait before `at` was doubled so many times.
    doubled: u8,
    /// Those that were refusals.
    refusals: u8,
}

impl Retry {
    /// Notes that an act failed, after the failures so far.
    pub(super) fn after(before: Option<Retry>, act: Act, now: Instant, refused: bool) -> Retry {
        let mut retry = match before {
            Some(before) if before.act == act => before,
            Some(before) => Retry { act, since: now, refusals: 0, ..before },
            None => Retry { act, since: now, at: now, doubled: 0, refusals: 0 },
        };
        // A notification may have prompted it before its time.
        if now >= retry.at {
            let wait = FIRST_WAIT.saturating_mul(1 << retry.doubled).min(LONGEST_WAIT);
            retry.at = now.saturating_add(wait);
            retry.doubled = (retry.doubled + 1).min(3);
        }
        retry.refusals = if refused { retry.refusals.saturating_add(1) } else { 0 };
        retry
    }

    /// The same, with no refusal so far.
    pub(super) fn forgive(self, now: Instant) -> Retry {
        Retry { since: now, refusals: 0, ..self }
    }

    /// The same, to be tried again now.
    pub(super) fn at_once(self, now: Instant) -> Retry {
        Retry { at: self.at.min(now), ..self }
    }

    /// How long it has failed.
    pub(super) fn lasted(self, now: Instant) -> Span {
        now.saturating_since(self.since)
    }

    /// What failed.
    pub(super) fn act(self) -> Act {
        self.act
    }

    /// When it is tried again.
    pub(super) fn at(self) -> Instant {
        self.at
    }

    /// Whether it is refused for good.
    pub(super) fn is_final(self, now: Instant) -> bool {
        self.refusals >= REFUSALS && now.saturating_since(self.since) >= REFUSED_FOR
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::after_start(Duration::from_millis(millis))
    }

    #[test]
    fn waits_are_doubled_up_to_the_longest() {
        let mut retry = Retry::after(None, Act::Check, at(0), false);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let before = retry.at();
            retry = Retry::after(Some(retry), Act::Check, before, false);
            waits.push(Duration::from(retry.at().saturating_since(before)).as_millis());
        }
        assert_eq!(waits, [20, 40, 80, 80, 80, 80]);
        assert!(!retry.is_final(at(1_000_000)), "a passing error is no refusal");
    }

    #[test]
    fn one_that_was_prompted_earlier_does_not_delay_the_next() {
        let first = Retry::after(None, Act::Kill, at(0), true);
        let second = Retry::after(Some(first), Act::Kill, at(1), true);
        assert_eq!((first.at(), second.at()), (at(10), at(10)));
    }

    #[test]
    fn a_refusal_is_final_after_five_in_a_row_and_850_milliseconds() {
        let times = |times: &[u64], act| {
            times.iter().fold(None, |before, &now| Some(Retry::after(before, act, at(now), true))).unwrap()
        };
        assert!(times(&[0, 10, 20, 30, 850], Act::Thaw).is_final(at(850)));
        assert!(!times(&[0, 10, 20, 30, 849], Act::Thaw).is_final(at(849)));
        assert!(!times(&[0, 10, 20, 850], Act::Thaw).is_final(at(850)));
        let other = Retry::after(Some(times(&[0, 1, 2, 3, 4, 5], Act::Thaw)), Act::Remove, at(900), true);
        assert!(!other.is_final(at(2000)), "refusals of another act do not count");
        let passing = Retry::after(Some(times(&[0, 1, 2, 3, 4], Act::Thaw)), Act::Thaw, at(900), false);
        assert!(!passing.is_final(at(900)), "not in a row");
    }
}
