//! `/proc/PID/stat`, proc_pid_stat(5).

use super::file::read_path;
use crate::sys::{Pid, Sys};

/// `PF_EXITING` and `PF_KTHREAD` of `linux/sched.h`.
const PF_EXITING: u64 = 0x0000_0004;
const PF_KTHREAD: u64 = 0x0020_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its state letter.
    pub(crate) state: char,
    flags: u64,
}

impl Stat {
    pub(crate) fn is_exiting(self) -> bool {
        self.flags & PF_EXITING != 0
    }

    pub(crate) fn is_kernel_thread(self) -> bool {
        self.flags & PF_KTHREAD != 0
    }
}

/// What /proc says of a process, if it does.
pub(crate) fn stat<S: Sys>(sys: &S, pid: Pid) -> Option<Stat> {
    parse(&read_path(sys, format!("/proc/{pid}/stat").as_ref()).ok()?)
}

/// The name is in parentheses and may contain some; then come the state and, six fields on, the flags.
fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|&b| b == b')')?;
    let mut fields = text[end + 1..].split(|&b| b == b' ').filter(|field| !field.is_empty());
    let state = char::from(*fields.next()?.first()?);
    let flags = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
    Some(Stat { state, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_may_be_anything() {
        let stat = parse(b"7 (a) R (b) D 1 1 1 0 -1 2097156 0 0").unwrap();
        assert_eq!(stat.state, 'D');
        assert!(stat.is_exiting() && stat.is_kernel_thread());
        let stat = parse(b"7 () S 1 1 1 0 -1 4194560 0").unwrap();
        assert!(!stat.is_exiting() && !stat.is_kernel_thread());
    }

    #[test]
    fn garbage_is_no_stat() {
        for text in
            [&b""[..], b"7", b"7 (x)", b"7 (x) ", b"7 (x) S 1 1 1 0 -1", b"7 (x) S 1 1 1 0 -1 x", b")"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
