//! The scope that owns every group and process of a test.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::state::{
    TIMEOUT, is_dead, some_thread_lives, start_of, state_and_start, state_of, subtree, try_pids_in,
    wait_until,
};
use super::{isolate, layout, sys};

/// What all our top directories begin with; nothing else is ever touched.
const PREFIX: &str = "cgroup-reaper-";

/// A directory name that no other test, program, PID namespace or earlier run uses. In an isolated test it
/// begins with the tag that lets the outer process find what a killed test left.
pub(super) fn unique_name(test: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let tag = isolate::tag().map(|tag| tag + "-").unwrap_or_default();
    let test: String = test.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let (pid, count) = (sys::getpid(), COUNT.fetch_add(1, Ordering::Relaxed));
    // Two PID namespaces can have the same pid, hence the clock.
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    // A file name has up to 255 bytes.
    format!("{PREFIX}{tag}{test:.120}-{pid}-{count}-{nanos:x}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another thread must not keep the clean-up from working.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that this program forked and thus must wait for.
#[derive(Debug)]
pub(super) struct Child {
    pub pid: i32,
    /// The keeper of a family of processes: ends by itself once none of them is left.
    keeper: bool,
    /// Once waited for: the status, or the errno if other code has waited for our child.
    status: Mutex<Option<Result<ExitStatus, i32>>>,
}

impl Child {
    /// Reaps the child if it has ended. Does not panic: the clean-up uses it.
    fn try_wait(&self) -> Option<Result<ExitStatus, i32>> {
        let mut status = lock(&self.status);
        if status.is_none() {
            *status = match sys::wait(self.pid, libc::WNOHANG) {
                Ok((0, _)) => None,
                Ok((_, raw)) => Some(Ok(ExitStatus::from_raw(raw))),
                Err(errno) => Some(Err(errno)),
            };
        }
        *status
    }

    /// Under the lock the child is not reaped, so the pid is surely still its own.
    fn signal(&self, signal: i32) {
        let status = lock(&self.status);
        if status.is_none() {
            let _ = sys::kill(self.pid, signal);
        }
    }
}

/// A process started by a [`Sandbox`], which ends it; dropping this does nothing.
#[derive(Clone, Debug)]
pub struct Proc {
    pub pid: i32,
    /// With the pid, names the process even after the pid was given to another one.
    start: u64,
    /// `None` if a keeper process waits for it, so that there is no zombie and no status.
    child: Option<Arc<Child>>,
}

impl Proc {
    pub(super) fn child(child: Arc<Child>) -> Self {
        Self { pid: child.pid, start: start_of(child.pid).unwrap_or(0), child: Some(child) }
    }

    pub(super) fn kept(pid: i32) -> Self {
        Self { pid, start: start_of(pid).unwrap_or(0), child: None }
    }

    /// Whether some thread of it still runs. A zombie is not alive.
    pub fn alive(&self) -> bool {
        state_and_start(self.pid).is_some_and(|(state, start)| {
            start == self.start && (!is_dead(state) || some_thread_lives(self.pid))
        })
    }

    /// Its state letter, `None` once it is gone.
    pub fn state(&self) -> Option<char> {
        state_and_start(self.pid).filter(|&(_, start)| start == self.start).map(|(state, _)| state)
    }

    /// Sends it a signal, or nothing if it is gone.
    pub fn signal(&self, signal: i32) {
        match &self.child {
            Some(child) => child.signal(signal),
            None => {
                let Ok(pidfd) = sys::pidfd_open(self.pid) else { return };
                if start_of(self.pid) == Some(self.start) {
                    let _ = sys::pidfd_signal(&pidfd, signal);
                }
            }
        }
    }

    /// Waits for its end and tells what it died from, `None` if it still lives after `timeout`. For direct
    /// children only: the members of a family (`sleepers`, `vfork`, ...) are waited for by their keeper.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let child = self.child.as_ref().expect("this process has a keeper: use ended()");
        let _ = wait_until(timeout, || child.try_wait().is_some());
        let status = child.try_wait()?;
        Some(status.unwrap_or_else(|errno| panic!("other code waited for child {}: {errno}", child.pid)))
    }

    /// Waits until it has exited; `false` if it still lives after `timeout`. Waits for it (wait(2)) if it is our child.
    pub fn ended(&self, timeout: Duration) -> bool {
        match &self.child {
            Some(_) => self.wait(timeout).is_some(),
            None => wait_until(timeout, || !self.alive()),
        }
    }
}

/// Many processes of one family; derefs to the slice of them. A keeper outside of the groups waits for them,
/// so they leave no zombies.
#[derive(Clone, Debug)]
pub struct Procs(pub Vec<Proc>);

impl Procs {
    pub fn pids(&self) -> Vec<i32> {
        self.0.iter().map(|process| process.pid).collect()
    }

    /// How many are alive.
    pub fn living(&self) -> usize {
        self.0.iter().filter(|process| process.alive()).count()
    }

    /// Waits till all are dead; `false` if some still live after `timeout`.
    pub fn ended(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        self.0.iter().all(|process| process.ended(end.saturating_duration_since(Instant::now())))
    }
}

impl Deref for Procs {
    type Target = [Proc];
    fn deref(&self) -> &[Proc] {
        &self.0
    }
}

/// What the code in a forked child works with. Its methods make system calls only, see [`sys`].
#[derive(Debug)]
pub(super) struct Life<'a> {
    /// Read end of the sandbox's lifeline: at its end of file the sandbox, or the whole test program, is gone.
    line: RawFd,
    /// Write end of the pipe for messages to the parent: a letter and a number.
    report: RawFd,
    /// The `cgroup.procs` files to write to.
    joins: &'a [RawFd],
}

