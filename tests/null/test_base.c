/* SPDX-License-Identifier: MIT
 * test_base.c - errors, memory, strings, files, hashes, small numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "burin.h"

static char folder[] = "/tmp/burin-base-XXXXXX";

static void test_errors(void **state)
{
    (void)state;
    assert_false(fail("cannot open %s", "x"));
    assert_string_equal(burin_error(), "cannot open x");
    fail_prefix("step %d", 3);
    assert_string_equal(burin_error(), "step 3: cannot open x");
    fail("%s!", burin_error());
    assert_string_equal(burin_error(), "step 3: cannot open x!");
}

/* Running out of memory ends the process with a sentence that names the file, and leaves nothing
 * half written. */
static void test_no_memory(void **state)
{
    (void)state;
    char half[4200], said[256] = { 0 };
    int out[2], status;
    snprintf(half, sizeof half, "%s/half.tmp-1-0", folder);
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], STDERR_FILENO);
        fclose(fopen(half, "w"));
        temp_begin(half);
        mem_for("large\033.bin");
        mem_free(mem_alloc(SIZE_MAX / 2));
        _exit(0);
    }
    close(out[1]);
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 71);
    assert_true(read(out[0], said, sizeof said - 1) > 0);
    close(out[0]);
    assert_non_null(strstr(said, "out of memory on the host"));
    assert_non_null(strstr(said, "large\\u001b.bin"));
    assert_false(file_exists(half));
    mem_for("x");
    assert_string_equal(mem_file(), "x");
    mem_for(NULL);
    assert_null(mem_file());
}

static void test_memory(void **state)
{
    (void)state;
    int *list = NULL, capacity = 0;
    for (int i = 0; i < 1000; i++) {
        list = array_reserve(list, i, &capacity, sizeof *list);
        assert_int_equal(list[i], 0);
        list[i] = i;
    }
    assert_int_equal(list[999], 999);
    mem_free(list);
    struct arena a = { 0 };
    for (size_t n = 1; n < 200000; n *= 3) {
        uint8_t *p = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset(p, 1, n);
    }
    assert_string_equal(arena_strdup(&a, "cut"), "cut");
    arena_finish(&a);
    assert_null(a.head);
}

static void check_shown(const char *text, bool lines, const char *expected)
{
    struct str s = { 0 };
    str_add(&s, "");
    str_add_shown(&s, text, strlen(text), lines);
    assert_string_equal(s.data, expected);
    str_finish(&s);
}

static void test_shown(void **state)
{
    (void)state;
    check_shown("plain, \\, \xc3\xa9 \xf0\x9f\x90\x88", false,
                "plain, \\, \xc3\xa9 \xf0\x9f\x90\x88");
    check_shown("\033]0;x\a\177\r", true, "\\u001b]0;x\\u0007\\u007f\\u000d");
    check_shown("a\tb\nc", true, "a\tb\nc");
    check_shown("a\tb\nc", false, "a\\u0009b\\nc");
    check_shown("\xc2\x9b"
                "31m",
                true, "\\u009b31m"); /* C1 */
    check_shown("\xe2\x80\xaegnp.exe", true, "\\u202egnp.exe");
    check_shown("\x9b"
                "31m \xff\xc3",
                true, "\\x9b31m \\xff\\xc3"); /* no UTF-8 */
    check_shown("\xc0\x9b \xed\xa0\x80", true, "\\xc0\\x9b \\xed\\xa0\\x80");
    check_shown("", true, "");
}

