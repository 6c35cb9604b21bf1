/* SPDX-License-Identifier: MIT
 * cases.h - graphs of one op each, at least one per row of ops.def: odd sizes, dims of 1, several batches, and sizes
 * that take the kernels' fast paths. The first case of a row runs in more types than the others. Rows without a case
 * must occur in the gradient of one. */
#ifndef CASES_H
#define CASES_H

#include "graph/graph.h"

struct op_case {
    enum op_code op;
    burin_shape in[BURIN_MAX_INPUTS];
    double at[BURIN_MAX_ATTRS];     /* all attributes, no defaults */
    burin_shape to;
    double low, high;               /* range of the inputs; 0, 0 = [-1, 1) */
    int ids, ids_input;             /* input ids_input holds whole numbers below ids */
    burin_dtype dtype;              /* of the result; 0 = the op's own choice */
    uint64_t max_range;             /* bytes per binding, to have long vectors done in pieces; 0 = the device's own */
    bool forward_only;              /* its gradient's kernels take seconds to compile, or do not fit max_range */
    bool int8;                      /* input 1 is a frozen weight in 8 bits */
    double loose;                   /* factor on the tolerance, where the formula itself loses digits */
};

#define CONTROL_SHAPE { 1, { 24 } }
#define AMP_SHAPE { 1, { 8 } }

