//! Large v2 groups, which are killed in steps where the time of a call is limited.
//!
//! One write to `cgroup.kill` takes 6 µs of CPU time for each member, cannot be cut, and the members that exit preempt the
//! caller. So the members are signalled, some of them in each step. To verify them by a list would take each step as
//! long as the group is large. Instead the kernel tells of each pidfd which cgroup its process is in (PIDFD_GET_INFO, Linux
//! 6.18).
//!
//! Members that were forked meanwhile are left to the next attempt, which writes to `cgroup.kill`: there are few of them, or
//! they outrun the signals.

use super::attempt::Opened;
use super::errors::{Call, Meaning, meaning};
use super::members::{MANY, MemberList, count, first_members};
use super::step::Step;
use super::target::{CgroupKill, Progress};
use crate::machine::KillBy;
use crate::sys::Sys;

/// So many members are signalled in steps. The simulation, whose groups are all small, has some of them killed so too.
const LARGE: usize = if cfg!(test) { 2 } else { MANY };

impl<S: Sys> Step<'_, '_, S> {
    /// Whether this attempt signals the members in steps, rather than to write to `cgroup.kill`.
    pub(super) fn goes_in_steps(&mut self, by: KillBy) -> bool {
        if by != KillBy::Cheapest {
            return false;
        }
        match self.target.cgroup_kill {
            // What has been left by then is left to `cgroup.kill`.
            CgroupKill::InSteps => matches!(self.target.progress, Progress::Attempt(_)),
            // A helper thread makes the write.
            CgroupKill::Untried if self.context.helper_from.is_some() => false,
            CgroupKill::Untried => {
                let begins = self.context.limit.is_set() && self.has_many();
                if begins {
                    self.target.cgroup_kill = CgroupKill::InSteps;
                }
                begins
            }
            _ => false,
        }
    }

    /// Whether the target is a large v2 group, of whose members the kernel tells where they are. Not where that cannot be
    /// found out: the write that follows then meets the error again.
    fn has_many(&mut self) -> bool {
        let sys = self.context.sys;
        if !self.target.is_one_v2() {
            return false;
        }
        let mut many = false;
        let refused = self.each(|_, tree, directories| {
            let lines = first_members(sys, directories.get(sys, &tree.identity)?)?;
            // A member outside of the caller's pid namespace is listed as 0, and cannot be signalled.
            many = count(&lines) >= LARGE && lines.split(|&byte| byte == b'\n').all(|line| line != b"0");
            Ok(())
        });
        many &= refused.is_none();
        many && self.only_leaf().is_some() && self.context.facts.tells_cgroups(sys)
    }

    /// Whether few members are signalled in one step.
    pub(super) fn takes_few(&mut self) -> bool {
        self.target.cgroup_kill == CgroupKill::InSteps && self.context.limit.is_set()
    }

    /// The inode number of the one directory that the target has, if it has one on v2.
    fn only_leaf(&mut self) -> Option<u64> {
        let sys = self.context.sys;
        let tree = self.target.trees.first().filter(|_| self.target.is_one_v2())?;
        let (_, subtree) = self.findings.directories.subtree(sys, &tree.identity).ok()?;
        (subtree.len() == 1).then_some(tree.identity.id.ino)
    }

    /// Those of the opened that are members now, if the kernel tells of each that it is: its cgroup is the one of the target.
    /// Of another cgroup is also a process of which only some threads are in the target, a threaded cgroup.
    pub(super) fn members_among(&mut self, opened: &Opened<S>) -> Option<MemberList> {
        let sys = self.context.sys;
        if self.target.cgroup_kill != CgroupKill::InSteps {
            return None;
        }
        let directory = self.only_leaf()?;
        let mut members = MemberList::default();
        for (pid, pidfd) in &opened.pidfds {
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
