//! Faults that were found once, each test named after what it checks.
#![allow(unsafe_code, reason = "a thread that gives up its rights")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroup_reaper::{Act, Effort, Facility, KillMethod, Outcome, Reactor, ReapError, Reaped, Reaper, Signal};
use common::*;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_deadline_inside_the_grace_kills() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for (name, deadline) in [("at-once", Duration::ZERO), ("soon", 100 * MS)] {
        for dir in groups(&sandbox, name) {
            let stubborn = sandbox.ignores_sigterm(&[&dir]);
            let result = reap(Reaper::at(&dir).grace(Signal::TERM, LONG).deadline(deadline));
            // SIGKILL has some time to take effect, which a busy machine may exceed.
            match result {
                Ok(Reaped { outcome: Outcome::Removed, attempts: 1.., .. }) => {}
                Err(ReapError::TimedOut { effort: Effort { attempts: 1.., .. }, .. }) => {}
                other => panic!("{other:?}"),
            }
            assert!(stubborn.ended(TIMEOUT), "no SIGKILL in spite of what the error says");
        }
    }
}

#[test]
fn a_grace_ends_when_all_are_dead_also_without_notifications() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for dir in groups(&sandbox, "target") {
        let _polite = sandbox.sleeper(&[&dir]);
        let reaped = reaped_without(&[Facility::Watches], Reaper::at(&dir).grace(Signal::TERM, LONG));
        assert_eq!((reaped.outcome, reaped.attempts), (Outcome::Removed, 0));
    }
}

#[test]
fn a_grace_signal_outlasts_a_want_of_descriptors() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        with_few_descriptors(|| {
            let sandbox = Sandbox::new(test_name!());
            for dir in groups(&sandbox, "target") {
                let polite = sandbox.on_term(MS, &[&dir]);
                let mut reactor = Reactor::new().expect("a reactor");
                let handle =
                    reactor.remote().spawn_reaper(Reaper::at(&dir).grace(Signal::TERM, LONG)).expect("spawn");
                let taken = TakenDescriptors::new();
                turn_for(&mut reactor, 100 * MS);
                drop(taken);
                let reaped = reactor.run_until(&handle).expect("turns");
                assert_eq!(reaped.expect("reaped").attempts, 0);
                assert!(polite.saw_term(TIMEOUT), "killed without having been asked");
            }
        })
    });
}

#[test]
fn without_pidfds_the_grace_signal_is_sent_to_the_frozen() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v1("freezer", "target");
    let polite = sandbox.on_term(MS, &[&dir]);
    let reaped = reaped_without(&[Facility::Pidfds], Reaper::at(&dir).grace(Signal::TERM, LONG));
    assert_eq!((reaped.outcome, reaped.attempts, reaped.signalled), (Outcome::Removed, 0, 1));
    assert!(polite.saw_term(TIMEOUT));
}

/// On some kernels a group can be removed while its members are still exiting.
#[test]
fn removed_by_another_is_not_dead() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            let slow = sandbox.big_memory(512, &[&dir]);
            let mut reactor = Reactor::new().expect("a reactor");
            let handle = reactor.spawn_reaper(Reaper::at(&dir)).expect("a spawn");
            // As systemd or a release agent would.
            let end = std::time::Instant::now() + TIMEOUT;
            while fs::remove_dir(&dir).is_err() && dir.exists() && std::time::Instant::now() < end {}
            let reaped = reactor.run_until(&handle).expect("turns");
            let status = fs::read_to_string(format!("/proc/{}/status", slow.pid)).unwrap_or_default();
            assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);
            assert!(!status.contains("VmRSS"), "complete while it still holds memory:\n{status}");
        }
    });
}

