/* SPDX-License-Identifier: MIT
 * file.c - model files through the plugins, JSON, and plain files for Lua. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lua/script.h"
#include "plug/plug.h"

#define MODEL "burin.model_file"

/* ---- loaders --------------------------------------------------------------------------------------- */

struct model_file { const struct burin_loader *loader; void *self; };

static struct model_file *model_check(lua_State *L, int index)
{
    struct model_file *m = luaL_checkudata(L, index, MODEL);
    if (!m->loader) luaL_error(L, "this file is closed");
    return m;
}

/* core.load(path) -> file. Its user value 1 maps tensor names to positions. */
static int core_load(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    const struct burin_loader *loader = plug_loader_for(path);
    if (!loader) return script_raise(L);
    struct model_file *m = lua_newuserdatauv(L, sizeof *m, 1);
    m->loader = NULL;
    luaL_setmetatable(L, MODEL);
    if (loader->open(path, &m->self)) return script_raise(L);
    m->loader = loader;
    int64_t n = loader->count(m->self);
    lua_newtable(L);
    struct burin_tensor_info info;
    for (int64_t i = 0; i < n; i++) {
        if (loader->info(m->self, i, &info)) return script_raise(L);
        lua_pushinteger(L, i);
        lua_setfield(L, -2, info.name);
    }
    lua_setiuservalue(L, -2, 1);
    return 1;
}

static int model_gc(lua_State *L)
{
    struct model_file *m = luaL_checkudata(L, 1, MODEL);
    if (m->loader) m->loader->close(m->self);
    m->loader = NULL;
    return 0;
}

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

static bool model_find(lua_State *L, struct model_file *m, struct burin_tensor_info *info, int64_t *at)
{
    const char *name = luaL_checkstring(L, 2);
    lua_getiuservalue(L, 1, 1);
    if (lua_getfield(L, -1, name) == LUA_TNIL) {
        lua_pop(L, 2);
        return false;
    }
    *at = lua_tointeger(L, -1);
    lua_pop(L, 2);
    if (m->loader->info(m->self, *at, info)) script_raise(L);
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

/* f:read(name) -> tensor, or nil when the file has none of that name. A mapped file is not copied. */
static int model_read(lua_State *L)
{
    struct model_file *m = model_check(L, 1);
    struct burin_tensor_info info;
    int64_t at;
    if (!model_find(L, m, &info, &at)) return 0;
    const int64_t none[1] = { 0 };
    struct tensor *t = tensor_push(L, (burin_dtype)info.dtype, info.mapped ? 1 : info.rank, info.mapped ? none : info.dim);
    t->rank = info.rank;
    t->count = 1;
    for (int i = 0; i < info.rank; i++) t->count *= t->dim[i] = info.dim[i];
    t->bytes = info.bytes;
    if (info.mapped) {
        t->view = info.mapped;
        lua_pushvalue(L, 1);
        lua_setiuservalue(L, -2, 1);
    } else if (m->loader->read(m->self, at, t->own, info.bytes)) {
        return script_raise(L);
    }
    return 1;
}

/* f:meta() -> { key = value } */
static int model_meta(lua_State *L)
{
    struct model_file *m = model_check(L, 1);
    const char *key, *value;
    lua_newtable(L);
    for (int64_t i = 0; m->loader->meta && m->loader->meta(m->self, i, &key, &value) == 1; i++) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
    return 1;
}

/* ---- exporters ------------------------------------------------------------------------------------- */

/* An exporter's view of item i of the list at index 3. */
static void export_info(lua_State *L, int i, struct burin_tensor_info *info)
{
    memset(info, 0, sizeof *info);
    lua_rawgeti(L, 3, i);
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
        uint64_t count = 1;
        for (int k = 0; k < info->rank; k++)
            if (__builtin_mul_overflow(count, (uint64_t)info->dim[k], &count)) luaL_error(L, "export: %s is too large", info->name);
        info->bytes = count * burin_dtype_bytes((burin_dtype)info->dtype);
    } else {
        const struct tensor *t = tensor_check(L, -1);
        info->dtype = (int)t->dtype;
        info->rank = t->rank;
        memcpy(info->dim, t->dim, sizeof info->dim);
        info->bytes = t->bytes;
    }
    lua_pop(L, 3);
}

/* Writes item i: a tensor, or what its function returns. Lua does not know how large tensors are, so it is told when to
 * collect. Raises nothing: false, with the error recorded. */
