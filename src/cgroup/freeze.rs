//! Freezing a target.

use std::io;

use super::errors::{Cause, Failed, Refused, is_gone};
use super::file;
use super::hierarchy::{HasFreezer, Hierarchy};
use super::listing::Listing;
use super::members::MemberList;
use super::own_cgroup::{is_known_in, own_cgroups};
use super::step::Step;
use super::target::Progress;
use super::tree::{Control, Directories, Tree};
use super::walk::{LONG, LONGEST};
use super::{v1, v2};
use crate::machine::Froze;
use crate::outcome::Act;
use crate::sys::Sys;

/// The search for the caller in a large target, before a freeze.
pub(crate) struct Search<S: Sys> {
    listing: Listing<S>,
    /// The cgroups that the caller was in when the search began.
    own: Vec<u8>,
}

impl<S: Sys> Step<'_, '_, S> {
    /// Freezes the target, by the v1 freezer if it has one, or reads the state of a freeze under way.
    pub(crate) fn freeze(&mut self) -> Froze {
        if let Some(refused) = self.find_freezer() {
            return self.freeze_refused(refused);
        }
        let inside = match self.is_caller_inside() {
            Ok(Some(inside)) => inside,
            Ok(None) => return Froze::Unfinished,
            Err(refused) => return self.freeze_refused(refused),
        };
        if inside {
            let path = self.path().to_path_buf();
            return self.freeze_refused((path, Cause::CallerInside));
        }
        let by_v1 = self.target.has_freezer();
        let mut result = Froze::Unavailable;
        let refused = self.each(|context, tree, directories| {
            let is_wanted = if by_v1 { tree.hierarchy.is_freezer() } else { !tree.hierarchy.is_v1() };
            if !is_wanted {
                return Ok(());
            }
            context.metrics.freezes += 1;
            let (sys, may_wait) = (context.sys, !context.limit.is_set());
            let dir = directories.get(sys, &tree.identity)?;
            let freeze = |file: &S::Fd| match by_v1 {
                true => v1::freeze(sys, file, may_wait),
                false => v2::freeze(sys, dir, file),
            };
            let froze = match &tree.frozen_by {
                Some(control) => freeze(&control.file)?,
                None => {
                    let file = if by_v1 { v1::open(sys, dir)? } else { v2::open(sys, dir)? };
                    let froze = freeze(&file)?;
                    let permit = context.resolver.budget.take_needed();
                    tree.frozen_by = Some(Box::new(Control { file, _permit: permit }));
                    froze
                }
            };
            result = match (result, froze) {
                (Froze::Freezing, _) | (_, Froze::Freezing) => Froze::Freezing,
                _ => froze,
            };
            Ok(())
        });
        match refused {
            Some(refused) => self.freeze_refused(refused),
            None if result == Froze::Unavailable => {
                let none = io::Error::new(io::ErrorKind::Unsupported, "the target has no freezer");
                self.note_obstacle(Act::Freeze, (self.path().to_path_buf(), none.into()));
                result
            }
            None => result,
        }
    }

    /// Whether the caller's process is in the target. A list has the process if any of its threads is in the target. `None`
    /// if the time of the call was up before this is known.
    fn is_caller_inside(&mut self) -> Result<Option<bool>, Refused> {
        let sys = self.context.sys;
        let search = self.target.progress.take_freeze();
        let known = self.findings.all_members().filter(|_| !self.findings.continued);
        if let Some(Ok(inside)) = known.map(|members| members.contains_caller(sys)) {
            return Ok(Some(inside));
        }
        let is_large = self.target.is_large_tree || self.findings.continued || search.is_some();
        let mut listed = None;
        if !is_large {
            match self.list_all(LONG) {
                Ok(members) => listed = Some(members.contains_caller(sys)),
                Err((_, cause)) if cause.is_too_long() => {}
                Err(refused) => return Err(refused),
            }
        }
        if let Some(Ok(inside)) = listed {
            return Ok(Some(inside));
        }
        if let Some(inside) = self.is_caller_known_inside() {
            return Ok(Some(inside));
        }
        let inside = match listed {
            Some(uncertain) => uncertain,
            None => match self.list_for_caller(search)? {
                Some(members) => members.contains_caller(sys),
                None => return Ok(None),
            },
        };
        inside.map(Some).map_err(|error| (self.path().to_path_buf(), error.into()))
    }

