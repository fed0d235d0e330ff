//! The vocabulary between a machine and the kernel's side: the actions that a machine asks for, and the answers.
//!
//! An answer says what the kernel's side found, never what to do about it.

use crate::outcome::{Outcome, UsedMethod};
use crate::reaper::Signal;
use crate::time::{Instant, Span};

/// What happened: a wake-up, or the answer to the action before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The entry was spawned.
    Spawned,
    /// The kernel notified that the target may have changed.
    Notified,
    /// The time given with [`Action::Wait`] has come. `lag`: the event-loop lag: how late the earliest timer of this
    /// turn fired.
    TimerFired { lag: Span },
    /// The other entries were driven after an [`Action::Yield`].
    Resumed,
    /// The entry waits for a descriptor, and there may be a free one again.
    DescriptorsReturned,
    /// The caller cancels the reap.
    Cancelled,
    /// The caller wants SIGKILL to be sent now.
    KillNow,
    /// Answer to [`Action::Check`].
    Checked(Checked),
    /// Answer to [`Action::Kill`].
    Killed(Attempt),
    /// Answer to [`Action::Signal`].
    Signalled(Attempt),
    /// Answer to [`Action::Freeze`]. `ours_left`: some directory is frozen by us.
    Froze { froze: Froze, ours_left: bool },
    /// Answer to [`Action::ThawExternal`].
    ThawedExternal(Thawed),
    /// Answer to [`Action::Thaw`]. `ours_left`: some directory is still frozen by us.
    Thawed { thawed: Thawed, ours_left: bool },
    /// Answer to [`Action::Remove`].
    Removed(Removed),
}

/// What the kernel's side or the loop is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Read the state of the target. Answered by [`Checked`].
    Check(Detail),
    /// Send SIGKILL to every member. Answered by [`Attempt`].
    Kill(KillBy),
    /// Send this signal to every member once, and continue it so that it can act on the signal. Answered by
    /// [`Attempt`].
    Signal(Signal, Members),
    /// Start a freeze, or read the state of one under way. Answered by [`Froze`].
    Freeze,
    /// Undo the freezes inside the target. Answered by [`Thawed`].
    Thaw(ThawScope),
    /// Go on with a thaw that was [`Thawed::Unfinished`]. Answered by [`Thawed`].
    ContinueThaw,
    /// Undo external freezes: those of v1 freezer cgroups outside the target that hold members of the target and no
    /// other process. Answered by [`Thawed`].
    ThawExternal,
    /// Remove the directories, children first. Answered by [`Removed`].
    Remove,
    /// Do nothing until a notification, or until this time.
    Wait(Instant),
    /// Do nothing until the other entries were driven.
    Yield,
    /// The reap is over; the machine is not to be called again.
    Finish(End),
}

/// How much a check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Whether the target has members; members are listed only where there is no other way to tell.
    Populated,
    /// The members too, so that the answer can say how they changed.
    Members,
    /// As `Populated`, where no member was signalled. The exit of one member is watched, unless the kernel
    /// notifies in another way.
    Exits,
}

/// How one attempt sends SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillBy {
    /// `cgroup.kill` where it works, else signals.
    Cheapest,
    /// `cgroup.kill` where it works, and signals as well. `last`: the end of the reap is decided, so `cgroup.kill`
    /// is written even where the members cannot be identified before.
    CgroupKillAndSignals { last: bool },
    /// `cgroup.kill` and nothing else. `last`: the end of the reap is decided, so the write is not left to a helper thread.
    CgroupKill { last: bool },
    /// Signals and nothing else.
    Signals(Members),
}

/// Whether the members can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    /// They may run, fork and exit.
    Running,
    /// Our freeze is complete. Until the thaw the members do not run.
    Frozen,
}

/// Which freezes inside the target are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThawScope {
    /// v1 freezes of any party: they keep SIGKILL pending. v2 freezes do not, and are not undone.
    V1,
    /// Those of v1 and v2.
    All,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// No directory is left.
    Gone,
    /// A directory is gone, and another cgroup has its name.
    Replaced,
    /// All directories that are left are empty, and every signalled process has exited. `replaced`: one directory is
    /// gone, and another cgroup has its name.
    Empty { replaced: bool },
    /// There are members, or signalled processes that have not exited.
    Populated(Population),
    /// The kernel did not answer.
    Unknown(Failure),
    /// The step reached its bound first: check again after a yield.
    Unfinished,
    /// The caller is among the members, which could not be found out at the spawn.
    CallerInside,
}

