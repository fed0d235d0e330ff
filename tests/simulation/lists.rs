//! Lists of members that are not complete.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::addresses::{by_handle, open};
use super::kernel::{FREEZER, Features, GroupId, MOUNTS, Nature, ROOTS, Sim, V2, World};
use crate::cgroup::hierarchy::{HasFreezer, Hierarchy};
use crate::cgroup::members::{MemberList, Pages};
use crate::cgroup::tree::{Directories, Tree};
use crate::sys::{Pid, Sys};
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

/// The group `t` in the freezer's hierarchy.
fn tree(sim: &Sim) -> Tree<Sim> {
    let identity = by_handle(sim, FREEZER, "t");
    Tree { identity, hierarchy: Hierarchy::V1(HasFreezer::Present), fate: None, frozen_by: None }
}

fn list(sim: &Sim, tree: &Tree<Sim>) -> MemberList {
    let mut list = MemberList::default();
    let listed = list.add_tree(sim, tree, &mut Directories::default(), Span::from_millis(1000));
    listed.expect("nothing fails");
    list.finish();
    list
}

/// A v1 directory is renamed at some moment: the list has its members, or says that it may miss some.
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
        let list = list(&sim, &tree);
        assert!(list.contains(member) || list.is_uncertain(), "call {call}");
        assert!(list.contains(member) || list.contains_caller(&sim).is_err(), "call {call}");
        missed += u32::from(!list.contains(member));
    }
    assert!(missed > 0);
    let (sim, member) = sim(FREEZER);
    let list = list(&sim, &tree(&sim));
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

/// A v1 directory lists threads in its file `tasks`.
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
        let part = || MemberList { unmapped: 1, garbled, vanished, lost, ..MemberList::default() };
        let mut list = MemberList::default();
        list.extend(part());
        list.extend(MemberList::default());
        assert_eq!((list.len(), list.garbled, list.vanished, list.lost), (1, garbled, vanished, lost));
        list.extend(part());
        assert_eq!((list.len(), list.garbled, list.vanished, list.lost), (2, garbled, vanished, lost));
    }
}
