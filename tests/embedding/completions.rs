//! Reaps told apart by tags: in each kind of loop, and by the readiness of the descriptor.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{Completed, KillMethod, Outcome, Phase, Reactor, ReapError, Reaper, Signal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::common::*;
use crate::loops::*;
use crate::{require, test_name};

const HOUR: Duration = Duration::from_secs(3600);

/// Whether the descriptor becomes readable. A timer that is set to fire at once takes some microseconds.
fn becomes_readable(reactor: &Reactor) -> bool {
    is_readable_within(reactor, TIMEOUT)
}

fn is_readable(reactor: &Reactor) -> bool {
    is_readable_within(reactor, 20 * MS)
}

fn is_readable_within(reactor: &Reactor, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).expect("short");
    loop {
        match poll(&mut [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => return result.expect("poll") > 0,
        }
    }
}

fn tags(completed: impl IntoIterator<Item = Completed>) -> Vec<u64> {
    completed.into_iter().map(|completed| completed.tag).collect()
}

/// Jobs, each with data that the loop finds by the tag, end one after another: a third of them in the spawn itself. The loop
/// asks no handle, and sleeps until the descriptor is readable.
fn reports_each_job(name: &str, make: Make) {
    const JOBS: u64 = 300;
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(name);
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(make, &reactor);
        let mut jobs: HashMap<u64, PathBuf> = HashMap::new();
        let mut counted = 0;
        for tag in 0..JOBS {
            let dir = hierarchy.group(&sandbox, &format!("job-{tag}"));
            if tag % 3 != 0 {
                let _ = sandbox.sleeper(&[&dir]);
            }
            jobs.insert(tag, dir.clone());
            drop(reactor.spawn_reaper(patient(&dir).tag(tag)).expect("a spawn"));
            while jobs.contains_key(&tag) {
                counted += driver.step(&mut reactor);
                for ended in reactor.drain_completed() {
                    let dir = jobs.remove(&ended.tag).expect("a job, and not reported before");
                    assert_eq!(ended.path, dir);
                    assert_eq!(ended.result.expect("reaped").outcome, Outcome::Removed);
                    assert!(!dir.exists());
                }
            }
        }
        assert_eq!(counted as u64, JOBS);
        // An event and a few timers (checks 1, 2, 4, ... ms after the kill) for each at worst.
        let (turns, metrics) = (driver.turns as u64, reactor.metrics());
        eprintln!("{name} on {hierarchy:?}: {turns} turns for {JOBS} jobs");
        assert!(turns <= 8 * JOBS, "{turns} turns: {metrics:?}");
        assert_eq!(reactor.drain_completed().count(), 0);
        driver.settle(&mut reactor);
        driver.assert_idle(&mut reactor);
    }
}

macro_rules! loops {
    ($($make:ident),+) => {
        $(
            #[test]
            fn $make() {
                require!(cgroups());
                reports_each_job(test_name!(), crate::loops::$make);
            }
        )+
    };
}

mod each_loop {
    use super::*;

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
}

/// The reactor has a thread of its own, and the jobs are spawned on others.
#[test]
fn a_thread_reports_each_job() {
    require!(cgroups());
    const JOBS: u64 = 300;
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().expect("a reactor");
        let (remote, (send, ended)) = (reactor.remote(), channel());
        let thread = thread::spawn(move || {
            let (mut turns, mut left) = (0, JOBS);
            while left > 0 {
                reactor.turn(None).expect("a turn");
                turns += 1;
                for ended in reactor.drain_completed() {
                    left -= 1;
                    send.send(ended).expect("the test goes on");
                }
            }
            turns
        });
        for tag in 0..JOBS {
            let dir = hierarchy.group(&sandbox, &format!("job-{tag}"));
            if tag % 3 != 0 {
                let _ = sandbox.sleeper(&[&dir]);
            }
            drop(remote.spawn_reaper(patient(&dir).tag(tag)).expect("a spawn"));
            let ended = ended.recv_timeout(TIMEOUT).expect("reported");
            assert_eq!((ended.tag, ended.path), (tag, dir));
            assert_eq!(ended.result.expect("reaped").outcome, Outcome::Removed);
        }
        let turns = thread.join().expect("no panic");
        assert!(turns <= 8 * JOBS, "{turns} turns");
    }
}

