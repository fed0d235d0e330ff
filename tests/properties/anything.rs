//! A kernel that answers anything, and a whole reap on it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{CStr, OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::positive;
use crate::cgroup::{Budget, Job, Limit, Notice, Resolver};
use crate::entries::{Command, Entries, Host, NoThread, Spawn};
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::handle;
use crate::outcome::ReapError;
use crate::reaper::{CgroupOptions, KillMethod, Reaper, Signal};
use crate::remote::Queue;
use crate::sys::{Kind, Open, Pid, Stat, Sys};

const CALLER: i32 = 7;

/// The errors that it answers with. Once nothing is left to draw from, no process and no directory exists.
const ERRORS: [i32; 17] = [
    libc::ENOENT,
    libc::ENODEV,
    libc::EACCES,
    libc::EPERM,
    libc::EBUSY,
    libc::EMFILE,
    libc::EIO,
    libc::EINTR,
    libc::EOPNOTSUPP,
    libc::ESRCH,
    libc::EINVAL,
    libc::ENOSYS,
    libc::EROFS,
    libc::ELOOP,
    libc::ENOTDIR,
    libc::ENOMEM,
    libc::ESTALE,
];

/// Draws every answer from a string of bytes, sound ones mostly, and panics where what is asked of it must not be.
///
/// Below `/u` it has a v2 hierarchy, below `/f` the v1 freezer's, in both of which every directory exists.
pub(super) struct Anything {
    bytes: RefCell<std::vec::IntoIter<u8>>,
    now: Cell<Duration>,
    /// Counts calls.
    clock: Cell<u64>,
    /// When a pid was last named by a file.
    named: RefCell<HashMap<Pid, u64>>,
    /// Directories frozen by a write, and not thawed by one.
    frozen: RefCell<BTreeSet<PathBuf>>,
    /// The last thing said about a directory: whether it has members.
    occupied: RefCell<HashMap<PathBuf, bool>>,
    /// The same when the job was handed over that a helper thread does now. A removal that it makes later does no harm: the kernel
    /// removes no cgroup that has members.
    handed_over: RefCell<Option<HashMap<PathBuf, bool>>>,
    /// May signal unverified pids.
    unverified: bool,
    /// Facilities that it lacks.
    absent: Vec<Facility>,
    /// Directories by what was said of their inode numbers.
    numbered: RefCell<HashMap<u64, PathBuf>>,
    /// What its files say, and then no call fails.
    script: Option<Script>,
    /// What was written, in order.
    pub(super) written: RefCell<Vec<Vec<u8>>>,
    open: Rc<Cell<usize>>,
}

/// The same text in every file.
#[derive(Default)]
pub(super) struct Script {
    pub(super) text: Vec<u8>,
    /// The most that one read gives; `None`: all.
    pub(super) chunk: Option<usize>,
    /// `cgroup.procs` cannot be read, for the cgroup is threaded.
    pub(super) threads: Option<Threads>,
}

/// A threaded cgroup.
pub(super) struct Threads {
    /// What `cgroup.threads` says.
    pub(super) text: &'static [u8],
    /// The error of a pidfd of a process, for the ids are those of threads, and of a thread.
    pub(super) pidfd: [i32; 2],
    /// /proc is that of another pid namespace.
    pub(super) foreign_proc: bool,
}

/// An open file of it.
#[derive(Debug)]
pub(super) struct File {
    what: What,
    open: Rc<Cell<usize>>,
}

#[derive(Debug)]
enum What {
    Path {
        path: PathBuf,
        text: Vec<u8>,
    },
    /// Of this process, opened then.
    Pidfd {
        pid: Pid,
        at: u64,
    },
}

