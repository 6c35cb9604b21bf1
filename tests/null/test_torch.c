/* SPDX-License-Identifier: MIT
 * test_torch.c - the torch loader: files that PyTorch wrote, and every class of bad pickle (K01 to
 * K17). What is wrong with the archive around them is in test_torch_zip.c. */
#include "torch_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct pickle_case {
    const char *name, *pickle;
    size_t n;
    const char *says;
};
/* clang-format off */
#define CASE(name, pickle, says) { name, pickle, sizeof pickle - 1, says }
/* clang-format on */

static void refused_pickle(const char *what, const char *pickle, size_t n, const char *says)
{
    struct archive a;
    pack_pickle(&a, pickle, n);
    refused(what, &a, says);
}

static void *accepted_pickle(const char *what, const char *pickle, size_t n)
{
    struct archive a;
    pack_pickle(&a, pickle, n);
    return accepted(what, &a);
}

/* ---- bad pickles ----------------------------------------------------------------------------- */

#define CALL(module, name, args) "c" module "\n" name "\n" args "R"
#define TEXT1 "(X\4\0\0\0exitt"
#define VIEW(offset, size, stride) DICT(KEY("a") TENSOR_OF(STORAGE, offset, size, stride))
#define STORED(type, key, numel) \
    DICT(KEY("a") TENSOR_OF(STORAGE_OF(type, key, numel), "K\0", "K\1\x85", "K\1\x85"))
#define REBUILD(args) DICT(KEY("a") "ctorch._utils\n_rebuild_tensor_v2\n" args "R")
/* clang-format off */
#define V3(dtype)                                                              \
    "ctorch._utils\n_rebuild_tensor_v3\n"                                      \
    "((X\7\0\0\0storagectorch.storage\nUntypedStorage\n" KEY("0") KEY("c")     \
    "K\30tQK\0K\3\x85K\1\x85\x89" NO_HOOKS dtype "tR"
/* clang-format on */
#define MOST "\xff\xff\xff\xff\xff\xff\xff\x7f"
#define HALF "\0\0\0\0\1\0\0\0" /* 2^32 */

