//! The progress bar, on a terminal at stderr.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::console::is_writable;
use crate::duration::human;
use crate::end::End;

/// A run that ends sooner shows no bar.
const DELAY: Duration = Duration::from_millis(250);
/// The time between two drawings.
pub const TICK: Duration = Duration::from_millis(100);
const WIDTH: usize = 40;

/// Draws nothing while the terminal is stopped, so that it does not hold up the program: indicatif writes whether or
/// not that blocks.
#[derive(Debug)]
pub struct Bar {
    total: usize,
    since: Instant,
    ended: usize,
    failed: usize,
    /// When it was drawn, if it is to be seen.
    drawn: Option<Instant>,
}

impl Bar {
    pub fn new(total: usize) -> Bar {
        Bar { total, since: Instant::now(), ended: 0, failed: 0, drawn: None }
    }

    pub fn count(&mut self, end: &End) {
        self.ended += 1;
        self.failed += usize::from(end.result.is_err());
    }

    /// Draws what was counted, once the run has taken long enough.
    pub fn draw(&mut self) {
        let is_recent = self.drawn.is_some_and(|at| at.elapsed() < TICK);
        if self.since.elapsed() < DELAY || is_recent || !is_writable(&io::stderr()) {
            return;
        }
        // No line wrap meanwhile: a narrow terminal cuts it off.
        self.write(&format!("\r\x1b[K\x1b[?7l{}\x1b[?7h", self.text()));
        self.drawn = Some(Instant::now());
    }

    /// Takes it off the terminal, where it is in the way of lines.
    pub fn erase(&mut self) {
        if self.drawn.is_some() && is_writable(&io::stderr()) {
            self.write("\r\x1b[K");
            self.drawn = None;
        }
    }

    fn text(&self) -> String {
        let bar = "=".repeat(WIDTH * self.ended / self.total);
        let failed = if self.failed > 0 { format!(", {} not reaped", self.failed) } else { String::new() };
        let elapsed = human(self.since.elapsed());
        format!("[{bar:WIDTH$}] {}/{} ended{failed}, {elapsed}", self.ended, self.total)
    }

    /// A failure has no place where it could be reported.
    fn write(&self, text: &str) {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_with_the_number_of_targets_that_ended() {
        let mut bar = Bar::new(80);
        assert!(bar.text().starts_with(&format!("[{}] 0/80 ended, ", " ".repeat(40))), "{}", bar.text());
        (bar.ended, bar.failed) = (41, 2);
        let half = format!("[{}{}] 41/80 ended, 2 not reaped, ", "=".repeat(20), " ".repeat(20));
        assert!(bar.text().starts_with(&half), "{}", bar.text());
        bar.ended = 80;
        assert!(bar.text().starts_with(&format!("[{}] 80/80 ended", "=".repeat(40))), "{}", bar.text());
    }
}
