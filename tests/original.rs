//! What the timer-paced algorithm (of a folly-based scheduler's asyncCGroupReaper) gets wrong, as far as it can be
//! seen from outside: a test for each point, which the behaviour of that algorithm would turn red.
//!
//! Tests whose failure could kill or freeze more than their own groups run in a PID namespace of their own.

#![allow(unsafe_code, reason = "mount(2) and unshare(2), which std does not have")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{
    Facility, KillMethod, Outcome, Reactor, ReapError, ReapHandle, Reaper, Refusal, UsedMethod,
};
use common::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A sandbox's group in whatever hierarchy there is, v1 before v2.
fn any_group(sandbox: &Sandbox, name: &str) -> PathBuf {
    if v1("freezer").is_ok() { sandbox.v1("freezer", name) } else { sandbox.v2(name) }
}

/// 1: "A failed read or open counts as empty: success with live processes."
#[test]
fn point_01_a_failed_read_is_not_empty() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = any_group(&sandbox, "target");
        let stuck = sandbox.trace_exit(&[&dir]);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
        let mut reactor = Reactor::without(&[Facility::Watches]).expect("reactor");
        let reaper =
            || Reaper::at(&dir).min_wait(Duration::from_millis(1)).max_wait(Duration::from_millis(5));
        let handle = spawn(&mut reactor, reaper());
        drive(&mut reactor, "the kill", |_| stuck.parked());

        // From here on every open says EMFILE. 3: what is open stays open.
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("setrlimit");
        let checks = reactor.metrics().checks;
        let mut complete = false;
        for _ in 0..200 {
            reactor.turn(Some(Duration::from_millis(5))).expect("turn");
            complete |= handle.is_complete();
        }
        let checks = reactor.metrics().checks - checks;
        let fresh = reactor.spawn_reaper(reaper());
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("setrlimit");

        assert!(!complete, "empty for want of descriptors: {:?}", handle.try_wait());
        assert!(checks >= 5, "{checks} checks");
        match fresh {
            Err(error) => assert!(matches!(error.refusal(), Refusal::Io { .. }), "{error}"),
            Ok(handle) => assert!(!handle.is_complete(), "{:?}", handle.try_wait()),
        }
        assert!(stuck.parked() && dir.exists());
        stuck.release();
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    });
}

/// 1, EOPNOTSUPP: what reading `cgroup.procs` of a threaded group says.
#[test]
fn point_01_an_unreadable_group_is_not_empty() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let member = sandbox.threaded(&sandbox.v2("domain"));
    let reaped = reaped(Reaper::at(&member.dir));
    assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 1));
    assert!(member.ended(TIMEOUT));
}

/// 2: "A failed rmdir is logged and forgotten: directories leak."
#[test]
fn point_02_a_failed_rmdir_is_tried_again() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let (dir, child) = (any_group(&sandbox, "target"), any_group(&sandbox, "target/child"));
        let member = sandbox.sleeper(&[&dir]);
        // The kernel does not remove what something is mounted on: EBUSY.
        mount(&child, &child, "", libc::MS_BIND, "");
        let waits = |reaper: Reaper| reaper.max_wait(Duration::from_millis(20));
        match reap(waits(Reaper::at(&dir)).deadline(Duration::from_secs(2))) {
            Err(ReapError::TimedOut { path, source, .. }) => {
                assert_eq!(path, dir);
                assert_eq!(source.and_then(|error| error.raw_os_error()), Some(libc::EBUSY));
            }
            other => panic!("{other:?}"),
        }
        assert!(member.ended(TIMEOUT) && dir.exists());
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, waits(Reaper::at(&dir)));
        drive(&mut reactor, "some tries", |metrics| metrics.removals >= 3);
        assert!(handle.try_wait().is_none() && dir.exists());
        unmount(&child);
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert!(!dir.exists());
    });
}

