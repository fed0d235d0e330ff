//! What a reap came to: [`Reaped`], [`ReapError`], and the refusals of a spawn.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::reaper::{KillMethod, Reaper};

/// A finished reap: every process of the target is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// What became of the target's directories.
    pub outcome: Outcome,
    /// The last rung of the kill ladder that was used; `None` where nothing had to be killed.
    pub method: Option<UsedMethod>,
    /// Processes that were sent a signal one by one. `cgroup.kill` signals inside the kernel, which
    /// does not say how many, so it adds nothing here.
    pub signalled: u64,
    /// Attempts to kill: 1 for a group that died of the first. Whoever had SIGKILL in one is only listed in most
    /// of those that follow.
    pub attempts: u32,
    /// Time from the spawn to completion.
    pub elapsed: Duration,
}

/// What was done for a reap that ended otherwise; see [`Reaped`] for the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effort {
    /// As [`Reaped::method`].
    pub method: Option<UsedMethod>,
    /// As [`Reaped::signalled`].
    pub signalled: u64,
    /// As [`Reaped::attempts`].
    pub attempts: u32,
    /// As [`Reaped::elapsed`].
    pub elapsed: Duration,
}

/// What became of the target's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// They were there at the spawn and are gone now, every process dead, removed by this library or, in a race, by the
    /// system's release agent or another party.
    Removed,
    /// They are empty and were left in place, as [`Reaper::keep_dir`] asked.
    Emptied,
    /// There was nothing at the spawn.
    AlreadyGone,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Removed => "removed",
            Outcome::Emptied => "emptied",
            Outcome::AlreadyGone => "already gone",
        })
    }
}

/// How processes were killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UsedMethod {
    /// A write to `cgroup.kill` (cgroup v2, Linux 5.14).
    CgroupKill,
    /// SIGKILL through pidfds whose membership in the target was verified after they were opened.
    Pidfd,
    /// Frozen first, then signalled, then thawed.
    Freezer,
    /// kill(2) on pids just read, unverified: only with
    /// [`CgroupOptions::kill_without_freezer`](crate::CgroupOptions::kill_without_freezer) on a
    /// kernel that refuses pidfds.
    Unverified,
}

impl fmt::Display for UsedMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            UsedMethod::CgroupKill => "cgroup.kill",
            UsedMethod::Pidfd => "pidfd",
            UsedMethod::Freezer => "freezer",
            UsedMethod::Unverified => "unverified kill",
        })
    }
}

/// Why a reap ended without the target being dead and gone.
///
/// Nothing is left frozen by the library in any of these cases, save a freeze that the process lost
/// the right to undo, or that the kernel for ten seconds would not let it undo.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReapError {
    /// The deadline of [`Reaper::deadline`] passed. SIGKILL has been sent, also if a
    /// [`grace`](Reaper::grace) would have lasted longer, and unless `source` says why it could not be:
    /// survivors die as soon as whatever holds them lets go.
    #[non_exhaustive]
    TimedOut {
        /// The first directory of the target.
        path: PathBuf,
        /// Who is still there, as far as /proc tells; at most 64 of them.
        survivors: Vec<Survivor>,
        /// The last error that stood in the way, if one did.
        source: Option<io::Error>,
        /// What was done until then.
        effort: Effort,
    },
    /// The directory that was spawned on is gone and another has taken its name. The newcomer was not
    /// touched. The target itself is gone, but who removed it before it was seen empty is unknown.
    #[non_exhaustive]
    Replaced {
        /// The directory that is somebody else's now.
        path: PathBuf,
        /// What was done until then.
        effort: Effort,
    },
    /// Something that has to be done was refused five rounds in a row, some 850 ms at the default waits, with
    /// nobody dying in between: for lack of rights (EACCES, EPERM, EROFS), of a kernel facility that the chosen
    /// [`KillMethod`] insists on, or because the path does not lead to the directory any more (ESTALE: it was
    /// renamed, or is hidden by a mount).
    #[non_exhaustive]
    Denied {
        /// What was refused. [`Act::Remove`] means that every process is dead.
        act: Act,
        /// The file, directory or process (`/proc/PID`) that it was refused on.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
        /// What was done until then.
        effort: Effort,
    },
    /// The target is held frozen from outside for longer than [`Reaper::freeze_timeout`]: by a v1 ancestor, or
    /// by a v1 freezer cgroup that also holds others. SIGKILL has been sent; it takes effect when that is
    /// thawed, which is its owner's to do.
    #[non_exhaustive]
    FrozenByAncestor {
        /// The directory of the target that is held frozen.
        path: PathBuf,
        /// The cgroup whose freeze holds it, if that is to be seen.
        frozen_by: Option<PathBuf>,
        /// What was done until then.
        effort: Effort,
    },
    /// [`ReapHandle::cancel`](crate::ReapHandle::cancel) was called.
    Cancelled,
    /// The `Reactor` was dropped first.
    Disconnected,
    /// The target was refused; only [`reap`](crate::reap) and [`reap_all`](crate::reap_all) say so here.
    Refused(Refusal),
    /// The event loop itself failed; only [`reap`](crate::reap) and [`reap_all`](crate::reap_all) say so
    /// here.
    Reactor(io::Error),
}

