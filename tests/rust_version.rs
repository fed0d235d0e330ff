//! The package's declared Rust version.

use std::process::Command;

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
