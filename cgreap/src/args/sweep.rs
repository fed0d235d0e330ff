//! The command line of `cgreap sweep`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use crate::duration;

pub const EXAMPLES: &str = "\
Examples:
  cgreap sweep /sys/fs/cgroup/batch
      Lists the cgroups in it, each with the processes in it and below it, and its age.
  cgreap sweep --empty --older-than 1h /sys/fs/cgroup/batch
      Removes those that have no process. Sends no signal.
  cgreap sweep --kill --older-than 1h /sys/fs/cgroup/batch
      Kills what is in them, and removes them.

Age:
  The kernel does not keep when a cgroup was made. The age is a lower bound: the time since the directory, or
  one that was made later, was first accessed, whichever is longer. So an age of 0 s can mean that this listing
  was the first access: list again later. If the directory belongs neither to root nor to the caller, the age
  is the time since its last change. If the clock was set forward since then, the age is too high, but never
  higher than the time since boot.

Exit status:
  0    done
  1    at least one cgroup could not be removed, or is refused, as the caller's own
  2    wrong usage, or DIR is not a cgroup
  129, 130, 143
       died of SIGHUP, SIGINT, SIGTERM";

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The cgroup directory whose cgroups are swept. It stays itself
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,

    /// Remove the cgroups that have no process in them and below them. No signal is sent
    ///
    /// A cgroup that was made for a process which has not joined it yet is empty as well: --older-than spares it.
    #[arg(long, conflicts_with = "kill")]
    pub empty: bool,

    /// Kill what is in the cgroups, and remove them
    #[arg(long)]
    pub kill: bool,

    /// Only those that are older, such as 1h
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = duration::parse)]
    pub older_than: Option<Duration>,

    /// With --kill: give up on a cgroup after this long
    #[arg(
        long,
        value_name = "TIME",
        value_hint = ValueHint::Other,
        default_value = "30s",
        value_parser = duration::parse
    )]
    pub deadline: Duration,
}
