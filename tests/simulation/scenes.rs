//! Single scenes, each with one thing going wrong at each of its system calls in turn.

use std::cell::RefCell;
use std::iter;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::kernel::{
    CPU, FREEZER, Features, FrozenBy, Life, MOUNTS, Nature, Proc, ROOTS, SELF, Sim, V2, World,
};
use super::queue;
use super::reactors::EventLoop;
use crate::cgroup::{Budget, Context, Facts, Findings, Limit, Resolver, Target};
use crate::entries::Command;
use crate::entries::{Entries, Spawn};
use crate::entry_id::EntryId;
use crate::handle::{self, ReapHandle};
use crate::machine::{Attempt, Froze, KillBy, Members, Reach, ThawScope, Thawed};
use crate::metrics::Metrics;
use crate::outcome::{Act, Outcome, ReapError, Reaped, Refusal, UsedMethod};
use crate::reaper::{CgroupOptions, KillMethod, Reaper, Signal};
use crate::remote::Queue;

/// More system calls than a scene makes.
const CALLS: u32 = 60;

/// A world where `then` is done before each call, with the number that is chosen for the scene in `acts`.
fn world(call: u32, then: fn(&mut World)) -> World {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    world.churn = u8::MAX;
    world.acts = call;
    world.others = then;
    world
}

fn reaper(subsystems: &[&str]) -> Reaper {
    let options = CgroupOptions::new("/sys/fs/cgroup").slice("slice").subsystems(subsystems);
    Reaper::new(options, "t")
}

pub(super) fn entries(sim: &Sim) -> Entries<Sim> {
    Entries::new(Resolver::new(sim.clone(), Budget::new(100)))
}

/// Begins a reap that nothing refuses.
pub(super) fn begin(entries: &mut Entries<Sim>, reaper: Reaper, event_loop: &EventLoop) -> ReapHandle {
    begin_on(&queue().1, entries, reaper, event_loop)
}

/// The same, with the queue that the handle sends its commands by.
fn begin_on(
    queue: &Arc<Queue>,
    entries: &mut Entries<Sim>,
    reaper: Reaper,
    event_loop: &EventLoop,
) -> ReapHandle {
    let resolved = entries.resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
    begin_resolved(queue, entries, reaper, resolved, event_loop)
}

/// The same, with what the checks have found.
pub(super) fn begin_resolved(
    queue: &Arc<Queue>,
    entries: &mut Entries<Sim>,
    reaper: Reaper,
    (target, findings): (Target<Sim>, Findings<Sim>),
    event_loop: &EventLoop,
) -> ReapHandle {
    let (completer, handle) = handle::channel(target.shared_path(), queue);
    entries.spawn(Spawn { reaper, target, findings, completer }, event_loop);
    handle
}

/// A reap of the group `t` in cpu, which has begun.
fn spawn(world: World) -> (Sim, Entries<Sim>, ReapHandle) {
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let reaper = reaper(&["cpu"]);
    let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
    (sim, entries, handle)
}

/// Lets time pass, and the reaps go on.
pub(super) fn run(sim: &Sim, entries: &mut Entries<Sim>) {
    let mut event_loop = EventLoop::new(sim);
    for _ in 0..1000 {
        let next = entries.next_tick().map(Duration::from_millis);
        let next = next.into_iter().chain(sim.0.borrow().next_event()).min();
        sim.0.borrow_mut().advance(next.unwrap_or_default());
        let tokens = sim.0.borrow_mut().take_notified(0);
        event_loop.turn(entries, tokens);
    }
}

/// One directory of a target is removed at some moment of the spawn, while the caller sits in the other.
#[test]
fn a_group_that_vanishes_does_not_hide_the_caller_in_another() {
    for call in 1..CALLS {
        let mut world = world(call, |world| {
            let slice = world.child(FREEZER, "slice").expect("it stays");
            if let (true, Some(group)) = (world.calls >= u64::from(world.acts), world.child(slice, "t")) {
                world.remove(group).expect("it has no member");
            }
        });
        let [_, cpu] = [FREEZER, CPU].map(|root| {
            let slice = world.mkdir(root, "slice");
            world.mkdir(slice, "t")
        });
        let (caller, groups) = (world.processes[0].ino, world.processes[0].groups);
        world.migrate(caller, [groups[FREEZER], cpu, groups[V2]]);
        let resolver = Resolver::new(Sim(Rc::new(RefCell::new(world))), Budget::new(100));
        let refusal = resolver.resolve(&reaper(&["freezer", "cpu"]), Limit::default()).err();
        assert!(matches!(refusal, Some(Refusal::OwnCgroup { .. })), "removed at call {call}: {refusal:?}");
    }
}

/// A call that fails says nothing about a cgroup that is gone: only what is no place for a cgroup is refused as that.
#[test]
fn a_group_that_is_gone_is_not_taken_for_a_wrong_name() {
    let mut gone = 0;
    for seed in 0..300 {
        let mut world = World::new(fastrand::Rng::with_seed(seed), Features::of(Features::LEVELS - 1));
        world.mkdir(V2, "slice");
        world.faults = 60;
        let entries = entries(&Sim(Rc::new(RefCell::new(world))));
        let reaper = Reaper::at("/sys/fs/cgroup/unified/slice/gone");
        match entries.resolver.resolve(&reaper, Limit::default()) {
            Ok(_) => gone += 1,
            Err(Refusal::Io { .. }) => {}
            Err(refusal) => panic!("seed {seed}: {refusal:?}"),
        }
    }
    assert!((50..250).contains(&gone), "{gone}");
}

