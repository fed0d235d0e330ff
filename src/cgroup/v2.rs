//! cgroup v2: `cgroup.events`, `cgroup.kill`, `cgroup.freeze`, Documentation/admin-guide/cgroup-v2.rst.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::file;
use super::pin::is_gone;
use crate::machine::Freeze;

pub(crate) const EVENTS: &str = "cgroup.events";
const KILL: &str = "cgroup.kill";
const FREEZE: &str = "cgroup.freeze";

/// What `cgroup.events` says of a subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) populated: bool,
    pub(crate) frozen: bool,
}

/// Keys may come in any order, and others with them. Without a sound `populated` nothing is known.
pub(crate) fn parse(text: &[u8]) -> io::Result<Events> {
    let mut populated = None;
    let mut frozen = false;
    for line in text.split(|&b| b == b'\n') {
        match line {
            b"populated 0" => populated = Some(false),
            b"populated 1" => populated = Some(true),
            b"frozen 1" => frozen = true,
            _ => {}
        }
    }
    match populated {
        Some(populated) => Ok(Events { populated, frozen }),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "cgroup.events makes no sense")),
    }
}

pub(crate) fn events(root: BorrowedFd<'_>) -> io::Result<Events> {
    parse(&file::read(root, Path::new(""), EVENTS)?)
}

/// Kills the whole subtree, forks in flight included (Linux 5.14).
pub(crate) fn kill(root: BorrowedFd<'_>, dir: &Path) -> io::Result<()> {
    file::write(root, dir, KILL, "1")
}

/// Freezes the subtree, or looks how far that is.
pub(crate) fn freeze(root: BorrowedFd<'_>) -> io::Result<Freeze> {
    file::write(root, Path::new(""), FREEZE, "1")?;
    Ok(if events(root)?.frozen { Freeze::Frozen } else { Freeze::Freezing })
}

/// Undoes a freeze of one directory, not of those above or below.
pub(crate) fn thaw(root: BorrowedFd<'_>, dir: &Path) -> io::Result<()> {
    match file::read(root, dir, FREEZE) {
        Ok(text) if text.trim_ascii_end() == b"1" => file::write(root, dir, FREEZE, "0"),
        Ok(_) => Ok(()),
        // A kernel before 5.2.
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_order() {
        let events = |populated, frozen| Events { populated, frozen };
        assert_eq!(parse(b"populated 0\nfrozen 0\n").unwrap(), events(false, false));
        assert_eq!(parse(b"frozen 1\npopulated 1\n").unwrap(), events(true, true));
        assert_eq!(parse(b"news 7\npopulated 0\n").unwrap(), events(false, false));
    }

    #[test]
    fn without_a_sound_populated_nothing_is_known() {
        for text in
            [&b""[..], b"frozen 0\n", b"populated\n", b"populated 2\n", b"xpopulated 0\n", b"populated 0 \n"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
