/* SPDX-License-Identifier: MIT
 * graph.c - variables, graphs, nodes and sessions for Lua. Node methods and operators
 * are made by looping over the op table: x:group_norm(gamma, beta, { groups = 32 }), x
 * + y, x:reshape{ 1, 64, 320 }. */
#include <string.h>

#include "graph/graph.h"
#include "lua/script.h"

#define VAR "burin.var"
#define GRAPH "burin.graph"
#define NODE "burin.node"
#define SESSION "burin.session"

/* ---- variables ------------------------------------------------------------------------------- */

static burin_var *var_check(lua_State *L, int index)
{
    burin_var **box = luaL_checkudata(L, index, VAR);
    if (!*box) luaL_error(L, "this variable is closed");
    return *box;
}

static burin_var **var_push(lua_State *L)
{
    burin_var **box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = NULL;
    luaL_setmetatable(L, VAR);
    script_scope_add(L, SCOPE_VAR);
    return box;
}

static burin_role check_role(lua_State *L, int index)
{
    static const char *const names[] = { "weight", "param", "grad", "state", "input", NULL };
    return (burin_role)(luaL_checkoption(L, index, "weight", names) + BURIN_ROLE_WEIGHT);
}

/* core.var(name, shape, dtype, role) */
static int core_var(lua_State *L)
{
    burin_shape s = { 0 };
    const char *name = luaL_checkstring(L, 1);
    s.rank = script_shape(L, 2, s.dim, BURIN_MAX_RANK);
    burin_dtype dtype = script_dtype(L, 3, BURIN_F32);
    burin_role role = check_role(L, 4);
    burin_var **box = var_push(L);
    *box = burin_var_create(script_device(L), name, dtype, &s, role);
    return *box ? 1 : script_raise(L);
}

/* core.pack(name, { vars }, role) -> packed variable, which keeps its
 * members alive and is kept by them. */
static int core_pack(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    burin_role role = check_role(L, 3);
    int n = (int)lua_rawlen(L, 2);
    burin_var **vars = lua_newuserdatauv(L, sizeof *vars * (size_t)(n ? n : 1), 0);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 2, i + 1);
        vars[i] = var_check(L, -1);
        lua_pop(L, 1);
    }
    burin_var **box = var_push(L);
    *box = burin_var_pack(script_device(L), name, vars, n, role);
    if (!*box) return script_raise(L);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 1);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 2, i + 1);
        lua_pushvalue(L, -2);
        lua_setiuservalue(L, -2, 1);
        lua_pop(L, 1);
    }
    return 1;
}

/* core.pack_like(name, packed, role) -> packed variable, { views } */
static int core_pack_like(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    burin_var *like = var_check(L, 2);
    burin_role role = check_role(L, 3);
    burin_var **views =
        lua_newuserdatauv(L, sizeof *views * (size_t)(like->members ? like->members : 1), 0);
    burin_var **box = var_push(L);
    *box = burin_var_pack_like(script_device(L), name, like, role, views);
    if (!*box) return script_raise(L);
    lua_createtable(L, like->members, 0);
    for (int i = 0; i < like->members; i++) {
        *var_push(L) = views[i];
        lua_pushvalue(L, -3);
        lua_setiuservalue(L, -2, 1); /* a view keeps the packed variable alive */
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, -3, 1);
    return 2;
}

static int var_gc(lua_State *L)
{
    burin_var **box = luaL_checkudata(L, 1, VAR);
    burin_var_destroy(*box);
    *box = NULL;
    return 0;
}

/* Types that occur in files only go through float32; the copy is on the stack. */
static struct tensor *tensor_to_f32(lua_State *L, int index)
{
    lua_getfield(L, index, "cast");
    lua_pushvalue(L, index);
    lua_pushstring(L, "f32");
    lua_call(L, 2, 1);
    return tensor_check(L, -1);
}

/* v:write(tensor | number): a number fills. */
static int var_write(lua_State *L)
{
    burin_var *v = var_check(L, 1);
    if (lua_isnumber(L, 2)) {
        int64_t n = burin_shape_count(&v->shape);
        struct tensor *t = tensor_push(L, BURIN_F32, 1, &n);
        for (int64_t i = 0; i < n; i++) ((float *)t->own)[i] = (float)lua_tonumber(L, 2);
        lua_replace(L, 2);
    }
    struct tensor *t = tensor_check(L, 2);
    if (t->dtype > BURIN_I32) t = tensor_to_f32(L, 2);
    if (!burin_var_write(v, t->dtype, tensor_data(t), t->count)) return script_raise(L);
    lua_settop(L, 1);
    return 1;
}