#[test]
fn the_descriptor_is_readable_until_the_last_is_taken() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let missing = Hierarchy::all()[0].missing(&sandbox, "missing");
    let mut reactor = Reactor::new().expect("a reactor");
    let spawn = |reactor: &mut Reactor, tag| {
        drop(reactor.spawn_reaper(Reaper::at(&missing).tag(tag)).expect("a spawn"));
    };
    assert!(!is_readable(&reactor));
    // Without a tag nothing is to be taken.
    drop(reactor.spawn_reaper(Reaper::at(&missing)).expect("a spawn"));
    assert!(!is_readable(&reactor) && reactor.next_deadline().is_none());
    assert_eq!(reactor.turn(ZERO).expect("a turn"), 1, "it ended in the spawn");
    (1..=3).for_each(|tag| spawn(&mut reactor, tag));
    assert!(reactor.next_deadline().is_some_and(|at| at <= Instant::now()));
    for turn in 0..3 {
        assert!(becomes_readable(&reactor), "after {turn} turns");
        // Whatever the wait.
        let completed;
        (completed, reactor) = in_time(move || (reactor.turn(None).expect("a turn"), reactor));
        assert_eq!(completed, if turn == 0 { 3 } else { 0 });
    }
    assert_eq!(reactor.drain_completed().next().map(|ended| ended.tag), Some(1));
    assert!(becomes_readable(&reactor), "two are left");
    spawn(&mut reactor, 4);
    assert_eq!(tags(reactor.drain_completed()), [2, 3, 4]);
    assert!(!is_readable(&reactor) && reactor.next_deadline().is_none());
    assert_eq!(reactor.turn(ZERO).expect("a turn"), 1);
    drop(reactor.drain_completed());
    assert!(!is_readable(&reactor));
}

/// Also where there is a timer that is not due yet.
#[test]
fn draining_leaves_timers_armed() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let hierarchy = Hierarchy::all()[0];
    let dir = hierarchy.group(&sandbox, "waits");
    let member = sandbox.sleeper(&[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let reaper = Reaper::at(&dir).when_empty().deadline(500 * MS).tag(1);
    drop(reactor.spawn_reaper(reaper).expect("a spawn"));
    let missing = Reaper::at(hierarchy.missing(&sandbox, "missing")).tag(2);
    drop(reactor.spawn_reaper(missing).expect("a spawn"));
    assert_eq!(tags(reactor.drain_completed()), [2]);
    let mut driver = Driver::new(poll_loop, &reactor);
    let mut ended = Vec::new();
    while ended.is_empty() {
        // The deadline's timer.
        driver.step(&mut reactor);
        ended.extend(reactor.drain_completed());
    }
    assert!(matches!(ended[..], [Completed { tag: 1, result: Err(ReapError::TimedOut { .. }), .. }]));
    drop(member);
}

/// Each turn that leaves some is an edge, and so is an iterator that does.
#[test]
fn an_edge_triggered_loop_hears_of_what_is_left() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let missing = Hierarchy::all()[0].missing(&sandbox, "missing");
    for make in [epoll_edge as Make, epoll_edge_late, mio_source_fd] {
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(make, &reactor);
        for tag in 0..4 {
            drop(reactor.spawn_reaper(Reaper::at(&missing).tag(tag)).expect("a spawn"));
        }
        for _ in 0..3 {
            driver.step(&mut reactor);
        }
        for tag in 0..4 {
            driver.step(&mut reactor);
            assert_eq!(reactor.drain_completed().next().map(|ended| ended.tag), Some(tag));
        }
        driver.settle(&mut reactor);
        driver.assert_idle(&mut reactor);
    }
}

