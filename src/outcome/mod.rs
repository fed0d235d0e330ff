//! The result of a reap ([`Reaped`], [`ReapError`]), the refusal of a spawn, and the state of a reap under way. Plain
//! values.

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
    /// What happened to the target's directories.
    pub outcome: Outcome,
    /// The method of the last attempt to kill; `None` if there was nothing to kill.
    pub method: Option<UsedMethod>,
    /// The number of processes that were signalled one by one. Processes that a write to `cgroup.kill` signals
    /// are not counted, because the kernel does not say how many they are.
    pub signalled: u64,
    /// The number of attempts to kill: 1 if the first one killed all members. Most later attempts signal only members
    /// that were not sent SIGKILL before.
    pub attempts: u32,
    /// The number of processes whose memory was released before they exited, see [`Reaper::release_memory`].
    pub released: u64,
    /// Time from the spawn to completion. If a `Remote`, a `TokioReactor` or a `ReapGuard` handed the reap over, the time
    /// begins in the next turn of the reactor.
    #[cfg_attr(feature = "serde", serde(rename = "elapsed_us", serialize_with = "crate::serialize::micros"))]
    pub elapsed: Duration,
}

impl Reaped {
    /// Makes a `Reaped` with this outcome, for tests of a program that handles it. The other fields are zero, and
    /// can be set.
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

    /// Returns what the reap did, as [`ReapError::effort`] does for a reap that failed.
    pub fn effort(&self) -> Effort {
        let Reaped { outcome: _, method, signalled, attempts, released, elapsed } = *self;
        Effort { method, signalled, attempts, released, elapsed }
    }
}

/// What a reap did, also if it ended with an error. The fields are those of [`Reaped`]. The default stands for a reap
/// that did nothing.
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

/// What happened to the target's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The directories existed at the spawn, every process is dead, and the directories have been removed: by this
    /// library or, in a race, by the system's release agent or another party.
    Removed,
    /// The directories are empty and were left in place: because of [`Reaper::keep_dir`], or because systemd
    /// removes them, see [`limitations`](crate::limitations#systemd).
    Emptied,
    /// None of the directories existed at the spawn.
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
    /// The target was frozen, its members were signalled, and the target was thawed.
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
