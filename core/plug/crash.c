/* SPDX-License-Identifier: MIT
 * crash.c - a plugin of BURIN_PLUGINS that ended the process is left out from then on. Whose code
 * is running is noted around each call (plug_enter, plug_left); a handler of fatal signals writes
 * a mark, a file of the plugin's own in the cache. A mark counts for as long as the plugin's file
 * has the size and the time that it had. */
#include "plug/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 8 /* a plugin may ask the host, and so another plugin */

static _Thread_local const void *running[DEPTH];
static _Thread_local volatile sig_atomic_t depth;

/* What is needed in a handler, where little may be called; made when the plugin is loaded. */
struct plug_crash {
    char *mark, *unfinished; /* paths; NULL: there is no place for marks */
    char *was;               /* what a mark begins with: "<size> <time>\n" */
    char *begin, *end;       /* of the sentence, around the signal's name */
};

/* Where another process looks for whose code it is, when this one has ended: crash.c marks nothing
 * then. */
static const void *volatile *watched;

static struct plug_crash *loading; /* its constructors and burin_plugin_main run */

static const struct {
    int number;
    const char *name;
} fatal[] = { { SIGSEGV, "SIGSEGV" }, { SIGBUS, "SIGBUS" }, { SIGILL, "SIGILL" },
              { SIGFPE, "SIGFPE" },   { SIGABRT, "abort" }, { SIGSYS, "SIGSYS" },
              { SIGTRAP, "SIGTRAP" } };
static struct sigaction before[COUNT_OF(fatal)];

/* ---- whose code is running ------------------------------------------------------------------- */

static void tell(void)
{
    if (watched) *watched = depth > 0 && depth <= DEPTH ? running[depth - 1] : NULL;
}

void plug_enter(const void *table)
{
    if (depth < DEPTH) running[depth] = table;
    depth++;
    tell();
}

int64_t plug_left(int64_t result)
{
    depth--;
    tell();
    return result;
}

static const struct plug_crash *responsible(void)
{
    if (watched || depth < 1 || depth > DEPTH) return NULL;
    if (loading) return loading;
    const struct plug_loaded *p = plug_owner(running[depth - 1]);
    return p ? p->crash : NULL;
}

/* ---- in a handler ---------------------------------------------------------------------------- */

static void write_all(int fd, const char *text)
{
    for (size_t n = strlen(text); n;) {
        ssize_t written = write(fd, text, n);
        if (written <= 0) return;
        text += written;
        n -= (size_t)written;
    }
}

