/* SPDX-License-Identifier: MIT
 * test_torch_zip.c - the torch loader against damaged and forged archives (K18 to K26). The pickles
 * in them are good; bad ones are in test_torch.c. */
#include "torch_file.h"

#include <sys/stat.h>

static const char good[] = GOOD;

/* A good checkpoint: members 0 data.pkl, 1 byteorder, 2 data/0, 3 version. */
static void pack_good(struct archive *a, bool as_torch)
{
    const struct member m[] = { { "archive/data.pkl", good, sizeof good - 1 },
                                { "archive/byteorder", "little", 6 },
                                { "archive/data/0", six_floats, sizeof six_floats },
                                { "archive/version", "3\n", 2 } };
    pack(a, m, COUNT_OF(m), as_torch);
}

/* ---- single fields --------------------------------------------------------------------------- */

enum where { LOCAL, CENTRAL, END, END64, LOCATOR, DATA };
struct change {
    int where, member, at, bytes;
    uint64_t value;
};

static void apply(struct archive *a, const struct change *c)
{
    const size_t base[] = { a->local[c->member], a->central[c->member], a->end, a->end64,
                            a->locator,          a->data[c->member] };
    if (c->bytes) set(a, base[c->where] + (size_t)c->at, c->value, c->bytes);
}

