/* SPDX-License-Identifier: MIT
 * reference.c - the interpreter: variables, the walk over the pool, and the elementwise rows, whose
 * formulas are those of ops.def (tests/null/test_gradient.c checks them against others). */
#include "ops/reference_row.h"

#include <math.h>
#include <string.h>

struct slot {
    const burin_var *var;
    double *value;
};

struct reference {
    bool round_storage;
    struct slot *slot;
    int slots, slot_capacity;
    double *(*value)[BURIN_MAX_PARTS]; /* per node of the last run */
    struct arena arena;                /* results of the last run */
};

struct reference *reference_create(bool round_storage)
{
    struct reference *r = mem_alloc(sizeof *r);
    r->round_storage = round_storage;
    return r;
}

void reference_destroy(struct reference *r)
{
    if (!r) return;
    for (int i = 0; i < r->slots; i++) mem_free(r->slot[i].value);
    mem_free(r->slot);
    mem_free(r->value);
    arena_finish(&r->arena);
    mem_free(r);
}

double *reference_var(struct reference *r, const burin_var *var)
{
    if (var->parent)
        return reference_var(r, var->parent) + var->offset / burin_dtype_bytes(var->dtype);
    for (int i = 0; i < r->slots; i++)
        if (r->slot[i].var == var) return r->slot[i].value;
    r->slot = array_reserve(r->slot, r->slots, &r->slot_capacity, sizeof *r->slot);
    double *value = mem_alloc((size_t)ref_count(&var->shape) * sizeof *value);
    r->slot[r->slots++] = (struct slot){ var, value };
    return value;
}

const double *reference_value(const struct reference *r, const burin_node *n, int part)
{
    return r->value[n->index][part];
}

/* ---- elementwise rows ------------------------------------------------------------------------ */

#define abs fabs
#define min fmin
#define max fmax
#define erf_ erf
#define EW1(name, attrs, formula, gradient, help)                      \
    static double value_##name(double v, double b, double p, double q) \
    {                                                                  \
        (void)b, (void)p, (void)q;                                     \
        return formula;                                                \
    }
#define EW2(name, attrs, formula, gradient, help)                      \
    static double value_##name(double a, double b, double p, double q) \
    {                                                                  \
        (void)p, (void)q;                                              \
        return formula;                                                \
    }
#define OP(...)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
#undef abs
#undef min
#undef max
#undef erf_

static double (*const elementwise[OP_COUNT])(double a, double b, double p, double q) = {
#define EW1(name, ...) [OP_##name] = value_##name,
#define EW2(name, ...) [OP_##name] = value_##name,
#define OP(...)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
};

static void run_elementwise(struct ref *r)
{
    const burin_node *n = r->n;
    for (int64_t i = 0; i < ref_count(&n->shape); i++) {
        double a = r->x[0][ref_source(i, &n->shape, &n->in[0]->shape)];
        double b = n->n_in > 1 ? r->x[1][ref_source(i, &n->shape, &n->in[1]->shape)] : 0;
        r->y[0][i] = elementwise[n->op](a, b, n->at[0], n->at[1]);
    }
}

static void (*const run_row[OP_COUNT])(struct ref *r) = {
#define EW1(name, ...) [OP_##name] = run_elementwise,
#define EW2(name, ...) [OP_##name] = run_elementwise,
#define OP(name, ...) [OP_##name] = ref_##name,
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
};

/* ---- the walk -------------------------------------------------------------------------------- */

static void round_to(double *v, int64_t count, burin_dtype dtype)
{
    for (int64_t i = 0; i < count; i++) {
        float f = (float)v[i];
        if (dtype == BURIN_F32) v[i] = f;
        if (dtype == BURIN_F16) v[i] = f16_to_f32(f32_to_f16(f));
        if (dtype == BURIN_BF16) v[i] = bf16_to_f32(f32_to_bf16(f));
    }
}

static void run_node(struct reference *r, const burin_node *n)
{
    double **out = r->value[n->index];
    struct ref row = { .n = n };
    for (int i = 0; i < n->n_in; i++) row.x[i] = r->value[n->in[i]->index][0];
    bool alias = n->op == OP_leaf || n->op == OP_part || n->op == OP_reshape || n->op == OP_detach;
    if (n->op == OP_part) out[0] = r->value[n->in[0]->index][(int)n->at[0]];
    else if (n->op == OP_leaf || n->op == OP_assign) out[0] = reference_var(r, n->var);
    else if (alias) out[0] = row.x[0];
    else
        for (int k = 0; k < n->n_parts; k++)
            out[k] = arena_alloc(&r->arena,
                                 (size_t)ref_count(k ? &n->part[k] : &n->shape) * sizeof **out);
    memcpy(row.y, out, sizeof row.y);
    run_row[n->op](&row);
    if (!r->round_storage || (alias && n->op != OP_leaf)) return;
    for (int k = 0; k < n->n_parts; k++)
        round_to(out[k], ref_count(k ? &n->part[k] : &n->shape), k ? n->part_dtype[k] : n->dtype);
}

bool reference_run(struct reference *r, burin_graph *g)
{
    if (burin_graph_error(g)) return fail("%s", burin_graph_error(g));
    arena_finish(&r->arena);
    mem_free(r->value);
    r->value = mem_alloc((size_t)(g->count ? g->count : 1) * sizeof *r->value);
    for (int i = 0; i < g->count; i++) run_node(r, g->node[i]);
    return true;
}
