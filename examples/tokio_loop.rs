//! Two ways to reap from tokio: a reactor within the runtime, and one on a thread beside it.
//!
//! The first costs no thread; a turn then runs on the runtime's, and takes as long as the kernel needs to
//! kill. The second keeps that away from other tasks. The code that awaits is the same.

mod common;

use std::error::Error;
use std::io;
use std::thread;
use std::time::Duration;

use cgroup_reaper::{Outcome, Reactor, Reaper, Remote};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Drives a reactor as a task, for as long as the runtime lives.
async fn drive(reactor: Reactor) -> io::Result<()> {
    // tokio 1.54 has an unsafe variant as well, whose caller guarantees that the value keeps its descriptor. A reactor
    // does, so this variant is as good.
    #[allow(deprecated)]
    let mut reactor = AsyncFd::with_interest(reactor, Interest::READABLE)?;
    loop {
        let mut ready = reactor.readable_mut().await?;
        ready.get_inner_mut().turn(Some(Duration::ZERO))?;
        ready.clear_ready();
    }
}

/// Any task with a `Remote` can reap; a handle is a future.
async fn reap(remote: Remote, reaper: Reaper) -> Result<(), Box<dyn Error + Send + Sync>> {
    let reaped = remote.spawn_reaper(reaper)?.await?;
    println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
    assert_eq!(reaped.outcome, Outcome::Removed);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    // Within the runtime.
    let reactor = Reactor::new()?;
    let remote = reactor.remote();
    let driver = runtime.spawn(drive(reactor));
    let tasks = [
        runtime.spawn(reap(remote.clone(), Reaper::at(groups.sleepers("one", 1)?))),
        runtime.spawn(reap(remote.clone(), Reaper::at(groups.sleepers("two", 2)?))),
    ];
    for task in tasks {
        runtime.block_on(task)?.map_err(|error| error as Box<dyn Error>)?;
    }
    // Dropped with the task. Reaps under way would complete as disconnected.
    driver.abort();

    // Beside it.
    let mut reactor = Reactor::new()?;
    let remote = reactor.remote();
    let thread = thread::spawn(move || reactor.run());
    let three = Reaper::at(groups.sleepers("three", 3)?);
    runtime.block_on(reap(remote.clone(), three)).map_err(|error| error as Box<dyn Error>)?;
    remote.stop();
    thread.join().expect("no panic")?;
    Ok(())
}
