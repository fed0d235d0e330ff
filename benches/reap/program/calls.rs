//! The longest call: how long one spawn or one turn keeps the caller's loop from its other work.

use std::fs;
use std::io;
use std::time::Instant;

use super::contender::{Card, Contenders, Kind};
use super::groups::Place;
use super::stats::{median, ms, quantile};
use super::{Bench, Depth, contenders, sys};

/// What is reaped.
struct Work {
    name: &'static str,
    groups: usize,
    /// Processes in each.
    each: usize,
    /// Groups in each, without processes.
    children: usize,
    /// In a whole run.
    rounds: usize,
    entrants: Entrants,
}

/// Of the contenders of `contenders::for_calls` and of the guests.
#[derive(PartialEq, Eq)]
enum Entrants {
    /// Ours, without those that have no budget on v1.
    Ours,
    /// Bare loops and peers too.
    Others,
    All,
}

const fn groups(name: &'static str, groups: usize, each: usize, rounds: usize, entrants: Entrants) -> Work {
    Work { name, groups, each, children: 0, rounds, entrants }
}

const WORKS: [Work; 10] = [
    groups("1 x 1", 1, 1, 7, Entrants::Others),
    groups("10 x 1", 10, 1, 7, Entrants::Others),
    groups("100 x 1", 100, 1, 5, Entrants::Others),
    groups(THOUSAND, 1000, 1, 3, Entrants::All),
    groups("1 000 x 4", 1000, 4, 2, Entrants::Ours),
    groups("10 000 x 1", 10_000, 1, 1, Entrants::Others),
    groups("1 x 1 000", 1, 1000, 2, Entrants::Others),
    groups(LARGE, 1, 5000, 2, Entrants::All),
    groups("1 x 10 000", 1, 10_000, 1, Entrants::Ours),
    Work { children: 3000, ..groups("a tree of 3 000", 1, 1, 2, Entrants::Ours) },
];

const THOUSAND: &str = "1 000 x 1";
const LARGE: &str = "1 x 5 000";

const NO_BUDGET: &str = ", no budget";

/// What the default budget, or a helper thread, may cost: the total, to that without a budget.
const PRICES: [(&str, &str, &str, f64); 7] = [
    (THOUSAND, "this library, v2", "this library, v2, no budget", 1.1),
    (THOUSAND, "this library, v1 by pidfd (cpu)", "this library, v1 by pidfd (cpu), no budget", 1.1),
    (THOUSAND, "this library, v1 freezer", "this library, v1 freezer, no budget", 1.1),
    (LARGE, "this library, v2", "this library, v2, no budget", 2.5),
    (LARGE, "this library, v2, helper thread", "this library, v2, no budget", 1.05),
    (LARGE, "this library, v1 by pidfd (cpu)", "this library, v1 by pidfd (cpu), no budget", 1.2),
    (LARGE, "this library, v1 freezer", "this library, v1 freezer, no budget", 1.2),
];

impl Work {
    fn takes(&self, card: &Card) -> bool {
        match self.entrants {
            Entrants::All => true,
            _ if card.place != Place::V2 && card.name.ends_with(NO_BUDGET) => false,
            Entrants::Others => true,
            Entrants::Ours => card.kind == Kind::Ours,
        }
    }
}

/// How long each call of a kind took, on the clock and of the thread's CPU.
#[derive(Default)]
struct Times {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Times {
    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let (start, cpu) = (Instant::now(), sys::thread_cpu());
        let result = call();
        self.cpu.push(ms(sys::thread_cpu() - cpu));
        self.wall.push(ms(start.elapsed()));
        result
    }

    fn cell(&self) -> String {
        let at = [0.5, 0.99, 1.0]
            .map(|share| format!("{:.2} ({:.2})", quantile(&self.cpu, share), quantile(&self.wall, share)));
        at.join(", ")
    }
}

/// The calls that a loop makes, timed or not.
pub struct Calls {
    timed: bool,
    spawns: Times,
    turns: Times,
}

impl Calls {
    fn timed() -> Calls {
        Calls { timed: true, ..Calls::untimed() }
    }

    pub fn untimed() -> Calls {
        Calls { timed: false, spawns: Times::default(), turns: Times::default() }
    }

    /// The first call for a group.
    pub fn spawn<T>(&mut self, call: impl FnOnce() -> T) -> T {
        if self.timed { self.spawns.time(call) } else { call() }
    }

    /// A call after a wait for something to do.
    pub fn turn<T>(&mut self, call: impl FnOnce() -> T) -> T {
        if self.timed { self.turns.time(call) } else { call() }
    }
}

/// What one contender's rounds of one work came to.
struct Seen {
    calls: Calls,
    /// Of each round.
    totals: Vec<f64>,
    cpu: Vec<f64>,
    longest: Vec<f64>,
}

