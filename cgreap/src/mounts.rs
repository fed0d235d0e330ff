//! Where cgroup hierarchies are mounted, and which cgroup of them this process is in.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    /// The cgroup that is mounted there: `/` unless in a container.
    pub root: PathBuf,
    /// `None`: v2.
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
}

/// The cgroup mounts in the mount namespace of this process.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse_mount).collect())
}

/// Parses a line of /proc/PID/mountinfo, see proc(5):
/// `31 23 0:28 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids`
fn parse_mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (unescape(place.next()?), unescape(place.next()?));
    let mut kind = kind.split(' ');
    let controllers = match kind.next()? {
        "cgroup2" => None,
        "cgroup" => Some(kind.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount { point, root, controllers })
}

/// Blanks and backslashes are written there as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The cgroup of a process in the hierarchy of this controller (`None`: in v2), from its /proc/PID/cgroup.
pub fn own_path<'a>(file: &'a str, controller: Option<&str>) -> Option<&'a Path> {
    file.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match controller {
            None => id == "0" && controllers.is_empty(),
            Some(controller) => controllers.split(',').any(|other| other == controller),
        };
        ours.then_some(Path::new(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line = r"36 31 0:33 / /mnt/a\040b\134c rw shared:9 master:1 - cgroup cgroup rw,cpu,freezer";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new(r"/mnt/a b\c"));
        assert!(mount.has(Some("freezer")) && mount.has(Some("cpu")));
        assert!(!mount.has(Some("pids")) && !mount.has(None));
        let v2 = parse_mount("30 23 0:26 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw").unwrap();
        assert!(v2.has(None) && !v2.has(Some("freezer")));
        assert_eq!(v2.root, Path::new("/box"));
        for other in ["31 23 0:28 / / rw - ext4 /dev/sda rw", "", "31 23 0:28 / /x rw", "1 2 - cgroup2 x y"] {
            assert_eq!(parse_mount(other), None, "{other}");
        }
        assert_eq!(unescape(r"\04\999x\"), Path::new(r"\04\999x\"));
    }

    #[test]
    fn the_own_cgroup_is_found() {
        let file = "4:name=a:b:/x\n3:cpu,freezer:/c:d\n1::/no\n0::/user.slice/me\n";
        assert_eq!(own_path(file, None), Some(Path::new("/user.slice/me")));
        assert_eq!(own_path(file, Some("freezer")), Some(Path::new("/c:d")));
        assert_eq!(own_path(file, Some("pids")), None);
    }
}
