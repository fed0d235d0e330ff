//! The longest call: how long one spawn or one turn keeps the caller's loop from its other work.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cgroup_reaper::{KillMethod, Reactor, Reaper};

use super::groups::{Group, Place};
use super::stats::ms;
use super::sys::Epoll;
use super::{Bench, Depth, sys};

/// What is reaped.
struct Work {
    name: &'static str,
    groups: usize,
    /// Processes in each.
    each: usize,
    /// Groups in each, without processes.
    children: usize,
}

const fn groups(name: &'static str, groups: usize, each: usize) -> Work {
    Work { name, groups, each, children: 0 }
}

const WORKS: [Work; 8] = [
    groups("10 x 4", 10, 4),
    groups("1 000 x 1", 1000, 1),
    groups("1 000 x 4", 1000, 4),
    groups("10 000 x 1", 10_000, 1),
    groups("1 x 1 000", 1, 1000),
    groups("1 x 5 000", 1, 5000),
    groups("1 x 10 000", 1, 10_000),
    Work { name: "a tree of 3 000", groups: 1, each: 1, children: 3000 },
];

/// How it is reaped.
struct Way {
    name: &'static str,
    place: Place,
    method: KillMethod,
    /// Not the default.
    budget: Option<Duration>,
    helper: bool,
}

const WAYS: [Way; 5] = [
    Way::new("v2", Place::V2, KillMethod::Auto),
    Way { helper: true, ..Way::new("v2, helper thread", Place::V2, KillMethod::Auto) },
    Way { budget: Some(Duration::MAX), ..Way::new("v2, no budget", Place::V2, KillMethod::Auto) },
    Way::new("v1 by pidfd (cpu)", Place::Plain, KillMethod::Auto),
    Way::new("v1 freezer", Place::Freezer, KillMethod::Freezer),
];

impl Way {
    const fn new(name: &'static str, place: Place, method: KillMethod) -> Way {
        Way { name, place, method, budget: None, helper: false }
    }
}

/// The calls of a kind: how long each took, on the clock and of the thread's CPU.
#[derive(Default)]
struct Calls {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Calls {
    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let (start, cpu) = (Instant::now(), sys::thread_cpu());
        let result = call();
        self.cpu.push(ms(sys::thread_cpu() - cpu));
        self.wall.push(ms(start.elapsed()));
        result
    }
}

/// The value that a share of them does not exceed.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

#[derive(Default)]
struct Seen {
    spawns: Calls,
    turns: Calls,
    totals: Vec<f64>,
    cpu: Vec<f64>,
}

impl Bench<'_> {
    pub(super) fn calls(&mut self) -> io::Result<()> {
        let largest = [40, 1000, 10_000][self.options.depth as usize];
        println!("\n### The longest call, ms: thread CPU (time on the clock)\n");
        println!(
            "| {:<16} | {:<18} | {:<48} | {:<48} | total, CPU of the loop |",
            "work", "way", "spawn: median, p99, longest", "turn: median, p99, longest"
        );
        println!("|{:-<18}|{:-<20}|{:-<50}|{:-<50}|-----------------------:|", "", "", "", "");
        for work in WORKS.iter().filter(|work| work.groups * work.each <= largest && work.children <= largest)
        {
            let rounds = if work.groups * work.each > 1000 { 1 } else { self.options.rounds(1, 1, 3) };
            let mut seen = WAYS.each_ref().map(|_| Seen::default());
            for _ in 0..rounds {
                for (way, seen) in WAYS.iter().zip(&mut seen) {
                    let wanted = self.options.only.as_ref();
                    if wanted.is_some_and(|only| !way.name.contains(only.as_str())) {
                        continue;
                    }
                    let Some(base) = self.bases.get(way.place) else { continue };
                    let groups = self.member_maker.groups(base, work.groups)?;
                    for child in 0..work.children {
                        fs::create_dir(groups[0].dir.join(child.to_string()))?;
                    }
                    self.member_maker.populate(&groups, work.each, false)?;
                    std::thread::sleep(super::REST);
                    reap(&groups, way, seen)?;
                }
            }
            for (way, mut seen) in WAYS.iter().zip(seen).filter(|(_, seen)| !seen.totals.is_empty()) {
                let mut cell = |of: fn(&mut Seen) -> &mut Calls| {
                    let Calls { wall, cpu } = of(&mut seen);
                    let at = [0.5, 0.99, 1.0].map(|share| {
                        format!("{:.2} ({:.2})", percentile(cpu, share), percentile(wall, share))
                    });
                    at.join(", ")
                };
                let (spawn, turn) = (cell(|seen| &mut seen.spawns), cell(|seen| &mut seen.turns));
                let total = percentile(&mut seen.totals, 0.5);
                let cpu = percentile(&mut seen.cpu, 0.5);
                println!(
                    "| {:<16} | {:<18} | {spawn:<48} | {turn:<48} | {:>22} |",
                    work.name,
                    way.name,
                    format!("{total:.1}, {cpu:.1}")
                );
                if way.budget.is_none() && self.options.depth == Depth::Full {
                    // A list of v1 is one call.
                    let list = if way.place == Place::V2 { 0.0 } else { work.each as f64 / 1000.0 };
                    let mut calls = [seen.spawns.cpu, seen.turns.cpu].concat();
                    for (name, share, limit) in [("p99", 0.99, 1.5), ("longest", 1.0, 3.0)] {
                        let title = format!("{}, {}: {name} call, CPU", work.name, way.name);
                        self.report.at_most(title, percentile(&mut calls, share), limit + list, " ms");
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reaps the groups in a loop of the caller's. The reactor, and with it its thread, ends here: the benchmark forks later.
fn reap(groups: &[Group], way: &Way, seen: &mut Seen) -> io::Result<()> {
    let mut reactor = Reactor::new()?;
    reactor.set_helper_thread(way.helper);
    if let Some(budget) = way.budget {
        reactor.set_turn_budget(budget);
    }
    let outer = Epoll::new()?;
    outer.add(reactor.as_fd(), libc::EPOLLIN, 0)?;
    let reapers: Vec<Reaper> = groups.iter().map(|group| Reaper::at(&group.dir).method(way.method)).collect();
    let (began, cpu) = (Instant::now(), sys::thread_cpu());
    let mut handles = Vec::with_capacity(groups.len());
    for reaper in reapers {
        handles.push(seen.spawns.time(|| reactor.spawn_reaper(reaper)).map_err(io::Error::other)?);
    }
    let mut ready = Vec::new();
    while !reactor.is_empty() {
        outer.wait(&mut ready)?;
        ready.clear();
        seen.turns.time(|| reactor.turn(Some(Duration::ZERO)))?;
    }
    seen.totals.push(ms(began.elapsed()));
    seen.cpu.push(ms(sys::thread_cpu() - cpu));
    for handle in handles {
        handle.wait().map_err(io::Error::other)?;
    }
    Ok(())
}
