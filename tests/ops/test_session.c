/* SPDX-License-Identifier: MIT
 * test_session.c - variables and sessions, on the null device and on the machine's own (skipped
 * where there is none): memory, packing, what a run leaves in the variables, re-recording, sealing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */

#include "graph/device.h"
#include "gpu/gpu.h"
#include "ops/random_graph.h"

#include <math.h>
#include <string.h>

static burin_device *device;

static int open_device(void **state, const char *name, const char *tier)
{
    (void)state;
    setenv("BURIN_POISON", "2", 1);
    burin_device_params p = { .name = name, .tier = tier, .validate = true };
    device = burin_device_create(&p);
    if (!device) print_message("           no device: %s\n", burin_error());
    return 0;
}

static int open_null(void **state) { return open_device(state, "null", NULL); }
static int open_real(void **state) { return open_device(state, NULL, NULL); }
static int open_simd(void **state) { return open_device(state, NULL, "simd"); }
static int open_cpu(void **state) { return open_device(state, NULL, "cpu"); }

static int close_device(void **state)
{
    (void)state;
    burin_device_destroy(device);
    device = NULL;
    return 0;
}

#define NEED_DEVICE()        \
    do {                     \
        (void)state;         \
        if (!device) skip(); \
    } while (0)

static void ok(bool done)
{
    if (!done) print_error("%s\n", burin_error());
    assert_true(done);
}

static burin_var *variable(const char *name, burin_dtype dtype, burin_shape shape, burin_role role)
{
    burin_var *v = burin_var_create(device, name, dtype, &shape, role);
    ok(v != NULL);
    return v;
}

static void expect_error(const char *text)
{
    if (!strstr(burin_error(), text)) print_error("%s\n", burin_error());
    assert_non_null(strstr(burin_error(), text));
}

/* ---- variables ------------------------------------------------------------------------------- */

/* A file's (outputs, inputs, taps) becomes (taps, inputs, outputs), from and in every
 * type, and in 8 bits with a scale. */
static void upload_case(burin_dtype from, burin_dtype to, int outputs, int inputs, int taps)
{
    static const double tolerance[] = {
        [BURIN_F32] = 0, [BURIN_F16] = 1e-3, [BURIN_BF16] = 8e-3, [BURIN_I8] = 4e-3
    };
    int n = outputs * inputs * taps;
    bool int8 = to == BURIN_I8;
    if (int8 && (outputs % 4 || inputs * taps % 4)) return;
    float *values = mem_alloc((size_t)n * sizeof *values),
          *out = mem_alloc((size_t)n * sizeof *out), scale[64] = { 0 };
    uint16_t *small = mem_alloc((size_t)n * sizeof *small);
    for (int i = 0; i < n; i++) {
        values[i] = sinf((float)(i + 1)) * (float)(1 + i / (inputs * taps));
        small[i] = from == BURIN_F16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
        if (from != BURIN_F32)
            values[i] = from == BURIN_F16 ? f16_to_f32(small[i]) : bf16_to_f32(small[i]);
    }
    burin_var *v = variable("weight", to, SHAPE(taps, inputs, outputs), BURIN_ROLE_WEIGHT);
    burin_var *s = int8 ? variable("scale", BURIN_F32, SHAPE(outputs), BURIN_ROLE_WEIGHT) : NULL;
    ok(burin_var_upload(v, s, from, from == BURIN_F32 ? (const void *)values : small, outputs,
                        inputs, taps));
    ok(burin_var_read(v, BURIN_F32, out, n));
    if (s) ok(burin_var_read(s, BURIN_F32, scale, outputs));
    for (int o = 0; o < outputs; o++) {
        float largest = 0;
        for (int i = 0; i < inputs * taps; i++)
            largest = fmaxf(largest, fabsf(values[o * inputs * taps + i]));
        if (s) assert_true(scale[o] == largest);
        for (int i = 0; i < inputs; i++)
            for (int t = 0; t < taps; t++) {
                float have = out[(t * inputs + i) * outputs + o] * (s ? scale[o] : 1);
                double allowed = from == to ? 0 : tolerance[to] * largest;
                assert_true(fabsf(have - values[(o * inputs + i) * taps + t]) <= allowed);
            }
    }
    burin_var_destroy(v);
    burin_var_destroy(s);
    mem_free(values);
    mem_free(out);
    mem_free(small);
}

