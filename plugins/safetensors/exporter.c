/* SPDX-License-Identifier: MIT
 * exporter.c - writing. The file is laid out as the specification asks (header padded with spaces
 * to 8 bytes, tensors without holes) and ordered by element size, then name, which keeps every
 * tensor aligned and equal models equal byte for byte. It is written beside its final name, synced,
 * parsed again by the loader's own code, its data compared with hashes of what was given, and only
 * then renamed: nobody ever sees a half-written or damaged file. */
#include "st.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct out_tensor {
    struct st_tensor t;
    char *name;
    bool written;
    uint64_t hash;
};
struct out_meta {
    char *key, *value;
};
struct buffer {
    char *data;
    size_t n, cap;
};

struct exporter {
    char *path, *temp;
    int fd;
    bool laid_out, failed;
    struct out_tensor *tensor; /* sorted by name once laid out */
    int64_t n, capacity;
    struct out_meta *meta;
    int64_t n_meta, meta_capacity;
    uint64_t data, data_bytes;
    struct buffer head; /* all that comes before the data */
    size_t sums;        /* where its ST_SUMS are; 0: none */
};

static char *copy(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(st_host->alloc(n), s, n);
}

static void add(struct buffer *b, const char *s, size_t n)
{
    if (b->n + n > b->cap) {
        size_t cap = (b->n + n) * 2 + 256;
        char *bigger = st_host->alloc(cap);
        if (b->n) memcpy(bigger, b->data, b->n);
        st_host->free(b->data);
        b->data = bigger;
        b->cap = cap;
    }
    memcpy(b->data + b->n, s, n);
    b->n += n;
}

static void add_text(struct buffer *b, const char *s) { add(b, s, strlen(s)); }

static void add_string(struct buffer *b, const char *s)
{
    add_text(b, "\"");
    for (; *s; s++) {
        char escaped[8];
        if ((unsigned char)*s < 0x20) snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)*s);
        else snprintf(escaped, sizeof escaped, "%s%c", *s == '"' || *s == '\\' ? "\\" : "", *s);
        add_text(b, escaped);
    }
    add_text(b, "\"");
}

static bool is_utf8(const char *s)
{
    const char *end = s + strlen(s);
    while (s < end) {
        size_t n = utf8_length(s, end);
        if (!n) return false;
        s += n;
    }
    return true;
}

static void release(struct exporter *e)
{
    if (e->fd >= 0) close(e->fd);
    for (int64_t i = 0; i < e->n; i++) st_host->free(e->tensor[i].name);
    for (int64_t i = 0; i < e->n_meta; i++) {
        st_host->free(e->meta[i].key);
        st_host->free(e->meta[i].value);
    }
    st_host->free(e->tensor);
    st_host->free(e->meta);
    st_host->free(e->head.data);
    st_host->free(e->path);
    st_host->free(e->temp);
    st_host->free(e);
}

static void exporter_abort(void *self)
{
    struct exporter *e = self;
    if (!e) return;
    if (e->fd >= 0) unlink(e->temp);
    release(e);
}

static int begin(const char *path, void **self)
{
    static unsigned serial;
    char tail[64];
    snprintf(tail, sizeof tail, ".tmp-%ld-%u", (long)getpid(),
             __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED));
    struct exporter *e = st_host->alloc(sizeof *e);
    e->path = copy(path);
    e->temp = st_host->alloc(strlen(path) + strlen(tail) + 1);
    strcat(strcpy(e->temp, path), tail);
    /* A plain open, so that the user's umask decides on the permissions. */
    e->fd = open(e->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (e->fd < 0) {
        int rc = st_host->fail("cannot write %s: %s", path, strerror(errno));
        release(e);
        return rc;
    }
    *self = e;
    return 0;
}

/* Errors are sticky: finish refuses after any of them. */
static int broken(struct exporter *e)
{
    e->failed = true;
    return -1;
}

static int meta(void *self, const char *key, const char *value)
{
    struct exporter *e = self;
    for (int64_t i = 0; i < e->n_meta; i++)
        if (strcmp(e->meta[i].key, key) == 0)
            return st_fail("%s: the metadata key \"%s\" was set twice", e->path, st_show(key)),
                   broken(e);
    if (!is_utf8(key) || !is_utf8(value))
        return st_fail("%s: the metadata \"%s\" is not UTF-8", e->path, st_show(key)), broken(e);
    if (e->laid_out)
        return st_fail("%s: metadata must be set before the first tensor is written", e->path),
               broken(e);
    e->meta = st_grow(e->meta, e->n_meta, &e->meta_capacity, sizeof *e->meta);
    e->meta[e->n_meta++] = (struct out_meta){ copy(key), copy(value) };
    return 0;
}

