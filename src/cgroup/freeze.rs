//! Freezing a target, and undoing freezes.

use std::io;
use std::path::{Path, PathBuf};

use super::errors::{Cause, Failed, Refused, is_gone};
use super::external_freeze::{self, Undone};
use super::hierarchy::{HasFreezer, Hierarchy};
use super::mounts::{self, MOUNTINFO};
use super::proc::Proc;
use super::step::Step;
use super::tree::{Control, Directories, Tree};
use super::{v1, v2};
use crate::machine::{Froze, ThawScope, Thawed};
use crate::outcome::Act;
use crate::sys::Sys;

impl<S: Sys> Step<'_, '_, S> {
    /// Freezes the target, by the v1 freezer if it has one, or reads how far that is.
    pub(crate) fn freeze(&mut self) -> Froze {
        if let Some(refused) = self.find_freezer() {
            return self.freeze_refused(refused);
        }
        // The list has the caller's process if any of its threads is in the target.
        let sys = self.context.sys;
        let inside = match self.findings.all_members() {
            Some(members) => Ok(members.contains_caller(sys)),
            None => self.list_all().map(|members| members.contains_caller(sys)),
        };
        let cause = match inside {
            Ok(Ok(false)) => None,
            Ok(Ok(true)) => Some(Cause::CallerInside),
            Ok(Err(error)) => Some(error.into()),
            Err(refused) => return self.freeze_refused(refused),
        };
        if let Some(cause) = cause {
            let path = self.path().to_path_buf();
            return self.freeze_refused((path, cause));
        }
        let by_v1 = self.target.has_freezer();
        let mut result = Froze::Unavailable;
        let refused = self.each(|context, tree, directories| {
            let is_wanted = if by_v1 { tree.hierarchy.is_freezer() } else { !tree.hierarchy.is_v1() };
            if !is_wanted {
                return Ok(());
            }
            context.metrics.freezes += 1;
            let sys = context.sys;
            let dir = directories.get(sys, &tree.identity)?;
            let freeze = |file: &S::Fd| match by_v1 {
                true => v1::freeze(sys, file),
                false => v2::freeze(sys, dir, file),
            };
            let froze = match &tree.frozen_by {
                Some(control) => freeze(&control.file)?,
                None => {
                    let file = if by_v1 { v1::open(sys, dir)? } else { v2::open(sys, dir)? };
                    let froze = freeze(&file)?;
                    let permit = context.resolver.budget.take_needed();
                    tree.frozen_by = Some(Box::new(Control { file, _permit: permit }));
                    froze
                }
            };
            result = match (result, froze) {
                (Froze::Freezing, _) | (_, Froze::Freezing) => Froze::Freezing,
                _ => froze,
            };
            Ok(())
        });
        match refused {
            Some(refused) => self.freeze_refused(refused),
            None => result,
        }
    }

    fn freeze_refused(&mut self, (path, cause): Refused) -> Froze {
        let missing = matches!(&cause, Cause::Error(error) if is_gone(error));
        let denied = cause.is_denied();
        log::debug!("cannot freeze {}: {cause:?}", path.display());
        self.note_obstacle(Act::Freeze, (path, cause));
        if missing {
            Froze::Unavailable
        } else if denied {
            Froze::Denied
        } else if self.target.is_frozen_by_us() {
            // Since an earlier call.
            Froze::Freezing
        } else {
            Froze::Failed
        }
    }

