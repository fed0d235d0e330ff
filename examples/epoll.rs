//! A reactor in an epoll loop of the caller's own.

mod common;

use std::error::Error;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cgroup_reaper::{Completed, Reactor, ReapError, Reaper};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const REACTOR: u64 = 0;
const SOCKET: u64 = 1;

/// What the reaps are for. Their tags are indices.
const JOBS: [&str; 3] = ["one", "two", "three"];

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };

    // The loop has something else to do as well: it listens to a socket.
    let (mut socket, other_end) = UnixStream::pair()?;
    let mut reactor = Reactor::new()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;

    // The reactor is one more descriptor, level-triggered here; with EPOLLET it works just as well.
    epoll.add(&reactor, EpollEvent::new(EpollFlags::EPOLLIN, REACTOR))?;

    let mut running = JOBS.len();
    for (tag, job) in (0..).zip(JOBS) {
        drop(reactor.spawn_reaper(Reaper::at(groups.sleepers(job, 2)?).tag(tag))?);
    }
    let mut other_end = Some(other_end);
    let mut listening = true;

    while listening || running > 0 {
        let mut events = [EpollEvent::empty(); 16];
        // No timeout: the reactor's timers make the descriptor readable too.
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        for event in &events[..count] {
            match event.data() {
                REACTOR => {
                    reactor.turn(Some(Duration::ZERO))?;
                    for ended in reactor.drain_completed() {
                        report(ended)?;
                        running -= 1;
                        // After the first reap the other end of the socket is closed.
                        drop(other_end.take());
                    }
                }
                _ => {
                    listening = socket.read(&mut [0; 64])? > 0;
                    println!("socket: {}", if listening { "data" } else { "closed" });
                    if !listening {
                        epoll.delete(&socket)?;
                    }
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
