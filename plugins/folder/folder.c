/* SPDX-License-Identifier: MIT
 * folder.c - a dataset that is a folder of images. Three layouts, told apart by names only:
 *   photos/10_sks dog/...   sub-folders named <repeats>_<class tokens>, the convention of kohya's
 * scripts 10_sks dog/...          such a folder itself photos/...              images, each used
 * once Items are sorted byte-wise by path, so that every machine sees the same order. A caption
 * lies beside its image under the same stem; the host reads it, since it knows the encodings
 * (burin_item.caption_path). */
#include "burin_plugin.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 16 /* of recursion: a symbolic link may point upwards */
#define REPEATS_MAX 100000
#define ITEMS_MAX 50000000

enum { OPT_REPEATS, OPT_CAPTION_EXT, OPT_RECURSIVE };
static const struct burin_option options[] = {
    [OPT_REPEATS] = { "repeats", BURIN_OPT_INT, 0, 0, REPEATS_MAX, NULL,
                      "how often an epoch uses each image; 0 = from the folder's name, else 1" },
    [OPT_CAPTION_EXT] = { "caption_ext", BURIN_OPT_STRING, 0, 0, 0, "",
                          "extension of caption files; empty = .txt, then .caption" },
    [OPT_RECURSIVE] = { "recursive", BURIN_OPT_BOOL, 0, 0, 0, NULL,
                        "also take the images of sub-folders" },
    { NULL, 0, 0, 0, 0, NULL, NULL },
};

static const struct burin_host *host;

struct item {
    char *path, *caption_path, *class_tokens;
    int repeats;
};
struct skip {
    char *path;
    const char *reason;
};
struct list {
    void *rows;
    int64_t n, capacity;
};
struct source {
    struct list items, skipped; /* of struct item, struct skip */
    const char *caption_ext;    /* NULL = the default ones */
    int repeats;                /* 0 = from names */
    bool recursive;
};

/* ---- small helpers --------------------------------------------------------------------------- */

static char *copy(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(host->alloc(n), s, n);
}

static char *join(const char *folder, const char *name)
{
    size_t n = strlen(folder);
    bool slash = n && folder[n - 1] == '/';
    char *path = host->alloc(n + strlen(name) + 2);
    memcpy(path, folder, n);
    if (!slash) path[n++] = '/';
    strcpy(path + n, name);
    return path;
}

/* A zeroed row at the end of the list. */
static void *append(struct list *l, size_t row_bytes)
{
    if (l->n == l->capacity) {
        int64_t capacity = l->capacity ? l->capacity * 2 : 64;
        void *rows = host->alloc((size_t)capacity * row_bytes);
        if (l->n) memcpy(rows, l->rows, (size_t)l->n * row_bytes);
        host->free(l->rows);
        l->rows = rows;
        l->capacity = capacity;
    }
    return (char *)l->rows + (size_t)l->n++ * row_bytes;
}

/* Takes over path. */
static void skip(struct source *s, char *path, const char *reason)
{
    struct skip *row = append(&s->skipped, sizeof *row);
    row->path = path;
    row->reason = reason;
}

static const char *extension(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? dot : "";
}

static bool is_one_of(const char *ext, const char *const *list)
{
    for (; *list; list++)
        if (strcasecmp(ext, *list) == 0) return true;
    return false;
}

static bool is_image(const char *name)
{
    static const char *const known[] = { ".png", ".jpg", ".jpeg", ".bmp", NULL };
    return is_one_of(extension(name), known);
}

static bool is_foreign_image(const char *name)
{
    static const char *const foreign[] = { ".webp", ".avif", ".jxl", ".heic", ".heif", ".gif",
                                           ".tif",  ".tiff", ".psd", ".tga",  ".svg",  NULL };
    return is_one_of(extension(name), foreign);
}

/* "10_sks dog" -> 10 and where "sks dog" begins; false when the name does not begin so. */
static bool parse_name(const char *name, int *repeats, const char **tokens)
{
    const char *c = name;
    int64_t n = 0;
    while (*c >= '0' && *c <= '9' && n <= REPEATS_MAX) n = n * 10 + (*c++ - '0');
    if (c == name || *c != '_' || n < 1 || n > REPEATS_MAX) return false;
    *repeats = (int)n;
    *tokens = c + 1;
    return true;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }

