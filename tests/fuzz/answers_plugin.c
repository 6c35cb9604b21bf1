/* SPDX-License-Identifier: MIT
 * answers_plugin.c - a plugin whose every answer comes from given bytes: loader, codec and source
 * for what begins with "ANS", and for folders named *.answers. fuzz_answers.c gives the bytes. */
#include "burin_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEN __attribute__((visibility("default")))

SEEN void answers_set(const uint8_t *bytes, size_t n);

static const struct burin_host *host;
static const uint8_t *data;
static size_t left;

void answers_set(const uint8_t *bytes, size_t n)
{
    data = bytes;
    left = n;
}

/* After the last byte every answer is 0. */
static uint8_t byte(void)
{
    if (!left) return 0;
    left--;
    return *data++;
}

/* Small ones mostly; else the ends of what the type holds. */
static int64_t number(void)
{
    uint8_t b = byte();
    switch (b) {
    case 255: return -1;
    case 254: return INT64_MAX;
    case 253: return INT64_MIN;
    case 252: return (int64_t)1 << (byte() % 63);
    case 251: return (int64_t)1 << 32;
    case 250: return 1000000;
    default: return b % 16;
    }
}

static int verdict(void)
{
    uint8_t b = byte();
    if (b < 200) return 0;
    if (b < 230) return host->fail("no: %d %s", b, b & 1 ? "\033[2J" : "%s%n");
    return -(int)b;
}

/* NULL, or a text that is kept until this has been called 64 times more. */
static const char *word(void)
{
    static char texts[64][16];
    static unsigned at;
    uint8_t n = byte();
    if (n > 200) return NULL;
    char *to = texts[at++ % 64];
    memset(to, 0, 16);
    for (unsigned i = 0; i < n % 15u; i++) to[i] = (char)byte();
    return to;
}

static int begins(const uint8_t *head, size_t n)
{
    return n >= 3 && memcmp(head, "ANS", 3) == 0 ? 1000 : 0;
}

static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    return begins(head, n);
}

static int open_it(const char *path, void **self)
{
    (void)path;
    *self = &left;
    return verdict();
}

static int64_t count(void *self)
{
    (void)self;
    return number();
}

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    static _Alignas(16) uint8_t few[4096 + 1];
    static const int64_t sizes[] = { 4, 2, 2, 8, 1, 1 };
    (void)self, (void)i;
    uint8_t how = byte();
    const char *name = word();
    if (how & 1) memset(out->name, 'x', sizeof out->name);
    else snprintf(out->name, sizeof out->name, "%s", name ? name : "");
    out->dtype = (int)number();
    out->rank = (int)number();
    for (int d = 0; d < BURIN_PLUGIN_RANK; d++) out->dim[d] = number();
    uint64_t bytes = out->dtype >= 0 && out->dtype < 6 ? (uint64_t)sizes[out->dtype] : 1;
    for (int d = 0; d < out->rank && d < BURIN_PLUGIN_RANK; d++) bytes *= (uint64_t)out->dim[d];
    out->bytes = how & 2 ? (uint64_t)number() : bytes;
    if (how & 4 && out->bytes <= 4096) out->mapped = few + (how >> 3 & 1);
    return verdict();
}

static int read_tensor(void *self, int64_t i, void *to, uint64_t bytes)
{
    (void)self, (void)i;
    memset(to, byte(), (size_t)bytes);
    return verdict();
}

static int meta(void *self, int64_t i, const char **key, const char **value)
{
    (void)self, (void)i;
    *key = word();
    *value = word();
    return left && byte() < 200 ? 1 : (int)number();
}

static void close_it(void *self) { (void)self; }

static int size_of(const uint8_t *bytes, size_t n, int *width, int *height)
{
    (void)bytes, (void)n;
    *width = (int)number();
    *height = (int)number();
    return verdict();
}

static int decode(const uint8_t *bytes, size_t n, uint64_t max, struct burin_pixels *out)
{
    (void)bytes, (void)n, (void)max;
    uint8_t how = byte();
    int said = verdict();
    if (said) return said;
    int w = 1 + byte() % 64, h = 1 + byte() % 64, c = 1 + byte() % 4;
    out->data = how & 1 ? NULL : host->alloc((size_t)w * (size_t)h * (size_t)c);
    out->width = how & 2 ? (int)number() : w;
    out->height = how & 4 ? (int)number() : h;
    out->channels = how & 8 ? (int)number() : c;
    /* That less was made than is said cannot be seen from outside, so it is not tried. */
    if (out->data && (int64_t)out->width * out->height * out->channels > (int64_t)w * h * c) {
        host->free(out->data);
        out->data = NULL;
    }
    return 0;
}

static int probe_place(const char *location)
{
    const char *dot = strrchr(location, '.');
    return dot && strcmp(dot, ".answers") == 0 ? 1000 : 0;
}

static int open_place(const char *location, const struct burin_value *values, void **self)
{
    (void)values;
    return open_it(location, self);
}

static int item(void *self, int64_t i, struct burin_item *out)
{
    (void)self, (void)i;
    out->path = word();
    out->caption = byte() & 1 ? word() : NULL;
    out->class_tokens = word();
    out->caption_path = byte() & 1 ? word() : NULL;
    out->repeats = (int)number();
    return verdict();
}

static int skipped(void *self, int64_t i, const char **path, const char **reason)
{
    (void)self, (void)i;
    *path = word();
    *reason = word();
    return left && byte() < 200 ? 1 : (int)number();
}

static int remark(void *self, int64_t i, const char **text)
{
    (void)self, (void)i;
    *text = word();
    return left && byte() < 200 ? 1 : (int)number();
}

static const struct burin_loader loader = {
    .size = sizeof loader,
    .name = "answers",
    .probe = probe,
    .open = open_it,
    .count = count,
    .info = info,
    .read = read_tensor,
    .meta = meta,
    .close = close_it,
};
static const struct burin_codec codec = {
    .size = sizeof codec, .name = "answers", .probe = begins, .size_of = size_of, .decode = decode
};
static const struct burin_source source = {
    .size = sizeof source,
    .name = "answers",
    .probe = probe_place,
    .open = open_place,
    .count = count,
    .item = item,
    .skipped = skipped,
    .remark = remark,
    .close = close_it,
};
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_codec *const codecs[] = { &codec, NULL };
static const struct burin_source *const sources[] = { &source, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "answers",
    .loaders = loaders,
    .codecs = codecs,
    .sources = sources,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *lent);

const struct burin_plugin *burin_plugin_main(const struct burin_host *lent)
{
    host = lent;
    return &plugin;
}
