/* SPDX-License-Identifier: MIT
 * model.c - model files for Lua: read by a plugin's loader, written by a plugin's exporter. */
#include <string.h>
#include <unistd.h>

#include "lua/script.h"
#include "plug/plug.h"

/* The header that plugins see repeats the element types, since it stands alone. */
#define DTYPE(NAME, number, title, size)                                                   \
    _Static_assert((int)BURIN_T_##NAME == (int)BURIN_##NAME, "burin_plugin.h and burin.h " \
                                                             "disagree");
#include "graph/dtypes.def"
#undef DTYPE

#define MODEL "burin.model_file"

/* ---- loaders --------------------------------------------------------------------------------- */

struct model_file {
    const struct burin_loader *loader;
    void *self;
    char *path;
    bool lent;   /* tensors were given out that look into the mapped file, and keep it alive */
    bool closed; /* by its user; lent tensors are still good */
};

static struct model_file *model_check(lua_State *L, int index)
{
    struct model_file *m = luaL_checkudata(L, index, MODEL);
    if (!m->loader || m->closed) luaL_error(L, "this file is closed");
    return m;
}

static struct model_file *model_push(lua_State *L)
{
    struct model_file *m = lua_newuserdatauv(L, sizeof *m, 1);
    memset(m, 0, sizeof *m);
    luaL_setmetatable(L, MODEL);
    return m;
}

#define TENSORS_MAX 1000000 /* and entries of metadata: more than any file of ours can have */

/* What a loader says of tensor i, checked: nothing else is believed of a plugin anywhere. */
static bool ask_info(const struct model_file *m, int64_t i, struct burin_tensor_info *info)
{
    int64_t count;
    uint64_t bytes;
    memset(info, 0, sizeof *info);
    plug_ask();
    if (PLUG_CALL(m->loader, m->loader->info(m->self, i, info))) return plug_refused(m->loader);
    if (!memchr(info->name, 0, sizeof info->name))
        return plug_lies(m->loader, "the name of tensor %lld has no end", (long long)i);
    if (!info->name[0])
        return plug_lies(m->loader, "the name of tensor %lld is empty", (long long)i);
    if (info->rank < 0 || info->rank > BURIN_PLUGIN_RANK)
        return plug_lies(m->loader, "tensor \"%s\" has %d dimensions", info->name, info->rank);
    if (info->dtype < BURIN_T_F32 || info->dtype > BURIN_T_U64)
        return plug_lies(m->loader, "tensor \"%s\" has the unknown element type %d", info->name,
                         info->dtype);
    if (!burin_size(info->rank, info->dim, (burin_dtype)info->dtype, &count, &bytes))
        return plug_lies(m->loader, "tensor \"%s\" has an impossible shape", info->name);
    if (bytes != info->bytes)
        return plug_lies(m->loader, "tensor \"%s\" has %llu bytes, but its shape needs %llu",
                         info->name, (unsigned long long)info->bytes, (unsigned long long)bytes);
    return true;
}

/* core.load(path) -> file. Its user value 1 maps tensor names to positions. */
static int core_load(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    const struct burin_loader *loader = plug_loader_for(path);
    if (!loader) return script_raise(L);
    struct model_file *m = model_push(L);
    m->path = str_dup(path);
    plug_ask();
    mem_for(path);
    bool opened = !PLUG_CALL(loader, loader->open(path, &m->self));
    mem_for(NULL);
    if (!opened) {
        plug_refused(loader);
        return script_raise(L);
    }
    m->loader = loader;
    int64_t n = PLUG_CALL(loader, loader->count(m->self));
    if (n < 0 || n > TENSORS_MAX) {
        plug_lies(loader, "%s is said to have %lld tensors", path, (long long)n);
        return script_raise(L);
    }
    lua_newtable(L);
    struct burin_tensor_info info;
    for (int64_t i = 0; i < n; i++) {
        if (!ask_info(m, i, &info)) return script_raise(L);
        if (lua_getfield(L, -1, info.name) != LUA_TNIL) {
            plug_lies(loader, "tensor \"%s\" is there twice", info.name);
            return script_raise(L);
        }
        lua_pop(L, 1);
        lua_pushinteger(L, i);
        lua_setfield(L, -2, info.name);
    }
    lua_setiuservalue(L, -2, 1);
    return 1;
}

static int model_gc(lua_State *L)
{
    struct model_file *m = luaL_checkudata(L, 1, MODEL);
    if (m->loader) PLUG_DO(m->loader, m->loader->close(m->self));
    m->loader = NULL;
    mem_free(m->path);
    m->path = NULL;
    return 0;
}

