/* SPDX-License-Identifier: MIT
 * test_graph.c - the op table, nodes and shapes, messages for a recipe's mistakes, and what
 * burin_backward builds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */
#include <string.h>

#include "ops/fixture.h"

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, false);
    burin_graph_where(f.g, "recipe.lua:15");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_finish(&f);
    return 0;
}

#define LEAF(...) fixture_leaf(&f, BURIN_F32, SHAPE(__VA_ARGS__))
#define HALF(...) fixture_leaf(&f, BURIN_F16, SHAPE(__VA_ARGS__))

static burin_node *call(const char *op, burin_node *a, burin_node *b, const double *at, int n_at)
{
    return burin_call(f.g, op, (burin_node *[]){ a, b }, b ? 2 : 1, at, n_at, NULL, 0);
}

static burin_node *unary(const char *op, burin_node *x) { return call(op, x, NULL, NULL, 0); }
static burin_node *binary(const char *op, burin_node *a, burin_node *b)
{
    return call(op, a, b, NULL, 0);
}
static burin_node *shaped(const char *op, burin_node *x, burin_shape to)
{
    return burin_call(f.g, op, &x, 1, NULL, 0, &to, 0);
}
static burin_node *total(burin_node *x) { return shaped("sum_to", x, SCALAR); }

