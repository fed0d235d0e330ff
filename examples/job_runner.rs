//! Runs jobs, each in a cgroup of its own, and leaves nothing of them behind.
//!
//! A job is over when its main process exits. Processes that it has left running, also after `setsid` or a double
//! fork, are still in the job's cgroup, and are killed. On Ctrl-C or SIGTERM all jobs are reaped: SIGTERM first,
//! SIGKILL after a grace.
//!
//! One thread and one loop: signals, exits of children and the reactor all come through the same poll.
//!
//! ```text
//! cargo run --example job_runner                              # a few jobs that show what it does
//! cargo run --example job_runner -- "sleep 2" "sleep 1000"    # one job for each argument
//! ```

mod common;

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use cgroup_reaper::{Reactor, ReapError, Reaped, Reaper, Signal};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

const REACTOR: Token = Token(0);
const CHILDREN: Token = Token(1);
const STOP: Token = Token(2);

/// How long a job may take to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(2);

struct Job {
    /// Its index, and the tag of its reap.
    number: usize,
    command: String,
    dir: PathBuf,
    main: Child,
    exited: Option<ExitStatus>,
    is_reaping: bool,
    reaped: Option<Result<Reaped, ReapError>>,
    reported: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // This program is also what a job's process runs first, see `start`.
        ["--enter", dir, program, ref args @ ..] => enter(Path::new(dir), program, args),
        // And it is one of the jobs that show what it does.
        ["--leave-orphans"] => leave_orphans(),
        _ => run(args),
    }
}

fn run(mut commands: Vec<String>) -> Result<(), Box<dyn Error>> {
    let Some(mut groups) = common::Groups::new()? else { return Ok(()) };
    if commands.is_empty() {
        let me = std::env::current_exe()?;
        commands = vec!["true".into(), "sleep 0.2".into(), format!("{} --leave-orphans", me.display())];
    }

    let mut reactor = Reactor::new()?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&reactor.as_raw_fd()), REACTOR, Interest::READABLE)?;
    // Not a signalfd: signals must be blocked for that, and jobs would inherit the mask. Before the first
    // job, so that no exit is missed.
    let mut children = signals(&[SIGCHLD])?;
    let mut stop = signals(&[SIGINT, SIGTERM])?;
    poll.registry().register(&mut SourceFd(&children.as_raw_fd()), CHILDREN, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&stop.as_raw_fd()), STOP, Interest::READABLE)?;

    let mut jobs = Vec::new();
    for (number, command) in commands.into_iter().enumerate() {
        let dir = groups.sleepers(&format!("job-{number}"), 0)?;
        jobs.push(start(number, command, dir)?);
    }

    let mut failed = 0;
    let mut events = Events::with_capacity(64);
    while jobs.iter().any(|job| !job.reported) {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                REACTOR => {
                    reactor.turn(Some(Duration::ZERO))?;
                }
                CHILDREN => {
                    // Emptied first: an exit after the check below writes to it again.
                    drain(&mut children)?;
                    for job in jobs.iter_mut().filter(|job| job.exited.is_none()) {
                        job.exited = job.main.try_wait()?;
                        if job.exited.is_some() {
                            job.reap(&mut reactor, Reaper::at(&job.dir))?;
                        }
                    }
                }
                _ => {
                    drain(&mut stop)?;
                    println!("stopping");
                    for job in &mut jobs {
                        job.reap(&mut reactor, Reaper::at(&job.dir).grace(Signal::TERM, GRACE))?;
                    }
                }
            }
        }
        // In the turn, or in the spawn itself.
        for ended in reactor.drain_completed() {
            jobs[ended.tag as usize].reaped = Some(ended.result);
        }
        for job in jobs.iter_mut().filter(|job| !job.reported) {
            failed += usize::from(!report(job));
        }
    }
    if failed > 0 {
        return Err(format!("{failed} jobs were not reaped").into());
    }
    Ok(())
}

/// Starts a job in its cgroup.
///
/// The process moves itself and only then becomes the command, so that nothing the command does happens
/// outside. Moving it from here would be a race with its first fork.
fn start(number: usize, command: String, dir: PathBuf) -> Result<Job, Box<dyn Error>> {
    let main = Command::new(std::env::current_exe()?)
        .arg("--enter")
        .arg(&dir)
        .args(command.split_whitespace())
        .stdin(Stdio::null())
        // Otherwise the terminal sends Ctrl-C to the jobs as well.
        .process_group(0)
        .spawn()?;
    println!("{command}: started as pid {}", main.id());
    Ok(Job { number, command, dir, main, exited: None, is_reaping: false, reaped: None, reported: false })
}

impl Job {
    /// Begins to reap it, unless that has begun.
    fn reap(&mut self, reactor: &mut Reactor, reaper: Reaper) -> Result<(), Box<dyn Error>> {
        if !std::mem::replace(&mut self.is_reaping, true) {
            drop(reactor.spawn_reaper(reaper.tag(self.number as u64))?);
        }
        Ok(())
    }
}

/// In the job's process: moves into the cgroup and becomes the command.
fn enter(dir: &Path, program: &str, args: &[&str]) -> Result<(), Box<dyn Error>> {
    fs::write(dir.join("cgroup.procs"), "0")?;
    Err(Command::new(program).args(args).exec().into())
}

/// Prints how a job ended, once its main process and all others have ended. Returns whether they have.
fn report(job: &mut Job) -> bool {
    let (Some(status), Some(result)) = (job.exited, &job.reaped) else { return true };
    job.reported = true;
    match result {
        Ok(reaped) => {
            println!("{}: {status}; {} in {:?}", job.command, reaped.outcome, reaped.elapsed);
            true
        }
        Err(error) => {
            println!("{}: {status}; not reaped: {error}", job.command);
            false
        }
    }
}

/// A socket that becomes readable on each of the signals.
fn signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for &signal in signals {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

fn drain(socket: &mut UnixStream) -> io::Result<()> {
    loop {
        match socket.read(&mut [0; 64]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A job that ends and leaves processes running.
fn leave_orphans() -> Result<(), Box<dyn Error>> {
    for _ in 0..3 {
        // In a process group of its own, which a signal to the job's process group does not reach.
        let orphan = Command::new("sleep").arg("1000").process_group(0).spawn()?;
        println!("orphan {}", orphan.id());
    }
    Ok(())
}
