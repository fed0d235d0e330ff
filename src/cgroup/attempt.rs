//! What an attempt has opened, and what it came to so far.

use crate::machine::Reach;
use crate::outcome::UsedMethod;
use crate::sys::{Pid, Sys};

/// What an attempt came to so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) signalled: u64,
    pub(crate) method: Option<UsedMethod>,
    pub(crate) reach: Reach,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { signalled: 0, method: None, reach: Reach::All }
    }

    /// Notes that some member was not reached.
    pub(crate) fn missed(&mut self, reach: Reach) {
        self.reach = self.reach.max(reach);
    }
}

/// Which of the members of a list an attempt takes in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Those after this one, in the order of pids; `None`: from the first on.
    pub(crate) after: Option<Pid>,
    /// At the most.
    pub(crate) most: usize,
}

/// Processes opened for a signal, whose membership is still to be verified.
pub(crate) struct Opened<S: Sys> {
    pub(super) pidfds: Vec<(Pid, S::Fd)>,
    /// The last one dealt with, in the order of pids, if there are more than one step takes.
    pub(crate) unfinished: Option<Pid>,
}

impl<S: Sys> Opened<S> {
    pub(crate) fn is_empty(&self) -> bool {
        self.pidfds.is_empty()
    }
}

/// Whether there are pidfds.
pub(crate) enum Pidfds<S: Sys> {
    Opened(Opened<S>),
    Unsupported,
}
