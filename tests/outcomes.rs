//! Results, errors and survivors as a program's own tests use them: made without a reap, matched, printed, and with the
//! feature `serde` written as JSON. And that those of reaps name their target.

mod common;

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cgroup_reaper::{
    Act, KillMethod, Outcome, Reactor, ReapError, Reaped, Reaper, Refusal, SpawnError, Survivor, UsedMethod,
};
use common::*;

const DIR: &str = "/sys/fs/cgroup/batch/task-42";

/// What a scheduler does about the end of a reap: the code that a user would test.
#[derive(Debug, PartialEq)]
enum Next {
    FreeTheSlot,
    TryAgain,
    DrainTheNode(Vec<i32>),
    TellTheOperator(String),
}

fn next(result: Result<Reaped, ReapError>) -> Next {
    match result {
        Ok(Reaped { outcome: Outcome::Removed | Outcome::AlreadyGone, .. }) => Next::FreeTheSlot,
        Ok(_) => Next::TryAgain,
        Err(ReapError::TimedOut { survivors, .. }) => {
            Next::DrainTheNode(survivors.iter().map(|survivor| survivor.pid).collect())
        }
        Err(ReapError::Refused { refusal: Refusal::OwnCgroup { path, .. }, .. }) => {
            Next::TellTheOperator(format!("we run in {}", path.display()))
        }
        Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory) => {
            Next::TryAgain
        }
        Err(error) => Next::TellTheOperator(error.to_string()),
    }
}

#[test]
fn a_program_tests_what_it_does_about_each_end() {
    let mut reaped = Reaped::new(Outcome::Removed);
    reaped.method = Some(UsedMethod::CgroupKill);
    reaped.attempts = 1;
    reaped.elapsed = Duration::from_millis(3);
    assert_eq!(next(Ok(reaped)), Next::FreeTheSlot);
    assert_eq!(next(Ok(Reaped::new(Outcome::Emptied))), Next::TryAgain);

    let stuck = [7, 8].map(Survivor::new).into();
    assert_eq!(next(Err(ReapError::timed_out(DIR, stuck))), Next::DrainTheNode(vec![7, 8]));

    let refused = SpawnError::new(Reaper::at(DIR), Refusal::own_cgroup("/sys/fs/cgroup/batch"));
    let told = Next::TellTheOperator("we run in /sys/fs/cgroup/batch".to_owned());
    assert_eq!(next(Err(refused.into())), told);

    let memory = || io::Error::from(io::ErrorKind::OutOfMemory);
    assert_eq!(next(Err(ReapError::Reactor(Arc::new(memory())))), Next::TryAgain);
    assert_eq!(next(Err(ReapError::denied(DIR, Act::Kill, "/proc/7", memory()))), Next::TryAgain);

    let told = Next::TellTheOperator(format!("{DIR}: cancelled"));
    assert_eq!(next(Err(ReapError::cancelled(DIR))), told);
}

fn denied() -> io::Error {
    io::Error::from_raw_os_error(libc::EACCES)
}

/// Each refusal.
fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::root(DIR),
        Refusal::own_cgroup(DIR),
        Refusal::EmptyName,
        Refusal::dot_component(".."),
        Refusal::absolute_name("/a"),
        Refusal::symlink(DIR),
        Refusal::not_cgroup(DIR),
        Refusal::no_such_directory(DIR),
        Refusal::NoSubsystems,
        Refusal::unsupported(KillMethod::CgroupKill, DIR),
        Refusal::invalid_wait(Duration::ZERO, Duration::ZERO),
        Refusal::Disconnected,
        Refusal::io(DIR, denied()),
    ]
}

/// Each error of a reap, with all that it can say.
fn errors() -> Vec<ReapError> {
    let mut timed_out = ReapError::timed_out(DIR, vec![Survivor::new(7)]);
    if let ReapError::TimedOut { source, act, in_the_way, effort, .. } = &mut timed_out {
        *source = Some(Arc::new(io::Error::from_raw_os_error(libc::EBUSY)));
        *act = Some(Act::Remove);
        *in_the_way = Some(Path::new("/sys/fs/cgroup/batch/task-42/mnt").into());
        effort.attempts = 3;
    }
    let mut errors = vec![
        timed_out,
        ReapError::replaced(DIR),
        ReapError::denied(DIR, Act::Freeze, "/sys/fs/cgroup/batch/task-42/cgroup.freeze", denied()),
        ReapError::frozen_by_ancestor(DIR, Some("/sys/fs/cgroup/batch".into())),
        ReapError::cancelled(DIR),
        ReapError::disconnected(DIR),
        ReapError::Reactor(Arc::new(denied())),
    ];
    errors.extend(refusals().into_iter().map(|refusal| SpawnError::new(Reaper::at(DIR), refusal).into()));
    errors
}

/// An error and its causes as anyhow's `{:#}` and most loggers print them.
fn chain(mut error: &dyn Error) -> String {
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        text += &format!(": {cause}");
        error = cause;
    }
    text
}

