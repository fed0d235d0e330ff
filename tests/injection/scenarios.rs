//! Small targets, and how each is reaped.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{self, ForkStorm, Layout, Proc, SEVERAL, TraceExit, World, freeze_v1, refs};
use crate::facility::Facility;
use crate::reaper::{KillMethod, Location, Reaper, Signal};

const MS: Duration = Duration::from_millis(1);

pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) layout: Layout,
    needs: fn() -> Result<(), String>,
    /// What the kernel is without.
    pub(super) absent: &'static [Facility],
    reaper: fn(Reaper) -> Reaper,
    members: fn(&World, &mut Target),
    /// How long it takes without a fault, beside the grace period.
    pub(super) takes: Duration,
}

impl Scenario {
    pub(super) fn need(&self) -> Result<(), String> {
        self.layout.need().and_then(|()| (self.needs)())
    }

    /// Descriptors that it makes do with: three, and those that all reaps share. These are of each hierarchy's mount and of a
    /// parent in it, and on v2 of the caller's own cgroups, two for its process and two for its thread.
    pub(super) fn descriptors(&self) -> u32 {
        match self.layout {
            Layout::V2 => 3 + 2 + 4,
            Layout::Freezer | Layout::Cpu => 3 + 2,
            Layout::Several => 3 + 2 * SEVERAL.len() as u32,
        }
    }

    /// Makes a target of this name in it.
    pub(super) fn target(&self, world: &World, name: &str) -> Target {
        let mut target = Target {
            dirs: world.group(name),
            reaper: (self.reaper)(world.reaper(name)),
            members: Vec::new(),
            stuck: None,
            storm: None,
            beside: Vec::new(),
        };
        (self.members)(world, &mut target);
        target
    }
}

/// A target of one case.
pub(super) struct Target {
    pub(super) reaper: Reaper,
    pub(super) dirs: Vec<PathBuf>,
    pub(super) members: Vec<Proc>,
    /// A member that does not get to the end of its exit before it is released.
    pub(super) stuck: Option<TraceExit>,
    pub(super) storm: Option<ForkStorm>,
    /// Groups that members are in, which are not reaped.
    pub(super) beside: Vec<PathBuf>,
}

impl Target {
    /// Adds members in the target itself.
    fn sleepers(&mut self, world: &World, count: usize) {
        for _ in 0..count {
            self.members.push(world.sandbox.sleeper(&refs(&self.dirs)));
        }
    }

    /// Adds directories below the first one, with a member in each.
    fn below(&mut self, world: &World, names: &[&str]) {
        for name in names {
            let dir = self.dirs[0].join(name);
            fs::create_dir(&dir).expect("mkdir");
            self.members.push(world.sandbox.sleeper(&[&dir]));
        }
    }
}

fn nothing() -> Result<(), String> {
    Ok(())
}

/// A freeze that lasts longer than that shows.
fn by_freezer(reaper: Reaper) -> Reaper {
    reaper.method(KillMethod::Freezer).freeze_timeout(500 * MS)
}

fn slowly(reaper: Reaper) -> Reaper {
    reaper.min_wait(5000 * MS)
}

fn one_and_a_stuck_one(world: &World, target: &mut Target) {
    target.sleepers(world, 1);
    target.stuck = Some(world.sandbox.trace_exit(&refs(&target.dirs)));
}

fn one_that_ignores_sigterm(world: &World, target: &mut Target) {
    target.members.push(world.sandbox.ignores_sigterm(&refs(&target.dirs)));
}

fn with_grace(reaper: Reaper) -> Reaper {
    reaper.grace(Signal::TERM, 200 * MS)
}

fn with_linger(reaper: Reaper) -> Reaper {
    reaper.linger(100 * MS).grace(Signal::TERM, 100 * MS)
}

/// The same directory, by a descriptor.
fn by_descriptor(reaper: Reaper) -> Reaper {
    let Location::Dir(dir) = &reaper.place else { return reaper };
    let dir = File::open(dir).expect("a target");
    Reaper { place: Reaper::at_fd(dir.into()).place, ..reaper }
}

fn until_a_deadline(reaper: Reaper) -> Reaper {
    reaper.deadline(300 * MS)
}

