//! Makes the groups and their members, and removes them.
//!
//! Everything is below `cgroup-reaper-bench-<pid>`, directly below the root of a hierarchy.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::sys;

/// Which hierarchy a contender works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    V2,
    /// A v1 hierarchy without the freezer.
    Plain,
    Freezer,
}

/// The directories below which all groups are made, one in each hierarchy. Dropping it removes them with all that is
/// left in them.
pub struct Bases {
    /// The name of each, directly below the root of its hierarchy.
    pub name: String,
    /// Where hierarchies are mounted, all of them.
    pub mounts: Vec<PathBuf>,
    v2: Option<PathBuf>,
    plain: Option<PathBuf>,
    freezer: Option<PathBuf>,
}

impl Bases {
    /// Makes those that can be made, and prints which cannot.
    pub fn make() -> Bases {
        let name = format!("cgroup-reaper-bench-{}", sys::getpid());
        let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        // Device, directory, type, options.
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<&str>>());
        let mounts: Vec<Vec<&str>> =
            lines.filter(|fields| fields.len() > 3 && fields[2].starts_with("cgroup")).collect();
        let find = |wanted: &str, kind: &str, option: &str| -> Option<PathBuf> {
            let fits = |fields: &&Vec<&str>| {
                fields[2] == kind && (option.is_empty() || fields[3].split(',').any(|field| field == option))
            };
            let Some(mount) = mounts.iter().find(fits) else {
                println!("SKIP {wanted}: no such hierarchy is mounted");
                return None;
            };
            let base = Path::new(mount[1]).join(&name);
            if let Err(error) = fs::create_dir(&base) {
                println!("SKIP {wanted}: {}: {error}", base.display());
                return None;
            }
            Some(base)
        };
        Bases {
            v2: find("cgroup v2", "cgroup2", ""),
            plain: find("cgroup v1, cpu", "cgroup", "cpu"),
            freezer: find("cgroup v1, freezer", "cgroup", "freezer"),
            mounts: mounts.iter().map(|fields| fields[1].into()).collect(),
            name,
        }
    }

    pub fn get(&self, place: Place) -> Option<&Path> {
        match place {
            Place::V2 => self.v2.as_deref(),
            Place::Plain => self.plain.as_deref(),
            Place::Freezer => self.freezer.as_deref(),
        }
    }

    pub fn is_empty(&self) -> bool {
        [&self.v2, &self.plain, &self.freezer].into_iter().flatten().count() == 0
    }
}

