//! `cgroup.procs`, `cgroup.threads`, `/proc/TID/status`, `/proc/PID/stat`.
#![no_main]

use cgroup_reaper::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, u64, &[u8])| {
    let (which, small, number, text) = input;
    match which % 3 {
        0 => properties::members(text, small.into()),
        1 => properties::threads(text),
        _ => properties::stat(text, small, number),
    }
});
