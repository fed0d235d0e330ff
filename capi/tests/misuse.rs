//! Every function of the C ABI with NULL, with objects that were freed or are others, and in the wrong order. Run under the
//! address sanitizer and valgrind too: tests/sanitize.

#![allow(unsafe_code, missing_docs, reason = "calls what C calls")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{dangling_mut, null, null_mut};
use std::sync::mpsc::channel;
use std::thread;

use cgroup_reaper_c::*;
use common::*;

const EINVAL: c_int = -libc::EINVAL;
const EBADF: c_int = -libc::EBADF;
const EBUSY: c_int = -libc::EBUSY;
const SECOND: u64 = 1_000_000;

/// An object that a function makes.
#[track_caller]
fn made<T>(make: impl FnOnce(*mut *mut T) -> c_int) -> *mut T {
    let mut object = null_mut();
    assert_eq!(make(&mut object), 0);
    assert!(!object.is_null());
    object
}

#[track_caller]
fn reaper(dir: &Path) -> *mut cgr_reaper {
    let dir = CString::new(dir.as_os_str().as_bytes()).unwrap();
    // SAFETY: both are good for the call.
    made(|place| unsafe { cgr_reaper_new(dir.as_ptr(), place) })
}

#[track_caller]
fn reactor() -> *mut cgr_reactor {
    // SAFETY: the place is good.
    made(|place| unsafe { cgr_reactor_new(place) })
}

/// A text of the library's.
#[track_caller]
fn text<'a>(text: *const c_char) -> &'a str {
    assert!(!text.is_null());
    // SAFETY: it ends with a 0, and the tests read it before they free the result.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap()
}

/// What an answer says that failed.
trait Answer: PartialEq + std::fmt::Debug {
    fn failed_with(self, errno: c_int) -> bool;
}

impl Answer for c_int {
    fn failed_with(self, errno: c_int) -> bool {
        self == errno
    }
}

impl Answer for u64 {
    fn failed_with(self, _: c_int) -> bool {
        self == 0
    }
}

impl Answer for *const c_char {
    fn failed_with(self, _: c_int) -> bool {
        self.is_null()
    }
}

impl Answer for () {
    fn failed_with(self, _: c_int) -> bool {
        true
    }
}

