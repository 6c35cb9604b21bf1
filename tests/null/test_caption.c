/* SPDX-License-Identifier: MIT
 * test_caption.c - caption files in every encoding people have, and what an item's caption is. */
#include "support.h"

#include "burin_plugin.h"
#include "data/data.h"

static char *folder;

static const char *save(const char *bytes, size_t n)
{
    const char *path = in_folder(folder, "x.txt");
    assert_true(file_write(path, bytes, n));
    return path;
}

static void reads(const char *bytes, size_t n, const char *expected)
{
    char *text = caption_load(save(bytes, n));
    if (!text) {
        print_error("\"%s\" was refused: %s\n", expected, burin_error());
        _fail(__FILE__, __LINE__);
    }
    assert_string_equal(text, expected);
    mem_free(text);
}
#define READS(literal, expected) reads(literal, sizeof literal - 1, expected)

static void refuses(const char *bytes, size_t n, const char *says)
{
    assert_null(caption_load(save(bytes, n)));
    assert_error("x.txt");
    assert_error(says);
}
#define REFUSES(literal, says) refuses(literal, sizeof literal - 1, says)

static void test_accepted(void **state)
{
    (void)state;
    READS("", "");
    READS("a cat", "a cat");
    READS("a cat\n", "a cat");
    READS("a cat\r\n", "a cat");
    READS("a cat\r", "a cat");
    READS("a cat  \t\r\nsecond line", "a cat\nsecond line");
    READS("\nsecond line", "second line");
    READS(" \t\r\n\r\n  one \n \n\rtwo\t\n", "  one\ntwo");
    READS(" \n\t\r\n", "");
    READS("\xef\xbb\xbf"
          "caf\xc3\xa9\n",
          "caf\xc3\xa9");
    READS("\xef\xbb\xbf", "");
    READS("\xff\xfe"
          "c\0a\0t\0\r\0\n\0x\0",
          "cat\nx");
    READS("\xfe\xff"
          "\0c\0a\0t",
          "cat");
    READS("\xff\xfe", "");
    READS("\xff\xfe"
          "\x3d\xd8\x00\xde",
          "\xf0\x9f\x98\x80");
    READS("\xfe\xff"
          "\xd8\x3d\xde\x00"
          "\x4e\x2d",
          "\xf0\x9f\x98\x80\xe4\xb8\xad");
    READS("\xe4\xb8\xad\xe6\x96\x87", "\xe4\xb8\xad\xe6\x96\x87");
}

static void test_refused(void **state)
{
    (void)state;
    REFUSES("caf\xe9 au lait", "looks like Windows-1252 or Latin-1");
    REFUSES("\xd6\xd0\xce\xc4\xb1\xea\xc7\xa9", "looks like GBK, Big5 or Shift-JIS");
    REFUSES("c\0a\0t\0s\0", "looks like UTF-16 (little-endian) without its mark");
    REFUSES("\0c\0a\0t\0s", "looks like UTF-16 (big-endian) without its mark");
    REFUSES("a caption with one \0 in it, then more", "binary data");
    REFUSES("\xff\xfe\0\0c\0\0\0", "UTF-32");
    REFUSES("\0\0\xfe\xff\0\0\0c", "UTF-32");
    REFUSES("\xff\xfe"
            "c",
            "begins like UTF-16");
    REFUSES("\xff\xfe\x3d\xd8"
            "a\0",
            "begins like UTF-16");
    REFUSES("\xff\xfe\x3d\xd8", "begins like UTF-16");
    REFUSES("\xff\xfe\0\xde", "begins like UTF-16");
    REFUSES("\xff\xfe"
            "a\0\0\0",
            "NUL");
    REFUSES("\xed\xa0\x80", "not UTF-8");
    assert_null(caption_load(in_folder(folder, "absent.txt")));
    assert_error("absent.txt");
    char *large = mem_alloc(300000);
    memset(large, 'a', 300000);
    refuses(large, 300000, "larger than");
    mem_free(large);
}

static void test_item(void **state)
{
    (void)state;
    const char *path = save("from the file", 13);
    struct burin_item item = {
        .path = "x.png",
        .caption = "its own \r\n",
        .class_tokens = "dog",
        .caption_path = path,
    };
    char *text = caption_of(&item);
    assert_string_equal(text, "its own");
    mem_free(text);
    item.caption = NULL;
    text = caption_of(&item);
    assert_string_equal(text, "from the file");
    mem_free(text);
    item.caption_path = NULL;
    text = caption_of(&item);
    assert_string_equal(text, "dog");
    mem_free(text);
    item.class_tokens = NULL;
    text = caption_of(&item);
    assert_string_equal(text, "");
    mem_free(text);
    item.caption_path = in_folder(folder, "absent.txt");
    assert_null(caption_of(&item)); /* a caption that cannot be read is no missing caption */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_item),
    };
    folder = make_folder();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_folder(folder);
    return failed;
}
