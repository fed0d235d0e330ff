//! Identity of a directory: what was spawned on, whatever its path leads to later.

use std::ffi::{CString, OsStr};
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::budget::Permit;
use super::file::c_path;
use crate::sys::{Open, Stat, Sys};

/// What identifies a directory for as long as the machine runs: cgroup inode numbers carry a
/// generation and are not given out twice (kernfs ids, 64 bits since Linux 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Id {
    pub(crate) fn of(stat: &Stat) -> Id {
        Id { dev: stat.dev, ino: stat.ino }
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

/// Which interface the mounts are of that were asked before.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    known: Vec<(u64, Version)>,
}

/// Mounts remembered; a machine has a dozen hierarchies, and each mount namespace mounts of its own.
const MOUNTS: usize = 64;

impl Mounts {
    /// Where mounts can be told apart; for none changes its filesystem.
    pub(crate) fn version(&self, stat: &Stat) -> Option<Version> {
        let known = self.known.iter().find(|(mount, _)| stat.mount == Some(*mount));
        known.map(|(_, version)| *version)
    }

    pub(crate) fn remember(&mut self, stat: &Stat, version: Version) {
        let Some(mount) = stat.mount else { return };
        if self.known.len() == MOUNTS {
            self.known.clear();
        }
        self.known.push((mount, version));
    }
}

/// The cgroup interface that `fd` is of; `None` on any other filesystem.
pub(crate) fn version<S: Sys>(sys: &S, fd: &S::Fd) -> io::Result<Option<Version>> {
    Ok(match sys.filesystem(fd)? {
        CGROUP_SUPER_MAGIC => Some(Version::V1),
        CGROUP2_SUPER_MAGIC => Some(Version::V2),
        _ => None,
    })
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
pub(crate) struct Pin<S: Sys> {
    path: CString,
    pub(crate) id: Id,
    /// Held where the budget for descriptors allows, which saves walking the path each time.
    held: Option<(S::Fd, Permit)>,
}

/// A directory to work below.
pub(crate) enum Dir<'a, S: Sys> {
    Held(&'a S::Fd),
    Opened(S::Fd),
}

impl<S: Sys> Deref for Dir<'_, S> {
    type Target = S::Fd;

    fn deref(&self) -> &S::Fd {
        match self {
            Dir::Held(fd) => fd,
            Dir::Opened(fd) => fd,
        }
    }
}

impl<S: Sys> Pin<S> {
    pub(crate) fn new(path: PathBuf, id: Id, held: Option<(S::Fd, Permit)>) -> io::Result<Pin<S>> {
        Ok(Pin { path: c_path(&path)?, id, held })
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.to_bytes()))
    }

    /// The pinned directory. A held one may have been removed meanwhile: what is looked up below it
    /// is then ENOENT or ENODEV, and [`Pin::still_there`] tells which kind of gone.
    pub(crate) fn dir(&self, sys: &S) -> Result<Dir<'_, S>, Lost> {
        if let Some((fd, _)) = &self.held {
            return Ok(Dir::Held(fd));
        }
        let fd = sys.open(None, &self.path, Open::Place).map_err(Lost::by_path)?;
        self.compare(sys.stat(Some(&fd), c""))?;
        Ok(Dir::Opened(fd))
    }

    /// Goes on by path. What comes after the first steps on a v2 group hardly needs the directory.
    pub(crate) fn let_go(&mut self) {
        self.held = None;
    }

    /// Whether the path still leads to the pinned directory, without following links.
    ///
    /// Where it does not, though a held descriptor says that the directory is there, it was renamed (v1 allows
    /// that) or something is mounted above it: that is ESTALE, neither gone nor replaced.
    pub(crate) fn still_there(&self, sys: &S) -> Result<Stat, Lost> {
        match (self.compare(sys.stat(None, &self.path)), &self.held) {
            (Err(Lost::Gone | Lost::Replaced), Some((fd, _)))
                if sys.stat(Some(fd), c"cgroup.procs").is_ok() =>
            {
                Err(Lost::Unknown(io::Error::from_raw_os_error(libc::ESTALE)))
            }
            (result, _) => result,
        }
    }

    fn compare(&self, stat: io::Result<Stat>) -> Result<Stat, Lost> {
        let stat = stat.map_err(Lost::by_path)?;
        if Id::of(&stat) == self.id { Ok(stat) } else { Err(Lost::Replaced) }
    }

    /// rmdir(2). It goes by name: a call of [`Pin::still_there`] directly before it is as close as the kernel
    /// lets one come.
    pub(crate) fn rmdir(&self, sys: &S) -> Result<(), Lost> {
        sys.rmdir(None, &self.path).map_err(Lost::by_path)
    }
}

impl Lost {
    /// What an error says about the directory that a path was to lead to.
    fn by_path(error: io::Error) -> Lost {
        if is_gone(&error) { Lost::Gone } else { Lost::Unknown(error) }
    }
}

/// Whether the kernel says that a cgroup, or what was looked up in it, is no more: ENOENT by path or
/// below a directory, ENODEV through an open file (kernfs: the node was deactivated).
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Whether the kernel says that rights are missing; or [`Pin::still_there`] that it can't be got at.
pub(crate) fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ESTALE))
}
