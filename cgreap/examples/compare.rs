//! What is left alive by commands that hide processes, under `timeout`, `setsid` with a kill of the process group,
//! `systemd-run --scope` where systemd runs, and `cgreap run`; and what each costs for a command that hides nothing. Prints two
//! tables.
//!
//! ```sh
//! cargo run --release -p cgreap --example compare -- [ROUNDS [SETTLE]]
//! ```
//!
//! ROUNDS is how often each is timed, 200 unless given, and none for 0. SETTLE is how many milliseconds after the end the
//! processes are counted, 500 unless given: what exits by itself has this long.
//!
//! Needs root and cgroup v2. Everything is started in a cgroup of its own, and reaped in the end.

#[path = "../tests/run/hostile.rs"]
mod hostile;

use std::error::Error;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{Reaper, reap};
use hostile::Hostile;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// After this long a command is ended.
const LIMIT: Duration = Duration::from_secs(5);
/// The status of `timeout`, and of `cgreap run`, for one that was.
const TIMED_OUT: i32 = 124;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(200), |rounds| rounds.parse())?;
    let settle = std::env::args().nth(2).map_or(Ok(500), |settle| settle.parse())?;
    // Beside target/PROFILE/examples/compare.
    let program = std::env::current_exe()?.ancestors().nth(2).ok_or("no directory")?.join("cgreap");
    let has_systemd = Path::new("/run/systemd/system").exists();
    if !has_systemd {
        eprintln!("SKIP systemd-run: systemd does not run here");
    }
    left_alive(&program, &v2_mount()?, has_systemd, Duration::from_millis(settle))?;
    if rounds > 0 {
        costs(&program, rounds, has_systemd)?;
    }
    Ok(())
}

fn v2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).ok_or("cgroup v2 is not mounted")?;
    Ok(line.split(' ').nth(4).ok_or("a strange mount")?.into())
}

/// A way to run a command to its end.
#[derive(Clone, Copy)]
struct Runner {
    name: &'static str,
    /// The program, the cgroup in which the command is counted, and the command.
    run: fn(&Path, &Path, &Hostile) -> Result<()>,
    cgroup: Cgroup,
}

/// What makes the cgroup of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cgroup {
    /// This program. The command joins it.
    Made,
    /// `cgreap run` makes one in it.
    Parent,
    /// systemd.
    Scope,
}

const RUNNERS: [Runner; 4] = [
    Runner { name: "timeout -k 1 5", run: timeout, cgroup: Cgroup::Made },
    Runner { name: "setsid, kill -KILL -PGID", run: setsid, cgroup: Cgroup::Made },
    Runner { name: "timeout -k 1 5 systemd-run --scope", run: scope, cgroup: Cgroup::Scope },
    Runner { name: "cgreap run", run: cgreap, cgroup: Cgroup::Parent },
];

fn left_alive(program: &Path, mount: &Path, has_systemd: bool, settle: Duration) -> Result<()> {
    let runners = RUNNERS.iter().filter(|runner| has_systemd || runner.cgroup != Cgroup::Scope);
    let runners: Vec<_> = runners.collect();
    let names: Vec<_> = runners.iter().map(|runner| format!("`{}`", runner.name)).collect();
    println!("| left alive by | {} |\n|---|{}", names.join(" | "), "---:|".repeat(runners.len()));
    let mut sums = vec![0; runners.len()];
    let until = uptime_ms()? + 600_000;
    let storm: (&[&str], _) = (&[], "--descendants 40");
    let count = hostile::dozen(program, mount, true, storm, until).len();
    for index in 0..count {
        let mut cells = Vec::new();
        for (runner, sum) in runners.iter().zip(&mut sums) {
            let name = format!("cgroup-reaper-compare-{}-{index}-{}", std::process::id(), cells.len());
            // `counted` is where the processes are counted, `own` where the command is.
            let (counted, own) = match runner.cgroup {
                Cgroup::Made => (mount.join(&name), mount.join(&name)),
                Cgroup::Parent => (mount.join(&name), mount.join(&name).join("run")),
                Cgroup::Scope => {
                    let scope = mount.join("system.slice").join(format!("{name}.scope"));
                    (scope.clone(), scope)
                }
            };
            let hostile = hostile::dozen(program, &own, true, storm, until).swap_remove(index);
            if runner.cgroup != Cgroup::Scope {
                fs::create_dir(&counted)?;
            }
            let ran = (runner.run)(program, &counted, &hostile);
            thread::sleep(settle);
            let left = processes(&counted);
            *sum += left;
            cells.push(left.to_string());
            // systemd may have removed it.
            if counted.exists() {
                reap(Reaper::at(&counted))?;
            }
            ran?;
            if cells.len() == runners.len() {
                println!("| {} | {} |", hostile.name, cells.join(" | "));
            }
        }
    }
    let sums: Vec<_> = sums.iter().map(|sum| format!("**{sum}**")).collect();
    println!("| all | {} |\n", sums.join(" | "));
    Ok(())
}

