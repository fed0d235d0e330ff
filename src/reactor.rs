//! [`Reactor`]: the loop. A poll, a slab of entries, a timing wheel, and a queue from other threads.
//!
//! It decides nothing: machines do. It carries wake-ups to them, their actions to the targets, and the
//! results to the handles.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use slab::Slab;

use crate::cgroup::{Budget, Kernel, Notice, OwnCgroups, Target};
use crate::handle::{self, Completer, ReapHandle};
use crate::machine::{Action, End, Input, Machine, Time};
use crate::metrics::Metrics;
use crate::outcome::{Reaped, SpawnError};
use crate::reaper::Reaper;
use crate::remote::{Command, Queue, Remote, Spawn};
use crate::sys;
use crate::wheel::Wheel;

/// Notifications taken from the kernel in one turn.
const EVENTS: usize = 256;

/// Timers, and commands from other threads, handled in one turn. What is left makes the descriptor
/// readable at once.
const BATCH: usize = 256;

/// Longest sleep in one turn and in the kernel's timer. Longer waits take several, for neither is safe
/// with every value that a `Duration` can have.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Bits of a token that are a slab key; the others are the entry's generation.
const KEY_BITS: u32 = usize::BITS / 2;
const KEY_MASK: usize = (1 << KEY_BITS) - 1;

/// A single-threaded event loop that reaps cgroups.
///
/// No thread and no global state: whoever calls its methods does the work. `Send`, but not `Sync`; other
/// threads reach it through a [`Remote`].
///
/// # Driving it
///
/// In a loop of its own: [`run`](Reactor::run), [`run_until_idle`](Reactor::run_until_idle),
/// [`run_until`](Reactor::run_until). In a loop that you have: the reactor is one descriptor ([`AsFd`]).
/// *When it is readable, call `turn(Some(Duration::ZERO))`; extra calls are no-ops; after any
/// `&mut self` method returns, its readiness covers all pending work, timers included.*
///
/// ```
/// use std::time::Duration;
/// use cgroup_reaper::{Outcome, Reactor, Reaper};
///
/// # fn main() -> std::io::Result<()> {
/// # let Some(dir) = doc_cgroup()? else { return Ok(()) };
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.spawn_reaper(Reaper::at(&dir)).expect("a cgroup, and not ours");
/// reactor.run_until(&handle)?;
/// assert_eq!(handle.wait().unwrap().outcome, Outcome::Removed);
/// # Ok(())
/// # }
/// # fn doc_cgroup() -> std::io::Result<Option<std::path::PathBuf>> {
/// #     let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];
/// #     let dir = |root| format!("{root}/cgroup-reaper-doc-{}", std::process::id());
/// #     Ok(root.into_iter().map(dir).find(|dir| std::fs::create_dir(dir).is_ok()).map(Into::into))
/// # }
/// ```
pub struct Reactor {
    poll: Poll,
    events: Events,
    /// Tokens of the turn under way.
    woken: Vec<Token>,
    timer: TimerFd,
    /// The tick that the timer is set to.
    armed: Option<u64>,
    wheel: Wheel,
    entries: Slab<Entry>,
    generation: usize,
    queue: Arc<Queue>,
    /// Commands were left in the queue for the next turn.
    backlog: bool,
    /// The last turn took as many notifications as it can, so the kernel may hold more of them.
    full: bool,
    /// Tokens of entries whose step met its bound, and that go on in the next turn, after the others.
    again: Vec<usize>,
    stopped: bool,
    own: Arc<Mutex<OwnCgroups>>,
    budget: Budget,
    metrics: Metrics,
    /// The zero of [`Time`] and of the wheel's ticks.
    start: Instant,
    not_sync: PhantomData<Cell<()>>,
}

/// One reap under way.
struct Entry {
    machine: Machine,
    target: Target,
    completer: Completer,
    generation: usize,
    spawned: Time,
}

