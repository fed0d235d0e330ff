//! `cgreap` kills everything in cgroups, waits until they are empty and removes them; `cgreap --help`
//! tells the rest.

mod args;
mod demo;
mod duration;
mod reap;
mod report;
mod victim;

use std::process::ExitCode;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::from_command_line();
    start_log(cli.verbose);
    let status = match &cli.command {
        None => reap::run(&cli.reap, cli.verbose > 0),
        Some(Command::Demo) => demo::run(),
        Some(Command::Victim(args)) => victim::run(args),
    };
    ExitCode::from(status)
}

/// Logs to stderr: warnings, and more of what the library does for each `-v`. RUST_LOG counts where `-v` is
/// not given.
fn start_log(verbose: u8) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn);
    let level = match verbose {
        0 => None,
        1 => Some(log::LevelFilter::Info),
        2 => Some(log::LevelFilter::Debug),
        _ => Some(log::LevelFilter::Trace),
    };
    match level {
        None => builder.parse_default_env(),
        Some(level) => builder.filter_module("cgroup_reaper", level),
    };
    builder.init();
}
