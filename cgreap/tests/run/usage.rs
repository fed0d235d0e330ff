//! What a report tells about memory, processes and CPU time, where there are controllers.

use std::fs;

use serde_json::Value;

use crate::common::*;
use crate::place::{Kind, Place, become_user_in, output, start};

/// Whether `test` runs: v2 has these controllers, and the root gives them to the cgroups below it. A controller is in one
/// hierarchy. Where v1 has it, the test for v1 runs instead, in CI too.
fn runs_in_v2(test: &str, controllers: &[&str]) -> bool {
    match v2_controllers(controllers) {
        Ok(()) => return true,
        Err(reason) if controllers.iter().any(|name| v1(name).is_ok()) => say_skipped(test, &reason),
        Err(reason) => skip(test, &reason),
    }
    false
}

/// Need: v2 has these controllers, and the root gives them to the cgroups below it.
fn v2_controllers(names: &[&str]) -> Result<(), String> {
    v2()?;
    let given = v2_root().and_then(|root| fs::read_to_string(root.join("cgroup.subtree_control")).ok());
    let given = given.unwrap_or_default();
    match names.iter().find(|&name| !given.split_whitespace().any(|other| other == *name)) {
        Some(missing) => Err(format!("the root of cgroup v2 does not give {missing} to its cgroups")),
        None => Ok(()),
    }
}

/// Need: a process that has too much memory is killed, instead of being swapped out.
fn no_swap() -> Result<(), String> {
    let swaps = fs::read_to_string("/proc/swaps").map_or(1, |swaps| swaps.lines().count());
    if swaps <= 1 { Ok(()) } else { Err("this machine swaps".to_owned()) }
}

/// Gives the controllers to the cgroups of the runs.
fn give(sandbox: &Sandbox, place: &Place<'_>, names: &[&str]) {
    for dir in [&sandbox.v2_dir(), &place.parent] {
        for name in names {
            fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"))
                .expect("cgroup.subtree_control");
        }
    }
}

/// Runs it with these settings. Returns its exit status, and the report.
#[track_caller]
fn report(place: &Place<'_>, settings: &[&str], script: &str) -> (Option<i32>, Value) {
    let file = place.sandbox.scratch().join("report");
    let mut options = vec!["--report", file.to_str().expect("UTF-8")];
    options.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let mut command = place.command(&options, &["sh", "-c", script]);
    if v1("memory").is_ok() {
        // A cgroup for a setting of v1 is made below the own one, which may be of others.
        become_user_in(&mut command, &place.sandbox.v1("memory", "own"), 0);
    }
    let run = output(start(&mut command));
    assert_eq!(run.err, "", "{script}");
    let text = fs::read_to_string(&file).expect("report");
    (run.status, serde_json::from_str(&text).expect("JSON"))
}

/// Fills 100 MiB.
const MUCH_MEMORY: &str = "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null";
/// Much less.
const LIMIT: u64 = 20 << 20;

/// The kernel kills what needs more memory than the setting, and the report tells.
#[track_caller]
fn out_of_memory(place: &Place<'_>, setting: &str) {
    let setting = format!("{setting}={LIMIT}");
    for (script, status, outcome, kills) in [
        (format!("exec {MUCH_MEMORY}"), 137, "signalled", 1),
        // Another process than the main one.
        (format!("{MUCH_MEMORY}; exit 3"), 3, "exited", 1),
        ("exit 4".to_owned(), 4, "exited", 0),
    ] {
        let (exit_status, report) = report(place, &[&setting], &script);
        assert_eq!((exit_status, report["outcome"].as_str()), (Some(status), Some(outcome)), "{script}");
        assert_eq!(report["oom_kill"].as_u64(), Some(kills), "{report}");
        let peak = report["memory_peak"].as_u64();
        assert!(peak.is_none_or(|peak| (1..=LIMIT).contains(&peak)), "{report}");
    }
    place.assert_nothing_left("out of memory");
}

#[test]
fn out_of_memory_in_v2() {
    require!(v2(), no_swap());
    if !runs_in_v2(test_name!(), &["memory"]) {
        return;
    }
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    give(&sandbox, &place, &["memory"]);
    out_of_memory(&place, "memory.max");
}

#[test]
fn out_of_memory_in_v1() {
    require!(v2(), v1("memory"), no_swap());
    let sandbox = Sandbox::new(test_name!());
    out_of_memory(&Place::new(&sandbox, Kind::V2), "memory.limit_in_bytes");
}

#[test]
fn a_setting_of_v2_is_made_where_its_controller_is_given() {
    require!(v2());
    if !runs_in_v2(test_name!(), &["memory"]) {
        return;
    }
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    give(&sandbox, &place, &["memory"]);
    // Two levels below, neither of which gives it.
    let own = sandbox.v2("parent/above/own");
    let script = format!("grep ^0: /proc/self/cgroup; cat {}/set/memory.max", place.parent.display());
    let options = ["--name", "set", "--set", "memory.max=1G"];
    let mut command = place.without_parent(&options, &["sh", "-c", &script]);
    become_user_in(&mut command, &own, 0);
    let run = output(start(&mut command));
    assert_eq!((run.status, &*run.err), (Some(0), ""));
    assert!(run.out.ends_with("/parent/set\n1073741824\n"), "{run:?}");
    assert!(!place.parent.join("set").exists());
}

#[test]
fn peaks_are_those_of_all_processes() {
    require!(v2());
    if !runs_in_v2(test_name!(), &["memory", "pids", "cpu"]) {
        return;
    }
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    give(&sandbox, &place, &["memory", "pids", "cpu"]);
    let (status, report) = report(&place, &[], &format!("sleep 0.2 & sleep 0.2 & {MUCH_MEMORY}; wait"));
    assert_eq!(status, Some(0));
    // Older kernels do not have all of the files.
    let expect = |key: &str, file: &str, least: u64| {
        let has = place.parent.join(file).exists();
        assert_eq!(report[key].as_u64().is_some_and(|value| value >= least), has, "{key}: {report}");
    };
    expect("memory_peak", "memory.peak", 100 << 20);
    // The shell and three others.
    expect("pids_peak", "pids.peak", 4);
    assert_eq!(report["oom_kill"].as_u64(), Some(0), "{report}");
    assert!(report["cpu"]["usage_usec"].as_u64() > Some(0), "{report}");
    assert!(report["cpu"]["nr_throttled"].as_u64().is_some(), "{report}");
}

#[test]
fn peaks_in_v1() {
    require!(v2(), v1("memory"), v1("pids"));
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let settings = ["memory.limit_in_bytes=1G", "pids.max=100"];
    let (status, report) = report(&place, &settings, &format!("sleep 0.2 & {MUCH_MEMORY}; wait"));
    assert_eq!(status, Some(0));
    assert!(report["memory_peak"].as_u64() >= Some(100 << 20), "{report}");
    // Older kernels do not have the file.
    let has = sandbox.v1("pids", "probe").join("pids.peak").exists();
    assert_eq!(report["pids_peak"].as_u64().is_some_and(|peak| peak >= 3), has, "{report}");
}
