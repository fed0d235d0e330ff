//! `cgreap run` as built, on real cgroups.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "run/hindered.rs"]
mod hindered;
#[path = "run/hostile.rs"]
mod hostile;
#[path = "run/interactive.rs"]
mod interactive;
#[path = "run/keys.rs"]
mod keys;
#[path = "run/own_cgroup.rs"]
mod own_cgroup;
#[path = "run/place.rs"]
mod place;
#[path = "run/refused.rs"]
mod refused;
#[path = "run/reports.rs"]
mod reports;
#[path = "run/sent.rs"]
mod sent;
#[path = "run/terminal.rs"]
mod terminal;
#[path = "run/usage.rs"]
mod usage;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use place::*;
use serde_json::Value;
use terminal::{Terminal, tmux};

fn uptime_ms() -> u64 {
    let text = fs::read_to_string("/proc/uptime").expect("/proc/uptime");
    let seconds: f64 = text.split_whitespace().next().expect("a field").parse().expect("a number");
    (seconds * 1e3) as u64
}

/// The dozen hostile commands, for cgroups of this name.
fn dozen(place: &Place<'_>, name: &str) -> Vec<hostile::Hostile> {
    let bounded = place.kind != Kind::User && v1("pids").is_ok();
    let storm: (&[&str], _) =
        if bounded { (&["--set", "pids.max=60"], "") } else { (&[], "--descendants 40") };
    let group = place.parent.join(name);
    hostile::dozen(&place.program(), &group, place.kind != Kind::V1, storm, uptime_ms() + 60_000)
}

/// A name that begins like all that the tests make.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("cgroup-reaper-run-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The cgroup of this name in the v1 hierarchy of pids, where `--set pids.max` makes one.
fn in_pids(name: &str) -> Option<PathBuf> {
    Some(v1_root("pids")?.join(name))
}

#[track_caller]
fn hostile_commands(kind: Kind) {
    let sandbox = Sandbox::new("hostile_commands");
    let place = Place::new(&sandbox, kind);
    let name = unique_name();
    for hostile in dozen(&place, &name) {
        let options: Vec<_> = hostile.options.iter().map(String::as_str).chain(["--name", &name]).collect();
        let run = place.sh(&options, &hostile.script);
        assert_eq!(run.status, Some(hostile.status), "{kind:?}, {}: {run:?}", hostile.name);
        let said = run.err.contains("that sh left behind: ");
        assert_eq!(said, hostile.leaves, "{kind:?}, {}: {run:?}", hostile.name);
        place.assert_nothing_left(hostile.name);
        assert!(!in_pids(&name).is_some_and(|dir| dir.exists()), "{}", hostile.name);
    }
}

#[test]
fn hostile_commands_in_v2() {
    require!(v2());
    hostile_commands(Kind::V2);
}

#[test]
fn hostile_commands_in_v1() {
    require!(v1("freezer"));
    hostile_commands(Kind::V1);
}

#[test]
fn hostile_commands_of_a_user() {
    require!(v2(), namespaces());
    hostile_commands(Kind::User);
}

/// A hundred, or what `CGROUP_REAPER_KILLS` says, for machines that are slow.
fn kills() -> usize {
    std::env::var("CGROUP_REAPER_KILLS").map_or(100, |kills| kills.parse().expect("CGROUP_REAPER_KILLS"))
}

/// SIGKILL to cgreap, at a random time.
#[track_caller]
fn killed_at_random(kind: Kind) {
    let sandbox = Sandbox::new("killed_at_random");
    let place = Place::new(&sandbox, kind);
    let mut dice = Dice::seeded();
    let since = Instant::now();
    assert_eq!(place.run(&NO_OPTIONS, &["true"]).status, Some(0));
    let whole_run = since.elapsed().as_micros() as u64;
    for round in 0..kills() {
        let name = unique_name();
        let dozen = dozen(&place, &name);
        let hostile = &dozen[round % dozen.len()];
        let options: Vec<_> = hostile.options.iter().map(String::as_str).chain(["--name", &name]).collect();
        let mut command = place.command(&options, &["sh", "-c", &hostile.script]);
        let mut child = start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        // Most of them within its start, some within its end.
        let micros = dice.below(if round % 4 == 0 { 300_000 + whole_run } else { whole_run });
        thread::sleep(Duration::from_micros(micros));
        let _ = child.kill();
        child.wait().expect("wait");
        let what = format!("{kind:?}, {} killed after {micros} us", hostile.name);
        let pids = in_pids(&name);
        let gone = || place.living().is_empty() && place.directories().is_empty();
        if !wait_until(TIMEOUT, || gone() && !pids.as_ref().is_some_and(|dir| dir.exists())) {
            place.assert_nothing_left(&what);
            panic!("{what}: the cgroup in pids is left");
        }
    }
}

#[test]
fn a_killed_cgreap_leaves_nothing_in_v2() {
    require!(v2());
    killed_at_random(Kind::V2);
}

#[test]
fn a_killed_cgreap_leaves_nothing_in_v1() {
    require!(v1("freezer"));
    killed_at_random(Kind::V1);
}

