/* SPDX-License-Identifier: MIT
 * test_limits.c - the numeric limits of what is read from files in C, each one below, at and above:
 * what is at the limit is taken, what is beyond is refused by the limit's own sentence. Those of
 * what is read in Lua are in limits_test.lua. */
#include "picture_file.h"
#include "torch_file.h"

#include "data/data.h"

static const struct burin_loader *safetensors, *template;
static const struct burin_source *source;

static void repeat(struct str *s, const char *text, int64_t n)
{
    str_add(s, ""); /* a text, also where n is 0 */
    for (int64_t i = 0; i < n; i++) str_add(s, text);
}

/* Whether a file passed this limit, however it ended: some are only looked at as far as that. */
static bool passed(bool taken, const char *limit_says)
{
    return taken || !strstr(burin_error(), limit_says);
}

/* ---- safetensors ----------------------------------------------------------------------------- */

static bool header_opens(const struct str *json, uint64_t claimed, size_t data)
{
    struct str file = { 0 };
    put(&file, claimed, 8);
    str_add_bytes(&file, json->data, json->len);
    for (size_t i = 0; i < data; i++) str_add_bytes(&file, "", 1);
    const char *path = put_file("case.safetensors", file.data, file.len);
    str_finish(&file);
    return opens(safetensors, path);
}

static bool one_tensor(const char *name, const char *dtype, const char *shape, const char *end,
                       const char *more)
{
    struct str json = { 0 };
    str_addf(&json, "{\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[0,%s]%s}}", name,
             dtype, shape, end, more);
    bool ok = header_opens(&json, json.len, strcmp(end, "1") == 0);
    str_finish(&json);
    return ok;
}

static bool st_name(int64_t n)
{
    struct str name = { 0 };
    repeat(&name, "n", n);
    bool ok = one_tensor(name.data, "U8", "1", "1", "");
    str_finish(&name);
    return ok;
}

static bool st_rank(int64_t n)
{
    struct str shape = { 0 };
    str_add(&shape, "1");
    repeat(&shape, ",1", n - 1);
    bool ok = one_tensor("a", "U8", shape.data, "1", "");
    str_finish(&shape);
    return ok;
}

/* The last two digits of 2^63 - 1 and of 2^64 - 1, which are the limits. */
static bool st_dim(int64_t n)
{
    char shape[40];
    snprintf(shape, sizeof shape, "92233720368547758%02d,0", (int)n);
    return one_tensor("a", "U8", shape, "0", "");
}

static bool st_number(int64_t n)
{
    char end[40];
    snprintf(end, sizeof end, "184467440737095516%02d", (int)n);
    return passed(one_tensor("a", "U8", "1", end, ""), "number too large");
}

/* Of 2 bytes each, beside a dimension of 0: 2^63 - 1 bytes are the limit. */
static bool st_elements(int64_t n)
{
    char shape[40];
    snprintf(shape, sizeof shape, "%lld,0", (long long)n);
    return one_tensor("a", "F16", shape, "0", "");
}

