//! The reactor in every kind of loop, its remotes and handles on other threads, and all of them dropped in
//! every order.

#[path = "../common/mod.rs"]
mod common;
mod completions;
mod guard;
mod large;
mod loops;
mod panics;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{KillMethod, Metrics, Outcome, Reactor, ReapError, ReapHandle, Reaper, Refusal, Remote};
use common::*;
use loops::*;

/// Threads, the loop's own among them, that spawn.
const SPAWNERS: usize = 5;
/// Reaps that each of them spawns before the loop is there, while it runs, and once it is idle.
const PHASES: [usize; 3] = [7, 7, 6];
const REAPS: usize = SPAWNERS * (PHASES[0] + PHASES[1] + PHASES[2]);

/// The results of reaps on other threads.
fn spawn_all(remote: &Remote, dirs: &[PathBuf]) -> Vec<ReapHandle> {
    dirs.iter().map(|dir| remote.spawn_reaper(patient(dir)).expect("a spawn")).collect()
}

/// 100 reaps: before, during and after the start of the loop, from its own thread and from four others.
fn reaps_all(name: &str, make: Make) {
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(name);
        let mut number = 0;
        let mut targets = |count: usize| -> Vec<PathBuf> {
            let target = |_| {
                number += 1;
                let dir = hierarchy.group(&sandbox, &number.to_string());
                let _ = sandbox.sleeper(&[&dir]);
                dir
            };
            (0..count).map(target).collect()
        };
        let [before, during, after] = PHASES.map(|count| [(); SPAWNERS].map(|()| targets(count)));
        let mut reactor = Reactor::new().expect("a reactor");
        let remote = reactor.remote();
        let mut handles: Vec<ReapHandle> = Vec::new();
        let mut expected = 0;

        // Before. The threads are through when the loop comes into being.
        for dir in &before[0] {
            handles.push(reactor.spawn_reaper(patient(dir)).expect("a spawn"));
        }
        thread::scope(|scope| {
            let threads: Vec<_> =
                before[1..].iter().map(|dirs| scope.spawn(|| spawn_all(&remote, dirs))).collect();
            threads.into_iter().for_each(|thread| handles.extend(thread.join().expect("no panic")));
        });
        expected += SPAWNERS * PHASES[0];
        let mut driver = Driver::new(make, &reactor);

        // During.
        let start = Barrier::new(SPAWNERS);
        expected += SPAWNERS * PHASES[1];
        thread::scope(|scope| {
            let threads: Vec<_> = during[1..]
                .iter()
                .map(|dirs| {
                    scope.spawn(|| {
                        start.wait();
                        spawn_all(&remote, dirs)
                    })
                })
                .collect();
            start.wait();
            for dir in &during[0] {
                driver.step(&mut reactor);
                handles.push(reactor.spawn_reaper(patient(dir)).expect("a spawn"));
            }
            driver.finish(&mut reactor, expected as u64);
            threads.into_iter().for_each(|thread| handles.extend(thread.join().expect("no panic")));
        });

        // After: the loop sleeps while the others spawn.
        for dir in &after[0] {
            handles.push(reactor.spawn_reaper(patient(dir)).expect("a spawn"));
        }
        driver.finish(&mut reactor, (expected + PHASES[2]) as u64);
        expected += SPAWNERS * PHASES[2];
        thread::scope(|scope| {
            let threads: Vec<_> = after[1..]
                .iter()
                .map(|dirs| {
                    scope.spawn(|| {
                        thread::sleep(10 * MS);
                        spawn_all(&remote, dirs)
                    })
                })
                .collect();
            driver.finish(&mut reactor, expected as u64);
            threads.into_iter().for_each(|thread| handles.extend(thread.join().expect("no panic")));
        });

        assert_eq!(handles.len(), REAPS);
        for handle in &handles {
            assert_eq!(handle.try_wait().expect("complete").expect("reaped").outcome, Outcome::Removed);
        }
        assert!(reactor.is_empty());
        let turns = driver.turns;
        eprintln!("{name} on {hierarchy:?}: {turns} turns for {REAPS} reaps");
        // A command, an event and a few timers (checks 1, 2, 4, ... ms after the kill) for each at worst.
        assert!(turns <= 8 * REAPS, "{turns} turns for {REAPS} reaps: {:?}", reactor.metrics());

        // The timers are in the descriptor as well: nothing but the deadline wakes the loop in the end.
        let dir = hierarchy.group(&sandbox, "stuck");
        let stuck = sandbox.trace_exit(&[&dir]);
        let spawned = Instant::now();
        let handle = reactor.spawn_reaper(patient(&dir).deadline(50 * MS)).expect("a spawn");
        driver.finish(&mut reactor, (REAPS + 1) as u64);
        assert!(spawned.elapsed() >= 50 * MS);
        assert!(matches!(handle.try_wait(), Some(Err(ReapError::TimedOut { .. }))), "{handle:?}");
        driver.assert_idle(&mut reactor);
        stuck.release();
    }
}

