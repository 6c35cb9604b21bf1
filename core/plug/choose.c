/* SPDX-License-Identifier: MIT
 * choose.c - which plugin is for a file: by content, and a helpful sentence when none is. */
#include "plug/registry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD_BYTES 4096

static bool starts(const uint8_t *head, size_t n, const char *with)
{
    size_t k = strlen(with);
    return n >= k && memcmp(head, with, k) == 0;
}

static bool holds(const uint8_t *head, size_t n, const char *what)
{
    size_t k = strlen(what);
    for (size_t i = 0; i + k <= n; i++)
        if (memcmp(head + i, what, k) == 0) return true;
    return false;
}

/* What people really have in their models folder instead of a model. NULL = nothing known. */
static const char *looks_like(const uint8_t *head, size_t n)
{
    if (n == 0) return "is empty; download it again";
    if (starts(head, n, "version https://git-lfs"))
        return "is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder";
    if (starts(head, n, "<") && (holds(head, n, "html") || holds(head, n, "HTML")))
        return "is an HTML page, probably an error page saved by a download; download it again";
    if (starts(head, n, "<?xml"))
        return "is an XML document, probably an error page saved by a download; download it again";
    if (starts(head, n, "PK\003\004"))
        return "is a zip archive, probably a PyTorch checkpoint (.ckpt, .pt, .bin)";
    if (n >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5)
        return "is a Python pickle, probably a checkpoint from before PyTorch 1.6, which cannot be "
               "read without "
               "running it; load it once with PyTorch and save it again, best as .safetensors";
    if (starts(head, n, "GGUF")) return "is a GGUF file";
    if (starts(head, n, "{")) return "is a JSON document, not a model";
    if (starts(head, n, "\037\213")) return "is a gzip archive; unpack it first";
    if (starts(head, n, "7z\274\257\047\034")) return "is a 7-Zip archive; unpack it first";
    if (starts(head, n, "Rar!\032\007")) return "is a RAR archive; unpack it first";
    if (n > 262 && memcmp(head + 257, "ustar", 5) == 0)
        return "is a tar archive; unpack it, or, if it is a checkpoint from before PyTorch 1.6, "
               "load it once with "
               "PyTorch and save it again, best as .safetensors";
    return NULL;
}

static void accepted(enum plug_kind k, struct str *out)
{
    for (int i = 0; i < plug_count(); i++) {
        struct plug_loaded *p = plug_loaded_at(i);
        for (int j = 0; j < p->n[k]; j++) {
            const struct burin_loader *any = p->list[k][j]; /* size, name, help begin every kind */
            str_addf(out, "%s%s", out->len ? ", " : "", any->name);
        }
    }
    if (!out->len) str_add(out, "none, because no such plugin is loaded");
}

