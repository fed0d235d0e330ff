//! The whole-program benchmark. Options, after `--`:
//!
//! `--quick` for a run within a minute; `--case one|many|fresh|waiting|calls|memory|counts`; `--rounds N`; `--only TEXT`, the
//! contenders whose name has it.
//!
//! In every round of `one`, `many`, `fresh` and `calls` each contender takes its turn, in random order, on groups of its
//! own: a busy moment of the machine hits them all alike. The first round is for warming up and not counted. The other
//! cases measure one contender after the other. Directories and processes are made before the clock starts. Without
//! `--bench` (as `cargo test --benches` runs it) it only goes once through everything, in a few seconds.
//!
//! It needs to make cgroups below the roots of the hierarchies, and says SKIP for each where it may not. Three
//! processes: this one waits and clears up, whatever happens to the others; the second measures; the third
//! forks the members of the groups. Each dies with the one before it.

mod alloc;
mod bare;
pub mod calls;
pub mod contender;
mod contenders;
mod counts;
pub mod groups;
mod memory;
pub mod report;
pub mod stats;
mod sys;
mod timer_paced;
mod waiting;

use std::error::Error;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::contender::{Card, Contenders};
use self::groups::{Bases, MemberMaker};
use self::report::{Case, Entry, Report};
use self::stats::{Samples, ms};

/// Age at which a group counts as being at rest: the kernel notifies of changes of a file no more often than
/// every 12 ms.
const REST: Duration = Duration::from_millis(40);

/// Processes of all contenders that may be there at once.
const MOST_PROCESSES: usize = 800;

pub type Finish = fn(&Bases, &Report) -> Result<(), Box<dyn Error>>;

/// What a program adds that includes this one.
#[derive(Default)]
pub struct Guests {
    /// More contenders, made anew for each case, given the directories they may use.
    pub contenders: Option<fn(&Bases) -> io::Result<Contenders>>,
    /// What to do with the figures.
    pub finish: Option<Finish>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Smoke,
    Quick,
    Full,
}

struct Options {
    depth: Depth,
    case: Option<String>,
    rounds: Option<usize>,
    only: Option<String>,
}

impl Options {
    fn parse() -> Result<Options, String> {
        let mut options = Options { depth: Depth::Smoke, case: None, rounds: None, only: None };
        let (mut bench, mut test, mut quick) = (false, false, false);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => bench = true,
                "--test" => test = true,
                "--quick" => quick = true,
                "--case" => options.case = Some(value()?),
                "--only" => options.only = Some(value()?),
                "--rounds" => {
                    options.rounds = Some(value()?.parse().map_err(|_| "--rounds needs a number")?);
                }
                _ => return Err(format!("{arg}: not known; see the head of benches/reap/program/mod.rs")),
            }
        }
        options.depth = match (bench && !test, quick) {
            (false, _) => Depth::Smoke,
            (true, true) => Depth::Quick,
            (true, false) => Depth::Full,
        };
        Ok(options)
    }

    fn wants(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|wanted| wanted == case)
    }

    /// Whether nothing is left out.
    fn is_whole(&self) -> bool {
        self.case.is_none() && self.only.is_none() && self.rounds.is_none()
    }

    /// By depth, but for what the caller asked for.
    fn rounds(&self, smoke: usize, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(match self.depth {
            Depth::Smoke => smoke,
            Depth::Quick => quick,
            Depth::Full => full,
        })
    }
}

pub fn main(guests: Guests) {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(why) => {
            println!("{why}");
            std::process::exit(2);
        }
    };
    let bases = Bases::make();
    if bases.is_empty() {
        return;
    }
    // From here on nothing ends this process before it has cleared up.
    sys::mask_signals(libc::SIG_BLOCK);
    let worker = sys::fork(|| {
        sys::mask_signals(libc::SIG_UNBLOCK);
        sys::ignore_children();
        // Caught, so that it does not unwind into the other process's part.
        match catch_unwind(AssertUnwindSafe(|| run(&options, &bases, &guests))) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                println!("failed: {error}");
                1
            }
            Err(_) => 101,
        }
    });
    let code = match worker {
        Ok(worker) => loop {
            if sys::next_signal() != libc::SIGCHLD {
                // A child of ours that has not been waited for: the number is still its own.
                let _ = sys::kill(worker);
            }
            if let Some(code) = sys::ended(worker) {
                break code;
            }
        },
        Err(error) => {
            println!("failed: {error}");
            1
        }
    };
    drop(bases);
    std::process::exit(code);
}