static bool check_declared(struct exporter *e, const struct burin_tensor_info *in)
{
    const char *name = in->name;
    if (!memchr(name, 0, sizeof in->name))
        return st_fail("%s: a tensor name is longer than 511 bytes", e->path);
    if (!is_utf8(name) || !*name || strcmp(name, "__metadata__") == 0)
        return st_fail("%s: \"%s\" cannot be a tensor's name", e->path, st_show(name));
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return st_fail("%s: the tensor name \"%s\" holds a control character", e->path,
                           st_show(name));
    const struct st_dtype *d = st_dtype_of(in->dtype);
    uint64_t bytes;
    if (!d)
        return st_fail("%s: tensor \"%s\" has the unknown element type %d", e->path, st_show(name),
                       in->dtype);
    if (in->rank < 0 || in->rank > BURIN_PLUGIN_RANK ||
        !st_shape_bytes(d, in->rank, in->dim, &bytes))
        return st_fail("%s: tensor \"%s\" has an impossible shape", e->path, st_show(name));
    if (bytes != in->bytes)
        return st_fail("%s: tensor \"%s\" was announced with %llu bytes, but its shape needs %llu",
                       e->path, st_show(name), (unsigned long long)in->bytes,
                       (unsigned long long)bytes);
    if (e->laid_out)
        return st_fail("%s: tensor \"%s\" was announced after the first one was written", e->path,
                       st_show(name));
    return e->n < ST_TENSORS_MAX || st_fail("%s: more than %d tensors", e->path, ST_TENSORS_MAX);
}

static int declare(void *self, const struct burin_tensor_info *in)
{
    struct exporter *e = self;
    if (!check_declared(e, in)) return broken(e);
    e->tensor = st_grow(e->tensor, e->n, &e->capacity, sizeof *e->tensor);
    struct out_tensor *o = &e->tensor[e->n++];
    o->name = copy(in->name);
    o->t = (struct st_tensor){
        .name = o->name, .dtype = st_dtype_of(in->dtype), .rank = in->rank, .bytes = in->bytes
    };
    memcpy(o->t.dim, in->dim, sizeof o->t.dim);
    o->hash = st_host->hash("", 0, (uint64_t)in->dtype); /* put may leave out what is empty */
    return 0;
}

static int by_layout(const void *a, const void *b)
{
    const struct st_tensor *x = &((const struct out_tensor *)a)->t,
                           *y = &((const struct out_tensor *)b)->t;
    return x->dtype->bytes != y->dtype->bytes ? y->dtype->bytes - x->dtype->bytes
                                              : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct out_tensor *)a)->name, ((const struct out_tensor *)b)->name);
}

static int meta_by_key(const void *a, const void *b)
{
    return strcmp(((const struct out_meta *)a)->key, ((const struct out_meta *)b)->key);
}

/* Room for the sums, which are known when all tensors are. */
static void add_sums(struct exporter *e, struct buffer *b)
{
    static const char zeros[] = "0000000000000000";
    add_text(b, "\"");
    e->sums = b->n;
    for (int64_t i = 0; i <= e->n; i++) add(b, zeros, ST_SUM_DIGITS);
    add_text(b, "\"");
}

static void header_json(struct exporter *e, struct buffer *b)
{
    char number[64];
    add_text(b, "{");
    for (int64_t i = 0; i < e->n_meta; i++) {
        add_text(b, i ? "," : "\"__metadata__\":{");
        add_string(b, e->meta[i].key);
        add_text(b, ":");
        if (strcmp(e->meta[i].key, ST_SUMS) == 0) add_sums(e, b);
        else add_string(b, e->meta[i].value);
    }
    add_text(b, e->n_meta ? (e->n ? "}," : "}") : "");
    for (int64_t i = 0; i < e->n; i++) {
        const struct st_tensor *t = &e->tensor[i].t;
        add_text(b, i ? "," : "");
        add_string(b, t->name);
        add_text(b, ":{\"dtype\":\"");
        add_text(b, t->dtype->name);
        add_text(b, "\",\"shape\":[");
        for (int k = 0; k < t->rank; k++) {
            snprintf(number, sizeof number, "%s%lld", k ? "," : "", (long long)t->dim[k]);
            add_text(b, number);
        }
        snprintf(number, sizeof number, "],\"data_offsets\":[%llu,%llu]}",
                 (unsigned long long)t->begin, (unsigned long long)(t->begin + t->bytes));
        add_text(b, number);
    }
    add_text(b, "}");
    while (b->n % 8) /* the 8 bytes of the length keep the data aligned */
        add_text(b, " ");
}

