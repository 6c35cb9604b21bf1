/* SPDX-License-Identifier: MIT
 * test_confine.c - where a confined process may write: by the kernel's rules, and as old kernels
 * have it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "burin.h"

static char top[] = "/tmp/burin-confine-XXXXXX";

static const char *in(const char *rest)
{
    static char path[4][256];
    static int n;
    char *p = path[n++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", top, rest);
    return p;
}

/* run/ is the run's folder, away/ lies beside it. */
static void make(void)
{
    assert_non_null(mkdtemp(top));
    assert_true(file_make_dirs(in("run/sub")));
    assert_true(file_make_dirs(in("away")));
    assert_true(file_make_dirs(in("cache/burin")));
    assert_true(file_write(in("away/file"), "x", 1));
    assert_int_equal(symlink("../away", in("run/out")), 0);
    assert_int_equal(symlink("../away/file", in("run/file")), 0);
    assert_int_equal(symlink("/nowhere/at/all", in("run/gone")), 0);
    assert_int_equal(symlink("sub", in("run/inner")), 0);
    assert_int_equal(setenv("XDG_CACHE_HOME", in("cache"), 1), 0);
    assert_int_equal(unsetenv("BURIN_CACHE"), 0);
}

static void check(const char *rest, bool wanted)
{
    bool may = file_may_write(in(rest));
    if (may != wanted) print_error("%s: %s\n", rest, may ? "is not refused" : burin_error());
    assert_int_equal(may, wanted);
}

static void check_paths(void)
{
    static const char *const good[] = { "run",         "run/a",       "run/a/b/c", "run//a",
                                        "run/inner/x", "run/sub/a/b", "run/a..b" };
    static const char *const bad[] = { "away/a",        "runner",   "run/../away/a",
                                       "run/out/a",     "run/out",  "run/out/a/b",
                                       "run/file",      "run/gone", "run/gone/a",
                                       "run/a/../../b", "run/..",   "cache/burin/a" };
    for (int i = 0; i < COUNT_OF(good); i++) check(good[i], true);
    for (int i = 0; i < COUNT_OF(bad); i++) check(bad[i], false);
    assert_false(file_may_write("relative"));
    assert_false(file_may_write("/"));
    assert_false(file_may_write(""));
}

static void test_confined(void **state)
{
    (void)state;
    make();
    assert_true(file_may_write(in("away/a")));
    file_confine();
    assert_false(file_may_write(in("run/a")));
    assert_non_null(strstr(burin_error(), "before its run begins"));
    file_confine_to(in("run/"));
    check_paths();
    assert_non_null(strstr(burin_error(), "into its run's folder only"));
    assert_true(file_write(in("run/inner/x"), "x", 1));
    assert_false(file_write(in("run/out/x"), "x", 1));
    assert_false(file_make_dirs(in("run/out/a")));
    assert_false(file_exists(in("away/x")) || file_exists(in("away/a")));
    assert_true(file_make_dirs(in("run/a/b")));
}

static void test_cache(void **state)
{
    (void)state;
    file_cache_enter();
    assert_true(file_may_write(in("cache/burin/latents/a")));
    assert_false(file_may_write(in("cache/other")));
    assert_false(file_may_write(in("away/a")));
    file_cache_leave();
    assert_false(file_may_write(in("cache/burin/latents/a")));
    char *dir = file_cache_dir("pipelines");
    assert_non_null(dir);
    mem_free(dir);
}

static void test_old_kernel(void **state)
{
    (void)state;
    file_confine_as_old_kernels_do();
    check_paths();
    file_confine_to(in("run/none/yet"));
    assert_true(file_may_write(in("run/none/yet/a")));
    assert_false(file_may_write(in("run/none/a")));
    file_confine_to(NULL);
    assert_false(file_may_write(in("run/a")));
    char line[300];
    snprintf(line, sizeof line, "rm -rf '%s'", top);
    assert_int_equal(system(line), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_confined),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_old_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
