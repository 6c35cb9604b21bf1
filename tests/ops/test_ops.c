/* SPDX-License-Identifier: MIT
 * test_ops.c - every row of ops.def on a device, in every storage type and kernel tier, forward and
 * backward, against the float64 reference. Each session runs twice over poisoned memory and must
 * give the same bits. A row that no graph here contains fails, and a shader that none ran. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */

#include "base/embed.h"
#include "gpu/gpu_internal.h"
#include "graph/control.h"
#include "graph/device.h"
#include "ops/reference.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/cases.h"

#define MAX_VARS 24
#define LR 0.015625f

/* A tensor of the graph: on the device, and in the reference. */
struct tensor {
    burin_var *var;
    double *value;
    bool filled, result;
};

struct bench {
    struct tier_run *run;
    const struct op_case *c;
    burin_device *device;
    burin_graph *g;
    struct reference *r;
    struct tensor tensor[MAX_VARS];
    int tensors;
    uint32_t random;
};

enum column { FORWARD, BACKWARD, COLUMNS };
/* By f32, f16, bf16 */
struct row_result {
    double worst[3][COLUMNS];
    bool seen, forward;
};

/* The tiers run side by side, each with a device and a thread of its own:
 * most of the time is compilation. */
#define SHADERS_MAX 128
struct tier_run {
    const char *tier;
    struct row_result row[OP_COUNT];
    bool shader[SHADERS_MAX]; /* of embed_spirv: ran */
    int failures;
};
static struct tier_run runs[] = { { .tier = "cpu" }, { .tier = "simd" }, { .tier = "host" } };

static const struct {
    burin_dtype dtype;
    double tolerance[COLUMNS];
} types[] = {
    { BURIN_F32, { 2e-6, 5e-6 } },
    { BURIN_F16, { 6e-4, 2e-3 } },
    { BURIN_BF16, { 5e-3, 2e-2 } },
};

static void failure(const struct bench *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void failure(const struct bench *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s, case %d, %s: ", b->run->tier, (int)(b->c - op_cases),
            op_at(b->c->op)->name);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    b->run->failures++;
}

static bool want(const struct bench *b, bool ok)
{
    if (!ok) failure(b, "%s", burin_error());
    return ok;
}

/* ---- values ---------------------------------------------------------------------------------- */

static double next_random(struct bench *b, double low, double high)
{
    uint32_t word[4];
    philox((uint32_t[]){ b->random++, 0, 0, 0 }, (uint32_t[]){ 7, 7 }, word);
    return low == high ? low : low + (high - low) * ldexp(word[0], -32);
}

static double stored(double v, burin_dtype dtype)
{
    float f = (float)v;
    if (dtype == BURIN_I8) return rint(127 * v) / 127;
    return dtype == BURIN_F16    ? f16_to_f32(f32_to_f16(f))
           : dtype == BURIN_BF16 ? bf16_to_f32(f32_to_bf16(f))
                                 : f;
}

static burin_node *add_leaf(struct bench *b, burin_dtype dtype, const burin_shape *shape,
                            double low, double high, bool whole)
{
    struct tensor *t = &b->tensor[b->tensors++];
    t->var = burin_var_create(b->device, "input", dtype, shape, BURIN_ROLE_INPUT);
    t->value = reference_var(b->r, t->var);
    t->filled = true;
    for (int64_t i = 0; i < burin_shape_count(shape); i++) {
        double v = next_random(b, low, high);
        t->value[i] = whole ? floor(v) : stored(v, dtype);
    }
    return burin_leaf(b->g, t->var);
}

static void add_result(struct bench *b, burin_node *value)
{
    struct tensor *t = &b->tensor[b->tensors++];
    t->var = burin_var_create(b->device, "result", value->dtype, &value->shape, BURIN_ROLE_INPUT);
    t->value = reference_var(b->r, t->var);
    t->result = true;
    burin_assign(b->g, t->var, value);
}

/* Which input is the control or the amp block; -1 = none. */
static int control_input(enum op_code op)
{
    return op == OP_adamw                                        ? 4
           : op == OP_sgd                                        ? 3
           : op == OP_randn || op == OP_rand || op == OP_randint ? 0
                                                                 : -1;
}
static int amp_input(enum op_code op)
{
    return op == OP_adamw ? 5 : op == OP_sgd ? 4 : op == OP_grad_factor ? 1 : -1;
}

