//! System calls, one function each and nothing around them: the bare loops are made of these.
//!
//! The only module of the benchmark with `unsafe`, which it needs because the point of a bare loop is that
//! there is no library between it and the kernel.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn open(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path ends in a nul.
    owned(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })
}

pub fn read(fd: &OwnedFd, buffer: &mut [u8], offset: usize) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the buffer's length into the buffer.
    let n = unsafe {
        libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t)
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

pub fn write(fd: &OwnedFd, text: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads no more than the text's length.
    let n = unsafe { libc::write(fd.as_raw_fd(), text.as_ptr().cast(), text.len()) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub fn rmdir(path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends in a nul.
    check(unsafe { libc::rmdir(path.as_ptr()) }).map(drop)
}

/// The number of a process that we had forked. 0, 1 and negative ones mean groups of processes, init, or all.
fn ours(pid: i32) -> io::Result<i32> {
    if pid > 1 { Ok(pid) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}

pub fn kill(pid: i32) -> io::Result<()> {
    let pid = ours(pid)?;
    // SAFETY: two integers by value.
    check(unsafe { libc::kill(pid, libc::SIGKILL) }).map(drop)
}

pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = ours(pid)?;
    // SAFETY: two integers by value.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int)
}

pub fn pidfd_kill(pidfd: &OwnedFd) -> io::Result<()> {
    let null = std::ptr::null::<u8>();
    // SAFETY: the descriptor is open, and a null siginfo means the same as for kill(2).
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, null, 0) };
    check(result as c_int).map(drop)
}

/// Waits for one descriptor. Returns whether it was ready before the timeout (-1: no timeout).
pub fn poll(fd: &OwnedFd, events: i16, timeout_ms: c_int) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    Ok(check(unsafe { libc::poll(&mut entry, 1, timeout_ms) })? > 0)
}

pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: an integer by value.
        Ok(Epoll(owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?))
    }

    pub fn add(&self, fd: BorrowedFd<'_>, events: c_int, data: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: data as u64 };
        // SAFETY: both descriptors are open, and the event outlives the call.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) };
        check(result).map(drop)
    }

    /// Waits without limit, and appends the data of what is ready.
    pub fn wait(&self, ready: &mut Vec<usize>) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: the kernel writes no more than the number of events given.
        let n = check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 256, -1) })?;
        ready.extend(events[..n as usize].iter().map(|event| event.u64 as usize));
        Ok(())
    }
}

/// One inotify instance for many files.
pub struct Inotify {
    fd: OwnedFd,
    data: HashMap<c_int, usize>,
}

impl Inotify {
    pub fn new() -> io::Result<Inotify> {
        // SAFETY: an integer by value.
        let fd = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
        Ok(Inotify { fd, data: HashMap::new() })
    }

    /// Returns the number by which the watch is removed.
    pub fn add(&mut self, path: &CStr, data: usize) -> io::Result<c_int> {
        // SAFETY: the descriptor is open, and the path terminated.
        let watch =
            check(unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) })?;
        self.data.insert(watch, data);
        Ok(watch)
    }

    /// On some kernels the watch of a file that is gone is not.
    pub fn remove(&mut self, watch: c_int) {
        self.data.remove(&watch);
        // SAFETY: the descriptor is open. EINVAL for one that is gone is fine.
        unsafe { libc::inotify_rm_watch(self.fd.as_raw_fd(), watch) };
    }

    /// Waits without limit, and appends the data of what is ready.
    pub fn wait(&self, ready: &mut Vec<usize>) -> io::Result<()> {
        const HEADER: usize = size_of::<libc::inotify_event>();
        let mut buffer = [0; 16 * 1024];
        // SAFETY: the kernel writes no more than the size given.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        // Watches of files have no names behind the header, which begins with the watch.
        for event in buffer[..n].chunks_exact(HEADER) {
            let watch = c_int::from_ne_bytes([event[0], event[1], event[2], event[3]]);
            ready.extend(self.data.get(&watch));
        }
        Ok(())
    }
}

/// CPU time of the calling thread, user and system.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure in, which outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of all threads of this process.
pub fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure in, which outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Releases the memory of a process that is being killed.
pub fn process_mrelease(pidfd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) };
    check(result as c_int).map(drop)
}

/// Touches so much anonymous memory, in small pages, which take longest to give back.
pub fn fill_memory(bytes: usize) -> io::Result<()> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, written within its bounds and never unmapped.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
        for offset in (0..bytes).step_by(4096) {
            start.cast::<u8>().add(offset).write_volatile(1);
        }
    }
    Ok(())
}

/// Two counters in memory that later children share.
pub fn shared_counters() -> io::Result<&'static [AtomicU32; 2]> {
    // SAFETY: a new mapping, of a place that the kernel chooses.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a page, aligned, zeroed, never unmapped, and accessed only through these atomics.
    Ok(unsafe { &*page.cast() })
}

