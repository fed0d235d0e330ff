// cgroup-reaper: kills everything in a Linux cgroup, waits until it is truly empty, removes it, and reports how that went.
//
// This file is written from the source of the library. SPDX-License-Identifier: MIT OR Apache-2.0
//
// A reactor is one descriptor in the event loop that the program has. In outline:
//
//     cgr_reactor_new(&reactor);                          // watch cgr_reactor_fd(reactor) for reading
//
//     cgr_reaper_new("/sys/fs/cgroup/batch/task-42", &reaper);
//     cgr_reaper_tag(reaper, 42);
//     cgr_reactor_spawn(reactor, reaper, NULL, &error);
//     cgr_reaper_free(reaper);
//
//     cgr_reactor_turn(reactor, 0);                       // whenever the descriptor is readable
//     while ((count = cgr_reactor_drain(reactor, results, 16)) > 0)
//         ...                                             // cgr_result_tag, cgr_result_message, ..., cgr_result_free
//
// Return values. A function that returns int returns 0 or more, and minus an errno when it fails. What is common to all:
//     -EINVAL           NULL where it is not allowed, or a value outside of its range
//     -EBADF            an object that was freed, or never was one
//     -EBUSY            a reactor that another thread is using
//     -ENOTRECOVERABLE  a panic: a bug in this library, now or in an earlier call with this object, which can only be
//                       freed. The panic does not leave the library, but for a message on standard error.
//
// Ownership. What a function writes to a place of type `cgr_... **` belongs to the caller, which frees it with the function for
// its type. Arguments stay the caller's, and are not kept. Objects may be freed in any order.
//
// NULL and freed objects. What a pointer to an object holds is an id, not an address: every function is defined for NULL, and
// for an object that was freed, also when it was freed by another thread. Pointers to the caller's own memory, and texts, are
// C's as usual.
//
// Threads. `Any thread` means that several may call at once. Only the functions with a cgr_reactor are for one thread at a
// time, and not always the same one.
//
// Strings. Paths are bytes that end with a 0, in no particular encoding, as the kernel has them. Messages are UTF-8, and end
// with a 0.
//
// Time is in microseconds; CGR_FOREVER is no limit.
//
// fork(2). A child that does not call exec must not use what its parent made.


#ifndef CGROUP_REAPER_H
#define CGROUP_REAPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A time without end, or no limit.
#define CGR_FOREVER UINT64_MAX

// How a reap ended, or why it did not begin: `cgr_result_kind`.
typedef enum cgr_kind {
  // Every process is dead, and the directories are as the outcome says.
  CGR_OK = 0,
  // The deadline has passed. The survivors say which processes are left.
  CGR_TIMED_OUT = 1,
  // The target was removed by another party, and another cgroup has its name, which was not touched.
  CGR_REPLACED = 2,
  // Something that has to be done was refused by the kernel; the message says what.
  CGR_DENIED = 3,
  // A freeze outside of the target has held its members for longer than the freeze timeout.
  CGR_FROZEN_BY_ANCESTOR = 4,
  // It was cancelled.
  CGR_CANCELLED = 5,
  // The reactor was freed first.
  CGR_DISCONNECTED = 6,
  // The target or an option is one that is not allowed. Nothing was touched.
  CGR_REFUSED = 7,
  // The target could not be checked. Nothing was touched.
  CGR_IO = 8,
  // Of `cgr_reap`: its event loop could not be made, or failed. Of a reactor on a 32-bit machine: it can take no more
  // reaps.
  CGR_REACTOR = 9,
  // An error of a kind that this header does not know yet; the message says which.
  CGR_OTHER = 10,
} cgr_kind;

// What became of the directories of a target: `cgr_result_outcome`.
typedef enum cgr_outcome {
  // The reap failed; `cgr_result_kind` says how.
  CGR_NO_OUTCOME = 0,
  // They were there at the spawn, every process is dead, and they have been removed.
  CGR_REMOVED = 1,
  // They are empty and were left in place, as `cgr_reaper_keep_dir` asked, or to systemd.
  CGR_EMPTIED = 2,
  // There was nothing at the spawn.
  CGR_ALREADY_GONE = 3,
  // One that this header does not know yet.
  CGR_OTHER_OUTCOME = 4,
} cgr_outcome;