/// They wait for reaps, not for the caller to take those that have ended.
#[test]
fn a_run_sleeps_although_some_are_left() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let hierarchy = Hierarchy::all()[0];
    let dir = hierarchy.group(&sandbox, "waits");
    let member = sandbox.sleeper(&[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let missing = Reaper::at(hierarchy.missing(&sandbox, "missing"));
    drop(reactor.spawn_reaper(missing.tag(1)).expect("a spawn"));
    let reaper = Reaper::at(&dir).when_empty().deadline(300 * MS).tag(2);
    let handle = reactor.spawn_reaper(reaper).expect("a spawn");
    let before = reactor.metrics().calls.epoll_wait;
    let (result, mut reactor) = in_time(move || (reactor.run_until(&handle).expect("no error"), reactor));
    assert!(matches!(result, Err(ReapError::TimedOut { .. })), "{result:?}");
    let turns = reactor.metrics().calls.epoll_wait - before;
    assert!(turns < 20, "{turns} turns");
    assert!(becomes_readable(&reactor), "the two are left");
    assert_eq!(tags(reactor.drain_completed()), [1, 2]);
    assert!(!is_readable(&reactor));
    drop(member);
}

#[test]
fn all_that_have_a_tag_are_cancelled_or_killed() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().expect("a reactor");
        let remote = reactor.remote();
        let mut members = HashMap::new();
        for tag in 0..3 {
            for part in ["one", "two", "queued"] {
                let dir = hierarchy.group(&sandbox, &format!("{tag}-{part}"));
                members.entry(tag).or_insert_with(Vec::new).push(sandbox.sleeper(&[&dir]));
                let reaper = Reaper::at(&dir).linger(HOUR).grace(Signal::TERM, HOUR).tag(tag);
                // Those of the remote begin in the next turn.
                let spawned =
                    if part == "queued" { remote.spawn_reaper(reaper) } else { reactor.spawn_reaper(reaper) };
                drop(spawned.expect("a spawn"));
            }
        }
        assert_eq!((reactor.cancel(0), reactor.kill_now(1), reactor.cancel(7)), (3, 3, 0));
        let mut driver = Driver::new(poll_loop, &reactor);
        let mut ended = Vec::new();
        while ended.len() < 6 {
            driver.step(&mut reactor);
            ended.extend(reactor.drain_completed());
        }
        for ended in ended {
            match ended.tag {
                0 => assert!(matches!(ended.result, Err(ReapError::Cancelled { .. })), "{ended:?}"),
                1 => assert_eq!(ended.result.expect("reaped").outcome, Outcome::Removed),
                _ => panic!("{ended:?}"),
            }
        }
        assert_eq!(reactor.len(), 3, "those of the third tag");
        for (tag, members) in &members {
            assert!(members.iter().all(|member| member.ended(TIMEOUT * u32::from(*tag == 1)) == (*tag == 1)));
        }
        assert_eq!(reactor.shutdown(TIMEOUT).expect("no error"), 0);
        assert_eq!(tags(reactor.drain_completed()), [2, 2, 2]);
    }
}

#[test]
fn pending_reaps_say_how_far_they_have_come() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let hierarchy = Hierarchy::all()[0];
    let mut reactor = Reactor::new().expect("a reactor");
    assert_eq!(reactor.pending().count(), 0);
    let group = |name: &str| {
        let dir = hierarchy.group(&sandbox, name);
        (dir.clone(), sandbox.ignores_sigterm(&[&dir]))
    };
    let (waiting, lingering, grace) = (group("waiting"), group("lingering"), group("grace"));
    let (killing, _stuck) = {
        let dir = hierarchy.group(&sandbox, "killing");
        (dir.clone(), sandbox.trace_exit(&[&dir]))
    };
    let reapers = [
        Reaper::at(&waiting.0).when_empty().tag(1),
        Reaper::at(&lingering.0).linger(HOUR).tag(2),
        Reaper::at(&grace.0).grace(Signal::TERM, HOUR).tag(3),
        Reaper::at(&killing),
    ];
    for reaper in reapers {
        drop(reactor.spawn_reaper(reaper).expect("a spawn"));
    }
    let mut told: Vec<_> =
        reactor.pending().map(|reap| (reap.phase, reap.tag, reap.path.to_path_buf())).collect();
    told.sort_by_key(|(_, tag, _)| tag.unwrap_or(4));
    let expected = [
        (Phase::Waiting, Some(1), waiting.0),
        (Phase::Lingering, Some(2), lingering.0),
        (Phase::Grace, Some(3), grace.0),
        (Phase::Killing, None, killing.clone()),
    ];
    assert_eq!(told, expected);
    for reap in reactor.pending() {
        assert_eq!(reap.attempts, u32::from(reap.path == killing), "{reap:?}");
        assert!(reap.since <= Instant::now() && reap.since.elapsed() < TIMEOUT);
        assert!(reap.last_error.is_none(), "{reap:?}");
    }
    assert_eq!(reactor.shutdown(TIMEOUT).expect("no error"), 0);
    assert_eq!(reactor.pending().count(), 0);
}

