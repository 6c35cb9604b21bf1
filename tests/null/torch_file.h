/* SPDX-License-Identifier: MIT
 * torch_file.h - makes checkpoints as torch.save does, to be damaged by the tests. */
#ifndef BURIN_TESTS_TORCH_FILE_H
#define BURIN_TESTS_TORCH_FILE_H

#include "plugin_test.h"

/* ---- pickles: pieces of text, to be put together --------------------------------------------- */

#define STORAGE_OF(type, key, numel) \
    "(X\7\0\0\0storagectorch\n" type "\nX\1\0\0\0" key "X\3\0\0\0cpu" numel "tQ"
#define STORAGE STORAGE_OF("FloatStorage", "0", "K\6")
#define NO_HOOKS "ccollections\nOrderedDict\n)R"
#define TENSOR_OF(storage, offset, size, stride) \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset size stride "\x89" NO_HOOKS "tR"
/* (2, 3), the whole storage */
#define TENSOR TENSOR_OF(STORAGE, "K\0", "K\2K\3\x86", "K\3K\1\x86")
#define KEY(letter) "X\1\0\0\0" letter
#define BEGIN "\x80\2"
#define DICT(items) BEGIN "}(" items "u."
#define GOOD DICT(KEY("a") TENSOR)
#define LONG8(bytes) "\x8a\10" bytes

/* ---- archives -------------------------------------------------------------------------------- */

struct member {
    const char *name;
    const void *data;
    size_t n;
};

#define MEMBERS_MAX 8
struct archive {
    struct str s;
    size_t local[MEMBERS_MAX], data[MEMBERS_MAX], central[MEMBERS_MAX]; /* of the first members */
    size_t directory, end64, locator, end;
};

static inline void put(struct str *s, uint64_t value, int bytes)
{
    for (; bytes > 0; bytes--, value >>= 8) str_add_bytes(s, &(char){ (char)value }, 1);
}

static inline void set(struct archive *a, size_t at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) a->s.data[at + (size_t)i] = (char)(value >> 8 * i);
}

/* By half bytes: some pickles here have 16 MiB. */
static inline uint32_t crc32_of(const void *data, size_t n)
{
    const uint8_t *b = data;
    uint32_t table[16], crc = ~0u;
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int k = 0; k < 4; k++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xedb88320u : table[i] >> 1;
    }
    for (size_t i = 0; i < n; i++) {
        crc = table[(crc ^ b[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ (uint32_t)b[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* Members padded to 64 bytes, with descriptors, and a 64-bit end record: torch.save; or plain, as
 * zip tools do. */
static inline void pack(struct archive *a, const struct member *m, int n, bool as_torch)
{
    *a = (struct archive){ 0 };
    struct str directory = { 0 };
    int flags = as_torch ? 0x808 : 0;
    for (int i = 0; i < n; i++) {
        size_t name = strlen(m[i].name), local = a->s.len;
        size_t pad = as_torch ? (64 - (local + 30 + name + 4) % 64) % 64 + 4 : 0;
        uint32_t crc = crc32_of(m[i].data, m[i].n);
        if (i < MEMBERS_MAX) {
            a->local[i] = local;
            a->data[i] = local + 30 + name + pad;
            a->central[i] = directory.len; /* made absolute below */
        }
        put(&a->s, 0x04034b50, 4), put(&a->s, 0, 2), put(&a->s, (uint64_t)flags, 2),
            put(&a->s, 0, 6);
        put(&a->s, as_torch ? 0 : crc, 4), put(&a->s, as_torch ? 0 : m[i].n, 4),
            put(&a->s, as_torch ? 0 : m[i].n, 4);
        put(&a->s, name, 2), put(&a->s, pad, 2);
        str_add_bytes(&a->s, m[i].name, name);
        if (pad) {
            str_add_bytes(&a->s, "FB", 2);
            put(&a->s, pad - 4, 2);
        }
        for (size_t k = 4; k < pad; k++) str_add(&a->s, "Z");
        str_add_bytes(&a->s, m[i].data, m[i].n);
        if (as_torch)
            put(&a->s, 0x08074b50, 4), put(&a->s, crc, 4), put(&a->s, m[i].n, 4),
                put(&a->s, m[i].n, 4);
        put(&directory, 0x02014b50, 4), put(&directory, 0, 4), put(&directory, (uint64_t)flags, 2);
        put(&directory, 0, 6), put(&directory, crc, 4), put(&directory, m[i].n, 4),
            put(&directory, m[i].n, 4);
        put(&directory, name, 2), put(&directory, 0, 12), put(&directory, local, 4);
        str_add_bytes(&directory, m[i].name, name);
    }
    a->directory = a->s.len;
    for (int i = 0; i < n && i < MEMBERS_MAX; i++) a->central[i] += a->directory;
    if (directory.len) str_add_bytes(&a->s, directory.data, directory.len);
    a->end64 = a->s.len;
    if (as_torch || n > 0xffff) {
        put(&a->s, 0x06064b50, 4), put(&a->s, 44, 8), put(&a->s, 0x2d031e, 4), put(&a->s, 0, 8);
        put(&a->s, (uint64_t)n, 8), put(&a->s, (uint64_t)n, 8), put(&a->s, directory.len, 8);
        put(&a->s, a->directory, 8);
        a->locator = a->s.len;
        put(&a->s, 0x07064b50, 4), put(&a->s, 0, 4), put(&a->s, a->end64, 8), put(&a->s, 1, 4);
    }
    a->end = a->s.len;
    uint64_t shown = n > 0xffff ? 0xffff : (uint64_t)n;
    put(&a->s, 0x06054b50, 4), put(&a->s, 0, 4), put(&a->s, shown, 2), put(&a->s, shown, 2);
    put(&a->s, directory.len, 4), put(&a->s, a->directory, 4), put(&a->s, 0, 2);
    str_finish(&directory);
}

static const float six_floats[6] = { 1, -2, 3.5f, 0, 1e30f, -0.25f };

/* A whole checkpoint around a pickle: its one storage "0" holds six floats. */
static inline void pack_pickle(struct archive *a, const void *pickle, size_t n)
{
    const struct member m[] = { { "archive/data.pkl", pickle, n },
                                { "archive/byteorder", "little", 6 },
                                { "archive/data/0", six_floats, sizeof six_floats },
                                { "archive/version", "3\n", 2 } };
    pack(a, m, COUNT_OF(m), true);
}

/* ---- opening --------------------------------------------------------------------------------- */

static const struct burin_loader *loader; /* of the torch plugin */

static inline const char *write_archive(struct archive *a)
{
    const char *path = put_file("case.ckpt", a->s.data, a->s.len);
    str_finish(&a->s);
    return path;
}

static inline int try_open(const char *path, void **self) { return open_with(loader, path, self); }

/* Writes and opens the archive, which is freed; it must be refused with this text. */
static inline void refused(const char *what, struct archive *a, const char *says)
{
    void *self;
    if (try_open(write_archive(a), &self) == 0) {
        print_error("%s was accepted\n", what);
        _fail(__FILE__, __LINE__);
    }
    if (!strstr(burin_error(), says)) print_error("%s: ", what);
    assert_error("case.ckpt");
    assert_error(says);
}

/* The same, but it must open. */
static inline void *accepted(const char *what, struct archive *a)
{
    void *self;
    if (try_open(write_archive(a), &self) != 0) {
        print_error("%s was refused: %s\n", what, burin_error());
        _fail(__FILE__, __LINE__);
    }
    return self;
}

#endif