// How processes were killed: `cgr_effort`.
typedef enum cgr_used_method {
  // Nothing was killed.
  CGR_USED_NOTHING = 0,
  // A write to cgroup.kill.
  CGR_USED_CGROUP_KILL = 1,
  // SIGKILL through pidfds whose membership was verified.
  CGR_USED_PIDFD = 2,
  // Frozen, signalled and thawed.
  CGR_USED_FREEZER = 3,
  // kill(2) on pids just read: only with `cgr_reaper_kill_without_freezer` on a kernel without pidfds.
  CGR_USED_UNVERIFIED = 4,
  // One that this header does not know yet.
  CGR_USED_OTHER = 5,
} cgr_used_method;

// How to kill: `cgr_reaper_method`.
typedef enum cgr_method {
  // The cheapest safe way first, whatever the kernel has. The default.
  CGR_METHOD_AUTO = 0,
  // Only cgroup.kill (v2, Linux 5.14).
  CGR_METHOD_CGROUP_KILL = 1,
  // Freeze, kill, thaw.
  CGR_METHOD_FREEZER = 2,
  // Only verified pidfds, never frozen.
  CGR_METHOD_PIDFD = 3,
} cgr_method;

// One reap under way, or one that has ended: an object that its owner frees with `cgr_handle_free`. Any thread may use it. It
// does not keep the reactor alive.
typedef struct cgr_handle cgr_handle;

// An event loop that reaps cgroups: an object that its owner frees with `cgr_reactor_free`. It works only while one of its
// functions runs, and has threads of its own only where it is asked for them. One thread at a time may call them, not always
// the same; a call while another thread is in one returns -EBUSY. Other threads spawn by a `cgr_remote`.
typedef struct cgr_reactor cgr_reactor;

// What to reap, and how: an object that its owner frees with `cgr_reaper_free`. A spawn reads it and does not keep it, so
// that one may serve many spawns. Any thread may use it; a call waits for those of other threads.
typedef struct cgr_reaper cgr_reaper;

// Spawns reaps on a reactor from other threads: an object that its owner frees with `cgr_remote_free`. Any number of threads
// may use it at once. It does not keep the reactor alive.
typedef struct cgr_remote cgr_remote;

// What a reap came to, or why it did not begin: an object that its owner frees with `cgr_result_free`. It does not change;
// any number of threads may read it.
typedef struct cgr_result cgr_result;

