//! Reaps side by side: this crate, bare loops on system calls, and a model of the timer-paced algorithm (of a
//! folly-based scheduler's asyncCGroupReaper).
//!
//! `cargo bench --bench reap -- [options]`; [`program`] says which. With crates and programs that do the same
//! job, and plots: `benches/run`.

mod program;

fn main() {
    program::main(program::Guests::default());
}
