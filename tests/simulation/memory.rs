//! Scenes in which the memory of members that cannot exit is released.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{CPU, FREEZER, Features, GroupId, Nature, Sim, V2, World};
use super::reactors::EventLoop;
use super::scenes::begin;
use crate::cgroup::{Budget, Resolver};
use crate::entries::Entries;
use crate::handle::ReapHandle;
use crate::outcome::{Outcome, ReapError, Reaped};
use crate::reaper::{KillMethod, Reaper};

/// Past the first attempts that release memory, at the default waits.
const SOON: Duration = Duration::from_secs(10);

struct Scene {
    sim: Sim,
    entries: Entries<Sim>,
    event_loop: EventLoop,
    groups: [GroupId; 3],
}

impl Scene {
    /// A target in the hierarchy `of`, and nothing else.
    fn new(of: usize, features: Features) -> Scene {
        let mut world = World::new(fastrand::Rng::with_seed(0), features);
        let slice = world.mkdir(of, "slice");
        let group = world.mkdir(slice, "t");
        let mut groups = world.processes[0].groups;
        groups[of] = group;
        let sim = Sim(Rc::new(RefCell::new(world)));
        let entries = Entries::new(Resolver::new(sim.clone(), Budget::new(100)));
        Scene { event_loop: EventLoop::new(&sim), sim, entries, groups }
    }

    /// Adds a member that cannot exit, with so much memory.
    fn member(&self, memory: u64) -> u64 {
        let mut world = self.sim.0.borrow_mut();
        let nature = Nature { stuck: true, ..Nature::default() };
        let ino = world.add_process(self.groups, nature, None);
        world.process(ino).expect("just added").memory = memory;
        ino
    }

    fn spawn(&mut self, reaper: Reaper) -> ReapHandle {
        begin(&mut self.entries, reaper, &self.event_loop)
    }

    fn pass(&mut self, time: Duration) {
        self.event_loop.pass(&mut self.entries, time);
    }

    fn released(&self) -> Vec<u64> {
        self.sim.0.borrow().released.clone()
    }
}