#[test]
fn a_chain_of_causes_says_each_once() {
    let mut all: Vec<Box<dyn Error>> = Vec::new();
    all.extend(errors().into_iter().map(Box::<dyn Error>::from));
    all.extend(refusals().into_iter().map(Box::<dyn Error>::from));
    all.extend(refusals().into_iter().map(|refusal| SpawnError::new(Reaper::at(DIR), refusal).into()));
    all.push("sigterm".parse::<cgroup_reaper::Signal>().expect_err("no such signal").into());
    for error in all {
        // A program adds what it was about.
        let text = format!("task 42: {}", chain(&*error));
        for cause in [libc::EACCES, libc::EBUSY].map(|errno| io::Error::from_raw_os_error(errno).to_string())
        {
            assert!(text.matches(&cause).count() <= 1, "{text}");
        }
        let parts: Vec<_> = text.split(": ").collect();
        assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "{text}");
    }
    // Nor less than once.
    for error in errors() {
        if let Some(cause) = error.io_error() {
            assert_eq!(chain(&error).matches(&cause.to_string()).count(), 1, "{error}");
        }
    }
}

#[test]
fn an_error_knows_its_target_and_its_kind() {
    let kinds: Vec<_> = errors().iter().map(ReapError::kind).collect();
    let expected = [
        "timed-out",
        "replaced",
        "denied",
        "frozen-by-ancestor",
        "cancelled",
        "disconnected",
        "reactor",
        "refused",
    ];
    assert_eq!(kinds[..8], expected);
    assert_eq!(kinds.iter().filter(|kind| **kind == "io").count(), 1);
    for error in errors() {
        let known = !matches!(error, ReapError::Reactor(_));
        assert_eq!(error.path(), known.then_some(Path::new(DIR)), "{error:?}");
        assert_eq!(error.clone().to_string(), error.to_string());
        let spawned = known && !matches!(error, ReapError::Refused { .. });
        assert_eq!(error.effort().is_some(), spawned, "{error:?}");
    }
}

#[test]
fn a_refused_name_is_told_as_a_path() {
    let options = cgroup_reaper::CgroupOptions::new("/sys/fs/cgroup").slice("batch");
    let v1 = options.clone().subsystems(["cpu", "memory"]);
    let path = |reaper: Reaper| {
        let error = ReapError::from(SpawnError::new(reaper, Refusal::symlink("/elsewhere")));
        error.path().map(Path::to_path_buf)
    };
    assert_eq!(path(Reaper::new(options, "task-42")), Some(DIR.into()));
    assert_eq!(path(Reaper::new(v1, "task-42")), Some("/sys/fs/cgroup/cpu/batch/task-42".into()));
    // The descriptor's path is not known before a spawn looks.
    let dir = std::fs::File::open("/").expect("a directory");
    assert_eq!(path(Reaper::at_fd(dir.into())), Some("/elsewhere".into()));
}

#[test]
fn a_question_mark_is_enough_for_a_refusal() {
    fn reap() -> Result<Reaped, ReapError> {
        let mut reactor = Reactor::new().map_err(|error| ReapError::Reactor(Arc::new(error)))?;
        let handle = reactor.spawn_reaper(Reaper::at("/proc"))?;
        finish(&mut reactor, &handle)
    }
    let error = reap().expect_err("no cgroup");
    assert_eq!(error.path(), Some(Path::new("/proc")));
    assert_eq!(error.to_string(), "/proc: refused: not a cgroup");
}

each!(every_end_names_the_target on v2, freezer, cpu, several);
fn every_end_names_the_target(world: &World) {
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let target = Some(&*dirs[0]);

    let handle = spawn(&mut reactor, reaper.clone().deadline(Duration::from_millis(200)));
    assert_eq!(Some(handle.path()), target);
    let error = finish(&mut reactor, &handle).expect_err("a member is left");
    assert!(matches!(error, ReapError::TimedOut { .. }), "{error}");
    assert_eq!(error.path(), target);

    let handle = reactor.remote().spawn_reaper(reaper.clone()).expect("a spawn");
    assert_eq!(Some(handle.path()), target);
    handle.cancel();
    let error = finish(&mut reactor, &handle).expect_err("cancelled");
    assert!(matches!(error, ReapError::Cancelled { .. }), "{error}");
    assert_eq!(error.path(), target);

    // One that has begun, and one that has not.
    let begun = spawn(&mut reactor, reaper.clone());
    let queued = reactor.remote().spawn_reaper(reaper.clone()).expect("a spawn");
    drop(reactor);
    for handle in [begun, queued] {
        let error = handle.wait_timeout(LIMIT).expect("complete").expect_err("disconnected");
        assert!(matches!(error, ReapError::Disconnected { .. }), "{error}");
        assert_eq!(error.path(), target);
    }

    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper.clone());
    stuck.release();
    finish(&mut reactor, &handle).expect("reaped");
    assert_eq!(Some(handle.path()), target);
    // What is not there has the path that it would have.
    let handle = spawn(&mut reactor, reaper);
    let reaped = finish(&mut reactor, &handle).expect("nothing to do");
    assert_eq!((reaped.outcome, Some(handle.path())), (Outcome::AlreadyGone, target));
}

