//! The kernel's side: a target of pinned directories, looked at and acted on as the machine says.

mod budget;
mod elsewhere;
mod file;
mod own;
mod pin;
mod procs;
mod resolve;
mod survivors;
mod tree;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub(crate) use self::budget::Budget;
pub(crate) use self::own::OwnCgroups;
use self::pin::{Lost, Version, is_denied, is_gone};
use self::procs::{How, Listing, Unverified, Victims, Who};
use self::tree::{Removed, Tree, TreeEnd, descendants};
use crate::machine::{End, Freeze, Kill, Look, Means, Removal, Thaw};
use crate::metrics::Metrics;
use crate::outcome::{ReapError, Refusal, Survivor, UsedMethod};
use crate::reaper::{Faults, KillMethod, Place, Reaper, Signal};
use crate::sys::{Open, Sys};

/// Directories removed in one step. Each costs the kernel 20 to 50 microseconds.
const REMOVALS: usize = 128;

/// Survivors described at a deadline.
const SURVIVORS: usize = 64;

/// Asks for an [`Input::Event`](crate::machine::Input::Event) on each notification from the descriptor, until
/// that is closed.
pub(crate) type Watch<'a, S> = &'a dyn Fn(&<S as Sys>::Fd, Notice) -> io::Result<()>;

/// What the steps on a target work with.
pub(crate) struct Kernel<'a, S: Sys> {
    pub(crate) sys: &'a S,
    pub(crate) own: &'a Mutex<OwnCgroups<S>>,
    pub(crate) budget: &'a Budget,
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) watch: Watch<'a, S>,
    pub(crate) no_events: bool,
}

/// What a descriptor notifies of, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// `cgroup.events` changed: POLLPRI, and nothing else, for the file is always readable.
    Events,
    /// A pidfd's process exited: POLLIN.
    Exit,
}

impl<S: Sys> Kernel<'_, S> {
    fn watch(&mut self, fd: &S::Fd, notice: Notice) -> bool {
        match (self.watch)(fd, notice) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("no watch, going on by timer: {error}");
                self.metrics.unwatched += 1;
                false
            }
        }
    }
}

/// What stood in the way last.
#[derive(Debug)]
pub(crate) struct Trouble {
    path: PathBuf,
    source: io::Error,
}

impl Trouble {
    fn of_process(pid: i32, source: io::Error) -> Trouble {
        Trouble { path: format!("/proc/{pid}").into(), source }
    }
}

/// One target: its directories, and who was signalled in them.
pub(crate) struct Target<S: Sys> {
    trees: Vec<Tree<S>>,
    victims: Victims<S>,
    /// Members found by the last look, for the kill that may follow.
    seen: Option<Listing>,
    /// The resolve's check for the caller's own cgroup is good for the first step.
    guarded: bool,
    /// Members have to be known one by one: the method signals them, or `cgroup.kill` was tried in vain.
    by_signals: bool,
    kill_without_freezer: bool,
    faults: Faults,
    path: PathBuf,
    trouble: Option<Trouble>,
}

impl<S: Sys> Target<S> {
    /// Checks what `reaper` names, and pins it. Touches nothing.
    pub(crate) fn resolve(
        sys: &S,
        reaper: &Reaper,
        own: &mut OwnCgroups<S>,
        budget: &Budget,
    ) -> Result<Target<S>, Refusal> {
        reaper.check()?;
        let trees = resolve::resolve(sys, &reaper.place, own, budget)?;
        let path = match (trees.first(), &reaper.place) {
            (Some(tree), _) => tree.pin.path().to_path_buf(),
            (None, Place::Dir(path)) => path.clone(),
            (None, Place::Named { name, .. }) => name.clone(),
        };
        let mut target = Target {
            trees,
            victims: Victims::new(),
            seen: None,
            guarded: true,
            by_signals: reaper.method == KillMethod::Pidfd || reaper.method == KillMethod::Freezer,
            kill_without_freezer: match &reaper.place {
                Place::Dir(_) => false,
                Place::Named { options, .. } => options.kill_without_freezer,
            },
            faults: reaper.faults,
            path,
            trouble: None,
        };
        if !target.trees.is_empty() && !target.supports(sys, reaper.method) {
            return Err(Refusal::Unsupported { method: reaper.method, path: target.path });
        }
        Ok(target)
    }

