/* SPDX-License-Identifier: MIT
 * deflate.c - only the zlib parts of stb_image and stb_image_write are used here. */
#include "data/deflate.h"

#include <limits.h>
#include <string.h>

#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>

#define GZIP_HEADER 10
#define GZIP_NAME 8 /* flag: the original file name follows the header */

char *deflate_unpack_embedded(const char *name, size_t *n)
{
    const struct embed_file *f = embed_data;
    while (f->name && strcmp(f->name, name) != 0) f++;
    if (!f->name) panic("the data file %s is not embedded", name);
    const unsigned char *at = f->data, *end = f->end;
    if (end - at < GZIP_HEADER + 8 || at[0] != 0x1f || at[1] != 0x8b || at[2] != 8 ||
        (at[3] & ~GZIP_NAME))
        panic("the data file %s is not a plain gzip file", name);
    bool named = at[3] & GZIP_NAME;
    at += GZIP_HEADER;
    while (named && at < end && *at++) continue;
    end -= 8; /* checksum, length */
    uint32_t length =
        (uint32_t)end[4] | (uint32_t)end[5] << 8 | (uint32_t)end[6] << 16 | (uint32_t)end[7] << 24;
    char *out = mem_alloc((size_t)length + 1);
    int got = stbi_zlib_decode_noheader_buffer(out, (int)length, (const char *)at, (int)(end - at));
    if (got < 0 || (uint32_t)got != length) panic("the data file %s is damaged", name);
    *n = length;
    return out;
}

uint8_t *deflate_pack(uint8_t *bytes, size_t n, int *packed)
{
    return n > INT_MAX / 2 ? NULL : stbi_zlib_compress(bytes, (int)n, packed, 8);
}

void deflate_free(uint8_t *packed) { STBIW_FREE(packed); }
