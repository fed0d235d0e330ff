//! [`Helper`]: a reactor's own threads, for system calls that cannot be cut and may never return.
//!
//! A thread is started when there is a job and no thread is idle, up to [`THREADS`]. So a call that never returns holds
//! up only the reap that it is for, unless [`THREADS`] calls hang at once. The answer to a job comes through the
//! reactor's queue, as a command.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::cgroup::Job;
use crate::entries::{Command, NoThread};
use crate::entry_id::EntryId;
use crate::facility::Facility;
use crate::metrics::Metrics;
use crate::remote::Queue;
use crate::sys::Linux;

/// The number of threads that a reactor may have.
const THREADS: usize = 4;

/// The stack of a thread: some system calls and short lists.
const STACK: usize = 128 << 10;

/// Signals that are sent to the thread whose instruction or system call (SIGSYS, by a seccomp filter) causes them. The kernel
/// kills the process if such a signal is blocked.
const OF_THE_THREAD: [Signal; 6] =
    [Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGSEGV, Signal::SIGSYS, Signal::SIGTRAP];

/// The threads, and the jobs that wait for them. When the helper is dropped, its idle threads end at once, and the
/// others end when their calls return.
pub(crate) struct Helper {
    shared: Arc<Shared>,
    sys: Linux,
    queue: Arc<Queue>,
    absent: &'static [Facility],
}

struct Shared {
    state: Mutex<State>,
    /// Notified when there is a job, or when the helper is dropped.
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

    /// Does jobs until the helper is dropped, as the thread of this number.
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
            // Before the answer is sent: the reactor may then have a further job, which this thread can take.
            if let Some(thread) = self.lock().threads.get_mut(number) {
                thread.busy = false;
            }
            // If the queue is closed, the reactor was dropped.
            let _ = queue.push(Command::Answer(id, answer));
            state = self.lock();
        }
    }
}

impl Helper {
    /// Makes a helper without threads.
    pub(crate) fn new(sys: Linux, queue: Arc<Queue>, absent: &'static [Facility]) -> Helper {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new() };
        Helper { shared: Arc::new(shared), sys, queue, absent }
    }

    /// Hands a job to a thread. Fails if there is no thread and none can be started; with an urgent job also if all threads
    /// are busy.
    pub(crate) fn submit(&self, id: EntryId, job: Job<Linux>) -> Result<(), NoThread> {
        let mut why = NoThread(None);
        let mut state = self.shared.lock();
        let idle = state.threads.iter().filter(|thread| !thread.busy).count();
        if idle <= state.jobs.len() && state.threads.len() < THREADS {
            match self.start(state.threads.len()) {
                Ok(handle) => state.threads.push(Thread { handle, busy: false }),
                Err(error) => {
                    why = NoThread(Some(error));
                    if state.threads.is_empty() {
                        state.refused += 1;
                        return Err(why);
                    }
                }
            }
        }
        let idle = state.threads.iter().filter(|thread| !thread.busy).count();
        if job.is_urgent() && idle <= state.jobs.len() {
            return Err(why);
        }
        state.taken += 1;
        state.jobs.push_back((id, job));
        drop(state);
        self.shared.changed.notify_one();
        why.log();
        Ok(())
    }

    /// Drops the jobs of an entry that has ended, with the descriptors that they hold, if they wait for a thread. The release of
    /// memory is still of use.
    pub(crate) fn forget(&self, id: EntryId) {
        let is_left = |(of, job): &(EntryId, Job<Linux>)| *of != id || matches!(job, Job::Release(_));
        self.shared.lock().jobs.retain(is_left);
    }

    /// Starts the thread of this number. It blocks the signals that are sent to the process, so that the
    /// caller's threads get them.
    fn start(&self, number: usize) -> io::Result<JoinHandle<()>> {
        Facility::HelperThreads.check(self.absent)?;
        let mut blocked = SigSet::all();
        OF_THE_THREAD.into_iter().for_each(|signal| blocked.remove(signal));
        // A new thread inherits the signal mask of the thread that starts it.
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let (shared, sys, queue) = (Arc::clone(&self.shared), self.sys.clone(), Arc::clone(&self.queue));
        let builder = Builder::new().name("cgroup-reaper".into()).stack_size(STACK);
        let started = builder.spawn(move || shared.work(number, &sys, &queue));
        if let Err(errno) = before.thread_set_mask() {
            // Only a bad pointer makes this call fail.
            log::error!("cannot restore the signal mask: {errno}");
        }
        started
    }

    /// Sets the helper's counters in `metrics`.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::common::eventually;
    use crate::remote::tests::queue;

    fn helper(absent: &'static [Facility]) -> (Helper, Arc<Queue>, mio::Poll) {
        let (queue, poll) = queue();
        (Helper::new(Linux::default(), Arc::clone(&queue), absent), queue, poll)
    }

    fn submit(helper: &Helper, id: usize, act: impl FnOnce() + Send + 'static) {
        let id = EntryId::from_token(id).unwrap();
        assert!(helper.submit(id, Job::Test { urgent: false, act: Box::new(act) }).is_ok());
    }

