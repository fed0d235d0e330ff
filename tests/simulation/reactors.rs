//! The reactors of a history, each without its poll.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::SHARED;
use super::kernel::{Fd, Sim};
use crate::cgroup::{Budget, Notice, Resolver};
use crate::entries::{Command, Entries, Host};
use crate::entry_id::EntryId;
use crate::remote::Queue;

/// The loop around the entries.
pub(super) struct EventLoop {
    sim: Sim,
    /// The number of its reactor.
    reactor: usize,
    pub(super) commands: VecDeque<Command<Sim>>,
    /// Entries that asked for notifications, in order.
    pub(super) watched: RefCell<Vec<EntryId>>,
}

impl EventLoop {
    /// That of the first reactor.
    pub(super) fn new(sim: &Sim) -> EventLoop {
        let (commands, watched) = (VecDeque::new(), RefCell::default());
        EventLoop { sim: sim.clone(), reactor: 0, commands, watched }
    }

    /// A whole turn.
    pub(super) fn turn(&mut self, entries: &mut Entries<Sim>, tokens: Vec<usize>) {
        entries.begin_turn(tokens.into_iter().filter_map(EntryId::from_token));
        while entries.advance(self) {}
    }
}

impl Host<Sim> for EventLoop {
    fn watch(&self, fd: &Fd, id: EntryId, _: Notice) -> io::Result<()> {
        self.watched.borrow_mut().push(id);
        self.sim.register(fd, self.reactor, id.token())
    }

    fn next_command(&mut self) -> Option<Command<Sim>> {
        self.commands.pop_front()
    }

    fn stop(&mut self) {}
}

pub(super) struct Reactor {
    pub(super) event_loop: EventLoop,
    /// `None` once it was dropped.
    pub(super) entries: Option<Entries<Sim>>,
    budget: Budget,
    pub(super) queue: Arc<Queue>,
    /// Every token that was ever notified, to be given again.
    pub(super) stale: Vec<usize>,
}

impl Reactor {
    pub(super) fn new(number: usize, sim: &Sim, budget: Budget, queue: &Arc<Queue>) -> Reactor {
        Reactor {
            event_loop: EventLoop { reactor: number, ..EventLoop::new(sim) },
            entries: Some(Entries::new(Resolver::new(sim.clone(), budget.clone()))),
            budget,
            queue: Arc::clone(queue),
            stale: Vec::new(),
        }
    }

    /// Descriptors that it may hold.
    pub(super) fn permitted(&self) -> usize {
        self.budget.used() + SHARED
    }

    /// Permits that it has not given back.
    pub(super) fn permits(&self) -> usize {
        self.budget.used()
    }
}
