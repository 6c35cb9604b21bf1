/* SPDX-License-Identifier: MIT
 * crasher.c - a plugin that ends the process, where and how $CRASHER says: "<place> <how>", as
 * "probe wild". tests/cli/plugins_test.lua */
#include "burin_plugin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile uintptr_t nowhere = 64; /* NULL would be caught by UBSan */

static int deeper(volatile char *above)
{
    volatile char room[4096];
    room[0] = above ? above[0] : 0;
    return room[0] ? 1 : deeper(room) + room[0];
}

static void here(const char *place)
{
    const char *asked = getenv("CRASHER");
    size_t n = strlen(place);
    if (!asked || strncmp(asked, place, n) != 0 || asked[n] != ' ') return;
    const char *how = asked + n + 1;
    if (strcmp(how, "wild") == 0) *(volatile int *)nowhere = 1;
    if (strcmp(how, "abort") == 0) abort();
    if (strcmp(how, "divide") == 0) raise(SIGFPE);
    if (strcmp(how, "stack") == 0) deeper(NULL);
    if (strcmp(how, "exit") == 0) exit(0);
    if (strcmp(how, "wait") == 0) {
        fputs("crasher waits\n", stderr);
        sleep(60);
    }
}

__attribute__((constructor)) static void constructor(void) { here("constructor"); }

static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    here("probe");
    return n >= 5 && memcmp(head, "CRASH", 5) == 0 ? 100 : 0;
}

static int open_file(const char *path, void **self)
{
    (void)path;
    *self = NULL;
    here("open");
    return 0;
}

static int64_t count(void *self)
{
    (void)self;
    here("count");
    return 0;
}

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    (void)self, (void)i, (void)out;
    return -1;
}

static int read_tensor(void *self, int64_t i, void *dst, uint64_t bytes)
{
    (void)self, (void)i, (void)dst, (void)bytes;
    return -1;
}

static void close_file(void *self)
{
    (void)self;
    here("close");
}

static const struct burin_loader loader = {
    .size = sizeof loader,
    .name = "crash",
    .probe = probe,
    .open = open_file,
    .count = count,
    .info = info,
    .read = read_tensor,
    .close = close_file,
};
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "crasher",
    .loaders = loaders,
};

__attribute__((visibility("default"))) const struct burin_plugin *burin_plugin_main(
    const struct burin_host *h)
{
    (void)h;
    here("main");
    return &plugin;
}
