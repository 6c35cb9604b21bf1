#version 450
// SPDX-License-Identifier: MIT
// delta (B, H, N) = row sums of output * dy per head; one invocation per row of a head, heads side
// by side.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint rows, N, H, D; };  // rows = B N H

TENSOR(0, y, DT0)
TENSOR(1, dy, DT1)
TENSOR(2, delta, DT2)

void main()
{
    uint i = group_number() * KERNEL_GROUP + gl_LocalInvocationID.x;
    if (i >= rows) return;
    float sum = 0.0;
    if (D % 4 == 0)
        for (uint d = 0; d < D / 4; d++)
            sum += dot(y_at4(i * (D / 4) + d), dy_at4(i * (D / 4) + d));
    else
        for (uint d = 0; d < D; d++) sum += y_at(i * D + d) * dy_at(i * D + d);
    delta_set((i / H / N * H + i % H) * N + i / H % N, sum);
}
