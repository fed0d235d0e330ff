//! What a history must come to: what a completion may say, and by when things are done.

use std::time::Duration;

use super::kernel::{self, CPU, FREEZER, FrozenBy, GroupId, Life, Nature, SELF, Target, V2, World};
use super::reactors::REMOVAL;
use super::reap::Reap;
use super::{History, MS};
use crate::outcome::{Outcome, ReapError, Reaped, Refusal, Survivor};
use crate::reaper::{KillMethod, Reaper};

/// What a failed call may cost, by the library's own promise.
const RETRY: Duration = Duration::from_millis(100);

/// For how long an act is refused until that is final.
const REFUSED_FOR: Duration = Duration::from_millis(850);

/// The longest time between two checks of a freeze under way.
const PROBE: Duration = Duration::from_millis(100);

/// How much later a wake-up can be where other parties keep the loop busy, twice.
const LAG: Duration = Duration::from_millis(100);

impl History {
    // --- By when ----------------------------------------------------------------------------------------

    /// How long others have kept the loop busy since, while some reap was to go on at once: what is cut into parts goes on in the
    /// turns that follow, between which others take their time.
    fn taken_since(&self, since: Duration) -> Duration {
        self.taken.iter().filter(|(at, _)| *at >= since).map(|(_, taken)| *taken).sum()
    }

    /// What should have happened by now.
    pub(super) fn late(&self, now: Duration) -> Option<String> {
        let world = self.sim.0.borrow();
        let lag = if self.quiet { Duration::ZERO } else { LAG };
        for (of, reap) in
            self.reaps.iter().enumerate().filter(|(_, reap)| reap.handle.is_some() && !reap.done)
        {
            let began = reap.spawned + reap.queued_for.unwrap_or_default();
            // The loop may also be late in taking a reap from the queue.
            let lag = if reap.queued_for.is_some() { lag * 3 / 2 } else { lag };
            let Reaper { deadline, min_wait, freeze_timeout, .. } = reap.reaper;
            let end = |span: Duration| began.saturating_add(span);
            let frozen = world.groups.iter().filter(|group| {
                group.target == Some(of) && group.frozen == Some(FrozenBy::Library) && !group.removed
            });
            // A freeze of ours ends in time. Each of some thaws may fail.
            let is_long = |group: &&kernel::Group| {
                let failed = RETRY * group.thaws_failed.min(15);
                let ends = group.frozen_at.saturating_add(freeze_timeout);
                now > ends + RETRY + lag + failed + self.taken_since(group.frozen_at)
            };
            if let Some(group) = frozen.clone().find(|group| is_long(group)) {
                return Some(format!("reap {of}: frozen since {:?}", group.frozen_at));
            }
            // A deadline is kept, whatever fails, but for a freeze that cannot be undone.
            // As long as calls fail, it does not know that others have undone its freeze.
            let to_be_thawed =
                world.groups.iter().any(|group| group.target == Some(of) && group.to_be_thawed);
            // Nor does it know at once that the frozen directory was removed, if it is lost.
            let refused = if self.is_lost(&world, of) { REFUSED_FOR } else { Duration::ZERO };
            let told = if to_be_thawed { world.failed_at + refused } else { Duration::ZERO };
            let is_late = |end: Duration| {
                let end = end.max(told);
                now > end + RETRY + lag + self.taken_since(end)
            };
            if deadline.is_some_and(|deadline| is_late(end(deadline))) {
                return Some(format!("reap {of}: the deadline is not kept"));
            }
            // SIGKILL is sent in time once nothing fails any more.
            let Some(due) = reap.kills_at() else { continue };
            // The loop may be late at the end of the linger, too.
            let lag = if reap.reaper.linger.is_some() { lag * 2 } else { lag };
            let fails = if self.quiet { Duration::ZERO } else { world.failed_at };
            // `cgroup.kill` is not written while the caller is inside.
            let caller = world.caller();
            let by_cgroup_kill = match reap.reaper.method {
                KillMethod::CgroupKill => true,
                KillMethod::Auto => {
                    world.targets[of].tops.iter().any(|&top| world.groups[top].hierarchy == V2)
                }
                _ => false,
            };
            let is_kept_off = by_cgroup_kill && caller.was_ever_in(of);
            let fails = if is_kept_off { fails.max(caller.moved_at) } else { fails };
            let method_may = world.features.pidfd && reap.reaper.method != KillMethod::Freezer;
            let taken = self.taken_since(due.max(fails));
            if method_may && now > due.max(fails).saturating_add(min_wait.min(10 * MS)) + RETRY + lag + taken
            {
                // A member without a leader has to wait until it is signalled, after some attempts by `cgroup.kill`.
                let may_wait = |process: &kernel::Process| {
                    process.nature.leaderless && reap.reaper.method == KillMethod::Auto || process.unlisted
                };
                if let Some(spared) = self.spared(&world, of, due.min(fails.max(began)), may_wait) {
                    return Some(format!("reap {of}: {spared} was sent no SIGKILL in time"));
                }
            }
        }
        None
    }

