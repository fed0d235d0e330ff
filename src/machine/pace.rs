//! [`Pace`]: when the next attempt is due, and when to check in between.

use crate::time::{Instant, Span};

/// The first of the probes: checks between two attempts that cover for a notification which the kernel delays or
/// loses. Each further one comes twice as long after the last.
const FIRST_PROBE: Span = Span::from_millis(1);

/// Attempts prompted by notifications before a timer must have fired in between: a target that is refilled without end
/// may not keep the loop to itself.
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

    /// A timer fired, and the loop was `lag` behind with its timers. Where every member was killed, and the lag is
    /// longer than the wait, the exits lag as well: nothing is known of how the members take the signal yet.
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

    /// Members exited: what takes their place does not wait as long as members that do not exit.
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

    /// An attempt is due after one that changed nothing; false if it is the first.
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

    /// Schedules the next attempt in `min_wait`, and nothing before it.
    pub(super) fn retry(&mut self, now: Instant) {
        self.probe = None;
        self.next = Next::At { at: now.saturating_add(self.min_wait), prolonged: self.is_prolonged() };
    }

    /// Starts the probes over, or ends them.
    pub(super) fn set_probes(&mut self, wanted: bool) {
        self.probe = wanted.then_some(FIRST_PROBE);
    }

    /// Starts the probes where there are none.
    pub(super) fn probe(&mut self) {
        self.probe.get_or_insert(FIRST_PROBE);
    }

    /// The same, unless the wait for the next attempt is over.
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
