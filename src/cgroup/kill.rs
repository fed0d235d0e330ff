//! Attempts to kill: by `cgroup.kill`, and by signals where that is not enough.

use std::io;
use std::path::Path;

use super::attempt::Tally;
use super::errors::{Call, Cause, Failed, Meaning, Refused, meaning};
use super::helper_call::{HelperCall, Left};
use super::hierarchy::Hierarchy;
use super::job::Job;
use super::kill_by_helper::{self, Prepared};
use super::step::{Step, check_caller};
use super::target::{CgroupKill, Progress};
use super::tree::Tree;
use super::v2;
use super::walk::LONG;
use crate::machine::{Attempt, CGROUP_KILL_ATTEMPTS, ExitNotice, KillBy, Members, Reach};
use crate::outcome::{Act, UsedMethod};
use crate::reaper::Signal;
use crate::sys::Sys;

/// How often the members are listed again after some were identified. If members join all the time, the last ones are not
/// identified.
const LISTS_AGAIN: usize = 4;

impl<S: Sys> Step<'_, '_, S> {
    /// Sends SIGKILL to every member.
    pub(crate) fn kill(&mut self, by: KillBy) -> Attempt {
        let is_late = matches!(by, KillBy::CgroupKillAndSignals { .. }) && !self.target.is_stubborn();
        self.target.lists_threads |= is_late || self.target.kills == CGROUP_KILL_ATTEMPTS;
        let mut attempt = self.try_kill(by);
        // A write that was refused before may be let now.
        let may_write = self.target.cgroup_kill != CgroupKill::NotChosen;
        let is_over = attempt.reach != Reach::Unfinished;
        if is_over {
            self.target.kills = self.target.kills.saturating_add(1);
            self.target.lists_threads = false;
        }
        let has_unmapped = is_over && std::mem::take(&mut self.target.has_unmapped);
        let are_spared = has_unmapped || matches!(attempt.reach, Reach::Denied | Reach::Unsafe);
        if matches!(by, KillBy::Signals(_)) && are_spared && may_write {
            // It also kills frozen members that may not, or cannot, be signalled.
            let Attempt { signalled, method, reach, notice } = attempt;
            let mut killed = Tally { signalled, reach, ..Tally::new() };
            self.write_cgroup_kill(by, &mut killed);
            killed.method = killed.method.or(method);
            attempt = killed.attempt(notice);
        }
        let was_written = is_over && std::mem::take(&mut self.target.has_written);
        let is_unheeded = !was_written && self.target.kill_by_helper.is_none();
        if has_unmapped && is_unheeded && matches!(attempt.reach, Reach::All | Reach::Covered) {
            // Nothing reaches it from this pid namespace.
            let v2 = self.target.trees.iter().find(|tree| is_v2(tree));
            let procs = v2.map_or(self.path(), |tree| tree.path()).join("cgroup.procs");
            self.note_obstacle(Act::Kill, (procs, io::Error::from_raw_os_error(libc::EPERM).into()));
            attempt.reach = Reach::Denied;
        }
        let reached_all = attempt.reach == Reach::All;
        if let Some(releases) = &mut self.target.releases {
            releases.reached_all = reached_all;
        }
        if reached_all {
            // Earlier failures to kill or to freeze are out of date.
            self.forget_obstacle(|past| matches!(past.act, Act::Kill | Act::Freeze));
        }
        attempt
    }

    fn try_kill(&mut self, by: KillBy) -> Attempt {
        let members = match by {
            KillBy::Signals(members) => members,
            KillBy::Cheapest | KillBy::CgroupKillAndSignals { .. } | KillBy::CgroupKill { .. } => {
                Members::Running
            }
        };
        let and_signals = matches!(by, KillBy::CgroupKillAndSignals { .. });
        let mut killed = Tally::new();
        if self.target.may_be_own {
            killed.missed(Reach::Failed);
            let cause = io::Error::other("it is not known yet whether the caller is in the target");
            self.note_obstacle(Act::Kill, (self.path().to_path_buf(), cause.into()));
            return killed.attempt(ExitNotice::Delayed);
        }
        if self.goes_in_steps(by) && !self.gives_steps_up() {
            let attempt = self.signal_members(Signal::KILL, members, killed);
            if attempt.reach == Reach::Unfinished {
                return attempt;
            }
            // The write below reaches the members that the signals did not.
            (killed.signalled, killed.method) = (attempt.signalled, attempt.method);
        } else if matches!(self.target.progress, Progress::Attempt(_)) {
            if self.target.kill_by_helper.is_some() && !matches!(by, KillBy::Signals(_)) {
                // The thread may have answered, or could not be started.
                self.write_cgroup_kill(by, &mut killed);
            }
            return self.signal_members(Signal::KILL, members, killed);
        }
        let all_were_sent = and_signals
            && !self.target.lists_threads
            && self.target.cgroup_kill.needs_members()
            && self.findings.members.as_ref().is_some_and(|all| self.target.tracked.need_no_more(all));
        if !matches!(by, KillBy::Signals(_)) && !all_were_sent {
            self.write_cgroup_kill(by, &mut killed);
            if and_signals {
                self.know_members(CgroupKill::NotEnough);
            }
            let is_enough = self.target.is_v2() && !self.target.cgroup_kill.needs_members();
            if is_enough || matches!(by, KillBy::CgroupKill { .. }) {
                return killed.attempt(ExitNotice::Delayed);
            }
        }
        self.signal_members(Signal::KILL, members, killed)
    }

