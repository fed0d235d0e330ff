//! Reading and changing single cgroups, and waiting for what happens in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the demo's processes may take to start, stop or freeze, on slow machines too.
pub const START_TIME: Duration = Duration::from_secs(30);

pub fn make(group: &Path) -> Result<(), String> {
    fs::create_dir(group).map_err(|error| format!("{}: {error}", group.display()))
}

/// The cgroup and all below it.
pub fn subtree(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = below.flat_map(|entry| subtree(&entry.path()));
    [group.to_path_buf()].into_iter().chain(below).collect()
}

/// The number of processes in this cgroup, without those below it. 0 if it does not exist.
pub fn processes_in(group: &Path) -> usize {
    pids_in(group).len()
}

fn pids_in(group: &Path) -> Vec<String> {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    procs.lines().map(str::to_owned).collect()
}

/// Gives the v2 cgroups in this one a pids controller, if it has one to give. Whether they have one then can be
/// seen by their files.
pub fn enable_pids(group: &Path) {
    let offered = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    if offered.split_whitespace().any(|name| name == "pids") {
        let _ = fs::write(group.join("cgroup.subtree_control"), "+pids");
    }
}

/// Limits the number of processes in a cgroup, and tells whether it could.
pub fn limit_pids(group: &Path, limit: usize) -> bool {
    let file = group.join("pids.max");
    file.exists() && fs::write(file, limit.to_string()).is_ok()
}

/// Freezes a cgroup, v1 or v2, and returns when it is frozen.
pub fn freeze(dir: &Path) -> Result<(), String> {
    let v1 = dir.join("freezer.state");
    let (file, word) = if v1.exists() { (v1, "FROZEN") } else { (dir.join("cgroup.freeze"), "1") };
    await_that("a cgroup is frozen", || {
        // v1: after an incomplete freeze FROZEN is to be written again (cgroup-v1/freezer-subsystem.rst).
        let written = fs::write(&file, word).is_ok();
        let frozen = match word {
            "1" => {
                fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|events| events.contains("frozen 1"))
            }
            _ => fs::read_to_string(&file).is_ok_and(|state| state.trim() == word),
        };
        written && frozen
    })
}

/// Returns when the processes of a cgroup have stopped.
pub fn await_stop(group: &Path) -> Result<(), String> {
    await_that("a process stops", || pids_in(group).iter().all(|pid| state_of(pid) == Some('T')))
}

/// The state letter of a process.
fn state_of(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn await_that(what: &str, condition: impl FnMut() -> bool) -> Result<(), String> {
    if await_within(START_TIME, condition) {
        Ok(())
    } else {
        Err(format!("timed out after {START_TIME:?} waiting until {what}"))
    }
}

/// Waits until the condition holds, and tells whether it came to hold in time.
pub fn await_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
