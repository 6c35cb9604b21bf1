/* SPDX-License-Identifier: MIT
 * host.h - kernels of the processor, for devices whose memory is the host's. A piece of work is
 * plain data; a program keeps a copy of it and runs it between command buffers. */
#ifndef BURIN_HOST_H
#define BURIN_HOST_H

#include "graph/shader.h"
#include "host/dnn.h"

#define HOST_BINDINGS 12

enum host_type { HOST_F32 = 1, HOST_F16, HOST_BF16, HOST_I8 = 8 }; /* numbers of dtypes.def */

enum host_kind {
    HOST_MATRIX = 1,      /* `matrix`: a, b -> y */
    HOST_CHAIN,           /* the chain alone, or a copy: x -> y */
    HOST_ATTENTION,       /* q, k, v -> y, lse */
    HOST_ATTENTION_DELTA, /* y, dy -> delta */
    HOST_ATTENTION_DQ,    /* q, k, v, dy, lse, delta -> dq */
    HOST_ATTENTION_DKV,   /* q, k, v, dy, lse, delta -> dk, dv */
    HOST_GROUP_NORM,      /* x, gamma, beta -> y, statistics */
    HOST_GROUP_NORM_DX,   /* x, gamma, dy, statistics -> dx */
    HOST_LAYER_NORM,      /* as group norm's */
    HOST_LAYER_NORM_DX,
    HOST_GEGLU,      /* x -> y */
    HOST_GEGLU_GRAD, /* x, dy -> dx */
    HOST_ADAMW,      /* p, g, m, v (changed), control, amp */
    HOST_KINDS
};

struct host_chain { /* see graph/shader.h; n_steps = 0: none */
    int n_steps, n_inputs;
    struct {
        uint8_t op, a, b, p, q; /* op: row of ops.def */
    } step[CHAIN_STEPS];
    float immediate[CHAIN_IMMEDIATES];
    struct {
        uint64_t row, div, mod; /* element i reads (i / div % mod) * row + i % row */
    } read[CHAIN_INPUTS];
};

struct host_work { /* zero what does not belong to the kind */
    enum host_kind kind;
    uint8_t type[HOST_BINDINGS];  /* enum host_type of each binding: inputs, results, scratch */
    int results, scratch, inputs; /* bindings of the first result, the scratch, the chain's inputs;
                                     scratch 0: none */
    uint64_t count;               /* elements of the first result */
    struct host_chain chain;
    struct dnn_work matrix;
    struct dnn_primitive *primitive;
    uint64_t converted[2];          /* HOST_MATRIX: elements of a, b to convert, 0: is f32 */
    uint32_t batch, heads, n, m, d; /* attention: queries, keys, columns of a head */
    bool causal;                    /* query i sees keys j <= i */
    float scale;                    /* of scores */
    uint32_t rows, columns, groups; /* norms, GEGLU: (batch, rows, columns) */
    float eps;                      /* norms */
    float beta1, rest1, log1, beta2, rest2, log2, decay; /* AdamW: rest = 1 - beta, log = ln beta */
    uint32_t rate;                                       /* AdamW: word of the control block */
};

/* Scratch that a piece of work needs beside its tensors, bytes; whole before it is run. */
uint64_t host_scratch(const struct host_work *w);
/* at[i]: where binding i lies. False with a recorded error. Same machine, threads and library: same
 * bits. */
bool host_run(const struct host_work *w, void *const *at);
/* Elements first .. first + n - 1 in f32: where they lie, or converted into `room`. */
const float *host_load(int type, const void *at, uint64_t first, int64_t n, float *room);

#endif
