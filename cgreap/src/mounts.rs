//! Where cgroup hierarchies are mounted, and which cgroup of them this process is in.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    /// The cgroup that is mounted there: `/` unless in a container.
    pub root: PathBuf,
    /// The controllers, or the name, of a v1 hierarchy, among the other options of its mount. `None`: v2.
    pub controllers: Option<Vec<String>>,
}

impl Mount {
    /// Whether it has this v1 controller; for `None`, whether it is v2.
    pub fn has(&self, controller: Option<&str>) -> bool {
        match (&self.controllers, controller) {
            (None, None) => true,
            (Some(controllers), Some(controller)) => controllers.iter().any(|other| other == controller),
            _ => false,
        }
    }

    /// The cgroup of a process in this hierarchy, from its /proc/PID/cgroup.
    pub fn own_path<'a>(&self, file: &'a [u8]) -> Option<&'a Path> {
        file.split(|&byte| byte == b'\n').find_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let mut controllers = controllers.split(|&byte| byte == b',');
            let ours = match &self.controllers {
                None => id == b"0",
                Some(ours) => controllers.any(|other| ours.iter().any(|own| own.as_bytes() == other)),
            };
            ours.then_some(Path::new(OsStr::from_bytes(path)))
        })
    }
}

/// The cgroup mounts in the mount namespace of this process.
pub fn mounts() -> io::Result<Vec<Mount>> {
    // Bytes: one mount point anywhere whose path is not UTF-8 makes the file no UTF-8.
    Ok(fs::read("/proc/self/mountinfo")?.split(|&byte| byte == b'\n').filter_map(parse_mount).collect())
}

/// Parses a line of /proc/PID/mountinfo, see proc(5):
/// `31 23 0:28 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids`
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (root, point) = (unescape(fields.nth(3)?), unescape(fields.next()?));
    let mut kind = fields.skip_while(|field| *field != b"-").skip(1);
    let controllers = match kind.next()? {
        b"cgroup2" => None,
        b"cgroup" => Some(kind.nth(1)?.split(|&byte| byte == b',').map(text).collect()),
        _ => return None,
    };
    Some(Mount { point, root, controllers })
}

/// An option of a mount. The name of a controller is ASCII; others, such as the path in `release_agent=`, need not be.
fn text(option: &[u8]) -> String {
    String::from_utf8_lossy(option).into_owned()
}

/// Blanks and backslashes are written there as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => bytes.push(*first),
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line = br"36 31 0:33 / /mnt/a\040b\134c rw shared:9 master:1 - cgroup cgroup rw,cpu,freezer";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new(r"/mnt/a b\c"));
        assert!(mount.has(Some("freezer")) && mount.has(Some("cpu")));
        assert!(!mount.has(Some("pids")) && !mount.has(None));
        let v2 = parse_mount(b"30 23 0:26 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw").unwrap();
        assert!(v2.has(None) && !v2.has(Some("freezer")));
        assert_eq!(v2.root, Path::new("/box"));
        for other in ["31 23 0:28 / / rw - ext4 /dev/sda rw", "", "31 23 0:28 / /x rw", "1 2 - cgroup2 x y"] {
            assert_eq!(parse_mount(other.as_bytes()), None, "{other}");
        }
        assert_eq!(unescape(br"\04\999x\"), Path::new(r"\04\999x\"));
    }

    #[test]
    fn paths_need_not_be_utf8() {
        let mount = parse_mount(b"30 23 0:26 /b\xfe /c/\xff rw - cgroup2 cgroup2 rw").unwrap();
        assert_eq!(mount.point.as_os_str().as_bytes(), b"/c/\xff");
        assert_eq!(mount.root.as_os_str().as_bytes(), b"/b\xfe");
        assert_eq!(parse_mount(b"31 23 0:28 / /\xff rw - tmpfs tmpfs rw"), None);
        let own = mount.own_path(b"2:pids:/p\xff\n0::/u\xff\n").unwrap();
        assert_eq!(own.as_os_str().as_bytes(), b"/u\xff");
    }

    #[test]
    fn the_own_cgroup_is_found() {
        let file = b"4:name=a:/x\n3:cpu,freezer:/c:d\n1::/no\n0::/user.slice/me\n";
        let own = |kind: &str| {
            let line = format!("30 23 0:26 / /c rw - {kind}");
            parse_mount(line.as_bytes()).unwrap().own_path(file).map(|path| path.to_str().unwrap())
        };
        assert_eq!(own("cgroup2 cgroup2 rw"), Some("/user.slice/me"));
        assert_eq!(own("cgroup cgroup rw,cpu,freezer"), Some("/c:d"));
        assert_eq!(own("cgroup cgroup rw,xattr,release_agent=/x,name=a"), Some("/x"));
        assert_eq!(own("cgroup cgroup rw,pids"), None);
    }
}
