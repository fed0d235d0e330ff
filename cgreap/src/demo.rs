//! `cgreap demo`: groups full of processes that are hard to kill, made and reaped.
//!
//! It touches nothing but what it makes, below a directory of its own in each hierarchy, and takes all of it
//! away again: in the end, when something fails, on a signal, and, through its guard, after a SIGKILL.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cgroup_reaper::{CgroupOptions, Reactor, Reaper, Signal};

use crate::reap::{self, End, Interrupt, NOT_REAPED};
use crate::report::{self, complain, human, print};
use crate::victim::{self, Kind, VictimArgs};

const PREFIX: &str = "cgroup-reaper-demo-";
/// No process of the demo lives longer, even if nobody is left to kill it.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long the processes may take to be in place, on slow machines too.
const START_TIME: Duration = Duration::from_secs(30);
const REAP_TIME: Duration = Duration::from_secs(20);
const CLEAR_TIME: Duration = Duration::from_secs(10);
/// Processes in a fork storm.
const STORM: usize = 24;
const GRACE: Duration = Duration::from_millis(100);

/// Makes, reaps, tells; returns the exit status.
pub fn run() -> u8 {
    reap::raise_descriptor_limit();
    let started = Reactor::new().and_then(|reactor| Ok((Interrupt::watch(reactor.remote())?, reactor)));
    let (interrupt, reactor) = match started {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("demo: {error}"));
            return NOT_REAPED;
        }
    };
    let status = match demo(reactor, &interrupt) {
        Ok(true) => reap::ALL_REAPED,
        Ok(false) => NOT_REAPED,
        Err(error) => {
            complain(&format!("demo: {error}"));
            NOT_REAPED
        }
    };
    interrupt.signal().map_or(status, reap::interrupted_status)
}

/// Whether all were reaped and nothing is left.
fn demo(reactor: Reactor, interrupt: &Interrupt) -> Result<bool, String> {
    let places = Places::make()?;
    let mut world = World::new(&places)?;
    let mut fixtures = Vec::new();
    for (place, partners) in places.targets() {
        world.populate(place, &partners, &mut fixtures)?;
    }
    world.await_victims(interrupt)?;
    // The storms come last: they make everything else slow.
    for (place, partners) in places.targets() {
        world.brew(place, &partners, &mut fixtures)?;
    }
    world.await_victims(interrupt)?;
    fixtures.iter().try_for_each(|fixture| (fixture.settle)(&fixture.dir))?;
    fixtures.sort_by_key(|fixture| Reverse(fixture.hierarchy));
    for fixture in &mut fixtures {
        fixture.processes = fixture.groups().iter().map(|group| processes_in(group)).sum();
    }
    let groups: usize = fixtures.iter().map(|fixture| fixture.groups().len()).sum();
    let processes: usize = fixtures.iter().map(|fixture| fixture.processes).sum();
    print(&format!("demo: {groups} cgroups, {processes} processes; reaping all at once\n"));

    let since = Instant::now();
    let mut ends: Vec<Option<End>> = fixtures.iter().map(|_| None).collect();
    let reapers = fixtures.iter().map(|fixture| fixture.reaper.clone()).collect();
    let driven = reap::drive(reactor, reapers, interrupt, &mut |index, end| ends[index] = Some(end));
    let elapsed = since.elapsed();
    driven.map_err(|error| format!("event loop: {error}"))?;

    // Before the world is cleared, which would hide it.
    let survivors: usize =
        fixtures.iter().flat_map(|fixture| fixture.groups()).map(|group| processes_in(&group)).sum();
    let rows: Vec<_> = fixtures.iter().zip(&ends).map(|(fixture, end)| row(fixture, end.as_ref())).collect();
    print(&table(&rows));
    let removed = |end: &Option<End>| end.as_ref().is_some_and(|end| end.result.is_ok());
    let unremoved = fixtures.iter().zip(&ends).filter(|(fixture, end)| removed(end) && fixture.dir.exists());
    let mut left: Vec<_> =
        unremoved.map(|(fixture, _)| format!("{} was left", fixture.dir.display())).collect();
    if survivors > 0 {
        left.push(format!("{survivors} processes were left and had to be killed anew"));
    }
    left.extend(world.end());
    let reaped = ends.iter().flatten().filter(|end| end.result.is_ok()).count();
    for (fixture, end) in fixtures.iter().zip(&ends) {
        if let Some(Err(failure)) = end.as_ref().map(|end| &end.result) {
            complain(&format!("demo: {} ({}): {failure}", fixture.what, fixture.hierarchy));
        }
    }
    let rest = if left.is_empty() { "nothing is left".to_owned() } else { left.join("; ") };
    let total = fixtures.len();
    print(&format!("demo: {reaped} of {total} reaped in {}; {rest}\n", human(elapsed)));
    Ok(reaped == total && left.is_empty())
}