static void test_strings(void **state)
{
    (void)state;
    struct str s = { 0 };
    str_addf(&s, "%d,", 12);
    for (int i = 0; i < 100; i++) str_add(&s, "ab");
    assert_int_equal(s.len, 203);
    assert_int_equal(strlen(s.data), 203);
    str_finish(&s);
    const char text[] = "a\"\\\n\x01\xc3\xa9\xff\xed\xa0\x80\xf0\x9f\x8c\xb1\xe2\x82";
    str_add_json(&s, text, sizeof text - 1);
    const char *bad = "\xef\xbf\xbd";
    char wanted[128];
    snprintf(wanted, sizeof wanted, "\"a\\\"\\\\\\n\\u0001\xc3\xa9%s%s%s%s\xf0\x9f\x8c\xb1%s%s\"",
             bad, bad, bad, bad, bad, bad);
    assert_string_equal(s.data, wanted);
    str_finish(&s);
    const char *const names[] = { "learning_rate", "batch", "epochs", "lr" };
    assert_string_equal(str_nearest("bacth", names, 4), "batch");
    assert_string_equal(str_nearest("learning_rat", names, 4), "learning_rate");
    assert_null(str_nearest("network", names, 4));
}

static void test_files(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/a/b//c", folder);
    assert_true(file_make_dirs(path));
    assert_true(file_make_dirs(path));
    snprintf(path, sizeof path, "%s/a/b/c/file", folder);
    assert_false(file_exists(path));
    assert_true(file_write(path, "hello", 5));
    struct file_map m;
    assert_true(file_map_open(&m, path));
    assert_int_equal(m.bytes, 5);
    assert_memory_equal(m.data, "hello", 5);
    file_map_close(&m);
    struct file_out *f = file_out_open(path);
    file_out_write(f, "half", 4);
    file_out_abort(f);
    file_out_abort(NULL);
    struct str s = { 0 };
    assert_true(file_read(path, 5, &s));
    assert_string_equal(s.data, "hello");
    assert_false(file_read(path, 4, &s));
    assert_non_null(strstr(burin_error(), path));
    assert_true(file_write(path, "", 0));
    assert_true(file_map_open(&m, path));
    assert_int_equal(m.bytes, 0);
    file_map_close(&m);
    assert_false(file_map_open(&m, folder));
    assert_false(file_make_dirs(path));
    assert_null(file_out_open("/nonexistent/folder/file"));
    assert_non_null(strstr(burin_error(), "/nonexistent/folder/file"));
    str_finish(&s);
    setenv("XDG_CACHE_HOME", folder, 1);
    char *cache = file_cache_dir("pipelines");
    assert_non_null(cache);
    assert_true(file_exists(cache));
    mem_free(cache);
    unsetenv("XDG_CACHE_HOME");
}

/* A commit that cannot finish leaves the old file as it was. */
static void test_commit_fails(void **state)
{
    (void)state;
    char path[128], command[160];
    struct str s = { 0 };
    snprintf(path, sizeof path, "%s/taken", folder);
    assert_true(file_make_dirs(path));
    snprintf(command, sizeof command, "%s/kept", path);
    assert_true(file_write(command, "old", 3));
    assert_false(file_write(path, "new", 3)); /* a folder that is not empty is in the way */
    assert_non_null(strstr(burin_error(), path));
    assert_true(file_read(command, 100, &s));
    assert_string_equal(s.data, "old");
    str_finish(&s);
    snprintf(command, sizeof command, "test -z \"$(ls %s | grep tmp)\"", folder);
    assert_int_equal(system(command), 0);
}

