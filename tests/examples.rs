//! Each example, run as the program it is, on real cgroups.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Some hierarchy that the examples look for.
fn cgroups() -> Result<(), String> {
    v2().or_else(|_| v1("freezer"))
}

/// Cargo builds the examples along with the tests, next to them.
fn path(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("own path");
    let target = program.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    target.join("examples").join(name)
}

fn built(name: &str) -> Result<(), String> {
    let path = path(name);
    if path.exists() { Ok(()) } else { Err(format!("{} was not built", path.display())) }
}

/// An example that runs, killed when dropped, with its jobs.
struct Run {
    child: Child,
    lines: Receiver<String>,
    output: String,
}

impl Run {
    fn new(command: &mut Command) -> Run {
        let mut child = command
            .env_remove("CI")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("examples can be run");
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    let _ = sender.send(line.unwrap_or_default() + "\n");
                }
            });
        }
        Run { child, lines, output: String::new() }
    }

    /// Waits for a line with `text`, and returns it.
    fn line(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} in:\n{}", self.output));
            self.output += &line;
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        assert!(pid > 1);
        kill(Pid::from_raw(pid), signal).expect("our child, and not waited for");
    }

    /// Waits for its end, and sees to it that nothing is left: its status and output.
    fn end(mut self) -> (ExitStatus, String) {
        eventually("end of the example", || self.child.try_wait().expect("our child").is_some());
        // Every process that holds the other ends of the pipes has to end too.
        while let Ok(line) = self.lines.recv_timeout(TIMEOUT) {
            self.output += &line;
        }
        let left = left_behind(self.child.id());
        assert!(left.is_empty(), "left behind: {left:?}\n{}", self.output);
        let status = self.child.wait().expect("our child");
        (status, std::mem::take(&mut self.output))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Empty, unless this is a panic: the example has not cleaned up.
        let left = left_behind(self.child.id());
        let _ = wait_until(TIMEOUT, || {
            left.iter().for_each(|dir| clear_group(dir));
            left.iter().all(|dir| !dir.exists())
        });
    }
}

/// The directories of an example that ran with this pid.
fn left_behind(pid: u32) -> Vec<PathBuf> {
    let name = format!("cgroup-reaper-example-{pid}");
    let roots = v1_root("freezer").into_iter().chain(v2_root());
    roots.map(|root| root.join(&name)).filter(|dir| dir.exists()).collect()
}

/// The pid in a line such as "sleep 1000: started as pid 42".
fn pid_in(line: &str) -> i32 {
    line.split_whitespace().last().and_then(|pid| pid.parse().ok()).expect("a pid at the end")
}

fn dead(pid: i32) {
    eventually("exit of a process of the example", || !alive(pid));
}

/// Runs an example that reaps three groups.
fn reaps_three(name: &str) {
    let (status, output) = Run::new(&mut Command::new(path(name))).end();
    assert!(status.success(), "{status}\n{output}");
    assert_eq!(output.matches("removed in ").count(), 3, "{output}");

    // It fails for want of the program that it puts in its groups, and cleans up all the same.
    let (status, output) = Run::new(Command::new(path(name)).env("PATH", "/nonexistent")).end();
    assert_eq!(status.code(), Some(1), "{output}");
    assert_eq!(output.matches("removed in ").count(), 0, "{output}");
}

macro_rules! reap_three {
    ($($name:ident),+) => {$(
        #[test]
        fn $name() {
            require!(cgroups(), built(stringify!($name)));
            reaps_three(stringify!($name));
        }
    )+};
}

reap_three!(thread, epoll, mio_poll, tokio_loop, async_io_loop, calloop_loop);

#[test]
fn job_runner_reaps_each_job_with_its_orphans() {
    require!(cgroups(), built("job_runner"));
    let mut run = Run::new(&mut Command::new(path("job_runner")));
    let orphans: Vec<i32> = (0..3).map(|_| pid_in(&run.line("orphan "))).collect();
    let (status, output) = run.end();
    assert!(status.success(), "{status}\n{output}");
    assert_eq!(output.matches("; removed in ").count(), 3, "{output}");
    assert!(output.contains("\ntrue: exit status: 0; removed in "), "{output}");
    orphans.into_iter().for_each(dead);
}

