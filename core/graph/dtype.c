/* SPDX-License-Identifier: MIT
 * dtype.c - element types: sizes and names; and the number of elements of a shape. */
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
