//! What other parties do, between any two calls of the library and in between its steps.

use std::time::Duration;

use super::kernel::{CPU, FREEZER, FrozenBy, GroupId, Life, Nature, ROOTS, SELF, V2, World};

const MS: Duration = Duration::from_millis(1);

/// A short time, at random; the shorter, the likelier.
pub(super) fn some_time(rng: &mut fastrand::Rng, at_most: u64) -> Duration {
    MS * (rng.u64(..=at_most) >> rng.u32(..8)) as u32
}

/// A process of a random nature.
pub(super) fn some_nature(rng: &mut fastrand::Rng) -> Nature {
    let mut one_in = |n: u32| rng.u32(..n) == 0;
    let mut nature = Nature {
        stuck: one_in(16),
        hangs: one_in(16),
        leaderless: one_in(12),
        unmapped: one_in(24),
        foreign: one_in(24),
        ends_on_sigterm: one_in(2),
        ..Nature::default()
    };
    let (slow_exit, slow_freeze, forks) = (one_in(4), one_in(4), one_in(16));
    if slow_exit {
        nature.exit = some_time(rng, 400);
    }
    if slow_freeze {
        nature.freeze = some_time(rng, 100);
    }
    nature.forks = forks.then(|| MS * rng.u32(1..20));
    nature
}

