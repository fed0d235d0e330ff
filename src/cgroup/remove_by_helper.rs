//! A removal that a helper thread makes. rmdir(2) waits for a lock on the parent directory, which any program that lists it
//! can hold without limit.

use std::ffi::CString;
use std::io;
use std::sync::Arc;

use super::context::Context;
use super::descriptor_budget::Permit;
use super::errors::{Failed, Fate};
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
    pub(super) fn is_wanted(&self) -> bool {
        self.shared.is_wanted()
    }

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
        let is_same =
            || sys.stat(self.parent.as_ref(), &self.name).is_ok_and(|stat| Id::of(&stat) == self.id);
        if !is_same() {
            return None;
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
        let permit = budget.take_for_job().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
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
    /// Notes the result of a removal that was left to a helper thread; `None` if it was not made: the step
    /// makes the next one.
    pub(crate) fn note_removal(&mut self, answer: Option<io::Result<()>>) {
        let Some(removal) = &mut self.removal_by_helper else { return };
        let Some(call) = &mut removal.call else { return };
        if let Some(Ok(())) = answer {
            let removed = self.trees.iter_mut().filter(|tree| tree.identity.id == call.of && tree.is_left());
            removed.for_each(|tree| tree.mark_gone(Fate::Removed));
            self.removal_by_helper = None;
        } else {
            call.note(answer);
        }
    }
}
