//! Wakers and loggers that panic, in programs that catch it: nothing is lost, and nothing is left frozen.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;

use cgroup_reaper::{Facility, KillMethod, Reactor, ReapError, ReapHandle, Reaper};

use crate::common::*;
use crate::loops::*;
use crate::{require, test_name};

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics, as the test wants");
    }
}

/// Has the completion of this reap panic.
fn rig(handle: &mut ReapHandle) {
    let waker = Waker::from(Arc::new(Panics));
    assert!(Pin::new(handle).poll(&mut Context::from_waker(&waker)).is_pending());
}

fn panics<T>(run: impl FnOnce() -> T) {
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "it does not panic");
}

/// The descriptor tells of the reaps that are left in the turn that panicked, and of those that are to be taken.
#[test]
fn a_turn_that_panics_loses_no_wake_up() {
    require!(cgroups());
    for make in [epoll_level as Make, epoll_edge] {
        for hierarchy in Hierarchy::all() {
            let sandbox = Sandbox::new(test_name!());
            let mut reactor = Reactor::new().expect("a reactor");
            let mut driver = Driver::new(make, &reactor);
            let mut handles: Vec<ReapHandle> = (0..8)
                .map(|tag| {
                    let dir = hierarchy.group(&sandbox, &format!("job-{tag}"));
                    let _ = sandbox.sleeper(&[&dir]);
                    reactor.spawn_reaper(patient(&dir).tag(tag)).expect("a spawn")
                })
                .collect();
            handles.iter_mut().for_each(rig);
            // Let them exit, so that one turn completes several.
            thread::sleep(50 * MS);
            let mut tags = Vec::new();
            while tags.len() < handles.len() {
                driver.assert_in_time(&reactor);
                let step = catch_unwind(AssertUnwindSafe(|| driver.patient(&mut reactor, TIMEOUT)));
                assert!(!matches!(step, Ok(None)), "a wake-up got lost");
                tags.extend(reactor.drain_completed().take(1).map(|ended| ended.tag));
            }
            tags.sort_unstable();
            assert_eq!(tags, (0..8).collect::<Vec<u64>>());
            assert!(handles.iter().all(|handle| handle.is_complete()));
        }
    }
}

/// A run that panics is over: the reactor waits no more for reaps, but tells of those that are to be taken.
#[test]
fn a_run_that_panics_is_over() {
    require!(cgroups());
    let hierarchy = Hierarchy::all()[0];
    let sandbox = Sandbox::new(test_name!());
    let runs: [fn(&mut Reactor); 2] = [
        |reactor| reactor.run_until_idle().expect("no error"),
        |reactor| _ = reactor.shutdown(TIMEOUT).expect("no error"),
    ];
    for (number, run) in runs.into_iter().enumerate() {
        let dir = hierarchy.group(&sandbox, &number.to_string());
        let _ = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        let mut handle = reactor.spawn_reaper(patient(&dir).tag(1)).expect("a spawn");
        rig(&mut handle);
        let mut reactor = in_time(move || {
            panics(|| run(&mut reactor));
            reactor
        });
        let mut driver = Driver::new(epoll_edge, &reactor);
        driver.step(&mut reactor);
        assert_eq!(reactor.drain_completed().count(), 1);
    }
}

/// Panics at one message: as `println!` does where the standard output is closed.
struct Logger;

/// Messages until it panics, and one more.
static MESSAGES: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let is_ours = record.target().starts_with("cgroup_reaper");
        let left = MESSAGES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(!is_ours || left != Ok(1), "a logger that panics, as the test wants: {}", record.args());
    }

    fn flush(&self) {}
}

