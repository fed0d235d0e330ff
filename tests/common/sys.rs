//! The system calls that std lacks, each as a function that is safe to call.
//!
//! The test programs have many threads, so a forked child may only make system calls until it ends: what is
//! meant for children here neither allocates, locks nor panics.

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub fn errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

/// 0 in the child.
pub fn fork() -> c_int {
    // SAFETY: the callers keep their children to async-signal-safe calls until they exit.
    unsafe { libc::fork() }
}

/// Ends the process at once: no destructors, no atexit handlers; both belong to the parent.
pub fn exit(code: c_int) -> ! {
    // SAFETY: `_exit` is always allowed.
    unsafe { libc::_exit(code) }
}

/// Ends this thread alone.
pub fn exit_thread() -> ! {
    // SAFETY: `exit` takes no pointers and does not return.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    exit(1)
}

/// Closes every descriptor but these. A child must: what it inherits from other tests (pipe ends above all)
/// would keep those tests from seeing an end of file.
pub fn close_all_but(keep: &[RawFd]) {
    let mut from: u32 = 0;
    loop {
        let next = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd >= from).min();
        let to = next.unwrap_or(u32::MAX);
        // `to` itself is kept, except as "no more to keep".
        let last = if next.is_some() { to.wrapping_sub(1) } else { to };
        if next.is_none() || to > from {
            // SAFETY: the child owns all its descriptors and uses none but `keep` from here on.
            unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) };
        }
        match next {
            Some(fd) => from = fd + 1,
            None => return,
        }
    }
}

pub fn close(fd: RawFd) {
    // SAFETY: for descriptors of a child, which nothing else refers to.
    unsafe { libc::close(fd) };
}

/// A pipe (read end, write end), both close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the array has room for the two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are new, and nothing else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub fn write(fd: RawFd, bytes: &[u8]) -> bool {
    loop {
        // SAFETY: pointer and length are those of a slice.
        let done = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        if done >= 0 || errno() != libc::EINTR {
            return done >= 0;
        }
    }
}

/// Past libtest's capture of print macros.
pub fn stderr(text: &str) {
    write(2, text.as_bytes());
}

/// One read: the number of bytes, 0 at the end, negative on an error other than EINTR.
pub fn read(fd: RawFd, bytes: &mut [u8]) -> isize {
    loop {
        // SAFETY: pointer and length are those of a slice.
        let done = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
        if done >= 0 || errno() != libc::EINTR {
            return done;
        }
    }
}

/// Waits until one of the two is readable or at its end; which of them are. `ms` < 0 waits for ever.
pub fn poll2(one: RawFd, two: RawFd, ms: c_int) -> (bool, bool) {
    let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [watch(one), watch(two)];
    // SAFETY: the array has the two entries. A negative descriptor is ignored by poll.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, ms) };
    (fds[0].revents != 0, fds[1].revents != 0)
}

pub fn readable(fd: RawFd, ms: c_int) -> bool {
    poll2(fd, -1, ms).0
}

/// Milliseconds of the monotonic clock.
pub fn now_ms() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// `SIG_DFL` for everything and nothing blocked: a child shall not inherit what the test program set.
pub fn default_signals() {
    // SAFETY: SIG_DFL is a valid disposition; signals that cannot be set just fail. The set is a local.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

pub fn ignore_signal(signal: c_int) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// `handler` must keep to async-signal-safe calls.
pub fn handle_signal(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: the function has the type of a handler.
    unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
}

/// The name shown by ps, by which leftover processes can be found.
pub fn set_name(name: &CStr) {
    // SAFETY: a terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

pub fn become_subreaper() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1_usize) };
}

/// Dies with the thread that forked this process.
pub fn die_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize) };
}

/// Not through std, which might cache the pid across a fork.
pub fn getpid() -> i32 {
    // SAFETY: always allowed.
    unsafe { libc::getpid() }
}

