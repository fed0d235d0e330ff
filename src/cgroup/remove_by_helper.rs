//! A removal that a helper thread makes. rmdir(2) waits for a lock on the parent directory, which any program that lists it
//! can hold without limit.

use std::ffi::CString;
use std::io;
use std::sync::Arc;

use super::context::Context;
use super::descriptor_budget::Permit;
use super::errors::{Failed, Fate, is_gone};
use super::file::below;
use super::helper_call::{HelperCall, Shared};
use super::identity::Id;
use super::remove::RemovalLeft;
use super::target::Target;
use super::tree::{Directories, Tree};
use super::walk::{Near, Walk, unless_gone};
use crate::sys::{Open, Sys};

/// Removes one directory of a target, and those below it.
pub(crate) struct Removal<S: Sys> {
    /// The directories below it, and itself.
    below: Walk,
    directory: Option<S::Fd>,
    id: Id,
    /// Its name, as seen from `parent`.
    name: CString,
    parent: Option<S::Fd>,
    _permits: Vec<Permit>,
    shared: Arc<Shared>,
}

impl<S: Sys> Removal<S> {
    pub(super) fn run(self, sys: &S) -> Option<io::Result<()>> {
        if let Some(root) = &self.directory {
            let mut near = Near::new(root);
            for number in (1..self.below.len()).rev() {
                if !self.shared.is_wanted() {
                    return None;
                }
                let (place, path) = near.place(sys, &self.below, number);
                let removed = below(sys, place, &path, |at, path| sys.rmdir(Some(at), path));
                if let Err(error) = unless_gone(&path, removed) {
                    return Some(Err(error));
                }
            }
        }
        // rmdir(2) takes a name. The identity is compared directly before; then rmdir(2) may wait for the parent's lock.
        match sys.stat(self.parent.as_ref(), &self.name) {
            Ok(stat) if Id::of(&stat) == self.id => {}
            Err(error) if !is_gone(&error) => return Some(Err(error)),
            // It was renamed, removed or replaced.
            _ => return None,
        }
        self.shared.call(|| sys.rmdir(self.parent.as_ref(), &self.name))
    }
}

/// The target's record of a removal that a helper thread makes.
pub(super) struct RemovalByHelper {
    pub(super) call: Option<Box<HelperCall>>,
    /// The directories that could not be removed before this removal.
    pub(super) left: RemovalLeft,
}

/// Prepares the removal for a helper thread. Fails if it needs a descriptor that cannot be had now: the removal is tried again
/// then, because rmdir(2) could hold up the loop.
pub(super) fn prepare<S: Sys>(
    context: &mut Context<'_, S>,
    tree: &Tree<S>,
    directories: &mut Directories<S>,
    below: &Walk,
) -> Result<(Removal<S>, Box<HelperCall>), Failed> {
    let (sys, budget, id) = (context.sys, &context.resolver.budget, tree.identity.id);
    let open = |at: &S::Fd| -> Result<(Permit, S::Fd), Failed> {
        let permit = budget.take_for_job().ok_or_else(|| {
            // Not a shortage of descriptors: other reaps have no use for what this one could return.
            io::Error::other(
                "removals that wait for a helper thread hold all the descriptors that they may hold",
            )
        })?;
        Ok((permit, sys.open(Some(at), c".", Open::Place)?))
    };
    let found = tree.identity.find(sys, &mut context.facts.parents)?;
    let (parent, name) = found.place();
    let (parent, name) = (parent.map(open).transpose()?, name.to_owned());
    let directory = match below.len() == 1 {
        true => None,
        false => Some(open(directories.get(sys, &tree.identity)?)?),
    };
    let call = HelperCall::new(id);
    let mut permits = Vec::with_capacity(2);
    let mut hold = |(permit, fd)| {
        permits.push(permit);
        fd
    };
    let (parent, directory) = (parent.map(&mut hold), directory.map(&mut hold));
    let shared = call.shared();
    let removal = Removal { below: below.clone(), directory, id, name, parent, _permits: permits, shared };
    Ok((removal, Box::new(call)))
}

impl RemovalByHelper {
    /// Whether the thread has removed this directory, or may be removing it.
    pub(super) fn has_begun(&self, id: Id) -> bool {
        self.call.as_ref().is_some_and(|call| call.of == id && call.has_begun())
    }
}

impl<S: Sys> Target<S> {
    /// Notes the result of a removal that was left to a helper thread; `None` if it was not made: the next step leaves another
    /// one to a thread.
    pub(crate) fn note_removal(&mut self, answer: Option<io::Result<()>>) {
        let Some(removal) = &mut self.removal_by_helper else { return };
        let Some(call) = &mut removal.call else { return };
        match answer {
            Some(Ok(())) => {
                let of = call.of;
                let removed = self.trees.iter_mut().filter(|tree| tree.identity.id == of && tree.is_left());
                removed.for_each(|tree| tree.mark_gone(Fate::Removed));
                self.removal_by_helper = None;
            }
            Some(failed) => call.note(Some(failed)),
            None => removal.call = None,
        }
    }

    /// Notes that there is no thread for a removal: the step makes it.
    pub(crate) fn removal_refused(&mut self) {
        if let Some(call) = self.removal_by_helper.as_mut().and_then(|removal| removal.call.as_mut()) {
            call.note(None);
        }
    }
}
