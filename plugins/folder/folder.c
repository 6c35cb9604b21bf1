/* SPDX-License-Identifier: MIT
 * folder.c - a dataset that is a folder of images, or of folders named <repeats>_<class tokens>, as
 * kohya's scripts have them, or such a folder itself. What a picture is, the host's codecs say; the
 * name counts only where they do not know the content. Items are sorted byte-wise by path, so that
 * every machine sees the same order. A caption lies beside its image under the same name; the host
 * reads it, since it knows the encodings (burin_item.caption_path). */
#include "burin_plugin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 16 /* of recursion: a symbolic link may point upwards */
#define REPEATS_MAX 100000
#define NAMED_REPEATS_MAX 1000 /* in a folder's name: "2024_portraits" is a year */
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
    char *path, *reason;
};
/* A file that may be a caption. Its extension is read in any case, the rest as it is written. */
struct note {
    char *name;
    size_t stem; /* bytes before the extension */
    int rank;    /* of the extension */
    bool used;
};
struct list {
    void *rows;
    int64_t n, capacity;
};
struct source {
    struct list items, skipped, remarks; /* of struct item, struct skip, char * */
    const char *caption_ext;             /* NULL = the default ones */
    int repeats;                         /* 0 = from names */
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

static char *text(const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    size_t n = (size_t)vsnprintf(NULL, 0, fmt, args) + 1;
    char *out = host->alloc(n);
    vsnprintf(out, n, fmt, again);
    va_end(again);
    return out;
}

/* Takes over path. */
__attribute__((format(printf, 3, 4))) static void skip(struct source *s, char *path,
                                                       const char *why, ...)
{
    va_list args;
    va_start(args, why);
    struct skip *row = append(&s->skipped, sizeof *row);
    row->path = path;
    row->reason = text(why, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void remark(struct source *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char **row = append(&s->remarks, sizeof *row);
    *row = text(fmt, args);
    va_end(args);
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

static bool named_image(const char *name)
{
    static const char *const known[] = { ".png",  ".jpg", ".jpeg", ".jpe",
                                         ".jfif", ".bmp", ".dib",  NULL };
    return is_one_of(extension(name), known);
}

static bool named_foreign_image(const char *name)
{
    static const char *const foreign[] = { ".webp", ".avif", ".jxl", ".heic", ".heif", ".gif",
                                           ".tif",  ".tiff", ".psd", ".tga",  ".svg",  NULL };
    return is_one_of(extension(name), foreign);
}

/* How many bytes were read; 0 where the file cannot be. */
static size_t read_head(const char *path, uint8_t *head, size_t room)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return 0;
    ssize_t n = read(file, head, room);
    close(file);
    return n > 0 ? (size_t)n : 0;
}

enum look { NO_PICTURE, PICTURE, LEFT_OUT };

/* *why says why a picture is left out; *what is what its content looks like, where that is the
 * reason. A file with the name of a picture that is none is taken: who reads it says what it is. */
static enum look look_at(const char *path, const char *name, const struct stat *st,
                         const char **why, const char **what)
{
    uint8_t head[4096];
    bool named = named_image(name), foreign = named_foreign_image(name);
    *what = NULL;
    *why = "it is not a regular file";
    if (!S_ISREG(st->st_mode)) return named || foreign ? LEFT_OUT : NO_PICTURE;
    *why = "it is empty";
    if (named && st->st_size == 0) return LEFT_OUT;
    int known = host->picture(head, read_head(path, head, sizeof head), what);
    if (known > 0 || (known == 0 && named)) return PICTURE;
    *why = "this image format is not supported; convert it to PNG or JPEG";
    return known < 0 || foreign ? LEFT_OUT : NO_PICTURE;
}

/* "10_sks dog" -> 10 and where "sks dog" begins; false when the name does not begin so. */
static bool parse_name(const char *name, int *number, const char **tokens)
{
    const char *c = name;
    int64_t n = 0;
    while (*c >= '0' && *c <= '9') {
        n = n * 10 + (*c++ - '0');
        n = n > INT32_MAX ? INT32_MAX : n;
    }
    if (c == name || *c != '_' || n < 1) return false;
    *number = (int)n;
    *tokens = c + 1;
    return true;
}

/* What the number in a folder's name means. */
static int repeats_of(struct source *s, const char *path, int number)
{
    if (s->repeats) return s->repeats;
    if (number <= NAMED_REPEATS_MAX) return number;
    remark(s,
           "%s: a number above %d is not taken for repeats: each picture counts once; "
           "'repeats' in the concept says otherwise",
           path, NAMED_REPEATS_MAX);
    return 1;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }

/* ---- scanning -------------------------------------------------------------------------------- */

/* The rank of a file's extension among those of captions; -1: it is no caption. */
static int caption_rank(const struct source *s, const char *name)
{
    const char *ext = extension(name);
    if (s->caption_ext) return strcasecmp(ext, s->caption_ext) == 0 ? 0 : -1;
    return strcasecmp(ext, ".txt") == 0 ? 0 : strcasecmp(ext, ".caption") == 0 ? 1 : -1;
}

static int by_stem(const char *a, size_t an, const char *b, size_t bn)
{
    int order = memcmp(a, b, an < bn ? an : bn);
    return order ? order : (an > bn) - (an < bn);
}

static int by_caption(const void *x, const void *y)
{
    const struct note *a = x, *b = y;
    int order = a->rank - b->rank;
    if (!order) order = by_stem(a->name, a->stem, b->name, b->stem);
    return order ? order : -strcmp(a->name, b->name); /* "a.txt" before "a.TXT" */
}

/* The captions among a folder's names, sorted. */
static struct list collect_notes(const struct source *s, struct dirent **names, int n)
{
    struct list notes = { 0 };
    for (int i = 0; i < n; i++) {
        int rank = caption_rank(s, names[i]->d_name);
        if (rank < 0) continue;
        struct note *note = append(&notes, sizeof *note);
        *note = (struct note){ copy(names[i]->d_name),
                               strlen(names[i]->d_name) - strlen(extension(names[i]->d_name)), rank,
                               false };
    }
    if (notes.n) qsort(notes.rows, (size_t)notes.n, sizeof(struct note), by_caption);
    return notes;
}

/* The first note of this rank and stem. Those of the same stem belong to the same picture. */
static struct note *find_note(struct list *notes, int rank, const char *stem, size_t n)
{
    struct note *rows = notes->rows;
    int64_t low = 0, high = notes->n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        const struct note *m = &rows[middle];
        int order = m->rank - rank;
        if (!order) order = by_stem(m->name, m->stem, stem, n);
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    for (int64_t i = low;
         i < notes->n && rows[i].rank == rank && by_stem(rows[i].name, rows[i].stem, stem, n) == 0;
         i++)
        rows[i].used = true;
    return low < notes->n && rows[low].rank == rank && rows[low].used &&
                   by_stem(rows[low].name, rows[low].stem, stem, n) == 0
               ? &rows[low]
               : NULL;
}

/* Of "a.png": a.txt, else a.png.txt, else a.caption, else a.png.caption. */
static struct note *caption_of(struct list *notes, const char *image)
{
    size_t whole = strlen(image), stem = whole - strlen(extension(image));
    struct note *first = NULL;
    for (int rank = 0; rank < 2; rank++) {
        struct note *found[2] = { find_note(notes, rank, image, stem),
                                  find_note(notes, rank, image, whole) };
        for (int i = 0; i < 2; i++) first = first ? first : found[i];
    }
    return first;
}

/* Says which captions have no picture. */
static void finish_notes(struct source *s, const char *folder, struct list *notes)
{
    struct note *rows = notes->rows;
    for (int64_t i = 0; i < notes->n; i++) {
        if (!rows[i].used) skip(s, join(folder, rows[i].name), "it is a caption without a picture");
        host->free(rows[i].name);
    }
    host->free(rows);
}

struct folder {
    const char *path;
    int repeats, depth;
    const char *tokens;
    struct list notes;
};

static int scan(struct source *s, struct folder how);

/* Takes over path. */
static int scan_folder(struct source *s, char *path, const struct folder *above)
{
    int rc = 0;
    if (!s->recursive)
        skip(s, path,
             "sub-folders are only taken when all pictures are in sub-folders named like "
             "\"10_name\"; it can be a concept of its own: { images = \"%s\" }",
             path);
    else if (above->depth == DEPTH_MAX) skip(s, path, "folders are nested too deeply here");
    else {
        rc = scan(s,
                  (struct folder){ path, above->repeats, above->depth + 1, above->tokens, { 0 } });
        host->free(path);
    }
    return rc;
}

/* Takes over path. */
static int add_picture(struct source *s, char *path, const struct note *caption,
                       const struct folder *in)
{
    if (s->items.n == ITEMS_MAX) return host->fail("%s: more than %d images", path, ITEMS_MAX);
    struct item *i = append(&s->items, sizeof *i);
    i->path = path;
    i->caption_path = caption ? join(in->path, caption->name) : NULL;
    i->class_tokens = in->tokens && *in->tokens ? copy(in->tokens) : NULL;
    i->repeats = in->repeats;
    return 0;
}

/* Takes over path. */
static int scan_entry(struct source *s, char *path, const char *name, struct folder *in)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        skip(s, path, "it cannot be opened (a broken link, or no permission)");
        return 0;
    }
    if (S_ISDIR(st.st_mode)) return scan_folder(s, path, in);
    const char *why, *what;
    enum look look = caption_rank(s, name) < 0 ? look_at(path, name, &st, &why, &what) : NO_PICTURE;
    const struct note *caption = look != NO_PICTURE ? caption_of(&in->notes, name) : NULL;
    if (look == PICTURE) return add_picture(s, path, caption, in);
    if (look == LEFT_OUT && what) skip(s, path, "it is %s; %s", what, why);
    else if (look == LEFT_OUT) skip(s, path, "%s", why);
    else host->free(path); /* captions and other files are no news */
    return 0;
}

/* scandir, whose want of memory is the host's: asking for more than there is ends the program. */
static int list(const char *path, struct dirent ***names)
{
    int n = scandir(path, names, visible, by_bytes);
    if (n < 0 && errno == ENOMEM) host->free(host->alloc(SIZE_MAX / 2));
    return n;
}

static int scan(struct source *s, struct folder how)
{
    struct dirent **names;
    int n = list(how.path, &names), rc = 0;
    if (n < 0 && how.depth == 0)
        return host->fail("cannot read the folder %s: %s", how.path, strerror(errno));
    if (n < 0) {
        skip(s, copy(how.path), "the folder cannot be read");
        return 0;
    }
    how.notes = collect_notes(s, names, n);
    for (int i = 0; i < n; i++) {
        if (rc == 0) rc = scan_entry(s, join(how.path, names[i]->d_name), names[i]->d_name, &how);
        free(names[i]);
    }
    free(names);
    finish_notes(s, how.path, &how.notes);
    return rc;
}

/* What stands beside numbered folders is left out, and said so. Takes over path. */
static void skip_beside(struct source *s, char *path, const char *name)
{
    struct stat st;
    const char *why, *what;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode))
        skip(s, path,
             "its name does not begin with a number of repeats, like \"10_name\", as those beside "
             "it do");
    else if (there && caption_rank(s, name) < 0 && look_at(path, name, &st, &why, &what))
        skip(s, path, "it lies beside folders named like \"10_name\"; move it into one of them");
    else host->free(path);
}

