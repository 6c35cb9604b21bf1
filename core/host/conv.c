/* SPDX-License-Identifier: MIT
 * conv.c - convolutions of stride 1 and their input gradients as one product for each tap. The
 * library gathers the pixels of all taps side by side where it has no code of its own for a
 * processor, and on large maps spends half of its time on that. Here a source with a border of
 * zeros is written once, and each tap is a product over it from another pixel on; the columns of
 * the border are computed along and left out in the end. */
#include "host/inside.h"

#define LEAST_PIXELS 256 /* of a map: below, the border costs more than it saves */

struct taps { /* the result (images, h, w, columns) as sums over a source (images, sh, sw, depth) */
    const struct host_work *work;
    void *const *at;
    uint64_t images, h, w, columns, sh, sw, depth;
    uint64_t height, width; /* of a map with its border */
    int64_t top, left;      /* pixels of the border above and to the left */
    bool gradient;
    float *source, *result;
};

static struct taps taps_of(const struct host_work *work)
{
    const struct dnn_work *m = &work->matrix;
    struct taps t = { .work = work, .images = m->images, .gradient = m->kind == DNN_CONV_DX };
    t.h = t.gradient ? m->h : m->oh, t.w = t.gradient ? m->w : m->ow;
    t.sh = t.gradient ? m->oh : m->h, t.sw = t.gradient ? m->ow : m->w;
    t.columns = t.gradient ? m->c : m->o, t.depth = t.gradient ? m->o : m->c;
    t.top = t.gradient ? (int64_t)m->kh - 1 - m->top : m->top;
    t.left = t.gradient ? (int64_t)m->kw - 1 - m->left : m->left;
    t.height = t.h + m->kh - 1, t.width = t.w + m->kw - 1;
    return t;
}

bool host_by_taps(const struct host_work *work)
{
    const struct dnn_work *m = &work->matrix;
    struct taps t = taps_of(work);
    return (m->kind == DNN_CONV || m->kind == DNN_CONV_DX) && m->stride == 1 && m->kh * m->kw > 1 &&
           t.h * t.w >= LEAST_PIXELS && t.top >= 0 && t.left >= 0 && dnn_gathers(work->primitive);
}

/* Rows of a product: pixels of all maps with borders, but for what lies behind the last one's. */
static uint64_t rows_of(const struct taps *t)
{
    return ((t->images - 1) * t->height + t->h) * t->width;
}

static uint64_t source_floats(const struct taps *t)
{
    uint64_t behind = t->work->matrix.kw; /* the last tap reads on */
    return host_aligned((t->images * t->height * t->width + behind) * t->depth);
}

uint64_t host_taps_scratch(const struct host_work *work)
{
    struct taps t = taps_of(work);
    return 4 * (host_aligned(work->converted[1]) + source_floats(&t) +
                host_aligned(rows_of(&t) * t.columns));
}

static void pad_rows(void *user, int64_t begin, int64_t end)
{
    const struct taps *t = user;
    const uint64_t row = t->width * t->depth;
    for (int64_t i = begin; i < end; i++) {
        float *to = t->source + (uint64_t)i * row;
        int64_t y = i % (int64_t)t->height - t->top;
        memset(to, 0, row * sizeof *to);
        if (y < 0 || y >= (int64_t)t->sh) continue;
        int64_t first = t->left, room = (int64_t)t->width - first;
        uint64_t n = ((int64_t)t->sw < room ? t->sw : (uint64_t)room) * t->depth;
        uint64_t from = ((uint64_t)i / t->height * t->sh + (uint64_t)y) * t->sw * t->depth;
        const float *x = host_load(t->work->type[0], t->at[0], from, (int64_t)n,
                                   to + (uint64_t)first * t->depth);
        if (x != to + (uint64_t)first * t->depth)
            memcpy(to + (uint64_t)first * t->depth, x, n * sizeof *x);
    }
}

static void finish_rows(void *user, int64_t begin, int64_t end)
{
    const struct taps *t = user;
    const uint64_t row = t->w * t->columns;
    for (uint64_t i = (uint64_t)begin; i < (uint64_t)end; i++) {
        uint64_t from = (i / t->h * t->height + i % t->h) * t->width * t->columns;
        for (uint64_t j = 0; j < row; j += BLOCK)
            host_finish(t->work, t->at, i * row + j, row - j < BLOCK ? (int)(row - j) : BLOCK,
                        t->result + from + j);
    }
}

bool host_conv_by_taps(const struct host_work *work, void *const *at, const float *weights,
                       float *room)
{
    const struct dnn_work *m = &work->matrix;
    struct taps t = taps_of(work);
    t.at = at;
    t.source = room;
    t.result = room + source_floats(&t);
    host_parallel((int64_t)(t.images * t.height), 4, pad_rows, &t);
    memset(t.source + t.images * t.height * t.width * t.depth, 0,
           m->kw * t.depth * sizeof *t.source);
    for (uint64_t k = 0; k < m->kh * m->kw; k++) {
        uint64_t y = k / m->kw, x = k % m->kw, tap = t.gradient ? m->kh * m->kw - 1 - k : k;
        struct dnn_matrix a = { t.source + (y * t.width + x) * t.depth, (int64_t)t.depth, false };
        struct dnn_matrix b = { weights + tap * m->c * m->o, m->o, t.gradient };
        if (!dnn_product((int64_t)rows_of(&t), (int64_t)t.columns, (int64_t)t.depth, 1, a, b,
                         k ? 1 : 0, t.result, (int64_t)t.columns))
            return false;
    }
    host_parallel((int64_t)(t.images * t.h), 4, finish_rows, &t);
    return true;
}
