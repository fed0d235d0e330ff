//! The guard: a process that reaps the cgroups of a run whose cgreap was killed, or could not reap them.
//!
//! It is started before the first cgroup is made, and told of each. It is in no cgroup of the run, in a session of its own,
//! and has none of the command's descriptors: a reader of the command's output sees its end.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cgroup_reaper::{ReapError, Reaped, reap_all};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use rustix::process::{Pid, PidfdFlags, WaitOptions, getppid, pidfd_open};

use crate::console::complain_at_once;
use crate::directory::{is_inode, open, reaper};
use crate::shortage::{RETRY, is_shortage};
use crate::this_program::{hidden, hidden_apart};

/// The name of the hidden command.
pub const SUBCOMMAND: &str = "__run-guard";

/// Has it tell when it has left the session.
const TELL: &str = "1";

/// How long the guard may take to be ready, on slow machines too.
const READY_TIME: Duration = Duration::from_secs(10);

/// The guard, as cgreap sees it. Dropped without [`Guard::dismiss`] it reaps at once: the channel closes.
#[derive(Debug)]
pub struct Guard {
    pid: Pid,
    channel: UnixStream,
}

impl Guard {
    /// Starts it. What it has to reap gets `deadline` for that.
    pub fn start(deadline: Duration) -> io::Result<Guard> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_read_timeout(Some(READY_TIME))?;
        let numbers = [u128::from(std::process::id()), deadline.as_millis()].map(|number| number.to_string());
        // It leaves the session before it is executed, so that there is less to wait for.
        let apart = hidden_apart(SUBCOMMAND, &numbers, theirs.as_fd());
        let pid = apart.or_else(|_| {
            let (stdout, stderr) = (theirs.try_clone()?, theirs.try_clone()?);
            let mut child = hidden(SUBCOMMAND);
            child.args(numbers).arg(TELL).stdin(OwnedFd::from(theirs));
            child
                .stdout(OwnedFd::from(stdout))
                .stderr(OwnedFd::from(stderr))
                .spawn()
                .map(|child| Pid::from_child(&child))
        });
        Ok(Guard { pid: pid?, channel })
    }

    /// Returns when it has left the session and the process group of cgreap, so that nothing which is sent to these
    /// ends both.
    pub fn await_ready(&mut self) -> io::Result<()> {
        self.channel.read_exact(&mut [0])
    }

    /// Tells it that this directory is about to be made. It never kills there yet.
    pub fn announce(&mut self, path: &Path) {
        self.tell(path, 0);
    }

    /// Tells it that this directory was made, before a process joins it.
    pub fn made(&mut self, path: &Path, inode: u64) {
        self.tell(path, inode);
    }

    fn tell(&mut self, path: &Path, inode: u64) {
        let message = [&inode.to_ne_bytes(), path.as_os_str().as_bytes(), b"\0"].concat();
        // A guard that was killed is not replaced.
        let _ = self.channel.write_all(&message);
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends it: all is reaped. It exits while the caller does something else.
    pub fn end(&self) {
        // It is a child that was not waited for, so that this is its pid.
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
    }

    /// Has it reap what is left, once cgreap has exited. cgreap does not wait for that.
    pub fn leave(self) {
        // The channel stays open until the exit. The guard reaps when it closes, and cgreap may be a member of the cgroup: it
        // would be killed before it has reported the failure.
        std::mem::forget(self.channel);
    }

    /// Ends it. Returns when it has exited, so that it is not seen as a process that is left.
    pub fn dismiss(self) {
        self.end();
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Says that there is none, and what that means. A reader of stderr that does not read holds up nothing.
pub fn warn_unguarded(reason: &str) {
    complain_at_once(&format!("run: {reason}: a SIGKILL of cgreap would leave the command alive"));
}

/// The hidden command: waits until cgreap has ended, and reaps what it has made.
pub fn run(words: impl Iterator<Item = OsString>) -> u8 {
    let mut numbers = words.filter_map(|word| word.to_str()?.parse::<u64>().ok());
    let (parent, deadline) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let tell = numbers.next().is_some();
    detach();
    let parent = Pid::from_raw(parent as i32).and_then(|parent| {
        let pidfd = pidfd_open(parent, PidfdFlags::empty()).ok()?;
        // Its parent until now: the descriptor is not of another process that got the pid.
        (getppid() == Some(parent)).then_some(pidfd)
    });
    if tell {
        let _ = io::stdout().write_all(b"+").and_then(|()| io::stdout().flush());
    }
    let told = listen(parent.as_ref());
    reap(parse(&told), Duration::from_millis(deadline));
    0
}

/// Leaves all that cgreap and the command share with it.
fn detach() {
    // Each fails only if it is done already, or makes no difference to what can be reaped.
    let _ = SigSet::all().thread_block();
    let _ = nix::unistd::setsid();
    let _ = std::env::set_current_dir("/");
    close_inherited();
}

/// Closes the descriptors that were inherited, except the channel.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > libc::STDERR_FILENO) {
        let _ = nix::unistd::close(descriptor);
    }
}