/* ---- scanning -------------------------------------------------------------------------------- */

static char *find_caption(const struct source *s, const char *image)
{
    const char *const defaults[] = { ".txt", ".caption", NULL }, *const own[] = { s->caption_ext,
                                                                                  NULL };
    size_t stem = strlen(image) - strlen(extension(image));
    for (const char *const *ext = s->caption_ext ? own : defaults; *ext; ext++) {
        char *path = host->alloc(stem + strlen(*ext) + 1);
        memcpy(path, image, stem);
        strcpy(path + stem, *ext);
        if (access(path, F_OK) == 0) return path;
        host->free(path);
    }
    return NULL;
}

struct folder {
    int repeats;
    const char *tokens;
};

static int scan(struct source *s, const char *path, struct folder how, int depth);

/* Takes over path. */
static int scan_entry(struct source *s, char *path, const char *name, struct folder how, int depth)
{
    struct stat st;
    int rc = 0;
    if (stat(path, &st) != 0) {
        skip(s, path, "it cannot be opened (a broken link, or no permission)");
        return 0;
    }
    if (S_ISDIR(st.st_mode)) {
        if (!s->recursive)
            skip(s, path,
                 "sub-folders are only taken when they are named like \"10_name\", or with "
                 "recursive = true");
        else if (depth == DEPTH_MAX) skip(s, path, "folders are nested too deeply here");
        else {
            rc = scan(s, path, how, depth + 1);
            host->free(path);
        }
        return rc;
    }
    if (is_foreign_image(name) || (is_image(name) && !S_ISREG(st.st_mode))) {
        skip(s, path,
             is_image(name) ? "it is not a regular file"
                            : "this image format is not supported; convert it to PNG or JPEG");
    } else if (is_image(name) && st.st_size == 0) {
        skip(s, path, "it is empty");
    } else if (is_image(name)) {
        if (s->items.n == ITEMS_MAX) return host->fail("%s: more than %d images", path, ITEMS_MAX);
        struct item *i = append(&s->items, sizeof *i);
        i->path = path;
        i->caption_path = find_caption(s, path);
        i->class_tokens = how.tokens && *how.tokens ? copy(how.tokens) : NULL;
        i->repeats = how.repeats;
    } else {
        host->free(path); /* captions and other files are no news */
    }
    return 0;
}

static int scan(struct source *s, const char *path, struct folder how, int depth)
{
    struct dirent **names;
    int n = scandir(path, &names, visible, by_bytes), rc = 0;
    if (n < 0 && depth == 0)
        return host->fail("cannot read the folder %s: %s", path, strerror(errno));
    if (n < 0) skip(s, copy(path), "the folder cannot be read");
    for (int i = 0; i < n; i++) {
        if (rc == 0) rc = scan_entry(s, join(path, names[i]->d_name), names[i]->d_name, how, depth);
        free(names[i]);
    }
    if (n >= 0) free(names);
    return rc;
}

/* Calls scan for each "10_name" below path. *found = how many there are. */
static int scan_numbered(struct source *s, const char *path, int *found)
{
    struct dirent **names;
    int n = scandir(path, &names, visible, by_bytes), rc = 0;
    if (n < 0) return host->fail("cannot read the folder %s: %s", path, strerror(errno));
    *found = 0;
    for (int i = 0; i < n; i++) {
        struct folder how;
        struct stat st;
        char *sub = join(path, names[i]->d_name);
        bool numbered = parse_name(names[i]->d_name, &how.repeats, &how.tokens);
        if (rc == 0 && numbered && stat(sub, &st) == 0 && S_ISDIR(st.st_mode)) {
            how.repeats = s->repeats ? s->repeats : how.repeats;
            rc = scan(s, sub, how, 1);
            ++*found;
        }
        host->free(sub);
    }
    for (int i = 0; i < n && *found; i++) { /* what stands beside them is left out, and said so */
        struct folder how;
        struct stat st;
        char *sub = join(path, names[i]->d_name);
        bool folder = stat(sub, &st) == 0 && S_ISDIR(st.st_mode);
        if (folder && !parse_name(names[i]->d_name, &how.repeats, &how.tokens))
            skip(s, sub, "its name does not begin with a number of repeats, like \"10_name\"");
        else if (!folder && is_image(names[i]->d_name))
            skip(s, sub, "it lies beside folders named like \"10_name\"; move it into one of them");
        else host->free(sub);
    }
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    return rc;
}