/// Of the members, those with the most first, each once; more of them than one job takes.
#[test]
fn each_member_gives_its_memory_back_once() {
    let methods = [KillMethod::Auto, KillMethod::Pidfd, KillMethod::CgroupKill];
    for (of, name) in [(CPU, "cpu"), (FREEZER, "freezer"), (V2, "unified")] {
        for method in methods.into_iter().take(if of == V2 { 3 } else { 2 }) {
            let mut scene = Scene::new(of, Features::of(Features::LEVELS - 1));
            let memory = |n: u64| 100 + 7 * n % 30;
            let members: Vec<u64> = (0..30).map(|n| scene.member(memory(n))).collect();
            let reaper = Reaper::at(format!("/sys/fs/cgroup/{name}/slice/t")).method(method);
            let handle = scene.spawn(reaper.release_memory());
            scene.pass(Duration::from_millis(200));
            assert_eq!(scene.released(), [], "{method} {name}: they may be exiting");
            scene.pass(SOON);
            let mut released = scene.released();
            let size = |ino: &u64| memory(ino - members[0]);
            assert!(released[..16].is_sorted_by(|a, b| size(a) >= size(b)), "{released:?}");
            released.sort_unstable();
            assert_eq!(released, members, "{method} {name}");
            let metrics = &scene.entries.metrics;
            let bytes = 1024 * (0..30).map(memory).sum::<u64>();
            assert_eq!((metrics.released, metrics.released_bytes), (30, bytes));
            assert!(!handle.is_complete());
            scene.sim.0.borrow_mut().calm();
            scene.pass(SOON);
            match handle.try_wait() {
                Some(Ok(Reaped { outcome: Outcome::Removed, released: 30, .. })) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(scene.entries.resolver.budget.used(), 0);
        }
    }
}

/// Nor is a job made where the caller has not asked for it.
#[test]
fn a_kernel_without_the_call_is_asked_once() {
    for (features, asked) in [(Features::of(1), true), (Features::of(Features::LEVELS - 1), false)] {
        let mut scene = Scene::new(CPU, features);
        scene.member(100);
        let reaper = Reaper::at("/sys/fs/cgroup/cpu/slice/t").max_wait(Duration::from_millis(100));
        let _handle = scene.spawn(if asked { reaper.release_memory() } else { reaper });
        scene.pass(SOON);
        assert_eq!(scene.released(), []);
        assert_eq!(scene.sim.0.borrow().asked_to_release, u64::from(asked));
    }
}

/// EAGAIN: some of the memory is in use.
#[test]
fn what_could_not_be_released_is_tried_again() {
    let mut scene = Scene::new(V2, Features::of(Features::LEVELS - 1));
    let (busy, other) = (scene.member(200), scene.member(100));
    scene.sim.0.borrow_mut().busy_memory = Some(busy);
    let _handle = scene.spawn(Reaper::at("/sys/fs/cgroup/unified/slice/t").release_memory());
    scene.pass(SOON);
    assert_eq!(scene.released(), [other]);
    scene.sim.0.borrow_mut().busy_memory = None;
    scene.pass(SOON);
    assert_eq!(scene.released(), [other, busy]);
}

/// A call that never returns holds up neither deadline nor completion, nor cancel; what it works on is given back when it
/// does.
#[test]
fn a_call_that_hangs_holds_up_nothing() {
    for deadline in [true, false] {
        let mut scene = Scene::new(CPU, Features::of(Features::LEVELS - 1));
        let member = scene.member(100);
        let pid = scene.sim.0.borrow_mut().process(member).expect("it lives").pid;
        let reaper = Reaper::at("/sys/fs/cgroup/cpu/slice/t").release_memory();
        let reaper = if deadline { reaper.deadline(Duration::from_secs(5)) } else { reaper };
        let handle = scene.spawn(reaper);
        scene.pass(Duration::from_millis(205));
        assert_eq!(scene.event_loop.next_job(), None);
        while scene.event_loop.next_job().is_none() {
            scene.pass(Duration::from_millis(1));
        }
        scene.event_loop.jobs.get_mut().iter_mut().for_each(|(done, ..)| *done = Duration::MAX);
        if deadline {
            scene.pass(SOON);
            match handle.try_wait() {
                Some(Err(ReapError::TimedOut { survivors, .. })) => assert_eq!(survivors[0].pid, pid),
                other => panic!("{other:?}"),
            }
        } else {
            scene.sim.0.borrow_mut().calm();
            scene.pass(SOON);
            assert!(matches!(handle.try_wait(), Some(Ok(Reaped { released: 0, .. }))), "{handle:?}");
        }
        assert_eq!(scene.entries.resolver.budget.used(), 1);
        // It returns, and its reap is no more.
        scene.event_loop.calm(Duration::ZERO);
        scene.pass(SOON);
        assert_eq!(scene.entries.resolver.budget.used(), 0);
        assert_eq!(scene.entries.metrics.released, u64::from(deadline));
    }
}

/// However few descriptors there are, a call that hangs leaves enough for another reap.
#[test]
fn a_call_that_hangs_leaves_descriptors() {
    let is_reaped = |limit: usize, release: bool| {
        let mut scene = Scene::new(V2, Features::of(Features::LEVELS - 1));
        (0..20).for_each(|_| _ = scene.member(100));
        let mut groups = scene.groups;
        let slice = scene.sim.0.borrow().child(V2, "slice").expect("it is there");
        groups[V2] = scene.sim.0.borrow_mut().mkdir(slice, "other");
        scene.sim.0.borrow_mut().add_process(groups, Nature::default(), None);
        let reaper = Reaper::at("/sys/fs/cgroup/unified/slice/t");
        let _handle = scene.spawn(if release { reaper.release_memory() } else { reaper });
        scene.sim.0.borrow_mut().descriptor_limit = limit;
        for _ in 0..1000 {
            scene.event_loop.jobs.get_mut().iter_mut().for_each(|(done, ..)| *done = Duration::MAX);
            scene.pass(Duration::from_millis(10));
        }
        // A spawn that meets the limit is refused, as that of any reap.
        let held = scene.sim.0.borrow().descriptors;
        scene.sim.0.borrow_mut().descriptor_limit = usize::MAX;
        let other =
            scene.spawn(Reaper::at("/sys/fs/cgroup/unified/slice/other").linger(Duration::from_secs(1)));
        scene.sim.0.borrow_mut().descriptor_limit = limit.max(held);
        scene.pass(SOON);
        matches!(other.try_wait(), Some(Ok(Reaped { .. })))
    };
    let limits = 1..40;
    let enough: Vec<usize> = limits.filter(|&limit| is_reaped(limit, false)).collect();
    assert!(enough.len() > 20);
    let not_enough: Vec<usize> = enough.into_iter().filter(|&limit| !is_reaped(limit, true)).collect();
    assert_eq!(not_enough, [0; 0]);
}

/// With few descriptors, a few members at a time.
#[test]
fn few_descriptors_are_enough() {
    let mut scene = Scene::new(CPU, Features::of(Features::LEVELS - 1));
    (0..20).for_each(|_| _ = scene.member(100));
    let _handle = scene.spawn(Reaper::at("/sys/fs/cgroup/cpu/slice/t").release_memory());
    let held = scene.sim.0.borrow().descriptors;
    // One that is held for a member, and three that are left.
    scene.sim.0.borrow_mut().descriptor_limit = held + 6;
    scene.pass(SOON);
    assert_eq!(scene.released().len(), 20);
}
