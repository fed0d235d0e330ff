//! Resolves the caller's name of a target to pinned directories, or refuses it, before anything is touched.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::context::{Limit, Resolver};
use super::errors::{Call, Cause, Failed, Meaning, is_out_of_descriptors, meaning};
use super::file::{self, c_path};
use super::freeze::{ask_freezer, find_freezer};
use super::hierarchy::{HasFreezer, Hierarchy, Version};
use super::identity::{Address, Id, Identity, Parents};
use super::listing::Listing;
use super::location::{Candidate, OpenDirectory, at, at_fd, check_kind, named_hierarchies, open_named};
use super::members::MemberList;
use super::mounts::{lock, open_root};
use super::own_cgroup::{is_caller_in, is_known_in};
use super::step::Findings;
use super::target::{CgroupKill, Progress, Target};
use super::tracked::Tracked;
use super::tree::{Directories, Tree};
use super::walk::is_leaf;
use super::{systemd, v2};
use crate::outcome::Refusal;
use crate::reaper::{KillMethod, Location, Reaper};
use crate::sys::{Stat, Sys};

/// The result of the search for the caller.
struct OwnSearch<S: Sys> {
    /// The members of the v1 directories, for the first check.
    v1_members: Option<MemberList>,
    /// The rest of the search, if it was not complete.
    left: Option<Listing<S>>,
    is_large_tree: bool,
    /// Whether no directory was gone, so that the caller is known to be outside of all.
    all_there: bool,
}

impl<S: Sys> Resolver<S> {
    /// Checks the directories that `reaper` names, and pins them. Changes nothing. The findings are valid only for a
    /// first step on the same thread, directly after.
    ///
    /// Once the time of the call is up, a large v1 tree is not searched for the caller. The first check searches it, if /proc
    /// and the mounts do not tell where the caller is.
    pub(crate) fn resolve(&self, reaper: &Reaper, limit: Limit) -> Result<(Target<S>, Findings<S>), Refusal> {
        reaper.check()?;
        let mut directories = Directories::default();
        let Resolved { mut trees, missing } = resolve(self, reaper, &mut directories)?;
        if let Some(first) = trees.first().map(|tree| tree.path().to_path_buf()) {
            if !self.supports(&mut trees, &mut directories, reaper.method)? {
                return Err(Refusal::Unsupported { method: reaper.method, path: first });
            }
        }
        let OwnSearch { v1_members, left, is_large_tree, all_there } =
            self.refuse_own(&trees, &mut directories, limit)?;
        let is_systemds = self.is_systemds(&trees, &mut directories)?;
        let not_chosen = matches!(reaper.method, KillMethod::Pidfd | KillMethod::Freezer);
        let target = Target {
            missing,
            trees: trees.into(),
            tracked: Tracked::new(),
            cgroup_kill: if not_chosen { CgroupKill::NotChosen } else { CgroupKill::Untried },
            may_be_own: left.is_some(),
            kills: 0,
            lists_threads: false,
            has_unmapped: false,
            has_written: false,
            is_large_tree,
            progress: left.map_or(Progress::None, |listing| Progress::Check(Box::new(listing))),
            kill_by_helper: None,
            removal_by_helper: None,
            kill_without_freezer: reaper.kill_without_freezer
                || matches!(&reaper.place, Location::Named { options, .. } if options.kill_without_freezer),
            releases: reaper.release_memory.then(Box::default),
            keep_dir: reaper.keep_dir || is_systemds,
            sparing: false,
            obstacle: None,
        };
        let findings = Findings { directories, caller_outside: all_there, v1_members, ..Findings::default() };
        Ok((target, findings))
    }

    /// Refuses a directory that the caller is in.
    fn refuse_own(
        &self,
        trees: &[Tree<S>],
        directories: &mut Directories<S>,
        limit: Limit,
    ) -> Result<OwnSearch<S>, Refusal> {
        let sys = &self.sys;
        let mut listing = Listing::at_spawn();
        let (mut unknown, mut all_there) = (false, true);
        for tree in trees {
            let own = if tree.hierarchy.is_v1() {
                let listed = listing.add(self, limit, tree, directories);
                listing.members.finish();
                listed.and_then(|()| match listing.members.contains_caller(sys) {
                    Ok(inside) if inside || !listing.is_unfinished() => Ok(inside),
                    uncertain => match is_known_in(sys, &self.own, &self.mounts, tree) {
                        Some(inside) => Ok(inside),
                        None if listing.members.garbled => Ok(uncertain?),
                        // The first check goes on with the list, or lists the tree anew.
                        None => {
                            unknown = true;
                            Ok(false)
                        }
                    },
                })
            } else {
                is_caller_in(sys, &self.own, &self.mounts, tree, directories)
            };
            // If this directory is gone, the others are still to be checked.
            match self.or_gone(tree, own.map(Some), None)? {
                Some(false) => {}
                Some(true) => return Err(Refusal::OwnCgroup { path: tree.path().into() }),
                None => all_there = false,
            }
        }
        let is_large_tree = listing.large || listing.is_unfinished();
        let has_v1 = trees.iter().any(|tree| tree.hierarchy.is_v1());
        let is_whole = has_v1 && all_there && !listing.is_unfinished() && !listing.members.is_uncertain();
        let (v1_members, left) = match unknown {
            true => (None, Some(listing.rest(None))),
            false => (is_whole.then_some(listing.members), None),
        };
        Ok(OwnSearch { v1_members, left, is_large_tree, all_there })
    }