macro_rules! loops {
    ($($make:ident),+) => {
        mod each_loop {
            $(
                #[test]
                fn $make() {
                    crate::require!(super::cgroups());
                    super::reaps_all(crate::test_name!(), super::$make);
                }
            )+
        }
    };
}

loops!(
    own,
    poll_loop,
    epoll_level,
    epoll_edge,
    epoll_edge_late,
    mio_source_fd,
    tokio_async_fd,
    async_io,
    calloop
);

#[test]
fn runs_by_itself_on_a_thread_until_stopped() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let dirs: Vec<PathBuf> = (0..20).map(|n| hierarchy.group(&sandbox, &n.to_string())).collect();
        dirs.iter().for_each(|dir| drop(sandbox.sleeper(&[dir])));
        let mut reactor = Reactor::new().expect("a reactor");
        let remote = reactor.remote();
        let thread = thread::spawn(move || {
            reactor.run().expect("no error");
            reactor
        });
        thread::scope(|scope| {
            for dirs in dirs.chunks(5) {
                scope.spawn(|| {
                    for handle in spawn_all(&remote, dirs) {
                        let reaped = handle.wait_timeout(TIMEOUT).expect("in time").expect("reaped");
                        assert_eq!(reaped.outcome, Outcome::Removed);
                    }
                });
            }
        });
        remote.stop();
        eventually("stop", || thread.is_finished());
        let reactor = thread.join().expect("no panic");
        assert_eq!(reactor.metrics().completed, 20);
    }
}

#[test]
fn a_timeout_from_next_deadline_does_as_well_as_the_descriptor() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let hierarchy = Hierarchy::all()[0];
    let mut reactor = Reactor::new().expect("a reactor");
    // On a busy machine a turn with a budget may be left under way.
    reactor.set_turn_budget(Duration::MAX);
    assert_eq!(reactor.next_deadline(), None);
    let dir = hierarchy.group(&sandbox, "stuck");
    let stuck = sandbox.trace_exit(&[&dir]);
    let handle = reactor.spawn_reaper(patient(&dir).deadline(100 * MS)).expect("a spawn");
    let (end, mut turns) = (Instant::now() + LIMIT, 0);
    while !handle.is_complete() {
        // Timers alone: the descriptor is not polled.
        let due = reactor.next_deadline().expect("a reap under way has a timer");
        assert!(due < end, "{reactor:?}");
        thread::sleep(due.saturating_duration_since(Instant::now()));
        reactor.turn(ZERO).expect("a turn");
        turns += 1;
        assert!(turns < 100, "{reactor:?}");
    }
    assert!(matches!(handle.wait(), Err(ReapError::TimedOut { .. })));
    assert_eq!(reactor.next_deadline(), None);
    stuck.release();
}

#[test]
fn more_events_than_a_turn_takes_reach_an_edge_triggered_loop() {
    require!(v2());
    // Groups within groups, so that the death of one process is an event in each of them; and they are kept,
    // for a removal would be an event too.
    const DEPTH: usize = 400;
    let sandbox = Sandbox::new(test_name!());
    let mut dirs = vec![sandbox.v2("g")];
    while dirs.len() < DEPTH {
        let dir = dirs[dirs.len() - 1].join("g");
        std::fs::create_dir(&dir).expect("mkdir");
        dirs.push(dir);
    }
    // On a busy machine the reaps' timers may fire first, but not each time.
    for attempt in 0.. {
        let stuck = sandbox.trace_exit(&[&dirs[DEPTH - 1]]);
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(epoll_edge_late, &reactor);
        let handles: Vec<ReapHandle> =
            dirs.iter().map(|dir| reactor.spawn_reaper(patient(dir).keep_dir()).expect("a spawn")).collect();
        // They check 1, 2, 4, ... ms after the kill. The last of these is a second ago when each has checked
        // ten times, the next a second ahead.
        while reactor.metrics().timers < 10 * DEPTH as u64 {
            driver.step(&mut reactor);
        }
        driver.settle(&mut reactor);
        assert_eq!(reactor.len(), DEPTH);
        let timers = reactor.metrics().timers;
        stuck.release();
        eventually("all empty", || !populated(&dirs[0]));
        driver.turns = 0;
        while !reactor.is_empty() {
            driver.step(&mut reactor);
        }
        for handle in handles {
            assert_eq!(handle.try_wait().expect("complete").expect("reaped").outcome, Outcome::Emptied);
        }
        if reactor.metrics().timers == timers {
            eprintln!("{DEPTH} events: {} turns, {} attempts before", driver.turns, attempt);
            return;
        }
        assert!(attempt < 5, "not without timers: {:?}", reactor.metrics());
    }
}

