//! A model of the kernel's cgroups: three hierarchies (v1 freezer, v1 cpu, v2), processes, pidfds, and the parts
//! of /proc that the library reads. Time is virtual and every choice comes from one seed.
//!
//! It is as hostile as it is told to be: any call may fail, other parties may act between any two calls, pids are
//! given out again at once, notifications come late, twice or never. Each thing that the library must not do is
//! an `outrage`, noted where it happens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::sys::{Kind, Open, Pid, Stat, Sys};

pub(super) const FREEZER: usize = 0;
pub(super) const CPU: usize = 1;
pub(super) const V2: usize = 2;
pub(super) const ROOTS: [GroupId; 3] = [FREEZER, CPU, V2];
/// Where the hierarchies are mounted, on a tmpfs that is no cgroup.
pub(super) const MOUNTS: [&str; 3] =
    ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"];

/// The library's own process.
pub(super) const SELF: i32 = 1000;

/// The thread of it that calls, where that is not the main one.
const THREAD: i32 = 1001;

/// The kernel's own bound on notifications of one file: DIV_ROUND_UP(HZ, 100) jiffies.
const THROTTLE: Duration = Duration::from_millis(12);

/// Processes that a world may have: forks beyond fail.
const PROCESSES: usize = 40;

pub(super) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// What a kernel can do, by version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    /// pidfd_open(2), Linux 5.3.
    pub(super) pidfd: bool,
    /// `cgroup.kill`, Linux 5.14.
    pub(super) cgroup_kill: bool,
    /// Inode numbers of pidfds, and pidfds of threads, Linux 6.9.
    pub(super) pidfs: bool,
    /// PIDFD_GET_INFO, Linux 6.13.
    pub(super) info: bool,
    /// The dying leave the lists before they are dead. On 6.19.14 to 7.0.7 rmdir(2) blocks on them, later it
    /// does not wait: the model lets it through, and holds it against the library.
    pub(super) hides_dying: bool,
}

impl Features {
    /// Those of 5.2, 5.3, 5.14, 6.9, 6.13 and 6.19.
    pub(super) fn of(level: usize) -> Features {
        let since = |first| level >= first;
        Features {
            pidfd: since(1),
            cgroup_kill: since(2),
            pidfs: since(3),
            info: since(4),
            hides_dying: since(5),
        }
    }

    pub(super) const LEVELS: usize = 6;

    /// The first kernel that has them.
    fn release(self) -> (u32, u32) {
        match self {
            Features { hides_dying: true, .. } => (6, 19),
            Features { info: true, .. } => (6, 13),
            Features { pidfs: true, .. } => (6, 9),
            Features { cgroup_kill: true, .. } => (5, 14),
            Features { pidfd: true, .. } => (5, 3),
            _ => (5, 2),
        }
    }
}

pub(super) type GroupId = usize;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) hierarchy: usize,
    pub(super) parent: Option<GroupId>,
    pub(super) name: String,
    pub(super) removed: bool,
    /// The reap whose target it is part of.
    pub(super) target: Option<usize>,
    /// `freezer.state` was written FROZEN, or `cgroup.freeze` 1, and by whom.
    pub(super) frozen: Option<Hand>,
    /// Something makes rmdir(2) fail with EBUSY, a mount for instance.
    pub(super) busy: bool,
    /// The library may not write here, nor remove it.
    pub(super) denied: bool,
    /// What `cgroup.events` says.
    events: (bool, bool),
    notified: Duration,
    notify_pending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    Ours,
    Theirs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// SIGKILL was taken, and the exit is under way.
    Dying,
    /// A zombie.
    Dead,
}

/// What a process is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Nature {
    /// How long its exit takes.
    pub(super) exit: Duration,
    /// How long it takes to freeze.
    pub(super) freeze: Duration,
    /// In uninterruptible sleep until [`World::calm`]: neither dies nor freezes.
    pub(super) stuck: bool,
    /// Its exit hangs until [`World::calm`].
    pub(super) hangs: bool,
    /// It forks this often.
    pub(super) forks: Option<Duration>,
    /// Its leader thread has exited, and others live.
    pub(super) leaderless: bool,
    /// It is of an outer pid namespace: v2 lists it as 0, v1 not at all.
    pub(super) stranger: bool,
    /// Signals to it are refused with EPERM.
    pub(super) foreign: bool,
    /// It ends on SIGTERM.
    pub(super) polite: bool,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Tells it from another process of the same pid: the inode number of its pidfds.
    pub(super) ino: u64,
    pub(super) groups: [GroupId; 3],
    pub(super) nature: Nature,
    pub(super) life: Life,
    /// SIGKILL is pending, or was taken.
    pub(super) killed: bool,
    pub(super) termed: bool,
    /// The reaps that signalled it, by `cgroup.kill` too.
    pub(super) signalled: Reaps,
    /// The library may not signal it, and has tried.
    pub(super) refused: bool,
    /// The reaps that read its pid in some `cgroup.procs`.
    pub(super) listed: Reaps,
    /// And those that got nonsense in its place, or could not read it in time.
    pub(super) omitted: Reaps,
    /// SIGSTOP has been sent, and no SIGCONT.
    pub(super) stopped: bool,
    /// The step in which it came to where it is.
    pub(super) moved: u64,
    /// And when that was.
    pub(super) moved_at: Duration,
    /// Being frozen since then, by v1 and by v2.
    freezing: [Option<Duration>; 2],
    /// The last step in which it was a member of each target that it ever was in.
    member: Vec<(usize, u64)>,
}

impl Process {
    /// Whether a reap can tell that it killed it, also once it is no longer listed.
    pub(super) fn is_known(&self, reap: Option<usize>) -> bool {
        self.signalled.has(reap) && self.listed.has(reap) && !self.omitted.has(reap)
    }

    /// Whether a freeze of v1 has taken hold, so that no SIGKILL reaches it; or one of v2, which leaves it
    /// killable.
    fn is_frozen(&self, version: usize, now: Duration) -> bool {
        let frozen = self.freezing[version].is_some_and(|since| now >= since + self.nature.freeze);
        frozen && !self.nature.stuck && self.life == Life::Alive
    }

    /// Whether it gets to run its own code.
    fn runs(&self, now: Duration) -> bool {
        let held = self.stopped || self.nature.stuck || self.is_frozen(0, now) || self.is_frozen(1, now);
        self.life == Life::Alive && !held
    }
}

/// Some reaps, by the numbers of their targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reaps(u64);

