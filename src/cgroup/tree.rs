//! One directory of a target and everything below it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::descriptor_budget::Permit;
use super::errors::{Cause, Failed, Fate, is_gone};
use super::file::below;
use super::hierarchy::Hierarchy;
use super::identity::{Id, Identity, Parents};
use super::{v1, v2};
use crate::sys::{Stat, Sys};
use crate::time::{Instant, Span};

/// A walk, a list, or an attempt in steps lasts so long at most where something else can be done: members may make cgroups, and
/// fork, faster than they are found.
pub(super) const LONG: Span = Span::from_millis(500);

/// A walk lasts so long at most where nothing else can be done. Through a chain of 5 000 cgroups it takes about as long.
pub(super) const LONGEST: Span = Span::from_millis(10_000);

/// One pinned directory of a target.
pub(crate) struct Tree<S: Sys> {
    pub(crate) identity: Identity<S>,
    pub(crate) hierarchy: Hierarchy<S>,
    /// What became of it, once it is gone.
    pub(crate) fate: Option<Fate>,
    /// The file by which it was frozen by us, and is thawed. It is kept open because rights are checked when it is
    /// opened, and so that neither a path nor a free descriptor is needed to thaw.
    pub(crate) frozen_by: Option<Box<Control<S>>>,
}

/// An open `freezer.state` or `cgroup.freeze`.
pub(crate) struct Control<S: Sys> {
    pub(crate) file: S::Fd,
    pub(crate) _permit: Permit,
}

impl<S: Sys> Control<S> {
    /// Undoes the freeze, without a read.
    pub(crate) fn thaw(&self, sys: &S, is_v1: bool) -> io::Result<()> {
        if is_v1 { v1::thaw_open(sys, &self.file) } else { v2::thaw_open(sys, &self.file) }
    }
}

impl<S: Sys> Tree<S> {
    pub(crate) fn new(identity: Identity<S>, hierarchy: Hierarchy<S>) -> Tree<S> {
        Tree { identity, hierarchy, fate: None, frozen_by: None }
    }

    pub(crate) fn path(&self) -> &Path {
        self.identity.path()
    }

    pub(crate) fn is_left(&self) -> bool {
        self.fate.is_none()
    }

    /// Marks the directory as gone if `failed` shows that. Returns the cause if the directory still exists.
    pub(crate) fn note(&mut self, sys: &S, parents: &mut Parents<S>, failed: Failed) -> Result<(), Cause> {
        let fate = match failed {
            Failed::Gone(fate) => fate,
            // The file, or the directory?
            Failed::Because(Cause::Error(error)) if is_gone(&error) => {
                self.identity.fate(sys, parents)?.ok_or(Cause::Error(error))?
            }
            Failed::Because(cause) => return Err(cause),
        };
        if let Some(control) = &self.frozen_by {
            // Its name may be another's, and itself still there.
            let _ = control.thaw(sys, self.hierarchy.is_v1());
        }
        self.mark_gone(fate);
        Ok(())
    }

    /// Notes that the directory is gone.
    pub(crate) fn mark_gone(&mut self, fate: Fate) {
        self.fate = Some(fate);
        self.frozen_by = None;
        self.let_go();
    }

    /// Closes what is open for it, but for what a thaw needs.
    pub(crate) fn let_go(&mut self) {
        self.identity.let_go();
        self.hierarchy.let_go();
    }
}

/// What a step has open, and knows of the directories below.
pub(crate) struct Directories<S: Sys> {
    open: Vec<(Id, S::Fd)>,
    subtrees: Vec<(Id, Walk)>,
}

impl<S: Sys> Default for Directories<S> {
    fn default() -> Directories<S> {
        Directories { open: Vec::new(), subtrees: Vec::new() }
    }
}

impl<S: Sys> Directories<S> {
    /// Takes in a directory that the resolve has opened.
    pub(crate) fn insert(&mut self, id: Id, fd: S::Fd) {
        self.open.push((id, fd));
    }

    /// Closes the directories. Returns false if none was open.
    pub(crate) fn close(&mut self) -> bool {
        !std::mem::take(&mut self.open).is_empty()
    }

    /// Takes in that a directory has none below it.
    pub(crate) fn insert_leaf(&mut self, id: Id) {
        self.insert_subtree(id, Walk::over(vec![PathBuf::new()]));
    }

    /// Takes in the directories at and below one, as this step has found them.
    pub(crate) fn insert_subtree(&mut self, id: Id, subtree: Walk) {
        self.subtrees.retain(|(known, _)| *known != id);
        self.subtrees.push((id, subtree));
    }