const struct burin_loader *plug_loader_for(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        fail("cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    bool folder = S_ISDIR(st.st_mode);
    if (!folder && !S_ISREG(st.st_mode)) {
        fail("%s is neither a file nor a folder", path);
        return NULL;
    }
    uint8_t head[HEAD_BYTES];
    size_t n = 0;
    if (!folder) {
        FILE *f = fopen(path, "rb");
        if (!f) {
            mem_check();
            fail("cannot open %s: %s", path, strerror(errno));
            return NULL;
        }
        n = fread(head, 1, sizeof head, f);
        fclose(f);
    }
    const struct burin_loader *best = NULL;
    int best_score = 0;
    /* An empty file must not look like a folder (n == 0) to a loader. */
    for (int i = 0; (folder || n > 0) && i < plug_count(); i++) {
        struct plug_loaded *p = plug_loaded_at(i);
        for (int j = 0; j < p->n[PLUG_LOADER]; j++) {
            const struct burin_loader *l = p->list[PLUG_LOADER][j];
            int score = PLUG_CALL(l, l->probe(path, head, n));
            if (score > best_score) {
                best_score = score;
                best = l;
            }
        }
    }
    if (best) return best;
    const char *what = folder ? "is a folder" : looks_like(head, n);
    struct str names = { 0 };
    accepted(PLUG_LOADER, &names);
    fail("%s %s; model formats that can be read: %s", path,
         what ? what : "is in no known model format", names.data);
    str_finish(&names);
    return NULL;
}

const struct burin_exporter *plug_exporter(const char *name)
{
    const char *names[64];
    int n_names = 0;
    for (int i = 0; i < plug_count(); i++) {
        struct plug_loaded *p = plug_loaded_at(i);
        for (int j = 0; j < p->n[PLUG_EXPORTER]; j++) {
            const struct burin_exporter *e = p->list[PLUG_EXPORTER][j];
            if (strcmp(e->name, name) == 0) return e;
            if (n_names < COUNT_OF(names)) names[n_names++] = e->name;
        }
    }
    struct str known = { 0 };
    accepted(PLUG_EXPORTER, &known);
    const char *near = str_nearest(name, names, n_names);
    fail("no plugin writes the format \"%s\"%s%s%s; formats that can be written: %s", name,
         near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "", known.data);
    str_finish(&known);
    return NULL;
}

const struct burin_source *plug_source_for(const char *location)
{
    const struct burin_source *best = NULL;
    int best_score = 0;
    for (int i = 0; i < plug_count(); i++) {
        struct plug_loaded *p = plug_loaded_at(i);
        for (int j = 0; j < p->n[PLUG_SOURCE]; j++) {
            const struct burin_source *s = p->list[PLUG_SOURCE][j];
            int score = PLUG_CALL(s, s->probe(location));
            if (score > best_score) {
                best_score = score;
                best = s;
            }
        }
    }
    if (best) return best;
    struct stat st;
    struct str names = { 0 };
    accepted(PLUG_SOURCE, &names);
    const char *why = stat(location, &st) != 0 ? strerror(errno)
                      : S_ISDIR(st.st_mode)    ? "no plugin takes this folder"
                                               : "it is not a folder";
    fail("cannot use \"%s\" as a dataset: %s; dataset sources: %s", location, why, names.data);
    str_finish(&names);
    return NULL;
}

static bool is_at(const uint8_t *head, size_t n, size_t at, const char *what, size_t k)
{
    return n >= at + k && memcmp(head + at, what, k) == 0;
}

/* Image formats that no plugin here may read, so that the sentence can name them; else NULL. */
static const char *picture_name(const uint8_t *head, size_t n)
{
    if (starts(head, n, "GIF8")) return "a GIF image";
    if (starts(head, n, "RIFF") && is_at(head, n, 8, "WEBP", 4)) return "a WebP image";
    if (is_at(head, n, 4, "ftyp", 4))
        return holds(head, n < 64 ? n : 64, "avif") ? "an AVIF image" : "a HEIC image or a video";
    if (is_at(head, n, 0, "II*\0", 4) || is_at(head, n, 0, "MM\0*", 4)) return "a TIFF image";
    if (starts(head, n, "8BPS")) return "a Photoshop file";
    if (starts(head, n, "\xff\x0a") || is_at(head, n, 4, "JXL ", 4)) return "a JPEG XL image";
    return NULL;
}

static const char *image_looks_like(const uint8_t *head, size_t n)
{
    const char *name = picture_name(head, n);
    return name                   ? name
           : n == 0               ? "an empty file"
           : starts(head, n, "<") ? "an HTML or SVG document"
                                  : "no known image format";
}

static plug_codec_asker *codec_asker;

void plug_ask_for_codec(plug_codec_asker *ask) { codec_asker = ask; }

/* *best: NULL when there is none. false with a sentence when that could not be found out. */
static bool codec_for(const uint8_t *head, size_t n, const struct burin_codec **best)
{
    int best_score = 0;
    *best = NULL;
    if (codec_asker && n > 0) {
        bool ok = codec_asker(head, n, best);
        if (codec_asker) return ok; /* else there is nobody to ask any more */
    }
    for (int i = 0; n > 0 && i < plug_count(); i++) {
        struct plug_loaded *p = plug_loaded_at(i);
        for (int j = 0; j < p->n[PLUG_CODEC]; j++) {
            const struct burin_codec *c = p->list[PLUG_CODEC][j];
            int score = PLUG_CALL(c, c->probe(head, n));
            if (score > best_score) {
                best_score = score;
                *best = c;
            }
        }
    }
    return true;
}

const struct burin_plugin *plug_of_codec(const struct burin_codec *codec)
{
    for (int i = 0; i < plug_count(); i++) {
        const struct plug_loaded *p = plug_loaded_at(i);
        for (int j = 0; j < p->n[PLUG_CODEC]; j++)
            if (p->list[PLUG_CODEC][j] == codec) return &p->plugin;
    }
    return NULL;
}

int plug_picture(const uint8_t *head, size_t n, const char **what)
{
    const struct burin_codec *codec;
    *what = NULL;
    if (!codec_for(head, n, &codec) || codec) return 1; /* its owner hears why it cannot be read */
    *what = picture_name(head, n);
    return *what ? -1 : 0;
}

const struct burin_codec *plug_codec_for(const uint8_t *head, size_t n)
{
    const struct burin_codec *best;
    if (!codec_for(head, n, &best) || best) return best;
    struct str names = { 0 };
    accepted(PLUG_CODEC, &names);
    fail("its content is %s; image decoders: %s", image_looks_like(head, n), names.data);
    str_finish(&names);
    return NULL;
}
