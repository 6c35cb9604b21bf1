/* SPDX-License-Identifier: MIT
 * registry.h - private to plug/: what is kept about a loaded plugin. */
#ifndef BURIN_PLUG_REGISTRY_H
#define BURIN_PLUG_REGISTRY_H

#include "plug/plug.h"

enum plug_kind { PLUG_LOADER, PLUG_EXPORTER, PLUG_SOURCE, PLUG_CODEC, PLUG_KINDS };

struct plug_loaded {
    struct plug_entry entry;
    struct burin_plugin plugin;    /* our copy, of our size */
    const void **list[PLUG_KINDS]; /* our copies of its tables, NULL-terminated */
    int n[PLUG_KINDS];
    struct arena arena;
};

/* Checks and copies the plugin's description into p (p->entry.path is set). False with a sentence.
 */
bool plug_take(struct plug_loaded *p, const struct burin_plugin *theirs);
struct plug_loaded *plug_loaded_at(int i);

#endif
