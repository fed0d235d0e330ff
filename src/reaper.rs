//! What to reap, and how: [`Reaper`], [`CgroupOptions`], [`KillMethod`], [`Signal`].
//!
//! Plain values. Nothing here reads from the system; a spawn does, and refuses unsafe targets.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::outcome::Refusal;

/// Where named targets are: `root/slice/name` in a hierarchy that is mounted at the root, such as cgroup v2, or
/// `root/<subsystem>/slice/name` for each of several v1 hierarchies.
///
/// ```
/// use cgroup_reaper::{CgroupOptions, Reaper};
///
/// // cgroup v2: /sys/fs/cgroup/batch/task-42
/// let options = CgroupOptions::new("/sys/fs/cgroup").slice("batch");
/// let reaper = Reaper::new(options, "task-42");
///
/// // cgroup v1: /sys/fs/cgroup/freezer/batch/task-42, /sys/fs/cgroup/cpu/batch/task-42, ...
/// let options = CgroupOptions::new("/sys/fs/cgroup")
///     .slice("batch")
///     .subsystems(["freezer", "cpu", "memory"]);
/// let reaper = Reaper::new(options, "task-42");
/// # let _ = reaper;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing by themselves"]
pub struct CgroupOptions {
    pub(crate) root: PathBuf,
    pub(crate) slice: PathBuf,
    /// `None`: the root is the only hierarchy.
    pub(crate) subsystems: Option<Vec<PathBuf>>,
    pub(crate) kill_without_freezer: bool,
}

impl CgroupOptions {
    /// Makes options for the hierarchy mounted at `root`, usually `/sys/fs/cgroup`, or for the hierarchies mounted below it
    /// that [`CgroupOptions::subsystems`] names.
    pub fn new(root: impl Into<PathBuf>) -> CgroupOptions {
        CgroupOptions {
            root: root.into(),
            slice: PathBuf::new(),
            subsystems: None,
            kill_without_freezer: false,
        }
    }

    /// Sets the path between the mount point of each hierarchy and the cgroup's name. Default: none.
    pub fn slice(mut self, slice: impl Into<PathBuf>) -> CgroupOptions {
        self.slice = slice.into();
        self
    }

    /// Sets the hierarchies, by the directories they are mounted on below the root. Default: the root is the hierarchy. An
    /// empty list is refused at the spawn.
    ///
    /// The directories may be co-mounted or symlinked (`cpu,cpuacct`): a directory that is reached twice is reaped once. A
    /// v2 hierarchy may be among them, by the name of its mount point (`unified`).
    pub fn subsystems<I>(mut self, subsystems: I) -> CgroupOptions
    where
        I: IntoIterator,
        I::Item: Into<PathBuf>,
    {
        self.subsystems = Some(subsystems.into_iter().map(Into::into).collect());
        self
    }

    /// Does the same as [`Reaper::kill_without_freezer`], for all targets of these options.
    pub fn kill_without_freezer(mut self) -> CgroupOptions {
        self.kill_without_freezer = true;
        self
    }
}

/// A descriptor of the caller's, shared by the clones of a [`Reaper`].
#[derive(Debug, Clone)]
pub(crate) struct SharedFd(Arc<OwnedFd>);

impl SharedFd {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PartialEq for SharedFd {
    fn eq(&self, other: &SharedFd) -> bool {
        // Both descriptors are open, so equal numbers mean the same descriptor.
        self.0.as_raw_fd() == other.0.as_raw_fd()
    }
}

impl Eq for SharedFd {}

/// How the caller names a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    Dir(PathBuf),
    Fd(SharedFd),
    Named { options: CgroupOptions, name: PathBuf },
}

/// What to reap, and how: a builder that [`Reactor::spawn_reaper`](crate::Reactor::spawn_reaper) consumes.
///
/// Nothing is read or touched before the spawn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a reaper does nothing before it is spawned"]
pub struct Reaper {
    pub(crate) place: Location,
    pub(crate) min_wait: Duration,
    pub(crate) max_wait: Duration,
    pub(crate) freeze_timeout: Duration,
    pub(crate) when_empty: bool,
    pub(crate) linger: Option<Duration>,
    pub(crate) grace: Option<(Signal, Duration)>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) method: KillMethod,
    pub(crate) kill_without_freezer: bool,
    pub(crate) release_memory: bool,
    pub(crate) keep_dir: bool,
    pub(crate) tag: Option<u64>,
}

