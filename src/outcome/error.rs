//! Why a reap failed: [`ReapError`].

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Effort;
use super::refusal::{Refusal, SpawnError};
#[allow(unused_imports, reason = "for links")]
use crate::reaper::{KillMethod, Reaper};

/// Why a reap ended before the target was empty and removed.
///
/// In none of these cases does the library leave anything frozen, with the exceptions that
/// [limitations](crate::limitations#freezing) names.
///
/// # Printing
///
/// A message names the target, the operation and the cause. So [`source`](Error::source) is `None` for all errors of
/// this crate, and code that prints a chain of errors, such as anyhow's `{:#}`, prints the cause once.
/// [`io_error`](ReapError::io_error) returns the cause as a value.
///
/// # In tests
///
/// Tests of a program that handles these errors make them by [`timed_out`](ReapError::timed_out),
/// [`replaced`](ReapError::replaced), [`denied`](ReapError::denied), [`frozen_by_ancestor`](ReapError::frozen_by_ancestor),
/// [`cancelled`](ReapError::cancelled), [`disconnected`](ReapError::disconnected), from a [`SpawnError`], or as
/// `ReapError::Reactor`. The fields that these functions leave empty can be set through a pattern:
///
/// ```
/// use cgroup_reaper::{ReapError, Survivor};
///
/// let mut stuck = Survivor::new(42);
/// stuck.state = Some('D');
/// let mut error = ReapError::timed_out("/sys/fs/cgroup/batch/task-42", vec![stuck]);
/// if let ReapError::TimedOut { effort, .. } = &mut error {
///     effort.attempts = 3;
/// }
/// assert_eq!(error.to_string(), "/sys/fs/cgroup/batch/task-42: not reaped in time: pid 42 state D");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReapError {
    /// [`Reaper::deadline`] has passed. SIGKILL has been sent to every member, also where a [`linger`](Reaper::linger) or
    /// a [`grace`](Reaper::grace) period was not over, unless `source` says why it could not be sent. On v2, `cgroup.kill`
    /// may have sent it all the same. Members that were sent SIGKILL only at the deadline had some 95 ms more to exit. The
    /// survivors exit as soon as the cause that holds them, such as uninterruptible sleep or a tracer, ends.
    ///
    /// A reap [`when_empty`](Reaper::when_empty) has sent no signal, and its members live on.
    #[non_exhaustive]
    TimedOut {
        /// The first directory of the target.
        path: PathBuf,
        /// The members that are still alive, as far as /proc describes them; at most 64. Zombies are not
        /// listed.
        survivors: Vec<Survivor>,
        /// The error that kept the reap from going on when the deadline passed, if there was one.
        source: Option<Arc<io::Error>>,
        /// The operation that failed with `source`. [`Act::Remove`] means that every process is dead.
        act: Option<Act>,
        /// The mount point, or the cgroup inside the target, that keeps the target's directory from being removed, if
        /// one was found.
        in_the_way: Option<Box<Path>>,
        /// What the reap had done by then.
        effort: Effort,
    },
    /// The target's directory is gone, and another cgroup has its name now. That cgroup was not touched. Another
    /// party removed the target before this library had found it empty.
    #[non_exhaustive]
    Replaced {
        /// The first directory of the target.
        target: PathBuf,
        /// The path that leads to another cgroup now.
        path: PathBuf,
        /// What the reap had done by then.
        effort: Effort,
    },
    /// The kernel refused a necessary operation at least five times in a row, for at least 850 ms, while no member
    /// exited: for lack of rights (EACCES, EPERM, EROFS), for lack of a kernel facility that the chosen [`KillMethod`]
    /// requires, or because a member is outside of the caller's pid namespace and `cgroup.kill` cannot be used. ESTALE
    /// means that the target is addressed by its path (see [`crate::limitations`]), and that the path no longer leads
    /// to it, because the target was renamed or a mount hides it.
    #[non_exhaustive]
    Denied {
        /// The first directory of the target.
        target: PathBuf,
        /// The operation that was refused. [`Act::Remove`] means that every process is dead.
        act: Act,
        /// The file, directory or process (`/proc/PID`) on which the operation was refused.
        path: PathBuf,
        /// The kernel's answer.
        source: Arc<io::Error>,
        /// What the reap had done by then.
        effort: Effort,
    },
    /// A freeze outside the target has held its members for longer than [`Reaper::freeze_timeout`]: the freeze of a v1
    /// ancestor, or of a v1 freezer cgroup that also has other members. SIGKILL has been sent. It takes effect when the
    /// owner of that cgroup thaws it.
    #[non_exhaustive]
    FrozenByAncestor {
        /// The first directory of the target.
        target: PathBuf,
        /// The directory of the target that is held frozen.
        path: PathBuf,
        /// The cgroup whose freeze holds it, if that is known.
        frozen_by: Option<PathBuf>,
        /// What the reap had done by then.
        effort: Effort,
    },
    /// The reap was cancelled, by [`ReapHandle::cancel`](crate::ReapHandle::cancel),
    /// [`Reactor::cancel`](crate::Reactor::cancel), [`Reactor::shutdown`](crate::Reactor::shutdown), or the shutdown of a
    /// `TokioReactor`.
    #[non_exhaustive]
    Cancelled {
        /// The first directory of the target.
        path: PathBuf,
        /// What the reap had done by then.
        effort: Effort,
    },
    /// The `Reactor` was dropped before the reap ended.
    #[non_exhaustive]
    Disconnected {
        /// The first directory of the target.
        path: PathBuf,
        /// What the reap had done by then.
        effort: Effort,
    },
    /// The target was refused, and nothing was touched. [`reap`](crate::reap) and [`reap_all`](crate::reap_all) return this
    /// error, and a [`SpawnError`] converts into it. A handle has it only where a step after the spawn found the caller in a
    /// large v1 target, see [`Reactor::spawn_reaper`](crate::Reactor::spawn_reaper).
    #[non_exhaustive]
    Refused {
        /// The first directory of the target, as it was named; `None` for [`Reaper::at_fd`], unless the refusal names it.
        path: Option<PathBuf>,
        /// Why the target was refused.
        refusal: Refusal,
    },
    /// The event loop of [`reap`](crate::reap) or [`reap_all`](crate::reap_all) failed, or a reactor on a 32-bit machine
    /// has as many reaps as it can take.
    Reactor(Arc<io::Error>),
}

