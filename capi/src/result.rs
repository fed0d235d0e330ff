//! `cgr_result`: what a reap came to, or why it did not begin.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, OnceLock};

use cgroup_reaper::{Completed, Outcome, ReapError, Reaped, Survivor, UsedMethod};

use crate::call::call;
use crate::error::{Errno, cgr_kind, kind};
use crate::memory;
use crate::object::{self, object};
use crate::time::micros;

/// What a reap came to, or why it did not begin: an object that its owner frees with `cgr_result_free`. It does not change;
/// any number of threads may read it.
#[derive(Debug)]
pub struct cgr_result {
    ended: Completed,
    path: OnceLock<CString>,
    message: OnceLock<CString>,
    survivors: OnceLock<Vec<SurvivorTexts>>,
}

object!(cgr_result, 0);

/// The texts of a survivor, for C.
#[derive(Debug)]
struct SurvivorTexts {
    command: CString,
    wait_channel: CString,
    frozen_by: Option<CString>,
}

impl cgr_result {
    pub(crate) fn new(ended: Completed) -> cgr_result {
        let (path, message, survivors) = Default::default();
        cgr_result { ended, path, message, survivors }
    }

    /// A reap that did not begin, or whose path is known from its error alone.
    pub(crate) fn of_error(tag: u64, error: ReapError) -> cgr_result {
        let path = error.path().unwrap_or(Path::new("")).to_path_buf();
        cgr_result::new(Completed::new(tag, path, Err(error)))
    }

    /// The error, if it is one.
    pub(crate) fn failure(&self) -> Option<&ReapError> {
        self.ended.result.as_ref().err()
    }

    fn reaped(&self) -> Option<&Reaped> {
        self.ended.result.as_ref().ok()
    }

    fn survivors(&self) -> &[Survivor] {
        match &self.ended.result {
            Err(ReapError::TimedOut { survivors, .. }) => survivors,
            _ => &[],
        }
    }

    fn survivor_texts(&self) -> &[SurvivorTexts] {
        self.survivors.get_or_init(|| self.survivors().iter().map(SurvivorTexts::of).collect())
    }

    fn message(&self) -> String {
        match &self.ended.result {
            Ok(reaped) => format!("{}: {}", self.ended.path.display(), reaped.outcome),
            Err(error) => error.to_string(),
        }
    }
}

impl SurvivorTexts {
    fn of(survivor: &Survivor) -> SurvivorTexts {
        let path = |path: &Path| memory::text(path.as_os_str().as_bytes());
        SurvivorTexts {
            command: memory::text(survivor.command.as_str()),
            wait_channel: memory::text(survivor.wait_channel.as_str()),
            frozen_by: survivor.frozen_by.as_deref().map(path),
        }
    }
}

/// What became of the directories of a target: `cgr_result_outcome`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum cgr_outcome {
    /// The reap failed; `cgr_result_kind` says how.
    CGR_NO_OUTCOME = 0,
    /// They were there at the spawn, every process is dead, and they have been removed.
    CGR_REMOVED = 1,
    /// They are empty and were left in place, as `cgr_reaper_keep_dir` asked, or to systemd.
    CGR_EMPTIED = 2,
    /// There was nothing at the spawn.
    CGR_ALREADY_GONE = 3,
    /// One that this header does not know yet.
    CGR_OTHER_OUTCOME = 4,
}

/// How processes were killed: `cgr_effort`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum cgr_used_method {
    /// Nothing was killed.
    CGR_USED_NOTHING = 0,
    /// A write to cgroup.kill.
    CGR_USED_CGROUP_KILL = 1,
    /// SIGKILL through pidfds whose membership was verified.
    CGR_USED_PIDFD = 2,
    /// Frozen, signalled and thawed.
    CGR_USED_FREEZER = 3,
    /// kill(2) on pids just read: only with `cgr_reaper_kill_without_freezer` on a kernel without pidfds.
    CGR_USED_UNVERIFIED = 4,
    /// One that this header does not know yet.
    CGR_USED_OTHER = 5,
}

/// What was done for a reap, successful or not: `cgr_result_effort`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct cgr_effort {
    /// Time from the spawn to the end, in microseconds.
    pub elapsed_us: u64,
    /// Processes that were sent a signal one by one. cgroup.kill does not say how many it kills, and adds nothing here.
    pub signalled: u64,
    /// Processes whose memory was released before they exited, as `cgr_reaper_release_memory` asked.
    pub released: u64,
    /// Attempts to kill.
    pub attempts: u32,
    /// The last way of killing that was used, a `cgr_used_method`.
    pub method: c_int,
}

/// A process that outlived a deadline, as /proc described it: `cgr_result_survivor`. What /proc did not say is empty. The
/// texts are the result's, and good until it is freed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct cgr_survivor {
    /// Its command name, UTF-8; never NULL.
    pub command: *const c_char,
    /// The kernel function it sleeps in; never NULL.
    pub wait_channel: *const c_char,
    /// The path of the v1 freezer cgroup that holds it frozen; NULL if none does.
    pub frozen_by: *const c_char,
    /// Its process id; 0 where it has none in the caller's pid namespace.
    pub pid: i32,
    /// Its state letter: 'D' uninterruptible, 't' traced, ...; 0 if not known.
    pub state: c_char,
    /// Whether it is a kernel thread, which no signal kills.
    pub kernel_thread: bool,
}

fn used(method: Option<UsedMethod>) -> c_int {
    use cgr_used_method::*;
    (match method {
        None => CGR_USED_NOTHING,
        Some(UsedMethod::CgroupKill) => CGR_USED_CGROUP_KILL,
        Some(UsedMethod::Pidfd) => CGR_USED_PIDFD,
        Some(UsedMethod::Freezer) => CGR_USED_FREEZER,
        Some(UsedMethod::Unverified) => CGR_USED_UNVERIFIED,
        Some(_) => CGR_USED_OTHER,
    }) as c_int
}