/// Calls each function that has an object as its first argument with this one, which is none: all have to fail so.
fn every_function_fails(object: usize, errno: c_int) {
    let mut called = BTreeSet::new();
    macro_rules! fails {
        ($($function:ident($($argument:expr),*);)+) => {$(
            // SAFETY: the other arguments are good.
            #[allow(unused_unsafe, reason = "some are safe")]
            let answer = unsafe { $function(object as *mut _ $(, $argument)*) };
            assert!(answer.failed_with(errno), "{}: {answer:?}", stringify!($function));
            called.insert(stringify!($function));
        )+};
    }
    let good = reaper(Path::new("/c"));
    let (mut us, mut results) = (0, [null_mut(); 2]);
    // SAFETY: plain numbers and pointers.
    let (mut metrics, mut effort, mut survivor): (cgr_metrics, cgr_effort, cgr_survivor) =
        unsafe { std::mem::zeroed() };
    let mut handle = dangling_mut::<cgr_handle>();
    let mut result = dangling_mut::<cgr_result>();
    let mut remote = dangling_mut::<cgr_remote>();
    fails! {
        cgr_reactor_free();
        cgr_reactor_fd();
        cgr_reactor_turn(CGR_FOREVER);
        cgr_reactor_next_deadline(&mut us);
        cgr_reactor_set_turn_budget(1);
        cgr_reactor_set_helper_thread(true);
        cgr_reactor_len();
        cgr_reactor_metrics(&mut metrics, size_of::<cgr_metrics>());
        cgr_reactor_spawn(good, &mut handle, &mut result);
        cgr_reactor_cancel(1);
        cgr_reactor_kill_now(1);
        cgr_reactor_drain(results.as_mut_ptr(), 2);
        cgr_reactor_shutdown(CGR_FOREVER);
        cgr_remote_new(&mut remote);
    }
    assert!(handle.is_null() && result.is_null() && remote.is_null() && us == 0);
    (handle, result) = (dangling_mut(), dangling_mut());
    fails! {
        cgr_remote_free();
        cgr_remote_spawn(good, &mut handle, &mut result);
    }
    assert!(handle.is_null() && result.is_null());
    result = dangling_mut();
    fails! {
        cgr_handle_free();
        cgr_handle_cancel();
        cgr_handle_kill_now();
        cgr_handle_wait(CGR_FOREVER, &mut result);
    }
    assert!(result.is_null());
    result = dangling_mut();
    fails! {
        cgr_reaper_free();
        cgr_reaper_min_wait(SECOND);
        cgr_reaper_max_wait(SECOND);
        cgr_reaper_freeze_timeout(SECOND);
        cgr_reaper_when_empty();
        cgr_reaper_linger(SECOND);
        cgr_reaper_grace(15, SECOND);
        cgr_reaper_deadline(SECOND);
        cgr_reaper_method(cgr_method::CGR_METHOD_AUTO as c_int);
        cgr_reaper_kill_without_freezer();
        cgr_reaper_keep_dir();
        cgr_reaper_release_memory();
        cgr_reaper_tag(1);
        cgr_reap(&mut result);
        cgr_result_free();
        cgr_result_kind();
        cgr_result_outcome();
        cgr_result_errno();
        cgr_result_tag();
        cgr_result_path();
        cgr_result_message();
        cgr_result_effort(&mut effort, size_of::<cgr_effort>());
        cgr_result_survivor_count();
        cgr_result_survivor(0, &mut survivor, size_of::<cgr_survivor>());
    }
    assert!(result.is_null());
    cgr_reaper_free(good);

    // All of them, by the header. These have no object as their first argument.
    let header = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/cgroup_reaper.h")).unwrap();
    let words = header.lines().filter(|line| !line.starts_with("//")).flat_map(|line| line.split([' ', '*']));
    let declared = words.filter_map(|word| word.split_once('(')).map(|(name, _)| name);
    let others = ["cgr_version", "cgr_kind_name", "cgr_reactor_new", "cgr_reaper_new"];
    let others = others.into_iter().chain(["cgr_reaper_new_fd", "cgr_reaper_new_named"]);
    let known: BTreeSet<_> = called.into_iter().chain(others).collect();
    assert_eq!(declared.filter(|name| name.starts_with("cgr_")).collect::<BTreeSet<_>>(), known);
}

#[test]
fn no_object() {
    every_function_fails(0, EINVAL);
}

#[test]
fn what_never_was_an_object() {
    static VALUE: u64 = 0;
    for object in [1, 7, 4095, usize::MAX, (&raw const VALUE).addr() | 7] {
        every_function_fails(object, EBADF);
    }
}

/// One that was freed is what never was; and one of another type is none.
#[test]
fn freed_objects_and_those_of_another_type() {
    let (reactor, reaper) = (reactor(), reaper(Path::new("/c")));
    // SAFETY: the places are good.
    let remote = made(|place| unsafe { cgr_remote_new(reactor, place) });
    let mut refused = null_mut();
    // SAFETY: the places are good.
    assert!(unsafe { cgr_reactor_spawn(reactor, reaper, null_mut(), &mut refused) } < 0);
    assert_eq!(cgr_reactor_fd(reaper.cast()), EBADF);
    assert_eq!(cgr_reaper_keep_dir(reactor.cast()), EBADF);
    assert_eq!(cgr_handle_cancel(remote.cast()), EBADF);
    assert_eq!(cgr_result_kind(reaper.cast()), EBADF);
    // To free one as another type frees nothing.
    cgr_reaper_free(reactor.cast());
    cgr_result_free(reaper.cast());
    cgr_handle_free(remote.cast());
    assert!(cgr_reactor_fd(reactor) >= 0 && cgr_reaper_keep_dir(reaper) == 0);
    assert_eq!(cgr_result_kind(refused), cgr_kind::CGR_REFUSED as c_int);
    for _ in 0..2 {
        cgr_reactor_free(reactor);
        cgr_reaper_free(reaper);
        cgr_remote_free(remote);
        cgr_result_free(refused);
    }
    for object in [reactor.addr(), reaper.addr(), remote.addr(), refused.addr()] {
        every_function_fails(object, EBADF);
    }
}