#[test]
fn the_survivors_of_a_deadline_are_named_also_while_they_exit() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for dir in groups(&sandbox, "target") {
        let slow = sandbox.big_memory(1024, &[&dir]);
        match reap(Reaper::at(&dir).deadline(5 * MS)) {
            Err(ReapError::TimedOut { survivors, .. }) => {
                assert_eq!(survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>(), [slow.pid]);
            }
            other => assert!(other.is_ok(), "{other:?}"),
        }
        assert!(slow.ended(TIMEOUT));
    }
}

/// A zombie has exited: the deadline reports the directory only.
#[test]
fn a_member_killed_in_time_is_no_survivor() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            let child = dir.join("child");
            fs::create_dir(&child).expect("mkdir");
            mount(Path::new("none"), &child, "tmpfs", 0, "");
            let member = sandbox.sleeper(&[&dir]);
            let result = reap(Reaper::at(&dir).method(KillMethod::Pidfd).deadline(1000 * MS));
            assert_eq!(member.state(), Some('Z'));
            match &result {
                Err(ReapError::TimedOut { survivors, source: Some(source), .. }) => {
                    assert!(survivors.is_empty(), "{result:?}");
                    assert_eq!(source.raw_os_error(), Some(libc::EBUSY));
                }
                other => panic!("{other:?}"),
            }
            unmount(&child);
        }
    });
}

#[test]
fn a_member_beside_the_own_freezer_is_thawed_where_it_is() {
    require!(v1("freezer"), v1("cpu"));
    let sandbox = Sandbox::new(test_name!());
    let (freezer, cpu) = (sandbox.v1("freezer", "target"), sandbox.v1("cpu", "target"));
    let other = sandbox.v1("freezer", "other");
    let member = sandbox.sleeper(&[&cpu, &other]);
    freeze_v1(&other);
    let reaper = Reaper::new(options(&sandbox, &["freezer", "cpu"]), "target").max_wait(50 * MS);
    assert_eq!(reap(reaper).expect("reaped").outcome, Outcome::Removed);
    assert!(member.ended(TIMEOUT) && !freezer.exists() && !cpu.exists());
    assert_eq!(freezer_state(&other), "THAWED");
}

#[test]
fn the_group_that_freezes_is_found_for_every_member() {
    require!(v2(), v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("target");
        let stuck = sandbox.trace_exit(&[&dir]);
        let others: Vec<PathBuf> = (0..3).map(|n| sandbox.v1("freezer", &format!("other-{n}"))).collect();
        let members: Vec<Proc> = others.iter().map(|other| sandbox.sleeper(&[&dir, other])).collect();
        others.iter().for_each(|other| freeze_v1(other));
        let mut reactor = Reactor::new().expect("a reactor");
        let handle = reactor.spawn_reaper(Reaper::at(&dir).max_wait(50 * MS)).expect("a spawn");
        eventually("those that can to exit", || {
            reactor.turn(Some(20 * MS)).expect("a turn");
            members.iter().all(|member| !member.alive())
        });
        assert!(!handle.is_complete());
        stuck.release();
        let reaped = reactor.run_until(&handle).expect("turns");
        assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);
    });
}

#[test]
fn a_replaced_directory_is_told_also_where_directories_are_kept() {
    require!(v1("freezer"), v1("cpu"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let (freezer, cpu) = (sandbox.v1("freezer", "target"), sandbox.v1("cpu", "target"));
        let stuck = sandbox.trace_exit(&[&freezer]);
        let mut reactor = Reactor::new().expect("a reactor");
        let reaper =
            Reaper::new(options(&sandbox, &["freezer", "cpu"]), "target").keep_dir().max_wait(20 * MS);
        let handle = reactor.spawn_reaper(reaper).expect("a spawn");
        fs::remove_dir(&cpu).expect("rmdir");
        fs::create_dir(&cpu).expect("mkdir");
        turn_for(&mut reactor, 200 * MS);
        stuck.release();
        match reactor.run_until(&handle).expect("turns") {
            Err(ReapError::Replaced { path, .. }) => assert_eq!(path, cpu),
            other => panic!("{other:?}"),
        }
        assert!(freezer.exists() && cpu.exists());
    });
}

