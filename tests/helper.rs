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
    reactor
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
            assert_eq!(threads(), usize::from(nth > 0));
        }
        let Metrics { helper_threads, helper_jobs, helper_refused, descriptors, .. } = reactor.metrics();
        assert_eq!((helper_threads, helper_jobs, helper_refused, descriptors), (1, 2, 0, 0));
        drop(reactor);
        assert_eq!(threads(), 0, "an idle thread outlives its reactor");
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
    assert_eq!(reactor.metrics().helper_jobs, 1);
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
        assert_eq!((helper_threads, helper_jobs, helper_refused), (0, 0, u64::from(name == "refused")));
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