/// What a check found out about the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Population {
    /// How the members have changed since the last attempt and the last check.
    pub(crate) change: Change,
    /// There may be members that were not listed: an error prevented it, or the list took several steps.
    pub(crate) is_partial: bool,
    /// How the loop learns that members exit.
    pub(crate) notice: ExitNotice,
}

/// How the members have changed, as far as they were listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The members have not changed, or were not listed.
    None,
    /// There are new members: some that joined since the last attempt.
    Joined,
    /// There are fewer than at the last check.
    Fewer,
    /// Both.
    JoinedAndFewer,
}

impl Change {
    pub(crate) fn new(joined: bool, fewer: bool) -> Change {
        match (joined, fewer) {
            (false, false) => Change::None,
            (true, false) => Change::Joined,
            (false, true) => Change::Fewer,
            (true, true) => Change::JoinedAndFewer,
        }
    }

    pub(crate) fn has_joined(self) -> bool {
        matches!(self, Change::Joined | Change::JoinedAndFewer)
    }

    pub(crate) fn is_fewer(self) -> bool {
        matches!(self, Change::Fewer | Change::JoinedAndFewer)
    }
}

/// How the loop learns that members exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitNotice {
    /// At once, by the pidfd of a member.
    Prompt,
    /// By `cgroup.events`, some 12 ms late if that file changed just before.
    Delayed,
    /// Not at all: v1, and no pidfd is watched.
    None,
}

/// Why an action failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// For lack of rights, or of the facility that the caller insists on.
    Denied,
    /// By an error that may pass.
    Passing,
}

/// The result of one step of an attempt to kill, or to signal the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Processes signalled for the first time.
    pub(crate) signalled: u64,
    /// The method that was used, if any was.
    pub(crate) method: Option<UsedMethod>,
    pub(crate) reach: Reach,
    /// How the loop learns that members exit.
    pub(crate) notice: ExitNotice,
}

/// Whether the attempt could signal all members. Ordered: when answers are combined, the later variant wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// All members were signalled.
    All,
    /// `cgroup.kill` has sent SIGKILL to all. Some could not be signalled by themselves, so it is not known whether it has reached
    /// those whose main thread has exited.
    Covered,
    /// Some could not be signalled for lack of rights, or of the facility that the caller insists on.
    Denied,
    /// Some could not be signalled, by an error that may pass.
    Failed,
    /// Some were not signalled, because a signal is not provably safe unless they are frozen.
    Unsafe,
    /// A helper thread is making the attempt, and a notification follows. The same action then completes the
    /// attempt.
    UnderWay,
    /// The step reached its bound. The same action, after a yield, continues.
    Unfinished,
}

/// The result of [`Action::Freeze`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Froze {
    Frozen,
    Freezing,
    /// The target has no freezer.
    Unavailable,
    /// The caller may not freeze it.
    Denied,
    /// A passing error: nothing is frozen by us.
    Failed,
    /// The step reached its bound before anything was frozen: continue at once, after other entries.
    Unfinished,
}

/// The result of a thaw. Of the results for several directories the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thawed {
    /// Nothing is frozen any more.
    All,
    /// All that may be thawed is thawed, but the freeze of an ancestor, or an external freeze, still holds
    /// members.
    HeldFromOutside,
    /// A directory is frozen, and the thaw is denied.
    Denied,
    /// A passing error: try again.
    Failed,
    /// The step reached its bound. Our own freezes are undone, except for errors: continue at once, after other entries.
    Unfinished,
}

/// The result of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// No directory is left.
    All,
    /// A directory is gone, and another cgroup has its name.
    Replaced,
    /// A directory is in use.
    Busy,
    Denied,
    /// A passing error: try again.
    Failed,
    /// The step reached its bound. The same action, after a yield, continues.
    Unfinished,
    /// A helper thread is making the removal, and a notification follows.
    UnderWay,
}

/// How a reap ended. The kernel's side knows the paths and the causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Done(Outcome),
    TimedOut,
    Replaced,
    Denied,
    FrozenByAncestor,
    /// The caller is a member, and nothing was touched.
    Refused,
    Cancelled,
}
