//! [`Time`]: a point in time, or a span of it, in eight bytes.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// Nanoseconds: of a span, or since an arbitrary start that is the same for every call. They end at 584 years,
/// which stands for never.
///
/// A `Duration` takes twice the room, and each of thousands of entries has a dozen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(
    /// One more, so that an `Option` of it takes no more room.
    NonZeroU64,
);

impl Time {
    const fn from_nanos(nanos: u64) -> Time {
        Time(NonZeroU64::MIN.saturating_add(nanos))
    }

    pub(crate) const fn from_millis(millis: u64) -> Time {
        Time::from_nanos(millis.saturating_mul(1_000_000))
    }

    fn nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole milliseconds, and another if there is more.
    pub(crate) fn millis_rounded_up(self) -> u64 {
        self.nanos().div_ceil(1_000_000)
    }

    pub(crate) fn saturating_add(self, span: Time) -> Time {
        Time::from_nanos(self.nanos().saturating_add(span.nanos()))
    }

    pub(crate) fn saturating_sub(self, other: Time) -> Time {
        Time::from_nanos(self.nanos().saturating_sub(other.nanos()))
    }

    pub(crate) fn saturating_mul(self, factor: u64) -> Time {
        Time::from_nanos(self.nanos().saturating_mul(factor))
    }
}

impl From<Duration> for Time {
    fn from(duration: Duration) -> Time {
        Time::from_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Duration {
        Duration::from_nanos(time.nanos())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Time = Time::from_nanos(0);

    #[test]
    fn it_is_as_good_as_a_duration() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001, u64::MAX - 1] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(Duration::from(Time::from(duration)), duration);
            assert_eq!(format!("{:?}", Time::from(duration)), format!("{duration:?}"));
        }
        assert_eq!(Time::from_millis(7), Time::from(Duration::from_millis(7)));
        let (one, two) = (Time::from_nanos(1), Time::from_nanos(2));
        assert!(ZERO < one && one < two);
        assert_eq!(one.saturating_add(one), two);
        assert_eq!(two.saturating_sub(one), one);
        assert_eq!(one.saturating_sub(two), ZERO);
        assert_eq!(one.saturating_mul(2), two);
    }

    #[test]
    fn it_rounds_up_to_milliseconds() {
        let rounded = [0, 1, 999_999, 1_000_000, 1_000_001].map(|n| Time::from_nanos(n).millis_rounded_up());
        assert_eq!(rounded, [0, 1, 1, 1, 2]);
    }

    #[test]
    fn it_ends_instead_of_wrapping() {
        let never = Time::from(Duration::MAX);
        assert_eq!(never, Time::from_millis(u64::MAX));
        assert_eq!(never.saturating_add(never), never);
        assert_eq!(never.saturating_mul(4), never);
        assert!(never > Time::from(Duration::from_secs(500 * 365 * 24 * 60 * 60)));
    }

    #[test]
    fn an_option_of_it_is_no_larger() {
        assert_eq!(size_of::<Option<Time>>(), 8);
    }
}
