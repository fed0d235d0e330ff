//! A shell with job control on a terminal, by tmux.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::common::*;
use crate::place::{MARK, Place};

/// Need: tmux.
pub fn tmux() -> Result<(), String> {
    match Command::new("tmux").arg("-V").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("no tmux".to_owned()),
    }
}

/// A terminal of its own, on a server of its own.
pub struct Terminal {
    /// Where its socket is.
    dir: PathBuf,
    mark: String,
}

impl Terminal {
    /// Starts a shell that knows `run`, which is `cgreap run` in this place.
    pub fn new(place: &Place<'_>) -> Terminal {
        let dir = place.sandbox.scratch().to_path_buf();
        let terminal = Terminal { dir, mark: place.mark.clone() };
        let shell = "exec bash --norc --noprofile -i";
        let started =
            terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "50", shell]);
        assert!(started.is_some(), "tmux does not start");
        let program = place.program();
        let parent = place.parent.display();
        terminal.line(&format!(
            "PS1='ready> '; run() {{ {} run --parent {parent} \"$@\"; }}; clear",
            program.display()
        ));
        terminal.expect("ready>");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("tmux")
            // A path of a socket has at most 107 bytes.
            .current_dir(&self.dir)
            .args(["-S", "socket"])
            .args(args)
            .env(MARK, &self.mark)
            .output()
            .expect("tmux");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types a key, as tmux names it.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]).expect("a key");
    }

    /// Types these letters.
    pub fn letters(&self, letters: &str) {
        self.tmux(&["send-keys", "-l", letters]).expect("letters");
    }

    /// Types a line.
    pub fn line(&self, line: &str) {
        self.letters(line);
        self.key("Enter");
    }

    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).expect("a screen")
    }

    /// Waits until this is to be seen.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        self.expect_one_of(&[text]);
    }

    /// Waits until one of these is to be seen.
    #[track_caller]
    pub fn expect_one_of(&self, texts: &[&str]) {
        let seen = wait_until(TIMEOUT, || {
            thread::sleep(Duration::from_millis(20));
            let screen = self.screen();
            texts.iter().any(|text| screen.contains(text))
        });
        assert!(seen, "{texts:?} is not to be seen:\n{}", self.screen());
    }
}

impl Terminal {
    /// Ends the shell, and sees to it that nothing is left in its place.
    #[track_caller]
    pub fn close(self, place: &Place<'_>) {
        drop(self);
        eventually("the shell ends", || place.living().is_empty());
        place.assert_nothing_left("a terminal");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
