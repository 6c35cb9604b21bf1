/* SPDX-License-Identifier: MIT
 * fuse.c - elementwise nodes join the kernel that makes one of their operands, so that the value
 * between them is never stored. A unit is a head (a kernel with a chain, or an elementwise run of
 * its own) and its riders; it runs at the place of its last node, when all else that the chain
 * reads is there. */
#include "graph/plan.h"

#include <limits.h>
#include <string.h>

struct op_traits op_traits(enum op_code code)
{
    static const struct op_traits traits[OP_COUNT] = {
        [OP_matmul] = { .chains = true },
        [OP_conv2d] = { .chains = true },
        [OP_conv2d_dx] = { .chains = true },
        [OP_group_norm] = { .chains = true, .cheap = true },
        [OP_layer_norm] = { .chains = true, .cheap = true },
        [OP_geglu] = { .cheap = true },
        [OP_grad_factor] = { .writes = 1u << 1 },               /* amp */
        [OP_adamw] = { .writes = 1u << 0 | 1u << 2 | 1u << 3 }, /* p, m, v */
        [OP_sgd] = { .writes = 1u << 0 | 1u << 2 },             /* p, m */
    };
    return op_is_elementwise(code) ? (struct op_traits){ .chains = true, .cheap = true }
                                   : traits[code];
}

/* ---- how an input is read -------------------------------------------------------------------- */

/* From the innermost dim outwards the result's dims fall into runs that the operand has and runs
 * that it repeats: size[0] had, size[1] repeated, size[2] had, size[3] repeated. A fifth run does
 * not fit {row, div, mod}. */
bool chain_read_of(const burin_shape *s, const burin_shape *to, struct chain_read *read)
{
    uint64_t size[4] = { 1, 1, 1, 1 };
    int run = 0;
    for (int i = 1; i <= to->rank; i++) {
        int64_t wanted = to->dim[to->rank - i], has = i <= s->rank ? s->dim[s->rank - i] : 1;
        if (wanted == 1) continue;
        if ((has == 1) != (run & 1)) run++;
        if (run > 3) return false;
        size[run] *= (uint64_t)wanted;
    }
    *read = (struct chain_read){ .row = (uint32_t)size[0],
                                 .div = (uint32_t)(size[0] * size[1]),
                                 .mod = (uint32_t)size[2] };
    return true;
}

static bool reads_all(const struct chain_read *r, int64_t count) { return r->row == count; }

/* ---- chains as values ------------------------------------------------------------------------ */

#define NO_REGISTER -1

static bool same_value(burin_node *a, burin_node *b)
{
    int part_a, part_b;
    return node_owner(a, &part_a) == node_owner(b, &part_b) && part_a == part_b;
}

/* The register that holds x as read by this chain: found, or a new input. */
static int chain_input(struct chain *c, burin_node *x, const struct chain_read *read, int64_t count)
{
    if (c->own && reads_all(read, count) && same_value(c->own, x)) return 0;
    for (int i = 0; i < c->n_inputs; i++)
        if (same_value(c->input[i], x) && !memcmp(&c->read[i], read, sizeof *read))
            return CHAIN_INPUT + i;
    if (c->n_inputs == CHAIN_INPUTS) return NO_REGISTER;
    c->input[c->n_inputs] = x;
    c->read[c->n_inputs] = *read;
    return CHAIN_INPUT + c->n_inputs++;
}

static int chain_immediate(struct chain *c, float v)
{
    for (int i = 0; i < c->n_immediates; i++)
        if (!memcmp(&c->immediate[i], &v, sizeof v)) return i;
    if (c->n_immediates == CHAIN_IMMEDIATES) return NO_REGISTER;
    c->immediate[c->n_immediates] = v;
    return c->n_immediates++;
}

static bool chain_step(struct chain *c, const burin_node *n, int a, int b, float p, float q)
{
    int n_attrs = op_at((enum op_code)n->op)->n_attrs;
    if (c->n_steps == CHAIN_STEPS || a == NO_REGISTER || b == NO_REGISTER) return false;
    int at_p = n_attrs > 0 ? chain_immediate(c, p) : 0,
        at_q = n_attrs > 1 ? chain_immediate(c, q) : 0;
    if (at_p == NO_REGISTER || at_q == NO_REGISTER) return false;
    c->step[c->n_steps].op = (uint8_t)n->op;
    c->step[c->n_steps].a = (uint8_t)a;
    c->step[c->n_steps].b = (uint8_t)b;
    c->step[c->n_steps].p = (uint8_t)at_p;
    c->step[c->n_steps].q = (uint8_t)at_q;
    c->step[c->n_steps].node = n;
    c->n_steps++;
    return true;
}

