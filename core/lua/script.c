/* SPDX-License-Identifier: MIT
 * script.c - the interpreter: the embedded library, error positions, the command line's entry. */
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "base/embed.h"
#include "data/data.h"
#include "lua/script.h"
#include "plug/plug.h"

static bool is_recipe(const lua_Debug *d) { return d->source[0] == '@'; }

/* The whole path of a recipe, not Lua's shortened one: people click on
 * it, and options.lua opens it. */
static void push_position(lua_State *L, const lua_Debug *d)
{
    lua_pushfstring(L, "%s:%d", is_recipe(d) ? d->source + 1 : d->short_src, d->currentline);
}

/* A position helps in a recipe; a line of the library would only distract from the sentence. */
static void push_recipe_position(lua_State *L)
{
    lua_Debug d;
    if (!lua_getstack(L, 1, &d) || !lua_getinfo(L, "Sl", &d) || !is_recipe(&d) ||
        d.currentline <= 0) {
        lua_pushliteral(L, "");
        return;
    }
    push_position(L, &d);
    lua_pushliteral(L, ": ");
    lua_concat(L, 2);
}

int script_raise(lua_State *L)
{
    push_recipe_position(L);
    lua_pushstring(L, burin_error());
    lua_concat(L, 2);
    static const char *const kinds[] = { "failure", "internal", "data", "lost" };
    script_push_error(L, kinds[fail_kind()]);
    return lua_error(L);
}

/* The innermost line outside the library, or its own innermost one when there is none. */
static bool find_line(lua_State *L, lua_Debug *best)
{
    lua_Debug d;
    best->currentline = 0;
    for (int level = 1; lua_getstack(L, level, &d); level++) {
        if (!lua_getinfo(L, "Sl", &d) || d.currentline <= 0) continue;
        if (!best->currentline || is_recipe(&d)) *best = d;
        if (is_recipe(&d)) return true;
    }
    return false;
}

void script_push_where(lua_State *L)
{
    lua_Debug d;
    find_line(L, &d);
    if (d.currentline) push_position(L, &d);
    else lua_pushliteral(L, "");
}

int script_push_recipe_line(lua_State *L)
{
    lua_Debug d;
    if (lua_isfunction(L, 1)) {
        lua_settop(L, 1);
        lua_getinfo(L, ">S", &d);
        d.currentline = d.linedefined;
        if (!is_recipe(&d)) return 0;
    } else if (!find_line(L, &d)) {
        return 0;
    }
    push_position(L, &d);
    lua_pushfstring(L, "%s:%d", d.short_src, d.currentline);
    return 2;
}

