/* SPDX-License-Identifier: MIT
 * codec.c - PNG, JPEG and BMP to pixels through stb_image, with EXIF orientation applied. */
#include "picture.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct burin_host *image_host;

bool image_fail(const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    image_host->fail("%s", text);
    return false;
}

static int probe(const uint8_t *head, size_t n)
{
    return is_png(head, n) || is_jpeg(head, n) ? 90 : is_bmp(head, n) ? 60 : 0;
}

static bool examine(const uint8_t *b, size_t n, bool header_only, struct picture *p)
{
    *p = (struct picture){ .orientation = 1 };
    return is_png(b, n)    ? png_examine(b, n, header_only, p)
           : is_jpeg(b, n) ? jpeg_examine(b, n, header_only, p)
           : is_bmp(b, n)  ? bmp_examine(b, n, header_only, p)
                           : image_fail("the file is neither PNG nor JPEG nor BMP");
}

static int size_of(const uint8_t *bytes, size_t n, int *width, int *height)
{
    struct picture p;
    if (!examine(bytes, n, true, &p)) return -1;
    bool turned = p.orientation >= 5;
    *width = turned ? p.height : p.width;
    *height = turned ? p.width : p.height;
    return 0;
}

/* Where the pixel (x, y) of the upright picture lies in the stored one. w, h: stored size. */
static size_t stored_at(int orientation, int w, int h, int x, int y)
{
    int sx = x, sy = y;
    switch (orientation) {
    case 2: sx = w - 1 - x; break; /* mirrored */
    case 3:
        sx = w - 1 - x;
        sy = h - 1 - y;
        break; /* upside down */
    case 4: sy = h - 1 - y; break;
    case 5:
        sx = y;
        sy = x;
        break; /* transposed */
    case 6:
        sx = y;
        sy = h - 1 - x;
        break; /* needs a quarter turn clockwise */
    case 7:
        sx = w - 1 - y;
        sy = h - 1 - x;
        break;
    case 8:
        sx = w - 1 - y;
        sy = x;
        break; /* needs a quarter turn counter-clockwise */
    default: break;
    }
    return (size_t)sy * (size_t)w + (size_t)sx;
}

static void turn(const struct picture *p, const uint8_t *from, int channels,
                 struct burin_pixels *out)
{
    bool turned = p->orientation >= 5;
    out->width = turned ? p->height : p->width;
    out->height = turned ? p->width : p->height;
    size_t c = (size_t)channels;
    uint8_t *to = out->data;
    if (p->orientation == 1) {
        memcpy(to, from, (size_t)p->width * (size_t)p->height * c);
        return;
    }
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++, to += c)
            memcpy(to, from + stored_at(p->orientation, p->width, p->height, x, y) * c, c);
}

static int decode(const uint8_t *bytes, size_t n, uint64_t max_pixels, struct burin_pixels *out)
{
    struct picture p;
    memset(out, 0, sizeof *out);
    if (!examine(bytes, n, true, &p)) return -1;
    uint64_t pixels = (uint64_t)p.width * (uint64_t)p.height;
    if (pixels > max_pixels)
        return image_host->fail(
            "it has %d x %d pixels, more than the limit of %llu; make it smaller", p.width,
            p.height, (unsigned long long)max_pixels);
    if (!examine(bytes, n, false, &p)) return -1;
    int channels = p.alpha ? 4 : 3, rc = 0;
    const char *why;
    /* Measured need: at most 26 bytes a pixel (16-bit RGBA PNG, interlaced), plus tables and edges.
     */
    uint8_t *raw = stb_decode(&p, channels, pixels * 40 + p.n * 4 + (4u << 20), &why);
    if (raw) {
        out->channels = channels;
        out->data = image_host->alloc((size_t)pixels * (size_t)channels);
        turn(&p, raw, channels, out);
        stb_free(raw);
    } else {
        rc = image_host->fail("the image cannot be decoded: %s", why);
    }
    image_host->free(p.own);
    return rc;
}

static const struct burin_codec codec = {
    .size = sizeof codec,
    .name = "stb_image",
    .help = "PNG, JPEG and BMP",
    .probe = probe,
    .size_of = size_of,
    .decode = decode,
};

static const struct burin_codec *const codecs[] = { &codec, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "stb_image",
    .version = "1.1",
    .licence = "MIT",
    .help = "PNG, JPEG and BMP images, through stb_image",
    .codecs = codecs,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *host);

const struct burin_plugin *burin_plugin_main(const struct burin_host *host)
{
    image_host = host;
    return &plugin;
}
