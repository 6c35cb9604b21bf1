/* SPDX-License-Identifier: MIT
 * test_plan.c - plans of random graphs give the same variables as the graphs themselves, and use
 * memory as they say; what is recomputed, copied, reused on small graphs. No device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */

#include "null/plan_sim.h"
#include "ops/random_graph.h"

#include <limits.h>
#include <string.h>

static struct burin_plan *plan_with(struct fixture *f, struct plan_options o)
{
    struct burin_plan *p = plan_make(f->g, &sim_target, &o);
    if (!p) print_error("%s\n", burin_error());
    assert_non_null(p);
    return p;
}

static struct burin_plan *plan_of(struct fixture *f)
{
    return plan_with(f, (struct plan_options){ 0 });
}

static int count_steps(const struct burin_plan *p, enum op_code op)
{
    int n = 0;
    for (int i = 0; i < p->count; i++) n += p->step[i].node->op == op;
    return n;
}

/* Runs the plan and the graph from the same variables and compares the variables. */
static void check_run(struct fixture *f, const struct burin_plan *p, double tolerance)
{
    struct reference *vars = reference_create(false);
    for (int i = 0; i < f->vars; i++)
        memcpy(reference_var(vars, &f->var[i]), reference_var(f->r, &f->var[i]),
               (size_t)burin_shape_count(&f->var[i].shape) * sizeof(double));
    struct reference *truth = reference_create(false);
    for (int i = 0; i < f->vars; i++)
        memcpy(reference_var(truth, &f->var[i]), reference_var(f->r, &f->var[i]),
               (size_t)burin_shape_count(&f->var[i].shape) * sizeof(double));
    assert_true(reference_run(truth, f->g));
    sim_run(p, vars);
    for (int i = 0; i < f->vars; i++) {
        const double *a = reference_var(truth, &f->var[i]), *b = reference_var(vars, &f->var[i]);
        for (int64_t k = 0; k < burin_shape_count(&f->var[i].shape); k++)
            if (!(fabs(a[k] - b[k]) <= tolerance * (1 + fabs(a[k])))) {
                struct str text = { 0 };
                plan_print(p, &text);
                print_error("variable %d element %lld: %.9g, the graph says %.9g\n%s", i,
                            (long long)k, b[k], a[k], text.data);
                str_finish(&text);
                assert_true(false);
            }
    }
    reference_destroy(vars);
    reference_destroy(truth);
}

static void test_random_graphs(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 120; seed++) {
        struct fixture f;
        random_graph(&f, seed, 10 + (int)seed % 30, seed % 3 == 0);
        const struct plan_options options[] = { { .no_fusion = true },
                                                { 0 },
                                                { .recompute_bytes = 1 } };
        int steps = INT_MAX;
        for (int i = 0; i < COUNT_OF(options); i++) {
            struct burin_plan *p = plan_with(&f, options[i]);
            assert_true(p->count <= steps || options[i].recompute_bytes);
            assert_true(p->peak_bytes <= p->arena_bytes);
            check_run(&f, p, 1e-9);
            steps = p->count;
            plan_destroy(p);
        }
        fixture_finish(&f);
    }
}

/* ---- placement ------------------------------------------------------------------------------- */

static void test_placement(void **state)
{
    (void)state;
    struct fixture f = { .random = 5 };
    enum { N = 3000, STEPS = 1000 };
    static struct plan_block b[N];
    uint64_t live[STEPS + 1] = { 0 }, peak = 0;
    for (int i = 0; i < N; i++) {
        b[i].first = pick(&f, STEPS);
        b[i].last = b[i].first + pick(&f, pick(&f, 10) ? 10 : STEPS - b[i].first);
        if (b[i].last >= STEPS) b[i].last = STEPS - 1;
        b[i].bytes = (uint64_t)(1 + pick(&f, 40)) << (4 + pick(&f, 10));
        for (int s = b[i].first; s <= b[i].last; s++) live[s] += (b[i].bytes + 255) / 256 * 256;
    }
    uint64_t size = plan_place(b, N, 256);
    for (int s = 0; s < STEPS; s++) peak = live[s] > peak ? live[s] : peak;
    assert_true(size >= peak && size < peak + peak / 4);
    for (int i = 0; i < N; i++) {
        assert_true(b[i].offset % 256 == 0 && b[i].offset + b[i].bytes <= size);
        for (int k = 0; k < i; k++)
            if (b[i].first <= b[k].last && b[k].first <= b[i].last)
                assert_true(b[i].offset >= b[k].offset + b[k].bytes ||
                            b[k].offset >= b[i].offset + b[i].bytes);
    }
}

