/* SPDX-License-Identifier: MIT
 * tensor.c - host tensors for Lua: what files hold, what batches
 * are made of, what tests compare. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lua/script.h"

#define TENSOR "burin.tensor"

burin_dtype script_dtype(lua_State *L, int index, burin_dtype fallback)
{
    if (lua_isnoneornil(L, index) && fallback) return fallback;
    const char *name = luaL_checkstring(L, index);
    burin_dtype d = burin_dtype_find(name);
    if (!d) luaL_error(L, "unknown element type '%s' (f32, f16, bf16, i32 ...)", name);
    return d;
}

int script_shape(lua_State *L, int index, int64_t *dim, int max_rank)
{
    luaL_checktype(L, index, LUA_TTABLE);
    int rank = (int)lua_rawlen(L, index);
    if (rank > max_rank)
        luaL_error(L, "a shape of %d dims; at most %d are possible", rank, max_rank);
    for (int i = 0; i < rank; i++) {
        lua_rawgeti(L, index, i + 1);
        int whole;
        dim[i] = lua_tointegerx(L, -1, &whole);
        if (!whole || dim[i] < 0 || dim[i] > (int64_t)1 << 40)
            luaL_error(L, "dim %d of a shape is not a whole number of elements", i + 1);
        lua_pop(L, 1);
    }
    return rank;
}

void script_push_shape(lua_State *L, const int64_t *dim, int rank)
{
    lua_createtable(L, rank, 0);
    for (int i = 0; i < rank; i++) {
        lua_pushinteger(L, dim[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

struct tensor *tensor_check(lua_State *L, int index) { return luaL_checkudata(L, index, TENSOR); }
const void *tensor_data(const struct tensor *t) { return t->view ? t->view : t->own; }

/* The size of a tensor to be made, which is to have so many bytes of its own. */
static void check_size(lua_State *L, struct tensor *t)
{
    bool ok = burin_size(t->rank, t->dim, t->dtype, &t->count, &t->bytes);
    const char *file = mem_file();
    if (ok && !t->view && t->bytes > script_memory_limit())
        ok = fail("%s%stensor too large: %.1f GiB; --recipe-memory allows %.1f GiB of memory",
                  file ? file : "", file ? ": " : "", (double)t->bytes / 0x1p30,
                  (double)script_memory_limit() / 0x1p30);
    if (!ok) mem_for(NULL); /* the error is not one of Lua's memory: its file is said */
    if (!ok) script_raise(L);
}

#define HEADER ((sizeof(struct tensor) + 15) / 16 * 16)

struct tensor *tensor_push(lua_State *L, burin_dtype dtype, int rank, const int64_t *dim)
{
    struct tensor made = { .dtype = dtype, .rank = rank };
    for (int i = 0; i < rank; i++) made.dim[i] = dim[i];
    check_size(L, &made);
    struct tensor *t = lua_newuserdatauv(L, HEADER + made.bytes, 0);
    *t = made;
    t->own = (char *)t + HEADER;
    memset(t->own, 0, t->bytes);
    luaL_setmetatable(L, TENSOR);
    return t;
}

struct tensor *tensor_push_view(lua_State *L, burin_dtype dtype, int rank, const int64_t *dim,
                                const void *view)
{
    struct tensor made = { .dtype = dtype, .rank = rank, .view = view };
    for (int i = 0; i < rank; i++) made.dim[i] = dim[i];
    check_size(L, &made);
    struct tensor *t = lua_newuserdatauv(L, sizeof *t, 1);
    *t = made;
    luaL_setmetatable(L, TENSOR);
    return t;
}

double tensor_get(const struct tensor *t, int64_t i)
{
    const void *p = tensor_data(t);
    switch (t->dtype) {
    case BURIN_F32: return ((const float *)p)[i];
    case BURIN_F16: return (double)f16_to_f32(((const uint16_t *)p)[i]);
    case BURIN_BF16: return (double)bf16_to_f32(((const uint16_t *)p)[i]);
    case BURIN_F64: return ((const double *)p)[i];
    case BURIN_I64: return (double)((const int64_t *)p)[i];
    case BURIN_I32: return ((const int32_t *)p)[i];
    case BURIN_I16: return ((const int16_t *)p)[i];
    case BURIN_I8: return ((const int8_t *)p)[i];
    case BURIN_U8:
    case BURIN_BOOL: return ((const uint8_t *)p)[i];
    case BURIN_U16: return ((const uint16_t *)p)[i];
    case BURIN_U32: return ((const uint32_t *)p)[i];
    case BURIN_U64: return (double)((const uint64_t *)p)[i];
    case BURIN_F8_E4M3: return (double)f8_e4m3_to_f32(((const uint8_t *)p)[i]);
    case BURIN_F8_E5M2: return (double)f8_e5m2_to_f32(((const uint8_t *)p)[i]);
    default: return NAN;
    }
}

