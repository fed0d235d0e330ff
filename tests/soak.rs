//! Random reaps and faults for a given time, with canaries beside them:
//!
//! ```sh
//! cargo test --release --test soak -- --seconds 600 --seed 1
//! ```
//!
//! Several threads, with reactors of their own and with remotes of one that runs on another thread, make groups of
//! random shapes and reap them in random ways, while other threads freeze and thaw them, remove them, make them again
//! under the same name, and sometimes take every descriptor. It ends with a report; the exit status is 1 if the report
//! has a violation. The seed repeats the actions, but not their interleaving.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{
    KillMethod, Metrics, Outcome, Reactor, ReapError, ReapHandle, Reaped, Reaper, Refusal, Remote, Signal,
    SpawnError,
};
use common::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How long a reap without a deadline may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// Descriptors that this program may have: few, so that all can be taken quickly.
const DESCRIPTORS: u64 = 1024;

fn main() -> ExitCode {
    let (mut seconds, mut seed) = (10, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse().ok());
        match arg.as_str() {
            "--seconds" => seconds = number().expect("--seconds NUMBER"),
            "--seed" => seed = Some(number().expect("--seed NUMBER")),
            // Those of the test harness that this stands in for: its options, and the names of other tests.
            "--list" => return ExitCode::SUCCESS,
            name if !name.starts_with('-') && !"soak".contains(name) => return ExitCode::SUCCESS,
            _ => {}
        }
    }
    if let Err(reason) = any_hierarchy() {
        skip("soak", &reason);
        return ExitCode::SUCCESS;
    }
    let dice = seed.map_or_else(Dice::seeded, Dice);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(DESCRIPTORS), hard).expect("setrlimit");
    println!("soak: {seconds} s, seed {}", dice.0);
    if soak(Duration::from_secs(seconds), &dice) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What was done and found, all threads together.
#[derive(Default)]
struct Tally {
    /// Counts by what they count.
    counts: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
}

impl Tally {
    fn add(&self, what: impl Into<String>, n: u64) {
        *self.counts.lock().expect("tally").entry(what.into()).or_default() += n;
    }

    fn violation(&self, what: String) {
        eprintln!("VIOLATION: {what}");
        self.violations.lock().expect("tally").push(what);
    }

    /// Adds the counts of a reactor that is idle, or about to be dropped.
    fn reactor(&self, metrics: &Metrics, idle: bool) {
        self.add("done: writes to cgroup.kill", metrics.cgroup_kills);
        self.add("done: signals", metrics.signals);
        self.add("done: freezes", metrics.freezes);
        self.add("done: escalations", metrics.escalations);
        self.add("done: wake-ups", metrics.wakeups);
        if idle {
            self.add("left: watches and other descriptors of reaps", metrics.descriptors);
        }
    }
}

/// What all threads share.
struct Shared {
    tally: Tally,
    end: Instant,
    layouts: Vec<Layout>,
    /// Held for reading while the test itself needs descriptors, for writing while all are taken.
    descriptors: RwLock<()>,
}

fn soak(duration: Duration, dice: &Dice) -> bool {
    let before = open_fds();
    let layouts = [Layout::V2, Layout::Freezer, Layout::Cpu, Layout::Several];
    let shared = Arc::new(Shared {
        tally: Tally::default(),
        end: Instant::now() + duration,
        layouts: layouts.into_iter().filter(|layout| layout.need().is_ok()).collect(),
        descriptors: RwLock::new(()),
    });
    let sandbox = Sandbox::new("soak");
    let canaries: Vec<Canary> = shared
        .layouts
        .iter()
        .map(|&layout| sandbox.canary(&refs(&make(&sandbox, layout, "canary"))))
        .collect();

    let mut reactor = Reactor::new().expect("reactor");
    let remote = reactor.remote();
    let looping = thread::spawn(move || {
        reactor.run().expect("run");
        reactor
    });
    let mut workers = Vec::new();
    for n in 0..4 {
        let (shared, remote) = (Arc::clone(&shared), (n % 2 == 0).then(|| remote.clone()));
        let dice = Dice(dice.0.wrapping_add(n));
        workers.push(thread::spawn(move || Worker { shared, dice, remote, reactor: None }.work()));
    }
    let taker = {
        let (shared, dice) = (Arc::clone(&shared), Dice(dice.0.wrapping_sub(1)));
        thread::spawn(move || take_descriptors(&shared, dice))
    };
    let tally = &shared.tally;
    for thread in workers.into_iter().chain([taker]) {
        if thread.join().is_err() {
            tally.violation("a thread panicked, see above".into());
        }
    }
    remote.stop();
    let reactor = looping.join().expect("the loop");
    if !reactor.is_empty() {
        tally.violation(format!("{} reaps are left in the loop", reactor.len()));
    }
    tally.reactor(&reactor.metrics(), true);
    drop((reactor, remote));

    let mut alive = 0;
    for canary in &canaries {
        // Its panic would be one of this thread.
        let check = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| canary.assert_alive()));
        match check {
            Ok(()) => alive += 1,
            Err(_) => tally.violation("a canary".into()),
        }
    }
    let total = canaries.len();
    drop((canaries, sandbox));
    tally.add("left: frozen groups", 0);
    tally.add("left: directories", directories().len() as u64);
    tally.add("left: descriptors", open_fds().saturating_sub(before) as u64);
    report(tally, alive, total)
}

