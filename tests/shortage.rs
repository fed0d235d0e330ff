//! Shortages and refusals: a reap makes progress with few descriptors, a failed call costs no more than it lasts, and the
//! result of a reap says what is so at its end.
//!
//! Where the right time is short, `min_wait` and `max_wait` are an hour: what waits for the backoff is not done within
//! [`LIMIT`].

#![allow(unsafe_code, reason = "what is done between fork and exec")]

mod common;

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use cgroup_reaper::{
    Act, CgroupOptions, Effort, KillMethod, Metrics, Outcome, Reactor, ReapError, ReapHandle, Reaped, Reaper,
    Refusal, Signal, Survivor, UsedMethod,
};
use common::*;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

// --- Descriptors -----------------------------------------------------------------------------------------

/// The methods that need a descriptor of each member at some time.
fn by_descriptors(world: &World) -> Vec<KillMethod> {
    let freezer = (world.layout != Layout::Cpu).then_some(KillMethod::Freezer);
    [KillMethod::Auto, KillMethod::Pidfd].into_iter().chain(freezer).collect()
}

fn more_members_than_descriptors(world: &World) {
    for method in by_descriptors(world) {
        let (dirs, reaper) = world.target();
        let members = world.sandbox.sleepers(400, &refs(&dirs));
        with_descriptor_limit(40, || {
            let mut reactor = Reactor::new().expect("reactor");
            let handle = spawn(&mut reactor, slow(reaper.method(method)));
            let reaped = finish(&mut reactor, &handle).expect("reaped");
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            if method == KillMethod::Pidfd {
                assert_eq!((reaped.signalled, reaped.method), (400, Some(UsedMethod::Pidfd)));
            }
        });
        assert!(members.ended(TIMEOUT), "{method}");
    }
}
each!(isolated more_members_than_descriptors needs Ok(()), on v2, freezer, cpu, several);

/// Reaps a target with so many members, so many levels below it, while three descriptors are free.
fn with_three_free_descriptors(world: &World, members: usize, levels: usize) {
    for method in by_descriptors(world) {
        with_few_descriptors(|| {
            // The reactor holds some descriptors of its own from its first reap on.
            let mut reactor = Reactor::new().expect("reactor");
            world.group("first");
            let first = spawn(&mut reactor, world.reaper("first"));
            assert_eq!(finish(&mut reactor, &first).expect("reaped").outcome, Outcome::Removed);
            let (dirs, reaper) = world.target();
            let lowest = world.group(&format!("target{}", "/n".repeat(levels)));
            let members = world.sandbox.sleepers(members, &refs(&lowest));
            let taken = TakenDescriptors::all_but(3);
            let handle = spawn(&mut reactor, slow(reaper.method(method)));
            let result = finish(&mut reactor, &handle);
            drop(taken);
            let reaped = result.unwrap_or_else(|error| panic!("{method}: {error}"));
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            assert!(members.ended(TIMEOUT), "{method}");
            assert_gone(&dirs);
        });
    }
}

fn three_free_descriptors(world: &World) {
    with_three_free_descriptors(world, 40, 0);
}
each!(isolated three_free_descriptors needs Ok(()), on v2, freezer, cpu);

/// No descriptor is used for shorter paths if none is left for the calls that take them.
fn three_free_descriptors_for_a_deep_tree(world: &World) {
    with_three_free_descriptors(world, 5, 150);
}
each!(isolated three_free_descriptors_for_a_deep_tree needs Ok(()), on v2, freezer, cpu);

/// Reaps that wait for a descriptor are woken one by one, as there is one, so that each is checked a few times only.
fn a_hundred_groups_with_twenty_free_descriptors(world: &World) {
    with_few_descriptors(|| {
        let mut reactor = Reactor::new().expect("reactor");
        let names: Vec<String> = (0..100).map(|n| format!("target-{n}")).collect();
        let dirs: Vec<PathBuf> = names.iter().map(|name| world.group(name).remove(0)).collect();
        let members = world.sandbox.one_each(&dirs);
        let taken = TakenDescriptors::all_but(20);
        let handles: Vec<ReapHandle> =
            names.iter().map(|name| spawn(&mut reactor, slow(world.reaper(name)))).collect();
        drive(&mut reactor, "all reaps", |_| handles.iter().all(ReapHandle::is_complete));
        drop(taken);
        for handle in handles {
            assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
        }
        assert!(members.ended(TIMEOUT));
        let Metrics { checks, signals, cgroup_kills, .. } = reactor.metrics();
        assert!(checks <= 100 * 10, "{checks} checks");
        assert!(signals + cgroup_kills <= 100 * 4, "{signals} signals, {cgroup_kills} times cgroup.kill");
    });
}
each!(isolated a_hundred_groups_with_twenty_free_descriptors needs Ok(()), on v2, freezer, cpu);

