// cgroup-reaper for C++11 and later: the C ABI of cgroup_reaper.h with owners, exceptions, callbacks and futures.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
//
//     cgroup_reaper::Reactor reactor;                      // watch reactor.fd() for reading
//
//     cgroup_reaper::Reaper reaper("/sys/fs/cgroup/batch/task-42");
//     reaper.grace(SIGTERM, std::chrono::seconds(5));
//     reactor.spawn(reaper, [](const cgroup_reaper::Result &result) { puts(result.message.c_str()); });
//
//     reactor.turn();                                      // whenever the descriptor is readable
//
// A callback runs inside of a turn or a shutdown, on the thread of that. It may spawn. A reap that ends inside of its spawn is
// reported by the next turn, for which the descriptor is readable at once. A callback may also destroy the reactor: then the
// callbacks that have not run are destroyed too.

#ifndef CGROUP_REAPER_HPP
#define CGROUP_REAPER_HPP

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cgroup_reaper.h"

namespace cgroup_reaper {

// A process that outlived a deadline, as /proc described it.
struct Survivor {
    int pid;
    std::string command;
    char state;
    std::string wait_channel;
    // Empty if none.
    std::string frozen_by;
    bool kernel_thread;
};

// What a reap came to, or why it was refused: a plain value.
struct Result {
    // A cgr_kind: CGR_OK if every process is dead.
    int kind;
    // A cgr_outcome.
    int outcome;
    // The errno of the system call that is the cause, or 0.
    int error;
    std::string path;
    std::string message;
    cgr_effort effort;
    std::vector<Survivor> survivors;

    bool ok() const { return kind == CGR_OK; }
};

// A target that a spawn refused. Nothing was touched.
class Refused : public std::runtime_error {
public:
    explicit Refused(Result why) : std::runtime_error(why.message), why_(std::make_shared<Result>(std::move(why))) {}
    const Result &result() const { return *why_; }

private:
    // Shared, because an exception must not throw when it is copied.
    std::shared_ptr<const Result> why_;
};

namespace detail {

// Throws what a call of the C ABI has failed with.
inline int check(const char *call, int answer) {
    if (answer < 0)
        throw std::system_error(-answer, std::generic_category(), call);
    return answer;
}

struct Free {
    void operator()(cgr_remote *remote) const { cgr_remote_free(remote); }
    void operator()(cgr_reaper *reaper) const { cgr_reaper_free(reaper); }
    void operator()(cgr_result *result) const { cgr_result_free(result); }
};

template <typename T> using Owned = std::unique_ptr<T, Free>;

inline std::string text(const char *bytes) { return bytes ? bytes : ""; }

// For C, a text ends at the first NUL: a path with a NUL in it would be that of another cgroup, such as one above it.
inline const char *c_str(const std::string &text) {
    if (text.find('\0') != std::string::npos)
        throw std::invalid_argument("a path or a name with a NUL in it");
    return text.c_str();
}

// A time that std::chrono has, rounded up to microseconds. One that is not positive is 0, one that does not fit is for ever.
template <typename Rep, typename Period> std::uint64_t micros(std::chrono::duration<Rep, Period> time) {
    if (std::chrono::duration<double, std::micro>(time).count() > 9e18)
        return CGR_FOREVER;
    auto us = std::chrono::duration_cast<std::chrono::microseconds>(time);
    if (us < time)
        us += std::chrono::microseconds(1);
    return us.count() > 0 ? static_cast<std::uint64_t>(us.count()) : 0;
}

inline Result result(const cgr_result *from) {
    Result to{cgr_result_kind(from), cgr_result_outcome(from), cgr_result_errno(from),
              text(cgr_result_path(from)), text(cgr_result_message(from)), cgr_effort(), {}};
    cgr_result_effort(from, &to.effort, sizeof to.effort);
    for (int i = 0; i < cgr_result_survivor_count(from); i++) {
        cgr_survivor s;
        check("cgr_result_survivor", cgr_result_survivor(from, static_cast<std::size_t>(i), &s, sizeof s));
        to.survivors.push_back({s.pid, text(s.command), s.state, text(s.wait_channel), text(s.frozen_by), s.kernel_thread});
    }
    return to;
}

using Callback = std::function<void(const Result &)>;

// The callbacks of reaps under way, by tag. Remotes share them with the reactor.
class Callbacks {
public:
    std::uint64_t add(Callback callback) {
        std::lock_guard<std::mutex> lock(mutex_);
        callbacks_.emplace(++last_, std::move(callback));
        return last_;
    }

