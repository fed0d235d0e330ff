//! Undoing freezes.

use std::io;
use std::path::{Path, PathBuf};

use super::errors::{Cause, Failed, Refused, is_gone};
use super::external_freeze::{self, Undone};
use super::hierarchy::{HasFreezer, Hierarchy};
use super::identity::ids_upwards;
use super::mounts::{self, MOUNTINFO};
use super::proc::Proc;
use super::step::Step;
use super::target::Progress;
use super::traversal::{FEW, Traversal};
use super::tree::{Directories, Tree};
use super::walk::{LONGEST, unless_gone};
use super::{v1, v2};
use crate::machine::{ThawScope, Thawed};
use crate::outcome::Act;
use crate::sys::Sys;
use crate::time::Instant;

/// The rest of a thaw: descendants that may be frozen by themselves.
pub(crate) struct ThawBelow {
    scope: ThawScope,
    /// The result for the roots.
    roots: Thawed,
    traversal: Traversal<()>,
    /// When the thaw is given up: members may make cgroups faster than they are found. The next attempt thaws them.
    late_at: Instant,
}

impl<S: Sys> Step<'_, '_, S> {
    /// Undoes the freezes inside the target.
    pub(crate) fn thaw(&mut self, scope: ThawScope) -> Thawed {
        if self.target.may_be_own {
            return Thawed::All;
        }
        // A directory of which this is not known is not frozen by us.
        let unknown = self.find_freezer();
        let mut roots = Thawed::All;
        // The directories that are frozen by us are thawed before anything is listed.
        let refused = self.each(|context, tree, directories| {
            if is_wanted(tree, scope) {
                context.metrics.thaws += 1;
                roots = roots.max(thaw_root(context.sys, tree, directories)?);
            }
            Ok(())
        });
        // The roots are work enough for a call whose time is up.
        let traversal = Traversal::after(unknown.or(refused));
        let late_at = Instant::after_start(self.context.sys.now()).saturating_add(LONGEST);
        self.thaw_below(ThawBelow { scope, roots, traversal, late_at }, 0)
    }

    /// Continues a thaw for which the time of a call was too short.
    pub(crate) fn continue_thaw(&mut self) -> Thawed {
        let Some(below) = self.target.progress.take_thaw() else { return Thawed::All };
        match self.thaw_below(below, FEW) {
            // The freeze of an ancestor may have ended since the thaw began.
            Thawed::HeldFromOutside => self.held_by_ancestor(),
            thawed => thawed,
        }
    }

    /// Reads whether the freeze of an ancestor holds any root.
    fn held_by_ancestor(&mut self) -> Thawed {
        let mut held = false;
        let refused = self.each(|context, tree, directories| {
            if tree.hierarchy.is_freezer() {
                let root = directories.get(context.sys, &tree.identity)?;
                held |= v1::held_from_above(context.sys, root, Path::new(""))?;
            }
            Ok(())
        });
        match refused {
            Some(refused) => self.thaw_refused(refused),
            None if held => Thawed::HeldFromOutside,
            None => Thawed::All,
        }
    }

    /// Thaws the directories below the roots that are frozen by themselves. Visits `least` directories, or as
    /// many as the time allows.
    fn thaw_below(&mut self, below: ThawBelow, least: usize) -> Thawed {
        let ThawBelow { scope, roots, mut traversal, late_at } = below;
        let limit = self.context.limit.until(late_at);
        let refused = self.each(|context, tree, directories| {
            let has_none = directories.is_leaf(tree.identity.id);
            if has_none || !is_wanted(tree, scope) || !traversal.enter(tree.identity.id) {
                return Ok(());
            }
            let (sys, is_v1) = (context.sys, tree.hierarchy.is_freezer());
            let mut refused = None;
            traversal.visit(sys, limit, least, (tree, directories), |root, dir, _| {
                refused = thaw_descendant(sys, is_v1, root, dir).err().or(refused.take());
                Ok(None)
            })?;
            refused.map_or(Ok(()), |error| Err(error.into()))
        });
        if traversal.unfinished && Instant::after_start(self.context.sys.now()) < late_at {
            let below = ThawBelow { scope, roots, traversal: traversal.rest(refused), late_at };
            self.target.progress = Progress::Thaw(Box::new(below));
            return Thawed::Unfinished;
        }
        let failures = [traversal.why, refused].into_iter().flatten();
        match failures.map(|failure| self.thaw_refused(failure)).max() {
            Some(thawed) => roots.max(thawed),
            None => {
                // The obstacle of an external freeze names a file outside the target.
                let own: Vec<PathBuf> = self.target.trees.iter().map(|tree| tree.path().into()).collect();
                self.forget_obstacle(|past| past.act == Act::Thaw && own.contains(&past.path));
                roots
            }
        }
    }