/// Begins reaps of as many groups of one member, all of which wait until their members exit: the signal of the grace
/// period is one that has no effect.
fn waiting(world: &World, reactor: &mut Reactor, from: usize, count: usize) -> (Vec<ReapHandle>, Procs) {
    let names: Vec<String> = (from..from + count).map(|n| format!("target-{n}")).collect();
    let dirs: Vec<PathBuf> = names.iter().map(|name| world.group(name).remove(0)).collect();
    let members = world.sandbox.one_each(&dirs);
    let without_effect = Signal::new(libc::SIGURG).expect("a signal");
    let reaper = |name: &String| slow(world.reaper(name).grace(without_effect, HOUR));
    (names.iter().map(|name| spawn(reactor, reaper(name))).collect(), members)
}

fn two_reactors_share_the_limit(world: &World) {
    with_descriptor_limit(128, || {
        let mut reactors = [(); 2].map(|()| Reactor::new().expect("reactor"));
        let [one, other] = &mut reactors;
        let reaps = [waiting(world, one, 0, 100), waiting(world, other, 100, 100)];
        for _ in 0..5 {
            reactors.iter_mut().for_each(|reactor| turn_for(reactor, 50 * MS));
            let held = reactors.each_ref().map(|reactor| reactor.metrics().descriptors);
            assert!(held.iter().sum::<u64>() <= 96, "{held:?} descriptors of 128");
        }
        let unwatched = reactors.each_ref().map(|reactor| reactor.metrics().unwatched);
        assert!(unwatched.iter().all(|unwatched| *unwatched > 0), "{unwatched:?}");
        // What the one gives back, the other can have.
        let [(handles, members), (other_handles, other_members)] = reaps;
        members.iter().for_each(|member| member.signal(libc::SIGKILL));
        let [one, other] = &mut reactors;
        drive(one, "the reaps", |_| handles.iter().all(ReapHandle::is_complete));
        drive(other, "descriptors for the other", |metrics| metrics.descriptors > 48);
        other_members.iter().for_each(|member| member.signal(libc::SIGKILL));
        drive(other, "the other reaps", |_| other_handles.iter().all(ReapHandle::is_complete));
        for handle in handles.into_iter().chain(other_handles) {
            assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
        }
        assert!(reactors.iter().all(|reactor| reactor.metrics().descriptors == 0));
    });
}
each!(isolated two_reactors_share_the_limit needs Ok(()), on v2, freezer, cpu);

/// Reaps that wait for long hold all descriptors but those that the caller has. They give some to one that has to kill.
fn reaps_that_wait_give_way(world: &World) {
    const IDLE: usize = 20;
    with_descriptor_limit(96, || {
        let mut reactor = Reactor::new().expect("reactor");
        let names: Vec<String> = (0..IDLE).map(|n| format!("idle-{n}")).collect();
        let dirs: Vec<PathBuf> = names.iter().map(|name| world.group(name).remove(0)).collect();
        let members = world.sandbox.one_each(&dirs);
        let idle: Vec<ReapHandle> =
            names.iter().map(|name| spawn(&mut reactor, slow(world.reaper(name).when_empty()))).collect();
        let (dirs, reaper) = world.target();
        let stubborn = world.sandbox.ignores_sigterm(&refs(&dirs));
        let reaper = slow(reaper.method(KillMethod::Pidfd).grace(Signal::TERM, 300 * MS));
        let handle = spawn(&mut reactor, reaper);
        turn_for(&mut reactor, 50 * MS);
        let taken = TakenDescriptors::new();
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        drop(taken);
        assert!(stubborn.ended(TIMEOUT) && !idle.iter().any(ReapHandle::is_complete));
        drive(&mut reactor, "each watch to be back", |metrics| metrics.descriptors >= IDLE as u64);
        members.iter().for_each(|member| member.signal(libc::SIGKILL));
        drive(&mut reactor, "the reaps", |_| idle.iter().all(ReapHandle::is_complete));
    });
}
each!(isolated reaps_that_wait_give_way needs Ok(()), on v2, freezer, cpu);

