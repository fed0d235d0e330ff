//! A reactor in a `mio::Poll` of the caller's own.

mod common;

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use cgroup_reaper::{Outcome, Reactor, Reaper};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const REACTOR: Token = Token(0);

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let mut reactor = Reactor::new()?;

    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&reactor.as_raw_fd()), REACTOR, Interest::READABLE)?;
    // ... your other sources ...

    let mut handles = Vec::new();
    for name in ["one", "two", "three"] {
        handles.push(reactor.spawn_reaper(Reaper::at(groups.sleepers(name, 2)?))?);
    }

    let mut events = Events::with_capacity(64);
    while !reactor.is_empty() {
        // No timeout: the reactor's timers make the descriptor readable too.
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            // mio is edge-triggered. One turn for each event is enough: what a turn leaves for the next
            // one raises a new edge.
            if event.token() == REACTOR {
                let completed = reactor.turn(Some(Duration::ZERO))?;
                println!("reactor: {completed} completed");
            }
        }
    }

    for handle in handles {
        let reaped = handle.wait()?;
        println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
        assert_eq!(reaped.outcome, Outcome::Removed);
    }
    Ok(())
}
