//! Targets from standard input: `-` among those of the command line.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// What stands for the list among the arguments.
const LIST: &str = "-";

/// The targets that the arguments name, the list's in the place of `-`. The list is read to its end, if one is named.
pub fn expand(args: &[OsString]) -> Result<Vec<OsString>, String> {
    let is_list = |arg: &&OsString| arg.as_os_str() == LIST;
    match args.iter().filter(is_list).count() {
        0 => return Ok(args.to_vec()),
        1 => {}
        _ => return Err("`-` is given more than once, and there is one standard input".to_owned()),
    }
    let list = read().map_err(|error| format!("standard input: {error}"))?;
    let mut list = names(&list).map_err(|error| format!("standard input: {error}"))?;
    Ok(args
        .iter()
        .flat_map(|arg| if is_list(&arg) { std::mem::take(&mut list) } else { vec![arg.clone()] })
        .collect())
}

fn read() -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    // `Stdin` takes EBADF for the end.
    File::from(io::stdin().as_fd().try_clone_to_owned()?).read_to_end(&mut list)?;
    Ok(list)
}

/// The names in a list. NUL ends each of them if there is any, newline otherwise.
///
/// A list that breaks off within a name is refused: what is there of the name may be that of a cgroup above the one
/// that was meant.
pub fn names(list: &[u8]) -> Result<Vec<OsString>, String> {
    let (end, its_name) = if list.contains(&0) { (0, "NUL") } else { (b'\n', "newline") };
    let mut names: Vec<_> =
        list.split(|&byte| byte == end).map(|name| OsString::from_vec(name.to_vec())).collect();
    let rest = names.pop().unwrap_or_default();
    if !rest.is_empty() {
        let rest = Path::new(&rest).display();
        return Err(format!("no {its_name} after the last name, {rest}: the list is not complete"));
    }
    if end == b'\n' {
        names.retain(|name| name != OsStr::new(""));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_names(list: &[u8], expected: &[&[u8]]) {
        let expected: Vec<_> = expected.iter().map(|name| OsString::from_vec(name.to_vec())).collect();
        assert_eq!(names(list), Ok(expected), "{}", list.escape_ascii());
    }

    #[test]
    fn lines_are_names_and_empty_ones_are_not() {
        assert_names(b"", &[]);
        assert_names(b"\n", &[]);
        assert_names(b"/a\n", &[b"/a"]);
        assert_names(b"\n/a b\n\n./c\xff\n-\n", &[b"/a b", b"./c\xff", b"-"]);
    }

    #[test]
    fn nul_allows_every_name() {
        assert_names(b"/a\0", &[b"/a"]);
        assert_names(b"/a\nb\0c\n\0", &[b"/a\nb", b"c\n"]);
        // An empty name is a mistake of what wrote the list, and refused as one that is an argument.
        assert_names(b"\0", &[b""]);
        assert_names(b"/a\0\0", &[b"/a", b""]);
    }

    #[test]
    fn a_list_that_breaks_off_is_refused() {
        for (list, end) in
            [(&b"/a"[..], "newline"), (b"/a\n/b", "newline"), (b"/a\0/b", "NUL"), (b"/a\0/b\n", "NUL")]
        {
            let error = names(list).unwrap_err();
            assert!(error.contains(end), "{error}");
        }
    }

    #[test]
    fn without_a_dash_nothing_is_read() {
        let args = ["a", "./-", "--", "-x"].map(OsString::from);
        assert_eq!(expand(&args), Ok(args.to_vec()));
        assert!(expand(&["-", "a", "-"].map(OsString::from)).unwrap_err().contains("more than once"));
    }
}
