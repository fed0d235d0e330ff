//! Reports the targets: lines of text or JSON, and a progress bar.
//!
//! A reader that is slow, or has gone, holds up neither the reaping nor the thawing of what was frozen for it: while
//! targets are reaped, nothing is written that would block.

mod bar;
mod json;
mod text;

use std::io::{self, IsTerminal, Stderr, Stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::console::{Output, json_line, printable};
use crate::driver::Listener;
use crate::end::End;
use crate::interrupt::{Interrupt, Wait};
use crate::status::ALL_REAPED;
use crate::target::Place;
use bar::Bar;

/// Fewer targets than this get no progress bar.
const MANY: usize = 10;
/// After a signal, how long the reader of stdout may take for the rest of the report.
const READER_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Report {
    names: Vec<PathBuf>,
    place: Option<Place>,
    json: bool,
    quiet: bool,
    must_exist: bool,
    out: Output<Stdout>,
    err: Output<Stderr>,
    bar: Option<Bar>,
    status: u8,
    reaped: usize,
}

/// What was reported.
#[derive(Debug)]
pub struct Summary {
    /// The exit status that follows from the targets.
    pub status: u8,
    /// The number of targets reaped.
    pub reaped: usize,
    /// Why stdout could not be written to.
    pub stdout_error: Option<io::Error>,
    /// Whether to end with a line that counts them.
    pub counts: bool,
}

impl Report {
    pub fn new(names: Vec<PathBuf>, place: Option<Place>, json: bool, verbose: bool) -> Report {
        // Log lines or JSON on the terminal of the bar would be mixed up with it.
        let wants_bar = names.len() >= MANY
            && !verbose
            && io::stderr().is_terminal()
            && std::env::var_os("TERM").is_some_and(|name| name != "dumb")
            && !(json && io::stdout().is_terminal());
        Report {
            bar: wants_bar.then(|| Bar::new(names.len())),
            out: Output::to(io::stdout()),
            err: Output::to(io::stderr()),
            names,
            place,
            json,
            quiet: false,
            must_exist: false,
            status: ALL_REAPED,
            reaped: 0,
        }
    }

    /// Says nothing about targets that were reaped.
    pub fn quiet(mut self, quiet: bool) -> Report {
        self.quiet = quiet;
        self.bar.take_if(|_| quiet);
        self
    }

    /// Takes targets that are gone already for failures.
    pub fn must_exist(mut self, must_exist: bool) -> Report {
        self.must_exist = must_exist;
        self
    }

    /// Waits until all is written. After a signal it does not wait for a reader that does not read.
    pub fn finish(mut self, interrupt: &Interrupt) -> Summary {
        let mut interrupted_at = None;
        loop {
            let mut wait = self.write();
            if wait.descriptors.is_empty() {
                break;
            }
            if interrupt.signal().is_some() {
                let at = *interrupted_at.get_or_insert_with(Instant::now);
                let patience = READER_PATIENCE.saturating_sub(at.elapsed());
                if patience.is_zero() {
                    break;
                }
                wait.at_most = Some(patience);
            }
            if interrupt.wait(wait).is_err() {
                break;
            }
        }
        if let Some(bar) = &mut self.bar {
            bar.erase();
        }
        let is_read_beside_json = self.json && io::stdout().is_terminal();
        let counts =
            self.names.len() >= MANY && io::stderr().is_terminal() && !self.quiet && !is_read_beside_json;
        let stdout_error = self.out.into_error();
        Summary { status: self.status, reaped: self.reaped, stdout_error, counts }
    }

    /// The line about one target.
    fn line(&self, index: usize, end: &End) -> String {
        let name = &self.names[index];
        match (self.json, &end.result) {
            (true, _) => json_line(&json::object(index, name, self.place.as_ref(), end)),
            (false, Ok(_)) => format!("{}\n", printable(&text::line(name, end))),
            (false, Err(_)) => format!("cgreap: {}\n", printable(&text::line(name, end))),
        }
    }
}

impl Listener for Report {
    fn ended(&mut self, index: usize, end: End) {
        let end = if self.must_exist { end.required() } else { end };
        self.status = self.status.max(end.status());
        self.reaped += usize::from(end.result.is_ok());
        if let Some(bar) = &mut self.bar {
            bar.count(&end);
        }
        if self.quiet && !self.json && end.result.is_ok() {
            return;
        }
        let line = self.line(index, &end);
        if self.json || end.result.is_ok() {
            self.out.push(line);
        } else {
            self.err.push(line);
        }
    }

    fn write(&mut self) -> Wait<'_> {
        if let Some(bar) = self.bar.as_mut().filter(|_| self.out.awaited().or(self.err.awaited()).is_some()) {
            bar.erase();
        }
        self.out.write();
        self.err.write();
        if let Some(bar) = &mut self.bar {
            bar.draw();
        }
        let descriptors = self.out.awaited().into_iter().chain(self.err.awaited()).collect();
        Wait { descriptors, at_most: self.bar.as_ref().map(|_| bar::TICK) }
    }
}

