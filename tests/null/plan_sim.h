/* SPDX-License-Identifier: MIT
 * plan_sim.h - runs a plan on the host: every step is a small graph for the float64 reference, its
 * tensors lie in one simulated arena at the plan's offsets. Memory that is not written yet is NaN,
 * so a wrong lifetime, a wrong order or a wrong chain shows in the variables at the end. */
#ifndef PLAN_SIM_H
#define PLAN_SIM_H

#include "graph/plan.h"
#include "ops/fixture.h"

struct sim {
    const struct burin_plan *plan;
    struct reference *vars; /* the variables' contents */
    double *arena; /* one number per byte address; an element uses the first of its bytes */
};

static const struct plan_target sim_target = { .tier = TIER_CPU,
                                               .subgroup = 8,
                                               .cores = 2,
                                               .alignment = 256,
                                               .max_range = 128 << 20,
                                               .max_groups = 65535,
                                               .max_shared = 32768 };

static inline double *sim_at(struct sim *s, const struct tensor_ref *t, size_t *stride)
{
    *stride = t->var ? 1 : burin_dtype_bytes(t->dtype);
    return t->var ? reference_var(s->vars, t->var) + t->offset / burin_dtype_bytes(t->dtype)
                  : s->arena + t->offset;
}

static inline void sim_read(struct sim *s, const struct tensor_ref *t, double *out)
{
    size_t stride;
    const double *p = sim_at(s, t, &stride);
    for (int64_t i = 0; i < burin_shape_count(&t->shape); i++) out[i] = p[(size_t)i * stride];
}

static inline void sim_write(struct sim *s, const struct tensor_ref *t, const double *in)
{
    size_t stride;
    double *p = sim_at(s, t, &stride);
    for (int64_t i = 0; i < burin_shape_count(&t->shape); i++) p[(size_t)i * stride] = in[i];
}

struct sim_step {
    struct sim *sim;
    const struct plan_step *t;
    burin_graph *g;
    struct reference *r;
    burin_var var[BURIN_MAX_INPUTS + CHAIN_INPUTS];
    burin_node *in[BURIN_MAX_INPUTS], *reg[CHAIN_INPUT + CHAIN_INPUTS];
};

static inline burin_node *sim_leaf(struct sim_step *s, int i, const struct tensor_ref *t,
                                   const burin_shape *shape)
{
    s->var[i] =
        (burin_var){ .name = "in",
                     .dtype = t->dtype,
                     .shape = *shape,
                     .role = BURIN_ROLE_INPUT,
                     .bytes = (uint64_t)burin_shape_count(shape) * burin_dtype_bytes(t->dtype) };
    return burin_leaf(s->g, &s->var[i]);
}

/* An extra input, repeated to the result's shape as {row, div, mod} says. */
static inline void sim_extra(struct sim_step *s, int i)
{
    const struct tensor_ref *t = &s->t->extra[i];
    const struct chain_read *c = &s->t->chain.read[i];
    s->reg[CHAIN_INPUT + i] = sim_leaf(s, BURIN_MAX_INPUTS + i, t, &s->t->result->shape);
    double *all = reference_var(s->r, &s->var[BURIN_MAX_INPUTS + i]);
    double *x = mem_alloc((size_t)burin_shape_count(&t->shape) * sizeof *x);
    sim_read(s->sim, t, x);
    for (int64_t k = 0; k < burin_shape_count(&s->t->result->shape); k++) {
        int64_t at = (k / c->div % c->mod) * c->row + k % c->row;
        if (at >= burin_shape_count(&t->shape)) panic("a chain reads past its input");
        all[k] = x[at];
    }
    mem_free(x);
}

static inline burin_node *sim_chain(struct sim_step *s, burin_node *value)
{
    const struct chain *c = &s->t->chain;
    if (!shape_equal(&value->shape, &s->t->result->shape))
        value = burin_call(s->g, "reshape", &value, 1, NULL, 0, &s->t->result->shape, 0);
    s->reg[0] = value;
    for (int i = 0; i < c->n_steps; i++) {
        const struct op_row *row = op_at((enum op_code)c->step[i].op);
        burin_node *in[2] = { s->reg[c->step[i].a], s->reg[c->step[i].b] };
        double at[2] = { c->immediate[c->step[i].p], c->immediate[c->step[i].q] };
        s->reg[i + 1] = burin_call(s->g, row->name, in, row->inputs, at, row->n_attrs, NULL, 0);
    }
    return s->reg[c->n_steps];
}

