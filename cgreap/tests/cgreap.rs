//! The program `cgreap` as built, on real cgroups.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;

const CGREAP: &str = env!("CARGO_BIN_EXE_cgreap");

/// How long a run may take. The demo has dozens of processes to start, which machines under emulation are
/// slow at.
const LIMIT: Duration = Duration::from_secs(90);

fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(CGREAP);
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    before_exec(&mut command, heed_signals);
    command
}

/// The exit status and the output of a run.
#[derive(Debug)]
struct Run {
    /// As shells tell it.
    status: Option<i32>,
    /// The signal that it died of.
    signal: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let signal = output.status.signal();
        let status = output.status.code().or(signal.map(|signal| 128 + signal));
        Run { status, signal, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs it to its end, both outputs in pipes.
#[track_caller]
fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    finish(command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn"))
}

#[track_caller]
fn finish(mut child: Child) -> Run {
    // Threads read the pipes, because a full pipe would block it. A hang of it must not hang the tests.
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)).transpose().map(|_| bytes)
        })
    };
    let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let ended = wait_until(LIMIT, || child.try_wait().expect("wait").is_some());
    if !ended {
        child.kill().expect("kill");
    }
    let status = child.wait().expect("wait");
    let read = |thread: thread::JoinHandle<std::io::Result<Vec<u8>>>| thread.join().unwrap().expect("read");
    let output = Output { status, stdout: read(out), stderr: read(err) };
    assert!(ended, "still running after {LIMIT:?}: {output:?}");
    output.into()
}

#[expect(unsafe_code, reason = "std cannot send signals")]
fn signal(child: &Child, signal: i32) {
    // SAFETY: no memory is involved, and a child that was not waited for keeps its pid.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Waits until it watches for the signal, which it blocks then.
#[track_caller]
fn await_watch(child: &Child, signal: i32) {
    eventually("the signal is blocked", || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a child not waited for");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("SigBlk");
        u64::from_str_radix(blocked.trim(), 16).expect("hexadecimal") >> (signal - 1) & 1 == 1
    });
}

/// The signals that end it. They are ignored where the tests run under nohup(1), or in the background of a shell without job
/// control, and the program keeps that.
const ENDING: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

