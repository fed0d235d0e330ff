//! A reactor in calloop.

mod common;

use std::error::Error;
use std::os::fd::AsFd;
use std::time::Duration;

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, Mode, PostAction};
use cgroup_reaper::{Outcome, Reactor, Reaper};

/// What the callbacks of the loop share.
struct App {
    reactor: Reactor,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let mut event_loop: EventLoop<'_, App> = EventLoop::try_new()?;
    let mut app = App { reactor: Reactor::new()? };

    // A source lends its content out only shared, and a turn needs it exclusively. So the reactor is in the
    // shared data, and the source is a duplicate of its descriptor, which is readable when the original is.
    let readiness = app.reactor.as_fd().try_clone_to_owned()?;
    let source = Generic::new(readiness, Interest::READ, Mode::Level);
    event_loop.handle().insert_source(source, |_readiness, _fd, app| {
        let completed = app.reactor.turn(Some(Duration::ZERO))?;
        println!("reactor: {completed} completed");
        Ok(PostAction::Continue)
    })?;

    let mut handles = Vec::new();
    for name in ["one", "two", "three"] {
        handles.push(app.reactor.spawn_reaper(Reaper::at(groups.sleepers(name, 2)?))?);
    }

    while !app.reactor.is_empty() {
        // No timeout: the reactor's timers make the descriptor readable too.
        event_loop.dispatch(None, &mut app)?;
    }

    for handle in handles {
        let reaped = handle.wait()?;
        println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
        assert_eq!(reaped.outcome, Outcome::Removed);
    }
    Ok(())
}
