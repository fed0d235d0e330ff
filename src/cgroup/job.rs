//! [`Job`]: what a target has a helper thread do, because the call may take long and cannot be cut.
//!
//! A job is a value that owns the descriptors that it works on, so that nothing becomes of the target meanwhile that it
//! would have to know. Its [`Answer`] is passed to the target, if that is still reaped by then.

use std::io;

use super::kill_by_helper::CgroupKillWrite;
use super::release::{Release, Released};
use super::remove_by_helper::Removal;
use crate::sys::Sys;

/// What a helper thread is to do.
pub(crate) enum Job<S: Sys> {
    /// Releases the memory of processes.
    Release(Release<S>),
    /// Writes to `cgroup.kill`.
    CgroupKill(CgroupKillWrite<S>),
    /// Removes directories.
    Remove(Removal<S>),
    /// What a test wants.
    #[cfg(test)]
    Test { urgent: bool, act: Box<dyn FnOnce() + Send> },
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    Released(Released),
    /// `cgroup.kill` was written, with this result; `None`: it was not, because the caller may have moved in.
    CgroupKill(Option<io::Result<()>>),
    /// The directory was removed, or why it was not; `None`: it is for the target to find out.
    Removed(Option<io::Result<()>>),
}

impl<S: Sys> Job<S> {
    /// Whether it must not wait for a thread.
    pub(crate) fn is_urgent(&self) -> bool {
        match self {
            Job::CgroupKill(_) => true,
            Job::Release(_) | Job::Remove(_) => false,
            #[cfg(test)]
            Job::Test { urgent, .. } => *urgent,
        }
    }

    /// Does it. Logs nothing: a logger is foreign code, and the thread's stack is small.
    pub(crate) fn run(self, sys: &S) -> Answer {
        match self {
            Job::Release(release) => Answer::Released(release.run(sys)),
            Job::CgroupKill(write) => Answer::CgroupKill(write.run(sys)),
            Job::Remove(removal) => Answer::Removed(removal.run(sys)),
            #[cfg(test)]
            Job::Test { act, .. } => {
                act();
                Answer::Released(Released::default())
            }
        }
    }
}
