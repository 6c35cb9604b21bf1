/* SPDX-License-Identifier: MIT
 * test_folder.c - the folder source: the three layouts, captions, options, what is left out and
 * why. */
#include "support.h"

#include "plug/plug.h"

#include <sys/stat.h>

static const struct burin_source *source;

enum { REPEATS, CAPTION_EXT, RECURSIVE };

/* Folders on the way are made too. */
static void touch(const char *folder, const char *name)
{
    char *path = str_dup(in_folder(folder, name)), *slash = strrchr(path, '/');
    *slash = 0;
    assert_true(file_make_dirs(path));
    *slash = '/';
    assert_true(file_write(path, "x", 1));
    mem_free(path);
}

static void *opened(const char *location, double repeats, const char *ext, bool recursive)
{
    const struct burin_value values[] = { { .number = repeats },
                                          { .string = ext },
                                          { .number = recursive } };
    void *self = NULL;
    if (source->open(location, values, &self) != 0) {
        print_error("%s\n", burin_error());
        _fail(__FILE__, __LINE__);
    }
    return self;
}

/* expected: "path|caption path or -|class tokens or -|repeats", in order; paths without the folder.
 */
static void items(void *self, const char *folder, const char *const *expected)
{
    int64_t i = 0;
    for (; expected[i]; i++) {
        struct burin_item item;
        char line[4096];
        size_t n = strlen(folder) + 1;
        assert_int_equal(source->item(self, i, &item), 0);
        assert_null(item.caption);
        snprintf(line, sizeof line, "%s|%s|%s|%d", item.path + n,
                 item.caption_path ? item.caption_path + n : "-",
                 item.class_tokens ? item.class_tokens : "-", item.repeats);
        assert_string_equal(line, expected[i]);
    }
    assert_int_equal(source->count(self), i);
    struct burin_item item;
    assert_int_equal(source->item(self, i, &item), -1);
    assert_int_equal(source->item(self, -1, &item), -1);
}

/* "path: part of the reason" pairs, in any order, and how many others there are. */
static void skipped_and(void *self, const char *folder, const char *const (*expected)[2],
                        int64_t others)
{
    int64_t n = 0, found = 0;
    const char *path, *reason;
    for (; expected[n][0]; n++)
        for (int64_t i = 0; source->skipped(self, i, &path, &reason); i++)
            found += strcmp(path + strlen(folder) + 1, expected[n][0]) == 0 &&
                     strstr(reason, expected[n][1]);
    assert_int_equal(found, n);
    assert_int_equal(source->skipped(self, n + others - 1, &path, &reason), n + others > 0);
    assert_int_equal(source->skipped(self, n + others, &path, &reason), 0);
}

static void skipped(void *self, const char *folder, const char *const (*expected)[2])
{
    skipped_and(self, folder, expected, 0);
}

static void test_plain(void **state)
{
    (void)state;
    char *folder = make_folder();
    static const char *const files[] = { "b.png",     "B.JPG",    "a.jpeg",      "a.txt",
                                         "b.caption", "c.bmp",    "c.txt",       "c.caption",
                                         "n.webp",    "notes.md", ".hidden.png", "sub/z.png",
                                         "tall.PnG",  "no_ext" };
    for (int i = 0; i < COUNT_OF(files); i++) touch(folder, files[i]);
    assert_int_equal(symlink("nowhere", in_folder(folder, "broken.png")), 0);
    assert_true(file_write(in_folder(folder, "empty.png"), "", 0));
    assert_ptr_equal(plug_source_for(folder), source);
    void *self = opened(folder, 0, NULL, false);
    items(self, folder,
          (const char *const[]){ "B.JPG|-|-|1", "a.jpeg|a.txt|-|1", "b.png|b.caption|-|1",
                                 "c.bmp|c.txt|-|1", "tall.PnG|-|-|1", NULL });
    skipped(self, folder,
            (const char *const[][2]){ { "n.webp", "not supported" },
                                      { "sub", "it can be a concept of its own: { images = \"" },
                                      { "broken.png", "cannot be opened" },
                                      { "empty.png", "is empty" },
                                      { NULL, NULL } });
    source->close(self);

    self = opened(folder, 3, "caption", true);
    items(self, folder,
          (const char *const[]){ "B.JPG|-|-|3", "a.jpeg|-|-|3", "b.png|b.caption|-|3",
                                 "c.bmp|c.caption|-|3", "sub/z.png|-|-|3", "tall.PnG|-|-|3",
                                 NULL });
    source->close(self);
    self = opened(folder, 0, ".txt", false);
    source->close(self);
    source->close(NULL);
    /* A loop of links ends. */
    assert_int_equal(symlink("..", in_folder(folder, "sub/up")), 0);
    self = opened(folder, 0, "", true);
    assert_true(source->count(self) > 6);
    source->close(self);
    remove_folder(folder);
}

