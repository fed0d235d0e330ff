//! The identity of a directory: which directory was found at the spawn, whatever its path leads to later.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::descriptor_budget::Permit;
use super::errors::{Call, Cause, Failed, Fate, Meaning, is_gone, meaning};
use super::file::{above_path, as_path, c_path};
use super::hierarchy::Version;
use crate::sys::{Open, Stat, Sys};

/// Identifies a directory for as long as the machine runs: cgroup inode numbers are not given out twice (kernfs ids, 64 bits
/// since Linux 5.5; before, and on 32-bit kernels, they come round after 2^31 files).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Id {
    pub(crate) fn of(stat: &Stat) -> Id {
        Id { dev: stat.dev, ino: stat.ino }
    }
}

/// How the directory is reached after the spawn: the first of these that is available.
pub(crate) enum Address<S: Sys> {
    /// By its inode number, through this descriptor of its hierarchy, which all targets in the hierarchy share.
    /// Needs CAP_DAC_READ_SEARCH.
    Handle(Arc<S::Fd>),
    /// By a descriptor of its own. Once the directory was removed, lookups below the descriptor fail with ENOENT
    /// or ENODEV.
    Held { directory: S::Fd, _permit: Permit },
    /// By its path. The inode number that it leads to is compared each time.
    Path,
}

/// A directory pinned by its identity.
pub(crate) struct Identity<S: Sys> {
    pub(crate) id: Id,
    /// The inode number of its parent; `None` where it is not known: at the root of a bind mount, `..` leads to
    /// the directory above the mount point.
    parent: Option<NonZeroU64>,
    /// Its absolute path at the spawn.
    path: Arc<CStr>,
    address: Address<S>,
}

/// For each hierarchy, the open parent directory that was used last. Targets often have the same parent.
pub(crate) struct Parents<S: Sys> {
    open: Vec<Parent<S>>,
}

struct Parent<S: Sys> {
    id: Id,
    /// The mount that it was opened through, which may be read-only.
    mount: Arc<S::Fd>,
    directory: S::Fd,
}

impl<S: Sys> Parents<S> {
    pub(crate) fn new() -> Parents<S> {
        Parents { open: Vec::new() }
    }

    fn position(&self, mount: &Arc<S::Fd>, id: Id) -> Option<usize> {
        self.open.iter().position(|parent| parent.id == id && Arc::ptr_eq(&parent.mount, mount))
    }

    fn get(&mut self, sys: &S, mount: &Arc<S::Fd>, id: Id) -> io::Result<&S::Fd> {
        let at = match self.position(mount, id) {
            Some(at) => at,
            None => {
                let directory = sys.open_identity(mount, id.ino)?;
                self.open.retain(|parent| parent.id.dev != id.dev);
                self.open.push(Parent { id, mount: Arc::clone(mount), directory });
                self.open.len() - 1
            }
        };
        Ok(&self.open[at].directory)
    }

    /// Closes the open parents.
    pub(crate) fn let_go(&mut self) {
        self.open.clear();
    }
}

/// Where the name of a directory is looked up: below a descriptor, or as a path.
struct NameIn<'a, S: Sys> {
    at: Option<&'a S::Fd>,
    name: CString,
}

impl<S: Sys> Identity<S> {
    pub(crate) fn new(
        path: &Path,
        id: Id,
        parent: Option<NonZeroU64>,
        address: Address<S>,
    ) -> io::Result<Identity<S>> {
        Ok(Identity { id, parent, path: c_path(path)?.into(), address })
    }

    /// Its path at the spawn.
    pub(crate) fn path(&self) -> &Path {
        as_path(&self.path)
    }

    /// The same, for callers that keep it.
    pub(crate) fn shared_path(&self) -> Arc<CStr> {
        Arc::clone(&self.path)
    }

