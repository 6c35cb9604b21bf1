/* SPDX-License-Identifier: MIT
 * picture_file.h - makes PNG and BMP files piece by piece, to be damaged by the tests, and finds
 * the pieces of a JPEG. */
#ifndef BURIN_TESTS_PICTURE_FILE_H
#define BURIN_TESTS_PICTURE_FILE_H

#include "support.h"

#include "data/deflate.h"

/* ---- PNG ------------------------------------------------------------------------------------- */

static inline void put32(struct str *s, uint32_t v)
{
    for (int i = 24; i >= 0; i -= 8) str_add_bytes(s, &(uint8_t){ (uint8_t)(v >> i) }, 1);
}

static inline void chunk(struct str *s, const char *type, const void *bytes, size_t n)
{
    uint32_t crc = ~0u;
    put32(s, (uint32_t)n);
    size_t from = s->len;
    str_add_bytes(s, type, 4);
    str_add_bytes(s, bytes, n);
    for (size_t i = from; i < s->len; i++) {
        crc ^= (uint8_t)s->data[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    put32(s, ~crc);
}

static inline void png_begin(struct str *s, uint32_t width, uint32_t height, int depth, int color,
                             int interlace)
{
    uint8_t header[13] = { 0 };
    s->len = 0;
    str_add_bytes(s, "\x89PNG\r\n\x1a\n", 8);
    for (int i = 0; i < 4; i++) {
        header[i] = (uint8_t)(width >> (24 - 8 * i));
        header[4 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    header[8] = (uint8_t)depth;
    header[9] = (uint8_t)color;
    header[12] = (uint8_t)interlace;
    chunk(s, "IHDR", header, 13);
}

static inline void png_pixels(struct str *s, const void *rows, size_t n)
{
    int packed_bytes;
    uint8_t *packed = deflate_pack((uint8_t *)(uintptr_t)rows, n, &packed_bytes);
    chunk(s, "IDAT", packed, (size_t)packed_bytes);
    deflate_free(packed);
}

static inline void png_end(struct str *s) { chunk(s, "IEND", "", 0); }

/* ---- JPEG ------------------------------------------------------------------------------------ */

/* The first place of a marker. */
static inline size_t jpeg_marker(const struct str *s, int m)
{
    for (size_t i = 2; i + 1 < s->len; i++)
        if ((uint8_t)s->data[i] == 0xff && (uint8_t)s->data[i + 1] == m) return i;
    _fail(__FILE__, __LINE__);
    return 0;
}

/* ---- BMP ------------------------------------------------------------------------------------- */

static inline void make_bmp(struct str *s, int32_t width, int32_t height, int bits,
                            uint32_t packing, uint32_t offset, size_t pixels)
{
    uint8_t h[54] = { 'B', 'M' };
    const struct {
        int at;
        uint32_t v;
    } fields[] = {
        { 2, 54 + (uint32_t)pixels },
        { 10, offset },
        { 14, 40 },
        { 18, (uint32_t)width },
        { 22, (uint32_t)height },
        { 26, 1 | (uint32_t)bits << 16 },
        { 30, packing },
    };
    for (int i = 0; i < COUNT_OF(fields); i++)
        for (int k = 0; k < 4; k++) h[fields[i].at + k] = (uint8_t)(fields[i].v >> (8 * k));
    s->len = 0;
    str_add_bytes(s, h, sizeof h);
    for (size_t i = 0; i < pixels; i++) str_add_bytes(s, &(uint8_t){ (uint8_t)(i * 10) }, 1);
}

#endif
