//! What is refused, and why: each refusal on its own, with its message.
//!
//! Without a refusal the test could kill everything that it sees. So each test runs in a PID namespace of its own,
//! and its targets have only processes of the test in them.

#![allow(unsafe_code, reason = "mount(2), which std does not have")]

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cgroup_reaper::{
    CgroupOptions, Facility, KillMethod, Outcome, Reactor, ReapError, Reaper, Refusal, UsedMethod,
};
use common::*;

/// Spawns what shall be refused: why it was. Checks what holds for every refusal.
#[track_caller]
fn refuse(reaper: Reaper) -> Refusal {
    let refusal = refuse_without(&[], reaper.clone());
    // The same without a reactor of one's own.
    match cgroup_reaper::reap(reaper) {
        Err(ReapError::Refused { refusal: again, .. }) => assert_eq!(again.to_string(), refusal.to_string()),
        other => panic!("{other:?}"),
    }
    refusal
}

/// The same by a reactor alone, where the kernel lacks facilities.
#[track_caller]
fn refuse_without(absent: &'static [Facility], reaper: Reaper) -> Refusal {
    let mut reactor = Reactor::without(absent).expect("reactor");
    let error = match reactor.spawn_reaper(reaper.clone()) {
        Err(error) => error,
        Ok(handle) => panic!("not refused: {reaper:?}: {handle:?}"),
    };
    assert!(reactor.is_empty());
    let metrics = reactor.metrics();
    assert_eq!((metrics.spawned, metrics.checks, metrics.descriptors), (0, 0, 0), "it was touched");
    let refusal = error.refusal().clone();
    assert_eq!(error.to_string(), refusal.to_string());
    assert_eq!(format!("{:?}", error.refusal()), format!("{refusal:?}"));
    assert_eq!(error.into_reaper(), reaper, "not the same reaper");
    refusal
}

/// That the message names the place and the reason.
#[track_caller]
fn says(refusal: &Refusal, words: &[&str]) {
    let text = refusal.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!text.contains('\n'));
}

macro_rules! refused {
    ($reaper:expr, $pattern:pat $(if $guard:expr)?, $($word:expr),+) => {{
        let refusal = refuse($reaper);
        assert!(matches!(&refusal, $pattern $(if $guard)?), "{refusal:?}");
        says(&refusal, &[$($word),+]);
    }};
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A directory outside of every cgroup hierarchy.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let name = format!("cgroup-reaper-{}-{}", test.replace("::", "-"), std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("scratch directory");
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Something mounted on a directory, in the test's own mount namespace.
struct Mounted(CString);

impl Mounted {
    fn bind(from: &Path, on: &Path) -> Mounted {
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let (from, on) = (c(from), c(on));
        let none = std::ptr::null();
        // SAFETY: terminated strings, or null where the kernel ignores the argument.
        let result = unsafe { libc::mount(from.as_ptr(), on.as_ptr(), none, libc::MS_BIND, none.cast()) };
        assert_eq!(result, 0, "mount: {}", std::io::Error::last_os_error());
        Mounted(on)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: a terminated string.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// This process (or this thread), moved into groups; out again when dropped, which has to be before their
/// sandbox kills what is left in them.
struct Inside(Vec<PathBuf>);

impl Inside {
    fn process(dirs: &[&Path]) -> Inside {
        Inside::new(dirs, "cgroup.procs")
    }

    fn thread(dirs: &[&Path]) -> Inside {
        Inside::new(dirs, "tasks")
    }

    /// This thread alone, in a threaded v2 group `dir` of the domain `domain` that the process is in.
    fn below(dir: &Path, domain: &Path) -> Inside {
        fs::write(dir.join("cgroup.threads"), "0").expect("move in");
        Inside(vec![domain.join("cgroup.threads")])
    }

    fn new(dirs: &[&Path], file: &str) -> Inside {
        let mut back = Inside(Vec::new());
        for dir in dirs {
            let root = dir.ancestors().find(|dir| !is_ours(dir)).expect("a root");
            back.0.push(root.join(file));
            fs::write(dir.join(file), "0").expect("move in");
        }
        back
    }
}

fn is_ours(dir: &Path) -> bool {
    dir.to_str().is_some_and(|dir| dir.contains("cgroup-reaper-"))
}

impl Drop for Inside {
    fn drop(&mut self) {
        for file in &self.0 {
            if let Err(error) = fs::write(file, "0") {
                // The sandbox would kill this process during its clean-up.
                eprintln!("{}: {error}", file.display());
                std::process::exit(102);
            }
        }
    }
}

// --- Roots -----------------------------------------------------------------------------------------------

#[test]
fn root_of_v2() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        let root = v2_root().expect("v2");
        for method in [KillMethod::Auto, KillMethod::Pidfd] {
            refused!(
                Reaper::at(&root).method(method),
                Refusal::Root { path, .. } if *path == root,
                text(&root),
                "root of a hierarchy"
            );
        }
    });
}

#[test]
fn root_of_v1() {
    require!(v1("freezer"), v1("cpu"), namespaces());
    isolated(test_name!(), || {
        for root in [v1_root("freezer").expect("freezer"), v1_root("cpu").expect("cpu")] {
            refused!(
                Reaper::at(&root),
                Refusal::Root { path, .. } if *path == root,
                text(&root),
                "root of a hierarchy"
            );
            // However it is spelt.
            let slashes = format!("{}//", root.display());
            refused!(Reaper::at(slashes), Refusal::Root { .. }, "root of a hierarchy");
        }
    });
}

/// A container sees a subtree mounted as if it were all.
#[test]
fn root_of_a_mount() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = if v2().is_ok() { sandbox.v2("shown") } else { sandbox.v1("freezer", "shown") };
        let canary = sandbox.canary(&[&dir]);
        let scratch = Scratch::new(test_name!());
        let _mounted = Mounted::bind(&dir, &scratch.0);
        refused!(
            Reaper::at(&scratch.0),
            Refusal::Root { path, .. } if *path == scratch.0,
            text(&scratch.0),
            "root of a hierarchy"
        );
        canary.assert_alive();
    });
}

