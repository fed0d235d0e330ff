//! Reaps side by side: what `cargo bench --bench reap` compares, and other crates that do this job; with plots.
//!
//! `benches/run` runs it, and says how.

mod commands;
mod peers;
mod plots;
#[path = "../../reap/program/mod.rs"]
mod program;

use std::error::Error;

use program::groups::Bases;
use program::report::Report;

fn main() {
    program::main(program::Guests { contenders: Some(peers::all), finish: Some(finish) });
}

fn finish(bases: &Bases, report: &Report) -> Result<(), Box<dyn Error>> {
    commands::compare(bases)?;
    plots::draw(report)
}
