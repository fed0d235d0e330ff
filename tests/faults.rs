//! Real faults on real cgroups: what machines, kernels, users and other programs do to a reap. README.md beside
//! this file has the table of all of them, including those that other files test.
//!
//! As in `reap.rs` each test has a canary in a sibling of its target, and asserts nothing about durations, except
//! that everything ends.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{
    KillMethod, Outcome, Reactor, ReapError, ReapHandle, Reaped, Reaper, Signal, UsedMethod,
};
use common::*;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, mkdirat};

/// Long enough for some attempts, short enough to be waited for.
const SOON: Duration = Duration::from_millis(300);

/// The methods that a target of this layout can be reaped by.
fn methods(world: &World) -> Vec<KillMethod> {
    let mut methods = vec![KillMethod::Auto, KillMethod::Pidfd];
    if world.layout != Layout::Cpu {
        methods.push(KillMethod::Freezer);
    }
    if world.by_cgroup_kill() {
        methods.push(KillMethod::CgroupKill);
    }
    methods
}

/// As many targets as there are hierarchies and methods to reap them by.
fn all_kinds(sandbox: &Sandbox, mut each: impl FnMut(Layout, KillMethod, PathBuf)) {
    for layout in [Layout::V2, Layout::Freezer, Layout::Cpu] {
        if layout.need().is_err() {
            continue;
        }
        for method in [KillMethod::Auto, KillMethod::Pidfd, KillMethod::Freezer, KillMethod::CgroupKill] {
            let fits = match method {
                KillMethod::Freezer => layout != Layout::Cpu,
                KillMethod::CgroupKill => layout == Layout::V2 && cgroup_kill().is_ok(),
                _ => true,
            };
            if fits {
                each(layout, method, make(sandbox, layout, &format!("target-{method}")).remove(0));
            }
        }
    }
}

/// Whether this group itself is set to be frozen, v1 or v2, not one above it.
fn frozen(dir: &Path) -> bool {
    let says = |file, text| fs::read_to_string(dir.join(file)).is_ok_and(|state| state.trim() == text);
    says("cgroup.freeze", "1") || says("freezer.state", "FROZEN") || says("freezer.state", "FREEZING")
}

// --- Limits ----------------------------------------------------------------------------------------------

/// All descriptors are taken while the reaps are under way. Until there are descriptors again no reap completes;
/// then all do.
#[test]
fn descriptors_exhausted_in_mid_run() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let mut targets = Vec::new();
        all_kinds(&world.sandbox, |_, method, dir| {
            let stuck = world.sandbox.trace_exit(&[&dir]);
            let others = world.sandbox.sleepers(2, &[&dir]);
            targets.push((method, dir, stuck, others));
        });
        with_few_descriptors(|| {
            let mut reactor = Reactor::new().expect("reactor");
            let handles: Vec<ReapHandle> = targets
                .iter()
                .map(|(method, dir, ..)| {
                    let reaper = Reaper::at(dir).method(*method).max_wait(Duration::from_millis(20));
                    spawn(&mut reactor, reaper)
                })
                .collect();
            drive(&mut reactor, "the kills", |_| targets.iter().all(|(_, _, stuck, _)| stuck.parked()));
            let taken = TakenDescriptors::new();
            let checks = reactor.metrics().checks;
            drive(&mut reactor, "checks without result", |metrics| {
                metrics.checks > checks + 3 * targets.len() as u64
            });
            assert!(handles.iter().all(|handle| !handle.is_complete()), "complete while one lives");
            // They exit now. The reaps cannot see it, because the lists cannot be read.
            for (_, _, stuck, _) in &targets {
                stuck.release();
            }
            for _ in 0..20 {
                reactor.turn(Some(Duration::from_millis(5))).expect("turn");
            }
            drop(taken);
            for handle in &handles {
                assert_eq!(finish(&mut reactor, handle).expect("reaped").outcome, Outcome::Removed);
            }
        });
        for (method, dir, stuck, others) in &targets {
            assert!(!dir.exists() && stuck.ended(TIMEOUT) && others.ended(TIMEOUT), "{method}");
        }
        world.canary.assert_alive();
    });
}

/// SIGKILL does not end process 1 of the caller's pid namespace. Once that has left the target, nothing hinders the reap.
#[test]
fn process_1_that_has_left_is_not_waited_for() {
    require!(v1("cpu"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("cpu", "t");
        let cgroups = fs::read_to_string("/proc/1/cgroup").expect("cgroup");
        let is_cpu =
            |line: &str| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|it| it == "cpu"));
        let home = cgroups.lines().find(|line| is_cpu(line)).and_then(|line| line.splitn(3, ':').nth(2));
        let home = v1_root("cpu").expect("cpu").join(home.expect("v1").trim_start_matches('/'));
        fs::write(dir.join("cgroup.procs"), "1").expect("move");
        let sleeper = sandbox.sleeper(&[&dir]);
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, Reaper::at(&dir).max_wait(Duration::from_millis(20)));
        drive(&mut reactor, "attempts", |metrics| metrics.signals > 4);
        assert!(!handle.is_complete(), "complete with process 1 inside");
        assert_eq!(pids_in(&dir), [1]);
        fs::write(home.join("cgroup.procs"), "1").expect("move");
        let reaped = finish(&mut reactor, &handle).expect("nothing hinders it");
        assert_eq!(reaped.outcome, Outcome::Removed);
        assert!(sleeper.ended(TIMEOUT) && !dir.exists());
    });
}

