//! [`Pace`]: when the next attempt is due, and when to check in between.

use crate::time::{Instant, Span};

/// A probe is a check between two attempts, in case the kernel delays or loses a notification. The first comes after
/// this time; each next wait is twice as long.
const FIRST_PROBE: Span = Span::from_millis(1);

/// After this many attempts that notifications prompted, the next one waits for a timer. Otherwise a fork storm could
/// occupy the loop.
pub(super) const PROMPTED: u8 = 8;

/// The backoff between attempts: `min_wait`, then four times as long each time, up to `max_wait`.
#[derive(Debug)]
pub(super) struct Pace {
    min_wait: Span,
    max_wait: Span,
    /// The wait before the next attempt.
    wait: Span,
    next: Next,
    /// The time to the next probe, if there is one.
    probe: Option<Span>,
    /// Attempts prompted by notifications since a timer fired.
    prompted: u8,
    /// When a helper thread began the write under way.
    begun: Option<Instant>,
}

/// When the next attempt is due, whether or not a notification comes. (In the grace period: the next check.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// As soon as a check finds members: nothing was tried yet, or the grace period just ended.
    Immediately,
    At {
        at: Instant,
        /// The wait was prolonged for event-loop lag. This is done once for each attempt.
        prolonged: bool,
    },
}

impl Pace {
    pub(super) fn new(min_wait: Span, max_wait: Span) -> Pace {
        let next = Next::Immediately;
        Pace { min_wait, max_wait, wait: min_wait, next, probe: None, prompted: 0, begun: None }
    }

