//! What is refused before a command is started.

use std::process::{Command, Stdio};

use crate::place::{output, program, start};

#[test]
fn wrong_usage_is_125_as_with_env_and_timeout() {
    for (words, message) in [
        (&["run"][..], "required"),
        (&["run", "--wrong", "--", "true"], "--wrong"),
        (&["run", "-v", "--timeout", "5", "--", "true"], "--timeout"),
        (&["run", "--set", "pids.max=", "--", "true"], "a value for pids.max is missing"),
    ] {
        let mut command = Command::new(program());
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = output(start(&mut command));
        assert_eq!((run.status, &*run.out), (Some(125), ""), "{words:?}: {run:?}");
        assert!(run.err.contains(message), "{words:?}: {run:?}");
    }
    let mut help = Command::new(program());
    let run = output(start(help.args(["run", "--help"]).stdout(Stdio::piped()).stderr(Stdio::piped())));
    assert_eq!((run.status, &*run.err), (Some(0), ""));
}
