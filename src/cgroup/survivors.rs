//! The processes that outlive a deadline, as /proc describes them.

use super::external_freeze::frozen_by;
use super::mounts::Mount;
use super::proc::Proc;
use crate::outcome::Survivor;
use crate::sys::{Pid, Sys};

/// Describes a process, as far as it can be seen; `None` stands for a process outside of the caller's pid namespace.
/// `mounts` are the cgroup mounts, and `threads` is that of [`frozen_by`].
pub(crate) fn describe<S: Sys>(
    proc: Option<&Proc<'_, S>>,
    pid: Option<Pid>,
    mounts: &[Mount],
    threads: &mut usize,
) -> Survivor {
    let Some(pid) = pid else { return Survivor::default() };
    let mut survivor = Survivor { pid: pid.get(), ..Survivor::default() };
    let Some(proc) = proc else { return survivor };
    let read = |file: &str| proc.read(pid, file).unwrap_or_default();
    survivor.command = String::from_utf8_lossy(read("comm").trim_ascii_end()).into_owned();
    // "0" means that the process runs, or that the caller may not know.
    let wait_channel = String::from_utf8_lossy(read("wchan").trim_ascii_end()).into_owned();
    survivor.wait_channel = if wait_channel == "0" { String::new() } else { wait_channel };
    if let Ok(stat) = proc.stat(pid) {
        survivor.state = Some(stat.state);
        survivor.kernel_thread = stat.is_kernel_thread();
    }
    survivor.frozen_by = frozen_by(proc, pid, mounts, threads).unwrap_or_default();
    survivor
}
