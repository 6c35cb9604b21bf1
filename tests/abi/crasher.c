/* SPDX-License-Identifier: MIT
 * crasher.c - a plugin that ends the process, where and how $CRASHER says: "<place> <how>", as
 * "probe wild"; tests/cli/plugins_test.lua. Its pictures are "BOOM <place> <how>" and a line, and
 * are 16 x 16 of one color where nothing happens; tests/cli/decoder_test.lua. */
#include "burin_plugin.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile uintptr_t nowhere = 64; /* NULL would be caught by UBSan */

static int deeper(volatile char *above)
{
    volatile char room[4096];
    room[0] = above ? above[0] : 0;
    return room[0] ? 1 : deeper(room) + room[0];
}

static const struct burin_host *host;

static void happen(const char *how)
{
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

static void here(const char *place)
{
    const char *asked = getenv("CRASHER");
    size_t n = strlen(place);
    if (asked && strncmp(asked, place, n) == 0 && asked[n] == ' ') happen(asked + n + 1);
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

/* ---- pictures -------------------------------------------------------------------------------- */

#define SIDE 16

static void *count_to_ten(void *sum)
{
    for (int i = 0; i <= 10; i++) *(int *)sum += i;
    return NULL;
}

static bool damaged; /* by a picture: the next one crashes */

/* What a decoder may do, and what none needs. -1: it said why not. */
static int venture(const char *what)
{
    pthread_t thread;
    int sum = 0;
    if (strcmp(what, "thread") == 0)
        return pthread_create(&thread, NULL, count_to_ten, &sum) || pthread_join(thread, NULL) ||
                       sum != 55
                   ? host->fail("it has no threads")
                   : 0;
    if (strcmp(what, "file") == 0) {
        int fd = open("/etc/passwd", O_RDONLY);
        return fd < 0 ? host->fail("no file can be opened") : 0;
    }
    if (strcmp(what, "run") == 0)
        return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                       MAP_FAILED
                   ? host->fail("nothing can be run")
                   : 0;
    if (strcmp(what, "kill") == 0) kill(getppid(), SIGTERM);
    if (strcmp(what, "fork") == 0 && fork() == 0) _exit(0);
    if (strcmp(what, "quit") == 0) _exit(0);
    if (strcmp(what, "damage") == 0) damaged = true;
    if (strcmp(what, "log") == 0) host->log(2, "a picture says \033[31mred");
    if (strcmp(what, "stand") == 0) sleep(600); /* by hand: it takes a minute until it is ended */
    if (strcmp(what, "spin") == 0)
        for (;;) nowhere = nowhere * 3 + 1;
    if (strcmp(what, "host memory") == 0) host->free(host->alloc((size_t)3 << 30));
    if (strcmp(what, "memory") == 0) {
        void *p = malloc((size_t)3 << 30);
        if (!p) return host->fail("there is no memory");
        memset(p, 1, (size_t)3 << 30);
    }
    return 0;
}

/* The place and what happens there: "decode wild". */
static int at_picture(const char *place, const uint8_t *bytes, size_t n)
{
    char text[64] = { 0 };
    size_t k = strlen(place);
    memcpy(text, bytes + 4, n - 4 < sizeof text - 1 ? n - 4 : sizeof text - 1);
    text[strcspn(text, "\n")] = 0;
    if (strncmp(text + 1, place, k) != 0 || text[k + 1] != ' ') return 0;
    happen(text + k + 2);
    return venture(text + k + 2);
}

static int probe_picture(const uint8_t *head, size_t n)
{
    if (n < 6 || memcmp(head, "BOOM ", 5) != 0) return 0;
    at_picture("look", head, n);
    return 100;
}

static int size_of(const uint8_t *bytes, size_t n, int *width, int *height)
{
    *width = *height = SIDE;
    return at_picture("size", bytes, n);
}

static int decode(const uint8_t *bytes, size_t n, uint64_t max, struct burin_pixels *out)
{
    (void)max;
    if (damaged) happen("wild");
    if (at_picture("decode", bytes, n)) return -1;
    out->width = out->height = SIDE;
    out->channels = 3;
    out->data = host->alloc(SIDE * SIDE * 3);
    memset(out->data, bytes[n - 1], SIDE * SIDE * 3);
    return 0;
}

static const struct burin_codec codec = { .size = sizeof codec,
                                          .name = "boom",
                                          .probe = probe_picture,
                                          .size_of = size_of,
                                          .decode = decode };
static const struct burin_codec *const codecs[] = { &codec, NULL };

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
    .codecs = codecs,
};

__attribute__((visibility("default"))) const struct burin_plugin *burin_plugin_main(
    const struct burin_host *h)
{
    host = h;
    here("main");
    return &plugin;
}
