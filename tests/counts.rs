//! What a reap costs, counted: system calls, wake-ups, timers. Counts do not depend on how busy the machine is.
#![allow(unsafe_code, reason = "ptrace(2), to count another process's system calls")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cgroup_reaper::{Calls, Metrics, Reactor, Reaper};
use common::*;

/// What the traced copy says before the counts of its reactor.
const COUNTED: &str = "the reactor counted: ";

/// Set in the traced copy of this program.
const TRACED: &str = "CGROUP_REAPER_TRACED";

/// Longer than the 12 ms for which the kernel holds back a second notification from a file.
fn rest() {
    std::thread::sleep(Duration::from_millis(60));
}

fn reap_in(reactor: &mut Reactor, dir: &Path) {
    let handle = reactor.spawn_reaper(Reaper::at(dir)).unwrap();
    reactor.run_until(&handle).unwrap().unwrap();
}

fn difference(after: &Metrics, before: &Metrics) -> (u64, u64, u64) {
    (after.events - before.events, after.timers - before.timers, after.wakeups - before.wakeups)
}

#[test]
fn a_v2_group_at_rest_takes_one_event_and_no_timer() {
    require!(v2(), cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().unwrap();
        for processes in [1, 4] {
            some_try("one event, no timer, one wake-up", |number| {
                let dir = sandbox.v2(&format!("p{processes}-{number}"));
                let _sleepers = sandbox.sleepers(processes, &[&dir]);
                rest();
                let before = reactor.metrics();
                reap_in(&mut reactor, &dir);
                match difference(&reactor.metrics(), &before) {
                    (1, 0, 1) => Ok(()),
                    other => Err(format!("events, timers, wake-ups: {other:?}")),
                }
            });
        }
    });
}

#[test]
fn a_v1_group_takes_one_event_for_its_last_member() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().unwrap();
        some_try("one event, no timer, one wake-up", |number| {
            let dir = sandbox.v1("freezer", &format!("n{number}"));
            let _sleepers = sandbox.sleepers(1, &[&dir]);
            let before = reactor.metrics();
            reap_in(&mut reactor, &dir);
            match difference(&reactor.metrics(), &before) {
                (1, 0, 1) => Ok(()),
                other => Err(format!("events, timers, wake-ups: {other:?}")),
            }
        });
    });
}

/// A group that changed just before its kill is notified 8 to 20 ms late. A check by timer must find it
/// first: a timer has fired, and no event was needed.
#[test]
fn a_group_populated_a_moment_ago_does_not_wait_for_the_throttled_event() {
    require!(v2(), cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().unwrap();
        some_try("completion by timer, before the event", |number| {
            let dir = sandbox.v2(&format!("n{number}"));
            let _sleepers = sandbox.sleepers(1, &[&dir]);
            let before = reactor.metrics();
            reap_in(&mut reactor, &dir);
            match difference(&reactor.metrics(), &before) {
                (0, 1 | 2, _) => Ok(()),
                other => Err(format!("events, timers, wake-ups: {other:?}")),
            }
        });
    });
}

#[test]
fn waiting_for_the_unkillable_costs_the_safety_tick_alone() {
    require!(v2(), cgroup_kill());
    let sandbox = Sandbox::new(test_name!());
    let mut reactor = Reactor::new().unwrap();
    let dirs: Vec<PathBuf> = (0..20).map(|n| sandbox.v2(&format!("n{n}"))).collect();
    let stuck: Vec<TraceExit> = dirs.iter().map(|dir| sandbox.trace_exit(&[dir])).collect();
    let handles: Vec<_> = dirs
        .iter()
        .map(|dir| {
            let wait = Duration::from_millis(600);
            reactor.spawn_reaper(Reaper::at(dir).min_wait(wait).max_wait(wait)).unwrap()
        })
        .collect();
    let turn_for = |reactor: &mut Reactor, time: Duration| {
        let end = std::time::Instant::now() + time;
        while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
            reactor.turn(Some(left)).unwrap();
        }
    };
    // The extra checks that follow the first attempt, and the first attempt by signals, are over by then.
    turn_for(&mut reactor, Duration::from_millis(2600));
    some_try("two or three ticks each", |_| {
        let before = reactor.metrics();
        turn_for(&mut reactor, Duration::from_millis(1300));
        let (events, timers, wakeups) = difference(&reactor.metrics(), &before);
        assert_eq!(events, 0);
        // All of one spawn in a few milliseconds of wake-ups.
        assert!(wakeups <= timers, "{wakeups} wake-ups");
        if timers <= 20 * 3 { Ok(()) } else { Err(format!("{timers} timers")) }
    });
    assert!(handles.iter().all(|handle| !handle.is_complete()));
    stuck.iter().for_each(TraceExit::release);
    eventually("all to be reaped", || {
        reactor.turn(Some(Duration::from_millis(20))).unwrap();
        reactor.is_empty()
    });
}

