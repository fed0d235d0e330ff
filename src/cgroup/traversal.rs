//! [`Traversal`]: a walk through the directories of a target, in steps where the time of a call is limited.

use std::path::{Path, PathBuf};

use super::context::Limit;
use super::errors::{Failed, Refused};
use super::identity::Id;
use super::tree::{Directories, Tree, Walk};
use crate::sys::Sys;

/// Directories that a step visits in any case. The simulation, whose targets are all small, cuts them too.
pub(super) const FEW: usize = if cfg!(test) { 1 } else { 8 };

/// How far a walk through the trees of a target has come.
#[derive(Default)]
pub(super) struct Traversal {
    /// The tree under way.
    tree: Option<(Id, Walk)>,
    /// The trees that were visited, or cannot be.
    over: Vec<Id>,
    /// Why the last of them cannot be.
    pub(super) why: Option<Refused>,
    /// The time of the call was up before all was visited.
    pub(super) unfinished: bool,
    /// Directories visited in this step.
    visited: usize,
}

impl Traversal {
    /// One that has not begun. `why`: what was refused before it.
    pub(super) fn after(why: Option<Refused>) -> Traversal {
        Traversal { why, ..Traversal::default() }
    }

    /// What is left for the next step.
    pub(super) fn rest(self, why: Option<Refused>) -> Traversal {
        Traversal { why: why.or(self.why), unfinished: false, visited: 0, ..self }
    }

    /// Begins with a tree, or goes on with it. Returns false if that is over, or comes later.
    pub(super) fn enter(&mut self, id: Id) -> bool {
        let enters = !self.unfinished && !self.over.contains(&id);
        if enters {
            // Also should it fail.
            self.over.push(id);
        }
        enters
    }

    /// Whether a tree was begun by an earlier step.
    pub(super) fn is_under_way(&self) -> bool {
        self.tree.is_some()
    }

    /// Visits the directories of a tree that was entered, `least` of them or as many as the time allows. Returns them if all were
    /// visited by now.
    pub(super) fn visit<S: Sys>(
        &mut self,
        sys: &S,
        limit: Limit,
        least: usize,
        (tree, directories): (&Tree<S>, &mut Directories<S>),
        mut visit: impl FnMut(&S::Fd, &Path) -> Result<(), Failed>,
    ) -> Result<Option<Vec<PathBuf>>, Failed> {
        let id = tree.identity.id;
        let mut walk = self.tree.take_if(|(of, _)| *of == id).map_or_else(Walk::new, |(_, walk)| walk);
        while !walk.is_over() {
            if self.visited >= least && limit.is_over(sys) {
                self.over.retain(|over| *over != id);
                (self.tree, self.unfinished) = (Some((id, walk)), true);
                return Ok(None);
            }
            self.visited += 1;
            let root = directories.get(sys, &tree.identity)?;
            if let Some(dir) = walk.advance(sys, root)? {
                visit(root, dir)?;
            }
        }
        Ok(Some(walk.found))
    }
}
