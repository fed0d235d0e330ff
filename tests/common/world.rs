//! A place for targets of one layout, and driving a reactor until a reap of one is complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cgroup_reaper::{
    CgroupOptions, Facility, Metrics, Outcome, Reactor, ReapError, ReapHandle, Reaped, Reaper, UsedMethod,
};

use super::fixtures::Canary;
use super::layout::{cgroup_kill, v1, v1_root, v2};
use super::sandbox::Sandbox;
use super::state::{freeze_v1, freeze_v2, freezer_state};

/// How long a reap may take before it counts as hung.
pub const LIMIT: Duration = Duration::from_secs(120);

pub type ReapResult = Result<Reaped, ReapError>;

/// What a target is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One v2 directory.
    V2,
    /// One directory of the v1 freezer.
    Freezer,
    /// One v1 directory without freezer.
    Cpu,
    /// The same name in several v1 hierarchies, by `CgroupOptions`.
    Several,
}

/// The hierarchies of [`Layout::Several`].
pub const SEVERAL: [&str; 3] = ["freezer", "cpu", "memory"];

impl Layout {
    pub fn of(name: &str) -> Layout {
        match name {
            "v2" => Layout::V2,
            "freezer" => Layout::Freezer,
            "cpu" => Layout::Cpu,
            "several" => Layout::Several,
            _ => panic!("no layout {name}"),
        }
    }

    pub fn need(self) -> Result<(), String> {
        match self {
            Layout::V2 => v2(),
            Layout::Freezer => v1("freezer"),
            Layout::Cpu => v1("cpu"),
            Layout::Several => SEVERAL.into_iter().try_for_each(v1),
        }
    }
}

/// `each!(test on v2, cpu)`: a module `test` with a test for each layout, which runs the function `test` on a
/// [`World`] of it; with `needs EXPRESSION` only where that is `Ok`; `isolated test` in a program of its own.
macro_rules! each {
    ($test:ident on $($layout:ident),+) => { each!($test needs Ok::<(), String>(()), on $($layout),+); };
    ($test:ident needs $need:expr, on $($layout:ident),+) => {
        each!(@ directly, $test, $need, $($layout),+);
    };
    (isolated $test:ident needs $need:expr, on $($layout:ident),+) => {
        each!(@ isolated, $test, namespaces().and($need), $($layout),+);
    };
    (@ $run:ident, $test:ident, $need:expr, $($layout:ident),+) => {
        mod $test {
            $(
                #[test]
                fn $layout() {
                    use super::*;
                    let layout = Layout::of(stringify!($layout));
                    require!(layout.need(), $need);
                    $run(test_name!(), || {
                        let world = World::new(test_name!(), layout);
                        super::$test(&world);
                        world.canary.assert_alive();
                    });
                }
            )+
        }
    };
}
pub(crate) use each;

/// Runs a test in this program.
pub fn directly(_test: &str, body: impl FnOnce()) {
    body();
}

/// A place for targets of one layout, with a canary beside them.
pub struct World {
    pub layout: Layout,
    pub canary: Canary,
    pub sandbox: Sandbox,
}

impl World {
    pub fn new(test: &str, layout: Layout) -> World {
        let sandbox = Sandbox::new(test);
        let dirs = make(&sandbox, layout, "canary");
        let canary = sandbox.canary(&refs(&dirs));
        World { layout, canary, sandbox }
    }

    /// Makes the group `name`: its directories.
    pub fn group(&self, name: &str) -> Vec<PathBuf> {
        make(&self.sandbox, self.layout, name)
    }

    /// What reaps the group `name`, which may have one component only.
    pub fn reaper(&self, name: &str) -> Reaper {
        match self.layout {
            Layout::V2 => Reaper::at(self.sandbox.v2_dir().join(name)),
            Layout::Freezer => Reaper::at(self.sandbox.v1_dir("freezer").join(name)),
            Layout::Cpu => Reaper::at(self.sandbox.v1_dir("cpu").join(name)),
            Layout::Several => Reaper::new(options(&self.sandbox, &SEVERAL), name),
        }
    }

    /// A group `target` with its reaper.
    pub fn target(&self) -> (Vec<PathBuf>, Reaper) {
        (self.group("target"), self.reaper("target"))
    }

    /// Whether this kernel kills a target of this layout by `cgroup.kill`.
    pub fn by_cgroup_kill(&self) -> bool {
        self.layout == Layout::V2 && cgroup_kill().is_ok()
    }

    /// The freezer group that a target of this layout has, if any, and how it says that it is frozen.
    pub fn frozen(&self, name: &str) -> bool {
        match self.layout {
            Layout::V2 => v2_freeze(&self.sandbox.v2_dir().join(name)),
            Layout::Freezer | Layout::Several => {
                freezer_state(&self.sandbox.v1_dir("freezer").join(name)) != "THAWED"
            }
            Layout::Cpu => false,
        }
    }

    pub fn freeze(&self, name: &str) {
        match self.layout {
            Layout::V2 => freeze_v2(&self.sandbox.v2_dir().join(name)),
            Layout::Freezer | Layout::Several => freeze_v1(&self.sandbox.v1_dir("freezer").join(name)),
            Layout::Cpu => panic!("cpu has no freezer"),
        }
    }