/// The root of a hierarchy, whichever, whatever the kernel says of mounts.
#[test]
fn roots_are_refused() {
    for level in 0..Features::LEVELS {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(level));
        for root in [FREEZER, CPU, V2] {
            world.mkdir(root, "group");
        }
        let resolver = Resolver::new(Sim(Rc::new(RefCell::new(world))), Budget::new(100));
        for root in MOUNTS {
            let group = resolver.resolve(&Reaper::at(format!("{root}/group")), Limit::default());
            assert!(group.is_ok_and(|(target, _)| target.found()), "{root}");
            let refusal = resolver.resolve(&Reaper::at(root), Limit::default()).err();
            assert!(matches!(refusal, Some(Refusal::Root { .. })), "{refusal:?}");
        }
    }
}

/// Another process has the pid of one that was killed, in the same group, and was not listed before.
#[test]
fn a_member_with_the_pid_of_a_signalled_process_is_killed() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let groups = [own[FREEZER], group, own[V2]];
    let first = world.add_process(groups, Nature::default(), None);
    let pid = world.process(first).expect("it lives").pid;
    let (sim, mut entries, handle) = spawn(world);
    sim.0.borrow_mut().reap(first);
    sim.0.borrow_mut().add_process(groups, Nature::default(), Some(pid));
    run(&sim, &mut entries);
    match handle.try_wait() {
        Some(Ok(Reaped { outcome: Outcome::Removed, signalled: 2, .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// SIGKILL does not reach a member that is frozen in a v1 group outside. Another party has frozen the one above that.
#[test]
fn a_member_frozen_by_an_outer_ancestor_is_thawed_there() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let group = world.mkdir(slice, "t");
    let above = world.mkdir(FREEZER, "above");
    let below = world.mkdir(above, "below");
    let own = world.processes[0].groups;
    world.add_process([below, group, own[V2]], Nature::default(), None);
    world.set_frozen(above, Some(FrozenBy::Others));
    let (sim, mut entries, handle) = spawn(world);
    run(&sim, &mut entries);
    match handle.try_wait() {
        Some(Ok(Reaped { outcome: Outcome::Removed, .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// The freeze of an ancestor ends amid the steps of a thaw. It does not count as one that lasts.
#[test]
fn a_freeze_above_that_ends_amid_a_thaw_does_not_last() {
    for ends in [false, true] {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
        let slice = world.mkdir(FREEZER, "slice");
        let group = world.mkdir(slice, "t");
        for name in ["a", "b", "c"] {
            world.mkdir(group, name);
        }
        world.set_frozen(slice, Some(FrozenBy::Others));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let resolver = Resolver::new(sim.clone(), Budget::new(100));
        let (mut target, findings) =
            resolver.resolve(&reaper(&["freezer"]), Limit::default()).expect("nothing refuses it");
        let (mut metrics, mut facts) = (Metrics::default(), Facts::new(&sim));
        let limit = Limit::after(&sim, Some(Duration::ZERO));
        let mut context = Context::new(&resolver, &mut metrics, &mut facts, None, limit);
        let mut step = target.step(&mut context, findings);
        let mut thawed = step.thaw(ThawScope::V1);
        assert_eq!(thawed, Thawed::Unfinished);
        if ends {
            sim.0.borrow_mut().set_frozen(slice, None);
        }
        while thawed == Thawed::Unfinished {
            thawed = step.continue_thaw();
        }
        assert_eq!(thawed, if ends { Thawed::All } else { Thawed::HeldFromOutside });
    }
}

/// The calling thread sits in a threaded v2 group, or below one, and its process in another group.
#[test]
fn the_group_of_the_calling_thread_is_refused() {
    for (features, target) in (0..Features::LEVELS).flat_map(|level| [(level, "t"), (level, "t/below")]) {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(features));
        let slice = world.mkdir(V2, "slice");
        let group = world.mkdir(slice, "t");
        let below = world.mkdir(group, "below");
        let own = world.processes[0].groups;
        world.thread = Some([own[FREEZER], own[CPU], below]);
        let resolver = Resolver::new(Sim(Rc::new(RefCell::new(world))), Budget::new(100));
        let refusal = resolver
            .resolve(&Reaper::at(format!("/sys/fs/cgroup/unified/slice/{target}")), Limit::default())
            .err();
        assert!(matches!(refusal, Some(Refusal::OwnCgroup { .. })), "{target}: {refusal:?}");
    }
}

/// One call of a reap fails. The processes signalled by then are counted all the same, and once.
#[test]
fn processes_signalled_before_a_call_failed_are_counted() {
    let (_poll, queue) = queue();
    for call in 0..CALLS {
        let mut world = world(call, |world| {
            world.faults = if world.calls == u64::from(world.acts) { u8::MAX } else { 0 };
        });
        let slice = world.mkdir(CPU, "slice");
        let group = world.mkdir(slice, "t");
        let own = world.processes[0].groups;
        for _ in 0..3 {
            let nature = Nature { exit: Duration::from_millis(2), ..Nature::default() };
            world.add_process([own[FREEZER], group, own[V2]], nature, None);
        }
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let reaper = reaper(&["cpu"]);
        // A call of the spawn's own checks refuses it.
        let Ok((target, findings)) = entries.resolver.resolve(&reaper, Limit::default()) else { continue };
        let (completer, handle) = handle::channel(target.shared_path(), &queue);
        let event_loop = EventLoop::new(&sim);
        entries.spawn(Spawn { reaper, target, findings, completer }, &event_loop);
        run(&sim, &mut entries);
        match handle.try_wait() {
            Some(Ok(Reaped { outcome: Outcome::Removed, signalled: 3, .. })) => {}
            other => panic!("failure of call {call}: {other:?}"),
        }
    }
}

/// The token of a reap that is over, in a command that comes late, reaches no entry: not the next reap, which has its
/// place.
#[test]
fn a_late_command_is_not_for_another() {
    for command in [Command::Cancel, Command::KillNow] {
        late_command(command);
    }
}

fn late_command(command: fn(EntryId) -> Command<Sim>) {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let own = world.processes[0].groups;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    let [first, second] = [false, true].map(|hangs| {
        // The first exits as soon as it is killed, the second is not killed.
        let mut world = sim.0.borrow_mut();
        let group = world.mkdir(slice, "t");
        let nature = Nature { hangs, ..Nature::default() };
        world.add_process([own[FREEZER], group, own[V2]], nature, None);
        drop(world);
        let mut reaper = reaper(&["cpu"]);
        if hangs {
            reaper = reaper.when_empty();
        }
        let handle = begin(&mut entries, reaper, &event_loop);
        let soon = sim.0.borrow().now + Duration::from_millis(1);
        sim.0.borrow_mut().advance(soon);
        let id = *event_loop.watched.borrow().last().expect("a watch");
        event_loop.turn(&mut entries, vec![id.token()]);
        assert_ne!(handle.is_complete(), hangs);
        id
    });
    assert_ne!(first, second);
    let killed = || sim.0.borrow().processes.iter().filter(|process| process.killed).count();
    let before = killed();
    event_loop.commands.push_back(command(first));
    event_loop.turn(&mut entries, Vec::new());
    assert_eq!((entries.len(), killed()), (1, before), "it was reached by the token of another");
    event_loop.commands.push_back(command(second));
    event_loop.turn(&mut entries, Vec::new());
    assert!(entries.len() == 0 || killed() == before + 1);
}

/// The id of a reap that is over is still queued as deferred: when its turn comes, it does not resume the reap
/// that has its slab key now.
#[test]
fn a_stale_deferred_id_leaves_another_entry_alone() {
    let (_poll, queue) = queue();
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let outside = world.processes[0].groups;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    // More members than one step signals, so that the spawn ends with a yield.
    let spawn = |entries: &mut Entries<Sim>| {
        let mut world = sim.0.borrow_mut();
        let group = world.mkdir(slice, "t");
        for _ in 0..600 {
            world.add_process([outside[FREEZER], group, outside[V2]], Nature::default(), None);
        }
        drop(world);
        let reaper = reaper(&["cpu"]);
        let handle = begin_on(&queue, entries, reaper, &EventLoop::new(&sim));
        assert!(entries.has_deferred());
        handle
    };
    let first = spawn(&mut entries);
    first.cancel();
    if let Some(command) = queue.pop() {
        let Command::Cancel(id) = command else { panic!("a cancel") };
        event_loop.commands.push_back(Command::Cancel(id));
    }
    // In one turn the cancel comes before the deferred id, which is stale by then.
    entries.begin_turn([]);
    assert!(entries.advance(&mut event_loop));
    assert!(matches!(first.try_wait(), Some(Err(ReapError::Cancelled { .. }))));
    let second = spawn(&mut entries);
    let killed = || sim.0.borrow().processes.iter().filter(|process| process.killed).count();
    let before = killed();
    while entries.advance(&mut event_loop) {}
    assert_eq!(killed(), before, "the second reap was resumed in the place of the first");
    run(&sim, &mut entries);
    assert!(matches!(second.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{second:?}");
}

/// The deadline comes while the first signal, which takes several steps, has reached some: SIGKILL begins with them.
#[test]
fn a_deadline_amid_the_first_signal_kills_every_member() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    for _ in 0..600 {
        world.add_process([own[FREEZER], group, own[V2]], Nature::default(), None);
    }
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    let (grace, deadline) = (Duration::from_secs(50), Duration::from_secs(10));
    let reaper = reaper(&["cpu"]).grace(Signal::TERM, grace).deadline(deadline);
    let handle = begin(&mut entries, reaper, &event_loop);
    let late = sim.0.borrow().now + deadline;
    sim.0.borrow_mut().advance(late);
    for _ in 0..4 {
        event_loop.turn(&mut entries, Vec::new());
    }
    let world = sim.0.borrow();
    let spared = world.processes.iter().filter(|p| p.groups[CPU] == group && !p.killed).count();
    assert_eq!(spared, 0);
    drop(world);
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{handle:?}");
}

/// The deadline passes during a check of the linger, which lists no members of v2, as it needs none. SIGKILL is sent to them
/// all the same, one by one.
#[test]
fn a_deadline_amid_a_check_of_the_linger_kills_every_member() {
    (0..Features::LEVELS).map(Features::of).filter(|features| features.pidfd).for_each(deadline_amid_a_check);
}

fn deadline_amid_a_check(features: Features) {
    let mut world = World::new(fastrand::Rng::with_seed(0), features);
    let [cpu, v2] = [CPU, V2].map(|root| {
        let slice = world.mkdir(root, "slice");
        world.mkdir(slice, "t")
    });
    let own = world.processes[0].groups;
    world.add_process([own[FREEZER], cpu, own[V2]], Nature::default(), None);
    world.add_process([own[FREEZER], own[CPU], v2], Nature::default(), None);
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    let (hour, deadline) = (Duration::from_secs(3600), Duration::from_millis(20));
    let reaper = reaper(&["cpu", "unified"]).method(KillMethod::Pidfd).min_wait(hour).max_wait(hour);
    let handle = begin(&mut entries, reaper.linger(hour).deadline(deadline), &event_loop);
    let mut world = sim.0.borrow_mut();
    let soon = world.now + deadline - Duration::from_millis(1);
    world.advance(soon);
    // Time passes before each call from now on.
    world.churn = u8::MAX;
    world.others = |world| world.now += Duration::from_millis(1);
    drop(world);
    let id = *event_loop.watched.borrow().last().expect("a watch");
    event_loop.turn(&mut entries, vec![id.token()]);
    let mut world = sim.0.borrow_mut();
    let killed = world.processes.iter().filter(|process| process.killed).count();
    assert_eq!(killed, 2, "{features:?}");
    world.churn = 0;
    drop(world);
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{handle:?}");
}

/// A member of the v2 group alone joins in the grace, is killed by `cgroup.kill` at its end, and is slow to exit.
/// Another party removes the group. Where exiting tasks are not listed, the list made before the kill is all that tells
/// of the process then.
#[test]
fn a_new_member_of_the_grace_is_waited_for() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let groups = [CPU, V2].map(|root| {
        let slice = world.mkdir(root, "slice");
        world.mkdir(slice, "t")
    });
    let own = world.processes[0].groups;
    world.add_process([own[FREEZER], groups[0], own[V2]], Nature::default(), None);
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let event_loop = EventLoop::new(&sim);
    let reaper = reaper(&["cpu", "unified"]).grace(Signal::TERM, Duration::from_millis(5));
    let handle = begin(&mut entries, reaper, &event_loop);
    let nature = Nature { hangs: true, ..Nature::default() };
    let late = [own[FREEZER], own[CPU], groups[1]];
    let late = sim.0.borrow_mut().add_process(late, nature, None);
    run(&sim, &mut entries);
    assert_eq!(sim.0.borrow_mut().process(late).expect("added").life, Life::Exiting);
    sim.0.borrow_mut().remove(groups[1]).expect("no member is listed");
    run(&sim, &mut entries);
    assert!(handle.try_wait().is_none(), "it is not dead");
    sim.0.borrow_mut().calm();
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))));
}

/// A member that may not be killed is watched all the same: it may go by itself.
#[test]
fn a_member_that_cannot_be_killed_is_watched() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let nature = Nature { foreign: true, ..Nature::default() };
    let member = world.add_process([own[FREEZER], group, own[V2]], nature, None);
    let (sim, mut entries, handle) = spawn(world);
    let tick = Duration::from_millis(entries.next_tick().expect("it waits"));
    sim.0.borrow_mut().advance(tick);
    EventLoop::new(&sim).turn(&mut entries, Vec::new());
    sim.0.borrow_mut().recycle(member);
    assert!(!sim.0.borrow_mut().take_notified(0).is_empty());
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{handle:?}");
}

/// A target that is kept is not reported as empty while a process makes a cgroup in it, and moves there, at some moment of a
/// check.
#[test]
fn a_member_that_moves_into_a_new_group_is_seen() {
    for (call, in_child) in (1..CALLS).flat_map(|call| [(call, false), (call, true)]) {
        let mut world = world(call, |world| {
            let slice = world.child(CPU, "slice").expect("it stays");
            let group = world.child(slice, "t").expect("it stays");
            if world.calls >= u64::from(world.acts) && world.child(group, "new").is_none() {
                let member = world.processes.last().expect("it lives").ino;
                let mut groups = world.processes[0].groups;
                groups[CPU] = world.mkdir(group, "new");
                world.migrate(member, groups);
            }
        });
        let slice = world.mkdir(CPU, "slice");
        let group = world.mkdir(slice, "t");
        let mut groups = world.processes[0].groups;
        groups[CPU] = if in_child { world.mkdir(group, "old") } else { group };
        world.add_process(groups, Nature::default(), None);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let reaper = reaper(&["cpu"]).keep_dir().when_empty();
        let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
        run(&sim, &mut entries);
        assert!(!handle.is_complete(), "call {call}, in a child: {in_child}: {handle:?}");
    }
}

/// Entries that are dropped in mid-freeze leave nothing frozen, and say what was done.
#[test]
fn a_drop_in_mid_freeze_thaws() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(FREEZER, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let nature = Nature { stuck: true, ..Nature::default() };
    world.add_process([group, own[CPU], own[V2]], nature, None);
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let reaper = reaper(&["freezer"]).method(KillMethod::Freezer);
    let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
    assert_eq!(sim.0.borrow().groups[group].frozen, Some(FrozenBy::Library));
    let soon = sim.0.borrow().now + Duration::from_millis(7);
    sim.0.borrow_mut().advance(soon);
    drop(entries);
    assert_eq!(sim.0.borrow().groups[group].frozen, None);
    match handle.try_wait() {
        Some(Err(ReapError::Disconnected { effort, .. })) => {
            assert_eq!(effort.elapsed, Duration::from_millis(7));
        }
        other => panic!("{other:?}"),
    }
}

/// Commands that one turn has no room for are left for the next, which is due at once; and when the last reap is over no
/// timer is left.
#[test]
fn a_turn_without_room_for_all_commands_is_followed_by_another() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let nature = Nature { hangs: true, ..Nature::default() };
    world.add_process([own[FREEZER], group, own[V2]], nature, None);
    let (sim, mut entries, handle) = spawn(world);
    assert!(entries.next_tick().is_some());
    let mut event_loop = EventLoop::new(&sim);
    event_loop.commands.extend((0..1000).map(|_| Command::Stop));
    event_loop.turn(&mut entries, Vec::new());
    assert!(entries.has_deferred() && !event_loop.commands.is_empty());
    while !event_loop.commands.is_empty() {
        event_loop.turn(&mut entries, Vec::new());
    }
    event_loop.turn(&mut entries, Vec::new());
    assert!(!entries.has_deferred());
    sim.0.borrow_mut().calm();
    run(&sim, &mut entries);
    assert!(handle.is_complete() && entries.next_tick().is_none());
}

/// A call that fails once, and some time before the deadline, is not what stands in the way at the deadline.
#[test]
fn an_error_that_has_passed_is_not_the_source_of_a_timeout() {
    let (_poll, queue) = queue();
    let mut compared = 0;
    for call in 0..CALLS {
        let mut world = world(call, |world| {
            world.faults = if world.calls == u64::from(world.acts) { u8::MAX } else { 0 };
        });
        let slice = world.mkdir(FREEZER, "slice");
        let group = world.mkdir(slice, "t");
        let own = world.processes[0].groups;
        let nature = Nature { hangs: true, ..Nature::default() };
        world.add_process([group, own[CPU], own[V2]], nature, None);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let reaper = reaper(&["freezer"]).method(KillMethod::Freezer).deadline(Duration::from_millis(150));
        let Ok((target, findings)) = entries.resolver.resolve(&reaper, Limit::default()) else { continue };
        let (completer, handle) = handle::channel(target.shared_path(), &queue);
        entries.spawn(Spawn { reaper, target, findings, completer }, &EventLoop::new(&sim));
        sim.0.borrow_mut().others = |world| world.faults = 0;
        run(&sim, &mut entries);
        match handle.try_wait() {
            Some(Err(ReapError::TimedOut { source: None, survivors, .. })) => {
                assert_eq!(survivors.len(), 1, "call {call}");
                compared += 1;
            }
            other => panic!("failure of call {call}: {other:?}"),
        }
    }
    assert!(compared > 20, "{compared} of {CALLS} calls are made after the checks of the spawn");
}

/// Where members can be signalled safely only while they are frozen, a reap begins to freeze; one told to does so from the
/// start.
#[test]
fn a_reap_that_begins_to_freeze_is_counted() {
    for (method, escalations) in [(KillMethod::Auto, 1), (KillMethod::Freezer, 0)] {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(0));
        let slice = world.mkdir(FREEZER, "slice");
        let group = world.mkdir(slice, "t");
        let own = world.processes[0].groups;
        world.add_process([group, own[CPU], own[V2]], Nature::default(), None);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let reaper = reaper(&["freezer"]).method(method);
        let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
        run(&sim, &mut entries);
        assert!(
            matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))),
            "{handle:?}"
        );
        assert_eq!(entries.metrics.escalations, escalations, "{method}");
    }
}