/* 8-bit floats are read, never made: a tensor of them takes only what has their type already. */
static void check_makes(lua_State *L, burin_dtype dtype)
{
    if (dtype == BURIN_F8_E4M3 || dtype == BURIN_F8_E5M2)
        luaL_error(L, "%s is read from files, but nothing is converted to it",
                   burin_dtype_name(dtype));
}

void tensor_set(struct tensor *t, int64_t i, double v)
{
    void *p = t->own;
    switch (t->dtype) {
    case BURIN_F32: ((float *)p)[i] = (float)v; break;
    case BURIN_F16: ((uint16_t *)p)[i] = f32_to_f16((float)v); break;
    case BURIN_BF16: ((uint16_t *)p)[i] = f32_to_bf16((float)v); break;
    case BURIN_F64: ((double *)p)[i] = v; break;
    case BURIN_I64: ((int64_t *)p)[i] = (int64_t)v; break;
    case BURIN_I32: ((int32_t *)p)[i] = (int32_t)v; break;
    case BURIN_I16: ((int16_t *)p)[i] = (int16_t)v; break;
    case BURIN_I8: ((int8_t *)p)[i] = (int8_t)v; break;
    case BURIN_U8:
    case BURIN_BOOL: ((uint8_t *)p)[i] = (uint8_t)v; break;
    case BURIN_U16: ((uint16_t *)p)[i] = (uint16_t)v; break;
    case BURIN_U32: ((uint32_t *)p)[i] = (uint32_t)v; break;
    case BURIN_U64: ((uint64_t *)p)[i] = (uint64_t)v; break;
    default: break;
    }
}

static void fill_table(lua_State *L, int index, struct tensor *t, int64_t *at, int depth)
{
    if (depth > BURIN_FILE_RANK) luaL_error(L, "the values nest deeper than any shape");
    luaL_checkstack(L, 4, NULL);
    int64_t n = (int64_t)lua_rawlen(L, index);
    for (int64_t i = 1; i <= n; i++) {
        if (lua_rawgeti(L, index, i) == LUA_TTABLE) {
            fill_table(L, lua_gettop(L), t, at, depth + 1);
        } else {
            if (*at >= t->count)
                luaL_error(L, "more values than the shape holds (%I)", (LUAI_UACINT)t->count);
            tensor_set(t, (*at)++, luaL_checknumber(L, -1));
        }
        lua_pop(L, 1);
    }
}

/* core.tensor(shape, dtype, values?) -> tensor; values: a (nested) table, a
 * string of raw bytes, or a number. */
static int tensor_new(lua_State *L)
{
    int64_t dim[BURIN_FILE_RANK];
    int rank = script_shape(L, 1, dim, BURIN_FILE_RANK);
    struct tensor *t = tensor_push(L, script_dtype(L, 2, BURIN_F32), rank, dim);
    int64_t at = 0;
    switch (lua_type(L, 3)) {
    case LUA_TTABLE:
        check_makes(L, t->dtype);
        fill_table(L, 3, t, &at, 1);
        if (at != t->count)
            return luaL_error(L, "%I values for a shape of %I", (LUAI_UACINT)at,
                              (LUAI_UACINT)t->count);
        break;
    case LUA_TSTRING: {
        size_t n;
        const char *s = lua_tolstring(L, 3, &n);
        if (n != t->bytes)
            return luaL_error(L, "%I bytes for a tensor of %I", (LUAI_UACINT)n,
                              (LUAI_UACINT)t->bytes);
        memcpy(t->own, s, n);
        break;
    }
    case LUA_TNUMBER:
        check_makes(L, t->dtype);
        for (; at < t->count; at++) tensor_set(t, at, lua_tonumber(L, 3));
        break;
    default: break;
    }
    return 1;
}

static int64_t check_at(lua_State *L, const struct tensor *t, int index)
{
    int64_t i = luaL_checkinteger(L, index);
    luaL_argcheck(L, i >= 1 && i <= t->count, index, "outside the tensor");
    return i - 1;
}

static int method_get(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    lua_pushnumber(L, tensor_get(t, check_at(L, t, 2)));
    return 1;
}