impl Reaps {
    fn add(&mut self, target: Option<usize>) {
        self.0 |= target.map_or(0, |target| 1 << target);
    }

    pub(super) fn has(self, target: Option<usize>) -> bool {
        target.is_some_and(|target| self.0 & 1 << target != 0)
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Exited(u64),
    Reaped(u64),
    Fork(u64),
    Notify(GroupId),
    /// A freeze takes hold.
    Settle,
    /// Another party acts.
    Others,
}

struct WatchOf {
    token: usize,
    object: Object,
}

/// The files of a group.
const FILES: [&str; 7] = [
    "cgroup.procs",
    "cgroup.events",
    "cgroup.kill",
    "cgroup.freeze",
    "freezer.state",
    "freezer.self_freezing",
    "freezer.parent_freezing",
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    /// The tmpfs that the hierarchies are mounted on.
    Outside,
    Group(GroupId),
    File(GroupId, &'static str),
    Proc(String),
    Pidfd(u64),
}

/// What is to be known of a reap's target to judge what is done to it.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) tops: Vec<GroupId>,
    /// Parent and name of each of its directories, there or not.
    pub(super) paths: Vec<(GroupId, String)>,
    /// The library has pinned them.
    pub(super) resolved: bool,
    /// By more than their paths, so that it finds them also where they are renamed.
    pub(super) may_be_renamed: bool,
    /// Its reap is under way.
    pub(super) live: bool,
    /// No SIGKILL is due before that.
    pub(super) not_before: Duration,
    /// When somebody in it was last seen to live.
    pub(super) populated_at: Duration,
    /// Another party removed one of its directories and made it again.
    pub(super) remade: bool,
}

thread_local! {
    /// What happens, where that is wanted.
    pub(super) static LOG: RefCell<Option<String>> = const { RefCell::new(None) };
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) rng: fastrand::Rng,
    pub(super) features: Features,
    pub(super) groups: Vec<Group>,
    pub(super) processes: Vec<Process>,
    pub(super) targets: Vec<Target>,
    /// Chance of a call to fail, in 1/256.
    pub(super) faults: u8,
    /// Chance of other parties to act before a call, in 1/256.
    pub(super) churn: u8,
    /// What they do.
    pub(super) others: fn(&mut World),
    /// Acts that `others` may choose from.
    pub(super) acts: u32,
    /// Where the calling thread is, if it is not the main one.
    pub(super) thread: Option<[GroupId; 3]>,
    /// How long zombies wait for their parents, if always the same.
    pub(super) wait_after: Option<Duration>,
    /// The library may open directories by their inode numbers.
    pub(super) handles: bool,
    pub(super) descriptors: usize,
    pub(super) descriptor_limit: usize,
    /// Some call was refused for want of rights or of a facility, ever and in which step last.
    pub(super) refused: bool,
    pub(super) refused_in: u64,
    /// The last step in which some call failed that should not.
    pub(super) failed_in: u64,
    /// And when that was.
    pub(super) failed_at: Duration,
    /// There is somebody whom v1 does not list.
    pub(super) strangers: bool,
    /// The last step in which something was thawed.
    thawed_in: u64,
    /// Whose target's files were opened last: the reap that acts now.
    acting: Option<usize>,
    /// A v1 freezer group outside of a target was frozen.
    pub(super) frozen_outside: bool,
    /// The step of the library that is under way.
    pub(super) step: u64,
    pub(super) calls: u64,
    pub(super) outrages: Vec<String>,
    agenda: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    watches: BTreeMap<u64, WatchOf>,
    next_fd: u64,
    next_ino: u64,
    next_pid: i32,
    /// Tokens to be woken.
    notified: Vec<usize>,
}

impl World {
    pub(super) fn new(rng: fastrand::Rng, features: Features) -> World {
        let mut world = World {
            now: Duration::from_secs(100),
            rng,
            features,
            groups: Vec::new(),
            processes: Vec::new(),
            targets: Vec::new(),
            faults: 0,
            churn: 0,
            others: |_| {},
            acts: 0,
            thread: None,
            wait_after: None,
            handles: true,
            descriptors: 0,
            descriptor_limit: usize::MAX,
            refused: !features.pidfd,
            refused_in: 0,
            failed_in: 0,
            failed_at: Duration::ZERO,
            strangers: false,
            thawed_in: 0,
            acting: None,
            frozen_outside: false,
            step: 1,
            calls: 0,
            outrages: Vec::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            watches: BTreeMap::new(),
            next_fd: 0,
            next_ino: 5000,
            next_pid: 2000,
            notified: Vec::new(),
        };
        for hierarchy in ROOTS {
            world.add_group(hierarchy, None, "");
        }
        let own = ROOTS.map(|root| world.mkdir(root, "own"));
        world.add_process(own, Nature::default(), Some(SELF));
        world
    }

