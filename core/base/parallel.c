/* SPDX-License-Identifier: MIT
 * parallel.c - one loop on all cores. */
#include "base/base.h"

#include <pthread.h>
#include <unistd.h>

#define THREADS 16 /* at most */

struct part {
    void (*run)(void *user, int64_t begin, int64_t end);
    void *user;
    int64_t begin, end;
};

static void *part_run(void *arg)
{
    const struct part *p = arg;
    p->run(p->user, p->begin, p->end);
    return NULL;
}

void parallel(int64_t n, int64_t least, void (*run)(void *user, int64_t begin, int64_t end),
              void *user)
{
    struct part part[THREADS];
    pthread_t thread[THREADS];
    bool started[THREADS] = { false };
    int64_t parts = n / (least > 0 ? least : 1), cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (parts > cores) parts = cores;
    if (parts > THREADS) parts = THREADS;
    if (parts < 1) parts = 1;
    for (int64_t t = parts - 1; t >= 0; t--) { /* the first part is ours */
        part[t] = (struct part){ run, user, n * t / parts, n * (t + 1) / parts };
        started[t] = t && !pthread_create(&thread[t], NULL, part_run, &part[t]);
        if (!started[t]) part_run(&part[t]);
    }
    for (int64_t t = 1; t < parts; t++)
        if (started[t]) pthread_join(thread[t], NULL);
}