/// External freezes cannot be found without a /proc of the caller's pid namespace. That is no fault that passes: what is
/// refused is refused for good all the same.
#[test]
fn a_refusal_is_final_whatever_proc_there_is() {
    for proc in [Proc::Own, Proc::None, Proc::Above, Proc::Other] {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(0));
        world.vantage.proc = proc;
        let slice = world.mkdir(CPU, "slice");
        let group = world.mkdir(slice, "t");
        let own = world.processes[0].groups;
        world.add_process([own[FREEZER], group, own[V2]], Nature::default(), None);
        let (sim, mut entries, handle) = spawn(world);
        run(&sim, &mut entries);
        let result = handle.try_wait();
        assert!(
            matches!(result, Some(Err(ReapError::Denied { act: Act::Kill, .. }))),
            "{proc:?}: {result:?}"
        );
    }
}

/// The caller moves into the target before the first attempt. It is not killed, and the others are at once.
#[test]
fn a_caller_that_moves_in_spares_no_other_member() {
    const LINGER: Duration = Duration::from_millis(50);
    let mut world = world(0, |_| ());
    let slice = world.mkdir(V2, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let inside = [own[FREEZER], own[CPU], group];
    let members = [(); 3].map(|()| world.add_process(inside, Nature::default(), None));
    let caller = world.processes[0].ino;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    let reaper = Reaper::at("/sys/fs/cgroup/unified/slice/t").linger(LINGER);
    let handle = begin(&mut entries, reaper, &event_loop);
    sim.0.borrow_mut().migrate(caller, inside);
    let end = sim.0.borrow().now + LINGER;
    while sim.0.borrow().now < end {
        let next = entries.next_tick().expect("the linger ends");
        sim.0.borrow_mut().advance(Duration::from_millis(next));
        event_loop.turn(&mut entries, Vec::new());
    }
    let killed = |ino: &u64| sim.0.borrow_mut().process(*ino).is_none_or(|process| process.killed);
    assert!(members.iter().all(killed) && !killed(&caller));
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Err(ReapError::Denied { act: Act::Kill, .. }))));
}

