/* SPDX-License-Identifier: MIT
 * attention.c - attention and its gradients, a block of queries and a block of keys at a time,
 * so that scores never leave the cache (Dao et al., "FlashAttention", 2022; the sums are kept as
 * there). One block of the side that owns the result is a task; a thread does it alone, hence
 * the same bits however many there are. */
#include "host/inside.h"

#define OWNED 256 /* rows of the side that owns the result */
#define OTHER 256 /* rows of the other at a time */

/* A thread's scratch, floats: scores and their gradient, then blocks of both sides. */
static uint64_t thread_floats(const struct host_work *w)
{
    return 2 * OWNED * OTHER + (uint64_t)w->d * (4 * OWNED + 2 * OTHER);
}

uint64_t host_attention_scratch(const struct host_work *w)
{
    return 4 * thread_floats(w) * (uint64_t)dnn_threads();
}

struct rooms {
    float *scores, *slopes, *own[4], *other[2];
};

struct task {
    const struct host_work *w;
    void *const *at;
    uint64_t owners; /* rows of the side that owns the result */
    /* A block of them, from row `first` of a head on. */
    bool (*run)(const struct task *t, const struct rooms *room, uint64_t head, uint64_t first);
    bool failed;
};

static struct rooms rooms_of(const struct task *t)
{
    const struct host_work *w = t->w;
    float *at = (float *)t->at[w->scratch] + thread_floats(w) * (uint64_t)dnn_thread();
    struct rooms r = { .scores = at, .slopes = at + OWNED * OTHER };
    at += 2 * OWNED * OTHER;
    for (int i = 0; i < 4; i++) r.own[i] = at + (uint64_t)i * OWNED * w->d;
    at += 4 * (uint64_t)OWNED * w->d;
    for (int i = 0; i < 2; i++) r.other[i] = at + (uint64_t)i * OTHER * w->d;
    return r;
}

/* The element at which row `first` of a head begins, in a tensor of `rows` rows. */
static uint64_t start_of(const struct host_work *w, uint64_t head, uint64_t rows, uint64_t first)
{
    return (head / w->heads * rows + first) * w->heads * w->d + head % w->heads * w->d;
}

/* Rows first .. first + n - 1 of a head of binding i, which has `rows` rows; f32, row by row. */
static struct dnn_matrix block(const struct task *t, int i, uint64_t head, uint64_t rows,
                               uint64_t first, int64_t n, float *room)
{
    const struct host_work *w = t->w;
    const uint64_t width = (uint64_t)w->heads * w->d, start = start_of(w, head, rows, first);
    if (w->type[i] == HOST_F32)
        return (struct dnn_matrix){ (const float *)t->at[i] + start, (int64_t)width, false };
    for (int64_t r = 0; r < n; r++)
        host_load(w->type[i], t->at[i], start + (uint64_t)r * width, w->d,
                  room + (uint64_t)r * w->d);
    return (struct dnn_matrix){ room, w->d, false };
}

static void store_block(const struct task *t, int i, uint64_t head, uint64_t rows, uint64_t first,
                        int64_t n, const float *from)
{
    const struct host_work *w = t->w;
    const uint64_t width = (uint64_t)w->heads * w->d, start = start_of(w, head, rows, first);
    for (int64_t r = 0; r < n; r++)
        host_store(w->type[i], t->at[i], start + (uint64_t)r * width, w->d,
                   from + (uint64_t)r * w->d);
}

static struct dnn_matrix across(struct dnn_matrix m)
{
    m.across = true;
    return m;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static uint64_t blocks_of(const struct task *t) { return (t->owners + OWNED - 1) / OWNED; }

static void run_blocks(void *user, int64_t begin, int64_t end)
{
    struct task *t = user;
    const struct rooms room = rooms_of(t);
    const uint64_t blocks = blocks_of(t);
    for (uint64_t i = (uint64_t)begin; i < (uint64_t)end; i++)
        if (!t->run(t, &room, i / blocks, i % blocks * OWNED)) t->failed = true;
}

static bool run_task(struct task t)
{
    host_parallel((int64_t)(blocks_of(&t) * t.w->batch * t.w->heads), 1, run_blocks, &t);
    return !t.failed;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Scores of one query to e^(score - largest so far); y and the sum so far are brought to the new
 * largest. NaN goes through. */
VERSIONS static void weigh(float *restrict s, int64_t n, float *restrict y, int64_t d,
                           float *largest, float *sum)
{
    float most = *largest, total = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) most = s[j] > most ? s[j] : most;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < n; j++) {
        s[j] = host_exp(s[j] - most);
        total += s[j];
    }
    float shrunk = host_exp(*largest - most);
    *sum = *sum * shrunk + total;
    *largest = most;
    if (shrunk == 1) return;
    for (int64_t j = 0; j < d; j++) y[j] *= shrunk;
}

