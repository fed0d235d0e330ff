//! Reading the state of cgroups and processes, and freezing cgroups.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before it counts as broken. Long, because machines under emulation are slow.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for the condition. `false` if it did not become true in time.
#[must_use]
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_micros(200);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Waits up to [`TIMEOUT`] for the condition, else panics with `what` was waited for.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_until(TIMEOUT, condition), "not within {TIMEOUT:?}: {what}");
}

/// Succeeds if one of several tries does, which get their numbers: a busy machine can spoil one try, but not all.
#[track_caller]
pub fn some_try(what: &str, mut one: impl FnMut(usize) -> Result<(), String>) {
    let mut last = String::new();
    for number in 0..20 {
        match one(number) {
            Ok(()) => return,
            Err(why) => last = why,
        }
    }
    panic!("{what}: {last}");
}

/// The processes that `cgroup.procs` of this group itself lists, sorted, each once; none if the group is gone.
/// A `0` is an unmapped pid: a process of another PID namespace (v2 only; v1 does not list it).
#[track_caller]
pub fn pids_in(dir: &Path) -> Vec<i32> {
    try_pids_in(dir).unwrap_or_else(|error| panic!("{}/cgroup.procs: {error}", dir.display()))
}

/// As [`pids_in`]; a threaded v2 group gives `EOPNOTSUPP`.
pub(super) fn try_pids_in(dir: &Path) -> io::Result<Vec<i32>> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// The group was removed: before the file was opened, or after.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// `dir` and all groups below it, parents first; empty if `dir` is gone.
pub fn subtree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![dir.to_path_buf()];
    while let Some(dir) = next.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        next.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(dir);
    }
    found
}

/// v2: `populated` of `cgroup.events`; `false` if the group is gone.
pub fn populated(dir: &Path) -> bool {
    event(dir, "populated") == Some(true)
}

fn event(dir: &Path, name: &str) -> Option<bool> {
    let text = fs::read_to_string(dir.join("cgroup.events")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim() == "1")
}

/// Fields of /proc/PID/stat from the third (the state) on: the name before may hold blanks and brackets.
fn stat(path: &str) -> Option<Vec<String>> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_name, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(String::from).collect())
}

/// The state letter of a process (its leader): `R`, `S`, `D`, `T` (stopped), `t` (tracer's stop), `Z`, ... or
/// `None` if there is no such process.
pub fn state_of(pid: i32) -> Option<char> {
    stat(&format!("/proc/{pid}/stat"))?.first()?.chars().next()
}

/// When the process began, in clock ticks: with its pid this names a process for good.
pub(super) fn start_of(pid: i32) -> Option<u64> {
    stat(&format!("/proc/{pid}/stat"))?.get(19)?.parse().ok()
}

/// The state letter and [`start_of`] from one read.
pub(super) fn state_and_start(pid: i32) -> Option<(char, u64)> {
    let fields = stat(&format!("/proc/{pid}/stat"))?;
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// Whether some thread of the process still runs: `false` for a mere zombie, but `true` for a zombie leader
/// with a living thread.
pub fn alive(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| !is_dead(state) || some_thread_lives(pid))
}

pub(super) fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// For a process whose leader is a zombie.
pub(super) fn some_thread_lives(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| {
        threads.flatten().any(|thread| {
            let path = format!("/proc/{pid}/task/{}/stat", thread.file_name().to_string_lossy());
            let state = stat(&path).and_then(|fields| fields.first()?.chars().next());
            state.is_some_and(|state| !is_dead(state))
        })
    })
}

/// File descriptors this process has open. Other tests of the program share it: count in `isolated` tests,
/// or in a program with a single test.
pub fn open_fds() -> usize {
    // One of them is the directory being read.
    fs::read_dir("/proc/self/fd").expect("/proc/self/fd").count() - 1
}

#[track_caller]
pub(super) fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("write {text:?} to {}: {error}", path.display()));
}

/// v1: `freezer.state`: THAWED, FREEZING or FROZEN.
#[track_caller]
pub fn freezer_state(dir: &Path) -> String {
    let path = dir.join("freezer.state");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().into()
}

/// v1: freezes the group with its descendants and waits until it is frozen.
#[track_caller]
pub fn freeze_v1(dir: &Path) {
    // Written repeatedly: one write can miss a process that is just being forked.
    eventually("FROZEN", || {
        put(&dir.join("freezer.state"), "FROZEN");
        freezer_state(dir) == "FROZEN"
    });
}

/// v1: thaws this group; one frozen on its own below it stays so.
#[track_caller]
pub fn thaw_v1(dir: &Path) {
    put(&dir.join("freezer.state"), "THAWED");
}

/// v2: freezes the group with its descendants and waits until it is frozen.
#[track_caller]
pub fn freeze_v2(dir: &Path) {
    put(&dir.join("cgroup.freeze"), "1");
    eventually("frozen 1", || event(dir, "frozen") == Some(true));
}

/// v2: thaws this group; one frozen on its own below it stays so.
#[track_caller]
pub fn thaw_v2(dir: &Path) {
    put(&dir.join("cgroup.freeze"), "0");
}
