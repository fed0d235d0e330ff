//! Releases the memory of members that were sent SIGKILL and do not exit: process_mrelease(2), Linux 5.15.
//!
//! The kernel releases the memory of a process only if the process is being killed, by any party. The call is made for
//! members that the reap has sent SIGKILL, by pidfds that are verified as for a signal: opened, then listed again.

use std::cmp::Reverse;
use std::num::NonZeroU64;

use super::descriptor_budget::Permit;
use super::errors::{Call, Meaning, meaning};
use super::job::Job;
use super::members::MemberList;
use super::proc::Proc;
use super::step::Step;
use super::target::CgroupKill;
use super::walk::LONGEST;
use crate::reaper::Signal;
use crate::sys::{Pid, Sys};

/// Processes of one job, which holds a descriptor of each. The next job of the reap follows when it is done.
const PROCESSES: usize = 16;

/// If the process runs out of descriptors, this many are left free: one reap needs them to make progress.
const LEFT: usize = 3;

/// The state of a reap's releases.
#[derive(Default)]
pub(super) struct Releases {
    /// Members whose memory is released. Sorted by pid.
    done: Vec<Id>,
    /// Members for which the call failed in this round. A round ends when the call was made for all members.
    failed: Vec<Id>,
    /// Whether a job is under way.
    under_way: bool,
    /// Whether the last job did not take all members.
    more: bool,
    /// Whether the last attempt reached every member.
    pub(super) reached_all: bool,
    /// Processes whose memory this reap released.
    released: u64,
}

/// A process: its pid, and the inode number of its pidfds, if they have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    pid: Pid,
    number: Option<NonZeroU64>,
}

/// A process of a job.
struct Held<S: Sys> {
    id: Id,
    pidfd: S::Fd,
    _permit: Permit,
}

/// The processes whose memory is to be released.
pub(crate) struct Release<S: Sys> {
    processes: Vec<Held<S>>,
}

/// The result of a job.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Processes that have no memory any more.
    done: Vec<Id>,
    /// Processes for which the call failed.
    failed: Vec<Id>,
    /// How many processes had memory before.
    pub(crate) processes: u64,
    /// The anonymous memory that these processes had, in bytes, as far as /proc told.
    pub(crate) bytes: u64,
}

impl<S: Sys> Release<S> {
    /// Releases the memory of each process, the largest first, as far as /proc tells.
    pub(super) fn run(self, sys: &S) -> Released {
        let proc = Proc::open(sys).ok().flatten();
        let size = |pid| proc.as_ref().and_then(|proc| proc.anonymous_memory(pid).ok()).unwrap_or(0);
        let mut processes: Vec<(u64, Held<S>)> =
            self.processes.into_iter().map(|held| (size(held.id.pid), held)).collect();
        drop(proc);
        processes.sort_by_key(|(size, _)| Reverse(*size));
        let mut released = Released::default();
        for (size, held) in processes {
            match sys.process_mrelease(&held.pidfd) {
                // The process was alive, so the text of /proc was about it.
                Ok(()) => {
                    released.processes += 1;
                    released.bytes = released.bytes.saturating_add(size);
                }
                Err(error) if meaning(Call::Release, &error) == Meaning::Gone => {}
                // EAGAIN: some of the memory is in use. EINVAL: the process is not being killed, or shares its memory
                // with a process that is not being killed.
                Err(_) => {
                    released.failed.push(held.id);
                    continue;
                }
            }
            released.done.push(held.id);
        }
        released
    }

    #[cfg(test)]
    pub(crate) fn pidfds(&self) -> impl Iterator<Item = &S::Fd> {
        self.processes.iter().map(|held| &held.pidfd)
    }
}

impl Releases {
    fn is_done(&self, id: Id) -> bool {
        self.done.binary_search_by_key(&id.pid, |done| done.pid).is_ok_and(|at| self.done[at] == id)
    }
}

impl<S: Sys> super::Target<S> {
    /// Processes whose memory was released.
    pub(crate) fn released(&self) -> u64 {
        self.releases.as_ref().map_or(0, |releases| releases.released)
    }