/// A directory of ours in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// "v2" or "v1".
    version: &'static str,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// Our directory, from there.
    slice: PathBuf,
}

impl Place {
    fn top(&self) -> PathBuf {
        self.mount.join(&self.slice)
    }

    /// Whether a name in both can be one target of the library: the same way from the same root.
    fn fits(&self, other: &Place) -> bool {
        self.slice == other.slice && self.mount.parent() == other.mount.parent()
    }
}

/// Our directories in all the hierarchies that serve.
#[derive(Debug, Default)]
struct Places {
    v2: Option<Place>,
    freezer: Option<Place>,
    pids: Option<Place>,
}

impl Places {
    /// Makes them, or says why there is none.
    fn make() -> Result<Places, String> {
        let mounts = mounts().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut refusals = Vec::new();
        let mut make = |version, controller: Option<&str>| {
            let mount = mounts.iter().find(|mount| mount.has(controller))?;
            match mount.make_place(version, own_path(&own, controller)) {
                Ok(place) => Some(place),
                Err(error) => {
                    refusals.push(format!("{}: {error}", mount.point.display()));
                    None
                }
            }
        };
        let v2 = make("v2", None);
        let freezer = make("v1", Some("freezer"));
        if v2.is_none() && freezer.is_none() {
            return Err(match refusals.first() {
                None => "neither cgroup v2 nor a v1 freezer is mounted".to_owned(),
                Some(refusal) => format!(
                    "no right to make cgroups ({refusal}): run it as root, or in a delegated subtree, such as \
                     by `systemd-run --user --scope -p Delegate=yes cgreap demo`"
                ),
            });
        }
        // Where it is mounted together with the freezer it is the directory that we have.
        let together = |mount: &Mount| mount.has(Some("pids")) && mount.has(Some("freezer"));
        let pids = match &freezer {
            Some(freezer) if mounts.iter().any(together) => Some(freezer.clone()),
            _ => make("v1", Some("pids")),
        };
        Ok(Places { v2, freezer, pids })
    }

    fn tops(&self) -> Vec<PathBuf> {
        let mut tops: Vec<_> =
            [&self.v2, &self.freezer, &self.pids].into_iter().flatten().map(Place::top).collect();
        tops.dedup();
        tops
    }

    /// The hierarchies to show, each with the places whose groups its processes are in besides: v1 has one
    /// hierarchy a controller, so there a target has several directories.
    fn targets(&self) -> Vec<(&Place, Vec<&Place>)> {
        let pids = self.pids.iter();
        let with_pids = |place: &Place| pids.clone().filter(|pids| pids.top() != place.top()).collect();
        let v1 = self.freezer.iter().map(|freezer| (freezer, with_pids(freezer)));
        self.v2.iter().map(|v2| (v2, with_pids(v2))).chain(v1).collect()
    }
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// The group that is mounted there, `/` mostly.
    root: PathBuf,
    /// `None`: v2.
    controllers: Option<Vec<String>>,
}