#[test]
fn a_full_rate_of_commands_leaves_none_unseen() {
    require!(cgroups());
    const THREADS: usize = 4;
    const EACH: usize = 500;
    for make in [poll_loop as Make, epoll_level, epoll_edge, epoll_edge_late] {
        let sandbox = Sandbox::new(test_name!());
        let dir = Hierarchy::all()[0].missing(&sandbox, "missing");
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(make, &reactor);
        let remote = reactor.remote();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| -> Vec<ReapHandle> {
                        (0..EACH).map(|_| remote.spawn_reaper(Reaper::at(&dir)).expect("a spawn")).collect()
                    })
                })
                .collect();
            while reactor.metrics().completed < (THREADS * EACH) as u64 {
                driver.step(&mut reactor);
            }
            for thread in threads {
                for handle in thread.join().expect("no panic") {
                    let reaped = handle.try_wait().expect("complete").expect("reaped");
                    assert_eq!(reaped.outcome, Outcome::AlreadyGone);
                }
            }
        });
        driver.finish(&mut reactor, (THREADS * EACH) as u64);
        eprintln!("{} turns for {} commands", driver.turns, THREADS * EACH);
        assert!(driver.turns <= THREADS * EACH + 2, "{} turns", driver.turns);
        driver.assert_idle(&mut reactor);
    }
}

#[test]
fn many_commands_at_once_take_several_turns_and_wake_for_each() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].missing(&sandbox, "missing");
    for make in [poll_loop as Make, epoll_edge, own] {
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(make, &reactor);
        let remote = reactor.remote();
        let handles: Vec<_> =
            (0..2000).map(|_| remote.spawn_reaper(Reaper::at(&dir)).expect("a spawn")).collect();
        let first = driver.step(&mut reactor);
        assert!((1..2000).contains(&first), "the work of a turn is bounded: {first}");
        driver.finish(&mut reactor, 2000);
        assert!(handles.iter().all(ReapHandle::is_complete));
        driver.assert_idle(&mut reactor);
    }
}

#[test]
fn extra_turns_are_no_ops() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let dir = hierarchy.group(&sandbox, "stuck");
        let stuck = sandbox.trace_exit(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        for _ in 0..1000 {
            assert_eq!(reactor.turn(ZERO).expect("a turn"), 0);
        }
        let Metrics { wakeups, calls, .. } = reactor.metrics();
        assert_eq!((wakeups, calls.epoll_wait, calls.timerfd_settime, calls.read), (0, 1000, 0, 0));
        let handle = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
        for _ in 0..1000 {
            assert_eq!(reactor.turn(ZERO).expect("a turn"), 0);
        }
        // One attempt at the spawn, and no other; one check for each event and timer, and no other.
        let metrics = reactor.metrics();
        assert!(metrics.cgroup_kills + metrics.signals <= 2, "{metrics:?}");
        assert!(metrics.checks <= 2 + metrics.events + metrics.timers, "{metrics:?}");
        assert!(metrics.wakeups <= metrics.events + metrics.timers + 2, "{metrics:?}");
        stuck.release();
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    }
}

#[test]
fn reaps_that_only_wait_cost_next_to_nothing() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(epoll_level, &reactor);
        let stuck: Vec<TraceExit> =
            (0..5).map(|n| sandbox.trace_exit(&[&hierarchy.group(&sandbox, &n.to_string())])).collect();
        let handles: Vec<ReapHandle> = (0..5)
            .map(|n| hierarchy.group(&sandbox, &n.to_string()))
            .map(|dir| reactor.spawn_reaper(patient(&dir)).expect("a spawn"))
            .collect();
        // The checks that follow a kill become rarer.
        let soon = |reactor: &Reactor| {
            let next = reactor.next_deadline().expect("a timer");
            next < Instant::now() + Duration::from_secs(2)
        };
        while soon(&reactor) {
            driver.step(&mut reactor);
        }
        let (end, mut wakes) = (Instant::now() + Duration::from_secs(1), 0);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if driver.outer.step(&mut reactor, left.max(MS)).expect("a turn").is_none() {
                break;
            }
            wakes += 1;
            assert!(wakes <= 5, "{wakes} wake-ups: {reactor:?}");
        }
        stuck.iter().for_each(TraceExit::release);
        driver.finish(&mut reactor, 5);
        assert!(handles.iter().all(|handle| handle.try_wait().is_some_and(|result| result.is_ok())));
    }
}

