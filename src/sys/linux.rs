//! [`Linux`]: the kernel itself. Beside `held` the only module of the library with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::sys::uio::pread;
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, gettid, unlinkat, write};
#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

use super::{Kind, Open, Pid, Stat, Sys};
use crate::facility::Facility;
use crate::metrics::Calls;

/// The kernel that we run on, and the number of system calls made. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Linux {
    counts: Arc<Counts>,
    /// Facilities that the kernel seems to lack, in tests.
    absent: &'static [Facility],
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    read: AtomicU64,
    write: AtomicU64,
    stat: AtomicU64,
    list: AtomicU64,
    remove: AtomicU64,
    pidfd_open: AtomicU64,
    pidfd_info: AtomicU64,
    pidfd_send_signal: AtomicU64,
    poll: AtomicU64,
    kill: AtomicU64,
    process_mrelease: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Linux {
    /// Makes a kernel without these facilities.
    pub(crate) fn without(absent: &'static [Facility]) -> Linux {
        Linux { absent, ..Linux::default() }
    }

    /// The system calls made so far, without those of the event loop (epoll, timerfd).
    pub(crate) fn calls(&self) -> Calls {
        let counts = &self.counts;
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Calls {
            open: get(&counts.open),
            read: get(&counts.read),
            write: get(&counts.write),
            stat: get(&counts.stat),
            list: get(&counts.list),
            remove: get(&counts.remove),
            pidfd_open: get(&counts.pidfd_open),
            pidfd_info: get(&counts.pidfd_info),
            pidfd_send_signal: get(&counts.pidfd_send_signal),
            poll: get(&counts.poll),
            kill: get(&counts.kill),
            process_mrelease: get(&counts.process_mrelease),
            ..Calls::default()
        }
    }
}

/// `struct pidfd_info` of `linux/pidfd.h`, as it was first published.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    rest: [u32; 10],
}

fn pidfd_info(pidfd: &OwnedFd, mask: u64) -> io::Result<PidfdInfo> {
    let mut info = PidfdInfo { mask, cgroupid: 0, pid: 0, tgid: 0, rest: [0; 10] };
    // SAFETY: the descriptor is borrowed and so open; the request's number says how large the structure is, and the
    // kernel writes no more than that.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if info.mask & mask == mask { Ok(info) } else { Err(Errno::ENODATA.into()) }
}

/// Calls since Linux 5.1 are numbered alike on all architectures, up to the first number. libc does not have this one on
/// all of them.
const SYS_PROCESS_MRELEASE: libc::c_long = libc::SYS_pidfd_open + 448 - 434;

const PIDFD_INFO_PID: u64 = 1 << 0;

const PIDFD_INFO_CGROUPID: u64 = 1 << 2;

/// Of `linux/stat.h`. Older versions of libc do not have it.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = 3 << 30 | (size_of::<PidfdInfo>() as libc::Ioctl) << 16 | 0xFF << 8 | 11;

/// `struct file_handle` of a kernfs directory: the identifier is the node's id, which is the inode number
/// (`kernfs_encode_fh`, Linux 5.5).
#[repr(C)]
struct KernfsHandle {
    bytes: u32,
    kind: i32,
    id: u64,
}

/// `FILEID_KERNFS` of `linux/exportfs.h`.
const FILEID_KERNFS: i32 = 0xfe;

fn pidfd_open(pid: Pid, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: two integers by value; the call touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.get(), flags) };
    owned(fd)
}

/// The descriptor that a system call has returned, or its error.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to the caller of this function, which passes its ownership on.
    // Descriptors fit into an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn dirfd(at: Option<&OwnedFd>) -> BorrowedFd<'_> {
    at.map_or(AT_FDCWD, |fd| fd.as_fd())
}

impl Sys for Linux {
    type Fd = OwnedFd;

    fn now(&self) -> Duration {
        // With a valid clock id the call cannot fail.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
    }

    fn release(&self) -> (u32, u32) {
        let Ok(name) = uname() else { return (0, 0) };
        let mut numbers = name.release().as_bytes().split(|byte| !byte.is_ascii_digit());
        let mut number = || numbers.next().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        (number().unwrap_or(0), number().unwrap_or(0))
    }

    fn caller(&self) -> (Pid, Pid) {
        // The kernel's pids fit into an int.
        let positive = |id| Pid::new(id).expect("getpid(2) and gettid(2) return positive numbers");
        (positive(std::process::id() as i32), positive(gettid().as_raw()))
    }