static bool st_depth(int64_t n)
{
    struct str more = { 0 };
    str_add(&more, ",\"new\":");
    repeat(&more, "[", n);
    if (!n) str_add(&more, "1");
    repeat(&more, "]", n);
    bool ok = one_tensor("a", "U8", "1", "1", more.data);
    str_finish(&more);
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

/* A hole behind two bytes, which is no JSON; of less, the JSON is cut. */
static bool st_header(int64_t n)
{
    struct str json = { 0 };
    str_add(&json, "{}");
    const char *path = in_folder(folder, "case.safetensors");
    header_opens(&json, (uint64_t)n, 0);
    if (n > 2) assert_int_equal(truncate(path, 8 + n), 0);
    bool ok = passed(opens(safetensors, path), "were expected");
    str_finish(&json);
    return ok;
}

/* ---- PyTorch: the archive -------------------------------------------------------------------- */

static const struct member good_pickle = { "archive/data.pkl", GOOD, sizeof GOOD - 1 },
                           good_storage = { "archive/data/0", six_floats, sizeof six_floats };

/* A hole of n bytes, which is no directory, and an end that calls it one. */
static bool pt_directory(int64_t n)
{
    struct str end = { 0 };
    put(&end, 0x06054b50, 4), put(&end, 0, 4), put(&end, 1, 2), put(&end, 1, 2);
    put(&end, (uint64_t)n, 4), put(&end, 0, 4), put(&end, 0, 2);
    const char *path = in_folder(folder, "case.ckpt");
    FILE *f = fopen(path, "wb");
    assert_true(f && fseek(f, n, SEEK_SET) == 0 && fwrite(end.data, 1, end.len, f) == end.len);
    assert_int_equal(fclose(f), 0);
    str_finish(&end);
    return passed(opens(loader, path), "no checkpoint needs more");
}

static bool pt_entry(int64_t n)
{
    struct archive a;
    struct str name = { 0 };
    repeat(&name, "n", n);
    pack(&a, (const struct member[]){ good_pickle, good_storage, { name.data, "x", 1 } }, 3, true);
    str_finish(&name);
    return opens(loader, write_archive(&a));
}

/* "nnn/data.pkl" in n bytes, and its storage. */
static bool pt_folder(int64_t n)
{
    struct archive a;
    struct str pickle = { 0 }, storage = { 0 };
    repeat(&pickle, "n", n - 9);
    str_addf(&storage, "%s/data/0", pickle.data);
    str_add(&pickle, "/data.pkl");
    pack(&a,
         (const struct member[]){ { pickle.data, good_pickle.data, good_pickle.n },
                                  { storage.data, six_floats, sizeof six_floats } },
         2, true);
    str_finish(&pickle);
    str_finish(&storage);
    return opens(loader, write_archive(&a));
}

/* What follows the end of a pickle is no part of it, but of its entry. */
static bool pt_pickle(int64_t n)
{
    struct archive a;
    uint8_t *bytes = mem_alloc((size_t)n);
    memcpy(bytes, BEGIN "}.", 4);
    pack(&a, &(struct member){ "archive/data.pkl", bytes, (size_t)n }, 1, true);
    mem_free(bytes);
    return opens(loader, write_archive(&a));
}

static bool pt_key(int64_t n)
{
    struct archive a;
    struct str pickle = { 0 }, storage = { 0 };
    str_add(&storage, "archive/data/");
    repeat(&storage, "k", n);
    str_add_bytes(&pickle, BEGIN "}" KEY("a"), 9);
    str_add(&pickle, "ctorch._utils\n_rebuild_tensor_v2\n((X");
    put(&pickle, 7, 4);
    str_add(&pickle, "storagectorch\nFloatStorage\nX");
    put(&pickle, (uint64_t)n, 4);
    repeat(&pickle, "k", n);
    static const char rest[] = KEY("c") "K\6tQK\0K\6\x85K\1\x85\x89" NO_HOOKS "tRs.";
    str_add_bytes(&pickle, rest, sizeof rest - 1);
    pack(&a,
         (const struct member[]){ { "archive/data.pkl", pickle.data, pickle.len },
                                  { storage.data, six_floats, sizeof six_floats } },
         2, true);
    str_finish(&pickle);
    str_finish(&storage);
    return opens(loader, write_archive(&a));
}

/* ---- PyTorch: the pickle --------------------------------------------------------------------- */

/* Frees the pickle. */
static bool pickle_opens(struct str *pickle)
{
    struct archive a;
    pack_pickle(&a, pickle->data, pickle->len);
    str_finish(pickle);
    return opens(loader, write_archive(&a));
}

#define ADD(s, literal) str_add_bytes(s, literal, sizeof literal - 1)

static void add_text(struct str *s, const char *letter, int64_t n)
{
    str_add(s, "X");
    put(s, (uint64_t)n, 4);
    repeat(s, letter, n);
}

/* A dictionary with one tensor, under a name of n letters, that is memoized so many times. */
static bool pickle_with(int64_t memoized, int64_t name)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}");
    for (int64_t i = 0; i < memoized; i++) ADD(&pickle, "q\0");
    str_add(&pickle, "(");
    add_text(&pickle, "n", name);
    ADD(&pickle, TENSOR "u.");
    return pickle_opens(&pickle);
}

