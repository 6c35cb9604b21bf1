/* SPDX-License-Identifier: MIT
 * var.c - variables: named tensors that stay on the device, packed into a few large blocks per
 * role. */
#include "graph/device.h"

#include <math.h>
#include <string.h>

#define ALIGNMENT 256
#define BLOCK_MAX (1ull << 30)
#define CHUNK (1 << 18) /* elements converted at a time */

static uint64_t align(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* ---- making ---------------------------------------------------------------------------------- */

static burin_var *var_new(burin_device *device, const char *name, burin_dtype dtype,
                          const burin_shape *shape, burin_role role)
{
    burin_var *v = mem_alloc(sizeof *v);
    v->device = device;
    v->name = str_dup(name ? name : "");
    v->dtype = dtype;
    v->shape = *shape;
    v->role = role;
    v->bytes = (uint64_t)burin_shape_count(shape) * burin_dtype_bytes(dtype);
    if (!device) return v;
    device->var =
        array_reserve(device->var, device->vars, &device->var_capacity, sizeof *device->var);
    device->var[device->vars++] = v;
    return v;
}

burin_var *burin_var_create(burin_device *device, const char *name, burin_dtype dtype,
                            const burin_shape *shape, burin_role role)
{
    bool ok = (dtype >= BURIN_F32 && dtype <= BURIN_I32) || dtype == BURIN_I8;
    if (!ok) fail("variable %s: type %s does not live on a device", name, burin_dtype_name(dtype));
    if (ok && (role < BURIN_ROLE_WEIGHT || role >= BURIN_ROLE_COUNT))
        ok = fail("variable %s: there is no role %d", name, (int)role);
    if (ok && (shape->rank < 0 || shape->rank > BURIN_MAX_RANK))
        ok = fail("variable %s: rank %d; at most %d dims are possible", name, shape->rank,
                  BURIN_MAX_RANK);
    for (int i = 0; ok && i < shape->rank; i++)
        if (shape->dim[i] < 1)
            ok = fail("variable %s: dim %d is %lld", name, i, (long long)shape->dim[i]);
    int64_t count;
    uint64_t bytes;
    if (ok && !burin_size(shape->rank, shape->dim, dtype, &count, &bytes))
        ok = fail_prefix("variable %s", name);
    return ok ? var_new(device, name, dtype, shape, role) : NULL;
}

static void add_member(burin_var *pack, burin_var *v, uint64_t offset)
{
    v->parent = pack;
    v->offset = offset;
    v->role = pack->role;
    pack->member[pack->members++] = v;
}

static burin_var *pack_new(burin_device *device, const char *name, burin_dtype dtype,
                           uint64_t bytes, int n, burin_role role)
{
    burin_shape flat = { .rank = 1, .dim = { (int64_t)(bytes / burin_dtype_bytes(dtype)) } };
    burin_var *pack = var_new(device, name, dtype, &flat, role);
    pack->member = mem_alloc((size_t)n * sizeof *pack->member);
    return pack;
}

static void give_back(burin_var *v);

/* A variable that has contents already takes them along. */
static bool move_into(burin_var *pack, burin_var *v, uint64_t offset)
{
    uint64_t at = 0;
    struct gpu_buffer *from = var_memory(v, &at), *to = NULL;
    if (!from) {
        add_member(pack, v, offset);
        return true;
    }
    void *contents = mem_alloc(v->bytes);
    bool ok = device_memory_read(v->device, from, at, contents, v->bytes);
    if (ok) {
        give_back(v);
        add_member(pack, v, offset);
        ok = vars_commit(pack->device, pack->role);
    }
    if (ok) {
        to = var_memory(v, &at);
        ok = device_memory_write(v->device, to, at, contents, v->bytes);
    }
    mem_free(contents);
    return ok;
}

burin_var *burin_var_pack(burin_device *device, const char *name, burin_var **vars, int n,
                          burin_role role)
{
    uint64_t bytes = 0;
    if (n < 1) {
        fail("%s: there is nothing to pack", name);
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        const burin_var *v = vars[i];
        bool ok = v->dtype == vars[0]->dtype ||
                  fail("%s: %s is %s, %s is %s", name, vars[0]->name,
                       burin_dtype_name(vars[0]->dtype), v->name, burin_dtype_name(v->dtype));
        if (ok && v->parent) ok = fail("%s: %s is packed already", name, v->name);
        if (ok && v->device != device) ok = fail("%s: %s is on another device", name, v->name);
        if (ok && (bytes += align(v->bytes)) > INT64_MAX)
            ok = fail("%s: tensor too large: all of its members together", name);
        if (!ok) return NULL;
    }
    burin_var *pack = pack_new(device, name, vars[0]->dtype, bytes, n, role);
    uint64_t offset = 0;
    for (int i = 0; i < n; i++) {
        if (!move_into(pack, vars[i], offset)) {
            burin_var_destroy(pack);
            return NULL;
        }
        offset += align(vars[i]->bytes);
    }
    return pack;
}

burin_var *burin_var_pack_like(burin_device *device, const char *name, const burin_var *like,
                               burin_role role, burin_var **views)
{
    if (!like->members) {
        fail("%s: %s is not a packed variable", name, like->name);
        return NULL;
    }
    burin_var *pack = pack_new(device, name, like->dtype, like->bytes, like->members, role);
    for (int i = 0; i < like->members; i++) {
        const burin_var *m = like->member[i];
        struct str text = { 0 };
        str_addf(&text, "%s.%s", name, m->name);
        burin_var *view = var_new(device, text.data, m->dtype, &m->shape, role);
        str_finish(&text);
        view->owned = !views;
        add_member(pack, view, m->offset);
        if (views) views[i] = view;
    }
    return pack;
}

/* ---- letting go ------------------------------------------------------------------------------ */

static void remove_pointer(void *array, int *count, const void *p)
{
    void **a = array;
    int n = 0;
    for (int i = 0; i < *count; i++)
        if (a[i] != p) a[n++] = a[i];
    *count = n;
}

void burin_var_set_absent(burin_var *v, bool absent)
{
    if (absent && !v->absent && v->device) {
        give_back(v);
        v->device->changed = true;
    }
    v->absent = absent;
}

/* Returns a variable's own memory to its block, and the block to the device when it is empty. */
static void give_back(burin_var *v)
{
    struct var_block *b = v->memory;
    burin_device *d = v->device;
    v->memory = NULL;
    if (!b || v->parent) return;
    remove_pointer(b->var, &b->count, v);
    d->generation++;
    if (b->count || d->sealed) return;
    remove_pointer(d->block, &d->blocks, b);
    device_memory_destroy(b->buffer);
    mem_free(b->var);
    mem_free(b);
}

static void var_free(burin_var *v)
{
    mem_free(v->name);
    mem_free(v);
}

void burin_var_destroy(burin_var *v)
{
    if (!v) return;
    give_back(v);
    if (v->parent) remove_pointer(v->parent->member, &v->parent->members, v);
    while (v->members) {
        burin_var *m = v->member[v->members - 1];
        v->members--;
        m->parent = NULL; /* a view that outlives its pack has no contents any more */
        m->offset = 0;
        if (m->owned) burin_var_destroy(m);
    }
    if (v->device) remove_pointer(v->device->var, &v->device->vars, v);
    mem_free(v->member);
    v->member = NULL;
    v->parent = NULL;
    v->device = NULL;
    v->absent = v->gone = true;
    if (!v->users) var_free(v);
}

void var_hold(burin_var *v) { v->users++; }

void var_release(burin_var *v)
{
    if (!--v->users && v->gone) var_free(v);
}

const burin_var *vars_absent(const struct burin_plan *p)
{
    uint64_t offset;
    for (int i = 0; i < p->n_vars; i++)
        if (var_root(p->var[i], &offset)->absent) return p->var[i];
    return NULL;
}

void vars_orphan(burin_device *d)
{
    for (int i = 0; i < d->vars; i++) {
        d->var[i]->device = NULL;
        d->var[i]->memory = NULL;
    }
    for (int i = 0; i < d->blocks; i++) {
        device_memory_destroy(d->block[i]->buffer);
        mem_free(d->block[i]->var);
        mem_free(d->block[i]);
    }
    mem_free(d->block);
    mem_free(d->var);
    d->block = NULL;
    d->var = NULL;
    d->vars = d->blocks = 0;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Puts v into the first gap of b that holds it. */
static bool place_in(struct var_block *b, burin_var *v)
{
    uint64_t at = 0;
    int i = 0;
    for (; i < b->count && b->var[i]->offset < at + v->bytes; i++)
        at = align(b->var[i]->offset + b->var[i]->bytes);
    if (at + v->bytes > b->bytes) return false;
    b->var = array_reserve(b->var, b->count, &b->capacity, sizeof *b->var);
    memmove(&b->var[i + 1], &b->var[i], (size_t)(b->count - i) * sizeof *b->var);
    b->var[i] = v;
    b->count++;
    v->memory = b;
    v->offset = at;
    return true;
}

/* Memory that another variable has left behind is zeroed, as fresh memory is. */
static bool clear(burin_var *v)
{
    struct var_block *b = v->memory;
    uint64_t end = align(v->offset + v->bytes);
    bool ok = true;
    if (v->offset < b->used_once) {
        void *zeros = mem_alloc(v->bytes);
        ok = device_memory_write(v->device, b->buffer, v->offset, zeros, v->bytes);
        mem_free(zeros);
    }
    if (b->used_once < end) b->used_once = end;
    return ok;
}

static bool is_waiting(const burin_var *v, burin_role role)
{
    return !v->parent && !v->memory && !v->absent && (!role || v->role == role);
}

/* A new block, large enough for v and, up to the limit, for those of its role that wait right after
 * it: they are placed in this order, so nothing of it stays unused. */
static bool add_block(burin_device *d, const burin_var *v, int index)
{
    static const char *const names[BURIN_ROLE_COUNT] = { "variables",       "weights",
                                                         "parameters",      "gradients",
                                                         "optimizer state", "inputs" };
    uint64_t bytes = align(v->bytes);
    for (int i = index + 1; i < d->vars; i++) {
        const burin_var *w = d->var[i];
        if (!is_waiting(w, v->role)) continue;
        if (bytes + align(w->bytes) > BLOCK_MAX) break;
        bytes += align(w->bytes);
    }
    struct gpu_buffer *buffer = device_memory_create(d, bytes, names[v->role]);
    if (!buffer) return false;
    struct var_block *b = mem_alloc(sizeof *b);
    *b = (struct var_block){ .buffer = buffer, .role = v->role, .bytes = bytes };
    d->block = array_reserve(d->block, d->blocks, &d->block_capacity, sizeof *d->block);
    d->block[d->blocks++] = b;
    return true;
}

bool vars_commit(burin_device *d, burin_role role)
{
    for (int i = 0; i < d->vars; i++) {
        burin_var *v = d->var[i];
        if (!is_waiting(v, role)) continue;
        for (int k = 0; k < d->blocks && !v->memory; k++)
            if (d->block[k]->role == v->role) place_in(d->block[k], v);
        if (!v->memory && (!add_block(d, v, i) || !place_in(d->block[d->blocks - 1], v)))
            return fail_prefix("variable %s", v->name);
        if (!clear(v)) return false;
    }
    return true;
}

struct gpu_buffer *var_memory(const burin_var *v, uint64_t *offset)
{
    const burin_var *root = var_root(v, offset);
    const struct var_block *b = root->memory;
    *offset += root->offset;
    return b ? b->buffer : NULL;
}

/* ---- contents -------------------------------------------------------------------------------- */

static float load(burin_dtype d, const void *p, int64_t i)
{
    switch (d) {
    case BURIN_F16: return f16_to_f32(((const uint16_t *)p)[i]);
    case BURIN_BF16: return bf16_to_f32(((const uint16_t *)p)[i]);
    case BURIN_I32: return (float)((const int32_t *)p)[i];
    case BURIN_I8: return (float)((const int8_t *)p)[i] / 127;
    default: return ((const float *)p)[i];
    }
}

static void store(burin_dtype d, void *p, int64_t i, float v)
{
    switch (d) {
    case BURIN_F16: ((uint16_t *)p)[i] = f32_to_f16(v); break;
    case BURIN_BF16: ((uint16_t *)p)[i] = f32_to_bf16(v); break;
    case BURIN_I32: ((int32_t *)p)[i] = (int32_t)v; break;
    case BURIN_I8: ((int8_t *)p)[i] = (int8_t)lrintf(127 * (v > 1 ? 1 : v < -1 ? -1 : v)); break;
    default: ((float *)p)[i] = v;
    }
}

static void convert(burin_dtype to, void *dst, burin_dtype from, const void *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) store(to, dst, i, load(from, src, i));
}

static bool check_access(burin_var *v, burin_dtype dtype, int64_t count)
{
    if (!v->device) return fail("variable %s is on no device", v->name);
    if (v->absent) return fail("variable %s is absent from the device", v->name);
    if (dtype < BURIN_F32 || dtype > BURIN_I32)
        return fail("variable %s: %s is not converted", v->name, burin_dtype_name(dtype));
    if (count != burin_shape_count(&v->shape))
        return fail("variable %s has %lld elements, not %lld", v->name,
                    (long long)burin_shape_count(&v->shape), (long long)count);
    uint64_t offset;
    return var_memory(v, &offset) || vars_commit(v->device, v->role);
}

bool burin_var_write(burin_var *v, burin_dtype dtype, const void *src, int64_t count)
{
    if (!check_access(v, dtype, count)) return false;
    uint64_t at;
    struct gpu_buffer *b = var_memory(v, &at);
    if (dtype == v->dtype) return device_memory_write(v->device, b, at, src, v->bytes);
    size_t size = burin_dtype_bytes(v->dtype), from = burin_dtype_bytes(dtype);
    void *chunk = mem_alloc(CHUNK * size);
    bool ok = true;
    for (int64_t i = 0; ok && i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        convert(v->dtype, chunk, dtype, (const uint8_t *)src + (size_t)i * from, n);
        ok = device_memory_write(v->device, b, at + (uint64_t)i * size, chunk, (uint64_t)n * size);
    }
    mem_free(chunk);
    return ok;
}

bool burin_var_read(burin_var *v, burin_dtype dtype, void *dst, int64_t count)
{
    if (!check_access(v, dtype, count)) return false;
    uint64_t at;
    struct gpu_buffer *b = var_memory(v, &at);
    if (dtype == v->dtype) return device_memory_read(v->device, b, at, dst, v->bytes);
    size_t size = burin_dtype_bytes(v->dtype), to = burin_dtype_bytes(dtype);
    void *chunk = mem_alloc(CHUNK * size);
    bool ok = true;
    for (int64_t i = 0; ok && i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        ok = device_memory_read(v->device, b, at + (uint64_t)i * size, chunk, (uint64_t)n * size);
        if (ok) convert(dtype, (uint8_t *)dst + (size_t)i * to, v->dtype, chunk, n);
    }
    mem_free(chunk);
    return ok;
}
