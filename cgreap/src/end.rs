//! How a target ended.

use std::fmt;
use std::time::Duration;

use cgroup_reaper::{ReapError, Reaped, Refusal, SpawnError};

use crate::status::{ALL_REAPED, NOT_REAPED, REFUSED};

/// How one target ended, and how long that took.
#[derive(Debug)]
pub struct End {
    pub result: Result<Reaped, Failure>,
    pub elapsed: Duration,
}

#[derive(Debug)]
pub enum Failure {
    /// The reactor refused to start the reap.
    Refused(SpawnError),
    /// The reap failed.
    Reap(ReapError),
}

impl End {
    /// The exit status that follows from it. Of several targets the highest status counts.
    pub fn status(&self) -> u8 {
        match &self.result {
            Ok(_) => ALL_REAPED,
            Err(Failure::Reap(_)) => NOT_REAPED,
            Err(Failure::Refused(error)) => match error.refusal() {
                // The kernel's answer, not the user's mistake.
                Refusal::Io { .. } | Refusal::Disconnected => NOT_REAPED,
                _ => REFUSED,
            },
        }
    }
}

impl Failure {
    /// The failure in a word, as the JSON has it.
    pub fn kind(&self) -> &'static str {
        match self {
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
                ReapError::Cancelled { .. } => "cancelled",
                ReapError::Disconnected { .. } => "disconnected",
                _ => "other",
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => error.fmt(f),
            Failure::Reap(error) => error.fmt(f),
        }
    }
}
