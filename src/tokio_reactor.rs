//! [`TokioReactor`]: a reactor that is driven by a task of a tokio runtime.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::guard::ReapGuard;
use crate::handle::ReapHandle;
use crate::outcome::SpawnError;
use crate::reactor::Reactor;
use crate::reaper::Reaper;
use crate::remote::Remote;
use crate::sys;

/// A [`Reactor`] that a task of the tokio runtime drives. Needs the feature `tokio`.
///
/// Any task spawns reaps on it, and awaits their handles:
///
/// ```no_run
/// use cgroup_reaper::{Reaper, TokioReactor};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let reactor = TokioReactor::new()?;
/// let reaped = reactor.spawn_reaper(Reaper::at("/sys/fs/cgroup/batch/task-42"))?.await?;
/// println!("{} in {:?}", reaped.outcome, reaped.elapsed);
/// reactor.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// - A turn of the reactor works for about 1 ms ([`Reactor::set_turn_budget`]), and then completes the step that it has begun.
///   [The limitations](crate::limitations#calls-that-cannot-be-cut) list the steps that take longer. If other tasks must not
///   wait for these, run the reactor [on a thread of its own](crate::driving#a-thread-of-its-own).
/// - When the `TokioReactor` is dropped, the task stops, and reaps under way complete as
///   [`Disconnected`](crate::ReapError::Disconnected), also where the runtime does not run: before the drop returns or, if
///   the task is in a turn, at the end of the turn. [`shutdown`](TokioReactor::shutdown) cancels the reaps instead, and waits
///   until they have ended. When the runtime is dropped first, the reaps complete in the same way as in a drop.
/// - If a turn fails or panics, the task ends: all reaps complete as `Disconnected`, and later spawns are refused. Only
///   [`shutdown`](TokioReactor::shutdown) returns the error.
/// - [`Reaper::tag`] is of use only on a reactor that the caller drives: here each reap has a handle, and the task
///   discards the completions of [`Reactor::drain_completed`].
pub struct TokioReactor {
    remote: Remote,
    task: JoinHandle<io::Result<()>>,
    _shared: Shared,
}

impl TokioReactor {
    /// Makes a reactor, and starts a task that drives it on the runtime that this is called from.
    ///
    /// # Errors
    ///
    /// As [`TokioReactor::drive`], and those of [`Reactor::new`].
    ///
    /// # Panics
    ///
    /// As [`TokioReactor::drive`].
    pub fn new() -> io::Result<TokioReactor> {
        TokioReactor::drive(Reactor::new()?)
    }

    /// Starts a task that drives this reactor, for instance one whose turn budget was set, on the runtime that this is called
    /// from.
    ///
    /// # Errors
    ///
    /// If it is called from outside a runtime, and those of dup(2) and epoll_ctl(2).
    ///
    /// # Panics
    ///
    /// If the runtime has no I/O: build it with `enable_io` or `enable_all`.
    pub fn drive(reactor: Reactor) -> io::Result<TokioReactor> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let remote = reactor.remote();
        let readiness = sys::readable_in_tokio(reactor.as_fd().try_clone_to_owned()?)?;
        let slot = Arc::new(Mutex::new(Slot { reactor: Some(reactor), dropped: false }));
        let task = runtime.spawn(turn_until_stopped(Shared(Arc::clone(&slot)), readiness));
        Ok(TokioReactor { remote, task, _shared: Shared(slot) })
    }

    /// Hands a reap to the reactor. The checks are made before this returns, and can take long for a target of very many
    /// cgroups: see [`Remote::spawn_reaper`].
    ///
    /// # Errors
    ///
    /// As [`Remote::spawn_reaper`].
    pub fn spawn_reaper(&self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        self.remote.spawn_reaper(reaper)
    }

    /// Makes a guard: when it is dropped, the reactor reaps the cgroup, see [`Remote::guard`].
    ///
    /// # Errors
    ///
    /// As [`Remote::guard`].
    pub fn guard(&self, reaper: Reaper) -> Result<ReapGuard, SpawnError> {
        self.remote.guard(reaper)
    }

    /// Returns a [`Remote`], which other tasks and threads can own. Its [`stop`](Remote::stop) has the task do what
    /// [`shutdown`](TokioReactor::shutdown) does, and does not wait.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Cancels all reaps, and returns once they have ended, with nothing left frozen. If a target cannot be thawed, this
    /// takes 10 s. Later spawns by a [`Remote`] are refused.
    ///
    /// If the future is dropped before it completes, the reaps that are left end as in a drop of the
    /// `TokioReactor`.
    ///
    /// # Errors
    ///
    /// The error of the turn that ended the task, see [`Reactor::turn`]. An error of kind `Other` that contains tokio's
    /// `JoinError` if the task panicked or the runtime was shut down.
    pub async fn shutdown(mut self) -> io::Result<()> {
        self.remote.stop();
        (&mut self.task).await.map_err(io::Error::other)?
    }
}

/// The reactor, shared by the `TokioReactor` and the task. The first of the two that is dropped drops the reactor: a runtime
/// that does not run keeps an aborted task, and would keep a reactor that the task owns.
struct Shared(Arc<Mutex<Slot>>);

struct Slot {
    /// `None` while the task has the reactor, for one turn.
    reactor: Option<Reactor>,
    dropped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        // No code of a reactor runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the reactor for a turn. `None` if it was dropped.
    fn take(&self) -> Option<Reactor> {
        self.lock().reactor.take()
    }

    /// Gives the reactor back after the turn, or drops it if the `TokioReactor` was dropped meanwhile.
    fn give_back(&self, reactor: Reactor) {
        let mut slot = self.lock();
        if !slot.dropped {
            slot.reactor = Some(reactor);
        }
        // The lock, a local variable, is released before the reactor, a parameter, is dropped.
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut slot = self.lock();
        slot.dropped = true;
        let reactor = slot.reactor.take();
        // Not under the lock: the drop of a reactor wakes tasks.
        drop(slot);
        drop(reactor);
    }
}

/// Runs the task. It returns when the reactor was stopped and no reap is left, or when the reactor was dropped.
async fn turn_until_stopped(shared: Shared, readiness: AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = readiness.readable().await?;
        let Some(mut reactor) = shared.take() else {
            return Ok(());
        };
        reactor.turn(Some(Duration::ZERO))?;
        reactor.drain_completed().for_each(drop);
        if reactor.is_stopped() && reactor.cancel_all() == 0 {
            return Ok(());
        }
        shared.give_back(reactor);
        // This clears only the readiness that the guard has seen. Readiness that came later, during the turn,
        // stays set.
        ready.clear_ready();
        // `readable` itself does not yield, however many turns follow one another.
        tokio::task::yield_now().await;
    }
}

impl Drop for TokioReactor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for TokioReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioReactor").field("finished", &self.task.is_finished()).finish_non_exhaustive()
    }
}
