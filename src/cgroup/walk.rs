//! [`Walk`]: finds the directories at and below a root. [`Near`]: gives short paths to them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::errors::is_gone;
use super::file::below;
use crate::sys::{Open, Stat, Sys};
use crate::time::{Instant, Span};

/// The longest time of a walk, a list, or an attempt in steps, where there is another way to go on: members may make cgroups,
/// and fork, faster than they are found.
pub(super) const LONG: Span = Span::from_millis(500);

/// The longest time of a walk where there is no other way to go on.
pub(super) const LONGEST: Span = Span::from_millis(10_000);

/// The longest path by which a directory is addressed, in levels. Members with the right to make cgroups can nest thousands
/// of them, and the kernel follows each path from its beginning.
const FAR: usize = if cfg!(test) { 2 } else { 64 };

/// A walk through the directories at and below a root, one at a time, parents first.
///
/// A directory is known by its number, the root by 0. A mount on a directory is not part of the target: the removal fails with
/// EBUSY until it is unmounted.
///
/// Only names are kept, and a path is made of them when it is needed: the paths of a chain would take memory with the
/// square of its length.
#[derive(Clone)]
pub(crate) struct Walk {
    /// The directories found so far, and after them those that are still to be visited. The root is the first.
    directories: Vec<Directory>,
    found: usize,
    /// Whether some directory may not have been found: fewer names were read in a directory than it counts. On v1, a rename
    /// at that moment can hide one.
    pub(crate) uncertain: bool,
}

/// One directory: its name, and the place of its parent in the list.
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

    /// Makes a walk that is over and has found only the root.
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

    /// The directories found so far that are directly in the root.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Path> {
        let below = self.directories[..self.found].iter().skip(1);
        below.filter(|directory| directory.parent == 0).map(|directory| Path::new(&directory.name))
    }

    /// The number of the directory that was found last.
    pub(crate) fn last(&self) -> Option<usize> {
        self.found.checked_sub(1)
    }

    /// Forgets the directory that was found last. Call only when the walk is over.
    pub(crate) fn pop(&mut self) {
        self.directories.pop();
        self.found = self.directories.len();
    }

    /// Visits the next directory. Returns its number if it is found. A directory whose visit fails is skipped.
    pub(crate) fn advance<S: Sys>(&mut self, sys: &S, near: &mut Near<'_, S>) -> io::Result<Option<usize>> {
        if self.is_over() {
            return Ok(None);
        }
        let number = self.found;
        match self.visit(sys, near.place(sys, self, number)) {
            Ok(true) => {
                self.found += 1;
                Ok(Some(number))
            }
            passed_over => {
                self.directories.remove(number);
                passed_over.map(|_| None)
            }
        }
    }

    /// Finds what is in the next directory. Returns false if something is mounted on it.
    fn visit<S: Sys>(&mut self, sys: &S, (root, dir): (&S::Fd, PathBuf)) -> io::Result<bool> {
        let stat = match below(sys, root, &dir, |at, dir| sys.stat(Some(at), dir)) {
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
        let names = match below(sys, root, &dir, |at, dir| sys.subdirectories(at, dir)) {
            Err(error) if is_gone(&error) => return Ok(true),
            names => names?,
        };
        self.uncertain |= names.len() + 2 != stat.links as usize;
        let parent = self.found;
        let inside = |name: OsString| Directory { parent, name: name.into_boxed_os_str() };
        self.directories.extend(names.into_iter().map(inside));
        Ok(true)
    }

    /// The path of a directory from the root; that of the root is empty.
    pub(crate) fn path(&self, number: usize) -> PathBuf {
        self.path_from(0, number, usize::MAX).unwrap_or_default()
    }

    /// The path from a directory to one in it, if that is at most so many levels below.
    fn path_from(&self, above: usize, number: usize, levels: usize) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut here = number;
        while here != above {
            if here == 0 || names.len() == levels {
                return None;
            }
            let Directory { parent, name } = &self.directories[here];
            names.push(Path::new(name));
            here = *parent;
        }
        Some(names.iter().rev().collect())
    }

    /// The directory so many levels above one.
    fn above(&self, number: usize, levels: usize) -> usize {
        (0..levels).fold(number, |here, _| self.directories[here].parent)
    }
}

