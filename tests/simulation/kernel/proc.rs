//! What /proc tells, also a caller in namespaces.

use super::{CPU, FREEZER, GroupId, Life, MOUNTS, ROOTS, SELF, THREAD, V2, World};

/// What the caller sees of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vantage {
    /// The roots of its cgroup namespace: paths in /proc begin there.
    pub(crate) roots: Roots,
    /// The directory of each hierarchy that is mounted.
    pub(crate) mounted: Roots,
    /// Directories of v2 that were mounted at the same place before, and are hidden.
    pub(crate) hidden: Vec<GroupId>,
    /// The mounts are of another mount namespace, and mountinfo has none.
    pub(crate) unlisted: bool,
    pub(crate) proc: Proc,
    /// Files of this name may not be read, but the caller's own cgroups: hidepid=1, or a Linux security module.
    pub(crate) restricted: Option<&'static str>,
    /// The error of every lookup of an absolute path below a mount: one of a directory above it, or of the kernel.
    pub(crate) unreachable: Option<i32>,
}

/// A directory of each hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roots(pub(crate) [GroupId; 3]);

impl Default for Roots {
    fn default() -> Roots {
        Roots(ROOTS)
    }
}

/// Which /proc there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Proc {
    /// That of the caller's pid namespace.
    #[default]
    Own,
    None,
    /// That of the namespace above, where the caller has another number. So have all others.
    Above,
    /// One in which the caller has no number.
    Other,
}

impl World {
    /// The path of a group as it is seen in a cgroup namespace whose root is `from` (`cgroup_path_ns`).
    fn path_from(&self, from: GroupId, group: GroupId) -> String {
        let mut path = String::new();
        let mut above = from;
        while !self.is_below(group, above) {
            path.push_str("/..");
            above = self.groups[above].parent.expect("a root has all below it");
        }
        let mut names = Vec::new();
        let mut at = group;
        while at != above {
            names.push(&*self.groups[at].name);
            at = self.groups[at].parent.expect("it is below");
        }
        names.iter().rev().for_each(|name| path.extend(["/", name]));
        if path.is_empty() { "/".into() } else { path }
    }

    fn mountinfo(&self) -> String {
        let Vantage { roots, mounted, hidden, unlisted, .. } = &self.vantage;
        if *unlisted {
            return String::new();
        }
        let line = |hierarchy: usize, group: GroupId, kind, options| {
            let (root, point) = (self.path_from(roots.0[hierarchy], group), MOUNTS[hierarchy]);
            format!("{} 1 0:{hierarchy} {root} {point} rw - {kind} {kind} rw{options}\n", 31 + hierarchy)
        };
        let hidden = hidden.iter().map(|&group| line(V2, group, "cgroup2", ""));
        hidden.collect::<String>()
            + &line(FREEZER, mounted.0[FREEZER], "cgroup", ",freezer")
            + &line(CPU, mounted.0[CPU], "cgroup", ",cpu")
            + &line(V2, mounted.0[V2], "cgroup2", "")
    }

    /// The names in `/proc/self/task`.
    pub(super) fn threads(&self) -> Vec<String> {
        let thread = self.thread.map(|_| THREAD);
        [SELF].into_iter().chain(thread).map(|tid| tid.to_string()).collect()
    }

    /// The names in `/proc/PID/task`: if the leader thread has exited, another lives.
    pub(super) fn threads_of(&self, pid: &str) -> Option<Vec<String>> {
        let process = self.by_pid(pid.parse().ok()?)?;
        let other = process.other_threads().map(|tid| tid.to_string());
        Some([pid.to_owned()].into_iter().chain(other).collect())
    }

    pub(super) fn proc_text(&self, path: &str) -> Result<String, i32> {
        let is_own = self.vantage.proc == Proc::Own;
        if self.vantage.proc == Proc::None {
            return Err(libc::ENOENT);
        }
        let Some(path) = path.strip_prefix("/proc/") else { return Ok(String::new()) };
        let mut parts = path.split('/');
        let mut groups = None;
        let name = parts.next().ok_or(libc::ENOENT)?;
        let is_self = matches!(name, "self" | "thread-self");
        if is_self && self.vantage.proc == Proc::Other {
            return Err(libc::ENOENT);
        }
        let pid = match name {
            "self" => SELF,
            "thread-self" => {
                groups = self.thread;
                SELF
            }
            pid => pid.parse().map_err(|_| libc::ENOENT)?,
        };
        let process = match is_own || is_self {
            true => self.by_pid(pid).or_else(|| self.by_thread(pid)).ok_or(libc::ENOENT)?,
            // The number is another process's.
            false => &self.processes[pid as usize % self.processes.len()],
        };
        let mut file = parts.next();
        let mut is_leader = true;
        if file == Some("task") {
            let thread = parts.next().unwrap_or_default();
            groups = self.thread.filter(|_| is_self && thread == THREAD.to_string());
            is_leader = is_self || thread == name;
            file = parts.next();
        }
        match file {
            _ if file.is_some()
                && file == self.vantage.restricted
                && (pid, file) != (SELF, Some("cgroup")) =>
            {
                Err(libc::EPERM)
            }
            Some("mountinfo") if is_self => Ok(self.mountinfo()),
            Some("cgroup") => {
                let mut groups = groups.unwrap_or(process.groups);
                if is_leader && process.nature.leaderless {
                    // `proc_cgroup_show` says so of an exiting thread on v1.
                    (groups[CPU], groups[FREEZER]) = (ROOTS[CPU], ROOTS[FREEZER]);
                    groups[V2] = if process.unlisted { ROOTS[V2] } else { groups[V2] };
                }
                let path =
                    |hierarchy: usize| self.path_from(self.vantage.roots.0[hierarchy], groups[hierarchy]);
                Ok(format!("3:cpu:{}\n2:freezer:{}\n0::{}\n", path(CPU), path(FREEZER), path(V2)))
            }
            Some("status") if is_own => {
                Ok(format!("Tgid:\t{}\nNSpid:\t{pid}\nRssAnon:\t{:>8} kB\n", process.pid, process.memory))
            }
            Some("status") => Ok(format!("Tgid:\t{0}\nNSpid:\t7\t{0}\n", process.pid)),
            Some("comm") => Ok("simulated\n".into()),
            Some("wchan") => Ok("0".into()),
            Some("stat") => {
                // PF_EXITING and PF_KTHREAD of `linux/sched.h`.
                let lives = process.life == Life::Alive && !(is_leader && process.nature.leaderless);
                let flags = 0x0040_0100 | if lives { 0 } else { 4 };
                let flags = flags | if process.nature.kernel_thread { 0x0020_0000 } else { 0 };
                Ok(format!("{pid} (simulated) S 1 1 1 0 -1 {flags} 0\n"))
            }
            _ => Err(libc::ENOENT),
        }
    }
}
