/* SPDX-License-Identifier: MIT
 * gemm.h - what matrix products and convolutions share: the choice of an engine and a tile, and
 * products whose k is cut into parts. */
#ifndef BURIN_GEMM_H
#define BURIN_GEMM_H

#include "graph/kernel.h"

/* `batch` products (M, K) x (K, N), as seen by the kernel's inner loop (shaders/lib/gemm.glsl). */
struct gemm {
    uint64_t batch, m, n, k;
    bool ta, tb; /* stored (K, M), (N, K) */
};

enum gemm_kernel { GEMM_MATMUL, GEMM_CONV, GEMM_CONV_DW };

struct gemm_tile {
    enum plan_tier engine; /* 0: none */
    uint32_t us, ls;       /* sizes of the output along U and L */
    uint32_t u_tiles, l_tiles;
    uint32_t spec[3]; /* TU, TL, FLAGS */
    bool swap;        /* U is b */
};

/* The one place that chooses between kernels. */
struct gemm_tile gemm_tile(const struct emit *e, const struct gemm *g);
/* Into how many parts to cut k (of `most`), so that there is a workgroup for every core; 1 = whole.
 */
uint32_t gemm_splits(const struct emit *e, uint64_t groups, uint64_t most);
/* Fills shader, bindings, constants, push words and grid; parts: scratch that receives the
 * parts, NULL = the step's output. */
bool emit_gemm_call(struct emit *e, const struct gemm_tile *t, enum gemm_kernel kernel,
                    const struct tensor_ref *parts, const uint32_t *push, int n_push,
                    uint64_t groups, double flops);
/* Sums scratch of (products, splits, size) over the parts into the step's output, in order, and
 * applies the chain. */
bool emit_splitk_reduce(struct emit *e, struct tensor_ref parts, uint64_t size, uint32_t splits);
/* A product, a convolution or a gradient of one as work of the host; its multiply-adds times
 * two. */
double matmul_work(const burin_node *n, struct dnn_work *w);
double conv_work(const burin_node *n, struct dnn_work *w);
/* The whole step as one (batched) product; b_batch: elements from one B to the next. */
bool emit_gemm(struct emit *e, const struct gemm *g, uint64_t b_batch);

#endif
