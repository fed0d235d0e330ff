//! Processes whose main thread has exited while another lives, and processes of other pid namespaces: v2 lists of processes do not
//! have the one where it was moved to, and have no pid of the other.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{FREEZER, Features, FrozenBy, GroupId, Life, Nature, ROOTS, Sim, V2, World};
use super::reactors::EventLoop;
use super::scenes::{begin, entries, run};
use crate::cgroup::external_freeze::frozen_by;
use crate::cgroup::hierarchy::Version;
use crate::cgroup::members::MemberList;
use crate::cgroup::mounts::Mount;
use crate::cgroup::proc::Proc;
use crate::cgroup::{Budget, Context, Facts, Limit, Resolver};
use crate::entries::Entries;
use crate::handle::ReapHandle;
use crate::machine::{End, KillBy, Members, Reach};
use crate::metrics::Metrics;
use crate::outcome::{Act, Effort, Outcome, ReapError, Reaped};
use crate::reaper::{KillMethod, Reaper, Signal};
use crate::sys::{Open, Pid, Sys};

const METHODS: [KillMethod; 3] = [KillMethod::Auto, KillMethod::Pidfd, KillMethod::Freezer];

/// Those that have pidfds, and so can signal the members one by one.
fn levels() -> impl Iterator<Item = usize> {
    1..Features::LEVELS
}

/// The v2 group of the reap, in a world that has these features.
fn world(level: usize) -> (World, GroupId) {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(level));
    let slice = world.mkdir(V2, "slice");
    let group = world.mkdir(slice, "t");
    (world, group)
}

fn reaper() -> Reaper {
    Reaper::at("/sys/fs/cgroup/unified/slice/t")
}

/// A process that lists of processes do not have: it comes to the group once its main thread has exited.
fn add_unlisted(world: &mut World, group: GroupId, nature: Nature) -> u64 {
    let own = world.processes[0].groups;
    let ino = world.add_process(own, Nature { leaderless: true, ..nature }, None);
    let mut groups = own;
    groups[V2] = group;
    world.migrate(ino, groups);
    ino
}

fn add(world: &mut World, group: GroupId, nature: Nature) -> u64 {
    let mut groups = world.processes[0].groups;
    groups[V2] = group;
    world.add_process(groups, nature, None)
}

/// Begins a reap in this world.
fn spawn(world: World, reaper: Reaper) -> (Sim, Entries<Sim>, ReapHandle) {
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
    (sim, entries, handle)
}

fn is_killed(sim: &Sim, ino: u64) -> bool {
    sim.0.borrow_mut().process(ino).is_none_or(|process| process.killed)
}

/// Drives the entries until this time.
fn run_until(sim: &Sim, entries: &mut Entries<Sim>, due: Duration) {
    let mut event_loop = EventLoop::new(sim);
    while sim.0.borrow().now < due {
        let next = entries.next_tick().map_or(due, Duration::from_millis).min(due);
        sim.0.borrow_mut().advance(next);
        let tokens = sim.0.borrow_mut().take_notified(0);
        event_loop.turn(entries, tokens);
    }
}

/// Another member cannot exit, so that the list of processes is never empty.
#[test]
fn a_member_of_which_only_threads_are_listed_is_killed_beside_one_that_cannot_exit() {
    for method in METHODS {
        for level in levels() {
            let (mut world, group) = world(level);
            add(&mut world, group, Nature { hangs: true, ..Nature::default() });
            let unlisted = add_unlisted(&mut world, group, Nature::default());
            let start = world.now;
            let (sim, mut entries, handle) = spawn(world, reaper().method(method));
            match method {
                // The freeze takes its time.
                KillMethod::Freezer => run(&sim, &mut entries),
                // The fourth attempt.
                _ => run_until(&sim, &mut entries, start + Duration::from_millis(210)),
            }
            assert!(is_killed(&sim, unlisted), "{method:?}, level {level}");
            assert!(!handle.is_complete(), "the other lives");
        }
    }
}

/// At a deadline before the fourth attempt, too, where `cgroup.kill` was written: by the one attempt that is made then.
#[test]
fn a_member_of_which_only_threads_are_listed_is_killed_at_the_deadline() {
    let deadline = Duration::from_millis(5);
    for level in levels().filter(|&level| Features::of(level).cgroup_kill) {
        let (mut world, group) = world(level);
        add(&mut world, group, Nature { stuck: true, ..Nature::default() });
        let unlisted = add_unlisted(&mut world, group, Nature::default());
        let due = world.now + deadline;
        let (sim, mut entries, handle) = spawn(world, reaper().deadline(deadline));
        assert!(!is_killed(&sim, unlisted), "level {level}");
        run_until(&sim, &mut entries, due);
        assert!(is_killed(&sim, unlisted), "level {level}");
        assert!(!handle.is_complete());
    }
}