// --- Names -----------------------------------------------------------------------------------------------

/// A sandbox with a canary in the slice itself and in one of its groups, and options for it.
fn slice(test: &str) -> (Canary, Canary, CgroupOptions, Sandbox) {
    let sandbox = Sandbox::new(test);
    let above = sandbox.canary(&[&sandbox.v1_dir("freezer")]);
    let inside = sandbox.canary(&[&sandbox.v1("freezer", "a/b")]);
    let options = options(&sandbox, &["freezer"]);
    (above, inside, options, sandbox)
}

#[test]
fn empty_name() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, _sandbox) = slice(test_name!());
        refused!(Reaper::new(options.clone(), ""), Refusal::EmptyName, "empty name", "whole slice");
        // Without a slice it would be the root.
        refused!(Reaper::new(options.slice(""), ""), Refusal::EmptyName, "empty name");
        refused!(Reaper::at(""), Refusal::EmptyName, "empty name");
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn empty_component() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, sandbox) = slice(test_name!());
        for name in ["a//b", "a//", "a///b"] {
            refused!(Reaper::new(options.clone(), name), Refusal::EmptyName, "empty");
        }
        let slice = sandbox.v1_dir("freezer");
        let slice = format!("{}//a", text(Path::new(slice.file_name().expect("a name"))));
        refused!(Reaper::new(options.slice(slice), "b"), Refusal::EmptyName, "empty");
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn empty_subsystem() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, _sandbox) = slice(test_name!());
        refused!(Reaper::new(options.subsystems([""]), "a"), Refusal::EmptyName, "empty name");
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn dot_dot() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, sandbox) = slice(test_name!());
        for name in ["..", "a/..", "../x", "a/../..", "a/../a"] {
            refused!(
                Reaper::new(options.clone(), name),
                Refusal::DotComponent { name: told, .. } if told == Path::new(name),
                name,
                "`..`"
            );
        }
        refused!(Reaper::new(options.clone().slice("x/.."), "a"), Refusal::DotComponent { .. }, "x/..");
        refused!(Reaper::new(options.subsystems([".."]), "a"), Refusal::DotComponent { .. }, "..");
        for path in ["a/..", "a/b/..", "a/b/../b", "a/b/../../a"] {
            let path = sandbox.v1_dir("freezer").join(path);
            refused!(Reaper::at(&path), Refusal::DotComponent { .. }, text(&path), "`..`");
        }
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn dot() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, sandbox) = slice(test_name!());
        for name in [".", "./a", "a/.", "a/./b"] {
            refused!(
                Reaper::new(options.clone(), name),
                Refusal::DotComponent { name: told, .. } if told == Path::new(name),
                name,
                "`.`"
            );
        }
        let path = format!("{}/.", sandbox.v1_dir("freezer").display());
        refused!(Reaper::at(&path), Refusal::DotComponent { .. }, &*path, "`.`");
        refused!(Reaper::at("."), Refusal::DotComponent { .. }, "`.`");
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn absolute_name() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, sandbox) = slice(test_name!());
        let dir = sandbox.v1_dir("freezer").join("a");
        for name in ["/", "/a", text(&dir)] {
            refused!(
                Reaper::new(options.clone(), name),
                Refusal::AbsoluteName { name: told, .. } if told == Path::new(name),
                name,
                "absolute"
            );
        }
        let by_slice = options.clone().slice(sandbox.v1_dir("freezer"));
        refused!(Reaper::new(by_slice, "a"), Refusal::AbsoluteName { .. }, "absolute");
        let by_subsystem = options.subsystems([v1_root("freezer").expect("freezer")]);
        refused!(Reaper::new(by_subsystem, "a"), Refusal::AbsoluteName { .. }, "absolute");
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn a_name_that_no_directory_can_have() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, sandbox) = slice(test_name!());
        let long = "x".repeat(5000);
        for name in ["a\0b", "a/b\0", &*long] {
            let path = sandbox.v1_dir("freezer").join(name);
            assert!(matches!(refuse(Reaper::at(path)), Refusal::Io { .. } | Refusal::NotCgroup { .. }));
            let reaper = Reaper::new(options.clone(), name);
            assert!(matches!(refuse(reaper), Refusal::Io { .. } | Refusal::NotCgroup { .. }));
        }
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn no_subsystems() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, _sandbox) = slice(test_name!());
        refused!(
            Reaper::new(options.subsystems(Vec::<String>::new()), "a"),
            Refusal::NoSubsystems,
            "no subsystem"
        );
        above.assert_alive();
        inside.assert_alive();
    });
}

