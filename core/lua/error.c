/* SPDX-License-Identifier: MIT
 * error.c - errors that people are meant to see: { kind, message }. Their metatable marks them, and
 * a recipe has no way to it. What kinds there are, and the exit code of each, is for
 * scripts/burin/base/errors.lua to say. */
#include "lua/script.h"

#define ERROR "burin.error"

void script_push_error(lua_State *L, const char *kind)
{
    lua_createtable(L, 0, 2);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_rotate(L, -2, 1);
    lua_setfield(L, -2, "message");
    luaL_setmetatable(L, ERROR);
}

/* core.new_error(kind, message) */
static int core_new_error(lua_State *L)
{
    const char *kind = luaL_checkstring(L, 1);
    luaL_checkstring(L, 2);
    lua_settop(L, 2);
    script_push_error(L, kind);
    return 1;
}

static bool is_error(lua_State *L, int index)
{
    if (!lua_istable(L, index) || !lua_getmetatable(L, index)) return false;
    luaL_getmetatable(L, ERROR);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

static int core_is_error(lua_State *L)
{
    lua_pushboolean(L, is_error(L, 1));
    return 1;
}

static int error_tostring(lua_State *L)
{
    lua_settop(L, 1);
    lua_pushliteral(L, "message");
    lua_rawget(L, 1);
    if (!lua_isstring(L, -1))
        lua_pushliteral(L, "?"); /* a recipe that caught it took the text away */
    return 1;
}

void script_open_error(lua_State *L)
{
    luaL_newmetatable(L, ERROR);
    lua_pushcfunction(L, error_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushcfunction(L, core_new_error);
    lua_setfield(L, -2, "new_error");
    lua_pushcfunction(L, core_is_error);
    lua_setfield(L, -2, "is_error");
}
