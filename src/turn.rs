//! [`Turn`]: the order of one turn's work, and its bounds.
//!
//! 1. notifications from the kernel, as many as one poll returns;
//! 2. commands from other threads and handles, up to [`COMMANDS`];
//! 3. timers that are due, up to [`TIMERS`], and the probe of a shortage of descriptors;
//! 4. entries deferred before this turn, up to [`DEFERRED`].
//!
//! Work beyond these bounds is left for the next turn, which is due at once.
//!
//! A turn may take several calls: when the time of a call is used up, the next call continues the turn. A turn takes
//! up no new work before it is over, so that no kind of work holds up another.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;

use crate::entry_id::EntryId;
use crate::time::Span;
use crate::wheel::Wheel;

/// Commands handled in one turn.
const COMMANDS: usize = 256;

/// Timers handled in one turn.
const TIMERS: usize = 256;

/// Deferred entries resumed in one turn.
const DEFERRED: usize = 256;

/// The work that is left of one turn.
#[derive(Default)]
pub(crate) struct Turn {
    under_way: bool,
    notified: VecDeque<EntryId>,
    commands: usize,
    timers: usize,
    deferred: usize,
    /// The time of the first timer pop in this turn, and the event-loop lag at that time.
    clock: Option<(u64, Span)>,
}

impl Turn {
    /// Begins the next turn, with these notifications. `deferred` is the number of entries deferred before it. The
    /// previous turn must be over.
    pub(crate) fn begin(&mut self, notified: impl IntoIterator<Item = EntryId>, deferred: usize) {
        // The queue's memory is reused.
        let mut queue = std::mem::take(&mut self.notified);
        queue.extend(notified);
        *self = Turn {
            under_way: true,
            notified: queue,
            commands: COMMANDS,
            timers: TIMERS,
            deferred: deferred.min(DEFERRED),
            clock: None,
        };
    }

    /// Whether the turn is not over yet.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way
    }

    pub(crate) fn end(&mut self) {
        self.under_way = false;
    }

    pub(crate) fn notification(&mut self) -> Option<EntryId> {
        self.notified.pop_front()
    }

    /// The next command, if the turn has room for one.
    pub(crate) fn command<C>(&mut self, next: impl FnOnce() -> Option<C>) -> Option<C> {
        if self.commands == 0 {
            return None;
        }
        let command = next();
        // Once the queue is empty, the turn takes no more commands.
        self.commands = if command.is_some() { self.commands - 1 } else { 0 };
        command
    }

    /// Whether the command just returned was the last that the turn has room for.
    pub(crate) fn is_full_of_commands(&self) -> bool {
        self.commands == 0
    }

    /// The key of an entry whose timer is due, and the event-loop lag. `now` is the clock's tick.
    pub(crate) fn timer(&mut self, wheel: &mut Wheel, now: impl FnOnce() -> u64) -> Option<(usize, Span)> {
        if self.timers == 0 {
            return None;
        }
        let (now, lag) = *self.clock.get_or_insert_with(|| {
            let now = now();
            let lag = wheel.next().map_or(0, |tick| now.saturating_sub(tick));
            (now, Span::from_millis(lag))
        });
        let due = wheel.pop(now);
        self.timers = if due.is_some() { self.timers - 1 } else { 0 };
        due.map(|key| (key, lag))
    }

    pub(crate) fn deferred(&mut self, queue: &mut VecDeque<EntryId>) -> Option<EntryId> {
        if self.deferred == 0 {
            return None;
        }
        self.deferred -= 1;
        queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(token: usize) -> EntryId {
        EntryId::from_token(token).unwrap()
    }

    fn begun<const N: usize>(notified: [EntryId; N], deferred: usize) -> Turn {
        let mut turn = Turn::default();
        turn.begin(notified, deferred);
        turn
    }

    /// The work that a turn hands out, if there is more work of every kind than its bounds allow.
    #[test]
    fn each_kind_of_work_has_a_bound_and_what_is_left_stays() {
        let mut wheel = Wheel::new();
        (0..TIMERS + 1).for_each(|key| wheel.schedule(key, 5));
        let mut queue: VecDeque<EntryId> = (1..DEFERRED + 10).map(id).collect();
        let mut turn = begun([id(1), id(2)], queue.len());
        assert_eq!(
            (turn.notification(), turn.notification(), turn.notification()),
            (Some(id(1)), Some(id(2)), None)
        );
        let commands = (0..COMMANDS + 5).filter_map(|_| turn.command(|| Some(()))).count();
        assert_eq!((commands, turn.is_full_of_commands()), (COMMANDS, true));
        let timers: Vec<_> = std::iter::from_fn(|| turn.timer(&mut wheel, || 8)).collect();
        assert_eq!(timers.len(), TIMERS);
        assert!(timers.iter().all(|(_, lag)| *lag == Span::from_millis(3)));
        assert_eq!(wheel.next(), Some(5));
        assert_eq!(std::iter::from_fn(|| turn.deferred(&mut queue)).count(), DEFERRED);
        assert_eq!(queue.front(), Some(&id(DEFERRED + 1)));
    }

    /// An entry that yields in a turn is not resumed before the next turn.
    #[test]
    fn entries_deferred_in_a_turn_wait_for_the_next() {
        let mut queue = VecDeque::from([id(1)]);
        let mut turn = begun([], queue.len());
        queue.push_back(id(2));
        assert_eq!((turn.deferred(&mut queue), turn.deferred(&mut queue)), (Some(id(1)), None));
    }

    /// The queue of commands, which takes a lock, is not read again once it was empty.
    #[test]
    fn a_turn_asks_for_commands_until_there_is_none() {
        let mut turn = begun([], 0);
        assert_eq!(turn.command(|| Some(7)), Some(7));
        assert!(!turn.is_full_of_commands(), "one command is not the last");
        assert_eq!(turn.command(|| None::<i32>), None);
        assert_eq!(turn.command(|| -> Option<i32> { panic!("asked again") }), None);
    }
}
