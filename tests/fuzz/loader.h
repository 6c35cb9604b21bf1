/* SPDX-License-Identifier: MIT
 * loader.h - any bytes as a model file: open, list, read every tensor in both ways. */
#ifndef BURIN_FUZZ_LOADER_H
#define BURIN_FUZZ_LOADER_H

#include "host.h"

#include <string.h>

static inline void read_all(const struct burin_loader *l, void *self, size_t n)
{
    struct burin_tensor_info info;
    const char *key, *value;
    volatile uint8_t sum = 0;
    for (int64_t i = 0; i < l->count(self); i++) {
        if (l->info(self, i, &info) != 0 || info.bytes > n ||
            memchr(info.name, 0, sizeof info.name) == NULL)
            abort(); /* an opened file promises all that */
        uint8_t *copy = host_alloc((size_t)info.bytes);
        if (l->read(self, i, copy, info.bytes) != 0) abort();
        for (uint64_t k = 0; info.mapped && k < info.bytes; k++)
            sum = (uint8_t)(sum + (((const uint8_t *)info.mapped)[k] != copy[k]));
        if (sum) abort();
        free(copy);
    }
    for (int64_t i = 0; l->meta(self, i, &key, &value); i++)
        sum = (uint8_t)(sum + strlen(key) + strlen(value));
}

static inline void open_and_read(const uint8_t *data, size_t n)
{
    const struct burin_loader *l = burin_plugin_main(&fuzz_host)->loaders[0];
    int fd;
    const char *path = as_file(data, n, &fd);
    void *self = NULL;
    l->probe(path, data, n < 4096 ? n : 4096);
    alloc_max = 4 * n + ((size_t)64 << 10);
    if (*path && l->open(path, &self) == 0) {
        read_all(l, self, n);
        l->close(self);
    }
    close(fd);
}

#endif