#[test]
fn a_signal_is_no_error() {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&interrupted)).expect("a handler");
    let (send, thread_id) = channel();
    let thread = thread::spawn(move || {
        send.send(nix::sys::pthread::pthread_self()).expect("the test goes on");
        let mut reactor = Reactor::new().expect("a reactor");
        let result = reactor.turn(Some(TIMEOUT));
        (result, reactor.metrics())
    });
    let id = thread_id.recv().expect("the thread lives");
    // Again and again, for the first ones may come before the thread sleeps.
    eventually("end of the turn", || {
        if !thread.is_finished() {
            // Not joined yet, so the id is still the thread's.
            nix::sys::pthread::pthread_kill(id, nix::sys::signal::SIGUSR1).expect("a thread to signal");
        }
        thread.is_finished()
    });
    let (result, metrics) = thread.join().expect("no panic");
    assert_eq!(result.expect("no error"), 0);
    assert_eq!(metrics.wakeups, 0);
    assert!(interrupted.load(Ordering::Relaxed));
}

// Handles.

#[test]
fn a_handle_answers_the_same_as_often_as_asked() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].group(&sandbox, "stuck");
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let remote = reactor.remote();
    let thread = thread::spawn(move || reactor.run());
    let handle = remote.spawn_reaper(patient(&dir)).expect("a spawn");
    let asked = Instant::now();
    assert_eq!(handle.wait_timeout(50 * MS).map(drop), None);
    assert!(asked.elapsed() >= 50 * MS);
    assert_eq!(handle.wait_timeout(Duration::ZERO).map(drop), None);
    assert!(handle.try_wait().is_none() && !handle.is_complete());
    stuck.release();
    let (first, handle) = in_time(move || (handle.wait_timeout(Duration::MAX), handle));
    let first = first.expect("no timeout").expect("reaped");
    assert_eq!(first.outcome, Outcome::Removed);
    for _ in 0..3 {
        assert_eq!(handle.wait().expect("reaped"), first);
        assert_eq!(handle.try_wait().expect("complete").expect("reaped"), first);
        assert_eq!(handle.wait_timeout(Duration::ZERO).expect("complete").expect("reaped"), first);
    }
    // Too late, and without effect.
    handle.cancel();
    assert_eq!(block_on(handle).expect("reaped"), first);
    remote.stop();
    join(thread).expect("no error");
}

#[test]
fn cancel_from_another_thread() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let dir = hierarchy.group(&sandbox, "stuck");
        let stuck = sandbox.trace_exit(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(epoll_edge, &reactor);
        // Of a reap under way.
        let handle = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
        thread::scope(|scope| {
            scope.spawn(|| handle.cancel());
            while !handle.is_complete() {
                driver.step(&mut reactor);
            }
        });
        assert!(matches!(handle.wait(), Err(ReapError::Cancelled { .. })), "{handle:?}");
        assert!(reactor.is_empty());
        // Of one that waits in the queue: nothing is done then.
        let other = hierarchy.group(&sandbox, "other");
        let sleeper = sandbox.sleeper(&[&other]);
        let queued = reactor.remote().spawn_reaper(patient(&other)).expect("a spawn");
        thread::scope(|scope| drop(scope.spawn(|| queued.cancel())));
        driver.finish(&mut reactor, 2);
        assert!(matches!(queued.try_wait(), Some(Err(ReapError::Cancelled { .. }))), "{queued:?}");
        assert!(sleeper.alive());
        // Several times and afterwards: no-ops.
        for handle in [&handle, &handle, &queued] {
            handle.cancel();
        }
        driver.assert_idle(&mut reactor);
        stuck.release();
    }
}

#[test]
fn a_timer_that_is_no_longer_needed_wakes_nothing() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].group(&sandbox, "stuck");
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let mut driver = Driver::new(epoll_level, &reactor);
    // The deadline would be within the second below.
    let handle = reactor.spawn_reaper(patient(&dir).deadline(700 * MS)).expect("a spawn");
    handle.cancel();
    driver.finish(&mut reactor, 1);
    driver.assert_idle(&mut reactor);
    stuck.release();
}

