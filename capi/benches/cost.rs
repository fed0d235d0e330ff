//! What the C ABI adds to a reap: the same reaps through Rust and through C, in turns, on the same kind of cgroups.
//!
//!     cargo bench -p cgroup-reaper-capi --bench cost [-- --pairs 1000]
//!
//! Needs root and cgroups. A pair is one reap each, the one that goes first changes with each pair. Prints medians and
//! quartiles in microseconds, and the ratio of the medians, with that of each fifth of the pairs as its spread.

#![allow(unsafe_code, missing_docs, reason = "calls what C calls")]

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use cgroup_reaper::{Outcome, Reactor, Reaper};
use cgroup_reaper_c::*;

/// Where a hierarchy may be mounted.
const ROOTS: [&str; 3] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/freezer"];

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    // Tests run it too, to see that it can be run: then it has nothing to measure.
    if !args.iter().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let pairs = args.iter().position(|arg| arg == "--pairs").and_then(|at| args.get(at + 1)?.parse().ok());
    let pairs: usize = pairs.unwrap_or(1000);
    let name = format!("cgroup-reaper-cost-{}", std::process::id());
    let top = ROOTS.iter().map(|root| Path::new(root).join(&name));
    let Some(top) = top.into_iter().find(|top| {
        top.parent().is_some_and(|root| root.join("cgroup.procs").exists()) && fs::create_dir(top).is_ok()
    }) else {
        println!("SKIP: no cgroup hierarchy is writable here");
        return Ok(());
    };
    let result = measure(&top, "empty", 0, pairs).and_then(|()| measure(&top, "one process", 1, pairs));
    result.and(fs::remove_dir(&top))
}

fn measure(top: &Path, what: &str, members: usize, pairs: usize) -> io::Result<()> {
    let mut rust = ThroughRust(Reactor::new()?);
    let mut c = ThroughC::new();
    let mut times = [Vec::new(), Vec::new()];
    // The first tenth only warms up.
    for pair in 0..pairs + pairs / 10 {
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            let mut target = Target::new(top.join("target"), members)?;
            // Each caller has the path as its language has it.
            let path = CString::new(target.dir.as_os_str().as_bytes())?;
            let begin = Instant::now();
            match which {
                0 => rust.reap(&target.dir)?,
                _ => c.reap(&path),
            }
            let took = begin.elapsed();
            target.children.iter_mut().try_for_each(|child| child.wait().map(drop))?;
            assert!(!target.dir.exists());
            if pair >= pairs / 10 {
                times[which].push(took);
            }
        }
    }
    let fifths = (0..5).map(|n| {
        let part = |times: &[Duration]| quartile(&times[n * pairs / 5..(n + 1) * pairs / 5], 2);
        part(&times[1]) / part(&times[0])
    });
    let fifths: Vec<f64> = fifths.collect();
    let (least, most) = fifths.iter().fold((f64::MAX, 0f64), |(least, most), &x| (least.min(x), most.max(x)));
    for (name, times) in ["Rust", "C"].iter().zip(&times) {
        let [low, median, high] = [1, 2, 3].map(|n| quartile(times, n));
        println!("{what}, {name}: {median:.1} us ({low:.1} to {high:.1})");
    }
    let ratio = quartile(&times[1], 2) / quartile(&times[0], 2);
    println!("{what}, C / Rust: {ratio:.4} ({least:.4} to {most:.4} in fifths), {pairs} pairs");
    Ok(())
}

/// In microseconds.
fn quartile(times: &[Duration], n: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[(times.len() * n / 4).min(times.len() - 1)].as_secs_f64() * 1e6
}

/// A cgroup with sleeping processes in it.
struct Target {
    dir: PathBuf,
    children: Vec<Child>,
}

impl Target {
    fn new(dir: PathBuf, members: usize) -> io::Result<Target> {
        fs::create_dir(&dir)?;
        let mut target = Target { dir, children: Vec::new() };
        for _ in 0..members {
            let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
            let pid = child.id().to_string();
            target.children.push(child);
            fs::write(target.dir.join("cgroup.procs"), pid)?;
        }
        Ok(target)
    }
}

/// After a reap that failed; otherwise nothing is left to be done.
impl Drop for Target {
    fn drop(&mut self) {
        for child in &mut self.children {
            _ = child.kill();
            _ = child.wait();
        }
        _ = fs::remove_dir(&self.dir);
    }
}

struct ThroughRust(Reactor);

impl ThroughRust {
    fn reap(&mut self, dir: &Path) -> io::Result<()> {
        let reactor = &mut self.0;
        drop(reactor.spawn_reaper(Reaper::at(dir).tag(42)).expect("a cgroup"));
        loop {
            reactor.turn(None)?;
            if let Some(ended) = reactor.drain_completed().next() {
                assert_eq!((ended.tag, ended.result.expect("reaped").outcome), (42, Outcome::Removed));
                return Ok(());
            }
        }
    }
}

struct ThroughC(*mut cgr_reactor);

impl ThroughC {
    fn new() -> ThroughC {
        let mut reactor = null_mut();
        // SAFETY: the place is good.
        assert_eq!(unsafe { cgr_reactor_new(&mut reactor) }, 0);
        ThroughC(reactor)
    }

    fn reap(&mut self, dir: &CStr) {
        let (mut reaper, mut results) = (null_mut(), [null_mut(); 16]);
        // SAFETY: the path and the places are good.
        unsafe {
            assert_eq!(cgr_reaper_new(dir.as_ptr(), &mut reaper), 0);
            assert_eq!(cgr_reaper_tag(reaper, 42), 0);
            assert_eq!(cgr_reactor_spawn(self.0, reaper, null_mut(), null_mut()), 0);
            cgr_reaper_free(reaper);
            loop {
                assert!(cgr_reactor_turn(self.0, CGR_FOREVER) >= 0);
                let count = cgr_reactor_drain(self.0, results.as_mut_ptr(), results.len());
                if count > 0 {
                    assert_eq!(cgr_result_tag(results[0]), 42);
                    assert_eq!(cgr_result_outcome(results[0]), cgr_outcome::CGR_REMOVED as i32);
                    return cgr_result_free(results[0]);
                }
            }
        }
    }
}

impl Drop for ThroughC {
    fn drop(&mut self) {
        cgr_reactor_free(self.0);
    }
}
