#version 450
// SPDX-License-Identifier: MIT
// embedding_grad.comp - y row r is the sum of the rows of dy whose id is r, in their order. Ids are few and the table
// is large, so one dispatch fills y with zeros and a second one stores the rows that occur: the first occurrence of
// an id does the work for all. y is rows [first, first + block) of the table's gradient.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // width is a multiple of 4
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool FILL = false;
layout(push_constant) uniform Push { uint count, ids, width, first, block; };

#define IDS_BINDING 0
#define IDS_TYPE DT0
#include "ids.glsl"
TENSOR(1, y, DT1)
TENSOR(2, dy, DT2)

void store(uint i, vec4 v)
{
    if (WIDE) y_set4(i / 4, v);
    else y_set(i, v.x);
}

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationIndex;
    if (WIDE) i *= 4;
    if (i >= count) return;
    if (FILL) {
        store(i, vec4(0.0));
        return;
    }
    uint k = i / width, c = i - k * width, id = id_at(k), row = id - first;
    if (row >= block) return;  // also ids before `first`
    for (uint j = 0; j < k; j++)
        if (id_at(j) == id) return;
    vec4 sum = vec4(0.0);
    for (uint j = k; j < ids; j++)
        if (id_at(j) == id) sum += WIDE ? dy_at4((j * width + c) / 4) : vec4(dy_at(j * width + c));
    store(row * width + c, sum);
}
