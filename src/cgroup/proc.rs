//! [`Proc`]: facts about processes from /proc, if /proc is of the caller's pid namespace.
//!
//! In a container, /proc can be of another pid namespace. Its pids are then those of other processes.

use std::io;
use std::path::Path;

use super::errors::is_gone;
use super::file::{self, c_path};
use crate::sys::{Open, Pid, Sys};

/// `PF_EXITING` and `PF_KTHREAD` of `linux/sched.h`.
const PF_EXITING: u64 = 0x0000_0004;
const PF_KTHREAD: u64 = 0x0020_0000;

/// A /proc that is known to be of the caller's pid namespace.
pub(crate) struct Proc<'a, S: Sys> {
    pub(super) sys: &'a S,
    directory: S::Fd,
}

impl<'a, S: Sys> Proc<'a, S> {
    /// Opens /proc. `None` if there is none, or it is of another pid namespace.
    pub(crate) fn open(sys: &'a S) -> io::Result<Option<Proc<'a, S>>> {
        match Proc::try_open(sys) {
            Err(error) if is_gone(&error) => Ok(None),
            result => result,
        }
    }

    fn try_open(sys: &'a S) -> io::Result<Option<Proc<'a, S>>> {
        let proc = Proc { sys, directory: sys.open(None, c"/proc", Open::Place)? };
        let status = proc.read_path("self/status")?;
        // proc_pid_status(5): the id in the pid namespace of /proc and in each nested one down to the process's own.
        // There is a single number only if the two namespaces are the same.
        let ids = field(&status, b"NSpid:").unwrap_or_default();
        let mut ids = ids.split(u8::is_ascii_whitespace).filter(|id| !id.is_empty());
        let own = sys.caller().0.to_string();
        Ok((ids.next() == Some(own.as_bytes()) && ids.next().is_none()).then_some(proc))
    }

    fn read_path(&self, path: &str) -> io::Result<Vec<u8>> {
        file::read(self.sys, &self.directory, Path::new(""), &c_path(path.as_ref())?)
    }

    /// Reads the whole of a file of a process.
    pub(crate) fn read(&self, pid: Pid, file: &str) -> io::Result<Vec<u8>> {
        self.read_path(&format!("{pid}/{file}"))
    }

    /// Returns the threads of the caller's process, with the text of each one's `cgroup` file.
    pub(crate) fn own_threads(&self) -> io::Result<Vec<(Pid, Vec<u8>)>> {
        let mut found = Vec::new();
        for name in self.sys.subdirectories(&self.directory, c"self/task")? {
            let Some(tid) = name.to_str().and_then(|name| Pid::new(name.parse().ok()?)) else { continue };
            if let Some(text) = unless_exited(self.read_path(&format!("self/task/{tid}/cgroup")))? {
                found.push((tid, text));
            }
        }
        Ok(found)
    }

    /// Whether a thread of the caller's process still exists.
    pub(crate) fn has_own_thread(&self, tid: Pid) -> bool {
        self.read_path(&format!("self/task/{tid}/cgroup")).is_ok()
    }

    /// Returns the process of a thread.
    pub(crate) fn process_of(&self, tid: Pid) -> io::Result<Pid> {
        let status = self.read(tid, "status")?;
        field(&status, b"Tgid:")
            .and_then(|pid| std::str::from_utf8(pid.trim_ascii()).ok()?.parse().ok())
            .and_then(Pid::new)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Tgid in /proc/TID/status"))
    }

    /// The resident anonymous memory of a process, in bytes (`RssAnon`, Linux 4.5).
    pub(crate) fn anonymous_memory(&self, pid: Pid) -> io::Result<u64> {
        let status = self.read(pid, "status")?;
        field(&status, b"RssAnon:").and_then(kilobytes).ok_or_else(|| {
            // A process that has released its memory has no such line.
            io::Error::new(io::ErrorKind::InvalidData, "no RssAnon in /proc/PID/status")
        })
    }

    /// Returns the threads of a process.
    pub(super) fn threads_of(&self, pid: Pid) -> io::Result<Vec<Pid>> {
        let names = self.sys.subdirectories(&self.directory, &c_path(format!("{pid}/task").as_ref())?)?;
        Ok(names.iter().filter_map(|name| Pid::new(name.to_str()?.parse().ok()?)).collect())
    }

    /// Whether a process is exiting, with all its threads. `/proc/PID/stat` tells this of the main thread only.
    pub(crate) fn is_exiting(&self, pid: Pid) -> io::Result<bool> {
        if !self.stat(pid)?.is_exiting() {
            return Ok(false);
        }
        for tid in self.threads_of(pid)? {
            let text = unless_exited(self.read(pid, &format!("task/{tid}/stat")))?;
            if text.and_then(|text| ProcStat::parse(&text)).is_some_and(|stat| !stat.is_exiting()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads `/proc/PID/stat` of a process.
    pub(crate) fn stat(&self, pid: Pid) -> io::Result<ProcStat> {
        ProcStat::parse(&self.read(pid, "stat")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat makes no sense"))
    }
}

/// Passes on what was read of a process or a thread; `None` if it has exited.
pub(super) fn unless_exited<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        read => read.map(Some),
    }
}

/// The rest of the line that begins with `name`.
fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name))
}

/// The bytes of a number of kilobytes, as in `   524 kB`.
fn kilobytes(text: &[u8]) -> Option<u64> {
    let number = text.trim_ascii().strip_suffix(b" kB")?;
    std::str::from_utf8(number).ok()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A line of `/proc/PID/stat`, proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcStat {
    /// The state letter.
    pub(crate) state: char,
    flags: u64,
}

impl ProcStat {
    /// The name is in parentheses and may contain some; then come the state and, six fields on, the flags.
    pub(crate) fn parse(text: &[u8]) -> Option<ProcStat> {
        let end = text.iter().rposition(|&b| b == b')')?;
        let mut fields = text[end + 1..].split(|&b| b == b' ').filter(|field| !field.is_empty());
        let state = char::from(*fields.next()?.first()?);
        let flags = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
        Some(ProcStat { state, flags })
    }

    pub(crate) fn is_exiting(self) -> bool {
        self.flags & PF_EXITING != 0
    }

    pub(crate) fn is_kernel_thread(self) -> bool {
        self.flags & PF_KTHREAD != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_may_be_anything() {
        let stat = ProcStat::parse(b"7 (a) R (b) D 1 1 1 0 -1 2097156 0 0").unwrap();
        assert_eq!(stat.state, 'D');
        assert!(stat.is_exiting() && stat.is_kernel_thread());
        let stat = ProcStat::parse(b"7 () S 1 1 1 0 -1 4194560 0").unwrap();
        assert!(!stat.is_exiting() && !stat.is_kernel_thread());
    }

    #[test]
    fn memory_is_in_kilobytes() {
        assert_eq!(
            field(b"VmRSS:\t 9 kB\nRssAnon:\t     524 kB\n", b"RssAnon:").and_then(kilobytes),
            Some(524 << 10)
        );
        for text in [&b""[..], b"524", b"x kB", b"-1 kB", b"18446744073709551615 kB"] {
            assert_eq!(kilobytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn garbage_is_no_stat() {
        for text in
            [&b""[..], b"7", b"7 (x)", b"7 (x) ", b"7 (x) S 1 1 1 0 -1", b"7 (x) S 1 1 1 0 -1 x", b")"]
        {
            assert_eq!(ProcStat::parse(text), None, "{text:?}");
        }
    }
}
