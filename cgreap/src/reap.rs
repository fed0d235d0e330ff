//! `cgreap DIR...`: reaps the targets of the command line and reports each.

use std::io;
use std::time::Instant;

use crate::args::ReapArgs;
use crate::console::{complain, complain_at_once};
use crate::duration::human;
use crate::exit::Exit;
use crate::report::{Report, Summary};
use crate::status::{NOT_REAPED, REFUSED};
use crate::{driver, interrupt, list};

/// Reaps all targets.
pub fn run(args: &ReapArgs, verbose: bool) -> Exit {
    // Before signals are watched: Ctrl-C ends the wait for a list.
    let names = match list::expand(&args.names) {
        Ok(names) => names,
        Err(error) => {
            complain(&error);
            return Exit::Status(REFUSED);
        }
    };
    let (reactor, interrupt) = match driver::start() {
        Ok(started) => started,
        Err(error) => {
            complain(&error);
            return Exit::Status(NOT_REAPED);
        }
    };
    let targets = args.targets(names);
    let (names, reapers): (Vec<_>, Vec<_>) =
        targets.into_iter().map(|target| (target.name, target.reaper)).unzip();
    let (since, total) = (Instant::now(), reapers.len());
    let report = Report::new(names, args.place(), args.json, verbose);
    let mut report = report.quiet(args.quiet).must_exist(args.must_exist);
    let driven = driver::drive(reactor, reapers, &interrupt, &mut report);
    let Summary { mut status, reaped, stdout_error, counts } = report.finish(&interrupt);
    let signal = interrupt.restore();
    if let Err(error) = driven {
        complain(&format!("event loop: {error}"));
        status = status.max(NOT_REAPED);
    }
    // A reader of a pipe that has closed it is no failure. The targets were reaped all the same.
    if let Some(error) = stdout_error.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        complain(&format!("stdout: {error}"));
        status = status.max(NOT_REAPED);
    }
    let summary = format!("{reaped} of {total} reaped in {}", human(since.elapsed()));
    if let Some(signal) = signal {
        complain_at_once(&format!("{}: {summary}", interrupt::describe(signal)));
        return Exit::Signal(signal as i32);
    }
    if counts {
        complain(&summary);
    }
    Exit::Status(status)
}
