//! The loops that a reactor is embedded in.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{Reactor, Reaper};

use crate::common::*;

pub const ZERO: Option<Duration> = Some(Duration::ZERO);
pub const MS: Duration = Duration::from_millis(1);

/// The hierarchies a test can use, each told by the kernel in another way: v2 by `cgroup.events`, v1 by
/// pidfds and timers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hierarchy {
    V2,
    V1,
}

impl Hierarchy {
    pub fn all() -> Vec<Hierarchy> {
        let v2 = v2().is_ok().then_some(Hierarchy::V2);
        let v1 = v1("freezer").is_ok().then_some(Hierarchy::V1);
        v2.into_iter().chain(v1).collect()
    }

    pub fn group(self, sandbox: &Sandbox, name: &str) -> PathBuf {
        match self {
            Hierarchy::V2 => sandbox.v2(name),
            Hierarchy::V1 => sandbox.v1("freezer", name),
        }
    }

    pub fn missing(self, sandbox: &Sandbox, name: &str) -> PathBuf {
        match self {
            Hierarchy::V2 => sandbox.v2_dir().join(name),
            Hierarchy::V1 => sandbox.v1_dir("freezer").join(name),
        }
    }

    /// Whether the group itself, not one above it, is to be frozen.
    pub fn frozen(self, dir: &Path) -> bool {
        let file = match self {
            Hierarchy::V2 => "cgroup.freeze",
            Hierarchy::V1 => "freezer.self_freezing",
        };
        std::fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == "1")
    }
}

/// Some writable hierarchy.
pub fn cgroups() -> Result<(), String> {
    v2().or_else(|_| v1("freezer"))
}

/// A reap that tries once, so that no retry makes up for a wake-up that got lost.
pub fn patient(dir: &Path) -> Reaper {
    slow(Reaper::at(dir))
}

/// The result of a thread. One that does not end fails the test, but does not hold it up.
#[track_caller]
pub fn join<T>(thread: thread::JoinHandle<T>) -> T {
    assert!(wait_until(LIMIT, || thread.is_finished()), "not within {LIMIT:?}");
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs what would not return if it went wrong: on a thread of its own, so that the test fails then.
#[track_caller]
pub fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    join(thread::spawn(work))
}

/// A loop that a reactor is embedded in.
pub trait Outer {
    /// Waits until the loop says that the reactor is ready, and calls `turn`: the completions. `None` if it
    /// did not say so in time.
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>>;
}

pub type Make = fn(&Reactor) -> Box<dyn Outer>;

pub fn duplicate(reactor: &Reactor) -> OwnedFd {
    reactor.as_fd().try_clone_to_owned().expect("dup")
}

/// The reactor's own loop.
struct Own;

impl Outer for Own {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        let before = reactor.metrics().wakeups;
        let completed = reactor.turn(Some(timeout))?;
        Ok((reactor.metrics().wakeups > before).then_some(completed))
    }
}

pub fn own(_reactor: &Reactor) -> Box<dyn Outer> {
    Box::new(Own)
}

/// poll(2).
struct PollLoop;

impl Outer for PollLoop {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let timeout = PollTimeout::try_from(timeout).expect("short");
        if poll(&mut [PollFd::new(reactor.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Ok(None);
        }
        reactor.turn(ZERO).map(Some)
    }
}

pub fn poll_loop(_reactor: &Reactor) -> Box<dyn Outer> {
    Box::new(PollLoop)
}

/// An epoll that has the reactor's nested in it.
struct EpollLoop {
    epoll: nix::sys::epoll::Epoll,
    /// How long an event lies about before it is acted on. Those that come meanwhile are swallowed, so that
    /// one turn has to do for all of them.
    late: Option<Duration>,
}

impl EpollLoop {
    fn new(reactor: &Reactor, flags: nix::sys::epoll::EpollFlags, late: Option<Duration>) -> EpollLoop {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        epoll.add(reactor, EpollEvent::new(EpollFlags::EPOLLIN | flags, 7)).expect("epoll_ctl");
        EpollLoop { epoll, late }
    }

    fn ready(&self, timeout: Duration) -> io::Result<bool> {
        use nix::sys::epoll::{EpollEvent, EpollTimeout};
        let mut events = [EpollEvent::empty(); 4];
        let timeout = EpollTimeout::try_from(timeout).expect("short");
        Ok(self.epoll.wait(&mut events, timeout)? > 0)
    }
}

impl Outer for EpollLoop {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        if !self.ready(timeout)? {
            return Ok(None);
        }
        if let Some(late) = self.late {
            thread::sleep(late);
            self.ready(Duration::ZERO)?;
        }
        reactor.turn(ZERO).map(Some)
    }
}

pub fn epoll_level(reactor: &Reactor) -> Box<dyn Outer> {
    Box::new(EpollLoop::new(reactor, nix::sys::epoll::EpollFlags::empty(), None))
}

pub fn epoll_edge(reactor: &Reactor) -> Box<dyn Outer> {
    Box::new(EpollLoop::new(reactor, nix::sys::epoll::EpollFlags::EPOLLET, None))
}

pub fn epoll_edge_late(reactor: &Reactor) -> Box<dyn Outer> {
    Box::new(EpollLoop::new(reactor, nix::sys::epoll::EpollFlags::EPOLLET, Some(3 * MS)))
}

/// A `mio::Poll`.
struct MioLoop(mio::Poll, mio::Events);

impl Outer for MioLoop {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        self.0.poll(&mut self.1, Some(timeout))?;
        if self.1.is_empty() { Ok(None) } else { reactor.turn(ZERO).map(Some) }
    }
}

