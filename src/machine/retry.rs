//! [`Retries`]: when a call that failed is retried, and when a refusal is final.
//!
//! The backoff of a [`Pace`](super::pace::Pace) is for members that do not exit. Calls that fail have waits of their
//! own, whatever the caller chose for the pace.

use crate::outcome::Act;
use crate::time::{Instant, Span};

/// The wait before the first retry; each next wait is twice as long, up to the longest.
const FIRST_WAIT: Span = Span::from_millis(10);
const LONGEST_WAIT: Span = Span::from_millis(80);

/// An act that is refused for lack of rights, or of a facility, may be allowed later, for instance while a
/// delegation is set up. It is refused for good after this many refusals in a row, and no sooner than after this
/// time.
const REFUSALS: u8 = 5;
const REFUSED_FOR: Span = Span::from_millis(850);

/// The acts that have failed and are to be retried. Boxed, because most reaps have none.
#[derive(Debug, Default)]
pub(super) struct Retries(Option<Box<Failing>>);

/// The last failure of a check, of the thaw of our own freeze, of that of other parties' freezes, and of another act: one that
/// succeeds does not settle the others.
#[derive(Debug, Default)]
struct Failing {
    check: Option<Retry>,
    thaw: Option<Retry>,
    external_thaw: Option<Retry>,
    act: Option<Retry>,
}

impl Failing {
    fn all(&mut self) -> impl Iterator<Item = &mut Retry> {
        let Failing { check, thaw, external_thaw, act } = self;
        [check, thaw, external_thaw, act].into_iter().flatten()
    }
}

impl Retries {
    fn slot(&mut self, act: Act) -> &mut Option<Retry> {
        let failing = self.0.get_or_insert_default();
        match act {
            Act::Check => &mut failing.check,
            Act::Thaw => &mut failing.thaw,
            _ => &mut failing.act,
        }
    }

    fn all(&self) -> impl Iterator<Item = Retry> {
        self.0.iter().flat_map(|it| [it.check, it.thaw, it.external_thaw, it.act]).flatten()
    }

    /// Notes that an act failed. Returns whether it is refused for good.
    pub(super) fn failed(&mut self, act: Act, now: Instant, refused: bool) -> bool {
        let slot = self.slot(act);
        slot.insert(Retry::after(*slot, act, now, refused)).is_final(now)
    }

    /// Notes that an act succeeded, so that it is not retried.
    pub(super) fn succeeded(&mut self, act: Act) {
        if self.0.is_some() && self.slot(act).is_some_and(|retry| retry.act == act) {
            *self.slot(act) = None;
            self.tidy();
        }
    }

    /// Notes that freezes of other parties could not be found out or undone. Returns whether this is refused for good.
    pub(super) fn external_thaw_failed(&mut self, now: Instant, refused: bool) -> bool {
        let slot = &mut self.0.get_or_insert_default().external_thaw;
        slot.insert(Retry::after(*slot, Act::Thaw, now, refused)).is_final(now)
    }

    /// Notes that it is known which freezes of other parties are left, and that these are not to be retried.
    pub(super) fn external_thaw_succeeded(&mut self) {
        if let Some(failing) = &mut self.0 {
            failing.external_thaw = None;
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        if self.all().next().is_none() {
            self.0 = None;
        }
    }

    /// Notes that the signal was sent to all members that it can be sent to.
    pub(super) fn signalled(&mut self) {
        if let Some(retry) = self.act() {
            self.succeeded(retry.act);
        }
    }

    /// Notes that members have exited: refusals so far do not count.
    pub(super) fn forgive(&mut self, now: Instant) {
        for retry in self.0.iter_mut().flat_map(|failing| failing.all()).filter(|it| it.act != Act::Check) {
            (retry.since, retry.refusals) = (now, 0);
        }
    }

    /// Makes all retries due now.
    pub(super) fn hasten(&mut self, now: Instant) {
        for retry in self.0.iter_mut().flat_map(|failing| failing.all()) {
            retry.at = retry.at.min(now);
        }
    }

    /// The act, other than a check or a thaw, that failed last.
    fn act(&self) -> Option<Retry> {
        self.0.as_ref()?.act
    }

    /// Whether any act is to be retried.
    pub(super) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a retry is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.all().any(|retry| now >= retry.at)
    }

