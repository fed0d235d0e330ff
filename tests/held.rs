//! A child that the kernel makes in a cgroup, and that waits to execute a program: for `cgreap run`.

mod common;

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use cgroup_reaper::held::{Failure, Held, failure, spawn_apart, spawn_in};
use common::*;

/// Need: CLONE_INTO_CGROUP.
fn into_cgroup() -> Result<(), String> {
    v2()?;
    if linux() >= (5, 7) { Ok(()) } else { Err("this kernel makes no process in a cgroup".to_owned()) }
}

fn spawn(group: &Path, words: &[&str]) -> std::io::Result<Held> {
    let words: Vec<_> = words.iter().map(|&word| CString::new(word).expect("no NUL")).collect();
    spawn_in(fs::File::open(group).expect("open").as_fd(), &words, &[libc::SIGUSR1], &[])
}

/// Waits for it.
#[track_caller]
fn status(pid: u32) -> i32 {
    let mut status = 0;
    eventually("it ends", || match wait(pid as i32, libc::WNOHANG).expect("our child") {
        (0, _) => false,
        (_, ended) => {
            status = ended;
            true
        }
    });
    assert!(libc::WIFEXITED(status), "{status}");
    libc::WEXITSTATUS(status)
}

#[test]
fn it_is_inside_before_it_executes_the_program() {
    require!(into_cgroup());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("target");
    let file = sandbox.scratch().join("status");
    let held = spawn(&dir, &["cp", "/proc/self/status", file.to_str().expect("UTF-8")]).expect("spawn");
    let pid = held.pid();
    assert_eq!(pids_in(&dir), [pid as i32]);
    assert!(!file.exists());
    let from = held.execute();
    assert_eq!(status(pid), 0);
    assert!(failure(from).is_none());
    let seen = fs::read_to_string(&file).expect("written");
    let line = |key: &str| seen.lines().find_map(|line| line.strip_prefix(key)).expect(key).trim();
    let mask = |key: &str| u64::from_str_radix(line(key), 16).expect("a mask");
    assert_eq!(mask("SigBlk:"), 1 << (libc::SIGUSR1 - 1));
    assert_eq!(mask("SigIgn:") >> (libc::SIGPIPE - 1) & 1, 0);
}

#[test]
fn dropped_it_ends_and_executes_nothing() {
    require!(into_cgroup());
    let sandbox = Sandbox::new(test_name!());
    let file = sandbox.scratch().join("started");
    let held = spawn(&sandbox.v2("target"), &["touch", file.to_str().expect("UTF-8")]).expect("spawn");
    let pid = held.pid();
    drop(held);
    assert_eq!(status(pid), 125);
    assert!(!file.exists());
}

#[test]
fn a_program_that_cannot_be_executed_is_told() {
    require!(into_cgroup());
    let sandbox = Sandbox::new(test_name!());
    for (program, exit_status, errno) in [
        ("/nonexistent", 127, libc::ENOENT),
        ("/etc/passwd", 126, libc::EACCES),
        ("no-such-program", 127, libc::ENOENT),
    ] {
        let held = spawn(&sandbox.v2("target"), &[program]).expect("spawn");
        let pid = held.pid();
        let from = held.execute();
        assert_eq!(status(pid), exit_status, "{program}");
        let told = failure(from);
        let Some(Failure::Execute(error)) = told else { panic!("{program}: {told:?}") };
        assert_eq!(error.raw_os_error(), Some(errno), "{program}");
    }
}

#[test]
fn it_joins_others_or_tells_which_it_could_not() {
    require!(into_cgroup(), v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let (first, second) = (sandbox.v2("target"), sandbox.v1("freezer", "target"));
    let open = |file: &str| fs::OpenOptions::new().write(true).open(second.join(file)).expect(file);
    let tasks = open("tasks");
    let spawn = |join: &[&fs::File]| {
        let join: Vec<_> = join.iter().map(|file| file.as_fd()).collect();
        let group = fs::File::open(&first).expect("open");
        spawn_in(group.as_fd(), &[c"true".to_owned()], &[], &join).expect("spawn")
    };
    let held = spawn(&[&tasks]);
    let pid = held.pid();
    eventually("it has joined", || pids_in(&second) == [pid as i32]);
    drop(held);
    assert_eq!(status(pid), 125);
    // A write of 0 that is refused.
    let read_only = fs::File::open(second.join("tasks")).expect("tasks");
    let held = spawn(&[&tasks, &read_only]);
    let pid = held.pid();
    let from = held.execute();
    assert_eq!(status(pid), 125);
    assert!(
        matches!(failure(from), Some(Failure::Join(1, error)) if error.raw_os_error() == Some(libc::EBADF))
    );
}

#[test]
fn in_v1_it_is_an_error() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let error = spawn(&sandbox.v1("freezer", "target"), &["true"]).expect_err("v1");
    assert!(matches!(error.raw_os_error(), Some(libc::EBADF | libc::E2BIG | libc::ENOSYS)), "{error}");
}

#[test]
fn a_child_apart_has_left_the_session_when_it_says_so() {
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    let words = ["sh", "-c", "read line; echo \"$line\""];
    let words: Vec<_> = words.into_iter().map(|word| CString::new(word).expect("no NUL")).collect();
    let pid = spawn_apart(c"/bin/sh", &words, theirs.as_fd()).expect("spawn");
    drop(theirs);
    let mut byte = [0];
    ours.read_exact(&mut byte).expect("a byte");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let session = stat.rsplit_once(") ").expect("a name").1.split(' ').nth(3).expect("a session").to_owned();
    assert_eq!(session, pid.to_string());
    ours.write_all(b"word\n").expect("write");
    let mut answer = String::new();
    ours.read_to_string(&mut answer).expect("read");
    assert_eq!((status(pid), &*answer), (0, "word\n"));
}