#[test]
fn cancel_in_mid_freeze_leaves_nothing_frozen() {
    require!(cgroups(), namespaces(), fuse());
    isolated(test_name!(), || {
        for hierarchy in Hierarchy::all() {
            mid_freeze(test_name!(), hierarchy, |mut reactor, handle, dir| {
                handle.cancel();
                let result = reactor.run_until(&handle).expect("no error");
                assert!(!hierarchy.frozen(dir));
                assert!(matches!(result, Err(ReapError::Cancelled { .. })), "{result:?}");
            });
        }
    });
}

/// Calls `then` during a freeze. A member that sleeps in a filesystem that does not answer keeps it from
/// completing.
fn mid_freeze(name: &str, hierarchy: Hierarchy, then: impl FnOnce(Reactor, ReapHandle, &Path)) {
    let sandbox = Sandbox::new(name);
    let hung = HungFilesystem::new();
    let dir = hierarchy.group(&sandbox, "target");
    let _stuck = sandbox.uninterruptible(&hung, &[&dir]);
    let _others = sandbox.sleepers(3, &[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = reactor.spawn_reaper(Reaper::at(&dir).method(KillMethod::Freezer)).expect("a spawn");
    assert!(hierarchy.frozen(&dir) && !handle.is_complete());
    then(reactor, handle, &dir);
    drop(hung);
}

/// The least that an executor can be.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(Instant::now() < end, "never woken");
        thread::park_timeout(TIMEOUT);
    }
}

#[test]
fn a_handle_is_a_future_in_any_executor() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let group = |name| {
        let dir = Hierarchy::all()[0].group(&sandbox, name);
        let _ = sandbox.sleeper(&[&dir]);
        dir
    };
    let mut reactor = Reactor::new().expect("a reactor");
    let remote = reactor.remote();
    let thread = thread::spawn(move || reactor.run());

    let one = remote.spawn_reaper(patient(&group("one"))).expect("a spawn");
    assert_eq!(block_on(one).expect("reaped").outcome, Outcome::Removed);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let two = remote.spawn_reaper(patient(&group("two"))).expect("a spawn");
    let task = runtime.spawn(two);
    let reaped = in_time(move || runtime.block_on(task)).expect("no panic");
    assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);

    let three = remote.spawn_reaper(patient(&group("three"))).expect("a spawn");
    let stopper = remote.clone();
    let reaped = in_time(move || async_io::block_on(three));
    assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);
    stopper.stop();
    join(thread).expect("no error");
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_last_waker_is_woken_once_and_none_outlives_its_handle() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].group(&sandbox, "stuck");
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let mut handle = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
    let mut dropped = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
    let poll = |handle: &mut ReapHandle, count: &Arc<Count>| {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(handle).poll(&mut Context::from_waker(&waker)).is_ready()
    };
    let counts: [Arc<Count>; 3] = Default::default();
    assert!(!poll(&mut handle, &counts[0]) && !poll(&mut handle, &counts[1]));
    assert!(!poll(&mut handle, &counts[1]) && !poll(&mut dropped, &counts[2]));
    let holders = |n: usize| Arc::strong_count(&counts[n]) - 1;
    assert_eq!([0, 1, 2].map(holders), [0, 1, 1]);
    drop(dropped);
    assert_eq!([0, 1, 2].map(holders), [0, 1, 0]);
    stuck.release();
    drive(&mut reactor, "both reaps", |metrics| metrics.completed == 2);
    assert_eq!([0, 1, 2].map(|n: usize| counts[n].0.load(Ordering::Relaxed)), [0, 1, 0]);
    assert_eq!(holders(1), 0);
    assert!(poll(&mut handle, &counts[0]) && poll(&mut handle, &counts[0]));
}

