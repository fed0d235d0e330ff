//! cgreap's command line, and its list of targets. Nothing is run.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../cgreap/src/args/mod.rs"]
mod args;
#[path = "../../cgreap/src/duration.rs"]
mod duration;
#[path = "../../cgreap/src/list.rs"]
mod list;
#[path = "../../cgreap/src/status.rs"]
mod status;
#[path = "../../cgreap/src/target.rs"]
mod target;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use clap::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<Vec<u8>>, u32, &str, &[u8])| {
    let (words, number, text, list) = input;
    let line = [b"cgreap".to_vec()].into_iter().chain(words).map(OsString::from_vec);
    if let Ok(cli) = args::Cli::try_parse_from(line) {
        if cli.command.is_none() {
            let targets = cli.reap.targets(cli.reap.names.clone());
            assert!(!targets.is_empty());
            assert_eq!(targets.len(), cli.reap.names.len());
            assert!(targets.iter().zip(&cli.reap.names).all(|(target, given)| target.name == *given));
            let is_named = cli.reap.root.is_some() || cli.reap.slice.is_some() || !cli.reap.subsystem.is_empty();
            assert_eq!(cli.reap.place().is_some(), is_named);
        }
    }
    if let Ok(names) = list::names(list) {
        let has_nul = list.contains(&0);
        let ended = names.iter().flat_map(|name| name.as_bytes().iter().chain([if has_nul { &0 } else { &b'\n' }]));
        let mut kept = list.to_vec();
        if !has_nul {
            let mut before = b'\n';
            kept.retain(|&byte| std::mem::replace(&mut before, byte) != b'\n' || byte != b'\n');
        }
        assert!(ended.copied().eq(kept));
    }
    for (unit, length) in [("us", 1), ("ms", 1_000), ("s", 1_000_000)] {
        let expected = Duration::from_micros(u64::from(number) * length);
        let parsed = duration::parse(&format!("{number}{unit}"));
        assert!(parsed == Ok(expected) || expected.as_secs() > 3_153_600_000);
    }
    if let Ok(duration) = duration::parse(text) {
        assert!(duration <= Duration::from_secs(3_153_600_000));
        assert!(
            text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_alphabetic())
        );
    }
});
