//! A cgroup directory, told from a later one of the same name.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use cgroup_reaper::Reaper;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

/// Opens the directory as an identity: it can be compared and reaped, and not read.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Whether it is the directory with this inode number. The inode number of a cgroup is its id, which the kernel gives to
/// no later one: `__kernfs_new_node` in fs/kernfs/dir.c (before Linux 5.5 for the first 2^32 files).
pub fn is_inode(dir: &File, inode: u64) -> bool {
    dir.metadata().is_ok_and(|metadata| metadata.ino() == inode)
}

/// A reap of this very directory, which was opened at `path`.
///
/// The library finds the path of a descriptor through /proc. Where something was mounted over /proc, the target is `path`, as
/// long as it leads to the directory.
pub fn reaper(dir: &File, path: &Path) -> io::Result<Reaper> {
    let name = format!("/proc/thread-self/fd/{}", dir.as_raw_fd());
    let is_unnamed =
        Path::new(&name).symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if is_unnamed && is_inode(&open(path)?, dir.metadata()?.ino()) {
        return Ok(Reaper::at(path));
    }
    Ok(Reaper::at_fd(dir.try_clone()?.into()))
}

/// Whether the directory is a cgroup, of v1 or v2.
pub fn is_cgroup(path: &Path) -> io::Result<bool> {
    let kind = statfs(path)?.filesystem_type();
    Ok(kind == CGROUP_SUPER_MAGIC || kind == CGROUP2_SUPER_MAGIC)
}
