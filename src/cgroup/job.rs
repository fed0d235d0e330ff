//! [`Job`]: what a target has a helper thread do, because the call may take long and cannot be cut.
//!
//! A job is a value that owns the descriptors that it works on, so that nothing becomes of the target meanwhile that it
//! would have to know. Its [`Answer`] is passed to the target, if that is still reaped by then.

use super::release::{Release, Released};
use crate::sys::Sys;

/// What a helper thread is to do.
pub(crate) enum Job<S: Sys> {
    /// Releases the memory of processes.
    Release(Release<S>),
    /// What a test wants.
    #[cfg(test)]
    Test(Box<dyn FnOnce() + Send>),
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    Released(Released),
}

impl<S: Sys> Job<S> {
    /// Does it. Logs nothing: a logger is foreign code, and the thread's stack is small.
    pub(crate) fn run(self, sys: &S) -> Answer {
        match self {
            Job::Release(release) => Answer::Released(release.run(sys)),
            #[cfg(test)]
            Job::Test(act) => {
                act();
                Answer::Released(Released::default())
            }
        }
    }
}
