//! Drives an entry: passes the actions of its machine to its target and the answers back, until the entry ends.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::{Command, Entries, Entry, Host};
use crate::cgroup::{Context, Findings, Limit, Notice, Target};
use crate::handle::Completer;
use crate::machine::{Action, End, Input, Machine, Reach, ThawScope, Thawed};
use crate::outcome::{Completed, Effort, ReapError, Reaped, UsedMethod};
use crate::sys::Sys;
use crate::time::Instant;

/// How often the thaw of a target is tried when its reap is dropped.
const THAWS: usize = 3;

impl<S: Sys> Entries<S> {
    /// Passes an input to one entry's machine, and carries out its actions, until it waits, yields or finishes.
    pub(super) fn drive(&mut self, key: usize, input: Input, findings: Findings<S>, host: &impl Host<S>) {
        // If an earlier call has panicked, its entry is deferred first.
        self.resume_driven();
        let Some(entry) = self.slab.get(key) else { return };
        self.driven = Some(entry.id);
        self.drive_until_it_waits(key, input, findings, host);
        self.driven = None;
    }

    fn drive_until_it_waits(
        &mut self,
        key: usize,
        mut input: Input,
        findings: Findings<S>,
        host: &impl Host<S>,
    ) {
        let others_lack = self.is_any_short();
        let Some(entry) = self.slab.get_mut(key) else { return };
        let Entry { machine, target, id, deferred, lacked, .. } = entry;
        // There may be a free descriptor again.
        target.sparing &= input != Input::DescriptorsReturned || machine.is_failing();
        let watch = |fd: &S::Fd, notice: Notice| host.watch(fd, *id, notice);
        let mut context =
            Context::new(&self.resolver, &mut self.metrics, &mut self.facts, Some(&watch), self.limit);
        context.helper_from = self.helper_from;
        context.sparing = self.starved.is_some_and(|starved| starved != *id);
        let mut step = target.step(&mut context, findings);
        let mut attempted = false;
        let end = loop {
            let now = Instant::after_start(step.context.sys.now());
            let escalated = machine.freezes_first();
            let action = machine.step(now, input);
            if machine.freezes_first() && !escalated {
                step.context.metrics.escalations += 1;
                log::info!("{}: freezing it before each attempt from now on", step.path().display());
            }
            log::trace!("{}: {input:?} -> {action:?}", step.path().display());
            input = match action {
                Action::Check(detail) => Input::Checked(step.check(detail)),
                Action::Kill(by) => {
                    let mut attempt = step.kill(by);
                    if let Some(job) = step.take_job() {
                        if let Err(refused) = host.help(*id, job) {
                            // There is no thread for the job, so it is done here.
                            step.target.note_cgroup_kill(None);
                            refused.log();
                            let before = attempt.signalled;
                            attempt = step.kill(by);
                            attempt.signalled += before;
                        }
                    }
                    attempted |= attempt.reach != Reach::UnderWay;
                    Input::Killed(attempt)
                }
                Action::Signal(signal, members) => Input::Signalled(step.signal(signal, members)),
                Action::Freeze => {
                    let froze = step.freeze();
                    Input::Froze { froze, ours_left: step.target.is_frozen_by_us() }
                }
                Action::Thaw(_) | Action::ContinueThaw => {
                    let thawed = match action {
                        Action::Thaw(scope) => step.thaw(scope),
                        _ => step.continue_thaw(),
                    };
                    Input::Thawed { thawed, ours_left: step.target.is_frozen_by_us() }
                }
                Action::ThawExternal => Input::ThawedExternal(step.thaw_external()),
                Action::Remove => {
                    let mut removed = step.remove();
                    if let Some(job) = step.take_job() {
                        if let Err(refused) = host.help(*id, job) {
                            step.target.removal_refused();
                            refused.log();
                            removed = step.remove();
                        }
                    }
                    Input::Removed(removed)
                }
                Action::Yield => {
                    *lacked |= step.context.is_short;
                    self.wheel.cancel(key);
                    if !std::mem::replace(deferred, true) {
                        self.deferred.push_back(*id);
                    }
                    return;
                }
                Action::Wait(until) => {
                    self.wheel.schedule(key, until.millis_rounded_up());
                    let wanted = machine.is_stubborn() && (attempted || step.target.has_more_to_release());
                    if let Some(job) = if wanted && !others_lack { step.release() } else { None } {
                        if let Err(refused) = host.help(*id, job) {
                            step.target.release_refused();
                            refused.log();
                        }
                    }
                    let is_short = std::mem::take(lacked) || step.context.is_short;
                    drop(step);
                    return self.note_shortage(key, is_short);
                }
                Action::Finish(end) => break end,
            };
        };
        if step.target.waits_for_helper() {
            host.forget(*id);
        }
        drop(step);
        self.complete(key, end);
    }

