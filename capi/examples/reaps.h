// What the examples have in common: everything but the event loop.
//
// Each program reaps the cgroups that its arguments name: the first half of them from the thread of its loop, the second half
// from another thread. The tags are the indices of the arguments.

#ifndef REAPS_H
#define REAPS_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup_reaper.h"

struct reaps {
    cgr_reactor *reactor;
    cgr_remote *remote;
    pthread_t thread;
    char **dirs;
    int count;
    // Reaps that have not been reported yet.
    int left;
    int failed;
    int turns;
};

static void die(const char *what, int error) {
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(1);
}

// On success these return 0 or more, else minus an errno.
static int check(const char *what, int answer) {
    if (answer < 0)
        die(what, -answer);
    return answer;
}

// Reaps one of the directories: on the reactor, or by a remote.
static void reaps_spawn(struct reaps *reaps, int index, cgr_remote *remote) {
    cgr_reaper *reaper;
    cgr_result *error;
    check("cgr_reaper_new", cgr_reaper_new(reaps->dirs[index], &reaper));
    cgr_reaper_tag(reaper, index);
    cgr_reaper_deadline(reaper, 30 * 1000000);
    // No handle: the tag is enough.
    int answer = remote ? cgr_remote_spawn(remote, reaper, NULL, &error)
                        : cgr_reactor_spawn(reaps->reactor, reaper, NULL, &error);
    if (answer < 0) {
        fprintf(stderr, "%s\n", error ? cgr_result_message(error) : strerror(-answer));
        exit(1);
    }
    cgr_reaper_free(reaper);
}

static void *reaps_from_another_thread(void *argument) {
    struct reaps *reaps = argument;
    for (int index = reaps->count / 2; index < reaps->count; index++)
        reaps_spawn(reaps, index, reaps->remote);
    return NULL;
}

// Makes the reactor. Its descriptor is to be watched for reading.
static void reaps_begin(struct reaps *reaps, int count, char **dirs) {
    if (count < 1) {
        fprintf(stderr, "which cgroups?\n");
        exit(2);
    }
    *reaps = (struct reaps){.dirs = dirs, .count = count, .left = count};
    check("cgr_reactor_new", cgr_reactor_new(&reaps->reactor));
    check("cgr_remote_new", cgr_remote_new(reaps->reactor, &reaps->remote));
    for (int index = 0; index < count / 2; index++)
        reaps_spawn(reaps, index, NULL);
    int error = pthread_create(&reaps->thread, NULL, reaps_from_another_thread, reaps);
    if (error)
        die("pthread_create", error);
}

// To be called when the descriptor is readable. Returns how many reaps have not been reported yet.
static int reaps_turn(struct reaps *reaps) {
    cgr_result *results[16];
    int count;
    check("cgr_reactor_turn", cgr_reactor_turn(reaps->reactor, 0));
    reaps->turns++;
    while ((count = check("cgr_reactor_drain", cgr_reactor_drain(reaps->reactor, results, 16))) > 0) {
        for (int i = 0; i < count; i++) {
            printf("%d: %s\n", (int)cgr_result_tag(results[i]), cgr_result_message(results[i]));
            reaps->failed += cgr_result_kind(results[i]) != CGR_OK;
            reaps->left--;
            cgr_result_free(results[i]);
        }
    }
    return reaps->left;
}

// Returns the exit status of the program.
static int reaps_end(struct reaps *reaps) {
    pthread_join(reaps->thread, NULL);
    cgr_remote_free(reaps->remote);
    cgr_reactor_free(reaps->reactor);
    printf("turns: %d\n", reaps->turns);
    return reaps->failed > 0;
}

#endif
