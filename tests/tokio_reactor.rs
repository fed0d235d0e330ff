//! The feature `tokio`: a reactor as a task, in both kinds of runtime, and everything dropped in every order.

mod common;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{
    KillMethod, Outcome, Reactor, ReapError, ReapHandle, Reaper, Refusal, Remote, Signal, TokioReactor,
};
use common::*;
use tokio::runtime::{Builder, Runtime};

fn runtimes() -> [Runtime; 2] {
    [Builder::new_current_thread(), Builder::new_multi_thread()]
        .map(|mut builder| builder.worker_threads(2).enable_all().build().expect("a runtime"))
}

/// Some writable hierarchy.
fn cgroups() -> Result<(), String> {
    v2().or_else(|_| v1("freezer"))
}

fn group(sandbox: &Sandbox, name: &str) -> PathBuf {
    if v2().is_ok() { sandbox.v2(name) } else { sandbox.v1("freezer", name) }
}

fn is_frozen(dir: &Path) -> bool {
    let read = |file| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    read("cgroup.freeze").trim() == "1" || read("freezer.self_freezing").trim() == "1"
}

#[track_caller]
fn in_time<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, future).await }).expect("in time")
}

#[test]
fn each_of_a_hundred_reaps_is_awaited() {
    require!(cgroups());
    for runtime in runtimes() {
        let sandbox = Sandbox::new(test_name!());
        let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
        // A third of them end in the first check.
        let target = |number: usize| {
            let dir = group(&sandbox, &number.to_string());
            if number % 3 > 0 {
                drop(sandbox.sleeper(&[&dir]));
            }
            dir
        };
        let dirs: Vec<PathBuf> = (0..100).map(target).collect();
        let tasks: Vec<_> = dirs
            .iter()
            .map(|dir| {
                // Tags do no harm.
                let (remote, reaper) = (reactor.remote(), slow(Reaper::at(dir)).tag(1));
                runtime.spawn(async move { remote.spawn_reaper(reaper).expect("a spawn").await })
            })
            .collect();
        for task in tasks {
            let reaped = in_time(&runtime, task).expect("no panic").expect("reaped");
            assert_eq!(reaped.outcome, Outcome::Removed);
        }
        in_time(&runtime, reactor.shutdown()).expect("no error");
        assert!(dirs.iter().all(|dir| !dir.exists()));
    }
}

/// Reaps that wait for ever, some of them in mid-freeze.
fn stuck(sandbox: &Sandbox, reactor: &TokioReactor) -> Vec<(PathBuf, TraceExit, ReapHandle)> {
    let spawn = |number: usize| {
        let dir = group(sandbox, &number.to_string());
        let member = sandbox.trace_exit(&[&dir]);
        let reaper = match number % 3 {
            0 => Reaper::at(&dir).method(KillMethod::Freezer),
            1 => Reaper::at(&dir).grace(Signal::TERM, Duration::from_secs(3600)),
            _ => Reaper::at(&dir).when_empty(),
        };
        let handle = reactor.spawn_reaper(reaper).expect("a spawn");
        (dir, member, handle)
    };
    (0..6).map(spawn).collect()
}

/// The reaps ended like this, and nothing is frozen.
fn check(reaps: Vec<(PathBuf, TraceExit, ReapHandle)>, expected: fn(&ReapError) -> bool) {
    for (dir, member, handle) in reaps {
        let result = handle.wait_timeout(TIMEOUT).expect("complete");
        assert!(result.as_ref().is_err_and(expected), "{result:?}");
        assert!(!is_frozen(&dir));
        member.release();
    }
}

/// Later spawns are refused.
fn assert_refuses(remote: &Remote, sandbox: &Sandbox) {
    let refused = remote.spawn_reaper(Reaper::at(group(sandbox, "late"))).expect_err("refused");
    assert!(matches!(refused.refusal(), Refusal::Disconnected));
}

fn is_cancelled(error: &ReapError) -> bool {
    matches!(error, ReapError::Cancelled { .. })
}

