//! [`Reactor`]: the loop. A poll that wakes the entries, a timer for their wheel, and a queue from other
//! threads.

use std::cell::Cell;
use std::collections::VecDeque;
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

use crate::cgroup::{Budget, Notice, Resolver};
use crate::entries::{Command, Entries, Host, Spawn};
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::handle::{self, ReapHandle};
use crate::metrics::{Calls, Metrics};
use crate::outcome::SpawnError;
use crate::reaper::Reaper;
use crate::remote::{Queue, Remote};
use crate::sys::{self, Linux, Sys};

/// Notifications taken from the kernel in one turn.
const EVENTS: usize = 256;

/// Longest sleep in one turn and in the kernel's timer. Longer waits take several, for neither is safe
/// with every value that a `Duration` can have.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A timer that is not needed any more is not disarmed if it fires within this time. This saves a system call at
/// completion.
const SOON: Duration = Duration::from_millis(10);

const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A single-threaded event loop that reaps cgroups.
///
/// It starts no thread: it works while one of its methods runs. `Send`, but not `Sync`; other threads reach it through
/// a [`Remote`].
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
    /// Entries that the turn under way notifies.
    notified: VecDeque<EntryId>,
    timer: TimerFd,
    /// The tick that the timer is set to.
    armed: Option<u64>,
    entries: Entries<Linux>,
    queue: Arc<Queue>,
    /// The last turn took as many notifications as it can, so the kernel may hold more of them.
    full: bool,
    /// Facilities that the kernel is to be without, in tests.
    absent: &'static [Facility],
    stopped: bool,
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
        let resolver = Resolver::new(Linux::without(absent), budget);
        resolver.renew_limit();
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS),
            notified: VecDeque::with_capacity(EVENTS),
            timer,
            armed: None,
            entries: Entries::new(resolver),
            queue: Arc::new(Queue::new(waker)),
            full: false,
            absent,
            stopped: false,
            not_sync: PhantomData,
        })
    }

    /// Starts a reap. Before this returns, the target is checked and identified, and the first attempt to kill is made.
    /// The rest is done by [`turn`](Reactor::turn). The reap may be complete when this returns.
    ///
    /// # Errors
    ///
    /// A target that is unsafe or no cgroup is refused, see [`Refusal`](crate::Refusal). Nothing was touched then, and
    /// the error hands the [`Reaper`] back. A target that does not exist is no error: its reap completes as
    /// [`Outcome::AlreadyGone`](crate::Outcome::AlreadyGone).
    pub fn spawn_reaper(&mut self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        let (target, findings) = match self.entries.resolver.resolve(&reaper) {
            Ok(resolved) => resolved,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(&self.queue);
        self.entries.spawn(
            Spawn { reaper, target, findings, completer },
            &Surroundings::of(&self.poll, self.absent, &self.queue, &mut self.stopped),
        );
        self.arm();
        Ok(handle)
    }

    /// Waits up to `max_wait` for something to do (`None`: without limit), does it, and returns how many reaps
    /// completed.
    ///
    /// It works in this order: notifications from the kernel, commands from other threads, timers that are due, and
    /// work that the last turn deferred. Each is bounded; what is left makes the descriptor readable again.
    ///
    /// It may return 0 before `max_wait`, for instance on a signal: an interrupted wait is no error. An extra call with
    /// zero is a no-op. With `None`, on a reactor without reaps, it sleeps until a [`Remote`] is used.
    ///
    /// # Errors
    ///
    /// Those of epoll_wait(2), except EINTR. The reaps are not affected; call again.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<usize> {
        let timeout = max_wait.map(|wait| wait.min(LONGEST));
        self.entries.metrics.calls.epoll_wait += 1;
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        }
        let completed = self.entries.metrics.completed;
        let mut worked = self.entries.has_deferred();
        let mut notified = std::mem::take(&mut self.notified);
        let mut taken = 0;
        for event in &self.events {
            taken += 1;
            match event.token() {
                // The timer is registered edge-triggered and set anew after each expiry: no need to read it.
                TIMER => self.armed = None,
                // The queue of commands says what there is.
                WAKER => {}
                Token(token) => notified.extend(EntryId::from_token(token)),
            }
        }
        worked |= taken > 0;
        self.full = taken >= EVENTS;

        let mut turn = self.entries.begin_turn(notified);
        let mut host = Surroundings::of(&self.poll, self.absent, &self.queue, &mut self.stopped);
        while self.entries.advance(&mut turn, &mut host) {
            worked = true;
        }
        self.notified = turn.into_notified();
        if self.full {
            // Events that did not fit into this batch make no new edge for an edge-triggered outer loop. Setting the
            // timer again does.
            self.armed = None;
        }
        self.arm();
        let metrics = &mut self.entries.metrics;
        metrics.wakeups += u64::from(worked);
        Ok((metrics.completed - completed) as usize)
    }

    /// Runs until [`Remote::stop`] is called. If it was called since the last run, this returns at once.
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

    /// Runs until no reap is left, including those that a [`Remote`] has handed over. [`Remote::stop`] does not end it.
    ///
    /// # Errors
    ///
    /// As [`turn`](Reactor::turn).
    pub fn run_until_idle(&mut self) -> io::Result<()> {
        while !self.is_empty() || !self.queue.is_empty() {
            self.turn(None)?;
        }
        Ok(())
    }

    /// Runs until the reap of `handle` is complete. On the thread that drives the reactor, this is the way to wait for
    /// one. [`Remote::stop`] does not end it.
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
        let metrics = self.entries.metrics.clone();
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
            (None, Some(armed)) if self.until(armed) <= SOON => return,
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
        self.full || self.entries.has_deferred()
    }

    /// How long it is until a tick of the entries' timers.
    fn until(&self, tick: u64) -> Duration {
        Duration::from_millis(tick).saturating_sub(self.entries.resolver.sys.now())
    }
}

/// The reactor around the entries, while they work.
struct Surroundings<'a> {
    registry: &'a Registry,
    absent: &'static [Facility],
    queue: &'a Queue,
    stopped: &'a mut bool,
}

impl<'a> Surroundings<'a> {
    fn of(
        poll: &'a Poll,
        absent: &'static [Facility],
        queue: &'a Queue,
        stopped: &'a mut bool,
    ) -> Surroundings<'a> {
        Surroundings { registry: poll.registry(), absent, queue, stopped }
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
    /// Completes the reaps that are left as [`ReapError::Disconnected`](crate::ReapError::Disconnected): those in the
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
