//! What the demo makes: cgroups with processes in them, which are its targets.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use cgroup_reaper::{CgroupOptions, Reaper, Signal};
use nix::poll::{PollFd, PollFlags};

use crate::args::{Behaviour, DemoProcessArgs};
use crate::console::complain;
use crate::demo::cleaner::{self, CLEAR_TIME, clear};
use crate::demo::directories::{Directories, Directory};
use crate::demo::groups::{self, START_TIME, await_within, processes_in};
use crate::demo::process;
use crate::interrupt::{self, Interrupt, Wait};

/// No process of the demo lives longer, even if nothing is left that could kill it.
const LIFETIME: Duration = Duration::from_secs(60);
/// The deadline of each reap.
const REAP_TIME: Duration = Duration::from_secs(20);
/// The number of processes in a fork storm.
const FORK_STORM: usize = 24;
const GRACE: Duration = Duration::from_millis(100);

/// A target of the demo.
#[derive(Debug)]
pub struct DemoTarget {
    /// What is in it, for the table.
    pub what: String,
    /// "v2" or "v1".
    pub hierarchy: &'static str,
    /// Its cgroup in this hierarchy.
    pub group: PathBuf,
    pub reaper: Reaper,
    /// Brings its processes, once they are in it, into the state that the demo is to show.
    settle: fn(&Path) -> Result<(), String>,
}

impl DemoTarget {
    pub fn settle(&self) -> Result<(), String> {
        (self.settle)(&self.group)
    }

    /// Its cgroup in its hierarchy, and all below.
    pub fn groups(&self) -> Vec<PathBuf> {
        groups::subtree(&self.group)
    }

    /// The number of processes in it now.
    pub fn processes(&self) -> usize {
        self.groups().iter().map(|group| processes_in(group)).sum()
    }
}

/// Owns everything that the demo makes, and removes it in the end.
#[derive(Debug)]
pub struct Setup {
    directories: Vec<PathBuf>,
    processes: Vec<Child>,
    /// The stdouts of processes that are not yet known to be in their cgroups.
    outputs: Vec<ChildStdout>,
    /// Does what `remove` does, should this process be killed before.
    cleaner: Option<Child>,
    /// When the processes end by themselves, in milliseconds since boot.
    until: u64,
}

impl Setup {
    pub fn new(directories: &Directories) -> Result<Setup, String> {
        // Before anything below can fail: dropping this removes the directories.
        let mut setup = Setup {
            directories: directories.paths(),
            processes: Vec::new(),
            outputs: Vec::new(),
            cleaner: None,
            until: 0,
        };
        let now = process::uptime().map_err(|error| format!("/proc/uptime: {error}"))?;
        setup.until = now + LIFETIME.as_millis() as u64;
        setup.cleaner = Some(cleaner::spawn(&setup.directories).map_err(cannot_start)?);
        Ok(setup)
    }

    /// Makes the targets of one hierarchy, except the fork storm.
    pub fn make_targets(
        &mut self,
        directory: &Directory,
        partners: &[&Directory],
        targets: &mut Vec<DemoTarget>,
    ) -> Result<(), String> {
        // v2 has one hierarchy for all; there only the fork storm needs the pids controller of v1.
        let partners = if directory.version == "v1" { partners } else { &[] };
        let sleepers = self.target(directory, partners, "sleepers", |setup, groups| {
            setup.start(Behaviour::Sleep, 8, groups)
        })?;
        let tree = self.target(directory, partners, "nested tree", |setup, groups| {
            for below in ["left", "left/leaf", "left/leaf/deep", "right"] {
                let groups: Vec<_> = groups.iter().map(|group| group.join(below)).collect();
                groups.iter().try_for_each(|group| groups::make(group))?;
                setup.start(Behaviour::Sleep, 2, &groups)?;
            }
            // And one above the others.
            setup.start(Behaviour::Sleep, 1, groups)
        })?;
        let mut stopped = self.target(directory, partners, "stopped by SIGSTOP", |setup, groups| {
            setup.start(Behaviour::Stop, 1, groups)
        })?;
        stopped.settle = groups::await_stop;
        let mut deaf = self.target(directory, partners, "deaf to SIGTERM", |setup, groups| {
            setup.start(Behaviour::IgnoreTerm, 2, groups)
        })?;
        deaf.what += &format!(", TERM={}ms first", GRACE.as_millis());
        deaf.reaper = deaf.reaper.grace(Signal::TERM, GRACE);
        targets.extend([sleepers, tree, stopped, deaf]);

        // v2 can freeze from Linux 5.2 on.
        if directory.version == "v1" || directory.path().join("cgroup.freeze").exists() {
            let mut frozen = self.target(directory, partners, "frozen before", |setup, groups| {
                setup.start(Behaviour::Sleep, 3, groups)
            })?;
            frozen.settle = groups::freeze;
            targets.push(frozen);
        }
        Ok(())
    }

