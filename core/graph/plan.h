/* SPDX-License-Identifier: MIT
 * plan.h - from graph to a list of steps with addresses. Pure data: it sees no device, so it is
 * tested without one.
 *
 *   fuse   which elementwise nodes join their producer's kernel (or each other)
 *   plan   what is computed when (recomputation included), and where in the arena it lives */
#ifndef BURIN_PLAN_H
#define BURIN_PLAN_H

#include "graph/graph.h"
#include "graph/shader.h"
#include "host/dnn.h"

enum plan_tier { TIER_CPU = 1, TIER_SIMD };

struct plan_target { /* what kernels may assume; filled from the device or by a test */
    enum plan_tier tier;
    uint32_t subgroup;   /* invocations per subgroup */
    uint32_t cores;      /* workgroups that run at once, a guess; for split-K and friends */
    uint64_t alignment;  /* of a tensor's address, bytes (256) */
    uint64_t max_range;  /* bytes one binding may cover */
    uint32_t max_groups; /* workgroups per dimension */
    uint32_t max_shared; /* bytes of shared memory per workgroup */
    struct dnn *host;    /* a library that computes on the same memory; NULL: none */
};

/* How an extra input of the chain is read for output element i: (i / div % mod) * row + i % row.
 *   same shape: row = count, div = count, mod = 1     per channel: row = C, div = count, mod = 1
 *   scalar: row = 1, div = count, mod = 1             per row (.., 1): row = 1, div = C, mod = rows
 *   (B, 1, 1, C) in (B, H, W, C): row = C, div = H*W*C, mod = B */
struct chain_read {
    uint32_t row, div, mod;
};

/* A chain: elementwise operations applied to a kernel's result before it is stored (shader.h). */
struct chain {
    int n_steps, n_inputs, n_immediates;
    /* a, b: registers; p, q: immediates */
    struct {
        uint8_t op, a, b, p, q;
        const burin_node *node; /* whose value it gives */
    } step[CHAIN_STEPS];
    float immediate[CHAIN_IMMEDIATES];
    struct chain_read read[CHAIN_INPUTS];
    burin_node *input[CHAIN_INPUTS]; /* the nodes read */
    burin_node *own;                 /* a chain alone: what register 0 reads; NULL on a kernel */
};

/* Where a tensor is: space 0 is the arena, otherwise a variable. */
struct tensor_ref {
    burin_var *var;         /* NULL = arena */
    uint64_t offset, bytes; /* in the arena or in the variable (not: in its parent) */
    burin_dtype dtype;
    burin_shape shape;
};

struct plan_step {
    const burin_node *node;   /* the head, whose kernel runs; of a chain alone its first node */
    const burin_node *result; /* the node whose value is stored: the chain's last, or the head */
    struct chain chain;       /* n_steps = 0: none */
    bool recomputed;          /* second run of a checkpointed node */
    struct tensor_ref in[BURIN_MAX_INPUTS]; /* a chain alone: in[0] is register 0 */
    struct tensor_ref out[BURIN_MAX_PARTS]; /* out[0] has result's shape and dtype */
    struct tensor_ref extra[CHAIN_INPUTS];  /* inputs of the chain */
    struct tensor_ref workspace;            /* bytes = 0: none */
};

struct burin_plan {
    struct arena arena; /* owns all below and copies of the nodes that steps point at */
    struct plan_step *step;
    int count;
    uint64_t arena_bytes;     /* size of the arena that the offsets need */
    uint64_t peak_bytes;      /* largest sum of live tensors at any step */
    uint64_t peak_workspace;  /* scratch at that step */
    uint64_t workspace_bytes; /* largest workspace */
    int calls;                /* kernel calls of one run */
    burin_var **var;          /* every variable that the steps touch */
    int n_vars;
    double flops;
};

struct plan_options {         /* zero = default */
    bool no_fusion;           /* every node its own kernel */
    bool no_recompute;        /* keep what cheap nodes give; checkpointed ones still run again */
    uint64_t recompute_bytes; /* smallest value worth recomputing (16 KiB) */
};

/* NULL with a recorded error when the graph carries one or a kernel refuses. options may be NULL.
 * The plan is independent of the graph afterwards, but not of the variables. */
struct burin_plan *plan_make(burin_graph *g, const struct plan_target *target,
                             const struct plan_options *options);
void plan_destroy(struct burin_plan *p);
/* One line per step: op, shapes, offsets; for tests and for debugging. */
void plan_print(const struct burin_plan *p, struct str *out);

/* What the plan must know about a row besides its shape rule and kernel; fuse.c has the only list.
 *   chains  its kernel applies a chain to output 0 and writes output 0 only there, each element
 *           after reading the chain's inputs at its index: such an input may be the output's memory
 *   cheap   bound by memory, not arithmetic: rather run again in the backward pass than kept for it
 *   writes  bit i: input i is a leaf whose variable it changes. Such rows and assign are roots */
struct op_traits {
    bool chains, cheap;
    uint8_t writes;
};
struct op_traits op_traits(enum op_code code);

const struct burin_plan *burin_session_plan(const burin_session *s); /* session.c */

/* ---- between the planner's own files --------------------------------------------------------- */

/* plan_list.c: copies of the live nodes in execution order, rewritten so that what follows sees
 * plain nodes: those of checkpointed regions and cheap ones occur a second time where the backward
 * pass reads them, an operand that cannot be read by index is broadcast first, and a value is cast
 * to its variable's type before it is assigned. */
struct plan_list {
    burin_node **node; /* node[i]->index == i */
    bool *again;       /* a second run of a checkpointed node */
    int *writer;       /* positions of nodes that change variables, ascending */
    int count, writers;
};
void plan_list_make(struct plan_list *l, struct arena *a, const burin_graph *g,
                    const struct plan_options *options);
/* Whether a node strictly between the two positions changes memory of the variable. */
bool plan_list_written(const struct plan_list *l, const burin_var *v, int from, int to);
bool node_changes_variables(const burin_node *n);
bool node_is_alias(const burin_node *n); /* leaf, part, reshape, detach: no kernel */

/* The outermost variable that holds v, and where in it v begins. */
const burin_var *var_root(const burin_var *v, uint64_t *offset);
bool var_overlaps(const burin_var *a, const burin_var *b);

/* How an operand of shape s is read by the index of an element of `to`; false when {row, div, mod}
 * cannot say it. */
bool chain_read_of(const burin_shape *s, const burin_shape *to, struct chain_read *read);

/* fuse.c: head[i] = position of the head whose kernel computes node i (i itself for a head). The
 * last node that joins a head is the unit's result: chain[result] is the unit's chain, and the
 * unit runs at its place. */
void fuse_decide(const struct plan_list *l, const struct plan_options *options, int *head,
                 struct chain *chain);

/* plan_rehearse.c: runs every emit function once without a device; fills each step's scratch and
 * the plan's calls and flops. */
bool plan_rehearse(struct burin_plan *p, const struct plan_target *target);

/* plan_place.c: gives every block an offset such that blocks alive at the same time (first and last
 * step included) are disjoint. Returns the arena's size. */
struct plan_block {
    int first, last;
    uint64_t bytes, offset;
};
uint64_t plan_place(struct plan_block *block, int n, uint64_t alignment);

#endif
