//! The bare loops: the fewest system calls for the same work, without the checks that make it safe. There are several
//! variants, of which the best counts.

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::calls::Calls;
use super::contender::{Card, Contender, Driven, Family, Kind};
use super::groups::{Group, Place};
use super::sys::{self, Epoll, Inotify};

const EDGE_OF_EVENTS: i32 = libc::EPOLLPRI | libc::EPOLLET;

/// Whether the group of this `cgroup.events` is populated.
fn populated(events: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0; 64];
    let n = sys::read(events, &mut buffer, 0)?;
    Ok(buffer[..n].starts_with(b"populated 1"))
}

fn write_once(path: &CStr, text: &[u8]) -> io::Result<()> {
    sys::write(&sys::open(path, libc::O_WRONLY)?, text)
}

/// Opens each member. The buffer is kept for the next time.
fn members(group: &Group, buffer: &mut Vec<u8>) -> io::Result<Vec<OwnedFd>> {
    let procs = sys::open(&group.procs, libc::O_RDONLY)?;
    let mut length = 0;
    loop {
        // A list that is cut off may end in a part of a pid.
        if length == buffer.len() {
            buffer.resize(2 * length + 4096, 0);
        }
        match sys::read(&procs, &mut buffer[length..], length)? {
            0 => break,
            n => length += n,
        }
    }
    drop(procs);
    let numbers = buffer[..length].split(|&b| b == b'\n').filter(|line| !line.is_empty());
    numbers
        .map(|line| {
            let pid = line.iter().fold(0, |pid, digit| pid * 10 + i32::from(digit - b'0'));
            sys::pidfd_open(pid)
        })
        .collect()
}

/// Waits for the exit of each, the last listed first: it is mostly the last to exit.
fn wait_for(mut members: Vec<OwnedFd>) -> io::Result<()> {
    while let Some(member) = members.pop() {
        sys::poll(&member, libc::POLLIN, -1)?;
    }
    Ok(())
}

/// As `wait_for`, for many groups; `members` is what is left of each.
fn wait_for_all(
    epoll: &Epoll,
    groups: &[Group],
    mut members: Vec<Vec<OwnedFd>>,
    finish: &mut Finish,
    calls: &mut Calls,
) -> io::Result<()> {
    let mut ready = Vec::new();
    while finish.left > 0 {
        epoll.wait(&mut ready)?;
        calls.turn(|| {
            for index in ready.drain(..) {
                // The one that was waited for, and then the others that have exited.
                members[index].pop();
                while let Some(member) = members[index].last() {
                    if !sys::poll(member, libc::POLLIN, 0)? {
                        epoll.add(member.as_fd(), libc::EPOLLIN, index)?;
                        break;
                    }
                    members[index].pop();
                }
                if members[index].is_empty() {
                    sys::rmdir(&groups[index].path)?;
                    finish.done(index);
                }
            }
            io::Result::Ok(())
        })?;
    }
    Ok(())
}

/// When each group was begun and how long it took.
struct Finish {
    begun: Vec<Instant>,
    took: Vec<Duration>,
    left: usize,
}

impl Finish {
    fn new(groups: &[Group]) -> Finish {
        let left = groups.len();
        Finish { begun: Vec::with_capacity(left), took: vec![Duration::ZERO; left], left }
    }

    fn begin(&mut self) {
        self.begun.push(Instant::now());
    }

    fn done(&mut self, index: usize) {
        self.took[index] = self.begun[index].elapsed();
        self.left -= 1;
    }
}

/// How the loop is notified that a v2 group is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hear {
    /// `cgroup.events` in an epoll, from before the kill.
    EpollBefore,
    /// The same, from after it.
    EpollAfter,
    /// `cgroup.events` in an inotify instance for all, from before the kill.
    Inotify,
    /// `cgroup.events` by poll(2), read before the kill. For one group.
    Poll,
    /// The members' pidfds, then `cgroup.events`. For one group.
    Pidfds,
}

pub struct V2 {
    card: Card,
    hear: Hear,
    epoll: Epoll,
    inotify: Inotify,
    list: Vec<u8>,
}

impl V2 {
    pub fn new(name: &'static str, hear: Hear) -> io::Result<V2> {
        let card = Card { name, kind: Kind::Bare, family: Family::V2, place: Place::V2, most: usize::MAX };
        Ok(V2 { card, hear, epoll: Epoll::new()?, inotify: Inotify::new()?, list: Vec::new() })
    }

    fn one(&mut self, group: &Group) -> io::Result<()> {
        if self.hear == Hear::Poll {
            let events = sys::open(&group.events, libc::O_RDONLY)?;
            // Its answer does not matter: poll tells of changes since it was read.
            populated(&events)?;
            write_once(&group.kill, b"1")?;
            while populated(&events)? {
                sys::poll(&events, libc::POLLPRI, -1)?;
            }
        } else {
            let members = members(group, &mut self.list)?;
            write_once(&group.kill, b"1")?;
            wait_for(members)?;
            let events = sys::open(&group.events, libc::O_RDONLY)?;
            while populated(&events)? {
                std::thread::yield_now();
            }
        }
        sys::rmdir(&group.path)
    }

