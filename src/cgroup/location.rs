//! Opens the directories that the caller named: by a path, a descriptor, or a name in one or several hierarchies. No
//! link is followed out of a hierarchy.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::errors::is_gone;
use super::file::{above_path, c_path};
use super::hierarchy::Version;
use super::identity::Id;
use crate::outcome::Refusal;
use crate::reaper::{CgroupOptions, SharedFd};
use crate::sys::{Kind, Open, Stat, Sys};

/// A directory that may be a target: its path, and a descriptor of it.
pub(super) type Candidate<S> = (PathBuf, <S as Sys>::Fd);

/// Opens one directory; `None` if it is missing below a directory of a cgroup filesystem.
pub(super) fn at<S: Sys>(sys: &S, dir: &Path) -> Result<Option<Candidate<S>>, Refusal> {
    if dir.as_os_str().is_empty() {
        return Err(Refusal::EmptyName);
    }
    check_dots(dir)?;
    let path = std::path::absolute(dir).map_err(|source| Refusal::io(dir, source))?;
    // Removes a trailing slash: with it, the kernel follows a symbolic link.
    let path: PathBuf = path.components().collect();
    match place(sys, &path) {
        Ok(fd) => Ok(Some((path, fd))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            // A name that was never a cgroup is a mistake, not a group that is already gone.
            for above in path.ancestors().skip(1) {
                match above_path(above).and_then(|above| sys.open(None, &above, Open::Place)) {
                    Ok(above) if is_cgroup(sys, &above, &path)? => return Ok(None),
                    Ok(_) => break,
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(error) => return Err(refuse_io(path, error)),
                }
            }
            Err(Refusal::NoSuchDirectory { path })
        }
        Err(error) => Err(refuse_io(path, error)),
    }
}

/// A directory that the caller has open.
pub(super) struct OpenDirectory<S: Sys> {
    /// Its path, now or before it was removed.
    pub(super) path: PathBuf,
    /// A descriptor of the library's own; `None` if the directory was removed.
    pub(super) fd: Option<S::Fd>,
}

/// Finds out which directory the caller's descriptor is open on.
pub(super) fn at_fd<S: Sys>(sys: &S, fd: &SharedFd) -> Result<OpenDirectory<S>, Refusal> {
    let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    let fd = sys.duplicate(fd.as_fd()).map_err(|source| Refusal::io(&link, source))?;
    let mut tries = 0;
    loop {
        let path = sys.path_of(&fd).map_err(|source| Refusal::io(&link, source))?;
        let stat = check_kind(sys, &fd, &path)?;
        if !is_cgroup(sys, &fd, &path)? {
            return Err(Refusal::NotCgroup { path });
        }
        match sys.stat(Some(&fd), c"cgroup.procs") {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Ok(OpenDirectory { path: without_mark(path), fd: None }),
            Err(source) => return Err(Refusal::io(path, source)),
        }
        let io = |source| Refusal::io(&path, source);
        let above = Id::of(&sys.stat(Some(&fd), c"..").map_err(io)?);
        let is_below = above.dev == stat.dev;
        // `..` may also lead into a mount that covers the parent.
        if above == Id::of(&stat) || stat.mount_root.unwrap_or(!is_below) {
            return Err(Refusal::Root { path });
        }
        if is_below && has_name(sys, &fd, &stat, path.file_name().unwrap_or_default()).map_err(io)? {
            return Ok(OpenDirectory { path, fd: Some(fd) });
        }
        // The directory may have been renamed or removed meanwhile.
        tries += 1;
        if tries == 3 {
            return Err(io(io::Error::from_raw_os_error(libc::ESTALE)));
        }
    }
}

/// The path of a removed directory, without the mark that the kernel adds to its name.
fn without_mark(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_encoded_bytes().strip_suffix(b" (deleted)") {
        Some(path) => PathBuf::from(OsStr::from_bytes(path)),
        None => path,
    }
}

