//! The kernel's side: a target of pinned directories, checked and acted on as the machine says.
//!
//! Each file has one duty, and uses those further down in this list only:
//!
//! - `resolve`: from what the caller named to a target, or a refusal;
//! - `check`, `kill`, `freeze`, `remove`, `report`: what a step can do;
//! - `step`: what a step is, and what it finds out;
//! - `target`: what a target is, and what of it lasts from step to step;
//! - `signalled`: the tracked processes, and signals that are verified;
//! - `kernel`: what all of that works with;
//! - `survivors`, `external_freeze`, `own_cgroups`: what /proc tells;
//! - `members`: lists of them;
//! - `tree`: a directory of a target, and those below it;
//! - `mounts`, `facts`: what is remembered for all targets;
//! - `identity`: which directory it is;
//! - `v1`, `v2`, `hierarchy`, `proc`, `file`, `errors`, `descriptor_budget`: the kernel's interfaces.
//!
//! # What wakes a reap
//!
//! On v2 each target's own `cgroup.events`, for EPOLLPRI only (the file is always readable), armed before the kill,
//! so that no second check is due. One inotify instance for all of them goes through the kernel's one work item for
//! those (`kernfs_notify`): a reap of one process took a third longer, a thousand at once a fifth. Linux 6.18 to
//! 7.0.13 moreover keep inotify watches of groups that are gone. A pidfd of a member alone is nearly as fast, but
//! another check and another pidfd are due when it was not the last to exit. `benches/reap` has these loops side by
//! side.
//!
//! The kernel notifies at most once in 12 ms of a file (`cgroup_file_notify`), so the notification of a group that
//! changed just before its kill is late. These the machine checks again after 1, 3 and 7 ms, at a microsecond each; and
//! a group that outlives several attempts is listed, and watched by the pidfd of a member as well.
//!
//! v1 has no notification: there it is the pidfd of the last member listed, one a reap whatever the number of
//! members, and a list when that has exited. It is never late, so that nothing is checked in between.

mod check;
mod descriptor_budget;
mod errors;
mod external_freeze;
mod facts;
mod file;
mod freeze;
mod hierarchy;
mod identity;
mod kernel;
mod kill;
pub(crate) mod members;
pub(crate) mod mounts;
mod own_cgroups;
pub(crate) mod proc;
mod remove;
mod report;
mod resolve;
pub(crate) mod signalled;
mod step;
mod survivors;
mod target;
mod tree;
pub(crate) mod v1;
pub(crate) mod v2;

pub(crate) use self::descriptor_budget::Budget;
pub(crate) use self::facts::Facts;
pub(crate) use self::kernel::{Checks, Kernel, Notice};
pub(crate) use self::step::Findings;
pub(crate) use self::target::Target;