    /// Returns those of the freezer cgroups that are neither in the target nor above it.
    fn outside(&self, dirs: Vec<PathBuf>) -> Result<Vec<PathBuf>, Refused> {
        let sys = self.context.sys;
        let mut own = Vec::new();
        let freezers = self.target.trees.iter().filter(|tree| tree.hierarchy.is_freezer());
        for tree in freezers.filter(|_| !dirs.is_empty()) {
            let opened = tree.identity.open(sys);
            match opened.and_then(|directory| Ok(ids_upwards(sys, &directory, usize::MAX)?)) {
                Ok(ids) => own.push(ids),
                // Removed, or not to be found: no member is in there that could be named.
                Err(Failed::Gone(_)) => {}
                Err(Failed::Because(cause)) if matches!(&cause, Cause::Error(error) if is_gone(error)) => {}
                Err(Failed::Because(cause)) => return Err((tree.path().into(), cause)),
            }
        }
        external_freeze::outside(sys, dirs, &own)
    }

    /// Thaws external freezes that hold no process but members of the target.
    pub(crate) fn thaw_external(&mut self) -> Thawed {
        if self.target.may_be_own {
            return Thawed::All;
        }
        if let Some(refused) = self.find_freezer() {
            return self.thaw_refused(refused);
        }
        let sys = self.context.sys;
        let proc = match Proc::open(sys) {
            Ok(Some(proc)) => proc,
            // Without a /proc of the caller's pid namespace, external freezes cannot be found. There may be no
            // mountinfo either.
            Ok(None) => return Thawed::All,
            Err(error) => return self.look_refused(("/proc".into(), error.into())),
        };
        let mounts = match mounts::recent(sys, &self.context.resolver.mounts) {
            Ok(mounts) => mounts,
            Err(error) => return self.look_refused((MOUNTINFO.into(), error.into())),
        };
        // Without a complete list, the members that the last attempt has handled.
        let asked = self.findings.all_members().map_or(self.target.tracked.tried(), |members| &members.pids);
        let (dirs, unasked) = external_freeze::find(&proc, &mounts, asked);
        // Its descriptor may be needed.
        drop(proc);
        let dirs = match self.outside(dirs) {
            Ok(dirs) => dirs,
            Err(refused) => return self.thaw_refused(refused),
        };
        let mut undone = Undone { held: false, refused: None };
        if !dirs.is_empty() {
            // If the list were not complete, other members would count as processes outside of the target.
            undone = match self.list_all_by_threads(LONGEST) {
                Ok(members) => external_freeze::thaw(sys, &dirs, &members),
                Err(refused) => return self.thaw_refused(refused),
            };
        }
        if let Some(refused) = undone.refused {
            return self.thaw_refused(refused);
        }
        let thawed = if undone.held { Thawed::HeldFromOutside } else { Thawed::All };
        match unasked {
            Some(refused) => thawed.max(self.look_refused(refused)),
            None => {
                self.forget_obstacle(|past| past.act == Act::Thaw);
                thawed
            }
        }
    }

    /// Notes why external freezes cannot be looked for. If the caller may not look, there may be none: that ends no reap.
    fn look_refused(&mut self, refused: Refused) -> Thawed {
        match self.thaw_refused(refused) {
            Thawed::Denied => Thawed::All,
            thawed => thawed,
        }
    }

    fn thaw_refused(&mut self, (path, cause): Refused) -> Thawed {
        let denied = cause.is_denied();
        self.note_obstacle(Act::Thaw, (path, cause));
        if denied { Thawed::Denied } else { Thawed::Failed }
    }
}

/// Thaws the root of a tree, and with it the directories that are frozen through it.
fn thaw_root<S: Sys>(
    sys: &S,
    tree: &mut Tree<S>,
    directories: &mut Directories<S>,
) -> Result<Thawed, Failed> {
    let root = Path::new("");
    let is_v1 = tree.hierarchy.is_freezer();
    let thawed = match tree.frozen_by.take() {
        Some(control) => {
            if let Err(error) = control.thaw(sys, is_v1) {
                tree.frozen_by = Some(control);
                return Err(error.into());
            }
            // The write has undone our freeze, whatever a read says.
            !is_v1 || v1::is_thawed(sys, &control.file)?
        }
        None if is_v1 => v1::thaw(sys, directories.get(sys, &tree.identity)?, root)?,
        None => v2::thaw(sys, directories.get(sys, &tree.identity)?, root).map(|()| true)?,
    };
    let held = !thawed && v1::held_from_above(sys, directories.get(sys, &tree.identity)?, root)?;
    Ok(if held { Thawed::HeldFromOutside } else { Thawed::All })
}

/// Thaws a directory below the root of a tree. If it is frozen after that, it is frozen through the root, or by another
/// program; the next attempt thaws it again.
fn thaw_descendant<S: Sys>(sys: &S, is_v1: bool, root: &S::Fd, dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() {
        return Ok(());
    }
    let thawed = if is_v1 { v1::thaw(sys, root, dir).map(|_| ()) } else { v2::thaw(sys, root, dir) };
    unless_gone(dir, thawed).map(|_| ())
}

/// Whether a thaw of this scope includes the tree.
fn is_wanted<S: Sys>(tree: &Tree<S>, scope: ThawScope) -> bool {
    match tree.hierarchy {
        Hierarchy::V1(freezer) => freezer == HasFreezer::Present,
        Hierarchy::V2 { .. } => scope == ThawScope::All,
    }
}
