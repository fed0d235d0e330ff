//! A reactor in calloop.

mod common;

use std::error::Error;
use std::os::fd::AsFd;
use std::time::Duration;

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, Mode, PostAction};
use cgroup_reaper::{Completed, Reactor, ReapError, Reaper};

/// What the callbacks of the loop share.
struct App {
    reactor: Reactor,
    running: usize,
}

/// What the reaps are for. Their tags are indices.
const JOBS: [&str; 3] = ["one", "two", "three"];

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    let mut event_loop: EventLoop<'_, App> = EventLoop::try_new()?;
    let mut app = App { reactor: Reactor::new()?, running: JOBS.len() };

    // A source lends its content out only shared, and a turn needs it exclusively. So the reactor is in the
    // shared data, and the source is a duplicate of its descriptor, which is readable when the original is.
    let readiness = app.reactor.as_fd().try_clone_to_owned()?;
    let source = Generic::new(readiness, Interest::READ, Mode::Level);
    event_loop.handle().insert_source(source, |_readiness, _fd, app| {
        app.reactor.turn(Some(Duration::ZERO))?;
        for ended in app.reactor.drain_completed() {
            app.running -= 1;
            report(ended).map_err(std::io::Error::other)?;
        }
        Ok(PostAction::Continue)
    })?;

    for (tag, job) in (0..).zip(JOBS) {
        drop(app.reactor.spawn_reaper(Reaper::at(groups.sleepers(job, 2)?).tag(tag))?);
    }

    while app.running > 0 {
        // No timeout: the reactor's timers make the descriptor readable too.
        event_loop.dispatch(None, &mut app)?;
    }
    Ok(())
}

/// Says how one ended.
fn report(ended: Completed) -> Result<(), ReapError> {
    let reaped = ended.result?;
    println!("{}: {} in {:?}", JOBS[ended.tag as usize], reaped.outcome, reaped.elapsed);
    Ok(())
}
