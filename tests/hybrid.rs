//! A v2 target on a machine whose v1 freezer holds its members: SIGKILL, and `cgroup.kill`, wait for the thaw.
mod common;

use std::path::Path;
use std::time::Duration;

use cgroup_reaper::{CgroupOptions, Outcome, ReapError, Reaper};
use common::*;

#[test]
fn a_v1_group_without_other_members_is_thawed() {
    require!(v1("freezer"), v2());
    let sandbox = Sandbox::new(test_name!());
    let target = sandbox.v2("target");
    let freezer = sandbox.v1("freezer", "held/child");
    let canary = sandbox.canary(&[&sandbox.v2("canary"), &sandbox.v1("freezer", "canary")]);
    let sleepers = sandbox.sleepers(3, &[&target, &freezer]);
    freeze_v1(freezer.parent().unwrap());
    let reaped = reap(Reaper::at(&target)).unwrap();
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert_eq!(sleepers.living(), 0);
    assert!(!target.exists());
    assert_eq!(freezer_state(&freezer), "THAWED");
    canary.assert_alive();
}

#[test]
fn a_v1_group_that_also_holds_others_is_reported_and_left_alone() {
    require!(v1("freezer"), v2());
    let sandbox = Sandbox::new(test_name!());
    let target = sandbox.v2("target");
    let freezer = sandbox.v1("freezer", "held");
    let member = sandbox.sleeper(&[&target, &freezer]);
    let other = sandbox.sleeper(&[&sandbox.v2("other"), &freezer]);
    freeze_v1(&freezer);
    let reaper = Reaper::at(&target).freeze_timeout(Duration::from_millis(300));
    match reap(reaper) {
        Err(ReapError::FrozenByAncestor { path, frozen_by, .. }) => {
            assert_eq!((path.as_path(), frozen_by.as_deref()), (target.as_path(), Some(freezer.as_path())));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(freezer_state(&freezer), "FROZEN");
    assert!(member.alive());
    // As documented: it is killed at the thaw.
    thaw_v1(&freezer);
    assert!(member.ended(TIMEOUT));
    assert!(other.alive());
    assert_eq!(reap(Reaper::at(&target)).unwrap().outcome, Outcome::Removed);
}

#[test]
fn a_deadline_names_the_group_that_holds_the_survivor() {
    require!(v1("freezer"), v2());
    let sandbox = Sandbox::new(test_name!());
    let target = sandbox.v2("target");
    let freezer = sandbox.v1("freezer", "held");
    let member = sandbox.sleeper(&[&target, &freezer]);
    let _other = sandbox.sleeper(&[&sandbox.v2("other"), &freezer]);
    freeze_v1(&freezer);
    match reap(Reaper::at(&target).deadline(Duration::from_millis(200))) {
        Err(ReapError::TimedOut { survivors, .. }) => {
            assert_eq!(survivors.len(), 1);
            assert_eq!(survivors[0].pid, member.pid);
            assert_eq!(survivors[0].frozen_by.as_deref(), Some(freezer.as_path()));
        }
        other => panic!("{other:?}"),
    }
}

/// One job in v1 and v2, named through the options: the v2 hierarchy is a subsystem like any other.
#[test]
fn one_name_in_v1_and_v2_is_one_target() {
    require!(v1("freezer"), v1("cpu"), v2());
    let sandbox = Sandbox::new(test_name!());
    let dirs = [sandbox.v1("freezer", "job"), sandbox.v1("cpu", "job"), sandbox.v2("job")];
    let sleepers = sandbox.sleepers(4, &[&dirs[0], &dirs[1], &dirs[2]]);
    let only_v1 = sandbox.sleeper(&[&dirs[1]]);
    freeze_v1(&dirs[0]);
    let root = dirs[2].ancestors().nth(3).unwrap();
    let name =
        |dir: &Path| dir.strip_prefix(root).unwrap().components().next().unwrap().as_os_str().to_owned();
    let slice = dirs[2].parent().unwrap().file_name().unwrap();
    let options = CgroupOptions::new(root).slice(slice).subsystems(dirs.iter().map(|dir| name(dir)));
    let reaped = reap(Reaper::new(options, "job")).unwrap();
    assert_eq!(reaped.outcome, Outcome::Removed);
    assert_eq!(sleepers.living(), 0);
    assert!(!only_v1.alive());
    assert!(dirs.iter().all(|dir| !dir.exists()));
}