/// A process joins at some moment of an attempt by `cgroup.kill`, and is killed. Another party removes the cgroup while it is
/// exiting. Only a process that joins after the last list is not known: when the list is read to its end, `cgroup.kill` is opened,
/// or written.
#[test]
fn a_member_that_joins_before_the_kill_is_waited_for() {
    let joined = |world: &World| {
        world.processes.iter().find(|process| process.nature.hangs).map(|process| process.ino)
    };
    let (mut removed, mut missed) = (0, Vec::new());
    for call in 0..CALLS {
        let mut world = world(call, |world| {
            let has_joined = world.processes.iter().any(|process| process.nature.hangs);
            let slice = world.child(V2, "slice").expect("it stays");
            if let (false, true, Some(group)) =
                (has_joined, world.calls >= u64::from(world.acts), world.child(slice, "t"))
            {
                let mut groups = ROOTS;
                groups[V2] = group;
                world.add_process(groups, Nature { hangs: true, ..Nature::default() }, None);
            }
        });
        let slice = world.mkdir(V2, "slice");
        let group = world.mkdir(slice, "t");
        let mut groups = ROOTS;
        groups[V2] = group;
        world.add_process(groups, Nature::default(), None);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let mut event_loop = EventLoop::new(&sim);
        let reaper = Reaper::at("/sys/fs/cgroup/unified/slice/t");
        let handle = begin(&mut entries, reaper, &event_loop);
        for _ in 0..20 {
            let mut world = sim.0.borrow_mut();
            let ino = joined(&world);
            let lives = ino.and_then(|ino| world.process(ino)).map(|process| (process.killed, process.life));
            if matches!(lives, Some((true, Life::Exiting))) && !world.groups[group].removed {
                removed += u32::from(world.remove(group).is_ok());
            }
            drop(world);
            let result = handle.try_wait();
            let ended = matches!(result, Some(Ok(_)));
            if ended && matches!(lives, Some((true, _))) {
                missed.push(call);
                break;
            }
            let next = entries.next_tick().map_or(Duration::ZERO, Duration::from_millis);
            sim.0.borrow_mut().advance(next);
            let tokens = sim.0.borrow_mut().take_notified(0);
            event_loop.turn(&mut entries, tokens);
        }
    }
    assert!(removed > 0 && missed.len() <= 3, "{missed:?}");
}

