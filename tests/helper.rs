//! `Reactor::set_helper_thread`: what is left to threads of the reactor's own.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cgroup_reaper::{Facility, Metrics, Outcome, Reactor, ReapError, Reaped, Reaper, UsedMethod};
use common::*;

/// Members that a helper thread is for.
const MANY: usize = 200;

fn reactor(absent: &'static [Facility]) -> Reactor {
    let mut reactor = Reactor::without(absent).unwrap();
    reactor.set_helper_thread(true);
    // So that a spawn makes the first attempt, however slow the machine is.
    reactor.set_turn_budget(Duration::MAX);
    reactor
}

fn reap_in(reactor: &mut Reactor, reaper: Reaper) -> ReapResult {
    let handle = spawn(reactor, reaper);
    finish(reactor, &handle)
}

/// Threads that helpers have in this program. Only for tests that are alone in it.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "cgroup-reaper").count()
}

#[track_caller]
fn assert_killed(reaped: &Reaped) {
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert!(matches!(reaped.method, Some(UsedMethod::CgroupKill | UsedMethod::Pidfd)), "{reaped:?}");
}

/// Once, by a thread that is there as long as the reactor, the next ones as well; fewer are killed in the spawn.
#[test]
fn many_members_are_killed_by_a_thread() {
    require!(v2(), cgroup_kill());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let canary = sandbox.canary(&[&sandbox.v2("canary")]);
        let mut reactor = reactor(&[]);
        for (nth, members) in [5, MANY + 50, MANY + 50, 5].into_iter().enumerate() {
            let dir = sandbox.v2(&format!("target-{nth}"));
            let sleepers = sandbox.sleepers(members, &[&dir]);
            let Metrics { cgroup_kills, helper_jobs, .. } = reactor.metrics();
            let handle = spawn(&mut reactor, slow(Reaper::at(&dir)));
            let is_many = members > MANY;
            // One that is made in the spawn is counted there.
            assert_eq!(reactor.metrics().cgroup_kills, cgroup_kills + u64::from(!is_many));
            assert_eq!(reactor.metrics().helper_jobs, helper_jobs + u64::from(is_many));
            assert_killed(&finish(&mut reactor, &handle).unwrap());
            assert!(sleepers.0.iter().all(|sleeper| !sleeper.alive()));
            // The directory was removed by one, too.
            assert_eq!(reactor.metrics().helper_jobs, helper_jobs + 1 + u64::from(is_many));
            // The removal can begin before the write that killed the members has returned.
            assert!((1..=2).contains(&threads()), "{nth}");
        }
        let Metrics { helper_threads, helper_jobs, helper_refused, descriptors, .. } = reactor.metrics();
        assert_eq!((helper_jobs, helper_refused, descriptors), (6, 0, 0));
        assert!((1..=2).contains(&helper_threads), "{helper_threads}");
        drop(reactor);
        // A thread that has been joined can be seen in /proc a little longer.
        eventually("an idle thread outlives its reactor", || threads() == 0);
        canary.assert_alive();
    });
}

/// The cgroups in the target count as well.
#[test]
fn many_cgroups_are_killed_by_a_thread() {
    require!(v2(), cgroup_kill());
    let sandbox = Sandbox::new(test_name!());
    let top = sandbox.v2("target");
    let dirs: Vec<PathBuf> = (0..MANY).map(|n| sandbox.v2(&format!("target/{n}"))).collect();
    let sleepers = sandbox.one_each(&dirs);
    let mut reactor = reactor(&[]);
    let handle = spawn(&mut reactor, Reaper::at(&top));
    assert_eq!(reactor.metrics().helper_jobs, 1, "the kill");
    assert_killed(&finish(&mut reactor, &handle).unwrap());
    assert!(sleepers.0.iter().all(|sleeper| !sleeper.alive()));
}

/// Without a thread, the spawn kills; by default, the spawn or the turns after it.
#[test]
fn without_a_thread_the_loop_kills() {
    require!(v2(), cgroup_kill());
    let sandbox = Sandbox::new(test_name!());
    let mut default = Reactor::new().unwrap();
    for (name, reactor) in [("refused", &mut reactor(&[Facility::HelperThreads])), ("default", &mut default)]
    {
        let dir = sandbox.v2(name);
        let _sleepers = sandbox.sleepers(MANY + 50, &[&dir]);
        let handle = spawn(reactor, slow(Reaper::at(&dir)));
        // By default the members are signalled in steps where the kernel allows that.
        if name == "refused" {
            assert_eq!(reactor.metrics().cgroup_kills, 1);
        }
        assert_killed(&finish(reactor, &handle).unwrap());
        let Metrics { helper_threads, helper_jobs, helper_refused, .. } = reactor.metrics();
        // The kill and the removal.
        assert_eq!((helper_threads, helper_jobs, helper_refused), (0, 0, 2 * u64::from(name == "refused")));
    }
}

/// Given up, by cancel or drop: what comes of the write is told to no one, and the next reap ends.
#[test]
fn a_reap_that_is_given_up_does_not_wait_for_the_thread() {
    require!(v2(), cgroup_kill());
    let sandbox = Sandbox::new(test_name!());
    for cancel in [true, false] {
        let dir = sandbox.v2(if cancel { "cancelled" } else { "dropped" });
        let _sleepers = sandbox.sleepers(MANY + 50, &[&dir]);
        let mut reactor = reactor(&[]);
        let handle = spawn(&mut reactor, Reaper::at(&dir));
        if cancel {
            handle.cancel();
            // Unless all have exited by then.
            let result = finish(&mut reactor, &handle);
            assert!(matches!(result, Ok(_) | Err(ReapError::Cancelled { .. })), "{result:?}");
            drop(reactor);
        } else {
            drop(reactor);
            assert!(matches!(handle.try_wait(), Some(Err(ReapError::Disconnected { .. }))), "{handle:?}");
        }
        assert!(reap(Reaper::at(&dir).max_wait(Duration::from_millis(100))).is_ok());
    }
}