static const struct op_case op_cases[] = {
    { .op = OP_neg, .in = { { 2, { 3, 5 } } } },
    { .op = OP_exp, .in = { { 3, { 2, 3, 4 } } } },
    { .op = OP_log, .in = { { 2, { 8, 9 } } }, .low = 0.01, .high = 3 },
    { .op = OP_sqrt, .in = { { 1, { 16 } } }, .low = 0.5, .high = 3 },
    { .op = OP_square, .in = { { 1, { 16 } } } },
    { .op = OP_abs, .in = { { 1, { 16 } } } },
    { .op = OP_sign, .in = { { 1, { 16 } } } },
    { .op = OP_sin, .in = { { 1, { 64 } } }, .low = -4, .high = 4 },
    { .op = OP_cos, .in = { { 1, { 64 } } }, .low = -4, .high = 4 },
    { .op = OP_tanh, .in = { { 1, { 64 } } }, .low = -2, .high = 2 },
    { .op = OP_one_minus, .in = { { 1, { 16 } } } },
    { .op = OP_reciprocal, .in = { { 1, { 16 } } }, .low = 0.5, .high = 2 },
    { .op = OP_scale, .in = { { 1, { 300 } } }, .at = { -1.5 } },
    { .op = OP_shift, .in = { { 1, { 16 } } }, .at = { 0.25 } },
    { .op = OP_clamp, .in = { { 1, { 32 } } }, .at = { -0.5, 0.25 } },
    { .op = OP_within, .in = { { 1, { 32 } } }, .at = { -0.5, 0.25 } },
    { .op = OP_relu, .in = { { 1, { 16 } } } },
    { .op = OP_step, .in = { { 1, { 16 } } } },
    { .op = OP_sigmoid, .in = { { 1, { 64 } } }, .low = -6, .high = 6 },
    { .op = OP_silu, .in = { { 1, { 64 } } }, .low = -6, .high = 6 },
    { .op = OP_quick_gelu, .in = { { 1, { 64 } } }, .low = -4, .high = 4 },
    { .op = OP_gelu, .in = { { 1, { 64 } } }, .low = -4, .high = 4 },

    { .op = OP_add, .in = { { 3, { 2, 3, 5 } }, { 1, { 5 } } } },
    { .op = OP_add, .in = { { 0 }, { 2, { 2, 6 } } } },
    { .op = OP_add, .in = { { 1, { 3000 } }, { 0 } }, .max_range = 4100, .forward_only = true },  /* in pieces */
    { .op = OP_sub, .in = { { 2, { 3, 1 } }, { 3, { 2, 1, 8 } } } },
    { .op = OP_mul, .in = { { 4, { 2, 3, 4, 8 } }, { 4, { 2, 1, 1, 8 } } } },
    { .op = OP_mul, .in = { { 4, { 3, 2, 4, 8 } }, { 4, { 3, 1, 1, 1 } } } },
    { .op = OP_mul, .in = { { 1, { 3000 } }, { 1, { 3000 } } }, .max_range = 4100, .forward_only = true },
    { .op = OP_div, .in = { { 2, { 3, 5 } }, { 2, { 3, 1 } } }, .low = 0.5, .high = 2 },
    { .op = OP_minimum, .in = { { 2, { 3, 8 } }, { 1, { 8 } } } },
    { .op = OP_maximum, .in = { { 1, { 8 } }, { 2, { 3, 8 } } } },
    { .op = OP_less, .in = { { 2, { 4, 8 } }, { 2, { 4, 8 } } } },

    { .op = OP_reshape, .in = { { 2, { 3, 4 } } }, .to = { 3, { 2, 1, 6 } } },
    { .op = OP_detach, .in = { { 2, { 3, 4 } } } },
    { .op = OP_cast, .in = { { 2, { 3, 4 } } }, .dtype = BURIN_F16 },
    { .op = OP_cast, .in = { { 2, { 3, 3 } } }, .dtype = BURIN_BF16 },
    { .op = OP_broadcast, .in = { { 2, { 3, 1 } } }, .to = { 3, { 2, 3, 8 } } },
    { .op = OP_broadcast, .in = { { 4, { 2, 1, 1, 8 } } }, .to = { 4, { 2, 3, 2, 8 } } },
    { .op = OP_permute, .in = { { 4, { 2, 3, 4, 5 } } }, .at = { 2, 0, 3, 1 } },
    { .op = OP_permute, .in = { { 4, { 2, 3, 4, 8 } } }, .at = { 0, 2, 1, 3 } },
    { .op = OP_permute, .in = { { 3, { 2, 4, 6 } } }, .at = { 0, 2, 1 } },
    { .op = OP_slice, .in = { { 3, { 2, 5, 3 } } }, .at = { 1, 1, 4 } },
    { .op = OP_slice, .in = { { 3, { 2, 5, 8 } } }, .at = { -1, 4, 8 } },
    { .op = OP_pad, .in = { { 3, { 2, 5, 3 } } }, .at = { 1, 1, 2 } },
    { .op = OP_pad, .in = { { 3, { 2, 5, 4 } } }, .at = { 0, 0, 3 } },
    { .op = OP_concat, .in = { { 3, { 2, 5, 3 } }, { 3, { 2, 2, 3 } } }, .at = { 1 } },
    { .op = OP_concat, .in = { { 2, { 2, 8 } }, { 2, { 2, 4 } } }, .at = { -1 } },
    { .op = OP_upsample, .in = { { 4, { 2, 2, 3, 4 } } }, .at = { 4, 6 } },
    { .op = OP_upsample, .in = { { 4, { 1, 3, 5, 3 } } }, .at = { 7, 3 } },
    { .op = OP_upsample_grad, .in = { { 4, { 2, 7, 9, 3 } } }, .at = { 3, 4 } },
    { .op = OP_embedding, .in = { { 2, { 50, 12 } }, { 2, { 2, 7 } } }, .ids = 50, .ids_input = 1 },
    { .op = OP_embedding, .in = { { 2, { 5, 3 } }, { 1, { 11 } } }, .ids = 5, .ids_input = 1 },
    { .op = OP_embedding, .in = { { 2, { 600, 12 } }, { 1, { 20 } } }, .ids = 600, .ids_input = 1, .max_range = 20000 },
    { .op = OP_embedding_grad, .in = { { 1, { 9 } }, { 2, { 9, 8 } } }, .at = { 6 }, .ids = 6, .ids_input = 0 },
    { .op = OP_timestep_embedding, .in = { { 1, { 3 } } }, .at = { 20, 10000 }, .low = 0, .high = 1000, .loose = 20 },

    { .op = OP_sum_to, .in = { { 3, { 2, 3, 5 } } }, .to = { 2, { 3, 1 } } },
    { .op = OP_sum_to, .in = { { 3, { 3, 700, 12 } } }, .to = { 1, { 12 } } },
    { .op = OP_sum_to, .in = { { 4, { 3, 5, 7, 6 } } }, .to = { 4, { 1, 5, 1, 6 } } },
    { .op = OP_sum_to, .in = { { 4, { 3, 5, 7, 6 } } }, .to = { 4, { 3, 1, 7, 1 } } },
    { .op = OP_sum_to, .in = { { 3, { 3, 70, 101 } } }, .to = { 3, { 3, 70, 1 } } },
    { .op = OP_sum_to, .in = { { 2, { 30, 1001 } } }, .to = { 0 } },
    { .op = OP_sum_squares, .in = { { 3, { 2, 3, 5 } } } },
    { .op = OP_sum_squares, .in = { { 2, { 300, 104 } } } },
    { .op = OP_sum_squares, .in = { { 2, { 700, 1000 } } }, .max_range = 1200000, .forward_only = true },
    { .op = OP_softmax, .in = { { 2, { 3, 7 } } }, .low = -2, .high = 2 },
    { .op = OP_softmax, .in = { { 3, { 2, 5, 160 } } }, .low = -2, .high = 2 },

    { .op = OP_matmul, .in = { { 2, { 3, 5 } }, { 2, { 5, 6 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 2, { 33, 40 } }, { 2, { 40, 72 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 2, { 40, 20 } }, { 2, { 40, 36 } } }, .at = { 1, 0 } },
    { .op = OP_matmul, .in = { { 2, { 20, 40 } }, { 2, { 36, 40 } } }, .at = { 0, 1 } },
    { .op = OP_matmul, .in = { { 2, { 5, 3 } }, { 2, { 4, 5 } } }, .at = { 1, 1 } },
    { .op = OP_matmul, .in = { { 3, { 2, 77, 16 } }, { 2, { 16, 24 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 3, { 2, 9, 5 } }, { 3, { 2, 5, 7 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 4, { 2, 1, 16, 12 } }, { 4, { 2, 1, 8, 16 } } }, .at = { 1, 1 } },
    { .op = OP_matmul, .in = { { 2, { 16, 1032 } }, { 2, { 1032, 16 } } }, .at = { 0, 0 } },  /* k is split */
    /* tiles of the CPU engine: 16 x 32 (transposed), 16 x 64 (columns spread, rows in lanes), 16 x 128, 16 x 160 */
    { .op = OP_matmul, .in = { { 2, { 40, 32 } }, { 2, { 40, 32 } } }, .at = { 1, 0 }, .forward_only = true },
    { .op = OP_matmul, .in = { { 2, { 200, 48 } }, { 2, { 48, 16 } } }, .at = { 0, 0 }, .forward_only = true },
    { .op = OP_matmul, .in = { { 2, { 136, 64 } }, { 2, { 64, 128 } } }, .at = { 0, 0 }, .forward_only = true },
    { .op = OP_matmul, .in = { { 2, { 63, 40 } }, { 2, { 40, 160 } } }, .at = { 0, 0 }, .forward_only = true },

    /* stride, top, left, bottom, right; then height, width or kh, kw */
    { .op = OP_matmul, .in = { { 2, { 3, 8 } }, { 2, { 8, 12 } } }, .at = { 0, 0 }, .int8 = true },
    { .op = OP_matmul, .in = { { 3, { 2, 77, 16 } }, { 2, { 16, 24 } } }, .at = { 0, 0 }, .int8 = true },
    { .op = OP_matmul, .in = { { 2, { 136, 64 } }, { 2, { 64, 128 } } }, .at = { 0, 0 }, .int8 = true },
    { .op = OP_matmul, .in = { { 2, { 16, 1032 } }, { 2, { 1032, 16 } } }, .at = { 0, 0 }, .int8 = true },
    { .op = OP_conv2d, .in = { { 4, { 2, 9, 8, 8 } }, { 4, { 3, 3, 8, 16 } } }, .at = { 1, 1, 1, 1, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 2, 9, 8, 8 } }, { 4, { 3, 3, 8, 16 } } }, .at = { 1, 1, 1, 1, 1 }, .int8 = true },
    { .op = OP_conv2d, .in = { { 4, { 1, 9, 7, 8 } }, { 4, { 3, 3, 8, 12 } } }, .at = { 2, 0, 0, 1, 1 }, .int8 = true },
    { .op = OP_conv2d, .in = { { 4, { 1, 5, 6, 40 } }, { 4, { 3, 3, 40, 160 } } }, .at = { 1, 1, 1, 1, 1 }, .int8 = true },
    { .op = OP_conv2d, .in = { { 4, { 1, 9, 7, 8 } }, { 4, { 3, 3, 8, 12 } } }, .at = { 2, 0, 0, 1, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 2, 6, 5, 3 } }, { 4, { 3, 3, 3, 5 } } }, .at = { 1, 1, 1, 1, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 1, 5, 6, 4 } }, { 4, { 1, 1, 4, 8 } } }, .at = { 1, 0, 0, 0, 0 } },
    { .op = OP_conv2d, .in = { { 4, { 2, 8, 8, 16 } }, { 4, { 3, 3, 16, 4 } } }, .at = { 1, 1, 1, 1, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 1, 5, 6, 40 } }, { 4, { 3, 3, 40, 160 } } }, .at = { 1, 1, 1, 1, 1 } },
    { .op = OP_conv2d_dx, .in = { { 4, { 1, 3, 4, 4 } }, { 4, { 3, 3, 8, 4 } } }, .at = { 2, 0, 0, 1, 1, 6, 8 } },
    { .op = OP_conv2d_dw, .in = { { 4, { 1, 6, 8, 4 } }, { 4, { 1, 3, 4, 8 } } }, .at = { 2, 0, 0, 1, 1, 3, 3 } },

    /* heads, causal, scale */
    { .op = OP_attention, .in = { { 3, { 2, 17, 80 } }, { 3, { 2, 17, 80 } }, { 3, { 2, 17, 80 } } }, .at = { 2, 1, 0 } },
    { .op = OP_attention, .in = { { 3, { 2, 70, 80 } }, { 3, { 2, 77, 80 } }, { 3, { 2, 77, 80 } } }, .at = { 2, 0, 0 } },
    { .op = OP_attention, .in = { { 3, { 1, 9, 64 } }, { 3, { 1, 13, 64 } }, { 3, { 1, 13, 64 } } }, .at = { 1, 0, 0.3 },
      .forward_only = true },

    { .op = OP_group_norm, .in = { { 4, { 2, 3, 5, 32 } }, { 1, { 32 } }, { 1, { 32 } } }, .at = { 8, 1e-5 } },
    { .op = OP_group_norm, .in = { { 3, { 1, 35, 6 } }, { 1, { 6 } }, { 1, { 6 } } }, .at = { 3, 1e-3 } },
    { .op = OP_layer_norm, .in = { { 3, { 2, 9, 48 } }, { 1, { 48 } }, { 1, { 48 } } }, .at = { 1e-5 } },
    { .op = OP_layer_norm, .in = { { 2, { 5, 7 } }, { 1, { 7 } }, { 1, { 7 } } }, .at = { 1e-5 } },
    { .op = OP_geglu, .in = { { 3, { 2, 3, 24 } } }, .low = -2, .high = 2 },
    { .op = OP_geglu, .in = { { 2, { 3, 10 } } }, .low = -2, .high = 2 },

    { .op = OP_randn, .in = { CONTROL_SHAPE }, .at = { 3 }, .to = { 2, { 50, 21 } } },
    { .op = OP_rand, .in = { CONTROL_SHAPE }, .at = { 4 }, .to = { 2, { 5, 3 } } },
    { .op = OP_randint, .in = { CONTROL_SHAPE }, .at = { 5, 2, 1000 }, .to = { 1, { 6 } } },

    { .op = OP_grad_factor, .in = { { 0 }, AMP_SHAPE }, .at = { 1 }, .low = 1e4, .high = 2e4 },
    { .op = OP_grad_factor, .in = { { 0 }, AMP_SHAPE }, .at = { 0 }, .low = INFINITY, .high = INFINITY },
    { .op = OP_adamw, .in = { { 1, { 300 } }, { 1, { 300 } }, { 1, { 300 } }, { 1, { 300 } }, CONTROL_SHAPE, AMP_SHAPE },
      .at = { 1, 0.9, 0.999, 1e-8, 0.01 } },
    { .op = OP_adamw, .in = { { 2, { 43, 7 } }, { 2, { 43, 7 } }, { 2, { 43, 7 } }, { 2, { 43, 7 } }, CONTROL_SHAPE, AMP_SHAPE },
      .at = { 0, 0.9, 0.99, 1e-6, 0 }, .max_range = 1100 },
    { .op = OP_sgd, .in = { { 1, { 300 } }, { 1, { 300 } }, { 1, { 300 } }, CONTROL_SHAPE, AMP_SHAPE },
      .at = { 1, 0.9, 0.01 }, .max_range = 1100 },
};

#endif