/// A freeze under way when the descriptors are gone is undone as soon as there is one.
#[test]
fn descriptors_exhausted_in_mid_freeze() {
    require!(any_hierarchy(), namespaces(), fuse());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let hung = HungFilesystem::new();
        let mut targets = Vec::new();
        all_kinds(&world.sandbox, |_, method, dir| {
            if method == KillMethod::Freezer {
                let stuck = world.sandbox.uninterruptible(&hung, &[&dir]);
                targets.push((dir, stuck));
            }
        });
        with_few_descriptors(|| {
            let mut reactor = Reactor::new().expect("reactor");
            // The spawn begins the freeze, also on a slow machine.
            reactor.set_turn_budget(Duration::MAX);
            let handles: Vec<ReapHandle> = targets
                .iter()
                .map(|(dir, _)| {
                    let reaper = Reaper::at(dir).method(KillMethod::Freezer).deadline(SOON);
                    spawn(&mut reactor, reaper)
                })
                .collect();
            assert!(targets.iter().all(|(dir, _)| frozen(dir)));
            let taken = TakenDescriptors::new();
            let end = Instant::now() + 2 * SOON;
            while Instant::now() < end {
                reactor.turn(Some(Duration::from_millis(20))).expect("turn");
            }
            drop(taken);
            for handle in &handles {
                let result = finish(&mut reactor, handle);
                assert!(matches!(result, Err(ReapError::TimedOut { .. })), "{result:?}");
            }
        });
        for (dir, _) in &targets {
            assert!(!frozen(dir), "{} is still frozen", dir.display());
        }
        drop(hung);
        for (dir, stuck) in &targets {
            assert_eq!(reaped(Reaper::at(dir)).outcome, Outcome::Removed);
            assert!(stuck.ended(TIMEOUT));
        }
        world.canary.assert_alive();
    });
}

/// Nor does the drop of a reactor leave anything frozen when all descriptors are taken.
#[test]
fn dropped_in_mid_freeze_without_descriptors() {
    require!(any_hierarchy(), namespaces(), fuse());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let hung = HungFilesystem::new();
        all_kinds(&world.sandbox, |_, method, dir| {
            if method != KillMethod::Freezer {
                return;
            }
            let stuck = world.sandbox.uninterruptible(&hung, &[&dir]);
            with_few_descriptors(|| {
                let mut reactor = Reactor::new().expect("reactor");
                let handle = spawn(&mut reactor, Reaper::at(&dir).method(method));
                assert!(frozen(&dir));
                let taken = TakenDescriptors::new();
                drop(reactor);
                drop(taken);
                assert!(matches!(handle.wait(), Err(ReapError::Disconnected { .. })));
            });
            assert!(!frozen(&dir), "{} is still frozen", dir.display());
            assert!(stuck.alive());
        });
        world.canary.assert_alive();
    });
}

/// Notifications come through epoll. There is no inotify whose limits could be met.
#[test]
fn no_inotify_is_used() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let mut reactor = Reactor::new().expect("reactor");
        all_kinds(&world.sandbox, |_, method, dir| {
            let stuck = world.sandbox.trace_exit(&[&dir]);
            let handle = spawn(&mut reactor, Reaper::at(&dir).method(method));
            eventually("the kill", || {
                reactor.turn(Some(Duration::from_millis(5))).expect("turn");
                stuck.parked()
            });
            let open = fs::read_dir("/proc/self/fd").expect("/proc/self/fd").flatten();
            let links: Vec<PathBuf> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
            assert!(links.contains(&"anon_inode:[eventpoll]".into()), "{links:?}");
            assert!(!links.contains(&"anon_inode:inotify".into()), "{links:?}");
            stuck.release();
            assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        });
    });
}

/// The limit that epoll has is of watches for each user. Past it a reap goes by timer.
#[test]
fn epoll_watches_exhausted() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let world = World::new(test_name!(), any_layout());
        let mut reactor = Reactor::new().expect("reactor");
        refuse_watches();
        all_kinds(&world.sandbox, |_, method, dir| {
            let members = world.sandbox.sleepers(3, &[&dir]);
            let before = reactor.metrics();
            let handle = spawn(&mut reactor, Reaper::at(&dir).method(method));
            assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
            let metrics = reactor.metrics();
            assert!(
                metrics.unwatched > before.unwatched && metrics.timers > before.timers,
                "{method}: {metrics:?}"
            );
            assert_eq!(metrics.events, 0, "{method}");
            assert!(members.ended(TIMEOUT) && !dir.exists());
        });
        world.canary.assert_alive();
    });
}

/// RLIMIT_SIGPENDING: a signal that the kernel has no room to queue arrives all the same.
fn no_room_for_queued_signals(world: &World) {
    let (dirs, reaper) = world.target();
    // The limit of the receiver, which inherits it.
    let (soft, hard) = getrlimit(Resource::RLIMIT_SIGPENDING).expect("getrlimit");
    setrlimit(Resource::RLIMIT_SIGPENDING, 0, hard).expect("setrlimit");
    let member = world.sandbox.sleeper(&refs(&dirs));
    setrlimit(Resource::RLIMIT_SIGPENDING, soft, hard).expect("setrlimit");
    // One that is queued, unlike the classic ones.
    let real_time = Signal::new(libc::SIGRTMIN()).expect("a signal");
    let reaped = reaped(reaper.grace(real_time, 2 * LIMIT));
    assert_eq!((reaped.outcome, reaped.signalled, reaped.attempts), (Outcome::Removed, 1, 0));
    assert!(member.ended(TIMEOUT));
}
each!(isolated no_room_for_queued_signals needs Ok(()), on v2, freezer, cpu);

// --- Rights ----------------------------------------------------------------------------------------------

/// A group of the user's in a subtree that is delegated to it.
fn delegated(world: &World, name: &str) -> (PathBuf, PathBuf) {
    let subtree = world.group(name).remove(0);
    delegate(&subtree);
    let group = subtree.join("job");
    as_user(|| fs::create_dir(&group)).expect("mkdir");
    (subtree, group)
}

fn delegated_to_an_unprivileged_user(world: &World) {
    for method in methods(world) {
        let (subtree, group) = delegated(world, &format!("delegated-{method}"));
        let members = [(); 2].map(|()| world.sandbox.sleeper_of(USER, &[&group]));
        let reaped = as_user(|| reap(Reaper::at(&group).method(method))).expect("reaped");
        assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
        assert!(members.iter().all(|member| member.ended(TIMEOUT)));
        assert!(!group.exists() && subtree.exists());
    }
}
each!(isolated delegated_to_an_unprivileged_user needs Ok(()), on v2, freezer, cpu);

