//! What a caller may choose beside how to kill: to wait without a signal, to linger, to end both at once, and a target by
//! descriptor.

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{
    CgroupOptions, Facility, Outcome, Reactor, ReapError, ReapHandle, Reaper, Refusal, Signal,
};
use common::*;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

#[track_caller]
fn assert_left_alone(reactor: &Reactor) {
    let metrics = reactor.metrics();
    let touched = [metrics.cgroup_kills, metrics.signals, metrics.freezes, metrics.thaws];
    assert_eq!(touched, [0; 4], "cgroup.kill, signals, freezes, thaws");
}

#[track_caller]
fn assert_removed(result: ReapResult, dirs: &[PathBuf]) {
    assert_eq!(result.expect("reaped").outcome, Outcome::Removed);
    assert_gone(dirs);
}

// --- Reaper::when_empty ------------------------------------------------------------------------------------

each!(a_target_that_empties_by_itself on v2, freezer, cpu, several);
fn a_target_that_empties_by_itself(world: &World) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(3, &refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, slow(reaper.when_empty()));
    for (i, member) in members.iter().enumerate() {
        turn_for(&mut reactor, 50 * MS);
        assert!(!handle.is_complete());
        assert_eq!(members.living(), 3 - i);
        member.signal(libc::SIGKILL);
        assert!(member.ended(TIMEOUT));
    }
    let reaped = finish(&mut reactor, &handle).expect("reaped");
    assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, None));
    assert_eq!((reaped.attempts, reaped.signalled), (0, 0));
    assert_gone(&dirs);
    assert_left_alone(&reactor);
    assert_eq!(reactor.metrics().descriptors, 0);
}

each!(a_target_that_is_refilled on v2, freezer, cpu, several);
/// The member that is watched need not be the last: new ones join before it exits.
fn a_target_that_is_refilled(world: &World) {
    let (dirs, reaper) = world.target();
    let mut member = world.sandbox.sleeper(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, slow(reaper.when_empty()));
    for _ in 0..5 {
        let next = world.sandbox.sleeper(&refs(&dirs));
        member.signal(libc::SIGKILL);
        assert!(member.ended(TIMEOUT));
        turn_for(&mut reactor, 20 * MS);
        assert!(!handle.is_complete() && next.alive());
        member = next;
    }
    assert_left_alone(&reactor);
    member.signal(libc::SIGKILL);
    assert_removed(finish(&mut reactor, &handle), &dirs);
}

each!(a_tree_that_empties_by_itself on v2, freezer, cpu, several);
fn a_tree_that_empties_by_itself(world: &World) {
    let (dirs, reaper) = world.target();
    let below = |name: &str| -> Vec<PathBuf> { dirs.iter().map(|dir| dir.join(name)).collect() };
    let names = ["a", "a/b", "c"];
    names.iter().flat_map(|name| below(name)).for_each(|dir| fs::create_dir(dir).expect("mkdir"));
    let members = ["a/b", "c"].map(|name| world.sandbox.sleeper(&refs(&below(name))));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, slow(reaper.when_empty()));
    for member in &members {
        turn_for(&mut reactor, 30 * MS);
        assert!(!handle.is_complete());
        member.signal(libc::SIGKILL);
        assert!(member.ended(TIMEOUT));
    }
    assert_removed(finish(&mut reactor, &handle), &dirs);
    assert_left_alone(&reactor);
}

each!(frozen_members_are_not_thawed on v2, freezer, several);
fn frozen_members_are_not_thawed(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&refs(&dirs));
    world.freeze("target");
    let mut reactor = Reactor::new().expect("a reactor");
    for linger in [false, true] {
        let reaper = reaper.clone().freeze_timeout(10 * MS);
        let reaper = if linger { reaper.linger(HOUR) } else { reaper.when_empty() };
        let handle = spawn(&mut reactor, reaper);
        turn_for(&mut reactor, 300 * MS);
        assert!(!handle.is_complete() && world.frozen("target"));
        handle.cancel();
        assert!(matches!(finish(&mut reactor, &handle), Err(ReapError::Cancelled { .. })));
    }
    assert!(world.frozen("target") && member.alive());
    assert_left_alone(&reactor);
}

