/* SPDX-License-Identifier: MIT
 * temp.c - files and folders that are not whole yet, so that an end by a signal leaves none behind.
 * Any thread may call. */
#include "base/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Recursive: the end for want of memory may come in here. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char **unfinished;
static int n_unfinished, capacity;

void temp_begin(const char *path)
{
    pthread_mutex_lock(&lock);
    unfinished = array_reserve(unfinished, n_unfinished, &capacity, sizeof *unfinished);
    unfinished[n_unfinished++] = str_dup(path);
    pthread_mutex_unlock(&lock);
}

void temp_end(const char *path)
{
    pthread_mutex_lock(&lock);
    for (int i = n_unfinished - 1; i >= 0; i--) {
        if (strcmp(unfinished[i], path)) continue;
        mem_free(unfinished[i]);
        unfinished[i] = unfinished[--n_unfinished];
        break;
    }
    pthread_mutex_unlock(&lock);
}

/* ---- removing, without memory: there may be none left ---------------------------------------- */

static void remove_at(int folder, const char *name);

/* What is in a folder and begins with `begin`. What cannot be removed stays; the rest goes. */
static void remove_in(int folder, const char *begin)
{
    _Alignas(struct dirent64) char list[2048];
    for (bool gone = true; gone;) { /* a listing may skip what moves while others are removed */
        gone = false;
        lseek(folder, 0, SEEK_SET);
        for (long n; (n = syscall(SYS_getdents64, folder, list, sizeof list)) > 0;)
            for (long at = 0; at < n;) {
                const struct dirent64 *e = (const void *)(list + at);
                at += e->d_reclen;
                if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
                    strncmp(e->d_name, begin, strlen(begin)))
                    continue;
                remove_at(folder, e->d_name);
                gone = gone || faccessat(folder, e->d_name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
            }
    }
}

static void remove_at(int folder, const char *name)
{
    if (unlinkat(folder, name, 0) == 0) return;
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    remove_in(fd, "");
    close(fd);
    unlinkat(folder, name, AT_REMOVEDIR);
}

/* "out/x.safetensors.tmp-17-": everything that begins so. */
static void remove_all_with(const char *begin)
{
    const char *slash = strrchr(begin, '/'), *leaf = slash ? slash + 1 : begin;
    char folder[4096];
    if ((size_t)(leaf - begin) >= sizeof folder) return;
    memcpy(folder, begin, (size_t)(leaf - begin));
    folder[leaf - begin] = 0;
    int fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    remove_in(fd, leaf);
    close(fd);
}

void temp_remove_all(void)
{
    pthread_mutex_lock(&lock); /* for good: whoever begins another file from now on waits */
    for (int i = 0; i < n_unfinished; i++) {
        const char *path = unfinished[i];
        if (path[strlen(path) - 1] == '-') remove_all_with(path);
        else remove_at(AT_FDCWD, path);
    }
}
