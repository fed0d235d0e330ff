//! [`Walk`]: finding the directories at and below a root.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::errors::is_gone;
use super::file::below;
use crate::sys::{Stat, Sys};
use crate::time::{Instant, Span};

/// A walk, a list, or an attempt in steps lasts so long at most where something else can be done: members may make cgroups, and
/// fork, faster than they are found.
pub(super) const LONG: Span = Span::from_millis(500);

/// A walk lasts so long at most where nothing else can be done. Through a chain of 5 000 cgroups it takes about as long.
pub(super) const LONGEST: Span = Span::from_millis(10_000);

/// A walk through the directories at and below a root, one at a time, parents first.
///
/// Their paths are relative to the root; the root itself is the empty path. What is mounted on a directory is not part of the
/// target: it makes the removal EBUSY until it is unmounted.
///
/// Kept are names, and a path is made of them when it is needed: the paths of a chain would take the square of its length.
#[derive(Clone)]
pub(crate) struct Walk {
    /// Those found so far, and after them those that are still to be visited. The root is the first.
    directories: Vec<Directory>,
    found: usize,
    /// Some directory may not have been found: not all that were counted in one were read. On v1 a rename at that moment can hide
    /// one.
    pub(crate) uncertain: bool,
}

/// One directory, as seen from the one it is in.
#[derive(Clone)]
struct Directory {
    parent: usize,
    name: Box<OsStr>,
}

impl Walk {
    pub(crate) fn new() -> Walk {
        let root = Directory { parent: 0, name: Box::default() };
        Walk { directories: vec![root], found: 0, uncertain: false }
    }

    /// A walk that has found the root alone.
    pub(crate) fn of_leaf() -> Walk {
        Walk { found: 1, ..Walk::new() }
    }

    /// Whether every directory was visited.
    pub(crate) fn is_over(&self) -> bool {
        self.found == self.directories.len()
    }

    /// How many directories were found so far.
    pub(crate) fn len(&self) -> usize {
        self.found
    }

    /// The directories found so far, parents first.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.found).map(|at| self.path(at))
    }

    /// The directories found so far that are directly in the root.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Path> {
        let below = self.directories[..self.found].iter().skip(1);
        below.filter(|directory| directory.parent == 0).map(|directory| Path::new(&directory.name))
    }

    /// The directory that was found last.
    pub(crate) fn last(&self) -> Option<PathBuf> {
        Some(self.path(self.found.checked_sub(1)?))
    }

    /// Takes back the directory that was found last, unless that is the root. Call only when the walk is over.
    pub(crate) fn pop(&mut self) -> Option<PathBuf> {
        let child = self.last().filter(|_| self.found > 1)?;
        self.directories.pop();
        self.found -= 1;
        Some(child)
    }

    /// Visits the next directory. Returns it if it is found. One that fails is passed over.
    pub(crate) fn advance<S: Sys>(&mut self, sys: &S, root: &S::Fd) -> io::Result<Option<PathBuf>> {
        if self.is_over() {
            return Ok(None);
        }
        let dir = self.path(self.found);
        match self.visit(sys, root, &dir) {
            Ok(true) => {
                self.found += 1;
                Ok(Some(dir))
            }
            passed_over => {
                self.directories.remove(self.found);
                passed_over.map(|_| None)
            }
        }
    }

    /// Finds what is in the next directory. Returns false if something is mounted on it.
    fn visit<S: Sys>(&mut self, sys: &S, root: &S::Fd, dir: &Path) -> io::Result<bool> {
        let stat = match below(sys, root, dir, |at, dir| sys.stat(Some(at), dir)) {
            // It is found all the same: who lists it learns that, too.
            Err(error) if is_gone(&error) => return Ok(true),
            stat => stat?,
        };
        if stat.mount_root == Some(true) && self.found > 0 {
            return Ok(false);
        }
        if is_leaf(&stat) {
            return Ok(true);
        }
        let names = match below(sys, root, dir, |at, dir| sys.subdirectories(at, dir)) {
            Err(error) if is_gone(&error) => return Ok(true),
            names => names?,
        };
        self.uncertain |= names.len() + 2 != stat.links as usize;
        let parent = self.found;
        let inside = |name: OsString| Directory { parent, name: name.into_boxed_os_str() };
        self.directories.extend(names.into_iter().map(inside));
        Ok(true)
    }

    /// The path of a directory by its place in the list.
    fn path(&self, mut at: usize) -> PathBuf {
        let mut names = Vec::new();
        while at > 0 {
            let Directory { parent, name } = &self.directories[at];
            names.push(Path::new(name));
            at = *parent;
        }
        names.iter().rev().collect()
    }
}

/// kernfs keeps the link count at 2 + subdirectories (`kernfs_refresh_inode`), which tells most groups, the
/// leaves, apart without listing some fifty files.
pub(crate) fn is_leaf(stat: &Stat) -> bool {
    stat.links == 2
}

/// What came of a call on a directory, given by its path below a root; `None` of a descendant that is gone.
pub(crate) fn unless_gone<T>(dir: &Path, result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is_gone(&error) && !dir.as_os_str().is_empty() => Ok(None),
        result => result.map(Some),
    }
}

/// All directories at and below `root`, as a [`Walk`] finds them. An error if that takes longer than `most`.
pub(crate) fn descendants<S: Sys>(sys: &S, root: &S::Fd, most: Span) -> io::Result<Walk> {
    let end = Instant::after_start(sys.now()).saturating_add(most);
    let mut walk = Walk::new();
    while !walk.is_over() {
        walk.advance(sys, root)?;
        if !walk.is_over() && Instant::after_start(sys.now()) >= end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too many cgroups to be listed at once"));
        }
    }
    Ok(walk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_of_names() {
        let mut walk = Walk::of_leaf();
        for (parent, name) in [(0, "a"), (0, "b"), (1, "c"), (3, "d"), (0, "ahead")] {
            walk.directories.push(Directory { parent, name: OsString::from(name).into_boxed_os_str() });
        }
        walk.found = 5;
        let paths = |walk: &Walk| walk.paths().map(|path| path.into_os_string()).collect::<Vec<_>>();
        assert_eq!(paths(&walk), ["", "a", "b", "a/c", "a/c/d"]);
        assert!(walk.children().eq(["a", "b"]) && !walk.is_over());
        walk.directories.pop();
        assert!(walk.is_over());
        let popped: Vec<PathBuf> = std::iter::from_fn(|| walk.pop()).collect();
        assert_eq!(popped, ["a/c/d", "a/c", "b", "a"].map(PathBuf::from));
        assert_eq!((paths(&walk), walk.last()), (vec!["".into()], Some(PathBuf::new())));
    }
}