impl Reaper {
    /// Makes a reaper of the cgroup called `name` in the hierarchy of `options`, or the cgroups of that name in each of its
    /// hierarchies. A name may have several components (`job/step`).
    pub fn new(options: CgroupOptions, name: impl Into<PathBuf>) -> Reaper {
        Reaper::of(Location::Named { options, name: name.into() })
    }

    /// Makes a reaper of the one cgroup directory `dir`, v1 or v2; fstatfs(2) tells which.
    pub fn at(dir: impl Into<PathBuf>) -> Reaper {
        Reaper::of(Location::Dir(dir.into()))
    }

    /// Makes a reaper of the one cgroup directory, v1 or v2, that `dir` is open on; O_PATH is enough. This directory is the
    /// target, even if its path leads to another one by the time of the spawn.
    ///
    /// - A directory that was removed is [`Outcome::AlreadyGone`](crate::Outcome::AlreadyGone) at the spawn, even if
    ///   another one has its name.
    /// - The same targets are refused as with [`Reaper::at`].
    /// - Errors name the directory's path at the spawn, from /proc/self/fd. If /proc does not tell the path, or a mount
    ///   covers the parent directory, the spawn is refused with [`Refusal::Io`]: the removal needs the directory's name.
    ///
    /// The clones of a reaper share the descriptor, and are equal; a reaper with another descriptor of the directory is not
    /// equal. The descriptor is closed with the last clone. A reap does not keep it open, except one that a
    /// [`Remote`](crate::Remote) has handed over, until it begins.
    ///
    /// ```
    /// use std::fs::File;
    /// use cgroup_reaper::{Reaper, reap};
    ///
    /// let dir = File::open("/tmp")?;
    /// let error = reap(Reaper::at_fd(dir.into())).unwrap_err();
    /// assert_eq!(error.to_string(), "/tmp: refused: not a cgroup");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn at_fd(dir: OwnedFd) -> Reaper {
        Reaper::of(Location::Fd(SharedFd(Arc::new(dir))))
    }

    fn of(place: Location) -> Reaper {
        Reaper {
            place,
            min_wait: Duration::from_millis(10),
            max_wait: Duration::from_secs(10),
            freeze_timeout: Duration::from_secs(10),
            when_empty: false,
            linger: None,
            grace: None,
            deadline: None,
            method: KillMethod::Auto,
            kill_without_freezer: false,
            release_memory: false,
            keep_dir: false,
            tag: None,
        }
    }

    /// Sets how long to wait after the first attempt to kill before the next one. Default: 10 ms. The wait grows fourfold
    /// after each attempt that changed nothing, up to [`Reaper::max_wait`], and starts over when members joined or exited.
    /// The wait does not delay completion: when the members exit, the kernel notifies the reactor.
    ///
    /// At least 1 ms, and no more than `max_wait`; else the spawn is refused.
    pub fn min_wait(mut self, wait: Duration) -> Reaper {
        self.min_wait = wait;
        self
    }

    /// Sets the longest wait between two attempts, at least `min_wait`; else the spawn is refused. Default: 10 s.
    pub fn max_wait(mut self, wait: Duration) -> Reaper {
        self.max_wait = wait;
        self
    }

    /// Bounds two waits. Default: 10 s.
    ///
    /// - A freeze of the target that is not complete after this time is given up; after 50 ms if SIGKILL is to be sent and
    ///   pidfds make that safe. The members are sent SIGKILL without a complete freeze, and the target is thawed. The next
    ///   attempt freezes it again.
    /// - A freeze outside the target that has held its members for this long is reported as
    ///   [`ReapError::FrozenByAncestor`](crate::ReapError::FrozenByAncestor). If the target is in the v1 freezer's
    ///   hierarchy, the first attempt finds the freeze. For other targets it is looked for from the fourth attempt on; at
    ///   the longest wait, in every fourth attempt. A freeze that the caller may not undo is reported as
    ///   [`ReapError::Denied`](crate::ReapError::Denied) after this time, and after 850 ms at the earliest.
    pub fn freeze_timeout(mut self, timeout: Duration) -> Reaper {
        self.freeze_timeout = timeout;
        self
    }

    /// Sends no signal: waits until the target is empty by itself, then removes it, or keeps its directories if
    /// [`keep_dir`](Reaper::keep_dir) says so. Nothing is frozen or thawed either. Default: the members are killed.
    ///
    /// - A target without members is removed at once. Where the first member has not joined yet, that is too early: spawn
    ///   the reaper after it has joined, see [`driving`](crate::driving#waiting-before-the-first-signal).
    /// - At the [`deadline`](Reaper::deadline) the reap ends as [`TimedOut`](crate::ReapError::TimedOut), and the members
    ///   live on.
    /// - [`ReapHandle::kill_now`](crate::ReapHandle::kill_now) turns it into a reap that kills.
    ///   [`linger`](Reaper::linger) and [`grace`](Reaper::grace) do not apply.
    /// - The same targets are refused as for a reap that kills. The caller's own cgroup could never become empty.
    ///
    /// On v2 the kernel notifies the reactor when the last member has exited, on v1 when one of the members has. Where no
    /// descriptor is left for that, the target is checked after `min_wait`, then four times as long each time, up to
    /// [`max_wait`](Reaper::max_wait).
    ///
    /// ```no_run
    /// use cgroup_reaper::{Reaper, reap};
    ///
    /// // Returns when the last process of the task has exited.
    /// let reaped = reap(Reaper::at("/sys/fs/cgroup/batch/task-42").when_empty())?;
    /// assert_eq!(reaped.attempts, 0);
    /// # Ok::<(), cgroup_reaper::ReapError>(())
    /// ```
    pub fn when_empty(mut self) -> Reaper {
        self.when_empty = true;
        self
    }

    /// Waits up to `time` for the target to become empty by itself, before the first signal. Meanwhile the members are
    /// neither signalled nor frozen nor thawed, as with [`when_empty`](Reaper::when_empty). Default: none.
    ///
    /// The [`grace`](Reaper::grace) period, if there is one, begins when this time is over.
    /// [`ReapHandle::kill_now`](crate::ReapHandle::kill_now) ends both. A [`deadline`](Reaper::deadline) counts from the
    /// spawn.
    pub fn linger(mut self, time: Duration) -> Reaper {
        self.linger = Some(time);
        self
    }

    /// Sends `signal` to every member first, and SIGKILL to the members that are left after `period`. Stopped members are
    /// continued and frozen members thawed, so that they can act on the signal. Default: SIGKILL at once.
    ///
    /// The period counts from the spawn, or from the end of [`linger`](Reaper::linger). It ends early at
    /// [`ReapHandle::kill_now`](crate::ReapHandle::kill_now).
    pub fn grace(mut self, signal: Signal, period: Duration) -> Reaper {
        self.grace = Some((signal, period));
        self
    }

    /// Ends the reap after this long, counted from the spawn, with [`ReapError::TimedOut`](crate::ReapError::TimedOut). The
    /// deadline cuts the linger and the grace period short: members that have not been sent SIGKILL are sent it at the
    /// deadline, except with [`when_empty`](Reaper::when_empty), and have some 95 ms more to exit. Default: none. Without a
    /// deadline the reap waits until the last process exits, however long it is in uninterruptible sleep.
    pub fn deadline(mut self, deadline: Duration) -> Reaper {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how the members are killed. Default: [`KillMethod::Auto`].
    pub fn method(mut self, method: KillMethod) -> Reaper {
        self.method = method;
        self
    }

    /// Allows pids that were just read to be signalled with kill(2), unverified, where the kernel has no pidfds and the
    /// target is not in the v1 freezer. Default: not allowed, because a pid can be reused before the signal is sent, and
    /// then another process is killed. With pidfds (Linux 5.3) this option changes nothing: signals are verified, and need
    /// no freezer.
    pub fn kill_without_freezer(mut self) -> Reaper {
        self.kill_without_freezer = true;
        self
    }

    /// Releases the memory of members that were sent SIGKILL and cannot exit: those in uninterruptible sleep, or held by a
    /// tracer. The reap still waits until these members exit. Default: their memory is released when they exit.
    ///
    /// After the fourth attempt to kill (210 ms after the first, at the default waits), and each later one,
    /// process_mrelease(2) is called on a pidfd of each member that was sent SIGKILL and still lives. A
    /// thread releases up to 16 members at a time. Among these, those with the most memory come first, as far as /proc tells.
    /// The call releases private memory; shared memory and open files stay. [`Reaped::released`](crate::Reaped::released)
    /// and [`Metrics::released`](crate::Metrics::released) count the processes.
    ///
    /// The call takes some 100 ms for each GB, and can wait for a process for ever, so a helper thread of the reactor makes
    /// it. The thread is started when it is first needed and ends with the reactor; no reap waits for it. Where no thread
    /// can be started, the memory is not released, which [`Metrics::helper_refused`](crate::Metrics::helper_refused)
    /// counts. Without process_mrelease(2) (Linux 5.15) this option does nothing, which is logged once a reactor.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use cgroup_reaper::{Reaper, reap};
    ///
    /// let reaper = Reaper::at("/sys/fs/cgroup/batch/task-42").release_memory().deadline(Duration::from_secs(60));
    /// if let Err(error) = reap(reaper) {
    ///     println!("{error}; memory was released of {}", error.effort().unwrap_or_default().released);
    /// }
    /// ```
    pub fn release_memory(mut self) -> Reaper {
        self.release_memory = true;
        self
    }

    /// Keeps the empty directories; the reap ends as [`Emptied`](crate::Outcome::Emptied). Default: they are removed.
    pub fn keep_dir(mut self) -> Reaper {
        self.keep_dir = true;
        self
    }

    /// The first directory of the target, as it was named; `None` for a descriptor.
    pub(crate) fn named_path(&self) -> Option<PathBuf> {
        match &self.place {
            Location::Dir(dir) => Some(dir.clone()),
            Location::Fd(_) => None,
            Location::Named { options: CgroupOptions { root, slice, subsystems, .. }, name } => {
                let subsystem = subsystems.iter().flatten().next();
                let hierarchy = subsystem.map_or_else(|| root.clone(), |subsystem| root.join(subsystem));
                Some(hierarchy.join(slice).join(name))
            }
        }
    }

    /// Sets a number by which the caller knows the reap, such as a job's number or a key of its own table. Once the reap
    /// has ended, [`Reactor::drain_completed`](crate::Reactor::drain_completed) yields the tag with the result. Default:
    /// none, and only the [`ReapHandle`](crate::ReapHandle) has the result.
    ///
    /// Tags need not be unique: [`Reactor::cancel`](crate::Reactor::cancel) and
    /// [`Reactor::kill_now`](crate::Reactor::kill_now) act on all reaps that have the tag.
    ///
    /// Until the queue is drained, the reactor's descriptor stays readable. So set a tag only where the loop drains it.
    pub fn tag(mut self, tag: u64) -> Reaper {
        self.tag = Some(tag);
        self
    }

    /// Makes the checks that read nothing from the system.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.min_wait < Duration::from_millis(1) || self.min_wait > self.max_wait {
            return Err(Refusal::InvalidWait { min_wait: self.min_wait, max_wait: self.max_wait });
        }
        Ok(())
    }
}

