//! The processes that a reap tracks until they are known to be dead: processes that were signalled after their
//! membership was verified, or that `cgroup.kill` is about to kill.
//!
//! # Verified signals
//!
//! List the members, open a pidfd of each ([`Tracked::open`]), list them again, and signal those that are in both lists
//! ([`Batch::verify`](super::attempt::Batch::verify), [`Tracked::send`]). If pidfd_send_signal(2) succeeds, the process had
//! not been reaped, so its pid was not reused. The pid in the second list was therefore this process. The age of the first
//! list does not matter.

use std::io;

use super::Context;
use super::attempt::{Part, Pidfds, Rest, Tally};
use super::context::Limit;
use super::errors::{Call, Cause, Meaning, Obstacle, meaning};
use super::members::MemberList;
use super::process::{Life, Process};
use super::watched::Watched;
use crate::machine::Reach;
use crate::outcome::UsedMethod;
use crate::reaper::Signal;
use crate::sys::{Pid, Sys};

/// The number of processes signalled in one step. Each takes a few microseconds, and a descriptor for that
/// time.
pub(crate) const SIGNALS: usize = 512;

/// The number of processes opened, signalled or checked in one step, where the time of the call is limited.
pub(crate) const FEW_SIGNALS: usize = if cfg!(test) { 1 } else { 32 };

/// The number of pidfds that one target holds open between two steps: one list verifies them all.
const HELD: usize = if cfg!(test) { 3 } else { 2048 };

/// The number of processes of which one step checks whether they are dead.
const ASKED: usize = 512;

/// In one attempt of this many, SIGKILL is sent again to processes that were sent it before. They do not need it,
/// but another process of the target may have got the pid of one of them meanwhile.
const RESEND: u8 = 4;

/// The processes that a reap tracks.
pub(crate) struct Tracked<S: Sys> {
    /// Sorted by pid.
    processes: Vec<Process>,
    /// Members that the last attempt has handled, whether or not it could signal them. Sorted.
    tried: Vec<Pid>,
    /// The last attempt wrote `cgroup.kill` without a list. The members in the next list count as handled.
    killed_unlisted: bool,
    /// The target was empty, and the processes that are dead have not been forgotten yet.
    was_empty: bool,
    /// The number of members at the last check.
    last: u32,
    /// So many of the processes at the end were found to live outside of the target, by the check under way.
    elsewhere: u32,
    /// Attempts since SIGKILL was last sent again to every member, modulo [`RESEND`].
    attempts: u8,
    /// One member, whose exit wakes the reap.
    pub(super) watched: Option<Watched<S>>,
}

/// Adds pids to sorted ones.
fn add(sorted: &mut Vec<Pid>, more: &[Pid]) {
    // Thousands of reaps wait at once, so no more memory is reserved than needed.
    sorted.reserve_exact(more.len());
    sorted.extend(more);
    sorted.sort_unstable();
    sorted.dedup();
}

impl<S: Sys> Tracked<S> {
    pub(crate) fn new() -> Tracked<S> {
        Tracked {
            processes: Vec::new(),
            tried: Vec::new(),
            killed_unlisted: false,
            was_empty: false,
            last: 0,
            elsewhere: 0,
            attempts: 0,
            watched: None,
        }
    }

    /// Returns the tracked process of this pid, if it was sent this signal last.
    pub(crate) fn sent(&self, pid: Pid, signal: Signal) -> Option<Process> {
        let process = self.processes[self.find(pid).ok()?];
        (process.signal == Some(signal)).then_some(process)
    }

    /// Notes the members. Returns whether some have joined since the last attempt, and whether there are fewer than at
    /// the last check.
    pub(crate) fn compare(&mut self, members: &MemberList) -> (bool, bool) {
        let now = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let fewer = now < std::mem::replace(&mut self.last, now);
        if std::mem::take(&mut self.killed_unlisted) {
            add(&mut self.tried, &members.pids);
        }
        self.tried.retain(|&pid| members.contains(pid));
        (members.pids.iter().any(|&pid| !self.was_tried(pid)), fewer)
    }