#define TORCH true
#define PLAIN false
static const struct {
    const char *name;
    bool as_torch;
    struct change change[3];
    const char *says;
} bad[] = {
    { "K18 local name", TORCH, { { LOCAL, 2, 30, 1, 'x' } }, "another name in front" },
    { "K18 local name shorter", TORCH, { { LOCAL, 2, 26, 2, 13 } }, "another name in front" },
    { "K18 central name", TORCH, { { CENTRAL, 2, 46 + 13, 1, '1' } }, "another name in front" },
    { "K19 encrypted",
      TORCH,
      { { LOCAL, 2, 6, 2, 0x809 }, { CENTRAL, 2, 8, 2, 0x809 } },
      "encrypted" },
    { "K19 encrypted in the directory only", TORCH, { { CENTRAL, 2, 8, 2, 0x809 } }, "encrypted" },
    { "K19 encrypted in front only", TORCH, { { LOCAL, 2, 6, 2, 0x809 } }, "other flags in front" },
    { "K19 patch",
      TORCH,
      { { LOCAL, 2, 6, 2, 0x828 }, { CENTRAL, 2, 8, 2, 0x828 } },
      "flags that torch.save never" },
    { "K19 strong encryption",
      TORCH,
      { { CENTRAL, 2, 8, 2, 0x848 } },
      "flags that torch.save never" },
    { "K19 masked header", TORCH, { { CENTRAL, 2, 8, 2, 0x2808 } }, "flags that torch.save never" },
    { "K19 descriptor in front only", PLAIN, { { LOCAL, 2, 6, 2, 8 } }, "other flags in front" },
    { "K19 descriptor in the directory only",
      PLAIN,
      { { CENTRAL, 2, 8, 2, 8 } },
      "other flags in front" },
    { "K20 checksum of data", TORCH, { { DATA, 2, 5, 1, 0x55 } }, "do not match their checksum" },
    { "K20 checksum of data.pkl",
      TORCH,
      { { CENTRAL, 0, 16, 4, 12345 }, { DATA, 0, sizeof good + 3, 4, 12345 } },
      "do not match their checksum" },
    { "K20 checksum of byteorder",
      TORCH,
      { { CENTRAL, 1, 16, 4, 12345 }, { DATA, 1, 6 + 4, 4, 12345 } },
      "do not match their checksum" },
    { "K20 checksum behind", TORCH, { { DATA, 1, 6 + 4, 4, 12345 } }, "leave a hole" },
    { "K23 size behind", TORCH, { { DATA, 1, 6 + 8, 4, 7 } }, "leave a hole" },
    { "no descriptor", TORCH, { { DATA, 1, 6, 4, 0 } }, "leave a hole" },
    { "K20 checksum in front", PLAIN, { { LOCAL, 2, 14, 4, 12345 } }, "another size or checksum" },
    { "K21 compressed",
      TORCH,
      { { LOCAL, 2, 8, 2, 8 }, { CENTRAL, 2, 10, 2, 8 } },
      "is compressed" },
    { "K21 compressed 1:1000",
      TORCH,
      { { LOCAL, 2, 8, 2, 8 }, { CENTRAL, 2, 10, 2, 8 }, { CENTRAL, 2, 24, 4, 24000 } },
      "is compressed" },
    { "K21 compressed in the directory only",
      TORCH,
      { { CENTRAL, 2, 10, 2, 8 } },
      "is compressed" },
    { "K21 compressed in front only", TORCH, { { LOCAL, 2, 8, 2, 8 } }, "other flags in front" },
    { "K21 stored, 1:1000", TORCH, { { CENTRAL, 2, 24, 4, 24000 } }, "contradictory sizes" },
    { "K21 zstd", TORCH, { { CENTRAL, 0, 10, 2, 93 } }, "is compressed" },
    { "K23 64-bit sizes without their field",
      TORCH,
      { { CENTRAL, 2, 24, 4, UINT32_MAX } },
      "contradictory sizes" },
    { "K23 both", TORCH, { { CENTRAL, 2, 20, 8, UINT64_MAX } }, "lies outside of the file" },
    { "K23 offset", TORCH, { { CENTRAL, 2, 42, 4, UINT32_MAX } }, "lies outside of the file" },
    { "K23 size of the record", TORCH, { { END64, 0, 4, 8, 45 } }, "contradicts itself" },
    { "K23 place of the record", TORCH, { { LOCATOR, 0, 8, 8, 3 } }, "contradicts itself" },
    { "K23 entries 2^63",
      TORCH,
      { { END64, 0, 24, 8, 1ull << 63 },
        { END64, 0, 32, 8, 1ull << 63 },
        { END, 0, 8, 4, UINT32_MAX } },
      "contradicts itself" },
    { "K23 entries here and there", TORCH, { { END, 0, 8, 4, 0x30003 } }, "contradicts itself" },
    { "K23 entries on this disk", TORCH, { { END64, 0, 24, 8, 3 } }, "contradicts itself" },
    { "K23 directory 2^64 - 1", TORCH, { { END64, 0, 40, 8, UINT64_MAX } }, "contradicts itself" },
    { "K23 directory begins late",
      TORCH,
      { { END64, 0, 48, 8, UINT64_MAX }, { END, 0, 16, 4, UINT32_MAX } },
      "contradicts itself" },
    { "K23 a comment is announced",
      TORCH,
      { { END, 0, 20, 2, 1 } },
      "does not end as a zip archive" },
    { "disk", TORCH, { { END, 0, 4, 2, 1 } }, "contradicts itself" },
    { "disk of an entry", TORCH, { { CENTRAL, 2, 34, 2, 1 } }, "contradictory sizes" },
    { "one entry less", PLAIN, { { END, 0, 8, 4, 0x30003 } }, "lists 3 entries, but holds more" },
    { "one entry more", PLAIN, { { END, 0, 8, 4, 0x50005 } }, "is damaged" },
    { "directory shorter", PLAIN, { { END, 0, 12, 1, 1 } }, "contradicts itself" },
    { "directory elsewhere", PLAIN, { { END, 0, 16, 1, 0 } }, "contradicts itself" },
    { "size in front", PLAIN, { { LOCAL, 2, 22, 4, 23 } }, "another size or checksum" },
    { "size past the end",
      PLAIN,
      { { LOCAL, 3, 18, 4, 500 }, { LOCAL, 3, 22, 4, 500 }, { CENTRAL, 3, 20, 4, 500 } },
      "contradictory sizes" },
    { "smaller: a hole",
      TORCH,
      { { CENTRAL, 3, 20, 1, 1 }, { CENTRAL, 3, 24, 1, 1 } },
      "its entries leave a hole" },
    { "larger: an overlap",
      TORCH,
      { { CENTRAL, 1, 20, 4, 60 }, { CENTRAL, 1, 24, 4, 60 } },
      "its entries overlap" },
    { "the same bytes twice", TORCH, { { CENTRAL, 3, 42, 4, 0 } }, "another name in front" },
    { "no local header", TORCH, { { LOCAL, 1, 0, 4, 0 } }, "not where the directory says" },
    { "no central header", TORCH, { { CENTRAL, 1, 0, 4, 0 } }, "is damaged" },
    { "a long name", TORCH, { { CENTRAL, 3, 28, 2, 2000 } }, "is cut off" },
    { "a long extra field", TORCH, { { CENTRAL, 3, 30, 2, 2000 } }, "is cut off" },
    { "an extra field in front", TORCH, { { LOCAL, 3, 28, 2, 2000 } }, "lies outside of the file" },
    { "no name", TORCH, { { CENTRAL, 3, 28, 2, 0 } }, "impossible name" },
    { "a NUL in a name", TORCH, { { CENTRAL, 3, 50, 1, 0 } }, "impossible name" },
};

