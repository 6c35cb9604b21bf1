/* SPDX-License-Identifier: MIT
 * norm.c - group norm, layer norm and their gradients on x (batch, rows, columns). Group
 * norm's sums go by slices of rows whose height is fixed, then by groups, in double: the order
 * is the same for any number of threads. */
#include "host/inside.h"

#define SLICE 32 /* rows */

struct norm {
    const struct host_work *w;
    void *const *at;
    float *sums;   /* (batch * slices, 2, columns) */
    double *group; /* (batch * groups, 2) */
    uint64_t slices;
};

static uint64_t slices_of(const struct host_work *w) { return (w->rows + SLICE - 1) / SLICE; }

uint64_t host_group_norm_scratch(const struct host_work *w)
{
    return 16 * (uint64_t)w->batch * w->groups + 8 * (uint64_t)w->batch * slices_of(w) * w->columns;
}

static struct norm norm_of(const struct host_work *w, void *const *at)
{
    double *group = at[w->scratch];
    return (struct norm){ w, at, (float *)(group + 2 * (uint64_t)w->batch * w->groups), group,
                          slices_of(w) };
}

/* Columns c0 .. c0 + n - 1 of row r of binding i. */
static const float *row_of(const struct norm *t, int i, uint64_t r, uint64_t c0, int64_t n,
                           float *room)
{
    return host_load(t->w->type[i], t->at[i], r * t->w->columns + c0, n, room);
}

static int64_t length(uint64_t at, uint64_t end)
{
    return end - at < BLOCK ? (int64_t)(end - at) : BLOCK;
}

/* What belongs to the group of each column, n columns from c0 on. */
static void spread(const struct norm *t, uint64_t b, uint64_t c0, int64_t n, int which, float *to)
{
    uint64_t width = t->w->columns / t->w->groups;
    for (int64_t j = 0; j < n; j++)
        to[j] =
            (float)t->group[2 * (b * t->w->groups + (c0 + (uint64_t)j) / width) + (uint64_t)which];
}

/* ---- group norm ------------------------------------------------------------------------------ */

VERSIONS static void add_centred(float *restrict sum, float *restrict squares, const float *x,
                                 const float *mean, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        float d = x[j] - mean[j];
        sum[j] += d;
        squares[j] += d * d;
    }
}

/* Sums of x - the first row's value, and of its squares, for each slice and column. */
static void sum_slices(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    float x[BLOCK], shift[BLOCK];
    for (uint64_t s = (uint64_t)begin; s < (uint64_t)end; s++) {
        uint64_t b = s / t->slices, r0 = s % t->slices * SLICE;
        uint64_t rows = w->rows - r0 < SLICE ? w->rows - r0 : SLICE;
        float *sum = t->sums + 2 * s * w->columns;
        memset(sum, 0, 2 * w->columns * sizeof *sum);
        for (uint64_t c = 0; c < w->columns; c += BLOCK) {
            int64_t n = length(c, w->columns);
            const float *from = row_of(t, 0, b * w->rows, c, n, shift);
            if (from != shift) memcpy(shift, from, (size_t)n * sizeof *from);
            for (uint64_t r = 0; r < rows; r++)
                add_centred(sum + c, sum + w->columns + c,
                            row_of(t, 0, b * w->rows + r0 + r, c, n, x), shift, n);
        }
    }
}

/* Mean and 1 / deviation of each group: columns' means first, then what is between them. */
static void statistics(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    const uint64_t width = w->columns / w->groups;
    for (uint64_t g = (uint64_t)begin; g < (uint64_t)end; g++) {
        uint64_t b = g / w->groups, c0 = g % w->groups * width;
        double level = 0, spread_ = 0, rows = w->rows;
        for (int pass = 0; pass < 2; pass++)
            for (uint64_t c = c0; c < c0 + width; c++) {
                double sum = 0, squares = 0;
                for (uint64_t s = b * t->slices; s < (b + 1) * t->slices; s++) {
                    sum += t->sums[2 * s * w->columns + c];
                    squares += t->sums[(2 * s + 1) * w->columns + c];
                }
                float room, first = *row_of(t, 0, b * w->rows, c, 1, &room);
                double mean = first + sum / rows, apart = mean - level;
                if (pass == 0) level += mean / (double)width;
                else spread_ += squares - sum * sum / rows + rows * apart * apart;
            }
        double variance = spread_ / (rows * (double)width);
        float stats[2] = { (float)level,
                           (float)(1 / sqrt((variance > 0 ? variance : variance * 0) + w->eps)) };
        t->group[2 * g] = stats[0];
        t->group[2 * g + 1] = stats[1];
        host_store(w->type[4], t->at[4], 2 * g, 2, stats);
    }
}

VERSIONS static void scale_shift(float *restrict y, const float *x, const float *mean,
                                 const float *slope, const float *offset, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = (x[j] - mean[j]) * slope[j] + offset[j];
}

