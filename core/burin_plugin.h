/* SPDX-License-Identifier: MIT
 *
 * burin_plugin.h - everything a plugin needs. A plugin is a shared library that exports one symbol,
 *
 *     const struct burin_plugin *burin_plugin_main(const struct burin_host *host);
 *
 * links against nothing of ours and includes nothing else of ours. It returns a
 * constant description of itself, or NULL after host->fail(...). It is never
 * unloaded before the process ends.
 *
 * Every struct that the plugin fills begins with its size; structs only grow at their end; a field
 * that the plugin's header did not have yet reads as zero. Callbacks marked "required" must be set;
 * the host refuses the plugin otherwise, with its name in the message. All callbacks return 0 on
 * success, -1 after host->fail(...), unless they say otherwise. Files are untrusted: a plugin
 * checks every size before use and never allocates more than the file can back.
 *
 * ABI log: adding a field at the end of a struct, or a kind, bumps
 * BURIN_ABI by one and gets a line here.
 *   1  first release: loaders, exporters, sources, codecs
 *   2  burin_host.picture, burin_source.remark
 *   3  burin_host.hash
 */
#ifndef BURIN_PLUGIN_H
#define BURIN_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BURIN_ABI 3
#define BURIN_EXPORT __attribute__((visibility("default")))
#define BURIN_PLUGIN_RANK 8

/* What the host lends to a plugin; valid until the process ends. */
struct burin_host {
    size_t size;
    uint32_t abi;
    void *(*alloc)(size_t bytes); /* zeroed; never NULL (the host aborts) */
    void (*free)(void *p);
    void (*log)(int level, const char *fmt, ...); /* 1 error, 2 warning, 3 info, 4 debug */
    int (*fail)(const char *fmt, ...);            /* records a full sentence; returns -1 */
    /* Whether the first n bytes (best 4096) are those of a picture: 1 = a codec here reads it,
     * -1 = none does, 0 = it is no picture. *what: "a WebP image", where it is -1; else NULL. */
    int (*picture)(const uint8_t *head, size_t n, const char **what);
    uint64_t (*hash)(const void *bytes, size_t n, uint64_t seed); /* XXH3, of 64 bits */
};

/* Element types, numbered as burin_dtype in burin.h. */
enum burin_plugin_dtype {
    BURIN_T_F32 = 1,
    BURIN_T_F16,
    BURIN_T_BF16,
    BURIN_T_I32,
    BURIN_T_F64,
    BURIN_T_I64,
    BURIN_T_I16,
    BURIN_T_I8,
    BURIN_T_U8,
    BURIN_T_BOOL,
    BURIN_T_F8_E4M3,
    BURIN_T_F8_E5M2,
    BURIN_T_U16,
    BURIN_T_U32,
    BURIN_T_U64,
};

/* ---- options: a const table, so that a Lua table is checked before the plugin sees it -------- */

enum burin_option_type { BURIN_OPT_BOOL = 1, BURIN_OPT_INT, BURIN_OPT_NUMBER, BURIN_OPT_STRING };

struct burin_option { /* a table ends with a NULL name */
    const char *name;
    int type;                  /* enum burin_option_type */
    double fallback, min, max; /* numbers and booleans; min == max means no range */
    const char *fallback_string;
    const char *help; /* one line */
};
/* One per row of the table, in its order */
struct burin_value {
    double number;
    const char *string;
};

/* ---- loader: reads a model file -------------------------------------------------------------- */

struct burin_tensor_info {
    char name[512]; /* NUL-terminated UTF-8 */
    int dtype;      /* enum burin_plugin_dtype */
    int rank;
    int64_t dim[BURIN_PLUGIN_RANK];
    uint64_t bytes;
    const void *mapped; /* the bytes themselves when the file is memory-mapped, else NULL */
};

struct burin_loader {
    size_t size;
    const char *name, *help;
    /* required: 0 = not mine .. 100 = certainly mine. head: the first n bytes (n
     * <= 4096); a folder has n = 0. */
    int (*probe)(const char *path, const uint8_t *head, size_t n);
    int (*open)(const char *path, void **self);                        /* required */
    int64_t (*count)(void *self);                                      /* required */
    int (*info)(void *self, int64_t i, struct burin_tensor_info *out); /* required */
    int (*read)(void *self, int64_t i, void *dst, uint64_t bytes);     /* required */
    /* i-th metadata entry; returns 1 and sets both, 0 at the end. optional */
    int (*meta)(void *self, int64_t i, const char **key, const char **value);
    void (*close)(void *self); /* required; accepts NULL */
};

