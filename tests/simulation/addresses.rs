//! How a directory is reached after the spawn, and which descriptors that takes.

use std::cell::RefCell;
use std::ffi::CString;
use std::num::NonZeroU64;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::kernel::{CPU, FREEZER, Features, GroupId, MOUNTS, ROOTS, Sim, V2, World};
use crate::cgroup::Budget;
use crate::cgroup::errors::{Cause, Failed, Fate};
use crate::cgroup::identity::{Address, Id, Identity, Parents, ids_upwards};
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

pub(super) fn open(sim: &Sim, path: &str) -> <Sim as Sys>::Fd {
    sim.open(None, &CString::new(path).expect("no NUL"), Open::Place).expect("it is there")
}

#[allow(clippy::arc_with_non_send_sync, reason = "the kernel's descriptors are both")]
fn mount(sim: &Sim, hierarchy: usize) -> Arc<<Sim as Sys>::Fd> {
    Arc::new(open(sim, MOUNTS[hierarchy]))
}

pub(super) fn by_handle(sim: &Sim, hierarchy: usize, path: &str) -> Identity<Sim> {
    identity(sim, hierarchy, path, Address::Handle(mount(sim, hierarchy)))
}

/// One parent of each hierarchy is held, the one that was used last.
#[test]
fn one_parent_of_each_hierarchy_stays_open() {
    let sim = sim();
    let mount = mount(&sim, FREEZER);
    let by_mount = |path| identity(&sim, FREEZER, path, Address::Handle(Arc::clone(&mount)));
    let [a, b, c] = ["slice/a", "slice/b", "other/c"].map(by_mount);
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

/// What a directory that is known by its path came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    There,
    Removed,
    Replaced,
    /// It may be there, and the path does not lead to it.
    Lost,
    /// The kernel did not answer.
    Error,
}

/// `slice/a` and its parent.
fn groups(world: &World) -> (GroupId, GroupId) {
    let slice = world.child(ROOTS[FREEZER], "slice").expect("it is there");
    (world.child(slice, "a").expect("it is there"), slice)
}

fn remove(world: &mut World) {
    let (a, _) = groups(world);
    world.remove(a).expect("it is empty");
}

fn rename(world: &mut World) {
    let (a, _) = groups(world);
    world.groups[a].name = "renamed".into();
}

fn make_again(world: &mut World) {
    let slice = world.child(ROOTS[FREEZER], "slice").expect("it is there");
    world.mkdir(slice, "a");
}

type Act = fn(&mut World);

/// What others do to it, and what is seen then.
const BY_PATH: [(&str, Act, Seen); 10] = [
    ("nothing", |_| (), Seen::There),
    ("removed", remove, Seen::Removed),
    (
        "removed with its parent",
        |world| {
            let (_, slice) = groups(world);
            ["a", "b"].map(|name| world.child(slice, name)).into_iter().flatten().for_each(|group| {
                world.remove(group).expect("it is empty");
            });
            world.remove(slice).expect("it is empty");
        },
        Seen::Lost,
    ),
    (
        "its parent renamed",
        |world| {
            let (_, slice) = groups(world);
            world.groups[slice].name = "renamed".into();
        },
        Seen::Lost,
    ),
    (
        "removed, and its parent made again",
        |world| {
            let (a, slice) = groups(world);
            let b = world.child(slice, "b").expect("it is there");
            for group in [a, b, slice] {
                world.remove(group).expect("it is empty");
            }
            world.mkdir(ROOTS[FREEZER], "slice");
        },
        Seen::Lost,
    ),
    (
        "removed and made again",
        |world| {
            remove(world);
            make_again(world);
        },
        Seen::Replaced,
    ),
    ("renamed", rename, Seen::Lost),
    (
        "renamed, and another made in its place",
        |world| {
            rename(world);
            make_again(world);
        },
        Seen::Lost,
    ),
    // The path leads into another filesystem, which has that name, or has not.
    (
        "mounted over",
        |world| {
            let slice = world.mkdir(ROOTS[CPU], "other");
            world.mkdir(slice, "a");
            let cpu = world.child(ROOTS[CPU], "slice").expect("it is there");
            world.mkdir(cpu, "a");
            world.vantage.mounted.0[FREEZER] = ROOTS[CPU];
        },
        Seen::Lost,
    ),
    (
        "mounted over by what has no such name",
        |world| world.vantage.mounted.0[FREEZER] = ROOTS[CPU],
        Seen::Lost,
    ),
];

