//! [`ReapHandle`] and its sending half, a one-shot channel.
//!
//! A mutex and a condition variable: a reap takes a fraction of a millisecond at best, next to which an
//! uncontended lock is nothing, and there is no `unsafe` to get wrong.

use std::ffi::CStr;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::cgroup::as_path;
use crate::entries::Command;
use crate::entry_id::EntryId;
use crate::outcome::{ReapError, Reaped};
use crate::remote::Queue;
use crate::sys::Sys;

type Result = std::result::Result<Reaped, ReapError>;

/// The result of one reap, now or later.
///
/// It completes exactly once and keeps the result, so every method that asks for it gives the same answer each
/// time. Dropping the handle detaches it: the reap goes on. [`cancel`](ReapHandle::cancel) stops a reap.
///
/// Blocking ([`wait`](ReapHandle::wait), [`wait_timeout`](ReapHandle::wait_timeout)) on the thread that drives the
/// reactor is a deadlock, because the reactor works only while one of its methods runs. On that thread, call
/// [`Reactor::run_until`](crate::Reactor::run_until).
#[must_use = "dropping the handle detaches the reap and loses its result"]
pub struct ReapHandle {
    slot: Arc<Slot>,
    queue: Arc<Queue>,
}

/// The state that the handle and its completer share.
pub(crate) struct Slot {
    path: Arc<CStr>,
    state: Mutex<State>,
    completed: Condvar,
}

#[derive(Default)]
struct State {
    result: Option<Box<Result>>,
    waker: Option<Waker>,
    /// Threads in [`ReapHandle::wait`]. Notifying a condition variable takes a system call even if none waits.
    waiting: u32,
    /// The entry, once there is one: a handle from a `Remote` exists before its entry.
    entry: Option<EntryId>,
    asked: Asked,
}

/// What the caller has asked for through the handle. The variants are ordered: a later one includes the earlier
/// ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Asked {
    #[default]
    Nothing,
    /// To send SIGKILL now.
    KillNow,
    Cancel,
}

impl Asked {
    /// The command that passes the request to the entry.
    pub(crate) fn command<S: Sys>(self, entry: EntryId) -> Option<Command<S>> {
        match self {
            Asked::Nothing => None,
            Asked::KillNow => Some(Command::KillNow(entry)),
            Asked::Cancel => Some(Command::Cancel(entry)),
        }
    }
}