static void test_hashes(void **state)
{
    (void)state;
    static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                     0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                     0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                     0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
    static const uint8_t two[32] = { /* FIPS 180-4's two-block message */
                                     0x24, 0x8d, 0x6a, 0x61, 0xd2, 0x06, 0x38, 0xb8,
                                     0xe5, 0xc0, 0x26, 0x93, 0x0c, 0x3e, 0x60, 0x39,
                                     0xa3, 0x3c, 0xe4, 0x59, 0x64, 0xff, 0x21, 0x67,
                                     0xf6, 0xec, 0xed, 0xd4, 0x19, 0xdb, 0x06, 0xc1
    };
    uint8_t out[32];
    hash_sha256("abc", 3, out);
    assert_memory_equal(out, abc, 32);
    hash_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, out);
    assert_memory_equal(out, two, 32);
    hash_sha256(NULL, 0, out);
    assert_int_equal(out[0], 0xe3);
    assert_int_not_equal(hash_bytes("a", 1, 0), hash_bytes("a", 1, 1));

    /* Known answers of Random123. */
    static const uint32_t zero[4], ones[4] = { ~0u, ~0u, ~0u, ~0u };
    static const uint32_t pi[4] = { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 };
    static const uint32_t pi_key[2] = { 0xa4093822, 0x299f31d0 };
    static const uint32_t wanted[3][4] = { { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
                                           { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
                                           { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } };
    uint32_t r[4];
    philox(zero, zero, r);
    assert_memory_equal(r, wanted[0], sizeof r);
    philox(ones, ones, r);
    assert_memory_equal(r, wanted[1], sizeof r);
    philox(pi, pi_key, r);
    assert_memory_equal(r, wanted[2], sizeof r);
}

/* What ml_dtypes 0.5 reads the codes 0 to 127 as; the sign is the eighth bit. */
static const double values_e4m3[128] = {
    0,        0.001953125, 0.00390625, 0.005859375, 0.0078125, 0.009765625, 0.01171875, 0.013671875,
    0.015625, 0.017578125, 0.01953125, 0.021484375, 0.0234375, 0.025390625, 0.02734375, 0.029296875,
    0.03125,  0.03515625,  0.0390625,  0.04296875,  0.046875,  0.05078125,  0.0546875,  0.05859375,
    0.0625,   0.0703125,   0.078125,   0.0859375,   0.09375,   0.1015625,   0.109375,   0.1171875,
    0.125,    0.140625,    0.15625,    0.171875,    0.1875,    0.203125,    0.21875,    0.234375,
    0.25,     0.28125,     0.3125,     0.34375,     0.375,     0.40625,     0.4375,     0.46875,
    0.5,      0.5625,      0.625,      0.6875,      0.75,      0.8125,      0.875,      0.9375,
    1,        1.125,       1.25,       1.375,       1.5,       1.625,       1.75,       1.875,
    2,        2.25,        2.5,        2.75,        3,         3.25,        3.5,        3.75,
    4,        4.5,         5,          5.5,         6,         6.5,         7,          7.5,
    8,        9,           10,         11,          12,        13,          14,         15,
    16,       18,          20,         22,          24,        26,          28,         30,
    32,       36,          40,         44,          48,        52,          56,         60,
    64,       72,          80,         88,          96,        104,         112,        120,
    128,      144,         160,        176,         192,       208,         224,        240,
    256,      288,         320,        352,         384,       416,         448,        NAN
};
static const double values_e5m2[128] = { 0,
                                         1.52587890625e-05,
                                         3.0517578125e-05,
                                         4.57763671875e-05,
                                         6.103515625e-05,
                                         7.62939453125e-05,
                                         9.1552734375e-05,
                                         0.0001068115234375,
                                         0.0001220703125,
                                         0.000152587890625,
                                         0.00018310546875,
                                         0.000213623046875,
                                         0.000244140625,
                                         0.00030517578125,
                                         0.0003662109375,
                                         0.00042724609375,
                                         0.00048828125,
                                         0.0006103515625,
                                         0.000732421875,
                                         0.0008544921875,
                                         0.0009765625,
                                         0.001220703125,
                                         0.00146484375,
                                         0.001708984375,
                                         0.001953125,
                                         0.00244140625,
                                         0.0029296875,
                                         0.00341796875,
                                         0.00390625,
                                         0.0048828125,
                                         0.005859375,
                                         0.0068359375,
                                         0.0078125,
                                         0.009765625,
                                         0.01171875,
                                         0.013671875,
                                         0.015625,
                                         0.01953125,
                                         0.0234375,
                                         0.02734375,
                                         0.03125,
                                         0.0390625,
                                         0.046875,
                                         0.0546875,
                                         0.0625,
                                         0.078125,
                                         0.09375,
                                         0.109375,
                                         0.125,
                                         0.15625,
                                         0.1875,
                                         0.21875,
                                         0.25,
                                         0.3125,
                                         0.375,
                                         0.4375,
                                         0.5,
                                         0.625,
                                         0.75,
                                         0.875,
                                         1,
                                         1.25,
                                         1.5,
                                         1.75,
                                         2,
                                         2.5,
                                         3,
                                         3.5,
                                         4,
                                         5,
                                         6,
                                         7,
                                         8,
                                         10,
                                         12,
                                         14,
                                         16,
                                         20,
                                         24,
                                         28,
                                         32,
                                         40,
                                         48,
                                         56,
                                         64,
                                         80,
                                         96,
                                         112,
                                         128,
                                         160,
                                         192,
                                         224,
                                         256,
                                         320,
                                         384,
                                         448,
                                         512,
                                         640,
                                         768,
                                         896,
                                         1024,
                                         1280,
                                         1536,
                                         1792,
                                         2048,
                                         2560,
                                         3072,
                                         3584,
                                         4096,
                                         5120,
                                         6144,
                                         7168,
                                         8192,
                                         10240,
                                         12288,
                                         14336,
                                         16384,
                                         20480,
                                         24576,
                                         28672,
                                         32768,
                                         40960,
                                         49152,
                                         57344,
                                         INFINITY,
                                         NAN,
                                         NAN,
                                         NAN };

static void test_eighths(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        double want[2] = { values_e4m3[c & 127], values_e5m2[c & 127] };
        float have[2] = { f8_e4m3_to_f32((uint8_t)c), f8_e5m2_to_f32((uint8_t)c) };
        for (int k = 0; k < 2; k++) {
            if (isnan(want[k])) {
                assert_true(isnan(have[k]));
                continue;
            }
            assert_true((double)have[k] == (c < 128 ? want[k] : -want[k]));
            assert_int_equal(signbit(have[k]) != 0, c >= 128);
            assert_true(f16_to_f32(f32_to_f16(have[k])) == have[k]); /* every value is an f16 */
            assert_true(bf16_to_f32(f32_to_bf16(have[k])) == have[k]);
        }
    }
}

