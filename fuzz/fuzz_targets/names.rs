//! The names that a caller may give: signals, methods, cgroup directories (on a simulated kernel), and directories
//! that are no cgroups (in a temporary directory).
#![no_main]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::LazyLock;

use cgroup_reaper::properties;
use libfuzzer_sys::fuzz_target;

/// A directory that is no cgroup. Nothing in it may be changed.
static PLAIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let plain = std::env::temp_dir().join("cgroup-reaper-fuzz");
    let _ = fs::remove_dir_all(&plain);
    fs::create_dir_all(plain.join("a/b")).unwrap();
    fs::write(plain.join("f"), "").unwrap();
    symlink("a", plain.join("l")).unwrap();
    plain
});

fuzz_target!(|input: (Vec<Vec<u8>>, &[u8], &[u8])| {
    let (subsystems, slice, name) = input;
    if let Ok(text) = std::str::from_utf8(name) {
        properties::words(text);
    }
    properties::accepted(subsystems.first().map_or(&[], Vec::as_slice), slice, name);
    properties::refused(&PLAIN, &subsystems, slice, name);
    let mut left: Vec<_> = fs::read_dir(&*PLAIN).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a", "f", "l"]);
});
