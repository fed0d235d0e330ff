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
    /// There may be a descriptor again, for which it waits.
    DescriptorsReturned,
    /// The caller gives the reap up.
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
    /// Answer to [`Action::Thaw`]. `ours_left`: what we froze is frozen still.
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
    /// Start a freeze, or read how far one has come. Answered by [`Froze`].
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
    /// Nothing until a notification, or this time.
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
    /// As `Populated`. No member was signalled; the exit of one is watched where nothing else notifies of it.
    Exits,
}

/// How one attempt sends SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillBy {
    /// `cgroup.kill` where it works, else signals.
    Cheapest,
    /// `cgroup.kill` where it works, and signals as well. `last`: how the reap ends is decided, and what follows an
    /// attempt without all that it needs to know makes no difference any more.
    CgroupKillAndSignals { last: bool },
    /// `cgroup.kill` and nothing else.
    CgroupKill,
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
    /// The bound on one step's work was met first: check again after a yield.
    Unfinished,
    /// The caller is among the members, which could not be found out at the spawn.
    CallerInside,
}

/// What is known of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Population {
    /// Since the last attempt and the last check.
    pub(crate) change: Change,
    /// Not all may be known: an error kept some from being listed, or the list took several steps.
    pub(crate) is_partial: bool,
    /// How the loop learns that they exit.
    pub(crate) notice: ExitNotice,
}

/// How the members have changed, as far as they were listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// They have not, or were not listed.
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
    /// By `cgroup.events`, some 12 ms late where that changed just before.
    Delayed,
    /// Not at all: v1, and no pidfd is watched.
    None,
}

/// Why something could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// For lack of rights, or of the facility that the caller insists on.
    Denied,
    /// By an error that may pass.
    Passing,
}

/// What one step of an attempt to signal the members came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Processes signalled for the first time.
    pub(crate) signalled: u64,
    /// What was used, if anything was.
    pub(crate) method: Option<UsedMethod>,
    pub(crate) reach: Reach,
    /// How the loop learns that they exit.
    pub(crate) notice: ExitNotice,
}

/// How many of the members the attempt could signal. Ordered: when answers are combined, the later variant wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// It did.
    All,
    /// Some could not be signalled for lack of rights, or of the facility that the caller insists on.
    Denied,
    /// A passing error kept it from some.
    Failed,
    /// Some were not signalled because that is not provably safe unless they are frozen.
    Unsafe,
    /// The attempt is still being made, and its end is notified: the same action again then finishes it.
    UnderWay,
    /// The bound on one step's work was met: the same action again, after a yield, continues.
    Unfinished,
}

/// How far a freeze has come.
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

/// What a thaw came to. Of several directories the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thawed {
    /// Nothing is frozen any more.
    All,
    /// What may be thawed is, but an ancestor's freeze, or an external one, still holds members.
    HeldFromOutside,
    /// It is frozen, and thawing it is denied.
    Denied,
    /// A passing error: try again.
    Failed,
    /// The step reached its bound. What is frozen by us is thawed, but for errors: continue at once, after other entries.
    Unfinished,
}

/// What a removal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// No directory is left.
    All,
    /// A directory is gone, and another cgroup has its name.
    Replaced,
    /// Something uses a directory.
    Busy,
    Denied,
    /// A passing error: try again.
    Failed,
    /// The bound on one step's work was met: the same action again, after a yield, continues.
    Unfinished,
    /// A helper thread is at it, and a notification follows.
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
    /// The caller is inside, and nothing was done.
    Refused,
    Cancelled,
}