static burin_node *add_input(struct bench *b, int i, burin_dtype dtype)
{
    const struct op_case *c = b->c;
    bool set = c->low != 0 || c->high != 0, ids = c->ids && i == c->ids_input;
    if (control_input(c->op) >= 0 || amp_input(c->op) >= 0) dtype = BURIN_F32;
    if (c->int8 && i == 1) dtype = BURIN_I8;
    /* Whole F32 numbers are ids too */
    if (ids) dtype = dtype == BURIN_BF16 ? BURIN_F32 : BURIN_I32;
    burin_node *n = add_leaf(b, dtype, &c->in[i],
                             ids   ? 0
                             : set ? c->low
                                   : -1,
                             ids   ? c->ids
                             : set ? c->high
                                   : 1,
                             ids);
    double *v = b->tensor[b->tensors - 1].value;
    const double control[CONTROL_WORDS] = { [CONTROL_STEP] = 12345,
                                            [CONTROL_SEED_LO] = 0x89abcdef,
                                            [CONTROL_SEED_HI] = 0x1234567,
                                            [CONTROL_LR] = LR,
                                            [CONTROL_LR + 1] = LR };
    const double amp[AMP_WORDS] = { [AMP_STEP] = 1,
                                    [AMP_SCALE] = 1024,
                                    [AMP_GOOD] = 4,
                                    [AMP_GROWTH] = 5,
                                    [AMP_FACTOR] = 1.0 / 1024 };
    if (i == control_input(c->op)) memcpy(v, control, sizeof control);
    if (i == amp_input(c->op)) memcpy(v, amp, sizeof amp);
    for (int64_t k = 0; c->op == OP_adamw && i == 3 && k < burin_shape_count(&c->in[i]); k++)
        v[k] = fabs(v[k]); /* second moments are not negative */
    return n;
}

/* ---- the device ------------------------------------------------------------------------------ */

static float word_as_float(double v)
{
    uint32_t word = (uint32_t)v;
    float f;
    memcpy(&f, &word, sizeof f);
    return f;
}

/* Inputs as they are; results that are not inputs too are poisoned. */
static void write_all(struct bench *b)
{
    for (int k = 0; k < b->tensors; k++) {
        struct tensor *t = &b->tensor[k];
        int64_t count = burin_shape_count(&t->var->shape);
        float *f = mem_alloc((size_t)count * sizeof *f);
        bool control = k == control_input(b->c->op);
        for (int64_t i = 0; i < count; i++)
            f[i] = !t->filled                  ? NAN
                   : control && i < CONTROL_LR ? word_as_float(t->value[i])
                                               : (float)t->value[i];
        want(b, burin_var_write(t->var, BURIN_F32, f, count));
        mem_free(f);
    }
}

static float *read_tensor(const struct bench *b, const struct tensor *t)
{
    int64_t count = burin_shape_count(&t->var->shape);
    float *f = mem_alloc((size_t)count * sizeof *f);
    want(b, burin_var_read(t->var, BURIN_F32, f, count));
    return f;
}

/* |y - reference| / |reference|, Euclidean; infinite when y is not finite. */
static double relative_error(const float *y, const double *reference, int64_t count)
{
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(reference[i]) && !isfinite(y[i])) continue;
        double d = isfinite(y[i]) ? y[i] - reference[i] : INFINITY;
        error += d * d;
        norm += reference[i] * reference[i];
    }
    return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

/* ---- a case ---------------------------------------------------------------------------------- */

/* Adds y = op(x) and its results; then, if wanted, the gradients of sum(y * w).
 * Returns where the latter begin. */
static int trace(struct bench *b, burin_dtype dtype, bool backward)
{
    const struct op_case *c = b->c;
    const struct op_row *row = op_at(c->op);
    burin_node *in[BURIN_MAX_INPUTS], *dx[BURIN_MAX_INPUTS] = { NULL };
    for (int i = 0; i < row->inputs; i++) in[i] = add_input(b, i, dtype);
    burin_node *y = burin_call(b->g, row->name, in, row->inputs, c->at, row->n_attrs,
                               row->takes_shape ? &c->to : NULL, c->dtype);
    if (!want(b, y != NULL)) return 0;
    add_result(b, y);
    for (int i = 1; i < y->n_parts; i++) add_result(b, burin_part(y, i));
    unsigned changed = op_traits(c->op).writes;
    for (int i = 0; i < row->inputs; i++) b->tensor[i].result = changed >> i & 1;
    int first = b->tensors;
    if (!backward || !row->gradient) return first;
    burin_node *w = add_leaf(b, y->dtype, &y->shape, -1, 1, false);
    burin_node *product = burin_call(b->g, "mul", (burin_node *[]){ y, w }, 2, NULL, 0, NULL, 0);
    burin_node *loss =
        burin_call(b->g, "sum_to", &product, 1, NULL, 0, &(burin_shape){ 0 }, BURIN_F32);
    int n = c->int8 ? 1 : row->inputs;
    want(b, burin_backward(b->g, loss, NULL, in, dx, n));
    for (int i = 0; i < n; i++)
        if (dx[i]) add_result(b, dx[i]);
    return first;
}

