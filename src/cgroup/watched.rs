//! The pidfd of one member of a target, which wakes the reactor when the member exits.

use super::descriptor_budget::Permit;
use super::errors::{Call, Meaning, meaning};
use super::members::MemberList;
use super::tracked::Tracked;
use super::{Context, Notice};
use crate::sys::{Pid, Sys};

/// A pidfd that wakes the reactor.
pub(super) struct Watched<S: Sys> {
    pub(super) pidfd: S::Fd,
    /// The tracked process that the pidfd is known to belong to.
    pub(super) tracked: Option<Pid>,
    _permit: Permit,
}

impl<S: Sys> Tracked<S> {
    /// Whether the exit of some member wakes the reactor.
    pub(crate) fn are_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Closes the descriptor that is held.
    pub(crate) fn let_go(&mut self) {
        self.watched = None;
    }

    /// Watches some member, if none is watched, so that its exit wakes the reactor.
    pub(crate) fn rewatch(&mut self, context: &mut Context<'_, S>, members: &MemberList) {
        if context.watch.is_none() {
            return;
        }
        if let Some(Watched { pidfd, .. }) = &self.watched {
            if matches!(context.sys.has_exited(pidfd), Ok(false)) {
                return;
            }
            self.watched = None;
        }
        // Any member will do, so nothing needs to be verified. The members that are listed last tend to exit
        // last. A member that has exited and is still listed would wake the reactor again and again, with no
        // effect.
        for &pid in members.pids.iter().rev().take(4) {
            match context.sys.pidfd_open(pid) {
                Ok(fd) => {
                    if matches!(context.sys.has_exited(&fd), Ok(false)) {
                        self.watch(context, fd, None);
                        return;
                    }
                }
                Err(error) => context.is_short |= meaning(Call::PidfdOpen, &error) == Meaning::Short,
            }
        }
    }

    pub(super) fn watch(&mut self, context: &mut Context<'_, S>, pidfd: S::Fd, tracked: Option<Pid>) {
        self.watched = None;
        if let Some(permit) = context.permit() {
            if context.watch(&pidfd, Notice::Exit) {
                self.watched = Some(Watched { pidfd, tracked, _permit: permit });
            }
        }
    }
}
