/* SPDX-License-Identifier: MIT
 * loader.c - opening a checkpoint and reading its tensors. Nothing but read() touches the file's
 * bytes here, so a file that shrinks meanwhile is an error and no SIGBUS; only the pointers that
 * info() hands out lead into the map, and it looks at the file's size first, as the safetensors
 * plugin does. */
#include "torch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct loader {
    char *path;
    int fd;
    struct pt_zip zip;
    struct pt_state state;
    const char *map; /* NULL when the file could not be mapped */
};

/* torch.save writes data.pkl first and everything below one folder. */
static int probe(const char *path, const uint8_t *head, size_t n)
{
    (void)path;
    if (n < 30 || memcmp(head, "PK\3\4", 4) != 0) return 0;
    size_t name = (size_t)(head[26] | head[27] << 8);
    if (name > n - 30) return 40;
    static const char *const known[] = { "/data.pkl", "/version", "/byteorder", "/data/0" };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t k = strlen(known[i]);
        if (name > k && memcmp(head + 30 + name - k, known[i], k) == 0) return 95;
    }
    return 40;
}

static void loader_close(void *self)
{
    struct loader *l = self;
    if (!l) return;
    if (l->map) munmap((void *)(uintptr_t)l->map, l->zip.bytes);
    if (l->fd >= 0) close(l->fd);
    pt_state_finish(&l->state);
    pt_zip_finish(&l->zip);
    pt_host->free(l->path);
    pt_host->free(l);
}

/* The one entry "<folder>/data.pkl". */
static struct pt_entry *find_pickle(const struct pt_zip *z)
{
    struct pt_entry *found = NULL;
    for (uint32_t i = 0; i < z->n; i++) {
        const char *slash = strchr(z->entry[i].name, '/');
        if (!slash || slash == z->entry[i].name || strcmp(slash, "/data.pkl") != 0) continue;
        if (found) {
            pt_fail("%s holds several checkpoints, \"%s\" and \"%s\"; one was expected", z->path,
                    pt_show(found->name), pt_show(z->entry[i].name));
            return NULL;
        }
        found = &z->entry[i];
    }
    if (!found)
        pt_fail("%s is a zip archive, but no PyTorch checkpoint: there is no data.pkl in it; if a "
                "model was packed into it, unpack it first",
                z->path);
    else if (strlen(found->name) > PT_NAME_MAX / 2)
        pt_fail("%s: the folder in its zip archive has a name of %zu bytes, which torch.save never "
                "makes",
                z->path, strlen(found->name));
    else return found;
    return NULL;
}

static bool check_byteorder(const struct pt_zip *z, const char *folder)
{
    char name[PT_NAME_MAX], order[6];
    strcpy(name, folder);
    struct pt_entry *e = pt_zip_find(z, strcat(name, "byteorder"));
    if (!e) /* before PyTorch 2.1; practically nobody saved on other machines */
        return true;
    if (!pt_zip_check(z, e)) return false;
    if (e->bytes != 6)
        return pt_fail("%s: its byte order is not \"little\"; save it again on an ordinary "
                       "(little-endian) machine",
                       z->path);
    return pt_zip_read(z, order, 6, e->data) &&
           (memcmp(order, "little", 6) == 0 ||
            pt_fail("%s: its byte order is unknown; it is damaged", z->path));
}

static bool load(struct loader *l)
{
    struct pt_entry *e = find_pickle(&l->zip);
    char folder[PT_NAME_MAX];
    struct pt_pickle p;
    if (!e) return false;
    strcpy(folder, e->name);
    *(strchr(folder, '/') + 1) = 0;
    if (e->bytes > PT_PICKLE_MAX)
        return pt_fail("%s: its data.pkl has %llu bytes; no checkpoint needs more than %u", l->path,
                       (unsigned long long)e->bytes, PT_PICKLE_MAX);
    if (!check_byteorder(&l->zip, folder) || !pt_zip_check(&l->zip, e)) return false;
    uint8_t *data = pt_host->alloc((size_t)e->bytes);
    bool ok = pt_zip_read(&l->zip, data, e->bytes, e->data) &&
              pt_pickle_run(&p, &l->zip, folder, data, (uint32_t)e->bytes);
    if (ok) {
        ok = pt_state_collect(&l->state, &p);
        pt_pickle_finish(&p);
    }
    pt_host->free(data);
    for (uint32_t i = 0; ok && i < l->state.n_tensors; i++)
        ok = pt_zip_check(&l->zip, &l->zip.entry[l->state.tensor[i].view.entry]);
    return ok;
}