/// The root of a delegated subtree: its `cgroup.kill` and freezer are not the user's, nor is the directory it
/// is in, but its processes are.
fn the_root_of_a_delegated_subtree(world: &World) {
    let (subtree, group) = delegated(world, "delegated");
    let start = || [&subtree, &group].map(|dir| world.sandbox.sleeper_of(USER, &[dir]));
    let members = start();
    let reaper = || Reaper::at(&subtree).max_wait(Duration::from_millis(20));
    let kept = as_user(|| reap(reaper().keep_dir())).expect("emptied");
    assert_eq!(kept.outcome, Outcome::Emptied);
    assert!(members.iter().all(|member| member.ended(TIMEOUT)));
    let members = start();
    match as_user(|| reap(reaper())) {
        Err(ReapError::Denied { path, source, .. }) => {
            assert_eq!((path, source.raw_os_error()), (subtree.clone(), Some(libc::EACCES)));
        }
        other => panic!("{other:?}"),
    }
    assert!(members.iter().all(|member| member.ended(TIMEOUT)));
    assert!(subtree.exists() && !group.exists());
}
each!(isolated the_root_of_a_delegated_subtree needs Ok(()), on v2, freezer, cpu);

/// A process of another user in a group of this user's: `cgroup.kill` can kill it, and nothing else can.
fn the_process_of_another_user_in_a_delegated_subtree(world: &World) {
    for method in methods(world) {
        let (_, group) = delegated(world, &format!("delegated-{method}"));
        let member = world.sandbox.sleeper(&[&group]);
        let reaper = Reaper::at(&group).method(method).max_wait(Duration::from_millis(20));
        let result = as_user(|| reap(reaper));
        let by_cgroup_kill = matches!(method, KillMethod::Auto | KillMethod::CgroupKill);
        if world.by_cgroup_kill() && by_cgroup_kill {
            assert_eq!(result.expect("reaped").outcome, Outcome::Removed, "{method}");
            assert!(member.ended(TIMEOUT));
            continue;
        }
        match result {
            Err(ReapError::Denied { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EPERM), "{method}");
            }
            other => panic!("{method}: {other:?}"),
        }
        assert!(member.alive() && group.exists() && !frozen(&group), "{method}");
    }
}
each!(isolated the_process_of_another_user_in_a_delegated_subtree needs Ok(()), on v2, freezer, cpu);

