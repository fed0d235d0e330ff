//! How a run ended.

use nix::sys::signal::Signal;

use super::children::Ended;
use super::status::{FAILED, TIMED_OUT};
use crate::exit::Exit;
use crate::status::of_signal;

/// Why cgreap has ended the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `--timeout`
    Timeout,
    /// A signal told cgreap to end.
    Told(Signal),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Command(Ended),
    /// The command was not executed. Its process has ended with this status.
    NotExecuted(u8),
    Ended(Cause),
    /// cgreap has failed, or something is left.
    Failed,
}

impl Outcome {
    /// `executed` is about the command, `ended` about its process.
    pub fn of(failed: bool, cause: Option<Cause>, executed: bool, ended: Option<Ended>) -> Outcome {
        match (failed, cause, ended) {
            (false, Some(cause), Some(_)) => Outcome::Ended(cause),
            (false, None, Some(ended)) if executed => Outcome::Command(ended),
            (false, None, Some(ended)) => Outcome::NotExecuted(ended.status()),
            _ => Outcome::Failed,
        }
    }

    /// How cgreap ends.
    pub fn exit(self) -> Exit {
        match self {
            Outcome::Command(Ended::Signalled(signal)) => Exit::Signal(signal),
            Outcome::Ended(Cause::Told(signal)) => Exit::Signal(signal as i32),
            _ => Exit::Status(self.status()),
        }
    }

    /// Its exit status, as shells tell it.
    pub fn status(self) -> u8 {
        match self {
            Outcome::Command(ended) => ended.status(),
            Outcome::NotExecuted(status) => status,
            Outcome::Ended(Cause::Timeout) => TIMED_OUT,
            Outcome::Ended(Cause::Told(signal)) => of_signal(signal as i32),
            Outcome::Failed => FAILED,
        }
    }

    /// As the report has it.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Command(Ended::Exited(_)) => "exited",
            Outcome::Command(Ended::Signalled(_)) => "signalled",
            Outcome::Ended(Cause::Timeout) => "timed-out",
            Outcome::Ended(Cause::Told(_)) => "told-to-end",
            Outcome::NotExecuted(_) | Outcome::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_before_the_cause_and_that_before_the_command() {
        let (exited, told) = (Some(Ended::Exited(3)), Some(Cause::Told(Signal::SIGTERM)));
        assert_eq!(Outcome::of(true, told, true, exited).status(), 125);
        assert_eq!(Outcome::of(false, told, true, exited).status(), 143);
        assert_eq!(Outcome::of(false, Some(Cause::Timeout), true, exited).status(), 124);
        assert_eq!(Outcome::of(false, None, true, exited).status(), 3);
        assert_eq!(Outcome::of(false, None, true, None).status(), 125);
        // It has left its cgroup, and lives on.
        assert_eq!(Outcome::of(false, Some(Cause::Timeout), true, None).status(), 125);
        let not_found = Outcome::of(false, None, false, Some(Ended::Exited(127)));
        assert_eq!((not_found.status(), not_found.word()), (127, "failed"));
    }
}
