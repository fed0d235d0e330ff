//! Kills everything in a Linux cgroup, waits until it is truly empty, removes it, and reports how that went: thousands
//! at once, from one thread, in whatever event loop the caller has.
//!
//! ("Reap" here means all of that. What Unix calls reaping, wait(2) for a child, stays with the parent of each process.)
//!
//! Without an event loop, [`reap`] and [`reap_all`] block until the target is reaped:
//!
//! ```no_run
//! use cgroup_reaper::{Outcome, Reaper, reap};
//!
//! let reaped = reap(Reaper::at("/sys/fs/cgroup/batch/task-42"))?;
//! assert_ne!(reaped.outcome, Outcome::Emptied);
//! # Ok::<(), cgroup_reaper::ReapError>(())
//! ```
//!
//! In an event loop, a [`Reactor`] is one descriptor. Watch it for reading, and call [`turn`](Reactor::turn) when it is
//! readable:
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use cgroup_reaper::{Reactor, Reaper, Signal};
//! use nix::errno::Errno;
//! use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reactor = Reactor::new()?;
//! let reaper = Reaper::at("/sys/fs/cgroup/batch/task-42")
//!     .grace(Signal::TERM, Duration::from_secs(5))
//!     .deadline(Duration::from_secs(60))
//!     .tag(42);
//! drop(reactor.spawn_reaper(reaper)?);
//! loop {
//!     // Your loop: it may watch other descriptors beside this one.
//!     match poll(&mut [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
//!         Err(Errno::EINTR) => continue,
//!         result => result?,
//!     };
//!     reactor.turn(Some(Duration::ZERO))?;
//!     for ended in reactor.drain_completed() {
//!         println!("task {}: {:?}", ended.tag, ended.result);
//!     }
//! }
//! # }
//! ```
//!
//! # Guides
//!
//! - [`driving`]: how to drive a reactor from poll(2), epoll, mio, tokio, async-io, calloop, or a thread of its own.
//! - [`starting`]: how to start jobs so that all of a job can be reaped.
//! - [`limitations`]: all limits, in one place.
//!
//! # Requirements
//!
//! - **Kernel**: Linux 5.4 and later; cgroup v1, v2, and both side by side.
//! - **Rights**: root, or write access to the target's interface files and to the directory above it, as a delegated
//!   subtree has. [`Refusal`] and [`ReapError::Denied`] name what is missing.
//! - **Cargo features**, off by default: `tokio`: `TokioReactor`, a reactor that a task drives. `serde`: `Serialize` for
//!   [`Reaped`], [`ReapError`], [`Effort`], [`Survivor`] and [`Metrics`]; all but the last with the keys and words of
//!   `cgreap --json`: times in whole microseconds, as `elapsed_us`. An error has its effort as an object `effort`; cgreap puts
//!   these keys beside `error`. The tool `cgreap` is a package of its own.
//! - **Rust**: 1.85.
//!
//! # Anatomy
//!
//! A [`Reactor`] is a poll, a slab of one-shot entries, and a timing wheel. A [`Reaper`] says what to reap and how.
//! [`Reactor::spawn_reaper`] checks the target, notes its identity, and makes the first attempt to kill. From then on the
//! entry is a state machine without I/O: its input is what a check of the target found, its output is the next action and
//! the time of the next check. The kernel wakes it (`cgroup.events` on v2, the pidfd of a member on v1); timers start
//! the attempts and end the waits, and cover notifications that the kernel delays or loses. When every directory of the
//! target is empty, and removed unless it is kept, the entry completes its [`ReapHandle`] and is dropped.
#![cfg_attr(docsrs, feature(doc_cfg))]

// Only `sys` may have unsafe code. `forbid` keeps the other modules from allowing it.
#[forbid(unsafe_code)]
mod blocking;
#[forbid(unsafe_code)]
mod cgroup;
// The test fixtures refer to this crate by its name.
#[cfg(test)]
extern crate self as cgroup_reaper;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
#[forbid(unsafe_code)]
pub mod driving;
#[forbid(unsafe_code)]
mod entries;
#[forbid(unsafe_code)]
mod entry_id;
#[forbid(unsafe_code)]
mod facility;
#[forbid(unsafe_code)]
mod guard;
#[forbid(unsafe_code)]
mod handle;
#[forbid(unsafe_code)]
mod helper;
#[cfg(test)]
#[path = "../tests/injection/mod.rs"]
mod injection;
#[doc = include_str!("limitations.md")]
pub mod limitations {}
#[forbid(unsafe_code)]
mod machine;
#[forbid(unsafe_code)]
mod metrics;
#[forbid(unsafe_code)]
mod outcome;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../tests/properties/mod.rs"]
pub mod properties;
#[forbid(unsafe_code)]
mod reactor;
#[forbid(unsafe_code)]
mod reaper;
#[forbid(unsafe_code)]
mod remote;
#[cfg(feature = "serde")]
#[forbid(unsafe_code)]
mod serialize;
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
#[forbid(unsafe_code)]
pub mod starting;
mod sys;
#[forbid(unsafe_code)]
mod time;
#[cfg(feature = "tokio")]
#[forbid(unsafe_code)]
mod tokio_reactor;
#[forbid(unsafe_code)]
mod turn;
#[forbid(unsafe_code)]
mod wheel;

pub use blocking::{reap, reap_all};
#[doc(hidden)]
pub use facility::Facility;
pub use guard::ReapGuard;
pub use handle::ReapHandle;
pub use metrics::{Calls, Metrics};
pub use outcome::{
    Act, Completed, Effort, LastError, Outcome, Pending, Phase, ReapError, Reaped, Refusal, SpawnError,
    Survivor, UsedMethod,
};
pub use reactor::Reactor;
pub use reaper::{CgroupOptions, KillMethod, ParseError, Reaper, Signal};
pub use remote::Remote;
#[doc(hidden)]
pub mod held {
    //! For `cgreap run`.
    pub use crate::sys::{Failure, Held, failure, spawn_apart, spawn_in};
}
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use tokio_reactor::TokioReactor;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