static bool write_at(struct exporter *e, const void *bytes, uint64_t n, uint64_t offset)
{
    const char *p = bytes;
    while (n) {
        ssize_t k = pwrite(e->fd, p, n < 1u << 30 ? (size_t)n : 1u << 30, (off_t)offset);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0)
            return st_fail("cannot write %s: %s", e->path,
                           k ? strerror(errno) : "nothing was written");
        p += k;
        offset += (uint64_t)k;
        n -= (uint64_t)k;
    }
    return true;
}

static void put_digits(char *to, uint64_t number)
{
    char digits[ST_SUM_DIGITS + 1];
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)number);
    memcpy(to, digits, ST_SUM_DIGITS);
}

/* The header, once all tensors are known; they are sorted by name. */
static bool write_head(struct exporter *e)
{
    char *sums = e->head.data + e->sums;
    for (int64_t i = 0; e->sums && i < e->n; i++)
        put_digits(sums + (i + 1) * ST_SUM_DIGITS, e->tensor[i].hash);
    if (e->sums) put_digits(sums, st_host->hash(e->head.data, e->head.n, 0));
    return write_at(e, e->head.data, e->head.n, 0);
}

static bool lay_out(struct exporter *e)
{
    if (e->n) qsort(e->tensor, (size_t)e->n, sizeof *e->tensor, by_name);
    for (int64_t i = 1; i < e->n; i++)
        if (strcmp(e->tensor[i - 1].name, e->tensor[i].name) == 0)
            return st_fail("%s: the tensor \"%s\" was announced twice", e->path,
                           st_show(e->tensor[i].name));
    if (e->n) qsort(e->tensor, (size_t)e->n, sizeof *e->tensor, by_layout);
    if (e->n_meta) qsort(e->meta, (size_t)e->n_meta, sizeof *e->meta, meta_by_key);
    for (int64_t i = 0; i < e->n; i++) {
        e->tensor[i].t.begin = e->data_bytes;
        if (__builtin_add_overflow(e->data_bytes, e->tensor[i].t.bytes, &e->data_bytes) ||
            e->data_bytes > INT64_MAX / 2)
            return st_fail("%s: the tensors are larger than any file", e->path);
    }
    add(&e->head, (const char[8]){ 0 }, 8);
    header_json(e, &e->head);
    e->data = e->head.n;
    for (int i = 0; i < 8; i++) e->head.data[i] = (char)((e->data - 8) >> (8 * i));
    bool ok = e->data - 8 <= ST_HEADER_MAX ||
              st_fail("%s: the names and metadata need a header of more than 100 MB, which "
                      "safetensors does not allow",
                      e->path);
    /* Reserved at once, so that a full disk is met now and not after an hour of writing. */
    int error = EINTR;
    while (ok && error == EINTR)
        error = posix_fallocate(e->fd, 0, (off_t)(e->data + e->data_bytes));
    if (!ok) error = 0;
    if (error == EINVAL || error == EOPNOTSUPP || error == ENODEV)
        error = 0; /* a file system that cannot reserve */
    if (error)
        ok = st_fail("cannot write %s (%llu bytes): %s", e->path,
                     (unsigned long long)(e->data + e->data_bytes), strerror(error));
    if (e->n) qsort(e->tensor, (size_t)e->n, sizeof *e->tensor, by_name);
    e->laid_out = true;
    return ok;
}

static int put(void *self, const char *name, const void *data, uint64_t bytes)
{
    struct exporter *e = self;
    if (e->failed || (!e->laid_out && !lay_out(e))) return broken(e);
    struct out_tensor key = { .name = (char *)(uintptr_t)name };
    struct out_tensor *o =
        e->n ? bsearch(&key, e->tensor, (size_t)e->n, sizeof key, by_name) : NULL;
    if (!o)
        return st_fail("%s: tensor \"%s\" was never announced", e->path, st_show(name)), broken(e);
    if (o->written || bytes != o->t.bytes)
        return st_fail("%s: tensor \"%s\" %s", e->path, st_show(name),
                       o->written ? "was written twice"
                                  : "was written with another size than announced"),
               broken(e);
    int64_t bad = st_first_non_finite(o->t.dtype, data, bytes / (uint64_t)o->t.dtype->bytes);
    if (bad >= 0) {
        st_fail("%s: tensor \"%s\" holds a NaN or an infinity (element %lld); the training has "
                "diverged, so the file is not written",
                e->path, st_show(name), (long long)bad);
        broken(e);
        return BURIN_NOT_FINITE;
    }
    if (!write_at(e, data, bytes, e->data + o->t.begin)) return broken(e);
    o->hash = st_host->hash(data, bytes, (uint64_t)o->t.dtype->dtype);
    o->written = true;
    return 0;
}

