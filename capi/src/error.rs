//! The errors that functions return, and the kinds of error that a reap ends with.

use std::ffi::{CStr, c_char, c_int};
use std::io;

use cgroup_reaper::{ReapError, Refusal};

use crate::call::call;

/// What a function returns, negated, when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    /// NULL where an object or a place is wanted, or a value outside of its range.
    pub(crate) const INVALID: Errno = Errno(libc::EINVAL);
    /// An object that was freed, or never was one.
    pub(crate) const FREED: Errno = Errno(libc::EBADF);
    /// A reactor that another thread is using.
    pub(crate) const BUSY: Errno = Errno(libc::EBUSY);
    /// A panic in this library, now or before on this object.
    pub(crate) const PANIC: Errno = Errno(libc::ENOTRECOVERABLE);
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno::from(&error)
    }
}

impl From<&ReapError> for Errno {
    /// That of the kernel where there is one, else one that fits the kind.
    fn from(error: &ReapError) -> Errno {
        if let Some(error) = error.io_error() {
            return Errno::from(error);
        }
        Errno(match error {
            ReapError::TimedOut { .. } => libc::ETIMEDOUT,
            ReapError::Replaced { .. } => libc::ESTALE,
            ReapError::FrozenByAncestor { .. } => libc::EAGAIN,
            ReapError::Cancelled { .. } => libc::ECANCELED,
            ReapError::Disconnected { .. } => libc::EPIPE,
            ReapError::Refused { refusal, .. } => match refusal {
                Refusal::Root { .. } | Refusal::OwnCgroup { .. } => libc::EPERM,
                Refusal::Symlink { .. } => libc::ELOOP,
                Refusal::NotCgroup { .. } => libc::ENOTTY,
                Refusal::NoSuchDirectory { .. } => libc::ENOENT,
                Refusal::Unsupported { .. } => libc::EOPNOTSUPP,
                Refusal::Disconnected => libc::EPIPE,
                _ => libc::EINVAL,
            },
            _ => libc::EIO,
        })
    }
}

/// How a reap ended, or why it did not begin: `cgr_result_kind`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum cgr_kind {
    /// Every process is dead, and the directories are as the outcome says.
    CGR_OK = 0,
    /// The deadline has passed. The survivors say which processes are left.
    CGR_TIMED_OUT = 1,
    /// The target was removed by another party, and another cgroup has its name, which was not touched.
    CGR_REPLACED = 2,
    /// Something that has to be done was refused by the kernel; the message says what.
    CGR_DENIED = 3,
    /// A freeze outside of the target has held its members for longer than the freeze timeout.
    CGR_FROZEN_BY_ANCESTOR = 4,
    /// It was cancelled.
    CGR_CANCELLED = 5,
    /// The reactor was freed first.
    CGR_DISCONNECTED = 6,
    /// The target or an option is one that is not allowed. Nothing was touched.
    CGR_REFUSED = 7,
    /// The target could not be checked. Nothing was touched.
    CGR_IO = 8,
    /// Of `cgr_reap`: its event loop could not be made, or failed. Of a reactor on a 32-bit machine: it can take no more
    /// reaps.
    CGR_REACTOR = 9,
    /// An error of a kind that this header does not know yet; the message says which.
    CGR_OTHER = 10,
}

use cgr_kind::*;

/// The kinds that are errors, by the word that the library has for each.
const KINDS: [(cgr_kind, &CStr); 9] = [
    (CGR_TIMED_OUT, c"timed-out"),
    (CGR_REPLACED, c"replaced"),
    (CGR_DENIED, c"denied"),
    (CGR_FROZEN_BY_ANCESTOR, c"frozen-by-ancestor"),
    (CGR_CANCELLED, c"cancelled"),
    (CGR_DISCONNECTED, c"disconnected"),
    (CGR_REFUSED, c"refused"),
    (CGR_IO, c"io"),
    (CGR_REACTOR, c"reactor"),
];

/// The kind of an error.
pub(crate) fn kind(error: &ReapError) -> cgr_kind {
    let word = error.kind().as_bytes();
    let known = KINDS.iter().find(|(_, known)| known.to_bytes() == word);
    known.map_or(CGR_OTHER, |(kind, _)| *kind)
}

/// Returns the word for a kind, for logs: "ok", "timed-out", "replaced", "denied", "frozen-by-ancestor", "cancelled",
/// "disconnected", "refused", "io", "reactor", and "other" for every number else.
///
/// Any thread. Never NULL; the text is the library's.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_kind_name(kind: c_int) -> *const c_char {
    call(|| {
        let known = KINDS.iter().find(|(known, _)| *known as c_int == kind);
        let word = known.map(|(_, word)| *word);
        Ok(word.unwrap_or(if kind == CGR_OK as c_int { c"ok" } else { c"other" }).as_ptr())
    })
}

#[cfg(test)]
mod tests {
    use cgroup_reaper::{Act, KillMethod, Reaper, SpawnError};

    use super::*;

    fn io_error() -> io::Error {
        io::Error::from_raw_os_error(libc::EROFS)
    }

    fn refused(refusal: Refusal) -> ReapError {
        SpawnError::new(Reaper::at("/c"), refusal).into()
    }

    #[test]
    fn every_error_has_a_kind_and_an_errno() {
        for (error, kind_of_it, errno) in [
            (ReapError::timed_out("/c", Vec::new()), CGR_TIMED_OUT, libc::ETIMEDOUT),
            (ReapError::replaced("/c"), CGR_REPLACED, libc::ESTALE),
            (ReapError::denied("/c", Act::Kill, "/c", io_error()), CGR_DENIED, libc::EROFS),
            (ReapError::frozen_by_ancestor("/c", None), CGR_FROZEN_BY_ANCESTOR, libc::EAGAIN),
            (ReapError::cancelled("/c"), CGR_CANCELLED, libc::ECANCELED),
            (ReapError::disconnected("/c"), CGR_DISCONNECTED, libc::EPIPE),
            (ReapError::Reactor(io_error().into()), CGR_REACTOR, libc::EROFS),
            (refused(Refusal::io("/c", io_error())), CGR_IO, libc::EROFS),
            (refused(Refusal::Disconnected), CGR_DISCONNECTED, libc::EPIPE),
            (refused(Refusal::root("/c")), CGR_REFUSED, libc::EPERM),
            (refused(Refusal::own_cgroup("/c")), CGR_REFUSED, libc::EPERM),
            (refused(Refusal::symlink("/c")), CGR_REFUSED, libc::ELOOP),
            (refused(Refusal::not_cgroup("/c")), CGR_REFUSED, libc::ENOTTY),
            (refused(Refusal::no_such_directory("/c")), CGR_REFUSED, libc::ENOENT),
            (refused(Refusal::unsupported(KillMethod::Freezer, "/c")), CGR_REFUSED, libc::EOPNOTSUPP),
            (refused(Refusal::EmptyName), CGR_REFUSED, libc::EINVAL),
        ] {
            assert_eq!((kind(&error), Errno::from(&error)), (kind_of_it, Errno(errno)), "{error}");
        }
        assert_eq!(Errno::from(io::Error::other("no number")), Errno(libc::EIO));
    }
}
