//! A target is the directory that was spawned on, whatever becomes of its path: by file handle, by a descriptor that is
//! held, and by path where there is neither.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cgroup_reaper::{
    Act, CgroupOptions, Facility, Outcome, Reactor, ReapError, ReapHandle, Reaper, Refusal, Signal,
};
use common::*;

const MS: Duration = Duration::from_millis(1);

/// How the directories of a test are addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Handle,
    Held,
    Path,
}

/// A reactor for which there is no better address than that. Without CAP_DAC_READ_SEARCH the calling thread does without
/// for good.
fn reactor(address: Address) -> Reactor {
    if address != Address::Handle {
        assert!(drop_dac_read_search(), "capset: {}", std::io::Error::last_os_error());
    }
    match address {
        Address::Handle | Address::Held => Reactor::new(),
        Address::Path => Reactor::without(&[Facility::HeldDirectories]),
    }
    .expect("a reactor")
}

/// A spawned reap whose only member cannot exit yet.
fn spawn_stuck(sandbox: &Sandbox, reactor: &mut Reactor, dir: &Path) -> (TraceExit, ReapHandle) {
    let stuck = sandbox.trace_exit(&[dir]);
    let reaper = Reaper::at(dir).max_wait(20 * MS).deadline(TIMEOUT);
    let handle = reactor.spawn_reaper(reaper).expect("a spawn");
    turn_for(reactor, 30 * MS);
    (stuck, handle)
}

// In this order: a capability does not come back.
const BY_IDENTITY: [Address; 2] = [Address::Handle, Address::Held];
const BY_ANY: [Address; 3] = [Address::Handle, Address::Held, Address::Path];

fn with_each(addresses: &[Address], test: &str, body: impl Fn(Address, &mut Reactor, &Sandbox)) {
    isolated(test, || {
        for address in addresses {
            let (mut reactor, sandbox) = (reactor(*address), Sandbox::new(&format!("{test}-{address:?}")));
            body(*address, &mut reactor, &sandbox);
        }
    });
}