/* The tolerance is that of the narrower of the case's type and the result's own. */
static void note(const struct bench *b, int type, burin_dtype dtype, enum column column,
                 double error)
{
    double limit = types[type].tolerance[column];
    for (int i = type; i < COUNT_OF(types); i++)
        if (types[i].dtype == dtype) limit = types[i].tolerance[column];
    if (b->c->loose) limit *= b->c->loose;
    struct row_result *r = &b->run->row[b->c->op];
    r->forward = true;
    if (!(error <= r->worst[type][column])) r->worst[type][column] = error;
    if (error <= limit) return;
    failure(b, "%s, %s: error %g, allowed %g", burin_dtype_name(types[type].dtype),
            column == FORWARD ? "forward" : "backward", error, limit);
}

/* Runs the session twice and returns the results of the first run; the
 * second must have the same bits. */
static bool run_twice(struct bench *b, burin_session *s, float **out)
{
    for (int run = 0; run < 2; run++) {
        write_all(b);
        if (!want(b, burin_session_run(s))) return false;
        for (int k = 0; k < b->tensors; k++) {
            if (!b->tensor[k].result) continue;
            float *f = read_tensor(b, &b->tensor[k]);
            if (run == 0) {
                out[k] = f;
                continue;
            }
            if (memcmp(f, out[k], (size_t)burin_shape_count(&b->tensor[k].var->shape) * sizeof *f))
                failure(b, "two runs differ");
            mem_free(f);
        }
    }
    return true;
}

/* What the plan runs; aliases, which it does not list, count when the graph has them. */
static void mark_seen(struct row_result *row, const struct burin_plan *p, const burin_graph *g)
{
    for (int i = 0; i < p->count; i++) {
        row[p->step[i].node->op].seen = true;
        for (int k = 0; k < p->step[i].chain.n_steps; k++)
            row[p->step[i].chain.step[k].op].seen = true;
    }
    for (int i = 0; i < g->count; i++)
        if (node_is_alias(g->node[i])) row[g->node[i]->op].seen = true;
}

static void compare(const struct bench *b, int type, int first, float *const *out)
{
    for (int k = 0; k < b->tensors; k++) {
        const struct tensor *t = &b->tensor[k];
        if (!out[k]) continue;
        double error = relative_error(out[k], t->value, burin_shape_count(&t->var->shape));
        note(b, type, t->var->dtype, k < first ? FORWARD : BACKWARD, error);
    }
}

