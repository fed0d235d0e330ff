//! The line of text about a target.

use std::path::Path;

use cgroup_reaper::{Outcome, UsedMethod};

use crate::duration::human;
use crate::end::End;

/// The line, without its end. It may contain control characters.
pub fn line(name: &Path, end: &End) -> String {
    let name = if name.as_os_str().is_empty() { "\"\"".into() } else { name.to_string_lossy() };
    match &end.result {
        Ok(reaped) if reaped.outcome == Outcome::AlreadyGone => format!("{name}: {}", reaped.outcome),
        Ok(reaped) => {
            let how = how(reaped.method, reaped.signalled, reaped.attempts);
            format!("{name}: {} ({how}, {})", reaped.outcome, human(end.elapsed))
        }
        Err(failure) => named(&name, &failure.to_string()),
    }
}

/// How it was killed. Without a method there was no SIGKILL, but there may have been the signal of `--grace`.
fn how(method: Option<UsedMethod>, signalled: u64, attempts: u32) -> String {
    let method = method.map(|method| method.to_string());
    let signalled = match signalled {
        0 => None,
        1 => Some("1 process signalled".to_owned()),
        n => Some(format!("{n} processes signalled")),
    };
    let attempts = match attempts {
        0 => None,
        1 => Some("1 attempt".to_owned()),
        n => Some(format!("{n} attempts")),
    };
    match (&method, &signalled) {
        (None, None) => "nothing to kill".to_owned(),
        _ => [method, signalled, attempts].into_iter().flatten().collect::<Vec<_>>().join(", "),
    }
}

/// Puts the name before the message, unless the message begins with it, as most of the library's do.
fn named(name: &str, message: &str) -> String {
    // A shell completes directories with a slash.
    let name = if name == "/" { name } else { name.trim_end_matches('/') };
    if message.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')) {
        message.to_owned()
    } else {
        format!("{name}: {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_and_the_counts_are_named() {
        assert_eq!(how(None, 0, 0), "nothing to kill");
        assert_eq!(how(None, 1, 0), "1 process signalled");
        assert_eq!(how(Some(UsedMethod::CgroupKill), 0, 1), "cgroup.kill, 1 attempt");
        assert_eq!(how(Some(UsedMethod::Pidfd), 1, 2), "pidfd, 1 process signalled, 2 attempts");
        assert_eq!(how(Some(UsedMethod::Freezer), 7, 1), "freezer, 7 processes signalled, 1 attempt");
    }
}
