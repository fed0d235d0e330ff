//! The kernel's side: targets, which are pinned directories. The machine's actions check, kill, freeze, thaw
//! and remove them.
//!
//! Each file has one duty, and uses those further down in this list only:
//!
//! - `resolve`: from what the caller named to a target, or a refusal;
//! - `check`, `kill`, `signal`, `large`, `freeze`, `thaw`, `remove`, `release`, `report`: what a step can
//!   do;
//! - `job`, `kill_by_helper`, `remove_by_helper`, `helper_call`: what a helper thread does for a target;
//! - `step`: the actions on a target within one call, and what they find out;
//! - `target`: the state of a target that lasts from step to step;
//! - `tracked`: the tracked processes, and signals that are verified; `watched`: the process whose exit wakes the
//!   reactor; `attempt`: the state and the result of an attempt;
//! - `context`: the context passed to every step: system calls, metrics, descriptor budget, watches;
//! - `survivors`, `external_freeze`, `own_cgroup`, `process`: facts from /proc;
//! - `listing`, `members`: lists of the members; `traversal`: a walk through all directories in several steps;
//! - `tree`: a directory of a target; `walk`: finding those below it;
//! - `mounts`, `facts`: facts that are kept for all targets;
//! - `location`: opening what the caller named;
//! - `identity`: the inode number of a target's directory, and how it is addressed;
//! - `v1`, `v2`, `systemd`, `hierarchy`, `proc`, `file`, `errors`, `descriptor_budget`: the kernel's interfaces.
//!
//! # Which kernel notifications wake a reap
//!
//! On v2: EPOLLPRI on the target's `cgroup.events`. It is registered before the first attempt, so no change after it
//! is missed. inotify was measured instead: a third slower for one reap, a fifth for a thousand, because the kernel
//! sends all its events from one work item (`kernfs_notify`). Linux 6.18 to
//! 7.0.13 moreover keep inotify watches of groups that are gone. A pidfd of one member is nearly as fast. But if that
//! member is not the last to exit, another check and another pidfd are needed. `benches/reap` has these loops side by
//! side.
//!
//! The kernel notifies at most once in 12 ms of a file (`cgroup_file_notify`), so the notification of a target that
//! changed just before the attempt is late. The machine therefore checks such a target again after 1, 3 and 7 ms, a
//! microsecond each. After several attempts its members are listed, and the pidfd of one is watched too.
//!
//! v1 has no notification. On v1 one pidfd for each reap is watched, of one of the last members listed. When this
//! member exits, the list is read again. A pidfd is never late, so there are no probes.

pub(crate) mod attempt;
mod check;
mod context;
mod descriptor_budget;
pub(crate) mod errors;
pub(crate) mod external_freeze;
mod facts;
mod file;
mod freeze;
mod helper_call;
pub(crate) mod hierarchy;
pub(crate) mod identity;
mod job;
mod kill;
mod kill_by_helper;
mod large;
mod listing;
mod location;
pub(crate) mod members;
pub(crate) mod mounts;
mod own_cgroup;
pub(crate) mod proc;
mod process;
mod release;
mod remove;
mod remove_by_helper;
mod report;
mod resolve;
mod signal;
mod step;
mod survivors;
mod systemd;
mod target;
mod thaw;
pub(crate) mod tracked;
mod traversal;
pub(crate) mod tree;
pub(crate) mod v1;
pub(crate) mod v2;
mod walk;
mod watched;

pub(crate) use self::context::{Context, Limit, Notice, Resolver};
pub(crate) use self::descriptor_budget::Budget;
pub(crate) use self::facts::Facts;
pub(crate) use self::file::as_path;
pub(crate) use self::job::{Answer, Job};
pub(crate) use self::members::MANY;
pub(crate) use self::step::Findings;
pub(crate) use self::target::Target;
