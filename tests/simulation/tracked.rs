//! The processes that a reap tracks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{CPU, FREEZER, Features, FrozenBy, LOG, Nature, Proc, ROOTS, Sim, V2, World};
use super::reactors::EventLoop;
use super::scenes::{begin, entries};
use crate::cgroup::attempt::{Part, Pidfds, Rest, Tally};
use crate::cgroup::members::MemberList;
use crate::cgroup::tracked::Tracked;
use crate::cgroup::{Budget, Context, Facts, Limit, Resolver};
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Reaped};
use crate::reaper::{KillMethod, Reaper, Signal};
use crate::sys::{Pid, Sys};
use crate::time::Instant;

/// Calls `act` with what a step passes to its actions. Descriptors are watched.
fn in_context<T>(sim: &Sim, act: impl FnOnce(&mut Context<'_, Sim>) -> T) -> T {
    let resolver = Resolver::new(sim.clone(), Budget::new(100));
    let (mut metrics, mut facts) = (Metrics::default(), Facts::new(sim));
    act(&mut Context::new(&resolver, &mut metrics, &mut facts, Some(&|_, _| Ok(())), Limit::default()))
}

/// A kernel with a group of v2 that has three members, which do not exit before [`World::calm`] is called.
struct Scene {
    sim: Sim,
    inos: [u64; 3],
    pids: [Pid; 3],
}

impl Scene {
    fn new(features: Features) -> Scene {
        let mut world = World::new(fastrand::Rng::with_seed(0), features);
        let group = world.mkdir(V2, "t");
        let mut groups = ROOTS;
        groups[V2] = group;
        let hangs = Nature { hangs: true, ..Nature::default() };
        let inos = [(); 3].map(|()| world.add_process(groups, hangs, None));
        let pids = inos.map(|ino| pid(&mut world, ino));
        Scene { sim: Sim(Rc::new(RefCell::new(world))), inos, pids }
    }

    /// The newest kernel.
    fn newest() -> Scene {
        Scene::new(Features::of(Features::LEVELS - 1))
    }

    fn step<T>(&self, act: impl FnOnce(&mut Context<'_, Sim>) -> T) -> T {
        in_context(&self.sim, act)
    }

    fn all_dead(&self, tracked: &mut Tracked<Sim>, limit: Limit) -> Option<bool> {
        self.step(|context| tracked.all_dead(context, limit).expect("nothing fails"))
    }

    /// All members are tracked, and were not signalled.
    fn tracked(&self) -> Tracked<Sim> {
        let mut tracked = Tracked::new();
        let list = list(&self.pids);
        let found = self.step(|context| tracked.identify(context, &list).expect("nothing fails"));
        tracked.track(found, &list);
        tracked
    }

    fn kill(&self, number: usize) {
        self.sim.0.borrow_mut().sigkill(self.inos[number]);
    }

    /// A member is dead, and its pid is free.
    fn bury(&self, number: usize) {
        self.sim.0.borrow_mut().recycle(self.inos[number]);
    }

    fn calls(&self) -> u64 {
        self.sim.0.borrow().calls
    }

    /// The next call fails.
    fn fail(&self) {
        let mut world = self.sim.0.borrow_mut();
        (world.calls, world.churn) = (0, u8::MAX);
        world.others = |world| world.faults = if world.calls == 0 { u8::MAX } else { 0 };
    }
}

fn pid(world: &mut World, ino: u64) -> Pid {
    Pid::new(world.process(ino).expect("it lives").pid).expect("positive")
}

fn list(pids: &[Pid]) -> MemberList {
    MemberList { pids: pids.to_vec(), ..MemberList::default() }
}

fn pids(tracked: &Tracked<Sim>) -> Vec<Pid> {
    tracked.pids().collect()
}

/// One process is asked in each step.
fn one() -> Limit {
    Limit::default().until(Instant::after_start(Duration::ZERO))
}

#[test]
fn a_member_that_has_exited_is_not_identified() {
    let scene = Scene::newest();
    scene.bury(1);
    let tracked = scene.tracked();
    assert_eq!(pids(&tracked), [scene.pids[0], scene.pids[2]]);
    // Without pidfds none is, and that is no error.
    assert!(pids(&Scene::new(Features::of(0)).tracked()).is_empty());
}

/// Processes that are neither listed nor exiting are not tracked any more.
#[test]
fn a_process_that_has_left_is_forgotten() {
    let scene = Scene::newest();
    let forget = |tracked: &mut Tracked<Sim>, listed: &[Pid]| {
        scene.step(|context| tracked.forget_those_that_left(context, &list(listed)));
        pids(tracked)
    };
    let [listed, exits, _] = scene.pids;
    let mut tracked = scene.tracked();
    assert_eq!(forget(&mut tracked, &scene.pids), scene.pids);
    scene.kill(1);
    assert_eq!(forget(&mut tracked, &[listed]), [listed, exits], "the third has left the target");
    let mut tracked = scene.tracked();
    scene.bury(2);
    assert_eq!(forget(&mut tracked, &[listed]), [listed, exits], "the third is dead");
    // Another process has its pid, and is exiting.
    let mut tracked = scene.tracked();
    scene.bury(0);
    let mut world = scene.sim.0.borrow_mut();
    let hangs = Nature { hangs: true, ..Nature::default() };
    let other = world.add_process(ROOTS, hangs, Some(listed.get()));
    world.sigkill(other);
    drop(world);
    assert_eq!(forget(&mut tracked, &[]), [exits]);
}

#[test]
fn one_process_is_asked_in_a_step() {
    let scene = Scene::newest();
    let mut tracked = scene.tracked();
    scene.kill(0);
    scene.kill(1);
    let mut dead = || scene.all_dead(&mut tracked, one());
    assert_eq!([dead(), dead(), dead()], [None, Some(false), Some(false)], "from the last on");
    scene.bury(2);
    let mut world = scene.sim.0.borrow_mut();
    world.calm();
    let soon = world.now + Duration::from_millis(1);
    world.advance(soon);
    drop(world);
    assert_eq!([dead(), dead()], [None, Some(true)]);
}

/// The watched process is asked first. It counts as one that has left the target only as long as it is tracked.
#[test]
fn the_watched_process_dies_after_it_has_left() {
    let scene = Scene::newest();
    let [_, _, last] = scene.pids;
    let mut tracked = Tracked::new();
    let (mut tally, mut obstacle) = (Tally::new(), None);
    scene.step(|context| {
        let fd = context.sys.pidfd_open(last).expect("it lives");
        let verified = vec![(last, fd)];
        tracked
            .send(context, Signal::TERM, verified, true, &mut tally, &mut obstacle)
            .expect("nothing fails");
    });
    let found = scene.step(|context| tracked.identify(context, &list(&scene.pids)).expect("nothing fails"));
    tracked.track(found, &list(&scene.pids));
    assert_eq!(scene.all_dead(&mut tracked, one()), None, "the last has left the target");
    scene.kill(1);
    scene.bury(2);
    assert_eq!(scene.all_dead(&mut tracked, one()), Some(false), "the second is asked next, and is exiting");
    assert_eq!(pids(&tracked), scene.pids[..2]);
}

#[test]
fn a_process_that_cannot_be_opened_is_not_dead() {
    let scene = Scene::newest();
    let mut tracked = scene.tracked();
    scene.fail();
    let dead = scene.step(|context| tracked.all_dead(context, Limit::default()));
    assert!(dead.is_err());
    assert_eq!(pids(&tracked), scene.pids);
}

/// Once the target was empty, processes that have left are tracked further, and those that are dead are not.
#[test]
fn a_process_that_has_left_an_empty_target_is_kept() {
    let scene = Scene::newest();
    let mut tracked = scene.tracked();
    scene.bury(1);
    let forget = |tracked: &mut Tracked<Sim>| {
        scene.step(|context| tracked.forget_the_dead(context));
        pids(tracked)
    };
    assert_eq!(forget(&mut tracked), scene.pids, "the target was not empty");
    tracked.note_empty();
    assert_eq!(forget(&mut tracked), [scene.pids[0], scene.pids[2]]);
}

/// One that cannot be opened, for lack of descriptors, may live.
#[test]
fn a_process_that_cannot_be_opened_is_not_forgotten() {
    let scene = Scene::newest();
    let mut tracked = scene.tracked();
    tracked.note_empty();
    scene.fail();
    scene.step(|context| tracked.forget_the_dead(context));
    assert_eq!(pids(&tracked), scene.pids);
}

/// SIGKILL does not end a kernel thread. It is not waited for once it has left the target.
#[test]
fn a_kernel_thread_that_has_left_is_not_waited_for() {
    for level in 1..Features::LEVELS {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(level));
        let slice = world.mkdir(CPU, "slice");
        let group = world.mkdir(slice, "t");
        let own = world.processes[0].groups;
        let nature = Nature { stuck: true, kernel_thread: true, ..Nature::default() };
        let ino = world.add_process([own[FREEZER], group, own[V2]], nature, None);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let mut event_loop = EventLoop::new(&sim);
        let handle = begin(&mut entries, Reaper::at("/sys/fs/cgroup/cpu/slice/t"), &event_loop);
        event_loop.pass(&mut entries, Duration::from_secs(1));
        assert!(handle.try_wait().is_none(), "level {level}");
        assert!(sim.0.borrow_mut().process(ino).expect("it lives").killed);
        sim.0.borrow_mut().migrate(ino, own);
        event_loop.pass(&mut entries, Duration::from_secs(60));
        let result = handle.try_wait();
        assert!(
            matches!(result, Some(Ok(Reaped { outcome: Outcome::Removed, .. }))),
            "level {level}: {result:?}"
        );
    }
}

/// Each process is opened once, and the pidfd of the watched process is used.
#[test]
fn exiting_processes_are_opened() {
    let scene = Scene::newest();
    let mut tracked = scene.tracked();
    scene.kill(0);
    scene.kill(1);
    assert_eq!(scene.all_dead(&mut tracked, Limit::default()), Some(false), "the second is watched now");
    let before = scene.calls();
    let opened: Vec<_> = scene.step(|context| tracked.open_exiting(context).collect());
    let opened = opened.iter().map(|(pid, fd)| (*pid, Sim::process_of_pidfd(fd)));
    assert!(opened.eq([(scene.pids[0], scene.inos[0]), (scene.pids[1], scene.inos[1])]));
    let with_watch = scene.calls() - before;
    let before = scene.calls();
    assert_eq!(scene.step(|context| tracked.open_exiting(context).count()), 2);
    assert!(scene.calls() - before > with_watch, "it is not watched any more");
}

fn open(scene: &Scene, tracked: &mut Tracked<Sim>, rest: &mut Rest<Sim>) -> std::io::Result<Pidfds> {
    let part = Part { most: 9, is_held: false };
    let mut obstacle = None;
    scene.step(|context| tracked.open(context, Signal::KILL, rest, part, &mut Tally::new(), &mut obstacle))
}

/// The members that are open.
fn held(scene: &Scene, rest: &mut Rest<Sim>) -> Vec<Pid> {
    rest.batch.verify(Instant::after_start(Duration::ZERO), &list(&scene.pids));
    rest.batch.take(9).iter().map(|(pid, _)| *pid).collect()
}

#[test]
fn members_that_have_exited_are_passed_over() {
    let scene = Scene::newest();
    scene.bury(1);
    let (mut tracked, mut rest) = (Tracked::new(), Rest::new(list(&scene.pids)));
    let opened = open(&scene, &mut tracked, &mut rest).expect("nothing fails");
    assert_eq!(opened, Pidfds::Opened { full: false });
    assert_eq!(held(&scene, &mut rest), [scene.pids[0], scene.pids[2]]);
}

/// Without any pidfd there is nothing to signal before more can be opened.
#[test]
fn no_descriptor_at_all_is_an_error() {
    let scene = Scene::newest();
    let (mut tracked, mut rest) = (Tracked::new(), Rest::new(list(&scene.pids)));
    let free = scene.sim.0.borrow().descriptors;
    scene.sim.0.borrow_mut().descriptor_limit = free;
    assert!(open(&scene, &mut tracked, &mut rest).is_err());
    scene.sim.0.borrow_mut().descriptor_limit = free + 2;
    let opened = open(&scene, &mut tracked, &mut rest).expect("two can be opened");
    assert_eq!(opened, Pidfds::Opened { full: true });
    assert_eq!(held(&scene, &mut rest), scene.pids[..2]);
}

/// Members that an attempt did not come to are new members for the next.
#[test]
fn members_that_were_not_handled_are_new() {
    let scene = Scene::newest();
    let (mut tracked, mut rest) = (Tracked::new(), Rest::new(list(&scene.pids)));
    open(&scene, &mut tracked, &mut rest).expect("nothing fails");
    assert!(scene.pids.iter().all(|&pid| tracked.was_tried(pid)));
    tracked.untry(Vec::new());
    tracked.untry(vec![scene.pids[2], scene.pids[0]]);
    assert_eq!(scene.pids.map(|pid| tracked.was_tried(pid)), [false, true, false]);
    assert_eq!(tracked.compare(&list(&scene.pids)), (true, false));
}

/// Sends a signal to a member, and returns the signals that the kernel was asked for, and how many of them are counted.
fn sent(
    scene: &Scene,
    tracked: &mut Tracked<Sim>,
    number: usize,
    signal: Signal,
    by_pidfd: bool,
) -> (Vec<i32>, u64) {
    let pid = scene.pids[number];
    let (mut tally, mut obstacle) = (Tally::new(), None);
    LOG.set(Some(String::new()));
    let counted = scene.step(|context| {
        let sent = if by_pidfd {
            let verified = vec![(pid, context.sys.pidfd_open(pid).expect("it lives"))];
            tracked.send(context, signal, verified, false, &mut tally, &mut obstacle)
        } else {
            tracked.send_unverified(context, signal, &list(&[pid]), &mut tally, &mut obstacle)
        };
        sent.expect("nothing fails");
        context.metrics.signals
    });
    let log = LOG.take().expect("it was set");
    let signals =
        log.lines().filter_map(|line| line.split_once(" signal ")?.1.split(' ').next()?.parse().ok());
    (signals.collect(), counted)
}

/// Members that the list of an attempt has missed are new, though an attempt with another signal has handled them.
#[test]
fn members_that_an_attempt_has_missed_are_new() {
    let scene = Scene::newest();
    let mut tracked = Tracked::new();
    open(&scene, &mut tracked, &mut Rest::new(list(&scene.pids))).expect("nothing fails");
    (0..3).for_each(|number| _ = sent(&scene, &mut tracked, number, Signal::TERM, true));
    tracked.begin(Signal::TERM);
    assert_eq!(tracked.compare(&list(&scene.pids)), (false, false));
    tracked.begin(Signal::KILL);
    open(&scene, &mut tracked, &mut Rest::new(list(&scene.pids[..2]))).expect("nothing fails");
    assert_eq!(tracked.compare(&list(&scene.pids)), (true, false));
}

/// A stopped member acts on the signal of the grace period, because it is continued. SIGKILL needs no help. A member that may not
/// be signalled is not continued either.
#[test]
fn members_are_continued_for_the_signal_of_the_grace() {
    for by_pidfd in [true, false] {
        let scene = Scene::newest();
        scene.sim.0.borrow_mut().process(scene.inos[1]).expect("it lives").nature.foreign = true;
        let mut tracked = Tracked::new();
        let mut sent = |number, signal| sent(&scene, &mut tracked, number, signal, by_pidfd);
        assert_eq!(sent(0, Signal::TERM), (vec![libc::SIGTERM, libc::SIGCONT], 1));
        assert_eq!(sent(1, Signal::TERM), (vec![], 0));
        assert_eq!(scene.sim.0.borrow().refusals.len(), 1, "by pidfd: {by_pidfd}");
        if !by_pidfd {
            assert_eq!(sent(0, Signal::TERM), (vec![], 0), "it is sent once");
        }
        for _ in 0..2 {
            assert_eq!(sent(0, Signal::KILL), (vec![libc::SIGKILL], 1), "it is sent as often as wanted");
        }
    }
}

/// A member that dies after it was opened was not signalled, and that is no error.
#[test]
fn a_member_that_dies_before_its_signal_is_no_error() {
    let scene = Scene::newest();
    let mut tracked = Tracked::new();
    let (mut tally, mut obstacle) = (Tally::new(), None);
    scene.step(|context| {
        let verified = vec![(scene.pids[0], context.sys.pidfd_open(scene.pids[0]).expect("it lives"))];
        scene.bury(0);
        let sent = tracked.send(context, Signal::KILL, verified, false, &mut tally, &mut obstacle);
        assert!(sent.is_ok() && context.metrics.signals == 0);
    });
    assert!(tally.signalled == 0 && obstacle.is_none());
}

/// SIGKILL is sent again in each fourth attempt: another process may have got the pid of one that was sent it.
#[test]
fn sigkill_is_sent_again_in_the_fourth_attempt() {
    let scene = Scene::newest();
    let mut tracked = Tracked::new();
    let mut opened = Vec::new();
    for _ in 0..8 {
        let mut rest = Rest::new(list(&scene.pids));
        open(&scene, &mut tracked, &mut rest).expect("nothing fails");
        opened.push(held(&scene, &mut rest).len());
        if opened.len() == 1 {
            (0..3).for_each(|number| _ = sent(&scene, &mut tracked, number, Signal::KILL, true));
        }
        tracked.attempted();
    }
    assert_eq!(opened, [3, 0, 0, 3, 0, 0, 0, 3]);
}

#[test]
fn members_that_were_sent_sigkill_need_no_more() {
    let scene = Scene::newest();
    let mut tracked = Tracked::new();
    open(&scene, &mut tracked, &mut Rest::new(list(&scene.pids))).expect("nothing fails");
    (0..2).for_each(|number| _ = sent(&scene, &mut tracked, number, Signal::KILL, true));
    assert!(!tracked.need_no_more(&list(&scene.pids)));
    assert!(tracked.need_no_more(&list(&scene.pids[..2])));
    assert!(!tracked.need_no_more(&list(&[])), "there may be others");
    let unmapped = MemberList { unmapped: 1, ..list(&scene.pids[..2]) };
    assert!(!tracked.need_no_more(&unmapped), "one has no pid here");
}

/// A process that has left by the second list is none that `cgroup.kill` reaches. Where exiting tasks are not listed, it
/// is not waited for when it exits in another group, later and slowly.
#[test]
fn a_process_that_left_before_the_kill_is_not_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(V2, "slice");
    let mut groups = world.processes[0].groups;
    groups[V2] = slice;
    let hangs = Nature { hangs: true, ..Nature::default() };
    let [leaves, stays] = [hangs, Nature::default()].map(|nature| world.add_process(groups, nature, None));
    let (gone, left) = (pid(&mut world, leaves), pid(&mut world, stays));
    let sim = Sim(Rc::new(RefCell::new(world)));
    in_context(&sim, |kernel| {
        let mut signalled = Tracked::new();
        let identified = signalled.identify(kernel, &list(&[gone, left])).expect("nothing fails");
        sim.0.borrow_mut().migrate(leaves, ROOTS);
        signalled.track(identified, &list(&[left]));
        assert_eq!(signalled.pids().collect::<Vec<_>>(), list(&[left]).pids);
        let mut all_dead = || signalled.all_dead(kernel, Limit::default()).expect("nothing fails");
        let mut world = sim.0.borrow_mut();
        world.sigkill(leaves);
        world.sigkill(stays);
        drop(world);
        assert_eq!(all_dead(), Some(false));
        let soon = sim.0.borrow().now + Duration::from_millis(1);
        sim.0.borrow_mut().advance(soon);
        assert_eq!(all_dead(), Some(true));
    });
}