#[test]
fn a_renamed_group_is_neither_gone_nor_replaced() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("freezer", "old");
        let new = dir.with_file_name("new");
        let stuck = sandbox.trace_exit(&[&dir]);
        let mut reactor = Reactor::new().expect("a reactor");
        let reaper = Reaper::at(&dir).max_wait(20 * MS);
        let handle = reactor.spawn_reaper(reaper).expect("a spawn");
        fs::rename(&dir, &new).expect("rename");
        turn_for(&mut reactor, 200 * MS);
        assert!(!handle.is_complete() && new.exists());
        stuck.release();
        let reaped = reactor.run_until(&handle).expect("turns");
        assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);
        assert!(!new.exists());
    });
}

/// A supervisor moves a new process in as soon as the last one has exited, beside a member that cannot exit.
#[test]
fn a_new_member_beside_an_unkillable_one_does_not_wait_out_the_backoff() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            let stuck = sandbox.trace_exit(&[&dir]);
            let mut reactor = Reactor::new().expect("a reactor");
            // By the seventh, a backoff that nothing resets would last 40 s, and then 160.
            let handle = reactor.spawn_reaper(Reaper::at(&dir).max_wait(LONG)).expect("a spawn");
            for _ in 0..9 {
                let new_member = sandbox.sleeper(&[&dir]);
                eventually("the new member to be killed", || {
                    reactor.turn(Some(5 * MS)).expect("a turn");
                    !new_member.alive()
                });
            }
            stuck.release();
            let reaped = reactor.run_until(&handle).expect("turns");
            assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);
        }
    });
}

#[test]
fn a_refusal_is_final_after_five_attempts_and_850_milliseconds() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    let dir = sandbox.v1("freezer", "target");
    let member = sandbox.sleeper(&[&dir]);
    for method in [KillMethod::Auto, KillMethod::Pidfd] {
        let reaper = Reaper::at(&dir).method(method);
        // Of this thread only, so that the sandbox keeps its rights.
        let result = std::thread::spawn(move || {
            // SAFETY: three numbers; the raw call, unlike libc's function, is for the calling thread alone.
            let set = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(set, 0);
            reap(reaper)
        });
        match result.join().expect("no panic") {
            Err(ReapError::Denied { act, path, effort, .. }) => {
                assert_eq!(act, Act::Kill);
                assert!(effort.attempts >= 5, "{effort:?}");
                assert_eq!(path, Path::new(&format!("/proc/{}", member.pid)));
                assert!(effort.elapsed >= 850 * MS, "{effort:?}");
            }
            other => panic!("{other:?}"),
        }
        assert!(member.alive());
    }
}

#[test]
fn reaps_give_up_their_own_descriptors_where_there_are_no_others() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        with_few_descriptors(|| {
            let sandbox = Sandbox::new(test_name!());
            for layout in 0..groups(&sandbox, "probe").len() {
                let dirs: Vec<PathBuf> =
                    (0..5).map(|n| groups(&sandbox, &format!("target-{n}")).swap_remove(layout)).collect();
                let stuck: Vec<TraceExit> = dirs.iter().map(|dir| sandbox.trace_exit(&[dir])).collect();
                // To remove these takes a descriptor as well.
                dirs.iter().for_each(|dir| fs::create_dir(dir.join("child")).expect("mkdir"));
                let mut reactor = Reactor::new().expect("a reactor");
                let waits = |dir: &PathBuf| Reaper::at(dir).max_wait(20 * MS);
                let handles: Vec<_> =
                    dirs.iter().map(|dir| reactor.spawn_reaper(waits(dir)).expect("a spawn")).collect();
                eventually("all to be killed", || {
                    reactor.turn(Some(MS)).expect("a turn");
                    stuck.iter().all(TraceExit::parked)
                });
                let taken = TakenDescriptors::new();
                stuck.iter().for_each(TraceExit::release);
                eventually("all to be reaped without a free descriptor", || {
                    reactor.turn(Some(20 * MS)).expect("a turn");
                    reactor.is_empty()
                });
                drop(taken);
                for handle in handles {
                    assert_eq!(handle.wait().expect("reaped").outcome, Outcome::Removed);
                }
            }
        })
    });
}

