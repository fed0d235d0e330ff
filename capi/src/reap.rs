//! `cgr_reap`: for callers without an event loop.

use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

use cgroup_reaper::{Completed, Reactor, ReapError};

use crate::call::call;
use crate::error::Errno;
use crate::memory;
use crate::object;
use crate::reaper::{self, Plan, cgr_reaper};
use crate::result::cgr_result;

/// Reaps one target, and blocks until that has ended. Returns 0 if every process is dead; else minus the errno that is the
/// cause, or one that fits the kind, as for `cgr_reactor_spawn`: -ETIMEDOUT, -ESTALE (CGR_REPLACED), -EAGAIN
/// (CGR_FROZEN_BY_ANCESTOR). In either case `*result` has the details, and is the caller's to free; `result` may be NULL.
///
/// Any thread, but not that of an event loop, which would stand still. The reaper stays the caller's. -EINVAL if `reaper` is
/// NULL, -EBADF after it was freed, both with NULL in `*result`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reap(reaper: *const cgr_reaper, result: *mut *mut cgr_result) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let mut place = unsafe { memory::optional_place(result) };
        if let Some(place) = &mut place {
            place.write(std::ptr::null_mut());
        }
        let plan = reaper::plan(reaper)?;
        let tag = plan.tag;
        let ended = reap(plan).unwrap_or_else(|error| cgr_result::of_error(tag, error));
        let answer = ended.failure().map_or(Ok(0), |error| Err(Errno::from(error)));
        if let Some(place) = place {
            place.write(object::new(ended));
        }
        answer
    })
}

/// As [`cgroup_reaper::reap`], with the path of what was reaped.
fn reap(plan: Plan) -> Result<cgr_result, ReapError> {
    let failed = |error| ReapError::Reactor(Arc::new(error));
    let mut reactor = Reactor::new().map_err(failed)?;
    // Nothing else waits for this loop.
    reactor.set_turn_budget(Duration::MAX);
    let handle = reactor.spawn_reaper(plan.reaper)?;
    let result = reactor.run_until(&handle).map_err(failed)?;
    Ok(cgr_result::new(Completed::new(plan.tag, handle.path(), result)))
}