/// Without subsystems the root itself is the hierarchy.
#[test]
fn a_root_that_is_no_hierarchy() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = if v2().is_ok() { sandbox.v2("a/b") } else { sandbox.v1("freezer", "a/b") };
        let canary = sandbox.canary(&[&dir]);
        // What the hierarchy is mounted on, and from there a way into it.
        let scratch = Scratch::new(test_name!());
        let point = scratch.0.join("hierarchy");
        fs::create_dir(&point).expect("mkdir");
        let _mounted = Mounted::bind(dir.parent().expect("a parent"), &point);
        for slice in ["", "hierarchy"] {
            refused!(
                Reaper::new(CgroupOptions::new(&scratch.0).slice(slice), "b"),
                Refusal::NotCgroup { path, .. } if *path == scratch.0,
                text(&scratch.0),
                "not a cgroup"
            );
        }
        refused!(Reaper::new(CgroupOptions::new(&point), ""), Refusal::EmptyName, "empty name");
        refused!(Reaper::new(CgroupOptions::new(&point), ".."), Refusal::DotComponent { .. }, "`..`");
        refused!(Reaper::new(CgroupOptions::new(&point), "/b"), Refusal::AbsoluteName { .. }, "absolute");
        refused!(
            Reaper::new(CgroupOptions::new(&point).slice("../a"), "b"),
            Refusal::DotComponent { .. },
            "`..`"
        );
        canary.assert_alive();
        let reaped = cgroup_reaper::reap(Reaper::new(CgroupOptions::new(&point), "b")).expect("reaped");
        assert_eq!(reaped.outcome, Outcome::Removed);
        assert!(!dir.exists());
    });
}

#[test]
fn a_subsystem_that_is_not_mounted() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, _sandbox) = slice(test_name!());
        let root = v1_root("freezer").expect("freezer");
        let missing = root.with_file_name("no-such-subsystem");
        // The others are not touched then.
        for subsystems in [["no-such-subsystem", "freezer"], ["freezer", "no-such-subsystem"]] {
            refused!(
                Reaper::new(options.clone().subsystems(subsystems), "a"),
                Refusal::NoSuchDirectory { path, .. } if *path == missing,
                text(&missing),
                "no such directory"
            );
        }
        above.assert_alive();
        inside.assert_alive();
    });
}

// --- Places ----------------------------------------------------------------------------------------------

#[test]
fn a_symbolic_link() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = if v2().is_ok() { sandbox.v2("target") } else { sandbox.v1("freezer", "target") };
        let canary = sandbox.canary(&[&dir]);
        let scratch = Scratch::new(test_name!());
        let link = scratch.0.join("link");
        symlink(&dir, &link).expect("symlink");
        for spelt in [link.clone(), PathBuf::from(format!("{}/", link.display()))] {
            refused!(
                Reaper::at(spelt),
                Refusal::Symlink { path, .. } if *path == link,
                text(&link),
                "symbolic link"
            );
        }
        canary.assert_alive();
    });
}

#[test]
fn a_symbolic_link_below_the_root() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let canary = sandbox.canary(&[&sandbox.v1("freezer", "slice/name")]);
        let scratch = Scratch::new(test_name!());
        let mount = scratch.0.join("freezer");
        fs::create_dir(&mount).expect("mkdir");
        symlink(sandbox.v1_dir("freezer").join("slice"), mount.join("slice")).expect("symlink");
        symlink(sandbox.v1_dir("freezer").join("slice/name"), mount.join("name")).expect("symlink");
        let options = CgroupOptions::new(&scratch.0).subsystems(["freezer"]);
        refused!(
            Reaper::new(options.clone().slice("slice"), "name"),
            Refusal::Symlink { path, .. } if *path == mount.join("slice"),
            text(&mount.join("slice")),
            "symbolic link"
        );
        refused!(
            Reaper::new(options, "name"),
            Refusal::Symlink { path, .. } if *path == mount.join("name"),
            text(&mount.join("name")),
            "symbolic link"
        );
        canary.assert_alive();
    });
}

/// `cpu -> cpu,cpuacct` is how distributions name co-mounted hierarchies: links up to them are followed.
#[test]
fn a_linked_hierarchy_is_followed() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let target = sandbox.v1("freezer", "target");
        let member = sandbox.sleeper(&[&target]);
        let canary = sandbox.canary(&[&sandbox.v1("freezer", "canary")]);
        let scratch = Scratch::new(test_name!());
        symlink(v1_root("freezer").expect("freezer"), scratch.0.join("linked")).expect("symlink");
        let slice = sandbox.v1_dir("freezer");
        let options =
            CgroupOptions::new(&scratch.0).slice(slice.file_name().expect("a name")).subsystems(["linked"]);
        assert_eq!(reaped(Reaper::new(options.clone(), "target")).outcome, Outcome::Removed);
        assert!(!target.exists() && member.ended(TIMEOUT));
        // By both ways, there is none of the name now: not below the link to the root, nor below a link to a cgroup.
        let to_slice = scratch.0.join("slice");
        symlink(&slice, &to_slice).expect("symlink");
        let by_root = scratch.0.join("linked").join(slice.file_name().expect("a name"));
        for reaper in [
            Reaper::new(options, "target"),
            Reaper::at(by_root.join("target")),
            Reaper::at(to_slice.join("target")),
            Reaper::at(scratch.0.join("linked/cgroup-reaper-never-made")),
        ] {
            assert_eq!(reaped(reaper).outcome, Outcome::AlreadyGone);
        }
        canary.assert_alive();
    });
}

