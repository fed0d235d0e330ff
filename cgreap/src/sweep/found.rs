//! The cgroups in a directory, with what is in them and how old they are.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cgroup_reaper::{Reaper, Refusal, SpawnError};
use nix::sys::sysinfo::sysinfo;
use rustix::process::geteuid;

use crate::directory::{is_inode, open};

/// A cgroup in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    /// Tells it from a later cgroup of the same name.
    pub inode: u64,
    /// The number of processes in it and below it; `None` if they cannot be listed.
    pub members: Option<usize>,
    /// The number of cgroups, itself included.
    pub cgroups: usize,
    /// A lower bound.
    pub age: Duration,
}

impl Found {
    /// Reaps this very cgroup; `None` if it is gone, even if another one has its name.
    pub fn reaper(&self) -> Result<Option<Reaper>, SpawnError> {
        match open(&self.path) {
            Ok(dir) => Ok(is_inode(&dir, self.inode).then(|| Reaper::at_fd(dir.into()))),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            Err(error) => Err(SpawnError::new(Reaper::at(&self.path), Refusal::io(&self.path, error))),
        }
    }
}

/// The cgroups in this directory, by name.
pub fn find(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // One that was removed meanwhile is not there.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            found.push((metadata.ino(), first_seen(&metadata), entry.path()));
        }
    }
    let now = SystemTime::now();
    let ages = ages(
        found
            .iter()
            .map(|(inode, seen, _)| (*inode, now.duration_since(*seen).unwrap_or_default()))
            .collect(),
        sysinfo()?.uptime(),
    );
    let mut found: Vec<_> = found
        .into_iter()
        .zip(ages)
        .map(|((inode, _, path), age)| {
            let (members, cgroups) = count(&path);
            Found { path, inode, members, cgroups, age }
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// When the kernel made the inode, which is at the first look-up, at the latest: `set_default_inode_attr` in
/// fs/kernfs/inode.c. Changes move some of the times forward. The owner of a directory can set atime and mtime back, and not
/// ctime: utimensat(2) sets that to now.
fn first_seen(metadata: &fs::Metadata) -> SystemTime {
    let time = |seconds: i64, nanos: i64| {
        UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
    };
    let changed = time(metadata.ctime(), metadata.ctime_nsec());
    if ![0, geteuid().as_raw()].contains(&metadata.uid()) {
        return changed;
    }
    let accessed = time(metadata.atime(), metadata.atime_nsec());
    let modified = time(metadata.mtime(), metadata.mtime_nsec());
    changed.min(accessed).min(modified)
}

/// Raises each age to that of the oldest which was made later, and bounds it by the time since boot: the clock may have been
/// set. Inode numbers, which are the ids of cgroups, only grow, `__kernfs_new_node` in fs/kernfs/dir.c (before Linux 5.5 for the
/// first 2^31 files).
fn ages(found: Vec<(u64, Duration)>, since_boot: Duration) -> Vec<Duration> {
    let mut by_inode: Vec<usize> = (0..found.len()).collect();
    by_inode.sort_by_key(|&index| std::cmp::Reverse(found[index].0));
    let mut ages = vec![Duration::ZERO; found.len()];
    let mut oldest = Duration::ZERO;
    for index in by_inode {
        oldest = oldest.max(found[index].1.min(since_boot));
        ages[index] = oldest;
    }
    ages
}

/// The number of processes in a cgroup and below it, and of the cgroups.
fn count(group: &Path) -> (Option<usize>, usize) {
    let procs = fs::read_to_string(group.join("cgroup.procs"));
    let (mut members, mut cgroups) = (procs.ok().map(|procs| procs.lines().count()), 1);
    let entries = fs::read_dir(group).map(|entries| entries.flatten().collect::<Vec<_>>());
    let Ok(entries) = entries else { return (None, 1) };
    for entry in entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let (below, more) = count(&entry.path());
        members = members.zip(below).map(|(members, below)| members + below);
        cgroups += more;
    }
    (members, cgroups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_is_at_least_as_old() {
        let seconds = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        let found =
            [(30, 5), (10, 0), (20, 60), (40, 1)].map(|(inode, age)| (inode, Duration::from_secs(age)));
        assert_eq!(ages(found.to_vec(), Duration::MAX), seconds(&[5, 60, 60, 1]));
        assert_eq!(ages(Vec::new(), Duration::MAX), []);
        // None is older than the boot.
        assert_eq!(ages(found.to_vec(), Duration::from_secs(4)), seconds(&[4, 4, 4, 1]));
    }
}
