//! [`Metrics`]: counters of a reactor.

/// Counters of what a reactor has done since it was made. They only grow, except those that say "now".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Metrics {
    /// Reaps accepted.
    pub spawned: u64,
    /// Reaps completed, whatever the outcome.
    pub completed: u64,
    /// Calls of `turn` that did some work.
    pub wakeups: u64,
    /// Notifications from the kernel: `cgroup.events` changed, or a member exited.
    pub events: u64,
    /// Timers that fired.
    pub timers: u64,
    /// Checks: reads of the state of a target.
    pub checks: u64,
    /// Writes to `cgroup.kill`.
    pub cgroup_kills: u64,
    /// Signals sent to single processes.
    pub signals: u64,
    /// Writes that freeze a target.
    pub freezes: u64,
    /// Steps that thaw a target.
    pub thaws: u64,
    /// Steps that remove directories.
    pub removals: u64,
    /// Reaps that went over to freezing the target before each attempt to kill.
    pub escalations: u64,
    /// Descriptors that could not be watched with epoll, because the kernel refused it or the descriptor budget was used up.
    /// The reap then checks its target by timer.
    pub unwatched: u64,
    /// Processes whose memory was released, see [`Reaper::release_memory`](crate::Reaper::release_memory).
    pub released: u64,
    /// The anonymous memory that these processes had before, in bytes, as far as /proc told (`RssAnon` in
    /// `/proc/PID/status`).
    pub released_bytes: u64,
    /// Helper threads started.
    pub helper_threads: u64,
    /// Jobs handed to a helper thread.
    pub helper_jobs: u64,
    /// Jobs that a helper thread works on now. A job whose system call never returns is counted here as long as the
    /// reactor lives.
    pub helper_busy: u64,
    /// Jobs that wait for a helper thread now.
    pub helper_waiting: u64,
    /// Jobs for which there was no helper thread, and none could be started. The reactor itself makes the write to
    /// `cgroup.kill` or the rmdir(2) then; memory is not released.
    pub helper_refused: u64,
    /// Descriptors that reaps hold now.
    pub descriptors: u64,
    /// System calls made by the reactor.
    pub calls: Calls,
}

/// System calls by kind, including those of the reactor's [`Remote`](crate::Remote)s. Not counted are close(2), fcntl(2),
/// getrlimit(2), getpid(2), gettid(2), uname(2), clock_gettime(2), the write(2) that wakes the reactor, and the calls of the
/// memory allocator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Calls {
    /// openat(2) and open_by_handle_at(2).
    pub open: u64,
    /// pread(2).
    pub read: u64,
    /// write(2).
    pub write: u64,
    /// statx(2), fstatfs(2), readlink(2) and fgetxattr(2).
    pub stat: u64,
    /// Listings of a directory. openat(2), getdents64(2) and the other calls of a listing are counted as one.
    pub list: u64,
    /// unlinkat(2).
    pub remove: u64,
    /// pidfd_open(2).
    pub pidfd_open: u64,
    /// ioctl(2) on a pidfd.
    pub pidfd_info: u64,
    /// pidfd_send_signal(2).
    pub pidfd_send_signal: u64,
    /// poll(2) on a pidfd.
    pub poll: u64,
    /// kill(2) and tgkill(2).
    pub kill: u64,
    /// process_mrelease(2).
    pub process_mrelease: u64,
    /// epoll_ctl(2).
    pub epoll_ctl: u64,
    /// epoll_wait(2).
    pub epoll_wait: u64,
    /// timerfd_settime(2).
    pub timerfd_settime: u64,
}
