//! [`reap`] and [`reap_all`]: for callers without an event loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::handle::ReapHandle;
use crate::outcome::{ReapError, Reaped};
use crate::reactor::Reactor;
use crate::reaper::Reaper;

/// Reaps one target, and blocks until the reap is complete.
///
/// # Errors
///
/// Those of the reap; [`ReapError::Refused`] for a target that is refused; [`ReapError::Reactor`] if no event loop
/// can be made, for instance for lack of descriptors.
pub fn reap(reaper: Reaper) -> Result<Reaped, ReapError> {
    let mut reactor = new_reactor()?;
    let handle = reactor.spawn_reaper(reaper)?;
    reactor.run_until(&handle).map_err(failed)?
}

/// Reaps many targets at once, and blocks until every reap is complete. The results are in the order of the targets.
/// A target that is refused, or a reap that fails, does not hold up the others.
///
/// # Errors
///
/// Each target's own, as [`reap`] says; [`ReapError::Reactor`] for all if no event loop can be made, or it fails.
pub fn reap_all(reapers: impl IntoIterator<Item = Reaper>) -> Vec<Result<Reaped, ReapError>> {
    let mut reactor = match new_reactor() {
        Ok(reactor) => reactor,
        Err(error) => return reapers.into_iter().map(|_| Err(error.clone())).collect(),
    };
    let spawned: Vec<Result<ReapHandle, ReapError>> =
        reapers.into_iter().map(|reaper| Ok(reactor.spawn_reaper(reaper)?)).collect();
    let failed = reactor.run_until_idle().err().map(failed);
    // The drop completes the reaps that a failed loop has left, as `Disconnected`, so that no `wait` below
    // blocks.
    drop(reactor);
    let result = |handle: ReapHandle| match (handle.wait(), &failed) {
        (Err(ReapError::Disconnected { .. }), Some(failed)) => Err(failed.clone()),
        (result, _) => result,
    };
    spawned.into_iter().map(|handle| handle.and_then(result)).collect()
}

/// Makes a reactor for a thread that has nothing else to do: without a turn budget.
fn new_reactor() -> Result<Reactor, ReapError> {
    let mut reactor = Reactor::new().map_err(failed)?;
    reactor.set_turn_budget(Duration::MAX);
    Ok(reactor)
}

fn failed(error: io::Error) -> ReapError {
    ReapError::Reactor(Arc::new(error))
}
