/* SPDX-License-Identifier: MIT
 * emit_norm.c - group norm, layer norm, softmax, GEGLU and their gradients.
 *
 * Group norm runs in stages, since a few groups alone do not fill a device: sums per slice of rows
 * and column (norm_columns), per group (norm_groups), then the elements (norm_apply,
 * norm_group_dx). The weight gradients of both norms start from the same sums per slice. What works
 * on rows takes one subgroup per row. */
#include "graph/kernel.h"

/* x as (batch, rows, columns). */
struct matrix {
    uint32_t batch, rows, columns;
};

static struct matrix matrix_of(const burin_shape *x, bool batched)
{
    int64_t columns = x->dim[x->rank - 1], batch = batched ? x->dim[0] : 1;
    int64_t rows = burin_shape_count(x) / (batch * columns);
    return (struct matrix){ (uint32_t)batch, (uint32_t)rows, (uint32_t)columns };
}

/* ---- stages over slices of rows -------------------------------------------------------------- */

/* Rows of a slice; slices of a batch item */
struct slices {
    uint32_t height, count;
};

/* Slices whose sums a later stage reads: long enough to pay for that, and a bounded number of them.
 * */
static struct slices slices_of_sums(const struct emit *e, const struct matrix *x)
{
    uint32_t height = e->target->tier == TIER_CPU ? 32 : 16;
    uint32_t most = x->batch < 256 ? 256 / x->batch : 1;
    if (ceil_div(x->rows, height) > most) height = ceil_div(x->rows, most);
    return (struct slices){ height, ceil_div(x->rows, height) };
}

static struct slices slices_of_elements(const struct emit *e, const struct matrix *x)
{
    uint32_t height = e->target->tier == TIER_CPU ? 32 : 8;
    return (struct slices){ height, ceil_div(x->rows, height) };
}

/* Push block and grid of the kernels that give an invocation a slice and one or four columns. */
static bool emit_slices(struct emit *e, struct kernel_call *c, const struct matrix *x,
                        const struct slices *s, uint32_t groups, bool wide)
{
    uint32_t count = x->batch * s->count * (wide ? x->columns / 4 : x->columns);
    uint32_t push[] = { count, x->rows, x->columns, s->count, s->height, groups };
    for (int i = 0; i < COUNT_OF(push); i++) c->push[i] = push[i];
    c->n_push = COUNT_OF(push);
    c->spec[0] = wide;
    c->n_spec = c->n_spec < 1 ? 1 : c->n_spec;
    kernel_groups(e->target, ceil_div(count, KERNEL_GROUP), c->groups);
    return emit_call(e, c);
}

static struct tensor_ref sums_workspace(struct emit *e, const struct matrix *x,
                                        const struct slices *s)
{
    return emit_workspace(e, (uint64_t)x->batch * s->count * 2 * x->columns * 4);
}

/* Sums of dy * xhat and of dy per slice and column; layer norm's statistics are by row. */
static bool emit_gradient_sums(struct emit *e, const struct matrix *x, const struct slices *s,
                               uint32_t groups, const struct tensor_ref *dy,
                               const struct tensor_ref *stats, const struct tensor_ref *sums)
{
    struct kernel_call c = {
        .shader = SHADER_norm_columns,
        .bind = { e->step->in[0], *sums, *dy, *stats },
        .n_bind = 4,
        .writes = 1u << 1,
        .spec = { 0, true, groups == 0 },
        .n_spec = 3,
        .flops = 5.0 * x->batch * x->rows * x->columns,
    };
    return emit_slices(e, &c, x, s, groups, x->columns % 4 == 0);
}

