//! Which library this is.

use std::ffi::c_char;

use crate::call::call;

/// Returns the version of the library that the program runs with, such as "0.1.0".
///
/// Any thread. Never NULL; the text is the library's.
#[unsafe(no_mangle)]
pub extern "C" fn cgr_version() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version without a 0"),
        };
    call(|| Ok(VERSION.as_ptr()))
}
