//! The reactors of a history, each without its poll.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::SHARED;
use super::kernel::{Fd, Sim};
use super::others::some_time;
use crate::cgroup::{Budget, Job, Notice, Resolver};
use crate::entries::{Command, Entries, Host, NoThread};
use crate::entry_id::EntryId;
use crate::remote::Queue;

/// The longest time that a helper thread takes for a removal, unless that hangs.
pub(super) const REMOVAL: Duration = Duration::from_millis(100);

/// The loop around the entries.
pub(super) struct EventLoop {
    sim: Sim,
    /// The number of its reactor.
    reactor: usize,
    pub(super) commands: VecDeque<Command<Sim>>,
    /// Entries that asked for notifications, in order.
    pub(super) watched: RefCell<Vec<EntryId>>,
    /// What its helper threads are to do, and when they have done it: `Duration::MAX` if they hang.
    pub(super) jobs: RefCell<Vec<(Duration, EntryId, Job<Sim>)>>,
    /// Whether helper threads can be started.
    pub(super) has_threads: bool,
}

impl EventLoop {
    /// That of the first reactor.
    pub(super) fn new(sim: &Sim) -> EventLoop {
        let (commands, watched) = (VecDeque::new(), RefCell::default());
        let jobs = RefCell::default();
        EventLoop { sim: sim.clone(), reactor: 0, commands, watched, jobs, has_threads: true }
    }

    /// Its helper threads do what they have done by now.
    pub(super) fn work(&mut self, now: Duration) {
        let (done, others) = self.jobs.take().into_iter().partition(|(at, ..)| *at <= now);
        self.jobs = RefCell::new(others);
        let done: Vec<_> = done;
        for (_, id, job) in done {
            self.sim.0.borrow_mut().begin_step();
            self.sim.0.borrow_mut().on_helper_thread = true;
            let answer = job.run(&self.sim);
            self.sim.0.borrow_mut().on_helper_thread = false;
            self.commands.push_back(Command::Answer(id, answer));
        }
    }

    /// When a helper thread has done something.
    pub(super) fn next_job(&self) -> Option<Duration> {
        self.jobs.borrow().iter().map(|(at, ..)| *at).filter(|&at| at < Duration::MAX).min()
    }

    /// Nothing hangs any more.
    pub(super) fn calm(&mut self, now: Duration) {
        self.jobs.get_mut().iter_mut().for_each(|(at, ..)| *at = now.min(*at));
    }

    /// Lets time pass, and everything go on.
    pub(super) fn pass(&mut self, entries: &mut Entries<Sim>, time: Duration) {
        let sim = self.sim.clone();
        let end = sim.0.borrow().now + time;
        loop {
            let now = sim.0.borrow().now;
            self.work(now);
            loop {
                sim.0.borrow_mut().begin_step();
                let tokens = sim.0.borrow_mut().take_notified(0);
                self.turn(entries, tokens);
                if !entries.has_deferred() {
                    break;
                }
            }
            let next = entries.next_tick().map(Duration::from_millis);
            let events = sim.0.borrow().next_event();
            let next = next.into_iter().chain(events).chain(self.next_job()).min();
            match next.filter(|next| *next < end) {
                Some(next) => sim.0.borrow_mut().advance(next),
                None => break,
            }
        }
        sim.0.borrow_mut().advance(end);
    }

    /// A whole turn.
    pub(super) fn turn(&mut self, entries: &mut Entries<Sim>, tokens: Vec<usize>) {
        entries.begin_turn(tokens.into_iter().filter_map(EntryId::from_token));
        while entries.advance(self) {}
    }
}

impl Host<Sim> for EventLoop {
    fn watch(&self, fd: &Fd, id: EntryId, _: Notice) -> io::Result<()> {
        self.watched.borrow_mut().push(id);
        self.sim.register(fd, self.reactor, id.token())
    }

    fn next_command(&mut self) -> Option<Command<Sim>> {
        self.commands.pop_front()
    }

    fn stop(&mut self) {}

    fn help(&self, id: EntryId, job: Job<Sim>) -> Result<(), NoThread> {
        let mut world = self.sim.0.borrow_mut();
        let is_hostile = world.faults > 0;
        if !self.has_threads || is_hostile && world.rng.u8(..8) == 0 {
            world.note(|| "no helper thread".into());
            return Err(NoThread(None));
        }
        let (longest, may_hang) = match &job {
            Job::Release(release) => {
                release.pidfds().for_each(|pidfd| world.check_release(Sim::process_of_pidfd(pidfd)));
                (500, true)
            }
            // One that hangs is no kill in time.
            Job::CgroupKill(_) => {
                let is_first = !self.jobs.borrow().iter().any(|(.., job)| matches!(job, Job::CgroupKill(_)));
                if is_first {
                    world.kill_left_in = world.step;
                }
                (20, false)
            }
            Job::Remove(_) => (REMOVAL.as_millis() as u64, true),
            Job::Test { .. } => panic!("no target makes that"),
        };
        let takes = some_time(&mut world.rng, longest);
        let hangs = is_hostile && may_hang && world.rng.u8(..4) == 0;
        let done = if hangs { Duration::MAX } else { world.now + takes };
        drop(world);
        self.jobs.borrow_mut().push((done, id, job));
        Ok(())
    }
}

pub(super) struct Reactor {
    pub(super) event_loop: EventLoop,
    /// `None` once it was dropped.
    pub(super) entries: Option<Entries<Sim>>,
    budget: Budget,
    pub(super) queue: Arc<Queue>,
    /// Every token that was ever notified, to be given again.
    pub(super) stale: Vec<usize>,
    /// When one of them came again last: at most one does at a time, for the work that each prompts takes some.
    pub(super) stale_at: Option<Duration>,
}

impl Reactor {
    pub(super) fn new(number: usize, sim: &Sim, budget: Budget, queue: &Arc<Queue>) -> Reactor {
        Reactor {
            event_loop: EventLoop { reactor: number, ..EventLoop::new(sim) },
            entries: Some(Entries::new(Resolver::new(sim.clone(), budget.clone()))),
            budget,
            queue: Arc::clone(queue),
            stale: Vec::new(),
            stale_at: None,
        }
    }

    /// Descriptors that it may hold.
    pub(super) fn permitted(&self) -> usize {
        self.budget.used() + SHARED
    }

    /// Permits that it has not given back.
    pub(super) fn permits(&self) -> usize {
        self.budget.used()
    }
}