/// Directories of this program in any hierarchy.
fn directories() -> Vec<PathBuf> {
    let roots = ["freezer", "cpu", "memory", "pids"].into_iter().filter_map(v1_root).chain(v2_root());
    let ours = format!("cgroup-reaper-soak-{}-", std::process::id());
    let entries = roots.filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains(&ours)).collect()
}

fn report(tally: &Tally, alive: usize, canaries: usize) -> bool {
    let counts = tally.counts.lock().expect("tally");
    let violations = tally.violations.lock().expect("tally");
    for (what, n) in counts.iter() {
        println!("{n:>10}  {what}");
    }
    println!("{alive:>10}  of {canaries} canaries alive");
    println!("{:>10}  violations", violations.len());
    for violation in violations.iter() {
        println!("            {violation}");
    }
    let left: u64 = counts.iter().filter(|(what, _)| what.starts_with("left: ")).map(|(_, n)| n).sum();
    let good = violations.is_empty() && left == 0 && alive == canaries;
    println!("soak: {}", if good { "good" } else { "NOT GOOD" });
    good
}

/// Sometimes takes every descriptor for some milliseconds.
fn take_descriptors(shared: &Shared, mut dice: Dice) {
    while Instant::now() < shared.end {
        thread::sleep(Duration::from_millis(100 + dice.below(400)));
        let _exclusive = shared.descriptors.write().expect("lock");
        let mut taken = Vec::new();
        let null = fs::File::open("/dev/null").expect("/dev/null");
        while let Ok(fd) = null.as_fd().try_clone_to_owned() {
            taken.push(fd);
        }
        thread::sleep(Duration::from_millis(1 + dice.below(15)));
        shared.tally.add("faults: all descriptors taken", 1);
    }
}

/// What other threads do to a target while it is reaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    FreezeAndThaw,
    Remove,
    Replace,
}

/// A target under way.
struct Target {
    dirs: Vec<PathBuf>,
    plain: Reaper,
    reaper: Reaper,
    members: Vec<Proc>,
    fault: Fault,
    fault_thread: Option<FaultThread>,
    new_member: Option<Canary>,
    deadline: bool,
    cancel: bool,
    keep_dir: bool,
    detach: bool,
    frozen_beforehand: bool,
    what: String,
}

struct Worker {
    shared: Arc<Shared>,
    dice: Dice,
    /// That of the loop on another thread, or none to have a reactor of its own.
    remote: Option<Remote>,
    reactor: Option<Reactor>,
}

impl Worker {
    fn work(mut self) {
        while Instant::now() < self.shared.end {
            let sandbox = {
                let _descriptors = self.shared.descriptors.read().expect("lock");
                Sandbox::new("soak")
            };
            self.batch(&sandbox);
            // The drop needs some to find what is left.
            let shared = Arc::clone(&self.shared);
            let _descriptors = shared.descriptors.read().expect("lock");
            drop(sandbox);
        }
        if let Some(reactor) = self.reactor {
            self.shared.tally.reactor(&reactor.metrics(), reactor.is_empty());
        }
    }