static void test_numbered(void **state)
{
    (void)state;
    char *folder = make_folder();
    static const char *const files[] = {
        "10_sks dog/1.png",      "10_sks dog/1.txt",    "2_a_b/2.jpg", "3_/3.png",
        "plain/4.png",           "0_zero/5.png",        "x_6/6.png",   "loose.png",
        "10_sks dog/deep/7.png", "99999999999_z/8.png", "notes.txt",   "1000_y/9.png",
        "1001_y/9.png"
    };
    for (int i = 0; i < COUNT_OF(files); i++) touch(folder, files[i]);
    void *self = opened(folder, 0, NULL, false);
    items(self, folder,
          (const char *const[]){ "1000_y/9.png|-|y|1000", "1001_y/9.png|-|y|1",
                                 "10_sks dog/1.png|10_sks dog/1.txt|sks dog|10",
                                 "2_a_b/2.jpg|-|a_b|2", "3_/3.png|-|-|3",
                                 "99999999999_z/8.png|-|z|1", NULL });
    skipped(self, folder,
            (const char *const[][2]){ { "plain", "number of repeats" },
                                      { "0_zero", "number of repeats" },
                                      { "x_6", "number of repeats" },
                                      { "loose.png", "move it" },
                                      { "10_sks dog/deep", "sub-folders" },
                                      { NULL, NULL } });
    const char *text;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(source->remark(self, i, &text), 1);
        assert_non_null(strstr(text, i ? "99999999999_z: a number above 1000" : "1001_y: "));
    }
    assert_int_equal(source->remark(self, 2, &text), 0);
    source->close(self);
    self = opened(folder, 5, NULL, true);
    assert_int_equal(source->remark(self, 0, &text), 0);
    items(self, folder,
          (const char *const[]){ "1000_y/9.png|-|y|5", "1001_y/9.png|-|y|5",
                                 "10_sks dog/1.png|10_sks dog/1.txt|sks dog|5",
                                 "10_sks dog/deep/7.png|-|sks dog|5", "2_a_b/2.jpg|-|a_b|5",
                                 "3_/3.png|-|-|5", "99999999999_z/8.png|-|z|5", NULL });
    source->close(self);
    const char *one = in_folder(folder, "10_sks dog/"); /* such a folder itself, with a slash */
    self = opened(one, 0, NULL, false);
    items(self, in_folder(folder, "10_sks dog"),
          (const char *const[]){ "1.png|1.txt|sks dog|10", NULL });
    source->close(self);
    remove_folder(folder);
}

/* What a file is, its content says, whatever its name; where it does not, the name. */
static void test_content(void **state)
{
    (void)state;
    char *folder = make_folder();
    static const char png[] = "\x89PNG\r\n\x1a\n", jpeg[] = "\xff\xd8\xff\xe0",
                      webp[] = "RIFF\x1a\0\0\0WEBPVP8 ", tiff[] = "II*";
    static const struct {
        const char *name, *bytes;
        size_t n;
    } files[] = {
        { "a.jfif", jpeg, 4 },   { "b.JPE", jpeg, 4 },   { "c.webp", png, 8 }, { "d", png, 8 },
        { "e.png", webp, 16 },   { "f.webp", webp, 16 }, { "g.dat", tiff, 4 }, { "h.md", "MM", 2 },
        { "._a.jfif", jpeg, 4 }, { ".i.png", png, 8 },   { "j.npz", "PK", 2 },
    };
    for (int i = 0; i < COUNT_OF(files); i++)
        assert_true(file_write(in_folder(folder, files[i].name), files[i].bytes, files[i].n));
    void *self = opened(folder, 0, NULL, false);
    items(self, folder,
          (const char *const[]){ "a.jfif|-|-|1", "b.JPE|-|-|1", "c.webp|-|-|1", "d|-|-|1", NULL });
    skipped(self, folder,
            (const char *const[][2]){ { "e.png", "it is a WebP image" },
                                      { "f.webp", "it is a WebP image" },
                                      { "g.dat", "it is a TIFF image" },
                                      { NULL, NULL } });
    source->close(self);
    remove_folder(folder);
}

static void test_captions(void **state)
{
    (void)state;
    char *folder = make_folder();
    static const char *const files[] = {
        "a.png",     "a.TXT",     "b.png", "b.png.txt",     "c.png",     "c.caption",
        "d.png",     "d.txt",     "d.TXT", "d.caption",     "e.jpg",     "e.png",
        "e.jpg.txt", "e.png.txt", "f.png", "F.txt",         "alone.txt", "g.png.caption",
        "h.webp",    "h.txt",     "i.png", "i.png.caption", ".txt",
    };
    for (int i = 0; i < COUNT_OF(files); i++) touch(folder, files[i]);
    void *self = opened(folder, 0, NULL, false);
    items(self, folder,
          (const char *const[]){ "a.png|a.TXT|-|1", "b.png|b.png.txt|-|1", "c.png|c.caption|-|1",
                                 "d.png|d.txt|-|1", "e.jpg|e.jpg.txt|-|1", "e.png|e.png.txt|-|1",
                                 "f.png|-|-|1", "i.png|i.png.caption|-|1", NULL });
    skipped(self, folder,
            (const char *const[][2]){ { "F.txt", "a caption without a picture" },
                                      { "alone.txt", "a caption without a picture" },
                                      { "g.png.caption", "a caption without a picture" },
                                      { "h.webp", "not supported" },
                                      { NULL, NULL } });
    source->close(self);
    remove_folder(folder);
}

