//! A reap on a [`Failing`] kernel, from the spawn to its end: what the reactor does, around the same entries.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::faults::Kind;
use super::kernel::{Failing, File};
use crate::cgroup::{Budget, Job, Limit, Notice, Resolver};
use crate::entries::{Command, Entries, Host, NoThread, Spawn};
use crate::entry_id::EntryId;
use crate::handle;
use crate::outcome::{ReapError, Reaped, Refusal};
use crate::reaper::Reaper;
use crate::remote::Queue;
use crate::sys::Sys;

const WAKER: Token = Token(usize::MAX);

/// What a reap came to.
#[derive(Debug)]
pub(super) enum Ending {
    Refused(Refusal),
    Complete(Result<Reaped, ReapError>),
    /// It was not complete after so long, and was dropped.
    Overdue(Duration),
}

struct EventLoop<'a> {
    sys: &'a Failing,
    registry: &'a Registry,
}

impl Host<Failing> for EventLoop<'_> {
    fn watch(&self, fd: &File, id: EntryId, notice: Notice) -> io::Result<()> {
        let interest = match notice {
            Notice::Events => Interest::PRIORITY,
            Notice::Exit => Interest::READABLE,
        };
        let register = || self.registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(id.token()), interest);
        self.sys.call(Kind::Watch, || format!("{notice:?}"), register)
    }

    fn next_command(&mut self) -> Option<Command<Failing>> {
        None
    }

    fn stop(&mut self) {}

    fn help(&self, _: EntryId, _: Job<Failing>) -> Result<(), NoThread> {
        Err(NoThread(None))
    }
}

/// Reaps, for no longer than the limit. Returns what it came to, and when it was spawned and over.
pub(super) fn reap(sys: &Failing, reaper: &Reaper, limit: Duration) -> (Ending, Duration, Duration) {
    let mut poll = Poll::new().expect("epoll");
    let registry = poll.registry().try_clone().expect("a descriptor");
    let queue = Arc::new(Queue::new(Waker::new(&registry, WAKER).expect("eventfd")));
    let mut event_loop = EventLoop { sys, registry: &registry };
    let resolver = Resolver::new(sys.clone(), Budget::of_process(true));
    resolver.renew_limit();
    let mut entries = Entries::new(resolver);
    let spawned = sys.now();
    let (target, findings) = match entries.resolver.resolve(reaper, Limit::default()) {
        Ok(resolved) => resolved,
        Err(refusal) => return (Ending::Refused(refusal), spawned, sys.now()),
    };
    let (completer, handle) = handle::channel(target.shared_path(), &queue);
    entries.spawn(Spawn { reaper: reaper.clone(), target, findings, completer }, &event_loop);
    let mut events = Events::with_capacity(64);
    loop {
        if let Some(result) = handle.try_wait() {
            return (Ending::Complete(result), spawned, sys.now());
        }
        let now = sys.now();
        if now > spawned + limit {
            return (Ending::Overdue(now - spawned), spawned, now);
        }
        let due = entries.next_tick().map(Duration::from_millis);
        let wait = match due {
            _ if entries.has_deferred() => Duration::ZERO,
            Some(due) => due.saturating_sub(now),
            None => Duration::MAX,
        };
        match poll.poll(&mut events, Some(wait.min(spawned + limit - now))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => panic!("epoll_wait: {error}"),
            _ => {}
        }
        let notified = events
            .iter()
            .filter(|event| event.token() != WAKER)
            .filter_map(|event| EntryId::from_token(event.token().0));
        entries.begin_turn(notified);
        while entries.advance(&mut event_loop) {}
    }
}
