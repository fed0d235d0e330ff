//! How a directory is reached after the spawn, and which descriptors that takes.

use std::cell::RefCell;
use std::ffi::CString;
use std::num::NonZeroU64;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::kernel::{CPU, FREEZER, Features, MOUNTS, ROOTS, Sim, World};
use crate::cgroup::Budget;
use crate::cgroup::errors::Fate;
use crate::cgroup::identity::{Address, Id, Identity, Parents};
use crate::sys::{Open, Sys};

/// A kernel with the groups `slice/a`, `slice/b` and `other/c` in the freezer's hierarchy, and `slice/d` in that of cpu.
fn sim() -> Sim {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    for (hierarchy, parent, name) in
        [(FREEZER, "slice", "a"), (FREEZER, "slice", "b"), (FREEZER, "other", "c"), (CPU, "slice", "d")]
    {
        let root = ROOTS[hierarchy];
        let parent = world.child(root, parent).unwrap_or_else(|| world.mkdir(root, parent));
        world.mkdir(parent, name);
    }
    Sim(Rc::new(RefCell::new(world)))
}

fn id(sim: &Sim, path: &str) -> Id {
    Id::of(&sim.stat(None, &CString::new(path).expect("no NUL")).expect("it is there"))
}

fn identity(sim: &Sim, hierarchy: usize, path: &str, address: Address<Sim>) -> Identity<Sim> {
    let path = format!("{}/{path}", MOUNTS[hierarchy]);
    let parent = Path::new(&path).parent().and_then(Path::to_str).expect("it has one");
    let parent = NonZeroU64::new(id(sim, parent).ino);
    Identity::new(Path::new(&path), id(sim, &path), parent, address).expect("no NUL")
}

fn open(sim: &Sim, path: &str) -> <Sim as Sys>::Fd {
    sim.open(None, &CString::new(path).expect("no NUL"), Open::Place).expect("it is there")
}

#[allow(clippy::arc_with_non_send_sync, reason = "the kernel's descriptors are both")]
fn by_handle(sim: &Sim, hierarchy: usize, path: &str) -> Identity<Sim> {
    identity(sim, hierarchy, path, Address::Handle(Arc::new(open(sim, MOUNTS[hierarchy]))))
}

/// One parent of each hierarchy is held, the one that was used last.
#[test]
fn one_parent_of_each_hierarchy_stays_open() {
    let sim = sim();
    let [a, b, c] = ["slice/a", "slice/b", "other/c"].map(|path| by_handle(&sim, FREEZER, path));
    let d = by_handle(&sim, CPU, "slice/d");
    let mut parents = Parents::new();
    let before = sim.0.borrow().descriptors;
    let mut held = |identity: &Identity<Sim>| {
        assert!(identity.find(&sim, &mut parents).is_ok());
        sim.0.borrow().descriptors - before
    };
    assert_eq!([&a, &b, &c, &d, &c, &a].map(&mut held), [1, 1, 1, 2, 2, 2]);
    parents.let_go();
    assert_eq!(sim.0.borrow().descriptors, before);
}

/// The descriptor of a directory's own is used, until it is let go: then its path leads to it.
#[test]
fn a_descriptor_that_is_held_is_used_and_can_be_let_go() {
    let sim = sim();
    let before = sim.0.borrow().descriptors;
    let directory = open(&sim, &format!("{}/slice/a", MOUNTS[FREEZER]));
    let permit = Budget::new(100).take_needed();
    let mut identity = identity(&sim, FREEZER, "slice/a", Address::Held { directory, _permit: permit });
    assert!(identity.held().is_some());
    identity.let_go();
    assert!(identity.held().is_none());
    assert_eq!(sim.0.borrow().descriptors, before);
    assert!(identity.open(&sim).is_ok());
    // One that is addressed by handle has none to let go.
    let mut identity = by_handle(&sim, FREEZER, "slice/b");
    identity.let_go();
    assert!(identity.is_by_handle());
}

/// A caller that has dropped the capability goes by the path, and compares what that leads to.
#[test]
fn without_the_capability_the_path_leads_to_it() {
    let sim = sim();
    let identity = by_handle(&sim, FREEZER, "slice/a");
    sim.0.borrow_mut().handles = false;
    assert!(identity.open(&sim).is_ok());
    assert!(matches!(identity.fate(&sim, &mut Parents::new()), Ok(None)));
    let mut world = sim.0.borrow_mut();
    let slice = world.child(ROOTS[FREEZER], "slice").expect("it is there");
    let group = world.child(slice, "a").expect("it is there");
    world.remove(group).expect("it is empty");
    world.mkdir(slice, "a");
    drop(world);
    assert!(identity.open(&sim).is_err());
    assert!(matches!(identity.fate(&sim, &mut Parents::new()), Ok(Some(Fate::Replaced))));
}