#[test]
fn a_killed_cgreap_of_a_user_leaves_nothing() {
    require!(v2(), namespaces());
    killed_at_random(Kind::User);
}

const NO_OPTIONS: [&str; 0] = [];

#[test]
fn the_exit_status_is_the_commands() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    for (script, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        // The runtime of Rust ignores the first, and has a handler for the second.
        ("kill -PIPE $$", 141),
        ("ulimit -c 0; kill -SEGV $$", 139),
        ("kill -IO $$", 128 + libc::SIGIO),
        // A status like that of a signal.
        ("exit 143", 143),
        // A real-time signal.
        ("kill -40 $$", 168),
    ] {
        let run = place.sh(&NO_OPTIONS, script);
        assert_eq!((run.status, &*run.out, &*run.err), (Some(status), "", ""), "{script}");
        assert_eq!(run.signal, script.contains("kill").then_some(status - 128), "{script}");
    }
    let run = place.run(&NO_OPTIONS, &["/nonexistent/program", "x"]);
    assert_eq!(run.status, Some(127));
    assert!(run.err.starts_with("cgreap: run: cannot execute /nonexistent/program: No such file"), "{run:?}");
    assert_eq!(place.run(&NO_OPTIONS, &["cgroup-reaper-no-such-program"]).status, Some(127));
    let run = place.run(&NO_OPTIONS, &["/etc/passwd"]);
    assert_eq!(run.status, Some(126));
    assert!(run.err.contains("Permission denied"), "{run:?}");
    place.assert_nothing_left("exit statuses");
}

#[test]
fn what_was_left_is_said_unless_quiet() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    // Named once they are no copies of the shell any more.
    let script = "sh -c 'exec setsid sleep 300' & a=$!; sh -c 'exec sleep 301' & b=$!; \
                  until grep -q sleep /proc/$a/comm && grep -q sleep /proc/$b/comm; do sleep 0.05; done; exit 3";
    let run = place.sh(&NO_OPTIONS, script);
    assert_eq!((run.status, &*run.out), (Some(3), ""));
    let said = run.err.strip_prefix("cgreap: killed 2 processes that sh left behind: sleep (pid ");
    let said = said.unwrap_or_else(|| panic!("{run:?}"));
    assert!(said.contains("), sleep (pid ") && said.ends_with(")\n"), "{run:?}");
    assert_eq!(place.sh(&["-q"], script).err, "");
    place.assert_nothing_left("a script");
}

#[test]
fn what_ends_in_time_was_not_left() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let since = Instant::now();
    let run = place.sh(&["--linger", "60s"], "(sleep 0.5; echo late) & exit 3");
    assert_eq!((run.status, &*run.out, &*run.err), (Some(3), "late\n", ""));
    // It was not waited for without need.
    assert!(since.elapsed() < Duration::from_secs(50));
    let run = place.sh(&["--linger", "100ms"], "sh -c 'exec sleep 300' & sleep 0.1; exit 4");
    assert_eq!(run.status, Some(4));
    assert!(run.err.contains("killed 1 process that sh left behind: "), "{run:?}");
    place.assert_nothing_left("lingering");
}

/// What a process has inherited, as the shell shows it.
const INHERITED: &str = "ls -l /proc/self/fd | sed 's/.* \\([0-9][0-9]*\\)\\( -> .*\\)\\{0,1\\}$/\\1\\2/' | grep -v '/proc/'; ulimit -a; pwd; env";

