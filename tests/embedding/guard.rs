//! Reaps that begin when a guard is dropped.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use cgroup_reaper::{KillMethod, Outcome, Reactor, ReapError, Reaper, Refusal, Signal};

use crate::common::*;
use crate::loops::*;
use crate::{require, test_name};

#[test]
fn a_guard_reaps_when_it_is_dropped_and_not_before() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let dir = hierarchy.group(&sandbox, "job");
        let member = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        let mut driver = Driver::new(epoll_edge, &reactor);
        let guard = reactor.guard(patient(&dir).tag(7)).expect("a guard");
        assert_eq!(guard.path(), dir);
        driver.assert_idle(&mut reactor);
        assert!(member.alive() && reactor.is_empty());
        let before = reactor.metrics();
        drop(guard);
        // Whatever it needs is opened in the turn.
        assert_eq!(reactor.metrics(), before);
        while reactor.metrics().completed == 0 {
            driver.step(&mut reactor);
        }
        let ended: Vec<_> = reactor.drain_completed().collect();
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].tag, ended[0].path.as_path()), (7, &*dir));
        assert_eq!(ended[0].result.as_ref().expect("reaped").outcome, Outcome::Removed);
        assert!(member.ended(TIMEOUT) && !dir.exists());
    }
}

/// What has its name when it is dropped is not touched.
#[test]
fn a_guard_is_of_the_cgroup_that_was_there() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let dir = hierarchy.group(&sandbox, "job");
        let mut reactor = Reactor::new().expect("a reactor");
        let guard = reactor.guard(Reaper::at(&dir)).expect("a guard");
        fs::remove_dir(&dir).expect("rmdir");
        fs::create_dir(&dir).expect("mkdir");
        let member = sandbox.sleeper(&[&dir]);
        let handle = guard.reap();
        let result = finish(&mut reactor, &handle);
        assert!(matches!(result, Err(ReapError::Replaced { .. })), "{result:?}");
        assert!(member.alive());
    }
}

#[test]
fn a_bad_target_is_refused_when_the_guard_is_made() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let hierarchy = Hierarchy::all()[0];
    let reactor = Reactor::new().expect("a reactor");
    let missing = hierarchy.missing(&sandbox, "missing");
    let refusal = |dir: &Path| {
        let error = reactor.guard(Reaper::at(dir)).expect_err("refused");
        let refusal = error.refusal().clone();
        assert_eq!(error.into_reaper(), Reaper::at(dir));
        refusal
    };
    assert!(matches!(refusal(&missing), Refusal::NoSuchDirectory { path, .. } if path == missing));
    assert!(matches!(refusal(Path::new("/tmp")), Refusal::NotCgroup { .. }));
    assert!(matches!(refusal(Path::new("")), Refusal::EmptyName));
}

#[test]
fn a_guard_that_is_disarmed_reaps_nothing() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].group(&sandbox, "job");
    let member = sandbox.sleeper(&[&dir]);
    let mut reactor = Reactor::new().expect("a reactor");
    let reaper = Reaper::at(&dir).grace(Signal::TERM, MS).method(KillMethod::Pidfd).tag(3);
    let guard = reactor.guard(reaper.clone()).expect("a guard");
    assert_eq!(guard.disarm(), reaper);
    assert_eq!(reactor.turn(ZERO).expect("a turn"), 0);
    assert!(member.alive() && reactor.is_empty() && reactor.metrics().spawned == 0);
}

/// On another thread, whose panic unwinds.
#[test]
fn a_panic_reaps() {
    require!(cgroups());
    for hierarchy in Hierarchy::all() {
        let sandbox = Sandbox::new(test_name!());
        let dir = hierarchy.group(&sandbox, "job");
        let member = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        let remote = reactor.remote();
        let reaper = patient(&dir);
        thread::spawn(move || {
            let guarded = || {
                let _guard = remote.guard(reaper).expect("a guard");
                std::panic::resume_unwind(Box::new("the job's owner fails"));
            };
            assert!(catch_unwind(AssertUnwindSafe(guarded)).is_err());
        })
        .join()
        .expect("the panic was caught");
        Driver::new(own, &reactor).finish(&mut reactor, 1);
        assert!(member.ended(TIMEOUT) && !dir.exists());
    }
}

#[test]
fn without_its_reactor_a_guard_reaps_nothing() {
    require!(cgroups());
    let sandbox = Sandbox::new(test_name!());
    let dir = Hierarchy::all()[0].group(&sandbox, "job");
    let member = sandbox.sleeper(&[&dir]);
    let reactor = Reactor::new().expect("a reactor");
    let remote = reactor.remote();
    let dropped = remote.guard(Reaper::at(&dir)).expect("a guard");
    let reaped = remote.guard(Reaper::at(&dir)).expect("a guard");
    drop(reactor);
    drop(dropped);
    let result = reaped.reap().wait_timeout(LIMIT).expect("complete");
    assert!(matches!(result, Err(ReapError::Disconnected { .. })), "{result:?}");
    let refused = remote.guard(Reaper::at(&dir)).expect_err("refused");
    assert!(matches!(refused.refusal(), Refusal::Disconnected), "{refused:?}");
    assert!(member.alive() && dir.exists());
}
