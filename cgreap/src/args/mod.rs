//! The command line.

mod run;
mod sweep;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cgroup_reaper::{CgroupOptions, KillMethod, Reaper, Signal};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

use crate::duration;
use crate::status::RUN_FAILED;
use crate::target::{Place, Target};

pub use run::{RunArgs, Setting};
pub use sweep::SweepArgs;

const DEFAULT_ROOT: &str = "/sys/fs/cgroup";
/// The library's defaults, needed here to compare the two waits.
const DEFAULT_MIN_WAIT: Duration = Duration::from_millis(10);
const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(10);

/// The texts after the options are in sections, each with its items two columns to the right. Man pages are made of
/// them: see `generate::help_text`.
const EXAMPLES: &str = "\
Examples:
  cgreap /sys/fs/cgroup/batch/job-17
      Kill everything in one cgroup and below it, wait until it is empty, remove it.
  cgreap --deadline 30s /sys/fs/cgroup/batch/*/
      All of them at once. Those that still have processes after 30 s are named, with these processes.
  cgreap --grace TERM=5s --keep-dir /sys/fs/cgroup/web
      SIGTERM first, SIGKILL 5 s later to the processes that are left; leave the empty directory.
  cgreap --slice batch job-17 job-18
      cgroup v2: /sys/fs/cgroup/batch/{job-17,job-18}.
  cgreap --subsystem freezer,cpu,memory --slice batch job-17 job-18
      cgroup v1: /sys/fs/cgroup/{freezer,cpu,memory}/batch/{job-17,job-18}.
  find /sys/fs/cgroup/batch -mindepth 1 -maxdepth 1 -name 'job-*' -print0 | cgreap -
      Those that another program finds.
  cgreap run -- ./build.sh
      Run a program, and leave nothing of what it started; see cgreap run --help.
  cgreap demo
      Make cgroups full of processes that are hard to kill, and reap them.
  cgreap ./demo
      The directory called demo.

Exit status:
  0    every target was reaped, or was gone already
  1    at least one target was not reaped: its deadline passed, the kernel denied it, it was replaced,
       with --must-exist it does not exist, ...
  2    wrong usage, or a target that is refused: the root of a hierarchy, the caller's own cgroup or one
       above it, not a cgroup, `..` in its path, ... Refused targets are not changed; the others are
       reaped. Also a list on standard input that is not complete; then nothing is reaped
  129, 130, 143
       died of SIGHUP, SIGINT, SIGTERM: unfinished reaps were cancelled, and what they froze is thawed.
       A first Ctrl-C lets targets go on that are in the time of --linger or --grace; a second one kills
       what is in them now; a third one cancels them too

Output:
  One line for each target: on stdout if it was reaped, on stderr if not.";

const LONG_HELP: &str = "\
Standard input:
  In the place of `-` come the names on standard input, which is read to its end before anything is reaped.
  If there is a NUL in it, each name ends with NUL (find -print0), otherwise with newline, and empty lines
  are ignored. A last name without that end is an error, as it may be the beginning of a longer one; a list
  without names is none. `./-` is the directory called `-`.

  Whether the program that writes the list has failed cannot be seen in it. Where that matters, write it to
  a file first: find ... -print0 > list && cgreap - < list

JSON:
  With --json, stdout has one line with a JSON object for each target, in the order in which they end;
  stderr has nothing about single targets. Fields that do not apply are absent.

  index       position of the target among those given, from 0; those on standard input count
  path        DIR or NAME as given (bytes that are not UTF-8 are replaced)
  root, slice, subsystems
              where the name was looked up; only for targets by name
  outcome     \"removed\", \"emptied\" (--keep-dir, a unit of systemd) or \"already-gone\"; absent if
              there is an error
  method      how it was killed: \"cgroup.kill\", \"pidfd\", \"freezer\", \"unverified kill\", or null where
              nothing had to be killed
  signalled   number of processes signalled one by one (cgroup.kill does not tell how many it killed)
  attempts    number of attempts to kill
  released    number of processes whose memory was released before they exited (--release-memory)
  elapsed_us  microseconds from the start of this target to its end
  error       instead of outcome: an object that always has kind and message
    kind      \"timed-out\", \"replaced\", \"denied\", \"frozen-by-ancestor\", \"cancelled\",
              \"disconnected\", \"refused\" (exit status 2), \"missing\" (--must-exist), \"io\" or \"reactor\"
    message   the reason in words
    path      the directory of the target, the first if there are several
    act       what could not be done: \"check\", \"kill\", \"freeze\", \"thaw\", \"remove\"
    at        the file, directory or process (/proc/PID) that this is about
    cause     the kernel's answer in words
    errno     and as a number
    frozen_by
              for \"frozen-by-ancestor\": the cgroup whose freeze holds the target
    in_the_way
              for \"timed-out\": what keeps the directory from being removed
    survivors
              for \"timed-out\": objects with pid, command, state, wait_channel, frozen_by, kernel_thread

Environment:
  RUST_LOG    what is logged to stderr without -v, such as cgroup_reaper=debug; warnings if it is not set.
              For cgreap run it is the command's";

const DEMO_HELP: &str = "\
Exit status:
  0    all were reaped, and nothing is left
  1    not all were, or it may not make cgroups
  129, 130, 143
       died of SIGHUP, SIGINT, SIGTERM";

/// Kill everything in cgroups, wait until they are empty, remove them.
///
/// Any number of cgroups at once, v1 and v2, each with all cgroups below it. A DIR that does not exist
/// counts as reaped.
#[derive(Debug, Parser)]
#[command(
    name = "cgreap",
    version,
    verbatim_doc_comment,
    override_usage = "cgreap [OPTIONS] DIR...\n       \
                      cgreap [OPTIONS] --slice SLICE [--root ROOT] [--subsystem SUBSYSTEM,...] NAME...\n       \
                      cgreap run [OPTIONS] -- COMMAND [ARG]...\n       \
                      cgreap sweep [OPTIONS] DIR\n       \
                      cgreap demo",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{LONG_HELP}"),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub reap: ReapArgs,

    /// Log to stderr what is done; more with -vv and -vvv
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a cgroup of its own, and leave no process of it
    ///
    /// COMMAND is started in a fresh cgroup. When it has ended, all processes that it left behind are killed,
    /// however they were started: daemons, sessions of their own, processes without a parent. The exit status is
    /// that of COMMAND. Its input, output, terminal, environment, session and process group are those of cgreap.
    ///
    /// This needs the right to make cgroups: root, or a delegated subtree.
    #[command(
        verbatim_doc_comment,
        override_usage = "cgreap run [OPTIONS] -- COMMAND [ARG]...",
        after_help = run::EXAMPLES,
        after_long_help = format!("{}\n\n{}", run::EXAMPLES, run::LONG_HELP),
    )]
    Run(RunArgs),

    /// List the cgroups in a directory that were left behind, remove those that are empty, or reap all
    ///
    /// Without --empty and --kill it lists them, and changes nothing.
    #[command(verbatim_doc_comment, override_usage = "cgreap sweep [OPTIONS] DIR", after_help = sweep::EXAMPLES)]
    Sweep(SweepArgs),

    /// Make cgroups with processes that sleep, are stopped or frozen, ignore SIGTERM or fork, and reap them
    ///
    /// The cgroups are made in a directory cgroup-reaper-demo-PID of each hierarchy that the machine has
    /// (v2, v1 freezer and pids). Nothing else is changed. This needs the right to make cgroups: root, or a
    /// delegated subtree, such as in `systemd-run --user --scope -p Delegate=yes cgreap demo`.
    #[command(verbatim_doc_comment, override_usage = "cgreap demo", after_help = DEMO_HELP)]
    Demo,

    /// Write the completions for shells and the man pages to a directory
    #[command(name = "__generate", hide = true)]
    Generate(GenerateArgs),

    /// Write the completions for a shell to stdout
    #[command(name = "__completions", hide = true)]
    Completions(CompletionsArgs),

    /// A process of the demo
    #[command(name = "__demo-process", hide = true)]
    DemoProcess(DemoProcessArgs),

    /// Removes what a demo has made when the demo has ended
    #[command(name = "__demo-cleaner", hide = true)]
    DemoCleaner(DemoCleanerArgs),
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DemoProcessArgs {
    /// What it does.
    #[arg(value_enum)]
    pub behaviour: Behaviour,

    /// When it ends by itself at the latest, with all descendants, in milliseconds since boot.
    #[arg(long)]
    pub until: u64,

    /// Cgroups that it moves into first.
    #[arg(long = "group", value_name = "DIR")]
    pub groups: Vec<PathBuf>,

    /// For `fork-storm`: how many descendants it may have in all. Without it the kernel has to set the bound.
    #[arg(long)]
    pub descendants: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Behaviour {
    /// Sleeps.
    Sleep,
    /// Stops itself.
    Stop,
    /// Ignores SIGTERM.
    IgnoreTerm,
    /// Forks without end.
    ForkStorm,
}

#[derive(Debug, Args)]
pub struct DemoCleanerArgs {
    /// The directories that the demo has made.
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// A directory laid out as /usr/share, such as $DESTDIR/usr/share
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub struct ReapArgs {
    /// Cgroup directories; with --root, --slice or --subsystem, names of cgroups; -: those on standard input
    #[arg(value_name = "DIR|NAME", required = true, value_hint = ValueHint::DirPath)]
    pub names: Vec<OsString>,

    /// Where the hierarchy is mounted, or the hierarchies of --subsystem [default: /sys/fs/cgroup]
    #[arg(long, value_name = "ROOT", value_hint = ValueHint::DirPath, help_heading = "Targets by name")]
    pub root: Option<PathBuf>,

    /// The directory in each hierarchy in which the names are [default: its root]
    #[arg(long, value_name = "SLICE", value_hint = ValueHint::Other, help_heading = "Targets by name")]
    pub slice: Option<PathBuf>,

    /// Several hierarchies, by their directories below ROOT; a comma-separated list, or repeated
    #[arg(
        long,
        value_name = "SUBSYSTEM",
        value_hint = ValueHint::Other,
        value_delimiter = ',',
        action = ArgAction::Append,
        help_heading = "Targets by name"
    )]
    pub subsystem: Vec<PathBuf>,

    /// Signal pids without verification if the kernel has no pidfds and the target no freezer
    ///
    /// If a member exits between the read of its pid and the signal, and another process gets this pid,
    /// that process is killed in error.
    #[arg(long)]
    pub kill_without_freezer: bool,

    /// How to kill
    #[arg(long, default_value = "auto", value_parser = method_parser())]
    pub method: KillMethod,

    /// Signal to send first, and the time until SIGKILL, such as TERM=5s
    #[arg(long, value_name = "SIGNAL=TIME", value_hint = ValueHint::Other, value_parser = parse_grace)]
    pub grace: Option<(Signal, Duration)>,

    /// How long the processes may take to end by themselves before the first signal, such as 10s
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = duration::parse)]
    pub linger: Option<Duration>,

    /// Send no signal: wait until it is empty by itself, then remove it
    #[arg(long, conflicts_with_all = ["grace", "linger"])]
    pub when_empty: bool,

    /// A target that does not exist is an error, not "already gone"
    #[arg(long)]
    pub must_exist: bool,

    /// Give up on a target after this long, such as 30s [default: never]
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = duration::parse)]
    pub deadline: Option<Duration>,

    /// Release the memory of processes that were sent SIGKILL and cannot exit (Linux 5.15)
    #[arg(long)]
    pub release_memory: bool,

    /// Leave the empty directories
    #[arg(long)]
    pub keep_dir: bool,

    /// First wait between two attempts to kill; it grows [default: 10ms]
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = duration::parse)]
    pub min_wait: Option<Duration>,

    /// Longest wait between two attempts to kill [default: 10s]
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = duration::parse)]
    pub max_wait: Option<Duration>,

    /// How long a cgroup may take to freeze, or may be frozen by a cgroup above it [default: 10s]
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other, value_parser = duration::parse)]
    pub freeze_timeout: Option<Duration>,

    /// Report as JSON on stdout, one object per line and target; --help describes the fields
    #[arg(long)]
    pub json: bool,

    /// Say nothing about targets that were reaped
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

impl Cli {
    /// Parses the arguments of the process. Does not return if they are wrong or ask for help.
    pub fn from_command_line() -> Cli {
        let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
        if cli.command.is_none() {
            if let Some(command) = cli.reap.command_after_options() {
                let message = format!(
                    "`{command}` is a command, which comes first: `cgreap {command} [OPTIONS] ...`; `./{command}` is the directory"
                );
                Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
            }
            if let Err(error) = cli.reap.check() {
                Cli::command().error(ErrorKind::ValueValidation, error).exit();
            }
        }
        cli
    }
}

/// Prints the error, or the help that was asked for, and exits.
fn refuse(error: &clap::Error) -> ! {
    // After an option it is the name of a target.
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    if error.use_stderr() && is_run {
        // A failure has no place where it could be reported.
        let _ = error.print();
        std::process::exit(RUN_FAILED.into());
    }
    error.exit()
}

impl ReapArgs {
    /// Refuses what the library would refuse for every single target.
    fn check(&self) -> Result<(), String> {
        let min_wait = self.min_wait.unwrap_or(DEFAULT_MIN_WAIT);
        let max_wait = self.max_wait.unwrap_or(DEFAULT_MAX_WAIT);
        if min_wait < Duration::from_millis(1) {
            return Err(format!("--min-wait {min_wait:?} is too short: 1ms is the shortest"));
        }
        if min_wait > max_wait {
            return Err(format!("--min-wait {min_wait:?} is longer than --max-wait {max_wait:?}"));
        }
        Ok(())
    }

    /// The command that follows an option. clap takes it for the first of the targets, and its directory for the second.
    fn command_after_options(&self) -> Option<String> {
        let first = self.names.first().filter(|_| self.place().is_none())?;
        let commands = Cli::command();
        let command = commands.find_subcommand(first).filter(|command| !command.is_hide_set())?;
        Some(command.get_name().to_owned())
    }

    /// Where names are looked up; `None` if the targets are directories.
    pub fn place(&self) -> Option<Place> {
        if self.subsystem.is_empty() && self.slice.is_none() && self.root.is_none() {
            return None;
        }
        Some(Place {
            root: self.root.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT)),
            slice: self.slice.clone().unwrap_or_default(),
            subsystems: self.subsystem.clone(),
        })
    }

    /// The targets of these names.
    pub fn targets(&self, names: Vec<OsString>) -> Vec<Target> {
        let options = self.place().map(|place| {
            let options = CgroupOptions::new(place.root).slice(place.slice);
            if place.subsystems.is_empty() { options } else { options.subsystems(place.subsystems) }
        });
        names
            .into_iter()
            .map(|name| {
                let name = PathBuf::from(name);
                let reaper = match &options {
                    Some(options) => Reaper::new(options.clone(), &name),
                    // The library refuses paths with dots. `./x` is allowed here, because `./demo` is the
                    // directory where `demo` would be the command.
                    None => match name.strip_prefix(".") {
                        Ok(rest) if !rest.as_os_str().is_empty() => Reaper::at(rest),
                        _ => Reaper::at(&name),
                    },
                };
                Target { name, reaper: self.configure(reaper) }
            })
            .collect()
    }

    fn configure(&self, reaper: Reaper) -> Reaper {
        let mut reaper = reaper.method(self.method);
        if let Some(wait) = self.min_wait {
            reaper = reaper.min_wait(wait);
        }
        if let Some(wait) = self.max_wait {
            reaper = reaper.max_wait(wait);
        }
        if let Some(timeout) = self.freeze_timeout {
            reaper = reaper.freeze_timeout(timeout);
        }
        if let Some((signal, period)) = self.grace {
            reaper = reaper.grace(signal, period);
        }
        if let Some(linger) = self.linger {
            reaper = reaper.linger(linger);
        }
        if self.when_empty {
            reaper = reaper.when_empty();
        }
        if let Some(deadline) = self.deadline {
            reaper = reaper.deadline(deadline);
        }
        if self.kill_without_freezer {
            reaper = reaper.kill_without_freezer();
        }
        if self.release_memory {
            reaper = reaper.release_memory();
        }
        if self.keep_dir {
            reaper = reaper.keep_dir();
        }
        reaper
    }
}

fn method_parser() -> impl TypedValueParser<Value = KillMethod> {
    PossibleValuesParser::new(["auto", "cgroup-kill", "freezer", "pidfd"])
        .try_map(|method| method.parse::<KillMethod>())
}

fn parse_grace(text: &str) -> Result<(Signal, Duration), String> {
    let Some((signal, period)) = text.split_once('=') else {
        return Err("expected a signal and a time, such as TERM=5s".to_owned());
    };
    let signal = signal.parse::<Signal>().map_err(|error| error.to_string())?;
    Ok((signal, duration::parse(period)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn targets(cli: &Cli) -> Vec<Target> {
        cli.reap.targets(cli.reap.names.clone())
    }

    fn target(line: &str) -> Reaper {
        targets(&parse(line).unwrap()).remove(0).reaper
    }

    fn refusal(line: &str) -> String {
        parse(line).expect_err(line).to_string()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn targets_are_required() {
        assert!(refusal("cgreap").contains("required"));
        assert!(refusal("cgreap --json").contains("required"));
    }

    #[test]
    fn demo_is_a_command_only_in_the_first_place() {
        assert!(matches!(parse("cgreap demo").unwrap().command, Some(Command::Demo)));
        for line in ["cgreap ./demo", "cgreap a demo", "cgreap --subsystem freezer demo"] {
            let cli = parse(line).unwrap();
            assert!(cli.command.is_none(), "{line}");
            assert!(cli.reap.names.last().unwrap().to_string_lossy().ends_with("demo"), "{line}");
        }
        assert_eq!(parse("cgreap demo -vv").unwrap().verbose, 2);
    }

    #[test]
    fn a_command_after_an_option_is_no_target() {
        let command = |line: &str| parse(line).unwrap().reap.command_after_options();
        for (line, name) in [
            ("cgreap -v run -- make", "run"),
            ("cgreap --deadline 5s sweep /a", "sweep"),
            ("cgreap -- demo", "demo"),
        ] {
            assert_eq!(command(line).as_deref(), Some(name), "{line}");
        }
        for line in [
            "cgreap -v ./sweep /a",
            "cgreap -v /a sweep",
            "cgreap -v __generate",
            "cgreap -v --slice s sweep",
            "cgreap --root /r sweep",
            "cgreap --subsystem freezer demo",
        ] {
            assert_eq!(command(line), None, "{line}");
        }
    }

    #[test]
    fn options_reach_the_reaper() {
        let cli = parse(
            "cgreap --method pidfd --min-wait 2ms --max-wait 3s --freeze-timeout 4s --grace HUP=5s \
             --deadline 6s --keep-dir --kill-without-freezer --release-memory --linger 7s /a /b",
        )
        .unwrap();
        let expected = |dir: &str| {
            Reaper::at(dir)
                .method(KillMethod::Pidfd)
                .min_wait(Duration::from_millis(2))
                .max_wait(Duration::from_secs(3))
                .freeze_timeout(Duration::from_secs(4))
                .grace(Signal::HUP, Duration::from_secs(5))
                .linger(Duration::from_secs(7))
                .deadline(Duration::from_secs(6))
                .kill_without_freezer()
                .release_memory()
                .keep_dir()
        };
        let reapers: Vec<_> = targets(&cli).into_iter().map(|target| target.reaper).collect();
        assert_eq!(reapers, [expected("/a"), expected("/b")]);
        assert_eq!(target("cgreap --when-empty /a"), Reaper::at("/a").when_empty());
        assert!(refusal("cgreap --when-empty --grace TERM=5s /a").contains("cannot be used with"));
        // Without options: the library's defaults, whatever they are.
        assert_eq!(target("cgreap /a"), Reaper::at("/a"));
    }

    #[test]
    fn only_a_leading_dot_is_dropped() {
        for (given, reaped) in [("./x", "x"), (".//x/", "x/"), (".", "."), ("./", "./"), ("./../x", "../x")] {
            let target = targets(&Cli::try_parse_from(["cgreap", given]).unwrap()).remove(0);
            assert_eq!(target.name.as_os_str(), given);
            assert_eq!(target.reaper, Reaper::at(reaped), "{given}");
        }
        let options = CgroupOptions::new("/sys/fs/cgroup").subsystems(["freezer"]);
        assert_eq!(target("cgreap --subsystem freezer ./x"), Reaper::new(options, "./x"));
    }

    #[test]
    fn names_have_a_default_root() {
        let by_subsystems = target("cgreap --subsystem freezer,cpu --subsystem pids --slice s x");
        let options = CgroupOptions::new("/sys/fs/cgroup").slice("s").subsystems(["freezer", "cpu", "pids"]);
        assert_eq!(by_subsystems, Reaper::new(options, "x"));
        // The root itself is the hierarchy.
        for (line, options) in [
            ("cgreap --slice s x", CgroupOptions::new("/sys/fs/cgroup").slice("s")),
            ("cgreap --root /r x", CgroupOptions::new("/r")),
        ] {
            assert_eq!(target(line), Reaper::new(options, "x"), "{line}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_a_hint() {
        assert!(refusal("cgreap --deadline 30 x").contains("30s"));
        assert!(refusal("cgreap --grace TERM x").contains("TERM=5s"));
        assert!(refusal("cgreap --grace TERM=5 x").contains("5s"));
        assert!(refusal("cgreap --grace WINCH=5s x").contains("signal"));
        assert!(refusal("cgreap --method sword x").contains("cgroup-kill"));
        let check = |line: &str| parse(line).unwrap().reap.check();
        assert_eq!(check("cgreap --min-wait 10s x"), Ok(()));
        assert!(check("cgreap --min-wait 11s x").unwrap_err().contains("--max-wait 10s"));
        assert!(check("cgreap --max-wait 5ms x").unwrap_err().contains("--min-wait 10ms"));
        assert!(check("cgreap --min-wait 0ms x").unwrap_err().contains("1ms"));
    }
}
