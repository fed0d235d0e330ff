//! The timing wheel against what else keeps deadlines: a BTreeMap, a BinaryHeap, and a published timer wheel.
//!
//! `cargo bench --bench wheel -- [--quick]`
//!
//! Without criterion, which measures one contender after the other. The result is a ratio, so in each round every
//! contender does the same operations, the first one chosen at random, and a busy moment of the machine affects all of them.

#[allow(dead_code, unreachable_pub, reason = "the library's own, where all of it is used")]
#[path = "../src/wheel.rs"]
mod wheel;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hierarchical_hash_wheel_timer::IdOnlyTimerEntry;
use hierarchical_hash_wheel_timer::wheels::Skip;
use hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow;

/// Deadlines are 1 to as many ticks away, the default waits of a reap.
const SPAN: u64 = 10_000;

const LIVE: &str = "some timer is live";

/// Keeps a deadline for each of its keys, which are small numbers.
trait Timers {
    /// Sets the deadline of a key that may have one.
    fn schedule(&mut self, key: usize, deadline: u64);
    fn cancel(&mut self, key: usize);
    /// Advances to the next deadline, takes out all keys that are due then, and says when that is.
    fn expire(&mut self, due: &mut Vec<usize>) -> u64;
}

struct Ours(wheel::Wheel);

impl Timers for Ours {
    fn schedule(&mut self, key: usize, deadline: u64) {
        self.0.schedule(key, deadline);
    }

    fn cancel(&mut self, key: usize) {
        black_box(self.0.cancel(key));
    }

    fn expire(&mut self, due: &mut Vec<usize>) -> u64 {
        loop {
            // It may be early where keys have left; a pop finds that out.
            let now = self.0.next().expect(LIVE);
            while let Some(key) = self.0.pop(now) {
                due.push(key);
            }
            if !due.is_empty() {
                return now;
            }
        }
    }
}

/// Ordered by deadline and key, with the deadline of each key, to find its entry. (A set is a map to nothing.)
#[derive(Default)]
struct Tree {
    tree: BTreeSet<(u64, usize)>,
    deadlines: Vec<Option<u64>>,
}

impl Timers for Tree {
    fn schedule(&mut self, key: usize, deadline: u64) {
        if key >= self.deadlines.len() {
            self.deadlines.resize(key + 1, None);
        }
        if let Some(old) = self.deadlines[key].replace(deadline) {
            self.tree.remove(&(old, key));
        }
        self.tree.insert((deadline, key));
    }

    fn cancel(&mut self, key: usize) {
        if let Some(old) = self.deadlines[key].take() {
            self.tree.remove(&(old, key));
        }
    }

    fn expire(&mut self, due: &mut Vec<usize>) -> u64 {
        let now = self.tree.first().expect(LIVE).0;
        while let Some(&(deadline, key)) = self.tree.first() {
            if deadline > now {
                break;
            }
            self.tree.pop_first();
            self.deadlines[key] = None;
            due.push(key);
        }
        now
    }
}

/// A cancelled entry stays in the heap until it is the first, or until such entries are more than half of the heap.
#[derive(Default)]
struct Heap {
    /// Deadline, key, and which of the key's schedules it is.
    heap: BinaryHeap<Reverse<(u64, usize, u32)>>,
    /// The valid schedule of each key, and whether it has one.
    keys: Vec<(u32, bool)>,
    live: usize,
}

impl Timers for Heap {
    fn schedule(&mut self, key: usize, deadline: u64) {
        if key >= self.keys.len() {
            self.keys.resize(key + 1, (0, false));
        }
        let (schedule, holds) = &mut self.keys[key];
        *schedule = schedule.wrapping_add(1);
        self.live += usize::from(!std::mem::replace(holds, true));
        self.heap.push(Reverse((deadline, key, *schedule)));
        if self.heap.len() > 2 * self.live + 64 {
            let keys = &self.keys;
            self.heap.retain(|&Reverse((_, key, schedule))| keys[key] == (schedule, true));
        }
    }

    fn cancel(&mut self, key: usize) {
        self.live -= usize::from(std::mem::replace(&mut self.keys[key].1, false));
    }

    fn expire(&mut self, due: &mut Vec<usize>) -> u64 {
        let mut now = None;
        while let Some(&Reverse((deadline, key, schedule))) = self.heap.peek() {
            if now.is_some_and(|now| deadline > now) {
                break;
            }
            self.heap.pop();
            if self.keys[key] == (schedule, true) {
                self.cancel(key);
                now = Some(deadline);
                due.push(key);
            }
        }
        now.expect(LIVE)
    }
}

/// The crate hierarchical_hash_wheel_timer, its wheel that can cancel. It takes delays, from where it stands.
struct Published {
    wheel: QuadWheelWithOverflow<IdOnlyTimerEntry<usize>>,
    now: u64,
}

impl Timers for Published {
    fn schedule(&mut self, key: usize, deadline: u64) {
        // For a key without a timer this is an error, without effect.
        let _ = self.wheel.cancel(&key);
        let delay = Duration::from_millis(deadline - self.now);
        let entry = Rc::new(IdOnlyTimerEntry { id: key, delay });
        self.wheel.insert_ref_with_delay(entry, delay).expect("not due yet");
    }

    fn cancel(&mut self, key: usize) {
        self.wheel.cancel(&key).expect("scheduled before");
    }

