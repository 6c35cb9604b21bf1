/* SPDX-License-Identifier: MIT
 * test_safetensors.c - the loader against every class of damaged file (S01 to S36), and the
 * exporter. */
#include "plugin_test.h"

#include <math.h>
#include <sys/stat.h>

static const struct burin_loader *loader;
static const struct burin_exporter *exporter;

/* ---- files ----------------------------------------------------------------------------------- */

/* A length of `claimed`, the header, `data` bytes. */
static const char *make_file(const char *json, size_t json_bytes, uint64_t claimed, size_t data)
{
    struct str s = { 0 };
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(claimed >> (8 * i));
    str_add_bytes(&s, length, 8);
    str_add_bytes(&s, json, json_bytes);
    for (size_t i = 0; i < data; i++) str_add_bytes(&s, &(char){ (char)i }, 1);
    const char *path = put_file("case.safetensors", s.data, s.len);
    str_finish(&s);
    return path;
}

static int try_open(const char *path, void **self) { return open_with(loader, path, self); }

static void rejected(const char *what, const char *json, size_t n, size_t data, const char *says)
{
    void *self;
    if (try_open(make_file(json, n, n, data), &self) == 0) {
        print_error("%s was accepted: %.100s\n", what, json);
        _fail(__FILE__, __LINE__);
    }
    assert_error("case.safetensors");
    if (says) assert_error(says);
}

static void accepted(const char *what, const char *json, size_t n, size_t data, int64_t count)
{
    void *self;
    if (try_open(make_file(json, n, n, data), &self) != 0) {
        print_error("%s was refused: %s\n", what, burin_error());
        _fail(__FILE__, __LINE__);
    }
    assert_int_equal(loader->count(self), count);
    for (int64_t i = 0; i < count; i++) {
        struct burin_tensor_info info;
        uint8_t bytes[64];
        assert_int_equal(loader->info(self, i, &info), 0);
        assert_true(info.bytes <= sizeof bytes);
        assert_int_equal(loader->read(self, i, bytes, info.bytes), 0);
        if (info.bytes) assert_memory_equal(info.mapped, bytes, info.bytes);
    }
    loader->close(self);
}

#define T(name, dtype, shape, begin, end)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end \
    "]}"
#define GOOD T("a", "F32", "[2]", "0", "8")

struct json_case {
    const char *name, *json;
    size_t data;
    const char *says;
};
/* clang-format off */
#define CASE(name, json, data, says) { name, json, data, says }
#define FUTURE(name, value) CASE("a field of the future: " name, "{\"a\":{\"new\":" value, 0, NULL)
/* clang-format on */