/// 3: "No recursion: an empty parent with populated children counts as empty."
#[test]
fn point_03_a_populated_child_is_not_empty() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for version in ["freezer", "v2"] {
        let make = |name: &str| match version {
            "v2" => v2().is_ok().then(|| sandbox.v2(name)),
            _ => v1("freezer").is_ok().then(|| sandbox.v1("freezer", name)),
        };
        let (Some(dir), Some(child)) = (make("target"), make("target/a/child")) else { continue };
        let member = sandbox.sleeper(&[&child]);
        let reaped = reaped(Reaper::at(&dir));
        assert_eq!(reaped.outcome, Outcome::Removed);
        assert!(reaped.attempts >= 1 && !dir.exists());
        assert!(member.ended(TIMEOUT));
    }
}

/// 4: "Any kill() error aborts the host process": ESRCH, of members that are exiting already.
#[test]
fn point_04_exiting_members_are_no_error() {
    require!(v1("cpu"));
    let sandbox = Sandbox::new(test_name!());
    let mut reactor = Reactor::new().expect("reactor");
    let dirs: Vec<PathBuf> = (0..20).map(|n| sandbox.v1("cpu", &format!("target-{n}"))).collect();
    let handles: Vec<ReapHandle> = dirs
        .iter()
        .map(|dir| {
            let members = sandbox.sleepers(30, &[dir]);
            sandbox.churn(LIMIT, &[dir]);
            // Half of them exit while the reap lists and signals them.
            members.iter().step_by(2).for_each(|member| member.signal(libc::SIGKILL));
            spawn(&mut reactor, Reaper::at(dir))
        })
        .collect();
    for handle in &handles {
        assert_eq!(finish(&mut reactor, handle).expect("reaped").outcome, Outcome::Removed);
    }
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

/// 4, EPERM: a process of another user.
#[test]
fn point_04_the_forbidden_are_reported() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = any_group(&sandbox, "target");
        let member = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("reactor");
        // All three of them: kill(2) goes by the real one as well. The saved one lets us back.
        let become_user = |real: u32, effective: u32, saved: u32| {
            // SAFETY: no pointers.
            let result = unsafe { libc::setresuid(real, effective, saved) };
            assert_eq!(result, 0, "setresuid: {}", std::io::Error::last_os_error());
        };
        become_user(1000, 1000, 0);
        let results = [KillMethod::Auto, KillMethod::Pidfd].map(|method| {
            let reaper = Reaper::at(&dir).method(method).max_wait(Duration::from_millis(20));
            reactor.spawn_reaper(reaper).map(|handle| finish(&mut reactor, &handle))
        });
        become_user(0, 0, 0);
        for result in results {
            match result {
                Ok(Err(ReapError::Denied { source, .. })) => {
                    let errno = source.raw_os_error();
                    assert!(matches!(errno, Some(libc::EPERM | libc::EACCES)), "{source}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(member.alive() && dir.exists());
    });
}

/// Set in the program that sees a group from inside of a PID namespace: the group.
const FOREIGN: &str = "CGROUP_REAPER_TEST_FOREIGN";

/// 5: "pids are parsed unchecked: 0 kills the caller's own process group".
///
/// v2 lists processes outside of the reader's PID namespace as 0. So a second program reaps from a namespace
/// within, what this one put there: by `cgroup.kill` it can, by signals it cannot, and knows it.
#[test]
fn point_05_pid_0_is_not_signalled_and_not_empty() {
    if let Some(dir) = std::env::var_os(FOREIGN) {
        return foreign(Path::new(&dir));
    }
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("target");
        let members = sandbox.sleepers(2, &[&dir]);
        let program = std::env::current_exe().expect("own path");
        let run = move || {
            // For the children of this thread alone.
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            Command::new(program)
                .args(["--exact", test_name!(), "--nocapture", "--include-ignored"])
                .env(FOREIGN, dir)
                .stdin(Stdio::null())
                .output()
                .expect("spawn")
        };
        let output = thread::spawn(run).join().expect("thread");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
        let killed = cgroup_kill().is_ok();
        assert_eq!(members.living(), if killed { 0 } else { 2 });
    });
}

