/* SPDX-License-Identifier: MIT
 * test_gpu.c - the gpu layer on the null device and on the machine's default device with validation
 * (skipped where there is none). Kernel: shaders/selftest.comp. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* base.h has its own */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "burin.h"
#include "gpu/gpu_internal.h"
#include "graph/shader.h"

#define N 1000u
#define BYTES (4u * N)

static char cache[] = "/tmp/burin-gpu-XXXXXX";

struct push {
    uint32_t n;
    float step;
};

static struct gpu_span span(struct gpu_buffer *b, uint64_t offset, uint64_t bytes)
{
    return (struct gpu_span){ b, offset, bytes };
}

/* The kernel of SELFTEST_ADD and SELFTEST_STEP over n floats. */
static struct gpu_dispatch make_call(struct gpu_device *d, uint32_t mode, uint32_t scale,
                                     uint32_t n, float step, struct gpu_span y, struct gpu_span a,
                                     struct gpu_span b)
{
    uint32_t spec[2] = { mode, scale };
    struct push push = { n, step };
    struct gpu_dispatch c = { .kernel = gpu_kernel_get(d, "selftest", spec, 2),
                              .bind = { y, a, b },
                              .n_bind = 3,
                              .writes = 1,
                              .push_bytes = sizeof push,
                              .groups = { (n + 63) / 64, 1, 1 },
                              .label = "selftest" };
    memcpy(c.push, &push, sizeof push);
    assert_non_null(c.kernel);
    return c;
}

static struct gpu_device *open_device(void **state)
{
    struct gpu_device *d = *state;
    if (!d) skip();
    return d;
}

static void add_step(struct gpu_program *p, struct gpu_device *d, struct gpu_span y,
                     struct gpu_span other)
{
    struct gpu_dispatch c = make_call(d, SELFTEST_STEP, 0, N, 1, y, other, other);
    assert_true(gpu_program_dispatch(p, &c));
}

static void test_arithmetic(void **state)
{
    struct gpu_device *d = open_device(state);
    struct gpu_buffer *b = gpu_buffer_create(d, 4 * 4096, "numbers");
    float in[N], out[N];
    uint16_t half[N];
    struct gpu_span y = span(b, 0, BYTES), a = span(b, 4096, BYTES), h = span(b, 8192, BYTES);
    struct gpu_span zero = span(b, 12288, BYTES);
    assert_non_null(b);
    assert_true(gpu_read(d, y, out));
    for (uint32_t i = 0; i < N; i++) {
        assert_true(out[i] == 0);
        in[i] = (float)i * 0.25f;
    }
    assert_true(gpu_write(d, a, in));
    struct gpu_program *p = gpu_program_create(d, "arithmetic");
    struct gpu_dispatch add = make_call(d, SELFTEST_ADD, 3, N, 0, y, a, a);
    struct gpu_dispatch round = make_call(d, SELFTEST_HALF, 0, N, 0, h, a, zero);
    assert_true(gpu_program_dispatch(p, &add));
    assert_true(gpu_program_dispatch(p, &round));
    assert_true(gpu_program_finish(p));
    assert_int_equal(p->n_barriers, 0);
    assert_true(gpu_program_submit(p));
    assert_true(gpu_read(d, y, out));
    assert_true(gpu_read(d, span(b, 8192, 2 * N), half));
    for (uint32_t i = 0; i < N; i++) {
        assert_true(out[i] == in[i] * 4);
        assert_int_equal(half[i], f32_to_f16(in[i]));
    }
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
}

/* A chain of dependent increments, replayed, two in flight. */
static void test_chain(void **state)
{
    struct gpu_device *d = open_device(state);
    struct gpu_buffer *b = gpu_buffer_create(d, 8192, "chain");
    struct gpu_span y = span(b, 0, BYTES), other = span(b, 4096, BYTES);
    struct gpu_program *p = gpu_program_create(d, "chain");
    for (int i = 0; i < 100; i++) add_step(p, d, y, other);
    assert_true(gpu_program_finish(p));
    assert_int_equal(p->n_barriers, 99);
    assert_int_equal(gpu_program_count(p), 100);
    int allocations = gpu_device_allocations(d);
    for (int i = 0; i < 5; i++) assert_true(gpu_program_submit(p));
    float out[N];
    assert_true(gpu_read(d, y, out));
    for (uint32_t i = 0; i < N; i++) assert_true(out[i] == 500);
    double seconds[100] = { 0 };
    assert_true(gpu_program_profile(p, seconds));
    double sum = 0;
    for (int i = 0; i < 100; i++) {
        assert_true(seconds[i] >= 0 && seconds[i] < 1);
        sum += seconds[i];
    }
    assert_true(sum > 0);
    print_message("profile: %.2f us per dispatch\n", sum * 1e4);
    assert_true(gpu_read(d, y, out));
    assert_true(out[N - 1] == 600);
    assert_int_equal(gpu_device_allocations(d), allocations);
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
}