    fn batch(&mut self, sandbox: &Sandbox) {
        let shared = Arc::clone(&self.shared);
        let tally = &shared.tally;
        let drop_reactor = self.remote.is_none() && self.dice.chance(5);
        let mut targets: Vec<Target> = {
            let _descriptors = shared.descriptors.read().expect("lock");
            if self.dice.chance(10) && pids_limit().is_ok() {
                vec![self.target(sandbox, 0, true)]
            } else {
                (0..1 + self.dice.below(6)).map(|n| self.target(sandbox, n, false)).collect()
            }
        };
        let handles: Vec<Option<ReapHandle>> = targets
            .iter()
            .map(|target| {
                let handle = self.spawn(target);
                if self.dice.chance(20) {
                    let pause = self.dice.below(3);
                    self.turn(Duration::from_millis(pause));
                }
                tally.add("done: reaps", 1);
                (!target.detach).then_some(handle)
            })
            .collect();
        for (target, handle) in targets.iter().zip(&handles) {
            if let (true, Some(handle)) = (target.cancel, handle) {
                let pause = self.dice.below(5);
                self.turn(Duration::from_millis(pause));
                handle.cancel();
            }
        }
        if drop_reactor {
            let pause = self.dice.below(10);
            self.turn(Duration::from_millis(pause));
            if let Some(reactor) = self.reactor.take() {
                tally.reactor(&reactor.metrics(), false);
                tally.add("faults: reactors dropped", 1);
            }
        }
        let hung = Instant::now() + HUNG;
        let done = |target: &Target, handle: &Option<ReapHandle>| match handle {
            Some(handle) => handle.is_complete(),
            None => {
                drop_reactor || target.fault != Fault::None || target.dirs.iter().all(|dir| !dir.exists())
            }
        };
        while !targets.iter().zip(&handles).all(|(target, handle)| done(target, handle)) {
            if Instant::now() > hung {
                let stuck = targets.iter().zip(&handles).filter(|(target, handle)| !done(target, handle));
                let stuck: Vec<&str> = stuck.map(|(target, _)| &*target.what).collect();
                tally.violation(format!("hung: {stuck:?}; {:?}", self.reactor));
                break;
            }
            self.turn(Duration::from_millis(5));
        }
        let _descriptors = shared.descriptors.read().expect("lock");
        for (target, handle) in targets.iter_mut().zip(handles) {
            target.fault_thread = None;
            if let Some(result) = handle.and_then(|handle| handle.try_wait()) {
                check(tally, target, &result, drop_reactor);
            }
            if let Some(new_member) = &target.new_member {
                new_member.assert_alive();
            }
        }
    }

    /// Turns the reactor, or waits as long.
    fn turn(&mut self, time: Duration) {
        match &mut self.reactor {
            Some(reactor) => _ = reactor.turn(Some(time)).expect("turn"),
            None => thread::sleep(time),
        }
    }

    /// Spawns; retries while there are no descriptors.
    fn spawn(&mut self, target: &Target) -> ReapHandle {
        let hung = Instant::now() + HUNG;
        loop {
            let result = match (&self.remote, &mut self.reactor) {
                (Some(remote), _) => remote.spawn_reaper(target.reaper.clone()),
                (None, Some(reactor)) => reactor.spawn_reaper(target.reaper.clone()),
                (None, none) => {
                    *none = Reactor::new().ok();
                    assert!(Instant::now() < hung, "no reactor to be had");
                    continue;
                }
            };
            match result {
                Ok(handle) => return handle,
                Err(error) => {
                    assert!(Instant::now() < hung && is_for_lack_of_descriptors(&error), "{error}");
                    self.shared.tally.add("errors: spawn refused for lack of descriptors", 1);
                    self.turn(Duration::from_millis(1));
                }
            }
        }
    }

