//! [`Metrics`]: what a reactor did, counted.

/// What a reactor did since it was made, and what it holds now. Counts only grow, save for those that
/// say "now".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Reaps accepted.
    pub spawned: u64,
    /// Reaps completed, whatever the outcome.
    pub completed: u64,
    /// Calls of `turn` that found something to do.
    pub wakeups: u64,
    /// Notifications from the kernel: a change of `cgroup.events`, or a member's exit.
    pub events: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Looks at a target.
    pub looks: u64,
    /// Writes to `cgroup.kill`.
    pub cgroup_kills: u64,
    /// Signals sent to single processes.
    pub signals: u64,
    /// Writes that freeze.
    pub freezes: u64,
    /// Steps that thaw.
    pub thaws: u64,
    /// Steps that remove directories.
    pub removals: u64,
    /// Reaps that went from killing directly to freezing first.
    pub escalations: u64,
    /// Watches that the kernel or the descriptor budget refused; such a reap goes by timer.
    pub unwatched: u64,
    /// Descriptors that reaps hold now.
    pub descriptors: u64,
}
