//! Spawns the targets, drives the reactor until all have ended, and cancels them on a signal.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{Reactor, ReapError, ReapHandle, Reaped, Reaper, Refusal, Remote, SpawnError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::ReapArgs;
use crate::report::{self, Reporter};

/// The longest wait in the reactor. Completions and signals end it early; this is for the signal that
/// arrives just before the wait.
const TICK: Duration = Duration::from_millis(250);
/// Spawns between two turns of the reactor, so that early targets do not wait for the last spawn.
const BATCH: usize = 64;
/// How long cancelled reaps may take to thaw what they froze.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

pub const ALL_REAPED: u8 = 0;
pub const NOT_REAPED: u8 = 1;
pub const REFUSED: u8 = 2;

/// How one target ended, and how long that took.
#[derive(Debug)]
pub struct End {
    pub result: Result<Reaped, Failure>,
    pub elapsed: Duration,
}

#[derive(Debug)]
pub enum Failure {
    /// The spawn was refused.
    Refused(SpawnError),
    /// The reap failed.
    Reap(ReapError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => error.fmt(f),
            Failure::Reap(error) => error.fmt(f),
        }
    }
}

impl End {
    /// What it means for the exit status; of several the highest counts.
    pub fn status(&self) -> u8 {
        match &self.result {
            Ok(_) => ALL_REAPED,
            Err(Failure::Reap(_)) => NOT_REAPED,
            Err(Failure::Refused(error)) => match error.refusal() {
                // Neither the user's mistake nor a guard: the kernel would not let us look.
                Refusal::Io { .. } | Refusal::Disconnected => NOT_REAPED,
                _ => REFUSED,
            },
        }
    }
}

/// `cgreap TARGET...`; returns the exit status.
pub fn run(args: &ReapArgs, verbose: bool) -> u8 {
    raise_descriptor_limit();
    let reactor = match Reactor::new() {
        Ok(reactor) => reactor,
        Err(error) => {
            report::complain(&format!("event loop: {error}"));
            return NOT_REAPED;
        }
    };
    // Before the first target is touched: from here on a signal must not leave anything frozen.
    let interrupt = match Interrupt::watch(reactor.remote()) {
        Ok(interrupt) => interrupt,
        Err(error) => {
            report::complain(&format!("signal handlers: {error}"));
            return NOT_REAPED;
        }
    };
    let targets = args.targets();
    let (names, reapers): (Vec<_>, Vec<_>) =
        targets.into_iter().map(|target| (target.name, target.reaper)).unzip();
    let reporter = match Reporter::start(names, args.place(), args.json, verbose) {
        Ok(reporter) => reporter,
        Err(error) => {
            report::complain(&format!("thread: {error}"));
            return NOT_REAPED;
        }
    };

    let since = Instant::now();
    let (mut status, mut reaped, total) = (ALL_REAPED, 0, reapers.len());
    let driven = drive(reactor, reapers, &interrupt, &mut |index, end| {
        status = status.max(end.status());
        reaped += usize::from(end.result.is_ok());
        reporter.report(index, end);
    });
    if let Err(error) = driven {
        report::complain(&format!("event loop: {error}"));
        status = status.max(NOT_REAPED);
    }
    let said = reporter.finish(&interrupt);
    match said.stdout {
        Ok(()) => {}
        // The reader has seen enough; that is its right, and no failure to reap.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            report::complain(&format!("stdout: {error}"));
            status = status.max(NOT_REAPED);
        }
    }
    let summary = format!("{reaped} of {total} reaped in {}", report::human(since.elapsed()));
    if let Some(signal) = interrupt.signal() {
        report::complain(&format!("{}: {summary}", interrupted(signal)));
        return interrupted_status(signal);
    }
    // The bar has gone; this is what remains of it.
    if said.bar_shown {
        report::complain(&summary);
    }
    status
}

/// That a signal has ended it, in words.
pub fn interrupted(signal: i32) -> String {
    format!("interrupted by {}", signal_hook::low_level::signal_name(signal).unwrap_or("a signal"))
}

/// The exit status for it, as shells have it.
pub fn interrupted_status(signal: i32) -> u8 {
    128 + signal as u8
}

/// Lets this process have as many descriptors as it may: the library can watch more groups at once then.
pub fn raise_descriptor_limit() {
    // Refused or not, it works with what there is.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        if soft < hard {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}

/// Which signal asked the program to end, if one did.
#[derive(Debug)]
pub struct Interrupt {
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Watches for SIGINT, SIGTERM and SIGHUP from a thread of its own; each wakes the reactor.
    pub fn watch(remote: Remote) -> io::Result<Interrupt> {
        let mut watched = vec![SIGINT, SIGTERM];
        // Where nohup(1) has it ignored it stays so.
        if !is_ignored(SIGHUP) {
            watched.push(SIGHUP);
        }
        let mut signals = Signals::new(watched)?;
        let signal = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&signal);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                // The first decides on the exit status.
                let _ = seen.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                remote.stop();
            }
        })?;
        Ok(Interrupt { signal })
    }

    /// The signal that came first.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// A reap under way.
