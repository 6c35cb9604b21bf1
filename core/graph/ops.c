/* SPDX-License-Identifier: MIT
 * ops.c - the op table: ops.def turned into rows, and lookups by number and name. */
#include "graph/graph.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Every function that a row names. `none` and NONE stand for NULL below. */
#define DECLARE(name) void gradient_##name(burin_node *, burin_node *, const bool *, burin_node **);
#define EW1(name, ...) DECLARE(name)
#define EW2(name, ...) DECLARE(name)
#define OP(name, inputs_, attrs_, rule, kernel, gradients, help_) \
    DECLARE(name)                                                 \
    bool shape_##rule(burin_node *, const burin_shape *);         \
    bool emit_##kernel(struct emit *);
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP

enum {
    ELEMENTWISE_ROWS = 0
#define EW1(...) +1
#define EW2(...) +1
#define OP(...)
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
};
_Static_assert(ELEMENTWISE_ROWS <= 64, "lib/chain.glsl has a bit for each in two words");

bool shape_elementwise(burin_node *, const burin_shape *);
bool emit_elementwise(struct emit *);

#define shape_none NULL
#define emit_none NULL
/* A gradient column as the set of inputs it covers. */
#define NONE
#define D(i, expression) | 1u << (i)
#define ALL(function) | ((1u << BURIN_MAX_INPUTS) - 1)
#define GRADIENT(name, gradients) \
    .differentiable = 0 gradients, .gradient = (0 gradients) ? gradient_##name : NULL

static struct op_row table[OP_COUNT] = {
#define EW1(title, attrs_, value, gradients, help_) \
    [OP_##title] = { .name = #title,                \
                     .attrs = attrs_,               \
                     .help = help_,                 \
                     .family = OP_EW1,              \
                     .inputs = 1,                   \
                     .shape = shape_elementwise,    \
                     .emit = emit_elementwise,      \
                     GRADIENT(title, gradients) },
#define EW2(title, attrs_, value, gradients, help_) \
    [OP_##title] = { .name = #title,                \
                     .attrs = attrs_,               \
                     .help = help_,                 \
                     .family = OP_EW2,              \
                     .inputs = 2,                   \
                     .shape = shape_elementwise,    \
                     .emit = emit_elementwise,      \
                     GRADIENT(title, gradients) },
#define OP(title, inputs_, attrs_, rule, kernel, gradients, help_) \
    [OP_##title] = { .name = #title,                               \
                     .attrs = attrs_,                              \
                     .help = help_,                                \
                     .family = OP_OTHER,                           \
                     .inputs = inputs_,                            \
                     .shape = shape_##rule,                        \
                     .emit = emit_##kernel,                        \
                     GRADIENT(title, gradients) },
#include "graph/ops.def"
#undef EW1
#undef EW2
#undef OP
};

/* "name:kind=default", or "to" for the target shape; without a default the value is 0. */
static void parse_attr(struct op_row *row, const char *word, size_t length)
{
    if (length == 2 && !memcmp(word, "to", 2)) {
        row->takes_shape = true;
        return;
    }
    const char *colon = memchr(word, ':', length);
    size_t name = colon ? (size_t)(colon - word) : 0;
    if (!name || name >= sizeof row->attr[0].name || row->n_attrs == BURIN_MAX_ATTRS)
        panic("ops.def: %s: bad attribute '%.*s'", row->name, (int)length, word);
    struct op_attr *a = &row->attr[row->n_attrs++];
    memcpy(a->name, word, name);
    a->kind = colon[1];
    if (!strchr("ifb", a->kind)) panic("ops.def: %s: bad kind of '%s'", row->name, a->name);
    if (colon[2] == '=') a->fallback = strtod(colon + 3, NULL);
}

static void parse_table(void)
{
    for (int i = 0; i < OP_COUNT; i++) {
        const char *p = table[i].attrs;
        while (*(p += strspn(p, " "))) {
            size_t length = strcspn(p, " ");
            parse_attr(&table[i], p, length);
            p += length;
        }
    }
}

const struct op_row *op_at(enum op_code code)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, parse_table);
    return &table[code];
}

int op_find(const char *name)
{
    for (int i = 0; i < OP_COUNT; i++)
        if (!strcmp(table[i].name, name)) return i;
    return -1;
}

bool op_is_elementwise(enum op_code code) { return table[code].family != OP_OTHER; }
