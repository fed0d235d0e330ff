//! Whole reaps on a simulated kernel: machines, bookkeeping and the cgroup side, through histories that a seed
//! makes up, with the invariants checked after every step.
//!
//! A history has a hostile phase, in which calls fail and other parties meddle, and a calm one, by the end of
//! which every reap must be complete. `CGROUP_REAPER_HISTORIES=n` runs that many, `CGROUP_REAPER_SEED=s` the one
//! of that seed, with its log, and both together that many from that seed on.

mod agree;
mod judge;
mod kernel;
mod others;
mod scenes;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use self::kernel::{
    CPU, FREEZER, Features, FrozenBy, GroupId, MOUNTS, Nature, ROOTS, SELF, Sim, Target, V2, World,
};
use self::others::{some_nature, some_time};
use crate::cgroup::Notice;
use crate::cgroup::{Budget, Findings, Resolver};
use crate::entries::{Command, Entries, Host, Spawn};
use crate::entry_id::EntryId;
use crate::handle::{self, ReapHandle};
use crate::outcome::{ReapError, Refusal};
use crate::reaper::{CgroupOptions, KillMethod, Reaper, Signal};
use crate::remote::Queue;

const MS: Duration = Duration::from_millis(1);

/// Histories of a plain `cargo test`.
const HISTORIES: u64 = 2000;

/// System calls that one step of a reap may make in these small worlds.
const CALLS: u64 = 4000;

/// Descriptors that reaps share: two tell of the caller's own cgroups, and each hierarchy has one of its mount and one of
/// a parent.
const SHARED: usize = 2 + 2 * MOUNTS.len();

/// Turns that may follow one another without time passing.
const TURNS: usize = 300;

/// Calls that one turn may be cut into.
const PIECES: usize = 10;

/// One reap of a history.
struct Reap {
    reaper: Reaper,
    spawn_at: Duration,
    /// Spawned by another thread, it waits that long in the queue.
    queued_for: Option<Duration>,
    cancel_at: Option<Duration>,
    kill_at: Option<Duration>,
    /// Another party sends SIGKILL to the members then.
    empty_at: Option<Duration>,
    queued: Option<(Duration, Spawn<Sim>)>,
    handle: Option<ReapHandle>,
    spawned: Duration,
    /// Some directory was there at the spawn.
    found: bool,
    cancelled: bool,
    /// When it was told to send SIGKILL at once.
    told_to_kill: Option<Duration>,
    done: bool,
}

/// The loop around the entries.
struct EventLoop {
    sim: Sim,
    commands: VecDeque<Command<Sim>>,
    /// Entries that asked for notifications, in order.
    watched: RefCell<Vec<EntryId>>,
}

impl EventLoop {
    fn new(sim: &Sim) -> EventLoop {
        EventLoop { sim: sim.clone(), commands: VecDeque::new(), watched: RefCell::default() }
    }

    /// A whole turn.
    fn turn(&mut self, entries: &mut Entries<Sim>, tokens: Vec<usize>) {
        entries.begin_turn(tokens.into_iter().filter_map(EntryId::from_token));
        while entries.advance(self) {}
    }
}

impl Host<Sim> for EventLoop {
    fn watch(&self, fd: &kernel::Fd, id: EntryId, _: Notice) -> io::Result<()> {
        self.watched.borrow_mut().push(id);
        self.sim.register(fd, id.token())
    }

    fn next_command(&mut self) -> Option<Command<Sim>> {
        self.commands.pop_front()
    }

    fn stop(&mut self) {}
}

struct History {
    sim: Sim,
    event_loop: EventLoop,
    entries: Option<Entries<Sim>>,
    budget: Budget,
    queue: Arc<Queue>,
    reaps: Vec<Reap>,
    calm_at: Duration,
    calm: bool,
    /// No other party acts, nothing fails.
    quiet: bool,
    /// There are descriptors for all.
    roomy: bool,
    /// So many descriptors, to the end.
    tight: Option<usize>,
    drop_at: Option<Duration>,
    /// So many calls of four have the shortest budget of time.
    limited: u8,
    rng: fastrand::Rng,
    /// Every token that was ever notified, to be given again.
    stale: Vec<usize>,
    problems: Vec<String>,
}

