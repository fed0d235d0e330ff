//! From what the caller named to pinned directories, or a refusal, before anything is touched.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Budget;
use super::file::c_path;
use super::own::OwnCgroups;
use super::pin::{Id, Mounts, Pin, Version, version};
use super::tree::Tree;
use crate::outcome::Refusal;
use crate::reaper::{CgroupOptions, Place};
use crate::sys::{Kind, Open, Stat, Sys};

/// What the checks of a target need, shared with the fronts for other threads.
pub(crate) struct Checks<S: Sys> {
    pub(crate) sys: S,
    pub(crate) own: Arc<Mutex<OwnCgroups<S>>>,
    mounts: Arc<Mutex<Mounts>>,
    pub(crate) budget: Budget,
}

impl<S: Sys> Checks<S> {
    pub(crate) fn new(sys: S, budget: Budget) -> Checks<S> {
        Checks { sys, own: Arc::default(), mounts: Arc::default(), budget }
    }
}

impl<S: Sys + Clone> Clone for Checks<S> {
    fn clone(&self) -> Checks<S> {
        Checks {
            sys: self.sys.clone(),
            own: Arc::clone(&self.own),
            mounts: Arc::clone(&self.mounts),
            budget: self.budget.clone(),
        }
    }
}

/// The directories that `place` names and that exist, each once.
pub(crate) fn resolve<S: Sys>(checks: &Checks<S>, place: &Place) -> Result<Vec<Tree<S>>, Refusal> {
    let sys = &checks.sys;
    let mut trees: Vec<Tree<S>> = Vec::new();
    match place {
        Place::Dir(dir) => {
            // Thousands wait at once: no room for three more.
            trees.reserve_exact(1);
            if let Some((path, fd)) = at(sys, dir)? {
                trees.push(pin(checks, path, fd)?);
            }
        }
        Place::Named { options, name } => {
            trees.reserve_exact(options.subsystems.len());
            for (path, fd) in named(sys, options, name)? {
                let tree = pin(checks, path, fd)?;
                if trees.iter().all(|other| other.pin.id != tree.pin.id) {
                    trees.push(tree);
                }
            }
        }
    }
    Ok(trees)
}

type Found<S> = (PathBuf, <S as Sys>::Fd);

/// Opens one directory; `None` if it is missing below a directory of a cgroup filesystem.
fn at<S: Sys>(sys: &S, dir: &Path) -> Result<Option<Found<S>>, Refusal> {
    if dir.as_os_str().is_empty() {
        return Err(Refusal::EmptyName);
    }
    check_dots(dir)?;
    let path = std::path::absolute(dir).map_err(|source| Refusal::Io { path: dir.into(), source })?;
    // Without a trailing slash, which would have a link followed.
    let path: PathBuf = path.components().collect();
    match place(sys, &path) {
        Ok(fd) => Ok(Some((path, fd))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            // A name that was never a cgroup is a mistake, not a group that is already gone.
            let above = path.ancestors().skip(1).find_map(|above| place(sys, above).ok());
            match above {
                Some(above) if is_cgroup(sys, &above, &path)? => Ok(None),
                _ => Err(Refusal::NotCgroup { path }),
            }
        }
        Err(error) => Err(refuse_io(path, error)),
    }
}

/// Opens `root/<subsystem>/slice/name` for each subsystem; those that are missing are left out.
fn named<S: Sys>(sys: &S, options: &CgroupOptions, name: &Path) -> Result<Vec<Found<S>>, Refusal> {
    if options.subsystems.is_empty() {
        return Err(Refusal::NoSubsystems);
    }
    if name.as_os_str().is_empty() {
        return Err(Refusal::EmptyName);
    }
    for relative in options.subsystems.iter().chain([&options.slice, &name.to_path_buf()]) {
        if relative.is_absolute() {
            return Err(Refusal::AbsoluteName { name: relative.clone() });
        }
        check_dots(relative)?;
        if relative.as_os_str().as_encoded_bytes().windows(2).any(|pair| pair == b"//") {
            return Err(Refusal::EmptyName);
        }
    }
    let mut found = Vec::new();
    for subsystem in &options.subsystems {
        if subsystem.as_os_str().is_empty() {
            return Err(Refusal::EmptyName);
        }
        let mut path = options.root.join(subsystem);
        // Up to the hierarchy links are the system's own (`cpu -> cpu,cpuacct`) and followed.
        let opened = c_path(&path).and_then(|path| sys.open(None, &path, Open::Directory));
        let mut fd = match opened {
            Ok(fd) => fd,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Err(Refusal::NotCgroup { path });
            }
            Err(source) => return Err(Refusal::Io { path, source }),
        };
        // Below it none is.
        let mut missing = false;
        for component in options.slice.components().chain(name.components()) {
            path.push(component);
            let opened = c_path(component.as_ref()).and_then(|name| sys.open(Some(&fd), &name, Open::Place));
            match opened {
                Ok(next) => fd = next,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    missing = true;
                    break;
                }
                Err(error) => return Err(refuse_io(path, error)),
            }
            check_kind(sys, &fd, &path)?;
        }
        if !missing {
            found.push((path, fd));
        } else if !is_cgroup(sys, &fd, &path)? {
            return Err(Refusal::NotCgroup { path });
        }
    }
    Ok(found)
}