each!(a_deadline_sends_no_signal on v2, freezer, cpu, several);
fn a_deadline_sends_no_signal(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.stopped(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let reaper = reaper.when_empty().grace(Signal::TERM, MS).linger(MS).deadline(150 * MS);
    let handle = spawn(&mut reactor, reaper);
    match finish(&mut reactor, &handle) {
        Err(ReapError::TimedOut { survivors, source, effort, .. }) => {
            assert_eq!(survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>(), [member.pid]);
            assert!(source.is_none(), "{source:?}");
            assert!(effort.elapsed >= 150 * MS && effort.attempts == 0, "{effort:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_left_alone(&reactor);
    assert_eq!(member.state(), Some('T'), "it was continued");
}

each!(a_cancelled_wait on v2, freezer, cpu, several);
fn a_cancelled_wait(world: &World) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(2, &refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper.when_empty());
    turn_for(&mut reactor, 20 * MS);
    handle.cancel();
    assert!(matches!(finish(&mut reactor, &handle), Err(ReapError::Cancelled { .. })));
    assert_eq!((members.living(), reactor.metrics().descriptors), (2, 0));
    assert_left_alone(&reactor);
}

each!(an_empty_target_is_kept_where_that_is_asked on v2, freezer, cpu, several);
fn an_empty_target_is_kept_where_that_is_asked(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, slow(reaper.when_empty().keep_dir()));
    turn_for(&mut reactor, 20 * MS);
    assert!(!handle.is_complete());
    member.signal(libc::SIGKILL);
    assert_eq!(finish(&mut reactor, &handle).expect("emptied").outcome, Outcome::Emptied);
    assert!(dirs.iter().all(|dir| dir.exists()));
}

each!(a_target_without_members_is_removed_at_once on v2, freezer, cpu, several);
/// As documented: before the first member has joined.
fn a_target_without_members_is_removed_at_once(world: &World) {
    let (dirs, reaper) = world.target();
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper.when_empty());
    assert!(handle.is_complete());
    assert_removed(handle.wait(), &dirs);
}

each!(without_a_watch_the_backoff_finds_out on v2, freezer, cpu, several);
fn without_a_watch_the_backoff_finds_out(world: &World) {
    some_try("checks by the backoff", |_| {
        let (dirs, reaper) = world.target();
        let members = world.sandbox.sleepers(2, &refs(&dirs));
        let mut reactor = Reactor::without(&[Facility::Watches]).expect("a reactor");
        let handle = spawn(&mut reactor, reaper.when_empty().max_wait(100 * MS));
        turn_for(&mut reactor, 500 * MS);
        // At 10, 50, 150, 250 ms and so on; and once in 80 ms it tries for a watch.
        let checks = reactor.metrics().checks;
        assert!(!handle.is_complete() && checks < 40, "{checks} checks");
        members.iter().for_each(|member| member.signal(libc::SIGKILL));
        assert_removed(finish(&mut reactor, &handle), &dirs);
        assert_left_alone(&reactor);
        if checks >= 4 { Ok(()) } else { Err(format!("{checks} checks")) }
    });
}

each!(a_long_wait_is_idle on v2, freezer, cpu, several);
/// With a watch a long wait costs next to nothing.
fn a_long_wait_is_idle(world: &World) {
    let (dirs, reaper) = world.target();
    let _members = world.sandbox.sleepers(3, &refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper.when_empty());
    turn_for(&mut reactor, 800 * MS);
    let checks = reactor.metrics().checks;
    assert!(checks <= 10, "{checks} checks, and due were those at 0, 10, 50, 210 ms");
    handle.cancel();
    assert!(finish(&mut reactor, &handle).is_err());
}

each!(a_member_that_is_exiting_is_waited_for on v2, freezer, cpu, several);
fn a_member_that_is_exiting_is_waited_for(world: &World) {
    let (dirs, reaper) = world.target();
    let stuck = [(); 2].map(|()| world.sandbox.trace_exit(&refs(&dirs)));
    let last = world.sandbox.sleeper(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper.when_empty().max_wait(20 * MS));
    turn_for(&mut reactor, 50 * MS);
    stuck.iter().for_each(|stuck| stuck.signal(libc::SIGKILL));
    eventually("parked", || stuck.iter().all(TraceExit::parked));
    last.signal(libc::SIGKILL);
    assert!(last.ended(TIMEOUT));
    for stuck in stuck {
        turn_for(&mut reactor, 100 * MS);
        assert!(!handle.is_complete(), "removed while a member was exiting");
        stuck.release();
    }
    assert_removed(finish(&mut reactor, &handle), &dirs);
    assert_left_alone(&reactor);
}

each!(a_slow_exit_is_waited_for on v2, freezer, cpu, several);
/// From Linux 6.19 on v1 does not list a member that is releasing its memory, and rmdir(2) may block until it is dead.
fn a_slow_exit_is_waited_for(world: &World) {
    let (dirs, reaper) = world.target();
    let big = world.sandbox.big_memory(500, &refs(&dirs));
    let last = world.sandbox.sleeper(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, reaper.when_empty().max_wait(10 * MS));
    turn_for(&mut reactor, 20 * MS);
    [&big, &last].iter().for_each(|member| member.signal(libc::SIGKILL));
    let result = finish(&mut reactor, &handle);
    assert!(!big.alive() && !last.alive(), "removed while a member was exiting");
    assert_removed(result, &dirs);
    assert_left_alone(&reactor);
}

// --- Reaper::linger ----------------------------------------------------------------------------------------

each!(a_target_that_empties_while_it_lingers on v2, freezer, cpu, several);
fn a_target_that_empties_while_it_lingers(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = spawn(&mut reactor, slow(reaper.linger(HOUR).grace(Signal::TERM, HOUR)));
    turn_for(&mut reactor, 30 * MS);
    assert!(!handle.is_complete() && member.alive());
    member.signal(libc::SIGKILL);
    let reaped = finish(&mut reactor, &handle).expect("reaped");
    assert_eq!((reaped.outcome, reaped.attempts, reaped.signalled), (Outcome::Removed, 0, 0));
    assert_gone(&dirs);
    assert_left_alone(&reactor);
}

each!(linger_grace_and_sigkill_in_this_order on v2, freezer, cpu, several);
fn linger_grace_and_sigkill_in_this_order(world: &World) {
    let (dirs, reaper) = world.target();
    let polite = world.sandbox.on_term(MS, &refs(&dirs));
    let stubborn = world.sandbox.ignores_sigterm(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let (linger, grace) = (300 * MS, 300 * MS);
    let spawned = Instant::now();
    let handle = spawn(&mut reactor, reaper.linger(linger).grace(Signal::TERM, grace));
    while polite.alive() {
        assert!(stubborn.alive() && !handle.is_complete());
        turn_for(&mut reactor, 5 * MS);
        assert!(spawned.elapsed() < TIMEOUT, "no SIGTERM");
    }
    assert!(spawned.elapsed() >= linger, "SIGTERM after {:?}", spawned.elapsed());
    assert!(polite.saw_term(TIMEOUT));
    let reaped = finish(&mut reactor, &handle).expect("reaped");
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert!((linger + grace..linger + grace + TIMEOUT).contains(&reaped.elapsed), "{reaped:?}");
    assert!(stubborn.ended(TIMEOUT));
    assert_gone(&dirs);
}

each!(a_linger_without_grace_ends_in_sigkill on v2, freezer, cpu, several);
fn a_linger_without_grace_ends_in_sigkill(world: &World) {
    let (dirs, reaper) = world.target();
    let member = world.sandbox.ignores_sigterm(&refs(&dirs));
    let reaped = reap(reaper.linger(150 * MS)).expect("reaped");
    assert!(reaped.outcome == Outcome::Removed && reaped.elapsed >= 150 * MS, "{reaped:?}");
    assert!(member.ended(TIMEOUT));
    assert_gone(&dirs);
}

each!(a_deadline_cuts_the_linger_short on v2, freezer, cpu, several);
fn a_deadline_cuts_the_linger_short(world: &World) {
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(2, &refs(&dirs));
    let result = reap(reaper.linger(HOUR).grace(Signal::TERM, HOUR).deadline(100 * MS));
    match result {
        // SIGKILL is sent at the deadline, and on a slow machine they have not exited 95 ms later.
        Ok(_) => assert_gone(&dirs),
        Err(ReapError::TimedOut { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(members.ended(TIMEOUT));
}

// --- ReapHandle::kill_now ----------------------------------------------------------------------------------

each!(kill_now_ends_every_wait on v2, freezer, cpu, several);
fn kill_now_ends_every_wait(world: &World) {
    let reaper = || slow(world.reaper("target")).deadline(TIMEOUT);
    for (reaper, term) in [
        (reaper().when_empty().grace(Signal::TERM, HOUR), false),
        (reaper().linger(HOUR).grace(Signal::TERM, HOUR), false),
        (reaper().linger(HOUR), false),
        (reaper().grace(Signal::TERM, HOUR), true),
    ] {
        let dirs = world.group("target");
        let polite = world.sandbox.on_term(HOUR, &refs(&dirs));
        let mut reactor = Reactor::new().expect("a reactor");
        let handle = spawn(&mut reactor, reaper);
        turn_for(&mut reactor, 20 * MS);
        assert!(polite.alive() && !handle.is_complete());
        if term {
            assert!(polite.saw_term(TIMEOUT));
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                handle.kill_now();
                handle.kill_now();
            });
        });
        assert_removed(finish(&mut reactor, &handle), &dirs);
        assert!(polite.ended(TIMEOUT));
        assert_eq!(polite.saw_term(Duration::ZERO), term);
    }
}

each!(kill_now_after_the_end_reaches_nothing on v2, freezer, cpu, several);
/// What has the name later is another target.
fn kill_now_after_the_end_reaches_nothing(world: &World) {
    let mut reactor = Reactor::new().expect("a reactor");
    let dirs = world.group("target");
    let first = spawn(&mut reactor, world.reaper("target").when_empty());
    assert_removed(finish(&mut reactor, &first), &dirs);
    // It has the place of the first in the reactor, and its name.
    let dirs = world.group("target");
    let member = world.sandbox.sleeper(&refs(&dirs));
    let second = spawn(&mut reactor, world.reaper("target").when_empty());
    first.kill_now();
    turn_for(&mut reactor, 50 * MS);
    assert!(member.alive() && !second.is_complete());
    assert_left_alone(&reactor);
    second.kill_now();
    assert_removed(finish(&mut reactor, &second), &dirs);
    assert!(member.ended(TIMEOUT));
}

/// Asked for before the reactor has heard of the reap.
#[test]
fn kill_now_on_a_reap_of_a_remote() {
    require!(any_hierarchy());
    let world = World::new(test_name!(), any_layout());
    let (dirs, reaper) = world.target();
    let member = world.sandbox.sleeper(&refs(&dirs));
    let mut reactor = Reactor::new().expect("a reactor");
    let handle = reactor.remote().spawn_reaper(slow(reaper.when_empty())).expect("a spawn");
    handle.kill_now();
    assert_removed(finish(&mut reactor, &handle), &dirs);
    assert!(member.ended(TIMEOUT));
    world.canary.assert_alive();
}

// --- Targets by name ---------------------------------------------------------------------------------------

#[test]
fn a_name_in_the_v2_hierarchy_itself() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    let (dirs, _) = world.target();
    let members = world.sandbox.sleepers(2, &refs(&dirs));
    let slice = world.sandbox.v2_dir();
    let options =
        CgroupOptions::new(slice.parent().expect("a root")).slice(slice.file_name().expect("a name"));
    assert_removed(reap(Reaper::new(options.clone(), "target")), &dirs);
    assert!(members.ended(TIMEOUT));
    assert_eq!(reap(Reaper::new(options, "target")).expect("gone").outcome, Outcome::AlreadyGone);
    world.canary.assert_alive();
}

// --- Reaper::at_fd -----------------------------------------------------------------------------------------

fn open(dir: &Path) -> OwnedFd {
    File::open(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).into()
}

/// No rights are needed for such a descriptor, and nothing can be read from it.
fn open_path(dir: &Path) -> OwnedFd {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    options.open(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).into()
}

const OPENS: [fn(&Path) -> OwnedFd; 2] = [open, open_path];

#[test]
fn a_descriptor_is_a_target() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for open in OPENS {
        for dir in groups(&sandbox, "target") {
            fs::create_dir_all(dir.join("below")).expect("mkdir");
            let members = [sandbox.sleeper(&[&dir.join("below")]), sandbox.sleeper(&[&dir.join("below")])];
            assert_removed(reap(Reaper::at_fd(open(&dir))), &[dir]);
            assert!(members.iter().all(|member| member.ended(TIMEOUT)));
        }
    }
}