static bool pt_name(int64_t n) { return pickle_with(0, n); }

/* In a dictionary of a dictionary: "nnn.a" */
static bool pt_long_name(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}");
    add_text(&pickle, "n", n - 2);
    ADD(&pickle, "}" KEY("a") TENSOR "ss.");
    return pickle_opens(&pickle);
}

static bool pt_opcodes(int64_t n)
{
    static const int64_t others = 28; /* what pickle_with takes besides, behind the protocol */
    return pickle_with(n - others, 1);
}

static bool pt_protocol(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, "\x80");
    put(&pickle, (uint64_t)n, 1);
    str_add(&pickle, "}.");
    return pickle_opens(&pickle);
}

/* Tuples in each other, with the dictionary's mark n. Values may not be nested so deep. */
static bool pt_marks(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}(" KEY("x"));
    repeat(&pickle, "(", n - 1);
    repeat(&pickle, "t", n - 1);
    str_add(&pickle, "u.");
    return passed(pickle_opens(&pickle), "is nested too deeply");
}

/* Lists in each other, in the dictionary. */
static bool pt_depth(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}" KEY("x"));
    repeat(&pickle, "]", n - 1);
    repeat(&pickle, "a", n - 2);
    str_add(&pickle, "s.");
    return pickle_opens(&pickle);
}

/* The value is the first opcode, remembering it the second: its number may be 0 or 1. */
static bool pt_memo(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}q");
    put(&pickle, (uint64_t)n, 1);
    str_add(&pickle, ".");
    return pickle_opens(&pickle);
}

static bool pt_integer(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}" KEY("x") "\x8a");
    put(&pickle, (uint64_t)n, 1);
    for (int64_t i = 0; i < n; i++) ADD(&pickle, "\1");
    str_add(&pickle, "s.");
    return pickle_opens(&pickle);
}

static bool pt_rank(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}" KEY("a") "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0");
    for (int k = 0; k < 2; k++) { /* sizes, strides */
        str_add(&pickle, "(");
        for (int64_t i = 0; i < n; i++) ADD(&pickle, "K\1");
        str_add(&pickle, "t");
    }
    ADD(&pickle, "\x89" NO_HOOKS "tRs.");
    return pickle_opens(&pickle);
}

/* Of 4 bytes each; what is below the limit is not in the file. */
static bool pt_elements(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}" KEY("a") "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0\x8a\10");
    put(&pickle, (uint64_t)n, 8);
    ADD(&pickle, "\x85K\1\x85\x89" NO_HOOKS "tRs.");
    return passed(pickle_opens(&pickle), "size is impossible");
}

/* The function (0) and its arguments (1) are remembered: three opcodes make a tensor (2). */
static void begin_tensors(struct str *pickle)
{
    ADD(pickle, BEGIN "}ctorch._utils\n_rebuild_tensor_v2\nq\0(" STORAGE
                      "K\0K\6\x85K\1\x85\x89" NO_HOOKS "tq\1Rq\2");
}

/* A list of all but the first, which is nowhere. */
static bool pt_tensors(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}" KEY("x"));
    struct str tensors = { 0 };
    begin_tensors(&tensors);
    str_add(&pickle, "](");
    str_add_bytes(&pickle, tensors.data + 3, tensors.len - 3);
    for (int64_t i = 1; i < n; i++) ADD(&pickle, "h\0h\1R");
    str_add(&pickle, "es.");
    str_finish(&tensors);
    return pickle_opens(&pickle);
}

/* One tensor under n names. */
static bool pt_names(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}(");
    for (int64_t i = 0; i < n; i++) {
        char name[16];
        int length = snprintf(name, sizeof name, "%lld", (long long)i);
        str_add(&pickle, "X");
        put(&pickle, (uint64_t)length, 4);
        str_add(&pickle, name);
        if (i) ADD(&pickle, "h\0");
        else ADD(&pickle, TENSOR "q\0");
    }
    str_add(&pickle, "u.");
    return pickle_opens(&pickle);
}

