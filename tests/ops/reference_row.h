/* SPDX-License-Identifier: MIT
 * reference_row.h - what the function of one row sees: ref_<name> fills y from x. Private to
 * reference*.c. */
#ifndef REFERENCE_ROW_H
#define REFERENCE_ROW_H

#include "ops/reference.h"

struct ref {
    const burin_node *n;
    double *x[BURIN_MAX_INPUTS]; /* inputs; those that are variables may be changed in place */
    double *y[BURIN_MAX_PARTS];  /* outputs, zeroed; assign's is its variable */
};

#define EW1(...)
#define EW2(...)
#define OP(name, ...) void ref_##name(struct ref *r);
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP

static inline int64_t ref_count(const burin_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) n *= s->dim[i];
    return n;
}

static inline int64_t ref_last(const burin_shape *s) { return s->rank ? s->dim[s->rank - 1] : 1; }

/* Element i of a tensor of shape `large`: where `small`, broadcast to it, is read. */
static inline int64_t ref_source(int64_t i, const burin_shape *large, const burin_shape *small)
{
    int64_t at = 0, stride = 1;
    for (int k = 1; k <= large->rank; k++) {
        int64_t d = large->dim[large->rank - k], index = i % d;
        i /= d;
        if (k > small->rank) continue;
        int64_t s = small->dim[small->rank - k];
        at += (s == 1 ? 0 : index) * stride;
        stride *= s;
    }
    return at;
}

#endif
