/* SPDX-License-Identifier: MIT
 * loader.c - reading. Two ways to a tensor's bytes:
 *   read    pread: safe whatever happens to the file meanwhile; a changed size is an error.
 *   mapped  the file's own pages, without a copy. If someone truncates the file while it is mapped,
 * the kernel answers an access behind the new end with SIGBUS, and no check beforehand can prevent
 *           that race. So info() looks at the size again before it hands out a mapped pointer,
 * which catches every file that was changed between open and use; use read() for files that other
 *           programs may be writing. Replacing a file by rename (as our exporter does) is always
 * safe. */
#include "st.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct loader {
    char *path;
    int fd;
    struct st_header header;
    uint64_t data, bytes; /* where the tensors begin; the file's size */
    const char *map;      /* NULL when the file could not be mapped */
};

static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    if (n < 9 || head[8] != '{') return 0;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | head[i];
    if (length < 2 || length > ST_HEADER_MAX) return 0;
    return n == 9 || head[9] == '"' || head[9] == '}' || head[9] == ' ' || head[9] == '\n' ? 95
                                                                                           : 60;
}

static void loader_close(void *self)
{
    struct loader *l = self;
    if (!l) return;
    if (l->map) munmap((void *)(uintptr_t)l->map, l->bytes);
    close(l->fd);
    st_header_finish(&l->header);
    st_host->free(l->path);
    st_host->free(l);
}

static int loader_open(const char *path, void **self)
{
    struct loader *l = st_host->alloc(sizeof *l);
    if (!st_file_open(&l->header, path, &l->fd, &l->data, &l->bytes)) {
        st_host->free(l);
        return -1;
    }
    l->path = st_host->alloc(strlen(path) + 1);
    strcpy(l->path, path);
    void *map = mmap(NULL, l->bytes, PROT_READ, MAP_PRIVATE, l->fd, 0);
    l->map = map == MAP_FAILED ? NULL : map; /* some file systems cannot: read() still works */
    *self = l;
    return 0;
}

static int64_t count(void *self) { return ((struct loader *)self)->header.n_tensors; }

static bool unchanged(const struct loader *l)
{
    struct stat st;
    if (fstat(l->fd, &st) == 0 && (uint64_t)st.st_size == l->bytes) return true;
    return st_fail("%s changed its size while it was in use; do not write to a model that is being "
                   "read",
                   l->path);
}

static const struct st_tensor *tensor_at(const struct loader *l, int64_t i)
{
    if (i >= 0 && i < l->header.n_tensors) return &l->header.tensor[i];
    st_fail("%s has no tensor number %lld", l->path, (long long)i);
    return NULL;
}

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    const struct loader *l = self;
    const struct st_tensor *t = tensor_at(l, i);
    if (!t || !unchanged(l)) return -1;
    memset(out, 0, sizeof *out);
    strcpy(out->name, t->name); /* shorter than ST_NAME_MAX: header.c */
    out->dtype = t->dtype->dtype;
    out->rank = t->rank;
    memcpy(out->dim, t->dim, sizeof out->dim);
    out->bytes = t->bytes;
    out->mapped = l->map && t->bytes ? l->map + l->data + t->begin : NULL;
    return 0;
}

static int read_tensor(void *self, int64_t i, void *dst, uint64_t bytes)
{
    const struct loader *l = self;
    const struct st_tensor *t = tensor_at(l, i);
    if (!t) return -1;
    if (bytes != t->bytes)
        return st_host->fail("%s: tensor \"%s\" has %llu bytes, but %llu were asked for", l->path,
                             st_show(t->name), (unsigned long long)t->bytes,
                             (unsigned long long)bytes);
    if (!unchanged(l)) return -1;
    if (!st_read_at(l->fd, dst, bytes, l->data + t->begin))
        return st_host->fail("cannot read %s: %s", l->path,
                             errno ? strerror(errno) : "it was cut off while it was read");
    return 0;
}

static int meta(void *self, int64_t i, const char **key, const char **value)
{
    const struct loader *l = self;
    if (i < 0 || i >= l->header.n_meta) return 0;
    *key = l->header.meta[i].key;
    *value = l->header.meta[i].value;
    return 1;
}

const struct burin_loader st_loader = {
    .size = sizeof st_loader,
    .name = "safetensors",
    .help = "safetensors files (.safetensors), memory-mapped",
    .probe = probe,
    .open = loader_open,
    .count = count,
    .info = info,
    .read = read_tensor,
    .meta = meta,
    .close = loader_close,
};
