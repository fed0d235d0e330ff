//! Kills everything in a Linux cgroup, waits until it is truly empty, removes it, and tells how that
//! went: thousands at once, from one thread, in whatever event loop the caller has.
//!
//! Without a loop, [`reap`] and [`reap_all`] block until it is done:
//!
//! ```no_run
//! use cgroup_reaper::{Outcome, Reaper, reap};
//!
//! let reaped = reap(Reaper::at("/sys/fs/cgroup/batch/task-42"))?;
//! assert_ne!(reaped.outcome, Outcome::Emptied);
//! # Ok::<(), cgroup_reaper::ReapError>(())
//! ```
//!
//! With one, a [`Reactor`] is a single file descriptor in it; [`driving`] says how. Other threads spawn
//! through a [`Remote`]. A [`ReapHandle`] blocks, polls, or is awaited.
//!
//! # Anatomy
//!
//! A [`Reactor`] is a poll, a slab of one-shot entries, and a timing wheel. A [`Reaper`] says what to reap and
//! how; [`Reactor::spawn_reaper`] checks it, pins its directories by inode, looks, and kills at once. From
//! then on the entry is a state machine that knows no file, clock or socket: it is told what a look at the
//! target found, and answers what to do next and when to look again. What wakes it is the kernel
//! (`cgroup.events` on v2, the pidfd of a member on v1); the timer is a safety net. When every directory is
//! empty or gone, the entry completes its [`ReapHandle`] and is no more.
//!
//! # Limitations
//!
//! - A [`turn`](Reactor::turn) does the kernel's own work: one write to `cgroup.kill` takes it 30 to 60 µs a
//!   process. Where that is too long for a loop, give the reactor a thread of its own.
//! - A look at a v1 group, and at a v2 group that has outlived three kills, reads a file for each group of the
//!   subtree, in one turn; from Linux 6.19 on also the first at a v2 group.
//! - A v1 freezer group outside of the target that holds members of it frozen, and nobody else, is thawed:
//!   SIGKILL would not reach them. One that holds others too is reported, and left alone.
//! - Without pidfds (a seccomp filter) v1 needs the freezer, and v2 `cgroup.kill`.
//! - On v1, Linux 6.19 and later hide a dying process from the lists; of those that were signalled the
//!   library knows when they are dead, of those that die by themselves it does not. On 6.19.14 to 7.0.7
//!   rmdir(2) may then block until they are.
//! - On v1, members outside of the caller's pid namespace are not listed: their group looks empty, though it
//!   can't be removed, and with [`Reaper::keep_dir`] is reported so.
//! - rmdir(2) goes by name. Identity is checked directly before it, and a group with members is never
//!   removed; an empty newcomer of the same name can be lost in the microsecond between.
//! - SIGKILL of the embedding process in mid-freeze leaves the group frozen; reaping it again recovers it.
//! - A reactor is not to be used by a forked child.
//! - A process whose single thread is in a threaded cgroup is killed whole, for threads can't be killed.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod blocking;
mod cgroup;
// The fixtures of the tests know this crate by its name.
#[cfg(test)]
extern crate self as cgroup_reaper;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
pub mod driving;
mod entries;
mod entry_id;
mod handle;
mod machine;
mod metrics;
mod outcome;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod properties;
mod reactor;
mod reaper;
mod remote;
#[cfg(test)]
mod simulation;
mod sys;
mod time;
mod turn;
mod wheel;

pub use blocking::{reap, reap_all};
pub use handle::ReapHandle;
pub use metrics::{Calls, Metrics};
pub use outcome::{Act, Effort, Outcome, ReapError, Reaped, Refusal, SpawnError, Survivor, UsedMethod};
pub use reactor::Reactor;
pub use reaper::{CgroupOptions, KillMethod, ParseError, Reaper, Signal};
pub use remote::Remote;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