impl History {
    fn new(seed: u64, queue: &Arc<Queue>) -> History {
        let mut rng = fastrand::Rng::with_seed(seed);
        let features = Features::of(rng.usize(..Features::LEVELS));
        let mut world = World::new(rng.fork(), features);
        world.note(|| format!("{features:?}"));
        world.handles = rng.bool();
        let slices = ROOTS.map(|root| world.mkdir(root, "slice"));
        if rng.u8(..8) == 0 {
            world.set_frozen(slices[FREEZER], Some(FrozenBy::Others));
        }
        let start = world.now;
        let reaps: Vec<Reap> = (0..1 + rng.usize(..4) * rng.usize(..2))
            .map(|of| Reap::new(of, &mut world, &mut rng, slices))
            .collect();
        for _ in 0..rng.usize(..3) {
            world.add_process(slices, Nature::default(), None);
        }
        let hostile = rng.u8(..4) > 0;
        if hostile {
            world.faults = [0, 1, 4, 16, 64][rng.usize(..5)];
            world.churn = [0, 2, 8, 32][rng.usize(..4)];
            world.acts = rng.u32(..) & rng.u32(..) | rng.u32(..) & rng.u32(..1 << 16);
            if rng.u8(..4) == 0 {
                world.acts = others::EVERY_ACT;
            }
            world.others = others::act;
            world.plan_others(MS);
        }
        let descriptors = [0, 1, 4, 1000][rng.usize(..4)];
        // What all reaps share, and three more or a few.
        let tight = (rng.u8(..8) == 0).then(|| SHARED + 3 + rng.usize(..4));
        world.descriptor_limit = tight.unwrap_or(usize::MAX);
        let budget = Budget::new(descriptors);
        let calm_at = start + some_time(&mut rng, 60_000);
        let drop_at = (rng.u8(..12) == 0).then(|| start + some_time(&mut rng, 10_000));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let resolver = Resolver::new(sim.clone(), budget.clone());
        History {
            event_loop: EventLoop::new(&sim),
            sim,
            entries: Some(Entries::new(resolver)),
            budget,
            queue: Arc::clone(queue),
            reaps,
            calm_at,
            calm: false,
            quiet: !hostile,
            roomy: descriptors == 1000 && tight.is_none(),
            tight,
            drop_at,
            limited: [0, 0, 2, 4][rng.usize(..4)],
            rng,
            stale: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn now(&self) -> Duration {
        self.sim.0.borrow().now
    }

    fn problem(&mut self, what: String) {
        self.sim.0.borrow_mut().note(|| format!("PROBLEM: {what}"));
        self.problems.push(what);
    }

    /// Lets the library do something, and checks what it did.
    fn step(&mut self, act: impl FnOnce(&mut Entries<Sim>, &mut EventLoop)) {
        self.sim.0.borrow_mut().begin_step();
        self.continue_step(act);
    }

    /// The same in the step that is under way.
    fn continue_step(&mut self, act: impl FnOnce(&mut Entries<Sim>, &mut EventLoop)) {
        let Some(entries) = &mut self.entries else { return };
        act(entries, &mut self.event_loop);
        let (spawned, completed) = (entries.metrics.spawned, entries.metrics.completed);
        for of in 0..self.reaps.len() {
            if let Some(result) = self.reaps[of].handle.as_ref().and_then(ReapHandle::try_wait) {
                self.complete(of, &result);
            }
        }
        let done = self.reaps.iter().filter(|reap| reap.done && reap.handle.is_some()).count();
        let (len, world) = (self.entries.as_ref().map_or(0, Entries::len), self.sim.0.borrow());
        let (calls, descriptors) = (world.calls, world.descriptors);
        let violations = world.violations.clone();
        drop(world);
        self.problems.extend(violations);
        if completed != done as u64 || spawned != (len + done) as u64 {
            self.problem(format!("{completed} of {spawned} complete, {done} handles, {len} under way"));
        }
        if calls > CALLS {
            self.problem(format!("{calls} system calls in one step"));
        }
        // In the queue nothing is opened.
        if descriptors > self.budget.used() + SHARED {
            self.problem(format!("{descriptors} descriptors, {} of them permitted", self.budget.used()));
        }
    }

    /// Runs to the end, or to the first problem.
    fn run(&mut self) {
        let (mut last, mut turns) = (Duration::ZERO, 0);
        loop {
            self.begin();
            self.turn();
            if !self.problems.is_empty() {
                return;
            }
            if self.entries.is_none() || self.reaps.iter().all(|reap| reap.done) {
                return self.end();
            }
            let now = self.now();
            if let Some(late) = self.late(now) {
                return self.problem(late);
            }
            if let Some(of) = self.overdue(now) {
                let world = self.sim.0.borrow();
                let tell = |p: &kernel::Process| {
                    let targets: Vec<usize> = world.targets_of(p).collect();
                    format!(
                        "{} {:?} {targets:?} killed {} signalled {:?}",
                        p.ino, p.life, p.killed, p.signalled
                    )
                };
                let left: Vec<String> = world.processes.iter().map(tell).collect();
                drop(world);
                return self.problem(format!("reap {of} does not end in time: {left:#?}"));
            }
            turns = if now == last { turns + 1 } else { 0 };
            last = now;
            if turns > if self.limited > 0 { PIECES * TURNS } else { TURNS } {
                return self.problem(format!("{turns} turns and no time has passed"));
            }
            let Some(next) = self.next() else {
                return self.problem("nothing will ever happen again".into());
            };
            let mut world = self.sim.0.borrow_mut();
            // A loop may be busy with other things, though not between the calls of one turn.
            let in_turn = self.entries.as_ref().is_some_and(Entries::is_in_turn);
            let late = if world.churn > 0 && world.rng.u8(..4) == 0 && !in_turn {
                some_time(&mut world.rng, 50)
            } else {
                Duration::ZERO
            };
            world.advance(next.max(now) + late);
        }
    }

    /// When there is something to do next.
    fn next(&self) -> Option<Duration> {
        let entries = self.entries.as_ref()?;
        if entries.has_deferred() {
            return Some(self.now());
        }
        let spawns = self.reaps.iter().filter(|reap| !reap.is_spawned()).map(|reap| reap.spawn_at);
        let queued = self.reaps.iter().filter_map(|reap| reap.queued.as_ref().map(|(at, _)| *at));
        let pending = |reap: &&Reap| reap.handle.is_some() && !reap.done && !reap.cancelled;
        let cancels = self.reaps.iter().filter(pending).filter_map(|reap| reap.cancel_at);
        let kills = self.reaps.iter().filter(|reap| pending(reap) && reap.told_to_kill.is_none());
        let kills = kills.filter_map(|reap| reap.kill_at);
        let ends = self.reaps.iter().filter_map(|reap| reap.empty_at);
        spawns
            .chain(queued)
            .chain(cancels)
            .chain(kills)
            .chain(ends)
            .chain(entries.next_tick().map(Duration::from_millis))
            .chain(self.sim.0.borrow().next_event())
            .chain((!self.calm).then_some(self.calm_at))
            .chain(self.drop_at)
            .min()
    }

    /// What is due by the clock.
    fn begin(&mut self) {
        let now = self.now();
        if !self.calm && now >= self.calm_at {
            self.calm = true;
            let mut world = self.sim.0.borrow_mut();
            world.calm();
            world.descriptor_limit = self.tight.unwrap_or(usize::MAX);
        }
        if self.drop_at.is_some_and(|at| now >= at) {
            return self.abandon();
        }
        for of in 0..self.reaps.len() {
            let reap = &mut self.reaps[of];
            if !reap.is_spawned() && now >= reap.spawn_at {
                self.spawn(of);
            } else if let Some((_, spawn)) = reap.queued.take_if(|(at, _)| now >= *at) {
                self.event_loop.commands.push_back(Command::Spawn(Box::new(spawn)));
            }
            let reap = &mut self.reaps[of];
            if reap.empty_at.take_if(|at| now >= *at).is_some() {
                let mut world = self.sim.0.borrow_mut();
                let inside =
                    |p: &&kernel::Process| p.pid != SELF && world.targets_of(p).any(|target| target == of);
                let members: Vec<u64> = world.processes.iter().filter(inside).map(|p| p.ino).collect();
                world.note(|| format!("(the members of {of} are killed)"));
                members.into_iter().for_each(|ino| world.sigkill(ino));
            }
            // In any order with a cancel.
            if reap.kill_at.is_some_and(|at| now >= at) && !reap.done && reap.told_to_kill.is_none() {
                if let Some(handle) = &reap.handle {
                    reap.told_to_kill = Some(now);
                    let mut world = self.sim.0.borrow_mut();
                    let target = &mut world.targets[of];
                    target.not_before = target.not_before.min(now);
                    target.alone_until = target.alone_until.min(now);
                    world.note(|| format!("kill {of} now"));
                    drop(world);
                    handle.kill_now();
                    handle.kill_now();
                }
            }
            if reap.cancel_at.is_some_and(|at| now >= at) && !reap.done && !reap.cancelled {
                if let Some(handle) = &reap.handle {
                    reap.cancelled = true;
                    handle.cancel();
                }
            }
        }
    }

    fn spawn(&mut self, of: usize) {
        self.limit();
        let Some(entries) = &self.entries else { return };
        let now = self.now();
        let reap = &mut self.reaps[of];
        let mut world = self.sim.0.borrow_mut();
        world.begin_step();
        world.note(|| format!("spawn {of}: {:?}", reap.reaper));
        let end = |after: Option<Duration>| after.map_or(Duration::MAX, |after| now + after);
        let deadline = end(reap.reaper.deadline);
        let (linger, grace) = reap.waits();
        let (linger, grace) = (now.saturating_add(linger), now.saturating_add(linger).saturating_add(grace));
        (world.targets[of].alone_until, world.targets[of].not_before) = match reap.reaper.when_empty {
            true => (Duration::MAX, Duration::MAX),
            false => (linger.min(deadline), grace.min(deadline)),
        };
        world.targets[of].live = true;
        reap.spawned = now;
        world.claim(of);
        reap.found = !world.targets[of].tops.is_empty();
        drop(world);
        let resolved = entries.resolver.resolve(&reap.reaper);
        let mut world = self.sim.0.borrow_mut();
        world.targets[of].resolved = true;
        // Others may have been faster.
        reap.found &= tops_left(&world, of);
        drop(world);
        match resolved {
            Ok((target, findings)) => {
                self.sim.0.borrow_mut().targets[of].may_be_renamed = target.is_by_handle();
                let (completer, handle) = handle::channel(&self.queue);
                reap.handle = Some(handle);
                // Another thread's are not good here.
                let findings = if reap.queued_for.is_some() { Findings::default() } else { findings };
                let spawn = Spawn { reaper: reap.reaper.clone(), target, findings, completer };
                match reap.queued_for {
                    Some(wait) => reap.queued = Some((now + wait, spawn)),
                    // Its first step trusts the checks.
                    None => self.continue_step(|entries, event_loop| entries.spawn(spawn, event_loop)),
                }
            }
            Err(refusal) => {
                reap.done = true;
                let mut world = self.sim.0.borrow_mut();
                world.targets[of].live = false;
                world.note(|| format!("refused: {refusal}"));
                let caller = world.processes.iter().find(|p| p.pid == SELF).expect("it lives");
                let allowed = world.failed_in == world.step
                    || matches!(refusal, Refusal::Unsupported { .. })
                    || matches!(refusal, Refusal::OwnCgroup { .. }) && caller.moved > 1;
                drop(world);
                if !allowed {
                    self.problem(format!("refused for no reason: {refusal}"));
                }
            }
        }
    }

    /// The next call may work without limit, or do one piece of work.
    fn limit(&mut self) {
        let is_limited = self.limited > 0 && self.rng.u8(..4) < self.limited;
        if let Some(entries) = &mut self.entries {
            entries.limit(is_limited.then_some(Duration::ZERO));
        }
    }

    fn turn(&mut self) {
        let Some(entries) = &mut self.entries else { return };
        while let Some(command) = self.queue.pop() {
            self.event_loop.commands.push_back(match command {
                Command::Cancel(id) => Command::Cancel(id),
                Command::KillNow(id) => Command::KillNow(id),
                Command::Spawn(_) | Command::Stop => panic!("no handle sends that"),
            });
        }
        if !entries.is_in_turn() {
            let mut world = self.sim.0.borrow_mut();
            let mut tokens = world.take_notified();
            self.stale.extend(&tokens);
            if world.faults > 0 && world.rng.u8(..16) == 0 {
                tokens.extend(world.rng.choice(&self.stale));
                tokens.push(world.rng.usize(..));
            }
            drop(world);
            entries.begin_turn(tokens.into_iter().filter_map(EntryId::from_token));
        }
        let mut more = true;
        self.limit();
        while more && self.problems.is_empty() {
            self.step(|entries, event_loop| {
                more = entries.advance(event_loop) && !entries.is_out_of_time();
            });
        }
    }

    /// The reactor is dropped in mid-run.
    fn abandon(&mut self) {
        self.sim.0.borrow_mut().begin_step();
        self.sim.0.borrow_mut().note(|| "the reactor is dropped".into());
        self.entries = None;
        for of in 0..self.reaps.len() {
            let reap = &mut self.reaps[of];
            reap.queued = None;
            let Some(handle) = reap.handle.as_ref().filter(|_| !reap.done) else { continue };
            if !matches!(handle.try_wait(), Some(Err(ReapError::Disconnected { .. }))) {
                self.problem(format!("reap {of} is not disconnected"));
            }
            let world = self.sim.0.borrow();
            let failed = world.failed_in == world.step;
            drop(world);
            if !failed {
                self.check_thawed(of);
            }
        }
    }

    /// Nothing may be left of the reaps.
    fn end(&mut self) {
        self.entries = None;
        let left = self.sim.0.borrow().descriptors;
        if left + self.budget.used() > 0 {
            self.problem(format!("{left} descriptors left, {} permits", self.budget.used()));
        }
        let violations = self.sim.0.borrow().violations.clone();
        self.problems.extend(violations);
    }
}

impl Reap {
    /// A target of a random shape with random processes, and how it is reaped.
    fn new(of: usize, world: &mut World, rng: &mut fastrand::Rng, slices: [GroupId; 3]) -> Reap {
        let name = format!("t{of}");
        let mut hierarchies: Vec<usize> = [FREEZER, CPU, V2].into_iter().filter(|_| rng.bool()).collect();
        if hierarchies.is_empty() {
            hierarchies.push(rng.usize(..3));
        }
        let paths = hierarchies.iter().map(|&h| (slices[h], name.clone())).collect();
        world.targets.push(Target { paths, ..Target::default() });
        // What a hybrid machine has beside it, perhaps with other processes in it.
        let beside = ROOTS
            .map(|h| if rng.bool() { world.mkdir(slices[h], &format!("beside{of}")) } else { slices[h] });
        let mut inside: [Vec<GroupId>; 3] = Default::default();
        for &h in &hierarchies {
            if rng.u8(..16) == 0 {
                continue;
            }
            let top = world.mkdir(slices[h], &name);
            world.claim(of);
            inside[h].push(top);
            for child in 0..rng.usize(..4) * rng.usize(..2) {
                let parent = inside[h][rng.usize(..inside[h].len())];
                inside[h].push(world.mkdir(parent, &format!("c{child}")));
            }
        }
        for _ in 0..rng.usize(..6) {
            let groups = [FREEZER, CPU, V2].map(|h| match rng.u8(..8) {
                0 => beside[h],
                _ => rng.choice(inside[h].iter().copied()).unwrap_or(beside[h]),
            });
            let nature = some_nature(rng);
            let ino = world.add_process(groups, nature, None);
            world.note(|| format!("{ino} in {groups:?}: {nature:?}"));
            if let Some(process) = world.process(ino) {
                process.stopped = rng.u8(..8) == 0;
            }
        }
        if rng.u8(..6) == 0 {
            // Another process there.
            world.add_process(beside, Nature::default(), None);
        }
        for group in inside.into_iter().flatten().chain(beside) {
            if rng.u8(..12) == 0 && !slices.contains(&group) {
                world.set_frozen(group, Some(FrozenBy::Others));
            }
        }
        let reaper = Reap::settings(of, &hierarchies, &name, rng);
        let spawn_at = world.now + some_time(rng, 100);
        // One that only waits may have to wait for ever.
        let is_told =
            if reaper.when_empty { reaper.deadline.is_none() || rng.bool() } else { rng.u8(..8) == 0 };
        let kill_at = is_told.then(|| spawn_at + some_time(rng, 8000));
        let ends = rng.u8(..8) == 0 || reaper.when_empty && rng.bool();
        let empty_at = ends.then(|| spawn_at + some_time(rng, 4000));
        Reap {
            reaper,
            spawn_at,
            kill_at,
            empty_at,
            queued_for: (rng.u8(..4) == 0).then(|| some_time(rng, 20)),
            cancel_at: (rng.u8(..8) == 0).then(|| world.now + some_time(rng, 5000)),
            queued: None,
            handle: None,
            spawned: Duration::ZERO,
            found: false,
            cancelled: false,
            told_to_kill: None,
            done: false,
        }
    }

    fn settings(_of: usize, hierarchies: &[usize], name: &str, rng: &mut fastrand::Rng) -> Reaper {
        let mut reaper = match hierarchies {
            [only] if rng.bool() => Reaper::at(format!("{}/slice/{name}", MOUNTS[*only])),
            [only] if rng.bool() => Reaper::new(CgroupOptions::new(MOUNTS[*only]).slice("slice"), name),
            several => {
                let mounts = several.iter().map(|&h| PathBuf::from(MOUNTS[h]));
                let names = mounts.map(|mount| mount.file_name().map(PathBuf::from).unwrap_or_default());
                let options = CgroupOptions::new("/sys/fs/cgroup").slice("slice").subsystems(names);
                Reaper::new(options, name)
            }
        };
        if rng.u8(..3) == 0 {
            let min = MS * rng.u32(1..20);
            let max = min + some_time(rng, 10_000);
            reaper = reaper.min_wait(min).max_wait(max).freeze_timeout(some_time(rng, 10_000));
        }
        if rng.u8(..12) == 0 {
            let hours = 3_600_000 * MS;
            reaper = reaper.max_wait(hours).min_wait([hours, MS][rng.usize(..2)]);
        }
        if rng.u8(..4) == 0 {
            reaper = reaper.grace(Signal::TERM, some_time(rng, 2000));
        }
        if rng.u8(..5) == 0 {
            reaper = reaper.linger(some_time(rng, 2000));
        }
        if rng.u8(..5) == 0 {
            reaper = reaper.when_empty();
        }
        if rng.u8(..4) == 0 {
            reaper = reaper.deadline(some_time(rng, 20_000));
        }
        if rng.u8(..6) == 0 {
            reaper = reaper.keep_dir();
        }
        let method = match rng.u8(..6) {
            0 => KillMethod::Pidfd,
            1 => KillMethod::Freezer,
            2 => KillMethod::CgroupKill,
            _ => KillMethod::Auto,
        };
        reaper.method(method)
    }

    /// How long it lingers, and its grace period after that.
    fn waits(&self) -> (Duration, Duration) {
        let Reaper { linger, grace, .. } = self.reaper;
        (linger.unwrap_or_default(), grace.map_or(Duration::ZERO, |(_, period)| period))
    }

    /// The latest time at which it sends SIGKILL, if nothing fails; `None` if it sends none.
    fn kills_at(&self) -> Option<Duration> {
        let began = self.spawned + self.queued_for.unwrap_or_default();
        let told = self.told_to_kill.map(|at| at.max(began));
        if self.reaper.when_empty {
            return told;
        }
        let (linger, grace) = self.waits();
        let by_itself = linger.saturating_add(grace).min(self.reaper.deadline.unwrap_or(Duration::MAX));
        let by_itself = began.saturating_add(by_itself);
        Some(told.map_or(by_itself, |told| told.min(by_itself)))
    }

    /// Whether it was handed over, refused included.
    fn is_spawned(&self) -> bool {
        self.handle.is_some() || self.done
    }
}

/// Whether one of the target's directories is there.
fn tops_left(world: &World, of: usize) -> bool {
    world.targets[of].tops.iter().any(|&top| !world.groups[top].removed)
}

/// What went wrong in the history of a seed, and its log if that is wanted.
fn run(seed: u64, logged: bool, queue: &Arc<Queue>) -> (Option<String>, String) {
    kernel::LOG.set(logged.then(String::new));
    let mut history = History::new(seed, queue);
    history.run();
    while queue.pop().is_some() {}
    (history.problems.into_iter().next(), kernel::LOG.take().unwrap_or_default())
}

/// Takes what the library logs into the log of the history.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        kernel::LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                let _ = writeln!(log, "{:>17} {}", "-", record.args());
            }
        });
    }

    fn flush(&self) {}
}

