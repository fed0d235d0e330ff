//! The exit statuses of `cgreap run` that are not the command's: those of env(1) and timeout(1).

/// `--timeout` has ended the command.
pub const TIMED_OUT: u8 = 124;
pub use crate::status::RUN_FAILED as FAILED;
/// The command was found and cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
