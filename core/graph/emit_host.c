/* SPDX-License-Identifier: MIT
 * emit_host.c - steps as work of the processor, where the device is one (host/host.h). The one
 * place that chooses between it and kernels of the device. */
#include "graph/control.h"
#include "graph/gemm.h"

#include <math.h>
#include <string.h>

_Static_assert((int)HOST_F32 == BURIN_F32 && (int)HOST_F16 == BURIN_F16 &&
                   (int)HOST_BF16 == BURIN_BF16 && (int)HOST_I8 == BURIN_I8,
               "host.h and dtypes.def");

static uint32_t rows_of(const burin_shape *s, int64_t batch)
{
    return (uint32_t)(burin_shape_count(s) / batch / s->dim[s->rank - 1]);
}

static uint32_t columns_of(const burin_shape *s) { return (uint32_t)s->dim[s->rank - 1]; }

/* ---- what a step is ------------------------------------------------------------------------- */

/* These fill in the work, and return how many operations it takes; negative: not for the host. */

#define NOT_HERE (-1.0)

static double elements(const struct host_work *w) { return (double)w->count; }

static double describe_matrix(const struct emit *e, struct host_work *w)
{
    const struct plan_step *s = e->step;
    bool product = s->node->op == OP_matmul;
    double flops = product ? matmul_work(s->node, &w->matrix) : conv_work(s->node, &w->matrix);
    w->primitive = dnn_get(e->target->host, &w->matrix);
    for (int i = 0; i < 2; i++)
        if (s->in[i].dtype != BURIN_F32)
            w->converted[i] = (uint64_t)burin_shape_count(&s->in[i].shape);
    return w->primitive ? flops : NOT_HERE;
}

static double describe_chain(const struct emit *e, struct host_work *w)
{
    return e->step->in[0].dtype == BURIN_I32 ? NOT_HERE : elements(w) * e->step->chain.n_steps;
}

static double describe_attention(const struct emit *e, struct host_work *w)
{
    const burin_node *node = e->step->node;
    const burin_shape *q = &node->in[0]->shape;
    w->heads = (uint32_t)node->at[0];
    w->batch = (uint32_t)q->dim[0];
    w->n = (uint32_t)q->dim[1];
    w->d = (uint32_t)q->dim[2] / w->heads;
    double rows = (double)w->batch * w->heads * w->n * w->d;
    if (w->kind == HOST_ATTENTION_DELTA) return 2 * rows;
    w->m = (uint32_t)node->in[1]->shape.dim[1];
    w->causal = node->at[1] != 0;
    w->scale = (float)(node->at[2] != 0 ? node->at[2] : 1 / sqrt(w->d));
    int products = w->kind == HOST_ATTENTION ? 2 : w->kind == HOST_ATTENTION_DQ ? 3 : 4;
    return 2 * products * rows * w->m;
}

static double describe_group_norm(const struct emit *e, struct host_work *w)
{
    const burin_node *node = e->step->node;
    const burin_shape *x = &node->in[0]->shape;
    w->batch = (uint32_t)x->dim[0];
    w->rows = rows_of(x, x->dim[0]);
    w->columns = columns_of(x);
    w->groups = (uint32_t)node->at[0];
    w->eps = (float)node->at[1];
    return 8 * elements(w);
}

static double describe_rows(const struct emit *e, struct host_work *w)
{
    const burin_node *node = e->step->node;
    const burin_shape *x = &node->in[0]->shape;
    w->rows = rows_of(x, 1);
    w->columns = columns_of(x);
    w->eps = (float)node->at[0];
    return 8 * elements(w);
}

static double describe_gated(const struct emit *e, struct host_work *w)
{
    describe_rows(e, w);
    w->columns /= 2;
    return 25 * elements(w);
}

static double describe_adamw(const struct emit *e, struct host_work *w)
{
    const burin_node *node = e->step->node;
    const double *at = node->at; /* group, beta1, beta2, eps, decay */
    w->count = (uint64_t)burin_shape_count(&node->in[0]->shape);
    w->rate = CONTROL_LR + (uint32_t)at[0];
    w->beta1 = (float)at[1], w->rest1 = (float)(1 - at[1]), w->log1 = (float)log(at[1]);
    w->beta2 = (float)at[2], w->rest2 = (float)(1 - at[2]), w->log2 = (float)log(at[2]);
    w->eps = (float)at[3], w->decay = (float)at[4];
    return 10 * elements(w);
}

struct rule {
    enum host_kind kind;
    double (*describe)(const struct emit *e, struct host_work *w);
    int results;
    uint32_t changed; /* bit i: input i is changed */
};

