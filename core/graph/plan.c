/* SPDX-License-Identifier: MIT
 * plan.c - from the list of nodes to steps with addresses: units become steps, values get
 * lifetimes, a value that is assigned is made in its variable's memory where that is safe, an
 * elementwise result takes over a dying operand's. */
#include "graph/plan.h"

#include <string.h>

#define NO_VALUE -1

/* One output of one step. */
struct value {
    int def, last;  /* step that makes it, last step that reads it */
    int block;      /* its memory in the arena; several values may follow each other in one block */
    burin_var *var; /* or the variable it is made in */
    uint64_t bytes;
};

/* What a step reads and makes, beside its plan_step. */
struct work {
    int in[BURIN_MAX_INPUTS], extra[CHAIN_INPUTS], out[BURIN_MAX_PARTS]; /* values */
    int node;    /* the result's place in the list */
    bool elided; /* an assign whose value is made in place */
};

/* A touch of a variable's memory. */
struct access {
    const burin_var *root;
    uint64_t begin, end;
    int step;
    bool write;
    bool by_index; /* read at the index of the element that the step writes */
};

struct planner {
    struct burin_plan *plan;
    const struct plan_target *target;
    struct plan_list list;
    int *head;
    struct chain *chain;
    struct plan_step *step;
    struct work *work;
    int steps;
    int *value_at; /* by node and part: value, or NO_VALUE */
    struct value *value;
    int values, value_capacity;
    struct access *access;
    int accesses, access_capacity;
    struct plan_block *block; /* one per value, then one per workspace */
    int blocks, block_capacity;
};

/* ---- steps ----------------------------------------------------------------------------------- */

static uint64_t shape_bytes(const burin_shape *s, burin_dtype d)
{
    return (uint64_t)burin_shape_count(s) * burin_dtype_bytes(d);
}

static struct tensor_ref ref_of(burin_var *var, const burin_shape *shape, burin_dtype dtype)
{
    return (struct tensor_ref){
        .var = var,
        .bytes = shape_bytes(shape, dtype),
        .dtype = dtype,
        .shape = *shape,
    };
}

static void touch(struct planner *p, const burin_var *v, int step, bool write, bool by_index)
{
    uint64_t begin;
    const burin_var *root = var_root(v, &begin);
    p->access = array_reserve(p->access, p->accesses, &p->access_capacity, sizeof *p->access);
    p->access[p->accesses++] =
        (struct access){ root, begin, begin + v->bytes, step, write, by_index };
}

/* Fills the reference through which step s reads x; returns the value, or NO_VALUE for a variable.
 */
static int read_value(struct planner *p, int s, burin_node *x, struct tensor_ref *ref,
                      bool by_index)
{
    int part;
    burin_node *owner = node_owner(x, &part);
    *ref = ref_of(owner->op == OP_leaf ? owner->var : NULL, &x->shape, x->dtype);
    if (ref->var) {
        touch(p, ref->var, s, false, by_index);
        return NO_VALUE;
    }
    int v = p->value_at[(int)owner->index * BURIN_MAX_PARTS + part];
    if (v == NO_VALUE)
        panic("step %d (%s) reads a value that nothing has made", s, op_at(x->op)->name);
    p->value[v].last = s;
    return v;
}

static int make_value(struct planner *p, int s, uint32_t node, int part, struct tensor_ref *ref,
                      const burin_shape *shape, burin_dtype dtype)
{
    *ref = ref_of(NULL, shape, dtype);
    p->value = array_reserve(p->value, p->values, &p->value_capacity, sizeof *p->value);
    p->value[p->values] =
        (struct value){ .def = s, .last = s, .block = p->values, .bytes = ref->bytes };
    p->value_at[(int)node * BURIN_MAX_PARTS + part] = p->values;
    return p->values++;
}

static bool extra_by_index(const struct plan_step *s, int i)
{
    return s->chain.read[i].row == burin_shape_count(&s->result->shape);
}

static bool fill_step(struct planner *p, burin_node *head, burin_node *result)
{
    int s = p->steps++;
    struct plan_step *t = &p->step[s];
    struct work *w = &p->work[s];
    memset(w, 0xff, sizeof *w); /* NO_VALUE everywhere */
    w->node = (int)result->index;
    w->elided = false;
    t->node = head;
    t->result = result;
    t->recomputed = p->list.again[result->index];
    t->chain = p->chain[result->index];
    if (t->chain.own) w->in[0] = read_value(p, s, t->chain.own, &t->in[0], true);
    else
        for (int k = 0; k < head->n_in; k++)
            w->in[k] = read_value(p, s, head->in[k], &t->in[k], false);
    for (int i = 0; i < t->chain.n_inputs; i++)
        w->extra[i] = read_value(p, s, t->chain.input[i], &t->extra[i], extra_by_index(t, i));
    for (int i = 0; i < head->n_in; i++) {
        if (!(op_traits((enum op_code)head->op).writes >> i & 1)) continue;
        if (!t->in[i].var)
            return fail("%s: input %d is changed, so it must be a variable", op_at(head->op)->name,
                        i);
        touch(p, t->in[i].var, s, true, false);
    }
    if (head->op == OP_assign) {
        t->out[0] = ref_of(head->var, &head->shape, head->var->dtype);
        touch(p, head->var, s, true, false);
        return true;
    }
    w->out[0] = make_value(p, s, result->index, 0, &t->out[0], &result->shape, result->dtype);
    for (int k = 1; k < head->n_parts; k++)
        w->out[k] =
            make_value(p, s, head->index, k, &t->out[k], &head->part[k], head->part_dtype[k]);
    return true;
}

