//! Signals to the members of a target.

use std::io;

use super::attempt::{Part, Pidfds, Rest, Tally};
use super::errors::{Cause, Obstacle, Refused};
use super::members::MemberList;
use super::step::Step;
use super::target::Progress;
use super::tracked::{FEW_SIGNALS, SIGNALS};
use super::tree::Tree;
use super::v1;
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
    /// Those that we have frozen.
    Frozen,
    /// All, as the caller chose.
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
        let left = self.target.progress.take_attempt();
        tally.missed(left.as_ref().map_or(Reach::All, |rest| rest.reach).max(before.reach));
        let unfinished = match self.try_signal(signal, members, left, &mut tally) {
            Ok(unfinished) => unfinished,
            Err(refused) => {
                self.not_all(refused, &mut tally);
                None
            }
        };
        if tally.reach == Reach::All && unfinished.is_none() {
            self.target.sparing = false;
        }
        if let Some(rest) = unfinished {
            self.target.progress = Progress::Attempt(Box::new(Rest { reach: tally.reach, ..rest }));
            tally.missed(Reach::Unfinished);
        }
        // v2's own notifications may be late.
        let prompt = self.target.is_v1() && self.target.tracked.are_watched();
        Attempt {
            signalled: tally.signalled,
            method: tally.method.or(before.method),
            reach: tally.reach,
            notice: if prompt { ExitNotice::Prompt } else { ExitNotice::Delayed },
        }
    }

    /// Notes why some members were not signalled.
    fn not_all(&mut self, (path, cause): Refused, tally: &mut Tally) {
        tally.missed(if cause.is_denied() { Reach::Denied } else { Reach::Failed });
        self.note_obstacle(Act::Kill, (path, cause));
    }

    /// Signals the next of the members. Returns what is left for the next step, if this one has reached its bound.
    ///
    /// How old the first list is does not matter, so that an attempt makes no other list than those that verify.
    fn try_signal(
        &mut self,
        signal: Signal,
        members: Members,
        left: Option<Rest<S>>,
        tally: &mut Tally,
    ) -> Result<Option<Rest<S>>, Refused> {
        let begins = left.is_none();
        let mut rest = match left {
            Some(rest) => rest,
            None => Rest::new(self.members_to_signal(signal, members)?),
        };
        let in_parts = self.takes_parts(&rest);
        if in_parts && begins && self.context.limit.is_over(self.context.sys) {
            return Ok(Some(rest));
        }
        self.turn_page(&mut rest)?;
        if rest.is_over() && !begins {
            return Ok(None);
        }
        let most = if in_parts { FEW_SIGNALS } else { SIGNALS };
        let now = Instant::after_start(self.context.sys.now());
        if rest.batch.verified.is_none() {
            let is_held = rest.batch.is_held() || in_parts && !self.is_told_members();
            let part = Part { most, is_held };
            let Step { target, context, .. } = self;
            let opened = target.tracked.open(context, signal, &mut rest, part, tally, &mut target.obstacle);
            let full = match opened.map_err(|error| (self.path().to_path_buf(), error.into()))? {
                Pidfds::Opened { full } => full,
                Pidfds::Unsupported => return self.signal_unverified(signal, members, tally).map(|()| None),
            };
            let goes_on = rest.batch.is_held() && !full || rest.batch.pidfds.is_empty();
            if goes_on && rest.has_more() {
                return Ok(Some(rest));
            }
            if rest.batch.pidfds.is_empty() {
                return Ok(None);
            }
        }
        if !rest.batch.is_verified(now) {
            self.verify(&mut rest, tally)?;
        }
        let most = if rest.batch.is_held() { FEW_SIGNALS } else { rest.batch.pidfds.len() };
        let verified = rest.batch.take(most);
        let is_over = rest.is_over();
        let Step { target, context, .. } = self;
        let sent = target.tracked.send(context, signal, verified, is_over, tally, &mut target.obstacle);
        if let Err(error) = sent {
            if self.context.facts.lacks_pidfd_signals() {
                return self.signal_unverified(signal, members, tally).map(|()| None);
            }
            self.not_all((self.path().to_path_buf(), error.into()), tally);
        }
        if !is_over || in_parts && self.is_told_members() {
            return Ok(Some(rest));
        }
        if begins {
            self.findings.members = Some(rest.members);
        }
        Ok(None)
    }

    /// The members to signal in a new attempt.
    fn members_to_signal(&mut self, signal: Signal, members: Members) -> Result<MemberList, Refused> {
        // Those of v2 that are not listed were killed by `cgroup.kill`.
        let is_enough =
            members != Members::Frozen && (signal == Signal::KILL || !self.findings.v2_not_listed);
        match self.findings.members.take().filter(|_| is_enough) {
            Some(listed) => Ok(listed),
            None => {
                self.findings.v2_not_listed = false;
                self.list_all()
            }
        }
    }

    /// Reads the next of the members that are listed in parts, if all of those before them were opened.
    fn turn_page(&mut self, rest: &mut Rest<S>) -> Result<(), Refused> {
        while rest.next == rest.members.pids.len() && rest.batch.pidfds.is_empty() {
            let Some((pages, _)) = &mut rest.pages else { break };
            let page = pages.next(self.context.sys);
            let page = page.map_err(|error| (self.path().to_path_buf(), error.into()))?;
            if page.is_empty() {
                rest.pages = None;
            } else {
                (rest.members, rest.next) = (page, 0);
            }
        }
        Ok(())
    }

    /// Keeps those of the opened that are members now.
    fn verify(&mut self, rest: &mut Rest<S>, tally: &mut Tally) -> Result<(), Refused> {
        let after = loop {
            if let Some(members) = self.members_among(&rest.batch.pidfds) {
                break members;
            }
            match self.list_all() {
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
        if rest.members.garbled || after.garbled {
            // A member may stand in a line that makes no sense.
            tally.missed(Reach::Failed);
        }
        // If they come back, they are new members.
        let now = Instant::after_start(self.context.sys.now());
        self.target.tracked.untry(rest.batch.verify(now, &after));
        Ok(())
    }

    /// Signals by kill(2) the members that it is safe for, or that the caller allows it for.
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
            Unverified::All => self.list_all()?,
        };
        if unverified != Unverified::All {
            let left = self.list_all()?.pids.into_iter().find(|&pid| !wanted.contains(pid));
            if let Some(pid) = left {
                // A member that is not safe to signal even in a freeze cannot be signalled at all.
                tally.missed(if frozen { Reach::Denied } else { Reach::Unsafe });
                self.target.obstacle = Some(Obstacle::of_process(pid, Cause::Unsafe));
            }
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

    /// The members in the v1 freezer's hierarchy; an error if one may have joined that is not frozen.
    fn list_frozen(&mut self) -> Result<MemberList, Refused> {
        let (members, refused) = self.list(|tree| tree.hierarchy.is_freezer());
        let freezers = |trees: &[Tree<S>]| trees.iter().filter(|tree| tree.hierarchy.is_freezer()).count();
        let left = |trees: &[Tree<S>]| {
            trees.iter().filter(|tree| tree.hierarchy.is_freezer() && tree.is_left()).count()
        };
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
        // A freezer directory can be removed only once its members have left it.
        if !all_frozen || left(&self.target.trees) < freezers(&self.target.trees) {
            let error = io::Error::new(
                io::ErrorKind::Interrupted,
                "the freeze ended: thawed, joined by a process, or removed",
            );
            return Err((self.path().to_path_buf(), error.into()));
        }
        Ok(members)
    }
}