static void test_fields(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(bad); i++) {
        struct archive a;
        pack_good(&a, bad[i].as_torch);
        for (int k = 0; k < 3; k++) apply(&a, &bad[i].change[k]);
        refused(bad[i].name, &a, bad[i].says);
    }
}

/* ---- whole archives -------------------------------------------------------------------------- */

static void test_good(void **state)
{
    (void)state;
    for (int as_torch = 0; as_torch < 2; as_torch++) {
        struct archive a;
        pack_good(&a, as_torch);
        /* K20: without a checksum, as torch.serialization.set_crc32_options(False) */
        if (as_torch) {
            set(&a, a.central[2] + 16, 0, 4);
            set(&a, a.data[2] + sizeof six_floats + 4, 0, 4);
        }
        void *self = accepted("a good archive", &a);
        struct burin_tensor_info info;
        assert_int_equal(loader->count(self), 1);
        assert_int_equal(loader->info(self, 0, &info), 0);
        if (as_torch) { /* its data begin at a multiple of 64 */
            assert_int_equal((uintptr_t)info.mapped % 64, 0);
            assert_memory_equal(info.mapped, six_floats, sizeof six_floats);
        }
        float six[6];
        assert_int_equal(loader->read(self, 0, six, sizeof six), 0);
        assert_memory_equal(six, six_floats, sizeof six);
        loader->close(self);
    }
    loader->close(NULL);
}

/* Behind data there is a signature or none, and sizes of 4 or 8 bytes. */
static void test_descriptors(void **state)
{
    (void)state;
    enum { NEITHER = -1 };
    static const struct {
        const char *what, *says; /* NULL: taken */
        bool signature;
        int size; /* bytes */
        int wrong;
    } cases[] = {
        { "short", NULL, false, 4, NEITHER },
        { "signed", NULL, true, 4, NEITHER },
        { "wide", NULL, false, 8, NEITHER },
        { "signed, wide", NULL, true, 8, NEITHER },
        { "of 8 bytes", "leave a hole", false, 2, NEITHER },
        { "of 14 bytes", "leave a hole", true, 3, NEITHER },
        { "another checksum", "leave a hole", false, 8, 0 },
        { "another packed size", "leave a hole", false, 8, 1 },
        { "another size", "leave a hole", false, 4, 2 },
    };
    for (int i = 0; i < COUNT_OF(cases); i++) {
        struct archive a, b = { 0 };
        pack_good(&a, false);
        set(&a, a.local[3] + 6, 8, 2); /* of the last entry, so that nothing else moves */
        set(&a, a.central[3] + 8, 8, 2);
        str_add_bytes(&b.s, a.s.data, a.directory);
        if (cases[i].signature) put(&b.s, 0x08074b50, 4);
        put(&b.s, crc32_of("3\n", 2) + (cases[i].wrong == 0), 4);
        put(&b.s, 2 + (cases[i].wrong == 1), cases[i].size);
        put(&b.s, 2 + (cases[i].wrong == 2), cases[i].size);
        size_t more = b.s.len - a.directory;
        str_add_bytes(&b.s, a.s.data + a.directory, a.s.len - a.directory);
        set(&b, a.end + more + 16, a.directory + more, 4);
        str_finish(&a.s);
        if (cases[i].says) refused(cases[i].what, &b, cases[i].says);
        else loader->close(accepted(cases[i].what, &b));
    }
}