static const struct pickle_case bad[] = {
    CASE("K01 os.system", BEGIN CALL("os", "system", TEXT1) ".", "call \"os.system\""),
    CASE("K01 posix.system inside", DICT(KEY("a") CALL("posix", "system", TEXT1)),
         "call \"posix.system\""),
    CASE("K01 eval", DICT(KEY("a") CALL("__builtin__", "eval", TEXT1)),
         "call \"__builtin__.eval\""),
    CASE("K01 behind a good tensor", DICT(KEY("a") TENSOR KEY("b") CALL("builtins", "exec", TEXT1)),
         "builtins.exec"),
    CASE("K01 near an allowed name", BEGIN CALL("torch._utils", "_rebuild_tensor_v22", ")") ".",
         "tensor_v22"),
    CASE("K01 submodule of an allowed name",
         BEGIN CALL("torch", "_utils._rebuild_tensor_v2", ")") ".", "call"),
    CASE("K01 torch.load", BEGIN CALL("torch", "load", TEXT1) ".", "call \"torch.load\""),
    CASE("K01 instance", BEGIN "cos\nsystem\n)\x81.", "call \"os.system\""),
    CASE("K01 instance of an allowed name", BEGIN "ccollections\nOrderedDict\n)\x81.",
         "collections.OrderedDict"),
    CASE("K01 INST", BEGIN "(X\2\0\0\0idios\nsystem\n.", "opcode 0x69"),
    CASE("K01 OBJ", BEGIN "(cos\nsystem\nX\2\0\0\0ido.", "opcode 0x6f"),
    CASE("K01 NEWOBJ_EX",
         "\x80\4"
         "cos\nsystem\n)}\x92.",
         "opcode 0x92"),
    CASE("K01 setstate", BEGIN "cos\nsystem\n}b.", "call \"os.system\""),
    CASE("K01 the result of a call is called", BEGIN CALL("_codecs", "encode", ")") ")R.",
         "no function"),
    CASE("K01 control characters in the name", BEGIN CALL("os\x1b[2J", "system", ")") ".",
         "os?[2J.system"),
    CASE("K01 a storage is called", BEGIN CALL("torch", "FloatStorage", ")") ".", "no function"),
    CASE("K01 a type is called", BEGIN CALL("torch", "uint16", ")") ".", "no function"),
    CASE("K01 EXT1", BEGIN "\x82\1.", "opcode 0x82"),
    CASE("K02 memo", "\x80\4(\x8c\2os\x94\x8c\6system\x94h\0h\1\x93\x8c\2id\x85Rt.",
         "call \"os.system\""),
    CASE("K02 no text", "\x80\4(K\1\x8c\6system\x93t.", "no text"),
    CASE("K03 list", REBUILD("](" STORAGE "K\0))\x89}e"), "no tuple"),
    CASE("K03 dict", REBUILD("}"), "no tuple"),
    CASE("K03 no arguments", REBUILD(")"), "wrong types"),
    CASE("K03 five", REBUILD("(" STORAGE "K\0))\x89t"), "wrong types"),
    CASE("K03 nine", REBUILD("(" STORAGE "K\0))\x89" NO_HOOKS "NNNt"), "wrong types"),
    CASE("K03 no storage", REBUILD("(K\1K\0))\x89" NO_HOOKS "t"), "wrong types"),
    CASE("K03 a type for a storage", REBUILD("(ctorch\nFloatStorage\nK\0))\x89" NO_HOOKS "t"),
         "wrong types"),
    CASE("K03 text for an offset", REBUILD("(" STORAGE KEY("0") "))\x89" NO_HOOKS "t"),
         "wrong types"),
    CASE("K03 list for a size", REBUILD("(" STORAGE "K\0])\x89" NO_HOOKS "t"), "wrong types"),
    CASE("K03 number for a stride", REBUILD("(" STORAGE "K\0)K\1\x89" NO_HOOKS "t"), "wrong types"),
    CASE("K03 number for a flag", REBUILD("(" STORAGE "K\0))K\0" NO_HOOKS "t"), "wrong types"),
    CASE("K03 hooks", REBUILD("(" STORAGE "K\0))\x89" KEY("x") "t"), "wrong types"),
    CASE("K03 negated", REBUILD("(" STORAGE "K\0))\x89" NO_HOOKS "}" KEY("n") "\x88st"), "negated"),
    CASE("K03 text as a size", VIEW("K\0", KEY("x") "\x85", "K\1\x85"), "no integers"),
    CASE("K03 fewer strides", VIEW("K\0", "K\2K\3\x86", "K\1\x85"), "differ in number"),
    CASE("K03 parameter of no tensor",
         DICT(KEY("a") CALL("torch._utils", "_rebuild_parameter", "(K\1\x89" NO_HOOKS "t")),
         "parameter"),
    CASE("K03 OrderedDict of pairs", BEGIN CALL("collections", "OrderedDict", "(]t") ".",
         "fills a dictionary"),
    CASE("K04 list", BEGIN "](" KEY("a") "K\1u.", "no dictionary"),
    CASE("K04 tuple", BEGIN ")(" KEY("a") "K\1u.", "no dictionary"),
    CASE("K04 tensor", BEGIN TENSOR "(" KEY("a") "K\1u.", "no dictionary"),
    CASE("K04 storage", BEGIN STORAGE KEY("a") "K\1s.", "no dictionary"),
    CASE("K04 global", BEGIN "cos\nenviron\n" KEY("a") "K\1s.", "no dictionary"),
    CASE("K04 None", BEGIN "N" KEY("a") "K\1s.", "no dictionary"),
    CASE("K04 items for a dictionary", BEGIN "}K\1a.", "no list"),
    CASE("K04 items for a text", BEGIN KEY("a") "(K\1e.", "no list"),
    CASE("K04 a key alone", BEGIN "}(" KEY("a") "u.", "without a value"),
    CASE("K05 one less", STORED("FloatStorage", "0", "K\5"), "promises"),
    CASE("K05 one more", STORED("FloatStorage", "0", "K\7"), "promises"),
    CASE("K05 none", STORED("FloatStorage", "0", "K\0"), "promises"),
    CASE("K05 negative", STORED("FloatStorage", "0", "J\xff\xff\xff\xff"), "promises"),
    CASE("K05 overflow to the size", STORED("FloatStorage", "0", LONG8("\6\0\0\0\0\0\0\x40")),
         "promises"),
    CASE("K05 another type", STORED("HalfStorage", "0", "K\6"), "promises"),
    CASE("K05 not in the archive", STORED("FloatStorage", "1", "K\6"), "is missing"),
    CASE("K05 path as a key",
         DICT(KEY("a") "(X\7\0\0\0storagectorch\nFloatStorage\nX\4\0\0\0../xX\3\0\0\0cpuK\6tQ"),
         "is missing"),
    CASE("K05 NUL in a key",
         DICT(KEY("a") "(X\7\0\0\0storagectorch\nFloatStorage\nX\2\0\0\0000\0X\3\0\0\0cpuK\6tQ"),
         "impossible name"),
    CASE("K05 unknown type", STORED("ComplexFloatStorage", "0", "K\3"),
         "torch.ComplexFloatStorage"),
    CASE("K05 a function as a type", STORED("load", "0", "K\6"), "torch.load"),
    CASE("K05 a number as a type", DICT(KEY("a") "(X\7\0\0\0storageK\1" KEY("0") KEY("c") "K\6tQ"),
         "unknown way"),
    CASE("K05 no tuple", BEGIN KEY("a") "Q.", "unknown way"),
    CASE("K05 module", BEGIN "(X\6\0\0\0moduleNNNNtQ.", "unknown way"),
    CASE("K05 raw storage in a typed tensor",
         DICT(KEY("a") TENSOR_OF("(X\7\0\0\0storagectorch.storage\nUntypedStorage\n" KEY("0")
                                     KEY("c") "K\30tQ",
                                 "K\0", "K\1\x85", "K\1\x85")),
         "wrong type"),
    CASE("K05 unknown type of a raw storage", DICT(KEY("a") V3("ctorch\nquint8\n")),
         "type torch.quint8"),
    CASE("K05 no type of a raw storage", DICT(KEY("a") V3("N")), "wrong type"),
    CASE("K06 offset and extent", VIEW("K\1", "K\2K\3\x86", "K\3K\1\x86"),
         "outside of its storage"),
    CASE("K06 offset", VIEW("K\7", "K\0\x85", "K\1\x85"), "outside of its storage"),
    CASE("K06 offset at the end", VIEW("K\6", "K\1\x85", "K\1\x85"), "outside of its storage"),
    CASE("K06 extent", VIEW("K\0", "K\7\x85", "K\1\x85"), "outside of its storage"),
    CASE("K06 scalar behind the end", VIEW("K\6", ")", ")"), "outside of its storage"),
    CASE("K06 stride", VIEW("K\0", "K\2\x85", "K\6\x85"), "outside of its storage"),
    CASE("K06 negative offset", VIEW("J\xff\xff\xff\xff", "K\1\x85", "K\1\x85"),
         "outside of its storage"),
    CASE("K06 huge offset", VIEW(LONG8(MOST), "K\1\x85", "K\1\x85"), "outside of its storage"),
    CASE("K07 negative stride", VIEW("K\5", "K\2\x85", "J\xff\xff\xff\xff\x85"), "negative"),
    CASE("K07 stride 0", VIEW("K\0", "K\2K\3\x86", "K\0K\1\x86"), "share memory"),
    CASE("K07 overlapping strides", VIEW("K\0", "K\2K\3\x86", "K\2K\1\x86"), "share memory"),
    CASE("K07 equal strides", VIEW("K\0", "K\2K\2\x86", "K\1K\1\x86"), "share memory"),
    CASE("K07 huge stride", VIEW("K\0", "K\2\x85", LONG8(MOST) "\x85"), "outside of its storage"),
    CASE("K07 stride overflow", VIEW("K\0", "K\3\x85", LONG8(MOST) "\x85"),
         "outside of its storage"),
    CASE("K07 stride overflow past 2^64", VIEW("K\0", "K\5\x85", LONG8(MOST) "\x85"),
         "share memory"),
    CASE("K08 product", VIEW("K\0", LONG8(HALF) LONG8(HALF) "\x86", "K\1K\1\x86"),
         "size is impossible"),
    CASE("K08 product with a 0", VIEW("K\0", LONG8(HALF) LONG8(HALF) "K\0\x87", "K\1K\1K\1\x87"),
         "size is impossible"),
    CASE("K08 2^63 bytes", VIEW("K\0", LONG8("\0\0\0\0\0\0\0\x20") "\x85", "K\1\x85"),
         "size is impossible"),
    CASE("K08 negative", VIEW("K\0", "J\xff\xff\xff\xff\x85", "K\1\x85"), "negative"),
    CASE("K08 rank 9",
         VIEW("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"),
         "9 dimensions"),
    CASE("K09 index 2^32 - 1", BEGIN "}r\xff\xff\xff\xff.", "too large"),
    CASE("K09 index beyond the opcodes", BEGIN "}q\2.", "too large"),
    CASE("K09 undefined", BEGIN "h\0.", "never remembered"),
    CASE("K09 undefined, long", BEGIN "j\xff\xff\xff\xff.", "never remembered"),
    CASE("K09 a gap", BEGIN "}}}}q\3h\0.", "never remembered"),
    CASE("K09 nothing to remember", BEGIN "q\0.", "empty stack"),
    CASE("K10 call of nothing", BEGIN "R.", "empty stack"),
    CASE("K10 call without a function", BEGIN ")R.", "empty stack"),
    CASE("K10 tuple", BEGIN "\x87.", "empty stack"),
    CASE("K10 below a mark", BEGIN "}}(\x86.", "empty stack"),
    CASE("K10 items below a mark", BEGIN "}(" KEY("a") "(K\1K\1u.", "no dictionary"),
    CASE("K10 items and nothing below", BEGIN "(K\1e.", "empty stack"),
    CASE("K10 no mark", BEGIN "t.", "lacks a mark"),
    CASE("K10 no mark for items", BEGIN "}u.", "lacks a mark"),
    CASE("K10 nothing", BEGIN ".", "ends with 0 values"),
    CASE("K10 two values", BEGIN "}}.", "ends with 2 values"),
    CASE("K10 a mark is left", BEGIN "}(.", "ends with"),
    CASE("K10 no STOP", BEGIN "}", "is cut off"),
    CASE("K10 empty", "", "does not begin"),
    CASE("K10 text cut off", BEGIN "X\5\0\0\0a.", "is cut off"),
    CASE("K10 global cut off", BEGIN "cos\nsystem", "is cut off"),
    CASE("K10 frame cut off", "\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\xff}.", "is cut off"),
    CASE("K12 LONG4 of 4 GiB", BEGIN "\x8b\xff\xff\xff\x7f.", "opcode 0x8b"),
    CASE("K12 LONG1 of 255 bytes", BEGIN "\x8a\xff.", "integer of 255 bytes"),
    CASE("K12 LONG1 of 9 bytes", BEGIN "\x8a\11\0\0\0\0\0\0\0\0\0.", "integer of 9 bytes"),
    CASE("K12 text of 4 GiB", BEGIN "X\xff\xff\xff\xff.", "is cut off"),
    CASE("K12 text of 2^63", "\x80\4\x8d\0\0\0\0\0\0\0\x80.", "is cut off"),
    CASE("K13 list in itself", DICT(KEY("a") "]q\0h\0a"), "contains itself"),
    CASE("K13 dictionary in itself", BEGIN "}q\0" KEY("a") "h\0s.", "contains itself"),
    CASE("K13 through a tuple", BEGIN "}q\0" KEY("a") "h\0\x85s.", "contains itself"),
    CASE("K13 tensor below what is no name", DICT(KEY("\1") "}" KEY("a") TENSOR "s"),
         "below a dictionary"),
    CASE("K16 protocol 0", "(dp0\n.", "does not begin as a pickle of protocol 2"),
    CASE("K16 protocol 1", "}q\0.", "does not begin"),
    CASE("K16 said to be 1", "\x80\1}.", "protocol 1"),
    CASE("K16 protocol 6", "\x80\6}.", "protocol 6"),
    CASE("root: a tensor", BEGIN TENSOR ".", "no dictionary of named tensors"),
    CASE("root: a list", BEGIN "](" TENSOR TENSOR "e.", "no dictionary of named tensors"),
    CASE("name twice", DICT(KEY("a") TENSOR KEY("a") TENSOR), "in it twice"),
    CASE("name not UTF-8", DICT(KEY("\xff") TENSOR), "not UTF-8"),
    CASE("name with half a character", DICT("X\2\0\0\0\xe2\x82" TENSOR), "not UTF-8"),
    CASE("name with half a character inside", DICT("X\2\0\0\0\xc3z" TENSOR), "not UTF-8"),
    CASE("name of a NUL", DICT(KEY("\0") TENSOR), "control characters"),
    CASE("name with an escape code", DICT(KEY("\x1b") TENSOR), "control characters"),
    CASE("name overlong", DICT("X\2\0\0\0\xc0\x80" TENSOR), "not UTF-8"),
    CASE("name of a surrogate", DICT("X\3\0\0\0\xed\xa0\x80" TENSOR), "not UTF-8"),
    CASE("state set on a tensor", BEGIN TENSOR "}b.", "has none"),
    CASE("state of the wrong type", BEGIN NO_HOOKS "K\1b.", "has none"),
};