// Counters of what a reactor has done since it was made: `cgr_reactor_metrics`. They only grow, except those that say "now".
// Later versions add some at the end.
typedef struct cgr_metrics {
  // Reaps accepted.
  uint64_t spawned;
  // Reaps completed, whatever the outcome.
  uint64_t completed;
  // Calls of `turn` that did some work.
  uint64_t wakeups;
  // Notifications from the kernel: `cgroup.events` changed, or a member exited.
  uint64_t events;
  // Timers that fired.
  uint64_t timers;
  // Checks: reads of the state of a target.
  uint64_t checks;
  // Writes to `cgroup.kill`.
  uint64_t cgroup_kills;
  // Signals sent to single processes.
  uint64_t signals;
  // Writes that freeze.
  uint64_t freezes;
  // Steps that thaw.
  uint64_t thaws;
  // Steps that remove directories.
  uint64_t removals;
  // Reaps that went over to freezing the target before each attempt to kill.
  uint64_t escalations;
  // Watches refused by the kernel or the descriptor budget. Such a reap checks by timer.
  uint64_t unwatched;
  // Processes whose memory was released, as `cgr_reaper_release_memory` asked.
  uint64_t released;
  // The anonymous memory that they had before, in bytes, as far as /proc told.
  uint64_t released_bytes;
  // Helper threads started.
  uint64_t helper_threads;
  // Jobs handed to a helper thread.
  uint64_t helper_jobs;
  // Jobs that a helper thread works on now. One whose system call never returns is counted as long as the reactor lives.
  uint64_t helper_busy;
  // Jobs that wait for a helper thread now.
  uint64_t helper_waiting;
  // Jobs for which there was no helper thread, and none could be started. The reactor itself makes the write to
  // `cgroup.kill` or the rmdir(2) then; memory is not released.
  uint64_t helper_refused;
  // Descriptors that reaps hold now.
  uint64_t descriptors;
  // Calls of openat(2) and open_by_handle_at(2).
  uint64_t calls_open;
  // Calls of pread(2).
  uint64_t calls_read;
  // Calls of write(2).
  uint64_t calls_write;
  // Calls of statx(2), fstatfs(2), readlink(2) and fgetxattr(2).
  uint64_t calls_stat;
  // Listings of a directory, each with all its calls.
  uint64_t calls_list;
  // Calls of unlinkat(2).
  uint64_t calls_remove;
  // Calls of pidfd_open(2).
  uint64_t calls_pidfd_open;
  // Calls of ioctl(2) on a pidfd.
  uint64_t calls_pidfd_info;
  // Calls of pidfd_send_signal(2).
  uint64_t calls_pidfd_send_signal;
  // Calls of poll(2) on a pidfd.
  uint64_t calls_poll;
  // Calls of kill(2) and tgkill(2).
  uint64_t calls_kill;
  // Calls of process_mrelease(2).
  uint64_t calls_process_mrelease;
  // Calls of epoll_ctl(2).
  uint64_t calls_epoll_ctl;
  // Calls of epoll_wait(2).
  uint64_t calls_epoll_wait;
  // Calls of timerfd_settime(2).
  uint64_t calls_timerfd_settime;
} cgr_metrics;

// What was done for a reap, successful or not: `cgr_result_effort`.
typedef struct cgr_effort {
  // Time from the spawn to the end, in microseconds.
  uint64_t elapsed_us;
  // Processes that were sent a signal one by one. cgroup.kill does not say how many it kills, and adds nothing here.
  uint64_t signalled;
  // Processes whose memory was released before they exited, as `cgr_reaper_release_memory` asked.
  uint64_t released;
  // Attempts to kill.
  uint32_t attempts;
  // The last way of killing that was used, a `cgr_used_method`.
  int method;
} cgr_effort;

// A process that outlived a deadline, as /proc described it: `cgr_result_survivor`. What /proc did not say is empty. The
// texts are the result's, and good until it is freed.
typedef struct cgr_survivor {
  // Its command name, UTF-8; never NULL.
  const char *command;
  // The kernel function it sleeps in; never NULL.
  const char *wait_channel;
  // The path of the v1 freezer cgroup that holds it frozen; NULL if none does.
  const char *frozen_by;
  // Its process id; 0 where it has none in the caller's pid namespace.
  int32_t pid;
  // Its state letter: 'D' uninterruptible, 't' traced, ...; 0 if not known.
  char state;
  // Whether it is a kernel thread, which no signal kills.
  bool kernel_thread;
} cgr_survivor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the version of the library that the program runs with, such as "0.1.0".
//
// Any thread. Never NULL; the text is the library's.
const char *cgr_version(void);

// Makes a reaper of the one cgroup directory `path`, v1 or v2, with the defaults. Nothing is read or touched before a spawn.
// The path is bytes that end with a 0, in no particular encoding, and is copied. Returns 0, and the reaper in `*reaper`,
// which the caller owns.
//
// Any thread. -EINVAL if either is NULL; `*reaper` is NULL after a failure.
int cgr_reaper_new(const char *path,
                   struct cgr_reaper **reaper);