/* An input may share memory with an output only where both are the same element at the same time.
 */
static inline void sim_check_aliases(const struct plan_step *t)
{
    int64_t count = burin_shape_count(&t->result->shape);
    for (int i = 0; i < BURIN_MAX_PARTS; i++) {
        const struct tensor_ref *o = &t->out[i];
        for (int k = 0; o->bytes && k < BURIN_MAX_INPUTS + CHAIN_INPUTS + 1; k++) {
            bool extra = k >= BURIN_MAX_INPUTS, scratch = k == BURIN_MAX_INPUTS + CHAIN_INPUTS;
            const struct tensor_ref *x = scratch ? &t->workspace
                                         : extra ? &t->extra[k - BURIN_MAX_INPUTS]
                                                 : &t->in[k];
            if (!x->bytes || x->var != o->var || x->offset >= o->offset + o->bytes ||
                o->offset >= x->offset + x->bytes)
                continue;
            bool by_index = extra ? !scratch && t->chain.read[k - BURIN_MAX_INPUTS].row == count
                                  : t->chain.own != NULL;
            if (!by_index || i || x->offset != o->offset || x->bytes != o->bytes)
                panic("%s: output %d lies over input %d", op_at((enum op_code)t->node->op)->name, i,
                      k);
        }
    }
}

static inline void sim_step(struct sim *sim, const struct plan_step *t)
{
    struct sim_step s = {
        .sim = sim,
        .t = t,
        .g = burin_graph_create(),
        .r = reference_create(false),
    };
    const struct op_row *row = op_at((enum op_code)t->node->op);
    int n_in = t->chain.own ? 1 : t->node->n_in;
    sim_check_aliases(t);
    for (int i = 0; i < n_in; i++) {
        s.in[i] = sim_leaf(&s, i, &t->in[i], &t->in[i].shape);
        sim_read(sim, &t->in[i], reference_var(s.r, &s.var[i]));
    }
    for (int i = 0; i < t->chain.n_inputs; i++) sim_extra(&s, i);
    burin_node *head = t->chain.own || t->node->op == OP_assign
                           ? s.in[0]
                           : burin_call(s.g, row->name, s.in, n_in, t->node->at, row->n_attrs,
                                        row->takes_shape ? &t->node->shape : NULL, t->node->dtype);
    burin_node *result = head ? sim_chain(&s, head) : NULL;
    if (burin_graph_error(s.g)) panic("%s", burin_graph_error(s.g));
    if (!reference_run(s.r, s.g)) panic("%s", burin_error());
    sim_write(sim, &t->out[0], reference_value(s.r, result, 0));
    for (int i = 1; i < BURIN_MAX_PARTS; i++)
        if (t->out[i].bytes) sim_write(sim, &t->out[i], reference_value(s.r, head, i));
    for (int i = 0; i < n_in; i++)
        if (op_traits((enum op_code)t->node->op).writes >> i & 1)
            sim_write(sim, &t->in[i], reference_var(s.r, &s.var[i]));
    reference_destroy(s.r);
    burin_graph_destroy(s.g);
}

static inline void sim_run(const struct burin_plan *plan, struct reference *vars)
{
    struct sim s = { plan, vars, mem_alloc((plan->arena_bytes + 1) * sizeof(double)) };
    for (uint64_t i = 0; i < plan->arena_bytes; i++) s.arena[i] = NAN;
    for (int i = 0; i < plan->count; i++) {
        const struct tensor_ref *w = &plan->step[i].workspace;
        for (uint64_t k = 0; k < w->bytes; k++) s.arena[w->offset + k] = NAN;
        sim_step(&s, &plan->step[i]);
    }
    mem_free(s.arena);
}

#endif
