//! The signals that ask the program to end, SIGINT, SIGTERM and SIGHUP, and the wait that they end.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Remembers which signal asked the program to end. It needs no thread: there may be no pid left for one.
#[derive(Debug)]
pub struct Interrupt {
    pending: SignalFd,
    /// The signals that were blocked before.
    original: SigSet,
    first: Cell<Option<Signal>>,
    /// The number of SIGINTs.
    typed: Cell<u32>,
    /// Whether another signal than SIGINT has arrived.
    sent: Cell<bool>,
}

/// What a person who types Ctrl-C asks for. Another signal asks for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    None,
    /// To begin nothing more, and to end what waits for nothing.
    Patient,
    /// To end the grace now.
    Kill,
    /// To end everything.
    Cancel,
}

/// What to wait for, besides a signal.
#[derive(Debug, Default)]
pub struct Wait<'a> {
    pub descriptors: Vec<PollFd<'a>>,
    /// How long at most; `None` is without limit.
    pub at_most: Option<Duration>,
}

impl Interrupt {
    /// Blocks the signals, and watches for them. Child processes inherit that they are blocked, see [`unblock_all`].
    ///
    /// A signal that was ignored when the program was started stays ignored, as nohup(1) and `trap '' INT` expect. (Once it
    /// is blocked, it would arrive.)
    pub fn watch() -> io::Result<Interrupt> {
        let ignored = Ignored::of_this_process();
        let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        let watched: SigSet = ending.into_iter().filter(|&signal| !ignored.contains(signal)).collect();
        let original = watched.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let pending = SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Interrupt {
            pending,
            original,
            first: Cell::default(),
            typed: Cell::default(),
            sent: Cell::default(),
        })
    }

    /// The signal that arrived first, if any has. Those after it make it more [urgent](Interrupt::urgency).
    pub fn signal(&self) -> Option<Signal> {
        while let Ok(Some(info)) = self.pending.read_signal() {
            let signal = Signal::try_from(info.ssi_signo as i32).ok();
            self.first.set(self.first.get().or(signal));
            match signal {
                Some(Signal::SIGINT) => self.typed.set(self.typed.get().saturating_add(1)),
                _ => self.sent.set(true),
            }
        }
        self.first.get()
    }

    /// Unblocks the signals, once nothing is to be undone any more: from here on, one of them ends the program, also during a
    /// write that blocks. Returns the signal that arrived first before.
    pub fn restore(&self) -> Option<Signal> {
        let first = self.signal();
        // If it fails they stay blocked.
        let _ = self.original.thread_set_mask();
        first
    }

    /// What the signals ask for that [`Interrupt::signal`] has seen.
    pub fn urgency(&self) -> Urgency {
        match (self.sent.get(), self.typed.get()) {
            (false, 0) => Urgency::None,
            (false, 1) => Urgency::Patient,
            (false, 2) => Urgency::Kill,
            _ => Urgency::Cancel,
        }
    }

    /// Waits until a signal arrives or one of the descriptors is ready, or for the time given. Returns whether a
    /// descriptor is ready.
    pub fn wait<'a>(&'a self, mut wait: Wait<'a>) -> io::Result<bool> {
        wait.descriptors.push(PollFd::new(self.pending.as_fd(), PollFlags::POLLIN));
        match poll(&mut wait.descriptors, wait.at_most.map(poll_timeout)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        wait.descriptors.pop();
        Ok(wait.descriptors.iter().any(|descriptor| descriptor.any() != Some(false)))
    }
}

/// Rounded up, so that what is waited for is due then.
pub fn poll_timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.saturating_add(Duration::from_micros(999))).unwrap_or(PollTimeout::MAX)
}

/// For a child process of a program that watches: unblocks all signals, which would stay pending for ever.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// The signals that a process ignores.
#[derive(Debug, Clone, Copy)]
pub struct Ignored(u64);

impl Ignored {
    /// None where /proc does not tell.
    pub fn of_this_process() -> Ignored {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Ignored(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    pub fn contains(self, signal: Signal) -> bool {
        self.0 >> (signal as i32 - 1) & 1 == 1
    }
}

/// The signal in words.
pub fn describe(signal: Signal) -> String {
    format!("interrupted by {signal}")
}
