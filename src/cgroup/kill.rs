//! Attempts to kill: `cgroup.kill`, and signals to each member.

use std::io;
use std::path::Path;

use super::attempt::{Part, Pidfds, Tally};
use super::errors::{Call, Cause, Failed, Meaning, Obstacle, Refused, meaning};
use super::hierarchy::Hierarchy;
use super::job::Job;
use super::kill_elsewhere::{self, Elsewhere, Left, Prepared};
use super::members::MemberList;
use super::step::{Step, check_caller};
use super::target::{CgroupKill, Progress};
use super::tracked::{FEW_SIGNALS, SIGNALS};
use super::tree::Tree;
use super::{v1, v2};
use crate::machine::{Attempt, ExitNotice, KillBy, Members, Reach};
use crate::outcome::{Act, UsedMethod};
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
    /// Sends SIGKILL to every member.
    pub(crate) fn kill(&mut self, by: KillBy) -> Attempt {
        let attempt = self.try_kill(by);
        if attempt.reach == Reach::All {
            // What stood in the way of it does so no more.
            self.forget_obstacle(|past| matches!(past.act, Act::Kill | Act::Freeze));
        }
        attempt
    }

    fn try_kill(&mut self, by: KillBy) -> Attempt {
        let members = match by {
            KillBy::Signals(members) => members,
            KillBy::Cheapest | KillBy::CgroupKillAndSignals { .. } | KillBy::CgroupKill => Members::Running,
        };
        let and_signals = matches!(by, KillBy::CgroupKillAndSignals { .. });
        let all_were_sent = and_signals
            && self.target.cgroup_kill.needs_members()
            && self.findings.members.as_ref().is_some_and(|all| self.target.tracked.need_no_more(all));
        let mut killed = Tally::new();
        if !matches!(by, KillBy::Signals(_)) && !all_were_sent && !self.goes_in_steps(by) {
            self.write_cgroup_kill(by, &mut killed);
            if and_signals {
                self.know_members(CgroupKill::NotEnough);
            }
            let has_v1 = self.target.trees.iter().any(|tree| tree.is_left() && tree.hierarchy.is_v1());
            if by == KillBy::CgroupKill || !(has_v1 || self.target.cgroup_kill.needs_members()) {
                return Attempt {
                    signalled: killed.signalled,
                    method: killed.method,
                    reach: killed.reach,
                    notice: ExitNotice::Delayed,
                };
            }
        }
        self.signal_members(Signal::KILL, members, killed)
    }

    /// Sends the signal to every member, once.
    pub(crate) fn signal(&mut self, signal: Signal, members: Members) -> Attempt {
        self.signal_members(signal, members, Tally::new())
    }

    /// From now on members are known one by one, those of v2 as well.
    fn know_members(&mut self, why: CgroupKill) {
        if !self.target.cgroup_kill.needs_members() {
            self.target.cgroup_kill = why;
            self.findings.members = None;
        }
    }

    /// Writes to `cgroup.kill` of each v2 directory, or leaves that to a helper thread.
    fn write_cgroup_kill(&mut self, by: KillBy, tally: &mut Tally) {
        let and_signals = matches!(by, KillBy::CgroupKillAndSignals { .. });
        let mut written_elsewhere = None;
        let may_leave_it = match Elsewhere::take(&mut self.target.elsewhere) {
            Left::All => !and_signals,
            Left::Here => false,
            Left::Nothing => {
                // Where members are signalled as well, it is not needed.
                if !and_signals {
                    tally.missed(Reach::UnderWay);
                }
                return;
            }
            Left::Result(result) => {
                written_elsewhere = Some(result);
                false
            }
        };
        if written_elsewhere.is_none() && !self.may_write_cgroup_kill(by, tally) {
            return;
        }
        // Exiting tasks are not listed on v1: the members have to be those that were just identified.
        if may_leave_it && (self.target.is_v2() || !self.context.facts.exiting_not_listed) {
            if let Some((write, elsewhere)) = self.prepare_cgroup_kill() {
                self.target.elsewhere = Some(elsewhere);
                self.job = Some(Job::CgroupKill(write));
                return tally.missed(Reach::UnderWay);
            }
        }
        self.note_cgroup_kills(by, written_elsewhere, tally);
    }

    /// Checks that the caller is outside, and identifies members where they have to be known. Returns whether
    /// `cgroup.kill` may be written.
    fn may_write_cgroup_kill(&mut self, by: KillBy, tally: &mut Tally) -> bool {
        let caller_outside = self.findings.caller_outside;
        let inside = self.each(|context, tree, directories| match tree.hierarchy {
            Hierarchy::V2 { .. } if !caller_outside => check_caller(context, tree, directories),
            _ => Ok(()),
        });
        if let Some(refused) = inside {
            self.cgroup_kill_refused(refused, tally);
            return false;
        }
        if self.context.facts.exiting_not_listed && self.target.trees.iter().any(is_v2) {
            if let Err(refused) = self.identify_members() {
                self.cgroup_kill_refused(refused, tally);
                // `cgroup.kill` reaches also the members that the caller may not list.
                return by == (KillBy::CgroupKillAndSignals { last: true });
            }
        }
        true
    }

    /// What a helper thread needs for the write, if there is one v2 directory and a helper is wanted.
    fn prepare_cgroup_kill(&mut self) -> Option<Prepared<S>> {
        let Step { target, context, findings, .. } = self;
        context.helper_from?;
        let mut trees = target.trees.iter().filter(|tree| is_v2(tree));
        let (Some(tree), None) = (trees.next(), trees.next()) else { return None };
        let members = findings.members.as_ref().filter(|_| !findings.v2_not_listed);
        kill_elsewhere::prepare(context, tree, &mut findings.directories, members)
    }

    /// Writes to `cgroup.kill` of each v2 directory, and notes the results; `written`: that of the only one.
    fn note_cgroup_kills(
        &mut self,
        by: KillBy,
        mut written_elsewhere: Option<io::Result<()>>,
        tally: &mut Tally,
    ) {
        let first = !self.target.cgroup_kill.needs_members();
        let (mut written, mut unavailable) = (false, false);
        let refused = self.each(|context, tree, directories| {
            if !is_v2(tree) {
                return Ok(());
            }
            let sys = context.sys;
            let result = match written_elsewhere.take() {
                Some(result) => result,
                None => v2::kill(sys, directories.get(sys, &tree.identity)?, Path::new("")),
            };
            let Err(error) = result else {
                context.metrics.cgroup_kills += 1;
                written = true;
                return Ok(());
            };
            let why = meaning(Call::Cgroup, &error);
            if !matches!(why, Meaning::Gone | Meaning::Denied | Meaning::Unsupported) {
                return Err(error.into());
            }
            // The file is not there, or the directory?
            if why == Meaning::Gone {
                let gone = tree.identity.fate(sys, &mut context.facts.parents)?;
                if let Some(fate) = gone {
                    return Err(Failed::Gone(fate));
                }
            }
            unavailable = true;
            if by == KillBy::CgroupKill {
                return Err(error.into());
            }
            // Before Linux 5.14, in a threaded cgroup, or in a delegated subtree at its own root, whose
            // children the caller may be allowed to kill.
            if first {
                let path = tree.path().display();
                log::info!("cannot write to cgroup.kill of {path}, signalling its members instead: {error}");
            }
            if why == Meaning::Denied {
                if let Ok((dir, below)) = directories.subtree(sys, &tree.identity) {
                    for child in below.iter().filter(|child| child.components().count() == 1) {
                        if v2::kill(sys, dir, child).is_ok() {
                            context.metrics.cgroup_kills += 1;
                            tally.method = Some(UsedMethod::CgroupKill);
                        }
                    }
                }
            }
            Ok(())
        });
        if written {
            if matches!(self.target.cgroup_kill, CgroupKill::Untried | CgroupKill::InSteps) {
                self.target.cgroup_kill = CgroupKill::Written;
            }
            self.target.tracked.killed_all(self.findings.members.as_ref());
            tally.method = Some(UsedMethod::CgroupKill);
        }
        if unavailable && by != KillBy::CgroupKill {
            self.know_members(CgroupKill::Unavailable);
        }
        if let Some((path, cause)) = refused {
            if unavailable {
                tally.missed(Reach::Denied);
            }
            self.cgroup_kill_refused((path, cause), tally);
        }
    }

    fn cgroup_kill_refused(&mut self, (path, cause): Refused, tally: &mut Tally) {
        tally.missed(if cause.is_denied() { Reach::Denied } else { Reach::Failed });
        self.note_obstacle(Act::Kill, (path.join(v2::KILL.to_string_lossy().as_ref()), cause));
    }

    /// Lists and identifies the members, because exiting tasks are not listed later: before a write to `cgroup.kill`, and
    /// while members are to exit by themselves.
    pub(super) fn identify_members(&mut self) -> Result<(), Refused> {
        let known = self.findings.members.take();
        let was_known = known.is_some();
        let before = match known {
            Some(members) => members,
            None => self.list_all()?,
        };
        let found = self.target.tracked.identify(self.context, &before);
        let found = found.map_err(|error| (self.path().to_path_buf(), Cause::Error(error)))?;
        if !found.is_empty() {
            let after = self.list_all()?;
            self.target.tracked.track(found, &after);
        }
        self.findings.members = was_known.then_some(before);
        Ok(())
    }

    /// Signals the members. `before`: the result of `cgroup.kill` in the same attempt.
    fn signal_members(&mut self, signal: Signal, members: Members, before: Tally) -> Attempt {
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

fn is_v2<S: Sys>(tree: &Tree<S>) -> bool {
    tree.is_left() && !tree.hierarchy.is_v1()
}

impl<S: Sys> super::Target<S> {
    /// Notes what came of a write to `cgroup.kill` that was left to a helper thread; `None`: it was not made, and the next
    /// attempt makes it.
    pub(crate) fn note_cgroup_kill(&mut self, answer: Option<io::Result<()>>) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.note(answer);
        }
    }
    /// Whether a helper thread has written to `cgroup.kill`, or is about it, and no attempt has taken note of that yet.
    pub(crate) fn is_killed_elsewhere(&self) -> bool {
        self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.has_killed())
    }
}
