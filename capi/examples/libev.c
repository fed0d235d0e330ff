// A reactor in a libev loop: libev DIR...

#include <ev.h>

#include "reaps.h"

static void on_readable(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    if (reaps_turn(watcher->data) == 0)
        ev_io_stop(loop, watcher);
}

int main(int argc, char **argv) {
    struct reaps reaps;
    reaps_begin(&reaps, argc - 1, argv + 1);

    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    if (!loop)
        die("ev_loop_new", errno);
    ev_io watcher;
    ev_io_init(&watcher, on_readable, cgr_reactor_fd(reaps.reactor), EV_READ);
    watcher.data = &reaps;
    ev_io_start(loop, &watcher);
    // Until no watcher is left.
    ev_run(loop, 0);
    ev_loop_destroy(loop);
    return reaps_end(&reaps);
}
