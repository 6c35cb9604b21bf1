/* SPDX-License-Identifier: MIT
 * peak.c - measures the processor: independent multiply-adds in registers, and a sum over more
 * memory than any cache holds. All cores work at once; threads are timed by the processor time they
 * got and the best of a few short rounds counts, so that other programs disturb little. */
#include "host/peak.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define ROUNDS 3
#define SLICE 0.08 /* seconds */
#define MEMORY (256u << 20)
#define MAX_CORES 256
#define STEPS 20000 /* between two looks at the clock */
#define CHAINS 12   /* independent sums: covers the latency of two multiply-add units */

/* ---- the work -------------------------------------------------------------------------------- */

static volatile float sink; /* so that no result is unused */

/* Plain C, and how many operations one call does. Vectors of 4 are within what
 * every compiler forms by itself. */
static double fma_portable(void)
{
    float sum[CHAINS][4], a = 0.999f, b = 0.001f;
    for (int c = 0; c < CHAINS; c++)
        for (int k = 0; k < 4; k++) sum[c][k] = (float)(c + k);
    for (int i = 0; i < STEPS; i++)
        for (int c = 0; c < CHAINS; c++)
            for (int k = 0; k < 4; k++) sum[c][k] = sum[c][k] * a + b;
    for (int c = 0; c < CHAINS; c++)
        for (int k = 0; k < 4; k++) sink = sum[c][k];
    return 2.0 * STEPS * CHAINS * 4;
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static double fma_avx2(void)
{
    __m256 sum[CHAINS], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_set1_ps((float)c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = _mm256_fmadd_ps(sum[c], a, b);
    for (int c = 0; c < CHAINS; c++) sink = _mm256_cvtss_f32(sum[c]);
    return 2.0 * STEPS * CHAINS * 8;
}
#elif defined(__aarch64__)
static double fma_neon(void)
{
    float32x4_t sum[CHAINS], a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
    for (int c = 0; c < CHAINS; c++) sum[c] = vdupq_n_f32((float)c);
    for (int i = 0; i < STEPS; i++)
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) sum[c] = vfmaq_f32(b, sum[c], a);
    for (int c = 0; c < CHAINS; c++) sink = vgetq_lane_f32(sum[c], 0);
    return 2.0 * STEPS * CHAINS * 4;
}
#endif

typedef double (*fma_function)(void);

static fma_function choose(const char **kind)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *kind = "AVX2 FMA";
        return fma_avx2;
    }
#elif defined(__aarch64__)
    *kind = "NEON FMA";
    return fma_neon;
#endif
    *kind = "plain C, a lower bound";
    return fma_portable;
}

/* bytes is a multiple of 64. */
static double read_memory(const uint64_t *p, size_t bytes)
{
    uint64_t sum[8] = { 0 };
    for (size_t i = 0; i < bytes / 8; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += p[i + (size_t)k];
    for (int k = 1; k < 8; k++) sum[0] += sum[k];
    sink = (float)sum[0];
    return (double)bytes;
}

/* ---- the threads ----------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    pthread_barrier_t *start;
    fma_function fma;
    size_t bytes;
    double flops[ROUNDS], bandwidth[ROUNDS], available;
};

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void measure_fma(struct worker *w, int round)
{
    double began = thread_seconds(), wall = clock_seconds(), done = 0, elapsed;
    do {
        done += w->fma();
        elapsed = thread_seconds() - began;
    } while (elapsed < SLICE);
    w->flops[round] = done / elapsed;
    w->available += elapsed / (clock_seconds() - wall) / ROUNDS;
}

/* In pieces, so that the clock is looked at; the position moves on, so
 * that a piece is not in a cache. */
static void measure_read(struct worker *w, const uint64_t *memory, size_t *at, int round)
{
    const size_t piece = 1u << 20;
    double began = thread_seconds(), done = 0, elapsed;
    do {
        if (*at + piece > w->bytes) *at = 0;
        done += read_memory(memory + *at / 8, piece);
        *at += piece;
        elapsed = thread_seconds() - began;
    } while (elapsed < SLICE);
    w->bandwidth[round] = done / elapsed;
}

static void *work(void *data)
{
    struct worker *w = data;
    uint64_t *memory = mem_alloc(w->bytes);
    size_t at = 0;
    memset(memory, 1, w->bytes); /* untouched pages would all be the same one */
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(w->start);
        measure_fma(w, round);
        pthread_barrier_wait(w->start);
        measure_read(w, memory, &at, round);
    }
    mem_free(memory);
    return NULL;
}

static int count_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > MAX_CORES ? MAX_CORES : n;
}

void peak_measure(struct peak *out)
{
    *out = (struct peak){ .cores = count_cores() };
    fma_function fma = choose(&out->kind);
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)out->cores);
    struct worker *w = mem_alloc((size_t)out->cores * sizeof *w);
    size_t bytes = MEMORY / (size_t)out->cores / (1u << 20) * (1u << 20);
    for (int i = 0; i < out->cores; i++) {
        w[i] = (struct worker){ .start = &start, .fma = fma, .bytes = bytes ? bytes : 1u << 20 };
        if (i && pthread_create(&w[i].thread, NULL, work, &w[i]))
            panic("cannot start %d threads", out->cores);
    }
    work(&w[0]);
    for (int i = 1; i < out->cores; i++) pthread_join(w[i].thread, NULL);
    for (int i = 0; i < out->cores; i++) out->available += w[i].available / out->cores;
    for (int round = 0; round < ROUNDS; round++) {
        double flops = 0, bandwidth = 0;
        for (int i = 0; i < out->cores; i++) {
            flops += w[i].flops[round];
            bandwidth += w[i].bandwidth[round];
        }
        if (flops > out->flops) out->flops = flops;
        if (bandwidth > out->bandwidth) out->bandwidth = bandwidth;
    }
    pthread_barrier_destroy(&start);
    mem_free(w);
}
