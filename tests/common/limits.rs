//! A program that runs out of descriptors. For `isolated` tests: it is the whole program that does.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Every descriptor that can be had, until this is dropped.
#[derive(Debug)]
pub struct Hoard {
    _fds: Vec<OwnedFd>,
}

impl Hoard {
    pub fn new() -> Hoard {
        let null = fs::File::open("/dev/null").expect("/dev/null");
        let mut hoard = Vec::with_capacity(4096);
        while let Ok(fd) = null.as_fd().try_clone_to_owned() {
            hoard.push(fd);
        }
        Hoard { _fds: hoard }
    }
}

/// A program that can have so many descriptors only that a test can use them all up.
pub fn with_few_descriptors(run: impl FnOnce()) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, 512, hard).expect("setrlimit");
    run();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("setrlimit");
}