pub fn gettid() -> i32 {
    // SAFETY: no arguments; a thread id fits.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

pub fn setsid() {
    // SAFETY: always allowed.
    unsafe { libc::setsid() };
}

pub fn is_root() -> bool {
    // SAFETY: always allowed.
    unsafe { libc::geteuid() == 0 }
}

pub fn writable(path: &Path) -> bool {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path");
    // SAFETY: a terminated string.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// A signal to one process that the caller knows to be its own and unreaped.
pub fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // 0 and negative pids mean whole groups of processes, 1 is init.
    assert!(pid > 1 && pid != getpid(), "never signal {pid}");
    // SAFETY: no pointers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the soft limit of descriptors of another process, and returns the one before.
pub fn limit_descriptors_of(pid: i32, limit: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the calls.
    let done = unsafe {
        let got = libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limits);
        let before = std::mem::replace(&mut limits.rlim_cur, limit);
        let set = libc::prlimit(pid, libc::RLIMIT_NOFILE, &limits, std::ptr::null_mut());
        (got == 0 && set == 0).then_some(before)
    };
    done.unwrap_or_else(|| panic!("prlimit: {}", io::Error::last_os_error()))
}

pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    assert!(pid > 1 && pid != getpid(), "never signal {pid}");
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).expect("a descriptor");
    // SAFETY: new, and owned by nothing else.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

pub fn pidfd_signal(pidfd: &OwnedFd, signal: c_int) -> io::Result<()> {
    let null = std::ptr::null::<c_void>();
    // SAFETY: no siginfo is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `waitpid`: the pid (0: none yet) and the status.
pub fn wait(pid: i32, flags: c_int) -> Result<(i32, c_int), c_int> {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a local.
        let got = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        if got >= 0 {
            return Ok((got, status));
        }
        if errno() != libc::EINTR {
            return Err(errno());
        }
    }
}

pub fn unshare(flags: c_int) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::unshare(flags) == 0 }
}

/// All three user ids. While the saved one stays root's the way back is open.
pub fn set_user(real: u32, effective: u32, saved: u32) -> bool {
    // SAFETY: no pointers. glibc does it in every thread.
    unsafe { libc::setresuid(real, effective, saved) == 0 }
}

/// Opens a file or directory for reading; negative on failure.
pub fn open(path: &CStr) -> RawFd {
    // SAFETY: a terminated string.
    unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
}

/// Opens a file for writing; negative on failure.
pub fn open_write(path: &CStr) -> RawFd {
    // SAFETY: a terminated string.
    unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) }
}

/// `fork` into a v2 group given by its directory (Linux 5.7): without the wait for all CPUs that a move costs.
pub fn fork_into(dir: RawFd) -> c_int {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size, cgroup.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = [0_u64; 11];
    args[0] = CLONE_INTO_CGROUP;
    args[4] = libc::SIGCHLD as u64;
    args[10] = dir as u64;
    // SAFETY: the structure is as long as it says; without a stack this is a fork. The callers keep their
    // children to async-signal-safe calls until they exit.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    pid as c_int
}

/// In a fresh mount namespace: keeps mounts from spreading, then shows this PID namespace in /proc.
pub fn mount_own_proc() -> bool {
    let none = std::ptr::null();
    // SAFETY: terminated strings, or null where the kernel ignores the argument.
    unsafe {
        libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
            && libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, none.cast()) == 0
    }
}

/// Touches `bytes` of anonymous memory in small pages, which take longest to give back.
pub fn fill_memory(bytes: usize) -> bool {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, written within its bounds and never unmapped.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
        if start == libc::MAP_FAILED {
            return false;
        }
        libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
        for offset in (0..bytes).step_by(4096) {
            start.cast::<u8>().add(offset).write_volatile(1);
        }
    }
    true
}

