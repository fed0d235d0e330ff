//! The command line of `cgreap run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cgroup_reaper::Signal;
use clap::{ArgAction, Args, ValueHint};

use super::parse_grace;
use crate::duration;

pub const EXAMPLES: &str = "\
Examples:
  cgreap run -- ./build.sh
      Runs it. When it has ended, what it started and left behind is killed, daemons included.
  cgreap run --timeout 10m --set pids.max=500 --set memory.max=2G -- make test
      With limits. After 10 minutes SIGTERM goes to all of its processes, and SIGKILL 2 s later.
  systemd-run --user --scope -p Delegate=yes cgreap run -- ./build.sh
      Without root, where systemd runs: the scope is a cgroup in which the user may make others.
  cgreap run --report result.json -- ./build.sh
      How it ended, what it left behind, and what it used, as one JSON object.

Exit status:
  that of COMMAND, or
  124    --timeout ended it, and no signal told cgreap to end meanwhile
  125    cgreap failed, wrong usage included, or a process that is left does not exit (--deadline)
  126    COMMAND cannot be executed
  127    COMMAND was not found
  128+n  COMMAND died of signal n, or cgreap was told to end by signal n. cgreap dies of this signal
         itself, for which shells give 128+n

Signals:
  Ctrl-C and Ctrl-\\ of the terminal are for COMMAND, which gets them too; cgreap waits. If COMMAND has left
  the process group of cgreap, as timeout(1) and setsid(1) do, it does not get them: they end it as --timeout
  does. Once COMMAND has ended, or is being ended, Ctrl-C kills what is left at once; during --linger it ends
  what is left as --timeout does. SIGTERM, SIGHUP, and SIGINT and SIGQUIT sent by kill(1) end COMMAND as
  --timeout does; the second kills at once. Ctrl-Z stops cgreap with COMMAND, if there is a shell that can
  continue them.

  cgreap ignores a signal that the main process of COMMAND sends to its process group, as with kill 0. SIGUSR1
  and SIGUSR2 are passed on to COMMAND once it is executed.

Limits:
  A process with the right to move into another cgroup (root) can leave. A second process guards against a
  SIGKILL of cgreap; if both are killed, COMMAND lives on, and its cgroup is left, also when it is empty. If
  cgreap is the init of a pid namespace, a SIGKILL ends the namespace with COMMAND, and leaves the empty
  cgroup. cgreap sweep --empty removes such cgroups.

  A COMMAND that runs as the same user can stop cgreap by SIGSTOP. On a terminal, one that suspends itself
  (suspend of a shell, ~^Z of ssh) stops cgreap and the rest of the job, so that the shell goes on. --timeout
  and the second process do not act then, until cgreap is continued, by fg or SIGCONT to it.

  On v2 since Linux 5.7, a run within a run is refused with --set for a controller that the cgroup of the outer
  run does not give to those below it. Give the limit to the outer run, or name another place with --parent:
  what runs there lives on if the end of the outer run kills the inner cgreap, since that kills its second
  process too.";

pub const LONG_HELP: &str = "\
Report:
  With --report, the JSON object has

  command     COMMAND and its arguments
  status      exit status of cgreap
  outcome     \"exited\", \"signalled\" (COMMAND died of a signal), \"timed-out\", \"told-to-end\" (by a signal to
              cgreap) or \"failed\" (125, or COMMAND was not executed)
  exit_code, signal
              of COMMAND, the other one null; both null if it was not executed or did not end
  started     when COMMAND was started, UTC
  elapsed_us  microseconds from there to the end of the last process
  group       the cgroup of COMMAND
  left        what COMMAND left behind: objects with pid, command, state
  left_count  their number, and that of processes which have no pid here
  effort      what was done to end them: method, signalled, attempts, released, elapsed_us
  error       null, or why something is left, or COMMAND was not executed
  cpu         the numbers of cpu.stat
  memory_peak, pids_peak, oom_kill
              from memory.peak, pids.peak and memory.events (v1: memory.max_usage_in_bytes,
              memory.oom_control), null where the group has no such file

  If cgreap fails before COMMAND is started, the object has command, status, outcome and error only.";

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Make the cgroup of COMMAND in this directory [default: the cgroup that cgreap is in]
    ///
    /// If no mount shows that cgroup, root makes it in the root of the hierarchy.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Cgroup")]
    pub parent: Option<PathBuf>,

    /// Name of the cgroup, which must not exist yet [default: one that no other has]
    #[arg(long, value_hint = ValueHint::Other, value_parser = parse_name, help_heading = "Cgroup")]
    pub name: Option<String>,

    /// Write VALUE to the interface file FILE of the cgroup before the start, such as pids.max=500; repeatable
    ///
    /// If a v1 hierarchy has the controller, a cgroup is made there as well. On v2 the cgroup is made below the
    /// nearest ancestor whose cgroup.subtree_control has the controller, but not outside of another cgreap run.
    /// cgreap does not change that file.
    #[arg(
        long,
        value_name = "FILE=VALUE",
        value_hint = ValueHint::Other,
        action = ArgAction::Append,
        value_parser = parse_setting,
        help_heading = "Cgroup"
    )]
    pub set: Vec<Setting>,

    /// End COMMAND after this long: the signal of --grace to all of its processes, then SIGKILL
    #[arg(
        long,
        value_name = "TIME",
        value_hint = ValueHint::Other,
        value_parser = duration::parse,
        help_heading = "Time"
    )]
    pub timeout: Option<Duration>,

    /// Signal to send first to processes that are to be ended, and the time until SIGKILL
    #[arg(
        long,
        value_name = "SIGNAL=TIME",
        value_hint = ValueHint::Other,
        default_value = "TERM=2s",
        value_parser = parse_grace,
        help_heading = "Time"
    )]
    pub grace: (Signal, Duration),

    /// How long processes that COMMAND left behind may take to end by themselves [default: 0s]
    #[arg(
        long,
        value_name = "TIME",
        value_hint = ValueHint::Other,
        value_parser = duration::parse,
        help_heading = "Time"
    )]
    pub linger: Option<Duration>,

    /// Give up on processes that have not exited this long after the grace, and exit with 125
    #[arg(
        long,
        value_name = "TIME",
        value_hint = ValueHint::Other,
        default_value = "30s",
        value_parser = duration::parse,
        help_heading = "Time"
    )]
    pub deadline: Duration,

    /// Start no second process that kills COMMAND should cgreap itself be killed by SIGKILL
    #[arg(long)]
    pub no_guard: bool,

    /// Write a JSON object about the run to this file at the end; -: to stderr. --help describes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub report: Option<PathBuf>,

    /// Do not say what COMMAND left behind
    #[arg(short, long)]
    pub quiet: bool,

    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        value_hint = ValueHint::CommandWithArguments
    )]
    pub command: Vec<OsString>,
}