impl Drop for File {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

impl File {
    fn path(&self) -> &Path {
        match &self.what {
            What::Path { path, .. } => path,
            What::Pidfd { .. } => panic!("a pidfd taken for a directory"),
        }
    }
}

impl Anything {
    fn new(bytes: Vec<u8>, unverified: bool) -> Anything {
        Anything {
            bytes: RefCell::new(bytes.into_iter()),
            now: Cell::default(),
            clock: Cell::default(),
            named: RefCell::default(),
            frozen: RefCell::default(),
            occupied: RefCell::default(),
            handed_over: RefCell::default(),
            unverified,
            absent: Vec::new(),
            numbered: RefCell::default(),
            script: None,
            written: RefCell::default(),
            open: Rc::default(),
        }
    }

    /// A kernel whose every file says the same.
    pub(super) fn saying(text: &[u8]) -> Rc<Anything> {
        Anything::scripted(Script { text: text.to_vec(), ..Script::default() })
    }

    pub(super) fn scripted(script: Script) -> Rc<Anything> {
        Rc::new(Anything { script: Some(script), ..Anything::new(Vec::new(), false) })
    }

    /// A directory of it.
    pub(super) fn dir(&self, path: &str) -> File {
        self.file(What::Path { path: path.into(), text: Vec::new() })
    }

    fn draw(&self) -> u8 {
        self.bytes.borrow_mut().next().unwrap_or(0)
    }

    fn is_exhausted(&self) -> bool {
        self.bytes.borrow().len() == 0
    }

    /// An error now and then, and in the end that the directory or the process is gone.
    fn answer(&self, in_the_end: i32) -> io::Result<()> {
        self.clock.set(self.clock.get() + 1);
        if self.script.is_some() {
            return Ok(());
        }
        if self.is_exhausted() {
            return Err(io::Error::from_raw_os_error(in_the_end));
        }
        match usize::from(self.draw()) {
            0..208 => Ok(()),
            drawn => Err(io::Error::from_raw_os_error(ERRORS[drawn % ERRORS.len()])),
        }
    }

    fn threads(&self) -> Option<&Threads> {
        self.script.as_ref()?.threads.as_ref()
    }

    /// The error of one of the two kinds of pidfds in a threaded script.
    fn not_threaded(&self, kind: usize) -> io::Result<()> {
        self.threads().map_or(Ok(()), |threads| Err(io::Error::from_raw_os_error(threads.pidfd[kind])))
    }

    fn file(&self, what: What) -> File {
        self.open.set(self.open.get() + 1);
        File { what, open: Rc::clone(&self.open) }
    }

    fn at(at: Option<&File>, path: &CStr) -> PathBuf {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let mut whole = match at {
            Some(file) => file.path().to_path_buf(),
            None => PathBuf::from("/"),
        };
        for component in path.components() {
            match component {
                Component::ParentDir => drop(whole.pop()),
                Component::RootDir => whole = PathBuf::from("/"),
                component => whole.push(component),
            }
        }
        whole
    }

    fn garbage(&self) -> Vec<u8> {
        (0..self.draw() % 16).map(|_| self.draw()).collect()
    }

    fn members(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..self.draw() % 5 {
            match self.draw() {
                drawn @ 0..224 => text.extend((drawn % 12).to_string().bytes()),
                224..240 => text.extend(b"-1"),
                _ => text.extend(self.garbage()),
            }
            text.push(b'\n');
        }
        text
    }