/// Reaps, with a logger that panics at this message. The reap ends, is reported once, and wakes the loop for it. Returns whether
/// there were fewer messages.
fn reap_with_a_panic(reactor: &mut Reactor, reaper: Reaper, at: usize) -> bool {
    let mut driver = Driver::new(epoll_edge, reactor);
    MESSAGES.store(at, Ordering::Relaxed);
    let spawn = || drop(reactor.spawn_reaper(reaper.tag(at as u64)).expect("a spawn"));
    let _ = catch_unwind(AssertUnwindSafe(spawn));
    let mut ended = Vec::new();
    while ended.is_empty() {
        let step = catch_unwind(AssertUnwindSafe(|| driver.patient(reactor, TIMEOUT)));
        assert!(!matches!(step, Ok(None)), "a wake-up got lost: message {at}, {reactor:?}");
        ended.extend(reactor.drain_completed());
    }
    assert!(matches!(&ended[..], [one] if one.result.is_ok()), "message {at}: {ended:?}");
    MESSAGES.swap(0, Ordering::Relaxed) > 0
}

/// At whichever message a logger panics, the reap ends, is reported once, and wakes the loop for it.
#[test]
fn a_logger_that_panics_does_not_stop_a_reap() {
    require!(cgroups(), namespaces());
    isolated(test_name!(), || {
        log::set_logger(&Logger).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
        for hierarchy in Hierarchy::all() {
            for method in [KillMethod::Auto, KillMethod::Freezer] {
                let sandbox = Sandbox::new("logger");
                for at in 1.. {
                    let dir = hierarchy.group(&sandbox, &at.to_string());
                    let member = sandbox.sleeper(&[&dir]);
                    let mut reactor = Reactor::new().expect("a reactor");
                    let never = reap_with_a_panic(&mut reactor, patient(&dir).method(method), at);
                    assert!(!member.alive() && !dir.exists() && reactor.is_empty());
                    if never {
                        assert!(at > 5, "too few messages");
                        break;
                    }
                }
            }
        }
    });
}

/// As above, where no helper thread can be started: its warning comes amid the attempt and amid the removal.
#[test]
fn a_logger_that_panics_about_a_helper_thread_does_not_stop_a_reap() {
    require!(cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        log::set_logger(&Logger).expect("the only logger");
        log::set_max_level(log::LevelFilter::Warn);
        let sandbox = Sandbox::new("helper");
        for at in 1.. {
            let dir = sandbox.v2(&at.to_string());
            let members = sandbox.sleepers(200, &[&dir]);
            let mut reactor = Reactor::without(&[Facility::HelperThreads]).expect("a reactor");
            reactor.set_helper_thread(true);
            let never = reap_with_a_panic(&mut reactor, patient(&dir), at);
            assert!(members.ended(TIMEOUT) && !dir.exists() && reactor.is_empty());
            if never {
                assert!(at > 2, "too few messages");
                break;
            }
        }
    });
}

/// Every target is thawed before any handle is told, and each handle is told, though the wakers of all panic: also of those that
/// are queued.
#[test]
fn a_drop_that_panics_leaves_nothing_frozen() {
    require!(cgroups(), namespaces(), fuse());
    isolated(test_name!(), || {
        for hierarchy in Hierarchy::all() {
            let sandbox = Sandbox::new("panic");
            let hung = HungFilesystem::new();
            let mut reactor = Reactor::new().expect("a reactor");
            let (mut dirs, mut handles) = (Vec::new(), Vec::new());
            for number in 0..3 {
                let dir = hierarchy.group(&sandbox, &number.to_string());
                let _ = sandbox.uninterruptible(&hung, &[&dir]);
                let reaper = Reaper::at(&dir).method(KillMethod::Freezer);
                handles.push(reactor.spawn_reaper(reaper).expect("a spawn"));
                dirs.push(dir);
            }
            for number in 0..2 {
                let dir = hierarchy.group(&sandbox, &format!("queued-{number}"));
                handles.push(reactor.remote().spawn_reaper(Reaper::at(dir)).expect("a spawn"));
            }
            handles.iter_mut().for_each(rig);
            assert!(dirs.iter().all(|dir| hierarchy.frozen(dir)), "not in mid-freeze");
            panics(move || drop(reactor));
            let left: Vec<_> = dirs.iter().filter(|dir| hierarchy.frozen(dir)).collect();
            assert!(left.is_empty(), "frozen: {left:?}");
            for handle in handles {
                assert!(matches!(handle.try_wait(), Some(Err(ReapError::Disconnected { .. }))));
            }
            drop(hung);
        }
    });
}
