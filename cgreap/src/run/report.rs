//! The JSON object about a run, for `--report`. `cgreap run --help` describes it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::children::Ended;
use super::ending;
use super::left::Left;
use super::outcome::Outcome;
use crate::console::json_line;

/// Where the object is written to. Opened before the start of the command, so that a wrong path is known then.
#[derive(Debug)]
pub enum Sink {
    Stderr,
    File(File),
}

impl Sink {
    pub fn open(path: &Path) -> io::Result<Sink> {
        if path == Path::new("-") { Ok(Sink::Stderr) } else { File::create(path).map(Sink::File) }
    }

    pub fn write(&mut self, object: &Value) -> io::Result<()> {
        let line = json_line(object);
        match self {
            Sink::Stderr => io::stderr().write_all(line.as_bytes()),
            Sink::File(file) => file.write_all(line.as_bytes()),
        }
    }
}

/// What is reported.
#[derive(Debug)]
pub struct Report<'a> {
    pub command: &'a [OsString],
    pub status: u8,
    pub outcome: Outcome,
    /// How the command ended, if it was executed and has ended.
    pub ended: Option<Ended>,
    /// Why the command was not executed.
    pub failure: Option<&'a str>,
    pub started: SystemTime,
    pub elapsed: Duration,
    pub group: &'a Path,
    pub left: &'a Left,
    pub result: &'a ending::Result,
}

impl Report<'_> {
    pub fn object(&self) -> Value {
        let (exit_code, signal) = match self.ended {
            Some(Ended::Exited(code)) => (Some(code), None),
            Some(Ended::Signalled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let left: Vec<_> = self
            .left
            .processes
            .iter()
            .map(|process| -> Value {
                json!({
                    "pid": process.pid,
                    "command": process.command,
                    "state": process.state.map(String::from),
                })
            })
            .collect();
        let ending::Result { effort, usage, error } = self.result;
        json!({
            "command": words(self.command),
            "status": self.status,
            "outcome": self.outcome.word(),
            "exit_code": exit_code,
            "signal": signal,
            "started": utc(self.started),
            "elapsed_us": self.elapsed.as_micros() as u64,
            "group": self.group.to_string_lossy(),
            "left": left,
            "left_count": self.left.count(),
            "effort": effort,
            "error": error.as_deref().or(self.failure),
            "cpu": usage.cpu,
            "memory_peak": usage.memory_peak,
            "pids_peak": usage.pids_peak,
            "oom_kill": usage.oom_kill,
        })
    }
}

/// The object about a run that did not get as far as the command.
pub fn not_started(command: &[OsString], status: u8, error: &str) -> Value {
    json!({ "command": words(command), "status": status, "outcome": Outcome::Failed.word(), "error": error })
}

fn words(command: &[OsString]) -> Vec<Cow<'_, str>> {
    command.iter().map(|word| word.to_string_lossy()).collect()
}

/// RFC 3339, to the millisecond. A clock before 1970 is told as the first moment of it, one after 9999 not at all.
fn utc(time: SystemTime) -> String {
    let mut text = String::new();
    let _ = write!(text, "{}", humantime::format_rfc3339_millis(time.max(UNIX_EPOCH)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_utc() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(utc(at(1_798_761_599_001)), "2026-12-31T23:59:59.001Z");
        assert_eq!(utc(UNIX_EPOCH - Duration::from_millis(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(300_000_000_000)), "");
    }
}
