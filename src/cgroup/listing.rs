//! [`Listing`]: the members of a large target, listed in steps.
//!
//! What is read in one step may have changed by the next. A process that moves within the target meanwhile can be missed: the
//! next list has it, and a directory that it is in cannot be removed.

use super::context::Limit;
use super::errors::{Failed, Refused, is_gone};
use super::identity::Id;
use super::members::MemberList;
use super::tree::{Directories, Tree, Walk};
use crate::sys::Sys;

/// A target of so many directories is large: its members are listed and signalled in steps where the time of a call is
/// limited.
pub(super) const LARGE_TREE: usize = if cfg!(test) { 2 } else { 64 };

/// Directories that a step reads in any case.
pub(super) const FEW: usize = if cfg!(test) { 1 } else { 8 };

/// How far a list has come.
#[derive(Default)]
pub(crate) struct Listing {
    pub(super) members: MemberList,
    /// The tree under way: the directories that were read.
    tree: Option<(Id, Walk)>,
    /// The trees that are listed, or cannot be.
    over: Vec<Id>,
    /// Why the last of them cannot be.
    pub(super) why: Option<Refused>,
    /// The time of the call was up before all was listed.
    pub(super) unfinished: bool,
    /// Directories read in this step.
    read: usize,
    /// This is the search for the caller.
    at_spawn: bool,
    /// Some of them were read by an earlier step.
    pub(super) continued: bool,
    /// Some tree is large.
    pub(super) large: bool,
}

impl Listing {
    /// That of the search for the caller.
    pub(super) fn at_spawn() -> Listing {
        Listing { at_spawn: true, ..Listing::default() }
    }

    /// What is left for the next step.
    pub(super) fn rest(self, why: Option<Refused>) -> Listing {
        Listing {
            why: why.or(self.why),
            unfinished: false,
            read: 0,
            at_spawn: false,
            continued: true,
            ..self
        }
    }

    /// Adds the members of a tree, or of some of its directories if the time of the call is up before.
    pub(super) fn add<S: Sys>(
        &mut self,
        sys: &S,
        limit: Limit,
        tree: &Tree<S>,
        directories: &mut Directories<S>,
    ) -> Result<(), Failed> {
        let id = tree.identity.id;
        if self.unfinished || self.over.contains(&id) {
            return Ok(());
        }
        self.over.push(id);
        if !limit.is_set() && self.tree.is_none() || directories.is_leaf(id) {
            return self.members.add_tree(sys, tree, directories);
        }
        let mut walk = self.tree.take_if(|(of, _)| *of == id).map_or_else(Walk::new, |(_, walk)| walk);
        while !walk.is_over() {
            // A small tree is searched by the spawn, however long that takes.
            let least = if self.at_spawn { LARGE_TREE } else { FEW };
            if self.read >= least && limit.is_over(sys) {
                self.over.pop();
                (self.tree, self.unfinished) = (Some((id, walk)), true);
                return Ok(());
            }
            self.read += 1;
            let root = directories.get(sys, &tree.identity)?;
            if let Some(dir) = walk.advance(sys, root)? {
                match self.members.add(sys, root, dir) {
                    Ok(()) => {}
                    // A descendant that was removed meanwhile has no members.
                    Err(error) if is_gone(&error) && !dir.as_os_str().is_empty() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.large |= walk.found.len() >= LARGE_TREE;
        if !self.continued {
            directories.insert_subtree(id, walk.found);
        }
        Ok(())
    }
}