    /// Whether the step has found that a directory has none below it.
    pub(crate) fn is_leaf(&self, id: Id) -> bool {
        self.subtrees.iter().any(|(known, subtree)| *known == id && subtree.found.len() == 1)
    }

    /// The directory.
    pub(crate) fn get<'a>(&'a mut self, sys: &S, identity: &'a Identity<S>) -> Result<&'a S::Fd, Failed> {
        get(&mut self.open, sys, identity)
    }

    /// The directory, and those at and below it as the step has found them, parents first, relative to it; itself is
    /// the empty path. A walk to find them lasts for `most`.
    pub(crate) fn subtree<'a>(
        &'a mut self,
        sys: &S,
        identity: &'a Identity<S>,
        most: Span,
    ) -> Result<(&'a S::Fd, &'a Walk), Failed> {
        let Directories { open, subtrees } = self;
        let fd = get(open, sys, identity)?;
        let at = match subtrees.iter().position(|(id, _)| *id == identity.id) {
            Some(at) => at,
            None => {
                subtrees.push((identity.id, descendants(sys, fd, most)?));
                subtrees.len() - 1
            }
        };
        Ok((fd, &subtrees[at].1))
    }

    /// The directories at and below one, if the step has found them.
    pub(crate) fn take_subtree(&mut self, id: Id) -> Option<Walk> {
        let at = self.subtrees.iter().position(|(known, _)| *known == id)?;
        Some(self.subtrees.swap_remove(at).1)
    }

    /// Forgets what is below.
    pub(crate) fn forget_subtrees(&mut self) {
        self.subtrees.clear();
    }
}

/// The directory of an identity. At most one is opened at a time, for descriptors may be short.
fn get<'a, S: Sys>(
    open: &'a mut Vec<(Id, S::Fd)>,
    sys: &S,
    identity: &'a Identity<S>,
) -> Result<&'a S::Fd, Failed> {
    if let Some(fd) = identity.held() {
        return Ok(fd);
    }
    let at = match open.iter().position(|(id, _)| *id == identity.id) {
        Some(at) => at,
        None => {
            open.clear();
            open.push((identity.id, identity.open(sys)?));
            0
        }
    };
    Ok(&open[at].1)
}

/// kernfs keeps the link count at 2 + subdirectories (`kernfs_refresh_inode`), which tells most groups, the
/// leaves, apart without listing some fifty files.
pub(crate) fn is_leaf(stat: &Stat) -> bool {
    stat.links == 2
}

/// A walk through the directories at and below a root, one at a time, parents first.
///
/// Their paths are relative to the root; the root itself is the empty path. What is mounted on a directory is not part of the
/// target: it makes the removal EBUSY until it is unmounted.
pub(crate) struct Walk {
    /// Those that are still to be visited.
    ahead: VecDeque<PathBuf>,
    pub(crate) found: Vec<PathBuf>,
    /// Some directory may not have been found: not all that were counted in one were read. On v1 a rename at that moment can hide
    /// one.
    pub(crate) uncertain: bool,
}

impl Walk {
    pub(crate) fn new() -> Walk {
        Walk { ahead: VecDeque::from([PathBuf::new()]), ..Walk::over(Vec::new()) }
    }

    /// A walk that is over.
    pub(crate) fn over(found: Vec<PathBuf>) -> Walk {
        Walk { ahead: VecDeque::new(), found, uncertain: false }
    }

    /// Whether every directory was visited.
    pub(crate) fn is_over(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Visits the next directory. Returns it if it is found.
    pub(crate) fn advance<S: Sys>(&mut self, sys: &S, root: &S::Fd) -> io::Result<Option<&Path>> {
        let Some(dir) = self.ahead.pop_front() else { return Ok(None) };
        // One that is gone by now is found all the same: who lists it learns that, too.
        match below(sys, root, &dir, |at, dir| sys.stat(Some(at), dir)) {
            Ok(stat) if stat.mount_root == Some(true) && !dir.as_os_str().is_empty() => return Ok(None),
            Ok(stat) if is_leaf(&stat) => {}
            Ok(stat) => match below(sys, root, &dir, |at, dir| sys.subdirectories(at, dir)) {
                Ok(names) => {
                    self.uncertain |= names.len() + 2 != stat.links as usize;
                    self.ahead.extend(names.into_iter().map(|name| dir.join(name)));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            },
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        self.found.push(dir);
        Ok(self.found.last().map(PathBuf::as_path))
    }
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
