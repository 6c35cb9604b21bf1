/* SPDX-License-Identifier: MIT
 * ops.c - the op table: ops.def turned into rows, lookups by number and name, and the cost of a node. */
#include "graph/graph.h"
#include "graph/plan.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Every function that a row names. `none` and NONE stand for NULL below. */
#define EW1(name, ...) void gradient_##name(burin_node *, burin_node *, const bool *, burin_node **);
#define EW2(name, ...) void gradient_##name(burin_node *, burin_node *, const bool *, burin_node **);
#define OP(name, inputs, attrs, shape, emit, gradients, help)                                      \
    void gradient_##name(burin_node *, burin_node *, const bool *, burin_node **);                 \
    bool shape_##shape(burin_node *, const burin_shape *);                                         \
    bool emit_##emit(struct emit *);
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
bool shape_elementwise(burin_node *, const burin_shape *);
bool emit_elementwise(struct emit *);

#define shape_none NULL
#define emit_none NULL
/* A gradient column as the set of inputs it covers. */
#define NONE
#define D(i, expression) | 1u << (i)
#define ALL(function) | (1u << BURIN_MAX_INPUTS) - 1
#define GRADIENT(name, gradients)                                                                  \
    .differentiable = 0 gradients, .gradient = (0 gradients) ? gradient_##name : NULL

static struct op_row table[OP_COUNT] = {
#define EW1(title, attrs_, value, gradients, help_)                                                \
    [OP_##title] = { .name = #title, .attrs = attrs_, .help = help_, .family = OP_EW1,             \
        .inputs = 1, .shape = shape_elementwise, .emit = emit_elementwise,                         \
        GRADIENT(title, gradients) },
#define EW2(title, attrs_, value, gradients, help_)                                                \
    [OP_##title] = { .name = #title, .attrs = attrs_, .help = help_, .family = OP_EW2,             \
        .inputs = 2, .shape = shape_elementwise, .emit = emit_elementwise,                         \
        GRADIENT(title, gradients) },
#define OP(title, inputs_, attrs_, shape_, emit_, gradients, help_)                                \
    [OP_##title] = { .name = #title, .attrs = attrs_, .help = help_, .family = OP_OTHER,           \
        .inputs = inputs_, .shape = shape_##shape_, .emit = emit_##emit_,                          \
        GRADIENT(title, gradients) },
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
};

/* "name:kind=default", or "to" for the target shape; without a default the value is 0. */
static void parse_attr(struct op_row *row, const char *word, size_t length)
{
    if (length == 2 && !memcmp(word, "to", 2)) {
        row->takes_shape = true;
        return;
    }
    const char *colon = memchr(word, ':', length);
    size_t name = colon ? (size_t)(colon - word) : 0;
    if (!name || name >= sizeof row->attr[0].name || row->n_attrs == BURIN_MAX_ATTRS)
        panic("ops.def: %s: bad attribute '%.*s'", row->name, (int)length, word);
    struct op_attr *a = &row->attr[row->n_attrs++];
    memcpy(a->name, word, name);
    a->kind = colon[1];
    if (!strchr("ifb", a->kind)) panic("ops.def: %s: bad kind of '%s'", row->name, a->name);
    if (colon[2] == '=') a->fallback = strtod(colon + 3, NULL);
}

static void parse_table(void)
{
    for (int i = 0; i < OP_COUNT; i++) {
        const char *p = table[i].attrs;
        while (*(p += strspn(p, " "))) {
            size_t length = strcspn(p, " ");
            parse_attr(&table[i], p, length);
            p += length;
        }
    }
}

const struct op_row *op_at(enum op_code code)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, parse_table);
    return &table[code];
}

int op_find(const char *name)
{
    for (int i = 0; i < OP_COUNT; i++)
        if (!strcmp(table[i].name, name)) return i;
    return -1;
}

bool op_is_elementwise(enum op_code code) { return table[code].family != OP_OTHER; }

/* ---- cost: products exactly, a multiply-add as 2; everything else as one operation per element ---- */

static double count(const burin_shape *s) { return (double)burin_shape_count(s); }

static double flops_matmul(const burin_node *n)
{
    const burin_shape *a = &n->in[0]->shape;
    return 2 * count(&n->shape) * (double)a->dim[a->rank - (n->at[0] != 0 ? 2 : 1)];
}

/* All three convolution products touch each (output pixel, weight) pair once. */
static double conv_flops(const burin_shape *y, const burin_shape *w)
{
    return 2 * count(y) * (double)(w->dim[0] * w->dim[1] * w->dim[2]);
}
static double flops_conv2d(const burin_node *n) { return conv_flops(&n->shape, &n->in[1]->shape); }
static double flops_conv2d_dx(const burin_node *n) { return conv_flops(&n->in[0]->shape, &n->in[1]->shape); }
static double flops_conv2d_dw(const burin_node *n) { return conv_flops(&n->in[1]->shape, &n->shape); }

/* q (B, N, H * D) against M keys: one product of the scores' size. */
static double product(const burin_node *n) { return 2 * count(&n->in[0]->shape) * (double)n->in[1]->shape.dim[1]; }
static double flops_attention(const burin_node *n) { return 2 * product(n); }      /* q k', p v */
static double flops_attention_dq(const burin_node *n) { return 3 * product(n); }   /* q k', dy v', ds k */
static double flops_attention_dkv(const burin_node *n) { return 4 * product(n); }  /* q k', dy v', p' dy, ds' q */

static double (*const cost[OP_COUNT])(const burin_node *) = {
    [OP_matmul] = flops_matmul,
    [OP_conv2d] = flops_conv2d,
    [OP_conv2d_dx] = flops_conv2d_dx,
    [OP_conv2d_dw] = flops_conv2d_dw,
    [OP_attention] = flops_attention,
    [OP_attention_dq] = flops_attention_dq,
    [OP_attention_dkv] = flops_attention_dkv,
};

double op_flops(const burin_node *n)
{
    if (cost[n->op]) return cost[n->op](n);
    if (!table[n->op].emit || !n->n_in) return 0;
    double in = count(&n->in[0]->shape), out = count(&n->shape);
    return in > out ? in : out;
}