static void apply(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    float x[BLOCK], y[BLOCK], mean[BLOCK], slope[BLOCK], offset[BLOCK], room[BLOCK];
    for (uint64_t s = (uint64_t)begin; s < (uint64_t)end; s++) {
        uint64_t b = s / t->slices, r0 = s % t->slices * SLICE;
        uint64_t r1 = r0 + SLICE < w->rows ? r0 + SLICE : w->rows;
        for (uint64_t c = 0; c < w->columns; c += BLOCK) {
            int64_t n = length(c, w->columns);
            spread(t, b, c, n, 0, mean);
            spread(t, b, c, n, 1, slope);
            const float *gamma = host_load(w->type[1], t->at[1], c, n, room);
            for (int64_t j = 0; j < n; j++) slope[j] *= gamma[j];
            const float *beta = host_load(w->type[2], t->at[2], c, n, offset);
            for (uint64_t r = r0; r < r1; r++) {
                scale_shift(y, row_of(t, 0, b * w->rows + r, c, n, x), mean, slope, beta, n);
                host_finish(w, t->at, (b * w->rows + r) * w->columns + c, (int)n, y);
            }
        }
    }
}

bool host_group_norm(const struct host_work *w, void *const *at)
{
    struct norm t = norm_of(w, at);
    int64_t slices = (int64_t)(w->batch * t.slices);
    host_parallel(slices, 1, sum_slices, &t);
    host_parallel((int64_t)w->batch * w->groups, 8, statistics, &t);
    host_parallel(slices, 1, apply, &t);
    return true;
}

VERSIONS static void add_slopes(float *restrict along, float *restrict level, const float *x,
                                const float *dy, const float *gamma, const float *mean,
                                const float *rstd, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        float g = gamma[j] * dy[j];
        along[j] += g * (x[j] - mean[j]) * rstd[j];
        level[j] += g;
    }
}

static void read_statistics(const struct norm *t)
{
    uint64_t n = 2 * (uint64_t)t->w->batch * t->w->groups;
    for (uint64_t i = 0; i < n; i++) {
        float room;
        t->group[i] = *host_load(t->w->type[3], t->at[3], i, 1, &room);
    }
}

static void sum_slopes(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    float x[BLOCK], dy[BLOCK], room[BLOCK], mean[BLOCK], rstd[BLOCK];
    for (uint64_t s = (uint64_t)begin; s < (uint64_t)end; s++) {
        uint64_t b = s / t->slices, r0 = s % t->slices * SLICE;
        uint64_t r1 = r0 + SLICE < w->rows ? r0 + SLICE : w->rows;
        float *sum = t->sums + 2 * s * w->columns;
        memset(sum, 0, 2 * w->columns * sizeof *sum);
        for (uint64_t c = 0; c < w->columns; c += BLOCK) {
            int64_t n = length(c, w->columns);
            spread(t, b, c, n, 0, mean);
            spread(t, b, c, n, 1, rstd);
            const float *gamma = host_load(w->type[1], t->at[1], c, n, room);
            for (uint64_t r = b * w->rows + r0; r < b * w->rows + r1; r++)
                add_slopes(sum + c, sum + w->columns + c, row_of(t, 0, r, c, n, x),
                           row_of(t, 2, r, c, n, dy), gamma, mean, rstd, n);
        }
    }
}

/* Over the sums of the first slice of each batch item: its columns' share of their group. */
static void gather_slopes(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    const uint64_t width = w->columns / w->groups;
    for (uint64_t g = (uint64_t)begin; g < (uint64_t)end; g++) {
        uint64_t b = g / w->groups, c0 = g % w->groups * width;
        double sum[2] = { 0, 0 }, n = (double)w->rows * (double)width;
        for (uint64_t s = b * t->slices; s < (b + 1) * t->slices; s++)
            for (uint64_t c = c0; c < c0 + width; c++)
                for (uint64_t k = 0; k < 2; k++) sum[k] += t->sums[(2 * s + k) * w->columns + c];
        for (uint64_t c = c0; c < c0 + width; c++)
            for (uint64_t k = 0; k < 2; k++)
                t->sums[(2 * b * t->slices + k) * w->columns + c] = (float)(sum[k] / n);
    }
}

VERSIONS static void group_dx(float *restrict dx, const float *x, const float *dy,
                              const float *gamma, const float *mean, const float *rstd,
                              const float *along, const float *level, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        dx[j] = rstd[j] * (gamma[j] * dy[j] - level[j] - (x[j] - mean[j]) * rstd[j] * along[j]);
}

static void apply_slopes(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    float x[BLOCK], dy[BLOCK], room[BLOCK], mean[BLOCK], rstd[BLOCK], dx[BLOCK];
    for (uint64_t s = (uint64_t)begin; s < (uint64_t)end; s++) {
        uint64_t b = s / t->slices, r0 = s % t->slices * SLICE;
        uint64_t r1 = r0 + SLICE < w->rows ? r0 + SLICE : w->rows;
        const float *sum = t->sums + 2 * b * t->slices * w->columns;
        for (uint64_t c = 0; c < w->columns; c += BLOCK) {
            int64_t n = length(c, w->columns);
            spread(t, b, c, n, 0, mean);
            spread(t, b, c, n, 1, rstd);
            const float *gamma = host_load(w->type[1], t->at[1], c, n, room);
            for (uint64_t r = b * w->rows + r0; r < b * w->rows + r1; r++) {
                group_dx(dx, row_of(t, 0, r, c, n, x), row_of(t, 2, r, c, n, dy), gamma, mean, rstd,
                         sum + c, sum + w->columns + c, n);
                host_store(w->type[4], t->at[4], r * w->columns + c, n, dx);
            }
        }
    }
}

