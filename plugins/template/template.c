/* SPDX-License-Identifier: MIT
 * template.c - the smallest complete plugin; copy it to begin your own. It reads a toy format, a text
 * file that holds one vector:  VECTOR <count> <number> <number> ...  docs/plugins.md explains each rule. */
#include "burin_plugin.h"  /* the only header of ours that a plugin may include */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MAX 1000000  /* files are untrusted: every size has a limit */

static const struct burin_host *host;  /* memory, log and errors; lent until the process ends */

struct reader { float *value; int64_t count; };  /* what one open file needs; ours alone */

/* 0 = not mine .. 100 = certainly mine. Look at the content, never at the file's name. */
static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    return n > 7 && memcmp(head, "VECTOR ", 7) == 0 ? 90 : 0;
}

/* Must accept NULL, and must free whatever open has made so far. */
static void reader_close(void *self)
{
    struct reader *r = self;
    if (r)
        host->free(r->value);  /* host->free accepts NULL too */
    host->free(r);
}

/* Reads and checks everything here, so that later calls cannot meet a damaged file. */
static int reader_open(const char *path, void **self)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return host->fail("cannot open %s", path);  /* a whole sentence that names the file; it is -1 */
    struct reader *r = host->alloc(sizeof *r);      /* zeroed, never NULL */
    int good = 0;
    long long count = 0;
    if (fscanf(f, "VECTOR %lld", &count) == 1 && count >= 0 && count <= COUNT_MAX) {
        r->count = count;                           /* only after it was checked */
        r->value = host->alloc(((size_t)count + 1) * sizeof *r->value);
        while (good < count && fscanf(f, "%f", &r->value[good]) == 1) good++;
    }
    fclose(f);
    if (!r->value || good != r->count) {            /* fewer numbers than the file promised */
        reader_close(r);
        return host->fail("%s: expected VECTOR, a count up to %d and that many numbers", path, COUNT_MAX);
    }
    *self = r;                                      /* handed back with every later call */
    return 0;
}

static int64_t count(void *self) { (void)self; return 1; }  /* this format holds one tensor */

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    const struct reader *r = self;
    if (i != 0)
        return host->fail("there is only tensor 0, not %lld", (long long)i);
    *out = (struct burin_tensor_info){ .name = "vector", .dtype = BURIN_T_F32, .rank = 1,
                                       .dim = { r->count }, .bytes = (uint64_t)r->count * sizeof(float) };
    return 0;  /* mapped stays NULL: the bytes are fetched with read */
}

static int read_values(void *self, int64_t i, void *dst, uint64_t bytes)
{
    const struct reader *r = self;
    if (i != 0 || bytes != (uint64_t)r->count * sizeof(float))  /* never write past what dst holds */
        return host->fail("tensor 0 has %lld numbers", (long long)r->count);
    memcpy(dst, r->value, bytes);
    return 0;
}

static const struct burin_loader loader = {
    .size = sizeof loader,  /* tells a newer host which fields this plugin knows */
    .name = "vector", .help = "one vector in a text file (an example)",
    .probe = probe, .open = reader_open, .count = count, .info = info, .read = read_values,
    .close = reader_close,  /* .meta is optional and not set */
};
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin, .abi = BURIN_ABI, .name = "template", .version = "1.0", .licence = "MIT",
    .help = "an example to copy", .loaders = loaders,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *lent);

/* The one symbol that the host looks for. It may refuse: return NULL after host->fail(...). */
const struct burin_plugin *burin_plugin_main(const struct burin_host *lent) { host = lent; return &plugin; }
