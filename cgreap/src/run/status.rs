//! The exit statuses of `cgreap run` that are not the command's: those of env(1) and timeout(1).

/// `--timeout` has ended the command.
pub const TIMED_OUT: u8 = 124;
/// cgreap has failed, or a process is left.
pub const FAILED: u8 = 125;
/// The command was found and cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;

/// For a signal that ended something.
pub fn of_signal(signal: i32) -> u8 {
    // Signals are below 65.
    128_u8.saturating_add(signal as u8)
}