/// Such a process that was killed by `cgroup.kill` and is slow to exit; and one in a directory that the caller may not list.
/// That the caller may not signal it is no reason to give up.
fn a_slow_exit_in_a_delegated_subtree(world: &World) {
    // From Linux 6.19 on, the members have to be listed before `cgroup.kill` is written.
    for is_hidden in [false, true].into_iter().filter(|is_hidden| !is_hidden || linux() < (6, 19)) {
        let (_, group) = delegated(world, &format!("delegated-{is_hidden}"));
        let child = group.join("child");
        fs::create_dir(&child).expect("mkdir");
        if is_hidden {
            fs::set_permissions(&child, fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        let stuck = world.sandbox.trace_exit(&[&child]);
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = Reaper::at(&group).max_wait(Duration::from_millis(20)).keep_dir();
        let handle = as_user(|| {
            let handle = reactor.spawn_reaper(reaper).expect("not refused");
            let end = Instant::now() + Duration::from_millis(1500);
            while Instant::now() < end {
                reactor.turn(Some(Duration::from_millis(20))).expect("turn");
            }
            handle
        });
        assert!(!handle.is_complete(), "{:?}", handle.try_wait());
        assert!(stuck.parked() && reactor.metrics().signals == 0);
        stuck.release();
        as_user(|| {
            eventually("the exit to be noticed", || {
                reactor.turn(Some(Duration::from_millis(20))).expect("turn");
                handle.is_complete()
            })
        });
        assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Emptied);
    }
}
each!(isolated a_slow_exit_in_a_delegated_subtree needs cgroup_kill(), on v2);

fn an_unprivileged_user_without_delegation(world: &World) {
    for method in methods(world) {
        let (dirs, _) = world.target();
        let member = world.sandbox.sleeper(&refs(&dirs));
        let reaper = Reaper::at(&dirs[0]).method(method).max_wait(Duration::from_millis(20));
        match as_user(|| reap(reaper)) {
            Err(ReapError::Denied { source, .. }) => {
                let errno = source.raw_os_error();
                assert!(matches!(errno, Some(libc::EPERM | libc::EACCES)), "{method}: {source}");
            }
            other => panic!("{method}: {other:?}"),
        }
        assert!(member.alive() && dirs[0].exists() && !frozen(&dirs[0]), "{method}");
    }
}
each!(isolated an_unprivileged_user_without_delegation needs Ok(()), on v2, freezer, cpu);

// --- Other programs that change the target ---------------------------------------------------------------

/// A hierarchy without controllers, mounted for one test.
struct Hierarchy {
    root: PathBuf,
    scratch: PathBuf,
}

impl Hierarchy {
    /// `None` where this kernel has no v1.
    fn new() -> Option<Hierarchy> {
        let name = format!("cgroup-reaper-{}", std::process::id());
        let scratch = std::env::temp_dir().join(&name);
        let root = scratch.join("hierarchy");
        fs::create_dir_all(&root).expect("mkdir");
        if try_mount(Path::new("none"), &root, "cgroup", 0, &format!("none,name={name}")).is_err() {
            let _ = fs::remove_dir_all(&scratch);
            return None;
        }
        Some(Hierarchy { root, scratch })
    }

    fn has_groups(&self) -> bool {
        subtree(&self.root).len() > 1
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        for dir in subtree(&self.root).iter().skip(1).rev() {
            for pid in pids_in(dir) {
                let _ = fs::write(self.root.join("cgroup.procs"), pid.to_string());
            }
            let _ = fs::remove_dir(dir);
        }
        unmount(&self.root);
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// The kernel runs the agent in the first mount and PID namespaces, wherever the hierarchy was mounted.
#[test]
fn the_release_agent_of_the_kernel() {
    require!(namespaces());
    let Some(hierarchy) = Hierarchy::new() else {
        return skip(test_name!(), "this kernel has no cgroup v1");
    };
    let agent = hierarchy.scratch.join("agent");
    fs::write(&agent, format!("#!/bin/sh\nexec rmdir {}\"$1\"\n", hierarchy.root.display())).expect("agent");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("chmod");
    let root = |file: &str, text: &str| fs::write(hierarchy.root.join(file), text).expect(file);
    root("release_agent", agent.to_str().expect("a plain path"));
    root("notify_on_release", "1");
    let sandbox = Sandbox::new(test_name!());
    let group = |n: usize| {
        let dir = hierarchy.root.join(format!("cgroup-reaper-target-{n}"));
        fs::create_dir(&dir).expect("mkdir");
        let member = sandbox.sleeper(&[&dir]);
        (dir, member)
    };
    let (alone, member) = group(0);
    member.signal(libc::SIGKILL);
    assert!(member.ended(TIMEOUT));
    if !wait_until(Duration::from_secs(5), || !alone.exists()) {
        return skip(test_name!(), "the kernel's release agent does not come: it runs in another root");
    }
    let targets: Vec<(PathBuf, Proc)> = (1..=50).map(group).collect();
    let canary = sandbox.canary(&[]);
    let mut reactor = Reactor::new().expect("reactor");
    let handles: Vec<ReapHandle> = targets
        .iter()
        .map(|(dir, member)| {
            // Some of them are empty, and the agent on its way, when the reap begins.
            if member.pid % 3 == 0 {
                member.signal(libc::SIGKILL);
            }
            spawn(&mut reactor, Reaper::at(dir))
        })
        .collect();
    for (handle, (dir, member)) in handles.iter().zip(&targets) {
        let reaped = finish(&mut reactor, handle).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(reaped.outcome, Outcome::Removed | Outcome::AlreadyGone), "{reaped:?}");
        assert!(!dir.exists() && member.ended(TIMEOUT));
    }
    canary.assert_alive();
    drop(targets);
    eventually("the last agent", || !hierarchy.has_groups());
}

/// Another program removes the target as soon as it is empty, makes it again under the same name, and moves a
/// process in. However the reap ends, it must not kill that process.
fn made_again_in_a_loop(world: &World) {
    let new_member = world.sandbox.canary(&[]);
    let pid = new_member.pid.to_string();
    let methods = methods(world);
    let mut replaced = 0;
    // On one processor the other program is in time in one attempt of fifty.
    for attempt in 0..400 {
        if attempt >= 40 && replaced > 0 {
            break;
        }
        let method = methods[attempt % methods.len()];
        let name = format!("target-{attempt}");
        let dirs = world.group(&name);
        let members = world.sandbox.sleepers(2, &refs(&dirs));
        let made = Arc::new(AtomicBool::new(false));
        let repeated = {
            let (dirs, pid, made) = (dirs.clone(), pid.clone(), Arc::clone(&made));
            Repeated::new(move |_| {
                for dir in &dirs {
                    let again = fs::remove_dir(dir).is_ok() || !dir.exists();
                    if again && fs::create_dir(dir).is_ok() {
                        let _ = fs::write(dir.join("cgroup.procs"), &pid);
                        made.store(true, Ordering::Relaxed);
                    }
                }
            })
        };
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = world.reaper(&name).method(method).max_wait(Duration::from_millis(20));
        let result = match reactor.spawn_reaper(reaper) {
            Ok(handle) => finish(&mut reactor, &handle),
            Err(error) => panic!("{error}"),
        };
        eventually("made again", || made.load(Ordering::Relaxed));
        drop(repeated);
        match result {
            Err(ReapError::Replaced { path, .. }) => {
                assert!(dirs.contains(&path));
                replaced += 1;
            }
            // The reap removed it, before it was made again.
            Ok(Reaped { outcome: Outcome::Removed, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(members.ended(TIMEOUT));
        new_member.assert_alive();
        assert!(dirs.iter().all(|dir| !dir.exists() || !frozen(dir)));
    }
    println!("{replaced} replaced");
    assert!(replaced > 0, "never replaced");
}
each!(made_again_in_a_loop on v2, freezer, cpu);

/// Another program freezes and thaws the target at random, as for snapshots.
fn another_program_freezes_and_thaws(world: &World) {
    for method in methods(world) {
        for attempt in 0..6 {
            let (dirs, reaper) = world.target();
            let members = world.sandbox.sleepers(5, &refs(&dirs));
            let child = world.sandbox.sleeper(&refs(&world.group("target/child")));
            let (file, states) = match world.layout {
                Layout::V2 => ("cgroup.freeze", ["1", "0"]),
                _ => ("freezer.state", ["FROZEN", "THAWED"]),
            };
            let repeated = {
                let dir = dirs[0].clone();
                Repeated::new(move |dice| {
                    let dir = if dice.below(2) == 0 { dir.clone() } else { dir.join("child") };
                    let _ = fs::write(dir.join(file), states[usize::from(dice.below(3) == 0)]);
                    let _ = fs::read(dir.join(file));
                    thread::sleep(Duration::from_micros(dice.below(400)));
                })
            };
            // In some runs not from the first moment.
            thread::sleep(Duration::from_micros(300 * attempt));
            let reaped = reaped(reaper.method(method).max_wait(Duration::from_millis(20)));
            drop(repeated);
            assert_eq!(reaped.outcome, Outcome::Removed);
            assert_gone(&dirs);
            assert!(members.ended(TIMEOUT) && child.ended(TIMEOUT));
        }
    }
}
each!(another_program_freezes_and_thaws on v2, freezer, several);

/// Processes are moved in and out of the target all the time. A process that is moved away may have been killed
/// already. The reap ends when the moves end; then the target is empty, and processes that were never in it live.
fn members_move_in_and_out(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let elsewhere = world.group("elsewhere");
        let moving = world.sandbox.sleepers(8, &refs(&elsewhere));
        let settled = world.sandbox.canary(&refs(&elsewhere));
        let member = world.sandbox.trace_exit(&refs(&dirs));
        let repeated = {
            let (pids, places) = (moving.pids(), [dirs.clone(), elsewhere.clone()]);
            Repeated::new(move |dice| {
                let pid = pids[dice.below(pids.len() as u64) as usize].to_string();
                for dir in &places[dice.below(2) as usize] {
                    // Processes that have exited or are frozen cannot be moved.
                    let _ = fs::write(dir.join("cgroup.procs"), &pid);
                }
            })
        };
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(method).max_wait(Duration::from_millis(20)));
        drive(&mut reactor, "the kills", |metrics| {
            member.parked() && metrics.signals + metrics.cgroup_kills >= 4
        });
        assert!(!handle.is_complete());
        drop(repeated);
        member.release();
        let reaped = finish(&mut reactor, &handle).expect("reaped");
        assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
        settled.assert_alive();
        // The processes that are left were outside at the end.
        let outside = pids_in(&elsewhere[0]);
        assert!(moving.iter().all(|process| !process.alive() || outside.contains(&process.pid)));
        settled.signal(libc::SIGKILL);
        assert!(settled.ended(TIMEOUT));
        assert_eq!(reap(world.reaper("elsewhere")).expect("reaped").outcome, Outcome::Removed);
    }
}
each!(members_move_in_and_out on v2, freezer, cpu, several);

// --- Members that cannot be frozen, or cannot exit -------------------------------------------------------

/// A freeze that does not complete while one member is in uninterruptible sleep: however the reap ends, the members
/// that can exit have exited by then, and nothing is left frozen.
fn a_freeze_that_cannot_complete(world: &World) {
    for end in ["release", "deadline", "cancel", "drop"] {
        let hung = HungFilesystem::new();
        let (dirs, reaper) = world.target();
        let stuck = world.sandbox.uninterruptible(&hung, &refs(&dirs));
        let others = world.sandbox.sleepers(3, &refs(&dirs));
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = reaper.method(KillMethod::Freezer).max_wait(Duration::from_millis(20));
        let reaper = if end == "deadline" { reaper.deadline(SOON) } else { reaper };
        let handle = spawn(&mut reactor, reaper.freeze_timeout(Duration::from_millis(100)));
        assert!(world.frozen("target"), "{end}");
        match end {
            "release" => {
                drive(&mut reactor, "the exit of those that can", |_| others.living() == 0);
                assert!(!handle.is_complete() && stuck.alive());
            }
            "cancel" => handle.cancel(),
            "drop" => drop(std::mem::replace(&mut reactor, Reactor::new().expect("reactor"))),
            _ => {}
        }
        if end != "release" {
            let error = finish(&mut reactor, &handle).expect_err("not reaped");
            match (end, &error) {
                ("cancel", ReapError::Cancelled { .. })
                | ("deadline", ReapError::TimedOut { .. })
                | ("drop", ReapError::Disconnected { .. }) => {}
                _ => panic!("{end}: {error:?}"),
            }
            assert!(!world.frozen("target"), "{end}");
            if end == "deadline" {
                assert!(others.ended(TIMEOUT), "never killed");
            }
        }
        drop(hung);
        let reaped = match end {
            "release" => finish(&mut reactor, &handle).expect("reaped"),
            _ => reaped(world.reaper("target")),
        };
        assert_eq!(reaped.outcome, Outcome::Removed);
        assert_gone(&dirs);
        assert!(stuck.ended(TIMEOUT) && others.ended(TIMEOUT));
    }
}
each!(isolated a_freeze_that_cannot_complete needs fuse(), on v2, freezer, several);

/// State D: waited for, or reported at the deadline. `stuck` starts a member in it, which `hung` keeps there.
fn not_to_be_woken<T>(world: &World, hung: fn() -> T, stuck: impl Fn(&T, &[&Path]) -> Proc) {
    for method in methods(world) {
        let hung = hung();
        let (dirs, reaper) = world.target();
        let stuck = stuck(&hung, &refs(&dirs));
        let others = world.sandbox.sleepers(3, &refs(&dirs));
        let reaper = reaper
            .method(method)
            .max_wait(Duration::from_millis(50))
            .freeze_timeout(Duration::from_millis(100));
        match reap(reaper.clone().deadline(2 * SOON)) {
            Err(ReapError::TimedOut { survivors, .. }) => {
                assert_eq!(survivors.len(), 1, "{survivors:?}");
                // A signal or a freeze wakes it for a moment.
                assert!(matches!(survivors[0].state, Some('D' | 'R')), "{survivors:?}");
                assert_eq!(survivors[0].pid, stuck.pid);
            }
            other => panic!("{method}: {other:?}"),
        }
        assert!(others.ended(TIMEOUT) && stuck.alive());
        assert!(!dirs.iter().any(|dir| frozen(dir)), "{method}: left frozen");
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper);
        let checks = reactor.metrics().checks;
        drive(&mut reactor, "some checks", |metrics| metrics.checks >= checks + 5);
        assert!(!handle.is_complete(), "complete while one lives");
        drop(hung);
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert_gone(&dirs);
        assert!(stuck.ended(TIMEOUT));
    }
}

/// By a filesystem whose server does not answer.
fn in_uninterruptible_sleep(world: &World) {
    not_to_be_woken(world, HungFilesystem::new, |hung, dirs| world.sandbox.uninterruptible(hung, dirs));
}
each!(isolated in_uninterruptible_sleep needs fuse(), on v2, freezer, cpu);

/// By a filesystem that is frozen: from Linux 6.1 on the cgroup can be frozen nevertheless.
fn writing_to_a_frozen_filesystem(world: &World) {
    not_to_be_woken(world, FrozenFilesystem::new, |filesystem, dirs| {
        world.sandbox.writing_to(filesystem, dirs)
    });
}
each!(writing_to_a_frozen_filesystem needs frozen_filesystem(), on v2, freezer, cpu);

/// Need: a memory controller for the groups of [`limit_memory`].
fn memory_limit() -> Result<(), String> {
    if v1("memory").is_ok() {
        return Ok(());
    }
    let controllers = v2_root().map(|root| fs::read_to_string(root.join("cgroup.subtree_control")));
    match controllers {
        Some(Ok(text)) if text.split_whitespace().any(|name| name == "memory") => Ok(()),
        _ => Err("no memory controller in v1, nor one enabled in the v2 root".into()),
    }
}

/// A group of the target's processes that has little memory: one of the target's own, or beside it.
struct Limited {
    dir: PathBuf,
    v1: bool,
}

impl Limited {
    fn new(world: &World, dirs: &[PathBuf]) -> Limited {
        let v1 = v1("memory").is_ok();
        let dir = match world.layout {
            _ if !v1 => world.sandbox.v2_dir(),
            Layout::Several => dirs[2].clone(),
            _ => world.sandbox.v1("memory", "limited"),
        };
        if !v1 {
            // The target itself has no memory controller unless its parent passes it on.
            fs::write(dir.join("memory.swap.max"), "0").ok();
        }
        let file = if v1 { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(dir.join(file), "33554432").expect("a limit");
        Limited { dir, v1 }
    }

    /// How often the kernel has killed for want of memory.
    fn kills(&self) -> u64 {
        let file = if self.v1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.dir.join(file)).expect(file);
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("oom_kill").parse().expect("a number")
    }
}

/// Out of memory all the time, and frozen beforehand, or by the reap, while it is.
fn out_of_memory_while_frozen(world: &World) {
    for method in methods(world) {
        for beforehand in [false, true] {
            let (dirs, reaper) = world.target();
            let limited = Limited::new(world, &dirs);
            let mut places = refs(&dirs);
            if world.layout != Layout::Several && limited.v1 {
                places.push(&limited.dir);
            }
            let before = limited.kills();
            let hogs = [(); 2].map(|()| world.sandbox.memory_hog(64, &places));
            eventually("out of memory", || limited.kills() > before + 2);
            if beforehand {
                world.freeze("target");
            }
            let reaped = reaped(reaper.method(method).max_wait(Duration::from_millis(50)));
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            assert_gone(&dirs);
            assert!(hogs.iter().all(|hog| hog.ended(TIMEOUT)));
        }
    }
}
each!(out_of_memory_while_frozen needs memory_limit(), on v2, freezer, several);

/// Out of memory without a kill by the kernel (v1 `memory.oom_control`): members sleep in a page fault, where a
/// freeze does not reach them.
#[test]
fn held_by_the_oom_handler() {
    require!(SEVERAL.into_iter().try_for_each(v1));
    let world = World::new(test_name!(), Layout::Several);
    for method in methods(&world) {
        let (dirs, reaper) = world.target();
        fs::write(dirs[2].join("memory.limit_in_bytes"), "33554432").expect("a limit");
        if fs::write(dirs[2].join("memory.oom_control"), "1").is_err() {
            return skip(test_name!(), "this kernel cannot leave its out-of-memory killer out of it");
        }
        let hog = world.sandbox.memory_hog(64, &refs(&dirs));
        let under_oom = || fs::read_to_string(dirs[2].join("memory.oom_control")).expect("oom_control");
        eventually("out of memory", || under_oom().contains("under_oom 1"));
        let reaper = reaper.method(method).max_wait(Duration::from_millis(50));
        let reaped = reaped(reaper.freeze_timeout(Duration::from_millis(100)));
        assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
        assert!(hog.ended(TIMEOUT));
    }
    world.canary.assert_alive();
}

// --- Members in every state, by every method -------------------------------------------------------------

/// Reaps a group of such members by every method, as it is and frozen by others beforehand.
fn by_every_method(world: &World, members: impl Fn(&Sandbox, &[&Path]) -> Vec<Proc>) {
    by(world, &methods(world), members);
}

fn by(world: &World, methods: &[KillMethod], members: impl Fn(&Sandbox, &[&Path]) -> Vec<Proc>) {
    for &method in methods {
        for beforehand in [false, true] {
            if beforehand && world.layout == Layout::Cpu {
                continue;
            }
            let (dirs, reaper) = world.target();
            let mut all = members(&world.sandbox, &refs(&dirs));
            all.extend(members(&world.sandbox, &refs(&world.group("target/child"))));
            if beforehand {
                world.freeze("target");
            }
            let reaped = reaped(reaper.method(method));
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            assert!(reaped.attempts >= 1);
            assert_gone(&dirs);
            assert!(all.iter().all(|process| process.ended(TIMEOUT)), "{method}");
        }
    }
}

each!(stopped_by_every_method on v2, freezer, cpu, several);
fn stopped_by_every_method(world: &World) {
    by_every_method(world, |sandbox, dirs| vec![sandbox.stopped(dirs)]);
}

each!(ptraced_by_every_method on v2, freezer, cpu, several);
fn ptraced_by_every_method(world: &World) {
    by_every_method(world, |sandbox, dirs| vec![sandbox.ptraced(dirs)]);
}

each!(vforked_by_every_method on v2, freezer, cpu, several);
fn vforked_by_every_method(world: &World) {
    by_every_method(world, |sandbox, dirs| sandbox.vfork(dirs).0);
}

/// The methods that signal the members of this v2 cgroup.
fn those_that_signal(dir: &Path) -> impl Iterator<Item = KillMethod> {
    let freezer = dir.join("cgroup.freeze").exists().then_some(KillMethod::Freezer);
    [KillMethod::Auto, KillMethod::Pidfd].into_iter().chain(freezer)
}

/// The threads move, and the main thread, which has exited, stays where it was: the list of the processes of the target is
/// empty, and that of its threads is not.
#[test]
fn a_zombie_leader_that_was_moved_by_every_method() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (before, dir) = (sandbox.v2("before"), sandbox.v2("target"));
    for method in those_that_signal(&dir) {
        for is_budget in [true, false] {
            fs::create_dir_all(&dir).expect("mkdir");
            let zombie = sandbox.zombie_leader(&[&before]);
            fs::write(dir.join("cgroup.procs"), zombie.pid.to_string()).expect("move");
            let mut reactor = Reactor::new().expect("a reactor");
            if !is_budget {
                reactor.set_turn_budget(Duration::MAX);
            }
            let reaper =
                Reaper::at(&dir).method(method).max_wait(Duration::from_millis(20)).deadline(TIMEOUT);
            let handle = spawn(&mut reactor, reaper);
            let reaped = finish(&mut reactor, &handle).unwrap_or_else(|error| panic!("{method}: {error:?}"));
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}, {is_budget}");
            // From some kernel on, `cgroup.kill` reaches it.
            let by_kernel = reaped.method == Some(UsedMethod::CgroupKill) && method == KillMethod::Auto;
            assert_eq!(reaped.signalled, u64::from(!by_kernel), "{method}, {is_budget}");
            assert!(zombie.ended(TIMEOUT));
        }
    }
}

