//! Checking a target: whether it has members, and how they have changed.

use std::path::Path;

use super::context::Limit;
use super::errors::{Failed, Fate, is_out_of_descriptors};
use super::hierarchy::{Hierarchy, Watch};
use super::listing::Listing;
use super::members::{MemberList, vanished};
use super::step::Step;
use super::target::{Progress, Target};
use super::tree::{Directories, Tree};
use super::walk::LONGEST;
use super::{Context, Notice, file, v2};
use crate::machine::{Change, Checked, Detail, ExitNotice, Failure, Population};
use crate::outcome::Act;
use crate::sys::{Open, Sys};

impl<S: Sys> Step<'_, '_, S> {
    /// Checks the whole target. Members are listed only where `detail` asks for them, or where there is no other way to
    /// tell whether there are any.
    pub(crate) fn check(&mut self, detail: Detail) -> Checked {
        self.context.metrics.checks += 1;
        let mut listing = match std::mem::replace(&mut self.target.progress, Progress::None) {
            Progress::Check(listing) => *listing,
            others => {
                if let Progress::Attempt(rest) = others {
                    self.target.tracked.untry(rest.untried());
                }
                self.target.tracked.ask_anew();
                Listing::new(None)
            }
        };
        (self.findings.members, self.findings.just_read) = (None, false);
        let v1_members = self.findings.v1_members.take();
        if v1_members.is_none() {
            self.findings.directories.forget_subtrees();
        }
        // A v2 directory reports that it is empty by itself, so members killed by `cgroup.kill` need not be listed. If
        // v1 members are listed and an attempt was made, those of v2 are listed too: else the list could not be compared
        // with the last one.
        let cgroup_kill = self.target.cgroup_kill;
        let is_compared = !self.target.is_v2() && self.target.tracked.any_tried();
        let list_v2 = detail != Detail::Exits && (cgroup_kill.needs_members() || is_compared)
            || detail == Detail::Members
                && (cgroup_kill.was_written() || self.context.facts.exiting_not_listed);
        let (mut populated, mut listed, mut v2_not_listed) = (false, false, false);
        let refused = self.each(|context, tree, directories| {
            if tree.hierarchy.is_v1() {
                listed = true;
                return match v1_members {
                    Some(_) => Ok(()),
                    None => listing.add(context.resolver, context.limit, tree, directories),
                };
            }
            if !read_populated(context, tree, directories)? {
                return Ok(());
            }
            populated = true;
            if list_v2 {
                listed = true;
                listing.add(context.resolver, context.limit, tree, directories)
            } else {
                v2_not_listed = true;
                Ok(())
            }
        });
        // A target whose members make cgroups faster than these are listed is never listed to the end. After
        // some time, the members found so far are enough for an attempt.
        let is_cut = listing.is_unfinished();
        // Before the caller is known to be outside, nothing is done, so that list takes the time that it needs.
        if is_cut && self.target.may_be_own {
            listing.extend_time();
        }
        if is_cut && (listing.members.is_empty() || !listing.is_late(self.context.sys)) {
            self.target.progress = Progress::Check(Box::new(listing.rest(refused)));
            return Checked::Unfinished;
        }
        let refused = refused.or(listing.traversal.why.take());
        let mut unknown = None;
        if v1_members.is_none() && !v2_not_listed {
            self.target.is_large_tree = listing.large || is_cut;
        }
        // A list that was made in several steps does not prove that the caller is outside now.
        let continued = listing.continued || is_cut;
        let mut members = std::mem::take(&mut listing.members);
        if continued && !populated && self.target.is_v2() {
            // The kernel says that the target is empty, so the members listed before have exited.
            members = MemberList::default();
        }
        members.extend(v1_members.unwrap_or_default());
        members.finish();
        if self.target.may_be_own && refused.is_none() {
            match members.contains_caller(self.context.sys) {
                Ok(true) => return Checked::CallerInside,
                Ok(false) => self.target.may_be_own = false,
                Err(error) => unknown = Some((self.path().to_path_buf(), error.into())),
            }
        }
        // An incomplete list is not compared with the last one. It only shows that there are members.
        let mut whole = listed && refused.is_none() && !is_cut && !members.vanished;
        let (mut joined, fewer) = if whole { self.target.tracked.compare(&members) } else { (false, false) };
        unknown = refused.or(unknown);
        if members.vanished && members.is_empty() && unknown.is_none() {
            unknown = Some((self.path().to_path_buf(), vanished().into()));
        }
        if !members.is_empty() {
            populated = true;
            // v1 has no notification. On v2 a second notification within 12 ms is delayed.
            if detail == Detail::Exits || cgroup_kill.was_written() || self.target.tracked.any_tried() {
                self.target.tracked.rewatch(self.context, &members);
            }
        } else if !populated && unknown.is_none() && self.target.trees.iter().any(may_hide_exiting) {
            let limit = self.context.limit;
            let dead = match self.target.tracked.all_dead(self.context, limit) {
                Err(error) if is_out_of_descriptors(&error) && self.findings.directories.close() => {
                    // The next step may open the directories before it comes here, so this one goes on.
                    self.target.tracked.all_dead(self.context, Limit::default())
                }
                dead => dead,
            };
            match dead {
                Ok(Some(dead)) => populated |= !dead,
                Ok(None) => {
                    // The next step does not make the lists again.
                    self.target.progress = Progress::Check(Box::new(listing.rest(None)));
                    return Checked::Unfinished;
                }
                Err(error) => unknown = Some((self.path().to_path_buf(), error.into())),
            }
        }
        if !populated && unknown.is_none() && self.target.keep_dir && !self.target.is_v2() {
            // An empty list of v1 does not prove that the target is empty: a process may have moved into a cgroup that was made
            // or renamed while the names were read. A directory that has members cannot be removed, but a directory that is kept
            // would be reported as empty. So it is listed once more, with the cgroups that are there now.
            self.findings.directories.forget_subtrees();
            (members, unknown) = self.list(|tree| tree.hierarchy.is_v1(), LONGEST);
            populated |= !members.is_empty();
            // Members that only this list has are new.
            joined |= populated;
            whole &= unknown.is_none() && !members.vanished;
            if members.vanished && !populated && unknown.is_none() {
                unknown = Some((self.path().to_path_buf(), vanished().into()));
            }
        }
        if unknown.is_none() {
            self.forget_obstacle(|past| past.act == Act::Check || populated && past.act == Act::Remove);
        }
        if populated || unknown.is_some() {
            self.target.tracked.forget_the_dead(self.context);
        }
        let is_partial = unknown.is_some() || continued || members.vanished;
        if let Some((path, cause)) = unknown {
            let failure = if cause.is_denied() { Failure::Denied } else { Failure::Passing };
            log::debug!("cannot check {}: {cause:?}", path.display());
            self.note_obstacle(Act::Check, (path, cause));
            // A target that may hold the caller has to be listed completely first.
            if !populated || self.target.may_be_own {
                return Checked::Unknown(failure);
            }
        }
        if populated {
            // Where exiting tasks are not listed, every member has to be known before an attempt.
            let exiting_not_listed = self.context.facts.exiting_not_listed;
            let enough = whole && !(v2_not_listed && (exiting_not_listed || cgroup_kill.needs_members()));
            let identify = detail == Detail::Exits && exiting_not_listed && listed;
            if identify && whole {
                self.target.tracked.forget_those_that_left(self.context, &members);
            }
            self.findings.members = enough.then_some(members);
            self.findings.continued = continued;
            self.findings.v2_not_listed = v2_not_listed;
            if identify {
                // Only the identified members tell later that they are dead. Without them the target may be removed
                // while members are exiting, so the next check tries again after an error.
                if let Err((path, cause)) = self.identify_members() {
                    log::debug!("cannot identify the members of {}: {cause:?}", path.display());
                }
            }
            let change = Change::new(joined, fewer);
            return Checked::Populated(Population { change, is_partial, notice: self.target.exit_notice() });
        }
        // Every signalled process is dead by now, or has left.
        self.target.tracked.note_empty();
        match self.target.fate() {
            Some(Fate::Removed) => Checked::Gone,
            Some(Fate::Replaced) => Checked::Replaced,
            None => {
                self.findings.just_read = matches!(&*self.target.trees, [tree] if !tree.hierarchy.is_v1());
                Checked::Empty { replaced: self.target.is_replaced() }
            }
        }
    }
}

