/* SPDX-License-Identifier: MIT
 * faults.c - a disk that fails, for LD_PRELOAD. FAULT="fsync 5 1 2": the first two calls of fsync
 * on files (fsync-folder: on folders) fail with error 5; error 0 stands for a call that takes ten
 * seconds. SHORT=1: pwrite writes at most 1,000 bytes. FREE=n: every disk has n bytes left. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

SEEN int fsync(int fd);
SEEN ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at);
SEEN int posix_fallocate(int fd, off_t at, off_t n);
SEEN int rename(const char *from, const char *to);
SEEN int statvfs(const char *path, struct statvfs *fs);

/* Whether this call is one that fails; errno is set. */
static bool fails(const char *call)
{
    static int calls;
    char which[32];
    int error, first, count = 1;
    const char *fault = getenv("FAULT");
    if (!fault || sscanf(fault, "%31s %d %d %d", which, &error, &first, &count) < 3) return false;
    if (strcmp(call, which)) return false;
    int n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    if (n < first || n >= first + count) return false;
    if (!error) sleep(10);
    errno = error;
    return error != 0;
}

/* TRACE=1: says on stderr what is synced and renamed. */
static void trace(const char *call, const char *path)
{
    if (getenv("TRACE")) fprintf(stderr, "trace: %s %s\n", call, path);
}

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

int fsync(int fd)
{
    int (*real)(int);
    void *symbol = next("fsync");
    memcpy(&real, &symbol, sizeof real);
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    trace("fsync", path);
    struct stat st;
    bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    return fails(folder ? "fsync-folder" : "fsync") ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    ssize_t (*real)(int, const void *, size_t, off_t);
    void *symbol = next("pwrite");
    memcpy(&real, &symbol, sizeof real);
    if (fails("pwrite")) return -1;
    return real(fd, bytes, getenv("SHORT") && n > 1000 ? 1000 : n, at);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
    int (*real)(int, off_t, off_t);
    void *symbol = next("posix_fallocate");
    memcpy(&real, &symbol, sizeof real);
    return fails("posix_fallocate") ? errno : real(fd, at, n);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    void *symbol = next("rename");
    memcpy(&real, &symbol, sizeof real);
    trace("rename", from);
    return fails("rename") ? -1 : real(from, to);
}

int statvfs(const char *path, struct statvfs *fs)
{
    int (*real)(const char *, struct statvfs *);
    void *symbol = next("statvfs");
    memcpy(&real, &symbol, sizeof real);
    int rc = real(path, fs);
    const char *left = getenv("FREE");
    if (rc == 0 && left) {
        fs->f_frsize = 1;
        fs->f_bavail = (fsblkcnt_t)strtoull(left, NULL, 10);
    }
    return rc;
}