#[test]
fn job_runner_takes_all_jobs_down_when_interrupted() {
    require!(cgroups(), built("job_runner"));
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = Run::new(Command::new(path("job_runner")).args(["sleep 1001", "sleep 1002"]));
        let pids = [pid_in(&run.line("sleep 1001: started")), pid_in(&run.line("sleep 1002: started"))];
        for pid in pids {
            let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            eventually("job in its group", || name() == "sleep\n");
        }
        run.signal(signal);
        let (status, output) = run.end();
        assert!(status.success(), "{status}\n{output}");
        // SIGTERM was enough.
        assert_eq!(output.matches(": signal: 15 (SIGTERM); removed in ").count(), 2, "{output}");
        pids.into_iter().for_each(dead);
    }
}

#[test]
fn job_runner_reports_a_job_that_cannot_start() {
    require!(cgroups(), built("job_runner"));
    let (status, output) = Run::new(Command::new(path("job_runner")).args(["/nonexistent x", "true"])).end();
    assert!(status.success(), "{status}\n{output}");
    assert!(output.contains("/nonexistent x: exit status: 1; removed in "), "{output}");
    assert!(output.contains("true: exit status: 0; removed in "), "{output}");
}

/// Jobs that leave a process behind, which holds none of their pipes, and end in one way or another.
const LEAVERS: [&str; 4] = [
    "setsid sleep 99 >/dev/null 2>&1 & echo left $!",
    "(setsid sh -c 'sleep 99 >/dev/null 2>&1 & echo left $!') ; exit 7",
    "sleep 99 >/dev/null 2>&1 & echo left $! ; kill -9 $$",
    "sh -c 'sleep 99 >/dev/null 2>&1 & echo left $! ; exec true' & wait",
];

#[test]
fn start_in_cgroup_reaps_what_a_job_leaves_behind() {
    require!(cgroups(), built("start_in_cgroup"));
    let mut run = Run::new(&mut Command::new(path("start_in_cgroup")));
    let left = pid_in(&run.line("left behind: "));
    let (status, output) = run.end();
    assert!(status.success(), "{status}\n{output}");
    assert!(output.contains("\nexit status: 0; removed in "), "{output}");
    dead(left);

    // A process that is moved from outside loses the race one time in ten.
    for job in LEAVERS.iter().cycle().take(40) {
        let mut run = Run::new(Command::new(path("start_in_cgroup")).args(["sh", "-c", job]));
        let left = pid_in(&run.line("left "));
        let (status, output) = run.end();
        assert!(status.success() && output.contains("; removed in "), "{job}: {status}\n{output}");
        dead(left);
    }
}

#[test]
fn start_in_cgroup_runs_a_job_in_its_cgroup_or_not_at_all() {
    require!(cgroups(), built("start_in_cgroup"));
    let start = || Command::new(path("start_in_cgroup"));
    let (status, output) = Run::new(start().args(["cat", "/proc/self/cgroup"])).end();
    assert!(status.success() && output.contains("/cgroup-reaper-example-"), "{status}\n{output}");

    let (status, output) = Run::new(start().arg("/nonexistent")).end();
    assert!(status.success() && output.contains("exit status: 1; removed in "), "{status}\n{output}");
    let (status, output) = Run::new(start().args(["--join", "/nonexistent", "echo", "outside"])).end();
    assert!(!status.success() && !output.contains("outside"), "{status}\n{output}");
}

#[test]
fn without_rights_they_skip_visibly_or_fail_in_ci() {
    require!(cgroups(), namespaces(), built("epoll"));
    /// The user `nobody`.
    const UNPRIVILEGED: u32 = 65534;
    let as_nobody = || {
        let mut command = Command::new(path("epoll"));
        command.uid(UNPRIVILEGED);
        command
    };
    // The directory may be one that only root can enter.
    if as_nobody().env("CI", "no").stdout(Stdio::null()).status().is_err() {
        return skip(test_name!(), "the examples are out of reach for other users");
    }
    let (status, output) = Run::new(&mut as_nobody()).end();
    assert!(status.success() && output.starts_with("SKIP: "), "{status}\n{output}");
    let output = as_nobody().env("CI", "true").output().expect("as before");
    assert_eq!((output.status.code(), output.status.signal()), (Some(1), None), "{output:?}");
}