static bool node_step(struct chain *c, const burin_node *n, int a, int b)
{
    return chain_step(c, n, a, b, (float)n->at[0], (float)n->at[1]);
}

/* Appends an elementwise run b to c; returns the register of b's result. */
static int chain_merge(struct chain *c, const struct chain *b, int64_t count)
{
    const struct chain_read all = { .row = (uint32_t)count, .div = (uint32_t)count, .mod = 1 };
    int map[CHAIN_INPUT + CHAIN_INPUTS] = { chain_input(c, b->own, &all, count) };
    for (int i = 0; i < b->n_steps; i++) map[1 + i] = c->n_steps + 1 + i;
    for (int i = 0; i < b->n_inputs; i++)
        map[CHAIN_INPUT + i] = chain_input(c, b->input[i], &b->read[i], count);
    for (int i = 0; i < b->n_steps; i++) {
        if (!node_step(c, b->step[i].node, map[b->step[i].a], map[b->step[i].b]))
            return NO_REGISTER;
    }
    return c->n_steps;
}

/* ---- units ----------------------------------------------------------------------------------- */

#define NOBODY -1
#define MANY -2

struct fuser {
    const struct plan_list *list;
    int *reader;         /* by node: the one node that reads output 0, or NOBODY, or MANY */
    int *part_reader;    /* by node: first reader of a further output */
    int *first;          /* by result: first node of its unit */
    int *head;           /* while deciding: a node nearer to the head */
    struct chain *chain; /* by result */
};

static int head_of(const struct fuser *f, int i)
{
    while (f->head[i] != i) i = f->head[i];
    return i;
}

static void find_readers(struct fuser *f)
{
    for (int i = 0; i < f->list->count; i++) {
        f->reader[i] = NOBODY;
        f->part_reader[i] = INT_MAX;
    }
    for (int i = 0; i < f->list->count; i++) {
        const burin_node *n = f->list->node[i];
        if (node_is_alias(n)) continue;
        for (int k = 0; k < n->n_in; k++) {
            int part, o = (int)node_owner(n->in[k], &part)->index;
            if (part) f->part_reader[o] = f->part_reader[o] < i ? f->part_reader[o] : i;
            else f->reader[o] = f->reader[o] == NOBODY || f->reader[o] == i ? i : MANY;
        }
    }
}

/* The unit that input k of node i could prolong: its result, read by i alone and as a whole. -1 =
 * none. */
static int unit_before(const struct fuser *f, int i, int k)
{
    const burin_node *n = f->list->node[i];
    int part;
    const burin_node *o = node_owner(n->in[k], &part);
    if (part || o->op == OP_cast || f->reader[o->index] != i) return -1;
    if (burin_shape_count(&n->in[k]->shape) != burin_shape_count(&n->shape)) return -1;
    const burin_node *head = f->list->node[head_of(f, (int)o->index)];
    bool chains = op_traits((enum op_code)head->op).chains;
    return chains && f->part_reader[head->index] > i ? (int)o->index : -1;
}

/* Whether a variable that the unit of result u reads is changed before node i, where it would run
 * now. */
static bool too_late(const struct fuser *f, int u, int i)
{
    const struct chain *c = &f->chain[u];
    const burin_node *head = f->list->node[head_of(f, u)];
    int part, n = c->own ? 1 : head->n_in;
    for (int k = 0; k < n + c->n_inputs; k++) {
        burin_node *in = k >= n ? c->input[k - n] : c->own ? c->own : head->in[k];
        const burin_node *owner = node_owner(in, &part);
        if (owner->op == OP_leaf && plan_list_written(f->list, owner->var, f->first[u], i))
            return true;
    }
    return false;
}

static void join(struct fuser *f, int u, int i)
{
    f->head[head_of(f, u)] = head_of(f, i);
    if (f->first[u] < f->first[i]) f->first[i] = f->first[u];
}

/* Lets node i join unit u through its input k. The other operand: a value that the unit already
 * holds, an elementwise run of its own that only i reads and that is computed along, or one more
 * input. */
