//! Who outlived a deadline, as /proc tells it.

use super::elsewhere::frozen_by;
use super::file::read_path;
use super::own::Mount;
use crate::outcome::Survivor;
use crate::sys::Sys;

/// `PF_KTHREAD` of `linux/sched.h`, in the flags of `/proc/PID/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Describes each process, as far as it can be seen.
pub(crate) fn describe<S: Sys>(sys: &S, pids: impl Iterator<Item = i32>) -> Vec<Survivor> {
    let mounts = Mount::all(sys).unwrap_or_default();
    pids.map(|pid| one(sys, pid, &mounts)).collect()
}

fn one<S: Sys>(sys: &S, pid: i32, mounts: &[Mount]) -> Survivor {
    let mut survivor = Survivor { pid, ..Survivor::default() };
    if pid <= 0 {
        return survivor;
    }
    let read = |file: &str| read_path(sys, format!("/proc/{pid}/{file}").as_ref()).unwrap_or_default();
    survivor.command = String::from_utf8_lossy(read("comm").trim_ascii_end()).into_owned();
    survivor.wait_channel = String::from_utf8_lossy(read("wchan").trim_ascii_end()).into_owned();
    let stat = read("stat");
    // proc_pid_stat(5): the name is in parentheses and may contain some; then state, and six fields on,
    // the flags.
    if let Some(end) = stat.iter().rposition(|&b| b == b')') {
        let mut fields = stat[end + 1..].split(|&b| b == b' ').filter(|field| !field.is_empty());
        survivor.state = fields.next().and_then(|state| state.first()).map(|&state| state as char);
        let flags = fields.nth(5).and_then(|flags| std::str::from_utf8(flags).ok()?.parse::<u64>().ok());
        survivor.kernel_thread = flags.is_some_and(|flags| flags & PF_KTHREAD != 0);
    }
    survivor.frozen_by = frozen_by(sys, pid, mounts);
    survivor
}
