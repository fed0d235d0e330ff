// What cgroup_reaper.hpp promises beyond the ABI. Arguments: the path of a cgroup with a process in it, and of
// three empty ones.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <poll.h>

#include "cgroup_reaper.hpp"

using namespace cgroup_reaper;

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                               \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

static void turn(Reactor &reactor) {
    pollfd watched{reactor.fd(), POLLIN, 0};
    EXPECT(poll(&watched, 1, 30000) == 1);
    reactor.turn();
}

static void refusals() {
    Reactor reactor;
    bool refused = false;
    try {
        reactor.spawn(Reaper("/tmp"), [](const Result &) { EXPECT(false); });
    } catch (const Refused &error) {
        refused = true;
        EXPECT(error.result().kind == CGR_REFUSED && error.result().path == "/tmp");
        EXPECT(std::string(error.what()) == "/tmp: refused: not a cgroup");
    }
    EXPECT(refused);
    CGroupOptions options;
    options.root = "/tmp";
    std::future<Result> future = asyncCGroupReaper(reactor, options, "nothing", 10, 10000);
    try {
        future.get();
        EXPECT(false);
    } catch (const Refused &error) {
        EXPECT(error.result().kind == CGR_REFUSED);
    }
    EXPECT(reap(Reaper("/tmp")).kind == CGR_REFUSED);
    try {
        Reaper("/tmp").grace(0, std::chrono::seconds(1));
        EXPECT(false);
    } catch (const std::system_error &error) {
        EXPECT(error.code() == std::errc::invalid_argument);
    }
    // A text of C would end at the NUL: what is above would be reaped.
    const std::string cut("/tmp\0/x", 7);
    int invalid = 0;
    CGroupOptions cut_root, cut_slice, cut_subsystem;
    cut_root.root = cut_slice.slice = cut;
    cut_subsystem.subsystems = {cut};
    try {
        Reaper reaper(cut);
    } catch (const std::invalid_argument &) {
        invalid++;
    }
    const std::pair<CGroupOptions, std::string> named[] = {
        {cut_root, "a"}, {cut_slice, "a"}, {cut_subsystem, "a"}, {options, cut}};
    for (const auto &of : named) {
        try {
            Reaper reaper(of.first, of.second);
        } catch (const std::invalid_argument &) {
            invalid++;
        }
    }
    EXPECT(invalid == 5);
    // None of them is left behind to be reported.
    reactor.turn();
}

// A callback may spawn, which the next turn reports, and one that throws does not keep the others from being called.
static void callbacks(const std::string &one, const std::string &two, const std::string &three) {
    Reactor reactor;
    // On a busy machine as well, a reap of an empty cgroup ends inside of its spawn.
    reactor.set_turn_budget(std::chrono::hours::max());
    int called = 0;
    int turns = 0;
    reactor.spawn(Reaper(one), [&](const Result &result) {
        EXPECT(result.ok() && result.outcome == CGR_REMOVED && result.path == one);
        called++;
        int spawned_in = turns;
        reactor.spawn(Reaper(three), [&, spawned_in](const Result &) {
            EXPECT(turns == spawned_in + 1);
            called++;
        });
        throw std::runtime_error("thrown");
    });
    reactor.spawn(Reaper(two), [&](const Result &) { called++; });
    int thrown = 0;
    while (called < 3) {
        try {
            turns++;
            turn(reactor);
        } catch (const std::runtime_error &error) {
            EXPECT(std::string(error.what()) == "thrown");
            thrown++;
        }
    }
    EXPECT(thrown == 1);
}

// A callback may destroy its reactor. The callbacks that have not run are destroyed with it.
static void destroyed_by_a_callback(const std::string &one, const std::string &two) {
    std::unique_ptr<Reactor> reactor(new Reactor);
    reactor->set_turn_budget(std::chrono::hours::max());
    int called = 0;
    std::shared_ptr<int> held(new int);
    for (const std::string &path : {one, two})
        reactor->spawn(Reaper(path), [&, held](const Result &) {
            called++;
            reactor.reset();
        });
    turn(*reactor);
    EXPECT(called == 1 && held.use_count() == 1);
}

