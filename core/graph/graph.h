/* SPDX-License-Identifier: MIT
 * graph.h - nodes, the op table, shapes and gradients. Knows nothing of devices. */
#ifndef BURIN_GRAPH_H
#define BURIN_GRAPH_H

#include "base/base.h"
#include "burin.h"

/* One number per row of ops.def, in its order: OP_neg = 0, ... */
enum op_code {
#define EW1(name, ...) OP_##name,
#define EW2(name, ...) OP_##name,
#define OP(name, ...) OP_##name,
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
    OP_COUNT
};

enum op_family { OP_EW1 = 1, OP_EW2, OP_OTHER };

/* kind: 'i', 'f' or 'b' */
struct op_attr {
    char name[16];
    char kind;
    double fallback;
};

struct emit;
struct op_row {
    const char *name, *attrs, *help;
    enum op_family family;
    int inputs;
    bool takes_shape; /* "to" in attrs */
    int n_attrs;
    struct op_attr attr[BURIN_MAX_ATTRS]; /* parsed from attrs once */
    /* Fills n->shape, parts and dtype from inputs and attributes; fails through graph_fail. */
    bool (*shape)(burin_node *n, const burin_shape *to);
    unsigned differentiable; /* bit i: a gradient can flow to input i */
    /* Sets dx[i] for inputs with wanted[i]; NULL = not differentiable. Called by burin_backward
     * only, which gives each gradient the shape and dtype of its input. */
    void (*gradient)(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx);
    /* Emits the kernels of one step (kernel.h); NULL = an alias or a leaf. */
    bool (*emit)(struct emit *e);
};

const struct op_row *op_at(enum op_code code);
int op_find(const char *name); /* -1 when there is none */

struct burin_node {
    uint16_t op;                             /* enum op_code */
    uint8_t n_in, n_parts;                   /* outputs: 1 + further parts */
    burin_dtype dtype;                       /* of output 0 */
    burin_dtype part_dtype[BURIN_MAX_PARTS]; /* [0] unused */
    uint32_t index;                          /* position in the graph's pool */
    uint32_t region;                         /* checkpointed region, 0 = none */
    burin_node *in[BURIN_MAX_INPUTS];
    double at[BURIN_MAX_ATTRS];
    burin_shape shape;                 /* of output 0 */
    burin_shape part[BURIN_MAX_PARTS]; /* of outputs 1, 2 (index 0 unused) */
    burin_var *var;                    /* leaf and assign */
    burin_graph *graph;
    const char *where; /* "recipe.lua:17" or NULL */
    const char *label; /* what it belongs to, or NULL */
    bool backward;     /* made by burin_backward */
};

#define LABEL_BYTES 256

struct burin_graph {
    struct arena arena;
    burin_node **node; /* pool; append-only */
    int count, capacity;
    int forward_count; /* nodes made before the first burin_backward; 0 = none yet */
    uint32_t region, region_count;
    const char *where;
    const char *label;           /* of the nodes that are made */
    char new_label[LABEL_BYTES]; /* takes its place with the next node, if relabelled */
    bool relabelled, backward;
    const char *op; /* the op being made, for messages */
    char *error;    /* first error; NULL = fine */
};

/* Records the graph's first error as "where: op: text"; returns NULL
 * for `return graph_fail(...)`. */
burin_node *graph_fail(burin_graph *g, const char *fmt, ...) PRINTF_LIKE(2, 3);
const char *shape_text(const burin_shape *s, char text[64]); /* "(1, 64, 64, 320)" */
bool shape_equal(const burin_shape *a, const burin_shape *b);
/* Follows reshape, detach and part down to the node that owns the
 * storage; sets which output it is. */
burin_node *node_owner(burin_node *n, int *part);
bool op_is_elementwise(enum op_code code);

struct burin_var {
    burin_device *device; /* NULL in device-free tests */
    char *name;
    burin_dtype dtype;
    burin_shape shape;
    burin_role role;
    burin_var *parent; /* placed inside it at offset bytes, or NULL */
    uint64_t offset, bytes;
    int members; /* packed variables only */
    burin_var **member;
    bool owned;   /* a view that its pack destroys */
    bool absent;  /* takes no memory */
    void *memory; /* device's (var.c): the block it lives in, NULL = none yet */
    int users;    /* graphs and plans that refer to it */
    bool gone;    /* destroyed, but not forgotten by all of these */
};

/* var.c: a graph and a plan hold the variables that they refer to, so that one may be destroyed
 * before them; what needs it can then not run any more. */
void var_hold(burin_var *v);
void var_release(burin_var *v);

#endif