static void test_bad(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(bad); i++)
        refused_pickle(bad[i].name, bad[i].pickle, bad[i].n, bad[i].says);
    static const char good[] = /* K10: cut at every place */
        "\x80\4\x95\1\0\0\0\0\0\0\0}\x94(" KEY("a")
            TENSOR KEY("b") "(](K\1M\2\1J\1\0\0\0e\x8a\2\1\1G\0\0\0\0\0\0\0\0"
                            "\x8c\1c\x8d\1\0\0\0\0\0\0\0c\x93h\0\x88Nr\2\0\0\0j\2\0\0\0\x86t"
                            "cos\nsystem\n" NO_HOOKS "u.";
    for (size_t n = 0; n < sizeof good - 1; n++)
        refused_pickle("a pickle that is cut off", good, n, "data.pkl");
    refused_pickle("the same as a whole", good, sizeof good - 1, "contains itself");
}

static void repeat(struct str *s, const char *what, size_t n, int times)
{
    for (int i = 0; i < times; i++) str_add_bytes(s, what, n);
}

/* What is large is made in code. */
static void test_large(void **state)
{
    (void)state;
    struct str s = { 0 };
    str_add_bytes(&s, BEGIN, 2); /* K11 */
    repeat(&s, "(", 1, 2000000);
    refused_pickle("K11 marks", s.data, s.len, "nested too deeply");
    str_finish(&s);
    str_add_bytes(&s, BEGIN ")", 3);
    repeat(&s, "\x85", 1, 2000000);
    str_add(&s, ".");
    refused_pickle("K11 tuples", s.data, s.len, "nested more than 64 deep");
    str_finish(&s);
    /* 62 dictionaries in the first one, or one too many */
    for (int depth = 63; depth <= 64; depth++) {
        str_add_bytes(&s, BEGIN "}", 3);
        for (int i = 1; i < depth; i++) str_add_bytes(&s, KEY("d") "}", 7);
        str_add_bytes(&s, KEY("a") "]", 7);
        repeat(&s, "s", 1, depth);
        str_add(&s, ".");
        if (depth == 63) loader->close(accepted_pickle("nested 64 deep", s.data, s.len));
        else refused_pickle("nested 65 deep", s.data, s.len, "nested more than 64 deep");
        str_finish(&s);
    }
    str_add_bytes(&s, BEGIN "}(", 4);
    repeat(&s, "N", 1, (2 << 20));
    refused_pickle("opcodes", s.data, s.len, "more than 2097152 opcodes");
    repeat(&s, "N", 1, 16 << 20);
    refused_pickle("16 MiB", s.data, s.len, "no checkpoint needs more");
    str_finish(&s);
    for (size_t n = 511; n <= 512; n++) {
        str_add_bytes(&s, BEGIN "}X", 4);
        put(&s, n, 4);
        repeat(&s, "n", 1, (int)n);
        str_add_bytes(&s, TENSOR "s.", sizeof(TENSOR "s.") - 1);
        if (n == 511) loader->close(accepted_pickle("name of 511 bytes", s.data, s.len));
        else refused_pickle("name of 512 bytes", s.data, s.len, "longer than 511");
        str_finish(&s);
    }
    str_add_bytes(&s, BEGIN "}(" KEY("a") TENSOR "q\0",
                  sizeof(BEGIN "}(" KEY("a") TENSOR "q\0") - 1);
    for (int i = 0; i < 200000; i++) {
        str_addf(&s, "X\x06%c%c%c%06d", 0, 0, 0, i);
        str_add_bytes(&s, "h\0", 2);
    }
    str_add(&s, "u.");
    refused_pickle("200001 names", s.data, s.len, "more than 200000 tensors");
    str_finish(&s);
    /* Every dictionary holds the next one 200 times: 200^12 ways to nothing. */
    str_add_bytes(&s, BEGIN, 2);
    for (int i = 0; i < 12; i++) {
        str_add(&s, "}q");
        put(&s, (uint64_t)i, 1);
        str_add_bytes(&s, "(X\1\0\0\0k", 7);
    }
    str_add_bytes(&s, "}q\14", 3);
    for (int i = 12; i > 0; i--) {
        for (int k = 0; k < 199; k++) {
            str_add_bytes(&s, "X\2\0\0\0", 5);
            put(&s, (uint64_t)(0x4141 + k % 16 + (k / 16 << 8)), 2);
            str_add(&s, "h");
            put(&s, (uint64_t)i, 1);
        }
        str_add(&s, "u");
    }
    str_add(&s, ".");
    refused_pickle("many ways", s.data, s.len, "in too many ways");
    str_finish(&s);
}