#[test]
fn a_plain_directory() {
    require!(namespaces());
    isolated(test_name!(), || {
        let scratch = Scratch::new(test_name!());
        let inside = scratch.0.join("freezer/a/b");
        fs::create_dir_all(&inside).expect("mkdir");
        refused!(
            Reaper::at(&scratch.0),
            Refusal::NotCgroup { path, .. } if *path == scratch.0,
            text(&scratch.0),
            "not a cgroup"
        );
        refused!(
            Reaper::new(CgroupOptions::new(&scratch.0).slice("a").subsystems(["freezer"]), "b"),
            Refusal::NotCgroup { path, .. } if *path == inside,
            text(&inside),
            "not a cgroup"
        );
        for path in ["/", "/sys/fs/cgroup/..", "/proc", "/tmp"] {
            assert!(matches!(
                refuse(Reaper::at(path)),
                Refusal::NotCgroup { .. } | Refusal::DotComponent { .. }
            ));
        }
        assert!(inside.is_dir(), "it was removed");
    });
}

#[test]
fn a_file() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = if v2().is_ok() { sandbox.v2("target") } else { sandbox.v1("freezer", "target") };
        let canary = sandbox.canary(&[&dir]);
        let scratch = Scratch::new(test_name!());
        let plain = scratch.0.join("file");
        fs::write(&plain, "0").expect("write");
        for file in [dir.join("cgroup.procs"), plain.clone(), dir.join("cgroup.procs/x")] {
            refused!(
                Reaper::at(&file),
                Refusal::NotCgroup { path, .. } if *path == file,
                text(&file),
                "not a cgroup"
            );
        }
        canary.assert_alive();
    });
}

/// Nothing to reap is no error, as long as it is the place for a cgroup.
#[test]
fn a_missing_group_is_already_gone() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let (above, inside, options, sandbox) = slice(test_name!());
        let dir = sandbox.v1_dir("freezer");
        let mut targets = vec![
            Reaper::at(dir.join("missing")),
            Reaper::at(dir.join("missing/below")),
            Reaper::new(options.clone(), "missing"),
            Reaper::new(options.clone(), "missing/below"),
            Reaper::new(options.slice("missing-slice"), "a"),
        ];
        if v2().is_ok() {
            targets.push(Reaper::at(sandbox.v2_dir().join("missing")));
        }
        for reaper in targets {
            let reaped = reaped(reaper);
            assert_eq!((reaped.outcome, reaped.method), (Outcome::AlreadyGone, None));
        }
        above.assert_alive();
        inside.assert_alive();
    });
}

#[test]
fn a_name_that_was_never_a_cgroup() {
    require!(namespaces());
    isolated(test_name!(), || {
        let scratch = Scratch::new(test_name!());
        for missing in ["missing", "missing/below"] {
            let missing = scratch.0.join(missing);
            refused!(
                Reaper::at(&missing),
                Refusal::NoSuchDirectory { path, .. } if *path == missing,
                text(&missing),
                "no such directory"
            );
        }
        fs::create_dir(scratch.0.join("cpu")).expect("mkdir");
        let options = CgroupOptions::new(&scratch.0).subsystems(["cpu"]);
        let refusal = refuse(Reaper::new(options, "missing"));
        assert!(matches!(refusal, Refusal::NoSuchDirectory { .. }), "{refusal:?}");
        says(&refusal, &["cpu/missing", "no such directory"]);
    });
}

// --- The caller's own ------------------------------------------------------------------------------------

/// That the group which the test process is in is refused, and those above it, but not those below.
fn own(test: &str, make: impl Fn(&Sandbox, &str) -> PathBuf) {
    let sandbox = Sandbox::new(test);
    let canary = sandbox.canary(&[&make(&sandbox, "own")]);
    let deep = make(&sandbox, "own/deep");
    let beside = sandbox.sleeper(&[&deep]);
    let below = make(&sandbox, "own/deep/below");
    let inside = Inside::process(&[&deep]);
    for path in [&deep, &deep.parent().expect("own").to_path_buf()] {
        for method in [KillMethod::Auto, KillMethod::Pidfd] {
            refused!(
                Reaper::at(path).method(method),
                Refusal::OwnCgroup { path: told, .. } if told == path,
                text(path),
                "the caller's own cgroup"
            );
        }
    }
    let member = sandbox.sleeper(&[&below]);
    assert_eq!(reaped(Reaper::at(&below)).outcome, Outcome::Removed);
    assert!(member.ended(TIMEOUT) && beside.alive());
    canary.assert_alive();
    drop(inside);
    // Out of it, it is a target as any other.
    assert_eq!(reaped(Reaper::at(&deep)).outcome, Outcome::Removed);
    assert!(beside.ended(TIMEOUT));
    canary.assert_alive();
}

