//! How to start a job so that all of it can be reaped: inside of its cgroup from its first instruction on.
//!
//! A process that a member forks is a member too, and stays one after `setsid`, a double fork or a change of its
//! name. So a reap reaches all of a job if the job's first process was in the cgroup before it ran any code of the
//! job.
//!
//! # Ways to start a process in a cgroup
//!
//! | Way | What it needs |
//! |---|---|
//! | [The program executes itself](#the-program-executes-itself), joins, and becomes the job | nothing but `std` |
//! | [A shell](#a-shell) joins, and becomes the job | a shell |
//! | `cgreap run -- COMMAND` | the tool; it reaps as well |
//! | systemd starts it: `systemd-run --scope`, `StartTransientUnit` | systemd, see [below](#with-systemd) |
//! | clone3(2) with CLONE_INTO_CGROUP makes the process inside | Linux 5.7, v2, and `unsafe`: `std` has no call for it |
//! | `CommandExt::pre_exec` with a write(2) of `0` to `cgroup.procs` | `unsafe`: between fork and exec few functions may be called |
//!
//! To join costs 5 to 20 µs, and to execute twice about 1 ms. On v2 the kernel waits for all CPUs during a join, from Linux
//! 6.0 on and unless the hierarchy is mounted with `favordynmods`: that takes 4 to 15 ms (Linux 6.18), and less if another
//! process has just joined a cgroup. CLONE_INTO_CGROUP, which `cgreap run` uses, does not wait.
//!
//! **Do not move the process from outside.** Between the start and the move the job runs, and the processes that it
//! forks in that time stay where they are:
//!
//! ```no_run
//! # use std::{fs, process::Command};
//! let job = Command::new("make").arg("test").spawn()?;
//! // By now make may have started a compiler, which stays outside, and so does all that the compiler starts.
//! fs::write("/sys/fs/cgroup/batch/task-42/cgroup.procs", job.id().to_string())?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Of 1 000 shells whose first act was to start a process in the background, 124 had started it before they were
//! moved (Linux 6.18, two busy CPUs). No reap of the cgroup finds such a process.
//!
//! # The program executes itself
//!
//! The program that starts the job is also what the job's process runs first. It writes `0` to `cgroup.procs`, which
//! joins the cgroup, and executes the job, which keeps the pid. If one of the two fails, the job has not run at all.
//! This is `examples/start_in_cgroup.rs`, complete:
//!
//! ```no_run
#![doc = include_str!("../examples/start_in_cgroup.rs")]
//! ```
//!
//! - `Command::spawn` returns when the program has been executed the first time. If the command cannot be executed
//!   then, the exit status of the process says so.
//! - The process joins with its own rights. A job that is to run as another user drops them after the join: execute
//!   `setpriv --reuid=1000 --regid=1000 --clear-groups make test` in place of `make test`. `CommandExt::uid` in
//!   `start` would drop them too early.
//! - Environment, working directory and standard streams that `start` sets reach the job.
//! - A job that needs several v1 hierarchies joins a cgroup in each of them, one after another: on v1 a process is in
//!   one cgroup of each hierarchy.
//!
//! # A shell
//!
//! ```
//! use std::process::Command;
//! use cgroup_reaper::{Reaper, reap};
//!
//! /// `$1` is the cgroup, the rest is the command.
//! const JOIN: &str = r#"echo $$ > "$1/cgroup.procs" && shift && exec "$@""#;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let Some(dir) = doc_cgroup()? else { return Ok(()) };
//! let mut job = Command::new("sh")
//!     .args(["-c", JOIN, "sh"])
//!     .arg(&dir)
//!     .args(["sh", "-c", "setsid sleep 1000 & exit 7"])
//!     .spawn()?;
//! assert_eq!(job.wait()?.code(), Some(7));
//! // The sleep is still there, in a session of its own.
//! assert_ne!(std::fs::read_to_string(dir.join("cgroup.procs"))?, "");
//! reap(Reaper::at(&dir))?;
//! assert!(!dir.exists());
//! # Ok(())
//! # }
//! # fn doc_cgroup() -> std::io::Result<Option<std::path::PathBuf>> {
//! #     let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];
//! #     let dir = |root| format!("{root}/cgroup-reaper-doc-start-{}", std::process::id());
//! #     let usable = |root: &&str| std::path::Path::new(root).join("cgroup.procs").exists();
//! #     Ok(root.into_iter().filter(usable).map(dir).find(|dir| std::fs::create_dir(dir).is_ok()).map(Into::into))
//! # }
//! ```
//!
//! # The order of things
//!
//! 1. Make a directory of its own for each job: `create_dir`, not `create_dir_all`, with a name that no job had
//!    before. Write limits to its files now, before there is a member. With `pids.max` a fork storm comes to an end
//!    on every kernel.
//! 2. Start the job in it.
//! 3. Spawn the [`Reaper`] when the job is to end, or when its first process has exited, to kill the processes it left.
//!
//! A reaper that is spawned before the process has joined finds an empty cgroup and removes it. The join fails then,
//! and the job does not run. That is right for a job that was cancelled. With [`Reaper::when_empty`] it is not: spawn
//! the reaper after the join, see [`driving`](crate::driving#waiting-before-the-first-signal).
//!
//! # Without root: delegation
//!
//! A user may start processes in the cgroups of a subtree that was delegated: the directory, its `cgroup.procs`,
//! `cgroup.threads` and `cgroup.subtree_control` belong to the user. On v2 that is not enough. To move a process, the
//! user has to be allowed to write to the `cgroup.procs` of the lowest cgroup that is above both its old and its new
//! place (cgroup-v2.rst, "Delegation Containment"). So **the program has to be in the delegated subtree itself**;
//! from a login session outside of it the join fails with EACCES.
//!
//! ```text
//! systemd-run --user --scope -p Delegate=yes ./program      # by hand
//! Delegate=yes                                              # in the unit file of a service
//! ```
//!
//! The program's own cgroup is then in `/proc/self/cgroup`, in the line that begins with `0::`. It makes the jobs'
//! cgroups below that one, or beside itself:
//!
//! | Cgroup | Members |
//! |---|---|
//! | `program.service` (delegated) | none |
//! | `program.service/main` | the program: it has moved itself there, or systemd 254 has, by `DelegateSubgroup=main` |
//! | `program.service/job-1`, `job-2`, ... | the jobs |
//!
//! The program moves itself because of v2's **rule of no internal processes**: a cgroup, other than the root, has
//! members or gives controllers to its children, not both. As long as the program is in `program.service` itself, a
//! write of `+memory` to its `cgroup.subtree_control` fails with EBUSY, and the jobs' cgroups have no `memory.max`.
//! Conversely, a process that joins a cgroup which gives controllers to its children gets EBUSY. Reaping needs no
//! controller.
//!
//! A target that the program itself is in, or that is above it, is [refused](crate::Refusal::OwnCgroup). The root of
//! a delegated subtree cannot be removed by the user, nor killed by its `cgroup.kill`;
//! [SECURITY.md](https://github.com/cgroup-reaper/cgroup-reaper/blob/main/SECURITY.md) has the table of rights.
//!
//! In a container /sys/fs/cgroup is often mounted read-only, and no cgroup can be made there. A privileged container,
//! or one whose runtime delegates, has it writable.
//!
//! # With systemd
//!
//! - systemd owns the cgroups that it has made. Without `Delegate=yes` it may at any time remove cgroups that were
//!   made below them, or move their members.
//! - Slices cannot be delegated, services and scopes can.
//! - A job may be a scope: `systemd-run --scope --unit=job-42 make test` has systemd make the scope with its own
//!   process in it, and then becomes `make test`, with the environment and the terminal of its caller. As a service
//!   (without `--scope`) the job is a child of systemd.
//! - The cgroup of a unit is emptied and left to systemd, which removes it when the unit is over:
//!   [`Outcome::Emptied`](crate::Outcome::Emptied), see [`limitations`](crate::limitations#systemd).
//!
//! # Names
//!
//! - Any byte but `/`, NUL and newline may be in a name. The library refuses `.` and `..`, because a name with them
//!   could lead out of the slice.
//! - A name should not begin with `cgroup.`, or with the name of a controller and a dot (`memory.a`): future
//!   kernels may have a file of that name in each cgroup.
//! - A name that ends as a unit's name does (`.service`, `.scope`, `.slice`, ...) is best left to systemd.
//! - Numbers that are reused, such as pids, make names that are reused. While a job of the same name is still being
//!   reaped, `create_dir` fails with EEXIST. Names with a counter avoid that.
//!
//! # What a reap does not reach
//!
//! - A process that has left the cgroup: it needs the right to write to the `cgroup.procs` of another one, which root
//!   has. Run jobs as a user of their own.
//! - A process that a daemon has started at the job's request, for instance systemd, cron, or a container runtime. It
//!   was never in the cgroup.
//!
//! [SECURITY.md](https://github.com/cgroup-reaper/cgroup-reaper/blob/main/SECURITY.md) says what a process in the target can do.

#[allow(unused_imports, reason = "for links")]
use crate::Reaper;