impl fmt::Display for ReapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReapError::TimedOut { path, survivors, source, act, in_the_way, .. } => {
                write!(f, "{}: not reaped in time", path.display())?;
                match (source, act) {
                    (Some(source), Some(Act::Remove)) => write!(f, " ({}: {source}", Act::Remove)?,
                    (Some(source), _) => write!(f, " ({source}")?,
                    (None, _) => {}
                }
                if let Some(in_the_way) = in_the_way {
                    write!(f, ", {} is in the way", in_the_way.display())?;
                }
                if source.is_some() {
                    f.write_str(")")?;
                }
                for (i, survivor) in survivors.iter().enumerate() {
                    write!(f, "{}{survivor}", if i == 0 { ": " } else { ", " })?;
                }
                Ok(())
            }
            ReapError::Replaced { path, .. } => {
                write!(f, "{}: another cgroup has this name now; it was not touched", path.display())
            }
            ReapError::Denied { target, act, path, source, .. } => {
                write!(f, "{}: {act}: ", target.display())?;
                match path.strip_prefix("/proc") {
                    Ok(pid) => write!(f, "process {}: ", pid.display())?,
                    Err(_) if path == target => {}
                    Err(_) => write!(f, "{}: ", path.display())?,
                }
                write!(f, "{source}")
            }
            ReapError::FrozenByAncestor { path, frozen_by, .. } => {
                write!(f, "{}: held frozen by ", path.display())?;
                match frozen_by {
                    Some(dir) => write!(f, "{}", dir.display())?,
                    None => f.write_str("an ancestor")?,
                }
                f.write_str("; its members exit when that is thawed")
            }
            ReapError::Cancelled { path, .. } => write!(f, "{}: cancelled", path.display()),
            ReapError::Disconnected { path, .. } => write!(f, "{}: the reactor was dropped", path.display()),
            ReapError::Refused { refusal, .. } => refusal.fmt(f),
            ReapError::Reactor(source) => write!(f, "the event loop failed: {source}"),
        }
    }
}

/// The message contains the cause, so [`Error::source`] is `None`.
impl Error for ReapError {}

impl From<SpawnError> for ReapError {
    fn from(error: SpawnError) -> ReapError {
        let path = error.reaper().named_path().or_else(|| error.refusal().path().map(Path::to_path_buf));
        ReapError::Refused { path, refusal: error.into_refusal() }
    }
}

