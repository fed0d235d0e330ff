//! The reaps of a history: what their targets are like, and how they are reaped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MS;
use super::kernel::{CPU, FREEZER, FrozenBy, GroupId, MOUNTS, Nature, ROOTS, Roots, Sim, Target, V2, World};
use super::others::{some_nature, some_time};
use crate::entries::Spawn;
use crate::handle::ReapHandle;
use crate::reaper::{CgroupOptions, KillMethod, Reaper, Signal};

/// One reap of a history.
pub(super) struct Reap {
    pub(super) reaper: Reaper,
    pub(super) spawn_at: Duration,
    /// Spawned by another thread, it waits that long in the queue.
    pub(super) queued_for: Option<Duration>,
    pub(super) cancel_at: Option<Duration>,
    pub(super) kill_at: Option<Duration>,
    /// Another party sends SIGKILL to the members then.
    pub(super) empty_at: Option<Duration>,
    pub(super) queued: Option<(Duration, Spawn<Sim>)>,
    pub(super) handle: Option<ReapHandle>,
    pub(super) spawned: Duration,
    /// Some directory was there at the spawn.
    pub(super) found: bool,
    pub(super) cancelled: bool,
    /// When it was told to send SIGKILL at once.
    pub(super) told_to_kill: Option<Duration>,
    pub(super) done: bool,
}

impl Reap {
    /// A target of a random shape with random processes, and how it is reaped.
    pub(super) fn new(of: usize, world: &mut World, rng: &mut fastrand::Rng, slices: [GroupId; 3]) -> Reap {
        let name = format!("t{of}");
        let mut hierarchies: Vec<usize> = [FREEZER, CPU, V2].into_iter().filter(|_| rng.bool()).collect();
        if hierarchies.is_empty() {
            hierarchies.push(rng.usize(..3));
        }
        let paths = hierarchies.iter().map(|&h| (slices[h], name.clone())).collect();
        world.targets.push(Target { paths, ..Target::default() });
        // What a hybrid machine has beside it, perhaps with other processes in it.
        let beside = ROOTS
            .map(|h| if rng.bool() { world.mkdir(slices[h], &format!("beside{of}")) } else { slices[h] });
        let mut inside: [Vec<GroupId>; 3] = Default::default();
        for &h in &hierarchies {
            if rng.u8(..16) == 0 {
                continue;
            }
            let top = world.mkdir(slices[h], &name);
            world.claim(of);
            inside[h].push(top);
            for child in 0..rng.usize(..4) * rng.usize(..2) {
                let parent = inside[h][rng.usize(..inside[h].len())];
                inside[h].push(world.mkdir(parent, &format!("c{child}")));
            }
        }
        for _ in 0..rng.usize(..6) {
            let groups = [FREEZER, CPU, V2].map(|h| match rng.u8(..8) {
                0 => beside[h],
                _ => rng.choice(inside[h].iter().copied()).unwrap_or(beside[h]),
            });
            let nature = some_nature(rng);
            let ino = world.add_process(groups, nature, None);
            world.note(|| format!("{ino} in {groups:?}: {nature:?}"));
            if let Some(process) = world.process(ino) {
                process.stopped = rng.u8(..8) == 0;
            }
        }
        if rng.u8(..6) == 0 {
            // Another process there.
            world.add_process(beside, Nature::default(), None);
        }
        for group in inside.into_iter().flatten().chain(beside) {
            if rng.u8(..12) == 0 && !slices.contains(&group) {
                world.set_frozen(group, Some(FrozenBy::Others));
            }
        }
        // Where the slices are mounted, they have no name.
        let slice = if world.vantage.mounted == Roots(slices) { "" } else { "slice" };
        let reaper = Reap::settings(&hierarchies, slice, &name, rng);
        let spawn_at = world.now + some_time(rng, 100);
        // One that only waits may have to wait for ever.
        let is_told =
            if reaper.when_empty { reaper.deadline.is_none() || rng.bool() } else { rng.u8(..8) == 0 };
        let kill_at = is_told.then(|| spawn_at + some_time(rng, 8000));
        let ends = rng.u8(..8) == 0 || reaper.when_empty && rng.bool();
        let empty_at = ends.then(|| spawn_at + some_time(rng, 4000));
        Reap {
            reaper,
            spawn_at,
            kill_at,
            empty_at,
            queued_for: (rng.u8(..4) == 0).then(|| some_time(rng, 20)),
            cancel_at: (rng.u8(..8) == 0).then(|| world.now + some_time(rng, 5000)),
            queued: None,
            handle: None,
            spawned: Duration::ZERO,
            found: false,
            cancelled: false,
            told_to_kill: None,
            done: false,
        }
    }