// Makes a reaper of the one cgroup directory that `fd` is open on; O_PATH is enough. This directory is the target, even if
// its path leads to another one by the time of the spawn. The descriptor is duplicated; the caller keeps its own, and
// closes it. Returns 0, and the reaper in `*reaper`, which the caller owns.
//
// Any thread. -EINVAL if `reaper` is NULL, -EBADF if `fd` is not open, -EMFILE; `*reaper` is NULL after a failure.
int cgr_reaper_new_fd(int fd,
                      struct cgr_reaper **reaper);

// Makes a reaper of the cgroups with one name in several v1 hierarchies, `root/SUBSYSTEM/slice/name`, or of the one cgroup
// `root/slice/name` where `subsystems` is NULL. `slice` may be NULL: none. The names are bytes that end with a 0, in no
// particular encoding, and are copied. Returns 0, and the reaper in `*reaper`, which the caller owns.
//
// Any thread. -EINVAL if `root`, `name`, `reaper` or one of the `subsystem_count` subsystems is NULL; `*reaper` is NULL after
// a failure.
int cgr_reaper_new_named(const char *root,
                         const char *slice,
                         const char *const *subsystems,
                         size_t subsystem_count,
                         const char *name,
                         struct cgr_reaper **reaper);

// Frees a reaper. Reaps that were spawned from it go on.
//
// Any thread. NULL, and a reaper that was freed before, are ignored.
void cgr_reaper_free(struct cgr_reaper *reaper);

// Sets how long to wait after the first attempt to kill before the next one. Default: 10 ms. It does not delay completion.
// Less than 1 ms, or more than the longest wait, is refused at the spawn. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_min_wait(struct cgr_reaper *reaper,
                        uint64_t us);

// Sets the longest wait between two attempts to kill. Default: 10 s. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_max_wait(struct cgr_reaper *reaper, uint64_t us);

// Sets how long a freeze may take before it is undone and tried again (50 ms at most while SIGKILL is sent and pidfds make
// that safe), and how long a freeze from outside may hold the target before the reap ends as CGR_FROZEN_BY_ANCESTOR. Default:
// 10 s. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_freeze_timeout(struct cgr_reaper *reaper,
                              uint64_t us);

// Sends no signal: waits until the target is empty by itself, then removes it. A target that has no member yet is removed at
// once. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_when_empty(struct cgr_reaper *reaper);

// Waits so long for the target to become empty by itself before the first signal. Default: not at all. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_linger(struct cgr_reaper *reaper, uint64_t us);

// Sends this signal to every member first, and SIGKILL after `us` microseconds to those that are left. Default: SIGKILL at
// once. Returns 0.
//
// Any thread. -EINVAL for NULL and for a signal outside 1 to 64, -EBADF after it was freed.
int cgr_reaper_grace(struct cgr_reaper *reaper,
                     int signal,
                     uint64_t us);

// Ends the reap after so long, counted from the spawn, as CGR_TIMED_OUT. Members that were not sent SIGKILL yet, because of
// linger or grace, are sent it then, and have some 95 ms more to exit; with `cgr_reaper_when_empty` no signal is sent.
// Default: none. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_deadline(struct cgr_reaper *reaper,
                        uint64_t us);

// Sets how to kill, a `cgr_method`. Default: CGR_METHOD_AUTO. Returns 0.
//
// Any thread. -EINVAL for NULL and for a number that is none of them, -EBADF after it was freed.
int cgr_reaper_method(struct cgr_reaper *reaper, int method);

// Allows pids that were just read to be signalled unverified, on kernels without pidfds (before Linux 5.3), where the target
// is not in the v1 freezer. A pid may be reused before the signal is sent, and another process killed. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_kill_without_freezer(struct cgr_reaper *reaper);

// Releases the memory of members that were sent SIGKILL and cannot exit: those in uninterruptible sleep, or held by a tracer
// (process_mrelease(2), Linux 5.15). After some attempts to kill, the reactor starts a thread of its own for it. Default: their
// memory is released when they exit. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_release_memory(struct cgr_reaper *reaper);

// Kills and waits, but leaves the directories. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_keep_dir(struct cgr_reaper *reaper);

