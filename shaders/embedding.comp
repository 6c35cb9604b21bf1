#version 450
// SPDX-License-Identifier: MIT
// embedding.comp - y row i is row ids[i] of the table.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = 64) in;
layout(constant_id = 8) const bool WIDE = false;    // width is a multiple of 4
layout(push_constant) uniform Push { uint count, rows, width; CHAIN_PUSH };

#include "chain.glsl"
TENSOR(0, table, DT0)
#define IDS_BINDING 1
#define IDS_TYPE DT1
#include "ids.glsl"
TENSOR(2, y, DT2)

void main()
{
    uint i = group_number() * 64 + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    uint k = i / width;
    uint s = min(id_at(k), rows - 1) * width + i - k * width;  // a bad id must not read outside of the table
    if (WIDE) y_set4(i / 4, chain_apply4(table_at4(s / 4), i));
    else y_set(i, chain_apply(table_at(s), i));
}
