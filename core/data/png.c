/* SPDX-License-Identifier: MIT
 * png.c - writes PNG files: 8-bit RGB, a filter chosen for each row, text chunks. The same picture
 * gives the same bytes, and the file appears whole or not at all. */
#include "data/data.h"
#include "data/deflate.h"

#include <stdlib.h>
#include <string.h>

static uint32_t crc_add(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++) {
        crc ^= b[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return crc;
}

static void put32(uint8_t *to, uint32_t v)
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void write_chunk(struct file_out *f, const char *type, const void *bytes, size_t n)
{
    uint8_t length[4], crc[4];
    put32(length, (uint32_t)n);
    put32(crc, ~crc_add(crc_add(~0u, type, 4), bytes, n));
    file_out_write(f, length, 4);
    file_out_write(f, type, 4);
    file_out_write(f, bytes, n);
    file_out_write(f, crc, 4);
}

static int paeth(int left, int up, int corner)
{
    int p = left + up - corner, a = abs(p - left), b = abs(p - up), c = abs(p - corner);
    return a <= b && a <= c ? left : b <= c ? up : corner;
}

static void filter_row(int kind, const uint8_t *row, const uint8_t *above, size_t n, uint8_t *to)
{
    for (size_t i = 0; i < n; i++) {
        int left = i < 3 ? 0 : row[i - 3], up = above ? above[i] : 0;
        int corner = i < 3 || !above ? 0 : above[i - 3];
        int guess = kind == 0   ? 0
                    : kind == 1 ? left
                    : kind == 2 ? up
                    : kind == 3 ? (left + up) / 2
                                : paeth(left, up, corner);
        to[i] = (uint8_t)(row[i] - guess);
    }
}

/* The filter whose residues are smallest as signed numbers: the usual heuristic. `to` takes n + 1
 * bytes. */
static void best_filter(const uint8_t *row, const uint8_t *above, size_t n, uint8_t *to,
                        uint8_t *scratch)
{
    uint64_t best = UINT64_MAX;
    for (int kind = 0; kind < 5; kind++) {
        uint64_t sum = 0;
        filter_row(kind, row, above, n, scratch);
        for (size_t i = 0; i < n; i++) sum += (uint64_t)abs((int8_t)scratch[i]);
        if (sum < best) {
            best = sum;
            to[0] = (uint8_t)kind;
            memcpy(to + 1, scratch, n);
        }
    }
}

static bool write_pixels(struct file_out *f, const struct image *in)
{
    size_t n = (size_t)in->width * 3, bytes = (n + 1) * (size_t)in->height;
    uint8_t *filtered = mem_alloc(bytes), *scratch = mem_alloc(n);
    for (int y = 0; y < in->height; y++) {
        const uint8_t *row = in->rgb + (size_t)y * n;
        best_filter(row, y ? row - n : NULL, n, filtered + (size_t)y * (n + 1), scratch);
    }
    int packed_bytes = 0;
    uint8_t *packed = deflate_pack(filtered, bytes, &packed_bytes);
    mem_free(filtered);
    mem_free(scratch);
    if (!packed)
        return fail("an image of %d x %d pixels is too large for a PNG file", in->width,
                    in->height);
    write_chunk(f, "IDAT", packed, (size_t)packed_bytes);
    deflate_free(packed);
    return true;
}

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x7f || ((unsigned char)*s < 0x20 && *s != '\n')) return false;
    return true;
}

/* tEXt for plain ASCII, which every viewer reads; iTXt (UTF-8, not compressed) for the rest. */
static bool write_text(struct file_out *f, const char *key, const char *value)
{
    size_t n = strlen(key);
    if (n < 1 || n > 79 || !is_ascii(key) || strchr(key, '\n'))
        return fail(
            "\"%s\" cannot be the keyword of a PNG text: 1 to 79 ASCII characters are expected",
            key);
    struct str s = { 0 };
    bool plain = is_ascii(value);
    str_add_bytes(&s, key, n + 1);
    if (!plain)
        str_add_bytes(&s, "\0\0\0\0", 4); /* not compressed; no language; no translated keyword */
    str_add(&s, value);
    write_chunk(f, plain ? "tEXt" : "iTXt", s.data, s.len);
    str_finish(&s);
    return true;
}

bool image_save_png(const char *path, const struct image *in, const char *const *text)
{
    static const uint8_t signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    if (in->width < 1 || in->height < 1 || !in->rgb)
        return fail("cannot write %s: the image is empty", path);
    struct file_out *f = file_out_open(path);
    if (!f) return false;
    uint8_t header[13] = { 0 };
    put32(header, (uint32_t)in->width);
    put32(header + 4, (uint32_t)in->height);
    header[8] = 8;
    header[9] = 2; /* RGB */
    file_out_write(f, signature, sizeof signature);
    write_chunk(f, "IHDR", header, sizeof header);
    bool ok = true;
    for (; ok && text && text[0]; text += 2) ok = write_text(f, text[0], text[1]);
    ok = ok && write_pixels(f, in);
    if (!ok) {
        file_out_abort(f);
        return fail_prefix("cannot write %s", path);
    }
    write_chunk(f, "IEND", "", 0);
    return file_out_commit(f);
}