static bool forward(const struct task *t, const struct rooms *room, uint64_t head, uint64_t first)
{
    const struct host_work *w = t->w;
    const int64_t rows = least(OWNED, (int64_t)(w->n - first)), d = w->d;
    struct dnn_matrix q = block(t, 0, head, w->n, first, rows, room->own[0]);
    float *y = room->own[1], largest[OWNED], sum[OWNED];
    memset(y, 0, (size_t)(rows * d) * sizeof *y);
    for (int64_t i = 0; i < rows; i++) largest[i] = -1e30f, sum[i] = 0;
    int64_t keys = w->causal ? least(w->m, (int64_t)first + rows) : w->m;
    for (int64_t k0 = 0; k0 < keys; k0 += OTHER) {
        int64_t n = least(OTHER, keys - k0);
        struct dnn_matrix k = block(t, 1, head, w->m, (uint64_t)k0, n, room->other[0]),
                          v = block(t, 2, head, w->m, (uint64_t)k0, n, room->other[1]);
        if (!dnn_product(rows, n, d, w->scale, q, across(k), 0, room->scores, OTHER)) return false;
        for (int64_t i = 0; i < rows; i++) {
            int64_t seen = w->causal ? least(n, (int64_t)first + i + 1 - k0) : n;
            float *s = room->scores + i * OTHER;
            if (seen > 0) weigh(s, seen, y + i * d, d, &largest[i], &sum[i]);
            for (int64_t j = seen > 0 ? seen : 0; j < n; j++) s[j] = 0;
        }
        struct dnn_matrix p = { room->scores, OTHER, false };
        if (!dnn_product(rows, d, n, 1, p, v, 1, y, d)) return false;
    }
    for (int64_t i = 0; i < rows; i++) {
        float lse = largest[i] + logf(sum[i]), part = 1 / sum[i];
        for (int64_t j = 0; j < d; j++) y[i * d + j] *= part;
        host_store(w->type[4], t->at[4], head * w->n + first + (uint64_t)i, 1, &lse);
    }
    store_block(t, 3, head, w->n, first, rows, y);
    return true;
}

bool host_attention(const struct host_work *w, void *const *at)
{
    return run_task((struct task){ w, at, w->n, forward, false });
}

/* ---- gradients ------------------------------------------------------------------------------- */

struct delta {
    const struct host_work *w;
    void *const *at;
};

VERSIONS static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void delta_rows(void *user, int64_t begin, int64_t end)
{
    const struct delta *t = user;
    const struct host_work *w = t->w;
    const uint64_t d = w->d, heads = w->heads, n = w->n;
    float y[BLOCK], dy[BLOCK];
    for (uint64_t i = (uint64_t)begin; i < (uint64_t)end; i++) { /* heads lie side by side */
        float sum = 0;
        for (uint64_t j = 0; j < d; j += BLOCK) {
            int64_t part = least(BLOCK, (int64_t)(d - j));
            sum += dot(host_load(w->type[0], t->at[0], i * d + j, part, y),
                       host_load(w->type[1], t->at[1], i * d + j, part, dy), part);
        }
        host_store(w->type[2], t->at[2], (i / heads / n * heads + i % heads) * n + i / heads % n, 1,
                   &sum);
    }
}

bool host_attention_delta(const struct host_work *w, void *const *at)
{
    struct delta t = { w, at };
    host_parallel((int64_t)w->batch * w->n * w->heads, 256, delta_rows, &t);
    return true;
}

/* Scores of one query to weights, and the slopes of weights to those of scores; those from
 * `seen` on are masked. */
VERSIONS static void unweigh(float *restrict s, float *restrict ds, int64_t seen, int64_t n,
                             float lse, float delta, float scale)
{
    for (int64_t j = 0; j < seen; j++) {
        s[j] = host_exp(s[j] - lse);
        ds[j] = s[j] * (ds[j] - delta) * scale;
    }
    for (int64_t j = seen; j < n; j++) s[j] = ds[j] = 0;
}