impl Reactor {
    /// Makes a reactor. It holds three descriptors: an epoll, a timerfd and an eventfd.
    ///
    /// # Errors
    ///
    /// What epoll_create1(2), timerfd_create(2) and eventfd(2) say, out of descriptors above all.
    pub fn new() -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let raw = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&raw), TIMER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS),
            woken: Vec::with_capacity(EVENTS),
            timer,
            armed: None,
            wheel: Wheel::new(),
            entries: Slab::new(),
            generation: 0,
            queue: Arc::new(Queue::new(waker)),
            backlog: false,
            full: false,
            again: Vec::new(),
            stopped: false,
            own: Arc::default(),
            budget: Budget::new(usize::try_from(limit).unwrap_or(usize::MAX)),
            metrics: Metrics::default(),
            start: Instant::now(),
            not_sync: PhantomData,
        })
    }

    /// Starts a reap: checks the target, pins it, looks at it, and makes the first attempt to kill, all
    /// before it returns. The rest is done by [`turn`](Reactor::turn).
    ///
    /// # Errors
    ///
    /// A target that is unsafe or makes no sense is refused, see [`Refusal`](crate::Refusal); nothing
    /// was touched then, and the error hands the [`Reaper`] back. A target that is not there is no
    /// error: it completes as [`Outcome::AlreadyGone`](crate::Outcome::AlreadyGone).
    pub fn spawn_reaper(&mut self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        let resolved = {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            Target::resolve(&reaper, &mut own, &self.budget)
        };
        let target = match resolved {
            Ok(target) => target,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(&self.queue);
        self.admit(Spawn { reaper, target, completer });
        self.arm();
        Ok(handle)
    }

    /// One round: waits up to `max_wait` (`None`: as long as it takes) for something to do, does it, and
    /// returns how many reaps were completed.
    ///
    /// It may return before `max_wait` with 0, for instance on a signal: an interrupted wait is no
    /// error. An extra call with zero is a no-op. With `None` on a reactor without reaps it sleeps
    /// until a [`Remote`] asks for something.
    ///
    /// # Errors
    ///
    /// What epoll_wait(2) says, EINTR apart. The reaps are unharmed.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<usize> {
        let timeout = max_wait.map(|wait| wait.min(LONGEST));
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        }
        let completed = self.metrics.completed;
        let again = std::mem::take(&mut self.again);
        let mut worked = self.backlog || !again.is_empty();
        let mut commands = std::mem::take(&mut self.backlog);

        let mut woken = std::mem::take(&mut self.woken);
        woken.extend(self.events.iter().map(|event| event.token()));
        self.full = woken.len() >= EVENTS;
        for token in woken.drain(..) {
            worked = true;
            match token {
                // The timer is registered edge-triggered and set anew after each expiry: no need to
                // read it.
                TIMER => self.armed = None,
                WAKER => commands = true,
                Token(token) => {
                    self.metrics.events += 1;
                    self.wake(token, Input::Event);
                }
            }
        }
        self.woken = woken;

        if commands {
            self.obey();
        }
        let now = self.now_tick();
        for _ in 0..BATCH {
            let Some(key) = self.wheel.pop(now) else { break };
            worked = true;
            self.metrics.timers += 1;
            self.drive(key, Input::Tick);
        }
        for token in again {
            self.wake(token, Input::Tick);
        }
        self.arm();
        self.metrics.wakeups += u64::from(worked);
        Ok((self.metrics.completed - completed) as usize)
    }

    /// Runs until [`Remote::stop`].
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run(&mut self) -> io::Result<()> {
        while !std::mem::take(&mut self.stopped) {
            self.turn(None)?;
        }
        Ok(())
    }

    /// Runs until no reap is left, those in the queue from a [`Remote`] included.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run_until_idle(&mut self) -> io::Result<()> {
        while !self.entries.is_empty() || !self.queue.is_empty() {
            self.turn(None)?;
        }
        Ok(())
    }

    /// Runs until the reap of `handle` is complete. On the reactor's own thread, the way to wait for one.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn), and `InvalidInput` for a handle of another reactor.
    pub fn run_until(&mut self, handle: &ReapHandle) -> io::Result<()> {
        if !handle.is_of(&self.queue) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a handle of another reactor"));
        }
        while !handle.is_complete() {
            self.turn(None)?;
        }
        Ok(())
    }

    /// When the next timer is due: for loops that would rather pass a timeout than watch the descriptor
    /// for it. `None`: no timer. It changes with every `&mut self` call; ask again after each.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.must_go_on() {
            return Some(Instant::now());
        }
        self.start.checked_add(Duration::from_millis(self.wheel.next()?))
    }

    /// A front for other threads.
    pub fn remote(&self) -> Remote {
        Remote { queue: Arc::clone(&self.queue), own: Arc::clone(&self.own), budget: self.budget.clone() }
    }

    /// Reaps under way.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What was done so far.
    pub fn metrics(&self) -> Metrics {
        Metrics { descriptors: self.budget.used() as u64, ..self.metrics.clone() }
    }

    /// Takes in a target that passed the checks, and starts on it.
    fn admit(&mut self, spawn: Spawn) {
        let Spawn { reaper, target, completer } = spawn;
        let now = self.start.elapsed();
        self.generation = self.generation.wrapping_add(1) & KEY_MASK;
        let generation = self.generation;
        let key = self.entries.insert(Entry {
            machine: Machine::new(&reaper, now),
            target,
            completer,
            generation,
            spawned: now,
        });
        self.metrics.spawned += 1;
        let bound = self.entries[key].completer.bind(token(key, generation).0);
        self.drive(key, if bound { Input::Start } else { Input::Cancel });
    }

    /// Does what other threads asked for.
    fn obey(&mut self) {
        for _ in 0..BATCH {
            match self.queue.pop() {
                None => return,
                Some(Command::Spawn(mut spawn)) => {
                    spawn.target.outdate();
                    self.admit(*spawn);
                }
                Some(Command::Cancel(token)) => self.wake(token, Input::Cancel),
                Some(Command::Stop) => self.stopped = true,
            }
        }
        self.backlog = !self.queue.is_empty();
    }

    /// Wakes the entry that a token was made for, if it is still there.
    fn wake(&mut self, token: usize, input: Input) {
        let (key, generation) = (token & KEY_MASK, token >> KEY_BITS);
        if self.entries.get(key).is_some_and(|entry| entry.generation == generation) {
            self.drive(key, input);
        }
    }

    /// Feeds one entry's machine, and does what it says, until it waits or is done.
    fn drive(&mut self, key: usize, mut input: Input) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let registry = self.poll.registry();
        let token = token(key, entry.generation);
        let watch = |fd: BorrowedFd<'_>, notice: Notice| {
            let interest = match notice {
                Notice::Events => Interest::PRIORITY,
                Notice::Exit => Interest::READABLE,
            };
            registry.register(&mut SourceFd(&fd.as_raw_fd()), token, interest)
        };
        let mut kernel = Kernel {
            own: &self.own,
            budget: &self.budget,
            metrics: &mut self.metrics,
            watch: &watch,
            no_events: false,
        };
        let Entry { machine, target, .. } = entry;
        let end = loop {
            let now = self.start.elapsed();
            let escalated = machine.escalated();
            let action = machine.step(now, input);
            if machine.escalated() && !escalated {
                kernel.metrics.escalations += 1;
                log::info!("{}: does not shrink; freezing it", target.path().display());
            }
            log::trace!("{}: {input:?} -> {action:?}", target.path().display());
            input = match action {
                Action::Look => Input::Looked(target.look(&mut kernel)),
                Action::Kill { means, frozen } => Input::Killed(target.kill(&mut kernel, means, frozen)),
                Action::Signal(signal) => Input::Killed(target.signal(&mut kernel, signal)),
                Action::Freeze => Input::Froze(target.freeze(&mut kernel)),
                Action::Thaw { v2, elsewhere } => Input::Thawed(target.thaw(kernel.metrics, v2, elsewhere)),
                Action::Remove => Input::Removed(target.remove(&mut kernel)),
                Action::Wait(until) if until <= now => {
                    target.outdate();
                    self.wheel.cancel(key);
                    self.again.push(token.0);
                    return;
                }
                Action::Wait(until) => {
                    target.outdate();
                    self.wheel.schedule(key, tick(until));
                    return;
                }
                Action::Finish(end) => break end,
            };
        };
        self.complete(key, end);
    }

    fn complete(&mut self, key: usize, end: End) {
        self.wheel.cancel(key);
        let Entry { machine, mut target, completer, spawned, .. } = self.entries.remove(key);
        let elapsed = self.start.elapsed().saturating_sub(spawned);
        self.metrics.completed += 1;
        let result = match end {
            End::Done(outcome) => Ok(Reaped {
                outcome,
                method: machine.used(),
                signalled: machine.signalled(),
                rounds: machine.rounds(),
                elapsed,
            }),
            end => Err(target.error(end)),
        };
        log::debug!("{}: {end:?} after {elapsed:?}, {} rounds", target.path().display(), machine.rounds());
        // Descriptors first, so that whoever hears of the completion finds them closed.
        drop(target);
        completer.complete(result);
    }

    /// Sets the timer so that the descriptor's readiness covers whatever is pending.
    fn arm(&mut self) {
        let next = if self.must_go_on() { Some(0) } else { self.wheel.next() };
        // What a full batch left behind, this timer's own expiry perhaps, raises no new edge for an outer
        // loop that is edge-triggered. Setting the timer anew does.
        let armed = if self.full { None } else { self.armed };
        let result = match (next, armed) {
            (None, None) => return,
            (None, Some(_)) => self.timer.unset(),
            // Set too early is as good: that expiry finds nothing due and sets it right.
            (Some(next), Some(armed)) if armed <= next => return,
            (Some(next), _) => {
                // 1 ns is the shortest: zero would turn it off.
                let left = Duration::from_millis(next).saturating_sub(self.start.elapsed());
                let left = left.clamp(Duration::from_nanos(1), LONGEST);
                let expiration = Expiration::OneShot(TimeSpec::from(left));
                self.timer.set(expiration, TimerSetTimeFlags::empty())
            }
        };
        match result {
            Ok(()) => self.armed = next,
            // Only a bad descriptor or value could fail. Tried again on the next call.
            Err(errno) => log::error!("cannot set the timer: {errno}"),
        }
    }

    /// Whether the next turn has something to do that no descriptor tells of.
    fn must_go_on(&self) -> bool {
        self.backlog || self.full || !self.again.is_empty()
    }

    fn now_tick(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The tick, 1 ms each, at which `until` has passed.
fn tick(until: Time) -> u64 {
    u64::try_from(until.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn token(key: usize, generation: usize) -> Token {
    Token(generation << KEY_BITS | key)
}

impl AsFd for Reactor {
    /// Readable when there is something to do: then call `turn(Some(Duration::ZERO))`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::as_fd(&self.poll)
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl Drop for Reactor {
    /// Completes what is left as [`ReapError::Disconnected`](crate::ReapError::Disconnected), and leaves
    /// nothing frozen.
    fn drop(&mut self) {
        drop(self.queue.close());
        for mut entry in self.entries.drain() {
            if entry.machine.froze() {
                let thaw = entry.target.thaw(&mut self.metrics, true, false);
                log::debug!("{}: dropped in mid-freeze: {thaw:?}", entry.target.path().display());
            }
        }
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("len", &self.len())
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}
