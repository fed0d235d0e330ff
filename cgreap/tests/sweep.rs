//! `cgreap sweep` as built, on real cgroups.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use common::*;

#[track_caller]
fn sweep<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> (Option<i32>, String, String) {
    let program = std::env::var_os("CGREAP_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_cgreap").into());
    let Output { status, stdout, stderr } =
        Command::new(program).arg("sweep").args(args).env_remove("RUST_LOG").output().expect("cgreap");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn args<'a>(options: &'a [&'a str], dir: &'a Path) -> Vec<&'a OsStr> {
    options.iter().map(|&option| OsStr::new(option)).chain([dir.as_os_str()]).collect()
}

/// The columns of a row of the list.
fn row<'a>(list: &'a str, group: &Path) -> Vec<&'a str> {
    let end = format!(" {}", group.display());
    let line = list.lines().find(|line| line.ends_with(&end)).unwrap_or_else(|| panic!("{end}: {list}"));
    line.split_whitespace().collect()
}

/// Once in v2, once in v1, as far as they are there.
#[track_caller]
fn in_each(test: impl Fn(bool)) {
    [(v2(), true), (v1("freezer"), false)]
        .into_iter()
        .filter(|(have, _)| have.is_ok())
        .for_each(|(_, is_v2)| test(is_v2));
}

#[test]
fn it_lists_what_is_there_and_changes_nothing() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(|is_v2| {
        let make = |name: &str| if is_v2 { sandbox.v2(name) } else { sandbox.v1("freezer", name) };
        let (top, empty, full, deep) =
            (make("list"), make("list/empty"), make("list/full"), make("list/full/deep"));
        let sleepers = [sandbox.sleepers(2, &[&full]), sandbox.sleepers(3, &[&deep])];
        let (status, list, err) = sweep(args(&[], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert_eq!(row(&list, &empty)[..2], ["0", "1"], "{list}");
        assert_eq!(row(&list, &full)[..2], ["5", "2"], "{list}");
        assert_eq!(row(&list, &full)[3], "s", "{list}");
        assert_eq!(list.lines().count(), 3, "{list}");
        let (status, list, _) = sweep(args(&["--older-than", "1h"], &top));
        assert_eq!((status, list.lines().count()), (Some(0), 1));
        assert!(empty.exists() && deep.exists());
        assert_eq!(sleepers.iter().map(|sleepers| sleepers.living()).sum::<usize>(), 5);
    });
}

#[test]
fn empty_removes_without_a_signal() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(|is_v2| {
        let make = |name: &str| if is_v2 { sandbox.v2(name) } else { sandbox.v1("freezer", name) };
        let (top, tree, full) = (make("empty"), make("empty/tree"), make("empty/full"));
        let (_, _, _) = (make("empty/tree/a"), make("empty/tree/a/b"), make("empty/full/bare"));
        let sleeper = sandbox.sleeper(&[&full]);
        // Too young.
        let (status, out, err) = sweep(args(&["--empty", "--older-than", "1h"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(out.starts_with("0 of 0 cgroups removed in ") && tree.exists(), "{out}");
        let (status, out, err) = sweep(args(&["--empty"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(
            out.starts_with("1 of 2 cgroups removed in ") && out.ends_with("; 1 have processes\n"),
            "{out}"
        );
        assert!(!tree.exists() && top.exists());
        assert!(full.join("bare").exists(), "a part of one that is in use");
        assert!(sleeper.alive());
    });
}

#[test]
fn kill_reaps_all_below_and_not_the_directory() {
    require!(any_hierarchy());
    let sandbox = Sandbox::new(test_name!());
    in_each(|is_v2| {
        let make = |name: &str| if is_v2 { sandbox.v2(name) } else { sandbox.v1("freezer", name) };
        let (top, a, b, beside) = (make("kill"), make("kill/a"), make("kill/b"), make("beside"));
        let (inside, canary) = (sandbox.sleepers(2, &[&a]), sandbox.canary(&[&beside]));
        let direct = sandbox.canary(&[&top]);
        let (status, out, err) = sweep(args(&["--kill"], &top));
        assert_eq!((status, &*err), (Some(0), ""));
        assert!(out.starts_with("2 of 2 cgroups removed in "), "{out}");
        assert!(!a.exists() && !b.exists() && top.exists() && inside.ended(TIMEOUT));
        canary.assert_alive();
        direct.assert_alive();
    });
}

#[test]
fn what_is_no_cgroup_and_a_root_are_refused() {
    require!(namespaces(), any_hierarchy());
    // If the refusal is broken, only the processes of this test die.
    isolated(test_name!(), || {
        assert_eq!(sweep(args(&[], &std::env::temp_dir())).0, Some(2));
        for root in [v2_root(), v1_root("freezer")].into_iter().flatten() {
            let (status, out, err) = sweep(args(&["--kill"], &root));
            assert_eq!((status, &*out), (Some(2), ""));
            assert!(err.contains("refused: the root of a hierarchy"), "{err}");
        }
        assert_eq!(sweep(args(&["--kill", "--empty"], &std::env::temp_dir())).0, Some(2));
    });
}