/* ---- exporter: writes a model file ----------------------------------------------------------- */

#define BURIN_NOT_FINITE (-2)
#define BURIN_NOT_SYNCED (-3)

struct burin_exporter {
    size_t size;
    const char *name, *help, *extension;
    /* required. The file appears under `path` only when finish succeeds, whole and synced to disk.
     * What is written meanwhile is named path.tmp-<process id>-<anything>: a signal that ends the
     * host removes it. */
    int (*begin)(const char *path, void **self);
    int (*meta)(void *self, const char *key, const char *value); /* optional */
    /* required. Announces a tensor; all are announced before the first put. */
    int (*declare)(void *self, const struct burin_tensor_info *info);
    /* Required, any order. BURIN_NOT_FINITE instead of -1: refused, because a value is no finite
     * number. */
    int (*put)(void *self, const char *name, const void *data, uint64_t bytes);
    /* Required; frees self. BURIN_NOT_SYNCED instead of -1: the disk failed to sync (EIO), and
     * writing the file once more, from the beginning, may help. */
    int (*finish)(void *self);
    void (*abort)(void *self); /* required; leaves nothing */
};

/* ---- source: lists the items of a dataset ---------------------------------------------------- */

struct burin_item {
    const char *path;         /* of the image file; valid until close */
    const char *caption;      /* UTF-8, or NULL when the item has none */
    const char *class_tokens; /* from a folder named "10_sks dog", else NULL */
    int repeats;              /* >= 1 */
    /* When caption is NULL: the file that holds it, or NULL. The host reads it by its own rules
     * (encodings, line ends, which lines), so that every source treats captions alike. */
    const char *caption_path;
};

struct burin_source {
    size_t size;
    const char *name, *help;
    int (*probe)(const char *location); /* required; 0 .. 100 */
    const struct burin_option *options;
    int (*open)(const char *location, const struct burin_value *values, void **self); /* required */
    int64_t (*count)(void *self);                                                     /* required */
    int (*item)(void *self, int64_t i, struct burin_item *out);                       /* required */
    /* i-th file that was left out and why; returns 1, 0 at the end. optional */
    int (*skipped)(void *self, int64_t i, const char **path, const char **reason);
    void (*close)(void *self); /* required; accepts NULL */
    /* i-th sentence about what was found that its owner may not expect; returns 1, 0 at the end.
     * optional */
    int (*remark)(void *self, int64_t i, const char **text);
};

/* ---- codec: image bytes to pixels ------------------------------------------------------------ */

/* Called in a process of its own, where files cannot be opened and threads of before are not: a
 * crash costs the picture. */

struct burin_pixels {
    int width, height;
    int channels;  /* of data: 3 (RGB) or 4 (RGBA) */
    uint8_t *data; /* rows top to bottom, host->alloc; the host frees it */
};

struct burin_codec {
    size_t size;
    const char *name, *help;
    int (*probe)(const uint8_t *head, size_t n); /* required; 0 .. 100 */
    /* required. Width, height only; at most max_pixels. EXIF
     * orientation is already applied. */
    int (*size_of)(const uint8_t *bytes, size_t n, int *width, int *height);
    /* Required */
    int (*decode)(const uint8_t *bytes, size_t n, uint64_t max_pixels, struct burin_pixels *out);
};

/* ---- the plugin itself ----------------------------------------------------------------------- */

struct burin_plugin {
    size_t size;
    uint32_t abi; /* BURIN_ABI of the header it was compiled with */
    const char *name, *version, *licence, *help;
    const struct burin_loader *const *loaders; /* each list NULL-terminated, or NULL */
    const struct burin_exporter *const *exporters;
    const struct burin_source *const *sources;
    const struct burin_codec *const *codecs;
};

typedef const struct burin_plugin *burin_plugin_main_fn(const struct burin_host *host);

#ifdef __cplusplus
}
#endif
#endif