#[test]
fn everything_else_is_the_commands_own() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let plainly = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        place.set(&mut command);
        command
    };
    let start_in_job = |command: &mut Command| {
        before_exec(command, set_signals);
        start(command.process_group(0))
    };
    let of_shell = ["sh", "-c", INHERITED];
    let lines = |run: Run| {
        let lines = run.out.lines().filter(|line| !line.contains("pipe:[")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let plain = lines(output(start_in_job(&mut plainly(&of_shell))));
    assert_eq!(lines(output(start_in_job(&mut place.command(&NO_OPTIONS, &of_shell)))), plain);

    let of_status = ["cat", "/proc/self/status"];
    let plain = output(start_in_job(&mut plainly(&of_status)));
    let child = start_in_job(&mut place.command(&NO_OPTIONS, &of_status));
    let pid = u64::from(child.id());
    let run = output(child);
    let number = |run: &Run, key: &str, radix| {
        let line = run.out.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        u64::from_str_radix(line.trim(), radix).expect(key)
    };
    for key in ["SigBlk:", "SigIgn:", "SigCgt:", "Umask:"] {
        // glibc has signals of its own from 32 on, which posix_spawn(3) changes.
        let standard = |run| number(run, key, 16) & ((1 << 31) - 1);
        assert_eq!(standard(&run), standard(&plain), "{key}");
    }
    assert_eq!(number(&run, "SigBlk:", 16), 1 << (libc::SIGUSR1 - 1));
    assert_eq!(number(&run, "SigIgn:", 16) & 1, 1, "SIGHUP");
    assert_eq!(number(&run, "NSpgid:", 10), pid, "the process group");
}

/// Ignores SIGHUP, blocks SIGUSR1.
#[expect(unsafe_code, reason = "std has no signals")]
fn set_signals() {
    // SAFETY: a local, which outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

#[test]
fn input_and_output_pass_through() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let mut command = place.command(&NO_OPTIONS, &["sh", "-c", "cat; echo error >&2"]);
    let mut child = start(command.stdin(Stdio::piped()));
    child.stdin.take().expect("piped").write_all(b"a\0b").expect("write");
    let run = output(child);
    assert_eq!((run.status, &*run.out, &*run.err), (Some(0), "a\0b", "error\n"));
    // The words as they are, what looks like an option included.
    let run = place.run(&NO_OPTIONS, &["printf", "<%s>", "-q", "--", "", "a b", "--help"]);
    assert_eq!(run.out, "<-q><--><><a b><--help>");
    // A reader that goes away ends the command as usual.
    let run = place.sh(&NO_OPTIONS, "yes | head -n 1");
    assert_eq!((run.status, &*run.out, &*run.err), (Some(0), "y\n", ""));
}

#[test]
fn a_timeout_is_124_whatever_the_command_makes_of_it() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    for script in ["sleep 300", "trap 'exit 5' TERM; sleep 300 & wait", "exec sleep 300"] {
        // On a slow machine the time can be over when the shell has begun to start the program, which is left then.
        let is_quiet = ["200ms", "2s", "20s"].into_iter().any(|timeout| {
            let run = place.sh(&["--timeout", timeout], script);
            assert_eq!(run.status, Some(124), "{script}: {}", run.err);
            run.err.is_empty()
        });
        assert!(is_quiet, "{script}");
    }
    // On a slow machine the time can be over before the shell has set its trap.
    let longer_each_time = |grace: &str, script: &str, out: &str| {
        let elapsed = [200, 2_000, 20_000].map(Duration::from_millis).into_iter().find_map(|timeout| {
            let since = Instant::now();
            let options = ["--timeout", &format!("{}ms", timeout.as_millis()), "--grace", grace];
            let run = place.sh(&options, script);
            assert_eq!((run.status, &*run.err), (Some(124), ""), "{script}");
            (run.out == out).then(|| since.elapsed() - timeout)
        });
        elapsed.unwrap_or_else(|| panic!("{script}: no {out}"))
    };
    longer_each_time("USR1=60s", "trap 'echo asked; exit 0' USR1; sleep 300 & wait", "asked\n");
    let deaf = "trap '' TERM; echo deaf; (setsid sleep 300 &); while :; do sleep 1; done";
    assert!(longer_each_time("TERM=300ms", deaf, "deaf\n") >= Duration::from_millis(300));
    // One that ends in time is not ended.
    assert_eq!(place.sh(&["--timeout", "60s"], "exit 3").status, Some(3));
    place.assert_nothing_left("timeouts");
}

/// A main process that has become another user's, and is moved out of the cgroup, can be neither reaped nor killed.
#[test]
fn a_main_process_that_lives_on_is_125() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::User);
    let (elsewhere, program) = (sandbox.v2("elsewhere"), sandbox.scratch().join("setpriv"));
    let mut copied = Command::new("sh");
    copied.args(["-c", "cp $(command -v setpriv) $1 && chmod u+s $1", "sh"]).arg(&program);
    if !copied.status().expect("sh").success() {
        return skip(test_name!(), "no setpriv");
    }
    // It may have no such option, or be on a filesystem that is mounted nosuid.
    let as_root = [text(&program), "--reuid=0", "--clear-groups"];
    let id = place.run(&NO_OPTIONS, &[&as_root[..], &["id", "-u"]].concat());
    if id.out != "0\n" {
        return skip(test_name!(), "setpriv does not become root");
    }
    let options = ["--grace", "TERM=100ms", "--deadline", "1s", "--report", "-"];
    // Without the pipes, which would not end before it.
    let script = "exec \"$@\" > /dev/null 2>&1";
    let become_root = [&["sh", "-c", script, "sh"], &as_root[..], &["sleep", "300"]].concat();
    let child = start(&mut place.command(&options, &become_root));
    let sleeper = || place.living().iter().find(|line| line.ends_with(": sleep 300 ")).cloned();
    eventually("it has become root's", || sleeper().is_some());
    let pid = sleeper().and_then(|line| line.split(':').next().map(str::to_owned)).expect("a pid");
    fs::write(elsewhere.join("cgroup.procs"), &pid).expect("move");
    signal(&child, libc::SIGTERM);
    let run = output(child);
    let lives = sleeper().is_some();
    kill(pid.parse().expect("a pid"), libc::SIGKILL).expect("kill");
    assert!(lives, "{run:?}");
    assert_eq!(run.status, Some(125), "{run:?}");
    assert!(run.err.contains("cgreap: run: sh has left its cgroup, and does not exit\n"), "{run:?}");
    assert!(run.err.contains("\"outcome\":\"failed\""), "{run:?}");
    eventually("it is dead", || place.living().is_empty());
    place.assert_nothing_left("the main process");
}

