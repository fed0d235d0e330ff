//! Time passes: what is planned happens, notifications come, and in the end all is calm.

use std::time::Duration;

use super::{CPU, Event, FREEZER, FrozenBy, GroupId, Life, Object, Proc, SELF, THROTTLE, V2, World};

impl World {
    pub(super) fn notify(&mut self, group: GroupId) {
        if !std::mem::replace(&mut self.groups[group].notify_pending, true) {
            let due = self.groups[group].notified + THROTTLE;
            self.plan(due.saturating_sub(self.now), Event::Notify(group));
        }
    }

    pub(super) fn plan(&mut self, delay: Duration, event: Event) {
        self.planned += 1;
        self.agenda.insert((self.now + delay, self.planned), event);
    }

    /// Has another party act after a while, and again after a while.
    pub(crate) fn plan_others(&mut self, delay: Duration) {
        if self.acts != 0 {
            self.plan(delay, Event::Others);
        }
    }

    /// When something happens next.
    pub(crate) fn next_event(&self) -> Option<Duration> {
        if self.notified.is_empty() { self.agenda.keys().next().map(|(at, _)| *at) } else { Some(self.now) }
    }

    /// Lets time pass up to `until`.
    pub(crate) fn advance(&mut self, until: Duration) {
        while let Some((&(at, number), &event)) =
            self.agenda.iter().next().filter(|((at, _), _)| *at <= until)
        {
            self.agenda.remove(&(at, number));
            self.now = self.now.max(at);
            match event {
                Event::Exited(ino) => {
                    let Some(process) = self.process(ino) else { continue };
                    process.life = Life::Dead;
                    let groups = process.groups;
                    for target in groups.map(|group| self.groups[group].target).into_iter().flatten() {
                        self.targets[target].populated_at = self.now;
                    }
                    self.note(|| format!("({ino} is dead)"));
                    self.wake(&Object::Pidfd(ino));
                    self.changed();
                    let soon = if self.rng.bool() { Duration::ZERO } else { THROTTLE };
                    self.plan(self.wait_after.unwrap_or(soon), Event::Reaped(ino));
                }
                Event::Reaped(ino) => self.reap(ino),
                Event::Fork(ino) => self.fork(ino),
                Event::Notify(group) => {
                    self.groups[group].notify_pending = false;
                    self.groups[group].notified = self.now;
                    // cgroup_rm_file cancels what is pending; and now and then one is lost for no reason.
                    if !self.groups[group].removed && self.rng.u8(..) >= self.faults {
                        self.wake(&Object::File(group, "cgroup.events"));
                    }
                }
                Event::Settle => self.changed(),
                Event::Others => {
                    (self.others)(self);
                    let delay = Duration::from_millis(1 + (self.rng.u64(..300) >> self.rng.u32(..8)));
                    self.plan_others(delay);
                }
            }
        }
        self.now = self.now.max(until);
    }

    pub(super) fn wake(&mut self, object: &Object) {
        let tokens: Vec<(usize, usize)> =
            self.watches.values().filter(|watch| watch.object == *object).map(|watch| watch.token).collect();
        for token in tokens {
            self.notified.push(token);
            if self.rng.u8(..) < self.faults {
                self.notified.push(token);
            }
        }
    }

    /// Tokens of a reactor to be woken now.
    pub(crate) fn take_notified(&mut self, reactor: usize) -> Vec<usize> {
        let (its, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.notified).into_iter().partition(|(of, _)| *of == reactor);
        self.notified = others;
        its.into_iter().map(|(_, token)| token).collect()
    }

    /// Ends all hostilities, and lets go whatever is held back.
    pub(crate) fn calm(&mut self) {
        self.note(|| "--- all is calm".into());
        (self.faults, self.churn, self.descriptor_limit) = (0, 0, usize::MAX);
        self.acts = 0;
        let own = [FREEZER, CPU, V2].map(|root| self.child(root, "own").expect("it is never removed"));
        self.groups.iter_mut().for_each(|group| (group.busy, group.denied) = (false, false));
        self.thaw();
        for at in 0..self.processes.len() {
            // Without a /proc that says so, a process that has left a target may be one that exits.
            let process = &self.processes[at];
            let has_left = |of: usize| {
                process.listed.has(Some(of)) && !self.targets_of(process).any(|target| target == of)
            };
            let is_waited_for = self.vantage.proc != Proc::Own && (0..self.targets.len()).any(has_left);
            let process = &mut self.processes[at];
            process.killed |= is_waited_for && process.pid != SELF;
            if process.pid == SELF && process.groups != own {
                (process.groups, process.moved_at) = (own, self.now);
            }
            // v1 does not list an unmapped process, and `cgroup.kill` does not reach one without a leader thread.
            process.killed |= process.nature.unmapped || process.nature.leaderless;
            process.nature.foreign = false;
            process.nature.stuck = false;
            process.nature.freeze = Duration::ZERO;
            if std::mem::take(&mut process.nature.hangs) && process.life == Life::Exiting {
                let ino = process.ino;
                self.plan(Duration::ZERO, Event::Exited(ino));
            }
        }
        self.changed();
    }

    /// Others thaw what the library is not to.
    pub(crate) fn thaw(&mut self) {
        for group in &mut self.groups {
            // Inside of a target it is for the library to undo, while its reap is under way and it can see which members are held.
            let reaped = group.target.is_some_and(|target| self.targets[target].live);
            let theirs = !reaped || self.has_unmapped;
            // A reap that lost the right to thaw has left it frozen, and other reaps may wait for the processes that it holds.
            if theirs && (group.frozen == Some(FrozenBy::Others) || !reaped) {
                group.note_frozen(self.now);
                group.frozen = None;
            }
        }
        self.changed();
    }
}
