//! Members that take long to exit: no reap completes before they have exited, and no other reap waits for them.
#![allow(unsafe_code, reason = "pidfd_open(2), to see an exit from outside")]

mod common;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use cgroup_reaper::{Outcome, Reactor, ReapError, Reaper};
use common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Memory whose release takes some 100 ms: far more than the reap of another target.
const MIB: usize = 1200;

fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: two integers; the kernel returns a descriptor that is ours alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn dead(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0
}

/// A slow exit in one group, and neighbours spawned when that has begun.
fn slow_exit(sandbox: &Sandbox, group: impl Fn(&str) -> PathBuf) -> Result<(), String> {
    let mut reactor = Reactor::new().unwrap();
    let big = &*group("big");
    let process = sandbox.big_memory(MIB, &[big]);
    let pidfd = pidfd(process.pid);
    let small: Vec<PathBuf> = (0..4).map(|n| group(&format!("small-{n}"))).collect();
    let _sleepers: Vec<Proc> = small.iter().map(|dir| sandbox.sleeper(&[dir])).collect();
    let handle = reactor.spawn_reaper(Reaper::at(big)).unwrap();
    let others: Vec<_> = small.iter().map(|dir| reactor.spawn_reaper(Reaper::at(dir)).unwrap()).collect();
    let mut before_its_death = 0;
    eventually("all to be reaped", || {
        reactor.turn(Some(Duration::from_millis(1))).unwrap();
        let gone = dead(&pidfd);
        if !gone {
            assert!(!handle.is_complete(), "completed while its member lives");
            before_its_death = others.iter().filter(|handle| handle.is_complete()).count();
        }
        reactor.is_empty()
    });
    assert_eq!(handle.wait().unwrap().outcome, Outcome::Removed);
    assert!(others.iter().all(|handle| handle.wait().unwrap().outcome == Outcome::Removed));
    assert!(dead(&pidfd) && !big.exists());
    // A removal that blocked until the exit would have delayed every one of them.
    if before_its_death >= 1 { Ok(()) } else { Err("none of four".into()) }
}

#[test]
fn a_slow_exit_on_v2() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    some_try("a neighbour done before the slow exit", |_| slow_exit(&sandbox, |name| sandbox.v2(name)));
}

#[test]
fn a_slow_exit_on_v1() {
    require!(v1("freezer"));
    let sandbox = Sandbox::new(test_name!());
    some_try("a neighbour done before the slow exit", |_| {
        slow_exit(&sandbox, |name| sandbox.v1("freezer", name))
    });
}

/// A member that cannot exit for a while and then can: with a deadline it is reported, without one waited for.
fn stuck(sandbox: &Sandbox, dirs: [PathBuf; 3]) {
    let [waits, gives_up, neighbour] = dirs;
    let mut reactor = Reactor::new().unwrap();
    let held = [sandbox.trace_exit(&[&waits]), sandbox.trace_exit(&[&gives_up])];
    let _sleeper = sandbox.sleeper(&[&neighbour]);
    let waits = reactor.spawn_reaper(Reaper::at(&waits)).unwrap();
    let gives_up = reactor.spawn_reaper(Reaper::at(&gives_up).deadline(Duration::from_millis(500))).unwrap();
    let neighbour = reactor.spawn_reaper(Reaper::at(&neighbour)).unwrap();
    reactor.run_until(&neighbour).unwrap().unwrap();
    assert!(!waits.is_complete() && !gives_up.is_complete());
    match reactor.run_until(&gives_up).unwrap() {
        Err(ReapError::TimedOut { survivors, .. }) => {
            assert_eq!(survivors.len(), 1);
            assert_eq!(survivors[0].pid, held[1].pid);
            assert!(matches!(survivors[0].state, Some('t' | 'D')), "{survivors:?}");
            assert!(!survivors[0].command.is_empty() && !survivors[0].kernel_thread);
        }
        other => panic!("{other:?}"),
    }
    // What timed out is released: one reap is left, and its descriptors: directory, events, a pidfd.
    assert_eq!(reactor.len(), 1);
    assert!(reactor.metrics().descriptors <= 3);
    for _ in 0..10 {
        reactor.turn(Some(Duration::from_millis(20))).unwrap();
    }
    assert!(!waits.is_complete());
    held.iter().for_each(|held| held.release());
    eventually("the other to be reaped", || {
        reactor.turn(Some(Duration::from_millis(20))).unwrap();
        waits.is_complete()
    });
    assert_eq!(waits.wait().unwrap().outcome, Outcome::Removed);
    assert_eq!(reactor.metrics().descriptors, 0);
}

#[test]
fn a_stuck_exit_on_v2() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        stuck(&sandbox, ["waits", "gives-up", "neighbour"].map(|name| sandbox.v2(name)));
    });
}

#[test]
fn a_stuck_exit_on_v1() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        stuck(&sandbox, ["waits", "gives-up", "neighbour"].map(|name| sandbox.v1("freezer", name)));
    });
}
