//! Where the caller of a history is, and what it sees of that.

use super::kernel::{Features, GroupId, Proc, ROOTS, Roots, SELF, V2, Vantage, World};

/// Takes from the kernel what tells the caller where it is.
pub(super) fn limit(features: &mut Features, rng: &mut fastrand::Rng) {
    // As a seccomp filter does.
    features.info &= rng.u8(..3) > 0;
}

/// What is mounted of the hierarchies: all, or in a container the slices.
pub(super) fn mount(world: &mut World, rng: &mut fastrand::Rng, slices: [GroupId; 3]) {
    if rng.u8(..4) == 0 {
        world.vantage.mounted = Roots(slices);
    }
}

/// Puts the caller somewhere, and into namespaces that were made where it was.
pub(super) fn enter(world: &mut World, rng: &mut fastrand::Rng) {
    let [own, before] = [(); 2].map(|()| {
        ROOTS.map(|hierarchy| {
            let own = world.child(hierarchy, "own").expect("it is never removed");
            let groups: Vec<GroupId> = (ROOTS.len()..world.groups.len())
                .filter(|&group| world.groups[group].hierarchy == hierarchy)
                .collect();
            if rng.u8(..3) > 0 { own } else { rng.choice(groups).unwrap_or(own) }
        })
    });
    let roots = match rng.u8(..4) {
        0 => ROOTS,
        1 => before,
        _ => own,
    };
    // The path of the caller's own group below one of these leads to another group, or to none.
    let of_v2 = world.groups.iter().enumerate().filter(|(_, group)| group.hierarchy == V2);
    let of_v2: Vec<GroupId> = of_v2.map(|(group, _)| group).collect();
    let hidden = (0..rng.usize(..3)).filter_map(|_| match rng.bool() {
        true => Some(own[V2]),
        false => rng.choice(of_v2.iter().copied()),
    });
    let hidden = hidden.collect();
    world.vantage = Vantage {
        roots: Roots(roots),
        mounted: world.vantage.mounted,
        hidden,
        unlisted: rng.u8(..6) == 0,
        proc: [Proc::Own, Proc::Own, Proc::None, Proc::Above, Proc::Other][rng.usize(..5)],
        restricted: None,
        unreachable: None,
    };
    let caller = world.processes.iter().find(|process| process.pid == SELF).expect("it lives").ino;
    world.migrate(caller, own);
    world.note(|| format!("the caller is in {own:?}: {:?}", world.vantage));
}
