//! Members that cannot exit, and the memory that they keep.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use cgroup_reaper::{Metrics, Reactor, Reaper};

use super::groups::{Group, Place};
use super::stats::{median, ms};
use super::{Bench, Depth, sys};

/// What is left of a process whose memory was released.
const NOTHING: u64 = 1 << 20;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The thread that calls process_mrelease(2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// This library: a helper thread.
    Helper,
    /// The thread of the loop, at once after the kill.
    Loop,
}

const ROWS: [(&str, Place, Caller); 4] = [
    ("this library, v2", Place::V2, Caller::Helper),
    ("this library, v1 by pidfd (cpu)", Place::Plain, Caller::Helper),
    ("called in the loop itself, v2", Place::V2, Caller::Loop),
    ("called in the loop itself, v1 (cpu)", Place::Plain, Caller::Loop),
];

/// What one round came to, in milliseconds.
struct Seen {
    /// From the spawn until the memory is back.
    back: f64,
    /// The longest call that the loop made, on the clock and of the CPU.
    longest: f64,
    longest_cpu: f64,
    /// CPU of other threads.
    others: f64,
}

impl Bench<'_> {
    /// A tracer holds the one member of a group at its exit. Without process_mrelease(2) it keeps its memory as long.
    pub(super) fn memory(&mut self) -> io::Result<()> {
        let (mib, rounds) = match self.options.depth {
            Depth::Smoke => (16, 1),
            Depth::Quick => (256, 3),
            Depth::Full => (1024, 3),
        };
        let rounds = self.options.rounds.unwrap_or(rounds);
        println!(
            "\n### {mib} MiB of a member that cannot exit (a tracer holds it), {rounds} rounds, medians\n"
        );
        println!(
            "| {:<40} | memory back after, ms | longest call of the loop, ms | its CPU, ms | CPU of the helper, ms |",
            ""
        );
        println!(
            "|{:-<42}|----------------------:|-----------------------------:|------------:|----------------------:|",
            ""
        );
        for (name, place, caller) in ROWS {
            let Some(base) = self.bases.get(place) else { continue };
            if self.options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let mut seen = Vec::new();
            for _ in 0..rounds {
                let groups = self.member_maker.groups(base, 1)?;
                let pids = self.member_maker.populate_with_memory(&groups, 1, mib)?;
                let holder = self.member_maker.hold_up(&pids)?;
                seen.push(release(&groups[0], pids[0], holder, caller)?);
            }
            let of = |figure: fn(&Seen) -> f64| median(&seen.iter().map(figure).collect::<Vec<f64>>());
            println!(
                "| {name:<40} | {:>21.1} | {:>28.2} | {:>11.2} | {:>21.1} |",
                of(|seen| seen.back),
                of(|seen| seen.longest),
                of(|seen| seen.longest_cpu),
                of(|seen| seen.others),
            );
        }
        Ok(())
    }
}

/// Reaps a group whose member is held at its exit, until its memory is back, then lets it exit. The reactor, and with it
/// its thread, ends here: the benchmark forks later.
fn release(group: &Group, pid: i32, holder: i32, caller: Caller) -> io::Result<Seen> {
    let mut reactor = Reactor::new()?;
    let reaper = Reaper::at(&group.dir);
    let reaper = if caller == Caller::Helper { reaper.release_memory() } else { reaper };
    let mut longest = (Duration::ZERO, Duration::ZERO);
    let mut call = |act: &mut dyn FnMut() -> io::Result<()>| {
        let (began, cpu) = (Instant::now(), sys::thread_cpu());
        act()?;
        longest = (longest.0.max(began.elapsed()), longest.1.max(sys::thread_cpu() - cpu));
        io::Result::Ok(())
    };
    let (began, process, own) = (Instant::now(), sys::process_cpu(), sys::thread_cpu());
    let mut spawned = None;
    call(&mut || {
        spawned = Some(reactor.spawn_reaper(reaper.clone()).map_err(io::Error::other)?);
        Ok(())
    })?;
    let handle = spawned.expect("just spawned");
    if caller == Caller::Loop {
        let pidfd = sys::pidfd_open(pid)?;
        call(&mut || sys::process_mrelease(&pidfd))?;
    }
    while memory(pid) >= NOTHING {
        if began.elapsed() > LIMIT {
            return Err(io::Error::other("the memory is not released"));
        }
        // Without the wait for something to do.
        std::thread::sleep(Duration::from_millis(1));
        call(&mut || reactor.turn(Some(Duration::ZERO)).map(drop))?;
    }
    let back = began.elapsed();
    while let Metrics { helper_busy: 1.., .. } = reactor.metrics() {
        std::thread::yield_now();
    }
    let own = sys::thread_cpu() - own;
    let others = (sys::process_cpu() - process).saturating_sub(own);
    if handle.is_complete() {
        return Err(io::Error::other("the member was to be held at its exit"));
    }
    sys::kill(holder)?;
    reactor.run_until_idle()?;
    handle.wait().map_err(io::Error::other)?;
    if group.dir.exists() {
        return Err(io::Error::other(format!("{} is still there", group.dir.display())));
    }
    Ok(Seen { back: ms(back), longest: ms(longest.0), longest_cpu: ms(longest.1), others: ms(others) })
}

/// The anonymous memory of a process, in bytes.
fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kb| kb << 10)
}
