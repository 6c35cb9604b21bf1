#version 450
// SPDX-License-Identifier: MIT
// reduce_rows.comp - x (rows, width) to y (rows, chunks): sums, or sums of squares, of `length` neighbours. One
// subgroup per output; a further pass adds the chunks up.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "lanes.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = false;    // width and length are multiples of 4
layout(constant_id = KERNEL_SPEC_OWN + 1) const bool SQUARES = false;
layout(push_constant) uniform Push { uint count, width, chunks, length_; };

TENSOR(0, x, DT0)
TENSOR(1, y, DT1)

void main()
{
    lanes_count();
    for (uint i = ROWS_FIRST; i < count; i += ROWS_NEXT) {
        uint row = i / chunks, begin = (i - row * chunks) * length_, end = min(begin + length_, width);
        vec4 sum = vec4(0.0);
        if (WIDE) {
            for (uint j = (row * width + begin) / 4 + lane; j < (row * width + end) / 4; j += lanes) {
                vec4 v = x_at4(j);
                sum += SQUARES ? v * v : v;
            }
        } else {
            for (uint j = begin + lane; j < end; j += lanes) {
                float v = x_at(row * width + j);
                sum.x += SQUARES ? v * v : v;
            }
        }
        float total = subgroupAdd(sum4(sum));
        if (subgroupElect()) y_set(i, total);
    }
}
