//! [`HelperCall`]: the target's record of a call that a helper thread makes for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::identity::Id;

/// The state that the thread and the target share.
pub(super) struct Shared {
    /// Whether the reap still wants the call.
    wanted: AtomicBool,
    /// Whether the call was begun, and has not failed so far. It may have its effect before it returns.
    begun: AtomicBool,
}

impl Shared {
    /// Whether the reap still wants the call.
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

/// The state of a call. When it is dropped, the call is not wanted any more.
pub(super) struct HelperCall {
    /// The directory that the call is for.
    pub(super) of: Id,
    shared: Arc<Shared>,
    state: State,
}

enum State {
    UnderWay,
    Made(io::Result<()>),
    /// The step is to make the call itself.
    Here,
}

/// What a step has left to do for a call.
pub(super) enum Left {
    /// To make the call, or to leave it to a helper thread.
    All,
    /// Nothing, because the thread is making the call.
    Nothing,
    /// To note the result.
    Result(Id, io::Result<()>),
    /// To make the call, without a helper thread.
    Here,
}

impl HelperCall {
    pub(super) fn new(of: Id) -> HelperCall {
        let shared = Shared { wanted: AtomicBool::new(true), begun: AtomicBool::new(false) };
        HelperCall { of, shared: Arc::new(shared), state: State::UnderWay }
    }

    /// The thread's half of the record.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Returns what a step has left to do, and takes the call unless it is under way.
    pub(super) fn take(call: &mut Option<Box<HelperCall>>) -> Left {
        let Some(mut taken) = call.take_if(|it| !matches!(it.state, State::UnderWay)) else {
            return if call.is_some() { Left::Nothing } else { Left::All };
        };
        match std::mem::replace(&mut taken.state, State::Here) {
            State::Made(result) => Left::Result(taken.of, result),
            State::UnderWay | State::Here => Left::Here,
        }
    }

    /// Notes the result of the call; `None` if the thread has not made it.
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
