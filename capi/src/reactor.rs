//! `cgr_reactor`: the event loop, one descriptor in the loop of the caller's.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use cgroup_reaper::{Reactor, Remote};

use crate::call::call;
use crate::error::Errno;
use crate::handle::{self, cgr_handle};
use crate::memory;
use crate::metrics::cgr_metrics;
use crate::object::{self, object};
use crate::reaper::cgr_reaper;
use crate::result::cgr_result;
use crate::time::{CGR_FOREVER, duration, micros_at_least, wait};

/// An event loop that reaps cgroups: an object that its owner frees with `cgr_reactor_free`. It works only while one of its
/// functions runs, and has threads of its own only where it is asked for them. One thread at a time may call them, not always
/// the same; a call while another thread is in one returns -EBUSY. Other threads spawn by a `cgr_remote`.
#[derive(Debug)]
pub struct cgr_reactor {
    reactor: Mutex<Reactor>,
    /// Set when it is freed: a thread may have found it before, and not called it yet.
    freed: AtomicBool,
    fd: RawFd,
    /// So that a remote can be had while another thread is in a turn.
    remote: Remote,
}

object!(cgr_reactor, 3);

impl cgr_reactor {
    fn lock(&self) -> Result<MutexGuard<'_, Reactor>, Errno> {
        let reactor = self.reactor.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Errno::BUSY,
            TryLockError::Poisoned(_) => Errno::PANIC,
        })?;
        if self.freed.load(Ordering::SeqCst) { Err(Errno::FREED) } else { Ok(reactor) }
    }

    /// Ends the wait of another thread in a turn, if there is one, and lets none wait from here on.
    fn end(&self) {
        self.freed.store(true, Ordering::SeqCst);
        self.remote.stop();
    }

    pub(crate) fn remote(&self) -> Remote {
        self.remote.clone()
    }
}

/// A number for C.
fn count(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// Makes a reactor. It holds some descriptors. Returns 0, and the reactor in `*reactor`, which the caller owns. A forked child
/// must not use it.
///
/// Any thread. -EINVAL for NULL, -EMFILE, -ENFILE, -ENOMEM; `*reactor` is NULL after a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reactor_new(reactor: *mut *mut cgr_reactor) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let made = unsafe { memory::place(reactor) }?.write(std::ptr::null_mut());
        let reactor = Reactor::new()?;
        let (fd, remote) = (reactor.as_raw_fd(), reactor.remote());
        *made = object::new(cgr_reactor {
            reactor: Mutex::new(reactor),
            freed: AtomicBool::new(false),
            fd,
            remote,
        });
        Ok(0)
    })
}

/// Frees a reactor, and closes its descriptor: stop watching that first. Reaps under way end as CGR_DISCONNECTED, with nothing
/// left frozen; `cgr_reactor_shutdown` ends them in order. Results, handles and remotes stay the caller's.
///
/// Any thread; if another is in a call with this reactor, the end of that call frees it. A `cgr_reactor_turn` in which
/// another thread waits returns. NULL, and a reactor that was freed before, are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_free(reactor: *mut cgr_reactor) {
    call(|| {
        // Removed first: the thread whose turn this ends may call the next at once, which would wait for ever.
        if let Some(reactor) = object::remove(reactor) {
            reactor.end();
        }
        Ok(())
    })
}

/// Returns the descriptor that is readable when there is something to do: call `cgr_reactor_turn(reactor, 0)` then. Watch it
/// for reading, level- or edge-triggered; never read from it. It is the same as long as the reactor lives, and the reactor's:
/// do not close it.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_fd(reactor: *const cgr_reactor) -> c_int {
    call(|| Ok(object::get(reactor)?.fd))
}

/// Waits up to `wait_us` microseconds for something to do (0: not at all; CGR_FOREVER: without limit), and does it. Returns
/// how many reaps have ended since the last turn. It works for about 1 ms, see `cgr_reactor_set_turn_budget`; what is left
/// makes the descriptor readable again. Extra calls do no harm. While there are results to be taken by `cgr_reactor_drain`, it
/// does not wait.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed; else the errno of epoll_wait(2), never EINTR.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_turn(reactor: *mut cgr_reactor, wait_us: u64) -> c_int {
    call(|| Ok(count(object::get(reactor)?.lock()?.turn(wait(wait_us))?)))
}

/// Writes to `*us` in how many microseconds the next timer is due: 0 if the next turn has something to do, CGR_FOREVER without
/// a timer. For loops that plan ahead; the descriptor covers timers by itself. Returns 0.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reactor_next_deadline(reactor: *const cgr_reactor, us: *mut u64) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let place = unsafe { memory::place(us) }?;
        let due = object::get(reactor)?.lock()?.next_deadline();
        let left = |due: Instant| micros_at_least(due.saturating_duration_since(Instant::now()));
        place.write(due.map_or(CGR_FOREVER, left));
        Ok(0)
    })
}

/// Sets how long a turn or a spawn works before it defers the rest, in microseconds. Default: 1000. CGR_FOREVER: without
/// limit; 0: one step of work. Returns 0.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_set_turn_budget(reactor: *mut cgr_reactor, us: u64) -> c_int {
    call(|| {
        object::get(reactor)?.lock()?.set_turn_budget(duration(us));
        Ok(0)
    })
}