/* v:upload(tensor, outputs, inputs, taps, scale?): a weight in file
 * layout; see burin_var_upload. */
static int var_upload(lua_State *L)
{
    burin_var *v = var_check(L, 1), *scale = lua_isnoneornil(L, 6) ? NULL : var_check(L, 6);
    struct tensor *t = tensor_check(L, 2);
    int64_t outputs = luaL_checkinteger(L, 3), inputs = luaL_checkinteger(L, 4),
            taps = luaL_checkinteger(L, 5);
    luaL_argcheck(L, t->count == burin_shape_count(&v->shape), 2, "another number of elements");
    if (t->dtype < BURIN_F32 || t->dtype > BURIN_BF16) t = tensor_to_f32(L, 2);
    return burin_var_upload(v, scale, t->dtype, tensor_data(t), outputs, inputs, taps)
               ? 0
               : script_raise(L);
}

/* v:absent(flag): see burin_var_set_absent */
static int var_absent(lua_State *L)
{
    burin_var_set_absent(var_check(L, 1), lua_toboolean(L, 2));
    return 0;
}

/* v:read(dtype?) -> tensor (float32 unless told; I32 variables as i32) */
static int var_read(lua_State *L)
{
    burin_var *v = var_check(L, 1);
    burin_dtype dtype = script_dtype(L, 2, v->dtype == BURIN_I32 ? BURIN_I32 : BURIN_F32);
    struct tensor *t = tensor_push(L, dtype, v->shape.rank, v->shape.dim);
    if (!burin_var_read(v, dtype, t->own, t->count)) return script_raise(L);
    return 1;
}

static int var_index(lua_State *L)
{
    burin_var *v = var_check(L, 1);
    const char *key = luaL_checkstring(L, 2);
    if (!strcmp(key, "shape")) {
        script_push_shape(L, v->shape.dim, v->shape.rank);
        return 1;
    }
    if (!strcmp(key, "name")) {
        lua_pushstring(L, v->name);
        return 1;
    }
    if (!strcmp(key, "dtype")) {
        lua_pushstring(L, burin_dtype_name(v->dtype));
        return 1;
    }
    if (!strcmp(key, "bytes")) {
        lua_pushinteger(L, (lua_Integer)v->bytes);
        return 1;
    }
    if (!strcmp(key, "count")) {
        lua_pushinteger(L, burin_shape_count(&v->shape));
        return 1;
    }
    if (!strcmp(key, "members")) {
        lua_getiuservalue(L, 1, 1);
        return 1;
    }
    lua_getfield(L, lua_upvalueindex(1), key);
    return 1;
}

/* ---- graphs and nodes ------------------------------------------------------------------------ */

static burin_graph *graph_check(lua_State *L, int index)
{
    burin_graph **box = luaL_checkudata(L, index, GRAPH);
    if (!*box) luaL_error(L, "this graph is closed");
    return *box;
}

static burin_node *node_check(lua_State *L, int index)
{
    burin_node **box = luaL_checkudata(L, index, NODE);
    lua_getiuservalue(L, index, 1);
    bool closed = !*(burin_graph **)lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (closed) luaL_error(L, "the graph of this node is closed");
    return *box;
}

/* core.graph_type(x) -> "node" and its graph, "closed node" when that has been closed, "var", or
 * nil for what is none of these */
static int core_graph_type(lua_State *L)
{
    if (luaL_testudata(L, 1, NODE)) {
        lua_getiuservalue(L, 1, 1);
        bool closed = !*(burin_graph **)lua_touserdata(L, -1);
        lua_pushstring(L, closed ? "closed node" : "node");
        lua_insert(L, -2);
        return 2;
    }
    if (luaL_testudata(L, 1, VAR)) lua_pushliteral(L, "var");
    else lua_pushnil(L);
    return 1;
}

/* Pushes a node; graph_index: its graph's userdata, kept alive by the node.
 * Raises the graph's error on NULL. */
