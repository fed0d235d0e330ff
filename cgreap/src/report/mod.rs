//! Reports the targets: lines of text or JSON, and a progress bar.
//!
//! A thread of its own writes the report. A reader that is slow, or has gone, then holds up neither the reaping
//! nor the thawing of what was frozen for it.

mod bar;
mod json;
mod text;

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{printable, write_stderr, write_stdout};
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::target::Place;
use bar::Bar;

/// Fewer targets than this get no progress bar.
const MANY: usize = 10;
const BAR_TICK: Duration = Duration::from_millis(100);
/// After a signal, how long the reader of stdout may take for the rest of the report.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// The caller's side of the reporting thread.
#[derive(Debug)]
pub struct Reporter {
    ends: Sender<(usize, End)>,
    done: Receiver<Finished>,
}

/// How the reporting went.
#[derive(Debug)]
pub struct Finished {
    /// Why stdout could not be written to.
    pub stdout: io::Result<()>,
    /// Whether a progress bar was to be seen.
    pub bar_shown: bool,
}

impl Reporter {
    pub fn start(
        names: Vec<PathBuf>,
        place: Option<Place>,
        json: bool,
        verbose: bool,
    ) -> io::Result<Reporter> {
        // Log lines or JSON on the terminal of the bar would be mixed up with it.
        let wants_bar = names.len() >= MANY
            && !verbose
            && io::stderr().is_terminal()
            && !(json && io::stdout().is_terminal());
        let writer = Writer {
            bar: wants_bar.then(|| Bar::new(names.len())),
            lines: Lines { names, place, json },
            stdout_error: None,
        };
        let (ends, inbox) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        thread::Builder::new().name("report".to_owned()).spawn(move || finished.send(writer.run(&inbox)))?;
        Ok(Reporter { ends, done })
    }

    pub fn report(&self, index: usize, end: End) {
        // The thread receives for as long as `self` lives.
        let _ = self.ends.send((index, end));
    }

