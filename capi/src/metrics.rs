//! `cgr_metrics`: the counters of a reactor.

use cgroup_reaper::Metrics;

/// Counters of what a reactor has done since it was made: `cgr_reactor_metrics`. They only grow, except those that say "now".
/// Later versions add some at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct cgr_metrics {
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
    /// Writes that freeze.
    pub freezes: u64,
    /// Steps that thaw.
    pub thaws: u64,
    /// Steps that remove directories.
    pub removals: u64,
    /// Reaps that went over to freezing the target before each attempt to kill.
    pub escalations: u64,
    /// Watches refused by the kernel or the descriptor budget. Such a reap checks by timer.
    pub unwatched: u64,
    /// Processes whose memory was released, as `cgr_reaper_release_memory` asked.
    pub released: u64,
    /// The anonymous memory that they had before, in bytes, as far as /proc told.
    pub released_bytes: u64,
    /// Helper threads started.
    pub helper_threads: u64,
    /// Jobs handed to a helper thread.
    pub helper_jobs: u64,
    /// Jobs that a helper thread works on now. One whose system call never returns is counted as long as the reactor lives.
    pub helper_busy: u64,
    /// Jobs that wait for a helper thread now.
    pub helper_waiting: u64,
    /// Jobs for which there was no helper thread, and none could be started. The reactor itself makes the write to
    /// `cgroup.kill` or the rmdir(2) then; memory is not released.
    pub helper_refused: u64,
    /// Descriptors that reaps hold now.
    pub descriptors: u64,
    /// Calls of openat(2) and open_by_handle_at(2).
    pub calls_open: u64,
    /// Calls of pread(2).
    pub calls_read: u64,
    /// Calls of write(2).
    pub calls_write: u64,
    /// Calls of statx(2), fstatfs(2), readlink(2) and fgetxattr(2).
    pub calls_stat: u64,
    /// Listings of a directory, each with all its calls.
    pub calls_list: u64,
    /// Calls of unlinkat(2).
    pub calls_remove: u64,
    /// Calls of pidfd_open(2).
    pub calls_pidfd_open: u64,
    /// Calls of ioctl(2) on a pidfd.
    pub calls_pidfd_info: u64,
    /// Calls of pidfd_send_signal(2).
    pub calls_pidfd_send_signal: u64,
    /// Calls of poll(2) on a pidfd.
    pub calls_poll: u64,
    /// Calls of kill(2) and tgkill(2).
    pub calls_kill: u64,
    /// Calls of process_mrelease(2).
    pub calls_process_mrelease: u64,
    /// Calls of epoll_ctl(2).
    pub calls_epoll_ctl: u64,
    /// Calls of epoll_wait(2).
    pub calls_epoll_wait: u64,
    /// Calls of timerfd_settime(2).
    pub calls_timerfd_settime: u64,
}

impl From<&Metrics> for cgr_metrics {
    fn from(metrics: &Metrics) -> cgr_metrics {
        let Metrics { calls, .. } = metrics;
        cgr_metrics {
            spawned: metrics.spawned,
            completed: metrics.completed,
            wakeups: metrics.wakeups,
            events: metrics.events,
            timers: metrics.timers,
            checks: metrics.checks,
            cgroup_kills: metrics.cgroup_kills,
            signals: metrics.signals,
            freezes: metrics.freezes,
            thaws: metrics.thaws,
            removals: metrics.removals,
            escalations: metrics.escalations,
            unwatched: metrics.unwatched,
            released: metrics.released,
            released_bytes: metrics.released_bytes,
            helper_threads: metrics.helper_threads,
            helper_jobs: metrics.helper_jobs,
            helper_busy: metrics.helper_busy,
            helper_waiting: metrics.helper_waiting,
            helper_refused: metrics.helper_refused,
            descriptors: metrics.descriptors,
            calls_open: calls.open,
            calls_read: calls.read,
            calls_write: calls.write,
            calls_stat: calls.stat,
            calls_list: calls.list,
            calls_remove: calls.remove,
            calls_pidfd_open: calls.pidfd_open,
            calls_pidfd_info: calls.pidfd_info,
            calls_pidfd_send_signal: calls.pidfd_send_signal,
            calls_poll: calls.poll,
            calls_kill: calls.kill,
            calls_process_mrelease: calls.process_mrelease,
            calls_epoll_ctl: calls.epoll_ctl,
            calls_epoll_wait: calls.epoll_wait,
            calls_timerfd_settime: calls.timerfd_settime,
        }
    }
}