/// The number of processes in a cgroup and below it.
fn processes(group: &Path) -> usize {
    let own = fs::read_to_string(group.join("cgroup.procs")).map_or(0, |procs| procs.lines().count());
    let below = fs::read_dir(group).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    own + below
        .iter()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| processes(&entry.path()))
        .sum::<usize>()
}

/// The command as words. It joins the group by itself, so that what watches over it is outside.
fn joining<'a>(group: &'a Path, script: &'a str) -> Result<Vec<&'a str>> {
    let join = "echo 0 > \"$0/cgroup.procs\" && exec sh -c \"$1\"";
    Ok(vec!["sh", "-c", join, group.to_str().ok_or("not UTF-8")?, script])
}

fn command(words: &[&str], rest: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(rest);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `timeout -k 1 5 COMMAND`
fn timeout(_: &Path, group: &Path, hostile: &Hostile) -> Result<()> {
    command(&["timeout", "-k", "1", "5"], &joining(group, &hostile.script)?).status()?;
    Ok(())
}

/// `setsid COMMAND`, and `kill -KILL -PGID` in the end or after 5 seconds.
fn setsid(_: &Path, group: &Path, hostile: &Hostile) -> Result<()> {
    // setsid(1) does not fork, since it leads no process group yet.
    let mut child = command(&["setsid"], &joining(group, &hostile.script)?).spawn()?;
    let process_group = Pid::from_raw(i32::try_from(child.id())?);
    wait_for(&mut child)?;
    // Nothing may be left.
    let _ = killpg(process_group, Signal::SIGKILL);
    child.wait()?;
    Ok(())
}

fn wait_for(child: &mut Child) -> Result<()> {
    let end = Instant::now() + LIMIT;
    // It is not waited for, so that its number stays its own.
    let stat = format!("/proc/{}/stat", child.id());
    while Instant::now() < end && !fs::read_to_string(&stat)?.contains(") Z ") {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// `timeout -k 1 5 systemd-run --scope -q --collect COMMAND`
fn scope(_: &Path, scope: &Path, hostile: &Hostile) -> Result<()> {
    let name = scope.file_name().and_then(|name| name.to_str()).ok_or("not UTF-8")?;
    // It is in the cgroup of the scope from the start.
    let words =
        ["timeout", "-k", "1", "5", "systemd-run", "--scope", "-q", "--collect", "--unit", name, "--"];
    let ended = command(&words, &["sh", "-c", &hostile.script]).status()?;
    // The status of one that ends by itself.
    if hostile.status == TIMED_OUT || ended.code() == Some(hostile.status) {
        Ok(())
    } else {
        Err(format!("systemd-run, {}: {ended}", hostile.name).into())
    }
}

/// `cgreap run -q --timeout 5s COMMAND`
fn cgreap(program: &Path, group: &Path, hostile: &Hostile) -> Result<()> {
    let (program, parent) = (program.to_str().ok_or("not UTF-8")?, group.to_str().ok_or("not UTF-8")?);
    let words = [program, "run", "-q", "--timeout", "5s", "--name", "run", "--parent", parent, "--"];
    let ended = command(&words, &["sh", "-c", &hostile.script]).status()?;
    if ended.code() == Some(hostile.status) {
        Ok(())
    } else {
        Err(format!("{}: {ended}", hostile.name).into())
    }
}

fn uptime_ms() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok((text.split(' ').next().ok_or("no uptime")?.parse::<f64>()? * 1e3) as u64)
}

/// Whole processes, one after another in turn, so that what else the machine does hits all of them alike.
fn costs(program: &Path, rounds: usize, has_systemd: bool) -> Result<()> {
    let program = program.to_str().ok_or("not UTF-8")?;
    let mut commands = vec![
        ("true", vec!["true"]),
        ("timeout 5 true", vec!["timeout", "5", "true"]),
        ("cgreap run --no-guard -- true", vec![program, "run", "--no-guard", "--", "true"]),
        ("cgreap run -- true", vec![program, "run", "--", "true"]),
    ];
    if has_systemd {
        commands.push(("systemd-run --scope -q true", vec!["systemd-run", "--scope", "-q", "true"]));
    }
    let mut times = vec![Vec::with_capacity(rounds); commands.len()];
    for _ in 0..rounds {
        for ((_, words), times) in commands.iter().zip(&mut times) {
            let since = Instant::now();
            let status = Command::new(words[0]).args(&words[1..]).process_group(0).status()?;
            times.push(since.elapsed());
            if !status.success() {
                return Err(format!("{}: {status}", words.join(" ")).into());
            }
        }
    }
    println!("| {rounds} in turn | least, ms | median, ms |\n|---|---:|---:|");
    for ((name, _), times) in commands.iter().zip(&mut times) {
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("| `{name}` | {:.1} | {:.1} |", ms(times[0]), ms(times[times.len() / 2]));
    }
    Ok(())
}
