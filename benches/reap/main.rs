//! Reaps side by side: this crate, bare loops on system calls, and a model of the original's algorithm.
//!
//! `cargo bench --bench reap -- [--quick] [--case one|many|fresh|waiting] [--rounds N] [--only TEXT]`
//!
//! In every round each contender takes its turn, in random order, on groups of its own: a busy moment of the
//! machine hits them all alike. The first round is for warming up and not counted. Directories and processes
//! are made before the clock starts. Without `--bench` (as `cargo test --benches` runs it) it only goes once
//! through everything, in a second or two.
//!
//! It needs to make cgroups below the roots of the hierarchies, and says SKIP for each where it may not. Three
//! processes: this one waits and clears up, whatever happens to the others; the second measures; the third
//! forks the members of the groups. Each dies with the one before it.

mod bare;
mod contender;
mod groups;
mod original;
mod stats;
mod sys;

use std::error::Error;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use cgroup_reaper::KillMethod;

use crate::bare::{Hear, V1, V2};
use crate::contender::{Contender, Family, Ours, Phases};
use crate::groups::{Bases, Nursery, Place};
use crate::original::Original;
use crate::stats::{Samples, ms};

/// Age at which a group counts as being at rest: the kernel notifies of changes of a file no more often than
/// every 12 ms.
const REST: Duration = Duration::from_millis(40);

/// Processes of all contenders that may be there at once.
const CROWD: usize = 600;

type Contenders = Vec<Box<dyn Contender>>;

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
                _ => return Err(format!("{arg}: not known; see the head of benches/reap/main.rs")),
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

    /// By depth, but for what the caller asked for.
    fn rounds(&self, smoke: usize, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(match self.depth {
            Depth::Smoke => smoke,
            Depth::Quick => quick,
            Depth::Full => full,
        })
    }
}

