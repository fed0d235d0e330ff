//! `cgr_handle`: one reap under way.

use std::ffi::c_int;
use std::ptr;

use cgroup_reaper::{Completed, ReapError, ReapHandle, Reaped, Reaper, SpawnError};

use crate::call::call;
use crate::error::Errno;
use crate::memory;
use crate::object::{self, object};
use crate::reaper::{self, Plan, cgr_reaper};
use crate::result::cgr_result;
use crate::time::wait;

/// One reap under way, or one that has ended: an object that its owner frees with `cgr_handle_free`. Any thread may use it. It
/// does not keep the reactor alive.
#[derive(Debug)]
pub struct cgr_handle {
    handle: ReapHandle,
    tag: u64,
}

object!(cgr_handle, 2);

impl cgr_handle {
    fn result(&self, result: Result<Reaped, ReapError>) -> *mut cgr_result {
        object::new(cgr_result::new(Completed::new(self.tag, self.handle.path(), result)))
    }
}

/// Frees a handle. The reap goes on.
///
/// Any thread. NULL, and a handle that was freed before, are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_handle_free(handle: *mut cgr_handle) {
    call(|| {
        object::free(handle);
        Ok(())
    })
}

/// Asks the reactor to stop this reap: when the reactor handles the request, the reap ends as CGR_CANCELLED, once its freeze is
/// undone, or each thaw has failed for 10 s. A reap that has failed before, and only undoes its freeze, ends with that failure.
/// The reactor handles up to 256 requests and spawns in a turn, and a turn can take several calls. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_handle_cancel(handle: *mut cgr_handle) -> c_int {
    call(|| {
        object::get(handle)?.handle.cancel();
        Ok(0)
    })
}

/// Asks the reactor to send SIGKILL now: when the reactor handles the request, this ends linger and grace, and a reap
/// `when_empty` becomes one that kills. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_handle_kill_now(handle: *mut cgr_handle) -> c_int {
    call(|| {
        object::get(handle)?.handle.kill_now();
        Ok(0)
    })
}

/// Waits up to `wait_us` microseconds (0: not at all; CGR_FOREVER: without limit) until the reap has ended. Returns 1, and the
/// result in `*result`, which the caller owns and which is another object each time; 0, and NULL in `*result`, if it has not
/// ended.
///
/// Any thread; to wait on the one that calls `cgr_reactor_turn` is a deadlock. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_handle_wait(
    handle: *mut cgr_handle,
    wait_us: u64,
    result: *mut *mut cgr_result,
) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let place = unsafe { memory::place(result) }?.write(ptr::null_mut());
        let object = object::get(handle)?;
        let ended = match wait(wait_us) {
            None => Some(object.handle.wait()),
            Some(time) if time.is_zero() => object.handle.try_wait(),
            Some(time) => object.handle.wait_timeout(time),
        };
        Ok(match ended {
            None => 0,
            Some(ended) => {
                *place = object.result(ended);
                1
            }
        })
    })
}

/// Spawns what a reaper says, and gives the caller its handle, or why it was refused. Either place may be missing.
///
/// # Safety
///
/// `handle` and `error` are NULL, or aligned and good for writes.
pub(crate) unsafe fn spawn(
    spawn: impl FnOnce(Reaper) -> Result<Result<ReapHandle, SpawnError>, Errno>,
    reaper: *const cgr_reaper,
    handle: *mut *mut cgr_handle,
    error: *mut *mut cgr_result,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's promise.
    let (handle, error) = unsafe { (memory::optional_place(handle), memory::optional_place(error)) };
    // Before anything can fail.
    let handle = handle.map(|place| place.write(ptr::null_mut()));
    let error = error.map(|place| place.write(ptr::null_mut()));
    let Plan { reaper, tag } = reaper::plan(reaper)?;
    match spawn(reaper)? {
        Ok(spawned) => {
            if let Some(place) = handle {
                *place = object::new(cgr_handle { handle: spawned, tag });
            }
            Ok(0)
        }
        Err(refused) => {
            let refused = ReapError::from(refused);
            let errno = Errno::from(&refused);
            if let Some(place) = error {
                *place = object::new(cgr_result::of_error(tag, refused));
            }
            Err(errno)
        }
    }
}
