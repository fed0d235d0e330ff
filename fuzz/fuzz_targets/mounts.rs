//! `/proc/self/mountinfo` and `/proc/PID/cgroup`.
#![no_main]

use cgroup_reaper::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8], &[u8], &[u8])| {
    let (unified, first, second, third) = input;
    properties::mounts(first, second);
    properties::mounted(first, second, third, unified);
});
