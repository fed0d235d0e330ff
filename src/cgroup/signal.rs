//! Signals to the members of a target.

use std::io;

use super::attempt::{Part, Pidfds, Rest, Source, Tally};
use super::errors::{Cause, Obstacle, Refused};
use super::hierarchy::Version;
use super::listing::LARGE_TREE;
use super::members::MemberList;
use super::step::Step;
use super::target::Progress;
use super::tracked::{FEW_SIGNALS, SIGNALS};
use super::traversal::FEW;
use super::tree::Tree;
use super::v1;
use super::walk::{LONG, LONGEST, Near, Walk, unless_gone};
use crate::machine::{Attempt, ExitNotice, Members, Reach};
use crate::outcome::Act;
use crate::reaper::Signal;
use crate::sys::Sys;
use crate::time::Instant;

/// Which members may be signalled by kill(2), where there are no pidfds. A process that v1 holds frozen does not act on
/// SIGKILL, so it does not exit and its pid is not reused. A v2 freeze does not prevent that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unverified {
    None,
    /// Members that are frozen by us.
    Frozen,
    /// All members: the caller allows it.
    All,
}

impl<S: Sys> Step<'_, '_, S> {
    /// Sends the signal to every member, once.
    pub(crate) fn signal(&mut self, signal: Signal, members: Members) -> Attempt {
        self.signal_members(signal, members, Tally::new())
    }

    /// Signals the members. `before`: the result of `cgroup.kill` in the same attempt.
    pub(super) fn signal_members(&mut self, signal: Signal, members: Members, before: Tally) -> Attempt {
        let mut tally = Tally::new();
        if self.target.may_be_own {
            tally.missed(Reach::Failed);
            return tally.attempt(ExitNotice::Delayed);
        }
        let left = self.target.progress.take_attempt();
        tally.missed(left.as_ref().map_or(Reach::All, |rest| rest.reach));
        // The helper thread may have answered by the next step.
        let is_under_way = before.reach == Reach::UnderWay;
        if !is_under_way {
            tally.missed(before.reach);
        }
        tally.covered = before.covered || left.as_ref().is_some_and(|rest| rest.covered);
        let unfinished = match self.try_signal(signal, members, left, &mut tally) {
            Ok(unfinished) => unfinished,
            Err(refused) => {
                self.not_all(refused, &mut tally);
                None
            }
        };
        if unfinished.is_none() {
            self.target.tracked.attempted();
            self.target.sparing &= tally.reach != Reach::All;
        }
        if let Some(rest) = unfinished {
            self.target.progress =
                Progress::Attempt(Box::new(Rest { reach: tally.reach, covered: tally.covered, ..rest }));
            tally.missed(Reach::Unfinished);
        }
        if is_under_way {
            tally.missed(Reach::UnderWay);
        }
        // v2's own notifications may be late.
        let prompt = self.target.is_v1() && self.target.tracked.are_watched();
        tally.method = tally.method.or(before.method);
        tally.attempt(if prompt { ExitNotice::Prompt } else { ExitNotice::Delayed })
    }

    /// Notes why some members were not signalled.
    fn not_all(&mut self, (path, cause): Refused, tally: &mut Tally) {
        tally.missed(if cause.is_denied() { Reach::Denied } else { Reach::Failed });
        self.note_obstacle(Act::Kill, (path, cause));
    }

