/* SPDX-License-Identifier: MIT
 * test_fuse.c - what joins what. Every plan is also run on the host and compared with its graph.
 * No device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */

#include "null/plan_sim.h"

#include <string.h>

static struct fixture f;

static burin_node *call1(const char *op, burin_node *x)
{
    return burin_call(f.g, op, &x, 1, NULL, 0, NULL, 0);
}

static burin_node *call2(const char *op, burin_node *a, burin_node *b)
{
    return burin_call(f.g, op, (burin_node *[]){ a, b }, 2, NULL, 0, NULL, 0);
}

static burin_node *scale(burin_node *x, double by)
{
    return burin_call(f.g, "scale", &x, 1, &by, 1, NULL, 0);
}

static burin_node *leaf(burin_shape shape)
{
    burin_node *n = fixture_leaf(&f, BURIN_F32, shape);
    fixture_fill(&f, n, -1, 1);
    return n;
}

static void save(burin_node *x)
{
    burin_node *out = fixture_leaf(&f, x->dtype, x->shape);
    burin_assign(f.g, out->var, x);
}

/* "matmul:add,silu elementwise:mul": heads and chains of the steps, in order; the plan's result is
 * checked. */
static void check(const char *expected)
{
    if (burin_graph_error(f.g)) print_error("%s\n", burin_graph_error(f.g));
    struct burin_plan *p = plan_make(f.g, &sim_target, NULL);
    if (!p) print_error("%s\n", burin_error());
    assert_non_null(p);
    struct str text = { 0 };
    for (int i = 0; i < p->count; i++) {
        const struct plan_step *t = &p->step[i];
        if (i) str_add(&text, " ");
        str_addf(&text, "%s",
                 t->chain.own ? "elementwise" : op_at((enum op_code)t->node->op)->name);
        for (int k = 0; k < t->chain.n_steps; k++)
            str_addf(&text, "%c%s", k ? ',' : ':', op_at((enum op_code)t->chain.step[k].op)->name);
    }
    assert_string_equal(text.data, expected);
    str_finish(&text);
    struct reference *vars = reference_create(false);
    for (int i = 0; i < f.vars; i++)
        memcpy(reference_var(vars, &f.var[i]), reference_var(f.r, &f.var[i]),
               (size_t)burin_shape_count(&f.var[i].shape) * sizeof(double));
    sim_run(p, vars);
    assert_true(reference_run(f.r, f.g));
    for (int i = 0; i < f.vars; i++)
        for (int64_t k = 0; k < burin_shape_count(&f.var[i].shape); k++)
            assert_true(fabs(reference_var(vars, &f.var[i])[k] - reference_var(f.r, &f.var[i])[k]) <
                        1e-6);
    reference_destroy(vars);
    plan_destroy(p);
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_finish(&f);
    return 0;
}

static void test_linear_layer(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(3, 4)), *w = leaf(SHAPE(4, 5)), *b = leaf(SHAPE(5)),
               *r = leaf(SHAPE(3, 5));
    save(call2("add", r, call1("silu", call2("add", call2("matmul", x, w), b))));
    check("matmul:add,silu,add");
}

/* y = x w + s (x a) b: the adapter's second product carries the first one along. */
static void test_adapter(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(3, 4)), *w = leaf(SHAPE(4, 5)), *a = leaf(SHAPE(4, 2)),
               *b = leaf(SHAPE(2, 5));
    burin_node *y = call2("matmul", x, w);
    save(call2("add", y, scale(call2("matmul", call2("matmul", x, a), b), 0.5)));
    check("matmul matmul matmul:scale,add");
}

/* Two readers: the value is stored. An own kernel computes the rest in one go. */
static void test_second_reader(void **state)
{
    (void)state;
    burin_node *z = call2("matmul", leaf(SHAPE(3, 4)), leaf(SHAPE(4, 5)));
    save(call2("mul", call1("silu", z), call1("sigmoid", z)));
    check("matmul elementwise:silu,sigmoid,mul");
}

/* The slope of an activation is computed in the kernel that makes the gradient it multiplies. */
static void test_slope(void **state)
{
    (void)state;
    burin_node *z = leaf(SHAPE(3, 5)), *dy = leaf(SHAPE(3, 4)), *w = leaf(SHAPE(4, 5));
    burin_node *d = call2("matmul", dy, w);
    save(call2("mul", d, call1("silu_slope", z)));
    check("matmul:silu_slope,mul");
}

static void test_reshape(void **state)
{
    (void)state;
    burin_node *y = call2("matmul", leaf(SHAPE(6, 4)), leaf(SHAPE(4, 5))),
               *b = leaf(SHAPE(3, 1, 5));
    burin_shape to = SHAPE(3, 2, 5);
    save(call2("add", burin_call(f.g, "reshape", &y, 1, NULL, 0, &to, 0), b));
    check("matmul:add");
}

static void test_statistics_in_between(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(3, 4)), *g = leaf(SHAPE(4)), *b = leaf(SHAPE(4));
    burin_node *y = burin_call(f.g, "layer_norm", (burin_node *[]){ x, g, b }, 3,
                               (double[]){ 1e-5 }, 1, NULL, 0);
    burin_node *s = call1("sum_squares", burin_part(y, 1)); /* read before the unit would run */
    save(call2("mul", y, s));
    check("layer_norm sum_squares elementwise:mul");
}

static void test_norm_and_activation(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(3, 4)), *g = leaf(SHAPE(4)), *b = leaf(SHAPE(4));
    burin_node *y = burin_call(f.g, "layer_norm", (burin_node *[]){ x, g, b }, 3,
                               (double[]){ 1e-5 }, 1, NULL, 0);
    save(call1("silu", y));
    save(burin_part(y, 1));
    check("layer_norm:silu"); /* the statistics are made in their variable */
}

