//! `cgreap sweep DIR`: lists the cgroups in a directory, removes those that are empty, or reaps all.

mod found;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cgroup_reaper::{Outcome, ReapError, Reaper, SpawnError};

use crate::args::SweepArgs;
use crate::console::{complain, print, printable};
use crate::directory::is_cgroup;
use crate::driver::{self, Listener, Target};
use crate::duration::human;
use crate::end::{End, Failure};
use crate::exit::Exit;
use crate::interrupt;
use crate::status::{ALL_REAPED, NOT_REAPED, REFUSED};
use found::{Found, find};

/// How long a cgroup that was empty a moment ago may take to be removed.
const EMPTY_TIME: Duration = Duration::from_secs(1);

/// Lists or sweeps.
pub fn run(args: &SweepArgs) -> Exit {
    if let Err(reason) = check(args) {
        complain(&format!("sweep: {}: {reason}", args.dir.display()));
        return Exit::Status(REFUSED);
    }
    let mut found = match find(&args.dir) {
        Ok(found) => found,
        Err(error) => {
            complain(&format!("sweep: {}: {error}", args.dir.display()));
            return Exit::Status(NOT_REAPED);
        }
    };
    found.retain(|found| args.older_than.is_none_or(|age| found.age >= age));
    if args.empty || args.kill {
        sweep(args, &found)
    } else {
        match print(&list(&found)) {
            Ok(()) => Exit::Status(ALL_REAPED),
            Err(error) => {
                complain(&format!("sweep: {error}"));
                Exit::Status(NOT_REAPED)
            }
        }
    }
}

fn check(args: &SweepArgs) -> Result<(), String> {
    // A file of a cgroup is on its filesystem too.
    if !is_cgroup(&args.dir).map_err(|error| error.to_string())? || !args.dir.is_dir() {
        return Err("not a cgroup".to_owned());
    }
    if args.kill && is_root(&args.dir).map_err(|error| error.to_string())? {
        return Err("refused: the root of a hierarchy, whose cgroups are all that run".to_owned());
    }
    Ok(())
}

/// Whether a hierarchy is mounted here.
fn is_root(dir: &Path) -> io::Result<bool> {
    Ok(dir.metadata()?.dev() != dir.join("..").metadata()?.dev())
}

fn list(found: &[Found]) -> String {
    let mut text = "PROCESSES  CGROUPS       AGE  CGROUP\n".to_owned();
    for found in found {
        let members = found.members.map_or_else(|| "?".to_owned(), |members| members.to_string());
        let path = printable(&found.path.to_string_lossy());
        text += &format!("{members:>9}  {:>7}  {:>8}  {path}\n", found.cgroups, age(found.age));
    }
    text
}

/// A lower bound of an age, rounded down.
fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A cgroup that is to be removed.
#[derive(Debug)]
struct Due<'a> {
    found: &'a Found,
    args: &'a SweepArgs,
}

impl Target for Due<'_> {
    fn reaper(&self) -> Result<Option<Reaper>, SpawnError> {
        let configure = |reaper: Reaper| match self.args.kill {
            true => reaper.deadline(self.args.deadline),
            // Sends no signal, and removes the cgroups below first.
            false => reaper.when_empty().deadline(EMPTY_TIME),
        };
        Ok(self.found.reaper()?.map(configure))
    }
}

/// What became of the cgroups.
#[derive(Debug, Default)]
struct Swept {
    /// Their paths, by index.
    paths: Vec<PathBuf>,
    removed: usize,
    /// Units of systemd, which removes their directories itself.
    left_to_systemd: usize,
    in_use: usize,
    status: u8,
    failures: Vec<String>,
    /// Whether members are no failure.
    only_empty: bool,
}

impl Listener for Swept {
    fn ended(&mut self, index: usize, end: End) {
        match &end.result {
            Ok(reaped) if reaped.outcome == Outcome::Emptied => self.left_to_systemd += 1,
            Ok(_) => self.removed += 1,
            // Members that are exiting may have no name. A removal that fails has a cause.
            Err(Failure::Reap(ReapError::TimedOut { survivors, source, .. }))
                if self.only_empty && (!survivors.is_empty() || source.is_none()) =>
            {
                self.in_use += 1;
            }
            Err(failure) => {
                // Also where it is refused: the command line, which names the directory, was right.
                self.status = NOT_REAPED;
                self.failures.push(describe(failure, &self.paths[index]));
            }
        }
    }
}

/// The message of a failure, which names the cgroup as it was found: a reaper of a descriptor knows the path without
/// symbolic links, and `DIR` may have some.
fn describe(failure: &Failure, found: &Path) -> String {
    let text = failure.to_string();
    let Failure::Reap(error) = failure else { return text };
    match (error.path(), std::path::absolute(found)) {
        (Some(path), Ok(found)) if path != found => {
            text.replace(&*path.to_string_lossy(), &found.to_string_lossy())
        }
        _ => text,
    }
}

fn sweep(args: &SweepArgs, found: &[Found]) -> Exit {
    let (reactor, interrupt) = match driver::start() {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("sweep: {error}"));
            return Exit::Status(NOT_REAPED);
        }
    };
    let since = Instant::now();
    // Where the processes cannot be listed, as in a threaded cgroup, the kernel tells whether there are any.
    let is_due = |found: &&Found| args.kill || found.members.is_none_or(|members| members == 0);
    let due: Vec<_> = found.iter().filter(is_due).map(|found| Due { found, args }).collect();
    let paths = due.iter().map(|due| due.found.path.clone()).collect();
    let in_use = found.len() - due.len();
    let mut swept = Swept { paths, in_use, only_empty: args.empty, ..Swept::default() };
    let driven = driver::drive(reactor, due, &interrupt, &mut swept);
    let signal = interrupt.restore();
    for failure in &swept.failures {
        complain(failure);
    }
    if let Err(error) = driven {
        complain(&format!("sweep: event loop: {error}"));
        swept.status = swept.status.max(NOT_REAPED);
    }
    let (removed, total) = (swept.removed, found.len());
    let mut line = format!("{removed} of {total} cgroups removed in {}", human(since.elapsed()));
    if swept.in_use > 0 {
        line += &format!("; {} have processes", swept.in_use);
    }
    if swept.left_to_systemd > 0 {
        line += &format!("; {} empty, left to systemd", swept.left_to_systemd);
    }
    if let Err(error) = print(&(line + "\n")) {
        complain(&format!("sweep: {error}"));
        swept.status = swept.status.max(NOT_REAPED);
    }
    match signal {
        Some(signal) => {
            complain(&interrupt::describe(signal));
            Exit::Signal(signal as i32)
        }
        None => Exit::Status(swept.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_rounded_down() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