static void test_upload(void **state)
{
    NEED_DEVICE();
    if (gpu_device_caps(device->gpu)->type == GPU_TYPE_NULL) skip();
    static const struct {
        int outputs, inputs, taps;
    } sizes[] = { { 8, 12, 1 }, { 12, 8, 9 }, { 3, 5, 9 }, { 1, 7, 1 }, { 40, 68, 1 } };
    static const burin_dtype types[] = { BURIN_F32, BURIN_F16, BURIN_BF16, BURIN_I8 };
    for (int k = 0; k < COUNT_OF(sizes); k++)
        for (int from = 0; from < 3; from++)
            for (int to = 0; to < 4; to++)
                upload_case(types[from], types[to], sizes[k].outputs, sizes[k].inputs,
                            sizes[k].taps);
    burin_var *v = variable("weight", BURIN_I8, SHAPE(8, 8), BURIN_ROLE_WEIGHT);
    assert_false(burin_var_upload(v, NULL, BURIN_F32, (float[64]){ 0 }, 8, 8, 1));
    expect_error("8 bits and a scale go together");
    burin_var_destroy(v);
}

/* An absent variable takes no memory, and neither does the arena of the sessions over it. */
static void test_absent(void **state)
{
    NEED_DEVICE();
    burin_var *in[2], *out[2];
    burin_session *s[2];
    burin_memory m;
    for (int i = 0; i < 2; i++) {
        burin_graph *g = burin_graph_create();
        int n = i ? 1 << 20 : 1 << 12;
        in[i] = variable("in", BURIN_F32, SHAPE(n), BURIN_ROLE_WEIGHT);
        out[i] = variable("out", BURIN_F32, SHAPE(1), BURIN_ROLE_INPUT);
        burin_node *x = burin_leaf(g, in[i]);
        burin_node *y = burin_call(g, "reshape", &x, 1, NULL, 0, &SHAPE(n / 64, 64), 0);
        y = burin_call(g, "softmax", &y, 1, NULL, 0, NULL, 0); /* lives in the arena */
        y = burin_call(g, "sum_to", &y, 1, NULL, 0, &SHAPE(1, 1), 0);
        y = burin_call(g, "reshape", &y, 1, NULL, 0, &SHAPE(1), 0);
        burin_assign(g, out[i], y);
        s[i] = burin_session_create(device, g, "s");
        ok(s[i] != NULL);
        burin_graph_destroy(g);
    }
    burin_device_memory(device, &m);
    uint64_t all = m.total, before = gpu_device_allocated(device->gpu);
    burin_var_set_absent(in[1], true);
    burin_device_memory(device, &m);
    assert_true(m.total + (7u << 20) <= all);
    ok(burin_device_commit(device, false));
    assert_true(gpu_device_allocated(device->gpu) - before <= all - (7u << 20));
    assert_false(burin_session_run(s[1]));
    expect_error("absent");
    assert_false(burin_var_write(in[1], BURIN_F32, (float[1]){ 0 }, 1 << 20));
    expect_error("absent");
    burin_var_set_absent(in[1], false);
    burin_var_set_absent(in[0], true);
    ok(burin_device_commit(device, false));
    ok(burin_session_run(s[1]));
    float sum = 0;
    if (gpu_device_caps(device->gpu)->type != GPU_TYPE_NULL) {
        ok(burin_var_read(out[1], BURIN_F32, &sum, 1));
        assert_true(fabsf(sum / ((1 << 20) / 64) - 1) < 1e-4f);
    }
    assert_false(burin_session_run(s[0]));
    for (int i = 0; i < 2; i++) {
        burin_session_destroy(s[i]);
        burin_var_destroy(in[i]);
        burin_var_destroy(out[i]);
    }
}

