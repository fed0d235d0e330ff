//! The mounts: the lines of mountinfo, read and kept in one place, and the cgroup mounts that targets were found in.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file::read_path;
use super::hierarchy::{HasFreezer, Version};
use super::identity::Id;
use crate::sys::{Open, Stat, Sys};

/// How long a read of mountinfo is reused. mountinfo can have thousands of lines, and a reap with uninterruptible
/// members needs it in each attempt.
const RECENT: Duration = Duration::from_secs(1);

/// The number of mounts remembered. A machine has a dozen hierarchies, and each mount namespace has mounts of
/// its own.
const MOUNTS: usize = 64;

pub(super) const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

/// The facts about mounts that are kept for all targets.
pub(crate) struct Mounts<S: Sys> {
    /// The cgroup mounts in mountinfo, and when mountinfo was read.
    table: Option<(Duration, Arc<[Mount]>)>,
    known: Vec<Known<S>>,
}

/// The cached facts about a mount: version, freezer controller, and the descriptor for open_by_handle_at(2).
type About<F> = (Version, HasFreezer, Option<Arc<F>>);

/// A mount that a target was found in.
struct Known<S: Sys> {
    key: Key,
    version: Version,
    /// For v1, whether it is the freezer's hierarchy.
    freezer: HasFreezer,
    /// A descriptor by which directories in it can be opened by their inode numbers, if the caller may do that.
    by_handle: Option<Arc<S::Fd>>,
}

/// The number of a mount, which the kernel never reuses (Linux 6.8); on older kernels the numbers of the device and of the
/// mount (before Linux 5.8 that of the device alone). One mount of a hierarchy may be read-only, and another writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Mount(u64),
    /// As long as a descriptor of the mount is open, no other filesystem and no other mount gets the numbers.
    Device {
        dev: u64,
        mount: Option<u64>,
    },
}

impl Key {
    fn of(stat: &Stat) -> Key {
        stat.mount.map_or(Key::Device { dev: stat.dev, mount: stat.reused_mount }, Key::Mount)
    }
}

impl<S: Sys> Default for Mounts<S> {
    fn default() -> Mounts<S> {
        Mounts { table: None, known: Vec::new() }
    }
}

impl<S: Sys> Mounts<S> {
    /// Returns the facts remembered about the mount through which a directory is seen.
    pub(crate) fn known(&self, stat: &Stat) -> Option<About<S::Fd>> {
        let known = self.known.iter().find(|known| known.key == Key::of(stat))?;
        Some((known.version, known.freezer, known.by_handle.clone()))
    }

    /// Remembers a mount.
    pub(crate) fn remember(
        &mut self,
        stat: &Stat,
        version: Version,
        freezer: HasFreezer,
        by_handle: Option<Arc<S::Fd>>,
    ) {
        let key = Key::of(stat);
        if matches!(key, Key::Device { .. }) && by_handle.is_none() {
            // Another filesystem may have the numbers next time.
            return;
        }
        if self.known.len() == MOUNTS {
            self.known.clear();
        }
        self.known.retain(|known| known.key != key);
        self.known.push(Known { key, version, freezer, by_handle });
    }
}

/// Locks a mutex. No code that could panic halfway through a change runs under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads mountinfo.
pub(crate) fn read<S: Sys>(sys: &S, mounts: &Mutex<Mounts<S>>) -> io::Result<Arc<[Mount]>> {
    // Not under the lock: the kernel may take long.
    let now = sys.now();
    let table: Arc<[Mount]> = Mount::all(sys)?.into();
    lock(mounts).table = Some((now, Arc::clone(&table)));
    Ok(table)
}

/// Returns the table that was read within the last second, or reads it.
pub(crate) fn recent<S: Sys>(sys: &S, mounts: &Mutex<Mounts<S>>) -> io::Result<Arc<[Mount]>> {
    let known = lock(mounts).table.clone();
    match known {
        Some((at, table)) if sys.now().saturating_sub(at) < RECENT => Ok(table),
        _ => read(sys, mounts),
    }
}

