//! `cgreap run`: runs a command in a cgroup of its own, and leaves no process of it.
//!
//! Each module uses only modules to the left of it:
//!
//! - `status`, `process`, `terminal`, `signals`, `children`, `outcome`: exit statuses, what /proc tells of processes, the
//!   terminal, signals, the main process, and how a run ended
//! - `mark`, `place`, `guard`, `group`: what tells the cgroups of a run from others, where they are made, the process that reaps
//!   them should cgreap be killed, and the cgroups themselves
//! - `start`: the start of the command in them
//! - `left`, `usage`, `ending`: what the command left behind and has used, and the reaping
//! - `supervise`, `report`: the loop, and the JSON object about the run

mod children;
mod ending;
mod group;
mod guard;
mod left;
mod mark;
mod outcome;
mod place;
mod process;
mod report;
mod signals;
mod start;
mod status;
mod supervise;
mod terminal;
mod usage;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use cgroup_reaper::Reactor;
use serde_json::Value;

use crate::args::RunArgs;
use crate::console::complain;
use crate::exit::Exit;
use group::Groups;
use guard::{Guard, warn_unguarded};
use outcome::Outcome;
use report::{Report, Sink};
use signals::Signals;
use start::Starter;
use status::FAILED;
use supervise::{Done, Supervisor};

/// The hidden commands. `None` if it is none of them. Their words are those that this program gives them: the library that
/// parses command lines would take as long as the rest of such a process.
pub fn hidden(mut words: impl Iterator<Item = OsString>) -> Option<u8> {
    match words.next()?.to_str()? {
        start::SUBCOMMAND => Some(start::run(words)),
        guard::SUBCOMMAND => Some(guard::run(words)),
        _ => None,
    }
}

/// Runs the command.
pub fn run(args: &RunArgs) -> Exit {
    let mut guard = None;
    let exit = reported(args, &mut guard).unwrap_or_else(|error| {
        complain(&format!("run: {error}"));
        Exit::Status(FAILED)
    });
    if let Some(guard) = guard {
        guard.dismiss();
    }
    exit
}

/// Runs the command, and says how that went.
fn reported(args: &RunArgs, guard: &mut Option<Guard>) -> Result<Exit, String> {
    // Before signals are watched: one ends the wait for the reader of a FIFO.
    let sink = args.report.as_deref().map(Sink::open).transpose();
    let sink = sink.map_err(|error| format!("--report: {error}"))?;
    let signals = Signals::watch().map_err(|error| format!("signals: {error}"))?;
    *guard = start_guard(args);
    let terminal = terminal::own_modes();
    let ran = supervised(args, &signals, guard);
    if let Some(guard) =
        guard.as_ref().filter(|_| ran.as_ref().is_ok_and(|ran| ran.done.result.error.is_none()))
    {
        guard.end();
    }
    if let Some(modes) = terminal {
        terminal::take_back(&modes);
    }
    signals.restore();
    let (exit, object) = match ran {
        Ok(ran) => {
            let outcome = ran.outcome();
            ran.say(args, outcome, guard);
            (outcome.exit(), ran.report(args, outcome))
        }
        Err(error) => {
            complain(&format!("run: {error}"));
            (Exit::Status(FAILED), report::not_started(&args.command, FAILED, &error))
        }
    };
    if let Some(mut sink) = sink {
        sink.write(&object).map_err(|error| format!("--report: {error}"))?;
    }
    Ok(exit)
}

/// A run that is over.
struct Ran {
    started: SystemTime,
    elapsed: Duration,
    groups: Groups,
    done: Done,
}

fn supervised(args: &RunArgs, signals: &Signals, guard: &mut Option<Guard>) -> Result<Ran, String> {
    let reactor = Reactor::new().map_err(|error| format!("event loop: {error}"))?;
    let possible = place::choose(args)?;
    let groups = Groups::make(&possible, args.name.as_deref(), guard)?;
    let starter = start(args, &groups, signals, guard).inspect_err(|_| groups.remove())?;
    await_guard(guard);
    let (started, since) = (SystemTime::now(), Instant::now());
    let done = Supervisor::new(args, signals, &groups, guard, reactor, starter).run();
    let done = done.map_err(|error| {
        if !groups.abandon(args.deadline) {
            leave_to_guard(guard);
        }
        format!("event loop: {error}")
    });
    Ok(Ran { started, elapsed: since.elapsed(), done: done?, groups })
}

impl Ran {
    fn outcome(&self) -> Outcome {
        let Done { ended, executed, cause, result, .. } = &self.done;
        Outcome::of(result.error.is_some(), *cause, *executed, *ended)
    }

    fn say(&self, args: &RunArgs, outcome: Outcome, guard: &mut Option<Guard>) {
        let Done { failure, left, result, .. } = &self.done;
        let name = command_name(args);
        if let Some(failure) = failure {
            complain(&format!("run: {failure}"));
        }
        if left.count() > 0 && !args.quiet && result.error.is_none() {
            complain(&left.line(&name));
        }
        if let Some(error) = &result.error {
            complain(&format!("run: not all that {name} started could be ended: {error}"));
            leave_to_guard(guard);
        } else if outcome == Outcome::Failed {
            complain(&format!("run: {name} has left its cgroup, and does not exit"));
        }
    }

    fn report(&self, args: &RunArgs, outcome: Outcome) -> Value {
        let report = Report {
            command: &args.command,
            status: outcome.status(),
            outcome,
            ended: self.done.ended.filter(|_| self.done.executed),
            failure: self.done.failure.as_deref(),
            started: self.started,
            elapsed: self.elapsed,
            group: self.groups.first().path(),
            left: &self.done.left,
            result: &self.done.result,
        };
        report.object()
    }
}

/// Starts the guard, unless told not to. Without one the run goes on.
fn start_guard(args: &RunArgs) -> Option<Guard> {
    if args.no_guard {
        return None;
    }
    Guard::start(args.deadline).map_err(|error| warn_no_guard(&error)).ok()
}

/// Starts the process that becomes the command. Where there is one process to be had and not two, it is not the guard.
fn start(
    args: &RunArgs,
    groups: &Groups,
    signals: &Signals,
    guard: &mut Option<Guard>,
) -> Result<Starter, String> {
    let spawn = || Starter::spawn(&args.command, groups, signals.original_mask());
    let mut starter = spawn();
    let is_short = |error: &io::Error| error.raw_os_error() == Some(libc::EAGAIN);
    if let Some(error) = starter.as_ref().err().filter(|error| is_short(error)) {
        if let Some(guard) = guard.take() {
            guard.dismiss();
            warn_no_guard(error);
            starter = spawn();
        }
    }
    starter.map_err(|error| format!("cannot start a process: {error}"))
}

fn await_guard(guard: &mut Option<Guard>) {
    if let Some(Err(error)) = guard.as_mut().map(Guard::await_ready) {
        warn_no_guard(&error);
        if let Some(guard) = guard.take() {
            guard.dismiss();
        }
    }
}

/// The guard, which is in no cgroup of the run, may be able to reap what cgreap could not.
fn leave_to_guard(guard: &mut Option<Guard>) {
    if let Some(guard) = guard.take() {
        complain(&format!(
            "run: the guard (pid {}) tries to end the rest when cgreap has exited",
            guard.pid()
        ));
        guard.leave();
    }
}

fn warn_no_guard(error: &io::Error) {
    warn_unguarded(&format!("no guard could be started ({error})"));
}

/// The name of the program that is run, for messages.
fn command_name(args: &RunArgs) -> String {
    let program = args.command.first().map(Path::new).unwrap_or(Path::new(""));
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}
