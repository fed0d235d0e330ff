//! The caller's own cgroups: what must not be killed.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::file::{c_path, read_path, read_whole};
use super::pin::{Id, is_gone, version};
use crate::sys::{Open, Sys};

/// The caller's cgroups: its process's, and the calling thread's, which may be elsewhere (in a v1 `tasks`
/// file, or in a threaded v2 cgroup).
pub(crate) struct OwnCgroups<S: Sys> {
    process: Option<Cgroups<S>>,
    /// Of the thread that asked last; `None` inside for the main thread, which is where its process is.
    thread: Option<(ThreadId, Option<Cgroups<S>>)>,
}

impl<S: Sys> Default for OwnCgroups<S> {
    fn default() -> OwnCgroups<S> {
        OwnCgroups { process: None, thread: None }
    }
}

impl<S: Sys> OwnCgroups<S> {
    /// Whether `id` is a cgroup that the caller is in, or an ancestor of one.
    pub(crate) fn contains(&mut self, sys: &S, id: Id) -> io::Result<bool> {
        let process = match &mut self.process {
            Some(process) => process,
            None => self.process.insert(Cgroups::open(sys, sys.caller().0, c"/proc/self/cgroup")?),
        };
        if process.contains(sys, id)? {
            return Ok(true);
        }
        let current = thread::current().id();
        let thread = match &mut self.thread {
            Some((thread, cgroups)) if *thread == current => cgroups,
            _ => &mut self.thread.insert((current, Cgroups::of_thread(sys)?)).1,
        };
        match thread {
            Some(thread) => thread.contains(sys, id),
            None => Ok(false),
        }
    }
}

/// A task's cgroup in each mounted hierarchy, and the ancestors of each.
///
/// Where the task is now is asked for every question; the rest is worked out again only when that changed.
struct Cgroups<S: Sys> {
    /// `/proc/.../cgroup`
    file: S::Fd,
    /// What it said when the rest was worked out, and now.
    text: Vec<u8>,
    now: Vec<u8>,
    ids: Vec<Id>,
    devices: Vec<u64>,
    /// The task, where the kernel has a way to ask of its v2 cgroup that takes none of the locks that the file
    /// takes. (It waits for those, and holds up exits, when a thousand groups die at once.)
    pidfd: Option<S::Fd>,
    /// Its v2 cgroup when the rest was worked out.
    v2: Option<Id>,
}

impl<S: Sys> Cgroups<S> {
    fn open(sys: &S, tid: i32, path: &CStr) -> io::Result<Cgroups<S>> {
        Ok(Cgroups {
            file: sys.open(None, path, Open::Read)?,
            text: Vec::new(),
            now: Vec::new(),
            ids: Vec::new(),
            devices: Vec::new(),
            pidfd: sys.pidfd_of_thread(tid).ok().filter(|pidfd| sys.cgroup_of(pidfd).is_ok()),
            v2: None,
        })
    }

    /// The calling thread's; `None` for the main thread.
    fn of_thread(sys: &S) -> io::Result<Option<Cgroups<S>>> {
        let (pid, tid) = sys.caller();
        if pid == tid { Ok(None) } else { Cgroups::open(sys, tid, c"/proc/thread-self/cgroup").map(Some) }
    }

    /// An error if it cannot be known.
    fn contains(&mut self, sys: &S, id: Id) -> io::Result<bool> {
        if let (Some(pidfd), Some(v2)) = (&self.pidfd, self.v2) {
            // A v2 cgroup can't be moved: while the task is in the same one, its ancestors are the same.
            if v2.dev == id.dev && sys.cgroup_of(pidfd).is_ok_and(|ino| ino == v2.ino) {
                return Ok(self.ids.contains(&id));
            }
        }
        read_whole(sys, &self.file, &mut self.now)?;
        if self.now != self.text || !self.devices.contains(&id.dev) {
            // Not taken for known before it is worked out to the end.
            self.text.clear();
            self.v2 = None;
            match self.work_out(sys)? {
                Some(error) if !self.devices.contains(&id.dev) => return Err(error),
                _ => std::mem::swap(&mut self.text, &mut self.now),
            }
        }
        Ok(self.ids.contains(&id))
    }

    /// An error inside is of a hierarchy that could not be looked at; others could.
    fn work_out(&mut self, sys: &S) -> io::Result<Option<io::Error>> {
        self.ids.clear();
        self.devices.clear();
        let mut v2 = None;
        let mut missed = None;
        for mount in Mount::all(sys)? {
            let Some(own) = membership(&self.now, &mount) else {
                continue;
            };
            let Some(dir) = mount.path_of(own) else {
                // Outside of what this mount shows, so no target under it contains the caller, except
                // through the mount's root, which is refused anyway.
                continue;
            };
            let mut fd = match sys.open(None, &c_path(&dir)?, Open::Place) {
                Ok(fd) => fd,
                // Hidden by another mount.
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    missed = Some(error);
                    continue;
                }
            };
            let mut id = Id::of(&sys.stat(Some(&fd), c"")?);
            if mount.unified {
                v2 = Some(id);
            }
            // Up to the root of the mount.
            while version(sys, &fd)?.is_some() && !self.ids.contains(&id) {
                self.ids.push(id);
                if !self.devices.contains(&id.dev) {
                    self.devices.push(id.dev);
                }
                fd = sys.open(Some(&fd), c"..", Open::Place)?;
                id = Id::of(&sys.stat(Some(&fd), c"")?);
            }
        }
        self.v2 = v2;
        Ok(missed)
    }
}