static int node_push(lua_State *L, int graph_index, burin_node *n)
{
    graph_index = lua_absindex(L, graph_index);
    if (!n) {
        const char *text = burin_graph_error(graph_check(L, graph_index));
        return luaL_error(L, "%s", text ? text : burin_error());
    }
    burin_node **box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = n;
    luaL_setmetatable(L, NODE);
    lua_pushvalue(L, graph_index);
    lua_setiuservalue(L, -2, 1);
    return 1;
}

static void set_where(lua_State *L, burin_graph *g)
{
    script_push_where(L);
    burin_graph_where(g, lua_tostring(L, -1));
    lua_pop(L, 1);
}

static int core_graph(lua_State *L)
{
    burin_graph **box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = NULL;
    luaL_setmetatable(L, GRAPH);
    script_scope_add(L, SCOPE_GRAPH);
    *box = burin_graph_create();
    lua_newtable(L); /* the variables that the graph uses, kept alive by it and by its sessions */
    lua_setiuservalue(L, -2, 1);
    return 1;
}

static int graph_gc(lua_State *L)
{
    burin_graph **box = luaL_checkudata(L, 1, GRAPH);
    burin_graph_destroy(*box);
    *box = NULL;
    return 0;
}

static void keep_var(lua_State *L, int graph_index, int var_index_)
{
    lua_getiuservalue(L, graph_index, 1);
    lua_pushvalue(L, var_index_);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* g:leaf(var) */
static int graph_leaf(lua_State *L)
{
    burin_graph *g = graph_check(L, 1);
    burin_var *v = var_check(L, 2);
    set_where(L, g);
    keep_var(L, 1, 2);
    return node_push(L, 1, burin_leaf(g, v));
}

/* g:assign(var, node) */
static int graph_assign(lua_State *L)
{
    burin_graph *g = graph_check(L, 1);
    set_where(L, g);
    keep_var(L, 1, 2);
    return node_push(L, 1, burin_assign(g, var_check(L, 2), node_check(L, 3)));
}

/* g:backward(loss, { wrt }, seed?) -> { gradient or false per entry } */
static int graph_backward(lua_State *L)
{
    burin_graph *g = graph_check(L, 1);
    burin_node *loss = node_check(L, 2), *seed = lua_isnoneornil(L, 4) ? NULL : node_check(L, 4);
    luaL_checktype(L, 3, LUA_TTABLE);
    int n = (int)lua_rawlen(L, 3);
    burin_node **wrt = lua_newuserdatauv(L, sizeof *wrt * (size_t)(2 * n + 1), 0), **dwrt = wrt + n;
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 3, i + 1);
        wrt[i] = node_check(L, -1);
        lua_pop(L, 1);
    }
    set_where(L, g);
    if (!burin_backward(g, loss, seed, wrt, dwrt, n)) {
        const char *text = burin_graph_error(g);
        return luaL_error(L, "%s", text ? text : burin_error());
    }
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        if (dwrt[i]) node_push(L, 1, dwrt[i]);
        else lua_pushboolean(L, 0);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* g:checkpoint(f, ...) -> f(...), whose nodes are recomputed in the backward pass */
static int graph_checkpoint(lua_State *L)
{
    burin_graph *g = graph_check(L, 1);
    luaL_checkany(L, 2);
    burin_checkpoint_enter(g);
    int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
    if (*(burin_graph **)lua_touserdata(L, 1)) burin_checkpoint_leave(g); /* f may have closed it */
    if (status != LUA_OK) return lua_error(L);
    return lua_gettop(L) - 1;
}

/* g:label(text): what the nodes belong to that are made from now on, for messages */
static int graph_label(lua_State *L)
{
    burin_graph_label(graph_check(L, 1), luaL_checkstring(L, 2));
    return 0;
}

static int graph_count(lua_State *L)
{
    lua_pushinteger(L, graph_check(L, 1)->count);
    return 1;
}

/* Reads the attribute table at index into attrs by the row's names; an unknown name is an error. */
static burin_dtype read_attrs(lua_State *L, int index, const struct op_row *row, double *attrs)
{
    burin_dtype dtype = 0;
    for (int i = 0; i < row->n_attrs; i++) attrs[i] = row->attr[i].fallback;
    if (lua_isnoneornil(L, index)) return dtype;
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "%s: options are named, as in { name = value }", row->name);
        const char *key = lua_tostring(L, -2);
        int i = 0;
        if (!strcmp(key, "dtype")) {
            dtype = script_dtype(L, lua_gettop(L), 0);
            continue;
        }
        while (i < row->n_attrs && strcmp(key, row->attr[i].name)) i++;
        if (i == row->n_attrs)
            luaL_error(L, "%s has no option '%s' (it takes: %s)", row->name, key, row->attrs);
        attrs[i] = lua_isboolean(L, -1) ? lua_toboolean(L, -1) : luaL_checknumber(L, -1);
    }
    return dtype;
}

