//! Shared fixtures of the tests that work on real cgroups.
//!
//! A test begins with what it needs, then makes a [`Sandbox`], which owns every directory and process made
//! through it and takes all of them away when it is dropped, also while a panic unwinds:
//!
//! ```ignore
//! mod common;
//! use common::*;
//!
//! #[test]
//! fn kills_a_sleeper() {
//!     require!(v2());
//!     let sandbox = Sandbox::new(test_name!());
//!     let dir = sandbox.v2("target");
//!     let sleeper = sandbox.sleeper(&[&dir]);
//!     // ... reap `dir` ...
//!     assert!(!sleeper.alive());
//! }
//! ```
//!
//! * `layout`: where the hierarchies are, and the visible skip when a test cannot run here.
//! * `sandbox`: the scope and its clean-up.
//! * `fixtures`: the processes a sandbox can start, each in a known state before the call returns.
//! * `dice`: random numbers that a seed repeats.
//! * `repeated`: what another program does all the time.
//! * `limits`: running out of descriptors.
//! * `state`: reading the state of cgroups and processes, and freezing cgroups.
//! * `world`: targets of one layout, a canary beside them, and driving a reactor.
//! * `isolate`: running a test in a PID namespace of its own.
//! * `mounts`: mounts, such as filesystems that hang.
//! * `rights`: a caller without rights.
//! * `sys`: the few system calls; the code run between fork and exit uses nothing else.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    unsafe_code,
    missing_docs,
    reason = "each test program uses a part of this, and needs system calls that std does not have"
)]

mod dice;
mod fixtures;
mod held_directory;
mod isolate;
mod layout;
mod limits;
mod mounts;
mod repeated;
mod rights;
mod sandbox;
mod state;
mod sys;
mod world;

pub use dice::Dice;
pub use fixtures::{Canary, ForkStorm, OnTerm, Threaded, TraceExit};
pub use held_directory::{HeldDirectory, userfaultfd};
pub use isolate::isolated;
pub use layout::{
    cgroup_kill, has_pids_limit, linux, namespaces, pids_limit, say_skipped, skip, strip_test_name, v1,
    v1_root, v2, v2_root,
};
pub use limits::{TakenDescriptors, limit_descriptors, with_descriptor_limit, with_few_descriptors};
pub use mounts::{FrozenFilesystem, HungFilesystem, frozen_filesystem, fuse, mount, try_mount, unmount};
pub use repeated::Repeated;
pub use rights::{USER, as_user, delegate};
pub use sandbox::{ExitOnUnwind, Proc, Procs, Sandbox, clear_group};
pub use state::{
    TIMEOUT, alive, eventually, freeze_v1, freeze_v2, freezer_state, open_fds, pids_in, populated, some_try,
    state_of, subtree, thaw_v1, thaw_v2, wait_until,
};
pub use sys::drop_dac_read_search;
pub use sys::set_user;
pub use sys::{clone, trace_continue, trace_exit};
pub use sys::{close_all_but, die_with_parent, exit, fork, kill, unshare, wait};
pub use sys::{limit_descriptors_of, refuse_call, refuse_watches, set_attribute};
pub(crate) use world::each;
pub use world::{
    LIMIT, Layout, ReapResult, SEVERAL, World, any_hierarchy, any_layout, assert_gone, directly, drive,
    finish, groups, make, options, reap, reap_without, reaped, reaped_without, refs, slow, spawn, turn_for,
    v2_freeze,
};

/// The name of the enclosing test as libtest knows it, thus fit for `--exact`. Needs `mod common` at the
/// root of the test program.
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::common::strip_test_name(&here)
    }};
}
pub(crate) use test_name;

/// `require!(v1("freezer"), v2())`: continues when all of them are `Ok`; else prints `SKIP <test>: <reason>` and
/// returns from the test, or panics where skipping would hide something (see [`skip`]).
macro_rules! require {
    ($($need:expr),+ $(,)?) => {
        $(if let Err(reason) = $need {
            $crate::common::skip($crate::common::test_name!(), &reason);
            return;
        })+
    };
}
pub(crate) use require;