#[test]
fn arguments_that_are_null_or_out_of_range() {
    let path = c"/c".as_ptr();
    let mut made_reaper = dangling_mut::<cgr_reaper>();
    let names = [path, null()];
    // SAFETY: what is not NULL is good.
    unsafe {
        assert_eq!(cgr_reactor_new(null_mut()), EINVAL);
        assert_eq!(cgr_reaper_new(path, null_mut()), EINVAL);
        assert_eq!(cgr_reaper_new(null(), &mut made_reaper), EINVAL);
        assert!(made_reaper.is_null());
        assert_eq!(cgr_reaper_new_fd(0, null_mut()), EINVAL);
        for fd in [-1, -100, c_int::MIN, c_int::MAX] {
            made_reaper = dangling_mut();
            assert_eq!(cgr_reaper_new_fd(fd, &mut made_reaper), EBADF);
            assert!(made_reaper.is_null());
        }
        let named = |root, subsystems, count, name, place| {
            cgr_reaper_new_named(root, null(), subsystems, count, name, place)
        };
        assert_eq!(named(null(), null(), 0, path, &mut made_reaper), EINVAL);
        assert_eq!(named(path, null(), 0, null(), &mut made_reaper), EINVAL);
        assert_eq!(named(path, null(), 0, path, null_mut()), EINVAL);
        assert_eq!(named(path, names.as_ptr(), 2, path, &mut made_reaper), EINVAL);
        assert_eq!(named(path, names.as_ptr(), usize::MAX, path, &mut made_reaper), EINVAL);
        assert!(made_reaper.is_null());
        // An empty list is one, and refused by the spawn.
        assert_eq!(named(path, names.as_ptr(), 0, path, &mut made_reaper), 0);
        let mut result = null_mut();
        assert_eq!(cgr_reap(made_reaper, &mut result), EINVAL);
        assert_eq!(text(cgr_result_message(result)), "refused: no subsystem was named");
        cgr_result_free(result);
        assert_eq!(cgr_reap(made_reaper, null_mut()), EINVAL);
    }
    for method in [-1, 4, c_int::MAX] {
        assert_eq!(cgr_reaper_method(made_reaper, method), EINVAL);
    }
    for signal in [0, -1, 65, c_int::MIN] {
        assert_eq!(cgr_reaper_grace(made_reaper, signal, 0), EINVAL);
    }
    for kind in [-1, c_int::MAX] {
        assert_eq!(text(cgr_kind_name(kind)), "other");
    }
    let reactor = reactor();
    let mut results = [null_mut()];
    // SAFETY: what is not NULL is good.
    unsafe {
        assert_eq!(cgr_reactor_next_deadline(reactor, null_mut()), EINVAL);
        assert_eq!(cgr_reactor_metrics(reactor, null_mut(), 8), EINVAL);
        assert_eq!(cgr_reactor_drain(reactor, null_mut(), 1), EINVAL);
        assert_eq!(cgr_reactor_drain(reactor, results.as_mut_ptr(), 0), EINVAL);
        assert_eq!(cgr_reactor_spawn(reactor, null(), null_mut(), null_mut()), EINVAL);
        assert_eq!(cgr_remote_new(reactor, null_mut()), EINVAL);
    }
    cgr_reactor_free(reactor);
    cgr_reaper_free(made_reaper);
}

/// A text is that of cargo, and a kind has a name.
#[test]
fn constants() {
    assert_eq!(text(cgr_version()), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(cgr_kind_name(0)), "ok");
    assert_eq!(text(cgr_kind_name(cgr_kind::CGR_FROZEN_BY_ANCESTOR as c_int)), "frozen-by-ancestor");
}

