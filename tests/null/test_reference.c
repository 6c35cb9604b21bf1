/* SPDX-License-Identifier: MIT
 * test_reference.c - numbers of the float64 interpreter that no gradient test reaches: random
 * numbers, the optimizer, rounding, views and assigns. Expected values were worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */

#include "graph/control.h"
#include "ops/fixture.h"

static struct fixture f;

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

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-12 * fmax(1, fabs(b)))) print_error("%.17g, expected %.17g\n", a, b);
    assert_true(fabs(a - b) <= 1e-12 * fmax(1, fabs(b)));
}

static burin_node *draw(const char *op, burin_node *control, const double *at, int n_at, int64_t n)
{
    return burin_call(f.g, op, &control, 1, at, n_at, &SHAPE(n), 0);
}

static void test_random(void **state)
{
    enum { N = 20000 };
    (void)state;
    burin_node *control = fixture_leaf(&f, BURIN_F32, SHAPE(CONTROL_WORDS));
    burin_node *normal = draw("randn", control, (double[]){ 3 }, 1, N),
               *uniform = draw("rand", control, (double[]){ 4 }, 1, N);
    burin_node *whole = draw("randint", control, (double[]){ 5, -2, 3 }, 3, N),
               *again = draw("randn", control, (double[]){ 3 }, 1, 5);
    fixture_value(&f, control)[CONTROL_SEED_LO] = 4000000001.0;
    fixture_value(&f, control)[CONTROL_STEP] = 2;
    assert_true(reference_run(f.r, f.g));
    const double *x = reference_value(f.r, normal, 0), *u = reference_value(f.r, uniform, 0),
                 *w = reference_value(f.r, whole, 0);
    double mean = 0, square = 0, middle = 0, count[5] = { 0 };
    for (int i = 0; i < N; i++) {
        mean += x[i] / N;
        square += x[i] * x[i] / N;
        middle += u[i] / N;
        assert_true(u[i] >= 0 && u[i] < 1 && w[i] >= -2 && w[i] < 3 && w[i] == floor(w[i]));
        count[(int)w[i] + 2]++;
    }
    assert_true(fabs(mean) < 0.03 && fabs(square - 1) < 0.04 && fabs(middle - 0.5) < 0.01);
    for (int i = 0; i < 5; i++) assert_true(fabs(count[i] / N - 0.2) < 0.015);
    for (int i = 0; i < 5; i++) near(reference_value(f.r, again, 0)[i], x[i]);

    uint32_t word[4];
    philox((uint32_t[]){ 1, 4, 2, 0 }, (uint32_t[]){ 4000000001u, 0 }, word);
    near(u[6], (word[2] >> 8) / 16777216.0);
}

static void test_adamw(void **state)
{
    (void)state;
    burin_node *leaf[6];
    for (int i = 0; i < 6; i++)
        leaf[i] = fixture_leaf(&f, BURIN_F32, i < 4 ? SHAPE(1) : SHAPE(CONTROL_WORDS));
    double *p = fixture_value(&f, leaf[0]), *control = fixture_value(&f, leaf[4]),
           *amp = fixture_value(&f, leaf[5]);
    assert_non_null(burin_call(f.g, "adamw", leaf, 6, NULL, 0, NULL, 0));
    *p = 1, *fixture_value(&f, leaf[1]) = 1, control[CONTROL_LR] = 0.1, amp[AMP_STEP] = 1,
    amp[AMP_FACTOR] = 0.5;
    assert_true(reference_run(f.r, f.g));
    near(*p, 0.999 - 0.1 * 0.5 / (0.5 + 1e-8));
    near(*fixture_value(&f, leaf[2]), 0.05);
    near(*fixture_value(&f, leaf[3]), 0.00025);
    amp[AMP_FACTOR] = 0; /* a skipped step changes nothing */
    double before = *p;
    assert_true(reference_run(f.r, f.g));
    assert_true(*p == before);
}

static void test_sgd(void **state)
{
    (void)state;
    burin_node *leaf[5];
    for (int i = 0; i < 5; i++)
        leaf[i] = fixture_leaf(&f, BURIN_F32, i < 3 ? SHAPE(1) : SHAPE(CONTROL_WORDS));
    double *p = fixture_value(&f, leaf[0]);
    assert_non_null(burin_call(f.g, "sgd", leaf, 5, (double[]){ 1, 0.9, 0.1 }, 3, NULL, 0));
    *p = 2, *fixture_value(&f, leaf[1]) = 1, fixture_value(&f, leaf[3])[CONTROL_LR + 1] = 0.5,
    fixture_value(&f, leaf[4])[AMP_FACTOR] = 1;
    assert_true(reference_run(f.r, f.g));
    near(*p, 2 - 0.5 * 1.2);
    assert_true(reference_run(f.r, f.g));
    near(*p, 1.4 - 0.5 * (0.9 * 1.2 + 1 + 0.14));
}