impl Life<'_> {
    fn tell(&self, kind: u8, value: i32) {
        let [a, b, c, d] = value.to_ne_bytes();
        if !sys::write(self.report, &[kind, a, b, c, d]) {
            sys::exit(1);
        }
    }

    /// Moves this process into the groups.
    pub fn join(&self) {
        if !self.try_join() {
            self.fail();
        }
    }

    pub fn try_join(&self) -> bool {
        self.joins.iter().all(|&fd| sys::write(fd, b"0"))
    }

    /// Closes the groups' files.
    pub fn close_joins(&self) {
        for &fd in self.joins {
            sys::close(fd);
        }
    }

    /// Tells the parent of one more process.
    pub fn tell_pid(&self, pid: i32) {
        self.tell(b'P', pid);
    }

    /// Tells the parent that all is in place, which makes the fixture's function return.
    pub fn ready(&self) {
        self.tell(b'R', 0);
    }

    /// Tells the parent the errno, which makes the fixture's function panic.
    pub fn fail(&self) -> ! {
        self.tell(b'E', sys::errno());
        sys::exit(1)
    }

    /// As `fork`, but a failure ends the fixture.
    pub fn fork(&self) -> i32 {
        match sys::fork() {
            -1 => self.fail(),
            pid => pid,
        }
    }

    /// Sleeps until the sandbox ends. Not pause(): a process whose pid is lost must not outlive the test.
    pub fn rest(&self) -> ! {
        self.until_end();
        sys::exit(0)
    }

    pub fn until_end(&self) {
        while sys::read(self.line, &mut [0]) > 0 {}
    }

    /// Whether a child has ended, for parents that ignore SIGCHLD: then the kernel has waited for it.
    pub fn gone(&self, pid: i32) -> bool {
        !matches!(sys::wait(pid, libc::WNOHANG), Ok((0, _)))
    }

    /// Sleeps for a while, or ends the process if the sandbox ends.
    pub fn nap(&self, ms: i32) {
        if sys::readable(self.line, ms) {
            sys::exit(0);
        }
    }

    /// Waits for a byte at `fd`, or ends the process if the sandbox ends.
    pub fn wait_byte(&self, fd: RawFd) {
        let (_, ended) = sys::poll2(fd, self.line, -1);
        if ended || sys::read(fd, &mut [0]) <= 0 {
            sys::exit(0);
        }
    }
}