    /// Makes the fork storm of one hierarchy.
    pub fn make_fork_storm(
        &mut self,
        directory: &Directory,
        partners: &[&Directory],
        targets: &mut Vec<DemoTarget>,
    ) -> Result<(), String> {
        let mut target = self.target(directory, partners, "fork storm", |setup, groups| {
            groups::enable_pids(&directory.path());
            let limited = groups.iter().any(|group| groups::limit_pids(group, FORK_STORM));
            // Without a pids controller the processes limit themselves.
            let descendants = (!limited).then_some(FORK_STORM as u32 - 1);
            setup.start_one(&DemoProcessArgs {
                behaviour: Behaviour::ForkStorm,
                until: setup.until,
                groups: groups.to_vec(),
                descendants,
            })
        })?;
        target.settle = |group| {
            // A slow machine may not get there, and can be shown all the same.
            await_within(Duration::from_secs(2), || processes_in(group) >= FORK_STORM * 3 / 4);
            Ok(())
        };
        targets.push(target);
        Ok(())
    }

    /// Makes a target's cgroups, in `directory` and in its partners, and has `fill` start its processes.
    fn target(
        &mut self,
        directory: &Directory,
        partners: &[&Directory],
        what: &str,
        fill: impl FnOnce(&mut Setup, &[PathBuf]) -> Result<(), String>,
    ) -> Result<DemoTarget, String> {
        let name = format!("{}-{}", directory.version, what.replace(' ', "-"));
        let directories: Vec<_> = [directory].into_iter().chain(partners.iter().copied()).collect();
        let groups: Vec<_> = directories.iter().map(|directory| directory.path().join(&name)).collect();
        groups.iter().try_for_each(|group| groups::make(group))?;
        fill(self, &groups)?;

        let fitting = directories.iter().all(|other| other.fits(directory));
        let subsystems: Vec<_> = directories.iter().filter_map(|other| other.mount.file_name()).collect();
        let group = directory.path().join(&name);
        let reaper = match directory.mount.parent() {
            Some(root) if directories.len() > 1 && fitting && subsystems.len() == directories.len() => {
                Reaper::new(CgroupOptions::new(root).slice(&directory.slice).subsystems(subsystems), &name)
            }
            // The cgroups in the partners are removed in the end then.
            _ => Reaper::at(&group),
        };
        Ok(DemoTarget {
            what: what.to_owned(),
            hierarchy: directory.version,
            group,
            reaper: reaper.deadline(REAP_TIME),
            settle: |_| Ok(()),
        })
    }

    /// Starts `count` processes for these cgroups. They are in them after `await_started`.
    fn start(&mut self, behaviour: Behaviour, count: usize, groups: &[PathBuf]) -> Result<(), String> {
        let args =
            DemoProcessArgs { behaviour, until: self.until, groups: groups.to_vec(), descendants: None };
        (0..count).try_for_each(|_| self.start_one(&args))
    }

    fn start_one(&mut self, args: &DemoProcessArgs) -> Result<(), String> {
        let mut process = process::spawn(args).map_err(cannot_start)?;
        self.outputs.extend(process.stdout.take());
        self.processes.push(process);
        Ok(())
    }

    /// Returns when all processes started so far are in their cgroups.
    pub fn await_started(&mut self, interrupt: &Interrupt) -> Result<(), String> {
        let end = Instant::now() + START_TIME;
        for mut output in std::mem::take(&mut self.outputs) {
            loop {
                if let Some(signal) = interrupt.signal() {
                    return Err(interrupt::describe(signal));
                }
                let at_most = end.saturating_duration_since(Instant::now());
                if at_most.is_zero() {
                    return Err(format!("a process did not enter its cgroups within {START_TIME:?}"));
                }
                let descriptors = vec![PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                let waited = interrupt.wait(Wait { descriptors, at_most: Some(at_most) });
                if waited.map_err(|error| format!("poll: {error}"))? {
                    break;
                }
            }
            output.read_exact(&mut [0]).map_err(|_| "a process could not enter its cgroups".to_owned())?;
        }
        Ok(())
    }

    /// Removes all that was made. Returns what could not be removed.
    pub fn remove(&mut self) -> Vec<String> {
        let mut left = clear(&self.directories);
        self.directories.retain(|directory| directory.exists());
        left.extend(self.directories.iter().map(|directory| format!("{} is left", directory.display())));
        for mut process in self.processes.drain(..) {
            // It has ended already, unless it has never been in its cgroups.
            let _ = process.kill();
            if !await_within(CLEAR_TIME, || !matches!(process.try_wait(), Ok(None))) {
                left.push(format!("process {} does not exit", process.id()));
            }
        }
        if let Some(mut cleaner) = self.cleaner.take() {
            drop(cleaner.stdin.take());
            let _ = cleaner.wait();
        }
        left
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        for left in self.remove() {
            complain(&format!("demo: {left}"));
        }
    }
}

fn cannot_start(error: std::io::Error) -> String {
    format!("cannot start a copy of this program: {error}")
}
