//! What a run has used, as its cgroups tell.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::group::Groups;

/// From the interface files of the cgroups, `None` where none of them has the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// cpu.stat, microseconds for the most part
    pub cpu: Map<String, Value>,
    /// bytes
    pub memory_peak: Option<u64>,
    pub pids_peak: Option<u64>,
    /// The number of processes that were killed for want of memory.
    pub oom_kill: Option<u64>,
}

impl Usage {
    /// To be read before they are removed.
    pub fn of(groups: &Groups) -> Usage {
        let directories: Vec<_> = groups.all().iter().map(|group| group.path()).collect();
        Usage::read(&directories)
    }

    fn read(directories: &[&Path]) -> Usage {
        let read = |file: &str| directories.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok());
        let number = |file| read(file).and_then(|text| text.trim().parse().ok());
        let oom = read("memory.events").or_else(|| read("memory.oom_control"));
        Usage {
            cpu: read("cpu.stat").map(|text| numbers(&text)).unwrap_or_default(),
            memory_peak: number("memory.peak").or_else(|| number("memory.max_usage_in_bytes")),
            pids_peak: number("pids.peak"),
            oom_kill: oom.and_then(|text| numbers(&text).get("oom_kill").and_then(Value::as_u64)),
        }
    }
}

/// A flat keyed file, cgroup-v2.rst.
fn numbers(text: &str) -> Map<String, Value> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_keyed_files_are_read() {
        let numbers = numbers("low 0\nmax 12\noom_kill 3\nodd\nname x\n");
        assert_eq!(Value::Object(numbers), json!({ "low": 0, "max": 12, "oom_kill": 3 }));
    }
}
