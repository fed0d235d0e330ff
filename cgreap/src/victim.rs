//! The processes of `cgreap demo`: this same program, started anew by itself, so that the demo needs nothing
//! but itself on the machine.
//!
//! None of them lives longer than the time it is given, whatever becomes of the demo.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGSTOP, SIGTERM};

use crate::{demo, report};

/// This program, even where it has no path any more, or one that the caller may not look up.
const SELF: &str = "/proc/self/exe";
/// Between a fork that failed, for there were as many processes as may be, and the next.
const STORM_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct VictimArgs {
    /// What it does.
    #[arg(value_enum)]
    pub kind: Kind,

    /// When it ends by itself, in milliseconds since boot: on no account later, so for all descendants too.
    #[arg(long)]
    pub until: u64,

    /// Groups to enter first; for `guard`, groups to clear in the end.
    #[arg(long = "group", value_name = "DIR")]
    pub groups: Vec<PathBuf>,

    /// For `storm`: how many descendants it may have in all. Without, the kernel has to set the bound.
    #[arg(long)]
    pub descendants: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Sleeps.
    Sleep,
    /// Stops itself.
    Stop,
    /// Does not die of SIGTERM.
    IgnoreTerm,
    /// Forks without end.
    Storm,
    /// No victim: clears the demo's groups when the demo has died.
    Guard,
}

/// Runs a victim; returns its exit status.
pub fn run(args: &VictimArgs) -> u8 {
    match live(args) {
        Ok(()) => 0,
        Err(error) => {
            report::complain(&error);
            1
        }
    }
}

/// Starts a victim. Its stdout tells with a byte that it is in place; its stdin is at its end.
pub fn spawn(args: &VictimArgs) -> io::Result<Child> {
    let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // A pipe closed at once rather than /dev/null, which is not sure to be there.
    drop(child.stdin.take());
    Ok(child)
}

/// Starts the guard, which waits for the end of its stdin.
pub fn spawn_guard(tops: &[PathBuf]) -> io::Result<Child> {
    let args = VictimArgs { kind: Kind::Guard, until: 0, groups: tops.to_vec(), descendants: None };
    command(&args).stdin(Stdio::piped()).spawn()
}

fn command(args: &VictimArgs) -> Command {
    let mut command = Command::new(SELF);
    // A process group of its own: what the user's terminal sends is for the demo, which deals with it.
    command.arg0("cgreap").process_group(0).arg("__victim");
    if let Some(kind) = args.kind.to_possible_value() {
        command.arg(kind.get_name());
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

/// Milliseconds since boot: a clock that nobody can set and that all processes share.
pub fn uptime() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    seconds.map(|seconds| (seconds * 1e3) as u64).ok_or_else(|| io::Error::other("/proc/uptime is odd"))
}

fn live(args: &VictimArgs) -> Result<(), String> {
    if args.kind == Kind::Guard {
        return guard(&args.groups);
    }
    for group in &args.groups {
        enter(group).map_err(|error| format!("{}: {error}", group.display()))?;
    }
    if args.kind == Kind::IgnoreTerm {
        let flag = Arc::default();
        signal_hook::flag::register(SIGTERM, flag).map_err(|error| error.to_string())?;
    }
    // Only the parent's children have a reader there, not their descendants.
    let mut stdout = io::stdout();
    let _ = stdout.write_all(b"+").and_then(|()| stdout.flush());
    match args.kind {
        Kind::Storm => storm(args),
        Kind::Stop => signal_hook::low_level::raise(SIGSTOP).map_err(|error| error.to_string())?,
        Kind::Sleep | Kind::IgnoreTerm | Kind::Guard => {}
    }
    thread::sleep(left(args.until));
    Ok(())
}

/// Moves this process into a group.
fn enter(group: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(group.join("cgroup.procs"))?.write_all(b"0")
}

/// The time until `until`; none where that cannot be told.
fn left(until: u64) -> Duration {
    Duration::from_millis(uptime().map_or(0, |now| until.saturating_sub(now)))
}

/// Forks as fast as it can: as many descendants as it was allowed, or for as long as it lives.
fn storm(args: &VictimArgs) {
    let mut children: Vec<Child> = Vec::new();
    match args.descendants {
        None => {
            while !left(args.until).is_zero() {
                match descend(args, None) {
                    Ok(child) => children.push(child),
                    Err(_) => thread::sleep(STORM_PAUSE),
                }
                // The dead ones make room for more only when they are waited for.
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

fn descend(args: &VictimArgs, descendants: Option<u32>) -> io::Result<Child> {
    command(&VictimArgs { groups: Vec::new(), descendants, ..args.clone() }).spawn()
}

/// Waits for the end of stdin, which comes with the end of the demo in whatever way, and clears up.
fn guard(tops: &[PathBuf]) -> Result<(), String> {
    // An error, too, means that nobody is there any more.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let left = demo::clear(tops);
    if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
}
