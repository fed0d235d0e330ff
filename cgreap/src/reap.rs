//! `cgreap DIR...`: reaps the targets of the command line and reports each.

use std::io;
use std::time::Instant;

use crate::args::ReapArgs;
use crate::console::complain;
use crate::duration::human;
use crate::report::Reporter;
use crate::status::{ALL_REAPED, NOT_REAPED};
use crate::{driver, interrupt, status};

/// Reaps all targets. Returns the exit status.
pub fn run(args: &ReapArgs, verbose: bool) -> u8 {
    let (reactor, interrupt) = match driver::start() {
        Ok(started) => started,
        Err(error) => {
            complain(&error);
            return NOT_REAPED;
        }
    };
    let targets = args.targets();
    let (names, reapers): (Vec<_>, Vec<_>) =
        targets.into_iter().map(|target| (target.name, target.reaper)).unzip();
    let reporter = match Reporter::start(names, args.place(), args.json, verbose) {
        Ok(reporter) => reporter,
        Err(error) => {
            complain(&format!("thread: {error}"));
            return NOT_REAPED;
        }
    };

    let since = Instant::now();
    let (mut status, mut reaped, total) = (ALL_REAPED, 0, reapers.len());
    let driven = driver::drive(reactor, reapers, &interrupt, &mut |index, end| {
        status = status.max(end.status());
        reaped += usize::from(end.result.is_ok());
        reporter.report(index, end);
    });
    if let Err(error) = driven {
        complain(&format!("event loop: {error}"));
        status = status.max(NOT_REAPED);
    }
    let finished = reporter.finish(&interrupt);
    match finished.stdout {
        Ok(()) => {}
        // The reader of a pipe has closed it. The targets were reaped all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            complain(&format!("stdout: {error}"));
            status = status.max(NOT_REAPED);
        }
    }
    let summary = format!("{reaped} of {total} reaped in {}", human(since.elapsed()));
    if let Some(signal) = interrupt.signal() {
        complain(&format!("{}: {summary}", interrupt::describe(signal)));
        return status::interrupted_by(signal);
    }
    // In place of the progress bar, which has been removed.
    if finished.bar_shown {
        complain(&summary);
    }
    status
}
