//! The cgroups of a run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cgroup_reaper::{Reaper, reap_all};

use super::guard::Guard;
use super::mark;
use super::place::{RIGHTS, Sites};
use crate::args::Setting;
use crate::directory::{self, is_cgroup, open};

/// How often another name is tried where one is taken.
const NAMES: u32 = 16;

/// A cgroup that this run has made.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    dir: File,
}

impl Group {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Reaps this very directory, whatever has its path.
    pub fn reaper(&self) -> io::Result<Reaper> {
        directory::reaper(&self.dir, &self.path)
    }

    /// Makes it, and tells the guard.
    fn make(parent: Option<&Path>, name: &str, guard: &mut Option<Guard>) -> Result<Group, Failure> {
        let no_parent = || Failure::Other("no cgroup of this process is to be seen".to_owned());
        let parent = parent.ok_or_else(no_parent)?;
        // Another file system may be mounted over it.
        if !is_cgroup(parent).map_err(|error| Failure::of(parent, &error))? {
            return Err(Failure::Other(format!("{}: not a cgroup", parent.display())));
        }
        let path = parent.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Failure::Exists(path));
        }
        if let Some(guard) = guard {
            guard.announce(&path);
        }
        fs::create_dir(&path).map_err(|error| Failure::of(&path, &error))?;
        let group = open(&path).and_then(|dir| Ok((dir.metadata()?.ino(), dir)));
        let (inode, dir) = group.map_err(|error| {
            let _ = fs::remove_dir(&path);
            Failure::Other(format!("{}: {error}", path.display()))
        })?;
        let group = Group { path, dir };
        if !group.takes_processes() {
            group.remove();
            return Err(Failure::Other(format!(
                "{}: in a threaded cgroup, whose cgroups take no processes; --parent names another place",
                group.path.display()
            )));
        }
        mark::set(&group.path);
        if let Some(guard) = guard {
            guard.made(&group.path, inode);
        }
        Ok(group)
    }

    /// A cgroup in a threaded one takes none, cgroup-v2.rst "Threads".
    fn takes_processes(&self) -> bool {
        // v1 has no such file.
        fs::read_to_string(self.path.join("cgroup.type")).map_or(true, |kind| kind.trim_end() == "domain")
    }

    fn set(&self, setting: &Setting) -> Result<(), String> {
        let file = self.path.join(&setting.file);
        // Not created: this is a file of the kernel's.
        let written = OpenOptions::new().write(true).open(&file);
        let written = written.and_then(|mut file| io::Write::write_all(&mut file, setting.value.as_bytes()));
        written
            .map_err(|error| format!("--set {}={}: {}: {error}", setting.file, setting.value, file.display()))
    }

    /// Removes it while it is empty.
    pub fn remove(&self) {
        // It fails if a process that is not of this run has joined. That process keeps its cgroup.
        let _ = fs::remove_dir(&self.path);
    }
}

/// All cgroups of a run.
#[derive(Debug)]
pub struct Groups {
    /// The first one is reaped with grace and reported.
    all: Vec<Group>,
}

impl Groups {
    /// Makes the cgroups of the first of `possible` that can be made, and configures them.
    pub fn make(possible: &[Sites], name: Option<&str>, guard: &mut Option<Guard>) -> Result<Groups, String> {
        let mut refusal = None;
        for sites in possible {
            match Groups::make_all(sites, name, guard) {
                Ok(groups) => {
                    groups.configure(sites)?;
                    return Ok(groups);
                }
                Err(failure @ Failure::Exists(_)) => return Err(failure.to_string()),
                Err(failure) => drop(refusal.get_or_insert(failure)),
            }
        }
        Err(refusal.map_or_else(|| "no place for a cgroup".to_owned(), |failure| failure.to_string()))
    }

    fn make_all(sites: &Sites, name: Option<&str>, guard: &mut Option<Guard>) -> Result<Groups, Failure> {
        let mut tries = 0;
        loop {
            let made = match name {
                Some(name) => Groups::make_named(sites, name, guard),
                None => Groups::make_named(sites, &unused_name(tries), guard),
            };
            tries += 1;
            match made {
                Err(Failure::Exists(_)) if name.is_none() && tries < NAMES => {}
                made => return made,
            }
        }
    }

    fn make_named(sites: &Sites, name: &str, guard: &mut Option<Guard>) -> Result<Groups, Failure> {
        let mut groups = Groups { all: Vec::new() };
        for site in sites {
            match Group::make(site.parent.as_deref(), name, guard) {
                Ok(group) => groups.all.push(group),
                Err(_) if site.optional => {}
                Err(failure) => {
                    groups.remove();
                    return Err(failure);
                }
            }
        }
        Ok(groups)
    }

    /// Writes the settings. Optional sites, which may be missing, have none.
    fn configure(&self, sites: &Sites) -> Result<(), String> {
        let configured = self.all.iter().zip(sites).try_for_each(|(group, site)| {
            fill_cpuset(&group.path);
            site.settings.iter().try_for_each(|setting| group.set(setting))
        });
        if configured.is_err() {
            self.remove();
        }
        configured
    }

    /// The one that is reaped with grace and reported.
    pub fn first(&self) -> &Group {
        &self.all[0]
    }

    pub fn others(&self) -> &[Group] {
        &self.all[1..]
    }

    pub fn all(&self) -> &[Group] {
        &self.all
    }

    /// Reaps them without a word: something else has failed, and is reported. Returns whether all of them are reaped.
    pub fn abandon(&self, deadline: Duration) -> bool {
        let reapers: Vec<_> = self.all.iter().filter_map(|group| group.reaper().ok()).collect();
        let results = reap_all(reapers.into_iter().map(|reaper| reaper.deadline(deadline)));
        results.iter().filter(|result| result.is_ok()).count() == self.all.len()
    }

    /// Removes them while they are empty.
    pub fn remove(&self) {
        self.all.iter().rev().for_each(Group::remove);
    }
}

/// A name that no other cgroup has.
fn unused_name(tries: u32) -> String {
    // Two pid namespaces can have the same pid, hence the clock.
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("cgreap-{}-{:x}-{tries}", std::process::id(), nanos as u64)
}

/// Gives a v1 cpuset what its parent has: it takes no process while these are empty, cgroup-v1/cpusets.rst.
fn fill_cpuset(group: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        // v2 has effective values of its own, and lets these be empty.
        let is_empty = fs::read_to_string(group.join(file)).is_ok_and(|value| value.trim().is_empty());
        if is_empty && !group.join("cgroup.events").exists() {
            let of_parent = group.parent().and_then(|parent| fs::read(parent.join(file)).ok());
            // The join reports a failure.
            let _ = fs::write(group.join(file), of_parent.unwrap_or_default());
        }
    }
}

/// Why a cgroup could not be made.
#[derive(Debug)]
enum Failure {
    Exists(PathBuf),
    Denied(String),
    Other(String),
}

impl Failure {
    fn of(path: &Path, error: &io::Error) -> Failure {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            ErrorKind::AlreadyExists => Failure::Exists(path.to_path_buf()),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Failure::Denied(message),
            _ => Failure::Other(message),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Exists(path) => write!(f, "{} exists already", path.display()),
            Failure::Denied(message) => write!(f, "no right to make a cgroup ({message}): {RIGHTS}"),
            Failure::Other(message) => write!(f, "cannot make a cgroup ({message})"),
        }
    }
}
