//! The program that reaps is itself killed, at any point. At worst a group is left frozen; the next reap of it
//! thaws it and completes.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{KillMethod, Outcome, Reactor, Reaper};
use common::*;

/// Set in the program that embeds the reactor: what it is to reap, `method directory` a line.
const EMBEDDED: &str = "CGROUP_REAPER_TEST_EMBEDDED";

/// The embedding program: prints when it is ready, starts when it is told to, and prints when it has started all.
fn embed(targets: &str) {
    let mut reactor = Reactor::new().expect("reactor");
    let reapers = targets.lines().map(|line| {
        let (method, dir) = line.split_once(' ').expect("method directory");
        let reaper = Reaper::at(dir).method(method.parse().expect("a method"));
        reaper.max_wait(Duration::from_millis(20)).freeze_timeout(Duration::from_secs(3600))
    });
    let reapers: Vec<Reaper> = reapers.collect();
    say("ready");
    std::io::stdin().read_line(&mut String::new()).expect("stdin");
    let handles: Vec<_> =
        reapers.into_iter().map(|reaper| reactor.spawn_reaper(reaper).expect("spawn")).collect();
    say("begun");
    reactor.run_until_idle().expect("run");
    drop(handles);
    // The kill would come too late.
    say("done");
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn say(word: &str) {
    println!("\n{word}");
    std::io::stdout().flush().expect("stdout");
}

/// The program that embeds it, killed when dropped.
struct Embedder {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Embedder {
    fn start(test: &str, targets: &[(KillMethod, PathBuf)]) -> Embedder {
        let lines: Vec<String> =
            targets.iter().map(|(method, dir)| format!("{method} {}", dir.display())).collect();
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"])
            .env(EMBEDDED, lines.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut embedder = Embedder { child, lines };
        embedder.hears("ready");
        embedder
    }

    fn hears(&mut self, word: &str) {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            assert!(self.lines.read_line(&mut line).expect("stdout") > 0, "ended before {word:?}");
        }
    }

    /// Kills it, which has to come in time.
    fn kill(mut self) {
        self.child.kill().expect("kill");
        let status = self.child.wait().expect("wait");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "ended by itself: {status}");
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("stdin");
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn frozen(dir: &Path) -> bool {
    let says = |file, text| fs::read_to_string(dir.join(file)).is_ok_and(|state| state.trim() == text);
    says("cgroup.freeze", "1") || says("freezer.state", "FROZEN") || says("freezer.state", "FREEZING")
}

/// All that can be reaped here, with the methods that fit.
fn kinds() -> Vec<(Layout, KillMethod)> {
    let mut kinds = Vec::new();
    for layout in [Layout::V2, Layout::Freezer, Layout::Cpu] {
        if layout.need().is_ok() {
            kinds.extend([(layout, KillMethod::Auto), (layout, KillMethod::Pidfd)]);
            if layout != Layout::Cpu {
                // What may be left frozen, oftener than the others.
                kinds.extend([(layout, KillMethod::Freezer); 3]);
            }
            if layout == Layout::V2 && cgroup_kill().is_ok() {
                kinds.push((layout, KillMethod::CgroupKill));
            }
        }
    }
    kinds
}

#[test]
fn killed_at_random_points() {
    if let Ok(targets) = std::env::var(EMBEDDED) {
        return embed(&targets);
    }
    const ROUNDS: usize = 40;
    require!(any_hierarchy(), namespaces());
    isolated(test_name!(), || {
        let mut dice = Dice::seeded();
        let world = World::new(test_name!(), any_layout());
        let sandbox = &world.sandbox;
        let (mut alive_after, mut frozen_after, mut gone_after) = (0, 0, 0);
        // How long all of it takes, as the first run tells.
        let mut whole = None;
        for round in 0..ROUNDS {
            let mut targets = Vec::new();
            let mut members = Vec::new();
            for (nth, (layout, method)) in kinds().into_iter().enumerate() {
                let name = format!("target-{round}-{nth}");
                let dir = make(sandbox, layout, &name).remove(0);
                let child = make(sandbox, layout, &format!("{name}/child")).remove(0);
                members.extend(sandbox.sleepers(1 + dice.below(6) as usize, &[&dir]).0);
                members.push(match dice.below(4) {
                    0 => sandbox.stopped(&[&child]),
                    1 => sandbox.churn(LIMIT, &[&child]),
                    2 => sandbox.vfork(&[&child]).0.remove(0),
                    _ => sandbox.sleeper(&[&child]),
                });
                targets.push((method, dir));
            }
            let mut embedder = Embedder::start(test_name!(), &targets);
            embedder.go();
            match whole {
                None => {
                    let begun = Instant::now();
                    embedder.hears("done");
                    whole = Some(begun.elapsed());
                }
                Some(whole) => thread::sleep(whole.mul_f64(dice.below(1000) as f64 / 1000.0)),
            }
            embedder.kill();
            alive_after += members.iter().filter(|member| member.alive()).count();
            frozen_after += targets.iter().filter(|(_, dir)| frozen(dir)).count();
            gone_after += targets.iter().filter(|(_, dir)| !dir.exists()).count();
            world.canary.assert_alive();
            for (method, dir) in &targets {
                let method = if dice.chance(50) { KillMethod::Auto } else { *method };
                let reaped = reaped(Reaper::at(dir).method(method));
                assert!(matches!(reaped.outcome, Outcome::Removed | Outcome::AlreadyGone), "{reaped:?}");
                assert!(!dir.exists());
            }
            assert!(members.iter().all(|member| member.ended(TIMEOUT)));
            world.canary.assert_alive();
        }
        assert!(alive_after > 0, "never killed in mid-run");
        println!("after the kills: {alive_after} alive, {frozen_after} groups frozen, {gone_after} gone");
    });
}

/// In the middle of a freeze for certain: one that does not complete.
fn killed_in_mid_freeze(world: &World) {
    let hung = HungFilesystem::new();
    let (dirs, reaper) = world.target();
    let stuck = world.sandbox.uninterruptible(&hung, &refs(&dirs));
    let others = world.sandbox.sleepers(3, &refs(&dirs));
    let test = match world.layout {
        Layout::V2 => "killed_in_mid_freeze::v2",
        _ => "killed_in_mid_freeze::freezer",
    };
    let mut embedder = Embedder::start(test, &[(KillMethod::Freezer, dirs[0].clone())]);
    embedder.go();
    embedder.hears("begun");
    embedder.kill();
    assert!(world.frozen("target"), "not in mid-freeze");
    assert_eq!(others.living(), 3);
    drop(hung);
    assert_eq!(reaped(reaper).outcome, Outcome::Removed);
    assert_gone(&dirs);
    assert!(stuck.ended(TIMEOUT) && others.ended(TIMEOUT));
}

mod killed_in_mid_freeze {
    use super::*;

    fn run(name: &str, layout: Layout) {
        if let Ok(targets) = std::env::var(EMBEDDED) {
            return embed(&targets);
        }
        isolated(name, || {
            let world = World::new(name, layout);
            super::killed_in_mid_freeze(&world);
            world.canary.assert_alive();
        });
    }

    #[test]
    fn v2() {
        require!(Layout::V2.need(), namespaces(), fuse());
        run(test_name!(), Layout::V2);
    }

    #[test]
    fn freezer() {
        require!(Layout::Freezer.need(), namespaces(), fuse());
        run(test_name!(), Layout::Freezer);
    }
}
