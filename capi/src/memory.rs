//! Memory of the caller's: what its pointers lead to is read and written here, and nowhere else.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::slice;

use crate::error::Errno;

/// A place for one value; NULL is refused.
///
/// # Safety
///
/// `place` is NULL, or aligned and good for writes of a `T` as long as `'a`.
pub(crate) unsafe fn place<'a, T>(place: *mut T) -> Result<&'a mut MaybeUninit<T>, Errno> {
    // SAFETY: the caller's promise; whatever is there fits a `MaybeUninit`.
    unsafe { optional_place(place) }.ok_or(Errno::INVALID)
}

/// A place for one value, or none for NULL.
///
/// # Safety
///
/// As for [`place`].
pub(crate) unsafe fn optional_place<'a, T>(place: *mut T) -> Option<&'a mut MaybeUninit<T>> {
    // SAFETY: the caller's promise; whatever is there fits a `MaybeUninit`.
    unsafe { place.cast::<MaybeUninit<T>>().as_mut() }
}

/// Places for `count` values.
///
/// # Safety
///
/// `places` is NULL, or aligned and good for writes of `count` values as long as `'a`.
pub(crate) unsafe fn places<'a, T>(places: *mut T, count: usize) -> Result<&'a mut [MaybeUninit<T>], Errno> {
    if places.is_null() || count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Errno::INVALID);
    }
    // SAFETY: the caller's promise, and the size is one that a slice may have.
    Ok(unsafe { slice::from_raw_parts_mut(places.cast(), count) })
}

/// Writes a struct that may have grown since the caller was compiled: as many bytes of it as the caller's has. What the
/// caller's has more than this one becomes 0.
///
/// # Safety
///
/// `place` is NULL, or good for writes of `size` bytes. `T` is one that C has too (`repr(C)`).
pub(crate) unsafe fn write_sized<T: Copy>(place: *mut T, size: usize, value: &T) -> Result<(), Errno> {
    if place.is_null() {
        return Err(Errno::INVALID);
    }
    let place = place.cast::<u8>();
    let common = size.min(size_of::<T>());
    // SAFETY: the caller's promise for `size` bytes, of which `common` are no more; and `value` has at least `common`.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), place, common);
        ptr::write_bytes(place.add(common), 0, size - common);
    }
    Ok(())
}

/// A path or a name; NULL is refused.
///
/// # Safety
///
/// `text` is NULL, or leads to bytes that end with a 0 and stay as they are as long as `'a`.
pub(crate) unsafe fn path<'a>(text: *const c_char) -> Result<&'a Path, Errno> {
    if text.is_null() {
        return Err(Errno::INVALID);
    }
    // SAFETY: the caller's promise.
    Ok(Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes())))
}

/// Paths or names; NULL is refused, also among them.
///
/// # Safety
///
/// `texts` is NULL, or leads to `count` pointers that are each as for [`path`].
pub(crate) unsafe fn paths<'a>(texts: *const *const c_char, count: usize) -> Result<Vec<&'a Path>, Errno> {
    if texts.is_null() || count > isize::MAX as usize / size_of::<*const c_char>() {
        return Err(Errno::INVALID);
    }
    // SAFETY: the caller's promise, and the size is one that a slice may have.
    let texts = unsafe { slice::from_raw_parts(texts, count) };
    // SAFETY: the caller's promise for each of them.
    texts.iter().map(|text| unsafe { path(*text) }).collect()
}

/// Bytes that C can read up to a 0. One that is among them would end them early.
pub(crate) fn text(bytes: impl Into<Vec<u8>>) -> CString {
    let mut bytes = bytes.into();
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
    CString::new(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_of_another_size_is_written_as_far_as_it_goes() {
        let value = [1u32, 2, 3];
        let mut caller = [7u32; 5];
        // SAFETY: within the array, which is larger.
        unsafe { write_sized(caller.as_mut_ptr().cast(), 8, &value) }.unwrap();
        assert_eq!(caller, [1, 2, 7, 7, 7]);
        // SAFETY: as before.
        unsafe { write_sized(caller.as_mut_ptr().cast(), 16, &value) }.unwrap();
        assert_eq!(caller, [1, 2, 3, 0, 7]);
        // SAFETY: nothing is written.
        unsafe { write_sized(caller.as_mut_ptr().cast(), 0, &value) }.unwrap();
        assert_eq!(caller, [1, 2, 3, 0, 7]);
    }

    #[test]
    fn a_text_ends_where_its_bytes_do() {
        assert_eq!(text("a\0b").as_bytes(), b"a?b");
        assert_eq!(text(vec![0xff]).as_bytes(), [0xff]);
    }
}
