/* SPDX-License-Identifier: MIT
 * emit_reduce.c - sums over dims. The dims fall into runs that are kept and runs that are
 * summed; one pass sums one run, seen as the middle of (outer, rows, inner). A long sum is split
 * into chunks, whose sums are a smaller problem of the same kind: the order of additions is
 * fixed by the shape and the device. */
#include "graph/kernel.h"

#define SUBGROUP_ROWS 64 /* shorter rows are summed by one invocation each */

struct sum {
    uint64_t outer, rows, inner;
};

/* Columns that one invocation sums: long reads of a row are what memory likes. */
static uint32_t columns_each(const struct sum *s)
{
    return s->inner % 16 == 0 ? 16 : s->inner % 4 == 0 ? 4 : 1;
}

/* Rows per chunk such that the device is busy, but each chunk has at least 16
 * rows to add. Few are not split. */
static uint64_t columns_length(const struct emit *e, const struct sum *s)
{
    if (s->rows <= 64) return s->rows;
    uint64_t chunks =
        (uint64_t)e->target->cores * 4 * KERNEL_GROUP * columns_each(s) / (s->outer * s->inner);
    uint64_t length = ceil_div(s->rows, chunks ? chunks : 1);
    return length < 16 ? 16 : length;
}

/* One invocation per columns_each columns: x to (outer, chunks, inner). */
static bool call_columns(struct emit *e, const struct sum *s, struct tensor_ref x,
                         struct tensor_ref y, uint64_t length)
{
    uint32_t each = columns_each(s), chunks = ceil_div(s->rows, length);
    uint64_t count = s->outer * chunks * s->inner;
    struct kernel_call c = { .shader = SHADER_reduce_columns,
                             .bind = { x, y },
                             .n_bind = 2,
                             .writes = 1u << 1,
                             .spec = { each / 4 },
                             .n_spec = 1,
                             .n_push = 5,
                             .push = { (uint32_t)count, (uint32_t)s->rows, (uint32_t)s->inner,
                                       chunks, (uint32_t)length } };
    c.flops = (double)s->outer * (double)s->rows * (double)s->inner;
    kernel_groups(e->target, ceil_div(count, each * KERNEL_GROUP), c.groups);
    return emit_call(e, &c);
}

/* One subgroup per stretch of `length` neighbours: x (outer, width) to (outer, chunks). */
static bool call_rows(struct emit *e, uint64_t outer, uint64_t width, uint64_t length, bool squares,
                      struct tensor_ref x, struct tensor_ref y)
{
    uint64_t chunks = ceil_div(width, length), per_group = KERNEL_GROUP / e->target->subgroup;
    uint32_t groups = ceil_div(outer * chunks, per_group ? per_group : 1);
    struct kernel_call c = { .shader = SHADER_reduce_rows,
                             .bind = { x, y },
                             .n_bind = 2,
                             .writes = 1u << 1,
                             .spec = { width % 4 == 0 && length % 4 == 0, squares },
                             .n_spec = 2,
                             .n_push = 4,
                             .push = { (uint32_t)(outer * chunks), (uint32_t)width,
                                       (uint32_t)chunks, (uint32_t)length } };
    c.flops = (double)outer * (double)width;
    kernel_groups(e->target, groups, c.groups);
    return emit_call(e, &c);
}

static bool sum_columns(struct emit *e, struct sum s, struct tensor_ref x, struct tensor_ref y)
{
    for (;;) {
        uint64_t length = columns_length(e, &s), chunks = ceil_div(s.rows, length);
        struct tensor_ref to = chunks > 1 ? emit_workspace(e, s.outer * chunks * s.inner * 4) : y;
        if (!call_columns(e, &s, x, to, length)) return false;
        if (chunks == 1) return true;
        s.rows = chunks;
        x = to;
    }
}

/* A stretch is 4096 elements if the rows alone do not keep the device busy. */
static bool sum_rows(struct emit *e, uint64_t outer, uint64_t width, bool squares,
                     struct tensor_ref x, struct tensor_ref y)
{
    for (;;) {
        bool split = width > 4096 && outer < (uint64_t)e->target->cores * 16;
        uint64_t length = split ? 4096 : width, chunks = ceil_div(width, length);
        struct tensor_ref to = split ? emit_workspace(e, outer * chunks * 4) : y;
        if (!call_rows(e, outer, width, length, squares, x, to)) return false;
        if (!split) return true;
        width = chunks;
        squares = false;
        x = to;
    }
}

static bool sum_run(struct emit *e, struct sum s, struct tensor_ref x, struct tensor_ref y)
{
    if (s.inner == 1 && s.rows >= SUBGROUP_ROWS) return sum_rows(e, s.outer, s.rows, false, x, y);
    return sum_columns(e, s, x, y);
}

/* From the innermost dim outwards: size[0] kept, size[1] summed, size[2] kept,
 * size[3] summed, size[4] kept. */
static void find_runs(const burin_shape *x, const burin_shape *y, uint64_t size[5])
{
    int run = 0;
    for (int i = 0; i < 5; i++) size[i] = 1;
    for (int i = 1; i <= x->rank; i++) {
        int64_t from = x->dim[x->rank - i], to = i <= y->rank ? y->dim[y->rank - i] : 1;
        if (from == 1) continue;
        if ((to == 1) != (run & 1)) run++;
        size[run] *= (uint64_t)from;
    }
}

bool emit_sum_to(struct emit *e)
{
    const struct plan_step *p = e->step;
    uint64_t size[5];
    find_runs(&p->node->in[0]->shape, &p->node->shape, size);
    struct sum s = { .outer = size[4] * size[3] * size[2], .rows = size[1], .inner = size[0] };
    if (size[3] == 1) return sum_run(e, s, p->in[0], p->out[0]);
    struct tensor_ref half = emit_workspace(e, s.outer * s.inner * 4);
    if (!sum_run(e, s, p->in[0], half)) return false;
    struct sum rest = { .outer = size[4], .rows = size[3], .inner = size[2] * size[0] };
    return sum_run(e, rest, half, p->out[0]);
}

/* A vector longer than a binding is done in pieces whose partial sums lie in one workspace. */
bool emit_sum_squares(struct emit *e)
{
    const struct plan_step *p = e->step;
    const uint64_t length = 4096;
    uint64_t count = (uint64_t)burin_shape_count(&p->node->in[0]->shape),
             bytes = burin_dtype_bytes(p->in[0].dtype);
    /* 64: aligns the sums */
    uint64_t unit = 64 * length, piece = e->target->max_range / bytes / unit * unit;
    if (count <= length) return sum_rows(e, 1, count, true, p->in[0], p->out[0]);
    uint64_t chunks = ceil_div(count, length);
    struct tensor_ref sums = emit_workspace(e, chunks * 4);
    for (uint64_t at = 0; at < count; at += piece) {
        uint64_t n = count - at < piece ? count - at : piece;
        struct tensor_ref x = p->in[0], y = sums;
        x.offset += at * bytes;
        x.bytes = n * bytes;
        y.offset += at / length * 4;
        y.bytes = ceil_div(n, length) * 4;
        if (!call_rows(e, 1, n, length, true, x, y)) return false;
    }
    return sum_rows(e, 1, chunks, false, sums, p->out[0]);
}