/// A member that cannot exit yet keeps the reap under way.
#[test]
fn a_descriptor_is_not_kept_for_a_reap() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            let held = [false, true].map(|by_descriptor| {
                fs::create_dir_all(&dir).expect("mkdir");
                let stuck = sandbox.trace_exit(&[&dir]);
                let mut reactor = Reactor::new().expect("a reactor");
                let before = open_fds();
                let reaper = if by_descriptor { Reaper::at_fd(open_path(&dir)) } else { Reaper::at(&dir) };
                let handle = spawn(&mut reactor, reaper.max_wait(20 * MS));
                turn_for(&mut reactor, 20 * MS);
                let held = open_fds() - before;
                stuck.release();
                assert_removed(finish(&mut reactor, &handle), std::slice::from_ref(&dir));
                held
            });
            assert_eq!(held[0], held[1], "by path, and by descriptor");
        }
    });
}

#[test]
fn clones_of_a_reaper_are_equal_and_it_is_handed_back() {
    let reaper = Reaper::at_fd(open(Path::new("/tmp"))).grace(Signal::TERM, MS);
    let other = Reaper::at_fd(open(Path::new("/tmp"))).grace(Signal::TERM, MS);
    assert_eq!(reaper, reaper.clone());
    assert_ne!(reaper, other);
    assert_ne!(reaper, reaper.clone().keep_dir());
    let mut reactor = Reactor::new().expect("a reactor");
    let error = reactor.spawn_reaper(reaper.clone()).expect_err("no cgroup");
    assert_eq!(error.into_reaper(), reaper);
    let error = reactor.remote().spawn_reaper(reaper.clone()).expect_err("no cgroup");
    assert_eq!(error.into_reaper(), reaper);
}