/// Has a thread of the reactor's own make the calls that cannot be cut: the writes to cgroup.kill that reach many members, so
/// that the spawn of such a target returns before they are killed, and rmdir(2), which waits while another process reads the
/// parent directory. Default: false: the members are signalled in steps where the kernel allows that (Linux 6.13), else the
/// spawn or the turn makes the write, and the turn removes the directory. The thread takes no signals of the process, and
/// ends with the reactor. Returns 0.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_set_helper_thread(reactor: *mut cgr_reactor, wanted: bool) -> c_int {
    call(|| {
        object::get(reactor)?.lock()?.set_helper_thread(wanted);
        Ok(0)
    })
}

/// Returns how many reaps are under way.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_len(reactor: *const cgr_reactor) -> c_int {
    call(|| Ok(count(object::get(reactor)?.lock()?.len())))
}

/// Writes the counters of what was done so far to `*metrics`, which has `size` bytes: pass sizeof(cgr_metrics). Returns 0.
///
/// One thread at a time: -EBUSY. `*metrics` is the caller's. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reactor_metrics(
    reactor: *const cgr_reactor,
    metrics: *mut cgr_metrics,
    size: usize,
) -> c_int {
    call(|| {
        let counted = cgr_metrics::from(&object::get(reactor)?.lock()?.metrics());
        // SAFETY: the caller says that `metrics` is NULL or has `size` bytes.
        unsafe { memory::write_sized(metrics, size, &counted) }?;
        Ok(0)
    })
}

/// Starts a reap: checks the target, and makes the first attempt to kill. The reap may have ended when this returns. Returns
/// 0, and its handle in `*handle`, which the caller owns; `handle` may be NULL where a tag is enough. A target that does not
/// exist is no error: its reap ends as CGR_ALREADY_GONE.
///
/// If the target is refused, nothing was touched: `*error` says why, and is the caller's to free; `error` may be NULL. The
/// return value is minus the errno of the call that failed or, without one, -EPERM (the root of a hierarchy, or the caller's
/// own cgroup), -ELOOP (a symbolic link), -ENOTTY (no cgroup), -ENOENT (no such directory, and the nearest one above it that
/// exists is no cgroup), -EOPNOTSUPP (the method has nothing to work with), or -EINVAL (a name or a wait that is not allowed).
/// After a failure, `*handle` is NULL; `*error` is NULL unless the target was refused.
///
/// One thread at a time: -EBUSY. The reaper stays the caller's. -EINVAL if `reactor` or `reaper` is NULL, -EBADF after
/// either was freed, both without an error object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reactor_spawn(
    reactor: *mut cgr_reactor,
    reaper: *const cgr_reaper,
    handle: *mut *mut cgr_handle,
    error: *mut *mut cgr_result,
) -> c_int {
    let spawn = |reaper| Ok(object::get(reactor)?.lock()?.spawn_reaper(reaper));
    // SAFETY: the caller says that each is NULL or can be written.
    call(|| unsafe { handle::spawn(spawn, reaper, handle, error) })
}

/// Asks all reaps with this tag to stop, as `cgr_handle_cancel` does. Returns how many there are.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_cancel(reactor: *mut cgr_reactor, tag: u64) -> c_int {
    call(|| Ok(count(object::get(reactor)?.lock()?.cancel(tag))))
}

/// Asks all reaps with this tag to send SIGKILL now, as `cgr_handle_kill_now` does. Returns how many there are.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_kill_now(reactor: *mut cgr_reactor, tag: u64) -> c_int {
    call(|| Ok(count(object::get(reactor)?.lock()?.kill_now(tag))))
}

/// Takes up to `capacity` reaps with a tag that have ended, in the order in which they ended, and writes their results to
/// `results`. Returns how many; fewer than `capacity` if no more have ended. Each is handed out once, and the caller owns it.
/// Until the last is taken the descriptor is readable, and a turn does not wait.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL and for a capacity of 0, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reactor_drain(
    reactor: *mut cgr_reactor,
    results: *mut *mut cgr_result,
    capacity: usize,
) -> c_int {
    call(|| {
        // More than that could not be returned.
        let capacity = capacity.min(c_int::MAX as usize);
        // SAFETY: the caller says that it is NULL or that so many can be written.
        let places = unsafe { memory::places(results, capacity) }?;
        if places.is_empty() {
            return Err(Errno::INVALID);
        }
        let object = object::get(reactor)?;
        let mut reactor = object.lock()?;
        // The places come first: a reap that is taken has one.
        let taken = places.iter_mut().zip(reactor.drain_completed());
        let taken = taken.map(|(place, ended)| place.write(object::new(cgr_result::new(ended)))).count();
        Ok(count(taken))
    })
}

/// Cancels all reaps, and works until none is left or `at_most_us` microseconds have passed. Returns how many are left: 0,
/// unless the time was too short, or something stays frozen that cannot be thawed. For the end of a program, before
/// `cgr_reactor_free`.
///
/// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed; else the errno of epoll_wait(2).
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reactor_shutdown(reactor: *mut cgr_reactor, at_most_us: u64) -> c_int {
    call(|| Ok(count(object::get(reactor)?.lock()?.shutdown(duration(at_most_us))?)))
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    /// A thread has found the reactor, and comes to its turn after another has freed it.
    #[test]
    fn a_turn_that_begins_after_the_end_does_not_wait() {
        let mut reactor = ptr::null_mut();
        // SAFETY: the pointer can be written.
        assert_eq!(unsafe { cgr_reactor_new(&mut reactor) }, 0);
        let found = object::get(reactor).expect("it is alive");
        cgr_reactor_free(reactor);
        // The turn of a third thread takes the command to stop.
        let mut waiting = found.reactor.try_lock().expect("no other thread");
        waiting.turn(None).expect("no error");
        drop(waiting);
        assert!(matches!(found.lock(), Err(Errno::FREED)));
    }
}
