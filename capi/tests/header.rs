//! The header is what the source says, and says what it has to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cgroup_reaper::Metrics;
use serde_json::Value;

/// The sources with something for C in them, in the order of the header.
const PUBLIC: [&str; 10] =
    ["version", "time", "reaper", "reactor", "remote", "handle", "reap", "result", "error", "metrics"];

/// Those without.
const PRIVATE: [&str; 4] = ["lib", "call", "memory", "object"];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> PathBuf {
    package().join("src").join(name).with_extension("rs")
}

fn header() -> String {
    fs::read_to_string(package().join("include/cgroup_reaper.h")).unwrap_or_default()
}

/// `BLESS=1` writes it; else it has to be what would be written.
#[test]
fn the_header_is_written_from_the_source() {
    let config = cbindgen::Config::from_file(package().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = PUBLIC.iter().fold(builder, |builder, name| builder.with_src(source(name)));
    let mut written = Vec::new();
    builder.generate().unwrap().write(&mut written);
    let written = String::from_utf8(written).unwrap();
    if std::env::var_os("BLESS").is_some() {
        fs::write(package().join("include/cgroup_reaper.h"), &written).unwrap();
    }
    let same = header() == written;
    assert!(
        same,
        "include/cgroup_reaper.h is not that of the source: BLESS=1 cargo test -p cgroup-reaper-capi --test header"
    );
}

#[test]
fn every_source_is_part_of_it_or_has_nothing_for_it() {
    let files: BTreeSet<_> =
        fs::read_dir(package().join("src")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let named: BTreeSet<_> = PUBLIC.iter().chain(&PRIVATE).map(|name| source(name)).collect();
    assert_eq!(files, named);
    for name in PRIVATE {
        assert!(!fs::read_to_string(source(name)).unwrap().contains("no_mangle"), "{name}");
    }
}

/// The functions that the header declares, each with the comment above it.
fn functions() -> Vec<(String, String)> {
    let mut functions = Vec::new();
    let mut comment = String::new();
    for line in header().lines() {
        match line.strip_prefix("//") {
            Some(text) => comment += text,
            None => {
                let name =
                    line.split('(').next().and_then(|start| start.rsplit([' ', '*']).next()).unwrap_or("");
                if line.contains('(') && name.starts_with("cgr_") {
                    functions.push((name.to_owned(), comment.clone()));
                }
                comment.clear();
            }
        }
    }
    functions
}

#[test]
fn every_function_says_which_thread_may_call_it_and_what_null_does() {
    let functions = functions();
    assert!(functions.len() > 40, "{}", functions.len());
    for (name, comment) in &functions {
        assert!(comment.contains("Any thread") || comment.contains("One thread at a time"), "{name}");
        assert!(comment.contains("NULL"), "{name}");
    }
    let names: BTreeSet<_> = functions.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), functions.len());
}

#[test]
fn every_function_is_exported() {
    let library = std::env::current_exe().unwrap().with_file_name("libcgroup_reaper_c.so");
    let library = fs::read(library).unwrap();
    for (name, _) in functions() {
        let name = format!("\0{name}\0");
        assert!(library.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{name}");
    }
}

/// A counter that the library gets has to be given to C too.
#[test]
fn every_counter_is_in_the_metrics() {
    let header = header();
    let Value::Object(metrics) = serde_json::to_value(Metrics::default()).unwrap() else { panic!("a map") };
    let mut fields = Vec::new();
    for (key, value) in metrics {
        match value {
            Value::Object(calls) => fields.extend(calls.keys().map(|call| format!("{key}_{call}"))),
            _ => fields.push(key),
        }
    }
    assert!(fields.len() > 20);
    for field in fields {
        assert!(header.contains(&format!("  uint64_t {field};\n")), "{field}");
    }
}
