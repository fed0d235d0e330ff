//! A reactor in async-io, the reactor of smol and others.

mod common;

use std::error::Error;
use std::os::fd::AsFd;
use std::time::Duration;

use async_io::Async;
use cgroup_reaper::{Completed, Reactor, ReapError, Reaper};

/// What the reaps are for. Their tags are indices.
const JOBS: [&str; 3] = ["one", "two", "three"];

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let mut reactor = Reactor::new()?;

    // `Async` lends its content out only shared, and a turn needs it exclusively, so it gets a duplicate
    // of the descriptor, which is readable when the original is.
    let readiness = Async::new(reactor.as_fd().try_clone_to_owned()?)?;

    let mut running = JOBS.len();
    for (tag, job) in (0..).zip(JOBS) {
        drop(reactor.spawn_reaper(Reaper::at(groups.sleepers(job, 2)?).tag(tag))?);
    }

    async_io::block_on(async {
        while running > 0 {
            readiness.readable().await?;
            reactor.turn(Some(Duration::ZERO))?;
            for ended in reactor.drain_completed() {
                report(ended)?;
                running -= 1;
            }
        }
        Ok(())
    })
}

/// Says how one ended.
fn report(ended: Completed) -> Result<(), ReapError> {
    let reaped = ended.result?;
    println!("{}: {} in {:?}", JOBS[ended.tag as usize], reaped.outcome, reaped.elapsed);
    Ok(())
}
