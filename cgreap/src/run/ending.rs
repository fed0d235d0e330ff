//! The end of a run: its cgroups are reaped, in stages.

use std::io;
use std::time::{Duration, Instant};

use cgroup_reaper::{Effort, Reactor, ReapError, ReapHandle, Reaped, Reaper, SpawnError};

use super::group::{Group, Groups};
use super::usage::Usage;
use crate::args::RunArgs;
use crate::shortage::{PATIENCE, Patience, is_shortage};

/// So long before the SIGKILL at the end of the grace the processes are listed that get it.
const LIST_MARGIN: Duration = Duration::from_millis(5);

/// The reaping of the cgroups: the first one, in which all processes are, and then the others, so that no process gets the
/// signal of the grace twice.
#[derive(Debug)]
pub struct Ending<'a> {
    args: &'a RunArgs,
    groups: &'a Groups,
    /// Of the starts of reaps. Nothing else could be done meanwhile.
    patience: Patience,
    stage: Stage,
    effort: Effort,
    usage: Usage,
    /// Why something is left.
    error: Option<String>,
}

#[derive(Debug)]
enum Stage {
    /// What is left may end by itself.
    Linger {
        until: Instant,
        handle: ReapHandle,
    },
    /// The first cgroup is emptied, and removed unless the usage is to be reported.
    First {
        list_at: Option<Instant>,
        handle: ReapHandle,
    },
    /// The same with the others.
    Others(Vec<ReapHandle>),
    /// All are removed, after their usage was read.
    Remove(Vec<ReapHandle>),
    Done,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Result {
    pub effort: Effort,
    pub usage: Usage,
    /// Why something is left.
    pub error: Option<String>,
}

impl<'a> Ending<'a> {
    /// Nothing is signalled before [`Ending::begin`].
    pub fn new(args: &'a RunArgs, groups: &'a Groups, has_guard: bool) -> Ending<'a> {
        let (effort, usage) = Default::default();
        // After that the guard tries, if there is one.
        let patience = Patience(if has_guard { PATIENCE } else { args.deadline });
        Ending { args, groups, patience, stage: Stage::Done, effort, usage, error: None }
    }

    /// Lets what is left end by itself, if there is time for that. Returns whether there is.
    pub fn linger(&mut self, reactor: &mut Reactor) -> bool {
        let Some(linger) = self.args.linger.filter(|linger| !linger.is_zero()) else { return false };
        let until = Instant::now() + linger;
        // It takes no longer than what is left may.
        let kept = self.patience.0.saturating_sub(linger);
        self.patience.0 -= kept;
        let handle = self.spawn(self.groups.first(), reactor, |reaper| reaper.when_empty().keep_dir());
        match handle {
            Some(handle) => self.stage = Stage::Linger { until, handle },
            // It is ended at once.
            None => self.error = None,
        }
        self.patience.0 += kept;
        self.is_lingering()
    }

    /// Begins with the signal of the grace.
    pub fn begin(&mut self, reactor: &mut Reactor) {
        let (signal, grace) = self.args.grace;
        let keep = self.reports_usage();
        let configure = |reaper: Reaper| {
            let reaper = reaper.deadline(grace + self.args.deadline);
            let reaper = if grace.is_zero() { reaper } else { reaper.grace(signal, grace) };
            if keep { reaper.keep_dir() } else { reaper }
        };
        self.stage = match self.spawn(self.groups.first(), reactor, configure) {
            Some(handle) => {
                let list_at = (grace > LIST_MARGIN).then(|| Instant::now() + (grace - LIST_MARGIN));
                Stage::First { list_at, handle }
            }
            None => Stage::Others(self.spawn_all(self.groups.others(), reactor, keep)),
        };
        self.advance(reactor);
    }

    /// The usage is read after the last process has exited, before the removal.
    fn reports_usage(&self) -> bool {
        self.args.report.is_some()
    }

    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    pub fn is_lingering(&self) -> bool {
        matches!(self.stage, Stage::Linger { .. })
    }

    /// Whether the time is over in which what is left may end by itself.
    pub fn has_lingered(&self) -> bool {
        let Stage::Linger { until, handle } = &self.stage else { return false };
        handle.is_complete() || *until <= Instant::now()
    }

