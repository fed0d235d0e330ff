//! The processes a sandbox can start. Each function returns when the processes are in their groups and in the
//! state it promises. `dirs` are the groups to join, in any number of hierarchies; with none of them the
//! process stays in the groups of the test program. A group must not be frozen while a process joins it.
//!
//! The closures run in forked children of a program with many threads: system calls only.

use std::ffi::{CString, c_int, c_void};
use std::fs;
use std::io::{Read, Write};
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::mounts::{FrozenFilesystem, HungFilesystem};
use super::sandbox::{Founder, Life, Proc, Procs, Sandbox};
use super::state::{TIMEOUT, eventually, pids_in, put, start_of, state_of};
use super::{layout, sys};

/// No fixture forks longer than this, even if the test is killed.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

impl Sandbox {
    /// A process that sleeps. Every signal that kills by default kills it.
    #[track_caller]
    pub fn sleeper(&self, dirs: &[&Path]) -> Proc {
        let (child, _) = self.spawn(dirs, &[], |life| {
            life.join();
            life.ready();
            life.rest()
        });
        Proc::child(child)
    }

    /// A sleeper that belongs to this user.
    #[track_caller]
    pub fn sleeper_of(&self, user: u32, dirs: &[&Path]) -> Proc {
        let (child, _) = self.spawn(dirs, &[], |life| {
            life.join();
            if !sys::set_user(user, user, user) {
                life.fail();
            }
            life.ready();
            life.rest()
        });
        Proc::child(child)
    }

    /// A sleeper in each of the groups, which are all of one hierarchy; quick also for thousands.
    #[track_caller]
    pub fn one_each(&self, dirs: &[PathBuf]) -> Procs {
        let c = |path: PathBuf| CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL");
        let groups: Vec<CString> = dirs.iter().cloned().map(c).collect();
        let procs: Vec<CString> = dirs.iter().map(|dir| c(dir.join("cgroup.procs"))).collect();
        let is_v2 = dirs.first().is_some_and(|dir| dir.join("cgroup.events").exists());
        let (_, pids) = self.spawn_kept(&[], &[], Founder::Leaves, |life| {
            for (group, procs) in groups.iter().zip(&procs) {
                let group = if is_v2 { sys::open(group) } else { -1 };
                let pid = if is_v2 { sys::fork_into(group) } else { sys::fork() };
                match pid {
                    -1 => life.fail(),
                    0 if is_v2 => life.rest(),
                    0 => {
                        let procs = sys::open_write(procs);
                        if !sys::write(procs, b"0") {
                            life.fail();
                        }
                        sys::close(procs);
                        life.rest()
                    }
                    pid if is_v2 => life.tell_pid(pid),
                    _ => {}
                }
                sys::close(group);
            }
        });
        let mut pids = pids;
        if !is_v2 {
            eventually("all have joined", || {
                pids = dirs.iter().flat_map(|dir| pids_in(dir)).collect();
                pids.len() == dirs.len()
            });
        }
        Procs(pids.into_iter().map(Proc::kept).collect())
    }

    /// A process that sleeps where neither a freeze nor a signal reaches it (state `D`), until `hung` is dropped.
    #[track_caller]
    pub fn uninterruptible(&self, hung: &HungFilesystem, dirs: &[&Path]) -> Proc {
        // Each with a name of its own: a second lookup of a name waits for the first, not for the server.
        let path = hung.dir.join(self.number().to_string());
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL");
        let (child, _) = self.spawn(dirs, &[], |life| {
            life.join();
            life.ready();
            sys::open(&path);
            life.rest()
        });
        // FUSE_LOOKUP. The kernel also reports signals to other waiting processes.
        while hung.request()[4..8] != 1_u32.to_ne_bytes() {}
        Proc::child(child)
    }

