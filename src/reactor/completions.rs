//! The reaps that have ended: how many since the last turn, and those with tags, until the caller takes them.

use super::Reactor;
use crate::outcome::Completed;
#[allow(unused_imports, reason = "for links")]
use crate::reaper::Reaper;

impl Reactor {
    /// Yields the reaps with a [`tag`](Reaper::tag) that have ended, in a turn or in a spawn, in the order in which they
    /// ended. Each is yielded once. Cancelled reaps are among them, reaps without a tag are not.
    ///
    /// Until the iterator has yielded the last one, the descriptor is readable, and [`turn`](Reactor::turn) does not wait. If
    /// the iterator is dropped before, the rest stays for the next call.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let mut reactor = cgroup_reaper::Reactor::new()?;
    /// // Where the loop calls `turn`:
    /// reactor.turn(Some(std::time::Duration::ZERO))?;
    /// for ended in reactor.drain_completed() {
    ///     println!("job {}: {:?}", ended.tag, ended.result);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain_completed(&mut self) -> impl Iterator<Item = Completed> {
        Drain(self)
    }

    /// Whether the descriptor is to be readable because of completions that the caller has not drained.
    pub(super) fn has_undrained(&self) -> bool {
        !self.is_running && self.entries.has_completed()
    }

    /// Whether a turn has something to return, or the caller something to drain, without any work.
    pub(super) fn has_ended_reaps(&self) -> bool {
        self.entries.metrics.completed != self.counted || self.has_undrained()
    }

    /// Returns how many reaps have completed since the last call.
    pub(super) fn count_ended(&mut self) -> u64 {
        let completed = self.entries.metrics.completed;
        completed - std::mem::replace(&mut self.counted, completed)
    }
}

/// Takes the reaps that have ended out of a reactor.
struct Drain<'a>(&'a mut Reactor);

impl Iterator for Drain<'_> {
    type Item = Completed;

    fn next(&mut self) -> Option<Completed> {
        self.0.entries.take_completed()
    }
}

impl Drop for Drain<'_> {
    /// Sets the alarm anew: if nothing is left, it need not fire; else an edge-triggered outer loop is notified again.
    fn drop(&mut self) {
        self.0.rearm();
    }
}