/// A pidfd by which its process cannot be told, or not be signalled, does not spare the members after it.
#[test]
fn one_pidfd_that_fails_does_not_spare_the_others() {
    let mut compared = 0;
    for call in 0..CALLS {
        let mut world = world(call, |world| {
            world.faults = if world.calls == u64::from(world.acts) { u8::MAX } else { 0 };
        });
        let slice = world.mkdir(CPU, "slice");
        let group = world.mkdir(slice, "t");
        let own = world.processes[0].groups;
        let hangs = Nature { hangs: true, ..Nature::default() };
        let members = [(); 3].map(|()| world.add_process([own[FREEZER], group, own[V2]], hangs, None));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let Ok((target, findings)) = entries.resolver.resolve(&reaper(&["cpu"]), Limit::default()) else {
            continue;
        };
        let (completer, _handle) = handle::channel(target.shared_path(), &queue().1);
        let spawn = Spawn { reaper: reaper(&["cpu"]), target, findings, completer };
        entries.spawn(spawn, &EventLoop::new(&sim));
        let mut world = sim.0.borrow_mut();
        let killed = members.into_iter().filter(|&ino| world.process(ino).is_some_and(|p| p.killed)).count();
        // A shortage of descriptors is left to the next turn.
        assert!(killed != 1 || entries.has_deferred(), "failure of call {call}: one of three is killed");
        compared += u32::from(killed == 2);
    }
    assert!(compared > 0, "no call of a single member fails");
}