/// What `--set` writes, and to which interface file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub file: String,
    pub value: String,
}

impl Setting {
    /// The controller whose file it is; `None` for files that every cgroup has.
    pub fn controller(&self) -> Option<&str> {
        self.file.split('.').next().filter(|&name| name != "cgroup")
    }
}

fn parse_setting(text: &str) -> Result<Setting, String> {
    let Some((file, value)) = text.split_once('=') else {
        return Err("expected an interface file and a value, such as pids.max=500".to_owned());
    };
    let is_file =
        file.split_once('.').is_some_and(|(controller, rest)| !controller.is_empty() && !rest.is_empty());
    if !is_file || file.contains('/') {
        return Err(format!("`{file}` is no interface file such as pids.max"));
    }
    if value.is_empty() {
        return Err(format!("a value for {file} is missing"));
    }
    if matches!(file, "cgroup.procs" | "cgroup.threads" | "cgroup.kill") {
        return Err(format!("{file} takes processes, not settings"));
    }
    Ok(Setting { file: file.to_owned(), value: value.to_owned() })
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') || matches!(text, "." | "..") {
        return Err("expected the name of a directory, without slashes".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<RunArgs, String> {
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        match cli.command {
            Some(Command::Run(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_is_taken_as_it_is() {
        for (line, command) in [
            ("cgreap run -- ls -l", "ls -l"),
            ("cgreap run ls -l", "ls -l"),
            ("cgreap run -q ls -q -- --help", "ls -q -- --help"),
            ("cgreap run -- ls -- -x", "ls -- -x"),
            ("cgreap run -- -x --y", "-x --y"),
            ("cgreap run -- cgreap run -- true", "cgreap run -- true"),
            ("cgreap run --timeout 5s -- timeout 5 -v", "timeout 5 -v"),
        ] {
            let args = parse(line).unwrap();
            assert_eq!(args.command, command.split(' ').collect::<Vec<_>>(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "cgreap run",
            "cgreap run --",
            "cgreap run --tiemout 5s -- true",
            "cgreap run --timeout 5 -- true",
            "cgreap run --name a/b -- true",
            "cgreap run --name .. -- true",
            "cgreap run --set pids.max -- true",
            "cgreap run --set max=5 -- true",
            "cgreap run --set ../pids.max=5 -- true",
            "cgreap run --set cgroup.procs=1 -- true",
            "cgreap run --set .max=5 -- true",
            "cgreap run --set pids.max= -- true",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn settings_have_a_controller() {
        let setting = |text| parse_setting(text).unwrap();
        assert_eq!(setting("pids.max=500").controller(), Some("pids"));
        assert_eq!(setting("memory.limit_in_bytes=2G=").value, "2G=");
        assert_eq!(setting("cgroup.max.depth=3").controller(), None);
        assert_eq!(setting("io.max=8:0 rbps=1").value, "8:0 rbps=1");
    }

    #[test]
    fn times_have_defaults() {
        let args = parse("cgreap run true").unwrap();
        assert_eq!(args.grace, (Signal::TERM, Duration::from_secs(2)));
        assert_eq!(args.deadline, Duration::from_secs(30));
        assert_eq!((args.timeout, args.linger), (None, None));
    }
}
