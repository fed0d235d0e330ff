//! The kernel's side: a target of pinned directories, looked at and acted on as the machine says.
//!
//! # What wakes a reap
//!
//! On v2 each target's own `cgroup.events`, for EPOLLPRI only (the file is always readable), armed before the kill,
//! so that no second look is due. One inotify instance for all of them goes through the kernel's one work item for
//! those (`kernfs_notify`): a reap of one process took a third longer, a thousand at once a fifth. Linux 6.18 to
//! 7.0.13 moreover keep inotify watches of groups that are gone. A pidfd of a member alone is nearly as fast, but
//! another look and another pidfd are due when it was not the last to die. `benches/reap` has these loops side by
//! side.
//!
//! The kernel notifies at most once in 12 ms of a file (`cgroup_file_notify`), so a group that changed just before
//! its kill is heard of late. For these the machine looks again after 1, 3 and 7 ms, at a microsecond each; and a
//! group that outlives several kills is listed, and watched by the pidfd of a member as well.
//!
//! v1 has no notification: there it is the pidfd of the last member listed, one a reap whatever the number of
//! members, and a list when that has exited. It is never late, so that nothing is looked at in between.

mod budget;
mod elsewhere;
mod facts;
mod file;
pub(crate) mod own;
mod pin;
pub(crate) mod proc;
pub(crate) mod procs;
mod resolve;
mod survivors;
mod tree;
pub(crate) mod v1;
pub(crate) mod v2;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub(crate) use self::budget::Budget;
use self::budget::Permit;
pub(crate) use self::facts::Facts;
use self::own::Mount;
pub(crate) use self::own::OwnCgroups;
use self::pin::{Lost, Version, is_denied, is_gone};
use self::procs::{How, Kill, Listing, Unverified, Victims, Who};
pub(crate) use self::resolve::Checks;
use self::resolve::lock;
use self::tree::{Progress, Tree, TreeEnd, descendants};
use crate::machine::{
    Attempt, Change, Checked, Detail, End, ExitNotice, Failure, Froze, KillBy, Members, Population, Reach,
    Removed as Removal, ThawScope, Thawed,
};
use crate::metrics::Metrics;
use crate::outcome::{Act, Effort, ReapError, Refusal, Survivor, UsedMethod};
use crate::reaper::{KillMethod, Place, Reaper, Signal};
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
    /// `None`: do without.
    pub(crate) watch: Option<Watch<'a, S>>,
    pub(crate) facts: &'a mut Facts,
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
    /// A permit to hold a descriptor and watch it, if watches are to be had.
    fn permit(&mut self) -> Option<Permit> {
        self.watch?;
        let permit = self.budget.take();
        self.metrics.unwatched += u64::from(permit.is_none());
        permit
    }

    /// Whether the descriptor is watched now.
    fn watch(&mut self, fd: &S::Fd, notice: Notice) -> bool {
        let Some(watch) = self.watch else { return false };
        self.metrics.calls.epoll_ctl += 1;
        match watch(fd, notice) {
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
    act: Act,
    path: PathBuf,
    source: io::Error,
}

impl Trouble {
    fn of_process(pid: i32, source: io::Error) -> Box<Trouble> {
        Box::new(Trouble { act: Act::Kill, path: format!("/proc/{pid}").into(), source })
    }
}

/// One target: its directories, and who was signalled in them.
pub(crate) struct Target<S: Sys> {
    trees: Box<[Tree<S>]>,
    victims: Victims<S>,
    /// Members found by the last look, for what may follow.
    seen: Option<Box<Listing>>,
    /// They are those of the v1 trees found by the resolve, for the first look.
    first: bool,
    /// The resolve's check for the caller's own cgroup is good for the first step.
    guarded: bool,
    /// Members have to be known one by one: the method signals them, or `cgroup.kill` was tried in vain.
    by_signals: bool,
    /// `cgroup.kill` was written.
    killed: bool,
    kill_without_freezer: bool,
    /// What the caller named, where nothing of it is there.
    missing: Box<Path>,
    trouble: Option<Box<Trouble>>,
}

impl<S: Sys> Checks<S> {
    /// Checks what `reaper` names, and pins it. Touches nothing.
    pub(crate) fn resolve(&self, reaper: &Reaper) -> Result<Target<S>, Refusal> {
        let sys = &self.sys;
        reaper.check()?;
        let trees = resolve::resolve(self, &reaper.place)?;
        let missing = match &reaper.place {
            _ if !trees.is_empty() => Path::new(""),
            Place::Dir(path) => path,
            Place::Named { name, .. } => name,
        };
        let mut target = Target {
            missing: missing.into(),
            trees: trees.into(),
            victims: Victims::new(),
            seen: None,
            first: false,
            guarded: true,
            by_signals: reaper.method == KillMethod::Pidfd || reaper.method == KillMethod::Freezer,
            killed: false,
            kill_without_freezer: match &reaper.place {
                Place::Dir(_) => false,
                Place::Named { options, .. } => options.kill_without_freezer,
            },
            trouble: None,
        };
        if !target.trees.is_empty() && !target.supports(sys, reaper.method) {
            return Err(Refusal::Unsupported { method: reaper.method, path: target.path().into() });
        }
        target.check_members(sys, &self.own)?;
        Ok(target)
    }
}

impl<S: Sys> Target<S> {
    /// Refuses a v1 target that the caller is in. Each of its groups lists its process, also where a thread
    /// alone is in there; so the list that the first look needs anyway tells.
    fn check_members(&mut self, sys: &S, own: &Mutex<OwnCgroups<S>>) -> Result<(), Refusal> {
        let mut first = Listing::default();
        let is_v1 = |tree: &&Tree<S>| tree.version == Version::V1;
        let mut whole = self.trees.iter().any(|tree| is_v1(&tree));
        for tree in self.trees.iter().filter(is_v1) {
            let path = tree.pin.path();
            let own = match list_tree(sys, tree, &mut first) {
                Ok(()) => Ok(first.pids.contains(&sys.caller().0)),
                // What becomes of it the first look finds out; the others are still to be asked.
                Err(Lost::Gone | Lost::Replaced) => {
                    whole = false;
                    Ok(false)
                }
                Err(Lost::Unknown(_)) => {
                    whole = false;
                    lock(own).contains(sys, tree.pin.id)
                }
            };
            match own {
                Ok(false) => {}
                Ok(true) => return Err(Refusal::OwnCgroup { path: path.into() }),
                Err(source) => return Err(Refusal::Io { path: path.into(), source }),
            }
        }
        self.first = whole;
        self.seen = whole.then(|| Box::new(first));
        Ok(())
    }

    /// Whether a method has anything to work with.
    fn supports(&mut self, sys: &S, method: KillMethod) -> bool {
        let has =
            |tree: &Tree<S>, file| tree.pin.dir(sys).is_ok_and(|dir| sys.stat(Some(&dir), file).is_ok());
        let v2 = |tree: &&Tree<S>| tree.version == Version::V2;
        match method {
            KillMethod::Auto | KillMethod::Pidfd => true,
            // It kills in its own hierarchy only: where there are others it can't do the job alone.
            KillMethod::CgroupKill => self.trees.iter().all(|tree| v2(&tree) && has(tree, v2::KILL)),
            KillMethod::Freezer => self.trees.iter_mut().any(|tree| {
                tree.has_freezer(sys).unwrap_or(false)
                    || (tree.version == Version::V2 && has(tree, v2::FREEZE))
            }),
        }
    }

    /// The first directory, or what the caller named where there was none.
    pub(crate) fn path(&self) -> &Path {
        self.trees.first().map_or(&self.missing, |tree| tree.pin.path())
    }

    /// Whether there was anything at the spawn.
    pub(crate) fn found(&self) -> bool {
        !self.trees.is_empty()
    }

    /// Takes note of what stood in the way. Where that is want of descriptors it gives up its own, and goes on
    /// by path and timer.
    fn hindered(&mut self, act: Act, path: PathBuf, source: io::Error) {
        if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            self.victims.let_go();
            for tree in self.trees.iter_mut() {
                tree.pin.let_go();
                tree.events = None;
            }
        }
        self.trouble = Some(Box::new(Trouble { act, path, source }));
    }

    /// Ends a step: by the next, others may have come.
    pub(crate) fn rest(&mut self) {
        self.outdate();
        self.seen = None;
    }

    /// Ends the first steps, for which the resolve's checks are fresh and its directories held.
    pub(crate) fn outdate(&mut self) {
        self.guarded = false;
        if std::mem::take(&mut self.first) {
            self.seen = None;
        }
        for tree in self.trees.iter_mut().filter(|tree| tree.version == Version::V2) {
            tree.pin.let_go();
        }
    }

    /// Takes a look at the whole target. Without `list` members are listed only where there is no other way to
    /// tell whether there are any.
    pub(crate) fn check(&mut self, kernel: &mut Kernel<'_, S>, detail: Detail) -> Checked {
        let list = detail == Detail::Members;
        kernel.metrics.checks += 1;
        // The steps of one round have no look in between.
        self.victims.begin_again();
        let seen = self.seen.take();
        let first = if std::mem::take(&mut self.first) { seen } else { None };
        let mut populated = false;
        let mut unknown = None;
        let mut listing = Listing::default();
        let (mut listed, mut passed_over) = (false, false);
        // Who is in a v2 group that dies of `cgroup.kill` and says so itself, nobody needs to know.
        let list_v2 = self.by_signals || list && (self.killed || kernel.facts.hides_dying);
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            let result = match tree.version {
                Version::V1 if first.is_some() => {
                    listed = true;
                    Ok(())
                }
                Version::V1 => {
                    listed = true;
                    list_tree(kernel.sys, tree, &mut listing)
                }
                Version::V2 => events(tree, kernel).and_then(|events| {
                    tree.emptied = !events.populated;
                    populated |= events.populated;
                    if events.populated && list_v2 {
                        listed = true;
                        list_tree(kernel.sys, tree, &mut listing)
                    } else {
                        passed_over |= events.populated;
                        Ok(())
                    }
                }),
            };
            if let Err(error) = result.or_else(|lost| tree.lost(lost).map(drop)) {
                unknown = Some((tree.pin.path().to_path_buf(), error));
            }
        }
        listing.extend(first.map(|first| *first));
        listing.finish();
        // Of a list that is not whole nothing follows but that somebody is there.
        let whole = listed && unknown.is_none();
        let (fresh, shrunk) = if whole { self.victims.compare(&listing) } else { (false, false) };
        // Of a group that is gone without having said that it is empty, members may still be dying.
        let doubtful = |tree: &Tree<S>| tree.version == Version::V1 || (tree.end.is_some() && !tree.emptied);
        if !listing.is_empty() {
            populated = true;
            // v1 has no notification, and that of v2 comes late where it follows another.
            if self.killed || self.victims.were_tried() {
                self.victims.rewatch(kernel, &listing);
            }
        } else if !populated && unknown.is_none() && self.trees.iter().any(doubtful) {
            match self.victims.all_dead(kernel) {
                Ok(Some(dead)) => populated |= !dead,
                Ok(None) => return Checked::Unfinished,
                Err(source) => unknown = Some((self.path().to_path_buf(), source)),
            }
        }
        if let Some((path, source)) = unknown {
            let denied = is_denied(&source);
            log::debug!("{}: cannot be looked at: {source}", path.display());
            self.hindered(Act::Check, path, source);
            if !populated {
                return Checked::Unknown(if denied { Failure::Denied } else { Failure::Passing });
            }
        }
        if populated {
            // Where the dying are hidden, everybody has to be known before a kill.
            let enough = whole && !(passed_over && kernel.facts.hides_dying);
            self.seen = enough.then(|| Box::new(listing));
            let notice = self.notice();
            return Checked::Populated(Population { change: Change::new(fresh, shrunk), notice });
        }
        // Whoever was killed is dead by now.
        self.victims.forget();
        match self.end() {
            Some(TreeEnd::Gone) => Checked::Gone,
            Some(TreeEnd::Replaced) => Checked::Replaced,
            None => Checked::Empty { replaced: self.trees.iter().any(|t| t.end == Some(TreeEnd::Replaced)) },
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

    /// How the loop learns that the members exit.
    fn notice(&self) -> ExitNotice {
        match (self.is_legacy(), self.victims.are_watched()) {
            (true, true) => ExitNotice::Prompt,
            (true, false) => ExitNotice::None,
            (false, _) => ExitNotice::Delayed,
        }
    }

    /// Sends SIGKILL to every member.
    pub(crate) fn kill(&mut self, kernel: &mut Kernel<'_, S>, by: KillBy) -> Attempt {
        let kill = self.kill_by(kernel, by);
        self.attempt(kill)
    }

    fn attempt(&self, kill: Kill) -> Attempt {
        let reach = match kill {
            Kill { more: true, .. } => Reach::Unfinished,
            Kill { unsafe_unfrozen: true, .. } => Reach::Unsafe,
            Kill { denied: true, .. } => Reach::Denied,
            Kill { failed: true, .. } => Reach::Failed,
            _ => Reach::All,
        };
        let notice = if kill.notified { ExitNotice::Prompt } else { ExitNotice::Delayed };
        Attempt { signalled: kill.signalled, method: kill.method, reach, notice }
    }

    fn kill_by(&mut self, kernel: &mut Kernel<'_, S>, means: KillBy) -> Kill {
        let frozen = means == KillBy::Signals(Members::Frozen);
        let mut kill = Kill::default();
        let needless = means == KillBy::CgroupKillAndSignals
            && self.by_signals
            && self.seen.as_ref().is_some_and(|seen| self.victims.need_no_more(seen));
        if !matches!(means, KillBy::Signals(_)) && !needless {
            for index in 0..self.trees.len() {
                if self.trees[index].version == Version::V2 && self.trees[index].end.is_none() {
                    self.cgroup_kill(kernel, index, means, &mut kill);
                }
            }
            let legacy = self.trees.iter().any(|tree| tree.version == Version::V1 && tree.end.is_none());
            if means == KillBy::CgroupKillAndSignals {
                self.list_all();
            }
            if means == KillBy::CgroupKill || !(legacy || self.by_signals) {
                return kill;
            }
        }
        let signalled = self.signal_all(kernel, Signal::KILL, frozen);
        Kill {
            method: signalled.method.or(kill.method),
            denied: signalled.denied || kill.denied,
            failed: signalled.failed || kill.failed,
            ..signalled
        }
    }

    fn cgroup_kill(&mut self, kernel: &mut Kernel<'_, S>, index: usize, means: KillBy, kill: &mut Kill) {
        let sys = kernel.sys;
        let (trees, victims, seen) = (&self.trees, &mut self.victims, self.seen.as_deref());
        let tree = &trees[index];
        let prepared = guard(kernel, tree, self.guarded).and_then(|()| {
            if !kernel.facts.hides_dying {
                return Ok(());
            }
            let listed;
            let before = match seen {
                Some(seen) => seen,
                None => {
                    listed = members(sys, trees).map_err(Lost::Unknown)?;
                    &listed
                }
            };
            victims.identify_all(kernel, before, || members(sys, trees)).map_err(Lost::Unknown)
        });
        let written = match prepared {
            Ok(()) => match tree.pin.dir(sys) {
                Ok(dir) => v2::kill(sys, &dir, Path::new("")),
                Err(lost) => return self.cgroup_kill_failed(index, lost, kill),
            },
            Err(lost) => return self.cgroup_kill_failed(index, lost, kill),
        };
        let Err(error) = written else {
            self.killed = true;
            victims.killed_all(seen);
            kernel.metrics.cgroup_kills += 1;
            kill.method = Some(UsedMethod::CgroupKill);
            return;
        };
        let unavailable =
            is_gone(&error) || is_denied(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP);
        match lost(sys, tree, error) {
            Lost::Unknown(error) if unavailable && means != KillBy::CgroupKill => {
                // Before Linux 5.14, in a threaded cgroup, or in a delegated subtree at its own root, whose
                // children may well be ours to kill.
                if !self.by_signals {
                    let path = tree.pin.path().display();
                    log::info!("{path}: no cgroup.kill ({error}), signalling instead");
                }
                if let (true, Ok(dir)) = (is_denied(&error), tree.pin.dir(sys)) {
                    for child in descendants(sys, &dir).unwrap_or_default() {
                        if child.components().count() == 1 && v2::kill(sys, &dir, &child).is_ok() {
                            kernel.metrics.cgroup_kills += 1;
                            kill.method = Some(UsedMethod::CgroupKill);
                        }
                    }
                }
                self.list_all();
            }
            lost => {
                kill.denied |= unavailable;
                self.cgroup_kill_failed(index, lost, kill);
            }
        }
    }

    /// From now on members are known one by one, those of v2 as well.
    fn list_all(&mut self) {
        if !std::mem::replace(&mut self.by_signals, true) {
            self.seen = None;
        }
    }

    fn cgroup_kill_failed(&mut self, index: usize, lost: Lost, kill: &mut Kill) {
        let tree = &mut self.trees[index];
        if let Err(error) = tree.lost(lost) {
            kill.denied |= is_denied(&error) || error.kind() == io::ErrorKind::Other;
            kill.failed |= !kill.denied;
            let path = tree.pin.path().join("cgroup.kill");
            self.hindered(Act::Kill, path, error);
        }
    }

    /// Sends the signal to everybody, once.
    pub(crate) fn signal(&mut self, kernel: &mut Kernel<'_, S>, signal: Signal, members: Members) -> Attempt {
        let kill = self.signal_all(kernel, signal, members == Members::Frozen);
        self.attempt(kill)
    }

    fn signal_all(&mut self, kernel: &mut Kernel<'_, S>, signal: Signal, frozen: bool) -> Kill {
        let how = How {
            signal,
            unverified: if self.kill_without_freezer {
                Unverified::Everybody
            } else if frozen && self.trees.iter().any(|tree| tree.is_freezer() && tree.end.is_none()) {
                Unverified::Frozen
            } else {
                Unverified::Nobody
            },
            frozen,
        };
        let (sys, trees) = (kernel.sys, &self.trees);
        let list = |who| match who {
            Who::Everybody => members(sys, trees),
            Who::Frozen => frozen_members(sys, trees),
        };
        let mut kill = Kill::default();
        let result = match self.seen.take().filter(|_| !frozen) {
            Some(seen) => Ok(seen),
            None => list(Who::Everybody).map(Box::new),
        }
        .and_then(|before| {
            let result = self.victims.signal(kernel, how, &mut self.trouble, &before, list, &mut kill);
            self.seen = Some(before);
            result
        });
        if let Err(source) = result {
            kill.denied |= is_denied(&source);
            kill.failed |= !is_denied(&source);
            kill.more = false;
            self.victims.begin_again();
            self.hindered(Act::Kill, self.path().to_path_buf(), source);
        }
        // v2's own notifications may be late.
        kill.notified = self.is_legacy() && self.victims.are_watched();
        kill
    }

    /// Whether all that is left of it is v1.
    fn is_legacy(&self) -> bool {
        self.trees.iter().all(|tree| tree.version == Version::V1 || tree.end.is_some())
    }

    /// Freezes the target, by the v1 freezer if it has one, or looks how far that is.
    pub(crate) fn freeze(&mut self, kernel: &mut Kernel<'_, S>) -> Froze {
        let sys = kernel.sys;
        let freezer = match self.find_freezer(sys) {
            Ok(freezer) => freezer,
            // A passing error: the timeout of the freeze bounds the tries.
            Err(error) => {
                self.hindered(Act::Freeze, self.path().to_path_buf(), error);
                return Froze::Freezing;
            }
        };
        // Of the caller's threads the guard below asks for the calling one; the list has their process for any of them.
        let (caller, _) = sys.caller();
        let inside = match &self.seen {
            Some(seen) => seen.contains(caller),
            None => self.listing(sys).contains(caller),
        };
        if inside {
            self.hindered(Act::Freeze, self.path().to_path_buf(), the_caller_inside());
            return Froze::Unavailable;
        }
        let mut result = Froze::Unavailable;
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
                        let path = tree.pin.path().to_path_buf();
                        log::debug!("{}: not frozen: {source}", path.display());
                        self.hindered(Act::Freeze, path, source);
                        // A passing error: the timeout of the freeze bounds the tries.
                        return if unavailable { Froze::Unavailable } else { Froze::Freezing };
                    }
                },
            };
            result = match (result, freeze) {
                (Froze::Freezing, _) | (_, Froze::Freezing) => Froze::Freezing,
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

    /// Thaws external freezes that hold no process but members of the target.
    pub(crate) fn thaw_external(&mut self, kernel: &mut Kernel<'_, S>) -> Thawed {
        let sys = kernel.sys;
        if let Err(error) = self.find_freezer(sys) {
            let denied = is_denied(&error);
            self.hindered(Act::Thaw, self.path().to_path_buf(), error);
            return if denied { Thawed::Denied } else { Thawed::Failed };
        }
        let own = self.trees.iter().filter(|tree| tree.is_freezer()).map(|tree| tree.pin.path());
        let own: Vec<&Path> = own.collect();
        let listing;
        let members = match &self.seen {
            Some(seen) => seen,
            None => {
                listing = self.listing(sys);
                &listing
            }
        };
        match kernel.facts.freezer(sys).and_then(|mount| elsewhere::thaw(sys, mount, members, &own)) {
            Ok(true) => Thawed::All,
            Ok(false) => Thawed::HeldFromOutside,
            Err(error) => {
                log::debug!("{}: {error}", self.path().display());
                Thawed::All
            }
        }
    }

    /// Thaws what is frozen inside the target.
    pub(crate) fn thaw(&mut self, kernel: &mut Kernel<'_, S>, scope: ThawScope) -> Thawed {
        let v2 = scope == ThawScope::All;
        let sys = kernel.sys;
        if let Err(error) = self.find_freezer(sys) {
            let denied = is_denied(&error);
            self.hindered(Act::Thaw, self.path().to_path_buf(), error);
            return if denied { Thawed::Denied } else { Thawed::Failed };
        }
        let mut result = Thawed::All;
        let mut trouble = None;
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            if !(tree.is_freezer() || v2 && tree.version == Version::V2) {
                continue;
            }
            kernel.metrics.thaws += 1;
            let thaw = match thaw_tree(sys, tree, v2) {
                Ok(true) => Thawed::All,
                Ok(false) => Thawed::HeldFromOutside,
                Err(lost) => match tree.lost(lost) {
                    Ok(_) => Thawed::All,
                    Err(source) => {
                        let denied = is_denied(&source);
                        trouble = Some((tree.pin.path().to_path_buf(), source));
                        if denied { Thawed::Denied } else { Thawed::Failed }
                    }
                },
            };
            result = result.max(thaw);
        }
        if let Some((path, source)) = trouble {
            self.hindered(Act::Thaw, path, source);
        }
        result
    }

    /// Removes the directories, all of which were seen empty.
    pub(crate) fn remove(&mut self, kernel: &mut Kernel<'_, S>) -> Removal {
        kernel.metrics.removals += 1;
        let mut bound = REMOVALS;
        let mut result = None;
        for tree in self.trees.iter_mut().filter(|tree| tree.end.is_none()) {
            let lost = match tree.remove(kernel.sys, &mut bound) {
                Ok(Progress::All) => Lost::Gone,
                Ok(Progress::More) => return Removal::Unfinished,
                Err(lost) => lost,
            };
            if let Err(source) = tree.lost(lost) {
                log::debug!("{}: not removed: {source}", tree.pin.path().display());
                result = Some((tree.pin.path().to_path_buf(), source));
            }
        }
        match (result, self.end()) {
            (Some((path, source)), _) => {
                let denied = is_denied(&source);
                self.hindered(Act::Remove, path, source);
                if denied { Removal::Denied } else { Removal::Busy }
            }
            (None, Some(TreeEnd::Replaced)) => Removal::Replaced,
            (None, _) => Removal::All,
        }
    }

    /// The error of a reap that did not end well.
    pub(crate) fn error(&mut self, sys: &S, end: End, effort: Effort) -> ReapError {
        let trouble = self.trouble.take();
        let path = self.path().to_path_buf();
        match end {
            End::TimedOut => ReapError::TimedOut {
                path,
                survivors: self.survivors(sys),
                source: trouble.map(|trouble| trouble.source),
                effort,
            },
            End::Replaced => {
                let replaced = self.trees.iter().find(|tree| tree.end == Some(TreeEnd::Replaced));
                let path = replaced.map_or(path, |tree| tree.pin.path().to_path_buf());
                ReapError::Replaced { path, effort }
            }
            End::FrozenByAncestor => {
                let frozen = self.trees.iter().find(|tree| tree.is_freezer());
                let path = frozen.map_or(path, |tree| tree.pin.path().to_path_buf());
                let mounts = Mount::all(sys).unwrap_or_default();
                let members = self.listing(sys).pids;
                let frozen_by = Mount::freezer(&mounts).and_then(|mount| {
                    members.iter().take(SURVIVORS).find_map(|&pid| elsewhere::frozen_by(sys, pid, mount))
                });
                ReapError::FrozenByAncestor { path, frozen_by, effort }
            }
            End::Cancelled => ReapError::Cancelled,
            End::Denied | End::Done(_) => match trouble.map(|trouble| *trouble) {
                Some(Trouble { act, path, source }) => ReapError::Denied { act, path, source, effort },
                None => {
                    let source = io::Error::from_raw_os_error(libc::EPERM);
                    ReapError::Denied { act: Act::Kill, path, source, effort }
                }
            },
        }
    }

    /// The members, as far as they can be listed now.
    fn listing(&self, sys: &S) -> Listing {
        let mut listing = Listing::default();
        for tree in self.trees.iter().filter(|tree| tree.end.is_none()) {
            let _ = list_tree(sys, tree, &mut listing);
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

/// The members of all trees that are left. What a tree that is lost on the way means, the next look finds out.
fn members<'a, S: Sys + 'a>(sys: &S, trees: impl IntoIterator<Item = &'a Tree<S>>) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for tree in trees.into_iter().filter(|tree| tree.end.is_none()) {
        match list_tree(sys, tree, &mut listing) {
            Ok(()) | Err(Lost::Gone | Lost::Replaced) => {}
            Err(Lost::Unknown(error)) => return Err(error),
        }
    }
    listing.finish();
    Ok(listing)
}

/// The members of the trees in the v1 freezer's hierarchy; an error if one may have joined that is not frozen.
fn frozen_members<S: Sys>(sys: &S, trees: &[Tree<S>]) -> io::Result<Listing> {
    let freezers = || trees.iter().filter(|tree| tree.is_freezer() && tree.end.is_none());
    let void =
        || io::Error::new(io::ErrorKind::Interrupted, "thawed, joined by somebody, or removed in mid-freeze");
    let listing = members(sys, freezers())?;
    for tree in freezers() {
        let frozen = tree
            .pin
            .dir(sys)
            .and_then(|dir| v1::is_frozen(sys, &dir).map_err(|error| lost(sys, tree, error)));
        match frozen {
            Ok(true) => {}
            // For it to be removed they had to leave it.
            Ok(false) | Err(Lost::Gone | Lost::Replaced) => return Err(void()),
            Err(Lost::Unknown(error)) => return Err(error),
        }
    }
    Ok(listing)
}

/// Adds the members of the whole subtree.
fn list_tree<S: Sys>(sys: &S, tree: &Tree<S>, listing: &mut Listing) -> Result<(), Lost> {
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
    let permit = if tree.unwatchable { None } else { kernel.permit() };
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

/// Thaws a tree from its root down, which is most likely frozen if `frozen` says so; false if an ancestor holds
/// it all the same.
fn thaw_tree<S: Sys>(sys: &S, tree: &Tree<S>, frozen: bool) -> Result<bool, Lost> {
    let dir = tree.pin.dir(sys)?;
    let lost = |error| lost(sys, tree, error);
    let mut held = false;
    for relative in descendants(sys, &dir).map_err(lost)? {
        let root = relative.as_os_str().is_empty();
        let thawed = if tree.is_freezer() {
            v1::thaw(sys, &dir, &relative, frozen && root)
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

fn the_caller_inside() -> io::Error {
    io::Error::other("the caller itself is in here")
}

/// Refuses to kill or freeze the caller, should it have moved in after the spawn.
fn guard<S: Sys>(kernel: &Kernel<'_, S>, tree: &Tree<S>, guarded: bool) -> Result<(), Lost> {
    if guarded {
        return Ok(());
    }
    let own = lock(kernel.own).contains(kernel.sys, tree.pin.id);
    match own {
        Ok(false) => Ok(()),
        Ok(true) => Err(Lost::Unknown(the_caller_inside())),
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