#[expect(unsafe_code, reason = "std has no signal dispositions")]
fn heed_signals() -> i32 {
    for number in ENDING {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    0
}

#[expect(unsafe_code, reason = "std has no signal dispositions")]
fn ignore_signals() -> i32 {
    for number in ENDING {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
    0
}

/// Has the child make a system call before it executes the program, as the user that it runs as.
#[expect(unsafe_code, reason = "std has no limits and no signal masks")]
fn before_exec(command: &mut Command, call: fn() -> i32) {
    let call = move || if call() == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: nothing but a system call.
    unsafe { command.pre_exec(call) };
}

/// Uses up the processes that the user may have.
#[expect(unsafe_code, reason = "std has no limits")]
fn no_more_processes() -> i32 {
    // SAFETY: the structure outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &libc::rlimit { rlim_cur: 1, rlim_max: 1 }) }
}

#[expect(unsafe_code, reason = "std has no signal masks")]
fn block_all_signals() -> i32 {
    // SAFETY: a local, which outlives the calls.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut())
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// A copy of the program that every user can run, which the original, as built, may not be.
struct Copy {
    dir: PathBuf,
    program: PathBuf,
}

impl Copy {
    fn new(test: &str) -> Copy {
        let dir = std::env::temp_dir().join(format!("cgroup-reaper-{}-{test}", std::process::id()));
        fs::create_dir(&dir).expect("temporary directory");
        let copy = Copy { program: dir.join("cgreap"), dir };
        fs::copy(CGREAP, &copy.program).expect("copy");
        for path in [&copy.dir, &copy.program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        copy
    }
}

impl Copy {
    /// Starts it, as a user without rights where that can be chosen.
    #[track_caller]
    fn spawn(&self, args: &[&OsStr]) -> Child {
        self.spawn_as(args, |_| {})
    }

    /// The same, with further settings.
    #[track_caller]
    fn spawn_as(&self, args: &[&OsStr], set: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
        set(&mut command);
        if is_root() {
            command.uid(65534).gid(65534);
        }
        let mut child = None;
        // Busy: a child that another thread has just forked still has the copy open for writing.
        eventually("the copy starts", || match command.spawn() {
            Ok(spawned) => child.insert(spawned).id() > 0,
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => false,
            Err(error) => panic!("{}: {error}", self.program.display()),
        });
        child.expect("just started")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The lines of --json, by path.
#[track_caller]
fn objects(out: &str) -> BTreeMap<String, Value> {
    let parse = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        (object["path"].as_str().expect("path").to_owned(), object)
    };
    out.lines().map(parse).collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// The path of a cgroup that does not exist, beside those of the sandbox.
fn missing(sandbox: &Sandbox, n: usize) -> PathBuf {
    sandbox.v2_dir().join(format!("missing-{n}"))
}

#[test]
fn help_tells_the_exit_statuses_and_examples() {
    for option in ["-h", "--help"] {
        let run = run([option]);
        assert_eq!(run.status, Some(0));
        assert!(run.out.contains("Exit status:") && run.out.contains("Examples:"), "{}", run.out);
        assert!(!run.out.contains("__demo-"), "{}", run.out);
    }
    assert!(run(["--help"]).out.contains("elapsed_us"));
    assert!(run(["--version"]).out.starts_with("cgreap "));
}

#[test]
fn wrong_usage_is_2_with_a_hint() {
    for (args, hint) in [
        (&[][..], "DIR"),
        (&["--deadline", "30", "x"][..], "30s"),
        (&["--grace", "TERM", "x"][..], "TERM=5s"),
        (&["--method", "sword", "x"][..], "cgroup-kill"),
        (&["--min-wait", "20s", "x"][..], "--max-wait"),
        (&["--sharply", "x"][..], "--sharply"),
    ] {
        let run = run(args);
        assert_eq!(run.status, Some(2), "{args:?}: {run:?}");
        assert!(run.err.contains(hint), "{args:?}: {}", run.err);
        assert_eq!(run.out, "");
    }
}

#[test]
fn a_command_after_an_option_is_refused() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let canary = sandbox.canary(&[&dir]);
    for command in ["sweep", "demo", "run"] {
        let run = run([OsStr::new("-v"), command.as_ref(), dir.as_os_str()]);
        assert_eq!((run.status, &*run.out), (Some(2), ""), "{run:?}");
        assert!(run.err.contains(&format!("`cgreap {command} [OPTIONS] ...`")), "{run:?}");
        assert!(run.err.contains(&format!("`./{command}` is the directory")), "{run:?}");
        canary.assert_alive();
    }
}

#[test]
fn reaps_v2_and_says_how() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (full, empty) = (sandbox.v2("full"), sandbox.v2("empty"));
    let sleepers = sandbox.sleepers(3, &[&full]);
    let run = run([&full, &empty]);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(!full.exists() && !empty.exists());
    assert!(sleepers.ended(TIMEOUT));
    let mut lines: Vec<_> = run.out.lines().collect();
    lines.sort_unstable();
    assert!(lines[0].starts_with(&format!("{}: removed (nothing to kill, ", empty.display())), "{lines:?}");
    assert!(lines[0].ends_with(" ms)"), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{}: removed (", full.display())), "{lines:?}");
    assert!(lines[1].contains(" attempt, ") || lines[1].contains(" attempts, "), "{lines:?}");
    if cgroup_kill().is_ok() {
        assert!(lines[1].contains("(cgroup.kill, "), "{lines:?}");
    }
}

#[test]
fn reaps_v2_by_name() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let sleepers = sandbox.sleepers(3, &[&dir]);
    let slice = sandbox.v2_dir();
    let (root, slice) = (text(slice.parent().unwrap()), text(Path::new(slice.file_name().unwrap())));
    let run = run(["--json", "--slice", &slice, "--root", &root, "x", "gone"]);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(!dir.exists());
    assert!(sleepers.ended(TIMEOUT));
    let objects = objects(&run.out);
    for name in ["x", "gone"] {
        let object = &objects[name];
        assert_eq!(object["root"], *root);
        assert_eq!(object["slice"], *slice);
        assert_eq!(object["subsystems"], serde_json::json!([]));
    }
    assert_eq!(objects["x"]["outcome"], "removed");
    assert_eq!(objects["gone"]["outcome"], "already-gone");
}

#[test]
fn reaps_v1_by_name() {
    require!(v1("freezer"), v1("pids"));
    let sandbox = Sandbox::new(test_name!());
    let (freezer, pids) = (sandbox.v1("freezer", "x"), sandbox.v1("pids", "x"));
    let (root, slice) = (v1_root("freezer").unwrap(), sandbox.v1_dir("freezer"));
    if root.parent() != v1_root("pids").unwrap().parent() || !root.ends_with("freezer") {
        return skip(test_name!(), "freezer and pids are not mounted side by side");
    }
    let sleepers = sandbox.sleepers(3, &[&freezer, &pids]);
    let slice = text(Path::new(slice.file_name().unwrap()));
    let root = text(root.parent().unwrap());
    let place = ["--json", "--subsystem", "freezer,pids", "--slice", &slice, "--root", &root];
    let run = run(place.into_iter().chain(["x", "gone"]));
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(!freezer.exists() && !pids.exists());
    assert!(sleepers.ended(TIMEOUT));
    let objects = objects(&run.out);
    for name in ["x", "gone"] {
        let object = &objects[name];
        assert_eq!(object["root"], *root);
        assert_eq!(object["slice"], *slice);
        assert_eq!(object["subsystems"], serde_json::json!(["freezer", "pids"]));
    }
    assert_eq!(objects["x"]["outcome"], "removed");
    assert_eq!(objects["x"]["signalled"], 3);
    assert_eq!(objects["gone"]["outcome"], "already-gone");
}

#[test]
fn a_missing_target_is_already_gone() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let gone = missing(&sandbox, 0);
    let plain = run([&gone]);
    assert_eq!((plain.status, &*plain.err), (Some(0), ""));
    assert_eq!(plain.out, format!("{}: already gone\n", gone.display()));
    let json = run([OsStr::new("--json"), gone.as_os_str()]);
    let object = &objects(&json.out)[&text(&gone)];
    assert_eq!(object["outcome"], "already-gone");
    assert_eq!(object["method"], Value::Null);
}

#[test]
fn a_relative_path_may_begin_with_a_dot() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("demo");
    let mut command = command(["./demo"]);
    command.current_dir(sandbox.v2_dir()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = finish(command.spawn().expect("spawn"));
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(run.out.starts_with("./demo: removed ("), "{run:?}");
    assert!(!dir.exists());
}

#[test]
fn a_denied_kill_is_a_failure() {
    require!(v2());
    if !is_root() {
        return skip(test_name!(), "needs another user to run as");
    }
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let canary = sandbox.canary(&[&dir]);
    let copy = Copy::new(test_name!());
    let run = finish(copy.spawn(&["--json".as_ref(), dir.as_os_str()]));
    assert_eq!((run.status, &*run.err), (Some(1), ""), "{run:?}");
    assert_eq!(objects(&run.out)[&text(&dir)]["error"]["kind"], "denied", "{run:?}");
    canary.assert_alive();
}

#[test]
fn json_describes_a_reap() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let _sleepers = sandbox.sleepers(2, &[&dir]);
    let run = run(["--json", "--method", "pidfd", &text(&dir)]);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    let object = &objects(&run.out)[&text(&dir)];
    let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["attempts", "elapsed_us", "index", "method", "outcome", "path", "released", "signalled"]
    );
    assert_eq!(object["outcome"], "removed");
    assert_eq!(object["method"], "pidfd");
    assert_eq!(object["signalled"], 2);
    assert!(object["attempts"].as_u64().unwrap() >= 1);
    assert!(object["elapsed_us"].as_u64().unwrap() > 0);
}

#[test]
fn refused_targets_are_named_and_the_others_reaped() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let sleeper = sandbox.sleeper(&[&dir]);
    let foreign = std::env::temp_dir();
    let dotted = dir.join("../x");
    let targets = [&foreign, &dotted, &dir];
    let plain = run(targets);
    assert_eq!(plain.status, Some(2), "{plain:?}");
    assert!(sleeper.ended(TIMEOUT) && !dir.exists() && foreign.exists());
    assert_eq!(plain.out.lines().count(), 1, "{plain:?}");
    let errors: Vec<_> = plain.err.lines().collect();
    assert_eq!(errors.len(), 2, "{plain:?}");
    for (line, target) in errors.iter().zip(targets) {
        let start = format!("cgreap: {}: ", target.display());
        assert!(line.starts_with(&start) && line.contains("refused: "), "{line}");
    }

    let json = run([OsStr::new("--json")].into_iter().chain(targets.map(|target| target.as_os_str())));
    assert_eq!((json.status, &*json.err), (Some(2), ""));
    let objects = objects(&json.out);
    for target in [&foreign, &dotted] {
        let error = &objects[&text(target)]["error"];
        assert_eq!(error["kind"], "refused");
        assert!(error["message"].as_str().unwrap().contains("refused"));
    }
    assert_eq!(objects[&text(&dir)]["outcome"], "already-gone");
}

#[test]
fn roots_are_refused() {
    require!(namespaces(), v2());
    // If the refusal is broken, only the processes of this test die.
    isolated(test_name!(), || {
        let roots = [v2_root(), v1_root("freezer"), v1_root("pids")];
        let roots: Vec<_> = roots.into_iter().flatten().collect();
        let run = run(&roots);
        assert_eq!((run.status, &*run.out), (Some(2), ""), "{run:?}");
        for (line, root) in run.err.lines().zip(&roots) {
            assert!(line.starts_with(&format!("cgreap: {}: refused: ", root.display())), "{line}");
        }
        assert_eq!(run.err.lines().count(), roots.len());
    });
}

#[test]
fn its_own_cgroup_is_refused() {
    require!(namespaces(), v2());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let (top, dir) = (sandbox.v2_dir(), sandbox.v2("x"));
        let canary = sandbox.canary(&[&dir]);
        let enter = "echo 0 > \"$1/cgroup.procs\" && exec \"$2\" \"$1\" \"$3\"";
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", enter, "sh"]).arg(&dir).arg(CGREAP).arg(&top);
        let run = finish(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh"));
        assert_eq!((run.status, &*run.out), (Some(2), ""), "{run:?}");
        assert_eq!(run.err.matches("own cgroup").count(), 2, "{}", run.err);
        canary.assert_alive();
    });
}

