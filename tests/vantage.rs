//! A caller's own cgroup and its ancestors are refused, and other cgroups are reaped, from wherever the caller sees them:
//! with namespaces, mounts and a /proc of its own, or of another namespace, or with none.
//!
//! Each caller is a process of its own, in namespaces inside those of the test, with a child process in its target and
//! another one beside itself.

#![allow(unsafe_code, reason = "system calls that std does not have")]

mod common;

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cgroup_reaper::{ReapError, Reaper, Refusal};
use common::*;

/// Set for a caller: its target, and the files to which its child writes to get into the target.
const TARGET: &str = "CGROUP_REAPER_VANTAGE_TARGET";
const JOINS: &str = "CGROUP_REAPER_VANTAGE_JOINS";

/// What a caller prints before its result.
const MARK: &str = "result of the caller: ";

/// How the caller sees the target, beside what the namespaces of [`isolated`] show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vantage {
    /// A PID namespace with its own /proc, as every isolated test has it.
    OwnProc,
    /// A cgroup namespace whose root is the caller's cgroup.
    CgroupNamespace,
    /// A cgroup namespace, from whose root the caller was moved to another cgroup.
    CgroupNamespaceMoved,
    /// A PID namespace with the /proc of the one above it.
    ForeignProc,
    /// Through the root directory of a process in another mount namespace.
    OtherRoot,
    /// The same, without cgroup mounts of its own.
    OtherRootWithoutMounts,
    NoProc,
    /// /proc hides the processes of others, and the caller may not trace any.
    HidePid,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    V1,
    V2,
    Threaded,
}

/// What the target is to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relation {
    Own,
    Ancestor,
    Sibling,
    Unrelated,
}

/// The cgroups of one caller, and the files to write to for a process that joins one of them.
struct Groups {
    kind: Kind,
    parent: PathBuf,
    own: PathBuf,
    sibling: PathBuf,
    unrelated: PathBuf,
    /// Where a caller in a cgroup namespace was first.
    first: PathBuf,
}

impl Groups {
    fn make(sandbox: &Sandbox, kind: Kind, name: &str) -> Groups {
        let make = |group: &str| match kind {
            Kind::V1 => sandbox.v1("freezer", &format!("{name}/{group}")),
            Kind::V2 | Kind::Threaded => sandbox.v2(&format!("{name}/{group}")),
        };
        let groups = Groups {
            kind,
            parent: make("parent"),
            own: make("parent/own"),
            sibling: make("parent/sibling"),
            unrelated: make("other/unrelated"),
            first: make("first"),
        };
        if kind == Kind::Threaded {
            for group in [&groups.own, &groups.sibling, &groups.unrelated] {
                fs::write(group.join("cgroup.type"), "threaded").expect("cgroup.type");
            }
        }
        groups
    }

    fn target(&self, relation: Relation) -> &Path {
        match relation {
            Relation::Own => &self.own,
            Relation::Ancestor => &self.parent,
            Relation::Sibling => &self.sibling,
            Relation::Unrelated => &self.unrelated,
        }
    }

    fn joins(&self, group: &Path) -> Vec<PathBuf> {
        if self.kind == Kind::Threaded && *group != self.parent && *group != self.first {
            vec![group.parent().expect("a domain").join("cgroup.procs"), group.join("cgroup.threads")]
        } else {
            vec![group.join("cgroup.procs")]
        }
    }
}

fn join(files: &[PathBuf]) -> io::Result<()> {
    files.iter().try_for_each(|file| fs::write(file, "0"))
}

fn check(done: bool) -> io::Result<()> {
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Vantage {
    /// The path by which the caller names what the test has at `path`.
    fn path(self, path: &Path) -> PathBuf {
        match self {
            Vantage::OtherRoot | Vantage::OtherRootWithoutMounts => {
                Path::new("/proc/1/root").join(path.strip_prefix("/").expect("absolute"))
            }
            _ => path.to_path_buf(),
        }
    }

    /// In the caller, before it executes the program.
    fn enter(self, groups: &Groups) -> io::Result<()> {
        if self == Vantage::CgroupNamespaceMoved {
            join(&groups.joins(&groups.first))?;
            check(unshare(libc::CLONE_NEWCGROUP))?;
        }
        join(&groups.joins(&groups.own))?;
        match self {
            Vantage::OwnProc | Vantage::CgroupNamespaceMoved => {}
            Vantage::CgroupNamespace => check(unshare(libc::CLONE_NEWCGROUP))?,
            Vantage::ForeignProc => {
                check(unshare(libc::CLONE_NEWPID))?;
                match fork() {
                    -1 => return Err(io::Error::last_os_error()),
                    0 => die_with_parent(),
                    inner => {
                        // Among them the pipe by which std learns that exec has happened.
                        close_all_but(&[]);
                        exit(if wait(inner, 0).is_ok_and(|(_, status)| status == 0) { 0 } else { 1 });
                    }
                }
            }
            Vantage::OtherRoot => check(unshare(libc::CLONE_NEWNS))?,
            Vantage::OtherRootWithoutMounts => {
                check(unshare(libc::CLONE_NEWNS))?;
                unmount(Path::new("/sys/fs/cgroup"));
            }
            Vantage::NoProc => {
                check(unshare(libc::CLONE_NEWNS))?;
                try_mount(Path::new("none"), Path::new("/proc"), "tmpfs", 0, "")?;
            }
            Vantage::HidePid => {
                check(unshare(libc::CLONE_NEWNS))?;
                // The group is one that the caller is not in.
                try_mount(Path::new("proc"), Path::new("/proc"), "proc", 0, "hidepid=2,gid=54321")?;
                const CAP_SYS_PTRACE: libc::c_ulong = 19;
                // SAFETY: no pointers.
                check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0) } == 0)?;
            }
        }
        Ok(())
    }
}

