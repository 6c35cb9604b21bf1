/* SPDX-License-Identifier: MIT
 * scope.c - how long device memory lives. What is created while a scope is current belongs to it,
 * and is destroyed when it is closed, whatever Lua still holds: using it is an error then.
 *
 *   local scope <close> = core.scope()   current from here to the end of the block
 *   scope:leave()                        no longer current; what belongs to it stays
 *   scope:enter()                        current again
 *   scope:close()                        destroys sessions, then graphs, then variables
 *
 * Scopes nest: one that is made in another belongs to it, and the innermost is current. Outside of
 * all scopes an object lives until the collector finds that nobody holds it; so does one of a scope
 * that is never closed. A variable from outside that was packed into one of the scope's is not
 * destroyed, but has no contents any more (burin_var_pack). */
#include "lua/script.h"

#define SCOPE "burin.scope"

/* User values: a list of objects by rank, then one of the scopes within. The first hold nobody. */
enum { INNER = SCOPE_RANKS, LISTS };

struct scope {
    lua_Integer count[LISTS];
    bool closed;
};

static const char stack_key; /* in the registry: the list of current scopes, the innermost last */

static struct scope *scope_check(lua_State *L)
{
    struct scope *s = luaL_checkudata(L, 1, SCOPE);
    if (s->closed) luaL_error(L, "this scope is closed");
    return s;
}

/* Pushes the list of current scopes; returns how many there are. */
static lua_Integer push_stack(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &stack_key);
    return (lua_Integer)lua_rawlen(L, -1);
}

/* Where the scope at index is among the current ones; 0: it is not. */
static lua_Integer position_of(lua_State *L, int index)
{
    lua_Integer at = push_stack(L);
    for (; at > 0; at--) {
        lua_rawgeti(L, -1, at);
        bool found = lua_rawequal(L, -1, index);
        lua_pop(L, 1);
        if (found) break;
    }
    lua_pop(L, 1);
    return at;
}

static void append(lua_State *L, int scope, int list, int object)
{
    struct scope *s = lua_touserdata(L, scope);
    lua_getiuservalue(L, scope, list + 1);
    lua_pushvalue(L, object);
    lua_rawseti(L, -2, ++s->count[list]);
    lua_pop(L, 1);
}

static void add_to_current(lua_State *L, int list)
{
    int object = lua_gettop(L);
    lua_Integer n = push_stack(L);
    if (n) {
        lua_rawgeti(L, -1, n);
        append(L, object + 2, list, object);
    }
    lua_settop(L, object);
}

void script_scope_add(lua_State *L, enum scope_rank rank) { add_to_current(L, (int)rank); }

static void enter(lua_State *L, int scope)
{
    lua_Integer n = push_stack(L);
    lua_pushvalue(L, scope);
    lua_rawseti(L, -2, n + 1);
    lua_pop(L, 1);
}

/* core.scope() -> a new scope, which is current */
static int core_scope(lua_State *L)
{
    struct scope *s = lua_newuserdatauv(L, sizeof *s, LISTS);
    int scope = lua_gettop(L);
    *s = (struct scope){ 0 };
    for (int i = 0; i < LISTS; i++) {
        lua_newtable(L);
        if (i != INNER) {
            lua_getfield(L, LUA_REGISTRYINDEX, SCOPE);
            lua_getfield(L, -1, "weak");
            lua_setmetatable(L, -3);
            lua_pop(L, 1);
        }
        lua_setiuservalue(L, scope, i + 1);
    }
    luaL_setmetatable(L, SCOPE);
    add_to_current(L, INNER);
    enter(L, scope);
    return 1;
}

static void close_scope(lua_State *L, int scope);

/* The newest first. An object that the collector has found is in its list no more. */
static void close_list(lua_State *L, int scope, int list)
{
    struct scope *s = lua_touserdata(L, scope);
    lua_getiuservalue(L, scope, list + 1);
    for (lua_Integer i = s->count[list]; i > 0; i--) {
        if (lua_rawgeti(L, -1, i) != LUA_TNIL) {
            if (list == INNER) {
                close_scope(L, lua_gettop(L));
            } else if (luaL_getmetafield(L, -1, "__gc") != LUA_TNIL) {
                lua_pushvalue(L, -2);
                lua_call(L, 1, 0);
            }
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setiuservalue(L, scope, list + 1);
}

static void close_scope(lua_State *L, int scope)
{
    struct scope *s = lua_touserdata(L, scope);
    if (s->closed) return;
    s->closed = true;
    luaL_checkstack(L, 8, "scopes within scopes");
    lua_Integer at = position_of(L, scope), n = push_stack(L);
    for (; at && at <= n; at++) { /* those above it move down */
        lua_rawgeti(L, -1, at + 1);
        lua_rawseti(L, -2, at);
    }
    lua_pop(L, 1);
    close_list(L, scope, INNER);
    for (int rank = 0; rank < SCOPE_RANKS; rank++) close_list(L, scope, rank);
}

static int scope_close(lua_State *L)
{
    luaL_checkudata(L, 1, SCOPE);
    close_scope(L, 1);
    return 0;
}

/* At the end of a block: one that was left stays open. */
static int scope_end(lua_State *L)
{
    luaL_checkudata(L, 1, SCOPE);
    if (position_of(L, 1)) close_scope(L, 1);
    return 0;
}

static int scope_leave(lua_State *L)
{
    scope_check(L);
    lua_Integer at = position_of(L, 1), n = push_stack(L);
    if (!at) return luaL_error(L, "this scope is not current");
    if (at != n) return luaL_error(L, "a scope within this one is current");
    lua_pushnil(L);
    lua_rawseti(L, -2, n);
    return 0;
}

static int scope_enter(lua_State *L)
{
    scope_check(L);
    if (position_of(L, 1)) return luaL_error(L, "this scope is current already");
    enter(L, 1);
    return 0;
}

void script_open_scope(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "close", scope_close },
        { "leave", scope_leave },
        { "enter", scope_enter },
        { NULL, NULL },
    };
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &stack_key);
    luaL_newmetatable(L, SCOPE);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, scope_end);
    lua_setfield(L, -2, "__close");
    lua_newtable(L);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setfield(L, -2, "weak"); /* the metatable of lists that hold nobody */
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    lua_pushcfunction(L, core_scope);
    lua_setfield(L, -2, "scope");
}