#[test]
fn a_renamed_directory_is_reaped_where_it_is() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    for open in OPENS {
        let dir = sandbox.v1("freezer", "old");
        let new = dir.with_file_name("new");
        let reaper = Reaper::at_fd(open(&dir));
        fs::rename(&dir, &new).expect("rename");
        // Another has the name.
        let other = sandbox.v1("freezer", "old");
        let canary = sandbox.canary(&[&other]);
        let member = sandbox.trace_exit(&[&new]);
        // The error names the place where it is.
        match reap(reaper.clone().deadline(50 * MS)) {
            Err(ReapError::TimedOut { path, .. }) => assert_eq!(path, new),
            other => panic!("{other:?}"),
        }
        member.release();
        assert_removed(reap(reaper), &[new]);
        canary.assert_alive();
        canary.signal(libc::SIGKILL);
        assert!(canary.ended(TIMEOUT));
        eventually("rmdir", || fs::remove_dir(&other).is_ok());
    }
}

#[test]
fn a_removed_directory_is_already_gone_whatever_has_its_name() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for open in OPENS {
        for dir in groups(&sandbox, "target") {
            let reaper = Reaper::at_fd(open(&dir));
            fs::remove_dir(&dir).expect("rmdir");
            for remade in [false, true] {
                if remade {
                    fs::create_dir(&dir).expect("mkdir");
                }
                let canary = remade.then(|| sandbox.canary(&[&dir]));
                let result = reap(reaper.clone());
                assert_eq!(result.expect("gone").outcome, Outcome::AlreadyGone, "remade: {remade}");
                if let Some(canary) = canary {
                    canary.assert_alive();
                    canary.signal(libc::SIGKILL);
                    assert!(canary.ended(TIMEOUT));
                }
            }
        }
    }
}

