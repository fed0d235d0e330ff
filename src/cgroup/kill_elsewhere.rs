//! A write to `cgroup.kill` that a helper thread makes, because it takes long where there are many members: the kernel
//! signals one after the other, and those that wake up take the CPU from the writer.
//!
//! The file is opened, and everything checked, by the step that leaves the write to the thread. The thread checks again that
//! the caller's process has not moved in, and that the reap still wants it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::descriptor_budget::Permit;
use super::file;
use super::identity::Id;
use super::members::{MemberList, Pages};
use super::mounts::{Mounts, lock};
use super::own_cgroup::OwnCgroup;
use super::tree::{Directories, Tree};
use super::{Context, v2};
use crate::sys::{Open, Sys};

/// The write.
pub(crate) struct CgroupKillWrite<S: Sys> {
    file: S::Fd,
    _permit: Permit,
    id: Id,
    own: Arc<Mutex<OwnCgroup<S>>>,
    mounts: Arc<Mutex<Mounts<S>>>,
    shared: Arc<Shared>,
}

/// What the thread and the target tell each other.
struct Shared {
    /// The reap goes on.
    wanted: AtomicBool,
    /// The write was begun, and did not fail so far. The target may be empty before it returns.
    begun: AtomicBool,
}

impl<S: Sys> CgroupKillWrite<S> {
    pub(super) fn run(self, sys: &S) -> Option<io::Result<()>> {
        let outside = lock(&self.own).is_process_in(sys, &self.mounts, self.id) == Some(false);
        if !outside || !self.shared.wanted.load(Relaxed) {
            return None;
        }
        self.shared.begun.store(true, Relaxed);
        let result = file::write_open(sys, &self.file, b"1");
        self.shared.begun.store(result.is_ok(), Relaxed);
        Some(result)
    }
}

/// How far it has come. Dropped, it is not wanted any more.
pub(super) struct Elsewhere {
    shared: Arc<Shared>,
    state: State,
}

enum State {
    UnderWay,
    Written(io::Result<()>),
    /// It is to be made by the step.
    Here,
}

/// What is left to do for a step.
pub(super) enum Left {
    /// Everything.
    All,
    /// Nothing, for the thread is at it.
    Nothing,
    /// To take note of the result.
    Result(io::Result<()>),
    /// Everything, and without a helper.
    Here,
}

impl Elsewhere {
    /// Takes what is left to do for a step.
    pub(super) fn take(elsewhere: &mut Option<Box<Elsewhere>>) -> Left {
        match elsewhere.take().map(|mut it| (std::mem::replace(&mut it.state, State::Here), it)) {
            None => Left::All,
            Some((State::UnderWay, mut it)) => {
                it.state = State::UnderWay;
                *elsewhere = Some(it);
                Left::Nothing
            }
            Some((State::Written(result), _)) => Left::Result(result),
            Some((State::Here, _)) => Left::Here,
        }
    }

    /// Notes what came of it.
    pub(super) fn note(&mut self, answer: Option<io::Result<()>>) {
        self.state = answer.map_or(State::Here, State::Written);
    }

    /// Whether the thread has killed, as far as is known.
    pub(super) fn has_killed(&self) -> bool {
        self.shared.begun.load(Relaxed)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.shared.wanted.store(false, Relaxed);
    }
}

/// Whether a write reaches as many members as a helper is for, or more: members of the cgroup itself, and cgroups in it.
fn reaches<S: Sys>(
    context: &Context<'_, S>,
    dir: &S::Fd,
    members: Option<&MemberList>,
    many: usize,
) -> io::Result<bool> {
    let sys = context.sys;
    let children = sys.stat(Some(dir), c"")?.links.saturating_sub(2) as usize;
    let own = match members {
        Some(members) => members.len(),
        None => Pages::open(sys, dir)?.next(sys)?.len(),
    };
    Ok(own.saturating_add(children) >= many)
}

/// The write for a helper thread, and what the target keeps of it.
pub(super) type Prepared<S> = (CgroupKillWrite<S>, Box<Elsewhere>);

/// Prepares the write for a helper thread. `None` where a step does as well, and where something fails, which is for the
/// step to meet again.
pub(super) fn prepare<S: Sys>(
    context: &mut Context<'_, S>,
    tree: &Tree<S>,
    directories: &mut Directories<S>,
    members: Option<&MemberList>,
) -> Option<Prepared<S>> {
    let many = context.helper_from?;
    let resolver = context.resolver;
    let (sys, id) = (context.sys, tree.identity.id);
    let dir = directories.get(sys, &tree.identity).ok()?;
    if !reaches(context, dir, members, many).ok()?
        || lock(&resolver.own).is_process_in(sys, &resolver.mounts, id)?
    {
        return None;
    }
    let permit = resolver.budget.take_spare()?;
    let file = file::open(sys, dir, Path::new(""), v2::KILL, Open::Write).ok()?;
    let shared = Arc::new(Shared { wanted: AtomicBool::new(true), begun: AtomicBool::new(false) });
    let write = CgroupKillWrite {
        file,
        _permit: permit,
        id,
        own: Arc::clone(&resolver.own),
        mounts: Arc::clone(&resolver.mounts),
        shared: Arc::clone(&shared),
    };
    Some((write, Box::new(Elsewhere { shared, state: State::UnderWay })))
}
