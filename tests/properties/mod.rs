//! What must hold whatever the kernel or a caller says. The unit tests try it on generated input, the fuzz
//! targets (`fuzz/`) on anything: they call the same functions, each of which panics where a property is broken.

mod anything;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use self::anything::{Anything, Script, Threads};
pub use self::anything::{accepted, reap};

use crate::cgroup::hierarchy::Version;
use crate::cgroup::members::{MemberList, Pages};
use crate::cgroup::mounts::{Mount, membership};
use crate::cgroup::proc::ProcStat;
use crate::cgroup::{v1, v2};
use crate::machine::Froze;
use crate::outcome::Refusal;
use crate::reaper::{CgroupOptions, KillMethod, Reaper, Signal};
use crate::sys::Pid;
use crate::{Reactor, SpawnError};

/// Directories that may be written to.
const V1: &str = "/f/t";
const V2: &str = "/u/t";

fn here() -> &'static Path {
    Path::new("")
}

/// The number that a text is, if it is a positive one that a pid can have.
fn positive(text: &[u8]) -> Option<Pid> {
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0_i64, |value, digit| {
        let value = digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))?;
        (value <= i64::from(i32::MAX)).then_some(value)
    });
    value.and_then(|value| Pid::new(i32::try_from(value).ok()?))
}

