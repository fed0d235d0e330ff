//! Reaps of real cgroups on v1 and v2: every kind of member, target and fault.
//!
//! Each test has a canary in a sibling of its target. The canary has to be alive, in place and not frozen at the
//! end of the reap. Nothing is asserted about durations, except that everything ends.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{
    Act, Effort, Facility, KillMethod, Metrics, Outcome, Reactor, ReapError, ReapHandle, Reaped, Reaper,
    Signal, UsedMethod,
};
use common::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Reaps a group of `n` sleepers.
fn sleepers(world: &World, n: usize) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(n, &refs(&dirs));
    // Where a turn has a budget, a large group is killed in another way.
    let reaped = cgroup_reaper::reap(reaper).expect("reaped");
    world.check(&reaped, n as u64);
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT));
}

// --- Members ---------------------------------------------------------------------------------------------

each!(one_process on v2, freezer, cpu, several);
fn one_process(world: &World) {
    sleepers(world, 1);
}

each!(four_processes on v2, freezer, cpu, several);
fn four_processes(world: &World) {
    sleepers(world, 4);
}

each!(thirty_two_processes on v2, freezer, cpu, several);
fn thirty_two_processes(world: &World) {
    sleepers(world, 32);
}

each!(a_thousand_processes on v2, freezer, cpu, several);
fn a_thousand_processes(world: &World) {
    sleepers(world, 1000);
}

each!(empty on v2, freezer, cpu, several);
fn empty(world: &World) {
    let (dirs, reaper) = world.target();
    let reaped = reaped(reaper);
    assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, None));
    assert_eq!((reaped.signalled, reaped.attempts), (0, 0));
    assert_gone(&dirs);
}

each!(nothing on v2, freezer, cpu, several);
fn nothing(world: &World) {
    let reaped = reaped(world.reaper("never-made"));
    assert_eq!((reaped.outcome, reaped.method), (Outcome::AlreadyGone, None));
    assert_eq!((reaped.signalled, reaped.attempts), (0, 0));
}

each!(nested_groups on v2, freezer, cpu, several);
fn nested_groups(world: &World) {
    let (dirs, reaper) = world.target();
    // The parent has members too, a group in the middle has none, and one is empty to the leaves.
    let mut members = vec![world.sandbox.sleeper(&refs(&dirs))];
    for name in ["target/a", "target/b/c/d", "target/b/e"] {
        members.push(world.sandbox.sleeper(&refs(&world.group(name))));
    }
    world.group("target/empty/empty");
    let reaped = reaped(reaper);
    world.check(&reaped, 4);
    assert_gone(&dirs);
    assert!(members.iter().all(|member| member.ended(TIMEOUT)));
}

each!(only_grandchildren_are_populated on v2, freezer, cpu, several);
fn only_grandchildren_are_populated(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&refs(&world.group("target/a/b")));
    world.check(&reaped(reaper), 1);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

each!(two_hundred_child_groups on v2, freezer, several);
fn two_hundred_child_groups(world: &World) {
    // More directories than are removed in one step.
    let (dirs, reaper) = world.target();
    for n in 0..200 {
        world.group(&format!("target/{n}"));
    }
    let member = world.sandbox.sleeper(&refs(&world.group("target/77")));
    world.check(&reaped(reaper), 1);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

each!(stopped on v2, freezer, cpu, several);
fn stopped(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.stopped(&refs(&dirs));
    world.check(&reaped(reaper), 1);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

each!(zombie_leader on v2, freezer, cpu, several);
fn zombie_leader(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.zombie_leader(&refs(&dirs));
    let reaped = reaped(reaper);
    assert_eq!(reaped.outcome, Outcome::Removed);
    // On most kernels `cgroup.kill` alone does not wake the other threads (on 7.3 it does).
    if !world.by_cgroup_kill() || reaped.method != Some(UsedMethod::CgroupKill) {
        assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Pidfd), 1));
    }
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

each!(vfork_parent on v2, freezer, cpu, several);
fn vfork_parent(world: &World) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.vfork(&refs(&dirs));
    let reaped = reaped(reaper);
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT));
}

each!(another_pid_namespace needs namespaces(), on v2, freezer, cpu, several);
fn another_pid_namespace(world: &World) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.pidns_sleepers(3, &refs(&dirs));
    let reaped = reaped(reaper);
    assert_eq!(reaped.outcome, Outcome::Removed);
    // The first signal may kill its init, and the kernel kills the others then, before they are signalled.
    assert!(reaped.signalled <= 4 && reaped.attempts >= 1, "{reaped:?}");
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT));
}

each!(much_memory on v2, freezer, cpu);
fn much_memory(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.big_memory(256, &refs(&dirs));
    world.check(&reaped(reaper), 1);
    // A process that is no longer listed may still be exiting: its memory has to be released by now.
    let status = fs::read_to_string(format!("/proc/{}/status", member.pid)).unwrap_or_default();
    assert!(!status.contains("VmRSS"), "complete while it still holds memory:\n{status}");
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

each!(churning_members on v2, freezer, cpu, several);
fn churning_members(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.churn(LIMIT, &refs(&dirs));
    let reaped = reaped(reaper);
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

// --- Frozen beforehand -----------------------------------------------------------------------------------

each!(frozen_beforehand on v2, freezer, several);
fn frozen_beforehand(world: &World) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(3, &refs(&dirs));
    world.freeze("target");
    world.check(&reaped(reaper), 3);
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT));
}

