/* SPDX-License-Identifier: MIT
 * test_plug.c - loading plugins: every way to be a bad one is refused with a sentence, the frozen
 * one of the first ABI works, and files are recognised by content. */
#include "support.h"

#include "plug/plug.h"

static char *folder;

static const char *abi(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s.so", TEST_ABI, name);
    return path;
}

static void test_bad_plugins(void **state)
{
    (void)state;
    static const struct {
        const char *file, *says;
    } bad[] = {
        { "bad_no_symbol", "does not export burin_plugin_main" },
        { "bad_refuses", "refused to start: no licence for 100%s" },
        { "bad_refuses_silently", "it gave no reason" },
        { "bad_new_abi", "plugin ABI" },
        { "bad_zero_abi", "plugin ABI 0" },
        { "bad_size", "struct burin_plugin is 24 bytes" },
        { "bad_name", "the plugin has no name" },
        { "bad_loader_size", "a loader is 16 bytes" },
        { "bad_loader_name", "a loader has no name" },
        { "bad_loader_read", "the loader \"bad-loader\" lacks the required callback \"read\"" },
        { "bad_exporter_put", "lacks the required callback \"put\"" },
        { "bad_source_item", "lacks the required callback \"item\"" },
        { "bad_option", "option \"what\"" },
        { "bad_codec_decode", "lacks the required callback \"decode\"" },
    };
    for (int i = 0; i < COUNT_OF(bad); i++) {
        int before = plug_count();
        assert_false(plug_load(abi(bad[i].file)));
        assert_error(bad[i].says);
        assert_error(bad[i].file); /* the path */
        assert_int_equal(plug_count(), before);
    }
}

static void test_no_library(void **state)
{
    (void)state;
    const char *text = in_folder(folder, "text.so"), *empty = in_folder(folder, "empty.so");
    assert_true(file_write(text, "hello", 5));
    assert_false(plug_load(text));
    assert_error("not an ELF");
    assert_error("text.so");
    assert_true(file_write(empty, "", 0));
    assert_false(plug_load(empty));
    assert_error("not an ELF");
    assert_false(plug_load(in_folder(folder, "absent.so")));
    assert_error("absent.so");

    struct file_map m;
    assert_true(file_map_open(&m, abi("plugin_v1")));
    const char *cut = in_folder(folder, "cut.so");
    assert_true(file_write(cut, m.data, 40));
    file_map_close(&m);
    assert_false(plug_load(cut));
    assert_error("cannot load the plugin");
    assert_error("cut.so");
}

/* A folder with bad ones in it: they are left out, the good one is loaded. */
static void test_folder(void **state)
{
    (void)state;
    struct file_map m;
    char *some = make_folder();
    assert_true(file_map_open(&m, abi("plugin_v1")));
    assert_true(file_write(in_folder(some, "good.so"), m.data, m.bytes));
    file_map_close(&m);
    assert_true(file_write(in_folder(some, "bad.so"), "bad", 3));
    assert_true(file_write(in_folder(some, "readme.txt"), "bad", 3));
    log_threshold = LOG_QUIET;
    assert_int_equal(plug_load_dir(some), 1);
    assert_int_equal(plug_load_dir(in_folder(some, "absent")), 0);
    assert_int_equal(plug_load_dir(some), 1); /* the same file again is no second plugin */
    log_threshold = LOG_INFO;
    assert_int_equal(plug_count(), 1);
    assert_string_equal(plug_at(0)->plugin->name, "plugin-v1");
    assert_null(plug_at(1));
    assert_null(plug_at(-1));
    assert_false(plug_load(abi("plugin_v1")));
    assert_error("already loaded");
    remove_folder(some);
}

