//! [`Reactor`]: the loop. A poll that wakes the entries, a timer for their wheel, and a queue from other
//! threads.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::cgroup::{Budget, Job, MANY, Notice, Resolver};
use crate::entries::{Command, Entries, Host, Spawn};
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::guard::ReapGuard;
use crate::handle::{self, Asked, ReapHandle};
use crate::helper::Helper;
use crate::metrics::{Calls, Metrics};
use crate::outcome::{Completed, Pending, ReapError, Reaped, SpawnError};
use crate::reaper::Reaper;
use crate::remote::{Queue, Remote};
use crate::sys::{self, Linux, Sys};

/// Notifications taken from the kernel in one turn.
const EVENTS: usize = 256;

/// How long a turn or a spawn works by default before it defers the rest.
const TURN_BUDGET: Duration = Duration::from_millis(1);

/// Longest sleep in one turn and in the kernel's timer. Longer waits take several, for neither is safe
/// with every value that a `Duration` can have.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A timer that is not needed any more is not disarmed if it fires within this time. This saves a system call at
/// completion. One that was set to fire at once is: it has fired.
const SOON: Duration = Duration::from_millis(10);

const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A single-threaded event loop that reaps cgroups.
///
/// It works while one of its methods runs. It starts threads only for [`Reaper::release_memory`] and
/// [`set_helper_thread`](Reactor::set_helper_thread), which make single system calls. `Send`, but not `Sync`; other threads reach it through a [`Remote`].
///
/// # Driving it
///
/// On its own: [`run`](Reactor::run), [`run_until_idle`](Reactor::run_until_idle), [`run_until`](Reactor::run_until).
/// In another event loop: the reactor is one descriptor ([`AsFd`]). When it is readable, call
/// `turn(Some(Duration::ZERO))`. Extra calls are no-ops. After any `&mut self` method returns, its readiness covers all
/// pending work, timers included. [`driving`](crate::driving) has the details, for each kind of loop.
///
/// ```
/// use std::time::Duration;
/// use cgroup_reaper::{Outcome, Reactor, Reaper};
///
/// # fn main() -> std::io::Result<()> {
/// # let Some(dir) = doc_cgroup()? else { return Ok(()) };
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.spawn_reaper(Reaper::at(&dir)).expect("a cgroup, and not ours");
/// let reaped = reactor.run_until(&handle)?.expect("no member holds it up");
/// assert_eq!(reaped.outcome, Outcome::Removed);
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
    timer: TimerFd,
    /// The tick that the timer is set to.
    armed: Option<u64>,
    entries: Entries<Linux>,
    queue: Arc<Queue>,
    helper: Helper,
    /// The kernel may hold notifications that the last call did not take: it took as many as it can, or none because it
    /// continued a turn.
    more_events: bool,
    /// What the caller has set.
    turn_budget: Option<Duration>,
    /// Facilities that the kernel is to be without, in tests.
    absent: &'static [Facility],
    stopped: bool,
    /// The completions that the last turn has counted.
    counted: u64,
    /// In [`Reactor::run`] and the like: it waits for reaps, not for the caller to take those that have ended.
    is_running: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl Reactor {
    /// Makes a reactor.
    ///
    /// It holds three descriptors (epoll, timerfd, eventfd), from the first spawn on a few more that tell the caller's
    /// own cgroups and address targets, and those that reaps under way need, see [`Metrics::descriptors`]. A forked
    /// child must not use it.
    ///
    /// # Errors
    ///
    /// Those of epoll_create1(2), timerfd_create(2) and eventfd(2), mostly for lack of descriptors.
    pub fn new() -> io::Result<Reactor> {
        Reactor::without(&[])
    }

    /// Makes a reactor to which the kernel seems to lack these facilities. For this crate's own tests.
    #[doc(hidden)]
    pub fn without(absent: &'static [Facility]) -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let raw = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&raw), TIMER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let budget = Budget::of_process(Facility::HeldDirectories.check(absent).is_ok());
        let sys = Linux::without(absent);
        let resolver = Resolver::new(sys.clone(), budget);
        resolver.renew_limit();
        let queue = Arc::new(Queue::new(waker));
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            armed: None,
            entries: Entries::new(resolver),
            helper: Helper::new(sys, Arc::clone(&queue), absent),
            queue,
            more_events: false,
            turn_budget: None,
            absent,
            stopped: false,
            counted: 0,
            is_running: false,
            not_sync: PhantomData,
        })
    }

    /// Sets how long one call of [`turn`](Reactor::turn) or [`spawn_reaper`](Reactor::spawn_reaper) works before it defers
    /// the rest to the next turn, in time on the clock. By default 1 ms.
    ///
    /// `Duration::MAX` means without limit, `Duration::ZERO` one step of work in each call. What is deferred makes the
    /// descriptor readable. A call works longer than the budget by one step at most; see
    /// [`limitations`](crate::limitations#calls-that-cannot-be-cut) for the steps that take long in large targets.
    ///
    /// [`run`](Reactor::run), [`run_until_idle`](Reactor::run_until_idle) and [`run_until`](Reactor::run_until) go by the
    /// budget only if this was called: in them no other work waits.
    pub fn set_turn_budget(&mut self, budget: Duration) {
        self.turn_budget = Some(budget);
    }

    /// Has a thread of the reactor's own make the writes to `cgroup.kill` that reach 200 members or more (cgroup v2).
    ///
    /// Such a write cannot be cut. It takes 6 µs of CPU for each member, and several times as long on the clock, because the
    /// kernel lets the members run as they are killed. By default a cgroup with so many members is signalled in steps where
    /// the kernel allows that (Linux 6.18), and otherwise the spawn or the turn makes the write; see
    /// [`limitations`](crate::limitations#calls-that-cannot-be-cut). A thread takes half the CPU time of the steps or less.
    ///
    /// The spawn of a target with so many members then returns before they are killed. The thread is started at the first
    /// need, further ones while it is busy, up to four; they end with the reactor. Where none can be started, or all are
    /// busy, the write is made as by default. A thread takes no signals of the process. [`Metrics`] count what it does; see
    /// [`limitations`](crate::limitations#helper-threads) for calls that never return.
    ///
    /// [`Reaper::release_memory`] starts such threads by itself, whatever was set here.
    pub fn set_helper_thread(&mut self, wanted: bool) {
        self.entries.helper_from = wanted.then_some(MANY);
    }

    /// Starts a reap. Before this returns, the target is checked and identified, and the first attempt to kill is made.
    /// In a large target that attempt may go on after it, see [`set_turn_budget`](Reactor::set_turn_budget). The rest is
    /// done by [`turn`](Reactor::turn). The reap may be complete when this returns.
    ///
    /// # Errors
    ///
    /// A target that is unsafe or no cgroup is refused, see [`Refusal`](crate::Refusal). Nothing was touched then, and
    /// the error hands the [`Reaper`] back. A target that does not exist is no error: its reap completes as
    /// [`Outcome::AlreadyGone`](crate::Outcome::AlreadyGone).
    pub fn spawn_reaper(&mut self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        self.entries.limit(budget(self.turn_budget.unwrap_or(TURN_BUDGET)));
        let (target, findings) = match self.entries.resolver.resolve(&reaper) {
            Ok(resolved) => resolved,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(target.shared_path(), &self.queue);
        let working = Working(self);
        let Reactor { poll, absent, queue, helper, stopped, entries, .. } = &mut *working.0;
        let host = Surroundings::of(poll, absent, queue, helper, stopped);
        entries.spawn(Spawn { reaper, target, findings, completer }, &host);
        drop(working);
        Ok(handle)
    }

    /// Makes a guard that has this reactor reap a cgroup when it is dropped. The target is checked and identified now, and
    /// nothing is touched before the drop.
    ///
    /// # Errors
    ///
    /// As [`spawn_reaper`](Reactor::spawn_reaper), and [`Refusal::NoSuchDirectory`](crate::Refusal::NoSuchDirectory) for a
    /// target that does not exist: make the guard after the cgroup.
    pub fn guard(&self, reaper: Reaper) -> Result<ReapGuard, SpawnError> {
        ReapGuard::new(reaper, &self.entries.resolver, &self.queue)
    }

    /// Waits up to `max_wait` for something to do (`None`: without limit), does it, and returns how many reaps
    /// completed since the last turn returned, in spawns and in this turn.
    ///
    /// It does not wait as long as there are reaps to be taken from [`drain_completed`](Reactor::drain_completed).
    ///
    /// It works in this order: notifications from the kernel, commands from other threads, timers that are due, and
    /// work that the last turn deferred. Each is bounded, and all of it by
    /// [`set_turn_budget`](Reactor::set_turn_budget). What is left makes the descriptor readable again; the next call
    /// continues with it and does not wait.
    ///
    /// It may return 0 before `max_wait`, for instance on a signal: an interrupted wait is no error. An extra call with
    /// zero is a no-op. With `None`, on a reactor without reaps, it sleeps until a [`Remote`] is used.
    ///
    /// # Errors
    ///
    /// Those of epoll_wait(2), except EINTR. The reaps are not affected; call again.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<usize> {
        self.turn_within(max_wait, self.turn_budget.unwrap_or(TURN_BUDGET))
    }

    fn turn_within(&mut self, max_wait: Option<Duration>, turn_budget: Duration) -> io::Result<usize> {
        let mut worked = self.entries.has_deferred();
        if self.entries.is_in_turn() {
            self.more_events = true;
        } else {
            let max_wait = if self.has_undrained() { Some(Duration::ZERO) } else { max_wait };
            let timeout = max_wait.map(|wait| wait.min(LONGEST));
            self.entries.metrics.calls.epoll_wait += 1;
            match self.poll.poll(&mut self.events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
                Err(error) => return Err(error),
            }
            let mut taken = 0;
            for event in &self.events {
                taken += 1;
                // The timer is registered edge-triggered and set anew after each expiry: no need to read it.
                if event.token() == TIMER {
                    self.armed = None;
                }
            }
            worked |= taken > 0;
            self.more_events = taken >= EVENTS;
            // The timer and the waker are no entries: the wheel and the queue of commands say what there is.
            let entries = self.events.iter().map(|event| event.token());
            let entries = entries.filter(|token| !matches!(*token, TIMER | WAKER));
            self.entries.begin_turn(entries.filter_map(|token| EntryId::from_token(token.0)));
        }
        self.entries.limit(budget(turn_budget));
        {
            let turning = Turning(self);
            let Reactor { poll, absent, queue, helper, stopped, entries, .. } = &mut *turning.0;
            let mut host = Surroundings::of(poll, absent, queue, helper, stopped);
            while entries.advance(&mut host) {
                worked = true;
                if entries.is_out_of_time() {
                    break;
                }
            }
        }
        let metrics = &mut self.entries.metrics;
        metrics.wakeups += u64::from(worked);
        let completed = metrics.completed - std::mem::replace(&mut self.counted, metrics.completed);
        Ok(completed as usize)
    }

    /// Turns as long as there is a reason to go on.
    fn run_while(&mut self, go_on: impl Fn(&mut Reactor) -> bool) -> io::Result<()> {
        self.running(|reactor| {
            while go_on(reactor) {
                reactor.turn_of_run()?;
            }
            Ok(())
        })
    }

    /// One turn of a run.
    fn turn_of_run(&mut self) -> io::Result<usize> {
        self.turn_within(None, self.turn_budget.unwrap_or(Duration::MAX))
    }

    /// Runs what waits for reaps itself.
    fn running<T>(&mut self, run: impl FnOnce(&mut Reactor) -> T) -> T {
        self.is_running = true;
        run(&mut *Running(self).0)
    }

    /// Runs until [`Remote::stop`] is called, whether or not reaps are left: those go on in the next turn. If it was called
    /// since the last `run` returned, this returns at once.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run(&mut self) -> io::Result<()> {
        self.run_while(|reactor| !std::mem::take(&mut reactor.stopped))
    }

    /// Runs until no reap is left, including those that a [`Remote`] has handed over. [`Remote::stop`] does not end it; the
    /// next [`run`](Reactor::run) returns at once then.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run_until_idle(&mut self) -> io::Result<()> {
        self.run_while(|reactor| !reactor.is_empty() || !reactor.queue.is_empty())
    }

    /// Cancels all reaps, those included that a [`Remote`] hands over meanwhile, and runs until none is left or this time is
    /// over. Returns how many are still under way: 0, unless the time was too short, or something stays frozen that cannot
    /// be thawed.
    ///
    /// `Duration::ZERO` makes one turn, which cancels 256 reaps at the most.
    ///
    /// For the end of a program, before the reactor is dropped: the reaps end as
    /// [`ReapError::Cancelled`], with nothing left frozen, or with their results if they end
    /// first. Dropping the reactor does the same, but makes three attempts to thaw at once, and does not wait.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn shutdown(&mut self, at_most: Duration) -> io::Result<usize> {
        let end = Instant::now().checked_add(at_most);
        let left = || end.map_or(LONGEST, |end| end.saturating_duration_since(Instant::now()));
        self.running(|reactor| {
            while reactor.cancel_all() > 0 {
                let left = left();
                reactor.turn_within(Some(left), Duration::MAX)?;
                if left.is_zero() {
                    break;
                }
            }
            Ok(reactor.len())
        })
    }

    /// Runs until the reap of `handle` is complete, and returns its result, which the handle keeps too. On the thread that
    /// drives the reactor, this is the way to wait for one. Other reaps make progress meanwhile. [`Remote::stop`] does not
    /// end it; the next [`run`](Reactor::run) returns at once then.
    ///
    /// # Errors
    ///
    /// The outer ones are those of [`turn`](Reactor::turn), and `InvalidInput` for a handle of another reactor. The inner
    /// one is the reap's own.
    pub fn run_until(&mut self, handle: &ReapHandle) -> io::Result<Result<Reaped, ReapError>> {
        if !handle.is_of(&self.queue) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a handle of another reactor"));
        }
        self.running(|reactor| {
            loop {
                if let Some(result) = handle.try_wait() {
                    return Ok(result);
                }
                reactor.turn_of_run()?;
            }
        })
    }

    /// Yields the reaps with a [`tag`](Reaper::tag) that have ended, in the order in which they ended: those that ended in a
    /// turn, in a spawn, or after a cancel. Each is yielded once. Reaps without a tag are not among them.
    ///
    /// Until it has yielded the last, the descriptor is readable, and [`turn`](Reactor::turn) does not wait. If the iterator
    /// is dropped before, the rest stays for the next call.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let mut reactor = cgroup_reaper::Reactor::new()?;
    /// // Where the loop calls `turn`:
    /// reactor.turn(Some(std::time::Duration::ZERO))?;
    /// for ended in reactor.drain_completed() {
    ///     println!("job {}: {:?}", ended.tag, ended.result);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain_completed(&mut self) -> impl Iterator<Item = Completed> {
        Drain(self)
    }

    /// Asks all reaps that have this [`tag`](Reaper::tag) to stop, as [`ReapHandle::cancel`] does; also those that a
    /// [`Remote`] has handed over, and that have not begun. Returns how many there are. The reap of a [`ReapGuard`] is none
    /// before the guard is dropped.
    pub fn cancel(&mut self, tag: u64) -> usize {
        self.ask(|other| other == Some(tag), Asked::Cancel)
    }

    /// Asks all reaps that have this [`tag`](Reaper::tag) to send SIGKILL now, as [`ReapHandle::kill_now`] does; also those
    /// that a [`Remote`] has handed over, and that have not begun. Returns how many there are.
    pub fn kill_now(&mut self, tag: u64) -> usize {
        self.ask(|other| other == Some(tag), Asked::KillNow)
    }

    /// Asks all reaps to stop. Returns how many there are.
    pub(crate) fn cancel_all(&mut self) -> usize {
        self.ask(|_| true, Asked::Cancel)
    }

    /// Whether [`Remote::stop`] was called, and no run has ended by it.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn ask(&mut self, fits: impl Fn(Option<u64>) -> bool, what: Asked) -> usize {
        let queued = self.queue.ask(&fits, what);
        let under_way = self.entries.ask(fits, what, |command| {
            // It is open as long as the reactor lives.
            let _ = self.queue.push(command);
        });
        queued + under_way
    }

    /// Iterates over the reaps under way, in no particular order: what to look at when one does not end. Those that a
    /// [`Remote`] has handed over, and that have not begun, are not among them.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # let reactor = cgroup_reaper::Reactor::new()?;
    /// for reap in reactor.pending() {
    ///     let path = reap.path.display();
    ///     print!("{path}: {} for {:?}, attempts: {}", reap.phase, reap.since.elapsed(), reap.attempts);
    ///     match reap.last_error {
    ///         Some(error) => println!(", {error}"),
    ///         None => println!(),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pending(&self) -> impl Iterator<Item = Pending<'_>> {
        self.entries.pending()
    }

    /// Returns when the next timer is due; `None` if there is none. For loops that plan ahead: the descriptor covers
    /// timers by itself. Every `&mut self` method may change it.
    pub fn next_deadline(&self) -> Option<Instant> {
        let left = if self.is_due_at_once() { Duration::ZERO } else { self.until(self.entries.next_tick()?) };
        Instant::now().checked_add(left)
    }

    /// Returns a [`Remote`], by which other threads spawn reaps on this reactor.
    pub fn remote(&self) -> Remote {
        Remote { queue: Arc::clone(&self.queue), resolver: self.entries.resolver.clone() }
    }

    /// Returns the number of reaps under way.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no reap is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the counters of what was done so far.
    pub fn metrics(&self) -> Metrics {
        let Resolver { sys, budget, .. } = &self.entries.resolver;
        let mut metrics = self.entries.metrics.clone();
        self.helper.count(&mut metrics);
        let Calls { epoll_ctl, epoll_wait, timerfd_settime, .. } = metrics.calls;
        Metrics {
            descriptors: budget.used() as u64,
            calls: Calls { epoll_ctl, epoll_wait, timerfd_settime, ..sys.calls() },
            ..metrics
        }
    }

    /// Sets the timer so that the descriptor's readiness covers whatever is pending.
    fn arm(&mut self) {
        let next = if self.is_due_at_once() { Some(0) } else { self.entries.next_tick() };
        let result = match (next, self.armed) {
            (None, None) => return,
            (None, Some(armed)) if armed > 0 && self.until(armed) <= SOON => return,
            (None, Some(_)) => {
                self.entries.metrics.calls.timerfd_settime += 1;
                self.timer.unset()
            }
            (Some(next), Some(armed)) if armed == next => return,
            // A timer that is set too early may stay: the turn it causes finds nothing due and sets it again. A timer
            // that has expired already is set again now.
            (Some(next), Some(armed)) if armed < next && !self.until(armed).is_zero() => return,
            (Some(next), _) => {
                self.entries.metrics.calls.timerfd_settime += 1;
                // 1 ns is the shortest: zero would turn it off.
                let left = self.until(next).clamp(Duration::from_nanos(1), LONGEST);
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

    /// Whether the next turn has something to do although no descriptor is readable.
    fn is_due_at_once(&self) -> bool {
        self.more_events || self.entries.has_deferred() || self.has_undrained()
    }

    /// Whether the caller is to be told that reaps have ended.
    fn has_undrained(&self) -> bool {
        !self.is_running && self.entries.has_completed()
    }

    /// How long it is until a tick of the entries' timers.
    fn until(&self, tick: u64) -> Duration {
        Duration::from_millis(tick).saturating_sub(self.entries.resolver.sys.now())
    }
}

/// `Duration::MAX` is no limit.
fn budget(budget: Duration) -> Option<Duration> {
    (budget < Duration::MAX).then_some(budget)
}

/// The work of a spawn. When it is over, also by a panic of a logger, the descriptor tells of what is left.
struct Working<'a>(&'a mut Reactor);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.arm();
    }
}

