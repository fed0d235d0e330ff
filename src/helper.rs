//! [`Helper`]: the threads of a reactor's own, for system calls that cannot be cut and may never return.
//!
//! A thread is started when there is a job and none is idle, up to [`THREADS`]. A call that never returns thus holds up
//! nothing but the reap that it is for, unless that happens to as many reaps at once. The answer to a job comes through
//! the reactor's queue, as a command.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::cgroup::Job;
use crate::entries::Command;
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::metrics::Metrics;
use crate::remote::Queue;
use crate::sys::Linux;

/// Threads that a reactor may have.
const THREADS: usize = 4;

/// The stack of a thread: some system calls and short lists.
const STACK: usize = 128 << 10;

/// Signals that are sent to the thread whose instruction or system call (SIGSYS, by a seccomp filter) causes them. The kernel
/// kills the process if they are blocked then.
const OF_THE_THREAD: [Signal; 6] =
    [Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGSEGV, Signal::SIGSYS, Signal::SIGTRAP];

/// The threads, and the jobs that wait for them. Dropped, it ends those that are idle, and leaves the others to end when
/// their calls return.
pub(crate) struct Helper {
    shared: Arc<Shared>,
    sys: Linux,
    queue: Arc<Queue>,
    absent: &'static [Facility],
}

struct Shared {
    state: Mutex<State>,
    /// There is a job, or the helper is gone.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(EntryId, Job<Linux>)>,
    threads: Vec<Thread>,
    closed: bool,
    taken: u64,
    refused: u64,
}

struct Thread {
    handle: JoinHandle<()>,
    busy: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does jobs until the helper is gone, as the thread of this number.
    fn work(&self, number: usize, sys: &Linux, queue: &Queue) {
        let mut state = self.lock();
        loop {
            if state.closed {
                return;
            }
            let Some((id, job)) = state.jobs.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.threads[number].busy = true;
            drop(state);
            let answer = job.run(sys);
            // A closed queue: the reactor is gone.
            let _ = queue.push(Command::Answer(id, answer));
            state = self.lock();
            if let Some(thread) = state.threads.get_mut(number) {
                thread.busy = false;
            }
        }
    }
}

impl Helper {
    /// Starts no thread yet.
    pub(crate) fn new(sys: Linux, queue: Arc<Queue>, absent: &'static [Facility]) -> Helper {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new() };
        Helper { shared: Arc::new(shared), sys, queue, absent }
    }

    /// Has a thread do the job. Hands it back if there is no thread and none can be started.
    pub(crate) fn submit(&self, id: EntryId, job: Job<Linux>) -> Result<(), Job<Linux>> {
        let mut state = self.shared.lock();
        let idle = state.threads.iter().filter(|thread| !thread.busy).count();
        if idle <= state.jobs.len() && state.threads.len() < THREADS {
            match self.start(state.threads.len()) {
                Ok(handle) => state.threads.push(Thread { handle, busy: false }),
                Err(error) => {
                    log::warn!("cannot start a helper thread: {error}");
                    if state.threads.is_empty() {
                        state.refused += 1;
                        return Err(job);
                    }
                }
            }
        }
        state.taken += 1;
        state.jobs.push_back((id, job));
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Starts the thread of this number, which takes none of the signals that are sent to the process.
    fn start(&self, number: usize) -> io::Result<JoinHandle<()>> {
        Facility::HelperThreads.check(self.absent)?;
        let mut blocked = SigSet::all();
        OF_THE_THREAD.into_iter().for_each(|signal| blocked.remove(signal));
        // A thread begins with the mask of the one that starts it.
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let (shared, sys, queue) = (Arc::clone(&self.shared), self.sys.clone(), Arc::clone(&self.queue));
        let builder = Builder::new().name("cgroup-reaper".into()).stack_size(STACK);
        let started = builder.spawn(move || shared.work(number, &sys, &queue));
        if let Err(errno) = before.thread_set_mask() {
            // Only a bad pointer could fail.
            log::error!("cannot restore the signal mask: {errno}");
        }
        started
    }

    /// Adds its counters.
    pub(crate) fn count(&self, metrics: &mut Metrics) {
        let state = self.shared.lock();
        metrics.helper_threads = state.threads.len() as u64;
        metrics.helper_jobs = state.taken;
        metrics.helper_busy = state.threads.iter().filter(|thread| thread.busy).count() as u64;
        metrics.helper_waiting = state.jobs.len() as u64;
        metrics.helper_refused = state.refused;
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let (jobs, threads) = (mem::take(&mut state.jobs), mem::take(&mut state.threads));
        drop(state);
        self.shared.changed.notify_all();
        drop(jobs);
        for Thread { handle, busy } in threads {
            if !busy {
                let _ = handle.join();
            }
        }
    }
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helper").finish_non_exhaustive()
    }
}
