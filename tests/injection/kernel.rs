//! [`Failing`]: the real kernel, some of whose calls fail, and a record of all of them.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, OsStr, OsString};
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::faults::{Fault, Kind, Mode};
use crate::facility::Facility;
use crate::sys::{Linux, Open, Pid, Stat, Sys};

/// An open file, and what it was opened as.
#[derive(Debug)]
pub(super) struct File {
    fd: OwnedFd,
    path: PathBuf,
    open: Rc<Cell<u32>>,
}

impl Drop for File {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// A call that was made, or failed without being made.
pub(super) struct Call {
    pub(super) at: Duration,
    kind: Kind,
    what: String,
    result: Result<(), Errno>,
    injected: bool,
    /// Failed calls of this kind in a row that this one stands for.
    times: u32,
}

impl Call {
    pub(super) fn error(&self) -> Option<Errno> {
        self.result.err()
    }

    /// Whether it changed something outside of this program.
    pub(super) fn has_effect(&self) -> bool {
        matches!(self.kind, Kind::Write | Kind::Rmdir | Kind::Signal | Kind::Kill) && self.result.is_ok()
    }

    /// Whether it sent SIGKILL.
    pub(super) fn kills(&self) -> bool {
        let by_signal = matches!(self.kind, Kind::Signal | Kind::Kill) && self.what.starts_with("9 ");
        let by_file = self.kind == Kind::Write && self.what.ends_with("/cgroup.kill");
        self.result.is_ok() && (by_signal || by_file)
    }
}

/// A time for which one of the freezer's files said that the group is to be frozen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frozen {
    file: (u64, u64),
    pub(super) since: Duration,
    pub(super) until: Option<Duration>,
}

pub(super) struct Record {
    fault: Option<Fault>,
    pub(super) counts: [u32; Kind::ALL.len()],
    /// When the fault began.
    pub(super) since: Option<Duration>,
    pub(super) calls: Vec<Call>,
    pub(super) made: u64,
    pub(super) frozen: Vec<Frozen>,
}

impl Record {
    /// Whether a call of this kind fails now.
    fn fails(&mut self, kind: Kind, now: Duration, open: u32) -> Option<Errno> {
        let mut count = |kind: Kind| {
            self.counts[kind as usize] += 1;
            self.counts[kind as usize]
        };
        let nth = count(kind);
        let of_descriptors = kind.takes_descriptor().then(|| count(Kind::Descriptor));
        let fault = self.fault?;
        if fault.mode == Mode::Limit {
            return of_descriptors.filter(|_| open >= fault.nth).map(|_| fault.errno);
        }
        let nth = match fault.kind {
            Kind::Descriptor => of_descriptors?,
            of if of == kind => nth,
            _ => return None,
        };
        if nth < fault.nth {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let fails = match fault.mode {
            Mode::Once => nth == fault.nth,
            Mode::Passing => now < since + fault.mode.length().unwrap_or_default(),
            Mode::Lasting | Mode::Limit => true,
        };
        fails.then_some(fault.errno)
    }

    /// The last calls, from the start of the run on.
    pub(super) fn tell(&self, start: Duration, last: usize) -> String {
        let mut text = String::new();
        for call in &self.calls[self.calls.len().saturating_sub(last)..] {
            let Call { at, kind, what, result, injected, times } = call;
            let at = at.saturating_sub(start);
            let _ = write!(text, "{at:>12.3?} {kind:?} {what}");
            let _ = match result {
                Ok(()) => writeln!(text),
                Err(errno) if *injected => writeln!(text, " = {errno:?} INJECTED, {times} times"),
                Err(errno) => writeln!(text, " = {errno:?}"),
            };
        }
        text
    }
}

/// The kernel, of whose calls some fail. What fails is not made.
#[derive(Clone)]
pub(super) struct Failing {
    linux: Linux,
    record: Rc<RefCell<Record>>,
    /// Files that are open now.
    open: Rc<Cell<u32>>,
}

impl Failing {
    pub(super) fn new(fault: Option<Fault>, absent: &'static [Facility]) -> Failing {
        let record = Record {
            fault,
            counts: [0; Kind::ALL.len()],
            since: None,
            calls: Vec::new(),
            made: 0,
            frozen: Vec::new(),
        };
        Failing { linux: Linux::without(absent), record: Rc::new(RefCell::new(record)), open: Rc::default() }
    }