    /// A reap that should be over by now.
    pub(super) fn overdue(&self, now: Duration) -> Option<usize> {
        let bound = |reap: &Reap| {
            let Reaper { max_wait, freeze_timeout, .. } = &reap.reaper;
            let (linger, grace) = reap.waits();
            let period = linger + grace;
            // External freezes are looked for in a fourth of the attempts, and some refusals are waited for.
            *max_wait * 6 + *freeze_timeout * 2 + period + 2000 * MS
        };
        // A signalled process may have been moved to where another reap has to kill it.
        let bound = self.reaps.iter().map(bound).max().unwrap_or_default();
        let late = |reap: &Reap| {
            let since = self.calm_at.max(reap.spawned) + reap.queued_for.unwrap_or_default();
            // One that only waits is told to end.
            let told = reap.kill_at.or(reap.reaper.deadline.map(|deadline| reap.spawned + deadline));
            let since = since.max(told.filter(|_| reap.reaper.when_empty).unwrap_or_default());
            // Where nothing fails a cancel takes effect, once it has left the queue.
            let cancel = reap.cancel_at.filter(|_| self.quiet && reap.cancelled && reap.queued.is_none());
            let cancel = cancel.map(|at| at.max(reap.spawned + reap.queued_for.unwrap_or_default()));
            let missed = cancel.is_some_and(|end| now > end + 50 * MS);
            !reap.done && (self.calm && now > since + bound || missed)
        };
        self.reaps.iter().position(late)
    }

    // --- What a completion must be -----------------------------------------------------------------------

    pub(super) fn complete(&mut self, of: usize, result: &Result<Reaped, ReapError>) {
        if std::mem::replace(&mut self.reaps[of].done, true) {
            return;
        }
        self.sim.0.borrow_mut().note(|| format!("reap {of}: {result:?}"));
        let problem = match result {
            Ok(reaped) => self.judge_success(of, reaped.outcome),
            Err(error) => self.judge_error(of, error),
        };
        if let Some(problem) = problem {
            self.problem(format!("reap {of}: {problem}: {result:?}"));
        }
        let world = self.sim.0.borrow();
        let released = match result {
            Ok(reaped) => reaped.released,
            Err(error) => error.effort().unwrap_or_default().released,
        };
        let most = if self.reaps[of].reaper.release_memory { world.released.len() as u64 } else { 0 };
        if released > most {
            drop(world);
            return self
                .problem(format!("reap {of}: the memory of {released} processes released, not of {most}"));
        }
        let refused = world.refused_in == world.step;
        drop(world);
        // "Save a freeze that the process lost the right to undo."
        if !refused {
            self.check_thawed(of);
        }
        self.sim.0.borrow_mut().targets[of].live = false;
        if self.calm {
            // What others have frozen in it is no longer the library's to thaw.
            self.sim.0.borrow_mut().thaw();
        }
        let reap = &self.reaps[of];
        if reap.reaper.when_empty && reap.told_to_kill.is_none() {
            let world = self.sim.0.borrow();
            let signalled = world.processes.iter().find(|process| process.signalled.has(Some(of)));
            let signalled = signalled.map(|process| process.ino);
            drop(world);
            if let Some(ino) = signalled {
                self.problem(format!("reap {of} has signalled {ino}, and was only to wait"));
            }
        }
    }

    pub(super) fn check_thawed(&mut self, of: usize) {
        let world = self.sim.0.borrow();
        let frozen = world.groups.iter().position(|group| {
            group.target == Some(of) && group.frozen == Some(FrozenBy::Library) && !group.removed
        });
        drop(world);
        if let Some(group) = frozen {
            self.problem(format!("reap {of} left group {group} frozen"));
        }
    }

