/* SPDX-License-Identifier: MIT
 * fuzz_torch.c - any bytes as a checkpoint: as the whole archive or, when they are none, as the
 * pickle in a good archive, where neither checksums nor sizes stand in its way. */
#include "loader.h"

enum { STORAGES = 8, STORAGE_BYTES = 24 }; /* what the seeds count on */

struct out {
    uint8_t *at;
};

static void put(struct out *o, uint64_t value, int bytes)
{
    for (; bytes > 0; bytes--, value >>= 8) *o->at++ = (uint8_t)value;
}

static void put_bytes(struct out *o, const void *from, size_t n)
{
    if (n) memcpy(o->at, from, n);
    o->at += n;
}

/* "a/data.pkl" and "a/data/0" .. "a/data/7"; a checksum of 0 means none. */
static size_t wrap(const uint8_t *pickle, size_t n, uint8_t *to)
{
    struct out file = { to }, directory = { NULL };
    uint8_t entries[(STORAGES + 1) * 64], zeros[STORAGE_BYTES] = { 0 };
    directory.at = entries;
    for (int i = 0; i <= STORAGES; i++) {
        char name[16];
        snprintf(name, sizeof name, i ? "a/data/%d" : "a/data.pkl", i - 1);
        size_t bytes = i ? STORAGE_BYTES : n, local = (size_t)(file.at - to);
        put(&file, 0x04034b50, 4), put(&file, 0, 14), put(&file, bytes, 4), put(&file, bytes, 4);
        put(&file, strlen(name), 2), put(&file, 0, 2), put_bytes(&file, name, strlen(name));
        put_bytes(&file, i ? zeros : pickle, bytes);
        put(&directory, 0x02014b50, 4), put(&directory, 0, 16), put(&directory, bytes, 4);
        put(&directory, bytes, 4), put(&directory, strlen(name), 2), put(&directory, 0, 12);
        put(&directory, local, 4), put_bytes(&directory, name, strlen(name));
    }
    size_t begin = (size_t)(file.at - to), length = (size_t)(directory.at - entries);
    put_bytes(&file, entries, length);
    put(&file, 0x06054b50, 4), put(&file, 0, 4), put(&file, STORAGES + 1, 2),
        put(&file, STORAGES + 1, 2);
    put(&file, length, 4), put(&file, begin, 4), put(&file, 0, 2);
    return (size_t)(file.at - to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n >= 2 && memcmp(data, "PK", 2) == 0) {
        open_and_read(data, n);
        return 0;
    }
    uint8_t *archive = malloc(n + 2048);
    open_and_read(archive, wrap(data, n, archive));
    free(archive);
    return 0;
}
