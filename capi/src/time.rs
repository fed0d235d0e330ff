//! Times: in C they are microseconds in 64 bits, and the largest of them is for ever.

use std::time::Duration;

/// A time without end, or no limit.
pub const CGR_FOREVER: u64 = u64::MAX;

/// A time of C's.
pub(crate) fn duration(us: u64) -> Duration {
    if us == CGR_FOREVER { Duration::MAX } else { Duration::from_micros(us) }
}

/// The same for a wait, where for ever is no time at all.
pub(crate) fn wait(us: u64) -> Option<Duration> {
    (us != CGR_FOREVER).then(|| Duration::from_micros(us))
}

/// A time for C.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(CGR_FOREVER)
}

/// A time that something is due after: no sooner than that, or a loop that sleeps so long wakes too early, again and again.
pub(crate) fn micros_at_least(time: Duration) -> u64 {
    micros(time).saturating_add(u64::from(time.subsec_nanos() % 1000 > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_microseconds() {
        assert_eq!((duration(3), wait(3)), (Duration::from_micros(3), Some(Duration::from_micros(3))));
        assert_eq!((duration(CGR_FOREVER), wait(CGR_FOREVER)), (Duration::MAX, None));
        assert_eq!(micros(Duration::MAX), CGR_FOREVER);
        assert_eq!(micros_at_least(Duration::MAX), CGR_FOREVER);
        assert_eq!(micros_at_least(Duration::ZERO), 0);
        assert_eq!(micros_at_least(Duration::from_nanos(1)), 1);
        assert_eq!(micros_at_least(Duration::from_micros(5)), 5);
    }
}