/// How the processes of a target are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KillMethod {
    /// The cheapest safe way first: `cgroup.kill` where the kernel has it and allows it. Else, and for processes that
    /// outlive `cgroup.kill`, verified pidfds. A target that forks faster than it is signalled is frozen, signalled and
    /// thawed.
    #[default]
    Auto,
    /// Only `cgroup.kill` (cgroup v2, Linux 5.14). On most kernels it does not kill a process whose main thread has
    /// exited while other threads live; [`KillMethod::Auto`] signals such a process.
    CgroupKill,
    /// Freeze, kill, thaw: `freezer.state` on v1, `cgroup.freeze` on v2.
    Freezer,
    /// Only verified pidfds; the target is never frozen.
    Pidfd,
}

impl fmt::Display for KillMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KillMethod::Auto => "auto",
            KillMethod::CgroupKill => "cgroup-kill",
            KillMethod::Freezer => "freezer",
            KillMethod::Pidfd => "pidfd",
        })
    }
}

impl FromStr for KillMethod {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<KillMethod, ParseError> {
        match text {
            "auto" => Ok(KillMethod::Auto),
            "cgroup-kill" => Ok(KillMethod::CgroupKill),
            "freezer" => Ok(KillMethod::Freezer),
            "pidfd" => Ok(KillMethod::Pidfd),
            _ => Err(ParseError("one of auto, cgroup-kill, freezer, pidfd")),
        }
    }
}