impl Mount {
    /// Whether it has this v1 controller; for `None`, whether it is v2.
    fn has(&self, controller: Option<&str>) -> bool {
        match (&self.controllers, controller) {
            (None, None) => true,
            (Some(controllers), Some(controller)) => controllers.iter().any(|other| other == controller),
            _ => false,
        }
    }

    /// Makes our directory at the top, or else, as users may whose groups are delegated to them, in our own
    /// group.
    fn make_place(&self, version: &'static str, own: Option<&Path>) -> io::Result<Place> {
        let name = format!("{PREFIX}{}", std::process::id());
        let at = |slice: PathBuf| {
            let place = Place { version, mount: self.point.clone(), slice };
            fs::create_dir(place.top()).map(|()| place)
        };
        at(PathBuf::from(&name)).or_else(|error| {
            let own = own.and_then(|own| own.strip_prefix(&self.root).ok());
            match own.filter(|own| !own.as_os_str().is_empty()) {
                Some(own) => at(own.join(&name)),
                None => Err(error),
            }
        })
    }
}

/// The cgroup mounts that we see, see proc(5).
fn mounts() -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse_mount).collect())
}

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

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
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

/// Our own group in the hierarchy of this controller (`None`: in v2), from a /proc/PID/cgroup file.
fn own_path<'a>(file: &'a str, controller: Option<&str>) -> Option<&'a Path> {
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

/// A target of the demo.
#[derive(Debug)]
struct Fixture {
    what: String,
    hierarchy: &'static str,
    /// Its directory in the hierarchy that it is for.
    dir: PathBuf,
    reaper: Reaper,
    /// Brings what is in the directory into the state that it is shown in.
    settle: fn(&Path) -> Result<(), String>,
    /// How many there were just before the reap.
    processes: usize,
}

impl Fixture {
    /// Its directory and those below.
    fn groups(&self) -> Vec<PathBuf> {
        subtree(&self.dir)
    }
}

fn subtree(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = below.flat_map(|entry| subtree(&entry.path()));
    [dir.to_path_buf()].into_iter().chain(below).collect()
}

/// How many processes are in this very group; none if it is gone.
fn processes_in(group: &Path) -> usize {
    pids_in(group).len()
}

fn pids_in(group: &Path) -> Vec<String> {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    procs.lines().map(str::to_owned).collect()
}

/// Everything the demo makes, and its end.
#[derive(Debug)]
struct World {
    tops: Vec<PathBuf>,
    victims: Vec<Child>,
    /// Where those not yet awaited tell that they are in place.
    outputs: Vec<ChildStdout>,
    /// Does what `end` does, should this process not live to do it.
    guard: Option<Child>,
    /// When the victims die by themselves.
    until: u64,
}

impl World {
    fn new(places: &Places) -> Result<World, String> {
        // First of all the owner of the directories: should anything below fail, they go with it.
        let mut world =
            World { tops: places.tops(), victims: Vec::new(), outputs: Vec::new(), guard: None, until: 0 };
        let now = victim::uptime().map_err(|error| format!("/proc/uptime: {error}"))?;
        world.until = now + LIFETIME.as_millis() as u64;
        let guard = victim::spawn_guard(&world.tops);
        world.guard = Some(guard.map_err(|error| format!("cannot start a copy of this program: {error}"))?);
        Ok(world)
    }

