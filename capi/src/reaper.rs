//! `cgr_reaper`: what to reap, and how.

use std::ffi::{c_char, c_int};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use cgroup_reaper::{CgroupOptions, KillMethod, Reaper, Signal};

use crate::call::call;
use crate::error::Errno;
use crate::memory;
use crate::object::{self, object};
use crate::time::duration;

/// What to reap, and how: an object that its owner frees with `cgr_reaper_free`. A spawn reads it and does not keep it, so
/// that one may serve many spawns. Any thread may use it; a call waits for those of other threads.
#[derive(Debug)]
pub struct cgr_reaper {
    plan: Mutex<Plan>,
}

object!(cgr_reaper, 1);

/// A reaper, and what it cannot be asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) reaper: Reaper,
    pub(crate) tag: u64,
}

impl Plan {
    /// The change is that of a builder, which takes its reaper by value.
    fn change(&mut self, change: impl FnOnce(Reaper) -> Reaper) {
        let reaper = std::mem::replace(&mut self.reaper, Reaper::at(""));
        self.reaper = change(reaper);
    }
}

impl cgr_reaper {
    fn of(reaper: Reaper) -> *mut cgr_reaper {
        object::new(cgr_reaper { plan: Mutex::new(Plan { reaper, tag: 0 }) })
    }

    fn lock(&self) -> Result<MutexGuard<'_, Plan>, Errno> {
        self.plan.lock().map_err(|_| Errno::PANIC)
    }
}

/// What this reaper says now.
pub(crate) fn plan(reaper: *const cgr_reaper) -> Result<Plan, Errno> {
    Ok(object::get(reaper)?.lock()?.clone())
}

/// Changes what it says.
fn change(reaper: *mut cgr_reaper, change: impl FnOnce(Reaper) -> Reaper) -> c_int {
    call(|| {
        object::get(reaper)?.lock()?.change(change);
        Ok(0)
    })
}

/// How to kill: `cgr_reaper_method`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum cgr_method {
    /// The cheapest safe way first, whatever the kernel has. The default.
    CGR_METHOD_AUTO = 0,
    /// Only cgroup.kill (v2, Linux 5.14).
    CGR_METHOD_CGROUP_KILL = 1,
    /// Freeze, kill, thaw.
    CGR_METHOD_FREEZER = 2,
    /// Only verified pidfds, never frozen.
    CGR_METHOD_PIDFD = 3,
}

/// Makes a reaper of the one cgroup directory `path`, v1 or v2, with the defaults. Nothing is read or touched before a spawn.
/// The path is bytes that end with a 0, in no particular encoding, and is copied. Returns 0, and the reaper in `*reaper`,
/// which the caller owns.
///
/// Any thread. -EINVAL if either is NULL; `*reaper` is NULL after a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reaper_new(path: *const c_char, reaper: *mut *mut cgr_reaper) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let made = unsafe { memory::place(reaper) }?.write(std::ptr::null_mut());
        // SAFETY: the caller says that it is NULL or ends with a 0.
        *made = cgr_reaper::of(Reaper::at(unsafe { memory::path(path) }?));
        Ok(0)
    })
}

/// Makes a reaper of the one cgroup directory that `fd` is open on; O_PATH is enough. This directory is the target, even if
/// its path leads to another one by the time of the spawn. The descriptor is duplicated; the caller keeps its own, and
/// closes it. Returns 0, and the reaper in `*reaper`, which the caller owns.
///
/// Any thread. -EINVAL if `reaper` is NULL, -EBADF if `fd` is not open, -EMFILE; `*reaper` is NULL after a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reaper_new_fd(fd: c_int, reaper: *mut *mut cgr_reaper) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let made = unsafe { memory::place(reaper) }?.write(std::ptr::null_mut());
        if fd < 0 {
            return Err(Errno::FREED);
        }
        // SAFETY: not -1, and used for one fcntl(2) alone, which fails if it is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        *made = cgr_reaper::of(Reaper::at_fd(fd.try_clone_to_owned()?));
        Ok(0)
    })
}

/// Makes a reaper of the cgroups with one name in several v1 hierarchies, `root/SUBSYSTEM/slice/name`, or of the one cgroup
/// `root/slice/name` where `subsystems` is NULL. `slice` may be NULL: none. The names are bytes that end with a 0, in no
/// particular encoding, and are copied. Returns 0, and the reaper in `*reaper`, which the caller owns.
///
/// Any thread. -EINVAL if `root`, `name`, `reaper` or one of the `subsystem_count` subsystems is NULL; `*reaper` is NULL after
/// a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_reaper_new_named(
    root: *const c_char,
    slice: *const c_char,
    subsystems: *const *const c_char,
    subsystem_count: usize,
    name: *const c_char,
    reaper: *mut *mut cgr_reaper,
) -> c_int {
    call(|| {
        // SAFETY: the caller says that it is NULL or can be written.
        let made = unsafe { memory::place(reaper) }?.write(std::ptr::null_mut());
        // SAFETY: the caller says that each is NULL or ends with a 0.
        let (root, name) = unsafe { (memory::path(root)?, memory::path(name)?) };
        let mut options = CgroupOptions::new(root);
        if !slice.is_null() {
            // SAFETY: as before.
            options = options.slice(unsafe { memory::path(slice) }?);
        }
        if !subsystems.is_null() {
            // SAFETY: the caller says that there are so many, each of which is NULL or ends with a 0.
            let subsystems: Vec<&Path> = unsafe { memory::paths(subsystems, subsystem_count) }?;
            options = options.subsystems(subsystems);
        }
        *made = cgr_reaper::of(Reaper::new(options, name));
        Ok(0)
    })
}