    /// Whether an attempt or a removal has failed, and its retry is not due yet.
    pub(super) fn is_early(&self, now: Instant) -> bool {
        self.act().is_some_and(|retry| now < retry.at)
    }

    /// The time of the next retry, among those that are not due yet.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.all().map(|retry| retry.at).filter(|&at| now < at).min()
    }

    /// Whether freezes of other parties could not be found out or undone, and this is to be retried.
    pub(super) fn is_external_thaw_failing(&self) -> bool {
        self.0.as_ref().is_some_and(|failing| failing.external_thaw.is_some())
    }

    /// For how long attempts, or removals, have been failing.
    pub(super) fn lasted(&self, now: Instant) -> Option<Span> {
        self.act().map(|retry| now.saturating_since(retry.since))
    }
}

/// Failures of one act in a row.
#[derive(Debug, Clone, Copy)]
struct Retry {
    act: Act,
    /// The time of the first failure.
    since: Instant,
    /// The time of the next retry.
    at: Instant,
    /// How often the wait before `at` was doubled.
    doubled: u8,
    /// The number of refusals in a row, up to the last failure.
    refusals: u8,
    /// The time of the first of these.
    refused_since: Instant,
}

fn is_attempt(act: Act) -> bool {
    matches!(act, Act::Freeze | Act::Kill)
}

impl Retry {
    /// Notes that an act failed, after the failures so far.
    fn after(before: Option<Retry>, act: Act, now: Instant, refused: bool) -> Retry {
        let mut retry = match before {
            Some(before) if before.act == act => before,
            // A freeze is a part of an attempt to kill: where both are refused, their refusals are counted
            // together.
            Some(before) if is_attempt(before.act) && is_attempt(act) => Retry { act, ..before },
            Some(before) => Retry { act, since: now, refusals: 0, ..before },
            None => Retry { act, since: now, at: now, doubled: 0, refusals: 0, refused_since: now },
        };
        // A notification may have prompted the act before its retry was due.
        if now >= retry.at {
            let wait = FIRST_WAIT.saturating_mul(1 << retry.doubled).min(LONGEST_WAIT);
            retry.at = now.saturating_add(wait);
            retry.doubled = (retry.doubled + 1).min(3);
        }
        if retry.refusals == 0 {
            retry.refused_since = now;
        }
        retry.refusals = if refused { retry.refusals.saturating_add(1) } else { 0 };
        retry
    }