    /// Makes the fixtures of one hierarchy, the storm apart.
    fn populate(
        &mut self,
        place: &Place,
        partners: &[&Place],
        fixtures: &mut Vec<Fixture>,
    ) -> Result<(), String> {
        // v2 has one hierarchy for all; there only the storm needs the pids controller of v1.
        let partners = if place.version == "v1" { partners } else { &[] };
        let sleepers =
            self.fixture(place, partners, "sleepers", |world, groups| world.start(Kind::Sleep, 8, groups))?;
        let tree = self.fixture(place, partners, "nested tree", |world, groups| {
            for below in ["left", "left/leaf", "left/leaf/deep", "right"] {
                let groups: Vec<_> = groups.iter().map(|group| group.join(below)).collect();
                groups.iter().try_for_each(|group| make_dir(group))?;
                world.start(Kind::Sleep, 2, &groups)?;
            }
            // And above the others.
            world.start(Kind::Sleep, 1, groups)
        })?;
        let mut stopped = self.fixture(place, partners, "stopped by SIGSTOP", |world, groups| {
            world.start(Kind::Stop, 1, groups)
        })?;
        stopped.settle = await_stop;
        let mut deaf = self.fixture(place, partners, "deaf to SIGTERM", |world, groups| {
            world.start(Kind::IgnoreTerm, 2, groups)
        })?;
        deaf.what += &format!(", TERM={}ms first", GRACE.as_millis());
        deaf.reaper = deaf.reaper.grace(Signal::TERM, GRACE);
        fixtures.extend([sleepers, tree, stopped, deaf]);

        if place.version == "v1" || fixtures.iter().any(|fixture| fixture.dir.join("cgroup.freeze").exists())
        {
            let mut frozen = self.fixture(place, partners, "frozen by somebody", |world, groups| {
                world.start(Kind::Sleep, 3, groups)
            })?;
            frozen.settle = freeze;
            fixtures.push(frozen);
        }
        Ok(())
    }

    /// Makes the fork storm of one hierarchy.
    fn brew(
        &mut self,
        place: &Place,
        partners: &[&Place],
        fixtures: &mut Vec<Fixture>,
    ) -> Result<(), String> {
        let mut storm = self.fixture(place, partners, "fork storm", |world, groups| {
            // The bound comes first. Without a pids controller the storm bounds itself.
            enable_pids(place);
            let limited = groups.iter().any(|group| {
                let file = group.join("pids.max");
                file.exists() && fs::write(file, STORM.to_string()).is_ok()
            });
            let descendants = (!limited).then_some(STORM as u32 - 1);
            world.start_one(&VictimArgs {
                kind: Kind::Storm,
                until: world.until,
                groups: groups.to_vec(),
                descendants,
            })
        })?;
        storm.settle = await_storm;
        fixtures.push(storm);
        Ok(())
    }

    /// Makes a fixture's groups, in `place` and in its partners, and has `fill` put processes into them.
    fn fixture(
        &mut self,
        place: &Place,
        partners: &[&Place],
        what: &str,
        fill: impl FnOnce(&mut World, &[PathBuf]) -> Result<(), String>,
    ) -> Result<Fixture, String> {
        let name = format!("{}-{}", place.version, what.replace(' ', "-"));
        let dir = place.top().join(&name);
        let partners_dirs = partners.iter().map(|partner| partner.top().join(&name));
        let groups: Vec<_> = [dir.clone()].into_iter().chain(partners_dirs).collect();
        groups.iter().try_for_each(|group| make_dir(group))?;
        fill(self, &groups)?;

        let places: Vec<_> = [place].into_iter().chain(partners.iter().copied()).collect();
        let fitting = places.iter().all(|other| other.fits(place));
        let subsystems: Vec<_> = places.iter().filter_map(|place| place.mount.file_name()).collect();
        let reaper = match place.mount.parent() {
            Some(root) if places.len() > 1 && fitting && subsystems.len() == places.len() => {
                Reaper::new(CgroupOptions::new(root).slice(&place.slice).subsystems(subsystems), &name)
            }
            // A partner's directory is cleared in the end then.
            _ => Reaper::at(&dir),
        };
        let reaper = reaper.deadline(REAP_TIME);
        let (what, hierarchy) = (what.to_owned(), place.version);
        Ok(Fixture { what, hierarchy, dir, reaper, settle: |_| Ok(()), processes: 0 })
    }