fn foreign(dir: &Path) {
    assert_eq!(std::process::id(), 1);
    let text = fs::read_to_string(dir.join("cgroup.procs")).expect("cgroup.procs");
    assert_eq!(text, "0\n0\n", "two processes of another namespace");
    let mut child = Command::new("sleep").arg("1000").spawn().expect("one of our own process group");
    for method in [KillMethod::Pidfd, KillMethod::Freezer] {
        let reaper = Reaper::at(dir).method(method).max_wait(Duration::from_millis(20));
        match reap(reaper.deadline(Duration::from_millis(200))) {
            Err(ReapError::TimedOut { survivors, .. }) => {
                let pids: Vec<i32> = survivors.iter().map(|survivor| survivor.pid).collect();
                assert_eq!(pids, [0, 0]);
            }
            Err(ReapError::Denied { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(dir.exists());
    }
    if dir.join("cgroup.kill").exists() {
        assert_eq!(reaped(Reaper::at(dir)).outcome, Outcome::Removed);
    }
    assert_eq!(child.try_wait().expect("wait"), None, "our own process group was signalled");
    child.kill().expect("kill");
    child.wait().expect("wait");
}

/// 6: "An empty, absolute or `..` name targets the whole slice, or the root."
#[test]
fn point_06_names_lead_nowhere_else() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let above = sandbox.canary(&[&sandbox.v1_dir("freezer")]);
        let inside = sandbox.canary(&[&sandbox.v1("freezer", "a")]);
        let mut reactor = Reactor::new().expect("reactor");
        for name in ["", "/", "..", "a/..", "../..", ".", "a//", "/a"] {
            let reaper = Reaper::new(options(&sandbox, &["freezer"]), name);
            let error = reactor.spawn_reaper(reaper).expect_err(name);
            assert!(
                matches!(
                    error.refusal(),
                    Refusal::EmptyName | Refusal::DotComponent { .. } | Refusal::AbsoluteName { .. }
                ),
                "{error}"
            );
        }
        above.assert_alive();
        inside.assert_alive();
    });
}

/// 7: "A target that holds the reaper itself freezes or kills the reaper."
#[test]
fn point_07_not_the_reaper_itself() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = any_group(&sandbox, "own");
        fs::write(dir.join("cgroup.procs"), "0").expect("move in");
        let result = Reactor::new().expect("reactor").spawn_reaper(Reaper::at(&dir));
        // Out again before anything can fail: the sandbox kills what is in there.
        let root = v1_root("freezer").or_else(v2_root).expect("a root");
        fs::write(root.join("cgroup.procs"), "0").expect("move out");
        let error = result.expect_err("refused");
        assert!(matches!(error.refusal(), Refusal::OwnCgroup { path, .. } if *path == dir), "{error}");
    });
}

/// 8: "FROZEN may be inherited from an ancestor: THAWED then has no effect, forever."
#[test]
fn point_08_an_ancestors_freeze_is_reported() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let (above, dir) = (sandbox.v1("freezer", "above"), sandbox.v1("freezer", "above/target"));
    let member = sandbox.sleeper(&[&dir]);
    freeze_v1(&above);
    for method in [KillMethod::Auto, KillMethod::Freezer] {
        let reaper = Reaper::at(&dir).method(method).max_wait(Duration::from_millis(20));
        match reap(reaper.freeze_timeout(Duration::from_millis(100))) {
            Err(ReapError::FrozenByAncestor { path, .. }) => assert_eq!(path, dir),
            other => panic!("{other:?}"),
        }
    }
    assert!(member.alive());
    thaw_v1(&above);
    assert_eq!(reaped(Reaper::at(&dir)).outcome, Outcome::Removed);
    assert!(member.ended(TIMEOUT));
}

