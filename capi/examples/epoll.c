// A reactor in an epoll loop: epoll DIR...

#include <sys/epoll.h>
#include <unistd.h>

#include "reaps.h"

int main(int argc, char **argv) {
    struct reaps reaps;
    reaps_begin(&reaps, argc - 1, argv + 1);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    // Level-triggered here; with EPOLLET it works just as well.
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, cgr_reactor_fd(reaps.reactor), &event) < 0)
        die("epoll", errno);
    while (reaps.left > 0) {
        // No timeout: the reactor's timers make its descriptor readable too.
        int count = epoll_wait(epoll, &event, 1, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait", errno);
        if (count > 0)
            reaps_turn(&reaps);
    }
    close(epoll);
    return reaps_end(&reaps);
}