/* 2047 times the same dictionary of 1023 numbers, then numbers: n looks at an item. */
static bool pt_looks(int64_t n)
{
    enum { SHARED = 2047, ITEMS = 1023 };
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}(" KEY("d") "}q\0(");
    for (int i = 0; i < ITEMS; i++) ADD(&pickle, KEY("k") "K\1");
    str_add(&pickle, "u");
    for (int i = 1; i < SHARED; i++) ADD(&pickle, KEY("d") "h\0");
    for (int64_t i = (int64_t)SHARED * (1 + ITEMS); i < n; i++) ADD(&pickle, KEY("k") "K\1");
    str_add(&pickle, "u.");
    return pickle_opens(&pickle);
}

/* Metadata beyond the limits are left out: how many of a good checkpoint's are there? */
static bool has_meta(struct str *pickle, int64_t n)
{
    struct archive a;
    const char *key, *value;
    pack_pickle(&a, pickle->data, pickle->len);
    str_finish(pickle);
    void *self = accepted("metadata", &a);
    bool ok = loader->meta(self, n - 1, &key, &value) == 1;
    loader->close(self);
    fail("left out");
    return ok;
}

static bool pt_meta_count(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}(");
    for (int64_t i = 0; i < n; i++) ADD(&pickle, KEY("k") "K\1");
    str_add(&pickle, "u.");
    return has_meta(&pickle, n);
}

static bool pt_meta_key(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}");
    add_text(&pickle, "k", n);
    ADD(&pickle, "K\1s.");
    return has_meta(&pickle, 1);
}

static bool pt_meta_value(int64_t n)
{
    struct str pickle = { 0 };
    ADD(&pickle, BEGIN "}" KEY("k"));
    add_text(&pickle, "v", n);
    str_add(&pickle, "s.");
    return has_meta(&pickle, 1);
}

/* ---- a plugin of one's own ------------------------------------------------------------------- */

static bool template_numbers(int64_t n)
{
    struct str file = { 0 };
    str_addf(&file, "VECTOR %lld", (long long)n);
    repeat(&file, " 1", n);
    const char *path = put_file("case.vector", file.data, file.len);
    str_finish(&file);
    return opens(template, path);
}

/* ---- pictures -------------------------------------------------------------------------------- */

/* Whether a picture passed a limit. Frees the file. */
static bool picture(struct str *s, bool size_only, const char *limit_says)
{
    struct image i = { 0 };
    int width, height;
    const char *path = put_file("case.png", s->data, s->len);
    str_finish(s);
    bool ok = size_only ? image_size(path, &width, &height) : image_load(path, 1u << 30, &i);
    image_finish(&i);
    return passed(ok, limit_says);
}

static bool png_size(uint32_t width, uint32_t height)
{
    struct str s = { 0 };
    png_begin(&s, width, height, 8, 2, 0);
    return picture(&s, true, "sides of 1 to 65535");
}

static bool png_width(int64_t n) { return png_size((uint32_t)n, 1); }
static bool png_height(int64_t n) { return png_size(1, (uint32_t)n); }

static bool bmp_size(int32_t width, int32_t height)
{
    struct str s = { 0 };
    make_bmp(&s, width, height, 24, 0, 54, 4);
    return picture(&s, true, "sides of 1 to 65535");
}

static bool bmp_width(int64_t n) { return bmp_size((int32_t)n, 1); }
static bool bmp_height(int64_t n) { return bmp_size(1, (int32_t)n); }
static bool bmp_rows_down(int64_t n) { return bmp_size(1, -(int32_t)n); }

static bool bmp_pixels(int64_t n)
{
    struct str s = { 0 };
    make_bmp(&s, 2, 2, 24, 0, 54, (size_t)n);
    return picture(&s, false, "not all there");
}

static bool png_colors(int64_t n)
{
    struct str s = { 0 };
    uint8_t *colors = mem_alloc((size_t)n * 3 + 1);
    png_begin(&s, 1, 1, 8, 3, 0);
    chunk(&s, "PLTE", colors, (size_t)n * 3);
    png_pixels(&s, "\0\0", 2);
    png_end(&s);
    mem_free(colors);
    return picture(&s, false, "bad palette");
}

