//! Who outlived a deadline, as /proc tells it.

use super::elsewhere::frozen_by;
use super::file::read_path;
use super::own::Mount;
use super::proc;
use crate::outcome::Survivor;
use crate::sys::Sys;

/// Describes each process, as far as it can be seen.
pub(crate) fn describe<S: Sys>(sys: &S, pids: impl Iterator<Item = i32>) -> Vec<Survivor> {
    let mounts = Mount::all(sys).unwrap_or_default();
    let freezer = Mount::freezer(&mounts);
    pids.map(|pid| one(sys, pid, freezer)).collect()
}

fn one<S: Sys>(sys: &S, pid: i32, freezer: Option<&Mount>) -> Survivor {
    let mut survivor = Survivor { pid, ..Survivor::default() };
    if pid <= 0 {
        return survivor;
    }
    let read = |file: &str| read_path(sys, format!("/proc/{pid}/{file}").as_ref()).unwrap_or_default();
    survivor.command = String::from_utf8_lossy(read("comm").trim_ascii_end()).into_owned();
    // "0" is a process that runs, or one of which the caller may not know.
    let wait_channel = String::from_utf8_lossy(read("wchan").trim_ascii_end()).into_owned();
    survivor.wait_channel = if wait_channel == "0" { String::new() } else { wait_channel };
    if let Some(stat) = proc::stat(sys, pid) {
        survivor.state = Some(stat.state);
        survivor.kernel_thread = stat.is_kernel_thread();
    }
    survivor.frozen_by = freezer.and_then(|mount| frozen_by(sys, pid, mount));
    survivor
}