each!(a_child_frozen_beforehand on v2, freezer, several);
fn a_child_frozen_beforehand(world: &World) {
    let (dirs, reaper) = world.target();
    let parent = world.sandbox.sleeper(&refs(&dirs));
    let child = world.sandbox.sleeper(&refs(&world.group("target/a/child")));
    world.freeze("target/a/child");
    world.check(&reaped(reaper), 2);
    assert_gone(&dirs);
    assert!(parent.ended(TIMEOUT) && child.ended(TIMEOUT));
}

each!(parent_and_child_frozen_beforehand on v2, freezer, several);
fn parent_and_child_frozen_beforehand(world: &World) {
    let (dirs, reaper) = world.target();
    let parent = world.sandbox.sleeper(&refs(&dirs));
    let child = world.sandbox.sleeper(&refs(&world.group("target/child")));
    world.freeze("target/child");
    world.freeze("target");
    world.check(&reaped(reaper), 2);
    assert_gone(&dirs);
    assert!(parent.ended(TIMEOUT) && child.ended(TIMEOUT));
}

each!(stopped_and_frozen on v2, freezer, several);
fn stopped_and_frozen(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.stopped(&refs(&dirs));
    world.freeze("target");
    world.check(&reaped(reaper), 1);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
}

each!(empty_and_frozen on v2, freezer, several);
fn empty_and_frozen(world: &World) {
    let (dirs, reaper) = world.target();
    world.freeze("target");
    assert_eq!(reaped(reaper).outcome, Outcome::Removed);
    assert_gone(&dirs);
}

each!(frozen_by_an_ancestor on freezer);
fn frozen_by_an_ancestor(world: &World) {
    let above = world.group("above");
    let dirs = world.group("above/target");
    let member = world.sandbox.sleeper(&refs(&dirs));
    world.freeze("above");
    let reaper = Reaper::at(&dirs[0])
        .min_wait(Duration::from_millis(2))
        .max_wait(Duration::from_millis(20))
        .freeze_timeout(Duration::from_millis(100));
    let started = Instant::now();
    match reap(reaper) {
        Err(ReapError::FrozenByAncestor { path, .. }) => assert_eq!(path, dirs[0]),
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert!(dirs[0].exists() && member.alive());
    // The reap did not freeze the ancestor, so it must not thaw it.
    assert_eq!(freezer_state(&above[0]), "FROZEN");
    // The signal was sent nevertheless.
    thaw_v1(&above[0]);
    assert!(member.ended(TIMEOUT));
}

each!(thawed_above_in_time on freezer);
fn thawed_above_in_time(world: &World) {
    let above = world.group("above");
    let dirs = world.group("above/target");
    let member = world.sandbox.sleeper(&refs(&dirs));
    world.freeze("above");
    let mut reactor = Reactor::new().expect("reactor");
    let reaper = Reaper::at(&dirs[0]).max_wait(Duration::from_millis(20)).freeze_timeout(LIMIT);
    let handle = spawn(&mut reactor, reaper);
    drive(&mut reactor, "some attempts", |metrics| metrics.thaws >= 3);
    assert!(handle.try_wait().is_none() && member.alive());
    thaw_v1(&above[0]);
    let reaped = finish(&mut reactor, &handle).expect("reaped");
    world.check(&reaped, 1);
    assert_gone(&dirs);
    assert!(above[0].exists());
    assert!(member.ended(TIMEOUT));
}

/// A v2 target whose member is frozen by a v1 group, in which there are other processes as well.
#[test]
fn frozen_together_with_others() {
    require!(v2(), v1("freezer"));
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, reaper) = world.target();
    let other = world.sandbox.v1("freezer", "other");
    let member = world.sandbox.sleeper(&[&dirs[0], &other]);
    let bystander = world.sandbox.sleeper(&[&other]);
    freeze_v1(&other);
    let reaper = reaper.max_wait(Duration::from_millis(20));
    match reap(reaper.clone().deadline(Duration::from_millis(100))) {
        Err(ReapError::TimedOut { survivors, path, .. }) => {
            assert_eq!(path, dirs[0]);
            assert_eq!(survivors.len(), 1);
            assert_eq!(survivors[0].pid, member.pid);
            assert_eq!(survivors[0].frozen_by.as_deref(), Some(&*other));
        }
        other => panic!("{other:?}"),
    }
    match reap(reaper.clone().freeze_timeout(Duration::from_millis(100))) {
        Err(ReapError::FrozenByAncestor { path, frozen_by, .. }) => {
            assert_eq!((&path, frozen_by.as_ref()), (&dirs[0], Some(&other)));
        }
        other => panic!("{other:?}"),
    }
    let mut reactor = Reactor::new().expect("reactor");
    let handle = spawn(&mut reactor, reaper);
    let timers = reactor.metrics().timers;
    drive(&mut reactor, "ticks", |metrics| metrics.timers >= timers + 5);
    assert!(handle.try_wait().is_none() && member.alive());
    assert_eq!(freezer_state(&other), "FROZEN", "it is not ours to thaw");
    thaw_v1(&other);
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
    assert!(bystander.alive());
    world.canary.assert_alive();
}

/// The same with no other process in the v1 group.
#[test]
fn frozen_in_a_group_of_its_own() {
    require!(v2(), v1("freezer"));
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, reaper) = world.target();
    let other = world.sandbox.v1("freezer", "other");
    let members = world.sandbox.sleepers(3, &[&dirs[0], &other]);
    freeze_v1(&other);
    assert_eq!(reaped(reaper).outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT));
    assert!(other.exists(), "it is not ours to remove");
    world.canary.assert_alive();
}

