//! What a target is, and what of it lasts from step to step.

use std::ffi::CStr;
use std::path::Path;
use std::sync::Arc;

use super::attempt::Rest;
use super::errors::{Fate, Obstacle};
use super::file::as_path;
use super::freeze::Search;
use super::helper_call::HelperCall;
use super::listing::Listing;
use super::release::Releases;
use super::remove::RemovalLeft;
use super::remove_by_helper::RemovalByHelper;
use super::thaw::ThawBelow;
use super::tracked::Tracked;
use super::tree::Tree;
use crate::machine::ExitNotice;
use crate::outcome::LastError;
use crate::sys::Sys;

/// One target: its directories, and the processes signalled in them.
pub(crate) struct Target<S: Sys> {
    pub(super) trees: Box<[Tree<S>]>,
    pub(super) tracked: Tracked<S>,
    pub(super) cgroup_kill: CgroupKill,
    pub(super) progress: Progress<S>,
    /// A write to `cgroup.kill` that a helper thread makes. A check does not discard it.
    pub(super) kill_by_helper: Option<Box<HelperCall>>,
    /// A removal that a helper thread makes.
    pub(super) removal_by_helper: Option<Box<RemovalByHelper>>,
    pub(super) kill_without_freezer: bool,
    /// If the memory of members that cannot exit is to be released: how far that has come.
    pub(super) releases: Option<Box<Releases>>,
    /// The directories stay: the caller keeps them, or systemd removes them.
    pub(crate) keep_dir: bool,
    /// It was too large to find out at the spawn whether the caller is in it. Nothing is done to it before the first check
    /// has found that out.
    pub(super) may_be_own: bool,
    /// It has many directories, as the last check has found.
    pub(super) is_large_tree: bool,
    /// The last act failed for want of descriptors: none is held, so that those that are left do for the next.
    pub(crate) sparing: bool,
    /// The first directory that the caller named, if none existed.
    pub(super) missing: Option<Arc<CStr>>,
    pub(super) obstacle: Option<Box<Obstacle>>,
}

/// What is known of `cgroup.kill` in the v2 directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupKill {
    Untried,
    /// The members are signalled in steps first, and it is written in the end.
    InSteps,
    /// It was written, and no more than that is known.
    Written,
    /// `cgroup.kill` was written, and members survived it, for instance processes whose leader has exited.
    NotEnough,
    /// The kernel has none, or the caller lacks the right.
    Unavailable,
    /// The chosen `KillMethod` does not use `cgroup.kill`.
    NotChosen,
}

impl CgroupKill {
    /// Whether members have to be known one by one.
    pub(super) fn needs_members(self) -> bool {
        matches!(self, CgroupKill::NotEnough | CgroupKill::Unavailable | CgroupKill::NotChosen)
    }

    pub(super) fn was_written(self) -> bool {
        matches!(self, CgroupKill::Written | CgroupKill::NotEnough)
    }
}

/// How far an action that takes several steps has come. A check discards it.
pub(super) enum Progress<S: Sys> {
    None,
    /// An attempt that sends signals.
    Attempt(Box<Rest<S>>),
    /// A check that lists the members.
    Check(Box<Listing<S>>),
    /// A freeze: the search for the caller before it.
    Freeze(Box<Search<S>>),
    /// A thaw: what is below the roots.
    Thaw(Box<ThawBelow>),
    Removal(Box<RemovalLeft>),
}

impl<S: Sys> Progress<S> {
    /// Takes that of an attempt.
    pub(super) fn take_attempt(&mut self) -> Option<Rest<S>> {
        match std::mem::replace(self, Progress::None) {
            Progress::Attempt(rest) => Some(*rest),
            _ => None,
        }
    }

    /// Takes that of a freeze.
    pub(super) fn take_freeze(&mut self) -> Option<Search<S>> {
        match std::mem::replace(self, Progress::None) {
            Progress::Freeze(search) => Some(*search),
            _ => None,
        }
    }

