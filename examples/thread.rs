//! A reactor on a thread of its own, with a [`Remote`](cgroup_reaper::Remote) as its front.
//!
//! For programs without an event loop, or with one that must not wait for the kernel: handing over a reap is cheap,
//! and the rest happens on the reactor's thread.

mod common;

use std::error::Error;
use std::thread;

use cgroup_reaper::{Outcome, Reactor, Reaper};

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let dirs = [groups.sleepers("one", 1)?, groups.sleepers("two", 2)?, groups.sleepers("three", 3)?];

    // These three lines start it.
    let mut reactor = Reactor::new()?;
    let remote = reactor.remote();
    let thread = thread::spawn(move || reactor.run());

    // From here on any thread with a clone of `remote` can spawn, and any thread with a handle can wait.
    let waiters: Vec<_> = dirs
        .into_iter()
        .map(|dir| {
            let remote = remote.clone();
            thread::spawn(move || remote.spawn_reaper(Reaper::at(dir)).map(|handle| handle.wait()))
        })
        .collect();
    for waiter in waiters {
        let reaped = waiter.join().expect("no panic")??;
        println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
        assert_eq!(reaped.outcome, Outcome::Removed);
    }

    // `run` returns on this; dropping the last remote would not do it.
    remote.stop();
    thread.join().expect("no panic")?;
    Ok(())
}
