//! Lists of members that are not complete.

use std::cell::RefCell;
use std::ffi::CString;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::kernel::{FREEZER, Features, GroupId, MOUNTS, Nature, ROOTS, Sim, V2, World};
use crate::cgroup::hierarchy::{HasFreezer, Hierarchy};
use crate::cgroup::identity::{Address, Id, Identity};
use crate::cgroup::members::{MemberList, Pages};
use crate::cgroup::tree::{Directories, Tree};
use crate::sys::{Open, Pid, Sys};
use crate::time::Span;

/// A kernel with the group `t` in a hierarchy, and a member in its only child `t/a`.
fn sim(hierarchy: GroupId) -> (Sim, Pid) {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    let t = world.mkdir(ROOTS[hierarchy], "t");
    let mut groups = world.processes[0].groups;
    groups[hierarchy] = world.mkdir(t, "a");
    let member = world.add_process(groups, Nature::default(), None);
    let pid = world.process(member).expect("it lives").pid;
    (Sim(Rc::new(RefCell::new(world))), Pid::new(pid).expect("a pid"))
}

fn open(sim: &Sim, path: &str) -> <Sim as Sys>::Fd {
    sim.open(None, &CString::new(path).expect("no NUL"), Open::Place).expect("it is there")
}

/// The group `t` in the freezer's hierarchy.
#[allow(clippy::arc_with_non_send_sync, reason = "the kernel's descriptors are both")]
fn tree(sim: &Sim) -> Tree<Sim> {
    let path = format!("{}/t", MOUNTS[FREEZER]);
    let id = Id::of(&sim.stat(Some(&open(sim, &path)), c"").expect("open"));
    let address = Address::Handle(Arc::new(open(sim, MOUNTS[FREEZER])));
    let identity = Identity::new(Path::new(&path), id, None, address).expect("no NUL");
    Tree { identity, hierarchy: Hierarchy::V1(HasFreezer::Present), fate: None, frozen_by: None }
}

/// A v1 directory is renamed or removed at some moment: the list has its members, or says that it may miss some.
#[test]
fn a_directory_that_is_renamed_makes_a_list_uncertain() {
    let mut missed = 0;
    for call in 0..12 {
        let (sim, member) = sim(FREEZER);
        let tree = tree(&sim);
        let mut world = sim.0.borrow_mut();
        (world.calls, world.acts, world.churn) = (0, call, u8::MAX);
        world.others = |world| {
            let t = world.child(ROOTS[FREEZER], "t").expect("it stays");
            if let (true, Some(a)) = (world.calls >= u64::from(world.acts), world.child(t, "a")) {
                world.groups[a].name = "renamed".into();
            }
        };
        drop(world);
        let mut list = MemberList::default();
        list.add_tree(&sim, &tree, &mut Directories::default(), Span::from_millis(1000))
            .expect("nothing fails");
        list.finish();
        assert!(list.contains(member) || list.is_uncertain(), "call {call}");
        assert!(list.contains(member) || list.contains_caller(&sim).is_err(), "call {call}");
        missed += u32::from(!list.contains(member));
    }
    assert!(missed > 0);
    let (sim, member) = sim(FREEZER);
    let mut list = MemberList::default();
    list.add_tree(&sim, &tree(&sim), &mut Directories::default(), Span::from_millis(1000))
        .expect("nothing fails");
    list.finish();
    assert!(list.contains(member) && !list.is_uncertain());
}

/// The caller is not outside because it is not in a list that may miss members.
#[test]
fn an_uncertain_list_does_not_show_that_the_caller_is_outside() {
    let (sim, _) = sim(FREEZER);
    let garbled = || MemberList { garbled: true, unmapped: 1, ..MemberList::default() };
    let vanished = || MemberList { vanished: true, ..MemberList::default() };
    for list in [garbled(), vanished()] {
        assert!(list.is_uncertain() && list.contains_caller(&sim).is_err());
        let list = MemberList { pids: vec![sim.caller().0], ..list };
        assert_eq!(list.contains_caller(&sim).ok(), Some(true));
    }
    let list = MemberList::default();
    assert!(!list.is_uncertain());
    assert_eq!(list.contains_caller(&sim).ok(), Some(false));
}

/// The threads of a v1 directory.
#[test]
fn threads_are_listed() {
    let (sim, member) = sim(FREEZER);
    let threads = MemberList::of_threads(&sim, &open(&sim, &format!("{}/t/a", MOUNTS[FREEZER])));
    assert!(threads.expect("nothing fails").contains(member));
}

/// Pages tell whether they had any line.
#[test]
fn pages_are_empty_until_one_was_read() {
    let (sim, member) = sim(V2);
    for (path, members) in [("t/a", vec![member]), ("t", vec![])] {
        let dir = open(&sim, &format!("{}/{path}", MOUNTS[V2]));
        let mut pages = Pages::open(&sim, &dir, Path::new("")).expect("it is there");
        assert!(pages.are_empty());
        assert_eq!(pages.next(&sim).expect("nothing fails").pids, members);
        assert_eq!(pages.are_empty(), members.is_empty());
    }
}

#[test]
fn a_list_is_as_uncertain_as_its_parts() {
    for (garbled, vanished, lost) in [(true, false, false), (false, true, false), (false, false, true)] {
        let part = || MemberList { pids: vec![], unmapped: 1, garbled, vanished, lost };
        let mut list = MemberList::default();
        list.extend(part());
        list.extend(MemberList::default());
        assert_eq!((list.len(), list.garbled, list.vanished, list.lost), (1, garbled, vanished, lost));
        list.extend(part());
        assert_eq!((list.len(), list.garbled, list.vanished, list.lost), (2, garbled, vanished, lost));
    }
}