#[test]
fn keep_dir_leaves_the_directory_empty() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let sleeper = sandbox.sleeper(&[&dir]);
    let run = run(["--keep-dir", &text(&dir)]);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(run.out.starts_with(&format!("{}: emptied (", dir.display())), "{run:?}");
    assert!(sleeper.ended(TIMEOUT));
    assert!(dir.exists() && pids_in(&dir).is_empty());
}

#[test]
fn grace_lets_processes_end_by_themselves() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let polite = sandbox.on_term(Duration::from_millis(20), &[&dir]);
    let since = Instant::now();
    let run = run(["--grace", "TERM=20s", &text(&dir)]);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(polite.saw_term(Duration::ZERO), "{run:?}");
    let line = format!("{}: removed (1 process signalled, ", dir.display());
    assert!(run.out.starts_with(&line), "{run:?}");
    assert!(
        since.elapsed() < Duration::from_secs(15),
        "it exited in time, so the rest of the grace is not waited for"
    );
    assert!(!dir.exists());
}

#[test]
fn the_deadline_names_the_survivor() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (dir, other) = (sandbox.v2("stuck"), sandbox.v2("other"));
    let stuck = sandbox.trace_exit(&[&dir]);
    let sleeper = sandbox.sleeper(&[&other]);
    let foreign = text(&std::env::temp_dir());
    let plain = run(["--deadline", "300ms", &text(&dir), &text(&other)]);
    assert_eq!(plain.status, Some(1), "{plain:?}");
    assert!(sleeper.ended(TIMEOUT) && !other.exists());
    let start = format!("cgreap: {}: not reaped in time: pid {} ", dir.display(), stuck.process.pid);
    assert!(plain.err.starts_with(&start), "{plain:?}");
    assert_eq!(plain.err.lines().count(), 1);

    // A refusal decides the exit status over a failure.
    let json = run(["--json", "--deadline", "300ms", &text(&dir), &foreign]);
    assert_eq!(json.status, Some(2), "{json:?}");
    let object = &objects(&json.out)[&text(&dir)];
    assert_eq!(object["error"]["kind"], "timed-out");
    assert_eq!(object["error"]["survivors"][0]["pid"], stuck.process.pid);
    assert!(object["elapsed_us"].as_u64().unwrap() >= 300_000);
    assert!(object.get("outcome").is_none());
    stuck.release();
}