/* Cut off or continued at every byte. */
static void test_length(void **state)
{
    (void)state;
    struct archive a, part;
    pack_good(&a, true);
    for (size_t n = 0; n < a.s.len; n++) {
        part = (struct archive){ 0 };
        str_add_bytes(&part.s, a.s.data, n);
        if (!n) str_add(&part.s, "");
        refused("an archive that is cut off", &part, "zip archive");
    }
    str_add(&a.s, "x");
    refused("something behind the end", &a, "does not end as a zip archive");
    void *self;
    assert_int_equal(try_open(folder, &self), -1);
    assert_error("not a regular file");
    assert_int_equal(try_open(in_folder(folder, "absent"), &self), -1);
    assert_error("absent");
}

/* K23: the comment of the real end holds a second directory and a second
 * end, with another data.pkl in it. */
static void test_two_ends(void **state)
{
    (void)state;
    static const char evil[] = BEGIN "cos\nsystem\nX\4\0\0\0exit\x85R.";
    const struct member second = { "archive/data.pkl", evil, sizeof evil - 1 };
    for (int bare = 0; bare < 2; bare++) {
        struct archive a, b;
        pack_good(&a, true);
        pack(&b, &second, 1, false);
        set(&b, b.central[0] + 42, a.s.len, 4);
        set(&b, b.end + 16, a.s.len + b.directory, 4);
        set(&a, a.end + 20, b.s.len, 2);
        str_add_bytes(&a.s, b.s.data, b.s.len);
        str_finish(&b.s);
        if (bare) /* the comment is not even announced */
            set(&a, a.end + 20, 0, 2);
        refused("K23 two ends", &a, "leave a hole");
    }
    struct archive a;
    pack_good(&a, true); /* something before the first entry */
    struct archive b = { 0 };
    str_add(&b.s, "#!/bin/sh\n");
    str_add_bytes(&b.s, a.s.data, a.s.len);
    for (int i = 0; i < 4; i++) set(&b, 10 + a.central[i] + 42, a.local[i] + 10, 4);
    set(&b, 10 + a.end64 + 48, a.directory + 10, 8);
    set(&b, 10 + a.locator + 8, a.end64 + 10, 8);
    set(&b, 10 + a.end + 16, a.directory + 10, 4);
    str_finish(&a.s);
    refused("a prefix", &b, "leave a hole");
}

static void refused_members(const char *what, const struct member *m, int n, const char *says)
{
    struct archive a;
    pack(&a, m, n, true);
    refused(what, &a, says);
}

static void test_members(void **state)
{
    (void)state;
    const struct member pkl = { "archive/data.pkl", good, sizeof good - 1 },
                        data = { "archive/data/0", six_floats, sizeof six_floats };
    const struct member m22[] = { pkl, data, data }, m22b[] = { pkl, data, pkl };
    refused_members("K22 storage twice", m22, 3, "is there twice");
    refused_members("K22 data.pkl twice", m22b, 3, "is there twice");
    static const struct {
        const char *order, *says;
    } orders[] = {
        { "big", "is not \"little\"" },
        { "", "is not \"little\"" },
        { "BIGBIG", "unknown" },
        { "little\n", "is not" },
    };
    for (int i = 0; i < COUNT_OF(orders); i++) {
        const struct member m[] = {
            pkl, data, { "archive/byteorder", orders[i].order, strlen(orders[i].order) }
        };
        refused_members("K25", m, 3, orders[i].says);
    }
    const struct member two[] = { pkl, data, { "other/data.pkl", good, sizeof good - 1 } };
    refused_members("two checkpoints", two, 3, "several checkpoints");
    const struct member elsewhere[] = { pkl, { "other/data/0", six_floats, sizeof six_floats } };
    refused_members("storage in another folder", elsewhere, 2,
                    "\"archive/data/0\" with the bytes of a tensor is missing");
    const struct member cases[][1] = { { { "photo.png", "x", 1 } },
                                       { { "data.pkl", good, sizeof good - 1 } },
                                       { { "/data.pkl", good, sizeof good - 1 } },
                                       { { "a/b/data.pkl", good, sizeof good - 1 } } };
    for (int i = 0; i < COUNT_OF(cases); i++)
        refused_members("no checkpoint", cases[i], 1, "there is no data.pkl in it");
    refused_members("no entries", NULL, 0, "there is no data.pkl in it");
    char name[400];
    memset(name, 'n', sizeof name);
    strcpy(name + 300, "/data.pkl");
    const struct member long_folder[] = { { name, good, sizeof good - 1 } };
    refused_members("a long folder", long_folder, 1, "torch.save never makes");
}

