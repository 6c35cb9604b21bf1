/* SPDX-License-Identifier: MIT
 * resize.c - scaling to cover a size, then cropping around the centre. Per axis: the exact average
 * of the covered area when shrinking, Lanczos with three lobes when enlarging. Sizes as in kohya's
 * scripts (x * scale + 0.5), so that crops agree to the pixel. Only the part that survives the crop
 * is computed. */
#include "data/data.h"

#include <math.h>
#include <string.h>

#define LOBES 3
static const double pi = 3.14159265358979323846;

/* One output pixel of one axis: `n` source pixels from `first`, weights at `weight`. */
struct tap {
    int first, n;
    size_t weight;
};
struct axis {
    struct tap *tap;
    float *weight;
};

static double lanczos(double x)
{
    if (x == 0) return 1;
    if (fabs(x) >= LOBES) return 0;
    return LOBES * sin(pi * x) * sin(pi * x / LOBES) / (pi * pi * x * x);
}

/* How much of source pixel i the area [begin, end) covers. */
static double covered(int i, double begin, double end)
{
    double low = fmax(begin, i), high = fmin(end, i + 1.0);
    return high > low ? high - low : 0;
}

/* Weights for the output pixels [crop, crop + out) of an axis scaled from `from` to `to` pixels. */
static void axis_init(struct axis *a, int from, int64_t to, int64_t crop, int out)
{
    double step = (double)from / (double)to;
    bool down = step > 1;
    int widest = (down ? (int)step : 2 * LOBES) + 3;
    a->tap = mem_alloc((size_t)out * sizeof *a->tap);
    a->weight = mem_alloc((size_t)out * (size_t)widest * sizeof *a->weight);
    for (int o = 0; o < out; o++) {
        double begin = (double)(crop + o) * step, end = begin + step;
        double centre = begin + step / 2 - 0.5; /* in source pixels; pixel i is centred at i */
        int low = down ? (int)begin : (int)floor(centre) - LOBES + 1;
        int high = down ? (int)ceil(end) : (int)floor(centre) + LOBES + 1;
        low = low < 0 ? 0 : low > from - 1 ? from - 1 : low;
        high = high > from ? from : high <= low ? low + 1 : high;
        high = high - low > widest ? low + widest : high;
        struct tap *t = &a->tap[o];
        *t = (struct tap){ low, high - low, (size_t)o * (size_t)widest };
        double sum = 0;
        for (int i = low; i < high; i++) sum += down ? covered(i, begin, end) : lanczos(i - centre);
        for (int i = low; i < high; i++) {
            double w = down ? covered(i, begin, end) : lanczos(i - centre);
            a->weight[t->weight + (size_t)(i - low)] = (float)(sum != 0 ? w / sum : 1.0 / t->n);
        }
    }
}

static void axis_finish(struct axis *a)
{
    mem_free(a->tap);
    mem_free(a->weight);
}

/* One source row to `width` output pixels. */
static void row_across(const struct axis *a, const uint8_t *row, int width, float *out)
{
    for (int x = 0; x < width; x++, out += 3) {
        const struct tap *t = &a->tap[x];
        const float *w = a->weight + t->weight;
        const uint8_t *from = row + (size_t)t->first * 3;
        float sum[3] = { 0, 0, 0 };
        for (int i = 0; i < t->n; i++, from += 3)
            for (int c = 0; c < 3; c++) sum[c] += w[i] * from[c];
        memcpy(out, sum, sizeof sum);
    }
}

static void scale(const struct image *in, const struct axis *across, const struct axis *down,
                  struct image *out)
{
    size_t n = (size_t)out->width * 3;
    /* Each source row is scaled across once, when it is first needed; a ring keeps as many of these
     * rows as one output row can need. */
    int widest = 1;
    for (int y = 0; y < out->height; y++)
        widest = down->tap[y].n > widest ? down->tap[y].n : widest;
    float *ring = mem_alloc((size_t)widest * n * sizeof *ring), *sum = mem_alloc(n * sizeof *sum);
    int ready = 0; /* source rows below this one are computed */
    for (int y = 0; y < out->height; y++) {
        const struct tap *t = &down->tap[y];
        ready = ready < t->first ? t->first : ready;
        for (; ready < t->first + t->n; ready++)
            row_across(across, in->rgb + (size_t)ready * (size_t)in->width * 3, out->width,
                       ring + (size_t)(ready % widest) * n);
        memset(sum, 0, n * sizeof *sum);
        for (int i = 0; i < t->n; i++) {
            float w = down->weight[t->weight + (size_t)i];
            const float *row = ring + (size_t)((t->first + i) % widest) * n;
            for (size_t x = 0; x < n; x++) sum[x] += w * row[x];
        }
        uint8_t *to = out->rgb + (size_t)y * n;
        for (size_t x = 0; x < n; x++)
            to[x] = (uint8_t)(sum[x] <= 0 ? 0 : sum[x] >= 255 ? 255 : sum[x] + 0.5f);
    }
    mem_free(ring);
    mem_free(sum);
}

struct image_fit image_fit(int from_width, int from_height, int width, int height)
{
    double sx = (double)width / from_width, sy = (double)height / from_height;
    double s = sx > sy ? sx : sy;
    int64_t w = (int64_t)(from_width * s + 0.5), h = (int64_t)(from_height * s + 0.5);
    w = w < width ? width : w;
    h = h < height ? height : h;
    return (struct image_fit){ w, h, (w - width) / 2, (h - height) / 2 };
}

bool image_cover(const struct image *in, int width, int height, struct image *out)
{
    *out = (struct image){ 0 };
    if (in->width < 1 || in->height < 1 || !in->rgb || width < 1 || height < 1)
        return fail("cannot scale an image of %d x %d pixels to %d x %d", in->width, in->height,
                    width, height);
    struct image_fit fit = image_fit(in->width, in->height, width, height);
    out->width = width;
    out->height = height;
    out->rgb = mem_alloc((size_t)width * (size_t)height * 3);
    struct axis across, down;
    axis_init(&across, in->width, fit.width, fit.left, width);
    axis_init(&down, in->height, fit.height, fit.top, height);
    scale(in, &across, &down, out);
    axis_finish(&across);
    axis_finish(&down);
    return true;
}
