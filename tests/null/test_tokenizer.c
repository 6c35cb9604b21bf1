/* SPDX-License-Identifier: MIT
 * test_tokenizer.c - the tokenizer against ids from the systems that use it:
 *   tests/data/tokenizer_cases.tsv   499 texts: Hugging Face with ftfy, OpenAI's, plain, pad token
 * "!" tests/data/tokenizer_chunks.tsv  648 rows of 77 ids as sd-scripts makes them, 81 with weights
 */
#include "support.h"

#include "data/data.h"
#include "data/deflate.h"
#include "data/text.h"

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
                                         "Ñandú", "2 × 3 ÷ 4",  "MAÇÃ”",         "MAÇÃ»" };
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

/* Whether a text means the same tokens as another, which nothing is done to. */
static void means(const char *text, size_t n, enum tokenizer_flavour flavour, const char *same)
{
    int32_t *a, *b;
    int k = tokenizer_encode(text, n, flavour, &a),
        m = tokenizer_encode(same, strlen(same), TOKENIZER_PLAIN, &b);
    assert_true(k >= 0 && m >= 0);
    if (k != m || memcmp(a, b, (size_t)k * sizeof *a) != 0) {
        print_error("\"%.*s\" is not taken for \"%s\"\n", (int)n, text, same);
        _fail(__FILE__, __LINE__);
    }
    mem_free(a);
    mem_free(b);
}

static void means_text(const char *text, enum tokenizer_flavour flavour, const char *same)
{
    means(text, strlen(text), flavour, same);
}

/* White space is what Python's \s matches; strip() takes four separators more. */
static void test_spaces(void **state)
{
    (void)state;
    static const int32_t spaces[] = { 9,      10,     11,     12,     13,     0x20,
                                      0x85,   0xa0,   0x1680, 0x2000, 0x2005, 0x200a,
                                      0x2028, 0x2029, 0x202f, 0x205f, 0x3000 },
                         others[] = { 8,      14,     0x84,   0x86,   0x9f,   0xa1,
                                      0x167f, 0x1681, 0x1fff, 0x200b, 0x2027, 0x202a,
                                      0x202e, 0x2030, 0x205e, 0x2060, 0x2fff, 0x3001 };
    for (int i = 0; i < COUNT_OF(spaces) + COUNT_OF(others); i++) {
        bool space = i < COUNT_OF(spaces);
        struct str s = { 0 };
        int32_t *ids, c = space ? spaces[i] : others[i - COUNT_OF(spaces)];
        text_encode(&c, 1, &s);
        str_add(&s, "a");
        text_encode(&c, 1, &s);
        text_encode(&c, 1, &s);
        str_add(&s, "b");
        text_encode(&c, 1, &s);
        if (space) means(s.data, s.len, TOKENIZER_PLAIN, "a b");
        else assert_true(tokenizer_encode(s.data, s.len, TOKENIZER_PLAIN, &ids) > 2);
        if (!space) mem_free(ids);
        str_finish(&s);
    }
    means("\x1c\x1d a\x1e\x1f", 6, TOKENIZER_PLAIN, "a");
}

/* As Python 3.11's str.lower has it: a sigma is final behind a cased letter and before none,
 * whatever stands between that has no case. */
static void test_lower(void **state)
{
    (void)state;
    static const char *const before[] = {
        /* alone before a sigma: final or not */
        "\u0391", "\u03b1\u03c2", "\u00aa", "\u00aa\u03c2", "\u00ba", "\u00ba\u03c2",
        "\u2160", "\u2170\u03c2", "\u217f", "\u217f\u03c2", "\u24b6", "\u24d0\u03c2",
        "\u24e9", "\u24e9\u03c2", "\u01c5", "\u01c6\u03c2", "A",      "a\u03c2",
        "a",      "a\u03c2",      "\u02b0", "\u02b0\u03c3", "\u24ea", "\u24ea\u03c3",
        "\u2180", "\u2180\u03c3", "\u00b2", "\u00b2\u03c3", ".",      ".\u03c3",
        "",       "\u03c3",       "7",      "7\u03c3"
    };
    static const char *const ignored[] = { "",       "'",      ".",      ":",      "\u00b7",
                                           "\u0387", "\u2018", "\u2019", "\u2024", "\u2027",
                                           "\u0301", "\u20dd", "\u00ad", "\u02b9", "^",
                                           ".'",     "\u02b0" },
                             *const counted[] = { ",", "\u2013", " ", "\u2017", "\u2023", "7" };
    for (int i = 0; i < COUNT_OF(before); i += 2) {
        char text[16];
        snprintf(text, sizeof text, "%s\u03a3", before[i]);
        means_text(text, TOKENIZER_PLAIN, before[i + 1]);
    }
    for (int i = 0; i < COUNT_OF(ignored) + COUNT_OF(counted); i++) {
        char text[32], lower[32];
        bool skipped = i < COUNT_OF(ignored);
        const char *c = skipped ? ignored[i] : counted[i - COUNT_OF(ignored)];
        snprintf(text, sizeof text, "\u0391%s\u03a3", c);
        snprintf(lower, sizeof lower, "\u03b1%s%s", c, skipped ? "\u03c2" : "\u03c3");
        means_text(text, TOKENIZER_PLAIN, lower);
        snprintf(text, sizeof text, "\u0391\u03a3%s\u0391", c);
        snprintf(lower, sizeof lower, "\u03b1%s%s\u03b1", skipped ? "\u03c3" : "\u03c2", c);
        means_text(text, TOKENIZER_PLAIN, lower);
    }
    means_text("\u0130", TOKENIZER_PLAIN, "i\u0307");
}

