//! Cgroups that belong to a unit of systemd.
//!
//! systemd notices that a unit is over when its cgroup is empty. systemd 252 misses that where the cgroup of a scope is
//! removed before it has handled the notification, and the scope stays active for ever. systemd removes the cgroups of its
//! units itself.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::errors::is_denied;
use crate::sys::{Open, Sys};

/// The kinds of units that have cgroups, systemd.unit(5).
const UNITS: [&[u8]; 6] = [b"scope", b"service", b"slice", b"mount", b"socket", b"swap"];

/// Whether a directory is the cgroup of a unit: it has the name of one, and the attribute that systemd gives it
/// (`user.invocation_id`, or `trusted.invocation_id` where the kernel has no user attributes on cgroups).
pub(crate) fn is_unit<S: Sys>(sys: &S, dir: &S::Fd, path: &Path) -> io::Result<bool> {
    if !UNITS.contains(&path.extension().map_or(&b""[..], OsStr::as_bytes)) {
        return Ok(false);
    }
    // Not through O_PATH: fgetxattr(2) refuses that.
    let dir = match sys.open(Some(dir), c".", Open::Read) {
        // systemd lets everyone read its cgroups.
        Err(error) if is_denied(&error) => return Ok(false),
        dir => dir?,
    };
    Ok(sys.has_attribute(&dir, c"user.invocation_id")?
        || sys.has_attribute(&dir, c"trusted.invocation_id")?)
}

/// Whether a directory may be the cgroup of a scope that has no attribute: systemd 252 gives none to scopes that are made
/// by another program. systemd runs if it has this directory, sd_booted(3).
pub(crate) fn may_be_scope<S: Sys>(sys: &S, path: &Path) -> bool {
    path.extension() == Some(OsStr::new("scope")) && sys.stat(None, c"/run/systemd/system").is_ok()
}
