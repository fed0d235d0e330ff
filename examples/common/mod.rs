//! What the examples have in common: a few small cgroups with processes in them, to be reaped.
//!
//! Not the part to copy: your program has its cgroups already.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where a cgroup hierarchy may be mounted: v2 alone, v2 beside v1, and the v1 freezer.
const ROOTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"];

/// A directory for the cgroups of one example. Dropping it kills and removes what is left in it.
pub struct Groups {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Groups {
    /// Makes the directory. Without the right to, it prints that and returns `None`.
    pub fn new() -> Result<Option<Groups>, Box<dyn Error>> {
        let name = format!("cgroup-reaper-example-{}", std::process::id());
        for root in ROOTS.map(Path::new) {
            let dir = root.join(&name);
            // On other filesystems, such as the tmpfs that v1 is mounted on, there is no such file.
            if root.join("cgroup.procs").exists() && fs::create_dir(&dir).is_ok() {
                return Ok(Some(Groups { dir, children: Vec::new() }));
            }
        }
        if std::env::var("CI").is_ok_and(|value| value == "true") {
            return Err("no cgroup hierarchy is writable, and CI must not skip this".into());
        }
        println!("SKIP: no cgroup hierarchy is writable here");
        Ok(None)
    }

    /// Makes a cgroup with `count` sleeping processes in it.
    pub fn sleepers(&mut self, name: &str, count: usize) -> Result<PathBuf, Box<dyn Error>> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir)?;
        for _ in 0..count {
            let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
            let pid = child.id();
            self.children.push(child);
            fs::write(dir.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(dir)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Most have been killed already, and are waited for here.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = cgroup_reaper::reap(cgroup_reaper::Reaper::at(&self.dir)) {
            eprintln!("{}: left behind: {error}", self.dir.display());
        }
    }
}