/* What the repair of characters leaves, and what not. */
static void test_cleaned(void **state)
{
    (void)state;
    static const char *const pairs[] = {
        "\ufb05op \ufb06op",
        "\u017ftop stop",
        "\uff21\uff42\uff03 \uffe0\uff61",
        "Ab# \u00a2\u3002",
        "\u01c4\u01c5\u01c6",
        "D\u017dD\u017ed\u017e",
        "a\u3000b",
        "a b",
        "\u02bca\u2018b\u2019c\u201ad\u201be\u2017",
        "'a'b'c'd'e\u2017",
        "\u201ca\u201db\u201ec\u201fd\u2020",
        "\"a\"b\"c\"d\u2020",
        "a\u2028b\u2029c",
        "a\nb\nc",
        "a\x01\x08\x0b\x0e\x1f\x7f"
        "b",
        "ab",
        "a\u206a\u206f\ufeff\ufff9\ufffc"
        "b\ufffd\u2070\ufff8",
        "ab\ufffd\u2070\ufff8",
        "\x1b[1;31mred\x1b[0m \x1b[Kx",
        "red x",
        "\x1b[1;3",
        "[1;3",
        "\x1b[\u00e9",
        "[\u00e9",
        "\x1b[1 m \x1b]x \x1b[",
        "[1 m ]x [",
        "a\rb\r\nc\nd\r",
        "a\nb\nc\nd",
        "&lt;a&gt; &#x41;&#66;&eacute;",
        "<a> AB\u00e9",
        "\u00e2\u20ac\u2122",
        "'",
        "\xc3\x90\xc2\x91\xc3\x90\xc2\xb0",
        "\u0411\u0430",
        "caf\u00c3\u00a9",
        "caf\u00e9",
        "e\u0301",
        "\u00e9",
    };
    for (int i = 0; i < COUNT_OF(pairs); i += 2) means_text(pairs[i], TOKENIZER_HF, pairs[i + 1]);
}

/* References as HTML has them, which OpenAI's own preparation knows, twice. */
static void test_references(void **state)
{
    (void)state;
    static const char *const pairs[] = {
        "&eacute &eacute; &EACUTE;",
        "\u00e9 \u00e9 \u00c9",
        "&amp;lt;",
        "<",
        "&#65 &#65; &#x41; &#X4a;",
        "A A A J",
        "&# &#; &#x; &#xg; & &;",
        "&# &#; &#x; &#xg; & &;",
        "&#0; &#xd800; &#xdfff; &#x110000; &#99999999999;",
        "\ufffd \ufffd \ufffd \ufffd \ufffd",
        "a&#1;b&#11;c&#14;d&#31;e&#127;f&#xfdd0;g&#xfdef;h&#xffff;i&#x1fffe;j",
        "abcdefghij",
        "&#x80;&#x9f;",
        "\u20ac\u0178",
        "&notit; &unknown; &UnKnown; &UNKNOWN;",
        "\u00acit; &unknown; &UnKnown; &UNKNOWN;",
        "&CounterClockwiseContourIntegral;",
        "\u2233",
        "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;",
        "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;",
    };
    for (int i = 0; i < COUNT_OF(pairs); i += 2)
        means_text(pairs[i], TOKENIZER_OPENAI, pairs[i + 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary), cmocka_unit_test(test_cases),
        cmocka_unit_test(test_chunks),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_left_alone), cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_lower),      cmocka_unit_test(test_cleaned),
        cmocka_unit_test(test_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
