//! A model of the timer-paced algorithm (of a folly-based scheduler's asyncCGroupReaper): one transition each tick.
//!
//! At each tick: are there members? If none, remove the directory, done. Else one step of THAWED -> FROZEN,
//! FROZEN -> signalled and THAWED. The next tick is `min` later at first, then the wait grows fourfold up to
//! `max`. Its timers are exact here, those of the scheduler (libevent's) come up to 2.6 ms late, and it leaves
//! out folly, logging and futures: it is faster than what it models.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::{Duration, Instant};

use super::contender::{Card, Contender, Family, Kind, Phases};
use super::groups::{Group, Place};
use super::sys;

pub struct TimerPaced {
    card: Card,
    min: Duration,
    max: Duration,
    /// Without it: signals at each tick.
    freezer: bool,
}

struct Entry {
    begun: Instant,
    wait: Duration,
    took: Option<Duration>,
}

struct Under<'a> {
    groups: &'a [Group],
    entries: Vec<Entry>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl TimerPaced {
    pub fn new(name: &'static str, freezer: bool, min_ms: u64, max_ms: u64) -> TimerPaced {
        let family = if freezer { Family::Freezer } else { Family::Pidfd };
        let card = Card { name, kind: Kind::TimerPaced, family, place: Place::Freezer, most: 1000 };
        TimerPaced { card, min: Duration::from_millis(min_ms), max: Duration::from_millis(max_ms), freezer }
    }

    fn start<'a>(&self, groups: &'a [Group]) -> io::Result<Under<'a>> {
        let mut under = Under { groups, entries: Vec::with_capacity(groups.len()), due: BinaryHeap::new() };
        for (index, group) in groups.iter().enumerate() {
            under.entries.push(Entry { begun: Instant::now(), wait: self.min, took: None });
            if self.tick(group)? {
                under.due.push(Reverse((Instant::now() + self.min, index)));
            } else {
                under.done(index);
            }
        }
        Ok(under)
    }

    /// Handles what is due, then sleeps until the next is, or `until`. False: nothing is left.
    fn turn(&self, under: &mut Under<'_>, until: Option<Instant>) -> io::Result<bool> {
        let now = Instant::now();
        while let Some(&Reverse((due, index))) = under.due.peek() {
            if due > now {
                let due = until.map_or(due, |until| due.min(until));
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                return Ok(true);
            }
            under.due.pop();
            if self.tick(&under.groups[index])? {
                let wait = &mut under.entries[index].wait;
                *wait = (*wait * 4).min(self.max);
                let due = Instant::now() + *wait;
                under.due.push(Reverse((due, index)));
            } else {
                under.done(index);
            }
        }
        Ok(false)
    }

    /// One check and one transition. Returns whether the group still exists.
    fn tick(&self, group: &Group) -> io::Result<bool> {
        if !group.dir.is_dir() {
            return Ok(false);
        }
        let mut byte = [0];
        if sys::read(&sys::open(&group.procs, libc::O_RDONLY)?, &mut byte, 0)? == 0 {
            sys::rmdir(&group.path)?;
            return Ok(false);
        }
        if !self.freezer {
            kill_all(group)?;
            return Ok(true);
        }
        let mut buffer = [0; 16];
        let n = sys::read(&sys::open(&group.state, libc::O_RDONLY)?, &mut buffer, 0)?;
        let write = |text| sys::write(&sys::open(&group.state, libc::O_WRONLY)?, text);
        match &buffer[..n] {
            b"THAWED\n" => write(b"FROZEN")?,
            b"FROZEN\n" => {
                kill_all(group)?;
                write(b"THAWED")?;
            }
            // FREEZING; the timeout after 10 s is left out.
            _ => {}
        }
        Ok(true)
    }
}

fn kill_all(group: &Group) -> io::Result<()> {
    for line in std::fs::read_to_string(group.dir.join("cgroup.procs"))?.lines() {
        match sys::kill(line.parse().map_err(io::Error::other)?) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Under<'_> {
    fn done(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.took = Some(entry.begun.elapsed());
    }
}

impl Contender for TimerPaced {
    fn card(&self) -> &Card {
        &self.card
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        let mut under = self.start(groups)?;
        while self.turn(&mut under, None)? {}
        Ok(under.entries.iter().filter_map(|entry| entry.took).collect())
    }

    fn wait(&mut self, groups: &[Group], phases: &mut dyn Phases) -> io::Result<()> {
        let mut under = self.start(groups)?;
        let mut wakeups = 0;
        while let Some(until) = phases.until() {
            if Instant::now() < until {
                wakeups += 1;
                self.turn(&mut under, Some(until))?;
            } else {
                phases.next(wakeups);
            }
        }
        // The rest would take this algorithm seconds, and is not measured.
        let patience = Instant::now() + Duration::from_secs(60);
        let mut left: Vec<&Group> = groups.iter().collect();
        while !left.is_empty() {
            if Instant::now() > patience {
                return Err(io::Error::other(format!("{} does not end", left[0].dir.display())));
            }
            for group in &left {
                self.tick(group)?;
            }
            left.retain(|group| group.dir.is_dir());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
