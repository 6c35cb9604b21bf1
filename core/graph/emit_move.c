/* SPDX-License-Identifier: MIT
 * emit_move.c - elementwise chains and kernels that move elements without computing:
 * each has one invocation per output element, or per four neighbours where all row
 * lengths are multiples of 4 (wide). */
#include "graph/kernel.h"

#include <math.h>

_Static_assert(BURIN_MAX_RANK == 4, "permute.comp has four dims");

static uint32_t count_of(const burin_shape *s) { return (uint32_t)burin_shape_count(s); }

static uint32_t product(const burin_shape *s, int from, int to)
{
    uint32_t n = 1;
    for (int i = from; i < to; i++) n *= (uint32_t)s->dim[i];
    return n;
}

/* The common case: binding 0 is the first input, binding 1 the output; the first specialization
 * constant is `wide`, the first push constant the number of output elements, the others follow. */
static struct kernel_call move_call(const struct emit *e, enum shader shader, bool wide,
                                    const uint32_t *push, int n)
{
    const struct plan_step *s = e->step;
    struct kernel_call c = { .shader = shader,
                             .bind = { s->in[0], s->out[0] },
                             .n_bind = 2,
                             .writes = 1u << 1,
                             .spec = { wide },
                             .n_spec = 1,
                             .push = { count_of(&s->out[0].shape) },
                             .n_push = n + 1 };
    for (int i = 0; i < n; i++) c.push[1 + i] = push[i];
    kernel_groups(e->target, ceil_div(c.push[0], wide ? 4 * KERNEL_GROUP : KERNEL_GROUP), c.groups);
    return c;
}

static bool emit_chain(struct emit *e)
{
    const struct plan_step *s = e->step;
    uint32_t count = count_of(&s->out[0].shape);
    struct kernel_call c =
        move_call(e, SHADER_elementwise, count % 4 == 0 && chain_by_fours(s), NULL, 0);
    c.chained = true;
    c.flops = (double)count * s->chain.n_steps;
    return emit_call(e, &c);
}

static uint64_t longest(const struct plan_step *s)
{
    uint64_t bytes = s->in[0].bytes > s->out[0].bytes ? s->in[0].bytes : s->out[0].bytes;
    for (int i = 0; i < s->chain.n_inputs; i++)
        if (s->extra[i].bytes > bytes) bytes = s->extra[i].bytes;
    return bytes;
}

static struct tensor_ref piece_of(struct tensor_ref t, uint64_t first, uint64_t n)
{
    t.offset += first * burin_dtype_bytes(t.dtype);
    t.bytes = n * burin_dtype_bytes(t.dtype);
    t.shape = (burin_shape){ 1, { (int64_t)n } };
    return t;
}

/* All gradients of a large model are one vector, longer than one binding may cover: it is done in
 * pieces. Operands have its length, or one element. */
static bool emit_pieces(struct emit *e, uint64_t count, uint64_t most)
{
    const struct plan_step *whole = e->step;
    bool ok = true;
    for (uint64_t first = 0; ok && first < count; first += most) {
        uint64_t n = count - first < most ? count - first : most;
        struct plan_step s = *whole;
        s.in[0] = piece_of(whole->in[0], first, n);
        s.out[0] = piece_of(whole->out[0], first, n);
        for (int i = 0; i < s.chain.n_inputs; i++) {
            struct chain_read *r = &s.chain.read[i];
            if (r->row == 1) continue;
            s.extra[i] = piece_of(whole->extra[i], first, n);
            r->row = r->div = (uint32_t)n;
        }
        e->step = &s;
        ok = emit_chain(e);
    }
    e->step = whole;
    return ok;
}

bool emit_elementwise(struct emit *e)
{
    const struct plan_step *s = e->step;
    uint64_t count = (uint64_t)burin_shape_count(&s->out[0].shape), bytes = longest(s);
    bool splits = bytes > e->target->max_range;
    for (int i = 0; i < s->chain.n_inputs; i++) {
        const struct chain_read *r = &s->chain.read[i];
        splits &= r->row == count || (r->row == 1 && r->mod == 1);
    }
    uint64_t most = splits ? e->target->max_range / (bytes / count) / 256 * 256 : count;
    return !splits || !most ? emit_chain(e) : emit_pieces(e, count, most);
}