/* A method of every row: x:op(further inputs ..., target shape?, options?).
 * The row's number is upvalue 1. */
static int node_call(lua_State *L)
{
    const struct op_row *row = op_at((enum op_code)lua_tointeger(L, lua_upvalueindex(1)));
    burin_node *in[BURIN_MAX_INPUTS];
    burin_shape to = { 0 };
    double attrs[BURIN_MAX_ATTRS];
    int at = 1;
    for (; at <= row->inputs; at++) in[at - 1] = node_check(L, at);
    if (row->takes_shape) to.rank = script_shape(L, at++, to.dim, BURIN_MAX_RANK);
    /* x:scale(2), x:clamp(0, 1): attributes by position */
    if (lua_isnumber(L, at) && row->n_attrs) {
        lua_newtable(L);
        int table = lua_gettop(L);
        for (int i = 0; i < row->n_attrs && at + i < table; i++) {
            lua_pushvalue(L, at + i);
            lua_setfield(L, table, row->attr[i].name);
        }
        at = table;
    } else if (lua_type(L, at) == LUA_TSTRING) { /* x:cast "f16" */
        lua_newtable(L);
        lua_pushvalue(L, at);
        lua_setfield(L, -2, "dtype");
        at = lua_gettop(L);
    }
    burin_dtype dtype = read_attrs(L, at, row, attrs);
    burin_graph *g = in[0]->graph;
    set_where(L, g);
    lua_getiuservalue(L, 1, 1);
    return node_push(L, -1,
                     burin_call(g, row->name, in, row->inputs, attrs, row->n_attrs,
                                row->takes_shape ? &to : NULL, dtype));
}

static int call_unary(lua_State *L, const char *op, int x, double by)
{
    burin_node *in[1] = { node_check(L, x) };
    set_where(L, in[0]->graph);
    lua_getiuservalue(L, x, 1);
    bool takes = op_at((enum op_code)op_find(op))->n_attrs > 0;
    return node_push(L, -1, burin_call(in[0]->graph, op, in, 1, &by, takes, NULL, 0));
}

/* Operators: node with node is the row; node with number is scale or shift. */
static int node_operator(lua_State *L)
{
    const char *op = lua_tostring(L, lua_upvalueindex(1));
    bool left = lua_type(L, 1) == LUA_TNUMBER, right = lua_type(L, 2) == LUA_TNUMBER;
    if (!left && !right) {
        burin_node *in[2] = { node_check(L, 1), node_check(L, 2) };
        set_where(L, in[0]->graph);
        lua_getiuservalue(L, 1, 1);
        return node_push(L, -1, burin_call(in[0]->graph, op, in, 2, NULL, 0, NULL, 0));
    }
    double number = lua_tonumber(L, left ? 1 : 2);
    int x = left ? 2 : 1;
    if (!strcmp(op, "mul")) return call_unary(L, "scale", x, number);
    if (!strcmp(op, "add")) return call_unary(L, "shift", x, number);
    if (!strcmp(op, "sub") && right) return call_unary(L, "shift", x, -number);
    if (!strcmp(op, "div") && right) return call_unary(L, "scale", x, 1 / number);
    call_unary(L, op[0] == 's' ? "neg" : "reciprocal", x, 0);
    return call_unary(L, op[0] == 's' ? "shift" : "scale", lua_gettop(L), number);
}

static int node_unm(lua_State *L) { return call_unary(L, "neg", 1, 0); }

/* x:part(i): further outputs of attention, norms */
static int node_part(lua_State *L)
{
    burin_node *n = node_check(L, 1);
    lua_getiuservalue(L, 1, 1);
    return node_push(L, -1, burin_part(n, (int)luaL_checkinteger(L, 2)));
}

