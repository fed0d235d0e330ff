//! Hidden commands of this program, each of which is a process of its own.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use cgroup_reaper::held::spawn_apart;
use rustix::process::Pid;

/// This program, even if its path is gone, or if the user may not look it up.
const SELF: &CStr = c"/proc/self/exe";
/// Its name in lists of processes.
const NAME: &str = "cgreap";

/// A hidden command of this program. It inherits which signals are blocked.
pub fn hidden(subcommand: &str) -> Command {
    let mut command = Command::new(SELF.to_str().unwrap_or_default());
    command.arg0(NAME).arg(subcommand);
    command
}

/// Starts a hidden command in a session of its own, with this for its standard streams. It writes a byte there when it has
/// left the session of the caller.
pub fn hidden_apart(subcommand: &str, args: &[String], stream: BorrowedFd<'_>) -> io::Result<Pid> {
    let words = [NAME, subcommand].into_iter().chain(args.iter().map(String::as_str));
    let words: Vec<_> = words.map(CString::new).collect::<Result<_, _>>()?;
    let pid = spawn_apart(SELF, &words, stream)?;
    Ok(Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidData)?)
}