static const struct json_case bad[] = {
    CASE("S08 not UTF-8", "{" T("\xff", "F32", "[2]", "0", "8") "}", 8, "not UTF-8"),
    CASE("S08 overlong", "{" T("\xc0\x80", "F32", "[2]", "0", "8") "}", 8, "not UTF-8"),
    CASE("S08 surrogate bytes", "{" T("\xed\xa0\x80", "F32", "[2]", "0", "8") "}", 8, "not UTF-8"),
    CASE("S08 beyond U+10FFFF", "{" T("\xf5\x80\x80\x80", "F32", "[2]", "0", "8") "}", 8,
         "not UTF-8"),
    CASE("S08 U+110000", "{" T("\xf4\x90\x80\x80", "F32", "[2]", "0", "8") "}", 8, "not UTF-8"),
    CASE("S08 overlong of three", "{" T("\xe0\x9f\xbf", "F32", "[2]", "0", "8") "}", 8,
         "not UTF-8"),
    CASE("S08 overlong of four", "{" T("\xf0\x8f\xbf\xbf", "F32", "[2]", "0", "8") "}", 8,
         "not UTF-8"),
    CASE("S08 half a character", "{\"\xe2\x82", 0, "not UTF-8"),
    CASE("S09 not JSON", "{hello}", 0, "expected a string"),
    CASE("S09 comma at the end", "{" GOOD ",}", 8, NULL),
    CASE("S09 single quotes", "{'a':1}", 0, NULL),
    CASE("S09 no colon", "{\"a\" {}}", 0, "':'"),
    CASE("S09 comment", "{/**/}", 0, NULL),
    CASE("S09 open string", "{\"a", 0, NULL),
    CASE("S09 a BOM", "\xef\xbb\xbf{}", 0, "first character"),
    CASE("S10 array", "[]", 0, "first character"),
    CASE("S10 null", "null", 0, "first character"),
    CASE("S12 leading space", " {}", 0, "first character"),
    CASE("S15 data behind nothing", "{}", 1, "tensors take 0 bytes"),
    CASE("S15 data behind the last", "{" GOOD "}", 9, NULL),
    CASE("S16 last byte missing", "{" GOOD "}", 7, "claims bytes 0 to 8"),
    CASE("S17 hole at the start", "{" T("a", "U8", "[4]", "4", "8") "}", 8, "leave a hole"),
    CASE("S17 hole in the middle",
         "{" T("a", "U8", "[2]", "0", "2") "," T("b", "U8", "[2]", "4", "6") "}", 6,
         "leave a hole"),
    CASE("S18 overlap, same", "{" GOOD "," T("b", "F32", "[2]", "0", "8") "}", 8, "overlap"),
    CASE("S18 overlap, partial", "{" GOOD "," T("b", "F32", "[2]", "4", "12") "}", 12, "overlap"),
    CASE("S19 end before begin", "{" T("a", "F32", "[2]", "8", "0") "}", 8, NULL),
    CASE("S20 negative", "{" T("a", "F32", "[2]", "-8", "0") "}", 8, "non-negative integer"),
    CASE("S20 fraction", "{" T("a", "F32", "[2]", "0.0", "8") "}", 8, "not a fraction"),
    CASE("S20 power", "{" T("a", "U8", "[10]", "0", "1e1") "}", 10, "not a fraction or a power"),
    CASE("S20 2^64", "{" T("a", "F32", "[2]", "0", "18446744073709551616") "}", 8,
         "number too large"),
    CASE("S20 leading zero", "{" T("a", "F32", "[2]", "00", "8") "}", 8, "leading zero"),
    CASE("S20 one offset", "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0]}}", 1, NULL),
    CASE("S20 three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,1]}}", 1,
         NULL),
    CASE("S21 size", "{" T("a", "F32", "[3]", "0", "8") "}", 8, "does not match"),
    CASE("S21 size of a scalar", "{" T("a", "F32", "[]", "0", "8") "}", 8, "does not match"),
    CASE("S22 overflow", "{" T("a", "F32", "[4294967296,4294967296,2]", "0", "0") "}", 0,
         "does not match"),
    CASE("S22 overflow to the size", "{" T("a", "F32", "[4611686018427387906]", "0", "8") "}", 8,
         NULL),
    CASE("S22 overflow with a 0", "{" T("a", "F32", "[0,4294967296,4294967296]", "0", "0") "}", 0,
         NULL),
    CASE("S22 2^63", "{" T("a", "U8", "[9223372036854775808,0]", "0", "0") "}", 0,
         "dimension too large"),
    CASE("S23 negative dim", "{" T("a", "F32", "[-2]", "0", "8") "}", 8, "non-negative integer"),
    CASE("S23 string dim", "{" T("a", "F32", "[\"2\"]", "0", "8") "}", 8, "non-negative integer"),
    CASE("S23 float dim", "{" T("a", "F32", "[2.0]", "0", "8") "}", 8, NULL),
    CASE("S25 unknown dtype", "{" T("a", "F33", "[2]", "0", "8") "}", 8,
         "\"F33\", which is not supported"),
    CASE("S25 lower case", "{" T("a", "f32", "[2]", "0", "8") "}", 8, "not supported"),
    CASE("S25 missing dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "lacks \"dtype\""),
    CASE("S25 missing shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8,
         "lacks \"shape\""),
    CASE("S25 missing offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8,
         "lacks \"data_offsets\""),
    CASE("S25 empty record", "{\"a\":{}}", 0, "lacks"),
    CASE("S25 no record", "{\"a\":3}", 0, "begin a tensor"),
    CASE("S25 dtype with NUL", "{" T("a", "F32\\u0000", "[2]", "0", "8") "}", 8, "not supported"),
    CASE("S26 field twice",
         "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "field given twice"),
    CASE("S26 escaped field twice",
         "{\"a\":{\"dtype\":\"F32\",\"\\u0064type\":\"F32\",\"shape\":[2],"
         "\"data_offsets\":[0,8]}}",
         8, "field given twice"),
    CASE("S27 name twice", "{" GOOD "," GOOD "}", 8, "twice"),
    CASE("S27 name twice, empty",
         "{" T("a", "U8", "[0]", "0", "0") "," T("a", "U8", "[0]", "0", "0") "}", 0, "twice"),
    CASE("S28 escaped name twice",
         "{" T("a", "U8", "[1]", "0", "1") "," T("\\u0061", "U8", "[1]", "1", "2") "}", 2, "twice"),
    CASE("S29 metadata int", "{\"__metadata__\":{\"a\":1}}", 0, "expected a string"),
    CASE("S29 metadata nested", "{\"__metadata__\":{\"a\":{}}}", 0, "expected a string"),
    CASE("S29 metadata array", "{\"__metadata__\":[]}", 0, "__metadata__"),
    CASE("S29 metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice"),
    CASE("S30 key twice", "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "twice"),
    CASE("S30 escaped key twice", "{\"__metadata__\":{\"a\":\"1\",\"\\u0061\":\"2\"}}", 0, "twice"),
    CASE("S31 NUL in a name", "{" T("a\\u0000b", "F32", "[2]", "0", "8") "}", 8,
         "control character"),
    CASE("S31 escape code in a name", "{" T("a\\u001b[2Jb", "F32", "[2]", "0", "8") "}", 8,
         "control character"),
    CASE("S32 lone high surrogate", "{" T("\\ud83d", "F32", "[2]", "0", "8") "}", 8,
         "lone surrogate"),
    CASE("S32 lone low surrogate", "{" T("\\ude00", "F32", "[2]", "0", "8") "}", 8,
         "lone surrogate"),
    CASE("S32 two high surrogates", "{" T("\\ud83d\\ud83d", "F32", "[2]", "0", "8") "}", 8,
         "lone surrogate"),
    CASE("S32 a surrogate and a letter", "{" T("\\ud83dab", "F32", "[2]", "0", "8") "}", 8,
         "lone surrogate"),
    CASE("S32 a surrogate and another escape", "{" T("\\ud83d\\n1234", "F32", "[2]", "0", "8") "}",
         8, "lone surrogate"),
    CASE("S32 a surrogate and a letter's escape",
         "{" T("\\ud83d\\u0041", "F32", "[2]", "0", "8") "}", 8, "lone surrogate"),
    CASE("S32 a surrogate and what is behind them",
         "{" T("\\ud83d\\ue000", "F32", "[2]", "0", "8") "}", 8, "lone surrogate"),
    CASE("S32 a surrogate at the end", "{\"\\ud83d", 0, "lone surrogate"),
    CASE("S32 a surrogate and bad hex", "{" T("\\ud83d\\u00g1", "F32", "[2]", "0", "8") "}", 8,
         "bad digit"),
    CASE("S32 an escape cut off", "{\"\\u12", 0, "inside a \\u escape"),
    CASE("S32 a backslash cut off", "{\"\\", 0, "inside an escape"),
    CASE("S20 cut off in a number", "{\"a\":{\"shape\":[1", 0, "to end \"shape\""),
    CASE("S20 a capital power", "{" T("a", "U8", "[10]", "0", "1E1") "}", 10, "not a fraction"),
    FUTURE("cut off behind a sign", "-"),
    FUTURE("cut off in a number", "1"),
    FUTURE("cut off behind a point", "1."),
    FUTURE("cut off behind a power", "1e"),
    FUTURE("cut off behind its sign", "1e-"),
    FUTURE("no digit behind a point", "1.}"),
    FUTURE("no digit in a power", "1e+}"),
    FUTURE("a leading zero", "01}"),
    FUTURE("an object without a colon", "{\"a\" 1}}"),
    FUTURE("an object without a key", "{1}}"),
    FUTURE("an object without an end", "{\"a\":1"),
    FUTURE("a word that is none", "trve}"),
    CASE("metadata with a NUL in a key", "{\"__metadata__\":{\"a\\u0000\":\"1\"}}", 0, "NUL"),
    CASE("metadata with a NUL in a value", "{\"__metadata__\":{\"a\":\"1\\u0000\"}}", 0, "NUL"),
    CASE("metadata without a colon", "{\"__metadata__\":{\"a\"}}", 0, "':'"),
    CASE("a field's name with a NUL",
         "{\"a\":{\"dtype\\u0000\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "lacks \"dtype\""),
    CASE("a tab behind the root", "{}\t", 0, "after the end"),
    CASE("S32 raw control", "{" T("a\nb", "F32", "[2]", "0", "8") "}", 8, "raw control"),
    CASE("S32 bad escape", "{" T("\\x41", "F32", "[2]", "0", "8") "}", 8, "unknown escape"),
    CASE("S32 bad hex", "{" T("\\u00g1", "F32", "[2]", "0", "8") "}", 8, "bad digit"),
    CASE("S34 rank 9", "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1,
         "more than 8 dimensions"),
    CASE("a word behind the root", "{} x", 0, "after the end"),
    CASE("two roots", "{}{}", 0, "after the end"),
};

static const struct {
    const char *name, *json;
    size_t data;
    int64_t count;
} good[] = {
    { "S11 empty", "{}", 0, 0 },
    { "S13 spaces at the end", "{" GOOD "}     ", 8, 1 },
    { "S24 0-dim", "{" T("a", "F32", "[0]", "0", "0") "," T("b", "F32", "[3,0]", "0", "0") "}", 0,
      2 },
    { "S24 rank 0", "{" T("a", "F64", "[]", "0", "8") "}", 8, 1 },
    { "S29 metadata null", "{\"__metadata__\":null," GOOD "}", 8, 1 },
    { "S29 metadata empty", "{\"__metadata__\":{}}", 0, 0 },
    { "S31 path as a name", "{" T("../../x", "F32", "[2]", "0", "8") "}", 8, 1 },
    { "S31 empty name", "{" T("", "F32", "[2]", "0", "8") "}", 8, 1 },
    { "S32 surrogate pair", "{" T("\\ud83d\\ude00", "F32", "[2]", "0", "8") "}", 8, 1 },
    { "S34 rank 8", "{" T("a", "U8", "[1,1,1,1,1,1,1,1]", "0", "1") "}", 1, 1 },
    { "S35 any order", "{" T("b", "U8", "[2]", "4", "6") "," T("a", "U8", "[4]", "0", "4") "}", 6,
      2 },
    { "white space",
      "{ \"a\" : {\n\"dtype\":\t\"U8\" , \"shape\" : [ 2 , 1 ] ,\r\"data_offsets\":[ 0 , 2 ] } }",
      2, 1 },
    { "a field of the future",
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"new\":[1.5e3]}}", 1, 1 },
    { "fields of the future",
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"a\":-0,\"b\":-12.50E+3,"
      "\"c\":1e-5,\"d\":true,\"e\":false,\"f\":null,\"g\":{},\"h\":[],\"i\":{\"x\":1,\"y\":\"\"},"
      "\"j\":[1,\"\"],\"k\":\"\",\"l\":7,\"m\":2E1}}",
      1, 1 },
    { "characters of every length",
      "{" T("a\xc3\xa9\xe0\xa0\x80\xed\x9f\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "U8", "[1]", "0",
            "1") "}",
      1, 1 },
    { "escapes of every length",
      "{" T("\\u0041\\u00e9\\u4e2d\\ue000\\uFFFD\\ud83d\\ude00\\/\\\"", "U8", "[1]", "0", "1") "}",
      1, 1 },
    { "a name that begins like the metadata's",
      "{" T("__metadata__\\u0020", "U8", "[1]", "0", "1") ",\"__metadata__\":{\"a\":\"b\"}}", 1,
      1 },
    { "header length not a multiple of 8", "{" T("abc", "U8", "[1]", "0", "1") "}", 1, 1 },
    /* clang-format off */
    { "every dtype",
      "{" T("0", "F64", "[]", "0", "8") ","
      T("1", "I64", "[]", "8", "16") ","
      T("2", "U64", "[]", "16", "24") ","
      T("3", "F32", "[]", "24", "28") ","
      T("4", "I32", "[]", "28", "32") ","
      T("5", "U32", "[]", "32", "36") ","
      T("6", "F16", "[]", "36", "38") ","
      T("7", "BF16", "[]", "38", "40") ","
      T("8", "I16", "[]", "40", "42") ","
      T("9", "U16", "[]", "42", "44") ","
      T("10", "I8", "[]", "44", "45") ","
      T("11", "U8", "[]", "45", "46") ","
      T("12", "BOOL", "[]", "46", "47") ","
      T("13", "F8_E4M3", "[]", "47", "48") ","
      T("14", "F8_E5M2", "[]", "48", "49") "}",
      49, 15 },
    /* clang-format on */
};

static void test_headers(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(bad); i++)
        rejected(bad[i].name, bad[i].json, strlen(bad[i].json), bad[i].data, bad[i].says);
    for (int i = 0; i < COUNT_OF(good); i++)
        accepted(good[i].name, good[i].json, strlen(good[i].json), good[i].data, good[i].count);
    rejected("S14 NULs at the end", "{}\0\0\0\0\0", 7, 0, "after the end");
    rejected("S32 raw NUL in a name", "{\"a\0b\":1}", 9, 0, "raw control");
}

static void refused_file(const char *what, const void *bytes, size_t n, const char *says)
{
    void *self;
    if (try_open(put_file("case.safetensors", bytes, n), &self) == 0) {
        print_error("%s was accepted\n", what);
        _fail(__FILE__, __LINE__);
    }
    assert_error("case.safetensors");
    assert_error(says);
}

static void test_lengths(void **state)
{
    (void)state;
    void *self;
    refused_file("S01", "", 0, "too short");
    refused_file("S02", "1234567", 7, "too short");
    refused_file("S03", "\0\0\0\0\0\0\0\0", 8, "0 bytes");
    refused_file("S04", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "18446744073709551615 bytes");
    assert_int_equal(try_open(make_file("{}", 2, 100000001, 0), &self), -1); /* S05 */
    assert_error("100000001 bytes");
    assert_int_equal(try_open(make_file("{}", 2, 3, 0), &self), -1); /* S06 */
    assert_error("cut off");
    static const char whole[] = "{" GOOD "}";
    for (size_t n = 2; n < sizeof whole - 1;
         n++) /* S07: the length cuts the JSON, at every place */
        assert_int_equal(try_open(make_file(whole, sizeof whole - 1, n, 8), &self), -1);
    /* A header of 100 MB that the file does not back must not be allocated first. */
    assert_int_equal(try_open(make_file("{}", 2, 100000000, 0), &self), -1);
    assert_error("cut off");
    assert_int_equal(try_open(folder, &self), -1);
    assert_error("not a regular file");
    assert_int_equal(try_open(in_folder(folder, "absent"), &self), -1);
    assert_error("absent");
}

/* What is large is made in code: deep nesting, many dimensions, long names, many tensors. */
static void test_large(void **state)
{
    (void)state;
    static const int depths[] = { 3, 200, 100000 };
    for (int i = 0; i < COUNT_OF(depths); i++) {
        struct str s = { 0 };
        str_add(&s, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":");
        for (int k = 0; k < depths[i]; k++) str_add(&s, "[");
        for (int k = 0; k < depths[i]; k++) str_add(&s, "]");
        str_add(&s, "}}");
        rejected("S33 depth", s.data, s.len, 1, "nested too deeply");
        str_finish(&s);
    }
    struct str s = { 0 };
    str_add(&s, "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
    for (int k = 0; k < 10000; k++) str_add(&s, k ? ",1" : "1");
    str_add(&s, "],\"data_offsets\":[0,1]}}");
    rejected("S34 rank 10000", s.data, s.len, 1, "more than 8 dimensions");
    str_finish(&s);
    for (int n = 511; n <= 512; n++) {
        struct str name = { 0 };
        for (int k = 0; k < n; k++) str_add(&name, "n");
        str_addf(&s, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name.data);
        if (n < 512) accepted("name of 511 bytes", s.data, s.len, 1, 1);
        else rejected("name of 512 bytes", s.data, s.len, 1, "longer than 511");
        str_finish(&name);
        str_finish(&s);
    }
    str_add(&s, "{");
    for (int k = 0; k <= 200000; k++)
        str_addf(&s, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                 k ? "," : "", k);
    str_add(&s, "}");
    rejected("too many tensors", s.data, s.len, 0, "more than 200000");
    str_finish(&s);
}

static void test_changed_file(void **state)
{
    (void)state;
    static const char json[] = "{" GOOD "}";
    static const long changes[] = { -1, 4096, -8 };
    for (int i = 0; i < COUNT_OF(changes); i++) { /* S36 */
        void *self;
        struct burin_tensor_info info;
        uint8_t bytes[8];
        const char *path = make_file(json, sizeof json - 1, sizeof json - 1, 8);
        assert_int_equal(try_open(path, &self), 0);
        assert_int_equal(loader->info(self, 0, &info), 0);
        assert_int_equal(truncate(path, (off_t)(8 + sizeof json - 1 + 8) + changes[i]), 0);
        assert_int_equal(loader->info(self, 0, &info), -1);
        assert_error("changed its size");
        assert_int_equal(loader->read(self, 0, bytes, 8), -1);
        assert_error("changed its size");
        loader->close(self);
    }
    void *self;
    uint8_t byte;
    assert_int_equal(try_open(make_file(json, sizeof json - 1, sizeof json - 1, 8), &self), 0);
    assert_int_equal(loader->read(self, 0, &byte, 1), -1);
    assert_error("1 were asked for");
    assert_int_equal(loader->read(self, 1, &byte, 1), -1);
    assert_int_equal(loader->read(self, -1, &byte, 1), -1);
    struct burin_tensor_info info;
    const char *key, *value;
    assert_int_equal(loader->info(self, 1, &info), -1);
    assert_error("no tensor number 1");
    assert_int_equal(loader->meta(self, -1, &key, &value), 0);
    assert_int_equal(loader->meta(self, 0, &key, &value), 0);
    loader->close(self);
    loader->close(NULL);
}

/* Some file systems cannot map a file. It is read then. Here a second tensor is a hole. */
static void test_unmapped(void **state)
{
    (void)state;
    static const char json[] =
        "{" T("a", "U8", "[8]", "0", "8") "," T("b", "U8", "[1073741824]", "8", "1073741832") "}";
    void *self;
    struct burin_tensor_info info;
    uint8_t bytes[8];
    const char *path = make_file(json, sizeof json - 1, sizeof json - 1, 8);
    assert_int_equal(truncate(path, (off_t)(8 + sizeof json - 1 + 8) + (1 << 30)), 0);
    assert_int_equal(open_unmapped(loader, path, &self), 0);
    assert_int_equal(loader->info(self, 0, &info), 0);
    assert_null(info.mapped);
    assert_int_equal(loader->read(self, 0, bytes, sizeof bytes), 0);
    assert_int_equal(bytes[7], 7);
    loader->close(self);
    put_file("case.safetensors", "", 0);
}

static void test_probe(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        size_t n;
        int certain;
    } heads[] = {
        { "\2\0\0\0\0\0\0\0{", 9, 95 },    { "\2\0\0\0\0\0\0\0{}", 10, 95 },
        { "\2\0\0\0\0\0\0\0{ ", 10, 95 },  { "\2\0\0\0\0\0\0\0{\n", 10, 95 },
        { "\2\0\0\0\0\0\0\0{\"", 10, 95 }, { "\2\0\0\0\0\0\0\0{x", 10, 60 },
        { "\1\0\0\0\0\0\0\0{}", 10, 0 },   { "\1\xe1\xf5\5\0\0\0\0{}", 10, 0 },
        { "\2\0\0\0\0\0\0\0[]", 10, 0 },   { "\2\0\0\0\0\0\0\0", 8, 0 },
    };
    for (int i = 0; i < COUNT_OF(heads); i++)
        assert_int_equal(loader->probe("x", (const uint8_t *)heads[i].head, heads[i].n),
                         heads[i].certain);
    const char *path = make_file("{\"a\"}", 5, 5, 0);
    assert_ptr_equal(plug_loader_for(path), loader);
    assert_int_equal(loader->probe("x.safetensors", (const uint8_t *)"PK\3\4", 4), 0);
    assert_int_equal(loader->probe("folder", NULL, 0), 0);
}

/* ---- the exporter ---------------------------------------------------------------------------- */

static struct burin_tensor_info tensor(const char *name, int dtype, int rank, int64_t a, int64_t b,
                                       uint64_t bytes)
{
    struct burin_tensor_info t = { .dtype = dtype, .rank = rank, .dim = { a, b }, .bytes = bytes };
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

/* 0, or -1 at the first call that refuses (then the exporter is aborted). */
static int export(const char *path, const struct burin_tensor_info *t, const void *const *data,
                  int n)
{
    void *self;
    if (exporter->begin(path, &self) != 0) return -1;
    int rc = exporter->meta(self, "modelspec.title", "a \"quoted\" \\ title\n\xc3\xa9");
    for (int i = 0; i < n && rc == 0; i++) rc = exporter->declare(self, &t[i]);
    for (int i = n - 1; i >= 0 && rc == 0; i--)
        rc = exporter->put(self, t[i].name, data[i], t[i].bytes);
    if (rc == 0) return exporter->finish(self);
    exporter->abort(self);
    return -1;
}

static void test_round_trip(void **state)
{
    (void)state;
    const char *path = in_folder(folder, "out.safetensors");
    float weight[6] = { 1, -2, 3.5f, 0, 1e30f, -0.0f };
    uint16_t half[3] = { 0x3c00, 0x7bff, 0x8000 };
    int64_t steps = 12;
    const struct burin_tensor_info t[] = {
        tensor("b.weight", BURIN_T_F32, 2, 2, 3, 24),     tensor("half", BURIN_T_F16, 1, 3, 0, 6),
        tensor("steps", BURIN_T_I64, 0, 0, 0, 8),         tensor("empty", BURIN_T_F32, 1, 0, 0, 0),
        tensor("a \"name\"\\", BURIN_T_F32, 2, 3, 2, 24),
    };
    const void *const data[] = { weight, half, &steps, NULL, weight };
    static const char *const order[] = { "steps", "a \"name\"\\", "b.weight", "empty", "half" };
    for (int pass = 0; pass < 2; pass++) { /* the second replaces the first */
        assert_int_equal(export(path, t, data, 5), 0);
        void *self;
        assert_int_equal(try_open(path, &self), 0);
        assert_int_equal(loader->count(self), 5);
        for (int i = 0; i < 5; i++) {
            struct burin_tensor_info info;
            assert_int_equal(loader->info(self, i, &info), 0);
            assert_string_equal(info.name, order[i]);
            int64_t size = info.dtype == BURIN_T_I64 ? 8 : info.dtype == BURIN_T_F32 ? 4 : 2;
            assert_int_equal((uintptr_t)info.mapped % (uintptr_t)size, 0);
            if (strcmp(info.name, "b.weight") == 0) assert_memory_equal(info.mapped, weight, 24);
        }
        const char *key, *value;
        assert_int_equal(loader->meta(self, 0, &key, &value), 1);
        assert_string_equal(key, "modelspec.title");
        assert_string_equal(value, "a \"quoted\" \\ title\n\xc3\xa9");
        assert_int_equal(loader->meta(self, 1, &key, &value), 0);
        loader->close(self);
    }
    struct str first = { 0 }, second = { 0 };
    assert_true(file_read(path, 1 << 20, &first));
    assert_int_equal((first.data[0] & 7), 0); /* the header's length keeps the data aligned */
    assert_int_equal(export(path, t, data, 5), 0);
    assert_true(file_read(path, 1 << 20, &second));
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    str_finish(&first);
    str_finish(&second);
    assert_int_equal(export(path, t, data, 0), 0); /* a model without tensors */
    assert_int_equal(count_files(folder),
                     2); /* this file and case.safetensors: no temporary ones */
}

static void test_non_finite(void **state)
{
    (void)state;
    const char *path = in_folder(folder, "kept.safetensors");
    assert_true(file_write(path, "old", 3));
    float f[2] = { 1, NAN }, inf[2] = { INFINITY, 1 };
    double d = -INFINITY;
    uint16_t f16[2] = { 0x3c00, 0x7c00 }, bf16[2] = { 0x7f80, 0 };
    uint8_t e4m3 = 0xff, e5m2 = 0x7c, fine = 0x7e;
    const struct {
        int dtype;
        uint64_t n, bytes;
        const void *data;
        bool ok;
    } cases[] = {
        { BURIN_T_F32, 2, 8, f, false },         { BURIN_T_F32, 2, 8, inf, false },
        { BURIN_T_F64, 1, 8, &d, false },        { BURIN_T_F16, 2, 4, f16, false },
        { BURIN_T_BF16, 2, 4, bf16, false },     { BURIN_T_F8_E4M3, 1, 1, &e4m3, false },
        { BURIN_T_F8_E5M2, 1, 1, &e5m2, false }, { BURIN_T_F8_E4M3, 1, 1, &fine, true },
        { BURIN_T_U16, 2, 4, f16, true },
    };
    for (int i = 0; i < COUNT_OF(cases); i++) {
        struct burin_tensor_info t =
            tensor("t", cases[i].dtype, 1, (int64_t)cases[i].n, 0, cases[i].bytes);
        assert_int_equal(export(path, &t, &cases[i].data, 1), cases[i].ok ? 0 : -1);
        if (cases[i].ok) continue;
        assert_error("NaN or an infinity");
        assert_error("\"t\"");
        struct str s = { 0 };
        assert_true(file_read(path, 100, &s));
        assert_string_equal(s.data, "old"); /* a refused file leaves the old one */
        str_finish(&s);
    }
    unlink(path);
}

static void refused(const struct burin_tensor_info *t, int n, const char *says)
{
    static const float zero[64];
    const void *data[8];
    for (int i = 0; i < 8; i++) data[i] = zero;
    const char *path = in_folder(folder, "never.safetensors");
    assert_int_equal(export(path, t, data, n), -1);
    assert_error(says);
    assert_false(file_exists(path));
}

static void test_exporter_refusals(void **state)
{
    (void)state;
    struct burin_tensor_info t[2] = { tensor("a", BURIN_T_F32, 1, 2, 0, 8),
                                      tensor("a", BURIN_T_F32, 1, 2, 0, 8) };
    refused(t, 2, "announced twice");
    t[0] = tensor("__metadata__", BURIN_T_F32, 1, 2, 0, 8);
    refused(t, 1, "cannot be a tensor's name");
    t[0] = tensor("\xff", BURIN_T_F32, 1, 2, 0, 8);
    refused(t, 1, "cannot be a tensor's name");
    t[0] = tensor("a\n", BURIN_T_F32, 1, 2, 0, 8);
    refused(t, 1, "control character");
    memset(t[0].name, 'a', sizeof t[0].name);
    refused(t, 1, "longer than 511");
    t[0] = tensor("a", 99, 1, 2, 0, 8);
    refused(t, 1, "unknown element type 99");
    t[0] = tensor("a", BURIN_T_F32, 9, 2, 0, 8);
    refused(t, 1, "impossible shape");
    t[0] = tensor("a", BURIN_T_F32, 1, -2, 0, 8);
    refused(t, 1, "impossible shape");
    t[0] = tensor("a", BURIN_T_F32, 1, 2, 0, 9);
    refused(t, 1, "its shape needs 8");

    void *self;
    const char *path = in_folder(folder, "never.safetensors");
    float zero[2] = { 0, 0 };
    t[0] = tensor("a", BURIN_T_F32, 1, 2, 0, 8);
    assert_int_equal(exporter->begin(path, &self), 0);
    assert_int_equal(exporter->declare(self, t), 0);
    assert_int_equal(exporter->finish(self), -1);
    assert_error("never written");
    static const struct {
        const char *name;
        uint64_t bytes;
        const char *says;
    } puts[] = {
        { "b", 8, "never announced" },
        { "a", 4, "another size" },
    };
    for (int i = 0; i < COUNT_OF(puts); i++) {
        assert_int_equal(exporter->begin(path, &self), 0);
        assert_int_equal(exporter->declare(self, t), 0);
        assert_int_equal(exporter->put(self, puts[i].name, zero, puts[i].bytes), -1);
        assert_error(puts[i].says);
        assert_int_equal(exporter->finish(self), -1);
    }
    assert_int_equal(exporter->begin(path, &self), 0);
    assert_int_equal(exporter->declare(self, t), 0);
    assert_int_equal(exporter->put(self, "a", zero, 8), 0);
    assert_int_equal(exporter->put(self, "a", zero, 8), -1);
    assert_error("written twice");
    exporter->abort(self);
    exporter->abort(NULL);
    assert_int_equal(exporter->begin(in_folder(folder, "absent/x.safetensors"), &self), -1);
    assert_error("absent/x.safetensors");
    assert_false(file_exists(path));
    assert_int_equal(count_files(folder), 2);
}

/* A full disk or a file limit in the middle: the sentence names the file and nothing stays behind.
 */
static void test_full_disk(void **state)
{
    (void)state;
    void *self;
    struct burin_tensor_info t = tensor("a", BURIN_T_F32, 2, 1000000, 1000000000, 4000000000000000);
    float zero = 0;
    assert_int_equal(exporter->begin(in_folder(folder, "huge.safetensors"), &self), 0);
    assert_int_equal(exporter->declare(self, &t), 0);
    assert_int_equal(exporter->put(self, "a", &zero, 4), -1);
    exporter->abort(self);
    assert_int_equal(count_files(folder), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_changed_file),
        cmocka_unit_test(test_unmapped),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_non_finite),
        cmocka_unit_test(test_exporter_refusals),
        cmocka_unit_test(test_full_disk),
    };
    const struct burin_plugin *plugin = load_plugin("safetensors");
    loader = plugin->loaders[0];
    exporter = plugin->exporters[0];
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
