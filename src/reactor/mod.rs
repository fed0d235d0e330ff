//! [`Reactor`]: the loop. It has a poll that wakes the entries, a timer for their wheel, and a queue of commands from other
//! threads.

mod alarm;
mod completions;
mod run;
mod surroundings;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use self::alarm::Alarm;
use self::surroundings::Surroundings;
use crate::cgroup::{Budget, MANY, Resolver};
use crate::entries::{Entries, Spawn};
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::guard::ReapGuard;
use crate::handle::{self, Asked, ReapHandle};
use crate::helper::Helper;
use crate::metrics::{Calls, Metrics};
#[allow(unused_imports, reason = "for links")]
use crate::outcome::ReapError;
use crate::outcome::{Pending, SpawnError};
use crate::reaper::Reaper;
use crate::remote::{Queue, Remote};
use crate::sys::{self, Linux, Sys};

/// Notifications taken from the kernel in one turn.
const EVENTS: usize = 256;

/// How long a turn or a spawn works by default before it defers the rest.
const TURN_BUDGET: Duration = Duration::from_millis(1);

/// Longest sleep in one turn and in the kernel's timer: neither is safe with every `Duration`. Longer waits take several.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A single-threaded event loop that reaps cgroups.
///
/// It works while one of its methods runs. It starts threads only for [`Reaper::release_memory`] and
/// [`set_helper_thread`](Reactor::set_helper_thread). `Send`, but not `Sync`: other threads use a [`Remote`].
///
/// # Driving it
///
/// On its own: [`run`](Reactor::run), [`run_until_idle`](Reactor::run_until_idle), [`run_until`](Reactor::run_until). In
/// another event loop: the reactor is one descriptor ([`AsFd`]). When it is readable, call `turn(Some(Duration::ZERO))`.
/// Extra calls are no-ops. After any `&mut self` method returns, the descriptor's readiness covers all pending work, timers
/// included. [`driving`](crate::driving) has the details, for each kind of loop.
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
    alarm: Alarm,
    entries: Entries<Linux>,
    queue: Arc<Queue>,
    helper: Helper,
    /// The kernel may hold notifications that the last call of `turn` did not take: that call took [`EVENTS`], or continued a
    /// turn.
    more_events: bool,
    /// The budget that the caller has set.
    turn_budget: Option<Duration>,
    /// Facilities that the kernel is to be without, in tests.
    absent: &'static [Facility],
    stopped: bool,
    /// The value of [`Metrics::completed`] when the last turn returned.
    counted: u64,
    /// Set in [`Reactor::run`] and the like: their turns wait for reaps, also while completions are undrained.
    is_running: bool,
    not_sync: PhantomData<Cell<()>>,
}

