//! One directory of a target and everything below it: walking it, and removing it bottom-up.

use std::io;
use std::path::{Path, PathBuf};

use super::budget::Permit;
use super::file::below;
use super::pin::{Lost, Pin, Version, is_gone};
use super::v1;
use crate::sys::{Stat, Sys};

/// One pinned directory of a target.
pub(crate) struct Tree<S: Sys> {
    pub(crate) pin: Pin<S>,
    pub(crate) version: Version,
    /// Whether it is in the v1 freezer's hierarchy, once that was asked.
    freezer: Option<bool>,
    /// `cgroup.events` (v2), kept open where it is watched.
    pub(crate) events: Option<(S::Fd, Permit)>,
    /// The kernel refused to watch them.
    pub(crate) unwatchable: bool,
    /// They said last that nobody is there.
    pub(crate) emptied: bool,
    /// Directories still to be removed in the removal under way, if that takes several steps.
    #[allow(clippy::box_collection, reason = "thousands of entries have one, and few use it")]
    removing: Option<Box<Vec<PathBuf>>>,
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
pub(crate) enum Progress {
    All,
    /// The bound was met first.
    More,
}

impl<S: Sys> Tree<S> {
    pub(crate) fn new(pin: Pin<S>, version: Version) -> Tree<S> {
        let freezer = (version == Version::V2).then_some(false);
        Tree {
            pin,
            version,
            freezer,
            events: None,
            unwatchable: false,
            emptied: false,
            removing: None,
            end: None,
        }
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

    /// Whether it is in the v1 freezer's hierarchy.
    pub(crate) fn has_freezer(&mut self, sys: &S) -> Result<bool, Lost> {
        if let Some(freezer) = self.freezer {
            return Ok(freezer);
        }
        let freezer = match sys.stat(Some(&*self.pin.dir(sys)?), v1::STATE) {
            Ok(_) => true,
            // The file or the directory?
            Err(error) if is_gone(&error) => self.pin.still_there(sys).map(|_| false)?,
            Err(error) => return Err(Lost::Unknown(error)),
        };
        self.freezer = Some(freezer);
        Ok(freezer)
    }

    /// The same, as far as it was asked.
    pub(crate) fn is_freezer(&self) -> bool {
        self.freezer == Some(true)
    }

    /// Removes every directory, children first, as long as `bound` lasts; each removal takes one of it.
    ///
    /// Only for a tree that was seen empty: where a member lives, or is still dying, rmdir(2) says
    /// EBUSY, or on some kernels blocks until it is dead.
    pub(crate) fn remove(&mut self, sys: &S, bound: &mut usize) -> Result<Progress, Lost> {
        if !is_leaf(&self.pin.still_there(sys)?) {
            let dir = self.pin.dir(sys)?;
            let mut left = match self.removing.take() {
                Some(left) => left,
                None => Box::new(descendants(sys, &dir).map_err(Lost::Unknown)?.split_off(1)),
            };
            while let Some(child) = left.pop() {
                if *bound == 0 {
                    left.push(child);
                    self.removing = Some(left);
                    return Ok(Progress::More);
                }
                *bound -= 1;
                match below(sys, &*dir, &child, |at, child| sys.rmdir(Some(at), child)) {
                    // The next attempt looks anew.
                    Err(error) if !is_gone(&error) => return Err(Lost::Unknown(error)),
                    // Whoever removed it, it is gone.
                    _ => {}
                }
            }
            self.pin.still_there(sys)?;
        }
        if *bound == 0 {
            return Ok(Progress::More);
        }
        *bound -= 1;
        match self.pin.rmdir(sys) {
            Ok(()) | Err(Lost::Gone) => Ok(Progress::All),
            Err(lost) => Err(lost),
        }
    }
}

/// kernfs keeps the link count at 2 + subdirectories (`kernfs_refresh_inode`), which tells most groups, the
/// leaves, apart without listing some fifty files.
fn is_leaf(stat: &Stat) -> bool {
    stat.links == 2
}

/// The directories at and below `root`, parents first, relative to it; itself is the empty path.
/// Directories that vanish meanwhile are left out.
pub(crate) fn descendants<S: Sys>(sys: &S, root: &S::Fd) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while next < found.len() {
        match children(sys, root, &found[next]) {
            Ok(children) => found.extend(children),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        next += 1;
    }
    Ok(found)
}

/// The directories directly in `dir`; none if something else is mounted on it.
fn children<S: Sys>(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<Vec<PathBuf>> {
    if is_leaf(&below(sys, root, dir, |at, dir| sys.stat(Some(at), dir))?) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in below(sys, root, dir, |at, dir| sys.subdirectories(at, dir))? {
        let child = dir.join(name);
        // What is mounted there is not part of the target. It makes the removal EBUSY until it is unmounted.
        match below(sys, root, &child, |at, child| sys.stat(Some(at), child)) {
            Ok(stat) if stat.mount_root == Some(true) => {}
            Ok(_) => found.push(child),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
