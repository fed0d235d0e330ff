//! cgreap's command line. Nothing is run.
#![no_main]
#![allow(dead_code)]

#[path = "../../cgreap/src/args/mod.rs"]
mod args;
#[path = "../../cgreap/src/duration.rs"]
mod duration;
#[path = "../../cgreap/src/target.rs"]
mod target;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<Vec<u8>>, u32, &str)| {
    let (words, number, text) = input;
    let line = [b"cgreap".to_vec()].into_iter().chain(words).map(OsString::from_vec);
    if let Ok(cli) = args::Cli::try_parse_from(line) {
        if cli.command.is_none() {
            let targets = cli.reap.targets();
            assert!(!targets.is_empty());
            assert_eq!(targets.len(), cli.reap.targets.len());
            assert!(targets.iter().zip(&cli.reap.targets).all(|(target, given)| target.name == *given));
            let is_named = cli.reap.root.is_some() || cli.reap.slice.is_some() || !cli.reap.subsystem.is_empty();
            assert_eq!(cli.reap.place().is_some(), is_named);
        }
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
