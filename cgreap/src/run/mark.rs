//! The mark of the cgroups that `cgreap run` makes: an extended attribute, which v2 has since Linux 5.7.

use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};

const NAME: &str = "user.cgreap.run";

/// Marks a cgroup that was just made. Where there are no such attributes it stays without.
pub fn set(group: &Path) {
    let _ = setxattr(group, NAME, b"1", XattrFlags::empty());
}

pub fn is_set(group: &Path) -> bool {
    getxattr(group, NAME, &mut [0; 8]).is_ok()
}
