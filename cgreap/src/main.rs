//! `cgreap` kills everything in cgroups, waits until they are empty and removes them. `cgreap --help` describes
//! how it is used.
//!
//! Each module uses only modules to the left of it:
//!
//! - `status`, `exit`, `console`, `duration`, `interrupt`, `end`, `mounts`, `shortage`, `directory`, `this_program`: exit
//!   statuses, the end of the program, output, durations, signals, how a target ended, where the hierarchies are mounted,
//!   shortages of descriptors or memory, cgroup directories, and hidden commands
//! - `target`, `args`, `list`: what the command line names, the command line, and targets from standard input
//! - `generate`: completions for shells, and man pages
//! - `driver`: reaps any number of targets at once
//! - `report`: what is printed about them
//! - `reap`, `run`, `sweep`, `demo`: the commands

mod args;
mod console;
mod demo;
mod directory;
mod driver;
mod duration;
mod end;
mod exit;
mod generate;
mod interrupt;
mod list;
mod mounts;
mod reap;
mod report;
mod run;
mod shortage;
mod status;
mod sweep;
mod target;
mod this_program;

use std::io::Write;
use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::console::{complain, printable};
use crate::exit::Exit;
use crate::status::{ALL_REAPED, NOT_REAPED};

fn main() -> ExitCode {
    if let Some(status) = run::hidden(std::env::args_os().skip(1)) {
        return ExitCode::from(status);
    }
    let cli = Cli::from_command_line();
    start_log(&cli);
    let exit = match &cli.command {
        None => reap::run(&cli.reap, cli.verbose > 0),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Sweep(args)) => sweep::run(args),
        Some(Command::Demo) => demo::run(),
        Some(Command::Generate(args)) => exit_of(generate::files(&args.dir)),
        Some(Command::Completions(args)) => exit_of(generate::completions(args.shell)),
        Some(Command::DemoProcess(args)) => exit_of(demo::process::run(args)),
        Some(Command::DemoCleaner(args)) => exit_of(demo::cleaner::run(&args.dirs)),
    };
    exit.take()
}

/// Reports an error of a hidden command.
fn exit_of(result: Result<(), String>) -> Exit {
    match result {
        Ok(()) => Exit::Status(ALL_REAPED),
        Err(error) => {
            complain(&error);
            Exit::Status(NOT_REAPED)
        }
    }
}

/// Logs to stderr: warnings, and more of what the library does for each `-v`. Without `-v` the environment variable
/// RUST_LOG decides, except in `cgreap run`, where it is the command's, and stderr too.
fn start_log(cli: &Cli) {
    let is_run = matches!(cli.command, Some(Command::Run(_)));
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if is_run { log::LevelFilter::Off } else { log::LevelFilter::Warn });
    let level = match cli.verbose {
        0 => None,
        1 => Some(log::LevelFilter::Info),
        2 => Some(log::LevelFilter::Debug),
        _ => Some(log::LevelFilter::Trace),
    };
    match level {
        None if is_run => &mut builder,
        None => builder.parse_default_env(),
        Some(level) => builder.filter_module("cgroup_reaper", level),
    };
    builder.format(|out, record| {
        let (level, message) = (record.level(), printable(&record.args().to_string()));
        let style = out.default_level_style(level);
        writeln!(out, "[{style}{level:<5}{style:#} {}] {message}", record.target())
    });
    builder.init();
}