#[test]
fn a_renamed_target_is_reaped_where_it_is() {
    require!(v1("freezer"), namespaces());
    with_each(&BY_IDENTITY, test_name!(), |_, reactor, sandbox| {
        let dir = sandbox.v1("freezer", "old");
        let new = dir.with_file_name("new");
        let (stuck, handle) = spawn_stuck(sandbox, reactor, &dir);
        fs::rename(&dir, &new).expect("rename");
        // Another takes the name.
        fs::create_dir(&dir).expect("mkdir");
        let canary = sandbox.canary(&[&dir]);
        let member = sandbox.sleeper(&[&new]);
        turn_for(reactor, 100 * MS);
        assert!(member.ended(TIMEOUT), "a member that joined after the rename");
        stuck.release();
        assert_eq!(finish(reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert!(!new.exists() && dir.exists());
        canary.assert_alive();
    });
}

/// Then nothing leads to it: that is neither gone nor replaced.
#[test]
fn a_renamed_target_that_is_addressed_by_path_is_lost() {
    require!(v1("freezer"), namespaces());
    with_each(&[Address::Path], test_name!(), |_, reactor, sandbox| {
        let dir = sandbox.v1("freezer", "old");
        let new = dir.with_file_name("new");
        let (stuck, handle) = spawn_stuck(sandbox, reactor, &dir);
        fs::rename(&dir, &new).expect("rename");
        turn_for(reactor, 30 * MS);
        stuck.release();
        match finish(reactor, &handle) {
            Err(ReapError::Denied { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::ESTALE));
            }
            other => panic!("{other:?}"),
        }
        assert!(new.exists());
    });
}

/// Nor does the path, if a directory above is renamed: the member lives, so `Removed` would be untrue.
#[test]
fn a_target_below_a_renamed_directory_is_lost_by_path_and_found_by_identity() {
    require!(v1("freezer"), namespaces());
    with_each(&BY_ANY, test_name!(), |address, reactor, sandbox| {
        let dir = sandbox.v1("freezer", "above/parent/target");
        let above = dir.ancestors().nth(2).expect("above");
        let member = sandbox.sleeper(&[&dir]);
        let reaper = Reaper::at(&dir).when_empty().max_wait(20 * MS).deadline(TIMEOUT);
        let handle = reactor.spawn_reaper(reaper).expect("a spawn");
        turn_for(reactor, 30 * MS);
        fs::rename(above, above.with_file_name("new")).expect("rename");
        turn_for(reactor, 50 * MS);
        if address == Address::Path {
            match finish(reactor, &handle) {
                Err(ReapError::Denied { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(libc::ESTALE));
                }
                other => panic!("{other:?}"),
            }
            assert!(member.alive());
            return;
        }
        assert!(!handle.is_complete() && member.alive());
        member.signal(libc::SIGKILL);
        assert_eq!(finish(reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert!(!above.with_file_name("new").join("parent/target").exists());
    });
}

/// Nor does a target that is known by its identity depend on the directories and links above its mount.
#[test]
fn a_target_whose_path_leads_to_a_file_is_found_by_its_handle() {
    require!(any_hierarchy(), namespaces());
    with_each(&[Address::Handle], test_name!(), |_, reactor, sandbox| {
        for is_removed_by_another in [true, false] {
            for dir in groups(sandbox, "target") {
                let link = sandbox.scratch().join("link");
                let _ = fs::remove_file(&link);
                std::os::unix::fs::symlink(dir.parent().expect("a parent"), &link).expect("symlink");
                let member = sandbox.sleeper(&[&dir]);
                let reaper = Reaper::at(link.join("target")).when_empty().max_wait(20 * MS).deadline(TIMEOUT);
                let handle = reactor.spawn_reaper(reaper).expect("a spawn");
                turn_for(reactor, 30 * MS);
                fs::remove_file(&link).and_then(|()| fs::write(&link, "")).expect("a file");
                member.signal(libc::SIGKILL);
                assert!(member.ended(TIMEOUT));
                if is_removed_by_another {
                    eventually("it can be removed", || fs::remove_dir(&dir).is_ok());
                }
                assert_eq!(finish(reactor, &handle).expect("reaped").outcome, Outcome::Removed);
                assert!(!dir.exists());
            }
        }
    });
}

/// One mount of a hierarchy may be read-only. What is named by another is reaped through that one.
#[test]
fn a_target_is_reaped_through_the_mount_that_it_was_named_by() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for dir in groups(&sandbox, "target") {
            let member = sandbox.sleeper(&[&dir]);
            let above = dir.parent().expect("a parent");
            let read_only = sandbox.scratch().join("read-only");
            fs::create_dir_all(&read_only).expect("mkdir");
            mount(above, &read_only, "none", libc::MS_BIND, "");
            let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            mount(Path::new("none"), &read_only, "none", flags, "");
            let mut reactor = Reactor::new().expect("a reactor");
            let mut reap = |reaper: Reaper| {
                let handle = reactor.spawn_reaper(reaper).expect("a spawn");
                finish(&mut reactor, &handle)
            };
            // The members are killed where that takes no write.
            let refused = reap(Reaper::at(read_only.join("target")).max_wait(20 * MS));
            match refused {
                Err(ReapError::Denied { source, .. }) => assert_eq!(source.raw_os_error(), Some(libc::EROFS)),
                other => panic!("{other:?}"),
            }
            assert_eq!(reap(Reaper::at(&dir)).expect("reaped").outcome, Outcome::Removed);
            assert!(member.ended(TIMEOUT));
            unmount(&read_only);
        }
    });
}

/// The cgroup that is mounted on another one of the same hierarchy is not reaped by the name of that.
#[test]
fn the_root_of_a_mount_within_its_own_hierarchy_is_refused() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        for (dir, point) in groups(&sandbox, "mounted").into_iter().zip(groups(&sandbox, "point")) {
            let member = sandbox.sleeper(&[&dir]);
            mount(&dir, &point, "none", libc::MS_BIND, "");
            let mut reactor = Reactor::new().expect("a reactor");
            let opened = fs::File::open(&point).expect("open");
            for reaper in [Reaper::at(&point), Reaper::at_fd(opened.into())] {
                match reactor.spawn_reaper(reaper) {
                    Err(refused) if matches!(refused.refusal(), Refusal::Root { .. }) => {}
                    // The kernel does not tell that there is a mount.
                    Ok(_) if linux() < (5, 8) => return,
                    other => panic!("{other:?}"),
                }
            }
            assert!(member.alive());
            unmount(&point);
        }
    });
}