    pub(super) fn record(&self) -> std::cell::Ref<'_, Record> {
        self.record.borrow()
    }

    /// Makes a call, unless it is to fail.
    pub(super) fn call<T>(
        &self,
        kind: Kind,
        what: impl FnOnce() -> String,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let at = self.linux.now();
        let failed = self.record.borrow_mut().fails(kind, at, self.open.get());
        let result = match failed {
            Some(errno) => Err(errno.into()),
            None => make(),
        };
        let record = &mut *self.record.borrow_mut();
        record.made += 1;
        let error = result.as_ref().err().map(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        if let Some(last) = record.calls.last_mut() {
            if last.injected && failed.is_some() && last.kind == kind {
                last.times += 1;
                return result;
            }
        }
        let injected = failed.is_some();
        let outcome = error.map_or(Ok(()), Err);
        record.calls.push(Call { at, kind, what: what(), result: outcome, injected, times: 1 });
        result
    }

    fn file(&self, fd: OwnedFd, path: PathBuf) -> File {
        self.open.set(self.open.get() + 1);
        File { fd, path, open: Rc::clone(&self.open) }
    }

    /// Files that are open now.
    pub(super) fn open_files(&self) -> u32 {
        self.open.get()
    }

    /// Takes note of a freeze and a thaw.
    fn note_write(&self, file: &File, text: &[u8]) {
        let freezes = match (file.path.file_name().map(OsStr::as_bytes), text) {
            (Some(b"freezer.state"), b"FROZEN") | (Some(b"cgroup.freeze"), b"1") => true,
            (Some(b"freezer.state"), b"THAWED") | (Some(b"cgroup.freeze"), b"0") => false,
            _ => return,
        };
        // The number of a file, for there are several paths to it.
        let Ok(stat) = self.linux.stat(Some(&file.fd), c"") else { return };
        let (file, now) = ((stat.dev, stat.ino), self.linux.now());
        let frozen = &mut self.record.borrow_mut().frozen;
        let open = frozen.iter_mut().find(|frozen| frozen.file == file && frozen.until.is_none());
        match (open, freezes) {
            (None, true) => frozen.push(Frozen { file, since: now, until: None }),
            (Some(open), false) => open.until = Some(now),
            _ => {}
        }
    }
}

impl fmt::Debug for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failing").finish_non_exhaustive()
    }
}

fn joined(at: Option<&File>, path: &CStr) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    // Without the `.` in between.
    at.map_or_else(|| path.to_path_buf(), |at| at.path.join(path)).components().collect()
}

fn shown(at: Option<&File>, path: &CStr) -> String {
    joined(at, path).display().to_string()
}

impl Sys for Failing {
    type Fd = File;

    fn now(&self) -> Duration {
        self.linux.now()
    }

    fn release(&self) -> (u32, u32) {
        self.linux.release()
    }

    fn descriptor_limit(&self) -> Option<usize> {
        self.linux.descriptor_limit()
    }

    fn caller(&self) -> (Pid, Pid) {
        self.linux.caller()
    }

    fn open(&self, at: Option<&File>, path: &CStr, how: Open) -> io::Result<File> {
        let make = || {
            let fd = self.linux.open(at.map(|at| &at.fd), path, how)?;
            Ok(self.file(fd, joined(at, path)))
        };
        self.call(Kind::of_open(how), || shown(at, path), make)
    }

    fn duplicate(&self, fd: BorrowedFd<'_>) -> io::Result<File> {
        let make = || Ok(self.file(self.linux.duplicate(fd)?, "duplicate".into()));
        self.call(Kind::of_open(Open::Place), || "duplicate".into(), make)
    }

    fn path_of(&self, fd: &File) -> io::Result<PathBuf> {
        self.call(Kind::ReadLink, || fd.path.display().to_string(), || self.linux.path_of(&fd.fd))
    }

