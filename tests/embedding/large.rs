//! Large groups and trees in a loop that limits the time of a call: each call is bounded, and nothing is lost between two.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cgroup_reaper::{Calls, KillMethod, Outcome, Reactor, Reaper, Signal};

use crate::common::*;
use crate::loops::*;
use crate::{require, test_name};

/// With the shortest budget a call does one piece of work, counted in system calls: no reap holds up the
/// loop, and no wake-up for the rest is lost, also in a loop that hears of each edge once.
#[test]
fn with_the_shortest_budget_each_call_does_one_piece_of_work() {
    require!(cgroups());
    const SMALL: usize = 10;
    const CHILDREN: usize = 50;
    for hierarchy in Hierarchy::all() {
        for make in LOOPS {
            let sandbox = Sandbox::new(test_name!());
            let tree = hierarchy.group(&sandbox, "tree");
            for child in 0..CHILDREN {
                std::fs::create_dir(tree.join(child.to_string())).expect("a group");
            }
            let small: Vec<PathBuf> =
                (0..SMALL).map(|number| hierarchy.group(&sandbox, &number.to_string())).collect();
            small.iter().for_each(|dir| drop(sandbox.sleeper(&[dir])));
            let mut reactor = Reactor::new().expect("a reactor");
            reactor.set_turn_budget(Duration::ZERO);
            let mut driver = Driver::new(make, &reactor);
            for dir in std::iter::once(&tree).chain(&small) {
                drop(reactor.spawn_reaper(patient(dir)).expect("a spawn"));
            }
            let mut longest = 0;
            while reactor.metrics().completed < (SMALL + 1) as u64 {
                let before = work(&reactor.metrics().calls);
                driver.step(&mut reactor);
                longest = longest.max(work(&reactor.metrics().calls) - before);
            }
            assert!(longest < 40, "{longest} system calls in one turn");
            assert!(driver.turns < 6 * CHILDREN + 40 * SMALL, "{} turns", driver.turns);
            assert!(!tree.exists() && small.iter().all(|dir| !dir.exists()));
            driver.finish(&mut reactor, (SMALL + 1) as u64);
        }
    }
}

/// Where the kernel tells of a pidfd which cgroup its process is in.
fn steps() -> Result<(), String> {
    if linux() >= (6, 13) { Ok(()) } else { Err("before Linux 6.13 a large group is killed at once".into()) }
}

/// So long the steps of one attempt take at the most.
const STEPS: Duration = Duration::from_millis(500);