fn is_disconnected(error: &ReapError) -> bool {
    matches!(error, ReapError::Disconnected { .. })
}

#[test]
fn a_shutdown_cancels_what_is_left() {
    require!(cgroups());
    for runtime in runtimes() {
        let sandbox = Sandbox::new(test_name!());
        let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
        let remote = reactor.remote();
        let reaps = stuck(&sandbox, &reactor);
        in_time(&runtime, async { tokio::time::sleep(Duration::from_millis(50)).await });
        in_time(&runtime, reactor.shutdown()).expect("no error");
        check(reaps, is_cancelled);
        assert_refuses(&remote, &sandbox);
    }
}

/// A signal comes in mid-run, as at Ctrl-C. What waits for it shuts the reactor down, while tasks await their reaps.
#[test]
fn a_signal_shuts_it_down() {
    require!(cgroups());
    let (read, write) = UnixStream::pair().expect("a pair");
    signal_hook::low_level::pipe::register(libc::SIGUSR2, write.try_clone().expect("dup"))
        .expect("a handler");
    read.set_nonblocking(true).expect("a socket");
    for runtime in runtimes() {
        let sandbox = Sandbox::new(test_name!());
        let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
        let mut awaited = stuck(&sandbox, &reactor);
        let rest = awaited.split_off(3);
        let tasks: Vec<_> =
            awaited.into_iter().map(|(dir, member, handle)| (dir, member, runtime.spawn(handle))).collect();
        signal_hook::low_level::raise(libc::SIGUSR2).expect("a signal");
        in_time(&runtime, async {
            let read = read.try_clone().expect("dup");
            let signal = tokio::net::UnixStream::from_std(read).expect("a socket");
            signal.readable().await.expect("a signal");
            signal.try_read(&mut [0; 8]).expect("a signal");
            reactor.shutdown().await.expect("no error");
        });
        for (dir, member, task) in tasks {
            let result = in_time(&runtime, task).expect("no panic");
            assert!(result.as_ref().is_err_and(is_cancelled), "{result:?}");
            assert!(!is_frozen(&dir));
            member.release();
        }
        check(rest, is_cancelled);
    }
}

#[test]
fn dropped_in_every_order_nothing_is_left_frozen() {
    require!(cgroups());
    for order in 0..4 {
        for runtime in runtimes() {
            let sandbox = Sandbox::new(test_name!());
            let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
            let remote = reactor.remote();
            let reaps = stuck(&sandbox, &reactor);
            let mut runtime = Some(runtime);
            match order {
                // The reactor, while the runtime goes on.
                0 => {
                    drop(reactor);
                    let runtime = runtime.as_ref().expect("kept");
                    in_time(runtime, async { tokio::time::sleep(Duration::from_millis(20)).await });
                }
                1 => drop((reactor, runtime.take())),
                2 => drop((runtime.take(), reactor)),
                // A shutdown that is not waited for.
                _ => {
                    let runtime = runtime.as_ref().expect("kept");
                    in_time(runtime, async {
                        let zero = tokio::time::timeout(Duration::ZERO, reactor.shutdown()).await;
                        // On a thread of its own the task may have been faster.
                        drop(zero);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    });
                }
            }
            check(reaps, |error| is_disconnected(error) || is_cancelled(error));
            assert!(remote.spawn_reaper(Reaper::at("/sys")).is_err());
            drop(runtime);
        }
    }
}

/// What is dropped while the runtime does not run ends at once.
#[test]
fn a_drop_does_not_need_the_runtime() {
    require!(cgroups());
    for in_the_runtime in [false, true] {
        let [runtime, _] = runtimes();
        let sandbox = Sandbox::new(test_name!());
        let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
        let remote = reactor.remote();
        let reaps = stuck(&sandbox, &reactor);
        let dirs: Vec<PathBuf> = reaps.iter().map(|(dir, _, _)| dir.clone()).collect();
        let kept = in_time(&runtime, async move {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(50) && !dirs.iter().any(|dir| is_frozen(dir)) {
                tokio::task::yield_now().await;
            }
            // The last that the runtime does. Some target is frozen now, unless its freeze was too short to be seen.
            (!in_the_runtime).then_some(reactor)
        });
        drop(kept);
        assert_refuses(&remote, &sandbox);
        check(reaps, is_disconnected);
    }
}

