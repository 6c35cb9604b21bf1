/* SPDX-License-Identifier: MIT
 * plugin_test.h - what the tests of plugins begin and end with: a plugin of the build, a folder for
 * files, and whether a loader takes one. */
#ifndef BURIN_TESTS_PLUGIN_TEST_H
#define BURIN_TESTS_PLUGIN_TEST_H

#include "support.h"

#include "plug/plug.h"

#include <sys/resource.h>

static char *folder; /* for the files of a group of tests */

/* Group set-up and teardown. */
static inline int open_folder(void **state)
{
    (void)state;
    folder = make_folder();
    return 0;
}

static inline int close_folder(void **state)
{
    (void)state;
    remove_folder(folder);
    return 0;
}

/* A plugin of the build, by its name. There is no test without it: its want ends the program. */
static inline const struct burin_plugin *load_plugin(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.so", TEST_PLUGINS, name);
    if (!plug_load(path)) {
        print_error("%s\n", burin_error());
        exit(1);
    }
    return plug_at(plug_count() - 1)->plugin;
}

/* Not file_write: thousands of syncs take their time. */
static inline const char *put_file(const char *name, const void *bytes, size_t n)
{
    const char *path = in_folder(folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* A loader's open; what it says against a file is in burin_error(). */
static inline int open_with(const struct burin_loader *l, const char *path, void **self)
{
    fail("nothing was recorded");
    *self = NULL;
    return l->open(path, self);
}

/* Whether a loader takes a file, which is closed again. */
static inline bool opens(const struct burin_loader *l, const char *path)
{
    void *self;
    if (open_with(l, path, &self) != 0) return false;
    l->close(self);
    return true;
}

/* The same of a file that cannot be mapped, for want of addresses. */
static inline int open_unmapped(const struct burin_loader *l, const char *path, void **self)
{
    unsigned long long pages = 0;
    struct rlimit before, few;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_true(f && fscanf(f, "%llu", &pages) == 1 && fclose(f) == 0);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    few = (struct rlimit){ pages * (rlim_t)sysconf(_SC_PAGESIZE) + (256u << 20), before.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_AS, &few), 0);
    int rc = open_with(l, path, self);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    return rc;
}

#endif
