//! The v1 freezer: `freezer.state`, Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::fcntl::OFlag;

use super::file;
use super::pin::is_gone;
use crate::machine::Freeze;

pub(crate) const STATE: &str = "freezer.state";

/// Reads of the state in one step. FREEZING becomes FROZEN only inside a read, and nearly always in the
/// first; a group that needs longer is looked at again by timer.
const READS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Thawed,
    Freezing,
    Frozen,
}

fn parse(text: &[u8]) -> io::Result<State> {
    match text.trim_ascii_end() {
        b"THAWED" => Ok(State::Thawed),
        b"FREEZING" => Ok(State::Freezing),
        b"FROZEN" => Ok(State::Frozen),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "freezer.state makes no sense")),
    }
}

pub(crate) fn state(root: BorrowedFd<'_>, dir: &Path) -> io::Result<State> {
    let file = file::open(root, dir, STATE, OFlag::O_RDONLY)?;
    parse(file::read_small(&file, &mut [0; 256])?)
}

/// Freezes the group and everything below it, or looks how far that is.
pub(crate) fn freeze(root: BorrowedFd<'_>) -> io::Result<Freeze> {
    let mut control = file::open(root, Path::new(""), STATE, OFlag::O_RDWR)?;
    // Written again each time: another hand may have thawed it.
    control.write_all(b"FROZEN")?;
    let mut buffer = [0; 256];
    for read in 0..READS {
        match parse(file::read_small(&control, &mut buffer)?)? {
            State::Frozen => return Ok(Freeze::Frozen),
            _ if read + 1 < READS => std::thread::yield_now(),
            _ => {}
        }
    }
    Ok(Freeze::Freezing)
}

/// Thaws one directory; says whether it is thawed then. An ancestor's freeze is not undone by it.
pub(crate) fn thaw(root: BorrowedFd<'_>, dir: &Path) -> io::Result<bool> {
    if state(root, dir)? == State::Thawed {
        return Ok(true);
    }
    file::write(root, dir, STATE, "THAWED")?;
    Ok(state(root, dir)? == State::Thawed)
}

/// Whether the directory is frozen through one above it.
pub(crate) fn held_from_above(root: BorrowedFd<'_>, dir: &Path) -> io::Result<bool> {
    match file::read(root, dir, "freezer.parent_freezing") {
        Ok(text) => Ok(text.trim_ascii_end() == b"1"),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_states_are_states() {
        assert_eq!(parse(b"THAWED\n").unwrap(), State::Thawed);
        assert_eq!(parse(b"FREEZING\n").unwrap(), State::Freezing);
        assert_eq!(parse(b"FROZEN\n").unwrap(), State::Frozen);
        for text in [&b""[..], b"\n", b"frozen\n", b"FROZEN FROZEN", b"\xff\0"] {
            assert!(parse(text).is_err());
        }
    }
}