/// Of a main thread that has exited /proc says that it is in the root of each v1 hierarchy.
#[test]
fn a_zombie_leader_frozen_in_a_group_of_its_own() {
    require!(v2(), v1("freezer"));
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, reaper) = world.target();
    let other = world.sandbox.v1("freezer", "other");
    let member = world.sandbox.zombie_leader(&[&dirs[0], &other]);
    freeze_v1(&other);
    // `cgroup.kill` leaves it alone, and SIGKILL stays pending.
    let reaper = reaper.max_wait(Duration::from_millis(20)).deadline(TIMEOUT);
    assert_eq!(reaped(reaper).outcome, Outcome::Removed);
    assert!(member.ended(TIMEOUT));
    assert!(other.exists(), "it is not ours to remove");
    world.canary.assert_alive();
}

// --- Threaded v2 groups ----------------------------------------------------------------------------------

#[test]
fn a_domain_with_a_threaded_group() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, reaper) = world.target();
    let member = world.sandbox.threaded(&dirs[0]);
    let reaped = reaped(reaper);
    world.check(&reaped, 1);
    assert_gone(&dirs);
    assert!(member.ended(TIMEOUT));
    world.canary.assert_alive();
}

#[test]
fn a_domain_with_a_threaded_group_by_signals() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    for method in [KillMethod::Pidfd, KillMethod::Freezer] {
        let (dirs, reaper) = world.target();
        let member = world.sandbox.threaded(&dirs[0]);
        let reaped = reaped(reaper.method(method));
        assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 1));
        assert_gone(&dirs);
        assert!(member.ended(TIMEOUT));
    }
    world.canary.assert_alive();
}

#[test]
fn a_threaded_group_itself() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    let domain = world.sandbox.v2("domain");
    let member = world.sandbox.threaded(&domain);
    // cgroup.kill says EOPNOTSUPP here, and reading cgroup.procs as well.
    if linux() >= (5, 14) {
        match reap(Reaper::at(&member.dir).method(KillMethod::CgroupKill).max_wait(Duration::from_millis(20)))
        {
            Err(ReapError::Denied { act: Act::Kill, source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EOPNOTSUPP));
            }
            other => panic!("{other:?}"),
        }
    }
    let reaped = reaped(Reaper::at(&member.dir));
    assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, Some(UsedMethod::Pidfd)));
    assert_eq!(reaped.signalled, 1);
    assert!(!member.dir.exists());
    assert!(domain.exists(), "parents are not ours");
    assert!(member.ended(TIMEOUT));
    world.canary.assert_alive();
}

// --- Members that come and go ----------------------------------------------------------------------------

/// Reaps a fork storm.
fn fork_storm(world: &World, method: KillMethod) -> Reaped {
    let (dirs, reaper) = world.target();
    let storm = world.sandbox.fork_storm(60, &refs(&dirs));
    let reaped = reaped(reaper.method(method));
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert!(reaped.attempts >= 1);
    assert_gone(&dirs);
    eventually("the end of the storm", || storm.tasks() == 0);
    reaped
}

each!(fork_storm_auto needs pids_limit(), on v2, freezer, cpu, several);
fn fork_storm_auto(world: &World) {
    fork_storm(world, KillMethod::Auto);
}

each!(fork_storm_pidfd needs pids_limit(), on v2, freezer, cpu, several);
fn fork_storm_pidfd(world: &World) {
    assert_eq!(fork_storm(world, KillMethod::Pidfd).method, Some(UsedMethod::Pidfd));
}

/// On a slow machine a freeze can stall, and then the members are signalled as they are.
#[track_caller]
fn assert_frozen_first(reaped: &Reaped) {
    let has_stalled = reaped.method == Some(UsedMethod::Pidfd) && reaped.elapsed >= Duration::from_millis(50);
    assert!(reaped.method == Some(UsedMethod::Freezer) || has_stalled, "{reaped:?}");
}

each!(fork_storm_freezer needs pids_limit(), on v2, freezer, several);
fn fork_storm_freezer(world: &World) {
    assert_frozen_first(&fork_storm(world, KillMethod::Freezer));
}

each!(refilled_while_reaped on v2, freezer, cpu, several);
fn refilled_while_reaped(world: &World) {
    let (dirs, reaper) = world.target();
    // Keeps the reap waiting while other processes join.
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    world.sandbox.refiller(1000, Duration::from_millis(3), &refs(&dirs));
    let mut reactor = Reactor::new().expect("reactor");
    let handle = spawn(&mut reactor, reaper.max_wait(Duration::from_millis(20)));
    // After the first attempt, however many of them were members then.
    let kills = |metrics: &Metrics| metrics.cgroup_kills + metrics.signals;
    let first = kills(&reactor.metrics());
    drive(&mut reactor, "new members killed", |metrics| kills(metrics) >= first + 4);
    assert!(handle.try_wait().is_none());
    stuck.release();
    let reaped = finish(&mut reactor, &handle).expect("reaped");
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert!(reaped.attempts >= 2, "{reaped:?}");
    assert_gone(&dirs);
}

/// A process of a v1 target need not be in all of its hierarchies, nor in that of the freezer.
fn beside_the_freezer(world: &World, method: KillMethod) -> Reaped {
    let (dirs, reaper) = world.target();
    let inside = world.sandbox.sleeper(&refs(&dirs));
    let beside = world.sandbox.sleepers(3, &[&dirs[1]]);
    let reaped = reaped(reaper.method(method));
    assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 4));
    assert_gone(&dirs);
    assert!(inside.ended(TIMEOUT) && beside.ended(TIMEOUT));
    reaped
}

each!(beside_the_freezer_auto on several);
fn beside_the_freezer_auto(world: &World) {
    assert_eq!(beside_the_freezer(world, KillMethod::Auto).method, Some(UsedMethod::Pidfd));
}

