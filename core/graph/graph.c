/* SPDX-License-Identifier: MIT
 * graph.c - the arena of nodes: creation, checks of what a recipe passes in, and the first error.
 */
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Far more than any network needs: a recipe that goes on for ever is to be told so. */
#define MAX_NODES (1 << 20)

burin_graph *burin_graph_create(void) { return mem_alloc(sizeof(burin_graph)); }

void burin_graph_destroy(burin_graph *g)
{
    if (!g) return;
    for (int i = 0; i < g->count; i++)
        if (g->node[i]->var) var_release(g->node[i]->var);
    mem_free(g->node);
    arena_finish(&g->arena);
    mem_free(g);
}

const char *burin_graph_error(const burin_graph *g) { return g ? g->error : NULL; }

void burin_graph_where(burin_graph *g, const char *where)
{
    if (!where) g->where = NULL;
    else if (!g->where || strcmp(g->where, where)) g->where = arena_strdup(&g->arena, where);
}

/* Kept once a node has it: a recipe that sets labels and makes nothing takes no memory. */
void burin_graph_label(burin_graph *g, const char *label)
{
    snprintf(g->new_label, sizeof g->new_label, "%s", label);
    g->relabelled = !g->label || strcmp(g->label, g->new_label) != 0;
}

burin_node *graph_fail(burin_graph *g, const char *fmt, ...)
{
    if (g->error) return NULL;
    struct str text = { 0 };
    if (g->where) str_addf(&text, "%s: ", g->where);
    if (g->op) str_addf(&text, "%s: ", g->op);
    char message[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    str_add(&text, message);
    g->error = arena_strdup(&g->arena, text.data);
    str_finish(&text);
    fail("%s", g->error);
    return NULL;
}

const char *shape_text(const burin_shape *s, char text[64])
{
    struct str t = { 0 };
    str_add(&t, "(");
    for (int i = 0; i < s->rank; i++) str_addf(&t, "%s%lld", i ? ", " : "", (long long)s->dim[i]);
    str_add(&t, ")");
    snprintf(text, 64, "%s", t.data);
    str_finish(&t);
    return text;
}

bool shape_equal(const burin_shape *a, const burin_shape *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]);
}

burin_node *node_owner(burin_node *n, int *part)
{
    *part = 0;
    for (; n->op == OP_reshape || n->op == OP_detach || n->op == OP_part; n = n->in[0])
        if (n->op == OP_part) *part = (int)n->at[0];
    return n;
}

/* ---- making a node --------------------------------------------------------------------------- */

static burin_node *node_new(burin_graph *g, enum op_code op, burin_node *const *in, int n_in)
{
    burin_node *n = arena_alloc(&g->arena, sizeof *n);
    n->op = (uint16_t)op;
    n->n_in = (uint8_t)n_in;
    n->n_parts = 1;
    for (int i = 0; i < n_in; i++) n->in[i] = in[i];
    n->region = g->region;
    n->graph = g;
    n->where = g->where;
    if (g->relabelled) g->label = arena_strdup(&g->arena, g->new_label);
    g->relabelled = false;
    n->label = g->label;
    n->backward = g->backward;
    return n;
}

static burin_node *node_append(burin_node *n)
{
    burin_graph *g = n->graph;
    if (g->count >= MAX_NODES) return graph_fail(g, "more than %d nodes in one graph", MAX_NODES);
    g->node = array_reserve(g->node, g->count, &g->capacity, sizeof *g->node);
    n->index = (uint32_t)g->count;
    g->node[g->count++] = n;
    return n;
}

static bool can_compute(burin_dtype d)
{
    return d == BURIN_F32 || d == BURIN_F16 || d == BURIN_BF16;
}

/* Rows whose second input may be a weight in 8 bits. */
static bool reads_int8(const struct op_row *row)
{
    return row == op_at(OP_matmul) || row == op_at(OP_conv2d) || row == op_at(OP_conv2d_dx);
}

/* Inputs: as many as the row says, of this graph, whole numbers only where ids are
 * read and 8 bits only as weights. */