    fn outrage(&mut self, what: String) {
        self.note(|| format!("OUTRAGE: {what}"));
        self.outrages.push(what);
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                let _ = writeln!(log, "{:>12.3} ms  {}", self.now.as_secs_f64() * 1e3 - 1e5, what());
            }
        });
    }

    /// To be called before the library is: what it sees from here on it may act on.
    pub(super) fn begin_step(&mut self) {
        self.step += 1;
        self.calls = 0;
        self.changed();
    }

    // --- Groups ------------------------------------------------------------------------------------------

    fn add_group(&mut self, hierarchy: usize, parent: Option<GroupId>, name: &str) -> GroupId {
        self.groups.push(Group {
            hierarchy,
            parent,
            name: name.to_string(),
            removed: false,
            target: parent.and_then(|parent| self.groups[parent].target),
            frozen: None,
            busy: false,
            denied: false,
            events: (false, false),
            notified: Duration::ZERO,
            notify_pending: false,
        });
        self.groups.len() - 1
    }

    /// mkdir(2); the group that is there already, if one is.
    pub(super) fn mkdir(&mut self, parent: GroupId, name: &str) -> GroupId {
        if let Some(there) = self.child(parent, name) {
            return there;
        }
        let hierarchy = self.groups[parent].hierarchy;
        self.add_group(hierarchy, Some(parent), name)
    }

    pub(super) fn path(&self, group: GroupId) -> String {
        match self.groups[group].parent {
            None => MOUNTS[group].to_string(),
            Some(parent) => format!("{}/{}", self.path(parent), self.groups[group].name),
        }
    }

    /// Its path below the hierarchy's root, as /proc has it.
    fn inner_path(&self, group: GroupId) -> String {
        match &self.path(group)[MOUNTS[self.groups[group].hierarchy].len()..] {
            "" => "/".into(),
            path => path.into(),
        }
    }

    pub(super) fn child(&self, parent: GroupId, name: &str) -> Option<GroupId> {
        self.children(parent).find(|&child| self.groups[child].name == name)
    }

    pub(super) fn children(&self, parent: GroupId) -> impl Iterator<Item = GroupId> {
        let is = move |group: &Group| !group.removed && group.parent == Some(parent);
        self.groups.iter().enumerate().filter(move |(_, group)| is(group)).map(|(id, _)| id)
    }

    /// What is at the paths of a target now is part of it.
    pub(super) fn claim(&mut self, target: usize) {
        let paths = &self.targets[target].paths;
        let tops: Vec<GroupId> =
            paths.iter().filter_map(|(parent, name)| self.child(*parent, name)).collect();
        for group in 0..self.groups.len() {
            if tops.iter().any(|&top| self.is_below(group, top)) {
                self.groups[group].target = Some(target);
            }
        }
        self.targets[target].tops = tops;
        self.changed();
    }

    /// Whether `group` is `top` or below it.
    pub(super) fn is_below(&self, mut group: GroupId, top: GroupId) -> bool {
        loop {
            if group == top {
                return true;
            }
            match self.groups[group].parent {
                Some(parent) => group = parent,
                None => return false,
            }
        }
    }

    /// rmdir(2), by anybody.
    pub(super) fn remove(&mut self, group: GroupId) -> Result<(), i32> {
        let state = &self.groups[group];
        if state.removed {
            return Err(libc::ENOENT);
        }
        // Who has left the lists does not hold a directory, dying or not.
        let holds = |process: &Process| match process.life {
            Life::Alive => true,
            Life::Dying => !self.features.hides_dying,
            Life::Dead => false,
        };
        let members = self.processes.iter().any(|p| holds(p) && p.groups[state.hierarchy] == group);
        if state.busy || state.parent.is_none() || members || self.children(group).next().is_some() {
            return Err(libc::EBUSY);
        }
        self.groups[group].removed = true;
        Ok(())
    }

    /// Writes FROZEN or THAWED to `freezer.state`, 1 or 0 to `cgroup.freeze`.
    pub(super) fn set_frozen(&mut self, group: GroupId, frozen: Option<Hand>) {
        if frozen.is_none() {
            self.thawed_in = self.step;
        }
        self.groups[group].frozen = match (frozen, self.groups[group].frozen) {
            // Whoever froze it as well, it was not us alone.
            (Some(_), Some(Hand::Theirs)) => Some(Hand::Theirs),
            (frozen, _) => frozen,
        };
        let Group { hierarchy, target, .. } = self.groups[group];
        // What is inside of one target is outside of another.
        let outside = target.is_none() || self.targets.len() > 1;
        self.frozen_outside |= frozen.is_some() && hierarchy == FREEZER && outside;
        self.changed();
    }

    fn is_frozen_from(&self, mut group: GroupId) -> bool {
        loop {
            if self.groups[group].frozen.is_some() {
                return true;
            }
            match self.groups[group].parent {
                Some(parent) => group = parent,
                None => return false,
            }
        }
    }

    fn members_below(&self, top: GroupId) -> impl Iterator<Item = &Process> {
        let hierarchy = self.groups[top].hierarchy;
        self.processes.iter().filter(move |p| p.life != Life::Dead && self.is_below(p.groups[hierarchy], top))
    }

    // --- Processes ---------------------------------------------------------------------------------------

    pub(super) fn add_process(&mut self, groups: [GroupId; 3], nature: Nature, pid: Option<i32>) -> u64 {
        self.next_ino += 1;
        self.next_pid += 1;
        self.strangers |= nature.stranger;
        let ino = self.next_ino;
        self.processes.push(Process {
            pid: pid.unwrap_or(self.next_pid),
            ino,
            groups,
            nature,
            life: Life::Alive,
            killed: false,
            termed: false,
            signalled: Reaps::default(),
            refused: false,
            listed: Reaps::default(),
            omitted: Reaps::default(),
            stopped: false,
            moved: self.step,
            moved_at: self.now,
            freezing: [None; 2],
            member: Vec::new(),
        });
        if let Some(period) = nature.forks {
            self.plan(period, Event::Fork(ino));
        }
        self.changed();
        ino
    }

    pub(super) fn process(&mut self, ino: u64) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.ino == ino)
    }

    fn by_pid(&self, pid: i32) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    /// Moves a process, in all of the hierarchies or some.
    pub(super) fn migrate(&mut self, ino: u64, groups: [GroupId; 3]) {
        let (now, step) = (self.now, self.step);
        if self.process(ino).map(|process| process.groups[FREEZER]).is_some_and(|g| self.is_frozen_from(g)) {
            self.thawed_in = step;
        }
        let Some(process) = self.process(ino).filter(|process| process.life == Life::Alive) else { return };
        process.groups = groups;
        process.moved = step;
        process.moved_at = now;
        self.changed();
    }

    /// SIGKILL, from another party.
    pub(super) fn sigkill(&mut self, ino: u64) {
        if let Some(process) = self.process(ino) {
            process.killed = true;
        }
        self.changed();
    }

    /// A process that can exits at once, and its pid is given to another outside.
    pub(super) fn recycle(&mut self, ino: u64) {
        let now = self.now;
        let Some(process) = self.process(ino).filter(|process| process.runs(now)) else { return };
        process.life = Life::Dead;
        self.wake(&Object::Pidfd(ino));
        self.changed();
        self.reap(ino);
    }

    /// The targets that a process is in.
    pub(super) fn targets_of(&self, process: &Process) -> impl Iterator<Item = usize> {
        process.groups.map(|group| self.groups[group].target).into_iter().flatten()
    }

    /// Works out what follows from a change: who freezes, who dies, who is a member of what, what is notified.
    pub(super) fn changed(&mut self) {
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            if process.life == Life::Dead {
                continue;
            }
            let (now, step) = (self.now, self.step);
            let freezing = [FREEZER, V2].map(|h| self.is_frozen_from(process.groups[h]));
            let targets = process.groups.map(|group| self.groups[group].target);
            for target in targets.into_iter().flatten() {
                self.targets[target].populated_at = now;
            }
            let process = &mut self.processes[at];
            let mut settle = false;
            for (since, freezing) in process.freezing.iter_mut().zip(freezing) {
                settle |= freezing && since.is_none();
                *since = if freezing { since.or(Some(now)) } else { None };
            }
            for target in targets.into_iter().flatten() {
                match process.member.iter_mut().find(|(of, _)| *of == target) {
                    Some((_, last)) => *last = step,
                    None => process.member.push((target, step)),
                }
            }
            process.killed |= process.termed && process.nature.polite && process.runs(now);
            let (ino, nature) = (process.ino, process.nature);
            if process.life == Life::Alive && process.killed && !nature.stuck && !process.is_frozen(0, now) {
                process.life = Life::Dying;
                if !nature.hangs {
                    self.plan(nature.exit, Event::Exited(ino));
                }
            } else if settle && !nature.stuck {
                self.plan(nature.freeze, Event::Settle);
            }
        }
        for group in V2 + 1..self.groups.len() {
            if self.groups[group].hierarchy == V2 && !self.groups[group].removed {
                let events = self.events(group);
                if std::mem::replace(&mut self.groups[group].events, events) != events {
                    self.notify(group);
                }
            }
        }
    }

    /// `populated` and `frozen`.
    fn events(&self, group: GroupId) -> (bool, bool) {
        let populated = self.members_below(group).next().is_some();
        let frozen =
            self.is_frozen_from(group) && self.members_below(group).all(|p| p.is_frozen(1, self.now));
        (populated, frozen)
    }

    fn notify(&mut self, group: GroupId) {
        if !std::mem::replace(&mut self.groups[group].notify_pending, true) {
            let due = self.groups[group].notified + THROTTLE;
            self.plan(due.saturating_sub(self.now), Event::Notify(group));
        }
    }

    // --- Time --------------------------------------------------------------------------------------------

    fn plan(&mut self, delay: Duration, event: Event) {
        self.planned += 1;
        self.agenda.insert((self.now + delay, self.planned), event);
    }

    /// Has another party act after a while, and again after a while.
    pub(super) fn plan_others(&mut self, delay: Duration) {
        if self.acts != 0 {
            self.plan(delay, Event::Others);
        }
    }

    /// When something happens next.
    pub(super) fn next_event(&self) -> Option<Duration> {
        if self.notified.is_empty() { self.agenda.keys().next().map(|(at, _)| *at) } else { Some(self.now) }
    }

    /// Lets time pass up to `until`.
    pub(super) fn advance(&mut self, until: Duration) {
        while let Some((&(at, number), &event)) =
            self.agenda.iter().next().filter(|((at, _), _)| *at <= until)
        {
            self.agenda.remove(&(at, number));
            self.now = self.now.max(at);
            match event {
                Event::Exited(ino) => {
                    let Some(process) = self.process(ino) else { continue };
                    process.life = Life::Dead;
                    let groups = process.groups;
                    for target in groups.map(|group| self.groups[group].target).into_iter().flatten() {
                        self.targets[target].populated_at = self.now;
                    }
                    self.note(|| format!("({ino} is dead)"));
                    self.wake(&Object::Pidfd(ino));
                    self.changed();
                    let soon = if self.rng.bool() { Duration::ZERO } else { THROTTLE };
                    self.plan(self.wait_after.unwrap_or(soon), Event::Reaped(ino));
                }
                Event::Reaped(ino) => self.reap(ino),
                Event::Fork(ino) => self.fork(ino),
                Event::Notify(group) => {
                    self.groups[group].notify_pending = false;
                    self.groups[group].notified = self.now;
                    // cgroup_rm_file cancels what is pending; and now and then one is lost for no reason.
                    if !self.groups[group].removed && self.rng.u8(..) >= self.faults {
                        self.wake(&Object::File(group, "cgroup.events"));
                    }
                }
                Event::Settle => self.changed(),
                Event::Others => {
                    (self.others)(self);
                    let delay = Duration::from_millis(1 + (self.rng.u64(..300) >> self.rng.u32(..8)));
                    self.plan_others(delay);
                }
            }
        }
        self.now = self.now.max(until);
    }

    /// Its parent waits for a zombie, which frees the pid.
    pub(super) fn reap(&mut self, ino: u64) {
        let Some(at) = self.processes.iter().position(|p| p.ino == ino) else { return };
        let pid = self.processes.swap_remove(at).pid;
        if self.churn > 0 && self.rng.bool() {
            let newcomer = self.add_process(ROOTS, Nature::default(), Some(pid));
            self.note(|| format!("(pid {pid} is {newcomer} outside now)"));
        }
    }

    fn fork(&mut self, ino: u64) {
        let now = self.now;
        let total = self.processes.len();
        let Some(process) = self.process(ino).filter(|process| process.life == Life::Alive) else { return };
        let (groups, nature, killed) = (process.groups, process.nature, process.killed);
        let runs = process.runs(now) && !killed;
        if let Some(period) = nature.forks {
            self.plan(period, Event::Fork(ino));
        }
        if runs && total < PROCESSES {
            let child = self.add_process(groups, Nature { leaderless: false, ..nature }, None);
            self.note(|| format!("({ino} forks {child})"));
        }
    }

    fn wake(&mut self, object: &Object) {
        let tokens: Vec<usize> =
            self.watches.values().filter(|watch| watch.object == *object).map(|watch| watch.token).collect();
        for token in tokens {
            self.notified.push(token);
            if self.rng.u8(..) < self.faults {
                self.notified.push(token);
            }
        }
    }

    /// Tokens to be woken now.
    pub(super) fn take_notified(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.notified)
    }

    /// Ends all hostilities, and lets go whatever is held back.
    pub(super) fn calm(&mut self) {
        self.note(|| "--- all is calm".into());
        (self.faults, self.churn, self.descriptor_limit) = (0, 0, usize::MAX);
        self.acts = 0;
        let own = [FREEZER, CPU, V2].map(|root| self.child(root, "own").expect("nobody removes it"));
        for group in &mut self.groups {
            (group.busy, group.denied) = (false, false);
            // Inside of a target it is for the library to undo, while it is at it and sees for whom.
            let reaped = group.target.is_some_and(|target| self.targets[target].live);
            let theirs = !reaped || self.strangers;
            // A reap that lost the right to thaw has left it frozen, and others may wait for whom it holds.
            if theirs && (group.frozen == Some(Hand::Theirs) || !reaped) {
                group.frozen = None;
            }
        }
        for at in 0..self.processes.len() {
            let process = &mut self.processes[at];
            if process.pid == SELF {
                process.groups = own;
            }
            // v1 does not show a stranger, and `cgroup.kill` spares who has no leader: nobody else will see to it.
            process.killed |= process.nature.stranger || process.nature.leaderless;
            process.nature.foreign = false;
            process.nature.stuck = false;
            process.nature.freeze = Duration::ZERO;
            if std::mem::take(&mut process.nature.hangs) && process.life == Life::Dying {
                let ino = process.ino;
                self.plan(Duration::ZERO, Event::Exited(ino));
            }
        }
        self.changed();
    }

    // --- What the library does ---------------------------------------------------------------------------

    /// Whether the process was, in this step, in some target whose reap is under way.
    fn is_victim(&self, process: &Process) -> bool {
        process.member.iter().any(|&(target, last)| last == self.step && self.targets[target].live)
    }

    /// Notes who is signalled; an outrage if that must not be.
    fn check_victim(&mut self, ino: u64, signal: i32, how: &str) {
        let Some(process) = self.processes.iter().find(|process| process.ino == ino) else { return };
        let pid = process.pid;
        // A thaw by another party, of what we froze or of whom it moved away, is what no kill(2) is safe from: stated
        // as such.
        let unsafe_by_others = how == "kill" && self.thawed_in == self.step;
        if !self.is_victim(process) && !unsafe_by_others {
            self.outrage(format!("{how}: {ino}, pid {pid}, is in no target"));
        } else if pid == SELF && process.moved < self.step {
            self.outrage(format!("{how}: the caller itself"));
        } else if signal == libc::SIGKILL
            && !unsafe_by_others
            && process.member.iter().all(|&(target, _)| self.now < self.targets[target].not_before)
        {
            self.outrage(format!("{how}: SIGKILL to {ino}, pid {pid}, within its grace"));
        }
    }

    fn deliver(&mut self, ino: u64, signal: i32) {
        self.note(|| format!("signal {signal} to {ino}"));
        let acting = self.acting;
        // The caller may have moved in a moment ago. The history goes on all the same.
        let Some(process) = self.process(ino).filter(|process| process.pid != SELF) else { return };
        // Who was on its way out before cannot have been listed: a stated limitation.
        if process.life == Life::Alive {
            process.signalled.add(acting);
        }
        match signal {
            libc::SIGKILL => process.killed = true,
            libc::SIGSTOP => process.stopped = true,
            libc::SIGCONT => process.stopped = false,
            libc::SIGTERM => process.termed = true,
            _ => {}
        }
        self.changed();
    }

    /// The write to `cgroup.kill`.
    fn cgroup_kill(&mut self, group: GroupId) {
        let victims: Vec<(u64, bool)> =
            self.members_below(group).map(|p| (p.ino, p.nature.leaderless)).collect();
        for (ino, leaderless) in victims {
            self.check_victim(ino, libc::SIGKILL, "cgroup.kill");
            // Who joined after the list before it may be hidden before the next.
            let (step, acting) = (self.step, self.acting);
            if let Some(process) = self.processes.iter_mut().find(|p| p.ino == ino && p.moved == step) {
                process.omitted.add(acting);
            }
            // It goes to the leader, which wakes nobody else.
            if !leaderless {
                self.deliver(ino, libc::SIGKILL);
            }
        }
    }

    /// What a call meets before it does anything.
    fn enter(&mut self, call: &str, errors: &[i32]) -> io::Result<()> {
        if self.churn > 0 && self.rng.u8(..) < self.churn {
            (self.others)(self);
        }
        self.fail(call, errors)
    }

    fn fail(&mut self, call: &str, errors: &[i32]) -> io::Result<()> {
        self.calls += 1;
        if self.faults > 0 && self.rng.u8(..) < self.faults && !errors.is_empty() {
            let number = errors[self.rng.usize(..errors.len())];
            return Err(self.refuse(call, number));
        }
        Ok(())
    }

    /// An error that has nothing to do with what the call was for.
    fn refuse(&mut self, call: &str, number: i32) -> io::Error {
        if matches!(number, libc::EACCES | libc::EPERM | libc::EROFS | libc::EOPNOTSUPP) {
            self.refused = true;
            self.refused_in = self.step;
        }
        self.failed_in = self.step;
        self.failed_at = self.now;
        self.note(|| format!("{call}: {}", errno(number)));
        errno(number)
    }

    /// The directory, or file in one, that a path leads to.
    fn lookup(&self, at: Option<&Object>, path: &str) -> Result<Object, i32> {
        let mut rest = path;
        let mut here;
        if let Some(at) = at {
            here = at.clone();
        } else if path.starts_with("/proc/") {
            return Ok(Object::Proc(path.to_string()));
        } else {
            let starts = |rest: &str| rest.is_empty() || rest.starts_with('/');
            match MOUNTS.iter().position(|mount| path.strip_prefix(mount).is_some_and(starts)) {
                Some(root) => {
                    here = Object::Group(root);
                    rest = &path[MOUNTS[root].len()..];
                }
                None if MOUNTS[0].starts_with(path) => return Ok(Object::Outside),
                None => return Err(libc::ENOENT),
            }
        }
        for name in rest.split('/').filter(|name| !name.is_empty()) {
            let Object::Group(group) = here else {
                return Err(libc::ENOTDIR);
            };
            // The way up is open from a removed directory too.
            if self.groups[group].removed && name != ".." {
                return Err(libc::ENOENT);
            }
            here = match (name, self.groups[group].parent) {
                (".", _) => here,
                ("..", Some(parent)) => Object::Group(parent),
                ("..", None) => Object::Outside,
                _ => match self.child(group, name) {
                    Some(child) => Object::Group(child),
                    None => Object::File(group, self.file(group, name).ok_or(libc::ENOENT)?),
                },
            };
        }
        Ok(here)
    }

    fn file(&self, group: GroupId, name: &str) -> Option<&'static str> {
        let file = FILES.into_iter().find(|file| *file == name)?;
        let Group { hierarchy, parent, .. } = self.groups[group];
        let has = match file {
            "cgroup.procs" => true,
            "cgroup.kill" => hierarchy == V2 && parent.is_some() && self.features.cgroup_kill,
            "cgroup.events" | "cgroup.freeze" => hierarchy == V2 && parent.is_some(),
            _ => hierarchy == FREEZER && parent.is_some(),
        };
        has.then_some(file)
    }

    /// What a file of a group says.
    fn text(&mut self, group: GroupId, name: &str) -> Result<String, i32> {
        if self.groups[group].removed {
            return Err(libc::ENODEV);
        }
        let Group { hierarchy, parent, frozen, .. } = self.groups[group];
        let digit = |yes: bool| format!("{}\n", u8::from(yes));
        Ok(match name {
            "cgroup.procs" => {
                let mut text = String::new();
                let hides_dying = self.features.hides_dying;
                for process in &self.processes {
                    let listed = match process.life {
                        Life::Alive => true,
                        Life::Dying => !hides_dying,
                        Life::Dead => false,
                    };
                    if !listed || process.groups[hierarchy] != group {
                        continue;
                    }
                    match (process.nature.stranger, hierarchy) {
                        (true, V2) => text.push_str("0\n"),
                        (true, _) => {}
                        (false, _) => drop(writeln!(text, "{}", process.pid)),
                    }
                }
                text
            }
            "cgroup.events" => {
                let (populated, frozen) = self.groups[group].events;
                format!("populated {}\nfrozen {}\n", u8::from(populated), u8::from(frozen))
            }
            "cgroup.freeze" | "freezer.self_freezing" => digit(frozen.is_some()),
            "freezer.parent_freezing" => digit(parent.is_some_and(|parent| self.is_frozen_from(parent))),
            "freezer.state" if !self.is_frozen_from(group) => "THAWED\n".into(),
            "freezer.state" if self.members_below(group).all(|p| p.is_frozen(0, self.now)) => {
                "FROZEN\n".into()
            }
            "freezer.state" => "FREEZING\n".into(),
            _ => return Err(libc::EINVAL),
        })
    }

    fn proc_text(&self, path: &str) -> Result<String, i32> {
        if path == "/proc/self/mountinfo" {
            let line = |at: usize, kind, options| {
                format!("{} 1 0:{at} / {} rw - {kind} {kind} rw{options}\n", 31 + at, MOUNTS[at])
            };
            return Ok(line(FREEZER, "cgroup", ",freezer")
                + &line(CPU, "cgroup", ",cpu")
                + &line(V2, "cgroup2", ""));
        }
        let mut parts = path.trim_start_matches("/proc/").split('/');
        let mut groups = None;
        let pid = match parts.next() {
            Some("self") => SELF,
            Some("thread-self") => {
                groups = self.thread;
                SELF
            }
            Some(pid) => pid.parse().map_err(|_| libc::ENOENT)?,
            None => return Err(libc::ENOENT),
        };
        let process = self.by_pid(pid).ok_or(libc::ENOENT)?;
        match parts.next() {
            Some("cgroup") => {
                let groups = groups.unwrap_or(process.groups);
                let path = |hierarchy: usize| self.inner_path(groups[hierarchy]);
                Ok(format!("3:cpu:{}\n2:freezer:{}\n0::{}\n", path(CPU), path(FREEZER), path(V2)))
            }
            Some("comm") => Ok("simulated\n".into()),
            Some("wchan") => Ok("0".into()),
            Some("stat") => {
                // PF_EXITING of `linux/sched.h`.
                let flags = 0x0040_0100 | if process.life == Life::Alive { 0 } else { 4 };
                Ok(format!("{pid} (simulated) S 1 1 1 0 -1 {flags} 0\n"))
            }
            _ => Err(libc::ENOENT),
        }
    }

    /// A write by the library: whether it is one that it may make, and whether it is let.
    fn check_write(&mut self, group: GroupId, what: &str) -> io::Result<()> {
        if self.groups[group].removed {
            return Err(errno(libc::ENODEV));
        }
        let reaped = self.groups[group].target.is_some_and(|target| self.targets[target].live);
        // A group outside that holds members frozen may be thawed if nobody else is in it that v1 shows.
        let hidden = |p: &Process| p.nature.stranger || self.features.hides_dying && p.life == Life::Dying;
        let idle = |p: &Process| p.moved == self.step || hidden(p) || self.is_victim(p);
        let wanted = reaped || what == "THAWED" && self.members_below(group).all(idle);
        if !wanted {
            let path = self.path(group);
            self.outrage(format!("{what} to {path}, which is not to be touched"));
        }
        if what == "FROZEN" || what == "1" {
            let own = |p: &Process| p.pid == SELF && p.moved < self.step;
            if self.members_below(group).any(own) {
                self.outrage(format!("{what} to {}, where the caller is", self.path(group)));
            }
        }
        if self.groups[group].denied {
            return Err(self.refuse("write", libc::EACCES));
        }
        Ok(())
    }
}