    fn expire(&mut self, due: &mut Vec<usize>) -> u64 {
        loop {
            match self.wheel.can_skip() {
                Skip::Empty => panic!("{LIVE}"),
                Skip::Millis(ticks) => {
                    self.wheel.skip(ticks);
                    self.now += u64::from(ticks);
                }
                Skip::None => {}
            }
            self.now += 1;
            due.extend(self.wheel.tick().iter().map(|entry| entry.id));
            if !due.is_empty() {
                return self.now;
            }
        }
    }
}

const NAMES: [&str; 4] = ["this crate's", "BTreeMap", "BinaryHeap", "hierarchical_hash_wheel_timer"];

fn new(index: usize) -> Box<dyn Timers> {
    match index {
        0 => Box::new(Ours(wheel::Wheel::new())),
        1 => Box::<Tree>::default(),
        2 => Box::<Heap>::default(),
        _ => Box::new(Published { wheel: QuadWheelWithOverflow::new(), now: 0 }),
    }
}

/// `schedule` is of new keys, with the memory for them. `expire + schedule` advances to the next deadline, takes out
/// the keys that are due, and schedules them again.
const OPERATIONS: [&str; 4] = ["schedule", "schedule + cancel", "reschedule", "expire + schedule"];

struct Dice(u64);

impl Dice {
    /// xorshift64.
    fn throw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Nanoseconds that each of `OPERATIONS` takes with `live` timers.
fn measure(contender: usize, live: usize, batch: usize, seed: u64) -> [f64; 4] {
    let mut dice = Dice(seed);
    // Drawn before: the random numbers are not part of the work.
    let delays: Vec<u64> = (0..live.max(batch)).map(|_| 1 + dice.throw(SPAN)).collect();
    let keys: Vec<usize> = (0..batch).map(|_| dice.throw(live as u64) as usize).collect();
    let each = |start: Instant, count: usize| start.elapsed().as_secs_f64() * 1e9 / count as f64;

    let mut timers = new(contender);
    let start = Instant::now();
    for (key, &delay) in delays[..live].iter().enumerate() {
        timers.schedule(key, delay);
    }
    let schedule = each(start, live);

    // First, because cancelled timers may leave entries behind.
    let mut due = Vec::with_capacity(live);
    let (mut expired, mut next) = (0, delays.iter().cycle());
    let start = Instant::now();
    while expired < batch {
        let now = timers.expire(&mut due);
        expired += due.len();
        for key in due.drain(..) {
            timers.schedule(key, now + next.next().unwrap_or(&1));
        }
    }
    let expire = each(start, expired);

    // The current time, so that all later deadlines are after it.
    let now = timers.expire(&mut due);
    due.drain(..).for_each(|key| timers.schedule(key, now + SPAN));
    let start = Instant::now();
    for &delay in &delays[..batch] {
        timers.schedule(live, now + delay);
        timers.cancel(live);
    }
    let both = each(start, batch);

    let start = Instant::now();
    for (&key, &delay) in keys.iter().zip(&delays[..batch]) {
        timers.schedule(key, now + delay);
    }
    [schedule, both, each(start, batch), expire]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs it without `--bench`: once through everything, to see that it works.
    let smoke = !args.iter().any(|arg| arg == "--bench");
    let quick = smoke || args.iter().any(|arg| arg == "--quick");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut requirements = Vec::new();
    println!("### Timers: ns an operation, medians; in brackets how much longer than this crate's\n");
    for live in [1, 1_000, 100_000, 1_000_000] {
        let (rounds, batch) = match (smoke, quick, live) {
            (true, _, 1_000_000) => continue,
            (true, _, _) => (1, 1_000),
            (_, true, _) => (3, 100_000),
            _ => (9, 200_000),
        };
        let mut samples = vec![[const { Vec::new() }; 4]; NAMES.len()];
        for round in 0..rounds {
            let seed = 1 + dice.throw(u64::MAX - 1);
            let first = dice.throw(NAMES.len() as u64) as usize;
            for index in (0..NAMES.len()).map(|index| (first + index) % NAMES.len()) {
                let taken = measure(index, live, batch, seed);
                // The first round warms up.
                if round > 0 || rounds == 1 {
                    for (samples, taken) in samples[index].iter_mut().zip(taken) {
                        samples.push(taken);
                    }
                }
            }
        }
        let medians: Vec<Vec<f64>> =
            samples.iter_mut().map(|operations| operations.iter_mut().map(|v| median(v)).collect()).collect();
        println!("| {live} live | {} |", OPERATIONS.join(" | "));
        println!("|---|{}", "---:|".repeat(OPERATIONS.len()));
        for (name, row) in NAMES.iter().zip(&medians) {
            let cells: Vec<String> = row
                .iter()
                .zip(&medians[0])
                .map(|(value, ours)| format!("{value:.1} ({:.1}x)", value / ours))
                .collect();
            println!("| {name} | {} |", cells.join(" | "));
        }
        println!();
        if live == 100_000 {
            requirements = vec![(medians[0][1], 30.0, true), (medians[1][1] / medians[0][1], 5.0, false)];
        }
    }
    for ((value, bar, at_most), what) in requirements
        .into_iter()
        .zip(["ns for schedule + cancel at 100 000 live", "times faster there than BTreeMap"])
    {
        let met = if at_most { value <= bar } else { value >= bar };
        let sign = if at_most { "<=" } else { ">=" };
        println!("bar: {value:.1} {what}, {sign} {bar}: {}", if met { "met" } else { "NOT MET" });
    }
}
