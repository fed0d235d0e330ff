//! What is measured, one after another in every round.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cgroup_reaper::{KillMethod, Metrics, Reactor, ReapHandle, Reaper};

use super::alloc;
use super::calls::Calls;
use super::groups::{Group, Place};
use super::sys::Epoll;

/// What is compared with each other: the best bare loop of a family is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V2,
    Pidfd,
    Freezer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// This crate in another event loop.
    Embedded,
    Bare,
    /// The model of `timer_paced`.
    TimerPaced,
    /// Another crate or program that does this job.
    Peer,
}

#[derive(Debug, Clone, Copy)]
pub struct Card {
    pub name: &'static str,
    pub kind: Kind,
    pub family: Family,
    pub place: Place,
    /// The most groups it is given at once, to limit the time of the benchmark.
    pub most: usize,
}

pub trait Contender {
    fn card(&self) -> &Card;

    /// Prepares what is not part of the work: names and buffers.
    fn prepare(&mut self, _groups: &[Group]) {}

    /// The same, once the members are there: each group's, in its order.
    fn settle(&mut self, _groups: &[Group], _pids: &[i32]) -> io::Result<()> {
        Ok(())
    }

    /// Kills everything in the groups, all at once, waits until they are empty, and removes them. Returns the
    /// time that each took from its own start.
    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>>;

    /// A directory that should have been removed by `reap`, and is still there.
    fn left(&self, groups: &[Group]) -> Option<PathBuf> {
        groups.iter().find(|group| group.dir.exists()).map(|group| group.dir.clone())
    }

    /// Begins to reap groups that cannot become empty before the last phase ends. At the end of each phase it tells how often
    /// it has woken up. Then it completes the reaps.
    fn wait(&mut self, _groups: &[Group], _phases: &mut dyn Phases) -> io::Result<()> {
        Ok(())
    }

    /// Allocations of a turn with nothing to do, where `wait` took them.
    fn idle_allocations(&self) -> Option<u64> {
        None
    }

    fn metrics(&self) -> Option<Metrics> {
        None
    }

    /// The same work in calls of a loop that has other work. None: no step is smaller than the whole reap of a group.
    fn driven(&mut self) -> Option<&mut dyn Driven> {
        None
    }
}

/// A contender that a loop calls: a spawn for each group, and a turn after each wait for something to do.
pub trait Driven {
    /// As `Contender::reap`. The calls are timed, and the waits between them are not.
    fn drive(&mut self, groups: &[Group], calls: &mut Calls) -> io::Result<Vec<Duration>>;
}

pub type Contenders = Vec<Box<dyn Contender>>;

/// The course of a measurement of waiting.
pub trait Phases {
    /// When the phase under way ends.
    fn until(&self) -> Option<Instant>;
    /// Ends it, given the wake-ups so far.
    fn next(&mut self, wakeups: u64);
}

/// This crate.
pub struct Ours {
    card: Card,
    method: KillMethod,
    reactor: Reactor,
    reapers: Vec<Reaper>,
    /// The loop that it is nested in, if it does not run its own.
    outer: Option<Epoll>,
    idle_allocations: Option<u64>,
}

impl Ours {
    pub fn new(name: &'static str, family: Family, place: Place, method: KillMethod) -> io::Result<Ours> {
        let card = Card { name, kind: Kind::Ours, family, place, most: usize::MAX };
        Ok(Ours {
            card,
            method,
            reactor: Reactor::new()?,
            reapers: Vec::new(),
            outer: None,
            idle_allocations: None,
        })
    }

    /// In an epoll of the embedding program, level-triggered.
    pub fn nested(self, name: &'static str) -> io::Result<Ours> {
        let outer = Epoll::new()?;
        outer.add(self.reactor.as_fd(), libc::EPOLLIN, 0)?;
        Ok(Ours { card: Card { name, kind: Kind::Embedded, ..self.card }, outer: Some(outer), ..self })
    }

    pub fn with_helper(mut self, name: &'static str) -> Ours {
        self.reactor.set_helper_thread(true);
        Ours { card: Card { name, ..self.card }, ..self }
    }

    pub fn without_budget(mut self, name: &'static str) -> Ours {
        self.reactor.set_turn_budget(Duration::MAX);
        Ours { card: Card { name, ..self.card }, ..self }
    }

    pub fn spawn(&mut self) -> io::Result<Vec<ReapHandle>> {
        self.reapers
            .drain(..)
            .map(|reaper| self.reactor.spawn_reaper(reaper).map_err(io::Error::other))
            .collect()
    }

    pub fn finish(&mut self) -> io::Result<()> {
        let Some(outer) = &self.outer else { return self.reactor.run_until_idle() };
        let mut ready = Vec::new();
        while !self.reactor.is_empty() {
            outer.wait(&mut ready)?;
            ready.clear();
            self.reactor.turn(Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

/// How long each reap took, without the checks at the spawn.
fn times(handles: &[ReapHandle]) -> io::Result<Vec<Duration>> {
    handles.iter().map(|handle| Ok(handle.wait().map_err(io::Error::other)?.elapsed)).collect()
}

impl Contender for Ours {
    fn card(&self) -> &Card {
        &self.card
    }

    fn prepare(&mut self, groups: &[Group]) {
        self.reapers = groups.iter().map(|group| Reaper::at(&group.dir).method(self.method)).collect();
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        let start = Instant::now();
        let handles = self.spawn()?;
        self.finish()?;
        let total = start.elapsed();
        if groups.len() == 1 {
            return Ok(vec![total]);
        }
        times(&handles)
    }

    fn wait(&mut self, _groups: &[Group], phases: &mut dyn Phases) -> io::Result<()> {
        let _handles = self.spawn()?;
        while let Some(until) = phases.until() {
            let now = Instant::now();
            if now < until {
                self.reactor.turn(Some(until - now))?;
            } else {
                // Some of these turns do find something to do; the median does not.
                let mut counts = Vec::with_capacity(101);
                for _ in 0..101 {
                    let before = alloc::calls();
                    self.reactor.turn(Some(Duration::ZERO))?;
                    counts.push(alloc::calls() - before);
                }
                counts.sort_unstable();
                self.idle_allocations = Some(counts[50]);
                phases.next(self.reactor.metrics().wakeups);
            }
        }
        self.reactor.run_until_idle()
    }

    fn idle_allocations(&self) -> Option<u64> {
        self.idle_allocations
    }

    fn metrics(&self) -> Option<Metrics> {
        Some(self.reactor.metrics())
    }

    fn driven(&mut self) -> Option<&mut dyn Driven> {
        Some(self)
    }
}

impl Driven for Ours {
    fn drive(&mut self, _groups: &[Group], calls: &mut Calls) -> io::Result<Vec<Duration>> {
        let outer = Epoll::new()?;
        outer.add(self.reactor.as_fd(), libc::EPOLLIN, 0)?;
        let mut handles = Vec::with_capacity(self.reapers.len());
        for reaper in self.reapers.drain(..) {
            handles.push(calls.spawn(|| self.reactor.spawn_reaper(reaper)).map_err(io::Error::other)?);
        }
        let mut ready = Vec::new();
        while !self.reactor.is_empty() {
            outer.wait(&mut ready)?;
            ready.clear();
            calls.turn(|| self.reactor.turn(Some(Duration::ZERO)))?;
        }
        times(&handles)
    }
}
