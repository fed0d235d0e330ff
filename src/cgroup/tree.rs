//! One directory of a target and everything below it.

use std::io;
use std::path::Path;

use super::descriptor_budget::Permit;
use super::errors::{Cause, Failed, Fate, is_gone};
use super::hierarchy::Hierarchy;
use super::identity::{Id, Identity, Parents};
use super::walk::{Walk, descendants};
use super::{v1, v2};
use crate::sys::Sys;
use crate::time::Span;

/// One pinned directory of a target.
pub(crate) struct Tree<S: Sys> {
    pub(crate) identity: Identity<S>,
    pub(crate) hierarchy: Hierarchy<S>,
    /// What happened to it, once it is gone.
    pub(crate) fate: Option<Fate>,
    /// The file by which we froze it, and thaw it. It is kept open because rights are checked at the open, and so
    /// that the thaw needs neither a path nor a free descriptor.
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
            // The error may be for the file or for the directory.
            Failed::Because(Cause::Error(error)) if is_gone(&error) => {
                self.identity.fate(sys, parents)?.ok_or(Cause::Error(error))?
            }
            Failed::Because(cause) => return Err(cause),
        };
        if let Some(control) = &self.frozen_by {
            // Another cgroup may have the name while the directory still exists, so it is thawed.
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

    /// Closes the descriptors that are open for it, except the one that a thaw needs.
    pub(crate) fn let_go(&mut self) {
        self.identity.let_go();
        self.hierarchy.let_go();
    }
}

/// The directories that a step has open, and those that it has found below them.
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
    /// Adds a directory that resolving the target has opened.
    pub(crate) fn insert(&mut self, id: Id, fd: S::Fd) {
        self.open.push((id, fd));
    }

    /// Closes the directories. Returns false if none was open.
    pub(crate) fn close(&mut self) -> bool {
        !std::mem::take(&mut self.open).is_empty()
    }

    /// Notes that a directory has none below it.
    pub(crate) fn insert_leaf(&mut self, id: Id) {
        self.insert_subtree(id, Walk::of_leaf());
    }

    /// Notes the directories at and below a directory, as this step has found them.
    pub(crate) fn insert_subtree(&mut self, id: Id, subtree: Walk) {
        self.subtrees.retain(|(known, _)| *known != id);
        self.subtrees.push((id, subtree));
    }

    /// Whether the step has found that a directory has none below it.
    pub(crate) fn is_leaf(&self, id: Id) -> bool {
        self.subtrees.iter().any(|(known, subtree)| *known == id && subtree.len() == 1)
    }

    /// Returns the directory of an identity, and opens it if it is not open.
    pub(crate) fn get<'a>(&'a mut self, sys: &S, identity: &'a Identity<S>) -> Result<&'a S::Fd, Failed> {
        get(&mut self.open, sys, identity)
    }

    /// Returns the directory, and the directories at and below it as the step has found them: parents first, with
    /// paths relative to it; its own is the empty path. A walk to find them takes no longer than `most`.
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

    /// Takes the directories at and below a directory, if the step has found them.
    pub(crate) fn take_subtree(&mut self, id: Id) -> Option<Walk> {
        let at = self.subtrees.iter().position(|(known, _)| *known == id)?;
        Some(self.subtrees.swap_remove(at).1)
    }

    /// Forgets the directories that were found.
    pub(crate) fn forget_subtrees(&mut self) {
        self.subtrees.clear();
    }
}

/// Returns the directory of an identity. At most one is open at a time, because descriptors may be short.
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
