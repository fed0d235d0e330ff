//! Whole reaps on a simulated kernel: machines, bookkeeping and the cgroup side, through histories that a seed
//! makes up, with the invariants checked after every step.
//!
//! A history has a hostile phase, in which calls fail and other parties meddle, and a calm one, by the end of
//! which every reap must be complete. `CGROUP_REAPER_HISTORIES=n` runs that many, `CGROUP_REAPER_SEED=s` the one
//! of that seed, with its log, and both together that many from that seed on.

mod addresses;
mod agree;
mod embedder;
mod helper;
mod judge;
mod kernel;
mod leaderless;
mod lists;
mod memory;
mod others;
mod reactors;
mod reap;
mod scenes;
mod shortage;
mod tracked;
mod vantage;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use self::judge::{holds_caller, lacks};
use self::kernel::{FIRST_INO, FREEZER, Features, FrozenBy, MOUNTS, Nature, ROOTS, SELF, Sim, World};
use self::others::some_time;
use self::reactors::{EventLoop, Reactor};
use self::reap::Reap;
use crate::cgroup::{Budget, Findings, Limit};
use crate::entries::{Command, Entries, Spawn};
use crate::entry_id::EntryId;
use crate::handle::{self, ReapHandle};
use crate::outcome::{Completed, ReapError, Refusal};
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

struct History {
    sim: Sim,
    /// Each reap is of the one that its number chooses.
    reactors: Vec<Reactor>,
    reaps: Vec<Reap>,
    calm_at: Duration,
    calm: bool,
    /// No other party acts, nothing fails.
    quiet: bool,
    /// There are descriptors for all.
    roomy: bool,
    /// So many descriptors, to the end.
    tight: Option<usize>,
    /// When the first reactor is dropped.
    drop_at: Option<Duration>,
    /// So many calls of four have the shortest budget of time.
    limited: u8,
    /// When others have kept the loop busy, and how long, while some reap was to go on at once.
    taken: Vec<(Duration, Duration)>,
    /// There are helper threads.
    helped: bool,
    rng: fastrand::Rng,
    problems: Vec<String>,
}