/// The root of a walk, and an open directory in a deep tree, from which the paths to the directories below it are short. That
/// directory has no permit of the descriptor budget, so a `Near` is not kept from one step to the next.
pub(crate) struct Near<'r, S: Sys> {
    root: &'r S::Fd,
    open: Option<(usize, S::Fd)>,
}

impl<'r, S: Sys> Near<'r, S> {
    pub(crate) fn new(root: &'r S::Fd) -> Near<'r, S> {
        Near { root, open: None }
    }

    /// An open directory above one of the walk through this root, and the path from it. The path is empty for the root, and for
    /// no other.
    pub(crate) fn place(&mut self, sys: &S, walk: &Walk, number: usize) -> (&S::Fd, PathBuf) {
        if let Some(path) = walk.path_from(0, number, FAR) {
            return (self.root, path);
        }
        if self.path(walk, number).is_none() {
            let above = walk.above(number, FAR.div_ceil(2));
            let (place, path) = self.path(walk, above).unwrap_or_else(|| (self.root, walk.path(above)));
            let opened = below(sys, place, &path, |at, path| sys.open(Some(at), path, Open::Place));
            // If it cannot be opened, or if no descriptor is free then for the call that follows, the path from the root is used.
            let is_another_free = |fd: &S::Fd| sys.open(Some(fd), c".", Open::Place).is_ok();
            self.open = opened.ok().filter(is_another_free).map(|fd| (above, fd));
        }
        self.path(walk, number).unwrap_or_else(|| (self.root, walk.path(number)))
    }

    /// The open directory, and the path from there, if it is above the one with this number, and not far.
    fn path(&self, walk: &Walk, number: usize) -> Option<(&S::Fd, PathBuf)> {
        let (open, fd) = self.open.as_ref().filter(|(open, _)| *open != number)?;
        Some((fd, walk.path_from(*open, number, FAR)?))
    }
}

/// kernfs keeps the link count at 2 + subdirectories (`kernfs_refresh_inode`), so most cgroups, the leaves, are
/// recognized without listing some fifty files.
pub(crate) fn is_leaf(stat: &Stat) -> bool {
    stat.links == 2
}

/// Passes on the result of a call on a directory, given by its path below a root; `None` for a descendant that
/// is gone.
pub(crate) fn unless_gone<T>(dir: &Path, result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if is_gone(&error) && !dir.as_os_str().is_empty() => Ok(None),
        result => result.map(Some),
    }
}

/// Finds all directories at and below `root`, by a [`Walk`]. An error if it takes longer than `most`.
pub(crate) fn descendants<S: Sys>(sys: &S, root: &S::Fd, most: Span) -> io::Result<Walk> {
    let end = Instant::after_start(sys.now()).saturating_add(most);
    let (mut walk, mut near) = (Walk::new(), Near::new(root));
    while !walk.is_over() {
        walk.advance(sys, &mut near)?;
        if !walk.is_over() && Instant::after_start(sys.now()) >= end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too many cgroups to be listed at once"));
        }
    }
    Ok(walk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(parents: &[(usize, &str)]) -> Walk {
        let mut walk = Walk::of_leaf();
        for &(parent, name) in parents {
            walk.directories.push(Directory { parent, name: OsString::from(name).into_boxed_os_str() });
        }
        walk.found = walk.directories.len();
        walk
    }

    #[test]
    fn paths_are_made_of_names() {
        let mut walk = chain(&[(0, "a"), (0, "b"), (1, "c"), (3, "d")]);
        let paths =
            |walk: &Walk| (0..walk.len()).map(|at| walk.path(at).into_os_string()).collect::<Vec<_>>();
        assert_eq!(paths(&walk), ["", "a", "b", "a/c", "a/c/d"]);
        assert!(walk.children().eq(["a", "b"].map(Path::new)) && walk.is_over());
        assert_eq!((walk.above(4, 1), walk.above(4, 2), walk.above(4, 9)), (3, 1, 0));
        let from = |above, number, levels| walk.path_from(above, number, levels);
        assert_eq!([from(1, 4, 2), from(1, 4, 1), from(2, 4, 9)], [Some("c/d".into()), None, None]);
        walk.pop();
        assert_eq!((paths(&walk).len(), walk.last(), walk.is_over()), (4, Some(3), true));
    }
}
