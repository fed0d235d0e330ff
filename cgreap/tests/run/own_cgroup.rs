//! Where the cgroup of a run is made without `--parent`: in the own cgroup, or nowhere.

use std::fs;
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};

use crate::common::*;
use crate::place::{Kind, Place, Run, become_user_in, output, start};

/// `cgreap run` in an own cgroup of v2, and where there is v1, in own cgroups of the hierarchies that it may use instead.
#[track_caller]
fn run_in(place: &Place<'_>, own: Option<&Path>, script: &str) -> Run {
    let mut command = place.without_parent(&["-q"], &["sh", "-c", script]);
    for controller in ["freezer", "pids"].into_iter().filter(|controller| v1(controller).is_ok()) {
        become_user_in(&mut command, &place.sandbox.v1(controller, "own"), 0);
    }
    if let Some(own) = own {
        become_user_in(&mut command, own, 0);
    }
    output(start(&mut command))
}

#[test]
fn root_does_not_leave_an_own_cgroup_that_takes_no_other() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let (full, threaded) = (sandbox.v2("full"), sandbox.v2("domain/threaded"));
    fs::write(full.join("cgroup.max.descendants"), "0").expect("cgroup.max.descendants");
    fs::write(threaded.join("cgroup.type"), "threaded").expect("cgroup.type");
    let has_v1 = v1("freezer").is_ok() || v1("pids").is_ok();
    let domain = sandbox.v2("domain");
    for (own, error) in [(&full, "cannot make a cgroup"), (&domain, "in a threaded cgroup")] {
        let run = run_in(&place, Some(own), "cat /proc/self/cgroup; sleep 300 & exit 3");
        if has_v1 {
            // In v1 it is below the own cgroup, and in v2 where it was.
            assert_eq!((run.status, &*run.err), (Some(3), ""), "{}", own.display());
            let v2 = run.out.lines().find(|line| line.starts_with("0::")).expect("v2");
            assert!(v2.ends_with(own.file_name().unwrap().to_str().unwrap()), "{run:?}");
        } else {
            assert_eq!((run.status, &*run.out), (Some(125), ""), "{run:?}");
            assert!(run.err.contains(error), "{run:?}");
        }
    }
}

#[test]
fn what_is_mounted_over_a_hierarchy_gets_no_directory() {
    require!(v2(), namespaces(), v1("freezer"));
    // The mount is in the mount namespace of this test alone.
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let place = Place::new(&sandbox, Kind::V1);
        let root = v2_root().expect("v2");
        let cgroups = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).expect("v2");
        mount(Path::new("none"), &root, "tmpfs", 0, "");
        let over = root.join(own);
        fs::create_dir_all(&over).expect("mkdir");
        let run = run_in(&place, None, "grep :freezer: /proc/self/cgroup; sleep 300 & exit 3");
        let made: Vec<_> = fs::read_dir(&over).expect("tmpfs").collect();
        unmount(&root);
        assert_eq!((run.status, &*run.err, made.len()), (Some(3), "", 0), "{run:?}");
        assert!(run.out.contains("/own/cgreap-"), "{run:?}");
        place.assert_nothing_left("a tmpfs");
    });
}

/// Need: cgroups of v2 with extended attributes of users, since Linux 5.7.
fn attributes(sandbox: &Sandbox) -> Result<(), String> {
    setxattr(sandbox.v2("own"), "user.test", b"1", XattrFlags::empty())
        .map_err(|error| format!("no extended attributes in v2: {error}"))
}

#[test]
fn a_setting_does_not_leave_a_run_around_it() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    require!(attributes(&sandbox));
    let own = sandbox.v2("own");
    let inner = format!("{} run --set nothing.max=5 -- echo started", place.program().display());
    let run = run_in(&place, Some(&own), &inner);
    assert_eq!((run.status, &*run.out), (Some(125), ""), "{run:?}");
    assert!(run.err.contains("inside of another `cgreap run`"), "{run:?}");
    // Not in one.
    let mut command = place.without_parent(&["--set", "nothing.max=5"], &["true"]);
    become_user_in(&mut command, &own, 0);
    let run = output(start(&mut command));
    assert_eq!(run.status, Some(125), "{run:?}");
    assert!(run.err.contains("the controller nothing is missing"), "{run:?}");
}