/// `cgroup.procs`: a pid is what stands alone in a line and is positive; every other line is an unmapped member.
pub fn members(text: &[u8], chunk: u16) {
    let chunk = usize::from(chunk).max(1);
    let sys = Anything::scripted(Script { text: text.to_vec(), chunk: Some(chunk), threads: None });
    let mut listing = MemberList::default();
    listing.add(&sys, &sys.dir(V2), here(), Version::V2).unwrap();
    listing.finish();
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').filter(|line| !line.is_empty()).collect();
    let mut pids: Vec<Pid> = lines.iter().filter_map(|line| positive(line)).collect();
    assert_eq!(listing.unmapped, lines.len() - pids.len());
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(listing.pids, pids);
    assert_eq!(listing.is_empty(), lines.is_empty());
    assert!(pids.iter().all(|&pid| listing.contains(pid)));
    let is_garbled = lines.iter().any(|&line| line != b"0" && positive(line).is_none());
    assert_eq!(listing.garbled, is_garbled);
    // Page by page it is the same list.
    let mut pages = Pages::open(&sys, &sys.dir(V2), here()).unwrap();
    let mut paged = MemberList::default();
    loop {
        let page = pages.next(&sys).unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    paged.finish();
    assert_eq!((paged.pids, paged.unmapped, paged.garbled), (pids, listing.unmapped, is_garbled));
}

/// `/proc/TID/status`, where a threaded group names threads: the process is what a line `Tgid:` says, or there
/// is an error.
pub fn threads(status: &[u8]) {
    let threads = Threads { text: b"8\n", pidfd: [libc::EINVAL; 2], foreign_proc: false };
    let sys =
        Anything::scripted(Script { text: status.to_vec(), threads: Some(threads), ..Script::default() });
    let mut listing = MemberList::default();
    let added = listing.add(&sys, &sys.dir(V2), here(), Version::V2);
    let said = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"));
    match said.and_then(|pid| positive(pid.trim_ascii())) {
        Some(pid) => assert_eq!((added.unwrap(), listing.pids), ((), vec![pid])),
        None => assert!(added.is_err() && listing.pids.is_empty()),
    }
}

/// `cgroup.events`: populated or not is what a whole line says, the last one; without one it is an error.
pub fn events(text: &[u8]) {
    let lines = || text.split(|&b| b == b'\n');
    let populated = lines().rfind(|line| matches!(*line, b"populated 0" | b"populated 1"));
    let sys = Anything::saying(text);
    let frozen = lines().any(|line| line == b"frozen 1");
    match (v2::events(&sys, &sys.dir(V2)), populated) {
        (Ok(events), Some(line)) => {
            assert_eq!(events.populated, line.ends_with(b"1"));
            assert_eq!(events.frozen, frozen);
        }
        (Err(error), None) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
        (result, _) => panic!("{result:?} of {text:?}"),
    }
    let complete = populated.is_some() && frozen;
    let control = v2::open(&sys, &sys.dir(V2)).unwrap();
    let freeze = v2::freeze(&sys, &sys.dir(V2), &control).unwrap();
    assert_eq!(freeze, if complete { Froze::Frozen } else { Froze::Freezing });
    assert_eq!(*sys.written.borrow(), [b"1"]);
}

/// `cgroup.freeze`: it is written to only where it says that the directory is frozen, or where we froze it.
pub fn v2_thaw(text: &[u8]) {
    let frozen = text.trim_ascii_end() == b"1";
    let sys = Anything::saying(text);
    v2::thaw(&sys, &sys.dir(V2), here()).unwrap();
    assert_eq!(*sys.written.borrow(), if frozen { vec![b"0"] } else { vec![] });
    let sys = Anything::saying(text);
    v2::thaw_open(&sys, &v2::open(&sys, &sys.dir(V2)).unwrap()).unwrap();
    assert_eq!(*sys.written.borrow(), [b"0"]);
}

/// `freezer.state`: frozen and thawed is what it says in these words alone, and nothing else is written.
pub fn freezer(text: &[u8]) {
    // One read has to do for a word.
    let word = text[..text.len().min(256)].trim_ascii_end();
    let sys = Anything::saying(text);
    let freeze = v1::freeze(&sys, &v1::open(&sys, &sys.dir(V1)).unwrap(), text.len() % 2 == 0).unwrap();
    assert_eq!(freeze, if word == b"FROZEN" { Froze::Frozen } else { Froze::Freezing });
    assert_eq!(*sys.written.borrow(), [b"FROZEN"]);
    for supposed in [false, true] {
        let sys = Anything::saying(text);
        let thawed = match supposed {
            false => v1::thaw(&sys, &sys.dir(V1), here()),
            true => {
                let control = v1::open(&sys, &sys.dir(V1)).unwrap();
                v1::thaw_open(&sys, &control).and_then(|()| v1::is_thawed(&sys, &control))
            }
        };
        let (expected, writes) = match word {
            b"THAWED" => (Some(true), supposed),
            b"FREEZING" | b"FROZEN" => (Some(false), true),
            _ => (None, supposed),
        };
        assert_eq!(thawed.ok(), expected);
        assert_eq!(*sys.written.borrow(), if writes { vec![b"THAWED"] } else { vec![] });
    }
    let sys = Anything::saying(text);
    let held = v1::held_from_above(&sys, &sys.dir(V1), here()).unwrap();
    assert_eq!(held, text.trim_ascii_end() == b"1");
}

/// `/proc/PID/stat`: anything may come; and whatever a process calls itself, its state and flags are found.
pub fn stat(name: &[u8], state: u8, flags: u64) {
    ProcStat::parse(name);
    let state = char::from(b'A' + state % 26);
    let text = [b"1 (", name, format!(") {state} 1 1 1 0 -1 {flags} 0 0\n").as_bytes()].concat();
    let stat = ProcStat::parse(&text).unwrap();
    assert_eq!(stat.state, state);
    assert_eq!(stat.is_exiting(), flags & 0x4 != 0);
    assert_eq!(stat.is_kernel_thread(), flags & 0x20_0000 != 0);
}

/// `/proc/thread-self/mountinfo` and `/proc/PID/cgroup`: anything may come, and what is found is part of it.
pub fn mounts(mountinfo: &[u8], cgroups: &[u8]) {
    let mounts = Mount::all(&Anything::saying(mountinfo)).unwrap();
    assert!(mounts.len() <= mountinfo.split(|&b| b == b'\n').count());
    for mount in &mounts {
        if let Some(cgroup) = membership(cgroups, mount) {
            assert!(cgroups.split(|&b| b == b'\n').any(|line| line.ends_with(cgroup)));
            assert!(mount.path_of(cgroup).is_none_or(|path| !path.iter().any(|name| name == "..")));
        }
    }
}

/// The same, as the kernel writes them: a process's cgroup is found below where its hierarchy is mounted.
pub fn mounted(root: &[u8], point: &[u8], below: &[u8], unified: bool) {
    let clean = |name: &[u8], not: &[u8]| -> Vec<u8> {
        name.iter().copied().filter(|byte| *byte != 0 && !not.contains(byte)).collect()
    };
    // The kernel makes no cgroup with a newline in its name (`cgroup_mkdir`).
    let (root, point) = (clean(root, b"\n"), clean(point, b""));
    let below: Vec<u8> = clean(below, b"\n").into_iter().skip_while(|&b| b == b'/').collect();
    let escaped = |path: &[u8]| -> Vec<u8> {
        let escape = |&byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            _ => vec![byte],
        };
        path.iter().flat_map(escape).collect()
    };
    let kind: &[u8] = if unified { b"cgroup2" } else { b"cgroup" };
    let mountinfo = [
        b"24 1 0:22 / / rw - ext4 x rw\n36 35 0:30 /",
        &escaped(&root)[..],
        b" /",
        &escaped(&point),
        b" rw,relatime shared:9 - ",
        kind,
        b" cgroup rw,freezer\n",
    ]
    .concat();
    let id: &[u8] = if unified { b"1:cpu:/x\n0::/" } else { b"7:cpu:/x\n0::/y\n3:freezer:/" };
    let cgroups = [id, &root, b"/", &below, b"\n"].concat();
    let mounts = Mount::all(&Anything::saying(&mountinfo)).unwrap();
    let [mount] = &mounts[..] else { panic!("{mounts:?}") };
    assert_eq!(mount.is_freezer(), !unified);
    let path = mount.path_of(membership(&cgroups, mount).unwrap());
    // Above the mount.
    if below.split(|&b| b == b'/').any(|name| name == b"..") {
        return assert_eq!(path, None);
    }
    let path = path.unwrap();
    assert_eq!(path, Path::new("/").join(OsStr::from_bytes(&point)).join(OsStr::from_bytes(&below)));
}