/// Owns the groups, processes and files of one test and removes them when dropped.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    /// Our directories directly below the roots of hierarchies.
    tops: Mutex<BTreeSet<PathBuf>>,
    scratch: OnceLock<PathBuf>,
    children: Mutex<Vec<Arc<Child>>>,
    count: AtomicU32,
    line: Option<(OwnedFd, OwnedFd)>,
}

impl Sandbox {
    pub fn new(test: &str) -> Self {
        Self {
            name: unique_name(test),
            tops: Mutex::default(),
            scratch: OnceLock::new(),
            children: Mutex::default(),
            count: AtomicU32::new(0),
            line: Some(sys::pipe().expect("pipe")),
        }
    }

    /// Our v2 directory `<root>/cgroup-reaper-<unique>`, the parent of all v2 groups of this sandbox.
    #[track_caller]
    pub fn v2_dir(&self) -> PathBuf {
        self.top(layout::v2_root().expect("cgroup v2: the test shall require!(v2())"))
    }

    /// As [`v2_dir`](Self::v2_dir), in the v1 hierarchy of a controller.
    #[track_caller]
    pub fn v1_dir(&self, controller: &str) -> PathBuf {
        self.top(layout::v1_root(controller).expect("cgroup v1: the test shall require!(v1(..))"))
    }

    /// Makes (if not yet there) the v2 group `name`, such as "a" or "a/b", below [`v2_dir`](Self::v2_dir).
    #[track_caller]
    pub fn v2(&self, name: &str) -> PathBuf {
        make_group(&self.v2_dir(), name)
    }

    /// Makes (if not yet there) the group `name`, such as "a" or "a/b", below [`v1_dir`](Self::v1_dir).
    #[track_caller]
    pub fn v1(&self, controller: &str, name: &str) -> PathBuf {
        make_group(&self.v1_dir(controller), name)
    }