    /// A process that sleeps where no signal reaches it (state `D`), until `filesystem` is dropped.
    #[track_caller]
    pub fn writing_to(&self, filesystem: &FrozenFilesystem, dirs: &[&Path]) -> Proc {
        let file = filesystem.fd();
        let (child, _) = self.spawn(dirs, &[file], |life| {
            life.join();
            life.ready();
            sys::write(file, b"x");
            life.rest()
        });
        eventually("the write", || state_of(child.pid) == Some('D'));
        Proc::child(child)
    }

    /// The same, with this much memory of its own.
    #[track_caller]
    pub fn big_memory_writing_to(&self, filesystem: &FrozenFilesystem, mib: usize, dirs: &[&Path]) -> Proc {
        let file = filesystem.fd();
        let (child, _) = self.spawn(dirs, &[file], |life| {
            life.join();
            if !sys::fill_memory(mib << 20) {
                life.fail();
            }
            life.ready();
            sys::write(file, b"x");
            life.rest()
        });
        eventually("the write", || state_of(child.pid) == Some('D'));
        Proc::child(child)
    }

    /// A sleeper that a tracer outside of the groups has stopped (state `t`).
    #[track_caller]
    pub fn ptraced(&self, dirs: &[&Path]) -> Proc {
        let process = self.sleeper(dirs);
        let pid = process.pid;
        // Its tracer is told of its exit before its parent, and has to wait for it.
        self.spawn(&[], &[], |life| {
            if !sys::trace_stop(pid) {
                life.fail();
            }
            life.ready();
            while let Ok((0, _)) = sys::wait(pid, libc::WNOHANG | libc::__WALL) {
                life.nap(5);
            }
        });
        process
    }

    /// Processes that fill `mib` of memory each, one after another: once one is killed for it, as their group's
    /// limit shall see to, the next begins. Up to a minute; then it sleeps.
    #[track_caller]
    pub fn memory_hog(&self, mib: usize, dirs: &[&Path]) -> Proc {
        let end = sys::now_ms() + i64::from(millis(BUSY_LIMIT));
        let (_, pids) = self.spawn_kept(dirs, &[], Founder::Stays, |life| {
            life.join();
            life.close_joins();
            life.tell_pid(sys::getpid());
            let mut told = false;
            while sys::now_ms() < end {
                match sys::fork() {
                    -1 => life.nap(1),
                    0 => {
                        sys::fill_memory(mib << 20);
                        life.rest()
                    }
                    pid => {
                        if !told {
                            life.ready();
                            told = true;
                        }
                        while !life.gone(pid) {
                            life.nap(1);
                        }
                    }
                }
            }
            life.rest()
        });
        Proc::kept(pids[0])
    }

    /// `n` sleepers, quick also for thousands: they are forked within the groups, since moving a process into
    /// a group costs a wait for all CPUs.
    #[track_caller]
    pub fn sleepers(&self, n: usize, dirs: &[&Path]) -> Procs {
        let (_, pids) = self.spawn_kept(dirs, &[], Founder::Leaves, |life| {
            life.join();
            life.close_joins();
            for _ in 0..n {
                match life.fork() {
                    0 => life.rest(),
                    pid => life.tell_pid(pid),
                }
            }
        });
        assert_eq!(pids.len(), n, "sleepers");
        Procs(pids.into_iter().map(Proc::kept).collect())
    }

    /// A sleeper that SIGSTOP has stopped (state `T`).
    #[track_caller]
    pub fn stopped(&self, dirs: &[&Path]) -> Proc {
        let process = self.sleeper(dirs);
        process.signal(libc::SIGSTOP);
        eventually("stopped", || process.state() == Some('T'));
        process
    }

    /// A sleeper that ignores SIGTERM.
    #[track_caller]
    pub fn ignores_sigterm(&self, dirs: &[&Path]) -> Proc {
        let (child, _) = self.spawn(dirs, &[], |life| {
            sys::ignore_signal(libc::SIGTERM);
            life.join();
            life.ready();
            life.rest()
        });
        Proc::child(child)
    }