static int method_set(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    luaL_argcheck(L, t->own != NULL, 1, "a tensor of a file is read-only; copy it with :cast()");
    check_makes(L, t->dtype);
    tensor_set(t, check_at(L, t, 2), luaL_checknumber(L, 3));
    lua_settop(L, 1);
    return 1;
}

/* t:cast(dtype) -> a copy of another element type. */
static int method_cast(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    burin_dtype dtype = script_dtype(L, 2, t->dtype);
    struct tensor *r = tensor_push(L, dtype, t->rank, t->dim);
    if (dtype == t->dtype) {
        memcpy(r->own, tensor_data(t), t->bytes);
        return 1;
    }
    check_makes(L, dtype);
    for (int64_t i = 0; i < t->count; i++) tensor_set(r, i, tensor_get(t, i));
    return 1;
}

/* A tensor over the bytes of t (at this index) from `at` on, which has no more of them: t is kept
 * alive when it is a view of a file, else copied. */
static struct tensor *push_part(lua_State *L, int index, int rank, const int64_t *dim, uint64_t at)
{
    struct tensor *t = tensor_check(L, index), *r;
    const char *from = (const char *)tensor_data(t) + at;
    if (!t->view) {
        r = tensor_push(L, t->dtype, rank, dim);
        memcpy(r->own, from, r->bytes);
        return r;
    }
    r = tensor_push_view(L, t->dtype, rank, dim, from);
    lua_pushvalue(L, index);
    lua_setiuservalue(L, -2, 1);
    return r;
}

static int method_reshape(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    int64_t dim[BURIN_FILE_RANK], count;
    uint64_t bytes;
    int rank = script_shape(L, 2, dim, BURIN_FILE_RANK);
    if (!burin_size(rank, dim, t->dtype, &count, &bytes)) return script_raise(L);
    if (count != t->count)
        return luaL_error(L, "reshape: %I elements into %I", (LUAI_UACINT)t->count,
                          (LUAI_UACINT)count);
    push_part(L, 1, rank, dim, 0);
    return 1;
}

/* t:permute{3, 4, 2, 1} -> dim i of the result is dim order[i] of t; a copy. */
static int method_permute(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    int64_t order[BURIN_FILE_RANK], dim[BURIN_FILE_RANK], stride[BURIN_FILE_RANK],
        step[BURIN_FILE_RANK];
    int rank = script_shape(L, 2, order, BURIN_FILE_RANK);
    unsigned seen = 0;
    luaL_argcheck(L, rank == t->rank, 2, "one entry per dim is needed");
    int64_t elements = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = elements;
        elements *= t->dim[i];
    }
    for (int i = 0; i < rank; i++) {
        luaL_argcheck(L, order[i] >= 1 && order[i] <= rank && !(seen >> order[i] & 1), 2,
                      "not a permutation");
        seen |= 1u << order[i];
        dim[i] = t->dim[order[i] - 1];
        step[i] = stride[order[i] - 1];
    }
    struct tensor *r = tensor_push(L, t->dtype, rank, dim);
    size_t size = burin_dtype_bytes(t->dtype);
    int64_t at[BURIN_FILE_RANK] = { 0 }, from = 0;
    for (int64_t i = 0; i < r->count; i++) {
        memcpy((char *)r->own + (size_t)i * size,
               (const char *)tensor_data(t) + (size_t)from * size, size);
        for (int d = rank - 1; d >= 0; d--) {
            from += step[d];
            if (++at[d] < dim[d]) break;
            from -= step[d] * dim[d];
            at[d] = 0;
        }
    }
    return 1;
}

/* t:rows(first, last) -> rows first..last of the first dim, 1-based: a copy, or a
 * view of a mapped file's tensor. */
static int method_rows(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    luaL_argcheck(L, t->rank >= 1, 1, "has no rows");
    int64_t first = luaL_checkinteger(L, 2), last = luaL_optinteger(L, 3, first),
            dim[BURIN_FILE_RANK];
    luaL_argcheck(L, first >= 1 && last >= first && last <= t->dim[0], 2, "outside the tensor");
    memcpy(dim, t->dim, sizeof dim);
    dim[0] = last - first + 1;
    push_part(L, 1, t->rank, dim, (uint64_t)(first - 1) * (t->bytes / (uint64_t)t->dim[0]));
    return 1;
}

/* t:copy_into(first, source): puts source's elements at element
 * `first` (1-based) of t, converting. */