/// The list of processes is not empty as long as another member cannot exit.
#[test]
fn a_zombie_leader_that_was_moved_beside_one_that_cannot_exit() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let (before, dir) = (sandbox.v2("before"), sandbox.v2("target"));
    for method in those_that_signal(&dir) {
        fs::create_dir_all(&dir).expect("mkdir");
        let held = sandbox.trace_exit(&[&dir]);
        let zombie = sandbox.zombie_leader(&[&before]);
        fs::write(dir.join("cgroup.procs"), zombie.pid.to_string()).expect("move");
        let mut reactor = Reactor::new().expect("a reactor");
        let reaper = Reaper::at(&dir).method(method).max_wait(Duration::from_millis(20));
        let reaper = reaper.freeze_timeout(Duration::from_millis(50));
        let handle = spawn(&mut reactor, reaper);
        drive(&mut reactor, "the other is killed", |_| !zombie.alive());
        assert!(!handle.is_complete(), "{method}: one cannot exit");
        held.release();
        let reaped = finish(&mut reactor, &handle).unwrap_or_else(|error| panic!("{method}: {error:?}"));
        assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
    }
}

each!(zombie_leaders_by_every_method on v2, freezer, cpu, several);
fn zombie_leaders_by_every_method(world: &World) {
    // On some kernels `cgroup.kill` does not reach the threads of a leader that has exited.
    let (alone, others): (Vec<_>, Vec<_>) =
        methods(world).into_iter().partition(|&method| method == KillMethod::CgroupKill);
    by(world, &others, |sandbox, dirs| vec![sandbox.zombie_leader(dirs)]);
    for method in alone {
        let (dirs, reaper) = world.target();
        let leader = world.sandbox.zombie_leader(&refs(&dirs));
        match reap(reaper.method(method).deadline(SOON)) {
            Ok(reaped) => assert_eq!(reaped.outcome, Outcome::Removed),
            Err(ReapError::TimedOut { survivors, .. }) => {
                assert_eq!((survivors[0].pid, survivors[0].state), (leader.pid, Some('Z')));
                assert!(leader.alive());
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

each!(pid_namespaces_by_every_method needs namespaces(), on v2, freezer, cpu, several);
fn pid_namespaces_by_every_method(world: &World) {
    by_every_method(world, |sandbox, dirs| sandbox.pidns_sleepers(2, dirs).0);
}

/// The init of a PID namespace with a member in another group, which the kernel kills with it, but which takes long
/// to exit: until then some kernels (6.19 and later) have the init's own group populated.
fn a_pid_namespace_across_groups(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let elsewhere = world.group("elsewhere");
        let space = world.sandbox.pidns_across(&refs(&dirs), &elsewhere[0]);
        let held = world.sandbox.hold_exit(space[1].clone());
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(method).max_wait(Duration::from_millis(20)));
        drive(&mut reactor, "the kernel's kill of the other", |_| held.parked());
        for _ in 0..5 {
            reactor.turn(Some(Duration::from_millis(5))).expect("turn");
        }
        assert!(handle.is_complete() || dirs.iter().all(|dir| dir.exists()));
        held.release();
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
        assert!(space.ended(TIMEOUT));
        assert!(elsewhere.iter().all(|dir| dir.exists()), "it is not the target's");
    }
}
each!(a_pid_namespace_across_groups needs namespaces(), on v2, freezer, cpu);

#[test]
fn threaded_groups_by_every_method() {
    require!(v2());
    let world = World::new(test_name!(), Layout::V2);
    for method in methods(&world) {
        for beforehand in [false, true] {
            let (dirs, reaper) = world.target();
            let member = world.sandbox.threaded(&dirs[0]);
            if beforehand {
                world.freeze("target");
            }
            let reaped = reaped(reaper.method(method));
            assert_eq!(reaped.outcome, Outcome::Removed, "{method}");
            assert_gone(&dirs);
            assert!(member.ended(TIMEOUT));
        }
    }
    world.canary.assert_alive();
}

// The fork storms by the other methods are in `reap.rs`.
each!(fork_storm_cgroup_kill needs cgroup_kill().and(pids_limit()), on v2);
fn fork_storm_cgroup_kill(world: &World) {
    for _ in 0..5 {
        let (dirs, reaper) = world.target();
        let storm = world.sandbox.fork_storm(60, &refs(&dirs));
        let reaped = reaped(reaper.method(KillMethod::CgroupKill));
        assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, Some(UsedMethod::CgroupKill)));
        assert_gone(&dirs);
        eventually("the end of the storm", || storm.tasks() == 0);
    }
}