    /// Whether a method has anything to work with.
    fn supports(&mut self, sys: &S, method: KillMethod) -> bool {
        let has =
            |tree: &Tree<S>, file| tree.pin.dir(sys).is_ok_and(|dir| sys.stat(Some(&dir), file).is_ok());
        let v2 = |tree: &&Tree<S>| tree.version == Version::V2;
        match method {
            KillMethod::Auto | KillMethod::Pidfd => true,
            // It kills in its own hierarchy only: where there are others it can't do the job alone.
            KillMethod::CgroupKill => {
                !self.faults.no_cgroup_kill && self.trees.iter().all(|tree| v2(&tree) && has(tree, v2::KILL))
            }
            KillMethod::Freezer => self.trees.iter_mut().any(|tree| {
                tree.has_freezer(sys).unwrap_or(false)
                    || (tree.version == Version::V2 && has(tree, v2::FREEZE))
            }),
        }
    }

    /// The first directory, or what the caller named where there was none.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the first steps, for which the resolve's checks are fresh and its directories held.
    pub(crate) fn outdate(&mut self) {
        self.guarded = false;
        for tree in self.trees.iter_mut().filter(|tree| tree.version == Version::V2) {
            tree.pin.let_go();
        }
    }

    /// Takes a look at the whole target.
    pub(crate) fn look(&mut self, kernel: &mut Kernel<'_, S>) -> Look {
        kernel.metrics.looks += 1;
        kernel.no_events = self.faults.no_events;
        let mut populated = false;
        let mut unknown = None;
        let mut listing = Listing::default();
        let mut listed = false;
        // Also of one that is gone already, members signalled may still be dying.
        let legacy = self.trees.iter().any(|tree| tree.version == Version::V1);
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            let result = match tree.version {
                Version::V1 => {
                    listed = true;
                    list(kernel.sys, tree, &mut listing)
                }
                Version::V2 => match events(tree, kernel) {
                    Ok(events) if events.populated => {
                        populated = true;
                        if self.by_signals {
                            listed = true;
                            list(kernel.sys, tree, &mut listing)
                        } else {
                            Ok(())
                        }
                    }
                    Ok(_) => Ok(()),
                    Err(lost) => Err(lost),
                },
            };
            if let Err(error) = result.or_else(|lost| tree.lost(lost).map(drop)) {
                unknown = Some(Trouble { path: tree.pin.path().to_path_buf(), source: error });
            }
        }
        listing.finish();
        let (fresh, shrunk) = if listed { self.victims.compare(&listing) } else { (false, false) };
        if !listing.is_empty() {
            populated = true;
            // v2 trees tell by themselves; of v1 a member's exit has to be watched.
            if legacy && !kernel.no_events {
                self.victims.rewatch(kernel, &listing);
            }
        } else if legacy && !populated && unknown.is_none() {
            match self.victims.all_dead(kernel) {
                Ok(dead) => populated |= !dead,
                Err(source) => unknown = Some(Trouble { path: self.path.clone(), source }),
            }
        }
        if populated {
            self.seen = listed.then_some(listing);
            return Look::Populated { fresh, shrunk };
        }
        if let Some(trouble) = unknown {
            let denied = is_denied(&trouble.source);
            log::debug!("{}: cannot be looked at: {}", trouble.path.display(), trouble.source);
            self.trouble = Some(trouble);
            return Look::Unknown { denied };
        }
        match self.end() {
            None => Look::Empty,
            Some(TreeEnd::Gone) => Look::Gone,
            Some(TreeEnd::Replaced) => Look::Replaced,
        }
    }

    /// What became of the directories, if none is left.
    fn end(&self) -> Option<TreeEnd> {
        let mut end = TreeEnd::Gone;
        for tree in &self.trees {
            if tree.end? == TreeEnd::Replaced {
                end = TreeEnd::Replaced;
            }
        }
        Some(end)
    }

    /// Sends SIGKILL to everybody.
    pub(crate) fn kill(&mut self, kernel: &mut Kernel<'_, S>, means: Means, frozen: bool) -> Kill {
        let mut kill = Kill::default();
        if means != Means::Signals {
            for index in 0..self.trees.len() {
                if self.trees[index].version == Version::V2 && self.trees[index].end.is_none() {
                    self.cgroup_kill(kernel, index, means, &mut kill);
                }
            }
            let legacy = self.trees.iter().any(|tree| tree.version == Version::V1 && tree.end.is_none());
            self.by_signals |= means == Means::Both;
            if means == Means::CgroupKill || !(legacy || self.by_signals) {
                return kill;
            }
        }
        let signalled = self.signal_all(kernel, libc::SIGKILL, frozen);
        Kill {
            method: signalled.method.or(kill.method),
            denied: signalled.denied || kill.denied,
            ..signalled
        }
    }

    fn cgroup_kill(&mut self, kernel: &mut Kernel<'_, S>, index: usize, means: Means, kill: &mut Kill) {
        let sys = kernel.sys;
        let tree = &mut self.trees[index];
        let result = guard(kernel, tree, self.guarded).and_then(|()| {
            let dir = tree.pin.dir(sys)?;
            if self.faults.no_cgroup_kill {
                return Err(Lost::Unknown(io::Error::from_raw_os_error(libc::ENOENT)));
            }
            v2::kill(sys, &dir, Path::new("")).map_err(|error| lost(sys, tree, error))
        });
        let error = match result.or_else(|lost| tree.lost(lost).map(drop)) {
            Ok(()) => {
                if tree.end.is_none() {
                    kernel.metrics.cgroup_kills += 1;
                    kill.method = Some(UsedMethod::CgroupKill);
                }
                return;
            }
            Err(error) => error,
        };
        let unavailable = is_gone(&error)
            || is_denied(&error)
            || error.raw_os_error() == Some(libc::EOPNOTSUPP)
            || error.kind() == io::ErrorKind::Other;
        if unavailable && means != Means::CgroupKill {
            // Before Linux 5.14, in a threaded cgroup, or in a delegated subtree at its own root, whose
            // children may well be ours to kill.
            log::debug!("{}: no cgroup.kill ({error}), signalling instead", tree.pin.path().display());
            if let (true, Ok(dir)) = (is_denied(&error), tree.pin.dir(sys)) {
                for child in descendants(sys, &dir).unwrap_or_default() {
                    if child.components().count() == 1 && v2::kill(sys, &dir, &child).is_ok() {
                        kernel.metrics.cgroup_kills += 1;
                        kill.method = Some(UsedMethod::CgroupKill);
                    }
                }
            }
            self.by_signals = true;
        } else {
            kill.denied |= unavailable;
            self.trouble = Some(Trouble { path: tree.pin.path().join("cgroup.kill"), source: error });
        }
    }

    /// Sends the signal to everybody, once.
    pub(crate) fn signal(&mut self, kernel: &mut Kernel<'_, S>, signal: Signal) -> Kill {
        self.signal_all(kernel, signal.number(), false)
    }

    fn signal_all(&mut self, kernel: &mut Kernel<'_, S>, signal: i32, frozen: bool) -> Kill {
        kernel.no_events = self.faults.no_events;
        let how = How {
            signal,
            unverified: if self.kill_without_freezer {
                Unverified::Everybody
            } else if frozen {
                Unverified::Frozen
            } else {
                Unverified::Nobody
            },
            no_pidfd: self.faults.no_pidfd,
        };
        let (sys, trees) = (kernel.sys, &self.trees);
        // Asked by the freeze, if there was one.
        let freezer = trees.iter().any(|tree| tree.is_freezer() && tree.end.is_none());
        let list = |who| {
            let wanted = |tree: &&Tree<S>| {
                tree.end.is_none() && (who == Who::Everybody || is_frozen_with(tree, freezer))
            };
            let mut listing = Listing::default();
            for tree in trees.iter().filter(wanted) {
                match list(sys, tree, &mut listing) {
                    // The next look finds out.
                    Ok(()) | Err(Lost::Gone | Lost::Replaced) => {}
                    Err(Lost::Unknown(error)) => return Err(error),
                }
            }
            listing.finish();
            Ok(listing)
        };
        let before = match self.seen.take() {
            Some(seen) if !frozen => Ok(seen),
            _ => list(Who::Everybody),
        };
        let result =
            before.and_then(|before| self.victims.signal(kernel, how, &mut self.trouble, before, list));
        match result {
            Ok(kill) => kill,
            Err(source) => {
                let denied = is_denied(&source);
                self.trouble = Some(Trouble { path: self.path.clone(), source });
                Kill { denied, ..Kill::default() }
            }
        }
    }

    /// Freezes the target, by the v1 freezer if it has one, or looks how far that is.
    pub(crate) fn freeze(&mut self, kernel: &mut Kernel<'_, S>) -> Freeze {
        let sys = kernel.sys;
        let freezer = match self.find_freezer(sys) {
            Ok(freezer) => freezer,
            // A passing error: the timeout of the freeze bounds the tries.
            Err(error) => {
                self.trouble = Some(Trouble { path: self.path.clone(), source: error });
                return Freeze::Freezing;
            }
        };
        let mut result = Freeze::Unavailable;
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            if !is_frozen_with(tree, freezer) {
                continue;
            }
            kernel.metrics.freezes += 1;
            let froze = guard(kernel, tree, self.guarded).and_then(|()| {
                let dir = tree.pin.dir(sys)?;
                let freeze = if tree.is_freezer() { v1::freeze(sys, &dir) } else { v2::freeze(sys, &dir) };
                freeze.map_err(|error| lost(sys, tree, error))
            });
            let freeze = match froze {
                Ok(freeze) => freeze,
                Err(lost) => match tree.lost(lost) {
                    Ok(_) => continue,
                    Err(source) => {
                        let unavailable =
                            is_gone(&source) || is_denied(&source) || source.kind() == io::ErrorKind::Other;
                        log::debug!("{}: not frozen: {source}", tree.pin.path().display());
                        self.trouble = Some(Trouble { path: tree.pin.path().to_path_buf(), source });
                        if unavailable {
                            return Freeze::Unavailable;
                        }
                        // A passing error: the timeout of the freeze bounds the tries.
                        Freeze::Freezing
                    }
                },
            };
            result = match (result, freeze) {
                (Freeze::Freezing, _) | (_, Freeze::Freezing) => Freeze::Freezing,
                _ => freeze,
            };
        }
        result
    }

    /// Finds out which of the trees are in the v1 freezer's hierarchy; whether one is.
    fn find_freezer(&mut self, sys: &S) -> io::Result<bool> {
        let mut found = false;
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            match tree.has_freezer(sys) {
                Ok(freezer) => found |= freezer,
                Err(lost) => drop(tree.lost(lost)?),
            }
        }
        Ok(found)
    }

    /// Thaws what is frozen inside the target, v2 only if asked for; with `elsewhere` also a group outside
    /// that holds nobody but members of the target.
    pub(crate) fn thaw(&mut self, sys: &S, metrics: &mut Metrics, v2: bool, elsewhere: bool) -> Thaw {
        let freezer = match self.find_freezer(sys) {
            Ok(freezer) => freezer,
            Err(error) => {
                let denied = is_denied(&error);
                self.trouble = Some(Trouble { path: self.path.clone(), source: error });
                return if denied { Thaw::Denied } else { Thaw::Failed };
            }
        };
        let mut result = Thaw::Thawed;
        if elsewhere && !freezer {
            match elsewhere::thaw(sys, &self.listing(sys)) {
                Ok(true) => {}
                Ok(false) => result = Thaw::HeldByAncestor,
                Err(error) => log::debug!("{}: {error}", self.path.display()),
            }
        }
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            if !(tree.is_freezer() || v2 && tree.version == Version::V2) {
                continue;
            }
            metrics.thaws += 1;
            let thaw = match thaw_tree(sys, tree) {
                Ok(true) => Thaw::Thawed,
                Ok(false) => Thaw::HeldByAncestor,
                Err(lost) => match tree.lost(lost) {
                    Ok(_) => Thaw::Thawed,
                    Err(source) => {
                        let denied = is_denied(&source);
                        self.trouble = Some(Trouble { path: tree.pin.path().to_path_buf(), source });
                        if denied { Thaw::Denied } else { Thaw::Failed }
                    }
                },
            };
            result = match (result, thaw) {
                (Thaw::Failed, _) | (_, Thaw::Failed) => Thaw::Failed,
                (Thaw::Thawed, thaw) => thaw,
                (result, _) => result,
            };
        }
        result
    }

    /// Removes the directories, all of which were seen empty.
    pub(crate) fn remove(&mut self, kernel: &mut Kernel<'_, S>) -> Removal {
        kernel.metrics.removals += 1;
        let mut bound = REMOVALS;
        let mut result = None;
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            let removed = match tree.remove(kernel.sys, &mut bound) {
                Ok(Removed::All) => Err(Lost::Gone),
                Ok(Removed::More) => return Removal::More,
                Err(lost) => Err(lost),
            };
            if let Err(source) = removed.or_else(|lost| tree.lost(lost).map(drop)) {
                let denied = is_denied(&source);
                log::debug!("{}: not removed: {source}", tree.pin.path().display());
                self.trouble = Some(Trouble { path: tree.pin.path().to_path_buf(), source });
                result = Some(if denied { Removal::Denied } else { Removal::Busy });
            }
        }
        match (result, self.end()) {
            (Some(result), _) => result,
            (None, Some(TreeEnd::Replaced)) => Removal::Replaced,
            (None, _) => Removal::Removed,
        }
    }

    /// The error of a reap that did not end well.
    pub(crate) fn error(&mut self, sys: &S, end: End) -> ReapError {
        let trouble = self.trouble.take();
        match end {
            End::TimedOut => ReapError::TimedOut {
                path: self.path.clone(),
                survivors: self.survivors(sys),
                source: trouble.map(|trouble| trouble.source),
            },
            End::Replaced => {
                let replaced = self.trees.iter().find(|tree| tree.end == Some(TreeEnd::Replaced));
                let path = replaced.map_or(self.path.as_path(), |tree| tree.pin.path());
                ReapError::Replaced { path: path.to_path_buf() }
            }
            End::FrozenByAncestor => {
                let frozen = self.trees.iter().find(|tree| tree.is_freezer());
                let path = frozen.map_or(self.path.as_path(), |tree| tree.pin.path()).to_path_buf();
                let member = self.listing(sys).pids.first().copied();
                let mounts = own::Mount::all(sys).unwrap_or_default();
                let frozen_by = member.and_then(|pid| elsewhere::frozen_by(sys, pid, &mounts));
                ReapError::FrozenByAncestor { path, frozen_by }
            }
            End::Cancelled => ReapError::Cancelled,
            End::Denied | End::Done(_) => match trouble {
                Some(Trouble { path, source }) => ReapError::Denied { path, source },
                None => ReapError::Denied {
                    path: self.path.clone(),
                    source: io::Error::from_raw_os_error(libc::EPERM),
                },
            },
        }
    }

    /// The members, as far as they can be listed now.
    fn listing(&self, sys: &S) -> Listing {
        let mut listing = Listing::default();
        for tree in self.trees.iter().filter(|tree| tree.end.is_none()) {
            let _ = list(sys, tree, &mut listing);
        }
        listing.finish();
        listing
    }

    fn survivors(&self, sys: &S) -> Vec<Survivor> {
        let listing = self.listing(sys);
        if listing.is_empty() {
            // Dying, and no longer listed.
            return survivors::describe(sys, self.victims.pids().take(SURVIVORS));
        }
        let strangers = std::iter::repeat_n(0, listing.strangers);
        survivors::describe(sys, listing.pids.into_iter().chain(strangers).take(SURVIVORS))
    }
}

