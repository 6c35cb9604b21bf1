/* SPDX-License-Identifier: MIT
 * header.c - the JSON header: strict, and checked against the size of the file before anything is
 * used. Stricter than the reference where that costs no real file: duplicate keys, rank, depth. */
#include "st.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void st_header_finish(struct st_header *h)
{
    st_host->free(h->tensor);
    st_host->free(h->meta);
    st_host->free(h->text);
    memset(h, 0, sizeof *h);
}

bool st_shape_bytes(const struct st_dtype *d, int rank, const int64_t *dim, uint64_t *out)
{
    /* The product without its zeros must fit too: code behind us may multiply in another order. */
    uint64_t product = (uint64_t)d->bytes;
    bool zero = false;
    for (int i = 0; i < rank; i++) {
        if (dim[i] == 0) zero = true;
        else if (dim[i] < 0 || __builtin_mul_overflow(product, (uint64_t)dim[i], &product) ||
                 product > INT64_MAX)
            return false;
    }
    *out = zero ? 0 : product;
    return true;
}

/* Names become C strings, so a NUL cannot be kept; other control characters only harm terminals. */
static bool good_name(struct json *j, const struct json_string *s)
{
    if (s->n >= ST_NAME_MAX) return json_error(j, "tensor name longer than 511 bytes");
    for (size_t i = 0; i < s->n; i++)
        if ((unsigned char)s->s[i] < 0x20 || s->s[i] == 0x7f)
            return json_error(j, "control character in a tensor name");
    return true;
}

static bool parse_shape(struct json *j, struct st_tensor *t)
{
    if (!json_expect(j, '[', "to begin \"shape\"")) return false;
    if (json_take(j, ']')) return true;
    do {
        uint64_t v;
        if (t->rank == BURIN_PLUGIN_RANK)
            return json_error(j, "tensor with more than 8 dimensions");
        if (!json_get_uint(j, &v)) return false;
        if (v > INT64_MAX) return json_error(j, "dimension too large");
        t->dim[t->rank++] = (int64_t)v;
    } while (json_take(j, ','));
    return json_expect(j, ']', "to end \"shape\"");
}

static bool parse_offsets(struct json *j, uint64_t *begin, uint64_t *end)
{
    return json_expect(j, '[', "to begin \"data_offsets\"") && json_get_uint(j, begin) &&
           json_expect(j, ',', "between the two offsets") && json_get_uint(j, end) &&
           json_expect(j, ']', "after the two offsets");
}

static bool check_tensor(const struct json *j, const struct st_tensor *t, uint64_t end,
                         uint64_t data)
{
    uint64_t bytes;
    if (t->begin > end || end > data)
        return st_fail(
            "%s: tensor \"%s\" claims bytes %llu to %llu, but the file has %llu bytes of "
            "tensors; it is damaged or cut off, download it again",
            j->path, st_show(t->name), (unsigned long long)t->begin, (unsigned long long)end,
            (unsigned long long)data);
    if (!st_shape_bytes(t->dtype, t->rank, t->dim, &bytes) || bytes != end - t->begin)
        return st_fail(
            "%s: tensor \"%s\" has a shape that does not match its %llu bytes of %s; the "
            "header is damaged",
            j->path, st_show(t->name), (unsigned long long)(end - t->begin), t->dtype->name);
    return true;
}

