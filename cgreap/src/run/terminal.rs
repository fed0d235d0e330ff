//! The terminal. A shell with job control gives it to its own process group, and changes its modes. If it is killed it does not
//! give it back: what reads from the terminal next, such as the rest of a script, would be stopped.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use super::process::has_live_process;

/// That of the session.
pub fn open() -> io::Result<File> {
    File::open("/dev/tty")
}

/// The modes of the terminal, if the process group of cgreap has it.
pub fn own_modes() -> Option<Termios> {
    let terminal = open().ok()?;
    tcgetattr(&terminal).ok().filter(|_| tcgetpgrp(&terminal) == Ok(getpgrp()))
}

/// Gives it to the process group of cgreap, with these modes, if no live process is left of the one that has it. SIGTTOU has
/// to be blocked.
pub fn take_back(modes: &Termios) {
    let Ok(terminal) = open() else { return };
    if tcgetpgrp(&terminal).is_ok_and(|group| group != getpgrp() && has_no_live_process(group)) {
        // What reads from it is told by the kernel if it fails.
        let _ = tcsetpgrp(&terminal, getpgrp());
        let _ = tcsetattr(&terminal, SetArg::TCSANOW, modes);
    }
}

/// Whether the process group is known to have no live process. To kill(2), a zombie is a process, and stays one where the
/// init of a container does not wait for it.
fn has_no_live_process(group: Pid) -> bool {
    // 0: a group of another pid namespace.
    group.as_raw() > 0
        && match killpg(group, None) {
            Err(Errno::ESRCH) => true,
            Ok(()) => has_live_process(group.as_raw()) == Some(false),
            // A process of another user.
            Err(_) => false,
        }
}
