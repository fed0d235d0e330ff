//! What is said about the targets: lines of text or JSON, and a progress bar.
//!
//! It is said by a thread of its own. A reader that is slow to take the lines, or has gone, then holds up
//! neither the reaping nor, which is worse, the thawing of what is frozen for it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{Outcome, ReapError, Refusal, Survivor, UsedMethod};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::args::Where;
use crate::reap::{End, Failure, Interrupt};

/// Fewer targets than this get no progress bar.
const MANY: usize = 10;
/// Nor do those that are done this soon.
const BAR_DELAY: Duration = Duration::from_millis(250);
const BAR_TICK: Duration = Duration::from_millis(100);
/// After a signal, how long the reader of stdout may take for what is left to say.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// Says something on stderr, if anybody listens.
pub fn complain(message: &str) {
    say(&mut io::stderr(), &format!("cgreap: {}\n", printable(message)));
}

/// Writes to stdout, if anybody listens.
pub fn print(text: &str) {
    say(&mut io::stdout(), text);
}

/// Unlike with `eprint!` it is no panic if nobody listens.
fn say(stream: &mut dyn io::Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// The reporting thread, seen from outside.
#[derive(Debug)]
pub struct Reporter {
    ends: Sender<(usize, End)>,
    done: Receiver<Said>,
}

/// How the reporting went.
#[derive(Debug)]
pub struct Said {
    /// Why stdout could not be written to.
    pub stdout: io::Result<()>,
    /// Whether somebody watched a progress bar.
    pub bar_shown: bool,
}

impl Reporter {
    pub fn start(
        names: Vec<PathBuf>,
        place: Option<Where>,
        json: bool,
        verbose: bool,
    ) -> io::Result<Reporter> {
        // A bar and log lines, or a bar and JSON, would tear each other to pieces on one terminal.
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
        let (say_done, done) = mpsc::channel();
        thread::Builder::new().name("report".to_owned()).spawn(move || say_done.send(writer.run(&inbox)))?;
        Ok(Reporter { ends, done })
    }

    pub fn report(&self, index: usize, end: End) {
        // The thread listens for as long as `self` lives.
        let _ = self.ends.send((index, end));
    }

    /// Waits until all is said; but after a signal not for a reader that does not read.
    pub fn finish(self, interrupt: &Interrupt) -> Said {
        drop(self.ends);
        let unsaid = |stdout| Said { stdout, bar_shown: false };
        let mut interrupted_at = None;
        loop {
            match self.done.recv_timeout(Duration::from_millis(100)) {
                Ok(said) => return said,
                Err(RecvTimeoutError::Disconnected) => {
                    return unsaid(Err(io::Error::other("the report panicked")));
                }
                Err(RecvTimeoutError::Timeout) if interrupt.signal().is_some() => {
                    let at = *interrupted_at.get_or_insert_with(Instant::now);
                    if at.elapsed() > READER_PATIENCE {
                        return unsaid(Ok(()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The reporting thread, seen from inside.
struct Writer {
    lines: Lines,
    bar: Option<Bar>,
    /// Nothing more is written to stdout after this.
    stdout_error: Option<io::Error>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<(usize, End)>) -> Said {
        while let Some(first) = self.next(inbox) {
            // What piled up meanwhile goes out in one write.
            let (mut out, mut err) = (String::new(), String::new());
            for (index, end) in first.into_iter().chain(inbox.try_iter().take(1000)) {
                self.lines.add(index, &end, &mut out, &mut err);
                if let Some(bar) = &mut self.bar {
                    bar.count(&end);
                }
            }
            if let Some(bar) = self.bar.as_mut() {
                bar.show_when_due();
            }
            match self.bar.as_ref().map(|bar| bar.bar.clone()) {
                // Takes the bar off the terminal for the time of the write.
                Some(bar) if !(out.is_empty() && err.is_empty()) => bar.suspend(|| self.write(&out, &err)),
                _ => self.write(&out, &err),
            }
        }
        if let Some(bar) = &self.bar {
            bar.bar.finish_and_clear();
        }
        let bar_shown = self.bar.is_some_and(|bar| bar.shown);
        Said { stdout: self.stdout_error.map_or(Ok(()), Err), bar_shown }
    }

    /// The next end to report; `None` inside if it is only time to move the bar, outside after the last.
    fn next(&self, inbox: &Receiver<(usize, End)>) -> Option<Option<(usize, End)>> {
        if self.bar.is_none() {
            return inbox.recv().ok().map(Some);
        }
        match inbox.recv_timeout(BAR_TICK) {
            Ok(end) => Some(Some(end)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn write(&mut self, out: &str, err: &str) {
        if !out.is_empty() && self.stdout_error.is_none() {
            let mut stdout = io::stdout().lock();
            self.stdout_error = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()).err();
        }
        if !err.is_empty() {
            say(&mut io::stderr(), err);
        }
    }
}

/// The progress bar, on stderr.
struct Bar {
    bar: ProgressBar,
    since: Instant,
    shown: bool,
    ended: u64,
    failed: u64,
}

impl Bar {
    fn new(targets: usize) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(targets as u64), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("[{bar:40}] {pos}/{len} ended{msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Bar { bar, since: Instant::now(), shown: false, ended: 0, failed: 0 }
    }

    fn count(&mut self, end: &End) {
        self.ended += 1;
        self.failed += u64::from(end.result.is_err());
    }

    fn show_when_due(&mut self) {
        if !self.shown && self.since.elapsed() >= BAR_DELAY {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if self.failed > 0 {
            self.bar.set_message(format!(", {} not reaped", self.failed));
        }
        self.bar.set_position(self.ended);
        self.bar.tick();
    }
}

/// Makes the lines.
struct Lines {
    names: Vec<PathBuf>,
    place: Option<Where>,
    json: bool,
}

impl Lines {
    /// Adds the line about one end to what goes to stdout or to stderr.
    fn add(&self, index: usize, end: &End, out: &mut String, err: &mut String) {
        let name = &self.names[index];
        // Writing to a string does not fail.
        let _ = match (self.json, &end.result) {
            (true, _) => writeln!(out, "{}", object(name, self.place.as_ref(), end)),
            (false, Ok(_)) => writeln!(out, "{}", printable(&text(name, end))),
            (false, Err(_)) => writeln!(err, "cgreap: {}", printable(&text(name, end))),
        };
    }
}

fn text(name: &Path, end: &End) -> String {
    let name = if name.as_os_str().is_empty() { "\"\"".into() } else { name.to_string_lossy() };
    match &end.result {
        Ok(reaped) if reaped.outcome == Outcome::AlreadyGone => format!("{name}: {}", reaped.outcome),
        Ok(reaped) => {
            let how = how(reaped.method, reaped.signalled, reaped.attempts);
            format!("{name}: {} ({how}, {})", reaped.outcome, human(end.elapsed))
        }
        Err(failure) => named(&name, &failure.to_string()),
    }
}

fn how(method: Option<UsedMethod>, signalled: u64, attempts: u32) -> String {
    let Some(method) = method else { return "nothing to kill".to_owned() };
    let signalled = match signalled {
        0 => String::new(),
        1 => "1 process signalled, ".to_owned(),
        n => format!("{n} processes signalled, "),
    };
    format!("{method}, {signalled}{attempts} {}", if attempts == 1 { "attempt" } else { "attempts" })
}

/// The library's messages begin with the path they are about, which mostly is the name.
fn named(name: &str, message: &str) -> String {
    // As a shell completes it.
    let name = if name == "/" { name } else { name.trim_end_matches('/') };
    if message.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')) {
        message.to_owned()
    } else {
        format!("{name}: {message}")
    }
}

/// A duration for reading: milliseconds, or seconds from the first on.
pub fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// The text with control characters escaped: names of cgroups and processes are other people's, and
/// might send a terminal what it obeys.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
        safe
    })
}

fn object(name: &Path, place: Option<&Where>, end: &End) -> Value {
    let mut object = Map::new();
    object.insert("path".to_owned(), lossy(name));
    if let Some(place) = place {
        object.insert("root".to_owned(), lossy(&place.root));
        object.insert("slice".to_owned(), lossy(&place.slice));
        object.insert("subsystems".to_owned(), place.subsystems.iter().map(|path| lossy(path)).collect());
    }
    object.insert("elapsed_us".to_owned(), json!(end.elapsed.as_micros() as u64));
    let (method, signalled, attempts) = match &end.result {
        Ok(reaped) => (reaped.method, reaped.signalled, reaped.attempts),
        Err(Failure::Reap(error)) => {
            error.effort().map_or((None, 0, 0), |effort| (effort.method, effort.signalled, effort.attempts))
        }
        Err(Failure::Refused(_)) => (None, 0, 0),
    };
    object.insert("method".to_owned(), json!(method.map(|method| method.to_string())));
    object.insert("signalled".to_owned(), json!(signalled));
    object.insert("attempts".to_owned(), json!(attempts));
    match &end.result {
        Ok(reaped) => drop(object.insert("outcome".to_owned(), json!(outcome(reaped.outcome)))),
        Err(failure) => {
            let mut error = Map::new();
            error.insert("kind".to_owned(), json!(kind(failure)));
            error.insert("message".to_owned(), json!(failure.to_string()));
            if let Failure::Reap(ReapError::TimedOut { survivors, .. }) = failure {
                error.insert("survivors".to_owned(), survivors.iter().map(survivor).collect());
            }
            object.insert("error".to_owned(), Value::Object(error));
        }
    }
    Value::Object(object)
}

fn outcome(outcome: Outcome) -> String {
    outcome.to_string().replace(' ', "-")
}

/// The failure in a word.
pub fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(error) => match error.refusal() {
            Refusal::Io { .. } => "io",
            Refusal::Disconnected => "disconnected",
            _ => "refused",
        },
        Failure::Reap(error) => match error {
            ReapError::TimedOut { .. } => "timed-out",
            ReapError::Replaced { .. } => "replaced",
            ReapError::Denied { .. } => "denied",
            ReapError::FrozenByAncestor { .. } => "frozen-by-ancestor",
            ReapError::Cancelled => "cancelled",
            ReapError::Disconnected => "disconnected",
            _ => "other",
        },
    }
}

fn survivor(survivor: &Survivor) -> Value {
    json!({
        "pid": survivor.pid,
        "command": survivor.command,
        "state": survivor.state.map(String::from),
        "wait_channel": survivor.wait_channel,
        "frozen_by": survivor.frozen_by.as_deref().map(lossy),
        "kernel_thread": survivor.kernel_thread,
    })
}

fn lossy(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: ReapError) -> End {
        End { result: Err(Failure::Reap(error)), elapsed: Duration::from_micros(1234) }
    }

    fn lines(json: bool, place: Option<Where>, name: &str, end: &End) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        Lines { names: vec![name.into()], place, json }.add(0, end, &mut out, &mut err);
        (out, err)
    }

    #[test]
    fn how_it_was_done_is_told_without_embellishment() {
        assert_eq!(how(None, 0, 0), "nothing to kill");
        assert_eq!(how(Some(UsedMethod::CgroupKill), 0, 1), "cgroup.kill, 1 attempt");
        assert_eq!(how(Some(UsedMethod::Pidfd), 1, 2), "pidfd, 1 process signalled, 2 attempts");
        assert_eq!(how(Some(UsedMethod::Freezer), 7, 1), "freezer, 7 processes signalled, 1 attempt");
    }

    #[test]
    fn durations_are_readable() {
        for (micros, expected) in [
            (0, "0.0 ms"),
            (400, "0.4 ms"),
            (12_345, "12.3 ms"),
            (1_000_000, "1.0 s"),
            (90_000_000, "90.0 s"),
        ] {
            assert_eq!(human(Duration::from_micros(micros)), expected);
        }
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
    fn a_name_cannot_command_the_terminal_nor_fake_a_line() {
        let (_, err) = lines(false, None, "/c/\u{1b}[2J\nb: removed", &failed(ReapError::Cancelled));
        assert_eq!(err, "cgreap: /c/\\u{1b}[2J\\nb: removed: cancelled\n");
    }

    #[test]
    fn json_has_the_documented_fields() {
        let place = Where { root: "/r".into(), slice: "s".into(), subsystems: vec!["freezer".into()] };
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

    #[test]
    fn json_describes_a_survivor() {
        let mut stuck = Survivor::default();
        stuck.pid = 42;
        stuck.command = "sleep".to_owned();
        stuck.state = Some('D');
        stuck.frozen_by = Some("/c/frozen".into());
        assert_eq!(
            survivor(&stuck),
            json!({
                "pid": 42, "command": "sleep", "state": "D", "wait_channel": "",
                "frozen_by": "/c/frozen", "kernel_thread": false,
            })
        );
    }

    #[test]
    fn the_outcomes_have_stable_names() {
        let names = [Outcome::Removed, Outcome::Emptied, Outcome::AlreadyGone].map(outcome);
        assert_eq!(names, ["removed", "emptied", "already-gone"]);
    }
}