/// The handle on a [`World`] that the library is given.
#[derive(Clone)]
pub(super) struct Sim(pub(super) Rc<RefCell<World>>);

pub(super) struct Fd {
    id: u64,
    object: Object,
    /// What a read from the beginning found, for those that go on from there: seq_file.
    read: RefCell<Vec<u8>>,
    world: Rc<RefCell<World>>,
}

impl std::fmt::Debug for Fd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.object)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        world.descriptors -= 1;
        world.watches.remove(&self.id);
    }
}

/// Failures that a call may meet whatever it is for.
const LOOKUP: &[i32] = &[libc::EACCES, libc::EIO, libc::ENOMEM, libc::EINTR];
const OPEN: &[i32] = &[libc::EACCES, libc::EMFILE, libc::ENFILE, libc::EIO, libc::ENOMEM, libc::EINTR];
const HANDLE: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::EIO, libc::ENOMEM, libc::EINTR];
const READ: &[i32] = &[libc::EIO, libc::EINTR, libc::ENOMEM];
const WRITE: &[i32] = &[libc::EIO, libc::EINTR, libc::EPERM, libc::EBUSY, libc::EOPNOTSUPP];

impl Sim {
    fn fd(&self, object: Object) -> io::Result<Fd> {
        let mut world = self.0.borrow_mut();
        if world.descriptors >= world.descriptor_limit {
            return Err(world.refuse("descriptors", libc::EMFILE));
        }
        world.descriptors += 1;
        world.next_fd += 1;
        let id = world.next_fd;
        drop(world);
        Ok(Fd { id, object, read: RefCell::default(), world: Rc::clone(&self.0) })
    }