fn a_limit_that_is_raised_is_used(world: &World) {
    with_descriptor_limit(48, || {
        let mut reactor = Reactor::new().expect("reactor");
        let (handles, members) = waiting(world, &mut reactor, 0, 60);
        turn_for(&mut reactor, 200 * MS);
        let held = reactor.metrics().descriptors;
        assert!(held <= 36, "{held} descriptors of 48");
        limit_descriptors(512);
        drive(&mut reactor, "each reap to have a descriptor", |metrics| metrics.descriptors >= 60);
        members.iter().for_each(|member| member.signal(libc::SIGKILL));
        drive(&mut reactor, "the reaps", |_| handles.iter().all(ReapHandle::is_complete));
        for handle in handles {
            assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
        }
    });
}
each!(isolated a_limit_that_is_raised_is_used needs Ok(()), on v2, freezer, cpu);

// --- What a failed call costs ----------------------------------------------------------------------------

/// The check at the end of the grace period fails. SIGKILL is sent once a check can be made.
fn a_failed_check_at_the_end_of_the_grace(world: &World) {
    for method in by_descriptors(world) {
        let (dirs, reaper) = world.target();
        let stubborn = world.sandbox.ignores_sigterm(&refs(&dirs));
        with_few_descriptors(|| {
            let mut reactor = Reactor::new().expect("reactor");
            let reaper = slow(reaper.method(method).grace(Signal::TERM, 500 * MS));
            let handle = spawn(&mut reactor, reaper);
            let taken = TakenDescriptors::new();
            turn_for(&mut reactor, 800 * MS);
            // On v2 the descriptors of the reap itself, which it gives up, may be enough.
            assert!(!handle.is_complete() || world.layout == Layout::V2, "{method}");
            drop(taken);
            let reaped = finish(&mut reactor, &handle).expect("reaped");
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            assert!(reaped.attempts >= 1, "{method}: {reaped:?}");
        });
        assert!(stubborn.ended(TIMEOUT));
    }
}
each!(isolated a_failed_check_at_the_end_of_the_grace needs Ok(()), on v2, freezer, cpu, several);

/// A thaw that fails delays the end of a reap by ten seconds, but here nothing is frozen.
fn a_deadline_in_a_shortage(world: &World) {
    for method in by_descriptors(world) {
        let (dirs, reaper) = world.target();
        let stubborn = world.sandbox.ignores_sigterm(&refs(&dirs));
        with_few_descriptors(|| {
            let mut reactor = Reactor::new().expect("reactor");
            let reaper = slow(reaper.method(method).grace(Signal::TERM, HOUR).deadline(300 * MS));
            let handle = spawn(&mut reactor, reaper);
            let taken = TakenDescriptors::new();
            let result = finish(&mut reactor, &handle);
            drop(taken);
            let elapsed = match result {
                Err(ReapError::TimedOut { source: Some(source), effort, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{method}");
                    // On v2 the descriptors of the reap itself, which it gave up, may have been enough to kill, if not to see the
                    // end of it.
                    let killed = world.layout == Layout::V2 && effort.attempts > 0;
                    assert!(stubborn.alive() || killed, "{method}: killed without a descriptor: {effort:?}");
                    effort.elapsed
                }
                Ok(Reaped { elapsed, attempts: 1.., .. }) if world.layout == Layout::V2 => elapsed,
                other => panic!("{method}: {other:?}"),
            };
            assert!(elapsed < Duration::from_secs(10), "{method}: {elapsed:?}");
            if dirs[0].exists() {
                assert!(!world.frozen("target"), "{method}");
            }
        });
        reaped(world.reaper("target"));
        assert_gone(&dirs);
    }
}
each!(isolated a_deadline_in_a_shortage needs Ok(()), on v2, freezer, cpu, several);

// --- Refusals --------------------------------------------------------------------------------------------

/// A group in a subtree that is delegated to the user.
fn delegated(world: &World) -> PathBuf {
    let subtree = world.group("delegated").remove(0);
    delegate(&subtree);
    let group = subtree.join("job");
    as_user(|| fs::create_dir(&group)).expect("mkdir");
    group
}

#[test]
fn an_external_freeze_that_the_caller_may_not_thaw() {
    require!(v2(), v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), Layout::V2);
        let group = delegated(&world);
        // In the order in which they are thawed, the one that is refused comes in the middle.
        let frozen = ["0", "1", "2"].map(|name| {
            let freezer = world.sandbox.v1("freezer", name);
            let member = world.sandbox.sleeper_of(USER, &[&group, &freezer]);
            if name != "1" {
                chown(freezer.join("freezer.state"), Some(USER), None).expect("chown");
            }
            (freezer, member)
        });
        frozen.iter().for_each(|(freezer, _)| freeze_v1(freezer));
        let reaper = Reaper::at(&group).max_wait(20 * MS).freeze_timeout(500 * MS);
        let [_, (refused, held), _] = &frozen;
        match as_user(|| reap(reaper)) {
            Err(ReapError::Denied { act, path, source, effort, .. }) => {
                assert_eq!((act, path), (Act::Thaw, refused.join("freezer.state")));
                assert_eq!(source.raw_os_error(), Some(libc::EACCES));
                assert!(effort.elapsed >= 500 * MS, "{effort:?}");
            }
            other => panic!("{other:?}"),
        }
        for (freezer, member) in [&frozen[0], &frozen[2]] {
            assert!(freezer_state(freezer) == "THAWED" && member.ended(TIMEOUT), "{}", freezer.display());
        }
        assert!(freezer_state(refused) == "FROZEN" && held.alive());
        // It was sent SIGKILL.
        thaw_v1(refused);
        assert!(held.ended(TIMEOUT));
        world.canary.assert_alive();
    });
}

