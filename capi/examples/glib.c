// A reactor in a GLib main loop: glib DIR...

#include <glib-unix.h>

#include "reaps.h"

struct app {
    struct reaps reaps;
    GMainLoop *loop;
};

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data) {
    struct app *app = data;
    (void)fd, (void)condition;
    if (reaps_turn(&app->reaps) > 0)
        return G_SOURCE_CONTINUE;
    g_main_loop_quit(app->loop);
    return G_SOURCE_REMOVE;
}

int main(int argc, char **argv) {
    struct app app;
    reaps_begin(&app.reaps, argc - 1, argv + 1);

    app.loop = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(cgr_reactor_fd(app.reaps.reactor), G_IO_IN, on_readable, &app);
    g_main_loop_run(app.loop);
    g_main_loop_unref(app.loop);
    return reaps_end(&app.reaps);
}