each!(beside_the_freezer_by_freezer on several);
fn beside_the_freezer_by_freezer(world: &World) {
    assert_frozen_first(&beside_the_freezer(world, KillMethod::Freezer));
}

// --- Members that cannot exit ----------------------------------------------------------------------------

each!(unkillable_without_deadline on v2, freezer, cpu, several);
fn unkillable_without_deadline(world: &World) {
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    let others = world.sandbox.sleepers(3, &refs(&dirs));
    let neighbours: Vec<Vec<PathBuf>> = (0..5).map(|n| world.group(&format!("neighbour-{n}"))).collect();
    let mut reactor = Reactor::new().expect("reactor");
    let handle = spawn(&mut reactor, reaper.max_wait(Duration::from_millis(40)));
    let handles: Vec<ReapHandle> = (0..5)
        .map(|n| {
            world.sandbox.sleeper(&refs(&neighbours[n]));
            spawn(&mut reactor, world.reaper(&format!("neighbour-{n}")))
        })
        .collect();
    for (handle, dirs) in handles.iter().zip(&neighbours) {
        world.check(&finish(&mut reactor, handle).expect("reaped"), 1);
        assert_gone(dirs);
    }
    eventually("killed", || stuck.parked());
    assert!(others.ended(TIMEOUT));
    // Finally by signals, because `cgroup.kill` had no effect.
    drive(&mut reactor, "signals", |metrics| metrics.signals >= 1);
    // Some safety ticks later.
    let timers = reactor.metrics().timers;
    drive(&mut reactor, "ticks", |metrics| metrics.timers >= timers + 4);
    assert!(handle.try_wait().is_none(), "complete while one lives");
    assert!(dirs.iter().all(|dir| dir.exists()));
    stuck.release();
    let reaped = finish(&mut reactor, &handle).expect("reaped");
    assert_eq!(reaped.outcome, Outcome::Removed);
    let signalled = if world.by_cgroup_kill() { 1..=4 } else { 4..=4 };
    assert!(signalled.contains(&reaped.signalled), "{reaped:?}");
    assert!(matches!(reaped.method, Some(UsedMethod::CgroupKill | UsedMethod::Pidfd)), "{reaped:?}");
    assert_gone(&dirs);
}

/// Reaps a target with a member that cannot exit, with a deadline, and other targets beside it.
fn unkillable(world: &World, method: KillMethod) {
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    let others = world.sandbox.sleepers(3, &refs(&dirs));
    let neighbours: Vec<Vec<PathBuf>> = (0..5).map(|n| world.group(&format!("neighbour-{n}"))).collect();
    neighbours.iter().for_each(|dirs| _ = world.sandbox.sleeper(&refs(dirs)));
    let mut reactor = Reactor::new().expect("reactor");
    let deadline = Duration::from_secs(2);
    let reaper = reaper.method(method).max_wait(Duration::from_millis(100)).deadline(deadline);
    let spawning = Instant::now();
    let handle = spawn(&mut reactor, reaper);
    let handles: Vec<ReapHandle> =
        (0..5).map(|n| spawn(&mut reactor, world.reaper(&format!("neighbour-{n}")).method(method))).collect();
    drive(&mut reactor, "one of them", |metrics| metrics.completed >= 1);
    assert!(!handle.is_complete(), "neighbours wait for the one that cannot die");
    for handle in &handles {
        assert_eq!(finish(&mut reactor, handle).expect("reaped").outcome, Outcome::Removed);
    }
    match finish(&mut reactor, &handle) {
        Err(ReapError::TimedOut { path, survivors, .. }) => {
            assert_eq!(path, dirs[0]);
            assert_eq!(survivors.len(), 1, "{survivors:?}");
            assert_eq!((survivors[0].pid, survivors[0].state), (stuck.pid, Some('t')));
            assert_eq!(survivors[0].command, "reaper-fixture");
            assert!(survivors[0].frozen_by.is_none() && !survivors[0].kernel_thread);
        }
        other => panic!("{other:?}"),
    }
    assert!(spawning.elapsed() >= deadline);
    assert!(others.ended(TIMEOUT));
    assert!(dirs.iter().all(|dir| dir.exists()));
    assert!(!world.frozen("target"));
    stuck.release();
    assert!(stuck.ended(TIMEOUT), "it was killed");
    // What is left can be reaped again.
    assert_eq!(reaped(world.reaper("target")).outcome, Outcome::Removed);
    assert_gone(&dirs);
}

each!(unkillable_with_deadline on v2, freezer, cpu, several);
fn unkillable_with_deadline(world: &World) {
    unkillable(world, KillMethod::Auto);
}

each!(unkillable_with_deadline_by_freezer on v2, freezer, several);
fn unkillable_with_deadline_by_freezer(world: &World) {
    unkillable(world, KillMethod::Freezer);
}