// A fork storm that another program froze: the forks in progress complete at the thaw.
each!(fork_storm_frozen_beforehand needs pids_limit(), on v2, freezer, several);
fn fork_storm_frozen_beforehand(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let storm = world.sandbox.fork_storm(60, &refs(&dirs));
        world.freeze("target");
        assert_eq!(reaped(reaper.method(method)).outcome, Outcome::Removed);
        assert_gone(&dirs);
        eventually("the end of the storm", || storm.tasks() == 0);
    }
}

// --- Directories that change while they are walked -------------------------------------------------------

/// Does something over and over on a thread of its own, until it is dropped.
struct Meanwhile(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Meanwhile {
    fn new(mut act: impl FnMut() + Send + 'static) -> Meanwhile {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let acts = move || {
            while !is_over.load(Ordering::Relaxed) {
                act();
            }
        };
        Meanwhile(over, Some(thread::spawn(acts)))
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(thread::JoinHandle::join);
    }
}

/// Only v1 directories can be renamed.
fn renamed_while_it_is_listed(world: &World) {
    let (dirs, _) = world.target();
    let (names, renamed) = (world.group("target/a"), "b");
    let member = world.sandbox.sleeper(&refs(&names));
    let renames = Meanwhile::new(move || {
        for name in &names {
            let other = name.with_file_name(renamed);
            fs::rename(name, &other).and_then(|()| fs::rename(&other, name)).expect("rename");
        }
    });
    let mut reactor = Reactor::new().expect("reactor");
    for _ in 0..100 {
        let handle = spawn(&mut reactor, world.reaper("target").when_empty());
        turn_for(&mut reactor, Duration::from_millis(1));
        assert_eq!(handle.try_wait().map(|result| result.is_ok()), None, "the member lives");
        handle.cancel();
        assert!(finish(&mut reactor, &handle).is_err());
    }
    assert!(member.alive());
    let handle = spawn(&mut reactor, world.reaper("target"));
    eventually("it is dead", || {
        turn_for(&mut reactor, Duration::from_millis(5));
        !member.alive()
    });
    drop(renames);
    assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
    assert_gone(&dirs);
}
each!(renamed_while_it_is_listed on freezer, cpu);