static const struct rule rules[OP_COUNT] = {
    [OP_assign] = { HOST_CHAIN, describe_chain, 1, 0 },
    [OP_cast] = { HOST_CHAIN, describe_chain, 1, 0 },
    [OP_matmul] = { HOST_MATRIX, describe_matrix, 1, 0 },
    [OP_conv2d] = { HOST_MATRIX, describe_matrix, 1, 0 },
    [OP_conv2d_dx] = { HOST_MATRIX, describe_matrix, 1, 0 },
    [OP_conv2d_dw] = { HOST_MATRIX, describe_matrix, 1, 0 },
    [OP_attention] = { HOST_ATTENTION, describe_attention, 2, 0 },
    [OP_attention_delta] = { HOST_ATTENTION_DELTA, describe_attention, 1, 0 },
    [OP_attention_dq] = { HOST_ATTENTION_DQ, describe_attention, 1, 0 },
    [OP_attention_dkv] = { HOST_ATTENTION_DKV, describe_attention, 2, 0 },
    [OP_group_norm] = { HOST_GROUP_NORM, describe_group_norm, 2, 0 },
    [OP_group_norm_dx] = { HOST_GROUP_NORM_DX, describe_group_norm, 1, 0 },
    [OP_layer_norm] = { HOST_LAYER_NORM, describe_rows, 2, 0 },
    [OP_layer_norm_dx] = { HOST_LAYER_NORM_DX, describe_rows, 1, 0 },
    [OP_geglu] = { HOST_GEGLU, describe_gated, 1, 0 },
    [OP_geglu_grad] = { HOST_GEGLU_GRAD, describe_gated, 1, 0 },
    [OP_adamw] = { HOST_ADAMW, describe_adamw, 1, 1u << 0 | 1u << 2 | 1u << 3 },
};
static const struct rule elementwise = { HOST_CHAIN, describe_chain, 1, 0 };

static bool type_is_known(burin_dtype d)
{
    return d == BURIN_F32 || d == BURIN_F16 || d == BURIN_BF16 || d == BURIN_I8;
}

static void describe_steps(const struct chain *c, struct host_chain *h)
{
    h->n_steps = c->n_steps;
    h->n_inputs = c->n_steps ? c->n_inputs : 0;
    for (int i = 0; i < c->n_steps; i++) {
        h->step[i].op = c->step[i].op;
        h->step[i].a = c->step[i].a, h->step[i].b = c->step[i].b;
        h->step[i].p = c->step[i].p, h->step[i].q = c->step[i].q;
    }
    memcpy(h->immediate, c->immediate, sizeof h->immediate);
    for (int i = 0; i < h->n_inputs; i++) {
        h->read[i].row = c->read[i].row;
        h->read[i].div = c->read[i].div;
        h->read[i].mod = c->read[i].mod;
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void bind(struct kernel_call *c, struct host_work *w, const struct tensor_ref *t)
{
    w->type[c->n_bind] = (uint8_t)t->dtype;
    c->bind[c->n_bind++] = *t;
}

static int bind_all(const struct plan_step *s, const struct rule *r, struct kernel_call *c,
                    struct host_work *w)
{
    int inputs = w->kind == HOST_CHAIN ? 1 : s->node->n_in;
    for (int i = 0; i < inputs; i++) bind(c, w, &s->in[i]);
    c->writes = r->changed;
    w->results = c->n_bind;
    for (int i = 0; i < r->results; i++) {
        c->writes |= 1u << c->n_bind;
        bind(c, w, &s->out[i]);
    }
    for (int i = 0; i < c->n_bind; i++)
        if (!type_is_known(c->bind[i].dtype)) return 0;
    return c->n_bind;
}

/* *done: whether the host takes it; if not, nothing was emitted. */
static bool emit_host(struct emit *e, bool *done)
{
    const struct plan_step *s = e->step;
    enum op_code op = (enum op_code)s->node->op;
    const struct rule *r = op_is_elementwise(op) ? &elementwise : &rules[op];
    struct host_work w = { .kind = r->kind,
                           .count = (uint64_t)burin_shape_count(&s->out[0].shape) };
    struct kernel_call c = { .host = &w, .chained = true };
    *done = false;
    if (!r->kind || !bind_all(s, r, &c, &w)) return true;
    describe_steps(&s->chain, &w.chain);
    c.flops = r->describe(e, &w);
    if (c.flops < 0) return true;
    *done = true;
    uint64_t scratch = host_scratch(&w);
    w.scratch = scratch ? c.n_bind : 0;
    if (scratch) {
        struct tensor_ref room = emit_workspace(e, scratch);
        c.writes |= 1u << c.n_bind;
        bind(&c, &w, &room);
    }
    w.inputs = c.n_bind;
    for (int i = 0; i < w.chain.n_inputs; i++) bind(&c, &w, &s->extra[i]);
    return e->call(e, &c);
}

bool emit_step(struct emit *e)
{
    bool done = false;
    if (e->target->host && !emit_host(e, &done)) return false;
    return done || op_at((enum op_code)e->step->node->op)->emit(e);
}