#[test]
fn many_children_are_removed_in_as_many_steps_as_they_need() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            for n in 0..600 {
                fs::create_dir(dir.join(n.to_string())).expect("mkdir");
            }
            let mut reactor = Reactor::new().expect("a reactor");
            // In a spawn with a budget the walk would be cut.
            reactor.set_turn_budget(Duration::MAX);
            let handle = reactor.spawn_reaper(Reaper::at(&dir)).expect("a spawn");
            let reaped = reactor.run_until(&handle).expect("turns");
            assert_eq!(reaped.expect("reaped").outcome, Outcome::Removed);
            let metrics = reactor.metrics();
            // 128 directories a step, and the tree is walked once, not for each of them.
            assert_eq!(metrics.removals, 5);
            assert!(metrics.calls.list <= 4, "{metrics:?}");
        }
    });
}

/// Nested groups, until the path from the first to the last is longer than the kernel takes. Removed when dropped,
/// even with processes in the last.
struct Deep {
    levels: Vec<OwnedFd>,
    way_out: PathBuf,
}

impl Deep {
    const NAME: [u8; 250] = [b'd'; 250];

    fn new(dir: &Path) -> Deep {
        let open = |at: BorrowedFd<'_>, path: &[u8]| {
            openat(at, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).expect("open")
        };
        let mut levels = vec![open(AT_FDCWD, dir.as_os_str().as_bytes())];
        for _ in 0..libc::PATH_MAX / 250 + 1 {
            let last = levels.last().expect("the first");
            mkdirat(last, &Self::NAME[..], Mode::S_IRWXU).expect("mkdir");
            levels.push(open(last.as_fd(), &Self::NAME));
        }
        Deep { levels, way_out: dir.with_file_name("cgroup.procs") }
    }

    /// A file of the innermost.
    fn file(&self, name: &str, flags: OFlag) -> nix::Result<File> {
        Ok(openat(self.levels.last().expect("one"), name, flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    fn enter(&self, pid: i32) {
        let mut procs = self.file("cgroup.procs", OFlag::O_WRONLY).expect("cgroup.procs");
        procs.write_all(pid.to_string().as_bytes()).expect("moved in");
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        let mut pids = String::new();
        if let Ok(mut procs) = self.file("cgroup.procs", OFlag::O_RDONLY) {
            let _ = procs.read_to_string(&mut pids);
        }
        for pid in pids.lines() {
            let _ = fs::write(&self.way_out, pid);
        }
        for level in self.levels.iter().rev().skip(1) {
            let _ = unlinkat(level, &Self::NAME[..], UnlinkatFlags::RemoveDir);
        }
    }
}

#[test]
fn a_path_longer_than_the_kernel_takes_hides_no_member() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    for method in [KillMethod::Auto, KillMethod::Freezer, KillMethod::Pidfd] {
        for dir in groups(&sandbox, &format!("target-{method}")) {
            let has_freezer = ["cgroup.freeze", "freezer.state"].iter().any(|file| dir.join(file).exists());
            if method == KillMethod::Freezer && !has_freezer {
                continue;
            }
            let deep = Deep::new(&dir);
            let member = sandbox.sleeper(&[&dir]);
            deep.enter(member.pid);
            let reaped = reap(Reaper::at(&dir).method(method).deadline(TIMEOUT)).expect("reaped");
            assert_eq!(reaped.outcome, Outcome::Removed);
            assert!(!member.alive() && !dir.exists());
        }
    }
}