/// 8: "Frozen children keep SIGKILL inert."
#[test]
fn point_08_frozen_children_are_thawed() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v1("freezer", "target");
    // From the bottom up, because a process cannot join a group that an ancestor freezes.
    let children = ["target/a/b", "target/a", "target/c"].map(|name| {
        let child = sandbox.v1("freezer", name);
        let member = sandbox.sleeper(&[&child]);
        freeze_v1(&child);
        member
    });
    let reaped = reaped(Reaper::at(&dir).method(KillMethod::Freezer));
    assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 3));
    assert!(children.iter().all(|child| child.ended(TIMEOUT)));
}

/// 9: "A crash between FROZEN and THAWED leaves the group frozen": a later reap takes it on.
#[test]
fn point_09_a_stale_freeze_is_undone() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v1("freezer", "target");
    for method in [KillMethod::Auto, KillMethod::Pidfd, KillMethod::Freezer] {
        let member = sandbox.sleeper(&[&sandbox.v1("freezer", "target")]);
        freeze_v1(&dir);
        assert_eq!(reaped(Reaper::at(&dir).method(method)).outcome, Outcome::Removed);
        assert!(member.ended(TIMEOUT));
    }
}

/// 9: whatever ends a reap leaves nothing frozen.
#[test]
fn point_09_no_end_of_a_reap_leaves_it_frozen() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    for end in ["cancel", "deadline", "drop"] {
        let dir = sandbox.v1("freezer", end);
        let stuck = sandbox.trace_exit(&[&dir]);
        let mut reactor = Reactor::new().expect("reactor");
        let mut reaper = Reaper::at(&dir).method(KillMethod::Freezer).max_wait(Duration::from_millis(10));
        if end == "deadline" {
            reaper = reaper.deadline(Duration::from_millis(100));
        }
        let handle = spawn(&mut reactor, reaper);
        match end {
            "cancel" => handle.cancel(),
            "deadline" => {}
            _ => drop(std::mem::replace(&mut reactor, Reactor::new().expect("reactor"))),
        }
        let error = finish(&mut reactor, &handle).expect_err("not reaped");
        match (end, &error) {
            ("cancel", ReapError::Cancelled { .. })
            | ("deadline", ReapError::TimedOut { .. })
            | ("drop", ReapError::Disconnected { .. }) => {}
            _ => panic!("{end}: {error:?}"),
        }
        assert_eq!(freezer_state(&dir), "THAWED", "{end}");
        stuck.release();
    }
}

/// 10: "A freeze timeout thaws without killing first": where one member cannot be frozen the others would
/// never be killed.
#[test]
fn point_10_a_stuck_freeze_is_killed_as_it_is() {
    require!(v1("freezer"), namespaces(), fuse());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("freezer", "target");
        let others = sandbox.sleepers(3, &[&dir]);
        let hung = HungFilesystem::new();
        let stuck_member = sandbox.uninterruptible(&hung, &[&dir]);

        let mut reactor = Reactor::new().expect("reactor");
        let reaper = Reaper::at(&dir).method(KillMethod::Freezer).max_wait(Duration::from_millis(50));
        let handle = spawn(&mut reactor, reaper.freeze_timeout(Duration::from_millis(200)));
        drive(&mut reactor, "the exit of those that can", |_| others.living() == 0);
        assert!(handle.try_wait().is_none(), "complete with one alive");
        assert!(stuck_member.alive());
        assert!(dir.exists());
        drop(hung);
        let reaped = finish(&mut reactor, &handle).expect("reaped");
        assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 4));
        assert!(!dir.exists() && stuck_member.ended(TIMEOUT));
    });
}

/// 11: "`min_wait_ms = 0` spins; `min > max` is unchecked".
#[test]
fn point_11_senseless_waits_are_refused() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    let dir = any_group(&sandbox, "target");
    let member = sandbox.sleeper(&[&dir]);
    let mut reactor = Reactor::new().expect("reactor");
    let ms = Duration::from_millis;
    for (min, max) in [(ms(0), ms(10)), (ms(0), ms(0)), (ms(11), ms(10)), (Duration::MAX, ms(10))] {
        let reaper = Reaper::at(&dir).min_wait(min).max_wait(max);
        let error = reactor.spawn_reaper(reaper).expect_err("refused");
        assert!(matches!(error.refusal(), Refusal::InvalidWait { .. }), "{error}");
    }
    assert!(member.alive());
}

