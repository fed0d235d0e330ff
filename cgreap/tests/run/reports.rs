//! Reports about what was not executed, and readers that hold up a report.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::common::*;
use crate::place::{Kind, Place, Run, before_exec, output, signal, start};
use crate::{NO_OPTIONS, default_signals, text, without_clone3};

fn report(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).expect("report")).expect("JSON")
}

#[test]
fn a_command_that_was_not_executed_has_failed() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let file = sandbox.scratch().join("report");
    let not_executable = sandbox.scratch().join("program");
    fs::write(&not_executable, "").expect("write");
    for (program, status, reason) in
        [("/nonexistent/program", 127, "No such file"), (text(&not_executable), 126, "Permission denied")]
    {
        for inside in [true, false] {
            let mut command = place.command(&["--report", text(&file)], &[program, "x"]);
            if !inside {
                before_exec(&mut command, without_clone3);
            }
            let Run { status: exit_status, err, .. } = output(start(&mut command));
            assert_eq!(exit_status, Some(status), "{err}");
            let report = report(&file);
            assert_eq!(
                (&report["outcome"], &report["status"]),
                (&json!("failed"), &json!(status)),
                "{report}"
            );
            assert_eq!((&report["exit_code"], &report["signal"]), (&Value::Null, &Value::Null), "{report}");
            let error = report["error"].as_str().expect("an error");
            assert!(error.starts_with(&format!("cannot execute {program}: {reason}")), "{error}");
            assert_eq!(err, format!("cgreap: run: {error}\n"));
        }
    }
    // A command that exits with such a status was executed.
    for inside in [true, false] {
        let mut command = place.command(&["--report", text(&file)], &["sh", "-c", "exit 127"]);
        if !inside {
            before_exec(&mut command, without_clone3);
        }
        let run = output(start(&mut command));
        assert_eq!((run.status, &*run.err), (Some(127), ""));
        let report = report(&file);
        assert_eq!((&report["outcome"], &report["exit_code"]), (&json!("exited"), &json!(127)), "{report}");
    }
    place.assert_nothing_left("what was not executed");
}

/// A user who may make a cgroup somewhere may not be allowed to move a process into it.
#[test]
fn a_command_that_cannot_be_moved_into_its_cgroup_has_failed() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let user = Place::new(&sandbox, Kind::User);
    let elsewhere = sandbox.v2("elsewhere");
    chown(&elsewhere, Some(USER), None).expect("chown");
    let file = sandbox.scratch().join("report");
    fs::write(&file, "").and_then(|()| chown(&file, Some(USER), None)).expect("a file of the user");
    for _ in 0..10 {
        let options = ["--parent", text(&elsewhere), "--report", text(&file)];
        let run = output(start(&mut user.without_parent(&options, &["true"])));
        let report = report(&file);
        let error = report["error"].as_str().unwrap_or_else(|| panic!("no error: {report}"));
        assert!(error.starts_with("cannot move a process into "), "{error}");
        assert!(error.contains("Permission denied"), "{error}");
        assert_eq!((run.status, run.err), (Some(125), format!("cgreap: run: {error}\n")));
        assert_eq!((&report["outcome"], &report["exit_code"]), (&json!("failed"), &Value::Null), "{report}");
    }
    let left: Vec<_> = fs::read_dir(&elsewhere).expect("elsewhere").flatten().collect();
    assert!(left.iter().all(|entry| !entry.path().is_dir()), "{left:?}");
    user.assert_nothing_left("what was not executed");
}

#[test]
fn a_run_that_fails_before_the_start_is_reported() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let file = sandbox.scratch().join("report");
    let options = ["--report", text(&file), "--set", "cgroup.max.depth=x"];
    let run = place.run(&options, &["true"]);
    assert_eq!(run.status, Some(125));
    let report = report(&file);
    let error = report["error"].as_str().expect("an error");
    let expected = json!({"command": ["true"], "status": 125, "outcome": "failed", "error": error});
    assert_eq!(report, expected);
    assert_eq!(run.err, format!("cgreap: run: {error}\n"));
    place.assert_nothing_left("a refused setting");
}

/// A signal ends it while it waits for a reader.
#[track_caller]
fn assert_interruptible(mut child: Child) {
    signal(&child, libc::SIGTERM);
    let ended = wait_until(TIMEOUT, || child.try_wait().expect("wait").is_some());
    let _ = child.kill();
    let status = child.wait().expect("wait");
    assert!(ended && status.signal() == Some(libc::SIGTERM), "{status}");
}

/// Whether it is in this system call, with this first argument.
fn is_in(child: &Child, call: libc::c_long, argument: &str) -> bool {
    let line = fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap_or_default();
    line.starts_with(&format!("{call} {argument}"))
}

#[test]
fn the_wait_for_a_reader_of_the_report_can_be_interrupted() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let fifo = sandbox.scratch().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let mut command = place.command(&["--report", text(&fifo)], &["true"]);
    before_exec(&mut command, default_signals);
    let child = start(&mut command);
    eventually("it opens the report", || is_in(&child, libc::SYS_openat, "0xffffff9c"));
    assert_interruptible(child);
    place.assert_nothing_left("a FIFO");
    // With a reader.
    let child = start(&mut place.command(&["--report", text(&fifo)], &["true"]));
    let mut line = String::new();
    File::open(&fifo).and_then(|mut fifo| fifo.read_to_string(&mut line)).expect("read");
    assert_eq!(output(child).status, Some(0));
    assert!(line.contains("\"exited\""), "{line}");
}

#[test]
fn the_wait_for_a_reader_of_the_messages_can_be_interrupted() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let (_reader, mut full) = UnixStream::pair().expect("socketpair");
    full.set_nonblocking(true).expect("fcntl");
    while full.write_all(b"x").is_ok() {}
    full.set_nonblocking(false).expect("fcntl");
    let mut command = place.command(&NO_OPTIONS, &["sh", "-c", "sleep 300 & exit 3"]);
    before_exec(&mut command, default_signals);
    let child = start(command.stderr(OwnedFd::from(full)));
    // What is left is named.
    eventually("it writes to stderr", || is_in(&child, libc::SYS_write, "0x2 "));
    // All is reaped by then.
    assert_eq!(place.directories(), Vec::<std::path::PathBuf>::new());
    assert_interruptible(child);
    // It was sent SIGKILL before, and was not waited for.
    eventually("the guard has exited", || place.living().is_empty());
    place.assert_nothing_left("a full pipe");
}