    /// A sleeper that upon SIGTERM says so, works for `delay` and then exits with 0.
    #[track_caller]
    pub fn on_term(&self, delay: Duration, dirs: &[&Path]) -> OnTerm {
        static REPORT: AtomicI32 = AtomicI32::new(-1);
        static DELAY: AtomicI32 = AtomicI32::new(0);
        extern "C" fn handler(_signal: c_int) {
            sys::write(REPORT.load(Ordering::Relaxed), b"T");
            // No descriptor to poll: just the time.
            sys::poll2(-1, -1, DELAY.load(Ordering::Relaxed));
            sys::exit(0)
        }
        let (termed, report) = sys::pipe().expect("pipe");
        let report_fd = report.as_raw_fd();
        let (child, _) = self.spawn(dirs, &[report_fd], |life| {
            // The child's own copies of the statics.
            REPORT.store(report_fd, Ordering::Relaxed);
            DELAY.store(millis(delay), Ordering::Relaxed);
            sys::handle_signal(libc::SIGTERM, handler);
            life.join();
            life.ready();
            life.rest()
        });
        OnTerm { process: Proc::child(child), termed, _report: report }
    }

    /// A process whose leader has exited (state `Z`) while another thread of it sleeps on. It cannot be
    /// waited for and stays in `cgroup.procs` until that thread dies.
    #[track_caller]
    pub fn zombie_leader(&self, dirs: &[&Path]) -> Proc {
        let (child, _) = self.spawn(dirs, &[], |life| {
            life.join();
            if sys::clone(sys::THREAD, rest, life) < 0 {
                life.fail();
            }
            life.ready();
            sys::exit_thread()
        });
        eventually("zombie leader", || state_of(child.pid) == Some('Z'));
        Proc::child(child)
    }

    /// Processes that keep forking as fast as they can, `max_tasks` of them at most, for a minute at most.
    /// Returns when that many live, nearly; killed ones are replaced at once as long as one is left.
    ///
    /// The bound is a v1 pids group beside `dirs` if there is v1 pids (or the one among `dirs`); else our v2
    /// top directory, whose bound then holds for later fixtures in the groups as well. The test shall
    /// `require!(pids_limit())`.
    #[track_caller]
    pub fn fork_storm(&self, max_tasks: usize, dirs: &[&Path]) -> ForkStorm {
        let v1 = layout::v1_root("pids");
        let limit = match &v1 {
            Some(root) => dirs.iter().find(|dir| dir.starts_with(root)).map_or_else(
                || self.v1("pids", &format!("storm-{}", self.number())),
                |dir| dir.to_path_buf(),
            ),
            None => self.v2_dir(),
        };
        let already = tasks(&limit);
        put(&limit.join("pids.max"), &(already + max_tasks).to_string());
        // The bound first: nothing forks outside of it.
        let mut joins: Vec<&Path> = dirs.to_vec();
        if v1.is_some() {
            joins.retain(|dir| **dir != *limit);
            joins.insert(0, &limit);
        } else {
            let bounded = dirs.iter().any(|dir| dir.starts_with(&limit));
            assert!(bounded, "without v1 pids a storm needs a v2 group, for its bound");
        }
        let end = sys::now_ms() + i64::from(millis(BUSY_LIMIT));
        let (_, _) = self.spawn_kept(&joins, &[], Founder::Stays, |life| {
            life.join();
            life.close_joins();
            life.ready();
            // Each child goes on with this loop as well.
            while sys::now_ms() < end {
                // Out of tasks: retry soon. And check whether the sandbox has ended.
                life.nap(i32::from(sys::fork() < 0));
            }
        });
        let storm = ForkStorm { limit, already };
        eventually("storm at its bound", || storm.tasks() >= max_tasks - max_tasks / 10);
        storm
    }

