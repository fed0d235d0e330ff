//! [`Listing`]: the members of a large target, listed in steps.
//!
//! What is read in one step may have changed by the next. A process that moves within the target meanwhile can be missed: the
//! next list has it, and a directory that it is in cannot be removed.

use super::context::Limit;
use super::errors::{Failed, Refused, is_gone};
use super::members::MemberList;
use super::traversal::{FEW, Traversal};
use super::tree::{Directories, Tree};
use crate::sys::Sys;

/// A target of so many directories is large: its members are listed and signalled in steps where the time of a call is
/// limited.
pub(super) const LARGE_TREE: usize = if cfg!(test) { 2 } else { 64 };

/// How far a list has come.
#[derive(Default)]
pub(crate) struct Listing {
    pub(super) members: MemberList,
    pub(super) traversal: Traversal,
    /// This is the search for the caller.
    at_spawn: bool,
    /// Some directories were read by an earlier step.
    pub(super) continued: bool,
    /// Some tree is large.
    pub(super) large: bool,
}

impl Listing {
    /// That of the search for the caller.
    pub(super) fn at_spawn() -> Listing {
        Listing { at_spawn: true, ..Listing::default() }
    }

    /// Whether the time of the call was up before all was listed.
    pub(super) fn is_unfinished(&self) -> bool {
        self.traversal.unfinished
    }

    /// What is left for the next step.
    pub(super) fn rest(self, why: Option<Refused>) -> Listing {
        Listing { traversal: self.traversal.rest(why), at_spawn: false, continued: true, ..self }
    }

    /// Adds the members of a tree, or of some of its directories if the time of the call is up before.
    pub(super) fn add<S: Sys>(
        &mut self,
        sys: &S,
        limit: Limit,
        tree: &Tree<S>,
        directories: &mut Directories<S>,
    ) -> Result<(), Failed> {
        let Listing { members, traversal, .. } = self;
        let id = tree.identity.id;
        if !traversal.enter(id) {
            return Ok(());
        }
        if !limit.is_set() && !traversal.is_under_way() || directories.is_leaf(id) {
            return members.add_tree(sys, tree, directories);
        }
        // A small tree is searched by the spawn, however long that takes.
        let least = if self.at_spawn { LARGE_TREE } else { FEW };
        let found = traversal.visit(sys, limit, least, (tree, directories), |root, dir| {
            match members.add(sys, root, dir) {
                // A descendant that was removed meanwhile has no members.
                Err(error) if is_gone(&error) && !dir.as_os_str().is_empty() => Ok(()),
                added => Ok(added?),
            }
        })?;
        if let Some(found) = found {
            self.large |= found.len() >= LARGE_TREE;
            if !self.continued {
                directories.insert_subtree(id, found);
            }
        }
        Ok(())
    }
}