/* f:close(). Tensors that look into the file go on doing so: then the collector closes it. */
static int model_close(lua_State *L)
{
    struct model_file *m = luaL_checkudata(L, 1, MODEL);
    m->closed = true;
    return m->lent ? 0 : model_gc(L);
}

/* At the end of a variable's scope: local f <close> = core.load(path) */
static int model_leave(lua_State *L) { return model_close(L); }

/* f:names() -> sorted list */
static int model_names(lua_State *L)
{
    model_check(L, 1);
    lua_getiuservalue(L, 1, 1);
    lua_newtable(L);
    int n = 0;
    for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_rawseti(L, -4, ++n);
    }
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_pushvalue(L, -3);
    lua_call(L, 1, 0);
    lua_pop(L, 1);
    return 1;
}

static bool model_find(lua_State *L, struct model_file *m, struct burin_tensor_info *info,
                       int64_t *at)
{
    const char *name = luaL_checkstring(L, 2);
    lua_getiuservalue(L, 1, 1);
    if (lua_getfield(L, -1, name) == LUA_TNIL) {
        lua_pop(L, 2);
        return false;
    }
    *at = lua_tointeger(L, -1);
    lua_pop(L, 2);
    if (!ask_info(m, *at, info)) script_raise(L);
    return true;
}

/* f:info(name) -> { dtype =, shape =, bytes = } or nil */
static int model_info(lua_State *L)
{
    struct model_file *m = model_check(L, 1);
    struct burin_tensor_info info;
    int64_t at;
    if (!model_find(L, m, &info, &at)) return 0;
    lua_newtable(L);
    lua_pushstring(L, burin_dtype_name((burin_dtype)info.dtype));
    lua_setfield(L, -2, "dtype");
    script_push_shape(L, info.dim, info.rank);
    lua_setfield(L, -2, "shape");
    lua_pushinteger(L, (lua_Integer)info.bytes);
    lua_setfield(L, -2, "bytes");
    return 1;
}

/* f:read(name) -> tensor, or nil when the file has none of that
 * name. A mapped file is not copied where its tensors are aligned. */
static int model_read(lua_State *L)
{
    struct model_file *m = model_check(L, 1);
    struct burin_tensor_info info;
    int64_t at;
    if (!model_find(L, m, &info, &at)) return 0;
    burin_dtype dtype = (burin_dtype)info.dtype;
    size_t element = burin_dtype_bytes(dtype);
    /* Other writers align nothing; kernels and the host read whole elements. */
    if (info.mapped && (uintptr_t)info.mapped % element == 0) {
        tensor_push_view(L, dtype, info.rank, info.dim, info.mapped);
        lua_pushvalue(L, 1);
        lua_setiuservalue(L, -2, 1);
        m->lent = true;
        return 1;
    }
    mem_for(m->path);
    struct tensor *t = tensor_push(L, dtype, info.rank, info.dim);
    plug_ask();
    bool read = !PLUG_CALL(m->loader, m->loader->read(m->self, at, t->own, t->bytes));
    mem_for(NULL);
    if (read) return 1;
    plug_refused(m->loader);
    return script_raise(L);
}

/* f:meta() -> { key = value } */
static int model_meta(lua_State *L)
{
    struct model_file *m = model_check(L, 1);
    const char *key = NULL, *value = NULL;
    lua_newtable(L);
    for (int64_t i = 0;
         m->loader->meta && PLUG_CALL(m->loader, m->loader->meta(m->self, i, &key, &value)) == 1;
         i++) {
        if (!key || !value || i == TENSORS_MAX) {
            plug_lies(m->loader, i == TENSORS_MAX ? "its metadata have no end"
                                                  : "an entry of its metadata is missing");
            return script_raise(L);
        }
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
        key = value = NULL;
    }
    return 1;
}

/* ---- exporters ------------------------------------------------------------------------------- */

/* An exporter's view of item i of the list at index 3. */
static void export_info(lua_State *L, int i, struct burin_tensor_info *info)
{
    memset(info, 0, sizeof *info);
    if (lua_rawgeti(L, 3, i) != LUA_TTABLE)
        luaL_error(L, "export: entry %d is not { name, tensor }", i);
    lua_rawgeti(L, -1, 1);
    if (strlen(luaL_checkstring(L, -1)) >= sizeof info->name)
        luaL_error(L, "export: a tensor name is too long: %s", lua_tostring(L, -1));
    snprintf(info->name, sizeof info->name, "%s", lua_tostring(L, -1));
    lua_rawgeti(L, -2, 2);
    if (lua_isfunction(L, -1)) {
        lua_getfield(L, -3, "dtype");
        info->dtype = (int)script_dtype(L, lua_gettop(L), 0);
        lua_getfield(L, -4, "shape");
        info->rank = script_shape(L, lua_gettop(L), info->dim, BURIN_PLUGIN_RANK);
        lua_pop(L, 2);
        int64_t count;
        if (!burin_size(info->rank, info->dim, (burin_dtype)info->dtype, &count, &info->bytes)) {
            fail_prefix("export: %s", info->name);
            script_raise(L);
        }
    } else {
        const struct tensor *t = tensor_check(L, -1);
        info->dtype = (int)t->dtype;
        info->rank = t->rank;
        memcpy(info->dim, t->dim, sizeof info->dim);
        info->bytes = t->bytes;
    }
    lua_pop(L, 3);
}