/* Transparencies of three colors. */
static bool png_alphas(int64_t n)
{
    struct str s = { 0 };
    png_begin(&s, 1, 1, 8, 3, 0);
    chunk(&s, "PLTE", "123456789", 9);
    chunk(&s, "tRNS", "1234", (size_t)n);
    png_pixels(&s, "\0\0", 2);
    png_end(&s);
    return picture(&s, false, "bad tRNS");
}

/* Rows of one gray pixel, two bytes each, in two bytes that unpack to 2 * 1032 and 1024 more at
 * most. What they hold is no picture. */
static bool png_rows(int64_t n)
{
    struct str s = { 0 };
    png_begin(&s, 1, (uint32_t)n, 8, 0, 0);
    chunk(&s, "IDAT", "ab", 2);
    png_end(&s);
    return picture(&s, false, "bytes can hold");
}

/* tests/data/quadrants.jpg up to its pixels, those n times, and its end. */
static bool jpeg_scans(int64_t n)
{
    struct str jpeg = { 0 }, s = { 0 };
    assert_true(file_read(test_data("quadrants.jpg"), 1 << 20, &jpeg));
    size_t scan = jpeg_marker(&jpeg, 0xda);
    str_add_bytes(&s, jpeg.data, scan);
    for (int64_t i = 0; i < n; i++) str_add_bytes(&s, jpeg.data + scan, jpeg.len - 2 - scan);
    str_add_bytes(&s, "\xff\xd9", 2);
    str_finish(&jpeg);
    return picture(&s, false, "too many scans");
}

/* Made 4000 bytes long by a comment, of 16384 by n pixels: a byte for 128 squares of 8 by 8. */
static bool jpeg_area(int64_t n)
{
    struct str jpeg = { 0 }, s = { 0 };
    assert_true(file_read(test_data("quadrants.jpg"), 1 << 20, &jpeg));
    size_t frame = jpeg_marker(&jpeg, 0xc0), more = 4000 - jpeg.len;
    jpeg.data[jpeg_marker(&jpeg, 0xda) + 4] = 9; /* colors of a scan: nothing is decoded */
    memcpy(jpeg.data + frame + 5,
           (char[]){ (char)(n >> 8), (char)n, (char)(16384 >> 8), (char)16384 }, 4);
    str_add_bytes(&s, "\xff\xd8\xff\xfe", 4);
    str_add_bytes(&s, (char[]){ (char)((more - 2) >> 8), (char)(more - 2) }, 2);
    repeat(&s, "c", (int64_t)more - 4);
    str_add_bytes(&s, jpeg.data + 2, jpeg.len - 2);
    assert_int_equal(s.len, 4000);
    str_finish(&jpeg);
    return picture(&s, false, "bytes can hold");
}

/* What a codec says of its picture: tests/abi/liar.c says what is in the file. */
static bool codec_side(int64_t n)
{
    struct str s = { 0 };
    str_add(&s, "PIXs");
    put(&s, (uint64_t)n, 4);
    return picture(&s, true, "is said to have");
}

/* ---- texts ----------------------------------------------------------------------------------- */