    /// Whether the act is refused for good.
    fn is_final(self, now: Instant) -> bool {
        self.refusals >= REFUSALS && now.saturating_since(self.refused_since) >= REFUSED_FOR
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
            let before = retry.at;
            retry = Retry::after(Some(retry), Act::Check, before, false);
            waits.push(Duration::from(retry.at.saturating_since(before)).as_millis());
        }
        assert_eq!(waits, [20, 40, 80, 80, 80, 80]);
        assert!(!retry.is_final(at(1_000_000)), "a passing error is no refusal");
    }

    #[test]
    fn a_check_does_not_make_up_for_another_act() {
        let mut retries = Retries::default();
        retries.failed(Act::Kill, at(0), false);
        retries.failed(Act::Check, at(5), false);
        retries.succeeded(Act::Check);
        assert_eq!(retries.next(at(6)), Some(at(10)));
        retries.hasten(at(7));
        assert!(retries.is_due(at(7)) && retries.is_any());
        retries.signalled();
        assert!(!retries.is_any());
    }

    #[test]
    fn a_thaw_that_fails_and_a_kill_that_is_refused_are_counted_apart() {
        let mut retries = Retries::default();
        let refused = [0, 10, 20, 30, 850].map(|millis| {
            let refused = retries.failed(Act::Kill, at(millis), true);
            assert!(!retries.failed(Act::Thaw, at(millis), false));
            assert_eq!(retries.external_thaw_failed(at(millis), true), refused);
            refused
        });
        assert_eq!(refused, [false, false, false, false, true]);
        retries.signalled();
        assert!(retries.is_external_thaw_failing());
        retries.external_thaw_succeeded();
        assert!(!retries.is_external_thaw_failing());
        let Some(next) = retries.next(at(850)) else { panic!("it is retried") };
        assert!(next > at(860), "its waits grow");
        retries.succeeded(Act::Thaw);
        assert!(!retries.is_any());
    }

    #[test]
    fn what_is_due_is_neither_early_nor_ahead() {
        let mut retries = Retries::default();
        assert!(!retries.failed(Act::Kill, at(0), true));
        let seen = |now| (retries.is_early(now), retries.is_due(now), retries.next(now), retries.lasted(now));
        assert_eq!(seen(at(9)), (true, false, Some(at(10)), Some(Span::from_millis(9))));
        assert_eq!(seen(at(10)), (false, true, None, Some(Span::from_millis(10))));
        assert!(!retries.failed(Act::Freeze, at(20), false));
        assert_eq!(retries.lasted(at(30)), Some(Span::from_millis(30)), "a part of the attempt");
        assert!(!retries.failed(Act::Remove, at(100), false));
        assert_eq!(retries.lasted(at(130)), Some(Span::from_millis(30)), "a removal begins anew");
    }

    #[test]
    fn a_freeze_that_succeeds_does_not_make_up_for_a_kill_that_failed_after_it() {
        let mut retries = Retries::default();
        retries.failed(Act::Freeze, at(0), false);
        retries.failed(Act::Kill, at(10), false);
        retries.succeeded(Act::Freeze);
        assert!(retries.is_any());
        retries.signalled();
        assert!(!retries.is_any());
    }

    #[test]
    fn exits_make_up_for_the_refusals_before_them() {
        let mut retries = Retries::default();
        let mut refused = |now| retries.failed(Act::Kill, at(now), true);
        assert!(![0, 10, 20, 30].map(&mut refused).contains(&true));
        retries.forgive(at(850));
        let mut refused = |now| retries.failed(Act::Kill, at(now), true);
        assert!(![860, 870, 880, 890, 900].map(&mut refused).contains(&true));
        assert!(!refused(1709) && refused(1710));
    }

    #[test]
    fn one_that_was_prompted_earlier_does_not_delay_the_next() {
        let first = Retry::after(None, Act::Kill, at(0), true);
        let second = Retry::after(Some(first), Act::Kill, at(1), true);
        assert_eq!((first.at, second.at), (at(10), at(10)));
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
        let others = [900, 910, 920, 930, 940, 1749].iter().fold(other, |before, &now| {
            assert!(!before.is_final(at(1749)));
            Retry::after(Some(before), Act::Remove, at(now), true)
        });
        assert!(others.is_final(at(1750)), "five of its own do");
        let kill = times(&[0, 10, 20, 30], Act::Kill);
        assert!(
            Retry::after(Some(kill), Act::Freeze, at(850), true).is_final(at(850)),
            "a part of the attempt"
        );
        assert!(!Retry::after(Some(kill), Act::Remove, at(850), true).is_final(at(850)));
        let passing = Retry::after(Some(times(&[0, 1, 2, 3, 4], Act::Thaw)), Act::Thaw, at(900), false);
        assert!(!passing.is_final(at(900)), "not in a row");
        let again = [910, 920, 930, 940, 1759].iter().fold(passing, |before, &now| {
            assert!(!before.is_final(at(1759)));
            Retry::after(Some(before), Act::Thaw, at(now), true)
        });
        assert!(!again.is_final(at(1759)), "passing errors do not count towards the time");
        assert!(again.is_final(at(1760)));
    }
}
