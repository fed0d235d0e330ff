//! How many descriptors the reaps of a reactor may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Reaps may hold three quarters of RLIMIT_NOFILE. The rest is for the caller, for the descriptors that a step opens for a
/// moment (to write `cgroup.kill` takes one), and for the few that all reaps in a hierarchy share. A reap that gets no
/// permit is addressed by path and checked by timer, and asks again at its next check.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// The budget of a process that may have `nofile` descriptors.
    pub(crate) fn new(nofile: usize) -> Budget {
        Budget { inner: Arc::new(Inner { limit: nofile - nofile / 4, used: AtomicUsize::new(0) }) }
    }

    /// A permit for a watch. Without one a reap is checked by timer.
    pub(crate) fn take(&self) -> Option<Permit> {
        self.take_below(self.inner.limit)
    }

    /// A permit for a target's directory, without which it is reached by its path: half of the budget is for watches.
    pub(crate) fn take_optional(&self) -> Option<Permit> {
        self.take_below(self.inner.limit / 2)
    }

    fn take_below(&self, limit: usize) -> Option<Permit> {
        let fits = |used: usize| (used < limit).then_some(used + 1);
        self.inner.used.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Permit { budget: self.clone() })
    }

    /// Descriptors permitted now.
    pub(crate) fn used(&self) -> usize {
        self.inner.used.load(Relaxed)
    }
}

/// The right to hold one descriptor, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Budget,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.inner.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_come_back_and_a_reserve_is_kept() {
        let budget = Budget::new(8);
        let watches: Vec<Permit> = std::iter::from_fn(|| budget.take()).collect();
        assert_eq!(watches.len(), 6);
        assert!(budget.take_optional().is_none());
        drop(watches);
        assert_eq!(budget.used(), 0);
        let optional: Vec<Permit> = std::iter::from_fn(|| budget.take_optional()).collect();
        assert_eq!(optional.len(), 3);
        assert!(budget.take().is_some());
        assert!(Budget::new(0).take().is_none());
        assert!(Budget::new(usize::MAX).take().is_some());
    }
}
