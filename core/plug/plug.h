/* SPDX-License-Identifier: MIT
 * plug.h - loading plugins, and choosing one for a file. Depends on base and burin_plugin.h. */
#ifndef BURIN_PLUG_H
#define BURIN_PLUG_H

#include "base/base.h"
#include "burin_plugin.h"

/* Loads every *.so of the folder; a bad one is logged as a warning and left
 * out. Returns how many loaded. */
int plug_load_dir(const char *folder);
/* The same for plugins that did not come with Burin: one that crashed is left out too. */
int plug_load_foreign(const char *folder);
bool plug_load(const char *path); /* one file; false with a sentence that names it */
/* Default folders: <folder of the binary>/plugins, <prefix>/lib/burin/plugins, and before them
 * $BURIN_PLUGINS unless only our own are wanted. */
void plug_load_default(bool only_ours);

struct plug_entry { /* for `burin plugins` */
    const struct burin_plugin *plugin;
    const char *path;
};
int plug_count(void);
const struct plug_entry *plug_at(int i);

/* Chosen by content (highest probe), never by the file's name alone. NULL with a sentence that
 * says what the file looks like (an HTML page, a git-lfs pointer, a pickle, an empty file) and
 * what would have been accepted. */
const struct burin_loader *plug_loader_for(const char *path);
const struct burin_exporter *plug_exporter(const char *name);
const struct burin_source *plug_source_for(const char *location);
const struct burin_codec *plug_codec_for(const uint8_t *head, size_t n);
/* From now on another process is asked which codec a picture is for: *codec NULL when none is;
 * false with a sentence when it could not say. NULL: nobody else is. */
typedef bool plug_codec_asker(const uint8_t *head, size_t n, const struct burin_codec **codec);
void plug_ask_for_codec(plug_codec_asker *ask);
/* The plugin that this codec is of; NULL: it is no codec. */
const struct burin_plugin *plug_of_codec(const struct burin_codec *codec);
/* burin_host.picture */
int plug_picture(const uint8_t *head, size_t n, const char **what);

/* ---- calls (crash.c) ------------------------------------------------------------------------- */

/* Every call of a plugin's function goes through one of these, so that a crash has a name:
 * PLUG_CALL is what the function returns, PLUG_DO is for one that returns nothing.
 * table: the loader, exporter, source or codec that the function is of. */
#define PLUG_CALL(table, call) (plug_enter(table), plug_left(call))
#define PLUG_DO(table, call) \
    do {                     \
        plug_enter(table);   \
        call;                \
        plug_left(0);        \
    } while (0)
void plug_enter(const void *table);
int64_t plug_left(int64_t result);
/* In a process that another one waits for, and that may crash: from now on nothing is marked and
 * fatal signals just end it; *where is the table whose function runs, or NULL. */
void plug_watched(const void *volatile *where);

/* ---- answers that cannot be believed (answers.c) --------------------------------------------- */

/* table: a loader, exporter, source or codec. */

/* Fails with a sentence that names the plugin. Returns false. */
bool plug_lies(const void *table, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Before a callback that may fail; and after it has, so that the plugin is named when it gave no
 * reason. Returns false. */
void plug_ask(void);
bool plug_refused(const void *table);

#endif
