//! Where the cgroup hierarchies of this machine are, and what a test does when one it needs is not there.

use std::path::{Path, PathBuf};

use super::sys;

/// One cgroup mount: its mount point, and the v1 options (controllers) or `None` for v2.
struct Mount {
    point: PathBuf,
    v1: Option<Vec<String>>,
}

/// Read anew each time: `isolated` tests live in another mount namespace, and the file is short.
fn mounts() -> Vec<Mount> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    // "31 23 0:28 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids"
    let parse = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let point = PathBuf::from(unescape(place.split(' ').nth(4)?));
        let mut kind = kind.split(' ');
        match kind.next()? {
            "cgroup2" => Some(Mount { point, v1: None }),
            "cgroup" => Some(Mount { point, v1: Some(kind.nth(1)?.split(',').map(String::from).collect()) }),
            _ => None,
        }
    };
    text.lines().filter_map(parse).collect()
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut out = String::from(parts.next().unwrap_or_default());
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

/// The mount point of cgroup v2, wherever the layout (pure v2 or hybrid) has it.
pub fn v2_root() -> Option<PathBuf> {
    mounts().into_iter().find(|mount| mount.v1.is_none()).map(|mount| mount.point)
}

/// The mount point of the v1 hierarchy with this controller.
pub fn v1_root(controller: &str) -> Option<PathBuf> {
    mounts()
        .into_iter()
        .find(|mount| {
            mount.v1.as_ref().is_some_and(|options| options.iter().any(|option| option == controller))
        })
        .map(|mount| mount.point)
}

/// The kernel's version.
pub fn linux() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().expect("a version"), numbers.next().expect("a version"))
}

/// Whether [`pids_limit`] holds.
pub fn has_pids_limit() -> bool {
    pids_limit().is_ok()
}

fn writable(root: Option<PathBuf>, what: &str) -> Result<(), String> {
    let root = root.ok_or_else(|| format!("no {what} is mounted"))?;
    if sys::writable(&root) { Ok(()) } else { Err(format!("{} is not writable", root.display())) }
}

/// Need: a writable v2 hierarchy.
pub fn v2() -> Result<(), String> {
    writable(v2_root(), "cgroup v2")
}

/// Need: a writable v1 hierarchy with this controller.
pub fn v1(controller: &str) -> Result<(), String> {
    writable(v1_root(controller), &format!("cgroup v1 {controller}"))
}

/// Need: some pids controller, to bound a fork storm. In v2 the root has to pass it on to its children.
pub fn pids_limit() -> Result<(), String> {
    if v1("pids").is_ok() {
        return Ok(());
    }
    v2().map_err(|reason| format!("no pids controller: {reason}"))?;
    let passed_on = v2_root().and_then(|root| read(&root.join("cgroup.subtree_control"))).unwrap_or_default();
    if passed_on.split_whitespace().any(|name| name == "pids") {
        Ok(())
    } else {
        Err("no pids controller in v1, nor one enabled in the v2 root".into())
    }
}

/// Need: a v2 hierarchy whose kernel has `cgroup.kill` (5.14).
pub fn cgroup_kill() -> Result<(), String> {
    v2()?;
    // The root has no such file, so look into a group made for that.
    let probe = v2_root().expect("just seen").join(super::sandbox::unique_name("probe"));
    std::fs::create_dir(&probe).map_err(|error| format!("{}: {error}", probe.display()))?;
    let has = probe.join("cgroup.kill").exists();
    std::fs::remove_dir(&probe).expect("an empty group can be removed");
    if has { Ok(()) } else { Err("this kernel has no cgroup.kill".into()) }
}

/// Need: the right to make PID and mount namespaces.
pub fn namespaces() -> Result<(), String> {
    if sys::is_root() { Ok(()) } else { Err("making namespaces needs root".into()) }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Prints that `test` does not run. In CI (`CI=true`) a test that is skipped would go unnoticed, so it panics
/// there, unless `CGROUP_REAPER_MAY_SKIP` says that this layout is known to lack something.
pub fn skip(test: &str, reason: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let may_skip = std::env::var_os("CGROUP_REAPER_MAY_SKIP").is_some();
    assert!(may_skip || !ci, "{test} cannot run here, and CI must not skip it: {reason}");
    say_skipped(test, reason);
}

/// Prints that `test` does not run, in CI too: another test covers what this machine has instead.
pub fn say_skipped(test: &str, reason: &str) {
    // Not eprintln!: libtest would capture it, and show it for failed tests only.
    sys::stderr(&format!("SKIP {test}: {reason}\n"));
}

/// For [`test_name!`](super::test_name): "program::module::test::here" becomes "module::test".
pub fn strip_test_name<T>(_here: &T) -> &'static str {
    let path = std::any::type_name::<T>();
    let path = path.strip_suffix("::here").unwrap_or(path);
    let path = path.find("::{{closure}}").map_or(path, |end| &path[..end]);
    path.split_once("::").map_or(path, |(_program, rest)| rest)
}
