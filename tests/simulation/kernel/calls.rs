//! The system calls, and what they may fail with.

use std::cell::RefCell;
use std::ffi::CStr;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::{
    FrozenBy, Group, GroupId, Life, Object, Process, ROOTS, SELF, THREAD, V2, WatchOf, World, errno,
};
use crate::sys::{Kind, Open, Pid, Stat, Sys};

/// The handle on a [`World`] that the library is given.
#[derive(Clone)]
pub(crate) struct Sim(pub(crate) Rc<RefCell<World>>);

pub(crate) struct Fd {
    id: u64,
    object: Object,
    /// What a read from the beginning found, for those that go on from there: seq_file.
    read: RefCell<Vec<u8>>,
    world: Rc<RefCell<World>>,
}

impl std::fmt::Debug for Fd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.object)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        world.descriptors -= 1;
        world.watches.remove(&self.id);
    }
}

/// The inode number of each hierarchy's root.
const ROOT_INODE: u64 = 1;

/// The inode number of a group's directory.
fn inode(group: GroupId) -> u64 {
    if ROOTS.contains(&group) { ROOT_INODE } else { group as u64 + 1 }
}

/// Failures that a call may meet whatever it is for.
const LOOKUP: &[i32] = &[libc::EACCES, libc::EIO, libc::ENOMEM, libc::EINTR];
const OPEN: &[i32] = &[libc::EACCES, libc::EMFILE, libc::ENFILE, libc::EIO, libc::ENOMEM, libc::EINTR];
const HANDLE: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::EIO, libc::ENOMEM, libc::EINTR];
const READ: &[i32] = &[libc::EIO, libc::EINTR, libc::ENOMEM];
const WRITE: &[i32] = &[libc::EIO, libc::EINTR, libc::EPERM, libc::EBUSY, libc::EOPNOTSUPP];

impl Sim {
    fn fd(&self, object: Object) -> io::Result<Fd> {
        let mut world = self.0.borrow_mut();
        if world.descriptors >= world.descriptor_limit {
            return Err(world.refuse("descriptors", libc::EMFILE));
        }
        world.descriptors += 1;
        world.next_fd += 1;
        let id = world.next_fd;
        drop(world);
        Ok(Fd { id, object, read: RefCell::default(), world: Rc::clone(&self.0) })
    }

    /// The process of a pidfd.
    pub(crate) fn process_of_pidfd(fd: &Fd) -> u64 {
        let Object::Pidfd(ino) = fd.object else { panic!("{fd:?} is no pidfd") };
        ino
    }

    /// Has notifications of the descriptor come to a reactor as this token.
    pub(crate) fn register(&self, fd: &Fd, reactor: usize, token: usize) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.enter("epoll_ctl", &[libc::ENOSPC, libc::ENOMEM])?;
        world.watches.insert(fd.id, WatchOf { token: (reactor, token), object: fd.object.clone() });
        // epoll reports at once what is readable already; of a file's changes it may say one too many.
        let ready = match fd.object {
            Object::Pidfd(ino) => !world.processes.iter().any(|p| p.ino == ino && p.life != Life::Dead),
            _ => world.rng.bool(),
        };
        if ready {
            world.notified.push((reactor, token));
        }
        Ok(())
    }
}

impl Sys for Sim {
    type Fd = Fd;

    fn now(&self) -> Duration {
        self.0.borrow().now
    }

    fn caller(&self) -> (Pid, Pid) {
        let id = |id| Pid::new(id).expect("positive");
        (id(SELF), id(if self.0.borrow().thread.is_some() { THREAD } else { SELF }))
    }

    fn release(&self) -> (u32, u32) {
        self.0.borrow().features.release()
    }

    fn descriptor_limit(&self) -> Option<usize> {
        None
    }

