//! The frame of every exported function: what it returns on failure, and the end of every panic.

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::error::Errno;

/// What a function returns to C.
pub(crate) trait Answer {
    /// What says that the call failed.
    fn failure(errno: Errno) -> Self;
}

impl Answer for c_int {
    fn failure(errno: Errno) -> c_int {
        -errno.0
    }
}

impl Answer for u64 {
    fn failure(_: Errno) -> u64 {
        0
    }
}

impl Answer for *const c_char {
    fn failure(_: Errno) -> *const c_char {
        ptr::null()
    }
}

impl Answer for () {
    fn failure(_: Errno) {}
}

/// Runs the body of an exported function. A panic in it is a failure: [`Errno::PANIC`].
///
/// What a panic may have left half done is behind a mutex, which is poisoned then and refuses further calls.
pub(crate) fn call<T: Answer>(body: impl FnOnce() -> Result<T, Errno>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(errno)) => T::failure(errno),
        Err(panic) => {
            // The destructor of what was thrown may panic in its turn.
            let mut thrown = Some(panic);
            while let Some(panic) = thrown {
                thrown = catch_unwind(AssertUnwindSafe(|| drop(panic))).err();
            }
            T::failure(Errno::PANIC)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(call::<c_int>(|| panic!("once")), -libc::ENOTRECOVERABLE);
        assert_eq!(call::<c_int>(|| std::panic::panic_any(Bomb)), -libc::ENOTRECOVERABLE);
        assert_eq!(call::<u64>(|| panic!("once")), 0);
        assert!(call::<*const c_char>(|| panic!("once")).is_null());
        call::<()>(|| panic!("once"));
        assert_eq!(call::<c_int>(|| Err(Errno::INVALID)), -libc::EINVAL);
        assert_eq!(call::<c_int>(|| Ok(7)), 7);
    }
}