void script_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta,
                  lua_CFunction index)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, meta, 0);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    if (index) lua_pushcclosure(L, index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

static const struct embed_file *find_module(const char *name, const char *suffix)
{
    for (const struct embed_file *f = embed_lua; f->name; f++) {
        size_t i = 0;
        while (name[i] && f->name[i] == (name[i] == '.' ? '/' : name[i])) i++;
        if (!name[i] && !strcmp(f->name + i, suffix)) return f;
    }
    return NULL;
}

bool script_is_library(const char *where)
{
    const char *colon = where ? strrchr(where, ':') : NULL;
    for (const struct embed_file *f = embed_lua; colon && f->name; f++) {
        size_t n = strlen(f->name);
        if (n == (size_t)(colon - where) && !memcmp(f->name, where, n)) return true;
    }
    return false;
}

/* package.searchers entry: the library out of the binary. "burin.nn" is
 * burin/nn.lua, "burin" burin/init.lua. */
static int library_searcher(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const struct embed_file *f = find_module(name, ".lua");
    if (!f) f = find_module(name, "/init.lua");
    if (!f) {
        lua_pushfstring(L, "no module '%s' in the library", name);
        return 1;
    }
    lua_pushfstring(L, "=%s", f->name);
    if (luaL_loadbufferx(L, (const char *)f->data, (size_t)(f->end - f->data), lua_tostring(L, -1),
                         "t"))
        return lua_error(L);
    lua_pushstring(L, f->name);
    return 2;
}

static int open_core(lua_State *L)
{
    lua_newtable(L);
    script_open_error(L);
    script_open_constants(L);
    script_open_tensor(L);
    script_open_matrix(L);
    script_open_device(L);
    script_open_scope(L);
    script_open_graph(L);
    script_open_model(L);
    script_open_json(L);
    script_open_disk(L);
    script_open_data(L);
    script_open_system(L);
    script_open_output(L);
    script_open_stop(L);
    script_open_limits(L);
    script_open_overtime(L);
    script_open_sandbox(L);
    lua_pushstring(L, BURIN_VERSION);
    lua_setfield(L, -2, "version");
    return 1;
}

/* The message handler: prints where it happened when that is asked for, so that a bug of ours can
 * be found. */
static int traceback(lua_State *L)
{
    if (!getenv("BURIN_TRACEBACK")) return 1;
    luaL_traceback(L, L, lua_isstring(L, 1) ? lua_tostring(L, 1) : "", 1);
    log_line(LOG_INFO, "%s", lua_tostring(L, -1));
    lua_settop(L, 1);
    return 1;
}

void script_open_library(lua_State *L)
{
    luaL_openlibs(L);
    luaL_requiref(L, "burin.core", open_core, 0);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -3, "searchers");
    lua_newtable(L); /* only the library, and what lies beside a trusted file: not LUA_PATH */
    lua_rawgeti(L, -2, 1);
    lua_rawseti(L, -2, 1);
    lua_pushcfunction(L, library_searcher);
    lua_rawseti(L, -2, 2);
    lua_rawgeti(L, -2, 2);
    lua_rawseti(L, -2, 3);
    lua_pushliteral(L, "");
    lua_setfield(L, -6, "path");
    lua_setfield(L, -5, "searchers");
    lua_pop(L, 4);
}

struct arguments {
    int argc;
    char **argv;
};

/* Everything that can raise happens in here, for want of memory even this. On the stack: the
 * arguments, which argv in Lua takes the place of. */
static int run(lua_State *L)
{
    const struct arguments *a = lua_touserdata(L, 1);
    lua_createtable(L, a->argc, 0);
    for (int i = 1; i < a->argc; i++) {
        lua_pushstring(L, a->argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_replace(L, 1);
    script_open_library(L);
    lua_getglobal(L, "require");
    lua_pushstring(L, "burin.cli.main");
    lua_call(L, 1, 1);
    lua_pushvalue(L, 1);
    lua_pushcfunction(L, traceback);
    lua_call(L, 2, 1);
    return 1;
}

/* Plugins are loaded before anything of the command line is read. */
static bool wants_only_ours(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--no-plugins")) return true;
    return false;
}

int script_main(int argc, char **argv)
{
    script_open_streams();
    plug_load_default(wants_only_ours(argc, argv));
    image_decoder_start(); /* before there are threads */
    script_catch_signals();
    lua_State *L = script_new_state();
    if (!L) {
        log_line(LOG_ERROR, "out of memory: there is none for Lua");
        return 71;
    }
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &(struct arguments){ argc, argv });
    int status = lua_pcall(L, 1, 1, 0), code = 1;
    const char *why = status && lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    if (!status) code = (int)lua_tointeger(L, -1);
    else log_line(LOG_ERROR, "%s", why ? why : "an error that is no text");
    if (status == LUA_ERRMEM || (why && !strcmp(why, "not enough memory"))) code = 71;
    lua_close(L);
    image_decoder_stop(NULL);
    int messages = script_device_finish();
    if (messages) {
        log_line(LOG_ERROR, "the validation layers had %d messages", messages);
        if (!code) code = 70;
    }
    if (!script_finish_stdout() && !code) code = 74;
    return code;
}
