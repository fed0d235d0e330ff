//! Large v2 targets, which are killed in steps where the time of a call is limited.
//!
//! One write to `cgroup.kill` takes 6 µs of CPU time for each member, cannot be cut, and the members that exit preempt
//! the caller. So the members are signalled, some of them in each step. To verify them by a list would take each step as
//! long as the target is large. Instead the kernel tells of each pidfd which cgroup its process is in (PIDFD_GET_INFO, Linux
//! 6.13).
//!
//! Every attempt on such a target does this, and so does the signal of the grace period. The list is read a page at a
//! time, but for the attempts that look for members by their threads.
//!
//! At the end of an attempt that begins in this way, after half a second at the latest, `cgroup.kill` is written
//! nevertheless: the kernel skips members that were sent SIGKILL (`__cgroup_kill`), and reaches those that were forked
//! meanwhile.

use std::path::Path;

use super::attempt::{Rest, Source};
use super::errors::{Call, Meaning, meaning};
use super::members::{LARGE, MemberList, Pages};
use super::step::{Findings, Step};
use super::target::{CgroupKill, Progress};
use super::walk::is_leaf;
use crate::machine::KillBy;
use crate::sys::{Pid, Sys};
use crate::time::Instant;

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

    /// Once the steps have used up their time, leaves the remaining members to `cgroup.kill`.
    pub(super) fn gives_steps_up(&mut self) -> bool {
        let now = Instant::after_start(self.context.sys.now());
        let is_late = matches!(&self.target.progress, Progress::Attempt(rest) if rest.is_late(now));
        if let Some(rest) = if is_late { self.target.progress.take_attempt() } else { None } {
            self.target.tracked.untry(rest.untried());
        }
        is_late
    }

    /// The members, if the target is one large v2 cgroup, and the kernel tells the cgroup of each. `None` also if this
    /// cannot be found out: the write that follows then meets the error again.
    fn members_of_many(&mut self) -> Option<Rest<S>> {
        // A member outside of the caller's pid namespace cannot be signalled.
        let is_large = |page: &MemberList| page.len() >= LARGE && page.unmapped == 0;
        self.first_page().filter(|(page, _)| is_large(page)).and_then(|first| self.told_members(first))
    }

    /// The first page of the members of a target that is one v2 directory. `None` also if the list cannot be read: another
    /// list then meets the error again.
    pub(super) fn first_page(&mut self) -> Option<(MemberList, Pages<S>)> {
        let sys = self.context.sys;
        if !self.target.is_one_v2() {
            return None;
        }
        let mut first = None;
        let refused = self.each(|_, tree, directories| {
            let mut pages = Pages::open(sys, directories.get(sys, &tree.identity)?, Path::new(""))?;
            first = Some((pages.next(sys)?, pages));
            Ok(())
        });
        first.filter(|_| refused.is_none())
    }

    /// The members that begin with this page, if the kernel tells the cgroup of each: page by page if they are many and a
    /// descriptor may be held, else all of them.
    pub(super) fn told_members(&mut self, (page, mut pages): (MemberList, Pages<S>)) -> Option<Rest<S>> {
        // A cgroup that lists no process may have threads of one, which another list finds.
        if page.is_empty() || !self.is_told_members() {
            return None;
        }
        let is_large = page.len() >= LARGE;
        if let Some(permit) = self.context.resolver.budget.take_spare().filter(|_| is_large) {
            return Some(Rest { source: Source::Pages { pages, _permit: permit }, ..Rest::new(page) });
        }
        let (mut members, mut len) = (page, 1);
        while len > 0 {
            let next = pages.next(self.context.sys).ok()?;
            len = next.len();
            members.extend(next);
        }
        members.finish();
        Some(Rest::new(members))
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

    /// Whether the kernel tells which of the opened processes are members.
    pub(super) fn is_told_members(&mut self) -> bool {
        self.only_leaf().is_some() && self.context.facts.tells_cgroups(self.context.sys)
    }

    /// Those of the opened processes that are members now, if the kernel confirms each: its cgroup is the target. Where the
    /// target is a threaded cgroup, a process of which only some threads are in it is in another cgroup.
    pub(super) fn members_among(&mut self, opened: &[(Pid, S::Fd)]) -> Option<MemberList> {
        let sys = self.context.sys;
        let directory = self.only_leaf()?;
        let mut members = MemberList::default();
        for (pid, pidfd) in opened {
            match sys.cgroup_of(pidfd) {
                Ok(cgroup) if cgroup == directory => members.pids.push(*pid),
                // Until Linux 6.15 the kernel says this also of a live process whose parent is outside of the caller's pid
                // namespace (`pidfd_info`).
                Err(error)
                    if meaning(Call::PidfdInfo, &error) == Meaning::Gone
                        && sys.has_exited(pidfd).unwrap_or(false) => {}
                // A list has to tell.
                Ok(_) | Err(_) => return None,
            }
        }
        Some(members)
    }
}
