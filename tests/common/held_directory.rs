//! A directory whose lock is held, as by a program that lists it into memory that does not come.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::{self, JoinHandle};

use super::state::eventually;
use super::sys::{list_into, page_that_does_not_come};

/// Until it is dropped, rmdir(2) of a directory in it waits.
pub struct HeldDirectory {
    page: Option<OwnedFd>,
    lister: Option<JoinHandle<()>>,
}

impl HeldDirectory {
    pub fn new(dir: &Path) -> HeldDirectory {
        let dir = File::open(dir).expect("open");
        let (fd, page) = page_that_does_not_come().expect("userfaultfd");
        let (tell, told) = std::sync::mpsc::channel();
        let lister = thread::spawn(move || {
            tell.send(fs::read_link("/proc/thread-self").expect("/proc")).expect("told");
            list_into(&dir, page);
        });
        let held = HeldDirectory { page: Some(fd), lister: Some(lister) };
        let task = Path::new("/proc").join(told.recv().expect("started"));
        // Where it waits within the call, /proc tells the number of that; else that it runs.
        let call = format!("{} ", libc::SYS_getdents64);
        eventually("the directory to be held", || {
            fs::read_to_string(task.join("syscall")).is_ok_and(|syscall| syscall.starts_with(&call))
        });
        held
    }
}

impl Drop for HeldDirectory {
    fn drop(&mut self) {
        self.page = None;
        let _ = self.lister.take().map(JoinHandle::join);
    }
}

/// Need: userfaultfd(2), also for the kernel's own accesses.
pub fn userfaultfd() -> Result<(), String> {
    page_that_does_not_come().map(drop).map_err(|error| format!("userfaultfd: {error}"))
}
