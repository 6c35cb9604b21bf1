/* SPDX-License-Identifier: MIT
 * liar.c - a plugin that answers what cannot be. The fourth byte of a file that begins with "LIE"
 * (tensors) or "PIX" (pictures) says what about; a folder named *.lies is a dataset.
 * tests/cli/plugins_test.lua */
#include "burin_plugin.h"

#include <stdio.h>
#include <string.h>

static const struct burin_host *host;
static char about;
static long long said; /* a number that the file or the folder's name gives: "LIEN12", "N12.lies" */

static int begins(const uint8_t *head, size_t n, const char *with)
{
    return n >= 4 && memcmp(head, with, 3) == 0 ? 100 : 0;
}

static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    return begins(head, n, "LIE");
}

static int open_file(const char *path, void **self)
{
    char head[4] = { 0 };
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, 4, f) : 0;
    if (!f || fscanf(f, "%lld", &said) != 1) said = 0;
    if (f) fclose(f);
    about = head[3];
    *self = &about;
    return n == 4 && about != 'o' ? 0 : -1; /* without a reason */
}

static int64_t count(void *self)
{
    (void)self;
    return about == 'n'   ? -5
           : about == 'c' ? (int64_t)1 << 62
           : about == 'N' ? said
           : about == '2' ? 2
                          : 1;
}

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    static float few[4];
    (void)self, (void)i;
    memset(out, 0, sizeof *out);
    strcpy(out->name, "lora_unet_x.lora_down.weight");
    out->dtype = BURIN_T_F32;
    out->rank = 1;
    out->dim[0] = 4;
    out->bytes = 16;
    switch (about) {
    case 'b': out->bytes = 1u << 20; break;
    case 'm': out->mapped = few, out->dim[0] = 1 << 22; break;
    case 'u': out->mapped = (char *)few + 1, out->dim[0] = 3, out->bytes = 12; break; /* no lie */
    case 'd': out->dtype = 99; break;
    case 'D': out->dtype = 0; break;
    case 'r': out->rank = 100; break;
    case 'R': out->rank = -1; break;
    case 'z': out->dim[0] = -1; break;
    case 'a': memset(out->name, 'a', sizeof out->name); break;
    case 'e': out->name[0] = 0; break;
    case 'x': out->rank = 2, out->dim[0] = (int64_t)1 << 40, out->dim[1] = (int64_t)1 << 22; break;
    case 'f': return -1;
    default: break;
    }
    return 0;
}

static int read_tensor(void *self, int64_t i, void *to, uint64_t bytes)
{
    (void)self, (void)i;
    memset(to, 0, (size_t)bytes);
    return about == 'g' ? -1 : 0;
}

static int meta(void *self, int64_t i, const char **key, const char **value)
{
    (void)self;
    *key = "k";
    *value = about == 'k' ? NULL : "v";
    return about == 'k' || about == 'l' || (about == 'M' && i < said);
}

static void close_it(void *self) { (void)self; }

static int probe_picture(const uint8_t *head, size_t n) { return begins(head, n, "PIX"); }

static int size_of(const uint8_t *bytes, size_t n, int *width, int *height)
{
    *width = *height = bytes[3] == 'n' ? -7 : bytes[3] == 'h' ? 1 << 30 : 64;
    if (n >= 8 && bytes[3] == 's')
        *width = *height = bytes[4] | bytes[5] << 8 | bytes[6] << 16 | bytes[7] << 24;
    return bytes[3] == 'f' ? -1 : 0;
}

static int decode(const uint8_t *bytes, size_t n, uint64_t max, struct burin_pixels *out)
{
    (void)n, (void)max;
    out->width = out->height = bytes[3] == 'b' ? 30000 : 64;
    out->channels = bytes[3] == 'c' ? 77 : 3;
    out->data = bytes[3] == 'd' ? NULL : host->alloc(64 * 64 * 3);
    return 0;
}

static int probe_place(const char *location)
{
    const char *dot = strrchr(location, '.');
    return dot && strcmp(dot, ".lies") == 0 ? 100 : 0;
}

static int open_place(const char *location, const struct burin_value *values, void **self)
{
    const char *slash = strrchr(location, '/');
    (void)values;
    about = slash[1];
    if (sscanf(slash + 2, "%lld", &said) != 1) said = 0;
    *self = &about;
    return 0;
}

static int64_t count_items(void *self)
{
    (void)self;
    return about == 'n' ? -1 : about == 'c' ? (int64_t)1 << 60 : about == 'N' ? said : 1;
}

static int item(void *self, int64_t i, struct burin_item *out)
{
    (void)self, (void)i;
    out->path = about == 'p' ? NULL : "examples/sks-cat/1.png";
    out->repeats = about == 'r' ? -3 : 1;
    return about == 'f' || about == 'N' ? -1 : 0;
}

static int skipped(void *self, int64_t i, const char **path, const char **reason)
{
    (void)self, (void)i;
    *path = *reason = NULL;
    return about == 's';
}

static const struct burin_loader loader = {
    .size = sizeof loader,
    .name = "lie",
    .probe = probe,
    .open = open_file,
    .count = count,
    .info = info,
    .read = read_tensor,
    .meta = meta,
    .close = close_it,
};
static const struct burin_codec codec = { .size = sizeof codec,
                                          .name = "pix",
                                          .probe = probe_picture,
                                          .size_of = size_of,
                                          .decode = decode };
static const struct burin_source source = {
    .size = sizeof source,
    .name = "lies",
    .probe = probe_place,
    .open = open_place,
    .count = count_items,
    .item = item,
    .skipped = skipped,
    .close = close_it,
};
static const struct burin_loader *const loaders[] = { &loader, NULL };
static const struct burin_codec *const codecs[] = { &codec, NULL };
static const struct burin_source *const sources[] = { &source, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "liar",
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
