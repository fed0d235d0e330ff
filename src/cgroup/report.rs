//! The error of a reap that failed.

use std::io;

use super::errors::{Fate, Obstacle};
use super::external_freeze;
use super::mounts;
use super::proc::Proc;
use super::step::Step;
use super::survivors;
use crate::machine::End;
use crate::outcome::{Act, Effort, ReapError, Survivor};
use crate::sys::Sys;

/// Survivors described at a deadline, and members asked which cgroup holds them frozen.
const DESCRIBED: usize = 64;

impl<S: Sys> Step<'_, '_, S> {
    /// The error of a reap that failed.
    pub(crate) fn error(&mut self, end: End, effort: Effort) -> ReapError {
        let obstacle = self.target.obstacle.take();
        let path = self.path().to_path_buf();
        let sys = self.kernel.sys;
        match end {
            End::TimedOut => ReapError::TimedOut {
                path,
                survivors: self.survivors(),
                source: obstacle.map(|obstacle| obstacle.cause.into_error()),
                effort,
            },
            End::Replaced => {
                let replaced = self.target.trees.iter().find(|tree| tree.fate == Some(Fate::Replaced));
                let path = replaced.map_or(path, |tree| tree.path().to_path_buf());
                ReapError::Replaced { path, effort }
            }
            End::FrozenByAncestor => {
                let frozen = self.target.trees.iter().find(|tree| tree.hierarchy.is_freezer());
                let path = frozen.map_or(path, |tree| tree.path().to_path_buf());
                let members = self.list(|_| true).0.pids;
                let mounts = mounts::recent(sys, &self.kernel.checks.mounts).unwrap_or_default();
                let frozen_by = Proc::open(sys).and_then(|proc| {
                    let mut members = members.iter().take(DESCRIBED);
                    members.find_map(|&pid| external_freeze::frozen_by(&proc, pid, &mounts))
                });
                ReapError::FrozenByAncestor { path, frozen_by, effort }
            }
            End::Cancelled => ReapError::Cancelled,
            End::Denied | End::Done(_) => match obstacle.map(|obstacle| *obstacle) {
                Some(Obstacle { act, path, cause }) => {
                    ReapError::Denied { act, path, source: cause.into_error(), effort }
                }
                None => {
                    let source = io::Error::from_raw_os_error(libc::EPERM);
                    ReapError::Denied { act: Act::Kill, path, source, effort }
                }
            },
        }
    }

    fn survivors(&mut self) -> Vec<Survivor> {
        let sys = self.kernel.sys;
        let (members, _) = self.list(|_| true);
        let mounts = mounts::recent(sys, &self.kernel.checks.mounts).unwrap_or_default();
        let proc = Proc::open(sys);
        let describe = |pid| survivors::describe(proc.as_ref(), pid, &mounts);
        if members.is_empty() {
            // Exiting, and no longer listed.
            return self.target.signalled.pids().take(DESCRIBED).map(|pid| describe(Some(pid))).collect();
        }
        let unmapped = std::iter::repeat_n(None, members.unmapped);
        members.pids.into_iter().map(Some).chain(unmapped).take(DESCRIBED).map(describe).collect()
    }
}
