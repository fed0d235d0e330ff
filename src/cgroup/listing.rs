//! [`Listing`]: the members of a large target, listed in steps: one directory after the other, and the list of a v2 directory
//! page by page. The list of a v1 directory cannot be cut.
//!
//! Members that one step has read may have changed by the next. A list can miss a process that moves within the target
//! meanwhile. The next list has it, and a directory that it is in cannot be removed.

use std::io;
use std::path::Path;

use super::context::{Limit, Resolver};
use super::descriptor_budget::Permit;
use super::errors::{Call, Failed, Meaning, Refused, meaning};
use super::hierarchy::{Hierarchy, Version};
use super::members::{LARGE, MemberList, Pages};
use super::traversal::{FEW, Traversal};
use super::tree::{Directories, Tree};
use super::walk::{LONG, unless_gone};
use crate::sys::Sys;
use crate::time::Instant;

/// A target of this many directories is large: its members are listed and signalled in steps where the time of a call
/// is limited.
pub(super) const LARGE_TREE: usize = if cfg!(test) { 2 } else { 64 };

/// A list of one v2 directory is cut this many times at most. Then it is read to its end: else a target that forks meanwhile
/// could be listed for ever.
const CUTS: u8 = 32;

/// A list under way.
pub(crate) struct Listing<S: Sys> {
    pub(super) members: MemberList,
    pub(super) traversal: Traversal<Opened<S>>,
    /// Whether this is the search for the caller, in the spawn.
    at_spawn: bool,
    /// Whether an earlier step has read a part of the list.
    pub(super) continued: bool,
    /// Whether some tree is large.
    pub(super) large: bool,
    /// When the time for the whole list is over: then the members found so far are signalled, or reported.
    late_at: Option<Instant>,
}

/// A list of one v2 directory under way.
pub(super) struct Opened<S: Sys> {
    pages: Pages<S>,
    /// Where its processes begin in the list of members.
    first: usize,
    cuts: u8,
    _permit: Permit,
}

impl<S: Sys> Listing<S> {
    /// Begins a list, see [`MemberList::new`].
    pub(super) fn new(by_thread: Option<u32>) -> Listing<S> {
        Listing {
            members: MemberList::new(by_thread),
            traversal: Traversal::after(None),
            at_spawn: false,
            continued: false,
            large: false,
            late_at: None,
        }
    }

    /// A list for the search for the caller, in the spawn.
    pub(super) fn at_spawn() -> Listing<S> {
        Listing { at_spawn: true, ..Listing::new(None) }
    }

    /// Whether the time of the call was up before all members were listed.
    pub(super) fn is_unfinished(&self) -> bool {
        self.traversal.unfinished
    }

    /// The time for the whole list begins anew.
    pub(super) fn extend_time(&mut self) {
        self.late_at = None;
    }

    /// Whether the time for the whole list is over, so that the members found so far have to do.
    pub(super) fn is_late(&self, sys: &S) -> bool {
        self.late_at.is_some_and(|at| Instant::after_start(sys.now()) >= at)
    }

    /// The rest of the list, for the next step.
    pub(super) fn rest(self, why: Option<Refused>) -> Listing<S> {
        Listing { traversal: self.traversal.rest(why), at_spawn: false, continued: true, ..self }
    }

    /// Adds the members of a tree; only some of them, if the time of the call is up before.
    pub(super) fn add(
        &mut self,
        resolver: &Resolver<S>,
        limit: Limit,
        tree: &Tree<S>,
        directories: &mut Directories<S>,
    ) -> Result<(), Failed> {
        let sys = &resolver.sys;
        let Listing { members, traversal, late_at, .. } = self;
        let id = tree.identity.id;
        if !traversal.enter(id) {
            return Ok(());
        }
        if directories.is_leaf(id) && tree.hierarchy.is_v1() {
            return members.add_tree(sys, tree, directories, LONG);
        }
        let late_at = *late_at.get_or_insert_with(|| Instant::after_start(sys.now()).saturating_add(LONG));
        let limit = limit.until(late_at);
        // The spawn searches a small tree, however long this takes.
        let least = if self.at_spawn { LARGE_TREE } else { FEW };
        let found = traversal.visit(sys, limit, least, (tree, directories), |root, dir, opened| {
            let added = match tree.hierarchy {
                Hierarchy::V1(_) => members.add(sys, root, dir, Version::V1).map(|()| None),
                Hierarchy::V2 { .. } => add_pages(members, resolver, limit, (root, dir), opened),
            };
            let added = unless_gone(dir, added)?;
            members.vanished |= added.is_none() && tree.hierarchy.is_v1();
            Ok(added.flatten())
        })?;
        if let Some(walk) = found {
            self.large |= walk.len() >= LARGE_TREE;
            self.members.vanished |= walk.uncertain && tree.hierarchy.is_v1();
            if !self.continued {
                directories.insert_subtree(id, walk);
            }
        }
        Ok(())
    }
}

/// Adds the members of one v2 directory, a page after the other. Returns the rest, if the time of the call is up before.
fn add_pages<S: Sys>(
    members: &mut MemberList,
    resolver: &Resolver<S>,
    limit: Limit,
    (root, dir): (&S::Fd, &Path),
    opened: Option<Opened<S>>,
) -> io::Result<Option<Opened<S>>> {
    let sys = &resolver.sys;
    let mut opened = match (opened, resolver.budget.take_spare()) {
        (Some(opened), _) => opened,
        (None, Some(permit)) => {
            let pages = Pages::open(sys, root, dir)?;
            Opened { pages, first: members.pids.len(), cuts: 0, _permit: permit }
        }
        (None, None) => return members.add(sys, root, dir, Version::V2).map(|()| None),
    };
    loop {
        let page = match opened.pages.next(sys) {
            Ok(page) => page,
            // A threaded cgroup lists its threads only.
            Err(error) if meaning(Call::Cgroup, &error) == Meaning::Unsupported => {
                return members.add_threads(sys, root, dir).map(|()| None);
            }
            Err(error) => return Err(error),
        };
        let len = page.len();
        members.extend(page);
        if len == 0 {
            let is_empty = opened.pages.are_empty();
            return members.add_unlisted(sys, root, dir, opened.first, is_empty).map(|()| None);
        }
        // After a page of fewer members, nothing is left that takes long.
        if len >= LARGE && opened.cuts < CUTS && limit.is_over(sys) {
            opened.cuts += 1;
            return Ok(Some(opened));
        }
    }
}
