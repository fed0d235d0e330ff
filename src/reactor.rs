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
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::cgroup::{Budget, Checks, Notice};
use crate::entries::{Command, Entries, Host, Spawn};
use crate::entry_id::EntryId;
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

/// A timer that nobody needs any more is left to fire if it is about to: the next reap may well do with it, and to
/// unset it would delay the completion that made it needless.
const SOON: Duration = Duration::from_millis(10);

const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

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
    /// Entries that the turn under way notifies.
    notified: VecDeque<EntryId>,
    timer: TimerFd,
    /// The tick that the timer is set to.
    armed: Option<u64>,
    entries: Entries<Linux>,
    queue: Arc<Queue>,
    /// The last turn took as many notifications as it can, so the kernel may hold more of them.
    full: bool,
    stopped: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl Reactor {
    /// Makes a reactor. It holds three descriptors: an epoll, a timerfd and an eventfd; from the first spawn on
    /// up to four more, by which it knows the caller's own cgroups; and those that reaps under way need, see
    /// [`Metrics::descriptors`]. It is not to be used by a forked child.
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
        let budget = Budget::new(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS),
            notified: VecDeque::with_capacity(EVENTS),
            timer,
            armed: None,
            entries: Entries::new(Checks::new(Linux::default(), budget)),
            queue: Arc::new(Queue::new(waker)),
            full: false,
            stopped: false,
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
        let target = match self.entries.checks.resolve(&reaper) {
            Ok(target) => target,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(&self.queue);
        self.entries.spawn(
            Spawn { reaper, target, completer },
            &Surroundings::of(&self.poll, &self.queue, &mut self.stopped),
        );
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
        let mut host = Surroundings::of(&self.poll, &self.queue, &mut self.stopped);
        while self.entries.advance(&mut turn, &mut host) {
            worked = true;
        }
        self.notified = turn.into_notified();
        if self.full {
            // What a full batch left behind, this timer's own expiry perhaps, raises no new edge for an outer
            // loop that is edge-triggered. Setting the timer anew does.
            self.armed = None;
        }
        self.arm();
        let metrics = &mut self.entries.metrics;
        metrics.wakeups += u64::from(worked);
        Ok((metrics.completed - completed) as usize)
    }

    /// Runs until [`Remote::stop`]; not at all if a stop has come since the last run.
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
        while !self.is_empty() || !self.queue.is_empty() {
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
        let left = if self.is_due_at_once() { Duration::ZERO } else { self.until(self.entries.next_tick()?) };
        Instant::now().checked_add(left)
    }

    /// A front for other threads.
    pub fn remote(&self) -> Remote {
        Remote { queue: Arc::clone(&self.queue), checks: self.entries.checks.clone() }
    }

    /// Reaps under way.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was done so far.
    pub fn metrics(&self) -> Metrics {
        let Checks { sys, budget, .. } = &self.entries.checks;
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
            // Set too early is as good: that expiry finds nothing due and sets it right. One that was for nothing
            // already is taken back by setting it anew.
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

    /// Whether the next turn has something to do that no descriptor tells of.
    fn is_due_at_once(&self) -> bool {
        self.full || self.entries.has_deferred()
    }

    /// How long it is until a tick of the entries' timers.
    fn until(&self, tick: u64) -> Duration {
        Duration::from_millis(tick).saturating_sub(self.entries.checks.sys.now())
    }
}

/// The reactor around the entries, while they work.
struct Surroundings<'a> {
    registry: &'a Registry,
    queue: &'a Queue,
    stopped: &'a mut bool,
}

impl<'a> Surroundings<'a> {
    fn of(poll: &'a Poll, queue: &'a Queue, stopped: &'a mut bool) -> Surroundings<'a> {
        Surroundings { registry: poll.registry(), queue, stopped }
    }
}

impl Host<Linux> for Surroundings<'_> {
    /// The descriptor leaves the poll when it is closed, epoll(7).
    fn watch(&self, fd: &OwnedFd, id: EntryId, notice: Notice) -> io::Result<()> {
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
    /// Completes what is left as [`ReapError::Disconnected`](crate::ReapError::Disconnected), those in the
    /// queue here, those under way with their entries. Nothing is left frozen.
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
