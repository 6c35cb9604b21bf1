/* SPDX-License-Identifier: MIT
 * test_gradient.c - every gradient rule of ops.def against central differences of the forward pass,
 * both in float64. A differentiable row without a case fails. The elementwise formulas are checked
 * against others here as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */

#include "ops/fixture.h"

#define TOLERANCE 1e-6

struct example {
    enum op_code op;
    burin_shape in[BURIN_MAX_INPUTS];
    double at[BURIN_MAX_ATTRS]; /* all attributes, no defaults */
    burin_shape to;
    double low, high; /* range of the inputs; 0, 0 = [-1, 1) */
    int ids;          /* input 1 holds whole numbers below it */
    burin_dtype dtype;
};

/* clang-format off */
static const struct example examples[] = {
    { .op = OP_neg, .in = { { 2, { 3, 5 } } } },
    { .op = OP_exp, .in = { { 2, { 3, 5 } } } },
    { .op = OP_log, .in = { { 1, { 7 } } }, .low = 0.5, .high = 3 },
    { .op = OP_sqrt, .in = { { 1, { 7 } } }, .low = 0.5, .high = 3 },
    { .op = OP_square, .in = { { 1, { 7 } } } },
    { .op = OP_abs, .in = { { 1, { 9 } } } },
    { .op = OP_sin, .in = { { 1, { 7 } } }, .low = -4, .high = 4 },
    { .op = OP_cos, .in = { { 1, { 7 } } }, .low = -4, .high = 4 },
    { .op = OP_tanh, .in = { { 1, { 7 } } }, .low = -2, .high = 2 },
    { .op = OP_one_minus, .in = { { 1, { 7 } } } },
    { .op = OP_reciprocal, .in = { { 1, { 7 } } }, .low = 0.5, .high = 2 },
    { .op = OP_scale, .in = { { 1, { 7 } } }, .at = { -1.5 } },
    { .op = OP_shift, .in = { { 1, { 7 } } }, .at = { 0.25 } },
    { .op = OP_clamp, .in = { { 1, { 31 } } }, .at = { -0.5, 0.25 } },
    { .op = OP_relu, .in = { { 1, { 9 } } } },
    { .op = OP_sigmoid, .in = { { 1, { 9 } } }, .low = -4, .high = 4 },
    { .op = OP_silu, .in = { { 1, { 9 } } }, .low = -4, .high = 4 },
    { .op = OP_quick_gelu, .in = { { 1, { 9 } } }, .low = -3, .high = 3 },
    { .op = OP_gelu, .in = { { 1, { 9 } } }, .low = -3, .high = 3 },

    { .op = OP_add, .in = { { 3, { 2, 3, 5 } }, { 1, { 5 } } } },
    { .op = OP_add, .in = { { 0 }, { 2, { 2, 3 } } } },
    { .op = OP_sub, .in = { { 2, { 3, 1 } }, { 3, { 2, 1, 5 } } } },
    { .op = OP_mul, .in = { { 4, { 2, 3, 4, 5 } }, { 4, { 2, 1, 1, 5 } } } },
    { .op = OP_mul, .in = { { 2, { 3, 5 } }, { 2, { 3, 5 } } } },
    { .op = OP_div, .in = { { 2, { 3, 5 } }, { 2, { 3, 1 } } }, .low = 0.5, .high = 2 },
    { .op = OP_minimum, .in = { { 2, { 3, 5 } }, { 1, { 5 } } } },
    { .op = OP_maximum, .in = { { 1, { 5 } }, { 2, { 3, 5 } } } },

    { .op = OP_reshape, .in = { { 2, { 3, 4 } } }, .to = { 3, { 2, 1, 6 } } },
    { .op = OP_cast, .in = { { 2, { 3, 4 } } }, .dtype = BURIN_F16 },
    { .op = OP_broadcast, .in = { { 2, { 3, 1 } } }, .to = { 3, { 2, 3, 5 } } },
    { .op = OP_permute, .in = { { 4, { 2, 3, 4, 5 } } }, .at = { 2, 0, 3, 1 } },
    { .op = OP_permute, .in = { { 3, { 2, 3, 4 } } }, .at = { 1, 2, 0 } },
    { .op = OP_slice, .in = { { 3, { 2, 5, 3 } } }, .at = { 1, 1, 4 } },
    { .op = OP_slice, .in = { { 3, { 2, 5, 3 } } }, .at = { -1, 0, 2 } },
    { .op = OP_pad, .in = { { 3, { 2, 5, 3 } } }, .at = { 1, 1, 2 } },
    { .op = OP_pad, .in = { { 2, { 2, 5 } } }, .at = { -1, 0, 3 } },
    { .op = OP_concat, .in = { { 3, { 2, 5, 3 } }, { 3, { 2, 2, 3 } } }, .at = { 1 } },
    { .op = OP_concat, .in = { { 2, { 2, 5 } }, { 2, { 2, 1 } } }, .at = { -1 } },
    { .op = OP_upsample, .in = { { 4, { 2, 2, 3, 2 } } }, .at = { 4, 6 } },
    { .op = OP_upsample, .in = { { 4, { 1, 3, 5, 2 } } }, .at = { 7, 3 } },
    { .op = OP_upsample_grad, .in = { { 4, { 2, 4, 5, 3 } } }, .at = { 2, 3 } },
    { .op = OP_embedding, .in = { { 2, { 5, 3 } }, { 2, { 2, 4 } } }, .ids = 5 },

    { .op = OP_sum_to, .in = { { 3, { 2, 3, 5 } } }, .to = { 2, { 3, 1 } } },
    { .op = OP_sum_to, .in = { { 2, { 3, 5 } } }, .to = { 0 } },
    { .op = OP_sum_squares, .in = { { 3, { 2, 3, 5 } } } },
    { .op = OP_softmax, .in = { { 2, { 3, 7 } } }, .low = -2, .high = 2 },

    { .op = OP_matmul, .in = { { 2, { 3, 5 } }, { 2, { 5, 4 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 2, { 5, 3 } }, { 2, { 5, 4 } } }, .at = { 1, 0 } },
    { .op = OP_matmul, .in = { { 2, { 3, 5 } }, { 2, { 4, 5 } } }, .at = { 0, 1 } },
    { .op = OP_matmul, .in = { { 2, { 5, 3 } }, { 2, { 4, 5 } } }, .at = { 1, 1 } },
    { .op = OP_matmul, .in = { { 3, { 2, 3, 5 } }, { 2, { 5, 4 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 4, { 2, 2, 3, 5 } }, { 2, { 4, 5 } } }, .at = { 0, 1 } },
    { .op = OP_matmul, .in = { { 3, { 2, 3, 5 } }, { 3, { 2, 5, 4 } } }, .at = { 0, 0 } },
    { .op = OP_matmul, .in = { { 3, { 2, 5, 3 } }, { 3, { 2, 5, 4 } } }, .at = { 1, 0 } },
    { .op = OP_matmul, .in = { { 3, { 2, 3, 5 } }, { 3, { 2, 4, 5 } } }, .at = { 0, 1 } },
    { .op = OP_matmul, .in = { { 4, { 2, 1, 5, 3 } }, { 4, { 2, 1, 4, 5 } } }, .at = { 1, 1 } },

    /* stride, top, left, bottom, right; then height, width or kh, kw */
    { .op = OP_conv2d, .in = { { 4, { 2, 5, 4, 3 } }, { 4, { 3, 3, 3, 2 } } },
      .at = { 1, 1, 1, 1, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 1, 5, 7, 2 } }, { 4, { 3, 3, 2, 3 } } },
      .at = { 2, 0, 0, 1, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 1, 6, 5, 2 } }, { 4, { 2, 3, 2, 1 } } },
      .at = { 3, 2, 0, 0, 1 } },
    { .op = OP_conv2d, .in = { { 4, { 1, 3, 3, 2 } }, { 4, { 1, 1, 2, 3 } } },
      .at = { 1, 0, 0, 0, 0 } },
    { .op = OP_conv2d_dx, .in = { { 4, { 1, 3, 4, 3 } }, { 4, { 3, 3, 2, 3 } } },
      .at = { 2, 0, 0, 1, 1, 6, 8 } },
    { .op = OP_conv2d_dx, .in = { { 4, { 1, 5, 4, 3 } }, { 4, { 3, 3, 2, 3 } } },
      .at = { 1, 1, 1, 1, 1, 5, 4 } },
    { .op = OP_conv2d_dw, .in = { { 4, { 1, 6, 8, 2 } }, { 4, { 1, 3, 4, 3 } } },
      .at = { 2, 0, 0, 1, 1, 3, 3 } },

    /* heads, causal, scale */
    { .op = OP_attention, .in = { { 3, { 2, 5, 6 } }, { 3, { 2, 5, 6 } }, { 3, { 2, 5, 6 } } },
      .at = { 2, 0, 0 } },
    { .op = OP_attention, .in = { { 3, { 2, 5, 6 } }, { 3, { 2, 5, 6 } }, { 3, { 2, 5, 6 } } },
      .at = { 2, 1, 0 } },
    { .op = OP_attention, .in = { { 3, { 1, 4, 15 } }, { 3, { 1, 7, 15 } }, { 3, { 1, 7, 15 } } },
      .at = { 3, 0, 0.7 } },

    { .op = OP_group_norm, .in = { { 4, { 2, 2, 3, 6 } }, { 1, { 6 } }, { 1, { 6 } } },
      .at = { 3, 1e-5 } },
    { .op = OP_group_norm, .in = { { 3, { 1, 5, 4 } }, { 1, { 4 } }, { 1, { 4 } } },
      .at = { 1, 1e-3 } },
    { .op = OP_layer_norm, .in = { { 3, { 2, 3, 7 } }, { 1, { 7 } }, { 1, { 7 } } },
      .at = { 1e-5 } },
    { .op = OP_geglu, .in = { { 3, { 2, 3, 10 } } }, .low = -2, .high = 2 },
};