    /// Makes a target of a random shape.
    fn target(&mut self, sandbox: &Sandbox, n: u64, storm: bool) -> Target {
        let dice = &mut self.dice;
        let layout = *dice.pick(&self.shared.layouts);
        let name = format!("target-{n}");
        let dirs = make(sandbox, layout, &name);
        let mut methods = vec![KillMethod::Auto, KillMethod::Auto, KillMethod::Pidfd];
        if layout != Layout::Cpu {
            methods.push(KillMethod::Freezer);
        }
        if dirs.iter().all(|dir| dir.join("cgroup.kill").exists()) {
            methods.push(KillMethod::CgroupKill);
        }
        let method = *dice.pick(&methods);

        let mut groups = vec![dirs.clone()];
        for child in 0..dice.below(4) {
            let above = if dice.chance(50) { name.clone() } else { format!("{name}/child-0") };
            groups.push(make(sandbox, layout, &format!("{above}/child-{child}")));
        }
        let freezer = dirs.iter().find(|dir| freeze_file(dir).is_some());
        let fault = match dice.below(10) {
            0..2 if freezer.is_some() => Fault::FreezeAndThaw,
            2..4 => Fault::Remove,
            4 => Fault::Replace,
            _ => Fault::None,
        };
        let mut members = Vec::new();
        let mut kinds = String::new();
        if storm {
            sandbox.fork_storm(40, &refs(&dirs));
            kinds.push_str(" fork storm");
        } else {
            for dirs in &groups {
                let kind = dice.below(12);
                kinds.push_str(&format!(" {kind}"));
                members.extend(member(sandbox, dice, kind, method, &refs(dirs)));
            }
        }
        if fault == Fault::Replace {
            // Not before it is reaped: an empty one would be replaced at once.
            members.push(sandbox.sleeper(&refs(&dirs)));
        }
        self.shared.tally.add("made: processes, except fork storms", members.len() as u64);
        self.shared.tally.add("made: groups", (groups.len() * dirs.len()) as u64);
        let frozen_beforehand = freezer.is_some() && dice.chance(15);
        if let (Some(dir), true) = (freezer, frozen_beforehand) {
            let (file, states) = freeze_file(dir).expect("just seen");
            fs::write(dir.join(file), states[0]).expect("freeze");
            kinds.push_str(" frozen");
        }

        let new_member = (fault == Fault::Replace).then(|| sandbox.canary(&[]));
        let fault_thread = cause(fault, dice.clone(), &dirs, new_member.as_ref());
        let plain = match layout {
            Layout::Several => Reaper::new(options(sandbox, &SEVERAL), &name),
            _ => Reaper::at(&dirs[0]),
        };
        let (deadline, cancel, keep_dir) = (dice.chance(10), dice.chance(10), dice.chance(10));
        let millis = |n| Duration::from_millis(n);
        let mut reaper = plain
            .clone()
            .method(method)
            .min_wait(millis(1 + dice.below(20)))
            .max_wait(millis(20 + dice.below(200)));
        reaper = reaper.freeze_timeout(millis(1 + dice.below(200)));
        if deadline {
            reaper = reaper.deadline(millis(dice.below(30)));
        }
        if keep_dir {
            reaper = reaper.keep_dir();
        }
        if dice.chance(20) {
            reaper = reaper.grace(Signal::TERM, millis(dice.below(50)));
        }
        let what = format!("{layout:?} {name}:{kinds}; {fault:?}; {reaper:?}");
        let detach = !(deadline || cancel || keep_dir) && dice.chance(5);
        Target {
            dirs,
            plain,
            reaper,
            members,
            fault,
            fault_thread,
            new_member,
            deadline,
            cancel,
            keep_dir,
            detach,
            frozen_beforehand,
            what,
        }
    }
}

fn is_for_lack_of_descriptors(error: &SpawnError) -> bool {
    matches!(error.refusal(), Refusal::Io { source, .. } if source.raw_os_error() == Some(libc::EMFILE))
}

fn member(sandbox: &Sandbox, dice: &mut Dice, kind: u64, method: KillMethod, dirs: &[&Path]) -> Vec<Proc> {
    match kind {
        0 => vec![sandbox.stopped(dirs)],
        1 => vec![sandbox.ignores_sigterm(dirs)],
        2 => vec![sandbox.churn(Duration::from_secs(60), dirs)],
        3 => sandbox.vfork(dirs).0,
        // Some kernels' cgroup.kill alone does not reach these.
        4 if method != KillMethod::CgroupKill => vec![sandbox.zombie_leader(dirs)],
        5 => vec![sandbox.ptraced(dirs)],
        6 if namespaces().is_ok() => sandbox.pidns_sleepers(2, dirs).0,
        7 => Vec::new(),
        _ => sandbox.sleepers(1 + dice.below(20) as usize, dirs).0,
    }
}

/// The file by which a group is frozen, and what freezes and thaws it.
fn freeze_file(dir: &Path) -> Option<(&'static str, [&'static str; 2])> {
    let files = [("cgroup.freeze", ["1", "0"]), ("freezer.state", ["FROZEN", "THAWED"])];
    files.into_iter().find(|(file, _)| dir.join(file).exists())
}

fn frozen(dir: &Path) -> bool {
    freeze_file(dir).is_some_and(|(file, states)| {
        fs::read_to_string(dir.join(file))
            .is_ok_and(|state| !["0", "THAWED"].contains(&state.trim()) && !states.is_empty())
    })
}

