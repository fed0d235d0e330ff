// A reactor in a libuv loop: libuv DIR...

#include <uv.h>

#include "reaps.h"

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)events;
    if (status < 0)
        die("uv_poll", -status);
    if (reaps_turn(poll->data) == 0)
        uv_close((uv_handle_t *)poll, NULL);
}

int main(int argc, char **argv) {
    struct reaps reaps;
    reaps_begin(&reaps, argc - 1, argv + 1);

    uv_loop_t *loop = uv_default_loop();
    uv_poll_t poll = {.data = &reaps};
    check("uv_poll_init", uv_poll_init(loop, &poll, cgr_reactor_fd(reaps.reactor)));
    check("uv_poll_start", uv_poll_start(&poll, UV_READABLE, on_readable));
    // Until the poll is closed.
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    return reaps_end(&reaps);
}
