#version 450
// SPDX-License-Identifier: MIT
// reduce_rows.comp - x (rows, width) to y (rows, chunks): sums, or sums of squares, of `length` neighbours. One
// subgroup per output; a further pass adds the chunks up.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // width and length are multiples of 4
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool SQUARES = false;
layout(push_constant) uniform Push { uint count, width, chunks, length_, groups; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

void main()
{
    // Each workgroup takes further outputs in turn, so a subgroup size other than expected only costs time.
    for (uint i = group_number() * gl_NumSubgroups + gl_SubgroupID; i < count; i += groups * gl_NumSubgroups) {
        uint row = i / chunks, begin = (i - row * chunks) * length_, end = min(begin + length_, width);
        vec4 sum = vec4(0.0);
        if (WIDE) {
            for (uint j = (row * width + begin) / 4 + gl_SubgroupInvocationID; j < (row * width + end) / 4;
                 j += gl_SubgroupSize) {
                vec4 v = x_at4(j);
                sum += SQUARES ? v * v : v;
            }
        } else {
            for (uint j = begin + gl_SubgroupInvocationID; j < end; j += gl_SubgroupSize) {
                float v = x_at(row * width + j);
                sum.x += SQUARES ? v * v : v;
            }
        }
        float total = subgroupAdd((sum.x + sum.y) + (sum.z + sum.w));
        if (subgroupElect()) y_set(i, total);
    }
}