static bool join_unit(struct fuser *f, int i, int k, int u)
{
    burin_node *n = f->list->node[i];
    if (too_late(f, u, i)) return false;
    int64_t count = burin_shape_count(&n->shape);
    struct chain c = f->chain[u];
    int value = c.n_steps, other = value, merged = -1;
    if (n->n_in == 2 && !same_value(n->in[0], n->in[1])) {
        struct chain_read read;
        int v = unit_before(f, i, 1 - k);
        if (v >= 0 && f->chain[v].own && !too_late(f, v, i)) {
            struct chain both = c;
            other = chain_merge(&both, &f->chain[v], count);
            if (other != NO_REGISTER && both.n_steps < CHAIN_STEPS) {
                merged = v;
                c = both;
            }
        }
        if (merged < 0) {
            if (!chain_read_of(&n->in[1 - k]->shape, &n->shape, &read)) return false;
            other = chain_input(&c, n->in[1 - k], &read, count);
        }
    }
    if (!node_step(&c, n, k == 0 ? value : other, k == 0 ? other : value)) return false;
    f->chain[i] = c;
    int head = head_of(f, u);
    f->head[i] = head;
    f->first[i] = f->first[u];
    if (merged >= 0) join(f, merged, i);
    return true;
}

/* An elementwise kernel of its own: register 0 is an operand of the result's shape. */
static void start_run(struct fuser *f, int i)
{
    burin_node *n = f->list->node[i];
    struct chain *c = &f->chain[i];
    int64_t count = burin_shape_count(&n->shape);
    int k = n->n_in == 1 || burin_shape_count(&n->in[0]->shape) == count ? 0 : 1, other = 0;
    c->own = n->in[k];
    if (n->n_in == 2) {
        struct chain_read read;
        if (!chain_read_of(&n->in[1 - k]->shape, &n->shape, &read))
            panic("an operand that no chain reads");
        other = chain_input(c, n->in[1 - k], &read, count);
    }
    node_step(c, n, k == 0 ? 0 : other, k == 0 ? other : 0);
}

static bool is_run(const struct fuser *f, int u) { return f->chain[u].own != NULL; }

/* A cast is the type in which its producer stores; nothing joins it, since the rounding would be
 * lost. */
static void fuse_cast(struct fuser *f, int i)
{
    int u = unit_before(f, i, 0);
    if (u < 0 || too_late(f, u, i)) return;
    f->chain[i] = f->chain[u];
    f->first[i] = f->first[u];
    f->head[i] = head_of(f, u);
}

/* The heavier kernel is the better one to join, then the later one: less stays alive across it. */
static void fuse_elementwise(struct fuser *f, int i)
{
    const burin_node *n = f->list->node[i];
    int a = unit_before(f, i, 0), b = n->n_in == 2 ? unit_before(f, i, 1) : -1;
    int first = 0;
    if (b >= 0 && (a < 0 || (is_run(f, a) != is_run(f, b) ? is_run(f, a) : b > a))) first = 1;
    const int unit[2] = { a, b };
    for (int k = 0; k < 2; k++) {
        int operand = k == 0 ? first : 1 - first;
        if (unit[operand] >= 0 && join_unit(f, i, operand, unit[operand])) return;
    }
    start_run(f, i);
}

void fuse_decide(const struct plan_list *l, const struct plan_options *options, int *head,
                 struct chain *chain)
{
    size_t n = (size_t)l->count + 1;
    struct fuser f = { .list = l, .head = head, .chain = chain };
    f.reader = mem_alloc(n * sizeof(int));
    f.part_reader = mem_alloc(n * sizeof(int));
    f.first = mem_alloc(n * sizeof(int));
    bool fusion = !options || !options->no_fusion;
    find_readers(&f);
    for (int i = 0; i < l->count; i++) {
        enum op_code op = (enum op_code)l->node[i]->op;
        f.head[i] = f.first[i] = i;
        memset(&chain[i], 0, sizeof chain[i]);
        if (op_is_elementwise(op)) {
            if (fusion) fuse_elementwise(&f, i);
            else start_run(&f, i);
        } else if (op == OP_cast && fusion) {
            fuse_cast(&f, i);
        }
    }
    for (int i = 0; i < l->count; i++) head[i] = head_of(&f, i);
    mem_free(f.reader);
    mem_free(f.part_reader);
    mem_free(f.first);
}
