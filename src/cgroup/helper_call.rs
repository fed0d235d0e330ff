//! [`HelperCall`]: the target's record of a call that a helper thread makes for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::identity::Id;

/// The state that the thread and the target share. One compare-exchange decides whether the call is begun or given up.
pub(super) struct Shared(AtomicU8);

/// The reap wants the call.
const WANTED: u8 = 0;
/// The thread has begun the call, which has not failed so far. It may have its effect before it returns.
const BEGUN: u8 = 1;
/// The call has failed, or the reap has given it up.
const OVER: u8 = 2;

impl Shared {
    /// Whether the reap still wants the call.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.load(Relaxed) == WANTED
    }

    /// Makes the call; `None` if it is not wanted any more.
    pub(super) fn call(&self, call: impl FnOnce() -> io::Result<()>) -> Option<io::Result<()>> {
        self.0.compare_exchange(WANTED, BEGUN, Relaxed, Relaxed).ok()?;
        let result = call();
        if result.is_err() {
            self.0.store(OVER, Relaxed);
        }
        Some(result)
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
        HelperCall { of, shared: Arc::new(Shared(AtomicU8::new(WANTED))), state: State::UnderWay }
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
        self.shared.0.load(Relaxed) == BEGUN
    }

    /// Gives the call up, unless it was begun.
    pub(super) fn give_up(&self) {
        _ = self.shared.0.compare_exchange(WANTED, OVER, Relaxed, Relaxed);
    }
}

impl Drop for HelperCall {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> HelperCall {
        HelperCall::new(Id { dev: 1, ino: 1 })
    }

    #[test]
    fn a_call_is_either_begun_or_given_up() {
        let given_up = call();
        let shared = given_up.shared();
        given_up.give_up();
        assert!(!given_up.has_begun() && !shared.is_wanted());
        assert!(shared.call(|| panic!("it is not made")).is_none());
        let begun = call();
        let shared = begun.shared();
        let made = shared.call(|| {
            begun.give_up();
            assert!(begun.has_begun(), "what has begun cannot be given up");
            Ok(())
        });
        assert!(made.unwrap().is_ok() && begun.has_begun());
    }

    #[test]
    fn a_call_that_has_failed_has_not_begun_and_a_dropped_one_is_not_wanted() {
        let failed = call();
        let made = failed.shared().call(|| Err(io::ErrorKind::Other.into()));
        assert!(made.unwrap().is_err() && !failed.has_begun());
        let dropped = call();
        let shared = dropped.shared();
        drop(dropped);
        assert!(shared.call(|| panic!("it is not made")).is_none());
    }
}