/* Every kind of hazard between fills, copies and dispatches, across several command buffers,
 * submitted as on a GPU: chunks measured one by one, then packed. */
static void test_transfers(void **state)
{
    struct gpu_device *d = open_device(state);
    struct gpu_buffer *b = gpu_buffer_create(d, 3 * 4096, "transfers");
    struct gpu_span x = span(b, 0, BYTES), y = span(b, 4096, BYTES), z = span(b, 8192, BYTES);
    struct gpu_program *p = gpu_program_create(d, "transfers");
    double chunk = d->chunk_flops;
    enum gpu_type type = d->caps.type;
    d->caps.type = GPU_TYPE_DISCRETE;
    d->chunk_flops = 50e6; /* two operations each */
    float one = 1, out[N];
    uint32_t word;
    memcpy(&word, &one, sizeof word);
    for (int i = 0; i < 3; i++) {
        assert_true(gpu_program_fill(p, x, word));
        add_step(p, d, x, z);                   /* x = 2 */
        assert_true(gpu_program_copy(p, y, x)); /* y = 2 */
        add_step(p, d, x, z);                   /* x = 3 after y was read from it */
        struct gpu_dispatch add = make_call(d, SELFTEST_ADD, 10, N, 0, z, x, y);
        assert_true(gpu_program_dispatch(p, &add)); /* z = 32 */
        assert_true(gpu_program_fill(p, y, 0));
    }
    assert_true(gpu_program_finish(p));
    assert_int_equal(p->n_chunks, 9);
    d->chunk_flops = chunk;
    for (int i = 0; i < 3; i++) assert_true(gpu_program_submit(p));
    d->caps.type = type;
    assert_true(p->chunks[8].seconds > 0);
    assert_true(gpu_read(d, z, out));
    assert_true(out[0] == 32 && out[N - 1] == 32);
    assert_true(gpu_read(d, y, out));
    assert_true(out[0] == 0);
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
}

static int doublings;

static bool host_double(const void *user, void *const *at)
{
    float *y = at[0];
    for (uint32_t i = 0; i < N; i++) y[i] *= 2;
    return ++doublings <= *(const int *)user || fail("no more");
}

/* Functions of the host between dispatches see what those wrote, and the other way round. */
static void test_host_calls(void **state)
{
    struct gpu_device *d = open_device(state);
    if (d->caps.type != GPU_TYPE_CPU) skip();
    struct gpu_buffer *b = gpu_buffer_create(d, 8192, "host");
    struct gpu_span y = span(b, 0, BYTES), other = span(b, 4096, BYTES);
    const int allowed = 4;
    struct gpu_dispatch twice = { .host = host_double,
                                  .user = &allowed,
                                  .user_bytes = sizeof allowed,
                                  .bind = { y },
                                  .n_bind = 1,
                                  .writes = 1,
                                  .label = "twice" };
    struct gpu_program *p = gpu_program_create(d, "host");
    add_step(p, d, y, other);
    assert_true(gpu_program_dispatch(p, &twice));
    add_step(p, d, y, other);
    assert_true(gpu_program_finish(p));
    assert_int_equal(gpu_program_count(p), 3);
    for (int i = 0; i < 3; i++) assert_true(gpu_program_submit(p)); /* y = 2 (y + 1) + 1 */
    float out[N];
    assert_true(gpu_read(d, y, out));
    assert_true(out[0] == 21 && out[N - 1] == 21);
    double seconds[3];
    assert_true(gpu_program_profile(p, seconds));
    assert_true(gpu_read(d, y, out));
    assert_true(out[0] == 45 && out[N - 1] == 45);
    assert_false(gpu_program_submit(p));
    assert_string_equal(burin_error(), "twice: no more");
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
}