#[cfg(test)]
mod tests {
    use cgroup_reaper::{ReapError, Reaper, Refusal, SpawnError};
    use serde_json::{Value, json};

    use super::*;
    use crate::end::Failure;

    fn failed(error: ReapError) -> End {
        End { result: Err(Failure::Reap(error)), elapsed: Duration::from_micros(1234) }
    }

    fn not_started() -> End {
        End { result: Err(Failure::NotStarted), elapsed: Duration::from_micros(1234) }
    }

    /// What goes to stdout, and what goes to stderr.
    fn lines(json: bool, place: Option<Place>, name: &str, end: End) -> (String, String) {
        let mut report = Report::new(vec![name.into()], place, json, false);
        report.ended(0, end);
        (report.out.unwritten(), report.err.unwritten())
    }

    #[test]
    fn failures_go_to_stderr_and_name_the_target_once() {
        let refused = || failed(SpawnError::new(Reaper::at("/c/a"), Refusal::root("/c/a")).into());
        let (out, err) = lines(false, None, "/c/a", refused());
        assert_eq!(out, "");
        assert_eq!(err, "cgreap: /c/a: refused: the root of a hierarchy\n");
        let (_, err) = lines(false, None, "a", refused());
        assert!(err.starts_with("cgreap: a: /c/a: refused"), "{err}");
        let (_, err) = lines(false, None, "/c/a//", refused());
        assert!(err.starts_with("cgreap: /c/a: refused"), "{err}");
        let (_, err) = lines(false, None, "/c", refused());
        assert!(err.starts_with("cgreap: /c: /c/a: refused"), "{err}");
        let cancelled = || failed(ReapError::cancelled("/c/a"));
        assert_eq!(lines(false, None, "/c/a", cancelled()).1, "cgreap: /c/a: cancelled\n");
        assert_eq!(lines(false, None, "/c/a", not_started()).1, "cgreap: /c/a: cancelled\n");
        assert_eq!(lines(false, None, "", not_started()).1, "cgreap: \"\": cancelled\n");
    }

    #[test]
    fn control_characters_in_a_name_are_escaped() {
        let (_, err) = lines(false, None, "/c/\u{1b}[2J\nb: removed", not_started());
        assert_eq!(err, "cgreap: /c/\\u{1b}[2J\\nb: removed: cancelled\n");
    }

    #[test]
    fn json_has_the_documented_fields() {
        let place = Place { root: "/r".into(), slice: "s".into(), subsystems: vec!["freezer".into()] };
        let (out, err) = lines(true, Some(place), "a\n", not_started());
        assert_eq!(err, "");
        assert_eq!(out.matches('\n').count(), 1, "one line: {out}");
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap(),
            json!({
                "index": 0, "path": "a\n", "root": "/r", "slice": "s", "subsystems": ["freezer"],
                "elapsed_us": 1234, "method": null, "signalled": 0, "attempts": 0, "released": 0,
                "error": { "kind": "cancelled", "message": "cancelled" },
            })
        );
    }
}