/// Of several freezers one may not be written to: the others are thawed again.
#[test]
fn a_freeze_that_is_refused_in_one_of_several_directories() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let groups = ["first", "second"].map(|name| sandbox.v1("freezer", name).join("target"));
        groups.iter().for_each(|group| fs::create_dir(group).expect("mkdir"));
        let members = [0, 1].map(|at| sandbox.sleeper(&[&groups[at]]));
        chown(groups[0].join("freezer.state"), Some(USER), Some(USER)).expect("chown");
        let mount = Path::new("/sys/fs/cgroup");
        let above = groups.each_ref().map(|group| {
            let above = group.parent().expect("it has one");
            above.strip_prefix(mount).expect("a cgroup").to_path_buf()
        });
        let options = CgroupOptions::new(mount).subsystems(above);
        let reaper = Reaper::new(options, "target").method(KillMethod::Freezer);
        match as_user(|| reap(reaper)) {
            Err(ReapError::Denied { act: Act::Freeze, path, .. }) => assert!(path.starts_with(&groups[1])),
            other => panic!("{other:?}"),
        }
        assert_eq!(groups.each_ref().map(|group| freezer_state(group)), ["THAWED"; 2]);
        assert!(members.iter().all(|member| member.alive()));
    });
}

/// Has a directory of the user's that the user may not list.
fn unreadable(group: &Path) -> PathBuf {
    let dir = group.join("unreadable");
    as_user(|| fs::create_dir_all(dir.join("child"))).expect("mkdir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o000)).expect("chmod");
    dir
}

/// Whether this group itself is set to be frozen.
fn is_frozen(world: &World, dir: &Path) -> bool {
    if world.layout == Layout::V2 { v2_freeze(dir) } else { freezer_state(dir) != "THAWED" }
}

fn a_directory_that_cannot_be_listed_is_not_left_frozen(world: &World) {
    let group = delegated(world);
    let unreadable = unreadable(&group);
    for method in [KillMethod::Freezer, KillMethod::Auto, KillMethod::Pidfd] {
        let member = world.sandbox.sleeper_of(USER, &[&group]);
        let result = as_user(|| cgroup_reaper::reap(Reaper::at(&group).method(method).max_wait(20 * MS)));
        match result {
            Err(ref error @ ReapError::Denied { ref source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EACCES), "{method}: {error:?}");
            }
            // Whether the caller is in there is told by the members, on v1.
            Err(ReapError::Refused { refusal: Refusal::Io { source, .. }, .. })
                if world.layout == Layout::Freezer =>
            {
                assert_eq!(source.raw_os_error(), Some(libc::EACCES), "{method}");
            }
            other => panic!("{method}: {other:?}"),
        }
        assert!(!is_frozen(world, &group), "{method}");
        if method == KillMethod::Auto && world.layout == Layout::V2 && cgroup_kill().is_ok() {
            assert!(member.ended(TIMEOUT), "cgroup.kill needs no list");
        }
        member.signal(libc::SIGKILL);
        assert!(member.ended(TIMEOUT), "{method}");
    }
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o755)).expect("chmod");
    assert_eq!(reaped(Reaper::at(&group)).outcome, Outcome::Removed);
}
each!(isolated a_directory_that_cannot_be_listed_is_not_left_frozen needs Ok(()), on v2, freezer);