/// A large group is killed in steps, each of a bounded number of system calls; the same group without a budget by one write.
#[test]
fn a_large_group_is_killed_in_steps() {
    require!(v2(), steps());
    const MEMBERS: usize = 600;
    let kill = |budget: Duration| {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("large");
        let members = sandbox.sleepers(MEMBERS, &[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(budget);
        let mut driver = Driver::new(epoll_edge, &reactor);
        let mut longest = 0;
        let mut before = work(&reactor.metrics().calls);
        let mut count = |reactor: &Reactor| {
            let now = work(&reactor.metrics().calls);
            longest = longest.max(now - std::mem::replace(&mut before, now));
        };
        let handle = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
        count(&reactor);
        while !handle.is_complete() {
            driver.step(&mut reactor);
            count(&reactor);
        }
        let reaped = handle.wait().expect("reaped");
        assert!(members.ended(TIMEOUT) && !dir.exists());
        (reaped, reactor.metrics(), longest, driver.turns)
    };
    let (reaped, metrics, ..) = kill(Duration::MAX);
    assert!(metrics.cgroup_kills > 0 && reaped.signalled == 0, "{reaped:?}, {metrics:?}");
    for budget in [Duration::ZERO, MS] {
        // What the steps have not come to in time is left to `cgroup.kill`, on a machine that is so busy: once more.
        let in_time = (0..20).map(|_| kill(budget)).find(|(reaped, ..)| reaped.elapsed < STEPS);
        let (reaped, metrics, longest, turns) = in_time.expect("in time");
        // `sleepers` has a process of its own in the group.
        assert!(
            reaped.signalled >= MEMBERS as u64 && metrics.calls.pidfd_info > 0,
            "{reaped:?}, {metrics:?}"
        );
        assert!(longest < 300, "{longest} system calls in one call");
        assert!(turns <= 4 * MEMBERS, "{turns} turns");
    }
}

/// Where its members are signalled one by one, also its list is read a page in a call, again and again as they exit.
#[test]
fn a_large_v2_group_is_listed_in_pages() {
    require!(v2(), steps());
    const MEMBERS: usize = 4000;
    let by_pidfd = |reaper: Reaper| reaper.method(KillMethod::Pidfd);
    let after_sigterm = |reaper: Reaper| reaper.grace(Signal::TERM, TIMEOUT);
    for choose in [by_pidfd as fn(Reaper) -> Reaper, after_sigterm] {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("large");
        let canary = sandbox.canary(&[&sandbox.v2("canary")]);
        let members = sandbox.sleepers(MEMBERS, &[&dir]);
        let list = std::fs::read(dir.join("cgroup.procs")).expect("a list").len();
        assert!(list > 4 * 4096, "{list} bytes, of which a read returns 4096");
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(Duration::ZERO);
        let mut driver = Driver::new(epoll_edge, &reactor);
        let handle = reactor.spawn_reaper(choose(patient(&dir))).expect("a spawn");
        let mut longest = 0;
        let mut before = Calls::default();
        loop {
            let now = reactor.metrics().calls;
            longest = longest.max((now.read - before.read).saturating_sub(now.open - before.open));
            before = now;
            if handle.is_complete() {
                break;
            }
            driver.step(&mut reactor);
        }
        assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
        assert!(members.ended(TIMEOUT) && !dir.exists());
        assert!(longest < 4, "{longest} reads in one call, besides the first of each file");
        assert_eq!(reactor.metrics().descriptors, 0);
        canary.assert_alive();
    }
}

/// On v1 it is listed as a whole; that apart, each call is bounded as well.
#[test]
fn a_large_v1_group_is_killed_in_parts() {
    require!(v1("cpu"));
    const MEMBERS: usize = 600;
    for budget in [Duration::ZERO, MS] {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("cpu", "large");
        let canary = sandbox.canary(&[&sandbox.v1("cpu", "canary")]);
        let members = sandbox.sleepers(MEMBERS, &[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(budget);
        let mut driver = Driver::new(epoll_edge, &reactor);
        let handle = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
        let mut longest = [0; 2];
        let mut before = reactor.metrics().calls;
        while !handle.is_complete() {
            driver.step(&mut reactor);
            let now = reactor.metrics().calls;
            longest[0] = longest[0].max(now.pidfd_open - before.pidfd_open);
            longest[1] = longest[1].max(now.pidfd_send_signal - before.pidfd_send_signal);
            before = now;
        }
        assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
        assert!(members.ended(TIMEOUT) && !dir.exists());
        // Without a budget 512 of them are signalled in one call.
        assert!(budget > Duration::ZERO || longest.iter().all(|&calls| calls < 100), "{longest:?}");
        assert!(driver.turns <= 4 * MEMBERS, "{} turns", driver.turns);
        assert_eq!(reactor.metrics().descriptors, 0);
        canary.assert_alive();
    }
}

/// A loop that has other work for longer than members count as verified makes a list for hundreds of them, not for each few.
#[test]
fn a_large_v1_group_in_a_slow_loop_takes_few_lists() {
    require!(v1("cpu"));
    const MEMBERS: usize = 600;
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v1("cpu", "large");
    let members = sandbox.sleepers(MEMBERS, &[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    reactor.set_turn_budget(Duration::ZERO);
    let mut driver = Driver::new(epoll_edge, &reactor);
    let handle = reactor.spawn_reaper(patient(&dir)).expect("a spawn");
    let mut turns = 0;
    while !handle.is_complete() {
        let before = reactor.metrics().calls.pidfd_send_signal;
        driver.step(&mut reactor);
        turns += u64::from(reactor.metrics().calls.pidfd_send_signal > before);
        std::thread::sleep(20 * MS);
    }
    assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
    assert!(members.ended(TIMEOUT) && !dir.exists());
    assert!(turns < 14, "signals in {turns} turns");
}

#[test]
fn a_large_v1_tree_is_reaped_in_parts() {
    require!(v1("cpu"));
    for (hierarchy, method) in
        [("cpu", KillMethod::Auto), ("freezer", KillMethod::Auto), ("freezer", KillMethod::Freezer)]
    {
        is_reaped_in_parts(test_name!(), hierarchy, method);
    }
}

#[test]
fn a_large_v2_tree_is_reaped_in_parts() {
    require!(v2());
    is_reaped_in_parts(test_name!(), "v2", KillMethod::Pidfd);
}

/// A tree is searched, listed, signalled, frozen, thawed and removed a few directories at a time.
fn is_reaped_in_parts(test: &str, hierarchy: &str, method: KillMethod) {
    const CHILDREN: usize = 200;
    let sandbox = Sandbox::new(test);
    let group = |name: &str| match hierarchy {
        "v2" => sandbox.v2(name),
        _ => sandbox.v1(hierarchy, name),
    };
    let dir = group("tree");
    let inner: Vec<PathBuf> = (0..CHILDREN).map(|n| group(&format!("tree/{n}/inner"))).collect();
    let members: Vec<_> = inner.iter().step_by(10).map(|dir| sandbox.sleeper(&[dir])).collect();
    let mut reactor = Reactor::new().expect("a reactor");
    reactor.set_turn_budget(Duration::ZERO);
    let mut driver = Driver::new(epoll_edge, &reactor);
    // Frozen by itself: the thaw has to reach it, whichever part it is in.
    if hierarchy == "freezer" {
        freeze_v1(&inner[CHILDREN / 2]);
    }
    let handle = reactor.spawn_reaper(patient(&dir).method(method)).expect("a spawn");
    // A first part of it, four calls for each directory.
    assert!(work(&reactor.metrics().calls) < 500, "{:?}", reactor.metrics().calls);
    assert_eq!(reactor.metrics().signals, 0);
    let mut longest = 0;
    while !handle.is_complete() {
        let before = work(&reactor.metrics().calls);
        driver.step(&mut reactor);
        longest = longest.max(work(&reactor.metrics().calls) - before);
    }
    assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
    assert!(members.iter().all(|member| member.ended(TIMEOUT)) && !dir.exists());
    assert!(longest < 100, "{hierarchy}, {method}: {longest} system calls in one call");
    assert_eq!(reactor.metrics().freezes > 0, method == KillMethod::Freezer);
}

/// What holds the members of a large group frozen is found although its members are signalled in parts.
#[test]
fn a_large_group_that_is_frozen_from_outside_is_thawed() {
    require!(v2(), v1("freezer"));
    for method in [KillMethod::Auto, KillMethod::Pidfd, KillMethod::CgroupKill] {
        let sandbox = Sandbox::new(test_name!());
        let (dir, freezer) = (sandbox.v2("large"), sandbox.v1("freezer", "held"));
        let members = sandbox.sleepers(400, &[&dir, &freezer]);
        freeze_v1(&freezer);
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(Duration::ZERO);
        let mut driver = Driver::new(epoll_edge, &reactor);
        let handle = reactor.spawn_reaper(Reaper::at(&dir).method(method)).expect("a spawn");
        while !handle.is_complete() {
            driver.step(&mut reactor);
        }
        assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed, "{method}");
        assert!(members.ended(TIMEOUT) && freezer_state(&freezer) == "THAWED");
    }
}

/// A v2 tree is not walked by checks before the first signal: that walks it in parts, be it the one of the grace period or at a
/// deadline.
#[test]
fn a_large_tree_is_signalled_in_parts_by_the_first_attempt() {
    require!(v2());
    const CHILDREN: usize = 200;
    let at_the_deadline = |reaper: Reaper| reaper.linger(TIMEOUT).deadline(50 * MS);
    let by_the_grace = |reaper: Reaper| reaper.grace(Signal::TERM, TIMEOUT);
    for change in [at_the_deadline as fn(Reaper) -> Reaper, by_the_grace] {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("tree");
        (0..CHILDREN).for_each(|child| fs::create_dir(dir.join(child.to_string())).expect("mkdir"));
        let member = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(Duration::ZERO);
        let mut driver = Driver::new(epoll_edge, &reactor);
        let handle = reactor.spawn_reaper(change(Reaper::at(&dir))).expect("a spawn");
        let mut longest = work(&reactor.metrics().calls);
        while member.alive() {
            let before = work(&reactor.metrics().calls);
            driver.step(&mut reactor);
            // On a busy machine the time after the deadline may be over before: the survivors are listed at once.
            if !handle.is_complete() {
                longest = longest.max(work(&reactor.metrics().calls) - before);
            }
        }
        assert!(longest < 60, "{longest} system calls in one turn");
        let _ = finish(&mut reactor, &handle);
    }
}

/// What forks while it is killed in steps is killed by one write after that.
#[test]
fn a_large_group_that_forks_is_not_outrun() {
    require!(v2(), steps(), v1("pids"));
    for budget in [Duration::ZERO, MS] {
        let sandbox = Sandbox::new(test_name!());
        let (dir, bound) = (sandbox.v2("storm"), sandbox.v1("pids", "storm"));
        let storm = sandbox.fork_storm(400, &[&dir, &bound]);
        eventually("a large group", || storm.tasks() > 250);
        let mut reactor = Reactor::new().expect("a reactor");
        reactor.set_turn_budget(budget);
        let mut driver = Driver::new(epoll_edge, &reactor);
        let handle = reactor.spawn_reaper(Reaper::at(&dir)).expect("a spawn");
        while !handle.is_complete() {
            driver.step(&mut reactor);
        }
        assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
        assert_eq!(storm.tasks(), 0);
    }
}

/// Nor does one that takes all of the CPUs keep the steps from coming to an end.
#[test]
fn a_large_group_that_takes_all_cpus_is_not_followed_for_ever() {
    require!(v2(), steps(), v1("pids"));
    for method in [KillMethod::Auto, KillMethod::Pidfd] {
        let sandbox = Sandbox::new(test_name!());
        let (dir, bound) = (sandbox.v2("storm"), sandbox.v1("pids", "storm"));
        let storm = sandbox.fork_storm(1500, &[&dir, &bound]);
        eventually("a large group", || storm.tasks() > 1000);
        let mut reactor = Reactor::new().expect("a reactor");
        let handle = reactor.spawn_reaper(Reaper::at(&dir).method(method)).expect("a spawn");
        let end = Instant::now() + LIMIT;
        while reactor.pending().any(|reap| reap.attempts == 0) {
            assert!(Instant::now() < end, "the first attempt does not end: {reactor:?}");
            reactor.turn(Some(20 * MS)).expect("a turn");
        }
        let signals = reactor.metrics().signals;
        assert!(signals <= 3000, "{signals} signals in the first attempt, by {method}");
        if method == KillMethod::Pidfd {
            // By signals alone this takes its time.
            fs::write(dir.join("cgroup.kill"), "1").expect("cgroup.kill");
        }
        finish(&mut reactor, &handle).expect("reaped");
        assert_eq!(storm.tasks(), 0);
    }
}

/// The system calls on targets.
fn work(calls: &Calls) -> u64 {
    let Calls { open, read, write, stat, list, remove, pidfd_open, pidfd_send_signal, .. } = calls;
    open + read + write + stat + list + remove + pidfd_open + pidfd_send_signal
}
