/* SPDX-License-Identifier: MIT
 * image.c - image files to pixels, through the codec plugins. */
#include "data/data.h"

#include "data/decoder.h"
#include "plug/plug.h"

#include <string.h>
#include <unistd.h>

/* To be raised when flatten, or image_cover, computes something else. */
#define RULES "alpha over white 1, cover 1"

#define SIDE_MAX (1 << 20)

/* Whatever is transparent becomes white, as a page. */
static void flatten(const struct burin_pixels *p, uint8_t *rgb)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    const uint8_t *from = p->data;
    if (p->channels == 3) {
        memcpy(rgb, from, n * 3);
        return;
    }
    for (size_t i = 0; i < n; i++, from += 4, rgb += 3)
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)((from[c] * from[3] + 255 * (255 - from[3]) + 127) / 255);
}

/* ---- what a codec says, checked once: in this process ---------------------------------------- */

static bool is_size(int width, int height)
{
    return width > 0 && height > 0 && width <= SIDE_MAX && height <= SIDE_MAX;
}

static const struct burin_codec *codec_of(const struct file_map *m)
{
    return plug_codec_for(m->data, m->bytes < DECODER_HEAD ? m->bytes : DECODER_HEAD);
}

bool picture_size(const struct file_map *m, int *width, int *height)
{
    const struct burin_codec *codec = codec_of(m);
    if (!codec) return false;
    plug_ask();
    *width = *height = 0;
    if (PLUG_CALL(codec, codec->size_of(m->data, m->bytes, width, height)))
        return plug_refused(codec);
    return is_size(*width, *height) ||
           plug_lies(codec, "a picture is said to have %d x %d pixels", *width, *height);
}

static bool check_pixels(const struct burin_codec *codec, const struct burin_pixels *p, int width,
                         int height)
{
    if (p->width != width || p->height != height)
        return plug_lies(codec, "a picture of %d x %d pixels was decoded to %d x %d", width, height,
                         p->width, p->height);
    return (p->data && (p->channels == 3 || p->channels == 4)) ||
           plug_lies(codec, "it decoded no usable picture");
}

bool picture_pixels(const struct file_map *m, int width, int height, uint8_t *rgb)
{
    const struct burin_codec *codec = codec_of(m);
    if (!codec) return false;
    struct burin_pixels p = { 0 };
    uint64_t pixels = (uint64_t)width * (uint64_t)height;
    plug_ask();
    bool ok = !PLUG_CALL(codec, codec->decode(m->data, m->bytes, pixels, &p));
    ok = ok ? check_pixels(codec, &p, width, height) : plug_refused(codec);
    if (ok) flatten(&p, rgb);
    mem_free(p.data);
    return ok;
}

/* ---- pictures: where there is another process for it, there ---------------------------------- */

static bool size_of(const struct picture *p, int *width, int *height)
{
    struct file_map m;
    if (decoder_runs()) {
        bool ok = decoder_size(p, width, height);
        if (ok && !is_size(*width, *height)) return fail("it has an impossible size");
        if (ok || decoder_runs()) return ok;
    }
    if (!file_map_fd(&m, p->fd, p->bytes)) return false;
    bool ok = picture_size(&m, width, height);
    file_map_close(&m);
    return ok;
}

static bool pixels_of(const struct picture *p, struct image *out)
{
    struct file_map m;
    if (decoder_runs()) {
        out->lent = decoder_pixels(p, out->width, out->height, &out->rgb);
        if (out->lent || decoder_runs()) return out->lent;
    }
    if (!file_map_fd(&m, p->fd, p->bytes)) return false;
    out->rgb = mem_alloc((size_t)out->width * (size_t)out->height * 3);
    bool ok = picture_pixels(&m, out->width, out->height, out->rgb);
    file_map_close(&m);
    return ok;
}

static bool load(const struct picture *p, uint64_t max_pixels, struct image *out)
{
    if (!size_of(p, &out->width, &out->height)) return false;
    if ((uint64_t)out->width * (uint64_t)out->height > max_pixels)
        return fail("it has %d x %d pixels, more than the limit of %llu; make it smaller",
                    out->width, out->height, (unsigned long long)max_pixels);
    return pixels_of(p, out);
}

bool image_load(const char *path, uint64_t max_pixels, struct image *out)
{
    struct picture p;
    *out = (struct image){ 0 };
    p.fd = file_open(path, &p.bytes);
    if (p.fd < 0) return false;
    bool ok = load(&p, max_pixels, out);
    close(p.fd);
    if (ok) return true;
    image_finish(out);
    return fail_prefix("cannot read the image %s", path);
}

bool image_size(const char *path, int *width, int *height)
{
    struct picture p;
    p.fd = file_open(path, &p.bytes);
    if (p.fd < 0) return false;
    bool ok = size_of(&p, width, height);
    close(p.fd);
    return ok || fail_prefix("cannot read the image %s", path);
}

char *image_recipe(const char *path)
{
    struct file_map m;
    if (!file_map_open(&m, path)) return NULL;
    const struct burin_codec *codec = codec_of(&m);
    file_map_close(&m);
    if (!codec) {
        fail_prefix("cannot read the image %s", path);
        return NULL;
    }
    const struct burin_plugin *plugin = plug_of_codec(codec);
    struct str out = { 0 };
    str_addf(&out, "%s %s %s, " RULES, plugin->name, plugin->version ? plugin->version : "",
             codec->name);
    return out.data;
}

void image_finish(struct image *i)
{
    if (!i->lent) mem_free(i->rgb);
    *i = (struct image){ 0 };
}
