//! A write to `cgroup.kill` that a helper thread makes, because it takes long where there are many members: the kernel
//! signals one member after the other, and members that wake up take the CPU from the writer.
//!
//! The step that leaves the write to the thread opens the file, and makes all checks. The thread checks again that the
//! caller's process has not moved in, and that the reap still wants the write.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::descriptor_budget::Permit;
use super::file;
use super::helper_call::{HelperCall, Shared};
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

impl<S: Sys> CgroupKillWrite<S> {
    pub(super) fn run(self, sys: &S) -> Option<io::Result<()>> {
        let outside = lock(&self.own).is_process_in(sys, &self.mounts, self.id) == Some(false);
        if !outside {
            return None;
        }
        self.shared.call(|| file::write_open(sys, &self.file, b"1"))
    }
}

/// Whether a write reaches `many` members or more. The members of the cgroup itself are counted, and the cgroups in it.
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
        None => Pages::open(sys, dir, Path::new(""))?.next(sys)?.len(),
    };
    Ok(own.saturating_add(children) >= many)
}

/// The write for a helper thread, and the target's record of it.
pub(super) type Prepared<S> = (CgroupKillWrite<S>, Box<HelperCall>);

/// Prepares the write for a helper thread. `None` if the step is to make the write: because it is short, or because
/// something fails or the budget has no permit.
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
    let call = HelperCall::new(id);
    let write = CgroupKillWrite {
        file,
        _permit: permit,
        id,
        own: Arc::clone(&resolver.own),
        mounts: Arc::clone(&resolver.mounts),
        shared: call.shared(),
    };
    Some((write, Box::new(call)))
}