/// A directory that is removed during the checks of the spawn does not lack what a method needs: it is gone.
#[test]
fn a_group_that_vanishes_is_not_without_a_facility() {
    for (method, call) in [KillMethod::Freezer, KillMethod::CgroupKill]
        .into_iter()
        .flat_map(|method| (1..CALLS).map(move |call| (method, call)))
    {
        let mut world = world(call, |world| {
            let slice = world.child(V2, "slice").expect("it stays");
            if let (true, Some(group)) = (world.calls >= u64::from(world.acts), world.child(slice, "t")) {
                world.remove(group).expect("it has no member");
            }
        });
        let slice = world.mkdir(V2, "slice");
        world.mkdir(slice, "t");
        let resolver = Resolver::new(Sim(Rc::new(RefCell::new(world))), Budget::new(100));
        let refusal = resolver.resolve(&reaper(&["unified"]).method(method), Limit::default()).err();
        assert!(refusal.is_none(), "{method}, removed at call {call}: {refusal:?}");
    }
}

/// A large target is frozen also where no /proc tells whether the caller has moved while it was searched.
#[test]
fn a_large_target_is_frozen_without_proc() {
    for proc in [Proc::Own, Proc::None, Proc::Above, Proc::Other] {
        let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
        let slice = world.mkdir(FREEZER, "slice");
        let top = world.mkdir(slice, "t");
        (0..4).for_each(|child| _ = world.mkdir(top, &child.to_string()));
        let mut groups = world.processes[0].groups;
        groups[FREEZER] = top;
        world.add_process(groups, Nature::default(), None);
        world.vantage.proc = proc;
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let limit = entries.limit(Some(Duration::ZERO));
        let reaper = reaper(&["freezer"]).method(KillMethod::Freezer);
        let (target, findings) = entries.resolver.resolve(&reaper, limit).expect("nothing refuses it");
        let (completer, handle) = handle::channel(target.shared_path(), &queue().1);
        entries.spawn(Spawn { reaper, target, findings, completer }, &EventLoop::new(&sim));
        run(&sim, &mut entries);
        let reaped = handle.try_wait().expect("it ends").expect("reaped");
        assert_eq!(
            (reaped.outcome, reaped.method),
            (Outcome::Removed, Some(UsedMethod::Freezer)),
            "{proc:?}"
        );
    }
}