/* Weights and slopes of queries q0 .. and keys k0 .., into the thread's rooms. */
static bool slopes(const struct task *t, const struct rooms *room, uint64_t head, int64_t row,
                   int64_t q0, int64_t queries, int64_t k0, int64_t keys, struct dnn_matrix q,
                   struct dnn_matrix k, struct dnn_matrix v, struct dnn_matrix dy)
{
    const struct host_work *w = t->w;
    if (!dnn_product(queries, keys, w->d, w->scale, q, across(k), 0, room->scores, row) ||
        !dnn_product(queries, keys, w->d, 1, dy, across(v), 0, room->slopes, row))
        return false;
    for (int64_t i = 0; i < queries; i++) {
        uint64_t at = head * w->n + (uint64_t)(q0 + i);
        float a, b, lse = *host_load(w->type[4], t->at[4], at, 1, &a),
                    delta = *host_load(w->type[5], t->at[5], at, 1, &b);
        int64_t seen = w->causal ? least(keys, q0 + i + 1 - k0) : keys;
        unweigh(room->scores + i * row, room->slopes + i * row, seen > 0 ? seen : 0, keys, lse,
                delta, w->scale);
    }
    return true;
}

static bool gradient_of_queries(const struct task *t, const struct rooms *room, uint64_t head,
                                uint64_t first)
{
    const struct host_work *w = t->w;
    const int64_t rows = least(OWNED, (int64_t)(w->n - first)), d = w->d;
    struct dnn_matrix q = block(t, 0, head, w->n, first, rows, room->own[0]),
                      dy = block(t, 3, head, w->n, first, rows, room->own[1]);
    float *dq = room->own[2];
    memset(dq, 0, (size_t)(rows * d) * sizeof *dq);
    int64_t keys = w->causal ? least(w->m, (int64_t)first + rows) : w->m;
    for (int64_t k0 = 0; k0 < keys; k0 += OTHER) {
        int64_t n = least(OTHER, keys - k0);
        struct dnn_matrix k = block(t, 1, head, w->m, (uint64_t)k0, n, room->other[0]),
                          v = block(t, 2, head, w->m, (uint64_t)k0, n, room->other[1]);
        struct dnn_matrix ds = { room->slopes, OTHER, false };
        if (!slopes(t, room, head, OTHER, (int64_t)first, rows, k0, n, q, k, v, dy) ||
            !dnn_product(rows, d, n, 1, ds, k, 1, dq, d))
            return false;
    }
    store_block(t, 6, head, w->n, first, rows, dq);
    return true;
}

static bool gradient_of_keys(const struct task *t, const struct rooms *room, uint64_t head,
                             uint64_t first)
{
    const struct host_work *w = t->w;
    const int64_t rows = least(OWNED, (int64_t)(w->m - first)), d = w->d;
    struct dnn_matrix k = block(t, 1, head, w->m, first, rows, room->own[0]),
                      v = block(t, 2, head, w->m, first, rows, room->own[1]);
    float *dk = room->own[2], *dv = room->own[3];
    memset(dk, 0, (size_t)(rows * d) * sizeof *dk);
    memset(dv, 0, (size_t)(rows * d) * sizeof *dv);
    for (int64_t q0 = w->causal ? (int64_t)first : 0; q0 < w->n; q0 += OTHER) {
        int64_t n = least(OTHER, w->n - q0);
        struct dnn_matrix q = block(t, 0, head, w->n, (uint64_t)q0, n, room->other[0]),
                          dy = block(t, 3, head, w->n, (uint64_t)q0, n, room->other[1]);
        struct dnn_matrix p = { room->scores, OWNED, true }, ds = { room->slopes, OWNED, true };
        if (!slopes(t, room, head, OWNED, q0, n, (int64_t)first, rows, q, k, v, dy) ||
            !dnn_product(rows, d, n, 1, p, dy, 1, dv, d) ||
            !dnn_product(rows, d, n, 1, ds, q, 1, dk, d))
            return false;
    }
    store_block(t, 6, head, w->m, first, rows, dk);
    store_block(t, 7, head, w->m, first, rows, dv);
    return true;
}

bool host_attention_dq(const struct host_work *w, void *const *at)
{
    return run_task((struct task){ w, at, w->n, gradient_of_queries, false });
}

bool host_attention_dkv(const struct host_work *w, void *const *at)
{
    return run_task((struct task){ w, at, w->m, gradient_of_keys, false });
}