static void test_first_abi(void **state)
{
    (void)state;
    const char *path = in_folder(folder, "one.bin");
    assert_true(file_write(path, "ABI-ONE!", 8));
    const struct burin_loader *l = plug_loader_for(path);
    assert_non_null(l);
    assert_string_equal(l->name, "abi-one");
    assert_null(l->meta);
    void *self = NULL;
    struct burin_tensor_info info;
    float value[3];
    assert_int_equal(l->open(path, &self), 0);
    assert_int_equal(l->count(self), 1);
    assert_int_equal(l->info(self, 0, &info), 0);
    assert_string_equal(info.name, "one");
    assert_int_equal(l->read(self, 0, value, sizeof value), 0);
    assert_true(value[2] == 3);
    assert_int_equal(l->read(self, 1, value, sizeof value), -1);
    assert_error("v1 has only 12 bytes");
    l->close(self);
    l->close(NULL);
}

static void test_template(void **state)
{
    (void)state;
    const char *path = in_folder(folder, "v.txt");
    assert_true(plug_load(TEST_PLUGINS "/template.so"));
    assert_true(file_write(path, "VECTOR 2 1.5 -2", 15));
    const struct burin_loader *l = plug_loader_for(path);
    assert_non_null(l);
    void *self = NULL;
    float value[2];
    struct burin_tensor_info info;
    assert_int_equal(l->open(path, &self), 0);
    assert_int_equal(l->info(self, 0, &info), 0);
    assert_int_equal(info.bytes, 8);
    assert_int_equal(l->read(self, 0, value, 4), -1);
    assert_int_equal(l->read(self, 0, value, 8), 0);
    assert_true(value[0] == 1.5f && value[1] == -2);
    l->close(self);
    static const char *const bad[] = { "VECTOR 3 1 2", "VECTOR -1 ", "VECTOR 99999999999 1",
                                       "VECTOR x" };
    for (int i = 0; i < COUNT_OF(bad); i++) {
        assert_true(file_write(path, bad[i], strlen(bad[i])));
        assert_int_equal(l->open(path, &self), -1);
        assert_error("v.txt");
    }
}

static void test_recognised(void **state)
{
    (void)state;
    static const struct {
        const char *content;
        size_t n;
        const char *says;
    } files[] = {
        { "", 0, "is empty" },
        { "version https://git-lfs.github.com/spec/v1\noid", 46, "git-lfs pointer" },
        { "<!DOCTYPE html><html>", 21, "an HTML page" },
        { "<?xml version='1.0'?><Error>", 28, "an XML document" },
        { "PK\003\004abc", 7, "zip archive" },
        { "\200\002}q\001", 5, "pickle" },
        { "GGUF\003\0\0\0", 8, "a GGUF file" },
        { "{\"a\": 1}", 8, "a JSON document" },
        { "\037\213\010\0", 4, "gzip" },
        { "random words", 12, "no known model format" },
    };
    for (int i = 0; i < COUNT_OF(files); i++) {
        const char *path = in_folder(folder, "model.safetensors");
        assert_true(file_write(path, files[i].content, files[i].n));
        assert_null(plug_loader_for(path));
        assert_error(files[i].says);
        assert_error("model formats that can be read: abi-one, vector");
    }
    assert_null(plug_loader_for(in_folder(folder, "absent")));
    assert_error("absent");
    assert_null(plug_loader_for(folder));
    assert_error("is a folder");
    assert_null(plug_loader_for("/dev/null"));
    assert_null(plug_source_for(in_folder(folder, "absent")));
    assert_error("dataset");
    assert_null(plug_codec_for((const uint8_t *)"GIF89a", 6));
    assert_error("a GIF image");
    assert_null(plug_exporter("safetensor"));
    assert_error("none, because no such plugin is loaded");
    assert_true(plug_load(TEST_PLUGINS "/safetensors.so"));
    assert_null(plug_exporter("safetensor"));
    assert_error("did you mean \"safetensors\"?");
    assert_non_null(plug_exporter("safetensors"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_plugins), cmocka_unit_test(test_no_library),
        cmocka_unit_test(test_folder),      cmocka_unit_test(test_first_abi),
        cmocka_unit_test(test_template),    cmocka_unit_test(test_recognised),
    };
    folder = make_folder();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_folder(folder);
    return failed;
}
