//! `cgreap sweep` as built, on real cgroups.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::UNIX_EPOCH;

use common::*;

/// `cgreap sweep`.
fn command() -> Command {
    let program = std::env::var_os("CGREAP_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_cgreap").into());
    let mut command = Command::new(program);
    command.arg("sweep").env_remove("RUST_LOG");
    command
}

/// The program keeps signals ignored that were ignored before, as in the background of a shell without job control.
#[expect(unsafe_code, reason = "std has no signal dispositions")]
fn with_default_signals(mut command: Command) -> Command {
    use std::os::unix::process::CommandExt;
    let set = || {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: nothing but a system call.
    unsafe { command.pre_exec(set) };
    command
}

#[track_caller]
fn sweep<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command().args(args).output().expect("cgreap");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn args<'a>(options: &'a [&'a str], dir: &'a Path) -> Vec<&'a OsStr> {
    options.iter().map(|&option| OsStr::new(option)).chain([dir.as_os_str()]).collect()
}

/// The columns of a row of the list.
fn row<'a>(list: &'a str, group: &Path) -> Vec<&'a str> {
    let end = format!(" {}", group.display());
    let line = list.lines().find(|line| line.ends_with(&end)).unwrap_or_else(|| panic!("{end}: {list}"));
    line.split_whitespace().collect()
}

/// Once in v2, once in v1, as far as they are there. The test is given what makes a cgroup.
#[track_caller]
fn in_each(sandbox: &Sandbox, test: impl Fn(&dyn Fn(&str) -> PathBuf)) {
    [(v2(), true), (v1("freezer"), false)].into_iter().filter(|(have, _)| have.is_ok()).for_each(
        |(_, is_v2)| {
            test(&|name| if is_v2 { sandbox.v2(name) } else { sandbox.v1("freezer", name) });
        },
    );
}

#[test]
fn it_lists_what_is_there_and_changes_nothing() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, empty, full, deep) =
            (make("list"), make("list/empty"), make("list/full"), make("list/full/deep"));
        let sleepers = [sandbox.sleepers(2, &[&full]), sandbox.sleepers(3, &[&deep])];
        let (status, list, err) = sweep(args(&[], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert_eq!(row(&list, &empty)[..2], ["0", "1"], "{list}");
        assert_eq!(row(&list, &full)[..2], ["5", "2"], "{list}");
        assert_eq!(row(&list, &full)[3], "s", "{list}");
        assert_eq!(list.lines().count(), 3, "{list}");
        let (status, list, _) = sweep(args(&["--older-than", "1h"], &top));
        assert_eq!((status, list.lines().count()), (Some(0), 1));
        assert!(empty.exists() && deep.exists());
        assert_eq!(sleepers.iter().map(|sleepers| sleepers.living()).sum::<usize>(), 5);
    });
}

#[test]
fn empty_removes_without_a_signal() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, tree, full) = (make("empty"), make("empty/tree"), make("empty/full"));
        let (_, _, _) = (make("empty/tree/a"), make("empty/tree/a/b"), make("empty/full/bare"));
        let sleeper = sandbox.sleeper(&[&full]);
        // Too young.
        let (status, out, err) = sweep(args(&["--empty", "--older-than", "1h"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(out.starts_with("0 of 0 cgroups removed in ") && tree.exists(), "{out}");
        let (status, out, err) = sweep(args(&["--empty"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(
            out.starts_with("1 of 2 cgroups removed in ") && out.ends_with("; 1 have processes\n"),
            "{out}"
        );
        assert!(!tree.exists() && top.exists());
        assert!(full.join("bare").exists(), "a part of one that is in use");
        assert!(sleeper.alive());
    });
}

#[test]
fn empty_removes_what_is_threaded_too() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (top, empty, full) = (sandbox.v2("top"), sandbox.v2("top/empty"), sandbox.v2("top/full"));
    // A process of its threads is a member of the nearest domain, and has to be there first.
    let sleeper = sandbox.sleeper(&[&top]);
    for group in [&empty, &full] {
        fs::write(group.join("cgroup.type"), "threaded").expect("cgroup.type");
    }
    let member = fs::read_to_string(top.join("cgroup.procs")).expect("cgroup.procs");
    fs::write(full.join("cgroup.threads"), member.trim()).expect("cgroup.threads");
    let (status, out, err) = sweep(args(&["--empty"], &top));
    assert_eq!((status, &*err), (Some(0), ""));
    assert!(out.starts_with("1 of 2 cgroups removed in ") && out.ends_with("; 1 have processes\n"), "{out}");
    assert!(!empty.exists() && full.exists() && sleeper.alive());
}

#[test]
fn empty_fails_for_what_cannot_be_removed() {
    require!(namespaces(), any_hierarchy());
    // The mounts are in the mount namespace of this test alone.
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        in_each(&sandbox, |make| {
            let (top, held, point) = (make("held"), make("held/a"), make("held/a/point"));
            let other = make("held/b");
            mount(Path::new("none"), &point, "tmpfs", 0, "");
            let (status, out, err) = sweep(args(&["--empty"], &top));
            unmount(&point);
            assert_eq!(status, Some(1), "{err}");
            assert!(out.starts_with("1 of 2 cgroups removed in ") && !out.contains("processes"), "{out}");
            let expected = format!("cgreap: {}: not reaped in time (", held.display());
            assert!(err.starts_with(&expected) && err.contains("cannot be removed"), "{err}");
            assert!(err.contains(&format!("{} is in the way", point.display())), "{err}");
            assert!(held.exists() && !other.exists());
        });
    });
}