impl fmt::Display for ReapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReapError::TimedOut { path, survivors, source, .. } => {
                write!(f, "{}: not reaped in time", path.display())?;
                if let Some(source) = source {
                    write!(f, " ({source})")?;
                }
                for (i, survivor) in survivors.iter().enumerate() {
                    write!(f, "{}{survivor}", if i == 0 { ": " } else { ", " })?;
                }
                Ok(())
            }
            ReapError::Replaced { path, .. } => {
                write!(f, "{}: removed and made again by another party; left alone", path.display())
            }
            ReapError::Denied { act, path, source, .. } => {
                match path.strip_prefix("/proc") {
                    Ok(pid) => write!(f, "process {}", pid.display())?,
                    Err(_) => write!(f, "{}", path.display())?,
                }
                write!(f, ": {act}: {source}")
            }
            ReapError::FrozenByAncestor { path, frozen_by, .. } => {
                write!(f, "{}: held frozen by ", path.display())?;
                match frozen_by {
                    Some(dir) => write!(f, "{}", dir.display())?,
                    None => f.write_str("an ancestor")?,
                }
                f.write_str(", and killed as soon as that is thawed")
            }
            ReapError::Cancelled => f.write_str("cancelled"),
            ReapError::Disconnected => f.write_str("the reactor was dropped"),
            ReapError::Refused(refusal) => refusal.fmt(f),
            ReapError::Reactor(source) => write!(f, "the event loop failed: {source}"),
        }
    }
}

impl Error for ReapError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ReapError::TimedOut { source: Some(source), .. } | ReapError::Denied { source, .. } => {
                Some(source)
            }
            ReapError::Refused(refusal) => refusal.source(),
            ReapError::Reactor(source) => Some(source),
            _ => None,
        }
    }
}

impl ReapError {
    /// What was done until then, where the reap was begun and not given up by the caller.
    pub fn effort(&self) -> Option<Effort> {
        match self {
            ReapError::TimedOut { effort, .. }
            | ReapError::Replaced { effort, .. }
            | ReapError::Denied { effort, .. }
            | ReapError::FrozenByAncestor { effort, .. } => Some(*effort),
            _ => None,
        }
    }
}

/// What was refused, in [`ReapError::Denied`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Act {
    /// To read the state of the target: whether it has members, and which.
    Check,
    /// To kill somebody.
    Kill,
    /// To freeze the target, which the method needs.
    Freeze,
    /// To thaw it, without which nobody dies.
    Thaw,
    /// To remove a directory. Nobody is alive in it.
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

impl Clone for ReapError {
    fn clone(&self) -> ReapError {
        match self {
            ReapError::TimedOut { path, survivors, source, effort } => ReapError::TimedOut {
                path: path.clone(),
                survivors: survivors.clone(),
                source: source.as_ref().map(clone_io),
                effort: *effort,
            },
            ReapError::Replaced { path, effort } => {
                ReapError::Replaced { path: path.clone(), effort: *effort }
            }
            ReapError::Denied { act, path, source, effort } => {
                ReapError::Denied { act: *act, path: path.clone(), source: clone_io(source), effort: *effort }
            }
            ReapError::FrozenByAncestor { path, frozen_by, effort } => ReapError::FrozenByAncestor {
                path: path.clone(),
                frozen_by: frozen_by.clone(),
                effort: *effort,
            },
            ReapError::Cancelled => ReapError::Cancelled,
            ReapError::Disconnected => ReapError::Disconnected,
            ReapError::Refused(refusal) => ReapError::Refused(refusal.clone()),
            ReapError::Reactor(source) => ReapError::Reactor(clone_io(source)),
        }
    }
}

fn clone_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// A process that outlived a deadline, as /proc described it at that moment. What /proc did not say is
/// empty: the process may have died meanwhile, or be hidden from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    pub frozen_by: Option<PathBuf>,
    /// Whether it is a kernel thread, which no signal kills.
    pub kernel_thread: bool,
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

/// A refused spawn. Nothing was touched; [`SpawnError::into_reaper`] hands the [`Reaper`] back.
pub struct SpawnError {
    inner: Box<(Reaper, Refusal)>,
}