/// Whether a freeze of the target is done in this tree: in the v1 freezer's, if there is one, else in v2.
fn is_frozen_with<S: Sys>(tree: &Tree<S>, freezer: bool) -> bool {
    if freezer { tree.is_freezer() } else { tree.version == Version::V2 }
}

/// Adds the members of the whole subtree.
fn list<S: Sys>(sys: &S, tree: &Tree<S>, listing: &mut Listing) -> Result<(), Lost> {
    let dir = tree.pin.dir(sys)?;
    for relative in descendants(sys, &dir).map_err(|error| lost(sys, tree, error))? {
        match listing.add(sys, &dir, &relative) {
            Ok(()) => {}
            // A descendant that was removed meanwhile has no members.
            Err(error) if is_gone(&error) && !relative.as_os_str().is_empty() => {}
            Err(error) => return Err(lost(sys, tree, error)),
        }
    }
    Ok(())
}

/// Reads `cgroup.events`, through a watched descriptor where one can be had.
fn events<S: Sys>(tree: &mut Tree<S>, kernel: &mut Kernel<'_, S>) -> Result<v2::Events, Lost> {
    let sys = kernel.sys;
    let mut buffer = [0; 256];
    if let Some((events, _)) = &tree.events {
        return match file::read_small(sys, events, &mut buffer).and_then(v2::parse) {
            Ok(events) => Ok(events),
            Err(error) => Err(lost(sys, tree, error)),
        };
    }
    let dir = tree.pin.dir(sys)?;
    let permit = if tree.unwatchable || kernel.no_events { None } else { kernel.budget.take() };
    let Some(permit) = permit else {
        return v2::events(sys, &dir).map_err(|error| lost(sys, tree, error));
    };
    let file = file::open(sys, &dir, Path::new(""), v2::EVENTS, Open::Read)
        .map_err(|error| lost(sys, tree, error))?;
    // Read, then watch: kernfs counts changes and remembers the count at the read, so one in between
    // is notified as soon as the watch stands.
    let events = file::read_small(sys, &file, &mut buffer)
        .and_then(v2::parse)
        .map_err(|error| lost(sys, tree, error))?;
    drop(dir);
    if events.populated {
        if kernel.watch(&file, Notice::Events) {
            tree.events = Some((file, permit));
        } else {
            tree.unwatchable = true;
        }
    }
    Ok(events)
}

