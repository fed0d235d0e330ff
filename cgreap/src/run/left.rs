//! What the command left behind: the live processes in its cgroups after its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::group::Groups;

/// So many are named in the line; the report names all.
const NAMED: usize = 8;
/// A thread group that exits has this flag, see `PF_EXITING` in include/linux/sched.h.
const EXITING: u64 = 0x4;

/// A process that was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Its name, as /proc/PID/stat has it; empty if it is not to be seen.
    pub command: String,
    /// The letter of its state.
    pub state: Option<char>,
}

/// The processes that were left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub processes: Vec<Process>,
    /// The number of those that have no pid in the pid namespace of cgreap.
    pub unmapped: usize,
}

impl Left {
    /// The live processes in the cgroups, those that exit already excepted.
    pub fn of(groups: &Groups) -> Left {
        let mut pids = BTreeSet::new();
        let mut unmapped = 0;
        for (index, group) in groups.all().iter().enumerate() {
            let mut list = Vec::new();
            add_members(group.path(), &mut list);
            // They are in all of the cgroups; without pids they are counted in one.
            if index == 0 {
                unmapped = list.iter().filter(|&&pid| pid == 0).count();
            }
            pids.extend(list.into_iter().filter(|&pid| pid > 0));
        }
        let named = is_own_proc();
        let processes = pids.into_iter().filter_map(|pid| {
            let unknown = Process { pid, command: String::new(), state: None };
            if named { process(pid) } else { Some(unknown) }
        });
        Left { processes: processes.collect(), unmapped }
    }

    pub fn count(&self) -> usize {
        self.processes.len() + self.unmapped
    }

    /// The line about them: `killed 3 processes that make left behind: sleep (pid 71), ...`
    pub fn line(&self, command: &str) -> String {
        let noun = if self.count() == 1 { "process" } else { "processes" };
        let names = self.processes.iter().take(NAMED).map(|process| match process.command.as_str() {
            "" => format!("pid {}", process.pid),
            name => format!("{name} (pid {})", process.pid),
        });
        let mut names: Vec<_> = names.collect();
        match self.count() - names.len() {
            0 => {}
            others if names.is_empty() => names.push(format!("{others} of another pid namespace")),
            others => names.push(format!("and {others} more")),
        }
        format!("killed {} {noun} that {command} left behind: {}", self.count(), names.join(", "))
    }
}

/// The members of a cgroup and of those below it, 0 for those without a pid.
fn add_members(group: &Path, pids: &mut Vec<i32>) {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()));
    let Ok(entries) = fs::read_dir(group) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        add_members(&entry.path(), pids);
    }
}

/// Whether /proc is of the pid namespace that cgroup.procs is read in.
fn is_own_proc() -> bool {
    let own = fs::read_link("/proc/self");
    own.is_ok_and(|own| own == Path::new(&std::process::id().to_string()))
}

/// `None` if it has exited or exits.
fn process(pid: i32) -> Option<Process> {
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses /proc/PID/stat, see proc_pid_stat(5).
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (head, fields) = stat.rsplit_once(") ")?;
    let (_, command) = head.split_once('(')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    let flags: u64 = fields.get(6)?.parse().ok()?;
    let threads: u64 = fields.get(17)?.parse().ok()?;
    // The main thread may have exited while others live.
    let exits = threads <= 1 && (flags & EXITING != 0 || matches!(state, 'Z' | 'X'));
    (!exits).then(|| Process { pid, command: command.to_owned(), state: Some(state) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(command: &str, state: char, flags: u64, threads: u64) -> Vec<u8> {
        format!("71 ({command}) {state} 1 2 3 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0")
            .into_bytes()
    }

    #[test]
    fn the_exiting_are_not_left() {
        let sleep = Process { pid: 71, command: "a) (b".to_owned(), state: Some('S') };
        assert_eq!(parse(71, &stat("a) (b", 'S', 0x40_0000, 1)), Some(sleep));
        assert_eq!(parse(71, &stat("x", 'R', 0x40_0004, 1)), None);
        assert_eq!(parse(71, &stat("x", 'Z', 0x40_0004, 1)), None);
        assert_eq!(parse(71, &stat("x", 'Z', 0x40_0004, 2)).unwrap().state, Some('Z'));
        assert_eq!(parse(71, b"71 (x"), None);
    }

    #[test]
    fn the_line_counts_all_and_names_some() {
        let process = |pid, command: &str| Process { pid, command: command.to_owned(), state: Some('S') };
        let left = |processes, unmapped| Left { processes, unmapped }.line("make");
        assert_eq!(
            left(vec![process(71, "sleep")], 0),
            "killed 1 process that make left behind: sleep (pid 71)"
        );
        assert_eq!(
            left(vec![process(71, "sleep"), process(72, "")], 1),
            "killed 3 processes that make left behind: sleep (pid 71), pid 72, and 1 more"
        );
        assert_eq!(left(vec![], 2), "killed 2 processes that make left behind: 2 of another pid namespace");
        let line = left((1..=10).map(|pid| process(pid, "x")).collect(), 0);
        assert!(line.ends_with("x (pid 8), and 2 more"), "{line}");
    }
}
