//! Signals to the members of a target.

use std::io;

use super::attempt::{Part, Pidfds, Tally};
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
use crate::sys::{Pid, Sys};

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
        let (left, reached) = match self.target.progress.take_attempt() {
            Some((members, last, reached)) => (Some((members, last)), reached),
            None => (None, Reach::All),
        };
        let unfinished = match self.try_signal(signal, members, left, &mut tally) {
            Ok(unfinished) => unfinished,
            Err((path, cause)) => {
                tally.missed(if cause.is_denied() { Reach::Denied } else { Reach::Failed });
                self.note_obstacle(Act::Kill, (path, cause));
                None
            }
        };
        tally.missed(reached.max(before.reach));
        if tally.reach == Reach::All && unfinished.is_none() {
            self.target.sparing = false;
        }
        if let Some((members, last)) = unfinished {
            self.target.progress = Progress::Attempt(Box::new((members, last, tally.reach)));
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

    /// Signals the members, of which those up to the last one of `left` were dealt with before. If the step reached its
    /// bound, returns what is left for the next one.
    ///
    /// How old the first list is does not matter, so that each step of an attempt makes only the list that verifies.
    fn try_signal(
        &mut self,
        signal: Signal,
        members: Members,
        left: Option<(MemberList, Option<Pid>)>,
        tally: &mut Tally,
    ) -> Result<Option<(MemberList, Option<Pid>)>, Refused> {
        let frozen = members == Members::Frozen;
        // Those of v2 that are not listed were killed by `cgroup.kill`.
        let is_enough = !frozen && (signal == Signal::KILL || !self.findings.v2_not_listed);
        let listed = self.findings.members.take().filter(|_| is_enough);
        let (before, from) = match (left, listed) {
            (Some((before, last)), _) => (before, last),
            (None, Some(before)) => (before, None),
            (None, None) => {
                self.findings.v2_not_listed = false;
                let before = self.list_all()?;
                if self.takes_few() && self.context.limit.is_over(self.context.sys) {
                    return Ok(Some((before, None)));
                }
                (before, None)
            }
        };
        let result = self.try_signal_listed(signal, members, &before, from, tally);
        match result? {
            Some(last) => Ok(Some((before, Some(last)))),
            None => {
                self.findings.members = Some(before);
                Ok(None)
            }
        }
    }

    fn try_signal_listed(
        &mut self,
        signal: Signal,
        members: Members,
        before: &MemberList,
        from: Option<Pid>,
        tally: &mut Tally,
    ) -> Result<Option<Pid>, Refused> {
        let path = |step: &Self| step.path().to_path_buf();
        let most = if self.takes_few() { FEW_SIGNALS } else { SIGNALS };
        let part = Part { after: from, most };
        let opened =
            self.target.tracked.open(self.context, signal, before, part, tally, &mut self.target.obstacle);
        let mut opened = match opened {
            Ok(Pidfds::Opened(opened)) => opened,
            Ok(Pidfds::Unsupported) => return self.signal_unverified(signal, members, tally).map(|()| None),
            Err(error) => return Err((path(self), error.into())),
        };
        if opened.is_empty() {
            return Ok(None);
        }
        let after = loop {
            if let Some(members) = self.members_among(&opened) {
                break members;
            }
            match self.list_all() {
                Ok(after) => break after,
                Err((_, cause))
                    if cause.is_out_of_descriptors() && self.target.tracked.close_half(&mut opened) =>
                {
                    self.context.is_short = true;
                }
                Err(refused) => return Err(refused),
            }
        };
        let unfinished = opened.unfinished;
        if before.garbled || after.garbled {
            // A member may stand in a line that makes no sense.
            tally.missed(Reach::Failed);
        }
        let sent =
            self.target.tracked.send(self.context, signal, opened, &after, tally, &mut self.target.obstacle);
        match sent {
            Ok(()) => Ok(unfinished),
            Err(_) if self.context.facts.lacks_pidfd_signals() => {
                self.signal_unverified(signal, members, tally).map(|()| None)
            }
            Err(error) => Err((path(self), error.into())),
        }
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
