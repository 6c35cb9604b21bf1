/* SPDX-License-Identifier: MIT
 * picture.h - private to the image codec.
 *
 * stb_image makes no promises about hostile files, so it never sees one first: png.c, jpeg.c and
 * bmp.c walk the whole container, check every length, and hand on only what stb needs. */
#ifndef BURIN_STB_IMAGE_PICTURE_H
#define BURIN_STB_IMAGE_PICTURE_H

#include <stdbool.h>

#include "burin_plugin.h"

#define SIDE_MAX 65535

extern const struct burin_host *image_host;

struct picture {
    int width, height; /* as stored, before orientation */
    int orientation;   /* EXIF, 1 to 8 */
    bool alpha;
    const uint8_t *bytes; /* what stb_image is given */
    size_t n;
    uint8_t *own; /* to be freed when bytes is a copy */
};

bool image_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

bool is_png(const uint8_t *b, size_t n);
bool is_jpeg(const uint8_t *b, size_t n);
bool is_bmp(const uint8_t *b, size_t n);
/* header_only: width, height and orientation; else the whole file is checked too. */
bool png_examine(const uint8_t *b, size_t n, bool header_only, struct picture *out);
bool jpeg_examine(const uint8_t *b, size_t n, bool header_only, struct picture *out);
bool bmp_examine(const uint8_t *b, size_t n, bool header_only, struct picture *out);
/* The orientation in EXIF data, with or without the mark of a JPEG's APP1 segment before it; 1 when
 * there is none or it is damaged. */
int exif_orientation(const uint8_t *b, size_t n);

/* stb.c: RGB or RGBA pixels that stb_free releases; at most `budget` bytes are allocated meanwhile.
 */
uint8_t *stb_decode(const struct picture *p, int channels, uint64_t budget, const char **why);
void stb_free(void *pixels);

static inline uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }
static inline uint32_t le16(const uint8_t *p) { return (uint32_t)p[1] << 8 | p[0]; }
static inline uint32_t le32(const uint8_t *p) { return le16(p + 2) << 16 | le16(p); }

#endif