/// Opens the root of the mount that contains `dir`, for open_by_handle_at(2). It must be the root: since Linux 6.12,
/// a caller that has the capability only in a child user namespace may open only directories below the descriptor
/// (`may_decode_fh`).
///
/// Not O_PATH, which open_by_handle_at(2) refuses (EBADF).
pub(crate) fn open_root<S: Sys>(sys: &S, dir: &S::Fd, stat: &Stat) -> io::Result<S::Fd> {
    let mut at = sys.open(Some(dir), c".", Open::Place)?;
    let mut here = *stat;
    while here.mount_root != Some(true) {
        let above = sys.open(Some(&at), c"..", Open::Place)?;
        let stat = sys.stat(Some(&above), c"")?;
        if stat.dev != here.dev || Id::of(&stat) == Id::of(&here) {
            break;
        }
        (at, here) = (above, stat);
    }
    sys.open(Some(&at), c".", Open::Read)
}

/// A mounted cgroup hierarchy, a line of `/proc/thread-self/mountinfo`.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The directory of the hierarchy that is mounted.
    root: PathBuf,
    /// Its mount point.
    point: PathBuf,
    pub(super) unified: bool,
    /// Of a v1 hierarchy: its controllers, among the other options of its superblock.
    options: Vec<u8>,
}

impl Mount {
    /// Reads all that are mounted in the caller's mount namespace.
    pub(crate) fn all<S: Sys>(sys: &S) -> io::Result<Vec<Mount>> {
        Ok(read_path(sys, MOUNTINFO.as_ref())?.split(|&b| b == b'\n').filter_map(Mount::parse).collect())
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

    /// Whether it is a mount of the v1 freezer's hierarchy.
    pub(crate) fn is_freezer(&self) -> bool {
        self.has_controller(b"freezer")
    }

    fn has_controller(&self, name: &[u8]) -> bool {
        !self.unified && self.options.split(|&b| b == b',').any(|option| option == name)
    }

    /// Returns the path of `cgroup`, a path as in `/proc/PID/cgroup`, under this mount.
    ///
    /// `None` if the mount does not show it. Both paths begin at the root of the caller's cgroup namespace, and a `..`
    /// means that the cgroup is outside of the namespace (`cgroup_path_ns`).
    pub(crate) fn path_of(&self, cgroup: &[u8]) -> Option<PathBuf> {
        let below = Path::new(OsStr::from_bytes(cgroup)).strip_prefix(&self.root).ok()?;
        let is_known = below.components().all(|component| matches!(component, Component::Normal(_)));
        let below = Some(below).filter(|_| is_known)?;
        Some(if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) })
    }

    /// Returns how many levels `dir`, a result of [`Mount::path_of`], is below the mount point.
    pub(crate) fn levels_above(&self, dir: &Path) -> usize {
        dir.strip_prefix(&self.point).map_or(0, |below| below.components().count())
    }
}

/// Returns the cgroup, in the hierarchy of `mount`, of the process whose `/proc/PID/cgroup` is `text`.
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
        assert_eq!(mount.levels_above(Path::new(r"/sys/fs/cgroup/cpu\x/c/d")), 2);
        assert_eq!(mount.levels_above(Path::new(r"/sys/fs/cgroup/cpu\x")), 0);
    }

    /// In a cgroup namespace: a mount of the host, and the caller in the namespace's root, and beside it.
    #[test]
    fn a_cgroup_outside_of_a_mount_has_no_path() {
        let mount = |root| Mount::parse(format!("1 2 0:3 {root} /c rw - cgroup2 c rw").as_bytes()).unwrap();
        assert_eq!(mount("/../..").path_of(b"/"), None);
        assert_eq!(mount("/").path_of(b"/../beside"), None);
        assert_eq!(mount("/..").path_of(b"/../beside"), Some("/c/beside".into()));
        assert_eq!(mount("/..").path_of(b"/../../beside"), None);
        assert_eq!(mount("/").path_of(b"/"), Some("/c".into()));
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
