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

bool file_map_open(struct file_map *m, const char *path)
{
    *m = (struct file_map){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno("open", path);
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return fail("cannot read %s: not a regular file", path);
    }
    void *p = NULL;
    if (st.st_size > 0) p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int error = errno;
    close(fd);
    errno = error;
    if (p == MAP_FAILED) return fail_errno("map", path);
    m->data = p ? p : (const uint8_t *)""; /* mmap refuses empty files */
    m->bytes = (size_t)st.st_size;
    return true;
}

void file_map_close(struct file_map *m)
{
    if (m->bytes) munmap((void *)(uintptr_t)m->data, m->bytes);
    *m = (struct file_map){ 0 };
}

bool file_read(const char *path, size_t max_bytes, struct str *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno("open", path);
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

/* ---- writing --------------------------------------------------------------------------------- */

struct file_out {
    char *path, *temp;
    FILE *file;
    int error; /* errno of the first failure */
};

static void file_out_free(struct file_out *f)
{
    temp_end(f->temp);
    mem_free(f->path);
    mem_free(f->temp);
    mem_free(f);
}

struct file_out *file_out_open(const char *path)
{
    static atomic_uint serial;
    if (!file_may_write(path)) return NULL;
    struct str temp = { 0 };
    str_addf(&temp, "%s.tmp-%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    temp_begin(temp.data);
    /* open, not mkstemp: the file takes the permissions that the user's umask gives. */
    int fd = open(temp.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!file) {
        fail_errno("write", path);
        if (fd >= 0) {
            close(fd);
            unlink(temp.data);
        }
        temp_end(temp.data);
        str_finish(&temp);
        return NULL;
    }
    setvbuf(file, NULL, _IOFBF, 256 << 10);
    struct file_out *f = mem_alloc(sizeof *f);
    f->path = str_dup(path);
    f->temp = temp.data;
    f->file = file;
    return f;
}

bool file_out_write(struct file_out *f, const void *bytes, size_t n)
{
    if (!f->error && n && fwrite(bytes, 1, n, f->file) != n) f->error = errno ? errno : EIO;
    if (!f->error) return true;
    errno = f->error;
    return fail_errno("write", f->path);
}

/* A rename survives a power cut only once the folder is on disk too. */
static bool sync_folder(const char *path)
{
    char *dir = str_dup(path);
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir ? 1 : 0] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mem_free(dir);
    if (fd < 0) return fail_errno("open the folder of", path);
    bool ok = fsync(fd) == 0 || errno == EINVAL || errno == EROFS; /* some file systems cannot */
    close(fd);
    return ok || fail_errno("sync the folder of", path);
}

bool file_out_commit(struct file_out *f)
{
    if (!f->error && (fflush(f->file) != 0 || fsync(fileno(f->file)) != 0)) f->error = errno;
    if (fclose(f->file) != 0 && !f->error) f->error = errno;
    if (!f->error && rename(f->temp, f->path) != 0) f->error = errno;
    bool ok = !f->error;
    if (!ok) {
        unlink(f->temp);
        errno = f->error;
        fail_errno("write", f->path);
    }
    ok = ok && sync_folder(f->path);
    file_out_free(f);
    return ok;
}

void file_out_abort(struct file_out *f)
{
    if (!f) return;
    fclose(f->file);
    unlink(f->temp);
    file_out_free(f);
}

bool file_write(const char *path, const void *bytes, size_t n)
{
    struct file_out *f = file_out_open(path);
    if (!f) return false;
    file_out_write(f, bytes, n);
    return file_out_commit(f);
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
