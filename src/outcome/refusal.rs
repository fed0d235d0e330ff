//! Why a spawn was refused: [`SpawnError`], [`Refusal`].

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::reaper::{KillMethod, Reaper};

/// A refused spawn. Nothing was touched; [`SpawnError::into_reaper`] hands the [`Reaper`] back.
///
/// It becomes a [`ReapError::Refused`](crate::ReapError::Refused) by `?`, in functions that return a
/// [`ReapError`](crate::ReapError).
#[derive(Clone)]
pub struct SpawnError {
    inner: Box<(Reaper, Refusal)>,
}

impl SpawnError {
    /// Makes a `SpawnError`, for tests of a program that handles it.
    pub fn new(reaper: Reaper, refusal: Refusal) -> SpawnError {
        SpawnError { inner: Box::new((reaper, refusal)) }
    }

    /// Returns why the spawn was refused.
    pub fn refusal(&self) -> &Refusal {
        &self.inner.1
    }

    /// Returns the reaper, unused.
    pub fn into_reaper(self) -> Reaper {
        self.inner.0
    }

    pub(super) fn reaper(&self) -> &Reaper {
        &self.inner.0
    }

    pub(super) fn into_refusal(self) -> Refusal {
        self.inner.1
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

/// The message contains the cause, so [`Error::source`] is `None`.
impl Error for SpawnError {}

/// Why a target was refused at the spawn, before anything was touched.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Refusal {
    /// The target is the root of a hierarchy, of a cgroup namespace, or of a mount.
    #[non_exhaustive]
    Root {
        /// The root.
        path: PathBuf,
    },
    /// The target is the caller's own cgroup or contains it: killing it would kill the caller.
    #[non_exhaustive]
    OwnCgroup {
        /// The directory.
        path: PathBuf,
    },
    /// The name is empty, or has an empty component: it would mean the whole slice.
    EmptyName,
    /// The name, the slice or the path has a `.` or `..` component.
    #[non_exhaustive]
    DotComponent {
        /// The offending name.
        name: PathBuf,
    },
    /// The name, the slice or a subsystem is an absolute path.
    #[non_exhaustive]
    AbsoluteName {
        /// The offending name.
        name: PathBuf,
    },
    /// The path, or a component of it below the hierarchy's mount point, is a symbolic link.
    #[non_exhaustive]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The path is not in a cgroup filesystem.
    #[non_exhaustive]
    NotCgroup {
        /// The path.
        path: PathBuf,
    },
    /// There is no such directory, and the nearest directory above it that exists is not in a cgroup filesystem. If that directory is
    /// in one, the reap ends as [`AlreadyGone`](crate::Outcome::AlreadyGone), however many components of the path are missing.
    #[non_exhaustive]
    NoSuchDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The list of [`CgroupOptions::subsystems`](crate::CgroupOptions::subsystems) is empty, so there is no directory to
    /// reap.
    NoSubsystems,
    /// The target does not support the chosen [`KillMethod`]: [`KillMethod::CgroupKill`] on v1 or before Linux
    /// 5.14, [`KillMethod::Freezer`] without a freezer.
    #[non_exhaustive]
    Unsupported {
        /// The method.
        method: KillMethod,
        /// The first directory of the target.
        path: PathBuf,
    },
    /// `min_wait` is under 1 ms, or above `max_wait`.
    #[non_exhaustive]
    InvalidWait {
        /// As given.
        min_wait: Duration,
        /// As given.
        max_wait: Duration,
    },
    /// The reactor was dropped. Only a [`Remote`](crate::Remote) or a `TokioReactor` refuses a spawn for this.
    Disconnected,
    /// A check of the target failed.
    #[non_exhaustive]
    Io {
        /// The file or directory that could not be read.
        path: PathBuf,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
}

impl Refusal {
    /// Returns the path or name that was refused, if one was.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Refusal::Root { path }
            | Refusal::OwnCgroup { path }
            | Refusal::DotComponent { name: path }
            | Refusal::AbsoluteName { name: path }
            | Refusal::Symlink { path }
            | Refusal::NotCgroup { path }
            | Refusal::NoSuchDirectory { path }
            | Refusal::Unsupported { path, .. }
            | Refusal::Io { path, .. } => Some(path),
            Refusal::EmptyName
            | Refusal::NoSubsystems
            | Refusal::InvalidWait { .. }
            | Refusal::Disconnected => None,
        }
    }

    /// Returns the kernel's answer, if a check of the target failed.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Refusal::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Makes a [`Refusal::Root`].
    pub fn root(path: impl Into<PathBuf>) -> Refusal {
        Refusal::Root { path: path.into() }
    }

    /// Makes a [`Refusal::OwnCgroup`].
    pub fn own_cgroup(path: impl Into<PathBuf>) -> Refusal {
        Refusal::OwnCgroup { path: path.into() }
    }

    /// Makes a [`Refusal::DotComponent`].
    pub fn dot_component(name: impl Into<PathBuf>) -> Refusal {
        Refusal::DotComponent { name: name.into() }
    }

    /// Makes a [`Refusal::AbsoluteName`].
    pub fn absolute_name(name: impl Into<PathBuf>) -> Refusal {
        Refusal::AbsoluteName { name: name.into() }
    }

    /// Makes a [`Refusal::Symlink`].
    pub fn symlink(path: impl Into<PathBuf>) -> Refusal {
        Refusal::Symlink { path: path.into() }
    }

    /// Makes a [`Refusal::NotCgroup`].
    pub fn not_cgroup(path: impl Into<PathBuf>) -> Refusal {
        Refusal::NotCgroup { path: path.into() }
    }

    /// Makes a [`Refusal::NoSuchDirectory`].
    pub fn no_such_directory(path: impl Into<PathBuf>) -> Refusal {
        Refusal::NoSuchDirectory { path: path.into() }
    }

    /// Makes a [`Refusal::Unsupported`].
    pub fn unsupported(method: KillMethod, path: impl Into<PathBuf>) -> Refusal {
        Refusal::Unsupported { method, path: path.into() }
    }

    /// Makes a [`Refusal::InvalidWait`].
    pub fn invalid_wait(min_wait: Duration, max_wait: Duration) -> Refusal {
        Refusal::InvalidWait { min_wait, max_wait }
    }

    /// Makes a [`Refusal::Io`].
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> Refusal {
        Refusal::Io { path: path.into(), source: Arc::new(source) }
    }
}

/// The message contains the cause, so [`Error::source`] is `None`.
impl Error for Refusal {}

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
            Refusal::NoSuchDirectory { path } => write!(f, "{}: refused: no such directory", path.display()),
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