/// Thaws a tree from its root down; false if an ancestor holds it all the same.
fn thaw_tree<S: Sys>(sys: &S, tree: &Tree<S>) -> Result<bool, Lost> {
    let dir = tree.pin.dir(sys)?;
    let lost = |error| lost(sys, tree, error);
    let mut held = false;
    for relative in descendants(sys, &dir).map_err(lost)? {
        let root = relative.as_os_str().is_empty();
        let thawed = if tree.is_freezer() {
            v1::thaw(sys, &dir, &relative)
        } else {
            v2::thaw(sys, &dir, &relative).map(|()| true)
        };
        match thawed {
            Ok(true) => {}
            Ok(false) if root => held = v1::held_from_above(sys, &dir, &relative).map_err(lost)?,
            // Through the root, or by another hand: the next round sees to it.
            Ok(false) => {}
            Err(error) if is_gone(&error) && !root => {}
            Err(error) => return Err(lost(error)),
        }
    }
    Ok(!held)
}

/// Refuses to kill or freeze the caller, should it have moved in after the spawn.
fn guard<S: Sys>(kernel: &Kernel<'_, S>, tree: &Tree<S>, guarded: bool) -> Result<(), Lost> {
    if guarded {
        return Ok(());
    }
    let mut own = kernel.own.lock().unwrap_or_else(PoisonError::into_inner);
    match own.contains(kernel.sys, tree.pin.id) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Lost::Unknown(io::Error::other("the caller itself is in here"))),
        Err(error) => Err(Lost::Unknown(error)),
    }
}

/// What an error in a tree means: gone only if the directory itself is.
fn lost<S: Sys>(sys: &S, tree: &Tree<S>, error: io::Error) -> Lost {
    if !is_gone(&error) {
        return Lost::Unknown(error);
    }
    match tree.pin.still_there(sys) {
        Ok(_) => Lost::Unknown(error),
        Err(lost) => lost,
    }
}
