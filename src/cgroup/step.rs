//! [`Step`]: the actions on one target within one call of `Entries::drive`, and what they find out.

use std::path::Path;

use super::Context;
use super::errors::{Cause, Failed, Fate, Obstacle, Refused};
use super::job::Job;
use super::members::MemberList;
use super::own_cgroup::is_caller_in;
use super::target::Target;
use super::tree::{Directories, Tree};
use crate::outcome::Act;
use crate::sys::Sys;
use crate::time::Span;

/// Actions on a target that follow one another at once.
pub(crate) struct Step<'a, 'k, S: Sys> {
    pub(crate) target: &'a mut Target<S>,
    pub(crate) context: &'a mut Context<'k, S>,
    pub(super) findings: Findings<S>,
    /// The job for a helper thread.
    pub(super) job: Option<Job<S>>,
}

/// A job that was not handed over, because a logger has panicked, is prepared again by a later step, or made by it.
impl<S: Sys> Drop for Step<'_, '_, S> {
    fn drop(&mut self) {
        match &self.job {
            Some(Job::CgroupKill(_)) => self.target.note_cgroup_kill(None),
            Some(Job::Remove(_)) => self.target.note_removal(None),
            _ => {}
        }
    }
}

/// What a step has found out. The findings of the checks in a spawn are passed to the first step.
pub(crate) struct Findings<S: Sys> {
    pub(super) directories: Directories<S>,
    /// Whether the caller is known to be in none of the directories.
    pub(super) caller_outside: bool,
    /// The members of the v1 directories, for the first check.
    pub(super) v1_members: Option<MemberList>,
    /// The members that the last check listed.
    pub(super) members: Option<MemberList>,
    /// Whether these were listed in several steps, so that some may have moved meanwhile.
    pub(super) continued: bool,
    /// Whether the last check did not list the members of v2 directories.
    pub(super) v2_not_listed: bool,
    /// Whether the last check has just read, from the open file of the only directory, that it is empty.
    pub(super) just_read: bool,
}

impl<S: Sys> Default for Findings<S> {
    fn default() -> Findings<S> {
        Findings {
            directories: Directories::default(),
            caller_outside: false,
            v1_members: None,
            members: None,
            continued: false,
            v2_not_listed: false,
            just_read: false,
        }
    }
}

impl<S: Sys> Target<S> {
    /// Begins a step: some actions that follow one another at once. The step ends when it is dropped, and its findings
    /// end with it, because they may be out of date by the next step.
    pub(crate) fn step<'a, 'k>(
        &'a mut self,
        context: &'a mut Context<'k, S>,
        findings: Findings<S>,
    ) -> Step<'a, 'k, S> {
        context.sparing |= self.sparing;
        Step { target: self, context, findings, job: None }
    }
}

impl<S: Sys> Findings<S> {
    /// Returns all members, if the last check has listed them.
    pub(super) fn all_members(&self) -> Option<&MemberList> {
        self.members.as_ref().filter(|_| !self.v2_not_listed)
    }
}

impl<'k, S: Sys> Step<'_, 'k, S> {
    /// Takes the job that the last action leaves to a helper thread.
    pub(crate) fn take_job(&mut self) -> Option<Job<S>> {
        self.job.take()
    }

    /// The target's first directory.
    pub(crate) fn path(&self) -> &Path {
        self.target.path()
    }

    /// Calls `act` for each directory that is left, and marks directories that turn out to be gone. Returns the
    /// last failure.
    pub(super) fn each(
        &mut self,
        mut act: impl FnMut(&mut Context<'k, S>, &mut Tree<S>, &mut Directories<S>) -> Result<(), Failed>,
    ) -> Option<Refused> {
        let Step { target, context, findings, .. } = self;
        let mut last = None;
        for tree in target.trees.iter_mut().filter(|tree| tree.is_left()) {
            let Err(failed) = act(context, tree, &mut findings.directories) else { continue };
            if let Err(cause) = tree.note(context.sys, &mut context.facts.parents, failed) {
                last = Some((tree.path().to_path_buf(), cause));
            }
            // The helper thread has removed it, and its answer has not come yet.
            let removal = target.removal_by_helper.as_ref();
            if tree.fate == Some(Fate::Replaced) && removal.is_some_and(|it| it.has_begun(tree.identity.id)) {
                tree.fate = Some(Fate::Removed);
            }
        }
        last
    }

    /// Lists the members of the directories that are left and wanted, as far as they can be listed. A walk through a tree
    /// takes no longer than `most`.
    pub(super) fn list(&mut self, wanted: fn(&Tree<S>) -> bool, most: Span) -> (MemberList, Option<Refused>) {
        let mut members = MemberList::new(self.target.by_thread());
        let refused = self.each(|context, tree, directories| match wanted(tree) {
            true => members.add_tree(context.sys, tree, directories, most),
            false => Ok(()),
        });
        members.finish();
        (members, refused)
    }

    /// Lists all members. A walk through a tree takes no longer than `most`.
    pub(super) fn list_all(&mut self, most: Span) -> Result<MemberList, Refused> {
        let listed = self.list(|_| true, most);
        self.complete(listed)
    }

    /// Lists all members, after some attempts also those of which only threads are listed.
    pub(super) fn list_all_by_threads(&mut self, most: Span) -> Result<MemberList, Refused> {
        self.target.lists_threads = self.target.is_stubborn();
        let listed = self.list_all(most);
        self.target.lists_threads = false;
        listed
    }

    /// Returns a list if it is complete.
    pub(super) fn complete(
        &mut self,
        (members, refused): (MemberList, Option<Refused>),
    ) -> Result<MemberList, Refused> {
        match refused {
            Some(refused) => {
                self.target.is_large_tree |= refused.1.is_too_long();
                Err(refused)
            }
            None => Ok(members),
        }
    }

    /// Closes the descriptors that the target holds, except those that a thaw needs.
    pub(super) fn let_go(&mut self) {
        self.target.tracked.let_go();
        self.target.trees.iter_mut().for_each(Tree::let_go);
        self.context.facts.parents.let_go();
    }

    /// Forgets an obstacle that is out of date.
    pub(super) fn forget_obstacle(&mut self, is_past: impl FnOnce(&Obstacle) -> bool) {
        self.target.obstacle.take_if(|obstacle| is_past(obstacle));
    }

    /// Notes why an action failed. On a shortage of descriptors the target closes its own, and is addressed by path and
    /// checked by timer from then on.
    pub(super) fn note_obstacle(&mut self, act: Act, (path, cause): Refused) {
        if cause.is_out_of_descriptors() {
            self.let_go();
            self.context.resolver.renew_limit();
            self.context.is_short = true;
            (self.context.sparing, self.target.sparing) = (true, true);
        }
        self.target.obstacle = Some(Box::new(Obstacle { act, path, cause }));
    }
}

/// Fails if the caller has moved into a tree after the spawn, so that it is not killed.
pub(super) fn check_caller<S: Sys>(
    context: &Context<'_, S>,
    tree: &Tree<S>,
    directories: &mut Directories<S>,
) -> Result<(), Failed> {
    let resolver = context.resolver;
    match is_caller_in(context.sys, &resolver.own, &resolver.mounts, tree, directories)? {
        false => Ok(()),
        true => Err(Failed::Because(Cause::CallerInside)),
    }
}