/// A child process that rests until it is killed, once it has written to these files.
fn child(joins: &[PathBuf]) -> i32 {
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    let child = fork();
    if child == 0 {
        let _guard = ExitOnUnwind;
        die_with_parent();
        if let Err(error) = join(joins) {
            println!("{MARK}its child: {joins:?}: {error}");
            exit(1);
        }
        drop((reader, writer));
        loop {
            std::thread::park();
        }
    }
    drop(writer);
    // The end of the pipe: the child is in its place.
    let _ = io::copy(&mut fs::File::from(reader), &mut io::sink());
    child
}

/// Whether a child is alive. It is not afterwards.
fn was_alive(child: i32) -> &'static str {
    if wait(child, libc::WNOHANG).expect("a child").0 == child {
        return "dead";
    }
    kill(child, libc::SIGKILL).expect("a child");
    wait(child, 0).expect("a child");
    "alive"
}

/// The caller itself, which `cell` starts. Without its variables it is no test.
#[test]
fn caller() {
    let (Some(target), Some(joins)) = (env::var_os(TARGET), env::var_os(JOINS)) else { return };
    let bystander = child(&[]);
    let member = child(&env::split_paths(&joins).collect::<Vec<_>>());
    let result = match cgroup_reaper::reap(Reaper::at(target).deadline(Duration::from_secs(5))) {
        Ok(reaped) => reaped.outcome.to_string(),
        Err(ReapError::Refused { refusal: Refusal::OwnCgroup { .. }, .. }) => "own cgroup".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("{MARK}{result}, member {}, bystander {}", was_alive(member), was_alive(bystander));
}

/// The result of a caller with one target.
fn cell(vantage: Vantage, groups: Groups, relation: Relation) -> String {
    let target = groups.target(relation);
    let joins: Vec<_> = groups.joins(target).iter().map(|file| vantage.path(file)).collect();
    let mut command = Command::new(env::current_exe().expect("own path"));
    command
        .args(["--exact", "caller", "--nocapture", "--test-threads=1"])
        .env(TARGET, vantage.path(target))
        .env(JOINS, env::join_paths(joins).expect("no colons"))
        .stdin(Stdio::null());
    // SAFETY: the other thread of this program only sleeps, so that none holds a lock of the allocator.
    unsafe { command.pre_exec(move || vantage.enter(&groups)) };
    match command.output() {
        Err(error) => format!("not started: {error}"),
        Ok(output) => {
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            let result = out.split_once(MARK).and_then(|(_, rest)| rest.lines().next());
            result.map_or_else(|| format!("no result: {output:?}"), str::to_owned)
        }
    }
}

/// All targets of callers at one vantage point.
fn cells(test: &str, vantage: Vantage) {
    isolated(test, || {
        // Process 2 of this namespace, the test program, gets a thread 3. In `ForeignProc`, they are the bystander's pid
        // and the member's.
        std::thread::spawn(std::thread::park);
        let sandbox = Sandbox::new(test);
        let mut wrong = Vec::new();
        let kinds = [(Kind::V1, v1("freezer")), (Kind::V2, v2()), (Kind::Threaded, v2())];
        for kind in kinds.into_iter().filter(|(_, need)| need.is_ok()).map(|(kind, _)| kind) {
            for relation in [Relation::Own, Relation::Ancestor, Relation::Sibling, Relation::Unrelated] {
                let groups = Groups::make(&sandbox, kind, &format!("{kind:?}-{relation:?}"));
                let canary = sandbox.canary(&[&groups.first]);
                let result = cell(vantage, groups, relation);
                let right = match relation {
                    Relation::Own | Relation::Ancestor => "own cgroup, member alive, bystander alive",
                    Relation::Sibling | Relation::Unrelated => "removed, member dead, bystander alive",
                };
                if result != right {
                    wrong.push(format!("{vantage:?}, {kind:?}, {relation:?}: {result}"));
                }
                canary.assert_alive();
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

macro_rules! vantages {
    ($($name:ident: $vantage:ident,)+) => {$(
        #[test]
        fn $name() {
            require!(any_hierarchy(), namespaces());
            cells(test_name!(), Vantage::$vantage);
        }
    )+};
}

vantages! {
    with_an_own_proc: OwnProc,
    in_a_cgroup_namespace: CgroupNamespace,
    in_a_cgroup_namespace_outside_of_its_root: CgroupNamespaceMoved,
    with_the_proc_of_another_pid_namespace: ForeignProc,
    through_the_root_of_another_process: OtherRoot,
    through_the_root_of_another_process_without_own_mounts: OtherRootWithoutMounts,
    without_proc: NoProc,
    with_hidden_processes: HidePid,
}
