/* SPDX-License-Identifier: MIT
 * overtime.c - how much processor time a recipe may take while the library waits for it. A call of
 * a standard function (a pattern with many `.-`) is one instruction however long it takes, and no
 * hook runs in it: so a timer ends the program when the limit alone (limits.c) has not helped. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lua/script.h"

/* As long again, and at most so many seconds, a recipe can still end with an error. */
#define GRACE 1.0

static struct {
    timer_t timer; /* of the main thread's processor time; there when limit is not 0 */
    double limit;  /* seconds, 0: none */
    struct timespec left;
    bool runs;
    lua_State *first; /* the thread that a recipe began in */
    pthread_t thread;
} overtime;

static volatile sig_atomic_t rounds; /* how often the timer has come */
static char last_words[8192];        /* the sentence that the program ends with */

static void end(const char *at, int line)
{
    char place[4400] = "";
    if (at) snprintf(place, sizeof place, "%.4000s:%d: ", at, line);
    snprintf(last_words, sizeof last_words, "%s" SCRIPT_OVER_TIME, place, overtime.limit);
    script_end(78, last_words);
}

/* Reading Lua's stack in a handler is not forbidden by anything but chance. */
static void on_bad_luck(int number)
{
    (void)number;
    end(NULL, 0);
    for (;;) pause();
}

/* The line that waits for the call, as far as the first thread knows. */
static void end_with_line(void)
{
    lua_Debug d;
    signal(SIGSEGV, on_bad_luck);
    for (int level = 0; lua_getstack(overtime.first, level, &d); level++) {
        if (!lua_getinfo(overtime.first, "Sl", &d) || d.source[0] != '@') continue;
        end(d.source + 1, d.currentline);
        return;
    }
    end(NULL, 0);
}

static void on_timer(int number, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (!pthread_equal(pthread_self(), overtime.thread)) {
        pthread_kill(overtime.thread, number);
        return;
    }
    if (!overtime.runs) return;
    script_over_time();
    if (++rounds == 2) end_with_line();
}

static void from_seconds(double seconds, struct timespec *t)
{
    t->tv_sec = (time_t)seconds;
    t->tv_nsec = (long)((seconds - (double)t->tv_sec) * 1e9);
    if (!t->tv_sec && !t->tv_nsec) t->tv_nsec = 1; /* 0 would be no timer at all */
}

void script_wait_begin(void)
{
    if (overtime.limit == 0) return;
    struct itimerspec t = { .it_value = overtime.left };
    from_seconds(overtime.limit < GRACE ? overtime.limit : GRACE, &t.it_interval);
    overtime.runs = true;
    timer_settime(overtime.timer, 0, &t, NULL);
}

void script_wait_end(void)
{
    struct itimerspec t;
    static const struct itimerspec none;
    if (!overtime.runs) return;
    overtime.runs = false;
    timer_settime(overtime.timer, 0, &none, &t);
    if (!rounds) overtime.left = t.it_value;
    if (!overtime.left.tv_sec && !overtime.left.tv_nsec) overtime.left.tv_nsec = 1;
}

double script_wait_limit(void) { return overtime.limit; }

/* core.limit_time(seconds): 0: as long as it likes. */
static int core_limit_time(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct sigaction a;
    struct sigevent e;
    luaL_argcheck(L, seconds >= 0 && seconds < 1e9, 1, "must not be negative");
    memset(&a, 0, sizeof a);
    memset(&e, 0, sizeof e);
    a.sa_sigaction = on_timer;
    a.sa_flags = SA_SIGINFO | SA_RESTART;
    e.sigev_notify = SIGEV_SIGNAL;
    e.sigev_signo = SIGRTMIN;
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    overtime.first = lua_tothread(L, -1);
    overtime.thread = pthread_self();
    if (seconds > 0 && (sigaction(SIGRTMIN, &a, NULL) ||
                        timer_create(CLOCK_THREAD_CPUTIME_ID, &e, &overtime.timer)))
        return luaL_error(L, "cannot measure processor time");
    overtime.limit = seconds;
    from_seconds(seconds, &overtime.left);
    return 0;
}

/* core.rest(): what a recipe has taken so far does not count any more. */
static int core_rest(lua_State *L)
{
    (void)L;
    if (!rounds) from_seconds(overtime.limit, &overtime.left);
    return 0;
}

void script_open_overtime(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "limit_time", core_limit_time },
        { "rest", core_rest },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
