/* SPDX-License-Identifier: MIT
 * fuzz_image.c - any bytes as an image: size and pixels, which must agree. A PNG is tried a second
 * time with its checksums made right, since a wrong one ends the matter early. */
#include "host.h"

#include <string.h>

#define MAX_PIXELS (1u << 20)

static void decode(const struct burin_codec *c, const uint8_t *data, size_t n)
{
    int width = 0, height = 0;
    struct burin_pixels pixels;
    c->probe(data, n);
    int sized = c->size_of(data, n, &width, &height);
    if (c->decode(data, n, MAX_PIXELS, &pixels) != 0) return;
    if (sized != 0 || pixels.width != width || pixels.height != height) abort();
    volatile uint8_t sum = 0;
    size_t bytes = (size_t)width * (size_t)height * (size_t)pixels.channels;
    for (size_t i = 0; i < bytes; i++) sum = (uint8_t)(sum + pixels.data[i]);
    host_free(pixels.data);
}

static uint32_t be32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void fix_checksums(uint8_t *b, size_t n)
{
    for (size_t at = 8; n - at >= 12;) {
        uint32_t length = be32(b + at), crc = ~0u;
        if (length > n - at - 12) return;
        for (size_t i = at + 4; i < at + 8 + length; i++) {
            crc ^= b[i];
            for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        }
        at += length + 12;
        for (int i = 0; i < 4; i++) b[at - 4 + (size_t)i] = (uint8_t)(~crc >> (24 - 8 * i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct burin_codec *c = burin_plugin_main(&fuzz_host)->codecs[0];
    decode(c, data, n);
    if (n < 8 || memcmp(data, "\x89PNG", 4) != 0) return 0;
    uint8_t *fixed = malloc(n);
    memcpy(fixed, data, n);
    fix_checksums(fixed, n);
    decode(c, fixed, n);
    free(fixed);
    return 0;
}
