//! A reactor in an epoll loop of the caller's own.

mod common;

use std::error::Error;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cgroup_reaper::{Outcome, Reactor, Reaper};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const REACTOR: u64 = 0;
const SOCKET: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };

    // The loop has something else to do as well: it listens to a socket.
    let (mut socket, other_end) = UnixStream::pair()?;
    let mut reactor = Reactor::new()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;

    // The reactor is one more descriptor, level-triggered here; with EPOLLET it works just as well.
    epoll.add(&reactor, EpollEvent::new(EpollFlags::EPOLLIN, REACTOR))?;

    let mut handles = Vec::new();
    for name in ["one", "two", "three"] {
        handles.push(reactor.spawn_reaper(Reaper::at(groups.sleepers(name, 2)?))?);
    }
    let mut other_end = Some(other_end);
    let mut listening = true;

    while listening || !reactor.is_empty() {
        let mut events = [EpollEvent::empty(); 16];
        // No timeout: the reactor's timers make the descriptor readable too.
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        for event in &events[..count] {
            match event.data() {
                REACTOR => {
                    let completed = reactor.turn(Some(Duration::ZERO))?;
                    println!("reactor: {completed} completed");
                    // After the first reap the other end of the socket is closed.
                    if completed > 0 {
                        other_end = None;
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
    drop(other_end);

    for handle in handles {
        let reaped = handle.wait()?;
        println!("{} in {:?}, attempts: {}", reaped.outcome, reaped.elapsed, reaped.attempts);
        assert_eq!(reaped.outcome, Outcome::Removed);
    }
    Ok(())
}
