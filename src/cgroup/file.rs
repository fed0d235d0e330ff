//! Reading and writing the kernel's interface files.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::errors::is_gone;
use crate::sys::{Open, Sys};

/// Opens `name` in the descendant `dir` of `at` (empty for `at` itself).
pub(crate) fn open<S: Sys>(sys: &S, at: &S::Fd, dir: &Path, name: &CStr, how: Open) -> io::Result<S::Fd> {
    if dir.as_os_str().is_empty() {
        return sys.open(Some(at), name, how);
    }
    below(sys, at, &dir.join(OsStr::from_bytes(name.to_bytes())), |at, path| sys.open(Some(at), path, how))
}

/// Calls `act` with the descendant `path` of `at`, or, if this path is longer than the kernel takes at once, with
/// a directory on the way and the rest. A member with the right to make cgroups inside the target can make them
/// that deep.
pub(crate) fn below<S: Sys, T>(
    sys: &S,
    at: &S::Fd,
    path: &Path,
    act: impl FnOnce(&S::Fd, &CStr) -> io::Result<T>,
) -> io::Result<T> {
    /// `PATH_MAX` of `linux/limits.h`, the nul included.
    const LONGEST: usize = libc::PATH_MAX as usize - 1;
    let mut rest = path.as_os_str().as_bytes();
    let mut on_the_way: Option<S::Fd> = None;
    while rest.len() > LONGEST {
        let slash = rest[..LONGEST].iter().rposition(|&b| b == b'/');
        let slash = slash.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
        let part = c_path(Path::new(OsStr::from_bytes(&rest[..slash])))?;
        on_the_way = Some(sys.open(Some(on_the_way.as_ref().unwrap_or(at)), &part, Open::Place)?);
        rest = &rest[slash + 1..];
    }
    act(on_the_way.as_ref().unwrap_or(at), &c_path(Path::new(OsStr::from_bytes(rest)))?)
}

/// A path as the kernel takes it, as a path of Rust.
pub(crate) fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// A path as the kernel takes it; EINVAL if it has a nul inside.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The path of a directory above a target, which may be a symbolic link to one, such as `cpu` to `cpu,cpuacct`:
/// `Open::Place` follows no link in the last component.
pub(crate) fn above_path(path: &Path) -> io::Result<CString> {
    c_path(&path.join("."))
}

/// Whether a cgroup has a file. Only ENOENT and ENODEV say that it has not.
pub(crate) fn has<S: Sys>(sys: &S, cgroup: &S::Fd, name: &CStr) -> io::Result<bool> {
    match sys.stat(Some(cgroup), name) {
        Ok(_) => Ok(true),
        // ENOENT may be for the file or for the directory.
        Err(error) if is_gone(&error) => sys.stat(Some(cgroup), c"cgroup.procs").map(|_| false),
        Err(error) => Err(error),
    }
}

/// Opens a file, and reads the whole of it.
pub(crate) fn read<S: Sys>(sys: &S, at: &S::Fd, dir: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let file = open(sys, at, dir, name, Open::Read)?;
    let mut text = Vec::new();
    read_whole(sys, &file, &mut text)?;
    Ok(text)
}

/// Reads the whole of the file that an absolute path leads to.
pub(crate) fn read_path<S: Sys>(sys: &S, path: &Path) -> io::Result<Vec<u8>> {
    let file = sys.open(None, &c_path(path)?, Open::Read)?;
    let mut text = Vec::new();
    read_whole(sys, &file, &mut text)?;
    Ok(text)
}

/// Reads the whole of an open file, from its beginning, into `text`. (`read_to_end` asks for the size first,
/// which these files don't have.)
pub(crate) fn read_whole<S: Sys>(sys: &S, file: &S::Fd, text: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    let result = loop {
        if filled == text.len() {
            text.resize((filled * 2).max(512), 0);
        }
        match read_at(sys, file, &mut text[filled..], filled as u64) {
            Ok(0) => break Ok(()),
            Ok(read) => filled += read,
            Err(error) => break Err(error),
        }
    };
    text.truncate(filled);
    result
}

/// Makes one read from the beginning: of the whole of a file of a line or two, or of the first lines of a
/// longer file.
pub(crate) fn read_start<'a, S: Sys>(sys: &S, file: &S::Fd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let n = read_at(sys, file, buffer, 0)?;
    Ok(&buffer[..n])
}

/// Makes one read, and repeats it only if a signal has interrupted it.
pub(crate) fn read_at<S: Sys>(sys: &S, file: &S::Fd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match sys.read_at(file, buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Makes one write of `value`: these files take a command in one write.
pub(crate) fn write<S: Sys>(sys: &S, at: &S::Fd, dir: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    write_open(sys, &open(sys, at, dir, name, Open::Write)?, value)
}

/// Does the same through an open file.
pub(crate) fn write_open<S: Sys>(sys: &S, file: &S::Fd, value: &[u8]) -> io::Result<()> {
    loop {
        match sys.write(file, value) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
