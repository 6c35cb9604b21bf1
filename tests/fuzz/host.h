/* SPDX-License-Identifier: MIT
 * host.h - a host for fuzzing a plugin alone, and input bytes as a file. */
#ifndef BURIN_FUZZ_HOST_H
#define BURIN_FUZZ_HOST_H

#include "burin_plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
const struct burin_plugin *burin_plugin_main(const struct burin_host *host);

/* A plugin must never ask for much more than its input can back. Pictures are larger than their
 * files; a loader's target sets four times its file's bytes, and a little for what is fixed. */
static size_t alloc_max = (size_t)256 << 20;

static inline void *host_alloc(size_t bytes)
{
    if (bytes > alloc_max) abort();
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) abort();
    return p;
}

static inline void host_free(void *p) { free(p); }
static inline void host_log(int level, const char *fmt, ...) { (void)level, (void)fmt; }
static inline int host_fail(const char *fmt, ...)
{
    char text[4096]; /* formatted, so that a bad argument is noticed */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return -1;
}

static inline int host_picture(const uint8_t *head, size_t n, const char **what)
{
    *what = NULL;
    return n > 3 && head[0] == 0x89;
}

static const struct burin_host fuzz_host = {
    .size = sizeof fuzz_host,
    .abi = BURIN_ABI,
    .alloc = host_alloc,
    .free = host_free,
    .log = host_log,
    .fail = host_fail,
    .picture = host_picture,
};

/* A file in memory that holds the input; its path, or "" when there is none. Close *fd afterwards.
 */
static inline const char *as_file(const uint8_t *data, size_t n, int *fd)
{
    static char path[64];
    *fd = memfd_create("fuzz", MFD_CLOEXEC);
    path[0] = 0;
    if (*fd >= 0 && write(*fd, data, n) == (ssize_t)n)
        snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    return path;
}

#endif
