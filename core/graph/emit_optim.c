/* SPDX-License-Identifier: MIT
 * emit_optim.c - the optimizer's kernels run over flat vectors; one longer
 * than a binding is done in pieces. */
#include "graph/kernel.h"

#include <math.h>

bool emit_grad_factor(struct emit *e)
{
    const struct plan_step *s = e->step;
    struct kernel_call c = { .shader = SHADER_grad_factor,
                             .bind = { s->in[0], s->in[1], s->in[2], s->out[0] },
                             .n_bind = 4,
                             .writes = 1u << 1 | 1u << 3,
                             .n_push = 1,
                             .groups = { 1, 1, 1 } };
    c.push[0] = kernel_float((float)s->node->at[0]);
    return emit_call(e, &c);
}

/* Inputs 0 .. vectors - 1 are the vectors; bit i of `writes`: input i is changed. The push
 * constants are the piece's length, the parameter group and then the `n` numbers of the method. */
static bool emit_pieces(struct emit *e, enum shader shader, int vectors, uint32_t writes,
                        const float *number, int n)
{
    const struct plan_step *s = e->step;
    uint64_t count = (uint64_t)burin_shape_count(&s->node->in[0]->shape), piece = UINT64_MAX;
    for (int i = 0; i < vectors; i++) {
        uint64_t most = e->target->max_range / burin_dtype_bytes(s->in[i].dtype) / 256 * 256;
        if (most < piece) piece = most;
    }
    for (uint64_t at = 0; at < count; at += piece) {
        uint64_t length = count - at < piece ? count - at : piece;
        bool wide = length % 4 == 0;
        struct kernel_call c = { .shader = shader,
                                 .n_bind = s->node->n_in + 1,
                                 .writes = writes | 1u << s->node->n_in,
                                 .spec = { wide },
                                 .n_spec = 1,
                                 .n_push = 2 + n,
                                 .push = { (uint32_t)length, (uint32_t)s->node->at[0] } };
        for (int i = 0; i < s->node->n_in; i++) c.bind[i] = s->in[i];
        for (int i = 0; i < vectors; i++) {
            c.bind[i].offset += at * burin_dtype_bytes(s->in[i].dtype);
            c.bind[i].bytes = length * burin_dtype_bytes(s->in[i].dtype);
        }
        c.bind[s->node->n_in] = s->out[0];
        for (int i = 0; i < n; i++) c.push[2 + i] = kernel_float(number[i]);
        kernel_groups(e->target, ceil_div(length, wide ? 4 * KERNEL_GROUP : KERNEL_GROUP),
                      c.groups);
        c.flops = 10.0 * (double)length;
        if (!emit_call(e, &c)) return false;
    }
    return true;
}

/* 1 - beta and ln beta in double: in float32 1 - 0.999 would be wrong in the fifth digit. */
bool emit_adamw(struct emit *e)
{
    const double *at = e->step->node->at; /* group, beta1, beta2, eps, decay */
    const float number[] = { (float)at[1], (float)(1 - at[1]), (float)log(at[1]),
                             (float)at[2], (float)(1 - at[2]), (float)log(at[2]),
                             (float)at[3], (float)at[4] };
    return emit_pieces(e, SHADER_adamw, 4, 1u << 0 | 1u << 2 | 1u << 3, number, COUNT_OF(number));
}

bool emit_sgd(struct emit *e)
{
    const double *at = e->step->node->at; /* group, momentum, decay */
    const float number[] = { (float)at[1], (float)at[2] };
    return emit_pieces(e, SHADER_sgd, 3, 1u << 0 | 1u << 2, number, COUNT_OF(number));
}