    /// The descriptor that is held for it, if there is one.
    pub(crate) fn held(&self) -> Option<&S::Fd> {
        match &self.address {
            Address::Held { directory: fd, .. } => Some(fd),
            Address::Handle(_) | Address::Path => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_by_handle(&self) -> bool {
        self.parent.is_some() && matches!(self.address, Address::Handle(_))
    }

    /// Closes the descriptor that is held for it, if there is one.
    pub(crate) fn let_go(&mut self) {
        if self.held().is_some() {
            self.address = Address::Path;
        }
    }

    /// Opens the directory.
    pub(crate) fn open(&self, sys: &S) -> Result<S::Fd, Failed> {
        if let Address::Handle(mount) = &self.address {
            match sys.open_identity(mount, self.id.ino) {
                Ok(fd) => return Ok(fd),
                Err(error) => match meaning(Call::Handle, &error) {
                    // The path tells whether it is there all the same.
                    Meaning::Gone => {
                        return self.open_path(sys).map_err(|error| match is_short(&error) {
                            true => error.into(),
                            false => io::Error::from_raw_os_error(libc::ENOENT).into(),
                        });
                    }
                    // The caller has dropped the capability.
                    Meaning::Denied => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(self.open_path(sys)?)
    }

    /// Opens the directory by its path.
    fn open_path(&self, sys: &S) -> io::Result<S::Fd> {
        let fd = sys.open(None, &self.path, Open::Place)?;
        match Id::of(&sys.stat(Some(&fd), c"")?) == self.id {
            true => Ok(fd),
            // As a held descriptor would return. `fate` then finds out whether the directory was removed or replaced.
            false => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Whether the directory exists, under any name; `None` if only its path can tell.
    fn is_there(&self, sys: &S) -> io::Result<Option<bool>> {
        let is_alive = |fd: &S::Fd| match sys.stat(Some(fd), c"cgroup.procs") {
            Ok(_) => Ok(Some(true)),
            Err(error) if is_gone(&error) => Ok(Some(false)),
            Err(error) => Err(error),
        };
        match &self.address {
            Address::Path => Ok(None),
            Address::Held { directory, .. } => is_alive(directory),
            Address::Handle(mount) => match sys.open_identity(mount, self.id.ino) {
                // Older kernels (5.10) open a removed directory as well, as long as a file in it is open
                // (`kernfs_find_and_get_node_by_id`).
                Ok(fd) => is_alive(&fd),
                Err(error) => match meaning(Call::Handle, &error) {
                    // ESTALE also stands for an inode or a file that could not be allocated (`do_handle_to_path`,
                    // `__kernfs_fh_to_dentry`).
                    Meaning::Gone if self.is_seen_at_path(sys)? => Ok(Some(true)),
                    Meaning::Gone => opens_root(sys, mount).map(|opens| opens.then_some(false)),
                    Meaning::Denied => Ok(None),
                    _ => Err(error),
                },
            },
        }
    }

    /// Whether its path leads to it. No file is opened. An error only if the machine is short of memory: any other may be
    /// one of the directories above the mount, which a directory that is known by its handle does not depend on.
    fn is_seen_at_path(&self, sys: &S) -> io::Result<bool> {
        let found = match sys.stat(None, &self.path) {
            Ok(stat) if Id::of(&stat) != self.id => return Ok(false),
            Ok(_) => sys.stat(None, &c_path(&self.path().join("cgroup.procs"))?),
            error => error,
        };
        match found {
            Err(error) if is_short(&error) => Err(error),
            found => Ok(found.is_ok()),
        }
    }

    /// Finds out what happened to the directory; `None` if it exists.
    pub(crate) fn fate(&self, sys: &S, parents: &mut Parents<S>) -> Result<Option<Fate>, Cause> {
        let there = self.is_there(sys)?;
        if there == Some(true) {
            return Ok(None);
        }
        let found = match self.place(sys, parents) {
            Ok(NameIn { at: None, name }) if there == Some(false) => match sys.stat(None, &name) {
                // It is gone. A path that cannot be followed to its name shows no other directory of that name.
                Err(error) if !is_short(&error) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                found => found,
            },
            Ok(place) => sys.stat(place.at, &place.name),
            Err(error) => Err(error),
        };
        self.judge(sys, there, found)
    }

    /// Finds out what happened to a directory that was removed, or may have been, from the directory that its
    /// name leads to now.
    fn judge(&self, sys: &S, there: Option<bool>, found: io::Result<Stat>) -> Result<Option<Fate>, Cause> {
        let by_path = there.is_none();
        match found {
            Ok(stat) if Id::of(&stat) == self.id => Ok(if by_path { None } else { Some(Fate::Removed) }),
            // A mount hides it, or hides where it was.
            Ok(stat) if stat.dev != self.id.dev && by_path => Err(Cause::NameLost),
            Ok(stat) if stat.dev != self.id.dev => Ok(Some(Fate::Removed)),
            // Another cgroup has the name of one that was renamed.
            Ok(_) if by_path && !self.is_removed(sys)? => Err(Cause::NameLost),
            Ok(_) => Ok(Some(Fate::Replaced)),
            Err(error) if is_gone(&error) && by_path && !self.is_removed(sys)? => Err(Cause::NameLost),
            Err(error) if is_gone(&error) => Ok(Some(Fate::Removed)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a directory to which its path does not lead was removed. False if it may be renamed or hidden by a mount.
    fn is_removed(&self, sys: &S) -> io::Result<bool> {
        for above in self.path().ancestors().skip(1) {
            let directory = match sys.open(None, &above_path(above)?, Open::Place) {
                Ok(directory) => directory,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            let id = Id::of(&sys.stat(Some(&directory), c"")?);
            if id.dev != self.id.dev {
                return Ok(false);
            }
            if self.parent.is_some_and(|parent| parent.get() == id.ino) {
                return Ok(self.name_in(sys, &directory, c".")?.is_none());
            }
            // Its parent is not there either. A v1 directory above may have been renamed (`cgroup1_rename`).
            return Ok(Version::of(sys, &directory)? == Some(Version::V2));
        }
        Ok(true)
    }

    /// The name that it has in a directory, as seen from `at`, if it has one.
    fn name_in(&self, sys: &S, at: &S::Fd, directory: &CStr) -> io::Result<Option<(CString, Stat)>> {
        for name in sys.subdirectories(at, directory)? {
            let path = c_path(&Path::new(OsStr::from_bytes(directory.to_bytes())).join(name))?;
            match sys.stat(Some(at), &path) {
                Ok(stat) if Id::of(&stat) == self.id => return Ok(Some((path, stat))),
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Where its name is looked up: in its parent at the spawn, or by its path if the parent cannot be opened.
    fn place<'a>(&'a self, sys: &S, parents: &'a mut Parents<S>) -> io::Result<NameIn<'a, S>> {
        let by_path = || NameIn { at: None, name: self.path.as_ref().into() };
        let Some(parent) = self.parent else { return Ok(by_path()) };
        match &self.address {
            Address::Handle(mount) => {
                match parents.get(sys, mount, Id { dev: self.id.dev, ino: parent.get() }) {
                    Ok(fd) => Ok(NameIn { at: Some(fd), name: self.name().into() }),
                    Err(error) => match meaning(Call::Handle, &error) {
                        Meaning::Gone | Meaning::Denied => Ok(by_path()),
                        _ => Err(error),
                    },
                }
            }
            // `..` also works from a removed directory.
            Address::Held { directory: fd, .. } => Ok(NameIn { at: Some(fd), name: above(self.name()) }),
            Address::Path => Ok(by_path()),
        }
    }

    fn name(&self) -> &CStr {
        let bytes = self.path.to_bytes_with_nul();
        let start = bytes.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        CStr::from_bytes_with_nul(&bytes[start..]).unwrap_or_default()
    }

    /// Finds the name that leads to it now.
    ///
    /// A v1 directory can be renamed, within its parent (`cgroup1_rename`).
    pub(crate) fn find<'a>(
        &'a self,
        sys: &S,
        parents: &'a mut Parents<S>,
    ) -> Result<FoundName<'a, S>, Failed> {
        let mut place = self.place(sys, parents)?;
        let found = sys.stat(place.at, &place.name);
        match found {
            Ok(stat) if Id::of(&stat) == self.id => return Ok(FoundName { place, stat }),
            Err(error) if !is_gone(&error) => return Err(error.into()),
            _ => {}
        }
        let there = self.is_there(sys)?;
        if there != Some(true) {
            let fate = self.judge(sys, there, found)?;
            return Err(fate.map_or(Failed::Because(Cause::NameLost), Failed::Gone));
        }
        let Some(at) = place.at else { return Err(Failed::Because(Cause::NameLost)) };
        let directory = if self.held().is_some() { c".." } else { c"." };
        // If a mount covers the parent, `..` leads into that mount.
        let parent = Id::of(&sys.stat(Some(at), directory)?);
        if self.parent.is_none_or(|ino| parent != (Id { dev: self.id.dev, ino: ino.get() })) {
            return Err(Failed::Because(Cause::NameLost));
        }
        match self.name_in(sys, at, directory)? {
            Some((name, stat)) => {
                place.name = name;
                Ok(FoundName { place, stat })
            }
            // Something is mounted over it: rmdir(2) would fail in the same way.
            None => Err(io::Error::from_raw_os_error(libc::EBUSY).into()),
        }
    }

    /// Whether its path leads to another directory, for instance to the root of a mount on it.
    pub(crate) fn is_covered(&self, sys: &S) -> bool {
        sys.stat(None, &self.path).is_ok_and(|stat| Id::of(&stat) != self.id)
    }

    /// Calls rmdir(2) with the name at the spawn, for a directory that cannot be renamed (v2), and of which an open file
    /// was read just now: the read has shown that the directory still exists, so the name leads to it. `None` if another
    /// call would be needed in between.
    pub(crate) fn rmdir(&self, sys: &S, parents: &mut Parents<S>) -> Option<io::Result<()>> {
        let parent = Id { dev: self.id.dev, ino: self.parent?.get() };
        match &self.address {
            Address::Handle(mount) => {
                let at = parents.position(mount, parent)?;
                Some(sys.rmdir(Some(&parents.open[at].directory), self.name()))
            }
            // From a held directory, `..` leads into a mount that covers the parent, and a path may lead there
            // too.
            Address::Held { .. } | Address::Path => None,
        }
    }
}

/// A directory found by its name.
pub(crate) struct FoundName<'a, S: Sys> {
    place: NameIn<'a, S>,
    stat: Stat,
}

impl<S: Sys> FoundName<'_, S> {
    /// The name, and the directory in which it is looked up. Without a directory the name is an absolute path.
    pub(crate) fn place(&self) -> (Option<&S::Fd>, &CStr) {
        (self.place.at, &self.place.name)
    }

    pub(crate) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Calls rmdir(2), which takes a name. The identity was compared directly before; the kernel has no call that does
    /// both.
    pub(crate) fn rmdir(&self, sys: &S) -> io::Result<()> {
        sys.rmdir(self.place.at, &self.place.name)
    }
}

/// The ids of a directory and of those above it in its filesystem: so many levels, or as far up as a mount shows them.
pub(crate) fn ids_upwards<S: Sys>(sys: &S, directory: &S::Fd, levels: usize) -> io::Result<Vec<Id>> {
    let mut ids = vec![Id::of(&sys.stat(Some(directory), c"")?)];
    let mut here = None;
    while ids.len() <= levels {
        let above = sys.open(Some(here.as_ref().unwrap_or(directory)), c"..", Open::Place)?;
        let id = Id::of(&sys.stat(Some(&above), c"")?);
        // `..` leads from the root to itself, or above the mount point.
        if id.dev != ids[0].dev || ids.contains(&id) {
            break;
        }
        ids.push(id);
        here = Some(above);
    }
    Ok(ids)
}

/// Whether handles can be opened at the moment: that of the mount's root, which is always there. An error if the machine is
/// short of files or memory.
fn opens_root<S: Sys>(sys: &S, mount: &S::Fd) -> io::Result<bool> {
    let opened = sys.stat(Some(mount), c"").and_then(|root| sys.open_identity(mount, root.ino));
    match opened {
        Ok(_) => Ok(true),
        // A removed cgroup is mounted.
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) => match meaning(Call::Handle, &error) {
            Meaning::Gone => Ok(true),
            Meaning::Denied => Ok(false),
            _ => Err(error),
        },
    }
}

fn is_short(error: &io::Error) -> bool {
    meaning(Call::Cgroup, error) == Meaning::Short
}

/// The name of a sibling, as seen from a directory.
fn above(name: &CStr) -> CString {
    let path: PathBuf = Path::new("..").join(OsStr::from_bytes(name.to_bytes()));
    c_path(&path).unwrap_or_default()
}