    Callback take(std::uint64_t tag) {
        std::lock_guard<std::mutex> lock(mutex_);
        auto found = callbacks_.find(tag);
        if (found == callbacks_.end())
            return Callback();
        Callback callback = std::move(found->second);
        callbacks_.erase(found);
        return callback;
    }

    // Destroys all of them. Not under the lock: their destructors are the caller's code.
    void clear() {
        std::unordered_map<std::uint64_t, Callback> left;
        std::lock_guard<std::mutex> lock(mutex_);
        left.swap(callbacks_);
    }

private:
    std::mutex mutex_;
    std::unordered_map<std::uint64_t, Callback> callbacks_;
    std::uint64_t last_ = 0;
};

// Ends a reactor: from then on it refuses spawns, and no callback that was added before is called.
struct End {
    std::shared_ptr<Callbacks> callbacks;

    void operator()(cgr_reactor *reactor) const {
        cgr_reactor_free(reactor);
        // After that: until then a remote may add one and hand its reap over.
        callbacks->clear();
    }
};

// A callback that gives its result to a future. std::function wants it to be copyable.
inline std::pair<Callback, std::future<Result>> promise() {
    auto promise = std::make_shared<std::promise<Result>>();
    return {[promise](const Result &result) { promise->set_value(result); }, promise->get_future()};
}

// Spawns with the tag of a callback; `call` is the function of the C ABI.
template <typename Call> void spawn(Callbacks &callbacks, cgr_reaper *reaper, Callback callback, Call call) {
    std::uint64_t tag = callbacks.add(std::move(callback));
    cgr_result *refused = nullptr;
    int answer = cgr_reaper_tag(reaper, tag);
    if (answer >= 0)
        answer = call(reaper, &refused);
    if (answer >= 0)
        return;
    Owned<cgr_result> owned(refused);
    callbacks.take(tag);
    if (refused)
        throw Refused(result(refused));
    check("spawn", answer);
}

} // namespace detail

using Callback = detail::Callback;

// Where targets that have a name are: root/SUBSYSTEM/slice/name for each subsystem of cgroup v1, or root/slice/name without
// any.
struct CGroupOptions {
    std::string root = "/sys/fs/cgroup";
    std::string slice;
    std::vector<std::string> subsystems;
    bool kill_without_freezer = false;
};

// What to reap, and how. One may serve many spawns, of one thread at a time. cgroup_reaper.h has the defaults.
class Reaper {
public:
    // The cgroup directory `path`, v1 or v2. Throws std::invalid_argument for a path with a NUL in it.
    explicit Reaper(const std::string &path) {
        cgr_reaper *made;
        detail::check("cgr_reaper_new", cgr_reaper_new(detail::c_str(path), &made));
        reaper_.reset(made);
    }

    // The cgroup, or cgroups, of this name. Throws std::invalid_argument for names with a NUL in them.
    Reaper(const CGroupOptions &options, const std::string &name) {
        std::vector<const char *> subsystems;
        for (const std::string &subsystem : options.subsystems)
            subsystems.push_back(detail::c_str(subsystem));
        cgr_reaper *made;
        detail::check("cgr_reaper_new_named",
                      cgr_reaper_new_named(detail::c_str(options.root), detail::c_str(options.slice),
                                           subsystems.empty() ? nullptr : subsystems.data(), subsystems.size(),
                                           detail::c_str(name), &made));
        reaper_.reset(made);
        if (options.kill_without_freezer)
            kill_without_freezer();
    }