/// Returns when the command has written its first line.
#[track_caller]
fn await_line(child: &mut std::process::Child) {
    let stdout = child.stdout.as_mut().expect("piped");
    let mut byte = [0];
    while std::io::Read::read(stdout, &mut byte).expect("read") == 1 && byte != *b"\n" {}
}

#[test]
fn a_signal_ends_the_command_and_a_second_one_kills() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        let script = "trap 'echo asked; exit 0' TERM; (exec setsid sleep 300 &); sleep 300 & sleep 0.5; echo ready; wait";
        let mut command = place.command(&NO_OPTIONS, &["sh", "-c", script]);
        // A shell without job control ignores some of them in what it starts in the background.
        before_exec(&mut command, default_signals);
        let mut child = start(&mut command);
        await_line(&mut child);
        signal(&child, number);
        let run = output(child);
        assert_eq!((run.status, &*run.out, &*run.err), (Some(128 + number), "asked\n", ""), "{number}");
        assert_eq!(run.signal, Some(number));
        place.assert_nothing_left("told to end");
    }
    let deaf = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let mut child = start(&mut place.command(&["--grace", "TERM=10m"], &["sh", "-c", deaf]));
    await_line(&mut child);
    let since = Instant::now();
    signal(&child, libc::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("wait").is_none(), "it has 10 minutes");
    signal(&child, libc::SIGTERM);
    assert_eq!(output(child).status, Some(143));
    assert!(since.elapsed() < Duration::from_secs(60));
    place.assert_nothing_left("killed at once");
    // A loop of a shell goes on if an interrupt during the grace of a timeout is not to be seen.
    let told = "trap 'echo told' TERM; while :; do sleep 1; done";
    let mut command = place.command(&["--timeout", "300ms", "--grace", "TERM=10m"], &["sh", "-c", told]);
    before_exec(&mut command, default_signals);
    let mut child = start(&mut command);
    await_line(&mut child);
    signal(&child, libc::SIGINT);
    assert_eq!(output(child).signal, Some(libc::SIGINT));
    place.assert_nothing_left("interrupted after a timeout");
}

#[expect(unsafe_code, reason = "std has no signals")]
fn default_signals() {
    for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

#[expect(unsafe_code, reason = "std has no signals")]
fn ignore_interrupt_and_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

#[test]
fn an_ignored_interrupt_stays_ignored() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let script = "echo ready; sleep 0.5; grep SigIgn /proc/self/status; exit 3";
    let mut command = place.command(&NO_OPTIONS, &["sh", "-c", script]);
    before_exec(&mut command, ignore_interrupt_and_children);
    let mut child = start(&mut command);
    await_line(&mut child);
    signal(&child, libc::SIGINT);
    let run = output(child);
    // Where SIGCHLD is ignored the kernel keeps no exit status, and it is found all the same.
    assert_eq!(run.status, Some(3), "{run:?}");
    let mask = run.out.trim().rsplit('\t').next().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    assert_eq!(mask.expect("SigIgn") >> (libc::SIGINT - 1) & 1, 1, "{run:?}");
}

/// As before Linux 5.7, and in containers whose filter of system calls does not know clone3(2).
fn without_clone3() {
    refuse_call(libc::SYS_clone3, libc::ENOSYS);
}

#[test]
fn where_the_kernel_makes_no_process_inside_it_joins() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let mut command =
        place.command(&NO_OPTIONS, &["sh", "-c", "grep ^0: /proc/self/cgroup; sleep 300 & exit 3"]);
    before_exec(&mut command, without_clone3);
    let run = output(start(&mut command));
    assert_eq!(run.status, Some(3), "{run:?}");
    assert!(run.out.contains("/cgreap-"), "{run:?}");
    assert!(run.err.contains("killed 1 process that sh left behind"), "{run:?}");
    place.assert_nothing_left("without clone3");
}

/// The guard of a cgreap, which may be executed later than the command.
#[track_caller]
fn guard_of(cgreap: &std::process::Child) -> u32 {
    let is_guard = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("__run-guard"))
    };
    let mut guard = None;
    eventually("a guard", || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", cgreap.id()));
        guard =
            children.expect("children").split_whitespace().find(is_guard).and_then(|pid| pid.parse().ok());
        guard.is_some()
    });
    guard.expect("just found")
}

