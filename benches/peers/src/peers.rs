//! Other crates that kill what is in a cgroup and remove it, each used as its documentation says.
//!
//! None of them waits for many groups at once, or reports the end of one. What their caller has to add is added here,
//! with as little code as possible.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::hierarchies::V1;
use cgroups_rs::fs::{Hierarchy, Subsystem};
use libcgroups::common::CgroupManager;
use processkit::{Mechanism, ProcessGroup};

use crate::program::calls::Calls;
use crate::program::contender::{Card, Contender, Contenders, Driven, Family, Kind};
use crate::program::groups::{Bases, Group, Place};

/// The pause between two checks, for crates that offer nothing to wait for.
const PAUSE: Duration = Duration::from_micros(100);

pub fn all(bases: &Bases) -> io::Result<Contenders> {
    let mut contenders: Contenders = Vec::new();
    if let Some(base) = bases.get(Place::V2) {
        contenders.push(Box::new(CgroupsRs::v2(base)));
        contenders.push(Box::new(Youki::v2(base)));
        contenders.push(Box::new(ProcessKit::new(base)));
    }
    if let Some(base) = bases.get(Place::Plain) {
        contenders.push(Box::new(CgroupsRs::v1(base)));
        contenders.push(Box::new(Youki::v1(base)));
    }
    Ok(contenders)
}

fn card(name: &'static str, place: Place, most: usize) -> Card {
    let family = if place == Place::V2 { Family::V2 } else { Family::Pidfd };
    Card { name, kind: Kind::Peer, family, place, most }
}

/// Where the hierarchy is mounted, and the group's path in it.
fn split<'a>(base: &Path, group: &'a Group) -> (PathBuf, &'a Path) {
    let root = base.parent().unwrap_or(base).to_path_buf();
    let path = group.dir.strip_prefix(&root).unwrap_or(&group.dir);
    (root, path)
}

/// cgroups-rs: `kill` on v2, signals by the caller on v1; `delete` once it is empty. It has no wait.
struct CgroupsRs {
    card: Card,
    base: PathBuf,
    cgroups: Vec<Cgroup>,
}

/// The unified hierarchy where it is. The crate's own is always at /sys/fs/cgroup.
#[derive(Debug)]
struct Unified(PathBuf);

impl Hierarchy for Unified {
    fn subsystems(&self) -> Vec<Subsystem> {
        Vec::new()
    }

    fn root(&self) -> PathBuf {
        self.0.clone()
    }

    fn root_control_group(&self) -> Cgroup {
        Cgroup::load(Box::new(Unified(self.0.clone())), "")
    }

    fn parent_control_group(&self, path: &str) -> Cgroup {
        let parent = Path::new(path).parent().unwrap_or(Path::new(""));
        Cgroup::load(Box::new(Unified(self.0.clone())), parent)
    }

    fn v2(&self) -> bool {
        true
    }
}

impl CgroupsRs {
    fn v2(base: &Path) -> CgroupsRs {
        let card = card("cgroups-rs v2, a try each 0.1 ms", Place::V2, usize::MAX);
        CgroupsRs { card, base: base.into(), cgroups: Vec::new() }
    }

    fn v1(base: &Path) -> CgroupsRs {
        let card = card("cgroups-rs v1 (cpu), a check each 0.1 ms", Place::Plain, 1000);
        CgroupsRs { card, base: base.into(), cgroups: Vec::new() }
    }
}

fn kill(cgroup: &Cgroup) -> io::Result<()> {
    if cgroup.v2() {
        return cgroup.kill().map_err(io::Error::other);
    }
    for process in cgroup.procs() {
        // SAFETY: integers by value; a pid that the kernel listed, of a process that we had forked.
        unsafe { libc::kill(process.pid as i32, libc::SIGKILL) };
    }
    Ok(())
}

impl Contender for CgroupsRs {
    fn card(&self) -> &Card {
        &self.card
    }

    fn prepare(&mut self, groups: &[Group]) {
        let load = |group| {
            let (root, path) = split(&self.base, group);
            match self.card.place {
                Place::V2 => Cgroup::load(Box::new(Unified(root)), path),
                _ => Cgroup::load_with_specified_controllers(Box::new(V1::new()), path, vec!["cpu".into()]),
            }
        };
        self.cgroups = groups.iter().map(load).collect();
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        self.drive(groups, &mut Calls::untimed())
    }

    fn driven(&mut self) -> Option<&mut dyn Driven> {
        Some(self)
    }
}

impl Driven for CgroupsRs {
    /// A turn tries each group that is left.
    fn drive(&mut self, groups: &[Group], calls: &mut Calls) -> io::Result<Vec<Duration>> {
        let mut begun = Vec::with_capacity(groups.len());
        for cgroup in &self.cgroups {
            begun.push(Instant::now());
            calls.spawn(|| kill(cgroup))?;
        }
        let mut took = vec![Duration::ZERO; groups.len()];
        let mut left: Vec<usize> = (0..groups.len()).collect();
        while !left.is_empty() {
            calls.turn(|| {
                left.retain(|&index| {
                    let cgroup = &self.cgroups[index];
                    // On v1 its delete sleeps 10 ms and more while there are members.
                    if !cgroup.v2() && !cgroup.procs().is_empty() || cgroup.delete().is_err() {
                        return true;
                    }
                    took[index] = begun[index].elapsed();
                    false
                });
            });
            if !left.is_empty() {
                sleep(PAUSE);
            }
        }
        Ok(took)
    }
}

