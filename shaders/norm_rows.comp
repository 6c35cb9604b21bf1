#version 450
// SPDX-License-Identifier: MIT
// Layer norm over rows (rows, C), one subgroup per row: y = chain((x - mean) * rstd * gamma +
// beta), and the statistics (rows, 2). Each lane keeps its sums about its own first value;
// the lanes' moments are merged with their counts (Chan, Golub and LeVeque 1983), so a large mean
// costs no accuracy.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "vector.glsl"
#include "lanes.glsl"

layout(local_size_x = KERNEL_GROUP) in;
layout(push_constant) uniform Push { uint rows, C; float eps; CHAIN_PUSH };

#include "chain.glsl"
TENSOR(0, x, DT0)
TENSOR(1, gamma, DT1)
TENSOR(2, beta, DT2)
TENSOR(3, y, DT3)
TENSOR(4, stats, DT4)
VECTOR(x)
VECTOR(gamma)
VECTOR(beta)
VECTOR_OUT(y)

void main()
{
    lanes_count();
    uint columns = C / WIDTH;
    for (uint row = ROWS_FIRST; row < rows; row += ROWS_NEXT) {
        uint base = row * columns;
        float first = x_at(row * C), shift = x_at(row * C + min(lane * WIDTH, C - 1)), n = 0.0;
        vec4 sum = vec4(0.0), squares = vec4(0.0);
        for (uint c = lane; c < columns; c += lanes) {
            vec4 d = x_get(base + c) - shift;
            if (!WIDE) d = vec4(d.x, 0.0, 0.0, 0.0);
            sum += d;
            squares += d * d;
            n += float(WIDTH);
        }
        float s = sum4(sum), mean = first + subgroupAdd(s + n * (shift - first)) / float(C);
        float centre = shift - mean;             // the lane's values about the mean: d + centre
        float variance = subgroupAdd(sum4(squares) + centre * (2.0 * s + n * centre)) / float(C);
        float rstd = inversesqrt(max(variance, 0.0) + eps);
        if (lane == 0) {
            stats_set(2 * row, mean);
            stats_set(2 * row + 1, rstd);
        }
        for (uint c = lane; c < columns; c += lanes) {
            vec4 v = (x_get(base + c) - mean) * rstd * gamma_get(c) + beta_get(c);
            y_put(base + c, chain_apply_if(WIDE, v, WIDTH * (base + c)));
        }
    }
}
