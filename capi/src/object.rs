//! The objects that C programs hold, by ids that look like pointers.
//!
//! An id is used once, so that a call with one that was freed finds nothing, whatever was made since. A call keeps its object
//! alive until it returns, so that another thread may free it meanwhile.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Errno;

/// A type that C holds.
pub(crate) trait Object: Send + Sync + Sized + 'static {
    /// Where those that are alive are.
    fn table() -> &'static Table<Self>;
}

/// Those of one type that are alive.
pub(crate) struct Table<T> {
    objects: Mutex<Objects<T>>,
}

struct Objects<T> {
    alive: BTreeMap<usize, Arc<T>>,
    last: usize,
    /// In the low bits of each id, so that no two types share one.
    kind: usize,
}

/// How many types there can be.
const KINDS: usize = 8;

impl<T> Table<T> {
    /// `kind` is another for each type, below [`KINDS`].
    pub(crate) const fn new(kind: usize) -> Table<T> {
        assert!(kind < KINDS);
        Table { objects: Mutex::new(Objects { alive: BTreeMap::new(), last: kind, kind }) }
    }

    fn lock(&self) -> MutexGuard<'_, Objects<T>> {
        // No code of an object runs under the lock.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Objects<T> {
    /// The first is not 0, which is NULL. After the last of a 32-bit machine they start over, without those in use.
    fn next(&mut self) -> usize {
        loop {
            self.last = self.last.checked_add(KINDS).unwrap_or(KINDS + self.kind);
            if !self.alive.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

/// Makes an object that C holds from now on, until it frees it.
pub(crate) fn new<T: Object>(value: T) -> *mut T {
    let value = Arc::new(value);
    let mut objects = T::table().lock();
    let id = objects.next();
    objects.alive.insert(id, value);
    ptr::without_provenance_mut(id)
}

/// The object of this id; an error for NULL and for one that is not alive.
pub(crate) fn get<T: Object>(id: *const T) -> Result<Arc<T>, Errno> {
    if id.is_null() {
        return Err(Errno::INVALID);
    }
    T::table().lock().alive.get(&id.addr()).cloned().ok_or(Errno::FREED)
}

/// Takes an object from C, and returns it if there is one. From then on its id is that of a freed object.
pub(crate) fn remove<T: Object>(id: *mut T) -> Option<Arc<T>> {
    T::table().lock().alive.remove(&id.addr())
}

/// Takes an object from C, and drops it. Without one, nothing is done.
pub(crate) fn free<T: Object>(id: *mut T) {
    let object = remove(id);
    // Not under the lock: the end of a reactor takes its time.
    drop(object);
}

/// Makes a type one that C holds.
macro_rules! object {
    ($type:ty, $kind:literal) => {
        impl $crate::object::Object for $type {
            fn table() -> &'static $crate::object::Table<$type> {
                static TABLE: $crate::object::Table<$type> = $crate::object::Table::new($kind);
                &TABLE
            }
        }
    };
}
pub(crate) use object;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Thing(Arc<AtomicUsize>);

    impl Drop for Thing {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    object!(Thing, 7);

    #[test]
    fn an_object_lives_until_it_is_freed_and_the_last_call_returns() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let one = new(Thing(Arc::clone(&dropped)));
        let call = get(one).unwrap();
        free(one);
        assert_eq!(get(one).err(), Some(Errno::FREED));
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        drop(call);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        // Another does not get its id, and a second free does not take the other.
        let other = new(Thing(Arc::clone(&dropped)));
        assert_ne!(one, other);
        free(one);
        free(ptr::null_mut::<Thing>());
        assert!(get(other).is_ok());
        assert_eq!(get(ptr::null::<Thing>()).err(), Some(Errno::INVALID));
        free(other);
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn ids_start_over_without_those_in_use() {
        let last = usize::MAX - 6;
        let mut objects =
            Objects { alive: BTreeMap::from([(9, Arc::new(())), (17, Arc::new(()))]), last, kind: 1 };
        assert_eq!(objects.next(), 25);
        assert_eq!(objects.next(), 33);
    }
}