    fn open_identity(&self, mount: &File, ino: u64) -> io::Result<File> {
        let path = || mount.path.join(format!("#{ino}"));
        let make = || Ok(self.file(self.linux.open_identity(&mount.fd, ino)?, path()));
        self.call(Kind::OpenIdentity, || path().display().to_string(), make)
    }

    fn read_at(&self, fd: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let what = || fd.path.display().to_string();
        self.call(Kind::Read, what, || self.linux.read_at(&fd.fd, buffer, offset))
    }

    fn write(&self, fd: &File, text: &[u8]) -> io::Result<()> {
        let what = || format!("{} to {}", String::from_utf8_lossy(text), fd.path.display());
        self.call(Kind::Write, what, || {
            self.linux.write(&fd.fd, text)?;
            self.note_write(fd, text);
            Ok(())
        })
    }

    fn stat(&self, at: Option<&File>, path: &CStr) -> io::Result<Stat> {
        self.call(Kind::Stat, || shown(at, path), || self.linux.stat(at.map(|at| &at.fd), path))
    }

    fn has_attribute(&self, fd: &File, name: &CStr) -> io::Result<bool> {
        let what = || format!("{} of {}", name.to_string_lossy(), fd.path.display());
        self.call(Kind::Attribute, what, || self.linux.has_attribute(&fd.fd, name))
    }

    fn filesystem(&self, fd: &File) -> io::Result<i64> {
        self.call(Kind::Filesystem, || fd.path.display().to_string(), || self.linux.filesystem(&fd.fd))
    }

    fn subdirectories(&self, at: &File, path: &CStr) -> io::Result<Vec<OsString>> {
        self.call(Kind::List, || shown(Some(at), path), || self.linux.subdirectories(&at.fd, path))
    }

    fn rmdir(&self, at: Option<&File>, path: &CStr) -> io::Result<()> {
        self.call(Kind::Rmdir, || shown(at, path), || self.linux.rmdir(at.map(|at| &at.fd), path))
    }

    fn pidfd_open(&self, pid: Pid) -> io::Result<File> {
        let make = || Ok(self.file(self.linux.pidfd_open(pid)?, format!("pidfd:{pid}").into()));
        self.call(Kind::PidfdOpen, || pid.to_string(), make)
    }

    fn pidfd_of_thread(&self, tid: Pid) -> io::Result<File> {
        let make = || Ok(self.file(self.linux.pidfd_of_thread(tid)?, format!("pidfd:{tid}").into()));
        self.call(Kind::PidfdOfThread, || tid.to_string(), make)
    }

    fn cgroup_of(&self, pidfd: &File) -> io::Result<u64> {
        self.call(Kind::CgroupOf, || pidfd.path.display().to_string(), || self.linux.cgroup_of(&pidfd.fd))
    }

    fn process_of(&self, pidfd: &File) -> io::Result<Pid> {
        self.call(Kind::ProcessOf, || pidfd.path.display().to_string(), || self.linux.process_of(&pidfd.fd))
    }

    fn is_own_thread(&self, tid: Pid) -> bool {
        self.linux.is_own_thread(tid)
    }

    fn pidfd_send_signal(&self, pidfd: &File, signal: i32) -> io::Result<()> {
        let what = || format!("{signal} to {}", pidfd.path.display());
        self.call(Kind::Signal, what, || self.linux.pidfd_send_signal(&pidfd.fd, signal))
    }

    fn has_exited(&self, pidfd: &File) -> io::Result<bool> {
        self.call(Kind::HasExited, || pidfd.path.display().to_string(), || self.linux.has_exited(&pidfd.fd))
    }

    fn kill(&self, pid: Pid, signal: i32) -> io::Result<()> {
        self.call(Kind::Kill, || format!("{signal} to {pid}"), || self.linux.kill(pid, signal))
    }

    fn process_mrelease(&self, pidfd: &File) -> io::Result<()> {
        self.linux.process_mrelease(&pidfd.fd)
    }
}
