//! [`Surroundings`]: the parts of a reactor that its entries use.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::cgroup::{Job, Notice};
use crate::entries::{Command, Host, NoThread};
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::helper::Helper;
use crate::remote::Queue;
use crate::sys::Linux;

/// The parts of the reactor that the entries use while they work.
pub(super) struct Surroundings<'a> {
    pub(super) registry: &'a Registry,
    pub(super) absent: &'static [Facility],
    pub(super) queue: &'a Queue,
    pub(super) helper: &'a Helper,
    pub(super) stopped: &'a mut bool,
}

impl Host<Linux> for Surroundings<'_> {
    /// The kernel takes the descriptor out of the poll when it is closed, epoll(7). If a forked child keeps it open, the
    /// reactor is notified of an entry that is gone, which does nothing.
    fn watch(&self, fd: &OwnedFd, id: EntryId, notice: Notice) -> io::Result<()> {
        Facility::Watches.check(self.absent)?;
        let interest = match notice {
            Notice::Events => Interest::PRIORITY,
            Notice::Exit => Interest::READABLE,
        };
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(id.token()), interest)
    }

    fn forget(&self, id: EntryId) {
        self.helper.forget(id);
    }

    fn next_command(&mut self) -> Option<Command<Linux>> {
        self.queue.pop()
    }

    fn stop(&mut self) {
        *self.stopped = true;
    }

    fn help(&self, id: EntryId, job: Job<Linux>) -> Result<(), NoThread> {
        self.helper.submit(id, job)
    }
}
