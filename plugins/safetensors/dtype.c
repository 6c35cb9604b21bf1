/* SPDX-License-Identifier: MIT
 * dtype.c - the element types of safetensors, and the search for NaN and infinity. */
#include "st.h"

#include <string.h>

static const struct st_dtype dtypes[] = {
    { "F32", BURIN_T_F32, 4 },         { "F16", BURIN_T_F16, 2 },
    { "BF16", BURIN_T_BF16, 2 },       { "I32", BURIN_T_I32, 4 },
    { "F64", BURIN_T_F64, 8 },         { "I64", BURIN_T_I64, 8 },
    { "I16", BURIN_T_I16, 2 },         { "I8", BURIN_T_I8, 1 },
    { "U8", BURIN_T_U8, 1 },           { "BOOL", BURIN_T_BOOL, 1 },
    { "F8_E4M3", BURIN_T_F8_E4M3, 1 }, { "F8_E5M2", BURIN_T_F8_E5M2, 1 },
    { "U16", BURIN_T_U16, 2 },         { "U32", BURIN_T_U32, 4 },
    { "U64", BURIN_T_U64, 8 },
};
#define N_DTYPES ((int)(sizeof dtypes / sizeof *dtypes))

const struct st_dtype *st_dtype_named(const char *name)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0) return &dtypes[i];
    return NULL;
}

const struct st_dtype *st_dtype_of(int dtype)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (dtypes[i].dtype == dtype) return &dtypes[i];
    return NULL;
}

/* Non-finite means: every exponent bit set. F8_E4M3 (the "fn" kind) has no infinity, and its only
 * NaN has the mantissa set too. */
static bool finite_at(int dtype, const unsigned char *p)
{
    uint16_t h;
    uint32_t w;
    uint64_t d;
    switch (dtype) {
    case BURIN_T_F64:
        memcpy(&d, p, sizeof d);
        return (d & 0x7ff0000000000000u) != 0x7ff0000000000000u;
    case BURIN_T_F32: memcpy(&w, p, sizeof w); return (w & 0x7f800000u) != 0x7f800000u;
    case BURIN_T_F16: memcpy(&h, p, sizeof h); return (h & 0x7c00u) != 0x7c00u;
    case BURIN_T_BF16: memcpy(&h, p, sizeof h); return (h & 0x7f80u) != 0x7f80u;
    case BURIN_T_F8_E4M3: return (*p & 0x7f) != 0x7f;
    case BURIN_T_F8_E5M2: return (*p & 0x7c) != 0x7c;
    default: return true;
    }
}

int64_t st_first_non_finite(const struct st_dtype *d, const void *data, uint64_t n)
{
    const unsigned char *p = data;
    if (d->name[0] == 'I' || d->name[0] == 'U' || d->dtype == BURIN_T_BOOL) return -1;
    for (uint64_t i = 0; i < n; i++, p += d->bytes)
        if (!finite_at(d->dtype, p)) return (int64_t)i;
    return -1;
}
