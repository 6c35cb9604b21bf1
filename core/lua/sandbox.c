/* SPDX-License-Identifier: MIT
 * sandbox.c - running a recipe. It sees copies of the harmless standard libraries,
 * `require` for the library's public modules and for Lua files beside the recipe, and
 * nothing else: no io, os, debug, loadlib, bytecode. An unknown global is an error. With
 * trust a recipe gets the full language. */
#include <string.h>

#include "lua/script.h"

static const char *const base_names[] = {
    "assert", "error",  "ipairs", "next",         "pairs",    "pcall",    "rawequal", "rawget",
    "rawlen", "rawset", "select", "setmetatable", "tonumber", "tostring", "type",     "xpcall",
};
static const char *const library_names[] = { "coroutine", "math", "string", "table", "utf8" };

/* Copies a library table, so that a recipe cannot change what the trusted library uses. */
static void copy_library(lua_State *L, const char *name)
{
    lua_getglobal(L, name);
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_settable(L, -5);
    }
    lua_remove(L, -2);
    if (!strcmp(name, "string")) {
        lua_pushnil(L);
        lua_setfield(L, -2, "dump");
    }
}

static int unknown_global(lua_State *L)
{
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "?", *names[64];
    int n = 0;
    for (lua_pushnil(L); n < 64 && lua_next(L, 1); lua_pop(L, 1))
        if (lua_type(L, -2) == LUA_TSTRING) names[n++] = lua_tostring(L, -2);
    const char *near = str_nearest(name, names, n);
    return luaL_error(L, "unknown name '%s'%s%s%s", name, near ? "; did you mean '" : "",
                      near ? near : "", near ? "'?" : "");
}

/* getmetatable for tables only: a string's metatable is shared with the library. */
static int safe_getmetatable(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TTABLE || !lua_getmetatable(L, 1)) lua_pushnil(L);
    else luaL_getmetafield(L, 1, "__metatable"); /* as the original does */
    return 1;
}

static int recipe_print(lua_State *L)
{
    struct str s = { 0 };
    for (int i = 1; i <= lua_gettop(L); i++) {
        size_t n;
        const char *text = luaL_tolstring(L, i, &n);
        if (i > 1) str_add(&s, "\t");
        str_add_bytes(&s, text, n);
        lua_pop(L, 1);
    }
    log_line(LOG_INFO, "%s", s.data ? s.data : "");
    str_finish(&s);
    return 0;
}

static void load_beside(lua_State *L, const char *folder, const char *name, int env);

/* require for recipes: "burin" and "burin.*" (not the core), or a file beside the
 * recipe. Upvalues: folder, env. */
static int recipe_require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") !=
            strlen(name) ||
        strstr(name, "..") || name[0] == '.' || !strcmp(name, "burin.core") ||
        !strncmp(name, "burin.cli", 9))
        return luaL_error(L, "a recipe cannot require '%s'", name);
    if (!strcmp(name, "burin") || !strncmp(name, "burin.", 6)) {
        lua_getglobal(L, "require");
        lua_pushvalue(L, 1);
        lua_call(L, 1, 1);
        return 1;
    }
    load_beside(L, lua_tostring(L, lua_upvalueindex(1)), name, lua_upvalueindex(2));
    lua_call(L, 0, 1);
    return 1;
}

/* Before the first line of a recipe. A variable to be closed makes `return burin.train { ... }` an
 * ordinary call: a tail call would forget the recipe's line, which errors name. */
#define PROLOGUE "local recipe_ <close> = nil "

static void load_file(lua_State *L, const char *path, int env)
{
    struct str file = { 0 }, text = { 0 };
    if (!file_read(path, 1 << 20, &file)) script_raise(L);
    bool bytecode = file.len && file.data[0] == LUA_SIGNATURE[0];
    str_add(&text, PROLOGUE);
    if (file.len) str_add_bytes(&text, file.data, file.len);
    str_finish(&file);
    if (bytecode) {
        str_finish(&text);
        fail("%s is compiled Lua; a recipe is a plain text", path);
        script_raise(L);
    }
    lua_pushfstring(L, "@%s", path);
    int status = luaL_loadbufferx(L, text.data, text.len, lua_tostring(L, -1), "t");
    str_finish(&text);
    lua_remove(L, -2);
    if (status) lua_error(L);
    if (!env) return;
    lua_pushvalue(L, env);
    lua_setupvalue(L, -2, 1);
}

static void load_beside(lua_State *L, const char *folder, const char *name, int env)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, folder);
    for (const char *p = name; *p; p++) luaL_addchar(&b, *p == '.' ? '/' : *p);
    luaL_addstring(&b, ".lua");
    luaL_pushresult(&b);
    load_file(L, lua_tostring(L, -1), env);
    lua_remove(L, -2);
}

static void push_environment(lua_State *L, const char *folder)
{
    lua_newtable(L);
    int env = lua_gettop(L);
    for (int i = 0; i < COUNT_OF(base_names); i++) {
        lua_getglobal(L, base_names[i]);
        lua_setfield(L, env, base_names[i]);
    }
    for (int i = 0; i < COUNT_OF(library_names); i++) {
        copy_library(L, library_names[i]);
        lua_setfield(L, env, library_names[i]);
    }
    lua_pushcfunction(L, safe_getmetatable);
    lua_setfield(L, env, "getmetatable");
    lua_pushcfunction(L, recipe_print);
    lua_setfield(L, env, "print");
    lua_pushstring(L, LUA_VERSION);
    lua_setfield(L, env, "_VERSION");
    lua_pushstring(L, folder);
    lua_pushvalue(L, env);
    lua_pushcclosure(L, recipe_require, 2);
    lua_setfield(L, env, "require");
    lua_newtable(L);
    lua_pushcfunction(L, unknown_global);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, env);
}

/* A loop without end in a recipe's function (a schedule, a loss) would keep Ctrl-C waiting for the
 * end of the step. Only recipe code is interrupted, and only when it goes on: the step that a
 * signal meets is finished and saved. */
#define HOOK_COUNT 1000000
#define PATIENCE 3

static void stop_hook(lua_State *L, lua_Debug *d)
{
    static int strikes;
    if (!script_stop_requested()) return;
    if (!lua_getinfo(L, "Sl", d) || d->source[0] != '@' || ++strikes < PATIENCE) return;
    lua_pushfstring(L, "%s:%d: stopped here, inside the recipe; nothing was saved for this step",
                    d->short_src, d->currentline);
    script_push_error(L, "stopped");
    lua_error(L);
}

/* core.run_recipe(path, trust?) -> what the recipe returns */
static int core_run_recipe(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *slash = strrchr(path, '/');
    bool trust = lua_toboolean(L, 2);
    lua_settop(L, 1);
    lua_sethook(L, stop_hook, LUA_MASKCOUNT, HOOK_COUNT);
    lua_pushlstring(L, path, slash ? (size_t)(slash - path) + 1 : 0);
    if (trust) {
        lua_getglobal(L, "package");
        lua_pushfstring(L, "%s?.lua", lua_tostring(L, 2));
        lua_setfield(L, -2, "path");
        lua_pop(L, 1);
        load_file(L, path, 0);
    } else {
        push_environment(L, lua_tostring(L, 2));
        load_file(L, path, 3);
    }
    lua_call(L, 0, 1);
    return 1;
}

void script_open_sandbox(lua_State *L)
{
    lua_pushcfunction(L, core_run_recipe);
    lua_setfield(L, -2, "run_recipe");
}