    /// What a file says when it is opened.
    fn text(&self, path: &Path) -> Vec<u8> {
        let name = path.file_name().unwrap_or_default().to_str().unwrap_or_default();
        if let Some(script) = &self.script {
            return match (name, &script.threads) {
                ("cgroup.threads", Some(threads)) => threads.text.to_vec(),
                ("status", threads) if path == Path::new("/proc/self/status") => {
                    let outer = if threads.as_ref().is_some_and(|t| t.foreign_proc) { "\t70" } else { "" };
                    format!("NSpid:{outer}\t{CALLER}\n").into_bytes()
                }
                _ => script.text.clone(),
            };
        }
        if self.draw() >= 240 {
            return self.garbage();
        }
        let bit = || self.draw() & 1;
        match name {
            "cgroup.procs" | "cgroup.threads" => self.members(),
            "cgroup.events" => format!("populated {}\nfrozen {}\n", bit(), bit()).into_bytes(),
            "cgroup.freeze" | "freezer.self_freezing" | "freezer.parent_freezing" => {
                format!("{}\n", bit()).into_bytes()
            }
            "freezer.state" => ["THAWED\n", "FREEZING\n", "FROZEN\n"][usize::from(self.draw() % 3)].into(),
            "mountinfo" => {
                b"1 0 0:1 / /u rw - cgroup2 c rw\n2 0 0:2 / /f rw - cgroup c rw,freezer\n".to_vec()
            }
            "cgroup" => [&b"1:freezer:/o\n0::/o\n"[..], b"1:freezer:/t/a\n0::/t\n", b"0::/\n"]
                [usize::from(self.draw() % 3)]
            .to_vec(),
            "status" => {
                let outer = if self.draw() & 1 == 0 { "\t70" } else { "" };
                format!("Name:\tx\nTgid:\t{}\nNSpid:{outer}\t{CALLER}\n", self.draw() % 12).into_bytes()
            }
            "stat" => format!("1 (x) D 1 1 1 0 -1 {} 0 0\n", self.draw() & 4).into_bytes(),
            _ => self.garbage(),
        }
    }

    /// Takes note of what a file has said that was read.
    fn said(&self, path: &Path, text: &[u8]) {
        let Some(dir) = path.parent() else { return };
        let mut lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
        let occupied = match path.file_name().unwrap_or_default().to_str() {
            Some("cgroup.events") => {
                Some(lines.rfind(|line| line.starts_with(b"populated ")) != Some(b"populated 0"))
            }
            Some("cgroup.procs") if dir.starts_with("/f") => Some(lines.next().is_some()),
            // Threads whose process is gone are no members.
            Some("cgroup.threads") if dir.starts_with("/f") => Some(false),
            _ => None,
        };
        if let Some(occupied) = occupied {
            self.occupied.borrow_mut().insert(dir.to_path_buf(), occupied);
        }
    }

    /// Takes note of the pids in the lines that a read of `n` bytes has ended.
    fn name_pids(&self, text: &[u8], offset: usize, n: usize) {
        let ends = |text: &[u8]| text.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        let (before, read) = (&text[..offset.min(text.len())], &text[..(offset + n).min(text.len())]);
        let read = if n == 0 { read } else { &read[..ends(read)] };
        for line in read[ends(before).min(read.len())..].split(|&b| b == b'\n') {
            let tgid = line.strip_prefix(b"Tgid:").map(<[u8]>::trim_ascii);
            for pid in [Some(line), tgid].into_iter().flatten().filter_map(positive) {
                self.named.borrow_mut().insert(pid, self.clock.get());
            }
        }
    }
}

fn in_target(path: &Path) -> bool {
    ["/u/t", "/f/t"].iter().any(|target| path.starts_with(target))
}

impl Sys for Rc<Anything> {
    type Fd = File;

    fn now(&self) -> Duration {
        self.now.get()
    }

    fn release(&self) -> (u32, u32) {
        (6, 10 + u32::from(self.draw() % 16))
    }

    fn caller(&self) -> (Pid, Pid) {
        let own = Pid::new(CALLER).unwrap();
        (own, own)
    }

    fn descriptor_limit(&self) -> Option<usize> {
        None
    }

    fn open(&self, at: Option<&File>, path: &CStr, how: Open) -> io::Result<File> {
        self.answer(libc::ENOENT)?;
        Facility::check_file(&self.absent, path)?;
        let path = Anything::at(at, path);
        let text = if how == Open::Place || how == Open::Directory { Vec::new() } else { self.text(&path) };
        Ok(self.file(What::Path { path, text }))
    }

