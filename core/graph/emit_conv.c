/* SPDX-License-Identifier: MIT
 * emit_conv.c - convolutions and their gradients as products of (pixels, channels) matrices, tap by
 * tap. */
#include "graph/gemm.h"

struct conv { /* x (N, H, W, C), w (KH, KW, C, O), y (N, OH, OW, O) */
    uint32_t n, h, w, c, oh, ow, o, kh, kw, stride, top, left;
    bool pointwise; /* 1 x 1, every pixel to itself: a plain matrix product */
};

static struct conv conv_of(const burin_node *node, const burin_shape *x, const burin_shape *w,
                           const burin_shape *y)
{
    struct conv v = { .stride = (uint32_t)node->at[0],
                      .top = (uint32_t)node->at[1],
                      .left = (uint32_t)node->at[2] };
    v.n = (uint32_t)x->dim[0], v.h = (uint32_t)x->dim[1], v.w = (uint32_t)x->dim[2],
    v.c = (uint32_t)x->dim[3];
    v.oh = (uint32_t)y->dim[1], v.ow = (uint32_t)y->dim[2], v.o = (uint32_t)y->dim[3];
    v.kh = (uint32_t)w->dim[0], v.kw = (uint32_t)w->dim[1];
    v.pointwise =
        v.kh == 1 && v.kw == 1 && v.stride == 1 && !v.top && !v.left && v.h == v.oh && v.w == v.ow;
    return v;
}

static double conv_flops(const struct conv *v)
{
    return 2.0 * v->n * v->oh * v->ow * v->o * v->kh * v->kw * v->c;
}

static bool emit_pixels(struct emit *e, const struct conv *v, bool gradient)
{
    uint32_t phases = gradient ? v->stride * v->stride : 1, s = gradient ? v->stride : 1;
    uint32_t out_h = gradient ? v->h : v->oh, out_w = gradient ? v->w : v->ow,
             columns = gradient ? v->c : v->o;
    uint32_t src_h = gradient ? v->oh : v->h, src_w = gradient ? v->ow : v->w,
             depth = gradient ? v->o : v->c;
    uint32_t grid_h = ceil_div(out_h, s), grid_w = ceil_div(out_w, s);
    struct gemm g = {
        .batch = 1,
        .m = (uint64_t)v->n * grid_h * grid_w,
        .n = columns,
        .k = depth,
        .tb = gradient,
    };
    if (v->pointwise) return emit_gemm(e, &g, 0);
    g.batch = phases;
    struct gemm_tile t = gemm_tile(e, &g);
    uint64_t groups = (uint64_t)t.u_tiles * t.l_tiles * phases;
    uint32_t push[] = { v->n,   grid_h,  grid_w,    out_h,     out_w,           columns,
                        src_h,  src_w,   depth,     v->kh,     v->kw,           v->stride,
                        v->top, v->left, t.u_tiles, t.l_tiles, (uint32_t)groups };
    return emit_gemm_call(e, &t, GEMM_CONV, NULL, push, COUNT_OF(push), groups, conv_flops(v));
}

/* Of the row's three tensors, two are inputs. */
static struct conv conv_of_node(const burin_node *n)
{
    const burin_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape, *y = &n->shape;
    if (n->op == OP_conv2d) return conv_of(n, a, b, y);
    return n->op == OP_conv2d_dx ? conv_of(n, y, b, a) : conv_of(n, a, y, b);
}

bool emit_conv2d(struct emit *e)
{
    struct conv v = conv_of_node(e->step->node);
    return emit_pixels(e, &v, false);
}

bool emit_conv2d_dx(struct emit *e)
{
    struct conv v = conv_of_node(e->step->node);
    return emit_pixels(e, &v, true);
}

bool emit_conv2d_dw(struct emit *e)
{
    struct conv v = conv_of_node(e->step->node);
    uint32_t rows = v.n * v.oh, taps = v.kh * v.kw;
    struct gemm g = { .batch = 1, .m = v.c, .n = v.o, .k = (uint64_t)rows * v.ow, .ta = true };
    if (v.pointwise) return emit_gemm(e, &g, 0);
    g.batch = taps;
    struct gemm_tile t = gemm_tile(e, &g);
    uint64_t groups = (uint64_t)t.u_tiles * t.l_tiles * taps, size = (uint64_t)taps * v.c * v.o;
    uint32_t splits = gemm_splits(e, groups, rows), part = ceil_div(rows, splits);
    splits = ceil_div(rows, part);
    struct tensor_ref parts;
    if (splits > 1) parts = emit_workspace(e, 4 * splits * size);
    uint32_t push[] = { v.h,   v.w,    v.c,       v.oh,      v.ow,
                        v.o,   rows,   v.kh,      v.kw,      v.stride,
                        v.top, v.left, t.u_tiles, t.l_tiles, (uint32_t)(groups * splits),
                        part };
    return emit_gemm_call(e, &t, GEMM_CONV_DW, splits > 1 ? &parts : NULL, push, COUNT_OF(push),
                          groups * splits, conv_flops(&v)) &&
           (splits == 1 || emit_splitk_reduce(e, parts, size, splits));
}

/* A pointwise one is a product of pixels and channels. */
static struct dnn_work pointwise_work(const struct conv *v, enum op_code op)
{
    uint32_t pixels = v->n * v->oh * v->ow;
    struct dnn_work w = { .kind = DNN_PRODUCT, .batch = 1, .b_shared = 1 };
    if (op == OP_conv2d) w.m = pixels, w.k = v->c, w.n = v->o;
    else if (op == OP_conv2d_dx) w.m = pixels, w.k = v->o, w.n = v->c, w.tb = 1;
    else w.m = v->c, w.k = pixels, w.n = v->o, w.ta = 1;
    return w;
}

double conv_work(const burin_node *n, struct dnn_work *w)
{
    struct conv v = conv_of_node(n);
    *w = (struct dnn_work){ .kind = n->op == OP_conv2d      ? DNN_CONV
                                    : n->op == OP_conv2d_dx ? DNN_CONV_DX
                                                            : DNN_CONV_DW,
                            .images = v.n,
                            .h = v.h,
                            .w = v.w,
                            .c = v.c,
                            .oh = v.oh,
                            .ow = v.ow,
                            .o = v.o,
                            .kh = v.kh,
                            .kw = v.kw,
                            .stride = v.stride,
                            .top = v.top,
                            .left = v.left };
    if (v.pointwise) *w = pointwise_work(&v, (enum op_code)n->op);
    return conv_flops(&v);
}
