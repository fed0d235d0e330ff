//! Writing to stdout and stderr, without a panic where they are closed, and without control characters.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// Writes an error message to stderr.
pub fn complain(message: &str) {
    // A failure has no place where it could be reported.
    let _ = io::stderr().write_all(error_line(message).as_bytes());
}

/// Writes as much of an error message to stderr as does not block.
pub fn complain_at_once(message: &str) {
    let mut stderr = Output::to(io::stderr());
    stderr.push(error_line(message));
    stderr.write();
}

fn error_line(message: &str) -> String {
    format!("cgreap: {}\n", printable(message))
}

/// Writes to stdout. That the reader of a pipe has closed it is no failure.
pub fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    // Unlike with `print!`, a closed stdout is no panic.
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(()),
    }
}

/// The text with control characters escaped. Cgroups and processes are named by other users, and a terminal
/// executes the control sequences that it is sent.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
        safe
    })
}

/// A line with a JSON object, without control characters. serde_json escapes those that JSON forbids, and not those from
/// DEL on, some of which are control sequences of terminals as well. They can only be in strings.
pub fn json_line(object: &Value) -> String {
    let mut line = String::new();
    for c in object.to_string().chars() {
        match c.is_control() {
            true => line += &format!("\\u{:04x}", u32::from(c)),
            false => line.push(c),
        }
    }
    line.push('\n');
    line
}

/// The lines on their way to stdout or stderr. They are written when the stream takes them without blocking, so that a
/// reader that is slow, or has stopped, does not hold up the program.
#[derive(Debug)]
pub struct Output<S> {
    stream: S,
    is_terminal: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Nothing more is written after an error.
    error: Option<io::Error>,
}

impl<S: AsFd + IsTerminal> Output<S> {
    pub fn to(stream: S) -> Output<S> {
        let is_terminal = stream.is_terminal();
        Output { stream, is_terminal, waiting: VecDeque::new(), error: None }
    }

    pub fn push(&mut self, line: String) {
        if self.error.is_none() {
            self.waiting.push_back(line.into_bytes());
        }
    }

    /// Writes what the stream takes without blocking.
    pub fn write(&mut self) {
        while let Some(line) = self.waiting.front_mut() {
            if !is_writable(&self.stream) {
                return;
            }
            match nix::unistd::write(&self.stream, &line[..at_once(line, self.is_terminal)]) {
                Ok(written) if written == line.len() => drop(self.waiting.pop_front()),
                Ok(written) => drop(line.drain(..written)),
                Err(Errno::EINTR | Errno::EAGAIN) => return,
                Err(errno) => {
                    self.error = Some(errno.into());
                    self.waiting.clear();
                }
            }
        }
    }

    /// What to wait for before the next write; `None` if all is written.
    pub fn awaited(&self) -> Option<PollFd<'_>> {
        (!self.waiting.is_empty()).then(|| PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT))
    }

    /// Why not all was written, if an error is the reason.
    pub fn into_error(self) -> Option<io::Error> {
        self.error
    }

    #[cfg(test)]
    pub fn unwritten(&self) -> String {
        String::from_utf8(self.waiting.iter().flatten().copied().collect()).expect("UTF-8")
    }
}

/// The bytes at the beginning of a line for which a write does not block where the stream is writable. (With O_NONBLOCK it
/// would not block either, but that would be set for all processes that share the stream.)
fn at_once(line: &[u8], is_terminal: bool) -> usize {
    match line.len() {
        // It has room for that many bytes, pipe(7).
        len if !is_terminal => len.min(libc::PIPE_BUF),
        // It has room for 256 bytes, which may be the last ones, and asks again for the end of a line (`n_tty_write`,
        // `pty_write_room`).
        len @ (0 | 1) => len,
        len => (len - 1).min(256),
    }
}

/// Whether a small write to the stream would not block. An error of the stream does not block either.
pub fn is_writable(stream: &impl AsFd) -> bool {
    let mut writable = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    poll(&mut writable, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn json_has_no_control_characters() {
        let object = serde_json::json!({ "a": "b\n\u{1b}[2J\u{7f}\u{9b}2J\u{e9}" });
        let line = json_line(&object);
        assert!(line.ends_with('\n') && !line.trim_end().contains(char::is_control), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
    }

    fn pipe() -> (File, Output<File>) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), Output::to(writer.into()))
    }

    #[test]
    fn a_full_pipe_is_written_to_when_it_is_read_from() {
        let (mut reader, mut output) = pipe();
        // Longer than what is written at once, and together more than a pipe takes.
        let lines: Vec<_> = (0..100).map(|n| format!("{n:5000}\n")).collect();
        lines.iter().for_each(|line| output.push(line.clone()));
        let mut read = vec![0; lines.concat().len()];
        let mut done = 0;
        while done < read.len() {
            output.write();
            assert_eq!(output.awaited().is_some(), !output.unwritten().is_empty());
            done += reader.read(&mut read[done..]).unwrap();
        }
        assert_eq!(read, lines.concat().into_bytes());
        assert!(output.awaited().is_none() && output.into_error().is_none());
    }

    #[test]
    fn lines_of_several_writers_to_one_pipe_stay_whole() {
        let (_reader, mut output) = pipe();
        // More than a pipe takes, however large its pages are.
        (0..1000).for_each(|n| output.push(format!("{n:3000}\n")));
        output.write();
        let unwritten = output.unwritten().len();
        assert!(unwritten > 0 && unwritten % 3001 == 0, "{unwritten}");
    }

    #[test]
    fn after_an_error_nothing_waits() {
        let (reader, mut output) = pipe();
        drop(reader);
        for _ in 0..2 {
            output.push("line\n".to_owned());
            output.write();
            assert!(output.awaited().is_none());
        }
        assert_eq!(output.into_error().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
