//! What is left alive by commands that hide processes, under `timeout`, `setsid` with a kill of the process group,
//! `systemd-run --scope` and `cgreap run`; and what each costs for a command that hides nothing. Prints two tables.
//!
//! ```sh
//! cargo run --release -p cgreap --example compare -- [ROUNDS]
//! ```
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
/// What exits by itself has this long.
const SETTLE: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(200), |rounds| rounds.parse())?;
    // Beside target/PROFILE/examples/compare.
    let program = std::env::current_exe()?.ancestors().nth(2).ok_or("no directory")?.join("cgreap");
    let mount = v2_mount()?;
    let group = mount.join(format!("cgroup-reaper-compare-{}", std::process::id()));
    left_alive(&program, &group)?;
    costs(&program, rounds)
}

fn v2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).ok_or("cgroup v2 is not mounted")?;
    Ok(line.split(' ').nth(4).ok_or("a strange mount")?.into())
}

/// Runs a command to its end.
type Runner = fn(&Path, &Path, &Hostile) -> Result<()>;

fn left_alive(program: &Path, group: &Path) -> Result<()> {
    let mut runners: Vec<(&str, Runner)> =
        vec![("timeout -k 1 5", timeout), ("setsid, kill -KILL -PGID", setsid)];
    if Path::new("/run/systemd/system").exists() {
        runners.push(("systemd-run --scope", scope));
    }
    runners.push(("cgreap run", cgreap));
    let names: Vec<_> = runners.iter().map(|(name, _)| format!("`{name}`")).collect();
    println!("| left alive by | {} |\n|---|{}", names.join(" | "), "---:|".repeat(runners.len()));
    let mut sums = vec![0; runners.len()];
    let until = uptime_ms()? + 300_000;
    let count = hostile::dozen(program, group, true, (&[], ""), until).len();
    for index in 0..count {
        let mut cells = Vec::new();
        for ((name, run), sum) in runners.iter().zip(&mut sums) {
            // `cgreap run` makes a cgroup below.
            let own = if *name == "cgreap run" { group.join("run") } else { group.to_path_buf() };
            let storm: (&[&str], _) = (&[], "--descendants 40");
            let hostile = hostile::dozen(program, &own, true, storm, until).swap_remove(index);
            fs::create_dir(group)?;
            let ran = run(program, group, &hostile);
            thread::sleep(SETTLE);
            let left = processes(group);
            *sum += left;
            cells.push(left.to_string());
            reap(Reaper::at(group))?;
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

fn timeout(_: &Path, group: &Path, hostile: &Hostile) -> Result<()> {
    command(&["timeout", "-k", "1", "5"], &joining(group, &hostile.script)?).status()?;
    Ok(())
}

/// What scripts do: a session of its own, and SIGKILL to its process group in the end.
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

fn scope(_: &Path, group: &Path, hostile: &Hostile) -> Result<()> {
    let words = ["timeout", "-k", "1", "5", "systemd-run", "--scope", "-q"];
    command(&words, &joining(group, &hostile.script)?).status()?;
    Ok(())
}

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
fn costs(program: &Path, rounds: usize) -> Result<()> {
    let program = program.to_str().ok_or("not UTF-8")?;
    let commands: [(&str, &[&str]); 4] = [
        ("true", &["true"]),
        ("timeout 5 true", &["timeout", "5", "true"]),
        ("cgreap run --no-guard -- true", &[program, "run", "--no-guard", "--", "true"]),
        ("cgreap run -- true", &[program, "run", "--", "true"]),
    ];
    let mut times = vec![Vec::with_capacity(rounds); commands.len()];
    for _ in 0..rounds {
        for ((_, words), times) in commands.iter().zip(&mut times) {
            let since = Instant::now();
            Command::new(words[0]).args(&words[1..]).process_group(0).status()?;
            times.push(since.elapsed());
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