impl<S: Sys> Target<S> {
    /// How the loop learns that the members exit.
    pub(super) fn exit_notice(&self) -> ExitNotice {
        match (self.is_v1(), self.tracked.are_watched() || self.trees.iter().any(is_watched)) {
            (_, false) => ExitNotice::None,
            (true, true) => ExitNotice::Prompt,
            (false, true) => ExitNotice::Delayed,
        }
    }
}

fn is_watched<S: Sys>(tree: &Tree<S>) -> bool {
    matches!(tree.hierarchy, Hierarchy::V2 { watch: Watch::On { .. } })
}

/// Whether a tree can have exiting members that are not listed: a v1 tree, or a v2 tree that was removed before
/// `populated 0` was read.
fn may_hide_exiting<S: Sys>(tree: &Tree<S>) -> bool {
    match &tree.hierarchy {
        Hierarchy::V1(_) => true,
        Hierarchy::V2 { watch } => !tree.is_left() && !watch.is_empty(),
    }
}

/// Reads whether a v2 tree has members, through a watched descriptor where one can be had.
pub(super) fn read_populated<S: Sys>(
    context: &mut Context<'_, S>,
    tree: &mut Tree<S>,
    directories: &mut Directories<S>,
) -> Result<bool, Failed> {
    let sys = context.sys;
    let Tree { identity, hierarchy: Hierarchy::V2 { watch }, .. } = tree else {
        return Ok(false);
    };
    // Members may have joined since the last read. If this one fails, they are not known to have exited.
    watch.set_empty(false);
    let mut buffer = [0; 256];
    let events = match watch {
        Watch::On { file, .. } => v2::parse(file::read_start(sys, file, &mut buffer)?)?,
        Watch::Unwatched { .. } => {
            let dir = directories.get(sys, identity)?;
            match context.permit() {
                None => v2::events(sys, dir)?,
                Some(permit) => {
                    let file = file::open(sys, dir, Path::new(""), v2::EVENTS, Open::Read)?;
                    // First read, then watch: kernfs counts changes and remembers the count at the read, so a change
                    // in between is notified as soon as the file is watched.
                    let events = v2::parse(file::read_start(sys, &file, &mut buffer)?)?;
                    if events.populated && context.watch(&file, Notice::Events) {
                        *watch = Watch::On { empty: false, file, _permit: permit };
                    }
                    events
                }
            }
        }
    };
    watch.set_empty(!events.populated);
    Ok(events.populated)
}
