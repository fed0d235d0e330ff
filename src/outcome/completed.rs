//! [`Completed`]: a reap that has ended, with its tag, its path and its result.

use std::path::PathBuf;

use super::{ReapError, Reaped};
#[allow(unused_imports, reason = "for links")]
use crate::{Reactor, reaper::Reaper};

/// A reap that has ended, from [`Reactor::drain_completed`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Completed {
    /// The reap's [`tag`](Reaper::tag).
    pub tag: u64,
    /// The first directory of the target, also if it did not exist at the spawn.
    pub path: PathBuf,
    /// The result, which the reap's [`ReapHandle`](crate::ReapHandle) has too.
    pub result: Result<Reaped, ReapError>,
}

impl Completed {
    /// Makes a `Completed`, for tests of code that handles it.
    pub fn new(tag: u64, path: impl Into<PathBuf>, result: Result<Reaped, ReapError>) -> Completed {
        Completed { tag, path: path.into(), result }
    }
}