each!(a_replaced_directory_is_named_beside_the_target on several);
fn a_replaced_directory_is_named_beside_the_target(world: &World) {
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.trace_exit(&refs(&dirs[..1]));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper);
    std::fs::remove_dir(&dirs[1]).expect("rmdir");
    std::fs::create_dir(&dirs[1]).expect("mkdir");
    stuck.release();
    let error = finish(&mut reactor, &handle).expect_err("replaced");
    assert_eq!(error.path(), Some(&*dirs[0]));
    match error {
        ReapError::Replaced { path, .. } => assert_eq!(path, dirs[1]),
        other => panic!("{other}"),
    }
}

#[cfg(feature = "serde")]
mod json {
    use cgroup_reaper::{Effort, Metrics};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn results_have_the_keys_of_the_tool() {
        let mut reaped = Reaped::new(Outcome::AlreadyGone);
        reaped.method = Some(UsedMethod::Unverified);
        reaped.elapsed = Duration::from_micros(1500);
        assert_eq!(
            json!(reaped),
            json!({
                "outcome": "already-gone", "method": "unverified kill", "signalled": 0, "attempts": 0,
                "released": 0, "elapsed_us": 1500,
            })
        );
        let words: Vec<Value> = [Outcome::Removed, Outcome::Emptied].iter().map(|word| json!(word)).collect();
        assert_eq!(words, ["removed", "emptied"]);
        let mut effort = Effort::default();
        effort.attempts = 2;
        assert_eq!(
            json!(effort),
            json!({ "method": null, "signalled": 0, "attempts": 2, "released": 0, "elapsed_us": 0 })
        );
    }

    #[test]
    fn errors_have_what_applies_to_them() {
        let effort = json!({ "method": null, "signalled": 0, "attempts": 0, "released": 0, "elapsed_us": 0 });
        let message = |error: &ReapError| error.to_string();
        let mut errors = errors().into_iter();
        let mut next = || errors.next().expect("an error");

        let error = next();
        assert_eq!(
            json!(error),
            json!({
                "kind": "timed-out", "message": message(&error), "path": DIR, "act": "remove",
                "in_the_way": "/sys/fs/cgroup/batch/task-42/mnt",
                "cause": "Device or resource busy (os error 16)", "errno": 16,
                "survivors": [{
                    "pid": 7, "command": "", "state": null, "wait_channel": "", "frozen_by": null,
                    "kernel_thread": false,
                }],
                "effort": { "method": null, "signalled": 0, "attempts": 3, "released": 0, "elapsed_us": 0 },
            })
        );
        let error = next();
        let expected = json!({
            "kind": "replaced", "message": message(&error), "path": DIR, "at": DIR, "effort": effort,
        });
        assert_eq!(json!(error), expected);
        let error = next();
        let expected = json!({
            "kind": "denied", "message": message(&error), "path": DIR, "act": "freeze",
            "at": "/sys/fs/cgroup/batch/task-42/cgroup.freeze",
            "cause": "Permission denied (os error 13)", "errno": 13, "effort": effort,
        });
        assert_eq!(json!(error), expected);
        let error = next();
        let expected = json!({
            "kind": "frozen-by-ancestor", "message": message(&error), "path": DIR, "at": DIR,
            "frozen_by": "/sys/fs/cgroup/batch", "effort": effort,
        });
        assert_eq!(json!(error), expected);
        for kind in ["cancelled", "disconnected"] {
            let error = next();
            let expected = json!({ "kind": kind, "message": message(&error), "path": DIR, "effort": effort });
            assert_eq!(json!(error), expected);
        }
        let error = next();
        let expected = json!({
            "kind": "reactor", "message": message(&error), "cause": "Permission denied (os error 13)",
            "errno": 13,
        });
        assert_eq!(json!(error), expected);
        let error = next();
        let expected = json!({ "kind": "refused", "message": message(&error), "path": DIR });
        assert_eq!(json!(error), expected);
        // A cause that is no errno has words only.
        let moved = ReapError::denied(DIR, Act::Kill, DIR, io::Error::other("moved in"));
        let object = json!(moved);
        assert_eq!((&object["cause"], object.get("errno")), (&json!("moved in"), None));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let path = OsStr::from_bytes(b"/c/\xff");
        let mut survivor = Survivor::new(1);
        survivor.frozen_by = Some(path.into());
        let object = json!(ReapError::timed_out(path, vec![survivor]));
        assert_eq!(object["path"], "/c/\u{fffd}");
        assert_eq!(object["survivors"][0]["frozen_by"], "/c/\u{fffd}");
    }

    #[test]
    fn metrics_have_their_names() {
        let mut metrics = Metrics::default();
        metrics.spawned = 3;
        metrics.calls.open = 4;
        let object = json!(metrics);
        assert_eq!((&object["spawned"], &object["calls"]["open"]), (&json!(3), &json!(4)));
        assert_eq!((&object["completed"], &object["calls"]["kill"]), (&json!(0), &json!(0)));
    }
}