/* Words of the same type are moved as they are, so I32 is copied as if it were F32. */
bool emit_copy(struct emit *e)
{
    struct kernel_call c =
        move_call(e, SHADER_elementwise, count_of(&e->step->out[0].shape) % 4 == 0, NULL, 0);
    if (c.bind[0].dtype == BURIN_I32 && c.bind[1].dtype == BURIN_I32)
        c.bind[0].dtype = c.bind[1].dtype = BURIN_F32;
    return emit_call(e, &c);
}

/* ---- permute and broadcast: y[i0, i1, i2, i3] = x[sum of i_d * stride_d] --------------------- */

/* stride[] of x as seen from y's dims, aligned at the end; 0 where x is repeated. */
static void source_strides(const burin_node *n, uint32_t dim[4], uint32_t stride[4])
{
    const burin_shape *x = &n->in[0]->shape, *y = &n->shape;
    uint32_t of_x[BURIN_MAX_RANK], step = 1;
    for (int i = x->rank; i-- > 0; step *= (uint32_t)x->dim[i]) of_x[i] = x->dim[i] == 1 ? 0 : step;
    for (int i = 0; i < 4; i++) {
        int d = i - (4 - y->rank); /* dim of y; of x: */
        int from = d < 0 ? -1 : n->op == OP_permute ? (int)n->at[d] : d - (y->rank - x->rank);
        dim[i] = d < 0 ? 1 : (uint32_t)y->dim[d];
        stride[i] = from < 0 ? 0 : of_x[from];
    }
}

/* Joins dims that lie behind one another in x as well, towards the end,
 * so that the last one is long. */
static void merge_dims(uint32_t dim[4], uint32_t stride[4])
{
    uint32_t d[4] = { 1, 1, 1, 1 }, s[4] = { 0 };
    int at = 3;
    for (int i = 3; i >= 0; i--) {
        if (dim[i] == 1) continue;
        if (d[at] > 1 && stride[i] == s[at] * d[at]) {
            d[at] *= dim[i];
            continue;
        }
        if (d[at] > 1) at--;
        d[at] = dim[i];
        s[at] = stride[i];
    }
    for (int i = 0; i < 4; i++) {
        dim[i] = d[i];
        stride[i] = s[i];
    }
}

bool emit_permute(struct emit *e)
{
    uint32_t dim[4], stride[4];
    source_strides(e->step->node, dim, stride);
    merge_dims(dim, stride);
    uint32_t last =
        stride[3] > 1 || (stride[0] | stride[1] | stride[2]) % 4 ? PERMUTE_ANY : stride[3];
    if (stride[3] == 0) last = 0;
    const uint32_t push[] = { dim[1], dim[2], dim[3], stride[0], stride[1], stride[2], stride[3] };
    struct kernel_call c = move_call(e, SHADER_permute, dim[3] % 4 == 0, push, COUNT_OF(push));
    c.spec[1] = c.spec[0] ? last : 0;
    c.n_spec = 2;
    return emit_call(e, &c);
}

/* ---- slice, pad, concat: windows on rows ----------------------------------------------------- */

/* z: the second tensor of concat, or NULL; shift: in elements along the axis. */
static bool emit_window(struct emit *e, int64_t shift, const struct tensor_ref *z)
{
    const burin_node *n = e->step->node;
    const burin_shape *x = &n->in[0]->shape, *y = &n->shape;
    int axis = (int)n->at[0];
    uint32_t inner = product(y, axis + 1, y->rank);
    uint32_t row_y = (uint32_t)y->dim[axis] * inner, row_x = (uint32_t)x->dim[axis] * inner;
    uint32_t row_z = z ? row_y - row_x : 0, by = (uint32_t)(shift * inner);
    const uint32_t push[] = { row_y, row_x, row_z, by };
    struct kernel_call c =
        move_call(e, SHADER_move, (row_y | row_x | row_z | by) % 4 == 0, push, COUNT_OF(push));
    c.bind[c.n_bind++] = z ? *z : c.bind[0];
    c.spec[1] = z != NULL;
    c.n_spec = 2;
    return emit_call(e, &c);
}

bool emit_slice(struct emit *e) { return emit_window(e, (int64_t)e->step->node->at[1], NULL); }
bool emit_pad(struct emit *e) { return emit_window(e, -(int64_t)e->step->node->at[1], NULL); }
bool emit_concat(struct emit *e) { return emit_window(e, 0, &e->step->in[1]); }

/* ---- upsample -------------------------------------------------------------------------------- */

