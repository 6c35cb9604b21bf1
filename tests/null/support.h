/* SPDX-License-Identifier: MIT
 * support.h - what the tests of data, plug and the plugins share. Definitions here are static
 * inline, so that each test stays one file. */
#ifndef BURIN_TESTS_SUPPORT_H
#define BURIN_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* ours, in base.h */

#include "base/base.h"
#include "burin.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file of tests/data. Valid until the next call. TEST_DATA is defined by CMake. */
static inline const char *test_data(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", TEST_DATA, name);
    return path;
}

/* The last error must hold this text. */
static inline void assert_error_has(const char *text, const char *file, int line)
{
    if (!strstr(burin_error(), text)) {
        print_error("%s:%d: expected \"%s\" in the error \"%s\"\n", file, line, text,
                    burin_error());
        _fail(file, line);
    }
}
#define assert_error(text) assert_error_has(text, __FILE__, __LINE__)

/* A fresh folder below the system's temporary folder. The caller removes it with remove_folder. */
static inline char *make_folder(void)
{
    const char *base = getenv("TMPDIR");
    char *path = mem_alloc(4096);
    snprintf(path, 4096, "%s/burin-test-XXXXXX", base && *base ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static inline void remove_folder(char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    mem_free(path);
}

/* "<folder>/<name>". Valid until the eighth call after this one. */
static inline const char *in_folder(const char *folder, const char *name)
{
    static char path[8][4096];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, 4096, "%s/%s", folder, name);
    return p;
}

static inline int count_files(const char *folder)
{
    char command[4200], line[4096];
    snprintf(command, sizeof command, "ls -A '%s'", folder);
    FILE *f = popen(command, "r");
    int n = 0;
    while (fgets(line, sizeof line, f)) n++;
    pclose(f);
    return n;
}

#endif