/// The freeze of an ancestor is not undone, by whichever mount or link the target was named.
#[test]
fn a_target_below_a_frozen_directory_is_reported_by_whichever_name() {
    require!(v1("freezer"), namespaces());
    isolated(test_name!(), || {
        let sandbox = Sandbox::new(test_name!());
        let dir = sandbox.v1("freezer", "above/target");
        let above = dir.parent().expect("above");
        let (mounted, link) = (sandbox.scratch().join("mounted"), sandbox.scratch().join("link"));
        fs::create_dir(&mounted).expect("mkdir");
        mount(above.parent().expect("the sandbox's"), &mounted, "none", libc::MS_BIND, "");
        std::os::unix::fs::symlink(above, &link).expect("symlink");
        let member = sandbox.sleeper(&[&dir]);
        freeze_v1(above);
        for named in [dir.clone(), mounted.join("above/target"), link.join("target")] {
            let reaper = Reaper::at(&named).max_wait(20 * MS).freeze_timeout(300 * MS);
            match cgroup_reaper::reap(reaper) {
                Err(ReapError::FrozenByAncestor { .. }) => {}
                other => panic!("{}: {other:?}", named.display()),
            }
            assert_eq!(freezer_state(above), "FROZEN", "{}", named.display());
        }
        thaw_v1(above);
        assert!(member.ended(TIMEOUT));
        unmount(&mounted);
    });
}

#[test]
fn a_frozen_target_is_thawed_after_a_rename() {
    require!(v1("freezer"), namespaces());
    with_each(&BY_IDENTITY, test_name!(), |_, reactor, sandbox| {
        let dir = sandbox.v1("freezer", "old");
        let new = dir.with_file_name("new");
        let (stuck, handle) = spawn_stuck(sandbox, reactor, &dir);
        fs::rename(&dir, &new).expect("rename");
        freeze_v1(&new);
        stuck.release();
        assert_eq!(finish(reactor, &handle).expect("reaped").outcome, Outcome::Removed);
        assert!(!new.exists());
    });
}

#[test]
fn a_target_whose_parent_is_mounted_over_is_killed_and_removed_by_its_handle() {
    require!(any_hierarchy(), namespaces());
    with_each(&BY_ANY, test_name!(), |address, reactor, sandbox| {
        for parent in groups(sandbox, "parent") {
            let dir = parent.join("target");
            fs::create_dir(&dir).expect("mkdir");
            let (stuck, handle) = spawn_stuck(sandbox, reactor, &dir);
            mount(Path::new("none"), &parent, "tmpfs", 0, "");
            stuck.release();
            let result = finish(reactor, &handle);
            unmount(&parent);
            match (address, result) {
                (Address::Handle, result) => {
                    assert_eq!(result.expect("reaped").outcome, Outcome::Removed);
                    assert!(!dir.exists() && parent.exists());
                }
                // The way up from a descriptor leads into what is mounted there, and so does the path.
                (_, Err(ReapError::Denied { act, source, .. })) => {
                    assert!(act == Act::Remove || address == Address::Path, "{act:?}");
                    assert_eq!(source.raw_os_error(), Some(libc::ESTALE));
                    assert!(pids_in(&dir).is_empty());
                    fs::remove_dir(&dir).expect("empty");
                }
                (_, other) => panic!("{other:?}"),
            }
        }
    });
}

/// From a held directory, and by path, the name leads to another cgroup then.
#[test]
fn a_cgroup_of_that_name_which_is_mounted_over_the_parent_is_not_removed() {
    require!(any_hierarchy(), namespaces());
    with_each(&BY_ANY, test_name!(), |address, reactor, sandbox| {
        for parent in groups(sandbox, "parent") {
            let (dir, other) = (parent.join("target"), parent.with_file_name("other"));
            fs::create_dir(&dir).expect("mkdir");
            fs::create_dir_all(other.join("target")).expect("mkdir");
            let (stuck, handle) = spawn_stuck(sandbox, reactor, &dir);
            mount(&other, &parent, "none", libc::MS_BIND, "");
            stuck.release();
            let result = finish(reactor, &handle);
            unmount(&parent);
            assert!(other.join("target").exists(), "{address:?}: {result:?}");
            assert_eq!(result.is_ok(), address == Address::Handle, "{address:?}: {result:?}");
            assert_eq!(dir.exists(), address != Address::Handle, "{address:?}");
        }
    });
}