#[test]
fn the_guard_shares_nothing_with_the_command() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    // A descriptor that only the shell has a number for.
    let line = format!(
        "exec 7>/dev/null; exec {} run --parent {} -- sh -c 'echo ready; exec sleep 300'",
        place.program().display(),
        place.parent.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env(MARK, &place.mark).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(&mut command);
    await_line(&mut child);
    let guard = guard_of(&child);
    let link = |name: &str| fs::read_link(format!("/proc/{guard}/{name}")).expect(name);
    let is_its_own = |entry: std::io::Result<fs::DirEntry>| {
        let target = entry.and_then(|entry| fs::read_link(entry.path())).unwrap_or_default();
        let target = target.to_string_lossy();
        target.starts_with("socket:") || target.contains("pidfd")
    };
    eventually("its descriptors are its own", || {
        fs::read_dir(format!("/proc/{guard}/fd")).expect("fd").all(is_its_own)
    });
    assert_eq!(link("cwd"), Path::new("/"));
    let stat = fs::read_to_string(format!("/proc/{guard}/stat")).expect("stat");
    let fields: Vec<_> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    assert_eq!(fields[3], guard.to_string(), "its session");
    let groups = fs::read_to_string(format!("/proc/{guard}/cgroup")).expect("cgroup");
    assert!(!groups.contains("cgreap-"), "{groups}");
    // Killed, it leaves the run as it is.
    kill(guard as i32, libc::SIGKILL).expect("kill");
    eventually("its end was seen", || !Path::new(&format!("/proc/{guard}")).exists());
    thread::sleep(Duration::from_millis(100));
    signal(&child, libc::SIGTERM);
    let run = output(child);
    assert_eq!(run.status, Some(143));
    let warning = "cgreap: run: the guard has ended: a SIGKILL of cgreap would leave the command alive\n";
    assert_eq!(run.err, warning);
    place.assert_nothing_left("without a guard");
}

#[test]
fn a_pipe_ends_with_the_command() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let line = format!(
        "{} run -q --parent {} -- sh -c 'echo out; setsid sleep 300 & exit 3' | cat; echo end",
        place.program().display(),
        place.parent.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env(MARK, &place.mark).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = output(start(&mut command));
    assert_eq!((&*run.out, &*run.err), ("out\nend\n", ""));
}

#[test]
fn without_a_guard_a_killed_cgreap_leaves_the_command() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let mut child = start(&mut place.command(&["--no-guard"], &["sh", "-c", "echo ready; exec sleep 300"]));
    await_line(&mut child);
    child.kill().expect("kill");
    child.wait().expect("wait");
    thread::sleep(Duration::from_millis(300));
    // As documented. The sandbox ends it.
    assert_eq!(place.living().len(), 1);
}

/// A command that leaves a process, whose cgreap cannot reap: the guard does once cgreap has exited. `disable` is part of the
/// command's script, in which `$PPID` is cgreap.
#[track_caller]
fn the_guard_reaps_after(place: &Place<'_>, disable: &str, refusal: &str) {
    let script = format!("sleep 300 >/dev/null 2>&1 & {disable} && exit 3");
    let run = place.sh(&["--name", "left"], &script);
    assert_eq!(run.status, Some(125), "{run:?}");
    assert!(
        run.err.contains("not all that sh started could be ended") && run.err.contains(refusal),
        "{run:?}"
    );
    // The guard itself ends as well.
    if !wait_until(TIMEOUT, || place.living().is_empty() && place.directories().is_empty()) {
        place.assert_nothing_left(disable);
    }
    assert!(run.err.contains("the guard (pid "), "{run:?}");
}

#[test]
fn a_command_that_moves_cgreap_into_its_cgroup_is_reaped_by_the_guard() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let procs = place.parent.join("left/cgroup.procs");
    the_guard_reaps_after(&place, &format!("echo $PPID > {}", procs.display()), "own cgroup");
}

#[test]
fn without_descriptors_the_guard_reaps() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    // cgreap has descriptor 3 open, and gets no other.
    let ready = sandbox.scratch().join("ready");
    let disable = format!(
        "echo $PPID > {0}.new && mv {0}.new {0} && while [ -e {0} ]; do sleep 0.05; done",
        ready.display()
    );
    let limiter = thread::spawn({
        let ready = ready.clone();
        move || {
            let mut pid = None;
            eventually("the command runs", || {
                pid = fs::read_to_string(&ready).ok().and_then(|pid| pid.trim().parse().ok());
                pid.is_some()
            });
            limit_descriptors_of(pid.expect("just read"), 4);
            fs::remove_file(&ready).expect("remove");
        }
    });
    the_guard_reaps_after(&place, &disable, "Too many open files");
    limiter.join().expect("limiter");
}

/// One process besides cgreap itself.
#[expect(unsafe_code, reason = "std has no limits")]
fn one_more_process() {
    // SAFETY: the structure outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &libc::rlimit { rlim_cur: 2, rlim_max: 2 }) };
}

#[test]
fn with_one_process_to_be_had_it_is_the_command() {
    require!(v2(), namespaces());
    // The limit counts all processes of the user, in other pid namespaces too.
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let user = u32::try_from(Dice::seeded().below(1 << 30)).expect("below 2^30") + (1 << 30);
        let place = Place::new(&sandbox, Kind::User).of_user(user);
        let mut command = place.command(&NO_OPTIONS, &["sh", "-c", "exit 3"]);
        before_exec(&mut command, one_more_process);
        let run = output(start(&mut command));
        assert_eq!(run.status, Some(3), "{run:?}");
        assert!(run.err.starts_with("cgreap: run: no guard could be started"), "{run:?}");
        assert_eq!(run.err.lines().count(), 1, "{run:?}");
        place.assert_nothing_left("short of processes");
    });
}