#[test]
fn targets_that_are_refused() {
    let reactor = reactor();
    // SAFETY: the places are good.
    let remote = made(|place| unsafe { cgr_remote_new(reactor, place) });
    for (dir, errno) in [("/tmp", libc::ENOTTY), ("/c/../c", libc::EINVAL), ("/nowhere/at/all", libc::ENOENT)]
    {
        let reaper = reaper(Path::new(dir));
        assert_eq!(cgr_reaper_tag(reaper, 42), 0);
        let (mut handle, mut refused) = (dangling_mut::<cgr_handle>(), null_mut());
        for spawn in 0..3 {
            // SAFETY: the places are good.
            let answer = unsafe {
                match spawn {
                    0 => cgr_reactor_spawn(reactor, reaper, &mut handle, &mut refused),
                    1 => cgr_remote_spawn(remote, reaper, &mut handle, &mut refused),
                    _ => cgr_reap(reaper, &mut refused),
                }
            };
            assert_eq!(answer, -errno, "{dir}");
            assert!(handle.is_null());
            assert_eq!(cgr_result_kind(refused), cgr_kind::CGR_REFUSED as c_int);
            assert_eq!(cgr_result_outcome(refused), cgr_outcome::CGR_NO_OUTCOME as c_int);
            assert_eq!((cgr_result_tag(refused), text(cgr_result_path(refused))), (42, dir));
            assert!(text(cgr_result_message(refused)).contains("refused: "));
            assert_eq!(cgr_result_survivor_count(refused), 0);
            // SAFETY: a plain number, and a place that is good.
            unsafe {
                let mut effort = cgr_effort { attempts: 7, ..std::mem::zeroed() };
                assert_eq!(cgr_result_effort(refused, &mut effort, size_of::<cgr_effort>()), 0);
                assert_eq!(effort, std::mem::zeroed());
            }
            cgr_result_free(refused);
        }
        cgr_reaper_free(reaper);
    }
    // Nothing is to be drained for them.
    // SAFETY: the place is good.
    assert_eq!(unsafe { cgr_reactor_drain(reactor, &mut null_mut(), 1) }, 0);
    cgr_remote_free(remote);
    cgr_reactor_free(reactor);
}

/// A cgroup of some hierarchy.
fn cgroup(sandbox: &Sandbox, name: &str) -> PathBuf {
    if v2().is_ok() { sandbox.v2(name) } else { sandbox.v1("freezer", name) }
}

fn cgroups() -> Result<(), String> {
    v2().or_else(|_| v1("freezer"))
}

#[track_caller]
fn spawn(reactor: *mut cgr_reactor, reaper: *const cgr_reaper) -> *mut cgr_handle {
    // SAFETY: the place is good.
    made(|place| unsafe { cgr_reactor_spawn(reactor, reaper, place, null_mut()) })
}

/// The result of a handle, if there is one.
fn result(handle: *mut cgr_handle) -> Option<*mut cgr_result> {
    let mut result = null_mut();
    // SAFETY: the place is good.
    let answer = unsafe { cgr_handle_wait(handle, 0, &mut result) };
    assert_eq!(answer, c_int::from(!result.is_null()));
    (answer == 1).then_some(result)
}

#[test]
fn the_reactor_is_freed_before_all_that_is_of_it() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let (dir, other) = (cgroup(&sandbox, "a"), cgroup(&sandbox, "b"));
    let sleeper = sandbox.sleeper(&[&dir]);
    let (reactor, reaper, late) = (reactor(), reaper(&dir), reaper(&other));
    // SAFETY: the places are good.
    let remote = made(|place| unsafe { cgr_remote_new(reactor, place) });
    assert_eq!(cgr_reaper_when_empty(reaper), 0);
    let handle = spawn(reactor, reaper);
    assert!(result(handle).is_none());
    assert_eq!(cgr_reactor_len(reactor), 1);
    cgr_reactor_free(reactor);
    cgr_reaper_free(reaper);
    for _ in 0..2 {
        let ended = result(handle).unwrap();
        assert_eq!(cgr_result_kind(ended), cgr_kind::CGR_DISCONNECTED as c_int);
        assert_eq!(Path::new(text(cgr_result_path(ended))), dir);
        cgr_result_free(ended);
    }
    assert_eq!((cgr_handle_cancel(handle), cgr_handle_kill_now(handle)), (0, 0));
    cgr_handle_free(handle);
    let mut refused = null_mut();
    // SAFETY: the place is good.
    assert_eq!(unsafe { cgr_remote_spawn(remote, late, null_mut(), &mut refused) }, -libc::EPIPE);
    assert_eq!(cgr_result_kind(refused), cgr_kind::CGR_DISCONNECTED as c_int);
    cgr_result_free(refused);
    cgr_remote_free(remote);
    cgr_reaper_free(late);
    assert!(sleeper.alive());
}

