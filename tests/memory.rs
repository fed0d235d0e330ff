//! `Reaper::release_memory`: members that have SIGKILL and cannot exit give their memory back.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use cgroup_reaper::{Facility, KillMethod, Metrics, Outcome, Reactor, ReapError, ReapHandle, Reaper};
use common::*;
use nix::time::{ClockId, clock_gettime};

const MIB: u64 = 1 << 20;

/// What the members of most tests have, in MiB.
const SMALL: usize = 24;

/// Less than a process of ours has that was given memory back, its code excepted.
const NOTHING: u64 = MIB;

/// Need: process_mrelease(2).
fn release() -> Result<(), String> {
    if linux() >= (5, 15) { Ok(()) } else { Err("no process_mrelease(2) before Linux 5.15".into()) }
}

/// The memory of a process, in bytes: anonymous, and all that is resident.
fn memory(pid: i32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kb| kb << 10)
    };
    (of("RssAnon:"), of("VmRSS:"))
}

/// CPU time.
fn cpu(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("a clock").into()
}

/// Turns the reactor until so many processes have given their memory back, and no job is under way. Returns the longest
/// turn, in CPU time.
#[track_caller]
fn until_released(reactor: &mut Reactor, processes: u64) -> Duration {
    let mut longest = Duration::ZERO;
    eventually("memory to be released", || {
        let before = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
        reactor.turn(Some(Duration::from_millis(20))).expect("turn");
        longest = longest.max(cpu(ClockId::CLOCK_THREAD_CPUTIME_ID) - before);
        let Metrics { released, helper_busy, helper_waiting, .. } = reactor.metrics();
        assert!(released <= processes, "{reactor:?}");
        released == processes && helper_busy + helper_waiting == 0
    });
    longest
}