each!(cancelled on v2, freezer, cpu, several);
fn cancelled(world: &World) {
    for method in [KillMethod::Auto, KillMethod::Freezer] {
        if world.layout == Layout::Cpu && method == KillMethod::Freezer {
            continue;
        }
        let (dirs, reaper) = world.target();
        let stuck = world.sandbox.trace_exit(&refs(&dirs));
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(method));
        drive(&mut reactor, "the kill", |_| stuck.parked());
        assert!(handle.try_wait().is_none());
        handle.cancel();
        handle.cancel();
        match finish(&mut reactor, &handle) {
            Err(ReapError::Cancelled { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(reactor.is_empty());
        assert!(dirs.iter().all(|dir| dir.exists()) && !world.frozen("target"));
        stuck.release();
        assert!(stuck.ended(TIMEOUT));
        assert_eq!(reaped(world.reaper("target")).outcome, Outcome::Removed);
    }
}

each!(disconnected on v2, freezer, cpu, several);
fn disconnected(world: &World) {
    let method = if world.layout == Layout::Cpu { KillMethod::Auto } else { KillMethod::Freezer };
    // In mid-freeze, most likely; and after the kill.
    for killed in [false, true] {
        let (dirs, reaper) = world.target();
        let stuck = world.sandbox.trace_exit(&refs(&dirs));
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(method));
        if killed {
            drive(&mut reactor, "the kill", |_| stuck.parked());
        }
        drop(reactor);
        match handle.wait() {
            Err(ReapError::Disconnected { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(dirs.iter().all(|dir| dir.exists()) && !world.frozen("target"));
        stuck.release();
        assert_eq!(reaped(world.reaper("target")).outcome, Outcome::Removed);
    }
}

// --- Grace -----------------------------------------------------------------------------------------------

each!(grace_is_enough on v2, freezer, cpu, several);
fn grace_is_enough(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.on_term(Duration::from_millis(30), &refs(&dirs));
    let reaped = reaped(reaper.grace(Signal::TERM, 2 * LIMIT));
    assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, None));
    assert_eq!((reaped.signalled, reaped.attempts), (1, 0));
    assert_gone(&dirs);
    assert_eq!(member.wait(TIMEOUT).and_then(|status| status.code()), Some(0), "not by its own exit");
}

each!(grace_is_ignored on v2, freezer, cpu, several);
fn grace_is_ignored(world: &World) {
    use std::os::unix::process::ExitStatusExt;
    let (dirs, reaper) = world.target();
    let period = Duration::from_millis(150);
    let stubborn = world.sandbox.ignores_sigterm(&refs(&dirs));
    let polite = world.sandbox.on_term(Duration::ZERO, &refs(&dirs));
    let reaped = reaped(reaper.grace(Signal::TERM, period));
    assert_eq!(reaped.outcome, Outcome::Removed);
    // On a slow machine by signals, after `cgroup.kill`.
    let by_cgroup_kill = world.by_cgroup_kill() && reaped.method == Some(UsedMethod::CgroupKill);
    assert!(by_cgroup_kill || reaped.method == Some(UsedMethod::Pidfd), "{reaped:?}");
    assert_eq!(reaped.signalled, 2);
    assert!(reaped.attempts >= 1 && reaped.elapsed >= period, "{reaped:?}");
    assert_gone(&dirs);
    assert_eq!(polite.wait(TIMEOUT).and_then(|status| status.code()), Some(0));
    assert_eq!(stubborn.wait(TIMEOUT).and_then(|status| status.signal()), Some(libc::SIGKILL));
}

each!(grace_reaches_the_stopped on v2, freezer, cpu, several);
fn grace_reaches_the_stopped(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.on_term(Duration::ZERO, &refs(&dirs));
    member.signal(libc::SIGSTOP);
    eventually("stopped", || member.state() == Some('T'));
    let reaped = reaped(reaper.grace(Signal::TERM, 2 * LIMIT));
    assert_eq!((reaped.outcome, reaped.attempts), (Outcome::Removed, 0));
    assert_gone(&dirs);
    assert_eq!(member.wait(TIMEOUT).and_then(|status| status.code()), Some(0), "not by its own exit");
}

each!(grace_reaches_the_frozen on v2, freezer, several);
fn grace_reaches_the_frozen(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.on_term(Duration::ZERO, &refs(&dirs));
    world.freeze("target");
    let reaped = reaped(reaper.grace(Signal::TERM, 2 * LIMIT));
    assert_eq!((reaped.outcome, reaped.attempts), (Outcome::Removed, 0));
    assert_gone(&dirs);
    assert_eq!(member.wait(TIMEOUT).and_then(|status| status.code()), Some(0), "not by its own exit");
}

// --- What stays ------------------------------------------------------------------------------------------

each!(directories_are_kept on v2, freezer, cpu, several);
fn directories_are_kept(world: &World) {
    for method in [KillMethod::Auto, KillMethod::Pidfd, KillMethod::Freezer] {
        if world.layout == Layout::Cpu && method == KillMethod::Freezer {
            continue;
        }
        let (dirs, reaper) = world.target();
        let below = world.group("target/below");
        let members = world.sandbox.sleepers(3, &refs(&dirs));
        let child = world.sandbox.sleeper(&refs(&below));
        let reaped = reaped(reaper.method(method).keep_dir());
        assert_eq!(reaped.outcome, Outcome::Emptied);
        assert!(members.ended(TIMEOUT) && child.ended(TIMEOUT));
        for dir in dirs.iter().chain(&below) {
            assert!(dir.exists() && pids_in(dir).is_empty(), "{}", dir.display());
        }
        assert!(!world.frozen("target") && !world.frozen("target/below"));
        // Other programs can use them at once.
        let next = world.sandbox.sleeper(&refs(&below));
        assert!(next.alive());
    }
}

/// Removes the target during the reap and makes it again, with a canary in it.
fn replaced(world: &World, method: KillMethod) {
    for _ in 0..10 {
        let (dirs, reaper) = world.target();
        let member = world.sandbox.sleeper(&refs(&dirs));
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = reaper.method(method).max_wait(Duration::from_millis(20));
        let handle = spawn(&mut reactor, reaper);
        // Up to the attempt to kill, without the check after it.
        drive(&mut reactor, "the kill", |metrics| metrics.cgroup_kills + metrics.signals >= 1);
        assert!(member.ended(TIMEOUT));
        if handle.is_complete() {
            // On a slow machine the check was due within the same turn.
            continue;
        }
        for dir in &dirs {
            eventually("rmdir", || fs::remove_dir(dir).is_ok());
        }
        let new_member = world.sandbox.canary(&refs(&world.group("target")));
        match finish(&mut reactor, &handle) {
            Err(ReapError::Replaced { path, .. }) => assert!(dirs.contains(&path), "{path:?}"),
            other => panic!("{other:?}"),
        }
        new_member.assert_alive();
        assert!(!world.frozen("target"));
        return;
    }
    panic!("each time it was over before it could be replaced");
}

each!(replaced_under_way on v2, freezer, cpu, several);
fn replaced_under_way(world: &World) {
    replaced(world, KillMethod::Auto);
}

each!(replaced_under_way_by_freezer on v2, freezer, several);
fn replaced_under_way_by_freezer(world: &World) {
    replaced(world, KillMethod::Freezer);
}

/// One of several directories was made again by another program: the others are reaped nevertheless.
#[test]
fn one_of_several_replaced() {
    require!(Layout::Several.need());
    let world = World::new(test_name!(), Layout::Several);
    let (dirs, reaper) = world.target();
    let first = world.sandbox.sleeper(&refs(&dirs));
    let stuck = world.sandbox.trace_exit(&[&dirs[0]]);
    let mut reactor = Reactor::new().expect("reactor");
    let handle = spawn(&mut reactor, reaper.max_wait(Duration::from_millis(20)));
    assert!(first.ended(TIMEOUT));
    eventually("rmdir", || fs::remove_dir(&dirs[1]).is_ok());
    let new_member = world.sandbox.canary(&[&world.sandbox.v1(SEVERAL[1], "target")]);
    let ticks = reactor.metrics().timers;
    drive(&mut reactor, "ticks", |metrics| metrics.timers >= ticks + 3);
    assert!(handle.try_wait().is_none());
    new_member.assert_alive();
    stuck.release();
    match finish(&mut reactor, &handle) {
        Err(ReapError::Replaced { path, .. }) => assert_eq!(path, dirs[1]),
        other => panic!("{other:?}"),
    }
    assert!(!dirs[0].exists() && !dirs[2].exists());
    new_member.assert_alive();
    world.canary.assert_alive();
}

// --- Methods and fallbacks -------------------------------------------------------------------------------

/// Reaps three sleepers, one of them in a child group, by a changed reaper.
fn by(world: &World, change: impl FnOnce(Reaper) -> Reaper) -> Reaped {
    reap_target(world, &[], change)
}

/// The same where the kernel lacks facilities.
fn without(world: &World, absent: &'static [Facility]) -> Reaped {
    reap_target(world, absent, |reaper| reaper)
}

fn reap_target(world: &World, absent: &'static [Facility], change: impl FnOnce(Reaper) -> Reaper) -> Reaped {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(2, &refs(&dirs));
    let child = world.sandbox.sleeper(&refs(&world.group("target/child")));
    let reaped = reaped_without(absent, change(reaper));
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert!(reaped.attempts >= 1);
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT) && child.ended(TIMEOUT));
    reaped
}