static void test_contents(void **state)
{
    NEED_DEVICE();
    const float in[5] = { 1, -2.5f, 1e-3f, 65504, 3.14159f };
    float out[5];
    static const burin_dtype types[] = { BURIN_F32, BURIN_F16, BURIN_BF16 };
    static const float tolerance[] = { 0, 1e-3f, 8e-3f };
    for (int i = 0; i < 3; i++) {
        burin_var *v = variable("v", types[i], SHAPE(5), BURIN_ROLE_INPUT);
        ok(burin_var_read(v, BURIN_F32, out, 5));
        for (int k = 0; k < 5; k++) assert_true(out[k] == 0);
        ok(burin_var_write(v, BURIN_F32, in, 5));
        ok(burin_var_read(v, BURIN_F32, out, 5));
        for (int k = 0; k < 5; k++)
            assert_true(fabsf(in[k] - out[k]) <= tolerance[i] * fabsf(in[k]));
        uint16_t half[5];
        ok(burin_var_read(v, BURIN_BF16, half, 5));
        assert_int_equal(half[1], 0xc020);
        burin_var_destroy(v);
    }
    const int32_t ids[3] = { 1, 49407, -7 };
    int32_t back[3];
    burin_var *v = variable("ids", BURIN_I32, SHAPE(3), BURIN_ROLE_INPUT);
    ok(burin_var_write(v, BURIN_I32, ids, 3));
    ok(burin_var_read(v, BURIN_I32, back, 3));
    assert_memory_equal(ids, back, sizeof ids);
    assert_false(burin_var_write(v, BURIN_I32, ids, 4));
    expect_error("ids has 3 elements");
    assert_false(burin_var_read(v, BURIN_F64, back, 3));
    burin_var_destroy(v);
    burin_var_destroy(NULL);
}