impl ReapError {
    /// Returns the first directory of the target, as [`ReapHandle::path`](crate::ReapHandle::path) does, whatever file the
    /// message names. `None` where it is not known: for a failed reactor, and some targets that were refused.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ReapError::TimedOut { path, .. }
            | ReapError::Replaced { target: path, .. }
            | ReapError::Denied { target: path, .. }
            | ReapError::FrozenByAncestor { target: path, .. }
            | ReapError::Cancelled { path, .. }
            | ReapError::Disconnected { path, .. } => Some(path),
            ReapError::Refused { path, .. } => path.as_deref(),
            ReapError::Reactor(_) => None,
        }
    }

    /// Returns the kind of error in a word, for logs and counters: `timed-out`, `replaced`, `denied`, `frozen-by-ancestor`,
    /// `cancelled`, `disconnected`, `refused`, `io` (a target that could not be checked at the spawn), or `reactor`.
    pub fn kind(&self) -> &'static str {
        match self {
            ReapError::TimedOut { .. } => "timed-out",
            ReapError::Replaced { .. } => "replaced",
            ReapError::Denied { .. } => "denied",
            ReapError::FrozenByAncestor { .. } => "frozen-by-ancestor",
            ReapError::Cancelled { .. } => "cancelled",
            ReapError::Disconnected { .. } => "disconnected",
            ReapError::Refused { refusal: Refusal::Io { .. }, .. } => "io",
            ReapError::Refused { refusal: Refusal::Disconnected, .. } => "disconnected",
            ReapError::Refused { .. } => "refused",
            ReapError::Reactor(_) => "reactor",
        }
    }

    /// Returns what was done before the error. `None` for a refused target and a failed reactor.
    pub fn effort(&self) -> Option<Effort> {
        match self {
            ReapError::TimedOut { effort, .. }
            | ReapError::Replaced { effort, .. }
            | ReapError::Denied { effort, .. }
            | ReapError::FrozenByAncestor { effort, .. }
            | ReapError::Cancelled { effort, .. }
            | ReapError::Disconnected { effort, .. } => Some(*effort),
            ReapError::Refused { .. } | ReapError::Reactor(_) => None,
        }
    }

    /// Returns the kernel's error that is the cause, if there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            ReapError::TimedOut { source, .. } => source.as_deref(),
            ReapError::Denied { source, .. } | ReapError::Reactor(source) => Some(source),
            ReapError::Refused { refusal, .. } => refusal.io_error(),
            _ => None,
        }
    }

    /// Makes a [`ReapError::TimedOut`], for tests, in which `source`, `act` and `in_the_way` are `None`.
    pub fn timed_out(path: impl Into<PathBuf>, survivors: Vec<Survivor>) -> ReapError {
        let (path, effort) = (path.into(), Effort::default());
        ReapError::TimedOut { path, survivors, source: None, act: None, in_the_way: None, effort }
    }

    /// Makes a [`ReapError::Replaced`], for tests, of a target with one directory.
    pub fn replaced(path: impl Into<PathBuf>) -> ReapError {
        let path = path.into();
        ReapError::Replaced { target: path.clone(), path, effort: Effort::default() }
    }

    /// Makes a [`ReapError::Denied`], for tests, where `act` was refused on `path`.
    pub fn denied(
        target: impl Into<PathBuf>,
        act: Act,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> ReapError {
        let (target, path, source) = (target.into(), path.into(), Arc::new(source));
        ReapError::Denied { target, act, path, source, effort: Effort::default() }
    }

    /// Makes a [`ReapError::FrozenByAncestor`], for tests, of a target with one directory.
    pub fn frozen_by_ancestor(path: impl Into<PathBuf>, frozen_by: Option<PathBuf>) -> ReapError {
        let path = path.into();
        ReapError::FrozenByAncestor { target: path.clone(), path, frozen_by, effort: Effort::default() }
    }

    /// Makes a [`ReapError::Cancelled`], for tests.
    pub fn cancelled(path: impl Into<PathBuf>) -> ReapError {
        ReapError::Cancelled { path: path.into(), effort: Effort::default() }
    }

    /// Makes a [`ReapError::Disconnected`], for tests.
    pub fn disconnected(path: impl Into<PathBuf>) -> ReapError {
        ReapError::Disconnected { path: path.into(), effort: Effort::default() }
    }
}

/// An operation of a reap, for instance one that was refused with [`ReapError::Denied`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Act {
    /// To read the state of the target: whether it has members, and which.
    Check,
    /// To kill a process.
    Kill,
    /// To freeze the target, which the kill method needs.
    Freeze,
    /// To thaw the target. Its members cannot exit before that.
    Thaw,
    /// To remove a directory. Every process is dead.
    Remove,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Act::Check => "cannot be checked",
            Act::Kill => "cannot be killed",
            Act::Freeze => "cannot be frozen",
            Act::Thaw => "cannot be thawed",
            Act::Remove => "every process is dead, but the directory cannot be removed",
        })
    }
}

/// A process that outlived a deadline, as /proc described it at that moment. A field is empty if /proc did not
/// tell it: the process may have exited meanwhile, or be hidden from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Survivor {
    /// Its process id in the caller's pid namespace; 0 where it has none there.
    pub pid: i32,
    /// Its command name (`/proc/PID/comm`).
    pub command: String,
    /// Its state letter (`/proc/PID/stat`): `D` uninterruptible, `t` traced, `Z` zombie leader, ...
    pub state: Option<char>,
    /// The kernel function it sleeps in (`/proc/PID/wchan`).
    pub wait_channel: String,
    /// The v1 freezer cgroup that holds it frozen, if one does.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::text"))]
    pub frozen_by: Option<PathBuf>,
    /// Whether it is a kernel thread, which no signal kills.
    pub kernel_thread: bool,
}

impl Survivor {
    /// Makes a survivor of which only the pid is known.
    pub fn new(pid: i32) -> Survivor {
        Survivor { pid, ..Survivor::default() }
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if !self.command.is_empty() {
            write!(f, " {}", self.command)?;
        }
        if let Some(state) = self.state {
            write!(f, " state {state}")?;
        }
        if !self.wait_channel.is_empty() && self.wait_channel != "0" {
            write!(f, " in {}", self.wait_channel)?;
        }
        if let Some(path) = &self.frozen_by {
            write!(f, " frozen by {}", path.display())?;
        }
        if self.kernel_thread {
            f.write_str(" (kernel thread)")?;
        }
        Ok(())
    }
}