static void test_limits(void **state)
{
    (void)state;
    burin_node *h = leaf(SHAPE(10));
    for (int i = 0; i < 8; i++) h = call1("tanh", h); /* CHAIN_STEPS = 6 */
    save(h);
    h = leaf(SHAPE(10));
    for (int i = 0; i < 5; i++) h = scale(h, 0.5 + i); /* CHAIN_IMMEDIATES = 4 */
    save(h);
    h = leaf(SHAPE(10));
    for (int i = 0; i < 4; i++) h = call2("add", h, leaf(SHAPE(10))); /* CHAIN_INPUTS = 3 */
    save(h);
    check("elementwise:tanh,tanh,tanh,tanh,tanh,tanh elementwise:tanh,tanh "
          "elementwise:scale,scale,scale,scale "
          "elementwise:scale elementwise:add,add,add elementwise:add");
}

static void test_registers(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(10)), *y = leaf(SHAPE(10)), *h = x;
    for (int i = 0; i < 5; i++) h = call2("mul", h, i % 2 ? x : y); /* x and y are read once */
    save(h);
    h = leaf(SHAPE(10));
    for (int i = 0; i < 6; i++) h = scale(h, i % 2 ? 0.5 : 2); /* two numbers */
    save(call2("add", h, h));
    check("elementwise:mul,mul,mul,mul,mul elementwise:scale,scale,scale,scale,scale,scale "
          "elementwise:add");
}

/* Half precision in, single precision out: no cast is left. */
static void test_casts(void **state)
{
    (void)state;
    burin_node *x = fixture_leaf(&f, BURIN_F16, SHAPE(3, 4)),
               *w = fixture_leaf(&f, BURIN_F16, SHAPE(4, 5));
    fixture_fill(&f, x, -1, 1);
    fixture_fill(&f, w, -1, 1);
    burin_node *y = call2("matmul", x, w);
    y = burin_call(f.g, "cast", &y, 1, NULL, 0, NULL, BURIN_F32);
    burin_node *d = call2("sub", y, leaf(SHAPE(3, 5)));
    save(burin_call(f.g, "cast", &d, 1, NULL, 0, NULL, BURIN_BF16));
    check("matmul:sub");
}

static void test_cast_kept(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(10));
    x = burin_call(f.g, "cast", &x, 1, NULL, 0, NULL,
                   BURIN_F16); /* rounds: an elementwise op on it must see that */
    burin_node *y = call1("tanh", x);
    save(burin_call(f.g, "cast", &y, 1, NULL, 0, NULL, BURIN_F32));
    check("cast elementwise:tanh");
}

static void test_outer(void **state)
{
    (void)state;
    save(call2("add", leaf(SHAPE(4, 1)), leaf(SHAPE(1, 5))));
    check("broadcast elementwise:add");
}

static void test_odd_broadcast(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(2, 3, 4, 5));
    save(call2("add", x, leaf(SHAPE(2, 1, 4, 1)))); /* no {row, div, mod} */
    check("broadcast elementwise:add");
}

/* A value must not be made later than a change of what it reads. */
static void test_written_in_between(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(3, 4)), *w = leaf(SHAPE(4, 5));
    burin_node *y = call2("matmul", x, w);
    burin_assign(f.g, w->var, scale(leaf(SHAPE(4, 5)), 0.5));
    save(call2("add", y, leaf(SHAPE(3, 5))));
    check("matmul elementwise:scale elementwise:add");
}

static void test_dead(void **state)
{
    (void)state;
    burin_node *x = leaf(SHAPE(3, 4));
    call1("tanh", x);
    save(call1("sigmoid", x));
    call2("matmul", x, leaf(SHAPE(4, 5)));
    check("elementwise:sigmoid");
}

static void expect_read(burin_shape s, burin_shape to, uint32_t row, uint32_t div, uint32_t mod)
{
    struct chain_read r;
    assert_true(chain_read_of(&s, &to, &r));
    assert_int_equal(r.row, row);
    assert_int_equal(r.div, div);
    assert_int_equal(r.mod, mod);
}

static void test_reads(void **state)
{
    (void)state;
    struct chain_read r;
    expect_read(SHAPE(2, 3, 4, 5), SHAPE(2, 3, 4, 5), 120, 120, 1);
    expect_read(SHAPE(5), SHAPE(2, 3, 4, 5), 5, 120, 1);
    expect_read(SCALAR, SHAPE(2, 3, 4, 5), 1, 120, 1);
    expect_read(SHAPE(6, 1), SHAPE(6, 5), 1, 5, 6);
    expect_read(SHAPE(2, 1, 1, 5), SHAPE(2, 3, 4, 5), 5, 60, 2);
    expect_read(SHAPE(3, 1, 1), SHAPE(2, 3, 4, 5), 1, 20, 3);
    expect_read(SHAPE(1, 3, 1, 5), SHAPE(2, 3, 4, 5), 5, 20, 3);
    assert_false(chain_read_of(&SHAPE(2, 1, 4, 1), &SHAPE(2, 3, 4, 5), &r));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_linear_layer),
        TEST(test_adapter),
        TEST(test_second_reader),
        TEST(test_slope),
        TEST(test_reshape),
        TEST(test_statistics_in_between),
        TEST(test_norm_and_activation),
        TEST(test_limits),
        TEST(test_registers),
        TEST(test_casts),
        TEST(test_cast_kept),
        TEST(test_outer),
        TEST(test_odd_broadcast),
        TEST(test_written_in_between),
        TEST(test_dead),
        TEST(test_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
