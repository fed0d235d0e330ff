//! [`Alarm`]: the timer in a reactor's poll, which makes the reactor's descriptor readable when work is due.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{LONGEST, TIMER};

/// A timer that is not needed any more is not disarmed if it fires within this time. This saves a system call at
/// completion. A timer that was set to fire at once is disarmed, because it has fired already.
const SOON: Duration = Duration::from_millis(10);

pub(super) struct Alarm {
    timer: TimerFd,
    /// The tick that the timer is set to.
    armed: Option<u64>,
}

impl Alarm {
    pub(super) fn new(registry: &Registry) -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let raw = timer.as_fd().as_raw_fd();
        // mio registers it edge-triggered, and it is set anew after each expiry, so it need not be read.
        registry.register(&mut SourceFd(&raw), TIMER, Interest::READABLE)?;
        Ok(Alarm { timer, armed: None })
    }

    /// Makes the next [`Alarm::set`] set the timer in any case: it has fired, or a new edge is needed.
    pub(super) fn forget(&mut self) {
        self.armed = None;
    }

    /// Sets the timer to fire at the tick `next`; 0 means at once, `None` never. `until` returns the time until a tick.
    /// Returns whether a system call was made.
    pub(super) fn set(&mut self, next: Option<u64>, until: impl Fn(u64) -> Duration) -> bool {
        let result = match (next, self.armed) {
            (None, None) => return false,
            (None, Some(armed)) if armed > 0 && until(armed) <= SOON => return false,
            (None, Some(_)) => self.timer.unset(),
            (Some(next), Some(armed)) if armed == next => return false,
            // A timer that is set too early may stay: the turn it causes finds nothing due and sets it again. A timer
            // that has expired already is set again now.
            (Some(next), Some(armed)) if armed < next && !until(armed).is_zero() => return false,
            (Some(next), _) => {
                // 1 ns is the shortest: zero would turn it off.
                let left = until(next).clamp(Duration::from_nanos(1), LONGEST);
                let expiration = Expiration::OneShot(TimeSpec::from(left));
                self.timer.set(expiration, TimerSetTimeFlags::empty())
            }
        };
        match result {
            Ok(()) => self.armed = next,
            // Only a bad descriptor or value makes this call fail. The next `set` tries it again.
            Err(errno) => log::error!("cannot set the timer: {errno}"),
        }
        true
    }
}