/// The rights to list it are taken away while it is frozen.
fn a_frozen_directory_that_can_no_longer_be_listed_is_thawed(world: &World) {
    let hung = HungFilesystem::new();
    for end in ["refusal", "deadline", "cancel", "drop"] {
        let group = delegated(world);
        let stuck = world.sandbox.uninterruptible(&hung, &[&group]);
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = Reaper::at(&group).method(KillMethod::Freezer).freeze_timeout(HOUR);
        // Not over before the test has seen the freeze, on a slow machine either.
        let reaper = if end == "deadline" { reaper.deadline(1000 * MS) } else { reaper };
        let handle = as_user(|| spawn(&mut reactor, reaper));
        assert!(is_frozen(world, &group), "{end}");
        let dir = unreadable(&group);
        match end {
            "cancel" => handle.cancel(),
            "drop" => as_user(|| drop(std::mem::replace(&mut reactor, Reactor::new().expect("reactor")))),
            _ => {}
        }
        let result = as_user(|| finish(&mut reactor, &handle));
        assert!(result.is_err(), "{end}: {result:?}");
        assert!(!is_frozen(world, &group), "{end}: left frozen: {result:?}");
        assert!(stuck.alive());
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::remove_dir(dir.join("child")).and_then(|()| fs::remove_dir(&dir)).expect("rmdir");
        fs::write(
            group.ancestors().nth(2).expect("the sandbox's").join("cgroup.procs"),
            stuck.pid.to_string(),
        )
        .expect("moved away");
        assert_eq!(reaped(world.reaper("delegated")).outcome, Outcome::Removed);
    }
}
each!(isolated a_frozen_directory_that_can_no_longer_be_listed_is_thawed needs fuse(), on v2, freezer);

// --- What is so at the end -------------------------------------------------------------------------------

fn pids(survivors: &[Survivor]) -> Vec<i32> {
    survivors.iter().map(|survivor| survivor.pid).collect()
}

/// Members that die at once: those of the second kind stay zombies.
fn mortals(world: &World, dirs: &[PathBuf]) -> (Procs, Vec<Proc>) {
    let zombies = (0..10).map(|_| world.sandbox.sleeper(&refs(dirs))).collect();
    (world.sandbox.sleepers(80, &refs(dirs)), zombies)
}

