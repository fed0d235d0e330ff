//! What /proc tells of processes.

use std::fs;
use std::path::Path;

/// A thread group that exits has this flag, see `PF_EXITING` in include/linux/sched.h.
const EXITING: u64 = 0x4;

/// A live process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Its name, as /proc/PID/stat has it; empty if /proc does not tell.
    pub command: String,
    /// The letter of its state.
    pub state: Option<char>,
    /// Its process group, 0 if that is of another pid namespace or /proc does not tell.
    pub group: i32,
}

impl Process {
    /// `None` if it has exited or exits.
    pub fn read(pid: i32) -> Option<Process> {
        Process::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// A process of which the pid is all that is known.
    pub fn unknown(pid: i32) -> Process {
        Process { pid, command: String::new(), state: None, group: 0 }
    }

    /// Parses /proc/PID/stat, see proc_pid_stat(5).
    fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
        let stat = String::from_utf8_lossy(stat);
        let (head, fields) = stat.rsplit_once(") ")?;
        let (_, command) = head.split_once('(')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        let group = fields.get(2)?.parse().ok()?;
        let flags: u64 = fields.get(6)?.parse().ok()?;
        let threads: u64 = fields.get(17)?.parse().ok()?;
        // The main thread may have exited while others live.
        let exits = threads <= 1 && (flags & EXITING != 0 || matches!(state, 'Z' | 'X'));
        (!exits).then(|| Process { pid, command: command.to_owned(), state: Some(state), group })
    }
}

/// Whether /proc is of the pid namespace of cgreap.
pub fn is_own_proc() -> bool {
    let own = fs::read_link("/proc/self");
    own.is_ok_and(|own| own == Path::new(&std::process::id().to_string()))
}

/// Whether a live process is in this process group. `None` if /proc does not tell.
pub fn has_live_process(group: i32) -> Option<bool> {
    if !is_own_proc() {
        return None;
    }
    for entry in fs::read_dir("/proc").ok()? {
        let Some(pid) = entry.ok()?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) if Process::parse(pid, &stat).is_some_and(|process| process.group == group) => {
                return Some(true);
            }
            // It has been waited for meanwhile, or is in another group.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return None,
            _ => {}
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(command: &str, state: char, flags: u64, threads: u64) -> Vec<u8> {
        format!("71 ({command}) {state} 1 2 3 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0")
            .into_bytes()
    }

    #[test]
    fn a_process_that_exits_is_not_live() {
        let sleep = Process { pid: 71, command: "a) (b".to_owned(), state: Some('S'), group: 2 };
        assert_eq!(Process::parse(71, &stat("a) (b", 'S', 0x40_0000, 1)), Some(sleep));
        assert_eq!(Process::parse(71, &stat("x", 'R', 0x40_0004, 1)), None);
        assert_eq!(Process::parse(71, &stat("x", 'Z', 0x40_0004, 1)), None);
        assert_eq!(Process::parse(71, &stat("x", 'Z', 0x40_0004, 2)).unwrap().state, Some('Z'));
        assert_eq!(Process::parse(71, b"71 (x"), None);
    }

    #[test]
    fn a_zombie_is_no_live_process_of_its_group() {
        use std::os::unix::process::CommandExt;
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("cat");
        let group = child.id() as i32;
        assert_eq!(has_live_process(group), Some(true));
        child.kill().expect("kill");
        // It has exited, and is a zombie until it is waited for.
        let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(group));
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(id, flags).expect("wait");
        let answer = has_live_process(group);
        child.wait().expect("wait");
        assert_eq!(answer, Some(false));
    }
}