    /// Has notifications of the descriptor come as this token.
    pub(super) fn register(&self, fd: &Fd, token: usize) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.enter("epoll_ctl", &[libc::ENOSPC, libc::ENOMEM])?;
        world.watches.insert(fd.id, WatchOf { token, object: fd.object.clone() });
        // epoll reports at once what is readable already; of a file's changes it may say one too many.
        let ready = match fd.object {
            Object::Pidfd(ino) => !world.processes.iter().any(|p| p.ino == ino && p.life != Life::Dead),
            _ => world.rng.bool(),
        };
        if ready {
            world.notified.push(token);
        }
        Ok(())
    }
}

impl Sys for Sim {
    type Fd = Fd;

    fn now(&self) -> Duration {
        self.0.borrow().now
    }

    fn caller(&self) -> (Pid, Pid) {
        let id = |id| Pid::new(id).expect("positive");
        (id(SELF), id(if self.0.borrow().thread.is_some() { THREAD } else { SELF }))
    }

    fn release(&self) -> (u32, u32) {
        self.0.borrow().features.release()
    }

    fn open(&self, at: Option<&Fd>, path: &CStr, how: Open) -> io::Result<Fd> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let object = {
            let mut world = self.0.borrow_mut();
            world.enter("openat", OPEN)?;
            let object = world.lookup(at.map(|fd| &fd.object), path).map_err(errno)?;
            if let Object::File(group, _) = object {
                world.acting = world.groups[group].target.or(world.acting);
            }
            match (&object, how) {
                (Object::Proc(path), _) => drop(world.proc_text(path).map_err(errno)?),
                (Object::File(group, _), Open::Write | Open::ReadWrite) if world.groups[*group].denied => {
                    return Err(world.refuse("openat", libc::EACCES));
                }
                _ => {}
            }
            object
        };
        self.fd(object)
    }

    fn open_identity(&self, mount: &Fd, ino: u64) -> io::Result<Fd> {
        let group = {
            let mut world = self.0.borrow_mut();
            world.enter("open_by_handle_at", HANDLE)?;
            if !world.handles {
                return Err(errno(libc::EPERM));
            }
            let Object::Group(mount) = mount.object else { return Err(errno(libc::ESTALE)) };
            let hierarchy = world.groups[mount].hierarchy;
            let group = ino as usize - 1;
            let there = |group: &&Group| group.hierarchy == hierarchy && !group.removed;
            world.groups.get(group).filter(there).map(|_| group).ok_or_else(|| errno(libc::ESTALE))?
        };
        self.fd(Object::Group(group))
    }

    fn read_at(&self, fd: &Fd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.0.borrow_mut();
        world.enter("pread", READ)?;
        let mut text = fd.read.borrow_mut();
        match &fd.object {
            Object::File(group, _) if world.groups[*group].removed => return Err(errno(libc::ENODEV)),
            Object::File(group, name) if offset == 0 => {
                *text = world.text(*group, name).map_err(errno)?.into_bytes();
                world.garble(name, &mut text);
            }
            Object::Proc(path) if offset == 0 => *text = world.proc_text(path).map_err(errno)?.into_bytes(),
            Object::File(..) | Object::Proc(_) => {}
            _ => return Err(errno(libc::EISDIR)),
        }
        let left = text.get(offset as usize..).unwrap_or_default();
        if let (true, Object::File(group, "cgroup.procs")) = (left.is_empty(), &fd.object) {
            // A list that fails on the way is none.
            let pids = String::from_utf8_lossy(&text);
            let World { acting, groups, processes, .. } = &mut *world;
            for process in processes {
                if pids.lines().any(|pid| pid.parse() == Ok(process.pid)) {
                    process.listed.add(*acting);
                } else if process.life == Life::Alive && process.groups[groups[*group].hierarchy] == *group {
                    process.omitted.add(*acting);
                }
            }
        }
        let mut n = left.len().min(buffer.len());
        // A list may come in pieces.
        let pieces = matches!(fd.object, Object::File(_, "cgroup.procs"));
        if pieces && n > 1 && world.rng.u8(..) < world.faults {
            n = world.rng.usize(1..n);
        }
        buffer[..n].copy_from_slice(&left[..n]);
        Ok(n)
    }

    fn write(&self, fd: &Fd, text: &[u8]) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.enter("write", WRITE)?;
        let Object::File(group, name) = fd.object else {
            return Err(errno(libc::EBADF));
        };
        let what = String::from_utf8_lossy(text).into_owned();
        world.check_write(group, &what)?;
        world.note(|| format!("{what} > {group}/{name}"));
        match (name, &*what) {
            ("cgroup.kill", "1") => world.cgroup_kill(group),
            ("freezer.state", "FROZEN") | ("cgroup.freeze", "1") => world.set_frozen(group, Some(Hand::Ours)),
            ("freezer.state", "THAWED") | ("cgroup.freeze", "0") => world.set_frozen(group, None),
            _ => return Err(errno(libc::EINVAL)),
        }
        Ok(())
    }

    fn stat(&self, at: Option<&Fd>, path: &CStr) -> io::Result<Stat> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let mut world = self.0.borrow_mut();
        world.enter("statx", LOOKUP)?;
        let object = match at {
            // A descriptor outlives what it is of.
            Some(fd) if path.is_empty() => fd.object.clone(),
            _ => world.lookup(at.map(|fd| &fd.object), path).map_err(errno)?,
        };
        // Linux 6.8 and 5.8: the next of these features came soon after.
        let (numbers, roots) = (world.features.pidfs, world.features.cgroup_kill);
        let directory = |dev, ino, links| Stat {
            dev,
            ino,
            kind: Kind::Directory,
            links,
            mount: numbers.then_some(dev),
            mount_root: roots.then_some(false),
        };
        Ok(match object {
            Object::Outside => directory(20, 1, 5),
            Object::Group(group) => {
                let links = if world.groups[group].removed { 0 } else { 2 + world.children(group).count() };
                let Group { hierarchy, parent, .. } = world.groups[group];
                let mount_root = roots.then_some(parent.is_none());
                Stat { mount_root, ..directory(31 + hierarchy as u64, group as u64 + 1, links as u32) }
            }
            Object::Pidfd(ino) => {
                let ino = if world.features.pidfs { ino } else { 7 };
                Stat { kind: Kind::Other, ..directory(40, ino, 1) }
            }
            Object::File(..) | Object::Proc(_) => Stat { kind: Kind::Other, ..directory(41, 1, 1) },
        })
    }

    fn filesystem(&self, fd: &Fd) -> io::Result<i64> {
        let mut world = self.0.borrow_mut();
        world.enter("fstatfs", &[libc::EIO, libc::EINTR])?;
        Ok(match fd.object {
            Object::Group(group) | Object::File(group, _) if world.groups[group].hierarchy == V2 => {
                0x6367_7270
            }
            Object::Group(_) | Object::File(..) => 0x0027_e0eb,
            Object::Pidfd(_) if world.features.pidfs => 0x5049_4446,
            Object::Pidfd(_) => 0x0904_1934,
            Object::Outside => 0x0102_1994,
            Object::Proc(_) => 0x9fa0,
        })
    }

    fn subdirectories(&self, at: &Fd, path: &CStr) -> io::Result<Vec<OsString>> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let mut world = self.0.borrow_mut();
        world.enter("getdents64", OPEN)?;
        match world.lookup(Some(&at.object), path).map_err(errno)? {
            Object::Group(group) => {
                Ok(world.children(group).map(|child| world.groups[child].name.clone().into()).collect())
            }
            _ => Err(errno(libc::ENOTDIR)),
        }
    }

    fn rmdir(&self, at: Option<&Fd>, path: &CStr) -> io::Result<()> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let mut world = self.0.borrow_mut();
        // rmdir(2) goes by name, so nobody acts between it and the check of identity before it: that microsecond
        // is a stated limitation.
        world.fail("unlinkat", &[libc::EACCES, libc::EBUSY, libc::EROFS, libc::EINTR])?;
        let Object::Group(group) = world.lookup(at.map(|fd| &fd.object), path).map_err(errno)? else {
            return Err(errno(libc::ENOTDIR));
        };
        let (name, hierarchy) = (world.path(group), world.groups[group].hierarchy);
        if !world.groups[group].target.is_some_and(|target| world.targets[target].live) {
            world.outrage(format!("rmdir of {name}, which is not to be touched"));
        }
        // On v1 nobody can know of those that die by themselves.
        let blocks = |p: &Process| {
            // Nor, if they are in another PID namespace, of any.
            let known = hierarchy == V2 || p.is_known(world.groups[group].target) && !p.nature.stranger;
            p.life == Life::Dying && known && p.groups[hierarchy] == group && p.moved < world.step
        };
        if world.features.hides_dying && world.processes.iter().any(blocks) {
            world.outrage(format!("rmdir of {name} would block"));
        }
        if world.groups[group].denied {
            return Err(world.refuse("unlinkat", libc::EACCES));
        }
        let result = world.remove(group);
        world.note(|| format!("rmdir {name}: {result:?}"));
        result.map_err(errno)
    }

    fn pidfd_open(&self, pid: Pid) -> io::Result<Fd> {
        let ino = {
            let mut world = self.0.borrow_mut();
            world.enter("pidfd_open", &[libc::EMFILE, libc::ENFILE, libc::ENOMEM])?;
            if !world.features.pidfd {
                return Err(errno(libc::ENOSYS));
            }
            world.by_pid(pid.get()).filter(|p| !p.nature.stranger).ok_or_else(|| errno(libc::ESRCH))?.ino
        };
        self.fd(Object::Pidfd(ino))
    }

    fn pidfd_of_thread(&self, tid: Pid) -> io::Result<Fd> {
        if self.0.borrow().features.pidfs { self.pidfd_open(tid) } else { Err(errno(libc::EINVAL)) }
    }

    fn cgroup_of(&self, pidfd: &Fd) -> io::Result<u64> {
        let mut world = self.0.borrow_mut();
        world.enter("ioctl", &[libc::ESRCH])?;
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::ENOTTY)) };
        if !world.features.info {
            return Err(errno(libc::ENOTTY));
        }
        let process = world.process(ino).ok_or_else(|| errno(libc::ESRCH))?;
        Ok(process.groups[V2] as u64 + 1)
    }

    fn pidfd_send_signal(&self, pidfd: &Fd, signal: i32) -> io::Result<()> {
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::EBADF)) };
        let mut world = self.0.borrow_mut();
        world.enter("pidfd_send_signal", &[])?;
        world.signal(ino, signal, "pidfd_send_signal")
    }

    fn has_exited(&self, pidfd: &Fd) -> io::Result<bool> {
        let mut world = self.0.borrow_mut();
        world.enter("poll", &[libc::EINTR, libc::ENOMEM])?;
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::EBADF)) };
        Ok(world.process(ino).is_none_or(|process| process.life == Life::Dead))
    }

    fn kill(&self, pid: Pid, signal: i32) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.enter("kill", &[])?;
        let process = world.by_pid(pid.get()).filter(|p| !p.nature.stranger);
        let ino = process.map(|p| p.ino).ok_or_else(|| errno(libc::ESRCH))?;
        let (now, step, thawed_in) = (world.now, world.step, world.thawed_in);
        let loose = |p: &mut Process| {
            let frozen = p.is_frozen(0, now) || p.is_frozen(1, now);
            p.life == Life::Alive && !frozen && thawed_in < step
        };
        if world.process(ino).is_some_and(loose) {
            world.outrage(format!("kill: {ino}, pid {pid}, is not frozen"));
        }
        world.signal(ino, signal, "kill")
    }
}