/// A waker that runs the test's code when it is woken, cloned or dropped.
struct Foreign(Box<dyn Fn() + Send + Sync>);

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn wakers_may_use_handles_and_remotes() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let hierarchy = Hierarchy::all()[0];
    let dir = hierarchy.group(&sandbox, "target");
    let _ = sandbox.sleeper(&[&dir]);
    let missing = hierarchy.missing(&sandbox, "missing");
    let (done, result) = channel();
    // On a thread of its own, since what goes wrong is a deadlock.
    thread::spawn(move || {
        let mut reactor = Reactor::new().expect("a reactor");
        let handle = Arc::new(std::sync::Mutex::new(reactor.spawn_reaper(patient(&dir)).expect("a spawn")));
        let observer = Arc::new(reactor.spawn_reaper(patient(&dir)).expect("a spawn"));
        let remote = reactor.remote();
        let calls = Arc::new(AtomicUsize::new(0));
        let foreign = || {
            let (observer, remote, missing) = (Arc::clone(&observer), remote.clone(), missing.clone());
            let calls = Arc::clone(&calls);
            Waker::from(Arc::new(Foreign(Box::new(move || {
                let _ = (observer.try_wait(), observer.cancel());
                drop(remote.spawn_reaper(Reaper::at(&missing)));
                calls.fetch_add(1, Ordering::Relaxed);
            }))))
        };
        for _ in 0..2 {
            let mut handle = handle.lock().expect("no panic");
            let _ = Pin::new(&mut *handle).poll(&mut Context::from_waker(&foreign()));
        }
        reactor.run_until_idle().expect("no error");
        done.send((calls.load(Ordering::Relaxed), reactor.metrics().completed)).expect("the test goes on");
    });
    let (calls, completed) = result.recv_timeout(TIMEOUT).expect("a deadlock");
    // The first is replaced; the second woken and dropped.
    assert_eq!(calls, 3);
    assert_eq!(completed, 2 + 3);
}

#[test]
fn run_until_is_for_handles_of_this_reactor() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].missing(&sandbox, "missing");
    in_time(move || {
        let mut reactor = Reactor::new().expect("a reactor");
        let mut other = Reactor::new().expect("a reactor");
        let handle = other.remote().spawn_reaper(Reaper::at(&dir)).expect("a spawn");
        let error = reactor.run_until(&handle).expect_err("it would never end");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let reaped = other.run_until(&handle).expect("no error").expect("reaped");
        assert_eq!(reaped.outcome, Outcome::AlreadyGone);
        // The handle keeps the result: each caller gets it.
        assert_eq!(other.run_until(&handle).expect("no error").expect("reaped"), reaped);
        assert_eq!(handle.wait().expect("reaped"), reaped);
        // What is in the queue is not idle.
        let handle = other.remote().spawn_reaper(Reaper::at(&dir)).expect("a spawn");
        other.run_until_idle().expect("no error");
        assert!(handle.is_complete());
    });
}

// Ends.

#[test]
fn a_remote_of_a_dropped_reactor_hands_the_reaper_back() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].group(&sandbox, "target");
    let sleeper = sandbox.sleeper(&[&dir]);
    let reactor = Reactor::new().expect("a reactor");
    let remote = reactor.remote();
    drop(reactor);
    let reaper = patient(&dir).deadline(7 * MS).keep_dir();
    let error = remote.spawn_reaper(reaper.clone()).expect_err("the reactor is gone");
    assert!(matches!(error.refusal(), Refusal::Disconnected), "{error}");
    assert_eq!(error.into_reaper(), reaper);
    remote.stop();
    assert!(sleeper.alive());
}

#[test]
fn spawns_that_race_with_the_drop_fail_or_disconnect_but_never_hang() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].missing(&sandbox, "missing");
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..200 {
        let mut reactor = Reactor::new().expect("a reactor");
        let remote = reactor.remote();
        let start = Barrier::new(3);
        let dir = dir.clone();
        let race = move || {
            thread::scope(|scope| {
                let spawner = || {
                    start.wait();
                    (0..8).map(|_| remote.spawn_reaper(Reaper::at(&dir))).collect::<Vec<_>>()
                };
                let threads = [scope.spawn(spawner), scope.spawn(spawner)];
                start.wait();
                for _ in 0..round % 8 {
                    reactor.turn(ZERO).expect("a turn");
                }
                drop(reactor);
                threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
            })
        };
        let handles = in_time(race);
        for spawned in handles {
            match spawned {
                Ok(handle) => {
                    accepted += 1;
                    match handle.wait_timeout(TIMEOUT).expect("never completed") {
                        Ok(reaped) => assert_eq!(reaped.outcome, Outcome::AlreadyGone),
                        Err(error) => assert!(matches!(error, ReapError::Disconnected { .. }), "{error}"),
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error.refusal(), Refusal::Disconnected), "{error}");
                }
            }
        }
    }
    eprintln!("{accepted} accepted, {refused} refused");
}

/// In what state a reap is when its parts are dropped.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Handed to the remote, not seen by the reactor.
    Queued,
    /// Killed, and not yet exited.
    Stuck,
    /// Killed, and frozen by an ancestor that another program froze.
    Held,
}

