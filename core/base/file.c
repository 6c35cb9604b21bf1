/* SPDX-License-Identifier: MIT
 * file.c - mapped reading and crash-safe writing. Every error names the path. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail_errno(const char *doing, const char *path)
{
    return fail("cannot %s %s: %s", doing, path, strerror(errno));
}

/* Not blocking, since a pipe would wait for a writer; nothing else changes for regular files. */
static int open_regular(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) fail_errno("open", path);
    if (fd < 0 || (fstat(fd, st) == 0 && S_ISREG(st->st_mode))) return fd;
    fail("cannot read %s: not a regular file", path);
    close(fd);
    return -1;
}

int file_open(const char *path, size_t *bytes)
{
    struct stat st;
    int fd = open_regular(path, &st);
    *bytes = fd < 0 ? 0 : (size_t)st.st_size;
    return fd;
}

/* errno says why not. */
static bool map(struct file_map *m, int fd, size_t bytes)
{
    void *p = bytes ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    *m = (struct file_map){ 0 };
    if (p == MAP_FAILED) return false;
    m->data = p ? p : (const uint8_t *)""; /* mmap refuses empty files */
    m->bytes = bytes;
    return true;
}

bool file_map_fd(struct file_map *m, int fd, size_t bytes)
{
    return map(m, fd, bytes) || fail("it cannot be mapped: %s", strerror(errno));
}

bool file_map_open(struct file_map *m, const char *path)
{
    size_t bytes;
    int fd = file_open(path, &bytes);
    *m = (struct file_map){ 0 };
    if (fd < 0) return false;
    bool ok = map(m, fd, bytes);
    int error = errno;
    close(fd);
    errno = error;
    return ok || fail_errno("map", path);
}

void file_map_close(struct file_map *m)
{
    if (m->bytes) munmap((void *)(uintptr_t)m->data, m->bytes);
    *m = (struct file_map){ 0 };
}

/* Closes fd. */
static bool read_all(int fd, const char *path, size_t max_bytes, struct str *out)
{
    out->len = 0;
    str_add(out, "");
    char part[16384];
    ssize_t n;
    while ((n = read(fd, part, sizeof part)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || out->len + (size_t)n > max_bytes) break;
        str_add_bytes(out, part, (size_t)n);
    }
    int error = errno;
    close(fd);
    errno = error;
    if (n < 0) return fail_errno("read", path);
    if (n > 0) return fail("%s is larger than the %zu bytes expected at most", path, max_bytes);
    return true;
}

bool file_read(const char *path, size_t max_bytes, struct str *out)
{
    struct stat st;
    int fd = open_regular(path, &st);
    return fd >= 0 && read_all(fd, path, max_bytes, out);
}

bool file_read_stream(const char *path, size_t max_bytes, struct str *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno("open", path);
    return read_all(fd, path, max_bytes, out);
}

/* ---- writing --------------------------------------------------------------------------------- */

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    struct str folder = { 0 };
    str_add_bytes(&folder, slash ? path : ".", slash ? (size_t)(slash - path) + 1 : 1);
    return folder.data;
}

/* Kept in memory until it is whole: a disk that fails once gets all of it again. */
struct file_out {
    char *path;
    struct str bytes;
};

struct file_out *file_out_open(const char *path)
{
    if (!file_may_write(path)) return NULL;
    char *folder = folder_of(path);
    bool ok = access(folder, W_OK | X_OK) == 0 || fail_errno("write", path); /* not said at last */
    mem_free(folder);
    if (!ok) return NULL;
    struct file_out *f = mem_alloc(sizeof *f);
    f->path = str_dup(path);
    return f;
}

void file_out_write(struct file_out *f, const void *bytes, size_t n)
{
    if (n) str_add_bytes(&f->bytes, bytes, n);
}

bool file_out_commit(struct file_out *f)
{
    bool ok = file_write(f->path, f->bytes.data, f->bytes.len);
    file_out_abort(f);
    return ok;
}

void file_out_abort(struct file_out *f)
{
    if (!f) return;
    str_finish(&f->bytes);
    mem_free(f->path);
    mem_free(f);
}

static bool sync_fd(int fd)
{
    int rc;
    while ((rc = fsync(fd)) != 0 && errno == EINTR) continue;
    return rc == 0 || errno == EINVAL; /* some file systems cannot */
}

bool file_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && sync_fd(fd);
    int error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    if (!ok) fail_errno("sync", path);
    errno = error;
    return ok;
}

/* A rename survives a power cut only once the folder is on disk too. */
static bool sync_folder_of(const char *path)
{
    char *folder = folder_of(path);
    bool ok = file_sync(folder);
    int error = errno;
    mem_free(folder);
    errno = error;
    return ok;
}

static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t k = write(fd, bytes, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return false;
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

/* false: errno says why. *again: the disk failed where writing all of it anew may help. A second
 * fsync of the same file would not: the kernel forgets what it could not write. */
static bool write_once(const char *path, const char *temp, const void *bytes, size_t n, bool *again)
{
    *again = false;
    /* open, not mkstemp: the file takes the permissions that the user's umask gives. */
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return false;
    bool ok = write_all(fd, bytes, n);
    if (ok && !(ok = sync_fd(fd))) *again = errno == EIO;
    int error = errno;
    if (close(fd) != 0 && ok && errno != EINTR) {
        ok = false;
        error = errno;
    }
    errno = error;
    if (ok) ok = rename(temp, path) == 0;
    if (!ok) {
        error = errno;
        unlink(temp);
        errno = error;
        return false;
    }
    ok = sync_folder_of(path);
    *again = !ok && errno == EIO;
    return ok;
}

bool file_write(const char *path, const void *bytes, size_t n)
{
    static atomic_uint serial;
    if (!file_may_write(path)) return false;
    struct str temp = { 0 };
    str_addf(&temp, "%s.tmp-%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    temp_begin(temp.data);
    bool again, ok = write_once(path, temp.data, bytes, n, &again);
    if (again) ok = write_once(path, temp.data, bytes, n, &again);
    int error = errno;
    temp_end(temp.data);
    str_finish(&temp);
    errno = error;
    return ok || fail_errno("write", path);
}

/* ---- folders --------------------------------------------------------------------------------- */

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

bool file_make_dirs(const char *path)
{
    if (!file_may_write(path)) return false;
    char *p = str_dup(path);
    bool ok = true;
    for (char *c = p; ok && *c; c++) {
        if (c[1] && c[1] != '/') continue;
        char kept = c[1];
        c[1] = 0;
        if (*c != '/' && mkdir(p, 0777) != 0 && errno != EEXIST)
            ok = fail_errno("make the folder", p);
        c[1] = kept;
    }
    mem_free(p);
    struct stat st;
    if (ok && *path && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        return fail("cannot make the folder %s: a file of that name exists", path);
    return ok;
}

char *file_cache_root(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct str path = { 0 };
    if (xdg && *xdg == '/') /* the XDG specification says to ignore relative paths */
        str_addf(&path, "%s/burin", xdg);
    else if (home && *home) str_addf(&path, "%s/.cache/burin", home);
    else fail("no cache folder: neither XDG_CACHE_HOME nor HOME is set");
    return path.data;
}

char *file_cache_dir(const char *leaf)
{
    struct str path = { 0 };
    char *root = file_cache_root();
    if (!root) return NULL;
    str_addf(&path, "%s/%s", root, leaf);
    mem_free(root);
    file_cache_enter();
    if (!file_make_dirs(path.data)) str_finish(&path);
    file_cache_leave();
    return path.data;
}