/// Reads the channel until cgreap has ended. Returns what it has told.
fn listen(parent: Option<&OwnedFd>) -> Vec<u8> {
    let mut told = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let channel = io::stdin();
        let mut ready = vec![PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        ready.extend(parent.map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)));
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        // What was told before the end comes first.
        if ready[0].any() == Some(true) {
            match nix::unistd::read(&channel, &mut buffer) {
                Ok(0) => return told,
                Ok(length) => told.extend_from_slice(&buffer[..length]),
                // The other end closed with unread bytes: cgreap has ended too.
                Err(nix::errno::Errno::ECONNRESET) => return told,
                Err(_) => {}
            }
        } else if ready.get(1).is_some_and(|pidfd| pidfd.any() == Some(true)) {
            return told;
        }
    }
}

/// The directories that were told, each with its inode number, 0 for one that was only announced.
fn parse(told: &[u8]) -> Vec<(PathBuf, u64)> {
    let mut rest = told;
    let mut directories: Vec<(PathBuf, u64)> = Vec::new();
    while let Some((inode, tail)) = rest.split_first_chunk() {
        let Some(end) = tail.iter().position(|&byte| byte == 0) else { break };
        let path = PathBuf::from(OsString::from_vec(tail[..end].to_vec()));
        let inode = u64::from_ne_bytes(*inode);
        directories.retain(|(other, _)| *other != path);
        directories.push((path, inode));
        rest = &tail[end + 1..];
    }
    directories
}

/// Reaps the directories. In a shortage of memory or descriptors it tries again, as long as there is time.
fn reap(mut directories: Vec<(PathBuf, u64)>, deadline: Duration) {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        directories = reap_once(directories, left);
        if directories.is_empty() || left.is_zero() {
            // There is nothing left that a failure could be reported to.
            return;
        }
        sleep(RETRY);
    }
}

/// Returns those that a shortage has kept from being reaped.
fn reap_once(directories: Vec<(PathBuf, u64)>, deadline: Duration) -> Vec<(PathBuf, u64)> {
    let (mut reapers, mut reaped, mut unreaped) = (Vec::new(), Vec::new(), Vec::new());
    for (path, inode) in directories {
        if inode == 0 {
            // No process of the run has joined it. The kernel does not remove it if others have.
            let _ = fs::remove_dir(path);
            continue;
        }
        let found = open(&path).and_then(|dir| {
            let is_it = is_inode(&dir, inode);
            is_it.then(|| reaper(&dir, &path)).transpose()
        });
        match found {
            Ok(Some(reaper)) => {
                reapers.push(reaper.deadline(deadline));
                reaped.push((path, inode));
            }
            Ok(None) => {}
            Err(error) => unreaped.extend(is_shortage(&error).then_some((path, inode))),
        }
    }
    let results = reap_all(reapers).into_iter().zip(reaped);
    let is_short = |result: &Result<Reaped, ReapError>| {
        let error = result.as_ref().err().and_then(ReapError::io_error);
        error.is_some_and(is_shortage)
    };
    unreaped.extend(results.filter_map(|(result, directory)| is_short(&result).then_some(directory)));
    unreaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_was_told_of_a_directory_counts() {
        let tell = |path: &str, inode: u64| [&inode.to_ne_bytes()[..], path.as_bytes(), b"\0"].concat();
        let told = [tell("/c/a", 0), tell("/c/a", 7), tell("/c/b\n", 0)].concat();
        assert_eq!(parse(&told), [("/c/a".into(), 7), ("/c/b\n".into(), 0)]);
        assert_eq!(parse(&told[..told.len() - 1]), [("/c/a".into(), 7)]);
        assert_eq!(parse(b"short"), []);
    }
}