/// libcgroups of youki: `remove` kills, sleeps 10 ms and more, and removes, one group at a time.
struct Youki {
    card: Card,
    base: PathBuf,
    removes: Vec<Box<dyn Fn() -> io::Result<()>>>,
}

impl Youki {
    fn v2(base: &Path) -> Youki {
        let card = card("libcgroups v2, one by one", Place::V2, 100);
        Youki { card, base: base.into(), removes: Vec::new() }
    }

    fn v1(base: &Path) -> Youki {
        let card = card("libcgroups v1 (cpu), one by one", Place::Plain, 100);
        Youki { card, base: base.into(), removes: Vec::new() }
    }
}

fn removal<M: CgroupManager + 'static>(manager: Result<M, M::Error>) -> Box<dyn Fn() -> io::Result<()>>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    match manager {
        Ok(manager) => Box::new(move || manager.remove().map_err(io::Error::other)),
        Err(error) => {
            let why = error.to_string();
            Box::new(move || Err(io::Error::other(why.clone())))
        }
    }
}

impl Contender for Youki {
    fn card(&self) -> &Card {
        &self.card
    }

    fn prepare(&mut self, groups: &[Group]) {
        let remove = |group| {
            let (root, path) = split(&self.base, group);
            let path = Path::new("/").join(path);
            match self.card.place {
                Place::V2 => removal(libcgroups::v2::manager::Manager::new(root, path)),
                _ => removal(libcgroups::v1::manager::Manager::new(&path)),
            }
        };
        self.removes = groups.iter().map(remove).collect();
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        let begun = Instant::now();
        let mut took = Vec::with_capacity(groups.len());
        for (remove, group) in self.removes.iter().zip(groups) {
            // It may give up after some tries (TimedOut), and leave it to the caller to go on.
            let patience = Instant::now() + Duration::from_secs(10);
            while let Err(error) = remove() {
                if Instant::now() > patience || !group.dir.exists() {
                    return Err(error);
                }
            }
            took.push(begun.elapsed());
        }
        Ok(took)
    }
}

/// processkit: groups of its own, which take in the members of ours beforehand; `kill_all`, then the drop, which
/// checks every 2 ms and removes.
struct ProcessKit {
    card: Card,
    procs: PathBuf,
    /// The cgroup that its groups are made in.
    home: PathBuf,
    groups: Vec<ProcessGroup>,
}

impl ProcessKit {
    fn new(base: &Path) -> ProcessKit {
        let card = card("processkit v2, a check each 2 ms", Place::V2, 1000);
        // The root's: where this program is.
        let procs = base.parent().unwrap_or(base).join("cgroup.procs");
        ProcessKit { card, procs, home: base.join("processkit"), groups: Vec::new() }
    }
}

impl Contender for ProcessKit {
    fn card(&self) -> &Card {
        &self.card
    }

    fn settle(&mut self, groups: &[Group], pids: &[i32]) -> io::Result<()> {
        // It makes its groups below the caller's own: for so long this is a place of ours.
        fs::create_dir_all(&self.home)?;
        fs::write(self.home.join("cgroup.procs"), "0")?;
        let made: io::Result<Vec<ProcessGroup>> =
            groups.iter().map(|_| ProcessGroup::new().map_err(io::Error::other)).collect();
        fs::write(&self.procs, "0")?;
        self.groups = made?;
        if self.left(groups).is_none() {
            return Err(io::Error::other("processkit has made its cgroups elsewhere"));
        }
        let each = pids.len() / groups.len().max(1);
        for ((theirs, ours), pids) in self.groups.iter().zip(groups).zip(pids.chunks(each.max(1))) {
            if theirs.mechanism() != Mechanism::CgroupV2 {
                return Err(io::Error::other("processkit has made no cgroup"));
            }
            for &pid in pids {
                theirs.adopt_external(pid as u32).map_err(io::Error::other)?;
            }
            fs::remove_dir(&ours.dir)?;
        }
        Ok(())
    }

    fn reap(&mut self, groups: &[Group]) -> io::Result<Vec<Duration>> {
        let begun = Instant::now();
        for group in &self.groups {
            group.kill_all().map_err(io::Error::other)?;
        }
        let mut took = Vec::with_capacity(groups.len());
        for group in self.groups.drain(..) {
            drop(group);
            took.push(begun.elapsed());
        }
        Ok(took)
    }

    fn left(&self, _groups: &[Group]) -> Option<PathBuf> {
        let Ok(inside) = fs::read_dir(&self.home) else { return Some(self.home.clone()) };
        inside.flatten().map(|entry| entry.path()).find(|path| path.is_dir())
    }
}