/// An act: its name for the log, and what it does.
type Act = (&'static str, fn(&mut World));

const ACTS: [Act; 18] = [
    ("time passes", |world| {
        let until = world.now + Duration::from_micros(world.rng.u64(..3000));
        world.advance(until);
    }),
    ("a process joins", |world| {
        if let Some(groups) = some_groups(world) {
            let nature = some_nature(&mut world.rng);
            if world.processes.len() < 30 {
                let ino = world.add_process(groups, nature, None);
                world.note(|| format!("({ino} in {groups:?}: {nature:?})"));
            }
        }
    }),
    ("a member is moved", |world| {
        if let (Some(ino), Some(groups)) = (some_member(world), some_groups(world)) {
            world.migrate(ino, groups);
        }
    }),
    ("a member leaves", |world| {
        if let Some(ino) = some_member(world) {
            world.migrate(ino, ROOTS);
        }
    }),
    ("a member is killed", |world| {
        if let Some(ino) = some_member(world) {
            world.sigkill(ino);
        }
    }),
    ("a member's pid is another's", |world| {
        if let Some(ino) = some_member(world) {
            world.recycle(ino);
        }
    }),
    ("a member is stopped", |world| {
        if let Some(process) = some_member(world).and_then(|ino| world.process(ino)) {
            process.stopped = true;
        }
    }),
    ("frozen", |world| {
        if let Some(group) = some_group(world) {
            world.set_frozen(group, Some(FrozenBy::Others));
        }
    }),
    ("thawed", |world| {
        if let Some(group) = some_group(world) {
            world.set_frozen(group, None);
        }
    }),
    ("frozen from outside", |world| {
        let at = world.rng.usize(..world.processes.len());
        let mut group = world.processes[at].groups[FREEZER];
        if world.rng.bool() {
            group = world.groups[group].parent.unwrap_or(group);
        }
        if world.groups[group].parent.is_some() && world.groups[group].name != "own" {
            world.set_frozen(group, Some(FrozenBy::Others));
        }
    }),
    ("all is thawed", |world| {
        for group in 0..world.groups.len() {
            world.set_frozen(group, None);
        }
    }),
    ("removed", |world| {
        if let Some(group) = some_group(world) {
            let _ = world.remove(group);
        }
    }),
    ("removed and made again", |world| {
        let Some(target) = some_target(world) else { return };
        if world.targets[target].live && !world.targets[target].resolved {
            // Either could be the one that is pinned.
            return;
        }
        for top in world.targets[target].tops.clone() {
            remake(world, target, top);
        }
    }),
    ("renamed", |world| {
        let Some(target) = some_target(world).filter(|&target| world.targets[target].may_be_renamed) else {
            return;
        };
        let mut groups = world.targets[target].tops.clone();
        if world.rng.bool() {
            groups = groups.into_iter().flat_map(|top| world.children(top).collect::<Vec<_>>()).collect();
        }
        let Some(top) = world.rng.choice(groups) else { return };
        let (name, parent) = (format!("renamed{top}"), world.groups[top].parent.expect("not a root"));
        let is_v1 = world.groups[top].hierarchy != V2;
        if is_v1 && !world.groups[top].removed && world.child(parent, &name).is_none() {
            world.groups[top].name = name;
        }
    }),
    ("a child is made", |world| {
        if let Some(group) = some_group(world) {
            if world.groups.len() < 60 {
                world.mkdir(group, "child");
            }
        }
    }),
    ("rights change", |world| {
        if let Some(group) = some_group(world) {
            let flag = world.rng.bool();
            match world.rng.bool() {
                true => world.groups[group].denied = flag,
                false => world.groups[group].busy = flag,
            }
        }
    }),
    ("descriptors run short", |world| {
        world.descriptor_limit = match world.rng.bool() {
            true => world.descriptors + world.rng.usize(..4),
            false => usize::MAX,
        };
    }),
    ("the caller moves", |world| {
        let own = ROOTS.map(|root| world.child(root, "own").expect("it is never removed"));
        let caller = world.processes.iter().find(|process| process.pid == SELF).expect("it lives");
        if caller.moved == world.step {
            // A search in steps compares the caller's cgroups before and after each.
            return;
        }
        let ino = caller.ino;
        if world.rng.bool() {
            if let Some(groups) = some_groups(world) {
                world.refused = true;
                world.migrate(ino, groups);
                return;
            }
        }
        world.migrate(ino, own);
    }),
];

/// All of them.
pub(super) const EVERY_ACT: u32 = (1 << ACTS.len()) - 1;

/// Something happens, if anything may.
pub(super) fn act(world: &mut World) {
    let (name, act) = ACTS[world.rng.usize(..ACTS.len())];
    let at = ACTS.iter().position(|(other, _)| *other == name).expect("one of them");
    if world.acts & 1 << at != 0 {
        world.note(|| format!("({name})"));
        act(world);
    }
}

/// Makes an empty group again under its name, with a process in it that is no member of the target.
fn remake(world: &mut World, target: usize, top: GroupId) {
    let children: Vec<GroupId> = world.children(top).collect();
    for child in children {
        let _ = world.remove(child);
    }
    // Also one that the library has removed.
    let (hierarchy, parent) = (world.groups[top].hierarchy, world.groups[top].parent.expect("not a root"));
    let name = world.groups[top].name.clone();
    let _ = world.remove(top);
    if !world.groups[top].removed || world.child(parent, &name).is_some() {
        return;
    }
    let again = world.mkdir(parent, &name);
    world.targets[target].remade |= world.targets[target].resolved;
    world.note(|| format!("({top} is {again} now)"));
    if world.processes.len() < 30 && world.rng.bool() {
        let mut groups = ROOTS;
        groups[hierarchy] = again;
        world.add_process(groups, Nature::default(), None);
    }
}

fn some_target(world: &mut World) -> Option<usize> {
    let target = world.rng.usize(..world.targets.len());
    (!world.targets[target].tops.is_empty()).then_some(target)
}

/// A directory of some target.
fn some_group(world: &mut World) -> Option<GroupId> {
    let groups: Vec<GroupId> = (0..world.groups.len())
        .filter(|&g| !world.groups[g].removed && world.groups[g].target.is_some())
        .collect();
    world.rng.choice(groups)
}

/// Groups for a member of some target, here and there in it or beside it.
fn some_groups(world: &mut World) -> Option<[GroupId; 3]> {
    let target = some_target(world)?;
    let mut groups = ROOTS;
    for hierarchy in [FREEZER, CPU, V2] {
        let inside: Vec<GroupId> = (0..world.groups.len())
            .filter(|&group| {
                let group = &world.groups[group];
                group.hierarchy == hierarchy && group.target == Some(target) && !group.removed
            })
            .collect();
        if world.rng.u8(..8) > 0 {
            groups[hierarchy] = world.rng.choice(inside).unwrap_or(groups[hierarchy]);
        }
    }
    Some(groups)
}

/// A living member of some target.
fn some_member(world: &mut World) -> Option<u64> {
    let members: Vec<u64> = world
        .processes
        .iter()
        .filter(|p| p.life == Life::Alive && p.pid != SELF && world.targets_of(p).next().is_some())
        .map(|p| p.ino)
        .collect();
    world.rng.choice(members)
}