fn main() {
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
        match catch_unwind(AssertUnwindSafe(|| run(&options, &bases))) {
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

fn run(options: &Options, bases: &Bases) -> Result<(), Box<dyn Error>> {
    let mut bench = Bench { bases, options, nursery: Nursery::new()?, dice: 0x9e37_79b9_7f4a_7c15 };
    print_machine();
    if options.wants("one") {
        for each in [1, 4, 32, 1000] {
            if each == 1000 && options.depth != Depth::Full || each > 1 && options.depth == Depth::Smoke {
                continue;
            }
            let rounds = if each == 1000 { options.rounds(1, 1, 10) } else { options.rounds(1, 10, 40) };
            let work = Work { groups: 1, each, age: REST, rounds };
            let mut contenders = bench.entrants(for_one()?);
            let samples = bench.measure(&mut contenders, &work)?;
            let title = format!("One reap of {each} process(es) at rest, {rounds} rounds");
            stats::print_one(&title, &rows(&contenders, &samples));
        }
    }
    if options.wants("many") {
        let groups = [10, 100, 1000][options.depth as usize];
        for each in [1, 4] {
            let rounds = options.rounds(1, 3, 7);
            let work = Work { groups, each, age: REST, rounds };
            let mut contenders = bench.entrants(for_many()?);
            let samples = bench.measure(&mut contenders, &work)?;
            let title = format!("{groups} groups of {each} at once, {rounds} rounds");
            stats::print_many(&title, &rows(&contenders, &samples));
        }
    }
    if options.wants("fresh") {
        for (each, age_ms) in [(1, 0), (4, 0), (4, 4), (4, 8)] {
            let rounds = options.rounds(1, 10, 40);
            let work = Work { groups: 1, each, age: Duration::from_millis(age_ms), rounds };
            let mut contenders = bench.entrants(for_fresh()?);
            let samples = bench.measure(&mut contenders, &work)?;
            let title = format!("One reap of {each} process(es) populated {age_ms} ms ago, {rounds} rounds");
            stats::print_one(&title, &rows(&contenders, &samples));
        }
    }
    if options.wants("waiting") {
        bench.waiting(&mut bench.entrants(for_waiting()?))?;
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

fn ours_v2() -> io::Result<Box<dyn Contender>> {
    Ok(Box::new(Ours::new("ours v2", Family::V2, Place::V2, KillMethod::Auto)?))
}

fn for_one() -> io::Result<Contenders> {
    let (plain, freezer) = (Place::Plain, Place::Freezer);
    Ok(vec![
        ours_v2()?,
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, POLLPRI", Hear::Poll)?),
        Box::new(V2::new("bare v2, EPOLLPRI armed after", Hear::EpollAfter)?),
        Box::new(V2::new("bare v2, pidfds", Hear::Pidfds)?),
        Box::new(Ours::new("ours v1 pidfd (cpu)", Family::Pidfd, plain, KillMethod::Auto)?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), poll", plain, true)?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", plain, false)?),
        Box::new(Ours::new("ours v1 pidfd (freezer)", Family::Pidfd, freezer, KillMethod::Auto)?),
        Box::new(V1::pidfd("bare v1 pidfd (freezer), poll", freezer, true)?),
        Box::new(Ours::new("ours v1 freezer", Family::Freezer, freezer, KillMethod::Freezer)?),
        Box::new(V1::freezer("bare v1 freezer", false)?),
        Box::new(V1::freezer("bare v1 freezer, yielding", true)?),
        Box::new(Original::new("original 10 to 10 000 ms", true, 10, 10_000)),
        Box::new(Original::new("original 1 to 1 ms", true, 1, 1)),
        Box::new(Original::new("original 10 to 10 000 ms, no freezer", false, 10, 10_000)),
    ])
}

fn for_many() -> io::Result<Contenders> {
    Ok(vec![
        ours_v2()?,
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, EPOLLPRI armed after", Hear::EpollAfter)?),
        Box::new(Ours::new("ours v1 pidfd (cpu)", Family::Pidfd, Place::Plain, KillMethod::Auto)?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", Place::Plain, false)?),
        Box::new(Ours::new("ours v1 freezer", Family::Freezer, Place::Freezer, KillMethod::Freezer)?),
        Box::new(V1::freezer("bare v1 freezer", false)?),
        Box::new(V1::freezer("bare v1 freezer, yielding", true)?),
        Box::new(Original::new("original 10 to 10 000 ms", true, 10, 10_000)),
        Box::new(Original::new("original 1 to 1 ms", true, 1, 1)),
    ])
}

fn for_fresh() -> io::Result<Contenders> {
    Ok(vec![
        ours_v2()?,
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, pidfds", Hear::Pidfds)?),
    ])
}

fn for_waiting() -> io::Result<Contenders> {
    Ok(vec![
        ours_v2()?,
        Box::new(Ours::new("ours v1 pidfd (cpu)", Family::Pidfd, Place::Plain, KillMethod::Auto)?),
        Box::new(Original::new("original 10 to 10 000 ms", true, 10, 10_000)),
        Box::new(Original::new("original 1 to 1 ms", true, 1, 1)),
    ])
}

fn rows<'a>(contenders: &'a Contenders, samples: &'a [Samples]) -> Vec<(&'a contender::Card, &'a Samples)> {
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
    nursery: Nursery,
    dice: u64,
}

impl Bench<'_> {
    /// Those that have a hierarchy to work in, and that the caller wants to see.
    fn entrants(&self, contenders: Contenders) -> Contenders {
        contenders
            .into_iter()
            .filter(|contender| {
                let card = contender.card();
                self.bases.get(card.place).is_some()
                    && self.options.only.as_ref().is_none_or(|only| card.name.contains(only.as_str()))
            })
            .collect()
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
        let crowd = contenders.len() * work.groups * work.each;
        let together = if work.age == REST && crowd <= CROWD { contenders.len() } else { 1 };
        for round in 0..=work.rounds {
            for batch in self.shuffled(contenders.len()).chunks(together.max(1)) {
                let mut lots = Vec::new();
                for &index in batch {
                    let place = contenders[index].card().place;
                    let Some(base) = self.bases.get(place) else { continue };
                    let groups = self.nursery.groups(base, work.groups)?;
                    contenders[index].prepare(&groups);
                    lots.push((index, groups));
                }
                let groups = lots.iter().flat_map(|(_, groups)| groups);
                self.nursery.populate(groups, work.each, work.age != REST)?;
                if !work.age.is_zero() {
                    std::thread::sleep(work.age);
                }
                for (index, groups) in &lots {
                    let contender = &mut contenders[*index];
                    let before = contender.metrics();
                    let (start, cpu) = (Instant::now(), sys::thread_cpu());
                    let latencies = contender.reap(groups)?;
                    let (total, cpu) = (start.elapsed(), sys::thread_cpu() - cpu);
                    if let Some(left) = groups.iter().find(|group| group.dir.exists()) {
                        let why = format!("{}: {} is still there", contender.card().name, left.dir.display());
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
                    if let (Some(before), Some(after)) = (before, contender.metrics()) {
                        let first = samples.metrics.take().map_or(before, |(first, _)| first);
                        samples.metrics = Some((first, after));
                    }
                }
            }
        }
        Ok(samples)
    }

    /// Groups that can't end: a process that traces their members holds up each one's exit.
    fn waiting(&mut self, contenders: &mut Contenders) -> io::Result<()> {
        // The waits of ours and of the original have grown to their 10 s by 13.4 s.
        let (count, settle, window) = match self.options.depth {
            Depth::Smoke => (10, 0.05, 0.05),
            Depth::Quick => (1000, 4.0, 5.0),
            Depth::Full => (1000, 15.0, 20.0),
        };
        println!("\n## {count} reaps that can't end, {window} s from {settle} s after their start on\n");
        println!("| {:<40} | wake-ups/s | CPU of a core | held up until removed, ms |", "");
        println!("|{:-<42}|-----------:|--------------:|--------------------------:|", "");
        for contender in contenders {
            let Some(base) = self.bases.get(contender.card().place) else { continue };
            let groups = self.nursery.groups(base, count)?;
            let pids = self.nursery.populate(&groups, 1, false)?;
            let holder = self.nursery.hold_up(&pids)?;
            contender.prepare(&groups);
            let until = Some(Instant::now() + Duration::from_secs_f64(settle));
            let window = Duration::from_secs_f64(window);
            let mut watch = Watch { until, window, holder, begun: None, seen: None, released: None };
            contender.wait(&groups, &mut watch)?;
            let (wakeups, cpu, elapsed) = watch.seen.unwrap_or_default();
            let last = watch.released.map_or(Duration::ZERO, |at| at.elapsed());
            println!(
                "| {:<40} | {:>10.1} | {:>11.3} % | {:>25.1} |",
                contender.card().name,
                wakeups as f64 / elapsed.as_secs_f64(),
                100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
                ms(last),
            );
            if let Some(left) = groups.iter().find(|group| group.dir.exists()) {
                return Err(io::Error::other(format!("{} is still there", left.dir.display())));
            }
        }
        Ok(())
    }
}

/// Lets the waits grow, watches for a while, then lets the groups end.
struct Watch {
    until: Option<Instant>,
    window: Duration,
    holder: i32,
    begun: Option<(u64, Duration, Instant)>,
    /// Wake-ups, CPU time, time.
    seen: Option<(u64, Duration, Duration)>,
    released: Option<Instant>,
}

impl Phases for Watch {
    fn until(&self) -> Option<Instant> {
        self.until
    }

    fn next(&mut self, wakeups: u64) {
        let now = Instant::now();
        match self.begun {
            None => {
                self.begun = Some((wakeups, sys::thread_cpu(), now));
                self.until = Some(now + self.window);
            }
            Some((before, cpu, since)) => {
                self.seen = Some((wakeups - before, sys::thread_cpu() - cpu, now - since));
                self.released = Some(now);
                self.until = None;
                // Our child; it never ends by itself, so the number is its own.
                if let Err(error) = sys::kill(self.holder) {
                    println!("the holder could not be killed: {error}");
                }
            }
        }
    }
}