/// A member that cannot exit after SIGKILL is listed at each tick, and killed again at each fourth.
#[test]
fn most_ticks_of_the_unkillable_only_list_them() {
    require!(v2(), cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().unwrap();
        let dir = sandbox.v2("stuck");
        let stuck = sandbox.trace_exit(&[&dir]);
        let wait = Duration::from_millis(10);
        let handle = reactor.spawn_reaper(Reaper::at(&dir).min_wait(wait).max_wait(wait)).unwrap();
        let mut ticks = |count: u64| {
            let before = reactor.metrics();
            while reactor.metrics().timers - before.timers < count {
                reactor.turn(None).unwrap();
            }
            let after = reactor.metrics();
            (after.cgroup_kills - before.cgroup_kills, after.calls.open - before.calls.open)
        };
        // The checks after the first attempt, three attempts by `cgroup.kill` alone, and the first by signals.
        ticks(12);
        let (kills, opened) = ticks(16);
        assert_eq!(kills, 4);
        // A list each, its directory and the file; where there is a v1 freezer, two files in a fourth of them, and mountinfo
        // where mounts have changed.
        println!("{opened} files opened in 16 ticks");
        assert!(opened <= 16 * 2 + 4 * (2 + 1 + 2 + 2 + 1), "{opened} files opened");
        assert!(!handle.is_complete());
        stuck.release();
        reactor.run_until(&handle).unwrap().unwrap();
    });
}

/// A turn that took all the notifications it can has the next come at once. That is said once, not by every spawn.
#[test]
fn spawns_after_a_full_turn_leave_the_timer_alone() {
    require!(v2(), cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().unwrap();
        let dirs: Vec<PathBuf> = (0..300).map(|n| sandbox.v2(&format!("n{n}"))).collect();
        let sleepers: Vec<_> = dirs.iter().map(|dir| sandbox.sleepers(1, &[dir])).collect();
        rest();
        let handles: Vec<_> = dirs.iter().map(|dir| reactor.spawn_reaper(Reaper::at(dir)).unwrap()).collect();
        eventually("all to be dead", || sleepers.iter().all(|sleepers| sleepers.ended(Duration::ZERO)));
        rest();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        let set = reactor.metrics().calls.timerfd_settime;
        for n in 0..20 {
            let missing = sandbox.v2("base").join(format!("missing{n}"));
            assert!(reactor.spawn_reaper(Reaper::at(missing)).unwrap().is_complete());
        }
        assert_eq!(reactor.metrics().calls.timerfd_settime, set);
        reactor.run_until_idle().unwrap();
        assert!(handles.iter().all(|handle| handle.is_complete()));
    });
}

#[test]
fn a_turn_with_nothing_to_do_makes_one_system_call() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        let calls = counted(test_name!(), "idle", |_, _| {
            let mut reactor = Reactor::new().unwrap();
            reactor.turn(Some(Duration::ZERO)).unwrap();
            Box::new(move || {
                let before = reactor.metrics().calls;
                reactor.turn(Some(Duration::ZERO)).unwrap();
                let after = reactor.metrics().calls;
                std::mem::forget(reactor);
                [before, after]
            })
        });
        if let Some(calls) = calls {
            assert_eq!(calls.values().sum::<u32>(), 1, "{calls:?}");
        }
    });
}

#[test]
fn a_v2_reap_makes_few_system_calls_whatever_the_size_of_the_group() {
    require!(v2(), cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        // What kind of filesystem it is on is asked once a mount, where mounts have numbers of their own (6.8).
        // Three of them tell that the group is not a large one.
        let most = if linux() >= (6, 8) { 20 } else { 23 };
        some_try("few system calls", |number| {
            let processes = if number % 2 == 0 { 1 } else { 16 };
            let calls = counted(test_name!(), &format!("{processes}"), |sandbox, what| {
                let processes = what.parse().unwrap();
                let mut reactor = Reactor::new().unwrap();
                // What is done once a reactor: the caller's own cgroups.
                reap_in(&mut reactor, &sandbox.v2("first"));
                let dir = sandbox.v2("second");
                let sleepers = sandbox.sleepers(processes, &[&dir]);
                rest();
                reaping(reactor, dir, sleepers)
            });
            let Some(calls) = calls else { return Ok(()) };
            let total: u32 = calls.values().sum();
            println!("{processes} processes: {total} system calls: {calls:?}");
            // Both sizes must occur.
            if total <= most && number > 0 { Ok(()) } else { Err(format!("{total}: {calls:?}")) }
        });
    });
}

#[test]
fn a_v1_reap_makes_few_system_calls() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let most = if linux() >= (6, 8) { 37 } else { 40 };
        some_try("few system calls", |_| {
            let calls = counted(test_name!(), "v1", |sandbox, _| {
                let mut reactor = Reactor::new().unwrap();
                reap_in(&mut reactor, &sandbox.v1("freezer", "first"));
                let dir = sandbox.v1("freezer", "second");
                let sleepers = sandbox.sleepers(1, &[&dir]);
                reaping(reactor, dir, sleepers)
            });
            let Some(calls) = calls else { return Ok(()) };
            let total: u32 = calls.values().sum();
            println!("{total} system calls: {calls:?}");
            if total <= most { Ok(()) } else { Err(format!("{total}: {calls:?}")) }
        });
    });
}

