//! [`ReapHandle`] and its sending half, a one-shot channel.
//!
//! A mutex and a condition variable: a reap takes a fraction of a millisecond at best, next to which an
//! uncontended lock is nothing, and there is no `unsafe` to get wrong.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::outcome::{ReapError, Reaped};
use crate::remote::{Command, Queue};

type Result = std::result::Result<Reaped, ReapError>;

/// The result of one reap, now or later.
///
/// It completes exactly once, and keeps the result: every way to ask gives the same answer, as often as
/// asked. Dropping it detaches: the reap goes on. To stop one, [`cancel`](ReapHandle::cancel) it.
///
/// Waiting ([`wait`](ReapHandle::wait), [`wait_timeout`](ReapHandle::wait_timeout), `.await` on a
/// single-threaded executor that nothing else drives the reactor in) on the thread that drives the
/// reactor is a deadlock: nobody is left to reap. There, call `Reactor::run_until`.
#[must_use = "dropping the handle detaches the reap and loses its result"]
pub struct ReapHandle {
    slot: Arc<Slot>,
    queue: Arc<Queue>,
}

/// What both halves share.
pub(crate) struct Slot {
    state: Mutex<State>,
    completed: Condvar,
}

#[derive(Default)]
struct State {
    result: Option<Result>,
    waker: Option<Waker>,
    /// Threads in [`ReapHandle::wait`]. A condition variable is notified by a system call, for nobody too.
    waiting: usize,
    /// The entry's token, once it has one: a handle from a `Remote` exists before its entry.
    token: Option<usize>,
    cancelled: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that could panic runs under the lock, and the state is whole at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending half. Dropped without a result, it completes the handle as `Disconnected`.
pub(crate) struct Completer {
    slot: Arc<Slot>,
}

pub(crate) fn channel(queue: &Arc<Queue>) -> (Completer, ReapHandle) {
    let slot = Arc::new(Slot { state: Mutex::new(State::default()), completed: Condvar::new() });
    (Completer { slot: Arc::clone(&slot) }, ReapHandle { slot, queue: Arc::clone(queue) })
}

impl Completer {
    /// Tells the handle where to send a cancel; false if it was cancelled before.
    pub(crate) fn bind(&self, token: usize) -> bool {
        let mut state = self.slot.lock();
        state.token = Some(token);
        !state.cancelled
    }

    pub(crate) fn complete(self, result: Result) {
        self.set(result);
    }

    fn set(&self, result: Result) {
        let waker = {
            let mut state = self.slot.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(result);
            if state.waiting > 0 {
                self.slot.completed.notify_all();
            }
            state.waker.take()
        };
        // Outside of the lock: a waker is foreign code.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.set(Err(ReapError::Disconnected));
    }
}

impl ReapHandle {
    /// Blocks until the reap is complete.
    ///
    /// # Errors
    ///
    /// The reap's own; see [`ReapError`].
    pub fn wait(&self) -> Result {
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = &state.result {
                return result.clone();
            }
            state.waiting += 1;
            state = self.slot.completed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Blocks until the reap is complete or `timeout` has passed; `None` if it passed first.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result> {
        // A deadline too far for the clock is none.
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return Some(self.wait());
        };
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = &state.result {
                return Some(result.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state.waiting += 1;
            (state, _) =
                self.slot.completed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// The result, if the reap is complete.
    pub fn try_wait(&self) -> Option<Result> {
        self.slot.lock().result.clone()
    }

    /// Whether the reap is complete.
    pub fn is_complete(&self) -> bool {
        self.slot.lock().result.is_some()
    }

    pub(crate) fn is_of(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    /// Asks the reactor to stop this reap. It completes with [`ReapError::Cancelled`] on the reactor's
    /// next turn, with nothing left frozen, unless it was complete before. What was killed stays
    /// killed. May be called from any thread; further calls are no-ops.
    pub fn cancel(&self) {
        let token = {
            let mut state = self.slot.lock();
            if state.cancelled || state.result.is_some() {
                return;
            }
            state.cancelled = true;
            state.token
        };
        if let Some(token) = token {
            // A closed queue means a dropped reactor, which has completed the handle.
            let _ = self.queue.push(Command::Cancel(token));
        }
    }
}

impl Future for ReapHandle {
    type Output = Result;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result> {
        // Wakers are foreign code: they are cloned and dropped outside of the lock.
        let waker = cx.waker().clone();
        let replaced = {
            let mut state = self.slot.lock();
            if let Some(result) = &state.result {
                return Poll::Ready(result.clone());
            }
            state.waker.replace(waker)
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for ReapHandle {
    /// Detaches. The waker goes with the handle: a reap may outlive by far the task that awaited it.
    fn drop(&mut self) {
        let waker = self.slot.lock().waker.take();
        drop(waker);
    }
}

impl fmt::Debug for ReapHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReapHandle").field("result", &self.slot.lock().result).finish_non_exhaustive()
    }
}