    /// How long it may take until a reap whose target empties in mid-freeze checks it. The kernel does not tell of a freeze's
    /// progress, so a freeze is checked after 1 ms, 2 ms, 4 ms and so on: after no longer than it has lasted by then.
    fn probe_of_freeze(&self, world: &World, of: usize) -> Duration {
        let (spawned, emptied) = (self.reaps[of].spawned, world.targets[of].populated_at);
        let freezes = world.groups.iter().filter(|group| {
            let is_its = group.target == Some(of) && group.frozen_at >= spawned;
            is_its && group.frozen_at <= emptied && group.frozen_until >= emptied
        });
        let lasted = freezes.map(|group| emptied - group.frozen_at).max();
        lasted.map_or(Duration::ZERO, |lasted| (lasted + MS).min(PROBE))
    }

    fn judge_success(&self, of: usize, outcome: Outcome) -> Option<String> {
        let world = self.sim.0.borrow();
        let Target { tops, .. } = &world.targets[of];
        for process in &world.processes {
            let inside = |hierarchy: usize| world.groups[process.groups[hierarchy]].target == Some(of);
            // The kernel tells of them on v2, unless another party has removed the directory.
            let is_told = inside(V2) && !world.groups[process.groups[V2]].removed;
            let hidden = world.features.exiting_unlisted && process.life == Life::Exiting && !is_told;
            let unknown = process.moved == world.step && outcome != Outcome::Removed
                || hidden && !process.is_known(Some(of))
                || process.nature.unmapped && !inside(V2);
            if process.life != Life::Dead && (inside(FREEZER) || inside(CPU) || inside(V2)) && !unknown {
                return Some(format!("{} lives", process.ino));
            }
        }
        // The kernel tells, at once or after its throttle, where there is a descriptor left to hear it with.
        let late = world.now.saturating_sub(world.targets[of].populated_at.max(self.reaps[of].spawned));
        // A helper thread removes one directory after the other.
        let helped = if self.helped { REMOVAL * tops.len() as u32 } else { Duration::ZERO };
        let queued = self.reaps[of].queued_for.unwrap_or_default();
        let most = (25 * MS).max(self.probe_of_freeze(&world, of)) + queued + helped;
        if self.quiet && self.roomy && !world.has_unmapped && world.features.pidfd && late > most {
            return Some(format!("noticed {late:?} late"));
        }
        let removed = tops.iter().all(|&top| world.groups[top].removed);
        let reap = &self.reaps[of];
        let right = match outcome {
            Outcome::Removed => removed && !tops.is_empty(),
            Outcome::Emptied => reap.reaper.keep_dir,
            Outcome::AlreadyGone => removed && !reap.found,
        };
        (!right).then(|| "not so".into())
    }

