/* SPDX-License-Identifier: MIT
 * plan_list.c - the live nodes as a list in execution order, copied and rewritten so that fusion
 * and planning see plain nodes only: recomputation, for one, is nothing but further copies of some
 * nodes. */
#include "graph/plan.h"

#include <string.h>

bool node_is_alias(const burin_node *n) { return op_at((enum op_code)n->op)->emit == NULL; }

bool node_changes_variables(const burin_node *n)
{
    return n->op == OP_assign || op_traits((enum op_code)n->op).writes != 0;
}

/* ---- variables that share memory ------------------------------------------------------------- */

const burin_var *var_root(const burin_var *v, uint64_t *offset)
{
    for (*offset = 0; v->parent; v = v->parent) *offset += v->offset;
    return v;
}

bool var_overlaps(const burin_var *a, const burin_var *b)
{
    uint64_t at_a, at_b;
    return var_root(a, &at_a) == var_root(b, &at_b) && at_a < at_b + b->bytes &&
           at_b < at_a + a->bytes;
}

static bool changes(const burin_node *n, const burin_var *v)
{
    if (n->op == OP_assign) return var_overlaps(n->var, v);
    unsigned writes = op_traits((enum op_code)n->op).writes;
    for (int i = 0; i < n->n_in; i++) {
        int part;
        const burin_var *changed = node_owner(n->in[i], &part)->var;
        if ((writes >> i & 1) && changed && var_overlaps(changed, v)) return true;
    }
    return false;
}

bool plan_list_written(const struct plan_list *l, const burin_var *v, int from, int to)
{
    int low = 0, high = l->writers;
    while (low < high) { /* first writer after `from` */
        int middle = (low + high) / 2;
        if (l->writer[middle] > from) high = middle;
        else low = middle + 1;
    }
    for (; low < l->writers && l->writer[low] < to; low++)
        if (changes(l->node[l->writer[low]], v)) return true;
    return false;
}

/* ---- the list -------------------------------------------------------------------------------- */

#define BACKWARD \
    UINT32_MAX /* the region of nodes of the backward pass, as long as the list is made */

struct lister {
    struct arena *arena; /* the plan's: copies of nodes live there */
    bool fusion;
    burin_node **node;
    bool *again;
    int count, capacity, again_capacity;
    const char *where, *where_copy, *label, *label_copy;
};

static burin_node *add(struct lister *l, const burin_node *n, bool again)
{
    burin_node *copy = arena_alloc(l->arena, sizeof *copy);
    *copy = *n;
    copy->index = (uint32_t)l->count;
    copy->graph = NULL;
    l->node = array_reserve(l->node, l->count, &l->capacity, sizeof *l->node);
    l->again = array_reserve(l->again, l->count, &l->again_capacity, sizeof *l->again);
    l->node[l->count] = copy;
    l->again[l->count++] = again;
    return copy;
}

/* Marks what the nodes with effects need, back to front. */
static bool *mark_live(burin_node *const *node, int count)
{
    bool *live = mem_alloc((size_t)count + 1);
    for (int i = count - 1; i >= 0; i--) {
        if (node_changes_variables(node[i])) live[i] = true;
        if (!live[i]) continue;
        for (int k = 0; k < node[i]->n_in; k++) live[node[i]->in[k]->index] = true;
    }
    return live;
}

/* A value read in a wider type than it is stored in: kernels convert while reading, so the cast is
 * not needed. */
static burin_node *see_through_casts(burin_node *n)
{
    while (n->op == OP_cast && (n->dtype == BURIN_F32 || n->dtype == n->in[0]->dtype)) n = n->in[0];
    return n;
}

static burin_node *add_new(struct lister *l, enum op_code op, burin_node *in,
                           const burin_shape *shape, burin_dtype dtype, const burin_node *like)
{
    burin_node n = { .op = (uint16_t)op,
                     .n_in = 1,
                     .n_parts = 1,
                     .dtype = dtype,
                     .region = like->region,
                     .in = { in },
                     .shape = *shape,
                     .where = like->where,
                     .label = like->label,
                     .backward = like->backward };
    return add(l, &n, false);
}

/* One operand is read at the index of the result; the other by {row, div, mod}. */
static void add_broadcasts(struct lister *l, burin_node *n)
{
    int64_t count = burin_shape_count(&n->shape);
    struct chain_read read;
    for (int k = 0; k < n->n_in; k++)
        if (!chain_read_of(&n->in[k]->shape, &n->shape, &read))
            n->in[k] = add_new(l, OP_broadcast, n->in[k], &n->shape, n->in[k]->dtype, n);
    if (burin_shape_count(&n->in[0]->shape) != count &&
        burin_shape_count(&n->in[n->n_in - 1]->shape) != count)
        n->in[0] = add_new(l, OP_broadcast, n->in[0], &n->shape, n->in[0]->dtype, n);
}