    // The cgroup directory that a descriptor is open on, which is duplicated.
    static Reaper at_fd(int fd) {
        cgr_reaper *made;
        detail::check("cgr_reaper_new_fd", cgr_reaper_new_fd(fd, &made));
        return Reaper(made);
    }

    template <typename D> Reaper &min_wait(D time) { return set(cgr_reaper_min_wait(get(), detail::micros(time))); }
    template <typename D> Reaper &max_wait(D time) { return set(cgr_reaper_max_wait(get(), detail::micros(time))); }
    template <typename D> Reaper &freeze_timeout(D time) {
        return set(cgr_reaper_freeze_timeout(get(), detail::micros(time)));
    }
    template <typename D> Reaper &linger(D time) { return set(cgr_reaper_linger(get(), detail::micros(time))); }
    template <typename D> Reaper &grace(int signal, D time) {
        return set(cgr_reaper_grace(get(), signal, detail::micros(time)));
    }
    template <typename D> Reaper &deadline(D time) { return set(cgr_reaper_deadline(get(), detail::micros(time))); }
    Reaper &method(cgr_method method) { return set(cgr_reaper_method(get(), method)); }
    Reaper &when_empty() { return set(cgr_reaper_when_empty(get())); }
    Reaper &release_memory() { return set(cgr_reaper_release_memory(get())); }
    Reaper &keep_dir() { return set(cgr_reaper_keep_dir(get())); }
    Reaper &kill_without_freezer() { return set(cgr_reaper_kill_without_freezer(get())); }

    cgr_reaper *get() const { return reaper_.get(); }

private:
    explicit Reaper(cgr_reaper *reaper) : reaper_(reaper) {}

    Reaper &set(int answer) {
        detail::check("cgr_reaper", answer);
        return *this;
    }

    detail::Owned<cgr_reaper> reaper_;
};

// Spawns reaps on a reactor from any thread. The callbacks run on the thread of the reactor.
class Remote {
public:
    // Throws Refused if the target is refused, or the reactor is gone.
    void spawn(const Reaper &reaper, Callback callback) const {
        cgr_remote *remote = remote_.get();
        detail::spawn(*callbacks_, reaper.get(), std::move(callback), [remote](cgr_reaper *reaper, cgr_result **refused) {
            return cgr_remote_spawn(remote, reaper, nullptr, refused);
        });
    }

    // The future is broken (std::future_error) if the reactor ends first.
    std::future<Result> spawn(const Reaper &reaper) const {
        auto promised = detail::promise();
        spawn(reaper, std::move(promised.first));
        return std::move(promised.second);
    }

private:
    friend class Reactor;
    Remote(detail::Owned<cgr_remote> remote, std::shared_ptr<detail::Callbacks> callbacks)
        : remote_(std::move(remote)), callbacks_(std::move(callbacks)) {}

    detail::Owned<cgr_remote> remote_;
    std::shared_ptr<detail::Callbacks> callbacks_;
};

// An event loop that reaps cgroups, as one descriptor. One thread at a time may use it. Callbacks that were not called when
// it ends are destroyed, also those of remotes.
class Reactor {
public:
    Reactor() : callbacks_(std::make_shared<detail::Callbacks>()), reactor_(nullptr, detail::End{callbacks_}) {
        cgr_reactor *made;
        detail::check("cgr_reactor_new", cgr_reactor_new(&made));
        reactor_.reset(made);
    }

    // To be watched for reading.
    int fd() const { return detail::check("cgr_reactor_fd", cgr_reactor_fd(get())); }

    // Has a thread of its own make the calls that take long in large targets. Default: false.
    void set_helper_thread(bool wanted) {
        detail::check("cgr_reactor_set_helper_thread", cgr_reactor_set_helper_thread(get(), wanted));
    }

    // How long a turn or a spawn works before it defers the rest. Default: 1 ms.
    template <typename D> void set_turn_budget(D time) {
        detail::check("cgr_reactor_set_turn_budget", cgr_reactor_set_turn_budget(get(), detail::micros(time)));
    }

