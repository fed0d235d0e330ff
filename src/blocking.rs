//! [`reap`] and [`reap_all`]: for callers without an event loop.

use crate::handle::ReapHandle;
use crate::outcome::{Effort, ReapError, Reaped};
use crate::reactor::Reactor;
use crate::reaper::Reaper;

/// Reaps one target, and blocks until the reap is complete.
///
/// # Errors
///
/// Those of the reap; [`ReapError::Refused`] for a target that is refused; [`ReapError::Reactor`] if no event loop
/// can be made, for instance for lack of descriptors.
pub fn reap(reaper: Reaper) -> Result<Reaped, ReapError> {
    reap_all([reaper]).pop().unwrap_or(Err(ReapError::Disconnected { effort: Effort::default() }))
}

/// Reaps many targets at once, and blocks until every reap is complete. The results are in the order of the targets.
/// A target that is refused, or a reap that fails, does not hold up the others.
pub fn reap_all(reapers: impl IntoIterator<Item = Reaper>) -> Vec<Result<Reaped, ReapError>> {
    let mut reactor = match Reactor::new() {
        Ok(reactor) => reactor,
        Err(error) => {
            let failed = ReapError::Reactor(error);
            return reapers.into_iter().map(|_| Err(failed.clone())).collect();
        }
    };
    let spawned: Vec<Result<ReapHandle, ReapError>> = reapers
        .into_iter()
        .map(|reaper| {
            reactor.spawn_reaper(reaper).map_err(|error| ReapError::Refused(error.refusal().clone()))
        })
        .collect();
    let failed = reactor.run_until_idle().err().map(ReapError::Reactor);
    // Reaps that a failed loop left undone are disconnected by this, so that no wait below blocks.
    drop(reactor);
    let result = |handle: ReapHandle| match (handle.wait(), &failed) {
        (Err(ReapError::Disconnected { .. }), Some(failed)) => Err(failed.clone()),
        (result, _) => result,
    };
    spawned.into_iter().map(|handle| handle.and_then(result)).collect()
}
