//! The kernel's side: a target of pinned directories, checked and acted on as the machine says.
//!
//! Each file has one duty, and uses those below it in this list only:
//!
//! - `resolve`: from what the caller named to a target, or a refusal;
//! - `step`, and its acts `check`, `kill`, `freeze`, `remove`, `report`;
//! - `target`: what a target is, and what of it lasts from step to step;
//! - `signalled`: the tracked processes, and signals that are verified;
//! - `external_freeze`, `survivors`, `own_cgroups`: what /proc tells;
//! - `members`: lists; `tree`: a directory and those below; `identity`: which directory it is;
//! - `v1`, `v2`, `hierarchy`, `mounts`, `facts`, `proc`, `file`, `errors`, `descriptor_budget`: the kernel's interfaces.
//!
//! # What wakes a reap
//!
//! On v2 each target's own `cgroup.events`, for EPOLLPRI only (the file is always readable), armed before the kill,
//! so that no second check is due. One inotify instance for all of them goes through the kernel's one work item for
//! those (`kernfs_notify`): a reap of one process took a third longer, a thousand at once a fifth. Linux 6.18 to
//! 7.0.13 moreover keep inotify watches of groups that are gone. A pidfd of a member alone is nearly as fast, but
//! another check and another pidfd are due when it was not the last to exit. `benches/reap` has these loops side by
//! side.
//!
//! The kernel notifies at most once in 12 ms of a file (`cgroup_file_notify`), so the notification of a group that
//! changed just before its kill is late. These the machine checks again after 1, 3 and 7 ms, at a microsecond each; and
//! a group that outlives several attempts is listed, and watched by the pidfd of a member as well.
//!
//! v1 has no notification: there it is the pidfd of the last member listed, one a reap whatever the number of
//! members, and a list when that has exited. It is never late, so that nothing is checked in between.

mod check;
mod descriptor_budget;
mod errors;
mod external_freeze;
mod facts;
mod file;
mod freeze;
mod hierarchy;
mod identity;
mod kill;
pub(crate) mod members;
pub(crate) mod mounts;
mod own_cgroups;
pub(crate) mod proc;
mod remove;
mod report;
mod resolve;
pub(crate) mod signalled;
mod step;
mod survivors;
mod target;
mod tree;
pub(crate) mod v1;
pub(crate) mod v2;

use std::io;

pub(crate) use self::descriptor_budget::Budget;
use self::descriptor_budget::Permit;
pub(crate) use self::facts::Facts;
pub(crate) use self::resolve::Checks;
pub(crate) use self::step::Findings;
pub(crate) use self::target::Target;
use crate::metrics::Metrics;
use crate::sys::Sys;

/// Asks for an [`Input::Notified`](crate::machine::Input::Notified) on each notification from the descriptor, until
/// that is closed.
pub(crate) type Watch<'a, S> = &'a dyn Fn(&<S as Sys>::Fd, Notice) -> io::Result<()>;

/// What the steps on a target work with.
pub(crate) struct Kernel<'a, S: Sys> {
    pub(crate) sys: &'a S,
    checks: &'a Checks<S>,
    pub(crate) metrics: &'a mut Metrics,
    /// `None`: do without.
    watch: Option<Watch<'a, S>>,
    facts: &'a mut Facts<S>,
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
        Kernel { sys: &checks.sys, checks, metrics, watch, facts }
    }

    /// A permit to hold a descriptor and watch it, if watches are to be had.
    fn permit(&mut self) -> Option<Permit> {
        self.watch?;
        let permit = self.checks.budget.take();
        self.metrics.unwatched += u64::from(permit.is_none());
        permit
    }

    /// Whether the descriptor is watched now.
    fn watch(&mut self, fd: &S::Fd, notice: Notice) -> bool {
        let Some(watch) = self.watch else { return false };
        self.metrics.calls.epoll_ctl += 1;
        match watch(fd, notice) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("cannot watch {notice:?}, waiting by timer instead: {error}");
                self.metrics.unwatched += 1;
                false
            }
        }
    }
}