#[test]
fn a_reactor_that_another_thread_is_in() {
    let reactor = reactor();
    // On a busy machine as well, one turn does all.
    assert_eq!(cgr_reactor_set_turn_budget(reactor, CGR_FOREVER), 0);
    let id = reactor.addr();
    let reactor_of = |id: usize| std::ptr::without_provenance_mut::<cgr_reactor>(id);
    let (sender, receiver) = channel();
    let turning = thread::spawn(move || {
        let _ = sender.send(());
        // The question whether it has begun may hold it up.
        let mut turns = std::iter::repeat_with(|| cgr_reactor_turn(reactor_of(id), CGR_FOREVER));
        turns.find(|&turn| turn != EBUSY)
    });
    receiver.recv().unwrap();
    eventually("a turn", || cgr_reactor_len(reactor) == EBUSY);
    let mut us = 0;
    // SAFETY: the places are good.
    unsafe {
        assert_eq!(cgr_reactor_turn(reactor, 0), EBUSY);
        assert_eq!(cgr_reactor_next_deadline(reactor, &mut us), EBUSY);
        assert_eq!(cgr_reactor_drain(reactor, &mut null_mut(), 1), EBUSY);
        assert_eq!(cgr_reactor_shutdown(reactor, 0), EBUSY);
        // These are for any thread.
        assert!(cgr_reactor_fd(reactor) >= 0);
        let remote = made(|place| cgr_remote_new(reactor, place));
        let file = File::open("/proc").unwrap();
        let reaper = made(|place| cgr_reaper_new_fd(file.as_raw_fd(), place));
        drop(file);
        assert_eq!(cgr_remote_spawn(remote, reaper, null_mut(), null_mut()), -libc::ENOTTY);
        cgr_reaper_free(reaper);
        // Freed meanwhile: the turn ends, and then the reactor.
        cgr_reactor_free(reactor);
        assert_eq!(cgr_reactor_turn(reactor, 0), EBADF);
        eventually("the end of the turn", || turning.is_finished());
        assert_eq!(turning.join().unwrap(), Some(0));
        if cgroups().is_ok() {
            let sandbox = Sandbox::new(test_name!());
            let reaper = self::reaper(&cgroup(&sandbox, "a"));
            assert_eq!(cgr_remote_spawn(remote, reaper, null_mut(), null_mut()), -libc::EPIPE);
            cgr_reaper_free(reaper);
        }
        cgr_remote_free(remote);
    }
}

/// A thread that calls turn again and again gets an error after the free.
#[test]
fn no_turn_of_another_thread_outlasts_the_free() {
    // On one CPU, a thread that is woken often runs before the thread that woke it continues.
    // SAFETY: a set of plain numbers.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut cpus);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&cpus), &cpus), 0);
    }
    for _ in 0..2000 {
        let reactor = reactor();
        let id = reactor.addr();
        let turning = thread::spawn(move || {
            let reactor = std::ptr::without_provenance_mut(id);
            // The question whether it has begun may hold it up.
            while matches!(cgr_reactor_turn(reactor, CGR_FOREVER), 0.. | EBUSY) {}
            cgr_reactor_turn(reactor, 0)
        });
        eventually("a turn", || cgr_reactor_len(reactor) == EBUSY);
        cgr_reactor_free(reactor);
        eventually("the end of the turns", || turning.is_finished());
        assert_eq!(turning.join().unwrap(), EBADF);
    }
}

