//! [`Context`]: the parts of a reactor that a step uses. [`Resolver`]: the parts that resolving a target needs.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::descriptor_budget::{Budget, Permit};
use super::facts::Facts;
use super::mounts::Mounts;
use super::own_cgroup::OwnCgroup;
use crate::metrics::Metrics;
use crate::sys::Sys;
use crate::time::Instant;

/// The parts of a reactor that resolving a target needs. A reactor shares them with its remotes.
pub(crate) struct Resolver<S: Sys> {
    pub(crate) sys: S,
    pub(super) own: Arc<Mutex<OwnCgroup<S>>>,
    pub(super) mounts: Arc<Mutex<Mounts<S>>>,
    pub(crate) budget: Budget,
}

impl<S: Sys> Resolver<S> {
    pub(crate) fn new(sys: S, budget: Budget) -> Resolver<S> {
        Resolver { sys, own: Arc::default(), mounts: Arc::default(), budget }
    }

    /// Reads the limit of descriptors anew: it can be changed while the process runs, prlimit(2).
    pub(crate) fn renew_limit(&self) {
        if let Some(limit) = self.sys.descriptor_limit() {
            self.budget.set_limit(limit);
        }
    }
}

impl<S: Sys + Clone> Clone for Resolver<S> {
    fn clone(&self) -> Resolver<S> {
        Resolver {
            sys: self.sys.clone(),
            own: Arc::clone(&self.own),
            mounts: Arc::clone(&self.mounts),
            budget: self.budget.clone(),
        }
    }
}

/// Asks for an [`Input::Notified`](crate::machine::Input::Notified) on each notification from the descriptor, until
/// that is closed.
pub(crate) type Register<'a, S> = &'a dyn Fn(&<S as Sys>::Fd, Notice) -> io::Result<()>;

/// When the call under way is to stop working.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limit(Option<Instant>);

impl Limit {
    /// Stops after `budget`. `None`: when there is no work left.
    pub(crate) fn after<S: Sys>(sys: &S, budget: Option<Duration>) -> Limit {
        Limit(budget.map(|budget| Instant::after_start(sys.now().saturating_add(budget))))
    }

    /// Whether the time of the call is limited.
    pub(crate) fn is_set(self) -> bool {
        self.0.is_some()
    }

    /// The same limit, or `end` if that is earlier.
    pub(crate) fn until(self, end: Instant) -> Limit {
        Limit(Some(self.0.map_or(end, |own| own.min(end))))
    }

    pub(crate) fn is_over<S: Sys>(self, sys: &S) -> bool {
        self.0.is_some_and(|end| Instant::after_start(sys.now()) >= end)
    }
}

/// The parts of a reactor that the steps on a target use.
pub(crate) struct Context<'a, S: Sys> {
    pub(crate) sys: &'a S,
    pub(super) resolver: &'a Resolver<S>,
    pub(crate) metrics: &'a mut Metrics,
    /// `None`: no descriptor is watched.
    pub(super) watch: Option<Register<'a, S>>,
    pub(super) facts: &'a mut Facts<S>,
    /// Once this time is over, a step that has done some work may leave the rest to the next step.
    pub(super) limit: Limit,
    /// Set if a helper thread is wanted: for removals, and for a write to `cgroup.kill` that reaches this many
    /// members or more.
    pub(crate) helper_from: Option<usize>,
    /// The step could not get some descriptor, or could not watch one.
    pub(crate) is_short: bool,
    /// The step is to hold no descriptor for its target, so that none is watched.
    pub(crate) sparing: bool,
}

/// The event that a descriptor notifies, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// `cgroup.events` changed: only POLLPRI tells, because the file is always readable.
    Events,
    /// A pidfd's process exited: POLLIN.
    Exit,
}

impl<'a, S: Sys> Context<'a, S> {
    pub(crate) fn new(
        resolver: &'a Resolver<S>,
        metrics: &'a mut Metrics,
        facts: &'a mut Facts<S>,
        watch: Option<Register<'a, S>>,
        limit: Limit,
    ) -> Context<'a, S> {
        Context {
            sys: &resolver.sys,
            resolver,
            metrics,
            watch,
            facts,
            limit,
            helper_from: None,
            is_short: false,
            sparing: false,
        }
    }

    /// A permit to hold a descriptor and watch it, if the budget has one.
    pub(super) fn permit(&mut self) -> Option<Permit> {
        self.watch?;
        let permit = if self.sparing { None } else { self.resolver.budget.take() };
        self.metrics.unwatched += u64::from(permit.is_none());
        self.is_short |= permit.is_none();
        permit
    }

    /// Whether the descriptor is watched now.
    pub(super) fn watch(&mut self, fd: &S::Fd, notice: Notice) -> bool {
        let Some(watch) = self.watch else { return false };
        self.metrics.calls.epoll_ctl += 1;
        match watch(fd, notice) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("cannot watch {notice:?}, waiting by timer instead: {error}");
                self.metrics.unwatched += 1;
                self.is_short = true;
                false
            }
        }
    }
}
