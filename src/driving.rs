//! How to drive a reactor: the contract, each kind of loop, and what happens when the contract is broken.
//!
//! A [`Reactor`] works while one of its methods runs, and at no other time. (It has threads of its own only where
//! [`Reactor::set_helper_thread`] or [`Reaper::release_memory`](crate::Reaper::release_memory) asks for them, for single
//! system calls.) This page says when to call it.
//!
//! # The contract
//!
//! > When the descriptor is readable, call [`turn(Some(Duration::ZERO))`](Reactor::turn). Extra calls are
//! > no-ops. After any `&mut Reactor` method returns, the descriptor's readiness covers all pending work,
//! > timers included.
//!
//! In detail:
//!
//! - *The descriptor* is the one of [`AsFd`](std::os::fd::AsFd) and [`AsRawFd`](std::os::fd::AsRawFd): an epoll
//!   instance, which can be watched like any other descriptor. Watch it for reading, level- or edge-triggered, and
//!   never read from it. It stays the same as long as the reactor lives.
//! - *All pending work* is notifications from the kernel, timers, and the commands of a [`Remote`], and of a
//!   [`cancel`](ReapHandle::cancel) or a [`kill_now`](ReapHandle::kill_now) of a handle and the drop of a
//!   [`ReapGuard`](crate::ReapGuard), on any thread. So the loop needs neither a timeout nor a second source for the
//!   reactor. [`Reactor::next_deadline`] is for loops that plan ahead; every `&mut Reactor` method may change it.
//! - One turn for each wake-up is enough, also if the loop acts on an edge late. A turn works for about 1 ms, or for as long
//!   as [`Reactor::set_turn_budget`] says; work that it defers makes the descriptor readable again, as a new edge.
//! - [`spawn_reaper`](Reactor::spawn_reaper) may be called at any time, also before the descriptor is watched. The
//!   reap may be complete when the call returns: a reap of an empty cgroup is.
//! - An idle reactor does not wake the loop, but for one timer in the 10 ms after its last reap. A reap that waits for
//!   processes which cannot exit wakes it once in [`Reaper::max_wait`].
//!
//! # Which reap has ended
//!
//! Give each reap a [`tag`](Reaper::tag), such as the index or the number of a job, and take the reaps that have ended from
//! [`Reactor::drain_completed`] after each turn. Until the last of them is taken, the descriptor is readable, also after a
//! spawn in which a reap has ended. The caller need not keep or ask any handle:
//!
//! ```
//! use std::collections::HashMap;
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use cgroup_reaper::{Reactor, Reaper};
//! use nix::errno::Errno;
//! use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dirs = doc_cgroups()?;
//! let mut reactor = Reactor::new()?;
//! let mut jobs = HashMap::new();
//! for (number, dir) in (0..).zip(dirs) {
//!     drop(reactor.spawn_reaper(Reaper::at(&dir).tag(number))?);
//!     jobs.insert(number, dir);
//! }
//! while !jobs.is_empty() {
//!     match poll(&mut [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
//!         Err(Errno::EINTR) => continue,
//!         result => result?,
//!     };
//!     reactor.turn(Some(Duration::ZERO))?;
//!     for ended in reactor.drain_completed() {
//!         let dir = jobs.remove(&ended.tag);
//!         println!("{dir:?}: {:?}", ended.result);
//!     }
//! }
//! # Ok(())
//! # }
//! # fn doc_cgroups() -> std::io::Result<Vec<std::path::PathBuf>> {
//! #     let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];
//! #     let dirs = |root: &str| {
//! #         let of = |n| format!("{root}/cgroup-reaper-doc-{n}-{}", std::process::id()).into();
//! #         (0..3).map(of).collect::<Vec<std::path::PathBuf>>()
//! #     };
//! #     let made = |dirs: &Vec<_>| dirs.iter().all(|dir| std::fs::create_dir(dir).is_ok());
//! #     Ok(roots.into_iter().map(dirs).find(made).unwrap_or_default())
//! # }
//! ```
//!
//! | To know of one reap | Call |
//! |---|---|
//! | among many, in the loop | [`Reaper::tag`], [`Reactor::drain_completed`] |
//! | on another thread | [`ReapHandle::wait`] |
//! | in async code | `handle.await` |
//! | on the thread of the reactor, with nothing else to do | [`Reactor::run_until`] |
//! | that does not end | [`Reactor::pending`] |
//!
//! # Which loop, which lines
//!
//! | Loop | Watch | When it is ready | Program |
//! |---|---|---|---|
//! | none | [`reap(reaper)`](crate::reap), [`reap_all(reapers)`](crate::reap_all) | | |
//! | the reactor's own | | [`run`](Reactor::run), [`run_until`](Reactor::run_until), [`run_until_idle`](Reactor::run_until_idle) | |
//! | a thread of its own | `let remote = reactor.remote();` | `thread::spawn(move \|\| reactor.run())` | `examples/thread.rs` |
//! | poll(2) | `PollFd::new(reactor.as_fd(), POLLIN)` | `reactor.turn(ZERO)?` | below |
//! | epoll(7) | `epoll.add(&reactor, EPOLLIN)` | `reactor.turn(ZERO)?` | `examples/epoll.rs` |
//! | mio | `SourceFd(&reactor.as_raw_fd())` | `reactor.turn(ZERO)?` | `examples/mio_poll.rs` |
//! | tokio, with the feature `tokio` | `TokioReactor::new()` | | `examples/tokio_loop.rs` |
//! | async-io, smol | `Async::new(duplicate)` | `reactor.turn(ZERO)?` | `examples/async_io_loop.rs` |
//! | calloop | `Generic::new(duplicate, READ, Level)` | `data.reactor.turn(ZERO)?` | `examples/calloop_loop.rs` |
//! | epoll, libuv, GLib, sd-event, libev, in C | `cgr_reactor_fd(reactor)` | `cgr_reactor_turn(reactor, 0)` | `capi/examples/*.c` |
//! | any, in C++ | `reactor.fd()` | `reactor.turn()` | `capi/examples/cpp.cc` |
//! | asyncio, in Python | `await reap(path)` | | `capi/examples/asyncio_loop.py` |
//!
//! The last three are for programs in other languages: the package `cgroup-reaper-capi` is the library as a C ABI.
//!
//! `ZERO` is `Some(Duration::ZERO)`. A `duplicate` is `reactor.as_fd().try_clone_to_owned()?`. It is for loops that give
//! only shared access to the watched object, while a turn needs `&mut Reactor`. It is readable when the original is;
//! drop it when the reactor is dropped.
//!
//! The programs are complete, run in the tests on real cgroups, and meant to be copied. `examples/job_runner.rs` is a
//! larger one, where signals, children and the reactor share a loop.
//!
//! ## A thread of its own
//!
//! For programs without a loop, and for loops that must not be delayed: in a large target one system call can take longer
//! than the turn budget, see [`limitations`](crate::limitations#calls-that-cannot-be-cut).
//!
//! ```no_run
//! use std::thread;
//! use cgroup_reaper::{Reactor, Reaper};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reactor = Reactor::new()?;
//! let remote = reactor.remote();
//! let thread = thread::spawn(move || reactor.run());
//!
//! // On any thread, with a clone of `remote`:
//! let handle = remote.spawn_reaper(Reaper::at("/sys/fs/cgroup/batch/task-42"))?;
//! println!("{:?}", handle.wait()?);
//!
//! // A remote does not keep the reactor running, and dropping it does not stop it.
//! remote.stop();
//! thread.join().unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! ## poll(2)
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use cgroup_reaper::{Reactor, Reaper};
//! use nix::errno::Errno;
//! use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reactor = Reactor::new()?;
//! drop(reactor.spawn_reaper(Reaper::at("/sys/fs/cgroup/batch/task-42").tag(42))?);
//! loop {
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
//! ## mio
//!
//! ```no_run
//! use std::os::fd::AsRawFd;
//! use std::time::Duration;
//! use cgroup_reaper::Reactor;
//! use mio::unix::SourceFd;
//! use mio::{Events, Interest, Poll, Token};
//!
//! # fn main() -> std::io::Result<()> {
//! const REAPER: Token = Token(0);
//!
//! let mut reactor = Reactor::new()?;
//! let mut poll = Poll::new()?;
//! poll.registry().register(&mut SourceFd(&reactor.as_raw_fd()), REAPER, Interest::READABLE)?;
//! let mut events = Events::with_capacity(64);
//! loop {
//!     match poll.poll(&mut events, None) {
//!         Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
//!         result => result?,
//!     }
//!     for event in &events {
//!         if event.token() == REAPER {
//!             reactor.turn(Some(Duration::ZERO))?;
//!             for ended in reactor.drain_completed() {
//!                 println!("task {}: {:?}", ended.tag, ended.result);
//!             }
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! ## tokio
//!
//! With the feature `tokio`, a task of the runtime drives the reactor, and any task spawns reaps and awaits their handles:
//!
//! ```no_run
//! # #[cfg(feature = "tokio")]
//! async fn stop_tasks(numbers: Vec<u32>) -> Result<(), Box<dyn std::error::Error>> {
//!     use cgroup_reaper::{Reaper, TokioReactor};
//!
//!     let reactor = TokioReactor::new()?;
//!     let mut handles = Vec::new();
//!     for number in numbers {
//!         let dir = format!("/sys/fs/cgroup/batch/task-{number}");
//!         handles.push(reactor.spawn_reaper(Reaper::at(dir))?);
//!     }
//!     for handle in handles {
//!         println!("{:?}", handle.await);
//!     }
//!     reactor.shutdown().await?;
//!     Ok(())
//! }
//! ```
//!
//! One reactor serves the whole program. `TokioReactor::remote` gives a [`Remote`] to each part that spawns.
//!
//! ## async-io and smol
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use async_io::Async;
//! use cgroup_reaper::Reactor;
//!
//! async fn drive(mut reactor: Reactor) -> std::io::Result<()> {
//!     let readiness = Async::new(reactor.as_fd().try_clone_to_owned()?)?;
//!     loop {
//!         readiness.readable().await?;
//!         reactor.turn(Some(Duration::ZERO))?;
//!     }
//! }
//! ```
//!
//! ## calloop
//!
//! ```no_run
//! use std::os::fd::AsFd;
//! use std::time::Duration;
//! use calloop::generic::Generic;
//! use calloop::{EventLoop, Interest, Mode, PostAction};
//! use cgroup_reaper::Reactor;
//!
//! struct App {
//!     reactor: Reactor,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut app = App { reactor: Reactor::new()? };
//! let mut event_loop: EventLoop<'_, App> = EventLoop::try_new()?;
//! let readiness = app.reactor.as_fd().try_clone_to_owned()?;
//! let source = Generic::new(readiness, Interest::READ, Mode::Level);
//! event_loop.handle().insert_source(source, |_readiness, _fd, app| {
//!     app.reactor.turn(Some(Duration::ZERO))?;
//!     Ok(PostAction::Continue)
//! })?;
//! event_loop.run(None, &mut app, |_app| {})?;
//! # Ok(())
//! # }
//! ```
//!
//! # Waiting before the first signal
//!
//! | The members | Call |
//! |---|---|
//! | are sent SIGKILL at once | |
//! | are asked first, with a signal and some time to act on it | [`Reaper::grace`] |
//! | are left alone for some time, and asked or killed then | [`Reaper::linger`] |
//! | are left alone | [`Reaper::when_empty`] |
//! | are to be killed now after all, for instance at a second Ctrl-C | [`ReapHandle::kill_now`] |
//!
//! The linger comes first, then the grace period, then SIGKILL. Each begins at the end of the one before.
//! [`Reaper::deadline`] counts from the spawn, and cuts all of them short.
//!
//! **A target that has no members yet is empty too.** A reap that waits until the target is empty removes it at once, and
//! a job that is to join the target fails. So spawn the reap after the first member has joined.
//! [`starting`](crate::starting) has the ways to start a job in a cgroup; here the shell writes a line when it has
//! joined.
//!
//! ```no_run
//! use std::fs;
//! use std::process::Command;
//! use std::time::Duration;
//! use cgroup_reaper::{Reactor, Reaper, Signal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = "/sys/fs/cgroup/batch/task-42";
//! fs::create_dir(dir)?;
//! // The shell joins the cgroup, and then becomes the job.
//! let join = format!("echo $$ > {dir}/cgroup.procs && echo joined && exec make test");
//! let mut job = Command::new("sh").args(["-c", &join]).stdout(std::process::Stdio::piped()).spawn()?;
//! std::io::Read::read_exact(job.stdout.as_mut().expect("piped"), &mut [0; 7])?;
//!
//! let mut reactor = Reactor::new()?;
//! let reaper = Reaper::at(dir)
//!     .linger(Duration::from_secs(3600))
//!     .grace(Signal::TERM, Duration::from_secs(10));
//! let handle = reactor.spawn_reaper(reaper)?;
//! // At a second Ctrl-C, on any thread: handle.kill_now();
//! let reaped = reactor.run_until(&handle)??;
//! println!("{} in {:?}", reaped.outcome, reaped.elapsed);
//! # Ok(())
//! # }
//! ```
//!
//! # When the contract is broken
//!
//! | What you do | What happens |
//! |---|---|
//! | Do not call `turn` when the descriptor is readable | The first attempt to kill was made in the spawn, and nothing follows: no removal, no completion, no second attempt, no [`Reaper::deadline`]. A target under [`KillMethod::Freezer`](crate::KillMethod::Freezer) may stay frozen until the next turn, or until the reactor is dropped. |
//! | The same, level-triggered | The loop spins: the descriptor stays readable. |
//! | Watch the descriptor for writing | The loop is never woken: the descriptor only becomes readable. |
//! | Use only `next_deadline`, and do not watch the descriptor | Notifications and commands are handled at the next timer, or never: an idle reactor has no timer. |
//! | Keep an old answer of `next_deadline` | The turn comes too late, or for nothing: any `&mut Reactor` method may change the answer. |
//! | Call `turn(None)` inside of another loop | That loop stands still until the reactor has something to do. |
//! | Call [`ReapHandle::wait`] on the thread that drives the reactor | A deadlock: the reactor works only while one of its methods runs. Use [`Reactor::run_until`]; in async code, `.await`, with the reactor driven by another task. |
//! | Drop the reactor, without [`Reactor::shutdown`] | Reaps under way complete as [`ReapError::Disconnected`](crate::ReapError::Disconnected). Processes that were killed stay killed, nothing stays frozen, and directories may be left. Later spawns by a remote fail and hand the [`Reaper`] back. |
//! | Drop a handle | Nothing: the reap is detached and goes on. |
//! | Catch the panic of a waker that was given to a handle, or of a logger | Nothing is lost: the panic leaves the turn or the spawn, and the next turn goes on with what is left. With a `TokioReactor`, a panic ends the task: all reaps complete as `Disconnected`. |
//! | Tag reaps, and do not call [`drain_completed`](Reactor::drain_completed) | The descriptor stays readable, so the loop spins, and the results take memory. |
//!
//! These do not break the contract: extra turns; turns from a timer of your own; turns that come late (a late turn
//! delays its reaps by the same time, and if that is longer than the wait before the next attempt, this wait can become
//! four times the delay, at most `max_wait`); spawning inside the callback that calls `turn`; moving the reactor to another
//! thread between turns.

#[allow(unused_imports, reason = "for links")]
use crate::{Reactor, ReapHandle, Reaper, Remote};