#[track_caller]
fn assert_timed_out(handle: &ReapHandle, pids: &[i32], released: u64) {
    match handle.try_wait() {
        Some(Err(ReapError::TimedOut { survivors, effort, .. })) => {
            let mut named: Vec<i32> = survivors.iter().map(|survivor| survivor.pid).collect();
            named.sort_unstable();
            assert_eq!((&*named, effort.released), (pids, released), "{survivors:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// A member with much memory that a tracer holds at its exit: it gives that back, while no turn waits for it and the reap
/// goes on.
fn a_held_member(world: &World) {
    let (dirs, reaper) = world.target();
    let mut reactor = Reactor::new().unwrap();
    let held = world.sandbox.hold_exit(world.sandbox.big_memory(512, &refs(&dirs)));
    assert!(memory(held.pid).0 >= 512 * MIB);
    // No other test runs in this program.
    let all_before = cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let own_before = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let handle = spawn(&mut reactor, reaper.release_memory());
    let longest = until_released(&mut reactor, 1);
    // The call takes tens of milliseconds. Here it would have made the longest turn.
    let by_others = cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID) - all_before;
    let by_others = by_others.saturating_sub(cpu(ClockId::CLOCK_THREAD_CPUTIME_ID) - own_before);
    assert!(longest < by_others, "{longest:?} of a turn, {by_others:?} of other threads");
    assert!(held.parked() && !handle.is_complete());
    let (anonymous, resident) = memory(held.pid);
    assert!(anonymous < NOTHING && resident < 8 * MIB, "{anonymous} {resident}");
    let metrics = reactor.metrics();
    assert!((512 * MIB..600 * MIB).contains(&metrics.released_bytes), "{metrics:?}");
    let Metrics { helper_threads, helper_jobs, helper_refused, .. } = metrics;
    assert_eq!((helper_threads, helper_jobs, helper_refused), (1, 1, 0));
    held.release();
    let reaped = finish(&mut reactor, &handle).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((reaped.outcome, reaped.released), (Outcome::Removed, 1));
    assert_eq!(reactor.metrics().descriptors, 0);
    assert_gone(&dirs);
}
each!(isolated a_held_member needs release(), on v2, cpu);

/// By every method, in every layout: those that give their memory back are named at the deadline.
fn members_are_named_at_the_deadline(world: &World) {
    use KillMethod::{Auto, CgroupKill, Freezer, Pidfd};
    let methods = [Auto, Pidfd, Freezer, CgroupKill].into_iter().filter(|method| match method {
        Freezer => world.layout != Layout::Cpu,
        CgroupKill => world.by_cgroup_kill(),
        _ => true,
    });
    let targets = methods.map(|method| {
        let name = format!("target-{method}");
        let (dirs, reaper) = (world.group(&name), world.reaper(&name));
        let hold = |_| world.sandbox.hold_exit(world.sandbox.big_memory(SMALL, &refs(&dirs)));
        let held: Vec<TraceExit> = (0..2).map(hold).collect();
        let reaper = reaper.method(method).min_wait(Duration::from_millis(1)).release_memory();
        (reaper.deadline(Duration::from_secs(4)), held)
    });
    let targets: Vec<(Reaper, Vec<TraceExit>)> = targets.collect();
    let mut reactor = Reactor::new().unwrap();
    let reaps: Vec<(ReapHandle, Vec<TraceExit>)> =
        targets.into_iter().map(|(reaper, held)| (spawn(&mut reactor, reaper), held)).collect();
    drive(&mut reactor, "the deadline", |_| reaps.iter().all(|(handle, _)| handle.is_complete()));
    for (handle, held) in reaps {
        let mut pids: Vec<i32> = held.iter().map(|held| held.pid).collect();
        pids.sort_unstable();
        assert_timed_out(&handle, &pids, 2);
        assert!(pids.iter().all(|&pid| memory(pid).0 < NOTHING));
        held.iter().for_each(TraceExit::release);
    }
}
each!(members_are_named_at_the_deadline needs release(), on v2, freezer, cpu, several);

/// More of them than one job takes.
fn many_members(world: &World) {
    let (dirs, reaper) = world.target();
    let hold = |_| world.sandbox.hold_exit(world.sandbox.big_memory(2, &refs(&dirs)));
    let held: Vec<TraceExit> = (0..20).map(hold).collect();
    let mut reactor = Reactor::new().unwrap();
    // Without further attempts in time.
    let reaper = reaper.max_wait(Duration::from_secs(3600)).release_memory();
    let handle = spawn(&mut reactor, reaper);
    until_released(&mut reactor, 20);
    assert!(held.iter().all(|held| memory(held.pid).0 < NOTHING));
    held.iter().for_each(TraceExit::release);
    assert_eq!(finish(&mut reactor, &handle).map(|reaped| reaped.released).unwrap_or_default(), 20);
}
each!(many_members needs release(), on v2, cpu);

extern "C" fn rest(_: *mut std::ffi::c_void) -> i32 {
    loop {
        nix::unistd::pause();
    }
}

/// Processes that share the memory of the test's, and do not finish their exit until this is dropped.
struct Sharers(Vec<i32>);

impl Sharers {
    fn new(count: usize, dirs: &[PathBuf]) -> Sharers {
        let sharers = Sharers((0..count).map(|_| clone(libc::CLONE_VM | libc::SIGCHLD, rest, &0)).collect());
        for pid in &sharers.0 {
            dirs.iter().for_each(|dir| fs::write(dir.join("cgroup.procs"), pid.to_string()).expect("a move"));
            assert!(trace_exit(*pid));
        }
        sharers
    }
}

impl Drop for Sharers {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, libc::SIGKILL);
            let _ = wait(*pid, libc::__WALL);
            trace_continue(*pid);
            let _ = wait(*pid, libc::__WALL);
        }
    }
}

/// Members whose memory cannot be released, for it is the caller's too, are tried once an attempt, and do not keep others from
/// their turn.
fn members_that_share_memory_with_others(world: &World) {
    let (dirs, reaper) = world.target();
    let sharers = Sharers::new(20, &dirs);
    let last = world.sandbox.hold_exit(world.sandbox.big_memory(SMALL, &refs(&dirs)));
    let mut reactor = Reactor::new().unwrap();
    let handle = spawn(&mut reactor, reaper.max_wait(Duration::from_millis(500)).release_memory());
    until_released(&mut reactor, 1);
    let (jobs, attempts) = (reactor.metrics().helper_jobs, attempts_of(&reactor));
    turn_for(&mut reactor, Duration::from_millis(1500));
    let (jobs, attempts) = (reactor.metrics().helper_jobs - jobs, attempts_of(&reactor) - attempts);
    assert!(jobs <= 2 * u64::from(attempts) + 2, "{jobs} jobs in {attempts} attempts");
    drop(sharers);
    last.release();
    assert_eq!(finish(&mut reactor, &handle).map(|reaped| reaped.released).unwrap_or_default(), 1);
}
each!(members_that_share_memory_with_others needs release(), on v2, cpu);