static bool check_inputs(burin_graph *g, const struct op_row *row, burin_node *const *in, int n_in)
{
    if (n_in != row->inputs)
        return graph_fail(g, "takes %d input%s, got %d", row->inputs, row->inputs == 1 ? "" : "s",
                          n_in);
    for (int i = 0; i < n_in; i++) {
        if (!in[i]) return graph_fail(g, "input %d is missing", i + 1);
        if (in[i]->graph != g) return graph_fail(g, "input %d belongs to another graph", i + 1);
        bool ids = row->emit == NULL || (row == op_at(OP_embedding) && i == 1) ||
                   (row == op_at(OP_embedding_grad) && i == 0);
        if (in[i]->dtype == BURIN_I32 && !ids)
            return graph_fail(g, "input %d is i32; only ids of an embedding may be", i + 1);
        if (in[i]->dtype == BURIN_I8 && !(i == 1 && reads_int8(row)))
            return graph_fail(
                g, "input %d is i8; only the weight of a product or convolution may be", i + 1);
    }
    return true;
}

static bool check_attrs(burin_node *n, const struct op_row *row, const double *attrs, int n_attrs)
{
    burin_graph *g = n->graph;
    if (n_attrs > row->n_attrs)
        return graph_fail(g, "takes at most %d attribute%s (\"%s\"), got %d", row->n_attrs,
                          row->n_attrs == 1 ? "" : "s", row->attrs, n_attrs);
    for (int i = 0; i < row->n_attrs; i++) {
        const struct op_attr *a = &row->attr[i];
        double v = i < n_attrs ? attrs[i] : a->fallback;
        if (isnan(v)) return graph_fail(g, "%s is not a number", a->name);
        if (a->kind == 'i' && (v != floor(v) || fabs(v) > INT32_MAX))
            return graph_fail(g, "%s must be a whole number, got %.9g", a->name, v);
        if (a->kind == 'b' && v != 0 && v != 1)
            return graph_fail(g, "%s must be true or false, got %.9g", a->name, v);
        n->at[i] = v;
    }
    return true;
}

static bool check_target(burin_graph *g, const struct op_row *row, const burin_shape *to)
{
    if (row->takes_shape != (to != NULL))
        return graph_fail(g, row->takes_shape ? "needs a target shape" : "takes no target shape");
    if (to && (to->rank < 0 || to->rank > BURIN_MAX_RANK))
        return graph_fail(g, "a target shape has at most %d dims, got %d", BURIN_MAX_RANK,
                          to->rank);
    return true;
}

/* Kernels index elements with 32 bits. */
static bool check_result(burin_node *n)
{
    double count = 1;
    char text[64];
    for (int i = 0; i < n->shape.rank; i++) {
        if (n->shape.dim[i] < 1)
            return graph_fail(n->graph, "the result would be %s: every dim must be at least 1",
                              shape_text(&n->shape, text));
        count *= (double)n->shape.dim[i];
    }
    if (count >= 4294967296.0)
        return graph_fail(n->graph, "the result would be %s: 2^32 elements or more",
                          shape_text(&n->shape, text));
    bool alias = !op_at((enum op_code)n->op)->emit;
    if (!alias && !can_compute(n->dtype))
        return graph_fail(n->graph, "cannot give %s; the types are f32, f16 and bf16",
                          burin_dtype_name(n->dtype));
    if (alias && n->dtype != n->in[0]->dtype)
        return graph_fail(n->graph, "keeps the type of its input (%s); use cast",
                          burin_dtype_name(n->in[0]->dtype));
    return true;
}

static int find_op(burin_graph *g, const char *name)
{
    int op = op_find(name);
    if (op >= 0 && op_at((enum op_code)op)->shape && op != OP_assign) return op;
    const char *names[OP_COUNT];
    for (int i = 0; i < OP_COUNT; i++) names[i] = op_at((enum op_code)i)->name;
    const char *near = op < 0 ? str_nearest(name, names, OP_COUNT) : NULL;
    g->op = NULL;
    if (op >= 0) graph_fail(g, "'%s' has a function of its own (burin_%s)", name, name);
    else if (near) graph_fail(g, "there is no op '%s'; did you mean '%s'?", name, near);
    else graph_fail(g, "there is no op '%s'", name);
    return -1;
}