/// Pins a directory that may be reaped.
fn pin<S: Sys>(checks: &Checks<S>, path: PathBuf, fd: S::Fd) -> Result<Tree<S>, Refusal> {
    let sys = &checks.sys;
    let stat = check_kind(sys, &fd, &path)?;
    let id = Id::of(&stat);
    let io = |source| Refusal::Io { path: path.clone(), source };
    let known = lock(&checks.mounts).version(&stat);
    let version = match known {
        Some(version) => version,
        // Not under the lock: some filesystems ask a server that may be gone.
        None => match version(sys, &fd).map_err(io)? {
            Some(version) => {
                lock(&checks.mounts).remember(&stat, version);
                version
            }
            None => return Err(Refusal::NotCgroup { path }),
        },
    };
    if is_root(sys, &fd, &stat).map_err(io)? {
        return Err(Refusal::Root { path });
    }
    // Of v1, the first list of members tells.
    if version == Version::V2 {
        let own = lock(&checks.own).contains(sys, id);
        if own.map_err(|source| Refusal::Io { path: "/proc/self/cgroup".into(), source })? {
            return Err(Refusal::OwnCgroup { path });
        }
    }
    let held = checks.budget.take_for_comfort().map(|permit| (fd, permit));
    let pin = Pin::new(path.clone(), id, held).map_err(|source| Refusal::Io { path, source })?;
    Ok(Tree::new(pin, version))
}

/// The root of a hierarchy, of a cgroup namespace, or of what is mounted of a hierarchy: there is no
/// directory of the same filesystem above it. It can only be seen as the root of a mount.
fn is_root<S: Sys>(sys: &S, fd: &S::Fd, stat: &Stat) -> io::Result<bool> {
    if stat.mount_root == Some(false) {
        return Ok(false);
    }
    let above = Id::of(&sys.stat(Some(fd), c"..")?);
    Ok(above == Id::of(stat) || above.dev != stat.dev)
}

/// Opens a path as a place in the tree.
fn place<S: Sys>(sys: &S, path: &Path) -> io::Result<S::Fd> {
    sys.open(None, &c_path(path)?, Open::Place)
}

/// What a directory is; a link or a file is refused.
fn check_kind<S: Sys>(sys: &S, fd: &S::Fd, path: &Path) -> Result<Stat, Refusal> {
    let stat = sys.stat(Some(fd), c"").map_err(|source| Refusal::Io { path: path.into(), source })?;
    match stat.kind {
        Kind::Directory => Ok(stat),
        Kind::Link => Err(Refusal::Symlink { path: path.into() }),
        Kind::Other => Err(Refusal::NotCgroup { path: path.into() }),
    }
}

/// No code that could panic halfway through a change runs under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_cgroup<S: Sys>(sys: &S, fd: &S::Fd, path: &Path) -> Result<bool, Refusal> {
    match version(sys, fd) {
        Ok(version) => Ok(version.is_some()),
        Err(source) => Err(Refusal::Io { path: path.into(), source }),
    }
}

fn refuse_io(path: PathBuf, source: io::Error) -> Refusal {
    match source.raw_os_error() {
        Some(libc::ENOTDIR) => Refusal::NotCgroup { path },
        Some(libc::ELOOP) => Refusal::Symlink { path },
        _ => Refusal::Io { path, source },
    }
}

fn check_dots(path: &Path) -> Result<(), Refusal> {
    // `components` drops a `.` that is not the first; the bytes still have it.
    let dotted = path
        .as_os_str()
        .as_encoded_bytes()
        .split(|&b| b == b'/')
        .any(|component| component == b"." || component == b"..");
    if dotted || path.components().any(|c| matches!(c, Component::ParentDir | Component::CurDir)) {
        return Err(Refusal::DotComponent { name: path.into() });
    }
    Ok(())
}