/// The work of a turn. When it is over, also by a panic of a waker, the descriptor tells of what is left.
struct Turning<'a>(&'a mut Reactor);

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        if self.0.is_due_at_once() {
            // Work that is left makes no new edge for an edge-triggered outer loop. Setting the timer again does.
            self.0.armed = None;
        }
        self.0.arm();
    }
}

/// A run. When it is over, also by a panic of a waker, there may be reaps to be taken.
struct Running<'a>(&'a mut Reactor);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running = false;
        self.0.arm();
    }
}

/// Takes the reaps that have ended out of a reactor.
struct Drain<'a>(&'a mut Reactor);

impl Iterator for Drain<'_> {
    type Item = Completed;

    fn next(&mut self) -> Option<Completed> {
        self.0.entries.take_completed()
    }
}

impl Drop for Drain<'_> {
    /// Nothing is left, and the timer need not fire for it; or something is, and an edge-triggered loop hears of it again.
    fn drop(&mut self) {
        if self.0.has_undrained() {
            self.0.armed = None;
        }
        self.0.arm();
    }
}

/// The reactor around the entries, while they work.
struct Surroundings<'a> {
    registry: &'a Registry,
    absent: &'static [Facility],
    queue: &'a Queue,
    helper: &'a Helper,
    stopped: &'a mut bool,
}