    fn judge_error(&self, of: usize, error: &ReapError) -> Option<String> {
        let world = self.sim.0.borrow();
        let reap = &self.reaps[of];
        let allowed = match error {
            ReapError::Cancelled { .. } => reap.cancelled,
            // Found out after the spawn.
            ReapError::Refused { refusal: Refusal::OwnCgroup { .. }, .. } => {
                let is_signalled = |process: &kernel::Process| process.signalled.has(Some(of));
                world.caller().was_ever_in(of) && !world.processes.iter().any(is_signalled)
            }
            ReapError::Replaced { .. } => world.targets[of].remade,
            ReapError::Denied { source, .. } => {
                // The last error is reported: that of the name, or of a call that was refused just now.
                let is_reported = source.raw_os_error() == Some(libc::ESTALE)
                    || world.refusals.last().is_some_and(|(at, _)| *at == world.now);
                self.may_be_denied(&world, of) || is_reported && self.is_lost(&world, of)
            }
            // A cgroup inside of one target is outside of another.
            ReapError::FrozenByAncestor { .. } => {
                // A look in steps may have found one that ended since.
                let until = |group: &kernel::Group| match group.frozen {
                    Some(_) if !group.removed => world.now,
                    _ => group.frozen_until,
                };
                let is_outside =
                    |group: &kernel::Group| group.hierarchy == FREEZER && group.target != Some(of);
                let mut outside = world.groups.iter().filter(|group| is_outside(group));
                let has_lasted = world.now >= reap.spawned.saturating_add(reap.reaper.freeze_timeout);
                has_lasted && outside.any(|group| until(group) + LAG >= world.now)
            }
            ReapError::TimedOut { survivors, source, .. } => {
                if let Some(pid) = self.misnamed(&world, of, survivors) {
                    return Some(format!("{pid} is named, and is no survivor"));
                }
                let deadline = reap.reaper.deadline.map(|deadline| reap.spawned + deadline);
                let due = deadline.is_some_and(|deadline| world.now >= deadline);
                // A kill that failed at the deadline, or went by a list with nonsense in it, is all that is owed.
                let sound = deadline.is_some_and(|deadline| world.failed_at < deadline);
                // Where a directory cannot be reached, it may not be known whether the caller is inside: the reap says so.
                let is_held_off = self.is_lost(&world, of)
                    && source.as_ref().is_some_and(|source| source.kind() == std::io::ErrorKind::Other);
                let sound = sound && !is_held_off;
                // One that was only told to kill at the deadline may have missed that.
                let kills = reap.kills_at().is_some_and(|at| !reap.reaper.when_empty || Some(at) < deadline);
                if due && sound && kills && world.features.pidfd {
                    // Threads are listed in every fourth attempt; after a write to `cgroup.kill` also at a deadline before.
                    let is_let =
                        world.refusals.iter().all(|(at, call)| *at < reap.spawned || call != "write");
                    let is_first = error.effort().is_some_and(|effort| effort.attempts <= 3);
                    let is_found = is_let && is_first && self.covers(&world, of) && tells_processes(&world);
                    let may_wait = |process: &kernel::Process| process.unlisted && !is_found;
                    if let Some(spared) = self.spared(&world, of, deadline.unwrap_or_default(), may_wait) {
                        return Some(format!("{spared} was sent no SIGKILL"));
                    }
                }
                due
            }
            _ => false,
        };
        (!allowed).then(|| "no reason for that".into())
    }

    /// Whether some directory of a target may not be reached, though it may be there. By path, nothing tells whether a v1 directory
    /// was removed whose parent was removed, too, or is not known: before Linux 5.8 it is not, if the directory was removed amid the
    /// spawn.
    fn is_lost(&self, world: &World, of: usize) -> bool {
        let is_lost = |&top: &GroupId| {
            let kernel::Group { hierarchy, parent, removed, .. } = world.groups[top];
            let is_above_removed = parent.is_some_and(|parent| world.groups[parent].removed);
            let is_above_known = !is_above_removed && world.features.cgroup_kill;
            hierarchy != V2 && removed && !is_above_known
        };
        let by_path = !world.handles || !world.targets[of].may_be_renamed;
        by_path && world.targets[of].tops.iter().any(is_lost)
    }

    /// Whether `cgroup.kill` can be written for all members of a target.
    fn covers(&self, world: &World, of: usize) -> bool {
        let is_v2 = |&top: &GroupId| world.groups[top].hierarchy == V2;
        self.reaps[of].reaper.method == KillMethod::Auto
            && world.features.cgroup_kill
            && world.targets[of].tops.iter().all(is_v2)
    }

    /// Whether a reap may end as `Denied`: what it needs is not there, or calls were refused for long enough.
    fn may_be_denied(&self, world: &World, of: usize) -> bool {
        let Reap { reaper, spawned, .. } = &self.reaps[of];
        let insists = matches!(reaper.method, KillMethod::Freezer | KillMethod::CgroupKill);
        // `cgroup.kill` reaches members that may not be signalled.
        let covers = self.covers(world, of);
        let counts = |call: &str| !covers || !matches!(call, "pidfd_send_signal" | "kill");
        let of_it = world.refusals.iter().filter(|(at, call)| at >= spawned && counts(call));
        let refusals: Vec<Duration> = of_it.map(|(at, _)| *at).collect();
        let lasted = |first: &Duration| world.now - *first >= 850 * MS;
        // `cgroup.kill` alone reaches a process of another pid namespace; nothing else one whose threads do not lead to it.
        let writes =
            world.features.cgroup_kill && matches!(reaper.method, KillMethod::Auto | KillMethod::CgroupKill);
        let Target { has_unmapped, has_unlisted, .. } = world.targets[of];
        let is_beyond = has_unmapped || has_unlisted && !tells_processes(world);
        let cannot_reach = !writes && lasted(spawned) && is_beyond;
        world.refused
            || insists
            || cannot_reach
            || refusals.len() >= 5 && refusals.first().is_some_and(lasted)
    }

