//! The entries that are short of descriptors: in which order they try again, and which other entries lose their
//! watches to them.

use super::{Entries, Entry, tick};
use crate::machine::Machine;
use crate::sys::Sys;

/// How often one of the entries that wait for a descriptor tries again, in milliseconds.
const PROBE: u64 = 80;

/// The number of reaps that lose their watches at a time to a reap that fails for lack of descriptors. That
/// reap needs three.
const UNWATCHED: usize = 4;

/// Whether an entry has the descriptors that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptors {
    Enough,
    /// It lacks one, and is in the queue of the entries that wait for one.
    Waiting,
    /// It has left the queue, and is deferred, to try again.
    Next,
    /// It tries again now.
    Trying,
}

impl<S: Sys> Entries<S> {
    /// Notes whether an entry, when it waits, has the descriptors that it wants.
    pub(super) fn note_shortage(&mut self, key: usize, is_short: bool) {
        let Some(entry) = self.slab.get_mut(key) else { return };
        let id = entry.id;
        let now = if is_short { Descriptors::Waiting } else { Descriptors::Enough };
        let before = std::mem::replace(&mut entry.descriptors, now);
        let fails = is_short && entry.target.sparing && entry.machine.is_failing();
        let was_starved = self.starved == Some(id);
        if fails {
            self.starved.get_or_insert(id);
            self.unwatch(key);
        } else if was_starved {
            self.starved = None;
        }
        match now {
            Descriptors::Waiting if self.starved == Some(id) => {}
            Descriptors::Waiting if was_starved || before != Descriptors::Waiting => self.short.push_back(id),
            // There may be a free descriptor for the next entry too.
            Descriptors::Enough if before != Descriptors::Enough => self.resume_short(),
            _ => {}
        }
        self.set_probe();
    }

    /// Whether any entry waits for a descriptor.
    pub(super) fn is_any_short(&self) -> bool {
        self.starved.is_some() || !self.short.is_empty()
    }

    /// Defers the starved entry, if there is one, else the next of the entries that wait for a descriptor.
    pub(super) fn resume_short(&mut self) {
        while let Some(id) = self.starved.or_else(|| self.short.pop_front()) {
            let waits = |entry: &&mut Entry<S>| entry.descriptors == Descriptors::Waiting;
            if let Some(entry) = self.get_mut(id).filter(waits) {
                entry.descriptors = Descriptors::Next;
                if !std::mem::replace(&mut entry.deferred, true) {
                    self.deferred.push_back(id);
                }
                break;
            }
            if self.starved.is_some() {
                break;
            }
        }
        self.set_probe();
    }

    /// Takes watches from other entries, so that the entry `but` makes progress: from entries that wait for long, or, where
    /// there are none, from any. Those that fail for lack of descriptors have none.
    fn unwatch(&mut self, but: usize) {
        // Each of many entries that fail would search all entries.
        if self.resolver.budget.used() == 0 {
            return;
        }
        if !self.take_watches(but, Machine::is_patient) {
            self.take_watches(but, |_| true);
        }
    }

    /// Takes the watches of some of the entries that `gives_way` selects. Returns whether there were any. These entries get
    /// their watches back in the order of the queue, and are checked by timer until then.
    fn take_watches(&mut self, but: usize, gives_way: impl Fn(&Machine) -> bool) -> bool {
        let others = self.slab.iter_mut().filter(|(key, entry)| *key != but && gives_way(&entry.machine));
        let unwatched = others.filter_map(|(_, entry)| entry.target.unwatch().then_some(entry));
        let mut any = false;
        for entry in unwatched.take(UNWATCHED) {
            any = true;
            if std::mem::replace(&mut entry.descriptors, Descriptors::Waiting) != Descriptors::Waiting {
                self.short.push_back(entry.id);
            }
        }
        any
    }

    /// Sets the time at which an entry tries again, if any waits.
    fn set_probe(&mut self) {
        if self.is_any_short() {
            let next = tick(&self.resolver.sys).saturating_add(PROBE);
            self.probe.get_or_insert(next);
        }
    }
}