/// A program that lists the parent directory holds its lock: the one reap waits for that, and nothing else.
#[test]
fn a_removal_that_does_not_return_holds_up_nothing_else() {
    require!(v2(), userfaultfd());
    let sandbox = Sandbox::new(test_name!());
    let parent = sandbox.v2("parent");
    let [target, other, late] = ["parent/target", "other", "parent/late"].map(|name| sandbox.v2(name));
    let members = [&target, &other, &late].map(|dir| sandbox.sleeper(&[dir]));
    let mut reactor = reactor(&[]);
    let held = HeldDirectory::new(&parent);
    let handle = spawn(&mut reactor, Reaper::at(&target));
    eventually("the removal to be under way", || {
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
        reactor.metrics().helper_busy == 1
    });
    assert!(members[0].ended(TIMEOUT));
    assert_killed(&reap_in(&mut reactor, Reaper::at(&other)).unwrap());
    // A deadline does not wait for it either, nor does a cancel.
    let result = reap_in(&mut reactor, Reaper::at(&late).deadline(Duration::from_millis(200)));
    assert!(matches!(result, Err(ReapError::TimedOut { .. })), "{result:?}");
    assert!(members[2].ended(TIMEOUT));
    let cancelled = spawn(&mut reactor, Reaper::at(&late));
    cancelled.cancel();
    assert!(matches!(finish(&mut reactor, &cancelled), Err(ReapError::Cancelled { .. })));
    assert!(!handle.is_complete() && target.exists() && late.exists());
    drop(held);
    assert_killed(&finish(&mut reactor, &handle).unwrap());
    assert!(!target.exists());
    // What was given up is removed by the next reap, whatever the thread still did.
    assert!(reap_in(&mut reactor, Reaper::at(&late)).is_ok());
    assert!(!late.exists());
}

/// Trees, several hierarchies, and a target in use.
fn a_tree_is_removed_by_a_thread(world: &World) {
    let (dirs, reaper) = world.target();
    for dir in &dirs {
        (0..30).for_each(|n| fs::create_dir_all(dir.join(format!("{n}/below"))).unwrap());
    }
    let members = world.sandbox.sleepers(3, &refs(&dirs));
    let mut reactor = reactor(&[]);
    let handle = spawn(&mut reactor, reaper);
    assert_eq!(finish(&mut reactor, &handle).unwrap().outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(members.0.iter().all(|member| !member.alive()));
    // The thread may end its last job a moment after the reap, which sees by itself that the directory is gone.
    eventually("the descriptors of the job to be closed", || reactor.metrics().descriptors == 0);
    let Metrics { helper_jobs, helper_waiting, .. } = reactor.metrics();
    assert_eq!((helper_jobs, helper_waiting), (dirs.len() as u64, 0));
    world.canary.assert_alive();
}
each!(a_tree_is_removed_by_a_thread on v2, freezer, cpu, several);

/// What is mounted in the target keeps the directory, and is named.
#[test]
fn a_thread_that_cannot_remove_says_why() {
    require!(v2());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("target");
        let child = sandbox.v2("target/child");
        mount(std::path::Path::new("none"), &child, "tmpfs", 0, "");
        let mut reactor = reactor(&[]);
        let result = reap_in(&mut reactor, Reaper::at(&dir).deadline(Duration::from_millis(500)));
        let Err(ReapError::TimedOut { in_the_way, .. }) = &result else { panic!("{result:?}") };
        assert_eq!(in_the_way.as_deref(), Some(&*child), "{result:?}");
        unmount(&child);
        assert_eq!(reap_in(&mut reactor, Reaper::at(&dir)).unwrap().outcome, Outcome::Removed);
    });
}

/// Several directories that cannot be removed are tried by the backoff, and not one after the other without an end.
#[test]
fn a_thread_does_not_try_again_and_again() {
    require!(Layout::Several.need(), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), Layout::Several);
        let (dirs, reaper) = world.target();
        assert!(dirs.len() > 1);
        let points: Vec<PathBuf> = dirs.iter().map(|dir| dir.join("point")).collect();
        for point in &points {
            fs::create_dir(point).unwrap();
            mount(std::path::Path::new("none"), point, "tmpfs", 0, "");
        }
        let mut reactor = reactor(&[]);
        let handle = spawn(&mut reactor, reaper);
        turn_for(&mut reactor, Duration::from_millis(1500));
        assert!(!handle.is_complete());
        // Attempts at 0, 10, 50, 210, 850 ms and their probes, of one job for each directory at the most.
        let Metrics { helper_jobs, removals, .. } = reactor.metrics();
        println!("{helper_jobs} jobs, {removals} removals");
        assert!(helper_jobs <= 60 * dirs.len() as u64, "{helper_jobs} jobs, {removals} removals");
        points.iter().for_each(|point| unmount(point));
        assert_eq!(finish(&mut reactor, &handle).unwrap().outcome, Outcome::Removed);
    });
}
