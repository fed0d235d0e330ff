//! [`Target`]: the state of a target that lasts from step to step.

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
use crate::machine::{CGROUP_KILL_ATTEMPTS, ExitNotice};
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
    /// The state of the releases, if the memory of members that cannot exit is to be released.
    pub(super) releases: Option<Box<Releases>>,
    /// Whether the directories stay: the caller keeps them, or systemd removes them.
    pub(crate) keep_dir: bool,
    /// Whether it was too large to find out at the spawn if the caller is in it. Nothing is done to it before the first
    /// check has found this out.
    pub(super) may_be_own: bool,
    /// Whether the last check has found that it has many directories.
    pub(super) is_large_tree: bool,
    /// Set when an action has failed for lack of descriptors. The target then holds none, so that the free ones
    /// are enough for the next action.
    pub(crate) sparing: bool,
    /// Attempts to send SIGKILL.
    pub(super) kills: u32,
    /// The attempt under way looks for members that lists of processes do not have, see
    /// [`super::members::MemberList::add_unlisted`].
    pub(super) lists_threads: bool,
    /// The attempt under way has listed members without a pid, which only `cgroup.kill` reaches.
    pub(super) has_unmapped: bool,
    /// The attempt under way has written to `cgroup.kill` of some directory.
    pub(super) has_written: bool,
    /// The first directory that the caller named, if none existed.
    pub(super) missing: Option<Arc<CStr>>,
    pub(super) obstacle: Option<Box<Obstacle>>,
}

/// The state of `cgroup.kill` in the v2 directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupKill {
    Untried,
    /// The members are signalled in steps first, and then `cgroup.kill` is written.
    InSteps,
    /// `cgroup.kill` was written, and it is not known yet whether that is enough.
    Written,
    /// Writes to `cgroup.kill` are not enough: members survived one, for instance processes whose leader has exited, or the
    /// caller is in the target, and none is made.
    NotEnough,
    /// The kernel has no such file, or the caller lacks the right.
    Unavailable,
    /// The chosen `KillMethod` does not use `cgroup.kill`.
    NotChosen,
}

impl CgroupKill {
    /// Whether the members have to be listed and signalled one by one.
    pub(super) fn needs_members(self) -> bool {
        matches!(self, CgroupKill::NotEnough | CgroupKill::Unavailable | CgroupKill::NotChosen)
    }

    pub(super) fn was_written(self) -> bool {
        matches!(self, CgroupKill::Written | CgroupKill::NotEnough)
    }
}

/// The state of an action that takes several steps. A check discards it.
pub(super) enum Progress<S: Sys> {
    None,
    /// An attempt that sends signals.
    Attempt(Box<Rest<S>>),
    /// A check that lists the members.
    Check(Box<Listing<S>>),
    /// A freeze: the search for the caller before it.
    Freeze(Box<Search<S>>),
    /// A thaw of the directories below the roots.
    Thaw(Box<ThawBelow>),
    Removal(Box<RemovalLeft>),
}

impl<S: Sys> Progress<S> {
    /// Takes the state of an attempt.
    pub(super) fn take_attempt(&mut self) -> Option<Rest<S>> {
        match std::mem::replace(self, Progress::None) {
            Progress::Attempt(rest) => Some(*rest),
            _ => None,
        }
    }

    /// Takes the state of a freeze.
    pub(super) fn take_freeze(&mut self) -> Option<Search<S>> {
        match std::mem::replace(self, Progress::None) {
            Progress::Freeze(search) => Some(*search),
            _ => None,
        }
    }

    /// Takes the state of a thaw.
    pub(super) fn take_thaw(&mut self) -> Option<ThawBelow> {
        match std::mem::replace(self, Progress::None) {
            Progress::Thaw(below) => Some(*below),
            _ => None,
        }
    }

    /// Takes the state of a removal.
    pub(super) fn take_removal(&mut self) -> Option<RemovalLeft> {
        match std::mem::replace(self, Progress::None) {
            Progress::Removal(left) => Some(*left),
            _ => None,
        }
    }
}

impl<S: Sys> Target<S> {
    /// The first directory that existed at the spawn, or, if none did, the first that the caller named.
    pub(crate) fn path(&self) -> &Path {
        match (self.trees.first(), &self.missing) {
            (Some(tree), _) => tree.path(),
            (None, Some(missing)) => as_path(missing),
            (None, None) => Path::new(""),
        }
    }

    /// The same, for callers that keep it.
    pub(crate) fn shared_path(&self) -> Arc<CStr> {
        match (self.trees.first(), &self.missing) {
            (Some(tree), _) => tree.identity.shared_path(),
            (None, Some(missing)) => Arc::clone(missing),
            (None, None) => Arc::default(),
        }
    }

    /// The failure that keeps the reap from going on, if there is one.
    pub(crate) fn last_error(&self) -> Option<LastError<'_>> {
        self.obstacle.as_deref().map(Obstacle::error)
    }

    /// Whether the spawn found out that the caller is outside.
    #[cfg(test)]
    pub(crate) fn is_searched(&self) -> bool {
        !self.may_be_own
    }

    /// Whether any directory existed at the spawn.
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

    /// Whether SIGKILL was sent often enough for members to be looked for that lists of processes do not have.
    pub(super) fn is_stubborn(&self) -> bool {
        self.kills >= CGROUP_KILL_ATTEMPTS
    }

    /// The number of the attempt under way, if it looks for these members.
    pub(super) fn by_thread(&self) -> Option<u32> {
        self.lists_threads.then_some(self.kills)
    }

    /// What happened to the directories, if none is left.
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

    /// Whether all directories that are left are in v1 hierarchies.
    pub(super) fn is_v1(&self) -> bool {
        self.trees.iter().all(|tree| tree.hierarchy.is_v1() || !tree.is_left())
    }

    /// Whether all directories that are left are in the v2 hierarchy.
    pub(super) fn is_v2(&self) -> bool {
        self.trees.iter().all(|tree| !tree.hierarchy.is_v1() || !tree.is_left())
    }

    /// Whether it has only one directory, which is on v2 and is left.
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
