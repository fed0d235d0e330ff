//! The exit statuses.

use nix::sys::signal::Signal;

/// Every target was reaped, or was gone already.
pub const ALL_REAPED: u8 = 0;
/// At least one target was not reaped.
pub const NOT_REAPED: u8 = 1;
/// Wrong usage, or a target that the library refuses to reap.
pub const REFUSED: u8 = 2;

/// A signal ended the program: the status that shells give for it.
pub fn interrupted_by(signal: Signal) -> u8 {
    128 + signal as u8
}