impl Reactor {
    /// Makes a reactor.
    ///
    /// It holds three descriptors (epoll, timerfd, eventfd). From the first spawn on it holds a few more, to find the
    /// caller's own cgroups and to address targets, and the descriptors that reaps under way need, see
    /// [`Metrics::descriptors`]. A forked child must not use it.
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
        let alarm = Alarm::new(poll.registry())?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let budget = Budget::of_process(Facility::HeldDirectories.check(absent).is_ok());
        let sys = Linux::without(absent);
        let resolver = Resolver::new(sys.clone(), budget);
        resolver.renew_limit();
        let queue = Arc::new(Queue::new(waker));
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS),
            alarm,
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
    /// the rest to the next turn, in wall-clock time. Default: 1 ms.
    ///
    /// `Duration::MAX` means without limit, `Duration::ZERO` one step of work in each call. Deferred work makes the
    /// descriptor readable. A call exceeds the budget by one step at most; see
    /// [`limitations`](crate::limitations#calls-that-cannot-be-cut) for the steps that take long in large targets.
    ///
    /// [`run`](Reactor::run), [`run_until_idle`](Reactor::run_until_idle) and [`run_until`](Reactor::run_until) keep to a
    /// budget only if this was called, because no other work waits for them. [`shutdown`](Reactor::shutdown) keeps to none.
    pub fn set_turn_budget(&mut self, budget: Duration) {
        self.turn_budget = Some(budget);
    }

    /// Sets whether a thread of the reactor's own makes the calls that cannot be cut: the writes to `cgroup.kill` of a
    /// v2 cgroup whose own members and direct child cgroups are together 200 or more, and rmdir(2). Default: false.
    ///
    /// Such a write takes 6 µs of CPU for each member, and several times as long on the clock, because the
    /// kernel lets the members run as they are killed. By default the members of such a cgroup are signalled in steps if the
    /// kernel allows that (Linux 6.13) and there are no cgroups below it. Otherwise the spawn or the turn makes the write; see
    /// [`limitations`](crate::limitations#calls-that-cannot-be-cut). A thread takes half the CPU time of the steps or less.
    ///
    /// rmdir(2) is short, but waits while another process reads the parent directory, and that can hang. A reap whose
    /// removal does not return holds up other reaps only if the kernel has to look up their names in that directory;
    /// see [`limitations`](crate::limitations#calls-that-cannot-be-cut). A deadline, a cancel and a drop of the reactor
    /// do not wait for a call that a thread has begun: members may be killed, and the directory may be removed, after
    /// them.
    ///
    /// The spawn of a target with so many members then returns before they are killed. A thread is started when it is first
    /// needed, and further threads while it is busy, up to four; they end with the reactor. If no thread can be
    /// started, the spawn or the turn makes the write and the rmdir(2) itself. If all threads are busy, it makes the write
    /// itself, and removals wait. A thread takes no signals that are sent to the process. [`Metrics`] counts the jobs; see
    /// [`limitations`](crate::limitations#helper-threads) for calls that never return.
    ///
    /// [`Reaper::release_memory`] starts such threads by itself, whatever was set here.
    pub fn set_helper_thread(&mut self, wanted: bool) {
        self.entries.helper_from = wanted.then_some(MANY);
    }

    /// Starts a reap. Before this returns, the target is checked and identified, and the first attempt to kill is made. In a
    /// large target the check and the attempt may go on in later turns, see [`set_turn_budget`](Reactor::set_turn_budget).
    /// [`turn`](Reactor::turn) does the rest. The reap may be complete when this returns.
    ///
    /// # Errors
    ///
    /// A target that is unsafe or no cgroup is refused, see [`Refusal`](crate::Refusal). Nothing was touched then, and
    /// the error hands the [`Reaper`] back. A target that does not exist is no error: its reap completes as
    /// [`Outcome::AlreadyGone`](crate::Outcome::AlreadyGone).
    ///
    /// The search for the caller may take too long in a v1 target of 64 cgroups or more. The next turns continue the search
    /// then, before anything else: if the caller is inside, the reap ends as [`ReapError::Refused`], and nothing was touched.
    pub fn spawn_reaper(&mut self, reaper: Reaper) -> Result<ReapHandle, SpawnError> {
        let limit = self.entries.limit(budget(self.turn_budget.unwrap_or(TURN_BUDGET)));
        let (target, findings) = match self.entries.resolver.resolve(&reaper, limit) {
            Ok(resolved) => resolved,
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(target.shared_path(), &self.queue);
        let working = Working(self);
        let (entries, host) = working.0.parts();
        entries.spawn(Spawn { reaper, target, findings, completer }, &host);
        drop(working);
        Ok(handle)
    }

    /// Makes a guard: when it is dropped, this reactor reaps the cgroup. The target is checked and identified now, and
    /// nothing is touched before the drop. The checks can take as long as those of [`Remote::spawn_reaper`], whatever the turn
    /// budget is.
    ///
    /// # Errors
    ///
    /// As [`spawn_reaper`](Reactor::spawn_reaper), and [`Refusal::NoSuchDirectory`](crate::Refusal::NoSuchDirectory) for a
    /// target that does not exist: make the guard after the cgroup.
    pub fn guard(&self, reaper: Reaper) -> Result<ReapGuard, SpawnError> {
        ReapGuard::new(reaper, &self.entries.resolver, &self.queue)
    }

    /// Waits up to `max_wait` for work (`None`: without limit), does the work, and returns how many reaps completed since the
    /// last turn returned, in spawns and in this turn.
    ///
    /// It does not wait if a reap has completed in a spawn since the last turn, or while
    /// [`drain_completed`](Reactor::drain_completed) has reaps to yield.
    ///
    /// It works in this order: notifications from the kernel, commands from other threads, timers that are due, and work that
    /// the last turn deferred. Each of these is bounded, and all together by [`set_turn_budget`](Reactor::set_turn_budget).
    /// Work that is left makes the descriptor readable again; the next call continues with it and does not wait.
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
            let max_wait = if self.has_ended_reaps() { Some(Duration::ZERO) } else { max_wait };
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
                if event.token() == TIMER {
                    self.alarm.forget();
                }
            }
            worked |= taken > 0;
            self.more_events = taken >= EVENTS;
            // The timer and the waker are not entries. The wheel tells which timers are due, and the queue has the commands.
            let entries = self.events.iter().map(|event| event.token());
            let entries = entries.filter(|token| !matches!(*token, TIMER | WAKER));
            self.entries.begin_turn(entries.filter_map(|token| EntryId::from_token(token.0)));
        }
        self.entries.limit(budget(turn_budget));
        {
            let turning = Turning(self);
            let (entries, mut host) = turning.0.parts();
            while entries.advance(&mut host) {
                worked = true;
                if entries.is_out_of_time() {
                    break;
                }
            }
        }
        self.entries.metrics.wakeups += u64::from(worked);
        Ok(self.count_ended() as usize)
    }

    /// Asks all reaps that have this [`tag`](Reaper::tag) to stop, as [`ReapHandle::cancel`] does; also reaps that a
    /// [`Remote`] has handed over, and that have not begun. Returns the number of these reaps. A [`ReapGuard`] has no reap
    /// before it is dropped.
    pub fn cancel(&mut self, tag: u64) -> usize {
        self.ask(|other| other == Some(tag), Asked::Cancel)
    }

    /// Asks all reaps that have this [`tag`](Reaper::tag) to send SIGKILL now, as [`ReapHandle::kill_now`] does; also reaps
    /// that a [`Remote`] has handed over, and that have not begun. Returns the number of these reaps.
    pub fn kill_now(&mut self, tag: u64) -> usize {
        self.ask(|other| other == Some(tag), Asked::KillNow)
    }

    /// Asks all reaps to stop. Returns their number.
    pub(crate) fn cancel_all(&mut self) -> usize {
        self.ask(|_| true, Asked::Cancel)
    }

    /// Whether [`Remote::stop`] was called, and no [`Reactor::run`] has returned for it yet.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn ask(&mut self, fits: impl Fn(Option<u64>) -> bool, what: Asked) -> usize {
        let queued = self.queue.ask(&fits, what);
        let under_way = self.entries.ask(fits, what, |command| {
            // The queue is open as long as the reactor lives.
            let _ = self.queue.push(command);
        });
        queued + under_way
    }

    /// Iterates over the reaps under way, in no particular order, for instance to see why one does not end. Reaps that a
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

    /// Returns when the next timer is due: now if there is deferred work or a completion that was not drained, `None` if there
    /// is nothing of these. Notifications of the kernel and commands of other threads are not included. For loops that plan
    /// ahead: the descriptor covers all of them. Every `&mut self` method may change it.
    pub fn next_deadline(&self) -> Option<Instant> {
        let left = if self.is_due_at_once() {
            Duration::ZERO
        } else {
            until(self.entries.next_tick()?, &self.entries)
        };
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

    /// Returns the reactor's counters.
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

    /// Splits the reactor into its entries and the parts that they use.
    fn parts(&mut self) -> (&mut Entries<Linux>, Surroundings<'_>) {
        let Reactor { poll, absent, queue, helper, stopped, entries, .. } = self;
        (entries, Surroundings { registry: poll.registry(), absent, queue, helper, stopped })
    }

    /// Sets the alarm so that the descriptor's readiness covers whatever is pending.
    fn arm(&mut self) {
        let next = if self.is_due_at_once() { Some(0) } else { self.entries.next_tick() };
        let Reactor { alarm, entries, .. } = self;
        let was_set = alarm.set(next, |tick| until(tick, entries));
        entries.metrics.calls.timerfd_settime += u64::from(was_set);
    }

    /// Does the same, but makes a new edge if work is left: an edge-triggered outer loop is then notified again.
    fn rearm(&mut self) {
        if self.is_due_at_once() {
            self.alarm.forget();
        }
        self.arm();
    }

    /// Whether the next turn has work although no descriptor in the poll is readable.
    fn is_due_at_once(&self) -> bool {
        self.more_events || self.entries.has_deferred() || self.has_undrained()
    }
}

/// Returns the time until a tick of the entries' timers.
fn until(tick: u64, entries: &Entries<Linux>) -> Duration {
    Duration::from_millis(tick).saturating_sub(entries.resolver.sys.now())
}

/// `Duration::MAX` means no limit.
fn budget(budget: Duration) -> Option<Duration> {
    (budget < Duration::MAX).then_some(budget)
}

/// The work of a spawn. When it ends, also by a logger's panic, the alarm is set for the work that is left.
struct Working<'a>(&'a mut Reactor);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.arm();
    }
}

/// The work of a turn. When it ends, also by a waker's panic, the alarm is set for the work that is left.
struct Turning<'a>(&'a mut Reactor);

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.0.rearm();
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
    /// Thaws all targets, and completes all reaps as [`ReapError::Disconnected`], those in the queue too.
    fn drop(&mut self) {
        self.entries.end(self.queue.close());
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
