//! What no safe wrapper among the dependencies offers: pidfds, kill(2), statx(2), and mio's epoll as a borrow.
//!
//! The only module with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// pidfd_open(2), Linux 5.3. The descriptor is close-on-exec.
///
/// `pid` must be positive: the kernel refuses others with EINVAL, and so does this.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: two integers by value; the call touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us, nobody else owns it, and descriptors fit
    // into an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2), Linux 5.1, without siginfo.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and so open; a null siginfo is allowed and means the same as
    // for kill(2).
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// kill(2) for one process.
///
/// `pid` must be positive: 0 and negative ones mean groups of processes, the caller's among them, and are
/// refused with EINVAL.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: two integers by value; the call touches no memory of ours.
    let result = unsafe { libc::kill(pid, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a walk needs to know of a directory.
pub(crate) struct Stat {
    pub(crate) links: u32,
    /// Something is mounted on it, so that what is seen is not what is below. (From Linux 5.8 on also if that
    /// is of the same filesystem.)
    pub(crate) mounted_on: bool,
}

/// statx(2) of the directory `path` below `root`, or of `root` itself if it is empty.
pub(crate) fn stat(root: BorrowedFd<'_>, path: &CStr) -> io::Result<Stat> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is borrowed and so open, the path ends in a nul, and the kernel writes no more
    // than the structure it is given.
    let result =
        unsafe { libc::statx(root.as_raw_fd(), path.as_ptr(), flags, libc::STATX_NLINK, stat.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid value for these integers, and the kernel has filled some in.
    let stat = unsafe { stat.assume_init() };
    Ok(Stat {
        links: stat.stx_nlink,
        mounted_on: stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

/// The epoll descriptor of a poll, which itself only offers `AsRawFd`.
pub(crate) fn as_fd(poll: &mio::Poll) -> BorrowedFd<'_> {
    // SAFETY: the poll owns the descriptor, and the borrow of the poll keeps it open.
    unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }
}