#[test]
fn results_outlive_all_else_and_are_taken_once() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let reactor = reactor();
    // On a busy machine as well, a spawn does all.
    assert_eq!(cgr_reactor_set_turn_budget(reactor, CGR_FOREVER), 0);
    for tag in 0..5 {
        let reaper = reaper(&cgroup(&sandbox, &format!("t{tag}")));
        assert_eq!(cgr_reaper_tag(reaper, tag), 0);
        // SAFETY: nothing is written.
        assert_eq!(unsafe { cgr_reactor_spawn(reactor, reaper, null_mut(), null_mut()) }, 0);
        cgr_reaper_free(reaper);
    }
    // All have ended in their spawn: empty. Fewer are taken than there are, then the rest.
    let mut results = [null_mut(); 4];
    let mut tags = Vec::new();
    let readable = || {
        let mut fd = libc::pollfd { fd: cgr_reactor_fd(reactor), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor.
        unsafe { libc::poll(&mut fd, 1, 0) == 1 }
    };
    for (expected, left) in [(4, true), (1, false), (0, false)] {
        // SAFETY: there are so many places.
        assert_eq!(unsafe { cgr_reactor_drain(reactor, results.as_mut_ptr(), 4) }, expected);
        assert_eq!(readable(), left);
        for &result in &results[..expected as usize] {
            tags.push(cgr_result_tag(result));
            assert_eq!(cgr_result_outcome(result), cgr_outcome::CGR_REMOVED as c_int);
            assert_eq!((cgr_result_kind(result), cgr_result_errno(result)), (0, 0));
            assert!(text(cgr_result_message(result)).ends_with(": removed"));
            cgr_result_free(result);
        }
    }
    assert_eq!(tags, [0, 1, 2, 3, 4]);
    assert_eq!(cgr_reactor_turn(reactor, 0), 5);
    // SAFETY: a struct of numbers, and a place that is good.
    unsafe {
        let mut metrics: cgr_metrics = std::mem::zeroed();
        assert_eq!(cgr_reactor_metrics(reactor, &mut metrics, size_of::<cgr_metrics>()), 0);
        assert_eq!((metrics.spawned, metrics.completed, metrics.removals), (5, 5, 5));
        // As a program has it that was compiled when there were two.
        let mut old = [7u64; 3];
        assert_eq!(cgr_reactor_metrics(reactor, old.as_mut_ptr().cast(), 16), 0);
        assert_eq!(old, [5, 5, 7]);
    }
    cgr_reactor_free(reactor);
}

#[test]
fn survivors_are_named() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = cgroup(&sandbox, "a");
    let sleeper = sandbox.sleeper(&[&dir]);
    let reaper = reaper(&dir);
    // A deadline without a signal.
    assert_eq!((cgr_reaper_when_empty(reaper), cgr_reaper_deadline(reaper, 1000)), (0, 0));
    let mut timed_out = null_mut();
    // SAFETY: the places are good, and a survivor is plain numbers and pointers.
    unsafe {
        assert_eq!(cgr_reap(reaper, &mut timed_out), -libc::ETIMEDOUT);
        cgr_reaper_free(reaper);
        assert_eq!(cgr_result_kind(timed_out), cgr_kind::CGR_TIMED_OUT as c_int);
        assert_eq!(cgr_result_survivor_count(timed_out), 1);
        let mut survivor: cgr_survivor = std::mem::zeroed();
        let size = size_of::<cgr_survivor>();
        assert_eq!(cgr_result_survivor(timed_out, 1, &mut survivor, size), -libc::ERANGE);
        assert_eq!(cgr_result_survivor(timed_out, usize::MAX, &mut survivor, size), -libc::ERANGE);
        assert_eq!(cgr_result_survivor(timed_out, 0, null_mut(), size), EINVAL);
        assert_eq!(cgr_result_survivor(timed_out, 0, &mut survivor, size), 0);
        assert_eq!(survivor.pid, sleeper.pid);
        assert!(
            (survivor.state as u8).is_ascii_alphabetic()
                && !survivor.kernel_thread
                && survivor.frozen_by.is_null()
        );
        let name = fs::read_to_string(format!("/proc/{}/comm", survivor.pid)).unwrap();
        assert_eq!(text(survivor.command), name.trim_end());
        assert!(!text(survivor.wait_channel).contains('\n'));
        cgr_result_free(timed_out);
    }
    assert!(sleeper.alive());
}