/// A process that a list has missed, since it was moved meanwhile, seems to live elsewhere. It is still waited for if it exits as
/// a member later, when no list has it.
#[test]
fn a_process_that_comes_back_is_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let mut groups = world.processes[0].groups;
    groups[CPU] = slice;
    let ino = world.add_process(groups, Nature { hangs: true, ..Nature::default() }, None);
    let pid = pid(&mut world, ino);
    let sim = Sim(Rc::new(RefCell::new(world)));
    in_context(&sim, |kernel| {
        let members = list(&[pid]);
        let mut tracked = Tracked::new();
        let identified = tracked.identify(kernel, &members).expect("nothing fails");
        tracked.track(identified, &members);
        let mut ask = |tracked: &mut Tracked<Sim>| {
            tracked.ask_anew();
            let dead = tracked.all_dead(kernel, Limit::default()).expect("nothing fails");
            if dead == Some(true) {
                tracked.note_empty();
            }
            dead
        };
        assert_eq!(ask(&mut tracked), Some(true), "it lives elsewhere, as far as the list tells");
        sim.0.borrow_mut().sigkill(ino);
        assert_eq!(ask(&mut tracked), Some(false), "it is exiting");
        sim.0.borrow_mut().calm();
        let soon = sim.0.borrow().now + Duration::from_millis(1);
        sim.0.borrow_mut().advance(soon);
        assert_eq!(ask(&mut tracked), Some(true));
        assert_eq!(tracked.pids().count(), 0, "it is dead");
    });
}

