//! [`Completed`]: a reap that has ended, with what the caller knows it by.

use std::path::PathBuf;

use super::{ReapError, Reaped};
#[allow(unused_imports, reason = "for links")]
use crate::{Reactor, reaper::Reaper};

/// A reap that has ended, from [`Reactor::drain_completed`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Completed {
    /// As given by [`Reaper::tag`].
    pub tag: u64,
    /// The first directory of the target, or what the caller named where there was none.
    pub path: PathBuf,
    /// What its [`ReapHandle`](crate::ReapHandle) says as well.
    pub result: Result<Reaped, ReapError>,
}

impl Completed {
    /// Makes one, for tests of code that handles it.
    pub fn new(tag: u64, path: impl Into<PathBuf>, result: Result<Reaped, ReapError>) -> Completed {
        Completed { tag, path: path.into(), result }
    }
}
