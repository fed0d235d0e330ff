//! Reading and writing the kernel's interface files.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// Opens `name` in the descendant `dir` of `at` (empty for `at` itself).
pub(crate) fn open(at: BorrowedFd<'_>, dir: &Path, name: &str, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = if dir.as_os_str().is_empty() {
        openat(at, name, flags, Mode::empty())?
    } else {
        openat(at, path(dir, name)?.as_c_str(), flags, Mode::empty())?
    };
    Ok(File::from(fd))
}

fn path(dir: &Path, name: &str) -> io::Result<CString> {
    Ok(CString::new(dir.join(name).as_os_str().as_bytes())?)
}

/// The whole of a file, opened afresh.
pub(crate) fn read(at: BorrowedFd<'_>, dir: &Path, name: &str) -> io::Result<Vec<u8>> {
    let file = open(at, dir, name, OFlag::O_RDONLY)?;
    let mut text = Vec::new();
    read_whole(&file, &mut text)?;
    Ok(text)
}

/// The whole of an open file, from its beginning, into `text`. (`read_to_end` asks for the size first,
/// which these files don't have.)
pub(crate) fn read_whole(file: &File, text: &mut Vec<u8>) -> io::Result<()> {
    text.clear();
    loop {
        let filled = text.len();
        text.resize((filled * 2).max(512), 0);
        let result = read_at(file, &mut text[filled..], filled as u64);
        text.truncate(filled + result.as_ref().map_or(0, |&n| n));
        if result? == 0 {
            return Ok(());
        }
    }
}

/// One read from the beginning, for files of a line or two.
pub(crate) fn read_small<'a>(file: &File, buffer: &'a mut [u8; 256]) -> io::Result<&'a [u8]> {
    let n = read_at(file, buffer, 0)?;
    Ok(&buffer[..n])
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// One write of `value`, which is how these files take a command.
pub(crate) fn write(at: BorrowedFd<'_>, dir: &Path, name: &str, value: &str) -> io::Result<()> {
    open(at, dir, name, OFlag::O_WRONLY)?.write_all(value.as_bytes())
}