/* Calls scan for each "10_name" below path. *found = how many there are. */
static int scan_numbered(struct source *s, const char *path, int *found)
{
    struct dirent **names;
    int n = list(path, &names), rc = 0;
    if (n < 0) return host->fail("cannot read the folder %s: %s", path, strerror(errno));
    bool *taken = host->alloc((size_t)n + 1);
    *found = 0;
    for (int i = 0; i < n; i++) {
        struct folder how = { .depth = 1 };
        struct stat st;
        char *sub = join(path, names[i]->d_name);
        int number;
        taken[i] = parse_name(names[i]->d_name, &number, &how.tokens) && stat(sub, &st) == 0 &&
                   S_ISDIR(st.st_mode);
        if (rc == 0 && taken[i]) {
            how.path = sub;
            how.repeats = repeats_of(s, sub, number);
            rc = scan(s, how);
            ++*found;
        }
        host->free(sub);
    }
    for (int i = 0; i < n; i++) {
        if (*found && !taken[i]) skip_beside(s, join(path, names[i]->d_name), names[i]->d_name);
        free(names[i]);
    }
    free(names);
    host->free(taken);
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
    for (int64_t i = 0; i < s->skipped.n; i++) {
        host->free(skipped[i].path);
        host->free(skipped[i].reason);
    }
    for (int64_t i = 0; i < s->remarks.n; i++) host->free(((char **)s->remarks.rows)[i]);
    host->free(s->remarks.rows);
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

static int fail_empty(const struct source *s, const char *location)
{
    if (!s->skipped.n) return host->fail("%s: no images found", location);
    const struct skip *first = s->skipped.rows;
    return host->fail(
        "%s: no images found; %lld files or folders were left out, the first is %s: %s", location,
        (long long)s->skipped.n, first->path, first->reason);
}

static int source_open(const char *location, const struct burin_value *values, void **self)
{
    struct source *s = host->alloc(sizeof *s);
    read_options(s, values);
    struct folder how = { .path = location };
    char *name = base_name(location);
    int number = 1, found = 0, rc = 0;
    bool numbered = parse_name(name, &number, &how.tokens);
    if (!numbered) rc = scan_numbered(s, location, &found);
    if (rc == 0 && !found) {
        how.repeats = numbered ? repeats_of(s, location, number) : s->repeats ? s->repeats : 1;
        rc = scan(s, how);
    }
    host->free(name);
    if (rc == 0 && s->items.n == 0) rc = fail_empty(s, location);
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

static int remark_at(void *self, int64_t i, const char **out)
{
    const struct source *s = self;
    if (i < 0 || i >= s->remarks.n) return 0;
    *out = ((char *const *)s->remarks.rows)[i];
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
    .remark = remark_at,
    .close = source_close,
};

static const struct burin_source *const sources[] = { &source, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "folder",
    .version = "1.1",
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
