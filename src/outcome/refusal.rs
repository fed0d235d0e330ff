//! Why a spawn was refused: [`SpawnError`], [`Refusal`].

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::error::clone_io;
use crate::reaper::{KillMethod, Reaper};

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
    /// The target is the root of a hierarchy, of a cgroup namespace, or of a mount.
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
    /// The path, or a component of it below the hierarchy's mount point, is a symbolic link.
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The path is not in a cgroup filesystem. (A missing directory in one is not refused.)
    NotCgroup {
        /// The path.
        path: PathBuf,
    },
    /// The list of [`CgroupOptions::subsystems`](crate::CgroupOptions::subsystems) is empty, so there is no directory to
    /// reap.
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
    /// The reactor was dropped. Only [`Remote::spawn_reaper`](crate::Remote::spawn_reaper) says so.
    Disconnected,
    /// A check could not be made.
    Io {
        /// The file or directory that could not be read.
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