/// A signal number that can be sent, see signal(7).
///
/// ```
/// use cgroup_reaper::Signal;
///
/// assert_eq!("TERM".parse(), Ok(Signal::TERM));
/// assert_eq!("SIGTERM".parse(), Ok(Signal::TERM));
/// assert_eq!(Signal::new(15), Some(Signal::TERM));
/// assert_eq!(Signal::new(0), None);
/// assert!("RTMIN+3".parse::<Signal>().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

impl Signal {
    /// Abort.
    pub const ABRT: Signal = Signal(libc::SIGABRT as u8);
    /// Hang-up.
    pub const HUP: Signal = Signal(libc::SIGHUP as u8);
    /// Interrupt from the keyboard.
    pub const INT: Signal = Signal(libc::SIGINT as u8);
    /// Quit from the keyboard.
    pub const QUIT: Signal = Signal(libc::SIGQUIT as u8);
    /// Kill: cannot be caught or ignored.
    pub const KILL: Signal = Signal(libc::SIGKILL as u8);
    /// Power failure: lxc's request to an init to shut down.
    pub const PWR: Signal = Signal(libc::SIGPWR as u8);
    /// Termination request.
    pub const TERM: Signal = Signal(libc::SIGTERM as u8);
    /// User-defined.
    pub const USR1: Signal = Signal(libc::SIGUSR1 as u8);
    /// User-defined.
    pub const USR2: Signal = Signal(libc::SIGUSR2 as u8);