impl Bench<'_> {
    pub(super) fn calls(&mut self) -> io::Result<()> {
        let largest = [40, 1000, 10_000][self.options.depth as usize];
        println!("\n### The longest call, ms: of thread CPU (on the clock, maybe of another call)\n");
        println!(
            "A turn of this library is a `turn`. That of a bare loop handles what one epoll_wait(2) returned, at most"
        );
        println!("256 events, and that of a peer without notifications tries each group that is left.\n");
        println!(
            "| {:<15} | {:<42} | {:<48} | {:<48} | total on the clock, CPU of the loop |",
            "work", "", "spawn: median, p99, longest", "turn: median, p99, longest"
        );
        println!("|{:-<17}|{:-<44}|{:-<50}|{:-<50}|-----------------------------------:|", "", "", "", "");
        for work in WORKS.iter().filter(|work| work.groups * work.each <= largest && work.children <= largest)
        {
            let mut contenders = self.entrants(self.callable()?, work.groups);
            contenders.retain_mut(|contender| contender.driven().is_some() && work.takes(contender.card()));
            let seen = self.drive(&mut contenders, work)?;
            let rows: Vec<(Card, Seen)> =
                contenders.iter().map(|contender| *contender.card()).zip(seen).collect();
            self.tell(work, &rows);
        }
        for mut contender in self.entrants(self.callable()?, 1) {
            let name = contender.card().name;
            if contender.driven().is_none() {
                println!("| {:<15} | {name:<42} | no step is smaller than the reap of a group | | |", "");
            }
        }
        Ok(())
    }

    fn callable(&self) -> io::Result<Contenders> {
        let mut contenders = contenders::for_calls()?;
        if let Some(guests) = self.guests.contenders {
            contenders.extend(guests(self.bases)?);
        }
        Ok(contenders)
    }

    fn drive(&mut self, contenders: &mut Contenders, work: &Work) -> io::Result<Vec<Seen>> {
        let new = || Seen { calls: Calls::timed(), totals: Vec::new(), cpu: Vec::new(), longest: Vec::new() };
        let mut seen: Vec<Seen> = contenders.iter().map(|_| new()).collect();
        let warm_up = groups("", 1, 1, 1, Entrants::All);
        for round in 0..=self.options.rounds(1, 1, work.rounds) {
            let work = if round == 0 { &warm_up } else { work };
            for index in self.shuffled(contenders.len()) {
                let contender = &mut contenders[index];
                // Only the totals of ours are compared with a bar.
                if work.groups * work.each >= 1000 && round > 2 && contender.card().kind != Kind::Ours {
                    continue;
                }
                let Some(base) = self.bases.get(contender.card().place) else { continue };
                let groups = self.member_maker.groups(base, work.groups)?;
                for child in 0..work.children {
                    fs::create_dir(groups[0].dir.join(child.to_string()))?;
                }
                contender.prepare(&groups);
                self.member_maker.populate(&groups, work.each, false)?;
                std::thread::sleep(super::REST);
                let name = contender.card().name;
                let Some(driven) = contender.driven() else { continue };
                let mut unseen = Calls::untimed();
                let Seen { calls, totals, cpu, longest } = &mut seen[index];
                let (spawns, turns) = (calls.spawns.cpu.len(), calls.turns.cpu.len());
                let (began, before) = (Instant::now(), sys::thread_cpu());
                driven.drive(&groups, if round == 0 { &mut unseen } else { &mut *calls })?;
                let (took, used) = (began.elapsed(), sys::thread_cpu() - before);
                if let Some(left) = groups.iter().find(|group| group.dir.exists()) {
                    return Err(io::Error::other(format!("{name}: {} is still there", left.dir.display())));
                }
                if round > 0 {
                    totals.push(ms(took));
                    cpu.push(ms(used));
                    let all = calls.spawns.cpu[spawns..].iter().chain(&calls.turns.cpu[turns..]);
                    longest.push(all.copied().fold(0.0, f64::max));
                }
            }
        }
        Ok(seen)
    }

    /// Prints the rows of a work, and adds its figures to the report.
    fn tell(&mut self, work: &Work, rows: &[(Card, Seen)]) {
        for (card, seen) in rows {
            println!(
                "| {:<15} | {:<42} | {:<48} | {:<48} | {:>34} |",
                work.name,
                card.name,
                seen.calls.spawns.cell(),
                seen.calls.turns.cell(),
                format!("{:.1}, {:.1}", median(&seen.totals), median(&seen.cpu))
            );
            if work.each == 1 && work.children == 0 {
                self.report.longest.push((*card, work.groups, median(&seen.longest)));
            }
            let small = work.groups * work.each < 1000 && work.children == 0;
            if card.kind != Kind::Ours || card.name.ends_with(NO_BUDGET) || small {
                continue;
            }
            if self.options.depth == Depth::Full {
                // A list of v1 is one call.
                let list =
                    if card.place == Place::V2 || work.each < 1000 { 0.0 } else { work.each as f64 / 1000.0 };
                let calls = [seen.calls.spawns.cpu.as_slice(), &seen.calls.turns.cpu].concat();
                for (name, share, limit) in [("p99", 0.99, 1.5), ("longest", 1.0, 3.0)] {
                    let title = format!("{}, {}: {name} call, CPU", work.name, card.name);
                    self.report.at_most(title, quantile(&calls, share), limit + list, " ms");
                }
            }
        }
        for (_, name, to, limit) in PRICES.iter().filter(|price| price.0 == work.name) {
            let total =
                |name| rows.iter().find(|(card, _)| card.name == name).map(|row| median(&row.1.totals));
            if let (Some(total), Some(without), Depth::Full) = (total(*name), total(*to), self.options.depth)
            {
                let title = format!("{}, {name}: total to that without a budget", work.name);
                self.report.at_most(title, total / without, *limit, "");
            }
        }
    }
}
