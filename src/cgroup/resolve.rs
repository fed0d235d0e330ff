//! From what the caller named to pinned directories, or a refusal, before anything is touched.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{AccessFlags, faccessat};

use super::budget::Budget;
use super::own::{OwnCgroups, parent};
use super::pin::{Id, Pin, Version, open_path, version};
use super::tree::Tree;
use crate::outcome::Refusal;
use crate::reaper::{CgroupOptions, Place};

/// The directories that `place` names and that exist, each once.
pub(crate) fn resolve(place: &Place, own: &mut OwnCgroups, budget: &Budget) -> Result<Vec<Tree>, Refusal> {
    let mut trees: Vec<Tree> = Vec::new();
    match place {
        Place::Dir(dir) => {
            if let Some((path, fd)) = at(dir)? {
                trees.push(pin(path, fd, own, budget)?);
            }
        }
        Place::Named { options, name } => {
            for (path, fd) in named(options, name)? {
                let tree = pin(path, fd, own, budget)?;
                if trees.iter().all(|other| other.pin.id != tree.pin.id) {
                    trees.push(tree);
                }
            }
        }
    }
    Ok(trees)
}

type Found = (PathBuf, OwnedFd);

/// Opens one directory; `None` if it is missing below a directory of a cgroup filesystem.
fn at(dir: &Path) -> Result<Option<Found>, Refusal> {
    if dir.as_os_str().is_empty() {
        return Err(Refusal::EmptyName);
    }
    check_dots(dir)?;
    let path = std::path::absolute(dir).map_err(|source| Refusal::Io { path: dir.into(), source })?;
    // Without a trailing slash, which would have a link followed.
    let path: PathBuf = path.components().collect();
    match open_path(AT_FDCWD, &path) {
        Ok(fd) => Ok(Some((path, fd))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            // A name that was never a cgroup is a mistake, not a group that is already gone.
            let above = path.ancestors().skip(1).find_map(|above| open_path(AT_FDCWD, above).ok());
            match above {
                Some(above) if is_cgroup(&above, &path)? => Ok(None),
                _ => Err(Refusal::NotCgroup { path }),
            }
        }
        Err(error) => Err(refuse_io(path, error)),
    }
}

/// Opens `root/<subsystem>/slice/name` for each subsystem; those that are missing are left out.
fn named(options: &CgroupOptions, name: &Path) -> Result<Vec<Found>, Refusal> {
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
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut fd = match openat(AT_FDCWD, &path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => return Err(Refusal::NotCgroup { path }),
            Err(errno) => return Err(Refusal::Io { path, source: errno.into() }),
        };
        // Below it none is.
        let mut missing = false;
        for component in options.slice.components().chain(name.components()) {
            path.push(component);
            match open_path::<OsStr>(fd.as_fd(), component.as_os_str()) {
                Ok(next) => fd = next,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    missing = true;
                    break;
                }
                Err(error) => return Err(refuse_io(path, error)),
            }
            check_kind(&fd, &path)?;
        }
        if !missing {
            found.push((path, fd));
        } else if !is_cgroup(&fd, &path)? {
            return Err(Refusal::NotCgroup { path });
        }
    }
    Ok(found)
}

/// Pins a directory that may be reaped.
fn pin(path: PathBuf, fd: OwnedFd, own: &mut OwnCgroups, budget: &Budget) -> Result<Tree, Refusal> {
    let id = check_kind(&fd, &path)?;
    let io = |source| Refusal::Io { path: path.clone(), source };
    let Some(version) = version(fd.as_fd()).map_err(io)? else {
        return Err(Refusal::NotCgroup { path });
    };
    if is_root(&fd, id).map_err(io)? {
        return Err(Refusal::Root { path });
    }
    if own.contains(id).map_err(|source| Refusal::Io { path: "/proc/self/cgroup".into(), source })? {
        return Err(Refusal::OwnCgroup { path });
    }
    let freezer = version == Version::V1 && has_freezer(&fd);
    let held = budget.take_for_comfort().map(|permit| (fd, permit));
    let pin = Pin::new(path.clone(), id, held).map_err(|source| Refusal::Io { path, source })?;
    Ok(Tree::new(pin, version, freezer))
}

/// The root of a hierarchy, of a cgroup namespace, or of what is mounted of a hierarchy: there is no
/// directory of the same filesystem above it.
fn is_root(fd: &OwnedFd, id: Id) -> io::Result<bool> {
    let above = parent(fd)?;
    let above_id = Id::of(&fstat(&above)?);
    Ok(above_id == id || above_id.dev != id.dev)
}

fn has_freezer(fd: &OwnedFd) -> bool {
    faccessat(fd, "freezer.state", AccessFlags::F_OK, AtFlags::empty()).is_ok()
}

/// A directory's identity; a link or a file is refused.
fn check_kind(fd: &OwnedFd, path: &Path) -> Result<Id, Refusal> {
    let stat = fstat(fd).map_err(|errno| Refusal::Io { path: path.into(), source: errno.into() })?;
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Ok(Id::of(&stat)),
        SFlag::S_IFLNK => Err(Refusal::Symlink { path: path.into() }),
        _ => Err(Refusal::NotCgroup { path: path.into() }),
    }
}

fn is_cgroup(fd: &OwnedFd, path: &Path) -> Result<bool, Refusal> {
    match version(fd.as_fd()) {
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