    /// Takes that of a thaw.
    pub(super) fn take_thaw(&mut self) -> Option<ThawBelow> {
        match std::mem::replace(self, Progress::None) {
            Progress::Thaw(below) => Some(*below),
            _ => None,
        }
    }

    /// Takes that of a removal.
    pub(super) fn take_removal(&mut self) -> Option<RemovalLeft> {
        match std::mem::replace(self, Progress::None) {
            Progress::Removal(left) => Some(*left),
            _ => None,
        }
    }
}

impl<S: Sys> Target<S> {
    /// The first directory that was there, or the first that the caller named where none was.
    pub(crate) fn path(&self) -> &Path {
        match (self.trees.first(), &self.missing) {
            (Some(tree), _) => tree.path(),
            (None, Some(missing)) => as_path(missing),
            (None, None) => Path::new(""),
        }
    }

    /// The same, to be kept.
    pub(crate) fn shared_path(&self) -> Arc<CStr> {
        match (self.trees.first(), &self.missing) {
            (Some(tree), _) => tree.identity.shared_path(),
            (None, Some(missing)) => Arc::clone(missing),
            (None, None) => Arc::default(),
        }
    }

    /// What kept the last act from being done, if something did.
    pub(crate) fn last_error(&self) -> Option<LastError<'_>> {
        self.obstacle.as_deref().map(Obstacle::error)
    }

    /// Whether it is known that the caller was outside at the spawn.
    #[cfg(test)]
    pub(crate) fn is_searched(&self) -> bool {
        !self.may_be_own
    }

    /// Whether there was anything at the spawn.
    pub(crate) fn found(&self) -> bool {
        !self.trees.is_empty()
    }

    /// Closes the descriptors that are watched. Returns false if there is none.
    pub(crate) fn unwatch(&mut self) -> bool {
        let watches = |target: &Target<S>| target.exit_notice() != ExitNotice::None;
        let watched = watches(self);
        self.tracked.let_go();
        self.trees.iter_mut().for_each(|tree| tree.hierarchy.let_go());
        watched
    }

    /// What became of the directories, if none is left.
    pub(super) fn fate(&self) -> Option<Fate> {
        let mut fate = Fate::Removed;
        for tree in &self.trees {
            if tree.fate? == Fate::Replaced {
                fate = Fate::Replaced;
            }
        }
        Some(fate)
    }

    /// Whether some directory was replaced.
    pub(super) fn is_replaced(&self) -> bool {
        self.trees.iter().any(|tree| tree.fate == Some(Fate::Replaced))
    }

    /// Whether all that is left of it is v1.
    pub(super) fn is_v1(&self) -> bool {
        self.trees.iter().all(|tree| tree.hierarchy.is_v1() || !tree.is_left())
    }

    /// Whether all that is left of it is v2.
    pub(super) fn is_v2(&self) -> bool {
        self.trees.iter().all(|tree| !tree.hierarchy.is_v1() || !tree.is_left())
    }

    /// Whether it is one directory, on v2, and that is left.
    pub(super) fn is_one_v2(&self) -> bool {
        matches!(&*self.trees, [tree] if tree.is_left() && !tree.hierarchy.is_v1())
    }

    /// Whether a directory that is left is in the v1 freezer's hierarchy. `Unasked` counts as no.
    pub(super) fn has_freezer(&self) -> bool {
        self.trees.iter().any(|tree| tree.is_left() && tree.hierarchy.is_freezer())
    }

    /// Whether a freeze of ours is to be undone.
    pub(crate) fn is_frozen_by_us(&self) -> bool {
        self.trees.iter().any(|tree| tree.frozen_by.is_some())
    }

    /// Whether all of its directories are addressed by handle.
    #[cfg(test)]
    pub(crate) fn is_by_handle(&self) -> bool {
        self.trees.iter().all(|tree| tree.identity.is_by_handle())
    }
}
