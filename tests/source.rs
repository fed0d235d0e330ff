//! Promises about the source and the package themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn unsafe_is_in_the_module_of_raw_system_calls_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut with: Vec<_> = sources(&src)
        .into_iter()
        .filter(|path| {
            // The attribute that lets it in too: what looks like a comment may be part of a text.
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            code(path).split(|c| !is_word(c)).any(|word| word == "unsafe" || word == "unsafe_code")
        })
        .map(|path| path.strip_prefix(&src).unwrap().to_path_buf())
        .collect();
    with.sort();
    assert_eq!(with, [Path::new("sys.rs")]);
}

#[test]
fn the_core_knows_no_file_clock_or_socket() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in ["machine.rs", "wheel.rs"] {
        let code = code(&src.join(file));
        let code = code.split("#[cfg(test)]").next().unwrap();
        for word in [
            "std::fs",
            "std::io",
            "std::net",
            "Instant",
            "SystemTime",
            "libc::",
            "nix::",
            "mio::",
            "crate::cgroup",
        ] {
            assert!(!code.contains(word), "{file} uses {word}");
        }
    }
}

/// Cargo refuses a dependency that needs a newer compiler only when such a compiler is absent; here the
/// declared versions are compared.
#[test]
fn the_declared_rust_version_covers_the_dependencies() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--all-features"])
        .args(["--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = |id: &str| {
        metadata["packages"].as_array().unwrap().iter().find(|package| package["id"] == id).unwrap()
    };
    let version = |id: &str| -> Vec<u32> {
        let text = package(id)["rust_version"].as_str().unwrap_or("1.0");
        text.split('.').chain(["0"]).take(2).map(|part| part.parse().unwrap()).collect()
    };
    let ours = version(metadata["resolve"]["root"].as_str().unwrap());
    let members = metadata["workspace_members"].as_array().unwrap();
    let mut todo: Vec<_> = members.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    let mut seen = Vec::new();
    while let Some(id) = todo.pop() {
        assert!(version(&id) <= ours, "{} needs Rust {:?}, declared is {ours:?}", id, version(&id));
        let node =
            metadata["resolve"]["nodes"].as_array().unwrap().iter().find(|node| node["id"] == *id).unwrap();
        for dependency in node["deps"].as_array().unwrap() {
            // `null` is a normal dependency; the others are no concern of a user's compiler.
            let normal =
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str().unwrap().to_owned();
            if normal && !seen.contains(&id) {
                seen.push(id.clone());
                todo.push(id);
            }
        }
    }
    assert!(seen.len() >= 5);
}
