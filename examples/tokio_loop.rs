//! Two ways to reap from tokio: a reactor within the runtime, and one on a thread beside it.
//!
//! The first costs no thread, and needs the feature `tokio`. Its turns run on the runtime's threads. The second keeps them
//! away from other tasks. The code that awaits is the same.

mod common;

use std::error::Error;
use std::thread;

use cgroup_reaper::{Outcome, Reactor, Reaper, Remote, TokioReactor};

/// Any task with a `Remote` can reap; a handle is a future.
async fn reap(remote: Remote, reaper: Reaper) -> Result<(), Box<dyn Error + Send + Sync>> {
    let reaped = remote.spawn_reaper(reaper)?.await?;
    println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
    assert_eq!(reaped.outcome, Outcome::Removed);
    Ok(())
}

async fn run(mut groups: common::Groups) -> Result<(), Box<dyn Error>> {
    // Within the runtime.
    let reactor = TokioReactor::new()?;
    let tasks = [
        tokio::spawn(reap(reactor.remote(), Reaper::at(groups.sleepers("one", 1)?))),
        tokio::spawn(reap(reactor.remote(), Reaper::at(groups.sleepers("two", 2)?))),
    ];
    for task in tasks {
        task.await?.map_err(|error| error as Box<dyn Error>)?;
    }
    // Reaps under way are cancelled by this.
    reactor.shutdown().await?;

    // Beside it.
    let mut reactor = Reactor::new()?;
    let remote = reactor.remote();
    let thread = thread::spawn(move || reactor.run());
    let three = Reaper::at(groups.sleepers("three", 3)?);
    reap(remote.clone(), three).await.map_err(|error| error as Box<dyn Error>)?;
    remote.stop();
    thread.join().expect("no panic")?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(groups) = common::Groups::new()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(groups))
}
