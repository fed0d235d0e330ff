//! [`Pending`]: the state of a reap that has not ended.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::Act;
#[allow(unused_imports, reason = "for links")]
use crate::{Reactor, reaper::Reaper};

/// A reap that is under way, from [`Reactor::pending`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Pending<'a> {
    /// The first directory of the target.
    pub path: &'a Path,
    /// The reap's [`tag`](Reaper::tag), if it has one.
    pub tag: Option<u64>,
    /// What the reap does now.
    pub phase: Phase,
    /// When the reap began: at the spawn or, if another thread handed it over, in a turn after it.
    pub since: Instant,
    /// Attempts to kill so far.
    pub attempts: u32,
    /// The error that keeps the reap from going on, if there is one. It is gone once a retry succeeds.
    pub last_error: Option<LastError<'a>>,
}

/// What a reap does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The reap waits until the target is empty, and sends no signal: [`Reaper::when_empty`].
    Waiting,
    /// The reap waits for the time of [`Reaper::linger`], and sends no signal yet.
    Lingering,
    /// The members have been sent the signal of [`Reaper::grace`], or are being sent it.
    Grace,
    /// The reap sends SIGKILL, waits for the members to exit, and removes the directories.
    Killing,
    /// How the reap ends is decided. It undoes its freeze, or gives members that were sent SIGKILL at the
    /// deadline some time to exit.
    Ending,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Waiting => "waiting",
            Phase::Lingering => "lingering",
            Phase::Grace => "grace",
            Phase::Killing => "killing",
            Phase::Ending => "ending",
        })
    }
}

/// An error that keeps a reap from going on.
#[derive(Debug)]
#[non_exhaustive]
pub struct LastError<'a> {
    /// The operation that failed.
    pub act: Act,
    /// The file, directory or process (`/proc/PID`) on which the operation failed.
    pub path: &'a Path,
    /// The cause.
    pub source: io::Error,
}

impl fmt::Display for LastError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.act, self.path.display(), self.source)
    }
}
