/* SPDX-License-Identifier: MIT
 * template.c - the smallest complete plugin, to copy; see docs/plugins.md for the rules. It reads a
 * toy format: a text file that holds one vector, VECTOR <count> <number>... */
#include "burin_plugin.h" /* the only header of ours that a plugin may include */
#include <stdio.h>
#include <string.h>

#define COUNT_MAX 1000000 /* files are untrusted: every size has a limit */

static const struct burin_host *host; /* memory, log, errors; lent until the process ends */

/* What one open file needs; ours alone */
struct reader {
    float *value;
    int64_t count;
};

/* 0 = not mine .. 100 = certainly mine. Look at the content, never at the file's name. */
static int probe(const char *path, const uint8_t *head, size_t n)
{
    return path && n > 7 && memcmp(head, "VECTOR ", 7) == 0 ? 90 : 0;
}

static void reader_close(void *self) /* must accept NULL */
{
    struct reader *r = self;
    if (r) host->free(r->value); /* host->free accepts NULL too */
    host->free(r);
}

/* Reads and checks everything, so that later calls cannot meet a damaged file. */
static int reader_open(const char *path, void **self)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return host->fail("cannot open %s", path); /* a sentence that names the file; returns -1 */
    struct reader *r = host->alloc(sizeof *r);     /* zeroed, never NULL */
    long long promised = 0, got = 0;
    if (fscanf(f, "VECTOR %lld", &promised) == 1 && promised >= 0 && promised <= COUNT_MAX) {
        r->value = host->alloc(((size_t)promised + 1) * sizeof *r->value); /* after the check */
        while (got < promised && fscanf(f, "%f", &r->value[got]) == 1) got++;
    }
    r->count = got;
    fclose(f);
    if (!r->value || got != promised) { /* fewer numbers than the file promised */
        reader_close(r);
        return host->fail("%s: expected VECTOR, a count up to %d, numbers", path, COUNT_MAX);
    }
    *self = r; /* handed back with every later call */
    return 0;
}

static int64_t count(void *self) { return self ? 1 : 0; } /* this format holds one tensor */

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    const struct reader *r = self;
    if (i) return host->fail("there is only tensor 0");
    *out = (struct burin_tensor_info){ .name = "vector",
                                       .dtype = BURIN_T_F32,
                                       .rank = 1,
                                       .dim = { r->count },
                                       .bytes = (uint64_t)r->count * 4 };
    return 0; /* mapped stays NULL: the bytes are fetched with read */
}

static int read_values(void *self, int64_t i, void *dst, uint64_t bytes)
{
    const struct reader *r = self;
    if (i || bytes != (uint64_t)r->count * 4) /* never write past what dst holds */
        return host->fail("tensor 0 has %lld numbers", (long long)r->count);
    memcpy(dst, r->value, bytes);
    return 0;
}

static const struct burin_loader loader = {
    /* .size says which fields this plugin knows */
    .size = sizeof loader,
    .name = "vector",
    .help = "one vector in a text file (an example)",
    .probe = probe,
    .open = reader_open,
    .count = count,
    .info = info,
    .read = read_values,
    .close = reader_close, /* .meta is optional and not set */
};
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "template",
    .version = "1.0",
    .licence = "MIT",
    .help = "an example to copy",
    .loaders = loaders,
};

/* The one symbol that the host looks for. It may refuse: return NULL after host->fail(...). */
BURIN_EXPORT burin_plugin_main_fn burin_plugin_main;
const struct burin_plugin *burin_plugin_main(const struct burin_host *lent)
{
    host = lent;
    return &plugin;
}