pub fn mio_source_fd(reactor: &Reactor) -> Box<dyn Outer> {
    let poll = mio::Poll::new().expect("epoll");
    let fd = reactor.as_raw_fd();
    poll.registry()
        .register(&mut mio::unix::SourceFd(&fd), mio::Token(7), mio::Interest::READABLE)
        .expect("epoll_ctl");
    Box::new(MioLoop(poll, mio::Events::with_capacity(4)))
}

/// A tokio runtime.
struct TokioLoop {
    // Before the runtime, which it is registered with.
    fd: tokio::io::unix::AsyncFd<OwnedFd>,
    runtime: tokio::runtime::Runtime,
}

impl Outer for TokioLoop {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        self.runtime.block_on(async {
            let Ok(ready) = tokio::time::timeout(timeout, self.fd.readable()).await else {
                return Ok(None);
            };
            let mut ready = ready?;
            let completed = reactor.turn(ZERO)?;
            ready.clear_ready();
            Ok(Some(completed))
        })
    }
}

pub fn tokio_async_fd(reactor: &Reactor) -> Box<dyn Outer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let fd = {
        let _within = runtime.enter();
        // Newer versions have an unsafe function for what does not keep its descriptor.
        #[allow(deprecated)]
        tokio::io::unix::AsyncFd::with_interest(duplicate(reactor), tokio::io::Interest::READABLE)
            .expect("epoll_ctl")
    };
    Box::new(TokioLoop { fd, runtime })
}

/// async-io, the reactor of smol.
struct AsyncIoLoop(async_io::Async<OwnedFd>);

impl Outer for AsyncIoLoop {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        async_io::block_on(async {
            let mut readable = pin!(self.0.readable());
            let mut timer = async_io::Timer::after(timeout);
            let ready = poll_fn(|context| match readable.as_mut().poll(context) {
                Poll::Ready(ready) => Poll::Ready(Some(ready)),
                Poll::Pending => Pin::new(&mut timer).poll(context).map(|_| None),
            });
            match ready.await {
                None => Ok(None),
                Some(ready) => ready.and_then(|()| reactor.turn(ZERO)).map(Some),
            }
        })
    }
}

pub fn async_io(reactor: &Reactor) -> Box<dyn Outer> {
    Box::new(AsyncIoLoop(async_io::Async::new(duplicate(reactor)).expect("epoll_ctl")))
}

/// A calloop event loop, whose data is whether the source was ready.
struct CalloopLoop(calloop::EventLoop<'static, bool>);

impl Outer for CalloopLoop {
    fn step(&mut self, reactor: &mut Reactor, timeout: Duration) -> io::Result<Option<usize>> {
        let mut ready = false;
        self.0.dispatch(timeout, &mut ready).map_err(io::Error::other)?;
        if ready { reactor.turn(ZERO).map(Some) } else { Ok(None) }
    }
}

pub fn calloop(reactor: &Reactor) -> Box<dyn Outer> {
    use calloop::generic::Generic;
    let event_loop = calloop::EventLoop::try_new().expect("epoll");
    let source = Generic::new(duplicate(reactor), calloop::Interest::READ, calloop::Mode::Level);
    event_loop
        .handle()
        .insert_source(source, |_, _, ready: &mut bool| {
            *ready = true;
            Ok(calloop::PostAction::Continue)
        })
        .map_err(|error| error.error)
        .expect("epoll_ctl");
    Box::new(CalloopLoop(event_loop))
}

/// A loop under test, with its turns counted.
pub struct Driver {
    pub outer: Box<dyn Outer>,
    pub turns: usize,
    began: Instant,
}

impl Driver {
    pub fn new(make: Make, reactor: &Reactor) -> Driver {
        Driver { outer: make(reactor), turns: 0, began: Instant::now() }
    }

    /// One step of the outer loop, whose own wait may be interrupted, by a suspend of the machine for instance.
    pub fn patient(&mut self, reactor: &mut Reactor, timeout: Duration) -> Option<usize> {
        loop {
            match self.outer.step(reactor, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.assert_in_time(reactor),
                step => return step.expect("a turn"),
            }
        }
    }

    /// A wake-up that has to come, if the test still goes on.
    pub fn step(&mut self, reactor: &mut Reactor) -> usize {
        self.assert_in_time(reactor);
        let step = self.patient(reactor, TIMEOUT);
        self.turns += 1;
        step.unwrap_or_else(|| panic!("a wake-up got lost: {reactor:?}"))
    }

    /// Steps until the reactor has nothing left, and lets the loop forget what was on its way.
    pub fn finish(&mut self, reactor: &mut Reactor, completed: u64) {
        while reactor.metrics().completed < completed {
            self.step(reactor);
        }
        self.settle(reactor);
    }

    /// Lets the loop forget what was on its way.
    pub fn settle(&mut self, reactor: &mut Reactor) {
        while self.patient(reactor, 20 * MS).is_some() {
            self.assert_in_time(reactor);
            self.turns += 1;
        }
    }

    pub fn assert_in_time(&self, reactor: &Reactor) {
        assert!(self.began.elapsed() < 3 * TIMEOUT, "it does not end: {reactor:?}");
    }

    pub fn assert_idle(&mut self, reactor: &mut Reactor) {
        let step = self.patient(reactor, Duration::from_secs(1));
        assert_eq!(step, None, "woken up for nothing: {reactor:?}");
    }
}

pub const LOOPS: [Make; 9] = [
    own,
    poll_loop,
    epoll_level,
    epoll_edge,
    epoll_edge_late,
    mio_source_fd,
    tokio_async_fd,
    async_io,
    calloop,
];