    /// From now on the members are listed and signalled one by one, also those of v2.
    fn know_members(&mut self, why: CgroupKill) {
        if !self.target.cgroup_kill.needs_members() {
            self.target.cgroup_kill = why;
            self.findings.members = None;
        }
    }

    /// Writes to `cgroup.kill` of each v2 directory, or leaves the write to a helper thread.
    fn write_cgroup_kill(&mut self, by: KillBy, tally: &mut Tally) {
        let and_signals = matches!(by, KillBy::CgroupKillAndSignals { .. } | KillBy::Signals(_));
        let is_last = by == (KillBy::CgroupKill { last: true });
        let mut written_by_helper = None;
        let may_leave_it = match HelperCall::take(&mut self.target.kill_by_helper) {
            Left::All => !and_signals && !is_last,
            Left::Here => false,
            Left::Nothing if is_last && !self.target.give_up_write() => false,
            Left::Nothing => {
                // If the members are signalled as well, the attempt does not wait for the write.
                if !and_signals {
                    tally.missed(Reach::UnderWay);
                }
                return;
            }
            Left::Result(_, result) => {
                written_by_helper = Some(result);
                false
            }
        };
        if written_by_helper.is_none() && !self.may_write_cgroup_kill(by, tally) {
            return;
        }
        // Exiting tasks are not listed on v1: the members have to be those that were just identified.
        if may_leave_it && (self.target.is_v2() || !self.context.facts.exiting_not_listed) {
            if let Some((write, call)) = self.prepare_cgroup_kill() {
                // This list is used, because later lists may have members that joined after the write.
                self.target.tracked.killed_all(self.findings.members.as_ref());
                self.target.kill_by_helper = Some(call);
                self.job = Some(Job::CgroupKill(write));
                return tally.missed(Reach::UnderWay);
            }
        }
        self.note_cgroup_kills(by, written_by_helper, tally);
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
            let is_inside = matches!(refused.1, Cause::CallerInside);
            self.cgroup_kill_refused(refused, false, tally);
            if is_inside && !matches!(by, KillBy::CgroupKill { .. }) {
                // The other members are signalled.
                self.know_members(CgroupKill::NotEnough);
            }
            return false;
        }
        if self.context.facts.exiting_not_listed && self.target.trees.iter().any(is_v2) {
            match self.identify_members() {
                Ok(()) => {}
                // Members that make cgroups all the time are killed, even if they could not be identified.
                Err((_, cause)) if cause.is_too_long() => {}
                Err(refused) => {
                    self.cgroup_kill_refused(refused, false, tally);
                    // `cgroup.kill` reaches also the members that the caller may not list.
                    return by == (KillBy::CgroupKillAndSignals { last: true });
                }
            }
        }
        true
    }

    /// Prepares the write for a helper thread, if a helper is wanted and there is only one v2 directory.
    fn prepare_cgroup_kill(&mut self) -> Option<Prepared<S>> {
        let Step { target, context, findings, .. } = self;
        context.helper_from?;
        let mut trees = target.trees.iter().filter(|tree| is_v2(tree));
        let (Some(tree), None) = (trees.next(), trees.next()) else { return None };
        let members = findings.members.as_ref().filter(|_| !findings.v2_not_listed);
        kill_by_helper::prepare(context, tree, &mut findings.directories, members)
    }

    /// Writes to `cgroup.kill` of each v2 directory, and notes the results. `written_by_helper`: the result for the
    /// only one.
    fn note_cgroup_kills(
        &mut self,
        by: KillBy,
        mut written_by_helper: Option<io::Result<()>>,
        tally: &mut Tally,
    ) {
        let first = !self.target.cgroup_kill.needs_members();
        let by_helper = written_by_helper.is_some();
        let (mut written, mut unavailable) = (false, false);
        let refused = self.each(|context, tree, directories| {
            if !is_v2(tree) {
                return Ok(());
            }
            let sys = context.sys;
            let result = match written_by_helper.take() {
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
            // The error may be for the file or for the directory.
            if why == Meaning::Gone {
                let gone = tree.identity.fate(sys, &mut context.facts.parents)?;
                if let Some(fate) = gone {
                    return Err(Failed::Gone(fate));
                }
            }
            unavailable = true;
            if matches!(by, KillBy::CgroupKill { .. }) {
                return Err(error.into());
            }
            // This is so before Linux 5.14, in a threaded cgroup, and at the root of a delegated subtree. The
            // caller may be allowed to kill the children of such a root.
            if first {
                let path = tree.path().display();
                log::info!("cannot write to cgroup.kill of {path}, signalling its members instead: {error}");
            }
            if why == Meaning::Denied {
                if let Ok((dir, below)) = directories.subtree(sys, &tree.identity, LONG) {
                    for child in below.children() {
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
            if !by_helper {
                self.target.tracked.killed_all(self.findings.members.as_ref());
            }
            tally.method = Some(UsedMethod::CgroupKill);
            tally.covered = self.target.is_v2() && !by_helper && !unavailable && refused.is_none();
        }
        self.target.has_written |= tally.method == Some(UsedMethod::CgroupKill);
        if unavailable && !matches!(by, KillBy::CgroupKill { .. }) {
            self.know_members(CgroupKill::Unavailable);
        }
        if let Some(refused) = refused {
            self.cgroup_kill_refused(refused, unavailable, tally);
        }
    }

    /// Notes that `cgroup.kill` was not written. `unavailable`: for a reason that does not pass.
    fn cgroup_kill_refused(&mut self, (path, cause): Refused, unavailable: bool, tally: &mut Tally) {
        tally.missed(if unavailable || cause.is_denied() { Reach::Denied } else { Reach::Failed });
        self.note_obstacle(Act::Kill, (path.join(v2::KILL.to_string_lossy().as_ref()), cause));
    }

    /// Lists and identifies the members, because they are not listed any more when they are exiting. Called before a
    /// write to `cgroup.kill`, and while members are to exit by themselves.
    pub(super) fn identify_members(&mut self) -> Result<(), Refused> {
        let known = self.findings.members.take();
        let was_known = known.is_some();
        let before = match known {
            Some(members) => members,
            None => self.list_all(LONG)?,
        };
        let mut last = None;
        for _ in 0..LISTS_AGAIN {
            let found = self.target.tracked.identify(self.context, last.as_ref().unwrap_or(&before));
            let found = found.map_err(|error| (self.path().to_path_buf(), Cause::Error(error)))?;
            if found.is_empty() {
                break;
            }
            let after = self.list_all(LONG)?;
            self.target.tracked.track(found, &after);
            // Members that have joined meanwhile are identified next.
            last = Some(after);
        }
        self.findings.members = was_known.then_some(before);
        Ok(())
    }
}

fn is_v2<S: Sys>(tree: &Tree<S>) -> bool {
    tree.is_left() && !tree.hierarchy.is_v1()
}

impl<S: Sys> super::Target<S> {
    /// Notes the result of a write to `cgroup.kill` that was left to a helper thread; `None` if it was not made: the next
    /// attempt makes it.
    pub(crate) fn note_cgroup_kill(&mut self, answer: Option<io::Result<()>>) {
        if let Some(call) = &mut self.kill_by_helper {
            call.note(answer);
        }
    }

    /// Whether a helper thread has a job of this target.
    pub(crate) fn waits_for_helper(&self) -> bool {
        self.kill_by_helper.is_some() || self.removal_by_helper.is_some()
    }

    /// For the end of the reap: gives up a write to `cgroup.kill` that a helper thread has not begun. Returns whether a thread
    /// has begun one, or made it, and no attempt has noted the result.
    pub(crate) fn give_up_write(&self) -> bool {
        self.kill_by_helper.as_ref().is_some_and(|call| {
            call.give_up();
            call.has_begun()
        })
    }
}