static void breaks(std::future<Result> future) {
    EXPECT(future.wait_for(std::chrono::seconds(30)) == std::future_status::ready);
    try {
        future.get();
        EXPECT(false);
    } catch (const std::future_error &error) {
        EXPECT(error.code() == std::future_errc::broken_promise);
    }
}

// The end of a reactor breaks the futures of reaps that are left, also while a remote lives.
static void broken(const Reaper &waiting) {
    {
        std::future<Result> future;
        {
            Reactor reactor;
            future = reactor.remote().spawn(waiting);
            turn(reactor);
        }
        breaks(std::move(future));
    }
    std::unique_ptr<Reactor> reactor(new Reactor);
    Remote remote = reactor->remote();
    std::future<Result> started = remote.spawn(waiting);
    turn(*reactor);
    std::future<Result> queued = remote.spawn(waiting);
    std::future<Result> own = reactor->spawn(waiting);
    reactor.reset();
    breaks(std::move(started));
    breaks(std::move(queued));
    breaks(std::move(own));

    // A reactor that moves does not end, one that is assigned to does.
    Reactor moved;
    remote = moved.remote();
    started = remote.spawn(waiting);
    Reactor other(std::move(moved));
    turn(other);
    EXPECT(started.wait_for(std::chrono::seconds(0)) == std::future_status::timeout);
    other = Reactor();
    breaks(std::move(started));
    started = other.remote().spawn(waiting);
    EXPECT(other.shutdown(std::chrono::seconds(30)) == 0);
    EXPECT(started.get().kind == CGR_CANCELLED);
}

// A thread spawns while the reactor ends: each spawn is refused, or its future is broken.
static void races(const std::string &busy) {
    for (int round = 0; round < 10; round++) {
        std::unique_ptr<Reactor> reactor(new Reactor);
        Remote remote = reactor->remote();
        std::vector<std::future<Result>> futures;
        std::promise<void> spawned;
        std::thread thread([&] {
            Reaper waiting(busy);
            waiting.when_empty();
            try {
                futures.push_back(remote.spawn(waiting));
                spawned.set_value();
                // Each holds descriptors.
                while (futures.size() < 100)
                    futures.push_back(remote.spawn(waiting));
            } catch (const Refused &error) {
                EXPECT(error.result().kind == CGR_DISCONNECTED);
            }
        });
        spawned.get_future().wait();
        reactor.reset();
        thread.join();
        for (std::future<Result> &future : futures)
            breaks(std::move(future));
    }
}

// Reaps that do not end by themselves: named at the deadline, cancelled at the end, broken without a reactor.
static void ends(const std::string &busy) {
    Reaper waiting(busy);
    waiting.when_empty();
    broken(waiting);
    races(busy);
    Result cancelled{};
    {
        Reactor reactor;
        Remote remote = reactor.remote();
        reactor.spawn(waiting, [&](const Result &result) { cancelled = result; });
        EXPECT(reactor.shutdown(std::chrono::seconds(10)) == 0);
        EXPECT(cancelled.kind == CGR_CANCELLED);
    }
    Result late = reap(waiting.deadline(std::chrono::milliseconds(1)));
    EXPECT(late.kind == CGR_TIMED_OUT && late.survivors.size() == 1 && late.survivors[0].pid > 1);
    EXPECT(late.effort.attempts == 0 && late.effort.elapsed_us >= 1000);
    Reaper kill(busy);
    Result killed = reap(kill.deadline(std::chrono::hours::max()));
    EXPECT(killed.ok() && killed.effort.attempts >= 1);
}

int main(int argc, char **argv) {
    EXPECT(argc == 5);
    refusals();
    callbacks(argv[2], argv[3], argv[4]);
    destroyed_by_a_callback(argv[2], argv[3]);
    ends(argv[1]);
}
