/* SPDX-License-Identifier: MIT
 * wrong.c - does what a kind of validation has to complain about, one thing: scripts/dev/validate
 * runs it first, since layers that watch nothing find nothing.
 *   ops_wrong core|sync|gpu
 * core: a device is destroyed before what was made of it. sync: a kernel writes what the next one
 * reads, and the first is said to write nothing, so that no barrier is put between. gpu: a kernel
 * reads and writes behind the end of what is bound, within the buffer. */
#include "burin.h"
#include "gpu/gpu.h"
#include "graph/shader.h"

#include <stdio.h>
#include <string.h>

enum { N = 1024, BYTES = 4 * N };

static struct gpu_device *device;

static struct gpu_dispatch add(struct gpu_buffer *to, struct gpu_buffer *from, uint64_t bound)
{
    const uint32_t spec[] = { SELFTEST_ADD, 1 }, n = N;
    struct gpu_dispatch c = { .kernel = gpu_kernel_get(device, "selftest", spec, 2),
                              .bind = { { to, 0, bound }, { from, 0, BYTES }, { from, 0, BYTES } },
                              .n_bind = 3,
                              .writes = 1,
                              .push_bytes = 8,
                              .groups = { N / KERNEL_GROUP, 1, 1 } };
    memcpy(c.push, &n, sizeof n);
    return c;
}

static bool run(struct gpu_program *p, bool lie, uint64_t bound)
{
    struct gpu_buffer *buffer[3];
    bool ok = true;
    for (int i = 0; i < 3; i++) ok = (buffer[i] = gpu_buffer_create(device, BYTES, "it")) && ok;
    for (int i = 0; i < 2 && ok; i++) {
        struct gpu_dispatch c = add(buffer[i + 1], buffer[i], bound);
        if (lie) c.writes = 0;
        ok = gpu_program_dispatch(p, &c);
    }
    ok = ok && gpu_program_finish(p) && gpu_program_submit(p) && gpu_wait(device);
    for (int i = 0; i < 3; i++) gpu_buffer_destroy(buffer[i]);
    return ok;
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
    device = gpu_device_create(&(struct gpu_device_params){ .cache = "" });
    struct gpu_program *p = device ? gpu_program_create(device, "wrong") : NULL;
    if (!p || !run(p, strcmp(kind, "sync") == 0, strcmp(kind, "gpu") == 0 ? BYTES / 2 : BYTES)) {
        fprintf(stderr, "%s\n", burin_error());
        return 1;
    }
    if (strcmp(kind, "core") != 0) gpu_program_destroy(p);
    gpu_device_destroy(device);
    return 0;
}
