//! The processes that the demo reaps. Each runs this same program, so the demo needs no other program.
//!
//! None of them lives longer than the time it is given, even if the demo and its cleaner are killed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::{SigSet, Signal, raise};

use crate::args::{Behaviour, DemoProcessArgs};
use crate::interrupt::unblock_all;
use crate::this_program::hidden;

/// The pause after a fork that the kernel refused because there were too many processes.
const FORK_PAUSE: Duration = Duration::from_millis(2);

/// Starts a process. It writes a byte to its stdout when it is in its cgroups; its stdin is closed.
pub fn spawn(args: &DemoProcessArgs) -> io::Result<Child> {
    let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // Not /dev/null, which may be absent.
    drop(child.stdin.take());
    Ok(child)
}

/// A hidden command of this program.
pub fn this_program(subcommand: &str) -> Command {
    let mut command = hidden(subcommand);
    // A process group of its own: a Ctrl-C of the terminal goes to the demo alone, which then removes the rest.
    command.process_group(0);
    command
}

fn command(args: &DemoProcessArgs) -> Command {
    let mut command = this_program("__demo-process");
    if let Some(behaviour) = args.behaviour.to_possible_value() {
        command.arg(behaviour.get_name());
    }
    command.arg("--until").arg(args.until.to_string());
    for group in &args.groups {
        command.arg("--group").arg(group);
    }
    if let Some(descendants) = args.descendants {
        command.arg("--descendants").arg(descendants.to_string());
    }
    command
}

/// Milliseconds since boot: a clock that cannot be set and that all processes share.
pub fn uptime() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    let malformed = || io::Error::other("not a number of seconds");
    seconds.map(|seconds| (seconds * 1e3) as u64).ok_or_else(malformed)
}

/// The process itself: moves into its cgroups, behaves as it was told, and ends in time.
pub fn run(args: &DemoProcessArgs) -> Result<(), String> {
    for group in &args.groups {
        enter(group).map_err(|error| format!("{}: {error}", group.display()))?;
    }
    unblock_all().map_err(|error| error.to_string())?;
    if args.behaviour == Behaviour::IgnoreTerm {
        SigSet::from(Signal::SIGTERM).thread_block().map_err(|error| error.to_string())?;
    }
    // The demo reads the pipes of its own children. For a descendant of theirs the write fails.
    let mut stdout = io::stdout();
    let _ = stdout.write_all(b"+").and_then(|()| stdout.flush());
    match args.behaviour {
        Behaviour::ForkStorm => fork_storm(args),
        Behaviour::Stop => raise(Signal::SIGSTOP).map_err(|error| error.to_string())?,
        Behaviour::Sleep | Behaviour::IgnoreTerm => {}
    }
    thread::sleep(time_left(args.until));
    Ok(())
}

/// Moves this process into a cgroup.
fn enter(group: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(group.join("cgroup.procs"))?.write_all(b"0")
}

/// The time until `until`; zero if the clock cannot be read.
fn time_left(until: u64) -> Duration {
    Duration::from_millis(uptime().map_or(0, |now| until.saturating_sub(now)))
}

/// Forks as fast as it can: as many descendants as it was allowed, or for as long as it lives.
fn fork_storm(args: &DemoProcessArgs) {
    let mut children: Vec<Child> = Vec::new();
    match args.descendants {
        None => {
            while !time_left(args.until).is_zero() {
                match descend(args, None) {
                    Ok(child) => children.push(child),
                    Err(_) => thread::sleep(FORK_PAUSE),
                }
                // A child that has ended counts against the kernel's bound until it is waited for.
                children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            }
        }
        Some(0) => {}
        Some(descendants) => {
            let others = descendants - 1;
            children.extend(descend(args, Some(others / 2)));
            if let Some(others) = (others - others / 2).checked_sub(1) {
                children.extend(descend(args, Some(others)));
            }
        }
    }
}

fn descend(args: &DemoProcessArgs, descendants: Option<u32>) -> io::Result<Child> {
    command(&DemoProcessArgs { groups: Vec::new(), descendants, ..args.clone() }).spawn()
}
