// A reactor in a loop of sd-event: sd_event DIR...

#include <sys/epoll.h>
#include <systemd/sd-event.h>

#include "reaps.h"

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *data) {
    (void)fd, (void)revents;
    if (reaps_turn(data) > 0)
        return 0;
    return sd_event_exit(sd_event_source_get_event(source), 0);
}

int main(int argc, char **argv) {
    struct reaps reaps;
    reaps_begin(&reaps, argc - 1, argv + 1);

    sd_event *event = NULL;
    sd_event_source *source = NULL;
    check("sd_event_new", sd_event_new(&event));
    check("sd_event_add_io",
          sd_event_add_io(event, &source, cgr_reactor_fd(reaps.reactor), EPOLLIN, on_readable, &reaps));
    check("sd_event_loop", sd_event_loop(event));
    sd_event_source_unref(source);
    sd_event_unref(event);
    return reaps_end(&reaps);
}