    /// Whether the last job is done, and did not take all members.
    pub(crate) fn has_more_to_release(&self) -> bool {
        self.releases.as_ref().is_some_and(|releases| releases.more && !releases.under_way)
    }

    /// Notes the result of the job.
    pub(crate) fn note_released(&mut self, released: Released) {
        let Some(releases) = &mut self.releases else { return };
        releases.under_way = false;
        releases.released += released.processes;
        releases.failed.extend(released.failed);
        releases.done.extend(released.done);
        // Of two processes with the same pid, the later one is a member now.
        releases.done.reverse();
        releases.done.sort_by_key(|id| id.pid);
        releases.done.dedup_by_key(|id| id.pid);
    }

    /// Notes that no thread took the job. It is made again after the next attempt.
    pub(crate) fn release_refused(&mut self) {
        if let Some(releases) = &mut self.releases {
            (releases.under_way, releases.more) = (false, false);
        }
    }
}

impl<S: Sys> Step<'_, '_, S> {
    /// Makes the job that releases the memory of members, if the caller wants it and there is memory to release.
    pub(crate) fn release(&mut self) -> Option<Job<S>> {
        let releases = self.target.releases.as_mut().filter(|releases| !releases.under_way)?;
        if !std::mem::take(&mut releases.more) {
            releases.failed.clear();
        }
        let Step { context, .. } = self;
        if context.is_short || self.target.sparing || !context.facts.releases_memory(context.sys) {
            return None;
        }
        let is_all = !self.findings.v2_not_listed;
        let before = match self.findings.members.take().filter(|_| is_all) {
            Some(members) => members,
            None => self.list_all(LONGEST).ok()?,
        };
        let mut processes = self.open_killed(&before);
        if processes.is_empty() {
            return None;
        }
        let after = self.list_all(LONGEST).ok()?;
        processes.retain(|held| after.contains(held.id.pid));
        let releases = self.target.releases.as_mut()?;
        releases.under_way = !processes.is_empty();
        releases.under_way.then_some(Job::Release(Release { processes }))
    }

    /// Opens members that were sent SIGKILL and have memory, as many as one job takes.
    fn open_killed(&mut self, members: &MemberList) -> Vec<Held<S>> {
        let Step { target, context, .. } = self;
        let (own, _) = context.sys.caller();
        let is_v2 = target.is_v2();
        let Some(releases) = &mut target.releases else { return Vec::new() };
        // Whether `cgroup.kill` alone has sent SIGKILL, so that no member was signalled by itself.
        let is_made = releases.reached_all && target.kill_by_helper.is_none();
        let by_cgroup_kill = target.cgroup_kill == CgroupKill::Written && is_v2 && is_made;
        releases.done.retain(|id| members.contains(id.pid));
        let mut found: Vec<Held<S>> = Vec::new();
        for &pid in &members.pids {
            let tracked = target.tracked.sent(pid, Signal::KILL);
            let killed = tracked.is_some() || by_cgroup_kill && target.tracked.was_tried(pid);
            if !killed || pid == own {
                continue;
            }
            let known = tracked.and_then(|process| process.number);
            if known.is_some_and(|number| releases.is_done(Id { pid, number: Some(number) })) {
                continue;
            }
            if found.len() == PROCESSES {
                releases.more = true;
                break;
            }
            let Some(permit) = context.resolver.budget.take_spare() else { break };
            let pidfd = match context.sys.pidfd_open(pid) {
                Ok(pidfd) => pidfd,
                Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Short => {
                    found.truncate(found.len().saturating_sub(LEFT));
                    releases.more = !found.is_empty();
                    break;
                }
                Err(_) => continue,
            };
            let Ok(number) = context.facts.number(context.sys, &pidfd) else { continue };
            // Several processes may have had the pid: only the one that was sent SIGKILL counts.
            let is_other = known.is_some() && number != known;
            let id = Id { pid, number };
            if !is_other && !releases.is_done(id) && !releases.failed.contains(&id) {
                found.push(Held { id, pidfd, _permit: permit });
            }
        }
        found
    }
}