/* Merges the sums of a group's columns and slices into two numbers per group. */
static bool emit_groups(struct emit *e, const struct matrix *x, const struct slices *s,
                        bool gradient, float eps, const struct tensor_ref *sums,
                        const struct tensor_ref *out)
{
    uint32_t groups = (uint32_t)e->step->node->at[0], rows = x->batch * groups;
    struct kernel_call c = {
        .shader = SHADER_norm_groups,
        .bind = { *sums, *out, e->step->in[1] /* gamma */ },
        .n_bind = 3,
        .writes = 1u << 1,
        .spec = { 0, gradient },
        .n_spec = 2,
        .push = { rows, x->rows, x->columns, s->count, s->height, groups, kernel_float(eps) },
        .n_push = 7,
        .flops = 6.0 * rows * s->count * (x->columns / groups),
    };
    kernel_groups(e->target, ceil_div((uint64_t)rows * e->target->subgroup, KERNEL_GROUP),
                  c.groups);
    return emit_call(e, &c);
}

bool emit_group_norm(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, true);
    struct slices sliced = slices_of_sums(e, &x), elements = slices_of_elements(e, &x);
    struct tensor_ref sums = sums_workspace(e, &x, &sliced);
    uint32_t groups = (uint32_t)s->node->at[0];
    bool wide = x.columns % 4 == 0;
    double count = (double)x.batch * x.rows * x.columns;
    struct kernel_call columns = {
        .shader = SHADER_norm_columns,
        .bind = { s->in[0], sums },
        .n_bind = 2,
        .writes = 1u << 1,
        .n_spec = 3,
        .flops = 4 * count,
    };
    struct kernel_call apply = {
        .shader = SHADER_norm_apply,
        .bind = { s->in[0], s->in[1], s->in[2], s->out[0], s->out[1] },
        .n_bind = 5,
        .writes = 1u << 3,
        .chained = true,
        .flops = 3 * count,
    };
    return emit_slices(e, &columns, &x, &sliced, groups, wide) &&
           emit_groups(e, &x, &sliced, false, (float)s->node->at[1], &sums, &s->out[1]) &&
           emit_slices(e, &apply, &x, &elements, groups, wide && chain_by_fours(s));
}

bool emit_group_norm_dx(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, true);
    struct slices sliced = slices_of_sums(e, &x), elements = slices_of_elements(e, &x);
    uint32_t groups = (uint32_t)s->node->at[0];
    struct tensor_ref sums = sums_workspace(e, &x, &sliced);
    struct tensor_ref means = emit_workspace(e, (uint64_t)x.batch * groups * 2 * 4);
    struct kernel_call apply = {
        .shader = SHADER_norm_group_dx,
        .bind = { s->in[0], s->in[1], s->in[2], s->in[3], means, s->out[0] },
        .n_bind = 6,
        .writes = 1u << 5,
        .flops = 8.0 * x.batch * x.rows * x.columns,
    };
    return emit_gradient_sums(e, &x, &sliced, groups, &s->in[2], &s->in[3], &sums) &&
           emit_groups(e, &x, &sliced, true, 0, &sums, &means) &&
           emit_slices(e, &apply, &x, &elements, groups, x.columns % 4 == 0);
}

/* groups 0: layer norm. */
static bool emit_weights(struct emit *e, const struct matrix *x, uint32_t groups)
{
    const struct plan_step *s = e->step;
    struct slices sliced = slices_of_sums(e, x);
    struct tensor_ref sums = sums_workspace(e, x, &sliced);
    bool wide = x->columns % 4 == 0;
    struct kernel_call c = {
        .shader = SHADER_norm_weights,
        .bind = { sums, s->out[0], s->out[1] },
        .n_bind = 3,
        .writes = 3u << 1,
        .spec = { wide },
        .n_spec = 1,
        .push = { x->columns, x->batch * sliced.count },
        .n_push = 2,
        .flops = 2.0 * x->batch * sliced.count * x->columns,
    };
    kernel_groups(e->target, ceil_div(wide ? x->columns / 4 : x->columns, KERNEL_GROUP), c.groups);
    return emit_gradient_sums(e, x, &sliced, groups, &s->in[1], &s->in[2], &sums) &&
           emit_call(e, &c);
}