static void want(bool ok)
{
    if (!ok) print_error("%s\n", burin_error());
    assert_true(ok);
}

/* clang-format on */

static burin_node *make_inputs(struct fixture *f, const struct example *e, burin_node **in)
{
    const struct op_row *row = op_at(e->op);
    bool set = e->low != 0 || e->high != 0;
    for (int i = 0; i < row->inputs; i++) {
        bool ids = e->ids && i == 1;
        in[i] = fixture_leaf(f, ids ? BURIN_I32 : BURIN_F32, e->in[i]);
        fixture_fill(f, in[i], ids ? 0 : set ? e->low : -1, ids ? e->ids : set ? e->high : 1);
        double *v = fixture_value(f, in[i]);
        for (int64_t k = 0; ids && k < burin_shape_count(&in[i]->shape); k++) v[k] = floor(v[k]);
    }
    return burin_call(f->g, row->name, in, row->inputs, e->at, row->n_attrs,
                      row->takes_shape ? &e->to : NULL, e->dtype);
}

/* loss = sum(y * w) with random weights w. */
static burin_node *make_loss(struct fixture *f, burin_node *y)
{
    if (!y) return NULL;
    burin_node *w = fixture_leaf(f, BURIN_F32, y->shape);
    fixture_fill(f, w, -1, 1);
    burin_node *product = burin_call(f->g, "mul", (burin_node *[]){ y, w }, 2, NULL, 0, NULL, 0);
    return burin_call(f->g, "sum_to", &product, 1, NULL, 0, &SCALAR, 0);
}