#[test]
fn no_right_is_125_with_a_hint() {
    require!(v2(), namespaces());
    let sandbox = Sandbox::new(test_name!());
    let user = Place::new(&sandbox, Kind::User);
    let run = output(start(&mut user.without_parent(&["--parent", text(&sandbox.v2("roots"))], &["true"])));
    assert_eq!(run.status, Some(125), "{run:?}");
    assert!(
        run.err.contains("no right") && run.err.contains("systemd-run --user --scope -p Delegate=yes"),
        "{run:?}"
    );
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
    // Below the own cgroup, which was delegated, it needs no option.
    let run = output(start(
        &mut user.without_parent(&["-q"], &["sh", "-c", "grep ^0: /proc/self/cgroup; sleep 300 & exit 3"]),
    ));
    assert_eq!(run.status, Some(3), "{run:?}");
    assert!(run.out.contains("/user/cgreap-"), "{run:?}");
    user.assert_nothing_left("the own cgroup");
}

#[test]
fn without_a_parent_it_is_in_the_own_cgroup() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let mut command = place.without_parent(&["--name", "own"], &["grep", "^0:", "/proc/self/cgroup"]);
    become_user_in(&mut command, &place.parent, 0);
    let run = output(start(&mut command));
    assert_eq!((run.status, &*run.err), (Some(0), ""));
    assert!(run.out.trim_end().ends_with("/parent/own"), "{run:?}");
    place.assert_nothing_left("the own cgroup");
}

#[test]
fn the_cgroup_of_a_v1_setting_is_in_the_own_cgroup_too() {
    require!(v2(), v1("pids"));
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let own = sandbox.v1("pids", "own");
    let options = ["--name", "below", "--set", "pids.max=10"];
    let mut command = place.command(&options, &["grep", ":pids:", "/proc/self/cgroup"]);
    become_user_in(&mut command, &own, 0);
    let run = output(start(&mut command));
    assert_eq!((run.status, &*run.err), (Some(0), ""));
    assert!(run.out.trim_end().ends_with("/own/below"), "{run:?}");
    assert!(!own.join("below").exists());
    place.assert_nothing_left("the own v1 cgroup");
}

#[test]
fn paths_need_not_be_utf8() {
    require!(v2(), namespaces());
    // The mounts are in the mount namespace of this test alone.
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let place = Place::new(&sandbox, Kind::V2);
        // One that has nothing to do with cgroups.
        let point = sandbox.scratch().join(OsStr::from_bytes(b"\xff"));
        fs::create_dir(&point).expect("mkdir");
        mount(Path::new("none"), &point, "tmpfs", 0, "");
        let run = place.run(&NO_OPTIONS, &["true"]);
        unmount(&point);
        assert_eq!((run.status, &*run.err), (Some(0), ""), "a mount point: {run:?}");
        // The own cgroup.
        let own = place.parent.join(OsStr::from_bytes(b"own-\xff"));
        fs::create_dir(&own).expect("mkdir");
        let mut command = place.without_parent(
            &["--name", "below"],
            &["grep", "-qa", "^0:.*/own-.*/below$", "/proc/self/cgroup"],
        );
        // In a UTF-8 locale a dot of grep is no other byte.
        command.env("LC_ALL", "C");
        become_user_in(&mut command, &own, 0);
        let run = output(start(&mut command));
        assert_eq!((run.status, &*run.err), (Some(0), ""), "the own cgroup: {run:?}");
        fs::remove_dir(&own).expect("rmdir");
        place.assert_nothing_left("bytes");
    });
}

fn text(path: &Path) -> &'static str {
    path.to_str().expect("UTF-8").to_owned().leak()
}

#[test]
fn a_name_that_is_taken_is_left_alone() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let taken = place.parent.join("taken");
    fs::create_dir(&taken).expect("mkdir");
    let canary = sandbox.canary(&[&taken]);
    let run = place.run(&["--name", "taken"], &["sh", "-c", "echo started"]);
    assert_eq!((run.status, &*run.out), (Some(125), ""));
    assert!(run.err.contains("exists already"), "{run:?}");
    // The guard of a cgreap that was killed leaves it alone as well.
    let mut child = start(&mut place.command(&["--name", "taken"], &["true"]));
    let _ = child.kill();
    child.wait().expect("wait");
    thread::sleep(Duration::from_millis(300));
    canary.assert_alive();
    assert!(taken.exists());
}

