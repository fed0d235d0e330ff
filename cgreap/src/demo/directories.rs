//! The directories that the demo makes, one in each hierarchy. All its cgroups are below them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::mounts::{Mount, mounts};

const PREFIX: &str = "cgroup-reaper-demo-";

/// Whether this is, by its name, a directory that a demo has made.
pub fn is_of_a_demo(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

/// A directory that the demo has made in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// "v2" or "v1".
    pub version: &'static str,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The directory, relative to the mount.
    pub slice: PathBuf,
}

impl Directory {
    /// Makes the directory at the top of the hierarchy. Where that is denied it is made in the cgroup of this
    /// process, `own`, which may be delegated to the user.
    fn make(mount: &Mount, version: &'static str, own: Option<&Path>) -> io::Result<Directory> {
        let name = format!("{PREFIX}{}", std::process::id());
        let make = |slice: PathBuf| {
            let directory = Directory { version, mount: mount.point.clone(), slice };
            fs::create_dir(directory.path()).map(|()| directory)
        };
        make(PathBuf::from(&name)).or_else(|error| {
            let own = own.and_then(|own| own.strip_prefix(&mount.root).ok());
            match own.filter(|own| !own.as_os_str().is_empty()) {
                Some(own) => make(own.join(&name)),
                None => Err(error),
            }
        })
    }

    pub fn path(&self) -> PathBuf {
        self.mount.join(&self.slice)
    }

    /// Whether cgroups of one name in both can be one target: the library takes one root and one slice.
    pub fn fits(&self, other: &Directory) -> bool {
        self.slice == other.slice && self.mount.parent() == other.mount.parent()
    }
}

/// The demo's directories, in those of the hierarchies that are mounted and let it make one.
#[derive(Debug, Default)]
pub struct Directories {
    v2: Option<Directory>,
    freezer: Option<Directory>,
    pids: Option<Directory>,
}

impl Directories {
    /// Makes them, or says why there can be none.
    pub fn make() -> Result<Directories, String> {
        let mounts = mounts().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
        let own = fs::read("/proc/self/cgroup").unwrap_or_default();
        let mut refusals = Vec::new();
        let mut make = |version, controller: Option<&str>| {
            let mount = mounts.iter().find(|mount| mount.has(controller))?;
            match Directory::make(mount, version, mount.own_path(&own)) {
                Ok(directory) => Some(directory),
                Err(error) => {
                    refusals.push(format!("{}: {error}", mount.point.display()));
                    None
                }
            }
        };
        let v2 = make("v2", None);
        let freezer = make("v1", Some("freezer"));
        if v2.is_none() && freezer.is_none() {
            return Err(match refusals.first() {
                None => "neither cgroup v2 nor a v1 freezer is mounted".to_owned(),
                Some(refusal) => format!(
                    "no right to make cgroups ({refusal}): run it as root, or in a delegated subtree, such as \
                     by `systemd-run --user --scope -p Delegate=yes cgreap demo`"
                ),
            });
        }
        // Where pids is mounted together with the freezer, that directory exists already.
        let together = |mount: &Mount| mount.has(Some("pids")) && mount.has(Some("freezer"));
        let pids = match &freezer {
            Some(freezer) if mounts.iter().any(together) => Some(freezer.clone()),
            _ => make("v1", Some("pids")),
        };
        Ok(Directories { v2, freezer, pids })
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        let directories = [&self.v2, &self.freezer, &self.pids].into_iter().flatten();
        let mut paths: Vec<_> = directories.map(Directory::path).collect();
        paths.dedup();
        paths
    }

    /// The directories in which the demo makes its targets, each with the other directories that a target's
    /// processes are to be in as well: v1 has one hierarchy for each controller, so a target there has several
    /// cgroups.
    pub fn with_partners(&self) -> Vec<(&Directory, Vec<&Directory>)> {
        let pids = self.pids.iter();
        let partners =
            |directory: &Directory| pids.clone().filter(|pids| pids.path() != directory.path()).collect();
        [&self.v2, &self.freezer]
            .into_iter()
            .flatten()
            .map(|directory| (directory, partners(directory)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_root_and_slice_make_one_target() {
        let directory =
            |mount: &str, slice: &str| Directory { version: "v1", mount: mount.into(), slice: slice.into() };
        assert!(directory("/c/freezer", "s").fits(&directory("/c/pids", "s")));
        assert!(!directory("/c/freezer", "s").fits(&directory("/c/pids", "t")));
        assert!(!directory("/c/freezer", "s").fits(&directory("/d/pids", "s")));
    }
}
