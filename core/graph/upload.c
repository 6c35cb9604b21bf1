/* SPDX-License-Identifier: MIT
 * upload.c - weights on their way from a file to the device: transposed, converted and quantised
 * there, a piece at a time, so that the host holds nothing but the mapped file. A CPU driver's
 * memory is the host's: what keeps its type, or becomes f32, is transposed straight into it. */
#include "graph/device.h"
#include "graph/kernel.h"

#include <string.h>

#define PIECE (32u << 20) /* bytes of the file at a time */

struct upload {
    burin_var *var, *scale;
    burin_dtype dtype;
    uint32_t outputs, inputs, taps, columns;
    struct gpu_buffer *scratch;
    uint64_t scratch_bytes;
};

static struct tensor_ref whole(burin_var *v)
{
    return (struct tensor_ref){ .var = v, .bytes = v->bytes, .dtype = v->dtype, .shape = v->shape };
}

/* Outputs first .. first + rows - 1, which lie in the scratch memory. */
static bool run_mode(const struct upload *u, uint32_t mode, uint32_t first, uint32_t rows)
{
    const struct plan_target *target = &u->var->device->target;
    bool wide = u->columns % 4 == 0 && u->outputs % 4 == 0;
    uint64_t bytes = (uint64_t)rows * u->columns * burin_dtype_bytes(u->dtype);
    uint64_t groups =
        mode == UPLOAD_MEASURE ? ceil_div(rows, KERNEL_GROUP)
        : wide ? (uint64_t)ceil_div(rows, UPLOAD_TILE) * ceil_div(u->columns, UPLOAD_TILE)
               : ceil_div((uint64_t)rows * u->columns, KERNEL_GROUP);
    struct kernel_call c = { .shader = SHADER_upload,
                             .bind = { { .bytes = bytes, .dtype = u->dtype }, whole(u->var) },
                             .n_bind = u->scale ? 3 : 2,
                             .writes = mode == UPLOAD_MEASURE ? 4 : 2,
                             .spec = { mode, wide },
                             .n_spec = 2,
                             .push = { rows, first, u->columns, u->inputs, u->taps, u->outputs },
                             .n_push = 6 };
    if (u->scale) c.bind[2] = whole(u->scale);
    kernel_groups(target, groups, c.groups);
    kernel_complete(&c);
    return device_run(u->var->device, u->scratch, &c);
}

static bool upload_pieces(const struct upload *u, const uint8_t *src)
{
    burin_device *d = u->var->device;
    uint64_t row = (uint64_t)u->columns * burin_dtype_bytes(u->dtype);
    uint32_t rows = (uint32_t)(u->scratch_bytes / row / 4 * 4);
    for (uint32_t first = 0; first < u->outputs; first += rows) {
        uint32_t n = u->outputs - first < rows ? u->outputs - first : rows;
        if (!device_memory_write(d, u->scratch, 0, src + first * row, n * row)) return false;
        if (u->scale && !run_mode(u, UPLOAD_MEASURE, first, n)) return false;
        if (!run_mode(u, u->scale ? UPLOAD_QUANTISE : UPLOAD_MOVE, first, n)) return false;
    }
    return true;
}

/* ---- on a CPU driver ------------------------------------------------------------------------- */

#define TILE 32 /* outputs and columns that are moved together: whole cache lines on both sides */

struct transpose {
    const struct upload *u;
    const void *src;
    void *dst;
};

/* Tiles of columns begin .. end - 1; see target() in shaders/upload.comp. */
#define DEFINE_TRANSPOSE(name, type, stored, move)                                                 \
    static void name(void *user, int64_t begin, int64_t end)                                       \
    {                                                                                              \
        const struct transpose *x = user;                                                          \
        const size_t outputs = x->u->outputs, inputs = x->u->inputs, taps = x->u->taps,            \
                     columns = x->u->columns;                                                      \
        for (size_t c0 = (size_t)begin * TILE; c0 < (size_t)end * TILE && c0 < columns;            \
             c0 += TILE)                                                                           \
            for (size_t o0 = 0; o0 < outputs; o0 += TILE) {                                        \
                size_t c1 = c0 + TILE < columns ? c0 + TILE : columns,                             \
                       n = outputs - o0 < TILE ? outputs - o0 : TILE;                              \
                for (size_t c = c0; c < c1; c++) {                                                 \
                    const uint8_t *from =                                                          \
                        (const uint8_t *)x->src + (o0 * columns + c) * sizeof(type);               \
                    stored *to = (stored *)x->dst + (c % taps * inputs + c / taps) * outputs + o0; \
                    type tile[TILE];                                                               \
                    for (size_t o = 0; o < n; o++)                                                 \
                        memcpy(tile + o, from + o * columns * sizeof(type), sizeof(type));         \
                    move(to, tile, n);                                                             \
                }                                                                                  \
            }                                                                                      \
    }