#[test]
fn a_pipe_gets_no_progress_bar() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dirs: Vec<_> = (0..20).map(|n| sandbox.v2(&format!("g{n}"))).collect();
    // Longer than the delay before which no bar is shown.
    let stuck = sandbox.trace_exit(&[&dirs[0]]);
    let run = run(["--deadline", "600ms"].into_iter().map(PathBuf::from).chain(dirs.iter().cloned()));
    assert_eq!(run.status, Some(1), "{run:?}");
    assert_eq!(run.out.lines().count(), 19);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(!run.out.contains(['\u{1b}', '\r']) && !run.err.contains(['\u{1b}', '\r']), "{run:?}");
    stuck.release();
}

#[test]
fn a_log_on_a_terminal_has_no_control_characters_of_names() {
    let name = "/sys/fs/cgroup/cgroup-reaper-\u{1b}[31m\u{9b}";
    let mut command = command([name]);
    // Colours, as on a terminal.
    command.env("RUST_LOG", "trace").env("RUST_LOG_STYLE", "always");
    let run = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn"));
    assert!(run.err.contains("cgroup-reaper-\\u{1b}[31m\\u{9b}"), "{run:?}");
    assert!(!run.err.contains("\u{1b}[31m\u{9b}"), "{run:?}");
}

#[test]
fn verbose_logs_to_stderr_only() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let run = run(["-vvv", &text(&dir)]);
    assert_eq!(run.status, Some(0));
    assert!(run.err.contains(&text(&dir)), "{run:?}");
    assert_eq!(run.out.lines().count(), 1, "{run:?}");
}

#[test]
fn a_closed_stdout_does_not_stop_the_reaping() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dirs: Vec<_> = (0..3).map(|n| sandbox.v2(&format!("g{n}"))).collect();
    let sleepers = sandbox.sleepers(3, &[&dirs[2]]);
    let mut child = command(&dirs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    drop(child.stdout.take());
    let run = finish(child);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(sleepers.ended(TIMEOUT) && dirs.iter().all(|dir| !dir.exists()));

    // Closed from the start.
    let dir = sandbox.v2("closed");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" \"$1\" >&- 2>&-", CGREAP]).arg(&dir);
    assert!(shell.status().expect("sh").success());
    assert!(!dir.exists());
}

