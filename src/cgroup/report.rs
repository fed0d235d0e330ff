//! Makes the error of a reap that failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::errors::{Call, Fate, Meaning, Obstacle, Refused, meaning};
use super::external_freeze::{self, THREADS};
use super::file::below;
use super::listing::Listing;
use super::members::MemberList;
use super::mounts;
use super::proc::Proc;
use super::step::Step;
use super::survivors;
use super::walk::{LONG, Near};
use crate::machine::End;
use crate::outcome::{Act, Effort, ReapError, Refusal, Survivor};
use crate::sys::Sys;

/// The number of survivors described at a deadline, and of members whose freezer cgroup is looked up.
const DESCRIBED: usize = 64;

impl<S: Sys> Step<'_, '_, S> {
    /// Makes the error of a reap that failed.
    pub(crate) fn error(&mut self, end: End, effort: Effort) -> ReapError {
        let obstacle = self.target.obstacle.take();
        // The reads below may need the descriptors of the files that are watched.
        self.target.trees.iter_mut().for_each(|tree| tree.hierarchy.let_go());
        let path = self.path().to_path_buf();
        let sys = self.context.sys;
        match end {
            End::TimedOut => {
                let is_busy = |obstacle: &Obstacle| obstacle.act == Act::Remove && obstacle.cause.is_busy();
                let (survivors, refused) = self.survivors();
                // A directory with members cannot be removed, which says nothing.
                let obstacle = obstacle.filter(|it| survivors.is_empty() || it.act != Act::Remove);
                let obstacle = obstacle.or_else(|| {
                    refused.map(|(path, cause)| Box::new(Obstacle { act: Act::Check, path, cause }))
                });
                ReapError::TimedOut {
                    path,
                    survivors,
                    in_the_way: obstacle
                        .as_deref()
                        .is_some_and(is_busy)
                        .then(|| self.in_the_way())
                        .flatten()
                        .map(PathBuf::into_boxed_path),
                    act: obstacle.as_ref().map(|obstacle| obstacle.act),
                    source: obstacle.map(|obstacle| Arc::new(obstacle.cause.into_error())),
                    effort,
                }
            }
            End::Replaced => {
                let replaced = self.target.trees.iter().find(|tree| tree.fate == Some(Fate::Replaced));
                let replaced = replaced.map_or_else(|| path.clone(), |tree| tree.path().to_path_buf());
                ReapError::Replaced { target: path, path: replaced, effort }
            }
            End::FrozenByAncestor => {
                let frozen = self.target.trees.iter().find(|tree| tree.hierarchy.is_freezer());
                let frozen = frozen.map_or_else(|| path.clone(), |tree| tree.path().to_path_buf());
                let members = self.list_some().0.pids;
                let mounts = mounts::recent(sys, &self.context.resolver.mounts).unwrap_or_default();
                let frozen_by = Proc::open(sys).ok().flatten().and_then(|proc| {
                    let (mut members, mut threads) = (members.iter().take(DESCRIBED), THREADS);
                    members.find_map(|&pid| {
                        external_freeze::frozen_by(&proc, pid, &mounts, &mut threads).ok().flatten()
                    })
                });
                ReapError::FrozenByAncestor { target: path, path: frozen, frozen_by, effort }
            }
            End::Refused => {
                ReapError::Refused { refusal: Refusal::OwnCgroup { path: path.clone() }, path: Some(path) }
            }
            End::Cancelled => ReapError::Cancelled { path, effort },
            End::Denied | End::Done(_) => {
                let refused = obstacle.map(|obstacle| *obstacle).unwrap_or_else(|| Obstacle {
                    act: Act::Kill,
                    path: path.clone(),
                    cause: io::Error::from_raw_os_error(libc::EPERM).into(),
                });
                let Obstacle { act, path: refused, cause } = refused;
                let source = Arc::new(cause.into_error());
                ReapError::Denied { target: path, act, path: refused, source, effort }
            }
        }
    }