// Tells the reap from others: `cgr_reactor_drain` hands out its result with this tag. A job's number, or a pointer of the
// caller's as a number. Tags need not be unique. Without one, only the handle has the result. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reaper_tag(struct cgr_reaper *reaper,
                   uint64_t tag);

// Makes a reactor. It holds some descriptors. Returns 0, and the reactor in `*reactor`, which the caller owns. A forked child
// must not use it.
//
// Any thread. -EINVAL for NULL, -EMFILE, -ENFILE, -ENOMEM; `*reactor` is NULL after a failure.
int cgr_reactor_new(struct cgr_reactor **reactor);

// Frees a reactor, and closes its descriptor: stop watching that first. Reaps under way end as CGR_DISCONNECTED, with nothing
// left frozen; `cgr_reactor_shutdown` ends them in order. Results, handles and remotes stay the caller's.
//
// Any thread; if another is in a call with this reactor, the end of that call frees it. A `cgr_reactor_turn` in which
// another thread waits returns. NULL, and a reactor that was freed before, are ignored.
void cgr_reactor_free(struct cgr_reactor *reactor);

// Returns the descriptor that is readable when there is something to do: call `cgr_reactor_turn(reactor, 0)` then. Watch it
// for reading, level- or edge-triggered; never read from it. It is the same as long as the reactor lives, and the reactor's:
// do not close it.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_fd(const struct cgr_reactor *reactor);

// Waits up to `wait_us` microseconds for something to do (0: not at all; CGR_FOREVER: without limit), and does it. Returns
// how many reaps have ended since the last turn. It works for about 1 ms, see `cgr_reactor_set_turn_budget`; what is left
// makes the descriptor readable again. Extra calls do no harm. While there are results to be taken by `cgr_reactor_drain`, it
// does not wait.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed; else the errno of epoll_wait(2), never EINTR.
int cgr_reactor_turn(struct cgr_reactor *reactor,
                     uint64_t wait_us);

// Writes to `*us` in how many microseconds the next timer is due: 0 if the next turn has something to do, CGR_FOREVER without
// a timer. For loops that plan ahead; the descriptor covers timers by itself. Returns 0.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_next_deadline(const struct cgr_reactor *reactor,
                              uint64_t *us);

// Sets how long a turn or a spawn works before it defers the rest, in microseconds. Default: 1000. CGR_FOREVER: without
// limit; 0: one step of work. Returns 0.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_set_turn_budget(struct cgr_reactor *reactor,
                                uint64_t us);

// Has a thread of the reactor's own make the calls that cannot be cut: the writes to cgroup.kill that reach many members, so
// that the spawn of such a target returns before they are killed, and rmdir(2), which waits while another process reads the
// parent directory. Default: false: the members are signalled in steps where the kernel allows that (Linux 6.13), else the
// spawn or the turn makes the write, and the turn removes the directory. The thread takes no signals of the process, and
// ends with the reactor. Returns 0.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_set_helper_thread(struct cgr_reactor *reactor,
                                  bool wanted);

// Returns how many reaps are under way.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_len(const struct cgr_reactor *reactor);

// Writes the counters of what was done so far to `*metrics`, which has `size` bytes: pass sizeof(cgr_metrics). Returns 0.
//
// One thread at a time: -EBUSY. `*metrics` is the caller's. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_metrics(const struct cgr_reactor *reactor,
                        struct cgr_metrics *metrics,
                        size_t size);

