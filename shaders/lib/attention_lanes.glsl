// SPDX-License-Identifier: MIT
// attention_lanes.glsl - what the CPU kernels of attention share. A workgroup is one subgroup of
// LANES invocations, numbered by gl_LocalInvocationIndex; it owns T rows of one head as splats in
// registers, and each lane runs over its own share of the other side's rows. So nothing crosses
// lanes inside the loop, and no load but the wide one of a lane's row. Include after attention.glsl.
#extension GL_KHR_shader_subgroup_basic : require
#include "wide.glsl"

layout(local_size_x_id = KERNEL_SPEC_OWN) in;
layout(constant_id = KERNEL_SPEC_OWN) const uint LANES = 8;
layout(constant_id = KERNEL_SPEC_OWN + 2) const uint T = 8;

// The lanes' results, (T, D4, LANES); private to the subgroup, so no workgroup barrier.
shared vec4 part[T * D4 * LANES];
void part_barrier()
{
    subgroupMemoryBarrierShared();
    subgroupBarrier();
}
vec4 part_sum(uint i)
{
    vec4 x = part[i * LANES];
    for (uint l = 1; l < LANES; l++) x += part[i * LANES + l];
    return x;
}

// WIDE_HEAD(b, name, DTb), with TENSOR and HEAD: name_load(i, row) reads the whole head that starts
// at element i.
#define WIDE_HEAD(b, name, dt) \
    WIDE(b, name, dt) \
    void name##_load(uint i, out vec4 row[D4]) \
    { \
        [[unroll]] for (uint d = 0; d < D4; d += 2) \
            if (D % 8 == 0) { \
                raw8 raw = name##_raw8(i + 4 * d); \
                row[d] = raw_value(dt, raw.lo); \
                row[d + 1] = raw_value(dt, raw.hi); \
            } else { \
                row[d] = name##_row(i, d); \
                if (d + 1 < D4) row[d + 1] = name##_row(i, d + 1); \
            } \
    }