#[test]
fn a_full_disk_is_a_failure_but_no_reason_to_stop() {
    require!(v2());
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return skip(test_name!(), "no /dev/full");
    };
    let sandbox = Sandbox::new(test_name!());
    let dirs: Vec<_> = (0..3).map(|n| sandbox.v2(&format!("g{n}"))).collect();
    let run = finish(command(&dirs).stdout(full).stderr(Stdio::piped()).spawn().expect("spawn"));
    assert_eq!(run.status, Some(1), "{run:?}");
    assert!(run.err.starts_with("cgreap: stdout: "), "{run:?}");
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn a_slow_reader_does_not_hold_up_the_reaping() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("last");
    let sleeper = sandbox.sleeper(&[&dir]);
    // More lines than a pipe takes, before the one that matters.
    let targets: Vec<_> = (0..1500).map(|n| missing(&sandbox, n)).chain([dir.clone()]).collect();
    let child = command(["--json"]).args(&targets).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("spawn");
    assert!(sleeper.ended(TIMEOUT));
    eventually("the group is removed", || !dir.exists());
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    let run = finish(child);
    assert_eq!((run.status, &*run.err), (Some(0), ""));
    assert_eq!(objects(&run.out).len(), targets.len());
}

#[test]
fn a_reader_that_never_reads_does_not_outlast_a_signal() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let targets: Vec<_> = (0..1500).map(|n| missing(&sandbox, n)).collect();
    let child = command(["--json"]).args(&targets).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("spawn");
    let out = child.stdout.take();
    await_watch(&child, libc::SIGTERM);
    thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    signal(&child, libc::SIGTERM);
    thread::sleep(Duration::from_millis(100));
    signal(&child, libc::SIGINT);
    let run = finish(child);
    assert_eq!(run.status, Some(143), "the first signal decides: {run:?}");
    drop(out);
}

#[test]
fn errors_that_are_not_read_do_not_hold_up_the_reaping() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("last");
    let sleeper = sandbox.sleeper(&[&dir]);
    // More lines than a pipe takes, before the one that matters.
    let refused = std::env::temp_dir();
    let targets = std::iter::repeat_n(&refused, 2000).chain([&dir]);
    let child = command(targets).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("spawn");
    assert!(sleeper.ended(TIMEOUT));
    eventually("the group is removed", || !dir.exists());
    assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
    let run = finish(child);
    assert_eq!(run.status, Some(2), "{run:?}");
    assert_eq!((run.out.lines().count(), run.err.lines().count()), (1, 2000));
}

/// A terminal whose output is not read: its master and its slave.
#[expect(unsafe_code, reason = "std has no terminals")]
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave, none) = (-1, -1, std::ptr::null_mut());
    // SAFETY: two locals are written to. Both descriptors are new, and nothing else owns them.
    unsafe {
        let opened = libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast());
        assert_eq!(opened, 0, "openpty: {}", std::io::Error::last_os_error());
        let (master, slave) = (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave));
        // A child does not inherit the copies, so that the terminal hangs up when the test ends.
        (master.try_clone().expect("dup"), slave.try_clone().expect("dup"))
    }
}

#[test]
fn a_terminal_that_is_not_read_does_not_hold_up_the_reaping() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    // With and without a progress bar.
    for term in ["xterm", "dumb"] {
        let dir = sandbox.v2("last");
        // Killed after the delay before which no bar is shown.
        let deaf = sandbox.ignores_sigterm(&[&dir]);
        let (master, slave) = terminal();
        let refused = std::env::temp_dir();
        let mut command = command(["--grace", "TERM=400ms"]);
        command.args(std::iter::repeat_n(&refused, 2000).chain([&dir]));
        command.env("TERM", term).stdout(slave.try_clone().expect("dup")).stderr(slave);
        let mut child = command.spawn().expect("spawn");
        // It has copies of the slave.
        drop(command);
        assert!(deaf.ended(TIMEOUT));
        eventually("the group is removed", || !dir.exists());
        assert!(child.try_wait().unwrap().is_none(), "it waits for its reader");
        let mut text = Vec::new();
        // EIO when the slave is closed.
        let _ = File::from(master).read_to_end(&mut text);
        assert_eq!(child.wait().expect("wait").code(), Some(2));
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(text.matches(": refused: ").count(), 2000);
        assert_eq!(text.matches(": removed (").count(), 1);
        assert_eq!(text.contains("[====="), term == "xterm");
    }
}

#[test]
fn a_terminal_that_is_never_read_does_not_outlast_a_signal() {
    let (master, slave) = terminal();
    let refused = std::env::temp_dir();
    let mut command = command(std::iter::repeat_n(&refused, 2000));
    command.env("TERM", "dumb").stdout(Stdio::piped()).stderr(slave);
    let child = command.spawn().expect("spawn");
    await_watch(&child, libc::SIGTERM);
    thread::sleep(Duration::from_millis(100));
    signal(&child, libc::SIGTERM);
    let run = finish(child);
    assert_eq!(run.status, Some(143), "{run:?}");
    drop(master);
}

