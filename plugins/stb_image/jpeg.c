/* SPDX-License-Identifier: MIT
 * jpeg.c - walks the segments of a JPEG to its end marker, so that a cut-off file is refused
 * instead of decoded to gray, and reads the EXIF orientation, which stb_image ignores. */
#include "picture.h"

#include <string.h>

#define SCANS_MAX 100 /* of a progressive file; real ones have about ten */

bool is_jpeg(const uint8_t *b, size_t n)
{
    return n >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff;
}

/* Only the first directory is looked at and no offset is followed twice, so nothing can loop. */
int exif_orientation(const uint8_t *b, size_t n)
{
    if (n >= 6 && memcmp(b, "Exif\0\0", 6) == 0) {
        b += 6;
        n -= 6;
    }
    if (n < 8) return 1;
    bool big = b[0] == 'M' && b[1] == 'M';
    if (!big && !(b[0] == 'I' && b[1] == 'I')) return 1;
    uint32_t (*get16)(const uint8_t *) = big ? be16 : le16,
                                    (*get32)(const uint8_t *) = big ? be32 : le32;
    uint32_t at = get32(b + 4);
    if (get16(b + 2) != 42 || at > n || n - at < 2) return 1;
    uint32_t entries = get16(b + at);
    const uint8_t *entry = b + at + 2;
    size_t room = (n - at - 2) / 12;
    for (uint32_t i = 0; i < entries && i < room; i++, entry += 12) {
        if (get16(entry) != 0x0112) continue;
        uint32_t value = get16(entry + 8);
        bool good = get16(entry + 2) == 3 && get32(entry + 4) == 1 && value >= 1 && value <= 8;
        return good ? (int)value : 1;
    }
    return 1;
}

static bool take_frame(const uint8_t *s, size_t n, int marker, struct picture *out)
{
    if (marker > 0xc2)
        return image_fail("this kind of JPEG (lossless, hierarchical or arithmetic coding) is not "
                          "supported; convert it");
    if (n < 6) return image_fail("the JPEG is damaged: bad frame header");
    if (s[0] != 8)
        return image_fail("a JPEG with %d bits per channel is not supported; convert it to 8 bits",
                          s[0]);
    out->height = (int)be16(s + 1);
    out->width = (int)be16(s + 3);
    if (!out->width || !out->height)
        return image_fail("the JPEG claims %d x %d pixels", out->width, out->height);
    if (s[5] != 1 && s[5] != 3 && s[5] != 4)
        return image_fail("a JPEG with %d channels is not supported", s[5]);
    return true;
}

/* From inside the pixels to the next marker's 0xff; n when there is none. */
static size_t skip_pixels(const uint8_t *b, size_t n, size_t at)
{
    while (at + 1 < n) {
        const uint8_t *ff = memchr(b + at, 0xff, n - at - 1);
        if (!ff) return n;
        at = (size_t)(ff - b);
        uint8_t m = b[at + 1];
        if (m != 0 && m != 0xff && (m < 0xd0 || m > 0xd7)) return at;
        at += m == 0xff ? 1 : 2;
    }
    return n;
}

/* Even an empty image needs about a bit for each 8 x 8 block. */
static bool backed_by_file(const struct picture *p, size_t n)
{
    return (uint64_t)p->width * (uint64_t)p->height / 16384 <= n ||
           image_fail("the JPEG claims %d x %d pixels, more than its %zu bytes can hold", p->width,
                      p->height, n);
}

bool jpeg_examine(const uint8_t *b, size_t n, bool header_only, struct picture *out)
{
    bool frame = false, exif = false;
    int scans = 0;
    size_t at = 2;
    for (;;) {
        while (at < n && b[at] != 0xff) /* some cameras pad between segments */
            at++;
        while (at < n && b[at] == 0xff) at++;
        if (at >= n) return image_fail("the JPEG is cut off");
        int marker = b[at++];
        if (marker == 0xd9) break;
        if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd7)) continue;
        if (n - at < 2 || be16(b + at) < 2 || be16(b + at) > n - at)
            return image_fail("the JPEG is cut off");
        const uint8_t *s = b + at + 2;
        size_t length = be16(b + at) - 2;
        at += length + 2;
        if (marker == 0xe1 && !frame && !exif && length >= 6 && memcmp(s, "Exif\0\0", 6) == 0) {
            exif = true;
            out->orientation = exif_orientation(s, length);
        } else if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 &&
                   marker != 0xcc) {
            if (frame) return image_fail("the JPEG is damaged: it has two frames");
            if (!take_frame(s, length, marker, out)) return false;
            frame = true;
            if (header_only) return true;
        } else if (marker == 0xda) {
            if (!frame || ++scans > SCANS_MAX)
                return image_fail("the JPEG is damaged: %s",
                                  frame ? "too many scans" : "no frame header");
            at = skip_pixels(b, n, at);
        }
    }
    if (!scans) return image_fail("the JPEG holds no pixels");
    out->bytes = b;
    out->n = at; /* what follows the end marker is not for us */
    return backed_by_file(out, at);
}