    /// The same, from the cgroups that the caller is in; `None` if these are not known.
    fn is_caller_known_inside(&mut self) -> Option<bool> {
        let resolver = self.context.resolver;
        let trees = self.target.trees.iter().filter(|tree| tree.is_left());
        let mut known = trees.map(|tree| is_known_in(&resolver.sys, &resolver.own, &resolver.mounts, tree));
        known.try_fold(false, |inside, known| Some(inside | known?))
    }

    /// Lists the members, to find out whether the caller is one. A large target is listed in steps, between which the caller
    /// may move. Such a list counts only if /proc names the same cgroups of the caller before and after each step.
    fn list_for_caller(&mut self, search: Option<Search<S>>) -> Result<Option<MemberList>, Refused> {
        let (sys, limit) = (self.context.sys, self.context.limit);
        let Ok(own) = own_cgroups(sys) else { return self.list_all(LONGEST).map(Some) };
        let mut listing = match search {
            None => Listing::new(None),
            Some(search) if search.own == own => search.listing,
            Some(_) => return self.list_all(LONGEST).map(Some),
        };
        let refused =
            self.each(|context, tree, directories| listing.add(context.resolver, limit, tree, directories));
        let is_unfinished = listing.is_unfinished();
        if (is_unfinished || listing.continued) && own_cgroups(sys).ok().as_ref() != Some(&own) {
            return self.list_all(LONGEST).map(Some);
        }
        if is_unfinished {
            let listing = listing.rest(refused);
            self.target.progress = Progress::Freeze(Box::new(Search { listing, own }));
            return Ok(None);
        }
        if let Some(refused) = refused.or(listing.traversal.why) {
            return Err(refused);
        }
        let mut members = listing.members;
        members.finish();
        Ok(Some(members))
    }

    fn freeze_refused(&mut self, (path, cause): Refused) -> Froze {
        let missing = matches!(&cause, Cause::Error(error) if is_gone(error));
        let denied = cause.is_denied();
        log::debug!("cannot freeze {}: {cause:?}", path.display());
        self.note_obstacle(Act::Freeze, (path, cause));
        if missing {
            Froze::Unavailable
        } else if denied {
            Froze::Denied
        } else if self.target.is_frozen_by_us() {
            // An earlier call froze some directory.
            Froze::Freezing
        } else {
            Froze::Failed
        }
    }

    /// Finds out which of the directories are in the v1 freezer's hierarchy.
    pub(super) fn find_freezer(&mut self) -> Option<Refused> {
        self.each(|context, tree, directories| find_freezer(context.sys, tree, directories))
    }
}

/// Finds out whether a tree is in the v1 freezer's hierarchy.
pub(super) fn find_freezer<S: Sys>(
    sys: &S,
    tree: &mut Tree<S>,
    directories: &mut Directories<S>,
) -> Result<(), Failed> {
    if let Hierarchy::V1(freezer @ HasFreezer::Unasked) = &mut tree.hierarchy {
        *freezer = ask_freezer(sys, directories.get(sys, &tree.identity)?)?;
    }
    Ok(())
}

/// Whether a v1 directory is in the freezer's hierarchy.
pub(super) fn ask_freezer<S: Sys>(sys: &S, dir: &S::Fd) -> io::Result<HasFreezer> {
    Ok(if file::has(sys, dir, v1::STATE)? { HasFreezer::Present } else { HasFreezer::Absent })
}
