//! Starts a job in a cgroup of its own, and reaps all that it leaves behind. No `unsafe`: the job's process first
//! executes this program, which joins the cgroup and then becomes the job.
//!
//! ```text
//! cargo run --example start_in_cgroup                 # a job that leaves a process behind
//! cargo run --example start_in_cgroup -- make test    # any other
//! ```

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use cgroup_reaper::{Reaper, reap};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match &args[..] {
        [option, dir, program, args @ ..] if option == "--join" => {
            Err(join(Path::new(dir), program, args).into())
        }
        [] => run(&["sh", "-c", "setsid sleep 100 & echo left behind: $!"].map(OsString::from)),
        command => run(command),
    }
}

/// Runs a command in a cgroup of its own. When it has exited, nothing of it is left.
fn run(command: &[OsString]) -> Result<(), Box<dyn Error>> {
    let Some(dir) = make_cgroup(&format!("cgroup-reaper-example-{}", std::process::id())) else {
        println!("SKIP: no cgroup hierarchy is writable here");
        return Ok(());
    };
    let status = start(&dir, command).and_then(|mut job| job.wait());
    // Also where it could not be started.
    let reaped = reap(Reaper::at(&dir))?;
    println!("{}; {} in {:?}", status?, reaped.outcome, reaped.elapsed);
    Ok(())
}

/// Makes a new directory for one job, in the first hierarchy that allows it: v2, v2 beside v1, or the v1 freezer.
fn make_cgroup(name: &str) -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"].map(Path::new);
    let hierarchies = roots.into_iter().filter(|root| root.join("cgroup.procs").exists());
    // Not create_dir_all: a directory that is there already may have members that are no concern of ours.
    hierarchies.map(|root| root.join(name)).find(|dir| fs::create_dir(dir).is_ok())
}

/// Starts the process of the job.
fn start(dir: &Path, command: &[OsString]) -> io::Result<Child> {
    // This program, also if its file has been replaced since it was started.
    Command::new("/proc/self/exe").arg("--join").arg(dir).args(command).spawn()
}

/// In the job's process: joins the cgroup and becomes the command. Returns only if that fails: the command never runs
/// outside of the cgroup.
fn join(dir: &Path, program: &OsString, args: &[OsString]) -> io::Error {
    // "0" means the process that writes.
    match fs::write(dir.join("cgroup.procs"), "0") {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error,
    }
}
