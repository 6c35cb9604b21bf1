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