impl History {
    fn new(seed: u64, queues: &Queues) -> History {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut features = Features::of(rng.usize(..Features::LEVELS));
        // Of what came later, so that the seeds mean the same as before.
        let mut later = fastrand::Rng::with_seed(!seed);
        let (is_confined, has_two) = (later.u8(..6) == 0, later.u8(..8) == 0);
        if is_confined {
            vantage::limit(&mut features, &mut later);
        }
        let mut world = World::new(rng.fork(), features);
        world.note(|| format!("{features:?}"));
        world.handles = rng.bool();
        world.injects = fastrand::Rng::with_seed(!seed.rotate_left(32)).u8(..8) == 0;
        let slices = ROOTS.map(|root| world.mkdir(root, "slice"));
        if is_confined {
            vantage::mount(&mut world, &mut later, slices);
        }
        if rng.u8(..8) == 0 {
            world.set_frozen(slices[FREEZER], Some(FrozenBy::Others));
        }
        let start = world.now;
        let count = if has_two { 2 } else { 1 };
        let mut reaps: Vec<Reap> = (0..count.max(1 + rng.usize(..4) * rng.usize(..2)))
            .map(|of| Reap::new(of, &mut world, &mut rng, slices))
            .collect();
        for (of, reap) in reaps.iter_mut().enumerate().filter(|_| later.bool()) {
            reap.reaper = reap.reaper.clone().tag(of as u64);
        }
        let mut later_still = fastrand::Rng::with_seed(seed.rotate_left(32));
        for reap in reaps.iter_mut().filter(|_| later_still.u8(..3) == 0) {
            reap.reaper = reap.reaper.clone().release_memory();
        }
        for _ in 0..rng.usize(..3) {
            world.add_process(slices, Nature::default(), None);
        }
        if is_confined {
            vantage::enter(&mut world, &mut later);
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
        let is_tight = rng.u8(..8) == 0 || has_two && later.u8(..3) == 0;
        let tight = is_tight.then(|| count * SHARED + 3 + rng.usize(..4));
        if is_tight {
            reap::crowd(&mut world, &mut later);
        }
        world.descriptor_limit = tight.unwrap_or(usize::MAX);
        let budget = Budget::new(descriptors);
        let calm_at = start + some_time(&mut rng, 60_000);
        let drop_at = (rng.u8(..12) == 0).then(|| start + some_time(&mut rng, 10_000));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let budgets = [budget.clone(), budget.share()];
        let parts = budgets.into_iter().zip(queues).take(count).enumerate();
        let mut reactors: Vec<Reactor> =
            parts.map(|(of, (budget, (_, queue)))| Reactor::new(of, &sim, budget, queue)).collect();
        let helper_from = (later_still.u8(..3) == 0).then(|| later_still.usize(..4));
        for entries in reactors.iter_mut().filter_map(|reactor| reactor.entries.as_mut()) {
            entries.helper_from = helper_from;
        }
        let helped = helper_from.is_some();
        let limited = [0, 0, 2, 4][rng.usize(..4)];
        sim.0.borrow_mut().limited = limited > 0;
        History {
            sim,
            reactors,
            reaps,
            calm_at,
            calm: false,
            quiet: !hostile,
            roomy: descriptors == 1000 && tight.is_none(),
            tight,
            drop_at,
            limited,
            taken: Vec::new(),
            helped,
            rng,
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

    /// The reactor of a reap.
    fn reactor_of(&self, reap: usize) -> usize {
        reap % self.reactors.len()
    }

    /// Lets a reactor do something, and checks what it did.
    fn step(&mut self, reactor: usize, act: impl FnOnce(&mut Entries<Sim>, &mut EventLoop)) {
        self.sim.0.borrow_mut().begin_step();
        self.continue_step(reactor, act);
    }

    /// The same in the step that is under way.
    fn continue_step(&mut self, reactor: usize, act: impl FnOnce(&mut Entries<Sim>, &mut EventLoop)) {
        let Reactor { entries: Some(entries), event_loop, .. } = &mut self.reactors[reactor] else { return };
        act(entries, event_loop);
        let (spawned, completed, len) = (entries.metrics.spawned, entries.metrics.completed, entries.len());
        let (mut done, mut told) = (0, Vec::new());
        let drained: Vec<Completed> = std::iter::from_fn(|| entries.take_completed()).collect();
        for of in (0..self.reaps.len()).filter(|of| of % self.reactors.len() == reactor).collect::<Vec<_>>() {
            if let Some(result) = self.reaps[of].handle.as_ref().and_then(ReapHandle::try_wait) {
                let is_new = !self.reaps[of].done;
                self.complete(of, &result);
                done += 1;
                if is_new {
                    told.extend(self.reaps[of].reaper.tag.map(|tag| (tag, format!("{result:?}"))));
                }
            }
        }
        let tag = |ended: &Completed| (ended.tag, format!("{:?}", ended.result));
        let mut drained: Vec<(u64, String)> = drained.iter().map(tag).collect();
        drained.sort();
        if drained != told {
            self.problem(format!("{drained:?} are told to have ended, {told:?} have"));
        }
        let world = self.sim.0.borrow();
        let (calls, descriptors) = (world.calls, world.descriptors);
        let violations = world.violations.clone();
        drop(world);
        self.problems.extend(violations);
        if completed != done || spawned != len as u64 + done {
            self.problem(format!("{completed} of {spawned} complete, {done} handles, {len} under way"));
        }
        if calls > CALLS {
            self.problem(format!("{calls} system calls in one step"));
        }
        // In the queue nothing is opened.
        let permitted = self.reactors.iter().map(Reactor::permitted).sum();
        if descriptors > permitted {
            self.problem(format!("{descriptors} descriptors, {permitted} of them permitted"));
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
            if self.reaps.iter().all(|reap| reap.done) {
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
            // Each process that was signalled may take a step, and a step two turns.
            let processes = (self.sim.0.borrow().next_ino - FIRST_INO) as usize;
            if turns > if self.limited > 0 { PIECES * TURNS + 2 * processes } else { TURNS } {
                return self.problem(format!("{turns} turns and no time has passed"));
            }
            let Some(next) = self.next() else {
                return self.problem("nothing will ever happen again".into());
            };
            let mut world = self.sim.0.borrow_mut();
            // A loop may be busy with other things, though not between the calls of one turn.
            let mut entries = self.reactors.iter().filter_map(|reactor| reactor.entries.as_ref());
            let in_turn = entries.any(Entries::is_in_turn);
            let late = if world.churn > 0 && world.rng.u8(..4) == 0 && !in_turn {
                some_time(&mut world.rng, 50)
            } else {
                Duration::ZERO
            };
            let mut entries = self.reactors.iter().filter_map(|reactor| reactor.entries.as_ref());
            let is_deferred = entries.any(Entries::has_deferred) && late > Duration::ZERO;
            world.advance(next.max(now) + late);
            drop(world);
            self.taken.extend(is_deferred.then_some((now, late)));
        }
    }

    /// When there is something to do next.
    fn next(&self) -> Option<Duration> {
        let entries = || self.reactors.iter().filter_map(|reactor| reactor.entries.as_ref());
        let has_command =
            |reactor: &Reactor| reactor.entries.is_some() && !reactor.event_loop.commands.is_empty();
        if entries().any(Entries::has_deferred) || self.reactors.iter().any(has_command) {
            return Some(self.now());
        }
        let spawns = self.reaps.iter().filter(|reap| !reap.is_spawned()).map(|reap| reap.spawn_at);
        let queued = self.reaps.iter().filter_map(|reap| reap.queued.as_ref().map(|(at, _)| *at));
        let pending = |reap: &&Reap| reap.handle.is_some() && !reap.done && !reap.cancelled;
        let cancels = self.reaps.iter().filter(pending).filter_map(|reap| reap.cancel_at);
        let kills = self.reaps.iter().filter(|reap| pending(reap) && reap.told_to_kill.is_none());
        let kills = kills.filter_map(|reap| reap.kill_at);
        let ends = self.reaps.iter().filter_map(|reap| reap.empty_at);
        let jobs = self.reactors.iter().filter_map(|reactor| reactor.event_loop.next_job());
        spawns
            .chain(queued)
            .chain(cancels)
            .chain(kills)
            .chain(ends)
            .chain(jobs)
            .chain(entries().filter_map(Entries::next_tick).map(Duration::from_millis))
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
            self.calm_down();
        }
        if self.drop_at.take_if(|at| now >= *at).is_some() {
            self.abandon(0);
        }
        self.reactors.iter_mut().for_each(|reactor| reactor.event_loop.work(now));
        for of in 0..self.reaps.len() {
            let reactor = self.reactor_of(of);
            let reap = &mut self.reaps[of];
            if !reap.is_spawned() && now >= reap.spawn_at {
                self.spawn(of);
            } else if let Some((_, spawn)) = reap.queued.take_if(|(at, _)| now >= *at) {
                self.reactors[reactor].event_loop.commands.push_back(Command::Spawn(Box::new(spawn)));
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

    /// Ends all hostilities, but for the limit of descriptors.
    fn calm_down(&mut self) {
        let mut world = self.sim.0.borrow_mut();
        world.calm();
        world.descriptor_limit = self.tight.unwrap_or(usize::MAX);
        let now = world.now;
        drop(world);
        self.reactors.iter_mut().for_each(|reactor| reactor.event_loop.calm(now));
    }

    fn spawn(&mut self, of: usize) {
        let (now, reactor) = (self.now(), self.reactor_of(of));
        let limit = self.limit(reactor);
        let Reactor { entries: Some(entries), queue, .. } = &self.reactors[reactor] else { return };
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
        // A remote has no limit.
        let limit = if reap.queued_for.is_some() { Limit::default() } else { limit };
        let resolved = entries.resolver.resolve(&reap.reaper, limit);
        let mut world = self.sim.0.borrow_mut();
        world.targets[of].resolved = true;
        // Others may have been faster.
        reap.found &= tops_left(&world, of);
        let inside = holds_caller(&world, of);
        drop(world);
        match resolved {
            Ok((target, findings)) => {
                if inside && target.is_searched() {
                    return self.problem(format!("reap {of}: the caller is in its target"));
                }
                self.sim.0.borrow_mut().targets[of].may_be_renamed = target.is_by_handle();
                let (completer, handle) = handle::channel(target.shared_path(), queue);
                reap.handle = Some(handle);
                // Another thread's are not good here.
                let findings = if reap.queued_for.is_some() { Findings::default() } else { findings };
                let spawn = Spawn { reaper: reap.reaper.clone(), target, findings, completer };
                match reap.queued_for {
                    Some(wait) => reap.queued = Some((now + wait, spawn)),
                    // Its first step trusts the checks.
                    None => {
                        self.continue_step(reactor, |entries, event_loop| entries.spawn(spawn, event_loop))
                    }
                }
            }
            Err(refusal) => {
                reap.done = true;
                let mut world = self.sim.0.borrow_mut();
                world.targets[of].live = false;
                world.note(|| format!("refused: {refusal}"));
                let was_inside = world.caller().was_in(of, world.step);
                let allowed = match refusal {
                    Refusal::Unsupported { method, .. } => lacks(&world, of, method),
                    Refusal::OwnCgroup { .. } => was_inside,
                    _ => world.failed_in == world.step,
                };
                drop(world);
                if !allowed {
                    self.problem(format!("refused for no reason: {refusal}"));
                }
            }
        }
    }

    /// The next call may work without limit, or do one piece of work.
    fn limit(&mut self, reactor: usize) -> Limit {
        let is_limited = self.limited > 0 && self.rng.u8(..4) < self.limited;
        match &mut self.reactors[reactor].entries {
            Some(entries) => entries.limit(is_limited.then_some(Duration::ZERO)),
            None => Limit::default(),
        }
    }

    /// A call of each reactor's turn.
    fn turn(&mut self) {
        for number in 0..self.reactors.len() {
            self.limit(number);
            let Reactor { entries: Some(entries), event_loop, queue, stale, stale_at, .. } =
                &mut self.reactors[number]
            else {
                continue;
            };
            while let Some(command) = queue.pop() {
                event_loop.commands.push_back(match command {
                    Command::Cancel(id) => Command::Cancel(id),
                    Command::KillNow(id) => Command::KillNow(id),
                    Command::Spawn(_) | Command::Answer(..) | Command::Stop => panic!("no handle sends that"),
                });
            }
            if !entries.is_in_turn() {
                let mut world = self.sim.0.borrow_mut();
                let mut tokens = world.take_notified(number);
                stale.extend(&tokens);
                let again = world.faults > 0 && world.rng.u8(..16) == 0;
                if again && stale_at.replace(world.now) != Some(world.now) {
                    tokens.extend(world.rng.choice(&*stale));
                    tokens.push(world.rng.usize(..));
                }
                drop(world);
                entries.begin_turn(tokens.into_iter().filter_map(EntryId::from_token));
            }
            let mut more = true;
            while more && self.problems.is_empty() {
                self.step(number, |entries, event_loop| {
                    more = entries.advance(event_loop) && !entries.is_out_of_time();
                });
            }
        }
    }

    /// A reactor is dropped in mid-run. The reaps of the other go on.
    fn abandon(&mut self, reactor: usize) {
        self.sim.0.borrow_mut().begin_step();
        self.sim.0.borrow_mut().note(|| format!("reactor {reactor} is dropped"));
        let Reactor { entries, event_loop, .. } = &mut self.reactors[reactor];
        *entries = None;
        event_loop.commands.clear();
        // A thread whose call hangs keeps what it works on.
        event_loop.jobs.get_mut().retain(|(at, ..)| *at == Duration::MAX);
        // Its poll is closed with it.
        self.sim.0.borrow_mut().take_notified(reactor);
        for of in (0..self.reaps.len()).filter(|of| of % self.reactors.len() == reactor).collect::<Vec<_>>() {
            let reap = &mut self.reaps[of];
            reap.queued = None;
            if std::mem::replace(&mut reap.done, true) {
                continue;
            }
            if let Some(handle) = &reap.handle {
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
            self.sim.0.borrow_mut().targets[of].live = false;
        }
        if self.calm {
            // What others have frozen of these is no longer the library's to thaw.
            self.sim.0.borrow_mut().thaw();
        }
    }

    /// Nothing may be left of the reaps.
    fn end(&mut self) {
        for reactor in &mut self.reactors {
            reactor.entries = None;
            reactor.event_loop.jobs.get_mut().clear();
        }
        let left = self.sim.0.borrow().descriptors;
        let permits: usize = self.reactors.iter().map(Reactor::permits).sum();
        if left + permits > 0 {
            self.problem(format!("{left} descriptors left, {permits} permits"));
        }
        let violations = self.sim.0.borrow().violations.clone();
        self.problems.extend(violations);
    }
}

/// Whether one of the target's directories is there.
fn tops_left(world: &World, of: usize) -> bool {
    world.targets[of].tops.iter().any(|&top| !world.groups[top].removed)
}

/// What went wrong in the history of a seed, and its log if that is wanted.
fn run(seed: u64, logged: bool, queues: &Queues) -> (Option<String>, String) {
    kernel::LOG.set(logged.then(String::new));
    let mut history = History::new(seed, queues);
    history.run();
    queues.iter().for_each(|(_, queue)| while queue.pop().is_some() {});
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

/// The queues of two reactors.
type Queues = [(mio::Poll, Arc<Queue>); 2];

fn queues() -> Queues {
    [(); 2].map(|()| queue())
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

/// Histories that have found a fault of the library, or of the simulation as it was then. Where it has changed since, they may be
/// other histories now.
#[rustfmt::skip]
const FOUND: [u64; 68] = [
    1_139_179, 2_395_845, 2_686_514, 2_888_120, 3_261_094, 3_718_350, 3_805_716, 3_818_948, 3_897_060,
    3_981_399, 4_007_975, 4_171_112, 4_614_978, 5_229_784, 5_256_772, 5_467_916, 7_801_326, 7_866_863,
    8_499_734, 11_449_731, 11_686_148, 11_856_162, 12_411_008, 12_595_758, 40_989_214, 51_295_442, 52_137_641,
    60_054_080, 60_425_147, 80_227_161, 80_362_680, 80_654_964, 81_113_111, 81_386_376, 83_065_783,
    83_925_977, 86_388_884, 86_817_677, 87_161_029, 89_682_298, 90_100_556, 90_981_330, 94_277_859,
    97_487_224, 100_153_622, 104_081_463, 104_519_077, 104_569_687, 116_039_594, 123_130_388, 123_448_354,
    124_908_664, 126_586_255, 128_113_868, 135_353_809, 140_995_691, 144_862_777,
    150_215_221, 151_088_799, 151_262_616, 152_428_365, 154_026_099, 155_937_514, 158_093_096,
    161_970_063, 165_754_825, 172_511_363, 172_848_302,
];

#[test]
fn histories_that_found_faults_pass() {
    let queues = queues();
    for seed in FOUND {
        let (problem, _) = run(seed, false, &queues);
        assert!(problem.is_none(), "history {seed}: {}", problem.unwrap_or_default());
    }
}

#[test]
fn invariants_hold_in_every_history() {
    let (seed, histories) = (variable("CGROUP_REAPER_SEED"), variable("CGROUP_REAPER_HISTORIES"));
    if let (Some(seed), None) = (seed, histories) {
        // Another test may have set one.
        let _ = log::set_logger(&Logger);
        log::set_max_level(log::LevelFilter::Trace);
        let (problem, log) = run(seed, true, &queues());
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
                let queues = queues();
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed - first >= histories {
                        return;
                    }
                    if let (Some(problem), _) = run(seed, false, &queues) {
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
