/* SPDX-License-Identifier: MIT
 * gemm.h - what matrix products and convolutions share: the choice of a tile, and products split along k. */
#ifndef BURIN_GEMM_H
#define BURIN_GEMM_H

#include "graph/kernel.h"

/* y (batch, M, N) = A (batch, M, K) B (batch, K, N), as seen by the kernel's inner loop. A convolution is a sum of
 * `taps` such products. */
struct gemm {
    uint64_t batch, m, n, k;
    uint64_t taps;              /* 0 = 1 */
    bool ta, tb;                /* stored (K, M), (N, K) */
};

/* The tile of lib/gemm_cpu.glsl: TU rows of one operand times 8 TL rows of the other. */
struct gemm_tile {
    uint32_t tu, tl;
    uint32_t us, ls;            /* sizes of the output along U and L */
    uint32_t u_tiles, l_tiles;
    uint32_t flags;
    bool swap;
};
struct gemm_tile gemm_tile(const struct emit *e, const struct gemm *g);

bool gemm_on_cpu(const struct plan_target *t);       /* whether the CPU engine runs there */
/* Into how many parts k is cut so that `tiles` workgroups become enough to fill the device; 1 = not at all. */
uint32_t gemm_splits(const struct plan_target *t, uint64_t tiles, uint64_t k);
double gemm_flops(const struct gemm *g);
/* Sums (count / size, splits, size) of scratch into the step's output, in order, and applies the chain. */
bool emit_splitk_reduce(struct emit *e, struct tensor_ref parts, uint64_t size, uint32_t splits);
/* The step's output seen as y (M, N) of one matmul kernel, for convolutions that are one (1 x 1). */
bool emit_gemm(struct emit *e, const struct gemm *g);

#endif