#[test]
fn own_v2() {
    require!(v2(), namespaces());
    isolated(test_name!(), || own(test_name!(), |sandbox, name| sandbox.v2(name)));
}

#[test]
fn own_freezer() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || own(test_name!(), |sandbox, name| sandbox.v1("freezer", name)));
}

#[test]
fn own_cpu() {
    require!(v1("cpu"), namespaces());
    isolated(test_name!(), || own(test_name!(), |sandbox, name| sandbox.v1("cpu", name)));
}

/// One hierarchy of several is enough.
#[test]
fn own_among_several() {
    require!(v1("freezer"), v1("cpu"), v1("memory"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let controllers = ["freezer", "cpu", "memory"];
        let dirs: Vec<PathBuf> = controllers.iter().map(|name| sandbox.v1(name, "a/b")).collect();
        let canary = sandbox.canary(&[&dirs[0], &dirs[1], &dirs[2]]);
        for own in &dirs {
            let _inside = Inside::process(&[own]);
            let above = own.parent().expect("a");
            refused!(
                Reaper::new(options(&sandbox, &controllers), "a/b"),
                Refusal::OwnCgroup { path, .. } if path == own,
                text(own),
                "the caller's own cgroup"
            );
            refused!(
                Reaper::new(options(&sandbox, &controllers), "a"),
                Refusal::OwnCgroup { path, .. } if path == above,
                text(above),
                "the caller's own cgroup"
            );
        }
        canary.assert_alive();
    });
}

/// It is too large for the spawn to search all of it: its reap is refused, and nothing was touched.
#[test]
fn own_group_in_a_large_v1_tree() {
    require!(v1("cpu"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let tree = sandbox.v1("cpu", "tree");
        let dirs: Vec<PathBuf> = (0..150).map(|n| sandbox.v1("cpu", &format!("tree/{n}"))).collect();
        let members = sandbox.one_each(&dirs);
        let mut reactor = Reactor::new().expect("reactor");
        reactor.set_turn_budget(Duration::ZERO);
        let reaper = || Reaper::at(&tree);
        let deadline = Duration::from_millis(1);
        {
            let _inside = Inside::process(&[&dirs[77]]);
            for reaper in [
                reaper(),
                reaper().method(KillMethod::Pidfd),
                reaper().kill_without_freezer(),
                reaper().grace(cgroup_reaper::Signal::TERM, Duration::from_secs(5)),
                reaper().when_empty(),
                reaper().deadline(deadline),
            ] {
                let has_deadline = reaper == Reaper::at(&tree).deadline(deadline);
                let result = match reactor.spawn_reaper(reaper) {
                    Ok(handle) => finish(&mut reactor, &handle),
                    Err(error) => Err(error.into()),
                };
                match result {
                    Err(ReapError::Refused { refusal: Refusal::OwnCgroup { path, .. }, .. })
                        if path == tree => {}
                    // It came first.
                    Err(ReapError::TimedOut { .. }) if has_deadline => {}
                    other => panic!("{other:?}"),
                }
                assert_eq!(reactor.metrics().signals, 0);
            }
            assert!(members.0.iter().all(Proc::alive));
        }
        let handle = reactor.spawn_reaper(reaper()).expect("the caller has left");
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert!(members.ended(TIMEOUT));
    });
}

/// Reached by another mount of the hierarchy.
#[test]
fn own_by_another_path() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let make = |name| if v2().is_ok() { sandbox.v2(name) } else { sandbox.v1("freezer", name) };
        let (above, own) = (make("above"), make("above/own/deep"));
        let canary = sandbox.canary(&[&above]);
        let scratch = Scratch::new(test_name!());
        let _mounted = Mounted::bind(&above, &scratch.0);
        let _inside = Inside::process(&[&own]);
        for name in ["own", "own/deep"] {
            let path = scratch.0.join(name);
            refused!(Reaper::at(&path), Refusal::OwnCgroup { .. }, text(&path), "the caller's own cgroup");
        }
        canary.assert_alive();
    });
}

/// v1 lets single threads into a group. To freeze it would freeze the loop if that is one of them.
#[test]
fn own_thread() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("freezer", "own/deep");
        let canary = sandbox.canary(&[&dir]);
        let refusals = thread::scope(|scope| {
            let at = |path: &Path| {
                let mut reactor = Reactor::new().expect("reactor");
                // Pidfd: would not freeze this thread for ever.
                let spawned = reactor.spawn_reaper(Reaper::at(path).method(KillMethod::Pidfd));
                spawned.err().map(|error| error.refusal().clone())
            };
            let dir = &dir;
            let body = move || {
                let _inside = Inside::thread(&[dir]);
                [at(dir), at(dir.parent().expect("own"))]
            };
            scope.spawn(body).join().expect("thread")
        });
        for refusal in refusals {
            assert!(matches!(refusal, Some(Refusal::OwnCgroup { .. })), "{refusal:?}");
        }
        canary.assert_alive();
    });
}