/// Drops a reactor when it is woken.
struct Dropper(Mutex<Option<TokioReactor>>);

impl Wake for Dropper {
    fn wake(self: Arc<Self>) {
        let reactor = self.0.lock().expect("no panic").take();
        drop(reactor);
    }
}

#[test]
fn a_waker_drops_the_reactor_in_a_turn() {
    require!(cgroups());
    for runtime in runtimes() {
        let sandbox = Sandbox::new(test_name!());
        let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
        let remote = reactor.remote();
        let reaps = stuck(&sandbox, &reactor);
        let dropper = Arc::new(Dropper(Mutex::new(Some(reactor))));
        let dir = group(&sandbox, "waited-for");
        let member = sandbox.sleeper(&[&dir]);
        let mut awaited = remote.spawn_reaper(Reaper::at(&dir).when_empty()).expect("a spawn");
        let waker = Waker::from(Arc::clone(&dropper));
        assert!(Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker)).is_pending());
        member.signal(libc::SIGKILL);
        // On a thread of its own: a turn that never returns fails the test.
        let (end, ended) = mpsc::channel::<()>();
        let runs = thread::spawn(move || {
            runtime.block_on(async {
                while ended.try_recv() == Err(TryRecvError::Empty) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        });
        let awaited = awaited.wait_timeout(TIMEOUT).expect("complete");
        assert_eq!(awaited.expect("reaped").outcome, Outcome::Removed);
        check(reaps, is_disconnected);
        assert!(dropper.0.lock().expect("no panic").is_none());
        drop(end);
        runs.join().expect("no panic");
    }
}

/// Panics when it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[test]
fn a_panic_of_a_waker_ends_the_task() {
    require!(cgroups());
    for runtime in runtimes() {
        let sandbox = Sandbox::new(test_name!());
        let reactor = runtime.block_on(async { TokioReactor::new() }).expect("a reactor");
        let remote = reactor.remote();
        let reaps = stuck(&sandbox, &reactor);
        let dir = group(&sandbox, "waited-for");
        let member = sandbox.sleeper(&[&dir]);
        let mut awaited = remote.spawn_reaper(Reaper::at(&dir).when_empty()).expect("a spawn");
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker)).is_pending());
        member.signal(libc::SIGKILL);
        in_time(&runtime, async {
            while !reaps.iter().all(|(_, _, handle)| handle.is_complete()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(awaited.wait().expect("reaped").outcome, Outcome::Removed);
        check(reaps, is_disconnected);
        assert_refuses(&remote, &sandbox);
        let error = in_time(&runtime, reactor.shutdown()).expect_err("the panic");
        let source = error.get_ref().and_then(|source| source.downcast_ref::<tokio::task::JoinError>());
        assert!(source.is_some_and(tokio::task::JoinError::is_panic), "{error:?}");
    }
}

#[test]
fn a_reactor_of_the_callers_own_is_driven() {
    require!(cgroups());
    for runtime in runtimes() {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(Duration::ZERO);
        // Spawned before the task is there.
        let dir = group(&sandbox, "before");
        drop(sandbox.sleeper(&[&dir]));
        let before = reactor.spawn_reaper(Reaper::at(&dir)).expect("a spawn");
        let reactor = runtime.block_on(async { TokioReactor::drive(reactor) }).expect("a task");
        assert_eq!(in_time(&runtime, before).expect("reaped").outcome, Outcome::Removed);
        let guarded = group(&sandbox, "guarded");
        drop(reactor.guard(Reaper::at(&guarded)).expect("a guard"));
        in_time(&runtime, async {
            while guarded.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        reactor.remote().stop();
        in_time(&runtime, reactor.shutdown()).expect("no error");
    }
}

#[test]
fn outside_of_a_runtime_it_is_an_error() {
    assert!(TokioReactor::new().is_err());
}
