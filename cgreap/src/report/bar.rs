//! The progress bar, on stderr.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::end::End;

/// A run that ends sooner shows no bar.
const DELAY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    since: Instant,
    shown: bool,
    ended: u64,
    failed: u64,
}

impl Bar {
    pub fn new(targets: usize) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(targets as u64), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("[{bar:40}] {pos}/{len} ended{msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Bar { bar, since: Instant::now(), shown: false, ended: 0, failed: 0 }
    }

    pub fn count(&mut self, end: &End) {
        self.ended += 1;
        self.failed += u64::from(end.result.is_err());
    }

    /// Draws what was counted, once the run has taken long enough.
    pub fn update(&mut self) {
        if !self.shown && self.since.elapsed() >= DELAY {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if self.failed > 0 {
            self.bar.set_message(format!(", {} not reaped", self.failed));
        }
        self.bar.set_position(self.ended);
        self.bar.tick();
    }

    /// Takes the bar off the terminal while `write` writes to it.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Removes the bar, and tells whether there was one to be seen.
    pub fn finish(self) -> bool {
        self.bar.finish_and_clear();
        self.shown
    }
}
