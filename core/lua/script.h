/* SPDX-License-Identifier: MIT
 * script.h - the embedded Lua 5.4. The only folder that includes lua.h.
 *
 * Two worlds share one interpreter: the library (embedded scripts/, which may use
 * `burin.core`, the module made here) and recipes, which see the library's public face
 * through a sandbox (sandbox.c). */
#ifndef BURIN_SCRIPT_H
#define BURIN_SCRIPT_H

#include <lauxlib.h>
#include <lua.h>

#include "base/base.h"
#include "burin.h"

/* Runs the command line: `burin <argv[1]> ...` is
 * scripts/burin/cli/<argv[1]>.lua. Returns the exit code. */
int script_main(int argc, char **argv);

/* Lua's own libraries, burin.core and the embedded library; `require`
 * finds nothing else. May raise. */
void script_open_library(lua_State *L);

/* Each adds its functions to the table burin.core on top of the stack. */
void script_open_error(lua_State *L);
void script_open_constants(lua_State *L);
void script_open_tensor(lua_State *L);
void script_open_matrix(lua_State *L);
void script_open_device(lua_State *L);
void script_open_scope(lua_State *L);
void script_open_graph(lua_State *L);
void script_open_model(lua_State *L);
void script_open_json(lua_State *L);
void script_open_disk(lua_State *L);
void script_open_data(lua_State *L);
void script_open_system(lua_State *L);
void script_open_sandbox(lua_State *L);

/* Makes the class of a kind of userdata. Its methods are a table apart from its metatable, which is
 * hidden: whoever holds an object can call its methods, and reaches neither __gc nor __index.
 * index: NULL, or a function(object, key) that finds the methods in upvalue 1. Pushes nothing. */
void script_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta,
                  lua_CFunction index);

/* ---- what a recipe may use (limits.c) -------------------------------------------------------- */

void script_open_limits(lua_State *L);
/* A state whose memory, host tensors included, is limited. NULL when there is none at all. */
lua_State *script_new_state(void);
/* Bytes that all of Lua may take. */
size_t script_memory_limit(void);
/* Counts instructions from now on while code of a recipe is run in this thread or in those that it
 * makes. */
void script_count(lua_State *L);
/* Adds one round of counting: for what evades it, such as making a thread. */
void script_charge(lua_State *L);

/* The time of the recipe is over: as when it has taken too many instructions. In a handler too. */
void script_over_time(void);

/* ---- how long a recipe may take (overtime.c) ------------------------------------------------- */

/* With the limit in seconds, behind the place. */
#define SCRIPT_OVER_TIME \
    "the recipe took more than %g s of processor time; --recipe-time allows more"
void script_open_overtime(lua_State *L);
/* The library waits for a recipe from here to there. */
void script_wait_begin(void);
void script_wait_end(void);
double script_wait_limit(void);

/* ---- stdout (output.c) ----------------------------------------------------------------------- */

void script_open_output(lua_State *L);
/* Before anything is opened: no file of ours is taken for a stream that was closed. */
void script_open_streams(void);
/* At the end; false, and it was said, when not all that was to be printed could be written. */
bool script_finish_stdout(void);

/* ---- signals (stop.c) ------------------------------------------------------------------------ */

/* From now on a signal that ends the process takes unfinished files along, and a pipe that nobody
 * reads is an error of writing. */
void script_catch_signals(void);
void script_open_stop(lua_State *L);
/* Ends the program soon, from any thread or handler: the sentence is printed, unfinished files go.
 * text stays valid. */
void script_end(int code, const char *text);
/* Whether SIGINT, SIGTERM or SIGHUP has come since core.catch_stop(). */
bool script_stop_requested(void);

/* ---- errors and positions (script.c) --------------------------------------------------------- */

/* Raises burin_error() as an error (error.c) with the position of the calling recipe line; its kind
 * is "failure", or what fail_kind() says. */
int script_raise(lua_State *L);
/* Replaces the message on top of the stack by an error of this kind (error.c). */
void script_push_error(lua_State *L, const char *kind);
/* Pushes "recipe.lua:17" of the innermost Lua function outside the library, or of
 * the library when there is none. */
void script_push_where(lua_State *L);
/* Whether that is a line of the library's. */
bool script_is_library(const char *where);
/* The line of the recipe that is running, or the first one of the function that is argument 1: as
 * "a long/way/to/recipe.lua:17", and as Lua's own messages begin. Pushes and returns nothing
 * where that is no recipe. */
int script_push_recipe_line(lua_State *L);

burin_device *script_device(lua_State *L); /* the open device; raises when there is none */
/* After the interpreter: variables refer to it. Returns how many
 * messages the validation layers had. */
int script_device_finish(void);
void script_push_memory(lua_State *L, const burin_memory *m); /* a table of bytes */

/* ---- scopes (scope.c) ------------------------------------------------------------------------ */

/* In the order in which a scope destroys what belongs to it. */
enum scope_rank { SCOPE_SESSION, SCOPE_GRAPH, SCOPE_VAR, SCOPE_RANKS };
/* The object on top of the stack belongs to the current scope, if there is one. Its metatable's
 * __gc destroys it, and leaves a closed object. */
void script_scope_add(lua_State *L, enum scope_rank rank);

/* ---- host tensors (tensor.c): {dtype, shape, bytes} on the Lua side -------------------------- */

struct tensor {
    burin_dtype dtype;
    int rank;
    int64_t dim[BURIN_FILE_RANK];
    int64_t count;
    uint64_t bytes;
    const void *view; /* memory of somebody else (a mapped file, held by user value 1), or NULL */
    void *own;        /* or our own, which is Lua's, so that its limit and its collector see it */
};
struct tensor *tensor_check(lua_State *L, int index);
/* Pushes a new zeroed tensor (own memory). Raises "tensor too large". */
struct tensor *tensor_push(lua_State *L, burin_dtype dtype, int rank, const int64_t *dim);
/* One that looks into somebody else's bytes, whom the caller makes its user value 1. */
struct tensor *tensor_push_view(lua_State *L, burin_dtype dtype, int rank, const int64_t *dim,
                                const void *view);
const void *tensor_data(const struct tensor *t);
double tensor_get(const struct tensor *t, int64_t i);
void tensor_set(struct tensor *t, int64_t i, double v);
burin_dtype script_dtype(lua_State *L, int index, burin_dtype fallback); /* "f32" ...; raises */
/* Reads {64, 64, 3} at index into dim; returns the rank. Raises when it is not a shape. */
int script_shape(lua_State *L, int index, int64_t *dim, int max_rank);
void script_push_shape(lua_State *L, const int64_t *dim, int rank);

#endif