burin_node *burin_call(burin_graph *g, const char *name, burin_node *const *in, int n_in,
                       const double *attrs, int n_attrs, const burin_shape *to, burin_dtype dtype)
{
    if (!g || g->error) return NULL;
    int op = find_op(g, name);
    if (op < 0) return NULL;
    const struct op_row *row = op_at((enum op_code)op);
    g->op = row->name;
    if (!check_inputs(g, row, in, n_in)) return NULL;
    burin_node *n = node_new(g, (enum op_code)op, in, n_in);
    n->dtype = dtype;
    if (!check_attrs(n, row, attrs, n_attrs) || !check_target(g, row, to) || !row->shape(n, to))
        return NULL;
    if (!n->dtype) n->dtype = in[0]->dtype;
    return check_result(n) ? node_append(n) : NULL;
}

burin_node *burin_leaf(burin_graph *g, burin_var *var)
{
    if (!g || g->error) return NULL;
    g->op = "leaf";
    if (!var) return graph_fail(g, "the variable is missing");
    for (int i = 0; i < g->count; i++)
        if (g->node[i]->op == OP_leaf && g->node[i]->var == var) return g->node[i];
    if (!can_compute(var->dtype) && var->dtype != BURIN_I32 && var->dtype != BURIN_I8)
        return graph_fail(g, "%s has type %s, which no kernel reads", var->name,
                          burin_dtype_name(var->dtype));
    burin_node *n = node_new(g, OP_leaf, NULL, 0);
    n->dtype = var->dtype;
    n->shape = var->shape;
    n->var = var;
    var_hold(var);
    n->region = 0; /* a variable is there anyway: nothing to recompute */
    return node_append(n);
}

burin_node *burin_part(burin_node *node, int part)
{
    if (!node || node->graph->error) return NULL;
    burin_graph *g = node->graph;
    g->op = "part";
    if (part == 0) return node;
    if (part < 0 || part >= node->n_parts)
        return graph_fail(g, "%s has %d output%s, there is no part %d",
                          op_at((enum op_code)node->op)->name, node->n_parts,
                          node->n_parts == 1 ? "" : "s", part);
    burin_node *n = node_new(g, OP_part, &node, 1);
    n->at[0] = part;
    n->dtype = node->part_dtype[part];
    n->shape = node->part[part];
    n->region = node->region;
    return node_append(n);
}

burin_node *burin_assign(burin_graph *g, burin_var *var, burin_node *value)
{
    if (!g || g->error) return NULL;
    g->op = "assign";
    if (!var || !value) return graph_fail(g, "the %s is missing", var ? "value" : "variable");
    if (!check_inputs(g, op_at(OP_assign), &value, 1)) return NULL;
    char a[64], b[64];
    if (!shape_equal(&var->shape, &value->shape))
        return graph_fail(g, "%s is %s, the value is %s", var->name, shape_text(&var->shape, a),
                          shape_text(&value->shape, b));
    if (!can_compute(var->dtype))
        return graph_fail(g, "%s has type %s, which no kernel writes", var->name,
                          burin_dtype_name(var->dtype));
    burin_node *n = node_new(g, OP_assign, &value, 1);
    n->dtype = var->dtype;
    n->shape = var->shape;
    n->var = var;
    var_hold(var);
    n->region = 0;
    return node_append(n);
}

void burin_checkpoint_enter(burin_graph *g)
{
    if (!g || g->error) return;
    g->op = "checkpoint";
    if (g->region) graph_fail(g, "checkpoints do not nest");
    else g->region = ++g->region_count;
}

void burin_checkpoint_leave(burin_graph *g)
{
    if (g) g->region = 0;
}
