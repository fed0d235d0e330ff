//! `cgr_remote`: spawns from other threads.

use std::ffi::c_int;

use cgroup_reaper::Remote;

use crate::call::call;
use crate::handle::{self, cgr_handle};
use crate::memory;
use crate::object::{self, object};
use crate::reactor::cgr_reactor;
use crate::reaper::cgr_reaper;
use crate::result::cgr_result;

/// Spawns reaps on a reactor from other threads: an object that its owner frees with `cgr_remote_free`. Any number of threads
/// may use it at once. It does not keep the reactor alive.
#[derive(Debug)]
pub struct cgr_remote {
    remote: Remote,
}

object!(cgr_remote, 4);

/// Makes a remote of a reactor. Returns 0, and the remote in `*remote`, which the caller owns.
///
/// Any thread, also while another is in a call with the reactor. -EINVAL for NULL, -EBADF after the reactor was freed;
/// `*remote` is NULL after a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_remote_new(reactor: *const cgr_reactor, remote: *mut *mut cgr_remote) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let made = unsafe { memory::place(remote) }?.write(std::ptr::null_mut());
        *made = object::new(cgr_remote { remote: object::get(reactor)?.remote() });
        Ok(0)
    })
}

/// Frees a remote. What it has handed over goes on.
///
/// Any thread. NULL, and a remote that was freed before, are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_remote_free(remote: *mut cgr_remote) {
    call(|| {
        object::free(remote);
        Ok(())
    })
}

/// Checks the target on this thread, and hands its reap to the reactor, which starts it in its next turn: its descriptor
/// becomes readable for it. Returns and writes what `cgr_reactor_spawn` does, and -EPIPE with an error object of the kind
/// CGR_DISCONNECTED if the reactor was freed.
///
/// Any thread. The reaper stays the caller's. -EINVAL if `remote` or `reaper` is NULL, -EBADF after either was freed, both
/// without an error object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_remote_spawn(
    remote: *const cgr_remote,
    reaper: *const cgr_reaper,
    handle: *mut *mut cgr_handle,
    error: *mut *mut cgr_result,
) -> c_int {
    let spawn = |reaper| Ok(object::get(remote)?.remote.spawn_reaper(reaper));
    // SAFETY: the caller says that each is NULL or can be written.
    call(|| unsafe { handle::spawn(spawn, reaper, handle, error) })
}