static bool emit_resize(struct emit *e, bool adjoint)
{
    const burin_shape *x = &e->step->node->in[0]->shape, *y = &e->step->node->shape;
    const uint32_t push[] = { (uint32_t)x->dim[1], (uint32_t)x->dim[2], (uint32_t)y->dim[1],
                              (uint32_t)y->dim[2], (uint32_t)y->dim[3] };
    struct kernel_call c = move_call(e, SHADER_upsample, y->dim[3] % 4 == 0, push, COUNT_OF(push));
    c.spec[1] = adjoint;
    c.n_spec = 2;
    return emit_call(e, &c);
}

bool emit_upsample(struct emit *e) { return emit_resize(e, false); }
bool emit_upsample_grad(struct emit *e) { return emit_resize(e, true); }

/* ---- tables ---------------------------------------------------------------------------------- */

/* Rows of a table that one binding covers; blocks of 256 rows begin at an
 * aligned address, whatever the row. */
static bool table_block(const struct emit *e, const struct tensor_ref *table, uint64_t row_bytes,
                        uint32_t *rows)
{
    uint64_t n = table->bytes <= e->target->max_range
                     ? UINT32_MAX
                     : e->target->max_range / row_bytes / 256 * 256;
    *rows = (uint32_t)n;
    return n || fail("a table's row of %llu bytes is too long for the device",
                     (unsigned long long)row_bytes);
}

static struct tensor_ref table_rows(struct tensor_ref table, uint32_t first, uint32_t n,
                                    uint64_t row_bytes)
{
    table.offset += first * row_bytes;
    table.bytes = n * row_bytes;
    return table;
}

/* A block's call stores the rows whose id lies in the block. */
bool emit_embedding(struct emit *e)
{
    const struct plan_step *s = e->step;
    uint32_t rows = (uint32_t)s->node->in[0]->shape.dim[0],
             width = (uint32_t)s->node->in[0]->shape.dim[1], block;
    uint64_t row_bytes = width * burin_dtype_bytes(s->in[0].dtype);
    if (!table_block(e, &s->in[0], row_bytes, &block)) return false;
    for (uint32_t first = 0; first < rows; first += block) {
        uint32_t n = rows - first < block ? rows - first : block;
        const uint32_t push[] = { rows, width, first, n };
        struct kernel_call c = move_call(e, SHADER_embedding, width % 4 == 0, push, COUNT_OF(push));
        c.bind[0] = table_rows(s->in[0], first, n, row_bytes);
        c.bind[c.n_bind++] = s->in[1];
        if (!emit_call(e, &c)) return false;
        if (n < block) break;
    }
    return true;
}

/* Per block of the table's gradient: zeros, then the rows that occur. */
bool emit_embedding_grad(struct emit *e)
{
    const struct plan_step *s = e->step;
    uint32_t rows = (uint32_t)s->node->shape.dim[0], width = (uint32_t)s->node->shape.dim[1], block;
    uint32_t ids = count_of(&s->node->in[0]->shape);
    uint64_t row_bytes = width * burin_dtype_bytes(s->out[0].dtype);
    if (!table_block(e, &s->out[0], row_bytes, &block)) return false;
    for (uint32_t first = 0; first < rows; first += block) {
        uint32_t n = rows - first < block ? rows - first : block;
        for (int fill = 1; fill >= 0; fill--) {
            const uint32_t push[] = { ids, width, first, n };
            struct kernel_call c =
                move_call(e, SHADER_embedding_grad, width % 4 == 0, push, COUNT_OF(push));
            c.push[0] = (fill ? n : ids) * width;
            kernel_groups(e->target,
                          ceil_div(c.push[0], c.spec[0] ? 4 * KERNEL_GROUP : KERNEL_GROUP),
                          c.groups);
            c.bind[1] = table_rows(s->out[0], first, n, row_bytes);
            c.bind[c.n_bind++] = s->in[1];
            c.spec[1] = (uint32_t)fill;
            c.n_spec = 2;
            if (!emit_call(e, &c)) return false;
        }
        if (n < block) break;
    }
    return true;
}

bool emit_timestep(struct emit *e)
{
    const burin_node *n = e->step->node;
    const uint32_t push[] = { (uint32_t)n->at[0], kernel_float((float)log(n->at[1])) };
    struct kernel_call c = move_call(e, SHADER_timestep, false, push, COUNT_OF(push));
    return emit_call(e, &c);
}
