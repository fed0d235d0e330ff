//! Large v2 groups, which are killed in steps where the time of a call is limited.
//!
//! One write to `cgroup.kill` takes 6 µs of CPU time for each member, cannot be cut, and the members that exit preempt
//! the caller. So the members are signalled, some of them in each step. To verify them by a list would take each step as
//! long as the group is large. Instead the kernel tells of each pidfd which cgroup its process is in (PIDFD_GET_INFO, Linux
//! 6.18).
//!
//! The kernel is asked in every attempt on such a group. Only the first kind of attempt writes to `cgroup.kill` besides:
//! the list is read a page at a time. In the end `cgroup.kill` is written all the same: the kernel skips members that were
//! sent SIGKILL (`__cgroup_kill`), and reaches those that were forked meanwhile.

use std::path::Path;

use super::attempt::{Rest, Source};
use super::errors::{Call, Meaning, meaning};
use super::members::{LARGE, MemberList, Pages};
use super::step::{Findings, Step};
use super::target::{CgroupKill, Progress};
use super::tree::is_leaf;
use crate::machine::KillBy;
use crate::sys::{Pid, Sys};

impl<S: Sys> Step<'_, '_, S> {
    /// Whether this attempt signals the members in steps before it writes to `cgroup.kill`.
    pub(super) fn goes_in_steps(&mut self, by: KillBy) -> bool {
        if by != KillBy::Cheapest {
            return false;
        }
        match self.target.cgroup_kill {
            CgroupKill::InSteps => matches!(self.target.progress, Progress::Attempt(_)),
            // A helper thread makes the write.
            CgroupKill::Untried if self.context.helper_from.is_some() => false,
            CgroupKill::Untried if self.context.limit.is_set() => match self.members_of_many() {
                Some(rest) => {
                    self.target.progress = Progress::Attempt(Box::new(rest));
                    self.target.cgroup_kill = CgroupKill::InSteps;
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    /// The members, if the target is a large v2 group, and the kernel tells of them where they are. Not where that cannot
    /// be found out: the write that follows then meets the error again.
    fn members_of_many(&mut self) -> Option<Rest<S>> {
        // A member outside of the caller's pid namespace cannot be signalled.
        let is_large = |rest: &Rest<S>| rest.members.len() >= LARGE && rest.members.unmapped == 0;
        self.first_page().filter(is_large).filter(|_| self.is_told_members())
    }

    /// The members of a target that is one v2 directory, or the first page of them. `None` where they are no such target's or
    /// cannot be read: another list then meets the error again.
    pub(super) fn first_page(&mut self) -> Option<Rest<S>> {
        let sys = self.context.sys;
        if !self.target.is_one_v2() {
            return None;
        }
        let mut rest = None;
        let refused = self.each(|context, tree, directories| {
            let mut pages = Pages::open(sys, directories.get(sys, &tree.identity)?, Path::new(""))?;
            let page = pages.next(sys)?;
            rest = Some(match context.resolver.budget.take_spare() {
                // One of fewer is the last.
                _ if page.len() < LARGE => Rest::new(page),
                Some(permit) => Rest { source: Source::Pages { pages, _permit: permit }, ..Rest::new(page) },
                None => {
                    let mut members = MemberList::default();
                    members.add_tree(sys, tree, directories)?;
                    members.finish();
                    Rest::new(members)
                }
            });
            Ok(())
        });
        rest.filter(|_| refused.is_none())
    }

    /// Whether an attempt on these members takes them in small parts.
    pub(super) fn takes_parts(&self, rest: &Rest<S>) -> bool {
        let is_large = rest.members.len() >= LARGE || !matches!(rest.source, Source::None);
        is_large && self.context.limit.is_set()
    }

    /// The inode number of the one directory that the target has, if it has one on v2.
    fn only_leaf(&mut self) -> Option<u64> {
        let sys = self.context.sys;
        let tree = self.target.trees.first().filter(|_| self.target.is_one_v2())?;
        let Findings { directories, .. } = &mut self.findings;
        let id = tree.identity.id;
        let stat = |dir: &S::Fd| sys.stat(Some(dir), c"").ok();
        let is_only = directories.is_leaf(id) || is_leaf(&stat(directories.get(sys, &tree.identity).ok()?)?);
        is_only.then_some(id.ino)
    }

    /// Whether the kernel tells which of the opened are members.
    pub(super) fn is_told_members(&mut self) -> bool {
        self.only_leaf().is_some() && self.context.facts.tells_cgroups(self.context.sys)
    }

    /// Those of the opened that are members now, if the kernel tells of each that it is: its cgroup is the one of the target.
    /// Of another cgroup is also a process of which only some threads are in the target, a threaded cgroup.
    pub(super) fn members_among(&mut self, opened: &[(Pid, S::Fd)]) -> Option<MemberList> {
        let sys = self.context.sys;
        let directory = self.only_leaf()?;
        let mut members = MemberList::default();
        for (pid, pidfd) in opened {
            match sys.cgroup_of(pidfd) {
                Ok(cgroup) if cgroup == directory => members.pids.push(*pid),
                Err(error) if meaning(Call::PidfdInfo, &error) == Meaning::Gone => {}
                // A list tells.
                Ok(_) | Err(_) => return None,
            }
        }
        Some(members)
    }
}
