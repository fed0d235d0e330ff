//! How many descriptors reaps may hold.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

/// The descriptors that the reaps of one reactor hold.
///
/// The reaps of all reactors of a process may hold three quarters of RLIMIT_NOFILE, and another eighth for jobs of helper
/// threads. The rest is for the caller, for descriptors that a step opens for a moment (a write to `cgroup.kill` takes one),
/// and for the few that all reaps in a hierarchy share. The budget is only a ceiling: the caller may have used up more. A reap
/// that gets no permit is addressed by path and checked by timer, and asks again at its next check.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    all: Arc<All>,
    used: AtomicUsize,
    /// Whether descriptors of directories may be held.
    directories: bool,
}

/// Descriptors of the jobs that the threads of one reactor do at once: a removal has two.
const JOBS: usize = 8;

/// The budget that reactors share.
#[derive(Debug)]
struct All {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// The budget of this process.
static PROCESS: LazyLock<Arc<All>> = LazyLock::new(|| Arc::new(All::new()));

impl All {
    fn new() -> All {
        All { limit: AtomicUsize::new(0), used: AtomicUsize::new(0) }
    }
}

impl Budget {
    /// A reactor's part of this process's budget, with permits for `directories` or without.
    pub(crate) fn of_process(directories: bool) -> Budget {
        Budget::part_of(Arc::clone(&PROCESS), directories)
    }

    fn part_of(all: Arc<All>, directories: bool) -> Budget {
        Budget { inner: Arc::new(Inner { all, used: AtomicUsize::new(0), directories }) }
    }

    /// A budget of its own, as of a process that may have `nofile` descriptors.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new(nofile: usize) -> Budget {
        let budget = Budget::part_of(Arc::new(All::new()), true);
        budget.set_limit(nofile);
        budget
    }

    /// Another reactor's part of the same budget.
    #[cfg(test)]
    pub(crate) fn share(&self) -> Budget {
        Budget::part_of(Arc::clone(&self.inner.all), self.inner.directories)
    }

    /// Notes how many descriptors the process may have.
    pub(crate) fn set_limit(&self, nofile: usize) {
        self.inner.all.limit.store(nofile - nofile / 4, Relaxed);
    }

    /// A permit for a watch. Without one a reap is checked by timer.
    pub(crate) fn take(&self) -> Option<Permit> {
        self.take_below(self.inner.all.limit.load(Relaxed))
    }

    /// A permit for a target's directory. Without one, the directory is reached by its path. Half of the budget is
    /// left for watches.
    pub(crate) fn take_optional(&self) -> Option<Permit> {
        if self.inner.directories { self.take_spare() } else { None }
    }

    /// A permit for a descriptor that a reap can do without. Half of the budget is left for watches.
    pub(crate) fn take_spare(&self) -> Option<Permit> {
        self.take_below(self.inner.all.limit.load(Relaxed) / 2)
    }

    /// A permit for a descriptor of a job that the loop itself must not do. If waiting reaps hold the whole budget, an eighth of
    /// RLIMIT_NOFILE is left for such jobs, and always enough for one on each thread.
    pub(crate) fn take_for_job(&self) -> Option<Permit> {
        let limit = self.inner.all.limit.load(Relaxed);
        self.take_below(limit.saturating_add((limit / 6).max(JOBS)))
    }

    /// A permit for a descriptor that a reap cannot do without, even if the limit is reached.
    pub(crate) fn take_needed(&self) -> Permit {
        self.inner.all.used.fetch_add(1, Relaxed);
        self.inner.used.fetch_add(1, Relaxed);
        Permit { budget: self.clone() }
    }

    fn take_below(&self, limit: usize) -> Option<Permit> {
        let fits = |used: usize| (used < limit).then_some(used + 1);
        self.inner.all.used.fetch_update(Relaxed, Relaxed, fits).ok()?;
        self.inner.used.fetch_add(1, Relaxed);
        Some(Permit { budget: self.clone() })
    }

    /// Descriptors permitted to this reactor now.
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
        self.budget.inner.all.used.fetch_sub(1, Relaxed);
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
        let for_jobs: Vec<Permit> = std::iter::from_fn(|| budget.take_for_job()).collect();
        assert_eq!(for_jobs.len(), 8);
        drop((watches, for_jobs));
        assert_eq!(budget.used(), 0);
        let optional: Vec<Permit> = std::iter::from_fn(|| budget.take_optional()).collect();
        assert_eq!(optional.len(), 3);
        assert!(budget.take().is_some());
        assert!(Budget::new(0).take().is_none());
        assert!(Budget::new(usize::MAX).take().is_some());
    }

    #[test]
    fn reactors_share_a_limit_that_may_change() {
        let one = Budget::new(8);
        let other = one.share();
        let permits: Vec<Permit> = std::iter::from_fn(|| one.take()).collect();
        assert!(other.take().is_none());
        assert_eq!((one.used(), other.used()), (6, 0));
        other.set_limit(12);
        assert!(other.take().is_some());
        drop(permits);
        assert_eq!(one.used(), 0);
    }
}
