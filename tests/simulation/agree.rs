//! The model held against the kernel: the same scenes are played on both, through the same system calls, and
//! what these answer must be the same, line by line.

use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use super::kernel::{FREEZER, Features, GroupId, MOUNTS, Nature, ROOTS, Sim, V2, World};
use crate::common::{self, Proc, Sandbox, TIMEOUT, TraceExit, require, test_name};
use crate::sys::{Linux, Open, Pid, Sys};

/// What a process of a scene is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Sleeper,
    /// Its leader has exited, another thread lives.
    Leaderless,
    /// Once killed it does not get further than that before it is released.
    Parked,
}

/// Where a scene is played.
trait Stage {
    type Kernel: Sys;

    fn kernel(&self) -> &Self::Kernel;
    /// mkdir(2), below a directory of this scene's own.
    fn v1(&self, name: &str) -> PathBuf;
    fn v2(&self, name: &str) -> PathBuf;
    /// Starts a process in the groups; its number in this scene.
    fn start(&self, role: Role, dirs: &[&Path]) -> usize;
    fn pid(&self, process: usize) -> i32;
    /// Lets a parked one go.
    fn release(&self, process: usize);
    /// Waits for a dead one, as its parent does.
    fn wait(&self, process: usize);
    /// Lets some time pass, and is false once that was very long.
    fn pass(&self, round: u32) -> bool;
}

struct Real {
    kernel: Linux,
    sandbox: Sandbox,
    processes: RefCell<Vec<Actor>>,
}

enum Actor {
    Plain(Proc),
    Parked(TraceExit),
}

impl Actor {
    fn process(&self) -> &Proc {
        match self {
            Actor::Plain(process) => process,
            Actor::Parked(parked) => parked,
        }
    }
}

impl Stage for Real {
    type Kernel = Linux;

    fn kernel(&self) -> &Linux {
        &self.kernel
    }

    fn v1(&self, name: &str) -> PathBuf {
        self.sandbox.v1("freezer", name)
    }

    fn v2(&self, name: &str) -> PathBuf {
        self.sandbox.v2(name)
    }

    fn start(&self, role: Role, dirs: &[&Path]) -> usize {
        let actor = match role {
            Role::Sleeper => Actor::Plain(self.sandbox.sleeper(dirs)),
            Role::Leaderless => Actor::Plain(self.sandbox.zombie_leader(dirs)),
            Role::Parked => Actor::Parked(self.sandbox.trace_exit(dirs)),
        };
        self.processes.borrow_mut().push(actor);
        self.processes.borrow().len() - 1
    }

    fn pid(&self, process: usize) -> i32 {
        self.processes.borrow()[process].process().pid
    }

    fn release(&self, process: usize) {
        if let Actor::Parked(parked) = &self.processes.borrow()[process] {
            parked.release();
        }
    }

    fn wait(&self, process: usize) {
        assert!(self.processes.borrow()[process].process().ended(TIMEOUT), "it does not end");
    }

    fn pass(&self, round: u32) -> bool {
        thread::sleep(Duration::from_millis(1));
        round < 30_000
    }
}

struct Model {
    sim: Sim,
    processes: RefCell<Vec<(u64, i32)>>,
}

impl Model {
    fn new(features: Features) -> Model {
        let mut world = World::new(fastrand::Rng::with_seed(1), features);
        world.wait_after = Some(Duration::MAX / 2);
        for root in ROOTS {
            world.mkdir(root, "scene");
        }
        Model { sim: Sim(Rc::new(RefCell::new(world))), processes: RefCell::default() }
    }

    fn group(&self, dir: &Path) -> GroupId {
        let world = self.sim.0.borrow();
        let root = ROOTS.into_iter().find(|&root| dir.starts_with(MOUNTS[root])).expect("below a mount");
        let below = dir.strip_prefix(MOUNTS[root]).expect("so it does");
        let step =
            |group, name: &std::ffi::OsStr| world.child(group, &name.to_string_lossy()).expect("there");
        below.iter().fold(root, step)
    }