/* Longer than one conversion chunk and than one gap. */
static void test_large(void **state)
{
    NEED_DEVICE();
    enum { N = 600001 };
    float *x = mem_alloc(N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = (float)(i % 2000 - 1000) / 8;
    burin_var *v = variable("v", BURIN_F16, SHAPE(N), BURIN_ROLE_WEIGHT);
    ok(burin_var_write(v, BURIN_F32, x, N));
    memset(x, 0, N * sizeof *x);
    ok(burin_var_read(v, BURIN_F32, x, N));
    for (int i = 0; i < N; i++) assert_true(x[i] == (float)(i % 2000 - 1000) / 8);
    burin_var_destroy(v);
    mem_free(x);
}

static void test_packing(void **state)
{
    NEED_DEVICE();
    const float a_in[3] = { 1, 2, 3 }, b_in[4] = { 4, 5, 6, 7 };
    burin_var *a = variable("a", BURIN_F32, SHAPE(3), BURIN_ROLE_PARAM);
    burin_var *b = variable("b", BURIN_F32, SHAPE(2, 2), BURIN_ROLE_PARAM), *views[2],
              *both[2] = { a, b };
    ok(burin_var_write(a, BURIN_F32, a_in, 3)); /* b is written after packing */
    burin_var *pack = burin_var_pack(device, "params", both, 2, BURIN_ROLE_PARAM);
    ok(pack != NULL);
    assert_int_equal(burin_shape_count(&pack->shape), 128); /* two times 256 bytes */
    ok(burin_var_write(b, BURIN_F32, b_in, 4));
    float all[128], out[4];
    ok(burin_var_read(pack, BURIN_F32, all, 128));
    assert_memory_equal(all, a_in, sizeof a_in);
    assert_memory_equal(all + 64, b_in, sizeof b_in);
    assert_true(all[3] == 0 && all[63] == 0 && all[68] == 0);
    assert_null(burin_var_pack(device, "again", both, 2, BURIN_ROLE_PARAM));
    expect_error("a is packed already");
    burin_var *grads = burin_var_pack_like(device, "grads", pack, BURIN_ROLE_GRAD, views);
    ok(grads != NULL);
    assert_string_equal(views[1]->name, "grads.b");
    ok(burin_var_write(views[1], BURIN_F32, b_in, 4));
    ok(burin_var_read(grads, BURIN_F32, all, 128));
    assert_memory_equal(all + 64, b_in, sizeof b_in);
    burin_var *m = burin_var_pack_like(device, "m", pack, BURIN_ROLE_STATE, NULL);
    ok(burin_var_read(m->member[0], BURIN_F32, out, 3));
    burin_var_destroy(m);
    burin_var_destroy(views[0]); /* in any order */
    burin_var_destroy(grads);
    burin_var_destroy(views[1]);
    burin_var_destroy(pack);
    burin_var_destroy(a);
    burin_var_destroy(b);
}

static void test_blocks(void **state)
{
    NEED_DEVICE();
    enum { N = 40 };
    burin_var *v[N];
    float ones[1000], out[1000];
    for (int i = 0; i < 1000; i++) ones[i] = 1;
    for (int i = 0; i < N; i++)
        v[i] = variable("v", BURIN_F32, SHAPE(1 + 25 * i), BURIN_ROLE_WEIGHT);
    int before = gpu_device_allocations(device->gpu);
    ok(burin_device_commit(device, false));
    for (int i = 0; i < N; i++) ok(burin_var_write(v[i], BURIN_F32, ones, 1 + 25 * i));
    int after = gpu_device_allocations(device->gpu);
    assert_true(after - before <= 2); /* a block, and perhaps the staging buffer */
    uint64_t held = gpu_device_allocated(device->gpu);
    for (int i = 0; i < N; i += 2) burin_var_destroy(v[i]);
    for (int i = 0; i < N; i += 2)
        v[i] = variable("w", BURIN_F32, SHAPE(1 + 25 * i), BURIN_ROLE_WEIGHT);
    ok(burin_device_commit(device, false));
    assert_int_equal(gpu_device_allocations(device->gpu), after); /* the holes are used */
    assert_int_equal(gpu_device_allocated(device->gpu), held);
    for (int i = 0; i < N; i++) {
        ok(burin_var_read(v[i], BURIN_F32, out, 1 + 25 * i));
        for (int k = 0; k <= 25 * i; k++) assert_true(out[k] == (float)(i % 2));
    }
    for (int i = 0; i < N; i++) burin_var_destroy(v[i]);
    assert_true(gpu_device_allocated(device->gpu) < held);
}

/* ---- sessions -------------------------------------------------------------------------------- */

/* Gives a fixture's graph variables of the device, with the values of the reference. */
static void move_to_device(struct fixture *f, burin_var **real)
{
    for (int i = 0; i < f->vars; i++) {
        burin_var *v = &f->var[i];
        int64_t count = burin_shape_count(&v->shape);
        real[i] = variable("v", v->dtype, v->shape, v->role);
        float *x = mem_alloc((size_t)count * sizeof *x);
        const double *from = reference_var(f->r, v);
        double *to = reference_var(f->r, real[i]);
        for (int64_t k = 0; k < count; k++) to[k] = x[k] = (float)from[k];
        ok(burin_var_write(real[i], BURIN_F32, x, count));
        mem_free(x);
    }
    for (int i = 0; i < f->g->count; i++) {
        burin_node *n = f->g->node[i];
        if (!n->var) continue;
        var_release(n->var);
        n->var = real[n->var - f->var];
        var_hold(n->var);
    }
}

static void expect_values(struct fixture *f, burin_var **real, double tolerance)
{
    for (int i = 0; i < f->vars; i++) {
        int64_t count = burin_shape_count(&real[i]->shape);
        const double *y = reference_var(f->r, real[i]);
        float *x = mem_alloc((size_t)count * sizeof *x);
        ok(burin_var_read(real[i], BURIN_F32, x, count));
        for (int64_t k = 0; k < count; k++)
            if (!(fabs(x[k] - y[k]) <= tolerance * (1 + fabs(y[k])))) {
                print_error("variable %d element %lld: %.7g, the reference says %.7g\n", i,
                            (long long)k, x[k], y[k]);
                assert_true(false);
            }
        mem_free(x);
    }
}

static void destroy_vars(struct fixture *f, burin_var **real)
{
    for (int i = 0; i < f->vars; i++) burin_var_destroy(real[i]);
}

static bool runs(void) { return gpu_device_caps(device->gpu)->type != GPU_TYPE_NULL; }

static void test_random_graphs(void **state)
{
    NEED_DEVICE();
    for (uint32_t seed = 1; seed <= 6; seed++) {
        struct fixture f;
        burin_var *real[FIXTURE_VARS];
        random_graph(&f, seed, 16, seed % 2 == 0);
        move_to_device(&f, real);
        burin_session *s = burin_session_create(device, f.g, "random");
        ok(s != NULL);
        for (int run = 0; run < 3; run++) {
            ok(burin_session_run(s));
            ok(reference_run(f.r, f.g));
            if (runs()) expect_values(&f, real, 2e-4);
        }
        burin_session_destroy(s);
        destroy_vars(&f, real);
        fixture_finish(&f);
    }
}

/* y = tanh(x w) summed up in `out`, as a session. */
static burin_session *small_session(struct fixture *f, burin_var **real, int64_t rows)
{
    fixture_init(f, false);
    burin_node *x = leaf(f, SHAPE(rows, 8)), *w = leaf(f, SHAPE(8, 8)), *out = leaf(f, SCALAR);
    fixture_fill(f, x, -1, 1);
    fixture_fill(f, w, -1, 1);
    burin_node *y = call1(f, "tanh", call2(f, "matmul", x, w));
    burin_assign(f->g, out->var, call2(f, "add", out, call1(f, "sum_squares", y)));
    move_to_device(f, real);
    burin_session *s = burin_session_create(device, f->g, "small");
    ok(s != NULL);
    return s;
}

static void test_growing_arena(void **state)
{
    NEED_DEVICE();
    struct fixture f[2];
    burin_var *real[2][FIXTURE_VARS];
    burin_session *a = small_session(&f[0], real[0], 4);
    ok(burin_session_run(a));
    burin_session *b = small_session(&f[1], real[1], 1000);
    burin_memory m;
    burin_session_memory(b, &m);
    assert_true(m.arena >= m.activations && m.activations >= m.workspace + 32000);
    assert_int_equal(m.role[BURIN_ROLE_PARAM], 32000 + 256 + 4);
    assert_int_equal(m.total, m.arena + 32000 + 256 + 4);
    assert_true(burin_session_flops(b) >= 2.0 * 1000 * 8 * 8);
    ok(burin_device_commit(device, true));
    int allocations = gpu_device_allocations(device->gpu);
    for (int i = 0; i < 3; i++) {
        ok(burin_session_run(b));
        ok(burin_session_run(a));
    }
    assert_int_equal(gpu_device_allocations(device->gpu), allocations);
    for (int i = 0; i < 4; i++) ok(reference_run(f[0].r, f[0].g));
    for (int i = 0; i < 3; i++) ok(reference_run(f[1].r, f[1].g));
    if (runs()) {
        expect_values(&f[0], real[0], 1e-4);
        expect_values(&f[1], real[1], 1e-4);
    }
    burin_var *late = variable("late", BURIN_F32, SHAPE(10), BURIN_ROLE_GRAD);
    float x[10];
    assert_false(burin_var_read(late, BURIN_F32, x, 10));
    expect_error("sealed");
    burin_var_destroy(late);
    for (int i = 0; i < 2; i++) {
        destroy_vars(&f[i], real[i]);
        fixture_finish(&f[i]);
    }
    burin_session_destroy(a);
    burin_session_destroy(b);
}

static void test_profile(void **state)
{
    NEED_DEVICE();
    struct fixture f;
    burin_var *real[FIXTURE_VARS];
    burin_session *s = small_session(&f, real, 4);
    burin_profile row[16];
    int n = burin_session_dispatches(s);
    assert_in_range(n, 2, 16);
    assert_false(burin_session_profile(s, row, n - 1));
    if (runs()) {
        ok(burin_session_profile(s, row, n));
        assert_string_equal(row[0].label, "matmul");
        for (int i = 0; i < n; i++) assert_true(row[i].seconds >= 0 && row[i].bytes > 0);
        ok(reference_run(f.r, f.g));
        expect_values(&f, real, 1e-4);
    }
    burin_session_destroy(s);
    destroy_vars(&f, real);
    fixture_finish(&f);
}

/* A collector may destroy things in any order. */
static void test_device_first(void **state)
{
    NEED_DEVICE();
    struct fixture f;
    burin_var *real[FIXTURE_VARS];
    burin_session *s = small_session(&f, real, 4);
    ok(burin_session_run(s));
    burin_device_destroy(device);
    device = NULL;
    assert_false(burin_session_run(s));
    expect_error("device is gone");
    destroy_vars(&f, real);
    burin_session_destroy(s);
    fixture_finish(&f);
}

/* A session and a graph may outlive their variables; then they cannot run. */
static void test_destroyed_variable(void **state)
{
    NEED_DEVICE();
    burin_memory before, m;
    burin_device_memory(device, &before);
    burin_var *in = variable("in", BURIN_F32, SHAPE(1 << 12), BURIN_ROLE_WEIGHT),
              *out = variable("out", BURIN_F32, SHAPE(1 << 12), BURIN_ROLE_INPUT);
    burin_graph *g = burin_graph_create();
    burin_node *x = burin_leaf(g, in);
    burin_assign(g, out, burin_call(g, "silu", &x, 1, NULL, 0, NULL, 0));
    burin_session *s = burin_session_create(device, g, "s"), *late;
    ok(burin_session_run(s));
    burin_var_destroy(in);
    assert_false(burin_session_run(s));
    expect_error("variable in is gone");
    ok((late = burin_session_create(device, g, "late")) != NULL);
    assert_false(burin_session_run(late));
    burin_session_destroy(late);
    burin_graph_destroy(g);
    burin_session_memory(s, &m);
    burin_session_destroy(s);
    burin_var_destroy(out);
    burin_device_memory(device, &m);
    assert_int_equal(m.total, before.total);
}

static void test_info(void **state)
{
    NEED_DEVICE();
    burin_info info, list[16];
    burin_device_info(device, &info);
    bool null = !strcmp(info.type, "null");
    assert_int_equal(null, gpu_device_caps(device->gpu)->type == GPU_TYPE_NULL);
    assert_true(info.name[0] && info.driver[0] && info.storage16 && info.subgroup > 0);
    assert_string_equal(info.tier, device->target.host               ? "host"
                                   : device->target.tier == TIER_CPU ? "cpu"
                                                                     : "simd");
    assert_true(!info.engine[0] == !device->target.host);
    assert_true(info.max_range >= 128u << 20 && info.alignment >= 256 && info.max_shared);
    assert_true(info.allocated == gpu_device_allocated(device->gpu));
    assert_int_equal(info.allocations, gpu_device_allocations(device->gpu));
    assert_int_equal(info.messages, 0);
    ok(burin_device_wait(device));
    int n = null ? 0 : burin_device_list(list, COUNT_OF(list)), found = 0;
    for (int i = 0; i < n && i < COUNT_OF(list); i++) {
        found += !strcmp(list[i].uuid, info.uuid);
        assert_true(!strcmp(list[i].tier, "simd") == (strcmp(list[i].type, "cpu") != 0));
        assert_true(!list[i].allocated && !list[i].allocations);
    }
    assert_true(null || found);
}

static void test_broken_graph(void **state)
{
    NEED_DEVICE();
    burin_graph *g = burin_graph_create();
    burin_graph_where(g, "recipe.lua:3");
    burin_leaf(g, NULL);
    assert_null(burin_session_create(device, g, "broken"));
    expect_error("recipe.lua:3");
    burin_graph_destroy(g);
    assert_null(burin_device_create(&(burin_device_params){ .name = "null", .tier = "fast" }));
    expect_error("fast");
    assert_null(burin_device_create(&(burin_device_params){ .name = "null", .tier = "host" }));
    expect_error("not the host's");
}

static void test_validation(void **state)
{
    NEED_DEVICE();
    assert_int_equal(gpu_validation_count(device->gpu), 0);
}

int main(void)
{
#define TESTS                                                                                      \
    cmocka_unit_test(test_contents), cmocka_unit_test(test_large), cmocka_unit_test(test_packing), \
        cmocka_unit_test(test_upload), cmocka_unit_test(test_absent),                              \
        cmocka_unit_test(test_blocks), cmocka_unit_test(test_random_graphs),                       \
        cmocka_unit_test(test_profile), cmocka_unit_test(test_broken_graph),                       \
        cmocka_unit_test(test_destroyed_variable), cmocka_unit_test(test_info),                    \
        cmocka_unit_test(test_growing_arena) /* seals */, cmocka_unit_test(test_validation),       \
        cmocka_unit_test(test_device_first) /* ends the device */
    const struct CMUnitTest null_tests[] = { TESTS }, real_tests[] = { TESTS };
    /* what a CPU driver's tier does on the host */
    const struct CMUnitTest tier_tests[] = { cmocka_unit_test(test_packing),
                                             cmocka_unit_test(test_upload),
                                             cmocka_unit_test(test_validation) };
    return cmocka_run_group_tests_name("null device", null_tests, open_null, close_device) +
           cmocka_run_group_tests_name("default device", real_tests, open_real, close_device) +
           cmocka_run_group_tests_name("simd tier", tier_tests, open_simd, close_device) +
           cmocka_run_group_tests_name("cpu tier", tier_tests, open_cpu, close_device);
}