/// More threads than one list asks for their processes, all of which stay: no process can exit.
#[test]
fn many_members_of_which_only_threads_are_listed_are_killed() {
    for method in METHODS {
        for level in levels() {
            let (mut world, group) = world(level);
            add(&mut world, group, Nature { hangs: true, ..Nature::default() });
            let hangs = Nature { hangs: true, ..Nature::default() };
            let unlisted = [(); 20].map(|()| add_unlisted(&mut world, group, hangs));
            let (sim, mut entries, _handle) = spawn(world, reaper().method(method));
            run(&sim, &mut entries);
            let left = unlisted.iter().filter(|&&ino| !is_killed(&sim, ino)).count();
            assert_eq!(left, 0, "{method:?}, level {level}");
        }
    }
}

/// A list of threads that fails keeps no listed member from being signalled.
#[test]
fn a_new_member_is_killed_where_threads_cannot_be_listed() {
    for level in levels() {
        let (mut world, group) = world(level);
        add(&mut world, group, Nature { hangs: true, ..Nature::default() });
        world.hides_threads = true;
        let start = world.now;
        let (sim, mut entries, handle) = spawn(world, reaper().method(KillMethod::Pidfd));
        run_until(&sim, &mut entries, start + Duration::from_millis(1000));
        let joined = add(&mut sim.0.borrow_mut(), group, Nature::default());
        run(&sim, &mut entries);
        assert!(is_killed(&sim, joined), "level {level}");
        assert!(!handle.is_complete());
    }
}

/// Both cannot exit, and both are named.
#[test]
fn a_survivor_of_which_only_threads_are_listed_is_named() {
    for level in levels() {
        let (mut world, group) = world(level);
        let stuck = Nature { stuck: true, ..Nature::default() };
        let inos = [add(&mut world, group, stuck), add_unlisted(&mut world, group, stuck)];
        let mut expected = inos.map(|ino| world.process(ino).expect("it lives").pid);
        expected.sort_unstable();
        let (sim, mut entries, handle) = spawn(world, reaper().deadline(Duration::from_millis(500)));
        run(&sim, &mut entries);
        match handle.try_wait() {
            Some(Err(ReapError::TimedOut { survivors, .. })) => {
                let mut pids: Vec<i32> = survivors.iter().map(|survivor| survivor.pid).collect();
                pids.sort_unstable();
                assert_eq!(pids, expected, "level {level}");
            }
            other => panic!("level {level}: {other:?}"),
        }
    }
}

/// A thread that is the main one of a process that is listed is not asked for its process.
#[test]
fn main_threads_are_not_looked_up() {
    let calls = |members: usize, unlisted: usize| {
        let (mut world, group) = world(Features::LEVELS - 1);
        (0..members).for_each(|_| _ = add(&mut world, group, Nature::default()));
        (0..unlisted).for_each(|_| _ = add_unlisted(&mut world, group, Nature::default()));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut list = MemberList::new(Some(0));
        let dir = sim.open(None, c"/sys/fs/cgroup/unified/slice/t", Open::Place).expect("it is there");
        let before = sim.0.borrow().calls;
        list.add(&sim, &dir, Path::new(""), Version::V2).expect("nothing fails");
        assert_eq!(list.len(), members + unlisted);
        sim.0.borrow().calls - before
    };
    assert_eq!(calls(2, 0), calls(12, 0));
    // A process is in the list once, however many threads it has.
    assert!(calls(2, 1) > calls(2, 0));
}

/// Its threads are in a frozen cgroup of another v1 hierarchy, and /proc says of its main thread that it is in the root.
#[test]
fn a_freeze_that_holds_the_other_threads_is_found() {
    for is_alone in [true, false] {
        for level in levels() {
            let (mut world, group) = world(level);
            let frozen = world.mkdir(FREEZER, "frozen");
            let mut groups = world.processes[0].groups;
            (groups[FREEZER], groups[V2]) = (frozen, group);
            world.add_process(groups, Nature { leaderless: true, ..Nature::default() }, None);
            if !is_alone {
                groups[V2] = ROOTS[V2];
                world.add_process(groups, Nature::default(), None);
            }
            world.set_frozen(frozen, Some(FrozenBy::Others));
            let (sim, mut entries, handle) = spawn(world, reaper().freeze_timeout(Duration::from_secs(1)));
            run(&sim, &mut entries);
            match handle.try_wait() {
                Some(Ok(Reaped { outcome: Outcome::Removed, .. })) if is_alone => {}
                Some(Err(ReapError::FrozenByAncestor { frozen_by: Some(by), .. }))
                    if !is_alone && by.ends_with("frozen") => {}
                other => panic!("alone: {is_alone}, level {level}: {other:?}"),
            }
        }
    }
}