    // Throws Refused if the target is refused.
    void spawn(const Reaper &reaper, Callback callback) {
        cgr_reactor *reactor = get();
        detail::spawn(*callbacks_, reaper.get(), std::move(callback), [reactor](cgr_reaper *reaper, cgr_result **refused) {
            return cgr_reactor_spawn(reactor, reaper, nullptr, refused);
        });
    }

    // The future is broken (std::future_error) if the reactor ends first. To wait for it on the thread of the reactor is a
    // deadlock.
    std::future<Result> spawn(const Reaper &reaper) {
        auto promised = detail::promise();
        spawn(reaper, std::move(promised.first));
        return std::move(promised.second);
    }

    // Does what there is to do, without waiting, and runs the callbacks of the reaps that have ended. What a callback throws
    // is thrown when all of them have run; if several throw, the first.
    void turn() {
        detail::check("cgr_reactor_turn", cgr_reactor_turn(get(), 0));
        report();
    }

    // Cancels all reaps, and works until none is left or the time is over. Returns how many are left. Runs the callbacks.
    template <typename D> int shutdown(D at_most) {
        int left = detail::check("cgr_reactor_shutdown", cgr_reactor_shutdown(get(), detail::micros(at_most)));
        report();
        return left;
    }

    Remote remote() const {
        cgr_remote *made;
        detail::check("cgr_remote_new", cgr_remote_new(get(), &made));
        return Remote(detail::Owned<cgr_remote>(made), callbacks_);
    }

    cgr_reactor *get() const { return reactor_.get(); }

private:
    // Takes all results first: a reap that a callback spawns is reported by the next turn. A callback may destroy this object,
    // so nothing of it is used after the first callback.
    void report() {
        std::vector<detail::Owned<cgr_result>> ended;
        cgr_result *results[16];
        int count;
        do {
            // Before the results are taken: an exception after that would leak them.
            ended.reserve(ended.size() + 16);
            count = cgr_reactor_drain(get(), results, 16);
            for (int i = 0; i < count; i++)
                ended.emplace_back(results[i]);
        } while (count > 0);

        std::shared_ptr<detail::Callbacks> callbacks = callbacks_;
        std::exception_ptr thrown;
        for (const detail::Owned<cgr_result> &result : ended) {
            try {
                if (Callback callback = callbacks->take(cgr_result_tag(result.get())))
                    callback(detail::result(result.get()));
            } catch (...) {
                if (!thrown)
                    thrown = std::current_exception();
            }
        }
        if (thrown)
            std::rethrow_exception(thrown);
        detail::check("cgr_reactor_drain", count);
    }

    std::shared_ptr<detail::Callbacks> callbacks_;
    std::unique_ptr<cgr_reactor, detail::End> reactor_;
};

// Reaps the cgroups of a name. The shape of the function that this library goes back to, with the reactor for its event base
// and std::future for its future. A refused target is the future's exception.
inline std::future<Result> asyncCGroupReaper(Reactor &reactor, const CGroupOptions &options, const std::string &name,
                                             std::uint32_t min_wait_ms, std::uint32_t max_wait_ms) {
    try {
        Reaper reaper(options, name);
        reaper.min_wait(std::chrono::milliseconds(min_wait_ms)).max_wait(std::chrono::milliseconds(max_wait_ms));
        return reactor.spawn(reaper);
    } catch (const Refused &) {
        std::promise<Result> refused;
        refused.set_exception(std::current_exception());
        return refused.get_future();
    }
}

// Reaps one target, and blocks until that has ended.
inline Result reap(const Reaper &reaper) {
    cgr_result *made = nullptr;
    int answer = cgr_reap(reaper.get(), &made);
    detail::Owned<cgr_result> owned(made);
    if (!made)
        detail::check("cgr_reap", answer);
    return detail::result(made);
}

} // namespace cgroup_reaper

#endif
