//! What is measured, one after another in every round.

use std::io;
use std::time::{Duration, Instant};

use cgroup_reaper::{KillMethod, Metrics, Reactor, Reaper};

use crate::groups::{Group, Place};

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
    Bare,
    Original,
}

pub struct Card {
    pub name: &'static str,
    pub kind: Kind,
    pub family: Family,
    pub place: Place,
}

pub trait Contender {
    fn card(&self) -> &Card;

    /// What is no part of the work: names and buffers.
    fn prepare(&mut self, _groups: &[Group]) {}

    /// Kills everything in the groups, all at once, waits until they are empty, and removes them. Returns the
    /// time that each took from its own start.
    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>>;

    /// Works on groups that can't end until `until`, as `reap` would, and says how often it woke up. Then,
    /// when `release` has let them, brings them to their end.
    fn wait(&mut self, _groups: &[Group], _phases: &mut dyn Phases) -> io::Result<bool> {
        Ok(false)
    }

    fn metrics(&self) -> Option<Metrics> {
        None
    }
}

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
}

impl Ours {
    pub fn new(name: &'static str, family: Family, place: Place, method: KillMethod) -> io::Result<Ours> {
        let card = Card { name, kind: Kind::Ours, family, place };
        Ok(Ours { card, method, reactor: Reactor::new()?, reapers: Vec::new() })
    }

    fn spawn(&mut self) -> io::Result<Vec<cgroup_reaper::ReapHandle>> {
        self.reapers
            .drain(..)
            .map(|reaper| self.reactor.spawn_reaper(reaper).map_err(io::Error::other))
            .collect()
    }
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
        self.reactor.run_until_idle()?;
        let total = start.elapsed();
        if groups.len() == 1 {
            return Ok(vec![total]);
        }
        // Without the checks at the spawn, some tens of microseconds.
        handles.iter().map(|handle| Ok(handle.wait().map_err(io::Error::other)?.elapsed)).collect()
    }

    fn wait(&mut self, _groups: &[Group], phases: &mut dyn Phases) -> io::Result<bool> {
        let _handles = self.spawn()?;
        while let Some(until) = phases.until() {
            let now = Instant::now();
            if now < until {
                self.reactor.turn(Some(until - now))?;
            } else {
                phases.next(self.reactor.metrics().wakeups);
            }
        }
        self.reactor.run_until_idle()?;
        Ok(true)
    }

    fn metrics(&self) -> Option<Metrics> {
        Some(self.reactor.metrics())
    }
}