/// More members than are named at most.
fn the_one_that_is_left_is_named_alone(world: &World) {
    let (dirs, reaper) = world.target();
    let (killed, zombies) = mortals(world, &dirs);
    let stuck = world.sandbox.trace_exit(&refs(&dirs));
    // Long enough for the others to exit on a slow machine.
    match reap(reaper.deadline(Duration::from_secs(6))) {
        Err(ReapError::TimedOut { survivors, source, .. }) => {
            assert_eq!(pids(&survivors), [stuck.pid], "{survivors:?}");
            assert!(source.is_none(), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(zombies.iter().all(|zombie| zombie.state() == Some('Z')) && killed.ended(TIMEOUT));
    stuck.release();
    assert_eq!(reaped(world.reaper("target")).outcome, Outcome::Removed);
}
each!(the_one_that_is_left_is_named_alone on v2, freezer, cpu, several);

/// The first process of a PID namespace has exited, but for the wait for another one in it, which is held. It is no longer
/// listed by then.
fn an_exiting_process_is_named_alone(world: &World) {
    let (dirs, reaper) = world.target();
    let elsewhere = world.group("elsewhere").remove(0);
    let (killed, zombies) = mortals(world, &dirs);
    let namespace = world.sandbox.pidns_across(&refs(&dirs), &elsewhere);
    let held = world.sandbox.hold_exit(namespace[1].clone());
    match reap(reaper.deadline(Duration::from_secs(4))) {
        Err(ReapError::TimedOut { survivors, .. }) => {
            assert_eq!(pids(&survivors), [namespace[0].pid], "{survivors:?}");
        }
        // On v2 it does not count as a member any more. Before Linux 6.9 nothing tells it from another of its pid.
        Ok(Reaped { outcome: Outcome::Removed, .. }) if world.layout == Layout::V2 || linux() < (6, 9) => {}
        other => panic!("{other:?}"),
    }
    eventually("the exit to be held", || held.parked());
    assert!(namespace[0].alive());
    assert!(zombies.iter().all(|zombie| zombie.state() == Some('Z')) && killed.ended(TIMEOUT));
    held.release();
    assert!(namespace.ended(TIMEOUT));
}
each!(an_exiting_process_is_named_alone needs namespaces(), on v2, freezer, cpu);

/// What is mounted inside the target keeps it from being removed.
fn a_mount_in_the_way_is_named(world: &World) {
    for inside in ["", "child", "child/grandchild"] {
        let (dirs, reaper) = world.target();
        let point = if inside.is_empty() { dirs[0].clone() } else { dirs[0].join(inside) };
        fs::create_dir_all(&point).expect("mkdir");
        let member = world.sandbox.sleeper(&refs(&dirs));
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.deadline(300 * MS));
        mount(Path::new("none"), &point, "tmpfs", 0, "");
        let result = finish(&mut reactor, &handle);
        unmount(&point);
        let error = result.expect_err("EBUSY");
        let said = error.to_string();
        match error {
            ReapError::TimedOut { survivors, source: Some(source), act, in_the_way, path, .. } => {
                assert_eq!(
                    (path, act, in_the_way),
                    (dirs[0].clone(), Some(Act::Remove), Some(point.as_path().into()))
                );
                assert_eq!(source.raw_os_error(), Some(libc::EBUSY));
                assert!(survivors.is_empty(), "{survivors:?}");
            }
            other => panic!("{other:?}"),
        }
        let named = format!("{} is in the way", point.display());
        assert!(said.contains("every process is dead") && said.contains(&named), "{said}");
        assert!(member.ended(TIMEOUT));
        assert_eq!(reaped(world.reaper("target")).outcome, Outcome::Removed);
    }
}
each!(isolated a_mount_in_the_way_is_named needs Ok(()), on v2, freezer, cpu);

/// A reap without a deadline says it while it waits, and goes on once it is out of the way.
fn a_reap_that_waits_says_what_is_in_its_way(world: &World) {
    let (dirs, reaper) = world.target();
    let mut reactor = Reactor::new().expect("reactor");
    let _member = world.sandbox.sleeper(&refs(&dirs));
    let handle = spawn(&mut reactor, reaper);
    mount(Path::new("none"), &dirs[0], "tmpfs", 0, "");
    let mut told = None;
    eventually("the removal to fail", || {
        reactor.turn(Some(10 * MS)).expect("a turn");
        told = reactor.pending().find_map(|reap| {
            let last = reap.last_error?;
            Some((last.act, last.path.to_path_buf(), last.source.raw_os_error()))
        });
        told.is_some() || handle.is_complete()
    });
    unmount(&dirs[0]);
    assert_eq!(told, Some((Act::Remove, dirs[0].clone(), Some(libc::EBUSY))));
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
}
each!(isolated a_reap_that_waits_says_what_is_in_its_way needs Ok(()), on v2, freezer, cpu);

fn a_reap_that_is_given_up_says_what_was_done(world: &World) {
    for end in ["cancel", "drop"] {
        let (dirs, reaper) = world.target();
        let stuck = world.sandbox.trace_exit(&refs(&dirs));
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(KillMethod::Pidfd));
        drive(&mut reactor, "the kill", |_| stuck.parked());
        let result = if end == "cancel" {
            handle.cancel();
            finish(&mut reactor, &handle)
        } else {
            drop(reactor);
            handle.try_wait().expect("complete")
        };
        let (error, effort) = match result {
            Err(ReapError::Cancelled { effort, .. }) => ("cancel", effort),
            Err(ReapError::Disconnected { effort, .. }) => ("drop", effort),
            other => panic!("{other:?}"),
        };
        assert_eq!(error, end);
        assert!(
            matches!(effort, Effort { attempts: 1.., signalled: 1, method: Some(UsedMethod::Pidfd), .. }),
            "{effort:?}"
        );
        assert!(!effort.elapsed.is_zero());
        stuck.release();
        assert_eq!(reaped(world.reaper("target")).outcome, Outcome::Removed);
    }
}
each!(a_reap_that_is_given_up_says_what_was_done on v2, freezer, cpu, several);

/// The deadline ends the grace period: SIGKILL is sent then.
fn a_grace_that_lasts_until_the_deadline_kills(world: &World) {
    for grace in [100 * MS, HOUR] {
        for method in by_descriptors(world) {
            let (dirs, reaper) = world.target();
            let stubborn = world.sandbox.ignores_sigterm(&refs(&dirs));
            let reaper = slow(reaper.method(method).grace(Signal::TERM, grace).deadline(100 * MS));
            // What SIGKILL was sent to has some time to exit, which a busy machine may exceed.
            match reap(reaper) {
                Ok(Reaped { outcome: Outcome::Removed, attempts: 1.., .. }) => {}
                Err(ReapError::TimedOut { effort: Effort { attempts: 1.., .. }, .. }) => {}
                other => panic!("{method}: {other:?}"),
            }
            assert!(stubborn.ended(TIMEOUT), "{method}");
            assert!(matches!(
                reaped(world.reaper("target")).outcome,
                Outcome::Removed | Outcome::AlreadyGone
            ));
        }
    }
}
each!(a_grace_that_lasts_until_the_deadline_kills on v2, freezer, cpu, several);

// --- The freezer -----------------------------------------------------------------------------------------

/// Set for a program that executes itself again and again.
const AGAIN: &str = "CGROUP_REAPER_SHORTAGE_AGAIN";

/// A program that executes itself again and again, each time from another thread than the first. Without its variable it
/// is no test.
#[test]
fn again() {
    if env::var_os(AGAIN).is_none() {
        return;
    }
    for _ in 0..4 {
        thread::spawn(thread::park);
    }
    let other = thread::spawn(|| {
        die_with_parent();
        thread::sleep(Duration::from_micros(u64::from(std::process::id()) % 7 * 300));
        panic!("exec: {}", Command::new("/proc/self/exe").args(env::args_os().skip(1)).exec());
    });
    let _ = other.join();
}

/// A process of such a program in the group. It is waited for when this is dropped.
struct Again(Child);

impl Again {
    fn start(group: &Path) -> Again {
        let procs = group.join("cgroup.procs");
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "again", "--nocapture", "--test-threads=1"]).env(AGAIN, "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: system calls, and no lock that another thread of an isolated test may hold.
        unsafe {
            command.pre_exec(move || {
                die_with_parent();
                fs::write(&procs, "0")
            });
        }
        Again(command.spawn().expect("the program itself"))
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other threads of a process wait in the kernel for those that are frozen, and do not freeze.
#[test]
fn members_that_execute_from_another_thread_do_not_hold_up_the_freezer() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), Layout::Freezer);
        for _ in 0..10 {
            let (dirs, reaper) = world.target();
            let _members: Vec<Again> = (0..12).map(|_| Again::start(&dirs[0])).collect();
            thread::sleep(100 * MS);
            let reaped = reaped(reaper.method(KillMethod::Freezer).freeze_timeout(HOUR));
            assert_eq!(reaped.outcome, Outcome::Removed);
            assert!(matches!(reaped.method, Some(UsedMethod::Freezer | UsedMethod::Pidfd)), "{reaped:?}");
            assert_gone(&dirs);
        }
        world.canary.assert_alive();
    });
}