    fn mkdir(&self, hierarchy: usize, name: &str) -> PathBuf {
        let mut world = self.sim.0.borrow_mut();
        let scene = world.child(hierarchy, "scene").expect("made first");
        let group = name.split('/').fold(scene, |group, name| world.mkdir(group, name));
        // The scenes do what a reap does to its target.
        world.targets.clear();
        world.targets.push(super::kernel::Target { live: true, ..Default::default() });
        world.groups[group].target = Some(0);
        world.path(group).into()
    }
}

impl Stage for Model {
    type Kernel = Sim;

    fn kernel(&self) -> &Sim {
        &self.sim
    }

    fn v1(&self, name: &str) -> PathBuf {
        self.mkdir(FREEZER, name)
    }

    fn v2(&self, name: &str) -> PathBuf {
        self.mkdir(V2, name)
    }

    fn start(&self, role: Role, dirs: &[&Path]) -> usize {
        let mut groups = ROOTS;
        for dir in dirs {
            let group = self.group(dir);
            let hierarchy = self.sim.0.borrow().groups[group].hierarchy;
            groups[hierarchy] = group;
        }
        let nature = Nature {
            leaderless: role == Role::Leaderless,
            stuck: role == Role::Parked,
            ends_on_sigterm: true,
            ..Nature::default()
        };
        let mut world = self.sim.0.borrow_mut();
        let ino = world.add_process(groups, nature, None);
        let pid = world.process(ino).expect("just made").pid;
        self.processes.borrow_mut().push((ino, pid));
        self.processes.borrow().len() - 1
    }

    fn pid(&self, process: usize) -> i32 {
        self.processes.borrow()[process].1
    }

    fn release(&self, process: usize) {
        let (ino, _) = self.processes.borrow()[process];
        let mut world = self.sim.0.borrow_mut();
        world.process(ino).expect("parked").nature.stuck = false;
        world.changed();
    }

    fn wait(&self, process: usize) {
        let (ino, _) = self.processes.borrow()[process];
        let mut world = self.sim.0.borrow_mut();
        world.reap(ino);
    }

    fn pass(&self, round: u32) -> bool {
        let mut world = self.sim.0.borrow_mut();
        world.begin_step();
        let until = world.now + Duration::from_millis(1);
        world.advance(until);
        round < 1000
    }
}

/// A scene under way: what is done in it, and what came of that.
struct Scene<'a, T: Stage> {
    stage: &'a T,
    lines: Vec<String>,
}