static int node_index(lua_State *L)
{
    burin_node *n = node_check(L, 1);
    const char *key = luaL_checkstring(L, 2);
    if (!strcmp(key, "shape")) {
        script_push_shape(L, n->shape.dim, n->shape.rank);
        return 1;
    }
    if (!strcmp(key, "dtype")) {
        lua_pushstring(L, burin_dtype_name(n->dtype));
        return 1;
    }
    if (!strcmp(key, "graph")) {
        lua_getiuservalue(L, 1, 1);
        return 1;
    }
    lua_getfield(L, lua_upvalueindex(1), key);
    if (lua_isnil(L, -1)) {
        const char *names[OP_COUNT];
        for (int i = 0; i < OP_COUNT; i++) names[i] = op_at((enum op_code)i)->name;
        const char *near = str_nearest(key, names, OP_COUNT);
        return luaL_error(L, "there is no op '%s'%s%s%s", key, near ? "; did you mean '" : "",
                          near ? near : "", near ? "'?" : "");
    }
    return 1;
}

static int node_tostring(lua_State *L)
{
    burin_node *n = node_check(L, 1);
    char text[64];
    lua_pushfstring(L, "node %s %s %s", op_at((enum op_code)n->op)->name,
                    burin_dtype_name(n->dtype), shape_text(&n->shape, text));
    return 1;
}

/* x:count() -> number of elements */
static int node_count(lua_State *L)
{
    lua_pushinteger(L, burin_shape_count(&node_check(L, 1)->shape));
    return 1;
}