impl Drop for Bases {
    /// The process that forked the members has ended, and they are killed with it. This thaws what it left frozen, kills
    /// processes that are not its children (a container), and waits for all of them.
    fn drop(&mut self) {
        for base in self.mounts.iter().map(|mount| mount.join(&self.name)) {
            let (mut least, mut since) = (usize::MAX, Instant::now());
            loop {
                let left = clear(&base);
                if left == 0 {
                    break;
                }
                // Repeated while there are fewer each time.
                if left < least {
                    (least, since) = (left, Instant::now());
                } else if since.elapsed() > Duration::from_secs(20) {
                    println!("left behind: {}", base.display());
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Thaws and removes a directory and everything below it, as far as that can be done now; how many are left.
fn clear(dir: &Path) -> usize {
    // Not there on the other hierarchies, and not made there either.
    let _ = fs::OpenOptions::new()
        .write(true)
        .open(dir.join("freezer.state"))
        .and_then(|mut state| state.write_all(b"THAWED"));
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        let _ = pid.parse().map(sys::kill);
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let left: usize = below.map(|entry| clear(&entry.path())).sum();
    left + usize::from(fs::remove_dir(dir).is_err() && dir.exists())
}

/// One group, and the names of its files as system calls take them.
pub struct Group {
    pub dir: PathBuf,
    pub path: CString,
    pub procs: CString,
    pub events: CString,
    pub kill: CString,
    pub state: CString,
}

/// Makes groups and their members.
///
/// A process of its own forks them: after a fork, the first write to each page costs the parent a fault and a copy.
/// These would be counted as work of the contender, and most for the one that writes to most pages.
pub struct MemberMaker {
    made: u64,
    forker: UnixStream,
    /// The number of members that joined, and of those that could not.
    counters: &'static [AtomicU32; 2],
}

impl MemberMaker {
    pub fn new() -> io::Result<MemberMaker> {
        let counters = sys::shared_counters()?;
        let (forker, requests) = UnixStream::pair()?;
        sys::fork(|| i32::from(fork_members(requests, counters).is_err()))?;
        Ok(MemberMaker { made: 0, forker, counters })
    }

    pub fn groups(&mut self, base: &Path, count: usize) -> io::Result<Vec<Group>> {
        self.named(base, count, "g")
    }

    pub fn named(&mut self, base: &Path, count: usize, prefix: &str) -> io::Result<Vec<Group>> {
        (0..count)
            .map(|_| {
                self.made += 1;
                let dir = base.join(format!("{prefix}{}", self.made));
                fs::create_dir(&dir)?;
                let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
                Ok(Group {
                    path: path(&dir)?,
                    procs: path(&dir.join("cgroup.procs"))?,
                    events: path(&dir.join("cgroup.events"))?,
                    kill: path(&dir.join("cgroup.kill"))?,
                    state: path(&dir.join("freezer.state"))?,
                    dir,
                })
            })
            .collect()
    }

    /// Puts `each` sleeping processes into each group, and returns when all have joined, with their pids;
    /// `promptly`, which takes all of a CPU, or at leisure.
    pub fn populate<'a>(
        &mut self,
        groups: impl IntoIterator<Item = &'a Group>,
        each: usize,
        promptly: bool,
    ) -> io::Result<Vec<i32>> {
        self.fork(groups, each, 0, promptly)
    }

    /// The same at leisure, with so much memory each.
    pub fn populate_with_memory<'a>(
        &mut self,
        groups: impl IntoIterator<Item = &'a Group>,
        each: usize,
        mib: u64,
    ) -> io::Result<Vec<i32>> {
        self.fork(groups, each, mib, false)
    }

    fn fork<'a>(
        &mut self,
        groups: impl IntoIterator<Item = &'a Group>,
        each: usize,
        mib: u64,
        promptly: bool,
    ) -> io::Result<Vec<i32>> {
        let [joined, failed] = self.counters;
        joined.store(0, SeqCst);
        let mut paths = Vec::new();
        for group in groups {
            for _ in 0..each {
                paths.extend_from_slice(group.procs.as_bytes_with_nul());
            }
        }
        self.forker.write_all(&(paths.len() as u64).to_le_bytes())?;
        self.forker.write_all(&mib.to_le_bytes())?;
        self.forker.write_all(&paths)?;
        let mut pids = Vec::new();
        for _ in paths.iter().filter(|&&b| b == 0) {
            let mut pid = [0; 4];
            self.forker.read_exact(&mut pid)?;
            pids.push(i32::from_le_bytes(pid));
        }
        let until = Instant::now() + Duration::from_secs(60);
        while (joined.load(SeqCst) as usize) < pids.len() {
            if failed.load(SeqCst) > 0 || Instant::now() > until {
                return Err(io::Error::other("members could not join their group"));
            }
            if promptly {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(pids)
    }

    /// Starts a process that keeps `pids` from exiting. They exit when it ends.
    pub fn hold_up(&mut self, pids: &[i32]) -> io::Result<i32> {
        let [joined, failed] = self.counters;
        joined.store(0, SeqCst);
        let holder = sys::fork(|| {
            if pids.iter().any(|&pid| sys::hold_up_exit(pid).is_err()) {
                failed.fetch_add(1, SeqCst);
                return 1;
            }
            joined.fetch_add(1, SeqCst);
            sys::sleep_for_ever()
        })?;
        while joined.load(SeqCst) == 0 {
            if failed.swap(0, SeqCst) > 0 {
                return Err(io::Error::other("the members could not be traced"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(holder)
    }
}

/// Forks a process for each path that it receives, which joins the group, fills its memory and sleeps, and answers with its
/// pid. It ends when the other end is closed, and the members are killed with it.
fn fork_members(mut requests: UnixStream, [joined, failed]: &[AtomicU32; 2]) -> io::Result<()> {
    loop {
        let (mut length, mut mib) = ([0; 8], [0; 8]);
        requests.read_exact(&mut length)?;
        requests.read_exact(&mut mib)?;
        let memory = u64::from_le_bytes(mib) as usize * (1 << 20);
        let mut paths = vec![0; u64::from_le_bytes(length) as usize];
        requests.read_exact(&mut paths)?;
        let mut pids = Vec::new();
        for path in paths.split_inclusive(|&b| b == 0) {
            let procs = CStr::from_bytes_with_nul(path).map_err(io::Error::other)?;
            let pid = sys::fork(|| {
                let join = sys::open(procs, libc::O_WRONLY).and_then(|file| sys::write(&file, b"0"));
                if join.is_err() || memory > 0 && sys::fill_memory(memory).is_err() {
                    failed.fetch_add(1, SeqCst);
                    return 1;
                }
                sys::allow_tracers();
                joined.fetch_add(1, SeqCst);
                sys::sleep_for_ever()
            })?;
            pids.extend_from_slice(&pid.to_le_bytes());
        }
        requests.write_all(&pids)?;
    }
}
