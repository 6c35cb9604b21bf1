/* SPDX-License-Identifier: MIT
 * half.c - 8-bit and 16-bit floats on the host, and the clock. */
#include "base/base.h"

#include <string.h>
#include <time.h>

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = float_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);  /* NaN */
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (a < 0x38800000) {
        /* Subnormal: adding 0.5 lets the FPU round to multiples of 2^-24. */
        return (uint16_t)(sign | (float_bits(bits_float(a) + 0.5f) - float_bits(0.5f)));
    }
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | (a - 0x38000000 + 0xfff + odd) >> 13);
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, a = h & 0x7fff;
    if (a >= 0x7c00) return bits_float(sign | 0x7f800000 | (a & 0x3ff) << 13);
    if (a >= 0x400) return bits_float(sign | ((a << 13) + 0x38000000));
    return bits_float(sign | float_bits((float)a * 0x1p-24f));
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* keep a NaN whose payload sits in the low bits */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float bf16_to_f32(uint16_t h) { return bits_float((uint32_t)h << 16); }

/* The "fn" kind: up to 448, without an infinity, and 0x7f is the only NaN of each sign. */
float f8_e4m3_to_f32(uint8_t c)
{
    uint32_t sign = (uint32_t)(c & 0x80) << 24, a = c & 0x7f;
    if (a == 0x7f) return bits_float(sign | 0x7fc00000);
    if (a >= 8) return bits_float(sign | ((a << 20) + 0x3c000000));
    return bits_float(sign | float_bits((float)a * 0x1p-9f));
}

/* The upper half of an f16. */
float f8_e5m2_to_f32(uint8_t c) { return f16_to_f32((uint16_t)(c << 8)); }

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
