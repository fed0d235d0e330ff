//! Reaps side by side: what `cargo bench --bench reap` compares, and other crates that do this job; with plots.
//!
//! `benches/run` runs it, and says how.

mod peers;
mod plots;
#[path = "../../reap/program/mod.rs"]
mod program;

fn main() {
    program::main(program::Guests { contenders: Some(peers::all), finish: Some(plots::draw) });
}
