//! `cgreap demo`: makes cgroups full of processes that are hard to kill, and reaps them.
//!
//! It changes nothing but what it makes, below a directory of its own in each hierarchy. It removes all of that:
//! at the end, when something fails, on a signal, and, through its cleaner, after a SIGKILL.

pub mod cleaner;
mod directories;
mod groups;
pub mod process;
mod setup;
mod table;

use std::cmp::Reverse;
use std::time::Instant;

use cgroup_reaper::{Reactor, UsedMethod};

use crate::console::{complain, print};
use crate::driver::{self, Listener};
use crate::duration::human;
use crate::end::End;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::status::{ALL_REAPED, NOT_REAPED};
use directories::Directories;
use setup::{DemoTarget, Setup};
use table::{COLUMNS, table};

const PIDFD_NOTE: &str = "\
pidfd: the processes are signalled one by one where there is no cgroup.kill: in v1, before Linux 5.14, and for targets
       that are in v1 too, as fork storms are for its pids.max
";

/// Runs the demo.
pub fn run() -> Exit {
    let (reactor, interrupt) = match driver::start() {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("demo: {error}"));
            return Exit::Status(NOT_REAPED);
        }
    };
    let done = demo(reactor, &interrupt);
    let signal = interrupt.restore();
    let status = match done {
        Ok(true) => ALL_REAPED,
        Ok(false) => NOT_REAPED,
        Err(error) => {
            complain(&format!("demo: {error}"));
            NOT_REAPED
        }
    };
    signal.map_or(Exit::Status(status), |signal| Exit::Signal(signal as i32))
}

/// Whether all were reaped and nothing is left.
fn demo(reactor: Reactor, interrupt: &Interrupt) -> Result<bool, String> {
    let directories = Directories::make()?;
    let mut setup = Setup::new(&directories)?;
    let mut targets = Vec::new();
    for (directory, partners) in directories.with_partners() {
        setup.make_targets(directory, &partners, &mut targets)?;
    }
    setup.await_started(interrupt)?;
    // The fork storms come last, because they slow everything else down.
    for (directory, partners) in directories.with_partners() {
        setup.make_fork_storm(directory, &partners, &mut targets)?;
    }
    setup.await_started(interrupt)?;
    targets.iter().try_for_each(DemoTarget::settle)?;
    targets.sort_by_key(|target| Reverse(target.hierarchy));
    let processes: Vec<_> = targets.iter().map(DemoTarget::processes).collect();
    let total: usize = processes.iter().sum();
    // If stdout cannot be written to, the table cannot be written either, and that is reported.
    let _ = print(&format!("demo: {} targets, {total} processes; reaping all at once\n", targets.len()));

    let since = Instant::now();
    let mut ends: Vec<Option<End>> = targets.iter().map(|_| None).collect();
    let reapers = targets.iter().map(|target| target.reaper.clone()).collect();
    let driven = driver::drive(reactor, reapers, interrupt, &mut ends);
    let elapsed = since.elapsed();
    driven.map_err(|error| format!("event loop: {error}"))?;

    // Before `remove`, after which there are none.
    let survivors: usize = targets.iter().map(DemoTarget::processes).sum();
    let rows: Vec<_> = targets
        .iter()
        .zip(&processes)
        .zip(&ends)
        .map(|((target, &processes), end)| row(target, processes, end.as_ref()))
        .collect();
    let removed = |end: &Option<End>| end.as_ref().is_some_and(|end| end.result.is_ok());
    let unremoved = targets.iter().zip(&ends).filter(|(target, end)| removed(end) && target.group.exists());
    let mut left: Vec<_> =
        unremoved.map(|(target, _)| format!("{} was left", target.group.display())).collect();
    if survivors > 0 {
        left.push(format!("{survivors} processes were left and had to be killed afterwards"));
    }
    left.extend(setup.remove());
    interrupt.restore();
    let mut text = table(&rows);
    if rows.iter().any(|row| row[4] == UsedMethod::Pidfd.to_string()) {
        text += PIDFD_NOTE;
    }
    let printed = print(&text);
    let reaped = ends.iter().flatten().filter(|end| end.result.is_ok()).count();
    for (target, end) in targets.iter().zip(&ends) {
        if let Some(Err(failure)) = end.as_ref().map(|end| &end.result) {
            complain(&format!("demo: {} ({}): {failure}", target.what, target.hierarchy));
        }
    }
    let rest = if left.is_empty() { "nothing is left".to_owned() } else { left.join("; ") };
    let total = targets.len();
    let last = print(&format!("demo: {reaped} of {total} reaped in {}; {rest}\n", human(elapsed)));
    printed.and(last)?;
    Ok(reaped == total && left.is_empty())
}

impl Listener for Vec<Option<End>> {
    fn ended(&mut self, index: usize, end: End) {
        self[index] = Some(end);
    }
}

fn row(target: &DemoTarget, processes: usize, end: Option<&End>) -> [String; COLUMNS] {
    let mut row = [(); COLUMNS].map(|()| "-".to_owned());
    row[0].clone_from(&target.what);
    row[1] = target.hierarchy.to_owned();
    row[2] = processes.to_string();
    let Some(end) = end else { return row };
    row[7] = format!("{:.1}", end.elapsed.as_secs_f64() * 1e3);
    match &end.result {
        Ok(reaped) => {
            row[3] = reaped.outcome.to_string();
            if let Some(method) = reaped.method {
                row[4] = method.to_string();
            }
            if reaped.signalled > 0 {
                row[5] = reaped.signalled.to_string();
            }
            row[6] = reaped.attempts.to_string();
        }
        Err(failure) => row[3] = failure.kind().to_owned(),
    }
    row
}