// Starts a reap: checks the target, and makes the first attempt to kill. The reap may have ended when this returns. Returns
// 0, and its handle in `*handle`, which the caller owns; `handle` may be NULL where a tag is enough. A target that does not
// exist is no error: its reap ends as CGR_ALREADY_GONE.
//
// If the target is refused, nothing was touched: `*error` says why, and is the caller's to free; `error` may be NULL. The
// return value is minus the errno of the call that failed or, without one, -EPERM (the root of a hierarchy, or the caller's
// own cgroup), -ELOOP (a symbolic link), -ENOTTY (no cgroup), -ENOENT (no such directory, and the nearest one above it that
// exists is no cgroup), -EOPNOTSUPP (the method has nothing to work with), or -EINVAL (a name or a wait that is not allowed).
// After a failure, `*handle` is NULL; `*error` is NULL unless the target was refused.
//
// One thread at a time: -EBUSY. The reaper stays the caller's. -EINVAL if `reactor` or `reaper` is NULL, -EBADF after
// either was freed, both without an error object.
int cgr_reactor_spawn(struct cgr_reactor *reactor,
                      const struct cgr_reaper *reaper,
                      struct cgr_handle **handle,
                      struct cgr_result **error);

// Asks all reaps with this tag to stop, as `cgr_handle_cancel` does. Returns how many there are.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_cancel(struct cgr_reactor *reactor, uint64_t tag);

// Asks all reaps with this tag to send SIGKILL now, as `cgr_handle_kill_now` does. Returns how many there are.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed.
int cgr_reactor_kill_now(struct cgr_reactor *reactor, uint64_t tag);

// Takes up to `capacity` reaps with a tag that have ended, in the order in which they ended, and writes their results to
// `results`. Returns how many; fewer than `capacity` if no more have ended. Each is handed out once, and the caller owns it.
// Until the last is taken the descriptor is readable, and a turn does not wait.
//
// One thread at a time: -EBUSY. -EINVAL for NULL and for a capacity of 0, -EBADF after it was freed.
int cgr_reactor_drain(struct cgr_reactor *reactor,
                      struct cgr_result **results,
                      size_t capacity);

// Cancels all reaps, and works until none is left or `at_most_us` microseconds have passed. Returns how many are left: 0,
// unless the time was too short, or something stays frozen that cannot be thawed. For the end of a program, before
// `cgr_reactor_free`.
//
// One thread at a time: -EBUSY. -EINVAL for NULL, -EBADF after it was freed; else the errno of epoll_wait(2).
int cgr_reactor_shutdown(struct cgr_reactor *reactor,
                         uint64_t at_most_us);

// Makes a remote of a reactor. Returns 0, and the remote in `*remote`, which the caller owns.
//
// Any thread, also while another is in a call with the reactor. -EINVAL for NULL, -EBADF after the reactor was freed;
// `*remote` is NULL after a failure.
int cgr_remote_new(const struct cgr_reactor *reactor, struct cgr_remote **remote);

// Frees a remote. What it has handed over goes on.
//
// Any thread. NULL, and a remote that was freed before, are ignored.
void cgr_remote_free(struct cgr_remote *remote);

// Checks the target on this thread, and hands its reap to the reactor, which starts it in its next turn: its descriptor
// becomes readable for it. Returns and writes what `cgr_reactor_spawn` does, and -EPIPE with an error object of the kind
// CGR_DISCONNECTED if the reactor was freed.
//
// Any thread. The reaper stays the caller's. -EINVAL if `remote` or `reaper` is NULL, -EBADF after either was freed, both
// without an error object.
int cgr_remote_spawn(const struct cgr_remote *remote,
                     const struct cgr_reaper *reaper,
                     struct cgr_handle **handle,
                     struct cgr_result **error);

// Frees a handle. The reap goes on.
//
// Any thread. NULL, and a handle that was freed before, are ignored.
void cgr_handle_free(struct cgr_handle *handle);

// Asks the reactor to stop this reap: when the reactor handles the request, the reap ends as CGR_CANCELLED, once its freeze is
// undone, or each thaw has failed for 10 s. A reap that has failed before, and only undoes its freeze, ends with that failure.
// The reactor handles up to 256 requests and spawns in a turn, and a turn can take several calls. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_handle_cancel(struct cgr_handle *handle);

// Asks the reactor to send SIGKILL now: when the reactor handles the request, this ends linger and grace, and a reap
// `when_empty` becomes one that kills. Returns 0.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_handle_kill_now(struct cgr_handle *handle);