/// 11: "The backoff `cur << 2` can wrap to 0".
#[test]
fn point_11_no_wait_wraps() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    let max = Duration::MAX;
    let huge =
        [max, max - Duration::from_nanos(1), Duration::from_millis(1 << 62), Duration::from_secs(1 << 32)];
    let mut reactor = Reactor::new().expect("reactor");
    let mut stuck = Vec::new();
    for (n, wait) in huge.into_iter().enumerate() {
        let dir = any_group(&sandbox, &format!("target-{n}"));
        let member = sandbox.trace_exit(&[&dir]);
        let reaper = Reaper::at(&dir).min_wait(wait).max_wait(max).freeze_timeout(max).deadline(max);
        stuck.push((spawn(&mut reactor, reaper), member));
        let dir = any_group(&sandbox, &format!("other-{n}"));
        let member = sandbox.sleeper(&[&dir]);
        let reaper = Reaper::at(&dir).min_wait(wait).max_wait(max).grace(cgroup_reaper::Signal::TERM, wait);
        assert_eq!(reap(reaper).expect("reaped").outcome, Outcome::Removed);
        assert!(member.ended(TIMEOUT));
    }
    for _ in 0..20 {
        reactor.turn(Some(Duration::from_millis(5))).expect("turn");
        let _ = reactor.next_deadline();
    }
    for (handle, member) in &stuck {
        assert!(handle.try_wait().is_none());
        member.release();
    }
    for (handle, _) in &stuck {
        assert_eq!(finish(&mut reactor, handle).expect("reaped").outcome, Outcome::Removed);
    }
}

/// 11: "it never resets after progress": a new member does not wait as long as the old one.
#[test]
fn point_11_progress_resets_the_backoff() {
    require!(v1("cpu"));
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v1("cpu", "target");
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut reactor = Reactor::without(&[Facility::Watches]).expect("reactor");
    // 1, 4, 16, 64, 256 ms, and then an hour.
    let reaper = Reaper::at(&dir).min_wait(Duration::from_millis(1)).max_wait(Duration::from_secs(3600));
    let handle = spawn(&mut reactor, reaper);
    drive(&mut reactor, "a long wait", |metrics| metrics.checks >= 8);
    let others: Vec<Proc> = (0..2).map(|_| sandbox.sleeper(&[&dir])).collect();
    // The next tick finds them, and from then on the waits are short again.
    drive(&mut reactor, "the end of the new members", |_| {
        others.iter().all(|other| other.ended(Duration::ZERO))
    });
    let wait = reactor.next_deadline().map(|next| next.saturating_duration_since(Instant::now()));
    assert!(wait.is_some_and(|wait| wait < Duration::from_secs(60)), "{wait:?}");
    stuck.release();
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
}

/// 12: "Only members of `freezer` are signalled: a process that is only in `cpu` is waited for forever."
#[test]
fn point_12_a_process_beside_the_freezer_is_killed() {
    require!(v1("freezer"), v1("cpu"));
    let sandbox = Sandbox::new(test_name!());
    let dirs = [sandbox.v1("freezer", "target"), sandbox.v1("cpu", "target")];
    for method in [KillMethod::Auto, KillMethod::Freezer, KillMethod::Pidfd] {
        dirs.iter().filter(|dir| !dir.exists()).for_each(|dir| fs::create_dir(dir).expect("mkdir"));
        let member = sandbox.sleeper(&[&dirs[1]]);
        let reaper = Reaper::new(options(&sandbox, &["freezer", "cpu"]), "target").method(method);
        let reaped = reaped(reaper);
        assert_eq!((reaped.outcome, reaped.signalled), (Outcome::Removed, 1));
        assert!(member.ended(TIMEOUT) && dirs.iter().all(|dir| !dir.exists()));
    }
}

