//! Hidden commands of this program, each of which is a process of its own.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// This program, even if its path is gone, or if the user may not look it up.
const SELF: &str = "/proc/self/exe";

/// A hidden command of this program. It inherits which signals are blocked.
pub fn hidden(subcommand: &str) -> Command {
    let mut command = Command::new(SELF);
    command.arg0("cgreap").arg(subcommand);
    command
}