/// A second thread of this process.
pub const THREAD: c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// `clone` on a stack of its own. Not pthread_create, which is not made for a forked child. `body` shares the
/// caller's thread-local storage (errno!), so it does nothing but system calls, and it must not return.
pub fn clone<T>(flags: c_int, body: extern "C" fn(*mut c_void) -> c_int, argument: &T) -> c_int {
    const STACK: usize = 64 * 1024;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the stack is a new mapping that is never unmapped; its end is aligned to a page. The argument
    // lives in a child process that runs until it exits, in a frame that never returns.
    unsafe {
        let stack = libc::mmap(std::ptr::null_mut(), STACK, access, kind, -1, 0);
        if stack == libc::MAP_FAILED {
            return -1;
        }
        libc::clone(body, stack.byte_add(STACK), flags, (&raw const *argument).cast_mut().cast())
    }
}

/// Attaches as tracer, and stops the tracee (state `t`).
pub fn trace_stop(pid: i32) -> bool {
    // SAFETY: address and data are unused.
    let attached = unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, 0_usize) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0_usize, 0_usize) == 0
    };
    attached && wait(pid, libc::__WALL).is_ok_and(|(_, status)| libc::WIFSTOPPED(status))
}

/// Attaches as tracer: SIGKILL will leave the tracee stopped on its way out.
pub fn trace_exit(pid: i32) -> bool {
    // SAFETY: the address is unused, the options are a number.
    unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, libc::PTRACE_O_TRACEEXIT as usize) == 0 }
}

pub fn trace_continue(pid: i32) {
    // SAFETY: the address is unused, the signal (none) is a number.
    unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0_usize, 0_usize) };
}

/// Offsets in `struct seccomp_data` of linux/seccomp.h: the number, and the lower half of the second argument.
const NUMBER: u32 = 0;
const SECOND: u32 = 24;

/// Has the kernel answer ENOSPC to every further epoll_ctl(2) of this thread that adds a watch, as it does where a
/// user has used up /proc/sys/fs/epoll/max_user_watches. It cannot be undone.
#[track_caller]
pub fn refuse_watches() {
    refuse(&[(NUMBER, libc::SYS_epoll_ctl as u32), (SECOND, libc::EPOLL_CTL_ADD as u32)], libc::ENOSPC);
}

/// Has the kernel refuse every further system call of this number to this thread. It cannot be undone.
#[track_caller]
pub fn refuse_call(number: libc::c_long, errno: c_int) {
    refuse(&[(NUMBER, number as u32)], errno);
}

/// Has the kernel refuse the system calls of this thread that have these values at these offsets.
#[track_caller]
fn refuse(values: &[(u32, u32)], errno: c_int) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value);
    let mut filter = Vec::new();
    for (i, &(offset, value)) in values.iter().enumerate() {
        filter.push(statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset));
        let rest = 2 * (values.len() - 1 - i) + 1;
        filter.push(libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: rest as u8,
            k: value,
        });
    }
    filter.push(answer(libc::SECCOMP_RET_ERRNO | errno as u32));
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: numbers, and a program that outlives the call, which reads it only.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(set, "seccomp: {}", io::Error::last_os_error());
}

/// Gives a file an extended attribute.
pub fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path");
    // SAFETY: terminated strings; pointer and length are those of a slice.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A loop device, which is released when it is closed.
pub struct LoopDevice {
    pub path: CString,
    _device: OwnedFd,
}

pub fn loop_device(image: &impl AsRawFd) -> io::Result<LoopDevice> {
    // linux/loop.h
    const LOOP_SET_FD: libc::c_ulong = 0x4C00;
    const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
    const LOOP_SET_STATUS64: libc::c_ulong = 0x4C04;
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    let result = |result: c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    let open = |path: &CStr| {
        // SAFETY: a terminated string.
        let fd = result(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })?;
        // SAFETY: it is new, and nothing else owns it.
        Ok::<OwnedFd, io::Error>(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let control = open(c"/dev/loop-control")?;
    // struct loop_info64: lo_flags is its fourteenth word of 58.
    let mut info = [0_u32; 58];
    info[13] = LO_FLAGS_AUTOCLEAR;
    for tries_left in (0..50).rev() {
        // SAFETY: it takes no argument.
        let number = result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let path = CString::new(format!("/dev/loop{number}")).expect("no NUL");
        let device = open(&path)?;
        // SAFETY: the argument is a number.
        match result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, image.as_raw_fd()) }) {
            // Another program took the same device first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries_left > 0 => continue,
            result => result?,
        };
        // SAFETY: the structure has the length that the kernel reads.
        let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64 as _, info.as_ptr()) };
        if let Err(error) = result(set) {
            // SAFETY: it takes no argument.
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _, 0) };
            return Err(error);
        }
        return Ok(LoopDevice { path, _device: device });
    }
    unreachable!("the last try returns")
}

