//! The entries that are short of descriptors: in which order they try again, and which give way to them.

use super::{Entries, Entry, tick};
use crate::machine::Machine;
use crate::sys::Sys;

/// How often one of the entries that wait for a descriptor asks whether there is one, in milliseconds.
const PROBE: u64 = 80;

/// Reaps that lose their watches to one that fails for want of descriptors, at a time. It needs three.
const UNWATCHED: usize = 4;

/// Whether an entry has the descriptors that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptors {
    Enough,
    /// It has not, and is in the queue of those that wait for one.
    Waiting,
    /// It has left the queue, and is deferred to try.
    Next,
    /// It tries.
    Trying,
}

impl<S: Sys> Entries<S> {
    /// Notes whether an entry that waits has the descriptors that it wants.
    pub(super) fn note_shortage(&mut self, key: usize, is_short: bool) {
        let Some(entry) = self.slab.get_mut(key) else { return };
        let Entry { machine, descriptors, id, .. } = entry;
        let now = if is_short { Descriptors::Waiting } else { Descriptors::Enough };
        let fails = is_short && machine.is_failing();
        match (std::mem::replace(descriptors, now), now) {
            (Descriptors::Enough | Descriptors::Next | Descriptors::Trying, Descriptors::Waiting) => {
                self.short.push_back(*id);
                self.set_probe();
            }
            // There may be more.
            (Descriptors::Waiting | Descriptors::Next | Descriptors::Trying, Descriptors::Enough) => {
                self.resume_short()
            }
            _ => {}
        }
        if fails {
            self.unwatch(key);
        }
    }

    /// Defers the next of the entries that wait for a descriptor.
    pub(super) fn resume_short(&mut self) {
        while let Some(id) = self.short.pop_front() {
            let Some(entry) = self.get_mut(id) else { continue };
            if entry.descriptors != Descriptors::Waiting {
                continue;
            }
            entry.descriptors = Descriptors::Next;
            if !std::mem::replace(&mut entry.deferred, true) {
                self.deferred.push_back(id);
            }
            break;
        }
        self.set_probe();
    }

    /// Takes watches for another entry to make progress: those of entries that wait for long, or where there are none, of others
    /// that do not fail.
    fn unwatch(&mut self, but: usize) {
        if !self.take_watches(but, Machine::is_patient) {
            self.take_watches(but, |machine| !machine.is_failing());
        }
        self.set_probe();
    }

    /// Takes the watches of some of these entries; whether there were any. They get them back in their turn, and are checked by
    /// timer until then.
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

    /// Sees to it that an entry tries again, if any waits.
    fn set_probe(&mut self) {
        if !self.short.is_empty() {
            let next = tick(&self.resolver.sys).saturating_add(PROBE);
            self.probe.get_or_insert(next);
        }
    }
}
