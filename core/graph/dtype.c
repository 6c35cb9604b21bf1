/* SPDX-License-Identifier: MIT
 * dtype.c - element types: sizes and names; and how large tensors are. */
#include "base/base.h"
#include "burin.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
#define DTYPE(NAME, number, title, size) [number] = { #title, size },
#include "graph/dtypes.def"
#undef DTYPE
};

/* burin.h writes the numbers out, for readers that have no preprocessor. */
#define DTYPE(NAME, number, title, size) \
    _Static_assert(BURIN_##NAME == (number), "burin.h and dtypes.def disagree");
#include "graph/dtypes.def"
#undef DTYPE

static bool known(burin_dtype d) { return (int)d > 0 && (int)d < COUNT_OF(types); }

size_t burin_dtype_bytes(burin_dtype d) { return known(d) ? types[d].bytes : 0; }

const char *burin_dtype_name(burin_dtype d) { return known(d) ? types[d].name : "an unknown type"; }

burin_dtype burin_dtype_find(const char *name)
{
    for (int i = 1; i < COUNT_OF(types); i++)
        if (!strcmp(types[i].name, name)) return (burin_dtype)i;
    return 0;
}

int64_t burin_shape_count(const burin_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) n *= s->dim[i];
    return n;
}

/* A few dims say it; whoever gave eight huge ones knows them. */
static bool too_large(int rank, const int64_t *dim, burin_dtype d)
{
    struct str text = { 0 };
    for (int i = 0; i < rank; i++) str_addf(&text, "%s%lld", i ? ", " : "", (long long)dim[i]);
    fail("tensor too large: (%s) of %s", text.data ? text.data : "", burin_dtype_name(d));
    str_finish(&text);
    return false;
}

bool burin_size(int rank, const int64_t *dim, burin_dtype d, int64_t *count, uint64_t *bytes)
{
    int64_t n = 1, all;
    for (int i = 0; i < rank; i++)
        if (dim[i] < 0 || __builtin_mul_overflow(n, dim[i], &n)) return too_large(rank, dim, d);
    if (__builtin_mul_overflow(n, (int64_t)burin_dtype_bytes(d), &all))
        return too_large(rank, dim, d);
    *count = n;
    *bytes = (uint64_t)all;
    return true;
}

/* ---- finite numbers -------------------------------------------------------------------------- */

/* Whether no number has all exponent bits set, looked at 8 bytes at a time: mask is the exponents
 * of the numbers in them, one their lowest bits, sign the bits that full exponents carry into when
 * one is added. */
static bool all_finite(const void *numbers, uint64_t bytes, uint64_t mask, uint64_t one,
                       uint64_t sign)
{
    const char *p = numbers;
    uint64_t carried = 0, word = 0, i = 0;
    for (; i + sizeof word <= bytes; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        carried |= (word & mask) + one;
    }
    word = 0;
    if (i < bytes) memcpy(&word, p + i, bytes - i);
    carried |= (word & mask) + one;
    return !(carried & sign);
}

#define TWO(x) ((uint64_t)(x) << 32 | (x))
#define FOUR(x) (TWO(x) << 16 | TWO(x))

bool burin_all_finite(burin_dtype d, const void *data, int64_t count)
{
    uint64_t bytes = (uint64_t)count * burin_dtype_bytes(d);
    switch (d) {
    case BURIN_F16: return all_finite(data, bytes, FOUR(0x7c00), FOUR(0x0400), FOUR(0x8000));
    case BURIN_BF16: return all_finite(data, bytes, FOUR(0x7f80), FOUR(0x0080), FOUR(0x8000));
    case BURIN_F32:
        return all_finite(data, bytes, TWO(0x7f800000), TWO(0x00800000), TWO(0x80000000));
    default: return true;
    }
}
