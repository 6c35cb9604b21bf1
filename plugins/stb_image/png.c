/* SPDX-License-Identifier: MIT
 * png.c - walks the chunks of a PNG, checks them (order, sizes, CRC) and copies the few that carry
 * pixels. The copy drops everything else (text, profiles, animation), and gives the palette its
 * full 256 rows, so that a pixel beyond the palette is black instead of whatever lay in memory. */
#include "picture.h"

#include <string.h>

#define SIGNATURE "\x89PNG\r\n\x1a\n"
#define DEFLATE_RATIO 1032u /* the most that one byte of deflate can unpack to */

struct chunk {
    const uint8_t *data;
    uint32_t n;
    uint8_t type[5];
};
struct walk {
    const uint8_t *b;
    size_t n, at;
    int depth, color, palette;
    bool ihdr, plte, trns, idat, idat_done, iend;
    uint64_t idat_bytes;
    size_t out;
    struct picture *p;
};

static uint32_t crc32_of(const uint8_t *b, size_t n)
{
    uint32_t table[16], crc = ~0u;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int k = 0; k < 4; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; i < n; i++) {
        crc = table[(crc ^ b[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ (uint32_t)b[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

bool is_png(const uint8_t *b, size_t n) { return n >= 8 && memcmp(b, SIGNATURE, 8) == 0; }

static bool next_chunk(struct walk *w, struct chunk *c)
{
    if (w->n - w->at < 12) return image_fail("the PNG is cut off");
    const uint8_t *b = w->b + w->at;
    c->n = be32(b);
    memcpy(c->type, b + 4, 4);
    c->type[4] = 0;
    c->data = b + 8;
    for (int i = 0; i < 4; i++)
        if ((c->type[i] | 32) < 'a' || (c->type[i] | 32) > 'z')
            return image_fail("the PNG is damaged: no chunk at byte %zu", w->at);
    if (c->n > 0x7fffffffu || c->n > w->n - w->at - 12)
        return image_fail("the PNG is cut off: its %s chunk claims %u bytes", (const char *)c->type,
                          c->n);
    if (crc32_of(b + 4, (size_t)c->n + 4) != be32(c->data + c->n))
        return image_fail("the PNG is damaged: wrong checksum of its %s chunk",
                          (const char *)c->type);
    w->at += (size_t)c->n + 12;
    return true;
}

static bool is(const struct chunk *c, const char *type) { return memcmp(c->type, type, 4) == 0; }

static bool take_ihdr(struct walk *w, const struct chunk *c)
{
    if (w->ihdr || c->n != 13) return image_fail("the PNG is damaged: bad IHDR chunk");
    uint32_t width = be32(c->data), height = be32(c->data + 4);
    int depth = c->data[8], color = c->data[9];
    bool known = color == 0 ? depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16
                 : color == 3
                     ? depth == 1 || depth == 2 || depth == 4 || depth == 8
                     : (color == 2 || color == 4 || color == 6) && (depth == 8 || depth == 16);
    if (!known || c->data[10] || c->data[11] || c->data[12] > 1)
        return image_fail("the PNG is damaged: color type %d with %d bits, or an unknown method",
                          color, depth);
    if (!width || !height || width > SIDE_MAX || height > SIDE_MAX)
        return image_fail("the PNG claims %u x %u pixels, but sides of 1 to %d are supported",
                          width, height, SIDE_MAX);
    w->ihdr = true;
    w->depth = depth;
    w->color = color;
    w->p->width = (int)width;
    w->p->height = (int)height;
    w->p->alpha = color & 4;
    return true;
}

static bool check_chunk(struct walk *w, const struct chunk *c)
{
    if (!w->ihdr && !is(c, "IHDR"))
        return image_fail(is(c, "CgBI") ? "Apple's private kind of PNG is not supported; convert it"
                                        : "the PNG is damaged: it does not begin with IHDR");
    if (is(c, "IHDR")) return take_ihdr(w, c);
    if (is(c, "PLTE")) {
        if (w->plte || w->idat || c->n % 3 || !c->n || c->n > 768)
            return image_fail("the PNG is damaged: bad palette");
        w->plte = true;
        w->palette = (int)(c->n / 3);
    } else if (is(c, "tRNS")) {
        bool good = w->color == 3   ? w->plte && c->n && c->n <= (uint32_t)w->palette
                    : w->color == 0 ? c->n == 2
                                    : w->color == 2 && c->n == 6;
        if (w->trns || w->idat || !good) return image_fail("the PNG is damaged: bad tRNS chunk");
        w->trns = w->p->alpha = true;
    } else if (is(c, "IDAT")) {
        if (w->idat_done || (w->color == 3 && !w->plte))
            return image_fail("the PNG is damaged: pixels before the palette or in two places");
        w->idat = true;
        w->idat_bytes += c->n;
        return true;
    } else if (is(c, "IEND")) {
        w->iend = true;
    } else if (!(c->type[0] & 32)) {
        return image_fail("the PNG needs the unknown feature \"%s\"", (const char *)c->type);
    }
    w->idat_done = w->idat;
    return true;
}

static void copy_chunk(struct walk *w, const char *type, const uint8_t *data, uint32_t n,
                       uint32_t stored)
{
    uint8_t *o = w->p->own + w->out;
    for (int i = 0; i < 4; i++) o[i] = (uint8_t)(stored >> (24 - 8 * i));
    memcpy(o + 4, type, 4);
    memcpy(o + 8, data, n); /* the rest stays zero, the checksum too: stb does not look at it */
    w->out += (size_t)stored + 12;
}

static bool backed_by_file(const struct walk *w)
{
    static const int channels[] = { 1, 0, 3, 1, 2, 0, 4 };
    uint64_t row = ((uint64_t)w->p->width * (uint64_t)(channels[w->color] * w->depth) + 7) / 8 + 1;
    uint64_t raw = row * (uint64_t)w->p->height;
    return raw <= w->idat_bytes * DEFLATE_RATIO + 1024 ||
           image_fail("the PNG claims %d x %d pixels, more than its %llu bytes can hold",
                      w->p->width, w->p->height, (unsigned long long)w->n);
}

/* Of the first eXIf chunk, which may stand behind the pixels. The other chunks are only stepped
 * over: sizes of a folder's pictures are asked for before any of them is decoded. */
static int find_orientation(const uint8_t *b, size_t n)
{
    for (size_t at = 8; n - at >= 12;) {
        uint32_t length = be32(b + at);
        if (length > n - at - 12) break;
        const uint8_t *type = b + at + 4;
        if (memcmp(type, "eXIf", 4) == 0)
            return crc32_of(type, (size_t)length + 4) == be32(type + 4 + length)
                       ? exif_orientation(type + 4, length)
                       : 1;
        at += (size_t)length + 12;
    }
    return 1;
}

bool png_examine(const uint8_t *b, size_t n, bool header_only, struct picture *out)
{
    struct walk w = { .b = b, .n = n, .at = 8, .p = out };
    out->orientation = find_orientation(b, n);
    struct chunk c;
    while (!w.iend) {
        if (!next_chunk(&w, &c) || !check_chunk(&w, &c)) return false;
        if (header_only && w.ihdr) return true;
    }
    if (!w.idat) return image_fail("the PNG holds no pixels");
    if (!backed_by_file(&w)) return false;
    out->own = image_host->alloc(n + 1024); /* 1024: the palette may grow */
    memcpy(out->own, b, 8);
    w.out = w.at = 8;
    do {
        next_chunk(&w, &c);
        if (is(&c, "PLTE") && w.color == 3) copy_chunk(&w, "PLTE", c.data, c.n, 768);
        else if (is(&c, "IHDR") || is(&c, "tRNS") || is(&c, "IDAT") || is(&c, "IEND"))
            copy_chunk(&w, (const char *)c.type, c.data, c.n, c.n);
    } while (!is(&c, "IEND"));
    out->bytes = out->own;
    out->n = w.out;
    return true;
}