const ORDERS: [[u8; 3]; 6] = [*b"ARH", *b"AHR", *b"RAH", *b"RHA", *b"HAR", *b"HRA"];

#[test]
fn parts_dropped_in_any_order_leave_no_descriptor_and_nothing_frozen() {
    require!(cgroups());
    // The descriptors of other tests are not to be counted.
    isolated(test_name!(), || {
        for hierarchy in Hierarchy::all() {
            for state in [State::Queued, State::Stuck, State::Held] {
                // On v2 a freeze does not keep SIGKILL from its work.
                if !(matches!(state, State::Held) && hierarchy == Hierarchy::V2) {
                    ORDERS.iter().for_each(|order| drop_in_order(hierarchy, state, order));
                }
            }
        }
    });
}

fn drop_in_order(hierarchy: Hierarchy, state: State, order: &[u8; 3]) {
    let sandbox = Sandbox::new("drops");
    let above = hierarchy.group(&sandbox, "above");
    let dir = hierarchy.group(&sandbox, "above/target");
    let stuck = matches!(state, State::Stuck).then(|| sandbox.trace_exit(&[&dir]));
    let sleeper = sandbox.sleeper(&[&dir]);
    if matches!(state, State::Held) {
        freeze_v1(&above);
    }
    let fds = open_fds();
    let mut made = Reactor::new().expect("a reactor");
    let remote = made.remote();
    let handle = match state {
        State::Queued => remote.spawn_reaper(patient(&dir)).expect("a spawn"),
        _ => made.spawn_reaper(patient(&dir)).expect("a spawn"),
    };
    if !matches!(state, State::Queued) {
        for _ in 0..5 {
            made.turn(Some(MS)).expect("a turn");
        }
    }
    assert!(!handle.is_complete(), "{handle:?}");
    let (mut reactor, mut remote, mut handle) = (Some(made), Some(remote), Some(handle));
    for part in order {
        match part {
            b'A' => {
                drop(reactor.take());
                if let Some(handle) = &handle {
                    let result = handle.try_wait().expect("complete as soon as the reactor is gone");
                    assert!(matches!(result, Err(ReapError::Disconnected { .. })), "{result:?}");
                    handle.cancel();
                    assert!(matches!(handle.wait(), Err(ReapError::Disconnected { .. })));
                }
            }
            b'R' => drop(remote.take()),
            _ => drop(handle.take()),
        }
        if let Some(reactor) = &mut reactor {
            // Detached, not cancelled, and the reactor works on without its remote.
            reactor.turn(ZERO).expect("a turn");
            assert_eq!(reactor.len(), 1, "{state:?} {reactor:?}");
            if !matches!(state, State::Queued) {
                assert_eq!(reactor.metrics().completed, 0);
            }
        }
        if matches!(state, State::Queued) && reactor.is_some() {
            // The turn above has admitted it, and perhaps killed: that is another state.
            break;
        }
    }
    drop((reactor, remote, handle));
    assert_eq!(open_fds(), fds, "descriptors after {state:?} {}", String::from_utf8_lossy(order));
    assert!(!hierarchy.frozen(&dir));
    if matches!(state, State::Held) {
        // Not ours, so not thawed.
        assert_eq!(freezer_state(&above), "FROZEN");
        thaw_v1(&above);
    }
    if let Some(stuck) = stuck {
        stuck.release();
        assert!(stuck.ended(TIMEOUT));
    }
    if !matches!(state, State::Queued) {
        // SIGKILL had been sent.
        assert!(sleeper.ended(TIMEOUT));
    }
}

#[test]
fn a_drop_in_mid_freeze_leaves_nothing_frozen() {
    require!(cgroups(), namespaces(), fuse());
    isolated(test_name!(), || {
        for hierarchy in Hierarchy::all() {
            for order in ORDERS {
                mid_freeze(test_name!(), hierarchy, |reactor, handle, dir| {
                    let (mut remote, mut reactor) = (Some(reactor.remote()), Some(reactor));
                    let mut handle = Some(handle);
                    for part in order {
                        match part {
                            b'A' => drop(reactor.take()),
                            b'R' => drop(remote.take()),
                            _ => drop(handle.take()),
                        }
                        assert!(reactor.is_some() || !hierarchy.frozen(dir));
                        let result = handle.as_ref().and_then(ReapHandle::try_wait);
                        assert_eq!(reactor.is_some(), result.is_none() && reactor.is_some(), "{result:?}");
                    }
                    assert!(!hierarchy.frozen(dir));
                });
            }
        }
    });
}

