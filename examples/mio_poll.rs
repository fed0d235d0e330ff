//! A reactor in a `mio::Poll` of the caller's own.

mod common;

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use cgroup_reaper::{Completed, Reactor, ReapError, Reaper};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const REACTOR: Token = Token(0);

/// What the reaps are for. Their tags are indices.
const JOBS: [&str; 3] = ["one", "two", "three"];

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let mut reactor = Reactor::new()?;

    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&reactor.as_raw_fd()), REACTOR, Interest::READABLE)?;
    // ... your other sources ...

    let mut running = JOBS.len();
    for (tag, job) in (0..).zip(JOBS) {
        drop(reactor.spawn_reaper(Reaper::at(groups.sleepers(job, 2)?).tag(tag))?);
    }

    let mut events = Events::with_capacity(64);
    while running > 0 {
        // No timeout: the reactor's timers make the descriptor readable too.
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            // mio is edge-triggered. One turn for each event is enough: what a turn leaves for the next
            // one raises a new edge.
            if event.token() == REACTOR {
                reactor.turn(Some(Duration::ZERO))?;
                for ended in reactor.drain_completed() {
                    report(ended)?;
                    running -= 1;
                }
            }
        }
    }
    Ok(())
}

/// Says how one ended.
fn report(ended: Completed) -> Result<(), ReapError> {
    let reaped = ended.result?;
    println!("{}: {} in {:?}", JOBS[ended.tag as usize], reaped.outcome, reaped.elapsed);
    Ok(())
}