#[test]
fn an_owner_cannot_age_other_cgroups() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, before, owned) = (make("age"), make("age/before"), make("age/owned"));
        chown(&owned, Some(USER), None).expect("chown");
        let times = fs::FileTimes::new().set_accessed(UNIX_EPOCH).set_modified(UNIX_EPOCH);
        fs::File::open(&owned).and_then(|dir| dir.set_times(times)).expect("times");
        // The boot is longer ago, unless the machine runs for this test.
        let (status, list, err) = sweep(args(&["--older-than", "1m"], &top));
        assert_eq!((status, &*err, list.lines().count()), (Some(0), "", 1), "{list}");
        assert!(before.exists() && owned.exists());
    });
}

#[test]
fn a_signal_ends_it_as_one_that_it_dies_of() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let group = sandbox.v1("freezer", "top/stuck");
    let stuck = sandbox.trace_exit(&[&group]);
    let mut command = with_default_signals(command());
    command.arg("--kill").arg(group.parent().expect("top")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("cgreap");
    eventually("it kills", || stuck.parked());
    kill(child.id() as i32, libc::SIGTERM).expect("kill");
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGTERM));
    stuck.release();
}

#[test]
fn kill_reaps_all_below_and_not_the_directory() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, a, b, beside) = (make("kill"), make("kill/a"), make("kill/b"), make("beside"));
        let (inside, canary) = (sandbox.sleepers(2, &[&a]), sandbox.canary(&[&beside]));
        let direct = sandbox.canary(&[&top]);
        let (status, out, err) = sweep(args(&["--kill"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(out.starts_with("2 of 2 cgroups removed in "), "{out}");
        assert!(!a.exists() && !b.exists() && top.exists() && inside.ended(TIMEOUT));
        canary.assert_alive();
        direct.assert_alive();
    });
}

/// A stream that takes no more bytes, and the end that it is read from.
#[track_caller]
fn full_stream() -> (OwnedFd, UnixStream) {
    let (reader, mut full) = UnixStream::pair().expect("socketpair");
    full.set_nonblocking(true).expect("fcntl");
    let end = loop {
        if let Err(error) = full.write_all(b"x") {
            break error;
        }
    };
    assert_eq!(end.kind(), ErrorKind::WouldBlock);
    full.set_nonblocking(false).expect("fcntl");
    (full.into(), reader)
}

#[track_caller]
fn await_write_to_stderr(child: &Child) {
    let file = format!("/proc/{}/syscall", child.id());
    let write = format!("{} 0x2 ", libc::SYS_write);
    eventually("it writes to stderr", || {
        fs::read_to_string(&file).is_ok_and(|call| call.starts_with(&write))
    });
}

/// A cgreap that has listed the cgroups and touched none: it writes its log to a stream that is full.
struct Held {
    child: Child,
    log: UnixStream,
}

impl Held {
    #[track_caller]
    fn start(option: &str, dir: &Path) -> Held {
        let (full, log) = full_stream();
        let mut command = command();
        command.args([option.as_ref(), dir.as_os_str()]).env("RUST_LOG", "trace");
        let child = command.stdout(Stdio::piped()).stderr(full).spawn().expect("cgreap");
        // The command has a copy of the descriptor.
        drop(command);
        await_write_to_stderr(&child);
        Held { child, log }
    }

    /// Lets it go on. Returns its exit status and its output.
    #[track_caller]
    fn finish(mut self) -> (Option<i32>, String) {
        self.log.read_to_end(&mut Vec::new()).expect("log");
        let output = self.child.wait_with_output().expect("wait");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    }
}

#[test]
fn a_later_cgroup_of_the_same_name_is_left_alone() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        for option in ["--kill", "--empty"] {
            let make = |name: &str| make(&format!("later{option}{name}"));
            let (top, same, other) = (make(""), make("/same"), make("/other"));
            let held = Held::start(option, &top);
            fs::remove_dir(&other).expect("rmdir");
            fs::create_dir(&other).expect("mkdir");
            let canary = (option == "--kill").then(|| sandbox.canary(&[&other]));
            let (status, out) = held.finish();
            assert_eq!(status, Some(0), "{option}: {out}");
            // As one that was removed by another party.
            assert!(out.starts_with("2 of 2 cgroups removed in "), "{option}: {out}");
            assert!(other.exists() && !same.exists(), "{option}");
            if let Some(canary) = canary {
                canary.assert_alive();
            }
        }
    });
}

