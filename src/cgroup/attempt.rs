//! The state of an attempt between its steps: the pidfds it has opened, and its result so far.

use super::descriptor_budget::Permit;
use super::members::{MemberList, Pages};
use super::walk::{LONG, Walk};
use crate::machine::{Attempt, ExitNotice, Reach};
use crate::outcome::UsedMethod;
use crate::sys::{Pid, Sys};
use crate::time::{Instant, Span};

/// For how long held pidfds count as those of members after they were verified. If the loop has other work for longer, they
/// are verified again.
pub(crate) const VERIFIED: Span = Span::from_millis(10);

/// An attempt that goes through the directories of a tree may take this many times as long as one that reads
/// pages.
const LONGER: u64 = 10;

/// The result of an attempt so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) signalled: u64,
    pub(crate) method: Option<UsedMethod>,
    pub(crate) reach: Reach,
    /// `cgroup.kill` was written in each directory of the target.
    pub(crate) covered: bool,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { signalled: 0, method: None, reach: Reach::All, covered: false }
    }

    /// The answer to the machine.
    pub(crate) fn attempt(self, notice: ExitNotice) -> Attempt {
        let Tally { signalled, method, mut reach, covered } = self;
        if covered && matches!(reach, Reach::Denied | Reach::Unsafe) {
            // The members that may not be listed or signalled may be slow to exit.
            reach = Reach::Covered;
        }
        Attempt { signalled, method, reach, notice }
    }

    /// Notes that some member was not reached.
    pub(crate) fn missed(&mut self, reach: Reach) {
        self.reach = self.reach.max(reach);
    }
}

/// The rest of an attempt that sends signals.
pub(crate) struct Rest<S: Sys> {
    pub(crate) members: MemberList,
    /// How many of these members were opened, or need no signal.
    pub(crate) next: usize,
    /// Where further members come from.
    pub(crate) source: Source<S>,
    pub(crate) batch: Batch<S>,
    /// The kernel did not confirm some pidfd as that of a member, so the pidfds are verified by lists.
    pub(crate) not_told: bool,
    /// When the attempt made its first step.
    pub(crate) began: Option<Instant>,
    /// Which members it could signal so far.
    pub(crate) reach: Reach,
    /// Whether it began with `cgroup.kill`, written in each directory of the target.
    pub(crate) covered: bool,
}

/// Where an attempt gets its members from, a part at a time.
pub(crate) enum Source<S: Sys> {
    /// There are no further members.
    None,
    /// The list of the one directory.
    Pages { pages: Pages<S>, _permit: Permit },
    /// One directory after the other: the tree's number, and the directories in it. The members are those of the directory
    /// that was found last.
    Directories(usize, Walk),
}

impl<S: Sys> Rest<S> {
    pub(crate) fn new(members: MemberList) -> Rest<S> {
        let batch = Batch::default();
        Rest {
            members,
            next: 0,
            source: Source::None,
            batch,
            not_told: false,
            began: None,
            reach: Reach::All,
            covered: false,
        }
    }

    /// Whether the attempt has used up its time. Without this limit, an attempt would never end if a process forks, or
    /// makes cgroups, faster than it is signalled. One write to `cgroup.kill`, or the next attempt, kills the rest.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        let most = match self.source {
            Source::Directories(..) => LONG.saturating_mul(LONGER),
            Source::None | Source::Pages { .. } => LONG,
        };
        self.began.is_some_and(|began| now >= began.saturating_add(most))
    }

    /// The members that were opened and not signalled. When the attempt is given up, they count as untried.
    pub(crate) fn untried(&self) -> Vec<Pid> {
        self.batch.pidfds.iter().map(|&(pid, _)| pid).collect()
    }

    /// Whether some of the members were not opened.
    pub(crate) fn has_unopened(&self) -> bool {
        self.next < self.members.pids.len()
    }

    /// Whether there are members that were not opened.
    pub(crate) fn has_more(&self) -> bool {
        self.has_unopened() || !matches!(self.source, Source::None)
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.has_more() && self.batch.pidfds.is_empty()
    }

    /// Closes half of the pidfds, for a step that is short of descriptors. Returns their pids; none if there is only
    /// one pidfd.
    pub(crate) fn close_half(&mut self) -> Vec<Pid> {
        let kept = self.batch.pidfds.len().div_ceil(2);
        let closed: Vec<Pid> = self.batch.pidfds.drain(kept..).map(|(pid, _)| pid).collect();
        self.batch.permits.truncate(kept);
        if let Some(&first) = closed.first() {
            self.next = self.members.pids.partition_point(|&pid| pid < first);
        }
        closed
    }
}

/// Members that were opened, and not signalled yet. The pidfds of a large target are held from step to step.
pub(crate) struct Batch<S: Sys> {
    /// In the order of the list.
    pub(super) pidfds: Vec<(Pid, S::Fd)>,
    /// One for each pidfd that is held.
    pub(super) permits: Vec<Permit>,
    /// When the pidfds were verified as those of members, after they had been opened.
    pub(super) verified: Option<Instant>,
}

impl<S: Sys> Default for Batch<S> {
    fn default() -> Batch<S> {
        Batch { pidfds: Vec::new(), permits: Vec::new(), verified: None }
    }
}

impl<S: Sys> Batch<S> {
    /// Whether a later step may verify or signal the batch.
    pub(super) fn is_held(&self) -> bool {
        !self.permits.is_empty()
    }

    /// Whether the processes are known to be members now: another party may move a process away at any time.
    pub(super) fn is_verified(&self, now: Instant) -> bool {
        self.verified.is_some_and(|verified| now <= verified.saturating_add(VERIFIED))
    }

    /// Keeps the processes that are members now. Returns the others.
    pub(crate) fn verify(&mut self, now: Instant, members: &MemberList) -> Vec<Pid> {
        let mut others = Vec::new();
        self.pidfds.retain(|&(pid, _)| {
            let is_member = members.contains(pid);
            others.extend((!is_member).then_some(pid));
            is_member
        });
        self.permits.truncate(self.pidfds.len());
        self.verified = Some(now);
        others
    }

    /// Takes out the first `most` pidfds. The next batch begins when none is left.
    pub(crate) fn take(&mut self, most: usize) -> Vec<(Pid, S::Fd)> {
        let taken = self.pidfds.drain(..most.min(self.pidfds.len())).collect();
        self.permits.truncate(self.pidfds.len());
        self.verified = self.verified.filter(|_| !self.pidfds.is_empty());
        taken
    }
}

/// How many members a step opens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) most: usize,
    /// Whether later steps may verify and signal them.
    pub(crate) is_held: bool,
}

/// Whether there are pidfds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pidfds {
    /// `full`: no more can be opened before these have been signalled.
    Opened {
        full: bool,
    },
    Unsupported,
}