    /// Defers the entry that was driven when a logger panicked.
    pub(super) fn resume_driven(&mut self) {
        let Some(id) = self.driven.take() else { return };
        let Some(entry) = self.get_mut(id) else { return };
        if !std::mem::replace(&mut entry.deferred, true) {
            self.deferred.push_back(id);
        }
    }

    /// Removes an entry, and tells the caller how the reap ended.
    fn complete(&mut self, key: usize, end: End) {
        let Some(Entry { machine, target, spawned, .. }) = self.slab.get(key) else { return };
        let elapsed = self.resolver.sys.now().saturating_sub(spawned.since_start());
        let effort = effort(machine, target, elapsed);
        // A logger is foreign code. The entry is removed after this, so that it is not lost if the logger
        // panics.
        log::info!("{}: {end:?} after {elapsed:?}, attempts: {}", target.path().display(), effort.attempts);
        self.wheel.cancel(key);
        let Entry { mut target, completer, tag, id, .. } = self.slab.remove(key);
        self.metrics.completed += 1;
        let result = match end {
            End::Done(outcome) => {
                let Effort { method, signalled, attempts, released, elapsed } = effort;
                Ok(Reaped { outcome, method, signalled, attempts, released, elapsed })
            }
            end => {
                let mut context =
                    Context::new(&self.resolver, &mut self.metrics, &mut self.facts, None, self.limit);
                Err(target.step(&mut context, Findings::default()).error(end, effort))
            }
        };
        let tagged = tag.map(|tag| (tag, target.path().to_path_buf()));
        // The descriptors are closed first, so that they are closed when the caller learns of the completion.
        drop(target);
        self.starved.take_if(|starved| *starved == id);
        self.resume_short();
        self.tell(tagged, completer, result);
    }

    /// Gives the result to the caller, by the tag and by the handle. The handle comes last, because its waker
    /// is foreign code.
    pub(super) fn tell(
        &mut self,
        tagged: Option<(u64, PathBuf)>,
        completer: Completer,
        result: Result<Reaped, ReapError>,
    ) {
        match tagged {
            None => completer.complete(result),
            Some((tag, path)) if completer.is_detached() => {
                self.completed.push_back(Completed { tag, path, result });
            }
            Some((tag, path)) => {
                self.completed.push_back(Completed { tag, path, result: result.clone() });
                completer.complete(result);
            }
        }
    }
}

/// Returns what the reap has done, at its end.
fn effort<S: Sys>(machine: &Machine, target: &Target<S>, elapsed: Duration) -> Effort {
    // At a deadline the target may be found empty before the helper thread's answer has come.
    let by_helper = target.give_up_write();
    Effort {
        method: machine.used().or(by_helper.then_some(UsedMethod::CgroupKill)),
        signalled: machine.signalled(),
        attempts: machine.attempts().max(by_helper.into()),
        released: target.released(),
        elapsed,
    }
}

impl<S: Sys> Entries<S> {
    /// Thaws the targets of the reaps that are left, and completes these reaps, and those that are queued, as `Disconnected`.
    ///
    /// # Panics
    ///
    /// If a logger or a waker panics, once all are complete. Not amid another panic.
    pub(crate) fn end(&mut self, queued: VecDeque<Command<S>>) {
        let mut context =
            Context::new(&self.resolver, &mut self.metrics, &mut self.facts, None, Limit::default());
        // All targets are thawed before anything is logged, and before any handle completes: loggers and wakers are foreign
        // code, and may panic. A thaw that fails is retried at once, because no later call can retry it.
        for (_, entry) in self.slab.iter_mut().filter(|(_, entry)| entry.target.is_frozen_by_us()) {
            let mut thaws =
                (0..THAWS).map(|_| entry.target.step(&mut context, Findings::default()).thaw(ThawScope::All));
            let _ = thaws.find(|thaw| matches!(thaw, Thawed::All | Thawed::HeldFromOutside));
        }
        let sys = context.sys;
        let mut panics = Vec::new();
        for entry in self.slab.drain() {
            let elapsed = sys.now().saturating_sub(entry.spawned.since_start());
            let effort = effort(&entry.machine, &entry.target, elapsed);
            let path = entry.target.path().to_path_buf();
            if entry.target.is_frozen_by_us() {
                panics.extend(caught(|| {
                    log::warn!("{}: left frozen, for it could not be thawed", path.display());
                }));
            }
            drop(entry.target);
            panics.extend(caught(|| entry.completer.complete(Err(ReapError::Disconnected { path, effort }))));
        }
        for command in queued {
            panics.extend(caught(|| drop(command)));
        }
        if let Some(first) = panics.into_iter().next().filter(|_| !thread::panicking()) {
            resume_unwind(first);
        }
    }
}

/// Calls foreign code, and returns its panic. Another panic while that one unwinds would abort the process.
fn caught(call: impl FnOnce()) -> Option<Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(call)).err()
}

impl<S: Sys> Drop for Entries<S> {
    fn drop(&mut self) {
        self.end(VecDeque::new());
    }
}
