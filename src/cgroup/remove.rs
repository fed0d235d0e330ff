//! Removing the directories of a target, children first.

use std::io;

use super::check::read_populated;
use super::context::{Context, Limit};
use super::errors::{Failed, Fate, Refused};
use super::file::below;
use super::helper_call::{HelperCall, Left};
use super::identity::Id;
use super::job::Job;
use super::remove_by_helper::{self, Removal, RemovalByHelper};
use super::step::Step;
use super::target::Progress;
use super::traversal::FEW;
use super::tree::{Directories, Tree};
use super::walk::{Near, Walk, is_leaf, unless_gone};
use crate::machine::Removed;
use crate::outcome::Act;
use crate::sys::Sys;

/// Directories removed in one step. Each costs the kernel 20 to 50 microseconds.
const REMOVALS: usize = 128;

/// The rest of a removal that takes several steps.
#[derive(Default)]
pub(crate) struct RemovalLeft {
    /// The tree under way: the directories found and not removed yet.
    tree: Option<(Id, Walk)>,
    /// The trees that could not be removed, and the cause of the last failure. The next removal tries them
    /// again.
    refused: Vec<Id>,
    why: Option<Refused>,
}

/// One step of a removal.
struct RemovalStep<S: Sys> {
    visited: usize,
    removed: usize,
    left: RemovalLeft,
    /// Whether the identity of the directory was verified directly before, so that it is not compared again.
    compared: bool,
    unfinished: bool,
    /// Whether a helper thread is to remove the directories.
    leaves: bool,
    job: Option<(Removal<S>, Box<HelperCall>)>,
}

impl<S: Sys> Step<'_, '_, S> {
    /// Removes the directories, all of which were seen empty: if a member lives, or is still exiting, rmdir(2) fails
    /// with EBUSY, or on some kernels blocks until the member is dead.
    pub(crate) fn remove(&mut self) -> Removed {
        let mut leaves = self.context.helper_from.is_some();
        let (mut made, mut before) = (None, None);
        if let Some(removal) = &mut self.target.removal_by_helper {
            match HelperCall::take(&mut removal.call) {
                Left::All => {}
                Left::Nothing => return Removed::UnderWay,
                Left::Result(of, result) => made = Some((of, result)),
                Left::Here => leaves = false,
            }
            before = self.target.removal_by_helper.take().map(|removal| removal.left);
        }
        self.context.metrics.removals += 1;
        let left = self.target.progress.take_removal().or(before);
        let continued = left.is_some();
        let mut removal = RemovalStep {
            visited: 0,
            removed: 0,
            left: left.unwrap_or_default(),
            compared: std::mem::take(&mut self.findings.just_read),
            unfinished: false,
            leaves,
            job: None,
        };
        let refused = self.each(|context, tree, directories| {
            let id = tree.identity.id;
            if removal.unfinished || removal.job.is_some() || removal.left.refused.contains(&id) {
                return Ok(());
            }
            // Members may have joined since the last step. v1 refuses the removal then.
            let populated = if continued { read_populated(context, tree, directories) } else { Ok(false) };
            let result = match populated {
                Ok(false) => match made.take_if(|(of, _)| *of == id) {
                    Some((_, result)) => result.map_err(Failed::from),
                    None => removal.remove(context, tree, directories),
                },
                Ok(true) => Err(io::Error::from_raw_os_error(libc::EBUSY).into()),
                Err(failed) => Err(failed),
            };
            if matches!(result, Err(Failed::Because(_))) {
                removal.left.refused.push(id);
            }
            result
        });
        let refused = refused.or(removal.left.why.take());
        if let Some((job, call)) = removal.job {
            removal.left.why = refused;
            let left = removal.left;
            self.job = Some(Job::Remove(job));
            self.target.removal_by_helper = Some(Box::new(RemovalByHelper { call: Some(call), left }));
            return Removed::UnderWay;
        }
        if removal.unfinished {
            removal.left.why = refused;
            self.target.progress = Progress::Removal(Box::new(removal.left));
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

impl<S: Sys> RemovalStep<S> {
    /// Removes a tree, until the bound of the step is reached, or finds the directories that a helper thread is
    /// to remove.
    fn remove(
        &mut self,
        context: &mut Context<'_, S>,
        tree: &mut Tree<S>,
        directories: &mut Directories<S>,
    ) -> Result<(), Failed> {
        let (sys, id) = (context.sys, tree.identity.id);
        let left = self.left.tree.take_if(|(of, _)| *of == id).map(|(_, left)| left);
        let mut walk = left.or_else(|| directories.take_subtree(id));
        if std::mem::take(&mut self.compared) && walk.is_none() && !self.leaves {
            // Most cgroups have no children. For one that was just verified, rmdir(2) itself is tried first; it fails
            // for a child, or for lack of rights.
            if let Some(Ok(())) = tree.identity.rmdir(sys, &mut context.facts.parents) {
                return Err(Failed::Gone(Fate::Removed));
            }
        }
        if walk.is_none() && !is_leaf(tree.identity.find(sys, &mut context.facts.parents)?.stat()) {
            walk = Some(Walk::new());
        }
        let mut walk = walk.unwrap_or_else(Walk::of_leaf);
        if !walk.is_over() {
            let mut near = Near::new(directories.get(sys, &tree.identity)?);
            while !walk.is_over() {
                walk.advance(sys, &mut near)?;
                self.visited += 1;
                if self.is_spent(sys, context.limit) {
                    (self.left.tree, self.unfinished) = (Some((id, walk)), true);
                    return Ok(());
                }
            }
        }
        if self.leaves {
            self.job = Some(remove_by_helper::prepare(context, tree, directories, &walk)?);
            return Ok(());
        }
        // The root is removed by its identity.
        if walk.len() > 1 {
            let mut near = Near::new(directories.get(sys, &tree.identity)?);
            while walk.len() > 1 && !self.is_spent(sys, context.limit) {
                self.removed += 1;
                let (place, path) = near.place(sys, &walk, walk.len() - 1);
                // After an error the next removal lists the directories anew.
                unless_gone(&path, below(sys, place, &path, |at, path| sys.rmdir(Some(at), path)))?;
                walk.pop();
            }
        }
        if self.is_spent(sys, context.limit) {
            (self.left.tree, self.unfinished) = (Some((id, walk)), true);
            return Ok(());
        }
        self.removed += 1;
        tree.identity.find(sys, &mut context.facts.parents)?.rmdir(sys)?;
        Err(Failed::Gone(Fate::Removed))
    }

    /// Whether the time or the bound of this step is used up, so that the next step has to go on.
    fn is_spent(&self, sys: &S, limit: Limit) -> bool {
        self.removed >= REMOVALS || self.visited + self.removed >= FEW && limit.is_over(sys)
    }
}