/// A chain of directories grows faster than it is walked.
fn a_chain_that_grows(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let member = world.sandbox.sleeper(&refs(&dirs));
        let mut ends: Vec<File> = dirs.iter().map(|dir| File::open(dir).expect("open")).collect();
        let mut left = 1000;
        let mut grow = move || {
            left -= ends.len().min(left);
            // One that is removed ends with it.
            ends.retain_mut(|end| {
                let made = mkdirat(&*end, "n", Mode::S_IRWXU);
                match made.and_then(|()| openat(&*end, "n", OFlag::O_DIRECTORY, Mode::empty())) {
                    Ok(below) => *end = below.into(),
                    Err(_) => return false,
                }
                left > 0
            });
            thread::sleep(Duration::from_micros(if ends.is_empty() { 10_000 } else { 100 }));
        };
        (0..300).for_each(|_| grow());
        let grows = Meanwhile::new(grow);
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(method).deadline(SOON));
        let result = finish(&mut reactor, &handle);
        assert!(matches!(result, Ok(_) | Err(ReapError::TimedOut { .. })), "{method}: {result:?}");
        assert!(member.ended(TIMEOUT), "{method}: was sent no SIGKILL: {result:?}");
        drop(grows);
        reaped(world.reaper("target"));
        assert_gone(&dirs);
    }
}
each!(a_chain_that_grows on v2, freezer, cpu, several);