/// The same, if it comes back between two steps of one check.
#[test]
fn a_process_that_comes_back_amid_a_check_is_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let groups = world.processes[0].groups;
    let nature = Nature { hangs: true, ..Nature::default() };
    let [other, ino] = [(); 2].map(|()| world.add_process(groups, nature, None));
    let members = list(&[pid(&mut world, other), pid(&mut world, ino)]);
    let over = Limit::default().until(Instant::after_start(Duration::ZERO));
    let sim = Sim(Rc::new(RefCell::new(world)));
    in_context(&sim, |kernel| {
        let mut tracked = Tracked::new();
        let identified = tracked.identify(kernel, &members).expect("nothing fails");
        tracked.track(identified, &members);
        assert_eq!(tracked.all_dead(kernel, over).expect("nothing fails"), None, "one of two was asked");
        sim.0.borrow_mut().sigkill(ino);
        let dead = [(); 2].map(|()| tracked.all_dead(kernel, over).expect("nothing fails"));
        assert_eq!(dead, [None, Some(false)]);
    });
}

/// After a kill of every member by `cgroup.kill` and by signals, a member that is not among the signalled is new.
#[test]
fn a_member_that_joins_after_a_kill_of_both_kinds_is_new() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(V2, "slice");
    let mut groups = world.processes[0].groups;
    groups[V2] = slice;
    let nature = Nature { hangs: true, ..Nature::default() };
    let [member, new_member] = [(); 2].map(|()| world.add_process(groups, nature, None));
    let (member, new_member) = (pid(&mut world, member), pid(&mut world, new_member));
    let sim = Sim(Rc::new(RefCell::new(world)));
    in_context(&sim, |kernel| {
        // The list of the attempt may have none: those that are killed are not listed any more.
        let mut empty = Tracked::<Sim>::new();
        empty.killed_all(None);
        empty.lists_members();
        assert_eq!(empty.compare(&list(&[member])), (true, false));
        let mut signalled = Tracked::new();
        signalled.killed_all(None);
        signalled.lists_members();
        let mut rest = Rest::new(list(&[member]));
        let part = Part { most: 9, is_held: false };
        let (mut tally, mut obstacle) = (Tally::new(), None);
        let opened = signalled.open(kernel, Signal::KILL, &mut rest, part, &mut tally, &mut obstacle);
        assert_eq!(opened.expect("nothing fails"), Pidfds::Opened { full: false });
        assert!(rest.batch.verify(Instant::after_start(Duration::ZERO), &list(&[member])).is_empty());
        let verified = rest.batch.take(9);
        signalled
            .send(kernel, Signal::KILL, verified, true, &mut tally, &mut obstacle)
            .expect("nothing fails");
        assert_eq!(tally.signalled, 1);
        assert_eq!(signalled.compare(&list(&[member, new_member])), (true, false));
    });
}