    /// A directory for files, outside of the hierarchies, which every user can read.
    #[track_caller]
    pub fn scratch(&self) -> &Path {
        self.scratch.get_or_init(|| {
            let dir = std::env::temp_dir().join(&self.name);
            fs::create_dir(&dir).unwrap_or_else(|error| panic!("mkdir {}: {error}", dir.display()));
            let readable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&dir, readable)
                .unwrap_or_else(|error| panic!("chmod {}: {error}", dir.display()));
            dir
        })
    }

    fn top(&self, root: PathBuf) -> PathBuf {
        let top = root.join(&self.name);
        let mut tops = lock(&self.tops);
        if !tops.contains(&top) {
            // Noted first: should anything fail from here on, the drop knows the directory.
            tops.insert(top.clone());
            make_dir(&top);
        }
        top
    }

    /// A number for names within this sandbox.
    pub(super) fn number(&self) -> u32 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// Forks a child that runs `body` and then exits; returns when it said [`Life::ready`], with the pids it
    /// told. `body` may make system calls only. `keep` are the descriptors it needs besides those of `Life`.
    #[track_caller]
    pub(super) fn spawn(
        &self,
        dirs: &[&Path],
        keep: &[RawFd],
        body: impl FnOnce(&Life<'_>),
    ) -> (Arc<Child>, Vec<i32>) {
        self.start(false, dirs, keep, body)
    }

    /// As [`spawn`](Self::spawn) for a fixture of several processes: `body` runs in a grandchild, whose
    /// parent, the keeper, stays outside of the groups and inherits and reaps (SIGCHLD ignored) whatever
    /// orphans the family leaves. So there are no zombies in the test program, and the keeper's end proves
    /// that nothing of the family is left. With [`Founder::Leaves`] it is the keeper that says `ready`, after
    /// the process of `body` is gone.
    #[track_caller]
    pub(super) fn spawn_kept(
        &self,
        dirs: &[&Path],
        keep: &[RawFd],
        founder: Founder,
        body: impl FnOnce(&Life<'_>),
    ) -> (Arc<Child>, Vec<i32>) {
        self.start(true, dirs, keep, |life| {
            sys::become_subreaper();
            sys::ignore_signal(libc::SIGCHLD);
            let pid = life.fork();
            if pid == 0 {
                body(life);
                sys::exit(0)
            }
            life.close_joins();
            if founder == Founder::Leaves {
                // With SIGCHLD ignored this waits for the end and then is an error.
                let _ = sys::wait(pid, 0);
                life.ready();
            }
            life.until_end();
            while sys::wait(-1, 0).is_ok() {}
        })
    }

    #[track_caller]
    fn start(
        &self,
        keeper: bool,
        dirs: &[&Path],
        keep: &[RawFd],
        body: impl FnOnce(&Life<'_>),
    ) -> (Arc<Child>, Vec<i32>) {
        let open = |dir: &&Path| {
            assert!(dir.to_string_lossy().contains(PREFIX), "{} is no group of a test", dir.display());
            let path = dir.join("cgroup.procs");
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let files: Vec<fs::File> = dirs.iter().map(open).collect();
        let joins: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let (messages, report) = sys::pipe().expect("pipe");
        let line = self.line.as_ref().expect("there until the drop").0.as_raw_fd();
        let mut kept = vec![line, report.as_raw_fd()];
        kept.extend(&joins);
        kept.extend(keep);
        let life = Life { line, report: report.as_raw_fd(), joins: &joins };

        let pid = sys::fork();
        if pid == 0 {
            let _guard = ExitOnUnwind;
            sys::close_all_but(&kept);
            sys::default_signals();
            sys::set_name(NAME);
            body(&life);
            sys::exit(0)
        }
        assert!(pid > 1, "fork: {}", std::io::Error::last_os_error());
        let child = Arc::new(Child { pid, keeper, status: Mutex::new(None) });
        lock(&self.children).push(child.clone());
        // So that the child's end is an end of file here.
        drop(report);
        let pids = listen(&messages).unwrap_or_else(|error| panic!("fixture {pid}: {error}"));
        (child, pids)
    }

    /// Tries once to end everything in our groups and to remove them.
    fn clear(&self) {
        for top in lock(&self.tops).iter() {
            clear_group(top);
        }
    }

    /// What is still there after a bounded time, in words.
    fn clean_up(&mut self) -> String {
        // This releases the tracers' and all other processes that can run; they end by themselves.
        self.line = None;
        let tops = lock(&self.tops).clone();
        let mut problems = String::new();
        if !wait_until(TIMEOUT, || {
            self.clear();
            tops.iter().all(|top| !top.exists())
        }) {
            for dir in tops.iter().flat_map(|top| subtree(top)) {
                let _ = write!(problems, " {} (pids {:?})", dir.display(), try_pids_in(&dir));
            }
        }
        let children = std::mem::take(&mut *lock(&self.children));
        for child in &children {
            if !child.keeper {
                child.signal(libc::SIGKILL);
            }
        }
        for child in &children {
            // A keeper ends after its family.
            if !wait_until(TIMEOUT, || child.try_wait().is_some()) {
                let _ = write!(problems, " process {} ({:?})", child.pid, state_of(child.pid));
                child.signal(libc::SIGKILL);
            } else if let Some(Err(errno)) = child.try_wait() {
                let _ = write!(problems, " other code waited for child {}: {errno}", child.pid);
            }
        }
        problems
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let mut problems = self.clean_up();
        if let Some(Err(error)) = self.scratch.get().map(fs::remove_dir_all) {
            let _ = write!(problems, " files ({error})");
        }
        if problems.is_empty() {
            return;
        }
        let message = format!("LEFT BEHIND by {}:{problems}", self.name);
        if thread::panicking() {
            sys::stderr(&format!("{message}\n"));
        } else {
            panic!("{message}");
        }
    }
}

/// What the first process of a family does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Founder {
    /// Lives on as a member, and says when it is ready.
    Stays,
    /// Ends when it has started the others.
    Leaves,
}

/// The name of all fixture processes in ps.
pub(super) const NAME: &std::ffi::CStr = c"reaper-fixture";

/// Ends a forked child that panics: it must not unwind into a second copy of the test.
#[derive(Debug)]
pub struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        sys::exit(101);
    }
}

