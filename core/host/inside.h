/* SPDX-License-Identifier: MIT
 * inside.h - what the kernels of core/host share: loops on all cores, versions for what a processor
 * can do, blocks of elements in f32, and exp. */
#ifndef BURIN_HOST_INSIDE_H
#define BURIN_HOST_INSIDE_H

#include <math.h>
#include <string.h>

#include "host/host.h"

/* A function in versions for AVX-512 and AVX2; which one runs is decided when the program
 * starts. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VERSIONS __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define VERSIONS
#endif
#define INLINE static inline __attribute__((always_inline))

#define BLOCK 512 /* elements that a kernel keeps in f32 at a time */

/* run(user, begin, end) for stretches of 0 .. n - 1, of `least` at least. A kernel's result must
 * not depend on how they are cut. */
void host_parallel(int64_t n, int64_t least, void (*run)(void *user, int64_t begin, int64_t end),
                   void *user);

void host_store(int type, void *at, uint64_t first, int64_t n, const float *from);

/* chain.c: the chain on a block of results, elements first .. first + n - 1 (n <= BLOCK) of all;
 * into the first result's memory. */
void host_finish(const struct host_work *w, void *const *at, uint64_t first, int n,
                 const float *value);
/* The same on all `count` elements at `value`, on all cores. */
void host_finish_all(const struct host_work *w, void *const *at, const float *value);

/* Rows of ops.def on n elements: gelu, its slope unless NULL, a product (y may be a). */
void host_gelu(float *gelu, float *slope, const float *x, int n);
void host_multiply(float *y, const float *a, const float *b, int n);

static inline uint64_t host_aligned(uint64_t floats) { return (floats + 15) / 16 * 16; }

/* conv.c: whether a HOST_MATRIX is computed there; room: its scratch behind converted weights. */
bool host_by_taps(const struct host_work *w);
uint64_t host_taps_scratch(const struct host_work *w);
bool host_conv_by_taps(const struct host_work *w, void *const *at, const float *weights,
                       float *room);

bool host_attention(const struct host_work *w, void *const *at);
bool host_attention_delta(const struct host_work *w, void *const *at);
bool host_attention_dq(const struct host_work *w, void *const *at);
bool host_attention_dkv(const struct host_work *w, void *const *at);
uint64_t host_attention_scratch(const struct host_work *w);
bool host_group_norm(const struct host_work *w, void *const *at);
bool host_group_norm_dx(const struct host_work *w, void *const *at);
uint64_t host_group_norm_scratch(const struct host_work *w);
bool host_layer_norm(const struct host_work *w, void *const *at);
bool host_layer_norm_dx(const struct host_work *w, void *const *at);
bool host_gated(const struct host_work *w, void *const *at);
bool host_adamw(const struct host_work *w, void *const *at);

/* e to the x: 2^n e^r with n whole and |r| <= ln 2 / 2, the latter a Taylor sum whose error is
 * below 2^-24; the two parts of ln 2 keep r exact. NaN stays NaN. */
INLINE float host_exp(float x)
{
    const float shift = 0x1.8p23f;
    float low = x < -87.3f ? -87.3f : x, y = low > 88.7f ? 88.7f : low;
    float n = (y * 1.44269504089f + shift) - shift;
    float r = (y - n * 0.693145751953125f) - n * 1.428606820309417e-6f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        int32_t bits;
        float value;
    } power = { .bits = ((int32_t)n + 127) * (1 << 23) };
    float e = p * power.value;
    return x > 88.7f ? INFINITY : x < -87.3f ? 0.0f : e;
}

#endif
