//! Scenes in which a helper thread writes to `cgroup.kill`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{FREEZER, Features, GroupId, Life, Nature, SELF, Sim, V2, World};
use super::queue;
use super::reactors::EventLoop;
use super::scenes::{begin, run};
use crate::cgroup::{Answer, Budget, Context, Facts, Findings, Job, Limit, Resolver};
use crate::entries::{Command, Entries, Spawn};
use crate::entry_id::EntryId;
use crate::handle::{self, ReapHandle};
use crate::machine::{Checked, Detail, KillBy, Reach};
use crate::metrics::Metrics;
use crate::outcome::{Act, Outcome, ReapError, Reaped, UsedMethod};
use crate::reaper::{CgroupOptions, KillMethod, Reaper};

const SOON: Duration = Duration::from_secs(5);

const TARGET: &str = "/sys/fs/cgroup/unified/slice/t";

/// A world with a v2 group that has some members.
fn target(members: usize) -> (Sim, GroupId) {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(V2, "slice");
    let group = world.mkdir(slice, "t");
    let mut groups = world.processes[0].groups;
    groups[V2] = group;
    (0..members).for_each(|_| _ = world.add_process(groups, Nature::default(), None));
    (Sim(Rc::new(RefCell::new(world))), group)
}

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
        let (sim, group) = target(members);
        let mut entries = Entries::new(Resolver::new(sim.clone(), Budget::new(100)));
        entries.helper_from = Some(3);
        let event_loop = EventLoop::new(&sim);
        let reaper = reaper(Reaper::at(TARGET));
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

    /// Lets time pass until there is a job.
    fn until_a_job(&mut self) {
        for _ in 0..1000 {
            if self.jobs() > 0 {
                return;
            }
            let next = self.entries.next_tick().map(Duration::from_millis);
            let next = next.into_iter().chain(self.sim.0.borrow().next_event()).min();
            self.sim.0.borrow_mut().advance(next.unwrap_or_default());
            self.sim.0.borrow_mut().begin_step();
            let tokens = self.sim.0.borrow_mut().take_notified(0);
            self.event_loop.turn(&mut self.entries, tokens);
        }
        panic!("no job, {:?}", self.handle);
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

/// A logger panics between the preparation of the write and the thread.
#[test]
fn a_write_that_no_thread_was_given_is_made_by_the_next_step() {
    let (sim, _) = target(3);
    let resolver = Resolver::new(sim.clone(), Budget::new(100));
    let reaper = Reaper::at(TARGET);
    let (mut target, findings) = resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
    let (mut metrics, mut facts) = (Metrics::default(), Facts::new(&sim));
    let mut context = Context::new(&resolver, &mut metrics, &mut facts, None, Limit::default());
    context.helper_from = Some(3);
    let mut step = target.step(&mut context, findings);
    step.check(Detail::Members);
    assert_eq!(step.kill(KillBy::CgroupKill { last: false }).reach, Reach::UnderWay);
    drop(step);
    let mut step = target.step(&mut context, Findings::default());
    assert_ne!(step.kill(KillBy::CgroupKill { last: false }).reach, Reach::UnderWay);
    assert!(sim.0.borrow().processes.iter().all(|process| process.killed == (process.pid != SELF)));
}

/// Members in v1 and v2, another one in v2 alone, and the reap of both.
fn hybrid_target() -> (Sim, Reaper) {
    // Where exiting tasks are listed.
    let features = Features { exiting_unlisted: false, ..Features::of(Features::LEVELS - 1) };
    let mut world = World::new(fastrand::Rng::with_seed(0), features);
    let mut groups = world.processes[0].groups;
    for hierarchy in [V2, FREEZER] {
        let slice = world.mkdir(hierarchy, "slice");
        groups[hierarchy] = world.mkdir(slice, "t");
    }
    (0..8).for_each(|_| _ = world.add_process(groups, Nature::default(), None));
    groups[FREEZER] = world.processes[0].groups[FREEZER];
    world.add_process(groups, Nature::default(), None);
    let options = CgroupOptions::new("/sys/fs/cgroup").slice("slice").subsystems(["freezer", "unified"]);
    (Sim(Rc::new(RefCell::new(world))), Reaper::new(options, "t"))
}

/// No thread can be started for the write, amid the steps in which the members in v1 are signalled.
#[test]
fn a_write_that_no_thread_was_given_is_not_waited_for() {
    let (sim, reaper) = hybrid_target();
    let resolver = Resolver::new(sim.clone(), Budget::new(100));
    let (mut target, findings) = resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
    let (mut metrics, mut facts) = (Metrics::default(), Facts::new(&sim));
    let limit = Limit::after(&sim, Some(Duration::ZERO));
    let mut context = Context::new(&resolver, &mut metrics, &mut facts, None, limit);
    context.helper_from = Some(3);
    let mut step = target.step(&mut context, findings);
    while step.check(Detail::Members) == Checked::Unfinished {}
    let mut attempt = step.kill(KillBy::Cheapest);
    assert!(attempt.reach == Reach::Unfinished && step.take_job().is_some());
    step.target.note_cgroup_kill(None);
    let mut steps = 0;
    while attempt.reach == Reach::Unfinished && steps < 100 {
        attempt = step.kill(KillBy::Cheapest);
        steps += 1;
    }
    assert_eq!(attempt.reach, Reach::All, "after {steps} steps");
    let world = sim.0.borrow();
    assert!(world.processes.iter().all(|process| process.killed == (process.pid != SELF)));
}

/// The members in v1 were signalled before it was known that there is no thread for the write.
#[test]
fn signals_before_a_write_that_no_thread_was_given_are_counted() {
    let (sim, reaper) = hybrid_target();
    let mut entries = Entries::new(Resolver::new(sim.clone(), Budget::new(100)));
    entries.helper_from = Some(3);
    let mut event_loop = EventLoop::new(&sim);
    event_loop.has_threads = false;
    let handle = begin(&mut entries, reaper, &event_loop);
    // The loop itself makes the removal.
    entries.helper_from = None;
    run(&sim, &mut entries);
    match handle.try_wait() {
        Some(Ok(Reaped { signalled: 8, .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// Another party makes the directory again after the thread has removed it, and before the reap knows that.
#[test]
fn a_directory_that_is_made_again_after_the_removal_was_removed() {
    let mut scene = Scene::new(1, |reaper| reaper);
    scene.until_a_job();
    scene.write();
    let answer = scene.event_loop.commands.pop_front().expect("an answer");
    {
        let mut world = scene.sim.0.borrow_mut();
        let slice = world.child(V2, "slice").expect("it stays");
        assert_ne!(world.mkdir(slice, "t"), scene.group);
    }
    scene.pass(SOON);
    match scene.handle.try_wait() {
        Some(Ok(Reaped { outcome: Outcome::Removed, .. })) => {}
        other => panic!("{other:?}"),
    }
    scene.event_loop.commands.push_back(answer);
    scene.pass(SOON);
}

/// The loop itself never calls rmdir(2), even if other reaps hold all descriptors that reaps may hold.
#[test]
fn a_removal_waits_for_the_descriptors_that_it_needs() {
    let mut scene = Scene::new(1, |reaper| reaper);
    let budget = scene.entries.resolver.budget.clone();
    let waiting: Vec<_> = std::iter::from_fn(|| budget.take()).collect();
    scene.until_a_job();
    assert!(!scene.handle.is_complete());
    drop(waiting);
    scene.pass(SOON);
    assert!(matches!(scene.handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))));

    let mut scene = Scene::new(1, |reaper| reaper);
    let budget = scene.entries.resolver.budget.clone();
    let mut all = Vec::new();
    for _ in 0..50 {
        // Also those that it returns.
        all.extend(std::iter::from_fn(|| budget.take_for_job()));
        scene.pass(Duration::from_millis(10));
        assert!(!scene.handle.is_complete());
    }
    drop(all);
    scene.pass(SOON);
    assert!(matches!(scene.handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))));
}

/// A process joins an empty target while its removal hangs past the deadline, and is killed where the last check fails: no check
/// has seen that the target has a member. Another party removes the directory before the process has exited.
#[test]
fn a_member_that_no_check_has_seen_is_waited_for() {
    let ms = Duration::from_millis;
    let mut removed = 0;
    for call in 0..30 {
        let mut scene = Scene::new(0, |reaper| reaper.deadline(ms(130)));
        let end = scene.sim.0.borrow().now + ms(130);
        while scene.sim.0.borrow().now < end {
            let next = scene.entries.next_tick().expect("the deadline");
            scene.sim.0.borrow_mut().advance(ms(next));
            scene.event_loop.turn(&mut scene.entries, Vec::new());
        }
        let mut world = scene.sim.0.borrow_mut();
        let mut groups = world.processes[0].groups;
        groups[V2] = scene.group;
        let member = world.add_process(groups, Nature { exit: ms(60), ..Nature::default() }, None);
        (world.calls, world.acts, world.churn) = (0, call, u8::MAX);
        world.others = |world| world.faults = if world.calls == u64::from(world.acts) { u8::MAX } else { 0 };
        drop(world);
        let lives =
            |world: &mut World| world.process(member).is_some_and(|process| process.life != Life::Dead);
        while !scene.handle.is_complete() {
            let next = scene.entries.next_tick().expect("the end");
            scene.sim.0.borrow_mut().advance(ms(next));
            scene.sim.0.borrow_mut().begin_step();
            scene.event_loop.turn(&mut scene.entries, Vec::new());
            let mut world = scene.sim.0.borrow_mut();
            let is_killed = world.process(member).is_some_and(|process| process.killed);
            if is_killed && lives(&mut world) && !world.groups[scene.group].removed {
                removed += u32::from(world.remove(scene.group).is_ok());
            }
        }
        let result = scene.handle.try_wait();
        let ended_well = matches!(result, Some(Ok(_)));
        assert!(!ended_well || !lives(&mut scene.sim.0.borrow_mut()), "call {call}: {result:?}");
    }
    assert!(removed > 0);
}

/// A removal that the thread could not make, because the directory was renamed or is gone, is left to a thread again.
#[test]
fn a_removal_that_was_not_made_is_left_to_a_thread_again() {
    let mut scene = Scene::new(1, |reaper| reaper);
    scene.until_a_job();
    for (_, id, _) in scene.event_loop.jobs.take() {
        scene.event_loop.commands.push_back(Command::Answer(id, Answer::Removed(None)));
    }
    scene.event_loop.turn(&mut scene.entries, Vec::new());
    assert!(scene.jobs() == 1 && !scene.handle.is_complete());
    scene.pass(SOON);
    assert!(matches!(scene.handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))));
}

/// At the deadline SIGKILL does not depend on a thread that has not begun.
#[test]
fn a_write_that_has_not_begun_is_made_at_the_deadline() {
    let ms = Duration::from_millis;
    let insist = |reaper: Reaper| reaper.method(KillMethod::CgroupKill).deadline(ms(300));
    for linger in [false, true] {
        let mut scene = Scene::new(3, |reaper| match linger {
            true => insist(reaper).linger(SOON),
            false => insist(reaper),
        });
        scene.pass(ms(290));
        assert!(!scene.any_killed() && !scene.handle.is_complete());
        // Whatever is left to a thread from now on is not begun.
        for _ in 0..30 {
            scene.pass(ms(10));
            scene.event_loop.jobs.get_mut().iter_mut().for_each(|(done, ..)| *done = Duration::MAX);
        }
        // The dead are no more.
        let spares =
            scene.sim.0.borrow().processes.iter().any(|process| process.pid != SELF && !process.killed);
        assert!(!spares && scene.handle.is_complete(), "linger: {linger}, {:?}", scene.handle);
    }
}