struct Running {
    handle: ReapHandle,
    since: Instant,
}

/// Rings when the reap of `index` is complete, so that nobody has to look through ten thousand handles.
struct Bell {
    index: usize,
    rung: Arc<Rung>,
}

/// The indices of completed reaps.
type Rung = Mutex<Vec<usize>>;

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

/// Reaps all of `reapers` at once. Each of them is reported to `ended`, by its index, exactly once,
/// whatever happens.
pub fn drive(
    reactor: Reactor,
    reapers: Vec<Reaper>,
    interrupt: &Interrupt,
    ended: &mut dyn FnMut(usize, End),
) -> io::Result<()> {
    let mut driver = Driver {
        running: reapers.iter().map(|_| None).collect(),
        waiting: reapers.into_iter().enumerate().collect(),
        alive: 0,
        starved: false,
        rung: Arc::default(),
        interrupt,
        ended,
    };
    let mut reactor = reactor;
    let driven = driver.run(&mut reactor);
    // Whatever still runs is thawed and let go with the reactor, and its handle then says so.
    drop(reactor);
    driver.answer_bells();
    driver.dismiss();
    driven
}

struct Driver<'a> {
    waiting: VecDeque<(usize, Reaper)>,
    /// By index; `None` before the spawn and after the end.
    running: Vec<Option<Running>>,
    /// How many of `running` there are.
    alive: usize,
    /// Whether spawns wait for file descriptors that running reaps hold.
    starved: bool,
    rung: Arc<Rung>,
    interrupt: &'a Interrupt,
    ended: &'a mut dyn FnMut(usize, End),
}

impl Driver<'_> {
    /// Returns when all have ended, or when those that were cancelled have had their time.
    fn run(&mut self, reactor: &mut Reactor) -> io::Result<()> {
        let mut cancelled_at = None;
        loop {
            if self.interrupt.signal().is_some() {
                let at = *cancelled_at.get_or_insert_with(|| {
                    self.running.iter().flatten().for_each(|running| running.handle.cancel());
                    Instant::now()
                });
                if at.elapsed() > CANCEL_PATIENCE {
                    return Ok(());
                }
            } else {
                self.spawn_some(reactor);
            }
            self.answer_bells();
            let to_spawn = cancelled_at.is_none() && !self.waiting.is_empty();
            if self.alive == 0 && !to_spawn {
                return Ok(());
            }
            reactor.turn(Some(if to_spawn && !self.starved { Duration::ZERO } else { TICK }))?;
        }
    }

    fn spawn_some(&mut self, reactor: &mut Reactor) {
        for _ in 0..BATCH {
            if self.starved || self.interrupt.signal().is_some() {
                return;
            }
            let Some((index, reaper)) = self.waiting.pop_front() else { return };
            let since = Instant::now();
            match reactor.spawn_reaper(reaper) {
                Ok(mut handle) => {
                    let bell = Arc::new(Bell { index, rung: Arc::clone(&self.rung) });
                    if Pin::new(&mut handle).poll(&mut Context::from_waker(&bell.clone().into())).is_ready() {
                        bell.wake();
                    }
                    self.running[index] = Some(Running { handle, since });
                    self.alive += 1;
                }
                Err(error) if self.alive > 0 && is_want_of_descriptors(error.refusal()) => {
                    self.waiting.push_front((index, error.into_reaper()));
                    self.starved = true;
                }
                Err(error) => {
                    let result = Err(Failure::Refused(error));
                    (self.ended)(index, End { result, elapsed: since.elapsed() });
                }
            }
        }
    }

    fn answer_bells(&mut self) {
        let rung = std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner));
        for index in rung {
            let result = self.running[index].as_ref().and_then(|running| running.handle.try_wait());
            if let Some(result) = result {
                self.end(index, result);
            }
        }
    }

    fn end(&mut self, index: usize, result: Result<Reaped, ReapError>) {
        if let Some(running) = self.running[index].take() {
            self.alive -= 1;
            self.starved = false;
            let elapsed = result.as_ref().map_or_else(|_| running.since.elapsed(), |reaped| reaped.elapsed);
            (self.ended)(index, End { result: result.map_err(Failure::Reap), elapsed });
        }
    }

    /// Reports all that have not ended.
    fn dismiss(&mut self) {
        for index in 0..self.running.len() {
            self.end(index, Err(ReapError::Disconnected));
        }
        for (index, _) in std::mem::take(&mut self.waiting) {
            let result = Err(Failure::Reap(ReapError::Cancelled));
            (self.ended)(index, End { result, elapsed: Duration::ZERO });
        }
    }
}

fn is_want_of_descriptors(refusal: &Refusal) -> bool {
    let Refusal::Io { source, .. } = refusal else { return false };
    matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