/// A v2 domain with a threaded group below it, and this process in the domain: its threads may go below one by one.
fn in_a_domain(test: &str, body: impl FnOnce(&Path)) {
    let sandbox = Sandbox::new(test);
    let domain = sandbox.v2("domain");
    let canary = sandbox.canary(&[&sandbox.v2("canary")]);
    let inside = Inside::process(&[&domain]);
    let threaded = domain.join("threaded");
    fs::create_dir(&threaded).expect("mkdir");
    fs::write(threaded.join("cgroup.type"), "threaded").expect("cgroup.type");
    body(&threaded);
    drop(inside);
    canary.assert_alive();
}

/// Another cgroup may have the name of one that the caller was in, as may its own when it is back.
#[test]
fn own_group_made_again() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let root = v2_root().expect("v2");
        for absent in [&[Facility::Pidfds][..], &[]] {
            for made_again in [false, true] {
                let (own, other) = (sandbox.v2("own"), sandbox.v2("other"));
                let child = fork();
                if child == 0 {
                    let _guard = ExitOnUnwind;
                    let join = |dir: &Path| fs::write(dir.join("cgroup.procs"), "0").expect("a move");
                    join(&own);
                    let mut reactor = Reactor::without(absent).expect("reactor");
                    // Which cgroup is the caller's own is found out.
                    let handle = reactor.spawn_reaper(Reaper::at(&other)).expect("a spawn");
                    reactor.run_until(&handle).expect("run").expect("reaped");
                    join(&root);
                    if made_again {
                        fs::remove_dir(&own).expect("rmdir");
                        fs::create_dir(&own).expect("mkdir");
                    }
                    join(&own);
                    let spawned = reactor.spawn_reaper(Reaper::at(&own));
                    let refused = match &spawned {
                        Ok(handle) => {
                            let _ = reactor.run_until(handle);
                            false
                        }
                        Err(error) => matches!(error.refusal(), Refusal::OwnCgroup { .. }),
                    };
                    join(&root);
                    exit(i32::from(!refused));
                }
                let (_, status) = wait(child, 0).expect("a child");
                assert_eq!(status, 0, "without {absent:?}, made again: {made_again}");
                fs::remove_dir(&own).expect("rmdir");
            }
        }
    });
}

/// v2 lets single threads into a threaded group, and `/proc/self/cgroup` does not tell of them.
#[test]
fn own_thread_in_a_threaded_group() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        in_a_domain(test_name!(), |threaded| {
            fs::create_dir(threaded.join("deep")).expect("mkdir");
            fs::write(threaded.join("deep/cgroup.type"), "threaded").expect("cgroup.type");
            // Not the test's own: an unwinding one would end up in the sandbox.
            let refusals = thread::scope(|scope| {
                let body = || {
                    let _inside =
                        Inside::below(&threaded.join("deep"), threaded.parent().expect("the domain"));
                    [threaded.join("deep"), threaded.to_path_buf()].map(|path| {
                        let mut reactor = Reactor::new().expect("reactor");
                        // Pidfd: would not freeze this thread for ever.
                        let spawned = reactor.spawn_reaper(Reaper::at(path).method(KillMethod::Pidfd));
                        spawned.err().map(|error| error.refusal().clone())
                    })
                };
                scope.spawn(body).join().expect("thread")
            });
            for refusal in refusals {
                assert!(matches!(refusal, Some(Refusal::OwnCgroup { .. })), "{refusal:?}");
            }
        });
    });
}

/// Nor is a threaded group the calling thread's any more because another of the caller's threads has stayed there.
#[test]
fn own_thread_that_has_left_another_behind() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        in_a_domain(test_name!(), |threaded| {
            let (domain, deep) = (threaded.parent().expect("the domain"), threaded.join("deep"));
            let other = threaded.join("other");
            for dir in [&deep, &other] {
                fs::create_dir(dir).expect("mkdir");
                fs::write(dir.join("cgroup.type"), "threaded").expect("cgroup.type");
            }
            for absent in [&[Facility::Pidfds][..], &[]] {
                thread::scope(|scope| {
                    let (ready, is_ready) = mpsc::channel();
                    let (over, is_over) = mpsc::channel::<()>();
                    scope.spawn({
                        let deep = deep.clone();
                        move || {
                            let _inside = Inside::below(&deep, domain);
                            ready.send(()).expect("the test waits");
                            let _ = is_over.recv();
                        }
                    });
                    is_ready.recv().expect("the other thread");
                    let refused = || {
                        let _inside = Inside::below(&deep, domain);
                        let mut reactor = Reactor::without(absent).expect("reactor");
                        let mut refused = |path: &Path| {
                            let error = reactor.spawn_reaper(Reaper::at(path)).expect_err("a refusal");
                            matches!(error.refusal(), Refusal::OwnCgroup { .. })
                        };
                        assert!(refused(&deep));
                        let _inside = Inside::below(&other, domain);
                        assert!(refused(&other));
                    };
                    scope.spawn(refused).join().expect("thread");
                    drop(over);
                });
            }
        });
    });
}

