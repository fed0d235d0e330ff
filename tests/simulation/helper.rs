//! Scenes in which a helper thread writes to `cgroup.kill`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{Features, GroupId, Nature, SELF, Sim, V2, World};
use super::queue;
use super::reactors::EventLoop;
use crate::cgroup::{Budget, Job, Limit, Resolver};
use crate::entries::{Command, Entries, Spawn};
use crate::entry_id::EntryId;
use crate::handle::{self, ReapHandle};
use crate::outcome::{Act, Outcome, ReapError, Reaped, UsedMethod};
use crate::reaper::{KillMethod, Reaper};

const SOON: Duration = Duration::from_secs(5);

/// A v2 target with some members, whose reap has begun. The write is not made before [`Scene::write`].
struct Scene {
    sim: Sim,
    entries: Entries<Sim>,
    event_loop: EventLoop,
    group: GroupId,
    handle: ReapHandle,
}

impl Scene {
    fn new(members: usize, reaper: impl FnOnce(Reaper) -> Reaper) -> Scene {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
        let slice = world.mkdir(V2, "slice");
        let group = world.mkdir(slice, "t");
        let mut groups = world.processes[0].groups;
        groups[V2] = group;
        (0..members).for_each(|_| _ = world.add_process(groups, Nature::default(), None));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = Entries::new(Resolver::new(sim.clone(), Budget::new(100)));
        entries.helper_from = Some(3);
        let event_loop = EventLoop::new(&sim);
        let reaper = reaper(Reaper::at("/sys/fs/cgroup/unified/slice/t"));
        let (target, findings) =
            entries.resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
        let (completer, handle) = handle::channel(target.shared_path(), &queue().1);
        entries.spawn(Spawn { reaper, target, findings, completer }, &event_loop);
        event_loop.jobs.borrow_mut().iter_mut().for_each(|(done, ..)| *done = Duration::MAX);
        Scene { sim, entries, event_loop, group, handle }
    }

    fn jobs(&self) -> usize {
        self.event_loop.jobs.borrow().len()
    }

    /// The thread does what it is to do.
    fn write(&mut self) {
        self.event_loop.calm(Duration::ZERO);
        self.event_loop.work(Duration::ZERO);
    }

    /// Another thread makes the removals, which are not of interest here.
    fn remove(&mut self) -> bool {
        let is_removal = |(_, _, job): &(Duration, EntryId, Job<Sim>)| matches!(job, Job::Remove(_));
        let (removals, others) = self.event_loop.jobs.take().into_iter().partition(is_removal);
        self.event_loop.jobs = RefCell::new(removals);
        let any = self.jobs() > 0;
        self.write();
        self.event_loop.jobs = RefCell::new(others);
        any
    }

    fn pass(&mut self, time: Duration) {
        let end = self.sim.0.borrow().now + time;
        loop {
            loop {
                self.sim.0.borrow_mut().begin_step();
                let tokens = self.sim.0.borrow_mut().take_notified(0);
                self.event_loop.turn(&mut self.entries, tokens);
                if !self.remove() && !self.entries.has_deferred() {
                    break;
                }
            }
            let next = self.entries.next_tick().map(Duration::from_millis);
            let events = self.sim.0.borrow().next_event();
            match next.into_iter().chain(events).min().filter(|next| *next < end) {
                Some(next) => self.sim.0.borrow_mut().advance(next),
                None => break,
            }
        }
        self.sim.0.borrow_mut().advance(end);
    }

    fn any_killed(&self) -> bool {
        self.sim.0.borrow().processes.iter().any(|process| process.killed)
    }
}

#[test]
fn many_members_are_killed_by_the_thread_and_few_are_not() {
    for (members, elsewhere) in [(2, false), (3, true)] {
        for method in [KillMethod::Auto, KillMethod::CgroupKill] {
            let mut scene = Scene::new(members, |reaper| reaper.method(method));
            assert_eq!((scene.jobs(), scene.any_killed()), (usize::from(elsewhere), !elsewhere));
            scene.write();
            scene.pass(SOON);
            match scene.handle.try_wait() {
                Some(Ok(Reaped { outcome: Outcome::Removed, method, signalled: 0, attempts: 1, .. })) => {
                    assert_eq!(method, Some(UsedMethod::CgroupKill));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(scene.entries.metrics.cgroup_kills, 1);
            assert_eq!(scene.entries.resolver.budget.used(), 0);
        }
    }
}

/// The deadline comes, and the target is empty, before the thread has answered.
#[test]
fn a_kill_by_the_thread_is_reported_before_its_answer() {
    let mut scene = Scene::new(3, |reaper| reaper.deadline(Duration::from_secs(1)));
    scene.write();
    let answer = scene.event_loop.commands.pop_front().expect("an answer");
    scene.pass(SOON);
    match scene.handle.try_wait() {
        Some(Ok(Reaped { outcome: Outcome::Removed, method, attempts: 1, .. })) => {
            assert_eq!(method, Some(UsedMethod::CgroupKill));
        }
        other => panic!("{other:?}"),
    }
    scene.event_loop.commands.push_back(answer);
    scene.pass(SOON);
    assert_eq!(scene.entries.metrics.cgroup_kills, 1);
}

/// Nothing is signalled after the end of a reap.
#[test]
fn a_write_that_is_not_wanted_any_more_is_not_made() {
    let mut scene = Scene::new(3, |reaper| reaper);
    let [(_, id, _)] = &scene.event_loop.jobs.get_mut()[..] else { panic!("no job") };
    scene.event_loop.commands.push_back(Command::Cancel(*id));
    scene.pass(SOON);
    assert!(matches!(scene.handle.try_wait(), Some(Err(ReapError::Cancelled { .. }))));
    scene.write();
    assert!(!scene.any_killed());
    assert_eq!(scene.entries.resolver.budget.used(), 0);
}

/// The members are signalled at the deadline, though the thread has not written.
#[test]
fn a_write_that_hangs_holds_up_no_deadline() {
    let mut scene = Scene::new(3, |reaper| reaper.deadline(Duration::from_millis(300)));
    scene.pass(Duration::from_millis(290));
    assert!(!scene.any_killed() && !scene.handle.is_complete());
    scene.pass(Duration::from_millis(110));
    match scene.handle.try_wait() {
        Some(Ok(Reaped { outcome: Outcome::Removed, method: Some(UsedMethod::Pidfd), .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// The caller has moved in since the write was left to the thread: it is not killed.
#[test]
fn a_caller_that_has_moved_in_is_not_killed() {
    let mut scene = Scene::new(3, |reaper| reaper);
    let (own, mut groups) = {
        let world = scene.sim.0.borrow();
        let own = world.processes.iter().find(|process| process.pid == SELF).expect("it lives");
        (own.ino, own.groups)
    };
    groups[V2] = scene.group;
    scene.sim.0.borrow_mut().begin_step();
    scene.sim.0.borrow_mut().migrate(own, groups);
    scene.sim.0.borrow_mut().begin_step();
    scene.write();
    scene.pass(SOON);
    assert!(!scene.sim.0.borrow().caller().killed);
    assert_eq!(scene.entries.metrics.cgroup_kills, 0);
    match scene.handle.try_wait() {
        Some(Err(ReapError::Denied { act: Act::Kill, .. })) => {}
        other => panic!("{other:?}"),
    }
}