pub fn getpid() -> i32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::getpid() }
}

/// Forks a child that runs `body`, which ends by `exit`. It dies with its parent. Only for a process of one
/// thread: the child of another could find a lock taken by a thread that it doesn't have.
pub fn fork(body: impl FnOnce() -> c_int) -> io::Result<i32> {
    let parent = getpid();
    // SAFETY: this process has one thread, see above, so the child may go on as any process does.
    let pid = check(unsafe { libc::fork() })?;
    if pid > 0 {
        return Ok(pid);
    }
    // SAFETY: integers by value.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // SAFETY: no arguments, no memory.
    let orphan = unsafe { libc::getppid() } != parent;
    let code = if orphan { 1 } else { body() };
    // SAFETY: ends the process without destructors, buffers or handlers, all of which are the parent's.
    unsafe { libc::_exit(code) }
}

/// Sleeps until killed.
pub fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: no arguments, no memory.
        unsafe { libc::pause() };
    }
}

/// Lets any process of the same user trace this one, where yama would not.
pub fn allow_tracers() {
    // SAFETY: integers by value. Without yama it is an error, and not needed.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::MAX, 0, 0, 0) };
}

/// Keeps a process from exiting for as long as the caller lives and does not let it continue.
pub fn hold_up_exit(pid: i32) -> io::Result<()> {
    let pid = ours(pid)?;
    // SAFETY: integers by value; the address is unused.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_TRACEEXIT) };
    check(result as c_int).map(drop)
}

/// Has the parent trace this process, and stops until it does.
pub fn be_traced() -> io::Result<()> {
    // SAFETY: integers by value.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } as c_int)?;
    // SAFETY: an integer by value.
    check(unsafe { libc::raise(libc::SIGSTOP) }).map(drop)
}

/// A system call without effect that no other code makes: `close(MARK)`.
const MARK: u64 = 0x7fff_fff0;

/// Marks a place in what is traced.
pub fn mark() {
    // SAFETY: not a descriptor, so nothing is closed.
    unsafe { libc::close(MARK as c_int) };
}

/// Linux 5.3; not in every libc.
const PTRACE_GET_SYSCALL_INFO: c_uint = 0x420e;
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;

/// `struct ptrace_syscall_info` of `linux/ptrace.h`, at the entry of a call.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    nr: u64,
    args: [u64; 6],
}

/// Counts the system calls of a child that calls `be_traced`, from its first `mark` to its second, and returns when it
/// has ended.
pub fn count_calls(pid: i32) -> io::Result<Option<u64>> {
    let pid = ours(pid)?;
    let (mut status, mut marks, mut count) = (0, 0, 0);
    loop {
        // SAFETY: a place for the status.
        check(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) })?;
        if !libc::WIFSTOPPED(status) {
            return Ok(
                (marks == 2 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0).then_some(count)
            );
        }
        let signal = match libc::WSTOPSIG(status) {
            // The first stop, by itself.
            libc::SIGSTOP => {
                let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
                // SAFETY: integers by value.
                check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) } as c_int)?;
                0
            }
            stop if stop == libc::SIGTRAP | 0x80 => {
                let mut info = SyscallInfo::default();
                // SAFETY: the kernel writes no more than the size given, which is that of the structure.
                unsafe {
                    libc::ptrace(PTRACE_GET_SYSCALL_INFO, pid, size_of::<SyscallInfo>(), &raw mut info)
                };
                if info.op == PTRACE_SYSCALL_INFO_ENTRY {
                    if info.nr == libc::SYS_close as u64 && info.args[0] == MARK {
                        marks += 1;
                    } else if marks == 1 {
                        count += 1;
                    }
                }
                0
            }
            signal => signal,
        };
        // SAFETY: integers by value.
        check(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) } as c_int)?;
    }
}

/// Gives children their ends back, to be waited for.
pub fn keep_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Has the kernel reap our children at once.
pub fn ignore_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// The signals that end a program from outside, and SIGCHLD.
fn signals() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset makes the set valid before it is added to or read.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGCHLD] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

pub fn mask_signals(how: c_int) {
    // SAFETY: a valid set, and no place for the old one.
    unsafe { libc::sigprocmask(how, &signals(), std::ptr::null_mut()) };
}

/// Takes the next of the masked signals.
pub fn next_signal() -> c_int {
    let mut signal = 0;
    // SAFETY: a valid set, and a place for the number.
    unsafe { libc::sigwait(&signals(), &mut signal) };
    signal
}

/// The exit code of a child, if it has ended.
pub fn ended(pid: i32) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: a place for the status.
    let result = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
    if result != pid {
        return None;
    }
    Some(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}
