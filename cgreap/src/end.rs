//! How a target ended.

use std::fmt;
use std::time::Duration;

use cgroup_reaper::{Outcome, ReapError, Reaped, Refusal};

use crate::status::{ALL_REAPED, NOT_REAPED, REFUSED};

/// How one target ended, and how long that took.
#[derive(Debug)]
pub struct End {
    pub result: Result<Reaped, Failure>,
    pub elapsed: Duration,
}

#[derive(Debug)]
pub enum Failure {
    /// The reap failed, or was refused.
    Reap(ReapError),
    /// A signal came before its turn.
    NotStarted,
    /// It does not exist, and has to.
    Missing,
}

impl End {
    /// The exit status that follows from it. Of several targets the highest status counts.
    pub fn status(&self) -> u8 {
        match &self.result {
            Ok(_) => ALL_REAPED,
            Err(Failure::Reap(ReapError::Refused { refusal, .. })) => match refusal {
                // The kernel's answer, not the user's mistake.
                Refusal::Io { .. } | Refusal::Disconnected => NOT_REAPED,
                _ => REFUSED,
            },
            Err(_) => NOT_REAPED,
        }
    }
}

impl End {
    /// The same, if a target that is gone already is a failure.
    pub fn required(self) -> End {
        match self.result {
            Ok(reaped) if reaped.outcome == Outcome::AlreadyGone => {
                End { result: Err(Failure::Missing), elapsed: self.elapsed }
            }
            result => End { result, elapsed: self.elapsed },
        }
    }
}

impl Failure {
    /// The failure in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Reap(error) => error.kind(),
            Failure::NotStarted => "cancelled",
            Failure::Missing => "missing",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Reap(error) => error.fmt(f),
            Failure::NotStarted => f.write_str("cancelled"),
            Failure::Missing => f.write_str("no such cgroup"),
        }
    }
}