    /// Waits until all is written. After a signal it does not wait for a reader that does not read.
    pub fn finish(self, interrupt: &Interrupt) -> Finished {
        drop(self.ends);
        let unfinished = |stdout| Finished { stdout, bar_shown: false };
        let mut interrupted_at = None;
        loop {
            match self.done.recv_timeout(Duration::from_millis(100)) {
                Ok(finished) => return finished,
                Err(RecvTimeoutError::Disconnected) => {
                    return unfinished(Err(io::Error::other("the reporting thread panicked")));
                }
                Err(RecvTimeoutError::Timeout) if interrupt.signal().is_some() => {
                    let at = *interrupted_at.get_or_insert_with(Instant::now);
                    if at.elapsed() > READER_PATIENCE {
                        return unfinished(Ok(()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The reporting thread's own side.
struct Writer {
    lines: Lines,
    bar: Option<Bar>,
    /// Nothing more is written to stdout after this.
    stdout_error: Option<io::Error>,
}

/// What the reporting thread is woken for.
enum Event {
    End(usize, End),
    MoveBar,
    AllEnded,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<(usize, End)>) -> Finished {
        loop {
            let first = match self.next(inbox) {
                Event::End(index, end) => Some((index, end)),
                Event::MoveBar => None,
                Event::AllEnded => break,
            };
            // What has arrived meanwhile is written together with it.
            let (mut out, mut err) = (String::new(), String::new());
            for (index, end) in first.into_iter().chain(inbox.try_iter().take(1000)) {
                self.lines.add(index, &end, &mut out, &mut err);
                if let Some(bar) = &mut self.bar {
                    bar.count(&end);
                }
            }
            if let Some(bar) = &mut self.bar {
                bar.update();
            }
            let mut write = || {
                if !out.is_empty() && self.stdout_error.is_none() {
                    self.stdout_error = write_stdout(&out).err();
                }
                if !err.is_empty() {
                    write_stderr(&err);
                }
            };
            match &self.bar {
                Some(bar) if !(out.is_empty() && err.is_empty()) => bar.suspend(write),
                _ => write(),
            }
        }
        let bar_shown = self.bar.is_some_and(Bar::finish);
        Finished { stdout: self.stdout_error.map_or(Ok(()), Err), bar_shown }
    }

    fn next(&self, inbox: &Receiver<(usize, End)>) -> Event {
        let received = match &self.bar {
            Some(_) => inbox.recv_timeout(BAR_TICK),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok((index, end)) => Event::End(index, end),
            Err(RecvTimeoutError::Timeout) => Event::MoveBar,
            Err(RecvTimeoutError::Disconnected) => Event::AllEnded,
        }
    }
}

/// Makes the lines.
struct Lines {
    names: Vec<PathBuf>,
    place: Option<Place>,
    json: bool,
}

impl Lines {
    /// Appends the line about one target to what goes to stdout or to stderr.
    fn add(&self, index: usize, end: &End, out: &mut String, err: &mut String) {
        let name = &self.names[index];
        // Writing to a string does not fail.
        let _ = match (self.json, &end.result) {
            (true, _) => writeln!(out, "{}", json::object(name, self.place.as_ref(), end)),
            (false, Ok(_)) => writeln!(out, "{}", printable(&text::line(name, end))),
            (false, Err(_)) => writeln!(err, "cgreap: {}", printable(&text::line(name, end))),
        };
    }
}

#[cfg(test)]
mod tests {
    use cgroup_reaper::{ReapError, Refusal};
    use serde_json::{Value, json};

    use super::*;
    use crate::end::Failure;

    fn failed(error: ReapError) -> End {
        End { result: Err(Failure::Reap(error)), elapsed: Duration::from_micros(1234) }
    }

    fn lines(json: bool, place: Option<Place>, name: &str, end: &End) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        Lines { names: vec![name.into()], place, json }.add(0, end, &mut out, &mut err);
        (out, err)
    }

    #[test]
    fn failures_go_to_stderr_and_name_the_target_once() {
        let refused = failed(ReapError::Refused(Refusal::Root { path: "/c/a".into() }));
        let (out, err) = lines(false, None, "/c/a", &refused);
        assert_eq!(out, "");
        assert_eq!(err, "cgreap: /c/a: refused: the root of a hierarchy\n");
        let (_, err) = lines(false, None, "a", &refused);
        assert!(err.starts_with("cgreap: a: /c/a: refused"), "{err}");
        let (_, err) = lines(false, None, "/c/a//", &refused);
        assert!(err.starts_with("cgreap: /c/a: refused"), "{err}");
        let (_, err) = lines(false, None, "/c", &refused);
        assert!(err.starts_with("cgreap: /c: /c/a: refused"), "{err}");
        assert_eq!(lines(false, None, "/c/a", &failed(ReapError::Cancelled)).1, "cgreap: /c/a: cancelled\n");
        assert_eq!(lines(false, None, "", &failed(ReapError::Cancelled)).1, "cgreap: \"\": cancelled\n");
    }

    #[test]
    fn control_characters_in_a_name_are_escaped() {
        let (_, err) = lines(false, None, "/c/\u{1b}[2J\nb: removed", &failed(ReapError::Cancelled));
        assert_eq!(err, "cgreap: /c/\\u{1b}[2J\\nb: removed: cancelled\n");
    }

    #[test]
    fn json_has_the_documented_fields() {
        let place = Place { root: "/r".into(), slice: "s".into(), subsystems: vec!["freezer".into()] };
        let (out, err) = lines(true, Some(place), "a\n", &failed(ReapError::Cancelled));
        assert_eq!(err, "");
        assert_eq!(out.matches('\n').count(), 1, "one line: {out}");
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap(),
            json!({
                "path": "a\n", "root": "/r", "slice": "s", "subsystems": ["freezer"],
                "elapsed_us": 1234, "method": null, "signalled": 0, "attempts": 0,
                "error": { "kind": "cancelled", "message": "cancelled" },
            })
        );
    }
}
