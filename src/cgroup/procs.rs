//! The members of a target: reading who they are, signalling them and no one else, and telling when
//! they are dead.

use std::io;
use std::num::{NonZeroI32, NonZeroU64};
use std::path::Path;

use super::budget::Permit;
use super::pin::{is_denied, is_gone};
use super::{Kernel, Notice, Trouble, file, proc};
use crate::outcome::UsedMethod;
use crate::reaper::Signal;
use crate::sys::Sys;

/// Processes handled in one step. Each costs a few microseconds, and a descriptor for as long.
const BATCH: usize = 512;

/// In every so many rounds SIGKILL is sent also to those that have had it, which otherwise is for nothing. Another
/// process may have come by the pid of one of them meanwhile, in the same group.
const AGAIN: u8 = 4;

/// What came of an attempt so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kill {
    pub(crate) signalled: u64,
    pub(crate) method: Option<UsedMethod>,
    pub(crate) denied: bool,
    pub(crate) unsafe_unfrozen: bool,
    pub(crate) failed: bool,
    pub(crate) more: bool,
    pub(crate) notified: bool,
}

/// Who is listed in some directories.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Sorted, each once, all positive.
    pub(crate) pids: Vec<i32>,
    /// Lines that name no process of ours to see: 0 stands for one in another pid namespace. They
    /// can't be signalled, and do count as alive.
    pub(crate) strangers: usize,
}

impl Listing {
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.strangers == 0
    }

    /// Adds the members of one directory. Each call opens the file afresh: v1 serves stale data to a
    /// descriptor that is read again within a second (`cgroup_pidlist_start`).
    pub(crate) fn add<S: Sys>(&mut self, sys: &S, root: &S::Fd, dir: &Path) -> io::Result<()> {
        match file::read(sys, root, dir, c"cgroup.procs") {
            Ok(text) => self.parse(&text),
            // A threaded cgroup lists threads only; a thread's process is what can be killed.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let mut threads = Listing::default();
                threads.parse(&file::read(sys, root, dir, c"cgroup.threads")?);
                self.strangers += threads.strangers;
                for tid in threads.pids {
                    match process_of(sys, tid) {
                        Ok(pid) => self.pids.push(pid),
                        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds what another listing has.
    pub(crate) fn extend(&mut self, other: Option<Listing>) {
        let Some(other) = other else { return };
        self.pids.extend(other.pids);
        self.strangers += other.strangers;
    }

    /// To be called after the last `add`.
    pub(crate) fn finish(&mut self) {
        self.pids.sort_unstable();
        self.pids.dedup();
    }

    fn parse(&mut self, text: &[u8]) {
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            match std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()) {
                Some(pid) if pid > 0 => self.pids.push(pid),
                _ => self.strangers += 1,
            }
        }
    }

    /// Whether a pid is among them, once `finish`ed.
    pub(crate) fn contains(&self, pid: i32) -> bool {
        self.pids.binary_search(&pid).is_ok()
    }
}

/// The process that a thread is of.
fn process_of<S: Sys>(sys: &S, tid: i32) -> io::Result<i32> {
    let status = file::read_path(sys, format!("/proc/{tid}/status").as_ref())?;
    status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))
        .and_then(|pid| std::str::from_utf8(pid.trim_ascii()).ok()?.parse().ok())
        .filter(|&pid| pid > 0)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Tgid in /proc/TID/status"))
}

/// The processes that were killed, until they are known to be dead.
pub(crate) struct Victims<S: Sys> {
    /// Sorted by pid.
    signalled: Vec<Victim>,
    /// Members that the last kill dealt with, be it in vain. Sorted.
    known: Vec<i32>,
    /// That was a kill of everybody, so that who is listed next is not new.
    killed_unlisted: bool,
    /// Members at the last look.
    last: usize,
    /// When the round under way takes several steps: the last process handled, in the order of pids.
    handled: Option<NonZeroI32>,
    /// Rounds since the last one in which everybody was sent SIGKILL, whoever had had it.
    rounds: u8,
    /// One member, whose exit is worth a look.
    watched: Option<Watched<S>>,
}