static void test_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_to_f32((uint16_t)h), b = bf16_to_f32((uint16_t)h);
        if (isnan(f)) assert_true(isnan(f16_to_f32(f32_to_f16(f))));
        else assert_int_equal(f32_to_f16(f), h);
        if (isnan(b)) assert_true(isnan(bf16_to_f32(f32_to_bf16(b))));
        else assert_int_equal(f32_to_bf16(b), h);
    }
    assert_int_equal(f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(1 + 0x1p-11f), 0x3c00); /* ties to even */
    assert_int_equal(f32_to_f16(1 + 3 * 0x1p-11f), 0x3c02);
    assert_int_equal(f32_to_f16(0x1p-25f), 0);
    assert_int_equal(f32_to_f16(0x1.1p-25f), 1);
    assert_int_equal(f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(f32_to_f16(1023.5f * 0x1p-24f), 0x400); /* up to a normal */
    assert_int_equal(f32_to_bf16(1 + 0x1p-8f), 0x3f80);
    assert_int_equal(f32_to_bf16(1 + 3 * 0x1p-8f), 0x3f82);
    assert_int_equal(f32_to_bf16(3.4e38f), 0x7f80);
    double start = clock_seconds();
    assert_true(clock_seconds() >= start);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_memory),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_strings),
        cmocka_unit_test(test_files),     cmocka_unit_test(test_commit_fails),
        cmocka_unit_test(test_hashes),    cmocka_unit_test(test_halves),
        cmocka_unit_test(test_eighths),   cmocka_unit_test(test_shown),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