    /// Signals the next members. Returns the rest for the next step, if this step has reached its bound.
    ///
    /// The age of the first list does not matter, so an attempt makes no lists except those that verify.
    fn try_signal(
        &mut self,
        signal: Signal,
        members: Members,
        left: Option<Rest<S>>,
        tally: &mut Tally,
    ) -> Result<Option<Rest<S>>, Refused> {
        let begins = left.is_none();
        if begins {
            self.target.tracked.begin(signal);
        }
        let by_directories =
            || Rest { source: Source::Directories(0, Walk::new()), ..Rest::new(MemberList::default()) };
        let mut rest = match left {
            Some(rest) => rest,
            None if self.goes_by_directories() => by_directories(),
            None => match self.members_to_signal(signal, members, tally) {
                Err((_, cause)) if cause.is_too_long() => by_directories(),
                rest => rest?,
            },
        };
        if begins {
            self.target.tracked.lists_members();
            if matches!(rest.source, Source::Directories(..)) {
                self.target.lists_threads = self.target.is_stubborn();
            }
        }
        let now = Instant::after_start(self.context.sys.now());
        rest.began.get_or_insert(now);
        let in_parts = self.takes_parts(&rest);
        if in_parts && begins && self.context.limit.is_over(self.context.sys) {
            return Ok(Some(rest));
        }
        if !rest.has_unopened() && rest.batch.pidfds.is_empty() {
            self.find_more(signal, &mut rest, tally)?;
        }
        if rest.members.is_uncertain() {
            tally.missed(Reach::Failed);
        }
        if matches!(rest.source, Source::None) {
            // Otherwise the list that verifies the members need not have the threads.
            self.target.lists_threads &= rest.members.has_unlisted;
        }
        self.target.has_unmapped |= rest.members.unmapped > 0;
        if rest.is_over() && !begins {
            return Ok(None);
        }
        let is_told = in_parts && !rest.not_told && self.is_told_members();
        let most = if in_parts { FEW_SIGNALS } else { SIGNALS };
        if rest.batch.verified.is_none() {
            let is_held = rest.batch.is_held() || in_parts && !is_told;
            let part = Part { most, is_held };
            let Step { target, context, .. } = self;
            let opened = target.tracked.open(context, signal, &mut rest, part, tally, &mut target.obstacle);
            let full = match opened.map_err(|error| (self.path().to_path_buf(), error.into()))? {
                Pidfds::Opened { full } => full,
                Pidfds::Unsupported => return self.signal_unverified(signal, members, tally).map(|()| None),
            };
            if rest.batch.pidfds.is_empty() {
                return Ok(rest.has_more().then_some(rest));
            }
            if rest.batch.is_held() && !full && rest.has_unopened() {
                return Ok(Some(rest));
            }
        }
        let mut most = if rest.batch.is_held() { FEW_SIGNALS } else { rest.batch.pidfds.len() };
        if !rest.batch.is_verified(now) {
            if rest.batch.verified.is_some() {
                // The loop has other work for a long time between two steps. So many members are signalled that this takes
                // about as long as the list that verifies them.
                most = (rest.members.len() / 8).clamp(FEW_SIGNALS, SIGNALS);
            }
            self.verify(&mut rest, is_told, tally)?;
        }
        let verified = rest.batch.take(most);
        let (is_over, is_last) = (rest.is_over(), !rest.has_unopened() && rest.batch.pidfds.is_empty());
        let Step { target, context, .. } = self;
        let sent = target.tracked.send(context, signal, verified, is_last, tally, &mut target.obstacle);
        if let Err(error) = sent {
            if self.context.facts.lacks_pidfd_signals() {
                return self.signal_unverified(signal, members, tally).map(|()| None);
            }
            self.not_all((self.path().to_path_buf(), error.into()), tally);
        }
        if !is_over || is_told {
            return Ok(Some(rest));
        }
        if begins && !rest.members.vanished && !rest.members.lost {
            self.findings.members = Some(rest.members);
        }
        Ok(None)
    }

    /// Returns the members to signal in a new attempt.
    fn members_to_signal(
        &mut self,
        signal: Signal,
        members: Members,
        tally: &mut Tally,
    ) -> Result<Rest<S>, Refused> {
        // Members of v2 directories that were not listed are killed by `cgroup.kill`.
        let is_enough =
            members != Members::Frozen && (signal == Signal::KILL || !self.findings.v2_not_listed);
        let listed = self.findings.members.take().filter(|_| is_enough);
        // Lists by threads cost more than others, so they are made where all members are signalled.
        let are_signalled = listed.as_ref().is_none_or(|all| !self.target.tracked.need_no_more(all));
        self.target.lists_threads |= self.target.is_stubborn() && are_signalled;
        match listed {
            Some(listed) if self.target.lists_threads => Ok(Rest::new(self.with_unlisted(listed, tally))),
            Some(listed) => Ok(Rest::new(listed)),
            None => {
                self.findings.v2_not_listed = false;
                let in_pages = self.context.limit.is_set() && !self.target.lists_threads;
                let first = if in_pages { self.first_page() } else { None };
                match first.and_then(|first| self.told_members(first)) {
                    Some(rest) => Ok(rest),
                    None => self.list_reachable(tally).map(Rest::new),
                }
            }
        }
    }

    /// Adds the members of which only threads are listed to the members that a check has listed. An error does not keep these from
    /// being signalled.
    fn with_unlisted(&mut self, mut listed: MemberList, tally: &mut Tally) -> MemberList {
        listed.by_thread = self.target.by_thread();
        let refused = self.each(|context, tree, directories| {
            if tree.hierarchy.is_v1() {
                return Ok(());
            }
            let sys = context.sys;
            let (root, subtree) = directories.subtree(sys, &tree.identity, LONG)?;
            let mut near = Near::new(root);
            for number in 0..subtree.len() {
                let (place, path) = near.place(sys, subtree, number);
                unless_gone(&path, listed.add_unlisted(sys, place, &path, 0, false))?;
            }
            Ok(())
        });
        listed.finish();
        if let Some(refused) = refused {
            self.target.is_large_tree |= refused.1.is_too_long();
            self.not_all(refused, tally);
        }
        listed
    }