static bool caption_bytes(int64_t n)
{
    struct str text = { 0 };
    repeat(&text, "a", n);
    const char *path = put_file("case.txt", text.data, text.len);
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

/* Whether a text means the same tokens as another. */
static bool means(const char *text, enum tokenizer_flavour flavour, const char *same)
{
    int32_t *a = NULL, *b = NULL;
    int n = tokenizer_encode(text, strlen(text), flavour, &a),
        m = tokenizer_encode(same, strlen(same), TOKENIZER_PLAIN, &b);
    assert_true(n >= 0 && m >= 0);
    bool ok = n == m && memcmp(a, b, (size_t)n * sizeof *a) == 0;
    mem_free(a);
    mem_free(b);
    fail("another text");
    return ok;
}

/* "(a:1.50000)": beyond the limit it is no weight but words. */
static bool weight_digits(int64_t n)
{
    struct str text = { 0 };
    int32_t ids[77];
    float weights[77];
    str_add(&text, "(a:1.5");
    repeat(&text, "0", n - 3);
    str_add(&text, ")");
    assert_true(tokenizer_chunks_weighted(text.data, text.len, TOKENIZER_HF, 75, 0, ids, weights));
    str_finish(&text);
    fail("no weight");
    return weights[1] == 1.5f;
}

/* Before a text is cut into pieces, only references of so many digits are replaced. */
static bool reference_digits(int64_t n)
{
    struct str text = { 0 };
    str_add(&text, "&#");
    repeat(&text, "0", n - 2);
    str_add(&text, "65;");
    bool ok = means(text.data, TOKENIZER_HF, "A");
    str_finish(&text);
    return ok;
}

/* The last code points, none of which is a character; then what stands for no code point. */
static bool reference_code(int64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "a&#%lld;b", (long long)n);
    return means(text, TOKENIZER_OPENAI, "ab");
}

/* "&amp;amp;...": a round of repairing for each. */
static bool reference_rounds(int64_t n)
{
    struct str text = { 0 };
    str_add(&text, "a &");
    repeat(&text, "amp;", n);
    str_add(&text, " b");
    bool ok = means(text.data, TOKENIZER_HF, "a & b");
    str_finish(&text);
    return ok;
}

/* ---- folders --------------------------------------------------------------------------------- */

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