/// A seccomp filter lets pidfds be opened, but no signal be sent through them.
#[test]
fn signals_through_pidfds_are_refused_by_a_filter() {
    require!(v1("freezer"));
    let world = World::new(test_name!(), Layout::Freezer);
    for errno in [libc::ENOSYS, libc::EPERM] {
        for method in [KillMethod::Auto, KillMethod::Freezer] {
            let (dirs, reaper) = world.target();
            let members = world.sandbox.sleepers(5, &refs(&dirs));
            // A filter is of one thread.
            let reaped = thread::spawn(move || {
                refuse_call(libc::SYS_pidfd_send_signal, errno);
                reaped(reaper.method(method))
            });
            let reaped = reaped.join().expect("reaped");
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Freezer), 5), "{method}");
            assert!(members.ended(TIMEOUT));
        }
    }
    world.canary.assert_alive();
}

// --- systemd ---------------------------------------------------------------------------------------------

/// Groups that are units of systemd, by their name and attribute, are left for systemd to remove.
fn the_group_of_a_unit_is_left(world: &World) {
    let mut attributes = vec![c"trusted.invocation_id"];
    if world.layout == Layout::V2 {
        attributes.push(c"user.invocation_id");
    }
    let value = b"8a1e6ae2b7f04a1c9a1d7c6f0e2b3d45";
    for attribute in attributes {
        for (name, has_attribute, outcome) in [
            ("x.scope", true, Outcome::Emptied),
            ("x.service", true, Outcome::Emptied),
            ("x.slice", true, Outcome::Emptied),
            ("x.scope", false, Outcome::Removed),
            ("x-scope", true, Outcome::Removed),
            ("scope", true, Outcome::Removed),
        ] {
            let dir = world.group(name).remove(0);
            let child = dir.join("child");
            fs::create_dir(&child).expect("mkdir");
            if has_attribute {
                if let Err(error) = set_attribute(&dir, attribute, value) {
                    // Before Linux 5.7 cgroups have no user attributes.
                    assert!(linux() < (5, 7), "{attribute:?}: {error}");
                    fs::remove_dir(&child).and_then(|()| fs::remove_dir(&dir)).expect("rmdir");
                    continue;
                }
            }
            let members = [&dir, &child].map(|dir| world.sandbox.sleeper(&[dir]));
            let reaped = reaped(world.reaper(name));
            assert_eq!(reaped.outcome, outcome, "{name}, {attribute:?}: {has_attribute}");
            assert!(members.iter().all(|member| member.ended(TIMEOUT)));
            assert_eq!(dir.exists(), outcome == Outcome::Emptied);
            if dir.exists() {
                for dir in subtree(&dir).iter().rev() {
                    fs::remove_dir(dir).expect("an empty group");
                }
            }
        }
    }
}
each!(the_group_of_a_unit_is_left on v2, freezer);