/// Reads a child's messages until it is ready; the pids it told. The limit is on silence: thousands of forks
/// take their time under emulation.
fn listen(messages: &OwnedFd) -> Result<Vec<i32>, String> {
    let limit = i32::try_from(TIMEOUT.as_millis()).expect("short");
    let (mut pids, mut pending) = (Vec::new(), Vec::new());
    loop {
        if !sys::readable(messages.as_raw_fd(), limit) {
            return Err(format!("not ready, and silent for {TIMEOUT:?}"));
        }
        let mut bytes = [0; 4096];
        match usize::try_from(sys::read(messages.as_raw_fd(), &mut bytes)) {
            Ok(0) | Err(_) => return Err("ended before it was ready".into()),
            Ok(read) => pending.extend_from_slice(&bytes[..read]),
        }
        let whole = pending.len() / 5 * 5;
        for message in pending.drain(..whole).collect::<Vec<u8>>().chunks_exact(5) {
            let value = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
            match message[0] {
                b'P' => pids.push(value),
                b'R' => return Ok(pids),
                _ => return Err(std::io::Error::from_raw_os_error(value).to_string()),
            }
        }
    }
}

#[track_caller]
fn make_dir(dir: &Path) {
    fs::create_dir(dir).unwrap_or_else(|error| panic!("mkdir {}: {error}", dir.display()));
    // A v1 cpuset takes no process before it has these.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if dir.join("cpuset.sched_load_balance").exists() {
            let parent = dir.parent().expect("below a root");
            if let Ok(text) = fs::read_to_string(parent.join(file)) {
                let _ = fs::write(dir.join(file), text);
            }
        }
    }
}

#[track_caller]
fn make_group(top: &Path, name: &str) -> PathBuf {
    let mut dir = top.to_path_buf();
    for part in name.split('/') {
        assert!(!part.is_empty() && part != "." && part != "..", "group name {name:?}");
        dir.push(part);
        if !dir.is_dir() {
            make_dir(&dir);
        }
    }
    dir
}

/// One attempt on one of our top directories: thaw, kill, remove. What fails is retried by a later attempt, or
/// reported.
pub fn clear_group(top: &Path) {
    let ours = top.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    assert!(ours, "{} is no group of a test", top.display());
    let groups = subtree(top);
    // From the top down: a group frozen on its own stays frozen when its parent thaws, and the other way round.
    for group in &groups {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            if group.join(file).exists() {
                let _ = fs::write(group.join(file), thawed);
            }
        }
    }
    // For the whole subtree. Kernels before 5.14 have no such file, and v1 never.
    let kill = top.join("cgroup.kill");
    if kill.exists() {
        let _ = fs::write(kill, "1");
    }
    for group in groups.iter().rev() {
        kill_members(group);
        let _ = fs::remove_dir(group);
    }
}

fn kill_members(group: &Path) {
    // Fewer descriptors at a time than any usual limit.
    const AT_ONCE: usize = 256;
    let me = sys::getpid();
    let pids = try_pids_in(group).unwrap_or_default();
    for pids in pids.chunks(AT_ONCE) {
        let open = |&pid: &i32| Some((pid, sys::pidfd_open(pid).ok()?));
        let pidfds: Vec<_> = pids.iter().filter(|&&pid| pid > 1 && pid != me).filter_map(open).collect();
        // Each pidfd holds on to the process that had the pid when it was opened; if the group lists the pid
        // after that as well, then it is that process.
        let still = if pidfds.is_empty() { Vec::new() } else { try_pids_in(group).unwrap_or_default() };
        for (pid, pidfd) in pidfds {
            if still.binary_search(&pid).is_ok() {
                let _ = sys::pidfd_signal(&pidfd, libc::SIGKILL);
            }
        }
    }
}