#define MOVE(to, tile, n) memcpy(to, tile, (n) * sizeof *(tile))
#define MOVE_F16(to, tile, n) host_load(HOST_F16, tile, 0, (int64_t)(n), to)
#define MOVE_BF16(to, tile, n) host_load(HOST_BF16, tile, 0, (int64_t)(n), to)
DEFINE_TRANSPOSE(transpose_16, uint16_t, uint16_t, MOVE)
DEFINE_TRANSPOSE(transpose_32, uint32_t, uint32_t, MOVE)
DEFINE_TRANSPOSE(transpose_f16, uint16_t, float, MOVE_F16)
DEFINE_TRANSPOSE(transpose_bf16, uint16_t, float, MOVE_BF16)

/* False when this is not for the host. The simd tier, forced on a CPU
 * driver, does as any GPU does. */
static bool transpose_on_host(const struct upload *u, const void *src)
{
    burin_device *d = u->var->device;
    uint64_t offset;
    struct gpu_buffer *b = var_memory(u->var, &offset);
    bool kept = u->dtype == u->var->dtype, widened = u->var->dtype == BURIN_F32;
    void *dst = d->target.tier == TIER_CPU && (kept || widened)
                    ? device_host_memory(d, b, offset, u->var->bytes)
                    : NULL;
    if (!dst) return false;
    struct transpose x = { u, src, dst };
    parallel((u->columns + TILE - 1) / TILE, 1 + (1 << 20) / ((int64_t)u->outputs * TILE),
             u->dtype == BURIN_F32   ? transpose_32
             : kept                  ? transpose_16
             : u->dtype == BURIN_F16 ? transpose_f16
                                     : transpose_bf16,
             &x);
    return true;
}

/* ---- both ------------------------------------------------------------------------------------ */

static bool check(const struct upload *u, int64_t outputs, int64_t inputs, int64_t taps)
{
    const burin_var *v = u->var;
    if (!v->device) return fail("variable %s is on no device", v->name);
    if (v->absent) return fail("variable %s is absent from the device", v->name);
    if (u->dtype < BURIN_F32 || u->dtype > BURIN_BF16)
        return fail("variable %s: %s is not converted", v->name, burin_dtype_name(u->dtype));
    if (outputs < 1 || inputs < 1 || taps < 1 || outputs > INT32_MAX || inputs > INT32_MAX ||
        taps > INT32_MAX || outputs * inputs > INT32_MAX / taps ||
        outputs * inputs * taps != burin_shape_count(&v->shape))
        return fail("variable %s has %lld elements, not %lld x %lld x %lld", v->name,
                    (long long)burin_shape_count(&v->shape), (long long)outputs, (long long)inputs,
                    (long long)taps);
    if ((v->dtype == BURIN_I8) != (u->scale != NULL))
        return fail("variable %s: 8 bits and a scale go together", v->name);
    if (!u->scale) return true;
    if (outputs % 4 || inputs * taps % 4)
        return fail("variable %s: 8 bits need multiples of 4", v->name);
    return (u->scale->dtype == BURIN_F32 && burin_shape_count(&u->scale->shape) == outputs) ||
           fail("variable %s: its scale must be f32 (%lld)", v->name, (long long)outputs);
}

bool burin_var_upload(burin_var *var, burin_var *scale, burin_dtype dtype, const void *src,
                      int64_t outputs, int64_t inputs, int64_t taps)
{
    struct upload u = { .var = var, .scale = scale, .dtype = dtype };
    if (!check(&u, outputs, inputs, taps)) return false;
    burin_device *d = var->device;
    uint64_t offset;
    u.outputs = (uint32_t)outputs, u.inputs = (uint32_t)inputs, u.taps = (uint32_t)taps;
    u.columns = u.inputs * u.taps;
    if (!var_memory(var, &offset) && !vars_commit(d, var->role)) return false;
    if (scale && !var_memory(scale, &offset) && !vars_commit(d, scale->role)) return false;
    if (!device_computes(d) || transpose_on_host(&u, src)) return true;
    uint64_t row = (uint64_t)u.columns * burin_dtype_bytes(dtype),
             all = row * ((u.outputs + 3) / 4 * 4);
    u.scratch_bytes = all < PIECE ? all : row * 4 > PIECE ? row * 4 : PIECE;
    u.scratch = device_scratch(d,
                               all < 1 << 20       ? all
                               : row * 4 > 1 << 20 ? row * 4
                                                   : 1 << 20,
                               &u.scratch_bytes);
    if (!u.scratch) return false;
    bool ok = upload_pieces(&u, src);
    device_scratch_finish(d, u.scratch);
    return ok || fail_prefix("variable %s", var->name);
}