/// Another thread of the caller's, whose group the library does not ask for, keeps the caller from being killed, too.
#[test]
fn another_thread_in_a_threaded_group() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        in_a_domain(test_name!(), |threaded| {
            thread::scope(|scope| {
                let (ready, is_ready) = mpsc::channel();
                let (over, is_over) = mpsc::channel::<()>();
                scope.spawn(move || {
                    let _inside = Inside::below(threaded, threaded.parent().expect("the domain"));
                    ready.send(()).expect("the test waits");
                    // Until it is dropped, also by a panic.
                    let _ = is_over.recv();
                });
                is_ready.recv().expect("inside");
                let over = over;
                for method in [KillMethod::Auto, KillMethod::Pidfd, KillMethod::Freezer] {
                    let reaper = Reaper::at(threaded).method(method).min_wait(Duration::from_millis(1));
                    let mut reactor = Reactor::new().expect("reactor");
                    let handle =
                        reactor.spawn_reaper(reaper.max_wait(Duration::from_millis(5))).expect("spawn");
                    match reactor.run_until(&handle).expect("turns") {
                        Err(ReapError::Denied { source, .. }) => {
                            assert!(source.to_string().contains("caller itself"), "{method}: {source}");
                        }
                        other => panic!("{method}: {other:?}"),
                    }
                    assert!(!v2_freeze(threaded), "{method}");
                    // Nor in between: it could hold a lock for which the thread that is to thaw it waits.
                    assert_eq!(reactor.metrics().freezes, 0, "{method}");
                }
                drop(over);
            });
        });
    });
}

/// A caller that moves into a target whose reap is under way is neither killed nor frozen by it.
fn moved_in(test: &str, dir: impl Fn(&Sandbox) -> PathBuf, change: impl Fn(Reaper) -> Reaper) {
    let sandbox = Sandbox::new(test);
    let dir = dir(&sandbox);
    // Keeps the reap waiting.
    let stuck = sandbox.trace_exit(&[&dir]);
    let mut reactor = Reactor::new().expect("reactor");
    let reaper = Reaper::at(&dir).min_wait(Duration::from_millis(5)).max_wait(Duration::from_millis(10));
    let handle = reactor.spawn_reaper(change(reaper)).expect("spawn");
    drive(&mut reactor, "the kill", |_| stuck.parked());
    assert!(handle.try_wait().is_none());
    let inside = Inside::process(&[&dir]);
    let ticks = reactor.metrics().timers;
    drive(&mut reactor, "some attempts", |metrics| handle.is_complete() || metrics.timers >= ticks + 10);
    for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if let Ok(state) = fs::read_to_string(dir.join(file)) {
            assert_eq!(state.trim(), thawed);
        }
    }
    match handle.try_wait() {
        Some(Err(ReapError::Denied { source, .. })) => {
            assert!(source.to_string().contains("caller itself"), "{source}");
        }
        None => {}
        other => panic!("{other:?}"),
    }
    drop(inside);
    stuck.release();
    assert!(dir.exists());
}

#[test]
fn moved_in_v2() {
    require!(v2(), namespaces());
    isolated(test_name!(), || moved_in(test_name!(), |sandbox| sandbox.v2("target"), |reaper| reaper));
}

#[test]
fn moved_in_v2_by_cgroup_kill() {
    require!(cgroup_kill(), namespaces());
    isolated(test_name!(), || {
        moved_in(test_name!(), |it| it.v2("target"), |it| it.method(KillMethod::CgroupKill));
    });
}

#[test]
fn moved_in_v2_by_freezer() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        moved_in(test_name!(), |it| it.v2("target"), |it| it.method(KillMethod::Freezer));
    });
}

#[test]
fn moved_in_v1() {
    require!(v1("cpu"), namespaces());
    isolated(test_name!(), || moved_in(test_name!(), |it| it.v1("cpu", "target"), |reaper| reaper));
}

#[test]
fn moved_in_v1_by_freezer() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        moved_in(test_name!(), |it| it.v1("freezer", "target"), |it| it.method(KillMethod::Freezer));
    });
}

// --- What is asked for -----------------------------------------------------------------------------------

#[test]
fn a_wait_of_zero() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = if v2().is_ok() { sandbox.v2("target") } else { sandbox.v1("freezer", "target") };
        let canary = sandbox.canary(&[&dir]);
        for wait in [Duration::ZERO, Duration::from_micros(999)] {
            refused!(
                Reaper::at(&dir).min_wait(wait),
                Refusal::InvalidWait { min_wait, max_wait, .. }
                    if *min_wait == wait && *max_wait == Duration::from_secs(10),
                "min_wait",
                "at least 1 ms"
            );
        }
        canary.assert_alive();
    });
}

#[test]
fn waits_the_wrong_way_round() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = if v2().is_ok() { sandbox.v2("target") } else { sandbox.v1("freezer", "target") };
        let canary = sandbox.canary(&[&dir]);
        refused!(
            Reaper::at(&dir).min_wait(Duration::from_millis(20)).max_wait(Duration::from_millis(19)),
            Refusal::InvalidWait { .. },
            "min_wait 20ms",
            "max_wait 19ms"
        );
        canary.assert_alive();
    });
}