// Waits up to `wait_us` microseconds (0: not at all; CGR_FOREVER: without limit) until the reap has ended. Returns 1, and the
// result in `*result`, which the caller owns and which is another object each time; 0, and NULL in `*result`, if it has not
// ended.
//
// Any thread; to wait on the one that calls `cgr_reactor_turn` is a deadlock. -EINVAL for NULL, -EBADF after it was freed.
int cgr_handle_wait(struct cgr_handle *handle,
                    uint64_t wait_us,
                    struct cgr_result **result);

// Reaps one target, and blocks until that has ended. Returns 0 if every process is dead; else minus the errno that is the
// cause, or one that fits the kind, as for `cgr_reactor_spawn`: -ETIMEDOUT, -ESTALE (CGR_REPLACED), -EAGAIN
// (CGR_FROZEN_BY_ANCESTOR). In either case `*result` has the details, and is the caller's to free; `result` may be NULL.
//
// Any thread, but not that of an event loop, which would stand still. The reaper stays the caller's. -EINVAL if `reaper` is
// NULL, -EBADF after it was freed, both with NULL in `*result`.
int cgr_reap(const struct cgr_reaper *reaper,
             struct cgr_result **result);

// Frees a result, and the texts that it has given out.
//
// Any thread. NULL, and a result that was freed before, are ignored.
void cgr_result_free(struct cgr_result *result);

// Returns how the reap ended, a `cgr_kind`: CGR_OK (0) if every process is dead.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_result_kind(const struct cgr_result *result);

// Returns what became of the directories, a `cgr_outcome`; CGR_NO_OUTCOME (0) if the reap failed.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_result_outcome(const struct cgr_result *result);

// Returns the errno of the system call that is the cause; 0 if none is.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_result_errno(const struct cgr_result *result);

// Returns the tag of the reap, as `cgr_reaper_tag` gave it; 0 without one.
//
// Any thread. 0 for NULL, and after it was freed.
uint64_t cgr_result_tag(const struct cgr_result *result);

// Returns the first directory of the target, or what the caller named where there was none; empty if it is not known. A path
// is bytes that end with a 0, in no particular encoding.
//
// Any thread. The text is the result's, and good until that is freed. NULL for NULL, and after it was freed.
const char *cgr_result_path(const struct cgr_result *result);

// Returns one line for people, in UTF-8: the target, and the outcome or what failed and why.
//
// Any thread. The text is the result's, and good until that is freed. NULL for NULL, and after it was freed.
const char *cgr_result_message(const struct cgr_result *result);

// Writes what was done for the reap to `*effort`, which has `size` bytes: pass sizeof(cgr_effort). All is 0 for a target that
// was refused. Returns 0.
//
// Any thread. `*effort` is the caller's. -EINVAL for NULL, -EBADF after it was freed.
int cgr_result_effort(const struct cgr_result *result,
                      struct cgr_effort *effort,
                      size_t size);

// Returns how many survivors the result names: processes that outlived a deadline, at most 64.
//
// Any thread. -EINVAL for NULL, -EBADF after it was freed.
int cgr_result_survivor_count(const struct cgr_result *result);

// Writes a survivor to `*survivor`, which has `size` bytes: pass sizeof(cgr_survivor). Returns 0, and -ERANGE if there are
// not so many.
//
// Any thread. `*survivor` is the caller's; the texts that it leads to are the result's, and good until that is freed.
// -EINVAL for NULL, -EBADF after the result was freed.
int cgr_result_survivor(const struct cgr_result *result,
                        size_t index,
                        struct cgr_survivor *survivor,
                        size_t size);

// Returns the word for a kind, for logs: "ok", "timed-out", "replaced", "denied", "frozen-by-ancestor", "cancelled",
// "disconnected", "refused", "io", "reactor", and "other" for every number else.
//
// Any thread. Never NULL; the text is the library's.
const char *cgr_kind_name(int kind);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CGROUP_REAPER_H */
