//! The v1 freezer: `freezer.state`, Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use super::errors::{is_denied, is_gone};
use super::file;
use crate::machine::Froze;
use crate::sys::{Open, Sys};

pub(crate) const STATE: &CStr = c"freezer.state";

/// Reads of the state in one step. FREEZING becomes FROZEN only inside a read, and nearly always in the first;
/// if a cgroup needs longer, a timer prompts the next reads.
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

/// Opens the file by which the cgroup is frozen and thawed.
pub(crate) fn open<S: Sys>(sys: &S, root: &S::Fd) -> io::Result<S::Fd> {
    file::open(sys, root, Path::new(""), STATE, Open::ReadWrite)
}

/// Freezes the cgroup and everything below it, or reads the state of a freeze under way. `may_wait`: whether the members may
/// have the CPU meanwhile. On a busy machine this takes many milliseconds.
pub(crate) fn freeze<S: Sys>(sys: &S, control: &S::Fd, may_wait: bool) -> io::Result<Froze> {
    // Written again each time, because another party may have thawed the cgroup.
    file::write_open(sys, control, b"FROZEN")?;
    let mut buffer = [0; 256];
    for read in 0..READS {
        // From here on the cgroup is frozen, or will be, and has to be thawed, whatever a read says.
        match file::read_start(sys, control, &mut buffer).and_then(parse) {
            Ok(State::Frozen) => return Ok(Froze::Frozen),
            Ok(_) if may_wait && read + 1 < READS => std::thread::yield_now(),
            _ => break,
        }
    }
    Ok(Froze::Freezing)
}

/// Whether every member of the cgroup, and of those below it, is frozen now. If a process joins, this is false until it
/// is frozen too.
pub(crate) fn is_frozen<S: Sys>(sys: &S, root: &S::Fd) -> io::Result<bool> {
    Ok(parse(&file::read(sys, root, Path::new(""), STATE)?)? == State::Frozen)
}

/// Thaws one directory. Returns whether it is thawed then: this does not undo the freeze of an ancestor.
pub(crate) fn thaw<S: Sys>(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<bool> {
    // Most directories are not frozen, and the caller may not write to some of them.
    let control = file::open(sys, root, dir, STATE, Open::Read)?;
    if is_thawed(sys, &control)? {
        return Ok(true);
    }
    if let Err(error) = file::write(sys, root, dir, STATE, b"THAWED") {
        // If it is frozen through a directory above it, the write would change nothing.
        return if is_denied(&error) && !freezes_itself(sys, root, dir)? { Ok(false) } else { Err(error) };
    }
    is_thawed(sys, &control)
}

/// Does the same through an open file, without a read.
pub(crate) fn thaw_open<S: Sys>(sys: &S, control: &S::Fd) -> io::Result<()> {
    file::write_open(sys, control, b"THAWED")
}

pub(crate) fn is_thawed<S: Sys>(sys: &S, control: &S::Fd) -> io::Result<bool> {
    Ok(parse(file::read_start(sys, control, &mut [0; 256])?)? == State::Thawed)
}

/// Whether the directory has a freeze of its own.
fn freezes_itself<S: Sys>(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<bool> {
    Ok(file::read(sys, root, dir, c"freezer.self_freezing")?.trim_ascii_end() == b"1")
}

/// Whether the directory is frozen through a directory above it.
pub(crate) fn held_from_above<S: Sys>(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<bool> {
    match file::read(sys, root, dir, c"freezer.parent_freezing") {
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
