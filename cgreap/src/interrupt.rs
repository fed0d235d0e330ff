//! The signals that ask the program to end: SIGINT, SIGTERM and SIGHUP.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use cgroup_reaper::Remote;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Remembers which signal asked the program to end.
#[derive(Debug)]
pub struct Interrupt {
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Watches for the signals in a thread of its own. Each of them wakes the reactor.
    pub fn watch(remote: Remote) -> io::Result<Interrupt> {
        let mut watched = vec![SIGINT, SIGTERM];
        // nohup(1) starts programs with SIGHUP ignored, and that is kept.
        if !is_ignored(SIGHUP) {
            watched.push(SIGHUP);
        }
        let mut signals = Signals::new(watched)?;
        let signal = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&signal);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                // The first signal decides the exit status.
                let _ = seen.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                remote.stop();
            }
        })?;
        Ok(Interrupt { signal })
    }

    /// The signal that arrived first, if any has.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The signal in words.
pub fn describe(signal: i32) -> String {
    format!("interrupted by {}", signal_hook::low_level::signal_name(signal).unwrap_or("a signal"))
}
