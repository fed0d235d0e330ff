//! [`Remote`]: spawns from other threads, and the queue of commands behind it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cgroup::{Findings, Limit, Resolver};
use crate::entries::{Command, Spawn};
use crate::guard::ReapGuard;
use crate::handle::{self, Asked, ReapHandle};
use crate::outcome::{Refusal, SpawnError};
use crate::reaper::Reaper;
use crate::sys::Linux;

/// Commands for a reactor, and the waker that wakes it for them.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
}

struct Inner {
    commands: VecDeque<Command<Linux>>,
    /// `None` once the reactor is gone, which closes the queue.
    waker: Option<mio::Waker>,
}

impl Queue {
    pub(crate) fn new(waker: mio::Waker) -> Queue {
        Queue { inner: Mutex::new(Inner { commands: VecDeque::new(), waker: Some(waker) }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a command. Returns the command if the queue is closed.
    pub(crate) fn push(&self, command: Command<Linux>) -> Result<(), Command<Linux>> {
        let mut inner = self.lock();
        let Some(waker) = &inner.waker else {
            return Err(command);
        };
        // Only a push to an empty queue wakes the reactor.
        if inner.commands.is_empty() {
            if let Err(error) = waker.wake() {
                // A write to our own non-blocking eventfd has no way to fail. Should it fail nevertheless, the
                // reactor finds the command in its next turn.
                log::error!("cannot wake the reactor: {error}");
            }
        }
        inner.commands.push_back(command);
        Ok(())
    }

    /// Takes the next command.
    pub(crate) fn pop(&self) -> Option<Command<Linux>> {
        self.lock().commands.pop_front()
    }

    /// Passes the request `what` to the queued spawns whose tag `fits`. Returns the number of these spawns.
    pub(crate) fn ask(&self, fits: impl Fn(Option<u64>) -> bool, what: Asked) -> usize {
        let mut count = 0;
        for command in &self.lock().commands {
            let Command::Spawn(spawn) = command else { continue };
            let Spawn { reaper, completer, .. } = &**spawn;
            if fits(reaper.tag) {
                count += 1;
                let told = completer.ask(what);
                debug_assert!(told.is_none(), "an entry before its spawn");
            }
        }
        count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().commands.is_empty()
    }

    /// Closes the queue, so that later commands are refused. Returns the commands that are in it.
    pub(crate) fn close(&self) -> VecDeque<Command<Linux>> {
        let mut inner = self.lock();
        inner.waker = None;
        std::mem::take(&mut inner.commands)
    }

    fn is_closed(&self) -> bool {
        self.lock().waker.is_none()
    }
}

/// Spawns reaps on a reactor from other threads. `Clone`, `Send` and `Sync`.
///
/// Made by [`Reactor::remote`](crate::Reactor::remote). It does not keep the reactor alive.
#[derive(Clone)]
pub struct Remote {
    pub(crate) queue: Arc<Queue>,
    pub(crate) resolver: Resolver<Linux>,
}

impl Remote {
    /// Hands a reap to the reactor, which starts it in its next turn. The periods of the reaper, such as the deadline, count
    /// from that turn.
    ///
    /// The checks are made on the calling thread, before this returns: from then on the target is the cgroup that the
    /// path led to. As a rule they take much less than a millisecond. They can take long for a target of very many cgroups: up to
    /// half a second on v1; up to 10 s on v2, if /proc and the mounts do not tell the caller's cgroup. Async code calls this
    /// in `spawn_blocking` for such a target.
    ///
    /// # Errors
    ///
    /// As [`Reactor::spawn_reaper`](crate::Reactor::spawn_reaper), and [`Refusal::Disconnected`] if the reactor was
    /// dropped. The error hands the [`Reaper`] back.
    pub fn spawn_reaper(&self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        if self.queue.is_closed() {
            return Err(SpawnError::new(reaper, Refusal::Disconnected));
        }
        // The findings of these checks are dropped: they hold only for a step on this thread that follows at
        // once.
        let target = match self.resolver.resolve(&reaper, Limit::default()) {
            Ok((target, _)) => target,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(target.shared_path(), &self.queue);
        let spawn = Spawn { reaper, target, findings: Findings::default(), completer };
        match self.queue.push(Command::Spawn(Box::new(spawn))) {
            Ok(()) => Ok(handle),
            Err(Command::Spawn(spawn)) => Err(SpawnError::new(spawn.reaper, Refusal::Disconnected)),
            Err(_) => unreachable!("a queue hands back what it was given"),
        }
    }

    /// Makes a guard: when it is dropped, the reactor reaps the cgroup. The checks can take as long as those of
    /// [`spawn_reaper`](Remote::spawn_reaper).
    ///
    /// # Errors
    ///
    /// As [`Reactor::guard`](crate::Reactor::guard), and [`Refusal::Disconnected`] if the reactor was dropped.
    pub fn guard(&self, reaper: Reaper) -> Result<ReapGuard, SpawnError> {
        if self.queue.is_closed() {
            return Err(SpawnError::new(reaper, Refusal::Disconnected));
        }
        ReapGuard::new(reaper, &self.resolver, &self.queue)
    }

    /// Makes [`Reactor::run`](crate::Reactor::run) return. If `run` is not running, its next call returns at once, also
    /// where the reactor was in [`run_until`](crate::Reactor::run_until) or
    /// [`run_until_idle`](crate::Reactor::run_until_idle), which are not ended. Reaps under way are not affected. After the
    /// reactor was dropped, this is a no-op.
    ///
    /// On the remote of a `TokioReactor`, this cancels all reaps and ends the task, as
    /// `TokioReactor::shutdown` does.
    pub fn stop(&self) {
        let _ = self.queue.push(Command::Stop);
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("closed", &self.queue.is_closed()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entry_id::EntryId;

    /// A queue, and the poll that it wakes.
    pub(crate) fn queue() -> (Arc<Queue>, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (Arc::new(Queue::new(waker)), poll)
    }

    fn id(token: usize) -> EntryId {
        EntryId::from_token(token).unwrap()
    }

    fn woken(poll: &mut mio::Poll) -> bool {
        let mut events = mio::Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }

    #[test]
    fn commands_come_out_as_they_went_in_with_one_wake() {
        let (queue, mut poll) = queue();
        assert!(queue.is_empty() && !woken(&mut poll));
        for token in 1..4 {
            assert!(queue.push(Command::Cancel(id(token))).is_ok());
            assert_eq!(woken(&mut poll), token == 1);
        }
        assert!(!queue.is_empty());
        for token in 1..4 {
            assert!(matches!(queue.pop(), Some(Command::Cancel(popped)) if popped == id(token)));
        }
        assert!(queue.pop().is_none() && queue.is_empty());
        assert!(queue.push(Command::Stop).is_ok());
        assert!(woken(&mut poll));
    }

    #[test]
    fn a_closed_queue_hands_back_what_it_gets_and_what_it_has() {
        let (queue, _poll) = queue();
        assert!(queue.push(Command::Cancel(id(1))).is_ok());
        assert!(!queue.is_closed());
        assert!(matches!(queue.close().make_contiguous(), [Command::Cancel(entry)] if *entry == id(1)));
        assert!(queue.is_closed() && queue.is_empty());
        assert!(matches!(queue.push(Command::Cancel(id(2))), Err(Command::Cancel(entry)) if entry == id(2)));
        assert!(queue.is_empty());
    }
}
