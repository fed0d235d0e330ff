//! A reactor in async-io, the reactor of smol and others.

mod common;

use std::error::Error;
use std::os::fd::AsFd;
use std::time::Duration;

use async_io::Async;
use cgroup_reaper::{Outcome, Reactor, Reaper};

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let mut reactor = Reactor::new()?;

    // `Async` lends its content out only shared, and a turn needs it exclusively, so it gets a duplicate
    // of the descriptor, which is readable when the original is.
    let readiness = Async::new(reactor.as_fd().try_clone_to_owned()?)?;

    let mut handles = Vec::new();
    for name in ["one", "two", "three"] {
        handles.push(reactor.spawn_reaper(Reaper::at(groups.sleepers(name, 2)?))?);
    }

    async_io::block_on(async {
        while !reactor.is_empty() {
            readiness.readable().await?;
            let completed = reactor.turn(Some(Duration::ZERO))?;
            println!("reactor: {completed} completed");
        }
        for handle in handles {
            let reaped = handle.await?;
            println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
            assert_eq!(reaped.outcome, Outcome::Removed);
        }
        Ok(())
    })
}