    /// A pid that is named among the survivors and is not that of a member, or of a process that the reap signalled,
    /// which lives; or is described by the /proc of another pid namespace. Where other parties act between the calls of a
    /// step, one may have died after it was named; where calls fail, one may have that the reap has listed or signalled, and cannot ask.
    fn misnamed(&self, world: &World, of: usize, survivors: &[Survivor]) -> Option<i32> {
        // One that was listed or signalled, and cannot be asked whether it is dead.
        let is_unsure = |known: kernel::Reaps| known.has(Some(of)) && world.failed_at == world.now;
        let survives = |p: &kernel::Process| {
            // One that has left is waited for only where it cannot be told that it lives.
            let is_known = p.signalled.has(Some(of)) || p.listed.has(Some(of));
            let is_told = world.vantage.proc == kernel::Proc::Own && world.failed_at != world.now;
            let is_waited_for = p.life != Life::Alive || p.killed || !is_told;
            let is_own = p.was_in(of, world.step) || is_known && is_waited_for;
            is_own && (p.life != Life::Dead || is_unsure(p.signalled) || is_unsure(p.listed))
        };
        let is_named = |pid: i32| {
            world.processes.iter().any(|p| p.pid == pid && survives(p))
                || world.waited_for.iter().any(|&(known, signalled)| known == pid && is_unsure(signalled))
        };
        let is_foreign = world.vantage.proc != kernel::Proc::Own;
        if let Some(described) = survivors.iter().find(|survivor| is_foreign && survivor.state.is_some()) {
            return Some(described.pid);
        }
        let mut named = survivors.iter().map(|survivor| survivor.pid).filter(|_| world.churn == 0);
        // A pid of 0 is an unmapped one.
        named.find(|&pid| pid != 0 && !is_named(pid))
    }

    /// A member since before `due` that a reap should have killed, and has not; none that may wait for it.
    fn spared(
        &self,
        world: &World,
        of: usize,
        due: Duration,
        may_wait: impl Fn(&kernel::Process) -> bool,
    ) -> Option<u64> {
        let method = self.reaps[of].reaper.method;
        let caller = world.processes.iter().find(|process| process.pid == SELF);
        // Inside, or a moment ago.
        let inside = |p: &kernel::Process| p.moved == world.step || world.targets_of(p).any(|t| t == of);
        if method == KillMethod::CgroupKill && caller.is_some_and(inside) {
            return None;
        }
        let spared = |p: &&kernel::Process| {
            let Nature { unmapped, foreign, leaderless, .. } = p.nature;
            let beyond = unmapped
                || foreign
                || p.refused
                || leaderless && method == KillMethod::CgroupKill
                || may_wait(p)
                || p.pid == SELF;
            let denied =
                method == KillMethod::CgroupKill && p.groups.iter().any(|&group| world.groups[group].denied);
            let member = world.targets_of(p).any(|target| target == of);
            // A thaw may hold up the end; no process is killed in the meantime.
            let late = p.moved == world.step || p.moved_at >= due;
            p.life == Life::Alive && member && !p.killed && !late && !beyond && !denied
        };
        world.processes.iter().find(spared).map(|process| process.ino)
    }
}

/// Whether the process of a thread can be found out.
fn tells_processes(world: &World) -> bool {
    let has_proc = world.vantage.proc == kernel::Proc::Own && world.vantage.restricted.is_none();
    world.features.info || has_proc
}

/// Whether the caller is in the target, and has been for the whole step.
pub(super) fn holds_caller(world: &World, of: usize) -> bool {
    let caller = world.caller();
    caller.moved < world.step && world.targets_of(caller).any(|target| target == of)
}

/// Whether the target's directories lack what a method needs.
pub(super) fn lacks(world: &World, of: usize, method: KillMethod) -> bool {
    let tops = &world.targets[of].tops;
    let mut hierarchies = tops.iter().map(|&top| world.groups[top].hierarchy);
    match method {
        KillMethod::CgroupKill => !world.features.cgroup_kill || hierarchies.any(|hierarchy| hierarchy != V2),
        // Those that have one may have been removed before they were found.
        KillMethod::Freezer if tops.len() > 1 => {
            let freezes = |top: GroupId| matches!(world.groups[top].hierarchy, FREEZER | V2);
            !tops.iter().any(|&top| freezes(top) && !world.groups[top].removed)
        }
        KillMethod::Freezer => hierarchies.all(|hierarchy| hierarchy == CPU),
        _ => false,
    }
}
