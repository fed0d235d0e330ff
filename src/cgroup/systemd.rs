//! Cgroups that belong to a unit of systemd.
//!
//! systemd notices that a unit is over when its cgroup is empty. systemd 252 can miss that where the cgroup of a scope
//! is removed before it has handled the notification: the scope stays active until it is stopped. systemd itself removes
//! the cgroup of a unit that is over.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::errors::is_denied;
use crate::machine::Removal;
use crate::sys::{Open, Sys};

/// The kinds of units that have cgroups, systemd.unit(5).
const UNITS: [&[u8]; 6] = [b"scope", b"service", b"slice", b"mount", b"socket", b"swap"];

/// Whether the directory at `path` has the name of a unit.
pub(crate) fn has_unit_name(path: &Path) -> bool {
    UNITS.contains(&path.extension().map_or(&b""[..], OsStr::as_bytes))
}

/// When a directory with the name of a unit is removed.
///
/// It is the cgroup of a unit if it has the attribute that systemd gives it (`user.invocation_id`, or
/// `trusted.invocation_id` where the kernel has no user attributes on cgroups). systemd 252 gives none to a new scope,
/// so any scope may be one where systemd runs, which the directory in /run shows, sd_booted(3).
pub(crate) fn removal<S: Sys>(sys: &S, dir: &S::Fd, path: &Path) -> io::Result<Removal> {
    // Not through O_PATH: fgetxattr(2) refuses that.
    match sys.open(Some(dir), c".", Open::Read) {
        Ok(dir) => {
            if sys.has_attribute(&dir, c"user.invocation_id")?
                || sys.has_attribute(&dir, c"trusted.invocation_id")?
            {
                return Ok(Removal::Never);
            }
        }
        // systemd lets everyone read its cgroups.
        Err(error) if is_denied(&error) => return Ok(Removal::AtOnce),
        Err(error) => return Err(error),
    }
    let may_be_scope =
        path.extension() == Some(OsStr::new("scope")) && sys.stat(None, c"/run/systemd/system").is_ok();
    Ok(if may_be_scope { Removal::LATER } else { Removal::AtOnce })
}