/// In a storm, too, `cgroup.kill` reaches the members that the caller may not signal, or that have no pid here.
#[test]
fn a_frozen_member_of_another_user_is_killed() {
    for (pidfd, steps, unmapped) in [
        (true, false, false),
        (true, true, false),
        (false, false, false),
        (true, false, true),
        (true, true, true),
    ] {
        let features = Features { pidfd, ..Features::of(2) };
        let mut world = World::new(fastrand::Rng::with_seed(0), features);
        let slice = world.mkdir(V2, "slice");
        let mut groups = world.processes[0].groups;
        groups[V2] = world.mkdir(slice, "t");
        let left_out = Nature { foreign: !unmapped, unmapped, ..Nature::default() };
        let natures = [left_out, Nature::default(), Nature::default(), Nature::default()];
        natures.into_iter().for_each(|nature| _ = world.add_process(groups, nature, None));
        let sim = Sim(Rc::new(RefCell::new(world)));
        let resolver = Resolver::new(sim.clone(), Budget::new(100));
        let reaper = Reaper::at("/sys/fs/cgroup/unified/slice/t");
        let (mut target, findings) = resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
        let (mut metrics, mut facts) = (Metrics::default(), Facts::new(&sim));
        let limit = Limit::after(&sim, steps.then_some(Duration::ZERO));
        let mut context = Context::new(&resolver, &mut metrics, &mut facts, None, limit);
        let mut step = target.step(&mut context, findings);
        while step.freeze() != Froze::Frozen {}
        let kill = || step.kill(KillBy::Signals(Members::Frozen));
        let mut attempts = iter::repeat_with(kill).enumerate().take(100);
        let last = attempts.find(|(_, attempt)| attempt.reach != Reach::Unfinished);
        let Some((number, Attempt { reach, method, .. })) = last else { panic!("it has no end") };
        assert_eq!(number > 0, steps);
        let wanted = if unmapped { Reach::All } else { Reach::Covered };
        assert_eq!((reach, method), (wanted, Some(UsedMethod::CgroupKill)), "{pidfd} {steps} {unmapped}");
        let world = sim.0.borrow();
        assert!(world.processes.iter().all(|process| process.killed == (process.pid != SELF)));
    }
}

/// A freezer that is removed under way is named as what is missing.
#[test]
fn a_freezer_that_is_gone_is_named() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let mut groups = world.processes[0].groups;
    let [freezer, cpu] = [FREEZER, CPU].map(|hierarchy| {
        let slice = world.mkdir(hierarchy, "slice");
        world.mkdir(slice, "t")
    });
    groups[CPU] = cpu;
    world.add_process(groups, Nature::default(), None);
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let reaper = reaper(&["freezer", "cpu"]).method(KillMethod::Freezer);
    let resolved = entries.resolver.resolve(&reaper, Limit::default()).expect("nothing refuses it");
    sim.0.borrow_mut().groups[freezer].removed = true;
    let handle = begin_resolved(&queue().1, &mut entries, reaper, resolved, &EventLoop::new(&sim));
    run(&sim, &mut entries);
    match handle.try_wait() {
        Some(Err(ReapError::Denied { act: Act::Freeze, source, .. }))
            if source.kind() == std::io::ErrorKind::Unsupported => {}
        other => panic!("{other:?}"),
    }
}

