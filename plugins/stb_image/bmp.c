/* SPDX-License-Identifier: MIT
 * bmp.c - checks the header of a BMP and that every row is in the file. */
#include "picture.h"

#include <string.h>

bool is_bmp(const uint8_t *b, size_t n)
{
    return n >= 18 && b[0] == 'B' && b[1] == 'M' && le32(b + 14) <= 124;
}

bool bmp_examine(const uint8_t *b, size_t n, bool header_only, struct picture *out)
{
    if (n < 26) return image_fail("the BMP is cut off");
    uint32_t pixels = le32(b + 10), header = le32(b + 14);
    bool old = header == 12;
    if (!old && header != 40 && header != 56 && header != 108 && header != 124)
        return image_fail("the BMP has an unknown header of %u bytes", header);
    if (n < 14u + header) return image_fail("the BMP is cut off");
    int64_t width = old ? (int64_t)le16(b + 18) : (int32_t)le32(b + 18);
    int64_t height = old ? (int64_t)le16(b + 20) : (int32_t)le32(b + 22);
    height = height < 0 ? -height : height; /* stored top to bottom */
    uint32_t planes = le16(b + (old ? 22 : 26)), bits = le16(b + (old ? 24 : 28));
    if (width < 1 || height < 1 || width > SIDE_MAX || height > SIDE_MAX)
        return image_fail("the BMP claims %lld x %lld pixels, but sides of 1 to %d are supported",
                          (long long)width, (long long)height, SIDE_MAX);
    if (planes != 1 ||
        (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32))
        return image_fail("the BMP is damaged: %u planes of %u bits", planes, bits);
    uint32_t packing = old ? 0 : le32(b + 30);
    if (packing != 0 && packing != 3)
        return image_fail("a compressed BMP is not supported; convert it to PNG");
    out->width = (int)width;
    out->height = (int)height;
    /* Of 32 bits the last 8 are an alpha only where the header has a mask for it. */
    out->alpha = bits == 32 && packing == 3 && header >= 56 && n >= 70 && le32(b + 66) != 0;
    out->bytes = b;
    out->n = n;
    if (header_only) return true;
    uint64_t row = ((uint64_t)width * bits + 31) / 32 * 4;
    if (pixels < 14u + header || pixels > n || row * (uint64_t)height > n - pixels)
        return image_fail("the BMP is cut off: its %lld x %lld pixels are not all there",
                          (long long)width, (long long)height);
    return true;
}