fn queue() -> (mio::Poll, Arc<Queue>) {
    let poll = mio::Poll::new().expect("epoll");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("eventfd");
    (poll, Arc::new(Queue::new(waker)))
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

#[test]
fn invariants_hold_in_every_history() {
    let (seed, histories) = (variable("CGROUP_REAPER_SEED"), variable("CGROUP_REAPER_HISTORIES"));
    if let (Some(seed), None) = (seed, histories) {
        // Another test may have set one.
        let _ = log::set_logger(&Logger);
        log::set_max_level(log::LevelFilter::Trace);
        let (_poll, queue) = queue();
        let (problem, log) = run(seed, true, &queue);
        println!("{log}");
        assert!(problem.is_none(), "history {seed}: {}", problem.unwrap_or_default());
        return;
    }
    let (first, histories) = (seed.unwrap_or(0), histories.unwrap_or(HISTORIES));
    let next = AtomicU64::new(first);
    let failures = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let (_poll, queue) = queue();
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed - first >= histories {
                        return;
                    }
                    if let (Some(problem), _) = run(seed, false, &queue) {
                        failures.lock().expect("no panic").insert(seed, problem);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let Some((first, _)) = failures.first_key_value() else { return };
    // Alike but for the numbers.
    let mut kinds: BTreeMap<String, (&String, Vec<u64>)> = BTreeMap::new();
    for (seed, problem) in &failures {
        let kind = problem.chars().filter(|c| !c.is_ascii_digit()).take(80).collect();
        kinds.entry(kind).or_insert((problem, Vec::new())).1.push(*seed);
    }
    let mut text = String::new();
    for (problem, seeds) in kinds.values() {
        let _ =
            writeln!(text, "{} of {histories}, {:?}: {problem}", seeds.len(), &seeds[..seeds.len().min(8)]);
    }
    panic!("{text}reproduce: CGROUP_REAPER_SEED={first} cargo test --lib invariants -- --nocapture");
}
