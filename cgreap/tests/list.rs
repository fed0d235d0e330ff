//! `cgreap -`: targets from standard input.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use common::*;
use serde_json::Value;

fn cgreap(args: &[&OsStr]) -> Command {
    let program = std::env::var_os("CGREAP_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_cgreap").into());
    let mut command = Command::new(program);
    command.args(args).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn result(Output { status, stdout, stderr }: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// Runs it with this on its standard input.
#[track_caller]
fn reap(args: &[&OsStr], list: &[u8]) -> (Option<i32>, String, String) {
    let mut child = cgreap(args).stdin(Stdio::piped()).spawn().expect("cgreap");
    let mut stdin = child.stdin.take().expect("stdin");
    let list = list.to_owned();
    // A thread, because the pipe may be full. That it is not read to its end is seen in the result.
    let writer = thread::spawn(move || drop(stdin.write_all(&list)));
    let output = child.wait_with_output().expect("cgreap");
    writer.join().unwrap();
    result(output)
}

fn os<'a>(args: &'a [&str]) -> Vec<&'a OsStr> {
    args.iter().map(OsStr::new).collect()
}

/// A list of these paths, each with this end.
fn list(paths: &[PathBuf], end: u8) -> Vec<u8> {
    paths.iter().flat_map(|path| path.as_os_str().as_bytes().iter().copied().chain([end])).collect()
}

/// The JSON objects by index.
#[track_caller]
fn by_index(out: &str) -> BTreeMap<u64, Value> {
    let objects = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let by_index: BTreeMap<_, _> =
        objects.map(|object| (object["index"].as_u64().unwrap(), object)).collect();
    assert_eq!(by_index.len(), out.lines().count(), "an index twice");
    by_index
}

#[test]
fn thousands_are_reaped_and_indexed_in_their_place() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let full: Vec<_> = (0..3).map(|n| sandbox.v2(&format!("full {n}"))).collect();
    let sleepers = sandbox.one_each(&full);
    let (before, after) = (sandbox.v2("before"), sandbox.v2("after"));
    let many = (0..5000).map(|n| sandbox.v2_dir().join(format!("missing-{n}")));
    let listed: Vec<_> = many.chain(full.iter().cloned()).collect();
    for end in [b'\n', 0] {
        let args = ["--json".as_ref(), before.as_os_str(), "-".as_ref(), after.as_os_str()];
        let (status, out, err) = reap(&args, &list(&listed, end));
        assert_eq!((status, &*err), (Some(0), ""));
        let objects = by_index(&out);
        let expected: Vec<_> = [&before].into_iter().chain(&listed).chain([&after]).collect();
        assert_eq!(objects.len(), expected.len());
        for (index, path) in (0..).zip(expected) {
            assert_eq!(objects[&index]["path"], path.to_str().unwrap());
        }
    }
    assert!(sleepers.ended(TIMEOUT));
    assert!(!full[0].exists() && !before.exists() && !after.exists());
}

#[test]
fn names_are_bytes() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let name = OsStr::from_bytes(b"\xff a\t");
    let dir = sandbox.v2_dir().join(name);
    for end in [b'\n', 0] {
        std::fs::create_dir(&dir).expect("cgroup");
        let (status, out, err) = reap(&os(&["-q", "-"]), &list(std::slice::from_ref(&dir), end));
        assert_eq!((status, &*out, &*err), (Some(0), "", ""));
        assert!(!dir.exists());
    }
    // A newline, which the kernel allows in no name of a cgroup, separates nothing where NUL does.
    let (status, out, _) = reap(&os(&["--json", "-"]), &list(&[sandbox.v2_dir().join("a\nb")], 0));
    assert_eq!((status, out.lines().count()), (Some(0), 1), "{out}");
}

#[test]
fn names_may_be_in_a_slice() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (a, b) = (sandbox.v2("a"), sandbox.v2("b"));
    let root = sandbox.v2_dir().parent().unwrap().to_owned();
    let slice = Path::new(sandbox.v2_dir().file_name().unwrap()).to_owned();
    let args = ["--root".as_ref(), root.as_os_str(), "--slice".as_ref(), slice.as_os_str(), "-".as_ref()];
    let (status, _, err) = reap(&args, b"a\n\nb\n");
    assert_eq!((status, &*err), (Some(0), ""));
    assert!(!a.exists() && !b.exists());
}

#[test]
fn a_list_that_breaks_off_reaps_nothing() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (other, top) = (sandbox.v2("other"), sandbox.v2("top"));
    sandbox.v2("top/meant");
    let canary = sandbox.canary(&[&top]);
    for end in [b'\n', 0] {
        let mut broken = list(&[other.clone(), top.join("meant")], end);
        broken.truncate(broken.len() - "/meant".len() - 1);
        let (status, out, err) = reap(&[other.as_os_str(), "-".as_ref()], &broken);
        assert_eq!((status, &*out), (Some(2), ""), "{err}");
        assert!(
            err.starts_with("cgreap: standard input: no ") && err.contains(top.to_str().unwrap()),
            "{err}"
        );
        assert!(other.exists() && top.join("meant").exists());
    }
    canary.assert_alive();
}

#[test]
fn an_empty_list_is_no_target_and_an_empty_name_is_refused() {
    for list in ["", "\n", "\n\n"] {
        assert_eq!(reap(&os(&["-"]), list.as_bytes()), (Some(0), String::new(), String::new()), "{list:?}");
    }
    let (status, out, err) = reap(&os(&["-"]), b"\0");
    assert_eq!((status, &*out), (Some(2), ""));
    assert!(err.contains("refused"), "{err}");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let run = |args: &[&str], stdin: Stdio| {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        result(cgreap(&args).stdin(stdin).output().expect("cgreap"))
    };
    let gone = "/sys/fs/cgroup/cgroup-reaper-none";
    let (status, out, err) = run(&[gone, "-"], File::open("/").unwrap().into());
    assert_eq!((status, &*out), (Some(2), ""));
    assert!(err.starts_with("cgreap: standard input: Is a directory"), "{err}");
    let (status, out, err) = run(&["-", gone, "-"], Stdio::null());
    assert_eq!((status, &*out), (Some(2), ""));
    assert!(err.contains("more than once"), "{err}");
}

/// Rust's start-up opens /dev/null in the place of a descriptor that is closed.
#[test]
fn closed_is_empty() {
    let mut command = cgreap(&os(&["-"]));
    #[expect(unsafe_code, reason = "std cannot close it")]
    // SAFETY: nothing but a system call.
    unsafe {
        command.pre_exec(|| {
            libc::close(0);
            Ok(())
        });
    }
    assert_eq!(result(command.output().expect("cgreap")), (Some(0), String::new(), String::new()));
}

#[test]
fn nothing_is_reaped_before_the_list_has_ended() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (first, second) = (sandbox.v2("first"), sandbox.v2("second"));
    let mut child = cgreap(&[first.as_os_str(), "-".as_ref()]).stdin(Stdio::piped()).spawn().expect("cgreap");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(&list(std::slice::from_ref(&second), b'\n')).expect("pipe");
    let is_read = || thread_state(child.id()) == Some('S');
    eventually("it waits for the rest", is_read);
    assert!(first.exists() && second.exists());
    drop(stdin);
    let (status, _, err) = result(child.wait_with_output().expect("cgreap"));
    assert_eq!((status, &*err), (Some(0), ""));
    assert!(!first.exists() && !second.exists());
}

/// The state of a process of one thread.
fn thread_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