impl<T: Stage> Scene<'_, T> {
    fn line(&mut self, what: &str, result: io::Result<String>) {
        let result = match result {
            Ok(text) => text,
            // By number: each locale and libc has its own words.
            Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
        };
        self.lines.push(format!("{what}: {result}"));
    }

    /// What a file says, pids by their numbers in the scene.
    fn text(&self, file: &Path) -> io::Result<String> {
        let file = self.stage.kernel().open(None, &path(file), Open::Read)?;
        self.text_of(&file)
    }

    fn text_of(&self, file: &<T::Kernel as Sys>::Fd) -> io::Result<String> {
        let mut buffer = [0; 4096];
        let n = self.stage.kernel().read_at(file, &mut buffer, 0)?;
        Ok(String::from_utf8_lossy(&buffer[..n]).trim_end().replace('\n', ", "))
    }

    fn read(&mut self, dir: &Path, file: &str) {
        let mut text = self.text(&dir.join(file));
        if file == "cgroup.procs" {
            // In the order in which they were started, which the kernel does not promise.
            text = text.map(|text| {
                let pids: Vec<&str> = text.split(", ").collect();
                let listed = |process: &usize| pids.contains(&&*self.stage.pid(*process).to_string());
                let known: Vec<usize> = (0..9).take_while(|&p| self.knows(p)).filter(listed).collect();
                format!("{known:?} of {}", pids.iter().filter(|pid| !pid.is_empty()).count())
            });
        }
        self.line(&format!("read {}/{file}", name(dir)), text);
    }

    fn knows(&self, process: usize) -> bool {
        process < self.lines.iter().filter(|line| line.starts_with("start")).count()
    }

    fn start(&mut self, role: Role, dirs: &[&Path]) -> usize {
        let process = self.stage.start(role, dirs);
        self.lines.push(format!("start {process}: {role:?}"));
        process
    }

    fn write(&mut self, dir: &Path, file: &str, text: &str) {
        let kernel = self.stage.kernel();
        let written = kernel
            .open(None, &path(&dir.join(file)), Open::Write)
            .and_then(|file| kernel.write(&file, text.as_bytes()));
        self.line(&format!("write {text} to {}/{file}", name(dir)), written.map(|()| "done".into()));
    }

    fn rmdir(&mut self, dir: &Path) {
        let removed = self.stage.kernel().rmdir(None, &path(dir));
        self.line(&format!("rmdir {}", name(dir)), removed.map(|()| "done".into()));
    }

    /// Waits till the file says so, and reads it.
    fn until(&mut self, dir: &Path, file: &str, wanted: &str) {
        let mut round = 0;
        while !self.text(&dir.join(file)).is_ok_and(|text| text == wanted) && self.stage.pass(round) {
            round += 1;
        }
        self.read(dir, file);
    }

    fn pidfd(&mut self, process: usize) -> <T::Kernel as Sys>::Fd {
        self.stage
            .kernel()
            .pidfd_open(id(self.stage.pid(process)))
            .expect("it lives, and the kernel has pidfds")
    }

    fn signal(&mut self, pidfd: &<T::Kernel as Sys>::Fd, signal: i32) {
        let sent = self.stage.kernel().pidfd_send_signal(pidfd, signal);
        self.line(&format!("signal {signal}"), sent.map(|()| "sent".into()));
    }

    fn exited(&mut self, pidfd: &<T::Kernel as Sys>::Fd) {
        let exited = self.stage.kernel().has_exited(pidfd);
        self.line("exited", exited.map(|exited| exited.to_string()));
    }

    fn until_exited(&mut self, pidfd: &<T::Kernel as Sys>::Fd) {
        let mut round = 0;
        while !self.stage.kernel().has_exited(pidfd).is_ok_and(|exited| exited) && self.stage.pass(round) {
            round += 1;
        }
        self.exited(pidfd);
    }

    /// Long enough for what should not happen.
    fn pass(&mut self) {
        for round in 0..30 {
            self.stage.pass(round);
        }
    }

    fn stat(&mut self, what: &str, at: Option<&<T::Kernel as Sys>::Fd>, path: &CString) {
        let stat = self.stage.kernel().stat(at, path);
        self.line(what, stat.map(|stat| format!("{:?}, root of a mount: {:?}", stat.kind, stat.mount_root)));
    }
}

fn id(pid: i32) -> Pid {
    Pid::new(pid).expect("positive")
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no nul")
}

/// The last part, which is the same on both.
fn name(dir: &Path) -> String {
    dir.file_name().expect("not a root").to_string_lossy().into_owned()
}

/// A scene that can be played on any stage.
macro_rules! scenes {
    ($($(#[$doc:meta])* $name:ident($scene:ident, $stage:ident) $body:block)+) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                fn play<T: Stage>($stage: &T) -> Vec<String> {
                    let mut scene = Scene { stage: $stage, lines: Vec::new() };
                    let $scene = &mut scene;
                    $body
                    scene.lines
                }
                require!(common::v1("freezer"), common::cgroup_kill());
                let sandbox = Sandbox::new(test_name!());
                let real = play(&Real { kernel: Linux::default(), sandbox, processes: RefCell::default() });
                let model = play(&Model::new(features()));
                let (model, real) = (model.join("\n"), real.join("\n"));
                assert!(model == real, "the model:\n{model}\n\nthe kernel:\n{real}");
            }
        )+
    };
}

/// Those of the kernel that we run on.
fn features() -> Features {
    let own = i32::try_from(std::process::id()).expect("a pid");
    let kernel = Linux::default();
    let pidfd = kernel.pidfd_open(id(own)).ok();
    Features {
        pidfd: pidfd.is_some(),
        cgroup_kill: common::cgroup_kill().is_ok(),
        pidfs: pidfd.as_ref().is_some_and(|fd| kernel.filesystem(fd).is_ok_and(|kind| kind == 0x5049_4446)),
        info: pidfd.as_ref().is_some_and(|fd| kernel.cgroup_of(fd).is_ok()),
        exiting_unlisted: common::linux() >= (6, 19),
    }
}

