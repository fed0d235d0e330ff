// A reactor in a loop of C++: cpp DIR...
//
// Reaps the cgroups that the arguments name: the first half with callbacks, from the thread of the loop, the second half with
// futures, from another thread.

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <future>
#include <system_error>
#include <vector>

#include <poll.h>
#include <unistd.h>

#include "cgroup_reaper.hpp"

using namespace cgroup_reaper;

namespace {

std::atomic<int> failed(0);

void report(int index, const Result &result) {
    std::printf("%d: %s\n", index, result.message.c_str());
    failed += !result.ok();
}

Reaper reaper(const char *dir) {
    Reaper reaper{std::string(dir)};
    reaper.deadline(std::chrono::seconds(30));
    return reaper;
}

// Closes its end of the pipe when its reaps have ended.
void reap_in_a_thread(const Remote &remote, char **dirs, int from, int count, int end) {
    try {
        std::vector<std::future<Result>> results;
        for (int i = from; i < count; i++)
            results.push_back(remote.spawn(reaper(dirs[i])));
        for (int i = from; i < count; i++)
            report(i, results[static_cast<std::size_t>(i - from)].get());
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        failed++;
    }
    close(end);
}

int run(int count, char **dirs) {
    int left = count / 2;
    int turns = 0;
    int ends[2];
    if (pipe(ends) < 0)
        throw std::system_error(errno, std::generic_category(), "pipe");
    // Its destructor waits for the thread. It runs after the destructor of the reactor, which breaks the futures that the thread
    // waits for.
    std::future<void> thread;
    Reactor reactor;
    for (int i = 0; i < count / 2; i++) {
        reactor.spawn(reaper(dirs[i]), [i, &left](const Result &result) {
            report(i, result);
            left--;
        });
    }
    thread = std::async(std::launch::async, reap_in_a_thread, reactor.remote(), dirs, count / 2, count, ends[1]);

    pollfd watched[] = {{reactor.fd(), POLLIN, 0}, {ends[0], POLLIN, 0}};
    while (left > 0 || watched[1].fd >= 0) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR)
            throw std::system_error(errno, std::generic_category(), "poll");
        turns++;
        if (watched[0].revents)
            reactor.turn();
        // A pipe whose other end is closed stays ready. poll(2) ignores a negative descriptor.
        if (watched[1].revents)
            watched[1].fd = -1;
    }
    close(ends[0]);
    std::printf("turns: %d\n", turns);
    return failed > 0;
}

} // namespace

int main(int argc, char **argv) {
    try {
        return run(argc - 1, argv + 1);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
