#version 450
// SPDX-License-Identifier: MIT
// embedding.comp - y row i is row ids[i] of the table, of which rows [first, first + block) are bound.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // width is a multiple of 4
layout(push_constant) uniform Push { uint count, rows, width, first, block; };

TENSOR(0, table, DT0)
TENSOR(1, y, DT1)
#define IDS_BINDING 2
#define IDS_TYPE DT2
#include "ids.glsl"

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    uint k = i / width;
    uint row = min(id_at(k), rows - 1) - first;  // a bad id must not read outside of the table
    if (row >= block) return;
    uint s = row * width + i - k * width;
    if (WIDE) y_set4(i / 4, table_at4(s / 4));
    else y_set(i, table_at(s));
}