    /// Whether the members are signalled one directory after the other.
    fn goes_by_directories(&mut self) -> bool {
        if !self.target.is_large_tree && self.context.limit.is_set() && self.findings.v2_not_listed {
            // No check has walked through the tree.
            let mut children = 0;
            self.each(|context, tree, directories| {
                let root = directories.get(context.sys, &tree.identity)?;
                children = children.max(context.sys.stat(Some(root), c"")?.links.saturating_sub(2));
                Ok(())
            });
            self.target.is_large_tree = children as usize >= LARGE_TREE;
        }
        self.target.is_large_tree
    }

    /// Reads the next part of the members, unless the time of the call is up before there are any.
    fn find_more(&mut self, signal: Signal, rest: &mut Rest<S>, tally: &mut Tally) -> Result<(), Refused> {
        let sys = self.context.sys;
        // The grace signal has no such limit: it is sent until the grace period is over.
        let is_late = signal == Signal::KILL && rest.is_late(Instant::after_start(sys.now()));
        let (mut read, limit) = (0, self.context.limit);
        while !rest.has_unopened() {
            match &mut rest.source {
                Source::None => return Ok(()),
                Source::Pages { .. } | Source::Directories(..) if is_late => {
                    tally.missed(Reach::Failed);
                    rest.source = Source::None;
                }
                Source::Pages { pages, .. } => {
                    let page = pages.next(sys);
                    let page = page.map_err(|error| (self.path().to_path_buf(), error.into()))?;
                    if page.is_empty() {
                        rest.source = Source::None;
                    } else {
                        (rest.members, rest.next) = (page, 0);
                    }
                }
                Source::Directories(number, walk) => {
                    if read >= FEW && limit.is_over(sys) {
                        return Ok(());
                    }
                    if walk.is_over() {
                        (*number, *walk) = (*number + 1, Walk::new());
                    }
                    if *number >= self.target.trees.len() {
                        rest.source = Source::None;
                        continue;
                    }
                    let mut is_there = false;
                    let (members, refused) = self.list_directory(*number, |sys, root, version, members| {
                        is_there = true;
                        let (mut near, mut whole) = (Near::new(root), true);
                        // In any case one directory is read, or passed over.
                        loop {
                            read += 1;
                            if let Some(number) = walk.advance(sys, &mut near)? {
                                whole &= members.add_one(sys, near.place(sys, walk, number), version)?;
                            }
                            if walk.is_over() || !members.pids.is_empty() || read >= FEW && limit.is_over(sys)
                            {
                                return Ok(whole);
                            }
                        }
                    });
                    if members.is_uncertain() || walk.uncertain && self.target.is_v1() {
                        tally.missed(Reach::Failed);
                    }
                    (rest.members, rest.next) = (members, 0);
                    if !is_there {
                        *walk = Walk::of_leaf();
                    }
                    if let Some(refused) = refused {
                        self.not_all(refused, tally);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists the members of one directory of a tree, if the tree is left, as far as they can be listed. `list` returns false
    /// if the directory is gone.
    fn list_directory(
        &mut self,
        number: usize,
        mut list: impl FnMut(&S, &S::Fd, Version, &mut MemberList) -> io::Result<bool>,
    ) -> (MemberList, Option<Refused>) {
        let mut members = MemberList::new(self.target.by_thread());
        let wanted = self.target.trees.get(number).map(|tree| tree.identity.id);
        let refused = self.each(|context, tree, directories| {
            if Some(tree.identity.id) != wanted {
                return Ok(());
            }
            let root = directories.get(context.sys, &tree.identity)?;
            let is_there = list(context.sys, root, tree.hierarchy.version(), &mut members)?;
            members.vanished |= !is_there && tree.hierarchy.is_v1();
            Ok(())
        });
        members.finish();
        (members, refused)
    }

    /// Lists the members again, to verify those of `rest`: those of the same directory, or all.
    fn list_again(&mut self, rest: &Rest<S>, tally: &mut Tally) -> Result<MemberList, Refused> {
        match &rest.source {
            Source::Directories(number, walk) => {
                let listed = self.list_directory(*number, |sys, root, version, members| match walk.last() {
                    Some(number) => members.add_one(sys, Near::new(root).place(sys, walk, number), version),
                    None => Ok(true),
                });
                match listed {
                    (members, None) => Ok(members),
                    (_, Some(refused)) => Err(refused),
                }
            }
            _ => self.list_reachable(tally),
        }
    }

    /// Lists all members that can be reached: a directory to which no known name leads does not keep the members of the others
    /// from being signalled.
    fn list_reachable(&mut self, tally: &mut Tally) -> Result<MemberList, Refused> {
        match self.list(|_| true, LONG) {
            (mut members, Some(refused)) if matches!(refused.1, Cause::NameLost) && !members.is_empty() => {
                members.lost = true;
                self.not_all(refused, tally);
                Ok(members)
            }
            listed => self.complete(listed),
        }
    }

    /// Keeps those of the opened processes that are members now.
    fn verify(&mut self, rest: &mut Rest<S>, is_told: bool, tally: &mut Tally) -> Result<(), Refused> {
        let after = loop {
            if is_told && !rest.not_told {
                match self.members_among(&rest.batch.pidfds) {
                    Some(members) => break members,
                    None => rest.not_told = true,
                }
            }
            match self.list_again(rest, tally) {
                Ok(after) => break after,
                Err(refused) => {
                    let is_short = refused.1.is_out_of_descriptors();
                    let closed = if is_short { rest.close_half() } else { Vec::new() };
                    if closed.is_empty() {
                        return Err(refused);
                    }
                    self.target.tracked.untry(closed);
                    self.context.is_short = true;
                }
            }
        };
        if after.is_uncertain() {
            tally.missed(Reach::Failed);
        }
        // If these processes come back, they count as new members.
        let now = Instant::after_start(self.context.sys.now());
        self.target.tracked.untry(rest.batch.verify(now, &after));
        Ok(())
    }

    /// Signals members by kill(2), where this is safe or the caller allows it.
    fn signal_unverified(
        &mut self,
        signal: Signal,
        members: Members,
        tally: &mut Tally,
    ) -> Result<(), Refused> {
        let frozen = members == Members::Frozen;
        let unverified = if self.target.kill_without_freezer {
            Unverified::All
        } else if frozen && self.target.has_freezer() {
            Unverified::Frozen
        } else {
            Unverified::None
        };
        let wanted = match unverified {
            Unverified::None => MemberList::default(),
            Unverified::Frozen => self.list_frozen()?,
            Unverified::All => self.list_all(LONGEST)?,
        };
        if unverified != Unverified::All {
            let left = self.list_all(LONGEST)?.pids.into_iter().find(|&pid| !wanted.contains(pid));
            if let Some(pid) = left {
                // A member that is not safe to signal even in a freeze cannot be signalled at all.
                tally.missed(if frozen { Reach::Denied } else { Reach::Unsafe });
                self.target.obstacle = Some(Obstacle::of_process(pid, Cause::Unsafe));
            }
        }
        // A list may have found that the directory is gone, and has thawed it then.
        if unverified == Unverified::Frozen && !self.has_all_freezers() {
            return Err(self.freeze_ended());
        }
        let sent = self.target.tracked.send_unverified(
            self.context,
            signal,
            &wanted,
            tally,
            &mut self.target.obstacle,
        );
        sent.map_err(|error| (self.path().to_path_buf(), error.into()))
    }

    /// Whether all freezer directories are left. One can be removed only once its members have left it.
    fn has_all_freezers(&self) -> bool {
        let mut freezers = self.target.trees.iter().filter(|tree| tree.hierarchy.is_freezer());
        freezers.all(Tree::is_left)
    }

    fn freeze_ended(&self) -> Refused {
        let why = "the freeze ended: thawed, joined by a process, or removed";
        (self.path().to_path_buf(), io::Error::new(io::ErrorKind::Interrupted, why).into())
    }

    /// Lists the members in the v1 freezer's hierarchy. An error if a member that is not frozen may have
    /// joined.
    ///
    /// They are listed twice, because a process of the first list may have exited before it was frozen.
    fn list_frozen(&mut self) -> Result<MemberList, Refused> {
        let (mut members, refused) = self.list(|tree| tree.hierarchy.is_freezer(), LONGEST);
        let mut all_frozen = true;
        let refused = refused.or_else(|| {
            self.each(|context, tree, directories| {
                if tree.hierarchy.is_freezer() {
                    let sys = context.sys;
                    all_frozen &= v1::is_frozen(sys, directories.get(sys, &tree.identity)?)?;
                }
                Ok(())
            })
        });
        if let Some(refused) = refused {
            return Err(refused);
        }
        if !all_frozen || !self.has_all_freezers() {
            return Err(self.freeze_ended());
        }
        match self.list(|tree| tree.hierarchy.is_freezer(), LONGEST) {
            (_, Some(refused)) => Err(refused),
            (after, None) => {
                members.pids.retain(|&pid| after.contains(pid));
                Ok(members)
            }
        }
    }
}
