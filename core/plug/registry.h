/* SPDX-License-Identifier: MIT
 * registry.h - private to plug/: what is kept about a loaded plugin. */
#ifndef BURIN_PLUG_REGISTRY_H
#define BURIN_PLUG_REGISTRY_H

#include "plug/plug.h"

enum plug_kind { PLUG_LOADER, PLUG_EXPORTER, PLUG_SOURCE, PLUG_CODEC, PLUG_KINDS };

struct plug_crash; /* crash.c */

struct plug_loaded {
    struct plug_entry entry;
    struct burin_plugin plugin;    /* our copy, of our size */
    const void **list[PLUG_KINDS]; /* our copies of its tables, NULL-terminated */
    int n[PLUG_KINDS];
    struct arena arena;
    struct plug_crash *crash; /* what a crash is noted with; NULL: one that came with Burin */
};

/* Checks and copies the plugin's description into p (p->entry.path is set). False with a sentence.
 */
bool plug_take(struct plug_loaded *p, const struct burin_plugin *theirs);
struct plug_loaded *plug_loaded_at(int i);
/* The plugin that a loader, exporter, source or codec is from, or NULL. Allocates nothing. */
struct plug_loaded *plug_owner(const void *table);

/* Before a plugin that did not come with Burin is loaded: false with a sentence when it crashed the
 * last time. Until plug_crash_loaded a crash counts as its own. *c may be NULL. */
bool plug_crash_watch(const char *path, struct plug_crash **c);
void plug_crash_loaded(struct plug_crash *c);
void plug_crash_finish(struct plug_crash *c); /* accepts NULL */

#endif
