//! Identity of a directory: what was spawned on, whatever its path leads to later.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::fstatfs;

use super::budget::Permit;

/// What identifies a directory for as long as the machine runs: cgroup inode numbers carry a
/// generation and are not given out twice (kernfs ids, 64 bits since Linux 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Id {
    pub(crate) fn of(stat: &FileStat) -> Id {
        // The types differ between architectures.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        Id { dev: stat.st_dev as u64, ino: stat.st_ino as u64 }
    }
}

/// Which cgroup interface a filesystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// The cgroup interface that `fd` is of; `None` on any other filesystem.
pub(crate) fn version(fd: BorrowedFd<'_>) -> io::Result<Option<Version>> {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    Ok(match fstatfs(fd)?.filesystem_type().0 as i64 {
        CGROUP_SUPER_MAGIC => Some(Version::V1),
        CGROUP2_SUPER_MAGIC => Some(Version::V2),
        _ => None,
    })
}

/// Opens `name` as a place in the tree, no rights needed, links not followed.
pub(crate) fn open_path<P: ?Sized + nix::NixPath>(at: BorrowedFd<'_>, name: &P) -> io::Result<OwnedFd> {
    Ok(openat(at, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Why a pinned directory can't be worked on.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It was removed.
    Gone,
    /// It was removed, and its path leads to another now.
    Replaced,
    /// Not to be known now.
    Unknown(io::Error),
}

/// A directory pinned by its identity.
#[derive(Debug)]
pub(crate) struct Pin {
    path: CString,
    pub(crate) id: Id,
    /// Held where the budget for descriptors allows, which saves walking the path each time.
    held: Option<(OwnedFd, Permit)>,
}

/// A directory to work below.
pub(crate) enum Dir<'a> {
    Held(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Held(fd) => *fd,
            Dir::Opened(fd) => fd.as_fd(),
        }
    }
}

impl Pin {
    pub(crate) fn new(path: PathBuf, id: Id, held: Option<(OwnedFd, Permit)>) -> io::Result<Pin> {
        let path = CString::new(path.into_os_string().into_encoded_bytes())?;
        Ok(Pin { path, id, held })
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.path.to_bytes()))
    }

    /// The pinned directory. A held one may have been removed meanwhile: what is looked up below it
    /// is then ENOENT or ENODEV, and [`Pin::gone`] tells which kind of gone.
    pub(crate) fn dir(&self) -> Result<Dir<'_>, Lost> {
        if let Some((fd, _)) = &self.held {
            return Ok(Dir::Held(fd.as_fd()));
        }
        let fd = match open_path(nix::fcntl::AT_FDCWD, self.path.as_c_str()) {
            Ok(fd) => fd,
            Err(error) if is_gone(&error) => return Err(Lost::Gone),
            Err(error) => return Err(Lost::Unknown(error)),
        };
        match fstat(&fd) {
            Ok(stat) if Id::of(&stat) == self.id => Ok(Dir::Opened(fd)),
            Ok(_) => Err(Lost::Replaced),
            Err(errno) => Err(Lost::Unknown(errno.into())),
        }
    }

    /// Whether the path still leads to the pinned directory, without following links.
    pub(crate) fn still_there(&self) -> Result<(), Lost> {
        match fstatat(nix::fcntl::AT_FDCWD, self.path.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if Id::of(&stat) == self.id => Ok(()),
            Ok(_) => Err(Lost::Replaced),
            Err(errno) => {
                let error = errno.into();
                Err(if is_gone(&error) { Lost::Gone } else { Lost::Unknown(error) })
            }
        }
    }

    pub(crate) fn c_path(&self) -> &std::ffi::CStr {
        &self.path
    }
}

/// Whether the kernel says that a cgroup, or what was looked up in it, is no more: ENOENT by path or
/// below a directory, ENODEV through an open file (kernfs: the node was deactivated).
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Whether the kernel says that rights are missing.
pub(crate) fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}
