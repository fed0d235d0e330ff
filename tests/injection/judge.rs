//! What has to hold after a case: the result is true, it came in time, and nothing is left frozen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::SLACK;
use super::event_loop::Ending;
use super::faults::{Fault, Kind, Mode};
use super::kernel::Record;
use super::scenarios::{Scenario, Target};
use crate::common::{Layout, TIMEOUT, subtree, wait_until};
use crate::outcome::{Act, Effort, Outcome, ReapError, Refusal, Survivor};
use crate::reaper::{KillMethod, Reaper};

/// What a fault may cost beyond its own length.
const COST: Duration = Duration::from_millis(100);

/// What a refusal lasts at least, before it ends a reap.
const PATIENCE: Duration = Duration::from_millis(840);

/// How long the end of a reap may be delayed by a freeze that cannot be undone.
const LAST_THAW: Duration = Duration::from_secs(10);

/// How long a process may be seen after its group says that it is empty.
const EXIT: Duration = Duration::from_secs(2);

/// One case, when it is over.
pub(super) struct Case<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) target: &'a Target,
    pub(super) fault: Option<Fault>,
    pub(super) ending: &'a Ending,
    pub(super) record: &'a Record,
    pub(super) spawned: Duration,
    pub(super) over: Duration,
}

/// How long the members have before SIGKILL.
fn wait_for_sigkill(reaper: &Reaper) -> Duration {
    let grace = reaper.grace.map_or(Duration::ZERO, |(_, period)| period);
    reaper.linger.unwrap_or_default() + grace
}

/// How long a reap may take.
pub(super) fn bound(scenario: &Scenario, target: &Target, fault: Option<Fault>) -> Duration {
    let reaper = &target.reaper;
    let length = fault.map_or(Some(Duration::ZERO), |fault| fault.mode.length());
    let by_itself = length.map(|length| scenario.takes + wait_for_sigkill(reaper) + length);
    let by_deadline = match fault {
        Some(fault) if may_stay_frozen(fault) => reaper.deadline.map(|deadline| deadline + LAST_THAW),
        _ => reaper.deadline,
    };
    let bound = match (by_itself, by_deadline) {
        (Some(by_itself), Some(by_deadline)) if target.stuck.is_none() => by_itself.min(by_deadline),
        (Some(by_itself), None) => by_itself,
        (_, Some(by_deadline)) => by_deadline,
        (None, None) => Duration::MAX / 2,
    };
    bound + COST + SLACK
}

/// Whether a freeze of ours cannot be undone. Without a write there is no thaw; everything else it does without.
fn may_stay_frozen(fault: Fault) -> bool {
    fault.mode == Mode::Lasting && fault.kind == Kind::Write
}