    fn duplicate(&self, _: BorrowedFd<'_>) -> io::Result<File> {
        panic!("no target is named by a descriptor");
    }

    fn path_of(&self, _: &File) -> io::Result<PathBuf> {
        panic!("no target is named by a descriptor");
    }

    fn open_identity(&self, mount: &File, ino: u64) -> io::Result<File> {
        assert!(matches!(mount.what, What::Path { .. }));
        self.answer(libc::ESTALE)?;
        let known = self.numbered.borrow().get(&ino).cloned();
        let path = known.ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        Ok(self.file(What::Path { path, text: Vec::new() }))
    }

    fn read_at(&self, fd: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.answer(libc::ENOENT)?;
        let What::Path { path, text } = &fd.what else { panic!("a pidfd is read") };
        let rest = text.get(offset as usize..).unwrap_or_default();
        let mut n = rest.len().min(buffer.len());
        if let Some(script) = &self.script {
            if script.threads.is_some() && path.ends_with("cgroup.procs") {
                return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
            }
            n = n.min(script.chunk.unwrap_or(n));
        }
        buffer[..n].copy_from_slice(&rest[..n]);
        self.name_pids(text, offset as usize, n);
        // Lists are read to their end, states in one go.
        if n == 0 || path.ends_with("cgroup.events") {
            self.said(path, text);
        }
        Ok(n)
    }

    fn write(&self, fd: &File, text: &[u8]) -> io::Result<()> {
        let path = fd.path();
        let dir = path.parent().unwrap().to_path_buf();
        let what = (path.file_name().unwrap().to_str().unwrap(), text);
        match what {
            // Also of a group outside that holds members of the target.
            ("freezer.state", b"THAWED") => {}
            ("cgroup.kill" | "cgroup.freeze", b"1")
            | ("cgroup.freeze", b"0")
            | ("freezer.state", b"FROZEN") => {
                assert!(in_target(path), "{what:?} written in {path:?}");
            }
            _ => panic!("{what:?} written"),
        }
        self.answer(libc::ENOENT)?;
        self.written.borrow_mut().push(text.to_vec());
        match what {
            ("freezer.state", b"FROZEN") | ("cgroup.freeze", b"1") => {
                self.frozen.borrow_mut().insert(dir);
            }
            ("freezer.state", _) | ("cgroup.freeze", _) => {
                self.frozen.borrow_mut().remove(&dir);
            }
            _ => {}
        }
        Ok(())
    }

    fn stat(&self, at: Option<&File>, path: &CStr) -> io::Result<Stat> {
        self.answer(libc::ENOENT)?;
        Facility::check_file(&self.absent, path)?;
        let mut hasher = DefaultHasher::new();
        let dev = match at.map(|file| &file.what) {
            Some(What::Pidfd { pid, .. }) => {
                pid.hash(&mut hasher);
                3
            }
            _ => {
                let path = Anything::at(at, path);
                path.hash(&mut hasher);
                self.numbered.borrow_mut().insert(hasher.finish(), path.clone());
                if path.starts_with("/u") { 1 } else { 2 * u64::from(path.starts_with("/f")) }
            }
        };
        let drawn = self.draw();
        Ok(Stat {
            dev,
            // Another one now and then.
            ino: hasher.finish().wrapping_add(u64::from(drawn >= 248)),
            kind: if (240..248).contains(&drawn) { Kind::Link } else { Kind::Directory },
            links: 2 + u32::from(drawn & 1),
            owner: u32::from(drawn & 1),
            mount: (drawn & 2 == 0).then_some(dev),
            reused_mount: (drawn & 2 != 0).then_some(dev),
            mount_root: (drawn & 4 == 0).then_some((232..240).contains(&drawn)),
        })
    }

    fn filesystem(&self, fd: &File) -> io::Result<i64> {
        self.answer(libc::ENOENT)?;
        Ok(match &fd.what {
            What::Path { path, .. } if path.starts_with("/u") => 0x6367_7270,
            What::Path { path, .. } if path.starts_with("/f") => 0x27_e0eb,
            What::Pidfd { .. } if self.draw() & 1 == 0 => 0x5049_4446,
            _ => 0,
        })
    }