scenes! {
    /// Lists and `populated` are of the processes that they name, `cgroup.kill` is of the subtree, rmdir(2) of leaves without
    /// members.
    a_subtree_is_killed_and_removed(scene, stage) {
        let (top, child) = (stage.v2("top"), stage.v2("top/child"));
        let one = scene.start(Role::Sleeper, &[&top]);
        let two = scene.start(Role::Sleeper, &[&child]);
        let pidfds = [scene.pidfd(one), scene.pidfd(two)];
        for dir in [&top, &child] {
            scene.read(dir, "cgroup.procs");
            scene.until(dir, "cgroup.events", "populated 1, frozen 0");
            scene.rmdir(dir);
        }
        scene.write(&top, "cgroup.kill", "1");
        for pidfd in &pidfds {
            scene.until_exited(pidfd);
        }
        for dir in [&top, &child] {
            scene.until(dir, "cgroup.events", "populated 0, frozen 0");
            scene.read(dir, "cgroup.procs");
        }
        scene.rmdir(&top);
        scene.rmdir(&child);
        scene.rmdir(&top);
        scene.rmdir(&top);
    }

    /// What is left of a removed group in descriptors, and that a new one of the name is another.
    a_removed_group_is_told_from_its_successor(scene, stage) {
        let (top, _child) = (stage.v2("top"), stage.v2("top/child"));
        let kernel = stage.kernel();
        let dir = kernel.open(None, &path(&top), Open::Place).expect("there");
        let events = kernel.open(None, &path(&top.join("cgroup.events")), Open::Read).expect("there");
        let links = kernel.stat(Some(&dir), c"").map(|stat| stat.links.to_string());
        scene.line("links with a child", links);
        let names = kernel.subdirectories(&dir, c"").map(|names| format!("{names:?}"));
        scene.line("children", names);
        scene.rmdir(&top.join("child"));
        let links = kernel.stat(None, &path(&top)).map(|stat| stat.links.to_string());
        scene.line("links without", links);
        let before = kernel.stat(Some(&dir), c"").expect("there");
        scene.rmdir(&top);
        let read = scene.text_of(&events);
        scene.line("events through a descriptor", read);
        scene.read(&top, "cgroup.procs");
        for again in [false, true] {
            if again {
                stage.v2("top");
            }
            let opened = kernel.open(Some(&dir), c"cgroup.procs", Open::Read);
            scene.line("openat below the old one", opened.map(|_| "opened".into()));
            scene.stat("the old one itself", Some(&dir), &CString::default());
            scene.stat("above the old one", Some(&dir), &CString::from(c".."));
            let names = kernel.subdirectories(&dir, c"").map(|names| format!("{names:?}"));
            scene.line("children of the old one", names);
            let removed = kernel.rmdir(Some(&dir), c"child");
            scene.line("rmdir below the old one", removed.map(|()| "done".into()));
        }
        let after = kernel.stat(None, &path(&top)).map(|stat| (stat.ino == before.ino).to_string());
        scene.line("same inode number", after);
        let (same, mounted) = (before.dev, kernel.stat(None, &path(&top)).map(|stat| stat.dev));
        scene.line("same device", mounted.map(|dev| (dev == same).to_string()));
        scene.rmdir(&top);
    }

    /// A group is opened by its inode number, until it is removed.
    a_group_is_opened_by_its_number(scene, stage) {
        let (v1, v2) = (stage.v1("one"), stage.v2("two"));
        let kernel = stage.kernel();
        for dir in [&v1, &v2] {
            let parent = dir.parent().expect("not a root");
            let mount = kernel.open(None, &path(parent), Open::Read).expect("there");
            let ino = kernel.stat(None, &path(dir)).expect("there").ino;
            let opened = kernel.open_identity(&mount, ino).expect("there");
            let same = kernel.stat(Some(&opened), c"").map(|stat| (stat.ino == ino).to_string());
            scene.line("the same", same);
            scene.stat("a file in it", Some(&opened), &CString::from(c"cgroup.procs"));
            let sibling = path(&Path::new("..").join(name(dir)));
            let by_name = kernel.stat(Some(&opened), &sibling).map(|stat| (stat.ino == ino).to_string());
            scene.line("by its name in its parent", by_name);
            scene.rmdir(dir);
            scene.stat("a file in it, removed", Some(&opened), &CString::from(c"cgroup.procs"));
            for again in [false, true] {
                if again {
                    if dir == &v1 { stage.v1("one") } else { stage.v2("two") };
                }
                let opened = kernel.open_identity(&mount, ino);
                scene.line("removed", opened.map(|_| "opened".into()));
            }
            scene.rmdir(dir);
        }
    }

    /// v1 keeps SIGKILL pending while FROZEN, from a pidfd or `cgroup.kill`.
    the_frozen_do_not_die(scene, stage) {
        let (v1, v2) = (stage.v1("frozen"), stage.v2("beside"));
        for by_group in [false, true] {
            let process = scene.start(Role::Sleeper, &[&v1, &v2]);
            let pidfd = scene.pidfd(process);
            scene.read(&v1, "freezer.state");
            scene.read(&v1, "freezer.self_freezing");
            scene.read(&v1, "freezer.parent_freezing");
            scene.write(&v1, "freezer.state", "FROZEN");
            scene.until(&v1, "freezer.state", "FROZEN");
            scene.read(&v1, "freezer.self_freezing");
            if by_group {
                scene.write(&v2, "cgroup.kill", "1");
            } else {
                scene.signal(&pidfd, libc::SIGKILL);
            }
            scene.pass();
            scene.exited(&pidfd);
            scene.read(&v1, "cgroup.procs");
            scene.until(&v2, "cgroup.events", "populated 1, frozen 0");
            scene.rmdir(&v1);
            scene.write(&v1, "freezer.state", "THAWED");
            scene.until_exited(&pidfd);
            scene.read(&v1, "freezer.state");
            scene.until(&v2, "cgroup.events", "populated 0, frozen 0");
            stage.wait(process);
        }
        scene.rmdir(&v1);
        scene.rmdir(&v2);
    }

    /// A freeze from above can't be undone below, and the empty and frozen can be removed.
    a_frozen_parent_holds_its_children(scene, stage) {
        let (top, child) = (stage.v1("top"), stage.v1("top/child"));
        let process = scene.start(Role::Sleeper, &[&child]);
        let pidfd = scene.pidfd(process);
        scene.write(&top, "freezer.state", "FROZEN");
        scene.until(&top, "freezer.state", "FROZEN");
        scene.until(&child, "freezer.state", "FROZEN");
        scene.read(&child, "freezer.self_freezing");
        scene.read(&child, "freezer.parent_freezing");
        scene.write(&child, "freezer.state", "THAWED");
        scene.read(&child, "freezer.state");
        scene.read(&child, "freezer.parent_freezing");
        let inside = stage.v1("top/inside");
        scene.read(&inside, "freezer.state");
        scene.read(&inside, "freezer.parent_freezing");
        scene.rmdir(&inside);
        scene.signal(&pidfd, libc::SIGKILL);
        scene.write(&child, "freezer.state", "FROZEN");
        scene.write(&top, "freezer.state", "THAWED");
        scene.read(&top, "freezer.state");
        scene.read(&child, "freezer.state");
        scene.pass();
        scene.exited(&pidfd);
        scene.write(&child, "freezer.state", "THAWED");
        scene.until_exited(&pidfd);
        scene.write(&child, "freezer.state", "FROZEN");
        scene.read(&child, "freezer.state");
        scene.rmdir(&child);
        scene.rmdir(&top);
        scene.write(&top, "freezer.state", "FREEZING");
    }

    /// v2 freezes too, but the frozen die.
    the_frozen_of_v2_die(scene, stage) {
        let (top, child) = (stage.v2("top"), stage.v2("top/child"));
        for by_group in [false, true] {
            let process = scene.start(Role::Sleeper, &[&child]);
            let pidfd = scene.pidfd(process);
            scene.read(&top, "cgroup.freeze");
            scene.write(&top, "cgroup.freeze", "1");
            scene.until(&top, "cgroup.events", "populated 1, frozen 1");
            scene.until(&child, "cgroup.events", "populated 1, frozen 1");
            scene.read(&top, "cgroup.freeze");
            scene.read(&child, "cgroup.freeze");
            scene.signal(&pidfd, libc::SIGCONT);
            scene.pass();
            scene.exited(&pidfd);
            if by_group {
                scene.write(&top, "cgroup.kill", "1");
            } else {
                scene.signal(&pidfd, libc::SIGKILL);
            }
            scene.until_exited(&pidfd);
            scene.until(&top, "cgroup.events", "populated 0, frozen 1");
            scene.write(&top, "cgroup.freeze", "0");
            scene.read(&top, "cgroup.freeze");
            scene.until(&top, "cgroup.events", "populated 0, frozen 0");
            stage.wait(process);
        }
        scene.write(&top, "cgroup.freeze", "1");
        scene.rmdir(&child);
        scene.rmdir(&top);
    }

    /// `cgroup.kill` does not reach a process whose leader thread has exited. A pidfd does.
    the_leaderless_outlive_cgroup_kill(scene, stage) {
        let (v1, v2) = (stage.v1("beside"), stage.v2("target"));
        let process = scene.start(Role::Leaderless, &[&v1, &v2]);
        let pidfd = scene.pidfd(process);
        scene.read(&v1, "cgroup.procs");
        scene.read(&v2, "cgroup.procs");
        scene.exited(&pidfd);
        scene.write(&v2, "cgroup.kill", "1");
        scene.pass();
        scene.exited(&pidfd);
        scene.read(&v2, "cgroup.procs");
        scene.rmdir(&v2);
        scene.signal(&pidfd, libc::SIGKILL);
        scene.until_exited(&pidfd);
        scene.until(&v2, "cgroup.events", "populated 0, frozen 0");
        scene.read(&v1, "cgroup.procs");
        scene.rmdir(&v1);
        scene.rmdir(&v2);
    }

    /// A process whose exit hangs counts as a member until it is dead.
    the_dying_are_not_dead(scene, stage) {
        let (v1, v2) = (stage.v1("one"), stage.v2("two"));
        let process = scene.start(Role::Parked, &[&v1, &v2]);
        let pidfd = scene.pidfd(process);
        scene.signal(&pidfd, libc::SIGKILL);
        scene.pass();
        scene.exited(&pidfd);
        scene.read(&v1, "cgroup.procs");
        scene.read(&v2, "cgroup.procs");
        scene.until(&v2, "cgroup.events", "populated 1, frozen 0");
        scene.rmdir(&v1);
        scene.rmdir(&v2);
        scene.signal(&pidfd, libc::SIGKILL);
        stage.release(process);
        scene.until_exited(&pidfd);
        scene.until(&v2, "cgroup.events", "populated 0, frozen 0");
        scene.read(&v1, "cgroup.procs");
        scene.rmdir(&v1);
        scene.rmdir(&v2);
    }

    /// What pidfds tell of the living, of zombies, and of those long gone.
    pidfds_outlive_their_processes(scene, stage) {
        let (v1, v2) = (stage.v1("one"), stage.v2("two"));
        let kernel = stage.kernel();
        let process = scene.start(Role::Sleeper, &[&v1, &v2]);
        let pidfd = scene.pidfd(process);
        let ino = kernel.stat(None, &path(&v2)).expect("there").ino;
        scene.line("in its v2 group", kernel.cgroup_of(&pidfd).map(|of| (of == ino).to_string()));
        let identity = kernel.stat(Some(&pidfd), c"").map(|stat| stat.ino).expect("a pidfd");
        let again = scene.pidfd(process);
        let same = kernel.stat(Some(&again), c"").map(|stat| (stat.ino == identity).to_string());
        scene.line("same identity", same);
        let other = kernel.pidfd_open(kernel.caller().0).expect("ourselves");
        let same = kernel.stat(Some(&other), c"").map(|stat| (stat.ino == identity).to_string());
        scene.line("same as another's", same);
        scene.line("kind", kernel.filesystem(&pidfd).map(|kind| format!("{kind:x}")));
        scene.signal(&pidfd, libc::SIGKILL);
        scene.until_exited(&pidfd);
        scene.until(&v2, "cgroup.events", "populated 0, frozen 0");
        scene.read(&v1, "cgroup.procs");
        scene.read(&v2, "cgroup.procs");
        scene.line("of a zombie", kernel.pidfd_open(id(stage.pid(process))).map(|_| "opened".into()));
        scene.signal(&pidfd, libc::SIGKILL);
        stage.wait(process);
        scene.exited(&pidfd);
        scene.signal(&pidfd, libc::SIGKILL);
        scene.line("of no process", kernel.pidfd_open(id(stage.pid(process))).map(|_| "opened".into()));
        let killed = kernel.kill(id(stage.pid(process)), libc::SIGKILL);
        scene.line("kill", killed.map(|()| "sent".into()));
        let dead = format!("/proc/{}/cgroup", stage.pid(process));
        let read = kernel.open(None, &path(dead.as_ref()), Open::Read).map(|_| "opened".into());
        scene.line("its cgroups", read);
    }

    /// A stopped process acts on nothing but SIGKILL before it is continued.
    the_stopped_wait(scene, stage) {
        let v2 = stage.v2("target");
        let process = scene.start(Role::Sleeper, &[&v2]);
        let pidfd = scene.pidfd(process);
        scene.signal(&pidfd, libc::SIGSTOP);
        scene.pass();
        scene.signal(&pidfd, libc::SIGTERM);
        scene.pass();
        scene.exited(&pidfd);
        scene.signal(&pidfd, libc::SIGCONT);
        scene.until_exited(&pidfd);
        let process = scene.start(Role::Sleeper, &[&v2]);
        let pidfd = scene.pidfd(process);
        scene.signal(&pidfd, libc::SIGSTOP);
        scene.pass();
        scene.write(&v2, "cgroup.kill", "1");
        scene.until_exited(&pidfd);
    }

    /// What paths lead to, and what they don't.
    paths_lead_where_they_say(scene, stage) {
        let (v1, v2) = (stage.v1("one"), stage.v2("two"));
        let kernel = stage.kernel();
        for dir in [&v1, &v2] {
            let fd = kernel.open(None, &path(dir), Open::Place).expect("there");
            scene.line("filesystem", kernel.filesystem(&fd).map(|kind| format!("{kind:x}")));
            for file in ["cgroup.procs", "cgroup.kill", "cgroup.events", "freezer.state", "none", "none/none"] {
                scene.stat(file, Some(&fd), &path(file.as_ref()));
            }
            scene.stat("itself", Some(&fd), &CString::default());
            let file = kernel.open(Some(&fd), c"cgroup.procs/..", Open::Place).map(|_| "opened".into());
            scene.line("through a file", file);
            scene.line("rmdir of a file", kernel.rmdir(Some(&fd), c"cgroup.procs").map(|()| "done".into()));
            scene.line("rmdir of nothing", kernel.rmdir(Some(&fd), c"none").map(|()| "done".into()));
            let above = kernel.stat(Some(&fd), c"..").map(|stat| stat.ino);
            let parent = kernel.stat(None, &path(dir.parent().expect("not a root"))).map(|stat| stat.ino);
            scene.line("above is the parent", above.and_then(|ino| Ok((ino == parent?).to_string())));
            scene.write(dir, "cgroup.procs.none", "1");
        }
        let process = scene.start(Role::Sleeper, &[&v1, &v2]);
        let file = format!("/proc/{}/cgroup", stage.pid(process));
        let fd = kernel.open(None, &path(file.as_ref()), Open::Read).expect("it lives");
        let mut buffer = [0; 4096];
        let n = kernel.read_at(&fd, &mut buffer, 0).expect("readable");
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        for (list, dir) in [("freezer", &v1), ("", &v2)] {
            let here = |line: &&str| {
                let mut fields = line.splitn(3, ':');
                fields.nth(1) == Some(list) && fields.next().is_some_and(|cgroup| dir.ends_with(&cgroup[1..]))
            };
            let found = text.lines().find(here).is_some();
            scene.line(&format!("in {list:?} as /proc has it"), Ok(found.to_string()));
        }
    }
}