    /// Returns the signal of this number; `None` outside 1 to 64.
    pub const fn new(number: i32) -> Option<Signal> {
        if number >= 1 && number <= 64 { Some(Signal(number as u8)) } else { None }
    }

    /// Returns the signal's number.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

/// The signals that have a name here.
const NAMES: [(&str, Signal); 9] = [
    ("ABRT", Signal::ABRT),
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PWR", Signal::PWR),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, signal)| signal == self) {
            Some((name, _)) => f.pad(&format!("SIG{name}")),
            None => f.pad(&format!("signal {}", self.0)),
        }
    }
}

impl FromStr for Signal {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Signal, ParseError> {
        if let Ok(number) = text.parse() {
            return Signal::new(number).ok_or(ParseError("a signal number from 1 to 64"));
        }
        let name = text.strip_prefix("SIG").unwrap_or(text);
        // Some inits shut down when they are sent a real-time signal: systemd at SIGRTMIN+3.
        let real_time = name.strip_prefix("RTMIN+").and_then(|number| number.parse().ok());
        let real_time = real_time.filter(|number| (0..=30).contains(number));
        if let Some(signal) = real_time.and_then(|number| Signal::new(libc::SIGRTMIN() + number)) {
            return Ok(signal);
        }
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, signal)) => Ok(*signal),
            None => Err(ParseError(
                "a signal: ABRT, HUP, INT, KILL, PWR, QUIT, TERM, USR1, USR2, RTMIN+n or a number",
            )),
        }
    }
}

/// The error for a text that is no [`KillMethod`] or [`Signal`]. Its message says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError(&'static str);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for ParseError {}
