/* SPDX-License-Identifier: MIT
 * fixture.h - graphs over variables that live on no device, for tests of graph/ and of the
 * reference. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "ops/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SHAPE(...) \
    ((burin_shape){ (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), { __VA_ARGS__ } })
#define SCALAR ((burin_shape){ 0 })
#define FIXTURE_VARS 64

struct fixture {
    burin_graph *g;
    struct reference *r;
    burin_var var[FIXTURE_VARS];
    int vars;
    uint32_t random;
};

static inline void fixture_init(struct fixture *f, bool round_storage)
{
    *f = (struct fixture){ .g = burin_graph_create(),
                           .r = reference_create(round_storage),
                           .random = 1 };
}

static inline void fixture_finish(struct fixture *f)
{
    reference_destroy(f->r);
    burin_graph_destroy(f->g);
}

static inline burin_node *fixture_leaf(struct fixture *f, burin_dtype dtype, burin_shape shape)
{
    if (f->vars == FIXTURE_VARS) panic("a fixture has %d variables", FIXTURE_VARS);
    burin_var *v = &f->var[f->vars++];
    *v = (burin_var){ .name = "v",
                      .dtype = dtype,
                      .shape = shape,
                      .role = BURIN_ROLE_PARAM,
                      .bytes = (uint64_t)burin_shape_count(&shape) * burin_dtype_bytes(dtype) };
    return burin_leaf(f->g, v);
}

/* Uniform in [low, high), the same on every run. */
static inline double fixture_random(struct fixture *f, double low, double high)
{
    uint32_t word[4];
    philox((uint32_t[]){ f->random++, 0, 0, 0 }, (uint32_t[]){ 7, 7 }, word);
    return low + (high - low) * ldexp(word[0], -32);
}

static inline double *fixture_value(struct fixture *f, const burin_node *leaf)
{
    return reference_var(f->r, leaf->var);
}

static inline void fixture_fill(struct fixture *f, const burin_node *leaf, double low, double high)
{
    double *v = fixture_value(f, leaf);
    for (int64_t i = 0; i < burin_shape_count(&leaf->shape); i++)
        v[i] = fixture_random(f, low, high);
}

#endif