static bool parse_tensor(struct json *j, struct st_tensor *t, uint64_t data)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    struct json_string key, dtype = { "", 0 };
    int seen = 0;
    uint64_t end = 0;
    if (!json_expect(j, '{', "to begin a tensor")) return false;
    do {
        if (json_peek(j, '}') && !seen) break;
        if (!json_get_string(j, &key) || !json_expect(j, ':', "after a field's name")) return false;
        int field = strcmp(key.s, "dtype") == 0          ? DTYPE
                    : strcmp(key.s, "shape") == 0        ? SHAPE
                    : strcmp(key.s, "data_offsets") == 0 ? OFFSETS
                                                         : 0;
        if (strlen(key.s) != key.n) /* "dtype\u0000" is not "dtype" */
            field = 0;
        if (field & seen) return json_error(j, "field given twice in a tensor");
        seen |= field;
        bool ok = field == DTYPE     ? json_get_string(j, &dtype)
                  : field == SHAPE   ? parse_shape(j, t)
                  : field == OFFSETS ? parse_offsets(j, &t->begin, &end)
                                     : json_skip(j, 1); /* fields of later versions */
        if (!ok) return false;
    } while (json_take(j, ','));
    if (!json_expect(j, '}', "to end a tensor")) return false;
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return st_fail("%s: tensor \"%s\" lacks %s in the safetensors header", j->path,
                       st_show(t->name),
                       !(seen & DTYPE)   ? "\"dtype\""
                       : !(seen & SHAPE) ? "\"shape\""
                                         : "\"data_offsets\"");
    t->dtype = strlen(dtype.s) == dtype.n ? st_dtype_named(dtype.s) : NULL;
    if (!t->dtype) {
        char shown[84];
        strcpy(shown, st_show(dtype.s));
        return st_fail("%s: tensor \"%s\" has the element type \"%s\", which is not supported",
                       j->path, st_show(t->name), shown);
    }
    if (!check_tensor(j, t, end, data)) return false;
    t->bytes = end - t->begin;
    return true;
}

static bool parse_meta(struct json *j, struct st_header *h)
{
    if (json_word(j, "null")) /* some writers; the reference takes it as absent */
        return true;
    if (!json_expect(j, '{', "to begin __metadata__")) return false;
    if (json_take(j, '}')) return true;
    do {
        struct json_string key, value;
        if (!json_get_string(j, &key) || !json_expect(j, ':', "after a metadata key") ||
            !json_get_string(j, &value))
            return false;
        if (strlen(key.s) != key.n || strlen(value.s) != value.n)
            return json_error(j, "NUL character in the metadata");
        h->meta = st_grow(h->meta, h->n_meta, &h->meta_capacity, sizeof *h->meta);
        h->meta[h->n_meta++] = (struct st_pair){ key.s, value.s };
    } while (json_take(j, ','));
    return json_expect(j, '}', "to end __metadata__");
}

static bool parse_root(struct json *j, struct st_header *h, uint64_t data)
{
    bool meta_seen = false;
    if (j->at == j->end || *j->at != '{')
        return json_error(j, "expected '{' as the first character");
    j->at++;
    if (!json_take(j, '}')) {
        do {
            struct json_string name;
            if (!json_get_string(j, &name) || !json_expect(j, ':', "after a tensor's name"))
                return false;
            if (strcmp(name.s, "__metadata__") == 0 && name.n == 12) {
                if (meta_seen) return json_error(j, "__metadata__ given twice");
                meta_seen = true;
                if (!parse_meta(j, h)) return false;
                continue;
            }
            if (!good_name(j, &name)) return false;
            if (h->n_tensors == ST_TENSORS_MAX) return json_error(j, "more than 200000 tensors");
            h->tensor = st_grow(h->tensor, h->n_tensors, &h->tensor_capacity, sizeof *h->tensor);
            struct st_tensor *t = &h->tensor[h->n_tensors++];
            t->name = name.s;
            if (!parse_tensor(j, t, data)) return false;
        } while (json_take(j, ','));
        if (!json_expect(j, '}', "to end the header")) return false;
    }
    while (j->at < j->end && *j->at == ' ') /* padding: spaces, nothing else */
        j->at++;
    return j->at == j->end || json_error(j, "text after the end of the header");
}

static int by_offset(const void *a, const void *b)
{
    const struct st_tensor *x = *(const struct st_tensor *const *)a;
    const struct st_tensor *y = *(const struct st_tensor *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp((*(const struct st_tensor *const *)a)->name,
                  (*(const struct st_tensor *const *)b)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct st_pair *)a)->key, ((const struct st_pair *)b)->key);
}