/* ---- good pickles ---------------------------------------------------------------------------- */

/* Tensor i has this name and these values, read in both ways where it is mapped. */
static void holds(void *self, int64_t i, const char *name, const float *values, int n)
{
    struct burin_tensor_info info;
    float read[16];
    assert_int_equal(loader->info(self, i, &info), 0);
    assert_string_equal(info.name, name);
    assert_int_equal(info.dtype, BURIN_T_F32);
    assert_int_equal(info.bytes, (size_t)n * 4);
    assert_int_equal(loader->read(self, i, read, info.bytes), 0);
    assert_memory_equal(read, values, (size_t)n * 4);
    if (info.mapped) assert_memory_equal(info.mapped, values, (size_t)n * 4);
}

static bool is_mapped(void *self, int64_t i)
{
    struct burin_tensor_info info;
    assert_int_equal(loader->info(self, i, &info), 0);
    return info.mapped != NULL;
}

static void test_good(void **state)
{
    (void)state;
    static const struct {
        const char *name, *pickle;
        size_t n;
        int64_t count;
    } good[] = {
#define FINE(name, pickle, count) { name, pickle, sizeof pickle - 1, count }
        FINE("plain", GOOD, 1),
        FINE("K14 shared storage", DICT(KEY("a") TENSOR KEY("b") TENSOR), 2),
        FINE("K14 shared tensor", DICT(KEY("a") TENSOR "q\0" KEY("b") "h\0"), 2),
        FINE("K14 shared list", DICT(KEY("a") "]q\0" KEY("b") "h\0"), 0),
        FINE("K15 state of an OrderedDict",
             BEGIN NO_HOOKS KEY("a") TENSOR "s}X\11\0\0\0_metadataNsb.", 1),
        FINE("K17 a second pickle", GOOD BEGIN CALL("os", "system", TEXT1) ".", 1),
        FINE("K12 LONG1 of 8 bytes", DICT(KEY("a") LONG8(MOST)), 0),
        FINE("K12 LONG1 of none", DICT(KEY("a") "\x8a\0"), 0),
        FINE("K02 allowed names from the memo",
             "\x80\4}\x8c\1a\x8c\13collections\x94\x8c\13OrderedDict\x94\x93)Rs.", 0),
        FINE("an unknown class that is not called",
             DICT(KEY("a") TENSOR KEY("c") "}cpl.callbacks\nEarlyStopping\n}s"), 1),
        FINE("numbers of numpy",
             DICT(KEY("a") TENSOR KEY("s") CALL(
                 "numpy.core.multiarray", "scalar",
                 "(" CALL("numpy", "dtype", "(X\2\0\0\0f8K\0K\1t") "(K\3" KEY("<") "NNNtb" CALL(
                     "_codecs", "encode", "(" KEY("x") "X\6\0\0\0latin1t") "t")),
             1),
        FINE("parameter",
             DICT(KEY("a")
                      CALL("torch._utils", "_rebuild_parameter", "(" TENSOR "\x88" NO_HOOKS "t")),
             1),
        FINE("raw storage with a type", DICT(KEY("a") V3("ctorch\nuint64\n")), 1),
        FINE("metadata None", REBUILD("(" STORAGE "K\0))\x89" NO_HOOKS "Nt"), 1),
        FINE("scalar", VIEW("K\5", ")", ")"), 1),
        FINE("rank 8", VIEW("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1t"), 1),
        FINE("no elements, at the end", VIEW("K\6", "K\0\x85", "K\1\x85"), 1),
        FINE("stride of a dimension of 1", VIEW("K\0", "K\1K\6\x86", "J\xff\xff\xff\x7fK\1\x86"),
             1),
        FINE("protocol 5", "\x80\5\x95\1\0\0\0\0\0\0\0}.", 0),
        FINE("lists and numbers beside tensors",
             DICT(KEY("a") TENSOR KEY("l") "](K\1NG\0\0\0\0\0\0\0\0e"
                                           "K\1" TENSOR),
             1),
    };
    for (int i = 0; i < COUNT_OF(good); i++) {
        void *self = accepted_pickle(good[i].name, good[i].pickle, good[i].n);
        uint8_t bytes[64];
        struct burin_tensor_info info;
        if (loader->count(self) != good[i].count)
            print_error("%s: %d tensors\n", good[i].name, (int)loader->count(self));
        assert_int_equal(loader->count(self), good[i].count);
        for (int64_t k = 0; k < good[i].count; k++) {
            assert_int_equal(loader->info(self, k, &info), 0);
            assert_int_equal(loader->read(self, k, bytes, info.bytes), 0);
            if (info.bytes) assert_memory_equal(info.mapped, bytes, info.bytes);
        }
        loader->close(self);
    }
}