const RUN: &str = "/run";

/// Need: the directory that service managers have their files in. A bare machine has none.
fn a_place_for_systemd() -> Result<(), String> {
    if Path::new(RUN).is_dir() { Ok(()) } else { Err(format!("there is no {RUN}")) }
}

/// A scope without the attribute is left to the service manager that has a file for it.
fn a_transient_scope_is_left(world: &World) {
    let run = Path::new(RUN);
    mount(Path::new("none"), run, "tmpfs", 0, "");
    for (manager, file, owner, name, outcome) in [
        ("/run/systemd", "a.scope", 0, "a.scope", Outcome::Emptied),
        ("/run/systemd", "a.scope", 0, "b.scope", Outcome::Removed),
        // So does systemd hide names that could be the kernel's.
        ("/run/systemd", "cpu.scope", 0, "_cpu.scope", Outcome::Emptied),
        ("/run/systemd", "_c.scope", 0, "__c.scope", Outcome::Emptied),
        ("/run/user/12345/systemd", "d.scope", 12345, "d.scope", Outcome::Emptied),
        ("/run/user/12345/systemd", "e.scope", 0, "e.scope", Outcome::Removed),
        // The attribute tells those apart.
        ("/run/systemd", "f.service", 0, "f.service", Outcome::Removed),
    ] {
        let units = Path::new(manager).join("transient");
        fs::create_dir_all(&units).expect("mkdir");
        fs::write(units.join(file), "[Scope]\n").expect("write");
        let dirs = world.group(name);
        std::os::unix::fs::chown(&dirs[0], Some(owner), None).expect("chown");
        let member = world.sandbox.sleeper(&refs(&dirs));
        let reaped = reaped(world.reaper(name));
        assert_eq!(reaped.outcome, outcome, "{name}, {manager}");
        assert!(member.ended(TIMEOUT));
        assert_eq!(dirs[0].exists(), outcome == Outcome::Emptied);
        dirs.iter().filter(|dir| dir.exists()).for_each(|dir| fs::remove_dir(dir).expect("an empty group"));
    }
    // What its owner puts into the place of a service manager names no unit, and keeps no cgroup from being reaped.
    let place = Path::new("/run/user/12346/systemd");
    fs::create_dir_all(place.parent().expect("a parent")).expect("mkdir");
    for link in [Some("/run/user/12345/systemd"), Some("systemd"), None] {
        match link {
            Some(to) => std::os::unix::fs::symlink(to, place).expect("symlink"),
            None => fs::write(place, "").expect("write"),
        }
        let dirs = world.group("d.scope");
        std::os::unix::fs::chown(&dirs[0], Some(12346), None).expect("chown");
        let member = world.sandbox.sleeper(&refs(&dirs));
        assert_eq!(reaped(world.reaper("d.scope")).outcome, Outcome::Removed, "{link:?}");
        assert!(member.ended(TIMEOUT));
        fs::remove_file(place).expect("unlink");
    }
    unmount(run);
}
each!(isolated a_transient_scope_is_left needs a_place_for_systemd(), on v2, freezer);