// --- What the kernel's own selftests try -----------------------------------------------------------------

/// A tree with members on every level and in several branches.
fn a_deep_tree(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let mut names = vec!["target".to_string()];
        for level in 0..10 {
            let above = names.last().expect("not empty").clone();
            names.push(format!("{above}/{level}"));
        }
        names.extend(["target/a", "target/a/b", "target/0/1/branch"].map(String::from));
        let members: Vec<Procs> =
            names.iter().map(|name| world.sandbox.sleepers(3, &refs(&world.group(name)))).collect();
        assert_eq!(reaped(reaper.method(method)).outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
        assert!(members.iter().all(|members| members.ended(TIMEOUT)));
    }
}
each!(a_deep_tree on v2, freezer, cpu, several);

/// A child group made in a frozen group, and a process moved there: frozen as well.
fn made_inside_a_frozen_group(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let member = world.sandbox.sleeper(&refs(&dirs));
        let joining = world.sandbox.sleeper(&[]);
        world.freeze("target");
        for dir in world.group("target/late") {
            fs::write(dir.join("cgroup.procs"), joining.pid.to_string()).expect("move");
        }
        assert_eq!(reaped(reaper.method(method)).outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
        assert!(member.ended(TIMEOUT) && joining.ended(TIMEOUT));
    }
}
each!(made_inside_a_frozen_group on v2, freezer, several);

/// A child group removed from a frozen group while the reap is under way.
fn removed_inside_a_frozen_group(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let below = world.group("target/child");
        let stuck = world.sandbox.trace_exit(&refs(&dirs));
        world.freeze("target");
        let mut reactor = Reactor::new().expect("reactor");
        let handle = spawn(&mut reactor, reaper.method(method).max_wait(Duration::from_millis(20)));
        for dir in &below {
            fs::remove_dir(dir).expect("rmdir");
        }
        drive(&mut reactor, "the kill", |_| stuck.parked());
        assert!(!handle.is_complete());
        stuck.release();
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
    }
}
each!(removed_inside_a_frozen_group on v2, freezer, several);

/// Members moved from a thawed group into a frozen target, and from there into a thawed group: what was moved
/// out in time lives on, thawed.
fn moved_between_frozen_and_thawed(world: &World) {
    for method in methods(world) {
        let (dirs, reaper) = world.target();
        let beside = world.group("beside");
        let stays = world.sandbox.sleeper(&refs(&dirs));
        let leaves = world.sandbox.sleeper(&refs(&dirs));
        let comes = world.sandbox.sleeper(&refs(&beside));
        world.freeze("target");
        let to = |process: &Proc, dirs: &[PathBuf]| {
            for dir in dirs {
                fs::write(dir.join("cgroup.procs"), process.pid.to_string()).expect("move");
            }
        };
        to(&leaves, &beside);
        to(&comes, &dirs);
        assert_eq!(reaped(reaper.method(method)).outcome, Outcome::Removed, "{method}");
        assert_gone(&dirs);
        assert!(stays.ended(TIMEOUT) && comes.ended(TIMEOUT));
        assert!(leaves.alive());
        leaves.signal(libc::SIGTERM);
        assert!(leaves.ended(TIMEOUT), "still frozen");
    }
}
each!(moved_between_frozen_and_thawed on v2, freezer, several);

// --- Many ------------------------------------------------------------------------------------------------

/// Ten thousand, or what `CGROUP_REAPER_MANY` says, for machines that are slow or small. While the file is held, other tests with so
/// many wait: a kernel has room for 32 768 processes by default.
fn ten_thousand() -> (usize, Flock<File>) {
    let many = std::env::var("CGROUP_REAPER_MANY");
    let many = many.map_or(10_000, |many| many.parse().expect("CGROUP_REAPER_MANY"));
    let program = File::open("/proc/self/exe").expect("this program");
    let alone = Flock::lock(program, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
    (many, alone.expect("a lock"))
}

each!(ten_thousand_processes on v2, freezer);
fn ten_thousand_processes(world: &World) {
    let (many, _alone) = ten_thousand();
    let (dirs, reaper) = world.target();
    let members = world.sandbox.sleepers(many, &refs(&dirs));
    let reaped = reaped(reaper);
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(members.ended(TIMEOUT));
}

fn ten_thousand_groups(world: &World) {
    let (many, _alone) = ten_thousand();
    let dirs: Vec<PathBuf> = (0..many).map(|n| world.group(&format!("target-{n}")).remove(0)).collect();
    let members = world.sandbox.one_each(&dirs);
    let mut reactor = Reactor::new().expect("reactor");
    let handles: Vec<ReapHandle> = dirs.iter().map(|dir| spawn(&mut reactor, Reaper::at(dir))).collect();
    drive(&mut reactor, "all of them", |metrics| metrics.completed == dirs.len() as u64);
    for handle in &handles {
        assert_eq!(handle.try_wait().expect("complete").expect("reaped").outcome, Outcome::Removed);
    }
    assert_gone(&dirs);
    assert_eq!(reactor.metrics().descriptors, 0);
    assert!(members.ended(TIMEOUT));
}
each!(isolated ten_thousand_groups needs Ok(()), on v2, freezer);