/// Mounts a device in no mount namespace (Linux 5.2): its root, with which the mount ends.
pub fn mount_nowhere(kind: &CStr, device: &CStr) -> io::Result<OwnedFd> {
    // linux/mount.h
    const FSCONFIG_SET_STRING: c_int = 1;
    const FSCONFIG_CMD_CREATE: c_int = 6;
    let new = |fd: libc::c_long| {
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is new, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    };
    let null = std::ptr::null::<c_void>();
    // SAFETY: terminated strings, null where there is no argument, and numbers.
    unsafe {
        let context = new(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1))?;
        let fd = context.as_raw_fd();
        let (key, value) = (c"source".as_ptr(), device.as_ptr());
        if libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, value, 0) < 0
            || libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) < 0
        {
            return Err(io::Error::last_os_error());
        }
        new(libc::syscall(libc::SYS_fsmount, fd, 1, 0))
    }
}

/// A new file, to be written to.
pub fn create_in(dir: &impl AsRawFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: a terminated string.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, 0o600) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// FIFREEZE of linux/fs.h, of the filesystem that the file is in.
pub fn freeze_filesystem(file: RawFd) -> bool {
    const FIFREEZE: libc::c_ulong = 0xC004_5877;
    // SAFETY: the argument is ignored.
    unsafe { libc::ioctl(file, FIFREEZE as _, 0) == 0 }
}

/// FITHAW.
pub fn thaw_filesystem(file: RawFd) -> bool {
    const FITHAW: libc::c_ulong = 0xC004_5878;
    // SAFETY: the argument is ignored.
    unsafe { libc::ioctl(file, FITHAW as _, 0) == 0 }
}

/// Takes CAP_DAC_READ_SEARCH from the calling thread, for good.
pub fn drop_dac_read_search() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const DAC_READ_SEARCH: u32 = 1 << 2;
    // `struct __user_cap_header_struct`, and two of `struct __user_cap_data_struct` of `linux/capability.h`.
    let mut header: [u32; 2] = [VERSION_3, 0];
    let mut data = [0_u32; 6];
    // SAFETY: as large as the version says, and both outlive the calls.
    unsafe {
        if libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) != 0 {
            return false;
        }
        data[0] &= !DAC_READ_SEARCH;
        libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) == 0
    }
}

/// linux/userfaultfd.h: the calls on its descriptor, and the structures that they take.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// A page of memory whose first access waits until the descriptor is closed. The page stays mapped.
pub fn page_that_does_not_come() -> io::Result<(OwnedFd, usize)> {
    const PAGE: usize = 4096;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the mapping is new and is never unmapped. The descriptor is new, and the calls on it take these structures
    // of numbers, which outlive them.
    unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from_raw_fd(fd as c_int);
        let page = libc::mmap(std::ptr::null_mut(), PAGE, access, kind, -1, 0);
        let mut api = [UFFD_API, 0, 0];
        let mut range = [page as u64, PAGE as u64, UFFDIO_REGISTER_MODE_MISSING, 0];
        if page == libc::MAP_FAILED
            || libc::ioctl(fd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) < 0
            || libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, range.as_mut_ptr()) < 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok((fd, page as usize))
    }
}

/// getdents64(2) of a directory into a page of memory.
pub fn list_into(dir: &impl AsRawFd, page: usize) {
    // SAFETY: the page is mapped, and nothing else uses it.
    unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), page, 4096) };
}