    /// Whether the wait for the next attempt is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.next {
            Next::Immediately => true,
            Next::At { at, .. } => now >= at,
        }
    }

    /// Whether the backoff has reached `max_wait`.
    pub(super) fn is_slowest(&self) -> bool {
        self.wait == self.max_wait
    }

    pub(super) fn is_prolonged(&self) -> bool {
        matches!(self.next, Next::At { prolonged: true, .. })
    }

    /// A timer fired, and the loop was `lag` behind with its timers. If SIGKILL was sent to every member and the lag
    /// exceeds the wait, the members had no CPU time either. The wait is prolonged to four times the lag.
    pub(super) fn timer_fired(&mut self, now: Instant, lag: Span, all_killed: bool) {
        self.prompted = 0;
        if all_killed && lag > self.wait && !self.is_prolonged() {
            let wait = lag.saturating_mul(4).min(self.max_wait);
            self.next = Next::At { at: now.saturating_add(wait), prolonged: true };
            self.probe = self.probe.map(|probe| probe.max(lag));
        }
    }

    /// Restarts the backoff, because the members changed.
    pub(super) fn reset_wait(&mut self) {
        self.wait = self.min_wait;
    }

    /// Brings the next attempt forward, because some members exited. Members that joined in their place are
    /// signalled after `min_wait`, not after the long wait of the old ones.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let Next::At { at, .. } = &mut self.next {
            *at = (*at).min(now.saturating_add(self.wait));
        }
    }

    /// Makes the next signal due at once, because the linger or the grace period is over.
    pub(super) fn start(&mut self) {
        self.wait = self.min_wait;
        self.next = Next::Immediately;
    }

    /// Lengthens the wait, because the last attempt changed nothing. Returns false before the first attempt.
    pub(super) fn lengthen(&mut self) -> bool {
        let again = self.next != Next::Immediately;
        if again {
            self.wait = self.longer();
        }
        again
    }

    /// Whether a notification may prompt one more attempt before a timer fires. Counts it.
    pub(super) fn take_prompt(&mut self) -> bool {
        let may = self.prompted < PROMPTED;
        self.prompted += u8::from(may);
        may
    }

    /// Notes that a helper thread makes the write of the attempt.
    pub(super) fn helper_begins(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Schedules the attempt after the one just made. If a helper thread made that attempt, many members were killed at once,
    /// and they take longer to exit than the write took: this one wait is at least four times as long as the write.
    pub(super) fn attempted(&mut self, now: Instant) {
        let long = |begun| now.saturating_since(begun).saturating_mul(4).min(self.max_wait);
        let wait = self.begun.take().map_or(self.wait, |begun| self.wait.max(long(begun)));
        self.next = Next::At { at: now.saturating_add(wait), prolonged: false };
    }

    /// Schedules the next attempt after one that could not be made.
    pub(super) fn back_off(&mut self, now: Instant) {
        match self.next {
            Next::Immediately => self.wait = self.min_wait,
            Next::At { at, .. } if now >= at => self.wait = self.longer(),
            Next::At { .. } => return,
        }
        self.next = Next::At { at: now.saturating_add(self.wait), prolonged: self.is_prolonged() };
    }

    /// Starts the probes over, or ends them.
    pub(super) fn set_probes(&mut self, wanted: bool) {
        self.probe = wanted.then_some(FIRST_PROBE);
    }

    /// Starts the probes where there are none.
    pub(super) fn probe(&mut self) {
        self.probe.get_or_insert(FIRST_PROBE);
    }

    /// Starts the probes where there are none, unless the time of the next attempt has passed.
    pub(super) fn probe_while_waiting(&mut self, now: Instant) {
        if self.next == Next::Immediately || !self.is_due(now) {
            self.probe();
        }
    }

    /// The time of the next attempt or probe, or `bound`, whichever comes first. Never a time in the past, which
    /// would look like event-loop lag.
    pub(super) fn next(&mut self, now: Instant, bound: Option<Instant>) -> Instant {
        let attempt = match self.next {
            Next::Immediately => now,
            Next::At { at, .. } => at.max(now),
        };
        let until = bound.map_or(attempt, |bound| attempt.min(bound));
        let Some(probe) = self.probe else { return until };
        let at = now.saturating_add(probe);
        self.probe = (at < until).then_some(probe.saturating_mul(2));
        until.min(at)
    }

    fn longer(&self) -> Span {
        self.wait.saturating_mul(4).min(self.max_wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::after_start(Duration::from_millis(millis))
    }

    fn millis(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    /// After an attempt at 0, with waits from 10 to 1000 ms.
    fn attempted() -> Pace {
        let mut pace = Pace::new(millis(10), millis(1000));
        pace.attempted(at(0));
        pace
    }

    #[test]
    fn only_a_lag_that_exceeds_the_wait_prolongs_it() {
        let mut pace = attempted();
        pace.timer_fired(at(10), millis(10), true);
        pace.timer_fired(at(10), millis(11), false);
        assert!(!pace.is_prolonged() && pace.is_due(at(10)));
        pace.timer_fired(at(20), millis(11), true);
        pace.timer_fired(at(30), millis(100), true);
        assert!(pace.is_prolonged() && !pace.is_due(at(63)) && pace.is_due(at(64)), "once an attempt");
    }

    #[test]
    fn the_members_have_four_times_as_long_to_exit_as_a_helper_took_to_kill_them() {
        for (ended, next) in [(11, 21), (20, 60), (400, 1400)] {
            let mut pace = attempted();
            pace.helper_begins(at(10));
            pace.helper_begins(at(10 + 1));
            pace.attempted(at(ended));
            assert_eq!(pace.next(at(ended), None), at(next));
            assert!(!pace.is_slowest());
            pace.attempted(at(next));
            assert_eq!(pace.next(at(next), None), at(next + 10), "only the wait after it");
        }
    }

    #[test]
    fn there_is_no_probe_before_the_loop_has_caught_up() {
        let mut pace = attempted();
        pace.set_probes(true);
        pace.timer_fired(at(10), millis(11), true);
        assert_eq!([pace.next(at(10), None), pace.next(at(21), None)], [at(21), at(43)]);
    }

    #[test]
    fn probes_come_at_doubled_waits_until_the_next_attempt() {
        let mut pace = Pace::new(millis(7), millis(1000));
        pace.attempted(at(0));
        pace.set_probes(true);
        assert_eq!([0, 1, 3].map(|now| pace.next(at(now), None)), [1, 3, 7].map(at));
        pace.lengthen();
        pace.attempted(at(7));
        assert_eq!(pace.next(at(7), None), at(35), "the probe that coincided with the attempt was the last");
        pace.probe_while_waiting(at(35));
        assert_eq!(pace.next(at(35), None), at(35), "nothing is waited for");
        pace.attempted(at(35));
        pace.probe_while_waiting(at(35));
        assert_eq!(pace.next(at(35), None), at(36));
        assert_eq!(pace.next(at(36), Some(at(37))), at(37));
        let mut first = Pace::new(millis(7), millis(1000));
        first.probe_while_waiting(at(0));
        assert_eq!(first.probe, Some(FIRST_PROBE));
    }

    #[test]
    fn the_wait_is_lengthened_after_an_attempt_and_not_before_the_first() {
        let mut pace = Pace::new(millis(10), millis(1000));
        assert!(!pace.lengthen());
        assert_eq!(pace.wait, millis(10));
        pace.attempted(at(0));
        assert!(pace.lengthen());
        assert_eq!(pace.wait, millis(40));
        assert!([160, 640, 1000].into_iter().all(|wait| pace.lengthen() && pace.wait == millis(wait)));
        assert!(pace.is_slowest());
        pace.reset_wait();
        assert!(!pace.is_slowest());
    }

    #[test]
    fn an_attempt_that_could_not_be_made_is_due_after_the_next_wait() {
        let mut pace = Pace::new(millis(10), millis(1000));
        pace.back_off(at(0));
        assert_eq!(pace.next(at(0), None), at(10));
        pace.back_off(at(9));
        assert_eq!(pace.next(at(9), None), at(10), "it was not due");
        pace.back_off(at(10));
        assert_eq!(pace.next(at(10), None), at(50));
    }

    #[test]
    fn a_few_attempts_are_prompted_until_a_timer_fires() {
        let mut pace = attempted();
        for _ in 0..2 {
            let prompted = (0..20).filter(|_| pace.take_prompt()).count();
            assert_eq!(prompted, usize::from(PROMPTED));
            pace.timer_fired(at(10), millis(0), true);
        }
    }

    #[test]
    fn new_members_do_not_wait_for_as_long_as_the_old_ones() {
        let mut pace = attempted();
        (0..3).for_each(|_| _ = pace.lengthen());
        pace.attempted(at(10));
        pace.reset_wait();
        pace.hasten(at(20));
        assert_eq!(pace.next(at(20), None), at(30));
        pace.hasten(at(25));
        assert_eq!(pace.next(at(25), None), at(30), "never later");
        (0..3).for_each(|_| _ = pace.lengthen());
        pace.start();
        assert_eq!((pace.next(at(25), None), pace.wait), (at(25), millis(10)));
    }
}
