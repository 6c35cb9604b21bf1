/* SPDX-License-Identifier: MIT
 * sandbox.c - running a recipe. It sees copies of the harmless standard libraries, `require` for
 * "burin" and for Lua files beside the recipe, and nothing else: no io, os, debug, loadlib,
 * bytecode, finalizers. An unknown global is an error, and so is a write into a table that hides
 * its metatable. With trust a recipe gets the full language. */
#include <string.h>

#include "lua/script.h"

static const char *const base_names[] = {
    "assert",   "error",  "ipairs",   "next",     "pairs",    "pcall", "rawlen",
    "rawequal", "select", "_VERSION", "tonumber", "tostring", "type",  "xpcall",
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

/* ---- standard functions, made safe ----------------------------------------------------------- */

static bool is_protected(lua_State *L, int index)
{
    if (luaL_getmetafield(L, index, "__metatable") == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

/* getmetatable for tables only: a string's metatable is shared with the library. */
static int safe_getmetatable(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TTABLE || !lua_getmetatable(L, 1)) lua_pushnil(L);
    else luaL_getmetafield(L, 1, "__metatable"); /* as the original does */
    return 1;
}

/* A finalizer would run where no hook counts, and whenever it likes. */
static int safe_setmetatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table");
    if (is_protected(L, 1)) return luaL_error(L, "cannot change a protected metatable");
    lua_settop(L, 2);
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "a recipe has no finalizers (__gc)");
        lua_pop(L, 1);
    }
    lua_setmetatable(L, 1);
    return 1;
}

static void check_own(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    if (is_protected(L, 1)) luaL_argerror(L, 1, "this table is protected");
}

static int safe_rawget(lua_State *L)
{
    check_own(L);
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    lua_rawget(L, 1);
    return 1;
}

static int safe_rawset(lua_State *L)
{
    check_own(L);
    luaL_checkany(L, 3);
    lua_settop(L, 3);
    lua_rawset(L, 1);
    return 1;
}

/* Lua lets no hook run in what an error that a hook raised calls before somebody caught it: message
 * handlers, and the variables that a dead thread still has to close. A recipe could go on there
 * for ever. So handlers are called once the error was caught, and every thread catches its own
 * errors. */
static int finish_xpcall(lua_State *L, int status, lua_KContext context)
{
    (void)context;
    bool ok = status == LUA_OK || status == LUA_YIELD;
    if (!ok) {
        lua_pushvalue(L, 2);
        lua_insert(L, -2);
        lua_pcall(L, 1, 1, 0);
    }
    lua_pushboolean(L, ok);
    lua_replace(L, 2);
    return lua_gettop(L) - 1;
}

static int safe_xpcall(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 1);
    lua_insert(L, 3);
    int n = lua_gettop(L) - 3;
    return finish_xpcall(L, lua_pcallk(L, n, LUA_MULTRET, 0, 0, finish_xpcall), 0);
}

static int finish_thread(lua_State *L, int status, lua_KContext context)
{
    (void)context;
    return status == LUA_OK || status == LUA_YIELD ? lua_gettop(L) : lua_error(L);
}

static int thread_body(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    int n = lua_gettop(L) - 1;
    return finish_thread(L, lua_pcallk(L, n, LUA_MULTRET, 0, 0, finish_thread), 0);
}

/* coroutine.create and wrap (upvalue 1 is the original): a new thread counts its instructions from
 * zero, so each costs a round. */
static int safe_coroutine(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    script_charge(L);
    lua_settop(L, 1);
    lua_pushcclosure(L, thread_body, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static int recipe_print(lua_State *L)
{
    luaL_Buffer b;
    int n = lua_gettop(L);
    luaL_buffinit(L, &b);
    for (int i = 1; i <= n; i++) {
        if (i > 1) luaL_addchar(&b, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    log_line(LOG_INFO, "%s", lua_tostring(L, -1));
    return 0;
}

/* ---- require --------------------------------------------------------------------------------- */

/* Before the first line of a recipe. A variable to be closed makes `return burin.train { ... }` an
 * ordinary call: a tail call would forget the recipe's line, which errors name. */
#define PROLOGUE "local recipe_ <close> = nil "

static const char *const required_key = "burin.required"; /* in the registry: module -> text */

/* Keeps the text of a module, as it is about to be run: a run that depends on it keeps it too. */
static void note_required(lua_State *L, const char *module, const struct str *file)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, required_key);
    lua_pushlstring(L, file->len ? file->data : "", file->len);
    lua_setfield(L, -2, module);
    lua_pop(L, 1);
}

/* module: the name by which a recipe required the file; NULL for the recipe itself */
static void load_file(lua_State *L, const char *path, int env, const char *module)
{
    struct str file = { 0 }, text = { 0 };
    if (!file_read(path, 1 << 20, &file)) script_raise(L);
    if (module) note_required(L, module, &file);
    size_t mark = file.len >= 3 && !memcmp(file.data, "\xef\xbb\xbf", 3) ? 3 : 0; /* of UTF-8 */
    str_add(&text, PROLOGUE);
    if (file.len > mark) str_add_bytes(&text, file.data + mark, file.len - mark);
    bool bytecode = file.len > mark && file.data[mark] == LUA_SIGNATURE[0];
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

/* Pushes the path of a module beside the recipe: "world.shapes" is <folder>world/shapes.lua. */
static const char *push_path(lua_State *L, const char *folder, const char *name)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, folder);
    for (const char *p = name; *p; p++) luaL_addchar(&b, *p == '.' ? '/' : *p);
    luaL_addstring(&b, ".lua");
    luaL_pushresult(&b);
    return lua_tostring(L, -1);
}

static bool is_module_name(const char *name)
{
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
               strlen(name) &&
           *name && name[0] != '.' && !strstr(name, "..");
}

/* require for recipes: "burin", or a file beside the recipe, which is run once.
 * Upvalues: folder, environment, what is loaded. */
static int recipe_require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1), *folder = lua_tostring(L, lua_upvalueindex(1));
    lua_settop(L, 1);
    if (!strcmp(name, "burin")) {
        lua_getglobal(L, "require");
        lua_pushvalue(L, 1);
        lua_call(L, 1, 1);
        return 1;
    }
    if (!strncmp(name, "burin.", 6))
        return luaL_error(L, "a recipe cannot require '%s'; what is public is in require \"burin\"",
                          name);
    if (!is_module_name(name)) return luaL_error(L, "a recipe cannot require '%s'", name);
    if (lua_getfield(L, lua_upvalueindex(3), name) != LUA_TNIL) {
        if (lua_islightuserdata(L, -1))
            return luaL_error(L, "'%s' requires itself, or has failed before", name);
        return 1;
    }
    const char *path = push_path(L, folder, name);
    if (file_exists(path) && !file_is_beneath(path, folder))
        return luaL_error(L, "a recipe cannot require '%s': it lies outside the recipe's folder",
                          name);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, lua_upvalueindex(3), name);
    load_file(L, path, lua_upvalueindex(2), name);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) lua_pushboolean(L, 1); /* as the original does */
    lua_pushvalue(L, -1);
    lua_setfield(L, lua_upvalueindex(3), name);
    return 1;
}

