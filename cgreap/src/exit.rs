//! The end of the program.

use std::process::ExitCode;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use signal_hook::low_level::{emulate_default_handler, raise};

use crate::status::of_signal;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Status(u8),
    /// It dies of the signal that has ended it or its command, as timeout(1) does: a loop of a shell ends at Ctrl-C only if
    /// the program in it dies of SIGINT.
    Signal(i32),
}

impl Exit {
    /// The last act of the program. Returns if it does not die of the signal.
    pub fn take(self) -> ExitCode {
        match self {
            Exit::Status(status) => status.into(),
            Exit::Signal(signal) => {
                die_of(signal);
                of_signal(signal).into()
            }
        }
    }
}

fn die_of(signal: i32) {
    // The init of a pid namespace dies of no signal of its own, pid_namespaces(7).
    if std::process::id() == 1 {
        return;
    }
    // A core dump would be cgreap's, and not the command's.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Sets the default disposition, and unblocks the signal. It does not know real-time signals, and takes SIGIO for one that
    // is ignored by default: these have their default, unless cgreap was started with them ignored.
    let _ = emulate_default_handler(signal);
    let _ = raise(signal);
}