fn run(options: &Options, bases: &Bases, guests: &Guests) -> Result<(), Box<dyn Error>> {
    let member_maker = MemberMaker::new()?;
    let mut bench = Bench {
        bases,
        options,
        guests,
        member_maker,
        dice: 0x9e37_79b9_7f4a_7c15,
        report: Report::default(),
    };
    print_machine();
    if options.wants("one") {
        for each in [1, 4, 32, 1000] {
            if each == 1000 && options.depth != Depth::Full || each > 1 && options.depth == Depth::Smoke {
                continue;
            }
            let rounds = if each == 1000 { options.rounds(1, 1, 2) } else { options.rounds(1, 5, 20) };
            let work = Work { groups: 1, each, age: REST, rounds };
            let title = format!("One reap of {each} process(es) at rest, {rounds} rounds");
            bench.case(&title, contenders::for_one()?, &work)?;
        }
    }
    if options.wants("many") {
        // Of 1, `one` tells.
        for (groups, each) in [(10, 1), (100, 1), (1000, 1), (1000, 4), (10_000, 1)] {
            let largest = [10, 100, 10_000][options.depth as usize];
            if groups > largest {
                continue;
            }
            let full = match groups * each {
                0..=10 => 15,
                11..=100 => 7,
                101..=1000 => 5,
                _ => 2,
            };
            let rounds = options.rounds(1, 3, full);
            let work = Work { groups, each, age: REST, rounds };
            let entrants =
                if groups * each > 1000 { contenders::for_most()? } else { contenders::for_many()? };
            bench.case(&format!("{groups} groups of {each} at once, {rounds} rounds"), entrants, &work)?;
        }
    }
    if options.wants("fresh") {
        for (each, age_ms) in [(1, 0), (4, 0), (4, 4), (4, 8)] {
            let rounds = options.rounds(1, 5, 15);
            let work = Work { groups: 1, each, age: Duration::from_millis(age_ms), rounds };
            let mut contenders = bench.entrants(contenders::for_fresh()?, 1);
            let samples = bench.measure(&mut contenders, &work)?;
            let title = format!("One reap of {each} process(es) populated {age_ms} ms ago, {rounds} rounds");
            stats::print_one(&title, &rows(&contenders, &samples));
        }
    }
    if options.wants("counts") {
        bench.counts()?;
    }
    if options.wants("waiting") {
        bench.waiting()?;
    }
    if options.wants("calls") {
        bench.calls()?;
    }
    if options.wants("memory") {
        bench.memory()?;
    }
    bench.report.print_summary();
    bench.report.print_requirements();
    if let (Some(finish), true) = (guests.finish, options.is_whole()) {
        // It may start programs, and wait for them.
        sys::keep_children();
        finish(bases, &bench.report)?;
    }
    println!("\nload average at the end: {}", one_line("/proc/loadavg"));
    Ok(())
}

fn one_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn print_machine() {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("kernel {}, {cpus} CPUs", one_line("/proc/sys/kernel/osrelease"));
    println!("load average at the start: {}", one_line("/proc/loadavg"));
}

fn rows<'a>(contenders: &'a Contenders, samples: &'a [Samples]) -> Vec<(&'a Card, &'a Samples)> {
    contenders.iter().map(|contender| contender.card()).zip(samples).collect()
}

/// One kind of work to measure.
struct Work {
    groups: usize,
    each: usize,
    /// Time between the last process joining and the kill.
    age: Duration,
    rounds: usize,
}

struct Bench<'a> {
    bases: &'a Bases,
    options: &'a Options,
    guests: &'a Guests,
    member_maker: MemberMaker,
    dice: u64,
    report: Report,
}

