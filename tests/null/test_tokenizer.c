/* SPDX-License-Identifier: MIT
 * test_tokenizer.c - the tokenizer against ids from the systems that use it:
 *   tests/data/tokenizer_cases.tsv   499 texts: Hugging Face with ftfy, OpenAI's, plain, pad token
 * "!" tests/data/tokenizer_chunks.tsv  648 rows of 77 ids as sd-scripts makes them, 81 with weights
 */
#include "support.h"

#include "data/data.h"
#include "data/deflate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 8

static int hex_value(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static char *from_hex(const char *hex, size_t *n)
{
    *n = strlen(hex) / 2;
    char *text = mem_alloc(*n + 1);
    for (size_t i = 0; i < *n; i++)
        text[i] = (char)(hex_value(hex[2 * i]) << 4 | hex_value(hex[2 * i + 1]));
    return text;
}

/* Splits a line at its tabs, in place. */
static int split(char *line, char **column, int most)
{
    int n = 0;
    while (n < most) {
        column[n++] = line;
        line = strchr(line, '\t');
        if (!line) break;
        *line++ = 0;
    }
    return n;
}

/* Calls row for each line but the heading; returns how many lines, and adds up what row returns. */
static int each_line(const char *file, int (*row)(char **column, int n), int *good)
{
    struct str text = { 0 };
    assert_true(file_read(test_data(file), 64u << 20, &text));
    int lines = 0;
    char *at = strchr(text.data, '\n');
    assert_non_null(at);
    for (at++; *at;) {
        char *end = strchr(at, '\n'), *column[COLUMNS] = { 0 };
        if (end) *end = 0;
        *good += row(column, split(at, column, COLUMNS));
        lines++;
        at = end ? end + 1 : at + strlen(at);
    }
    str_finish(&text);
    return lines;
}

static bool same_ids(const char *expected, const int32_t *ids, int n)
{
    int i = 0;
    for (; *expected; i++) {
        char *end;
        long v = strtol(expected, &end, 10);
        if (i >= n || ids[i] != v) return false;
        expected = *end ? end + 1 : end;
    }
    return i == n;
}

static int case_row(char **column, int n)
{
    static const enum tokenizer_flavour flavours[] = { TOKENIZER_HF, TOKENIZER_OPENAI,
                                                       TOKENIZER_PLAIN, TOKENIZER_HF_PAD_BANG };
    assert_int_equal(n, 8);
    size_t bytes;
    char *text = from_hex(column[3], &bytes);
    bool good = true;
    for (int f = 0; f < 4; f++) {
        int32_t *ids;
        const char *expected = strcmp(column[4 + f], "=") == 0 ? column[4] : column[4 + f];
        int count = tokenizer_encode(text, bytes, flavours[f], &ids);
        if (count < 0 || !same_ids(expected, ids, count)) {
            print_error("case %s (%s) %s flavour %d: expected %s, got", column[0], column[1],
                        column[2], f, expected);
            for (int i = 0; i < count; i++) print_error(" %d", ids[i]);
            print_error("\n");
            good = false;
        }
        mem_free(ids);
    }
    mem_free(text);
    return good;
}

static void test_cases(void **state)
{
    (void)state;
    int good = 0, lines = each_line("tokenizer_cases.tsv", case_row, &good);
    print_message("%d of %d tokenizer cases\n", good, lines);
    assert_int_equal(lines, 499);
    assert_int_equal(good, lines);
}

static bool same_weights(const char *expected, const float *w, int n)
{
    int i = 0;
    for (; *expected; i++) {
        char *end;
        float v = strtof(expected, &end);
        if (i >= n || fabsf(w[i] - v) > 1e-6f) return false;
        expected = *end ? end + 1 : end;
    }
    return i == n;
}

static int chunk_row(char **column, int n)
{
    assert_int_equal(n, 7);
    size_t bytes;
    char *text = from_hex(column[4], &bytes);
    int length = atoi(column[0]), chunks = length / 75;
    bool bang = strstr(column[1], "bang"), weighted = strcmp(column[6], "-") != 0;
    int32_t pad = strncmp(column[1], "pad_eos", 7) == 0 ? 49407 : 0, ids[3 * 77];
    enum tokenizer_flavour flavour = bang ? TOKENIZER_HF_PAD_BANG : TOKENIZER_HF;
    float weights[3 * 77];
    bool ok = weighted ? tokenizer_chunks_weighted(text, bytes, flavour, length, pad, ids, weights)
                       : tokenizer_chunks(text, bytes, flavour, length, pad, ids);
    for (char *c = column[5]; *c; c++) *c = *c == '|' ? ',' : *c;
    for (char *c = column[6]; *c; c++) *c = *c == '|' ? ',' : *c;
    bool good = ok && same_ids(column[5], ids, chunks * 77) &&
                (!weighted || same_weights(column[6], weights, chunks * 77));
    if (!good) print_error("chunks of %s, %s: %.80s\n", column[0], column[1], column[3]);
    mem_free(text);
    return good;
}

static void test_chunks(void **state)
{
    (void)state;
    int good = 0, lines = each_line("tokenizer_chunks.tsv", chunk_row, &good);
    print_message("%d of %d chunk rows\n", good, lines);
    assert_int_equal(lines, 648);
    assert_int_equal(good, lines);
}

static void test_vocabulary(void **state)
{
    (void)state;
    static const uint8_t expected[32] = {
        0x67, 0x60, 0x3c, 0xfd, 0xa2, 0xe0, 0x32, 0xad, 0x77, 0xb5, 0xf8,
        0x80, 0x8a, 0xf3, 0x77, 0x89, 0xd5, 0x90, 0xdb, 0x66, 0x4b, 0x26,
        0xdf, 0x87, 0x05, 0xd2, 0xbf, 0x8b, 0x3c, 0x55, 0x3f, 0xc8,
    };
    size_t n;
    uint8_t sum[32];
    char *text = deflate_unpack_embedded("bpe_simple_vocab_16e6.txt.gz", &n);
    hash_sha256(text, n, sum);
    mem_free(text);
    assert_int_equal(n, 3194984);
    assert_memory_equal(sum, expected, 32);
}

static void test_refusals(void **state)
{
    (void)state;
    int32_t *ids, out[77];
    static const char *const bad[] = { "\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80",
                                       "\xf4\x90\x80\x80" };
    for (int i = 0; i < COUNT_OF(bad); i++)
        assert_int_equal(tokenizer_encode(bad[i], strlen(bad[i]), TOKENIZER_HF, &ids), -1);
    assert_error("not valid UTF-8");
    char *long_text = mem_alloc(2u << 20);
    memset(long_text, 'a', 2u << 20);
    assert_int_equal(tokenizer_encode(long_text, 2u << 20, TOKENIZER_HF, &ids), -1);
    assert_error("too long");
    mem_free(long_text);
    assert_false(tokenizer_chunks("a", 1, TOKENIZER_HF, 77, 49407, out));
    assert_error("multiple of 75");
    assert_false(tokenizer_chunks("a", 1, TOKENIZER_HF, 0, 49407, out));
}

/* Real text that a careless repair would damage. */
static void test_left_alone(void **state)
{
    (void)state;
    static const char *const texts[] = { "CAFÉ®", "VOILÀ »",    "PŘÍŠTÍ ŠANCE",  "Ärger",
                                         "ÇA VA", "naïve café", "Île-de-France", "Ünal",
                                         "Ñandú", "2 × 3 ÷ 4",  "MAÇÃ”" };
    for (int i = 0; i < COUNT_OF(texts); i++) {
        int32_t *clean, *plain;
        char text[64];
        strcpy(text, texts[i]);
        int n = tokenizer_encode(text, strlen(text), TOKENIZER_HF, &clean);
        char *quote = strstr(text, "”");
        if (quote) strcpy(quote, "\"");
        int m = tokenizer_encode(text, strlen(text), TOKENIZER_PLAIN, &plain);
        assert_int_equal(n, m);
        assert_memory_equal(clean, plain, (size_t)n * sizeof *clean);
        mem_free(clean);
        mem_free(plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary), cmocka_unit_test(test_cases),
        cmocka_unit_test(test_chunks),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
