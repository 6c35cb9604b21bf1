/* SPDX-License-Identifier: MIT
 * temp.c - files and folders that are not whole yet, so that an end by a signal leaves none behind.
 * Any thread may call. */
#include "base/base.h"

#include <dirent.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

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

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    remove(path);
    return 0; /* the rest can go all the same */
}

/* "out/x.safetensors.tmp-17-": everything that begins so. */
static void remove_all_with(const char *begin)
{
    const char *slash = strrchr(begin, '/'), *leaf = slash ? slash + 1 : begin;
    struct str path = { 0 };
    str_add_bytes(&path, begin, (size_t)(leaf - begin));
    size_t folder = path.len;
    DIR *d = opendir(folder ? path.data : ".");
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, leaf, strlen(leaf))) continue;
        path.len = folder;
        str_add(&path, e->d_name);
        remove(path.data);
    }
    if (d) closedir(d);
    str_finish(&path);
}

void temp_remove_all(void)
{
    pthread_mutex_lock(&lock); /* for good: whoever begins another file from now on waits */
    for (int i = 0; i < n_unfinished; i++) {
        const char *path = unfinished[i];
        if (path[strlen(path) - 1] == '-') remove_all_with(path);
        else nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}
