/* SPDX-License-Identifier: MIT
 * test_verdicts.c - the verdicts of the reference implementation of safetensors, recorded in
 * tests/data/safetensors_verdicts.tsv: ours are the same, or stricter with the reason that stands
 * there. How a line describes a file is said in tests/oracle/safetensors_verdicts.py. */
#include "plugin_test.h"

enum { CLASS, WHAT, VERDICT, WHY, LENGTH, HEADER, ZEROS, COLUMNS };

static const struct burin_loader *loader;

/* The bytes that text[0 .. n) stands for: \\, \xNN, \(N*text). */
static void decode(const char *text, size_t n, struct str *out)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\\') {
            str_add_bytes(out, text + i, 1);
        } else if (text[++i] == '\\') {
            str_add_bytes(out, "\\", 1);
        } else if (text[i] == 'x') {
            unsigned byte;
            assert_int_equal(sscanf(text + i + 1, "%2x", &byte), 1);
            str_add_bytes(out, &(char){ (char)byte }, 1);
            i += 2;
        } else {
            char *star;
            assert_int_equal(text[i], '(');
            long times = strtol(text + i + 1, &star, 10);
            const char *end = strchr(star, ')');
            assert_true(*star == '*' && end && end < text + n);
            for (long k = 0; k < times; k++) decode(star + 1, (size_t)(end - star - 1), out);
            i = (size_t)(end - text);
        }
    }
}

static const char *make_file(char *const *column)
{
    struct str header = { 0 }, file = { 0 };
    decode(column[HEADER], strlen(column[HEADER]), &header);
    if (strcmp(column[LENGTH], "none") != 0) {
        bool automatic = strcmp(column[LENGTH], "auto") == 0;
        uint64_t n = automatic ? header.len : strtoull(column[LENGTH], NULL, 10);
        for (int i = 0; i < 8; i++) str_add_bytes(&file, &(char){ (char)(n >> (8 * i)) }, 1);
    }
    str_add(&file, "");
    if (header.len) str_add_bytes(&file, header.data, header.len);
    const char *path = put_file("case.safetensors", file.data, file.len);
    assert_int_equal(truncate(path, (off_t)file.len + strtol(column[ZEROS], NULL, 10)), 0);
    str_finish(&header);
    str_finish(&file);
    return path;
}

/* Whether our verdict is the recorded one, or a stricter one that has its reason. */
static bool agrees(char *const *column)
{
    bool ours = opens(loader, make_file(column));
    bool theirs = strcmp(column[VERDICT], "accepts") == 0;
    bool stricter = strcmp(column[WHY], "-") != 0;
    assert_true(theirs || strcmp(column[VERDICT], "refuses") == 0);
    if (ours == (theirs && !stricter)) return true;
    print_error("%s, %s: the reference %s it, Burin %s it; reason to be stricter: %s; %s\n",
                column[CLASS], column[WHAT], column[VERDICT], ours ? "accepts" : "refuses",
                column[WHY], ours ? "" : burin_error());
    return false;
}

static void test_verdicts(void **state)
{
    (void)state;
    struct str table = { 0 };
    int files = 0, wrong = 0, number = 0, classes = 0;
    assert_true(file_read(test_data("safetensors_verdicts.tsv"), 1 << 20, &table));
    for (char *line = table.data, *next; (next = strchr(line, '\n')) != NULL; line = next + 1) {
        char *column[COLUMNS], *at = line;
        *next = 0;
        if (*line == '#') continue;
        for (int i = 0; i < COLUMNS; i++) {
            assert_non_null(at);
            column[i] = at;
            at = strchr(at, '\t');
            if (at) *at++ = 0;
        }
        assert_null(at);
        if (strtol(column[CLASS] + 1, NULL, 10) != number) classes++;
        number = (int)strtol(column[CLASS] + 1, NULL, 10);
        if (!agrees(column)) wrong++;
        files++;
    }
    str_finish(&table);
    assert_int_equal(wrong, 0);
    assert_int_equal(classes, 35); /* S36 changes while it is read: test_safetensors.c */
    assert_true(files >= 68);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_verdicts) };
    loader = load_plugin("safetensors")->loaders[0];
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
