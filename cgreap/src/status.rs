//! The exit statuses.

/// Every target was reaped, or was gone already.
pub const ALL_REAPED: u8 = 0;
/// At least one target was not reaped.
pub const NOT_REAPED: u8 = 1;
/// Wrong usage, or a target that the library refuses to reap.
pub const REFUSED: u8 = 2;

/// `cgreap run` has failed, or a process is left; also wrong usage of it, as with env(1) and timeout(1).
pub const RUN_FAILED: u8 = 125;

/// The status that shells give for what a signal has ended.
pub fn of_signal(signal: i32) -> u8 {
    // Signals are below 65.
    128_u8.saturating_add(signal as u8)
}
