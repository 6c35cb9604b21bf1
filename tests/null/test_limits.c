/* SPDX-License-Identifier: MIT
 * test_limits.c - the numeric limits of what is read from files, each one below, at and above: what
 * is at the limit is taken, what is above is refused by the limit's own sentence. */
#include "data/data.h"
#include "torch_file.h"

static const struct burin_loader *safetensors;
static const struct burin_source *source;

static void repeat(struct str *s, const char *text, int64_t n)
{
    for (int64_t i = 0; i < n; i++) str_add(s, text);
}

/* ---- safetensors ----------------------------------------------------------------------------- */

static bool opens(const struct burin_loader *l, const char *path)
{
    void *self;
    fail("nothing was recorded");
    if (l->open(path, &self)) return false;
    l->close(self);
    return true;
}

static bool header_opens(const struct str *json, uint64_t claimed, size_t data)
{
    struct str file = { 0 };
    const char *path = in_folder(folder, "case.safetensors");
    put(&file, claimed, 8);
    str_add_bytes(&file, json->data, json->len);
    for (size_t i = 0; i < data; i++) str_add_bytes(&file, "", 1);
    assert_true(file_write(path, file.data, file.len));
    str_finish(&file);
    return opens(safetensors, path);
}

static bool one_tensor(const char *name, const char *shape)
{
    struct str json = { 0 };
    str_addf(&json, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[%s],\"data_offsets\":[0,1]}}", name,
             shape);
    bool ok = header_opens(&json, json.len, 1);
    str_finish(&json);
    return ok;
}

static bool st_name(int64_t n)
{
    struct str name = { 0 };
    repeat(&name, "n", n);
    bool ok = one_tensor(name.data, "1");
    str_finish(&name);
    return ok;
}

static bool st_rank(int64_t n)
{
    struct str shape = { 0 };
    str_add(&shape, "1");
    repeat(&shape, ",1", n - 1);
    bool ok = one_tensor("a", shape.data);
    str_finish(&shape);
    return ok;
}