static void test_many_steps(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_node *x = leaf(&f, SHAPE(16, 8)), *w = leaf(&f, SHAPE(8, 8)), *h = x, *skip[50];
    for (int i = 0; i < 5000; i++) {
        h = call2(&f, "matmul", h, w);
        if (i < 50) skip[i] = h;
        if (i >= 4950) h = call2(&f, "add", call1(&f, "tanh", h), skip[4999 - i]);
    }
    burin_assign(f.g, x->var, h);
    double start = clock_seconds();
    struct burin_plan *p = plan_of(&f);
    double seconds = clock_seconds() - start;
    assert_true(p->count == 5001 || p->count == 5000);
    print_message("           5000 steps planned in %.3f s\n", seconds);
    assert_true(seconds < 5);
    plan_destroy(p);
    fixture_finish(&f);
}

/* ---- recomputation --------------------------------------------------------------------------- */

/* Three blocks y = tanh(tanh(x w) w) and the gradient of w. */
static struct burin_plan *three_blocks(struct fixture *f, bool checkpoints)
{
    fixture_init(f, false);
    burin_node *x = leaf(f, SHAPE(64, 32)), *w = leaf(f, SHAPE(32, 32)),
               *g = leaf(f, SHAPE(32, 32)), *dw, *h = x;
    fixture_fill(f, x, -1, 1);
    fixture_fill(f, w, -0.5, 0.5);
    for (int i = 0; i < 3; i++) {
        if (checkpoints) burin_checkpoint_enter(f->g);
        for (int k = 0; k < 3; k++) h = call1(f, "tanh", call2(f, "matmul", h, w));
        burin_checkpoint_leave(f->g);
    }
    burin_node *loss = call1(f, "sum_squares", h);
    assert_true(burin_backward(f->g, loss, NULL, &w, &dw, 1));
    burin_assign(f->g, g->var, dw);
    return plan_of(f);
}

static void test_checkpoints(void **state)
{
    (void)state;
    struct fixture a, b;
    struct burin_plan *kept = three_blocks(&a, false), *again = three_blocks(&b, true);
    int reruns = 0;
    for (int i = 0; i < again->count; i++) reruns += again->step[i].recomputed;
    assert_int_equal(count_steps(again, OP_matmul) - count_steps(kept, OP_matmul), reruns);
    assert_int_equal(
        reruns,
        7); /* not the output of the first two: the next region starts from it, so it is kept */
    assert_true(again->peak_bytes < kept->peak_bytes);
    check_run(&a, kept, 1e-9);
    check_run(&b, again, 1e-9);
    plan_destroy(kept);
    plan_destroy(again);
    fixture_finish(&a);
    fixture_finish(&b);
}

/* Of norm and activation only the norm's input is kept: both run again, the second time into the
 * gradient's kernel. */
static void test_cheap(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_node *x = leaf(&f, SHAPE(64, 32)), *w = leaf(&f, SHAPE(32, 32)),
               *gamma = leaf(&f, SHAPE(32)), *h = x, *dw;
    burin_node *g = leaf(&f, SHAPE(32, 32));
    fixture_fill(&f, x, -1, 1);
    fixture_fill(&f, w, -1, 1);
    fixture_fill(&f, gamma, 1, 2);
    for (int i = 0; i < 4; i++) {
        h = burin_call(f.g, "layer_norm", (burin_node *[]){ h, gamma, gamma }, 3,
                       (double[]){ 1e-5 }, 1, NULL, 0);
        h = call2(&f, "matmul", call1(&f, "silu", h), w);
    }
    assert_true(burin_backward(f.g, call1(&f, "sum_squares", h), NULL, &w, &dw, 1));
    burin_assign(f.g, g->var, dw);
    struct burin_plan *kept = plan_with(&f, (struct plan_options){ .no_recompute = true });
    struct burin_plan *again = plan_with(&f, (struct plan_options){ .recompute_bytes = 1 });
    assert_int_equal(count_steps(again, OP_layer_norm), 8);
    assert_int_equal(count_steps(kept, OP_layer_norm), 4);
    assert_true(again->peak_bytes * 4 < kept->peak_bytes * 3);
    check_run(&f, kept, 1e-9);
    check_run(&f, again, 1e-9);
    plan_destroy(kept);
    plan_destroy(again);
    fixture_finish(&f);
}

/* ---- assigns --------------------------------------------------------------------------------- */