#[derive(Clone, Copy)]
struct Victim {
    pid: i32,
    /// The inode number, where pidfds have one: it tells a process from a later one of the same pid.
    identity: Option<NonZeroU64>,
    /// The signal that it was sent, if it was one by one. SIGKILL it dies of, wherever it is.
    signal: Option<Signal>,
}

/// Adds numbers to sorted ones.
fn add(sorted: &mut Vec<i32>, more: impl IntoIterator<Item = i32, IntoIter: ExactSizeIterator>) {
    let more = more.into_iter();
    // Thousands wait at once: no room to spare.
    sorted.reserve_exact(more.len());
    sorted.extend(more);
    sorted.sort_unstable();
    sorted.dedup();
}

fn has(sorted: &[i32], pid: i32) -> bool {
    sorted.binary_search(&pid).is_ok()
}

/// A pidfd that wakes the reactor.
struct Watched<S: Sys> {
    pidfd: S::Fd,
    /// The victim whose process this surely is.
    victim: Option<Victim>,
    _permit: Permit,
}

impl<S: Sys> Victims<S> {
    pub(crate) fn new() -> Victims<S> {
        Victims {
            signalled: Vec::new(),
            known: Vec::new(),
            killed_unlisted: false,
            last: 0,
            handled: None,
            rounds: 0,
            watched: None,
        }
    }

    /// Takes note of who is there: whether some were not at the last kill, and whether some have gone.
    pub(crate) fn compare(&mut self, listing: &Listing) -> (bool, bool) {
        let now = listing.pids.len() + listing.strangers;
        let shrunk = now < std::mem::replace(&mut self.last, now);
        if std::mem::take(&mut self.killed_unlisted) {
            add(&mut self.known, listing.pids.iter().copied());
        }
        self.known.retain(|&pid| listing.contains(pid));
        (listing.pids.iter().any(|&pid| !has(&self.known, pid)), shrunk)
    }

    /// Takes note of a kill of everybody by `cgroup.kill`, and of who was listed before, if that is known.
    pub(crate) fn killed_all(&mut self, listing: Option<&Listing>) {
        match listing {
            Some(listing) => add(&mut self.known, listing.pids.iter().copied()),
            None => self.killed_unlisted = true,
        }
    }

