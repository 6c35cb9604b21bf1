/* SPDX-License-Identifier: MIT
 * check.c - takes over a plugin's tables: sizes, required callbacks, names. Depends on plug.h.
 *
 * A plugin may have been compiled against an older header, so its structs may be smaller than ours.
 * Each is copied over a zeroed struct of our size: what the plugin did not know reads as zero. */
#include "plug/registry.h"

#include <string.h>

#define UPTO(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

/* What the first header had: a struct that claims less was not filled in at all. */
static const size_t plugin_v1 = UPTO(struct burin_plugin, codecs);

struct callback {
    const char *name;
    size_t offset;
};
/* clang-format off */
#define CALLBACK(kind, member) { #member, offsetof(struct burin_##kind, member) }
/* clang-format on */

static const struct callback loader_required[] = {
    CALLBACK(loader, probe),
    CALLBACK(loader, open),
    CALLBACK(loader, count),
    CALLBACK(loader, info),
    CALLBACK(loader, read),
    CALLBACK(loader, close),
    { NULL, 0 },
};
static const struct callback exporter_required[] = {
    CALLBACK(exporter, begin),  CALLBACK(exporter, declare), CALLBACK(exporter, put),
    CALLBACK(exporter, finish), CALLBACK(exporter, abort),   { NULL, 0 },
};
static const struct callback source_required[] = {
    CALLBACK(source, probe), CALLBACK(source, open),  CALLBACK(source, count),
    CALLBACK(source, item),  CALLBACK(source, close), { NULL, 0 },
};
static const struct callback codec_required[] = {
    CALLBACK(codec, probe),
    CALLBACK(codec, size_of),
    CALLBACK(codec, decode),
    { NULL, 0 },
};

static const struct kind {
    const char *name;
    size_t ours, v1;
    const struct callback *required;
} kinds[PLUG_KINDS] = {
    [PLUG_LOADER] = { "loader", sizeof(struct burin_loader), UPTO(struct burin_loader, close),
                      loader_required },
    [PLUG_EXPORTER] = { "exporter", sizeof(struct burin_exporter),
                        UPTO(struct burin_exporter, abort), exporter_required },
    [PLUG_SOURCE] = { "source", sizeof(struct burin_source), UPTO(struct burin_source, close),
                      source_required },
    [PLUG_CODEC] = { "codec", sizeof(struct burin_codec), UPTO(struct burin_codec, decode),
                     codec_required },
};

/* Every kind begins with its size and its name. */
struct common {
    size_t size;
    const char *name, *help;
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static bool take(struct arena *arena, const char *path, const char *plugin, enum plug_kind k,
                 const void *theirs, const void **out)
{
    const struct kind *kind = &kinds[k];
    size_t size;
    memcpy(&size, theirs, sizeof size);
    if (size < kind->v1)
        return fail("%s: plugin \"%s\": a %s is %zu bytes, but at least %zu were expected; set its "
                    ".size to sizeof and compile it again",
                    path, plugin, kind->name, size, kind->v1);
    char *copy = arena_alloc(arena, kind->ours);
    memcpy(copy, theirs, smaller(size, kind->ours));
    const struct common *common = (const void *)copy;
    if (!common->name || !*common->name)
        return fail("%s: plugin \"%s\": a %s has no name; set its .name", path, plugin, kind->name);
    for (const struct callback *c = kind->required; c->name; c++) {
        void (*function)(void);
        memcpy(&function, copy + c->offset, sizeof function);
        if (!function)
            return fail("%s: plugin \"%s\": the %s \"%s\" lacks the required callback \"%s\"", path,
                        plugin, kind->name, common->name, c->name);
    }
    *out = copy;
    return true;
}

static bool check_options(const char *path, const char *plugin, const struct burin_source *s)
{
    for (const struct burin_option *o = s->options; o && o->name; o++) {
        if (o->type < BURIN_OPT_BOOL || o->type > BURIN_OPT_STRING)
            return fail("%s: plugin \"%s\": option \"%s\" of source \"%s\" has the unknown type %d",
                        path, plugin, o->name, s->name, o->type);
        if (o->min > o->max)
            return fail("%s: plugin \"%s\": option \"%s\" of source \"%s\" has the empty range "
                        "%g to %g",
                        path, plugin, o->name, s->name, o->min, o->max);
    }
    return true;
}

/* list: the plugin's NULL-terminated array of pointers to structs of kind k, or NULL. */
static bool take_list(struct plug_loaded *p, enum plug_kind k, const void *const *list)
{
    int n = 0;
    while (list && list[n]) n++;
    const void **copies = arena_alloc(&p->arena, ((size_t)n + 1) * sizeof *copies);
    for (int i = 0; i < n; i++) {
        if (!take(&p->arena, p->entry.path, p->plugin.name, k, list[i], &copies[i])) return false;
        if (k == PLUG_SOURCE && !check_options(p->entry.path, p->plugin.name, copies[i]))
            return false;
    }
    p->list[k] = copies;
    p->n[k] = n;
    return true;
}

bool plug_take(struct plug_loaded *p, const struct burin_plugin *theirs)
{
    const char *path = p->entry.path;
    if (theirs->size < plugin_v1)
        return fail("%s: its struct burin_plugin is %zu bytes, but at least %zu were expected; set "
                    ".size to sizeof(struct burin_plugin) and compile it again",
                    path, theirs->size, plugin_v1);
    if (theirs->abi == 0 || theirs->abi > BURIN_ABI)
        return fail("%s: it was made for plugin ABI %u, but this program knows ABI 1 to %u; use a "
                    "newer burin or an older plugin",
                    path, theirs->abi, (unsigned)BURIN_ABI);
    memcpy(&p->plugin, theirs, smaller(theirs->size, sizeof p->plugin));
    if (!p->plugin.name || !*p->plugin.name)
        return fail("%s: the plugin has no name; set .name in its struct burin_plugin", path);
    /* Through void pointers: the four lists differ only in what they point to. */
    bool ok = take_list(p, PLUG_LOADER, (const void *const *)p->plugin.loaders) &&
              take_list(p, PLUG_EXPORTER, (const void *const *)p->plugin.exporters) &&
              take_list(p, PLUG_SOURCE, (const void *const *)p->plugin.sources) &&
              take_list(p, PLUG_CODEC, (const void *const *)p->plugin.codecs);
    if (!ok) return false;
    p->plugin.loaders = (const struct burin_loader *const *)p->list[PLUG_LOADER];
    p->plugin.exporters = (const struct burin_exporter *const *)p->list[PLUG_EXPORTER];
    p->plugin.sources = (const struct burin_source *const *)p->list[PLUG_SOURCE];
    p->plugin.codecs = (const struct burin_codec *const *)p->list[PLUG_CODEC];
    return true;
}