static bool st_tensors(int64_t n)
{
    struct str json = { 0 };
    for (int64_t i = 0; i < n; i++)
        str_addf(&json, "%s\"%lld\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                 i ? "," : "{", (long long)i);
    str_add(&json, "}");
    bool ok = header_opens(&json, json.len, 0);
    str_finish(&json);
    return ok;
}

/* Taken as far as this limit is concerned: the file, a hole behind two bytes, is no JSON. */
static bool st_header(int64_t n)
{
    struct str json = { 0 };
    str_add(&json, "{}");
    const char *path = in_folder(folder, "case.safetensors");
    header_opens(&json, (uint64_t)n, 0);
    assert_int_equal(truncate(path, 8 + n), 0);
    bool ok = !opens(safetensors, path) && !strstr(burin_error(), "were expected");
    str_finish(&json);
    return ok;
}

/* ---- PyTorch --------------------------------------------------------------------------------- */

static bool pickle_opens(const struct str *pickle)
{
    struct archive a;
    pack_pickle(&a, pickle->data, pickle->len);
    return opens(loader, write_archive(&a));
}

/* A dictionary with one tensor, under a name of n letters, that is memoized so many times. */
static bool pickle_with(int64_t memoized, int64_t name)
{
    struct str pickle = { 0 };
    str_add_bytes(&pickle, BEGIN "}", 3);
    for (int64_t i = 0; i < memoized; i++) str_add_bytes(&pickle, "q", 2); /* and its 0 */
    str_add(&pickle, "(X");
    put(&pickle, (uint64_t)name, 4);
    repeat(&pickle, "n", name);
    str_add_bytes(&pickle, TENSOR "u.", sizeof TENSOR "u." - 1);
    bool ok = pickle_opens(&pickle);
    str_finish(&pickle);
    return ok;
}

static bool pt_name(int64_t n) { return pickle_with(0, n); }

static bool pt_opcodes(int64_t n)
{
    static const int64_t others = 28; /* what pickle_with takes besides, behind the protocol */
    return pickle_with(n - others, 1);
}

/* Tuples in each other, with the dictionary's mark n. Taken as far as this limit is concerned:
 * values may not be nested so deep. */
static bool pt_marks(int64_t n)
{
    struct str pickle = { 0 };
    str_add_bytes(&pickle, BEGIN "}(" KEY("x"), 10);
    repeat(&pickle, "(", n - 1);
    repeat(&pickle, "t", n - 1);
    str_add(&pickle, "u.");
    bool ok = !pickle_opens(&pickle) && strstr(burin_error(), "nested more than 64 deep");
    str_finish(&pickle);
    return ok;
}

/* ---- captions, folders ----------------------------------------------------------------------- */

static bool caption_bytes(int64_t n)
{
    struct str text = { 0 };
    const char *path = in_folder(folder, "case.txt");
    repeat(&text, "a", n);
    assert_true(file_write(path, text.data, text.len));
    char *caption = caption_load(path);
    mem_free(caption);
    str_finish(&text);
    return caption;
}

static bool token_bytes(int64_t n)
{
    struct str text = { 0 };
    int32_t *ids = NULL;
    repeat(&text, "a ", n / 2);
    if (n % 2) str_add(&text, "a");
    int count = tokenizer_encode(text.data, text.len, TOKENIZER_PLAIN, &ids);
    if (count >= 0) mem_free(ids);
    str_finish(&text);
    return count >= 0;
}

/* Whether a source over this folder finds all its pictures, so many times each. */
static bool finds(const char *path, int pictures, int repeats, bool recursive)
{
    const struct burin_value values[] = { { .number = 0 },
                                          { .string = "" },
                                          { .number = recursive } };
    void *self = NULL;
    struct burin_item item = { 0 };
    assert_int_equal(source->open(path, values, &self), 0);
    bool ok =
        source->count(self) == pictures && !source->item(self, 0, &item) && item.repeats == repeats;
    const char *left_out, *why, *said;
    fail("%s", source->skipped(self, 0, &left_out, &why)          ? why
               : source->remark && source->remark(self, 0, &said) ? said
                                                                  : "nothing was said");
    source->close(self);
    return ok;
}

static void put_picture(const char *path)
{
    struct image i = { .width = 1, .height = 1, .rgb = (uint8_t[]){ 1, 2, 3 } };
    const char *slash = strrchr(path, '/');
    char *above = str_dup(path);
    above[slash - path] = 0;
    assert_true(file_make_dirs(above) && image_save_png(path, &i, NULL));
    mem_free(above);
}

static bool folder_repeats(int64_t n)
{
    char place[64], path[96];
    snprintf(place, sizeof place, "repeats-%lld", (long long)n);
    snprintf(path, sizeof path, "%s/%lld_cat/a.png", place, (long long)n);
    put_picture(in_folder(folder, path));
    return finds(in_folder(folder, place), 1, (int)n, false);
}

static bool folder_depth(int64_t n)
{
    char place[64];
    struct str path = { 0 };
    snprintf(place, sizeof place, "depth-%lld", (long long)n);
    str_addf(&path, "%s/a.png", place);
    put_picture(in_folder(folder, path.data)); /* a folder without any would not be a source */
    path.len = strlen(place);
    repeat(&path, "/d", n);
    str_add(&path, "/a.png");
    put_picture(in_folder(folder, path.data));
    str_finish(&path);
    return finds(in_folder(folder, place), 2, 1, true);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int64_t limit;
    bool (*takes)(int64_t n);
    const char *says; /* above the limit */
} limits[] = {
    { "safetensors: bytes of a name", 511, st_name, "longer than 511 bytes" },
    { "safetensors: dimensions", 8, st_rank, "more than 8 dimensions" },
    { "safetensors: tensors", 200000, st_tensors, "more than 200000" },
    { "safetensors: bytes of the header", 100000000, st_header, "2 to 100000000 were expected" },
    { "PyTorch: bytes of a name", 511, pt_name, "longer than 511 bytes" },
    { "PyTorch: marks", 1000, pt_marks, "nested too deeply" },
    { "PyTorch: opcodes", 2 << 20, pt_opcodes, "more than 2097152 opcodes" },
    { "bytes of a caption file", 256 << 10, caption_bytes, "case.txt" },
    { "bytes of a text to tokenize", 1 << 20, token_bytes, "at most 1048576 are taken" },
    { "repeats in a folder's name", 1000, folder_repeats, "a number above 1000" },
    { "folders inside each other", 16, folder_depth, "nested too deeply" },
};

static void test_limits(void **state)
{
    (void)state;
    int wrong = 0;
    for (int i = 0; i < COUNT_OF(limits); i++)
        for (int64_t n = limits[i].limit - 1; n <= limits[i].limit + 1; n++) {
            bool within = n <= limits[i].limit, takes = limits[i].takes(n);
            if (takes == within && (within || strstr(burin_error(), limits[i].says))) continue;
            print_error("%s: %lld are %s: %s\n", limits[i].name, (long long)n,
                        takes ? "taken" : "refused", burin_error());
            wrong++;
        }
    assert_int_equal(wrong, 0);
}

static int setup(void **state)
{
    (void)state;
    assert_true(use_plugin() && plug_load(TEST_PLUGINS "/folder.so") &&
                plug_load(TEST_PLUGINS "/stb_image.so"));
    for (int i = 0; i < plug_count(); i++) {
        const struct burin_plugin *p = plug_at(i)->plugin;
        if (!strcmp(p->name, "safetensors")) safetensors = p->loaders[0];
        if (!strcmp(p->name, "folder")) source = p->sources[0];
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_folder(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_limits) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
