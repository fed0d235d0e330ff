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
}

/// When the next attempt is due, whether or not a notification comes. (In the grace period: the next check.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// As soon as a check finds members: nothing was tried yet, or the grace period just ended.
    Immediately,
    At {
        at: Instant,
        /// The wait was prolonged for event-loop lag, which is done once an attempt.
        prolonged: bool,
    },
}

impl Pace {
    pub(super) fn new(min_wait: Span, max_wait: Span) -> Pace {
        Pace { min_wait, max_wait, wait: min_wait, next: Next::Immediately, probe: None, prompted: 0 }
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

    /// The members changed: the backoff starts anew.
    pub(super) fn reset_wait(&mut self) {
        self.wait = self.min_wait;
    }

    /// Some members exited. Members that joined in their place are attempted after `min_wait`, not after the long
    /// wait of the old ones.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let Next::At { at, .. } = &mut self.next {
            *at = (*at).min(now.saturating_add(self.wait));
        }
    }

    /// The grace period is over: the first attempt to kill is due.
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
    pub(super) fn may_be_prompted(&mut self) -> bool {
        let may = self.prompted < PROMPTED;
        self.prompted += u8::from(may);
        may
    }

    /// Schedules the attempt after the one just made.
    pub(super) fn attempted(&mut self, now: Instant) {
        self.next = Next::At { at: now.saturating_add(self.wait), prolonged: false };
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

    /// The time of the next attempt or probe, or `bound`, whichever comes first. Not in the past, for that would look
    /// like event-loop lag.
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