/// What is mounted over the target itself holds its directory, and nothing else.
#[test]
fn a_target_that_is_mounted_over_is_killed_and_removed_after_the_unmount() {
    require!(any_hierarchy(), namespaces());
    with_each(&BY_IDENTITY, test_name!(), |_, reactor, sandbox| {
        for dir in groups(sandbox, "target") {
            let (stuck, handle) = spawn_stuck(sandbox, reactor, &dir);
            mount(Path::new("none"), &dir, "tmpfs", 0, "");
            stuck.release();
            turn_for(reactor, 100 * MS);
            assert!(!handle.is_complete(), "removed below a mount");
            unmount(&dir);
            assert_eq!(finish(reactor, &handle).expect("reaped").outcome, Outcome::Removed);
            assert!(!dir.exists());
        }
    });
}

#[test]
fn a_target_that_was_removed_and_made_again_is_replaced() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        for address in [Address::Handle, Address::Held, Address::Path] {
            let mut reactor = reactor(address);
            let sandbox = Sandbox::new(&format!("{}-{address:?}", test_name!()));
            for dir in groups(&sandbox, "target") {
                let polite = sandbox.on_term(MS, &[&dir]);
                let grace = Duration::from_secs(60);
                let reaper = Reaper::at(&dir).grace(Signal::TERM, grace).min_wait(100 * MS);
                let handle = reactor.spawn_reaper(reaper).expect("a spawn");
                assert!(polite.saw_term(TIMEOUT));
                eventually("rmdir", || fs::remove_dir(&dir).is_ok());
                fs::create_dir(&dir).expect("mkdir");
                let canary = sandbox.canary(&[&dir]);
                match finish(&mut reactor, &handle) {
                    Err(ReapError::Replaced { path, .. }) => assert_eq!(path, dir),
                    other => panic!("{address:?}: {other:?}"),
                }
                canary.assert_alive();
            }
        }
    });
}

/// With a handle nothing is held for a target but what wakes it; without the capability its directory as well; and where
/// the budget has no permit left for that, no more than with a handle.
#[test]
fn a_directory_is_held_where_there_is_no_handle_and_a_permit() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let mut by_handle = Vec::new();
        for address in [Address::Handle, Address::Held, Address::Path] {
            let mut reactor = reactor(address);
            let sandbox = Sandbox::new(&format!("{}-{address:?}", test_name!()));
            let mut held = Vec::new();
            for dir in groups(&sandbox, "target") {
                let before = reactor.metrics().descriptors;
                let member = sandbox.ignores_sigterm(&[&dir]);
                let reaper = Reaper::at(&dir).grace(Signal::TERM, Duration::from_secs(60));
                let handle = reactor.spawn_reaper(reaper).expect("a spawn");
                held.push(reactor.metrics().descriptors - before);
                member.signal(libc::SIGKILL);
                assert_eq!(finish(&mut reactor, &handle).expect("reaped").outcome, Outcome::Removed);
                assert!(!dir.exists());
            }
            match address {
                Address::Handle => by_handle = held,
                Address::Held => assert!(std::iter::zip(&held, &by_handle).all(|(held, by)| *held == by + 1)),
                Address::Path => assert_eq!(held, by_handle),
            }
        }
    });
}

#[test]
fn a_relative_root_is_resolved_at_the_spawn() {
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        for address in [Address::Handle, Address::Held] {
            let mut reactor = reactor(address);
            let sandbox = Sandbox::new(&format!("{}-{address:?}", test_name!()));
            for dir in groups(&sandbox, "target") {
                let stuck = sandbox.trace_exit(&[&dir]);
                let top = dir.parent().expect("a sandbox");
                let before = std::env::current_dir().expect("a working directory");
                std::env::set_current_dir(top.parent().expect("a root")).expect("chdir");
                let options = CgroupOptions::new(".").subsystems([top.file_name().expect("a name")]);
                let handle = reactor
                    .spawn_reaper(Reaper::new(options, "target").max_wait(20 * MS).deadline(TIMEOUT))
                    .expect("a spawn");
                std::env::set_current_dir("/").expect("chdir");
                turn_for(&mut reactor, 30 * MS);
                stuck.release();
                let result = finish(&mut reactor, &handle);
                std::env::set_current_dir(before).expect("chdir");
                assert_eq!(result.expect("reaped").outcome, Outcome::Removed);
                assert!(!dir.exists());
            }
        }
    });
}