    /// When to look at this again, should nothing happen before.
    pub fn next(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Linger { until, .. } => Some(*until),
            Stage::First { list_at, .. } => *list_at,
            _ => None,
        }
    }

    /// Whether the processes that are left are about to get SIGKILL; once.
    pub fn is_kill_due(&mut self) -> bool {
        match &mut self.stage {
            Stage::First { list_at, handle } if !handle.is_complete() => {
                list_at.take_if(|at| *at <= Instant::now()).is_some()
            }
            _ => false,
        }
    }

    /// SIGKILL now.
    pub fn kill_now(&mut self) {
        if let Stage::First { list_at, handle } = &mut self.stage {
            *list_at = None;
            handle.kill_now();
        }
    }

    /// Goes on to the next stage if one is over.
    pub fn advance(&mut self, reactor: &mut Reactor) {
        loop {
            match &mut self.stage {
                Stage::Linger { .. } | Stage::Done => return,
                Stage::First { handle, .. } => {
                    let Some(result) = handle.try_wait() else { return };
                    self.note(result);
                    let keep = self.reports_usage();
                    let others = self.spawn_all(self.groups.others(), reactor, keep);
                    self.stage = Stage::Others(others);
                }
                Stage::Others(handles) => {
                    let Some(results) = results(handles) else { return };
                    results.into_iter().for_each(|result| self.note(result));
                    self.stage = Stage::Remove(self.remove(reactor));
                }
                Stage::Remove(handles) => {
                    let Some(results) = results(handles) else { return };
                    results.into_iter().for_each(|result| self.note(result));
                    self.stage = Stage::Done;
                }
            }
        }
    }

    /// Removes what was kept for its usage, which is read now.
    fn remove(&mut self, reactor: &mut Reactor) -> Vec<ReapHandle> {
        if !self.reports_usage() {
            return Vec::new();
        }
        self.usage = Usage::of(self.groups);
        if self.error.is_some() {
            // What is left in one was reported already, and is not waited for again. In the others nothing may be left.
            self.groups.remove();
            return Vec::new();
        }
        self.spawn_all(self.groups.all(), reactor, false)
    }

    fn spawn_all(&mut self, groups: &[Group], reactor: &mut Reactor, keep: bool) -> Vec<ReapHandle> {
        let deadline = self.args.deadline;
        let configure = |reaper: Reaper| {
            let reaper = reaper.deadline(deadline);
            if keep { reaper.keep_dir() } else { reaper }
        };
        groups.iter().filter_map(|group| self.spawn(group, reactor, configure)).collect()
    }

    fn spawn(
        &mut self,
        group: &Group,
        reactor: &mut Reactor,
        configure: impl Fn(Reaper) -> Reaper,
    ) -> Option<ReapHandle> {
        let spawn = || {
            let reaper = group.reaper().map_err(Failure::Unopened)?;
            reactor.spawn_reaper(configure(reaper)).map_err(Failure::Refused)
        };
        let spawned = self.patience.retry(spawn, Failure::is_shortage);
        let failed = |failure| match failure {
            Failure::Refused(error) => error.to_string(),
            Failure::Unopened(error) => format!("{}: {error}", group.path().display()),
        };
        spawned.map_err(|failure| self.fail(failed(failure))).ok()
    }

    fn note(&mut self, result: std::result::Result<Reaped, ReapError>) {
        match result {
            Ok(reaped) => self.add(reaped.effort()),
            Err(error) => {
                self.add(error.effort().unwrap_or_default());
                self.fail(error.to_string());
            }
        }
    }

    fn add(&mut self, more: Effort) {
        self.effort.method = self.effort.method.or(more.method);
        self.effort.signalled += more.signalled;
        self.effort.attempts += more.attempts;
        self.effort.released += more.released;
        self.effort.elapsed += more.elapsed;
    }

    /// The first failure is reported: the others follow from it.
    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    pub fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    pub fn into_result(self) -> Result {
        Result { effort: self.effort, usage: self.usage, error: self.error }
    }
}

/// Why a reap was not started.
enum Failure {
    Refused(SpawnError),
    Unopened(io::Error),
}

impl Failure {
    fn is_shortage(&self) -> bool {
        match self {
            Failure::Refused(error) => error.refusal().io_error().is_some_and(is_shortage),
            Failure::Unopened(error) => is_shortage(error),
        }
    }
}

/// Takes the results, once all of them are there.
fn results(handles: &[ReapHandle]) -> Option<Vec<std::result::Result<Reaped, ReapError>>> {
    handles
        .iter()
        .all(ReapHandle::is_complete)
        .then(|| handles.iter().filter_map(ReapHandle::try_wait).collect())
}
