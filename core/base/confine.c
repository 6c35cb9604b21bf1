/* SPDX-License-Identifier: MIT
 * confine.c - where this process may write. While a recipe that nobody vouches for is run, that is
 * beneath its run's folder, and for Burin itself its caches. Every function that writes, renames or
 * removes asks here; what a recipe can reach above is checked above, and this is the last line. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool confined, old_kernel;
static char *run_folder;
static int cache_depth; /* > 0: Burin is writing a cache of its own */

void file_confine(void) { confined = true; }

void file_confine_to(const char *folder)
{
    char *kept = folder ? str_dup(folder) : NULL;
    for (size_t n = kept ? strlen(kept) : 0; n > 1 && kept[n - 1] == '/';) kept[--n] = 0;
    mem_free(run_folder);
    run_folder = kept;
}

void file_cache_enter(void) { cache_depth++; }
void file_cache_leave(void) { cache_depth--; }
void file_confine_as_old_kernels_do(void) { old_kernel = true; }

/* ---- beneath a folder ------------------------------------------------------------------------ */

/* What is left of a path behind a folder that it begins with: "" for the folder itself, NULL when
 * it lies elsewhere or climbs. */
static const char *rest_of(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (strncmp(path, folder, n)) return NULL;
    if (path[n] && path[n] != '/' && (!n || folder[n - 1] != '/')) return NULL;
    const char *rest = path + n;
    while (*rest == '/') rest++;
    for (const char *p = rest; *p;) {
        size_t part = strcspn(p, "/");
        if (part == 2 && p[0] == '.' && p[1] == '.') return NULL;
        p += part + (p[part] == '/');
    }
    return rest;
}

enum found { FOUND, ABSENT, OUTSIDE };

static bool absent(int error) { return error == ENOENT || error == ENOTDIR; }

/* By the kernel: no link on the way leads out of the folder. */
static enum found look_beneath(int folder, const char *rest)
{
    struct open_how how = { .flags = O_PATH | O_CLOEXEC,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    long fd = syscall(SYS_openat2, folder, *rest ? rest : ".", &how, sizeof how);
    if (fd < 0) return absent(errno) ? ABSENT : OUTSIDE;
    close((int)fd);
    return FOUND;
}

bool file_is_beneath(const char *path, const char *folder)
{
    char *real = realpath(path, NULL), *top = realpath(*folder ? folder : ".", NULL);
    if (!real || !top) mem_check();
    bool beneath = real && top && rest_of(real, top);
    free(real);
    free(top);
    return beneath;
}

/* By hand, for kernels before 5.6: a link that leads nowhere is refused as well. */
static enum found look_by_hand(const char *folder, const char *rest)
{
    struct str path = { 0 };
    struct stat st;
    str_addf(&path, "%s/%s", folder, rest);
    enum found f = lstat(path.data, &st)                ? absent(errno) ? ABSENT : OUTSIDE
                   : file_is_beneath(path.data, folder) ? FOUND
                                                        : OUTSIDE;
    str_finish(&path);
    return f;
}

static bool has_openat2(int folder)
{
    static int has = -1;
    if (has < 0) has = look_beneath(folder, "") == FOUND;
    return has && !old_kernel;
}

/* Whether a path beneath a folder stays there, as far as it exists. */
static bool stays(const char *folder, const char *rest)
{
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT; /* nothing there yet, so no links either */
    char *part = str_dup(rest);
    enum found f;
    while ((f = has_openat2(fd) ? look_beneath(fd, part) : look_by_hand(folder, part)) == ABSENT &&
           *part) {
        char *slash = strrchr(part, '/');
        *(slash ? slash : part) = 0;
    }
    mem_free(part);
    close(fd);
    return f == FOUND;
}

static bool in_cache(const char *path)
{
    const char *own = getenv("BURIN_CACHE"), *rest = own ? rest_of(path, own) : NULL;
    if (rest) return stays(own, rest);
    char *root = file_cache_root();
    rest = root ? rest_of(path, root) : NULL;
    bool ok = rest && stays(root, rest);
    mem_free(root);
    return ok;
}

bool file_may_write(const char *path)
{
    if (!confined || (cache_depth && in_cache(path))) return true;
    const char *rest = run_folder ? rest_of(path, run_folder) : NULL;
    if (rest && stays(run_folder, rest)) return true;
    if (!run_folder) return fail("%s: a recipe cannot write before its run begins", path);
    return fail("%s: a recipe writes into its run's folder only, which is %s", path, run_folder);
}