/* ---- the environment ------------------------------------------------------------------------- */

static void wrap_coroutines(lua_State *L, int env)
{
    static const char *const makers[] = { "create", "wrap" };
    lua_getfield(L, env, "coroutine");
    for (int i = 0; i < COUNT_OF(makers); i++) {
        lua_getfield(L, -1, makers[i]);
        lua_pushcclosure(L, safe_coroutine, 1);
        lua_setfield(L, -2, makers[i]);
    }
    lua_pop(L, 1);
}

static void push_environment(lua_State *L, const char *folder)
{
    static const luaL_Reg functions[] = {
        { "getmetatable", safe_getmetatable },
        { "setmetatable", safe_setmetatable },
        { "rawget", safe_rawget },
        { "rawset", safe_rawset },
        { "xpcall", safe_xpcall },
        { "print", recipe_print },
        { NULL, NULL },
    };
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
    wrap_coroutines(L, env);
    luaL_setfuncs(L, functions, 0);
    lua_pushstring(L, folder);
    lua_pushvalue(L, env);
    lua_newtable(L);
    lua_pushcclosure(L, recipe_require, 3);
    lua_setfield(L, env, "require");
    lua_newtable(L);
    lua_pushcfunction(L, unknown_global);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, env);
}

/* Strings have their methods from the real table, not from the copy. */
static void drop_dump(lua_State *L)
{
    lua_getglobal(L, "string");
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    lua_pop(L, 1);
}

/* core.sandbox(folder) -> the globals of a recipe that lies in it ("" or with a slash at its end).
 * From now on nothing is written but beneath the folder that core.confine_to names. */
static int core_sandbox(lua_State *L)
{
    const char *folder = luaL_checkstring(L, 1);
    file_confine();
    drop_dump(L);
    push_environment(L, folder);
    return 1;
}

static void push_folder(lua_State *L, const char *path)
{
    const char *slash = strrchr(path, '/');
    lua_pushlstring(L, path, slash ? (size_t)(slash - path) + 1 : 0);
}

/* core.run_recipe(path, trust?, folder?) -> what the recipe returns. folder: where the files are
 * that it requires, with a slash at its end; the recipe's own unless told. */
static int core_run_recipe(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *folder = luaL_optstring(L, 3, NULL);
    bool trust = lua_toboolean(L, 2);
    lua_settop(L, 3);
    script_count(L);
    if (folder) lua_pushstring(L, folder);
    else push_folder(L, path);
    lua_replace(L, 2);
    lua_settop(L, 2);
    if (trust) {
        lua_getglobal(L, "package");
        lua_pushfstring(L, "%s?.lua", lua_tostring(L, 2));
        lua_setfield(L, -2, "path");
        lua_pop(L, 1);
        load_file(L, path, 0, NULL);
    } else {
        lua_pushcfunction(L, core_sandbox);
        lua_insert(L, 2);
        lua_call(L, 1, 1);
        load_file(L, path, 2, NULL);
    }
    lua_call(L, 0, 1);
    return 1;
}

/* core.required_files() -> { [module] = text } of what the recipe has required so far; of a trusted
 * one, whose require is Lua's own, it says nothing. */
static int core_required_files(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, required_key);
    return 1;
}

/* core.confine_to(folder): the folder that a recipe without trust may write into. */
static int core_confine_to(lua_State *L)
{
    file_confine_to(luaL_checkstring(L, 1));
    return 0;
}

/* core.in_cache(f): runs f, which may write Burin's caches, and calls nothing of a recipe. */
static int core_in_cache(lua_State *L)
{
    file_cache_enter();
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    file_cache_leave();
    return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

void script_open_sandbox(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "sandbox", core_sandbox },
        { "run_recipe", core_run_recipe },
        { "required_files", core_required_files },
        { "confine_to", core_confine_to },
        { "in_cache", core_in_cache },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
