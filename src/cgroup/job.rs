//! [`Job`]: a call that a helper thread makes for a target, because it may take long and cannot be cut.
//!
//! A job owns the descriptors that it works on, so it does not depend on what happens to the target meanwhile. Its
//! [`Answer`] is passed to the target, if the reap still goes on.

use std::io;

use super::kill_by_helper::CgroupKillWrite;
use super::release::{Release, Released};
use super::remove_by_helper::Removal;
use crate::sys::Sys;

/// The work of a helper thread.
pub(crate) enum Job<S: Sys> {
    /// Releases the memory of processes.
    Release(Release<S>),
    /// Writes to `cgroup.kill`.
    CgroupKill(CgroupKillWrite<S>),
    /// Removes directories.
    Remove(Removal<S>),
    /// Work of a test.
    #[cfg(test)]
    Test { urgent: bool, act: Box<dyn FnOnce() + Send> },
}

/// The result of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    Released(Released),
    /// The result of the write to `cgroup.kill`; `None` if it was not made, because the caller may have moved
    /// in.
    CgroupKill(Option<io::Result<()>>),
    /// The result of the removal; `None` if it was not made, and the step has to find out why.
    Removed(Option<io::Result<()>>),
}

impl<S: Sys> Job<S> {
    /// Whether the job must not wait for a thread.
    pub(crate) fn is_urgent(&self) -> bool {
        match self {
            Job::CgroupKill(_) => true,
            Job::Release(_) | Job::Remove(_) => false,
            #[cfg(test)]
            Job::Test { urgent, .. } => *urgent,
        }
    }

    /// Does the job. Logs nothing: a logger is foreign code, and the thread's stack is small.
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