#[test]
fn settings_are_written_before_the_start() {
    require!(v1("pids"), v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let name = unique_name();
    let pids = in_pids(&name).expect("v1 pids");
    let script = format!(
        "cat {0}/pids.max; grep -c . {0}/cgroup.procs; cat {1}/{name}/cgroup.max.depth",
        pids.display(),
        place.parent.display()
    );
    let options = ["--name", &name, "--set", "pids.max=77", "--set", "cgroup.max.depth=5"];
    let run = place.sh(&options, &script);
    // The shell, and grep.
    assert_eq!((run.status, &*run.out, &*run.err), (Some(0), "77\n2\n5\n", ""));
    assert!(!pids.exists());
    for (setting, message) in [
        ("pids.max=many", "pids.max"),
        ("pids.maximum=5", "pids.maximum: No such file"),
        ("nothing.max=5", "the controller nothing is missing"),
        ("cgroup.max.depth=x", "cgroup.max.depth"),
    ] {
        let run = place.run(&["--name", &name, "--set", setting], &["sh", "-c", "echo started"]);
        assert_eq!((run.status, &*run.out), (Some(125), ""), "{setting}: {run:?}");
        let named = run.err.contains(message) || run.err.contains("does not give the controller nothing");
        assert!(named && run.err.lines().count() == 1, "{setting}: {run:?}");
        assert!(!pids.exists());
        place.assert_nothing_left(setting);
    }
}

#[test]
fn a_report_tells_how_it_went() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let file = sandbox.scratch().join("report");
    let read = || {
        let text = fs::read_to_string(&file).expect("report");
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let script = "sh -c 'exec sleep 300' & until grep -q sleep /proc/$!/comm; do sleep 0.05; done; exit 3";
    let run = place.sh(&["-q", "--report", text(&file)], script);
    assert_eq!((run.status, &*run.out, &*run.err), (Some(3), "", ""));
    let report = read();
    let keys: Vec<_> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "command",
            "cpu",
            "effort",
            "elapsed_us",
            "error",
            "exit_code",
            "group",
            "left",
            "left_count",
            "memory_peak",
            "oom_kill",
            "outcome",
            "pids_peak",
            "signal",
            "started",
            "status"
        ]
    );
    assert_eq!(report["command"], serde_json::json!(["sh", "-c", script]));
    assert_eq!((report["status"].as_u64(), report["exit_code"].as_u64()), (Some(3), Some(3)));
    assert_eq!((&report["signal"], &report["error"]), (&Value::Null, &Value::Null));
    assert_eq!(report["outcome"], "exited");
    assert!(report["group"].as_str().expect("a path").starts_with(text(&place.parent)));
    assert_eq!(report["left"].as_array().expect("an array").len(), 1);
    assert_eq!(report["left"][0]["command"], "sleep");
    assert_eq!(report["left_count"], 1);
    assert!(report["elapsed_us"].as_u64() > Some(0), "{report}");
    assert!(report["cpu"]["usage_usec"].as_u64() > Some(0), "{report}");
    assert!(
        report["started"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')),
        "{report}"
    );

    place.sh(&["--report", text(&file)], "kill -9 $$");
    let report = read();
    assert_eq!((report["outcome"].as_str(), report["signal"].as_u64()), (Some("signalled"), Some(9)));
    assert_eq!((report["status"].as_u64(), &report["exit_code"]), (Some(137), &Value::Null));
    let run = place.sh(&["--timeout", "100ms", "--report", "-"], "exec sleep 300");
    let report: Value = serde_json::from_str(&run.err).expect("JSON");
    assert_eq!((report["outcome"].as_str(), report["status"].as_u64()), (Some("timed-out"), Some(124)));
    // A wrong path is known before the start.
    let run = place.sh(&["--report", "/nonexistent/x"], "echo started");
    assert_eq!((run.status, &*run.out), (Some(125), ""));
    place.assert_nothing_left("reports");
}

#[test]
fn a_process_that_does_not_exit_is_125_and_named() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V1);
    let options = ["--deadline", "500ms", "--grace", "TERM=100ms"];
    let mut child = start(&mut place.command(&options, &["sh", "-c", "echo ready; exec sleep 300"]));
    await_line(&mut child);
    // No process exits below a cgroup that is frozen.
    freeze_v1(&place.parent);
    signal(&child, libc::SIGTERM);
    let ended = wait_until(TIMEOUT, || child.try_wait().expect("wait").is_some());
    thaw_v1(&place.parent);
    let run = output(child);
    assert!(ended, "{run:?}");
    assert_eq!(run.status, Some(125), "{run:?}");
    assert!(
        run.err.contains("not all that sh started could be ended")
            && run.err.contains("not reaped in time: pid "),
        "{run:?}"
    );
}