const PLAIN: Scenario = Scenario {
    name: "",
    layout: Layout::V2,
    needs: nothing,
    absent: &[],
    reaper: |reaper| reaper,
    members: |world, target| target.sleepers(world, 1),
    takes: Duration::ZERO,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "v2", ..PLAIN },
    Scenario {
        name: "v2-tree",
        members: |world, target| {
            target.sleepers(world, 1);
            target.below(world, &["a", "a/b", "c"]);
        },
        ..PLAIN
    },
    Scenario {
        name: "v2-freezer",
        reaper: by_freezer,
        members: |world, target| target.sleepers(world, 2),
        ..PLAIN
    },
    Scenario {
        name: "v2-pidfd",
        reaper: |reaper| reaper.method(KillMethod::Pidfd),
        members: |world, target| target.sleepers(world, 3),
        ..PLAIN
    },
    Scenario {
        // One of its threads is in a group of threads, which lists no processes.
        name: "threaded",
        reaper: |reaper| reaper.method(KillMethod::Pidfd),
        members: |world, target| {
            let threaded = world.sandbox.threaded(&target.dirs[0]);
            target.members.push(threaded.process);
        },
        ..PLAIN
    },
    Scenario {
        name: "cgroup-kill",
        needs: common::cgroup_kill,
        reaper: |reaper| reaper.method(KillMethod::CgroupKill),
        ..PLAIN
    },
    Scenario {
        name: "cpu",
        layout: Layout::Cpu,
        members: |world, target| target.sleepers(world, 2),
        ..PLAIN
    },
    Scenario {
        name: "freezer",
        layout: Layout::Freezer,
        reaper: by_freezer,
        members: |world, target| {
            target.sleepers(world, 1);
            target.below(world, &["a"]);
        },
        ..PLAIN
    },
    Scenario {
        name: "many-cpu",
        layout: Layout::Cpu,
        members: |world, target| target.sleepers(world, 20),
        ..PLAIN
    },
    Scenario {
        name: "many-pidfd",
        reaper: |reaper| reaper.method(KillMethod::Pidfd),
        members: |world, target| target.sleepers(world, 20),
        ..PLAIN
    },
    Scenario { name: "three", layout: Layout::Several, ..PLAIN },
    Scenario { name: "grace", reaper: with_grace, members: one_that_ignores_sigterm, ..PLAIN },
    Scenario {
        name: "grace-cpu",
        layout: Layout::Cpu,
        reaper: with_grace,
        members: |world, target| {
            target.members.push(world.sandbox.ignores_sigterm(&refs(&target.dirs)));
            target.sleepers(world, 1);
        },
        ..PLAIN
    },
    Scenario {
        name: "frozen",
        layout: Layout::Freezer,
        members: |world, target| {
            target.sleepers(world, 1);
            freeze_v1(&target.dirs[0]);
        },
        ..PLAIN
    },
    Scenario {
        name: "frozen-beside",
        needs: || common::v1("freezer"),
        members: |world, target| {
            let name = target.dirs[0].file_name().expect("a name").to_string_lossy().into_owned();
            let beside = world.sandbox.v1("freezer", &name);
            target.members.push(world.sandbox.sleeper(&[&target.dirs[0], &beside]));
            freeze_v1(&beside);
            target.beside.push(beside);
        },
        // External freezes are looked for from the fourth attempt on.
        takes: Duration::from_millis(210),
        ..PLAIN
    },
    Scenario {
        name: "storm",
        layout: Layout::Freezer,
        needs: common::pids_limit,
        reaper: |reaper| reaper.freeze_timeout(500 * MS),
        members: |world, target| {
            target.storm = Some(world.sandbox.fork_storm(12, &refs(&target.dirs)));
        },
        takes: Duration::from_secs(1),
        ..PLAIN
    },
    Scenario { name: "linger", reaper: with_linger, members: one_that_ignores_sigterm, ..PLAIN },
    Scenario {
        name: "linger-cpu",
        layout: Layout::Cpu,
        reaper: with_linger,
        members: one_that_ignores_sigterm,
        ..PLAIN
    },
    Scenario {
        name: "linger-several",
        layout: Layout::Several,
        reaper: with_linger,
        members: one_that_ignores_sigterm,
        ..PLAIN
    },
    Scenario { name: "descriptor", reaper: by_descriptor, ..PLAIN },
    Scenario { name: "descriptor-cpu", layout: Layout::Cpu, reaper: by_descriptor, ..PLAIN },
    Scenario { name: "stuck", reaper: until_a_deadline, members: one_and_a_stuck_one, ..PLAIN },
    Scenario {
        name: "stuck-cpu",
        layout: Layout::Cpu,
        reaper: until_a_deadline,
        members: one_and_a_stuck_one,
        ..PLAIN
    },
    Scenario {
        name: "stuck-freezer",
        layout: Layout::Freezer,
        reaper: |reaper| until_a_deadline(by_freezer(reaper)),
        members: |world, target| {
            target.stuck = Some(world.sandbox.trace_exit(&refs(&target.dirs)));
        },
        ..PLAIN
    },
    Scenario {
        name: "keep",
        reaper: Reaper::keep_dir,
        members: |world, target| {
            target.sleepers(world, 1);
            target.below(world, &["a"]);
        },
        ..PLAIN
    },
    Scenario { name: "keep-cpu", layout: Layout::Cpu, reaper: Reaper::keep_dir, ..PLAIN },
    Scenario {
        name: "no-pidfds",
        layout: Layout::Freezer,
        absent: &[Facility::Pidfds],
        reaper: |reaper| reaper.freeze_timeout(500 * MS),
        ..PLAIN
    },
    Scenario { name: "slow", reaper: slowly, ..PLAIN },
    Scenario { name: "slow-pidfd", reaper: |reaper| slowly(reaper).method(KillMethod::Pidfd), ..PLAIN },
    Scenario {
        name: "slow-grace",
        layout: Layout::Cpu,
        reaper: |reaper| slowly(with_grace(reaper)),
        members: one_that_ignores_sigterm,
        ..PLAIN
    },
    Scenario { name: "slow-cpu", layout: Layout::Cpu, reaper: slowly, ..PLAIN },
    Scenario {
        name: "slow-freezer",
        layout: Layout::Freezer,
        reaper: |reaper| slowly(by_freezer(reaper)),
        ..PLAIN
    },
];
