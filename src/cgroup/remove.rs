//! Removing the directories of a target, children first.

use std::path::PathBuf;

use super::Context;
use super::errors::{Failed, Fate, is_gone};
use super::file::below;
use super::identity::Id;
use super::step::Step;
use super::target::Progress;
use super::tree::{Directories, Tree, descendants, is_leaf};
use crate::machine::Removed;
use crate::outcome::Act;
use crate::sys::Sys;

/// Directories removed in one step. Each costs the kernel 20 to 50 microseconds.
const REMOVALS: usize = 128;

/// A removal of one step.
struct Removal {
    /// Directories that may still be removed in it.
    bound: usize,
    /// The descendants that are still to be removed, from the last step or for the next.
    left: Option<(Id, Vec<PathBuf>)>,
    /// The identity of the directory was verified directly before, so it is not compared again.
    compared: bool,
    unfinished: bool,
}

impl<S: Sys> Step<'_, '_, S> {
    /// Removes the directories, all of which were seen empty: where a member lives, or is still exiting, rmdir(2) says
    /// EBUSY, or on some kernels blocks until it is dead.
    pub(crate) fn remove(&mut self) -> Removed {
        self.context.metrics.removals += 1;
        let mut removal = Removal {
            bound: REMOVALS,
            left: self.target.progress.take_removal(),
            compared: std::mem::take(&mut self.findings.just_read),
            unfinished: false,
        };
        let refused = self.each(|context, tree, directories| match removal.unfinished {
            true => Ok(()),
            false => removal.remove(context, tree, directories),
        });
        if removal.unfinished {
            self.target.progress =
                removal.left.map_or(Progress::None, |left| Progress::Removal(Box::new(left)));
            return Removed::Unfinished;
        }
        if let Some((path, cause)) = refused {
            log::debug!("cannot remove {}: {cause:?}", path.display());
            let removed = match &cause {
                cause if cause.is_denied() => Removed::Denied,
                cause if cause.is_busy() => Removed::Busy,
                _ => Removed::Failed,
            };
            self.note_obstacle(Act::Remove, (path, cause));
            return removed;
        }
        match self.target.fate() {
            Some(Fate::Replaced) => Removed::Replaced,
            _ => Removed::All,
        }
    }
}

impl Removal {
    /// Removes a tree, as long as the bound lasts.
    fn remove<S: Sys>(
        &mut self,
        context: &mut Context<'_, S>,
        tree: &mut Tree<S>,
        directories: &mut Directories<S>,
    ) -> Result<(), Failed> {
        let (sys, parents, id) = (context.sys, &mut context.facts.parents, tree.identity.id);
        let left = self.left.take_if(|(of, _)| *of == id).map(|(_, left)| left);
        let mut children = left.or_else(|| directories.take_children(id));
        if std::mem::take(&mut self.compared) && children.is_none() {
            // Most cgroups have no children. For one that was just verified, rmdir(2) itself is tried first; it fails
            // for a child, for lack of rights, or where a mount covers the parent.
            if let Some(Ok(())) = tree.identity.rmdir(sys, parents) {
                return Err(Failed::Gone(Fate::Removed));
            }
        }
        if children.is_none() && !is_leaf(tree.identity.find(sys, parents)?.stat()) {
            children = Some(descendants(sys, directories.get(sys, &tree.identity)?)?.split_off(1));
        }
        let mut children = children.unwrap_or_default();
        while let Some(child) = children.pop() {
            if self.bound == 0 {
                children.push(child);
                (self.left, self.unfinished) = (Some((id, children)), true);
                return Ok(());
            }
            self.bound -= 1;
            let dir = directories.get(sys, &tree.identity)?;
            match below(sys, dir, &child, |at, child| sys.rmdir(Some(at), child)) {
                // The next attempt lists them anew.
                Err(error) if !is_gone(&error) => return Err(error.into()),
                // Whichever party removed it, it is gone.
                _ => {}
            }
        }
        if self.bound == 0 {
            (self.left, self.unfinished) = (Some((id, Vec::new())), true);
            return Ok(());
        }
        self.bound -= 1;
        tree.identity.find(sys, parents)?.rmdir(sys)?;
        Err(Failed::Gone(Fate::Removed))
    }
}