/// The code to measure. Returns the reactor's own counts before and after.
type Measured = Box<dyn FnOnce() -> [Calls; 2]>;

/// A reap of this group. Its processes, and the reactor, are left to the end of the program.
fn reaping(mut reactor: Reactor, dir: PathBuf, sleepers: Procs) -> Measured {
    Box::new(move || {
        let before = reactor.metrics().calls;
        reap_in(&mut reactor, &dir);
        let after = reactor.metrics().calls;
        std::mem::forget((reactor, sleepers));
        [before, after]
    })
}

/// The counts that the reactor's have to agree with, by the numbers of the system calls.
fn by_number(calls: &Calls) -> [(i64, u64); 12] {
    [
        (libc::SYS_openat, calls.open),
        (libc::SYS_pread64, calls.read),
        (libc::SYS_write, calls.write),
        (libc::SYS_ioctl, calls.pidfd_info),
        (libc::SYS_unlinkat, calls.remove),
        (libc::SYS_pidfd_open, calls.pidfd_open),
        (libc::SYS_pidfd_send_signal, calls.pidfd_send_signal),
        (libc::SYS_poll, calls.poll),
        (libc::SYS_kill, calls.kill),
        (libc::SYS_epoll_ctl, calls.epoll_ctl),
        (libc::SYS_epoll_wait, calls.epoll_wait),
        (libc::SYS_timerfd_settime, calls.timerfd_settime),
    ]
}

/// Runs the test again in a traced copy of this program, where `prepare` makes what is to be measured; says how
/// many system calls that made, by number, once the reactor's own counts have been found to agree. `None` in the
/// copy itself.
#[allow(clippy::zombie_processes, reason = "`trace` waits for it")]
fn counted(
    test: &str,
    what: &str,
    prepare: impl FnOnce(&Sandbox, &str) -> Measured,
) -> Option<BTreeMap<u64, u32>> {
    if let Ok(what) = std::env::var(TRACED) {
        let sandbox = Sandbox::new(test);
        let measured = prepare(&sandbox, &what);
        mark();
        let [before, after] = measured();
        mark();
        let made: Vec<String> = std::iter::zip(by_number(&before), by_number(&after))
            .map(|((number, before), (_, after))| format!("{number} {}", after - before))
            .collect();
        println!("{COUNTED}{}", made.join(","));
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(TRACED, what)
        .stdout(Stdio::piped());
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut child = command.spawn().unwrap();
    let calls = trace(child.id() as i32);
    // It has ended, and what it said fits into a pipe.
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    let (_, counted) = said.split_once(COUNTED).expect("what the reactor counted");
    for pair in counted.lines().next().unwrap().split(',') {
        let (number, made) = pair.split_once(' ').unwrap();
        let made_of = |number: i64| calls.get(&(number as u64)).copied().unwrap_or(0);
        let number = number.parse().unwrap();
        // Directories are opened by their handles, too.
        let by_handle = if number == libc::SYS_openat { made_of(libc::SYS_open_by_handle_at) } else { 0 };
        let traced = made_of(number) + by_handle;
        assert_eq!(made, traced.to_string(), "system call {number}: {counted} {calls:?}");
    }
    Some(calls)
}

/// A system call that nothing else here makes.
fn mark() {
    // SAFETY: it takes nothing and always succeeds.
    unsafe { libc::getsid(0) };
}

/// Follows the program and its threads to its end; counts what is between the two marks.
fn trace(program: i32) -> BTreeMap<u64, u32> {
    let mut calls = BTreeMap::new();
    let mut marks = 0;
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call; only children of this thread are waited for.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(pid > 0, "waitpid: {}", std::io::Error::last_os_error());
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if pid == program {
                assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
                assert_eq!(marks, 2);
                return calls;
            }
            continue;
        }
        let mut signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            signal = 0;
            // SAFETY: the kernel writes no more than the size it is given.
            let info = unsafe {
                let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
                let size = size_of_val(&info);
                libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &mut info);
                info
            };
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                // SAFETY: at an entry stop this is the variant that was written.
                let number = unsafe { info.u.entry.nr };
                if number == libc::SYS_getsid as u64 {
                    marks += 1;
                } else if marks == 1 && number != libc::SYS_fcntl as u64 {
                    // fcntl: std's check of a descriptor in debug builds, before it is closed.
                    *calls.entry(number).or_insert(0) += 1;
                }
            }
        } else if signal == libc::SIGTRAP {
            // The exec, or a new thread.
            signal = 0;
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
            // SAFETY: the options are a number.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
        } else if signal == libc::SIGSTOP {
            // A new thread's first stop.
            signal = 0;
        }
        // SAFETY: the signal is a number.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) };
    }
}