/// As in the fork storm of its own group that it is to end.
#[test]
fn no_thread_and_no_process_is_needed() {
    require!(v2(), pids_limit());
    let sandbox = Sandbox::new(test_name!());
    let dirs: Vec<_> = (0..3).map(|n| sandbox.v2(&format!("g{n}"))).collect();
    let sleepers = sandbox.sleepers(3, &[&dirs[2]]);
    let full = if v1("pids").is_ok() { sandbox.v1("pids", "full") } else { sandbox.v2_dir() };
    let tasks: u32 = fs::read_to_string(full.join("pids.current")).unwrap().trim().parse().unwrap();
    fs::write(full.join("pids.max"), (tasks + 1).to_string()).expect("pids.max");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&full).arg(CGREAP).args(&dirs);
    let run = finish(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh"));
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert_eq!(run.out.lines().count(), 3, "{run:?}");
    assert!(sleepers.ended(TIMEOUT) && dirs.iter().all(|dir| !dir.exists()));
    assert_eq!(fs::read_to_string(full.join("pids.events")).unwrap().trim(), "max 0", "it has not tried");
}

/// The same, where the limit is that of a user without rights.
#[test]
fn a_user_at_the_process_limit_needs_no_thread() {
    require!(v2());
    if !is_root() {
        return skip(test_name!(), "needs another user to run as");
    }
    const USER: u32 = 65534;
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let sleeper = sandbox.sleeper_of(USER, &[&dir]);
    for delegated in [&sandbox.v2_dir(), &dir, &dir.join("cgroup.procs")] {
        std::os::unix::fs::chown(delegated, Some(USER), None).expect("chown");
    }
    let copy = Copy::new(test_name!());
    let run = finish(copy.spawn_as(&[dir.as_os_str()], |command| before_exec(command, no_more_processes)));
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(sleeper.ended(TIMEOUT) && !dir.exists());
}

#[test]
fn an_ignored_sighup_stays_ignored() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("stuck");
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut shell = Command::new("/bin/sh");
    // As nohup(1) does.
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$1\"", CGREAP]).arg(&dir);
    let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
    await_watch(&child, libc::SIGTERM);
    // If both are pending, the kernel reports SIGHUP first.
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGTERM);
    let run = finish(child);
    assert_eq!(run.status, Some(143), "{run:?}");
    stuck.release();
}

#[test]
fn hundreds_at_once_with_few_descriptors() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dirs: Vec<_> = (0..400).map(|n| sandbox.v2(&format!("g{n}"))).collect();
    let sleepers: Vec<_> = dirs.iter().take(100).map(|dir| sandbox.sleeper(&[dir])).collect();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\"", CGREAP]).args(&dirs);
    let run = finish(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh"));
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert_eq!(run.out.lines().filter(|line| line.contains(": removed (")).count(), 400);
    assert!(dirs.iter().all(|dir| !dir.exists()));
    assert!(sleepers.iter().all(|sleeper| sleeper.ended(TIMEOUT)));
}

/// Spawns that failed for lack of descriptors are tried again, also while no running reap ends.
#[test]
fn a_shortage_beside_a_stuck_target_ends() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (stuck, last) = (sandbox.v2("stuck"), sandbox.v2("last"));
    let held = sandbox.trace_exit(&[&stuck]);
    let _sleeper = sandbox.sleeper(&[&last]);
    // Many that are not there, so that the shortage begins before the last one is spawned.
    let missing = (0..20_000).map(|n| sandbox.v2_dir().join(format!("missing{n}")));
    let dirs = [stuck.clone()].into_iter().chain(missing).chain([last.clone()]);
    let names: String = dirs.map(|dir| format!("{}\n", dir.display())).collect();
    let list = sandbox.scratch().join("list");
    fs::write(&list, names).expect("write");
    let mut command = command(["--quiet", "-"]);
    command.stdin(fs::File::open(&list).expect("open")).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("spawn");
    let pid = child.id() as i32;
    eventually("the first one is killed", || held.parked());
    let limit = limit_descriptors_of(pid, 3);
    thread::sleep(Duration::from_millis(200));
    limit_descriptors_of(pid, limit);
    eventually("the last one is reaped", || !last.exists());
    held.release();
    let run = finish(child);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(!stuck.exists());
}