impl Case<'_> {
    /// What is wrong and not due to a busy machine.
    pub(super) fn untruths(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let truth = match self.ending {
            Ending::Refused(refusal) => self.refused(refusal),
            Ending::Complete(Ok(reaped)) => self.reaped(reaped.outcome),
            Ending::Complete(Err(error)) => self.failed(error),
            Ending::Overdue(_) => None,
        };
        problems.extend(truth);
        problems.extend(self.frozen());
        problems.extend(self.killed_early());
        if self.record.made > CALLS && self.fault.is_none_or(|fault| fault.errno != Errno::EINTR) {
            problems.push(format!("busy: {} calls", self.record.made));
        }
        problems
    }

    fn refused(&self, refusal: &Refusal) -> Option<String> {
        if self.record.calls.iter().any(|call| call.has_effect()) {
            return Some("refused, and something was touched".into());
        }
        match (refusal, self.fault) {
            (_, Some(fault)) if fault.mode == Mode::Lasting && self.has_another_way(fault) => {
                Some(format!("refused, and there was another way: {refusal}"))
            }
            (Refusal::Io { source, .. }, Some(fault)) if is(source, fault.errno) => None,
            (_, Some(_)) => Some(format!("refused, and that is not true: {refusal}")),
            (_, None) => Some(format!("refused for no reason: {refusal}")),
        }
    }

    fn reaped(&self, outcome: Outcome) -> Option<String> {
        if self.target.stuck.is_some() {
            return Some(format!("{outcome}, and a member lives"));
        }
        let wanted = if self.target.reaper.keep_dir { Outcome::Emptied } else { Outcome::Removed };
        if outcome != wanted {
            return Some(format!("{outcome}, and not {wanted}"));
        }
        for dir in &self.target.dirs {
            if dir.exists() != (outcome == Outcome::Emptied) {
                return Some(format!("{outcome}, and the directory says otherwise"));
            }
        }
        if !wait_until(EXIT, || self.living().is_empty()) {
            return Some(format!("{outcome}, and members live: {}", self.living().len()));
        }
        let storm = self.target.storm.as_ref();
        if storm.is_some_and(|storm| !wait_until(TIMEOUT, || storm.tasks() == 0)) {
            return Some(format!("{outcome}, and the storm lives"));
        }
        None
    }

    fn living(&self) -> Vec<i32> {
        self.target.members.iter().filter(|member| member.alive()).map(|member| member.pid).collect()
    }

    /// An error is one only if the fault, or the stuck member, leaves no other way.
    fn failed(&self, error: &ReapError) -> Option<String> {
        let Some(effort) = error.effort() else { return Some(format!("not asked for: {error}")) };
        match error {
            ReapError::TimedOut { source, survivors, .. } => {
                if self.target.reaper.deadline.is_none_or(|deadline| effort.elapsed < deadline) {
                    return Some("timed out before the deadline".into());
                }
                let source = source.as_deref();
                let untrue = source.and_then(|source| self.untrue(source));
                if let Some(problem) = untrue.or_else(|| self.unexplained(source, survivors)) {
                    return Some(problem);
                }
                let (stuck, storm) = (&self.target.stuck, self.target.storm.is_some());
                let is_member = |pid: i32| storm || self.members().any(|member| member == pid) || pid == 0;
                if let Some(other) = survivors.iter().find(|survivor| !is_member(survivor.pid)) {
                    return Some(format!("names process {}, which is no member", other.pid));
                }
                // A fault at the very end may hide it.
                let hidden = self.fault.is_some_and(|fault| fault.mode == Mode::Lasting)
                    || self.fault_ends().is_some_and(|end| end + SLACK > self.over);
                match stuck {
                    Some(stuck)
                        if !hidden && survivors.iter().all(|named| named.pid != stuck.process.pid) =>
                    {
                        Some("does not name the member that is left".into())
                    }
                    _ => self.busy(error),
                }
            }
            ReapError::FrozenByAncestor { .. } if !self.target.beside.is_empty() => None,
            ReapError::Denied { act, source, effort, .. } => self.denied(*act, source, *effort),
            _ => Some(format!("no reason for that: {error}")),
        }
    }

    fn members(&self) -> impl Iterator<Item = i32> {
        let stuck = self.target.stuck.iter().map(|stuck| stuck.process.pid);
        self.target.members.iter().map(|member| member.pid).chain(stuck)
    }

    /// Only a fault that lasts, or a stuck member, keeps a reap from its end.
    fn timed_out(&self) -> Option<String> {
        if self.target.stuck.is_some() {
            return None;
        }
        match self.fault.filter(|fault| fault.mode == Mode::Lasting) {
            None => Some("timed out, and nothing stood in the way any more".into()),
            Some(fault) => self.has_another_way(fault).then(|| "timed out, and there was another way".into()),
        }
    }

    /// Whether an error says what no call has said.
    fn untrue(&self, source: &std::io::Error) -> Option<String> {
        let Some(errno) = source.raw_os_error() else {
            return source.to_string().contains("caller").then(|| format!("that is not true: {source}"));
        };
        let said = |errno: i32| {
            self.record.calls.iter().any(|call| call.error().is_some_and(|error| error as i32 == errno))
        };
        (!said(errno)).then(|| format!("no call has said so: {source}"))
    }

    /// Whether the fault is of a facility that a reap can do without.
    fn has_another_way(&self, fault: Fault) -> bool {
        let method = self.target.reaper.method;
        let has_freezer = matches!(self.scenario.layout, Layout::Freezer | Layout::Several);
        let forbidden = matches!(fault.errno, Errno::ENOSYS | Errno::EPERM);
        match fault.kind {
            Kind::Watch => true,
            Kind::PidfdOfThread | Kind::CgroupOf | Kind::ProcessOf => {
                !matches!(fault.errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
            }
            Kind::OpenIdentity => fault.errno == Errno::EPERM,
            // A filter that is loaded in mid-reap may hide what became of a signalled process.
            Kind::PidfdOpen if fault.nth > 1 => false,
            Kind::PidfdOpen | Kind::Signal if !forbidden => false,
            Kind::PidfdOpen | Kind::Signal => match method {
                // Members that are frozen outside keep a freeze of ours, which is tried next, from being complete.
                _ if !self.target.beside.is_empty() => false,
                KillMethod::Auto | KillMethod::CgroupKill if self.scenario.layout == Layout::V2 => true,
                KillMethod::Auto | KillMethod::Freezer => has_freezer,
                _ => false,
            },
            _ => false,
        }
    }

    /// What lives at a deadline does so for a reason: the source says it, or a named group holds it frozen, which no
    /// failed write has kept from being thawed.
    fn unexplained(&self, source: Option<&std::io::Error>, survivors: &[Survivor]) -> Option<String> {
        let writes = [Kind::Write, Kind::OpenWrite, Kind::OpenReadWrite];
        let fails_to_write = self.fault.is_some_and(|fault| writes.contains(&fault.kind));
        let explained = source.is_some()
            || !fails_to_write && survivors.iter().any(|survivor| survivor.frozen_by.is_some())
            || wait_until(EXIT, || self.living().is_empty());
        (!explained).then(|| "timed out, a member lives, and no source says why".into())
    }

    /// A directory that cannot be removed, while every process is dead, is reported as that.
    fn busy(&self, error: &ReapError) -> Option<String> {
        let busy = |fault: Fault| fault.kind == Kind::Rmdir && fault.errno == Errno::EBUSY;
        let of_rmdir = self.fault.is_some_and(|fault| busy(fault) && fault.mode == Mode::Lasting);
        let says = error.to_string().contains("every process is dead");
        (of_rmdir && self.target.stuck.is_none() && !says)
            .then(|| format!("does not say that all are dead: {error}"))
    }

    fn denied(&self, act: Act, source: &std::io::Error, effort: Effort) -> Option<String> {
        use Errno::{EACCES, ENOSYS, EPERM, EROFS};
        let Some(fault) = self.fault else { return Some(format!("denied for no reason: {source}")) };
        if !matches!(fault.errno, EACCES | EPERM | EROFS | ENOSYS) {
            return Some(format!("denied, and {:?} is no denial: {act}: {source}", fault.errno));
        }
        if fault.mode != Mode::Lasting {
            return Some(format!("denied for what passes, after {:?}", effort.elapsed));
        }
        // What is held frozen from outside is given up after the timeout of the freeze.
        let held = act == Act::Thaw && effort.elapsed >= self.target.reaper.freeze_timeout;
        if effort.elapsed < PATIENCE && !held {
            return Some(format!("denied too soon, after {:?}", effort.elapsed));
        }
        if self.has_another_way(fault) {
            return Some(format!("denied, and there was another way: {act}: {source}"));
        }
        self.untrue(source)
    }

    /// When the first SIGKILL was sent, after the spawn.
    fn killed(&self) -> Option<Duration> {
        let call = self.record.calls.iter().find(|call| call.kills())?;
        Some(call.at.saturating_sub(self.spawned))
    }

    fn killed_early(&self) -> Option<String> {
        let wait = wait_for_sigkill(&self.target.reaper);
        let earliest = wait.min(self.target.reaper.deadline.unwrap_or(wait));
        let killed = self.killed().filter(|killed| *killed < earliest)?;
        Some(format!("SIGKILL before the end of the grace period, after {killed:.1?}"))
    }

    /// When the fault was over.
    fn fault_ends(&self) -> Option<Duration> {
        Some(self.record.since? + self.fault?.mode.length()?)
    }

    /// What came too late: SIGKILL, the end, or the thaw.
    pub(super) fn late(&self) -> Option<String> {
        if let Ending::Overdue(after) = self.ending {
            return Some(format!("not complete after {after:.1?}"));
        }
        if let Ending::Complete(Err(ReapError::TimedOut { .. })) = self.ending {
            if let Some(problem) = self.timed_out() {
                return Some(problem);
            }
        }
        let reaper = &self.target.reaper;
        let elapsed = self.over.saturating_sub(self.spawned);
        let bound = bound(self.scenario, self.target, self.fault);
        if elapsed > bound {
            return Some(format!("took {elapsed:.1?}"));
        }
        if let Some(killed) = self.killed() {
            let length = self.fault.and_then(|fault| fault.mode.length()).unwrap_or_default();
            if killed > wait_for_sigkill(reaper) + reaper.min_wait + length + COST + SLACK {
                return Some(format!("SIGKILL after {killed:.1?}"));
            }
        }
        if self.fault.is_some_and(may_stay_frozen) {
            return None;
        }
        let longest = self.record.frozen.iter().map(|frozen| {
            let until = frozen.until.unwrap_or(self.over);
            until.saturating_sub(frozen.since)
        });
        let longest = longest.max().unwrap_or_default();
        let allowed = reaper.freeze_timeout + COST + SLACK;
        (longest > allowed).then(|| format!("frozen for {longest:.1?}"))
    }

    /// Nothing that the library has frozen is frozen still.
    fn frozen(&self) -> Option<String> {
        let ours = self.record.frozen.iter().any(|frozen| frozen.until.is_none());
        if !ours || self.fault.is_some_and(may_stay_frozen) {
            return None;
        }
        let dirs = self.target.dirs.iter().flat_map(|dir| subtree(dir));
        let left: Vec<PathBuf> = dirs.filter(|dir| is_frozen(dir)).collect();
        (!left.is_empty()).then(|| "left frozen".into())
    }
}

/// System calls that a reap of a small target may make, whatever fails.
const CALLS: u64 = 20_000;

fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

fn is_frozen(dir: &Path) -> bool {
    let says = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    says("cgroup.freeze").trim() == "1" || !matches!(says("freezer.state").trim(), "" | "THAWED")
}
