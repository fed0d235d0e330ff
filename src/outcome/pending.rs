//! [`Pending`]: how far a reap has come that has not ended.

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
    /// As given by [`Reaper::tag`], if it was.
    pub tag: Option<u64>,
    /// What it does now.
    pub phase: Phase,
    /// When it began.
    pub since: Instant,
    /// Attempts to kill so far.
    pub attempts: u32,
    /// What kept it from going on when it last tried, if an error did.
    pub last_error: Option<LastError<'a>>,
}

/// What a reap does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It waits until the target is empty, and sends no signal: [`Reaper::when_empty`].
    Waiting,
    /// It waits for [`Reaper::linger`].
    Lingering,
    /// The members have been sent the signal of [`Reaper::grace`], or are being sent it.
    Grace,
    /// It sends SIGKILL, waits for the members to exit, and removes the directories.
    Killing,
    /// How it ends is decided: it undoes its freeze, or gives what it killed at the deadline some time to exit.
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

/// What kept a reap from going on when it last tried.
#[derive(Debug)]
#[non_exhaustive]
pub struct LastError<'a> {
    /// What could not be done.
    pub act: Act,
    /// The file, directory or process (`/proc/PID`) that it could not be done on.
    pub path: &'a Path,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for LastError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.act, self.path.display(), self.source)
    }
}