impl Bench<'_> {
    /// The contenders that have a hierarchy to work in, and that the options select.
    fn entrants(&self, contenders: Contenders, groups: usize) -> Contenders {
        contenders
            .into_iter()
            .filter(|contender| {
                let card = contender.card();
                self.bases.get(card.place).is_some()
                    && card.most >= groups
                    && self.options.only.as_ref().is_none_or(|only| card.name.contains(only.as_str()))
            })
            .collect()
    }

    /// Measures one kind of work, prints the table, and adds its requirements to the report.
    fn case(&mut self, title: &str, mut contenders: Contenders, work: &Work) -> io::Result<()> {
        if let Some(guests) = self.guests.contenders {
            contenders.extend(guests(self.bases)?);
        }
        let mut contenders = self.entrants(contenders, work.groups);
        let samples = self.measure(&mut contenders, work)?;
        let rows = rows(&contenders, &samples);
        if work.groups == 1 {
            stats::print_one(title, &rows);
        } else {
            stats::print_many(title, &rows);
        }
        let case = Case { groups: work.groups, each: work.each };
        for (card, samples) in &rows {
            let [total, cpu, latency] =
                [&samples.total, &samples.cpu, &samples.latency].map(|v| stats::median(v));
            self.report.entries.push(Entry { case, card: **card, total, cpu, latency });
        }
        stats::add_requirements(&mut self.report, case, &rows);
        Ok(())
    }

    /// A random order, the same in each run.
    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            // xorshift64.
            self.dice ^= self.dice << 13;
            self.dice ^= self.dice >> 7;
            self.dice ^= self.dice << 17;
            order.swap(last, (self.dice % (last as u64 + 1)) as usize);
        }
        order
    }

    fn measure(&mut self, contenders: &mut Contenders, work: &Work) -> io::Result<Vec<Samples>> {
        let mut samples: Vec<Samples> = contenders.iter().map(|_| Samples::default()).collect();
        // One rest for all, where they fit and are to be at rest at all.
        let processes = contenders.len() * work.groups * work.each;
        let together = if work.age == REST && processes <= MOST_PROCESSES { contenders.len() } else { 1 };
        for round in 0..=work.rounds {
            for batch in self.shuffled(contenders.len()).chunks(together.max(1)) {
                let mut lots = Vec::new();
                for &index in batch {
                    let place = contenders[index].card().place;
                    let Some(base) = self.bases.get(place) else { continue };
                    let groups = self.member_maker.groups(base, work.groups)?;
                    contenders[index].prepare(&groups);
                    lots.push((index, groups));
                }
                let groups = lots.iter().flat_map(|(_, groups)| groups);
                let pids = self.member_maker.populate(groups, work.each, work.age != REST)?;
                for ((index, groups), pids) in lots.iter().zip(pids.chunks(work.groups * work.each)) {
                    contenders[*index].settle(groups, pids)?;
                }
                if !work.age.is_zero() {
                    std::thread::sleep(work.age);
                }
                for (index, groups) in &lots {
                    let contender = &mut contenders[*index];
                    let before = contender.metrics();
                    let (allocations, cpu, start) = (alloc::calls(), sys::thread_cpu(), Instant::now());
                    let latencies = contender.reap(groups)?;
                    let (total, cpu) = (start.elapsed(), sys::thread_cpu() - cpu);
                    let allocations = alloc::calls() - allocations;
                    if let Some(left) = contender.left(groups) {
                        let why = format!("{}: {} is still there", contender.card().name, left.display());
                        return Err(io::Error::other(why));
                    }
                    // The first round warms up.
                    if round == 0 {
                        continue;
                    }
                    let samples = &mut samples[*index];
                    samples.total.push(ms(total));
                    samples.cpu.push(ms(cpu));
                    samples.latency.extend(latencies.into_iter().map(ms));
                    samples.reaps += work.groups as u64;
                    samples.allocations += allocations;
                    if let (Some(before), Some(after)) = (before, contender.metrics()) {
                        let first = samples.metrics.take().map_or(before, |(first, _)| first);
                        samples.metrics = Some((first, after));
                    }
                }
            }
        }
        Ok(samples)
    }
}