bool emit_group_norm_dw(struct emit *e)
{
    struct matrix x = matrix_of(&e->step->node->in[0]->shape, true);
    return emit_weights(e, &x, (uint32_t)e->step->node->at[0]);
}

bool emit_layer_norm_dw(struct emit *e)
{
    struct matrix x = matrix_of(&e->step->node->in[0]->shape, false);
    return emit_weights(e, &x, 0);
}

/* ---- one subgroup per row -------------------------------------------------------------------- */

static bool emit_rows(struct emit *e, struct kernel_call *c, const struct matrix *x, bool wide,
                      double flops)
{
    c->spec[0] = wide;
    c->n_spec = c->n_spec < 1 ? 1 : c->n_spec;
    c->push[0] = x->rows;
    c->push[1] = x->columns;
    c->n_push = c->n_push < 2 ? 2 : c->n_push;
    c->flops = flops * x->rows * x->columns;
    kernel_groups(e->target, ceil_div((uint64_t)x->rows * e->target->subgroup, KERNEL_GROUP),
                  c->groups);
    return emit_call(e, c);
}

bool emit_layer_norm(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, false);
    struct kernel_call c = {
        .shader = SHADER_norm_rows,
        .bind = { s->in[0], s->in[1], s->in[2], s->out[0], s->out[1] },
        .n_bind = 5,
        .writes = 3u << 3,
        .push = { [2] = kernel_float((float)s->node->at[0]) },
        .n_push = 3,
        .chained = true,
    };
    return emit_rows(e, &c, &x, x.columns % 4 == 0 && chain_by_fours(s), 7);
}

bool emit_layer_norm_dx(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, false);
    struct kernel_call c = {
        .shader = SHADER_norm_rows_dx,
        .bind = { s->in[0], s->in[1], s->in[2], s->in[3], s->out[0] },
        .n_bind = 5,
        .writes = 1u << 4,
    };
    return emit_rows(e, &c, &x, x.columns % 4 == 0, 12);
}

bool emit_softmax(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, false);
    struct kernel_call c = {
        .shader = SHADER_softmax,
        .bind = { s->in[0], s->out[0] },
        .n_bind = 2,
        .writes = 1u << 1,
        .n_spec = 2,
    };
    return emit_rows(e, &c, &x, x.columns % 4 == 0, 8);
}

bool emit_softmax_grad(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, false);
    struct kernel_call c = {
        .shader = SHADER_softmax,
        .bind = { s->in[0], s->out[0], s->in[1] },
        .n_bind = 3,
        .writes = 1u << 1,
        .spec = { 0, true },
        .n_spec = 2,
    };
    return emit_rows(e, &c, &x, x.columns % 4 == 0, 4);
}

/* ---- GEGLU ----------------------------------------------------------------------------------- */

static bool emit_gated(struct emit *e, bool gradient)
{
    const struct plan_step *s = e->step;
    struct matrix x = matrix_of(&s->node->in[0]->shape, false);
    uint32_t half = x.columns / 2, count = x.rows * (half % 4 ? half : half / 4);
    struct kernel_call c = {
        .shader = SHADER_geglu,
        .bind = { s->in[0], s->out[0], s->in[1] },
        .n_bind = gradient ? 3 : 2,
        .writes = 1u << 1,
        .spec = { half % 4 == 0, gradient },
        .n_spec = 2,
        .push = { count, half },
        .n_push = 2,
        .flops = (gradient ? 50.0 : 25.0) * x.rows * half,
    };
    kernel_groups(e->target, ceil_div(count, KERNEL_GROUP), c.groups);
    return emit_call(e, &c);
}

bool emit_geglu(struct emit *e) { return emit_gated(e, false); }
bool emit_geglu_grad(struct emit *e) { return emit_gated(e, true); }