    /// Thaws what is frozen inside the target.
    pub(crate) fn thaw(&mut self, scope: ThawScope) -> Thawed {
        if self.target.may_be_own {
            return Thawed::All;
        }
        // Where that is not known, nothing is frozen by us.
        let mut refused = self.find_freezer();
        let is_wanted = |tree: &Tree<S>| match tree.hierarchy {
            Hierarchy::V1(freezer) => freezer == HasFreezer::Present,
            Hierarchy::V2 { .. } => scope == ThawScope::All,
        };
        let mut result = Thawed::All;
        // What is frozen by us is thawed before anything is listed.
        let roots = self.each(|context, tree, directories| {
            if is_wanted(tree) {
                context.metrics.thaws += 1;
                result = result.max(thaw_root(context.sys, tree, directories)?);
            }
            Ok(())
        });
        let below = self.each(|context, tree, directories| match is_wanted(tree) {
            true => thaw_below(context.sys, tree, directories),
            false => Ok(()),
        });
        refused = refused.or(roots).or(below);
        match refused {
            Some(refused) => result.max(self.thaw_refused(refused)),
            None => {
                // That of an external freeze names a file outside.
                let own: Vec<PathBuf> = self.target.trees.iter().map(|tree| tree.path().into()).collect();
                self.forget_obstacle(|past| past.act == Act::Thaw && own.contains(&past.path));
                result
            }
        }
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
        let freezers = self.target.trees.iter().filter(|tree| tree.hierarchy.is_freezer());
        let parents = &mut self.context.facts.parents;
        // /proc names the groups that hold members by their current paths.
        let own: Vec<PathBuf> = freezers.map(|tree| tree.identity.current_path(sys, parents)).collect();
        // Of a list that is not whole, other members would count as other processes.
        let listed;
        let members = match self.findings.all_members() {
            Some(members) => members,
            None => match self.list_all() {
                Ok(members) => {
                    listed = members;
                    &listed
                }
                Err(refused) => return self.thaw_refused(refused),
            },
        };
        let proc = match Proc::open(sys) {
            Ok(Some(proc)) => proc,
            // Without a /proc of the caller's pid namespace they cannot be found. It may have no mountinfo either.
            Ok(None) => return Thawed::All,
            Err(error) => return self.thaw_refused(("/proc".into(), error.into())),
        };
        let mounts = match mounts::recent(sys, &self.context.resolver.mounts) {
            Ok(mounts) => mounts,
            Err(error) => return self.thaw_refused((MOUNTINFO.into(), error.into())),
        };
        let Undone { held, refused } = external_freeze::thaw(&proc, &mounts, members, &own);
        match refused {
            Some(refused) => self.thaw_refused(refused),
            None if held => Thawed::HeldFromOutside,
            None => {
                self.forget_obstacle(|past| past.act == Act::Thaw);
                Thawed::All
            }
        }
    }

    fn thaw_refused(&mut self, (path, cause): Refused) -> Thawed {
        let denied = cause.is_denied();
        self.note_obstacle(Act::Thaw, (path, cause));
        if denied { Thawed::Denied } else { Thawed::Failed }
    }

    /// Finds out which of the directories are in the v1 freezer's hierarchy.
    fn find_freezer(&mut self) -> Option<Refused> {
        self.each(|context, tree, directories| find_freezer(context.sys, tree, directories))
    }
}

/// Finds out whether a tree is in the v1 freezer's hierarchy.
pub(super) fn find_freezer<S: Sys>(
    sys: &S,
    tree: &mut Tree<S>,
    directories: &mut Directories<S>,
) -> Result<(), Failed> {
    if let Hierarchy::V1(freezer @ HasFreezer::Unasked) = &mut tree.hierarchy {
        *freezer = ask_freezer(sys, directories.get(sys, &tree.identity)?)?;
    }
    Ok(())
}

/// Whether a v1 directory is in the freezer's hierarchy.
pub(super) fn ask_freezer<S: Sys>(sys: &S, dir: &S::Fd) -> io::Result<HasFreezer> {
    match sys.stat(Some(dir), v1::STATE) {
        Ok(_) => Ok(HasFreezer::Present),
        // The file or the directory?
        Err(error) if is_gone(&error) => sys.stat(Some(dir), c"cgroup.procs").map(|_| HasFreezer::Absent),
        Err(error) => Err(error),
    }
}

/// Thaws the root of a tree, and with it what is frozen through it.
fn thaw_root<S: Sys>(
    sys: &S,
    tree: &mut Tree<S>,
    directories: &mut Directories<S>,
) -> Result<Thawed, Failed> {
    let root = Path::new("");
    let is_v1 = tree.hierarchy.is_freezer();
    let thawed = match tree.frozen_by.take() {
        Some(control) => {
            let written =
                if is_v1 { v1::thaw_open(sys, &control.file) } else { v2::thaw_open(sys, &control.file) };
            if let Err(error) = written {
                tree.frozen_by = Some(control);
                return Err(error.into());
            }
            // It is not frozen by us any more, whatever a read says.
            !is_v1 || v1::is_thawed(sys, &control.file)?
        }
        None if is_v1 => v1::thaw(sys, directories.get(sys, &tree.identity)?, root)?,
        None => v2::thaw(sys, directories.get(sys, &tree.identity)?, root).map(|()| true)?,
    };
    let held = !thawed && v1::held_from_above(sys, directories.get(sys, &tree.identity)?, root)?;
    Ok(if held { Thawed::HeldFromOutside } else { Thawed::All })
}

/// Thaws what is frozen by itself below the root of a tree.
fn thaw_below<S: Sys>(sys: &S, tree: &Tree<S>, directories: &mut Directories<S>) -> Result<(), Failed> {
    let (dir, below) = directories.subtree(sys, &tree.identity)?;
    let mut refused = None;
    for relative in &below[1..] {
        let thawed = match tree.hierarchy.is_freezer() {
            true => v1::thaw(sys, dir, relative).map(|_| ()),
            false => v2::thaw(sys, dir, relative),
        };
        match thawed {
            // A descendant that is still frozen is frozen through the root or by another program. The next attempt
            // thaws it again.
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), |error| Err(error.into()))
}
