//! Processes: their births, moves, signals and ends.

use std::io;

use super::{
    EVENTS, Event, FREEZER, GroupId, Life, Nature, Object, PROCESSES, Process, ROOTS, Reaps, SELF, V2, World,
    errno,
};

impl World {
    pub(crate) fn add_process(&mut self, groups: [GroupId; 3], nature: Nature, pid: Option<i32>) -> u64 {
        self.next_ino += 1;
        self.next_pid += 1;
        self.has_unmapped |= nature.unmapped;
        let ino = self.next_ino;
        let nature = Nature { injected: nature.injected || self.injects && ino % 3 == 0, ..nature };
        self.processes.push(Process {
            pid: pid.unwrap_or(self.next_pid),
            ino,
            groups,
            nature,
            life: Life::Alive,
            killed: false,
            termed: None,
            signalled: Reaps::default(),
            unlisted: false,
            refused: false,
            listed: Reaps::default(),
            omitted: Reaps::default(),
            memory: 4,
            stopped: false,
            moved: self.step,
            moved_at: self.now,
            freezing: [None; 2],
            member: Vec::new(),
        });
        if let Some(period) = nature.forks.filter(|_| self.planned < EVENTS) {
            self.plan(period, Event::Fork(ino));
        }
        self.changed();
        ino
    }

    pub(crate) fn process(&mut self, ino: u64) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.ino == ino)
    }

    /// The library's own process.
    pub(crate) fn caller(&self) -> &Process {
        self.by_pid(SELF).expect("it lives")
    }

    pub(super) fn by_pid(&self, pid: i32) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    /// The process of this other thread.
    pub(super) fn by_thread(&self, tid: i32) -> Option<&Process> {
        self.processes.iter().find(|process| process.other_threads().any(|other| other == tid))
    }

    /// Moves a process, in all of the hierarchies or some.
    pub(crate) fn migrate(&mut self, ino: u64, groups: [GroupId; 3]) {
        let (now, step) = (self.now, self.step);
        if self.process(ino).map(|process| process.groups[FREEZER]).is_some_and(|g| self.is_frozen_from(g)) {
            self.thawed_in = step;
        }
        let Some(process) = self.process(ino).filter(|process| process.life == Life::Alive) else { return };
        process.unlisted |= process.nature.leaderless && process.groups[V2] != groups[V2];
        process.groups = groups;
        process.moved = step;
        process.moved_at = now;
        self.changed();
    }

    /// SIGKILL, from another party.
    pub(crate) fn sigkill(&mut self, ino: u64) {
        if let Some(process) = self.process(ino) {
            process.killed = true;
        }
        self.changed();
    }

    /// A process that can exits at once, and its pid is given to another outside.
    pub(crate) fn recycle(&mut self, ino: u64) {
        let now = self.now;
        let Some(process) = self.process(ino).filter(|process| process.runs(now)) else { return };
        process.life = Life::Dead;
        self.wake(&Object::Pidfd(ino));
        self.changed();
        self.reap(ino);
    }

    /// The targets that a process is in.
    pub(crate) fn targets_of(&self, process: &Process) -> impl Iterator<Item = usize> {
        process.groups.map(|group| self.groups[group].target).into_iter().flatten()
    }

    /// Its parent waits for a zombie, which frees the pid.
    pub(crate) fn reap(&mut self, ino: u64) {
        let Some(at) = self.processes.iter().position(|p| p.ino == ino) else { return };
        let Process { pid, signalled, .. } = self.processes.swap_remove(at);
        self.waited_for.push((pid, signalled));
        if self.churn > 0 && self.rng.bool() {
            let new_member = self.add_process(ROOTS, Nature::default(), Some(pid));
            self.note(|| format!("(pid {pid} is {new_member} outside now)"));
        }
    }

    pub(super) fn fork(&mut self, ino: u64) {
        let now = self.now;
        let total = self.processes.len();
        let Some(process) = self.process(ino).filter(|process| process.life == Life::Alive) else { return };
        let (groups, nature, killed) = (process.groups, process.nature, process.killed);
        let runs = process.runs(now) && !killed;
        if let Some(period) = nature.forks.filter(|_| self.planned < EVENTS) {
            self.plan(period, Event::Fork(ino));
        }
        if runs && total < PROCESSES {
            let child = self.add_process(groups, Nature { leaderless: false, ..nature }, None);
            self.note(|| format!("({ino} forks {child})"));
        }
    }

    /// The reap that signals a process: one of its targets' that has listed it, the acting one first if it is one of these.
    /// One that signals in parts may have opened it before another has read anything, and may not have come to the end of its
    /// list.
    fn signalling(&mut self, ino: u64) -> Option<usize> {
        let acting = self.acting?;
        let process = self.processes.iter().find(|process| process.ino == ino)?;
        let members_of = || process.member.iter().map(|&(target, _)| target);
        let first = Some(acting).filter(|&target| process.was_ever_in(target));
        let targets = || first.into_iter().chain(members_of()).filter(|&target| !self.is_alone(target));
        let has_listed = targets().find(|&target| process.listed.has(Some(target)));
        has_listed.or_else(|| targets().next()).or(Some(acting))
    }

    pub(super) fn deliver(&mut self, ino: u64, signal: i32) {
        let by = self.signalling(ino);
        self.deliver_by(by, ino, signal);
    }

    /// The same, by the reap of this target.
    fn deliver_by(&mut self, acting: Option<usize>, ino: u64, signal: i32) {
        self.note(|| format!("signal {signal} to {ino}"));
        let step = self.step;
        // The caller may have moved in a moment ago. The history goes on all the same.
        let Some(process) = self.process(ino).filter(|process| process.pid != SELF) else { return };
        // A process that was exiting before cannot have been listed: a stated limitation.
        if process.life == Life::Alive {
            process.signalled.add(acting);
        }
        match signal {
            libc::SIGKILL => process.killed = true,
            libc::SIGSTOP => process.stopped = true,
            libc::SIGCONT => process.stopped = false,
            libc::SIGTERM => process.termed = Some(step),
            _ => {}
        }
        self.changed();
    }

    /// The write to `cgroup.kill`.
    pub(super) fn cgroup_kill(&mut self, group: GroupId) {
        // A helper thread's write is for the reap of this group, whichever acted last.
        self.acting = self.groups[group].target.or(self.acting);
        let since = if self.on_helper_thread { self.kill_left_in } else { self.step };
        let members: Vec<(u64, bool)> =
            self.members_below(group).map(|p| (p.ino, p.nature.leaderless)).collect();
        for (ino, leaderless) in members {
            self.check_signal(ino, libc::SIGKILL, "cgroup.kill");
            // A member that joined after the list before this call may exit, and not be listed, before the next.
            let acting = self.acting;
            if let Some(process) = self.processes.iter_mut().find(|p| p.ino == ino && p.moved >= since) {
                process.omitted.add(acting);
            }
            // It goes to the leader, which wakes no other thread.
            if !leaderless {
                self.deliver_by(self.acting, ino, libc::SIGKILL);
            }
        }
    }

    pub(super) fn signal(&mut self, ino: u64, signal: i32, how: &str) -> io::Result<()> {
        let foreign = self.process(ino).ok_or_else(|| errno(libc::ESRCH))?.nature.foreign;
        self.check_signal(ino, signal, how);
        let result =
            if foreign { Err(self.refuse(how, libc::EPERM)) } else { self.fail(how, &[libc::EPERM]) };
        match &result {
            Ok(()) => self.deliver(ino, signal),
            Err(_) => self.process(ino).expect("just seen").refused = true,
        }
        result
    }
}