    /// A process outside of the groups that puts a new sleeper into them every `pause`, `count` in all: the
    /// groups fill again while they are being reaped. It goes on when the groups are gone, without effect.
    /// One is in already when this returns. The pid is that of the process outside.
    #[track_caller]
    pub fn refiller(&self, count: usize, pause: Duration, dirs: &[&Path]) -> Proc {
        let pause = millis(pause);
        let (_, pids) = self.spawn_kept(dirs, &[], Founder::Stays, |life| {
            life.tell_pid(sys::getpid());
            for nth in 0..count {
                if life.fork() == 0 {
                    if !life.try_join() {
                        sys::exit(0);
                    }
                    life.close_joins();
                    if nth == 0 {
                        life.ready();
                    }
                    life.rest();
                }
                life.nap(pause);
            }
            life.rest()
        });
        Proc::kept(pids[0])
    }

    /// A member that keeps forking members that live for some milliseconds, one at a time, up to `duration`
    /// (a minute at most); then it sleeps.
    #[track_caller]
    pub fn churn(&self, duration: Duration, dirs: &[&Path]) -> Proc {
        let end = sys::now_ms() + i64::from(millis(duration.min(BUSY_LIMIT)));
        let (_, pids) = self.spawn_kept(dirs, &[], Founder::Stays, |life| {
            life.join();
            life.close_joins();
            life.tell_pid(sys::getpid());
            life.ready();
            while sys::now_ms() < end {
                match sys::fork() {
                    -1 => life.nap(1),
                    0 => {
                        life.nap(2);
                        sys::exit(0)
                    }
                    // SIGCHLD is ignored: this waits for the end and then is an error.
                    pid => _ = sys::wait(pid, 0),
                }
            }
            life.rest()
        });
        Proc::kept(pids[0])
    }

    /// A PID namespace in the groups: its init, the first of the processes returned, and `n` more. As an init
    /// it ignores SIGTERM; when it dies the kernel kills the others.
    #[track_caller]
    pub fn pidns_sleepers(&self, n: usize, dirs: &[&Path]) -> Procs {
        let (_, inits) = self.spawn_kept(dirs, &[], Founder::Leaves, |life| {
            if !sys::unshare(libc::CLONE_NEWPID) {
                life.fail();
            }
            life.join();
            life.close_joins();
            let init = life.fork();
            if init == 0 {
                for _ in 0..n {
                    if life.fork() == 0 {
                        life.rest();
                    }
                }
                life.rest()
            }
            life.tell_pid(init);
        });
        let init = inits[0];
        let space = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = space(init).expect("the new init lives");
        let dir = dirs.first().expect("the members are found in their group");
        let mut found = Vec::new();
        // The pids that the init's fork calls return are those of its own namespace.
        eventually("members of the new PID namespace", || {
            found = pids_in(dir);
            found.retain(|&pid| pid != init && space(pid).as_ref() == Some(&ours));
            found.len() == n
        });
        found.insert(0, init);
        Procs(found.into_iter().map(Proc::kept).collect())
    }

    /// A PID namespace whose init is in the groups, and whose only other member is in the group `other`, which
    /// has no others; in this order.
    #[track_caller]
    pub fn pidns_across(&self, dirs: &[&Path], elsewhere: &Path) -> Procs {
        let file = fs::OpenOptions::new().write(true).open(elsewhere.join("cgroup.procs")).expect("procs");
        let procs = file.as_raw_fd();
        let (_, mut pids) = self.spawn_kept(dirs, &[procs], Founder::Leaves, |life| {
            if !sys::unshare(libc::CLONE_NEWPID) {
                life.fail();
            }
            life.join();
            life.close_joins();
            let init = life.fork();
            if init == 0 {
                if life.fork() == 0 {
                    sys::write(procs, b"0");
                    sys::close(procs);
                }
                life.rest()
            }
            life.tell_pid(init);
        });
        eventually("the member of the new PID namespace", || pids_in(elsewhere).len() == 1);
        pids.extend(pids_in(elsewhere));
        Procs(pids.into_iter().map(Proc::kept).collect())
    }