/* A command buffer of most of a second is cut into shorter ones after its first run. */
static void test_long_submissions(void **state)
{
    struct gpu_device *d = open_device(state);
    const uint32_t many = 1 << 20;
    struct gpu_buffer *b = gpu_buffer_create(d, 8 * many, "long");
    struct gpu_span y = span(b, 0, 4 * many), other = span(b, 4 * many, 4 * many);
    struct gpu_dispatch step = make_call(d, SELFTEST_STEP, 0, many, 1, y, other, other);
    step.flops = 1e8; /* little, so that the budget does not cut it before */
    struct gpu_program *some = gpu_program_create(d, "some");
    double least = 1, chunk = d->chunk_flops;
    for (int i = 0; i < 64; i++) assert_true(gpu_program_dispatch(some, &step));
    assert_true(gpu_program_finish(some));
    for (int i = 0; i < 4; i++) { /* the least, since others may have the processor */
        double start = clock_seconds();
        assert_true(gpu_program_submit(some) && gpu_wait(d));
        double seconds = (clock_seconds() - start) / 64;
        if (seconds < least) least = seconds;
    }
    int n = 2 + (int)(0.6 / least), all = 4 * 64;
    enum gpu_type type = d->caps.type;
    d->caps.type = GPU_TYPE_DISCRETE;
    bool cut = false;
    for (int tries = 0; !cut && tries < 4; tries++, n *= 2) { /* it was measured too slow, then */
        struct gpu_program *p = gpu_program_create(d, "long");
        for (int i = 0; i < n; i++) assert_true(gpu_program_dispatch(p, &step));
        assert_true(gpu_program_finish(p));
        int before = p->n_chunks; /* 1, or more where so many operations are too many for one */
        for (int i = 0; i < 3; i++) assert_true(gpu_program_submit(p));
        cut = p->n_chunks > before;
        all += 3 * n;
        assert_true(gpu_wait(d));
        gpu_program_destroy(p);
    }
    assert_true(cut && d->chunk_flops < 1e8 * n);
    d->caps.type = type;
    d->chunk_flops = chunk;
    float *out = mem_alloc(4 * many);
    assert_true(gpu_read(d, y, out));
    assert_true(out[0] == (float)all && out[many - 1] == out[0]);
    mem_free(out);
    gpu_program_destroy(some);
    gpu_buffer_destroy(b);
}

