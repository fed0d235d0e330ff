//! A program that runs out of descriptors. For `isolated` tests: it is the whole program that does.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes every descriptor that the process may have, until this is dropped.
#[derive(Debug)]
pub struct TakenDescriptors {
    _fds: Vec<OwnedFd>,
}

impl TakenDescriptors {
    pub fn new() -> TakenDescriptors {
        let null = fs::File::open("/dev/null").expect("/dev/null");
        let mut taken = Vec::with_capacity(4096);
        while let Ok(fd) = null.as_fd().try_clone_to_owned() {
            taken.push(fd);
        }
        TakenDescriptors { _fds: taken }
    }
}

/// Runs with a limit of descriptors so low that a test can take all of them.
pub fn with_few_descriptors(run: impl FnOnce()) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 512, hard).expect("setrlimit");
    run();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("setrlimit");
}