    /// Kills the members, and has the loop notified when they have exited; returns what it is notified by.
    fn begin(&mut self, index: usize, group: &Group) -> io::Result<(OwnedFd, Option<c_int>)> {
        let events = sys::open(&group.events, libc::O_RDONLY)?;
        let mut watch = None;
        if self.hear == Hear::EpollBefore {
            // Read first: else the first wake-up is for nothing.
            populated(&events)?;
            self.epoll.add(events.as_fd(), EDGE_OF_EVENTS, index)?;
            write_once(&group.kill, b"1")?;
        } else if self.hear == Hear::Inotify {
            watch = Some(self.inotify.add(&group.events, index)?);
            write_once(&group.kill, b"1")?;
        } else {
            write_once(&group.kill, b"1")?;
            self.epoll.add(events.as_fd(), EDGE_OF_EVENTS, index)?;
        }
        Ok((events, watch))
    }
}

impl Contender for V2 {
    fn card(&self) -> &Card {
        &self.card
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        if matches!(self.hear, Hear::Poll | Hear::Pidfds) {
            assert_eq!(groups.len(), 1, "a variant for one");
            let mut finish = Finish::new(groups);
            finish.begin();
            self.one(&groups[0])?;
            finish.done(0);
            return Ok(finish.took);
        }
        self.drive(groups, &mut Calls::untimed())
    }

    fn driven(&mut self) -> Option<&mut dyn Driven> {
        Some(self)
    }
}

impl Driven for V2 {
    fn drive(&mut self, groups: &[Group], calls: &mut Calls) -> io::Result<Vec<Duration>> {
        let mut finish = Finish::new(groups);
        let mut watched = Vec::with_capacity(groups.len());
        for (index, group) in groups.iter().enumerate() {
            finish.begin();
            watched.push(Some(calls.spawn(|| self.begin(index, group))?));
        }
        let mut ready = Vec::new();
        while finish.left > 0 {
            if self.hear == Hear::Inotify {
                self.inotify.wait(&mut ready)?;
            } else {
                self.epoll.wait(&mut ready)?;
            }
            calls.turn(|| {
                for index in ready.drain(..) {
                    let Some((events, watch)) = &watched[index] else { continue };
                    if !populated(events)? {
                        if let &Some(watch) = watch {
                            self.inotify.remove(watch);
                        }
                        watched[index] = None;
                        sys::rmdir(&groups[index].path)?;
                        finish.done(index);
                    }
                }
                io::Result::Ok(())
            })?;
        }
        Ok(finish.took)
    }
}

/// v1: pidfds, with or without the freezer.
pub struct V1 {
    card: Card,
    epoll: Epoll,
    /// Yield the CPU between two reads of the freezer's state.
    gentle: bool,
    /// Wait for the exits by poll(2) if there is only one group.
    direct: bool,
    list: Vec<u8>,
}

impl V1 {
    pub fn pidfd(name: &'static str, place: Place, direct: bool) -> io::Result<V1> {
        let card = Card { name, kind: Kind::Bare, family: Family::Pidfd, place, most: usize::MAX };
        Ok(V1 { card, epoll: Epoll::new()?, gentle: false, direct, list: Vec::new() })
    }

    pub fn freezer(name: &'static str, gentle: bool) -> io::Result<V1> {
        // A loop that spins takes the CPU from the exits it waits for, for seconds if there are many.
        let most = if gentle { usize::MAX } else { 100 };
        let card = Card { name, kind: Kind::Bare, family: Family::Freezer, place: Place::Freezer, most };
        Ok(V1 { card, epoll: Epoll::new()?, gentle, direct: true, list: Vec::new() })
    }

    /// Sends SIGKILL to all.
    fn kill(&mut self, group: &Group) -> io::Result<Vec<OwnedFd>> {
        if self.card.family == Family::Pidfd {
            let members = members(group, &mut self.list)?;
            members.iter().try_for_each(sys::pidfd_kill)?;
            return Ok(members);
        }
        let state = sys::open(&group.state, libc::O_RDWR)?;
        sys::write(&state, b"FROZEN")?;
        let mut buffer = [0; 16];
        loop {
            let n = sys::read(&state, &mut buffer, 0)?;
            if &buffer[..n] == b"FROZEN\n" {
                break;
            }
            if self.gentle {
                std::thread::yield_now();
            }
        }
        let members = members(group, &mut self.list)?;
        members.iter().try_for_each(sys::pidfd_kill)?;
        sys::write(&state, b"THAWED")?;
        Ok(members)
    }
}

impl Contender for V1 {
    fn card(&self) -> &Card {
        &self.card
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        if let ([group], true) = (groups, self.direct) {
            let mut finish = Finish::new(groups);
            finish.begin();
            wait_for(self.kill(group)?)?;
            sys::rmdir(&group.path)?;
            finish.done(0);
            return Ok(finish.took);
        }
        self.drive(groups, &mut Calls::untimed())
    }

    fn driven(&mut self) -> Option<&mut dyn Driven> {
        Some(self)
    }
}

impl Driven for V1 {
    fn drive(&mut self, groups: &[Group], calls: &mut Calls) -> io::Result<Vec<Duration>> {
        let mut finish = Finish::new(groups);
        let mut waiting = Vec::with_capacity(groups.len());
        for (index, group) in groups.iter().enumerate() {
            finish.begin();
            let begun = calls.spawn(|| {
                let members = self.kill(group)?;
                if let Some(last) = members.last() {
                    self.epoll.add(last.as_fd(), libc::EPOLLIN, index)?;
                }
                io::Result::Ok(members)
            });
            waiting.push(begun?);
        }
        wait_for_all(&self.epoll, groups, waiting, &mut finish, calls)?;
        Ok(finish.took)
    }
}