/* The path of discrete cards: device memory that the host cannot see. */
static void test_staging(void **state)
{
    struct gpu_device *d = open_device(state);
    bool visible = d->caps.host_visible;
    d->caps.host_visible = false;
    const size_t bytes = (70u << 20) + 12;
    uint8_t *in = mem_alloc(bytes), *out = mem_alloc(bytes);
    struct gpu_buffer *b = gpu_buffer_create(d, bytes + 4, "staged");
    assert_non_null(b);
    assert_null(b->map);
    assert_true(gpu_read(d, span(b, 4, bytes), out));
    assert_memory_equal(in, out, bytes);
    for (size_t i = 0; i < bytes; i++) in[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_true(gpu_write(d, span(b, 4, bytes), in));
    assert_true(gpu_read(d, span(b, 4, bytes), out));
    assert_memory_equal(in, out, bytes);
    gpu_buffer_destroy(b);
    d->caps.host_visible = visible;
    mem_free(in);
    mem_free(out);
}

static void test_kernels(void **state)
{
    struct gpu_device *d = open_device(state);
    uint32_t spec[2] = { SELFTEST_ADD, 77 };
    struct gpu_kernel *k = gpu_kernel_get(d, "selftest", spec, 2);
    int n = gpu_kernel_count(d);
    assert_ptr_equal(gpu_kernel_get(d, "selftest", spec, 2), k);
    assert_int_equal(gpu_kernel_count(d), n);
    spec[1]++;
    assert_ptr_not_equal(gpu_kernel_get(d, "selftest", spec, 2), k);
    assert_int_equal(gpu_kernel_count(d), n + 1);
    assert_null(gpu_kernel_get(d, "no_such_shader", NULL, 0));
    assert_non_null(strstr(burin_error(), "no_such_shader"));
}

static void check_refused(struct gpu_program *p, struct gpu_dispatch c, const char *reason)
{
    assert_false(gpu_program_dispatch(p, &c));
    assert_non_null(strstr(burin_error(), "selftest"));
    assert_non_null(strstr(burin_error(), reason));
}

static void test_refusals(void **state)
{
    struct gpu_device *d = open_device(state);
    struct gpu_buffer *b = gpu_buffer_create(d, 8192, "refusals");
    struct gpu_program *p = gpu_program_create(d, "refusals");
    struct gpu_dispatch good = make_call(d, SELFTEST_STEP, 0, N, 1, span(b, 0, BYTES),
                                         span(b, 4096, BYTES), span(b, 4096, BYTES)),
                        c = good;
    uint64_t range = d->caps.max_range;
    c.groups[1] = d->caps.max_groups[1] + 1;
    check_refused(p, c, "workgroups in dimension 1");
    c = good, c.groups[2] = 0;
    check_refused(p, c, "workgroups in dimension 2");
    c = good, c.bind[1].offset = 2;
    check_refused(p, c, "binding 1: its offset 2");
    c = good, c.bind[2].bytes = 8192;
    check_refused(p, c, "binding 2: it covers bytes 4096 to 12288");
    d->caps.max_range = 256;
    check_refused(p, good, "can bind at once");
    d->caps.max_range = range;
    c = good, c.push_bytes = 132;
    check_refused(p, c, "push constants");
    c = good, c.n_bind = GPU_MAX_BINDINGS + 1;
    check_refused(p, c, "bindings");
    assert_false(gpu_program_copy(p, span(b, 0, 512), span(b, 256, 512)));
    assert_false(gpu_program_fill(p, span(b, 2, 8), 0));
    assert_false(gpu_program_submit(p));
    assert_true(gpu_program_finish(p));
    assert_true(gpu_program_submit(p)); /* an empty program is fine */
    assert_false(gpu_program_dispatch(p, &good));
    assert_int_equal(gpu_program_count(p), 0);
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
    assert_false(gpu_read(d, (struct gpu_span){ 0 }, &c));
}

static void test_out_of_memory(void **state)
{
    struct gpu_device *d = open_device(state);
    if (d->null) skip();
    uint64_t held = gpu_device_allocated(d);
    assert_null(gpu_buffer_create(d, (uint64_t)1 << 50, "the arena"));
    assert_non_null(strstr(burin_error(), "the arena"));
    assert_int_equal(gpu_device_allocated(d), held);
}

/* Reports what a dispatch costs the host and the driver; asserts nothing about speed. */
static void measure_dispatches(void **state)
{
    struct gpu_device *d = open_device(state);
    enum { COUNT = 2000 };
    struct gpu_buffer *b = gpu_buffer_create(d, 8192, "measure");
    struct gpu_program *p = gpu_program_create(d, "measure");
    struct gpu_span y = span(b, 0, 256), other = span(b, 4096, 256);
    struct gpu_dispatch c = make_call(d, SELFTEST_STEP, 0, 64, 1, y, other, other);
    double start = clock_seconds();
    for (int i = 0; i < COUNT; i++) assert_true(gpu_program_dispatch(p, &c));
    assert_true(gpu_program_finish(p));
    double recorded = clock_seconds();
    assert_true(gpu_program_submit(p) && gpu_wait(d));
    double first = clock_seconds();
    assert_true(gpu_program_submit(p) && gpu_wait(d));
    double second = clock_seconds();
    print_message("%s: record %.2f us, run %.2f us (first %.2f us) per dispatch with barrier\n",
                  d->caps.name, (recorded - start) / COUNT * 1e6, (second - first) / COUNT * 1e6,
                  (first - recorded) / COUNT * 1e6);
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
}

static void test_clean(void **state)
{
    assert_int_equal(gpu_validation_count(open_device(state)), 0);
}

static void test_null_buffers(void **state)
{
    struct gpu_device *d = open_device(state);
    struct gpu_buffer *b = gpu_buffer_create(d, 100, "host");
    char in[100], out[100];
    memset(in, 7, sizeof in);
    assert_true(gpu_write(d, span(b, 0, 100), in));
    assert_true(gpu_read(d, span(b, 0, 100), out));
    assert_memory_equal(in, out, 100);
    assert_int_equal(gpu_device_allocated(d), 256);
    gpu_buffer_destroy(b);
    assert_int_equal(gpu_device_allocated(d), 0);
    assert_int_equal(gpu_device_caps(d)->type, GPU_TYPE_NULL);
}

static void test_null_program(void **state)
{
    struct gpu_device *d = open_device(state);
    struct gpu_buffer *b = gpu_buffer_create(d, 3 * 4096, "x");
    struct gpu_span x = span(b, 0, BYTES), y = span(b, 4096, BYTES), z = span(b, 8192, BYTES);
    struct gpu_program *p = gpu_program_create(d, "null");
    add_step(p, d, x, z);
    add_step(p, d, y, z); /* independent */
    assert_true(gpu_program_copy(p, z, x));
    assert_true(gpu_program_fill(p, y, 0)); /* ordered by the barrier before the copy */
    add_step(p, d, x, y);
    assert_true(gpu_program_finish(p));
    assert_int_equal(p->n_barriers, 2);
    assert_int_equal(gpu_program_count(p), 3);
    double seconds[3];
    assert_true(gpu_program_submit(p) && gpu_wait(d) && gpu_program_profile(p, seconds));
    gpu_program_destroy(p);
    gpu_buffer_destroy(b);
}

static int null_setup(void **state)
{
    *state = gpu_device_create(&(struct gpu_device_params){ .name = "null" });
    return *state ? 0 : -1;
}

static int real_setup(void **state)
{
    struct gpu_caps caps[8];
    int n = gpu_device_list(caps, 8);
    for (int i = 0; i < n && i < 8; i++)
        print_message("device %d: %s, %s, %s, subgroup %u\n", i, caps[i].name, caps[i].driver,
                      caps[i].api, caps[i].subgroup);
    if (n <= 0) return 0;
    const char *bare = getenv("BURIN_TEST_NO_VALIDATION");
    struct gpu_device_params params = { .validate = !bare, .cache = cache };
    *state = gpu_device_create(&params);
    if (!*state) print_message("%s\n", burin_error());
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    gpu_device_destroy(*state);
    return 0;
}

static int cached_setup(void **state)
{
    if (gpu_device_list(NULL, 0) <= 0) return 0;
    /* Damage the file that the last device left: it must be ignored. */
    char command[128];
    snprintf(command, sizeof command, "for f in %s/*.bin; do printf x >> $f; done", cache);
    if (system(command) != 0) return -1;
    *state = gpu_device_create(&(struct gpu_device_params){ .cache = cache });
    return *state ? 0 : -1;
}

static void test_names(void **state)
{
    (void)state;
    if (gpu_device_list(NULL, 0) <= 0) skip();
    assert_null(gpu_device_create(&(struct gpu_device_params){ .name = "Voodoo 2", .cache = "" }));
    assert_non_null(strstr(burin_error(), "Voodoo 2"));
    assert_null(gpu_device_create(&(struct gpu_device_params){ .name = "99", .cache = "" }));
    setenv("BURIN_DEVICE", "null", 1);
    struct gpu_device *d = gpu_device_create(NULL);
    assert_string_equal(gpu_device_caps(d)->name, "null");
    unsetenv("BURIN_DEVICE");
    gpu_device_destroy(d);
    gpu_device_destroy(NULL);
    gpu_buffer_destroy(NULL);
    gpu_program_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest null_tests[] = {
        cmocka_unit_test(test_null_buffers),
        cmocka_unit_test(test_null_program),
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_refusals),
    };
    const struct CMUnitTest real_tests[] = {
        cmocka_unit_test(test_arithmetic),       cmocka_unit_test(test_chain),
        cmocka_unit_test(test_transfers),        cmocka_unit_test(test_staging),
        cmocka_unit_test(test_long_submissions), cmocka_unit_test(test_host_calls),
        cmocka_unit_test(test_kernels),          cmocka_unit_test(test_refusals),
        cmocka_unit_test(measure_dispatches),    cmocka_unit_test(test_clean),
        cmocka_unit_test(test_out_of_memory),
    };
    const struct CMUnitTest cached_tests[] = {
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(measure_dispatches),
        cmocka_unit_test(test_names),
    };
    char command[128];
    if (!mkdtemp(cache)) return 1;
    int failed = cmocka_run_group_tests(null_tests, null_setup, teardown);
    failed += cmocka_run_group_tests(real_tests, real_setup, teardown);
    failed += cmocka_run_group_tests(cached_tests, cached_setup, teardown);
    snprintf(command, sizeof command, "rm -r %s", cache);
    return system(command) ? 1 : failed;
}
