//! For callers without a loop: [`reap`] and [`reap_all`].

use crate::handle::ReapHandle;
use crate::outcome::{ReapError, Reaped};
use crate::reactor::Reactor;
use crate::reaper::Reaper;

/// Reaps one target, and returns when that is done.
///
/// # Errors
///
/// The reap's own, [`ReapError::Refused`] for a target that is not to be reaped, and
/// [`ReapError::Reactor`] if there is no descriptor left to make an event loop with.
pub fn reap(reaper: Reaper) -> Result<Reaped, ReapError> {
    reap_all([reaper]).pop().unwrap_or(Err(ReapError::Disconnected))
}

/// Reaps many targets at once, and returns when the last is done; the results are in the order of the
/// targets. One that is refused or fails does not hold up the others.
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
    // What a failed loop left undone is disconnected by this, so that no wait below hangs.
    drop(reactor);
    let result = |handle: ReapHandle| match (handle.wait(), &failed) {
        (Err(ReapError::Disconnected), Some(failed)) => Err(failed.clone()),
        (result, _) => result,
    };
    spawned.into_iter().map(|handle| handle.and_then(result)).collect()
}