#[test]
fn completed_reaps_leave_no_descriptors() {
    require!(cgroups());
    isolated(test_name!(), || {
        for hierarchy in Hierarchy::all() {
            let sandbox = Sandbox::new("descriptors");
            let dirs: Vec<PathBuf> = (0..20).map(|n| hierarchy.group(&sandbox, &n.to_string())).collect();
            dirs.iter().for_each(|dir| drop(sandbox.sleepers(2, &[dir])));
            let none = open_fds();
            let mut reactor = Reactor::new().expect("a reactor");
            let missing = hierarchy.missing(&sandbox, "missing");
            // What it opens once and keeps.
            let gone = reactor.spawn_reaper(Reaper::at(&missing)).expect("a spawn");
            reactor.run_until(&gone).expect("no error").expect("reaped");
            let first = reactor.spawn_reaper(patient(&dirs[0])).expect("a spawn");
            reactor.run_until(&first).expect("no error").expect("reaped");
            let idle = open_fds();
            let handles: Vec<_> =
                dirs[1..].iter().map(|dir| reactor.spawn_reaper(patient(dir)).expect("a spawn")).collect();
            reactor.run_until_idle().expect("no error");
            assert!(handles.iter().all(|handle| handle.wait().is_ok()));
            assert_eq!(open_fds(), idle);
            assert_eq!(reactor.metrics().descriptors, 0);
            drop((reactor, handles, gone, first));
            assert_eq!(open_fds(), none);
        }
    });
}

// Types.

#[test]
fn send_and_sync_are_as_documented() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn remote<T: Clone + Send + Sync + 'static>() {}
    send::<Reactor>();
    remote::<Remote>();
    send::<ReapHandle>();
    sync::<ReapHandle>();
    fn future<T: Future<Output = Result<cgroup_reaper::Reaped, ReapError>> + Unpin + 'static>() {}
    future::<ReapHandle>();
    send::<Reaper>();
    sync::<Reaper>();
    send::<ReapError>();
    sync::<ReapError>();
    send::<cgroup_reaper::SpawnError>();
    sync::<cgroup_reaper::SpawnError>();
}

/// Does not compile if `Reactor` is `Sync`: there are two candidates for `A` then.
#[test]
fn a_reactor_is_not_sync() {
    trait AmbiguousIfSync<A> {
        fn check() {}
    }
    impl<T: ?Sized> AmbiguousIfSync<()> for T {}
    struct Other;
    impl<T: ?Sized + Sync> AmbiguousIfSync<Other> for T {}
    <Reactor as AmbiguousIfSync<_>>::check();
}

/// The signatures of everything public name nothing of the dependencies, so that a release of theirs is
/// none of ours.
#[test]
fn no_type_of_a_dependency_is_in_the_public_api() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    if !root.exists() {
        return skip(test_name!(), "there are no sources here");
    }
    let crates = ["mio", "nix", "slab", "libc", "log"];
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut signatures = 0;
    for entry in std::fs::read_dir(root).expect("src").flatten() {
        // The directories have private modules and the program.
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let mut foreign: Vec<&str> = crates.to_vec();
        for line in text.lines().map(str::trim) {
            let Some(import) = line.strip_prefix("use ") else { continue };
            if crates.iter().any(|name| import.starts_with(&format!("{name}::"))) {
                // `mio::unix::SourceFd` and `nix::fcntl::{self, OFlag}` alike; not `io::Result` and others.
                let names = import.split(|c| !word(c)).filter(|name| name.starts_with(char::is_uppercase));
                foreign.extend(names.filter(|name| !["Result", "Error"].contains(name)));
            }
        }
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let from = &text[at..];
            at += line.len();
            let mut words = line.split_whitespace();
            let end = match (words.next(), words.next(), words.next()) {
                (Some("pub"), Some("enum" | "trait"), _) => from.find("\n}"),
                (Some("pub"), Some("const"), Some(name)) if name != "fn" => from.find(" = "),
                (Some("pub"), Some("fn" | "const" | "struct" | "use" | "type" | "mod"), _) => {
                    from.find(['{', ';'])
                }
                (Some("pub"), _, _) => Some(line.len()),
                (Some(word), _, _) if word.starts_with("impl") => from.find('{'),
                _ => continue,
            };
            let signature = &from[..end.unwrap_or(from.len())];
            signatures += 1;
            for name in signature.split(|c| !word(c)) {
                assert!(!foreign.contains(&name), "{}: {signature}", entry.path().display());
            }
        }
    }
    assert!(signatures > 50, "only {signatures} signatures found");
}