#[test]
fn a_failure_names_the_cgroup_as_the_directory_was_named() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, own) = (make("named"), make("named/own"));
        let link = sandbox.scratch().join("link");
        let _ = fs::remove_file(&link);
        symlink(&top, &link).expect("symlink");
        let relative = top.file_name().expect("a name").as_ref();
        for (dir, named) in [(&*top, &own), (&link, &link.join("own")), (relative, &own)] {
            let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", own.display());
            let sweep = command();
            let mut command = Command::new("sh");
            command.args(["-c", &join, "sh"]).arg(sweep.get_program()).args(["sweep", "--kill"]).arg(dir);
            command.current_dir(top.parent().expect("a parent")).env_remove("RUST_LOG");
            let Output { status, stderr, .. } = command.output().expect("sh");
            assert_eq!(status.code(), Some(1));
            let text = String::from_utf8(stderr).expect("UTF-8");
            let expected =
                format!("cgreap: {}: refused: is or contains the caller's own cgroup\n", named.display());
            assert_eq!(text, expected, "{}", dir.display());
        }
    });
}

#[test]
fn a_signal_ends_it_while_its_messages_are_not_read() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, own) = (make("unread"), make("unread/own"));
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", own.display());
        let mut command = with_default_signals(Command::new("sh"));
        command
            .args(["-c", &join, "sh"])
            .arg(self::command().get_program())
            .args(["sweep", "--kill"])
            .arg(&top);
        let (full, _reader) = full_stream();
        let child = command.env_remove("RUST_LOG").stdout(Stdio::null()).stderr(full).spawn();
        drop(command);
        let mut child = child.expect("sh");
        // That the caller's own cgroup is refused.
        await_write_to_stderr(&child);
        kill(child.id() as i32, libc::SIGTERM).expect("kill");
        let ended = wait_until(TIMEOUT, || child.try_wait().expect("wait").is_some());
        let _ = child.kill();
        let status = child.wait().expect("wait");
        assert!(ended && status.signal() == Some(libc::SIGTERM), "{status}");
    });
}

#[test]
fn a_list_that_cannot_be_written_is_a_failure() {
    require!(any_hierarchy());
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        return skip(test_name!(), "no /dev/full");
    };
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, group) = (make("full-disk"), make("full-disk/a"));
        for (options, exists) in [(&[][..], true), (&["--empty"][..], false)] {
            let stdout = full.try_clone().expect("dup");
            let run = command().args(args(options, &top)).stdout(stdout).output().expect("cgreap");
            let err = String::from_utf8(run.stderr).expect("UTF-8");
            assert_eq!(run.status.code(), Some(1), "{err}");
            assert!(err.starts_with("cgreap: sweep: stdout: No space left"), "{err}");
            assert_eq!(group.exists(), exists);
        }
    });
}

#[test]
fn a_unit_of_systemd_that_is_left_to_it_does_not_count_as_removed() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let (top, other, unit) = (make("units"), make("units/other"), make("units/x.service"));
        let set = Command::new("python3")
            .args([
                "-c",
                "import os, sys; os.setxattr(sys.argv[1], 'trusted.invocation_id', b'8a1e6ae2b7f04a1c')",
            ])
            .arg(&unit)
            .output();
        if !set.is_ok_and(|set| set.status.success()) {
            return skip(test_name!(), "no attribute can be set, or there is no python3");
        }
        let (status, out, err) = sweep(args(&["--empty"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(out.starts_with("1 of 2 cgroups removed in "), "{out}");
        assert!(out.ends_with("; 1 empty, left to systemd\n"), "{out}");
        assert!(!other.exists() && unit.exists());
    });
}

#[test]
fn with_few_descriptors_all_are_reaped() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(&sandbox, |make| {
        let top = make("few");
        let groups: Vec<_> = (0..50).map(|index| make(&format!("few/{index}"))).collect();
        let sleepers = sandbox.one_each(&groups);
        let mut command = Command::new("sh");
        // Two more than one reap at a time takes.
        command.args(["-c", "ulimit -n 16 && exec \"$@\"", "sh"]).arg(self::command().get_program());
        let Output { status, stdout, stderr } =
            command.args(["sweep", "--kill"]).arg(&top).env_remove("RUST_LOG").output().expect("sh");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (out, err) = (text(stdout), text(stderr));
        assert_eq!((status.code(), &*err), (Some(0), ""));
        assert!(out.starts_with("50 of 50 cgroups removed in "), "{out}");
        assert!(sleepers.ended(TIMEOUT));
    });
}

#[test]
fn what_is_no_cgroup_and_a_root_are_refused() {
    require!(namespaces(), any_hierarchy());
    // If the refusal is broken, only the processes of this test die.
    isolated(test_name!(), || {
        assert_eq!(sweep(args(&[], &std::env::temp_dir())).0, Some(2));
        for root in [v2_root(), v1_root("freezer")].into_iter().flatten() {
            assert_eq!(sweep(args(&[], &root.join("cgroup.procs"))).0, Some(2));
            let (status, out, err) = sweep(args(&["--kill"], &root));
            assert_eq!((status, &*out), (Some(2), ""));
            assert!(err.contains("refused: the root of a hierarchy"), "{err}");
        }
        assert_eq!(sweep(args(&["--kill", "--empty"], &std::env::temp_dir())).0, Some(2));
    });
}