    /// Makes `dir/threaded`, a threaded v2 group (`dir` becomes "domain threaded"), and a process in `dir`
    /// with one thread there and one thread below.
    #[track_caller]
    pub fn threaded(&self, dir: &Path) -> Threaded {
        let below = dir.join("threaded");
        fs::create_dir(&below).expect("mkdir threaded");
        put(&below.join("cgroup.type"), "threaded");
        let threads = fs::OpenOptions::new().write(true).open(below.join("cgroup.threads")).expect("threads");
        struct Args<'a>(&'a Life<'a>, c_int);
        extern "C" fn second(args: *mut c_void) -> c_int {
            // SAFETY: `clone` passes on the reference it was given, which lives as long as the process.
            let Args(life, threads) = unsafe { &*args.cast::<Args<'_>>() };
            if !sys::write(*threads, b"0") {
                life.fail();
            }
            life.tell_pid(sys::gettid());
            life.ready();
            life.rest()
        }
        let threads = threads.as_raw_fd();
        let (child, tids) = self.spawn(&[dir], &[threads], |life| {
            life.join();
            if sys::clone(sys::THREAD, second, &Args(life, threads)) < 0 {
                life.fail();
            }
            life.rest()
        });
        Threaded { process: Proc::child(child), dir: below, tid: tids[0] }
    }

    /// A process that waits for its vfork child (state `D`; only signals that kill get it out), and that
    /// child, a sleeper; in this order. The parent ignores SIGTERM.
    #[track_caller]
    pub fn vfork(&self, dirs: &[&Path]) -> Procs {
        extern "C" fn second(life: *mut c_void) -> c_int {
            // SAFETY: `clone` passes on the reference it was given, which lives as long as the process.
            let life = unsafe { &*life.cast::<Life<'_>>() };
            life.tell_pid(sys::getpid());
            life.ready();
            life.rest()
        }
        let (_, pids) = self.spawn_kept(dirs, &[], Founder::Stays, |life| {
            life.join();
            life.close_joins();
            sys::ignore_signal(libc::SIGTERM);
            life.tell_pid(sys::getpid());
            if sys::clone(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, second, life) < 0 {
                life.fail();
            }
        });
        eventually("vfork wait", || state_of(pids[0]) == Some('D'));
        Procs(pids.into_iter().map(Proc::kept).collect())
    }

    /// A sleeper that cannot finish its exit: after SIGKILL it stops in its exit (state `t`) and stays in its
    /// groups until [`TraceExit::release`].
    #[track_caller]
    pub fn trace_exit(&self, dirs: &[&Path]) -> TraceExit {
        self.hold_exit(self.sleeper(dirs))
    }

    /// As [`trace_exit`](Self::trace_exit), of a process that is there.
    #[track_caller]
    pub fn hold_exit(&self, process: Proc) -> TraceExit {
        let pid = process.pid;
        let (go, signal) = sys::pipe().expect("pipe");
        let go_fd = go.as_raw_fd();
        // A process of its own, since only the thread that attached may detach. It never waits for the
        // tracee, and however it ends, the kernel detaches the tracee.
        let (tracer, _) = self.spawn(&[], &[go_fd], |life| {
            if !sys::trace_exit(pid) {
                life.fail();
            }
            life.ready();
            life.wait_byte(go_fd);
            if let Ok((1.., _)) = sys::wait(pid, libc::WNOHANG | libc::__WALL) {
                sys::trace_continue(pid);
            }
        });
        TraceExit { process, tracer: Proc::child(tracer), signal, _go: go }
    }

    /// A sleeper with this much memory of its own, which takes long to exit.
    #[track_caller]
    pub fn big_memory(&self, mib: usize, dirs: &[&Path]) -> Proc {
        let (child, _) = self.spawn(dirs, &[], |life| {
            life.join();
            if !sys::fill_memory(mib << 20) {
                life.fail();
            }
            life.ready();
            life.rest()
        });
        Proc::child(child)
    }

    /// A process that must survive the test, for instance in a sibling of the target.
    #[track_caller]
    pub fn canary(&self, dirs: &[&Path]) -> Canary {
        let (here, there) = UnixStream::pair().expect("socketpair");
        here.set_read_timeout(Some(TIMEOUT)).expect("timeout");
        let fd = there.as_raw_fd();
        let (child, _) = self.spawn(dirs, &[fd], |life| {
            life.join();
            life.close_joins();
            life.ready();
            loop {
                life.wait_byte(fd);
                sys::write(fd, b"p");
            }
        });
        let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        Canary { process: Proc::child(child), dirs, socket: here }
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// The body of a second thread that only sleeps.
extern "C" fn rest(life: *mut c_void) -> c_int {
    // SAFETY: `clone` passes on the reference it was given, which lives as long as the process.
    unsafe { &*life.cast::<Life<'_>>() }.rest()
}

/// `pids.current`: zombies count until they have been waited for.
fn tasks(dir: &Path) -> usize {
    let text = fs::read_to_string(dir.join("pids.current")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// See [`Sandbox::fork_storm`].
#[derive(Debug)]
pub struct ForkStorm {
    /// The group with the bound. In v1 it has exactly the storm's processes, wherever else they are.
    pub limit: PathBuf,
    already: usize,
}

impl ForkStorm {
    /// How many tasks there are now; on v2 others started later in this sandbox count as well.
    pub fn tasks(&self) -> usize {
        tasks(&self.limit).saturating_sub(self.already)
    }
}

/// See [`Sandbox::on_term`].
#[derive(Debug)]
pub struct OnTerm {
    pub process: Proc,
    termed: OwnedFd,
    /// Kept open so that no end of file looks like a report.
    _report: OwnedFd,
}

impl OnTerm {
    /// Whether SIGTERM has reached it (so far, or within `timeout`).
    pub fn saw_term(&self, timeout: Duration) -> bool {
        sys::readable(self.termed.as_raw_fd(), millis(timeout))
    }
}

impl Deref for OnTerm {
    type Target = Proc;
    fn deref(&self) -> &Proc {
        &self.process
    }
}

/// See [`Sandbox::threaded`].
#[derive(Debug)]
pub struct Threaded {
    pub process: Proc,
    /// The threaded group. Reading its `cgroup.procs` gives EOPNOTSUPP.
    pub dir: PathBuf,
    /// The thread in it.
    pub tid: i32,
}

impl Deref for Threaded {
    type Target = Proc;
    fn deref(&self) -> &Proc {
        &self.process
    }
}

/// See [`Sandbox::trace_exit`].
#[derive(Debug)]
pub struct TraceExit {
    pub process: Proc,
    tracer: Proc,
    signal: OwnedFd,
    _go: OwnedFd,
}

impl TraceExit {
    /// Whether it was killed and is stopped in its exit.
    pub fn parked(&self) -> bool {
        self.process.state() == Some('t')
    }

    /// Lets it exit (if it was killed), and waits until the tracer is gone.
    #[track_caller]
    pub fn release(&self) {
        sys::write(self.signal.as_raw_fd(), b"g");
        assert!(self.tracer.ended(TIMEOUT), "the tracer does not end");
    }
}

impl Deref for TraceExit {
    type Target = Proc;
    fn deref(&self) -> &Proc {
        &self.process
    }
}

/// See [`Sandbox::canary`].
#[derive(Debug)]
pub struct Canary {
    pub process: Proc,
    dirs: Vec<PathBuf>,
    socket: UnixStream,
}

impl Canary {
    /// Asserts that it lives, is still in its groups, and answers: it is neither stopped nor frozen.
    #[track_caller]
    pub fn assert_alive(&self) {
        let pid = self.process.pid;
        assert!(self.process.alive(), "canary {pid} is dead");
        for dir in &self.dirs {
            assert!(pids_in(dir).contains(&pid), "canary {pid} is no longer in {}", dir.display());
        }
        (&self.socket).write_all(b"p").expect("canary: write");
        (&self.socket).read_exact(&mut [0]).unwrap_or_else(|error| panic!("canary {pid} is silent: {error}"));
    }
}

impl Deref for Canary {
    type Target = Proc;
    fn deref(&self) -> &Proc {
        &self.process
    }
}
