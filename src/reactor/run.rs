//! A reactor's own loops: [`Reactor::run`] and the like.

use std::io;
use std::time::{Duration, Instant};

use super::{LONGEST, Reactor};
use crate::handle::ReapHandle;
use crate::outcome::{ReapError, Reaped};
#[allow(unused_imports, reason = "for links")]
use crate::remote::Remote;

impl Reactor {
    /// Makes turns as long as `go_on` returns true.
    fn run_while(&mut self, go_on: impl Fn(&mut Reactor) -> bool) -> io::Result<()> {
        self.running(|reactor| {
            while go_on(reactor) {
                reactor.turn_of_run()?;
            }
            Ok(())
        })
    }

    /// Makes one turn of a run.
    fn turn_of_run(&mut self) -> io::Result<usize> {
        self.turn_within(None, self.turn_budget.unwrap_or(Duration::MAX))
    }

    /// Calls `run`, with `is_running` set.
    fn running<T>(&mut self, run: impl FnOnce(&mut Reactor) -> T) -> T {
        self.is_running = true;
        run(&mut *Running(self).0)
    }

    /// Runs until [`Remote::stop`] is called, whether or not reaps are left: such reaps go on in the next turn. If `stop`
    /// was called since the last `run` returned, this returns at once.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run(&mut self) -> io::Result<()> {
        self.run_while(|reactor| !std::mem::take(&mut reactor.stopped))
    }

    /// Runs until no reap is left, including those that a [`Remote`] has handed over. [`Remote::stop`] does not end it; the
    /// next [`run`](Reactor::run) returns at once then.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run_until_idle(&mut self) -> io::Result<()> {
        self.run_while(|reactor| !reactor.is_empty() || !reactor.queue.is_empty())
    }

    /// Cancels all reaps, including those that a [`Remote`] hands over meanwhile, and runs until none is left or `at_most`
    /// is over. Returns how many reaps are left, with those that a [`Remote`] has handed over and that have not begun: 0,
    /// unless the time was too short, or a target cannot be thawed.
    ///
    /// `Duration::ZERO` makes one turn, which cancels 256 reaps at the most; a turn under way is finished before. A turn has
    /// no budget here, so that the last one can end after `at_most`.
    ///
    /// For the end of a program, before the reactor is dropped: the reaps end as [`ReapError::Cancelled`], with nothing left
    /// frozen, or with their results if they end first. A drop of the reactor does not wait: the reaps end as
    /// [`ReapError::Disconnected`], after at most three tries to thaw each.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn shutdown(&mut self, at_most: Duration) -> io::Result<usize> {
        let end = Instant::now().checked_add(at_most);
        let left = || end.map_or(LONGEST, |end| end.saturating_duration_since(Instant::now()));
        self.running(|reactor| {
            let mut is_over = false;
            loop {
                let reaps = reactor.cancel_all();
                if reaps == 0 || is_over {
                    return Ok(reaps);
                }
                if reactor.entries.is_in_turn() {
                    // The rest of a turn takes no further commands.
                    reactor.turn_within(Some(Duration::ZERO), Duration::MAX)?;
                }
                let left = left();
                reactor.turn_within(Some(left), Duration::MAX)?;
                is_over = left.is_zero();
            }
        })
    }

    /// Runs until the reap of `handle` is complete, and returns its result, which the handle keeps too. On the thread that
    /// drives the reactor, this is the way to wait for a reap. Other reaps make progress meanwhile. [`Remote::stop`] does
    /// not end it; the next [`run`](Reactor::run) returns at once then.
    ///
    /// # Errors
    ///
    /// The outer error is one of [`turn`](Reactor::turn), or `InvalidInput` for a handle of another reactor. The inner
    /// error is the reap's own.
    pub fn run_until(&mut self, handle: &ReapHandle) -> io::Result<Result<Reaped, ReapError>> {
        if !handle.is_of(&self.queue) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a handle of another reactor"));
        }
        self.running(|reactor| {
            loop {
                if let Some(result) = handle.try_wait() {
                    return Ok(result);
                }
                reactor.turn_of_run()?;
            }
        })
    }
}

/// A run. When it ends, also by a waker's panic, the descriptor covers undrained completions again.
struct Running<'a>(&'a mut Reactor);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running = false;
        self.0.arm();
    }
}