impl<'a> Surroundings<'a> {
    fn of(
        poll: &'a Poll,
        absent: &'static [Facility],
        queue: &'a Queue,
        helper: &'a Helper,
        stopped: &'a mut bool,
    ) -> Surroundings<'a> {
        Surroundings { registry: poll.registry(), absent, queue, helper, stopped }
    }
}

impl Host<Linux> for Surroundings<'_> {
    /// The descriptor leaves the poll when it is closed, epoll(7).
    fn watch(&self, fd: &OwnedFd, id: EntryId, notice: Notice) -> io::Result<()> {
        Facility::Watches.check(self.absent)?;
        let interest = match notice {
            Notice::Events => Interest::PRIORITY,
            Notice::Exit => Interest::READABLE,
        };
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(id.token()), interest)
    }

    fn next_command(&mut self) -> Option<Command<Linux>> {
        self.queue.pop()
    }

    fn stop(&mut self) {
        *self.stopped = true;
    }

    fn help(&self, id: EntryId, job: Job<Linux>) -> Result<(), Job<Linux>> {
        self.helper.submit(id, job)
    }
}

impl AsFd for Reactor {
    /// Returns the descriptor that is readable when there is something to do. Call `turn(Some(Duration::ZERO))` then.
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
    /// Completes the reaps that are left as [`ReapError::Disconnected`]: those in the
    /// queue here, those under way when the entries are dropped. Nothing is left frozen.
    fn drop(&mut self) {
        drop(self.queue.close());
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("len", &self.len())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