    fn has_attribute(&self, _: &File, _: &CStr) -> io::Result<bool> {
        Ok(false)
    }

    fn subdirectories(&self, _: &File, _: &CStr) -> io::Result<Vec<OsString>> {
        self.answer(libc::ENOENT)?;
        let name = |_| OsString::from_vec(vec![b'a' + self.draw() % 26]);
        Ok((0..self.draw() % 3).map(name).collect())
    }

    fn rmdir(&self, at: Option<&File>, path: &CStr) -> io::Result<()> {
        let path = Anything::at(at, path);
        assert!(in_target(&path), "{path:?} removed");
        // Of its root it is known what was said last.
        if ["/u/t", "/f/t"].iter().any(|target| path == Path::new(target)) {
            let (now, then) = (self.occupied.borrow(), self.handed_over.borrow());
            let occupied = then.as_ref().unwrap_or(&now);
            assert_eq!(occupied.get(&path), Some(&false), "{path:?} removed, occupied");
        }
        self.answer(libc::ENOENT)
    }

    fn pidfd_open(&self, pid: Pid) -> io::Result<File> {
        let named = pid.get() == CALLER || self.named.borrow().contains_key(&pid);
        assert!(named, "{pid} opened, which no file named");
        Facility::Pidfds.check(&self.absent)?;
        self.not_threaded(0)?;
        self.answer(libc::ESRCH)?;
        Ok(self.file(What::Pidfd { pid, at: self.clock.get() }))
    }

    fn pidfd_of_thread(&self, tid: Pid) -> io::Result<File> {
        assert!(
            tid.get() == CALLER || self.named.borrow().contains_key(&tid),
            "{tid} opened, which no file named"
        );
        Facility::Pidfds.check(&self.absent)?;
        self.not_threaded(1)?;
        self.answer(libc::ENOENT)?;
        Ok(self.file(What::Pidfd { pid: tid, at: self.clock.get() }))
    }

    fn cgroup_of(&self, _: &File) -> io::Result<u64> {
        self.answer(libc::ENOENT)?;
        Ok(u64::from(self.draw()))
    }

    fn process_of(&self, fd: &File) -> io::Result<Pid> {
        self.answer(libc::ESRCH)?;
        let What::Pidfd { .. } = fd.what else { panic!("asked of a file") };
        let pid =
            Pid::new(i32::from(self.draw() % 12)).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        self.named.borrow_mut().insert(pid, self.clock.get());
        Ok(pid)
    }

    fn is_own_thread(&self, tid: Pid) -> bool {
        tid.get() == CALLER
    }

    fn pidfd_send_signal(&self, fd: &File, signal: i32) -> io::Result<()> {
        let What::Pidfd { pid, at } = fd.what else { panic!("a signal sent to a file") };
        if signal == 0 {
            return self.answer(libc::ESRCH);
        }
        assert_ne!(pid.get(), CALLER, "the caller is signalled");
        assert!(self.named.borrow()[&pid] > at, "{pid} is signalled, not listed since it was opened");
        assert!([libc::SIGKILL, libc::SIGTERM, libc::SIGCONT].contains(&signal));
        self.answer(libc::ESRCH)
    }

    fn has_exited(&self, fd: &File) -> io::Result<bool> {
        assert!(matches!(fd.what, What::Pidfd { .. }));
        if self.is_exhausted() {
            return Ok(true);
        }
        self.answer(libc::ESRCH)?;
        Ok(self.draw() & 1 == 0)
    }

