/* SPDX-License-Identifier: MIT
 * limits.c - what a recipe may use: memory, by Lua's allocator, and instructions, by a hook that
 * pcall does not help against: once it is over, every further instruction of a recipe raises. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua/script.h"

/* ---- memory ---------------------------------------------------------------------------------- */

static struct {
    size_t used, limit;
    size_t share; /* what a recipe may take while the library waits for it; 0: up to the limit */
    size_t outer; /* the limit of the library, meanwhile */
    int waits;    /* how often the library waits, one inside the other */
} memory;         /* one state per process */

static void *limited_alloc(void *user, void *p, size_t old, size_t n)
{
    (void)user;
    if (!p) old = 0; /* then it is the type of what is made */
    if (n > old && (n - old > memory.limit || memory.used > memory.limit - (n - old))) return NULL;
    void *q = NULL;
    if (n == 0) free(p);
    else if (!(q = realloc(p, n))) return NULL;
    memory.used += n - old;
    return q;
}

/* Three quarters of the machine's: the rest is for what is not Lua's, and for others. */
static size_t usual_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    if (pages < 1 || bytes < 1) return (size_t)8 << 30;
    return (size_t)pages / 4 * 3 * (size_t)bytes;
}

lua_State *script_new_state(void)
{
    memory.limit = usual_limit();
    return lua_newstate(limited_alloc, NULL);
}

size_t script_memory_limit(void) { return memory.limit; }

/* core.limit_memory(bytes): all of Lua. */
static int core_limit_memory(lua_State *L)
{
    lua_Integer bytes = luaL_checkinteger(L, 1);
    luaL_argcheck(L, bytes > 0, 1, "must be positive");
    memory.limit = (size_t)bytes;
    return 0;
}

/* core.limit_share(bytes): what a recipe may add to that while the library waits for it. */
static int core_limit_share(lua_State *L)
{
    lua_Integer bytes = luaL_checkinteger(L, 1);
    luaL_argcheck(L, bytes >= 0, 1, "must not be negative");
    memory.share = (size_t)bytes;
    return 0;
}

/* core.wait_begin(), core.wait_end(): around all that the library calls of a recipe. */
static int core_wait_begin(lua_State *L)
{
    (void)L;
    if (memory.waits++) return 0;
    memory.outer = memory.limit;
    if (memory.share && memory.used < memory.limit && memory.share < memory.limit - memory.used)
        memory.limit = memory.used + memory.share;
    script_wait_begin();
    return 0;
}

static int core_wait_end(lua_State *L)
{
    (void)L;
    if (--memory.waits) return 0;
    script_wait_end();
    memory.limit = memory.outer;
    return 0;
}

/* core.out_of_memory(e) -> whether this was raised since memory ran out, and the sentence that says
 * so: Lua raises a text of its own, the only one that it has made in advance. */
static int core_out_of_memory(lua_State *L)
{
    bool out = lua_type(L, 1) == LUA_TSTRING && !strcmp(lua_tostring(L, 1), "not enough memory");
    lua_pushboolean(L, out);
    if (!out) return 1;
    char text[2048];
    const char *file = mem_file();
    snprintf(text, sizeof text, "%s%sout of memory: Lua may take %.3g GiB (--recipe-memory)",
             file ? file : "", file ? ": " : "", (double)memory.limit / 0x1p30);
    lua_pushstring(L, text);
    return 2;
}

/* ---- instructions ---------------------------------------------------------------------------- */

#define ROUND 10000 /* instructions between two looks */
/* A loop without end in a recipe's function (a schedule, a loss) would keep Ctrl-C waiting for the
 * end of the step. The step that a signal meets is finished and saved, so a recipe is interrupted
 * only when it goes on for so long. */
#define PATIENCE 300

static struct {
    int64_t limit; /* 0: none */
    int64_t used, after_stop;
    enum { GOES_ON, STOPPED, OVER_STEPS, OVER_TIME } volatile over; /* no recipe is run any more */
} steps;

/* core.limit_steps(n): instructions that recipes may take; 0: as many as they like. */
static int core_limit_steps(lua_State *L)
{
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0, 1, "must not be negative");
    steps.limit = n;
    return 0;
}

static bool is_recipe(const lua_Debug *d) { return d->source[0] == '@'; }

static void push_over_time(lua_State *L, const lua_Debug *d)
{
    char text[128];
    snprintf(text, sizeof text, SCRIPT_OVER_TIME, script_wait_limit());
    lua_pushfstring(L, "%s:%d: %s", d->source + 1, d->currentline, text);
}

static void raise_over(lua_State *L, const lua_Debug *d)
{
    if (steps.over == STOPPED)
        lua_pushfstring(L,
                        "%s:%d: stopped here, inside the recipe; nothing was saved for this step",
                        d->source + 1, d->currentline);
    else if (steps.over == OVER_TIME) push_over_time(L, d);
    else
        lua_pushfstring(L,
                        "%s:%d: the recipe took more than %I steps of Lua; --recipe-steps allows "
                        "more",
                        d->source + 1, d->currentline, (LUAI_UACINT)steps.limit);
    script_push_error(L, steps.over == STOPPED ? "stopped" : "recipe");
    lua_error(L);
}

static void count_round(void)
{
    steps.used += ROUND;
    if (!steps.over && steps.limit && steps.used > steps.limit) steps.over = OVER_STEPS;
}

static void hook(lua_State *L, lua_Debug *here);

/* From now on each instruction of this thread and of the first one is looked at. */
static void look_always(lua_State *L)
{
    lua_sethook(L, hook, LUA_MASKCOUNT, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_sethook(lua_tothread(L, -1), hook, LUA_MASKCOUNT, 1);
    lua_pop(L, 1);
}

/* Whether a recipe waits for what is run now: the library works for it. */
static bool recipe_waits(lua_State *L)
{
    lua_Debug d;
    for (int level = 1; lua_getstack(L, level, &d); level++)
        if (lua_getinfo(L, "S", &d) && is_recipe(&d)) return true;
    return false;
}

static void hook(lua_State *L, lua_Debug *here)
{
    lua_getinfo(L, "Sl", here);
    bool recipe = is_recipe(here);
    if (!steps.over) {
        if (recipe && script_stop_requested() && ++steps.after_stop > PATIENCE)
            steps.over = STOPPED;
        if (steps.limit && (recipe || recipe_waits(L))) count_round();
    }
    if (steps.over) look_always(L);
    if (steps.over && recipe) raise_over(L, here);
}

void script_count(lua_State *L) { lua_sethook(L, hook, LUA_MASKCOUNT, ROUND); }

void script_over_time(void)
{
    if (!steps.over) steps.over = OVER_TIME;
}

void script_charge(lua_State *L)
{
    count_round();
    if (!steps.over) return;
    look_always(L);
    lua_Debug d;
    if (lua_getstack(L, 1, &d) && lua_getinfo(L, "Sl", &d) && is_recipe(&d)) raise_over(L, &d);
}

void script_open_limits(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "limit_memory", core_limit_memory },
        { "limit_share", core_limit_share },
        { "wait_begin", core_wait_begin },
        { "wait_end", core_wait_end },
        { "out_of_memory", core_out_of_memory },
        { "limit_steps", core_limit_steps },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