static void test_views(void **state)
{
    (void)state;
    static const char pickle[] =
        DICT(KEY("a") TENSOR                                                /* all */
                 KEY("b") TENSOR_OF(STORAGE, "K\2", "K\3\x85", "K\1\x85")   /* a piece */
             KEY("c") TENSOR_OF(STORAGE, "K\0", "K\3K\2\x86", "K\1K\3\x86") /* transposed */
             KEY("d") TENSOR_OF(STORAGE, "K\1", "K\2\x85", "K\3\x85"));     /* a column */
    static const float piece[] = { 3.5f, 0, 1e30f },
                       transposed[] = { 1, 0, -2, 1e30f, 3.5f, -0.25f }, column[] = { -2, 1e30f };
    void *self = accepted_pickle("views", pickle, sizeof pickle - 1);
    holds(self, 0, "a", six_floats, 6);
    holds(self, 1, "b", piece, 3);
    holds(self, 2, "c", transposed, 6);
    holds(self, 3, "d", column, 2);
    assert_true(is_mapped(self, 0) && is_mapped(self, 1));
    assert_false(is_mapped(self, 2) || is_mapped(self, 3));
    float six[6];
    struct burin_tensor_info info;
    assert_int_equal(loader->read(self, 0, six, 20), -1);
    assert_error("20 were asked for");
    assert_int_equal(loader->read(self, 4, six, 24), -1);
    assert_int_equal(loader->info(self, -1, &info), -1);
    assert_error("no tensor number -1");
    loader->close(self);
}