static void test_grad_factor(void **state)
{
    (void)state;
    burin_node *total = fixture_leaf(&f, BURIN_F32, SCALAR),
               *block = fixture_leaf(&f, BURIN_F32, SHAPE(AMP_WORDS)),
               *loss = fixture_leaf(&f, BURIN_F32, SCALAR);
    double *amp = fixture_value(&f, block);
    assert_non_null(burin_call(f.g, "grad_factor", (burin_node *[]){ total, block, loss }, 3,
                               (double[]){ 1 }, 1, NULL, 0));
    amp[AMP_SCALE] = 4, amp[AMP_GROWTH] = 2, *fixture_value(&f, total) = 64;
    assert_true(reference_run(f.r, f.g));
    near(amp[AMP_NORM], 2);
    near(amp[AMP_FACTOR], 1 / (2 + 1e-6) / 4);
    assert_true(amp[AMP_STEP] == 1 && amp[AMP_GOOD] == 1 && amp[AMP_SCALE] == 4);
    assert_true(reference_run(f.r, f.g));
    assert_true(amp[AMP_STEP] == 2 && amp[AMP_GOOD] == 0 && amp[AMP_SCALE] == 8);
    *fixture_value(&f, total) = INFINITY;
    assert_true(reference_run(f.r, f.g));
    assert_true(amp[AMP_STEP] == 2 && amp[AMP_SKIPPED] == 1 && amp[AMP_SCALE] == 4 &&
                amp[AMP_FACTOR] == 0);
    *fixture_value(&f, total) = 1, *fixture_value(&f, loss) = NAN;
    assert_true(reference_run(f.r, f.g));
    assert_true(amp[AMP_STEP] == 2 && amp[AMP_SKIPPED] == 2 && amp[AMP_FACTOR] == 0);
}

static void test_storage(void **state)
{
    (void)state;
    struct fixture h;
    fixture_init(&h, true);
    burin_node *x = fixture_leaf(&h, BURIN_F32, SHAPE(2, 3)),
               *y = burin_call(h.g, "cast", &x, 1, NULL, 0, NULL, BURIN_BF16);
    burin_var whole = { .name = "whole", .dtype = BURIN_F16, .shape = SHAPE(16) };
    burin_var view = {
        .name = "view",
        .dtype = BURIN_F16,
        .shape = SHAPE(2, 3),
        .parent = &whole,
        .offset = 8,
    };
    fixture_fill(&h, x, -1, 1);
    fixture_value(&h, x)[0] = 1.0 / 3;
    assert_non_null(burin_assign(h.g, &view, x));
    assert_true(reference_run(h.r, h.g));
    assert_true(*reference_value(h.r, y, 0) == 0.333984375);      /* 171 / 512: 8 bits */
    assert_true(reference_var(h.r, &whole)[4] == 0.333251953125); /* 1365 / 4096: 11 bits */
    assert_true(*fixture_value(&h, x) == (double)(1.0f / 3));
    fixture_finish(&h);
}

/* Two ones under a 2 x 2 kernel of 1 2 3 4 with a zero column on the left; cos(0), sin(0) of step
 * 0. */
static void test_rows(void **state)
{
    (void)state;
    burin_node *x = fixture_leaf(&f, BURIN_F32, SHAPE(1, 2, 1, 1)),
               *w = fixture_leaf(&f, BURIN_F32, SHAPE(2, 2, 1, 1)),
               *t = fixture_leaf(&f, BURIN_F32, SHAPE(2));
    burin_node *y = burin_call(f.g, "conv2d", (burin_node *[]){ x, w }, 2,
                               (double[]){ 1, 0, 1, 0, 0 }, 5, NULL, 0);
    burin_node *e = burin_call(f.g, "timestep_embedding", &t, 1, (double[]){ 4 }, 1, NULL, 0);
    for (int i = 0; i < 4; i++) fixture_value(&f, w)[i] = i + 1;
    fixture_value(&f, x)[0] = fixture_value(&f, x)[1] = 1;
    fixture_value(&f, t)[1] = 7;
    assert_true(reference_run(f.r, f.g));
    near(*reference_value(f.r, y, 0), 6);
    static const double zero[] = { 1, 1, 0, 0 };
    for (int i = 0; i < 4; i++) near(reference_value(f.r, e, 0)[i], zero[i]);
    near(reference_value(f.r, e, 0)[5], cos(7 / 100.0));
    near(reference_value(f.r, e, 0)[6], sin(7.0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random),      TEST(test_adamw),   TEST(test_sgd),
        TEST(test_grad_factor), TEST(test_storage), TEST(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
