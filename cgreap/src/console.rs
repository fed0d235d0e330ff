//! Writing to stdout and stderr, without a panic where they are closed, and without control characters.

use std::io::{self, Write};

/// Writes an error message to stderr.
pub fn complain(message: &str) {
    write_stderr(&format!("cgreap: {}\n", printable(message)));
}

/// Writes to stdout.
pub fn print(text: &str) {
    // Unlike with `print!`, a closed stdout is no panic.
    let _ = write_stdout(text);
}

/// Writes to stderr. A failure has no place where it could be reported.
pub fn write_stderr(text: &str) {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes to stdout, and tells whether that worked.
pub fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
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