    /// Finds out what keeps an empty directory from being removed, as far as it can be seen: a mount, or a
    /// cgroup in it.
    fn in_the_way(&mut self) -> Option<PathBuf> {
        let mut found: Option<PathBuf> = None;
        self.each(|context, tree, directories| {
            let sys = context.sys;
            if tree.identity.is_covered(sys) {
                found = Some(tree.path().to_path_buf());
            }
            // The last removal found the directories of `subtree`. A mount on a directory is not among them.
            let (root, subtree) = directories.subtree(sys, &tree.identity, LONG)?;
            let mut near = Near::new(root);
            for number in 0..subtree.len() {
                let (place, path) = near.place(sys, subtree, number);
                for name in below(sys, place, &path, |at, dir| sys.subdirectories(at, dir))? {
                    let child = tree.path().join(subtree.path(number)).join(name);
                    // The directories above `child` are in use because of it.
                    if found.as_ref().is_none_or(|found| child.starts_with(found)) {
                        found = Some(child);
                    }
                }
            }
            Ok(())
        });
        found
    }

    /// Lists the members; if a tree takes long, only as many as are described.
    fn list_some(&mut self) -> (MemberList, Option<Refused>) {
        let mut listing = Listing::new(self.target.is_stubborn().then_some(self.target.kills));
        loop {
            let refused = self.each(|context, tree, directories| {
                listing.add(context.resolver, context.limit, tree, directories)
            });
            let enough = listing.members.len() >= DESCRIBED || listing.is_late(self.context.sys);
            if !listing.is_unfinished() || enough {
                let refused = refused.or(listing.traversal.why.take());
                listing.members.finish();
                return (listing.members, refused);
            }
            listing = listing.rest(refused);
        }
    }

    /// Returns the members that are alive, those whose pid is known first, and why some could not be listed.
    fn survivors(&mut self) -> (Vec<Survivor>, Option<Refused>) {
        let sys = self.context.sys;
        let (mut members, refused) = match self.list_some() {
            (_, Some((_, cause))) if cause.is_out_of_descriptors() => {
                self.target.tracked.let_go();
                self.list_some()
            }
            listed => listed,
        };
        if members.unmapped > 0 {
            // v2 lists a process that is reaped just then as 0 too (`cgroup_procs_show`).
            if let (again, None) = self.list_some() {
                members.unmapped = members.unmapped.min(again.unmapped);
            }
        }
        let mounts = mounts::recent(sys, &self.context.resolver.mounts).unwrap_or_default();
        let proc = Proc::open(sys).ok().flatten();
        // Once the time of the call is used up, the other members are named by their pids only.
        let (limit, mut first, mut threads) = (self.context.limit, true, THREADS);
        // If a process is alive after it was described, the description was its own.
        let mut describe = |pid, pidfd: io::Result<S::Fd>| {
            let proc = proc.as_ref().filter(|_| std::mem::take(&mut first) || !limit.is_over(sys));
            let survivor = survivors::describe(proc, Some(pid), &mounts, &mut threads);
            match pidfd.and_then(|pidfd| sys.has_exited(&pidfd)) {
                Ok(exited) => (!exited).then_some(survivor),
                Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Gone => None,
                Err(_) => Some(survivor),
            }
        };
        let listed = members.pids.iter().filter_map(|&pid| describe(pid, sys.pidfd_open(pid)));
        let mut alive: Vec<Survivor> = listed.take(DESCRIBED).collect();
        if members.is_empty() {
            // Members that are exiting are no longer listed.
            let tracked = self.target.tracked.open_exiting(self.context);
            alive.extend(tracked.filter_map(|(pid, pidfd)| describe(pid, Ok(pidfd))).take(DESCRIBED));
        }
        let unmapped = std::iter::repeat_with(Survivor::default).take(members.unmapped);
        let room = DESCRIBED - alive.len();
        alive.extend(unmapped.take(room));
        (alive, refused)
    }
}
