/* SPDX-License-Identifier: MIT
 * plugin_v1.c - a plugin compiled against the first released header, forever. If this test breaks,
 * the change breaks every plugin in the world: grow structs at their end instead. Never edit this
 * file or burin_plugin_v1.h; a new ABI gets files of its own. */
#include "burin_plugin_v1.h"

#include <string.h>

static const struct burin_host *host;
static const float value[3] = { 1, 2, 3 };

static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    return n >= 8 && memcmp(head, "ABI-ONE!", 8) == 0 ? 100 : 0;
}

static int v1_open(const char *path, void **self)
{
    (void)path;
    *self = host->alloc(1);
    return 0;
}

static int64_t count(void *self)
{
    (void)self;
    return 1;
}

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    (void)self;
    if (i != 0) return host->fail("v1 has no tensor %d", (int)i);
    memset(out, 0, sizeof *out);
    strcpy(out->name, "one");
    out->dtype = BURIN_T_F32;
    out->rank = 1;
    out->dim[0] = 3;
    out->bytes = sizeof value;
    return 0;
}

static int v1_read(void *self, int64_t i, void *dst, uint64_t bytes)
{
    (void)self;
    if (i != 0 || bytes != sizeof value) return host->fail("v1 has only 12 bytes");
    memcpy(dst, value, sizeof value);
    return 0;
}

static void v1_close(void *self) { host->free(self); }

static const struct burin_loader loader = {
    .size = sizeof loader,
    .name = "abi-one",
    .help = "frozen",
    .probe = probe,
    .open = v1_open,
    .count = count,
    .info = info,
    .read = v1_read,
    .close = v1_close,
};
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = 1,
    .name = "plugin-v1",
    .version = "1",
    .licence = "MIT",
    .help = "frozen",
    .loaders = loaders,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *lent);

const struct burin_plugin *burin_plugin_main(const struct burin_host *lent)
{
    host = lent;
    return &plugin;
}