impl Slot {
    /// Notes a request. Returns the entry to which it is to be passed. An entry that does not exist yet gets the request
    /// when it is bound.
    fn ask(&self, what: Asked) -> Option<EntryId> {
        let mut state = self.lock();
        if state.asked >= what || state.result.is_some() {
            return None;
        }
        state.asked = what;
        state.entry
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that could panic runs under the lock, and the state is consistent at every point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending half. If it is dropped without a result, it completes the handle as `Disconnected`.
pub(crate) struct Completer {
    slot: Arc<Slot>,
}

/// Makes a handle and its completer. `path` is the target's path.
pub(crate) fn channel(path: Arc<CStr>, queue: &Arc<Queue>) -> (Completer, ReapHandle) {
    let (state, completed) = (Mutex::new(State::default()), Condvar::new());
    let slot = Arc::new(Slot { path, state, completed });
    (Completer { slot: Arc::clone(&slot) }, ReapHandle { slot, queue: Arc::clone(queue) })
}

impl Completer {
    /// Sets the entry to which the handle sends its commands. Returns what the handle was asked for before.
    pub(crate) fn bind(&self, entry: EntryId) -> Asked {
        let mut state = self.slot.lock();
        state.entry = Some(entry);
        state.asked
    }

    pub(crate) fn complete(self, result: Result) {
        self.set(result);
    }

    /// Whether the handle was dropped.
    pub(crate) fn is_detached(&self) -> bool {
        Arc::strong_count(&self.slot) == 1
    }

    /// As [`Slot::ask`].
    pub(crate) fn ask(&self, what: Asked) -> Option<EntryId> {
        self.slot.ask(what)
    }

    fn set(&self, result: Result) {
        let waker = {
            let mut state = self.slot.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(Box::new(result));
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
        if self.is_detached() {
            return;
        }
        self.set(Err(ReapError::disconnected(as_path(&self.slot.path))));
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
                return Result::clone(result);
            }
            state.waiting += 1;
            state = self.slot.completed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Blocks until the reap is complete or `timeout` has passed; `None` if it passed first.
    ///
    /// # Errors
    ///
    /// The reap's own; see [`ReapError`].
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result> {
        // If the deadline overflows the clock, there is no timeout.
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return Some(self.wait());
        };
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = &state.result {
                return Some(Result::clone(result));
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

    /// Returns the result, if the reap is complete.
    pub fn try_wait(&self) -> Option<Result> {
        self.slot.lock().result.as_deref().cloned()
    }

    /// Returns whether the reap is complete.
    pub fn is_complete(&self) -> bool {
        self.slot.lock().result.is_some()
    }

    /// Returns the first directory of the target, as an absolute path. It is for messages: another cgroup may have this name
    /// by now.
    pub fn path(&self) -> &Path {
        as_path(&self.slot.path)
    }

    pub(crate) fn is_of(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    /// Asks the reactor to stop this reap, from any thread. When the reactor handles the request, the reap ends as
    /// [`ReapError::Cancelled`], once its freeze is undone, or every thaw has failed for 10 s. A reap that has failed before, and
    /// only undoes its freeze, ends with that error. Processes that were killed stay killed. Further calls are no-ops.
    ///
    /// The reactor handles up to 256 requests and spawns in a turn, and a turn can take several calls of
    /// [`Reactor::turn`](crate::Reactor::turn). A write to `cgroup.kill` or an rmdir(2) that a helper thread has begun goes on
    /// after the end of the reap, see [`Reactor::set_helper_thread`](crate::Reactor::set_helper_thread).
    pub fn cancel(&self) {
        self.ask(Asked::Cancel);
    }

    /// Asks the reactor to send SIGKILL now, from any thread, for instance at a second Ctrl-C. When the reactor handles
    /// the request, this ends [`linger`](crate::Reaper::linger) and [`grace`](crate::Reaper::grace), and a reap
    /// [`when_empty`](crate::Reaper::when_empty) becomes one that kills. It is a no-op where SIGKILL has been sent, on a
    /// reap that was cancelled or is complete, and when called again.
    pub fn kill_now(&self) {
        self.ask(Asked::KillNow);
    }

    fn ask(&self, what: Asked) {
        if let Some(command) = self.slot.ask(what).and_then(|entry| what.command(entry)) {
            // A closed queue means a dropped reactor, which has completed the handle.
            let _ = self.queue.push(command);
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
                return Poll::Ready(Result::clone(result));
            }
            state.waker.replace(waker)
        };
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for ReapHandle {
    /// Detaches the reap. The waker is dropped with the handle, because a reap may outlive by far the task that
    /// awaited it.
    fn drop(&mut self) {
        let waker = self.slot.lock().waker.take();
        drop(waker);
    }
}

impl fmt::Debug for ReapHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReapHandle")
            .field("path", &self.path())
            .field("result", &self.slot.lock().result)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;
    use std::thread;

    use super::*;
    use crate::outcome::Outcome;
    use crate::remote::tests::queue;

    const MS: Duration = Duration::from_millis(1);

    fn id(token: usize) -> EntryId {
        EntryId::from_token(token).unwrap()
    }

    fn reaped(attempts: u32) -> Result {
        Ok(Reaped {
            outcome: Outcome::Removed,
            method: None,
            signalled: 0,
            attempts,
            released: 0,
            elapsed: MS,
        })
    }

    /// The attempts that [`reaped`] was called with.
    fn attempts(result: Option<Result>) -> Option<u32> {
        result.map(|result| result.unwrap().attempts)
    }

    /// Counts wakes, and takes the handle's lock in each, which must not deadlock.
    struct Counter {
        wakes: AtomicUsize,
        slot: Arc<Slot>,
    }

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            assert!(self.slot.lock().result.is_some());
            self.wakes.fetch_add(1, SeqCst);
        }
    }

    fn counter(handle: &ReapHandle) -> Arc<Counter> {
        Arc::new(Counter { wakes: AtomicUsize::new(0), slot: Arc::clone(&handle.slot) })
    }

    fn poll(handle: &mut ReapHandle, counter: &Arc<Counter>) -> Poll<Result> {
        let waker = Waker::from(Arc::clone(counter));
        Pin::new(handle).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn every_way_to_ask_gives_the_one_result() {
        let (queue, _poll) = queue();
        let (completer, mut handle) = channel(c"/c/a".into(), &queue);
        assert!(!handle.is_complete() && handle.try_wait().is_none());
        assert!(handle.wait_timeout(MS).is_none());
        completer.set(reaped(1));
        completer.set(reaped(2));
        completer.complete(reaped(3));
        for _ in 0..2 {
            assert!(handle.is_complete());
            assert_eq!(attempts(handle.try_wait()), Some(1));
            assert_eq!(attempts(Some(handle.wait())), Some(1));
            assert_eq!(attempts(handle.wait_timeout(Duration::ZERO)), Some(1));
            assert_eq!(attempts(handle.wait_timeout(Duration::MAX)), Some(1));
            let counter = counter(&handle);
            assert!(matches!(poll(&mut handle, &counter), Poll::Ready(Ok(_))));
        }
    }

    #[test]
    fn a_completer_that_is_dropped_disconnects() {
        let (queue, _poll) = queue();
        let (completer, handle) = channel(c"/c/a".into(), &queue);
        drop(completer);
        let error = handle.wait().unwrap_err();
        assert!(matches!(error, ReapError::Disconnected { .. }));
        assert_eq!((error.path(), handle.path()), (Some(Path::new("/c/a")), Path::new("/c/a")));
    }

    #[test]
    fn those_who_block_are_woken() {
        let (queue, _poll) = queue();
        let (completer, handle) = channel(c"/c/a".into(), &queue);
        let waiting = |n| {
            while handle.slot.lock().waiting < n {
                thread::yield_now()
            }
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| handle.wait());
            let second = scope.spawn(|| handle.wait_timeout(Duration::from_secs(3600)));
            waiting(2);
            completer.complete(reaped(4));
            assert_eq!(attempts(Some(first.join().unwrap())), Some(4));
            assert_eq!(attempts(second.join().unwrap()), Some(4));
        });
        assert_eq!(handle.slot.lock().waiting, 0);
    }

    #[test]
    fn the_last_waker_is_woken_once_and_the_others_are_dropped() {
        let (queue, _poll) = queue();
        let (completer, mut handle) = channel(c"/c/a".into(), &queue);
        let (first, second) = (counter(&handle), counter(&handle));
        assert!(poll(&mut handle, &first).is_pending());
        assert_eq!(Arc::strong_count(&first), 2);
        assert!(poll(&mut handle, &second).is_pending());
        assert_eq!(Arc::strong_count(&first), 1);
        completer.set(reaped(1));
        completer.complete(reaped(1));
        assert_eq!((first.wakes.load(SeqCst), second.wakes.load(SeqCst)), (0, 1));
        assert_eq!(Arc::strong_count(&second), 1);
    }

    #[test]
    fn a_handle_that_is_dropped_takes_its_waker_along() {
        let (queue, _poll) = queue();
        let (completer, mut handle) = channel(c"/c/a".into(), &queue);
        let counter = counter(&handle);
        assert!(poll(&mut handle, &counter).is_pending());
        drop(handle);
        assert_eq!(Arc::strong_count(&counter), 1);
        completer.complete(reaped(1));
        assert_eq!(counter.wakes.load(SeqCst), 0);
    }

    #[test]
    fn a_command_goes_to_the_entry_once() {
        let (queue, _poll) = queue();
        let (completer, handle) = channel(c"/c/a".into(), &queue);
        assert_eq!(completer.bind(id(5)), Asked::Nothing);
        for _ in 0..2 {
            handle.kill_now();
        }
        assert!(matches!(queue.pop(), Some(Command::KillNow(entry)) if entry == id(5)));
        assert!(queue.pop().is_none());
        for _ in 0..2 {
            handle.cancel();
            handle.kill_now();
        }
        assert!(matches!(queue.pop(), Some(Command::Cancel(entry)) if entry == id(5)));
        assert!(queue.pop().is_none());
        // A request that is made before there is an entry is passed to it when it is bound.
        let ask: [fn(&ReapHandle); 2] = [ReapHandle::kill_now, ReapHandle::cancel];
        for (ask, asked) in ask.into_iter().zip([Asked::KillNow, Asked::Cancel]) {
            let (completer, handle) = channel(c"/c/a".into(), &queue);
            ask(&handle);
            assert!(queue.pop().is_none());
            assert_eq!(completer.bind(id(6)), asked);
        }
        // A request after the completion has no effect.
        for ask in ask {
            let (completer, handle) = channel(c"/c/a".into(), &queue);
            assert_eq!(completer.bind(id(7)), Asked::Nothing);
            completer.complete(reaped(1));
            ask(&handle);
            assert!(queue.pop().is_none());
        }
    }

    #[test]
    fn a_handle_knows_its_reactor() {
        let ((one, _poll), (other, _other)) = (queue(), queue());
        let (_completer, handle) = channel(c"/c/a".into(), &one);
        assert!(handle.is_of(&one) && !handle.is_of(&other));
    }
}
