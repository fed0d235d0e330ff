//! cgroup v2: `cgroup.events`, `cgroup.kill`, `cgroup.freeze`, Documentation/admin-guide/cgroup-v2.rst.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use super::errors::is_gone;
use super::file;
use crate::machine::Froze;
use crate::sys::{Open, Sys};

pub(crate) const EVENTS: &CStr = c"cgroup.events";
pub(crate) const KILL: &CStr = c"cgroup.kill";
pub(crate) const FREEZE: &CStr = c"cgroup.freeze";

/// The state of a subtree, from `cgroup.events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) populated: bool,
    pub(crate) frozen: bool,
}

/// Parses `cgroup.events`. The keys may come in any order, and with further keys. Without a valid `populated`
/// nothing is known.
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

pub(crate) fn events<S: Sys>(sys: &S, root: &S::Fd) -> io::Result<Events> {
    parse(&file::read(sys, root, Path::new(""), EVENTS)?)
}

/// Kills the whole subtree, forks in flight included (Linux 5.14).
pub(crate) fn kill<S: Sys>(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<()> {
    file::write(sys, root, dir, KILL, b"1")
}

/// Opens the file by which the cgroup is frozen and thawed.
pub(crate) fn open<S: Sys>(sys: &S, root: &S::Fd) -> io::Result<S::Fd> {
    file::open(sys, root, Path::new(""), FREEZE, Open::Write)
}

/// Freezes the subtree, or reads the state of a freeze under way.
pub(crate) fn freeze<S: Sys>(sys: &S, root: &S::Fd, control: &S::Fd) -> io::Result<Froze> {
    file::write_open(sys, control, b"1")?;
    // From here on the subtree is frozen, or will be, and has to be thawed, whatever a read says.
    match events(sys, root) {
        Ok(Events { frozen: true, .. }) => Ok(Froze::Frozen),
        _ => Ok(Froze::Freezing),
    }
}

/// Undoes the freeze of one directory, not those of directories above or below it.
pub(crate) fn thaw<S: Sys>(sys: &S, root: &S::Fd, dir: &Path) -> io::Result<()> {
    match file::read(sys, root, dir, FREEZE) {
        Ok(text) if text.trim_ascii_end() == b"1" => file::write(sys, root, dir, FREEZE, b"0"),
        Ok(_) => Ok(()),
        // Kernels before 5.2 have no such file.
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Does the same through an open file, without a read.
pub(crate) fn thaw_open<S: Sys>(sys: &S, control: &S::Fd) -> io::Result<()> {
    file::write_open(sys, control, b"0")
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
