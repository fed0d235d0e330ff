//! What the steps and the checks work with.

use std::io;
use std::sync::{Arc, Mutex};

use super::descriptor_budget::{Budget, Permit};
use super::facts::Facts;
use super::mounts::Mounts;
use super::own_cgroup::OwnCgroup;
use crate::metrics::Metrics;
use crate::sys::Sys;

/// What the checks of a target need, shared with the fronts for other threads.
pub(crate) struct Checks<S: Sys> {
    pub(crate) sys: S,
    pub(super) own: Arc<Mutex<OwnCgroup<S>>>,
    pub(super) mounts: Arc<Mutex<Mounts<S>>>,
    pub(crate) budget: Budget,
}

impl<S: Sys> Checks<S> {
    pub(crate) fn new(sys: S, budget: Budget) -> Checks<S> {
        Checks { sys, own: Arc::default(), mounts: Arc::default(), budget }
    }
}

impl<S: Sys> Checks<S> {
    /// Reads the limit of descriptors anew: it can be changed while the process runs, prlimit(2).
    pub(crate) fn renew_limit(&self) {
        if let Some(limit) = self.sys.descriptor_limit() {
            self.budget.set_limit(limit);
        }
    }
}

impl<S: Sys + Clone> Clone for Checks<S> {
    fn clone(&self) -> Checks<S> {
        Checks {
            sys: self.sys.clone(),
            own: Arc::clone(&self.own),
            mounts: Arc::clone(&self.mounts),
            budget: self.budget.clone(),
        }
    }
}

/// Asks for an [`Input::Notified`](crate::machine::Input::Notified) on each notification from the descriptor, until
/// that is closed.
pub(crate) type Watch<'a, S> = &'a dyn Fn(&<S as Sys>::Fd, Notice) -> io::Result<()>;

/// What the steps on a target work with.
pub(crate) struct Kernel<'a, S: Sys> {
    pub(crate) sys: &'a S,
    pub(super) checks: &'a Checks<S>,
    pub(crate) metrics: &'a mut Metrics,
    /// `None`: do without.
    pub(super) watch: Option<Watch<'a, S>>,
    pub(super) facts: &'a mut Facts<S>,
    /// Some descriptor, or a watch of one, could not be had.
    pub(crate) is_short: bool,
    /// No descriptor is to be held for the target of this step.
    pub(super) sparing: bool,
}

/// What a descriptor notifies of, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// `cgroup.events` changed: POLLPRI, and nothing else, for the file is always readable.
    Events,
    /// A pidfd's process exited: POLLIN.
    Exit,
}

impl<'a, S: Sys> Kernel<'a, S> {
    pub(crate) fn new(
        checks: &'a Checks<S>,
        metrics: &'a mut Metrics,
        facts: &'a mut Facts<S>,
        watch: Option<Watch<'a, S>>,
    ) -> Kernel<'a, S> {
        Kernel { sys: &checks.sys, checks, metrics, watch, facts, is_short: false, sparing: false }
    }

    /// A permit to hold a descriptor and watch it, if the budget has one.
    pub(super) fn permit(&mut self) -> Option<Permit> {
        self.watch?;
        let permit = if self.sparing { None } else { self.checks.budget.take() };
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