    fn settings(hierarchies: &[usize], slice: &str, name: &str, rng: &mut fastrand::Rng) -> Reaper {
        let mut reaper = match hierarchies {
            [only] if rng.bool() => Reaper::at(Path::new(MOUNTS[*only]).join(slice).join(name)),
            [only] if rng.bool() => Reaper::new(CgroupOptions::new(MOUNTS[*only]).slice(slice), name),
            several => {
                let mounts = several.iter().map(|&h| PathBuf::from(MOUNTS[h]));
                let names = mounts.map(|mount| mount.file_name().map(PathBuf::from).unwrap_or_default());
                let options = CgroupOptions::new("/sys/fs/cgroup").slice(slice).subsystems(names);
                Reaper::new(options, name)
            }
        };
        if rng.u8(..3) == 0 {
            let min = MS * rng.u32(1..20);
            let max = min + some_time(rng, 10_000);
            reaper = reaper.min_wait(min).max_wait(max).freeze_timeout(some_time(rng, 10_000));
        }
        if rng.u8(..12) == 0 {
            let hours = 3_600_000 * MS;
            reaper = reaper.max_wait(hours).min_wait([hours, MS][rng.usize(..2)]);
        }
        if rng.u8(..4) == 0 {
            reaper = reaper.grace(Signal::TERM, some_time(rng, 2000));
        }
        if rng.u8(..5) == 0 {
            reaper = reaper.linger(some_time(rng, 2000));
        }
        if rng.u8(..5) == 0 {
            reaper = reaper.when_empty();
        }
        if rng.u8(..4) == 0 {
            reaper = reaper.deadline(some_time(rng, 20_000));
        }
        if rng.u8(..6) == 0 {
            reaper = reaper.keep_dir();
        }
        let method = match rng.u8(..6) {
            0 => KillMethod::Pidfd,
            1 => KillMethod::Freezer,
            2 => KillMethod::CgroupKill,
            _ => KillMethod::Auto,
        };
        reaper.method(method)
    }

    /// How long it lingers, and its grace period after that.
    pub(super) fn waits(&self) -> (Duration, Duration) {
        let Reaper { linger, grace, .. } = self.reaper;
        (linger.unwrap_or_default(), grace.map_or(Duration::ZERO, |(_, period)| period))
    }

    /// The latest time at which it sends SIGKILL, if nothing fails; `None` if it sends none.
    pub(super) fn kills_at(&self) -> Option<Duration> {
        let began = self.spawned + self.queued_for.unwrap_or_default();
        let told = self.told_to_kill.map(|at| at.max(began));
        if self.reaper.when_empty {
            return told;
        }
        let (linger, grace) = self.waits();
        let by_itself = linger.saturating_add(grace).min(self.reaper.deadline.unwrap_or(Duration::MAX));
        let by_itself = began.saturating_add(by_itself);
        Some(told.map_or(by_itself, |told| told.min(by_itself)))
    }

    /// Whether it was handed over, refused included.
    pub(super) fn is_spawned(&self) -> bool {
        self.handle.is_some() || self.done
    }
}

/// Gives targets more members than there are descriptors.
pub(super) fn crowd(world: &mut World, rng: &mut fastrand::Rng) {
    for target in 0..world.targets.len() {
        let mut groups = ROOTS;
        for &top in &world.targets[target].tops {
            groups[world.groups[top].hierarchy] = top;
        }
        for _ in 0..rng.usize(..16) {
            if groups != ROOTS {
                world.add_process(groups, some_nature(rng), None);
            }
        }
    }
}