/// Where nothing but the lists tells that the caller is inside of a large target, the spawn and the checks after it search
/// the whole target, however long that takes.
#[test]
fn a_caller_that_is_found_late_is_refused() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let top = world.mkdir(slice, "t");
    let children: Vec<usize> = (0..20).map(|child| world.mkdir(top, &child.to_string())).collect();
    let mut groups = world.processes[0].groups;
    groups[CPU] = children[0];
    world.add_process(groups, Nature::default(), None);
    let caller = world.processes[0].ino;
    groups[CPU] = world.mkdir(children[19], "own");
    world.migrate(caller, groups);
    world.vantage.proc = Proc::None;
    let sim = Sim(Rc::new(RefCell::new(world)));
    sim.0.borrow_mut().begin_step();
    let mut entries = entries(&sim);
    let limit = entries.limit(Some(Duration::ZERO));
    let reaper = reaper(&["cpu"]);
    let (target, findings) = entries.resolver.resolve(&reaper, limit).expect("it is not found yet");
    let (completer, handle) = handle::channel(target.shared_path(), &queue().1);
    let mut event_loop = EventLoop::new(&sim);
    entries.spawn(Spawn { reaper, target, findings, completer }, &event_loop);
    for _ in 0..100 {
        let late = sim.0.borrow().now + Duration::from_secs(1);
        sim.0.borrow_mut().advance(late);
        entries.limit(Some(Duration::ZERO));
        event_loop.turn(&mut entries, Vec::new());
    }
    assert!(sim.0.borrow().processes.iter().all(|process| !process.killed));
    match handle.try_wait() {
        Some(Err(ReapError::Refused { refusal: Refusal::OwnCgroup { .. }, .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// A caller that may not look for external freezes does not give up a member that cannot exit yet.
#[test]
fn a_proc_that_may_not_be_read_ends_no_reap() {
    ["cgroup", "status", "mountinfo"].into_iter().for_each(may_not_be_read);
}

fn may_not_be_read(file: &'static str) {
    let features = Features { exiting_unlisted: false, ..Features::of(Features::LEVELS - 1) };
    let mut world = World::new(fastrand::Rng::with_seed(0), features);
    let slice = world.mkdir(V2, "slice");
    let mut groups = world.processes[0].groups;
    groups[V2] = world.mkdir(slice, "t");
    world.add_process(groups, Nature { hangs: true, ..Nature::default() }, None);
    world.vantage.restricted = Some(file);
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let handle = begin(&mut entries, reaper(&["unified"]), &EventLoop::new(&sim));
    run(&sim, &mut entries);
    assert!(!handle.is_complete(), "{file}: {handle:?}");
    sim.0.borrow_mut().calm();
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Ok(Reaped { outcome: Outcome::Removed, .. }))), "{handle:?}");
}

/// A target that is frozen by an ancestor need not be thawed itself, so it does not matter that the caller may not do that.
#[test]
fn an_ancestor_holds_a_target_that_the_caller_may_not_thaw() {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(FREEZER, "slice");
    let group = world.mkdir(slice, "t");
    let mut groups = world.processes[0].groups;
    groups[FREEZER] = group;
    world.add_process(groups, Nature::default(), None);
    world.groups[slice].frozen = Some(FrozenBy::Others);
    world.groups[group].denied = true;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let reaper = reaper(&["freezer"]).freeze_timeout(Duration::from_millis(500));
    let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
    run(&sim, &mut entries);
    assert!(matches!(handle.try_wait(), Some(Err(ReapError::FrozenByAncestor { .. }))), "{handle:?}");
}

/// If the caller may not look for the freeze that holds a member, the error at the deadline says so.
#[test]
fn a_look_for_freezes_that_is_refused_is_reported_at_the_deadline() {
    for file in ["cgroup", "status", "mountinfo"] {
        let features = Features { exiting_unlisted: false, ..Features::of(Features::LEVELS - 1) };
        let mut world = World::new(fastrand::Rng::with_seed(0), features);
        let (slice, beside) = (world.mkdir(V2, "slice"), world.mkdir(FREEZER, "beside"));
        let mut groups = world.processes[0].groups;
        (groups[V2], groups[FREEZER]) = (world.mkdir(slice, "t"), beside);
        world.add_process(groups, Nature::default(), None);
        world.groups[beside].frozen = Some(FrozenBy::Others);
        world.vantage.restricted = Some(file);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let mut entries = entries(&sim);
        let reaper = reaper(&["unified"]).deadline(Duration::from_secs(30));
        let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
        run(&sim, &mut entries);
        match handle.try_wait() {
            Some(Err(ReapError::TimedOut { act: Some(Act::Thaw), source: Some(source), .. }))
                if source.raw_os_error() == Some(libc::EPERM) => {}
            other => panic!("{file}: {other:?}"),
        }
    }
}

/// A process that was signalled and has left is no survivor.
#[test]
fn a_process_that_has_left_is_not_named() {
    let ms = Duration::from_millis;
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let slice = world.mkdir(CPU, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let ino = world.add_process([own[FREEZER], group, own[V2]], Nature::default(), None);
    world.groups[group].busy = true;
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let reaper = reaper(&["cpu"]).grace(Signal::TERM, ms(500)).deadline(ms(1000));
    let handle = begin(&mut entries, reaper, &EventLoop::new(&sim));
    sim.0.borrow_mut().begin_step();
    sim.0.borrow_mut().migrate(ino, own);
    sim.0.borrow_mut().begin_step();
    run(&sim, &mut entries);
    match handle.try_wait() {
        Some(Err(ReapError::TimedOut { survivors, act: Some(Act::Remove), .. })) if survivors.is_empty() => {}
        other => panic!("{other:?}"),
    }
}

/// What a check has listed is no more, once the kernel says that the cgroup is empty: the reap ends well, also where the check was
/// under way at the deadline.
#[test]
fn a_list_that_is_cut_does_not_outlive_the_members() {
    let ms = Duration::from_millis;
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(4));
    let slice = world.mkdir(V2, "slice");
    let group = world.mkdir(slice, "t");
    let own = world.processes[0].groups;
    let hangs = Nature { hangs: true, ..Nature::default() };
    (0..20).for_each(|_| _ = world.add_process([own[FREEZER], own[CPU], group], hangs, None));
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let mut event_loop = EventLoop::new(&sim);
    let reaper = reaper(&["unified"]).method(KillMethod::Pidfd).deadline(ms(55));
    let handle = begin(&mut entries, reaper, &event_loop);
    entries.limit(Some(Duration::ZERO));
    let start = sim.0.borrow().now;
    sim.0.borrow_mut().advance(start + ms(54));
    event_loop.turn(&mut entries, Vec::new());
    assert!(entries.has_deferred(), "the check is under way");
    sim.0.borrow_mut().calm();
    sim.0.borrow_mut().advance(start + ms(56));
    assert!(sim.0.borrow().processes[1..].iter().all(|process| process.life == Life::Dead));
    event_loop.turn(&mut entries, Vec::new());
    run(&sim, &mut entries);
    let reaped = handle.try_wait().expect("it ends").expect("reaped");
    assert_eq!(reaped.outcome, Outcome::Removed);
}