static bool open_file(struct loader *l)
{
    struct stat st;
    l->fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* never waits for a pipe */
    if (l->fd < 0) return pt_fail("cannot open %s: %s", l->path, strerror(errno));
    if (fstat(l->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return pt_fail("%s is not a regular file", l->path);
    if (!pt_zip_open(&l->zip, l->path, l->fd, (uint64_t)st.st_size) || !load(l)) return false;
    void *map = mmap(NULL, l->zip.bytes, PROT_READ, MAP_PRIVATE, l->fd, 0);
    l->map = map == MAP_FAILED ? NULL : map; /* some file systems cannot: read() still works */
    return true;
}

static int loader_open(const char *path, void **self)
{
    struct loader *l = pt_host->alloc(sizeof *l);
    l->path = pt_host->alloc(strlen(path) + 1);
    strcpy(l->path, path);
    l->fd = -1;
    if (!open_file(l)) {
        loader_close(l);
        return -1;
    }
    *self = l;
    return 0;
}

static int64_t count(void *self) { return ((struct loader *)self)->state.n_tensors; }

static bool unchanged(const struct loader *l)
{
    struct stat st;
    if (fstat(l->fd, &st) == 0 && (uint64_t)st.st_size == l->zip.bytes) return true;
    return pt_fail(
        "%s changed its size while it was in use; do not write to a model that is being read",
        l->path);
}

static const struct pt_named *tensor_at(const struct loader *l, int64_t i)
{
    if (i >= 0 && i < l->state.n_tensors) return &l->state.tensor[i];
    pt_fail("%s has no tensor number %lld", l->path, (long long)i);
    return NULL;
}

static int info(void *self, int64_t i, struct burin_tensor_info *out)
{
    const struct loader *l = self;
    const struct pt_named *t = tensor_at(l, i);
    if (!t || !unchanged(l)) return -1;
    memset(out, 0, sizeof *out);
    strcpy(out->name, t->name); /* shorter than PT_NAME_MAX: state.c */
    out->dtype = t->view.dtype->dtype;
    out->rank = t->view.rank;
    memcpy(out->dim, t->view.dim, sizeof out->dim);
    out->bytes = t->view.bytes;
    const char *mapped = l->map ? l->map + l->zip.entry[t->view.entry].data + t->view.offset : NULL;
    if (mapped && t->view.dense && t->view.bytes && (uintptr_t)mapped % t->view.dtype->bytes == 0)
        out->mapped = mapped;
    return 0;
}

/* Elements of a view in row-major order, out of the bytes from its first to its last. */
static void gather(const struct pt_tensor *t, const char *from, char *to)
{
    size_t size = t->dtype->bytes;
    int64_t index[BURIN_PLUGIN_RANK] = { 0 }, at = 0;
    for (uint64_t done = 0; done < t->bytes; done += size) {
        memcpy(to + done, from + (size_t)at * size, size);
        for (int d = t->rank - 1; d >= 0; d--) {
            at += t->stride[d];
            if (++index[d] < t->dim[d]) break;
            at -= t->stride[d] * t->dim[d];
            index[d] = 0;
        }
    }
}

static int read_tensor(void *self, int64_t i, void *dst, uint64_t bytes)
{
    const struct loader *l = self;
    const struct pt_named *t = tensor_at(l, i);
    if (!t) return -1;
    if (bytes != t->view.bytes)
        return pt_host->fail("%s: tensor \"%s\" has %llu bytes, but %llu were asked for", l->path,
                             pt_show(t->name), (unsigned long long)t->view.bytes,
                             (unsigned long long)bytes);
    if (!unchanged(l)) return -1;
    uint64_t from = l->zip.entry[t->view.entry].data + t->view.offset;
    if (t->view.dense) return pt_zip_read(&l->zip, dst, bytes, from) ? 0 : -1;
    char *all = pt_host->alloc((size_t)t->view.extent);
    bool ok = pt_zip_read(&l->zip, all, t->view.extent, from);
    if (ok) gather(&t->view, all, dst);
    pt_host->free(all);
    return ok ? 0 : -1;
}

static int meta(void *self, int64_t i, const char **key, const char **value)
{
    const struct loader *l = self;
    if (i < 0 || i >= l->state.n_meta) return 0;
    *key = l->state.meta[i].key;
    *value = l->state.meta[i].value;
    return 1;
}

const struct burin_loader pt_loader = {
    .size = sizeof pt_loader,
    .name = "torch",
    .help = "PyTorch checkpoints (.ckpt, .pt, .pth, .bin), memory-mapped; nothing in them is run",
    .probe = probe,
    .open = loader_open,
    .count = count,
    .info = info,
    .read = read_tensor,
    .meta = meta,
    .close = loader_close,
};