    /// Checks the result of a reap by [`KillMethod::Auto`] of `n` processes that exit at once.
    #[track_caller]
    pub fn check(&self, reaped: &Reaped, n: u64) {
        assert_eq!(reaped.outcome, Outcome::Removed);
        if !self.by_cgroup_kill() {
            assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::Pidfd), n));
        } else if reaped.attempts <= 2 {
            assert_eq!((reaped.method, reaped.signalled), (Some(UsedMethod::CgroupKill), 0));
        } else {
            // On a slow machine some processes outlive the first `cgroup.kill`, and are signalled as well.
            assert!(matches!(reaped.method, Some(UsedMethod::CgroupKill | UsedMethod::Pidfd)), "{reaped:?}");
            assert!(reaped.signalled <= n, "{reaped:?}");
        }
        assert!((1..1000).contains(&reaped.attempts), "{} attempts", reaped.attempts);
    }
}

pub fn make(sandbox: &Sandbox, layout: Layout, name: &str) -> Vec<PathBuf> {
    match layout {
        Layout::V2 => vec![sandbox.v2(name)],
        Layout::Freezer => vec![sandbox.v1("freezer", name)],
        Layout::Cpu => vec![sandbox.v1("cpu", name)],
        Layout::Several => SEVERAL.iter().map(|controller| sandbox.v1(controller, name)).collect(),
    }
}

/// Options for the groups of a sandbox in several v1 hierarchies.
pub fn options(sandbox: &Sandbox, controllers: &[&str]) -> CgroupOptions {
    let slice = sandbox.v1_dir(controllers[0]);
    let roots: Vec<PathBuf> = controllers.iter().map(|name| v1_root(name).expect("mounted")).collect();
    let root = roots[0].parent().expect("mounted below a directory");
    CgroupOptions::new(root)
        .slice(slice.file_name().expect("a name"))
        .subsystems(roots.iter().map(|mount| mount.strip_prefix(root).expect("mounted side by side")))
}

pub fn refs(dirs: &[PathBuf]) -> Vec<&Path> {
    dirs.iter().map(PathBuf::as_path).collect()
}

pub fn v2_freeze(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.freeze")).expect("cgroup.freeze").trim() == "1"
}

#[track_caller]
pub fn assert_gone(dirs: &[PathBuf]) {
    for dir in dirs {
        assert!(!dir.exists(), "{} is still there", dir.display());
    }
}

#[track_caller]
pub fn spawn(reactor: &mut Reactor, reaper: Reaper) -> ReapHandle {
    reactor.spawn_reaper(reaper).unwrap_or_else(|error| panic!("{error}"))
}

/// Turns the reactor until `done`.
#[track_caller]
pub fn drive(reactor: &mut Reactor, what: &str, mut done: impl FnMut(&Metrics) -> bool) {
    let end = Instant::now() + LIMIT;
    while !done(&reactor.metrics()) {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}; {reactor:?}");
        reactor.turn(Some(Duration::from_millis(20))).expect("turn");
    }
}

/// Turns the reactor until the reap is complete.
#[track_caller]
pub fn finish(reactor: &mut Reactor, handle: &ReapHandle) -> ReapResult {
    drive(reactor, "the reap", |_| handle.is_complete());
    handle.try_wait().expect("complete")
}

/// A group in each hierarchy that is there, of v2, and of v1 with a freezer and without.
pub fn groups(sandbox: &Sandbox, name: &str) -> Vec<PathBuf> {
    let v1s = ["freezer", "cpu"].into_iter().filter(|controller| v1(controller).is_ok());
    let v1s = v1s.map(|controller| sandbox.v1(controller, name));
    v2().is_ok().then(|| sandbox.v2(name)).into_iter().chain(v1s).collect()
}

/// Turns the reactor for some time.
#[track_caller]
pub fn turn_for(reactor: &mut Reactor, time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        reactor.turn(Some(left)).expect("a turn");
    }
}

/// A reaper whose backoff takes longer than any test, so that no check by timer helps it.
pub fn slow(reaper: Reaper) -> Reaper {
    let hour = Duration::from_secs(3600);
    reaper.min_wait(hour).max_wait(hour)
}

#[track_caller]
pub fn reap(reaper: Reaper) -> ReapResult {
    reap_without(&[], reaper)
}

/// Reaps where the kernel lacks facilities.
#[track_caller]
pub fn reap_without(absent: &'static [Facility], reaper: Reaper) -> ReapResult {
    let mut reactor = Reactor::without(absent).expect("reactor");
    let handle = spawn(&mut reactor, reaper);
    let result = finish(&mut reactor, &handle);
    assert!(reactor.is_empty());
    assert_eq!(reactor.metrics().descriptors, 0);
    result
}

#[track_caller]
pub fn reaped(reaper: Reaper) -> Reaped {
    reaped_without(&[], reaper)
}

#[track_caller]
pub fn reaped_without(absent: &'static [Facility], reaper: Reaper) -> Reaped {
    reap_without(absent, reaper).unwrap_or_else(|error| panic!("{error}"))
}

/// Need: some hierarchy that a [`World`] of [`any_layout`] works in.
pub fn any_hierarchy() -> Result<(), String> {
    v2().or_else(|_| v1("freezer"))
}

pub fn any_layout() -> Layout {
    if v2().is_ok() { Layout::V2 } else { Layout::Freezer }
}