fn attempts_of(reactor: &Reactor) -> u32 {
    reactor.pending().map(|reap| reap.attempts).sum()
}

/// In uninterruptible sleep.
fn a_member_that_writes_to_a_frozen_filesystem(world: &World) {
    let (dirs, reaper) = world.target();
    let filesystem = FrozenFilesystem::new();
    let writer = world.sandbox.big_memory_writing_to(&filesystem, SMALL, &refs(&dirs));
    let mut reactor = Reactor::new().unwrap();
    let handle = spawn(&mut reactor, reaper.release_memory());
    until_released(&mut reactor, 1);
    assert_eq!(writer.state(), Some('D'));
    assert!(memory(writer.pid).0 < NOTHING && !handle.is_complete());
    drop(filesystem);
    assert_eq!(finish(&mut reactor, &handle).map(|reaped| reaped.released).unwrap_or_default(), 1);
}
each!(a_member_that_writes_to_a_frozen_filesystem needs release().and(frozen_filesystem()), on v2, cpu);

/// The number of messages about process_mrelease(2), of each test's thread.
struct Counter(LazyLock<Mutex<HashMap<ThreadId, u32>>>);

static COUNTER: Counter = Counter(LazyLock::new(Mutex::default));

impl Counter {
    fn of_this_thread(&self) -> u32 {
        self.0.lock().unwrap().remove(&thread::current().id()).unwrap_or(0)
    }
}

impl log::Log for Counter {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn && record.args().to_string().contains("process_mrelease(2)") {
            *self.0.lock().unwrap().entry(thread::current().id()).or_default() += 1;
        }
    }

    fn flush(&self) {}
}

/// Without the call, without a thread, and where the caller has not asked for it, the reap goes on as ever.
fn without(world: &World) {
    let _ = log::set_logger(&COUNTER);
    log::set_max_level(log::LevelFilter::Warn);
    let cases: [(&[Facility], bool); 3] =
        [(&[Facility::ReleaseMemory], true), (&[Facility::HelperThreads], true), (&[], false)];
    for (nth, (absent, asked)) in cases.into_iter().enumerate() {
        let name = format!("target-{nth}");
        let dirs = world.group(&name);
        let reaper =
            world.reaper(&name).min_wait(Duration::from_millis(1)).max_wait(Duration::from_millis(20));
        let held = world.sandbox.hold_exit(world.sandbox.big_memory(SMALL, &refs(&dirs)));
        let mut reactor = Reactor::without(absent).unwrap();
        let handle = spawn(&mut reactor, if asked { reaper.release_memory() } else { reaper });
        drive(&mut reactor, "some attempts", |metrics| metrics.checks > 30);
        assert!(memory(held.pid).0 >= SMALL as u64 * MIB && !handle.is_complete());
        let metrics = reactor.metrics();
        let is_missing = asked && (absent.contains(&Facility::ReleaseMemory) || release().is_err());
        let is_refused = asked && !is_missing;
        assert_eq!((metrics.helper_threads, metrics.helper_jobs, metrics.released), (0, 0, 0));
        // With each of the attempts.
        assert_eq!(metrics.helper_refused > 2, is_refused, "{metrics:?}");
        // The question whether there is one.
        assert_eq!(metrics.calls.process_mrelease, u64::from(asked));
        assert_eq!(COUNTER.of_this_thread(), u32::from(is_missing));
        held.release();
        assert_eq!(finish(&mut reactor, &handle).map_or(9, |reaped| reaped.released), 0);
        assert_eq!(reactor.metrics().descriptors, 0);
    }
}
each!(without on v2, cpu);

/// With few descriptors the memory is released once there are more.
fn with_three_descriptors_left(world: &World) {
    with_few_descriptors(|| {
        let (dirs, reaper) = world.target();
        let held = world.sandbox.hold_exit(world.sandbox.big_memory(SMALL, &refs(&dirs)));
        let reaper = reaper.min_wait(Duration::from_millis(1)).max_wait(Duration::from_millis(20));
        let mut reactor = Reactor::new().unwrap();
        let handle = spawn(&mut reactor, reaper.release_memory());
        let taken = TakenDescriptors::all_but(3);
        drive(&mut reactor, "some attempts", |metrics| metrics.checks > 30);
        assert!(!handle.is_complete());
        drop(taken);
        until_released(&mut reactor, 1);
        held.release();
        assert!(finish(&mut reactor, &handle).is_ok());
    });
}
each!(isolated with_three_descriptors_left needs release(), on v2, cpu);
