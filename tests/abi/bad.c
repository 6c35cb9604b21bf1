/* SPDX-License-Identifier: MIT
 * bad.c - one library per way to be a bad plugin; CMake defines exactly one BAD_... for each. */
#include "burin_plugin.h"

#if defined(BAD_NO_SYMBOL)
BURIN_EXPORT int something_else(void);
int something_else(void) { return 0; }
#else

static int probe_file(const char *p, const uint8_t *h, size_t n)
{
    (void)p, (void)h, (void)n;
    return 0;
}
static int probe_place(const char *p)
{
    (void)p;
    return 0;
}
static int probe_bytes(const uint8_t *h, size_t n)
{
    (void)h, (void)n;
    return 0;
}
static int open_file(const char *p, void **s)
{
    (void)p, (void)s;
    return -1;
}
static int open_place(const char *p, const struct burin_value *v, void **s)
{
    (void)p, (void)v, (void)s;
    return -1;
}
static int64_t count(void *s)
{
    (void)s;
    return 0;
}
static int info(void *s, int64_t i, struct burin_tensor_info *o)
{
    (void)s, (void)i, (void)o;
    return -1;
}
static int item(void *s, int64_t i, struct burin_item *o)
{
    (void)s, (void)i, (void)o;
    return -1;
}
static int declare(void *s, const struct burin_tensor_info *i)
{
    (void)s, (void)i;
    return -1;
}
static int finish(void *s)
{
    (void)s;
    return -1;
}
static void done(void *s) { (void)s; }
static int size_of(const uint8_t *b, size_t n, int *w, int *h)
{
    (void)b, (void)n, (void)w, (void)h;
    return -1;
}
#if !defined(BAD_LOADER_READ)
static int read_it(void *s, int64_t i, void *d, uint64_t b)
{
    (void)s, (void)i, (void)d, (void)b;
    return -1;
}
#else
#define read_it NULL
#endif

static const struct burin_loader loader = {
#if defined(BAD_LOADER_SIZE)
    .size = 16,
#else
    .size = sizeof loader,
#endif
#if !defined(BAD_LOADER_NAME)
    .name = "bad-loader",
#endif
    .probe = probe_file,
    .open = open_file,
    .count = count,
    .info = info,
    .read = read_it,
    .close = done,
};
static const struct burin_exporter exporter = {
    /* lacks put */
    .size = sizeof exporter, .name = "bad-exporter", .begin = open_file,
    .declare = declare,      .finish = finish,       .abort = done,
};
static const struct burin_option options[] = {
    { "what", 77, 0, 0, 0, NULL, "an option of no known type" },
    { NULL, 0, 0, 0, 0, NULL, NULL },
};
static const struct burin_source source = {
    .size = sizeof source,
    .name = "bad-source",
    .probe = probe_place,
    .open = open_place,
    .count = count,
#if defined(BAD_OPTION)
    .item = item,
    .options = options,
#endif
    .close = done,
};
static const struct burin_codec codec = {
    /* lacks decode */
    .size = sizeof codec,
    .name = "bad-codec",
    .probe = probe_bytes,
    .size_of = size_of,
};

/* Each list is only part of the plugin that is about it. */
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_exporter *const exporters[] = { &exporter, NULL };
static const struct burin_source *const sources[] = { &source, NULL };
static const struct burin_codec *const codecs[] = { &codec, NULL };

static struct burin_plugin plugin = { .size = sizeof plugin, .abi = BURIN_ABI, .name = "bad" };

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *host);

const struct burin_plugin *burin_plugin_main(const struct burin_host *host)
{
    (void)item, (void)options, (void)loaders, (void)exporters, (void)sources, (void)codecs;
#if defined(BAD_REFUSES)
    host->fail("no licence for %s on this machine", "100%s");
    return NULL;
#elif defined(BAD_REFUSES_SILENTLY)
    (void)host;
    return NULL;
#elif defined(BAD_NEW_ABI)
    plugin.abi = host->abi + 1;
#elif defined(BAD_ZERO_ABI)
    plugin.abi = 0;
#elif defined(BAD_SIZE)
    plugin.size = 24;
#elif defined(BAD_NAME)
    plugin.name = "";
#elif defined(BAD_EXPORTER_PUT)
    plugin.exporters = exporters;
#elif defined(BAD_SOURCE_ITEM) || defined(BAD_OPTION)
    plugin.sources = sources;
#elif defined(BAD_CODEC_DECODE)
    plugin.codecs = codecs;
#else
    plugin.loaders = loaders;
#endif
    (void)host;
    return &plugin;
}
#endif