impl SpawnError {
    pub(crate) fn new(reaper: Reaper, refusal: Refusal) -> SpawnError {
        SpawnError { inner: Box::new((reaper, refusal)) }
    }

    /// Why it was refused.
    pub fn refusal(&self) -> &Refusal {
        &self.inner.1
    }

    /// The reaper, unused.
    pub fn into_reaper(self) -> Reaper {
        self.inner.0
    }
}

impl fmt::Debug for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpawnError").field(&self.inner.1).finish()
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.1.fmt(f)
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.1.source()
    }
}

/// Why a target was refused at the spawn, before anything was touched.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The target is the root of a hierarchy (or of what is mounted of it).
    Root {
        /// The root.
        path: PathBuf,
    },
    /// The target is the caller's own cgroup or contains it: killing it would kill the caller.
    OwnCgroup {
        /// The directory.
        path: PathBuf,
    },
    /// The name is empty, or has an empty component: it would mean the whole slice.
    EmptyName,
    /// The name, the slice or the path has a `.` or `..` component.
    DotComponent {
        /// The offending name.
        name: PathBuf,
    },
    /// The name, the slice or a subsystem is an absolute path.
    AbsoluteName {
        /// The offending name.
        name: PathBuf,
    },
    /// The path is, or leads below the hierarchy through, a symbolic link.
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The path is not a directory of a cgroup filesystem, nor a missing one below such a directory.
    NotCgroup {
        /// The path.
        path: PathBuf,
    },
    /// No subsystem was named, so there is no directory to reap.
    NoSubsystems,
    /// The chosen [`KillMethod`] has nothing to work with in this target: [`KillMethod::CgroupKill`]
    /// on v1 or before Linux 5.14, [`KillMethod::Freezer`] without a freezer.
    Unsupported {
        /// The method.
        method: KillMethod,
        /// The first directory of the target.
        path: PathBuf,
    },
    /// `min_wait` is under 1 ms, or above `max_wait`.
    InvalidWait {
        /// As given.
        min_wait: Duration,
        /// As given.
        max_wait: Duration,
    },
    /// The reactor was dropped; only a spawn through a `Remote` meets this.
    Disconnected,
    /// The kernel would not let the checks be made.
    Io {
        /// What was looked at.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Refusal::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Clone for Refusal {
    fn clone(&self) -> Refusal {
        match self {
            Refusal::Root { path } => Refusal::Root { path: path.clone() },
            Refusal::OwnCgroup { path } => Refusal::OwnCgroup { path: path.clone() },
            Refusal::EmptyName => Refusal::EmptyName,
            Refusal::DotComponent { name } => Refusal::DotComponent { name: name.clone() },
            Refusal::AbsoluteName { name } => Refusal::AbsoluteName { name: name.clone() },
            Refusal::Symlink { path } => Refusal::Symlink { path: path.clone() },
            Refusal::NotCgroup { path } => Refusal::NotCgroup { path: path.clone() },
            Refusal::NoSubsystems => Refusal::NoSubsystems,
            Refusal::Unsupported { method, path } => {
                Refusal::Unsupported { method: *method, path: path.clone() }
            }
            Refusal::InvalidWait { min_wait, max_wait } => {
                Refusal::InvalidWait { min_wait: *min_wait, max_wait: *max_wait }
            }
            Refusal::Disconnected => Refusal::Disconnected,
            Refusal::Io { path, source } => Refusal::Io { path: path.clone(), source: clone_io(source) },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Root { path } => write!(f, "{}: refused: the root of a hierarchy", path.display()),
            Refusal::OwnCgroup { path } => {
                write!(f, "{}: refused: is or contains the caller's own cgroup", path.display())
            }
            Refusal::EmptyName => f.write_str("refused: an empty name would mean the whole slice"),
            Refusal::DotComponent { name } => {
                write!(f, "{}: refused: `.` and `..` are not allowed", name.display())
            }
            Refusal::AbsoluteName { name } => write!(
                f,
                "{}: refused: an absolute path where a name below the hierarchy is wanted",
                name.display()
            ),
            Refusal::Symlink { path } => write!(f, "{}: refused: a symbolic link", path.display()),
            Refusal::NotCgroup { path } => write!(f, "{}: refused: not a cgroup", path.display()),
            Refusal::NoSubsystems => f.write_str("refused: no subsystem was named"),
            Refusal::Unsupported { method, path } => {
                write!(f, "{}: refused: method {method} is not available here", path.display())
            }
            Refusal::InvalidWait { min_wait, max_wait } => write!(
                f,
                "refused: min_wait {min_wait:?} must be at least 1 ms and no more than max_wait {max_wait:?}"
            ),
            Refusal::Disconnected => f.write_str("the reactor was dropped"),
            Refusal::Io { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}