    /// Keeps a thread busy until the sender is dropped.
    fn hang(helper: &Helper, id: usize) -> Sender<()> {
        let (sender, receiver): (Sender<()>, Receiver<()>) = channel();
        submit(helper, id, move || assert!(receiver.recv().is_err()));
        sender
    }

    /// Waits for an answer, and returns its entry.
    fn answered(queue: &Queue) -> usize {
        let mut command = None;
        eventually("an answer", || {
            command = queue.pop();
            command.is_some()
        });
        match command {
            Some(Command::Answer(id, _)) => id.token(),
            _ => panic!("another command"),
        }
    }

    fn counted(helper: &Helper) -> Metrics {
        let mut metrics = Metrics::default();
        helper.count(&mut metrics);
        metrics
    }

    #[test]
    fn an_idle_thread_does_the_next_job_and_ends_with_the_helper() {
        let (helper, queue, mut poll) = helper(&[]);
        assert_eq!(counted(&helper).helper_threads, 0);
        for id in 1..4 {
            submit(&helper, id, || {});
            assert_eq!(answered(&queue), id);
            let mut events = mio::Events::with_capacity(1);
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(!events.is_empty(), "the reactor is not woken");
            eventually("an idle thread", || counted(&helper).helper_busy == 0);
        }
        let Metrics { helper_threads, helper_jobs, helper_waiting, .. } = counted(&helper);
        assert_eq!((helper_threads, helper_jobs, helper_waiting), (1, 3, 0));
        let shared = Arc::downgrade(&helper.shared);
        drop(helper);
        assert!(shared.upgrade().is_none(), "an idle thread is left");
    }

    #[test]
    fn jobs_that_hang_hold_up_others_only_when_they_hold_all_threads() {
        let (helper, queue, _poll) = helper(&[]);
        let mut hanging: Vec<Sender<()>> = (1..THREADS).map(|id| hang(&helper, id)).collect();
        submit(&helper, 10, || {});
        assert_eq!(answered(&queue), 10);
        hanging.push(hang(&helper, THREADS));
        eventually("all threads to be busy", || counted(&helper).helper_busy == THREADS as u64);
        submit(&helper, 11, || {});
        submit(&helper, 12, || {});
        let Metrics { helper_threads, helper_waiting, .. } = counted(&helper);
        assert_eq!((helper_threads, helper_waiting), (THREADS as u64, 2));
        let urgent = Job::Test { urgent: true, act: Box::new(|| panic!("it is not done")) };
        assert!(helper.submit(EntryId::from_token(20).unwrap(), urgent).is_err(), "it must not wait");
        // One that waits is dropped with its reap.
        let waits = Job::Test { urgent: false, act: Box::new(|| panic!("it is not done")) };
        assert!(helper.submit(EntryId::from_token(21).unwrap(), waits).is_ok());
        assert_eq!(counted(&helper).helper_waiting, 3);
        helper.forget(EntryId::from_token(21).unwrap());
        assert_eq!(counted(&helper).helper_waiting, 2);
        drop(hanging.remove(1));
        let mut done = [(); 3].map(|()| answered(&queue));
        done.sort_unstable();
        assert_eq!(done, [2, 11, 12]);
        eventually("an idle thread", || counted(&helper).helper_busy < THREADS as u64);
        let urgent = Job::Test { urgent: true, act: Box::new(|| {}) };
        assert!(helper.submit(EntryId::from_token(13).unwrap(), urgent).is_ok());
        assert_eq!(answered(&queue), 13);
        // The drop does not wait for a thread that hangs.
        let shared = Arc::downgrade(&helper.shared);
        drop(helper);
        assert_eq!(shared.strong_count(), hanging.len());
        drop(hanging);
        eventually("the threads to end", || shared.strong_count() == 0);
    }

    /// The caller's threads take the signals that are sent to the process.
    #[test]
    fn a_thread_takes_no_signals_of_the_process() {
        let (helper, queue, _poll) = helper(&[]);
        let before = SigSet::thread_get_mask().unwrap();
        let (sender, masks) = channel();
        submit(&helper, 1, move || sender.send(SigSet::thread_get_mask().unwrap()).unwrap());
        assert_eq!(answered(&queue), 1);
        let mask = masks.recv().unwrap();
        for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
        {
            assert_eq!(mask.contains(signal), !OF_THE_THREAD.contains(&signal), "{signal}");
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn without_a_thread_no_job_is_taken() {
        let (helper, queue, _poll) = helper(&[Facility::HelperThreads]);
        for refused in 1..3 {
            let job = Job::Test { urgent: false, act: Box::new(|| panic!("it is not done")) };
            assert!(helper.submit(EntryId::from_token(1).unwrap(), job).is_err());
            let Metrics { helper_threads, helper_jobs, helper_refused, .. } = counted(&helper);
            assert_eq!((helper_threads, helper_jobs, helper_refused), (0, 0, refused));
        }
        assert!(queue.is_empty());
    }
}