/* state_dict is unwrapped, scalars beside it are metadata; without one,
 * dictionaries give names with points. */
static void test_names(void **state)
{
    (void)state;
    /* clang-format off */
    static const char wrapped[] =
        DICT("X\12\0\0\0state_dict" "}" KEY("w") TENSOR "s" KEY("e") "M\x10\x27"
             KEY("f") "G\x3f\xd0\0\0\0\0\0\0" KEY("y") "\x88" KEY("v") "X\5\0\0\0" "1.4.2"
             KEY("o") "}" KEY("x") TENSOR "s" KEY("n") "N" "K\1K\2" KEY("c") KEY("\xff"));
    /* clang-format on */
    static const struct {
        const char *key, *value;
    } meta[] = {
        { "e", "10000" },
        { "f", "0.25" },
        { "y", "true" },
        { "v", "1.4.2" },
    };
    void *self = accepted_pickle("wrapped", wrapped, sizeof wrapped - 1);
    const char *key, *value;
    assert_int_equal(loader->count(self), 1);
    holds(self, 0, "w", six_floats, 6);
    for (int i = 0; i < COUNT_OF(meta); i++) {
        assert_int_equal(loader->meta(self, i, &key, &value), 1);
        assert_string_equal(key, meta[i].key);
        assert_string_equal(value, meta[i].value);
    }
    assert_int_equal(loader->meta(self, COUNT_OF(meta), &key, &value), 0);
    assert_int_equal(loader->meta(self, -1, &key, &value), 0);
    loader->close(self);
    static const char nested[] =
        DICT(KEY("z") TENSOR KEY("p") "}(" KEY("*") TENSOR KEY("d") "}" KEY("w") TENSOR "su");
    self = accepted_pickle("nested", nested, sizeof nested - 1);
    assert_int_equal(loader->count(self), 3);
    holds(self, 0, "p.*", six_floats, 6);
    holds(self, 1, "p.d.w", six_floats, 6);
    holds(self, 2, "z", six_floats, 6);
    loader->close(self);
}