#[test]
fn cgroup_kill_on_v1() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("freezer", "target");
        let canary = sandbox.canary(&[&dir]);
        refused!(
            Reaper::at(&dir).method(KillMethod::CgroupKill),
            Refusal::Unsupported { method: KillMethod::CgroupKill, path, .. } if *path == dir,
            text(&dir),
            "cgroup-kill",
            "not available"
        );
        canary.assert_alive();
    });
}

#[test]
fn cgroup_kill_on_a_kernel_without() {
    require!(v2(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v2("target");
        let canary = sandbox.canary(&[&dir]);
        let reaper = Reaper::at(&dir).method(KillMethod::CgroupKill);
        let refusal = refuse_without(&[Facility::CgroupKill], reaper);
        let unsupported = matches!(refusal, Refusal::Unsupported { method: KillMethod::CgroupKill, .. });
        assert!(unsupported, "{refusal:?}");
        says(&refusal, &[text(&dir), "cgroup-kill", "not available"]);
        canary.assert_alive();
    });
}

#[test]
fn freezer_without_a_freezer() {
    require!(v1("cpu"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("cpu", "target");
        let canary = sandbox.canary(&[&dir]);
        for reaper in [Reaper::at(&dir), Reaper::new(options(&sandbox, &["cpu"]), "target")] {
            refused!(
                reaper.method(KillMethod::Freezer),
                Refusal::Unsupported { method: KillMethod::Freezer, path, .. } if *path == dir,
                text(&dir),
                "freezer",
                "not available"
            );
        }
        canary.assert_alive();
    });
}

/// The same directory twice is one directory.
#[test]
fn a_subsystem_given_twice() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let target = sandbox.v1("freezer", "target");
        let canary = sandbox.canary(&[&sandbox.v1("freezer", "canary")]);
        let member = sandbox.sleeper(&[&target]);
        let scratch = Scratch::new(test_name!());
        for link in ["one", "two"] {
            symlink(v1_root("freezer").expect("freezer"), scratch.0.join(link)).expect("symlink");
        }
        let slice = sandbox.v1_dir("freezer");
        let options = CgroupOptions::new(&scratch.0)
            .slice(slice.file_name().expect("a name"))
            .subsystems(["one", "two", "one"]);
        let mut reactor = Reactor::new().expect("reactor");
        let handle = reactor.spawn_reaper(Reaper::new(options, "target")).expect("spawn");
        let reaped = finish(&mut reactor, &handle).expect("reaped");
        assert_eq!((reaped.outcome, reaped.method), (Outcome::Removed, Some(UsedMethod::Pidfd)));
        assert_eq!(reaped.signalled, 1);
        // One directory is thawed once an attempt.
        assert_eq!(reactor.metrics().thaws, u64::from(reaped.attempts));
        assert!(!target.exists() && member.ended(TIMEOUT));
        canary.assert_alive();
    });
}

// --- What is mounted inside of a target ------------------------------------------------------------------

/// A target ends where another filesystem begins.
#[test]
fn what_is_mounted_inside_is_not_the_targets() {
    require!(v2().or_else(|_| v1("freezer")), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let make = |name| if v2().is_ok() { sandbox.v2(name) } else { sandbox.v1("freezer", name) };
        let (target, below) = (make("target"), make("target/below"));
        let member = sandbox.sleeper(&[&target]);
        let scratch = Scratch::new(test_name!());
        let foreign = scratch.0.join("foreign");
        fs::create_dir(&foreign).expect("mkdir");
        let mut reactor = Reactor::new().expect("reactor");
        let mounted = Mounted::bind(&scratch.0, &below);
        let reaper = Reaper::at(&target).max_wait(Duration::from_millis(20));
        let handle = reactor.spawn_reaper(reaper).expect("spawn");
        for _ in 0..20 {
            reactor.turn(Some(Duration::from_millis(5))).expect("turn");
        }
        assert!(foreign.is_dir(), "a directory of another filesystem was removed");
        assert!(member.ended(TIMEOUT));
        assert!(handle.try_wait().is_none(), "a mount point cannot be removed");
        drop(mounted);
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert!(!target.exists());
    });
}

/// Not even if that is a cgroup as well.
#[test]
fn a_group_mounted_inside_is_not_the_targets() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let (target, below) = (sandbox.v1("freezer", "target"), sandbox.v1("freezer", "target/below"));
        let other = sandbox.v1("freezer", "other");
        let canary = sandbox.canary(&[&other]);
        let member = sandbox.sleeper(&[&target]);
        let mounted = Mounted::bind(&other, &below);
        let mut reactor = Reactor::new().expect("reactor");
        let reaper = Reaper::at(&target).max_wait(Duration::from_millis(20));
        let handle = reactor.spawn_reaper(reaper).expect("spawn");
        for _ in 0..20 {
            reactor.turn(Some(Duration::from_millis(5))).expect("turn");
        }
        assert!(member.ended(TIMEOUT));
        canary.assert_alive();
        drop(mounted);
        assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        canary.assert_alive();
    });
}