/* A unit runs at the place of its last node. */
static bool fill_steps(struct planner *p)
{
    int n = p->list.count;
    int *last = mem_alloc((size_t)(n + 1) * sizeof *last);
    for (int i = 0; i < n; i++) last[p->head[i]] = i;
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        burin_node *head = p->list.node[p->head[i]];
        if (last[p->head[i]] != i || node_is_alias(head)) continue;
        ok = fill_step(p, head, p->list.node[i]) || (head->where && fail_prefix("%s", head->where));
    }
    mem_free(last);
    return ok;
}

/* ---- assigned values made in place ----------------------------------------------------------- */

/* The value v may be made in the memory of `var` at its own step already, instead of being copied
 * there at `assign`: nobody in between reads what was there before (the making step itself only
 * element by element), and nobody overwrites it while the value is still read. */
static bool can_make_in(const struct planner *p, const struct value *v, const burin_var *var,
                        int assign)
{
    uint64_t begin;
    const burin_var *root = var_root(var, &begin);
    uint64_t end = begin + var->bytes;
    for (int i = 0; i < p->accesses; i++) {
        const struct access *a = &p->access[i];
        if (a->root != root || a->end <= begin || a->begin >= end || a->step < v->def ||
            a->step == assign)
            continue;
        if (a->step > assign && (!a->write || a->step > v->last)) continue;
        bool same_place =
            a->step == v->def && !a->write && a->by_index && a->begin == begin && a->end == end;
        if (!same_place) return false;
    }
    return true;
}

static void elide_copies(struct planner *p)
{
    for (int s = 0; s < p->steps; s++) {
        struct plan_step *t = &p->step[s];
        struct work *w = &p->work[s];
        if (t->node->op != OP_assign || w->in[0] == NO_VALUE) continue;
        struct value *v = &p->value[w->in[0]];
        if (v->var || t->in[0].dtype != t->out[0].dtype || v->bytes != t->out[0].bytes) continue;
        if (!can_make_in(p, v, t->out[0].var, s)) continue;
        v->var = t->out[0].var;
        w->elided = true;
        touch(p, v->var, v->def, true, false);
    }
}