/// 13: "It looks at the first non-empty subsystem only, and its check removes directories on the side."
#[test]
fn point_13_a_check_removes_nothing() {
    require!(v1("freezer"), v1("cpu"), v1("memory"));
    let sandbox = Sandbox::new(test_name!());
    let controllers = ["freezer", "cpu", "memory"];
    let dirs = controllers.map(|controller| sandbox.v1(controller, "target"));
    // One in the second, one in the third; the first is empty.
    let second = sandbox.sleeper(&[&dirs[1]]);
    let third = sandbox.trace_exit(&[&dirs[2]]);
    let mut reactor = Reactor::new().expect("reactor");
    let reaper = Reaper::new(options(&sandbox, &controllers), "target");
    let handle = spawn(&mut reactor, reaper.max_wait(Duration::from_millis(20)));
    drive(&mut reactor, "the kill", |_| third.parked());
    assert!(second.ended(TIMEOUT), "the third is stuck, the second need not wait for that");
    let checks = reactor.metrics().checks;
    drive(&mut reactor, "checks", |metrics| metrics.checks >= checks + 5);
    assert!(dirs.iter().all(|dir| dir.exists()), "removed before all was dead");
    third.release();
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

/// 14: "No deadline, no cancel, no error, no list of survivors."
#[test]
fn point_14_a_reap_can_end_otherwise() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    let dir = any_group(&sandbox, "target");
    let stuck = sandbox.trace_exit(&[&dir]);
    match reap(Reaper::at(&dir).deadline(Duration::from_millis(100))) {
        Err(ReapError::TimedOut { path, survivors, .. }) => {
            assert_eq!(path, dir);
            assert_eq!(survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>(), [stuck.pid]);
        }
        other => panic!("{other:?}"),
    }
    let mut reactor = Reactor::new().expect("reactor");
    let handle = spawn(&mut reactor, Reaper::at(&dir));
    handle.cancel();
    assert!(matches!(finish(&mut reactor, &handle), Err(ReapError::Cancelled { .. })));
    stuck.release();
}

/// 14: "If the loop dies the object leaks", and a caller that waits for it waits for ever.
#[test]
fn point_14_a_dead_loop_is_told() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = any_group(&sandbox, "target");
        let stuck = sandbox.trace_exit(&[&dir]);
        let fds = open_fds();
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, Reaper::at(&dir));
        let waiting = thread::spawn(move || handle.wait());
        drop(reactor);
        assert!(matches!(waiting.join().expect("thread"), Err(ReapError::Disconnected { .. })));
        assert_eq!(open_fds(), fds, "descriptors leak");
        stuck.release();
    });
}

/// 15: "Paths all the way: a directory removed and created again under the same name gets the new one
/// killed."
#[test]
fn point_15_the_new_process_is_not_killed() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    let mut lost = 0;
    let mut methods = vec![KillMethod::Auto, KillMethod::Freezer, KillMethod::Pidfd];
    while let Some(&method) = methods.last() {
        let dir = any_group(&sandbox, "target");
        let member = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = Reaper::at(&dir).method(method).max_wait(Duration::from_millis(10));
        let handle = spawn(&mut reactor, reaper);
        drive(&mut reactor, "the kill", |metrics| metrics.cgroup_kills + metrics.signals >= 1);
        assert!(member.ended(TIMEOUT));
        if handle.is_complete() {
            // Killed and removed in one turn of a slow machine.
            lost += 1;
            assert!(lost < 50, "the reap is always first");
            continue;
        }
        methods.pop();
        eventually("rmdir", || fs::remove_dir(&dir).is_ok());
        let new_member = sandbox.canary(&[&any_group(&sandbox, "target")]);
        match finish(&mut reactor, &handle) {
            Err(ReapError::Replaced { path, .. }) => assert_eq!(path, dir),
            other => panic!("{other:?}"),
        }
        new_member.assert_alive();
    }
}