/* K24: names that would lead out of a folder mean nothing here, and neither does their number. */
static void test_ignored_members(void **state)
{
    (void)state;
    enum { MANY = 70000 };
    struct member *m = mem_alloc((MANY + 4) * sizeof *m);
    char(*names)[16] = mem_alloc(MANY * sizeof *names);
    int n = 0;
    m[n++] = (struct member){ "archive/data.pkl", good, sizeof good - 1 };
    m[n++] = (struct member){ "archive/data/0", six_floats, sizeof six_floats };
    m[n++] = (struct member){ "../../x", "evil", 4 };
    m[n++] = (struct member){ "/tmp/burin-absolute", "evil", 4 };
    for (int few = 1; few >= 0; few--) {
        struct archive a;
        for (int i = 0; !few && i < MANY; i++) {
            snprintf(names[i], sizeof names[i], "archive/%d", i);
            m[n++] = (struct member){ names[i], "", 0 };
        }
        pack(&a, m, n, true);
        void *self = accepted("K24", &a);
        assert_int_equal(loader->count(self), 1);
        loader->close(self);
        assert_int_equal(count_files(folder), 1);
        assert_false(file_exists("/tmp/burin-absolute"));
    }
    mem_free(names);
    mem_free(m);
}

/* Sizes of 2^32 and more are in an extra field; small ones may be
 * there too, and must make sense. */
static void test_wide_entries(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < 3; wrong++) {
        struct archive a, b = { 0 };
        pack_good(&a, false);
        set(&a, a.central[3] + 20, UINT64_MAX, 8);
        set(&a, a.central[3] + 42, UINT32_MAX, 4);
        set(&a, a.central[3] + 30, 28, 2);
        str_add_bytes(&b.s, a.s.data, a.end);
        put(&b.s, 1, 2), put(&b.s, wrong == 1 ? 16 : 24, 2),
            put(&b.s, wrong == 2 ? 1ull << 62 : 2, 8);
        put(&b.s, wrong == 2 ? 1ull << 62 : 2, 8), put(&b.s, a.local[3], 8);
        str_add_bytes(&b.s, a.s.data + a.end, a.s.len - a.end);
        set(&b, a.end + 28 + 12, a.end - a.directory + 28, 4);
        str_finish(&a.s);
        if (wrong)
            refused("K23 extra field", &b,
                    wrong == 1 ? "contradictory sizes" : "another size or checksum");
        else loader->close(accepted("64-bit sizes", &b));
    }
}

/* Some file systems cannot map a file. It is read then. Here a second storage is a hole. */
static void test_unmapped(void **state)
{
    (void)state;
    enum { HOLE = 1 << 30 };
    struct archive a;
    const struct member m[] = { { "archive/data.pkl", good, sizeof good - 1 },
                                { "archive/data/0", six_floats, sizeof six_floats },
                                { "archive/data/1", "", 0 } };
    pack(&a, m, COUNT_OF(m), false);
    set(&a, a.local[2] + 18, HOLE, 4), set(&a, a.local[2] + 22, HOLE, 4);
    set(&a, a.central[2] + 20, HOLE, 4), set(&a, a.central[2] + 24, HOLE, 4);
    set(&a, a.end + 16, a.directory + HOLE, 4);
    const char *path = put_file("case.ckpt", a.s.data, a.directory);
    assert_int_equal(truncate(path, (off_t)a.directory + HOLE), 0);
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    size_t rest = a.s.len - a.directory;
    assert_int_equal(fwrite(a.s.data + a.directory, 1, rest, f), rest);
    assert_int_equal(fclose(f), 0);
    str_finish(&a.s);
    void *self;
    struct burin_tensor_info info;
    float six[6];
    assert_int_equal(open_unmapped(loader, path, &self), 0);
    assert_int_equal(loader->info(self, 0, &info), 0);
    assert_null(info.mapped);
    assert_int_equal(loader->read(self, 0, six, sizeof six), 0);
    assert_memory_equal(six, six_floats, sizeof six);
    loader->close(self);
    put_file("case.ckpt", "", 0);
}