    fn kill(&self, pid: Pid, signal: i32) -> io::Result<()> {
        assert!(pid.get() != CALLER, "kill({pid})");
        assert!(self.named.borrow().contains_key(&pid), "{pid} signalled, which no file named");
        let frozen = !self.frozen.borrow().is_empty();
        assert!(self.unverified || frozen, "{pid} signalled, neither verified nor frozen");
        assert!([libc::SIGKILL, libc::SIGTERM, libc::SIGCONT].contains(&signal));
        self.answer(libc::ESRCH)
    }

    fn process_mrelease(&self, fd: &File) -> io::Result<()> {
        let What::Pidfd { pid, at } = fd.what else { panic!("asked of a file") };
        let listed = pid.get() == CALLER || self.named.borrow()[&pid] > at;
        assert!(listed, "the memory of {pid} is released, not listed since it was opened");
        self.answer(libc::ESRCH)
    }
}

/// A queue for handles; none of its commands is carried out.
static QUEUE: LazyLock<Arc<Queue>> = LazyLock::new(|| {
    let poll = mio::Poll::new().unwrap();
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
    Arc::new(Queue::new(waker))
});

/// The loop around the reap.
struct EventLoop<'a> {
    sys: &'a Rc<Anything>,
    watched: RefCell<Vec<EntryId>>,
    command: Option<Command<Rc<Anything>>>,
    jobs: RefCell<Vec<HandedOver>>,
}

/// A job of an entry, with what was known when it was handed over.
type HandedOver = (EntryId, Job<Rc<Anything>>, HashMap<PathBuf, bool>);

impl Host<Rc<Anything>> for EventLoop<'_> {
    fn watch(&self, _: &File, id: EntryId, _: Notice) -> io::Result<()> {
        Facility::Watches.check(&self.sys.absent)?;
        self.sys.answer(libc::EINVAL)?;
        self.watched.borrow_mut().push(id);
        Ok(())
    }

    fn next_command(&mut self) -> Option<Command<Rc<Anything>>> {
        self.command.take().or_else(|| {
            let (id, job, occupied) = self.jobs.borrow_mut().pop()?;
            self.sys.handed_over.replace(Some(occupied));
            let answer = job.run(self.sys);
            self.sys.handed_over.replace(None);
            Some(Command::Answer(id, answer))
        })
    }

    fn stop(&mut self) {}

    fn help(&self, id: EntryId, job: Job<Rc<Anything>>) -> Result<(), NoThread> {
        self.jobs.borrow_mut().push((id, job, self.sys.occupied.borrow().clone()));
        Ok(())
    }
}