/* Steps get their final numbers. */
static void drop_elided(struct planner *p)
{
    int n = 0, *now = mem_alloc((size_t)(p->steps + 1) * sizeof *now);
    for (int s = 0; s < p->steps; s++) {
        now[s] = n;
        if (p->work[s].elided) continue;
        p->step[n] = p->step[s];
        p->work[n++] = p->work[s];
    }
    for (int i = 0; i < p->values; i++) {
        p->value[i].def = now[p->value[i].def];
        p->value[i].last = now[p->value[i].last];
    }
    p->plan->step = p->step;
    p->plan->count = p->steps = n;
    mem_free(now);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Values that step s reads at the index it writes, and nowhere else; -1 when slot i is none. */
static int dying_operand(const struct planner *p, int s, int i)
{
    const struct plan_step *t = &p->step[s];
    const struct work *w = &p->work[s];
    int v;
    if (i == 0) v = t->chain.own ? w->in[0] : NO_VALUE;
    else v = i <= t->chain.n_inputs && extra_by_index(t, i - 1) ? w->extra[i - 1] : NO_VALUE;
    if (v == NO_VALUE || p->value[v].last != s || p->value[v].var) return NO_VALUE;
    const struct tensor_ref *ref = i == 0 ? &t->in[0] : &t->extra[i - 1];
    if (ref->dtype != t->out[0].dtype &&
        burin_dtype_bytes(ref->dtype) != burin_dtype_bytes(t->out[0].dtype))
        return NO_VALUE;
    for (int k = 0; !t->chain.own && k < t->node->n_in; k++)
        if (w->in[k] == v) return NO_VALUE;
    return v;
}

/* A result takes over the block of an operand that dies with this step. */
static void reuse_in_place(struct planner *p)
{
    for (int s = 0; s < p->steps; s++) {
        int out = p->work[s].out[0];
        if (out == NO_VALUE || p->value[out].var) continue;
        for (int i = 0; i <= CHAIN_INPUTS; i++) {
            int v = dying_operand(p, s, i);
            if (v == NO_VALUE) continue;
            p->value[out].block = p->value[v].block;
            break;
        }
    }
}

static void add_block(struct planner *p, int first, int last, uint64_t bytes)
{
    p->block = array_reserve(p->block, p->blocks, &p->block_capacity, sizeof *p->block);
    p->block[p->blocks++] = (struct plan_block){ .first = first, .last = last, .bytes = bytes };
}

static void make_blocks(struct planner *p)
{
    for (int i = 0; i < p->values; i++) add_block(p, 1, 0, 0);
    for (int i = 0; i < p->values; i++) {
        const struct value *v = &p->value[i];
        if (v->var) continue;
        struct plan_block *b = &p->block[v->block];
        if (!b->bytes)
            *b = (struct plan_block){ .first = v->def, .last = v->last, .bytes = v->bytes };
        else if (b->last < v->last) b->last = v->last;
    }
    for (int s = 0; s < p->steps; s++)
        if (p->step[s].workspace.bytes) add_block(p, s, s, p->step[s].workspace.bytes);
}

/* The largest sum of live blocks, and how much of it is scratch. */
static void measure_peak(struct planner *p)
{
    struct burin_plan *plan = p->plan;
    int64_t *change = mem_alloc((size_t)(p->steps + 2) * sizeof *change), live = 0;
    uint64_t alignment = p->target->alignment;
    for (int i = 0; i < p->blocks; i++) {
        int64_t bytes = (int64_t)((p->block[i].bytes + alignment - 1) / alignment * alignment);
        if (!bytes) continue;
        change[p->block[i].first] += bytes;
        change[p->block[i].last + 1] -= bytes;
    }
    for (int s = 0; s < p->steps; s++) {
        live += change[s];
        uint64_t scratch = p->step[s].workspace.bytes;
        if (scratch > plan->workspace_bytes) plan->workspace_bytes = scratch;
        if ((uint64_t)live <= plan->peak_bytes) continue;
        plan->peak_bytes = (uint64_t)live;
        plan->peak_workspace = scratch;
    }
    mem_free(change);
}

static void address(const struct planner *p, int v, struct tensor_ref *ref)
{
    if (v == NO_VALUE) return;
    ref->var = p->value[v].var;
    ref->offset = ref->var ? 0 : p->block[p->value[v].block].offset;
}

static void assign_addresses(struct planner *p)
{
    make_blocks(p);
    p->plan->arena_bytes = plan_place(p->block, p->blocks, p->target->alignment);
    measure_peak(p);
    int workspace = p->values;
    for (int s = 0; s < p->steps; s++) {
        struct plan_step *t = &p->step[s];
        const struct work *w = &p->work[s];
        for (int i = 0; i < BURIN_MAX_INPUTS; i++) address(p, w->in[i], &t->in[i]);
        for (int i = 0; i < CHAIN_INPUTS; i++) address(p, w->extra[i], &t->extra[i]);
        for (int i = 0; i < BURIN_MAX_PARTS; i++) address(p, w->out[i], &t->out[i]);
        if (t->workspace.bytes) t->workspace.offset = p->block[workspace++].offset;
    }
}

/* ---- all together ---------------------------------------------------------------------------- */

static void collect_vars(struct planner *p)
{
    struct burin_plan *plan = p->plan;
    plan->var = arena_alloc(&plan->arena, (size_t)(p->list.count + 1) * sizeof *plan->var);
    for (int i = 0; i < p->list.count; i++) {
        burin_var *v = p->list.node[i]->var;
        bool seen = !v;
        for (int k = 0; k < plan->n_vars && !seen; k++) seen = plan->var[k] == v;
        if (seen) continue;
        var_hold(v);
        plan->var[plan->n_vars++] = v;
    }
}

static bool make(struct planner *p, const burin_graph *g, const struct plan_options *options)
{
    struct arena *a = &p->plan->arena;
    plan_list_make(&p->list, a, g, options);
    size_t n = (size_t)p->list.count + 1;
    p->head = mem_alloc(n * sizeof *p->head);
    p->chain = mem_alloc(n * sizeof *p->chain);
    p->value_at = mem_alloc(n * BURIN_MAX_PARTS * sizeof *p->value_at);
    p->work = mem_alloc(n * sizeof *p->work);
    p->step = arena_alloc(a, n * sizeof *p->step);
    memset(p->value_at, 0xff, n * BURIN_MAX_PARTS * sizeof *p->value_at);
    fuse_decide(&p->list, options, p->head, p->chain);
    if (!fill_steps(p)) return false;
    elide_copies(p);
    drop_elided(p);
    reuse_in_place(p);
    if (!plan_rehearse(p->plan, p->target)) return false;
    assign_addresses(p);
    collect_vars(p);
    return true;
}

struct burin_plan *plan_make(burin_graph *g, const struct plan_target *target,
                             const struct plan_options *options)
{
    if (g->error) {
        fail("%s", g->error);
        return NULL;
    }
    struct burin_plan *plan = mem_alloc(sizeof *plan);
    struct planner p = { .plan = plan, .target = target };
    bool ok = make(&p, g, options);
    mem_free(p.list.node);
    mem_free(p.list.again);
    mem_free(p.head);
    mem_free(p.chain);
    mem_free(p.value_at);
    mem_free(p.work);
    mem_free(p.value);
    mem_free(p.access);
    mem_free(p.block);
    if (ok) return plan;
    plan_destroy(plan);
    return NULL;
}

void plan_destroy(struct burin_plan *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_vars; i++) var_release(p->var[i]);
    arena_finish(&p->arena);
    mem_free(p);
}