fn seen(sim: &Sim, identity: &Identity<Sim>) -> Seen {
    match identity.fate(sim, &mut Parents::new()) {
        Ok(None) => Seen::There,
        Ok(Some(Fate::Removed)) => Seen::Removed,
        Ok(Some(Fate::Replaced)) => Seen::Replaced,
        Err(Cause::NameLost) => Seen::Lost,
        Err(_) => Seen::Error,
    }
}

/// A directory that is known by its path only counts as removed when its parent, or what is left above, shows that.
#[test]
fn a_path_that_leads_nowhere_is_not_enough() {
    for (what, act, expected) in BY_PATH {
        let sim = sim();
        let identity = identity(&sim, FREEZER, "slice/a", Address::Path);
        act(&mut sim.0.borrow_mut());
        assert_eq!(seen(&sim, &identity), expected, "{what}");
    }
}

/// v2 directories cannot be renamed: without its parent, it is removed.
#[test]
fn a_path_whose_parent_is_gone_is_enough_on_v2() {
    let sim = sim();
    let mut world = sim.0.borrow_mut();
    let slice = world.child(ROOTS[V2], "slice").unwrap_or_else(|| world.mkdir(ROOTS[V2], "slice"));
    let group = world.mkdir(slice, "e");
    drop(world);
    let identity = identity(&sim, V2, "slice/e", Address::Path);
    assert_eq!(seen(&sim, &identity), Seen::There);
    let mut world = sim.0.borrow_mut();
    let mut inside: Vec<GroupId> =
        (0..world.groups.len()).filter(|&at| world.groups[at].parent == Some(slice)).collect();
    inside.retain(|&at| !world.groups[at].removed && at != group);
    for at in inside.into_iter().chain([group, slice]) {
        world.remove(at).expect("it is empty");
    }
    drop(world);
    assert_eq!(seen(&sim, &identity), Seen::Removed);
}

/// ESTALE alone does not say that it is gone: the kernel also returns it where it could not open a file.
#[test]
fn a_handle_that_opens_nothing_is_not_enough() {
    let sim = sim();
    let [there, gone, renamed] = ["slice/b", "slice/a", "other/c"].map(|path| by_handle(&sim, FREEZER, path));
    let mut world = sim.0.borrow_mut();
    remove(&mut world);
    let other = world.child(ROOTS[FREEZER], "other").expect("it is there");
    let c = world.child(other, "c").expect("it is there");
    world.groups[c].name = "renamed".into();
    world.no_files_in = world.step;
    drop(world);
    assert_eq!([&gone, &renamed].map(|identity| seen(&sim, identity)), [Seen::Error; 2]);
    assert_eq!(seen(&sim, &there), Seen::There);
    assert_eq!(
        there.open(&sim).map(|fd| Id::of(&sim.stat(Some(&fd), c"").expect("open"))).ok(),
        Some(there.id)
    );
    assert!(gone.open(&sim).is_err());
    sim.0.borrow_mut().no_files_in = u64::MAX;
    assert_eq!([&gone, &renamed].map(|identity| seen(&sim, identity)), [Seen::Removed, Seen::There]);
}

/// A directory that is held is looked for beside itself, in its parent.
#[test]
fn a_directory_that_is_held_can_be_replaced() {
    for (what, act, expected) in BY_PATH {
        if let Seen::There | Seen::Replaced = expected {
            let sim = sim();
            let directory = open(&sim, &format!("{}/slice/a", MOUNTS[FREEZER]));
            let permit = Budget::new(100).take_needed();
            let held = identity(&sim, FREEZER, "slice/a", Address::Held { directory, _permit: permit });
            act(&mut sim.0.borrow_mut());
            assert_eq!(seen(&sim, &held), expected, "{what}");
        }
    }
}

/// The mount by which it is known shows a directory that was removed with it, or the capability is lost under way.
#[test]
#[allow(clippy::arc_with_non_send_sync, reason = "the kernel's descriptors are both")]
fn a_mount_whose_root_is_not_opened_hides_no_removal() {
    let sim = sim();
    let slice = Arc::new(open(&sim, &format!("{}/slice", MOUNTS[FREEZER])));
    let gone = identity(&sim, FREEZER, "slice/a", Address::Handle(slice));
    let mut world = sim.0.borrow_mut();
    let (a, slice) = groups(&world);
    let b = world.child(slice, "b").expect("it is there");
    for group in [a, b, slice] {
        world.remove(group).expect("it is empty");
    }
    drop(world);
    assert_eq!(seen(&sim, &gone), Seen::Removed);

    let sim = self::sim();
    let gone = by_handle(&sim, FREEZER, "slice/a");
    let mut world = sim.0.borrow_mut();
    remove(&mut world);
    (world.calls, world.churn) = (0, u8::MAX);
    world.others = |world| world.handles = world.calls == 0;
    drop(world);
    assert_eq!(seen(&sim, &gone), Seen::Removed);
}