    fn open(&self, at: Option<&Fd>, path: &CStr, how: Open) -> io::Result<Fd> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let object = {
            let mut world = self.0.borrow_mut();
            world.enter("openat", OPEN)?;
            let object = world.lookup(at.map(|fd| &fd.object), path).map_err(errno)?;
            if let Object::File(group, _) = object {
                world.acting = world.groups[group].target.or(world.acting);
            }
            match (&object, how) {
                (Object::Proc(path), _) => drop(world.proc_text(path).map_err(errno)?),
                (Object::File(group, _), Open::Write | Open::ReadWrite) if world.groups[*group].denied => {
                    return Err(world.refuse("openat", libc::EACCES));
                }
                _ => {}
            }
            object
        };
        self.fd(object)
    }

    fn duplicate(&self, _: BorrowedFd<'_>) -> io::Result<Fd> {
        panic!("no target is named by a descriptor");
    }

    fn path_of(&self, _: &Fd) -> io::Result<PathBuf> {
        panic!("no target is named by a descriptor");
    }

    fn open_identity(&self, mount: &Fd, ino: u64) -> io::Result<Fd> {
        let group = {
            let mut world = self.0.borrow_mut();
            let entered = world.enter("open_by_handle_at", HANDLE);
            let is_short = entered.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENFILE));
            if is_short && ino % 2 == 0 {
                world.no_files_in = world.step;
            }
            if !world.handles {
                return Err(errno(libc::EPERM));
            }
            let Object::Group(mount) = mount.object else { return Err(errno(libc::ESTALE)) };
            let hierarchy = world.groups[mount].hierarchy;
            let group = if ino == ROOT_INODE { ROOTS[hierarchy] } else { ino as usize - 1 };
            if world.no_files_in == world.step {
                // Where no file is left for the search of a parent, `do_handle_to_path` returns ESTALE. No parent is searched
                // for the root of the mount.
                return Err(errno(if group == mount { libc::ENFILE } else { libc::ESTALE }));
            }
            entered?;
            // Older kernels open a removed directory as well, as long as a file in it is open.
            let is_open = |watch: &WatchOf| matches!(watch.object, Object::File(of, _) if of == group);
            let lingers = !world.features.pidfs && world.watches.values().any(is_open);
            let there = |group: &&Group| group.hierarchy == hierarchy && (!group.removed || lingers);
            world.groups.get(group).filter(there).map(|_| group).ok_or_else(|| errno(libc::ESTALE))?
        };
        self.fd(Object::Group(group))
    }

    fn read_at(&self, fd: &Fd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.0.borrow_mut();
        world.enter("pread", READ)?;
        let mut text = fd.read.borrow_mut();
        if let Object::File(group, _) = fd.object {
            world.acting = world.groups[group].target.or(world.acting);
        }
        match &fd.object {
            Object::File(group, _) if world.groups[*group].removed => return Err(errno(libc::ENODEV)),
            Object::File(group, name) if offset == 0 => {
                *text = world.text(*group, name).map_err(errno)?.into_bytes();
                world.garble(name, &mut text);
            }
            Object::Proc(path) if offset == 0 => *text = world.proc_text(path).map_err(errno)?.into_bytes(),
            Object::File(..) | Object::Proc(_) => {}
            _ => return Err(errno(libc::EISDIR)),
        }
        let left = text.get(offset as usize..).unwrap_or_default();
        if let (true, Object::File(group, name @ ("cgroup.procs" | "cgroup.threads"))) =
            (left.is_empty(), &fd.object)
        {
            world.lists_read += u32::from(*name == "cgroup.procs");
            // A list that fails on the way is none.
            let text = String::from_utf8_lossy(&text);
            let pids: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
            let World { acting, groups, processes, .. } = &mut *world;
            for process in processes {
                if pids.contains(&process.pid) || process.other_threads().any(|tid| pids.contains(&tid)) {
                    process.listed.add(*acting);
                } else if *name == "cgroup.procs"
                    && !process.unlisted
                    && process.life == Life::Alive
                    && process.groups[groups[*group].hierarchy] == *group
                {
                    process.omitted.add(*acting);
                }
            }
        }
        let mut n = left.len().min(buffer.len());
        // A list may come in pieces.
        let pieces = matches!(fd.object, Object::File(_, "cgroup.procs"));
        if pieces && n > 1 && world.rng.u8(..) < world.faults {
            n = world.rng.usize(1..n);
        }
        buffer[..n].copy_from_slice(&left[..n]);
        Ok(n)
    }

    fn write(&self, fd: &Fd, text: &[u8]) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let entered = world.enter("write", WRITE);
        let Object::File(group, name) = fd.object else {
            return Err(errno(libc::EBADF));
        };
        world.groups[group].thaws_failed += u32::from(entered.is_err() && matches!(text, b"THAWED" | b"0"));
        entered?;
        let what = String::from_utf8_lossy(text).into_owned();
        world.check_write(group, &what)?;
        world.note(|| format!("{what} > {group}/{name}"));
        match (name, &*what) {
            ("cgroup.kill", "1") => world.cgroup_kill(group),
            ("freezer.state", "FROZEN") | ("cgroup.freeze", "1") => {
                world.set_frozen(group, Some(FrozenBy::Library));
                world.groups[group].to_be_thawed = true;
            }
            ("freezer.state", "THAWED") | ("cgroup.freeze", "0") => {
                world.set_frozen(group, None);
                world.groups[group].to_be_thawed = false;
            }
            _ => return Err(errno(libc::EINVAL)),
        }
        Ok(())
    }

    fn stat(&self, at: Option<&Fd>, path: &CStr) -> io::Result<Stat> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let mut world = self.0.borrow_mut();
        world.enter("statx", LOOKUP)?;
        let object = match at {
            // A descriptor outlives what it is of.
            Some(fd) if path.is_empty() => fd.object.clone(),
            _ => world.lookup(at.map(|fd| &fd.object), path).map_err(errno)?,
        };
        // Linux 6.8 and 5.8: the next of these features came soon after.
        let (numbers, roots) = (world.features.pidfs, world.features.cgroup_kill);
        let directory = |dev, ino, links| Stat {
            dev,
            ino,
            kind: Kind::Directory,
            links,
            owner: 0,
            mount: numbers.then_some(dev),
            reused_mount: (roots && !numbers).then_some(dev),
            mount_root: roots.then_some(false),
        };
        Ok(match object {
            Object::Outside => directory(20, 1, 5),
            Object::Group(group) => {
                let links = if world.groups[group].removed { 0 } else { 2 + world.children(group).count() };
                let Group { hierarchy, parent, .. } = world.groups[group];
                let is_root = parent.is_none() || world.vantage.mounted.0.contains(&group);
                let mount_root = roots.then_some(is_root);
                Stat { mount_root, ..directory(31 + hierarchy as u64, inode(group), links as u32) }
            }
            Object::Pidfd(ino) => {
                let ino = if world.features.pidfs { ino } else { 7 };
                Stat { kind: Kind::Other, ..directory(40, ino, 1) }
            }
            Object::File(..) | Object::Proc(_) => Stat { kind: Kind::Other, ..directory(41, 1, 1) },
        })
    }

    fn filesystem(&self, fd: &Fd) -> io::Result<i64> {
        let mut world = self.0.borrow_mut();
        world.enter("fstatfs", &[libc::EIO, libc::EINTR])?;
        Ok(match fd.object {
            Object::Group(group) | Object::File(group, _) if world.groups[group].hierarchy == V2 => {
                0x6367_7270
            }
            Object::Group(_) | Object::File(..) => 0x0027_e0eb,
            Object::Pidfd(_) if world.features.pidfs => 0x5049_4446,
            Object::Pidfd(_) => 0x0904_1934,
            Object::Outside => 0x0102_1994,
            Object::Proc(_) => 0x9fa0,
        })
    }

    fn has_attribute(&self, _: &Fd, _: &CStr) -> io::Result<bool> {
        Ok(false)
    }

    fn subdirectories(&self, at: &Fd, path: &CStr) -> io::Result<Vec<OsString>> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let mut world = self.0.borrow_mut();
        world.enter("getdents64", OPEN)?;
        match world.lookup(Some(&at.object), path).map_err(errno)? {
            Object::Group(group) => {
                Ok(world.children(group).map(|child| world.groups[child].name.clone().into()).collect())
            }
            Object::Proc(path) if path.ends_with("/self/task") => {
                Ok(world.threads().into_iter().map(OsString::from).collect())
            }
            Object::Proc(path) if path.ends_with("/task") => {
                let pid = path.trim_start_matches("/proc/").trim_end_matches("/task");
                let threads = world.threads_of(pid).ok_or_else(|| errno(libc::ENOENT))?;
                Ok(threads.into_iter().map(OsString::from).collect())
            }
            _ => Err(errno(libc::ENOTDIR)),
        }
    }

    fn rmdir(&self, at: Option<&Fd>, path: &CStr) -> io::Result<()> {
        let path = path.to_str().map_err(|_| errno(libc::ENOENT))?;
        let mut world = self.0.borrow_mut();
        // rmdir(2) goes by name, so no other party acts between it and the check of identity before it: that microsecond
        // is a stated limitation.
        world.fail("unlinkat", &[libc::EACCES, libc::EBUSY, libc::EROFS, libc::EINTR])?;
        let Object::Group(group) = world.lookup(at.map(|fd| &fd.object), path).map_err(errno)? else {
            return Err(errno(libc::ENOTDIR));
        };
        let (name, hierarchy) = (world.path(group), world.groups[group].hierarchy);
        if !world.groups[group].target.is_some_and(|target| world.targets[target].live) {
            world.violation(format!("rmdir of {name}, which is not to be touched"));
        }
        // On v1 there is no way to know of members that exit by themselves.
        let blocks = |p: &Process| {
            // Nor, if they are in another PID namespace, of any.
            let known = hierarchy == V2 || p.is_known(world.groups[group].target) && !p.nature.unmapped;
            p.life == Life::Exiting && known && p.groups[hierarchy] == group && p.moved < world.step
        };
        let is_held = world.features.exiting_unlisted && world.processes.iter().any(blocks);
        if is_held && !world.on_helper_thread {
            world.violation(format!("rmdir of {name} would block"));
        }
        if world.groups[group].denied {
            return Err(world.refuse("unlinkat", libc::EACCES));
        }
        if is_held {
            // A thread of its own may wait. No time passes here, so it fails as on the kernels that do not wait.
            return Err(errno(libc::EBUSY));
        }
        let result = world.remove(group);
        world.note(|| format!("rmdir {name}: {result:?}"));
        result.map_err(errno)
    }

    fn pidfd_open(&self, pid: Pid) -> io::Result<Fd> {
        let ino = {
            let mut world = self.0.borrow_mut();
            world.enter("pidfd_open", &[libc::EMFILE, libc::ENFILE, libc::ENOMEM])?;
            if !world.features.pidfd {
                return Err(errno(libc::ENOSYS));
            }
            world.by_pid(pid.get()).filter(|p| !p.nature.unmapped).ok_or_else(|| errno(libc::ESRCH))?.ino
        };
        self.fd(Object::Pidfd(ino))
    }

    fn pidfd_of_thread(&self, tid: Pid) -> io::Result<Fd> {
        let process = self.0.borrow().by_thread(tid.get()).and_then(|process| Pid::new(process.pid));
        if self.0.borrow().features.pidfs {
            self.pidfd_open(process.unwrap_or(tid))
        } else {
            Err(errno(libc::EINVAL))
        }
    }

    fn cgroup_of(&self, pidfd: &Fd) -> io::Result<u64> {
        let mut world = self.0.borrow_mut();
        world.enter("ioctl", &[libc::ESRCH])?;
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::ENOTTY)) };
        if !world.features.info {
            return Err(errno(libc::ENOTTY));
        }
        let process = world.process(ino).ok_or_else(|| errno(libc::ESRCH))?;
        if process.nature.injected {
            return Err(errno(libc::ESRCH));
        }
        // That of its leader thread.
        Ok(inode(if process.unlisted { ROOTS[V2] } else { process.groups[V2] }))
    }

    fn process_of(&self, pidfd: &Fd) -> io::Result<Pid> {
        let mut world = self.0.borrow_mut();
        world.enter("ioctl", &[libc::ESRCH])?;
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::ENOTTY)) };
        if !world.features.info {
            return Err(errno(libc::ENOTTY));
        }
        let process = world.process(ino).filter(|process| !process.nature.injected);
        process.and_then(|process| Pid::new(process.pid)).ok_or_else(|| errno(libc::ESRCH))
    }

    fn is_own_thread(&self, tid: Pid) -> bool {
        let (process, thread) = self.caller();
        tid == process || tid == thread
    }

    fn pidfd_send_signal(&self, pidfd: &Fd, signal: i32) -> io::Result<()> {
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::EBADF)) };
        let mut world = self.0.borrow_mut();
        world.enter("pidfd_send_signal", &[])?;
        if signal == 0 {
            return Ok(());
        }
        world.signal(ino, signal, "pidfd_send_signal")
    }

    fn has_exited(&self, pidfd: &Fd) -> io::Result<bool> {
        let mut world = self.0.borrow_mut();
        world.enter("poll", &[libc::EINTR, libc::ENOMEM])?;
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::EBADF)) };
        Ok(world.process(ino).is_none_or(|process| process.life == Life::Dead))
    }

    fn kill(&self, pid: Pid, signal: i32) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.enter("kill", &[])?;
        let process = world.by_pid(pid.get()).filter(|p| !p.nature.unmapped);
        let ino = process.map(|p| p.ino).ok_or_else(|| errno(libc::ESRCH))?;
        let (now, step, thawed_in) = (world.now, world.step, world.thawed_in);
        let loose = |p: &mut Process| {
            let frozen = p.is_frozen(0, now) || p.is_frozen(1, now);
            p.life == Life::Alive && !frozen && thawed_in < step
        };
        if world.process(ino).is_some_and(loose) {
            world.violation(format!("kill: {ino}, pid {pid}, is not frozen"));
        }
        world.signal(ino, signal, "kill")
    }

    fn process_mrelease(&self, pidfd: &Fd) -> io::Result<()> {
        let Object::Pidfd(ino) = pidfd.object else { return Err(errno(libc::EBADF)) };
        let mut world = self.0.borrow_mut();
        world.enter("process_mrelease", &[libc::EAGAIN, libc::EINTR])?;
        world.asked_to_release += 1;
        // Linux 5.15, soon after it.
        if !world.features.cgroup_kill {
            return Err(errno(libc::ENOSYS));
        }
        let process = world.process(ino).filter(|process| process.life != Life::Dead && process.memory > 0);
        let process = process.ok_or_else(|| errno(libc::ESRCH))?;
        if !process.killed {
            return Err(errno(libc::EINVAL));
        }
        if world.busy_memory == Some(ino) {
            return Err(errno(libc::EAGAIN));
        }
        world.process(ino).expect("just found").memory = 0;
        world.released.push(ino);
        world.note(|| format!("memory of {ino} released"));
        Ok(())
    }
}

impl World {
    /// What a call meets before it does anything.
    pub(super) fn enter(&mut self, call: &str, errors: &[i32]) -> io::Result<()> {
        if self.churn > 0 && self.rng.u8(..) < self.churn {
            (self.others)(self);
        }
        self.fail(call, errors)
    }

    pub(super) fn fail(&mut self, call: &str, errors: &[i32]) -> io::Result<()> {
        self.calls += 1;
        if self.faults > 0 && self.rng.u8(..) < self.faults && !errors.is_empty() {
            let number = errors[self.rng.usize(..errors.len())];
            return Err(self.refuse(call, number));
        }
        Ok(())
    }

    /// An error that has nothing to do with what the call was for.
    pub(super) fn refuse(&mut self, call: &str, number: i32) -> io::Error {
        if matches!(number, libc::EACCES | libc::EPERM | libc::EROFS | libc::EOPNOTSUPP) {
            self.refusals.push((self.now, call.into()));
            self.refused_in = self.step;
        }
        self.failed_in = self.step;
        self.failed_at = self.now;
        self.note(|| format!("{call}: {}", errno(number)));
        errno(number)
    }
}