/* A file that changes while it is open is an error, not a signal. */
static void test_changed_file(void **state)
{
    (void)state;
    static const long changes[] = { -1, 4096, -500 };
    for (int i = 0; i < COUNT_OF(changes); i++) {
        struct archive a;
        pack_good(&a, true);
        long n = (long)a.s.len;
        void *self = accepted("a good file", &a);
        struct burin_tensor_info info;
        float six[6];
        assert_int_equal(truncate(in_folder(folder, "case.ckpt"), n + changes[i]), 0);
        assert_int_equal(loader->info(self, 0, &info), -1);
        assert_error("changed its size");
        assert_int_equal(loader->read(self, 0, six, sizeof six), -1);
        assert_error("changed its size");
        loader->close(self);
    }
}

/* ---- what is no archive at all --------------------------------------------------------------- */

/* K26, through the host's choice: by content, whatever the name says. */
static void test_chosen(void **state)
{
    (void)state;
    char tar[512] = "model/data.pkl";
    memcpy(tar + 257, "ustar", 5);
    static const struct {
        const char *content;
        size_t n;
        const char *says;
    } files[] = {
        /* Before PyTorch 1.6 */
        { "\200\002\212\nl\374\234F\371 j\250P\031.\200\002M\351\003.", 21, "save it again" },
        { "7z\274\257\047\034\0\4", 8, "7-Zip archive" },
        { "<!DOCTYPE html><html>", 21, "an HTML page" },
        { "version https://git-lfs.github.com/spec/v1\noid", 46, "git-lfs pointer" },
        { "Rar!\032\007\001\0", 8, "RAR archive" },
        { "", 0, "is empty" },
    };
    for (int i = 0; i <= COUNT_OF(files); i++) {
        const char *path = in_folder(folder, "model.ckpt");
        bool last = i == COUNT_OF(files);
        assert_true(
            file_write(path, last ? tar : files[i].content, last ? sizeof tar : files[i].n));
        assert_null(plug_loader_for(path));
        assert_error("model.ckpt");
        assert_error(last ? "is a tar archive" : files[i].says);
    }
    unlink(in_folder(folder, "model.ckpt"));
    struct archive a;
    for (int as_torch = 0; as_torch < 2; as_torch++) {
        pack_good(&a, as_torch);
        const char *path = in_folder(folder, "model.safetensors");
        assert_true(file_write(path, a.s.data, a.s.len));
        assert_ptr_equal(plug_loader_for(path), loader);
        assert_int_equal(loader->probe(path, (uint8_t *)a.s.data, a.s.len), 95);
        assert_int_equal(loader->probe(path, (uint8_t *)a.s.data, 20), 0);
        assert_int_equal(loader->probe(path, (uint8_t *)a.s.data, 40), 40);
        str_finish(&a.s);
        unlink(path);
    }
    const struct member photo = { "photo.png", "x", 1 };
    pack(&a, &photo, 1, false);
    assert_int_equal(loader->probe("x", (uint8_t *)a.s.data, a.s.len), 40);
    str_finish(&a.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors),  cmocka_unit_test(test_unmapped),
        cmocka_unit_test(test_good),         cmocka_unit_test(test_fields),
        cmocka_unit_test(test_length),       cmocka_unit_test(test_two_ends),
        cmocka_unit_test(test_members),      cmocka_unit_test(test_ignored_members),
        cmocka_unit_test(test_wide_entries), cmocka_unit_test(test_changed_file),
        cmocka_unit_test(test_chosen),
    };
    loader = load_plugin("torch")->loaders[0];
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
