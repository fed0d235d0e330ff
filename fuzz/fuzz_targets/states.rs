//! `cgroup.events`, `cgroup.freeze`, `freezer.state`, `freezer.parent_freezing`.
#![no_main]

use cgroup_reaper::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    properties::events(text);
    properties::freezer(text);
    properties::v2_thaw(text);
});