/// Starts the thread that causes the fault.
fn cause(fault: Fault, mut dice: Dice, dirs: &[PathBuf], new_member: Option<&Canary>) -> Option<FaultThread> {
    let dirs = dirs.to_vec();
    let new_member = new_member.map(|new_member| new_member.pid.to_string()).unwrap_or_default();
    let mut work: Box<dyn FnMut() + Send> = match fault {
        Fault::None => return None,
        Fault::FreezeAndThaw => {
            let dir = dirs.into_iter().find(|dir| freeze_file(dir).is_some())?;
            let (file, states) = freeze_file(&dir)?;
            Box::new(move || {
                let _ = fs::write(dir.join(file), states[usize::from(dice.chance(50))]);
                thread::sleep(Duration::from_micros(dice.below(3000)));
            })
        }
        Fault::Remove => Box::new(move || {
            for dir in dirs.iter().flat_map(|dir| subtree(dir)).rev() {
                let _ = fs::remove_dir(dir);
            }
            thread::sleep(Duration::from_micros(dice.below(500)));
        }),
        Fault::Replace => Box::new(move || {
            for dir in &dirs {
                if (fs::remove_dir(dir).is_ok() || !dir.exists()) && fs::create_dir(dir).is_ok() {
                    let _ = fs::write(dir.join("cgroup.procs"), &new_member);
                }
            }
            thread::sleep(Duration::from_micros(dice.below(500)));
        }),
    };
    let over = Arc::new(AtomicBool::new(false));
    let thread = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                work();
            }
        })
    };
    Some(FaultThread { over, thread: Some(thread) })
}

/// A thread that causes a fault until this is dropped.
struct FaultThread {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for FaultThread {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().expect("not yet joined").join();
    }
}

/// Compares a result with the state of the machine.
fn check(tally: &Tally, target: &Target, result: &Result<Reaped, ReapError>, dropped: bool) {
    let Target { dirs, fault, .. } = target;
    let by_others = matches!(fault, Fault::Remove | Fault::Replace);
    let kind = match result {
        Ok(reaped) => format!("reaps: {} by {:?}", reaped.outcome, reaped.method),
        Err(ReapError::TimedOut { .. }) => "errors: timed out".into(),
        Err(error) => {
            format!("errors: {}", format!("{error:?}").split([' ', '{', '(']).next().unwrap_or_default())
        }
    };
    tally.add(kind, 1);
    let expected = match result {
        Ok(Reaped { outcome: Outcome::Removed, .. }) => !target.keep_dir || by_others,
        Ok(Reaped { outcome: Outcome::AlreadyGone, .. }) => by_others,
        Ok(Reaped { outcome: Outcome::Emptied, .. }) => target.keep_dir,
        Err(ReapError::TimedOut { .. }) => target.deadline,
        Err(ReapError::Cancelled { .. }) => target.cancel,
        Err(ReapError::Disconnected { .. }) => dropped,
        Err(ReapError::Replaced { .. }) => *fault == Fault::Replace,
        _ => false,
    };
    let what = &target.what;
    if !expected {
        tally.violation(format!("{result:?} of {what}"));
    }
    let made_again = *fault == Fault::Replace;
    let gone = matches!(result, Ok(Reaped { outcome: Outcome::Removed | Outcome::AlreadyGone, .. }));
    if gone && !made_again {
        if let Some(dir) = dirs.iter().find(|dir| dir.exists()) {
            tally.violation(format!("{} is still there: {what}", dir.display()));
        }
    }
    if result.is_ok() || matches!(result, Err(ReapError::Replaced { .. })) {
        // The init of a PID namespace may still be exiting: it waits for all others.
        let living = target.members.iter().filter(|member| !member.ended(Duration::from_secs(5)));
        let living: Vec<i32> = living.map(|member| member.pid).collect();
        if !living.is_empty() {
            tally.violation(format!("{living:?} live after {result:?}: {what}"));
        }
    }
    // By the reap, that is.
    if *fault != Fault::FreezeAndThaw && !target.frozen_beforehand {
        if let Some(dir) = dirs.iter().find(|dir| frozen(dir)) {
            tally.violation(format!("{} is frozen after {result:?}: {what}", dir.display()));
            tally.add("left: frozen groups", 1);
        }
    }
    // A reap that ended early has left a target that can be reaped.
    if !gone && !made_again && dirs.iter().any(|dir| dir.exists()) {
        match cgroup_reaper::reap(target.plain.clone().deadline(HUNG)) {
            Ok(_) => tally.add("reaps: of what was left by another", 1),
            Err(error) => tally.violation(format!("reaped again: {error:?}: {what}")),
        }
    }
}
