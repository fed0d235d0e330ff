//! [`ReapGuard`]: a reap that begins when its owner goes out of scope.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::{Findings, Limit, Resolver};
use crate::entries::{Command, Spawn};
use crate::handle::{self, ReapHandle};
use crate::outcome::{Refusal, SpawnError};
use crate::reaper::Reaper;
use crate::remote::Queue;
use crate::sys::Linux;

/// Reaps a cgroup when it is dropped: at the end of a scope, on an early return, and when a panic unwinds.
///
/// For the owner of a cgroup. Made by [`Reactor::guard`](crate::Reactor::guard) or [`Remote::guard`](crate::Remote::guard),
/// which check and identify the target as a spawn does, so that a bad target is refused when the guard is made.
///
/// - The drop hands the reap to the reactor, which starts it in its next turn. The drop does not block, opens no file, and
///   makes no system call except the one that wakes the reactor.
/// - The target is the cgroup that existed when the guard was made, even if another cgroup has its name by the
///   time of the drop.
/// - After the reactor was dropped, nothing is reaped: the drop logs a warning, and the cgroup stays as it is. So the reactor
///   has to outlive the guards, and to be driven until it is idle, for instance by
///   [`run_until_idle`](crate::Reactor::run_until_idle).
/// - The result is lost, unless the reaper has a [`tag`](Reaper::tag). To wait for it, call [`reap`](ReapGuard::reap).
///
/// ```
/// use cgroup_reaper::{Reactor, Reaper};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Some(dir) = doc_cgroup() else { return Ok(()) };
/// let mut reactor = Reactor::new()?;
/// {
///     let _guard = reactor.guard(Reaper::at(&dir))?;
///     // Run a job in it: whatever happens here, nothing of it is left.
/// }
/// reactor.run_until_idle()?;
/// assert!(!dir.exists());
/// # Ok(())
/// # }
/// # fn doc_cgroup() -> Option<std::path::PathBuf> {
/// #     let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];
/// #     let dir = |root| format!("{root}/cgroup-reaper-doc-guard-{}", std::process::id());
/// #     root.into_iter().map(dir).find(|dir| std::fs::create_dir(dir).is_ok()).map(Into::into)
/// # }
/// ```
#[must_use = "a guard that is not bound reaps at once"]
pub struct ReapGuard {
    armed: Armed,
    handle: ReapHandle,
    reaper: Reaper,
}

/// Hands the reap over to the reactor when it is dropped.
struct Armed {
    spawn: Option<Box<Spawn<Linux>>>,
    queue: Arc<Queue>,
}

impl ReapGuard {
    pub(crate) fn new(
        reaper: Reaper,
        resolver: &Resolver<Linux>,
        queue: &Arc<Queue>,
    ) -> Result<ReapGuard, SpawnError> {
        let target = match resolver.resolve(&reaper, Limit::default()) {
            Ok((target, _)) if target.found() => target,
            Ok((target, _)) => {
                let path = target.path().to_path_buf();
                return Err(SpawnError::new(reaper, Refusal::NoSuchDirectory { path }));
            }
            Err(refusal) => return Err(SpawnError::new(reaper, refusal)),
        };
        let (completer, handle) = handle::channel(target.shared_path(), queue);
        // The findings of these checks are dropped: they hold only for a step that follows at once.
        let findings = Findings::default();
        let spawn = Box::new(Spawn { reaper: reaper.clone(), target, findings, completer });
        let armed = Armed { spawn: Some(spawn), queue: Arc::clone(queue) };
        Ok(ReapGuard { armed, handle, reaper })
    }

    /// Returns the first directory of the target, as an absolute path.
    pub fn path(&self) -> &Path {
        self.handle.path()
    }

    /// Hands the reap to the reactor now, and returns its handle. If the reactor was dropped, the handle's
    /// result is [`Disconnected`](crate::ReapError::Disconnected).
    pub fn reap(self) -> ReapHandle {
        drop(self.armed);
        self.handle
    }

    /// Gives the reap up, so that nothing is reaped. Returns the reaper.
    pub fn disarm(mut self) -> Reaper {
        self.armed.spawn = None;
        self.reaper
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        let Some(spawn) = self.spawn.take() else { return };
        if let Err(Command::Spawn(spawn)) = self.queue.push(Command::Spawn(spawn)) {
            log::warn!("{}: not reaped, for the reactor was dropped", spawn.target.path().display());
        }
    }
}

impl fmt::Debug for ReapGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReapGuard").field("path", &self.path()).finish_non_exhaustive()
    }
}