/* A node's text in the plan's memory: neighbours share theirs. */
static const char *copy_text(struct lister *l, const char *text, const char **last,
                             const char **last_copy)
{
    if (text && text != *last) {
        *last = text;
        *last_copy = arena_strdup(l->arena, text);
    }
    return text ? *last_copy : NULL;
}

/* The copy of a live node, its inputs already copied to map[]. */
static void add_live(struct lister *l, const burin_node *n, burin_node **map, int forward_count)
{
    burin_node c = *n;
    for (int k = 0; k < c.n_in; k++) c.in[k] = map[n->in[k]->index];
    c.where = copy_text(l, c.where, &l->where, &l->where_copy);
    c.label = copy_text(l, c.label, &l->label, &l->label_copy);
    if ((int)n->index >= forward_count) c.region = BACKWARD;
    else if (node_changes_variables(n)) c.region = 0;
    else if (node_is_alias(n)) c.region = c.n_in ? c.in[0]->region : 0; /* as its owner */
    if (op_is_elementwise((enum op_code)n->op)) {
        if (l->fusion)
            for (int k = 0; k < c.n_in; k++) c.in[k] = see_through_casts(c.in[k]);
        add_broadcasts(l, &c);
    }
    if (n->op == OP_assign && c.in[0]->dtype != n->var->dtype)
        c.in[0] = add_new(l, OP_cast, c.in[0], &c.in[0]->shape, n->var->dtype, &c);
    map[n->index] = add(l, &c, false);
}

static int collect_writers(struct lister *l, int **writer)
{
    int n = 0;
    *writer = arena_alloc(l->arena, (size_t)(l->count + 1) * sizeof **writer);
    for (int i = 0; i < l->count; i++)
        if (node_changes_variables(l->node[i])) (*writer)[n++] = i;
    return n;
}

/* ---- values that are computed again instead of kept ------------------------------------------ */

struct second_runs {
    struct plan_list list;        /* before the rewrite, to look for writers */
    bool *needed;                 /* node must run again */
    bool *keep, *keep_next;       /* by value: the first run's is read again */
    burin_node **first, **second; /* the node in the new list */
};

static size_t value_of(burin_node *n)
{
    int part;
    burin_node *owner = node_owner(n, &part);
    return (size_t)owner->index * BURIN_MAX_PARTS + (size_t)part;
}

/* Running n again at position `at` gives the same numbers only if no variable it reads has changed.
 */
static bool reads_changed(const struct second_runs *r, const burin_node *n, int at)
{
    for (int k = 0; k < n->n_in; k++) {
        int part;
        const burin_node *owner = node_owner(n->in[k], &part);
        if (owner->op == OP_leaf && plan_list_written(&r->list, owner->var, (int)n->index, at))
            return true;
    }
    return false;
}

/* Wants x for a reader at `at` in the backward pass or in its region's second run: x runs again too
 * if it is of that region, otherwise it is kept. */
static void want(struct second_runs *r, burin_node *x, uint32_t region, int at)
{
    int part;
    if (node_owner(x, &part)->op == OP_leaf || r->keep[value_of(x)]) return;
    if (x->region != region || reads_changed(r, x, at)) {
        r->keep_next[value_of(x)] = true;
        return;
    }
    if (r->needed[x->index]) return;
    r->needed[x->index] = true;
    for (int k = 0; k < x->n_in; k++) want(r, x->in[k], region, at);
}

static void find_needed(struct second_runs *r)
{
    memset(r->needed, 0, (size_t)r->list.count);
    for (int i = 0; i < r->list.count; i++) {
        burin_node *b = r->list.node[i];
        for (int k = 0; b->region == BACKWARD && k < b->n_in; k++) {
            burin_node *x = b->in[k];
            if (x->region && x->region != BACKWARD) want(r, x, x->region, i);
        }
    }
}

/* The second run of x, added to the new list on first demand, what it reads before it. */
static burin_node *run_again(struct lister *l, struct second_runs *r, burin_node *x)
{
    if (!r->needed[x->index]) return r->first[x->index];
    if (r->second[x->index]) return r->second[x->index];
    burin_node c = *x;
    for (int k = 0; k < c.n_in; k++) c.in[k] = run_again(l, r, x->in[k]);
    return r->second[x->index] = add(l, &c, true);
}

static void add_second_runs(struct lister *l, struct second_runs *r)
{
    for (int i = 0; i < r->list.count; i++) {
        burin_node *n = r->list.node[i], c = *n;
        for (int k = 0; k < c.n_in; k++)
            c.in[k] = n->region == BACKWARD ? run_again(l, r, n->in[k]) : r->first[n->in[k]->index];
        r->first[i] = add(l, &c, false);
    }
}