/// Where the kernel is short of files for a moment and of memory after that, the directory does not count as gone.
#[test]
fn a_shortage_at_the_path_is_an_error() {
    let sim = sim();
    let there = by_handle(&sim, FREEZER, "slice/b");
    let mut world = sim.0.borrow_mut();
    (world.no_files_in, world.calls, world.churn) = (world.step, 0, u8::MAX);
    world.others = |world| {
        if world.calls > 0 {
            world.no_files_in = u64::MAX;
        }
    };
    world.vantage.unreachable = Some(libc::ENOMEM);
    drop(world);
    let fate = there.fate(&sim, &mut Parents::new());
    assert!(
        matches!(&fate, Err(Cause::Error(error)) if error.raw_os_error() == Some(libc::ENOMEM)),
        "{fate:?}"
    );
    sim.0.borrow_mut().vantage.unreachable = None;
    assert_eq!(seen(&sim, &there), Seen::There);
}

/// A directory that is known by its handle, and has gone with its parent: its path need not be reachable, except where the
/// kernel is short of memory, and what is mounted there does not replace it.
#[test]
fn a_path_that_is_not_reachable_hides_no_removal() {
    let acts: [(Act, Seen); 4] = [
        (|world| world.vantage.unreachable = Some(libc::EACCES), Seen::Removed),
        (|world| world.vantage.unreachable = Some(libc::ELOOP), Seen::Removed),
        (|world| world.vantage.unreachable = Some(libc::ENOMEM), Seen::Error),
        (
            |world| {
                let other = world.mkdir(ROOTS[CPU], "other");
                world.mkdir(other, "c");
                world.vantage.mounted.0[FREEZER] = ROOTS[CPU];
            },
            Seen::Removed,
        ),
    ];
    for (number, (act, expected)) in acts.into_iter().enumerate() {
        let sim = sim();
        let gone = by_handle(&sim, FREEZER, "other/c");
        let mut world = sim.0.borrow_mut();
        let other = world.child(ROOTS[FREEZER], "other").expect("it is there");
        let c = world.child(other, "c").expect("it is there");
        for group in [c, other] {
            world.remove(group).expect("it is empty");
        }
        act(&mut world);
        drop(world);
        assert_eq!(seen(&sim, &gone), expected, "{number}");
    }
}

/// No answer is one that something is gone, whichever call fails.
#[test]
fn a_failed_call_tells_nothing_of_a_path() {
    for (what, act, expected) in BY_PATH {
        for call in 0.. {
            let sim = sim();
            let identity = identity(&sim, FREEZER, "slice/a", Address::Path);
            let mut world = sim.0.borrow_mut();
            act(&mut world);
            (world.calls, world.acts, world.churn) = (0, call, u8::MAX);
            world.others = |world| {
                world.faults = if world.calls == u64::from(world.acts) { u8::MAX } else { 0 };
            };
            drop(world);
            let seen = seen(&sim, &identity);
            if sim.0.borrow().calls <= u64::from(call) {
                assert_eq!((seen, call > 0), (expected, true), "{what}");
                break;
            }
            assert_eq!(seen, Seen::Error, "{what}: call {call}");
            // What is opened is of that directory, or it is an error.
            assert!(expected == Seen::There || identity.open(&sim).is_err(), "{what}");
        }
    }
}

