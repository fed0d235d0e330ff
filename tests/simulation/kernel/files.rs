//! The files of cgroups: what a path leads to, and what is read there.

use super::{FREEZER, Group, GroupId, Life, MOUNTS, Object, Process, THREAD, V2, World};

/// The files of a group.
const FILES: [&str; 9] = [
    "tasks",
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.events",
    "cgroup.kill",
    "cgroup.freeze",
    "freezer.state",
    "freezer.self_freezing",
    "freezer.parent_freezing",
];

impl World {
    /// The directory, or file in one, that a path leads to.
    pub(super) fn lookup(&self, at: Option<&Object>, path: &str) -> Result<Object, i32> {
        // The directory itself, also by a link.
        let path = if at.is_none() { path.strip_suffix("/.").unwrap_or(path) } else { path };
        let mut rest = path;
        let mut here;
        if let Some(Object::Proc(dir)) = at {
            return Ok(Object::Proc(format!("{dir}/{path}")));
        } else if let Some(at) = at {
            here = at.clone();
        } else if path == "/proc" || path.starts_with("/proc/") {
            return Ok(Object::Proc(path.to_string()));
        } else {
            let starts = |rest: &str| rest.is_empty() || rest.starts_with('/');
            match MOUNTS.iter().position(|mount| path.strip_prefix(mount).is_some_and(starts)) {
                Some(root) => {
                    self.vantage.unreachable.map_or(Ok(()), Err)?;
                    here = Object::Group(self.vantage.mounted.0[root]);
                    rest = &path[MOUNTS[root].len()..];
                }
                None if MOUNTS[0].starts_with(path) => return Ok(Object::Outside),
                None => return Err(libc::ENOENT),
            }
        }
        for name in rest.split('/').filter(|name| !name.is_empty()) {
            let Object::Group(group) = here else {
                return Err(libc::ENOTDIR);
            };
            // The way up is open from a removed directory too.
            if self.groups[group].removed && name != ".." {
                return Err(libc::ENOENT);
            }
            here = match (name, self.groups[group].parent) {
                (".", _) => here,
                ("..", _) if self.vantage.mounted.0.contains(&group) => Object::Outside,
                ("..", Some(parent)) => Object::Group(parent),
                ("..", None) => Object::Outside,
                _ => match self.child(group, name) {
                    Some(child) => Object::Group(child),
                    None => Object::File(group, self.file(group, name).ok_or(libc::ENOENT)?),
                },
            };
        }
        Ok(here)
    }

    pub(super) fn file(&self, group: GroupId, name: &str) -> Option<&'static str> {
        let file = FILES.into_iter().find(|file| *file == name)?;
        let Group { hierarchy, parent, .. } = self.groups[group];
        let has = match file {
            "cgroup.procs" => true,
            "tasks" => hierarchy != V2,
            "cgroup.threads" => hierarchy == V2,
            "cgroup.kill" => hierarchy == V2 && parent.is_some() && self.features.cgroup_kill,
            "cgroup.events" | "cgroup.freeze" => hierarchy == V2 && parent.is_some(),
            _ => hierarchy == FREEZER && parent.is_some(),
        };
        has.then_some(file)
    }

    /// What a file of a group says.
    pub(super) fn text(&mut self, group: GroupId, name: &str) -> Result<String, i32> {
        if self.groups[group].removed {
            return Err(libc::ENODEV);
        }
        let Group { hierarchy, parent, frozen, .. } = self.groups[group];
        let digit = |yes: bool| format!("{}\n", u8::from(yes));
        // The one thread that is not in the cgroup of its process is in a threaded one.
        let is_threaded = self.thread.is_some_and(|groups| hierarchy == V2 && groups[V2] == group);
        Ok(match name {
            "cgroup.procs" if is_threaded => return Err(libc::EOPNOTSUPP),
            "cgroup.threads" if self.hides_threads => return Err(libc::EIO),
            "cgroup.threads" if is_threaded => format!("{THREAD}\n"),
            "tasks" => {
                let lists = |p: &&Process| p.life == Life::Alive && p.groups[hierarchy] == group;
                let thread = self.thread.filter(|groups| groups[hierarchy] == group).map(|_| THREAD);
                let pids = self.processes.iter().filter(lists).map(|process| process.pid);
                pids.chain(thread).map(|tid| format!("{tid}\n")).collect()
            }
            // Each process has one thread, or two others where that has exited.
            "cgroup.procs" | "cgroup.threads" => {
                let mut text = String::new();
                let exiting_unlisted = self.features.exiting_unlisted;
                for process in &self.processes {
                    let listed = match process.life {
                        Life::Alive => true,
                        Life::Exiting => !exiting_unlisted,
                        Life::Dead => false,
                    };
                    let by_thread = name == "cgroup.threads";
                    if !listed
                        || process.groups[hierarchy] != group
                        || process.unlisted && hierarchy == V2 && !by_thread
                    {
                        continue;
                    }
                    let mut ids: Vec<i32> = process.other_threads().filter(|_| by_thread).collect();
                    if ids.is_empty() {
                        ids.push(process.pid);
                    }
                    match (process.nature.unmapped, hierarchy) {
                        (true, V2) => text.push_str("0\n"),
                        (true, _) => {}
                        (false, _) => text.extend(ids.iter().map(|id| format!("{id}\n"))),
                    }
                }
                text
            }
            "cgroup.events" => {
                let (populated, frozen) = self.groups[group].events;
                format!("populated {}\nfrozen {}\n", u8::from(populated), u8::from(frozen))
            }
            "cgroup.freeze" | "freezer.self_freezing" => digit(frozen.is_some()),
            "freezer.parent_freezing" => digit(parent.is_some_and(|parent| self.is_frozen_from(parent))),
            "freezer.state" if !self.is_frozen_from(group) => "THAWED\n".into(),
            "freezer.state" if self.members_below(group).all(|p| p.is_frozen(0, self.now)) => {
                "FROZEN\n".into()
            }
            "freezer.state" => "FREEZING\n".into(),
            _ => return Err(libc::EINVAL),
        })
    }

    /// Now and then makes nonsense of what is read, but never another sense.
    pub(super) fn garble(&mut self, name: &str, text: &mut Vec<u8>) {
        if self.faults == 0 || self.rng.u8(..) >= self.faults {
            return;
        }
        let nonsense: [&[u8]; 5] = [b"", b"-1\n", b"4294967297\n", b"\xff\0\n", b"self\n"];
        let nonsense = nonsense[self.rng.usize(..nonsense.len())];
        match name {
            // A line too many, or in the place of another.
            "cgroup.procs" => {
                let line = text.iter().position(|&b| b == b'\n').map_or(0, |end| end + 1);
                let replaced = if self.rng.bool() && !nonsense.is_empty() { line } else { 0 };
                drop(text.splice(..replaced, nonsense.iter().copied()));
                self.garbled = true;
            }
            "cgroup.events" | "freezer.state" => *text = nonsense.to_vec(),
            _ => return,
        }
        self.failed_in = self.step;
        self.failed_at = self.now;
        self.note(|| format!("garbage in {name}"));
    }
}