/* Writes item i: a tensor, or what its function returns. Lua does not know how large tensors are,
 * so it is told when to collect. Raises nothing: false, with the error recorded. */
static bool export_put(lua_State *L, const struct burin_exporter *x, void *self, int i,
                       uint64_t *garbage)
{
    struct burin_tensor_info info;
    int top = lua_gettop(L);
    export_info(L, i, &info);
    lua_rawgeti(L, 3, i);
    lua_rawgeti(L, -1, 2);
    bool made = lua_isfunction(L, -1), ok = true;
    if (made && lua_pcall(L, 0, 1, 0)) ok = fail("%s", luaL_tolstring(L, -1, NULL));
    const struct tensor *t = ok ? luaL_testudata(L, -1, "burin.tensor") : NULL;
    if (ok && (!t || (int)t->dtype != info.dtype || t->bytes != info.bytes))
        ok = fail("export: %s is not what was announced", info.name);
    if (ok && !burin_all_finite(t->dtype, tensor_data(t), t->count)) {
        fail_as(FAIL_NOT_FINITE,
                "%s: tensor \"%s\" holds a NaN or an infinity, so the file is not written",
                lua_tostring(L, 1), info.name);
        ok = false;
    }
    if (ok) {
        int result = PLUG_CALL(x, x->put(self, info.name, tensor_data(t), t->bytes));
        ok = !result;
        if (result == BURIN_NOT_FINITE) fail_as(FAIL_NOT_FINITE, "%s", burin_error());
    }
    lua_settop(L, top);
    *garbage += made ? info.bytes : 0;
    if (*garbage > 128u << 20) {
        lua_gc(L, LUA_GCCOLLECT);
        *garbage = 0;
    }
    return ok;
}

/* One attempt; arguments as core.export has them: 0, or what finish says. */
static int export_once(lua_State *L, const struct burin_exporter *x, const char *path, int n)
{
    struct burin_tensor_info info;
    void *self = NULL;
    bool ok = !PLUG_CALL(x, x->begin(path, &self));
    if (ok && x->meta && lua_istable(L, 4))
        for (lua_pushnil(L); lua_next(L, 4); lua_pop(L, 1))
            if (ok && lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING)
                ok = !PLUG_CALL(x, x->meta(self, lua_tostring(L, -2), lua_tostring(L, -1)));
    for (int i = 1; ok && i <= n; i++) {
        export_info(L, i, &info);
        ok = !PLUG_CALL(x, x->declare(self, &info));
    }
    uint64_t garbage = 0;
    for (int i = 1; ok && i <= n; i++) ok = export_put(L, x, self, i, &garbage);
    if (ok) return PLUG_CALL(x, x->finish(self));
    if (self) PLUG_DO(x, x->abort(self));
    return -1;
}

/* core.export(path, format, { { name, tensor }, ... }, { key = value }): whole, synced and read
 * back, or not there at all. Instead of a tensor a function may stand that returns it when its turn
 * comes, with dtype = and shape = beside it; it is called again where a disk fails once. */
static int core_export(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *format = luaL_checkstring(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    const struct burin_exporter *x = plug_exporter(format);
    if (!x || !file_may_write(path)) return script_raise(L);
    int n = (int)lua_rawlen(L, 3);
    struct burin_tensor_info info;
    /* Checked first: nothing raises while the exporter is open */
    for (int i = 1; i <= n; i++) export_info(L, i, &info);
    struct str unfinished = { 0 };
    str_addf(&unfinished, "%s.tmp-%ld-", path, (long)getpid());
    temp_begin(unfinished.data);
    int result = export_once(L, x, path, n);
    if (result == BURIN_NOT_SYNCED) result = export_once(L, x, path, n);
    temp_end(unfinished.data);
    str_finish(&unfinished);
    return result ? script_raise(L) : 0;
}

void script_open_model(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "load", core_load },
        { "export", core_export },
        { NULL, NULL },
    };
    static const luaL_Reg model[] = {
        { "close", model_close }, { "names", model_names }, { "info", model_info },
        { "read", model_read },   { "meta", model_meta },   { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", model_gc },
        { "__close", model_leave },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    script_class(L, MODEL, model, meta, NULL);
}