/* Whether the file holds what put was given. into: room for the largest tensor. */
static bool same_data(const struct exporter *e, int fd, const struct out_tensor *o, void *into)
{
    return st_read_at(fd, into, o->t.bytes, e->data + o->t.begin) &&
           st_host->hash(into, o->t.bytes, (uint64_t)o->t.dtype->dtype) == o->hash;
}

/* Reads the finished temp file as a stranger would. */
static bool verify(const struct exporter *e)
{
    struct st_header h;
    int fd;
    uint64_t data, bytes;
    if (!st_file_open(&h, e->temp, &fd, &data, &bytes)) return false;
    uint64_t largest = e->data;
    for (int64_t i = 0; i < e->n; i++)
        if (e->tensor[i].t.bytes > largest) largest = e->tensor[i].t.bytes;
    void *part = st_host->alloc(largest);
    bool ok = h.n_tensors == e->n && h.n_meta == e->n_meta && data == e->data &&
              bytes == e->data + e->data_bytes && st_read_at(fd, part, e->data, 0) &&
              memcmp(part, e->head.data, e->data) == 0;
    for (int64_t i = 0; i < h.n_tensors && ok; i++) {
        struct out_tensor key = { .name = (char *)(uintptr_t)h.tensor[i].name };
        const struct out_tensor *o = bsearch(&key, e->tensor, (size_t)e->n, sizeof key, by_name);
        ok = o && o->t.begin == h.tensor[i].begin && o->t.bytes == h.tensor[i].bytes &&
             o->t.dtype == h.tensor[i].dtype && same_data(e, fd, o, part);
    }
    st_host->free(part);
    close(fd);
    st_header_finish(&h);
    return ok ||
           st_fail("%s: what was written does not read back as it should; is the disk failing?",
                   e->path);
}

/* A second fsync of the same file would succeed although the kernel has forgotten what it could not
 * write, so only the host's writing it again helps. */
static bool sync_fd(int fd)
{
    int rc;
    while ((rc = fsync(fd)) != 0 && errno == EINTR) continue;
    return rc == 0 || errno == EINVAL; /* some file systems cannot */
}

static bool sync_folder(const struct exporter *e)
{
    char *dir = copy(e->path), *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    st_host->free(dir);
    if (fd < 0) return st_fail("cannot open the folder of %s: %s", e->path, strerror(errno));
    bool ok = sync_fd(fd);
    int error = errno;
    close(fd);
    if (!ok) st_fail("cannot sync the folder of %s: %s", e->path, strerror(error));
    errno = error;
    return ok;
}

static bool all_written(const struct exporter *e)
{
    for (int64_t i = 0; i < e->n; i++)
        if (!e->tensor[i].written && e->tensor[i].t.bytes)
            return st_fail("%s: tensor \"%s\" was announced but never written", e->path,
                           st_show(e->tensor[i].name));
    return true;
}

static int finish(void *self)
{
    struct exporter *e = self;
    bool ok = !e->failed && (e->laid_out || lay_out(e)) && all_written(e) && write_head(e);
    /* Fails after a failed call keep that call's sentence. */
    if (ok && ftruncate(e->fd, (off_t)(e->data + e->data_bytes)) != 0)
        ok = st_fail("cannot write %s: %s", e->path, strerror(errno));
    bool again = false;
    if (ok && !sync_fd(e->fd)) {
        again = errno == EIO;
        ok = st_fail("cannot write %s: %s", e->path, strerror(errno));
    }
    ok = ok && verify(e);
    if (ok && rename(e->temp, e->path) != 0)
        ok = st_fail("cannot write %s: %s", e->path, strerror(errno));
    if (!ok) {
        exporter_abort(e);
        return again ? BURIN_NOT_SYNCED : -1;
    }
    ok = sync_folder(e);
    again = !ok && errno == EIO;
    release(e);
    return ok ? 0 : again ? BURIN_NOT_SYNCED : -1;
}

const struct burin_exporter st_exporter = {
    .size = sizeof st_exporter,
    .name = "safetensors",
    .help = "safetensors files, written crash-safe and checked before they appear",
    .extension = ".safetensors",
    .begin = begin,
    .meta = meta,
    .declare = declare,
    .put = put,
    .finish = finish,
    .abort = exporter_abort,
};
