//! Cgroups that belong to a unit of systemd.
//!
//! systemd notices that a unit is over when its cgroup is empty. systemd 252 can miss this if the cgroup of a scope is
//! removed before it has handled the notification: then the scope stays active until it is stopped. systemd itself
//! removes the cgroup of a unit that is over.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::errors::{Call, Meaning, is_denied, is_gone, meaning};
use super::file::c_path;
use crate::sys::{Open, Sys};

/// The kinds of units that have cgroups, systemd.unit(5).
const UNITS: [&[u8]; 6] = [b"scope", b"service", b"slice", b"mount", b"socket", b"swap"];

/// Whether the directory at `path` has the name of a unit.
pub(crate) fn has_unit_name(path: &Path) -> bool {
    UNITS.contains(&path.extension().map_or(&b""[..], OsStr::as_bytes))
}

/// Whether a directory with the name of a unit is the cgroup of that unit.
///
/// systemd sets an attribute on such a cgroup: `user.invocation_id`, or `trusted.invocation_id` where the kernel has
/// no user attributes on cgroups. systemd 252 sets none on a new scope, but has a file for each scope: scopes are
/// transient units, systemd.scope(5). The file is required because other programs make cgroups named `*.scope` as
/// well, and remove them themselves.
pub(crate) fn is_unit<S: Sys>(sys: &S, dir: &S::Fd, path: &Path) -> io::Result<bool> {
    // Not O_PATH: fgetxattr(2) refuses such a descriptor.
    match sys.open(Some(dir), c".", Open::Read) {
        Ok(dir) => {
            if sys.has_attribute(&dir, c"user.invocation_id")?
                || sys.has_attribute(&dir, c"trusted.invocation_id")?
            {
                return Ok(true);
            }
        }
        // systemd lets everyone read its cgroups.
        Err(error) if is_denied(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    if path.extension() != Some(OsStr::new("scope")) {
        return Ok(false);
    }
    let owner = sys.stat(Some(dir), c"")?.owner;
    match transient_unit(sys, Path::new("/run"), path) {
        Ok(()) => return Ok(true),
        Err(error) if is_gone(&error) || is_denied(&error) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {}
        Err(error) => return Err(error),
    }
    match transient_unit(sys, &Path::new("/run/user").join(owner.to_string()), path) {
        Ok(()) => Ok(true),
        Err(error) if meaning(Call::Cgroup, &error) == Meaning::Short => Err(error),
        // The user can make anything of that directory.
        Err(_) => Ok(false),
    }
}

/// Looks for the file that a service manager, of the system or of a user, has for the transient unit of the cgroup at `path`. No
/// link below `run` is followed: that of a user could lead to a filesystem that does not answer.
fn transient_unit<S: Sys>(sys: &S, run: &Path, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    // If a file of the kernel could have the name, systemd puts an underscore before it.
    let unit = name.as_bytes().strip_prefix(b"_").map_or(name, OsStr::from_bytes);
    let mut directory = sys.open(None, &c_path(run)?, Open::Directory)?;
    for name in [c"systemd", c"transient"] {
        directory = sys.open(Some(&directory), name, Open::Place)?;
    }
    sys.stat(Some(&directory), &c_path(unit.as_ref())?).map(drop)
}
