//! One large group, killed in the loop or by a helper thread.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cgroup_reaper::{Reactor, Reaper};

use super::groups::{Group, Place};
use super::stats::{median, ms};
use super::sys::Epoll;
use super::{Bench, Depth, sys};

const ROWS: [(&str, bool); 2] = [("this library, v2", false), ("this library, v2, helper thread", true)];

/// What one round came to, in milliseconds.
struct Seen {
    total: f64,
    spawn: f64,
    /// The longest turn, on the clock and of the CPU.
    longest: f64,
    longest_cpu: f64,
}

impl Bench<'_> {
    /// The turn budget is the default.
    pub(super) fn large(&mut self) -> io::Result<()> {
        let Some(base) = self.bases.get(Place::V2) else { return Ok(()) };
        let sizes: &[usize] = match self.options.depth {
            Depth::Smoke => &[250],
            Depth::Quick => &[1000],
            Depth::Full => &[1000, 5000],
        };
        let rounds = self.options.rounds(1, 3, 5);
        for &size in sizes {
            let mut seen = ROWS.map(|_| Vec::new());
            for _ in 0..rounds {
                for ((_, helper), seen) in ROWS.iter().zip(&mut seen) {
                    let groups = self.member_maker.groups(base, 1)?;
                    self.member_maker.populate(&groups, size, false)?;
                    std::thread::sleep(super::REST);
                    seen.push(reap(&groups[0], *helper)?);
                }
            }
            println!("\n### One reap of {size} processes, {rounds} rounds, medians\n");
            println!("| {:<40} | total, ms | spawn, ms | longest turn, ms | its CPU, ms |", "");
            println!("|{:-<42}|----------:|----------:|-----------------:|------------:|", "");
            for ((name, _), seen) in ROWS.iter().zip(&seen) {
                let of = |figure: fn(&Seen) -> f64| median(&seen.iter().map(figure).collect::<Vec<f64>>());
                println!(
                    "| {name:<40} | {:>9.2} | {:>9.2} | {:>16.2} | {:>11.2} |",
                    of(|seen| seen.total),
                    of(|seen| seen.spawn),
                    of(|seen| seen.longest),
                    of(|seen| seen.longest_cpu),
                );
            }
        }
        Ok(())
    }
}

/// Reaps a group in a loop of the caller's. The reactor, and with it its thread, ends here: the benchmark forks later.
fn reap(group: &Group, helper: bool) -> io::Result<Seen> {
    let mut reactor = Reactor::new()?;
    reactor.set_helper_thread(helper);
    let outer = Epoll::new()?;
    outer.add(reactor.as_fd(), libc::EPOLLIN, 0)?;
    let began = Instant::now();
    let handle = reactor.spawn_reaper(Reaper::at(&group.dir)).map_err(io::Error::other)?;
    let spawn = began.elapsed();
    let (mut longest, mut longest_cpu) = (Duration::ZERO, Duration::ZERO);
    let mut ready = Vec::new();
    while !handle.is_complete() {
        outer.wait(&mut ready)?;
        ready.clear();
        let (start, cpu) = (Instant::now(), sys::thread_cpu());
        reactor.turn(Some(Duration::ZERO))?;
        longest = longest.max(start.elapsed());
        longest_cpu = longest_cpu.max(sys::thread_cpu() - cpu);
    }
    let total = began.elapsed();
    handle.wait().map_err(io::Error::other)?;
    Ok(Seen { total: ms(total), spawn: ms(spawn), longest: ms(longest), longest_cpu: ms(longest_cpu) })
}
