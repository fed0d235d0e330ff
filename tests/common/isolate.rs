//! Running a test in a PID namespace of its own, so that a misdirected signal (`kill(-1)`, a wrong pid) cannot
//! reach anything outside, and so that the program has no other test's threads and descriptors.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::sandbox::{clear_group, unique_name};
use super::state::wait_until;
use super::{layout, sys};

/// Set in the inner program: how names of its groups begin after the common prefix.
const TAG: &str = "CGROUP_REAPER_ISOLATED";

/// Longer than the waits of the fixtures and of their clean-up, so that they report the failure first.
const LIMIT: Duration = Duration::from_secs(300);

/// Exit code of the namespace's init: the test was over, but processes of it were not.
const STRAYS: i32 = 97;

pub(super) fn tag() -> Option<String> {
    std::env::var(TAG).ok()
}

/// The whole of a test: runs `body` in a copy of this program that runs only the test `name`
/// ([`test_name!`](super::test_name)) in new PID and mount namespaces with a /proc to match. There it is not
/// the init, but a child of one, in a session of its own. Fails with the test in there, shows what that
/// printed, and takes care that no process or group is left even if it hangs or crashes.
#[track_caller]
pub fn isolated(name: &str, body: impl FnOnce()) {
    if tag().is_some() {
        return body();
    }
    if let Err(reason) = layout::namespaces() {
        return layout::skip(name, &reason);
    }
    let tag = unique_name("i").replace("cgroup-reaper-", "");
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(TAG, &tag)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: nothing but system calls.
    unsafe { command.pre_exec(enter) };
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: new namespaces: {error}"));
    let collect = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = collect(Box::new(child.stdout.take().expect("piped")));
    let err = collect(Box::new(child.stderr.take().expect("piped")));
    // Both ends of file come when the test program ends (the fixtures hold neither). The namespace can end
    // later only: its last members may be frozen, and then the sweep frees them.
    let in_time = wait_until(LIMIT, || out.is_finished() && err.is_finished());
    if !in_time {
        // Its child, the init, dies with it, and everything in the namespace with that, except what is frozen.
        let _ = child.kill();
    }
    let mut leftovers = sweep(&tag);
    let ended = wait_until(super::TIMEOUT, || !matches!(child.try_wait(), Ok(None)));
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().expect("our child");
    leftovers.extend(sweep_files(&tag));
    let (out, err) = (out.join().expect("reader"), err.join().expect("reader"));
    // Printed like any output of a test: shown if this fails. A skip has to be seen in any case.
    eprint!("{out}{err}");
    for line in err.lines().filter(|line| line.starts_with("SKIP ")) {
        sys::stderr(&format!("{line}\n"));
    }
    assert!(in_time && ended, "{name}: isolated run not over within {LIMIT:?}");
    assert!(status.code() != Some(STRAYS), "{name}: isolated run left processes behind");
    assert!(status.success(), "{name}: isolated run: {status}");
    assert!(out.contains("1 passed"), "{name}: isolated run did not run exactly this test");
    assert!(leftovers.is_empty(), "{name}: isolated run left directories behind: {leftovers:?}");
}

/// Clears and removes the groups of an inner program that has ended or is exiting. Returns them.
fn sweep(tag: &str) -> Vec<PathBuf> {
    let roots = ["freezer", "pids", "memory", "cpu", "cpuacct", "cpuset", "devices", "blkio", "name=systemd"];
    let roots = roots.iter().filter_map(|controller| layout::v1_root(controller)).chain(layout::v2_root());
    let ours = format!("cgroup-reaper-{tag}");
    let mut found: Vec<PathBuf> = roots
        .filter_map(|root| fs::read_dir(root).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.dedup();
    let _ = wait_until(super::TIMEOUT, || {
        found.iter().filter(|top| top.exists()).for_each(|top| clear_group(top));
        !found.iter().any(|top| top.exists())
    });
    found
}

/// Removes what an inner program that has ended left in the directory for temporary files. Returns it.
fn sweep_files(tag: &str) -> Vec<PathBuf> {
    let ours = format!("cgroup-reaper-{tag}");
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours))
        .map(|entry| entry.path())
        .collect();
    for path in &found {
        // What cannot be removed is reported with the rest.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    found
}

/// Between fork and exec: three processes. The first stays in the old namespace, as the child that the test
/// program knows, and passes on the result. The second is the init of the new one. The third goes on to exec.
fn enter() -> io::Result<()> {
    sys::die_with_parent();
    if !sys::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) {
        return Err(io::Error::last_os_error());
    }
    match sys::fork() {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        init => {
            // Among them the pipe by which std learns that exec has happened.
            sys::close_all_but(&[]);
            pass_on(init)
        }
    }
    sys::die_with_parent();
    if !sys::mount_own_proc() {
        return Err(io::Error::last_os_error());
    }
    match sys::fork() {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            sys::die_with_parent();
            sys::setsid();
            Ok(())
        }
        test => {
            sys::close_all_but(&[]);
            run_init(test)
        }
    }
}

fn code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

fn pass_on(init: i32) -> ! {
    match sys::wait(init, 0) {
        Ok((_, status)) => sys::exit(code(status)),
        Err(_) => sys::exit(STRAYS - 1),
    }
}

/// Reaps everything; ends, and with it all that is left, when the test has ended.
fn run_init(test: i32) -> ! {
    loop {
        match sys::wait(-1, 0) {
            Ok((pid, status)) if pid == test => {
                let strays = (0..200).all(|_| {
                    // Some may be just about to end. 0: there are children, none of them has ended.
                    while let Ok((1.., _)) = sys::wait(-1, libc::WNOHANG) {}
                    let some = sys::wait(-1, libc::WNOHANG).is_ok();
                    if some {
                        sys::poll2(-1, -1, 10);
                    }
                    some
                });
                let code = code(status);
                sys::exit(if strays && code == 0 { STRAYS } else { code })
            }
            Ok(_) => {}
            Err(_) => sys::exit(STRAYS - 1),
        }
    }
}