/// The caller may be in the target for a moment. It is not waited for, also where no /proc says that it does not exit.
#[test]
fn the_caller_that_has_left_is_not_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    world.vantage.proc = Proc::None;
    let sim = Sim(Rc::new(RefCell::new(world)));
    in_context(&sim, |kernel| {
        let list = list(&[sim.caller().0]);
        let mut tracked = Tracked::new();
        let identified = tracked.identify(kernel, &list).expect("nothing fails");
        tracked.track(identified, &list);
        assert_eq!(tracked.all_dead(kernel, Limit::default()).expect("nothing fails"), Some(true));
    });
}

/// A process that has left is not waited for, though its main thread has exited: another lives.
#[test]
fn a_process_without_its_main_thread_that_has_left_is_not_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let groups = world.processes[0].groups;
    let ino = world.add_process(groups, Nature { leaderless: true, ..Nature::default() }, None);
    let pid = pid(&mut world, ino);
    let sim = Sim(Rc::new(RefCell::new(world)));
    in_context(&sim, |kernel| {
        let members = list(&[pid]);
        let mut tracked = Tracked::new();
        let identified = tracked.identify(kernel, &members).expect("nothing fails");
        tracked.track(identified, &members);
        assert_eq!(tracked.all_dead(kernel, Limit::default()).expect("nothing fails"), Some(true));
    });
}