/* No name twice, no hole, no overlap, nothing behind the last tensor. */
static bool check_whole(struct st_header *h, const char *path, uint64_t data)
{
    int64_t n = h->n_tensors;
    struct st_tensor **order = st_host->alloc((size_t)(n + 1) * sizeof *order);
    for (int64_t i = 0; i < n; i++) order[i] = &h->tensor[i];
    bool ok = true;
    if (n) qsort(order, (size_t)n, sizeof *order, by_tensor_name);
    for (int64_t i = 1; i < n && ok; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            ok = st_fail("%s: the tensor \"%s\" is in the safetensors header twice", path,
                         st_show(order[i]->name));
    if (n) qsort(order, (size_t)n, sizeof *order, by_offset);
    uint64_t at = 0;
    for (int64_t i = 0; i < n && ok; at += order[i]->bytes, i++)
        if (order[i]->begin != at)
            ok =
                st_fail("%s: tensor \"%s\" begins at byte %llu, but %llu was expected: the tensors "
                        "%s; the header is damaged",
                        path, st_show(order[i]->name), (unsigned long long)order[i]->begin,
                        (unsigned long long)at, order[i]->begin < at ? "overlap" : "leave a hole");
    st_host->free(order);
    if (ok && at != data)
        ok = st_fail("%s: its tensors take %llu bytes, but the file has %llu bytes for them; it is "
                     "damaged, download it again",
                     path, (unsigned long long)at, (unsigned long long)data);
    if (h->n_meta) qsort(h->meta, (size_t)h->n_meta, sizeof *h->meta, by_key);
    for (int64_t i = 1; i < h->n_meta && ok; i++)
        if (strcmp(h->meta[i - 1].key, h->meta[i].key) == 0)
            ok = st_fail("%s: the metadata key \"%s\" is in the safetensors header twice", path,
                         st_show(h->meta[i].key));
    return ok;
}

bool st_header_parse(struct st_header *h, const char *path, const char *json, size_t n,
                     uint64_t data)
{
    memset(h, 0, sizeof *h);
    h->text = st_host->alloc(n + 1);
    struct json j = { path, json, json, json + n, h->text };
    bool ok = parse_root(&j, h, data) && check_whole(h, path, data);
    if (!ok) st_header_finish(h);
    return ok;
}

/* ---- the file around it ---------------------------------------------------------------------- */

bool st_read_at(int fd, void *dst, uint64_t bytes, uint64_t offset)
{
    char *p = dst;
    while (bytes) {
        ssize_t n = pread(fd, p, bytes < 1u << 30 ? (size_t)bytes : 1u << 30, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            errno = n ? errno : 0;
            return false;
        }
        p += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return true;
}

static bool read_header(struct st_header *h, const char *path, int fd, uint64_t size,
                        uint64_t *data)
{
    unsigned char raw[8];
    if (size < 8)
        return st_fail("%s is %llu bytes long, too short for a safetensors file; download it again",
                       path, (unsigned long long)size);
    if (!st_read_at(fd, raw, 8, 0))
        return st_fail("cannot read %s: %s", path, errno ? strerror(errno) : "it was cut off");
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | raw[i];
    if (n < 2 || n > ST_HEADER_MAX)
        return st_fail(
            "%s claims a safetensors header of %llu bytes, but 2 to 100000000 were expected; "
            "it is damaged or no safetensors file",
            path, (unsigned long long)n);
    if (n > size - 8)
        return st_fail(
            "%s is cut off: its header alone is %llu bytes, but the file has %llu; download "
            "it again",
            path, (unsigned long long)n, (unsigned long long)size);
    char *json = st_host->alloc((size_t)n);
    bool ok = st_read_at(fd, json, n, 8) ||
              st_fail("cannot read %s: %s", path, errno ? strerror(errno) : "it was cut off");
    *data = 8 + n;
    ok = ok && st_header_parse(h, path, json, (size_t)n, size - *data);
    st_host->free(json);
    return ok;
}

bool st_file_open(struct st_header *h, const char *path, int *fd, uint64_t *data, uint64_t *bytes)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* never waits for a pipe */
    if (*fd < 0) return st_fail("cannot open %s: %s", path, strerror(errno));
    struct stat st;
    bool ok =
        (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) || st_fail("%s is not a regular file", path);
    if (ok) {
        *bytes = (uint64_t)st.st_size;
        ok = read_header(h, path, *fd, *bytes, data);
    }
    if (!ok) close(*fd);
    return ok;
}