/// A mounted cgroup hierarchy, a line of `/proc/self/mountinfo`.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The directory of the hierarchy that is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
    unified: bool,
    /// Of a v1 hierarchy: its controllers, among the other options of its superblock.
    options: Vec<u8>,
}

impl Mount {
    /// All that are mounted in the caller's mount namespace.
    pub(crate) fn all<S: Sys>(sys: &S) -> io::Result<Vec<Mount>> {
        Ok(read_path(sys, "/proc/self/mountinfo".as_ref())?
            .split(|&b| b == b'\n')
            .filter_map(Mount::parse)
            .collect())
    }

    /// proc(5): `36 35 98:0 /root /point options [fields] - type source superoptions`.
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&b| b == b' ');
        let root = fields.nth(3)?;
        let point = fields.next()?;
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let unified = match fields.next()? {
            b"cgroup" => false,
            b"cgroup2" => true,
            _ => return None,
        };
        let options = fields.nth(1).unwrap_or_default().to_vec();
        Some(Mount { root: unescape(root).into(), point: unescape(point).into(), unified, options })
    }

    /// The one that the v1 freezer is mounted by.
    pub(crate) fn freezer(mounts: &[Mount]) -> Option<&Mount> {
        mounts.iter().find(|mount| mount.has_controller(b"freezer"))
    }

    fn has_controller(&self, name: &[u8]) -> bool {
        !self.unified && self.options.split(|&b| b == b',').any(|option| option == name)
    }

    /// Where `cgroup`, a path as in `/proc/PID/cgroup`, is to be seen under this mount.
    pub(crate) fn path_of(&self, cgroup: &[u8]) -> Option<PathBuf> {
        let below = Path::new(OsStr::from_bytes(cgroup)).strip_prefix(&self.root).ok()?;
        Some(if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }
}

/// The mounts, read again when some time has passed: a node has thousands, and a reap that waits for the undying
/// asks at every tick.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    read: Option<(Duration, Vec<Mount>)>,
}

impl Mounts {
    /// The one that the v1 freezer is mounted by.
    pub(crate) fn freezer<S: Sys>(&mut self, sys: &S) -> io::Result<Option<&Mount>> {
        const GOOD_FOR: Duration = Duration::from_secs(1);
        let now = sys.now();
        if self.read.as_ref().is_none_or(|(at, _)| now.saturating_sub(*at) >= GOOD_FOR) {
            self.read = Some((now, Mount::all(sys)?));
        }
        Ok(self.read.as_ref().and_then(|(_, mounts)| Mount::freezer(mounts)))
    }
}

/// The cgroup in the hierarchy of `mount`, of the process whose `/proc/PID/cgroup` is `text`.
pub(crate) fn membership<'a>(text: &'a [u8], mount: &Mount) -> Option<&'a [u8]> {
    text.split(|&b| b == b'\n').find_map(|line| {
        // cgroups(7): `hierarchy-ID:controller-list:cgroup-path`, the list being empty for v2.
        let mut fields = line.splitn(3, |&b| b == b':');
        let controllers = fields.nth(1)?;
        let path = fields.next()?;
        let here = match controllers {
            b"" => mount.unified,
            _ => controllers.split(|&b| b == b',').all(|name| mount.has_controller(name)),
        };
        here.then_some(path)
    })
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(field: &[u8]) -> OsString {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                text.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => text.push(*first),
        }
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_parsed() {
        let line = br"35 24 0:30 /a\040b /sys/fs/cgroup/cpu\134x rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.root, Path::new("/a b"));
        assert_eq!(mount.point, Path::new(r"/sys/fs/cgroup/cpu\x"));
        assert!(mount.has_controller(b"cpuacct") && !mount.has_controller(b"cpuset"));
        assert_eq!(mount.path_of(b"/a b/c"), Some(PathBuf::from(r"/sys/fs/cgroup/cpu\x/c")));
        assert_eq!(mount.path_of(b"/a b"), Some(PathBuf::from(r"/sys/fs/cgroup/cpu\x")));
        assert_eq!(mount.path_of(b"/other"), None);
    }

    #[test]
    fn membership_goes_by_hierarchy() {
        let text = b"5:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\n";
        let mount = |line: &[u8]| Mount::parse(line).unwrap();
        let v1 = mount(b"1 2 0:3 / /c rw - cgroup cgroup rw,cpuacct,cpu");
        let named = mount(b"1 2 0:3 / /c rw - cgroup cgroup rw,xattr,name=systemd");
        let v2 = mount(b"1 2 0:3 / /c rw - cgroup2 cgroup2 rw");
        let other = mount(b"1 2 0:3 / /c rw - cgroup cgroup rw,memory");
        assert_eq!(membership(text, &v1), Some(&b"/a:b"[..]));
        assert_eq!(membership(text, &named), Some(&b"/s"[..]));
        assert_eq!(membership(text, &v2), Some(&b"/u"[..]));
        assert_eq!(membership(text, &other), None);
    }

    #[test]
    fn garbage_is_no_mount() {
        for line in
            [&b""[..], b"1", b"1 2 3 4 5 6", b"a b c d e f - ", b"1 2 0:3 / /c rw - ext4 x rw", b"\xff \\9"]
        {
            assert!(Mount::parse(line).is_none());
        }
    }
}
