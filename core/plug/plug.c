/* SPDX-License-Identifier: MIT
 * plug.c - opens plugins and keeps the list of them. Plugins stay loaded until the process ends.
 * Loading happens at start, on one thread; afterwards the list is only read. */
#include "plug/registry.h"

#include "burin.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct plug_loaded **loaded;
static int n_loaded, loaded_capacity;

/* ---- what the host lends --------------------------------------------------------------------- */

/* Plugins hand over text of any origin: formatted here, so that it never acts as a format. */
static int host_fail(const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fail("%s", text);
    return -1;
}

static void host_log(int level, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    int l = level < LOG_ERROR ? LOG_ERROR : level > LOG_DEBUG ? LOG_DEBUG : level;
    log_line((enum log_level)l, "%s", text);
}

static const struct burin_host host = {
    .size = sizeof host,
    .abi = BURIN_ABI,
    .alloc = mem_alloc,
    .free = mem_free,
    .log = host_log,
    .fail = host_fail,
    .picture = plug_picture,
    .hash = hash_bytes,
};

/* ---- loading --------------------------------------------------------------------------------- */

/* dlopen runs a library's constructors before we can look at it, so what is plainly no library, or
 * cannot be a plugin at all, is told apart first, with a better sentence. */
static bool looks_like_elf(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* opening a pipe would wait for ever */
        return fail("%s is not a plugin: it is not a regular file", path);
    FILE *f = fopen(path, "rb");
    if (!f) mem_check();
    if (!f) return fail("cannot open the plugin %s: %s", path, strerror(errno));
    unsigned char head[4] = { 0 };
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    if (n != sizeof head || memcmp(head, "\177ELF", 4) != 0)
        return fail("%s is not a plugin: it is not an ELF shared library", path);
    return true;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool check_unique(const struct plug_loaded *p)
{
    for (int i = 0; i < n_loaded; i++)
        if (strcmp(loaded[i]->plugin.name, p->plugin.name) == 0)
            return fail(
                "%s: a plugin named \"%s\" is already loaded, from %s; remove one of the two",
                p->entry.path, p->plugin.name, loaded[i]->entry.path);
    return true;
}

static bool load_into(struct plug_loaded *p, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        return fail("cannot load the plugin %s: %s", path, why ? why : "unknown reason");
    }
    /* Never dlclose: a library may have started threads or left pointers with its constructors. */
    burin_plugin_main_fn *main_fn;
    void *symbol = dlsym(library, "burin_plugin_main");
    if (!symbol)
        return fail("%s is not a burin plugin: it does not export burin_plugin_main", path);
    memcpy(&main_fn, &symbol, sizeof main_fn);
    fail("it gave no reason");
    const struct burin_plugin *theirs = main_fn(&host);
    if (!theirs) return fail_prefix("%s: the plugin refused to start", path);
    return plug_take(p, theirs) && check_unique(p);
}

static bool load(const char *path, struct plug_crash *crash)
{
    for (int i = 0; i < n_loaded; i++)
        if (same_file(loaded[i]->entry.path, path)) return true;
    /* dlopen searches the system's folders for a name without a slash; a path was meant. */
    struct str full = { 0 };
    str_addf(&full, "%s%s", strchr(path, '/') ? "" : "./", path);
    struct plug_loaded *p = mem_alloc(sizeof *p);
    p->entry.path = arena_strdup(&p->arena, path);
    bool ok = looks_like_elf(full.data) && load_into(p, full.data);
    str_finish(&full);
    if (!ok) {
        arena_finish(&p->arena);
        mem_free(p);
        return false;
    }
    p->entry.plugin = &p->plugin;
    p->crash = crash;
    loaded = array_reserve(loaded, n_loaded, &loaded_capacity, sizeof *loaded);
    loaded[n_loaded++] = p;
    log_line(LOG_DEBUG, "plugin %s from %s", p->plugin.name, path);
    return true;
}

static int is_library(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 3 && strcmp(e->d_name + n - 3, ".so") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

bool plug_load(const char *path) { return load(path, NULL); }

static bool load_foreign(const char *path)
{
    struct plug_crash *crash;
    if (!plug_crash_watch(path, &crash)) return false;
    int before = n_loaded;
    bool ok = load(path, crash);
    plug_crash_loaded(crash);
    if (n_loaded == before) plug_crash_finish(crash); /* refused, or loaded before */
    return ok;
}

static int load_dir(const char *folder, bool (*load_one)(const char *path))
{
    struct dirent **names;
    int n = scandir(folder, &names, is_library, by_name), good = 0;
    if (n < 0) mem_check();
    for (int i = 0; i < n; i++) {
        struct str path = { 0 };
        str_addf(&path, "%s/%s", folder, names[i]->d_name);
        if (load_one(path.data)) good++;
        else log_line(LOG_WARN, "%s; this plugin is left out", burin_error());
        str_finish(&path);
        free(names[i]);
    }
    if (n >= 0) free(names);
    return good;
}

int plug_load_dir(const char *folder) { return load_dir(folder, plug_load); }

int plug_load_foreign(const char *folder) { return load_dir(folder, load_foreign); }

void plug_load_default(bool only_ours)
{
    const char *own = getenv("BURIN_PLUGINS");
    if (own && *own && !only_ours) plug_load_foreign(own);
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return;
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (!slash) return;
    *slash = 0;
    struct str folder = { 0 };
    str_addf(&folder, "%s/plugins", exe);
    plug_load_dir(folder.data);
    folder.len = 0;
    str_addf(&folder, "%s/../lib/burin/plugins", exe);
    plug_load_dir(folder.data);
    str_finish(&folder);
}

int plug_count(void) { return n_loaded; }

const struct plug_entry *plug_at(int i)
{
    return i < 0 || i >= n_loaded ? NULL : &loaded[i]->entry;
}

struct plug_loaded *plug_owner(const void *table)
{
    for (int i = 0; i < n_loaded; i++)
        for (int k = 0; k < PLUG_KINDS; k++)
            for (int j = 0; j < loaded[i]->n[k]; j++)
                if (loaded[i]->list[k][j] == table) return loaded[i];
    return NULL;
}

struct plug_loaded *plug_loaded_at(int i) { return i < 0 || i >= n_loaded ? NULL : loaded[i]; }