#[test]
fn a_directory_that_is_mounted_over_is_reaped_after_the_unmount() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for open in OPENS {
            for dir in groups(&sandbox, "target") {
                let member = sandbox.sleeper(&[&dir]);
                let reaper = Reaper::at_fd(open(&dir));
                mount(Path::new("none"), &dir, "tmpfs", 0, "");
                let mut reactor = Reactor::new().expect("a reactor");
                let handle = spawn(&mut reactor, reaper.max_wait(20 * MS));
                turn_for(&mut reactor, 100 * MS);
                assert!(member.ended(TIMEOUT), "it is not below the mount");
                assert!(!handle.is_complete());
                unmount(&dir);
                assert_removed(finish(&mut reactor, &handle), &[dir]);
            }
        }
    });
}

#[track_caller]
fn refuse(reaper: Reaper) -> Refusal {
    let mut reactor = Reactor::new().expect("a reactor");
    let error = reactor.spawn_reaper(reaper.clone()).map(|handle: ReapHandle| handle.try_wait());
    let error = error.expect_err("not refused");
    assert!(reactor.is_empty());
    assert_left_alone(&reactor);
    let refusal = error.refusal().clone();
    assert_eq!(error.into_reaper(), reaper);
    refusal
}

#[test]
fn a_directory_whose_parent_is_mounted_over_is_refused() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "parent/target") {
            let canary = sandbox.canary(&[&dir]);
            let reaper = Reaper::at_fd(open_path(&dir));
            let parent = dir.parent().expect("a parent");
            mount(Path::new("none"), parent, "tmpfs", 0, "");
            let refusal = refuse(reaper);
            unmount(parent);
            // Before Linux 5.8 it cannot be told from the root of a mount.
            match refusal {
                Refusal::Io { path, source, .. } => {
                    assert_eq!((path, source.raw_os_error()), (dir, Some(libc::ESTALE)));
                }
                Refusal::Root { .. } if linux() < (5, 8) => {}
                other => panic!("{other:?}"),
            }
            canary.assert_alive();
        }
    });
}