/// A signal at any moment of a reap that freezes and thaws again and again.
#[test]
fn a_signal_cancels_and_leaves_nothing_frozen() {
    require!(v1("freezer"), v2());
    let sandbox = Sandbox::new(test_name!());
    let v1 = sandbox.v1("freezer", "stuck");
    let v2 = sandbox.v2("stuck");
    // Does not exit after a kill, so that there is always another attempt.
    let stuck = sandbox.trace_exit(&[&v1, &v2]);
    let signals =
        [(libc::SIGINT, 130, "SIGINT"), (libc::SIGTERM, 143, "SIGTERM"), (libc::SIGHUP, 129, "SIGHUP")];
    for attempt in 0..12_u64 {
        let (number, status, name) = signals[attempt as usize % 3];
        let options = ["--method", "freezer", "--min-wait", "1ms", "--max-wait", "2ms"];
        let mut command = command(options);
        command.arg(&v1).arg(&v2).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("spawn");
        await_watch(&child, number);
        // The signal may arrive before the first spawn or during the reap.
        thread::sleep(Duration::from_millis(5 * attempt));
        signal(&child, number);
        let since = Instant::now();
        let run = finish(child);
        assert_eq!((run.status, &*run.out), (Some(status), ""), "{run:?}");
        assert_eq!(run.signal, Some(number), "{run:?}");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        let lines: Vec<_> = run.err.lines().collect();
        assert_eq!(lines.len(), 3, "{run:?}");
        for dir in [&v1, &v2] {
            assert!(lines[..2].contains(&&*format!("cgreap: {}: cancelled", dir.display())), "{run:?}");
        }
        let summary = format!("cgreap: interrupted by {name}: 0 of 2 reaped in ");
        assert!(lines[2].starts_with(&summary), "{run:?}");
        assert_eq!(freezer_state(&v1), "THAWED");
        assert_eq!(fs::read_to_string(v1.join("freezer.self_freezing")).unwrap().trim(), "0");
        if let Ok(freeze) = fs::read_to_string(v2.join("cgroup.freeze")) {
            assert_eq!(freeze.trim(), "0");
        }
    }
    stuck.release();
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("stuck");
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut command = command::<&str>([]);
    before_exec(&mut command, ignore_signals);
    let child = command.arg(&dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    eventually("it kills", || stuck.parked());
    ENDING.iter().for_each(|&number| signal(&child, number));
    stuck.release();
    let run = finish(child);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(!dir.exists());
}

/// As above, with a freeze that is certainly under way: it cannot complete, because a frozen v1 cgroup holds
/// the process.
#[test]
fn a_signal_in_mid_freeze_undoes_the_freeze() {
    require!(v1("freezer"), v2());
    let sandbox = Sandbox::new(test_name!());
    let (target, holder) = (sandbox.v2("target"), sandbox.v1("freezer", "holder"));
    let file = target.join("cgroup.freeze");
    let freeze = || fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
    if freeze() != "0" {
        return skip(test_name!(), "no cgroup.freeze (Linux 5.2)");
    }
    let sleeper = sandbox.sleeper(&[&target, &holder]);
    freeze_v1(&holder);
    let mut command = command(["--method", "freezer"]);
    command.arg(&target).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("spawn");
    eventually("the freeze has begun", || freeze() == "1");
    signal(&child, libc::SIGINT);
    let run = finish(child);
    assert_eq!(run.status, Some(130), "{run:?}");
    assert_eq!(freeze(), "0");
    assert_eq!(freezer_state(&holder), "FROZEN", "which is not its own");
    thaw_v1(&holder);
    drop(sleeper);
}

/// Directories of the demo that ran as process `pid`.
fn demo_dirs(pid: u32) -> Vec<PathBuf> {
    let roots = [v2_root(), v1_root("freezer"), v1_root("pids")];
    let roots = roots.into_iter().flatten();
    roots.map(|root| root.join(format!("cgroup-reaper-demo-{pid}"))).filter(|dir| dir.exists()).collect()
}

/// Processes of that demo, itself excluded, by the directories in their arguments.
fn demo_processes(pid: u32) -> usize {
    let ours = format!("cgroup-reaper-demo-{pid}");
    let arguments = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(arguments);
    processes.filter(|line| String::from_utf8_lossy(line).contains(&ours)).count()
}

fn demo() -> Child {
    command(["demo"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")
}

#[test]
fn the_demo_reaps_all_and_leaves_nothing() {
    require!(v2());
    let child = demo();
    let pid = child.id();
    let run = finish(child);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(demo_dirs(pid).is_empty(), "{:?}", demo_dirs(pid));
    assert_eq!(demo_processes(pid), 0);
    let mut lines = run.out.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("demo: ") && first.ends_with(" processes; reaping all at once"), "{first}");
    assert!(lines.next().unwrap().starts_with("WHAT "), "{}", run.out);
    let last = lines.next_back().unwrap();
    // After the rows, why some name pidfds.
    let rows: Vec<_> = lines.take_while(|line| !line.starts_with("pidfd: ")).collect();
    assert!(first.starts_with(&format!("demo: {} targets, ", rows.len())), "{first}");
    assert!(rows.len() >= 5, "{}", run.out);
    assert!(rows.iter().all(|row| row.contains(" removed ")), "{}", run.out);
    let summary = format!("demo: {} of {} reaped in ", rows.len(), rows.len());
    assert!(last.starts_with(&summary) && last.ends_with("; nothing is left"), "{last}");
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    require!(v2());
    for pause in [0, 60] {
        let child = demo();
        let pid = child.id();
        eventually("the demo has begun", || !demo_dirs(pid).is_empty());
        thread::sleep(Duration::from_millis(pause));
        signal(&child, libc::SIGINT);
        let run = finish(child);
        assert_eq!(run.signal, Some(libc::SIGINT), "{run:?}");
        assert!(demo_dirs(pid).is_empty(), "{:?}", demo_dirs(pid));
        eventually("no process is left", || demo_processes(pid) == 0);
    }
}

/// The demo watches for signals, which it therefore blocks.
#[test]
fn a_process_of_the_demo_does_not_inherit_that_signals_are_blocked() {
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().expect("seconds");
    let until = ((seconds + LIMIT.as_secs_f64()) * 1e3) as u64;
    let mut command = command(["__demo-process", "sleep", "--until", &until.to_string()]);
    before_exec(command.stdout(Stdio::piped()), block_all_signals);
    let mut child = command.spawn().expect("spawn");
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("it is ready");
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGTERM));
}