impl World {
    fn signal(&mut self, ino: u64, signal: i32, how: &str) -> io::Result<()> {
        let foreign = self.process(ino).ok_or_else(|| errno(libc::ESRCH))?.nature.foreign;
        self.check_victim(ino, signal, how);
        let result =
            if foreign { Err(self.refuse(how, libc::EPERM)) } else { self.fail(how, &[libc::EPERM]) };
        match &result {
            Ok(()) => self.deliver(ino, signal),
            Err(_) => self.process(ino).expect("just seen").refused = true,
        }
        result
    }

    /// Now and then makes nonsense of what is read, but never another sense.
    fn garble(&mut self, name: &str, text: &mut Vec<u8>) {
        if self.faults == 0 || self.rng.u8(..) >= self.faults {
            return;
        }
        let nonsense: [&[u8]; 5] = [b"", b"-1\n", b"4294967297\n", b"\xff\0\n", b"self\n"];
        let nonsense = nonsense[self.rng.usize(..nonsense.len())];
        match name {
            // A line too many, or in the place of another.
            "cgroup.procs" => {
                let line = text.iter().position(|&b| b == b'\n').map_or(0, |end| end + 1);
                let replaced = if self.rng.bool() && !nonsense.is_empty() { line } else { 0 };
                drop(text.splice(..replaced, nonsense.iter().copied()));
            }
            "cgroup.events" | "freezer.state" => *text = nonsense.to_vec(),
            _ => return,
        }
        self.failed_in = self.step;
        self.failed_at = self.now;
        self.note(|| format!("garbage in {name}"));
    }
}