/// A process that was killed leaves the target while another party freezes it, and comes back after the target was empty. It is
/// exiting then, and not listed, and another party removes the cgroup.
#[test]
fn a_killed_process_that_comes_back_after_the_target_was_empty_is_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(V2, "slice");
    let group = world.mkdir(slice, "t");
    let frozen = world.mkdir(FREEZER, "frozen");
    let own = world.processes[0].groups;
    let outside = [frozen, own[CPU], own[V2]];
    let inside = [frozen, own[CPU], group];
    let ino = world.add_process(inside, Nature { hangs: true, ..Nature::default() }, None);
    // Another process there keeps the library from thawing it.
    world.add_process(outside, Nature::default(), None);
    world.set_frozen(frozen, Some(FrozenBy::Others));
    // The target cannot be removed.
    world.groups[group].busy = true;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    let reaper = Reaper::at("/sys/fs/cgroup/unified/slice/t").method(KillMethod::Pidfd);
    let handle = begin(&mut entries, reaper, &event_loop);
    let mut then = |act: &dyn Fn(&mut World)| {
        sim.0.borrow_mut().begin_step();
        act(&mut sim.0.borrow_mut());
        event_loop.pass(&mut entries, Duration::from_millis(500));
    };
    then(&|world| world.migrate(ino, outside));
    // The freeze that keeps SIGKILL pending does not hold it any more.
    then(&|world| world.migrate(ino, [own[FREEZER], own[CPU], group]));
    then(&|world| {
        world.groups[group].busy = false;
        world.remove(group).expect("it lists no process");
    });
    assert!(handle.try_wait().is_none(), "it is exiting: {:?}", handle.try_wait());
    then(&World::calm);
    assert_eq!(handle.try_wait().expect("it ends").expect("reaped").outcome, Outcome::Removed);
}