#[test]
fn as_an_init_it_collects_zombies() {
    require!(v2(), namespaces());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let script =
        "(sleep 0.1 &); (setsid sleep 300 &); sleep 0.5; grep -sl '^State:.Z' /proc/[0-9]*/status; exit 3";
    let mut command = Command::new("unshare");
    command
        .args(["-pf", "--mount-proc"])
        .arg(place.program())
        .args(["run", "-q", "--parent"])
        .arg(&place.parent);
    command
        .args(["--", "sh", "-c", script])
        .env(MARK, &place.mark)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = output(start(&mut command));
    assert_eq!((run.status, &*run.out, &*run.err), (Some(3), "", ""));
    // It dies of no signal of its own.
    let mut command = Command::new("unshare");
    command.args(["-pf", "--mount-proc"]).arg(place.program()).args(["run", "--parent"]).arg(&place.parent);
    command.args(["--", "sh", "-c", "kill -TERM $$"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = output(start(&mut command));
    assert_eq!((run.status, run.signal, &*run.err), (Some(143), None, ""));
    place.assert_nothing_left("an init");
}

#[expect(unsafe_code, reason = "std has no subreapers")]
fn become_subreaper() {
    // SAFETY: integers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

#[test]
fn as_a_subreaper_it_collects_zombies() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    // It becomes a child of cgreap. A zombie would stay.
    let script = "orphan=$( (sleep 0.1 >/dev/null & echo $!) ); while [ -e /proc/$orphan ]; do sleep 0.05; done; exit 3";
    let mut command = place.command(&NO_OPTIONS, &["sh", "-c", script]);
    before_exec(&mut command, become_subreaper);
    let run = output(start(&mut command));
    assert_eq!((run.status, &*run.err), (Some(3), ""));
    place.assert_nothing_left("a subreaper");
}

#[test]
fn as_a_subreaper_it_collects_any_number_of_zombies() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    // They end while cgreap does not run, so that there is one signal for all.
    let script = "for i in $(seq 200); do (sleep 300 >/dev/null &); done; echo ready; read line";
    let mut command = place.command(&["-q"], &["sh", "-c", script]);
    before_exec(command.stdin(Stdio::piped()), become_subreaper);
    let mut child = start(&mut command);
    await_line(&mut child);
    signal(&child, libc::SIGSTOP);
    eventually("it stops", || state_of(child.id() as i32) == Some('T'));
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let children = || -> Vec<i32> {
        let text = fs::read_to_string(&children).expect("the children of cgreap");
        text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
    };
    let name_of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    for sleeper in children().into_iter().filter(|&pid| name_of(pid) == "sleep\n") {
        kill(sleeper, libc::SIGKILL).expect("kill");
    }
    let zombies = || children().into_iter().filter(|&pid| state_of(pid) == Some('Z')).count();
    eventually("they end", || zombies() == 200);
    signal(&child, libc::SIGCONT);
    eventually("they are collected", || zombies() == 0);
    drop(child.stdin.take());
    assert_eq!(output(child).status, Some(1), "that of the read");
    place.assert_nothing_left("a subreaper");
}

#[test]
fn a_terminal_behaves_as_without_it() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    // Ctrl-C is for the command, which may make of it what it likes.
    terminal
        .line("run -- sh -c 'trap \"echo caught\" INT; echo waits; sleep 300; echo goes on'; echo status $?");
    terminal.expect("\nwaits");
    eventually("it sleeps", || place.living().iter().any(|line| line.ends_with(": sleep 300 ")));
    terminal.key("C-c");
    terminal.expect("goes on\nstatus 0");
    // Also while it is being started.
    for _ in 0..10 {
        terminal.line("clear; run -- sleep 300; echo status $?");
        eventually("it starts", || place.living().iter().any(|line| line.ends_with("sleep 300 ")));
        terminal.key("C-c");
        // Before cgreap handles signals it dies of this one, and the shell then drops the rest of the line.
        terminal.expect_one_of(&["status 130", "^C\nready>"]);
        eventually("it ends", || place.living().iter().all(|line| !line.ends_with("sleep 300 ")));
    }
    // Ctrl-Z stops both, and the shell sees it.
    terminal.line("clear; run -- cat; echo status $?");
    eventually("it reads", || place.living().iter().any(|line| line.ends_with(": cat ")));
    terminal.line("one");
    terminal.expect("one\none");
    terminal.key("C-z");
    terminal.expect("Stopped");
    terminal.line("fg; echo status $?");
    // What is typed before belongs to the shell.
    let cat = place.living().into_iter().find_map(|line| line.strip_suffix(": cat ")?.parse().ok());
    let cat = cat.expect("it reads");
    eventually("it is continued", || state_of(cat) != Some('T'));
    terminal.line("two");
    terminal.expect("two\ntwo");
    terminal.key("C-d");
    terminal.expect("\nstatus 0");
    // A shell with job control inside.
    terminal.line("clear; PS1='inner> ' run -- bash --norc --noprofile -i; echo status $?");
    terminal.expect("inner>");
    terminal.line("sleep 300");
    eventually("it sleeps", || place.living().iter().any(|line| line.ends_with("sleep 300 ")));
    terminal.key("C-z");
    terminal.expect("Stopped                 sleep 300\ninner>");
    terminal.line("kill %1; wait; clear; suspend");
    terminal.expect("\nready>");
    terminal.line("clear; fg; echo status $?");
    terminal.expect("inner>");
    terminal.line("echo $((1200 + 34)); exit 5");
    terminal.expect("1234");
    terminal.expect("\nstatus 5");
    // A command that stops itself is ended all the same.
    terminal.line("clear; run --timeout 300ms -- sh -c 'kill -STOP $$'; echo status $?");
    terminal.expect("status 124");
    terminal.close(&place);
}