/* ---- nothing is run -------------------------------------------------------------------------- */

enum { ACCEPTED = 10, REFUSED, UNABLE, LEFT = 100 };

/* Opens and reads the file in a child that can do nothing else: any other system call kills it;
 * afterwards `extra` may try to get out. */
static int in_jail(const char *path, const char *says, bool extra)
{
    pid_t child = fork();
    if (child == 0) {
        void *self;
        char bytes[64];
        struct burin_tensor_info info;
        if (!jail_enter(JAIL_READS_FILES)) _exit(UNABLE);
        if (extra) _exit(mkdir("/nowhere/at/all", 0777) + LEFT);
        if (try_open(path, &self) != 0) _exit(strstr(burin_error(), says) ? REFUSED : LEFT);
        for (int64_t i = 0; i < loader->count(self); i++)
            if (loader->info(self, i, &info) != 0 || loader->read(self, i, bytes, info.bytes) != 0)
                _exit(LEFT);
        loader->close(self);
        _exit(ACCEPTED);
    }
    int status = 0;
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_runs_nothing(void **state)
{
    (void)state;
    struct archive a;
    char command[4200];
    snprintf(command, sizeof command, "touch %s", in_folder(folder, "pwned"));
    static const char *const ways[] = { "cos\nsystem\n", "cposix\nsystem\n",
                                        "csubprocess\ngetoutput\n", "\x8c\2os\x8c\6system\x93" };
    for (int i = 0; i < COUNT_OF(ways); i++)
        for (int inside = 0; inside < 2; inside++) {
            struct str s = { 0 };
            str_add_bytes(&s, "\x80\4}(", 4);
            if (inside) /* behind a tensor, so that much of the file was accepted before */
                str_add_bytes(&s, KEY("a") TENSOR, sizeof(KEY("a") TENSOR) - 1);
            str_add_bytes(&s, KEY("b"), sizeof(KEY("b")) - 1);
            str_add(&s, ways[i]);
            str_add(&s, "X");
            put(&s, strlen(command), 4);
            str_add(&s, command);
            str_add(&s, "\x85Ru.");
            pack_pickle(&a, s.data, s.len);
            int end = in_jail(write_archive(&a), "nothing of it was run", false);
            assert_int_equal(end, REFUSED);
            assert_false(file_exists(in_folder(folder, "pwned")));
            assert_int_equal(count_files(folder), 1);
            str_finish(&s);
        }
    pack_pickle(&a, GOOD, sizeof(GOOD) - 1);
    const char *path = write_archive(&a);
    assert_int_equal(in_jail(path, "", false), ACCEPTED);
    assert_int_equal(in_jail(path, "", true), -SIGSYS); /* the jail holds */
}

/* ---- files that PyTorch wrote ---------------------------------------------------------------- */

/* Every tensor of the safetensors file, bit for bit, and no other. */
static void same_tensors(const char *torch, const char *safetensors)
{
    const struct burin_loader *by_torch = plug_loader_for(torch),
                              *plain = plug_loader_for(safetensors);
    void *a, *b;
    assert_ptr_equal(by_torch, loader);
    assert_ptr_not_equal(plain, loader);
    assert_int_equal(try_open(torch, &a), 0);
    assert_int_equal(plain->open(safetensors, &b), 0);
    assert_int_equal(loader->count(a), plain->count(b));
    for (int64_t i = 0; i < plain->count(b); i++) {
        struct burin_tensor_info x, y;
        uint8_t bytes[1024];
        int64_t k = 0;
        assert_int_equal(plain->info(b, i, &y), 0);
        for (; loader->info(a, k, &x) == 0 && strcmp(x.name, y.name) != 0; k++) {}
        assert_string_equal(x.name, y.name);
        assert_int_equal(x.dtype, y.dtype);
        assert_int_equal(x.rank, y.rank);
        assert_memory_equal(x.dim, y.dim, sizeof x.dim);
        assert_int_equal(x.bytes, y.bytes);
        assert_true(x.bytes <= sizeof bytes);
        assert_int_equal(loader->read(a, k, bytes, x.bytes), 0);
        if (x.bytes) assert_memory_equal(bytes, y.mapped, x.bytes);
        if (x.mapped) assert_memory_equal(x.mapped, y.mapped, x.bytes);
    }
    loader->close(a);
    plain->close(b);
}

static void test_files_of_torch(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        { "torch/lightning-1.13.ckpt", "torch/lightning-1.13.safetensors" },
        { "torch/flat-2.15.pt", "torch/flat-2.15.safetensors" },
        { "torch/protocol4-2.15.pt", "torch/protocol4-2.15.safetensors" },
        { "torch/nocrc-2.15.pt", "torch/nocrc-2.15.safetensors" },
    };
    for (int i = 0; i < COUNT_OF(files); i++) {
        char torch[4096];
        snprintf(torch, sizeof torch, "%s", test_data(files[i][0]));
        same_tensors(torch, test_data(files[i][1]));
    }
    void *self;
    const char *key, *value;
    assert_int_equal(try_open(test_data("torch/lightning-1.13.ckpt"), &self), 0);
    assert_int_equal(loader->meta(self, 1, &key, &value), 1);
    assert_string_equal(key, "global_step");
    assert_string_equal(value, "470000");
    loader->close(self);
    assert_int_equal(try_open(test_data("torch/expanded-2.15.pt"), &self), -1);
    assert_error("save its .clone() instead");
    assert_int_equal(try_open(test_data("torch/whole-2.15.pt"), &self), -1);
    assert_error("call \"torch.nn.modules.linear.Linear\"");
    assert_error("save its state_dict() alone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_runs_nothing),
        cmocka_unit_test(test_files_of_torch),
    };
    loader = load_plugin("torch")->loaders[0];
    load_plugin("safetensors"); /* to compare with */
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