/// The same with members of which one is listed and another is not.
#[test]
fn a_freeze_that_holds_members_of_both_lists_is_undone() {
    for listed_too in [true, false] {
        for level in levels() {
            let (mut world, group) = world(level);
            let frozen = world.mkdir(FREEZER, "frozen");
            let mut own = world.processes[0].groups;
            own[FREEZER] = frozen;
            let mut groups = own;
            groups[V2] = group;
            if listed_too {
                world.add_process(groups, Nature::default(), None);
            } else {
                add(&mut world, group, Nature { hangs: true, ..Nature::default() });
            }
            let ino = world.add_process(own, Nature { leaderless: true, ..Nature::default() }, None);
            world.migrate(ino, groups);
            world.set_frozen(frozen, Some(FrozenBy::Others));
            let (sim, mut entries, handle) = spawn(world, reaper().freeze_timeout(Duration::from_secs(1)));
            EventLoop::new(&sim).pass(&mut entries, Duration::from_secs(10));
            let is_dead = sim.0.borrow_mut().process(ino).is_none_or(|it| it.life == Life::Dead);
            assert!(is_dead, "listed too: {listed_too}, level {level}: {:?}", handle.try_wait());
            if listed_too {
                let result = handle.try_wait();
                assert!(matches!(result, Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{result:?}");
            }
        }
    }
}

/// A step lists the threads of no further process once it has looked up as many threads as it may.
#[test]
fn threads_are_not_listed_once_enough_were_looked_up() {
    let (mut world, group) = world(Features::LEVELS - 1);
    let ino = add(&mut world, group, Nature::default());
    let pid = Pid::new(world.process(ino).expect("it lives").pid).expect("positive");
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mounts = Mount::all(&sim).expect("mountinfo");
    let proc = Proc::open(&sim).expect("nothing fails").expect("its own");
    let calls = |mut threads: usize| {
        let before = sim.0.borrow().calls;
        assert_eq!(frozen_by(&proc, pid, &mounts, &mut threads).expect("nothing fails"), None);
        sim.0.borrow().calls - before
    };
    assert!(calls(0) < calls(1));
}

/// Until Linux 6.15 the kernel tells nothing of a live process whose parent is outside of the caller's pid namespace, as if it had
/// exited. In a large cgroup, whose members are signalled in steps, it is signalled nevertheless.
#[test]
fn a_live_member_of_which_the_kernel_tells_nothing_is_signalled() {
    let hangs = Nature { hangs: true, ..Nature::default() };
    let injected = Nature { injected: true, ..hangs };
    let grace = reaper().grace(Signal::TERM, Duration::from_secs(5));
    for reaper in [grace, reaper().method(KillMethod::Pidfd)] {
        for level in levels() {
            let (mut world, group) = world(level);
            let inos = [hangs, injected, hangs, injected].map(|nature| add(&mut world, group, nature));
            let sim = Sim(Rc::new(RefCell::new(world)));
            let mut entries = entries(&sim);
            entries.limit(Some(Duration::ZERO));
            let has_grace = reaper.method != KillMethod::Pidfd;
            let mut event_loop = EventLoop::new(&sim);
            let _handle = begin(&mut entries, reaper.clone(), &event_loop);
            event_loop.pass(&mut entries, Duration::from_secs(4));
            let mut world = sim.0.borrow_mut();
            for ino in inos {
                let process = world.process(ino).expect("it hangs");
                let is_signalled = if has_grace { process.termed.is_some() } else { process.killed };
                assert!(is_signalled, "level {level}, grace: {has_grace}, {ino} of {inos:?}");
            }
        }
    }
}

/// The same of one of which only threads are listed: /proc tells its process.
#[test]
fn a_process_of_which_the_kernel_tells_nothing_is_found_by_its_threads() {
    for method in METHODS {
        for level in levels() {
            let (mut world, group) = world(level);
            let ino = add_unlisted(&mut world, group, Nature { injected: true, ..Nature::default() });
            let (sim, mut entries, _handle) = spawn(world, reaper().method(method));
            EventLoop::new(&sim).pass(&mut entries, Duration::from_secs(10));
            assert!(is_killed(&sim, ino), "{method:?}, level {level}");
        }
    }
}

/// Only `cgroup.kill` reaches a process of another pid namespace. Without it the reap ends, as for one that may not be signalled.
#[test]
fn a_member_of_another_pid_namespace_that_nothing_reaches_is_a_refusal() {
    for method in METHODS {
        for level in levels() {
            let (mut world, group) = world(level);
            add(&mut world, group, Nature { unmapped: true, ..Nature::default() });
            let reaches = world.features.cgroup_kill && method == KillMethod::Auto;
            let (sim, mut entries, handle) = spawn(world, reaper().method(method));
            run(&sim, &mut entries);
            match handle.try_wait() {
                Some(Ok(Reaped { outcome: Outcome::Removed, .. })) if reaches => {}
                Some(Err(ReapError::Denied { act: Act::Kill, path, source, .. }))
                    if !reaches && source.raw_os_error() == Some(libc::EPERM) =>
                {
                    assert_eq!(path.to_str(), Some("/sys/fs/cgroup/unified/slice/t/cgroup.procs"));
                }
                other => panic!("{method:?}, level {level}: {other:?}"),
            }
        }
    }
}

/// A refused write to `cgroup.kill` is made again, where nothing else reaches a member.
#[test]
fn a_write_that_was_refused_may_be_let_later() {
    let (mut world, group) = world(Features::LEVELS - 1);
    let ino = add(&mut world, group, Nature { unmapped: true, ..Nature::default() });
    world.groups[group].denied = true;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let resolver = Resolver::new(sim.clone(), Budget::new(100));
    let (mut target, findings) = resolver.resolve(&reaper(), Limit::default()).expect("nothing refuses it");
    let (mut metrics, mut facts) = (Metrics::default(), Facts::new(&sim));
    let mut context = Context::new(&resolver, &mut metrics, &mut facts, None, Limit::default());
    let mut step = target.step(&mut context, findings);
    let attempt = step.kill(KillBy::CgroupKillAndSignals { last: false });
    assert_eq!((attempt.reach, is_killed(&sim, ino)), (Reach::Denied, false));
    sim.0.borrow_mut().groups[group].denied = false;
    let attempt = step.kill(KillBy::Signals(Members::Frozen));
    assert_eq!((attempt.reach, is_killed(&sim, ino)), (Reach::All, true));
}

/// `cgroup.kill` has reached it, and it cannot exit yet.
#[test]
fn a_member_of_another_pid_namespace_that_is_slow_to_exit_is_waited_for() {
    for level in levels().filter(|&level| Features::of(level).cgroup_kill) {
        let (mut world, group) = world(level);
        add(&mut world, group, Nature { unmapped: true, hangs: true, ..Nature::default() });
        add(&mut world, group, Nature { hangs: true, ..Nature::default() });
        let (sim, mut entries, handle) = spawn(world, reaper());
        run(&sim, &mut entries);
        assert!(!handle.is_complete(), "level {level}: {:?}", handle.try_wait());
    }
}

/// v2 lists a process that is reaped amid the read as one of another pid namespace. It is no survivor.
#[test]
fn a_line_0_that_goes_is_no_survivor() {
    for lists in 0..3 {
        let (mut world, group) = world(Features::LEVELS - 1);
        add(&mut world, group, Nature { unmapped: true, ..Nature::default() });
        world.churn = u8::MAX;
        world.acts = lists;
        world.others = |world| {
            if world.lists_read >= world.acts {
                world.processes[1].life = Life::Dead;
            }
        };
        let sim = Sim(Rc::new(RefCell::new(world)));
        let resolver = Resolver::new(sim.clone(), Budget::new(100));
        let (mut target, findings) =
            resolver.resolve(&reaper(), Limit::default()).expect("nothing refuses it");
        sim.0.borrow_mut().lists_read = 0;
        let (mut metrics, mut facts) = (Metrics::default(), Facts::new(&sim));
        let mut context = Context::new(&resolver, &mut metrics, &mut facts, None, Limit::default());
        let error = target.step(&mut context, findings).error(End::TimedOut, Effort::default());
        let ReapError::TimedOut { survivors, .. } = error else { panic!("{error:?}") };
        // It dies before the first list, between the two, or after them.
        assert_eq!(survivors.len(), usize::from(lists == 2), "after {lists} lists: {survivors:?}");
    }
}
