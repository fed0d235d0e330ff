//! Which reaps lose their watches when descriptors are short.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{CPU, FREEZER, Features, Nature, Sim, V2, World};
use super::queue;
use super::reactors::EventLoop;
use super::scenes::{begin, begin_resolved};
use crate::cgroup::{Budget, Findings, Limit, Resolver};
use crate::entries::Entries;
use crate::handle::ReapHandle;
use crate::outcome::{Outcome, Reaped};
use crate::reaper::{KillMethod, Reaper};

const HOURS: Duration = Duration::from_secs(7200);

/// Four reaps that wait for their members, each with a watch, and one that is to kill.
struct Scene {
    sim: Sim,
    entries: Entries<Sim>,
    event_loop: EventLoop,
    waiting: [ReapHandle; 4],
}

impl Scene {
    /// The last member is of this nature. The budget has permits for a process that may have `nofile` descriptors.
    fn new(nature: Nature, nofile: usize) -> Scene {
        let hangs = Nature { hangs: true, ..Nature::default() };
        let mut scene = Scene::beside((CPU, "cpu"), hangs, nature, nofile, Reaper::when_empty);
        scene.pass(Duration::from_secs(600));
        assert_eq!(scene.watched(), 4);
        scene
    }

    /// The four other members are of the first nature, in this hierarchy, and reaped in the way that `reaper` makes.
    fn beside(
        (hierarchy, mount): (usize, &str),
        others: Nature,
        nature: Nature,
        nofile: usize,
        reaper: impl Fn(Reaper) -> Reaper,
    ) -> Scene {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
        let own = world.processes[0].groups;
        let slices = [CPU, V2].map(|hierarchy| (hierarchy, world.mkdir(hierarchy, "slice")));
        let names = ["a", "b", "c", "d"];
        for (of, slice) in slices {
            let others = names.map(|name| (name, others)).into_iter().filter(|_| of == hierarchy);
            let last = [("last", nature)].into_iter().filter(|_| of == CPU);
            for (name, nature) in others.chain(last) {
                let mut groups = own;
                groups[of] = world.mkdir(slice, name);
                world.add_process(groups, nature, None);
            }
        }
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = Entries::new(Resolver::new(sim.clone(), Budget::new(nofile)));
        let event_loop = EventLoop::new(&sim);
        let waiting = names.map(|name| {
            let at =
                Reaper::at(format!("/sys/fs/cgroup/{mount}/slice/{name}")).max_wait(HOURS).min_wait(HOURS);
            begin(&mut entries, reaper(at), &event_loop)
        });
        Scene { sim, entries, event_loop, waiting }
    }

    /// The last reap begins, with so many descriptors at hand.
    fn begin(&mut self, free: usize) -> ReapHandle {
        let reaper = Reaper::at("/sys/fs/cgroup/cpu/slice/last").max_wait(HOURS).min_wait(HOURS);
        let (target, _) =
            self.entries.resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
        let mut world = self.sim.0.borrow_mut();
        world.descriptor_limit = world.descriptors + free;
        drop(world);
        begin_resolved(&queue().1, &mut self.entries, reaper, (target, Findings::default()), &self.event_loop)
    }

    fn pass(&mut self, time: Duration) {
        self.event_loop.pass(&mut self.entries, time);
    }

    /// How often a descriptor was watched so far.
    fn watched(&self) -> usize {
        self.event_loop.watched.borrow().len()
    }

    /// No timer is due for a long time.
    fn is_quiet(&self) -> bool {
        let now = self.sim.0.borrow().now;
        self.entries
            .next_tick()
            .is_none_or(|tick| Duration::from_millis(tick) > now + Duration::from_secs(600))
    }
}