static double loss_at(struct fixture *f, const burin_node *loss, double *v, double value)
{
    double old = *v;
    *v = value;
    want(reference_run(f->r, f->g));
    *v = old;
    return *reference_value(f->r, loss, 0);
}

/* Largest error relative to the largest slope. */
static double gradient_error(const double *slope, const double *gradient, int64_t count)
{
    double error = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        error = fmax(error, isfinite(gradient[i]) ? fabs(slope[i] - gradient[i]) : INFINITY);
        largest = fmax(largest, fabs(slope[i]));
    }
    return largest > 0 ? error / largest : error;
}

static double run_example(const struct example *e)
{
    struct fixture f;
    burin_node *in[BURIN_MAX_INPUTS], *dx[BURIN_MAX_INPUTS];
    double *slope[BURIN_MAX_INPUTS] = { NULL }, worst = 0;
    const struct op_row *row = op_at(e->op);
    fixture_init(&f, false);
    burin_node *loss = make_loss(&f, make_inputs(&f, e, in));
    want(loss != NULL);
    for (int i = 0; i < row->inputs;
         i++) { /* before the backward pass is there: it would be run each time */
        double *v = fixture_value(&f, in[i]);
        int64_t count = burin_shape_count(&in[i]->shape);
        slope[i] = mem_alloc((size_t)count * sizeof(double));
        for (int64_t k = 0; k < count; k++) {
            double h = 1e-5, up = loss_at(&f, loss, v + k, v[k] + h);
            slope[i][k] = (up - loss_at(&f, loss, v + k, v[k] - h)) / (2 * h);
            if (e->ids && i == 1) break;
        }
    }
    want(burin_backward(f.g, loss, NULL, in, dx, row->inputs) && reference_run(f.r, f.g));
    for (int i = 0; i < row->inputs; i++) {
        int64_t count = burin_shape_count(&in[i]->shape);
        if (row->differentiable >> i & 1) {
            assert_non_null(dx[i]);
            assert_true(shape_equal(&dx[i]->shape, &in[i]->shape));
            worst = fmax(worst, gradient_error(slope[i], reference_value(f.r, dx[i], 0), count));
        } else {
            assert_null(dx[i]);
        }
        mem_free(slope[i]);
    }
    fixture_finish(&f);
    return worst;
}