static void test_refusals(void **state)
{
    (void)state;
    char *folder = make_folder();
    void *self;
    assert_int_equal(source->open(folder, NULL, &self), -1);
    assert_error("no images found");
    touch(folder, "a.webp");
    assert_int_equal(source->open(folder, NULL, &self), -1);
    assert_error("1 files or folders were left out, the first is ");
    assert_error("a.webp: this image format");
    assert_int_equal(source->open(in_folder(folder, "absent"), NULL, &self), -1);
    assert_error("absent");
    assert_int_equal(source->probe(in_folder(folder, "a.webp")), 0);
    assert_int_equal(source->probe(in_folder(folder, "absent")), 0);
    remove_folder(folder);
}

/* More than a list begins with, names that are no names, and what is no regular file. */
static void test_odd(void **state)
{
    (void)state;
    char *folder = make_folder();
    char name[32];
    for (int i = 0; i < 130; i++) {
        snprintf(name, sizeof name, "5_a/%03d.png", i);
        touch(folder, name);
        snprintf(name, sizeof name, "5_a/%03d.webp", i);
        touch(folder, name);
    }
    static const char *const files[] = { "5_a/ends.",     "5_b/x.png",   "5_b/notes", "loose.txt",
                                         "7_a_file",      "12345/y.png", "_z/z.png",  "9_c/.hidden",
                                         "loose.caption", "loose.webp" };
    for (int i = 0; i < COUNT_OF(files); i++) touch(folder, files[i]);
    static const char *const pipes[] = { "5_b/pipe.png", "5_b/pipe.webp", "5_b/pipe", "pipe.png" };
    for (int i = 0; i < COUNT_OF(pipes); i++)
        assert_int_equal(mkfifo(in_folder(folder, pipes[i]), 0600), 0);
    assert_int_equal(symlink("nowhere", in_folder(folder, "broken")), 0);
    assert_int_equal(symlink("nowhere", in_folder(folder, "6_broken")), 0);
    void *self = opened(folder, 0, NULL, false);
    assert_int_equal(source->count(self), 131);
    skipped_and(self, folder,
                (const char *const[][2]){ { "5_a/129.webp", "not supported" },
                                          { "5_b/pipe.png", "not a regular file" },
                                          { "5_b/pipe.webp", "not a regular file" },
                                          { "pipe.png", "move it into one of them" },
                                          { "loose.webp", "move it into one of them" },
                                          { "12345", "number of repeats" },
                                          { "_z", "number of repeats" },
                                          { NULL, NULL } },
                129);
    const char *path, *reason;
    assert_int_equal(source->skipped(self, -1, &path, &reason), 0);
    assert_int_equal(source->remark(self, -1, &path), 0);
    source->close(self);
    snprintf(name, sizeof name, "5_b//");
    self = opened(in_folder(folder, name), 0, NULL, false); /* slashes at the end */
    assert_int_equal(source->count(self), 1);
    source->close(self);
    touch(folder, "10/only.png"); /* a name without its mark */
    self = opened(in_folder(folder, "10"), 0, NULL, false);
    items(self, in_folder(folder, "10"), (const char *const[]){ "only.png|-|-|1", NULL });
    source->close(self);
    remove_folder(folder);
}

/* A folder of the working folder's, and one that vanishes is an error. */
static void test_places(void **state)
{
    (void)state;
    char *folder = make_folder(), *before = getcwd(NULL, 0);
    touch(folder, "3_x/a.png");
    assert_int_equal(chdir(folder), 0);
    void *self = opened("3_x", 0, NULL, false);
    struct burin_item item;
    assert_int_equal(source->item(self, 0, &item), 0);
    assert_string_equal(item.path, "3_x/a.png");
    assert_int_equal(item.repeats, 3);
    source->close(self);
    assert_int_equal(source->open("4_absent", NULL, &self), -1);
    assert_error("cannot read the folder 4_absent");
    assert_int_equal(source->open("", NULL, &self), -1);
    assert_int_equal(chdir(before), 0);
    free(before);
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),    cmocka_unit_test(test_numbered),
        cmocka_unit_test(test_content),  cmocka_unit_test(test_captions),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_odd),
        cmocka_unit_test(test_places),
    };
    if (!plug_load(TEST_PLUGINS "/folder.so") || !plug_load(TEST_PLUGINS "/stb_image.so")) {
        print_error("%s\n", burin_error());
        return 1;
    }
    source = plug_at(0)->plugin->sources[0];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