/// Frees a result, and the texts that it has given out.
///
/// Any thread. NULL, and a result that was freed before, are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_free(result: *mut cgr_result) {
    call(|| {
        object::free(result);
        Ok(())
    })
}

/// Returns how the reap ended, a `cgr_kind`: CGR_OK (0) if every process is dead.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_kind(result: *const cgr_result) -> c_int {
    call(|| {
        let kind = object::get(result)?.failure().map_or(cgr_kind::CGR_OK, kind);
        Ok(kind as c_int)
    })
}

/// Returns what became of the directories, a `cgr_outcome`; CGR_NO_OUTCOME (0) if the reap failed.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_outcome(result: *const cgr_result) -> c_int {
    use cgr_outcome::*;
    call(|| {
        let outcome = object::get(result)?.reaped().map_or(CGR_NO_OUTCOME, |reaped| match reaped.outcome {
            Outcome::Removed => CGR_REMOVED,
            Outcome::Emptied => CGR_EMPTIED,
            Outcome::AlreadyGone => CGR_ALREADY_GONE,
            _ => CGR_OTHER_OUTCOME,
        });
        Ok(outcome as c_int)
    })
}

/// Returns the errno of the system call that is the cause; 0 if none is.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_errno(result: *const cgr_result) -> c_int {
    call(|| {
        let result = object::get(result)?;
        let error = result.failure().and_then(ReapError::io_error);
        Ok(error.and_then(std::io::Error::raw_os_error).unwrap_or(0))
    })
}

/// Returns the tag of the reap, as `cgr_reaper_tag` gave it; 0 without one.
///
/// Any thread. 0 for NULL, and after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_tag(result: *const cgr_result) -> u64 {
    call(|| Ok(object::get(result)?.ended.tag))
}

/// Returns the first directory of the target, or what the caller named where there was none; empty if it is not known. A path
/// is bytes that end with a 0, in no particular encoding.
///
/// Any thread. The text is the result's, and good until that is freed. NULL for NULL, and after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_path(result: *const cgr_result) -> *const c_char {
    call(|| {
        let result = object::get(result)?;
        let path = result.path.get_or_init(|| memory::text(result.ended.path.as_os_str().as_bytes()));
        Ok(kept(&result, path))
    })
}

/// Returns one line for people, in UTF-8: the target, and the outcome or what failed and why.
///
/// Any thread. The text is the result's, and good until that is freed. NULL for NULL, and after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_message(result: *const cgr_result) -> *const c_char {
    call(|| {
        let result = object::get(result)?;
        Ok(kept(&result, result.message.get_or_init(|| memory::text(result.message()))))
    })
}

/// What C may read until it frees the result. The table keeps that until then, at the same place.
fn kept(_result: &Arc<cgr_result>, text: &CStr) -> *const c_char {
    text.as_ptr()
}

/// Writes what was done for the reap to `*effort`, which has `size` bytes: pass sizeof(cgr_effort). All is 0 for a target that
/// was refused. Returns 0.
///
/// Any thread. `*effort` is the caller's. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_result_effort(
    result: *const cgr_result,
    effort: *mut cgr_effort,
    size: usize,
) -> c_int {
    call(|| {
        let result = object::get(result)?;
        let done = match &result.ended.result {
            Ok(reaped) => reaped.effort(),
            Err(error) => error.effort().unwrap_or_default(),
        };
        let done = cgr_effort {
            elapsed_us: micros(done.elapsed),
            signalled: done.signalled,
            released: done.released,
            attempts: done.attempts,
            method: used(done.method),
        };
        // SAFETY: the caller says that `effort` is NULL or has `size` bytes.
        unsafe { memory::write_sized(effort, size, &done) }?;
        Ok(0)
    })
}

/// Returns how many survivors the result names: processes that outlived a deadline, at most 64.
///
/// Any thread. -EINVAL for NULL, -EBADF after it was freed.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_result_survivor_count(result: *const cgr_result) -> c_int {
    call(|| Ok(c_int::try_from(object::get(result)?.survivors().len()).unwrap_or(c_int::MAX)))
}

/// Writes a survivor to `*survivor`, which has `size` bytes: pass sizeof(cgr_survivor). Returns 0, and -ERANGE if there are
/// not so many.
///
/// Any thread. `*survivor` is the caller's; the texts that it leads to are the result's, and good until that is freed.
/// -EINVAL for NULL, -EBADF after the result was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cgr_result_survivor(
    result: *const cgr_result,
    index: usize,
    survivor: *mut cgr_survivor,
    size: usize,
) -> c_int {
    call(|| {
        let result = object::get(result)?;
        let out_of_range = Errno(libc::ERANGE);
        let found = result.survivors().get(index).ok_or(out_of_range)?;
        let texts = result.survivor_texts().get(index).ok_or(out_of_range)?;
        let value = cgr_survivor {
            command: kept(&result, &texts.command),
            wait_channel: kept(&result, &texts.wait_channel),
            frozen_by: texts.frozen_by.as_deref().map_or(ptr::null(), |path| kept(&result, path)),
            pid: found.pid,
            state: found.state.and_then(|state| u8::try_from(state).ok()).unwrap_or(0) as c_char,
            kernel_thread: found.kernel_thread,
        };
        // SAFETY: the caller says that `survivor` is NULL or has `size` bytes.
        unsafe { memory::write_sized(survivor, size, &value) }?;
        Ok(0)
    })
}