/* core.ops() -> list of rows, for `burin ops` and the documentation */
static int core_ops(lua_State *L)
{
    lua_createtable(L, OP_COUNT, 0);
    for (int i = 0; i < OP_COUNT; i++) {
        const struct op_row *row = op_at((enum op_code)i);
        lua_newtable(L);
        lua_pushstring(L, row->name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, row->attrs);
        lua_setfield(L, -2, "attrs");
        lua_pushstring(L, row->help);
        lua_setfield(L, -2, "help");
        lua_pushinteger(L, row->inputs);
        lua_setfield(L, -2, "inputs");
        lua_pushboolean(L, row->gradient != NULL);
        lua_setfield(L, -2, "differentiable");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ---- sessions -------------------------------------------------------------------------------- */

static burin_session *session_check(lua_State *L, int index)
{
    burin_session **box = luaL_checkudata(L, index, SESSION);
    if (!*box) luaL_error(L, "this session is closed");
    return *box;
}

/* core.session(graph, name) */
static int core_session(lua_State *L)
{
    burin_graph *g = graph_check(L, 1);
    const char *name = luaL_checkstring(L, 2);
    burin_session **box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = NULL;
    luaL_setmetatable(L, SESSION);
    script_scope_add(L, SCOPE_SESSION);
    lua_getiuservalue(L, 1, 1);
    lua_setiuservalue(L, -2, 1);
    *box = burin_session_create(script_device(L), g, name);
    if (!*box) {
        const char *text = burin_graph_error(g);
        return luaL_error(L, "%s", text ? text : burin_error());
    }
    return 1;
}

static int session_gc(lua_State *L)
{
    burin_session **box = luaL_checkudata(L, 1, SESSION);
    burin_session_destroy(*box);
    *box = NULL;
    return 0;
}

static int session_run(lua_State *L)
{
    if (!burin_session_run(session_check(L, 1))) return script_raise(L);
    lua_settop(L, 1);
    return 1;
}

/* s:info() -> bytes by role, activations, workspace, arena, total; flops; dispatches */
static int session_info(lua_State *L)
{
    burin_session *s = session_check(L, 1);
    burin_memory m;
    burin_session_memory(s, &m);
    script_push_memory(L, &m);
    lua_pushnumber(L, burin_session_flops(s));
    lua_setfield(L, -2, "flops");
    lua_pushinteger(L, burin_session_dispatches(s));
    lua_setfield(L, -2, "dispatches");
    return 1;
}

/* s:profile() -> { { label, seconds, flops, bytes } per dispatch }; runs the
 * session once, kernel by kernel */
static int session_profile(lua_State *L)
{
    burin_session *s = session_check(L, 1);
    int n = burin_session_dispatches(s);
    burin_profile *rows = lua_newuserdatauv(L, sizeof *rows * (size_t)(n + 1), 0);
    if (!burin_session_profile(s, rows, n)) return script_raise(L);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_createtable(L, 0, 4);
        lua_pushstring(L, rows[i].label);
        lua_setfield(L, -2, "label");
        lua_pushnumber(L, rows[i].seconds);
        lua_setfield(L, -2, "seconds");
        lua_pushnumber(L, rows[i].flops);
        lua_setfield(L, -2, "flops");
        lua_pushnumber(L, rows[i].bytes);
        lua_setfield(L, -2, "bytes");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* s:watch() -> nil when every result of a run is finite; else { op, label, where (of a recipe),
 * variable (each nil where there is none), gradient, dtype, shape, first, nans, infinities } of the
 * first that is not */
static int session_watch(lua_State *L)
{
    burin_finding f;
    if (!burin_session_watch(session_check(L, 1), &f)) return script_raise(L);
    if (!f.op) return 0;
    const struct {
        const char *name, *text;
    } text[] = { { "op", f.op },
                 { "label", f.label },
                 { "where", script_is_library(f.where) ? NULL : f.where },
                 { "variable", f.variable },
                 { "dtype", burin_dtype_name(f.dtype) } };
    const struct {
        const char *name;
        int64_t n;
    } number[] = { { "first", f.first }, { "nans", f.nans }, { "infinities", f.infinities } };
    lua_newtable(L);
    for (int i = 0; i < COUNT_OF(text); i++) {
        lua_pushstring(L, text[i].text); /* nil for NULL */
        lua_setfield(L, -2, text[i].name);
    }
    for (int i = 0; i < COUNT_OF(number); i++) {
        lua_pushinteger(L, (lua_Integer)number[i].n);
        lua_setfield(L, -2, number[i].name);
    }
    lua_pushboolean(L, f.gradient);
    lua_setfield(L, -2, "gradient");
    script_push_shape(L, f.shape.dim, f.shape.rank);
    lua_setfield(L, -2, "shape");
    return 1;
}

/* Nodes have a method for each op, and the operators. */
static void open_node_class(lua_State *L)
{
    static const luaL_Reg meta[] = {
        { "__tostring", node_tostring },
        { "__unm", node_unm },
        { NULL, NULL },
    };
    static const luaL_Reg methods[] = {
        { "part", node_part },
        { "count", node_count },
        { NULL, NULL },
    };
    static const char *const operators[][2] = {
        { "__add", "add" },
        { "__sub", "sub" },
        { "__mul", "mul" },
        { "__div", "div" },
    };
    script_class(L, NODE, methods, meta, node_index);
    luaL_getmetatable(L, NODE);
    for (int i = 0; i < COUNT_OF(operators); i++) {
        lua_pushstring(L, operators[i][1]);
        lua_pushcclosure(L, node_operator, 1);
        lua_setfield(L, -2, operators[i][0]);
    }
    lua_getfield(L, -1, "__index");
    lua_getupvalue(L, -1, 1); /* the methods */
    for (int i = 0; i < OP_COUNT; i++) {
        if (i == OP_leaf || i == OP_part || i == OP_assign) continue;
        lua_pushinteger(L, i);
        lua_pushcclosure(L, node_call, 1);
        lua_setfield(L, -2, op_at((enum op_code)i)->name);
    }
    lua_pop(L, 3);
}

void script_open_graph(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "var", core_var },
        { "pack", core_pack },
        { "pack_like", core_pack_like },
        { "graph", core_graph },
        { "session", core_session },
        { "ops", core_ops },
        { "graph_type", core_graph_type },
        { NULL, NULL },
    };
    static const luaL_Reg var[] = {
        { "write", var_write }, { "upload", var_upload }, { "absent", var_absent },
        { "read", var_read },   { NULL, NULL },
    };
    static const luaL_Reg var_meta[] = { { "__gc", var_gc }, { NULL, NULL } };
    static const luaL_Reg graph[] = {
        { "leaf", graph_leaf },
        { "assign", graph_assign },
        { "backward", graph_backward },
        { "checkpoint", graph_checkpoint },
        { "label", graph_label },
        { "count", graph_count },
        { NULL, NULL },
    };
    static const luaL_Reg graph_meta[] = { { "__gc", graph_gc }, { NULL, NULL } };
    static const luaL_Reg session[] = {
        { "run", session_run },     { "info", session_info }, { "profile", session_profile },
        { "watch", session_watch }, { NULL, NULL },
    };
    static const luaL_Reg session_meta[] = {
        { "__gc", session_gc },
        { "__close", session_gc },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    script_class(L, VAR, var, var_meta, var_index);
    script_class(L, GRAPH, graph, graph_meta, NULL);
    script_class(L, SESSION, session, session_meta, NULL);
    open_node_class(L);
}
