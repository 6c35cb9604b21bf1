/* SPDX-License-Identifier: MIT
 * system.c - the machine for Lua: time, memory, locks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lua/script.h"

static int core_clock(lua_State *L)
{
    lua_pushnumber(L, clock_seconds());
    return 1;
}

static int core_date(lua_State *L)
{
    char text[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    lua_pushstring(L, text);
    lua_pushinteger(L, (lua_Integer)now);
    return 2;
}

static int core_env(lua_State *L)
{
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

/* core.peak_memory() -> bytes of host memory this process held at most */
static int core_peak_memory(lua_State *L)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    lua_pushinteger(L, (lua_Integer)u.ru_maxrss * 1024);
    return 1;
}

/* core.lock(path) -> true, or false when another process holds it. Held until this process ends. */
static int core_lock(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (!file_may_write(path)) return script_raise(L);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        fail("%s: cannot create the lock file", path);
        return script_raise(L);
    }
    bool held = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!held) close(fd);
    lua_pushboolean(L, held);
    return 1;
}

/* core.restart(argv, name, value): this program takes our place, with a variable of the environment
 * set. Returns only as an error. Locks are let go; what was printed is printed. */
static int core_restart(lua_State *L)
{
    char *argv[256] = { "burin" };
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Unsigned n = lua_rawlen(L, 1);
    luaL_argcheck(L, n + 2 <= COUNT_OF(argv), 1, "too many arguments");
    luaL_checkstack(L, COUNT_OF(argv), NULL);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i);
        argv[i] = (char *)(uintptr_t)luaL_checkstring(L, -1); /* execv changes none of them */
    }
    fflush(NULL);
    if (!setenv(luaL_checkstring(L, 2), luaL_checkstring(L, 3), 1)) execv("/proc/self/exe", argv);
    fail("cannot start this program again: %s", strerror(errno));
    return script_raise(L);
}

/* core.where() -> "recipe.lua:17", the recipe line that is running, and the same as Lua's own
 * messages write it; nothing when none is. core.where(f): the line that f begins at. */
static int core_where(lua_State *L) { return script_push_recipe_line(L); }

/* core.nearest(word, { candidates }) -> the likely meant one, or nil */
static int core_nearest(lua_State *L)
{
    const char *names[128], *word = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    int n = (int)lua_rawlen(L, 2);
    luaL_checkstack(L, 132, NULL);
    for (int i = 0; i < n && i < 128; i++) {
        lua_rawgeti(L, 2, i + 1);
        names[i] = luaL_checkstring(L, -1);
    }
    lua_pushstring(L, str_nearest(word, names, n < 128 ? n : 128));
    return 1;
}

static int core_cwd(lua_State *L)
{
    char text[4096];
    if (!getcwd(text, sizeof text)) return 0;
    lua_pushstring(L, text);
    return 1;
}

/* The same place from any folder. */
static bool make_absolute(const char *name)
{
    const char *value = getenv(name);
    char *cwd = value && *value && *value != '/' ? realpath(".", NULL) : NULL;
    if (!cwd && value && *value && *value != '/') mem_check();
    if (!cwd) return true;
    struct str path = { 0 };
    str_addf(&path, "%s/%s", cwd, value);
    bool ok = setenv(name, path.data, 1) == 0;
    str_finish(&path);
    free(cwd);
    return ok;
}

/* core.change_folder(path) -> true, or nil when there is no such folder. Relative paths are taken
 * from there from now on, but for those of the caches. */
static int core_change_folder(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (!make_absolute("BURIN_CACHE") || !make_absolute("XDG_CACHE_HOME") || chdir(path)) return 0;
    lua_pushboolean(L, true);
    return 1;
}

void script_open_system(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "clock", core_clock }, { "date", core_date },
        { "env", core_env },     { "peak_memory", core_peak_memory },
        { "lock", core_lock },   { "restart", core_restart },
        { "where", core_where }, { "nearest", core_nearest },
        { "cwd", core_cwd },     { "change_folder", core_change_folder },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
