//! Programs that remove a container, against `cgreap` on the same container's cgroups: runc and crun, where they
//! are installed. Each time includes the start of the program.
//!
//! libcgroup's cgdelete is not among them: it does not kill the members, but moves them to the parent.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::program::groups::Bases;
use crate::program::stats::{figure, median, quantile};

/// A scratch place that a build may leave things in.
const SCRATCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/commands");

/// Containers that each ends.
const ROUNDS: usize = 15;

pub fn compare(bases: &Bases) -> Result<(), Box<dyn Error>> {
    let Some(cgreap) = std::env::var_os("CGREAP").map(PathBuf::from) else {
        println!("\nSKIP commands: CGREAP does not say where cgreap is; benches/run does");
        return Ok(());
    };
    for runtime in ["runc", "crun"] {
        let runtime = Runtime::new(runtime, bases)?;
        // One to see whether it works here, and to warm up.
        match runtime.start().and_then(|()| runtime.delete()) {
            Ok(()) => runtime.measure(&cgreap)?,
            Err(error) => println!("\nSKIP {}: {error}", runtime.name),
        }
    }
    println!("SKIP cgdelete: it does not kill");
    Ok(())
}

struct Runtime {
    name: &'static str,
    /// The container's path in every hierarchy.
    cgroup: PathBuf,
    mounts: Vec<PathBuf>,
    bundle: PathBuf,
}

impl Runtime {
    fn new(name: &'static str, bases: &Bases) -> io::Result<Runtime> {
        let bundle = Path::new(SCRATCH).join(name);
        // The state of an interrupted run, whose container is gone.
        let _ = fs::remove_dir_all(&bundle);
        fs::create_dir_all(bundle.join("rootfs"))?;
        let cgroup = Path::new("/").join(&bases.name).join(name);
        let binds: Vec<String> = ["/bin", "/usr", "/lib", "/lib64"]
            .iter()
            .filter(|dir| Path::new(dir).exists())
            .map(|dir| {
                format!(
                    r#"{{"destination":"{dir}","type":"bind","source":"{dir}","options":["rbind","ro"]}}"#
                )
            })
            .collect();
        let config = format!(
            r#"{{"ociVersion":"1.0.2",
            "process":{{"terminal":false,"user":{{"uid":0,"gid":0}},"args":["/bin/sleep","1000"],"cwd":"/"}},
            "root":{{"path":"rootfs"}},
            "mounts":[{{"destination":"/proc","type":"proc","source":"proc"}},{}],
            "linux":{{"cgroupsPath":"{}","namespaces":[{{"type":"pid"}},{{"type":"mount"}}],
            "resources":{{"devices":[{{"allow":true,"access":"rwm"}}]}}}}}}"#,
            binds.join(","),
            cgroup.display(),
        );
        fs::write(bundle.join("config.json"), config)?;
        Ok(Runtime { name, cgroup, mounts: bases.mounts.clone(), bundle })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        command.arg("--root").arg(self.bundle.join("state")).current_dir(&self.bundle);
        command
    }

    fn start(&self) -> io::Result<()> {
        run(self.command().args(["run", "--detach", "bench"]))?;
        // Some programs report success without having started a container.
        if self.directories().is_empty() { Err(io::Error::other("it made no cgroup")) } else { Ok(()) }
    }

    fn delete(&self) -> io::Result<()> {
        run(self.command().args(["delete", "--force", "bench"]))
    }

    fn directories(&self) -> Vec<PathBuf> {
        let relative = self.cgroup.strip_prefix("/").unwrap_or(&self.cgroup);
        self.mounts.iter().map(|mount| mount.join(relative)).filter(|dir| dir.is_dir()).collect()
    }

    fn measure(&self, cgreap: &Path) -> io::Result<()> {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            self.start()?;
            let begun = Instant::now();
            self.delete()?;
            theirs.push(begun.elapsed().as_secs_f64() * 1e3);

            self.start()?;
            let directories = self.directories();
            let begun = Instant::now();
            run(Command::new(cgreap).args(&directories))?;
            ours.push(begun.elapsed().as_secs_f64() * 1e3);
            if !self.directories().is_empty() {
                return Err(io::Error::other("cgreap has left a directory"));
            }
            // The runtime's state of the container.
            self.delete()?;
        }
        println!("\n### A container of one process, {} made by {}, ms\n", self.cgroup.display(), self.name);
        println!("| | median | p25 .. p75 | to cgreap |\n|---|---:|---|---:|");
        let names = [format!("{} delete --force", self.name), "cgreap, all of its directories".to_owned()];
        for (name, values) in names.iter().zip([&theirs, &ours]) {
            println!(
                "| {name} | {} | {} .. {} | {} |",
                figure(median(values)),
                figure(quantile(values, 0.25)),
                figure(quantile(values, 0.75)),
                figure(median(values) / median(&ours)),
            );
        }
        Ok(())
    }
}

/// Runs a program to its end. Its stderr is the error.
fn run(command: &mut Command) -> io::Result<()> {
    // Not through a pipe, which what it starts would hold open.
    let complaints = Path::new(SCRATCH).join("complaints");
    let file = fs::File::create(&complaints)?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).status()?;
    if status.success() {
        return Ok(());
    }
    let why = fs::read_to_string(complaints)?;
    Err(io::Error::other(format!("{status}: {}", why.trim())))
}
