//! A model of the kernel's cgroups: three hierarchies (v1 freezer, v1 cpu, v2), processes, pidfds, and the parts
//! of /proc that the library reads. Time is virtual and every choice comes from one seed.
//!
//! A history says how hostile it is: any call may fail, other parties may act between any two calls, pids are given
//! out again at once, notifications come late, twice or never. What the library must not do is noted as a violation
//! when it happens.
//!
//! The types are here. `groups` and `processes` are the state and what changes it, `time` is what happens by itself,
//! `files` and `proc` what is read, `calls` the system calls with their failures, and `rules` what the library must not do.

mod calls;
mod files;
mod groups;
mod proc;
mod processes;
mod rules;
mod time;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

pub(super) use self::calls::{Fd, Sim};
pub(super) use self::proc::{Proc, Roots, Vantage};

pub(super) const FREEZER: usize = 0;
pub(super) const CPU: usize = 1;
pub(super) const V2: usize = 2;
pub(super) const ROOTS: [GroupId; 3] = [FREEZER, CPU, V2];
/// Where the hierarchies are mounted, on a tmpfs that is no cgroup.
pub(super) const MOUNTS: [&str; 3] =
    ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"];

/// The first of the inode numbers of processes.
pub(super) const FIRST_INO: u64 = 5000;

/// The library's own process.
pub(super) const SELF: i32 = 1000;

/// The thread of it that calls, where that is not the main one.
const THREAD: i32 = 1001;
/// The ids of the two other threads of processes without a leader thread begin here.
const OTHER_THREADS: [i32; 2] = [1_000_000, 2_000_000];

/// The kernel's own bound on notifications of one file: DIV_ROUND_UP(HZ, 100) jiffies.
const THROTTLE: Duration = Duration::from_millis(12);

/// Processes that a world may have: forks beyond fail.
const PROCESSES: usize = 40;

