//! [`Instant`] and [`Span`]: a point in time, and a length of it, in eight bytes each.
//!
//! A `Duration` takes twice the memory, and each of thousands of entries has a dozen of these values.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// A number of nanoseconds. The greatest value, 584 years, means never.
///
/// Stored plus one, so that zero is free and `Option<Nanos>` has the same size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Nanos(NonZeroU64);

impl Nanos {
    const fn new(nanos: u64) -> Nanos {
        Nanos(NonZeroU64::MIN.saturating_add(nanos))
    }

    const fn get(self) -> u64 {
        self.0.get() - 1
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Nanos {
        Nanos::new(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A length of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(Nanos);

impl Span {
    #[cfg(test)]
    pub(crate) const ZERO: Span = Span::from_millis(0);

    pub(crate) const fn from_millis(millis: u64) -> Span {
        Span(Nanos::new(millis.saturating_mul(1_000_000)))
    }

    pub(crate) fn saturating_mul(self, factor: u64) -> Span {
        Span(Nanos::new(self.0.get().saturating_mul(factor)))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(duration.into())
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        Duration::from_nanos(span.0.get())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from(*self).fmt(f)
    }
}

/// A point in time, as the time since an arbitrary start, which is the same for every call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Nanos);

impl Instant {
    /// The instant that is `since` after the start.
    pub(crate) fn after_start(since: Duration) -> Instant {
        Instant(since.into())
    }

    /// The time from the start to this instant.
    pub(crate) fn since_start(self) -> Duration {
        Duration::from_nanos(self.0.get())
    }

    /// Milliseconds since the start, rounded up.
    pub(crate) fn millis_rounded_up(self) -> u64 {
        self.0.get().div_ceil(1_000_000)
    }

    pub(crate) fn saturating_add(self, span: Span) -> Instant {
        Instant(Nanos::new(self.0.get().saturating_add(span.0.get())))
    }

    /// The time from `earlier` to this instant; zero if this instant is before it.
    pub(crate) fn saturating_since(self, earlier: Instant) -> Span {
        Span(Nanos::new(self.0.get().saturating_sub(earlier.0.get())))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.since_start().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    #[test]
    fn they_hold_what_a_duration_holds() {
        for duration in [0, 1, 999_999, 1_000_000, 1_000_001, u64::MAX - 1].map(nanos) {
            assert_eq!(Duration::from(Span::from(duration)), duration);
            assert_eq!(Instant::after_start(duration).since_start(), duration);
            assert_eq!(format!("{:?}", Span::from(duration)), format!("{duration:?}"));
            assert_eq!(format!("{:?}", Instant::after_start(duration)), format!("{duration:?}"));
        }
        assert_eq!(Span::from_millis(7), Span::from(Duration::from_millis(7)));
        let (one, two) = (Instant::after_start(nanos(1)), Instant::after_start(nanos(2)));
        assert!(one < two);
        assert_eq!(one.saturating_add(nanos(1).into()), two);
        assert_eq!(two.saturating_since(one), nanos(1).into());
        assert_eq!(one.saturating_since(two), Span::ZERO);
        assert_eq!(Span::from(nanos(1)).saturating_mul(2), nanos(2).into());
    }

    #[test]
    fn milliseconds_are_rounded_up() {
        let rounded =
            [0, 1, 999_999, 1_000_000, 1_000_001].map(|n| Instant::after_start(nanos(n)).millis_rounded_up());
        assert_eq!(rounded, [0, 1, 1, 1, 2]);
    }

    #[test]
    fn they_end_instead_of_wrapping() {
        let (ever, never) = (Span::from(Duration::MAX), Instant::after_start(Duration::MAX));
        assert_eq!(ever, Span::from_millis(u64::MAX));
        assert_eq!(never.saturating_add(ever), never);
        assert_eq!(ever.saturating_mul(4), ever);
        assert!(ever > Span::from(Duration::from_secs(500 * 365 * 24 * 60 * 60)));
    }

    #[test]
    fn an_option_takes_no_more_room() {
        assert_eq!((size_of::<Option<Span>>(), size_of::<Option<Instant>>()), (8, 8));
    }
}