static void run_case(struct tier_run *run, burin_device *device, const struct op_case *c, int type,
                     bool backward)
{
    struct bench b = { .run = run,
                       .c = c,
                       .device = device,
                       .g = burin_graph_create(),
                       .r = reference_create(false),
                       .random = 1 };
    float *out[MAX_VARS] = { NULL };
    uint64_t max_range = device->target.max_range;
    if (c->max_range) device->target.max_range = c->max_range;
    int first = trace(&b, types[type].dtype, backward);
    burin_session *s = burin_session_create(device, b.g, op_at(c->op)->name);
    if (want(&b, s != NULL) && run_twice(&b, s, out) && want(&b, reference_run(b.r, b.g))) {
        mark_seen(run->row, burin_session_plan(s), b.g);
        compare(&b, type, first, out);
    }
    for (int k = 0; k < b.tensors; k++) mem_free(out[k]);
    device->target.max_range = max_range;
    burin_session_destroy(s);
    for (int k = 0; k < b.tensors; k++) burin_var_destroy(b.tensor[k].var);
    reference_destroy(b.r);
    burin_graph_destroy(b.g);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* TEST_OPS="name name" limits the run to some rows, TEST_TIER=name to one tier. */
static bool selected(enum op_code op)
{
    const char *list = getenv("TEST_OPS"), *name = op_at(op)->name;
    size_t length = strlen(name);
    if (!list) return true;
    for (const char *p = list; (p = strstr(p, name)); p += length)
        if ((p == list || p[-1] == ' ') && (!p[length] || p[length] == ' ')) return true;
    return false;
}

static bool whole(void) { return !getenv("TEST_OPS") && !getenv("TEST_TIER"); }

static void mark_shaders(struct tier_run *run, const struct gpu_device *gpu)
{
    for (int i = 0; i < gpu->n_kernels; i++)
        for (int k = 0; embed_spirv[k].name && k < SHADERS_MAX; k++)
            if (strcmp(embed_spirv[k].name, gpu->kernels[i]->shader) == 0) run->shader[k] = true;
}

static void *run_tier(void *argument)
{
    struct tier_run *run = argument;
    const char *only = getenv("TEST_TIER");
    if (only && strcmp(only, run->tier) != 0) return NULL;
    /* The processor's kernels are where the device is one, by default, and the library is there. */
    bool host = !strcmp(run->tier, "host");
    burin_device *device =
        burin_device_create(&(burin_device_params){ .tier = host ? NULL : run->tier, .cache = "" });
    if (host && device && !device->target.host) {
        fprintf(stderr, "no tier host here\n");
        burin_device_destroy(device);
        return NULL;
    }
    if (!device) {
        fprintf(stderr, "%s: %s\n", run->tier, burin_error());
        run->failures++;
        return NULL;
    }
    for (int i = 0; i < COUNT_OF(op_cases); i++) {
        const struct op_case *c = &op_cases[i];
        bool first = i == 0 || c[-1].op != c->op;
        if (!selected(c->op)) continue;
        run_case(run, device, c, 0, !c->forward_only);
        run_case(run, device, c, 1, first);
        if (first) run_case(run, device, c, 2, false);
    }
    mark_shaders(run, device->gpu);
    burin_device_destroy(device);
    return NULL;
}

static void test_tiers(void **state)
{
    pthread_t thread[COUNT_OF(runs)];
    (void)state;
    for (int i = 0; i < COUNT_OF(runs); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_tier, &runs[i]), 0);
    for (int i = 0; i < COUNT_OF(runs); i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < COUNT_OF(runs); i++) assert_int_equal(runs[i].failures, 0);
}

/* One line per row: the worst error of all tiers. A row that no graph contained has no test. */
static void test_every_row(void **state)
{
    int missing = 0;
    (void)state;
    printf("%-20s %8s  %8s  %8s     %8s  %8s\n", "row", "f32", "f16", "bf16", "grad f32",
           "grad f16");
    for (int i = 0; i < OP_COUNT; i++) {
        bool seen = false, forward = false;
        for (int k = 0; k < COUNT_OF(runs); k++)
            seen |= runs[k].row[i].seen, forward |= runs[k].row[i].forward;
        printf("%-20s", op_at((enum op_code)i)->name);
        if (!seen) printf(" NO CASE");
        else if (!forward) printf(" in the graphs of other rows");
        else
            for (int column = 0; column < COLUMNS; column++)
                for (int type = 0; type < 3 - column; type++) {
                    double worst = 0;
                    for (int k = 0; k < COUNT_OF(runs); k++)
                        worst = fmax(worst, runs[k].row[i].worst[type][column]);
                    printf("%s%9.1e ", column && !type ? "   " : "", worst);
                }
        printf("\n");
        missing += !seen;
    }
    if (whole()) assert_int_equal(missing, 0);
}

/* But those of other tests: the smallest kernel (null_gpu) and what weights are uploaded by
 * (ops_session). */
static void test_every_shader(void **state)
{
    int missing = 0;
    (void)state;
    for (int k = 0; embed_spirv[k].name; k++) {
        const char *name = embed_spirv[k].name;
        assert_true(k < SHADERS_MAX);
        if (runs[0].shader[k] || runs[1].shader[k] || strcmp(name, "selftest") == 0 ||
            strcmp(name, "upload") == 0)
            continue;
        if (whole()) print_error("no case runs the shader %s\n", name);
        missing++;
    }
    if (whole()) assert_int_equal(missing, 0);
}

int main(void)
{
    setenv("BURIN_POISON", "2", 1);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tiers),
                                        cmocka_unit_test(test_every_row),
                                        cmocka_unit_test(test_every_shader) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