    /// Notes an attempt by `cgroup.kill`, and the members that were listed before it, if they were.
    pub(crate) fn killed_all(&mut self, members: Option<&MemberList>) {
        match members {
            Some(members) => add(&mut self.tried, &members.pids),
            None => self.killed_unlisted = true,
        }
    }

    /// The tracked processes that are not known to be dead.
    #[cfg(test)]
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.processes.iter().map(|process| process.pid)
    }

    /// Whether an attempt has handled any member yet.
    pub(crate) fn any_tried(&self) -> bool {
        !self.tried.is_empty() || !self.processes.is_empty()
    }

    /// The members that the last attempt has handled.
    pub(crate) fn tried(&self) -> &[Pid] {
        &self.tried
    }

    /// Whether an attempt has handled this member.
    pub(crate) fn was_tried(&self, pid: Pid) -> bool {
        self.tried.binary_search(&pid).is_ok()
    }

    /// The place of a tracked process in the list, or where it would be inserted.
    fn find(&self, pid: Pid) -> Result<usize, usize> {
        self.processes.binary_search_by_key(&pid, |process| process.pid)
    }

    /// Identifies members before a write to `cgroup.kill`, so that [`Tracked::all_dead`] can check them. To be
    /// followed by another list and [`Tracked::track`].
    pub(crate) fn identify(
        &self,
        context: &mut Context<'_, S>,
        before: &MemberList,
    ) -> io::Result<Vec<Identified>> {
        let mut found = Vec::new();
        for &pid in &before.pids {
            if self.find(pid).is_ok() {
                continue;
            }
            match context.sys.pidfd_open(pid) {
                Ok(fd) => {
                    let number = context.facts.number(context.sys, &fd)?;
                    found.push(Identified(Process { pid, number, signal: None }));
                }
                Err(error) => match meaning(Call::PidfdOpen, &error) {
                    Meaning::Gone => {}
                    // `cgroup.kill` works without pidfds.
                    Meaning::Unsupported => return Ok(Vec::new()),
                    _ => return Err(error),
                },
            }
        }
        Ok(found)
    }

    /// Tracks those of the identified processes that are still members: the others may have left, and live on in
    /// another cgroup.
    pub(crate) fn track(&mut self, identified: Vec<Identified>, after: &MemberList) {
        let members = identified.into_iter().map(|identified| identified.0);
        self.processes.extend(members.filter(|process| after.contains(process.pid)));
        self.processes.sort_unstable_by_key(|process| process.pid);
    }

    /// Forgets processes that are neither listed nor exiting, so that their number does not grow without end while a
    /// reap waits for its target.
    pub(crate) fn forget_those_that_left(&mut self, context: &mut Context<'_, S>, listed: &MemberList) {
        let Context { sys, facts, .. } = context;
        self.processes.retain(|process| {
            if listed.contains(process.pid) {
                return true;
            }
            match process.open_same(*sys, facts) {
                Ok(Some(pidfd)) => process.life(*sys, &pidfd).map_or(true, |life| life == Life::Exiting),
                Ok(None) => false,
                // A later check finds it out.
                Err(_) => true,
            }
        });
    }

    /// Whether every process that was sent SIGKILL is dead, and every other tracked process is dead or lives on
    /// outside of the target; `None` if the step reached its bound. Call only when no member is listed.
    ///
    /// From Linux 6.19 on an exiting task leaves the lists before it is dead, so an empty list does not prove that
    /// the target is empty. Before 6.9 pidfds have no inode numbers, but on these kernels an empty list is proof.
    pub(crate) fn all_dead(
        &mut self,
        context: &mut Context<'_, S>,
        limit: Limit,
    ) -> io::Result<Option<bool>> {
        if let Some(Watched { pidfd, tracked: Some(pid), .. }) = &self.watched {
            if let Ok(at) = self.find(*pid) {
                match self.processes[at].life(context.sys, pidfd)? {
                    Life::Exiting => return Ok(Some(false)),
                    Life::Dead => {
                        let was_asked = at >= self.processes.len() - self.elsewhere as usize;
                        self.elsewhere -= u32::from(was_asked);
                        self.processes.remove(at);
                    }
                    // It is asked again below.
                    Life::Elsewhere => {}
                }
            }
        }
        let (mut asked, mut asked_before) = (0, self.elsewhere);
        let mut is_last = false;
        while is_last || asked < FEW_SIGNALS || asked < ASKED && !limit.is_over(context.sys) {
            let Some(at) = self.processes.len().checked_sub(self.elsewhere as usize + 1) else {
                if asked_before == 0 {
                    return Ok(Some(true));
                }
                // Those that an earlier step has found elsewhere may have come back since. Nothing cuts this.
                (self.elsewhere, asked_before, is_last) = (0, 0, true);
                continue;
            };
            asked += 1;
            let process = self.processes[at];
            let mut life = Life::Dead;
            if let Some(fd) = process.open_same(context.sys, context.facts)? {
                life = process.life(context.sys, &fd)?;
                if life == Life::Exiting {
                    self.watch(context, fd, Some(process.pid));
                    return Ok(Some(false));
                }
            }
            match life {
                Life::Elsewhere => self.elsewhere += 1,
                _ => _ = self.processes.remove(at),
            }
        }
        Ok(None)
    }

    /// Begins to ask anew whether the tracked processes are dead.
    pub(crate) fn ask_anew(&mut self) {
        self.elsewhere = 0;
    }

    /// Notes that the target is empty: the tracked processes are dead, or have left.
    pub(crate) fn note_empty(&mut self) {
        self.was_empty = true;
        self.watched = None;
    }

    /// Forgets the tracked processes that are dead, if the target was empty meanwhile: a member with the pid of one of them is
    /// another process. Those that have left may come back, and are then waited for, though they may be exiting and not be listed.
    pub(crate) fn forget_the_dead(&mut self, context: &mut Context<'_, S>) {
        if !std::mem::take(&mut self.was_empty) {
            return;
        }
        self.elsewhere = 0;
        self.processes.retain(|process| match process.open_same(context.sys, context.facts) {
            Ok(Some(pidfd)) => !matches!(process.life(context.sys, &pidfd), Ok(Life::Dead)),
            Ok(None) => false,
            // It may live. `all_dead` finds it out.
            Err(_) => true,
        });
    }

    /// Opens the tracked processes that are exiting, and can be told from later ones of their pids: the watched one by its pidfd,
    /// the others by the inode numbers of their pidfds.
    pub(crate) fn open_exiting<'t>(
        &'t mut self,
        context: &'t mut Context<'_, S>,
    ) -> impl Iterator<Item = (Pid, S::Fd)> + 't {
        let mut watched =
            self.watched.take().and_then(|Watched { pidfd, tracked, .. }| Some((tracked?, pidfd)));
        self.processes.iter().filter_map(move |process| {
            let pidfd = match watched.take_if(|(pid, _)| *pid == process.pid) {
                Some((_, pidfd)) => pidfd,
                None => process.open_same(context.sys, context.facts).ok()??,
            };
            // One that lives elsewhere has left the target.
            let has_left = matches!(process.life(context.sys, &pidfd), Ok(Life::Elsewhere | Life::Dead));
            (!has_left).then_some((process.pid, pidfd))
        })
    }

    /// Opens a pidfd of each of the next members that are to be sent the signal, at most as many as `part` says. Pidfds
    /// that are held need permits.
    pub(crate) fn open(
        &mut self,
        context: &mut Context<'_, S>,
        signal: Signal,
        rest: &mut Rest<S>,
        part: Part,
        tally: &mut Tally,
        obstacle: &mut Option<Box<Obstacle>>,
    ) -> io::Result<Pidfds> {
        if context.facts.lacks_pidfd_signals() {
            // The filter that refused the call may not be in force any more.
            context.facts.try_pidfd_signals(context.sys);
            if context.facts.lacks_pidfd_signals() {
                return Ok(Pidfds::Unsupported);
            }
        }
        let (own, _) = context.sys.caller();
        let Part { mut most, mut is_held } = part;
        let first = rest.next;
        let held = rest.batch.pidfds.len();
        let mut full = false;
        while let Some(&pid) = rest.members.pids.get(rest.next) {
            full = is_held && rest.batch.pidfds.len() >= HELD;
            if full || rest.batch.pidfds.len() == held + most {
                break;
            }
            if self.needs_no_more(pid, signal) {
                rest.next += 1;
                continue;
            }
            if pid == own {
                tally.missed(Reach::Denied);
                *obstacle = Some(Obstacle::of_process(pid, Cause::CallerInside));
                rest.next += 1;
                continue;
            }
            let permit = if is_held { context.resolver.budget.take_spare() } else { None };
            if is_held && permit.is_none() {
                full = !rest.batch.pidfds.is_empty();
                if full {
                    break;
                }
                // No pidfd can be held.
                (is_held, most) = (false, SIGNALS);
            }
            match context.sys.pidfd_open(pid) {
                Ok(fd) => {
                    rest.batch.pidfds.push((pid, fd));
                    rest.batch.permits.extend(permit);
                }
                Err(error) => match meaning(Call::PidfdOpen, &error) {
                    Meaning::Gone => {}
                    Meaning::Unsupported => return Ok(Pidfds::Unsupported),
                    // EMFILE after some pidfds: signal these now, and continue after a yield.
                    Meaning::Short if !rest.batch.pidfds.is_empty() => {
                        context.is_short = true;
                        full = true;
                        break;
                    }
                    _ => return Err(error),
                },
            }
            rest.next += 1;
        }
        add(&mut self.tried, &rest.members.pids[first..rest.next]);
        Ok(Pidfds::Opened { full })
    }

    /// Begins an attempt. Members that were not sent this signal count as new, unless the attempt handles them: its list may miss
    /// members that are moved meanwhile.
    pub(crate) fn begin(&mut self, signal: Signal) {
        let mut tried = std::mem::take(&mut self.tried);
        tried.retain(|&pid| self.sent(pid, signal).is_some());
        self.tried = tried;
    }

    /// Notes that the attempt lists the members that it signals: from now on a pid that is not in `tried` is a new member.
    pub(crate) fn lists_members(&mut self) {
        self.killed_unlisted = false;
    }

    /// Notes that an attempt has signalled all members that it could.
    pub(crate) fn attempted(&mut self) {
        self.attempts = (self.attempts + 1) % RESEND;
    }

    /// Notes that these members were not handled after all: if they are listed later, they are new members.
    pub(crate) fn untry(&mut self, mut pids: Vec<Pid>) {
        if !pids.is_empty() {
            pids.sort_unstable();
            self.tried.retain(|tried| pids.binary_search(tried).is_err());
        }
    }

    /// Signals processes that were verified. Signals that were sent are added to the tally, also if an error follows.
    /// `watches`: the exit of the last process is to wake the reactor.
    pub(crate) fn send(
        &mut self,
        context: &mut Context<'_, S>,
        signal: Signal,
        verified: Vec<(Pid, S::Fd)>,
        watches: bool,
        tally: &mut Tally,
        obstacle: &mut Option<Box<Obstacle>>,
    ) -> io::Result<()> {
        self.processes.reserve_exact(verified.len());
        let mut last = None;
        let mut failed = None;
        for (pid, fd) in verified {
            // `send_one` first identifies the process: else nothing could tell later whether it is dead. After an
            // error, the other processes are signalled nevertheless.
            match self.send_one(context, signal, pid, &fd, tally, obstacle) {
                Ok(true) => last = Some((pid, fd)),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some((pid, fd)) = last.filter(|_| watches) {
            self.watch(context, fd, Some(pid));
        }
        failed.map_or(Ok(()), Err)
    }

    /// Signals one process. Returns whether the signal was sent.
    fn send_one(
        &mut self,
        context: &mut Context<'_, S>,
        signal: Signal,
        pid: Pid,
        fd: &S::Fd,
        tally: &mut Tally,
        obstacle: &mut Option<Box<Obstacle>>,
    ) -> io::Result<bool> {
        let number = context.facts.number(context.sys, fd)?;
        let sent = context.sys.pidfd_send_signal(fd, signal.number());
        if sent.is_ok() && signal != Signal::KILL {
            // A stopped process acts on a signal only once it is continued.
            let _ = context.sys.pidfd_send_signal(fd, libc::SIGCONT);
        }
        if let Err(error) = &sent {
            if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
                context.facts.try_pidfd_signals(context.sys);
                if context.facts.lacks_pidfd_signals() {
                    return sent.map(|()| true);
                }
            }
        }
        let process = Process { pid, number, signal: Some(signal) };
        self.note(context, process, sent, UsedMethod::Pidfd, tally, obstacle)
    }

    /// Signals members by kill(2), where the caller or a freeze of ours makes that acceptable: a process that can't
    /// exit can't lose its pid.
    pub(crate) fn send_unverified(
        &mut self,
        context: &mut Context<'_, S>,
        signal: Signal,
        members: &MemberList,
        tally: &mut Tally,
        obstacle: &mut Option<Box<Obstacle>>,
    ) -> io::Result<()> {
        let (own, _) = context.sys.caller();
        // The grace signal is sent only once.
        let has_it = |pid: Pid| signal != Signal::KILL && self.needs_no_more(pid, signal);
        let pids: Vec<Pid> = members.pids.iter().copied().filter(|&pid| pid != own && !has_it(pid)).collect();
        add(&mut self.tried, &members.pids);
        let mut failed = None;
        for pid in pids {
            let sent = context.sys.kill(pid, signal.number());
            if sent.is_ok() && signal != Signal::KILL {
                let _ = context.sys.kill(pid, libc::SIGCONT);
            }
            let process = Process { pid, number: None, signal: Some(signal) };
            if let Err(error) = self.note(context, process, sent, UsedMethod::Unverified, tally, obstacle) {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Notes the result of a signal. Returns whether the signal was sent.
    fn note(
        &mut self,
        context: &mut Context<'_, S>,
        process: Process,
        sent: io::Result<()>,
        method: UsedMethod,
        tally: &mut Tally,
        obstacle: &mut Option<Box<Obstacle>>,
    ) -> io::Result<bool> {
        let Err(error) = sent else {
            context.metrics.signals += 1;
            tally.method = Some(method);
            tally.signalled += u64::from(self.track_signalled(process));
            return Ok(true);
        };
        match meaning(Call::Signal, &error) {
            Meaning::Gone => {}
            Meaning::Denied => {
                tally.missed(Reach::Denied);
                *obstacle = Some(Obstacle::of_process(process.pid, Cause::Error(error)));
            }
            _ => return Err(error),
        }
        Ok(false)
    }

    /// Tracks a process that was signalled. Returns whether this is its first signal.
    fn track_signalled(&mut self, process: Process) -> bool {
        // Lists are sorted, so most processes are added at the end.
        match self.find(process.pid) {
            Ok(at) => {
                let before = std::mem::replace(&mut self.processes[at], process);
                before.number != process.number || before.signal.is_none()
            }
            Err(at) => {
                self.processes.insert(at, process);
                true
            }
        }
    }

    /// Whether this attempt skips the pid, because the signal was sent to it earlier. In some attempts SIGKILL is
    /// sent again.
    fn needs_no_more(&self, pid: Pid, signal: Signal) -> bool {
        let resends = signal == Signal::KILL && self.attempts + 1 >= RESEND;
        // If a pid was missing in a list and is listed again, it is of another process.
        !resends && self.was_tried(pid) && self.sent(pid, signal).is_some()
    }

    /// Whether this attempt skips every member. False for an empty list.
    pub(crate) fn need_no_more(&self, members: &MemberList) -> bool {
        !members.is_empty()
            && members.unmapped == 0
            && members.pids.iter().all(|&pid| self.needs_no_more(pid, Signal::KILL))
    }
}

/// A process that is tracked once a list shows that it is a member.
pub(crate) struct Identified(Process);
