//! [`Remote`]: a reactor's front for other threads, and the queue behind it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cgroup::Checks;
use crate::entries::{Command, Spawn};
use crate::handle::{self, ReapHandle};
use crate::outcome::{Refusal, SpawnError};
use crate::reaper::Reaper;
use crate::sys::Linux;

/// Commands for a reactor, and the waker that tells it of them.
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

    /// Hands the command back if the queue is closed.
    pub(crate) fn push(&self, command: Command<Linux>) -> Result<(), Command<Linux>> {
        let mut inner = self.lock();
        let Some(waker) = &inner.waker else {
            return Err(command);
        };
        // One wake for a non-empty queue: whoever made it so has sent it.
        if inner.commands.is_empty() {
            if let Err(error) = waker.wake() {
                // An eventfd that is ours and non-blocking has no way to fail; should it, the command is seen
                // in the next turn, whatever that is for.
                log::error!("cannot wake the reactor: {error}");
            }
        }
        inner.commands.push_back(command);
        Ok(())
    }

    /// The next command.
    pub(crate) fn pop(&self) -> Option<Command<Linux>> {
        self.lock().commands.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().commands.is_empty()
    }

    /// Refuses what comes later and hands out what is there.
    pub(crate) fn close(&self) -> VecDeque<Command<Linux>> {
        let mut inner = self.lock();
        inner.waker = None;
        std::mem::take(&mut inner.commands)
    }

    fn is_closed(&self) -> bool {
        self.lock().waker.is_none()
    }
}

/// A reactor's front for other threads: `Clone + Send + Sync`.
///
/// Made by `Reactor::remote`. It does not keep the reactor alive.
#[derive(Clone)]
pub struct Remote {
    pub(crate) queue: Arc<Queue>,
    pub(crate) checks: Checks<Linux>,
}

impl Remote {
    /// Hands a reap to the reactor, which starts on it in its next turn.
    ///
    /// The checks are made, and the target's directories pinned, here and now, on the calling thread.
    ///
    /// # Errors
    ///
    /// As `Reactor::spawn_reaper`, and [`Refusal::Disconnected`] if the reactor is gone. The error hands
    /// the [`Reaper`] back.
    pub fn spawn_reaper(&self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        if self.queue.is_closed() {
            return Err(SpawnError::new(reaper, Refusal::Disconnected));
        }
        let target = match self.checks.resolve(&reaper) {
            Ok(target) => target,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(&self.queue);
        match self.queue.push(Command::Spawn(Box::new(Spawn { reaper, target, completer }))) {
            Ok(()) => Ok(handle),
            Err(Command::Spawn(spawn)) => Err(SpawnError::new(spawn.reaper, Refusal::Disconnected)),
            Err(_) => unreachable!("a queue hands back what it was given"),
        }
    }

    /// Makes `Reactor::run` return, or return at once where it is called next: a stop that comes before the run
    /// is not lost. Without effect on a reactor that is gone. Reaps stay as they are.
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