#[test]
fn cancel_and_kill_now_by_tag_and_by_handle() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let reactor = reactor();
    let mut handles = Vec::new();
    for tag in 0..4 {
        let dir = cgroup(&sandbox, &format!("t{tag}"));
        sandbox.sleeper(&[&dir]);
        let reaper = reaper(&dir);
        assert_eq!((cgr_reaper_tag(reaper, tag), cgr_reaper_linger(reaper, CGR_FOREVER)), (0, 0));
        handles.push(spawn(reactor, reaper));
        cgr_reaper_free(reaper);
    }
    assert_eq!((cgr_reactor_cancel(reactor, 0), cgr_reactor_cancel(reactor, 9)), (1, 0));
    assert_eq!((cgr_reactor_kill_now(reactor, 1), cgr_reactor_kill_now(reactor, 9)), (1, 0));
    assert_eq!((cgr_handle_cancel(handles[2]), cgr_handle_kill_now(handles[3])), (0, 0));
    let mut ended = 0;
    while ended < 4 {
        let count = cgr_reactor_turn(reactor, CGR_FOREVER);
        assert!(count >= 0, "{count}");
        ended += count;
        // Drained at once: else the turn would not wait.
        let mut result = null_mut();
        // SAFETY: the place is good.
        while unsafe { cgr_reactor_drain(reactor, &mut result, 1) } == 1 {
            cgr_result_free(result);
        }
    }
    let (ok, cancelled) = (cgr_kind::CGR_OK as c_int, cgr_kind::CGR_CANCELLED as c_int);
    for (handle, kind) in handles.into_iter().zip([cancelled, ok, cancelled, ok]) {
        let ended = result(handle).unwrap();
        assert_eq!(cgr_result_kind(ended), kind);
        cgr_result_free(ended);
        cgr_handle_free(handle);
    }
    assert_eq!(cgr_reactor_shutdown(reactor, SECOND), 0);
    cgr_reactor_free(reactor);
}

#[test]
fn a_target_by_descriptor_and_by_name() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = cgroup(&sandbox, "a");
    let file = File::open(&dir).unwrap();
    // SAFETY: the places are good.
    unsafe {
        let reaper = made(|place| cgr_reaper_new_fd(file.as_raw_fd(), place));
        // The caller's is its own.
        drop(file);
        assert_eq!(cgr_reap(reaper, null_mut()), 0);
        cgr_reaper_free(reaper);
        assert!(!dir.exists());

        let dir = cgroup(&sandbox, "b/c");
        let (slice, name) = (dir.parent().unwrap(), dir.file_name().unwrap());
        let (root, slice) = (slice.parent().unwrap().parent().unwrap(), slice);
        let slice = slice.strip_prefix(root).unwrap();
        let c = |text: &std::ffi::OsStr| CString::new(text.as_bytes()).unwrap();
        let (root, slice, name) = (c(root.as_os_str()), c(slice.as_os_str()), c(name));
        let named = made(|place| {
            cgr_reaper_new_named(root.as_ptr(), slice.as_ptr(), null(), 0, name.as_ptr(), place)
        });
        assert_eq!(cgr_reaper_keep_dir(named), 0);
        let mut result = null_mut();
        assert_eq!(cgr_reap(named, &mut result), 0);
        assert_eq!(cgr_result_outcome(result), cgr_outcome::CGR_EMPTIED as c_int);
        assert_eq!(Path::new(text(cgr_result_path(result))), dir);
        cgr_result_free(result);
        cgr_reaper_free(named);
    }
}
