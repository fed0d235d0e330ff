//! What the library must not do: each breach is a violation, noted where it happens.

use std::io;

use super::{GroupId, Life, Process, Reaps, SELF, World, errno};
use crate::cgroup::attempt::VERIFIED;

impl World {
    /// Whether the process was, in this step, in some target whose reap is under way.
    pub(super) fn is_in_target(&self, process: &Process) -> bool {
        process.member.iter().any(|&(target, last)| last == self.step && self.targets[target].live)
    }

    /// Whether it was moved out of the target of a reap that is under way, and may have been verified before: those that are
    /// signalled in parts are, for a short time.
    fn has_just_left(&self, process: &Process) -> bool {
        let just = self.now.saturating_sub(process.moved_at) <= VERIFIED.into();
        just && self.limited && process.member.iter().any(|&(target, _)| self.targets[target].live)
    }

    /// Whether it was sent SIGTERM by the one reap that may send it, and was listed ever since.
    fn has_it(&self, process: &Process) -> bool {
        let is_one = matches!(process.member[..], [_]);
        is_one && !self.garbled && process.termed.is_some_and(|at| process.moved < at && at < self.step)
    }

    /// Notes which process is signalled; a violation if that must not be.
    pub(super) fn check_signal(&mut self, ino: u64, signal: i32, how: &str) {
        let Some(process) = self.processes.iter().find(|process| process.ino == ino) else { return };
        let pid = process.pid;
        // A thaw by another party, of what we froze or of a process that it moved away, is what no kill(2) is safe from: stated
        // as such.
        let unsafe_by_others = how == "kill" && self.thawed_in == self.step;
        // A zombie is in its cgroup, and not listed there. A signal does nothing to it.
        let is_dead = how == "pidfd_send_signal" && process.life == Life::Dead;
        if !self.is_in_target(process) && !self.has_just_left(process) && !unsafe_by_others && !is_dead {
            self.violation(format!("{how}: {ino}, pid {pid}, is in no target"));
        } else if pid == SELF && process.moved < self.step {
            self.violation(format!("{how}: the caller itself"));
        } else if !unsafe_by_others && process.member.iter().all(|&(target, _)| self.is_alone(target)) {
            self.violation(format!("{how}: signal {signal} to {ino}, pid {pid}, which is to be left alone"));
        } else if signal == libc::SIGTERM && self.has_it(process) {
            self.violation(format!("{how}: SIGTERM to {ino}, pid {pid}, which has it"));
        } else if signal == libc::SIGKILL
            && !unsafe_by_others
            && process.member.iter().all(|&(target, _)| self.now < self.targets[target].not_before)
        {
            self.violation(format!("{how}: SIGKILL to {ino}, pid {pid}, within its grace"));
        }
    }

    /// Notes that the memory of a process is to be released; a violation if that must not be.
    pub(crate) fn check_release(&mut self, ino: u64) {
        let Some(process) = self.processes.iter().find(|process| process.ino == ino) else { return };
        let is_killed = process.killed || process.signalled != Reaps::default();
        // What has joined with the pid of another, which can't be told where pidfds have no numbers or within one step; what
        // `cgroup.kill` does not reach; what has joined since it was written last, if it may not be written now: the
        // kernel refuses these.
        let is_refused = !self.features.pidfs
            || process.moved == self.step
            || process.nature.leaderless
            || self.refused_in == self.step;
        if !self.is_in_target(process) {
            self.violation(format!("the memory of {ino}, which is in no target, is to be released"));
        } else if !is_killed && !is_refused {
            self.violation(format!("the memory of {ino}, which was sent no SIGKILL, is to be released"));
        }
    }

    /// Whether the reap of a target only waits for it to become empty.
    pub(super) fn is_alone(&self, target: usize) -> bool {
        self.now < self.targets[target].alone_until
    }

    /// A write by the library: whether it is one that it may make, and whether it is let.
    pub(super) fn check_write(&mut self, group: GroupId, what: &str) -> io::Result<()> {
        if self.groups[group].removed {
            return Err(errno(libc::ENODEV));
        }
        let reaped = self.groups[group].target.is_some_and(|target| self.targets[target].live);
        // A group outside that holds members frozen may be thawed if v1 lists no other process in it.
        let hidden =
            |p: &Process| p.nature.unmapped || self.features.exiting_unlisted && p.life == Life::Exiting;
        let idle = |p: &Process| p.moved == self.step || hidden(p) || self.is_in_target(p);
        let wanted = reaped || what == "THAWED" && self.members_below(group).all(idle);
        if !wanted {
            let path = self.path(group);
            self.violation(format!("{what} to {path}, which is not to be touched"));
        }
        // Another reap may thaw it, for it holds members of its target, or did a moment ago.
        let others = (0..self.targets.len()).filter(|&target| self.targets[target].live);
        let by_another = what == "THAWED" && others.into_iter().any(|target| !self.is_alone(target));
        if self.groups[group].target.is_some_and(|target| self.is_alone(target)) && !by_another {
            let path = self.path(group);
            self.violation(format!("{what} to {path}, whose members are to be left alone"));
        }
        if what == "FROZEN" || what == "1" {
            let own = |p: &Process| p.pid == SELF && p.moved < self.step;
            if self.members_below(group).any(own) {
                self.violation(format!("{what} to {}, where the caller is", self.path(group)));
            }
        }
        Ok(())
    }
}