    /// Whether the cgroup of a unit of systemd is among the directories.
    fn is_systemds(&self, trees: &[Tree<S>], directories: &mut Directories<S>) -> Result<bool, Refusal> {
        for tree in trees.iter().filter(|tree| systemd::has_unit_name(tree.path())) {
            let asked = directories
                .get(&self.sys, &tree.identity)
                .and_then(|dir| Ok(systemd::is_unit(&self.sys, dir, tree.path())?));
            if self.or_gone(tree, asked, false)? {
                log::info!("{}: left to systemd, once it is empty", tree.path().display());
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the answer about a directory, or `gone` if the directory is gone: the first check then finds out
    /// whether it was removed or replaced.
    fn or_gone<T>(&self, tree: &Tree<S>, asked: Result<T, Failed>, gone: T) -> Result<T, Refusal> {
        match asked {
            Ok(answer) => Ok(answer),
            Err(failed) => match self.cause(tree, failed) {
                None => Ok(gone),
                Some(cause) => Err(Refusal::io(tree.path(), cause.into_error())),
            },
        }
    }

    /// Returns why an action failed in a directory that exists; `None` if it is gone, or cannot be reached any more.
    fn cause(&self, tree: &Tree<S>, failed: Failed) -> Option<Cause> {
        match failed {
            Failed::Gone(_) => None,
            Failed::Because(cause) => match tree.identity.fate(&self.sys, &mut Parents::new()) {
                Ok(Some(_)) | Err(Cause::NameLost) => None,
                Ok(None) | Err(_) => Some(cause),
            },
        }
    }

    /// Whether the target supports a method.
    fn supports(
        &self,
        trees: &mut [Tree<S>],
        directories: &mut Directories<S>,
        method: KillMethod,
    ) -> Result<bool, Refusal> {
        let sys = &self.sys;
        let mut all = true;
        let mut any = false;
        for tree in trees {
            let has = match (method, &tree.hierarchy) {
                (KillMethod::Auto | KillMethod::Pidfd, _) => return Ok(true),
                // `cgroup.kill` reaches only the v2 hierarchy, so it cannot kill in others.
                (KillMethod::CgroupKill, Hierarchy::V1(_)) => Ok(false),
                (KillMethod::CgroupKill, Hierarchy::V2 { .. }) => has_file(sys, tree, directories, v2::KILL),
                (KillMethod::Freezer, Hierarchy::V1(_)) => {
                    find_freezer(sys, tree, directories).map(|()| tree.hierarchy.is_freezer())
                }
                (KillMethod::Freezer, Hierarchy::V2 { .. }) => has_file(sys, tree, directories, v2::FREEZE),
            };
            let has = self.or_gone(tree, has, true)?;
            all &= has;
            any |= has;
        }
        Ok(if method == KillMethod::Freezer { any } else { all })
    }
}

/// Whether the directory of a tree has a file.
fn has_file<S: Sys>(
    sys: &S,
    tree: &Tree<S>,
    directories: &mut Directories<S>,
    name: &CStr,
) -> Result<bool, Failed> {
    Ok(file::has(sys, directories.get(sys, &tree.identity)?, name)?)
}

/// The directories that a name leads to.
struct Resolved<S: Sys> {
    /// The directories that exist, each once.
    trees: Vec<Tree<S>>,
    /// The first path that was named, if no directory exists.
    missing: Option<Arc<CStr>>,
}

/// Finds the directories that `reaper` names.
fn resolve<S: Sys>(
    resolver: &Resolver<S>,
    reaper: &Reaper,
    directories: &mut Directories<S>,
) -> Result<Resolved<S>, Refusal> {
    let sys = &resolver.sys;
    let mut trees: Vec<Tree<S>> = Vec::new();
    let mut removed = None;
    match &reaper.place {
        Location::Dir(dir) => {
            // Thousands of reaps wait at once, so no more memory is reserved than needed.
            trees.reserve_exact(1);
            if let Some((path, fd)) = at(sys, dir)? {
                trees.push(pin(resolver, path, fd, directories)?);
            }
        }
        Location::Fd(fd) => {
            trees.reserve_exact(1);
            let OpenDirectory { path, fd } = at_fd(sys, fd)?;
            match fd {
                Some(fd) => trees.push(pin(resolver, path, fd, directories)?),
                None => removed = Some(path),
            }
        }
        Location::Named { options, name } => {
            let hierarchies = named_hierarchies(options, name)?;
            trees.reserve_exact(hierarchies.len());
            for hierarchy in hierarchies {
                let open = || -> Result<Option<Candidate<S>>, Refusal> {
                    open_named(sys, hierarchy.clone(), options, name)
                };
                let opened = match open() {
                    // Closes the directories that earlier checks have opened, because one free descriptor is
                    // enough to go on.
                    Err(Refusal::Io { source, .. })
                        if is_out_of_descriptors(&source) && directories.close() =>
                    {
                        open()
                    }
                    opened => opened,
                };
                let Some((path, fd)) = opened? else { continue };
                let tree = pin(resolver, path, fd, directories)?;
                if trees.iter().all(|other| other.identity.id != tree.identity.id) {
                    trees.push(tree);
                }
            }
        }
    }
    let missing = trees.is_empty().then(|| {
        let named = removed.or_else(|| reaper.named_path()).unwrap_or_default();
        let named = std::path::absolute(&named).unwrap_or(named);
        c_path(&named).unwrap_or_default().into()
    });
    Ok(Resolved { trees, missing })
}

/// Pins a directory that may be reaped.
fn pin<S: Sys>(
    resolver: &Resolver<S>,
    path: PathBuf,
    fd: S::Fd,
    directories: &mut Directories<S>,
) -> Result<Tree<S>, Refusal> {
    let sys = &resolver.sys;
    let stat = check_kind(sys, &fd, &path)?;
    let id = Id::of(&stat);
    let io = |source| Refusal::io(&path, source);
    let known = lock(&resolver.mounts).known(&stat);
    let (version, freezer, by_handle) = match known {
        Some(known) => known,
        // Not under the lock: on some filesystems the call asks a server, which may be gone.
        None => match Version::of(sys, &fd).map_err(io)? {
            Some(version) => {
                let freezer = match version {
                    Version::V1 => ask_freezer(sys, &fd).unwrap_or(HasFreezer::Unasked),
                    Version::V2 => HasFreezer::Absent,
                };
                let by_handle = try_handle(sys, &fd, &stat);
                if let Ok(by_handle) = &by_handle {
                    lock(&resolver.mounts).remember(&stat, version, freezer, by_handle.clone());
                }
                (version, freezer, by_handle.ok().flatten())
            }
            None => return Err(Refusal::NotCgroup { path }),
        },
    };
    // There is no directory above the root of a hierarchy or of a cgroup namespace, and one of another cgroup, or of another
    // filesystem, above that of a mount.
    let above = Id::of(&sys.stat(Some(&fd), c"..").map_err(io)?);
    if above == id || above.dev != id.dev || stat.mount_root == Some(true) {
        return Err(Refusal::Root { path });
    }
    // At the root of a mount, which is not known to be one before Linux 5.8, `..` leads above the mount point. The directory there
    // is not the parent, though it may have an entry of the same name.
    let is_parent = stat.mount_root == Some(false) || {
        let by_name = Path::new("..").join(path.file_name().unwrap_or_default());
        let named = c_path(&by_name).and_then(|name| sys.stat(Some(&fd), &name));
        stat.mount_root.is_none() && named.is_ok_and(|named| Id::of(&named) == id)
    };
    let parent = NonZeroU64::new(above.ino).filter(|_| is_parent);
    if is_leaf(&stat) {
        directories.insert_leaf(id);
    }
    let mut fd = Some(fd);
    let address = match by_handle {
        Some(mount) => Address::Handle(mount),
        None => match (resolver.budget.take_optional(), fd.take()) {
            (Some(permit), Some(fd)) => Address::Held { directory: fd, _permit: permit },
            (_, left) => {
                fd = left;
                Address::Path
            }
        },
    };
    if let Some(fd) = fd {
        directories.insert(id, fd);
    }
    let identity = Identity::new(&path, id, parent, address).map_err(|source| Refusal::io(path, source))?;
    Ok(Tree::new(identity, Hierarchy::new(version, freezer)))
}

/// Opens the descriptor for open_by_handle_at(2) in this hierarchy. `None` if the kernel or the caller's rights do
/// not allow it; an error if this cannot be decided now.
fn try_handle<S: Sys>(sys: &S, dir: &S::Fd, stat: &Stat) -> io::Result<Option<Arc<S::Fd>>> {
    let root = match open_root(sys, dir, stat) {
        Ok(root) => root,
        Err(error) if meaning(Call::Cgroup, &error) == Meaning::Denied => return Ok(None),
        Err(error) => return Err(error),
    };
    // The handle is the inode number from 5.5 on, and on 32-bit kernels its lower half. Before, it opens nothing, or another
    // directory.
    match sys.open_identity(&root, stat.ino) {
        Ok(opened) => {
            let same = Id::of(&sys.stat(Some(&opened), c"")?) == Id::of(stat);
            Ok(same.then(|| Arc::new(root)))
        }
        Err(error) => match meaning(Call::Handle, &error) {
            // The directory may have been removed meanwhile.
            Meaning::Gone => sys.stat(Some(dir), c"cgroup.procs").map(|_| None),
            Meaning::Short => Err(error),
            _ => Ok(None),
        },
    }
}