/// 16: "v1 only."
#[test]
fn point_16_v2_as_well() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("target");
    let canary = sandbox.canary(&[&sandbox.v2("canary")]);
    let members = sandbox.sleepers(5, &[&dir]);
    let reaped = reaped(Reaper::at(&dir));
    assert_eq!(reaped.outcome, Outcome::Removed);
    if cgroup_kill().is_ok() {
        assert_eq!(reaped.method, Some(UsedMethod::CgroupKill));
        assert!(reaped.attempts >= 1);
    }
    assert!(members.ended(TIMEOUT) && !dir.exists());
    canary.assert_alive();
}

/// Counts what is loud.
struct Loud(AtomicUsize);

static LOUD: Loud = Loud(AtomicUsize::new(0));

impl log::Log for Loud {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info && record.target().starts_with("cgroup_reaper") {
            eprintln!("{}: {}", record.level(), record.args());
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// 17: "One WARNING a tick a task."
#[test]
fn point_17_a_stuck_group_is_not_loud() {
    require!(any_hierarchy(), namespaces());
    // For a logger of its own.
    isolated(test_name!(), || {
        log::set_logger(&LOUD).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
        let sandbox = Sandbox::new(test_name!());
        let mut targets: Vec<(PathBuf, Reaper)> = Vec::new();
        for method in [KillMethod::Auto, KillMethod::Pidfd, KillMethod::Freezer] {
            let dir = any_group(&sandbox, &format!("target-{method}"));
            targets.push((dir.clone(), Reaper::at(dir).method(method)));
        }
        let mut reactors = vec![(Reactor::new().expect("reactor"), targets)];
        if v2().is_ok() {
            let dir = sandbox.v2("target-without");
            let reactor = Reactor::without(&[Facility::CgroupKill]).expect("reactor");
            reactors.push((reactor, vec![(dir.clone(), Reaper::at(dir))]));
        }
        let mut loops = Vec::new();
        for (mut reactor, targets) in reactors {
            let mut stuck = Vec::new();
            for (dir, reaper) in targets {
                let members: Vec<TraceExit> = (0..3).map(|_| sandbox.trace_exit(&[&dir])).collect();
                let reaper = reaper.min_wait(Duration::from_millis(1)).max_wait(Duration::from_millis(5));
                stuck.push((spawn(&mut reactor, reaper), members));
            }
            drive(&mut reactor, "many ticks", |metrics| metrics.timers >= 120);
            loops.push((reactor, stuck));
        }
        // Not even at INFO, which tells of changes: one for each reap.
        let reaps = loops.iter().map(|(_, stuck)| stuck.len()).sum();
        let loud = LOUD.0.load(Ordering::Relaxed);
        assert!(loud <= reaps, "{loud} records");
        for (reactor, stuck) in &mut loops {
            for (handle, members) in stuck {
                assert!(handle.try_wait().is_none());
                members.iter().for_each(TraceExit::release);
                assert_eq!(finish(reactor, handle).expect("reaped").outcome, Outcome::Removed);
            }
        }
    });
}

/// 18: "At least two ticks to kill, by design": here the spawn itself kills, before any turn of the loop.
#[test]
fn point_18_the_spawn_kills() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    let mut dirs = Vec::new();
    if v1("freezer").is_ok() {
        dirs.extend([sandbox.v1("freezer", "one"), sandbox.v1("freezer", "two")]);
    }
    if v2().is_ok() {
        dirs.extend([sandbox.v2("one"), sandbox.v2("two")]);
    }
    for (n, dir) in dirs.iter().enumerate() {
        let members = sandbox.sleepers(3, &[dir]);
        let mut reactor = Reactor::new().expect("reactor");
        let method = if n % 2 == 0 { KillMethod::Auto } else { KillMethod::Pidfd };
        // On a slow machine, members may be exiting when the next attempt is due by default.
        let hour = Duration::from_secs(3600);
        let reaper = Reaper::at(dir).method(method).min_wait(hour).max_wait(hour);
        let handle = spawn(&mut reactor, reaper);
        assert!(members.ended(TIMEOUT), "no member was killed by {method} before the first turn");
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").attempts, 1);
    }
}
