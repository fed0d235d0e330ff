//! Starting a program in a cgroup. Beside `linux` the only module of the library with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};

/// `struct clone_args` of `linux/sched.h`, as it is since Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// See linux/sched.h. libc has it as a `c_int` for some targets, where it is cut off.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child in a cgroup, which waits to execute a program. The child ends if this value is dropped. The caller waits for
/// it by waitpid(2).
///
/// Hidden: it is for `cgreap run`.
#[derive(Debug)]
pub struct Held {
    pid: u32,
    go: OwnedFd,
    failure: OwnedFd,
}

/// Why a [`Held`] child did not execute its program.
#[derive(Debug)]
pub enum Failure {
    /// The child could not join the further cgroup of this index.
    Join(usize, io::Error),
    /// The child could not execute the program.
    Execute(io::Error),
}

impl Held {
    /// Returns the child's pid, which the program keeps.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the child execute the program. Returns the descriptor for [`failure`].
    pub fn execute(self) -> OwnedFd {
        // The write fails if the child has ended already.
        let _ = write(&self.go, b"+");
        self.failure
    }
}

/// Returns why the child has not executed its program, if so. It blocks until the child has executed the program
/// or ended, so call it after the child's end.
pub fn failure(from: OwnedFd) -> Option<Failure> {
    let mut told = [0; 8];
    io::Read::read_exact(&mut std::fs::File::from(from), &mut told).ok()?;
    let [a, b, c, d, errno @ ..] = told;
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
    Some(match usize::try_from(i32::from_ne_bytes([a, b, c, d])) {
        Ok(index) => Failure::Join(index, error),
        Err(_) => Failure::Execute(error),
    })
}

/// Makes a child in this v2 cgroup, which will execute a program, found as execvp(3) does. The child blocks the signals in
/// `blocked`, has the default for SIGPIPE, and joins further cgroups, whose `tasks` or `cgroup.procs` are in `join`. It
/// inherits everything else that fork(2) and execve(2) leave. If it does not reach the program, it exits with 125, or as
/// shells do with 126 or 127.
///
/// From Linux 6.0 on, a process that joins a v2 cgroup waits for all CPUs, 4 to 15 ms. A process that is made inside
/// does not wait.
///
/// # Errors
///
/// Those of clone3(2), ENOSYS and E2BIG before Linux 5.7 and EBADF for a v1 cgroup among them.
pub fn spawn_in(
    cgroup: BorrowedFd<'_>,
    words: &[CString],
    blocked: &[i32],
    join: &[BorrowedFd<'_>],
) -> io::Result<Held> {
    let ((wait, go), (failure, report)) = (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
    let words = pointers(words);
    let (flags, cgroup) = (CLONE_INTO_CGROUP, cgroup.as_raw_fd() as u64);
    // SAFETY: the child makes system calls only, and execvp(3), which allocates nothing (glibc).
    let pid = unsafe { clone(&CloneArgs { flags, cgroup, ..CloneArgs::default() })? };
    if pid == 0 {
        // So that the child sees when the parent closes its copy of this end.
        drop(go);
        // SAFETY: this is the child. `words` are terminated strings and a null pointer.
        unsafe { become_program(&wait, &report, &words, blocked, join) }
    }
    Ok(Held { pid, go, failure })
}

/// Starts a program as a child in a session of its own. All of its standard streams are `stream`, to which it writes a byte
/// once it has left the session of the caller. If the program cannot be executed, the child ends. For the rest see
/// [`spawn_in`].
///
/// # Errors
///
/// Those of clone3(2).
pub fn spawn_apart(program: &CStr, words: &[CString], stream: BorrowedFd<'_>) -> io::Result<u32> {
    let (words, stream) = (pointers(words), stream.as_raw_fd());
    // SAFETY: the child makes system calls only, and execvp(3), which allocates nothing (glibc).
    let pid = unsafe { clone(&CloneArgs::default())? };
    if pid == 0 {
        // SAFETY: this is the child. `words` are terminated strings and a null pointer.
        unsafe {
            libc::setsid();
            for standard in 0..=libc::STDERR_FILENO {
                libc::dup2(stream, standard);
            }
            libc::write(stream, c"+".as_ptr().cast(), 1);
            libc::execv(program.as_ptr(), words.as_ptr());
            libc::_exit(127)
        }
    }
    Ok(pid)
}

fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
}

/// clone3(2), whose child sends SIGCHLD. 0 in the child.
///
/// # Safety
///
/// In the child, locks may be held for ever by threads that it does not have. So the child must make system
/// calls only.
unsafe fn clone(args: &CloneArgs) -> io::Result<u32> {
    let args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..*args };
    // SAFETY: the structure outlives the call, and its size is given. Without CLONE_VM the child has memory of its own, as
    // after fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// Runs the child. It makes system calls only: locks may be held for ever, by threads that it does not have.
///
/// # Safety
///
/// `words` are terminated strings, the first of which is the program, and a null pointer.
unsafe fn become_program(
    wait: &OwnedFd,
    report: &OwnedFd,
    words: &[*const libc::c_char],
    blocked: &[i32],
    join: &[BorrowedFd<'_>],
) -> ! {
    let end = |index: i32, status: i32| -> ! {
        let errno = Errno::last_raw();
        let mut told = [0; 8];
        told[..4].copy_from_slice(&index.to_ne_bytes());
        told[4..].copy_from_slice(&errno.to_ne_bytes());
        let _ = write(report, &told);
        let status = if index < 0 && errno == libc::ENOENT { 127 } else { status };
        // SAFETY: the end of the process.
        unsafe { libc::_exit(status) }
    };
    for (index, group) in join.iter().enumerate() {
        if write(group, b"0").is_err() {
            end(index as i32, 125);
        }
    }
    // SAFETY: a local set, initialized by the first call; and what the caller promises.
    unsafe {
        let mut mask = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(mask.as_mut_ptr());
        for &signal in blocked {
            libc::sigaddset(mask.as_mut_ptr(), signal);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), std::ptr::null_mut());
    }
    loop {
        match nix::unistd::read(wait, &mut [0]) {
            Ok(1) => break,
            Err(Errno::EINTR) => {}
            // SAFETY: the end of the process. Nothing is reported, because the parent has ended, or has dropped
            // the [`Held`].
            _ => unsafe { libc::_exit(125) },
        }
    }
    // SAFETY: what the caller promises.
    unsafe { libc::execvp(words[0], words.as_ptr()) };
    end(-1, 126)
}