/// A sibling that is removed while the parent is searched for a new name is passed over.
#[test]
fn a_sibling_that_vanishes_does_not_end_the_search() {
    for (call, is_by_path) in (0..8).flat_map(|call| [(call, true), (call, false)]) {
        let sim = sim();
        let by_path = identity(&sim, FREEZER, "slice/b", Address::Path);
        let by_handle = by_handle(&sim, FREEZER, "slice/b");
        let mut world = sim.0.borrow_mut();
        let slice = world.child(ROOTS[FREEZER], "slice").expect("it stays");
        let b = world.child(slice, "b").expect("it is there");
        world.groups[b].name = "renamed".into();
        (world.calls, world.acts, world.churn) = (0, call, u8::MAX);
        // It is found after this one.
        world.others = |world| {
            let slice = world.child(ROOTS[FREEZER], "slice").expect("it stays");
            if let (true, Some(a)) = (world.calls >= u64::from(world.acts), world.child(slice, "a")) {
                world.remove(a).expect("it is empty");
            }
        };
        drop(world);
        if is_by_path {
            assert_eq!(seen(&sim, &by_path), Seen::Lost, "call {call}");
        } else {
            assert!(by_handle.find(&sim, &mut Parents::new()).is_ok(), "call {call}");
        }
    }
}

/// Nor is a name that cannot be looked up one that leads elsewhere.
#[test]
fn a_failed_look_at_the_name_is_an_error() {
    for call in 0..3 {
        let sim = sim();
        let identity = by_handle(&sim, FREEZER, "slice/a");
        let mut world = sim.0.borrow_mut();
        (world.calls, world.acts, world.churn) = (0, call, u8::MAX);
        world.others = |world| {
            world.faults = if world.calls == u64::from(world.acts) { u8::MAX } else { 0 };
        };
        drop(world);
        let mut parents = Parents::new();
        let found = identity.find(&sim, &mut parents);
        let calls = sim.0.borrow().calls;
        match found {
            Ok(_) => assert!(calls <= u64::from(call), "call {call} failed"),
            Err(Failed::Because(Cause::Error(_))) => {}
            Err(other) => panic!("call {call}: {other:?}"),
        }
    }
}

fn is_left(sim: &Sim) -> bool {
    let world = sim.0.borrow();
    let slice = world.child(ROOTS[FREEZER], "slice").expect("it stays");
    world.child(slice, "a").is_some()
}

/// Removed is what the name leads to below the parent that is open. From a held directory, and by path, the name may lead elsewhere.
#[test]
fn a_directory_is_removed_by_its_name_below_its_parent() {
    let sim = sim();
    let (by_handle, by_path) =
        (by_handle(&sim, FREEZER, "slice/a"), identity(&sim, FREEZER, "slice/a", Address::Path));
    let mut parents = Parents::new();
    assert!(by_handle.rmdir(&sim, &mut parents).is_none(), "no parent is open");
    let other = self::by_handle(&sim, FREEZER, "other/c");
    assert!(other.find(&sim, &mut parents).is_ok());
    assert!(by_handle.rmdir(&sim, &mut parents).is_none(), "that of another is");
    assert!(by_path.rmdir(&sim, &mut parents).is_none() && is_left(&sim));
    assert!(by_handle.find(&sim, &mut parents).is_ok());
    assert!(matches!(by_handle.rmdir(&sim, &mut parents), Some(Ok(()))) && !is_left(&sim));
    let sim = self::sim();
    let directory = open(&sim, &format!("{}/slice/a", MOUNTS[FREEZER]));
    let permit = Budget::new(100).take_needed();
    let held = identity(&sim, FREEZER, "slice/a", Address::Held { directory, _permit: permit });
    assert!(held.rmdir(&sim, &mut Parents::new()).is_none() && is_left(&sim));
}

/// The ids of a directory and of those above it, up to the root of the hierarchy.
#[test]
fn the_way_up_ends_at_the_root() {
    let sim = sim();
    let directory = open(&sim, &format!("{}/slice/a", MOUNTS[FREEZER]));
    let expected = ["/slice/a", "/slice", ""].map(|path| id(&sim, &format!("{}{path}", MOUNTS[FREEZER])));
    for (levels, found) in [(usize::MAX, 3), (2, 3), (1, 2), (0, 1)] {
        assert_eq!(ids_upwards(&sim, &directory, levels).expect("no error"), expected[..found]);
    }
}

/// What is mounted on it covers it.
#[test]
fn a_directory_can_be_covered() {
    let sim = sim();
    let identity = by_handle(&sim, FREEZER, "slice/a");
    assert!(!identity.is_covered(&sim));
    let mut world = sim.0.borrow_mut();
    let slice = world.child(ROOTS[CPU], "slice").expect("it is there");
    world.mkdir(slice, "a");
    world.vantage.mounted.0[FREEZER] = ROOTS[CPU];
    drop(world);
    assert!(identity.is_covered(&sim));
}
