//! The end of a run where its command has changed /proc, or where descriptors are short for a time.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use crate::common::*;
use crate::place::*;

/// `cgreap run` in a mount namespace that it shares with its command alone.
fn apart(place: &Place<'_>, script: &str) -> Command {
    let mut run = Command::new("unshare");
    run.args(["-m", "--"]).arg(place.program()).arg("run").arg("--parent").arg(&place.parent);
    run.args(["--", "sh", "-c", script]);
    place.set(&mut run);
    run
}

/// Ways to leave no /proc of the own PID namespace.
const HIDE_PROC: [&str; 3] = [
    "unshare -pf sh -c 'mount -t proc proc /proc'",
    "mount -t tmpfs none /proc",
    "while umount -l /proc 2>/dev/null; do :; done",
];

/// For each way, in v2 and in v1: `cgreap run` whose command has hidden /proc.
fn without_proc(test: &str, end: impl Fn(&Place<'_>, Child, &str)) {
    isolated(test, || {
        let sandbox = Sandbox::new(test);
        let ready = sandbox.scratch().join("ready");
        for (kind, hide) in
            [Kind::V2, Kind::V1].into_iter().flat_map(|kind| HIDE_PROC.map(|hide| (kind, hide)))
        {
            let place = Place::new(&sandbox, kind);
            let is_hidden = "[ -e /proc/thread-self ] ||";
            let script = format!("sleep 300 & {hide}; {is_hidden} : > {}; exec sleep 300", ready.display());
            let child = start(&mut apart(&place, &script));
            await_file(&ready);
            end(&place, child, &format!("{kind:?}, {hide}"));
        }
    });
}

fn await_file(path: &Path) {
    eventually("the command runs", || path.exists());
    fs::remove_file(path).expect("remove");
}

fn assert_all_ends(place: &Place<'_>, what: &str) {
    if !wait_until(TIMEOUT, || place.living().is_empty() && place.directories().is_empty()) {
        place.assert_nothing_left(what);
    }
}

#[test]
fn a_command_that_hides_proc_is_ended() {
    require!(v2(), v1("freezer"), namespaces());
    without_proc(test_name!(), |place, child, what| {
        kill(child.id() as i32, libc::SIGTERM).expect("kill");
        let run = output(child);
        assert_eq!(run.status, Some(143), "{what}: {run:?}");
        place.assert_nothing_left(what);
    });
}

#[test]
fn the_guard_ends_a_command_that_hides_proc() {
    require!(v2(), v1("freezer"), namespaces());
    without_proc(test_name!(), |place, mut child, what| {
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_all_ends(place, what);
    });
}

/// `cgreap run` whose command runs, with its pid. The command ends with `rest`, and leaves a process.
fn running(place: &Place<'_>, options: &[&str], rest: &str) -> (Child, i32) {
    let ready = place.sandbox.scratch().join("ready");
    let script = format!("sleep 300 & : > {}; {rest}", ready.display());
    let child = start(&mut place.command(options, &["sh", "-c", &script]));
    await_file(&ready);
    let pid = child.id() as i32;
    (child, pid)
}

/// Lets a process have no more descriptors than it has, for a time.
fn short_for_a_time(pid: i32, act: impl FnOnce()) {
    let limit = limit_descriptors_of(pid, 4);
    act();
    thread::sleep(Duration::from_millis(300));
    limit_descriptors_of(pid, limit);
}

#[test]
fn a_run_outlasts_a_shortage_of_descriptors() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    for options in [&[][..], &["--no-guard"]] {
        let (child, pid) = running(&place, options, "exec sleep 300");
        short_for_a_time(pid, || kill(pid, libc::SIGTERM).expect("kill"));
        let run = output(child);
        assert_eq!((run.status, run.signal), (Some(143), Some(libc::SIGTERM)), "{options:?}: {run:?}");
        place.assert_nothing_left("a shortage");
    }
}

/// The command ends amid the shortage, by itself. What it leaves may end by itself too, or is ended and named.
#[test]
fn what_is_left_amid_a_shortage_of_descriptors_is_ended() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let go = sandbox.scratch().join("go");
    let rest = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 3", go.display());
    for options in [&["--no-guard"][..], &["--no-guard", "--linger", "100ms"], &["--linger", "600ms"]] {
        let (child, pid) = running(&place, options, &rest);
        short_for_a_time(pid, || fs::write(&go, "").expect("write"));
        let run = output(child);
        fs::remove_file(&go).expect("remove");
        assert_eq!(run.status, Some(3), "{options:?}: {run:?}");
        assert!(run.err.contains("killed 1 process that sh left behind: sleep"), "{options:?}: {run:?}");
        place.assert_nothing_left("a shortage");
    }
}

#[test]
fn a_guard_outlasts_a_shortage_of_descriptors() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let (mut child, _) = running(&place, &[], "exec sleep 300");
    let living = place.living();
    let guard = living.iter().find(|line| line.contains("__run-guard")).expect("a guard");
    let guard = guard.split(':').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    short_for_a_time(guard, || {
        child.kill().expect("kill");
        child.wait().expect("wait");
    });
    assert_all_ends(&place, "a shortage");
}