static bool export_put(lua_State *L, const struct burin_exporter *x, void *self, int i, uint64_t *garbage)
{
    struct burin_tensor_info info;
    int top = lua_gettop(L);
    export_info(L, i, &info);
    lua_rawgeti(L, 3, i);
    lua_rawgeti(L, -1, 2);
    bool made = lua_isfunction(L, -1), ok = true;
    if (made && lua_pcall(L, 0, 1, 0)) {
        ok = fail("%s", luaL_tolstring(L, -1, NULL));
    }
    const struct tensor *t = ok ? luaL_testudata(L, -1, "burin.tensor") : NULL;
    if (ok && (!t || (int)t->dtype != info.dtype || t->bytes != info.bytes))
        ok = fail("export: %s is not what was announced", info.name);
    if (ok) {
        int result = x->put(self, info.name, tensor_data(t), t->bytes);
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

/* core.export(path, format, { { name, tensor }, ... }, { key = value }): whole, synced and read back, or not there at all.
 * Instead of a tensor a function may stand that returns it when its turn comes, with dtype = and shape = beside it. */
static int core_export(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *format = luaL_checkstring(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    const struct burin_exporter *x = plug_exporter(format);
    if (!x) return script_raise(L);
    int n = (int)lua_rawlen(L, 3);
    struct burin_tensor_info info;
    for (int i = 1; i <= n; i++) export_info(L, i, &info);  /* checked first: nothing raises while the exporter is open */
    void *self = NULL;
    bool ok = !x->begin(path, &self);
    if (ok && x->meta && lua_istable(L, 4))
        for (lua_pushnil(L); lua_next(L, 4); lua_pop(L, 1))
            if (ok && lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING)
                ok = !x->meta(self, lua_tostring(L, -2), lua_tostring(L, -1));
    for (int i = 1; ok && i <= n; i++) {
        export_info(L, i, &info);
        ok = !x->declare(self, &info);
    }
    uint64_t garbage = 0;
    for (int i = 1; ok && i <= n; i++) ok = export_put(L, x, self, i, &garbage);
    if (ok) ok = !x->finish(self);
    else if (self) x->abort(self);
    return ok ? 0 : script_raise(L);
}

/* ---- JSON (jansson) ----------------------------------------------------------------------------------- */

static void push_json(lua_State *L, const json_t *j)
{
    luaL_checkstack(L, 8, "JSON nests too deeply");
    switch (json_typeof(j)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *value;
        lua_newtable(L);
        json_object_foreach((json_t *)j, key, value) {
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
        return json_real(lua_tonumber(L, index));  /* NULL for NaN: stored as null below */
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
    free(text);
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

/* ---- plain files ----------------------------------------------------------------------------------------- */

/* core.read_file(path, max?) -> bytes; more than max (16 MiB) are an error */
static int core_read_file(lua_State *L)
{
    struct str s = { 0 };
    if (!file_read(luaL_checkstring(L, 1), (size_t)luaL_optinteger(L, 2, 16 << 20), &s)) return script_raise(L);
    lua_pushlstring(L, s.data ? s.data : "", s.len);
    str_finish(&s);
    return 1;
}

/* core.read_part(path, first, count) -> the bytes from `first` (0) on, fewer at the file's end */
static int core_read_part(lua_State *L)
{
    struct file_map m;
    lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
    luaL_argcheck(L, first >= 0 && count >= 0 && count <= 1 << 20, 3, "a start from 0 and at most 1 MiB are expected");
    if (!file_map_open(&m, luaL_checkstring(L, 1))) return script_raise(L);
    size_t from = (uint64_t)first < m.bytes ? (size_t)first : m.bytes, left = m.bytes - from;
    lua_pushlstring(L, (const char *)m.data + from, (size_t)count < left ? (size_t)count : left);
    file_map_close(&m);
    return 1;
}

static int core_write_file(lua_State *L)
{
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    return file_write(luaL_checkstring(L, 1), data, n) ? 0 : script_raise(L);
}

/* core.append_file(path, text): for logs; one write call, not synced. */
static int core_append_file(lua_State *L)
{
    size_t n;
    const char *path = luaL_checkstring(L, 1), *data = luaL_checklstring(L, 2, &n);
    FILE *f = fopen(path, "ab");
    bool ok = f && fwrite(data, 1, n, f) == n && fflush(f) == 0;
    int error = errno;
    if (f) fclose(f);
    if (!ok) { fail("cannot append to %s: %s", path, strerror(error)); return script_raise(L); }
    return 0;
}

/* core.sync_file(path): what was appended is on the disk when this returns. */
static int core_sync_file(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL || errno == EROFS);  /* some file systems cannot */
    int error = errno;
    if (fd >= 0) close(fd);
    if (!ok) { fail("cannot sync %s: %s", path, strerror(error)); return script_raise(L); }
    return 0;
}

static int core_exists(lua_State *L)
{
    struct stat st;
    if (stat(luaL_checkstring(L, 1), &st)) return 0;
    lua_pushstring(L, S_ISDIR(st.st_mode) ? "folder" : S_ISREG(st.st_mode) ? "file" : "device");
    lua_pushinteger(L, st.st_size);
    return 2;
}

/* core.real_path(path) -> the same place without links, "." and ".."; nil when there is nothing */
static int core_real_path(lua_State *L)
{
    char *real = realpath(luaL_checkstring(L, 1), NULL);
    lua_pushstring(L, real);
    free(real);
    return 1;
}

static int core_make_dirs(lua_State *L) { return file_make_dirs(luaL_checkstring(L, 1)) ? 0 : script_raise(L); }

static int core_remove_file(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (unlink(path) && errno != ENOENT) { fail("%s: cannot remove: %s", path, strerror(errno)); return script_raise(L); }
    return 0;
}

/* core.list(folder) -> sorted names without . and .. */
static int core_list(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct dirent **entry;
    int n = scandir(path, &entry, NULL, alphasort), k = 0;
    if (n < 0) { fail("%s: cannot list this folder: %s", path, strerror(errno)); return script_raise(L); }
    lua_newtable(L);
    for (int i = 0; i < n; i++) {
        if (strcmp(entry[i]->d_name, ".") && strcmp(entry[i]->d_name, "..")) {
            lua_pushstring(L, entry[i]->d_name);
            lua_rawseti(L, -2, ++k);
        }
        free(entry[i]);
    }
    free(entry);
    return 1;
}

/* core.hash(text) -> 16 hex digits (XXH3); core.hash_file(path) -> the same of a file's bytes */
static int push_hash(lua_State *L, const void *data, size_t n)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash_bytes(data, n, 0));
    lua_pushstring(L, text);
    return 1;
}

static int core_hash(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    return push_hash(L, s, n);
}

static int core_hash_file(lua_State *L)
{
    struct file_map m;
    if (!file_map_open(&m, luaL_checkstring(L, 1))) return script_raise(L);
    push_hash(L, m.data, m.bytes);
    file_map_close(&m);
    return 1;
}

static int push_sha256(lua_State *L, const void *data, size_t n)
{
    uint8_t h[32];
    char text[65];
    hash_sha256(data, n, h);
    for (int i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", h[i]);
    lua_pushstring(L, text);
    return 1;
}

static int core_sha256(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    return push_sha256(L, s, n);
}

/* core.sha256_file(path, first?, count?) -> 64 hex digits of the bytes from `first` (0) on, `count` of them at most */
static int core_sha256_file(lua_State *L)
{
    struct file_map m;
    lua_Integer first = luaL_optinteger(L, 2, 0), count = luaL_optinteger(L, 3, INT64_MAX);
    luaL_argcheck(L, first >= 0 && count >= 0, 2, "negative");
    if (!file_map_open(&m, luaL_checkstring(L, 1))) return script_raise(L);
    size_t from = (uint64_t)first < m.bytes ? (size_t)first : m.bytes, left = m.bytes - from;
    push_sha256(L, m.data + from, (uint64_t)count < left ? (size_t)count : left);
    file_map_close(&m);
    return 1;
}

/* core.rename(from, to): on the disk when this returns; `to` must not exist, or be a file. */
static int core_rename(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2), *slash = strrchr(to, '/');
    if (rename(from, to)) { fail("cannot rename %s to %s: %s", from, to, strerror(errno)); return script_raise(L); }
    lua_settop(L, 0);
    lua_pushlstring(L, slash ? to : ".", slash ? (size_t)(slash - to) + 1 : 1);
    return core_sync_file(L);
}

/* core.remove_tree(folder): a folder of files and folders; links are removed, not followed. */
static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static int core_remove_tree(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT) {
        fail("%s: cannot remove: %s", path, strerror(errno));
        return script_raise(L);
    }
    return 0;
}

void script_open_file(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "load", core_load }, { "export", core_export }, { "json_encode", core_json_encode },
        { "json_decode", core_json_decode }, { "read_file", core_read_file }, { "read_part", core_read_part },
        { "write_file", core_write_file }, { "append_file", core_append_file }, { "sync_file", core_sync_file },
        { "exists", core_exists }, { "real_path", core_real_path }, { "make_dirs", core_make_dirs },
        { "remove_file", core_remove_file }, { "remove_tree", core_remove_tree }, { "rename", core_rename },
        { "list", core_list }, { "hash", core_hash }, { "hash_file", core_hash_file },
        { "sha256", core_sha256 }, { "sha256_file", core_sha256_file }, { NULL, NULL },
    };
    static const luaL_Reg model[] = {
        { "__gc", model_gc }, { "__close", model_gc }, { "close", model_gc }, { "names", model_names },
        { "info", model_info }, { "read", model_read }, { "meta", model_meta }, { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");  /* what json_encode writes as null */
    luaL_newmetatable(L, MODEL);
    luaL_setfuncs(L, model, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
