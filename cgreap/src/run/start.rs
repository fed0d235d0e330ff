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
    /// The hidden command, which joins these cgroups, waits for a byte, and tells a failure.
    Hidden { go: File, failure: OwnedFd, groups: Vec<PathBuf> },
}

/// The command was executed, or could not be.
#[derive(Debug)]
pub struct Started {
    failure: OwnedFd,
    /// Those that its process had to join.
    groups: Vec<PathBuf>,
}

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
        let ((wait, go), (failure, report)) = (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
        // No other process is started while they can be inherited.
        fcntl(&wait, FcntlArg::F_SETFD(FdFlag::empty()))?;
        fcntl(&report, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let mask = blocked.iter().fold(0_u64, |mask, signal| mask | 1 << (signal as i32 - 1));
        let groups: Vec<_> = groups.all().iter().map(|group| group.path().to_path_buf()).collect();
        let numbers = [wait.as_raw_fd() as u64, report.as_raw_fd() as u64, mask, groups.len() as u64];
        let child = hidden(SUBCOMMAND)
            .args(numbers.map(|number| number.to_string()))
            .args(&groups)
            .args(command)
            .spawn()?;
        let process = Process::Hidden { go: go.into(), failure, groups };
        Ok(Starter { pid: Pid::from_child(&child), process })
    }

    /// Its pid, which is then the command's.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it execute the command.
    pub fn execute(self) -> Started {
        match self.process {
            Process::Inside { held, others } => Started { failure: held.execute(), groups: others },
            Process::Hidden { mut go, failure, groups } => {
                // It fails where the process has ended already, and has told why.
                let _ = go.write_all(b"+");
                Started { failure, groups }
            }
        }
    }
}

impl Started {
    /// Why the command was not executed, if so. To be called when its process has ended.
    pub fn failure(self, command: &[OsString]) -> Option<String> {
        Some(match failure(self.failure)? {
            Failure::Execute(error) => {
                let program = command.first().map(PathBuf::from).unwrap_or_default();
                format!("cannot execute {}: {error}", program.display())
            }
            Failure::Join(index, error) => {
                let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
                let hint = if is_denied { format!("; {RIGHTS}") } else { String::new() };
                let group = self.groups.get(index).map(|group| group.display().to_string());
                format!("cannot move a process into {}: {error}{hint}", group.unwrap_or_default())
            }
        })
    }
}

/// Words of a command line have no NUL.
fn terminated(command: &[OsString]) -> Vec<CString> {
    command.iter().filter_map(|word| CString::new(word.clone().into_vec()).ok()).collect()
}

/// The hidden command. Returns if the command could not be executed, with the exit status.
pub fn run(mut words: impl Iterator<Item = OsString>) -> u8 {
    let numbers =
        [(); 4].map(|()| words.next().and_then(|word| word.to_str()?.parse::<u64>().ok()).unwrap_or(0));
    let [wait, report, mask, group_count] = numbers;
    let mut report = reopen(report as i32, OpenOptions::new().write(true));
    let mut tell = |index: i32, error: &io::Error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        // As `failure` reads it.
        let told = [index.to_ne_bytes(), errno.to_ne_bytes()].concat();
        // cgreap was killed if it fails.
        let _ = report.as_mut().map(|report| report.write_all(&told));
        errno
    };
    for index in 0..group_count as i32 {
        let group = words.next().map(PathBuf::from).unwrap_or_default();
        if let Err(error) = join(&group) {
            tell(index, &error);
            return FAILED;
        }
    }
    if let Err(error) = restore_signals(mask) {
        tell(-1, &error);
        return FAILED;
    }
    // An end without a word: cgreap was killed, or has reported why it goes no further.
    if await_go(wait as i32).is_err() {
        return FAILED;
    }
    let error = execute(&words.collect::<Vec<_>>());
    if tell(-1, &error) == libc::ENOENT { NOT_FOUND } else { CANNOT_EXECUTE }
}

/// Opens a pipe that was inherited anew, so that the command does not inherit it.
fn reopen(pipe: i32, options: &OpenOptions) -> io::Result<File> {
    let opened = options.open(format!("/proc/self/fd/{pipe}"));
    close(pipe)?;
    opened
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

/// Waits for the word of cgreap.
fn await_go(pipe: i32) -> io::Result<()> {
    reopen(pipe, OpenOptions::new().read(true))?.read_exact(&mut [0])
}

/// Returns if it fails.
fn execute(command: &[OsString]) -> io::Error {
    let words = terminated(command);
    let Err(errno) = match words.first() {
        Some(program) => execvp(program, &words),
        None => Err(Errno::ENOENT),
    };
    errno.into()
}
