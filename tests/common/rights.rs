//! A caller without rights. For `isolated` tests: it is the whole program that has none.

use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use super::sys;

/// A user without rights.
pub const USER: u32 = 1000;

/// Runs it as [`USER`], and returns to root, also while a panic unwinds.
pub fn as_user<T>(run: impl FnOnce() -> T) -> T {
    struct Root;
    impl Drop for Root {
        fn drop(&mut self) {
            become_user(0, 0, 0);
        }
    }
    become_user(USER, USER, 0);
    let _root = Root;
    run()
}

fn become_user(real: u32, effective: u32, saved: u32) {
    assert!(sys::set_user(real, effective, saved), "setresuid: {}", io::Error::last_os_error());
}

/// What systemd does for `Delegate=yes`.
pub fn delegate(dir: &Path) {
    chown(dir, Some(USER), None).expect("chown");
    for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"] {
        if dir.join(file).exists() {
            chown(dir.join(file), Some(USER), None).expect("chown");
        }
    }
}
