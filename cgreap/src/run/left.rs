//! What the command left behind: the live processes in its cgroups after its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::group::Groups;
use super::process::{Process, is_own_proc};
use crate::shortage::{PATIENCE, Patience, is_shortage};

/// So many are named in the line; the report names all.
const NAMED: usize = 8;
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
        let mut patience = Patience(PATIENCE);
        for (index, group) in groups.all().iter().enumerate() {
            let mut list = Vec::new();
            add_members(group.path(), &mut list, &mut patience);
            // They are in all of the cgroups; without pids they are counted in one.
            if index == 0 {
                unmapped = list.iter().filter(|&&pid| pid == 0).count();
            }
            pids.extend(list.into_iter().filter(|&pid| pid > 0));
        }
        let named = is_own_proc();
        let process = |pid| if named { Process::read(pid) } else { Some(Process::unknown(pid)) };
        let processes = pids.into_iter().filter_map(process);
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
fn add_members(group: &Path, pids: &mut Vec<i32>, patience: &mut Patience) {
    let list = patience.retry(|| fs::read_to_string(group.join("cgroup.procs")), is_shortage);
    let Ok(list) = list else { return };
    pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()));
    let Ok(entries) = patience.retry(|| fs::read_dir(group), is_shortage) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        add_members(&entry.path(), pids, patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_all_and_names_some() {
        let process =
            |pid, command: &str| Process { pid, command: command.to_owned(), state: Some('S'), group: 0 };
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