/// A whole reap, whatever the kernel answers. No process is signalled that was not listed after its pidfd was opened;
/// nothing is written or removed outside of the target; the reap completes once, soon after the answers end, and
/// leaves no descriptor open.
pub fn reap(bytes: &[u8]) {
    let [how, also, bytes @ ..] = bytes else { return };
    let unverified = how & 0x80 != 0;
    let reaper = match how % 3 {
        0 => Reaper::at("/u/t"),
        1 => Reaper::at("/f/t"),
        _ => {
            let options = CgroupOptions::new("/").subsystems(["f", "u"]);
            Reaper::new(if unverified { options.kill_without_freezer() } else { options }, "t")
        }
    };
    let methods = [KillMethod::Auto, KillMethod::CgroupKill, KillMethod::Freezer, KillMethod::Pidfd];
    let mut reaper = reaper.method(methods[usize::from(also % 4)]);
    if unverified {
        reaper = reaper.kill_without_freezer();
    }
    if how & 0x40 != 0 {
        reaper = reaper.release_memory();
    }
    let facilities = [(0x04, Facility::CgroupKill), (0x08, Facility::Pidfds), (0x10, Facility::Watches)];
    let absent =
        facilities.iter().filter(|(bit, _)| also & bit != 0).map(|(_, facility)| *facility).collect();
    if also & 0x20 != 0 {
        reaper = reaper.grace(Signal::TERM, Duration::from_millis(50));
    }
    if also & 0x40 != 0 {
        reaper = reaper.deadline(Duration::from_secs(30));
    }
    if also & 0x80 != 0 {
        reaper = reaper.keep_dir();
    }

    let sys = Rc::new(Anything { absent, ..Anything::new(bytes.to_vec(), unverified) });
    let open = Rc::clone(&sys.open);
    let budget = Budget::new(usize::from(sys.draw()));
    let mut entries = Entries::new(Resolver::new(Rc::clone(&sys), budget));
    entries.helper_from = (how & 0x20 != 0).then_some(2);
    let Ok((target, findings)) = entries.resolver.resolve(&reaper, Limit::default()) else { return };
    let (completer, handle) = handle::channel(target.shared_path(), &QUEUE);
    let mut event_loop =
        EventLoop { sys: &sys, watched: RefCell::default(), command: None, jobs: RefCell::default() };
    entries.spawn(Spawn { reaper, target, findings, completer }, &event_loop);
    let mut quiet = 0;
    while !handle.is_complete() {
        assert_eq!(entries.len(), 1);
        quiet += u32::from(sys.is_exhausted());
        assert!(quiet < 100, "no end to it");
        let mut notified = VecDeque::new();
        match sys.draw() {
            drawn @ 192.. => {
                notified
                    .extend(event_loop.watched.borrow().iter().rev().nth(usize::from(drawn) % 4).copied());
            }
            191 => event_loop.command = event_loop.watched.borrow().first().copied().map(Command::Cancel),
            190 => break,
            _ => match entries.next_tick() {
                Some(tick) => sys.now.set(sys.now.get().max(Duration::from_millis(tick))),
                None => assert!(entries.has_deferred(), "it waits for nothing"),
            },
        }
        entries.begin_turn(notified);
        while entries.advance(&mut event_loop) {}
    }
    let result = handle.try_wait();
    drop((entries, event_loop));
    match result {
        Some(result) => assert_eq!(format!("{:?}", handle.wait()), format!("{result:?}"), "completed twice"),
        None => assert!(matches!(handle.wait(), Err(ReapError::Disconnected { .. }))),
    }
    assert_eq!(open.get(), 0, "descriptors left open");
}

/// What passes the checks, where every directory exists: a place below the root, each component as it was named.
pub fn accepted(subsystem: &[u8], slice: &[u8], name: &[u8]) {
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    // Draws that are sound answers.
    let resolve = |reaper: &Reaper| {
        let sys = Rc::new(Anything::new(vec![0; 4096], false));
        Resolver::new(sys, Budget::new(0))
            .resolve(reaper, Limit::default())
            .ok()
            .map(|(target, _)| target.path().to_path_buf())
    };
    let parts = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split(|&b| b == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let is_below = |target: &Path, above: &[&[u8]]| {
        let wanted: Vec<Vec<u8>> = above.iter().flat_map(|bytes| parts(bytes)).collect();
        let got: Vec<Vec<u8>> = target.iter().skip(1).map(|part| part.as_bytes().to_vec()).collect();
        assert_eq!(got, wanted);
        assert!(!wanted.iter().any(|part| part == b"." || part == b".." || part.contains(&0)));
        assert!(wanted.len() > 1, "{target:?} is a root");
    };
    let options = CgroupOptions::new("/u").slice(path(slice)).subsystems([path(subsystem)]);
    if let Some(target) = resolve(&Reaper::new(options, path(name))) {
        assert!(!parts(name).is_empty() && !subsystem.is_empty());
        is_below(&target, &[b"u", subsystem, slice, name]);
    }
    let options = CgroupOptions::new("/u").slice(path(slice));
    if let Some(target) = resolve(&Reaper::new(options, path(name))) {
        assert!(!parts(name).is_empty());
        is_below(&target, &[b"u", slice, name]);
    }
    let at = [b"/u/", slice, b"/", name].concat();
    if let Some(target) = resolve(&Reaper::at(path(&at))) {
        is_below(&target, &[&at]);
    }
}
