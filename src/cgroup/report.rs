//! The error of a reap that failed.

use std::io;

use super::errors::{Call, Fate, Meaning, Obstacle, meaning};
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
                source: obstacle.map(|obstacle| self.in_the_way(*obstacle)),
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
            End::Cancelled => ReapError::Cancelled { effort },
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

    /// The error that stands in the way at a deadline. What is in use is named.
    fn in_the_way(&mut self, Obstacle { act, path, cause }: Obstacle) -> io::Error {
        if act != Act::Remove || !cause.is_busy() {
            return cause.into_error();
        }
        let user = self.user_of_directory();
        let error = cause.into_error();
        let text = match user {
            Some(user) => format!("{}: {act}: {error}: {user}", path.display()),
            None => format!("{}: {act}: {error}", path.display()),
        };
        io::Error::new(io::ErrorKind::ResourceBusy, text)
    }

    /// What keeps an empty directory from being removed, as far as that can be seen: a mount, or a cgroup in it.
    fn user_of_directory(&mut self) -> Option<String> {
        let mut found = None;
        self.each(|kernel, tree, directories| {
            let sys = kernel.sys;
            let covers = tree.identity.is_covered(sys);
            if covers {
                found = Some(format!("something is mounted on {}", tree.path().display()));
            }
            let (root, below) = directories.subtree(sys, &tree.identity)?;
            for dir in below {
                for name in super::file::below(sys, root, dir, |at, dir| sys.subdirectories(at, dir))? {
                    let path = dir.join(name);
                    let stat = super::file::below(sys, root, &path, |at, path| sys.stat(Some(at), path))?;
                    let whole = tree.path().join(&path);
                    found = found.take().or(Some(match stat.mount_root {
                        Some(true) => format!("something is mounted on {}", whole.display()),
                        _ => format!("the cgroup {} is in it", whole.display()),
                    }));
                }
            }
            Ok(())
        });
        found
    }

    /// The members that are alive, those that can be named first.
    fn survivors(&mut self) -> Vec<Survivor> {
        let sys = self.kernel.sys;
        let (members, _) = self.list(|_| true);
        let mounts = mounts::recent(sys, &self.kernel.checks.mounts).unwrap_or_default();
        let proc = Proc::open(sys);
        // What is described of a process that is alive after that was its own.
        let describe = |pid, pidfd: io::Result<S::Fd>| {
            let survivor = survivors::describe(proc.as_ref(), Some(pid), &mounts);
            match pidfd.and_then(|pidfd| sys.has_exited(&pidfd)) {
                Ok(exited) => (!exited).then_some(survivor),
                Err(error) if meaning(Call::PidfdOpen, &error) == Meaning::Gone => None,
                Err(_) => Some(survivor),
            }
        };
        let listed = members.pids.iter().filter_map(|&pid| describe(pid, sys.pidfd_open(pid)));
        let mut alive: Vec<Survivor> = listed.take(DESCRIBED).collect();
        if members.is_empty() {
            // Exiting, and no longer listed.
            for process in self.target.signalled.processes() {
                if alive.len() == DESCRIBED {
                    break;
                }
                if let Some(pidfd) = process.open_same(sys, self.kernel.facts) {
                    alive.extend(describe(process.pid(), Ok(pidfd)));
                }
            }
        }
        let unmapped = std::iter::repeat_with(Survivor::default).take(members.unmapped);
        let room = DESCRIBED - alive.len();
        alive.extend(unmapped.take(room));
        alive
    }
}