each!(method_freezer on v2, freezer, several);
fn method_freezer(world: &World) {
    let reaped = by(world, |reaper| reaper.method(KillMethod::Freezer));
    assert_frozen_first(&reaped);
    assert_eq!(reaped.signalled, 3);
}

each!(method_pidfd on v2, freezer, cpu, several);
fn method_pidfd(world: &World) {
    let reaped = by(world, |reaper| reaper.method(KillMethod::Pidfd));
    assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Pidfd), 3));
}

each!(method_cgroup_kill needs cgroup_kill(), on v2);
fn method_cgroup_kill(world: &World) {
    let reaped = by(world, |reaper| reaper.method(KillMethod::CgroupKill));
    assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::CgroupKill), 0));
}

each!(frozen_beforehand_by_each_method on v2, freezer, several);
fn frozen_beforehand_by_each_method(world: &World) {
    for method in [KillMethod::Freezer, KillMethod::Pidfd] {
        let (dirs, reaper) = world.target();
        let members = world.sandbox.sleepers(3, &refs(&dirs));
        let child = world.sandbox.sleeper(&refs(&world.group("target/child")));
        world.freeze("target/child");
        world.freeze("target");
        let reaped = reaped(reaper.method(method));
        assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 4));
        assert_gone(&dirs);
        assert!(members.ended(TIMEOUT) && child.ended(TIMEOUT));
    }
}

each!(without_cgroup_kill on v2, freezer, cpu, several);
fn without_cgroup_kill(world: &World) {
    let reaped = without(world, &[Facility::CgroupKill]);
    assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Pidfd), 3));
}

#[test]
fn without_pidfd_v2() {
    require!(v2(), cgroup_kill());
    let world = World::new(test_name!(), Layout::V2);
    let reaped = without(&world, &[Facility::Pidfds]);
    if reaped.attempts <= 2 {
        assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::CgroupKill), 0));
    }
}

each!(without_pidfd on freezer, several);
fn without_pidfd(world: &World) {
    let reaped = without(world, &[Facility::Pidfds]);
    assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Freezer), 3));
}

