//! One directory of a target and everything below it: walking it, and removing it bottom-up.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir as DirStream, Type};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::budget::Permit;
use super::pin::{Lost, Pin, Version, is_gone};
use crate::sys;

/// One pinned directory of a target.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) pin: Pin,
    pub(crate) version: Version,
    /// Whether it is in the v1 freezer's hierarchy.
    pub(crate) freezer: bool,
    /// `cgroup.events` (v2), kept open where it is watched.
    pub(crate) events: Option<(File, Permit)>,
    /// The kernel refused to watch them.
    pub(crate) unwatchable: bool,
    /// Set once it is gone, which is for good.
    pub(crate) end: Option<TreeEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeEnd {
    Gone,
    Replaced,
}

/// How far a removal came.
#[derive(Debug)]
pub(crate) enum Removed {
    All,
    /// The bound was met first.
    More,
}

impl Tree {
    pub(crate) fn new(pin: Pin, version: Version, freezer: bool) -> Tree {
        Tree { pin, version, freezer, events: None, unwatchable: false, end: None }
    }

    /// Notes what a lost directory says; an error if it is not known.
    pub(crate) fn lost(&mut self, lost: Lost) -> io::Result<TreeEnd> {
        let end = match lost {
            Lost::Gone => TreeEnd::Gone,
            Lost::Replaced => TreeEnd::Replaced,
            Lost::Unknown(error) => return Err(error),
        };
        self.end = Some(end);
        self.events = None;
        Ok(end)
    }

    /// Removes every directory, children first, as long as `bound` lasts; each removal takes one of it.
    ///
    /// Only for a tree that was seen empty: where a member lives, or is still dying, rmdir(2) says
    /// EBUSY, or on some kernels blocks until it is dead.
    pub(crate) fn remove(&mut self, bound: &mut usize) -> Result<Removed, Lost> {
        {
            let dir = self.pin.dir()?;
            for child in descendants(dir.as_fd()).map_err(Lost::Unknown)?.iter().rev() {
                if child.as_os_str().is_empty() {
                    continue;
                }
                if *bound == 0 {
                    return Ok(Removed::More);
                }
                *bound -= 1;
                ignore_gone(rmdir(dir.as_fd(), child))?;
            }
        }
        if *bound == 0 {
            return Ok(Removed::More);
        }
        *bound -= 1;
        // rmdir(2) goes by name: this look directly before it is as close as the kernel lets one come.
        self.pin.still_there()?;
        let result = unlinkat(nix::fcntl::AT_FDCWD, self.pin.c_path(), UnlinkatFlags::RemoveDir);
        ignore_gone(result.map_err(io::Error::from))?;
        Ok(Removed::All)
    }
}

/// Whoever removed it, it is gone.
fn ignore_gone(result: io::Result<()>) -> Result<(), Lost> {
    match result {
        Err(error) if !is_gone(&error) => Err(Lost::Unknown(error)),
        _ => Ok(()),
    }
}

fn rmdir(at: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(unlinkat(at, path, UnlinkatFlags::RemoveDir)?)
}

/// The directories at and below `root`, parents first, relative to it; itself is the empty path.
/// Directories that vanish meanwhile are left out.
pub(crate) fn descendants(root: BorrowedFd<'_>) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while next < found.len() {
        match children(root, &found[next]) {
            Ok(children) => found.extend(children),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        next += 1;
    }
    Ok(found)
}

/// The directories directly in `dir`; none if something else is mounted on it.
fn children(root: BorrowedFd<'_>, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let is_root = dir.as_os_str().is_empty();
    let stat = sys::stat(root, &CString::new(dir.as_os_str().as_bytes())?)?;
    // kernfs keeps the link count at 2 + subdirectories (`kernfs_refresh_inode`), which tells most
    // groups, the leaves, apart without listing some fifty files.
    if stat.links == 2 {
        return Ok(Vec::new());
    }
    let name = if is_root { Path::new(".") } else { dir };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut stream = DirStream::openat(root, name, flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in stream.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != Some(Type::Directory) || name == c"." || name == c".." {
            continue;
        }
        let child = dir.join(OsStr::from_bytes(name.to_bytes()));
        // What is mounted there is not part of the target. It makes the removal EBUSY until it is unmounted.
        match sys::stat(root, &CString::new(child.as_os_str().as_bytes())?) {
            Ok(stat) if stat.mounted_on => {}
            Ok(_) => found.push(child),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