    /// Starts `count` victims for the groups; they are there after `await_victims`.
    fn start(&mut self, kind: Kind, count: usize, groups: &[PathBuf]) -> Result<(), String> {
        let args = VictimArgs { kind, until: self.until, groups: groups.to_vec(), descendants: None };
        (0..count).try_for_each(|_| self.start_one(&args))
    }

    fn start_one(&mut self, args: &VictimArgs) -> Result<(), String> {
        let mut victim =
            victim::spawn(args).map_err(|error| format!("cannot start a copy of this program: {error}"))?;
        self.outputs.extend(victim.stdout.take());
        self.victims.push(victim);
        Ok(())
    }

    /// Returns when all victims started so far are in their groups: all together, for it takes each of them
    /// a while.
    fn await_victims(&mut self, interrupt: &Interrupt) -> Result<(), String> {
        // Read by a thread, for a read cannot be given a time limit. It ends with the victims at the latest.
        let outputs = std::mem::take(&mut self.outputs);
        let count = outputs.len();
        let (sender, ready) = mpsc::channel();
        let reader = move || {
            for mut output in outputs {
                let _ = sender.send(output.read_exact(&mut [0]).is_ok());
            }
        };
        thread::Builder::new().spawn(reader).map_err(|error| format!("thread: {error}"))?;
        let end = Instant::now() + START_TIME;
        let mut there = 0;
        while there < count {
            if let Some(signal) = interrupt.signal() {
                return Err(reap::interrupted(signal));
            }
            match ready.recv_timeout(Duration::from_millis(50)) {
                Ok(true) => there += 1,
                Ok(false) => return Err("a process could not be put in place".to_owned()),
                Err(_) if Instant::now() < end => {}
                Err(_) => return Err(format!("a process was not in place within {START_TIME:?}")),
            }
        }
        Ok(())
    }

    /// Removes all that was made; returns what could not be.
    fn end(&mut self) -> Vec<String> {
        let mut left = clear(&self.tops);
        self.tops.retain(|top| top.exists());
        left.extend(self.tops.iter().map(|top| format!("{} is left", top.display())));
        for mut victim in self.victims.drain(..) {
            // Dead already, unless it never got into its group.
            let _ = victim.kill();
            if !await_within(CLEAR_TIME, || !matches!(victim.try_wait(), Ok(None))) {
                left.push(format!("process {} does not die", victim.id()));
            }
        }
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
        left
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for left in self.end() {
            complain(&format!("demo: {left}"));
        }
    }
}

/// Kills and removes all there is in directories of a demo; returns what stood in the way.
pub fn clear(tops: &[PathBuf]) -> Vec<String> {
    let ours = |top: &&PathBuf| {
        top.exists() && top.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
    };
    let reapers = tops.iter().filter(ours).map(|top| Reaper::at(top).deadline(CLEAR_TIME));
    let results = cgroup_reaper::reap_all(reapers);
    results.into_iter().filter_map(|result| result.err().map(|error| error.to_string())).collect()
}

fn make_dir(dir: &Path) -> Result<(), String> {
    fs::create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Gives the v2 groups in `place` a pids controller, if the directory above lets us have it; whether they
/// have one then is seen by their files.
fn enable_pids(place: &Place) {
    let top = place.top();
    let offered = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
    if offered.split_whitespace().any(|name| name == "pids") {
        let _ = fs::write(top.join("cgroup.subtree_control"), "+pids");
    }
}

/// Freezes a group, v1 or v2, and returns when that is done.
fn freeze(dir: &Path) -> Result<(), String> {
    let v1 = dir.join("freezer.state");
    let (file, word) = if v1.exists() { (v1, "FROZEN") } else { (dir.join("cgroup.freeze"), "1") };
    await_that("a group freezes", || {
        // Again and again: v1 may need that.
        let written = fs::write(&file, word).is_ok();
        let frozen = match word {
            "1" => {
                fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|events| events.contains("frozen 1"))
            }
            _ => fs::read_to_string(&file).is_ok_and(|state| state.trim() == word),
        };
        written && frozen
    })
}