/// A reap that gets no descriptor takes the watches of those that wait. They get them back after it.
#[test]
fn a_reap_that_fails_for_want_of_descriptors_takes_watches() {
    let mut scene = Scene::new(Nature::default(), 100);
    let held = scene.sim.0.borrow().descriptors;
    let handle = scene.begin(0);
    scene.pass(Duration::from_secs(2));
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{handle:?}");
    assert!(scene.waiting.iter().all(|handle| !handle.is_complete()));
    // A check takes three.
    scene.sim.0.borrow_mut().descriptor_limit += 3;
    scene.pass(Duration::from_secs(2));
    assert_eq!(scene.sim.0.borrow().descriptors, held, "all have their watches back");
    let watched = scene.watched();
    scene.pass(Duration::from_secs(600));
    assert_eq!(scene.watched(), watched);
    assert!(scene.is_quiet());
}

/// Also reaps that fail for another reason lose their watches to it.
#[test]
fn a_reap_that_fails_for_want_of_descriptors_takes_watches_of_others_that_fail() {
    let foreign = Nature { foreign: true, ..Nature::default() };
    let by_pidfd = |reaper: Reaper| reaper.method(KillMethod::Pidfd).min_wait(Duration::from_millis(10));
    let mut scene = Scene::beside((V2, "unified"), foreign, Nature::default(), 100, by_pidfd);
    // Then they wait for 80 ms.
    scene.pass(Duration::from_millis(155));
    assert_eq!(scene.watched(), 8, "the events and a member of each");
    let handle = scene.begin(0);
    scene.pass(Duration::from_millis(40));
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{handle:?}");
    assert!(scene.waiting.iter().all(|handle| !handle.is_complete()));
}

/// A reap that lacks nothing but a watch, or fails for another reason, takes none.
#[test]
fn a_reap_that_does_not_lack_descriptors_takes_no_watches() {
    let hangs = Nature { hangs: true, ..Nature::default() };
    let foreign = Nature { foreign: true, ..hangs };
    // There are permits for four watches, or for all.
    for (nature, nofile) in [(hangs, 5), (foreign, 100)] {
        let mut scene = Scene::new(nature, nofile);
        let watched = scene.watched();
        let handle = scene.begin(100);
        scene.pass(Duration::from_secs(3));
        assert!(scene.watched() <= watched + 1, "only the last one");
        assert_eq!(handle.is_complete(), nature.foreign);
        assert!(scene.waiting.iter().all(|handle| !handle.is_complete()));
    }
}

/// Reaps for which there is no watch get one soon after there is, each of them, however long their waits are.
#[test]
fn every_reap_is_watched_once_that_is_possible() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let own = world.processes[0].groups;
    let slice = world.mkdir(CPU, "slice");
    let names = ["a", "b", "c", "d"];
    for name in names {
        let group = world.mkdir(slice, name);
        let nature = Nature { hangs: true, ..Nature::default() };
        world.add_process([own[FREEZER], group, own[V2]], nature, None);
    }
    let sim = Sim(Rc::new(RefCell::new(world)));
    let budget = Budget::new(0);
    let mut entries = Entries::new(Resolver::new(sim.clone(), budget.clone()));
    let mut event_loop = EventLoop::new(&sim);
    let hours = Duration::from_secs(7200);
    let handles = names.map(|name| {
        let reaper = Reaper::at(format!("/sys/fs/cgroup/cpu/slice/{name}")).max_wait(hours).min_wait(hours);
        begin(&mut entries, reaper, &event_loop)
    });
    // Past the probes that follow the first attempts.
    let mut tick_until = |entries: &mut Entries<Sim>, end: Duration| {
        while let Some(tick) = entries.next_tick().map(Duration::from_millis).filter(|tick| *tick <= end) {
            sim.0.borrow_mut().advance(tick);
            event_loop.turn(entries, Vec::new());
            while entries.has_deferred() {
                event_loop.turn(entries, Vec::new());
            }
        }
        sim.0.borrow_mut().advance(end);
        event_loop.watched.borrow().len()
    };
    let now = sim.0.borrow().now + Duration::from_secs(600);
    assert_eq!(tick_until(&mut entries, now), 0);
    budget.set_limit(100);
    assert_eq!(tick_until(&mut entries, now + Duration::from_millis(100)), names.len());
    assert!(handles.iter().all(|handle| !handle.is_complete()));
}
