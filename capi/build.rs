//! Gives the shared library its soname, `libcgroup_reaper.so.N`. N is what the C ABI has to break to change: the major
//! version, or 0 before the first.

fn main() {
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcgroup_reaper.so.{major}");
    println!("cargo:rerun-if-changed=build.rs");
}
