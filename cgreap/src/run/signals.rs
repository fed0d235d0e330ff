//! The signals that `cgreap run` gets: of the terminal, of others, and of its children.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, Signal, killpg, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::getpgrp;

use super::terminal;
use crate::interrupt::Ignored;

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A child has ended, or was stopped or continued.
    Child,
    /// The terminal has sent this to all processes of the foreground: Ctrl-C, Ctrl-\.
    Typed(Signal),
    /// cgreap is told to end, by the process with this pid, 0 if that is not to be seen.
    End(Signal, u32),
    /// A signal that has no meaning for cgreap, and is passed on. It was sent by the process with this pid.
    Pass(rustix::process::Signal, u32),
    /// Ctrl-Z, or a read from the terminal in the background.
    Stop,
    /// cgreap was continued.
    Continue,
}

/// What is always watched.
const OF_CHILDREN: [Signal; 2] = [Signal::SIGCHLD, Signal::SIGCONT];
/// What is watched unless it was ignored when cgreap was started: that is kept, as nohup(1) and shells expect.
const UNLESS_IGNORED: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The watched signals are blocked, so that they are read where the loop waits. It needs no thread and no handler.
#[derive(Debug)]
pub struct Signals {
    arrived: SignalFd,
    original: SigSet,
}

impl Signals {
    /// Blocks the signals, and watches for them.
    pub fn watch() -> io::Result<Signals> {
        let ignored = Ignored::of_this_process();
        let mut watched: SigSet = OF_CHILDREN.into_iter().collect();
        watched.extend(UNLESS_IGNORED.into_iter().filter(|&signal| !ignored.contains(signal)));
        if ignored.contains(Signal::SIGCHLD) {
            // Else the kernel keeps no exit status for it, waitpid(2). An exec resets a handler, so that it does not
            // become the command's.
            signal_hook::flag::register(libc::SIGCHLD, Arc::default())?;
        }
        let original = watched.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let arrived = SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { arrived, original })
    }

    /// The signals that were blocked before.
    pub fn original_mask(&self) -> SigSet {
        self.original
    }

    /// From here on a signal does what it did before: one that ends programs ends the wait for a reader. Those that have
    /// arrived are dropped, and so is what would be passed on, to a process that is no more.
    pub fn restore(self) {
        while self.next().is_some() {}
        // If it fails they stay blocked.
        let _ = (self.original | Signal::SIGUSR1 | Signal::SIGUSR2).thread_set_mask();
    }

    pub fn awaited(&self) -> PollFd<'_> {
        PollFd::new(self.arrived.as_fd(), PollFlags::POLLIN)
    }

    /// The next signal, if one has arrived.
    pub fn next(&self) -> Option<Event> {
        loop {
            let info = self.arrived.read_signal().ok()??;
            if let Ok(signal) = Signal::try_from(info.ssi_signo as i32) {
                return Some(event(signal, info.ssi_code, info.ssi_pid));
            }
        }
    }
}

fn event(signal: Signal, code: i32, sender: u32) -> Event {
    match signal {
        Signal::SIGCHLD => Event::Child,
        Signal::SIGCONT => Event::Continue,
        Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => Event::Stop,
        Signal::SIGUSR1 => Event::Pass(rustix::process::Signal::USR1, sender),
        Signal::SIGUSR2 => Event::Pass(rustix::process::Signal::USR2, sender),
        // The terminal's driver sends it as the kernel's own, `isig`; kill(2) as a user's.
        Signal::SIGINT | Signal::SIGQUIT if code == libc::SI_KERNEL => Event::Typed(signal),
        _ => Event::End(signal, if code == libc::SI_USER { sender } else { 0 }),
    }
}

/// Stops this process as Ctrl-Z does, until it is continued: the terminal has stopped the rest of its process group. Where no
/// shell could continue it, the kernel does not stop it: it discards the signal in an orphaned process group. Returns false, and
/// does nothing, where there is no terminal.
pub fn stop_self() -> bool {
    stop(|| raise(Signal::SIGTSTP))
}

/// The same with the whole process group, in which a pipeline or a script may be that the shell has started.
pub fn stop_job() -> bool {
    stop(|| killpg(getpgrp(), Signal::SIGTSTP))
}

fn stop(send: impl FnOnce() -> nix::Result<()>) -> bool {
    // The terminal of this session. Without one Ctrl-Z was not typed.
    if terminal::open().is_err() {
        return false;
    }
    // It is sent while it is blocked, so that it is one signal with a Ctrl-Z that has not been read yet.
    let _ = send();
    let signal = SigSet::from(Signal::SIGTSTP);
    // A failure leaves it running, which is what it would be without a terminal.
    if signal.thread_unblock().is_ok() {
        let _ = signal.thread_block();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_terminal_sent_is_left_to_the_command() {
        assert_eq!(event(Signal::SIGINT, libc::SI_KERNEL, 0), Event::Typed(Signal::SIGINT));
        assert_eq!(event(Signal::SIGQUIT, libc::SI_KERNEL, 0), Event::Typed(Signal::SIGQUIT));
        assert_eq!(event(Signal::SIGINT, libc::SI_USER, 7), Event::End(Signal::SIGINT, 7));
        assert_eq!(event(Signal::SIGHUP, libc::SI_KERNEL, 0), Event::End(Signal::SIGHUP, 0));
        assert_eq!(event(Signal::SIGTERM, libc::SI_USER, 7), Event::End(Signal::SIGTERM, 7));
    }
}
