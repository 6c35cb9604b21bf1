/* SPDX-License-Identifier: MIT
 * shape.c - the shape rules that rows of ops.def name. A rule checks the inputs and attributes and
 * fills n->shape, the parts, and n->dtype where it is not the first input's. Attributes with a
 * default that depends on the inputs (the scale of attention, a negative axis) are settled here, so
 * kernels and gradients see the final number. */
#include "graph/graph.h"
#include "graph/control.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EW1(...)
#define EW2(...)
#define OP(name, inputs, attrs, shape, emit, gradients, help) \
    bool shape_##shape(burin_node *n, const burin_shape *to);
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
bool shape_elementwise(burin_node *n, const burin_shape *to);

/* Fails with "<shapes of the inputs>: text". */
static bool misfit(burin_node *n, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool misfit(burin_node *n, const char *fmt, ...)
{
    char text[512], shape[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct str all = { 0 };
    for (int i = 0; i < n->n_in; i++)
        str_addf(&all, "%s%s",
                 !i                ? ""
                 : i + 1 < n->n_in ? ", "
                                   : " and ",
                 shape_text(&n->in[i]->shape, shape));
    graph_fail(n->graph, "%s: %s", all.data, text);
    str_finish(&all);
    return false;
}

static const burin_shape *in_shape(const burin_node *n, int i) { return &n->in[i]->shape; }
static int64_t last(const burin_shape *s) { return s->rank ? s->dim[s->rank - 1] : 1; }
static int64_t attr(const burin_node *n, int i) { return (int64_t)n->at[i]; }
static burin_shape vector(int64_t n) { return (burin_shape){ 1, { n } }; }
static long long ll(int64_t v) { return (long long)v; }

static void default_f32(burin_node *n)
{
    if (!n->dtype) n->dtype = BURIN_F32;
}

static void add_part(burin_node *n, burin_shape shape, burin_dtype dtype)
{
    n->part[n->n_parts] = shape;
    n->part_dtype[n->n_parts++] = dtype;
}

static bool want_rank(burin_node *n, int i, int rank)
{
    return in_shape(n, i)->rank == rank || misfit(n, "input %d must have %d dims", i + 1, rank);
}

static bool want_shape(burin_node *n, int i, burin_shape shape, const char *what)
{
    char text[64];
    return shape_equal(in_shape(n, i), &shape) ||
           misfit(n, "%s must be %s", what, shape_text(&shape, text));
}

static bool want_positive(burin_node *n, int i)
{
    return n->at[i] >= 1 || misfit(n, "%s must be at least 1, got %.9g",
                                   op_at((enum op_code)n->op)->attr[i].name, n->at[i]);
}

/* Attribute i is an axis of input 0; a negative one counts from the end. */
static bool settle_axis(burin_node *n, int i)
{
    int rank = in_shape(n, 0)->rank;
    if (n->at[i] < -rank || n->at[i] >= rank)
        return misfit(n, "there is no axis %d", (int)n->at[i]);
    if (n->at[i] < 0) n->at[i] += rank;
    return true;
}

/* ---- shapes from shapes ---------------------------------------------------------------------- */

bool shape_same(burin_node *n, const burin_shape *to)
{
    (void)to;
    n->shape = *in_shape(n, 0);
    return true;
}

bool shape_cast(burin_node *n, const burin_shape *to)
{
    if (!n->dtype) return misfit(n, "needs a type");
    return shape_same(n, to);
}

/* Numpy's rule: dims are aligned at the end and a dim of 1 repeats. */
bool shape_elementwise(burin_node *n, const burin_shape *to)
{
    if (n->n_in == 1) return shape_same(n, to);
    const burin_shape *a = in_shape(n, 0), *b = in_shape(n, 1);
    n->shape.rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 1; i <= n->shape.rank; i++) {
        int64_t da = i <= a->rank ? a->dim[a->rank - i] : 1,
                db = i <= b->rank ? b->dim[b->rank - i] : 1;
        if (da != db && da != 1 && db != 1)
            return misfit(n, "sizes %lld and %lld cannot be broadcast", ll(da), ll(db));
        n->shape.dim[n->shape.rank - i] = da == 1 ? db : da;
    }
    return true;
}

/* Can `small` be repeated to `large`? */
static bool spreads(const burin_shape *small, const burin_shape *large)
{
    if (small->rank > large->rank) return false;
    for (int i = 1; i <= small->rank; i++) {
        int64_t d = small->dim[small->rank - i];
        if (d != 1 && d != large->dim[large->rank - i]) return false;
    }
    return true;
}

bool shape_broadcast(burin_node *n, const burin_shape *to)
{
    char text[64];
    n->shape = *to;
    return spreads(in_shape(n, 0), to) ||
           misfit(n, "cannot be broadcast to %s", shape_text(to, text));
}

bool shape_sum_to(burin_node *n, const burin_shape *to)
{
    char text[64];
    n->shape = *to;
    return spreads(to, in_shape(n, 0)) || misfit(n, "cannot be summed to %s", shape_text(to, text));
}

/* One dim of the target may be -1: whatever is left. */
bool shape_reshape(burin_node *n, const burin_shape *to)
{
    int64_t count = burin_shape_count(in_shape(n, 0)), known = 1;
    int free_dim = -1;
    char text[64];
    n->shape = *to;
    for (int i = 0; i < to->rank; i++) {
        if (to->dim[i] == -1 && free_dim < 0) free_dim = i;
        else if (to->dim[i] < 1 || to->dim[i] > count)
            return misfit(n, "%lld elements do not fit %s", ll(count), shape_text(to, text));
        else known *= to->dim[i];
        if (known > count) break;
    }
    if (free_dim >= 0 && known <= count) n->shape.dim[free_dim] = count / known;
    if (known > count || burin_shape_count(&n->shape) != count)
        return misfit(n, "%lld elements do not fit %s", ll(count), shape_text(to, text));
    return true;
}

bool shape_permute(burin_node *n, const burin_shape *to)
{
    const burin_shape *x = in_shape(n, 0);
    unsigned seen = 0;
    (void)to;
    n->shape.rank = x->rank;
    for (int i = 0; i < x->rank; i++) {
        if (n->at[i] < 0 || n->at[i] >= x->rank || seen & 1u << attr(n, i))
            return misfit(n, "d0 .. d%d must name each dim once", x->rank - 1);
        seen |= 1u << attr(n, i);
        n->shape.dim[i] = x->dim[attr(n, i)];
    }
    return true;
}

bool shape_slice(burin_node *n, const burin_shape *to)
{
    if (!settle_axis(n, 0) || !shape_same(n, to)) return false;
    int64_t size = n->shape.dim[attr(n, 0)], begin = attr(n, 1), end = attr(n, 2);
    if (begin < 0 || end <= begin || end > size)
        return misfit(n, "[%lld, %lld) is not inside dim %d", ll(begin), ll(end), (int)n->at[0]);
    n->shape.dim[attr(n, 0)] = end - begin;
    return true;
}

bool shape_pad(burin_node *n, const burin_shape *to)
{
    if (!settle_axis(n, 0) || !shape_same(n, to)) return false;
    if (n->at[1] < 0 || n->at[2] < 0) return misfit(n, "before and after must not be negative");
    n->shape.dim[attr(n, 0)] += attr(n, 1) + attr(n, 2);
    return true;
}

bool shape_concat(burin_node *n, const burin_shape *to)
{
    const burin_shape *a = in_shape(n, 0), *b = in_shape(n, 1);
    if (!settle_axis(n, 0) || !shape_same(n, to)) return false;
    if (a->rank != b->rank) return misfit(n, "ranks %d and %d differ", a->rank, b->rank);
    for (int i = 0; i < a->rank; i++)
        if (i != attr(n, 0) && a->dim[i] != b->dim[i])
            return misfit(n, "sizes %lld and %lld of dim %d differ", ll(a->dim[i]), ll(b->dim[i]),
                          i);
    n->shape.dim[attr(n, 0)] += b->dim[attr(n, 0)];
    return true;
}

bool shape_upsample(burin_node *n, const burin_shape *to)
{
    if (!want_rank(n, 0, 4) || !want_positive(n, 0) || !want_positive(n, 1) || !shape_same(n, to))
        return false;
    n->shape.dim[1] = attr(n, 0);
    n->shape.dim[2] = attr(n, 1);
    return true;
}

/* ---- tables and random numbers --------------------------------------------------------------- */

bool shape_embedding(burin_node *n, const burin_shape *to)
{
    const burin_shape *ids = in_shape(n, 1);
    (void)to;
    if (!want_rank(n, 0, 2)) return false;
    if (ids->rank >= BURIN_MAX_RANK)
        return misfit(n, "ids have at most %d dims", BURIN_MAX_RANK - 1);
    n->shape = *ids;
    n->shape.dim[n->shape.rank++] = last(in_shape(n, 0));
    return true;
}

bool shape_embedding_grad(burin_node *n, const burin_shape *to)
{
    burin_shape dy = *in_shape(n, 0);
    (void)to;
    if (!want_positive(n, 0)) return false;
    if (dy.rank >= BURIN_MAX_RANK) return misfit(n, "ids have at most %d dims", BURIN_MAX_RANK - 1);
    dy.dim[dy.rank++] = last(in_shape(n, 1));
    if (!want_shape(n, 1, dy, "dy")) return false;
    n->shape = (burin_shape){ 2, { attr(n, 0), last(&dy) } };
    if (!n->dtype) n->dtype = n->in[1]->dtype;
    return true;
}

bool shape_timestep(burin_node *n, const burin_shape *to)
{
    (void)to;
    if (!want_rank(n, 0, 1)) return false;
    if (n->at[0] < 2 || attr(n, 0) % 2) return misfit(n, "width must be even, got %.9g", n->at[0]);
    n->shape = (burin_shape){ 2, { in_shape(n, 0)->dim[0], attr(n, 0) } };
    default_f32(n);
    return true;
}

bool shape_random(burin_node *n, const burin_shape *to)
{
    if (burin_shape_count(in_shape(n, 0)) < CONTROL_WORDS || n->in[0]->dtype != BURIN_F32)
        return misfit(n, "the input is the control block, %d words of f32", CONTROL_WORDS);
    if (n->op == OP_randint && n->at[2] <= n->at[1])
        return misfit(n, "[%.9g, %.9g) is empty", n->at[1], n->at[2]);
    n->shape = *to;
    default_f32(n);
    return true;
}

/* ---- reductions ------------------------------------------------------------------------------ */

bool shape_sum_squares(burin_node *n, const burin_shape *to)
{
    (void)to;
    n->shape.rank = 0;
    default_f32(n);
    return true;
}

bool shape_softmax_grad(burin_node *n, const burin_shape *to)
{
    return want_shape(n, 1, *in_shape(n, 0), "dy") && shape_same(n, to);
}

/* ---- products -------------------------------------------------------------------------------- */

/* A matrix per leading index of both, or one b for all rows of a, which is then one product of
 * rank 2. */
bool shape_matmul(burin_node *n, const burin_shape *to)
{
    const burin_shape *a = in_shape(n, 0), *b = in_shape(n, 1);
    bool ta = n->at[0] != 0, tb = n->at[1] != 0;
    if (a->rank < 2 || b->rank < 2) return misfit(n, "matrices have at least 2 dims");
    if (b->rank != 2 && b->rank != a->rank)
        return misfit(n, "the second must have 2 or %d dims", a->rank);
    if (ta && a->rank != b->rank) return misfit(n, "ta needs inputs of the same rank");
    int64_t k = a->dim[a->rank - (ta ? 2 : 1)], kb = b->dim[b->rank - (tb ? 1 : 2)];
    if (k != kb) return misfit(n, "inner sizes %lld and %lld differ", ll(k), ll(kb));
    for (int i = 0; b->rank > 2 && i < a->rank - 2; i++)
        if (a->dim[i] != b->dim[i])
            return misfit(n, "sizes %lld and %lld of dim %d differ", ll(a->dim[i]), ll(b->dim[i]),
                          i);
    shape_same(n, to);
    n->shape.dim[a->rank - 2] = a->dim[a->rank - (ta ? 1 : 2)];
    n->shape.dim[a->rank - 1] = b->dim[b->rank - (tb ? 2 : 1)];
    return true;
}

/* (N, H, W, C) and (KH, KW, C, O) under n's stride and padding, to (N, OH, OW, O). */
static bool conv_output(burin_node *n, const burin_shape *x, const burin_shape *w, burin_shape *y)
{
    int64_t stride = attr(n, 0);
    if (!want_positive(n, 0)) return false;
    for (int i = 1; i <= 4; i++)
        if (n->at[i] < 0) return misfit(n, "padding must not be negative");
    if (x->dim[3] != w->dim[2])
        return misfit(n, "channels %lld and %lld differ", ll(x->dim[3]), ll(w->dim[2]));
    int64_t h = x->dim[1] + attr(n, 1) + attr(n, 3) - w->dim[0],
            v = x->dim[2] + attr(n, 2) + attr(n, 4) - w->dim[1];
    if (h < 0 || v < 0)
        return misfit(n, "a kernel of %lld x %lld is larger than the padded image", ll(w->dim[0]),
                      ll(w->dim[1]));
    *y = (burin_shape){ 4, { x->dim[0], h / stride + 1, v / stride + 1, w->dim[3] } };
    return true;
}

bool shape_conv2d(burin_node *n, const burin_shape *to)
{
    (void)to;
    return want_rank(n, 0, 4) && want_rank(n, 1, 4) &&
           conv_output(n, in_shape(n, 0), in_shape(n, 1), &n->shape);
}

bool shape_conv2d_dx(burin_node *n, const burin_shape *to)
{
    const burin_shape *dy = in_shape(n, 0), *w = in_shape(n, 1);
    burin_shape y;
    (void)to;
    if (!want_rank(n, 0, 4) || !want_rank(n, 1, 4) || !want_positive(n, 5) || !want_positive(n, 6))
        return false;
    n->shape = (burin_shape){ 4, { dy->dim[0], attr(n, 5), attr(n, 6), w->dim[2] } };
    return conv_output(n, &n->shape, w, &y) && want_shape(n, 0, y, "dy");
}

bool shape_conv2d_dw(burin_node *n, const burin_shape *to)
{
    const burin_shape *x = in_shape(n, 0), *dy = in_shape(n, 1);
    burin_shape y;
    (void)to;
    if (!want_rank(n, 0, 4) || !want_rank(n, 1, 4) || !want_positive(n, 5) || !want_positive(n, 6))
        return false;
    n->shape = (burin_shape){ 4, { attr(n, 5), attr(n, 6), x->dim[3], dy->dim[3] } };
    return conv_output(n, x, &n->shape, &y) && want_shape(n, 1, y, "dy");
}

/* ---- attention ------------------------------------------------------------------------------- */

/* q (B, N, H * D), k and v (B, M, H * D); attributes heads, causal, scale. */
static bool check_attention(burin_node *n)
{
    const burin_shape *q = in_shape(n, 0), *k = in_shape(n, 1);
    int64_t heads = attr(n, 0);
    if (!want_rank(n, 0, 3) || !want_rank(n, 1, 3) || !want_positive(n, 0)) return false;
    if (q->dim[2] % heads)
        return misfit(n, "width %lld is not a multiple of %lld heads", ll(q->dim[2]), ll(heads));
    if (k->dim[0] != q->dim[0] || k->dim[2] != q->dim[2])
        return misfit(n, "batch and width of q and k differ");
    if (!want_shape(n, 2, *k, "v")) return false;
    if (n->at[1] != 0 && q->dim[1] != k->dim[1])
        return misfit(n, "causal attention needs as many queries as keys");
    if (n->at[2] == 0) n->at[2] = 1 / sqrt((double)(q->dim[2] / heads));
    return true;
}

static burin_shape row_shape(const burin_node *n) /* (B, H, N) */
{
    return (burin_shape){ 3, { in_shape(n, 0)->dim[0], attr(n, 0), in_shape(n, 0)->dim[1] } };
}

bool shape_attention(burin_node *n, const burin_shape *to)
{
    if (!check_attention(n)) return false;
    add_part(n, row_shape(n), BURIN_F32);
    return shape_same(n, to);
}

bool shape_attention_delta(burin_node *n, const burin_shape *to)
{
    (void)to;
    if (!want_rank(n, 0, 3) || !want_shape(n, 1, *in_shape(n, 0), "dy") || !want_positive(n, 0))
        return false;
    if (last(in_shape(n, 0)) % attr(n, 0))
        return misfit(n, "width is not a multiple of %lld heads", ll(attr(n, 0)));
    n->shape = row_shape(n);
    default_f32(n);
    return true;
}

static bool check_attention_grad(burin_node *n)
{
    return check_attention(n) && want_shape(n, 3, *in_shape(n, 0), "dy") &&
           want_shape(n, 4, row_shape(n), "lse") && want_shape(n, 5, row_shape(n), "delta");
}

bool shape_attention_dq(burin_node *n, const burin_shape *to)
{
    return check_attention_grad(n) && shape_same(n, to);
}

bool shape_attention_dkv(burin_node *n, const burin_shape *to)
{
    (void)to;
    if (!check_attention_grad(n)) return false;
    if (!n->dtype) n->dtype = n->in[1]->dtype;
    n->shape = *in_shape(n, 1);
    add_part(n, *in_shape(n, 2), n->in[2]->dtype);
    return true;
}

/* ---- normalisation --------------------------------------------------------------------------- */

/* x (N, .., C) in groups of channels; sets the shape of the statistics, (N, G, 2). */
static bool group_statistics(burin_node *n, burin_shape *s)
{
    const burin_shape *x = in_shape(n, 0);
    if (x->rank < 2) return misfit(n, "x must be (N, .., C)");
    if (!want_positive(n, 0)) return false;
    if (last(x) % attr(n, 0))
        return misfit(n, "%lld channels are not a multiple of %lld groups", ll(last(x)),
                      ll(attr(n, 0)));
    *s = (burin_shape){ 3, { x->dim[0], attr(n, 0), 2 } };
    return true;
}

static bool row_statistics(burin_node *n, burin_shape *s)
{
    const burin_shape *x = in_shape(n, 0);
    if (x->rank < 1) return misfit(n, "x must be (.., C)");
    *s = (burin_shape){ 2, { burin_shape_count(x) / last(x), 2 } };
    return true;
}

static bool norm(burin_node *n, const burin_shape *statistics)
{
    burin_shape c = vector(last(in_shape(n, 0)));
    add_part(n, *statistics, BURIN_F32);
    return want_shape(n, 1, c, "gamma") && want_shape(n, 2, c, "beta") && shape_same(n, NULL);
}

static bool norm_dx(burin_node *n, const burin_shape *statistics)
{
    return want_shape(n, 1, vector(last(in_shape(n, 0))), "gamma") &&
           want_shape(n, 2, *in_shape(n, 0), "dy") &&
           want_shape(n, 3, *statistics, "the statistics") && shape_same(n, NULL);
}

static bool norm_dw(burin_node *n, const burin_shape *statistics)
{
    if (!want_shape(n, 1, *in_shape(n, 0), "dy") ||
        !want_shape(n, 2, *statistics, "the statistics"))
        return false;
    default_f32(n);
    n->shape = vector(last(in_shape(n, 0)));
    add_part(n, n->shape, n->dtype);
    return true;
}

#define NORM(name, statistics, rule)                        \
    bool shape_##name(burin_node *n, const burin_shape *to) \
    {                                                       \
        burin_shape s = { 0 };                              \
        (void)to;                                           \
        return statistics(n, &s) && rule(n, &s);            \
    }
NORM(group_norm, group_statistics, norm)
NORM(group_norm_dx, group_statistics, norm_dx)
NORM(group_norm_dw, group_statistics, norm_dw)
NORM(layer_norm, row_statistics, norm)
NORM(layer_norm_dx, row_statistics, norm_dx)
NORM(layer_norm_dw, row_statistics, norm_dw)

bool shape_geglu(burin_node *n, const burin_shape *to)
{
    if (in_shape(n, 0)->rank < 1 || last(in_shape(n, 0)) % 2)
        return misfit(n, "the last dim must be even");
    shape_same(n, to);
    n->shape.dim[n->shape.rank - 1] /= 2;
    return true;
}

bool shape_geglu_grad(burin_node *n, const burin_shape *to)
{
    if (!shape_geglu(n, to)) return false;
    return want_shape(n, 1, n->shape, "dy") && shape_same(n, to);
}

/* ---- the optimizer --------------------------------------------------------------------------- */

/* Input i is changed in place, so it must be a variable; plain float32. */
static bool want_block(burin_node *n, int i, int64_t words, const char *what)
{
    const burin_node *x = n->in[i];
    if (x->op != OP_leaf || x->dtype != BURIN_F32 || burin_shape_count(&x->shape) < words)
        return misfit(n, "%s must be an f32 variable of at least %lld elements", what, ll(words));
    return true;
}

bool shape_grad_factor(burin_node *n, const burin_shape *to)
{
    (void)to;
    if (burin_shape_count(in_shape(n, 0)) != 1)
        return misfit(n, "the sum of squares must be a scalar");
    if (burin_shape_count(in_shape(n, 2)) != 1) return misfit(n, "the loss must be a scalar");
    if (n->at[0] < 0) return misfit(n, "max_norm must not be negative");
    default_f32(n);
    return want_block(n, 1, AMP_WORDS, "amp");
}

bool shape_optimizer(burin_node *n, const burin_shape *to)
{
    const burin_shape *p = in_shape(n, 0);
    int control = n->n_in - 2;
    (void)to;
    if (n->at[0] < 0 || n->at[0] >= CONTROL_WORDS - CONTROL_LR)
        return misfit(n, "group must be 0 to %d", CONTROL_WORDS - CONTROL_LR - 1);
    if (!want_shape(n, 1, *p, "the gradient")) return false;
    for (int i = 0; i < control; i++)
        if (i != 1 &&
            (!want_shape(n, i, *p, "state") || !want_block(n, i, 1, "parameters and state")))
            return false;
    default_f32(n);
    return want_block(n, control, CONTROL_WORDS, "control") &&
           want_block(n, control + 1, AMP_WORDS, "amp");
}
