//! [`Traversal`]: a walk through the directories of a target, in steps where the time of a call is limited.

use std::path::Path;

use super::context::Limit;
use super::errors::{Failed, Refused};
use super::identity::Id;
use super::tree::{Directories, Tree};
use super::walk::{Near, Walk};
use crate::sys::Sys;

/// The number of directories that a step visits in any case, unless the visit of one of them is cut. It is small in tests,
/// so that the small targets of the simulation take several steps too.
pub(super) const FEW: usize = if cfg!(test) { 1 } else { 8 };

/// A walk through the trees of a target. `L`: the rest of a visit to a directory.
pub(super) struct Traversal<L> {
    /// The tree under way, and the rest of the visit to the directory of it that was found last.
    tree: Option<(Id, Walk, Option<L>)>,
    /// The trees that were visited, or cannot be visited.
    over: Vec<Id>,
    /// Why the last such tree cannot be visited.
    pub(super) why: Option<Refused>,
    /// Whether the time of the call was up before all directories were visited.
    pub(super) unfinished: bool,
    /// Directories visited in this step.
    visited: usize,
}

impl<L> Traversal<L> {
    /// Makes a traversal that has not begun. `why`: a failure before it.
    pub(super) fn after(why: Option<Refused>) -> Traversal<L> {
        Traversal { tree: None, over: Vec::new(), why, unfinished: false, visited: 0 }
    }

    /// The rest of the traversal, for the next step.
    pub(super) fn rest(self, why: Option<Refused>) -> Traversal<L> {
        Traversal { why: why.or(self.why), unfinished: false, visited: 0, ..self }
    }

    /// Begins with a tree, or continues it. Returns false if the tree is over, or its turn comes later.
    pub(super) fn enter(&mut self, id: Id) -> bool {
        let enters = !self.unfinished && !self.over.contains(&id);
        if enters {
            // The tree counts as over also if its visit fails.
            self.over.push(id);
        }
        enters
    }

    /// Visits the directories of a tree that was entered: `least` of them, or as many as the time allows. Returns the walk
    /// once all were visited. `visit` returns the rest of a visit for the next step, if the time was up.
    pub(super) fn visit<S: Sys>(
        &mut self,
        sys: &S,
        limit: Limit,
        least: usize,
        (tree, directories): (&Tree<S>, &mut Directories<S>),
        mut visit: impl FnMut(&S::Fd, &Path, Option<L>) -> Result<Option<L>, Failed>,
    ) -> Result<Option<Walk>, Failed> {
        let id = tree.identity.id;
        let under_way = self.tree.take_if(|(of, ..)| *of == id);
        let (mut walk, mut left) =
            under_way.map_or_else(|| (Walk::new(), None), |(_, walk, left)| (walk, left));
        let is_left = |walk: &Walk, left: &Option<L>| !walk.is_over() || left.is_some();
        let mut is_cut = self.visited >= least && limit.is_over(sys);
        if !is_cut && is_left(&walk, &left) {
            let mut near = Near::new(directories.get(sys, &tree.identity)?);
            while !is_cut && is_left(&walk, &left) {
                self.visited += 1;
                let number = match left {
                    Some(_) => walk.last(),
                    None => walk.advance(sys, &mut near)?,
                };
                if let Some(number) = number {
                    let (place, path) = near.place(sys, &walk, number);
                    left = visit(place, &path, left)?;
                }
                is_cut = left.is_some() || self.visited >= least && limit.is_over(sys);
            }
        }
        if is_left(&walk, &left) {
            self.over.retain(|over| *over != id);
            (self.tree, self.unfinished) = (Some((id, walk, left)), true);
            return Ok(None);
        }
        Ok(Some(walk))
    }
}