/// Returns when the processes of a group have stopped.
fn await_stop(dir: &Path) -> Result<(), String> {
    await_that("a process stops", || pids_in(dir).iter().all(|pid| state_of(pid) == Some('T')))
}

/// Returns when a storm has nearly all of the processes it can have. It may not get there on a slow machine,
/// and is worth a look then all the same.
fn await_storm(dir: &Path) -> Result<(), String> {
    await_within(Duration::from_secs(2), || processes_in(dir) >= STORM * 3 / 4);
    Ok(())
}

/// The state letter of a process.
fn state_of(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn await_that(what: &str, condition: impl FnMut() -> bool) -> Result<(), String> {
    if await_within(START_TIME, condition) { Ok(()) } else { Err(format!("waited in vain until {what}")) }
}

fn await_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

const HEADINGS: [&str; 8] =
    ["WHAT", "HIERARCHY", "PROCESSES", "OUTCOME", "METHOD", "SIGNALLED", "ROUNDS", "MS"];

fn row(fixture: &Fixture, end: Option<&End>) -> [String; 8] {
    let mut row = [(); 8].map(|()| "-".to_owned());
    row[0].clone_from(&fixture.what);
    row[1] = fixture.hierarchy.to_owned();
    row[2] = fixture.processes.to_string();
    let Some(end) = end else { return row };
    row[7] = format!("{:.1}", end.elapsed.as_secs_f64() * 1e3);
    match &end.result {
        Ok(reaped) => {
            row[3] = reaped.outcome.to_string();
            if let Some(method) = reaped.method {
                row[4] = method.to_string();
            }
            if reaped.signalled > 0 {
                row[5] = reaped.signalled.to_string();
            }
            row[6] = reaped.attempts.to_string();
        }
        Err(failure) => row[3] = report::kind(failure).to_owned(),
    }
    row
}

/// Words to the left, numbers to the right.
fn table(rows: &[[String; 8]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..8).map(width).collect();
    let mut text = String::new();
    for row in [HEADINGS.map(str::to_owned)].iter().chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                2 | 5 | 6 | 7 => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
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
    fn our_own_group_is_found() {
        let file = "4:name=a:b:/x\n3:cpu,freezer:/c:d\n1::/no\n0::/user.slice/me\n";
        assert_eq!(own_path(file, None), Some(Path::new("/user.slice/me")));
        assert_eq!(own_path(file, Some("freezer")), Some(Path::new("/c:d")));
        assert_eq!(own_path(file, Some("pids")), None);
    }

    #[test]
    fn one_root_and_slice_make_one_target() {
        let place =
            |mount: &str, slice: &str| Place { version: "v1", mount: mount.into(), slice: slice.into() };
        assert!(place("/c/freezer", "s").fits(&place("/c/pids", "s")));
        assert!(!place("/c/freezer", "s").fits(&place("/c/pids", "t")));
        assert!(!place("/c/freezer", "s").fits(&place("/d/pids", "s")));
    }

    #[test]
    fn clearing_leaves_foreign_directories_alone() {
        let dir = std::env::temp_dir();
        assert!(clear(&[dir.clone(), "/".into(), dir.join(format!("{PREFIX}gone"))]).is_empty());
    }

    #[test]
    fn the_table_is_aligned() {
        let row = ["a b", "v2", "8", "removed", "cgroup.kill", "-", "1", "0.4"].map(str::to_owned);
        let text = table(&[row]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "WHAT  HIERARCHY  PROCESSES  OUTCOME  METHOD       SIGNALLED  ROUNDS   MS");
        assert_eq!(lines[1], "a b   v2                 8  removed  cgroup.kill          -       1  0.4");
    }
}
