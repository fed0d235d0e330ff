//! [`HelperCall`]: a call that a helper thread makes for a target, seen from the target.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::identity::Id;

/// What the thread and the target tell each other.
pub(super) struct Shared {
    /// The reap goes on.
    wanted: AtomicBool,
    /// The call was begun, and did not fail so far. It may have had its effect before it returns.
    begun: AtomicBool,
}

impl Shared {
    /// Whether the reap still wants it.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Makes the call.
    pub(super) fn call(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.begun.store(true, Relaxed);
        let result = call();
        self.begun.store(result.is_ok(), Relaxed);
        result
    }
}

/// How far a call has come. Dropped, it is not wanted any more.
pub(super) struct HelperCall {
    /// The directory that it is for.
    pub(super) of: Id,
    shared: Arc<Shared>,
    state: State,
}

enum State {
    UnderWay,
    Made(io::Result<()>),
    /// It is to be made by the step.
    Here,
}

/// What is left to do for a step.
pub(super) enum Left {
    /// Everything.
    All,
    /// Nothing, for the thread is at it.
    Nothing,
    /// To take note of the result.
    Result(Id, io::Result<()>),
    /// Everything, and without a helper.
    Here,
}

impl HelperCall {
    pub(super) fn new(of: Id) -> HelperCall {
        let shared = Shared { wanted: AtomicBool::new(true), begun: AtomicBool::new(false) };
        HelperCall { of, shared: Arc::new(shared), state: State::UnderWay }
    }

    /// What the thread is to have.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Takes what is left to do for a step.
    pub(super) fn take(call: &mut Option<Box<HelperCall>>) -> Left {
        let Some(mut taken) = call.take_if(|it| !matches!(it.state, State::UnderWay)) else {
            return if call.is_some() { Left::Nothing } else { Left::All };
        };
        match std::mem::replace(&mut taken.state, State::Here) {
            State::Made(result) => Left::Result(taken.of, result),
            State::UnderWay | State::Here => Left::Here,
        }
    }

    /// Notes what came of it.
    pub(super) fn note(&mut self, answer: Option<io::Result<()>>) {
        self.state = answer.map_or(State::Here, State::Made);
    }

    /// Whether the call was begun, and has not failed as far as is known.
    pub(super) fn has_begun(&self) -> bool {
        self.shared.begun.load(Relaxed)
    }
}

impl Drop for HelperCall {
    fn drop(&mut self) {
        self.shared.wanted.store(false, Relaxed);
    }
}