/// Whether this name in the parent leads to the directory, or to a mount on it.
fn has_name<S: Sys>(sys: &S, fd: &S::Fd, stat: &Stat, name: &OsStr) -> io::Result<bool> {
    if name.is_empty() {
        return Ok(false);
    }
    match sys.stat(Some(fd), &c_path(&Path::new("..").join(name))?) {
        Ok(named) => {
            Ok(Id::of(&named) == Id::of(stat) || named.dev != stat.dev || named.mount_root == Some(true))
        }
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Checks the names, and returns the absolute paths of the hierarchies.
pub(super) fn named_hierarchies(options: &CgroupOptions, name: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let subsystems = options.subsystems.as_deref();
    if subsystems.is_some_and(<[PathBuf]>::is_empty) {
        return Err(Refusal::NoSubsystems);
    }
    if name.as_os_str().is_empty() {
        return Err(Refusal::EmptyName);
    }
    for relative in subsystems.into_iter().flatten().chain([&options.slice, &name.to_path_buf()]) {
        if relative.is_absolute() {
            return Err(Refusal::AbsoluteName { name: relative.clone() });
        }
        check_dots(relative)?;
        if relative.as_os_str().as_encoded_bytes().windows(2).any(|pair| pair == b"//") {
            return Err(Refusal::EmptyName);
        }
    }
    if subsystems.into_iter().flatten().any(|subsystem| subsystem.as_os_str().is_empty()) {
        return Err(Refusal::EmptyName);
    }
    let root = std::path::absolute(&options.root).map_err(|source| Refusal::io(&options.root, source))?;
    Ok(match subsystems {
        Some(subsystems) => subsystems.iter().map(|subsystem| root.join(subsystem)).collect(),
        None => vec![root],
    })
}

/// Opens `slice/name` in the hierarchy that `path` leads to; `None` if it is missing.
pub(super) fn open_named<S: Sys>(
    sys: &S,
    mut path: PathBuf,
    options: &CgroupOptions,
    name: &Path,
) -> Result<Option<Candidate<S>>, Refusal> {
    // Links up to the mount point belong to the system (`cpu -> cpu,cpuacct`), and are followed.
    let opened = c_path(&path).and_then(|path| sys.open(None, &path, Open::Directory));
    let mut fd = match opened {
        Ok(fd) => fd,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            return Err(Refusal::NoSuchDirectory { path });
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            return Err(Refusal::NotCgroup { path });
        }
        Err(source) => return Err(Refusal::io(path, source)),
    };
    // The hierarchies may be mounted below it: then the caller has to name them.
    if options.subsystems.is_none() && !is_cgroup(sys, &fd, &path)? {
        return Err(Refusal::NotCgroup { path });
    }
    // No link is followed below it.
    for component in options.slice.components().chain(name.components()) {
        path.push(component);
        let opened = c_path(component.as_ref()).and_then(|name| sys.open(Some(&fd), &name, Open::Place));
        match opened {
            Ok(next) => fd = next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                return match is_cgroup(sys, &fd, &path)? {
                    true => Ok(None),
                    false => Err(Refusal::NoSuchDirectory { path }),
                };
            }
            Err(error) => return Err(refuse_io(path, error)),
        }
        check_kind(sys, &fd, &path)?;
    }
    Ok(Some((path, fd)))
}

/// Opens a path as a place in the tree.
fn place<S: Sys>(sys: &S, path: &Path) -> io::Result<S::Fd> {
    sys.open(None, &c_path(path)?, Open::Place)
}

/// Checks that `fd` is a directory, and returns its status; a link or a file is refused.
pub(super) fn check_kind<S: Sys>(sys: &S, fd: &S::Fd, path: &Path) -> Result<Stat, Refusal> {
    let stat = sys.stat(Some(fd), c"").map_err(|source| Refusal::io(path, source))?;
    match stat.kind {
        Kind::Directory => Ok(stat),
        Kind::Link => Err(Refusal::Symlink { path: path.into() }),
        Kind::Other => Err(Refusal::NotCgroup { path: path.into() }),
    }
}

fn is_cgroup<S: Sys>(sys: &S, fd: &S::Fd, path: &Path) -> Result<bool, Refusal> {
    match Version::of(sys, fd) {
        Ok(version) => Ok(version.is_some()),
        Err(source) => Err(Refusal::io(path, source)),
    }
}

fn refuse_io(path: PathBuf, source: io::Error) -> Refusal {
    match source.raw_os_error() {
        Some(libc::ENOTDIR) => Refusal::NotCgroup { path },
        Some(libc::ELOOP) => Refusal::Symlink { path },
        _ => Refusal::io(path, source),
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