#[test]
fn a_killed_demo_leaves_nothing() {
    require!(v2());
    let mut child = demo();
    let pid = child.id();
    eventually("the demo is under way", || demo_processes(pid) > 4);
    child.kill().expect("kill");
    child.wait().expect("wait");
    eventually("its cleaner has removed everything", || {
        demo_dirs(pid).is_empty() && demo_processes(pid) == 0
    });
}

#[test]
fn a_demo_without_rights_says_so_in_one_line() {
    require!(v2());
    let copy = Copy::new(test_name!());
    let run = finish(copy.spawn(&["demo".as_ref()]));
    assert_eq!((run.status, &*run.out), (Some(1), ""), "{run:?}");
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
    assert!(run.err.starts_with("cgreap: demo: no right to make cgroups"), "{run:?}");
    assert!(run.err.contains("root") && run.err.contains("Delegate=yes cgreap demo"), "{run:?}");
}

#[test]
fn quiet_says_nothing_of_what_was_reaped() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let sleeper = sandbox.sleeper(&[&dir]);
    let foreign = std::env::temp_dir();
    let quiet = run([OsStr::new("-q"), dir.as_os_str(), foreign.as_os_str()]);
    assert_eq!((quiet.status, &*quiet.out), (Some(2), ""), "{quiet:?}");
    assert_eq!(quiet.err.lines().count(), 1, "{quiet:?}");
    assert!(sleeper.ended(TIMEOUT) && !dir.exists());
}

#[test]
fn a_target_that_must_exist_and_does_not_is_a_failure() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (dir, gone) = (sandbox.v2("x"), missing(&sandbox, 0));
    let plain = run([OsStr::new("--must-exist"), dir.as_os_str(), gone.as_os_str()]);
    assert_eq!(plain.status, Some(1), "{plain:?}");
    assert_eq!(plain.err, format!("cgreap: {}: no such cgroup\n", gone.display()));
    assert!(plain.out.contains(": removed (") && !dir.exists(), "{plain:?}");
    let json = run([OsStr::new("--must-exist"), OsStr::new("--json"), gone.as_os_str()]);
    assert_eq!(objects(&json.out)[&text(&gone)]["error"]["kind"], "missing");
}

#[test]
fn when_empty_sends_no_signal() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v2("x");
    let sleeper = sandbox.sleeper(&[&dir]);
    let late = run([OsStr::new("--when-empty"), "--deadline".as_ref(), "200ms".as_ref(), dir.as_os_str()]);
    assert_eq!(late.status, Some(1), "{late:?}");
    assert!(sleeper.alive());
    let child = command([OsStr::new("--when-empty"), dir.as_os_str()]);
    let child = { child }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    await_watch(&child, libc::SIGTERM);
    sleeper.signal(libc::SIGKILL);
    let run = finish(child);
    assert_eq!((run.status, &*run.err), (Some(0), ""), "{run:?}");
    assert!(!dir.exists());
}

/// The time of `--linger` is ended like that of `--grace`.
#[test]
fn a_second_interrupt_ends_the_grace_and_a_third_all() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    for option in ["--grace=TERM=10m", "--linger=10m"] {
        let dir = sandbox.v2(&option.replace(|c: char| !c.is_alphabetic(), ""));
        let deaf = sandbox.ignores_sigterm(&[&dir]);
        let start = || {
            let mut command = command([OsStr::new(option), dir.as_os_str()]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
            await_watch(&child, libc::SIGINT);
            thread::sleep(Duration::from_millis(200));
            signal(&child, libc::SIGINT);
            thread::sleep(Duration::from_millis(200));
            assert!(child.try_wait().expect("wait").is_none(), "{option}: the first one lets it go on");
            child
        };
        // SIGTERM does not wait.
        let child = start();
        signal(&child, libc::SIGTERM);
        let run = finish(child);
        assert_eq!(run.status, Some(130), "{run:?}");
        assert!(deaf.alive(), "{option}");
        let child = start();
        signal(&child, libc::SIGINT);
        let run = finish(child);
        assert_eq!(run.status, Some(130), "{run:?}");
        let lines: Vec<_> = run.err.lines().collect();
        assert_eq!(lines[0], "cgreap: waiting for 1 target; Ctrl-C again kills now");
        assert!(lines[1].starts_with("cgreap: interrupted by SIGINT: 1 of 1 reaped in "), "{run:?}");
        assert!(deaf.ended(TIMEOUT) && !dir.exists());
    }
}
