//! Removes what a demo has made: at its end, and, in a process of its own, after a SIGKILL to the demo.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use cgroup_reaper::Reaper;

use crate::demo::directories::is_of_a_demo;
use crate::demo::process::this_program;
use crate::interrupt::unblock_all;

/// How long it may take to kill and remove what a demo has made.
pub const CLEAR_TIME: Duration = Duration::from_secs(10);

/// Kills and removes all there is in directories of a demo. Returns what could not be removed, and why.
pub fn clear(directories: &[PathBuf]) -> Vec<String> {
    let of_demos = directories.iter().filter(|path| path.exists() && is_of_a_demo(path));
    let reapers = of_demos.map(|path| Reaper::at(path).deadline(CLEAR_TIME));
    let results = cgroup_reaper::reap_all(reapers);
    results.into_iter().filter_map(|result| result.err().map(|error| error.to_string())).collect()
}

/// Starts the process that clears these directories when its stdin, which the caller holds, is closed.
pub fn spawn(directories: &[PathBuf]) -> io::Result<Child> {
    this_program("__demo-cleaner").args(directories).stdin(Stdio::piped()).spawn()
}

/// The process itself. Returns what could not be removed.
pub fn run(directories: &[PathBuf]) -> Result<(), String> {
    unblock_all().map_err(|error| error.to_string())?;
    // The kernel closes the other end when the demo ends, however it ends. An error of the read means the same.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let left = clear(directories);
    if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_leaves_other_directories_alone() {
        let dir = std::env::temp_dir();
        assert!(clear(&[dir.clone(), "/".into(), dir.join("cgroup-reaper-demo-gone")]).is_empty());
    }
}