#[test]
fn what_is_no_cgroup_is_refused_by_descriptor() {
    for path in ["/tmp", "/proc", "/dev/null"] {
        for open in OPENS {
            let refusal = refuse(Reaper::at_fd(open(Path::new(path))));
            assert!(matches!(refusal, Refusal::NotCgroup { .. }), "{path}: {refusal:?}");
        }
    }
    let (reader, _writer) = std::io::pipe().expect("pipe");
    assert!(matches!(refuse(Reaper::at_fd(reader.into())), Refusal::NotCgroup { .. }));
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for dir in groups(&sandbox, "target") {
        let refusal = refuse(Reaper::at_fd(open(&dir.join("cgroup.procs"))));
        assert!(matches!(refusal, Refusal::NotCgroup { .. }), "{refusal:?}");
    }
}

#[test]
fn a_link_is_refused_by_descriptor() {
    let sandbox = Sandbox::new(test_name!());
    let link = sandbox.scratch().join("link");
    std::os::unix::fs::symlink("/tmp", &link).expect("symlink");
    let refusal = refuse(Reaper::at_fd(open_path(&link)));
    assert!(matches!(&refusal, Refusal::Symlink { path, .. } if *path == link), "{refusal:?}");
}

#[test]
fn roots_are_refused_by_descriptor() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        for open in OPENS {
            for root in v2_root().into_iter().chain(v1_root("freezer")).chain(v1_root("cpu")) {
                let refusal = refuse(Reaper::at_fd(open(&root)));
                assert!(matches!(refusal, Refusal::Root { .. }), "{}: {refusal:?}", root.display());
            }
        }
        // What is mounted of a hierarchy.
        let sandbox = Sandbox::new(test_name!());
        let point = sandbox.scratch();
        for dir in groups(&sandbox, "target") {
            let canary = sandbox.canary(&[&dir]);
            mount(&dir, point, "", libc::MS_BIND, "");
            let refusal = refuse(Reaper::at_fd(open_path(point)));
            unmount(point);
            assert!(matches!(refusal, Refusal::Root { .. }), "{refusal:?}");
            canary.assert_alive();
        }
    });
}

#[test]
fn the_own_group_is_refused_by_descriptor() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "parent/own") {
            let above = dir.parent().expect("a parent");
            let root = above.parent().and_then(Path::parent).expect("a root");
            let reapers = [&dir, above].map(|dir| Reaper::at_fd(open_path(dir)));
            fs::write(dir.join("cgroup.procs"), "0").expect("move in");
            let refusals = reapers.map(|reaper| (refuse(reaper.clone().when_empty()), refuse(reaper)));
            fs::write(root.join("cgroup.procs"), "0").expect("move out");
            for refusal in refusals.into_iter().flat_map(|(one, other)| [one, other]) {
                assert!(matches!(refusal, Refusal::OwnCgroup { .. }), "{refusal:?}");
            }
        }
    });
}

/// Nothing else tells the name that the directory is removed by.
#[test]
fn a_descriptor_is_refused_without_proc() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            let canary = sandbox.canary(&[&dir]);
            let reaper = Reaper::at_fd(open_path(&dir));
            mount(Path::new("none"), Path::new("/proc"), "tmpfs", 0, "");
            let refusal = refuse(reaper);
            unmount(Path::new("/proc"));
            match refusal {
                Refusal::Io { path, source, .. } => {
                    assert!(path.starts_with("/proc/self/fd"), "{}", path.display());
                    assert_eq!(source.raw_os_error(), Some(libc::ENOENT));
                }
                other => panic!("{other:?}"),
            }
            canary.assert_alive();
        }
    });
}