/* The last part of a path, without slashes at the end. Caller frees. */
static char *base_name(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    char *name = host->alloc(end - begin + 1);
    memcpy(name, path + begin, end - begin);
    return name;
}

/* ---- the source ------------------------------------------------------------------------------ */

static int probe(const char *location)
{
    struct stat st;
    return stat(location, &st) == 0 && S_ISDIR(st.st_mode) ? 50 : 0;
}

static void source_close(void *self)
{
    struct source *s = self;
    if (!s) return;
    struct item *items = s->items.rows;
    struct skip *skipped = s->skipped.rows;
    for (int64_t i = 0; i < s->items.n; i++) {
        host->free(items[i].path);
        host->free(items[i].caption_path);
        host->free(items[i].class_tokens);
    }
    for (int64_t i = 0; i < s->skipped.n; i++) host->free(skipped[i].path);
    host->free(items);
    host->free(skipped);
    host->free((void *)(uintptr_t)s->caption_ext);
    host->free(s);
}

static void read_options(struct source *s, const struct burin_value *values)
{
    const char *ext = values ? values[OPT_CAPTION_EXT].string : NULL;
    s->repeats = values ? (int)values[OPT_REPEATS].number : 0;
    s->recursive = values && values[OPT_RECURSIVE].number != 0;
    if (ext && *ext) {
        char *own = host->alloc(strlen(ext) + 2); /* "txt" means ".txt" */
        strcpy(own + (*ext != '.'), ext);
        own[0] = '.';
        s->caption_ext = own;
    }
}

static int source_open(const char *location, const struct burin_value *values, void **self)
{
    struct source *s = host->alloc(sizeof *s);
    read_options(s, values);
    struct folder how = { 1, NULL };
    char *name = base_name(location);
    int found = 0, rc = 0;
    if (!parse_name(name, &how.repeats, &how.tokens)) rc = scan_numbered(s, location, &found);
    if (s->repeats) how.repeats = s->repeats;
    if (rc == 0 && !found) rc = scan(s, location, how, 0);
    host->free(name);
    if (rc == 0 && s->items.n == 0)
        rc = host->fail(
            "%s: no images found (.png, .jpg, .jpeg, .bmp); %lld files or folders were left "
            "out%s%s",
            location, (long long)s->skipped.n, s->skipped.n ? ", the first because " : "",
            s->skipped.n ? ((struct skip *)s->skipped.rows)->reason : "");
    if (rc != 0) {
        source_close(s);
        return rc;
    }
    *self = s;
    return 0;
}

static int64_t count(void *self) { return ((struct source *)self)->items.n; }

static int item(void *self, int64_t i, struct burin_item *out)
{
    const struct source *s = self;
    if (i < 0 || i >= s->items.n)
        return host->fail("the folder has no item number %lld", (long long)i);
    const struct item *row = (const struct item *)s->items.rows + i;
    *out = (struct burin_item){ .path = row->path,
                                .class_tokens = row->class_tokens,
                                .repeats = row->repeats,
                                .caption_path = row->caption_path };
    return 0;
}

static int skipped(void *self, int64_t i, const char **path, const char **reason)
{
    const struct source *s = self;
    if (i < 0 || i >= s->skipped.n) return 0;
    const struct skip *row = (const struct skip *)s->skipped.rows + i;
    *path = row->path;
    *reason = row->reason;
    return 1;
}

static const struct burin_source source = {
    .size = sizeof source,
    .name = "folder",
    .help =
        "a folder of images with captions, or of sub-folders named \"<repeats>_<class tokens>\"",
    .probe = probe,
    .options = options,
    .open = source_open,
    .count = count,
    .item = item,
    .skipped = skipped,
    .close = source_close,
};

static const struct burin_source *const sources[] = { &source, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "folder",
    .version = "1.0",
    .licence = "MIT",
    .help = "datasets in folders",
    .sources = sources,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *lent);

const struct burin_plugin *burin_plugin_main(const struct burin_host *lent)
{
    host = lent;
    return &plugin;
}
