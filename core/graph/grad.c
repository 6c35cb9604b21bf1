/* SPDX-License-Identifier: MIT
 * grad.c - reverse-mode differentiation. The rules stand in ops.def and are written in ops; here
 * are the builders they use, the rules too long for a table cell, and burin_backward, which walks
 * the pool from the loss to the leaves. */
#include "graph/graph.h"

#include <string.h>

/* ---- builders: op_<name>(inputs, attributes) ------------------------------------------------- */

static burin_node *make(enum op_code op, burin_node *const *in, int n_in, const double *at,
                        int n_at, const burin_shape *to, burin_dtype dtype)
{
    for (int i = 0; i < n_in; i++)
        if (!in[i]) return NULL;
    return burin_call(in[0]->graph, op_at(op)->name, in, n_in, at, n_at, to, dtype);
}

static burin_node *make1(enum op_code op, burin_node *x, const double *at, int n_at,
                         const burin_shape *to)
{
    return make(op, &x, 1, at, n_at, to, 0);
}

static burin_node *make2(enum op_code op, burin_node *a, burin_node *b, const double *at, int n_at)
{
    return make(op, (burin_node *[]){ a, b }, 2, at, n_at, NULL, 0);
}

/* clang-format off */
/* One for every elementwise row, so that a rule may use any of them. */
#define EW1(name, ...)                                                                             \
    static inline __attribute__((unused)) burin_node *op_##name(burin_node *x)                     \
    {                                                                                              \
        return make1(OP_##name, x, NULL, 0, NULL);                                                 \
    }
#define BINARY(name)                                                                               \
    static inline __attribute__((unused)) burin_node *op_##name(burin_node *a, burin_node *b)      \
    {                                                                                              \
        return make2(OP_##name, a, b, NULL, 0);                                                    \
    }
#define EW2(name, ...) BINARY(name)
#define OP(...)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
BINARY(softmax_grad) BINARY(geglu_grad)
/* Of the rows with attributes, those that rules use. */
#define op_scale(x, by) make1(OP_scale, x, (double[]){ by }, 1, NULL)
#define op_within(x, low, high) make1(OP_within, x, (double[]){ low, high }, 2, NULL)
    /* clang-format on */

    static burin_node *op_reshape(burin_node *x, burin_shape to)
{
    return make1(OP_reshape, x, NULL, 0, &to);
}
static burin_node *op_reshape_like(burin_node *x, const burin_node *like)
{
    return op_reshape(x, like->shape);
}
static burin_node *op_broadcast_like(burin_node *x, const burin_node *like)
{
    return make1(OP_broadcast, x, NULL, 0, &like->shape);
}
static burin_node *op_sum_to(burin_node *x, const burin_node *like)
{
    return make1(OP_sum_to, x, NULL, 0, &like->shape);
}
static burin_node *op_cast_like(burin_node *x, const burin_node *like)
{
    return make(OP_cast, &x, 1, NULL, 0, NULL, like->dtype);
}
static burin_node *op_matmul(burin_node *a, burin_node *b, bool ta, bool tb)
{
    return make2(OP_matmul, a, b, (double[]){ ta, tb }, 2);
}

static burin_node *op_upsample_grad(burin_node *dy, const burin_node *x)
{
    return make1(OP_upsample_grad, dy,
                 (double[]){ (double)x->shape.dim[1], (double)x->shape.dim[2] }, 2, NULL);
}

static burin_node *op_embedding_grad(burin_node *ids, burin_node *dy, const burin_node *rows)
{
    return make2(OP_embedding_grad, ids, dy, (double[]){ (double)rows->shape.dim[0] }, 1);
}

static burin_node *op_slice(burin_node *x, int axis, double begin, double end)
{
    return make1(OP_slice, x, (double[]){ axis, begin, end }, 3, NULL);
}

/* ---- rules with attributes ------------------------------------------------------------------- */

static burin_node *grad_permute(burin_node *n, burin_node *dy)
{
    double inverse[BURIN_MAX_RANK] = { 0 };
    for (int i = 0; i < n->shape.rank; i++) inverse[(int)n->at[i]] = i;
    return make1(OP_permute, dy, inverse, n->shape.rank, NULL);
}

static burin_node *grad_slice(burin_node *n, burin_node *dy)
{
    double size = (double)n->in[0]->shape.dim[(int)n->at[0]];
    return make1(OP_pad, dy, (double[]){ n->at[0], n->at[1], size - n->at[2] }, 3, NULL);
}

static burin_node *grad_pad(burin_node *n, burin_node *dy)
{
    int axis = (int)n->at[0];
    return op_slice(dy, axis, n->at[1], n->at[1] + (double)n->in[0]->shape.dim[axis]);
}

static burin_node *grad_concat(burin_node *n, burin_node *dy, int i)
{
    int axis = (int)n->at[0];
    double middle = (double)n->in[0]->shape.dim[axis], end = (double)n->shape.dim[axis];
    return i == 0 ? op_slice(dy, axis, 0, middle) : op_slice(dy, axis, middle, end);
}

static burin_node *grad_upsample_grad(burin_node *n, burin_node *dy)
{
    const burin_shape *x = &n->in[0]->shape;
    return make1(OP_upsample, dy, (double[]){ (double)x->dim[1], (double)x->dim[2] }, 2, NULL);
}

/* (.., M, K) as (rows, K). */
static burin_node *flat(burin_node *x)
{
    int64_t k = x->shape.dim[x->shape.rank - 1];
    if (x->shape.rank == 2) return x;
    return op_reshape(x, (burin_shape){ 2, { burin_shape_count(&x->shape) / k, k } });
}

/* y = A B with A = a or a', B = b or b'. dA = dy B' and dB = A' dy, each transposed as its input is
 * stored. With one b for all leading indices of a, the rows of all of them are one product. */
static burin_node *grad_matmul(burin_node *n, burin_node *dy, int i)
{
    burin_node *a = n->in[0], *b = n->in[1];
    bool ta = n->at[0] != 0, tb = n->at[1] != 0;
    if (i == 0) return ta ? op_matmul(b, dy, tb, true) : op_matmul(dy, b, false, !tb);
    if (b->shape.rank == 2) a = flat(a), dy = flat(dy);
    return tb ? op_matmul(dy, a, true, ta) : op_matmul(a, dy, !ta, false);
}

/* The convolution and its two adjoints share stride and padding; each is linear in both inputs, so
 * the gradients of any of the three are the other two. */
static burin_node *op_conv2d(const burin_node *n, burin_node *x, burin_node *w)
{
    return make2(OP_conv2d, x, w, n->at, 5);
}

static burin_node *op_conv2d_dx(const burin_node *n, burin_node *dy, burin_node *w,
                                const burin_shape *x)
{
    return make2(OP_conv2d_dx, dy, w,
                 (double[]){ n->at[0], n->at[1], n->at[2], n->at[3], n->at[4], (double)x->dim[1],
                             (double)x->dim[2] },
                 7);
}

static burin_node *op_conv2d_dw(const burin_node *n, burin_node *x, burin_node *dy,
                                const burin_shape *w)
{
    return make2(OP_conv2d_dw, x, dy,
                 (double[]){ n->at[0], n->at[1], n->at[2], n->at[3], n->at[4], (double)w->dim[0],
                             (double)w->dim[1] },
                 7);
}

static burin_node *grad_conv2d(burin_node *n, burin_node *dy, int i)
{
    burin_node *x = n->in[0], *w = n->in[1];
    return i == 0 ? op_conv2d_dx(n, dy, w, &x->shape) : op_conv2d_dw(n, x, dy, &w->shape);
}

static burin_node *grad_conv2d_dx(burin_node *n, burin_node *g, int i)
{
    burin_node *dy = n->in[0], *w = n->in[1];
    return i == 0 ? op_conv2d(n, g, w) : op_conv2d_dw(n, g, dy, &w->shape);
}

static burin_node *grad_conv2d_dw(burin_node *n, burin_node *g, int i)
{
    burin_node *x = n->in[0], *dy = n->in[1];
    return i == 0 ? op_conv2d_dx(n, dy, g, &x->shape) : op_conv2d(n, x, g);
}

/* Dao et al., FlashAttention-2 (2023), section 2.3.2: delta = rowsum(o * dy), then dq, and dk with
 * dv. */
static void grad_attention(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx)
{
    burin_node *delta = make2(OP_attention_delta, n, dy, n->at, 1);
    burin_node *in[] = { n->in[0], n->in[1], n->in[2], dy, burin_part(n, 1), delta };
    if (wanted[0]) dx[0] = make(OP_attention_dq, in, 6, n->at, 3, NULL, 0);
    if (!wanted[1] && !wanted[2]) return;
    burin_node *dkv = make(OP_attention_dkv, in, 6, n->at, 3, NULL, 0);
    dx[1] = dkv;
    dx[2] = burin_part(dkv, 1);
}

/* x, gamma, beta; the gradients share the first n_at attributes (the groups). */
static void grad_norm(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx,
                      enum op_code op_dx, enum op_code op_dw, int n_at)
{
    burin_node *x = n->in[0], *gamma = n->in[1], *statistics = burin_part(n, 1);
    if (wanted[0])
        dx[0] = make(op_dx, (burin_node *[]){ x, gamma, dy, statistics }, 4, n->at, n_at, NULL, 0);
    if (!wanted[1] && !wanted[2]) return;
    burin_node *dw =
        make(op_dw, (burin_node *[]){ x, dy, statistics }, 3, n->at, n_at, NULL, gamma->dtype);
    dx[1] = dw;
    dx[2] = burin_part(dw, 1);
}

static void grad_group_norm(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx)
{
    grad_norm(n, dy, wanted, dx, OP_group_norm_dx, OP_group_norm_dw, 1);
}

static void grad_layer_norm(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx)
{
    grad_norm(n, dy, wanted, dx, OP_layer_norm_dx, OP_layer_norm_dw, 0);
}

/* ---- the table's gradient functions ---------------------------------------------------------- */

#define NONE
#define at(i) n->at[i]
#define D(i, expression) \
    if (wanted[i]) dx[i] = (expression);
#define ALL(function) function(n, dy, wanted, dx);
#define GRADIENT(name, gradients)                                                             \
    void gradient_##name(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx); \
    void gradient_##name(burin_node *n, burin_node *dy, const bool *wanted, burin_node **dx)  \
    {                                                                                         \
        burin_node *x0 = n->in[0], *x1 = n->in[1], *y = n;                                    \
        (void)x0, (void)x1, (void)y, (void)dy, (void)wanted, (void)dx;                        \
        gradients                                                                             \
    }
#define EW1(name, attrs, value, gradients, help) GRADIENT(name, gradients)
#define EW2(name, attrs, value, gradients, help) GRADIENT(name, gradients)
#define OP(name, inputs, attrs, shape, emit, gradients, help) GRADIENT(name, gradients)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
#undef at

/* ---- reverse accumulation -------------------------------------------------------------------- */

/* Gives dx the dtype of x. A node that the rule has just made (index >= fresh) is read by nobody
 * yet, so its kernel can store the other type itself: an f32 parameter gets the full sum, not one
 * rounded to the activations' f16. */
static burin_node *as_dtype_of(const burin_node *x, burin_node *dx, int fresh)
{
    burin_node *maker = dx;
    if (dx->dtype == x->dtype) return dx;
    while (maker->op == OP_reshape && (int)maker->index >= fresh) maker = maker->in[0];
    if ((int)maker->index < fresh || !op_at((enum op_code)maker->op)->emit)
        return op_cast_like(dx, x);
    for (burin_node *m = dx; m != maker; m = m->in[0]) m->dtype = x->dtype;
    maker->dtype = x->dtype;
    return dx;
}

/* Calls n's rule and adds what it gives to the gradients of n's inputs. */
static bool differentiate(burin_node *n, burin_node **grad, const bool *leads)
{
    burin_graph *g = n->graph;
    const struct op_row *row = op_at((enum op_code)n->op);
    burin_node *dx[BURIN_MAX_INPUTS] = { NULL };
    bool wanted[BURIN_MAX_INPUTS] = { false };
    int fresh = g->count;
    for (int i = 0; i < n->n_in; i++)
        wanted[i] = row->differentiable >> i & 1 && leads[n->in[i]->index];
    row->gradient(n, grad[n->index], wanted, dx);
    for (int i = 0; i < n->n_in && !g->error; i++) {
        burin_node *x = n->in[i];
        if (!wanted[i] || !dx[i]) continue;
        if (row->family == OP_EW2 && !shape_equal(&dx[i]->shape, &x->shape))
            dx[i] = op_sum_to(dx[i], x);
        if (!dx[i]) break;
        if (!shape_equal(&dx[i]->shape, &x->shape))
            panic("the gradient of %s for input %d has a wrong shape", row->name, i);
        dx[i] = as_dtype_of(x, dx[i], fresh);
        grad[x->index] = grad[x->index] ? op_add(grad[x->index], dx[i]) : dx[i];
    }
    return !g->error;
}

/* leads[i]: does a gradient that reaches node i reach some wrt? */
static void mark(const burin_graph *g, burin_node *const *wrt, int n, int count, bool *leads)
{
    for (int i = 0; i < n; i++)
        if ((int)wrt[i]->index < count) leads[wrt[i]->index] = true;
    for (int i = 0; i < count; i++) {
        const burin_node *node = g->node[i];
        unsigned inputs = op_at((enum op_code)node->op)->differentiable;
        for (int k = 0; k < node->n_in; k++)
            if (inputs >> k & 1 && leads[node->in[k]->index]) leads[i] = true;
    }
}

/* The gradient that enters at the loss. 1 is made of the loss as 1 - (loss < loss), which is 1 for
 * NaN as well. */
static burin_node *seed_gradient(burin_node *loss, burin_node *seed)
{
    if (!seed) return op_one_minus(op_less(loss, loss));
    if (!shape_equal(&seed->shape, &loss->shape)) seed = op_reshape_like(seed, loss);
    return seed && seed->dtype != loss->dtype ? op_cast_like(seed, loss) : seed;
}

static bool backward_fail(burin_graph *g, const char *text)
{
    g->op = "backward";
    return graph_fail(g, "%s", text);
}

static bool check_backward(burin_graph *g, burin_node *loss, burin_node *seed,
                           burin_node *const *wrt, int n)
{
    if (!loss || loss->graph != g || (seed && seed->graph != g))
        return backward_fail(g, "the loss is missing or of another graph");
    if (burin_shape_count(&loss->shape) != 1) return backward_fail(g, "the loss must be a scalar");
    if (seed && burin_shape_count(&seed->shape) != 1)
        return backward_fail(g, "the seed must be a scalar");
    for (int i = 0; i < n; i++)
        if (!wrt[i] || wrt[i]->graph != g)
            return backward_fail(g, "a node to differentiate by is missing or of another graph");
    return true;
}

bool burin_backward(burin_graph *g, burin_node *loss, burin_node *seed, burin_node *const *wrt,
                    burin_node **dwrt, int n)
{
    for (int i = 0; i < n; i++) dwrt[i] = NULL;
    if (!g || g->error) return g ? fail("%s", g->error) : fail("there is no graph");
    if (!check_backward(g, loss, seed, wrt, n)) return false;
    if (!g->forward_count) g->forward_count = g->count;

    const char *where = g->where, *label = g->label;
    uint32_t region = g->region;
    int count = (int)loss->index + 1;
    bool *leads = mem_alloc((size_t)g->count * sizeof *leads);
    burin_node **grad = mem_alloc((size_t)g->count * sizeof *grad);
    mark(g, wrt, n, count, leads);
    g->region = 0;
    g->relabelled = false;
    g->label = loss->label;
    g->backward = true;
    if (leads[loss->index]) grad[loss->index] = seed_gradient(loss, seed);
    for (int i = count - 1; i >= 0 && !g->error; i--) {
        burin_node *node = g->node[i];
        if (!grad[i] || !op_at((enum op_code)node->op)->gradient) continue;
        g->where = node->where; /* a gradient is the work of the line that made its node */
        g->label = node->label;
        differentiate(node, grad, leads);
    }
    for (int i = 0; i < n && !g->error; i++)
        if ((int)wrt[i]->index < count) dwrt[i] = grad[wrt[i]->index];
    g->region = region;
    g->where = where;
    g->label = label;
    g->backward = false;
    mem_free(grad);
    mem_free(leads);
    return !g->error;
}