enum { MOST, LEAST };
static const struct {
    const char *name;
    int64_t limit;
    bool (*takes)(int64_t n);
    const char *says; /* beyond the limit */
    int kind;
} limits[] = {
    { "safetensors: bytes of a name", 511, st_name, "longer than 511 bytes", MOST },
    { "safetensors: dimensions", 8, st_rank, "more than 8 dimensions", MOST },
    { "safetensors: a dimension", 7, st_dim, "dimension too large", MOST },
    { "safetensors: a number", 15, st_number, "number too large", MOST },
    { "safetensors: elements", (1ll << 62) - 1, st_elements, "does not match", MOST },
    { "safetensors: depth of unknown fields", 1, st_depth, "nested too deeply", MOST },
    { "safetensors: tensors", 200000, st_tensors, "more than 200000", MOST },
    { "safetensors: bytes of the header", 100000000, st_header, "2 to 100000000 were", MOST },
    { "safetensors: bytes of the header", 2, st_header, "2 to 100000000 were expected", LEAST },
    { "PyTorch: bytes of the directory", 64 << 20, pt_directory, "needs more than 67108864", MOST },
    { "PyTorch: bytes of an entry's name", 1024, pt_entry, "impossible name", MOST },
    { "PyTorch: bytes of an entry's name", 1, pt_entry, "impossible name", LEAST },
    { "PyTorch: bytes of data.pkl's name", 256, pt_folder, "has a name of 257 bytes", MOST },
    { "PyTorch: bytes of data.pkl", 16 << 20, pt_pickle, "needs more than 16777216", MOST },
    { "PyTorch: bytes of a storage's key", 64, pt_key, "impossible name", MOST },
    { "PyTorch: bytes of a name", 511, pt_name, "longer than 511 bytes", MOST },
    { "PyTorch: bytes of a name in parts", 511, pt_long_name, "longer than 511 bytes", MOST },
    { "PyTorch: opcodes", 2 << 20, pt_opcodes, "more than 2097152 opcodes", MOST },
    { "PyTorch: the protocol", 5, pt_protocol, "protocol 6", MOST },
    { "PyTorch: the protocol", 2, pt_protocol, "protocol 1", LEAST },
    { "PyTorch: marks", 1000, pt_marks, "is nested too deeply", MOST },
    { "PyTorch: depth of values", 64, pt_depth, "nested more than 64 deep", MOST },
    { "PyTorch: number of a remembered value", 1, pt_memo, "which is too large", MOST },
    { "PyTorch: bytes of an integer", 8, pt_integer, "integer of 9 bytes", MOST },
    { "PyTorch: dimensions", 8, pt_rank, "9 dimensions", MOST },
    { "PyTorch: elements", (1ll << 61) - 1, pt_elements, "size is impossible", MOST },
    { "PyTorch: tensors", 200000, pt_tensors, "more than 200000 tensors", MOST },
    { "PyTorch: names of tensors", 200000, pt_names, "more than 200000 tensors", MOST },
    { "PyTorch: looks at items", 2 << 20, pt_looks, "in too many ways", MOST },
    { "PyTorch: metadata", 1000, pt_meta_count, "left out", MOST },
    { "PyTorch: bytes of a key of metadata", 511, pt_meta_key, "left out", MOST },
    { "PyTorch: bytes of a value of metadata", 4096, pt_meta_value, "left out", MOST },
    { "template: numbers", 1000000, template_numbers, "a count up to 1000000", MOST },
    { "PNG: width", 65535, png_width, "65536 x 1", MOST },
    { "PNG: width", 1, png_width, "0 x 1", LEAST },
    { "PNG: height", 65535, png_height, "1 x 65536", MOST },
    { "PNG: height", 1, png_height, "1 x 0", LEAST },
    { "PNG: colors", 256, png_colors, "bad palette", MOST },
    { "PNG: colors", 1, png_colors, "bad palette", LEAST },
    { "PNG: transparencies", 3, png_alphas, "bad tRNS", MOST },
    { "PNG: transparencies", 1, png_alphas, "bad tRNS", LEAST },
    { "PNG: what its bytes unpack to", (2 * 1032 + 1024) / 2, png_rows, "bytes can hold", MOST },
    { "BMP: width", 65535, bmp_width, "65536 x 1", MOST },
    { "BMP: width", 1, bmp_width, "0 x 1", LEAST },
    { "BMP: height", 65535, bmp_height, "1 x 65536", MOST },
    { "BMP: height", 1, bmp_height, "1 x 0", LEAST },
    { "BMP: height, from the top", 65535, bmp_rows_down, "1 x 65536", MOST },
    { "BMP: bytes of the pixels", 16, bmp_pixels, "not all there", LEAST },
    { "JPEG: scans", 100, jpeg_scans, "too many scans", MOST },
    { "JPEG: what its bytes hold", 4000, jpeg_area, "bytes can hold", MOST },
    { "a picture's side, as a plugin says", 1 << 20, codec_side, "1048577 x 1048577", MOST },
    { "a picture's side, as a plugin says", 1, codec_side, "0 x 0", LEAST },
    { "bytes of a caption file", 256 << 10, caption_bytes, "case.txt", MOST },
    { "bytes of a text to tokenize", 1 << 20, token_bytes, "at most 1048576 are taken", MOST },
    { "digits of a weight", 30, weight_digits, "no weight", MOST },
    { "digits of a reference", 24, reference_digits, "another text", MOST },
    { "code point of a reference", 0x10ffff, reference_code, "another text", MOST },
    { "references in each other", 16, reference_rounds, "another text", MOST },
    { "repeats in a folder's name", 1000, folder_repeats, "a number above 1000", MOST },
    { "folders inside each other", 16, folder_depth, "nested too deeply", MOST },
};

static void test_limits(void **state)
{
    (void)state;
    int wrong = 0;
    for (int i = 0; i < COUNT_OF(limits); i++)
        for (int64_t n = limits[i].limit - 1; n <= limits[i].limit + 1; n++) {
            bool within = limits[i].kind == MOST ? n <= limits[i].limit : n >= limits[i].limit;
            fail("nothing was recorded");
            bool takes = limits[i].takes(n);
            if (takes == within && (within || strstr(burin_error(), limits[i].says))) continue;
            print_error("%s: %lld are %s: %s\n", limits[i].name, (long long)n,
                        takes ? "taken" : "refused", burin_error());
            wrong++;
        }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_limits) };
    loader = load_plugin("torch")->loaders[0];
    safetensors = load_plugin("safetensors")->loaders[0];
    template = load_plugin("template")->loaders[0];
    source = load_plugin("folder")->sources[0];
    load_plugin("stb_image");
    assert_true(plug_load(TEST_ABI "/liar.so"));
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