/// The words of a [`Signal`] and a [`KillMethod`].
pub fn words(text: &str) {
    if let Ok(signal) = text.parse::<Signal>() {
        assert!((1..=64).contains(&signal.number()));
        assert_eq!(signal.number().to_string().parse(), Ok(signal));
        assert_eq!(Signal::new(signal.number()), Some(signal));
    }
    if let Ok(method) = text.parse::<KillMethod>() {
        assert_eq!(method.to_string(), text);
    }
}

/// What a caller may name, below a directory that is no cgroup: refused for the right reason, with the
/// [`Reaper`] handed back.
pub fn refused(dir: &Path, subsystems: &[Vec<u8>], slice: &[u8], name: &[u8]) {
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let spawn = |reaper: Reaper| -> SpawnError {
        let error = Reactor::new().unwrap().spawn_reaper(reaper.clone()).unwrap_err();
        assert!(!error.to_string().is_empty());
        error
    };
    let options = CgroupOptions::new(dir)
        .slice(path(slice))
        .subsystems(subsystems.iter().map(|subsystem| path(subsystem)));
    let reaper = Reaper::new(options, path(name));
    let error = spawn(reaper.clone());
    let names = || subsystems.iter().map(Vec::as_slice).chain([slice, name]);
    let dots = |name: &[u8]| name.split(|&b| b == b'/').any(|part| part == b"." || part == b"..");
    let unsound = |name: &[u8]| name.starts_with(b"/") || dots(name) || name.windows(2).any(|w| w == b"//");
    match error.refusal() {
        Refusal::NoSubsystems => assert!(subsystems.is_empty()),
        Refusal::EmptyName => {
            assert!(
                name.is_empty() || names().any(|name| name.is_empty() || name.windows(2).any(|w| w == b"//"))
            )
        }
        Refusal::AbsoluteName { name } => assert!(name.is_absolute()),
        Refusal::DotComponent { name } => assert!(dots(name.as_os_str().as_bytes())),
        Refusal::NotCgroup { path }
        | Refusal::NoSuchDirectory { path }
        | Refusal::Symlink { path }
        | Refusal::Io { path, .. } => {
            assert!(!names().any(unsound), "{error}");
            assert!(path.starts_with(dir));
        }
        _ => panic!("{error}"),
    }
    assert_eq!(error.into_reaper(), reaper);

    let at = [dir.as_os_str().as_bytes(), b"/", slice, b"/", name].concat();
    let reaper = Reaper::at(path(&at));
    let error = spawn(reaper.clone());
    match error.refusal() {
        Refusal::DotComponent { .. } => assert!(dots(&at)),
        _ => assert!(!dots(&at), "{error}"),
    }
    assert_eq!(error.into_reaper(), reaper);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// Bytes of which many are what the kernel would write.
    fn text(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            6 => proptest::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            2 => Just(b"\n".to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..24)
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        text(&["a", "link", "file", "dir", "/", ".", "..", "//", " "])
    }

    /// A thread that has exited is no member, one of which nothing is known is a member, and without descriptors there is
    /// no list.
    #[test]
    fn of_threads_that_tell_nothing() {
        let list = |text, pidfd, foreign_proc| {
            let threads = Some(Threads { text, pidfd, foreign_proc });
            let sys =
                Anything::scripted(Script { text: b"Tgid:\t9\n".to_vec(), threads, ..Script::default() });
            let mut members = MemberList::default();
            let pids =
                |members: MemberList| members.pids.into_iter().map(|pid| pid.get()).collect::<Vec<_>>();
            let added = members.add(&sys, &sys.dir(V2), here(), Version::V2);
            let (unmapped, garbled) = (members.unmapped, members.garbled);
            added.map(|()| (pids(members), unmapped, garbled)).map_err(|error| error.raw_os_error())
        };
        let old = [libc::EINVAL; 2];
        assert_eq!(list(b"8\n", old, false), Ok((vec![9], 0, false)));
        assert_eq!(list(b"8\n0\n", old, false), Ok((vec![9], 1, false)));
        assert_eq!(list(b"8\n0\nx\n", old, false), Ok((vec![9], 2, true)));
        assert_eq!(list(b"8\n10\n0\n", old, true), Ok((vec![], 3, false)));
        assert_eq!(list(b"8\n0\n", [libc::EINVAL, libc::ESRCH], false), Ok((vec![], 1, false)));
        for pidfd in [[libc::EMFILE, libc::EINVAL], [libc::EINVAL, libc::EMFILE]] {
            assert_eq!(list(b"8\n", pidfd, false), Err(Some(libc::EMFILE)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn of_members(
            text in text(&["0\n", "1\n", "-1\n", "30\n", "+7\n", "2147483647\n", "2147483648\n", "4294967303\n", " 7\n"]),
            chunk in any::<u16>(),
        ) {
            members(&text, chunk % 64);
        }

        #[test]
        fn of_threads(text in text(&["Tgid:", "\t7\n", "Tgid:\t9\n", "Tgid:\t0\n", "-3\n", "Name:\tTgid:\n", "5"])) {
            threads(&text);
        }

        #[test]
        fn of_events(text in text(&["populated 0\n", "populated 1\n", "frozen 0\n", "frozen 1\n", " ", "populated"])) {
            events(&text);
        }

        #[test]
        fn of_states(text in text(&["THAWED\n", "FREEZING", "FROZEN\n", "0\n", "1\n", "\t", "FROZEN"])) {
            freezer(&text);
            v2_thaw(&text);
        }

        #[test]
        fn of_stat(name in text(&[")", "(", ") R 1", " ", "a"]), state in any::<u8>(), flags in any::<u64>()) {
            stat(&name, state, flags);
        }

        #[test]
        fn of_mounts(
            mountinfo in text(&["1 2 0:3 / /c rw - cgroup cgroup rw,freezer\n", "1 2 0:3 /a /d rw - cgroup2 x rw\n", " - ", "cgroup", "\\040", " "]),
            cgroups in text(&["0::/a/b\n", "3:freezer:/c\n", "0::", ":", "4:cpu,freezer:/"]),
        ) {
            mounts(&mountinfo, &cgroups);
        }

        #[test]
        fn of_mounted(root in bytes(), point in bytes(), below in bytes(), unified in any::<bool>()) {
            mounted(&root, &point, &below, unified);
        }

        #[test]
        fn of_words(text in "(SIG)?(TERM|KILL|RTMIN)?[+-]?[0-9]{0,3}|auto|pidfd|cgroup-kill|freezer|\\PC*") {
            words(&text);
        }

        #[test]
        fn of_accepted_names(subsystem in name(), slice in name(), name in name()) {
            accepted(&subsystem, &slice, &name);
        }

        #[test]
        fn of_reaps(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            reap(&bytes);
        }

        #[test]
        fn of_reaps_that_mostly_go_well(
            how in any::<[u8; 3]>(),
            bytes in prop::collection::vec(prop_oneof![9 => 0_u8..208, 1 => any::<u8>()], 0..800),
        ) {
            reap(&[&how[..], &bytes].concat());
        }

        #[test]
        fn of_refused_names(
            subsystems in prop::collection::vec(name(), 0..3), slice in name(), name in name(),
        ) {
            let dir = Plain::new();
            refused(&dir.0, &subsystems, &slice, &name);
        }
    }

    /// The inputs that the fuzz target of reaps begins with.
    #[test]
    fn of_reaps_that_were_found_by_fuzzing() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        // A package has none.
        if fuzz.exists() {
            let seeds = std::fs::read_dir(fuzz.join("seeds/reap")).expect("seeds");
            let run = seeds.map(|seed| reap(&std::fs::read(seed.expect("seeds").path()).expect("a seed")));
            assert!(run.count() > 0);
        }
    }

    /// A directory that is no cgroup, with some things in it.
    struct Plain(PathBuf);

    impl Plain {
        fn new() -> Plain {
            use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("cgroup-reaper-plain-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
            let plain = Plain(std::env::temp_dir().join(name));
            std::fs::create_dir_all(plain.0.join("dir/a")).unwrap();
            std::fs::write(plain.0.join("file"), "").unwrap();
            std::os::unix::fs::symlink("dir", plain.0.join("link")).unwrap();
            plain
        }
    }

    impl Drop for Plain {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
