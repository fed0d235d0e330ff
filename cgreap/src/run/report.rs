//! The JSON object about a run, for `--report`. `cgreap run --help` describes it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::children::Ended;
use super::ending;
use super::left::Left;
use super::outcome::Outcome;

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
        let line = format!("{object}\n");
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
    pub ended: Option<Ended>,
    pub started: SystemTime,
    pub elapsed: Duration,
    pub group: &'a Path,
    pub left: &'a Left,
    pub result: &'a ending::Result,
}

impl Report<'_> {
    pub fn object(&self) -> Value {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
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
            "command": words,
            "status": self.status,
            "outcome": self.outcome.word(),
            "exit_code": exit_code,
            "signal": signal,
            "started": utc(self.started),
            "elapsed_us": self.elapsed.as_micros() as u64,
            "group": self.group.to_string_lossy(),
            "left": left,
            "left_count": self.left.count(),
            "effort": {
                "method": effort.method.map(|method| method.to_string()),
                "signalled": effort.signalled,
                "attempts": effort.attempts,
                "elapsed_us": effort.elapsed.as_micros() as u64,
            },
            "error": error,
            "cpu": usage.cpu,
            "memory_peak": usage.memory_peak,
            "pids_peak": usage.pids_peak,
            "oom_kill": usage.oom_kill,
        })
    }
}

/// RFC 3339, to the millisecond.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date of a day, counted from 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for days in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }
}