    /// The processes killed that are not known to be dead.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.signalled.iter().map(|victim| victim.pid)
    }

    /// Whether a kill has dealt with anybody yet, be it in vain.
    pub(crate) fn were_tried(&self) -> bool {
        !self.known.is_empty() || !self.signalled.is_empty()
    }

    /// Identifies members that are about to be killed otherwise than by signals, so that [`Victims::all_dead`]
    /// can tell. As in [`Victims::signal`] only those are members that `list` finds once they have been opened.
    pub(crate) fn identify_all(
        &mut self,
        kernel: &mut Kernel<'_, S>,
        before: &Listing,
        list: impl Fn() -> io::Result<Listing>,
    ) -> io::Result<()> {
        let mut found = Vec::new();
        for &pid in &before.pids {
            if self.find(pid).is_ok() {
                continue;
            }
            match kernel.sys.pidfd_open(pid) {
                Ok(fd) => {
                    let identity = kernel.facts.identity(kernel.sys, &fd)?;
                    // By now it may have left, to live on elsewhere.
                    found.push(Victim { pid, identity, signal: None });
                }
                Err(error) if is_unreachable(&error) => {}
                // No such call, or a seccomp filter that does not let it through. `cgroup.kill` works without.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if !found.is_empty() {
            let after = list()?;
            self.signalled.extend(found.into_iter().filter(|victim| after.contains(victim.pid)));
            self.signalled.sort_unstable_by_key(|victim| victim.pid);
        }
        Ok(())
    }

    /// Whether every process that was sent SIGKILL is dead, and every other that was killed or signalled is dead
    /// or lives on elsewhere; `None` if to tell that would take more than one step may. To be asked when nobody is
    /// listed.
    ///
    /// From Linux 6.19 on a dying task leaves the lists before it is dead, so an empty list alone does not
    /// tell. Where pidfds have no inode numbers (before 6.9) it does.
    pub(crate) fn all_dead(&mut self, kernel: &mut Kernel<'_, S>) -> io::Result<Option<bool>> {
        if let Some(Watched { pidfd, victim: Some(victim), .. }) = &self.watched {
            if victim.is_dying(kernel.sys, pidfd)? {
                return Ok(Some(false));
            }
            if let Ok(at) = self.find(victim.pid) {
                self.signalled.remove(at);
            }
        }
        for _ in 0..BATCH {
            let Some(&victim) = self.signalled.last() else { return Ok(Some(true)) };
            if victim.identity.is_some() {
                match kernel.sys.pidfd_open(victim.pid) {
                    Ok(fd) => {
                        let same = kernel.facts.identity(kernel.sys, &fd)? == victim.identity;
                        if same && victim.is_dying(kernel.sys, &fd)? {
                            self.watch(kernel, fd, Some(victim));
                            return Ok(Some(false));
                        }
                    }
                    Err(error) if is_unreachable(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            self.signalled.pop();
        }
        Ok(None)
    }

    /// Where a victim is, or would be.
    fn find(&self, pid: i32) -> Result<usize, usize> {
        self.signalled.binary_search_by_key(&pid, |victim| victim.pid)
    }

    /// Has the next signal begin with the first process: what it goes on with is a round that neither failed nor was
    /// given up for a look.
    pub(crate) fn begin_again(&mut self) {
        self.handled = None;
    }

    /// They are all dead.
    pub(crate) fn forget(&mut self) {
        self.signalled.clear();
        self.watched = None;
    }

    /// Whether the exit of some member wakes the reactor.
    pub(crate) fn are_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Gives up the descriptor that is held.
    pub(crate) fn let_go(&mut self) {
        self.watched = None;
    }

    /// Sees to it that the exit of some member wakes the reactor.
    pub(crate) fn rewatch(&mut self, kernel: &mut Kernel<'_, S>, listing: &Listing) {
        if kernel.watch.is_none() {
            return;
        }
        if let Some(Watched { pidfd, .. }) = &self.watched {
            if matches!(kernel.sys.has_exited(pidfd), Ok(false)) {
                return;
            }
            self.watched = None;
        }
        // Any member will do, so nothing needs to be verified. The last listed tend to die last. One
        // that has exited and is listed all the same would wake us for nothing, again and again.
        for &pid in listing.pids.iter().rev().take(4) {
            if let Ok(fd) = kernel.sys.pidfd_open(pid) {
                if matches!(kernel.sys.has_exited(&fd), Ok(false)) {
                    self.watch(kernel, fd, None);
                    return;
                }
            }
        }
    }

    fn watch(&mut self, kernel: &mut Kernel<'_, S>, pidfd: S::Fd, victim: Option<Victim>) {
        self.watched = None;
        if let Some(permit) = kernel.permit() {
            if kernel.watch(&pidfd, Notice::Exit) {
                self.watched = Some(Watched { pidfd, victim, _permit: permit });
            }
        }
    }

    /// Signals every process of `before` that `list` finds too, but none that it does not.
    ///
    /// List, open pidfds, list again, signal who was in both: a signal that arrives proves that the
    /// pidfd's process kept its pid all along, so it was that process that the second list named. How old
    /// the first list is does not matter. What was done is added to `kill`, also before an error.
    pub(crate) fn signal(
        &mut self,
        kernel: &mut Kernel<'_, S>,
        how: How,
        trouble: &mut Option<Box<Trouble>>,
        before: &Listing,
        list: impl Fn(Who) -> io::Result<Listing>,
        kill: &mut Kill,
    ) -> io::Result<()> {
        let (own, _) = kernel.sys.caller();
        let mut tried = Vec::with_capacity(before.pids.len().min(BATCH));
        let mut opened = Vec::with_capacity(before.pids.len().min(BATCH));
        let from = before.pids.partition_point(|&pid| self.handled.is_some_and(|last| pid <= last.get()));
        for &pid in &before.pids[from..] {
            if opened.len() == BATCH {
                kill.more = true;
                break;
            }
            tried.push(pid);
            if how.signal == Signal::KILL && self.needs_no_more(pid) {
                continue;
            }
            if pid == own {
                kill.denied = true;
                *trouble =
                    Some(Trouble::of_process(pid, io::Error::other("the caller itself moved in here")));
                continue;
            }
            match kernel.sys.pidfd_open(pid) {
                Ok(fd) => opened.push((pid, fd)),
                Err(error) if is_unreachable(&error) => {}
                Err(error) => match error.raw_os_error() {
                    // No such call, or a seccomp filter that does not let it through.
                    Some(libc::ENOSYS | libc::EPERM) => {
                        return self.signal_unverified(kernel, how, trouble, list, kill);
                    }
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) if !opened.is_empty() => {
                        tried.pop();
                        kill.more = true;
                        break;
                    }
                    _ => return Err(error),
                },
            }
        }
        add(&mut self.known, tried.iter().copied());
        // Whoever is not among these comes after the last kill.
        self.killed_unlisted = false;
        if !kill.more {
            self.handled = None;
            self.rounds = (self.rounds + 1) % AGAIN;
        }
        if opened.is_empty() {
            return Ok(());
        }
        if kill.more {
            self.handled = tried.last().copied().and_then(NonZeroI32::new);
        }
        let after = list(Who::Everybody)?;
        self.signalled.reserve_exact(opened.len());
        let mut last = None;
        for (pid, fd) in opened {
            if !after.contains(pid) {
                // Should it come back, it is new.
                self.known.retain(|known| *known != pid);
                continue;
            }
            // First who it is: of a process without that, nobody could tell later whether it is dead.
            let identity = kernel.facts.identity(kernel.sys, &fd)?;
            match kernel.sys.pidfd_send_signal(&fd, how.signal.number()) {
                Ok(()) => {
                    if how.signal != Signal::KILL {
                        // A stopped process acts on a signal only once it is continued.
                        let _ = kernel.sys.pidfd_send_signal(&fd, libc::SIGCONT);
                    }
                    kernel.metrics.signals += 1;
                    kill.method = Some(UsedMethod::Pidfd);
                    let victim = Victim { pid, identity, signal: Some(how.signal) };
                    kill.signalled += u64::from(self.note(victim));
                    last = Some((victim, fd));
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) if is_denied(&error) => {
                    kill.denied = true;
                    *trouble = Some(Trouble::of_process(pid, error));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((victim, fd)) = last {
            self.watch(kernel, fd, Some(victim));
        }
        Ok(())
    }

    /// kill(2), where the caller or a freeze of ours makes it acceptable.
    fn signal_unverified(
        &mut self,
        kernel: &mut Kernel<'_, S>,
        how: How,
        trouble: &mut Option<Box<Trouble>>,
        list: impl Fn(Who) -> io::Result<Listing>,
        kill: &mut Kill,
    ) -> io::Result<()> {
        let listing = match how.unverified {
            Unverified::Nobody => Listing::default(),
            Unverified::Frozen => list(Who::Frozen)?,
            Unverified::Everybody => list(Who::Everybody)?,
        };
        if how.unverified != Unverified::Everybody {
            let left = list(Who::Everybody)?.pids.into_iter().find(|&pid| !listing.contains(pid));
            if let Some(pid) = left {
                // Whom a freeze does not make safe, nothing will.
                kill.denied = how.frozen;
                kill.unsafe_unfrozen = !kill.denied;
                let why = "no pidfds here, and no v1 freezer that would make it safe to signal";
                *trouble = Some(Trouble::of_process(pid, io::Error::new(io::ErrorKind::Unsupported, why)));
            }
        }
        let (own, _) = kernel.sys.caller();
        add(&mut self.known, listing.pids.iter().copied());
        for &pid in listing.pids.iter().filter(|&&pid| pid != own) {
            match kernel.sys.kill(pid, how.signal.number()) {
                Ok(()) => {
                    if how.signal != Signal::KILL {
                        let _ = kernel.sys.kill(pid, libc::SIGCONT);
                    }
                    kernel.metrics.signals += 1;
                    kill.method = Some(UsedMethod::Unverified);
                    let victim = Victim { pid, identity: None, signal: Some(how.signal) };
                    kill.signalled += u64::from(self.note(victim));
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) if is_denied(&error) => {
                    kill.denied = true;
                    *trouble = Some(Trouble::of_process(pid, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether this round may pass over the process of this pid, for SIGKILL was sent to it, or to one before it.
    fn needs_no_more(&self, pid: i32) -> bool {
        let doomed = |at: usize| self.signalled[at].signal == Some(Signal::KILL);
        // Whoever is listed again after he was not is another.
        self.rounds + 1 < AGAIN && has(&self.known, pid) && self.find(pid).is_ok_and(doomed)
    }

    /// The same of everybody in a group that has somebody in it.
    pub(crate) fn need_no_more(&self, listing: &Listing) -> bool {
        !listing.is_empty()
            && listing.strangers == 0
            && listing.pids.iter().all(|&pid| self.needs_no_more(pid))
    }

    /// Notes that a process was signalled; whether for the first time.
    fn note(&mut self, victim: Victim) -> bool {
        // Lists are sorted, so that most are added at the end.
        match self.find(victim.pid) {
            Ok(at) => {
                let before = std::mem::replace(&mut self.signalled[at], victim);
                before.identity != victim.identity || before.signal.is_none()
            }
            Err(at) => {
                self.signalled.insert(at, victim);
                true
            }
        }
    }
}

impl Victim {
    /// Whether the process, which is no longer listed, is on its way out and not dead yet.
    fn is_dying<S: Sys>(self, sys: &S, pidfd: &S::Fd) -> io::Result<bool> {
        if sys.has_exited(pidfd)? {
            return Ok(false);
        }
        // Where /proc does not say, it is waited for.
        let doomed = self.signal == Some(Signal::KILL);
        let dying = doomed || proc::stat(sys, self.pid).is_none_or(|stat| stat.is_exiting());
        // Once more, so that the pid was its own when /proc was asked.
        Ok(dying && !sys.has_exited(pidfd)?)
    }
}

/// Whether pidfd_open(2) says that there is nobody to reach: a process that is dead and reaped, a number that is
/// a thread's now, or a kernel thread, which some kernels refuse and none kills.
fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL))
}

/// Whom a listing is to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Everybody,
    /// Members of the directories in the v1 freezer's hierarchy.
    Frozen,
}

/// Who may be signalled by kill(2), for a process that can't exit can't lose its pid: of the two freezers only
/// v1's is proof against SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unverified {
    Nobody,
    /// We have frozen them.
    Frozen,
    /// The caller said so.
    Everybody,
}

/// What to send, and what may be done without pidfds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) signal: Signal,
    pub(crate) unverified: Unverified,
    /// The target is frozen by us.
    pub(crate) frozen: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Listing {
        let mut listing = Listing::default();
        listing.parse(text);
        listing.finish();
        listing
    }

    #[test]
    fn pids_come_sorted_and_once() {
        let listing = parsed(b"30\n4\n30\n");
        assert_eq!(listing.pids, [4, 30]);
        assert_eq!(listing.strangers, 0);
        assert!(parsed(b"").is_empty());
    }

    #[test]
    fn what_is_no_pid_is_a_stranger_never_a_victim() {
        for text in [
            &b"0\n"[..],
            b"-1\n",
            b"4294967296\n",
            b"99999999999999999999\n",
            b"1 2\n",
            b"x\n",
            b"\xff\n",
            b" 7\n",
        ] {
            let listing = parsed(text);
            assert!(listing.pids.is_empty(), "{text:?}");
            assert_eq!(listing.strangers, 1, "{text:?}");
            assert!(!listing.is_empty());
        }
    }
}