/// Reaps in mid-freeze, in their grace, waiting, and handed over at the last moment: all end, and nothing stays frozen.
#[test]
fn a_shutdown_ends_all_reaps() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let mut reactor = Reactor::new().expect("a reactor");
        assert_eq!(reactor.shutdown(Duration::ZERO).expect("no error"), 0);
        let remote = reactor.remote();
        let dirs: Vec<PathBuf> = (0..9).map(|n| hierarchy.group(&sandbox, &n.to_string())).collect();
        let stuck: Vec<TraceExit> = dirs.iter().map(|dir| sandbox.trace_exit(&[dir])).collect();
        for (number, dir) in dirs.iter().enumerate() {
            let reaper = Reaper::at(dir).tag(number as u64);
            let reaper = match number % 3 {
                0 => reaper.method(KillMethod::Freezer),
                1 => reaper.grace(Signal::TERM, HOUR),
                _ => reaper.when_empty(),
            };
            let spawned = if number < 6 { reactor.spawn_reaper(reaper) } else { remote.spawn_reaper(reaper) };
            drop(spawned.expect("a spawn"));
        }
        assert_eq!(reactor.shutdown(TIMEOUT).expect("no error"), 0);
        let mut ended: Vec<Completed> = reactor.drain_completed().collect();
        ended.sort_by_key(|ended| ended.tag);
        assert_eq!(tags(ended.iter().cloned()), (0..9).collect::<Vec<u64>>());
        for ended in ended {
            assert!(matches!(ended.result, Err(ReapError::Cancelled { .. })), "{ended:?}");
            assert!(!hierarchy.frozen(&ended.path), "{ended:?}");
        }
        // It can be used again.
        drop(reactor.spawn_reaper(Reaper::at(hierarchy.missing(&sandbox, "missing"))).expect("a spawn"));
        assert_eq!(reactor.turn(ZERO).expect("a turn"), 1);
        stuck.iter().for_each(TraceExit::release);
    }
}

/// A turn does not sleep on a reap that has completed in its spawn, though it has no tag.
#[test]
fn a_turn_counts_a_reap_that_ended_in_its_spawn() {
    require!(cgroups());
    let hierarchy = Hierarchy::all()[0];
    let sandbox = Sandbox::new(test_name!());
    let missing = hierarchy.missing(&sandbox, "missing");
    let (sender, counts) = channel();
    thread::spawn(move || {
        let mut reactor = Reactor::new().expect("a reactor");
        for _ in 0..2 {
            drop(reactor.spawn_reaper(patient(&missing)).expect("a spawn"));
            sender.send(reactor.turn(None).expect("a turn")).expect("the test waits for it");
        }
    });
    assert_eq!([(); 2].map(|()| counts.recv_timeout(TIMEOUT).expect("it sleeps")), [1, 1]);
}

/// What a shutdown leaves for lack of time includes the reaps that have not begun, and a turn under way.
#[test]
fn a_shutdown_counts_the_reaps_that_have_not_begun() {
    require!(cgroups());
    let hierarchy = Hierarchy::all()[0];
    let sandbox = Sandbox::new(test_name!());
    let missing = hierarchy.missing(&sandbox, "missing");
    let mut reactor = Reactor::new().expect("a reactor");
    let remote = reactor.remote();
    let spawn = || drop(remote.spawn_reaper(patient(&missing)).expect("a spawn"));
    (0..300).for_each(|_| spawn());
    assert_eq!(reactor.shutdown(Duration::ZERO).expect("no error"), 300 - 256);
    assert_eq!(reactor.shutdown(TIMEOUT).expect("no error"), 0);
    // A turn without time is over after one of the timers that are due; the next call takes the other.
    reactor.set_turn_budget(Duration::ZERO);
    let dirs = ["a", "b"].map(|name| hierarchy.group(&sandbox, name));
    let _members = dirs.each_ref().map(|dir| sandbox.sleeper(&[dir]));
    for dir in &dirs {
        drop(reactor.spawn_reaper(patient(dir).linger(20 * MS)).expect("a spawn"));
    }
    thread::sleep(50 * MS);
    let before = reactor.metrics().timers;
    drive(&mut reactor, "a timer", |metrics| metrics.timers > before);
    spawn();
    assert_eq!(reactor.shutdown(Duration::ZERO).expect("no error"), 0);
}
