//! The start of the command: a hidden command of this program joins the cgroups, and then executes it, so that no
//! instruction of it runs outside.

use std::ffi::{CString, OsString};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::execvp;
use rustix::process::Pid;

use super::place::RIGHTS;
use super::status::{CANNOT_EXECUTE, FAILED, NOT_FOUND};
use crate::args::StartArgs;
use crate::console::complain;
use crate::this_program::hidden;

/// The name of the hidden command.
pub const SUBCOMMAND: &str = "__run-start";

/// Starts the command in these cgroups, with these signals blocked. Returns its pid, of which the caller is the parent.
pub fn start<'a>(
    command: &[OsString],
    groups: impl Iterator<Item = &'a Path>,
    blocked: SigSet,
) -> Result<Pid, String> {
    let mut starter = hidden(SUBCOMMAND);
    for group in groups {
        starter.arg("--group").arg(group);
    }
    for signal in blocked.iter() {
        starter.arg("--block").arg((signal as i32).to_string());
    }
    let child = starter.arg("--").args(command).spawn();
    let child = child.map_err(|error| format!("cannot start a process: {error}"))?;
    Ok(Pid::from_child(&child))
}

/// The hidden command. Returns if the command could not be executed, with the exit status.
pub fn run(args: &StartArgs) -> u8 {
    for group in &args.groups {
        if let Err(error) = join(group) {
            let is_denied = matches!(error.kind(), io::ErrorKind::PermissionDenied);
            let hint = if is_denied { format!("; {RIGHTS}") } else { String::new() };
            complain(&format!("run: cannot move a process into {}: {error}{hint}", group.display()));
            return FAILED;
        }
    }
    if let Err(error) = restore_signals(&args.block) {
        complain(&format!("run: signals: {error}"));
        return FAILED;
    }
    execute(&args.command)
}

fn join(group: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(group.join("cgroup.procs"))?.write_all(b"0")
}

/// Makes the signals what they were when cgreap was started, as far as that can be known.
fn restore_signals(blocked: &[i32]) -> io::Result<()> {
    // The runtime of Rust ignores SIGPIPE before `main`. An exec resets a handler to the default.
    signal_hook::flag::register(libc::SIGPIPE, Arc::default())?;
    let blocked: SigSet = blocked.iter().filter_map(|&signal| Signal::try_from(signal).ok()).collect();
    Ok(blocked.thread_set_mask()?)
}

fn execute(command: &[OsString]) -> u8 {
    // Words of a command line have no NUL.
    let words: Vec<_> =
        command.iter().filter_map(|word| CString::new(word.clone().into_vec()).ok()).collect();
    let Err(errno) = match words.first() {
        Some(program) => execvp(program, &words),
        None => Err(Errno::ENOENT),
    };
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    complain(&format!("run: cannot execute {}: {}", program.display(), io::Error::from(errno)));
    if errno == Errno::ENOENT { NOT_FOUND } else { CANNOT_EXECUTE }
}