/* Whole or not there, whatever other processes do meanwhile. */
static bool leave_mark(const struct plug_crash *c, const char *how)
{
    if (!c->mark) return false;
    int fd = open(c->unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return false;
    write_all(fd, c->was);
    write_all(fd, how);
    write_all(fd, "\n");
    close(fd);
    return rename(c->unfinished, c->mark) == 0;
}

static void blame(const struct plug_crash *c, const char *how)
{
    write_all(STDERR_FILENO, c->begin);
    write_all(STDERR_FILENO, how);
    write_all(STDERR_FILENO, leave_mark(c, how) ? c->end : ", which could not be noted\n");
}

/* Not what another process sent, nor the end of a mapped file that somebody has cut. */
static bool is_own(int number, const siginfo_t *info)
{
    if (number == SIGBUS && info->si_code == BUS_ADRERR) return false;
    return info->si_code > 0 || info->si_pid == getpid();
}

static void on_fatal(int number, siginfo_t *info, void *context)
{
    (void)context;
    const struct plug_crash *c = is_own(number, info) ? responsible() : NULL;
    for (int i = 0; i < COUNT_OF(fatal); i++) {
        if (fatal[i].number != number) continue;
        if (c) blame(c, fatal[i].name);
        sigaction(number, &before[i], NULL);
    }
    raise(number); /* once this has returned, as it would have been without us */
}

static void on_exit_of_program(void)
{
    const struct plug_crash *c = responsible();
    if (c) blame(c, "exit");
}

/* A stack that is full has no room for a handler. */
static void catch_fatal(void)
{
    static char room[64 << 10];
    static bool caught;
    stack_t stack;
    if (caught) return;
    caught = true;
    if (sigaltstack(NULL, &stack) == 0 && stack.ss_flags & SS_DISABLE)
        sigaltstack(&(stack_t){ .ss_sp = room, .ss_size = sizeof room }, NULL);
    for (int i = 0; i < COUNT_OF(fatal); i++) {
        struct sigaction a;
        memset(&a, 0, sizeof a);
        a.sa_sigaction = on_fatal;
        a.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(fatal[i].number, &a, &before[i]);
    }
    atexit(on_exit_of_program);
}

void plug_watched(const void *volatile *where)
{
    watched = where;
    for (int i = 0; i < COUNT_OF(fatal); i++) signal(fatal[i].number, SIG_DFL);
}

/* ---- at the start ---------------------------------------------------------------------------- */

void plug_crash_finish(struct plug_crash *c)
{
    if (!c) return;
    mem_free(c->mark);
    mem_free(c->unfinished);
    mem_free(c->was);
    mem_free(c->begin);
    mem_free(c->end);
    mem_free(c);
}

static void choose_mark(const char *full, struct str *mark, struct str *unfinished)
{
    char *folder = file_cache_dir("crashed-plugins");
    if (!folder) return;
    str_addf(mark, "%s/%016llx", folder, (unsigned long long)hash_bytes(full, strlen(full), 0));
    str_addf(unfinished, "%s.tmp-%ld", mark->data, (long)getpid());
    mem_free(folder);
}

/* NULL when there is no such file. */
static struct plug_crash *describe(const char *path)
{
    struct stat st;
    char *full = realpath(path, NULL);
    if (!full) mem_check();
    struct plug_crash *c = NULL;
    struct str mark = { 0 }, unfinished = { 0 }, was = { 0 }, begin = { 0 }, end = { 0 };
    if (full && stat(full, &st) == 0) {
        choose_mark(full, &mark, &unfinished);
        str_addf(&was, "%lld %lld.%09ld\n", (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                 st.st_mtim.tv_nsec);
        str_add(&begin, "error: the plugin ");
        str_add_shown(&begin, path, strlen(path), false);
        str_add(&begin, " crashed: ");
        str_add(&end, "; it will be left out from now on, until this file is removed: ");
        if (mark.len) str_add_shown(&end, mark.data, mark.len, false);
        str_add(&end, "\n");
        c = mem_alloc(sizeof *c);
        *c = (struct plug_crash){ mark.data, unfinished.data, was.data, begin.data, end.data };
    }
    free(full);
    return c;
}

/* Whether the mark is there and of this very file; how it ended goes to how. */
static bool is_marked(const struct plug_crash *c, char *how, size_t room)
{
    struct str text = { 0 };
    size_t n = strlen(c->was);
    bool same = c->mark && access(c->mark, F_OK) == 0 && file_read(c->mark, 4096, &text) &&
                text.len > n && memcmp(text.data, c->was, n) == 0;
    if (same) snprintf(how, room, "%.*s", (int)strcspn(text.data + n, "\n"), text.data + n);
    str_finish(&text);
    return same;
}

bool plug_crash_watch(const char *path, struct plug_crash **out)
{
    char how[32];
    struct plug_crash *c = *out = describe(path);
    if (!c) return true;
    if (is_marked(c, how, sizeof how)) {
        fail("%s crashed when it was used (%s); to try it again, remove %s", path, how, c->mark);
        plug_crash_finish(c);
        *out = NULL;
        return false;
    }
    catch_fatal();
    loading = c;
    plug_enter(NULL);
    return true;
}

void plug_crash_loaded(struct plug_crash *c)
{
    if (!c) return;
    plug_left(0);
    loading = NULL;
}
