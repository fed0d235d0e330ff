//! The C ABI of [`cgroup_reaper`]: `libcgroup_reaper`.
//!
//! C and C++ programs include `include/cgroup_reaper.h`, which is written from this source (`tests/header.rs`), and need not
//! read this. `README.md` is the guide for them.
//!
//! - What a C program holds is an id, not an address: each call looks it up in a table of the objects that are alive. So an
//!   object that was freed, or is none, is an error that the call returns, and the memory of an object is never touched
//!   through a pointer that C has had (`object`).
//! - No panic reaches the caller: each function is one call of `call`.
//! - Pointers to memory of the caller's are read and written in one module (`memory`).
#![allow(unsafe_code, reason = "a C ABI: exported names, and memory of the caller's")]
#![allow(non_camel_case_types, reason = "the names that C has for them")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the text of each function is that of the header, which says what C must keep to"
)]

mod call;
mod error;
mod handle;
mod memory;
mod metrics;
mod object;
mod reactor;
mod reap;
mod reaper;
mod remote;
mod result;
mod time;
mod version;

pub use error::{cgr_kind, cgr_kind_name};
pub use handle::*;
pub use metrics::cgr_metrics;
pub use reactor::*;
pub use reap::*;
pub use reaper::*;
pub use remote::*;
pub use result::*;
pub use time::CGR_FOREVER;
pub use version::*;