static int nodes_of(enum op_code op)
{
    int n = 0;
    for (int i = 0; i < f.g->count; i++) n += f.g->node[i]->op == op;
    return n;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void test_table(void **state)
{
    bool other = false;
    (void)state;
    for (int i = 0; i < OP_COUNT; i++) {
        const struct op_row *row = op_at((enum op_code)i);
        assert_int_equal(op_find(row->name), i);
        assert_true(row->help && *row->help);
        assert_true(row->inputs <= BURIN_MAX_INPUTS);
        assert_int_equal(row->gradient != NULL, row->differentiable != 0);
        assert_int_equal(op_is_elementwise((enum op_code)i), row->family != OP_OTHER);
        other |= row->family == OP_OTHER;
        assert_false(other && op_is_elementwise((enum op_code)i)); /* elementwise rows come first */
    }
    assert_int_equal(op_find("no_such_op"), -1);
    const struct op_row *conv = op_at(OP_conv2d), *adamw = op_at(OP_adamw);
    assert_int_equal(conv->n_attrs, 5);
    assert_string_equal(conv->attr[0].name, "stride");
    assert_true(conv->attr[0].kind == 'i' && conv->attr[0].fallback == 1 &&
                conv->attr[1].fallback == 0);
    assert_true(adamw->attr[1].fallback == 0.9 && adamw->attr[3].fallback == 1e-8);
    assert_true(op_at(OP_reshape)->takes_shape && op_at(OP_randint)->takes_shape &&
                !conv->takes_shape);
    assert_int_equal(op_at(OP_randint)->n_attrs, 3);
    assert_int_equal(op_at(OP_embedding)->differentiable, 1);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static void test_nodes(void **state)
{
    char text[64];
    int part;
    (void)state;
    burin_node *x = LEAF(2, 4, 4, 6), *h = HALF(6);
    assert_ptr_equal(burin_leaf(f.g, x->var), x);
    assert_string_equal(x->where, "recipe.lua:15");
    assert_string_equal(shape_text(&x->shape, text), "(2, 4, 4, 6)");
    assert_string_equal(shape_text(&SCALAR, text), "()");

    burin_node *in[] = { x, h, h },
               *y = burin_call(f.g, "group_norm", in, 3, (double[]){ 3 }, 1, NULL, 0);
    assert_non_null(y);
    assert_true(y->at[1] == 1e-5); /* the row's default */
    assert_int_equal(y->n_parts, 2);
    burin_node *statistics = burin_part(y, 1);
    assert_true(shape_equal(&statistics->shape, &SHAPE(2, 3, 2)) && statistics->dtype == BURIN_F32);
    assert_ptr_equal(burin_part(y, 0), y);
    assert_ptr_equal(
        node_owner(unary("detach", shaped("reshape", statistics, SHAPE(6, -1))), &part), y);
    assert_int_equal(part, 1);
    assert_ptr_equal(node_owner(y, &part), y);
    assert_int_equal(part, 0);

    assert_int_equal(binary("mul", h, x)->dtype, BURIN_F16); /* as the first input */
    assert_int_equal(
        burin_call(f.g, "mul", (burin_node *[]){ h, x }, 2, NULL, 0, NULL, BURIN_BF16)->dtype,
        BURIN_BF16);
    assert_int_equal(unary("sum_squares", h)->dtype, BURIN_F32);
    assert_true(shape_equal(&shaped("reshape", x, SHAPE(2, -1, 6))->shape, &SHAPE(2, 16, 6)));
    assert_null(burin_graph_error(f.g));
    for (int i = 0; i < f.g->count; i++) assert_int_equal(f.g->node[i]->index, i);
}

static void test_regions(void **state)
{
    (void)state;
    burin_node *x = LEAF(4);
    burin_checkpoint_enter(f.g);
    burin_node *a = unary("exp", x), *w = LEAF(4);
    burin_checkpoint_leave(f.g);
    burin_node *b = unary("exp", a);
    burin_checkpoint_enter(f.g);
    burin_node *c = unary("exp", b);
    burin_node *loss = total(c), *dx;
    int forward = f.g->count;
    assert_true(burin_backward(f.g, loss, NULL, &x, &dx, 1));
    burin_checkpoint_leave(f.g);
    assert_true(a->region == 1 && w->region == 0 && b->region == 0 && c->region == 2);
    assert_int_equal(f.g->forward_count, forward);
    for (int i = forward; i < f.g->count; i++) assert_int_equal(f.g->node[i]->region, 0);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* One mistake: the call gives NULL and the graph keeps this text; afterwards everything is NULL. */
static void expect_text(burin_node *result, const char *text)
{
    assert_null(result);
    assert_non_null(burin_graph_error(f.g));
    if (strcmp(burin_graph_error(f.g), text))
        print_error("got      %s\nexpected %s\n", burin_graph_error(f.g), text);
    assert_string_equal(burin_graph_error(f.g), text);
    assert_string_equal(burin_error(), text);
    teardown(NULL);
    setup(NULL);
}

static burin_node *attend(burin_shape q, burin_shape k, double heads, double causal)
{
    burin_node *kv = fixture_leaf(&f, BURIN_F32, k);
    return burin_call(f.g, "attention", (burin_node *[]){ fixture_leaf(&f, BURIN_F32, q), kv, kv },
                      3, (double[]){ heads, causal }, 2, NULL, 0);
}

static void test_shape_messages(void **state)
{
    (void)state;
    expect_text(
        binary("matmul", LEAF(1, 4096, 320), LEAF(640, 320)),
        "recipe.lua:15: matmul: (1, 4096, 320) and (640, 320): inner sizes 320 and 640 differ");
    expect_text(binary("matmul", LEAF(2, 3, 5), LEAF(3, 5, 4)),
                "recipe.lua:15: matmul: (2, 3, 5) and (3, 5, 4): sizes 2 and 3 of dim 0 differ");
    expect_text(binary("add", LEAF(2, 3), LEAF(4)),
                "recipe.lua:15: add: (2, 3) and (4): sizes 3 and 4 cannot be broadcast");
    expect_text(shaped("reshape", LEAF(2, 3), SHAPE(4, -1)),
                "recipe.lua:15: reshape: (2, 3): 6 elements do not fit (4, -1)");
    expect_text(shaped("broadcast", LEAF(2, 3), SHAPE(2, 4)),
                "recipe.lua:15: broadcast: (2, 3): cannot be broadcast to (2, 4)");
    expect_text(shaped("sum_to", LEAF(2, 3), SHAPE(2, 3, 1)),
                "recipe.lua:15: sum_to: (2, 3): cannot be summed to (2, 3, 1)");
    expect_text(call("slice", LEAF(2, 3), NULL, (double[]){ 1, 2, 4 }, 3),
                "recipe.lua:15: slice: (2, 3): [2, 4) is not inside dim 1");
    expect_text(call("slice", LEAF(2, 3), NULL, (double[]){ 2, 0, 1 }, 3),
                "recipe.lua:15: slice: (2, 3): there is no axis 2");
    expect_text(call("permute", LEAF(2, 3), NULL, (double[]){ 1, 1 }, 2),
                "recipe.lua:15: permute: (2, 3): d0 .. d1 must name each dim once");
    expect_text(call("concat", LEAF(2, 3), LEAF(3, 3), (double[]){ 1 }, 1),
                "recipe.lua:15: concat: (2, 3) and (3, 3): sizes 2 and 3 of dim 0 differ");
    expect_text(binary("conv2d", LEAF(1, 8, 8, 3), LEAF(3, 3, 4, 8)),
                "recipe.lua:15: conv2d: (1, 8, 8, 3) and (3, 3, 4, 8): channels 3 and 4 differ");
    expect_text(binary("conv2d", LEAF(1, 2, 2, 4), LEAF(3, 3, 4, 8)),
                "recipe.lua:15: conv2d: (1, 2, 2, 4) and (3, 3, 4, 8): a kernel of 3 x 3 is larger "
                "than the padded image");
    expect_text(attend(SHAPE(1, 4, 10), SHAPE(1, 4, 10), 3, 0),
                "recipe.lua:15: attention: (1, 4, 10), (1, 4, 10) and (1, 4, 10): width 10 is not "
                "a multiple of 3 heads");
    expect_text(attend(SHAPE(1, 4, 10), SHAPE(1, 5, 10), 2, 1),
                "recipe.lua:15: attention: (1, 4, 10), (1, 5, 10) and (1, 5, 10): causal attention "
                "needs as many queries as keys");
    burin_node *in[] = { LEAF(2, 4, 30), LEAF(30), LEAF(30) };
    expect_text(burin_call(f.g, "group_norm", in, 3, NULL, 0, NULL, 0),
                "recipe.lua:15: group_norm: (2, 4, 30), (30) and (30): 30 channels are not a "
                "multiple of 32 groups");
    expect_text(binary("embedding", LEAF(5), LEAF(2)),
                "recipe.lua:15: embedding: (5) and (2): input 1 must have 2 dims");
    expect_text(unary("geglu", LEAF(3, 5)),
                "recipe.lua:15: geglu: (3, 5): the last dim must be even");
    expect_text(
        shaped("broadcast", LEAF(1), SHAPE(65536, 65536)),
        "recipe.lua:15: broadcast: the result would be (65536, 65536): 2^32 elements or more");
}

static void test_call_messages(void **state)
{
    (void)state;
    expect_text(unary("sofmax", LEAF(3)),
                "recipe.lua:15: there is no op 'sofmax'; did you mean 'softmax'?");
    expect_text(unary("assign", LEAF(3)),
                "recipe.lua:15: 'assign' has a function of its own (burin_assign)");
    expect_text(unary("add", LEAF(3)), "recipe.lua:15: add: takes 2 inputs, got 1");
    expect_text(burin_call(f.g, "exp", (burin_node *[]){ NULL }, 1, NULL, 0, NULL, 0),
                "recipe.lua:15: exp: input 1 is missing");
    expect_text(call("scale", LEAF(3), NULL, (double[]){ 1, 2 }, 2),
                "recipe.lua:15: scale: takes at most 1 attribute (\"by:f\"), got 2");
    expect_text(call("scale", LEAF(3), NULL, (double[]){ NAN }, 1),
                "recipe.lua:15: scale: by is not a number");
    expect_text(call("conv2d", LEAF(1, 8, 8, 3), LEAF(3, 3, 3, 8), (double[]){ 1.5 }, 1),
                "recipe.lua:15: conv2d: stride must be a whole number, got 1.5");
    expect_text(call("matmul", LEAF(3, 3), LEAF(3, 3), (double[]){ 2 }, 1),
                "recipe.lua:15: matmul: ta must be true or false, got 2");
    expect_text(unary("reshape", LEAF(3)), "recipe.lua:15: reshape: needs a target shape");
    expect_text(shaped("exp", LEAF(3), SHAPE(3)), "recipe.lua:15: exp: takes no target shape");
    expect_text(unary("cast", LEAF(3)), "recipe.lua:15: cast: (3): needs a type");
    expect_text(unary("exp", fixture_leaf(&f, BURIN_I32, SHAPE(3))),
                "recipe.lua:15: exp: input 1 is i32; only ids of an embedding may be");
    expect_text(burin_part(unary("exp", LEAF(3)), 1),
                "recipe.lua:15: part: exp has 1 output, there is no part 1");
    burin_node *x = LEAF(3);
    expect_text(burin_assign(f.g, x->var, LEAF(4)),
                "recipe.lua:15: assign: v is (3), the value is (4)");
    x = LEAF(3);
    expect_text(burin_call(f.g, "sgd", (burin_node *[]){ unary("exp", x), x, x, x, x }, 5, NULL, 0,
                           NULL, 0),
                "recipe.lua:15: sgd: (3), (3), (3), (3) and (3): parameters and state must be an "
                "f32 variable of at least 1 elements");
    expect_text(shaped("randn", LEAF(3), SHAPE(4)),
                "recipe.lua:15: randn: (3): the input is the control block, 24 words of f32");
}

static void test_first_error_wins(void **state)
{
    (void)state;
    burin_node *x = LEAF(2, 3), *bad = binary("add", x, LEAF(4)), *dx = x;
    char *first = str_dup(burin_graph_error(f.g));
    assert_null(bad);
    assert_null(unary("exp", bad));
    assert_null(unary("exp", x));
    assert_null(burin_part(bad, 1));
    assert_null(burin_assign(f.g, x->var, bad));
    assert_false(burin_backward(f.g, x, NULL, &x, &dx, 1));
    assert_null(dx);
    assert_string_equal(burin_graph_error(f.g), first);
    assert_string_equal(burin_error(), first);
    mem_free(first);
    assert_null(burin_call(NULL, "exp", &x, 1, NULL, 0, NULL, 0));
    burin_graph_destroy(NULL);
}

/* ---- gradients ------------------------------------------------------------------------------- */

static void test_backward_messages(void **state)
{
    (void)state;
    burin_node *x = LEAF(3), *dx;
    assert_false(burin_backward(f.g, unary("exp", x), NULL, &x, &dx, 1));
    assert_string_equal(burin_error(), "recipe.lua:15: backward: the loss must be a scalar");
}

/* A frozen weight gets no gradient, and what nobody wants is not computed. */
static void test_only_wanted(void **state)
{
    (void)state;
    burin_node *x = LEAF(2, 3, 5), *frozen = LEAF(5, 7), *w = LEAF(7, 4), *apart = LEAF(3), *out[2];
    burin_node *h = unary("exp", binary("matmul", x, frozen)),
               *loss = total(binary("matmul", h, w));
    assert_true(burin_backward(f.g, loss, NULL, (burin_node *[]){ w, apart }, out, 2));
    assert_non_null(out[0]);
    assert_null(out[1]);
    assert_int_equal(nodes_of(OP_matmul), 3); /* two forward and dw: no gradient of h */
    assert_int_equal(nodes_of(OP_exp), 1);
}

/* (2, 3, 5) x (5, 7): the weight's gradient is one product of 6 rows. */
static void test_flat_product(void **state)
{
    (void)state;
    burin_node *x = LEAF(2, 3, 5), *w = LEAF(5, 7), *dw;
    assert_true(burin_backward(f.g, total(binary("matmul", x, w)), NULL, &w, &dw, 1));
    assert_int_equal(dw->op, OP_matmul);
    assert_true(shape_equal(&dw->in[0]->shape, &SHAPE(6, 5)) &&
                shape_equal(&dw->in[1]->shape, &SHAPE(6, 7)));
}

static void test_gradient_types(void **state)
{
    (void)state;
    burin_node *x = HALF(2, 3, 5), *w = LEAF(5, 7), *bias = LEAF(7), *gain = LEAF(3, 1), *out[4];
    burin_node *y = binary("mul", binary("add", binary("matmul", x, w), bias), gain);
    assert_int_equal(y->dtype, BURIN_F16);
    burin_node *loss = burin_call(f.g, "sum_to", &y, 1, NULL, 0, &SCALAR, BURIN_F32);
    assert_true(burin_backward(f.g, loss, NULL, (burin_node *[]){ x, w, bias, gain }, out, 4));
    assert_true(out[0]->dtype == BURIN_F16 && out[0]->op == OP_matmul);
    assert_true(out[1]->dtype == BURIN_F32 &&
                out[1]->op == OP_matmul); /* stored by the product itself */
    assert_true(out[2]->dtype == BURIN_F32 && out[2]->op == OP_sum_to);
    assert_true(out[3]->dtype == BURIN_F32 && shape_equal(&out[3]->shape, &gain->shape));
    assert_int_equal(nodes_of(OP_cast), 0);
}

static void test_shared_work(void **state)
{
    (void)state;
    burin_node *q = LEAF(1, 4, 6), *k = LEAF(1, 5, 6), *v = LEAF(1, 5, 6), *out[3];
    burin_node *y =
        burin_call(f.g, "attention", (burin_node *[]){ q, k, v }, 3, (double[]){ 2 }, 1, NULL, 0);
    assert_true(fabs(y->at[2] - 1 / sqrt(3)) < 1e-15); /* scale 0 means D^-0.5 */
    assert_true(burin_backward(f.g, total(y), NULL, (burin_node *[]){ q, k, v }, out, 3));
    assert_true(nodes_of(OP_attention_delta) == 1 && nodes_of(OP_attention_dq) == 1 &&
                nodes_of(OP_attention_dkv) == 1);
    burin_node *loss = total(
        burin_call(f.g, "attention", (burin_node *[]){ q, k, v }, 3, (double[]){ 2 }, 1, NULL, 0));
    assert_true(burin_backward(f.g, loss, NULL, &q, out, 1));
    assert_int_equal(nodes_of(OP_attention_dkv), 1); /* frozen keys and values add none */

    burin_node *x = LEAF(2, 8), *gamma = LEAF(8), *beta = LEAF(8);
    y = burin_call(f.g, "layer_norm", (burin_node *[]){ x, gamma, beta }, 3, NULL, 0, NULL, 0);
    assert_true(burin_backward(f.g, total(y), NULL, (burin_node *[]){ gamma, beta }, out, 2));
    assert_true(nodes_of(OP_layer_norm_dx) == 0 && nodes_of(OP_layer_norm_dw) == 1);
}

/* loss = sum(x^3 + x * detach(x)), made of one x used many times; then the gradient of its
 * gradient. */
static void test_values(void **state)
{
    (void)state;
    burin_node *x = LEAF(3), *scale = LEAF(1), *dx, *ddx, *part;
    double *v = fixture_value(&f, x);
    v[0] = 0.5, v[1] = -1.5, v[2] = 2;
    *fixture_value(&f, scale) = 8;
    burin_node *loss = total(
        binary("add", binary("mul", x, binary("mul", x, x)), binary("mul", x, unary("detach", x))));
    assert_true(burin_backward(f.g, loss, scale, &x, &dx, 1));
    int forward = f.g->forward_count;
    assert_true(burin_backward(f.g, total(unary("square", dx)), NULL, &x, &ddx, 1));
    assert_int_equal(f.g->forward_count, forward); /* set by the first backward only */
    assert_true(burin_backward(f.g, loss, NULL, &loss, &part, 1));
    assert_true(reference_run(f.r, f.g));
    for (int i = 0; i < 3; i++) {
        double g = 3 * v[i] * v[i] + v[i];
        assert_true(fabs(reference_value(f.r, dx, 0)[i] - 8 * g) < 1e-12);
        assert_true(fabs(reference_value(f.r, ddx, 0)[i] - 64 * 2 * g * 6 * v[i]) < 1e-9);
    }
    assert_true(*reference_value(f.r, part, 0) == 1);
}

static void test_lines(void **state)
{
    (void)state;
    burin_node *x = LEAF(3), *dx;
    burin_graph_where(f.g, "model.lua:3");
    burin_node *y = unary("sin", x);
    burin_graph_where(f.g, "loss.lua:9");
    burin_node *loss = total(y);
    assert_true(burin_backward(f.g, loss, NULL, &x, &dx, 1));
    assert_string_equal(dx->where, "model.lua:3");
    assert_string_equal(unary("exp", x)->where, "loss.lua:9");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_table),
        TEST(test_nodes),
        TEST(test_regions),
        TEST(test_shape_messages),
        TEST(test_call_messages),
        TEST(test_first_error_wins),
        TEST(test_backward_messages),
        TEST(test_only_wanted),
        TEST(test_flat_product),
        TEST(test_gradient_types),
        TEST(test_shared_work),
        TEST(test_values),
        TEST(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
