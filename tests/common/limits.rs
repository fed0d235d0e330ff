//! A program that runs out of descriptors. For `isolated` tests: it is the whole program that does.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes every descriptor that the process may have, until this is dropped.
#[derive(Debug)]
pub struct TakenDescriptors {
    fds: Vec<OwnedFd>,
}

impl TakenDescriptors {
    pub fn new() -> TakenDescriptors {
        let null = fs::File::open("/dev/null").expect("/dev/null");
        let mut fds = Vec::with_capacity(4096);
        while let Ok(fd) = null.as_fd().try_clone_to_owned() {
            fds.push(fd);
        }
        fds.push(null.into());
        TakenDescriptors { fds }
    }

    /// Takes all but so many.
    pub fn all_but(free: usize) -> TakenDescriptors {
        let mut taken = TakenDescriptors::new();
        taken.fds.truncate(taken.fds.len().checked_sub(free).expect("as many descriptors"));
        taken
    }
}

/// Runs with a limit of descriptors so low that a test can take all of them.
pub fn with_few_descriptors(run: impl FnOnce()) {
    with_descriptor_limit(512, run);
}

/// Runs with this limit of descriptors.
pub fn with_descriptor_limit(limit: u64, run: impl FnOnce()) {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    limit_descriptors(limit);
    run();
    limit_descriptors(soft);
}

/// Sets the limit of descriptors.
pub fn limit_descriptors(limit: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("setrlimit");
}
