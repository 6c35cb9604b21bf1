/* SPDX-License-Identifier: MIT
 * image.c - image files to pixels, through the codec plugins. */
#include "data/data.h"

#include "plug/plug.h"

#include <string.h>

/* To be raised when flatten, or image_cover, computes something else. */
#define RULES "alpha over white 1, cover 1"

#define SIDE_MAX (1 << 20)

/* Maps the file and finds its codec. On failure the map is closed. */
static const struct burin_codec *open_image(const char *path, struct file_map *m)
{
    if (!file_map_open(m, path)) return NULL;
    const struct burin_codec *codec = plug_codec_for(m->data, m->bytes < 4096 ? m->bytes : 4096);
    if (!codec) {
        file_map_close(m);
        fail_prefix("cannot read the image %s", path);
    }
    return codec;
}

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

/* Checked once, here: what a codec says of its picture. */
static bool ask_size(const struct burin_codec *codec, const struct file_map *m, int *width,
                     int *height)
{
    plug_ask();
    *width = *height = 0;
    if (PLUG_CALL(codec, codec->size_of(m->data, m->bytes, width, height)))
        return plug_refused(codec);
    return (*width > 0 && *height > 0 && *width <= SIDE_MAX && *height <= SIDE_MAX) ||
           plug_lies(codec, "a picture is said to have %d x %d pixels", *width, *height);
}

static bool ask_pixels(const struct burin_codec *codec, const struct file_map *m, uint64_t max,
                       struct burin_pixels *p)
{
    int width, height;
    if (!ask_size(codec, m, &width, &height)) return false;
    plug_ask();
    if (PLUG_CALL(codec, codec->decode(m->data, m->bytes, max, p))) return plug_refused(codec);
    if (p->width != width || p->height != height)
        return plug_lies(codec, "a picture of %d x %d pixels was decoded to %d x %d", width, height,
                         p->width, p->height);
    uint64_t pixels = (uint64_t)width * (uint64_t)height;
    if (pixels > max || !p->data || (p->channels != 3 && p->channels != 4))
        return plug_lies(codec, "it decoded no usable picture");
    return true;
}

bool image_load(const char *path, uint64_t max_pixels, struct image *out)
{
    struct file_map m;
    *out = (struct image){ 0 };
    const struct burin_codec *codec = open_image(path, &m);
    if (!codec) return false;
    struct burin_pixels pixels = { 0 };
    bool ok = ask_pixels(codec, &m, max_pixels, &pixels);
    file_map_close(&m);
    if (!ok) {
        mem_free(pixels.data);
        return fail_prefix("cannot read the image %s", path);
    }
    out->width = pixels.width;
    out->height = pixels.height;
    out->rgb = mem_alloc((size_t)pixels.width * (size_t)pixels.height * 3);
    flatten(&pixels, out->rgb);
    mem_free(pixels.data);
    return true;
}

bool image_size(const char *path, int *width, int *height)
{
    struct file_map m;
    const struct burin_codec *codec = open_image(path, &m);
    if (!codec) return false;
    bool ok = ask_size(codec, &m, width, height);
    file_map_close(&m);
    return ok || fail_prefix("cannot read the image %s", path);
}

char *image_recipe(const char *path)
{
    struct file_map m;
    const struct burin_codec *codec = open_image(path, &m);
    if (!codec) return NULL;
    file_map_close(&m);
    const struct burin_plugin *plugin = plug_of_codec(codec);
    struct str out = { 0 };
    str_addf(&out, "%s %s %s, " RULES, plugin->name, plugin->version ? plugin->version : "",
             codec->name);
    return out.data;
}

void image_finish(struct image *i)
{
    mem_free(i->rgb);
    *i = (struct image){ 0 };
}
