//! The start of the command, so that no instruction of it runs outside of its cgroups.
//!
//! The kernel makes its process in the v2 cgroup. Not in v1, before Linux 5.7, and in containers whose filter of system calls
//! does not know clone3(2): there a hidden command of this program joins the cgroups, and then executes it.

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cgroup_reaper::held::{Failure, Held, failure, spawn_in};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{close, execvp, pipe2};
use rustix::process::Pid;

use super::group::Groups;
use super::place::RIGHTS;
use super::status::{CANNOT_EXECUTE, FAILED, NOT_FOUND};
use crate::console::complain;
use crate::this_program::hidden;

/// The name of the hidden command.
pub const SUBCOMMAND: &str = "__run-start";

/// A process that is in the cgroups, or joins them, and waits there before it executes the command. It ends if this is dropped.
#[derive(Debug)]
pub struct Starter {
    pid: Pid,
    process: Process,
}

#[derive(Debug)]
enum Process {
    /// Made in the v2 cgroup. It joins others, which are these.
    Inside { held: Held, others: Vec<PathBuf> },
    /// The hidden command, which waits for a byte.
    Hidden(File),
}

/// The command was executed, or could not be.
#[derive(Debug)]
pub struct Started(Option<(OwnedFd, Vec<PathBuf>)>);

impl Starter {
    /// Starts it. The command will have these signals blocked.
    pub fn spawn(command: &[OsString], groups: &Groups, blocked: SigSet) -> io::Result<Starter> {
        // It tells the reason as well if it fails.
        Starter::inside(command, groups, blocked).or_else(|_| Starter::hidden(command, groups, blocked))
    }

    fn inside(command: &[OsString], groups: &Groups, blocked: SigSet) -> io::Result<Starter> {
        let blocked: Vec<_> = blocked.iter().map(|signal| signal as i32).collect();
        let others: Vec<_> = groups.others().iter().map(|group| group.path().to_path_buf()).collect();
        let files = others.iter().map(|group| joining_file(group)).collect::<io::Result<Vec<_>>>()?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let held = spawn_in(groups.first().dir(), &terminated(command), &blocked, &files)?;
        let pid = Pid::from_raw(held.pid() as i32).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Starter { pid, process: Process::Inside { held, others } })
    }

    fn hidden(command: &[OsString], groups: &Groups, blocked: SigSet) -> io::Result<Starter> {
        let (wait, go) = pipe2(OFlag::O_CLOEXEC)?;
        // No other process is started while it can be inherited.
        fcntl(&wait, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mask = blocked.iter().fold(0_u64, |mask, signal| mask | 1 << (signal as i32 - 1));
        let groups: Vec<_> = groups.all().iter().map(|group| group.path()).collect();
        let numbers = [wait.as_raw_fd() as u64, mask, groups.len() as u64];
        let child = hidden(SUBCOMMAND)
            .args(numbers.map(|number| number.to_string()))
            .args(groups)
            .args(command)
            .spawn()?;
        Ok(Starter { pid: Pid::from_child(&child), process: Process::Hidden(go.into()) })
    }

    /// Its pid, which is then the command's.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it execute the command.
    pub fn execute(self) -> Started {
        match self.process {
            Process::Inside { held, others } => Started(Some((held.execute(), others))),
            Process::Hidden(mut go) => {
                // It fails where the process has ended already. Its exit status tells why.
                let _ = go.write_all(b"+");
                Started(None)
            }
        }
    }
}

impl Started {
    /// Reports why the command was not executed, unless the hidden command has done that. To be called when its process has
    /// ended.
    pub fn report_failure(self, command: &[OsString]) {
        let Some((from, others)) = self.0 else { return };
        match failure(from) {
            Some(Failure::Execute(error)) => complain_of_execution(command, &error),
            Some(Failure::Join(index, error)) => complain_of_join(&others[index], &error),
            None => {}
        }
    }
}

/// Words of a command line have no NUL.
fn terminated(command: &[OsString]) -> Vec<CString> {
    command.iter().filter_map(|word| CString::new(word.clone().into_vec()).ok()).collect()
}

fn complain_of_execution(command: &[OsString], error: &io::Error) {
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    complain(&format!("run: cannot execute {}: {error}", program.display()));
}

fn complain_of_join(group: &Path, error: &io::Error) {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    let hint = if is_denied { format!("; {RIGHTS}") } else { String::new() };
    complain(&format!("run: cannot move a process into {}: {error}{hint}", group.display()));
}

/// The hidden command. Returns if the command could not be executed, with the exit status.
pub fn run(mut words: impl Iterator<Item = OsString>) -> u8 {
    let numbers =
        [(); 3].map(|()| words.next().and_then(|word| word.to_str()?.parse::<u64>().ok()).unwrap_or(0));
    let [wait, mask, group_count] = numbers;
    for _ in 0..group_count {
        let group = words.next().map(PathBuf::from).unwrap_or_default();
        if let Err(error) = join(&group) {
            complain_of_join(&group, &error);
            return FAILED;
        }
    }
    if let Err(error) = restore_signals(mask) {
        complain(&format!("run: signals: {error}"));
        return FAILED;
    }
    // An end without a word: cgreap was killed, or has reported why it goes no further.
    if await_go(wait as i32).is_err() {
        return FAILED;
    }
    execute(&words.collect::<Vec<_>>())
}

fn join(group: &Path) -> io::Result<()> {
    joining_file(group)?.write_all(b"0")
}

/// The file of a cgroup that a process writes 0 to.
fn joining_file(group: &Path) -> io::Result<File> {
    let open = |file| OpenOptions::new().write(true).open(group.join(file));
    // v1. The only thread is the process, and for a thread that moves itself the kernel does not wait for all CPUs,
    // `cgroup_procs_write_start` in kernel/cgroup/cgroup.c.
    open("tasks").or_else(|_| open("cgroup.procs"))
}

/// Makes the signals what they were when cgreap was started, as far as that can be known.
fn restore_signals(mask: u64) -> io::Result<()> {
    // The runtime of Rust ignores SIGPIPE before `main`. An exec resets a handler to the default.
    signal_hook::flag::register(libc::SIGPIPE, Arc::default())?;
    let blocked: SigSet = Signal::iterator().filter(|&signal| mask >> (signal as i32 - 1) & 1 == 1).collect();
    Ok(blocked.thread_set_mask()?)
}

/// Waits for the word of cgreap, and closes the pipe, which the command does not get.
fn await_go(pipe: i32) -> io::Result<()> {
    let opened = File::open(format!("/proc/self/fd/{pipe}"));
    close(pipe)?;
    opened?.read_exact(&mut [0])
}

fn execute(command: &[OsString]) -> u8 {
    let words = terminated(command);
    let Err(errno) = match words.first() {
        Some(program) => execvp(program, &words),
        None => Err(Errno::ENOENT),
    };
    complain_of_execution(command, &errno.into());
    if errno == Errno::ENOENT { NOT_FOUND } else { CANNOT_EXECUTE }
}