static void test_assign_in_place(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_node *x = leaf(&f, SHAPE(8, 4)), *dy = leaf(&f, SHAPE(8, 4)), *g = leaf(&f, SHAPE(4, 4));
    fixture_fill(&f, x, -1, 1);
    fixture_fill(&f, dy, -1, 1);
    fixture_fill(&f, g, -1, 1);
    burin_node *dw =
        burin_call(f.g, "matmul", (burin_node *[]){ x, dy }, 2, (double[]){ 1, 0 }, 2, NULL, 0);
    burin_assign(f.g, g->var, call2(&f, "add", g, dw));
    struct burin_plan *p = plan_of(&f);
    assert_int_equal(p->count,
                     1); /* accumulation is one kernel that reads and writes the gradient */
    assert_ptr_equal(p->step[0].out[0].var, g->var);
    assert_ptr_equal(p->step[0].extra[0].var, g->var);
    assert_int_equal(p->arena_bytes - p->workspace_bytes, 0);
    check_run(&f, p, 1e-9);
    plan_destroy(p);
    fixture_finish(&f);
}

/* Two variables change places: neither may be overwritten before the other has been read. */
static void test_assign_swap(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_node *a = leaf(&f, SHAPE(8)), *b = leaf(&f, SHAPE(8));
    fixture_fill(&f, a, -1, 1);
    fixture_fill(&f, b, -1, 1);
    burin_node *na = scale(&f, b, 0.5), *nb = scale(&f, a, 2);
    burin_assign(f.g, a->var, na);
    burin_assign(f.g, b->var, nb);
    struct burin_plan *p = plan_of(&f);
    check_run(&f, p, 1e-6);
    plan_destroy(p);
    fixture_finish(&f);
}

static void test_assign_copies(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_node *a = leaf(&f, SHAPE(8)), *b = leaf(&f, SHAPE(8)),
               *c = fixture_leaf(&f, BURIN_F16, SHAPE(8));
    burin_node *d = leaf(&f, SHAPE(8));
    fixture_fill(&f, a, -1, 1);
    burin_assign(f.g, b->var, a); /* a variable's value: a copy */
    burin_node *y = call1(&f, "tanh", a);
    burin_assign(f.g, c->var, y); /* stored as f16 */
    burin_assign(f.g, d->var, call1(&f, "tanh", y));
    burin_assign(f.g, a->var, y); /* where tanh(a) is made: nobody needs a again */
    struct burin_plan *p = plan_of(&f);
    check_run(&f, p, 1e-9);
    assert_int_equal(count_steps(p, OP_assign), 1);
    plan_destroy(p);
    fixture_finish(&f);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void test_in_place(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_node *x = leaf(&f, SHAPE(1000)), *h = x;
    for (int i = 0; i < 10; i++) h = call1(&f, "tanh", h);
    burin_node *out = leaf(&f, SCALAR);
    burin_assign(f.g, out->var, call1(&f, "sum_squares", h));
    struct burin_plan *p = plan_with(&f, (struct plan_options){ .no_fusion = true });
    assert_int_equal(p->count, 11);
    assert_int_equal(p->peak_bytes - p->peak_workspace, 4096);
    plan_destroy(p);
    fixture_finish(&f);
}

static void test_too_large(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, false);
    burin_graph_where(f.g, "recipe.lua:17");
    burin_node *x = leaf(&f, SHAPE(64, 1)), *y = leaf(&f, SHAPE(1, 64)), *out = leaf(&f, SCALAR);
    burin_assign(f.g, out->var, call1(&f, "sum_squares", call2(&f, "mul", x, y)));
    struct plan_target small = sim_target;
    small.max_range = 4096;
    assert_null(plan_make(f.g, &small, NULL));
    assert_non_null(strstr(burin_error(), "recipe.lua:17"));
    assert_non_null(strstr(burin_error(), "(64, 64)"));
    fixture_finish(&f);
}

static void test_graph_is_gone(void **state)
{
    (void)state;
    struct fixture f;
    random_graph(&f, 3, 20, true);
    struct burin_plan *p = plan_of(&f);
    struct str before = { 0 }, after = { 0 };
    plan_print(p, &before);
    fixture_finish(&f);
    plan_print(p, &after);
    assert_string_equal(before.data, after.data);
    str_finish(&before);
    str_finish(&after);
    plan_destroy(p);
    plan_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs), cmocka_unit_test(test_placement),
        cmocka_unit_test(test_many_steps),    cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_cheap),         cmocka_unit_test(test_assign_in_place),
        cmocka_unit_test(test_assign_swap),   cmocka_unit_test(test_assign_copies),
        cmocka_unit_test(test_in_place),      cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_graph_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
