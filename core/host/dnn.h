/* SPDX-License-Identifier: MIT
 * dnn.h - products and convolutions by oneDNN, for devices whose memory is the host's. The
 * library is opened when it is there; without it, or built without its headers, dnn_open says
 * why. */
#ifndef BURIN_DNN_H
#define BURIN_DNN_H

#include "base/base.h"

/* Work on f32 tensors in row order.
 *   PRODUCT  y (batch, m, n) = a b: a (batch, m, k), or (batch, k, m) when ta; b (batch, k, n), or
 *            (batch, n, k) when tb; b_shared: one b for the whole batch
 *   CONV     y (N, OH, OW, O) of x (N, H, W, C) and w (KH, KW, C, O)
 *   CONV_DX  dx of dy and w        CONV_DW  dw of x and dy
 * Operands in the order that they are named here, the result last. */
enum dnn_kind { DNN_PRODUCT = 1, DNN_CONV, DNN_CONV_DX, DNN_CONV_DW };
struct dnn_work { /* zero what does not belong to the kind */
    enum dnn_kind kind;
    uint32_t batch, m, n, k, ta, tb, b_shared;
    uint32_t images, h, w, c, oh, ow, o, kh, kw, stride, top, left;
};

struct dnn; /* the library, and the primitives that it has made so far */
struct dnn_primitive;

/* NULL with a recorded error where the library is not there. */
struct dnn *dnn_open(void);
void dnn_close(struct dnn *d);
/* "oneDNN 2.6.3, AVX2, 2 threads": what the bits of its results depend on. */
const char *dnn_identity(const struct dnn *d);

/* The library's threads, which our kernels use as well: two pools would wait for each other.
 * Inside of a parallel region dnn_thread() is 0 .. dnn_threads() - 1, outside 0. */
int dnn_threads(void);
int dnn_thread(void);
void dnn_parallel(int threads, void (*run)(void *user), void *user);

/* Made once for equal work, and owned by d. NULL with a recorded error where the library has
 * nothing fast for it: its reference implementations are thousands of times slower. */
struct dnn_primitive *dnn_get(struct dnn *d, const struct dnn_work *work);
/* Whether it is a convolution that first gathers the pixels of all taps side by side. */
bool dnn_gathers(const struct dnn_primitive *p);
/* Scratch that it needs, bytes. */
uint64_t dnn_scratch(const struct dnn_primitive *p);
/* at: two operands, the result, scratch; not by two threads at once. */
bool dnn_run(struct dnn_primitive *p, void *const *at);

/* A matrix inside a larger one: element (i, j) at [i * row + j], stored transposed when
 * `across`. */
struct dnn_matrix {
    const float *at;
    int64_t row;
    bool across;
};
/* c (m, n; c_row elements from row to row) = scale a b + keep c. Inside of a parallel region on the
 * calling thread alone. */
bool dnn_product(int64_t m, int64_t n, int64_t k, float scale, struct dnn_matrix a,
                 struct dnn_matrix b, float keep, float *c, int64_t c_row);

#endif