/// Frees a reaper. Reaps that were spawned from it go on.
///
/// Any thread. NULL, and a reaper that was freed before, are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_free(reaper: *mut cgr_reaper) {
    call(|| {
        object::free(reaper);
        Ok(())
    })
}

/// Sets how long to wait after the first attempt to kill before the next one. Default: 10 ms. It does not delay completion.
/// Less than 1 ms, or more than the longest wait, is refused at the spawn. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_min_wait(reaper: *mut cgr_reaper, us: u64) -> c_int {
    change(reaper, |reaper| reaper.min_wait(duration(us)))
}

/// Sets the longest wait between two attempts to kill. Default: 10 s. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_max_wait(reaper: *mut cgr_reaper, us: u64) -> c_int {
    change(reaper, |reaper| reaper.max_wait(duration(us)))
}

/// Sets how long a freeze may take before it is undone and tried again (50 ms at most while SIGKILL is sent and pidfds make
/// that safe), and how long a freeze from outside may hold the target before the reap ends as CGR_FROZEN_BY_ANCESTOR. Default:
/// 10 s. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_freeze_timeout(reaper: *mut cgr_reaper, us: u64) -> c_int {
    change(reaper, |reaper| reaper.freeze_timeout(duration(us)))
}

/// Sends no signal: waits until the target is empty by itself, then removes it. A target that has no member yet is removed at
/// once. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_when_empty(reaper: *mut cgr_reaper) -> c_int {
    change(reaper, Reaper::when_empty)
}

/// Waits so long for the target to become empty by itself before the first signal. Default: not at all. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_linger(reaper: *mut cgr_reaper, us: u64) -> c_int {
    change(reaper, |reaper| reaper.linger(duration(us)))
}

/// Sends this signal to every member first, and SIGKILL after `us` microseconds to those that are left. Default: SIGKILL at
/// once. Returns 0.
///
/// Any thread. -EINVAL for NULL and for a signal outside 1 to 64, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_grace(reaper: *mut cgr_reaper, signal: c_int, us: u64) -> c_int {
    match Signal::new(signal) {
        Some(signal) => change(reaper, |reaper| reaper.grace(signal, duration(us))),
        None => call(|| Err(Errno::INVALID)),
    }
}

/// Ends the reap after so long, counted from the spawn, as CGR_TIMED_OUT. Members that were not sent SIGKILL yet, because of
/// linger or grace, are sent it then, and have some 95 ms more to exit; with `cgr_reaper_when_empty` no signal is sent.
/// Default: none. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_deadline(reaper: *mut cgr_reaper, us: u64) -> c_int {
    change(reaper, |reaper| reaper.deadline(duration(us)))
}

/// Sets how to kill, a `cgr_method`. Default: CGR_METHOD_AUTO. Returns 0.
///
/// Any thread. -EINVAL for NULL and for a number that is none of them, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_method(reaper: *mut cgr_reaper, method: c_int) -> c_int {
    use cgr_method::*;
    const METHODS: [(cgr_method, KillMethod); 4] = [
        (CGR_METHOD_AUTO, KillMethod::Auto),
        (CGR_METHOD_CGROUP_KILL, KillMethod::CgroupKill),
        (CGR_METHOD_FREEZER, KillMethod::Freezer),
        (CGR_METHOD_PIDFD, KillMethod::Pidfd),
    ];
    match METHODS.iter().find(|(number, _)| *number as c_int == method) {
        Some((_, method)) => change(reaper, |reaper| reaper.method(*method)),
        None => call(|| Err(Errno::INVALID)),
    }
}

/// Allows pids that were just read to be signalled unverified, on kernels without pidfds (before Linux 5.3), where the target
/// is not in the v1 freezer. A pid may be reused before the signal is sent, and another process killed. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_kill_without_freezer(reaper: *mut cgr_reaper) -> c_int {
    change(reaper, Reaper::kill_without_freezer)
}

/// Releases the memory of members that were sent SIGKILL and cannot exit: those in uninterruptible sleep, or held by a tracer
/// (process_mrelease(2), Linux 5.15). After some attempts to kill, the reactor starts a thread of its own for it. Default: their
/// memory is released when they exit. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_release_memory(reaper: *mut cgr_reaper) -> c_int {
    change(reaper, Reaper::release_memory)
}

/// Kills and waits, but leaves the directories. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_keep_dir(reaper: *mut cgr_reaper) -> c_int {
    change(reaper, Reaper::keep_dir)
}

/// Tells the reap from others: `cgr_reactor_drain` hands out its result with this tag. A job's number, or a pointer of the
/// caller's as a number. Tags need not be unique. Without one, only the handle has the result. Returns 0.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_reaper_tag(reaper: *mut cgr_reaper, tag: u64) -> c_int {
    call(|| {
        let object = object::get(reaper)?;
        let mut plan = object.lock()?;
        plan.change(|reaper| reaper.tag(tag));
        plan.tag = tag;
        Ok(0)
    })
}