/// Attempts at the deadline do not begin with a freeze, but need one here.
fn without_pidfd_at_the_deadline(world: &World) {
    let hour = Duration::from_secs(3600);
    let waits: [fn(Reaper, Duration) -> Reaper; 2] =
        [|reaper, hour| reaper.grace(Signal::TERM, hour), |reaper, hour| reaper.linger(hour)];
    for wait in waits {
        for method in [KillMethod::Auto, KillMethod::Freezer] {
            let kills = || {
                let (dirs, reaper) = world.target();
                let member = world.sandbox.ignores_sigterm(&refs(&dirs));
                let reaper = wait(reaper, hour).method(method).deadline(Duration::from_millis(300));
                let result = reap_without(&[Facility::Pidfds], reaper);
                // It may not have exited yet.
                let signalled = |effort: Effort| effort.method == Some(UsedMethod::Freezer);
                let killed =
                    result.as_ref().map_or_else(|error| error.effort().is_some_and(signalled), |_| true);
                assert!(!killed || member.ended(TIMEOUT), "{method}: {result:?}");
                reaped(world.reaper("target"));
                killed
            };
            // On a busy machine the freeze is not complete within the 95 ms after the deadline: once more.
            assert!((0..20).any(|_| kills()), "{method}");
        }
    }
}
each!(without_pidfd_at_the_deadline on freezer, several);

/// A v2 freeze does not keep a process from being killed, and its pid from being given to another.
#[test]
fn without_cgroup_kill_and_pidfd_v2_is_not_signalled() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&refs(&dirs));
    let absent = &[Facility::CgroupKill, Facility::Pidfds];
    match reap_without(absent, reaper.max_wait(Duration::from_millis(20))) {
        Err(ReapError::Denied { act: Act::Kill, .. }) => assert!(member.alive()),
        other => panic!("{other:?}"),
    }
}

each!(without_cgroup_kill_and_pidfd on freezer, several);
fn without_cgroup_kill_and_pidfd(world: &World) {
    let reaped = without(world, &[Facility::CgroupKill, Facility::Pidfds]);
    assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Freezer), 3));
}

each!(without_events on v2, freezer, cpu, several);
fn without_events(world: &World) {
    let reaped = without(world, &[Facility::Watches]);
    world.check(&reaped, 3);
}

each!(without_anything on freezer, several);
fn without_anything(world: &World) {
    let reaped = without(world, &[Facility::CgroupKill, Facility::Pidfds, Facility::Watches]);
    assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Freezer), 3));
}

each!(nothing_safe_to_kill_with on cpu);
fn nothing_safe_to_kill_with(world: &World) {
    let named = |options| Reaper::new(options, "target");
    let options = || options(&world.sandbox, &["cpu"]);
    for (safe, as_the_caller_asks) in [
        (named(options()), named(options().kill_without_freezer())),
        (world.reaper("target"), world.reaper("target").kill_without_freezer()),
    ] {
        let dirs = world.group("target");
        let member = world.sandbox.sleeper(&refs(&dirs));
        match reap_without(&[Facility::Pidfds], safe.max_wait(Duration::from_millis(20))) {
            Err(ReapError::Denied { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(member.alive() && dirs[0].exists());
        let reaped = reaped_without(&[Facility::Pidfds], as_the_caller_asks);
        assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, Some(UsedMethod::Unverified)));
        assert_eq!(reaped.signalled, 1);
        assert_gone(&dirs);
        assert!(member.ended(TIMEOUT));
    }
}

/// A frozen freezer keeps the pids of its own members only. Other processes are not safe to signal by number.
#[test]
fn nothing_safe_to_kill_with_beside_the_freezer() {
    require!(Layout::Several.need());
    let world = World::new(test_name!(), Layout::Several);
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&[&dirs[1]]);
    match reap_without(&[Facility::Pidfds], reaper.max_wait(Duration::from_millis(20))) {
        Err(ReapError::Denied { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(member.alive() && dirs.iter().all(|dir| dir.exists()));
    assert!(!world.frozen("target"));
    world.canary.assert_alive();
}

// --- Many at once ----------------------------------------------------------------------------------------

/// `n` targets, one process each, v1 and v2 in turn as far as the machine has them.
fn many(sandbox: &Sandbox, n: usize) -> Vec<(PathBuf, Proc)> {
    let layouts: Vec<Layout> =
        [Layout::V2, Layout::Freezer, Layout::Cpu].into_iter().filter(|it| it.need().is_ok()).collect();
    (0..n)
        .map(|i| {
            let dir = make(sandbox, layouts[i % layouts.len()], &format!("target-{i}")).remove(0);
            let member = sandbox.sleeper(&[&dir]);
            (dir, member)
        })
        .collect()
}

#[test]
fn a_thousand_targets() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let targets = many(&world.sandbox, 1000);
        let before = open_fds();
        let mut reactor = Reactor::new().expect("reactor");
        let own = open_fds();
        let handles: Vec<ReapHandle> =
            targets.iter().map(|(dir, _)| spawn(&mut reactor, Reaper::at(dir))).collect();
        drive(&mut reactor, "all of them", |metrics| metrics.completed == 1000);
        assert!(reactor.is_empty() && reactor.metrics().descriptors == 0);
        for (handle, (dir, member)) in handles.iter().zip(&targets) {
            let reaped = handle.try_wait().expect("complete").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reaped.outcome, Outcome::Removed);
            assert!(!dir.exists() && member.ended(TIMEOUT));
        }
        // Two tell of the caller's own cgroups, of the process and of the thread, at most: a file in /proc and a pidfd
        // each. Two are shared by all targets of one of three hierarchies: of its mount, and of their parent.
        assert!(open_fds() <= own + 4 + 3 * 2, "{} descriptors more", open_fds() - own);
        drop((handles, reactor));
        assert_eq!(open_fds(), before);
        world.canary.assert_alive();
    });
}

