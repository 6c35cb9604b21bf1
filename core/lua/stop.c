/* SPDX-License-Identifier: MIT
 * stop.c - signals that end the program: at once, without unfinished files, or after a step. */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lua/script.h"

static volatile sig_atomic_t asks;     /* a training looks between steps whether it should stop */
static volatile sig_atomic_t stopping; /* it should */
static volatile sig_atomic_t urgent;   /* how many of Ctrl-C and SIGTERM have come meanwhile */
static volatile sig_atomic_t last;
static sem_t at_once;
static const char *volatile last_text; /* of an end that no signal asked for */
static volatile sig_atomic_t last_code;

static void handle(int number, void (*handler)(int))
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = handler;
    a.sa_flags = SA_RESTART;
    sigaction(number, &a, NULL);
}

/* A terminal that closes sends SIGHUP twice, by itself and by its shell, so it asks only once
 * however often it comes. The second Ctrl-C does not wait for a step's end. */
static void on_signal(int number)
{
    if (asks) {
        stopping = 1;
        if (number == SIGHUP || ++urgent < 2) return;
    }
    last = number;
    handle(SIGINT, SIG_DFL); /* one more does not even wait for files to be removed */
    handle(SIGTERM, SIG_DFL);
    sem_post(&at_once);
}

/* Removing files is more than a handler may do, so a thread waits for it. */
static void *end_at_once(void *unused)
{
    (void)unused;
    while (sem_wait(&at_once)) continue;
    if (last_text) log_line(LOG_ERROR, "%s", last_text);
    temp_remove_all();
    if (last_text) _exit(last_code);
    handle(last, SIG_DFL);
    kill(getpid(), last);
    pause();
    return NULL;
}

void script_end(int code, const char *text)
{
    last_code = code;
    last_text = text;
    sem_post(&at_once);
}

static bool is_ignored(int number)
{
    struct sigaction a;
    return sigaction(number, NULL, &a) == 0 && a.sa_handler == SIG_IGN;
}

/* What was ignored when we were started stays so: nohup, jobs of a shell in the background. */
static void catch_unless_ignored(int number)
{
    if (!is_ignored(number)) handle(number, on_signal);
}

void script_catch_signals(void)
{
    pthread_t thread;
    sigset_t all, old;
    signal(SIGPIPE, SIG_IGN);
    if (sem_init(&at_once, 0, 0)) return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool waits = pthread_create(&thread, NULL, end_at_once, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!waits) return; /* then signals end us as they end any program */
    pthread_detach(thread);
    catch_unless_ignored(SIGINT);
    catch_unless_ignored(SIGTERM);
    catch_unless_ignored(SIGHUP);
}

/* core.catch_stop(): from now on SIGINT, SIGTERM and SIGHUP are what core.stop_requested() says. */
static int core_catch_stop(lua_State *L)
{
    (void)L;
    asks = 1;
    handle(SIGINT, on_signal);
    handle(SIGTERM, on_signal);
    return 0;
}

bool script_stop_requested(void) { return stopping; }

static int core_stop_requested(lua_State *L)
{
    lua_pushboolean(L, script_stop_requested());
    return 1;
}

/* core.sleep(seconds): a signal ends it. */
static int core_sleep(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct timespec time = { .tv_sec = (time_t)seconds };
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    if (seconds > 0) nanosleep(&time, NULL);
    return 0;
}

void script_open_stop(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "catch_stop", core_catch_stop },
        { "stop_requested", core_stop_requested },
        { "sleep", core_sleep },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
