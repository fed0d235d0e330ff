//! What a reap came to: [`Reaped`], [`ReapError`], and the refusals of a spawn; and how far one has come. Plain values.

mod completed;
mod error;
mod pending;
mod refusal;

use std::fmt;
use std::time::Duration;

pub use self::completed::Completed;
pub use self::error::{Act, ReapError, Survivor};
pub use self::pending::{LastError, Pending, Phase};
pub use self::refusal::{Refusal, SpawnError};
#[allow(unused_imports, reason = "for links")]
use crate::reaper::Reaper;

/// A finished reap: every process of the target is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Reaped {
    /// What became of the target's directories.
    pub outcome: Outcome,
    /// The last way of killing that was used; `None` where nothing had to be killed.
    pub method: Option<UsedMethod>,
    /// Processes that were sent a signal one by one. `cgroup.kill` signals inside the kernel, which
    /// does not say how many, so it adds nothing here.
    pub signalled: u64,
    /// Attempts to kill: 1 for a target that died of the first. Most later attempts signal only members that were not
    /// sent SIGKILL before.
    pub attempts: u32,
    /// Processes whose memory was released before they exited, see
    /// [`Reaper::release_memory`].
    pub released: u64,
    /// Time from the spawn to completion.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_us", serialize_with = "crate::serialize::micros"))]
    pub elapsed: Duration,
}

impl Reaped {
    /// Makes one of which only the outcome is known, for tests of a program that handles it. The fields can be set.
    ///
    /// ```
    /// use cgroup_reaper::{Outcome, Reaped};
    ///
    /// let mut reaped = Reaped::new(Outcome::Removed);
    /// reaped.attempts = 1;
    /// ```
    pub fn new(outcome: Outcome) -> Reaped {
        Reaped { outcome, method: None, signalled: 0, attempts: 0, released: 0, elapsed: Duration::ZERO }
    }

    /// Returns what was done, as [`ReapError::effort`] does for a reap that failed.
    pub fn effort(&self) -> Effort {
        let Reaped { outcome: _, method, signalled, attempts, released, elapsed } = *self;
        Effort { method, signalled, attempts, released, elapsed }
    }
}

/// What was done for a reap, also if it ended with an error. The fields are those of [`Reaped`]; by default nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Effort {
    /// As [`Reaped::method`].
    pub method: Option<UsedMethod>,
    /// As [`Reaped::signalled`].
    pub signalled: u64,
    /// As [`Reaped::attempts`].
    pub attempts: u32,
    /// As [`Reaped::released`].
    pub released: u64,
    /// As [`Reaped::elapsed`].
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_us", serialize_with = "crate::serialize::micros"))]
    pub elapsed: Duration,
}

/// What became of the target's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// They were there at the spawn, every process is dead, and they have been removed: by this library or, in a race, by
    /// the system's release agent or another party.
    Removed,
    /// They are empty and were left in place, as [`Reaper::keep_dir`] asked, or to systemd, see
    /// [`limitations`](crate::limitations#systemd).
    Emptied,
    /// There was nothing at the spawn.
    AlreadyGone,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Removed => "removed",
            Outcome::Emptied => "emptied",
            Outcome::AlreadyGone => "already gone",
        })
    }
}

/// How processes were killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UsedMethod {
    /// A write to `cgroup.kill` (cgroup v2, Linux 5.14).
    CgroupKill,
    /// SIGKILL through pidfds whose membership in the target was verified after they were opened.
    Pidfd,
    /// Frozen first, then signalled, then thawed.
    Freezer,
    /// kill(2) on pids just read, unverified: only with
    /// [`Reaper::kill_without_freezer`] on a
    /// kernel that refuses pidfds.
    Unverified,
}

impl fmt::Display for UsedMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            UsedMethod::CgroupKill => "cgroup.kill",
            UsedMethod::Pidfd => "pidfd",
            UsedMethod::Freezer => "freezer",
            UsedMethod::Unverified => "unverified kill",
        })
    }
}
