//! [`EntryId`]: which entry a notification, a timer or a command is for.

use std::num::NonZeroUsize;

/// The number of bits of an id that are the slab key; the other bits are the entry's generation.
const KEY_BITS: u32 = usize::BITS / 2;
const KEY_MASK: usize = (1 << KEY_BITS) - 1;

/// A slab key, and the generation that tells the entry from a later one with the same key.
///
/// Fits into the token of a poll. It is never 0, and never one of the highest tokens, which the reactor uses for its
/// timer and waker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId(NonZeroUsize);

impl EntryId {
    pub(crate) fn from_token(token: usize) -> Option<EntryId> {
        NonZeroUsize::new(token).map(EntryId)
    }

    pub(crate) fn token(self) -> usize {
        self.0.get()
    }

    pub(crate) fn key(self) -> usize {
        self.0.get() & KEY_MASK
    }
}

/// The generation of the last entry: from 1 on, and never all ones.
#[derive(Debug, Default)]
pub(crate) struct Generation(usize);

impl Generation {
    /// The id of the next entry, which gets this slab key; `None` if the key has too many bits.
    pub(crate) fn next(&mut self, key: usize) -> Option<EntryId> {
        if key >= KEY_MASK {
            return None;
        }
        self.0 = if self.0 + 1 < KEY_MASK { self.0 + 1 } else { 1 };
        EntryId::from_token((self.0 << KEY_BITS) + key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_used_again_gets_another_id() {
        let mut generation = Generation::default();
        let (first, second) = (generation.next(7).unwrap(), generation.next(7).unwrap());
        assert_eq!((first.key(), second.key()), (7, 7));
        assert_ne!(first, second);
        assert_eq!(EntryId::from_token(first.token()), Some(first));
    }

    #[test]
    fn the_lowest_and_the_highest_tokens_are_never_given_out() {
        assert_eq!(EntryId::from_token(0), None);
        let mut generation = Generation(KEY_MASK - 2);
        let last = generation.next(KEY_MASK - 1).unwrap();
        assert!(last.token() < usize::MAX - KEY_MASK);
        assert_eq!(generation.next(0).unwrap().token(), 1 << KEY_BITS);
        assert_eq!(generation.next(KEY_MASK), None);
    }
}