/// Events after which no process forks any more: one history in sixty has so many, and would take most of the time.
const EVENTS: u64 = 20_000;

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
    /// Exiting tasks are not listed, Linux 6.19. On 6.19.14 to 7.0.7 rmdir(2) blocks on them, later it
    /// does not wait: the model lets it through, and holds it against the library.
    pub(super) exiting_unlisted: bool,
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
            exiting_unlisted: since(5),
        }
    }

    pub(super) const LEVELS: usize = 6;

    /// The first kernel that has them.
    fn release(self) -> (u32, u32) {
        match self {
            Features { exiting_unlisted: true, .. } => (6, 19),
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
    /// `freezer.state` was written FROZEN, or `cgroup.freeze` 1, and which party did.
    pub(super) frozen: Option<FrozenBy>,
    /// Since when.
    pub(super) frozen_at: Duration,
    /// Until when it was frozen last.
    pub(super) frozen_until: Duration,
    /// Attempts of the library to thaw it that have failed since then.
    pub(super) thaws_failed: u32,
    /// The library has frozen it, and has not thawed it since, whatever others have done.
    pub(super) to_be_thawed: bool,
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
pub(super) enum FrozenBy {
    Library,
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// SIGKILL was taken, and the exit is under way.
    Exiting,
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
    pub(super) unmapped: bool,
    /// Signals to it are refused with EPERM.
    pub(super) foreign: bool,
    /// It ends on SIGTERM.
    pub(super) ends_on_sigterm: bool,
    /// Its parent is outside of the caller's pid namespace, and the kernel tells nothing of it (PIDFD_GET_INFO until 6.15).
    pub(super) injected: bool,
    /// A kernel thread, on which signals have no effect.
    pub(super) kernel_thread: bool,
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
    /// The step in which it was sent SIGTERM last.
    pub(super) termed: Option<u64>,
    /// The reaps that signalled it, by `cgroup.kill` too.
    pub(super) signalled: Reaps,
    /// It was moved after its leader thread had exited, so that v2 lists its other thread only.
    pub(super) unlisted: bool,
    /// The library may not signal it, and has tried.
    pub(super) refused: bool,
    /// The reaps that read its pid in some `cgroup.procs`.
    pub(super) listed: Reaps,
    /// And those that got nonsense in its place, or could not read it in time.
    pub(super) omitted: Reaps,
    /// Its anonymous memory, in kB. What is released is gone.
    pub(super) memory: u64,
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

    /// Whether it was in a target at some time in a step.
    pub(super) fn was_in(&self, target: usize, step: u64) -> bool {
        self.member.contains(&(target, step))
    }

    /// Its threads that live, where its leader thread has exited.
    pub(super) fn other_threads(&self) -> impl Iterator<Item = i32> {
        let pid = self.pid;
        OTHER_THREADS.into_iter().filter(|_| self.nature.leaderless).map(move |first| pid + first)
    }

    pub(super) fn was_ever_in(&self, target: usize) -> bool {
        self.member.iter().any(|&(of, _)| of == target)
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
    token: (usize, usize),
    object: Object,
}

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
    /// Until then its reap sends no signal, freezes nothing and thaws nothing.
    pub(super) alone_until: Duration,
    /// When a member was last seen to live.
    pub(super) populated_at: Duration,
    /// A process of an outer pid namespace was in it.
    pub(super) has_unmapped: bool,
    /// A process of which v2 lists threads only was in it.
    pub(super) has_unlisted: bool,
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
    pub(super) vantage: Vantage,
    /// How long zombies wait for their parents, if always the same.
    pub(super) wait_after: Option<Duration>,
    /// The library may open directories by their inode numbers.
    pub(super) handles: bool,
    /// The step in which the kernel is short of files, so that inode numbers open nothing.
    pub(super) no_files_in: u64,
    pub(super) descriptors: usize,
    /// Some processes are [`Nature::injected`].
    pub(super) injects: bool,
    pub(super) descriptor_limit: usize,
    /// Members may not be signalled, because there are no pidfds, or because the caller was among them.
    pub(super) refused: bool,
    /// When calls were refused for want of rights or of a facility, which, and in which step last.
    pub(super) refusals: Vec<(Duration, String)>,
    pub(super) refused_in: u64,
    /// Lists of threads cannot be read.
    pub(super) hides_threads: bool,
    /// How many lists of processes were read to their end.
    pub(super) lists_read: u32,
    /// The last step in which some call failed that should not.
    pub(super) failed_in: u64,
    /// And when that was.
    pub(super) failed_at: Duration,
    /// Some list had nonsense in it.
    pub(super) garbled: bool,
    /// The pids of those that were waited for, and the reaps that have signalled them.
    pub(super) waited_for: Vec<(i32, Reaps)>,
    /// Processes whose memory was released, in order.
    pub(super) released: Vec<u64>,
    /// How often that was asked for.
    pub(super) asked_to_release: u64,
    /// A process whose memory is in use: EAGAIN.
    pub(super) busy_memory: Option<u64>,
    /// There is a process that v1 does not list.
    pub(super) has_unmapped: bool,
    /// The last step in which something was thawed.
    thawed_in: u64,
    /// Some calls have the shortest budget of time.
    pub(crate) limited: bool,
    /// The calls are those of a helper thread.
    pub(crate) on_helper_thread: bool,
    /// The first step in which a write to `cgroup.kill` was left to a helper thread that has not made it yet.
    pub(crate) kill_left_in: u64,
    /// Whose target's files were opened or read last: the reap that acts now.
    acting: Option<usize>,
    /// The step of the library that is under way.
    pub(super) step: u64,
    pub(super) calls: u64,
    pub(super) violations: Vec<String>,
    agenda: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    watches: BTreeMap<u64, WatchOf>,
    next_fd: u64,
    pub(super) next_ino: u64,
    next_pid: i32,
    /// Reactors and their tokens to be woken.
    notified: Vec<(usize, usize)>,
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
            vantage: Vantage::default(),
            wait_after: None,
            handles: true,
            no_files_in: u64::MAX,
            descriptors: 0,
            injects: false,
            descriptor_limit: usize::MAX,
            refused: !features.pidfd,
            refusals: Vec::new(),
            refused_in: 0,
            hides_threads: false,
            lists_read: 0,
            failed_in: 0,
            failed_at: Duration::ZERO,
            garbled: false,
            waited_for: Vec::new(),
            released: Vec::new(),
            asked_to_release: 0,
            busy_memory: None,
            has_unmapped: false,
            thawed_in: 0,
            limited: false,
            on_helper_thread: false,
            kill_left_in: 0,
            acting: None,
            step: 1,
            calls: 0,
            violations: Vec::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            watches: BTreeMap::new(),
            next_fd: 0,
            next_ino: FIRST_INO,
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

    fn violation(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violations.push(what);
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

    /// Works out what follows from a change: which processes freeze, exit, and are members of what, and what is notified.
    pub(super) fn changed(&mut self) {
        // Parents come before their children.
        let mut frozen = Vec::with_capacity(self.groups.len());
        for Group { frozen: own, parent, .. } in &self.groups {
            frozen.push(own.is_some() || parent.is_some_and(|parent| frozen[parent]));
        }
        for at in 0..self.processes.len() {
            let process = &self.processes[at];
            if process.life == Life::Dead {
                continue;
            }
            let (now, step) = (self.now, self.step);
            let freezing = [FREEZER, V2].map(|hierarchy| frozen[process.groups[hierarchy]]);
            let targets = process.groups.map(|group| self.groups[group].target);
            let Process { nature: Nature { unmapped, .. }, unlisted, .. } = *process;
            for target in targets.into_iter().flatten() {
                let target = &mut self.targets[target];
                target.populated_at = now;
                target.has_unmapped |= unmapped;
                target.has_unlisted |= unlisted;
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
            process.killed |= process.termed.is_some() && process.nature.ends_on_sigterm && process.runs(now);
            let (ino, nature) = (process.ino, process.nature);
            if process.life == Life::Alive && process.killed && !nature.stuck && !process.is_frozen(0, now) {
                process.life = Life::Exiting;
                if !nature.hangs {
                    self.plan(nature.exit, Event::Exited(ino));
                }
            } else if settle && !nature.stuck {
                self.plan(nature.freeze, Event::Settle);
            }
        }
        // What of each v2 group has members, and members that run.
        let (mut populated, mut runs) = (vec![false; frozen.len()], vec![false; frozen.len()]);
        for process in self.processes.iter().filter(|process| process.life != Life::Dead) {
            let is_running = !process.is_frozen(1, self.now);
            let mut above = Some(process.groups[V2]);
            while let Some(group) = above {
                populated[group] = true;
                runs[group] |= is_running;
                above = self.groups[group].parent;
            }
        }
        for group in V2 + 1..self.groups.len() {
            if self.groups[group].hierarchy == V2 && !self.groups[group].removed {
                let events = (populated[group], frozen[group] && !runs[group]);
                if std::mem::replace(&mut self.groups[group].events, events) != events {
                    self.notify(group);
                }
            }
        }
    }
}
