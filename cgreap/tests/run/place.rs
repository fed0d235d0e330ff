//! Where the tests of `cgreap run` run commands, and what is left of them.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::*;

/// The program. Where it was carried to another machine, the environment says where it is.
pub fn program() -> PathBuf {
    std::env::var_os("CGREAP_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_cgreap").into(), PathBuf::from)
}

/// Set in the environment of all that a test runs, so that whatever lives is found, wherever it has gone.
pub const MARK: &str = "CGREAP_TEST_MARK";

/// Where a test runs commands: the directory that its cgroups are made in, and what is left of them.
pub struct Place<'a> {
    pub sandbox: &'a Sandbox,
    pub kind: Kind,
    pub parent: PathBuf,
    pub mark: String,
    /// For [`Kind::User`].
    user: u32,
    copy: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    V2,
    V1,
    /// v2, as a user that it was delegated to.
    User,
}

impl<'a> Place<'a> {
    pub fn new(sandbox: &'a Sandbox, kind: Kind) -> Place<'a> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = match kind {
            Kind::V2 => sandbox.v2("parent"),
            Kind::V1 => sandbox.v1("freezer", "parent"),
            Kind::User => sandbox.v2("user"),
        };
        let mark = format!("{}-{}", parent.display(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut copy = None;
        if kind == Kind::User {
            delegate(&parent);
            // Every user can run it, which the original, as built, may not be.
            let path = sandbox.scratch().join("cgreap");
            fs::copy(program(), &path).expect("copy");
            copy = Some(path);
        }
        Place { sandbox, kind, parent, mark, user: USER, copy }
    }

    /// Delegated to a user that runs nothing else.
    pub fn of_user(mut self, user: u32) -> Place<'a> {
        self.user = user;
        for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            chown(self.parent.join(file), Some(user), None).expect("chown");
        }
        self
    }

    pub fn program(&self) -> PathBuf {
        self.copy.clone().unwrap_or_else(program)
    }

    /// `cgreap run` with these options, whose cgroup is below the parent.
    pub fn command<A: AsRef<OsStr>>(&self, options: &[A], command: &[&str]) -> Command {
        let parent = [OsStr::new("--parent"), self.parent.as_os_str()];
        let options: Vec<_> = parent.into_iter().chain(options.iter().map(AsRef::as_ref)).collect();
        self.without_parent(&options, command)
    }

    pub fn without_parent<A: AsRef<OsStr>>(&self, options: &[A], command: &[&str]) -> Command {
        let mut run = Command::new(self.program());
        run.arg("run").args(options).arg("--").args(command);
        self.set(&mut run);
        run
    }

    pub fn set(&self, run: &mut Command) {
        run.env(MARK, &self.mark).env_remove("RUST_LOG").current_dir("/");
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.kind == Kind::User {
            become_user_in(run, &self.parent, self.user);
        }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, options: &[A], command: &[&str]) -> Run {
        output(start(&mut self.command(options, command)))
    }

    /// Runs a shell command to its end.
    #[track_caller]
    pub fn sh<A: AsRef<OsStr>>(&self, options: &[A], script: &str) -> Run {
        self.run(options, &["sh", "-c", script])
    }

    /// All that this test has started and that lives.
    pub fn living(&self) -> Vec<String> {
        let mark = format!("{MARK}={}\0", self.mark);
        let is_marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark.as_bytes())
        };
        let pids = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let line =
            |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        pids.filter(is_marked).map(|pid| format!("{pid}: {}", line(pid))).collect()
    }

    /// Whether a process that this test has started is stopped.
    pub fn some_is_stopped(&self) -> bool {
        let pid = |line: &String| line.split(':').next().and_then(|pid| pid.parse().ok());
        self.living().iter().filter_map(pid).any(|pid| state_of(pid) == Some('T'))
    }

    /// The cgroups that are left.
    pub fn directories(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.parent).expect("parent").flatten();
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect()
    }

    #[track_caller]
    pub fn assert_nothing_left(&self, what: &str) {
        assert_eq!(self.living(), Vec::<String>::new(), "{what}: alive");
        assert_eq!(self.directories(), Vec::<PathBuf>::new(), "{what}: directories");
    }
}

/// Has the child join the cgroup as root, and then become the user.
#[expect(unsafe_code, reason = "std changes the user before it calls a closure")]
pub fn become_user_in(command: &mut Command, group: &Path, user: u32) {
    let procs =
        CString::new(group.join("cgroup.procs").into_os_string().into_encoded_bytes()).expect("no NUL");
    let enter = move || {
        // SAFETY: system calls, on a string that outlives them.
        let done = unsafe {
            let file = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            file >= 0
                && libc::write(file, c"0".as_ptr().cast(), 1) == 1
                && libc::setgroups(0, std::ptr::null()) == 0
                && libc::setresgid(user, user, user) == 0
                && libc::setresuid(user, user, user) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: see above.
    unsafe { command.pre_exec(enter) };
}

/// Has the child make a system call before it executes the program.
#[expect(unsafe_code, reason = "std has no limits and no signals")]
pub fn before_exec(command: &mut Command, call: fn()) {
    let call = move || {
        call();
        Ok(())
    };
    // SAFETY: nothing but system calls.
    unsafe { command.pre_exec(call) };
}

#[track_caller]
pub fn start(command: &mut Command) -> Child {
    let mut child = None;
    // Busy: a child that another thread has just forked still has the copy open for writing.
    eventually("it starts", || match command.spawn() {
        Ok(spawned) => child.insert(spawned).id() > 0,
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => false,
        Err(error) => panic!("{command:?}: {error}"),
    });
    child.expect("just started")
}

/// The exit status and the output of a run.
#[derive(Debug)]
pub struct Run {
    /// As shells tell it.
    pub status: Option<i32>,
    /// The signal that it died of.
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

#[track_caller]
pub fn output(mut child: Child) -> Run {
    let pid = child.id();
    let limit = thread::spawn(move || {
        let out = child.stdout.take();
        let err = child.stderr.take();
        let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)).transpose().expect("read");
                bytes
            })
        };
        let (out, err) =
            (read(out.map(|pipe| Box::new(pipe) as _)), read(err.map(|pipe| Box::new(pipe) as _)));
        let status = child.wait().expect("wait");
        Output { status, stdout: out.join().expect("reader"), stderr: err.join().expect("reader") }
    });
    assert!(wait_until(Duration::from_secs(90), || limit.is_finished()), "cgreap (pid {pid}) does not end");
    let output = limit.join().expect("waiter");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let signal = output.status.signal();
    let status = output.status.code().or(signal.map(|signal| 128 + signal));
    Run { status, signal, out: text(output.stdout), err: text(output.stderr) }
}

#[expect(unsafe_code, reason = "std cannot send signals")]
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: no memory is involved, and a child that was not waited for keeps its pid.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}