#[test]
fn few_descriptors() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let targets = many(&world.sandbox, 200);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
        // A quarter of them is the caller's, and the reserve for single steps.
        setrlimit(Resource::RLIMIT_NOFILE, 4 * (open_fds() as u64 + 12), hard).expect("setrlimit");
        let mut reactor = Reactor::new().expect("reactor");
        let handles: Vec<ReapHandle> =
            targets.iter().map(|(dir, _)| spawn(&mut reactor, Reaper::at(dir))).collect();
        drive(&mut reactor, "all of them", |metrics| metrics.completed == 200);
        assert!(reactor.metrics().unwatched > 0, "{reactor:?}");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("setrlimit");
        for (handle, (dir, member)) in handles.iter().zip(&targets) {
            let reaped = handle.try_wait().expect("complete").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(reaped.outcome, Outcome::Removed);
            assert!(!dir.exists() && member.ended(TIMEOUT));
        }
        world.canary.assert_alive();
    });
}

/// Another program removes every empty group at once, as the release agent of v1 does.
#[test]
fn a_release_agent() {
    require!(any_hierarchy());
    let world = World::new(test_name!(), any_layout());
    let targets = many(&world.sandbox, 200);
    let dirs: Vec<PathBuf> = targets.iter().map(|(dir, _)| dir.clone()).collect();
    let removed = Arc::new(AtomicUsize::new(0));
    let agent = {
        let removed = Arc::clone(&removed);
        Repeated::new(move |_| {
            let gone = dirs.iter().filter(|dir| fs::remove_dir(dir).is_ok());
            removed.fetch_add(gone.count(), Ordering::Relaxed);
        })
    };
    let mut reactor = Reactor::new().expect("reactor");
    let handles: Vec<ReapHandle> =
        targets.iter().map(|(dir, _)| spawn(&mut reactor, Reaper::at(dir))).collect();
    drive(&mut reactor, "all of them", |metrics| metrics.completed == 200);
    drop(agent);
    for (handle, (dir, member)) in handles.iter().zip(&targets) {
        let reaped = handle.try_wait().expect("complete").unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(reaped.outcome, Outcome::Removed | Outcome::AlreadyGone), "{reaped:?}");
        assert!(!dir.exists() && member.ended(TIMEOUT));
    }
    assert!(removed.load(Ordering::Relaxed) <= 200);
    world.canary.assert_alive();
}

/// Another program moves a killed member, which is still exiting, to another group, and removes the target.
#[test]
fn removed_by_another_before_all_are_dead() {
    require!(v1("freezer"));
    let world = World::new(test_name!(), Layout::Freezer);
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    let mut reactor = Reactor::new().expect("reactor");
    let handle = spawn(&mut reactor, reaper.max_wait(Duration::from_millis(10)));
    drive(&mut reactor, "the kill", |_| stuck.parked());
    let other = world.group("other");
    fs::write(other[0].join("cgroup.procs"), stuck.pid.to_string()).expect("move the exiting process");
    fs::remove_dir(&dirs[0]).expect("rmdir");
    let ticks = reactor.metrics().checks;
    for _ in 0..20 {
        reactor.turn(Some(Duration::from_millis(5))).expect("turn");
    }
    assert!(reactor.metrics().checks > ticks || handle.is_complete());
    if pidfds_have_identity() {
        assert!(handle.try_wait().is_none(), "complete while one that was killed lives");
    }
    stuck.release();
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    world.canary.assert_alive();
}

/// Linux 6.9: pidfds tell an exiting process from a later one with its pid.
fn pidfds_have_identity() -> bool {
    linux() >= (6, 9)
}

// --- Wake-ups --------------------------------------------------------------------------------------------

/// A v2 group at rest costs one notification, and no timer.
#[test]
fn one_wake_up_for_a_v2_group_at_rest() {
    require!(cgroup_kill());
    let world = World::new(test_name!(), Layout::V2);
    let mut seen = Vec::new();
    for n in 0..20 {
        let name = format!("target-{n}");
        let dirs = world.group(&name);
        world.sandbox.sleepers(4, &refs(&dirs));
        // The kernel holds back a notification that follows another too soon.
        thread::sleep(Duration::from_millis(60));
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, world.reaper(&name));
        world.check(&finish(&mut reactor, &handle).expect("reaped"), 4);
        assert_gone(&dirs);
        let metrics = reactor.metrics();
        if (metrics.events, metrics.timers, metrics.wakeups) == (1, 0, 1) {
            world.canary.assert_alive();
            return;
        }
        seen.push((metrics.events, metrics.timers));
    }
    panic!("events and timers: {seen:?}");
}

/// A member that cannot exit costs its safety tick, and nothing in between.
#[test]
fn a_v2_group_that_cannot_die_is_left_in_peace() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    let mut reactor = Reactor::new().expect("reactor");
    // Else a slow machine needs several turns for an attempt.
    reactor.set_turn_budget(Duration::MAX);
    let waits = reaper.min_wait(Duration::from_millis(200)).max_wait(Duration::from_secs(3600));
    let since = Instant::now();
    let handle = spawn(&mut reactor, waits);
    drive(&mut reactor, "the second kill", |metrics| metrics.timers >= 1 && stuck.parked());
    // After the checks that follow the first attempt, the second, and the third, which signals as well.
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        reactor.turn(Some(Duration::from_millis(100))).expect("turn");
    }
    let metrics = reactor.metrics();
    // 1, 2, 4, ..., 128 ms after the first kill; then 200 ms, 1000 ms, and 1, 2, 4, ..., 512 ms after that.
    // A machine so slow that it has come to the fourth attempt, at 4200 ms, has had the checks that follow that, too.
    let further = if since.elapsed() < Duration::from_millis(4200) { 0 } else { 11 };
    assert!(metrics.timers <= 20 + further, "{metrics:?}");
    assert!(metrics.wakeups <= 22 + further, "{metrics:?}");
    stuck.release();
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    world.canary.assert_alive();
}
