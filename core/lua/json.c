/* SPDX-License-Identifier: MIT
 * json.c - JSON for Lua, by jansson. */
#include <jansson.h>
#include <stdlib.h>

#include "lua/script.h"

static void push_json(lua_State *L, const json_t *j)
{
    luaL_checkstack(L, 8, "JSON nests too deeply");
    switch (json_typeof(j)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *value;
        lua_newtable(L);
        json_object_foreach ((json_t *)j, key, value) {
            push_json(L, value);
            lua_setfield(L, -2, key);
        }
        break;
    }
    case JSON_ARRAY:
        lua_newtable(L);
        for (size_t i = 0; i < json_array_size(j); i++) {
            push_json(L, json_array_get(j, i));
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(j), json_string_length(j)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(j)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(j)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    default: lua_pushnil(L); break;
    }
}

static json_t *to_json(lua_State *L, int index, int depth)
{
    index = lua_absindex(L, index);
    luaL_checkstack(L, 8, "a table nests too deeply for JSON");
    if (depth > 64) luaL_error(L, "a table nests too deeply for JSON");
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN: return json_boolean(lua_toboolean(L, index));
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) return json_integer(lua_tointeger(L, index));
        return json_real(lua_tonumber(L, index)); /* NULL for NaN: stored as null below */
    case LUA_TSTRING: {
        size_t n;
        const char *s = lua_tolstring(L, index, &n);
        return json_stringn(s, n);
    }
    case LUA_TTABLE: {
        bool list = lua_rawlen(L, index) > 0;
        json_t *j = list ? json_array() : json_object();
        for (lua_Integer i = 1; list && i <= (lua_Integer)lua_rawlen(L, index); i++) {
            lua_rawgeti(L, index, i);
            json_t *v = to_json(L, -1, depth + 1);
            json_array_append_new(j, v ? v : json_null());
            lua_pop(L, 1);
        }
        if (!list)
            for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
                json_t *v = to_json(L, -1, depth + 1);
                lua_pushvalue(L, -2);
                json_object_set_new(j, lua_tostring(L, -1), v ? v : json_null());
                lua_pop(L, 1);
            }
        return j;
    }
    default: return json_null();
    }
}

/* core.json_encode(value, indent?) -> text; keys sorted, so equal values give equal bytes. */
static int core_json_encode(lua_State *L)
{
    size_t flags = JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9);
    int indent = (int)luaL_optinteger(L, 2, 0);
    json_t *j = to_json(L, 1, 0);
    char *text = json_dumps(j, flags | (indent ? JSON_INDENT(indent) : 0));
    json_decref(j);
    if (!text) return luaL_error(L, "this value cannot be written as JSON");
    lua_pushstring(L, text);
    mem_free(text);
    return 1;
}

/* core.json_decode(text, name?) -> value */
static int core_json_decode(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    json_error_t e;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!j) return luaL_error(L, "%s: line %d: %s", luaL_optstring(L, 2, "JSON"), e.line, e.text);
    push_json(L, j);
    json_decref(j);
    return 1;
}

void script_open_json(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "json_encode", core_json_encode },
        { "json_decode", core_json_decode },
        { NULL, NULL },
    };
    /* jansson answers NULL when memory is out, which a value that is null does too. */
    json_set_alloc_funcs(mem_alloc, mem_free);
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null"); /* what json_encode writes as null */
}