    fn descriptor_limit(&self) -> Option<usize> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        Some(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    fn open(&self, at: Option<&OwnedFd>, path: &CStr, how: Open) -> io::Result<OwnedFd> {
        count(&self.counts.open);
        Facility::check_file(self.absent, path)?;
        let flags = match how {
            Open::Place => OFlag::O_PATH | OFlag::O_NOFOLLOW,
            Open::Directory => OFlag::O_PATH | OFlag::O_DIRECTORY,
            Open::Read => OFlag::O_RDONLY | OFlag::O_NOFOLLOW,
            Open::Write => OFlag::O_WRONLY | OFlag::O_NOFOLLOW,
            Open::ReadWrite => OFlag::O_RDWR | OFlag::O_NOFOLLOW,
        };
        Ok(openat(dirfd(at), path, flags | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        fd.try_clone_to_owned()
    }

    fn path_of(&self, fd: &OwnedFd) -> io::Result<PathBuf> {
        count(&self.counts.stat);
        // Of the calling thread, which may have descriptors of its own, unshare(2).
        std::fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))
    }

    fn open_identity(&self, mount: &OwnedFd, ino: u64) -> io::Result<OwnedFd> {
        count(&self.counts.open);
        let mut handle = KernfsHandle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id: ino };
        // Without O_DIRECTORY Linux 6.18 refuses a caller that has the capability in a child user namespace only
        // (`may_decode_fh`).
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the descriptor is borrowed and so open; the handle has as many bytes as it says, and outlives the call.
        let fd =
            unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, flags) };
        owned(fd)
    }

    fn read_at(&self, fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        count(&self.counts.read);
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        Ok(pread(fd, buffer, offset)?)
    }

    fn write(&self, fd: &OwnedFd, text: &[u8]) -> io::Result<()> {
        count(&self.counts.write);
        match write(fd, text)? {
            n if n == text.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn stat(&self, at: Option<&OwnedFd>, path: &CStr) -> io::Result<Stat> {
        count(&self.counts.stat);
        Facility::check_file(self.absent, path)?;
        const MOUNT_ROOT: u64 = libc::STATX_ATTR_MOUNT_ROOT as u64;
        let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
        // Of the two for the number of the mount, the kernel heeds the one that it knows, and prefers the second.
        let mask = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_NLINK | libc::STATX_UID;
        let mask = mask | libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
        let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the descriptor is borrowed and so open, the path ends in a nul, and the kernel writes no
        // more than the structure it is given.
        let result =
            unsafe { libc::statx(dirfd(at).as_raw_fd(), path.as_ptr(), flags, mask, stat.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed is a valid value for these integers, and the kernel has filled some in.
        let stat = unsafe { stat.assume_init() };
        Ok(Stat {
            dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            ino: stat.stx_ino,
            kind: match u32::from(stat.stx_mode) & libc::S_IFMT {
                libc::S_IFDIR => Kind::Directory,
                libc::S_IFLNK => Kind::Link,
                _ => Kind::Other,
            },
            links: stat.stx_nlink,
            owner: stat.stx_uid,
            mount: (stat.stx_mask & STATX_MNT_ID_UNIQUE != 0).then_some(stat.stx_mnt_id),
            reused_mount: (stat.stx_mask & libc::STATX_MNT_ID != 0).then_some(stat.stx_mnt_id),
            mount_root: (stat.stx_attributes_mask & MOUNT_ROOT != 0)
                .then_some(stat.stx_attributes & MOUNT_ROOT != 0),
        })
    }

    fn filesystem(&self, fd: &OwnedFd) -> io::Result<i64> {
        count(&self.counts.stat);
        // The type differs between architectures.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        Ok(fstatfs(fd)?.filesystem_type().0 as i64)
    }

    fn has_attribute(&self, fd: &OwnedFd, name: &CStr) -> io::Result<bool> {
        count(&self.counts.stat);
        // SAFETY: the descriptor is borrowed and so open, the name ends in a nul, and with a size of zero nothing is
        // written.
        let size = unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
        match size {
            0.. => Ok(true),
            _ => match Errno::last() {
                // The file has no such attribute, or cannot have one.
                Errno::ENODATA | Errno::EOPNOTSUPP => Ok(false),
                errno => Err(errno.into()),
            },
        }
    }

    fn subdirectories(&self, at: &OwnedFd, path: &CStr) -> io::Result<Vec<OsString>> {
        count(&self.counts.list);
        let path = if path.is_empty() { c"." } else { path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut stream = Dir::openat(at, path, flags, Mode::empty())?;
        let mut found = Vec::new();
        for entry in stream.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
                found.push(OsStr::from_bytes(name.to_bytes()).to_os_string());
            }
        }
        Ok(found)
    }

    fn rmdir(&self, at: Option<&OwnedFd>, path: &CStr) -> io::Result<()> {
        count(&self.counts.remove);
        Ok(unlinkat(dirfd(at), path, UnlinkatFlags::RemoveDir)?)
    }

    fn pidfd_open(&self, pid: Pid) -> io::Result<OwnedFd> {
        count(&self.counts.pidfd_open);
        Facility::Pidfds.check(self.absent)?;
        pidfd_open(pid, 0)
    }

    fn pidfd_of_thread(&self, tid: Pid) -> io::Result<OwnedFd> {
        count(&self.counts.pidfd_open);
        Facility::Pidfds.check(self.absent)?;
        pidfd_open(tid, libc::PIDFD_THREAD)
    }

    fn cgroup_of(&self, pidfd: &OwnedFd) -> io::Result<u64> {
        count(&self.counts.pidfd_info);
        Ok(pidfd_info(pidfd, PIDFD_INFO_CGROUPID)?.cgroupid)
    }

    fn process_of(&self, pidfd: &OwnedFd) -> io::Result<Pid> {
        count(&self.counts.pidfd_info);
        let tgid = pidfd_info(pidfd, PIDFD_INFO_PID)?.tgid;
        // It is 0 for a process outside of the caller's pid namespace.
        i32::try_from(tgid).ok().and_then(Pid::new).ok_or_else(|| Errno::ESRCH.into())
    }

    fn is_own_thread(&self, tid: Pid) -> bool {
        count(&self.counts.kill);
        // SAFETY: three integers by value; signal 0 sends nothing.
        unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid.get(), 0) == 0 }
    }

    fn pidfd_send_signal(&self, pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
        count(&self.counts.pidfd_send_signal);
        // SAFETY: the descriptor is borrowed and so open; a null siginfo is allowed and means the same as
        // for kill(2).
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn has_exited(&self, pidfd: &OwnedFd) -> io::Result<bool> {
        count(&self.counts.poll);
        loop {
            match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) {
                // By a signal that arrived before the answer, also where there is nothing to wait for.
                Err(Errno::EINTR) => {}
                ready => return Ok(ready? > 0),
            }
        }
    }

    fn kill(&self, pid: Pid, signal: i32) -> io::Result<()> {
        count(&self.counts.kill);
        // SAFETY: two integers by value; the call touches no memory of ours.
        let result = unsafe { libc::kill(pid.get(), signal) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn process_mrelease(&self, pidfd: &OwnedFd) -> io::Result<()> {
        count(&self.counts.process_mrelease);
        Facility::ReleaseMemory.check(self.absent)?;
        // SAFETY: the descriptor is borrowed and so open. The kernel releases the memory of a process that is being killed,
        // and of no other.
        let result = unsafe { libc::syscall(SYS_PROCESS_MRELEASE, pidfd.as_raw_fd(), 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Wraps the descriptor, so that the tokio runtime that this is called from reports when it is readable.
#[cfg(feature = "tokio")]
pub(crate) fn readable_in_tokio(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is open, stays open until the AsyncFd drops it, and is the same at each call of as_raw_fd. The
    // AsyncFd is not lent out mutably, so no other descriptor can take its place.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// The epoll descriptor of a poll, which itself only offers `AsRawFd`.
pub(crate) fn as_fd(poll: &mio::Poll) -> BorrowedFd<'_> {
    // SAFETY: the poll owns the descriptor, and the borrow of the poll keeps it open.
    unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    extern "C" fn nothing(_: libc::c_int) {}

    /// Each signal interrupts the call, also while it does not wait.
    #[test]
    fn a_signal_does_not_hide_whether_a_process_has_exited() {
        let sys = Linux::default();
        let own = sys.pidfd_open(sys.caller().0).expect("it lives");
        // SAFETY: the handler does nothing, and no other test has one for this signal.
        let (old, this) = unsafe {
            let handler: extern "C" fn(libc::c_int) = nothing;
            (libc::signal(libc::SIGURG, handler as libc::sighandler_t), libc::pthread_self())
        };
        assert_ne!(old, libc::SIG_ERR);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // SAFETY: the thread lives, because it waits for this one.
                    unsafe { libc::pthread_kill(this, libc::SIGURG) };
                }
            });
            let failed = (0..100_000).find_map(|_| sys.has_exited(&own).err());
            is_over.store(true, Ordering::Relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
    }
}