bool host_group_norm_dx(const struct host_work *w, void *const *at)
{
    struct norm t = norm_of(w, at);
    int64_t slices = (int64_t)(w->batch * t.slices);
    read_statistics(&t);
    host_parallel(slices, 1, sum_slopes, &t);
    host_parallel((int64_t)w->batch * w->groups, 8, gather_slopes, &t);
    host_parallel(slices, 1, apply_slopes, &t);
    return true;
}

/* ---- layer norm ------------------------------------------------------------------------------ */

VERSIONS static float sum_of(const float *x, float shift, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += x[j] - shift;
    return sum;
}

VERSIONS static float squares_of(const float *x, float mean, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += (x[j] - mean) * (x[j] - mean);
    return sum;
}

VERSIONS static void normalise(float *restrict y, const float *x, const float *gamma,
                               const float *beta, float mean, float rstd, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = (x[j] - mean) * rstd * gamma[j] + beta[j];
}

static void norm_rows(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    const uint64_t columns = w->columns;
    float x[BLOCK], y[BLOCK], g[BLOCK], h[BLOCK], first;
    for (uint64_t r = (uint64_t)begin; r < (uint64_t)end; r++) {
        double sum = 0, squares = 0;
        float shift = *row_of(t, 0, r, 0, 1, &first);
        for (uint64_t c = 0; c < columns; c += BLOCK)
            sum += sum_of(row_of(t, 0, r, c, length(c, columns), x), shift, length(c, columns));
        float mean = (float)(shift + sum / (double)columns);
        for (uint64_t c = 0; c < columns; c += BLOCK)
            squares +=
                squares_of(row_of(t, 0, r, c, length(c, columns), x), mean, length(c, columns));
        float stats[2] = { mean, (float)(1 / sqrt(squares / (double)columns + w->eps)) };
        host_store(w->type[4], t->at[4], 2 * r, 2, stats);
        for (uint64_t c = 0; c < columns; c += BLOCK) {
            int64_t n = length(c, columns);
            normalise(y, row_of(t, 0, r, c, n, x), host_load(w->type[1], t->at[1], c, n, g),
                      host_load(w->type[2], t->at[2], c, n, h), stats[0], stats[1], n);
            host_finish(w, t->at, r * columns + c, (int)n, y);
        }
    }
}

bool host_layer_norm(const struct host_work *w, void *const *at)
{
    struct norm t = { .w = w, .at = at };
    host_parallel(w->rows, 16, norm_rows, &t);
    return true;
}

VERSIONS static void row_slopes(const float *x, const float *dy, const float *gamma, float mean,
                                int64_t n, double *level, double *along)
{
    float a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
    for (int64_t j = 0; j < n; j++) {
        float g = gamma[j] * dy[j];
        a += g;
        b += g * (x[j] - mean);
    }
    *level += a;
    *along += b;
}

VERSIONS static void row_dx(float *restrict dx, const float *x, const float *dy, const float *gamma,
                            float mean, float rstd, float level, float along, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        dx[j] = rstd * (gamma[j] * dy[j] - level - (x[j] - mean) * along);
}

static void norm_rows_dx(void *user, int64_t begin, int64_t end)
{
    const struct norm *t = user;
    const struct host_work *w = t->w;
    const uint64_t columns = w->columns;
    float x[BLOCK], dy[BLOCK], g[BLOCK], dx[BLOCK], room[2];
    for (uint64_t r = (uint64_t)begin; r < (uint64_t)end; r++) {
        const float *stats = host_load(w->type[3], t->at[3], 2 * r, 2, room);
        double level = 0, along = 0;
        for (uint64_t c = 0; c < columns; c += BLOCK) {
            int64_t n = length(c, columns);
            row_slopes(row_of(t, 0, r, c, n, x), row_of(t, 2, r, c, n, dy),
                       host_load(w->type[1], t->at[1], c, n, g), stats[0], n, &level, &along);
        }
        float a = (float)(level / (double)columns),
              b = (float)(along * stats[1] * stats[1] / (double)columns);
        for (uint64_t c = 0; c < columns; c += BLOCK) {
            int64_t n = length(c, columns);
            row_dx(dx, row_of(t, 0, r, c, n, x), row_of(t, 2, r, c, n, dy),
                   host_load(w->type[1], t->at[1], c, n, g), stats[0], stats[1], a, b, n);
            host_store(w->type[4], t->at[4], r * columns + c, n, dx);
        }
    }
}

bool host_layer_norm_dx(const struct host_work *w, void *const *at)
{
    struct norm t = { .w = w, .at = at };
    host_parallel(w->rows, 16, norm_rows_dx, &t);
    return true;
}