static void test_rules(void **state)
{
    bool covered[OP_COUNT] = { false };
    int bad = 0;
    (void)state;
    for (int i = 0; i < COUNT_OF(examples); i++) {
        double error = run_example(&examples[i]);
        covered[examples[i].op] = true;
        if (error < TOLERANCE) continue;
        print_error("example %d, %s: relative error %g\n", i, op_at(examples[i].op)->name, error);
        bad++;
    }
    for (int i = 0; i < OP_COUNT; i++) {
        if (covered[i] || !op_at((enum op_code)i)->gradient) continue;
        print_error("%s is differentiable and has no example\n", op_at((enum op_code)i)->name);
        bad++;
    }
    assert_int_equal(bad, 0);
}

/* ---- formulas -------------------------------------------------------------------------------- */

static double silu(double x) { return x * (1 + tanh(x / 2)) / 2; }
static double quick_gelu(double x) { return x * (1 + tanh(0.851 * x)) / 2; }
static double gelu(double x) { return x * erfc(-x / sqrt(2)) / 2; }
static double sigmoid(double x) { return (1 + tanh(x / 2)) / 2; }

/* Richardson's five-point derivative, error h^4. */
static double slope_of(double (*f)(double), double x)
{
    double h = 1e-3;
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h);
}

static double unary(const char *op, double x)
{
    struct fixture f;
    fixture_init(&f, false);
    burin_node *leaf = fixture_leaf(&f, BURIN_F32, SCALAR);
    burin_node *y = burin_call(f.g, op, &leaf, 1, NULL, 0, NULL, 0);
    *fixture_value(&f, leaf) = x;
    assert_true(reference_run(f.r, f.g));
    double value = *reference_value(f.r, y, 0);
    fixture_finish(&f);
    return value;
}

static void test_formulas(void **state)
{
    static const struct {
        const char *op, *slope;
        double (*f)(double);
    } row[] = {
        { "silu", "silu_slope", silu },
        { "quick_gelu", "quick_gelu_slope", quick_gelu },
        { "gelu", "gelu_slope", gelu },
        { "sigmoid", NULL, sigmoid },
    };
    (void)state;
    for (int i = 0; i < COUNT_OF(row); i++) {
        for (double x = -6; x <= 6; x += 0.375) {
            assert_true(fabs(unary(row[i].op, x) - row[i].f(x)) < 1e-13);
            if (row[i].slope)
                assert_true(fabs(unary(row[i].slope, x) - slope_of(row[i].f, x)) < 1e-10);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rules),
                                        cmocka_unit_test(test_formulas) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