static int method_copy_into(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1), *s = tensor_check(L, 3);
    int64_t first = luaL_checkinteger(L, 2) - 1;
    luaL_argcheck(L, t->own != NULL, 1, "a tensor of a file is read-only");
    luaL_argcheck(L, first >= 0 && first <= t->count && s->count <= t->count - first, 3,
                  "does not fit");
    size_t size = burin_dtype_bytes(t->dtype);
    if (s->dtype == t->dtype)
        memmove((char *)t->own + (size_t)first * size, tensor_data(s), s->bytes);
    else {
        check_makes(L, t->dtype);
        for (int64_t i = 0; i < s->count; i++) tensor_set(t, first + i, tensor_get(s, i));
    }
    lua_settop(L, 1);
    return 1;
}

static int method_table(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    lua_createtable(L, t->count < 1 << 26 ? (int)t->count : 0, 0);
    for (int64_t i = 0; i < t->count; i++) {
        lua_pushnumber(L, tensor_get(t, i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int method_bytes(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    lua_pushlstring(L, tensor_data(t), t->bytes);
    return 1;
}

/* t:affine(a, b, dtype?) -> a * t + b; the way between 8-bit pixels and [-1, 1].
 * Whole types are rounded, clamped. */
static int method_affine(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    double a = luaL_checknumber(L, 2), b = luaL_checknumber(L, 3);
    struct tensor *r = tensor_push(L, script_dtype(L, 4, t->dtype), t->rank, t->dim);
    check_makes(L, r->dtype);
    for (int64_t i = 0; i < t->count; i++) {
        double v = a * tensor_get(t, i) + b;
        if (r->dtype == BURIN_U8) v = v >= 0 ? (v > 255 ? 255 : floor(v + 0.5)) : 0;
        tensor_set(r, i, v);
    }
    return 1;
}

/* core.mix(a, x, b, y, ...) -> a x + b y + ..., an f32 tensor of x's shape; summed in float64. */
static int tensor_mix(lua_State *L)
{
    struct tensor *first = tensor_check(L, 2);
    struct tensor *r = tensor_push(L, BURIN_F32, first->rank, first->dim);
    int terms = (lua_gettop(L) - 1) / 2;
    const struct tensor *t[16];
    double by[16];
    luaL_argcheck(L, terms <= COUNT_OF(t), 33, "at most 16 terms");
    for (int k = 0; k < terms; k++) {
        by[k] = luaL_checknumber(L, 2 * k + 1);
        t[k] = tensor_check(L, 2 * k + 2);
        luaL_argcheck(L, t[k]->count == first->count, 2 * k + 2, "another number of elements");
    }
    for (int64_t i = 0; i < r->count; i++) {
        double sum = 0;
        for (int k = 0; k < terms; k++) sum += by[k] * tensor_get(t[k], i);
        ((float *)r->own)[i] = (float)sum;
    }
    return 1;
}

/* t:stats() -> {mean, std, min, max, norm, finite}. */
static int method_stats(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    double sum = 0, squares = 0, low = INFINITY, high = -INFINITY;
    bool finite = true;
    for (int64_t i = 0; i < t->count; i++) {
        double v = tensor_get(t, i);
        if (!isfinite(v)) finite = false;
        sum += v;
        squares += v * v;
        if (v < low) low = v;
        if (v > high) high = v;
    }
    double n = t->count ? (double)t->count : 1, mean = sum / n;
    const struct {
        const char *name;
        double value;
    } row[] = {
        { "mean", mean },
        { "std", sqrt(fmax(0, squares / n - mean * mean)) },
        { "min", low },
        { "max", high },
        { "norm", sqrt(squares) },
    };
    lua_newtable(L);
    for (int i = 0; i < COUNT_OF(row); i++) {
        lua_pushnumber(L, row[i].value);
        lua_setfield(L, -2, row[i].name);
    }
    lua_pushboolean(L, finite);
    lua_setfield(L, -2, "finite");
    return 1;
}

/* t:finite() -> whether no element is a NaN or an infinity; at the speed of memory for the types
 * that weights have. */
static int method_finite(lua_State *L)
{
    const struct tensor *t = tensor_check(L, 1);
    bool finite = burin_all_finite(t->dtype, tensor_data(t), t->count);
    bool other = t->dtype == BURIN_F64 || t->dtype == BURIN_F8_E4M3 || t->dtype == BURIN_F8_E5M2;
    for (int64_t i = 0; other && finite && i < t->count; i++) finite = isfinite(tensor_get(t, i));
    lua_pushboolean(L, finite);
    return 1;
}

/* t:distance(reference) -> |t - reference|, |reference| (Euclidean
 * norms in float64; NaN spreads). */
static int method_distance(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1), *r = tensor_check(L, 2);
    if (t->count != r->count)
        return luaL_error(L, "distance: %I elements against %I", (LUAI_UACINT)t->count,
                          (LUAI_UACINT)r->count);
    double d2 = 0, r2 = 0;
    for (int64_t i = 0; i < t->count; i++) {
        double v = tensor_get(t, i), w = tensor_get(r, i);
        d2 += (v - w) * (v - w);
        r2 += w * w;
    }
    lua_pushnumber(L, sqrt(d2));
    lua_pushnumber(L, sqrt(r2));
    return 2;
}

/* t:hash() -> 16 hex digits of the elements' bytes (XXH3) */
static int method_hash(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    char text[17];
    snprintf(text, sizeof text, "%016llx",
             (unsigned long long)hash_bytes(tensor_data(t), t->bytes, t->dtype));
    lua_pushstring(L, text);
    return 1;
}

/* t:fill_normal(seed, stream, std): seeded normal numbers;
 * t:fill_uniform(seed, stream, low, high). */
static int fill(lua_State *L, bool normal)
{
    struct tensor *t = tensor_check(L, 1);
    luaL_argcheck(L, t->own != NULL, 1, "a tensor of a file is read-only");
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 2), stream = (uint64_t)luaL_checkinteger(L, 3);
    double a = luaL_optnumber(L, 4, normal ? 1 : 0), b = luaL_optnumber(L, 5, 1);
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, w[4];
    check_makes(L, t->dtype);
    for (int64_t i = 0; i < t->count; i++) {
        if (i % 4 == 0) {
            uint32_t counter[4] = { (uint32_t)(i / 4), (uint32_t)stream, (uint32_t)(stream >> 32),
                                    0xb51c0deu };
            philox(counter, key, w);
        }
        double v = (w[i % 4] >> 8) * 0x1p-24;
        if (normal) {
            const uint32_t *pair = w + (i % 4 & 2);
            double r = sqrt(-2 * log(((pair[0] >> 8) + 1) * 0x1p-24)),
                   angle = 2 * 3.14159265358979323846 * ((pair[1] >> 8) * 0x1p-24);
            v = a * r * (i % 2 ? sin(angle) : cos(angle));
        } else {
            v = a + (b - a) * v;
        }
        tensor_set(t, i, v);
    }
    lua_settop(L, 1);
    return 1;
}

static int method_fill_normal(lua_State *L) { return fill(L, true); }
static int method_fill_uniform(lua_State *L) { return fill(L, false); }

static int tensor_index(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    const char *key = luaL_checkstring(L, 2);
    if (!strcmp(key, "shape")) {
        script_push_shape(L, t->dim, t->rank);
        return 1;
    }
    if (!strcmp(key, "dtype")) {
        lua_pushstring(L, burin_dtype_name(t->dtype));
        return 1;
    }
    if (!strcmp(key, "count")) {
        lua_pushinteger(L, t->count);
        return 1;
    }
    lua_getfield(L, lua_upvalueindex(1), key);
    if (lua_isnil(L, -1)) return luaL_error(L, "a tensor has no field '%s'", key);
    return 1;
}

static int tensor_tostring(lua_State *L)
{
    struct tensor *t = tensor_check(L, 1);
    struct str s = { 0 };
    str_addf(&s, "tensor %s (", burin_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) str_addf(&s, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    str_add(&s, ")");
    lua_pushstring(L, s.data);
    str_finish(&s);
    return 1;
}

void script_open_tensor(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "get", method_get },
        { "set", method_set },
        { "cast", method_cast },
        { "reshape", method_reshape },
        { "permute", method_permute },
        { "rows", method_rows },
        { "copy_into", method_copy_into },
        { "table", method_table },
        { "bytes", method_bytes },
        { "affine", method_affine },
        { "fill_normal", method_fill_normal },
        { "fill_uniform", method_fill_uniform },
        { "hash", method_hash },
        { "stats", method_stats },
        { "finite", method_finite },
        { "distance", method_distance },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__tostring", tensor_tostring }, { NULL, NULL } };
    script_class(L, TENSOR, methods, meta, tensor_index);
    lua_pushcfunction(L, tensor_new);
    lua_setfield(L, -2, "tensor");
    lua_pushcfunction(L, tensor_mix);
    lua_setfield(L, -2, "mix");
}