static void recompute(struct lister *l)
{
    size_t n = (size_t)l->count + 1;
    struct second_runs r = { .list = { .node = l->node, .count = l->count } };
    r.list.writers = collect_writers(l, &r.list.writer);
    r.needed = mem_alloc(n);
    r.keep = mem_alloc(n * BURIN_MAX_PARTS);
    r.keep_next = mem_alloc(n * BURIN_MAX_PARTS);
    r.first = mem_alloc(n * sizeof *r.first);
    r.second = mem_alloc(n * sizeof *r.second);
    /* The first pass finds which values outlive their region because another region starts from
     * them; the second does not compute those again. */
    find_needed(&r);
    memcpy(r.keep, r.keep_next, n * BURIN_MAX_PARTS);
    find_needed(&r);
    bool *old_again = l->again;
    l->node = NULL;
    l->again = NULL;
    l->count = l->capacity = l->again_capacity = 0;
    add_second_runs(l, &r);
    mem_free(r.list.node);
    mem_free(old_again);
    mem_free(r.needed);
    mem_free(r.keep);
    mem_free(r.keep_next);
    mem_free(r.first);
    mem_free(r.second);
}

/* ---- cheap values ---------------------------------------------------------------------------- */

#define CHEAP (UINT32_MAX - 1) /* the region of cheap nodes */
#define CHEAP_DEPTH 4          /* of a chain of them */
#define CHEAP_BYTES (16 << 10) /* below it, memory is not worth a kernel */

/* Whether n can run again from values that the backward pass needs anyway. */
static bool is_cheap(const struct plan_options *o, burin_node *n, const bool *saved, int *depth)
{
    uint64_t least = o && o->recompute_bytes ? o->recompute_bytes : CHEAP_BYTES;
    if (n->region || !op_traits((enum op_code)n->op).cheap) return false;
    if ((uint64_t)burin_shape_count(&n->shape) * burin_dtype_bytes(n->dtype) < least) return false;
    depth[n->index] = 1;
    for (int k = 0; k < n->n_in; k++) {
        int part;
        const burin_node *x = node_owner(n->in[k], &part);
        if (x->region == CHEAP) {
            if (depth[x->index] >= depth[n->index]) depth[n->index] = depth[x->index] + 1;
        } else if (x->op != OP_leaf && (x->region || !saved[value_of(n->in[k])])) {
            return false;
        }
    }
    return depth[n->index] <= CHEAP_DEPTH;
}

/* Activations and norms, for instance: their inputs are kept for their gradients, their results
 * need not be. */
static void mark_cheap(struct lister *l, const struct plan_options *options)
{
    bool *saved = mem_alloc((size_t)(l->count + 1) * BURIN_MAX_PARTS);
    int *depth = mem_alloc((size_t)(l->count + 1) * sizeof *depth);
    for (int i = 0; i < l->count; i++) {
        burin_node *n = l->node[i];
        for (int k = 0; n->region == BACKWARD && !node_is_alias(n) && k < n->n_in; k++)
            saved[value_of(n->in[k])] = true;
    }
    for (int i = 0; i < l->count; i++) {
        burin_node *n = l->node[i];
        bool follows =
            node_is_alias(n) && n->n_in && n->in[0]->region == CHEAP && n->region != BACKWARD;
        if (follows || is_cheap(options, n, saved, depth)) n->region = CHEAP;
    }
    mem_free(saved);
    mem_free(depth);
}

/* ---- all together ---------------------------------------------------------------------------- */

/* Drops what the rewrites left unread. */
static void compact(struct lister *l)
{
    bool *live = mark_live(l->node, l->count);
    int n = 0;
    for (int i = 0; i < l->count; i++) {
        if (!live[i]) continue;
        l->node[n] = l->node[i];
        l->again[n++] = l->again[i];
    }
    for (int i = 0; i < n; i++) l->node[i]->index = (uint32_t)i;
    l->count = n;
    mem_free(live);
}

void plan_list_make(struct plan_list *out, struct arena *a, const burin_graph *g,
                    const struct plan_options *options)
{
    struct lister l = { .arena = a, .fusion = !options || !options->no_fusion };
    bool *live = mark_live(g->node, g->count);
    burin_node **map = mem_alloc((size_t)(g->count + 1) * sizeof *map);
    int forward_count = g->forward_count ? g->forward_count : g->count;
    for (int i = 0; i < g->count; i++)
        if (live[i]) add_live(&l, g->node[i], map, forward_count);
    mem_free(map);
    mem_free(live);
    compact(&l);
    if (g->forward_count) {
        if (!options || !options->no_recompute) mark_cheap(&l, options);
        recompute(&l);
        compact(&l);
    }
    *out = (struct plan_list){ .node = l.node, .again = l.again, .count = l.count };
    out->writers = collect_writers(&l, &out->writer);
}
