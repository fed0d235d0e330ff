//! Reaps that cannot complete: the cost of waiting.

use std::io;
use std::time::{Duration, Instant};

use super::contender::{Contenders, Kind, Phases};
use super::stats::ms;
use super::{Bench, Depth, alloc, contenders, sys};

impl Bench<'_> {
    /// A process traces the groups' members (PTRACE_O_TRACEEXIT) and never continues them. So a killed member does not exit
    /// and stays listed until that process ends.
    pub(super) fn waiting(&mut self) -> io::Result<()> {
        // The waits of this library and of the timer-paced algorithm have grown to their 10 s by 13.4 s. The library
        // does more in every fourth round than in the others, hence four of them.
        let (count, settle, window) = match self.options.depth {
            Depth::Smoke => (10, 0.05, 0.05),
            Depth::Quick => (200, 2.0, 2.0),
            Depth::Full => (10_000, 15.0, 40.0),
        };
        let mut contenders: Contenders = self.entrants(contenders::for_waiting()?, 1);
        println!(
            "\n### Reaps that can't end, from {settle} s after their start on, this library for {window} s\n"
        );
        println!(
            "| {:<40} | reaps | wake-ups/s | CPU of a core | allocations/s | held up until removed, ms |",
            ""
        );
        println!(
            "|{:-<42}|------:|-----------:|--------------:|--------------:|--------------------------:|",
            ""
        );
        for contender in &mut contenders {
            let card = *contender.card();
            let Some(base) = self.bases.get(card.place) else { continue };
            let count = count.min(card.most);
            let groups = self.member_maker.groups(base, count)?;
            let pids = self.member_maker.populate(&groups, 1, false)?;
            let holder = self.member_maker.hold_up(&pids)?;
            contender.prepare(&groups);
            let until = Some(Instant::now() + Duration::from_secs_f64(settle));
            // A quarter is one round of the timer-paced algorithm.
            let window = if card.kind == Kind::TimerPaced { window / 4.0 } else { window };
            let window = Duration::from_secs_f64(window);
            let mut watch = Watch { until, window, holder, begun: None, seen: None, released: None };
            contender.wait(&groups, &mut watch)?;
            let (Some(seen), Some(released)) = (watch.seen, watch.released) else { continue };
            // What the timer-paced algorithm needs for it is not measured.
            let last = match card.kind {
                Kind::TimerPaced => "-".to_owned(),
                _ => format!("{:.1}", ms(released.elapsed())),
            };
            let seconds = seen.at.as_secs_f64();
            let share = 100.0 * seen.cpu.as_secs_f64() / seconds;
            println!(
                "| {:<40} | {count:>5} | {:>10.1} | {:>11.3} % | {:>13.1} | {last:>25} |",
                card.name,
                seen.wakeups as f64 / seconds,
                share,
                seen.allocations as f64 / seconds,
            );
            if let Some(left) = groups.iter().find(|group| group.dir.exists()) {
                return Err(io::Error::other(format!("{} is still there", left.dir.display())));
            }
            // Before the waits have grown the requirements do not apply.
            if card.kind == Kind::Ours && self.options.depth == Depth::Full {
                let work = format!("{count} waiting, {}: CPU of a core", card.name);
                self.report.at_most(work, share, 1.0, " %");
                if let Some(allocations) = contender.idle_allocations() {
                    let work = format!("{}: allocations of a turn with nothing to do", card.name);
                    self.report.at_most(work, allocations as f64, 0.0, "");
                }
            }
        }
        Ok(())
    }
}

/// What was counted, since the start or within the window.
#[derive(Clone, Copy)]
struct Seen {
    wakeups: u64,
    allocations: u64,
    cpu: Duration,
    at: Duration,
}

/// Lets the waits grow, watches for a while, then lets the groups end.
struct Watch {
    until: Option<Instant>,
    window: Duration,
    holder: i32,
    begun: Option<(Seen, Instant)>,
    seen: Option<Seen>,
    released: Option<Instant>,
}

impl Phases for Watch {
    fn until(&self) -> Option<Instant> {
        self.until
    }

    fn next(&mut self, wakeups: u64) {
        let now = Instant::now();
        let seen = Seen { wakeups, allocations: alloc::calls(), cpu: sys::thread_cpu(), at: Duration::ZERO };
        match self.begun {
            None => {
                self.begun = Some((seen, now));
                self.until = Some(now + self.window);
            }
            Some((before, since)) => {
                self.seen = Some(Seen {
                    wakeups: seen.wakeups - before.wakeups,
                    allocations: seen.allocations - before.allocations,
                    cpu: seen.cpu - before.cpu,
                    at: now - since,
                });
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
