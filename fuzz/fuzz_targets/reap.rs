//! A whole reap on a kernel that answers anything.
#![no_main]

use cgroup_reaper::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::reap(bytes));
